"""Local response normalisation: AlexNet's way of letting neighbouring channels compete."""

from minifcn.backend import Array, xp_of
from minifcn.errors import ShapeError
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
    if size < 1 or size % 2 == 0:
        raise ShapeError(f"local_response_norm: size is {size}; expected an odd number of channels")
    scale = k + alpha / size * window_sum(x * x, size)
    y = x * scale ** (-beta)

    def grad_x(gy):
        # x_c acts on its own numerator, and on the scale of every neighbour
        return gy * scale ** (-beta) - 2 * alpha * beta / size * x * window_sum(gy * y / scale, size)

    return y, (grad_x,)
