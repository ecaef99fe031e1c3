"""Notebook 08: combining what and where."""

import numpy as np

from minifcn import ops
from minifcn.geometry import Grid, Layer
from minifcn.models.alexnet import AlexNet
from minifcn.models.ladder import Ladder
from minifcn.models.vgg import VGG

from . import exercise, number, quiz, right, two, wrong


def paths(trunk, padding):
    return trunk(width=1, padding=padding, init="zero", rng=np.random.default_rng(0)).paths()


@exercise
def check_offset(answer):
    """`answer(score, skip)`: the first cells to cut from `skip`, a `Grid`, so that it starts where `score` starts."""
    for trunk, padding, skips in (
        (VGG, 100, ("pool4", "pool3")),
        (VGG, 150, ("pool4", "pool3")),
        (AlexNet, 100, ("pool1",)),
    ):
        ladder = Ladder(paths(trunk, padding), skips)
        score = ladder.grids[ladder.last]
        for rung in ladder.rungs[:-1]:
            score = score.through(rung.layer)
            skip = ladder.grids[rung.skip]
            found, case = number(answer(score, skip)), f"{rung.skip} of {trunk.__name__} with padding {padding}"
            expected = skip.offset(score)
            if expected < 0:
                score = score.cropped(-expected)
            if found == expected:
                continue
            if found == -expected:
                return wrong(f"{case}: {found} has the wrong sign; where does the score start, seen from the skip?")
            if found == score.start - skip.start:
                return wrong(
                    f"{case}: {found} is the distance in pixels of the image; how many cells of the skip is it?"
                )
            return wrong(f"{case}: you say {found}; the score starts at {score.start}, the skip at {skip.start}")
    return right("5 and 9 for VGG-16, and they do not depend on the padding")


@exercise
def check_rung(answer):
    """`answer(score, skip, w, b, at)`: upsample the score by 2, score the skip, crop it at `at`, and add."""
    rng = np.random.default_rng(8)
    for at in (5, 0):
        score, skip = rng.normal(size=(1, 3, 4, 5)), rng.normal(size=(1, 6, 22, 23))
        w, b = rng.normal(size=(3, 6, 1, 1)), rng.normal(size=3)
        up = ops.bilinear_upsample(score, kernel_size=4, stride=2)
        scored = ops.conv2d(skip, w, b)
        found = answer(score, skip, w, b, at)
        found = np.asarray(getattr(found, "data", found), dtype=float)
        if found.shape != up.shape:
            return wrong(
                f"your score has shape {found.shape}; upsampled by a kernel of 4 with stride 2 it is {up.shape}"
            )
        expected = (up + ops.crop(scored, like=up, at=at)).data
        if np.allclose(found, expected):
            continue
        if np.allclose(found, (up + ops.crop(scored, like=up, at=6)).data):
            return wrong(f"the crop is centred, and has to start at cell {at}")
        if np.allclose(found, (up + ops.crop(ops.conv2d(skip, w), like=up, at=at)).data):
            return wrong("the bias of the skip's score is missing")
        if np.allclose(found, 2 * up.data - expected):
            return wrong("the skip is subtracted; what it says is added to the upsampled score")
        if np.allclose(found, up.data):
            return wrong("that is the upsampled score alone; the skip has still to say where")
        return wrong(f"with at={at} your score differs from upsample + crop(conv2d(skip)) at its first cell or later")
    return right("one rung of the ladder, and FCN-8s has two of them")


@exercise
def check_multiplier(answer):
    """`answer(c)`: (learning rate multiplier, decay multiplier) that v = c * w needs to move as w does behind c * x."""
    rng = np.random.default_rng(8)
    for c in (0.01, 0.5, 0.0001):
        rate, decay = two(answer(c), "(learning rate multiplier, decay multiplier)")
        targets, x, momentum, lr, shrink = rng.normal(size=6), 2.0, 0.9, 0.05, 0.1
        w, v, h, k = 1.0, c, 0.0, 0.0
        for target in targets:
            h = momentum * h + lr * (c * x * (w * c * x - target) + shrink * w)
            k = momentum * k + lr * rate * (x * (v * x - target) + shrink * decay * v)
            w, v = w - h, v - k
        if np.isclose(c * w, v, rtol=1e-9):
            continue
        if np.isclose(rate, c):
            return wrong(
                f"c = {c}: c enters twice, in the gradient of w and again in what a step of w does to the score"
            )
        if np.isclose(rate, c * c):
            return wrong(f"c = {c}: the learning rate is right; decay * rate has to stay what it was for w")
        return wrong(f"c = {c}: after six steps v is {v:.6g} and c * w is {c * w:.6g}")
    return right("a scale of 0.01 is a learning rate of 0.0001 for the score of the skip")


@exercise
def check_fcn4s(answer):
    """`answer`: (crop of pool2, crop of the image) in FCN-4s."""
    first, second = two(answer, "(crop of pool2, crop of the image)")
    ladder = Ladder(paths(VGG, 100), ("pool4", "pool3", "pool2"))
    pool2, image = ladder.rungs[-2].at, ladder.rungs[-1].at
    if (first, second) == (pool2, image):
        return right("5, 9, 17: each rung doubles the offset and takes one away; 33 is the padding less 67")
    if (first, second) == (image, pool2):
        return wrong(f"the right numbers in the wrong order: {second} cells of pool2, {first} pixels of the image")
    if first == pool2:
        return wrong(f"pool2 is right; {second} is not where the image begins in the scores after the last kernel of 8")
    kernel = Layer(8, 4, transpose=True)
    start = Grid.through(Grid(ladder.grids["pool2"].stride), kernel).start
    return wrong(f"pool2 is not cropped at {first}; with stride 4 the last kernel is 8 and shifts by {start} pixels")


check_quiz = quiz(
    """b: the distance of the first cells, in cells of pool4
    a: pool4 is larger, but a centred crop would not put cells on cells
    c: it is computed from kernels, strides and paddings, in fractions""",
    """b: c enters twice
    a: c enters once in the gradient of w, and once more in what a step of w does to the score
    c: smaller numbers give a smaller gradient, so it learns more slowly""",
    """a: max(u, 0) is not u where u < 0
    b: the larger of u and 0 is never twice u
    c: that is true of the sum; the larger of u and 0 is 0 where u is negative""",
)
