"""One claim of the paper beside the value computed here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from minifcn.errors import MinifcnError

HEADER = ("where", "claim", "published", "computed", "verdict", "note")


@dataclass(frozen=True)
class Row:
    """What is published (`paper`, "" where it says nothing) and what was computed (`ours`), in the same words.

    `expected` is what has to come out where that is not what is published: the corrected figure of an erratum, or a
    figure that the paper does not have. So nothing here is believed for having been computed.
    """

    section: str
    claim: str
    paper: str
    ours: str
    expected: str = ""
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether what came out is what had to come out, published or corrected."""
        return self.ours == (self.expected or self.paper)

    @property
    def verdict(self) -> str:
        """ "holds", "erratum" (as corrected), "not published" (as derived), or "FAILS"."""
        if not self.holds:
            return "FAILS"
        if not self.paper:
            return "not published"
        return "erratum" if self.expected else "holds"

    def cells(self) -> tuple[str, ...]:
        """Return a line of a table under `HEADER`."""
        return self.section, self.claim, self.paper or "-", self.ours, self.verdict, self.note


def row(
    section: str,
    claim: str,
    paper: str,
    compute: Callable[[], object],
    *,
    expected: str = "",
    note: str = "",
) -> Row:
    """Return the row of a claim that `compute()` checks: it returns what comes out, or that and a note as a tuple.

    A net that the library refuses to build is an answer, too: "refused: ..." with the reason.
    """
    try:
        answer = compute()
    except MinifcnError as refusal:
        answer = f"refused: {refusal}"
    ours, more = answer if isinstance(answer, tuple) else (answer, "")
    return Row(section, claim, paper, str(ours), expected, "; ".join(filter(None, (more, note))))


def listed(values: Iterable[object], between: str = ", ") -> str:
    """Return the values as text, one after another."""
    return between.join(map(str, values))


def agreement(a: np.ndarray, b: np.ndarray, *, tolerance: float = 1e-12) -> tuple[str, str]:
    """Return "equal" or "different", and how far apart two arrays are at most.

    `tolerance` is relative to the largest number (0: equal to the bit).
    """
    if a.shape != b.shape:
        return f"shapes {a.shape} and {b.shape}", ""
    apart = float(abs(a - b).max())
    most = float(abs(b).max())
    return "equal" if most > 0 and apart <= tolerance * most else "different", f"largest difference {apart:.1e}"
