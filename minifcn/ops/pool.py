"""Max and average pooling, with Caffe's ceil mode.

The last window may hang over the edge (`ceil_mode=True`, as in Caffe: every size in the paper depends on it). Both ops
walk the same list of kernel taps; a pixel that several windows saw receives the sum of their gradients.
"""

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from minifcn.backend import Array, finite, xp_of
from minifcn.errors import ShapeError
from minifcn.geometry import Layer
from minifcn.kernels.im2col import Pair, Seen, seen
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
        below, beside = ((span - 1) // s for span, s in zip(g.span, g.stride, strict=True))
        self.pitch: Pair = (self.out[0] + below, self.out[1] + beside)
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
        """Whether each pixel of the image lies in a phase."""
        axes = zip(self.size, self.pitch, self.windows.stride, self.windows.padding, strict=True)
        return all(pitch * s >= n + p for n, pitch, s, p in axes)

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
    xp = xp_of(x)
    y = xp.empty((*x.shape[:2], *frame.out), dtype=x.dtype)

    rows, cols = frame.seen()

    def forward(part):
        tall = xp.empty((*y[part].shape[:3], frame.size[1]), dtype=x.dtype)
        largest(x[part], rows, 2, tall)  # down first: rows are quicker
        largest(tall, cols, 3, y[part])

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

        by_planes(backward, x)
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


def largest(x: Array, taps: list[Seen], axis: int, y: Array) -> None:
    """Write into y, for each window along `axis`, the largest pixel of x (N, C, H, W) that one of the taps sees."""
    xp, before = xp_of(x), (slice(None),) * axis
    first, *rest = sorted(taps, key=lambda tap: tap.windows.start - tap.windows.stop)
    if first.windows == slice(0, y.shape[axis]):
        y[...] = x[*before, first.pixels]
    else:  # no tap sees a pixel from every window
        y[...], rest = -math.inf, taps
    for tap in rest:
        to = y[*before, tap.windows]
        xp.maximum(to, x[*before, tap.pixels], out=to)


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
