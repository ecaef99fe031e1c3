"""Notebook 10: train a net."""

import numpy as np

from minifcn.metrics import ConfusionMatrix
from minifcn.optim import learning_rate

from . import exercise, number, quiz, right, two, wrong


@exercise
def check_majority(answer):
    """`answer(share, classes)`: (pixel accuracy, mean IU) of a net that says the class of that share everywhere."""
    for share, classes in ((0.7, 8), (0.73, 21), (0.5, 2)):
        rest = (1 - share) / (classes - 1)
        matrix = np.zeros((classes, classes), np.int64)
        matrix[:, 0] = np.rint(1e9 * np.array([share] + [rest] * (classes - 1)))
        confusion = ConfusionMatrix.of(matrix)
        expected = confusion.pixel_accuracy(), confusion.mean_iu()
        pixel, mean_iu = two(answer(share, classes), "(pixel accuracy, mean IU)")
        case = f"a share of {share} and {classes} classes, all of which occur"
        if not np.isclose(pixel, expected[0], atol=1e-6):
            return wrong(f"{case}: your pixel accuracy is {pixel:.3f}; how many of all pixels are of that class?")
        if np.isclose(mean_iu, confusion.mean_accuracy(), atol=1e-6):
            return wrong(f"{case}: {mean_iu:.3f} is the mean accuracy; the IU is not 1: the class took all pixels")
        if np.isclose(mean_iu, share, atol=1e-6):
            return wrong(f"{case}: {share} is the IU of that one class; all others have IU 0 and are in the mean")
        if not np.isclose(mean_iu, expected[1], atol=1e-6):
            return wrong(f"{case}: your mean IU is {mean_iu:.3f}; one class has IU {share}, the others have 0")
    return right("one class at its share, all others at 0: a good pixel accuracy and a mean IU near nothing")


@exercise
def check_poly(answer):
    """`answer(step, steps, lr)`: the learning rate of a step, counted from 0, of so many."""
    for step, steps, lr in ((0, 200, 0.05), (100, 200, 0.05), (199, 200, 0.05), (7, 10, 3.0)):
        expected = learning_rate(step, steps, lr=lr, schedule="poly")
        found = number(answer(step, steps, lr))
        case = f"step {step} of {steps}, from {lr:g}"
        if np.isclose(found, expected, rtol=1e-6):
            continue
        hints = {
            "that is a straight line; the power 0.9 bends it": lr * (1 - step / steps),
            "the power is of what is left, 1 - step/steps, and not of what is done": lr * (1 - (step / steps) ** 0.9),
            "the first step is step 0 and has the whole rate": lr * (1 - (step + 1) / steps) ** 0.9,
            "the last step is not 0: the line reaches 0 after it": lr * (1 - step / (steps - 1)) ** 0.9,
            "the power is of the share alone, not of the rate": (lr * (1 - step / steps)) ** 0.9,
            "the rate has to fall with the step": lr,
        }
        for hint, value in hints.items():
            if np.isclose(found, value, rtol=1e-6):
                return wrong(f"{case}: {found:.4g}; {hint}")
        return wrong(f"{case}: you say {found:.4g}; expected {expected:.4g}")
    return right("nearly straight, from the whole rate down to almost nothing")


def in_the_long_run(rate, pixels, momentum):
    """The rate, with the mean loss of a pixel and no momentum, that is like `rate` with a sum and with momentum."""
    return rate * pixels / (1 - momentum)


@exercise
def check_mean_rate(answer):
    """`answer(rate, pixels, momentum)`: the rate that moves as far with the mean loss and without momentum."""
    for rate, pixels, momentum in ((1e-10, 187_500, 0.99), (1e-4, 1, 0.5), (1e-3, 100, 0.0)):
        expected = in_the_long_run(rate, pixels, momentum)
        found = number(answer(rate, pixels, momentum))
        case = f"rate {rate:g}, {pixels:,} pixels, momentum {momentum:g}"
        if np.isclose(found, expected, rtol=1e-6):
            continue
        hints = {
            "the sum of a gradient's parts, 1 + m + m^2 + ..., is 1 / (1 - m), not 1 - m":
                rate * pixels * (1 - momentum),
            "that is without the momentum, which adds each gradient to the steps that follow": rate * pixels,
            "a sum over the pixels is so many times as large as their mean, so a mean wants a larger rate":
                rate / pixels / (1 - momentum),
            "the loss is summed over the pixels: its gradient is so many times as large as that of the mean":
                rate / (1 - momentum),
            "1 + m + m^2 + ... is 1 / (1 - m), not 1 + m": rate * pixels * (1 + momentum),
        }  # fmt: skip
        for hint, value in hints.items():
            if np.isclose(found, value, rtol=1e-6):
                return wrong(f"{case}: {found:.3g}; {hint}")
        return wrong(f"{case}: you say {found:.3g}; expected {expected:.3g}")
    return right("1e-10 for a sum over 187,500 pixels, times a hundred by momentum: an ordinary rate")


check_quiz = quiz(
    {
        "b": "ln 21 = 3.04",
        "a": "3.04 is ln 21, which is what a net that knows nothing must begin with",
        "c": "pretraining changes the trunk; the scores still begin at zero, and so the loss at ln 21",
    },
    {
        "a": "background has most of the pixels",
        "b": "there each class counts the same, and all but one have 0",
        "c": "there each class counts the same, and all but one have 0",
    },
    {
        "c": "it knows these photographs; whether it knows cups, only others show",
        "a": "the trunk knows cups, but the scores saw one; section 9 shows how little that says",
        "b": "in section 9 it was not a little worse, but far worse",
    },
)
