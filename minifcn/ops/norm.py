"""Normalisation: of each channel over the batch, and across channels (AlexNet's and ParseNet's)."""

from typing import Any

from minifcn.backend import Array, xp_of
from minifcn.errors import ShapeError, whole
from minifcn.ops.checks import images
from minifcn.tensor import ValueAndGradients, op


def window_sum(x: Array, size: int) -> Array:
    """Return the sum over `size` neighbouring channels around each one; symmetric, so it is its own adjoint."""
    reach, channels = size // 2, x.shape[1]
    y = xp_of(x).zeros_like(x)
    for shift in range(-reach, reach + 1):
        low, high = max(0, -shift), min(channels, channels - shift)
        if low < high:
            y[:, low:high] += x[:, low + shift : high + shift]
    return y


@op
def local_response_norm(
    x: Array, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> ValueAndGradients:
    """y_c = x_c / s_c^beta with s_c = k + alpha/size * sum of x^2 over the `size` channels around c.

    x (N, C, H, W); `size` odd; alpha is divided by the size, as Caffe does. Errors: `ShapeError`.
    """
    images(x, op="local_response_norm")
    if not whole(size, least=1) or size % 2 == 0:
        raise ShapeError(f"local_response_norm: size is {size}; expected an odd number of channels")
    scale = k + alpha / size * window_sum(x * x, size)
    y = x * scale ** (-beta)

    def grad_x(gy):
        # x_c acts on its own numerator, and on the scale of every neighbour
        return gy * scale ** (-beta) - 2 * alpha * beta / size * x * window_sum(gy * y / scale, size)

    return y, (grad_x,)


@op
def batch_norm(
    x: Array, w: Array, b: Array, *, mean: Any = None, var: Any = None, own: bool = False, eps: float = 1e-5
) -> ValueAndGradients:
    """Return y_c = w_c z_c + b_c with z_c = (x_c - mean_c) / sqrt(var_c + eps): each channel at its own scale.

    x (N, C, H, W), w and b (C,). Without `mean` and `var` (C,) they are the batch's own, over N, H and W, and gradients
    flow through them; given, they are constants, as in a net that has stopped learning them. `own=True` says that those
    given are the batch's own, computed before. Errors: `ShapeError`.
    Ioffe and Szegedy, "Batch normalization" (ICML 2015).
    """
    images(x, op="batch_norm")
    if mean is None and var is None:
        mean, var, own = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3)), True
    for name, array in {"w": w, "b": b, "mean": mean, "var": var}.items():
        if getattr(array, "shape", None) != x.shape[1:2] or array.dtype != x.dtype:
            found = f"{getattr(array, 'dtype', type(array).__name__)} {getattr(array, 'shape', '')}".rstrip()
            raise ShapeError(f"batch_norm: {name} is {found}; expected {x.dtype} {x.shape[1:2]}, one for each channel")
    scale = 1 / xp_of(x).sqrt(var + eps)[:, None, None]
    z = (x - mean[:, None, None]) * scale

    def grad_x(gy):
        gz = gy * w[:, None, None]
        if own:  # x_i moves the mean and the variance, too: what gz has in common with 1 and with z is taken out
            gz = gz - gz.mean(axis=(0, 2, 3), keepdims=True) - z * (gz * z).mean(axis=(0, 2, 3), keepdims=True)
        return gz * scale

    def grad_w(gy):
        return (gy * z).sum(axis=(0, 2, 3))

    def grad_b(gy):
        return gy.sum(axis=(0, 2, 3))

    return z * w[:, None, None] + b[:, None, None], (grad_x, grad_w, grad_b)


@op
def l2_normalize(x: Array, *, epsilon: float = 1e-10) -> ValueAndGradients:
    """y_c = x_c / r with r = sqrt(sum_k x_k^2 + epsilon): each pixel's channels as a vector of length 1.

    x (N, C, H, W). So maps of different layers can be joined without the larger drowning the smaller (ParseNet,
    section 3.2). `epsilon` keeps a pixel of zeros at zero. Errors: `ShapeError`.
    """
    images(x, op="l2_normalize")
    if not epsilon > 0:
        raise ShapeError(f"l2_normalize: epsilon is {epsilon!r}; expected a number above 0")
    r = xp_of(x).sqrt((x * x).sum(axis=1, keepdims=True) + epsilon)
    y = x / r

    def grad_x(gy):
        # moving along the vector changes no direction: that part of gy is taken out
        return (gy - y * (gy * y).sum(axis=1, keepdims=True)) / r

    return y, (grad_x,)
