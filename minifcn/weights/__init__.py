"""Whose weights: names in other libraries, published sets with their preprocessing, nets as ONNX or for PyTorch."""

FILES = (
    "names",
    "torch_state",
    "published",
    "onnx_graph",
)
