"""Where a cell of a feature map lies in the image: exact coordinates and crop offsets.

A `Layer` is one sliding window along one axis. A `Grid` says where the cells of a feature map are in the image: cell i
has its centre at pixel `stride * i + start` and sees `field` pixels around it. Sending the image's own grid through
the layers of a net gives its stride and receptive field; comparing two grids gives the offset at which one must be
cropped to lie on the other. All in fractions, so "nearly aligned" does not exist.

>>> Grid.of([Layer(3, padding=1), Layer(2, stride=2)])
Grid(stride=2, start=1/2, field=4)

FCN, section 3 (receptive fields, f_ks o g_k's' = (f o g)_{k'+(k-1)s', ss'}) and 4.2 (fusing predictions).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from math import ceil, floor

from minifcn.errors import GeometryError


@dataclass(frozen=True)
class Layer:
    """A window of `kernel` cells, `dilation` apart, moved by `stride` over an axis padded by `padding` on both sides.

    `ceil` counts a last window that hangs over the end, as Caffe's pooling does, unless it would start in the padding.
    `extra` is how many cells the padding has more at the end than at the beginning (TensorFlow's "SAME").
    `transpose` turns the layer around: each input cell spreads over a window of outputs.
    """

    kernel: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    ceil: bool = False
    transpose: bool = False
    output_padding: int = 0
    extra: int = 0

    def __repr__(self) -> str:
        shown = [f"{name}={value}" for name, value in vars(self).items() if value != getattr(Layer, name)]
        return f"Layer({', '.join(shown) or 'kernel=1'})"

    @property
    def extent(self) -> int:
        """Pixels from the first to the last cell of the window, both included."""
        return self.dilation * (self.kernel - 1) + 1

    def out_size(self, size: int) -> int:
        """Cells that come out of `size` cells. Raises `GeometryError` if not one window fits."""
        if self.transpose:
            out = (size - 1) * self.stride + self.extent - 2 * self.padding + self.output_padding
        elif self.ceil:
            out = max(-(-(size + 2 * self.padding + self.extra - self.extent) // self.stride) + 1, 1)
            if (out - 1) * self.stride >= size + self.padding:
                out -= 1
        else:
            out = (size + 2 * self.padding + self.extra - self.extent) // self.stride + 1
        if size < 1 or out < 1:
            raise GeometryError(
                f"a window of {self.extent} (kernel {self.kernel}, dilation {self.dilation}) does not fit into "
                f"{size} + 2*{self.padding} cells: enlarge the image or the padding"
            )
        return out


@dataclass(frozen=True)
class Grid:
    """The cells of a feature map in pixels of the image; `Grid()` is the image itself."""

    stride: Fraction = Fraction(1)
    start: Fraction = Fraction(0)
    field: Fraction = Fraction(1)

    def __repr__(self) -> str:
        return f"Grid(stride={self.stride}, start={self.start}, field={self.field})"

    @classmethod
    def of(cls, layers: Iterable[Layer]) -> Grid:
        """Return the grid that comes out of `layers`, the image's own going in."""
        return reduce(cls.through, layers, cls())

    def through(self, layer: Layer) -> Grid:
        """Return the grid after one more layer: its output cell j sits at input cell s*j + (extent-1)/2 - padding."""
        shift = Fraction(layer.extent - 1, 2) - layer.padding
        if layer.transpose:  # the same relation read the other way: output j sits at input (j - shift) / s
            stride = self.stride / layer.stride
            reach = -(-layer.extent // layer.stride)  # inputs that can reach one output
            return Grid(stride, self.start - stride * shift, self.field + (reach - 1) * self.stride)
        return Grid(
            self.stride * layer.stride, self.start + self.stride * shift, self.field + (layer.extent - 1) * self.stride
        )

    def cropped(self, at: int) -> Grid:
        """Return the grid without its first `at` cells."""
        return Grid(self.stride, self.start + self.stride * at, self.field)

    def inside(self, size: int, *, factor: int = 1) -> range:
        """Return the cells whose whole field lies on an image of `size` pixels: they meet no padding and no clipped
        window.

        From the first multiple of `factor` on: an image that shift-and-stitch moved by less has lost its first pixels.
        """
        first = ((self.field - 1) / 2 - self.start) / self.stride
        last = (size - (self.field + 1) / 2 - self.start) / self.stride
        return range(max(0, ceil(first / factor) * factor), floor(last) + 1)

    def offset(self, other: Grid, *, name: str = "this map", other_name: str = "the other") -> int:
        """Return how many of this grid's first cells to cut so that it starts where `other` starts; negative: cut
        `other`.

        Raises `GeometryError`, with the derivation, if the strides differ or the cells fall between each other.
        """
        if self.stride != other.stride:
            raise GeometryError(
                f"{name} has a cell every {self.stride} pixels and {other_name} every {other.stride}: "
                "only maps of equal stride can be laid on each other"
            )
        offset = (other.start - self.start) / self.stride
        if offset.denominator != 1:
            raise GeometryError(
                f"{name} starts at pixel {self.start} and {other_name} at {other.start}, both with stride "
                f"{self.stride}: the crop offset ({other.start} - {self.start}) / {self.stride} = {offset} is not "
                "whole; a kernel one larger or smaller in the upsampling shifts it by half a cell"
            )
        return int(offset)

    def crop_offset(self, other: Grid, *, name: str = "this map", other_name: str = "the other") -> int:
        """`offset` where only this map may be cut, as Caffe's crop layer does: negative is a `GeometryError`."""
        offset = self.offset(other, name=name, other_name=other_name)
        if offset < 0:
            raise GeometryError(
                f"{name} starts at pixel {self.start}, after {other_name} at {other.start}: the crop offset "
                f"({other.start} - {self.start}) / {self.stride} = {offset} is negative; "
                "more padding in the trunk moves it up"
            )
        return offset


def out_size(layers: Sequence[Layer], size: int) -> int:
    """Cells that come out of a chain of layers. Raises `GeometryError` where a window does not fit."""
    return reduce(lambda n, layer: layer.out_size(n), layers, size)
