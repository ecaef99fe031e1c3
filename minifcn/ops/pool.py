"""Max and average pooling, with Caffe's ceil mode.

The last window may hang over the edge (`ceil_mode=True`, as in Caffe: every size in the paper depends on it). Both ops
walk the same lists of kernel taps; a pixel that several windows saw receives the sum of their gradients.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

from minifcn.backend import Array, finite, xp_of
from minifcn.errors import ShapeError
from minifcn.geometry import Layer
from minifcn.kernels import fused
from minifcn.kernels.im2col import Pair, Seen, seen
from minifcn.kernels.planes import by_planes, gate, gated
from minifcn.ops.checks import Size, images, windows
from minifcn.tensor import ValueAndGradients, op


def sees_nothing(layer: Layer, size: int, out: int) -> bool:
    """Return whether one of the `out` windows has all its cells in the padding. (No window starts beyond the image.)"""
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
        below, beside = ((span - 1) // s for span, s in zip(g.span, g.stride, strict=True))
        self.pitch: Pair = (self.out[0] + below, self.out[1] + beside)

    def seen(self) -> list[list[Seen]]:
        """For the rows and the columns of the kernel: what each sees of the image."""
        g = self.windows
        axes = zip(g.kernel, g.dilation, g.padding, self.out, self.size, g.stride, strict=True)
        return [seen(k, d, -p, out, n, s) for k, d, p, out, n, s in axes]

    def grid(self, y: Array, fill: float) -> Array:
        """Return y (N, C, H', W') with a number for each place of `phases`, `fill` where no window starts."""
        return self.flat(within(y, (..., slice(self.out[0]), slice(self.out[1])), self.pitch, fill))

    def flat(self, x: Array) -> Array:
        """Return x as one line, along which taps are steps; if windows share no pixels there are none, and x stays."""
        return x if self.pitch == self.out else x.reshape(-1)

    def phases(self) -> dict[Pair, tuple[Any, Any]]:
        """Cut the image into phases: every `stride`-th row and column, from each of the first on.

        What a tap sees from all windows then lies close together in one phase, and what the tap `stride` further sees
        is the same, one place along. Return the places of each phase (N, C, *pitch) that are pixels of the image, and
        which pixels those are.
        """
        g = self.windows
        axes = zip(g.stride, g.padding, self.pitch, self.size, strict=True)
        down, across = ([(at, seen(1, 1, at - p, n, size, s)) for at in range(s)] for s, p, n, size in axes)
        return {
            (i, j): ((..., row.windows, col.windows), (..., row.pixels, col.pixels))
            for (i, rows), (j, cols) in itertools.product(down, across)
            for row, col in itertools.product(rows, cols)
        }

    def steps(self) -> list[tuple[Pair, int]]:
        """For each tap, the phase that it sees, and how many places along."""
        (kh, kw), (sh, sw), (dh, dw) = self.windows.kernel, self.windows.stride, self.windows.dilation
        taps = itertools.product(range(0, kh * dh, dh), range(0, kw * dw, dw))
        return [((i % sh, j % sw), i // sh * self.pitch[1] + j // sw) for i, j in taps]

    def covers(self) -> bool:
        """Return whether each pixel of the image lies in a phase."""
        axes = zip(self.size, self.pitch, self.windows.stride, self.windows.padding, strict=True)
        return all(pitch * s >= n + p for n, pitch, s, p in axes)

    def cells(self, x: Array) -> Array:
        """Return how many taps of each window lie on the image or its padding (H', W'), in the dtype of x."""
        g, counts = self.windows, [xp_of(x).zeros(n, dtype=x.dtype) for n in self.out]
        axes = zip(counts, g.kernel, g.dilation, self.out, self.size, g.padding, g.stride, strict=True)
        for count, k, d, out, n, p, s in axes:
            for tap in seen(k, d, 0, out, n + 2 * p, s):
                count[tap.windows] += 1
        return counts[0][:, None] * counts[1]

    def few(self) -> bool:
        """Return whether there are fewer windows than kernel positions, so that a loop over windows is shorter."""
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

    rows, cols = frame.seen()

    def forward(part):
        tall = xp.empty((*y[part].shape[:3], frame.size[1]), dtype=x.dtype)
        fold(xp.maximum, x[part], rows, 2, tall, -math.inf)  # down first: rows are quicker
        fold(xp.maximum, tall, cols, 3, y[part], -math.inf)

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
        gx, passed = xp.empty(x.shape, dtype=gy.dtype), gate(gy)
        steps, phases = frame.steps(), frame.phases()

        def backward(part):
            image, top = ranked(x[part], y[part])
            if not frame.covers():
                gx[part] = 0
            shape = (*image.shape[:2], *frame.pitch)
            images, backs, (*_, last) = {}, {}, range(len(steps))
            tops, gradients = frame.grid(top, math.nan), frame.grid(gy[part], 0)
            waiting = frame.grid(xp.ones(top.shape, dtype=bool), False)  # windows that have not met their maximum yet
            for step, (phase, further) in enumerate(steps):
                if phase not in images:
                    places, pixels = phases.get(phase, NOWHERE)
                    images[phase] = frame.flat(within(image[pixels], places, frame.pitch, math.nan))  # equal to nothing
                    back = gx[part][pixels]
                    if back.shape != tops.shape:
                        back = (xp.zeros if further else xp.empty)(tops.shape, dtype=gy.dtype)
                    backs[phase] = back
                from_ = slice(len(tops) - further)
                here = waiting[from_]
                if step != last:  # there, it is the maximum of all that still wait
                    here = images[phase][further:] == tops[from_]
                    here &= waiting[from_]
                    waiting[from_] ^= here
                if further:
                    backs[phase][further:] += passed(gradients[from_], here)
                else:
                    passed(gradients, here, backs[phase])
            for phase, (places, pixels) in phases.items():
                if phase not in backs:  # no tap sees it
                    gx[part][pixels] = 0
                elif backs[phase].shape != gx[part][pixels].shape:
                    gx[part][pixels] = backs[phase].reshape(shape)[places]

        by_planes(backward, x, copies=2)
        return gx

    return y, (grad_of_few if frame.few() else grad_x,)


NOWHERE = (..., slice(0), slice(0)), (..., slice(0), slice(0))


def within(x: Array, places: Any, size: Pair, fill: float) -> Array:
    """Return x (N, C, H, W) in its `places` of an array of `size` that is else full of `fill`; x itself if it fits."""
    if x.shape[2:] == size:
        return x
    whole = xp_of(x).full((*x.shape[:2], *size), fill, dtype=x.dtype)
    whole[places] = x
    return whole


def fold(combine: Callable[..., Array], x: Array, taps: list[Seen], axis: int, y: Array, least: float) -> None:
    """Combine what the taps of one axis of x (N, C, H, W) see, for each window, in y; `least` is no pixel at all."""
    before = (slice(None),) * axis
    if taps[0].windows == slice(0, y.shape[axis]):
        y[...], taps = x[*before, taps[0].pixels], taps[1:]
    else:  # the first tap sees no pixel from some window
        y[...] = least
    for tap in taps:
        to = y[*before, tap.windows]
        combine(to, x[*before, tap.pixels], out=to)


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
    xp, (rows, cols), x_shape = xp_of(x), frame.seen(), x.shape
    tall = xp.empty((*x.shape[:2], frame.out[0], x.shape[3]), dtype=x.dtype)
    y = xp.empty((*x.shape[:2], *frame.out), dtype=x.dtype)
    fold(xp.add, x, rows, 2, tall, 0)
    fold(xp.add, tall, cols, 3, y, 0)
    count = frame.cells(x)

    def grad_x(gy):
        gx, share = xp.zeros(x_shape, dtype=gy.dtype), gy / count
        if frame.few():
            for i, j, (high, wide) in frame.each():
                gx[:, :, high, wide] += share[:, :, i : i + 1, j : j + 1]
        else:
            for down, across in itertools.product(rows, cols):
                gx[:, :, down.pixels, across.pixels] += share[:, :, down.windows, across.windows]
        return gx

    return y / count, (grad_x,)
