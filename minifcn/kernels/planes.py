"""Elementwise work a few planes at a time, so that it stays in the cache.

Pooling, a ReLU's gradient and a bias's gradient multiply nothing; they wait for memory. NumPy makes one pass over the
whole array for each step of a formula, and an activation of 100 MB has left the cache before the second step begins. So
the steps are done for a few planes (one channel of one image each) and then for the next few, on every core at once.
A plane's result depends on that plane alone, and therefore not on which thread computed it.
"""

from __future__ import annotations

from collections.abc import Callable

from minifcn.backend import Array, device_of, finite, is_host, xp_of
from minifcn.kernels import fused
from minifcn.kernels.threads import parallel, shares, threads

PIECE = 4 << 20
"""Bytes of planes to work on at a time. On one thread a quarter of it is as quick; but two threads meet in the
interpreter between their steps, and with a quarter of it two take longer than one (measured)."""
ALONE = 1 << 20
"""Bytes below which one thread is done before a second has woken up."""

Part = tuple[slice, slice]
"""Some images, and some of their channels."""
Rows = tuple[slice, slice, slice]
"""Some images, all channels, and some of their rows."""


def by_planes(task: Callable[[Part], None], x: Array, *, copies: int = 1) -> None:
    """Call `task(part)` until each plane of x (N, C, H, W) was in some part: one call on a GPU, or where x is small.

    The parts are smaller for a task that needs several copies of its planes.
    """
    pieces = -(-x.nbytes * copies // PIECE)
    if device_of(x) == "gpu" or pieces <= 1:
        task((slice(None), slice(None)))
        return
    n, c = x.shape[:2]
    parts = [(images, part) for images in shares(n, pieces) for part in shares(c, -(-pieces // n))]
    parallel(task, parts, threads() if is_host(x) and x.nbytes >= ALONE else 1)


def by_rows(task: Callable[[Rows], None], x: Array) -> None:
    """Call `task(part)` until each row of x (N, C, H, W) was in some part, with all channels; else as `by_planes`."""
    n, _, h, _ = x.shape
    pieces = 1 if device_of(x) == "gpu" else max(1, -(-x.nbytes // PIECE))
    parts = [(images, slice(None), rows) for images in shares(n, pieces) for rows in shares(h, -(-pieces // n))]
    parallel(task, parts, threads() if is_host(x) and x.nbytes >= ALONE else 1)


def rectified(gy: Array, y: Array) -> Array:
    """Return gy where y is above 0 or NaN, else 0: the gradient of a ReLU whose output is y; both (N, C, H, W)."""
    if fused.serves(gy):
        return fused.rectified(gy, y)
    if device_of(gy) == "gpu":
        return gated(gy, ~(y <= 0))
    xp, bits = xp_of(gy), f"int{8 * gy.itemsize}"
    gx = xp.empty(gy.shape, dtype=gy.dtype)

    def some(part: Part) -> None:
        mask = (y[part] <= 0).view("int8")
        mask -= 1  # all bits set where gy passes: `and` keeps a number or makes it 0, be it finite or not
        xp.bitwise_and(gy[part].view(bits), mask, out=gx[part].view(bits))

    by_planes(some, gy)
    return gx


def gated(gy: Array, passes: Array) -> Array:
    """Return gy where `passes` is True, else 0."""
    return gate(gy)(gy, passes)


def gate(gy: Array) -> Callable[..., Array]:
    """Return a function (part, passes, out=None) that returns a part of gy where `passes` is True, else 0.

    A product takes a third of the time of a choice, but infinity times 0 is NaN: so it serves while gy is finite.
    """
    xp, tame = xp_of(gy), finite(gy)

    def passed(part: Array, passes: Array, out: Array | None = None) -> Array:
        if tame:
            chosen = passes.astype(part.dtype)
            chosen = xp.multiply(chosen, part, out=chosen if chosen.shape == part.shape else None)  # it may repeat
        else:
            chosen = xp.where(passes, part, 0)
        if out is not None:
            out[...] = chosen
        return chosen

    return passed


def channel_sums(gy: Array) -> Array:
    """Return the sum of each channel over all images and pixels: (N, C, H, W) -> (C,)."""
    if fused.serves(gy):
        return gy.transpose(1, 0, 2, 3).reshape(gy.shape[1], -1).sum(axis=1)
    sums = xp_of(gy).empty(gy.shape[:2], dtype=gy.dtype)

    def some(part: Part) -> None:
        sums[part] = gy[part].sum(axis=(2, 3))

    by_planes(some, gy)
    return sums.sum(axis=0)
