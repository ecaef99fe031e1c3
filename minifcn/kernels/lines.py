"""The three products for thin layers: one matrix product for all kernel rows, one copy of a pixel for each column.

A layer of 8 or 32 channels multiplies little. Its time goes into copies of short rows of pixels, nine for each pixel,
and into matrix products with few rows, at which BLAS is slow. So take the rows of an image as they are. What kernel row
i sees from one row of windows, kernel row i+1 sees from the row above: the columns of one kernel row serve all of them.
And the weights of all kernel rows, below one another, are one matrix of kh*O rows:

    columns[c, j] = channel c, shifted by tap j             kw copies instead of kh*kw, zeros where it leaves the image
    parts[i, o]   = w[o, :, i] @ columns                    one product; no row of padding is multiplied
    y[o, row]     = sum over i of parts[i, o, row + i]      written straight to its place

For the weights' gradient the rows of gy are laid below one another in the same way, each kernel row's shifted. Blocks
of rows or images are so small that columns and parts stay in the caches, and are shared out to threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from minifcn.backend import Array, xp_of
from minifcn.kernels.blocks import kernel_rows, turn, turned_workspace
from minifcn.kernels.im2col import Pair, Windows
from minifcn.kernels.products import WORKSPACE, Block, add_product, blocks, multiply
from minifcn.kernels.threads import lanes, parallel

CACHE = 3 << 20
"""Bytes of columns and parts in one block: of the sizes tried, the quickest on one thread and on two."""
BUFFERS = 3 * 8192
"""Numbers that NumPy takes for itself to add arrays of several strides."""
ALONE = 10_000_000
"""Multiply-adds below which one thread is quicker than two: here each has few and long steps, so that two pay soon."""
PIECE = 8 << 20
"""Bytes of columns and parts in a block at most, where one of `CACHE` would hold less than 4 rows for each that it
shares with the next."""


def serves(g: Windows, i: int, o: int) -> bool:
    """Whether windows lie as close to one another as pixels do, and look at more than one, through few weights.

    A single window's columns must fit into a piece, too: those of a kernel that is spread widely (dilation) do not.
    """
    weights, seen = o * i // g.groups * math.prod(g.kernel), (i * g.kernel[1] + o * g.kernel[0]) * g.span[0]
    return g.stride == (1, 1) and g.kernel != (1, 1) and 4 * max(weights, seen) <= PIECE


def correlate(x: Array, w: Array, g: Windows, b: Array | None = None, relu: bool = False) -> Array:
    xp, out = xp_of(x), g.out_size(x.shape[2:])
    y = xp.empty((len(x), g.groups, len(w) // g.groups, *out), dtype=x.dtype)
    weights, parts = stacked(w, g), crew(y.size * w[0].size, w, g)
    bias = 0 if b is None else b.reshape(g.groups, -1, 1, 1, 1)

    def some_windows(block: Block) -> None:
        lines = columns(x, g, block)
        product = xp.empty((g.groups, weights.shape[1], math.prod(lines.shape[2:])), dtype=x.dtype)
        multiply(weights, lines.reshape(*lines.shape[:2], product.shape[2]), product)
        product = product.reshape(g.groups, g.kernel[0], len(w) // g.groups, *lines.shape[2:])
        made = y[block.images, :, :, block.rows, block.cols].transpose(1, 2, 0, 3, 4)
        found = shifts(x.shape[2], g, block)
        if found and found[0].windows == slice(0, block.shape[1]):
            xp.add(product[:, found[0].row, :, :, found[0].pixels], bias, out=made)
            found = found[1:]
        else:  # no kernel row sees a pixel from every window
            made[...] = bias
        for each in found:
            to = made[:, :, :, each.windows]
            to += product[:, each.row, :, :, each.pixels]
        if relu:
            xp.maximum(made, xp.zeros(made.shape[3:], dtype=x.dtype), out=made)

    parallel(some_windows, pieces(len(x), out, w, g, parts), parts)
    return y.reshape(len(x), len(w), *out)


def spread(gy: Array, w: Array, g: Windows, size: Pair) -> Array:
    return correlate(*turn(gy, w, g))


def weigh(x: Array, gy: Array, g: Windows) -> Array:
    xp, o, i, (kh, kw) = xp_of(x), gy.shape[1], x.shape[1] // g.groups, g.kernel
    gw = xp.empty((o, i, kh, kw), dtype=x.dtype)
    parts = crew(gy.size * gw[0].size, gw, g)
    found = pieces(len(x), gy.shape[2:], gw, g, parts)
    sums = xp.zeros((parts, g.groups, kh * o // g.groups, i * kw), dtype=x.dtype)  # one for each thread
    by_group = gy.reshape(len(gy), g.groups, -1, *gy.shape[2:])

    def some_windows(share: int) -> None:
        for block in found[share::parts]:
            add_block(sums[share], block)

    def add_block(total: Array, block: Block) -> None:
        lines = columns(x, g, block)
        gradients = by_group[block.images, :, :, block.rows, block.cols].transpose(1, 2, 0, 3, 4)
        shifted = xp.zeros((g.groups, kh, o // g.groups, *lines.shape[2:]), dtype=x.dtype)
        for each in shifts(x.shape[2], g, block):
            shifted[:, each.row, :, :, each.pixels] = gradients[:, :, :, each.windows]
        length = math.prod(lines.shape[2:])
        add_product(
            total, shifted.reshape(g.groups, kh * o // g.groups, length), lines.reshape(*lines.shape[:2], length)
        )

    parallel(some_windows, range(parts), parts)
    by_row = sums.sum(axis=0).reshape(g.groups, kh, o // g.groups, i, kw)
    gw.reshape(g.groups, -1, i, kh, kw)[...] = by_row.transpose(0, 2, 3, 1, 4)
    return gw


def workspace(product: str, w: Array, g: Windows, shape: tuple[int, int, int, int]) -> int:
    """Bytes that a product takes beside what it is given and returns; see `products.workspace`."""
    if product == "spread":
        return turned_workspace(workspace, w, g, shape)
    n, _, height, _ = shape
    out = g.out_size(shape[2:])
    parts = crew(n * math.prod(out) * w.size, w, g)
    todo = pieces(n, out, w, g, parts)
    places = max(b.shape[0] * len(rows_under(height, g, b)) * b.shape[2] for b in todo[: 2 * len(g.kernel)])
    each = min(parts, len(todo)) * (per_place(w, g) * places + BUFFERS) * w.itemsize
    if product == "correlate":
        return w.nbytes + each
    return parts * w.nbytes + max(each + parts * w.nbytes, w.nbytes)


@dataclass(frozen=True)
class Shift:
    """A row of the kernel: which rows of windows see pixels under it, and which of the block's pixels those are."""

    row: int
    windows: slice
    pixels: slice


