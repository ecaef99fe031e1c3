"""One training run: options, the loop, evaluation, the run folder and the report."""

FILES = (
    "device",
    "progress",
    "signals",
    "runlog",
    "environment",
    "divergence",
    "options",
    "setup",
    "net_record",
    "run_folder",
    "recipes",
    "advice",
    "report",
    "evaluation",
    "prediction",
    "trained",
    "transfer",
    "pretraining",
    "plan",
    "loop",
)
