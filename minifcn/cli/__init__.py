"""The commands, one verb per file: the only room with flags, printing and exit codes."""

FILES = (
    "command",
    "train",
    "pretrain",
    "evaluate",
    "predict",
    "classify",
    "inspect_weights",
    "convert",
    "export",
    "data",
    "reproduce",
    "describe",
    "design",
    "dense",
    "digits",
    "amortize",
    "doctor",
    "grade",
    "bench",
    "verbs",
)
