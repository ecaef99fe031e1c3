"""The three products of a convolution, over the columns of `im2col`, a block of windows at a time.

With the columns as a matrix (one row per channel and tap, one column per window) and the weights as a matrix
(one row per output channel, one column per channel and tap):

    correlate   y       = weights @ columns(x)              the layer itself
    spread      gx      = col2im(weights^T @ gy)            its adjoint in x
    weigh       gw      = gy @ columns(x)^T                 its adjoint in w

so that <correlate(x, w), gy> = <x, spread(gy, w)> = <w, weigh(x, gy)>: a test says so for every geometry.

The columns of VGG's conv1_2 on a 500x500 image with padding 100 would fill a gigabyte. A block of them holds at most
`WORKSPACE` bytes: some images, or some rows of one image, or part of one row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from minifcn.backend import Array, xp_of
from minifcn.kernels.im2col import Pair, Windows, col2im, im2col

WORKSPACE = 32 << 20
"""Bytes of columns in one block. The slab of image beside them and the product stay below as much again."""


def correlate(x: Array, w: Array, g: Windows) -> Array:
    """y[n, o] = sum over i, taps of w[o, i] * window(x[n, i]): x (N, I, H, W), w (O, I/groups, kh, kw)."""
    out = g.out_size(x.shape[2:])
    y = xp_of(x).empty((len(x), len(w), *out), dtype=x.dtype)
    weights = w.reshape(g.groups, len(w) // g.groups, -1)
    for block in blocks(x.shape, w.shape, out, x.itemsize):
        columns = im2col(block.cut(x, g), replace(g, padding=(0, 0)))
        product = weights @ columns.reshape(g.groups, weights.shape[2], -1)
        y[block.outputs] = product.reshape(len(w), *block.shape).transpose(1, 0, 2, 3)
    return y


def spread(gy: Array, w: Array, g: Windows, size: Pair) -> Array:
    """The adjoint of `correlate` in x: every output gradient, times the weights, back to the pixels it looked at."""
    gx = xp_of(gy).zeros((len(gy), w.shape[1] * g.groups, *size), dtype=gy.dtype)
    weights = w.reshape(g.groups, len(w) // g.groups, -1).transpose(0, 2, 1)
    for block in blocks(gx.shape, w.shape, gy.shape[2:], gy.itemsize):
        columns = weights @ _by_channel(gy[block.outputs], g)
        columns = columns.reshape(gx.shape[1], *g.kernel, *block.shape)
        block.paste(gx, col2im(columns, replace(g, padding=(0, 0)), block.slab_size(g)), g)
    return gx


def weigh(x: Array, gy: Array, g: Windows) -> Array:
    """The adjoint of `correlate` in w: each weight gets the sum of (pixel under its tap) * (output gradient)."""
    o, i, (kh, kw) = gy.shape[1], x.shape[1] // g.groups, g.kernel
    gw = xp_of(x).zeros((g.groups, o // g.groups, i * kh * kw), dtype=x.dtype)
    step = max(1, WORKSPACE // (gw[:, :1].size * x.itemsize))  # fc6 has 400 MB of weights: no second array like it
    for block in blocks(x.shape, (o, i, kh, kw), gy.shape[2:], x.itemsize):
        columns = im2col(block.cut(x, g), replace(g, padding=(0, 0)))
        columns = columns.reshape(g.groups, i * kh * kw, -1).transpose(0, 2, 1)
        gradients = _by_channel(gy[block.outputs], g)
        for first in range(0, gw.shape[1], step):
            gw[:, first : first + step] += gradients[:, first : first + step] @ columns
    return gw.reshape(o, i, kh, kw)


def _by_channel(gy: Array, g: Windows) -> Array:
    return gy.transpose(1, 0, 2, 3).reshape(g.groups, gy.shape[1] // g.groups, -1)


@dataclass(frozen=True)
class Block:
    """Some of the windows: those of images n0..n1, output rows top..bottom and output columns left..right."""

    images: slice
    rows: slice
    cols: slice

    @property
    def outputs(self) -> tuple[slice, slice, slice, slice]:
        """Where this block's windows lie in y (N, O, H', W')."""
        return self.images, slice(None), self.rows, self.cols

    @property
    def shape(self) -> tuple[int, int, int]:
        """Its number of images, output rows and output columns."""
        n, rows, cols = (part.stop - part.start for part in (self.images, self.rows, self.cols))
        return n, rows, cols

    def slab_size(self, g: Windows) -> Pair:
        """Rows and columns of padded image that the windows of this block cover."""
        (_, rows, cols), (sh, sw), (eh, ew) = self.shape, g.stride, g.span
        return (rows - 1) * sh + eh, (cols - 1) * sw + ew

    def cut(self, x: Array, g: Windows) -> Array:
        """The part of x under these windows, with the zeros of the padding around it where they reach out."""
        there, here = self._overlap(x.shape[2:], g)
        images = x[self.images]
        slab = xp_of(x).zeros((*images.shape[:2], *self.slab_size(g)), dtype=x.dtype)
        slab[:, :, *here] = images[:, :, *there]
        return slab

    def paste(self, x: Array, slab: Array, g: Windows) -> None:
        """The adjoint of `cut`: add a slab to the part of x it was cut from; what fell on the padding is dropped."""
        there, here = self._overlap(x.shape[2:], g)
        x[self.images][:, :, *there] += slab[:, :, *here]

    def _overlap(self, size: Pair, g: Windows) -> tuple[list[slice], list[slice]]:
        """The rows and columns shared by image and slab: as the image counts them, and as the slab counts them."""
        there, here = [], []
        for axis, part in enumerate((self.rows, self.cols)):
            first = part.start * g.stride[axis] - g.padding[axis]
            low = min(max(first, 0), size[axis])
            high = min(max(first + self.slab_size(g)[axis], low), size[axis])
            there.append(slice(low, high))
            # A slab that lies wholly in the padding shares nothing; its empty range must not count from the end.
            here.append(slice(low - first, high - first) if high > low else slice(0, 0))
        return there, here


def blocks(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], out: Pair, itemsize: int, limit: int = WORKSPACE
) -> Iterator[Block]:
    """All windows of a layer in blocks whose columns and whose product hold at most `limit` bytes."""
    channels, taps = x_shape[1], w_shape[2] * w_shape[3]
    at_once = max(1, limit // (max(channels * taps, w_shape[0]) * itemsize))
    images = max(1, at_once // (out[0] * out[1]))
    rows = min(out[0], max(1, at_once // out[1]))
    cols = min(out[1], at_once)
    for image in range(0, x_shape[0], images):
        for row in range(0, out[0], rows):
            for col in range(0, out[1], cols):
                yield Block(
                    slice(image, min(image + images, x_shape[0])),
                    slice(row, min(row + rows, out[0])),
                    slice(col, min(col + cols, out[1])),
                )
