"""Elementwise arithmetic with broadcasting, and matrix products: the shortest ops.

Two inputs broadcast as in NumPy: y_i = x_i + w_0 for all i. An input that was repeated collects one gradient from every
place it was used, so its gradient is summed back to its own shape (`sum_to`).
"""

from typing import Any

from minifcn.backend import Array, xp_of
from minifcn.errors import ShapeError
from minifcn.kernels.planes import gated
from minifcn.tensor import Axes, ValueAndGradients, op

PIECE = 256
"""How many numbers are added one after another; the sums of such pieces are added next, and so on."""


def shape_of(x: Any) -> tuple[int, ...]:
    """Return the shape of an array; a number has none."""
    return getattr(x, "shape", ())  # a Python number has none, and stays a Python number: it never changes a dtype


def sum_to(gy: Array, shape: tuple[int, ...]) -> Array:
    """Return the adjoint of broadcasting: add up what was repeated."""
    if gy.shape == shape:
        return gy
    extra = gy.ndim - len(shape)
    repeated = tuple(range(extra)) + tuple(extra + i for i, n in enumerate(shape) if n == 1 != gy.shape[extra + i])
    return total(gy, repeated).reshape(shape)


def total(x: Array, axis: Axes, *, keepdims: bool = False) -> Array:
    """Return the sum over `axis`, in pieces of `PIECE` along the first one: in float32 errors grow with the piece.

    NumPy adds pairwise along the last axis alone; along any other the rounding of a million additions would pile up.
    """
    while axis != () and x.ndim > 1 and x.shape[0] > PIECE and (axis is None or 0 in axis_set(axis, x.ndim)):
        rest, whole = x.shape[0] % PIECE, x.shape[0] // PIECE * PIECE
        pieces = x[:whole].reshape(-1, PIECE, *x.shape[1:]).sum(axis=1)
        x = xp_of(x).concatenate([pieces, x[whole:].sum(axis=0, keepdims=True)]) if rest else pieces
    return x.sum(axis=axis, keepdims=keepdims)


def axis_set(axis: int | tuple[int, ...], ndim: int) -> set[int]:
    """Return the axes counted from the first."""
    return {a % ndim for a in (axis if isinstance(axis, tuple) else (axis,))}


def fit(a: tuple[int, ...], b: tuple[int, ...], *, op: str) -> None:
    """Refuse two shapes that do not broadcast."""
    if any(m != n and 1 not in (m, n) for m, n in zip(reversed(a), reversed(b), strict=False)):
        raise ShapeError(
            f"{op}: shapes {a} and {b} do not fit together; axes must be equal, or 1, counted from the last"
        )


