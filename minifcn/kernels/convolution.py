"""The three products of a convolution: validate the call, then choose the fastest way.

    product                     computes                      conv2d uses it as    conv_transpose2d uses it as
    correlate(x, w, g)          y = sum of w * window(x)      the value            grad_x
    spread(gy, w, g, size)      its adjoint in x              grad_x               the value
    weigh(x, gy, g)             its adjoint in w              grad_w               grad_w

A transposed convolution is therefore no second operation: it is the gradient of one, called forward.

Five ways lead to each product, and a test holds them equal:

    im2col      products.py    the readable one, and the exact one: float64 takes no other
    blocks      blocks.py      the same columns in the cache, on all cores
    lines       lines.py       for thin layers: fewer copies, and no additions where rows hold many windows
    depthwise   depthwise.py   each channel filtered alone, as a product with a banded matrix
    winograd    winograd.py    a quarter of the multiplications, for 3x3 with stride 1

`choose` picks one by geometry; `with convolution("im2col"):` insists on one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import lru_cache
from typing import Any

from minifcn.backend import FLOATS, Array, Scope, device_of, is_host, xp_of
from minifcn.errors import ShapeError, UsageError
from minifcn.kernels import blocks, depthwise, lines, products, winograd
from minifcn.kernels.im2col import Pair, Windows

WAYS: dict[str, Any] = {
    "im2col": products,
    "blocks": blocks,
    "depthwise": depthwise,
    "lines": lines,
    "winograd": winograd,
}

SMALL = 1_000_000
"""Multiply-adds below which a convolution is over before any preparation could pay."""
POINTS = 50_000
"""The same for windows of one pixel, which need no preparation."""
WIDE = 64 * 2048
"""Channels times windows from which Winograd's transforms pay: 2048 windows of 64 channels, 1024 of 128."""

FORCED: Scope[str | None] = Scope("forced", None)
FILTERS: Scope[dict[int, tuple[Array, dict[Any, Array]]]] = Scope("filters", {})
KEPT = 4 << 20
"""Bytes of weights up to which other orders of them are kept as well, in the time of `caching_filters`."""


def correlate(x: Array, w: Array, g: Windows, b: Array | None = None, *, relu: bool = False) -> Array:
    """y[n, o] = b[o] + sum over i, taps of w[o, i] * window(x[n, i]), negative values set to 0 if `relu`.

    x (N, I, H, W), w (O, I/groups, kh, kw), b (O,), y (N, O, H', W'), all float32 or all float64.
    ShapeError if they do not fit one another.
    """
    _fit(x, w, b, g)
    own, (g, taps) = w, seeing(g, x.shape[2:])
    if taps is not None:
        kept = _kept(own, g, lambda: take_taps(own, g, taps))
        w = take_taps(own, g, taps) if kept is None else kept
    way = choose(x, g, x.shape[1], len(w), len(x), g.out_size(x.shape[2:]))
    by = kernel(x, way)
    if not hasattr(by, "arrange"):
        return by.correlate(x, w, g, b, relu)
    return by.correlate(x, w, g, b, relu, _kept(own, (way, g), lambda: by.arrange(w, g), always=way == "winograd"))


def spread(gy: Array, w: Array, g: Windows, size: Pair, b: Array | None = None) -> Array:
    """Return the adjoint of `correlate` in x: gy (N, O, H', W'), w (O, I/groups, kh, kw) -> gx (N, I, *size).

    `size` may be any (H, W) whose windows number H' by W'; ShapeError for another. As a layer of its own, the
    transposed convolution, its input is called x in errors, and may get a bias b (I,).
    """
    _fit(gy, w, b, g, transposed=True)
    out = _windows(size, gy, g)
    g, taps = seeing(g, size)
    w = w if taps is None else take_taps(w, g, taps)
    way = choose(gy, g, len(w), w.shape[1] * g.groups, len(gy), out, product="spread")  # from gy's channels to gx's
    gx = kernel(gy, way).spread(gy, w, g, size)
    return gx if b is None else gx + b[:, None, None]


