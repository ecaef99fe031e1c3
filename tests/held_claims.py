"""Whether the asserts of a notebook hold what its prose says: a number is tampered with, and the assert must notice.

    python tests/held_claims.py        every notebook of the course
    python tests/held_claims.py 01 02  those

The notebook runs once; the tests compare the outputs of the same run. Each `assert` is evaluated as it stands, and then
again with one of its subjects changed: a name, an operand of a comparison, an argument. A number gets another sign or
size, an array one other element, a list another order. An assert that stays true whatever is changed holds nothing.
`a and b` are two. Asserts in cells tagged `solution` are about the checkers, and left out.
"""

import ast
import builtins
import contextlib
import io
import itertools
import json
import pathlib
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from notebooks import Cell, cells_of_text, run, sources

CLAIM = re.compile(
    r"\d|\b(two|three|four|five|six|seven|eight|nine|ten|twelve|sixteen|hundred|thousand|twice|half|equals?|same|exactly"
    r"|than|largest|smallest|most|nearly|almost|all|every|none|no longer)\b"
)
"""A number, an order or an equality in a sentence."""
ASIDE = re.compile(
    r"\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|\[[^\]]*\]\([^)]*\)|^ *\d+\. |\d+ · "
    r"|\b(notebooks?|sections?|figures?|tables?|appendix|footnote) [\d.]*\d(, \d+)*( (and|to) \d+)?",
    re.DOTALL | re.MULTILINE | re.IGNORECASE,
)
"""What in a text is no claim: formulas, code, links, numbers of sections."""


# What stands in the text


def sections(cells: list[Cell]) -> Iterator[tuple[str, str, list[Cell]]]:
    """Each section (`## ...`) as its heading, its prose without exercises, and its code without solutions."""
    heading, prose, code = "", "", []
    for cell in cells:
        if cell.kind == "code":
            code += [cell] if "solution" not in cell.tags else []
            continue
        first, *rest = re.split(r"^## ", cell.source, flags=re.MULTILINE)
        prose += "\n\n" + first.split("### ")[0]
        for text in rest:
            yield heading, prose, code
            heading, _, body = text.partition("\n")
            prose, code = body.split("### ")[0], []
    yield heading, prose, code


def unheld_sections(cells: list[Cell]) -> list[str]:
    """The sections that compute something, state a number or an order, and assert nothing."""
    return [
        f"section {heading!r} states {match[0]!r} and asserts nothing"
        for heading, prose, code in sections(cells)
        if any(is_work(cell) for cell in code)
        and (match := CLAIM.search(ASIDE.sub(" ", prose)))
        and not any(isinstance(node, ast.Assert) for cell in code for node in ast.walk(ast.parse(cell.source)))
    ]


def is_work(cell: Cell) -> bool:
    """Whether a cell computes something that does not vary; the cell of an exercise waits for an answer."""
    return "varies" not in cell.tags and not re.search(r"= \.\.\.", cell.source)


# Tampering


