"""Every exercise of the course: its checker takes the solution, sees through plausible mistakes, and stays polite."""

import functools
import importlib
import pathlib
import re
import sys
from fractions import Fraction

import numpy as np
import pytest

TUTORIALS = pathlib.Path(__file__).parent.parent.parent / "tutorials"


def modules() -> list[str]:
    return sorted(path.stem for path in (TUTORIALS / "exercises").glob("n[0-9][0-9].py"))


@pytest.fixture(autouse=True)
def _course(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TUTORIALS))
    monkeypatch.chdir(TUTORIALS)


def names(module: str) -> list[str]:
    text = (TUTORIALS / "exercises" / f"{module}.py").read_text(encoding="utf-8")
    return re.findall(r"^(?:def )?check_(\w+)(?:\(| = )", text, re.MULTILINE)


EACH = pytest.mark.parametrize(("module", "name"), [(module, name) for module in modules() for name in names(module)])


def parts(module: str, name: str):
    check = getattr(importlib.import_module(f"exercises.{module}"), f"check_{name}")
    if name == "quiz":
        return check, check.key, ["".join("bca"["abc".index(letter)] for letter in check.key), check.key[:2], "xyz"]
    solution = getattr(importlib.import_module(f"solutions.{module}"), name)
    return check, solution, importlib.import_module(f"wrong_answers.{module}").WRONG[name]


