"""The three products of a convolution on im2col columns, in bounded memory.

With the columns as a matrix (one row per channel and tap, one column per window) and the weights as a matrix
(one row per output channel, one column per channel and tap):

    correlate   y       = weights @ columns(x)              the layer itself
    spread      gx      = col2im(weights^T @ gy)            its adjoint in x
    weigh       gw      = gy @ columns(x)^T                 its adjoint in w

so that <correlate(x, w), gy> = <x, spread(gy, w)> = <w, weigh(x, gy)>: a test says so for every geometry.

The columns of VGG's conv1_2 on a 500x500 image with padding 100 would fill a gigabyte. A block of them holds at most
`WORKSPACE` bytes: some images, or some rows of one image, or part of one row. On a GPU it is more (`GPU_WORKSPACE`),
because there each block costs launches and has no cache to fit into; and columns, pixels and outputs are kernels of
`fused.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from minifcn.backend import Array, Scope, device_of, is_host, xp_of
from minifcn.kernels import fused
from minifcn.kernels.im2col import Pair, Windows, col2im, im2col

THIN = 16
"""Rows up to which a matrix is thin."""
WORKSPACE = 32 << 20
"""Bytes of columns in one block. The slab of image beside them and the product stay below as much again."""
GPU_WORKSPACE: Scope[int] = Scope("gpu_workspace", 256 << 20)
"""The same on a GPU."""


def correlate(x: Array, w: Array, g: Windows, b: Array | None = None, relu: bool = False) -> Array:
    """y[n, o] = b[o] + sum over i, taps of w[o, i] * window(x[n, i]): x (N, I, H, W), w (O, I/groups, kh, kw)."""
    out = g.out_size(x.shape[2:])
    y = xp_of(x).empty((len(x), len(w), *out), dtype=x.dtype)
    for block in blocks(len(x), out, at_once(w, g)):
        correlate_block(y, x, w, g, block, b, relu)
    return y


def workspace(product: str, w: Array, g: Windows, shape: tuple[int, int, int, int]) -> int:
    """Return the bytes that a product (its name) takes beside what it is given and returns, for images of shape (N, I,
    H, W).
    """
    found = blocks(shape[0], g.out_size(shape[2:]), at_once(w, g))
    block = block_bytes(w, g, found, product == "correlate" and (device_of(w) == "gpu" or apart(found)))
    single = len(found) == 1 and device_of(w) == "gpu"
    return block + (min(w.nbytes, room(w)) if product == "weigh" and not single else 0)


def block_bytes(w: Array, g: Windows, found: list[Block], product: bool = False) -> int:
    """Return the bytes of the largest block: its columns, the slab of image under it, outputs where they are another
    array.
    """
    block = found[0]
    slab = 0 if fused.serves(w) else block.shape[0] * w.shape[1] * g.groups * math.prod(block.slab_size(g))
    outputs = block.count * len(w) if product or block.shape[0] > 1 else 0  # of one image they are a view of gy
    return (block.count * w[0].size * g.groups + max(slab, outputs)) * w.itemsize  # one goes before the other comes


def apart(found: list[Block]) -> bool:
    """Return whether `correlate_block` needs an array for the product: that of whole rows of one image lies in y."""
    return found[0].shape[0] > 1 or found[-1].cols.start > 0


def correlate_block(y: Array, x: Array, w: Array, g: Windows, block: Block, b: Array | None, relu: bool) -> None:
    """Fill the part of y whose windows the block holds."""
    columns, shape = columns_of(x, g, block), (g.groups, len(w) // g.groups, -1)
    row, (n, _, cols) = y.shape[3], block.shape
    whole = n == 1 and cols == row and not fused.serves(x)  # rows of one image: the product can lie in y at once
    product = (
        y[block.images.start].reshape(len(w), -1)[:, block.rows.start * row : block.rows.stop * row]
        if whole
        else xp_of(x).empty((len(w), columns.shape[2]), dtype=x.dtype)
    )
    multiply(w.reshape(shape), columns, product.reshape(shape))
    if fused.serves(x):
        fused.outputs(product, y[block.outputs], b, relu)
        return
    finish(product, b, relu)
    if not whole:
        y[block.outputs] = product.reshape(len(w), *block.shape).transpose(1, 0, 2, 3)


def columns_of(x: Array, g: Windows, block: Block) -> Array:
    """Return the columns of the block's windows as a matrix for each group: (groups, I/groups*kh*kw, windows)."""
    if fused.serves(x):
        seen, corner = block.seen(x, g)
        columns = fused.columns(seen, g, block.shape, corner)
    else:
        columns = im2col(block.cut(x, g), bare(g))
    return columns.reshape(g.groups, -1, block.count)


