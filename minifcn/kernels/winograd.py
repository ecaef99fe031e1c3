"""Winograd's convolution F(4x4, 3x3): sixteen outputs for 36 multiplications instead of 144.

A product of two polynomials is known from its values at enough points: evaluate both at 0, 1, -1, 2, -2 and infinity,
multiply value by value, and interpolate. A 3-tap filter slid over 6 values is the transpose of such a product, with the
same few multiplications (Winograd 1980; Lavin and Gray 2016). In matrices, for one row of 6 values d and one filter w,

    y = A^T [ (G w) * (B^T d) ]

where G evaluates the filter, and B^T and A^T are interpolation and evaluation transposed. In two dimensions each matrix
acts on rows and on columns, which is one product with its Kronecker square: a tile of 6x6 pixels is a vector of 36. So
all of it is matrix products, and the one that counts is batched over the 36 points:

    tiles of x --kron(B^T, B^T)--> V (36, I, tiles)
    filters    --kron(G, G)------> U (36, O, I)         M = U @ V (36, O, tiles) --kron(A^T, A^T)--> 4x4 tiles of y

The adjoints read the same diagram backwards. With stride 1, `spread` is `correlate` with every filter turned around
and its two channel axes exchanged. `weigh` turns gy into M's gradient by kron(A, A), sums over all tiles there, at the
36 points, and comes back by kron(G^T, G^T) once.

What it costs is accuracy: the points 2 and -2 make numbers as large as 10 that cancel again. In float32 the error is
about ten times that of the plain sum (a test holds it below 3e-5); float64 never comes here. And the error is one of
the tile, not of the window: all sixteen outputs get a share of what its largest number loses, and all are NaN when one
pixel is. So the tiles in which some output sees only numbers `UNEVEN` times smaller than the largest are computed again
from their columns (`smooth`), and every output is right to 2e-5 of the largest number that it sees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

from minifcn.backend import Array, xp_of
from minifcn.kernels.blocks import correlate as plain_sum
from minifcn.kernels.blocks import turn, turned_workspace
from minifcn.kernels.im2col import Pair, Windows
from minifcn.kernels.products import Block, blocks, finish, rectify
from minifcn.kernels.threads import parallel, shares, threads, useful_threads

BT = ((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0), (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0),
      (0, 4, 0, -5, 0, 1))  # fmt: skip
G = ((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6), (1 / 24, 1 / 12, 1 / 6),
     (1 / 24, -1 / 12, 1 / 6), (0, 0, 1))  # fmt: skip
AT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))

TILES = Windows((6, 6), stride=(4, 4))
"""The tiles of x: 6 pixels wide, 4 apart. Those of y are 4 wide and 4 apart: they do not overlap."""
CELLS = Windows((4, 4), stride=(4, 4))


WORKSPACE = 80 << 20
"""Bytes that all threads together may use for tiles, sums and filters of one product, about half of it for tiles."""
LEAST = 32
"""Tiles in a block at least."""
MOST = 256
"""Tiles in a block at most: beyond that the products gain nothing, and the tiles leave the cache."""


UNEVEN = 16
"""How many times larger than what an output sees the largest number of its tile may be: it loses 5e-7 of that."""
FEW = 4
"""Of so many tiles at most one may be uneven; else the whole layer is computed as a plain sum."""
AGAIN = 4 << 20
"""Bytes of columns of uneven tiles that are multiplied at a time."""


def serves(g: Windows, i: int, o: int) -> bool:
    """Return whether this file computes such a layer: 3x3 with stride 1, and transformed filters that fit the
    workspace.
    """
    plain = (g.kernel, g.stride, g.dilation, g.groups) == ((3, 3), (1, 1), (1, 1), 1)
    return plain and 36 * i * o * 4 <= WORKSPACE // 2


def square(xp: ModuleType, matrix: tuple[tuple[float, ...], ...]) -> Array:
    """kron(matrix, matrix) in float32: acts on rows and on columns at once."""
    matrix = xp.asarray(matrix, dtype="float32")
    return xp.kron(matrix, matrix)


def transform_filters(w: Array) -> Array:
    """w (O, I, 3, 3) -> U (36, O, I): every filter evaluated at the 36 points."""
    xp = xp_of(w)
    o, i = w.shape[:2]
    u, points = xp.empty((36, o, i), dtype=w.dtype), square(xp, G)

    def some(part: slice) -> None:
        xp.matmul(points, w[part].reshape(-1, 9).T, out=u[:, part].reshape(36, -1))

    parts = useful_threads(36 * 9 * o * i)
    parallel(some, shares(o, parts), parts)
    return u


def arrange(w: Array, g: Windows) -> Array:
    """Return the weights as `correlate` takes them."""
    return transform_filters(w)


def correlate(
    x: Array, w: Array, g: Windows, b: Array | None = None, relu: bool = False, u: Array | None = None
) -> Array:
    """`u`, if it is known already, saves transforming the filters w."""
    n, (o, i), size = len(x), w.shape[:2], g.out_size(x.shape[2:])
    places = uneven(x, g, size)
    if FEW * len(places[0]) > n * grid(size)[0] * grid(size)[1]:
        return plain_sum(x, w, g, b, relu)
    way = _correlate_by_channel if few_tiles(n, size, i, o) else _correlate_by_tile
    return smooth(way(x, w, g, b, relu, u), places, x, w, g, b, relu)


def uneven(x: Array, g: Windows, size: Pair) -> tuple[Array, Array, Array]:
    """Return image, row and column of the tiles in which a plain sum is needed; a few passes over max_c |x_c|."""
    xp, n, (rows, cols) = xp_of(x), len(x), grid(size)
    largest = xp.zeros((n, 4 * rows + 2, 4 * cols + 2), dtype=x.dtype)
    (h, w), (top, left) = x.shape[2:], g.padding
    inside = largest[:, top : top + h, left : left + w]  # what lies further down or right is seen by no output

    def some(part: slice) -> None:
        here = x[:, :, part][:, :, :, : inside.shape[2]]
        xp.maximum(here.max(axis=1), -here.min(axis=1), out=inside[:, part])

    parts = useful_threads(9 * x.size)
    parallel(some, shares(inside.shape[1], 4 * parts), parts)
    seen = xp.maximum(xp.maximum(largest[:, :-2], largest[:, 1:-1]), largest[:, 2:])
    seen = xp.maximum(xp.maximum(seen[:, :, :-2], seen[:, :, 1:-1]), seen[:, :, 2:])
    most = seen.reshape(n, rows, 4, cols, 4).max(axis=(2, 4))
    seen[:, size[0] :], seen[:, :, size[1] :] = xp.inf, xp.inf  # no outputs, so it does not matter what they see
    least = seen.reshape(n, rows, 4, cols, 4).min(axis=(2, 4))
    return xp.nonzero(~(most <= UNEVEN * least) | ~xp.isfinite(most))


def smooth(
    y: Array, places: tuple[Array, Array, Array], x: Array, w: Array, g: Windows, b: Array | None, relu: bool
) -> Array:
    """Compute the tiles at `places` (image, row, column) again from their columns, in y."""
    xp = xp_of(x)
    for image in xp.unique(places[0]):
        rows, cols = (4 * place[places[0] == image, None] + xp.arange(4) for place in places[1:])
        rows, cols = (each.reshape(-1) for each in xp.broadcast_arrays(rows[:, :, None], cols[:, None]))
        there = (rows < y.shape[2]) & (cols < y.shape[3])  # the last tiles may reach beyond y
        again(y[image], x[image], rows[there], cols[there], w, g, b, relu)
    return y


def again(y: Array, x: Array, rows: Array, cols: Array, w: Array, g: Windows, b: Array | None, relu: bool) -> None:
    """Compute single outputs of one image, at (rows, cols) of y (O, H', W'), from their columns."""
    xp = xp_of(x)
    down, across = (at - p + xp.arange(3)[:, None] for at, p in zip((rows, cols), g.padding, strict=True))
    down, across = xp.broadcast_arrays(down[:, None], across)  # (3, 3, windows): where each tap looks
    outside = (down < 0) | (down >= x.shape[1]) | (across < 0) | (across >= x.shape[2])
    seen = xp.where(outside, 0, down * x.shape[2] + across)

    def some(part: slice) -> None:
        columns = x.reshape(len(x), -1).take(seen[:, :, part], axis=1)
        columns[:, outside[:, :, part]] = 0
        product = w.reshape(len(w), -1) @ columns.reshape(w[0].size, -1)
        finish(product, b, relu)
        y[:, rows[part], cols[part]] = product

    parts = useful_threads(len(rows) * w.size)
    parallel(some, shares(len(rows), max(parts, -(-len(rows) * w[0].nbytes // AGAIN))), parts)


def _correlate_by_tile(x: Array, w: Array, g: Windows, b: Array | None, relu: bool, u: Array | None) -> Array:
    """Each thread takes blocks of tiles and makes all output channels of them."""
    xp, n, (o, i) = xp_of(x), len(x), w.shape[:2]
    u = transform_filters(w) if u is None else u
    from_x, to_y, windows = square(xp, BT), square(xp, AT), replace(TILES, padding=g.padding)
    size = g.out_size(x.shape[2:])
    y = xp.empty((n, o, *size), dtype=x.dtype)
    parts, todo = tile_plan(n, size, 2 * max(i, o), useful_threads(y.size * 9 * i))

    def some(block: Block, ours: tuple[Array, Array]) -> None:
        here, there = ours  # two stretches of memory, used in turn
        v = evaluate(block, x, windows, from_x, here, there)
        m = xp.matmul(u, v, out=shaped(here, 36, o, v.shape[2]))
        to_cells(y, m, b, relu, block, to_y, there)

    parallel(some, todo, parts, two_of(xp, 36 * max(o, i) * largest(todo)))
    return y


def _correlate_by_channel(x: Array, w: Array, g: Windows, b: Array | None, relu: bool, u: Array | None) -> Array:
    """The same where the filters are the large array: all tiles first, then each thread takes output channels.

    The transformed filters of 64 channels are used at once and forgotten; all of them would not fit into a cache.
    """
    xp, n, (o, i) = xp_of(x), len(x), w.shape[:2]
    size = g.out_size(x.shape[2:])
    parts, todo, length = channel_plan(n, size, i, o)
    y = xp.empty((n, o, *size), dtype=x.dtype)
    from_x, points, to_y = square(xp, BT), square(xp, G), square(xp, AT)
    (block,) = blocks(n, grid(size), n * grid(size)[0] * grid(size)[1])
    v = all_tiles(x, block, replace(TILES, padding=g.padding), from_x, parts)

    def some(part: slice, ours: tuple[Array, Array]) -> None:
        here, there = ours
        count = part.stop - part.start
        if u is None:
            part_u = shaped(there, 36, count, i)
            xp.matmul(points, w[part].reshape(-1, 9).T, out=part_u.reshape(36, -1))
        else:
            part_u = u[:, part]
        m = xp.matmul(part_u, v, out=shaped(here, 36, count, block.count))
        to_cells(y[:, part], m, None if b is None else b[part], relu, block, to_y, there)

    parallel(some, todo, parts, two_of(xp, length))
    return y


def spread(gy: Array, w: Array, g: Windows, size: Pair) -> Array:
    """With stride 1 the adjoint in x is a correlation with the filters turned around."""
    return correlate(*turn(gy, w, g))


def weigh(x: Array, gy: Array, g: Windows) -> Array:
    """gw = kron(G^T, G^T) of the sum over all tiles of (gradient at the 36 points) * (x at the 36 points)."""
    xp, i, o = xp_of(x), x.shape[1], gy.shape[1]
    parts = useful_threads(gy.size * 9 * i)
    own = 2 * 36 * o * i * x.itemsize  # bytes of a thread's own sum, and of what it is about to add
    if parts * own > WORKSPACE // 2:
        return _weigh_by_channel(x, gy, g, parts)
    parts, todo = tile_plan(len(x), gy.shape[2:], 3 * max(i, o), parts)
    from_x, from_y, windows = square(xp, BT), square(xp, AT).T, replace(TILES, padding=g.padding)
    sums = xp.zeros((parts, 36, o, i), dtype=x.dtype)

    def some(share: int) -> None:
        length = 36 * max(o, i) * largest(todo)
        first, second, third = (xp.empty(length, dtype=x.dtype) for _ in range(3))
        product = xp.empty((36, o, i), dtype=x.dtype)
        for block in todo[share::parts]:
            v = evaluate(block, x, windows, from_x, second, first)
            m = evaluate(block, gy, CELLS, from_y, second, third)
            sums[share] += xp.matmul(m, v.transpose(0, 2, 1), out=product)

    parallel(some, range(parts), parts)
    return (sums.sum(axis=0).reshape(36, -1).T @ square(xp, G)).reshape(o, i, 3, 3)


def _weigh_by_channel(x: Array, gy: Array, g: Windows, parts: int) -> Array:
    """The same with large weights: one sum for all, of which each thread computes some output channels."""
    xp, i, o = xp_of(x), x.shape[1], gy.shape[1]
    from_x, from_y, to_w = square(xp, BT), square(xp, AT).T, square(xp, G)
    gw = xp.zeros((o, i, 3, 3), dtype=x.dtype)
    for block in large_blocks(len(x), gy.shape[2:], i):
        v = all_tiles(x, block, replace(TILES, padding=g.padding), from_x, parts)

        def some(part: slice, v: Array = v, block: Block = block) -> None:
            m = evaluate(block, gy[:, part], CELLS, from_y)
            gw[part].reshape(-1, 9)[...] += (m @ v.transpose(0, 2, 1)).reshape(36, -1).T @ to_w

        parallel(some, shares(o, max(parts, o // 32)), parts)
    return gw


def workspace(product: str, w: Array, g: Windows, shape: tuple[int, int, int, int]) -> int:
    """Return the bytes that a product takes beside what it is given and returns; see `products.workspace`."""
    if product == "spread":
        return turned_workspace(workspace, w, g, shape)
    (n, i), o, size = shape[:2], len(w), g.out_size(shape[2:])
    parts, own = useful_threads(n * o * size[0] * size[1] * 9 * i), 2 * 36 * o * i
    if product == "correlate" and few_tiles(n, size, i, o):
        parts, channels, length = channel_plan(n, size, i, o)
        return (36 * i * n * grid(size)[0] * grid(size)[1] + min(parts, len(channels)) * 2 * length) * 4
    if product == "correlate":
        parts, todo = tile_plan(n, size, 2 * max(i, o), parts)
        return 36 * (o * i + min(parts, len(todo)) * 2 * max(o, i) * largest(todo)) * 4
    if parts * own * 4 > WORKSPACE // 2:
        tiles, channels = largest(large_blocks(n, size, i)), shares(o, max(parts, o // 32))
        return (36 * i * tiles + min(parts, len(channels)) * widest(channels) * (2 * 36 * tiles + 45 * i)) * 4
    parts, todo = tile_plan(n, size, 3 * max(i, o), parts)
    return parts * (own + 3 * 36 * max(o, i) * largest(todo)) * 4


def all_tiles(x: Array, block: Block, g: Windows, matrix: Array, parts: int) -> Array:
    """Return the tiles of every channel, transformed by all threads: (36, I, tiles)."""
    v = xp_of(x).empty((36, x.shape[1], block.count), dtype=x.dtype)

    def some(part: slice) -> None:
        v[:, part] = evaluate(block, x[:, part], g, matrix)

    parallel(some, shares(x.shape[1], max(parts, x.shape[1] // 32)), parts)
    return v


def evaluate(
    block: Block, x: Array, g: Windows, matrix: Array, here: Array | None = None, there: Array | None = None
) -> Array:
    """Return the block's tiles of x, each a vector, times `matrix` (36, pixels of a tile): (36, C, tiles).

    `here` and `there` are memory to work in; the result is in `there`.
    """
    xp, c, (n, rows, cols) = xp_of(x), x.shape[1], block.shape
    if here is None or there is None:
        length = 36 * c * block.count
        here, there = xp.empty(length, dtype=x.dtype), xp.empty(length, dtype=x.dtype)
    slab = block.cut(x, g, shaped(there, n, c, *block.slab_size(g)))
    tiles = shaped(here, matrix.shape[1], c, n, rows, cols)
    for tap, (_, (down, across)) in enumerate(g.taps((rows, cols))):
        tiles[tap] = slab[:, :, down, across].transpose(1, 0, 2, 3)
    values = shaped(there, 36, c * block.count)
    return xp.matmul(matrix, tiles.reshape(len(tiles), -1), out=values).reshape(36, c, -1)


def to_cells(y: Array, m: Array, b: Array | None, relu: bool, block: Block, to_y: Array, memory: Array) -> None:
    """From the 36 points m (36, O, tiles) to the block's 4x4 cells of y, bias and ReLU on the way."""
    if b is not None:
        m[7] += b[:, None]  # at the point (1, 1), whose column in kron(A^T, A^T) is all ones, a constant is itself
    cells = xp_of(m).matmul(to_y, m.reshape(36, -1), out=shaped(memory, 16, m[0].size))
    if relu:
        rectify(cells)
    put(y, cells.reshape(16, m.shape[1], *block.shape), block)


