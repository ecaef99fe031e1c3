"""Compare four ways of dense prediction: their costs, and where they agree.

    minifcn dense                                        VGG up to pool3, thin, on an image of 96x96 pixels
    minifcn dense --trunk alexnet --until pool2 --size 120x120 --picture border.png

A trunk of stride f answers at every f-th pixel. Dense answers come from it by bilinear upsampling (cheap, and smooth
between the answers), or nonlinearly (a stack of deconvolutions that starts as one bilinear doubling after another, the
same on planes and smoother elsewhere, and can learn more), by shift-and-stitch (f*f runs), or from rarefied filters
(one run on maps f*f times as large). The last two are the same numbers, except where padding or a window that hangs
over comes into sight; `--picture` draws where. FCN, sections 3.2 and 3.3.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minifcn import viz
from minifcn.cli.command import parse
from minifcn.errors import UsageError
from minifcn.geometry import Grid, Layer
from minifcn.introspect.describe import describe, image_size, last
from minifcn.introspect.design import TRUNKS
from minifcn.models.trunk import Trunk
from minifcn.models.upsampling import Deconvolutions
from minifcn.nn import Module, Upsample, evaluating
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


@dataclass(frozen=True)
class Options:
    """The cost of dense prediction four ways: `minifcn dense --trunk vgg16 --until pool3 --size 96x96`."""

    trunk: str = "vgg16"
    """vgg16, alexnet, googlenet or squeezenet, with seeded random weights"""
    until: str = "pool3"
    """the output of the trunk to make dense"""
    size: str = "96x96"
    """height x width of the image"""
    width: int = 4
    """channels, as the trunk counts them"""
    picture: str = ""
    """a PNG file to draw into where shift-and-stitch and rarefied filters differ"""


def main(argv: list[str]) -> int:
    options = parse(Options, argv, verb="dense")
    if options.trunk not in TRUNKS:
        raise UsageError(f"option trunk is {options.trunk!r}; expected one of {', '.join(TRUNKS)}")
    size, rng = image_size(options.size), np.random.default_rng(0)
    trunk: Any = TRUNKS[options.trunk]
    net = trunk(width=options.width, padding=1, init=rng, rng=rng).until(options.until)
    factor = int(Grid.of(net.layers()).stride)
    if factor**2 * size[0] * size[1] > 2**27:
        raise UsageError(
            f"{factor}^2 moved images of {options.size} pixels are too many; choose a smaller size or until"
        )
    image = rng.standard_normal((1, 3, *size)).astype(np.float32)
    ways: dict[str, Module] = {
        "strided": net,
        "upsampled": Upsampled(net),
        "  nonlinearly": Upsampled(net, nonlinearly=True),
        "shift-and-stitch": Stitched(net),
        "rarefied": rarefy(net),
    }
    print(f"{options.trunk} up to {options.until}: stride {factor}, sees {Grid.of(net.layers()).field} pixels")
    print("random weights (seed 0), for costs and equalities only\n")
    print(f"{'way':<18}{'output':>12}{'multiply-adds':>16}{'time':>10}")
    outputs = {}
    for name, way in ways.items():
        cost = describe(way, size).multiply_adds
        start = time.perf_counter()
        with evaluating(way):
            outputs[name] = last(way(image)).data
        seconds = time.perf_counter() - start
        shape = "x".join(map(str, outputs[name].shape[2:]))
        print(f"{name:<18}{shape:>12}{cost / 1e9:>14.3f} G{seconds:>8.2f} s")
    inner = (..., slice(factor, -factor), slice(factor, -factor))
    apart = abs(outputs["upsampled"] - outputs["  nonlinearly"])[inner].max(initial=0)
    learns = sum(p.size for name, p in ways["  nonlinearly"].parameters() if name.startswith("up."))
    print(
        f"\nnonlinear upsampling has {learns} numbers to learn; doubling {factor.bit_length() - 1} times, it starts ",
        end="",
    )
    print(f"{apart:.1e} from bilinear off the border")
    compare(net, outputs["shift-and-stitch"], outputs["rarefied"], size, options.picture)
    return 0


def compare(net: Module, stitched: np.ndarray, dense: np.ndarray, size: tuple[int, int], picture: str) -> None:
    """Print how far the two are apart, inside and at the border, and draw where."""
    difference = abs(stitched - dense).max(axis=(0, 1))
    rows, cols = equal_cells(net.layers(), size)
    inside = difference[rows.start : rows.stop, cols.start : cols.stop]
    share, most = 100 * inside.size / difference.size, inside.max() if inside.size else 0
    print(f"rarefied and stitched differ by at most {difference.max():.1e}; on the {share:.0f} % of the cells that see")
    print(f"no padding and no clipped window, by {most:.1e} (float32)")
    if picture:
        Path(picture).write_bytes(viz.png(border_picture(difference, rows, cols)))
        print(f"wrote {picture}: red where they differ, blue where they must not")


def equal_cells(chain: list[Layer], size: tuple[int, int]) -> tuple[range, range]:
    """The rows and columns of dense cells on which shift-and-stitch and rarefied filters are the same numbers."""
    grid, factor = Grid.of(rarefied(chain)), int(Grid.of(chain).stride)
    rows, cols = (grid.inside(n, factor=factor) for n in size)
    return rows, cols


def border_picture(difference: np.ndarray, rows: range, cols: range) -> np.ndarray:
    """(H, W, 3) uint8: red where the difference is more than rounding, on blue where it must not be, else on white."""
    picture = np.full((*difference.shape, 3), 255, np.uint8)
    picture[rows.start : rows.stop, cols.start : cols.stop] = (190, 210, 255)
    picture[difference > 1e-4 * max(1.0, float(difference.max()))] = (200, 30, 30)
    return picture
