"""Max and average pooling, with Caffe's ceil mode.

The last window may hang over the edge (`ceil_mode=True`, as in Caffe: every size in the paper depends on it). Both ops
walk the same list of kernel taps; a pixel that several windows saw receives the sum of their gradients.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import replace

from minifcn.backend import Array, finite, xp_of
from minifcn.errors import ShapeError
from minifcn.geometry import Layer
from minifcn.kernels import fused
from minifcn.kernels.im2col import Pair
from minifcn.kernels.planes import by_planes, gate, gated
from minifcn.ops.checks import Size, images, windows
from minifcn.tensor import ValueAndGradients, op


def sees_nothing(layer: Layer, size: int, out: int) -> bool:
    """Whether one of the `out` windows has all its cells in the padding. (No window starts beyond the image.)"""
    starts = range(-layer.padding, min(0, out * layer.stride - layer.padding), layer.stride)
    cells = range(0, layer.extent, layer.dilation)
    return any(all(not 0 <= start + cell < size for cell in cells) for start in starts)


class Frame:
    """The padded image that a pooling looks at, and its windows."""

    def __init__(
        self,
        x: Array,
        kernel_size: Size,
        stride: Size | None,
        padding: Size,
        dilation: Size,
        ceil_mode: bool,
        *,
        op: str,
    ) -> None:
        images(x, op=op)
        stride = kernel_size if stride is None else stride
        g = self.windows = windows(kernel_size, op=op, stride=stride, padding=padding, dilation=dilation)
        axes = zip(g.kernel, g.stride, g.padding, g.dilation, strict=True)
        layers = [Layer(*axis, ceil=ceil_mode) for axis in axes]
        self.size: Pair = x.shape[2:]
        self.out: Pair = (layers[0].out_size(self.size[0]), layers[1].out_size(self.size[1]))
        if any(sees_nothing(layer, n, out) for layer, n, out in zip(layers, self.size, self.out, strict=True)):
            window = f"a window of kernel {g.kernel} and dilation {g.dilation}"
            raise ShapeError(f"{op}: padding {g.padding} leaves {window} without a pixel of {self.size}; use less")
        reach = [(n - 1) * s + span for n, s, span in zip(self.out, g.stride, g.span, strict=True)]
        self.padded = tuple(max(r, n + 2 * p) for r, n, p in zip(reach, self.size, g.padding, strict=True))
        self.inside = tuple(slice(p, p + n) for p, n in zip(g.padding, self.size, strict=True))

    def pad(self, x: Array, value: float) -> Array:
        """`x` within a border of `value`, as wide as the windows reach."""
        if self.padded == self.size:
            return x
        y = xp_of(x).full((*x.shape[:2], *self.padded), value, dtype=x.dtype)
        y[:, :, *self.inside] = x
        return y

    def taps(self) -> Iterator[tuple[slice, slice]]:
        """For each kernel position, the padded image's rows and columns under it, one per window."""
        return (region for _, region in self.windows.taps(self.out))

    def lines(self) -> tuple[Iterator[tuple[slice, slice]], Iterator[tuple[slice, slice]]]:
        """The taps of the first column of the kernel, and those of its first row."""
        (kh, kw), (rows, cols) = self.windows.kernel, self.out
        down, across = replace(self.windows, kernel=(kh, 1)), replace(self.windows, kernel=(1, kw))
        return (tap for _, tap in down.taps((rows, cols))), (tap for _, tap in across.taps((rows, cols)))

    def covers(self) -> bool:
        """Whether each pixel of the padded image lies under one of the first `stride` taps of a window, each way."""
        g = self.windows
        axes = zip(self.padded, self.out, g.kernel, g.stride, g.dilation, strict=True)
        return all(d == 1 and k >= s and n * s >= p for p, n, k, s, d in axes)

    def few(self) -> bool:
        """Whether there are fewer windows than kernel positions, so that a loop over windows is shorter."""
        return math.prod(self.out) < math.prod(self.windows.kernel)

    def each(self) -> Iterator[tuple[int, int, tuple[slice, slice]]]:
        """Row and column of each window's result, and the pixels of the image (without padding) that it sees."""
        g = self.windows
        seen = [
            [slice(max(at, at % dilation), min(at + extent, n), dilation) for at in range(-p, out * s - p, s)]
            for n, out, s, p, dilation, extent in zip(
                self.size, self.out, g.stride, g.padding, g.dilation, g.span, strict=True
            )
        ]
        return ((i, j, (rows, cols)) for i, rows in enumerate(seen[0]) for j, cols in enumerate(seen[1]))


