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

Where the layer is thin enough, nothing is added either. If the columns of each row of pixels follow those of the row
above, what a row of windows sees is one matrix as it lies in memory, and the next row's begins a row further down:

    pixels  row 0   kw*C columns  |                       y[row] = w[o, all taps] @ its kh*kw*C columns
            row 1   kw*C columns  |  windows' row 0  |
            row 2   kw*C columns  |                  |    row 1, which shares all but its last kw*C columns
            row 3   kw*C columns                     |
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

from minifcn.backend import Array, xp_of
from minifcn.kernels.blocks import turn, turned_workspace
from minifcn.kernels.im2col import Pair, Seen, Windows, seen
from minifcn.kernels.products import WORKSPACE, Block, add_product, blocks, multiply
from minifcn.kernels.threads import parallel, useful_threads

CACHE = 3 << 20
"""Bytes of columns and parts in one block: of the sizes tried, the quickest on one thread and on two."""
BUFFERS = 3 * 8192
"""Numbers that NumPy takes for itself to add arrays of several strides."""
PIECE = 8 << 20
"""Bytes of columns and parts in a block at most, where one of `CACHE` would hold less than 4 rows for each that it
shares with the next."""
DEEPEST, NARROW, LARGEST = 384, 32, 1 << 16
"""Numbers of a window up to which stacking columns pays, windows from which it does, and weights up to which it does:
with fewer windows, or more of the others, BLAS is slower than in the other way."""
STRIP, WIDEST, BESIDE = 16_384, 256, 48
"""Numbers of stacked columns that are multiplied at a time (64 KB, about a core's first cache), and of how many windows
at most. Of several images fewer: side by side, their outputs have to be taken apart again."""


def serves(g: Windows, i: int, o: int) -> bool:
    """Return whether windows lie as close to one another as pixels do, and look at more than one, through few weights.

    A single window's columns must fit into a piece, too: those of a kernel that is spread widely (dilation) do not.
    """
    weights, seen = o * i // g.groups * math.prod(g.kernel), (i * g.kernel[1] + o * g.kernel[0]) * g.span[0]
    return g.stride == (1, 1) and g.kernel != (1, 1) and 4 * max(weights, seen) <= PIECE