def shifts(height: int, g: Windows, block: Block) -> list[Shift]:
    """Return the rows of the kernel that see any of the block's pixels, those that most windows share first."""
    pixels, found = rows_under(height, g, block), []
    for row in range(g.kernel[0]):
        down = block.rows.start + row * g.dilation[0] - g.padding[0] - pixels.start
        first, stop = max(0, -down), min(block.shape[1], len(pixels) - down)
        if stop > first:
            found.append(Shift(row, slice(first, stop), slice(first + down, stop + down)))
    return sorted(found, key=lambda each: each.windows.start - each.windows.stop)


def rows_under(height: int, g: Windows, block: Block) -> range:
    """Return the rows of the image that windows of the block see."""
    first = block.rows.start - g.padding[0]
    return range(max(0, first), max(0, first, min(height, first + block.slab_size(g)[0])))


def columns(x: Array, g: Windows, block: Block) -> Array:
    """Return what one row of the kernel sees from each row of pixels: (groups, C/groups*kw, images, rows, columns)."""
    rows, (n, _, cols) = rows_under(x.shape[2], g, block), block.shape
    taken = xp_of(x).empty((x.shape[1], g.kernel[1], n, len(rows), cols), dtype=x.dtype)
    pixels = x[block.images, :, rows.start : rows.stop].transpose(1, 0, 2, 3)
    for tap in range(g.kernel[1]):
        first = block.cols.start + tap * g.dilation[1] - g.padding[1]
        low, high = min(max(0, -first), cols), max(0, min(cols, x.shape[3] - first))
        taken[:, tap, :, :, :low] = 0
        taken[:, tap, :, :, max(low, high) :] = 0
        if high > low:
            taken[:, tap, :, :, low:high] = pixels[..., first + low : first + high]
    return taken.reshape(g.groups, len(taken) * g.kernel[1] // g.groups, *taken.shape[2:])


def crew(multiply_adds: int, w: Array, g: Windows) -> int:
    """Return the threads for such a product: as many as the workspace has pieces for, or sums of gradients."""
    return max(1, min(lanes(multiply_adds, ALONE), WORKSPACE // max(PIECE, 2 * w.nbytes)))


def pieces(n: int, out: Pair, w: Array, g: Windows, parts: int) -> list[Block]:
    """Return the windows in blocks: images, or rows of one, or parts of a row, as many for each thread.

    A block takes up more rows of pixels than it has rows of windows, by those that windows of the next block see, too.
    """
    place, more = per_place(w, g) * w.itemsize, g.span[0] - 1
    images = CACHE // (place * (out[0] + more) * out[1])
    rows = max(CACHE // (place * out[1]) - more, min(4 * more, PIECE // (place * out[1]) - more))
    at_once = max(images * out[0] * out[1], min(rows, out[0]) * out[1], min(out[1], PIECE // (place * g.span[0])))
    return blocks(n, out, at_once, parts)


def per_place(w: Array, g: Windows) -> int:
    """Return how many numbers the columns and the parts have for one pixel."""
    return w.shape[1] * g.groups * g.kernel[1] + len(w) * g.kernel[0]


def stacked(w: Array, g: Windows) -> Array:
    """Return the weights of each kernel row below those of the one before: (groups, kh*O/groups, I/groups*kw)."""
    rows = kernel_rows(w, g).swapaxes(0, 1)
    return rows.reshape(g.groups, -1, rows.shape[3])
