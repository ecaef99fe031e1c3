"""Run a program on arrays without numbers, to find the shapes and memory it needs.

A net in Python is a program, and which of its arrays live at the same time is decided by its variables, by what each
gradient remembers, and by the order in which `backward` lets go. Rather than model all that, run the very same program
on `Outline`s. Every one that is made adds its bytes to a `Ledger`, every one that Python drops takes them away again;
the highest level is the memory that the program will need, known before the first number is computed.

    ledger = Ledger()
    y = ops.max_pool2d(Outline((1, 64, 500, 500), "float32", ledger), kernel=2)
    ledger.peak                             # bytes

Only the three products of a convolution are not run: their working memory depends on the way that serves the layer
(`kernels/convolution.py`), so it is computed from the sizes of that way's blocks.
"""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from minifcn.geometry import Grid
from minifcn.kernels import blocks, convolution, lines, planes, products, winograd
from minifcn.kernels.im2col import Pair, Windows
from minifcn.kernels.threads import lanes, shares, threads


class Ledger:
    """The books of one computation, and the array library that its outlines call: `xp_of(outline)` is their ledger."""

    def __init__(self, *, device: str = "cpu") -> None:
        self.device = device
        self.live = self.peak = self.multiply_adds = 0

    def take(self, amount: int) -> None:
        self.live += amount
        self.peak = max(self.peak, self.live)

    def give(self, amount: int) -> None:
        self.live -= amount

    def restart(self) -> int:
        """Forget the peak; returns the present level, against which the next one counts."""
        self.peak = self.live
        return self.live

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)  # maximum, exp, ...: NumPy hands those over to the outlines it is given

    def empty(self, shape: Any, dtype: Any = "float64") -> Outline:
        return Outline((shape,) if isinstance(shape, int) else shape, dtype, self)

    zeros = ones = empty

    def full(self, shape: Any, value: Any, dtype: Any = "float64") -> Outline:
        return self.empty(shape, dtype)

    def zeros_like(self, x: Outline) -> Outline:
        return self.empty(x.shape, x.dtype)

    ones_like = empty_like = zeros_like

    def where(self, condition: Any, x: Any, y: Any) -> Outline:
        shape = np.broadcast_shapes(*(shape_of(each) for each in (condition, x, y)))
        return self.empty(shape, np.result_type(*(getattr(each, "dtype", each) for each in (x, y))))

    def take_along_axis(self, x: Outline, index: Any, axis: int) -> Outline:
        return self.empty(index.shape, x.dtype)

    def expand_dims(self, x: Any, axis: Any) -> Outline:
        return x.view(np.expand_dims(x.virtual(), axis).shape)

    def broadcast_to(self, x: Any, shape: Any) -> Outline:
        return x.view(shape)

    def concatenate(self, xs: Any, axis: int = 0) -> Outline:
        shape = list(xs[0].shape)
        shape[axis] = sum(x.shape[axis] for x in xs)
        return self.empty(shape, xs[0].dtype).on(*xs)


