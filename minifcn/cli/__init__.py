"""The commands, one verb a file: the only room with flags, printing, exit codes and advice about options."""

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
    "bench",
    "verbs",
)
