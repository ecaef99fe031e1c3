"""Which values of a parametrized test `make test` leaves to `make test-all`, and why."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(quick: Iterable[Any], values: Iterable[Any], why: str) -> list[Any]:
    """Return `values` for `parametrize`, all marked slow but those in `quick`, which must be among them.

    A tuple is the values of several parameters, as `parametrize` has it.
    """
    quick, values = list(quick), list(values)
    assert all(value in values for value in quick), f"{quick} are not all among {values}"
    marks = pytest.mark.slow(why)

    def slow(value: Any) -> Any:
        return pytest.param(*value, marks=marks) if isinstance(value, tuple) else pytest.param(value, marks=marks)

    return [value if value in quick else slow(value) for value in values]
