"""Weights of other libraries: their names, published sets and ONNX."""

FILES = (
    "names",
    "published",
    "onnx_graph",
)