def weigh(x: Array, gy: Array, g: Windows) -> Array:
    """Return the adjoint of `correlate` in w: x (N, I, H, W), gy (N, O, H', W') -> gw (O, I/groups, kh, kw)."""
    _plain(g, x=x, gy=gy)
    if len(x) != len(gy) or x.shape[1] % g.groups or gy.shape[1] % g.groups:
        found = f"x holds {len(x)} images, gy {len(gy)}, with channels {x.shape[1]}, {gy.shape[1]}"
        raise ShapeError(f"{g.op}: {found}; expected as many images, and channels divisible by groups={g.groups}")
    out = _windows(x.shape[2:], gy, g)
    part, taps = seeing(g, x.shape[2:])
    way = choose(x, part, x.shape[1], gy.shape[1], len(x), out, product="weigh")
    gw = kernel(x, way).weigh(x, gy, part)
    if taps is None:
        return gw
    whole = xp_of(gw).zeros((*gw.shape[:2], *g.kernel), dtype=gw.dtype)
    whole[:, :, *taps] = gw
    return whole


@lru_cache
def seeing(g: Windows, size: Pair) -> tuple[Windows, tuple[slice, slice] | None]:
    """Return the windows without the outer taps that see only padding, and which taps those that remain are.

    On a small image most of a large kernel lies in the padding: fc6 (7x7) of an image of 64x64 looks at 2x2 pixels, and
    needs 9 of its 49 taps. None for all taps.
    """
    taps, paddings = [], []
    for n, out, k, s, p, d in zip(size, g.out_size(size), g.kernel, g.stride, g.padding, g.dilation, strict=True):
        first, last = max(0, -(((out - 1) * s - p) // d)), min(k - 1, (n - 1 + p) // d)
        taps.append(slice(first, last + 1))
        paddings.append(p - first * d)
    kernel = (taps[0].stop - taps[0].start, taps[1].stop - taps[1].start)
    if kernel == g.kernel or min(kernel) < 1 or min(paddings) < 0:
        return g, None
    small = replace(g, kernel=kernel, padding=(paddings[0], paddings[1]))
    return (small, (taps[0], taps[1])) if small.out_size(size) == g.out_size(size) else (g, None)


def take_taps(w: Array, g: Windows, taps: tuple[slice, slice]) -> Array:
    """Return the weights of these taps: by their numbers, since NumPy is slow to copy three numbers in a row."""
    if not is_host(w) or not w.flags.c_contiguous:
        return w[:, :, *taps]
    rows, cols = (range(part.stop)[part] for part in taps)
    numbers = [row * w.shape[3] + col for row in rows for col in cols]
    return w.reshape(*w.shape[:2], -1).take(numbers, axis=2).reshape(*w.shape[:2], *g.kernel)


def kernel(array: Array, way: str) -> Any:
    """Return the file that computes such arrays this way, or what their own library has for it
    (`introspect/outline.py`).
    """
    return (WAYS if is_host(array) else getattr(xp_of(array), "WAYS", WAYS))[way]


def choose(array: Array, g: Windows, i: int, o: int, n: int, out: Pair, *, product: str = "correlate") -> str:
    """Return which way serves a layer of `i` to `o` channels with n images of `out` windows, in the dtype of `array`.

    For `spread`, `i` are the channels of gy and `o` those of gx: with stride 1 it is a `correlate` of gy.

    float64 is for checking gradients, so it is computed exactly; the threads and the caches of the fast ways are those
    of a CPU. A forced way that cannot serve the layer hands it to the next more general one.
    """
    forced = FORCED()
    if array.dtype != "float32" or device_of(array) == "gpu" or forced == "im2col":
        return "im2col"
    multiply_adds = n * out[0] * out[1] * g.kernel[0] * g.kernel[1] * i * o // g.groups
    small = POINTS if blocks.is_pointwise(g) else SMALL
    if multiply_adds == 0 or (forced is None and multiply_adds < small):
        return "im2col"  # over before any preparation could pay
    if forced is not None:
        return forced if forced in ways(g, i, o) else "blocks"
    windows, thinner = n * out[0] * out[1], min(i, o)
    if 1 < g.groups == i == o and max(g.dilation) <= 2 and windows >= 8 * math.prod(g.span):
        return "depthwise" if depthwise.serves(g, i, o) else "blocks"
    # Few channels cannot pay for transforming the tiles, nor few tiles for transforming the filters.
    if thinner >= 64 and windows >= 1024 and windows * thinner >= WIDE and winograd.serves(g, i, o):
        return "winograd"
    correlates = product == "correlate" or (product == "spread" and g.stride == (1, 1))
    if correlates and o >= 8 and lines.stacking_pays(i // g.groups, o // g.groups, g, n, out):
        return "lines"
    # Each kernel row of a line makes all of the outputs: they have to be few, or few beside the inputs.
    thin = thinner >= 8 and ((i * o <= 128 * 128 and o <= 4 * i) or 3 * o <= i)
    thin = thin or (thinner >= 3 and max(i, o) <= 8)  # the first layer of a net of width 8
    thin = thin and max(g.kernel) <= 3 and max(g.span) <= 5
    return "lines" if thin and windows > o and lines.serves(g, i, o) else "blocks"


def ways(g: Windows, i: int, o: int) -> list[str]:
    """Return the ways that can serve a layer of `i` to `o` channels: im2col and blocks serve all."""
    return [name for name, way in WAYS.items() if way in (products, blocks) or way.serves(g, i, o)]


def convolution(way: str) -> AbstractContextManager[None]:
    """`with convolution("im2col"):` this thread computes every convolution that way, if it can be: im2col, blocks,
    lines or winograd.

    UsageError for another name.
    """
    if way not in WAYS:
        raise UsageError(f"convolution {way!r} is unknown: expected one of {', '.join(WAYS)}")
    return FORCED.set(way)


def caching_filters(weights: Iterable[Array]) -> AbstractContextManager[None]:
    """Within it, what a way makes of these arrays first is kept (Winograd's transformed filters, the weights row by
    row), and the arrays must not be written to.

    They are found by the identity of the array; the array itself is kept too, so that no other can take its place.
    At the end all that this block kept is dropped; a block within another adds to what the outer keeps.
    """
    return FILTERS.set({**{id(w): (w, {}) for w in weights}, **FILTERS()})


def _kept(w: Array, what: Any, make: Callable[[], Array], *, always: bool = False) -> Array | None:
    """Return what is made of the weights w the first time within `caching_filters`, if they are few or `always`."""
    _, kept = FILTERS().get(id(w), (None, None))
    if kept is None or not (always or w.nbytes <= KEPT):
        return None
    if what not in kept:
        kept[what] = make()
    return kept[what]


def _fit(x: Array, w: Array, b: Array | None, g: Windows, *, transposed: bool = False) -> None:
    """Refuse arrays that do not fit one another: kernel, channels, bias and dtype."""
    _plain(g, x=x, w=w, b=b)
    if w.shape[2:] != g.kernel:
        raise ShapeError(f"{g.op}: w has shape {w.shape}; expected (O, I/groups, kh, kw) with a kernel of {g.kernel}")
    i, o = w.shape[1] * g.groups, len(w)
    takes, makes = (o, i) if transposed else (i, o)
    if x.shape[1] != takes or o % g.groups:
        found = f"x {x.shape} has {x.shape[1]} channels and w {w.shape} with groups={g.groups} wants {takes}"
        raise ShapeError(f"{g.op}: {found}, and the first axis of w divisible by {g.groups}")
    if b is not None and b.shape != (makes,):
        raise ShapeError(f"{g.op}: b has shape {b.shape}; expected ({makes},), one number per output channel")


def _plain(g: Windows, **arrays: Array | None) -> None:
    """Refuse arrays that are not all of one floating dtype, and images that are not (N, C, H, W)."""
    (first, x), *others = ((name, array) for name, array in arrays.items() if array is not None)
    for name, array in [(first, x), *others]:
        if array.ndim != 4 and name in ("x", "gy"):
            raise ShapeError(f"{g.op}: {name} has shape {array.shape}; expected (N, C, H, W)")
        if array.dtype not in FLOATS:
            raise ShapeError(f"{g.op}: {name} is {array.dtype}; expected float32 or float64")
        if array.dtype != x.dtype:
            raise ShapeError(f"{g.op}: {first} is {x.dtype} and {name} is {array.dtype}; give both the same dtype")


def _windows(size: Pair, gy: Array, g: Windows) -> Pair:
    """The windows of an image of (H, W); refuse gy (N, O, H', W') if it does not have a pixel for each."""
    out = g.out_size(size)
    if out != gy.shape[2:]:
        raise ShapeError(f"{g.op}: an image of {size} has {out[0]}x{out[1]} windows, gy has {gy.shape[2:]}")
    return out
