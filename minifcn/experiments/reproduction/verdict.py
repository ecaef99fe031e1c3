"""Decide from paired seeds whether a claim held, was reversed or is undecided.

Two cells are trained from each seed, so each seed gives one difference, and what the seed itself did to both cancels.
With differences d_1 ... d_n, their mean m and their spread s, the sample standard deviation

    s = sqrt( sum_i (d_i - m)^2 / (n - 1) )

a claim "a is greater than b" is

    held        every d_i > 0 and  m > s
    reversed    every d_i < 0 and -m > s
    undecided   otherwise: signs that differ, a tie, a seed that is missing or no number, fewer than two seeds

With three seeds, all signs agree by chance in one of four comparisons, so there is a second condition. It is a
rule of thumb and no test of significance: three seeds allow none. The sample standard deviation is that of single
differences (not of their mean), which asks for more than a standard error would, and less than max - min.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

HELD, REVERSED, UNDECIDED = "held", "reversed", "undecided"
GREATER, EQUAL = "greater", "equal"  # what a claim says of its first cell and its second


@dataclass(frozen=True)
class Verdict:
    """The word, and the numbers it follows from."""

    word: str
    mean: float
    spread: float
    seeds: int


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean, NaN of nothing, and the sample standard deviation, NaN of fewer than two."""
    mean = statistics.fmean(values) if values else math.nan
    return mean, statistics.stdev(values) if len(values) > 1 else math.nan


def verdict(differences: Sequence[float], *, says: str = GREATER) -> Verdict:
    """Return what the differences a - b, one for each seed, say of the claim that a is greater than b.

    A claim that both are `EQUAL` is reversed by a decided difference of either sign. Otherwise it stays undecided: that
    no difference was seen does not show that there is none.
    """
    if not all(map(math.isfinite, differences)):
        return Verdict(UNDECIDED, math.nan, math.nan, len(differences))
    mean, spread = mean_and_spread(differences)
    agree = all(d > 0 for d in differences) or all(d < 0 for d in differences)
    decided = len(differences) > 1 and agree and abs(mean) > spread
    if not decided:
        word = UNDECIDED
    elif says == EQUAL:
        word = REVERSED
    else:
        word = HELD if mean > 0 else REVERSED
    return Verdict(word, mean, spread, len(differences))