class Outline(np.lib.mixins.NDArrayOperatorsMixin):
    """An array without its numbers. A view (`base`) takes no memory, and keeps alive what it looks at.

    `grid` says where its last two axes lie in the image, and follows the arrays it was made of.
    """

    def __init__(self, shape: Any, dtype: Any, ledger: Ledger, *, base: Outline | None = None) -> None:
        self.shape = tuple(int(n) for n in shape)
        self.dtype = np.dtype(dtype)
        self.library, self.base = ledger, base
        self.grid: Grid | None = None if base is None else base.grid
        if base is None:
            ledger.take(self.nbytes)
            self.dropped = weakref.finalize(self, ledger.give, self.nbytes)
            self.dropped.atexit = False

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    @property
    def T(self) -> Outline:
        return self.view(self.shape[::-1])

    def __len__(self) -> int:
        return self.shape[0]

    def on(self, *arrays: Any) -> Outline:
        """Lay this on the grid of the arrays it came from: the one with the widest field, where branches join."""
        grids = [array.grid for array in arrays if getattr(array, "grid", None) is not None]
        self.grid = max(grids, key=lambda grid: grid.field, default=self.grid)
        return self

    def virtual(self) -> np.ndarray:
        """A real array of this shape that fills one number's memory, to ask NumPy about indices."""
        return np.broadcast_to(np.zeros((), self.dtype), self.shape)

    def view(self, shape: Any) -> Outline:
        return Outline(shape, self.dtype, self.library, base=self)

    def reshape(self, *shape: Any) -> Outline:
        wanted = list(shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)
        if -1 in wanted:
            wanted[wanted.index(-1)] = self.size // max(1, -math.prod(wanted))
        return self.view(wanted)

    def transpose(self, *axes: Any) -> Outline:
        return self.view(self.virtual().transpose(*axes).shape)

    def swapaxes(self, a: int, b: int) -> Outline:
        return self.view(self.virtual().swapaxes(a, b).shape)

    def astype(self, dtype: Any) -> Outline:
        return Outline(self.shape, dtype, self.library).on(self)

    def __getitem__(self, index: Any) -> Outline:
        view = self.view(self.virtual()[index].shape)
        if self.grid is not None and view.ndim == self.ndim:
            view.grid = self.grid.cropped(first(index))
        return view

    def __setitem__(self, index: Any, value: Any) -> None:
        if self.grid is None and getattr(value, "grid", None) is not None:
            self.grid = value.grid.cropped(-first(index))

    def sum(self, axis: Any = None, keepdims: bool = False) -> Outline:
        reduced = range(self.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
        kept = {a % self.ndim for a in reduced}
        shape = [1 if a in kept else n for a, n in enumerate(self.shape) if keepdims or a not in kept]
        return Outline(shape, self.dtype, self.library)

    mean = max = sum

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        if method != "__call__":
            return NotImplemented
        if ufunc is np.matmul:
            shape = product_shape(shape_of(inputs[0]), shape_of(inputs[1]))
            self.library.multiply_adds += math.prod(shape) * shape_of(inputs[0])[-1]
        else:
            shape = np.broadcast_shapes(*(shape_of(x) for x in inputs))
        if out is not None:
            return out[0].on(*inputs)
        kinds = tuple(getattr(x, "dtype", type(x)) for x in inputs)
        return Outline(shape, ufunc.resolve_dtypes((*kinds, None))[-1], self.library).on(*inputs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function.__name__ not in vars(Ledger):
            return NotImplemented
        return getattr(self.library, function.__name__)(*args, **kwargs)


def shape_of(x: Any) -> tuple[int, ...]:
    return getattr(x, "shape", ())


def first(index: Any) -> int:
    """The first row that an index like `[:, :, 5:9, 5:9]` or `[..., 5:9, 5:9]` keeps."""
    row = index[-2] if isinstance(index, tuple) and len(index) > 1 else None
    return (row.start or 0) if isinstance(row, slice) else 0


def product_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return (*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])


# ---- the three products ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def outlined_products() -> Iterator[None]:
    """Inside, convolutions of outlines are booked instead of computed, and planes taken in the pieces of their device.

    Not while another thread computes.
    """
    before = convolution.WAYS["im2col"], planes.whole
    convolution.WAYS["im2col"] = SimpleNamespace(correlate=correlate, spread=spread, weigh=weigh)  # see `choose`
    planes.whole = lambda x: x.library.device == "gpu" or x.nbytes <= planes.PIECE
    try:
        yield
    finally:
        convolution.WAYS["im2col"], planes.whole = before


def correlate(x: Outline, w: Any, g: Windows, b: Any = None, relu: bool = False) -> Outline:
    out = g.out_size((x.shape[2], x.shape[3]))
    y = x.library.empty((len(x), len(w), *out), x.dtype)
    way = way_of(x, g, x.shape[1], len(w), out)
    book(x.library, correlating(way, w, g, x.shape, out), len(x) * math.prod(out) * w.size)
    return y


def spread(gy: Outline, w: Any, g: Windows, size: Pair) -> Outline:
    n, out = len(gy), (gy.shape[2], gy.shape[3])
    gx = gy.library.empty((n, w.shape[1] * g.groups, *size), gy.dtype)
    way = way_of(gy, g, len(w), gx.shape[1], out)
    book(gy.library, spreading(way, w, g, gx.shape, out), n * math.prod(out) * w.size)
    return gx


def weigh(x: Outline, gy: Outline, g: Windows) -> Outline:
    (n, o), out = gy.shape[:2], (gy.shape[2], gy.shape[3])
    gw = x.library.empty((o, x.shape[1] // g.groups, *g.kernel), x.dtype)
    way = way_of(x, g, x.shape[1], o, out)
    book(x.library, weighing(way, gw, g, x.shape, out), n * math.prod(out) * gw.size)
    return gw


def book(ledger: Ledger, workspace: int, multiply_adds: int) -> None:
    ledger.multiply_adds += multiply_adds
    ledger.take(workspace)
    ledger.give(workspace)


def way_of(x: Outline, g: Windows, i: int, o: int, out: Pair) -> str:
    if x.library.device == "gpu":
        return "im2col"
    return convolution.choose(np.empty(0, x.dtype), g, i, o, len(x), out)


def one_block(w: Any, g: Windows, n: int, out: Pair, at_once: int, parts: int = 1, *, product: bool = False) -> int:
    """Bytes of one block: its columns, the slab of image under it, and the outputs where those are another array."""
    block = products.blocks(n, out, at_once, parts)[0]
    slab = block.shape[0] * w.shape[1] * g.groups * math.prod(block.slab_size(g))
    outputs = block.count * len(w) if product or block.shape[0] > 1 else 0  # of one image they are a view of gy
    return (block.count * w[0].size * g.groups + max(slab, outputs)) * w.itemsize  # one goes before the other comes


def cached_block(w: Any, g: Windows, n: int, out: Pair, parts: int, *, product: bool = False) -> int:
    """Bytes of one block of `kernels/blocks.py`, which often needs the columns of single kernel rows only."""
    at_once = blocks.windows_in_cache(w, g)
    if not blocks.rows_pay(w, g):
        return one_block(w, g, n, out, at_once, parts, product=product)
    block, channels = products.blocks(n, out, at_once, parts)[0], w.shape[1] * g.groups
    rows, cols = block.slab_size(g)
    cells = block.shape[0] * rows * block.shape[2]
    slab = block.shape[0] * channels * rows * cols  # gone when the first product is made
    return (channels * g.kernel[1] * cells + max(slab, (1 + product) * len(w) * cells)) * w.itemsize


def laid_out(w: Any, g: Windows, n: int, size: Pair, out: Pair, parts: int) -> int:
    """Bytes of the lines of `kernels/lines.py`, of pixels and of outputs, and of one strip, for each thread."""
    channels, o = w.shape[1] * g.groups, len(w)
    todo = lines.pieces(n, channels + o, out, g, parts)
    shape = lines.cells(size, g, todo[0])
    count, along = math.prod(shape), (g.span[0] - 1) * shape[2]
    line = (channels + o) * (count + along) + channels * (g.span[1] - 1)
    return min(parts, len(todo)) * (line + lines.per_place(w, g) * lines.strips(count, w, g)[0].stop) * w.itemsize


def correlating(way: str, w: Any, g: Windows, shape: tuple[int, ...], out: Pair) -> int:
    n, (o, i) = shape[0], w.shape[:2]
    parts = lanes(n * math.prod(out) * w.size)
    if way == "im2col":
        return one_block(w, g, n, out, products.at_once(w, g), product=True)
    if way == "winograd":
        return correlating_tiles(n, o, i, out)
    if way == "lines":
        parts = lines.crew(n * math.prod(out) * w.size, w, g)
        return w.nbytes + laid_out(w, g, n, (shape[2], shape[3]), out, parts)
    if blocks.is_pointwise(g):
        return 0
    if blocks.few_windows(w, g, n, out):
        return one_block(w, g, n, out, n * math.prod(out), product=True)
    return w.nbytes + parts * cached_block(w, g, n, out, parts, product=True)  # the weights by kernel rows are a copy


def spreading(way: str, w: Any, g: Windows, shape: tuple[int, ...], out: Pair) -> int:
    n, i, *size = shape
    turned = way in ("winograd", "lines") or (
        g.stride == (1, 1) and len(w) <= 4 * i and not blocks.few_windows(w, g, n, out) and way == "blocks"
    )
    if way == "blocks" and blocks.is_pointwise(g):
        return 0
    if turned:  # the filters turned around are a copy, and what follows is a `correlate`
        padding = max(0, g.span[0] - 1 - g.padding[0]), max(0, g.span[1] - 1 - g.padding[1])
        back = replace(g, padding=padding)
        other = np.broadcast_to(np.zeros((), w.dtype), (i, len(w) // g.groups, *g.kernel))
        return w.nbytes + correlating(way, other, back, (n, len(w), *out), (size[0], size[1]))
    if way == "blocks":
        return spreading_channels(w, g, shape, out)
    return one_block(w, g, n, out, products.at_once(w, g))


def spreading_channels(w: Any, g: Windows, shape: tuple[int, ...], out: Pair) -> int:
    """Each thread takes some images and some channels, or groups of them, in turn."""
    n, i, *size = shape
    parts = lanes(n * math.prod(out) * w.size)
    pieces = parts * -(-i * math.prod(g.kernel) * n * math.prod(out) * w.itemsize // (parts * 8 * blocks.CACHE))
    images, channels = -(-n // parts), -(-(i if g.groups == 1 else g.groups) // pieces)
    some = replace(g, groups=1 if g.groups == 1 else channels)
    kept = (len(w), channels) if g.groups == 1 else (channels * len(w) // g.groups, w.shape[1])
    part = np.broadcast_to(np.zeros((), w.dtype), (*kept, *g.kernel))
    one = one_block(part, some, images, out, products.at_once(part, some, products.WORKSPACE // parts))
    return parts * (one + images * kept[1] * some.groups * math.prod(size) * w.itemsize)


def weighing(way: str, w: Any, g: Windows, shape: tuple[int, ...], out: Pair) -> int:
    n, (o, i) = shape[0], w.shape[:2]
    parts = lanes(n * math.prod(out) * w.size)
    if way == "im2col":
        return one_block(w, g, n, out, products.at_once(w, g)) + min(w.nbytes, products.WORKSPACE)
    if way == "winograd":
        return weighing_tiles(n, o, i, out)
    if way == "lines":
        parts = lines.crew(n * math.prod(out) * w.size, w, g)
        each = laid_out(w, g, n, (shape[2], shape[3]), out, parts)
        return parts * w.nbytes + max(each + parts * w.nbytes, w.nbytes)
    if blocks.few_windows(w, g, n, out):
        return one_block(w, g, n, out, n * math.prod(out))
    if blocks.is_pointwise(g):
        return w.nbytes
    parts = max(1, min(parts, products.WORKSPACE // (2 * w.nbytes)))
    return parts * w.nbytes + max(parts * cached_block(w, g, n, out, parts), 2 * w.nbytes)


def correlating_tiles(n: int, o: int, i: int, out: Pair) -> int:
    parts = lanes(n * o * math.prod(out) * 9 * i)
    if winograd.few_tiles(n, out, i, o):
        tiles, (some, shared) = n * math.prod(winograd.grid(out)), widest(o, max(threads(), o // 64))
        each = 2 * 36 * some * max(i, tiles) * 4
        return 36 * i * tiles * 4 + min(shared, winograd.crew(parts, each)) * each
    parts = winograd.crew(parts, 36 * 2 * max(i, o) * winograd.LEAST * 4)
    todo = winograd.tile_blocks(n, out, 2 * max(i, o), parts)
    return 36 * (o * i + min(parts, len(todo)) * 2 * max(o, i) * winograd.largest(todo)) * 4


def weighing_tiles(n: int, o: int, i: int, out: Pair) -> int:
    parts, each = lanes(n * o * math.prod(out) * 9 * i), 2 * 36 * o * i * 4
    if parts * each > winograd.WORKSPACE // 2:
        most = winograd.WORKSPACE // 2 // (36 * i * 4)
        tiles, (some, shared) = (
            winograd.largest(winograd.tile_blocks(n, out, i, 1, most)),
            widest(o, max(parts, o // 32)),
        )
        return 36 * i * tiles * 4 + min(parts, shared) * some * (2 * 36 * tiles + 45 * i) * 4
    parts = winograd.crew(parts, 36 * 3 * max(i, o) * winograd.LEAST * 4)
    todo = winograd.tile_blocks(n, out, 3 * max(i, o), parts)
    return parts * (each + 3 * 36 * max(o, i) * winograd.largest(todo) * 4)


def widest(total: int, parts: int) -> tuple[int, int]:
    """The length of the longest of the shares of `total`, and their number."""
    pieces = shares(total, parts)
    return max(part.stop - part.start for part in pieces), len(pieces)
