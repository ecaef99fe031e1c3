"""The kinds of errors, with the exit code of each, and the check that most refusals begin with.

Every message is one sentence a user can act on: the file or the argument, what was found, what was expected, and
where it helps, the next step. `guard` in `cli/command.py` prints it and leaves with `exit_code`; nothing else in the
package calls `sys.exit`.
"""

import math
from numbers import Integral
from typing import Any, TypeGuard


class MinifcnError(Exception):
    """Anything minifcn refuses on purpose."""

    exit_code = 2


class UsageError(MinifcnError):
    """An option, a configuration or a path that cannot be used as given."""


class DataError(MinifcnError):
    """An image, a mask, a split list or a data folder that is missing or broken."""


class FormatError(MinifcnError):
    """A file of weights or a checkpoint whose bytes are not what they claim to be."""


class DeviceError(MinifcnError):
    """A device that was asked for and cannot be used."""


class ShapeError(MinifcnError, ValueError):
    """Arrays or layer arguments whose shapes, ranks or dtypes do not fit."""


class GeometryError(ShapeError):
    """Grids that cannot be aligned: a fractional or a negative crop offset."""


class GraphError(MinifcnError, RuntimeError):
    """A gradient asked for in a way the graph cannot give."""


class DivergedError(MinifcnError):
    """The loss is no longer a finite number."""

    exit_code = 3


class GradientError(MinifcnError, AssertionError):
    """A gradient written by hand that differs from the one found by differences."""


def whole(value: Any, *, least: int, most: float = math.inf) -> TypeGuard[int]:
    """Return whether `value` is a whole number from `least` to `most`, both included.

    NumPy's integers are; True is not, although Python counts with it.
    """
    known = type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))  # the usual one first
    return known and least <= int(value) <= most