def put(y: Array, cells: Array, block: Block) -> None:
    """Write the 4x4 cells (16, O, n, rows, cols) into y; the last ones may reach beyond its edge."""
    top, left = 4 * block.rows.start, 4 * block.cols.start
    part = y[block.images, :, top : 4 * block.rows.stop, left : 4 * block.cols.stop]
    for tap, (_, (down, across)) in enumerate(CELLS.taps(block.shape[1:])):
        target = part[:, :, down, across]
        target[...] = cells[tap, ..., : target.shape[2], : target.shape[3]].transpose(1, 0, 2, 3)


def tile_blocks(n: int, size: Pair, channels: int, parts: int, most: int = MOST) -> list[Block]:
    """Return the 4x4 cells of an output of `size` in blocks whose tiles fit into a thread's part of the workspace."""
    room = WORKSPACE // 2 // (parts * 36 * channels * 4)
    return blocks(n, grid(size), max(LEAST, min(most, room)), parts)


def large_blocks(n: int, size: Pair, channels: int) -> list[Block]:
    """Return the same in blocks that all threads work on together."""
    return tile_blocks(n, size, channels, 1, most=WORKSPACE // 2 // (36 * channels * 4))


def tile_plan(n: int, size: Pair, channels: int, parts: int) -> tuple[int, list[Block]]:
    """Return how many threads have memory, when each holds tiles of so many channels, and the blocks for them."""
    parts = threads_with_room(parts, 36 * channels * LEAST * 4)
    return parts, tile_blocks(n, size, channels, parts)


def channel_plan(n: int, size: Pair, i: int, o: int) -> tuple[int, list[slice], int]:
    """Return how many threads take which output channels, and the numbers in each of a thread's two stretches of
    memory.
    """
    todo = shares(o, max(threads(), o // 64))
    length = 36 * widest(todo) * max(i, n * grid(size)[0] * grid(size)[1])
    return threads_with_room(useful_threads(n * o * size[0] * size[1] * 9 * i), 2 * length * 4), todo, length


def threads_with_room(parts: int, memory: int) -> int:
    """Return as many of the threads as half the workspace has room for, each with `memory` bytes; at least one."""
    return max(1, min(parts, WORKSPACE // 2 // memory))


def grid(size: Pair) -> Pair:
    """Return the rows and columns of 4x4 cells that cover an output of `size`."""
    return -(-size[0] // 4), -(-size[1] // 4)


def few_tiles(n: int, size: Pair, i: int, o: int) -> bool:
    """Return whether the filters outnumber the tiles, and all tiles fit into the workspace."""
    tiles = n * grid(size)[0] * grid(size)[1]
    return 0 < tiles < o and 36 * i * tiles * 4 <= WORKSPACE // 2


def largest(todo: list[Block]) -> int:
    """Return the tiles of the largest block; 0 of none."""
    return max((block.count for block in todo), default=0)


def widest(todo: list[slice]) -> int:
    """Return the channels of the widest share."""
    return max(part.stop - part.start for part in todo)


def two_of(xp: ModuleType, length: int) -> Callable[[], tuple[Array, Array]]:
    """Return a function that makes two float32 arrays of so many numbers: a thread's own memory."""
    return lambda: (xp.empty(length, dtype="float32"), xp.empty(length, dtype="float32"))


def shaped(memory: Array, *shape: int) -> Array:
    """Return the beginning of a flat array, as an array of `shape`."""
    length = 1
    for count in shape:
        length *= count
    return memory[:length].reshape(shape)
