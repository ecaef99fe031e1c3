"""The three products for thin layers, with each channel stored as one long line.

A layer of 8 or 32 channels multiplies little. Its time goes into copies of short rows of pixels, nine for each pixel,
and into matrix products with few rows, at which BLAS is slow. So lay all rows of all images behind one another, with
the zeros of the padding in between (those after one row are those before the next). Then the window to the right
begins one number further along the line, and the window below `width` numbers further along:

    columns[j] = the line, j numbers further along                          kw copies instead of kh*kw, each in one go
    y = sum over kernel rows i of (w[:, :, i] @ columns), i*width further along

The weights of all kernel rows, below one another, make one product of kh*O rows instead of kh products of O. What row
i makes of a place in the line belongs to the window that begins i*width before it, and is added there. For the weights'
gradient the lines of gy are laid below one another in the same way, each kernel row's shifted.

Windows that begin at the end of a line's row hang over into the next: they are computed with the others and left out.
The line is cut into strips whose columns and products stay in the caches, and images are shared out to threads.
"""

from __future__ import annotations

import math

from minifcn.backend import Array, xp_of
from minifcn.kernels.blocks import kernel_rows, turn, turned_workspace
from minifcn.kernels.im2col import Pair, Windows
from minifcn.kernels.products import WORKSPACE, Block, blocks, finish
from minifcn.kernels.threads import lanes, parallel

CACHE = 2 << 20
"""Bytes of columns and products in one strip: of the sizes tried, the quickest on one thread and on two."""
ALONE = 10_000_000
"""Multiply-adds below which one thread is quicker than two: here each has few and long steps, so that two pay soon."""
PIECE = 8 << 20
"""Bytes of lines, of pixels and of outputs together, that a thread works on at a time."""
LEAST = 1024
"""Windows in a strip at least, or the steps of the interpreter show."""


def serves(g: Windows, i: int, o: int) -> bool:
    """Whether windows lie as close to one another as pixels do, and look at more than one, through few weights.

    A single window's pixels must fit into a piece, too: those of a kernel that is spread widely (dilation) do not.
    """
    weights, seen = o * i // g.groups * math.prod(g.kernel), (i + o) * math.prod(g.span)
    return g.stride == (1, 1) and g.kernel != (1, 1) and 4 * max(weights, seen) <= PIECE


