"""Bilinear interpolation as two small matrix products, one for rows and one for columns.

`bilinear_resize` goes to any size (to show a map over a photograph). `bilinear_upsample` is the fixed transposed
convolution of the paper's nets: the same numbers as `conv_transpose2d` with a bilinear kernel on the diagonal, without
multiplying the zeros beside the diagonal, and in 2k instead of k^2 multiplications a pixel. FCN, section 3.3.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Any

from minifcn.backend import Array, finite, is_host, xp_of
from minifcn.geometry import Layer
from minifcn.kernels import fused
from minifcn.kernels.im2col import Pair
from minifcn.ops.checks import Size, images, pair, windows
from minifcn.tensor import ValueAndGradients, op


def between(x: Array, size: int, out: int) -> Array:
    """Return the (out, size) matrix that samples at the centres of `out` equal pixels; the outermost values hold the
    edges.
    """
    xp = xp_of(x)
    unit = 2 * out  # a pixel of x; in these units everything is whole, so exact in either dtype until the division
    position = xp.clip((2 * xp.arange(out) + 1) * size - out, 0, (size - 1) * unit)
    distance = abs(position[:, None] - unit * xp.arange(size))
    return xp.maximum(unit - distance, 0).astype(x.dtype) / unit


def triangle(x: Array, size: int, layer: Layer) -> Array:
    """Return the (out, size) matrix of a transposed convolution with the bilinear kernel of `layer` (see
    `nn.bilinear`).
    """
    xp = xp_of(x)
    unit = 2 * ((layer.kernel + 1) // 2)  # one step of the kernel falls by 1/f = 2/unit; whole numbers, as above
    tap = xp.arange(layer.out_size(size))[:, None] + layer.padding - layer.stride * xp.arange(size)
    weight = (unit - abs(2 * tap - (layer.kernel - 1))) * ((tap >= 0) & (tap < layer.kernel))
    return weight.astype(x.dtype) / unit


def once(make: Callable[..., Array], x: Array, *given: Any) -> Array:
    """Return `make(x, *given)`, which depends on the library and dtype of x alone, as it was made before."""
    xp = xp_of(x)
    return made(make, xp, str(x.dtype), *given) if isinstance(xp, ModuleType) else make(x, *given)


@lru_cache(maxsize=16)
def made(make: Callable[..., Array], xp: ModuleType, dtype: str, *given: Any) -> Array:
    """Return the matrix that `make` makes of an array in this library."""
    return make(xp.empty(0, dtype=dtype), *given)


def both_ways(x: Array, rows: Array, cols: Array) -> ValueAndGradients:
    """Return y = R x C^T with R and C the matrices of the two axes, and its gradient R^T gy C."""

    def grad_x(gy):
        return product(rows.T, gy, cols.T)

    return product(rows, x, cols), (grad_x,)


def plain_product(rows: Array, x: Array, cols: Array) -> Array:
    """Return R x C^T: the rows of all images are one matrix for C, and it takes them while there are few."""
    wide = len(rows) > rows.shape[1]
    x = x if wide else rows @ x
    x = (x.reshape(-1, x.shape[3]) @ cols.T).reshape(*x.shape[:3], len(cols))
    return rows @ x if wide else x


def product(rows: Array, x: Array, cols: Array) -> Array:
    """Return R x C^T, in which NaN and infinity reach only the places that see them.

    A matrix product multiplies them by the zeros beside its diagonal too, which gives NaN everywhere. So they are taken
    out, and put where their weight is not 0. On a GPU nothing is looked at, because looking would wait for it.
    """
    y = plain_product(rows, x, cols)
    if not is_host(y) or finite(min(x, y, key=lambda array: array.size)):  # y is finite only where all of x is
        return y
    y = plain_product(rows, xp_of(x).where(xp_of(x).isfinite(x), x, 0), cols)
    for value in (math.inf, -math.inf, math.nan):
        here = xp_of(x).isnan(x) if math.isnan(value) else x == value
        seen = (rows != 0).astype(x.dtype) @ here.astype(x.dtype) @ (cols != 0).astype(x.dtype).T
        y[seen > 0] += value  # infinity and its opposite in one place are NaN, as in a sum
    return y


@op
def bilinear_resize(x: Array, *, size: Size) -> ValueAndGradients:
    """x (N, C, H, W) resampled to `size`: y[i] between the two nearest x, pixel centres at half integers."""
    images(x, op="bilinear_resize")
    h, w = pair(size, op="bilinear_resize", name="size", least=1)
    return both_ways(x, once(between, x, x.shape[2], h), once(between, x, x.shape[3], w))


@op
def bilinear_upsample(x: Array, *, kernel_size: Size, stride: Size, padding: Size = 0) -> ValueAndGradients:
    """x (N, C, H, W) -> (N, C, (H-1)s + k - 2p, ...): each channel spread by the k x k bilinear kernel.

    The kernel is (1 - |i-c|/f)(1 - |j-c|/f), f = (k+1)//2, c its centre: it sums to f^2, and interpolates exactly for
    k = 2s and k = 2s - 1. Errors: `ShapeError` where the padding leaves nothing.
    """
    images(x, op="bilinear_upsample")
    g = windows(kernel_size, op="bilinear_upsample", stride=stride, padding=padding)
    rows, cols = (Layer(*axis, transpose=True) for axis in zip(g.kernel, g.stride, g.padding, strict=True))
    size: Pair = x.shape[2:]
    if fused.serves(x):

        def grad_of_fused(gy):
            return fused.downsampled(gy, g, size)

        return fused.upsampled(x, g, (rows.out_size(size[0]), cols.out_size(size[1]))), (grad_of_fused,)
    return both_ways(x, once(triangle, x, size[0], rows), once(triangle, x, size[1], cols))


@op
def nearest_resize(x: Array, *, size: Size) -> ValueAndGradients:
    """Return x (N, C, H, W) resampled to `size`: y[i] = x[floor((i + 1/2) H / out)], the pixel at the centre of y's."""
    images(x, op="nearest_resize")
    out = pair(size, op="nearest_resize", name="size", least=1)
    rows, cols = (once(nearest, x, n, m) for n, m in zip(x.shape[2:], out, strict=True))
    return both_ways(x, rows, cols)


def nearest(x: Array, size: int, out: int) -> Array:
    """Return the (out, size) matrix with a 1 where a centre of `out` equal pixels falls."""
    xp = xp_of(x)
    return (((2 * xp.arange(out) + 1) * size // (2 * out))[:, None] == xp.arange(size)).astype(x.dtype)
