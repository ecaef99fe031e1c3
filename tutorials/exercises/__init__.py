"""The checkers of the exercises: `nNN.check_<name>(answer)` says "right: ..." or, in one sentence, what is wrong.

A checker is written as a function that returns that sentence:

    @exercise
    def check_area(answer):
        if answer != 9:
            return wrong(f"a window of 3x3 has 9 pixels, you say {answer}")
        return right("and so has every other one")

`@exercise` prints what it returns, and turns it into True or False; `check_area.accepts(answer)` does so without
printing. Nothing done yet (`...` or None) is "not yet". NumPy's numbers and whole floats arrive as Python's integers.
An answer that raises an error is wrong: the sentence names the error, and the line if it is one of the answer's own.

`quiz("b: because ...", "a: ...", "c: ...")` makes the checker of three questions with the answers a, b and c.
"""

from __future__ import annotations

import functools
import json
import linecache
import os
import sys
from collections.abc import Callable
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


def exercise(check: Callable[[Any], Verdict]) -> Any:
    """Lift a function from an answer to a verdict to one that prints the verdict and returns whether it was right."""

    def judged(answer: Any) -> Verdict:
        if answer is None or answer is ...:
            return Verdict("not yet: put your answer in place of the dots and run the cell again")
        try:
            return check(plain(answer))
        except Exception as error:  # whatever the answer does: the reader wants a sentence and no traceback
            return wrong(" ".join(failure(answer, error).split()))

    @functools.wraps(check)
    def checked(answer: Any = ...) -> bool:
        verdict = judged(answer)
        print(verdict)
        record(check, verdict)
        return verdict.right

    checked.accepts = lambda answer: judged(answer).right  # type: ignore[attr-defined]
    return checked


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
    return int(answer) if isinstance(answer, float) and answer.is_integer() else answer


def failure(answer: Any, error: Exception) -> str:
    """Say what an answer raised: in which of its own lines, if it is a function and one of its lines was running."""
    said = f"{type(error).__name__}: {error}"
    file, line, trace = getattr(getattr(answer, "__code__", None), "co_filename", None), 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    if not line:
        return f"checking your answer ended in {said}"
    text = linecache.getline(file or "", line).strip()
    place = f"line {line - answer.__code__.co_firstlineno + 1}" + (f", `{text}`" if text else "")
    return f"your function raised {said} (in its {place})"


def quiz(*answers: str) -> Any:
    """Return the checker of a quiz: each answer is "letter: why". It takes "bac", "b a c", or a list of letters."""
    key = [answer[0] for answer in answers]

    def check_quiz(answer: Any) -> Verdict:
        given = [letter for part in answer for letter in str(part).lower() if letter.isalpha()]
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
