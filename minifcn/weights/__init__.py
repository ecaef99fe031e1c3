"""Weights of other libraries: their names, published sets and ONNX."""

FILES = ("names", "wrappers", "torch_state", "published", "onnx_graph")
