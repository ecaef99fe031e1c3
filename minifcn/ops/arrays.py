"""Rearrange, pad, crop and sum arrays; each gradient puts the values back in place."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from minifcn.backend import Array, xp_of
from minifcn.errors import ShapeError
from minifcn.ops.arithmetic import total
from minifcn.ops.checks import pair, whole
from minifcn.tensor import Axes, Gradient, ValueAndGradients, op


def spread_over(gy: Array, shape: tuple[int, ...], axis: Axes, keepdims: bool) -> Array:
    """Give the gradient of a sum to everything that was summed."""
    if axis is not None and not keepdims:
        gy = xp_of(gy).expand_dims(gy, axis)
    return xp_of(gy).broadcast_to(gy, shape)


@op
def sum(x: Array, *, axis: Axes = None, keepdims: bool = False) -> ValueAndGradients:
    """The sum over `axis` (all axes by default)."""
    x_shape = x.shape

    def grad_x(gy):
        return spread_over(gy, x_shape, axis, keepdims)

    return total(x, axis, keepdims=keepdims), (grad_x,)


@op
def mean(x: Array, *, axis: Axes = None, keepdims: bool = False) -> ValueAndGradients:
    """The mean over `axis` (all axes by default)."""
    x_shape, y = x.shape, total(x, axis, keepdims=keepdims)
    count = x.size // (y.size or 1)

    def grad_x(gy):
        return spread_over(gy / count, x_shape, axis, keepdims)

    return y / count, (grad_x,)


def extreme(x: Array, y: Array, axis: Axes, keepdims: bool) -> tuple[Array, tuple[Gradient]]:
    """Return the largest or smallest numbers y over `axis`, kept in `y`, and their gradient: equal ones share it."""
    chosen, result = x == y, y if keepdims else y.squeeze(tuple(range(x.ndim)) if axis is None else axis)
    count = chosen.sum(axis=axis, keepdims=True).astype(x.dtype)

    def grad_x(gy):
        return xp_of(gy).where(chosen, gy.reshape(y.shape) / count, 0)

    return result, (grad_x,)


@op
def max(x: Array, *, axis: Axes = None, keepdims: bool = False) -> ValueAndGradients:
    """Return the largest number over `axis` (all axes by default); equal largest ones share the gradient."""
    return extreme(x, x.max(axis=axis, keepdims=True), axis, keepdims)


@op
def min(x: Array, *, axis: Axes = None, keepdims: bool = False) -> ValueAndGradients:
    """Return the smallest number over `axis` (all axes by default); equal smallest ones share the gradient."""
    return extreme(x, x.min(axis=axis, keepdims=True), axis, keepdims)


@op
def getitem(x: Array, *, index: Any) -> ValueAndGradients:
    """Return x[index] as NumPy reads it: numbers, slices, None, `...`, arrays of whole numbers or of bool.

    What was not taken gets the gradient 0; what was taken twice, the sum of both.
    """
    x_shape, y = x.shape, x[index]

    def grad_x(gy):
        xp = xp_of(gy)
        gx = xp.zeros(x_shape, dtype=gy.dtype)
        xp.add.at(gx, index, gy)
        return gx

    return y, (grad_x,)


@op
def reshape(x: Array, *, shape: Sequence[int]) -> ValueAndGradients:
    """The same numbers in row-major order under another shape; one entry may be -1."""
    x_shape, known = x.shape, math.prod(n for n in shape if n != -1)
    if x.size != known and (tuple(shape).count(-1) != 1 or known < 1 or x.size % known):
        raise ShapeError(f"reshape: {x.size} numbers of shape {x_shape} cannot take the shape {tuple(shape)}")

    def grad_x(gy):
        return gy.reshape(x_shape)

    return x.reshape(tuple(shape)), (grad_x,)


@op
def transpose(x: Array, *, axes: Sequence[int] | None = None) -> ValueAndGradients:
    """Axes in another order (reversed by default): y's axis i is x's axis `axes[i]`."""
    order = tuple(range(x.ndim))[::-1] if axes is None else tuple(axes)
    if sorted(order) != list(range(x.ndim)):
        raise ShapeError(f"transpose: axes {order} do not name each of the {x.ndim} axes of {x.shape} once")
    back = tuple(order.index(i) for i in range(x.ndim))

    def grad_x(gy):
        return gy.transpose(back)

    return x.transpose(order), (grad_x,)


@op
def concat(*xs: Array, axis: int = 1) -> ValueAndGradients:
    """The inputs one after another along `axis` (channels by default)."""
    shapes = [x.shape for x in xs]
    fewest = len(sorted(shapes, key=len)[0]) if xs else 0
    if not whole(axis, least=-fewest) or axis >= fewest:
        raise ShapeError(f"concat: axis is {axis!r}; expected one of the axes of each of the shapes {shapes}")
    if not xs or any(s[:axis] + s[axis:][1:] != shapes[0][:axis] + shapes[0][axis:][1:] for s in shapes):
        raise ShapeError(f"concat: shapes {shapes} must be equal but for axis {axis}")
    if any(x.dtype != xs[0].dtype for x in xs):
        raise ShapeError(f"concat: dtypes {[str(x.dtype) for x in xs]} differ; give all the same, with .astype")

    starts = list(accumulate((s[axis] for s in shapes), initial=0))

    def gradient_of(i):
        def grad_x(gy):
            part = [slice(None)] * gy.ndim
            part[axis] = slice(starts[i], starts[i + 1])
            return gy[tuple(part)]

        return grad_x

    return xp_of(*xs).concatenate(xs, axis=axis), tuple(gradient_of(i) for i in range(len(xs)))


@op
def stack(*xs: Array, axis: int = 0) -> ValueAndGradients:
    """Return the inputs, equal in shape and dtype, along a new axis."""
    shapes, dtypes = [x.shape for x in xs], [str(x.dtype) for x in xs]
    if len(set(shapes)) != 1 or len(set(dtypes)) != 1:
        raise ShapeError(f"stack: shapes {shapes} and dtypes {dtypes} must each be equal, of one input at least")

    def gradient_of(i):
        def grad_x(gy):
            return xp_of(gy).moveaxis(gy, axis, 0)[i]

        return grad_x

    return xp_of(*xs).stack(xs, axis=axis), tuple(gradient_of(i) for i in range(len(xs)))


@op
def pad(x: Array, *, padding: int | Sequence[int], value: float = 0.0) -> ValueAndGradients:
    """Put `value` around the last two axes: `padding` is one width, or (top, bottom, left, right)."""
    widths = list(padding) if isinstance(padding, (tuple, list)) else [padding] * 4
    if len(widths) != 4 or not all(whole(width, least=0) for width in widths):
        raise ShapeError(f"pad: padding is {padding!r}; expected one or (top, bottom, left, right), at least 0 each")
    top, bottom, left, right = widths
    h, w = x.shape[-2:]
    xp = xp_of(x)
    y = xp.full((*x.shape[:-2], top + h + bottom, left + w + right), value, dtype=x.dtype)
    y[..., top : top + h, left : left + w] = x

    def grad_x(gy):
        return gy[..., top : top + h, left : left + w]

    return y, (grad_x,)


@op
def crop(x: Array, *, like: Any, at: int | Sequence[int] = 0) -> ValueAndGradients:
    """Cut a window out of the last two axes: as large as `like` (a map, or (H, W)), starting at `at`.

    This is Caffe's crop: it is *not* centred. `Grid.offset` says where to start so that two maps lie on each other.
    A window that reaches beyond x raises `ShapeError`.
    """
    h, w = pair(like.shape[-2:] if hasattr(like, "shape") else like, op="crop", name="like", least=1)
    top, left = pair(at, op="crop", name="at", least=0)
    x_shape = x.shape
    if x.ndim < 2:
        raise ShapeError(f"crop: x has shape {x_shape}; expected at least two axes")
    if top + h > x_shape[-2] or left + w > x_shape[-1]:
        raise ShapeError(f"crop: a window of {h}x{w} at ({top}, {left}) does not fit into {x_shape[-2]}x{x_shape[-1]}")

    def grad_x(gy):
        if gy.shape == x_shape:
            return gy
        gx = xp_of(gy).zeros(x_shape, dtype=gy.dtype)  # what was cut away had no say in the loss
        gx[..., top : top + h, left : left + w] = gy
        return gx

    return x[..., top : top + h, left : left + w], (grad_x,)
