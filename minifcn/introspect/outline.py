"""Run a program on arrays without numbers, to find the shapes and memory it needs.

A net in Python is a program, and which of its arrays live at the same time is decided by its variables, by what each
gradient remembers, and by the order in which `backward` lets go. Rather than model all that, run the very same program
on `Outline`s. Every one that is made adds its bytes to a `Ledger`, every one that Python drops takes them away again;
the highest level is the memory that the program will need, known before the first number is computed.

    ledger = Ledger()
    y = ops.max_pool2d(Outline((1, 64, 500, 500), "float32", ledger), kernel_size=2)
    ledger.peak                             # bytes

Only the three products of a convolution are not run: the way that serves the layer (`kernels/convolution.py`) is asked
for its workspace, which is booked for a moment.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from minifcn.geometry import Grid
from minifcn.kernels.convolution import WAYS
from minifcn.kernels.im2col import Pair, Windows


class Library:
    """A library of arrays without numbers, whose functions give the shape and dtype of what NumPy's would.

    Each kind of library has its own `empty(shape, dtype)` and `made(kind, shape, dtype, *read)`: an array that nothing
    has written to, and one that a function computes from others.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)  # maximum, exp, ...: NumPy hands those over to the arrays it is given

    def zeros(self, shape: Any, dtype: Any = "float64") -> Any:
        return self.empty(shape, dtype)

    def ones(self, shape: Any, dtype: Any = "float64") -> Any:
        return self.zeros(shape, dtype)

    def full(self, shape: Any, value: Any, dtype: Any = "float64") -> Any:
        return self.zeros(shape, dtype)

    def zeros_like(self, x: Any) -> Any:
        return self.zeros(x.shape, x.dtype)

    ones_like = empty_like = zeros_like

    def clip(self, x: Any, low: Any, high: Any) -> Any:
        return self.made("clip", x.shape, x.dtype, x)

    def where(self, condition: Any, x: Any, y: Any) -> Any:
        shape = np.broadcast_shapes(*map(shape_of, (condition, x, y)))
        return self.made(
            "where", shape, np.result_type(*(getattr(each, "dtype", each) for each in (x, y))), condition, x, y
        )

    def concatenate(self, xs: Any, axis: int = 0) -> Any:
        shape = list(xs[0].shape)
        shape[axis] = sum(x.shape[axis] for x in xs)
        return self.made("concatenate", shape, xs[0].dtype, *xs)

    def expand_dims(self, x: Any, axis: Any) -> Any:
        return x.seen(np.expand_dims(x.layout, axis))

    def broadcast_to(self, x: Any, shape: Any) -> Any:
        return x.seen(np.broadcast_to(x.layout, shape))


class Numberless(np.lib.mixins.NDArrayOperatorsMixin):
    """An array without numbers: `layout` has its shape, dtype and strides, over memory that is never touched.

    Each kind has its own `seen(layout)`: a view of itself with another layout.
    """

    KNOWN: ClassVar[tuple[str, ...]] = ("shape", "dtype", "ndim", "size", "nbytes", "itemsize")

    def __init__(self, layout: np.ndarray, library: Any) -> None:
        self.layout, self.library = layout, library

    def __getattr__(self, name: str) -> Any:
        if name in self.KNOWN:
            return getattr(self.layout, name)
        raise AttributeError(f"an array without numbers has no {name}")

    def __len__(self) -> int:
        return len(self.layout)

    @property
    def T(self) -> Any:
        return self.seen(self.layout.T)

    def transpose(self, *axes: Any) -> Any:
        return self.seen(self.layout.transpose(*axes))

    def swapaxes(self, a: int, b: int) -> Any:
        return self.seen(self.layout.swapaxes(a, b))

    def reduced_shape(self, axis: Any, keepdims: bool) -> list[int]:
        """Return the shape of a sum, or another reduction, over `axis`."""
        axes = {a % self.ndim for a in (range(self.ndim) if axis is None else np.atleast_1d(axis))}
        return [1 if a in axes else n for a, n in enumerate(self.shape) if keepdims or a not in axes]


def shape_of(x: Any) -> tuple[int, ...]:
    """Return the shape of an array, () for a number."""
    return getattr(x, "shape", ())


def dtype_made(ufunc: np.ufunc, inputs: Sequence[Any]) -> np.dtype:
    """Return the dtype of what `ufunc` makes of arrays and numbers."""
    return ufunc.resolve_dtypes((*(getattr(x, "dtype", type(x)) for x in inputs), None))[-1]


