"""Choose the array library: NumPy on the CPU, CuPy on the GPU, one program for both.

CuPy speaks NumPy's language, so an op is written once:

    xp = xp_of(x)
    y = xp.maximum(x, 0)

The two never mix silently: `to_device` and `to_host` are the only bridges, and everything random is drawn on the host
(`rng`) and carried across, so that the same seed gives the same run on both sides.

CuPy is imported only when a GPU is asked for. `training/device.py` finds out whether one can be used, and if not, why.
"""

import contextlib
import math
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from importlib import import_module
from types import ModuleType
from typing import Any, Generic, TypeVar

import numpy as np

from minifcn.errors import DeviceError, ShapeError

T = TypeVar("T")

Array = Any
"""A `numpy.ndarray` or a `cupy.ndarray`; the second cannot be named without importing CuPy."""

DEVICES = ("cpu", "gpu")
FLOATS = (np.dtype("float32"), np.dtype("float64"))


def xp_of(*arrays: Any) -> ModuleType:
    """Return the library that owns the arrays: `cupy` if one of them lives on the GPU, else `numpy`. Scalars do not
    vote.

    Other array types (`introspect/outline.py`) name their library in `.library`.
    """
    if len(arrays) == 1 and type(arrays[0]) is np.ndarray:
        return np  # asked hundreds of times in a step
    for array in arrays:
        if hasattr(array, "library"):
            return array.library
    cupy = sys.modules.get("cupy")  # no CuPy array exists before CuPy has been imported
    on_gpu = getattr(cupy, "ndarray", ())  # () while CuPy is absent or half imported: nothing is an instance of it
    return cupy if cupy is not None and any(isinstance(array, on_gpu) for array in arrays) else np


def as_array(data: Any) -> Array:
    """Return `data` itself if it is an array of either library that can be computed with, else an array made of it.

    Lists, numbers, NumPy scalars, `np.matrix`, other libraries' arrays and foreign byte orders become NumPy arrays.
    Errors: `ShapeError` for a masked array, and for numbers that are not bool, whole, float32 or float64.
    """
    if type(data) is not np.ndarray and xp_of(data) is np:
        if isinstance(data, np.ma.MaskedArray):
            raise ShapeError("a masked array has no gradient where it is masked: give .filled(0) and a mask of 0 and 1")
        data = np.asarray(data)
    if data.dtype.kind not in "biu" and data.dtype.newbyteorder("=") not in FLOATS:
        raise ShapeError(f"numbers are {data.dtype}: expected float32 or float64; convert them with .astype first")
    return data if data.dtype.isnative else data.astype(data.dtype.newbyteorder("="))


def as_numpy(array: Array, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    """Return `np.asarray(array, dtype, copy=copy)`; `DeviceError` for an array on a GPU: it moves only when asked."""
    if not is_host(array):
        raise DeviceError("this array is on the GPU: minifcn.backend.to_host brings it to main memory")
    return np.asarray(array, dtype, copy=copy)


def is_host(array: Array) -> bool:
    """Return whether the array is in main memory, where looking at its values costs nothing."""
    return xp_of(array) is np


def finite(array: Array) -> bool:
    """Return whether all numbers are known to be finite: on a GPU they are not looked at, because that would wait.

    An array without numbers (`introspect/outline.py`) says yes: it stands for ordinary ones.
    """
    if not is_host(array):
        return getattr(xp_of(array), "finite", False)
    return not array.size or (math.isfinite(array.max()) and math.isfinite(array.min()))


def device_of(array: Array) -> str:
    """Return "cpu" or "gpu": where the array is, or would be by its library (`introspect/outline.py`)."""
    return "cpu" if is_host(array) else getattr(xp_of(array), "device", "gpu")


def to_host(array: Array) -> np.ndarray:
    """Return the array in main memory: itself if it is there already, else a copy brought back from the GPU."""
    return np.asarray(array) if xp_of(array) is np else array.get()


def to_device(array: Array, device: str) -> Array:
    """Return the array on `device`, "cpu" or "gpu": itself if it is there already, else a copy.

    On its way to a GPU, CuPy copies it into a pinned buffer of its own, and the program goes on while that is sent.
    """
    return to_host(array) if device == "cpu" else xp_on(device).asarray(array)


def xp_on(device: str) -> ModuleType:
    """Return the library whose arrays live on `device`: `numpy` on the "cpu", `cupy` on the "gpu"."""
    if device not in DEVICES:
        raise DeviceError(f"device {device!r} is unknown: expected one of {', '.join(DEVICES)}")
    return np if device == "cpu" else import_module("cupy")


def rng(seed: int, *stream: int) -> np.random.Generator:
    """Return random numbers for one purpose: `rng(0, 2)` and `rng(0, 3)` are independent, and each is the same every
    time.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=stream))


class Scope(Generic[T]):
    """A value that holds inside `with scope.set(value):`, for this thread or asyncio task alone; elsewhere `default`.

    Blocks may end in any order, as those of two generators that are read in turns do: what counts is the newest block
    that has not ended.
    """

    def __init__(self, name: str, default: T) -> None:
        self.default = default
        self.entered: ContextVar[tuple[list[T], ...]] = ContextVar(name, default=())

    def __call__(self) -> T:
        """Return the value that holds now."""
        for block in reversed(self.entered.get()):
            if block:
                return block[0]
        return self.default

    @contextlib.contextmanager
    def set(self, value: T) -> Iterator[None]:
        """Let `value` hold inside the block."""
        block = [value]
        self.entered.set((*filter(None, self.entered.get()), block))
        try:
            yield
        finally:
            block.clear()  # an empty block has ended, whichever thread ends it
            self.entered.set((*filter(None, self.entered.get()),))
