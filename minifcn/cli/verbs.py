"""The table of verbs and the `minifcn` command that dispatches to them."""

import difflib
import importlib
import sys

from minifcn import __version__
from minifcn.cli.command import guard, say
from minifcn.errors import UsageError

VERBS = {
    "train": "train a network; without arguments, on the embedded world",
    "pretrain": "train a trunk as a classifier on the embedded world, for --init",
    "evaluate": "compute the paper's four metrics of a run, beside two baselines",
    "predict": "segment images with a trained network",
    "classify": "name what a photograph shows, by SqueezeNet or your own weights; draw where",
    "inspect": "list what a weight file contains, and which net it fits",
    "convert": "convert weights of Caffe, PyTorch, NumPy, Keras or MATLAB into a checkpoint",
    "export": "write a trained net as ONNX, or as a state dict for PyTorch",
    "describe": "list every layer of a net, its cost and its memory, before anything runs",
    "design": "compute the crops, kernels and smallest safe padding of a ladder, or why not",
    "dense": "compare four ways of dense prediction: what each costs, where they agree",
    "data": "make, fetch, check or import a data set",
    "reproduce": "rerun the paper at the scale of a laptop, beside its own numbers",
    "doctor": "check this machine and suggest fixes",
    "digits": "train LeNet to read digits in seconds, then find them on a larger sheet",
    "amortize": "time a net patch by patch and all at once: the experiment of section 3.1",
    "grade": "list which exercises of a notebook of the course are solved",
    "bench": "measure how fast the operations are here, and how much memory they take",
}
RANKED = ("train", "bench")  # the verbs that several processes of MPI may share
MODULES = {"inspect": "inspect_weights"}  # no module is named like one of Python's own

USAGE = "\n".join(
    [
        "usage: minifcn <verb> [options]      minifcn <verb> --help      minifcn --version",
        "",
        *(f"  {verb:<10} {what}" for verb, what in VERBS.items()),
        "",
        "Every verb takes --debug, which shows the whole traceback of an error.",
    ]
)


def main(argv: list[str] | None = None) -> int:
    """Run the `minifcn` script and return the exit code of the verb."""
    return guard(dispatch, sys.argv[1:] if argv is None else argv)


def dispatch(argv: list[str]) -> int:
    """Run the verb's own `main` on the arguments after it, and return its exit code; only its module is imported."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        say(*USAGE.split("\n"))
        return 0
    verb, *rest = argv
    if verb in ("-V", "--version"):
        say(f"minifcn {__version__}")
        return 0
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(VERBS)}"
        raise UsageError(f"unknown verb {verb!r}: {hint}")
    if verb not in RANKED:
        refuse_ranks(verb)
    return importlib.import_module(f"minifcn.cli.{MODULES.get(verb, verb)}").main(rest)


def refuse_ranks(verb: str) -> None:
    """Raise `UsageError` if a launcher of MPI started several of this process: they would write the same files."""
    from minifcn.training.ranks import launched

    size, rank = launched()
    if size > 1:
        if rank:
            raise SystemExit(UsageError.exit_code)  # one of them says it
        raise UsageError(f"{size} processes were started, and `minifcn {verb}` is one; expected {' or '.join(RANKED)}")


if __name__ == "__main__":
    sys.exit(main())
