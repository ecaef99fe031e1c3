"""Notebook 05, from classifier to fully convolutional network: have you understood what surgery does?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minifcn.geometry import out_size
from minifcn.models.lenet import LeNet

from . import Verdict, exercise, number, plain, quiz, right, short, wrong


@exercise
def check_fc_to_conv(answer: Callable) -> Verdict:
    """`answer(w, channels, kernel)`: w (O, I) of a fully connected layer as w (O, channels, kernel, kernel)."""
    rng = np.random.default_rng(5)
    for outputs, channels, kernel in ((1, 1, 2), (3, 4, 2), (2, 3, 5)):
        w = rng.integers(-9, 10, (outputs, channels * kernel * kernel))
        maps = rng.integers(-9, 10, (channels, kernel, kernel))
        found = answer(w.copy(), channels, kernel)
        shape = (outputs, channels, kernel, kernel)
        if np.shape(found) != shape:
            return wrong(
                f"of w {w.shape}, {channels} channels and kernel {kernel} you make {np.shape(found)}, not {shape}"
            )
        if not np.array_equal((found * maps).sum(axis=(1, 2, 3)), w @ maps.reshape(-1)):
            return wrong(
                "the shape is right, but on maps of its own size your convolution differs from the layer; "
                "maps are flattened in the order channel, row, column"
            )
    return right("a reshape and nothing else; no weight changes, none is added")


@exercise
def check_cells(answer: Callable) -> Verdict:
    """`answer(size)`: how many answers per side the convolutional LeNet gives for an image of `size` pixels."""
    chain = LeNet(init="zero").layers()
    for size in (28, 32, 100, *range(29, 60)):
        cells, found = out_size(chain, size), number(answer(size))
        if found != cells:
            hint = (
                "windows of 28 pixels, one every 4: the first one counts, too"
                if (size - 28) % 4 == 0
                else "the pools are in Caffe's ceil mode: a last window that hangs over the edge counts as well"
            )
            return wrong(f"{size} pixels give {cells} answers per side, you say {found}; {hint}")
    return right("a cell for each window, and one more where the last window hangs over the edge")


@exercise
def check_window(answer: Callable) -> Verdict:
    """`answer(i, j)`: (top, left, bottom, right), such that cell (i, j) sees x[top:bottom, left:right]."""
    for i, j in ((0, 0), (0, 3), (5, 2)):
        found, expected = answer(i, j), (4 * i, 4 * j, 4 * i + 28, 4 * j + 28)
        if not np.iterable(found) or len(found) != 4:
            return wrong(f"expected four numbers, (top, left, bottom, right); found {short(found)}")
        found = tuple(plain(n) for n in found)
        if found != expected and found == (expected[1], expected[0], expected[3], expected[2]):
            return wrong(f"for cell ({i}, {j}) you say {found}: rows come before columns, top before left")
        if (found[2] - found[0], found[3] - found[1]) != (28, 28):
            return wrong(f"your window of cell ({i}, {j}), {found}, is not 28 pixels on a side; bottom is not included")
        if found != expected:
            return wrong(f"cell ({i}, {j}) sees {expected}, you say {found}; cells are 4 pixels apart")
    return right("28 pixels on a side, one window every 4")


@exercise
def check_average(answer: int) -> Verdict:
    """The side of the window over which the dense SqueezeNet averages each class's map."""
    if answer == 13:
        return wrong("fire9 makes 13x13 cells of 227 pixels; conv10 has padding 1 and adds a ring around them")
    if answer in (1, 227):
        return wrong(
            f"{answer} is the side of {'the answer' if answer == 1 else 'the image'}; count cells of conv10's map"
        )
    if isinstance(answer, bool) or answer != 15:
        return wrong(
            f"you say {answer!r}; the side is a whole number: put 227 through conv1, the three pools in ceil mode, and "
            "conv10 with padding 1"
        )
    return right("227 -> 111 -> 55 -> 27 -> 13, and conv10's padding makes 15 of 13")


check_quiz = quiz(
    "b: w.reshape and nothing else",
    "b: (60 - 28) / 4 + 1",
    "c: inside the photograph the padding is replaced by pixels",
)