@op
def max_pool2d(
    x: Array,
    *,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> ValueAndGradients:
    """y[n,c,i,j] = max over the window at (i*s - p, j*s - p) of x[n,c]; `stride` defaults to the kernel.

    x (N, C, H, W) -> (N, C, H', W'), H' = floor or ceil((H + 2p - d(k-1) - 1)/s) + 1. With `ceil_mode`, a last window
    that would start in the padding is dropped, and a window larger than the image is one clipped window (Caffe's rule).
    Of equal values the first one (row by row) is the maximum, and gets the gradient. Errors: `ShapeError`.
    """
    frame = Frame(x, kernel_size, stride, padding, dilation, ceil_mode, op="max_pool2d")
    if fused.serves(x):
        y = fused.pooled(x, frame.windows, frame.out)

        def grad_of_fused(gy):
            return fused.unpooled(gy, x, y, frame.windows)

        return y, (grad_of_fused,)
    xp = xp_of(x)
    y = xp.empty((*x.shape[:2], *frame.out), dtype=x.dtype)

    def forward(part):
        padded = frame.pad(x[part], -math.inf)
        rows, cols = ([tap[axis] for tap in taps] for axis, taps in enumerate(frame.lines()))
        tall = functools.reduce(xp.maximum, [padded[:, :, down] for down in rows])  # down first: rows are quicker
        y[part] = functools.reduce(xp.maximum, [tall[..., across] for across in cols])

    by_planes(forward, x)

    def grad_of_few(gy):
        gx = xp.zeros(x.shape, dtype=gy.dtype)
        for i, j, (rows, cols) in frame.each():
            window, here = x[:, :, rows, cols], gx[:, :, rows, cols]
            first = window.reshape(*x.shape[:2], -1).argmax(axis=2)
            places = xp.arange(window.shape[2] * window.shape[3]).reshape(window.shape[2:])
            here += gated(gy[:, :, i : i + 1, j : j + 1], places == first[..., None, None])
        return gx

    def grad_x(gy):
        gx, taps = xp.empty(x.shape, dtype=gy.dtype), list(frame.taps())
        (sh, sw), passed = frame.windows.stride, gate(gy)

        def backward(part):
            image, top = ranked(x[part], y[part])
            padded = frame.pad(image, math.nan)  # which equals nothing: the padding gets no gradient
            back = gx[part] if padded is image else xp.empty(padded.shape, dtype=gy.dtype)
            if not frame.covers():
                back[...] = 0
            waiting = xp.ones(top.shape, dtype=bool)  # windows that have not met their maximum yet
            for rows, cols in taps:
                here = padded[:, :, rows, cols] == top
                here &= waiting
                waiting ^= here
                if rows.start < sh and cols.start < sw:  # the first tap to see these pixels
                    passed(gy[part], here, back[:, :, rows, cols])
                else:
                    back[:, :, rows, cols] += passed(gy[part], here)
            if padded is not image:
                gx[part] = back[:, :, *frame.inside]

        by_planes(backward, x)
        return gx

    return y, (grad_of_few if frame.few() else grad_x,)


def ranked(x: Array, y: Array) -> tuple[Array, Array]:
    """Return both with NaN as the largest number, as `maximum` has it, so that the maximum equals its pixel."""
    if finite(y):
        return x, y
    xp = xp_of(x)
    x, y = (xp.where(xp.isnan(z), math.inf, xp.minimum(z, float(xp.finfo(z.dtype).max))) for z in (x, y))
    return x, y


@op
def avg_pool2d(
    x: Array,
    *,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> ValueAndGradients:
    """y[n,c,i,j] = mean over the window at (i*s - p, j*s - p) of x[n,c]; options and sizes as in `max_pool2d`.

    Zeros of the padding count as pixels, what hangs over beyond the padding does not (Caffe's rule).
    """
    frame = Frame(x, kernel_size, stride, padding, dilation, ceil_mode, op="avg_pool2d")
    xp, padded = xp_of(x), frame.pad(x, 0.0)
    border = xp.zeros(frame.padded, dtype=x.dtype)
    border[tuple(slice(n + 2 * p) for n, p in zip(frame.size, frame.windows.padding, strict=True))] = 1
    y, count = (sum_of(array, frame) for array in (padded, border))
    shape = padded.shape

    def grad_x(gy):
        gx, share = xp.zeros(shape, dtype=gy.dtype), gy / count
        if frame.few():
            for i, j, (rows, cols) in frame.each():
                gx[:, :, *frame.inside][:, :, rows, cols] += share[:, :, i : i + 1, j : j + 1]
        else:
            for rows, cols in frame.taps():
                gx[:, :, rows, cols] += share
        return gx[:, :, *frame.inside]

    return y / count, (grad_x,)


def sum_of(padded: Array, frame: Frame) -> Array:
    """Return the sum over each window, down the columns first and then along the rows."""
    rows, cols = ([tap[axis] for tap in taps] for axis, taps in enumerate(frame.lines()))
    tall = functools.reduce(xp_of(padded).add, [padded[..., down, :] for down in rows])
    return functools.reduce(xp_of(padded).add, [tall[..., across] for across in cols])
