"""ParseNet's global context: score each cell together with the mean of the whole image.

A cell's receptive field ends somewhere; whether that white patch is a sheep or a cloud may be decided elsewhere. One
average over the whole map, put beside every cell, is the cheapest way of looking everywhere: an alternative to skips
that a student can compare. Both parts are brought to length 1 first, so that neither drowns the other.
"""

from __future__ import annotations

import numpy as np

from minifcn import ops
from minifcn.models.trunk import Trunk
from minifcn.nn import Module
from minifcn.tensor import Parameter, Tensor


class GlobalContext(Module):
    """(N, C, H, W) -> (N, 2C, H, W): the maps, then their mean at every cell; unit vectors times a learned `scale`.

    ParseNet (Liu, Rabinovich and Berg, 2016), section 3. `start` is where the scale of each channel begins.
    """

    def __init__(self, channels: int, *, start: float = 10.0) -> None:
        self.scale = Parameter(np.full((2 * channels, 1, 1), start, np.float32))

    def forward(self, x: Tensor) -> Tensor:
        everywhere = ops.l2_normalize(ops.mean(x, axis=(2, 3), keepdims=True))
        spread = ops.bilinear_resize(everywhere, size=x.shape[2:])  # from one pixel: the same everywhere
        return ops.concat(ops.l2_normalize(x), spread) * self.scale


def with_context(trunk: Trunk) -> Trunk:
    """`trunk` with one more stage, "context", on its last output; the cells stay where they are."""
    channels = trunk.channels[trunk.last]
    trunk.add("context", "context", GlobalContext(channels), 2 * channels)
    return trunk
