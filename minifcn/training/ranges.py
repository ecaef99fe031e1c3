"""Refuse options outside their range or choices, in the same words everywhere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from minifcn.errors import UsageError
from minifcn.models.zoo import near


def check_ranges(options: Any, ranges: Iterable[tuple[str, float, float]]) -> None:
    """Raise `UsageError` unless every named option is a number from its least to its most value, both allowed."""
    for name, least, most in ranges:
        value = getattr(options, name)
        if not (isinstance(value, (int, float)) and least <= value <= most):
            bound = f"from {least} to {most}" if most < math.inf else f"of at least {least}"
            raise UsageError(f"option {name} is {value!r:.80}; expected a number {bound}")


def check_choices(options: Any, choices: Mapping[str, Iterable[Any]]) -> None:
    """Raise `UsageError`, which names the nearest choice, unless every named option is one of its choices."""
    for name, known in choices.items():
        value, words = getattr(options, name), list(map(str, known))
        if value not in known:
            close = near(str(value), words)
            raise UsageError(f"option {name} is {value!r:.40}; expected one of {', '.join(words)}{close}")
