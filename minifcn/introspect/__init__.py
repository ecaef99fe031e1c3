"""Look at a net without training it: layers, cost, memory, ladder design and figure; find its wrong gradients."""

FILES = (
    "markup",
    "notebook",
    "outline",
    "figure",
    "design",
    "describe",
    "explain",
    "detective",
    "planted",
)
