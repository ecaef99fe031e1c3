"""ParseNet's global context: score each cell together with the mean of the whole image.

A cell's receptive field ends somewhere; whether that white patch is a sheep or a cloud may be decided elsewhere. One
average over the whole map, put beside every cell, is the cheapest way of looking everywhere: an alternative to skips
that a student can compare. Both parts are brought to length 1 first, so that neither drowns the other.
"""

import contextlib
import itertools
from collections.abc import Iterator

import numpy as np

from minifcn import ops
from minifcn.backend import Array
from minifcn.models.trunk import Trunk
from minifcn.nn import Module
from minifcn.tensor import Parameter, Tensor


class GlobalContext(Module):
    """(N, C, H, W) -> (N, 2C, H, W): the maps, then their mean at every cell; unit vectors times a learned `scale`.

    ParseNet (Liu, Rabinovich and Berg, 2016), section 3. `start` is where the scale of each channel begins.
    """

    def __init__(self, channels: int, *, start: float = 10.0) -> None:
        self.scale = Parameter(np.full((2 * channels, 1, 1), start, np.float32))
        self.known: Array | None = None

    def forward(self, x: Tensor) -> Tensor:
        mean = ops.mean(x, axis=(2, 3), keepdims=True) if self.known is None else Tensor(self.known)
        everywhere = ops.l2_normalize(mean)
        spread = ops.bilinear_resize(everywhere, size=x.shape[2:])  # from one pixel: the same everywhere
        return ops.concat(ops.l2_normalize(x), spread) * self.scale


def context_of(net: Module) -> tuple[Trunk, GlobalContext] | None:
    """Return what comes before the global context of a net, as a trunk, and the context; None where there is none."""
    if not isinstance(trunk := getattr(net, "trunk", None), Trunk):
        return None
    for before, name in itertools.pairwise(trunk.stages):
        if isinstance(stage := getattr(trunk, trunk.stages[name]), GlobalContext):
            return trunk.until(before), stage
    return None


@contextlib.contextmanager
def known_mean(net: Module, mean: Array | None) -> Iterator[None]:
    """Give the global context of a net, inside, this mean (1, C, 1, 1) of a map that it sees in part; None: its own."""
    found = context_of(net) if mean is not None else None
    if found is None:
        yield
        return
    _, context = found
    context.known = mean
    try:
        yield
    finally:
        context.known = None


def with_context(trunk: Trunk) -> Trunk:
    """Return `trunk` with one more stage, "context", on its last output; the cells stay where they are."""
    channels = trunk.channels[trunk.last]
    trunk.add("context", "context", GlobalContext(channels), 2 * channels)
    return trunk
