"""Normalisation across channels: AlexNet's local responses and ParseNet's unit length."""

from minifcn.backend import Array, xp_of
from minifcn.errors import ShapeError, whole
from minifcn.ops.checks import images
from minifcn.tensor import ValueAndGradients, op


def window_sum(x: Array, size: int) -> Array:
    """The sum over `size` neighbouring channels around each one; symmetric, so it is its own adjoint."""
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
