"""Look at a net without training it: layers, cost, memory, ladder design and figure."""

FILES = (
    "markup",
    "notebook",
    "outline",
    "figure",
    "design",
    "describe",
    "explain",
)
