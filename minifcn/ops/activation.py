"""Activations: ReLU, sigmoid, tanh, dropout, softmax and its logarithm."""

from minifcn.backend import Array, xp_of
from minifcn.errors import ShapeError
from minifcn.kernels.planes import gated
from minifcn.tensor import ValueAndGradients, op


@op
def relu(x: Array) -> ValueAndGradients:
    """y = max(x, 0)."""
    y = xp_of(x).maximum(x, 0)

    def grad_x(gy):
        return gated(gy, ~(y <= 0))  # y, not x: the next layer remembers y anyway; NaN lets gy pass

    return y, (grad_x,)


@op
def sigmoid(x: Array) -> ValueAndGradients:
    """Return y = 1 / (1 + e^-x), element by element, to full precision also where it is close to 0."""
    xp = xp_of(x)
    y = xp.exp(-xp.logaddexp(xp.zeros_like(x), -x))

    def grad_x(gy):
        return gy * y * (1 - y)

    return y, (grad_x,)


@op
def tanh(x: Array) -> ValueAndGradients:
    """Return y = tanh x, element by element."""
    y = xp_of(x).tanh(x)

    def grad_x(gy):
        return gy * (1 - y * y)

    return y, (grad_x,)


@op
def dropout(x: Array, *, mask: Array) -> ValueAndGradients:
    """y = x * mask, element by element. `mask` is 0 with probability p and 1/(1-p) else: "inverted" dropout.

    The mask is drawn by `nn.Dropout`, on the host; it has x's shape and dtype.
    """
    if mask.shape != x.shape or mask.dtype != x.dtype:
        raise ShapeError(f"dropout: mask is {mask.dtype} {mask.shape}; expected it like x, {x.dtype} {x.shape}")

    def grad_x(gy):
        return gy * mask

    return x * mask, (grad_x,)


@op
def log_softmax(x: Array, *, axis: int = 1) -> ValueAndGradients:
    """y_c = x_c - ln sum_k e^{x_k} over `axis`, with the largest x subtracted first: finite for any finite x."""
    xp = xp_of(x)
    y = x - x.max(axis=axis, keepdims=True)
    y = y - xp.log(xp.exp(y).sum(axis=axis, keepdims=True))

    def grad_x(gy):
        return gy - xp.exp(y) * gy.sum(axis=axis, keepdims=True)

    return y, (grad_x,)


@op
def softmax(x: Array, *, axis: int = 1) -> ValueAndGradients:
    """Return y_c = e^{x_c} / sum_k e^{x_k} over `axis`: positive numbers with sum 1."""
    y = xp_of(x).exp(x - x.max(axis=axis, keepdims=True))
    y = y / y.sum(axis=axis, keepdims=True)

    def grad_x(gy):
        return y * (gy - (gy * y).sum(axis=axis, keepdims=True))

    return y, (grad_x,)
