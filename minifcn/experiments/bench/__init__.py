"""How fast the operations are here, and how much memory they take, beside PyTorch."""

FILES = (
    "stopwatch",
    "rival",
    "studies",
    "compare",
    "prediction",
)