def correlate(
    x: Array, w: Array, g: Windows, b: Array | None = None, relu: bool = False, weights: Array | None = None
) -> Array:
    """Return y of `products.correlate`: x (N, I, H, W), w (O, I/groups, kh, kw), b (O,) -> y (N, O, H', W')."""
    xp, out = xp_of(x), g.out_size(x.shape[2:])
    weights = arrange(w, g) if weights is None else weights
    if stacking_pays(w.shape[1], len(w) // g.groups, g, len(x), out):
        return correlate_stacked(x, weights, w, g, b, relu)
    y = xp.empty((len(x), g.groups, len(w) // g.groups, *out), dtype=x.dtype)
    parts = threads_in_workspace(y.size * w[0].size, w, g)
    bias = 0 if b is None else b.reshape(g.groups, -1, 1, 1, 1)

    def on_windows(piece: Piece) -> None:
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

    parallel(on_windows, plan(len(x), x.shape[2:], g, at_once(per_place(w, g), g, out), parts), parts)
    return y.reshape(len(x), len(w), *out)


def correlate_stacked(x: Array, by_row: Array, w: Array, g: Windows, b: Array | None, relu: bool) -> Array:
    """Return the same without additions, the columns of each row of pixels below those of the row above."""
    xp, out, o = xp_of(x), g.out_size(x.shape[2:]), len(w) // g.groups
    y = xp.empty((len(x), g.groups, o, *out), dtype=x.dtype)
    beside, length = side_by_side(w, g, len(x), out), strip(w.shape[1], g)
    parts = threads_in_workspace(y.size * w[0].size, w, g)
    weights = xp.zeros((g.groups, 1, 1, o, g.kernel[0], by_row.shape[2] + 1), dtype=x.dtype)
    weights[:, 0, 0, :, :, :-1] = by_row.reshape(g.groups, g.kernel[0], o, -1).swapaxes(1, 2)
    if b is not None:
        weights[:, 0, 0, :, 0, -1] = b.reshape(g.groups, o)  # times the ones of `stacked`
    weights = weights.reshape(g.groups, 1, 1, o, -1)

    def on_windows(piece: Piece) -> None:
        n, rows, cols = piece.block.shape
        below = stacked(x, g, piece, beside)
        made = y[piece.block.images, :, :, piece.block.rows, piece.block.cols]
        product = made.transpose(1, 0, 3, 2, 4)  # where BLAS can write it, if each row is of one image
        if beside > 1:
            product = xp.empty((*below.shape[:3], o, beside * cols), dtype=x.dtype)
        for first in range(0, beside * cols, length):
            part = slice(first, first + length)
            xp.matmul(weights, below[..., part], out=product[..., part])
        if relu:
            lines = made if beside == 1 else product.reshape(*product.shape[:3], -1)
            xp.maximum(lines, xp.zeros(lines.shape[3:], dtype=x.dtype), out=lines)
        if beside > 1:
            made = made.reshape(n // beside, beside, g.groups, o, rows, cols).transpose(2, 0, 4, 3, 1, 5)
            made[...] = product.reshape(made.shape)

    parallel(on_windows, plan(len(x), x.shape[2:], g, at_once(stacked_place(w, g), g, out), parts, beside), parts)
    return y.reshape(len(x), len(w), *out)


def spread(gy: Array, w: Array, g: Windows, size: Pair) -> Array:
    """Return gx of `products.spread`: gy (N, O, H', W'), w (O, I/groups, kh, kw) -> gx (N, I, *size)."""
    return correlate(*turn(gy, w, g))


def weigh(x: Array, gy: Array, g: Windows) -> Array:
    """Return gw of `products.weigh`: x (N, I, H, W), gy (N, O, H', W') -> gw (O, I/groups, kh, kw)."""
    xp, o, i, (kh, kw) = xp_of(x), gy.shape[1], x.shape[1] // g.groups, g.kernel
    gw = xp.empty((o, i, kh, kw), dtype=x.dtype)
    parts = threads_in_workspace(gy.size * gw[0].size, gw, g)
    found = plan(len(x), x.shape[2:], g, at_once(per_place(gw, g), g, gy.shape[2:]), parts)
    sums = xp.zeros((parts, g.groups, kh * o // g.groups, i * kw), dtype=x.dtype)  # one for each thread
    by_group = gy.reshape(len(gy), g.groups, -1, *gy.shape[2:])

    def on_windows(share: int) -> None:
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

    parallel(on_windows, range(parts), parts)
    by_row = (sums.sum(axis=0) if parts > 1 else sums[0]).reshape(g.groups, kh, o // g.groups, kw, i)
    for row, col in itertools.product(range(kh), range(kw)):  # NumPy would copy kw numbers at a time
        gw.reshape(g.groups, -1, i, kh, kw)[..., row, col] = by_row[:, row, :, col]
    return gw


def workspace(product: str, w: Array, g: Windows, shape: tuple[int, int, int, int]) -> int:
    """Return the bytes that a product takes beside what it is given and returns; see `products.workspace`."""
    if product == "spread":
        return turned_workspace(workspace, w, g, shape)
    n, (_, _, *size) = shape[0], shape
    out = g.out_size((size[0], size[1]))
    parts = threads_in_workspace(n * math.prod(out) * w.size, w, g)
    if product == "correlate" and stacking_pays(w.shape[1], len(w) // g.groups, g, n, out):
        beside = side_by_side(w, g, n, out)
        todo = plan(n, (size[0], size[1]), g, at_once(stacked_place(w, g), g, out), parts, beside)
        ones = w.shape[1] * g.kernel[1] + 1
        each = max(
            block.shape[0] * block.slab_size(g)[0] * block.shape[2] * ones * g.groups
            + (block.count * len(w) if beside > 1 else 0)
            for block in (piece.block for piece in todo[: 2 * len(g.kernel)])
        )
        return 2 * w.nbytes + min(parts, len(todo)) * each * w.itemsize
    todo = plan(n, (size[0], size[1]), g, at_once(per_place(w, g), g, out), parts)
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
def plan(n: int, size: Pair, g: Windows, at_once: int, parts: int, beside: int = 1) -> list[Piece]:
    """Return the windows of n images in pieces: images, or rows of one, or parts of a row, as many for each thread.

    Their rows count those that any window sees, and of those each row of the kernel counts its pixels. The kernel row
    that most windows share comes first. It is kept, since a net has the same layers in every step. Images that lie
    `beside` one another stay together.
    """
    found = []
    for block in blocks(n // beside, g.out_size(size), at_once // beside, parts):
        images = slice(block.images.start * beside, block.images.stop * beside)
        block = Block(images, block.rows, block.cols)
        (_, height, width), (sh, sw) = block.shape, g.stride
        first, left = block.rows.start * sh - g.padding[0], block.cols.start * sw - g.padding[1]
        rows = range(max(0, first), max(0, first, min(size[0], first + block.slab_size(g)[0])))
        down = seen(g.kernel[0], g.dilation[0], first - rows.start, height, len(rows), sh)
        down.sort(key=lambda each: each.windows.start - each.windows.stop)
        across = seen(g.kernel[1], g.dilation[1], left, width, size[1], sw)
        found.append(Piece(block, rows, tuple(down), tuple(across)))
    return found


def columns(x: Array, g: Windows, piece: Piece) -> Array:
    """Return what one row of the kernel sees from each row of pixels: (groups, kw*C/groups, images, rows, columns)."""
    rows, (n, _, cols), c = piece.rows, piece.block.shape, x.shape[1] // g.groups
    taken = xp_of(x).empty((g.groups, g.kernel[1], c, n, len(rows), cols), dtype=x.dtype)
    pixels = x[piece.block.images, :, rows.start : rows.stop].transpose(1, 0, 2, 3)
    fill(taken.swapaxes(0, 1), pixels.reshape(g.groups, c, *pixels.shape[1:]), piece)
    return taken.reshape(g.groups, g.kernel[1] * c, *taken.shape[3:])


def stacked(x: Array, g: Windows, piece: Piece, beside: int) -> Array:
    """Return what each row of windows sees: (groups, images/beside, rows, kh*(kw*C/groups + 1), beside*columns).

    It is a view in which rows overlap. The last line of every kernel row is all ones, for the bias.
    """
    (n, height, cols), rows, c, (kh, kw) = piece.block.shape, piece.rows, x.shape[1] // g.groups, g.kernel
    above = rows.start - piece.block.rows.start * g.stride[0] + g.padding[0]
    shape = g.groups, n // beside, piece.block.slab_size(g)[0], kw * c + 1
    lines = xp_of(x).empty((*shape, beside * cols), dtype=x.dtype)
    lines[:, :, :, -1] = 1
    lines[:, :, :above, :-1] = lines[:, :, above + len(rows) :, :-1] = 0  # padding
    taken = lines[:, :, above : above + len(rows), :-1].reshape(*shape[:2], len(rows), kw, c, beside, cols)
    pixels = x[piece.block.images, :, rows.start : rows.stop]
    pixels = pixels.reshape(n // beside, beside, g.groups, c, len(rows), x.shape[3]).transpose(2, 0, 4, 3, 1, 5)
    fill(taken.transpose(3, 0, 1, 2, 4, 5, 6), pixels, piece)
    by_group, by_image, by_row, *strides = lines.strides
    strides = [by_group, by_image, g.stride[0] * by_row, *strides]
    return xp_of(x).lib.stride_tricks.as_strided(lines, (*shape[:2], height, kh * shape[3], beside * cols), strides)


def fill(taken: Array, pixels: Array, piece: Piece) -> None:
    """Write to `taken`, for each column of the kernel, the pixels that it sees, and zeros where it leaves the image."""
    if len(piece.across) < len(taken):
        taken[...] = 0
    for each in piece.across:
        to = taken[each.tap]
        to[..., each.windows] = pixels[..., each.pixels]
        to[..., : each.windows.start] = to[..., each.windows.stop :] = 0


def threads_in_workspace(multiply_adds: int, w: Array, g: Windows) -> int:
    """Return the threads for such a product: as many as the workspace has pieces for, or sums of gradients."""
    return max(1, min(useful_threads(multiply_adds), WORKSPACE // max(PIECE, 2 * w.nbytes)))


def at_once(place: int, g: Windows, out: Pair) -> int:
    """Return how many windows a piece has at most, with so many numbers for each place.

    A block takes up more rows of pixels than it has rows of windows, by those that windows of the next block see, too.
    """
    place, more = 4 * place, g.span[0] - 1
    images = CACHE // (place * (out[0] + more) * out[1])
    rows = max(CACHE // (place * out[1]) - more, min(4 * more, PIECE // (place * out[1]) - more))
    return max(images * out[0] * out[1], min(rows, out[0]) * out[1], min(out[1], PIECE // (place * g.span[0])))


def per_place(w: Array, g: Windows) -> int:
    """Return how many numbers the columns and the parts have for one pixel."""
    return w.shape[1] * g.groups * g.kernel[1] + len(w) * g.kernel[0]


def arrange(w: Array, g: Windows) -> Array:
    """Return the weights of each kernel row below those of the one before: (groups, kh*O/groups, kw*I/groups)."""
    by_group = w.reshape(g.groups, len(w) // g.groups, *w.shape[1:])
    return by_group.transpose(0, 3, 1, 4, 2).reshape(g.groups, -1, g.kernel[1] * w.shape[1])


def stacking_pays(i: int, o: int, g: Windows, n: int, out: Pair) -> bool:
    """Return whether rows have many windows, and each of these so few columns that a strip of them stays in the first
    cache.

    i and o are the channels of one group. A kernel of one pixel has no columns to share.
    """
    deep, many = depth(i, g), n * out[1] >= NARROW and math.prod(g.kernel) > 1
    return many and g.dilation[0] == 1 and deep <= DEEPEST and deep * o <= LARGEST


def depth(i: int, g: Windows) -> int:
    """Return how many numbers a window of i channels has, with a one for the bias in each of its rows."""
    return g.kernel[0] * (g.kernel[1] * i + 1)


def strip(i: int, g: Windows) -> int:
    """Return how many windows are multiplied at a time."""
    return min(WIDEST, STRIP // depth(i, g) // 16 * 16)


def side_by_side(w: Array, g: Windows, n: int, out: Pair) -> int:
    """Return how many of n images share a row: as many as a strip has room for, and no fewer in the last one."""
    most = max(1, min(BESIDE, strip(w.shape[1], g)) // out[1])
    return max(each for each in range(1, n + 1) if n % each == 0 and each <= most)


def stacked_place(w: Array, g: Windows) -> int:
    """Return how many numbers the columns and the products have for one window."""
    return (w.shape[1] * g.kernel[1] + 1) * g.groups * g.stride[0] + len(w)