@EACH
def test_the_solution_is_accepted(module: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    check, solution, _ = parts(module, name)
    assert check(solution)
    assert capsys.readouterr().out.startswith("right: ")


@EACH
def test_plausible_mistakes_are_seen_and_named(module: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    check, _, mistakes = parts(module, name)
    assert len(mistakes) >= 2
    for place, mistake in enumerate(mistakes):
        assert not check(mistake), f"wrong answer {place} was accepted"
        said = capsys.readouterr().out.strip()
        assert said.startswith("not right: ") and len(said) > 30 and "\n" not in said, said


@EACH
def test_no_answer_yet_and_answers_of_another_kind(module: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    check, _, _ = parts(module, name)
    for nothing in (None, ...):
        assert not check(nothing)
        assert capsys.readouterr().out.startswith("not yet: ")
    for odd in ("forty-two", -1e9, [], {}, lambda: 0, object(), np.zeros((2, 3, 5, 7))):
        assert not check(odd)
        assert capsys.readouterr().out.startswith("not right: ")


def other_styles(answer):
    """The same answer as people also write it."""
    if isinstance(answer, bool):
        return
    if isinstance(answer, int):
        yield from (np.int64(answer), float(answer), np.array(answer), np.float32(answer), Fraction(answer))
    elif isinstance(answer, str):
        yield from (answer.lower(), answer.upper(), f" {answer} ", ", ".join(answer.split()), f"({answer})")
    elif isinstance(answer, set | frozenset):
        yield from (sorted(answer), tuple(answer), {name.replace(" ", "") for name in answer})
        yield from ({name.upper() for name in answer}, " , ".join(answer))
    elif isinstance(answer, dict):
        yield {key.lower(): f" {value.upper()}".replace(" ", "-") for key, value in answer.items()}
        yield list(answer.values())
    elif isinstance(answer, tuple):
        yield from (list(answer), np.array([float(part) for part in answer]))
    elif isinstance(answer, np.ndarray):
        yield from (answer.tolist(), answer.astype(np.float32))
    elif callable(answer):

        def written(value, kind, together):
            if isinstance(value, tuple):
                return together(written(part, kind, together) for part in value)
            number = isinstance(value, int | float | Fraction | np.number) and not isinstance(value, bool)
            return kind(value) if number else value

        for kind in (float, np.float64, np.array, lambda number: number):
            for together in (list, tuple):
                yield lambda *args, kind=kind, together=together: written(answer(*args), kind, together)
        yield functools.partial(answer)


@EACH
def test_the_same_answer_in_another_style_is_right(module: str, name: str) -> None:
    check, solution, _ = parts(module, name)
    for number, answer in enumerate(other_styles(solution)):
        assert check.accepts(answer), f"style {number}: {answer!r}"


@EACH
def test_an_error_in_the_answers_own_code_is_shown_with_its_line(module: str, name: str, capsys) -> None:
    check, solution, _ = parts(module, name)
    if not callable(solution):
        return

    def mistaken(*arguments):
        count = len(arguments)
        return count / 0

    assert not check(mistaken)
    said = capsys.readouterr().out
    assert (
        said
        == "not right: your function raised ZeroDivisionError: division by zero (in its line 3, `return count / 0`)\n"
    )
    for nothing in (None, ...):
        assert not check(lambda *arguments, nothing=nothing: nothing)
        assert f"your function returned {nothing}: end it with `return`" in capsys.readouterr().out
    assert not check(3.5)
    assert capsys.readouterr().out == "not right: expected a function, found 3.5\n"


def halved(count):
    return count / 0


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (functools.partial(halved), "your function raised ZeroDivisionError: division by zero (in its line 2, `re"),
        (functools.cache(halved), "your function raised ZeroDivisionError: division by zero (in its line 2, `return"),
        (lambda depth: halved(depth), "division by zero (in line 2 of halved, `return count / 0`)"),
        (lambda depth: sys.exit(3), "your function raised SystemExit: 3 (in its line 1, "),
        (lambda: (2, 2), "calling your function ended in TypeError: <lambda>() takes 0 positional arguments but 1 "),
        (lambda depth: 2, "expected two numbers, (careless, counted); found 2"),
        (lambda depth: ("two", 2), "expected a number, found 'two'"),
        (lambda depth: np.zeros((2, 3)), "expected a number, found array([0., 0., 0.])"),
        (lambda depth: np.zeros((3, 3)), "expected two numbers, (careless, counted); found an array of shape (3, 3)"),
    ],
)
def test_a_sentence_says_where_it_went_wrong(answer, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert not importlib.import_module("exercises.n01").check_calls(answer)
    said = capsys.readouterr().out
    assert said.startswith("not right: ") and sentence in said and said.count("\n") == 1


def test_a_quiz_names_the_questions_to_think_about_again(capsys: pytest.CaptureFixture[str]) -> None:
    check = importlib.import_module("exercises").quiz("b: one", "a: two", "c: three")
    assert check("bac") and check("B, A, C") and check(["b", "a", "c"]) and check(("b", "A", "c"))
    assert check({1: "b", 2: "a", 3: "c"})
    assert not check("bca") and not check("ba") and not check("bad") and not check(3)
    said = capsys.readouterr().out.split("\n")
    assert said[0] == "right: one; two; three"
    assert said[5] == "not right: 1 of 3; think again about question 2 and 3"
    assert all("expected 3 letters" in line for line in said[6:9])


@pytest.mark.parametrize("module", modules())
def test_a_quiz_names_the_mistake_in_each_wrong_answer(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    check = importlib.import_module(f"exercises.{module}").check_quiz
    for place, reasons in enumerate(check.reasons):
        assert sorted(reasons) == ["a", "b", "c"] and min(len(reason) for reason in reasons.values()) > 10
        for letter in sorted({*reasons} - {check.key[place]}):
            assert not check(check.key[:place] + letter + check.key[place + 1 :])
            hint = f"think again about question {place + 1}; {place + 1}{letter}: {reasons[letter]}"
            assert capsys.readouterr().out.strip() == f"not right: 2 of 3; {hint}"


def test_an_answer_gets_a_mark_which_a_notebook_shows(capsys: pytest.CaptureFixture[str]) -> None:
    check = importlib.import_module("exercises").quiz({"b": "one", "a": "two is not one"}, "a: two", "c: three")
    marks = [check(answer) for answer in ("bac", "aac", "cac", ...)]
    assert [repr(each) for each in marks] == ["✓", "✗", "✗", "☐"] and marks == [True, False, False, False]
    said = capsys.readouterr().out.split("\n")
    assert said[1].endswith("question 1; 1a: two is not one") and said[2].endswith("question 1")


def test_the_form_of_an_exercise(capsys: pytest.CaptureFixture[str]) -> None:
    form = importlib.import_module("exercises")

    @form.exercise
    def check_area(answer):
        return form.right("three by three") if answer / 1 == 9 else form.wrong(f"it is not {answer}")

    assert [check_area(answer) for answer in (9, 8, "nine", None)] == [True, False, False, False]
    said = capsys.readouterr().out.split("\n")
    assert said[0] == "right: three by three" and said[1] == "not right: it is not 8"
    assert "TypeError" in said[2] and said[3].startswith("not yet")


def test_every_module_of_exercises_belongs_to_a_notebook() -> None:
    assert "exercises" not in sys.modules or sys.modules["exercises"].__file__.startswith(str(TUTORIALS))
    numbers = {path.name[:2] for path in TUTORIALS.glob("[0-9][0-9]_*.py")}
    assert {module[1:] for module in modules()} == numbers
