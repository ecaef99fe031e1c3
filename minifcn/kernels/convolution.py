"""The three products of a convolution, as everybody calls them: arguments checked here, computed elsewhere.

    product                     computes                      conv2d uses it as    conv_transpose2d uses it as
    correlate(x, w, g)          y = sum of w * window(x)      the value            grad_x
    spread(gy, w, g, size)      its adjoint in x              grad_x               the value
    weigh(x, gy, g)             its adjoint in w              grad_w               grad_w

A transposed convolution is therefore no second operation: it is the gradient of one, called forward.
"""

from __future__ import annotations

from minifcn.backend import Array
from minifcn.errors import ShapeError
from minifcn.kernels import products
from minifcn.kernels.im2col import Pair, Windows


def correlate(x: Array, w: Array, g: Windows, b: Array | None = None, *, relu: bool = False) -> Array:
    """y[n, o] = b[o] + sum over i, taps of w[o, i] * window(x[n, i]), negative values set to 0 if `relu`.

    x (N, I, H, W), w (O, I/groups, kh, kw), b (O,), y (N, O, H', W'), all float32 or all float64.
    ShapeError if they do not fit one another.
    """
    _check(w, g, x=x, b=b)
    _expect(x.shape[1] == w.shape[1] * g.groups, f"x has {x.shape[1]} channels, w {w.shape} takes {w.shape[1]}", g)
    if b is not None:
        _expect(b.shape == (len(w),), f"the bias has shape {b.shape}, w makes {len(w)} channels", g)
    return products.correlate(x, w, g, b, relu)


def spread(gy: Array, w: Array, g: Windows, size: Pair) -> Array:
    """The adjoint of `correlate` in x: gy (N, O, H', W'), w (O, I/groups, kh, kw) -> gx (N, I, *size).

    `size` may be any (H, W) whose windows number H' by W'; ShapeError for another.
    """
    _check(w, g, gy=gy)
    _expect(gy.shape[1] == len(w), f"gy has {gy.shape[1]} channels, w {w.shape} makes {len(w)}", g)
    out = g.out_size(size)
    _expect(out == gy.shape[2:], f"a size of {size} has {out[0]}x{out[1]} windows, gy has {gy.shape[2:]}", g)
    return products.spread(gy, w, g, size)


def weigh(x: Array, gy: Array, g: Windows) -> Array:
    """The adjoint of `correlate` in w: x (N, I, H, W), gy (N, O, H', W') -> gw (O, I/groups, kh, kw)."""
    _check(None, g, x=x, gy=gy)
    _expect(len(x) == len(gy), f"x holds {len(x)} images, gy {len(gy)}", g)
    _expect(not x.shape[1] % g.groups and not gy.shape[1] % g.groups, f"channels {x.shape[1]}, {gy.shape[1]}", g)
    out = g.out_size(x.shape[2:])
    _expect(out == gy.shape[2:], f"x has {out[0]}x{out[1]} windows, gy has {gy.shape[2:]}", g)
    return products.weigh(x, gy, g)


def _check(w: Array | None, g: Windows, **arrays: Array | None) -> None:
    """Four axes and one floating dtype for all; weights that have the geometry's kernel and divide into its groups."""
    given = {name: array for name, array in arrays.items() if array is not None}
    if w is not None:
        given["w"] = w
        _expect(w.ndim == 4 and w.shape[2:] == g.kernel, f"w has shape {w.shape}, expected (O, I/groups, kh, kw)", g)
        _expect(len(w) % g.groups == 0, f"w {w.shape} makes {len(w)} channels", g)
    dtypes = {name: str(array.dtype) for name, array in given.items()}
    _expect(
        len(set(dtypes.values())) == 1 and set(dtypes.values()) <= {"float32", "float64"},
        "expected one dtype, float32 or float64, found " + ", ".join(f"{k} {v}" for k, v in dtypes.items()),
        g,
    )
    for name in given.keys() - {"w", "b"}:
        _expect(given[name].ndim == 4, f"{name} has shape {given[name].shape}, expected (N, C, H, W)", g)


def _expect(fits: bool, found: str, g: Windows) -> None:
    if not fits:
        raise ShapeError(f"convolution with kernel {g.kernel[0]}x{g.kernel[1]} and groups={g.groups}: {found}")