class Booked:
    """One way to compute a convolution, for outlines: the result has its shape, and the workspace is booked."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def correlate(self, x: Outline, w: Any, g: Windows, b: Any = None, relu: bool = False, u: Any = None) -> Outline:
        y = x.library.empty((len(x), len(w), *g.out_size((x.shape[2], x.shape[3]))), x.dtype)
        return self.book("correlate", y, w, g, x.shape)

    def spread(self, gy: Outline, w: Any, g: Windows, size: Pair) -> Outline:
        gx = gy.library.empty((len(gy), w.shape[1] * g.groups, *size), gy.dtype)
        return self.book("spread", gx, w, g, gx.shape)

    def weigh(self, x: Outline, gy: Outline, g: Windows) -> Outline:
        gw = x.library.empty((gy.shape[1], x.shape[1] // g.groups, *g.kernel), x.dtype)
        return self.book("weigh", gw, gw, g, x.shape)

    def book(self, product: str, y: Outline, w: Any, g: Windows, images: tuple[int, ...]) -> Outline:
        n, _, *size = images
        workspace = self.kernel.workspace(product, y.library.kept(w.shape, w.dtype), g, images)
        y.library.multiply_adds += n * math.prod(g.out_size((size[0], size[1]))) * w.size
        y.library.take(workspace)
        y.library.give(workspace)
        return y


class Ledger(Library):
    """The books of one computation, and the array library that its outlines call: `xp_of(outline)` is their ledger."""

    WAYS: ClassVar[dict[str, Booked]] = {way: Booked(kernel) for way, kernel in WAYS.items()}

    def __init__(self, *, device: str = "cpu") -> None:
        self.device, self.finite = device, device == "cpu"
        self.live = self.peak = self.multiply_adds = 0
        if device == "gpu":
            self.RawKernel = lambda *_, **__: lambda *_: None  # what a kernel takes and makes is booked by its arrays

    def take(self, amount: int) -> None:
        """Book bytes that are taken."""
        self.live += amount
        self.peak = max(self.peak, self.live)

    def give(self, amount: int) -> None:
        """Book bytes that are given back."""
        self.live -= amount

    def restart(self) -> int:
        """Forget the peak; return the present level, against which the next one counts."""
        self.peak = self.live
        return self.live

    def empty(self, shape: Any, dtype: Any = "float64") -> Outline:
        return Outline(shape, dtype, self)

    def made(self, kind: str, shape: Any, dtype: Any, *read: Any) -> Outline:
        return self.empty(shape, dtype).on(*read)

    def kept(self, shape: Any, dtype: Any) -> Outline:
        """Return an array that was in memory before, and so does not count."""
        self.give(math.prod(shape) * np.dtype(dtype).itemsize)
        y = self.empty(shape, dtype)
        y.dropped.detach()
        return y

    def take_along_axis(self, x: Outline, index: Any, axis: int) -> Outline:
        return self.empty(index.shape, x.dtype)

    def ascontiguousarray(self, x: Outline) -> Outline:
        return x


class Outline(Numberless):
    """An array that is booked. A view (`base`) takes no memory, and keeps alive what it looks at.

    `grid` says where its last two axes lie in the image, and follows the arrays it was made of.
    """

    def __init__(self, shape: Any, dtype: Any, ledger: Ledger, *, base: Outline | None = None) -> None:
        super().__init__(np.broadcast_to(np.zeros((), dtype), shape), ledger)  # a real array with one number's memory
        self.base = base
        self.grid: Grid | None = None if base is None else base.grid
        if base is None:
            ledger.take(self.nbytes)
            self.dropped = weakref.finalize(self, ledger.give, self.nbytes)
            self.dropped.atexit = False

    def on(self, *arrays: Any) -> Outline:
        """Lay this on the grid of the arrays it came from: the one with the widest field, where branches join."""
        grids = [array.grid for array in arrays if getattr(array, "grid", None) is not None]
        self.grid = max(grids, key=lambda grid: grid.field, default=self.grid)
        return self

    def seen(self, layout: np.ndarray) -> Outline:
        return Outline(layout.shape, layout.dtype, self.library, base=self)

    def view(self, dtype: Any) -> Outline:
        """Return this array, its bytes read as another dtype of that size."""
        return self.seen(self.layout.view(dtype))

    def reshape(self, *shape: Any) -> Outline:
        return self.seen(self.layout.reshape(*shape))

    def astype(self, dtype: Any) -> Outline:
        return self.library.made("astype", self.shape, dtype, self)

    def __getitem__(self, index: Any) -> Outline:
        if isinstance(index, Outline):
            return self.library.empty(index.shape, self.dtype)
        view = self.seen(self.layout[index])
        if self.grid is not None and view.ndim == self.ndim:
            view.grid = self.grid.cropped(first(index))
        return view

    def __setitem__(self, index: Any, value: Any) -> None:
        if self.grid is None and getattr(value, "grid", None) is not None:
            self.grid = value.grid.cropped(-first(index))

    def sum(self, axis: Any = None, keepdims: bool = False) -> Outline:
        return self.library.empty(self.reduced_shape(axis, keepdims), self.dtype)

    mean = var = max = min = sum

    def argmax(self, axis: int) -> Outline:
        return self.sum(axis=axis).astype("int64")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        if method != "__call__":
            return NotImplemented
        shapes = [shape_of(x) for x in inputs]
        if ufunc is np.matmul:
            a, b = shapes
            shape = (*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])
            self.library.multiply_adds += math.prod(shape) * a[-1]
        else:
            shape = np.broadcast_shapes(*shapes)
        if out is not None:
            return out[0].on(*inputs)
        return self.library.made(ufunc.__name__, shape, dtype_made(ufunc, inputs), *inputs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if not hasattr(Ledger, function.__name__):
            return NotImplemented
        return getattr(self.library, function.__name__)(*args, **kwargs)


def first(index: Any) -> int:
    """Return the first row that an index like `[:, :, 5:9, 5:9]` or `[..., 5:9, 5:9]` keeps."""
    row = index[-2] if isinstance(index, tuple) and len(index) > 1 else None
    return (row.start or 0) if isinstance(row, slice) else 0
