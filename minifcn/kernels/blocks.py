"""The three products in blocks that fit the cache, on all cores.

`products.py` writes 32 MB of columns to memory and reads them back. Here a block holds what fits into the caches, so
that the columns are multiplied while they are still there, and bias and ReLU are applied to the product before it
leaves. Nor are there kh*kw copies of each pixel, but only kw: where one window lies a row below another, its
columns for kernel row i are the other's for row i+1, the same numbers in memory, only further along. So the columns of
one kernel row serve all of them, and

    y = sum over kernel rows i of  w[:, :, i] @ columns[:, i rows further along]

Who does which part:

    many windows             each thread takes blocks of windows
    few windows, many        each thread takes some of the channels: the weights are the large array then, and each
    channels (fc6, fc7)      is read once
    kernel 1x1, stride 1     the image already is its own columns

`spread` with stride 1 is `correlate` with every filter turned around; with a larger stride each thread takes some
input channels, so that no two threads add to one pixel and the sum is the same in every run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from minifcn.backend import Array, xp_of
from minifcn.kernels import products
from minifcn.kernels.im2col import Pair, Windows, im2col
from minifcn.kernels.products import (
    WORKSPACE,
    Block,
    add_product,
    apart,
    at_once,
    block_bytes,
    blocks,
    correlate_block,
    finish,
    multiply,
    weigh_block,
)
from minifcn.kernels.threads import parallel, shares, useful_threads

CACHE = 4 << 20
"""Bytes of columns and products in one block. A core's own cache holds less, but only one thread at a time can be in
the interpreter: with smaller blocks two threads wait for each other between their steps (measured)."""
LEAST = 512
"""Windows in a block at least, or reading the weights costs more than multiplying by them."""


def correlate(
    x: Array, w: Array, g: Windows, b: Array | None = None, relu: bool = False, by_row: Array | None = None
) -> Array:
    """Return y of `products.correlate`: x (N, I, H, W), w (O, I/groups, kh, kw), b (O,) -> y (N, O, H', W')."""
    out = g.out_size(x.shape[2:])
    y = xp_of(x).empty((len(x), len(w), *out), dtype=x.dtype)
    parts = useful_threads(y.size * w[0].size)

    def on_windows(block: Block) -> None:
        if rows_pay(w, g):
            correlate_rows(y, x, by_row, g, block, b, relu)
        else:
            correlate_block(y, x, w, g, block, b, relu)

    def on_channels(part: slice) -> None:
        product = w[part].reshape(-1, len(columns)) @ columns
        finish(product, None if b is None else b[part], relu)
        y[:, part] = product.reshape(-1, len(x), *out).transpose(1, 0, 2, 3)

    if pixels_pay(w, g, len(x), out):
        _mix(x, w[:, :, 0, 0], y, b, relu)
    elif few_windows(w, g, len(x), out):
        columns = all_columns(x, g, parts)
        parallel(on_channels, shares(len(w), parts), parts)
    else:
        by_row = kernel_rows(w, g) if by_row is None else by_row
        parallel(on_windows, blocks(len(x), out, windows_in_cache(w, g), parts), parts)
    return y


def spread(gy: Array, w: Array, g: Windows, size: Pair) -> Array:
    """Return gx of `products.spread`: gy (N, O, H', W'), w (O, I/groups, kh, kw) -> gx (N, I, *size)."""
    n, i, out = len(gy), w.shape[1] * g.groups, gy.shape[2:]
    if turning_pays(w, g, n, out):
        return correlate(*turn(gy, w, g))
    gx = xp_of(gy).empty((n, i, *size), dtype=gy.dtype)
    parts = useful_threads(gy.size * w[0].size)

    def on_channels(item: tuple[slice, slice]) -> None:
        images, part = item
        if g.groups == 1:
            gx[images, part] = products.spread(gy[images], w[:, part], g, size, limit)
            return
        i_each, o_each = w.shape[1], len(w) // g.groups
        inputs, outputs = (slice(part.start * each, part.stop * each) for each in (i_each, o_each))
        some = replace(g, groups=part.stop - part.start)
        gx[images, inputs] = products.spread(gy[images, outputs], w[outputs], some, size, limit)

    if pixels_pay(w, g, n, out):
        _mix(gy, w[:, :, 0, 0].T, gx)
    else:
        limit = WORKSPACE // parts
        by_channel = channel_shares(w, g, n * out[0] * out[1], parts)
        parallel(on_channels, [(images, part) for images in shares(n, parts) for part in by_channel], parts)
    return gx


def weigh(x: Array, gy: Array, g: Windows) -> Array:
    """Return gw of `products.weigh`: x (N, I, H, W), gy (N, O, H', W') -> gw (O, I/groups, kh, kw)."""
    xp, out = xp_of(x), gy.shape[2:]
    gw = xp.empty((gy.shape[1], x.shape[1] // g.groups, *g.kernel), dtype=x.dtype)
    parts = useful_threads(gy.size * gw[0].size)

    def on_channels(part: slice) -> None:
        gradients = gy[:, part].transpose(1, 0, 2, 3).reshape(part.stop - part.start, -1)
        xp.matmul(gradients, columns.T, out=gw[part].reshape(len(gradients), -1))

    def on_windows(share: int) -> None:
        for block in found[share::parts]:
            if rows_pay(gw, g):
                weigh_rows(sums[share], x, gy, g, block)
            else:
                weigh_block(sums[share], x, gy, g, block)

    def on_rows(part: slice) -> None:
        total = gw[part, :, 0, 0]
        for image in range(len(x)):
            total += gy[image, part].reshape(len(total), -1) @ x[image].reshape(x.shape[1], -1).T

    if few_windows(gw, g, len(x), out):
        columns = all_columns(x, g, parts)
        parallel(on_channels, shares(len(gw), parts), parts)
        return gw
    if is_pointwise(g):
        gw[...] = 0
        parallel(on_rows, shares(len(gw), parts), parts)
        return gw
    parts = summing(parts, gw)
    found = blocks(len(x), out, windows_in_cache(gw, g), parts)
    shape = kernel_rows(gw, g).shape if rows_pay(gw, g) else gw.shape
    sums = xp.zeros((parts, *shape), dtype=x.dtype)
    parallel(on_windows, range(parts), parts)
    if not rows_pay(gw, g):
        return sums.sum(axis=0)
    o, i, kh, kw = gw.shape
    return xp.ascontiguousarray(sums.sum(axis=0).reshape(kh, o, i, kw).transpose(1, 2, 0, 3))


def workspace(product: str, w: Array, g: Windows, shape: tuple[int, int, int, int]) -> int:
    """Return the bytes that a product takes beside what it is given and returns; see `products.workspace`."""
    n, out = shape[0], g.out_size(shape[2:])
    count = n * out[0] * out[1]
    parts = useful_threads(count * w.size)
    if product == "spread" and turning_pays(w, g, n, out):
        return turned_workspace(workspace, w, g, shape)
    if pixels_pay(w, g, n, out) if product != "weigh" else is_pointwise(g) and not few_windows(w, g, n, out):
        return w.nbytes if product == "weigh" else 0
    if product == "spread":
        return channels_workspace(w, g, shape, parts)
    if few_windows(w, g, n, out):
        return block_bytes(w, g, blocks(n, out, count), product == "correlate")
    if product == "correlate":
        return w.nbytes + parts * cached_block(w, g, n, out, parts, True)  # the weights by kernel rows are a copy
    parts = summing(parts, w)
    return parts * w.nbytes + max(parts * cached_block(w, g, n, out, parts), 2 * w.nbytes)


def cached_block(w: Array, g: Windows, n: int, out: Pair, parts: int, product: bool = False) -> int:
    """Return the bytes of one block, of which often only the columns of single kernel rows are needed."""
    found = blocks(n, out, windows_in_cache(w, g), parts)
    if not rows_pay(w, g):
        return block_bytes(w, g, found, product and apart(found))
    (images, _, width), channels = found[0].shape, w.shape[1] * g.groups
    rows, cols = found[0].slab_size(g)
    cells, slab = images * rows * width, images * channels * rows * cols  # gone when the first product is made
    return (channels * g.kernel[1] * cells + max(slab, (1 + product) * len(w) * cells)) * w.itemsize


def channels_workspace(w: Array, g: Windows, shape: tuple[int, int, int, int], parts: int) -> int:
    """Return the bytes of `spread` where each thread takes some images and some channels, or groups of them."""
    (n, i, *size), out = shape, g.out_size(shape[2:])
    each = -(-(i if g.groups == 1 else g.groups) // len(channel_shares(w, g, n * math.prod(out), parts)))
    some = g if g.groups == 1 else replace(g, groups=each)
    part = shape_only(w, len(w), each) if g.groups == 1 else shape_only(w, each * len(w) // g.groups, w.shape[1])
    images = -(-n // parts)
    block = block_bytes(part, some, blocks(images, out, at_once(part, some, WORKSPACE // parts)))
    return parts * (block + images * part.shape[1] * some.groups * math.prod(size) * w.itemsize)


def turned_workspace(workspace: Callable[..., int], w: Array, g: Windows, shape: tuple[int, int, int, int]) -> int:
    """Return the bytes of a `spread` by `turn`: the filters turned around are a copy, and what follows is a
    `correlate`.
    """
    n, i = shape[:2]
    other = shape_only(w, i, len(w) // g.groups)
    return w.nbytes + workspace("correlate", other, mirrored(g), (n, len(w), *g.out_size(shape[2:])))


def shape_only(w: Array, o: int, i: int) -> Array:
    """Return an array like the weights w, for other numbers of channels, that takes no memory."""
    return xp_of(w).broadcast_to(w[:1, :1], (o, i, *w.shape[2:]))


def correlate_rows(y: Array, x: Array, by_row: Array, g: Windows, block: Block, b: Array | None, relu: bool) -> None:
    """Fill the block's part of y from the columns of single kernel rows."""
    xp = xp_of(x)
    columns, (n, h, w), along = columns_of_rows(x, g, block)
    length = columns.shape[2] - along[-1]
    total, more = xp.empty((2, *by_row.shape[1:3], n * h * w), dtype=x.dtype)
    for row, first in enumerate(along):
        multiply(by_row[row], columns[:, :, first : first + length], (more if row else total)[:, :, :length])
        if row:
            total[:, :, :length] += more[:, :, :length]
    total = total.reshape(-1, n * h * w)
    finish(total[:, :length], b, relu)
    # The windows that hang over the lower edge of their image belong to no output: the block has `rows` of h.
    y[block.outputs] = total.reshape(-1, n, h, w)[:, :, : block.shape[1]].transpose(1, 0, 2, 3)


