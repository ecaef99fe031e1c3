"""Flags and prints belong to the commands: the library names arguments, and returns what it has to say."""

import ast
import pathlib
import re
from collections.abc import Iterator

from line_budget import nodes, parsed

from minifcn.cli.verbs import VERBS

PACKAGE = pathlib.Path(__file__).parent.parent.parent / "minifcn"
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")

CALLED = {  # strings that hold the flags of a program which the file itself starts or advises
    "experiments/reproduction/runner.py": {"--threads", "--json", "--resume", "--run", "--no-", "--init"},
    "kernels/fused.py": {"--fmad"},
    "training/device.py": {"--upgrade"},
    "training/ranks.py": {"--mpi", "--shm-size"},
}

COMMAND = re.compile(rf"\bminifcn ({'|'.join(VERBS)})\b")
SHOWN = {  # files with strings that name a command: titles of pages, and help texts
    "experiments/reproduction/page.py",
    "training/index_page.py",
    "training/pretraining.py",
}


def strings(tree: ast.Module) -> Iterator[str]:
    """The strings of a file that run: docstrings are left out."""
    docstrings = {id(node.value) for node in nodes(tree) if isinstance(node, ast.Expr)}
    for node in nodes(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def library() -> Iterator[tuple[str, ast.Module]]:
    """The files outside the commands' room, with their syntax trees."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith("cli/") and name not in ("__main__.py", "train.py"):
            yield name, parsed(path.read_text(encoding="utf-8"))


def test_the_library_names_no_flag() -> None:
    """A person who calls a function has arguments, and no flags."""
    found = {name: {flag for text in strings(tree) for flag in FLAG.findall(text)} for name, tree in library()}
    assert {name: flags for name, flags in found.items() if flags} == CALLED


def test_the_library_names_no_command() -> None:
    """What comes next is said in words or by an argument: only a command line has commands."""
    assert {name for name, tree in library() if any(COMMAND.search(text) for text in strings(tree))} <= SHOWN


def test_the_library_prints_nothing() -> None:
    """What there is to say is returned, logged, or raised."""
    prints = [
        f"{name}:{node.lineno}"
        for name, tree in library()
        for node in nodes(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert prints == []


def test_a_flag_is_found_where_one_stands() -> None:
    tree = ast.parse('"""--docs are free."""\nraise UsageError(f"{x}: use --resume, or a--b")')
    assert [flag for text in strings(tree) for flag in FLAG.findall(text)] == ["--resume"]
