"""The paper's four metrics, computed from one confusion matrix.

The table is the confusion matrix n: n[i, j] pixels are of class i and were called class j. It is gathered over a whole
data set before anything is divided. To average the measures of single images instead is a popular mistake: it weighs a
class by how many images show it, and leaves 0/0 wherever one does not.

With C classes, t_i = sum_j n[i, j] pixels of class i and p_i = sum_j n[j, i] pixels called i (section 5 of the paper):

    pixel accuracy           sum_i n[i, i] / sum_i t_i
    mean accuracy            (1/C) sum_i n[i, i] / t_i
    mean IU                  (1/C) sum_i n[i, i] / (t_i + p_i - n[i, i])
    frequency weighted IU    sum_i t_i n[i, i] / (t_i + p_i - n[i, i])  /  sum_i t_i

What 1/C means when a class never occurs is where published numbers quietly differ. `absent` says it aloud:

    "skip"            a class whose own fraction is 0/0 is left out of the mean (what the paper's released code does)
    "zero"            such a class counts as 0, so the mean is always over all C classes
    "present-in-gt"   only classes with true pixels are averaged (what the paper reports for SIFT Flow)

"skip" and "present-in-gt" part ways over a class that is predicted although it never truly occurs: its IU is 0/p = 0.
The first counts that 0, the second leaves the class out.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from minifcn.errors import DataError, ShapeError, UsageError

Absent = Literal["skip", "zero", "present-in-gt"]
ABSENT: tuple[Absent, ...] = ("skip", "zero", "present-in-gt")


class ConfusionMatrix:
    """Counts of (true class, predicted class) over every pixel that is not void, and the measures they give.

    `matrix` is (C, C) int64: rows are the truth, columns the prediction. Fractions are Python floats or float64
    arrays; a fraction with nothing below the line is NaN and never a warning.
    """

    def __init__(self, classes: int, void: int = 255) -> None:
        """Raise UsageError unless there is at least one class and `void` is none of them."""
        if classes < 1:
            raise UsageError(f"a confusion matrix needs at least 1 class, found {classes}")
        if 0 <= void < classes:
            raise UsageError(f"void is {void}, also one of the classes 0..{classes - 1}: choose another number")
        self.classes = classes
        self.void = void
        self.matrix = np.zeros((classes, classes), dtype=np.int64)

    @classmethod
    def of(cls, matrix: np.ndarray | list[list[int]], void: int = 255) -> ConfusionMatrix:
        """Return the measures of counts that already exist, such as those stored in a run's evaluation."""
        counts = np.asarray(matrix)
        if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.dtype.kind not in "iu":
            raise ShapeError(f"a confusion matrix is (C, C) of integers, found {counts.shape} of {counts.dtype}")
        if counts.size and counts.min() < 0:
            raise DataError(f"a confusion matrix holds counts, found {counts.min()}")
        if (total := counts.sum(dtype=np.float64)) >= 2**63:
            raise DataError(f"a confusion matrix counts pixels, found {total:.0e} of them; expected fewer than 2^63")
        confusion = cls(len(counts), void)
        confusion.matrix += counts.astype(np.int64)
        return confusion

    def __repr__(self) -> str:
        scores = f"mean IU {self.mean_iu():.3f}, pixel accuracy {self.pixel_accuracy():.3f}"
        return f"ConfusionMatrix({self.classes} classes, {self.matrix.sum()} pixels, {scores})"

    def update(self, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Count the pixels of one image, or of a batch: integer host arrays of one common shape, whatever it is.

        Void pixels of the truth drop out, and with them whatever was predicted there. Raises ShapeError for unequal
        shapes or values that are not integers, DataError for a class number out of range; nothing is counted then.
        """
        for name, labels in (("truth", truth), ("prediction", prediction)):
            if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
                found = labels.dtype if isinstance(labels, np.ndarray) else type(labels).__name__
                raise ShapeError(f"the {name} must be a NumPy array of class numbers, found {found}")
        if truth.shape != prediction.shape:
            raise ShapeError(f"the truth is {truth.shape} but the prediction is {prediction.shape}")
        scored = truth != self.void
        rows, columns = truth[scored], prediction[scored]
        self._check_range("truth", rows, f" or {self.void} for void")
        self._check_range("prediction", columns, "")
        # int64 first: 21 * 200 does not fit the uint8 that masks come in.
        # bincount counts with intp, which is int32 in a browser.
        cell = self.classes * rows.astype(np.int64) + columns.astype(np.int64)
        self.matrix += np.bincount(cell.astype(np.intp), minlength=self.classes**2).reshape(self.matrix.shape)

    def _check_range(self, name: str, labels: np.ndarray, also: str) -> None:
        wrong = labels[(labels < 0) | (labels >= self.classes)]
        if wrong.size:
            shown = ", ".join(str(value) for value in np.unique(wrong)[:5])
            raise DataError(f"the {name} holds {shown} ({wrong.size} pixels), expected 0..{self.classes - 1}{also}")

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """The matrix of both parts of a data set: counts add up, which no measure taken from them does."""
        if self.classes != other.classes:
            raise ShapeError(f"a matrix of {self.classes} classes cannot be added to one of {other.classes}")
        return ConfusionMatrix.of(self.matrix + other.matrix, self.void)

    # What is counted, per class.

    def true_pixels(self) -> np.ndarray:
        """t_i, (C,) int64."""
        return self.matrix.sum(axis=1)

    def predicted_pixels(self) -> np.ndarray:
        """p_i, (C,) int64."""
        return self.matrix.sum(axis=0)

    def shares_true(self) -> np.ndarray:
        """Return the part of all scored pixels that is of each class, (C,); all zero when nothing was scored."""
        return self.true_pixels() / max(int(self.matrix.sum()), 1)

    def shares_predicted(self) -> np.ndarray:
        """Return the part of all scored pixels that was called each class, (C,); a collapsed net shows here first."""
        return self.predicted_pixels() / max(int(self.matrix.sum()), 1)

    def accuracy(self) -> np.ndarray:
        """n[i, i] / t_i, (C,): how much of each class was found. NaN where the class never truly occurs."""
        return _divide(np.diag(self.matrix), self.true_pixels())

    def iu(self) -> np.ndarray:
        """Return intersection over union, (C,). NaN where a class neither occurs nor is predicted."""
        intersection = np.diag(self.matrix)
        return _divide(intersection, self.true_pixels() + self.predicted_pixels() - intersection)

    # The four measures of the paper.

    def pixel_accuracy(self) -> float:
        """Return the part of all scored pixels that got its true class; NaN when nothing was scored."""
        return float(_divide(np.trace(self.matrix), self.matrix.sum()))

    def mean_accuracy(self, absent: Absent = "skip") -> float:
        """Return the mean over classes of how much of each was found."""
        return self._mean(self.accuracy(), absent)

    def mean_iu(self, absent: Absent = "skip") -> float:
        """Return the mean over classes of intersection over union: the number the paper is known for."""
        return self._mean(self.iu(), absent)

    def frequency_weighted_iu(self) -> float:
        """Return IU averaged by true pixels, so that absent classes weigh nothing; NaN when nothing was scored."""
        pixels = self.true_pixels()
        occurs = pixels > 0
        return float(_divide((pixels[occurs] * self.iu()[occurs]).sum(), pixels.sum()))

    def summary(self, absent: Absent = "skip") -> dict[str, float]:
        """Return the four by name, in the order of the paper's tables."""
        return {
            "pixel_accuracy": self.pixel_accuracy(),
            "mean_accuracy": self.mean_accuracy(absent),
            "mean_iu": self.mean_iu(absent),
            "frequency_weighted_iu": self.frequency_weighted_iu(),
        }

    # Which classes a mean is over.

    def skipped(self, absent: Absent = "skip", *, measure: Literal["iu", "accuracy"] = "iu") -> tuple[int, ...]:
        """Return the classes that a mean leaves out under a policy. Print them beside the mean: they are part of it."""
        fractions = {"iu": self.iu, "accuracy": self.accuracy}[measure]()
        return tuple(int(index) for index in np.flatnonzero(~self._averaged(fractions, absent)))

    def _averaged(self, fractions: np.ndarray, absent: Absent) -> np.ndarray:
        if absent == "skip":
            return ~np.isnan(fractions)
        if absent == "zero":
            return np.ones(self.classes, dtype=bool)
        if absent == "present-in-gt":
            return self.true_pixels() > 0
        raise UsageError(f"absent is {absent!r}, expected one of {', '.join(map(repr, ABSENT))}")

    def _mean(self, fractions: np.ndarray, absent: Absent) -> float:
        kept = np.nan_to_num(fractions[self._averaged(fractions, absent)], nan=0.0)
        return float(kept.mean()) if kept.size else math.nan


def _divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, with 0 / 0 = NaN said on purpose instead of warned about."""
    return np.divide(above, below, out=np.full(np.shape(below), np.nan), where=np.asarray(below) > 0)
