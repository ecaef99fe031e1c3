"""One training run: its options, the loop, evaluation, the run folder, the report."""

FILES = (
    "device",
    "progress",
    "text",
    "signals",
    "runlog",
    "environment",
    "divergence",
    "options",
    "setup",
    "recipes",
    "advice",
    "report",
    "evaluation",
    "trained",
    "transfer",
    "pretraining",
    "plan",
    "loop",
)
