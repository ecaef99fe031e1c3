"""Look at a net without training it: layers, cost, memory, ladder design and figure."""

FILES = (
    "text",
    "outline",
    "figure",
    "design",
    "describe",
)
