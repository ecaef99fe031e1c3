"""Notebook 11: read a run."""

import numpy as np

from minifcn.metrics import ConfusionMatrix

from . import exercise, number, quiz, right, short, wrong

VERDICTS = ("healthy", "rate too low", "rate too high", "too few images")
RUNS = {"A": "rate too high", "B": "healthy", "C": "too few images", "D": "rate too low"}


@exercise
def check_confusion(answer):
    """`answer(truth, prediction, classes)`: n[i, j] pixels of class i were called j; truth 255 counts nowhere."""
    rng = np.random.default_rng(10)
    for classes, shape in ((3, (4, 5)), (1, (2, 2)), (21, (30, 40))):
        truth, prediction = rng.integers(0, classes, (2, *shape), dtype=np.uint8)
        truth[0] = 255
        confusion = ConfusionMatrix(classes)
        confusion.update(truth, prediction)
        expected = confusion.matrix
        found = np.asarray(answer(truth.copy(), prediction.copy(), classes))
        case = f"{classes} classes, {truth.size} pixels, {shape[1]} of them void"
        if found.shape != expected.shape:
            return wrong(f"{case}: your table has shape {found.shape}; expected ({classes}, {classes})")
        if np.array_equal(found, expected):
            continue
        if np.array_equal(found, expected.T):
            return wrong(f"{case}: rows and columns are exchanged; the truth chooses the row")
        if found.sum() == truth.size:
            return wrong(
                f"{case}: you counted {found.sum()} pixels; void pixels belong to no class, and must not be counted"
            )
        if found.sum() != expected.sum():
            return wrong(f"{case}: you counted {found.sum()} pixels; expected {expected.sum()}")
        return wrong(f"{case}: the number of pixels is right, but they stand in other cells")
    return right("every labelled pixel stands in one cell, its truth the row, its prediction the column")


@exercise
def check_mean_iu(answer):
    """`answer(matrix)`: the mean of n_ii / (t_i + p_i - n_ii) over the classes that occur or are predicted."""
    rng = np.random.default_rng(11)
    absent = rng.integers(0, 50, (4, 4))
    absent[2] = absent[:, 2] = 0
    cases = {"2 classes": rng.integers(1, 50, (2, 2)), "5 classes": rng.integers(0, 50, (5, 5)), "absent": absent}
    for name, matrix in cases.items():
        case = "a class that neither occurs nor is predicted" if name == "absent" else name
        confusion = ConfusionMatrix.of(matrix)
        with np.errstate(all="ignore"):
            found = number(answer(matrix.copy()))
        if np.isclose(found, confusion.mean_iu()):
            continue
        hints = {
            "that is the mean accuracy: its fractions do not blame a class for the pixels it took from others, p_i":
                confusion.mean_accuracy(),
            "that is the pixel accuracy, which a class of 70 % of the pixels decides alone":
                confusion.pixel_accuracy(),
            "that is the frequency weighted IU; here every class weighs the same":
                confusion.frequency_weighted_iu(),
            "the pixels n_ii are in t_i and in p_i, so the union has them twice; subtract them once":
                float(np.nanmean(np.diag(matrix) / np.maximum(matrix.sum(0) + matrix.sum(1), 1))),
            "a class without pixels has the fraction 0/0, and was counted as 0; leave it out of the mean":
                confusion.mean_iu("zero"),
        }  # fmt: skip
        for hint, value in hints.items():
            if np.isclose(found, value):
                return wrong(f"{case}: {found:.4f}; {hint}")
        if np.isnan(found):
            return wrong(f"{case}: your mean is NaN, because one fraction is 0/0; leave that class out")
        return wrong(f"{case}: your mean IU is {found:.4f}; expected {confusion.mean_iu():.4f}")
    return right("intersection over union, class by class, and the mean of those that exist")


def said(verdict):
    """Return a verdict as `VERDICTS` writes it: in small letters, with one space between words."""
    return (
        " ".join(verdict.lower().replace("-", " ").replace("_", " ").split()) if isinstance(verdict, str) else verdict
    )


@exercise
def check_diagnosis(answer):
    """`answer`: for each of the runs A to D one of `VERDICTS`."""
    if isinstance(answer, list | tuple):
        answer = dict(zip(RUNS, answer, strict=False))
    if not isinstance(answer, dict):
        return wrong(f'expected a verdict for each run, {{"A": "healthy", ...}}; found {short(answer)}')
    answer = {str(run).strip().upper(): said(verdict) for run, verdict in answer.items()}
    missing = [run for run in RUNS if answer.get(run, ...) in (..., None)]
    if missing:
        return wrong(f"run {missing[0]} has no verdict yet")
    for run, verdict in answer.items():
        if run not in RUNS or verdict not in VERDICTS:
            return wrong(f"{run!r}: {verdict!r} is unknown; the runs are A to D, the verdicts {', '.join(VERDICTS)}")
    hints = {
        "rate too high": "its loss jumps above ln 8 and up again, and what it learns comes late and remains little",
        "rate too low": "its loss falls smoothly, but in all these steps only as far as the shares of the classes",
        "too few images": "its loss ends the lowest of all, and its mean IU does not follow",
        "healthy": "its loss falls and its mean IU rises, to the last step",
    }
    for run, verdict in RUNS.items():
        if answer[run] != verdict:
            return wrong(f"run {run} is not {answer[run]!r}: {hints[verdict]}")
    return right("the loss shows whether it learns, the validation set whether it learned the right thing")


check_quiz = quiz(
    {
        "c": "the net learns its few images by heart",
        "a": "with a rate that is too low the training loss would hardly fall",
        "b": "with a rate that is too high the training loss would jump, or stay high",
    },
    {
        "a": "counts add up, and the fractions are computed once",
        "b": "a mean IU is a fraction of counts, and fractions do not average to the fraction of the sums",
        "c": "the weights would have to be the unions of each class, which the number of images is not",
    },
    {
        "b": "every random number is drawn for its step",
        "a": "it goes on after the last checkpoint",
        "c": "the comparison is bit by bit, and a step that changes little still changes bits",
    },
)
