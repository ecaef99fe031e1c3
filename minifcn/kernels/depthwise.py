"""The three products of a depthwise convolution, in which each channel is filtered alone, as banded matrix products.

A filter of kh*kw taps on one channel is no matrix product, and adding up kh*kw shifted images takes NumPy 50 passes
for a filter of 5x5. So take a strip of columns, so narrow that the pixels under one row of its windows are few, and
store it row behind row. The filter becomes a matrix from those kh rows of pixels to the outputs, with its taps on the
diagonals. For a row of 3 taps and 3 outputs:

    pixels        a  b  c  d  e            u
                                           v  u            Most of it is zeros. But BLAS multiplies so much faster than
    outputs       ua + vb + wc             w  v  u         NumPy adds that this takes a third of the time, and no pixel
                  ub + vc + wd                w  v         is copied kh*kw times: the windows that begin kh rows apart
                  uc + vd + we                   w         do not overlap, and are a matrix as they lie in memory.

    correlate   y       = windows @ band
    spread      gx      = gy @ band^T, added to the pixels of each window
    weigh       gw      = the diagonals of windows^T @ gy

Zero times infinity is NaN, and would reach outputs that do not see the infinite pixel. Arrays with such numbers are
left to `blocks.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from minifcn.backend import Array, finite, xp_of
from minifcn.kernels import blocks
from minifcn.kernels.im2col import Pair, Windows
from minifcn.kernels.products import Block, finish
from minifcn.kernels.products import blocks as pieces
from minifcn.kernels.threads import parallel, shares, useful_threads

CACHE = 2 << 20
"""Bytes of pixels and outputs that a thread works on at a time."""
WIDTH = 16
"""Outputs of one row in a strip at most: a filter of 5x5 took 2.3 ms with 14 or 16 of them, 2.8 with 7, 5.4 with 28."""


def serves(g: Windows, i: int, o: int) -> bool:
    """Return whether each channel is filtered alone, with a filter that is small beside the cache."""
    return g.groups == i == o and max(g.span) <= 64 and max(g.stride) <= 16


def correlate(x: Array, w: Array, g: Windows, b: Array | None = None, relu: bool = False) -> Array:
    """Return y of `products.correlate`: x (N, I, H, W), w (O, I/groups, kh, kw), b (O,) -> y (N, O, H', W')."""
    return (banded if finite(x) else blocks.correlate)(x, w, g, b, relu)


def banded(x: Array, w: Array, g: Windows, b: Array | None = None, relu: bool = False) -> Array:
    """Return `correlate` of an x that is finite."""
    xp, out = xp_of(x), g.out_size(x.shape[2:])
    y = xp.empty((len(x), len(w), *out), dtype=x.dtype)

    def on_channels(part: slice) -> None:
        band = bands(w[part], g, out)
        for block in cut(len(x), w, g, out):
            strips = Strips(block, g, out)
            made = xp.empty(strips.outputs(len(band)), dtype=x.dtype)
            for phase, pixels in enumerate(strips.phases(strips.from_pixels(x[:, part]))):
                xp.matmul(pixels, band, out=strips.phase(made, phase))
            finish(made.reshape(len(made), -1), None if b is None else b[part], relu)
            here, there = strips.places(made, y[:, part])
            there[...] = here

    parallel(on_channels, *channels_and_threads(w, g, len(x), out))
    return y


def spread(gy: Array, w: Array, g: Windows, size: Pair) -> Array:
    """Return gx of `products.spread`: gy (N, O, H', W'), w (O, I/groups, kh, kw) -> gx (N, I, *size)."""
    if not finite(gy):
        return blocks.spread(gy, w, g, size)
    if g.stride == (1, 1):
        return banded(*blocks.turn(gy, w, g))
    xp, out = xp_of(gy), gy.shape[2:]
    gx = xp.zeros((len(gy), g.groups, *size), dtype=gy.dtype)

    def on_channels(part: slice) -> None:
        band = bands(w[part], g, out).swapaxes(2, 3)
        for block in cut(len(gy), w, g, out):
            strips = Strips(block, g, out)
            gradients = strips.from_gradients(gy[:, part])
            line = xp.zeros(strips.pixels(len(band)), dtype=gy.dtype)
            for phase, pixels in enumerate(strips.phases(line)):
                pixels += strips.phase(gradients, phase) @ band
            strips.paste(gx[:, part], line)

    parallel(on_channels, *channels_and_threads(w, g, len(gy), out))
    return gx


def weigh(x: Array, gy: Array, g: Windows) -> Array:
    """Return gw of `products.weigh`: x (N, I, H, W), gy (N, O, H', W') -> gw (O, I/groups, kh, kw)."""
    if not (finite(x) and finite(gy)):
        return blocks.weigh(x, gy, g)
    xp, out = xp_of(x), gy.shape[2:]
    gw = xp.empty((gy.shape[1], 1, *g.kernel), dtype=x.dtype)

    def on_channels(part: slice) -> None:
        sums = xp.zeros_like(bands(gw[part], g, out))
        for block in cut(len(x), gw, g, out):
            strips = Strips(block, g, out)
            gradients = strips.from_gradients(gy[:, part])
            for phase, pixels in enumerate(strips.phases(strips.from_pixels(x[:, part]))):
                sums += (pixels.swapaxes(2, 3) @ strips.phase(gradients, phase)).sum(axis=1, keepdims=True)
        gw[part, 0] = diagonals(sums, g, out).sum(axis=3)

    parallel(on_channels, *channels_and_threads(gw, g, len(x), out))
    return gw


def workspace(product: str, w: Array, g: Windows, shape: tuple[int, int, int, int]) -> int:
    """Return the bytes that a product takes beside what it is given and returns; see `products.workspace`."""
    if product == "spread" and g.stride == (1, 1):
        return blocks.turned_workspace(workspace, w, g, shape)
    n, out = shape[0], g.out_size(shape[2:])
    found, parts = channels_and_threads(w, g, n, out)
    strips, channels = Strips(cut(n, w, g, out)[0], g, out), found[0].stop
    line, outputs = math.prod(strips.pixels(channels)), math.prod(strips.outputs(channels))
    band = channels * g.span[0] * strips.cells * strips.width
    gaps = g.span[0] % g.stride[0] > 0  # between the windows of a phase: NumPy copies them before it adds to them
    more = {
        "correlate": 0,
        "spread": (1 + gaps) * channels * strips.count * strips.rows * g.span[0] * strips.cells,
        "weigh": band * (strips.count + 1),
    }
    return min(parts, len(found)) * (line + outputs + band + more[product]) * w.itemsize


class Strips:
    """Where the pixels of a block of windows lie, and their outputs.

    Each strip has `cells` columns and makes up to `width` outputs of a row. Its rows follow one another, `stride` of
    them for each row of windows. Windows that begin `period` of those further down share no pixel with the first. Those
    that begin in the last rows of an image hang over into the next: they are computed with the others and left out.
    """

    def __init__(self, block: Block, g: Windows, out: Pair) -> None:
        (n, rows, cols), self.block, self.g = block.shape, block, g
        self.width = strip_width(out)
        self.count = -(-cols // self.width)
        self.cells = (self.width - 1) * g.stride[1] + g.span[1]
        self.period = -(-g.span[0] // g.stride[0])
        self.each = rows + self.period - 1  # rows of windows in an image, with those that hang over
        self.rows = -(-n * self.each // self.period)  # of windows in a phase

    def pixels(self, channels: int) -> tuple[int, int, int, int]:
        """Return the shape of the pixels: (C, strips, rows, cells)."""
        return channels, self.count, (self.rows * self.period + self.period - 1) * self.g.stride[0], self.cells

    def outputs(self, channels: int) -> tuple[int, int, int, int, int]:
        """Return the shape of the outputs: (C, rows of a phase, phases, strips, width), an image row in one piece."""
        return channels, self.rows, self.period, self.count, self.width

    def phase(self, made: Array, phase: int) -> Array:
        """Return the outputs of a phase: (C, strips, rows, width), a view."""
        return made[:, :, phase].swapaxes(1, 2)

    def slabs(self, line: Array) -> Iterator[tuple[Block, Array]]:
        """Yield the windows of each strip, and the pixels that they see (images, C, rows, cells), a view."""
        n, height = self.block.shape[0], self.each * self.g.stride[0]
        images = line[:, :, : n * height].reshape(*line.shape[:2], n, height, self.cells)
        for strip in range(self.count):
            left = self.block.cols.start + strip * self.width
            block = Block(self.block.images, self.block.rows, slice(left, left + self.width))
            yield block, images[:, strip, :, : block.slab_size(self.g)[0]].swapaxes(0, 1)

    def from_pixels(self, x: Array) -> Array:
        """Return the pixels of x (N, C, H, W) in strips."""
        line = xp_of(x).empty(self.pixels(x.shape[1]), dtype=x.dtype)
        n, height, seen = self.block.shape[0], self.each * self.g.stride[0], self.block.slab_size(self.g)[0]
        line[:, :, : n * height].reshape(*line.shape[:2], n, height, -1)[:, :, :, seen:] = 0
        line[:, :, n * height :] = 0
        for block, pixels in self.slabs(line):
            block.cut(x, self.g, out=pixels)
        return line

    def paste(self, gx: Array, line: Array) -> None:
        """Add the strips to the pixels of gx that they were cut from."""
        for block, pixels in self.slabs(line):
            block.paste(gx, pixels, self.g)

    def phases(self, line: Array) -> Iterator[Array]:
        """Yield the windows that begin in row 0, 1, ... of each period: (C, strips, rows, pixels), views."""
        flat, step = line.reshape(*line.shape[:2], -1), self.g.stride[0] * self.cells
        for phase in range(self.period):
            whole = flat[:, :, phase * step : (phase + self.rows * self.period) * step]
            rows = whole.reshape(*line.shape[:2], self.rows, self.period * step)
            yield rows[:, :, :, : self.g.span[0] * self.cells]

    def from_gradients(self, gy: Array) -> Array:
        """Return gy (N, C, H', W') as `outputs`, zeros for the windows that hang over."""
        gradients = xp_of(gy).zeros(self.outputs(gy.shape[1]), dtype=gy.dtype)
        here, there = self.places(gradients, gy)
        here[...] = there
        return gradients

    def places(self, made: Array, y: Array) -> tuple[Array, Array]:
        """Return the outputs that do not hang over, and their place in y (N, C, H', W'), views."""
        n, rows, cols = self.block.shape
        images = made.reshape(len(made), -1, self.count * self.width)[:, : n * self.each]
        here = images.reshape(len(made), n, self.each, -1)[:, :, :rows, :cols].swapaxes(0, 1)
        return here, y[self.block.outputs]


def bands(w: Array, g: Windows, out: Pair) -> Array:
    """Return the matrices of filters w (C, 1, kh, kw): (C, 1, pixels of a row of windows, width)."""
    cells = (strip_width(out) - 1) * g.stride[1] + g.span[1]
    band = xp_of(w).zeros((len(w), 1, g.span[0] * cells, strip_width(out)), dtype=w.dtype)
    diagonals(band, g, out)[...] = w[:, 0, :, :, None]
    return band


def diagonals(band: Array, g: Windows, out: Pair) -> Array:
    """Return the taps in the column of each output (C, kh, kw, width), a view: a column further, they are lower."""
    matrix = band.reshape(len(band), g.span[0], -1, strip_width(out))
    channel, row, cell, output = matrix.strides
    strides = channel, g.dilation[0] * row, g.dilation[1] * cell, g.stride[1] * cell + output
    return xp_of(band).lib.stride_tricks.as_strided(matrix, (len(band), *g.kernel, strip_width(out)), strides)


def strip_width(out: Pair) -> int:
    """Return how many outputs of a row a strip makes: the strips of a row are equal, but for the last."""
    return -(-out[1] // -(-out[1] // WIDTH))


def cut(n: int, w: Array, g: Windows, out: Pair) -> list[Block]:
    """Return the windows of n images in blocks whose pixels and outputs, of one channel, fit into the cache."""
    return pieces(n, out, CACHE // window_bytes(w, g, out))


def window_bytes(w: Array, g: Windows, out: Pair) -> int:
    """Return the bytes of pixels and outputs for one window, not counting where windows reach beyond a block."""
    width = strip_width(out)
    pixels = g.stride[0] * ((width - 1) * g.stride[1] + g.span[1])
    return w.itemsize * (-(-pixels // width) + 1)


def channels_and_threads(w: Array, g: Windows, n: int, out: Pair) -> tuple[list[slice], int]:
    """Return the channels that are taken at a time, and the number of threads."""
    windows = n * math.prod(out)
    parts = useful_threads(4 * windows * len(w) * math.prod(g.span))  # a quarter of a band's products are with taps
    channels = max(1, CACHE // max(1, windows * window_bytes(w, g, out)))
    return shares(g.groups, parts * -(-g.groups // (parts * channels))), parts