def correlate(x: Array, w: Array, g: Windows, b: Array | None = None, relu: bool = False) -> Array:
    xp, o, kh = xp_of(x), len(w), g.kernel[0]
    y = xp.empty((len(x), o, *g.out_size(x.shape[2:])), dtype=x.dtype)
    weights, parts = stacked(w, g), crew(y.size * w[0].size, w, g)

    def some_windows(block: Block) -> None:
        line, shape = lay(x, g, block)
        count, along = math.prod(shape), beginnings(shape, g)
        total = xp.empty((g.groups, o // g.groups, along[-1] + count), dtype=x.dtype)
        total[:, :, : along[-1]] = 0  # of the windows that would begin before the line

        def strip_of_pixels(strip: slice) -> None:
            product = weights @ columns(line, g, strip)
            product = product.reshape(g.groups, kh, o // g.groups, -1)
            for row, first in enumerate(reversed(along)):
                part = total[:, :, strip.start + first : strip.stop + first]
                if row:
                    part += product[:, row]
                else:
                    part[...] = product[:, row]

        flat = total.reshape(o, -1)
        for strip in strips(count, w, g):
            strip_of_pixels(strip)
            finish(flat[:, strip], b, relu)  # no later strip adds to these
        finish(flat[:, count:], b, relu)
        y[block.outputs] = windows(flat[:, along[-1] :], shape, block).transpose(1, 0, 2, 3)

    parallel(some_windows, pieces(len(x), x.shape[1] + o, y.shape[2:], g, parts), parts)
    return y


def spread(gy: Array, w: Array, g: Windows, size: Pair) -> Array:
    return correlate(*turn(gy, w, g))


def weigh(x: Array, gy: Array, g: Windows) -> Array:
    xp, o, i, (kh, kw) = xp_of(x), gy.shape[1], x.shape[1] // g.groups, g.kernel
    gw = xp.empty((o, i, kh, kw), dtype=x.dtype)
    parts = crew(gy.size * gw[0].size, gw, g)
    found = pieces(len(x), x.shape[1] + o, gy.shape[2:], g, parts)
    sums = xp.zeros((parts, g.groups, kh * o // g.groups, i * kw), dtype=x.dtype)  # one for each thread

    def some_windows(share: int) -> None:
        for block in found[share::parts]:
            add_block(sums[share], block)

    def add_block(total: Array, block: Block) -> None:
        line, shape = lay(x, g, block)
        count, along = math.prod(shape), beginnings(shape, g)
        gradients = xp.zeros((g.groups, o // g.groups, along[-1] + count), dtype=x.dtype)
        inside = windows(gradients.reshape(o, -1)[:, along[-1] :], shape, block)
        inside[...] = gy[block.outputs].transpose(1, 0, 2, 3)
        for strip in strips(count, gw, g):
            total += strip_of_weights(line, gradients, along, strip)

    def strip_of_weights(line: Array, gradients: Array, along: list[int], strip: slice) -> Array:
        length = strip.stop - strip.start
        shifted = xp.empty((g.groups, kh, o // g.groups, length), dtype=x.dtype)
        for row, first in enumerate(reversed(along)):
            shifted[:, row] = gradients[:, :, strip.start + first : strip.stop + first]
        return shifted.reshape(g.groups, -1, length) @ columns(line, g, strip).transpose(0, 2, 1)

    parallel(some_windows, range(parts), parts)
    by_row = sums.sum(axis=0).reshape(g.groups, kh, o // g.groups, i, kw)
    gw.reshape(g.groups, -1, i, kh, kw)[...] = by_row.transpose(0, 2, 3, 1, 4)
    return gw


def workspace(product: str, w: Array, g: Windows, shape: tuple[int, int, int, int]) -> int:
    """Bytes that a product takes beside what it is given and returns; see `products.workspace`."""
    if product == "spread":
        return turned_workspace(workspace, w, g, shape)
    n, i, *size = shape
    o, out = len(w), g.out_size(shape[2:])
    parts = crew(n * math.prod(out) * w.size, w, g)
    todo = pieces(n, i + o, out, g, parts)
    _, height, width = cells((size[0], size[1]), g, todo[0])
    count, along = todo[0].shape[0] * height * width, (g.span[0] - 1) * width
    line = (i + o) * (count + along) + i * (g.span[1] - 1)
    each = min(parts, len(todo)) * (line + per_place(w, g) * strips(count, w, g)[0].stop) * w.itemsize
    if product == "correlate":
        return w.nbytes + each
    return parts * w.nbytes + max(each + parts * w.nbytes, w.nbytes)


def lay(x: Array, g: Windows, block: Block) -> tuple[Array, tuple[int, int, int]]:
    """The block's pixels as one line a channel (C, ...), zeros between them and after them, and its `cells`."""
    n, height, width = shape = cells(x.shape[2:], g, block)
    reach = (g.span[0] - 1) * width + g.span[1] - 1
    line = xp_of(x).zeros((x.shape[1], n * height * width + reach), dtype=x.dtype)
    there, here = block.overlap(x.shape[2:], g)
    pixels = line[:, : n * height * width].reshape(-1, *shape)
    pixels[:, :, *here] = x[block.images, :, *there].transpose(1, 0, 2, 3)
    return line, shape


def cells(size: Pair, g: Windows, block: Block) -> tuple[int, int, int]:
    """The images, rows and columns of a block's line: each cell a pixel or padding, and where a window may begin.

    Between two rows, and between two images, padding counts once as far as no window sees both sides of it.
    """
    (n, *out), (height, width), (eh, ew) = block.shape, block.slab_size(g), g.span
    if tuple(out) == g.out_size(size):  # whole images
        height, width = height - min(g.padding[0], eh - 1), width - min(g.padding[1], ew - 1)
    return n, height, width


def beginnings(shape: tuple[int, int, int], g: Windows) -> list[int]:
    """How far along the line each row of the kernel begins."""
    return [row * g.dilation[0] * shape[2] for row in range(g.kernel[0])]


def columns(line: Array, g: Windows, strip: slice) -> Array:
    """What one row of the kernel sees from each place of the strip: (groups, C/groups*kw, places)."""
    taken = xp_of(line).empty((len(line), g.kernel[1], strip.stop - strip.start), dtype=line.dtype)
    for tap in range(g.kernel[1]):
        first = tap * g.dilation[1]
        taken[:, tap] = line[:, strip.start + first : strip.stop + first]
    return taken.reshape(g.groups, -1, taken.shape[2])


def crew(multiply_adds: int, w: Array, g: Windows) -> int:
    """Threads for such a product: as many as the workspace has strips for, or sums of the weights' gradient."""
    each = max(LEAST * per_place(w, g), 2 * w.size) * w.itemsize
    return max(1, min(lanes(multiply_adds, ALONE), WORKSPACE // each))


def pieces(n: int, channels: int, out: Pair, g: Windows, parts: int) -> list[Block]:
    """Images, or rows of one, or parts of a row, whose lines (float32) are small enough, as many for each thread.

    Lines hold all pixels that the windows cover, which are more than the windows: `height` by `width` for an image.
    """
    room, (eh, ew) = min(PIECE, WORKSPACE // parts) // (4 * channels), g.span
    height, width = out[0] + eh - 1, out[1] + ew - 1
    images, rows, cols = room // (height * width), room // width - eh + 1, room // eh - ew + 1
    at_once = max(images * out[0] * out[1], min(rows, out[0]) * out[1], min(cols, out[1]))
    return blocks(n, out, at_once, parts)


def strips(count: int, w: Array, g: Windows) -> list[slice]:
    """`count` places of a line, cut so that the columns and the products of a strip fit into the cache."""
    length = max(LEAST, CACHE // (per_place(w, g) * w.itemsize))
    return [slice(first, min(first + length, count)) for first in range(0, count, length)]


def per_place(w: Array, g: Windows) -> int:
    """Numbers in the columns and in the product for one place of a line."""
    return w.shape[1] * g.groups * g.kernel[1] + len(w) * g.kernel[0]


def stacked(w: Array, g: Windows) -> Array:
    """The weights of each kernel row below those of the one before: (groups, kh*O/groups, I/groups*kw)."""
    rows = kernel_rows(w, g).swapaxes(0, 1)
    return rows.reshape(g.groups, -1, rows.shape[3])


def windows(line: Array, shape: tuple[int, int, int], block: Block) -> Array:
    """Those cells of a line at which windows of the block begin: (C, images, rows, columns), a view."""
    _, rows, cols = block.shape
    return line.reshape(-1, *shape)[:, :, :rows, :cols]
