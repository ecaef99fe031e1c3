"""Find the layer that first produced a NaN or infinity, and suggest a fix.

A learning rate that is too high makes weights grow until they overflow; from then on everything is NaN. So the loss is
checked in every step, the parameters before they are saved, and with `detect_anomaly` every layer.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from minifcn.backend import to_host, xp_of
from minifcn.errors import DivergedError
from minifcn.nn import Module
from minifcn.tensor import Tensor


def largest_gradients(net: Module) -> dict[str, float]:
    """Return max |gradient| of every parameter that has one, by name."""
    return {name: float(to_host(abs(p.grad).max())) for name, p in net.named_parameters() if p.grad is not None}


def merged(found: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the largest of each name in several such records; what is not finite is larger than all that is."""
    gradients: dict[str, float] = {}
    for each in found:
        for name, size in each.items():
            if name not in gradients or not size <= gradients[name]:
                gradients[name] = size
    return gradients


def worst(gradients: Mapping[str, float]) -> str:
    """Return the name of the largest; whatever is not finite is larger than all that is."""
    return max(gradients, key=lambda name: gradients[name] if math.isfinite(gradients[name]) else math.inf)


def not_finite(tensors: Mapping[str, np.ndarray]) -> list[str]:
    """Return the names of arrays that hold a NaN or an infinity."""
    return [name for name, array in tensors.items() if not np.isfinite(array).all()]


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Inside, NumPy does not warn of overflow. CuPy never does, and the results are checked instead."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of helper threads, which have an errstate of their own
        yield


@contextlib.contextmanager
def watching(net: Module) -> Iterator[None]:
    """Inside, each layer's output is checked; the first that is not finite raises `DivergedError` with its name."""

    def checked(name: str, forward: Callable[..., Any], *args: Any, **options: Any) -> Any:
        y = forward(*args, **options)
        if isinstance(y, Tensor) and not to_host(xp_of(y.data).isfinite(y.data).all()):
            raise DivergedError(f"{name} is the first layer with an output that is not finite")
        return y

    modules = dict(net.named_modules())
    for name, module in modules.items():
        vars(module)["forward"] = partial(checked, name or "the network", module.forward)
    try:
        yield
    finally:
        for module in modules.values():
            del vars(module)["forward"]
