"""What a notebook says is asserted, and each assert notices if a computed number is another (tests/held_claims.py).

The test that runs every notebook is in test_tutorials.py, so that each runs once.
"""

import ast
import importlib.machinery
import pathlib
import re
import types
from collections.abc import Callable
from typing import Any

import held_claims
import numpy as np
import pytest
from notebooks import cells_of_text, sources


@pytest.mark.parametrize("source", sources(), ids=lambda path: path.stem)
def test_a_section_that_states_a_number_or_an_order_asserts_something(source: pathlib.Path) -> None:
    assert held_claims.unheld_sections(cells_of_text(source.read_text(encoding="utf-8"))) == []


# The means see what they are there for

TEXT = """# %%
import numpy as np


def largest(x):
    assert x.ndim == 1
    return x.max()


a, name, found, table = np.array([1.0, 2.0, 4.0]), "abc", True, {"x": 3}
assert ASSERT

# %% tags=["solution"]
assert found or True
"""
HELD = (
    "found",
    "a.sum() == 7",
    "(a > 0).all()",
    "np.allclose(a, [1, 2, 4])",
    "largest(a) < 5",
    "a[2] / a[1] > 1.9",
    "all(value < 4 for value in table.values())",
    "'x' in table",
    "name.startswith('a')",
    "not (a < 0).any()",
    "sorted(a.tolist()) == a.tolist()",
)
EMPTY = ("found or True", "len(name) < 1000", "1 < 2", "isinstance(name, str)")


class Loader(importlib.machinery.SourceFileLoader):
    """Loads a module from a tree."""

    tree: ast.AST

    def get_code(self, fullname: str) -> types.CodeType:
        return compile(self.tree, self.path, "exec")  # type: ignore[arg-type]


class Shell:
    """What `watch` needs of IPython."""

    def __init__(self) -> None:
        self.module, self.ast_transformers, self.events = types.ModuleType("notebook"), list[Any](), self
        self.user_ns = vars(self.module)

    def register(self, event: str, function: Callable[[Any], None]) -> None:
        assert event == "pre_run_cell"
        self.begins = function

    def run_cell(self, text: str) -> None:
        self.begins(types.SimpleNamespace(raw_cell=text))
        loader = Loader("notebook", "cell.py")
        (transformer,), loader.tree = self.ast_transformers, ast.parse(text)
        loader.tree = transformer.visit(loader.tree)
        loader.exec_module(self.module)


def judged(program: str) -> list[tuple[str, str, bool]]:
    """Run the cells of a program, and return the place of each assert, its text, and whether it holds something."""
    shell = Shell()
    _, *cells = re.split(r"^# %%(.*\n)", program, flags=re.MULTILINE)
    pairs = list(zip(cells[::2], cells[1::2], strict=True))
    held_claims.watch(shell, [text for title, text in pairs if "solution" in title])
    for _, text in pairs:
        shell.run_cell(text)
    return [(*claim, held) for claim, held in shell.user_ns["_hold"].found.items()]


@pytest.mark.parametrize("text", [*HELD, *EMPTY])
def test_an_assert_that_holds_nothing_is_noticed(text: str) -> None:
    found = judged(TEXT.replace("ASSERT", text))
    assert [held for where, _, held in found if where == "cell 1, line 10"] == [text in HELD]
    assert all(where.startswith("cell 1, ") for where, _, _ in found)  # and not that of the solution


def test_parts_of_an_assert_are_judged_alone_and_a_false_one_stops() -> None:
    found = judged(TEXT.replace("ASSERT", "a[0] == 1 and len(name) < 1000"))
    assert [held for where, _, held in found if where == "cell 1, line 10"] == [True, False]
    with pytest.raises(AssertionError, match=r"cell 1, line 10: a\[0\] == 2"):
        judged(TEXT.replace("ASSERT", "a[0] == 2"))


def test_tampering_changes_a_value_and_leaves_the_first_as_it_was() -> None:
    for value in (True, 3, 0.5, "abc", np.arange(4.0), np.ones(3, bool), [1, 2], (1, "x"), {"k": 1}, {1, 2}, range(3)):
        before = repr(value)
        others = list(held_claims.tampered(value))
        assert others and repr(value) == before
        assert any(repr(other) != before for other in others)
    assert list(held_claims.tampered(np.sum)) == []


PROSE = '# %% [markdown]\n# ## 1 · {}\n#\n# {}\n\n# %%\n{}\n\n# %% tags=["solution"]\nassert False\n'


@pytest.mark.parametrize(
    ("prose", "code", "noticed"),
    [
        ("It takes 72 multiply-adds.", "x = 72", True),
        ("It takes seventy-two of them.", "x = 72", True),
        ("The first is larger than the second.", "x = 72", True),
        ("It takes 72 multiply-adds.", "assert 71 + 1 == 72", False),
        ("Look at figure 2, at section 3.1 and at notebooks 04 and 05.", "x = 72", False),
        ("The kernel is `3`, and $k = 3$.", "x = 72", False),
        ("It takes 72 multiply-adds.", "answer = ...\ncheck(answer)", False),
        ("It took 72 ms.", 'x = 72\n\n# %% tags=["varies"]\ny = 2', True),
    ],
)
def test_a_section_that_claims_and_asserts_nothing_is_noticed(prose: str, code: str, noticed: bool) -> None:
    text = "# ---\n# jupyter:\n# ---\n\n" + PROSE.format("A section", prose, code)
    assert bool(held_claims.unheld_sections(cells_of_text(text))) == noticed
