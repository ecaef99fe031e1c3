"""Cut an image of any size into tiles whose scores are those of the whole image, to rounding.

The score of a pixel depends on the pixels up to its *reach* away and on no others, so a crop that shows them all gives
the same score, if two more things hold. The crop begins at a multiple of the net's stride, or its cells would lie
between those of the whole image. And only its middle is kept: near the crop's edge the net sees padding in the place of
the photograph. Where the edge of a crop is the edge of the image, the whole image has that padding, too.

The reach follows from the windows, as `Grid` follows them: a convolution of extent e over cells s pixels apart looks
s (e - 1) / 2 pixels to each side, and so does a transposed one, whose s is the distance of the cells that it makes.

A net that resamples its cells to the size of the image, as torchvision's, places a pixel by the height of the whole
image. There the cells of a crop are taken, and interpolated as the cells of the whole image are. FCN, section 3.

A net with global context needs the mean over the whole image, too: it is added up from the tiles first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from minifcn.errors import UsageError
from minifcn.geometry import Grid, Layer, out_size
from minifcn.models.context import GlobalContext, context_of
from minifcn.models.fcn import FCN
from minifcn.models.paper import LateFusion
from minifcn.models.resnet import FCN_ResNet
from minifcn.nn import Linear, Module, Sliding

Span = tuple[int, int]  # the first pixel of a range along one axis, and the one after its last


def reach(layers: Iterable[Layer]) -> Fraction:
    """Return how many pixels of the image an output cell looks to each side of its centre, through all `layers`."""
    grid, far = Grid(), Fraction(0)
    for layer in layers:
        after = grid.through(layer)
        far += Fraction(layer.extent - 1, 2) * (after if layer.transpose else grid).stride
        grid = after
    return far


def chains(net: FCN) -> Iterator[list[Layer]]:
    """Yield the windows of every way from the image to the scores: through the last map and through each skip."""
    paths = net.trunk.paths()
    for head in net.heads:
        ups = [windows(getattr(net, f"{rung.name}{head}")) for rung in net.ladder.rungs]
        for i, start in enumerate((net.trunk.last, *net.skips)):
            yield [*paths[start], *itertools.chain(*ups[i:])]


def windows(module: Module) -> list[Layer]:
    """Return the windows in a module, one after another: of a stack of deconvolutions each, not the one it replaces."""
    return [one.layer for one in module.modules() if isinstance(one, Sliding)]


def between(size: int, out: int, part: Span) -> tuple[Span, np.ndarray | None]:
    """Return which of `size` cells the pixels in `part` of `out` pixels need, and the matrix that interpolates them.

    These are rows of the matrix of `ops.bilinear_resize`, without the columns that are zero in all of them; None where
    cells and pixels are the same.
    """
    if size == out:
        return part, None
    unit = 2 * out  # a cell; in these units everything is whole
    position = np.clip((2 * np.arange(*part) + 1) * size - out, 0, (size - 1) * unit)
    first, last = int(position[0] // unit), min(int(position[-1] // unit) + 2, size)
    distance = abs(position[:, None] - unit * np.arange(first, last))
    return (first, last), (np.maximum(unit - distance, 0) / unit).astype(np.float32)


@dataclass(frozen=True)
class Tiling:
    """How a net's images are cut: crops of about `tile` pixels, of which all but `reach` pixels at each side are kept.

    Crops begin at multiples of `stride`. A `tile` of 0 cuts nothing: every crop is the whole image. `resampled` are the
    windows before the cells of a net that resamples them; they are empty for all others.
    """

    tile: int = 0
    reach: int = 0
    stride: int = 1
    resampled: tuple[Layer, ...] = ()

    @classmethod
    def of(cls, net: Module, tile: int) -> Tiling:
        """Return the tiling of `net`; `UsageError` where a score depends on the whole image, or `tile` is too small."""
        nets = [one for one in net.modules() if isinstance(one, FCN)]
        for name, module in net.named_modules():
            once = isinstance(net, FCN) and context_of(net)  # its mean is added up from tiles, before
            if isinstance(module, Linear) or (isinstance(module, GlobalContext) and not once):
                raise UsageError(
                    f"the net cannot be computed in tiles: {name} ({type(module).__name__}) lets every score depend on "
                    "the whole image, so no margin is wide enough; predict the whole image (`tile=0`)"
                )
        if isinstance(net, FCN_ResNet):
            chain = tuple(net.layers())
            stride = Grid.of(chain).stride
            # A pixel lies between two cells, so up to a stride from each; and because so many cells fill the image,
            # the last of which may hang over its end, up to half a stride from where it would be without an end.
            tiling = cls(tile, math.ceil(reach(chain) + stride * 3 / 2), int(stride), chain)
        elif nets and isinstance(net, FCN | LateFusion):
            far = math.ceil(max(reach(chain) for one in nets for chain in chains(one)))
            strides = (grid.stride.numerator for one in nets for grid in one.ladder.grids.values())
            tiling = cls(tile, far, math.lcm(*strides))
        else:
            raise UsageError(f"tile: found {type(net).__name__}, whose reach is unknown; expected an FCN")
        if tiling.kept < 1:
            why = f"scores look {tiling.reach} pixels to each side, which every tile loses as its margin"
            least = 2 * tiling.margin + tiling.stride
            raise UsageError(f"tile is {tile}; expected at least {least}: this net's {why}")
        return tiling

    @property
    def margin(self) -> int:
        """The reach, rounded up to whole strides."""
        return -(-self.reach // self.stride) * self.stride

    @property
    def kept(self) -> int:
        """The side of what is kept of a crop, in whole strides."""
        return (self.tile - 2 * self.margin) // self.stride * self.stride

    def parts(self, size: int) -> Iterator[Span]:
        """Yield the ranges of an axis of `size` pixels that one crop each is responsible for."""
        step = self.kept if self.tile and size > self.tile else size
        return ((start, min(start + step, size)) for start in range(0, size, step))

    def crop(self, size: int, part: Span) -> Span:
        """Return what a net must see of an axis of `size` pixels to give `part` the scores of the whole image."""
        if not self.tile or size <= self.tile:
            return 0, size
        start, stop = part
        return max(0, (start - self.reach) // self.stride * self.stride), min(size, stop + self.reach)

    def inside(self, size: int, part: Span, crop: Span) -> tuple[slice, np.ndarray | None]:
        """Return which scores of `crop` give those of `part`, and the matrix that interpolates them (None: none).

        Where the net resamples its cells, these are scores of cells.
        """
        if not self.resampled:
            return slice(part[0] - crop[0], part[1] - crop[0]), None
        (first, last), matrix = between(out_size(self.resampled, size), size, part)
        return slice(first - crop[0] // self.stride, last - crop[0] // self.stride), matrix

    def cells(self, layers: Sequence[Layer], size: int, part: Span) -> slice:
        """Return which cells behind `layers`, in what a net makes of `crop(size, part)`, are those of `part`.

        Each cell of the whole image belongs to one part, by its centre.
        """
        grid = Grid.of(layers)

        def first_from(pixel: int) -> int:  # of all cells, the first whose centre is not before `pixel`
            return 0 if pixel == 0 else max(0, math.ceil((pixel - grid.start) / grid.stride))

        begin, end = first_from(part[0]), None if part[1] == size else first_from(part[1])
        shift = int(self.crop(size, part)[0] / grid.stride)
        return slice(begin - shift, None if end is None else end - shift)

    def __str__(self) -> str:
        return (
            f"tiles of {self.tile} pixels, {self.kept} of them kept: a score looks {self.reach} pixels to each side, "
            f"which lie in the margin, and tiles begin at multiples of the stride {self.stride}; so the scores are "
            "those of the whole image, to rounding"
        )
