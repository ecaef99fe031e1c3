"""Count what a training step asks of a GPU: the kernels that are launched, and the bytes that they move.

Every array function is a kernel there, which Python launches in some microseconds whatever the kernel does. So a net of
small arrays waits for Python, and only a net of large ones for the memory and the products. Both can be counted on a
machine without a GPU: the very same program runs on arrays that have a shape, strides and no numbers.

    counted = launches(FCN8s(init="zero"), (500, 500))
    counted.count, counted.bytes            # of one step: forward, backward, update

The rules are CuPy's: an array function is one kernel that reads its inputs and writes its output; a view is none; a
product of more than two axes copies operands and results that are not contiguous, one of two axes only those that are
neither contiguous nor transposed; `item` and `get` wait for the GPU.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.introspect.describe import accumulate, channels, dtype_of, learning, seeing, watching
from minifcn.introspect.markup import text_table
from minifcn.introspect.outline import Library, Numberless, dtype_made, shape_of
from minifcn.nn import Module
from minifcn.optim import SGD, Optimizer

PACKAGE = Path(__file__).parents[1]
PLUMBING = ("tensor.py", "nn.py", "backend.py", "kernels/fused.py", "introspect/launches.py")


@dataclass(frozen=True)
class Launch:
    """One kernel: what it does, the file and function that ask for it, and the bytes that it reads and writes."""

    kind: str
    where: str
    read: int
    written: int


class Launches(Library):
    """The launches of one program, and the array library that its arrays call: `xp_of(array)` is their `Launches`."""

    device, finite = "gpu", False

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget what was counted."""
        self.entries: list[Launch] = []
        self.waits = self.uploads = self.multiply_adds = 0

    @property
    def count(self) -> int:
        """How many kernels were launched."""
        return len(self.entries)

    @property
    def bytes(self) -> int:
        """The bytes that they read and wrote."""
        return sum(launch.read + launch.written for launch in self.entries)

    def table(self) -> list[tuple[str, ...]]:
        """Return the cells of a table: a row for each function and kind of kernel, the most bytes first."""
        groups: dict[tuple[str, str], list[Launch]] = {}
        for launch in self.entries:
            groups.setdefault((launch.where, launch.kind), []).append(launch)
        rows = [(sum(one.read + one.written for one in group), key, len(group)) for key, group in groups.items()]
        cells = [(where, kind, f"{n:,}", gigabytes(total)) for total, (where, kind), n in sorted(rows, reverse=True)]
        return [("asked for by", "kernel", "launches", "moved"), *cells]

    def __str__(self) -> str:
        end = f"{self.count:,} launches, {gigabytes(self.bytes)} moved, waits for the GPU: {self.waits}"
        return "\n".join([*text_table(self.table(), left=2), "", end])

    def launch(self, kind: str, *read: Any, written: Any = ()) -> None:
        """Enter one kernel, unless it has nothing to do."""
        taken, made = ([x.nbytes for x in xs if isinstance(x, Strided)] for xs in (read, written))
        if any(made) or (any(taken) and not made):
            self.entries.append(Launch(kind, asked_by(), sum(taken), sum(made)))

    # ---- what a library of arrays has

    def empty(self, shape: Any, dtype: Any = "float64") -> Strided:
        return Strided(np.empty(shape, dtype), self)  # memory that is never touched is none

    kept = empty

    def zeros(self, shape: Any, dtype: Any = "float64") -> Strided:
        return self.filled(self.empty(shape, dtype))

    def arange(self, count: int) -> Strided:
        return self.zeros(count, "int64")

    def eye(self, count: int, dtype: Any = "float64") -> Strided:
        return self.zeros((count, count), dtype)

    def filled(self, x: Strided) -> Strided:
        self.launch("fill", written=[x])
        return x

    def made(self, kind: str, shape: Any, dtype: Any, *read: Any) -> Strided:
        """Return an array that one kernel computes from others."""
        y = self.empty(shape, dtype)
        self.launch(kind, *read, written=[y])
        return y

    def asarray(self, x: Any, dtype: Any = None) -> Strided:
        if isinstance(x, Strided):
            return x
        self.uploads += 1
        return self.empty(np.shape(x), dtype or np.asarray(x).dtype)

    def ascontiguousarray(self, x: Strided) -> Strided:
        return x if x.flags.c_contiguous else x.copy()

    def pad(self, x: Strided, widths: Any) -> Strided:
        y = self.zeros([n + before + after for n, (before, after) in zip(x.shape, widths, strict=True)], x.dtype)
        y[tuple(slice(before, before + n) for n, (before, _) in zip(x.shape, widths, strict=True))] = x
        return y

    def take_along_axis(self, x: Strided, index: Strided, axis: int) -> Strided:
        for n in index.shape:  # CuPy makes the indices of all axes, and adds them up
            self.arange(n)
            self.made("index", index.shape, "int64", index)
        return self.made("gather", index.shape, x.dtype, index)

    def matmul(self, a: Strided, b: Strided, out: Strided | None = None) -> Strided:
        flat = a.ndim == b.ndim == 2
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        dtype = np.result_type(a.dtype, b.dtype)
        y = self.empty((*lead, a.shape[-2], b.shape[-1]), dtype) if out is None else out
        for x in (a, b):
            if not (x.flags.c_contiguous or (flat and x.flags.f_contiguous)):
                self.launch("operand", x, written=[x])
            if x.shape[:-2] != lead:
                self.launch("pointers", x)
        self.multiply_adds += y.size * a.shape[-1]
        self.launch("product", a, b, written=[y])
        if not y.flags.c_contiguous:
            self.launch("result", y, written=[y])
        return y

    def RawKernel(self, code: str, name: str, options: tuple[str, ...] = ()) -> Callable[..., None]:
        """Return a kernel of `kernels/fused.py` that does nothing: by its signature, `const` is read, OUT written."""
        (signature,) = re.findall(rf"\b{name}\(([^)]*)\)", code)
        pointers = [part.strip() for part in signature.split(",")]

        def launch(grid: Any, block: Any, arguments: tuple[Any, ...]) -> None:
            both = list(zip(pointers, arguments, strict=True))
            read = [x for text, x in both if not text.startswith("OUT")]
            self.launch(name, *read, written=[x for text, x in both if not text.startswith("const")])

        return launch


