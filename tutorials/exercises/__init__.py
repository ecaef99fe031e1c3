"""The checkers of the exercises: `nNN.check_<name>(answer)` says "right: ..." or, in one sentence, what is wrong.

A checker is written as a function that returns that sentence:

    @exercise
    def check_area(answer):
        if answer != 9:
            return wrong(f"a window of 3x3 has 9 pixels, you say {answer}")
        return right("and so has every other one")

`@exercise` prints what it returns, and turns it into True or False. Nothing done yet (`...` or None) is "not yet", and
an answer that breaks the checker, because it has another type or raises an error itself, is an answer to talk about.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


class Verdict(str):
    """A sentence for the reader, and whether the answer was right."""

    right = False


def right(why: str) -> Verdict:
    verdict = Verdict(f"right: {why}")
    verdict.right = True
    return verdict


def wrong(why: str) -> Verdict:
    return Verdict(f"not right: {why}")


def exercise(check: Callable[[Any], Verdict]) -> Callable[[Any], bool]:
    """Lift a function from an answer to a verdict to one that prints the verdict and returns whether it was right."""

    @functools.wraps(check)
    def checked(answer: Any = ...) -> bool:
        if answer is None or answer is ...:
            verdict = Verdict("not yet: put your answer in place of the dots and run the cell again")
        else:
            try:
                verdict = check(answer)
            except Exception as error:  # whatever the answer does: the reader wants a sentence and no traceback
                verdict = wrong(f"checking your answer ended in {type(error).__name__}: {error}")
        print(verdict)
        return verdict.right

    return checked
