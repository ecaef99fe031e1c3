"""Benchmarks: the speed and memory of the operations, beside PyTorch."""

FILES = (
    "stopwatch",
    "rival",
    "studies",
    "scaling",
    "loading",
    "compare",
    "prediction",
)
