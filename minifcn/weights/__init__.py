"""Weights of other libraries: their names, published sets and ONNX."""

FILES = (
    "names",
    "torch_state",
    "published",
    "onnx_graph",
)