def tampered(value: Any) -> Iterator[Any]:
    """Other values in the place of one: of its kind, and not far away."""
    if isinstance(value, bool | np.bool_):
        yield not value
    elif isinstance(value, int | float | Fraction | np.number):
        yield from (value + 1, value - 1, -value, value * 10, value / 10)
    elif isinstance(value, np.dtype):
        yield np.dtype("complex64")
    elif isinstance(value, str):
        yield from (value + "?", value[1:])
    elif isinstance(value, np.ndarray) and value.dtype == bool and value.size:
        yield from (changed(value, at, not value.flat[at]) for at in (0, value.size // 2, -1))
        yield ~value
    elif isinstance(value, np.ndarray) and value.dtype.kind in "iuf" and value.size:
        for at in (0, value.size // 2, -1):
            yield changed(value, at, value.flat[at] + (1 + abs(value.flat[at])))
        yield from (value + 1, value - 1, 0 - value, value * 10, value / 10, value[::-1])
    elif isinstance(value, dict):
        for key in value:
            yield from ({**value, key: other} for other in itertools.islice(tampered(value[key]), 5))
        yield {}
    elif isinstance(value, list | tuple | range | set | frozenset):
        values = list(value)
        if isinstance(value, set | frozenset):
            yield {*values, "?"}
        for at in {0, len(values) // 2, len(values) - 1} if values else ():
            others = itertools.islice(tampered(values[at]), 5)
            yield from (remade(value, [*values[:at], other, *values[at + 1 :]]) for other in others)
        yield from (remade(value, other) for other in (values[1:], values[::-1], []))


def changed(values: np.ndarray, at: int, to: Any) -> np.ndarray:
    other = values.copy()
    other.flat[at] = to
    return other


def remade(like: Any, values: list[Any]) -> Any:
    kind = {range: list, tuple: tuple}.get(type(like), type(like) if isinstance(like, set | frozenset) else list)
    return kind(values)


def subject(number: int, node: ast.expr) -> ast.expr:
    """`node` as `_hold.subject(number, node)`, which may give another value."""
    function = ast.Attribute(ast.Name("_hold", ast.Load()), "subject", ast.Load())
    return ast.copy_location(ast.Call(function, [ast.Constant(number), node], []), node)


class Subjects(ast.NodeTransformer):
    """Wrap in an expression every name, operand, argument and receiver of a method."""

    def __init__(self) -> None:
        self.count = 0

    def wrapped(self, node: ast.expr) -> ast.expr:
        if isinstance(node, ast.Constant | ast.Name | ast.Starred | ast.GeneratorExp | ast.Lambda | ast.BoolOp):
            return self.visit(node)
        self.count += 1
        number = self.count
        return subject(number, self.visit(node))

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if not isinstance(node.ctx, ast.Load) or hasattr(builtins, node.id):
            return node
        self.count += 1
        return subject(self.count, node)

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        node.left, node.comparators = self.wrapped(node.left), [self.wrapped(each) for each in node.comparators]
        return node

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> ast.expr:
        node.elt = self.wrapped(node.elt)
        node.generators = [self.visit(each) for each in node.generators]
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        if isinstance(node.func, ast.Attribute):
            node.func.value = self.wrapped(node.func.value)
        node.args = [self.wrapped(each) for each in node.args]
        for keyword in node.keywords:
            keyword.value = self.visit(keyword.value)
        return node


class Instrument(ast.NodeTransformer):
    """`assert a and b` becomes `_hold(where, "a", lambda: a)` and the same for b, each with its subjects wrapped.

    Cells with one of the texts in `spared` stay as they are.
    """

    def __init__(self, spared: Collection[str] = ()) -> None:
        self.spared, self.cell, self.active = spared, 0, True

    def begins(self, info: Any) -> None:
        """IPython is about to run a cell."""
        self.cell, self.active = self.cell + 1, info.raw_cell not in self.spared

    def visit_Assert(self, node: ast.Assert) -> ast.stmt | list[ast.stmt]:
        if not self.active:
            return node
        made: list[ast.stmt] = []
        parted = isinstance(node.test, ast.BoolOp) and isinstance(node.test.op, ast.And)
        for part in node.test.values if parted else [node.test]:
            text, wrapped = ast.unparse(part), Subjects().visit(part)
            nothing = ast.arguments([], [], None, [], [], None, [])
            where = f"cell {self.cell}, line {node.lineno}"
            arguments = [ast.Constant(where), ast.Constant(text), ast.Lambda(nothing, wrapped)]
            call = ast.Expr(ast.Call(ast.Name("_hold", ast.Load()), arguments, []))
            made.append(ast.fix_missing_locations(ast.copy_location(call, node)))
        return made


class Hold:
    """What the asserts of the program call; it remembers which of them a change of one value makes false."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], bool] = {}
        self.number, self.other = 0, 0  # the subject that is changed, and the how-manieth of its other values it gets
        self.seen = self.offered = 0

    def subject(self, number: int, value: Any) -> Any:
        self.seen = max(self.seen, number)
        if number != self.number:
            return value
        others = list(itertools.islice(tampered(value), self.other + 1))
        self.offered = max(self.offered, len(others))
        return others[self.other] if self.other < len(others) else value

    def __call__(self, where: str, text: str, test: Callable[[], Any]) -> None:
        before = self.number, self.other, self.seen, self.offered  # of an assert that calls a function with this one
        self.number = self.seen = 0
        try:
            if not test():
                raise AssertionError(f"{where}: {text}")
            if not before[0]:
                self.found[where, text] = self.found.get((where, text)) or self.falsified(test)
        finally:
            self.number, self.other, self.seen, self.offered = before

    def falsified(self, test: Callable[[], Any]) -> bool:
        """Whether some change of one subject makes the test false; one that makes it fail shows nothing."""
        last = self.seen
        for self.number in range(last, 0, -1):
            for self.other in range(40):
                self.offered = 0
                with (
                    contextlib.suppress(Exception),
                    np.errstate(all="ignore"),
                    warnings.catch_warnings(action="ignore"),
                    contextlib.redirect_stdout(io.StringIO()),
                    contextlib.redirect_stderr(io.StringIO()),
                ):
                    if not test():
                        return True
                if self.offered <= self.other:
                    break
        return False


def watch(shell: Any, spared: Collection[str]) -> None:
    """Instrument each cell that this IPython runs from now on; `_hold.found` has what came of it."""
    shell.user_ns["_hold"], instrument = Hold(), Instrument(spared)
    shell.events.register("pre_run_cell", instrument.begins)
    shell.ast_transformers.append(instrument)


def asserts_of(source: pathlib.Path) -> tuple[dict[str, Any], list[tuple[str, str, bool]]]:
    """Run a notebook. Return it, and for each of its asserts the place, the text, and whether it holds something."""
    spared = [cell.source for cell in cells_of_text(source.read_text(encoding="utf-8")) if "solution" in cell.tags]
    first = f"import held_claims; held_claims.watch(get_ipython(), {spared!r})"
    last = "import json\nprint(json.dumps([[*claim, held] for claim, held in _hold.found.items()]))"
    notebook, printed = run(source, first=first, last=last)
    return notebook, [tuple(each) for each in json.loads(printed)]


def main(argv: list[str]) -> int:
    empty = 0
    for source in sources():
        if argv and source.name[:2] not in argv:
            continue
        _, asserts = asserts_of(source)
        wrong = [f"{where} holds nothing: {what}" for where, what, held in asserts if not held]
        wrong += unheld_sections(cells_of_text(source.read_text(encoding="utf-8")))
        print(f"{source.name}: {len(asserts)} claims", *wrong, sep="\n  ")
        empty += len(wrong)
    return int(empty > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
