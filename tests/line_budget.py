"""How long the course and the package are, in lines of code: comments, docstrings and blank lines are free.

    python tests/line_budget.py

The course is every file that lies loose in the package, with everything that those files import, and what is imported
there in turn: a student should be able to read all of it. A budget is raised by an edit here that has to be
justified, and never met by writing denser lines.
"""

import ast
import functools
import io
import pathlib
import sys
import tokenize
from collections.abc import Iterator

COURSE_BUDGET = 4445
PACKAGE_BUDGET = 24559
PACKAGE = pathlib.Path(__file__).parent.parent / "minifcn"
ENTRANCES = ("__init__.py", "__main__.py", "train.py")
"""Loose files that are no part of the course: they only lead to what is inside."""
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


@functools.cache
def parsed(source: str) -> ast.Module:
    """The syntax tree of a source, of which many questions are asked."""
    return ast.parse(source)


@functools.cache
def nodes(tree: ast.AST) -> tuple[ast.AST, ...]:
    """All nodes of a syntax tree, which is walked once."""
    return tuple(ast.walk(tree))


@functools.cache
def code_lines(source: str) -> int:
    """The lines of `source` that hold code: any token but a comment, outside docstrings."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in LAYOUT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in nodes(parsed(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


@functools.cache
def imported(name: str, source: str) -> tuple[str, ...]:
    """Every module the file imports, anywhere in it, relative names resolved: "numpy", "minifcn.ops.conv.conv2d"."""
    here = ["minifcn", *name.removesuffix(".py").split("/")][:-1]
    found: list[str] = []
    for node in nodes(parsed(source)):
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level + 1] if node.level else []
            base = [*above, *(node.module or "").split(".")] if node.module else above
            found += (".".join([*base, alias.name]) for alias in node.names)
    return tuple(found)


def files_of(module: str) -> Iterator[pathlib.Path]:
    """The files of the package that are read when a module is imported: the `__init__.py` of its rooms, and its own."""
    root, *path = module.split(".")
    for depth in range(1, len(path) + 1) if root == "minifcn" else ():
        place = PACKAGE.joinpath(*path[:depth])
        yield from (file for file in (place / "__init__.py", place.with_suffix(".py")) if file.is_file())


def course() -> list[pathlib.Path]:
    """The files of the course, and all that they import."""
    files = [file for file in sorted(PACKAGE.glob("*.py")) if file.name not in ENTRANCES]
    for file in files:  # which grows while it is walked
        for module in imported(file.relative_to(PACKAGE).as_posix(), file.read_text(encoding="utf-8")):
            files += (other for other in files_of(module) if other not in files)
    return files


def count(files: list[pathlib.Path]) -> dict[str, int]:
    """Code lines per file."""
    return {file.relative_to(PACKAGE).as_posix(): code_lines(file.read_text(encoding="utf-8")) for file in files}


def main() -> int:
    read, everything = count(course()), sum(count(sorted(PACKAGE.rglob("*.py"))).values())
    for name, lines in read.items():
        print(f"{lines:6}  minifcn/{name}")
    total = sum(read.values())
    print(f"{total:6}  code lines in the course and all that it imports, of {COURSE_BUDGET}")
    print(f"{everything:6}  code lines in the package, of {PACKAGE_BUDGET}")
    return int(total > COURSE_BUDGET or everything > PACKAGE_BUDGET)


if __name__ == "__main__":
    sys.exit(main())
