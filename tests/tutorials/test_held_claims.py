"""What a notebook says is asserted, and each assert notices if a computed number is another (tests/held_claims.py)."""

import pathlib

import held_claims
import numpy as np
import pytest
from ci_groups import GROUPS
from notebooks import cells_of_text, sources

EACH = pytest.mark.parametrize("source", sources(), ids=lambda path: path.stem)
REASON = GROUPS["tutorials"]()


@EACH
def test_a_section_that_states_a_number_or_an_order_asserts_something(source: pathlib.Path) -> None:
    assert held_claims.unheld_sections(cells_of_text(source.read_text(encoding="utf-8"))) == []


@pytest.mark.slow("runs a notebook from top to bottom")
@pytest.mark.tutorials
@pytest.mark.skipif(bool(REASON), reason=REASON or "it is here")
@EACH
def test_every_assert_notices_a_number_that_is_tampered_with(source: pathlib.Path) -> None:
    asserts = held_claims.asserts_of(source)
    assert len(asserts) >= 10
    assert [f"line {line}: {what}" for line, what, held in asserts if not held] == []


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


@pytest.mark.parametrize("text", [*HELD, *EMPTY])
def test_an_assert_that_holds_nothing_is_noticed(text: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "program.py"
    program = TEXT.replace("ASSERT", text)
    path.write_text(program, encoding="utf-8")
    asserts = {what: held for line, what, held in held_claims.run(path, program) if line == 11}
    assert list(asserts.values()) == [text in HELD]


def test_parts_of_an_assert_are_judged_alone_and_a_false_one_stops(tmp_path: pathlib.Path) -> None:
    program = TEXT.replace("ASSERT", "a[0] == 1 and len(name) < 1000")
    found = held_claims.run(tmp_path / "program.py", program)
    assert [held for line, _, held in found if line == 11] == [True, False]
    with pytest.raises(AssertionError, match=r"line 11: a\[0\] == 2"):
        held_claims.run(tmp_path / "program.py", TEXT.replace("ASSERT", "a[0] == 2"))


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
