"""One training run: options, the loop, evaluation, the run folder and the report."""

FILES = (
    "device",
    "progress",
    "signals",
    "runlog",
    "environment",
    "divergence",
    "step",
    "options",
    "setup",
    "recipes",
    "advice",
    "report",
    "evaluation",
    "prediction",
    "trained",
    "transfer",
    "pretraining",
    "plan",
    "resume",
    "loop",
)
