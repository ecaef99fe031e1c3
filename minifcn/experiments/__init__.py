"""What uses the library to find something out: the paper re-run, benchmarks, dense prediction, digits."""

FILES = (
    "amortize",
    "digits",
    "dense",
    "bench",
    "reproduction",
)
