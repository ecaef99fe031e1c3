"""Check the inputs of ops, with errors that state the shapes found and wanted."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from minifcn.backend import Array
from minifcn.errors import ShapeError

Pair = tuple[int, int]


def whole(value: Any, *, least: int) -> bool:
    """Whether it is a whole number of at least `least`; True is none, although Python counts with it."""
    known = type(value) is int or (not isinstance(value, bool) and isinstance(value, Integral))  # the usual one first
    return known and int(value) >= least


def pair(value: int | Sequence[int], *, op: str, name: str, least: int) -> Pair:
    """`3` or `(3, 5)` as (vertical, horizontal), each a whole number of at least `least`."""
    both = (value, value) if not isinstance(value, (tuple, list)) else tuple(value)
    if len(both) != 2 or not all(whole(v, least=least) for v in both):
        raise ShapeError(f"{op}: {name} is {value!r}; expected a whole number of at least {least}, or a pair of them")
    return int(both[0]), int(both[1])


def images(x: Array, *, op: str) -> None:
    """Refuse anything but a floating point (N, C, H, W)."""
    if getattr(x, "ndim", 0) != 4 or 0 in x.shape:
        raise ShapeError(f"{op}: expected a batch of images (N, C, H, W) and got shape {getattr(x, 'shape', ())}")
    if x.dtype.kind != "f":
        raise ShapeError(f"{op}: expected float32 or float64 images and got {x.dtype}; convert them with .astype first")


def same_dtype(x: Array, *others: tuple[str, Any], op: str) -> None:
    """Refuse to mix dtypes: it would silently turn a float32 network into a float64 one."""
    for name, other in others:
        if other is not None and other.dtype != x.dtype:
            raise ShapeError(f"{op}: x is {x.dtype} and {name} is {other.dtype}; give both the same dtype")


def bias_of(b: Array | None, channels: int, *, op: str) -> None:
    """Refuse a bias that is not one number per output channel."""
    if b is not None and b.shape != (channels,):
        raise ShapeError(f"{op}: b has shape {b.shape}; expected ({channels},), one number per output channel")
