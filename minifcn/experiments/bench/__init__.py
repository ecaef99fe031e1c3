"""Benchmarks: the speed and memory of the operations, beside PyTorch."""

FILES = (
    "stopwatch",
    "rival",
    "studies",
    "gpu",
    "scaling",
    "loading",
    "compare",
    "prediction",
)
