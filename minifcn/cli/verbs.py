"""The table of verbs and the `minifcn` command that dispatches to them."""

import difflib
import importlib
import sys

from minifcn import __version__
from minifcn.cli.command import guard, say
from minifcn.errors import UsageError

VERBS = {
    "train": "train a network; without arguments, on the embedded world",
    "pretrain": "a trunk learns to name single things of the embedded world, for --init",
    "evaluate": "the paper's four metrics of a run on a data set, beside two baselines",
    "predict": "segment images with a trained network",
    "classify": "what is on a photograph, by SqueezeNet or weights of your own; a heat map of where",
    "inspect": "what is in a file of weights, and which net it fits",
    "convert": "weights of Caffe, PyTorch, NumPy, Keras or MATLAB as a checkpoint",
    "export": "a trained net as ONNX, or as a state dict for PyTorch",
    "describe": "every layer of a net, its cost and its memory, before anything runs",
    "design": "the crops, kernels and smallest safe padding of any ladder, or why there is none",
    "dense": "dense prediction four ways: what each costs, and where they agree",
    "data": "a data set written, fetched, or looked through for all that is wrong with it",
    "reproduce": "the paper re-run at the scale of a laptop, row by row beside its own numbers",
    "doctor": "check this machine and suggest fixes",
    "digits": "LeNet learns to read digits in seconds, and finds them on a larger sheet",
    "amortize": "patch by patch against all at once: the timing experiment of section 3.1",
    "grade": "which exercises of a notebook of the course are solved",
    "bench": "how fast the operations are here, and how much memory they take",
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
    """The entry point of the `minifcn` script: returns the exit code of the verb."""
    return guard(dispatch, sys.argv[1:] if argv is None else argv)


def dispatch(argv: list[str]) -> int:
    """Hand the arguments after the verb to the verb's own `main`; only that verb's module is imported."""
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
