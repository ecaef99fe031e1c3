"""Choose the array library: NumPy on the CPU, CuPy on the GPU, one program for both.

CuPy speaks NumPy's language, so an op is written once:

    xp = xp_of(x)
    y = xp.maximum(x, 0)

The two never mix silently: `to_device` and `to_host` are the only bridges, and everything random is drawn on the host
(`rng`) and carried across, so that the same seed gives the same run on both sides.

CuPy is imported only when a GPU is asked for. `training/device.py` finds out whether one can be used, and if not, why.
"""

import sys
from types import ModuleType
from typing import Any

import numpy as np

from minifcn.errors import DeviceError

Array = Any
"""A `numpy.ndarray` or a `cupy.ndarray`; the second cannot be named without importing CuPy."""

DEVICES = ("cpu", "gpu")


def xp_of(*arrays: Any) -> ModuleType:
    """The library that owns the arrays: `cupy` if one of them lives on the GPU, else `numpy`. Scalars do not vote.

    Other array types (`introspect/outline.py`) name their library in `.library`.
    """
    for array in arrays:
        if hasattr(array, "library"):
            return array.library
    cupy = sys.modules.get("cupy")  # nobody can hold a CuPy array before CuPy has been imported
    on_gpu = getattr(cupy, "ndarray", ())  # () while CuPy is absent or half imported: nothing is an instance of it
    return cupy if cupy is not None and any(isinstance(array, on_gpu) for array in arrays) else np


def as_array(data: Any) -> Array:
    """`data` itself if it is an array of either library, else a NumPy array made of it."""
    return data if hasattr(data, "dtype") else np.asarray(data)


def is_host(array: Array) -> bool:
    """Whether the array is in main memory, where looking at its values costs nothing."""
    return xp_of(array) is np


def device_of(array: Array) -> str:
    """ "cpu" or "gpu": where the array is, or where its library says that it would be (`introspect/outline.py`)."""
    return getattr(xp_of(array), "device", "cpu" if is_host(array) else "gpu")


def to_host(array: Array) -> np.ndarray:
    """The array in main memory: itself if it is there already, else a copy brought back from the GPU."""
    return np.asarray(array) if xp_of(array) is np else array.get()


def to_device(array: Array, device: str) -> Array:
    """The array on `device`, "cpu" or "gpu": itself if it is there already, else a copy."""
    if device not in DEVICES:
        raise DeviceError(f"device {device!r} is unknown: expected one of {', '.join(DEVICES)}")
    if device == "cpu":
        return to_host(array)
    import cupy

    return cupy.asarray(array)


def rng(seed: int, *stream: int) -> np.random.Generator:
    """Random numbers for one purpose: `rng(0, 2)` and `rng(0, 3)` are independent, and each is the same every time."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=stream))
