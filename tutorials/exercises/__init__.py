"""The checkers of the exercises: `nNN.check_<name>(answer)` says "right: ..." or, in one sentence, what is wrong.

A checker is written as a function that returns that sentence:

    @exercise
    def check_area(answer):
        if answer != 9:
            return wrong(f"a window of 3x3 has 9 pixels, you say {answer}")
        return right("and so has every other one")

`@exercise` prints what it returns, and turns it into True or False; `check_area.accepts(answer)` does so without
printing. Nothing done yet (`...` or None) is "not yet". NumPy's numbers, whole floats and whole fractions arrive as
Python's integers, also where an answer is a function that returns them. An answer that raises an error is wrong: the
sentence names the error, and the line if it is one of the answer's own.

`quiz("b: because ...", "a: ...", "c: ...")` makes the checker of three questions with the answers a, b and c.
"""

from __future__ import annotations

import functools
import inspect
import json
import linecache
import math
import os
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from types import CodeType
from typing import Any

import numpy as np


class Verdict(str):
    """A sentence for the reader, and whether the answer was right."""

    right = False


def right(why: str) -> Verdict:
    verdict = Verdict(f"right: {why}")
    verdict.right = True
    return verdict


def wrong(why: str) -> Verdict:
    return Verdict(f"not right: {why}")


class UnusableError(Exception):
    """What an answer returned is of another kind than the exercise wants; the message is for the reader."""


def exercise(check: Callable[[Any], Verdict]) -> Any:
    """Lift a function from an answer to a verdict to one that prints the verdict and returns whether it was right."""

    def judged(answer: Any) -> Verdict:
        if answer is None or answer is ...:
            return Verdict("not yet: put your answer in place of the dots and run the cell again")
        returned: list[Any] = []
        try:
            return check(asked(answer, returned) if callable(answer) else plain(answer))
        except (Exception, SystemExit) as error:  # whatever the answer does: the reader wants a sentence, no traceback
            return wrong(" ".join(failure(answer, returned, error).split()))

    @functools.wraps(check)
    def checked(answer: Any = ...) -> bool:
        verdict = judged(answer)
        print(verdict)
        record(check, verdict)
        return verdict.right

    checked.accepts = lambda answer: judged(answer).right  # type: ignore[attr-defined]
    return checked


def asked(answer: Callable, returned: list[Any]) -> Callable:
    """Return the answer as a function whose numbers are Python's; what it returned last stands in `returned`."""

    @functools.wraps(answer)
    def ask(*arguments: Any) -> Any:
        returned[:] = [...]  # called, and nothing returned yet
        returned[:] = [plain(answer(*arguments))]
        if returned[0] is None or returned[0] is ...:
            raise UnusableError(f"your function returned {returned[0]}: end it with `return` and the result")
        return returned[0]

    return ask


def number(found: Any) -> float:
    """Return what an answer gave as an integer or a float; a sentence for the reader if it is no number."""
    found = plain(found)
    if not isinstance(found, (int, float, Fraction)):
        raise UnusableError(f"expected a number, found {short(found)}")
    return plain(float(found))


def two(found: Any, what: str) -> tuple[float, float]:
    """Return the two numbers that an answer gave; a sentence for the reader, who knows them as `what`, if not."""
    if not isinstance(found, (tuple, list, np.ndarray)) or len(found) != 2:
        raise UnusableError(f"expected two numbers, {what}; found {short(found)}")
    return number(found[0]), number(found[1])


def short(found: Any) -> str:
    """Return how a sentence shows a value."""
    if isinstance(found, np.ndarray) and found.size > 4:
        return f"an array of shape {found.shape}"
    text = " ".join(repr(found).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def record(check: Callable[[Any], Verdict], verdict: Verdict) -> None:
    """Add the verdict to the file that `minifcn grade` names, if it runs this notebook."""
    if log := os.environ.get("MINIFCN_VERDICTS"):
        lesson, exercise = check.__module__.rpartition(".")[2], check.__name__.removeprefix("check_")
        line = {"lesson": lesson, "exercise": exercise, "right": verdict.right, "said": str(verdict)}
        with open(log, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def plain(answer: Any) -> Any:
    """Return a number as Python has it, a whole one as an integer; anything else as it is."""
    if isinstance(answer, np.generic) or (isinstance(answer, np.ndarray) and answer.ndim == 0):
        answer = answer.item()
    whole = isinstance(answer, (float, Fraction)) and math.isfinite(answer) and answer == int(answer)
    return int(answer) if whole else answer


def failure(answer: Any, returned: list[Any], error: BaseException) -> str:
    """Say what went wrong with an answer, with the line if one of its own was running."""
    if isinstance(error, UnusableError):
        return str(error)
    said = f"{type(error).__name__}: {error}"
    if not callable(answer) and str(error).endswith("object is not callable"):
        return f"expected a function, found {short(answer)}"
    if not returned:
        return f"checking your answer, {short(answer)}, ended in {said}"
    whole, own, trace = code_of(answer), None, error.__traceback__
    while whole and trace is not None:
        if trace.tb_frame.f_code.co_filename == whole.co_filename:
            own = trace.tb_frame.f_code, trace.tb_lineno  # the innermost line of the answer's file, which is its cell
        trace = trace.tb_next
    if whole and own:
        running, line = own
        place = f"its line {line - whole.co_firstlineno + 1}"
        if not whole.co_firstlineno <= line <= max(lines_of(whole)):
            place = f"line {line - running.co_firstlineno + 1} of {running.co_name}"
        text = linecache.getline(whole.co_filename, line).strip()
        return f"your function raised {said} (in {place}" + (f", `{text}`)" if text else ")")
    if returned[0] is ...:
        return f"calling your function ended in {said}"
    return f"your function returned {short(returned[0])}, and checking that ended in {said}"


def code_of(answer: Any) -> CodeType | None:
    """Return the code of a function, also of one in a `partial` or below a decorator, or of an object's `__call__`."""
    while isinstance(answer, functools.partial):
        answer = answer.func
    answer = inspect.unwrap(answer)
    return getattr(answer, "__code__", None) or getattr(type(answer).__call__, "__code__", None)


def lines_of(code: CodeType) -> Iterator[int]:
    """Yield the lines of a function and of the functions in it."""
    yield from (line for _, _, line in code.co_lines() if line is not None)
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from lines_of(part)


def quiz(*answers: str) -> Any:
    """Return the checker of a quiz: each answer is "letter: why". It takes "bac", "b a c", a list or {1: "b", ...}."""
    key = [answer[0] for answer in answers]

    def check_quiz(answer: Any) -> Verdict:
        parts = answer.values() if isinstance(answer, dict) else answer if np.iterable(answer) else ()
        given = [letter for part in parts for letter in str(part).lower() if letter.isalpha()]
        if len(given) != len(key) or not set(given) <= set("abc"):
            return wrong(f"expected {len(key)} letters out of a, b and c, such as 'abc'; found {answer!r}")
        missed = [str(number) for number, (a, b) in enumerate(zip(given, key, strict=True), start=1) if a != b]
        if missed:
            return wrong(f"{len(key) - len(missed)} of {len(key)}; think again about question {' and '.join(missed)}")
        return right("; ".join(answer[2:].strip() for answer in answers))

    check_quiz.__module__ = sys._getframe(1).f_globals["__name__"]  # the lesson's, whose quiz it is
    checked = exercise(check_quiz)
    checked.key = "".join(key)
    return checked
