"""Compare four ways of dense prediction: their costs, and where they agree.

A trunk of stride f answers at every f-th pixel. Dense answers come from it by bilinear upsampling (cheap, and smooth
between the answers), or nonlinearly (a stack of deconvolutions that starts as one bilinear doubling after another, the
same on planes and smoother elsewhere, and can learn more), by shift-and-stitch (f*f runs), or from rarefied filters
(one run on maps f*f times as large). The last two are the same numbers, except where padding or a window that hangs
over comes into sight; `border_picture` draws where. FCN, sections 3.2 and 3.3.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minifcn.backend import xp_of
from minifcn.errors import UsageError
from minifcn.geometry import Grid, Layer
from minifcn.introspect.describe import last
from minifcn.models.fcn import FCN
from minifcn.models.trunk import Trunk
from minifcn.models.upsampling import Deconvolutions
from minifcn.nn import Module, Upsample
from minifcn.stitch import rarefied, rarefy, shift_and_stitch
from minifcn.tensor import Tensor


class Stitched(Module):
    """Shift-and-stitch as a module."""

    def __init__(self, net: Module) -> None:
        self.net = net

    def forward(self, image: Any) -> Tensor:
        return shift_and_stitch(self.net, image)


class Upsampled(Module):
    """A trunk, and its maps upsampled: bilinearly, or by a stack of deconvolutions with ReLUs between them."""

    def __init__(self, net: Trunk, *, nonlinearly: bool = False) -> None:
        stride, channels = int(Grid.of(net.layers()).stride), net.channels[net.last]
        up = Upsample(channels, 2 * stride, stride, padding=stride // 2)
        self.net, self.up = net, Deconvolutions(channels, up.layer) if nonlinearly else up

    def forward(self, image: Any) -> Tensor:
        return self.up(last(self.net(image)))


class Rarefied(Module):
    """FCN-32s without its upsampling: each pixel has an answer of its own, from the trunk's rarefied filters.

    That is shift-and-stitch in a single run. Pixels beyond the outermost answers take the nearest of them. Raises
    `UsageError` for a net with skips or with several heads.
    """

    def __init__(self, net: Module) -> None:
        if not isinstance(net, FCN) or net.skips or net.heads != ("",):
            raise UsageError("shift-and-stitch is for an FCN without skips and with one head, such as FCN-32s")
        self.trunk, self.score_fr = rarefy(net.trunk), vars(net)["score_fr"]
        self.start = math.floor(Grid.of(net.trunk.layers()).start)

    def forward(self, image: Any) -> Tensor:
        scores = self.score_fr(last(self.trunk(image)))
        xp = xp_of(scores.data)
        rows, cols = (
            xp.clip(xp.arange(n) - self.start, 0, m - 1) for n, m in zip(image.shape[2:], scores.shape[2:], strict=True)
        )
        return scores[:, :, rows[:, None], cols]


def ways_of(net: Trunk) -> dict[str, Module]:
    """Return the trunk itself, and the ways to make its last output dense, by name."""
    return {
        "strided": net,
        "upsampled": Upsampled(net),
        "  nonlinearly": Upsampled(net, nonlinearly=True),
        "shift-and-stitch": Stitched(net),
        "rarefied": rarefy(net),
    }


def equal_cells(chain: list[Layer], size: tuple[int, int]) -> tuple[range, range]:
    """Return the rows and columns of dense cells where shift-and-stitch and rarefied filters agree exactly."""
    grid, factor = Grid.of(rarefied(chain)), int(Grid.of(chain).stride)
    rows, cols = (grid.inside(n, factor=factor) for n in size)
    return rows, cols


def border_picture(difference: np.ndarray, rows: range, cols: range) -> np.ndarray:
    """Draw (H, W, 3) uint8: red where the difference is more than rounding; blue where it must not be, else white."""
    picture = np.full((*difference.shape, 3), 255, np.uint8)
    picture[rows.start : rows.stop, cols.start : cols.stop] = (190, 210, 255)
    picture[difference > 1e-4 * max(1.0, float(difference.max()))] = (200, 30, 30)
    return picture
