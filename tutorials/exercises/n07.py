"""Notebook 07: upsampling is backwards strided convolution."""

import numpy as np

from minifcn import ops
from minifcn.geometry import Grid, Layer

from . import exercise, number, quiz, right, wrong


@exercise
def check_paint(answer):
    """`answer(x, w, stride)`: the transposed convolution of a line x (n,) with w (k,), ((n-1)*stride + k,)."""
    rng = np.random.default_rng(7)
    for n, k, stride in ((4, 3, 2), (1, 3, 2), (5, 4, 2), (3, 2, 3), (6, 5, 1)):
        x, w = rng.normal(size=n), rng.normal(size=k)
        expected = ops.conv_transpose2d(x[None, None, None], w[None, None, None], stride=(1, stride)).data[0, 0, 0]
        found = np.asarray(answer(x.copy(), w.copy(), stride), dtype=float)
        case = f"{n} cells, a kernel of {k}, stride {stride}"
        if found.shape != expected.shape:
            return wrong(f"{case}: your line has shape {found.shape}; expected ({n} - 1) * {stride} + {k} pixels")
        if not np.allclose(found, expected):
            flipped = ops.conv_transpose2d(x[None, None, None], w[None, None, None, ::-1], stride=(1, stride)).data
            overwritten = np.zeros_like(expected)
            for i in range(n):
                overwritten[i * stride : i * stride + k] = x[i] * w
            if np.allclose(found, flipped[0, 0, 0]):
                return wrong(f"{case}: the kernel is painted backwards; it lies as it is, from pixel i*stride on")
            if np.allclose(found, overwritten):
                return wrong(f"{case}: where two kernels overlap the later one covers the earlier; they must add up")
            return wrong(f"{case}: pixel {int(np.argmax(abs(found - expected)))} differs from the library's")
    return right("every cell paints its kernel, and what overlaps adds up")


@exercise
def check_bilinear(answer):
    """`answer(k)`: the (k, k) bilinear kernel."""
    for k in (4, 3, 1, 2, 8, 63, 64):
        factor = (k + 1) // 2
        line = 1 - abs(np.arange(k) - (factor - 1 if k % 2 else factor - 0.5)) / factor
        found = np.asarray(answer(k), dtype=float)
        if found.shape != (k, k):
            return wrong(f"k = {k}: your kernel has shape {found.shape}; expected ({k}, {k})")
        if np.allclose(found, np.outer(line, line), atol=1e-6):
            continue
        if not np.allclose(found, found[::-1, ::-1], atol=1e-6):
            return wrong(f"k = {k}: your kernel is not symmetric; c is its middle, {(k - 1) / 2}")
        if np.allclose(found, np.outer(line, line) / factor**2, atol=1e-6):
            return wrong(f"k = {k}: your kernel sums to 1; it paints every stride-th pixel only, and has to sum to f*f")
        return wrong(f"k = {k}: the corner is {found[0, 0]:.4f}; expected {line[0] ** 2:.4f}, with f = {factor}")
    return right("one formula for odd and even kernels")


@exercise
def check_ring(answer):
    """`answer`: the pixels of the ring that are left on each side of FCN-AlexNet's scores."""
    kernel, stride, cropped = 63, 32, 18
    expected = kernel - stride - cropped
    if isinstance(answer, bool) or not isinstance(answer, (int, np.integer)):
        return wrong(f"{answer!r} is no whole number of pixels")
    if answer == expected:
        return right(f"a ring of {kernel} - {stride} = {kernel - stride}, less the {cropped} that the crop takes")
    hints = {
        kernel - stride: "that is the whole ring; the crop takes some of it away",
        cropped: "that is what the crop takes; how much of the ring stays?",
        64 - stride - cropped: "that would be so with a kernel of 64; FCN-AlexNet has an odd one",
        kernel - cropped: "the ring is narrower than the kernel: where another cell paints, too, nothing is missing",
    }
    return wrong(hints.get(int(answer), "take the width of the ring, k - s, and what the crop cuts away of it"))


@exercise
def check_kernel(answer):
    """`answer(layers, stride)`: 2*stride or 2*stride - 1, whichever lands the score on whole pixels of the image."""
    chains = {
        "two pools of 2": [Layer(2, 2), Layer(2, 2)],
        "two pools of 3 with stride 2": [Layer(3, 2), Layer(3, 2)],
        "a padded convolution and a pool of 2": [Layer(3, padding=1), Layer(2, 2)],
        "a convolution of 4 and a pool of 3 with stride 2": [Layer(4), Layer(3, 2)],
        "a convolution of 11 with stride 4 and two pools of 3": [Layer(11, 4), Layer(3, 2), Layer(3, 2)],
    }
    for name, layers in chains.items():
        grid = Grid.of(layers)
        stride = int(grid.stride)
        found = number(answer(layers, stride))
        if found not in (2 * stride, 2 * stride - 1):
            return wrong(f"{name}: you say {found!r}; expected {2 * stride} or {2 * stride - 1}")
        start = grid.through(Layer(int(found), stride, transpose=True)).start
        if start.denominator != 1:
            return wrong(
                f"{name}: the cells start at pixel {grid.start}, and a kernel of {found} would put the first pixel of "
                f"the score at {start}, between two pixels of the image"
            )
    return right("cells on pixels want an odd kernel, cells between pixels an even one")


check_quiz = quiz(
    "b: pixels are under 1, 2 or 4 kernels",
    "c: it is the transpose; what a stride dropped is lost",
    "b: cells between pixels want an even kernel",
)