def weigh_rows(by_row: Array, x: Array, gy: Array, g: Windows, block: Block) -> None:
    """Add to the weights' gradient, kernel row by kernel row; `by_row` shows it as `kernel_rows` does."""
    columns, (n, h, w), along = columns_of_rows(x, g, block)
    gradients = xp_of(x).zeros((gy.shape[1], n, h, w), dtype=x.dtype)
    gradients[:, :, : block.shape[1]] = gy[block.outputs].transpose(1, 0, 2, 3)
    length = columns.shape[2] - along[-1]
    gradients = gradients.reshape(g.groups, -1, n * h * w)[:, :, :length]
    for row, first in enumerate(along):
        add_product(by_row[row], gradients, columns[:, :, first : first + length])


def arrange(w: Array, g: Windows) -> Array | None:
    """Return the weights as `correlate` takes them, if that is another order than theirs."""
    return kernel_rows(w, g) if rows_pay(w, g) and not is_pointwise(g) else None


def kernel_rows(w: Array, g: Windows) -> Array:
    """Return the weights, one matrix for each kernel row: (kh, groups, O/groups, I/groups*kw)."""
    return w.transpose(2, 0, 1, 3).reshape(g.kernel[0], g.groups, len(w) // g.groups, -1)


def columns_of_rows(x: Array, g: Windows, block: Block) -> tuple[Array, tuple[int, int, int], list[int]]:
    """Return the columns of a kernel with one row, over every row of the block's slab: (groups, I/groups*kw, n*h*w).

    Also (n, h, w), and for each kernel row how far along its columns begin.
    """
    columns = im2col(block.cut(x, g), one_row(g))
    n, h, w = columns.shape[3:]
    along = [row * g.dilation[0] * w for row in range(g.kernel[0])]
    return columns.reshape(g.groups, -1, n * h * w), (n, h, w), along


@lru_cache
def one_row(g: Windows) -> Windows:
    """Return the windows of a single kernel row over every row of a slab, which brings its padding along."""
    return Windows((1, g.kernel[1]), (1, g.stride[1]), (0, 0), (1, g.dilation[1]), g.groups)


POINTWISE = Windows((1, 1))


def is_pointwise(g: Windows) -> bool:
    """Return whether the layer mixes the channels of each pixel and looks no further."""
    return g == POINTWISE


def pixels_pay(w: Array, g: Windows, n: int, out: Pair) -> bool:
    """Return whether images are multiplied as they lie, one by one; not where each would read weights larger than
    itself.
    """
    return is_pointwise(g) and (n == 1 or not few_windows(w, g, n, out))


def few_windows(w: Array, g: Windows, n: int, out: Pair) -> bool:
    """Return whether the weights are the larger array, and all columns of the batch fit into the workspace."""
    count = n * out[0] * out[1]
    return g.groups == 1 and count <= min(len(w), at_once(w, g))


def turning_pays(w: Array, g: Windows, n: int, out: Pair) -> bool:
    """Return whether `spread` is quicker as a `correlate` of gy with the filters turned around."""
    few_outputs = len(w) <= 4 * w.shape[1] * g.groups
    return g.stride == (1, 1) and not is_pointwise(g) and few_outputs and not few_windows(w, g, n, out)


def channel_shares(w: Array, g: Windows, windows: int, parts: int) -> list[slice]:
    """Return the input channels, or the groups, in shares whose columns are a few caches full."""
    i = w.shape[1] * g.groups
    pieces = parts * -(-i * w[0, 0].size * windows * w.itemsize // (parts * 8 * CACHE))
    return shares(i if g.groups == 1 else g.groups, pieces)


def summing(parts: int, gw: Array) -> int:
    """Return as many of the threads as the workspace has room for, when each has a sum of its own."""
    return max(1, min(parts, WORKSPACE // (2 * gw.nbytes)))


def rows_pay(w: Array, g: Windows) -> bool:
    """Return whether columns of single kernel rows are worth it: with stride 1, and unless the copies saved are fewer
    than the products that have to be added up instead, as in a first layer of 3 to 64 channels."""
    return g.stride[0] == 1 and w.shape[1] * g.groups * g.kernel[1] >= len(w)


def windows_in_cache(w: Array, g: Windows) -> int:
    """Return how many windows' columns and products fit into `CACHE`, LEAST at least."""
    copies = g.kernel[1] if rows_pay(w, g) else g.kernel[0] * g.kernel[1]
    return max(LEAST, CACHE // ((w.shape[1] * g.groups * copies + 2 * len(w)) * w.itemsize))


def all_columns(x: Array, g: Windows, parts: int) -> Array:
    """Return the columns of the whole batch as one matrix, built by all threads."""
    out = g.out_size(x.shape[2:])
    columns = xp_of(x).empty((x.shape[1], *g.kernel, len(x), *out), dtype=x.dtype)

    def some(part: slice) -> None:
        columns[part] = im2col(x[:, part], g)

    parallel(some, shares(x.shape[1], parts), parts)
    return columns.reshape(x.shape[1] * g.kernel[0] * g.kernel[1], -1)


def turn(gy: Array, w: Array, g: Windows) -> tuple[Array, Array, Windows]:
    """Return what `correlate` needs to compute `spread` with stride 1: gy, the filters turned around, the padding
    mirrored.

    The pixel at tap i of window y is tap -i of the window that output y opens in gx; the image needs `span - 1`
    outputs around it, of which `padding` were there already. If more were, those saw nothing but zeros: cut them off.
    """
    (_, _, out_h, out_w), (eh, ew), (ph, pw) = gy.shape, g.span, g.padding
    cut_h, cut_w = max(0, ph - eh + 1), max(0, pw - ew + 1)
    grouped = w.reshape(g.groups, len(w) // g.groups, *w.shape[1:]).swapaxes(1, 2)
    turned = grouped.reshape(-1, *grouped.shape[2:])[:, :, ::-1, ::-1]
    return gy[:, :, cut_h : out_h - cut_h, cut_w : out_w - cut_w], turned, mirrored(g)


@lru_cache
def mirrored(g: Windows) -> Windows:
    """Return the windows of gx's pixels over gy."""
    return replace(g, padding=(max(0, g.span[0] - 1 - g.padding[0]), max(0, g.span[1] - 1 - g.padding[1])))


def _mix(x: Array, w: Array, y: Array, b: Array | None = None, relu: bool = False) -> None:
    """y[n, o] = sum over i of w[o, i] * x[n, i], pixel by pixel: one product per image, shared out.

    Small images are multiplied in one call of NumPy, several at a time.
    """
    (o, i), n, pixels = w.shape, len(x), y.shape[2] * y.shape[3]
    x, flat = x.reshape(n, i, pixels), y.reshape(n, o, pixels)
    parts = useful_threads(n * o * i * pixels)
    channels = shares(o, parts if o > pixels else 1)
    pieces = shares(pixels, 1 if o > pixels else parts * -(-pixels * (o + i) // (2 * CACHE * parts)))

    images = shares(n, max(parts, -(-4 * n * pixels * (o + i) // CACHE)))

    def some(item: tuple[slice, slice, slice]) -> None:
        image, part, piece = item
        product = flat[image, part, piece]
        xp_of(x).matmul(w[part], x[image, :, piece], out=product)
        finish(product, None if b is None else b[part], relu)

    parallel(some, [(image, part, piece) for image in images for part in channels for piece in pieces], parts)
