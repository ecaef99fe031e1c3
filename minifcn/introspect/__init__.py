"""Look at a net: layers, cost, memory, ladder design and figure; find its wrong gradients; watch a step."""

FILES = (
    "markup",
    "notebook",
    "outline",
    "figure",
    "design",
    "describe",
    "launches",
    "explain",
    "detective",
    "planted",
    "frames",
)