class Strided(Numberless):
    """An array whose strides count: what is not contiguous is copied where the GPU copies it."""

    KNOWN = (*Numberless.KNOWN, "strides", "flags")

    @property
    def base(self) -> Any:
        """The array that a view looks at."""
        return self.layout.base

    def seen(self, layout: np.ndarray) -> Strided:
        return Strided(layout, self.library)

    def reshape(self, *shape: Any) -> Strided:
        try:
            return self.seen(self.layout.reshape(*shape, copy=False))
        except ValueError:
            return self.seen(self.copy().layout.reshape(*shape))

    def copy(self) -> Strided:
        return self.library.made("copy", self.shape, self.dtype, self)

    def astype(self, dtype: Any, copy: bool = True) -> Strided:
        return self.library.made("astype", self.shape, dtype, self) if copy or dtype != self.dtype else self

    def get(self) -> np.ndarray:
        self.library.waits += 1
        return np.zeros(self.shape, self.dtype)

    def item(self) -> float:
        self.library.waits += 1
        return 0.5

    def __getitem__(self, index: Any) -> Strided:
        parts = index if isinstance(index, tuple) else (index,)
        gathers = [part for part in parts if isinstance(part, Strided)]
        if not gathers:
            return self.seen(self.layout[index])
        if any(part.dtype == bool for part in gathers):
            raise TypeError("how many numbers a mask takes is not known without numbers, and CuPy waits for it")
        places = tuple(np.zeros(part.shape, part.dtype) if isinstance(part, Strided) else part for part in parts)
        return self.library.made("gather", self.layout[places].shape, self.dtype, *gathers)

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, Strided) and index.dtype == bool:
            self.library.launch("masked", index, value, written=[self])
            return
        there = self[index]
        if not isinstance(value, Strided):
            self.library.filled(there)
        elif not same_place(there.layout, value.layout):  # a[i] += b writes in place, and then a[i] to itself
            self.library.launch("copy", value, written=[there])

    def reduced(self, axis: Any, keepdims: bool, dtype: Any = None) -> Strided:
        return self.library.made("reduction", self.reduced_shape(axis, keepdims), dtype or self.dtype, self)

    def sum(self, axis: Any = None, keepdims: bool = False) -> Strided:
        return self.reduced(axis, keepdims, np.empty(0, self.dtype).sum().dtype)

    def max(self, axis: Any = None, keepdims: bool = False) -> Strided:
        return self.reduced(axis, keepdims)

    min = mean = max

    def var(self, axis: Any = None) -> Strided:
        self.reduced(axis, False)
        return self.reduced(axis, False)

    def argmax(self, axis: Any = None) -> Strided:
        return self.reduced(axis, False, "int64")

    def __array_function__(self, function: Any, *_: Any) -> Any:
        raise TypeError(f"{function.__name__} is not counted yet: give it a line in introspect/launches.py")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        if ufunc is np.matmul:
            a, b = inputs
            return self.library.matmul(a, b, None if out is None else out[0])
        if method == "at":
            self.library.launch("scatter", inputs[-1], written=[inputs[-1]])
            return None
        if method != "__call__":
            return NotImplemented
        shape = np.broadcast_shapes(*map(shape_of, inputs))
        y = self.library.empty(shape, dtype_made(ufunc, inputs)) if out is None else out[0]
        self.library.launch(ufunc.__name__, *inputs, written=[y])
        return y


def same_place(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether both are one array."""
    starts = [x.__array_interface__["data"][0] for x in (a, b)]
    return starts[0] == starts[1] and (a.shape, a.strides) == (b.shape, b.strides)


def asked_by() -> str:
    """Return the file and function of the library that asks for a kernel, whatever carries the question."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(PACKAGE) and (name := file.relative_to(PACKAGE).as_posix()) not in PLUMBING:
            return f"{name} {frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


def launches(
    net: Module, size: tuple[int, int], *, batch: int = 1, optimizer: Callable[..., Optimizer] = SGD
) -> Launches:
    """Return what one training step of `net` launches on a GPU, for images of `size` that are there already.

    It is the second step: the first also fills the optimizer's arrays. Nothing is computed, and the net is left as it
    was. Raises what `describe` raises.
    """
    library, kept = Launches(), [(p, p.data) for p in net.parameters()]
    images = [library.empty((batch, channels(part), *size), dtype_of(part)) for part in seeing(net)]
    rule = optimizer(net, lr=0.1)
    with learning(net), watching(net, [], min(size)):
        try:
            for parameter, data in kept:
                parameter.data = library.empty(data.shape, data.dtype)
            for _ in range(2):
                library.clear()
                accumulate(net, images).item()
                rule.step()
        finally:
            for parameter, data in kept:
                parameter.data = data
    return library


def gigabytes(number: int) -> str:
    """Return bytes as GB."""
    return f"{number / 1e9:.3f} GB"
