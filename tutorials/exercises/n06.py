"""Notebook 06, shift-and-stitch: can you interlace, take filters apart, and say what either costs?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import Verdict, exercise, number, quiz, right, wrong


@exercise
def check_interlace(answer: Callable) -> Verdict:
    """`answer(parts, factor)`: (f*f, h, w), shift (sy, sx) at sy*f + sx, laid into one another: (h*f, w*f)."""
    for factor, h, w in ((1, 2, 3), (2, 2, 3), (3, 4, 2)):
        parts = np.arange(factor * factor * h * w).reshape(factor * factor, h, w)
        found, shape = np.asarray(answer(parts.copy(), factor)), (h * factor, w * factor)
        if found.shape != shape:
            return wrong(f"{factor * factor} maps of {h}x{w} make one of {shape}, yours is {found.shape}")
        expected = np.zeros(shape, parts.dtype)
        for shift, part in enumerate(parts):
            expected[shift // factor :: factor, shift % factor :: factor] = part
        if np.array_equal(found, expected):
            continue
        swapped = np.zeros_like(expected)
        for shift, part in enumerate(parts):
            swapped[shift % factor :: factor, shift // factor :: factor] = part
        if np.array_equal(found, swapped):
            return wrong(
                "rows and columns are exchanged: shift 1 moved the image along x, so it fills columns 1, 1+f, ..."
            )
        i, j = (int(n) for n in np.argwhere(found != expected)[0])
        return wrong(
            f"of factor {factor}, cell ({i}, {j}) is answer ({i // factor}, {j // factor}) of shift ({i % factor}, "
            f"{j % factor}), {expected[i, j]}; yours is {found[i, j]}"
        )
    return right("neighbours in the picture come from different runs of the net")


@exercise
def check_rarefied_filter(answer: Callable) -> Verdict:
    """`answer(f, s)`: the filter (k, k) taken apart by s: f'[i, j] = f[i/s, j/s] where s divides both, else 0."""
    rng = np.random.default_rng(6)
    for k, s in ((2, 2), (3, 2), (3, 4), (1, 5), (7, 1)):
        f = rng.integers(1, 10, (k, k))
        found, extent = np.asarray(answer(f.copy(), s)), s * (k - 1) + 1
        if found.shape == (k * s, k * s) != (extent, extent):
            return wrong(
                f"for k = {k} and s = {s} yours has {k * s} rows; behind the last weight nothing follows: {extent}"
            )
        if found.shape != (extent, extent):
            return wrong(f"for k = {k} and s = {s} the filter is {extent}x{extent}, yours has shape {found.shape}")
        if not np.array_equal(found[::s, ::s], f):
            return wrong(f"for k = {k} and s = {s}, the rows and columns that {s} divides must be the filter as it was")
        if np.count_nonzero(found) != k * k:
            return wrong(
                f"for k = {k} and s = {s} there are {np.count_nonzero(found)} weights; expected {k * k}, else 0"
            )
    return right(f"k weights on s (k - 1) + 1 pixels: for k = 7 and s = 2, on {7 * 2 - 1}")


@exercise
def check_fc6_extent(answer: Callable) -> Verdict:
    """`answer(strides)`: how many cells fc6 (7x7) reaches over when the strides in the list are taken out before it."""
    for strides in ([], [2], [2, 2], [2, 2, 2, 2, 2]):
        apart = int(np.prod(strides))
        expected, found = 6 * apart + 1, number(answer(list(strides)))
        if found == 7 * apart and found != expected:
            return wrong(
                f"without the strides {strides} fc6 reaches over {expected} cells, you say {found}; so does the "
                "paper for one stride (section 4.2), but behind the last of the 7 weights no gap follows"
            )
        if found != expected:
            hint = (
                "strides multiply, and of no strides the product is 1"
                if found == 6 * sum(strides) + 1
                else f"a gap of {apart - 1} comes between all 7 weights, so 6 times"
                if found == 7 + apart - 1
                else "its 7 weights lie as far apart as the strides that are gone"
            )
            return wrong(f"without the strides {strides} fc6 reaches over {expected} cells, you say {found}: {hint}")
    return right("gaps multiply, one factor for each stride taken out: 13 where the paper says 14")


@exercise
def check_cost(answer: Callable) -> Verdict:
    """`answer(layers)`: by how much rarefied filters are cheaper than shift-and-stitch, in multiply-adds.

    `layers` is a list of (multiply-adds in the strided net, the layer's own stride), in order.
    """
    for layers in (
        [(100, 2)],
        [(100, 1), (0, 2), (100, 1)],
        [(64, 1), (0, 2), (32, 1), (0, 2), (16, 1)],
        [(48, 4), (30, 1), (0, 2), (7, 1)],
    ):
        before, stitched, rarefied = 1, 0, 0
        factor = int(np.prod([stride for _, stride in layers]))
        for multiply_adds, stride in layers:
            before *= stride
            rarefied += multiply_adds * before**2
            stitched += multiply_adds * factor**2
        found = number(answer(list(layers)))
        if not np.isclose(found, stitched / rarefied, rtol=1e-9):
            return wrong(
                f"for {layers} shift-and-stitch costs {stitched}, rarefied filters {rarefied}, "
                f"{stitched / rarefied:.3g} times less; you say {found:.3g}. Stitched, each layer "
                "runs f*f times; rarefied, a layer's map grows by the square of the strides up to it, its own included"
            )
    return right("what runs before the strides runs once, not f*f times")


check_quiz = quiz(
    """c: 8 shifts along each axis
    a: there are 8 shifts along one axis, and the image has two
    b: 16 are enough for stride 4; every pair of shifts below 8 is needed""",
    """a: 2 * (3 - 1) + 1
    b: that is 2 * 3; behind the last weight no gap follows
    c: there are two gaps between three weights, each of one cell""",
    """b: each output sees the same pixels through the same weights
    a: the filter spans more cells, but these lie closer together
    c: that is what happens if strides are removed and filters stay as they are""",
)
