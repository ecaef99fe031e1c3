"""A net looked at and not trained: its layers, cost and memory, the design of its ladder, its figure."""

FILES = (
    "outline",
    "figure",
    "design",
    "describe",
)
