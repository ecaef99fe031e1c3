"""Whose weights: the names other libraries use, published sets with their preprocessing, and nets written as ONNX."""

FILES = (
    "names",
    "published",
    "onnx_graph",
)