def spread(gy: Array, w: Array, g: Windows, size: Pair, limit: int | None = None) -> Array:
    """The adjoint of `correlate` in x: every output gradient, times the weights, back to the pixels it looked at."""
    found = blocks(len(gy), gy.shape[2:], at_once(w, g, limit))
    gathers = fused.serves(gy) and len(found) == 1 and found[0].sees_all(size, g)  # writes to every pixel
    gx = (xp_of(gy).empty if gathers else xp_of(gy).zeros)((len(gy), w.shape[1] * g.groups, *size), dtype=gy.dtype)
    weights = matrix(w.reshape(g.groups, len(w) // g.groups, -1).transpose(0, 2, 1))
    for block in found:
        columns = (weights @ matrix(_by_channel(gy, g, block))).reshape(gx.shape[1], *g.kernel, *block.shape)
        if fused.serves(gy):
            seen, corner = block.seen(gx, g)
            fused.pixels(columns, seen, g, corner, add=not gathers)
        else:
            block.paste(gx, col2im(columns, bare(g), block.slab_size(g)), g)
        del columns  # or they would stay until the next block's are made
    return gx


def weigh(x: Array, gy: Array, g: Windows) -> Array:
    """Return the adjoint of `correlate` in w: each weight gets the sum of (pixel under its tap) * (output gradient)."""
    gw = xp_of(x).empty((gy.shape[1], x.shape[1] // g.groups, *g.kernel), dtype=x.dtype)
    found = blocks(len(x), gy.shape[2:], at_once(gw, g))
    single = len(found) == 1 and not is_host(x)
    if not single:
        gw[...] = 0
    for block in found:
        weigh_block(gw, x, gy, g, block, add=not single)
    return gw


def weigh_block(gw: Array, x: Array, gy: Array, g: Windows, block: Block, *, add: bool = True) -> None:
    """Write to gw, or add to it, what the windows of the block say."""
    columns = columns_of(x, g, block)
    gradients = _by_channel(gy, g, block)
    total = gw.reshape(g.groups, len(gw) // g.groups, -1)
    if not add:
        xp_of(x).matmul(matrix(gradients), matrix(columns).swapaxes(-1, -2), out=matrix(total))
        return
    step = max(1, room(gw) // (g.groups * gw[0].nbytes))  # fc6 has 400 MB of weights: no second array like it
    for first in range(0, total.shape[1], step):
        add_product(total[:, first : first + step], gradients[:, first : first + step], columns)


def multiply(a: Array, b: Array, y: Array) -> None:
    """y = a @ b for each group, b being long: (groups, M, K) @ (groups, K, L) -> y (groups, M, L)."""
    if not is_host(y):
        xp_of(a).matmul(matrix(a), matrix(b), out=matrix(y))
        return
    length = strip(a.shape[1], b)
    whole = b.shape[2] // length * length
    if whole > length:
        xp_of(a).matmul(a[:, None], in_strips(b, length), out=in_strips(y, length))
        b, y = b[:, :, whole:], y[:, :, whole:]
    xp_of(a).matmul(a, b, out=y)


def add_product(total: Array, a: Array, b: Array) -> None:
    """total += a @ b^T for each group, both being long: (groups, M, L), (groups, K, L) -> total (groups, M, K)."""
    if not is_host(total):
        total = matrix(total)
        total += matrix(a) @ matrix(b).swapaxes(-1, -2)
        return
    length = strip(a.shape[1], b)
    whole = b.shape[2] // length * length
    if whole > length:
        total += (in_strips(a, length) @ in_strips(b, length).swapaxes(2, 3)).sum(axis=1)
        a, b = a[:, :, whole:], b[:, :, whole:]
    total += a @ b.transpose(0, 2, 1)


def matrix(a: Array) -> Array:
    """Return the matrix of a single group on a GPU, else `a`: CuPy copies transposed operands of stacks alone."""
    return a if len(a) > 1 or is_host(a) else a[0]


def strip(rows: int, b: Array) -> int:
    """Return the length of the pieces of `b` (groups, K, L) that a matrix of `rows` rows is multiplied by.

    BLAS copies its matrices into an order of its own before it multiplies, and with few rows that is most of the work.
    OpenBLAS leaves out the copy below a million multiply-adds, and is then twice as fast, or three times.
    """
    size = rows * b.shape[1]
    return min(512, 1_000_000 // size) if size < (4000 if rows <= THIN else 1500) else b.shape[2]


def in_strips(a: Array, length: int) -> Array:
    """a (groups, M, L) as (groups, strips, M, length), without the rest; a view."""
    whole = a.shape[2] // length * length
    return a[:, :, :whole].reshape(*a.shape[:2], -1, length).swapaxes(1, 2)


@lru_cache
def bare(g: Windows) -> Windows:
    """Return the windows of a slab, which brings its padding along."""
    return replace(g, padding=(0, 0))


def finish(y: Array, b: Array | None, relu: bool) -> None:
    """Add the bias and cut off what is negative, in place, while y (O, windows) is still in the cache."""
    if b is not None:
        y += b[:, None]
    if relu:
        rectify(y)


def rectify(y: Array) -> None:
    """y = max(y, 0), in place: beside an array, even of zeros, NumPy compares 16 numbers at a time; beside a 0, one."""
    xp = xp_of(y)
    xp.maximum(y, xp.zeros(y.shape[-1], dtype=y.dtype), out=y)


def at_once(w: Array, g: Windows, limit: int | None = None) -> int:
    """Return how many windows' columns, or larger products, fit into `limit` bytes, by default the `room`."""
    per_window = max(g.groups * w[0].size, len(w)) * w.itemsize
    return (room(w) if limit is None else limit) // per_window


def room(w: Array) -> int:
    """Return the bytes of columns in one block, on the device of w."""
    return GPU_WORKSPACE() if device_of(w) == "gpu" else WORKSPACE


def _by_channel(gy: Array, g: Windows, block: Block) -> Array:
    """The block's part of gy as a matrix (groups, O/groups, windows)."""
    return gy[block.outputs].transpose(1, 0, 2, 3).reshape(g.groups, gy.shape[1] // g.groups, -1)


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

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Its number of images, output rows and output columns."""
        n, rows, cols = (part.stop - part.start for part in (self.images, self.rows, self.cols))
        return n, rows, cols

    @property
    def count(self) -> int:
        """Its number of windows."""
        n, rows, cols = self.shape
        return n * rows * cols

    def slab_size(self, g: Windows) -> Pair:
        """Return the rows and columns of padded image that the windows of this block cover."""
        (_, rows, cols), (sh, sw), (eh, ew) = self.shape, g.stride, g.span
        return (rows - 1) * sh + eh, (cols - 1) * sw + ew

    def cut(self, x: Array, g: Windows, out: Array | None = None) -> Array:
        """Return the part of x under these windows, with the zeros of the padding around it where they reach out."""
        there, here = self.overlap(x.shape[2:], g)
        images = x[self.images]
        slab = xp_of(x).empty((*images.shape[:2], *self.slab_size(g)), dtype=x.dtype) if out is None else out
        rows, cols = here
        for border in (slab[:, :, : rows.start], slab[:, :, rows.stop :]):
            border[...] = 0
        for border in (slab[:, :, rows, : cols.start], slab[:, :, rows, cols.stop :]):
            border[...] = 0
        slab[:, :, rows, cols] = images[:, :, *there]
        return slab

    def paste(self, x: Array, slab: Array, g: Windows) -> None:
        """The adjoint of `cut`: add a slab to the part of x it was cut from; what fell on the padding is dropped."""
        there, here = self.overlap(x.shape[2:], g)
        x[self.images][:, :, *there] += slab[:, :, *here]

    def seen(self, x: Array, g: Windows) -> tuple[Array, Pair]:
        """Return the part of x under these windows, and the rows and columns of padding above and to its left."""
        there, (rows, cols) = self.overlap(x.shape[2:], g)
        return x[self.images][:, :, *there], (rows.start, cols.start)

    def sees_all(self, size: Pair, g: Windows) -> bool:
        """Return whether these windows, which are those of all images, reach over a whole image of this size."""
        return self.overlap(size, g)[0] == [slice(0, size[0]), slice(0, size[1])]

    def overlap(self, size: Pair, g: Windows) -> tuple[list[slice], list[slice]]:
        """Return the rows and columns that image and slab share: as the image counts them, and as the slab does."""
        there, here = [], []
        for axis, part in enumerate((self.rows, self.cols)):
            first = part.start * g.stride[axis] - g.padding[axis]
            low = min(max(first, 0), size[axis])
            high = min(max(first + self.slab_size(g)[axis], low), size[axis])
            there.append(slice(low, high))
            # A slab that lies wholly in the padding shares nothing; its empty range must not count from the end.
            here.append(slice(low - first, high - first) if high > low else slice(0, 0))
        return there, here


@lru_cache
def blocks(n: int, out: Pair, at_once: int, parts: int = 1) -> list[Block]:
    """Return the windows of n images in blocks of at most `at_once`: whole images, else whole rows, else parts of a
    row.

    With `parts` threads to feed, the blocks are cut so that each thread gets as many, of about the same size.
    """
    at_once = max(1, at_once)
    images = _step(n, at_once // (out[0] * out[1]), parts)
    rows_at_most = min(out[0], at_once // out[1])
    rows = _step(out[0], rows_at_most, -(-parts // max(1, -(-n // images))) if rows_at_most == out[0] else parts)
    cols = min(out[1], at_once)
    return [
        Block(
            slice(image, min(image + images, n)),
            slice(row, min(row + rows, out[0])),
            slice(col, min(col + cols, out[1])),
        )
        for image in range(0, n, images)
        for row in range(0, out[0], rows)
        for col in range(0, out[1], cols)
    ]


def _step(total: int, at_most: int, parts: int) -> int:
    """A step that walks `total` in a multiple of `parts` equal strides, none longer than `at_most` (or 1)."""
    strides = max(1, -(-total // max(1, at_most)))
    return max(1, -(-total // (-(-strides // parts) * parts)))
