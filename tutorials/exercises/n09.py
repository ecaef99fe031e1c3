"""Notebook 09: patchwise training is loss sampling."""

import numpy as np

from minifcn.geometry import Grid, Layer
from minifcn.sampling import class_weights

from . import exercise, number, quiz, right, two, wrong


@exercise
def check_patch(answer):
    """`answer(grid, i)`: (first, stop), the pixels that cell i of a map with this `Grid` sees along one axis."""
    for name, layers in {
        "conv 3": [Layer(3)],
        "conv 3, pool 2, conv 3": [Layer(3), Layer(2, 2), Layer(3)],
        "conv 5 with stride 3": [Layer(5, 3)],
    }.items():
        grid = Grid.of(layers)
        for i in (0, 1, 4):
            first, stop = two(answer(grid, i), "(first, stop)")
            left = grid.start + grid.stride * i - (grid.field - 1) / 2
            if (first, stop) == (left, left + grid.field):
                continue
            if stop - first != grid.field:
                return wrong(f"{name}: your patch is {stop - first} pixels wide; a cell sees {grid.field}")
            return wrong(f"{name}: cell {i} sees the pixels from {left} on, yours begin at {first}")
    return right("the centre is at stride * i + start, and half the field lies on either side")


@exercise
def check_unbiased(answer):
    """`answer(g, keep, p)`: an estimate of g.sum() out of the kept g, right on average; keep (n,) holds 0 and 1."""
    rng = np.random.default_rng(9)
    for p in (0.25, 0.5, 1.0):
        g = rng.normal(loc=1.0, size=40)
        masks = rng.random((4000, 40)) < p
        found = np.array([number(answer(g.copy(), keep.astype(float), p)) for keep in masks[: 1 if p == 1 else 4000]])
        error = (1 / p - 1) ** 0.5 * float(np.sqrt((g**2).sum())) / len(found) ** 0.5
        if abs(found.mean() - g.sum()) < 6 * error + 1e-9 and (p == 1 or found.std() > 1e-9):
            continue
        if p < 1 and found.std() <= 1e-9:
            return wrong(f"p = {p}: your estimate is the same for every mask, so it looked at cells that were not kept")
        if abs(found.mean() - p * g.sum()) < 6 * error:
            return wrong(f"p = {p}: on average your estimate is {p} times the sum; the kept cells stand for the others")
        return wrong(f"p = {p}: on average your estimate is {found.mean():.2f}, the sum is {g.sum():.2f}")
    return right("divide what is kept by the probability of keeping it")


@exercise
def check_images(answer):
    """`answer`: how many images a batch needs at p = 0.2 for as many cells as 10 whole images."""
    if number(answer) == 50:
        return right("1/p times as many images, and the convolutions work for every one of them")
    hints = {2: "that is how many images' worth of cells 10 images leave", 10: "10 images leave a fifth of their cells"}
    return wrong(hints.get(answer, f"{answer} images keep {answer * 0.2:.4g} images' worth of cells; expected 10"))


@exercise
def check_weights(answer):
    """`answer(counts)`: weights (C,) that make all classes weigh alike, and the average cell weigh 1."""
    for counts in (np.array([80, 15, 5]), np.array([3, 3, 3, 3]), np.array([900, 0, 100])):
        found, expected = np.asarray(answer(counts.copy()), dtype=float), class_weights(counts)
        if found.shape != expected.shape:
            return wrong(f"{counts}: your weights have shape {found.shape}; expected one for each class")
        if np.allclose(found, expected, rtol=1e-4):
            continue
        if not np.isfinite(found).all():
            return wrong(f"{counts}: the weights are {found}; a class without a cell gets 0")
        total = found * counts
        if np.allclose(total[counts > 0], total[counts > 0][0]):
            return wrong(
                f"{counts}: all classes weigh alike, but the average cell weighs {total.sum() / counts.sum():.4g}"
            )
        return wrong(f"{counts}: weight * cells is {np.round(total, 3)}; it should be the same for every class")
    return right("the loss keeps its size, and every class its say")


check_quiz = quiz(
    {
        "c": "each kept cell stands for four",
        "a": "the kept cells are already a quarter of all; this would make them a sixteenth",
        "b": "the kept cells alone are on average a quarter of the sum",
    },
    {
        "c": "the convolutions run over the whole image",
        "a": "the net runs over the whole image before the loss drops anything",
        "b": "every map is computed and remembered as before; only the mask at the loss is new",
    },
    {
        "b": "frequent classes are predicted less often",
        "a": "it rises: rare classes are found more often, and each class counts the same in it",
        "c": "frequent classes are predicted less often, and most pixels are theirs",
    },
)