def broadcast(x: Any, y: Any, *, op: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of both; refuse shapes that do not broadcast and arrays of different dtypes."""
    a, b = shape_of(x), shape_of(y)
    fit(a, b, op=op)
    if hasattr(x, "dtype") and hasattr(y, "dtype") and x.dtype != y.dtype:
        raise ShapeError(f"{op}: dtypes {x.dtype} and {y.dtype} differ; give both the same, with .astype")
    return a, b


@op
def neg(x: Array) -> ValueAndGradients:
    """y = -x."""

    def grad_x(gy):
        return -gy

    return -x, (grad_x,)


@op
def exp(x: Array) -> ValueAndGradients:
    """y = e^x, element by element."""
    y = xp_of(x).exp(x)

    def grad_x(gy):
        return gy * y  # the one function that is its own derivative

    return y, (grad_x,)


@op
def log(x: Array) -> ValueAndGradients:
    """y = ln x, element by element, for x > 0."""

    def grad_x(gy):
        return gy / x

    return xp_of(x).log(x), (grad_x,)


@op
def sqrt(x: Array) -> ValueAndGradients:
    """Return y = sqrt(x), element by element, for x >= 0; the slope at 0 is infinite."""
    y = xp_of(x).sqrt(x)

    def grad_x(gy):
        return gy / (2 * y)

    return y, (grad_x,)


@op
def abs(x: Array) -> ValueAndGradients:
    """Return y = |x|, element by element; the gradient at 0 is 0."""
    sign = xp_of(x).sign(x)

    def grad_x(gy):
        return gy * sign

    return x * sign, (grad_x,)


@op
def clip(x: Array, *, min: float | None = None, max: float | None = None) -> ValueAndGradients:
    """Return x with what lies below `min` or above `max` set to that bound, where no gradient passes."""
    passes = xp_of(x).ones(x.shape, dtype=bool)
    if min is not None:
        passes = passes & (x >= min)
    if max is not None:
        passes = passes & (x <= max)

    def grad_x(gy):
        return gated(gy, passes)

    # NumPy 2.0, which Pyodide 0.27 has, refuses to clip at no bound at all.
    return x if min is None and max is None else xp_of(x).clip(x, min, max), (grad_x,)


@op
def add(x: Array, y: Array) -> ValueAndGradients:
    """x + y, with broadcasting. Shapes that do not broadcast and unequal dtypes raise `ShapeError`."""
    x_shape, y_shape = broadcast(x, y, op="add")

    def grad_x(gy):
        return sum_to(gy, x_shape)

    def grad_y(gy):
        return sum_to(gy, y_shape)

    return x + y, (grad_x, grad_y)


@op
def sub(x: Array, y: Array) -> ValueAndGradients:
    """x - y, with broadcasting. Shapes that do not broadcast and unequal dtypes raise `ShapeError`."""
    x_shape, y_shape = broadcast(x, y, op="sub")

    def grad_x(gy):
        return sum_to(gy, x_shape)

    def grad_y(gy):
        return sum_to(-gy, y_shape)

    return x - y, (grad_x, grad_y)


@op
def mul(x: Array, y: Array) -> ValueAndGradients:
    """x * y, with broadcasting. Shapes that do not broadcast and unequal dtypes raise `ShapeError`."""
    x_shape, y_shape = broadcast(x, y, op="mul")

    def grad_x(gy):
        return sum_to(gy * y, x_shape)

    def grad_y(gy):
        return sum_to(gy * x, y_shape)

    return x * y, (grad_x, grad_y)


@op
def div(x: Array, y: Array) -> ValueAndGradients:
    """x / y, with broadcasting. Shapes that do not broadcast and unequal dtypes raise `ShapeError`."""
    x_shape, y_shape = broadcast(x, y, op="div")

    def grad_x(gy):
        return sum_to(gy / y, x_shape)

    def grad_y(gy):
        return sum_to(-gy * x / (y * y), y_shape)

    return x / y, (grad_x, grad_y)


@op
def power(x: Array, y: Array) -> ValueAndGradients:
    """Return x ** y, with broadcasting: d/dx = y x^(y-1) and d/dy = x^y ln x, and 0 where that is 0 times infinity.

    Either may be a Python number. Errors: `ShapeError`, as in `add`.
    """
    x_shape, y_shape = broadcast(x, y, op="power")
    z = x**y

    def grad_x(gy):
        return sum_to(gy * y * x ** (y - (y != 0)), x_shape)

    def grad_y(gy):
        base = x if hasattr(x, "dtype") else xp_of(gy).full((), x, dtype=gy.dtype)
        return sum_to(gy * z * xp_of(gy).log(base + (base == 0)), y_shape)  # where x is 0, ln 1 = 0 and x^y = 0

    return z, (grad_x, grad_y)


@op
def where(condition: Array, x: Array, y: Array) -> ValueAndGradients:
    """Return x where `condition` is not 0 and y elsewhere, all three broadcast; what was taken gets the gradient."""
    x_shape, y_shape = broadcast(x, y, op="where")
    for shape in (x_shape, y_shape):
        fit(shape_of(condition), shape, op="where")
    taken = condition != 0

    def grad_x(gy):
        return sum_to(gated(gy, taken), x_shape)

    def grad_y(gy):
        return sum_to(gated(gy, ~taken), y_shape)

    return xp_of(taken, x, y).where(taken, x, y), (None, grad_x, grad_y)


@op
def maximum(x: Array, y: Array) -> ValueAndGradients:
    """max(x, y) element by element, shapes equal: the fusion the paper tried and left (section 4.2, footnote 6).

    The gradient goes to the larger input alone (to `x` where they are equal): "gradient switching".
    """
    if shape_of(x) != shape_of(y):
        raise ShapeError(f"maximum: shapes {shape_of(x)} and {shape_of(y)} differ; both inputs must have the same")
    broadcast(x, y, op="maximum")
    from_x = x >= y

    def grad_x(gy):
        return gated(gy, from_x)

    def grad_y(gy):
        return gated(gy, ~from_x)

    return xp_of(x, y).maximum(x, y), (grad_x, grad_y)


@op
def matmul(x: Array, w: Array) -> ValueAndGradients:
    """y_ij = sum_k x_ik w_kj, over any leading axes (broadcast). Both need at least two axes."""
    if x.ndim < 2 or w.ndim < 2 or x.shape[-1] != w.shape[-2]:
        raise ShapeError(f"matmul: shapes {x.shape} and {w.shape} do not fit; expected (..., i, k) and (..., k, j)")
    broadcast(x[..., :1, :1], w[..., :1, :1], op="matmul")
    x_shape, w_shape = x.shape, w.shape

    def grad_x(gy):
        return sum_to(gy @ w.swapaxes(-1, -2), x_shape)

    def grad_w(gy):
        return sum_to(x.swapaxes(-1, -2) @ gy, w_shape)

    return x @ w, (grad_x, grad_w)
