"""Experiments with the library: the paper rerun, benchmarks, dense prediction, amortized time, digits, grades."""

FILES = (
    "amortize",
    "digits",
    "classify",
    "dense",
    "grading",
    "bench",
    "reproduction",
)
