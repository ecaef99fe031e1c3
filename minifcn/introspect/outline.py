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
from typing import Any, ClassVar

import numpy as np

from minifcn.geometry import Grid
from minifcn.kernels.convolution import WAYS
from minifcn.kernels.im2col import Pair, Windows


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


class Ledger:
    """The books of one computation, and the array library that its outlines call: `xp_of(outline)` is their ledger."""

    WAYS: ClassVar[dict[str, Booked]] = {way: Booked(kernel) for way, kernel in WAYS.items()}

    def __init__(self, *, device: str = "cpu") -> None:
        self.device, self.finite = device, device == "cpu"
        self.live = self.peak = self.multiply_adds = 0
        if device == "gpu":
            self.RawKernel = lambda *_, **__: lambda *_: None  # what a kernel takes and makes is booked by its arrays

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

    def kept(self, shape: Any, dtype: Any) -> Outline:
        """Return an array that was in memory before, and so does not count."""
        self.give(math.prod(shape) * np.dtype(dtype).itemsize)
        y = self.empty(shape, dtype)
        y.dropped.detach()
        return y

    def full(self, shape: Any, value: Any, dtype: Any = "float64") -> Outline:
        return self.empty(shape, dtype)

    def zeros_like(self, x: Outline) -> Outline:
        return self.empty(x.shape, x.dtype)

    ones_like = empty_like = zeros_like

    def clip(self, x: Any, low: Any, high: Any) -> Outline:
        return self.empty(x.shape, x.dtype).on(x)

    def where(self, condition: Any, x: Any, y: Any) -> Outline:
        shape = np.broadcast_shapes(*(shape_of(each) for each in (condition, x, y)))
        return self.empty(shape, np.result_type(*(getattr(each, "dtype", each) for each in (x, y))))

    def take_along_axis(self, x: Outline, index: Any, axis: int) -> Outline:
        return self.empty(index.shape, x.dtype)

    def ascontiguousarray(self, x: Outline) -> Outline:
        return x

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
        """Return a real array of this shape that fills one number's memory, to ask NumPy about indices."""
        return np.broadcast_to(np.zeros((), self.dtype), self.shape)

    def view(self, shape: Any) -> Outline:
        """Return a view of that shape, or of this shape in that dtype."""
        if isinstance(shape, str | np.dtype):
            return Outline(self.shape, shape, self.library, base=self)
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
        if isinstance(index, Outline):
            return self.library.empty(index.shape, self.dtype)
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

    mean = var = max = min = sum

    def argmax(self, axis: int) -> Outline:
        return self.sum(axis=axis).astype("int64")

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
    """Return the first row that an index like `[:, :, 5:9, 5:9]` or `[..., 5:9, 5:9]` keeps."""
    row = index[-2] if isinstance(index, tuple) and len(index) > 1 else None
    return (row.start or 0) if isinstance(row, slice) else 0


def product_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return (*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])
