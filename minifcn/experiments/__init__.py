"""Experiments with the library: the paper rerun, benchmarks, dense prediction, amortized time, digits."""

FILES = (
    "amortize",
    "digits",
    "classify",
    "dense",
    "bench",
    "reproduction",
)
