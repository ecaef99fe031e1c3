"""Bilinear interpolation, which is separable: one small matrix for the rows, one for the columns, y = R x C^T.

`bilinear_resize` goes to any size (to show a map over a photograph). `bilinear_upsample` is the fixed transposed
convolution of the paper's nets: the same numbers as `conv_transpose2d` with a bilinear kernel on the diagonal, without
multiplying the zeros beside the diagonal, and in 2k instead of k^2 multiplications a pixel. FCN, section 3.3.
"""

from minifcn.backend import Array, xp_of
from minifcn.errors import ShapeError
from minifcn.geometry import Layer
from minifcn.ops.checks import Pair, images, pair
from minifcn.tensor import ValueAndGradients, op


def between(x: Array, size: int, out: int) -> Array:
    """The (out, size) matrix that samples at the centres of `out` equal pixels; the outermost values hold the edges."""
    xp = xp_of(x)
    position = (xp.arange(out, dtype="f8") + 0.5) * (size / out) - 0.5
    distance = abs(xp.clip(position, 0, size - 1)[:, None] - xp.arange(size, dtype="f8")[None])
    return xp.maximum(1 - distance, 0).astype(x.dtype)


def triangle(x: Array, size: int, layer: Layer) -> Array:
    """The (out, size) matrix of a transposed convolution with the bilinear kernel of `layer` (see `nn.bilinear`)."""
    xp = xp_of(x)
    factor = (layer.kernel + 1) // 2
    centre = factor - 1 if layer.kernel % 2 else factor - 0.5
    tap = xp.arange(layer.out_size(size))[:, None] + layer.padding - layer.stride * xp.arange(size)[None]
    weight = 1 - abs(tap - centre) / factor
    return (weight * ((tap >= 0) & (tap < layer.kernel))).astype(x.dtype)


def both_ways(x: Array, rows: Array, cols: Array) -> ValueAndGradients:
    def grad_x(gy):
        return rows.T @ (gy @ cols)

    return (rows @ x) @ cols.T, (grad_x,)


@op
def bilinear_resize(x: Array, *, size: Pair) -> ValueAndGradients:
    """x (N, C, H, W) resampled to `size`: y[i] between the two nearest x, pixel centres at half integers."""
    images(x, op="bilinear_resize")
    h, w = pair(size, op="bilinear_resize", name="size", least=1)
    return both_ways(x, between(x, x.shape[2], h), between(x, x.shape[3], w))


@op
def bilinear_upsample(x: Array, *, kernel: int, stride: int, padding: int = 0) -> ValueAndGradients:
    """x (N, C, H, W) -> (N, C, (H-1)s + k - 2p, ...): each channel spread by the k x k bilinear kernel.

    The kernel is (1 - |i-c|/f)(1 - |j-c|/f), f = (k+1)//2, c its centre: it sums to f^2, and interpolates exactly for
    k = 2s and k = 2s - 1. Errors: `ShapeError` where the padding leaves nothing.
    """
    images(x, op="bilinear_upsample")
    if min(kernel, stride) < 1 or padding < 0:
        raise ShapeError(
            f"bilinear_upsample: kernel {kernel}, stride {stride}, padding {padding}; expected 1, 1, 0 or more"
        )
    layer = Layer(kernel, stride, padding, transpose=True)
    return both_ways(x, triangle(x, x.shape[2], layer), triangle(x, x.shape[3], layer))
