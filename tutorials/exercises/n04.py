"""Notebook 04: pools, receptive fields, and the padding of 100."""

from dataclasses import replace

import numpy as np

from minifcn.geometry import Grid, Layer
from minifcn.models.ladder import safe_padding
from minifcn.models.vgg import VGG

from . import exercise, number, quiz, right, two, wrong


def vgg(padding=100, layers=16):
    """The paths of VGG's outputs: windows alone, no weights worth the name."""
    return VGG(layers=layers, width=1, padding=padding, init="zero", rng=np.random.default_rng(0)).paths()


def whole(answer):
    return isinstance(answer, (int, np.integer)) and not isinstance(answer, bool)


@exercise
def check_out_size(answer):
    """`answer(size, kernel, stride, padding, ceil)`: how many windows of a pool there are along one axis."""
    cases = [(7, 2, 2, 0, False), (7, 2, 2, 0, True), (8, 2, 2, 0, True), (500, 3, 2, 0, True), (6, 3, 2, 0, False)]
    cases += [(6, 3, 2, 0, True), (6, 3, 3, 1, True), (5, 2, 2, 1, True), (4, 2, 2, 1, True), (9, 3, 3, 1, True)]
    for size, kernel, stride, padding, ceil in cases:
        expected = Layer(kernel, stride, padding, ceil=ceil).out_size(size)
        found = number(answer(size, kernel, stride, padding, ceil))
        case = f"{size} pixels, kernel {kernel}, stride {stride}, padding {padding}, ceil {ceil}"
        if found != expected:
            if found == expected + 1 and ceil and padding:
                begins = expected * stride - padding
                return wrong(f"{case}: your last window begins at pixel {begins}, in the padding; Caffe drops it")
            if found == expected - 1 and ceil:
                return wrong(f"{case}: you say {found}, but one more window hangs over the end and counts")
            if found == expected + 1 and ceil:
                return wrong(f"{case}: you say {found}, but no pixel is left over, so there is no window more")
            return wrong(f"{case}: you say {found!r}, expected {expected}")
    return right("floor, ceil, and no window that would begin in the padding")


@exercise
def check_compose(answer):
    """`answer((k, s), (k2, s2))`: kernel and stride of the one layer that does both; (k2, s2) looks at the image."""
    for outer, inner in (((4, 3), (3, 2)), ((3, 1), (3, 1)), ((2, 2), (3, 1)), ((7, 1), (212, 32)), ((1, 1), (5, 4))):
        (k, s), (k2, s2) = outer, inner
        kernel, stride = two(answer(outer, inner), "(kernel, stride)")
        if stride != s * s2:
            return wrong(f"{outer} after {inner}: your stride is {stride}; a step of {s} cells that are {s2} apart?")
        if kernel == k2 + (k - 1) * s2:
            continue
        if kernel == k + (k2 - 1) * s:
            return wrong(f"{outer} after {inner}: {kernel} is the rule the wrong way round; who looks at the image?")
        if kernel == k2 + k * s2:
            return wrong(
                f"{outer} after {inner}: {kernel} is a stride too many; from the first to the last of {k} "
                f"cells are {k - 1} steps"
            )
        if kernel == k2 + k - 1:
            return wrong(
                f"{outer} after {inner}: a kernel of {kernel} would do for cells 1 pixel apart; here it is {s2}"
            )
        return wrong(f"{outer} after {inner}: you say a kernel of {kernel}; expected {k2 + (k - 1) * s2}")
    return right("k' + (k - 1) s' and s s', and a whole net is folded by it")


@exercise
def check_vgg19(answer):
    """`answer`: the receptive field of fc7 in VGG-19."""
    expected = int(Grid.of(vgg(layers=19)["fc7"]).field)
    if not whole(answer):
        return wrong(f"{answer!r} is no whole number of pixels")
    if answer == expected:
        return right("2 * (4 + 8 + 16) pixels more than 404")
    hints = {
        404: "that is VGG-16; three more convolutions must see more",
        404 + 3 * 2: "a window of 3 widens the field by 2 cells, and a cell there is not one pixel any more",
        404 + 4 + 8 + 16: "each window of 3 adds two steps, one to either side",
        404 + 2 * (8 + 16 + 32): "in block3 the cells are 4 pixels apart: its pool comes after it",
    }
    return wrong(
        hints.get(int(answer), "add 2 strides for each new window of 3: 4 in block3, 8 in block4, 16 in block5")
    )


@exercise
def check_padding(answer):
    """`answer`: the smallest padding that is safe for every size if fc6 is 5x5."""

    def paths(padding):
        changed = {}
        for name, path in vgg(padding).items():
            changed[name] = tuple(replace(layer, kernel=5) if layer.kernel == 7 else layer for layer in path)
        return changed

    if not whole(answer):
        return wrong(f"{answer!r} is no whole number of pixels")
    expected = safe_padding(paths, ())
    if answer == expected:
        return right("a single pixel needs 1 + 2P - 2 > 4 * 32, so that five cells come out of the last pool")
    if answer == 97:
        return wrong("97 is for a window of 7; a smaller one needs fewer cells of pool5, so less padding")
    if answer > expected:
        return wrong(f"{answer} is safe, but not the smallest: an image of 1 pixel still fits with one less")
    return wrong(f"with {answer} an image of 1 pixel gives pool5 fewer than 5 cells, and fc6 has no window; try more")


check_quiz = quiz(
    {
        "a": "3 + (3 - 1) * 1",
        "b": "the two windows overlap: the second adds its kernel minus one",
        "c": "kernels add up, 9 would be 3 times 3",
    },
    {
        "b": "the last window extends past the edge and counts",
        "a": "that is floor: one pixel is left over, and ceil counts a window for it",
        "c": "windows begin at pixels 0, 2, 4 and 6, and 8 is outside",
    },
    {
        "b": "(7 - 1) * 32",
        "a": "a step of this window is 32 pixels long",
        "c": "between 7 cells there are 6 steps, not 7",
    },
)
