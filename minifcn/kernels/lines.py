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
from functools import lru_cache

from minifcn.backend import Array, xp_of
from minifcn.kernels.blocks import kernel_rows, turn, turned_workspace
from minifcn.kernels.im2col import Pair, Seen, Windows, seen
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


def correlate(
    x: Array, w: Array, g: Windows, b: Array | None = None, relu: bool = False, weights: Array | None = None
) -> Array:
    xp, out = xp_of(x), g.out_size(x.shape[2:])
    y = xp.empty((len(x), g.groups, len(w) // g.groups, *out), dtype=x.dtype)
    weights, parts = arrange(w, g) if weights is None else weights, crew(y.size * w[0].size, w, g)
    bias = 0 if b is None else b.reshape(g.groups, -1, 1, 1, 1)

    def some_windows(piece: Piece) -> None:
        lines = columns(x, g, piece)
        product = xp.empty((g.groups, weights.shape[1], math.prod(lines.shape[2:])), dtype=x.dtype)
        multiply(weights, lines.reshape(*lines.shape[:2], product.shape[2]), product)
        product = product.reshape(g.groups, g.kernel[0], len(w) // g.groups, *lines.shape[2:])
        block, found = piece.block, piece.down
        made = y[block.images, :, :, block.rows, block.cols].transpose(1, 2, 0, 3, 4)
        if found and found[0].windows == slice(0, block.shape[1]):
            xp.add(product[:, found[0].tap, :, :, found[0].pixels], bias, out=made)
            found = found[1:]
        else:  # no kernel row sees a pixel from every window
            made[...] = bias
        for each in found:
            to = made[:, :, :, each.windows]
            to += product[:, each.tap, :, :, each.pixels]
        if relu:
            xp.maximum(made, xp.zeros(made.shape[2:], dtype=x.dtype), out=made)

    parallel(some_windows, plan(len(x), x.shape[2:], g, at_once(w, g, out), parts), parts)
    return y.reshape(len(x), len(w), *out)


def spread(gy: Array, w: Array, g: Windows, size: Pair) -> Array:
    return correlate(*turn(gy, w, g))


def weigh(x: Array, gy: Array, g: Windows) -> Array:
    xp, o, i, (kh, kw) = xp_of(x), gy.shape[1], x.shape[1] // g.groups, g.kernel
    gw = xp.empty((o, i, kh, kw), dtype=x.dtype)
    parts = crew(gy.size * gw[0].size, gw, g)
    found = plan(len(x), x.shape[2:], g, at_once(gw, g, gy.shape[2:]), parts)
    sums = xp.zeros((parts, g.groups, kh * o // g.groups, i * kw), dtype=x.dtype)  # one for each thread
    by_group = gy.reshape(len(gy), g.groups, -1, *gy.shape[2:])

    def some_windows(share: int) -> None:
        for piece in found[share::parts]:
            add_piece(sums[share], piece)

    def add_piece(total: Array, piece: Piece) -> None:
        lines, block = columns(x, g, piece), piece.block
        gradients = by_group[block.images, :, :, block.rows, block.cols].transpose(1, 2, 0, 3, 4)
        shifted = xp.empty((g.groups, kh, o // g.groups, *lines.shape[2:]), dtype=x.dtype)
        if len(piece.down) < kh:
            shifted[...] = 0
        for each in piece.down:
            to = shifted[:, each.tap]
            to[:, :, :, each.pixels] = gradients[:, :, :, each.windows]
            to[:, :, :, : each.pixels.start] = to[:, :, :, each.pixels.stop :] = 0
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
    n, _, *size = shape
    out = g.out_size((size[0], size[1]))
    parts = crew(n * math.prod(out) * w.size, w, g)
    todo = plan(n, (size[0], size[1]), g, at_once(w, g, out), parts)
    places = max(p.block.shape[0] * len(p.rows) * p.block.shape[2] for p in todo[: 2 * len(g.kernel)])
    each = min(parts, len(todo)) * per_place(w, g) * places * w.itemsize
    if product == "correlate":
        return w.nbytes + each + min(parts, len(todo)) * BUFFERS * w.itemsize
    return parts * w.nbytes + max(each + parts * w.nbytes, w.nbytes)


@dataclass(frozen=True)
class Piece:
    """A block of windows, the rows of the image that they see, and what each row and column of the kernel sees."""

    block: Block
    rows: range
    down: tuple[Seen, ...]
    across: tuple[Seen, ...]


@lru_cache
def plan(n: int, size: Pair, g: Windows, at_once: int, parts: int) -> list[Piece]:
    """Return the windows of n images in pieces: images, or rows of one, or parts of a row, as many for each thread.

    Their rows count those that any window sees, and of those each row of the kernel counts its pixels. The kernel row
    that most windows share comes first. It is kept, since a net has the same layers in every step.
    """
    found = []
    for block in blocks(n, g.out_size(size), at_once, parts):
        (_, height, width), first, left = block.shape, block.rows.start - g.padding[0], block.cols.start - g.padding[1]
        rows = range(max(0, first), max(0, first, min(size[0], first + block.slab_size(g)[0])))
        down = seen(g.kernel[0], g.dilation[0], first - rows.start, height, len(rows))
        down.sort(key=lambda each: each.windows.start - each.windows.stop)
        found.append(Piece(block, rows, tuple(down), tuple(seen(g.kernel[1], g.dilation[1], left, width, size[1]))))
    return found


def columns(x: Array, g: Windows, piece: Piece) -> Array:
    """Return what one row of the kernel sees from each row of pixels: (groups, C/groups*kw, images, rows, columns)."""
    rows, (n, _, cols) = piece.rows, piece.block.shape
    taken = xp_of(x).empty((x.shape[1], g.kernel[1], n, len(rows), cols), dtype=x.dtype)
    pixels = x[piece.block.images, :, rows.start : rows.stop].transpose(1, 0, 2, 3)
    if len(piece.across) < g.kernel[1]:
        taken[...] = 0
    for each in piece.across:
        to = taken[:, each.tap]
        to[..., each.windows] = pixels[..., each.pixels]
        to[..., : each.windows.start] = to[..., each.windows.stop :] = 0
    return taken.reshape(g.groups, len(taken) * g.kernel[1] // g.groups, *taken.shape[2:])


def crew(multiply_adds: int, w: Array, g: Windows) -> int:
    """Return the threads for such a product: as many as the workspace has pieces for, or sums of gradients."""
    return max(1, min(lanes(multiply_adds, ALONE), WORKSPACE // max(PIECE, 2 * w.nbytes)))


def at_once(w: Array, g: Windows, out: Pair) -> int:
    """Return how many windows a piece has at most.

    A block takes up more rows of pixels than it has rows of windows, by those that windows of the next block see, too.
    """
    place, more = per_place(w, g) * w.itemsize, g.span[0] - 1
    images = CACHE // (place * (out[0] + more) * out[1])
    rows = max(CACHE // (place * out[1]) - more, min(4 * more, PIECE // (place * out[1]) - more))
    return max(images * out[0] * out[1], min(rows, out[0]) * out[1], min(out[1], PIECE // (place * g.span[0])))


def per_place(w: Array, g: Windows) -> int:
    """Return how many numbers the columns and the parts have for one pixel."""
    return w.shape[1] * g.groups * g.kernel[1] + len(w) * g.kernel[0]


def arrange(w: Array, g: Windows) -> Array:
    """Return the weights of each kernel row below those of the one before: (groups, kh*O/groups, I/groups*kw)."""
    rows = kernel_rows(w, g).swapaxes(0, 1)
    return rows.reshape(g.groups, -1, rows.shape[3])
