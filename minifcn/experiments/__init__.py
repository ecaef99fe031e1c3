"""What uses the library to find something out: the paper re-run, benchmarks, dense answers, photographs, digits."""

FILES = (
    "amortize",
    "digits",
    "classify",
    "dense",
    "bench",
    "reproduction",
)
