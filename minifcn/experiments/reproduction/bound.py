"""The upper bound on mean IU for coarse predictions (appendix A of the paper).

    print(upper_bound("VOCdevkit/VOC2012"))

The paper does not say how it made the labels coarse, nor how fine again, so here are several ways, each in full. At
factor f, cell (i, j) covers the f x f pixels from (f i, f j) on; at the right and the bottom those that are left, as
pools that round up have it. Down:

    sampled      the label of the cell's middle pixel; where that has none, the cell's most frequent label
    majority     the cell's most frequent label, of equals the class with the smaller number
    shares       the share of each class in the cell's labelled pixels: a score for each class

and up again:

    blocks       each pixel takes its cell's label
    bilinear     one score a class (1 and 0, where cells hold labels), interpolated between the middles of the cells and
                 constant beyond the outermost; a pixel takes the class of the highest score

Void pixels are never scored, and have no vote: a cell of void alone answers nothing that counts. But the void that
PASCAL VOC draws around its objects then hides what is lost along their edges, so there is the other way, too: with
"void votes", void is one more class, and a labelled pixel that is answered void is missed.

One confusion matrix over all images, and the mean over the classes that occur.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from minifcn.data.prefetch import loaded
from minifcn.data.sample import VOID
from minifcn.data.voc import VOCSegmentation
from minifcn.errors import UsageError, whole
from minifcn.formats.limits import path_of
from minifcn.introspect.markup import text_table
from minifcn.metrics import ConfusionMatrix

FACTORS = (128, 64, 32, 16, 8, 4)
PAPER = (50.9, 73.3, 86.1, 92.8, 96.4, 98.5)
GAP = "gap"  # the mean distance from the paper's figures
MASKS = "voc2012_mini"  # below the folder that MINIFCN_DATA names


@dataclass(frozen=True)
class Bound:
    """The table, to be printed as it is: `header`, and lines of a name, a mean IU in percent for each factor, and their
    mean distance from the paper's.

    `images` were counted, of `classes` that occur in them; `skipped` says in a sentence why there were none.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]
    images: int
    classes: int
    skipped: str = ""

    def __str__(self) -> str:
        lines = [self.header, *(tuple(str(cell) for cell in line) for line in self.rows)]
        return "\n".join(
            [*text_table(lines, left=1), self.skipped or f"{self.images} images, {self.classes} classes in them"]
        )


def upper_bound(
    folder: str | os.PathLike[str] | None = None, *, split: str | None = None, factors: Sequence[int] = FACTORS
) -> Bound:
    """Return the table for the masks of a VOC tree (`split=None`: all of them), the paper's figures in its first line.

    Without a folder, for PASCAL VOC's masks in MINIFCN_DATA; where there are none the paper's line stands alone, and
    `skipped` says why. Raises `UsageError` for a factor below 1, `DataError` for what the tree has wrong.
    """
    if not all(whole(factor, least=1) for factor in factors):
        raise UsageError(f"upper_bound: factors are {tuple(factors)}; expected whole numbers of at least 1")
    header = ("factor", *(str(factor) for factor in factors), GAP)
    known = dict(zip(FACTORS, PAPER, strict=True))
    paper = ("the paper", *(known.get(factor, "-") for factor in factors), "-")
    if folder is None:
        data = os.environ.get("MINIFCN_DATA")
        folder = path_of(data or "") / MASKS
        if not data or not folder.is_dir():
            why = f"holds no {MASKS}" if data else "is not set"
            return Bound(header, (paper,), 0, 0, f"Skipped: MINIFCN_DATA {why}, and the bound is one of real masks.")
    dataset = VOCSegmentation(folder, split)
    # one class more: to be answered void is to be wrong
    matrices = {
        (name, factor): ConfusionMatrix(len(dataset.classes) + 1, VOID + 1) for name in WAYS for factor in factors
    }
    for sample in loaded(dataset, workers=2):
        score(sample.label, matrices)
    lines = []
    for name in WAYS:
        values = [round(100 * matrices[name, factor].mean_iu("present-in-gt"), 1) for factor in factors]
        apart = [abs(value - known[factor]) for value, factor in zip(values, factors, strict=True) if factor in known]
        lines.append((name, *values, round(sum(apart) / len(apart), 1) if apart else "-"))
    occurring = max((int((matrix.true_pixels() > 0).sum()) for matrix in matrices.values()), default=0)
    return Bound(header, (paper, *lines), len(dataset), occurring)


def score(label: np.ndarray, matrices: dict[tuple[str, int], ConfusionMatrix]) -> None:
    """Count one mask (H, W) in the matrix of every way and factor."""
    known = label != VOID
    present = np.unique(label[known]).astype(np.int64)
    if not present.size:
        return
    here = len(present)
    masks = np.concatenate([label == present[:, None, None], ~known[None]])  # the classes of this image, then void
    truth = np.searchsorted(present, label[known]) * (here + 1)
    for factor in sorted({factor for _, factor in matrices}):
        votes = cell_votes(masks, factor)
        for name, way in WAYS.items():
            if (name, factor) in matrices:
                voters = here + way.void_votes
                scores = way.down(masks[:voters], votes[:voters], factor)
                answer = way.up(scores, label.shape, factor)[known]
                counts = np.bincount(truth + answer, minlength=here * (here + 1)).reshape(here, here + 1)
                matrix = matrices[name, factor].matrix
                matrix[np.ix_(present, np.append(present, len(matrix) - 1))] += counts


def cell_votes(masks: np.ndarray, factor: int) -> np.ndarray:
    """Return how many pixels of each class are in each cell: (C, H, W) bool -> (C, ceil(H/f), ceil(W/f))."""
    rows = np.add.reduceat(masks, np.arange(0, masks.shape[1], factor), axis=1, dtype=np.int32)
    return np.add.reduceat(rows, np.arange(0, masks.shape[2], factor), axis=2)


# ---- down: from masks (C, H, W) and votes (C, h, w) to scores (C, h, w) ---------------------------------------------


def sampled(masks: np.ndarray, votes: np.ndarray, factor: int) -> np.ndarray:
    """Return 1 for the class of the middle pixel (the first of two or four; at the ends, of what is left), else 0."""
    rows, cols = (middles(size, factor) for size in masks.shape[1:])
    scores = masks[:, rows[:, None], cols].astype(np.float32)
    return np.where(scores.any(axis=0), scores, majority(masks, votes, factor))


def middles(size: int, factor: int) -> np.ndarray:
    """Return the middle pixel of every cell along one axis."""
    starts = np.arange(0, size, factor)
    return (starts + np.minimum(starts + factor, size) - 1) // 2


def majority(masks: np.ndarray, votes: np.ndarray, factor: int) -> np.ndarray:
    """Return 1 for the class with most votes, the first of equals, else 0; a cell without votes has 0 everywhere."""
    best = np.arange(len(votes))[:, None, None] == highest(votes)
    return (best & votes.any(axis=0)).astype(np.float32)


def shares(masks: np.ndarray, votes: np.ndarray, factor: int) -> np.ndarray:
    """Return what part of a cell's votes each class has."""
    return (votes / np.maximum(votes.sum(axis=0), 1)).astype(np.float32)


# ---- up: from scores (C, h, w) to the index of a class for each pixel (H, W) ----------------------------------------


def blocks(scores: np.ndarray, size: tuple[int, ...], factor: int) -> np.ndarray:
    """Return each cell's best class, for all its pixels."""
    return highest(scores).repeat(factor, axis=0).repeat(factor, axis=1)[: size[0], : size[1]]


def bilinear(scores: np.ndarray, size: tuple[int, ...], factor: int) -> np.ndarray:
    """Return the class whose score is best once interpolated."""
    rows, cols = (weights(n, cells, factor) for n, cells in zip(size, scores.shape[1:], strict=True))
    return highest(rows @ scores @ cols.T)


def weights(size: int, cells: int, factor: int) -> np.ndarray:
    """Return (size, cells): what each pixel takes of each cell; the middle of cell i is at f i + (f - 1) / 2."""
    place = np.clip((np.arange(size) - (factor - 1) / 2) / factor, 0, cells - 1)
    return np.maximum(0, 1 - abs(place[:, None] - np.arange(cells))).astype(np.float32)


def highest(scores: np.ndarray) -> np.ndarray:
    """Return `scores.argmax(axis=0)`, which is slow where the axis is short."""
    best, index = scores[0].copy(), np.zeros(scores.shape[1:], np.uint8)
    for number, plane in enumerate(scores[1:], start=1):
        index[plane > best] = number
        np.maximum(best, plane, out=best)
    return index


@dataclass(frozen=True)
class Way:
    """How the truth is made coarse, and how fine again."""

    down: Callable[[np.ndarray, np.ndarray, int], np.ndarray]
    up: Callable[[np.ndarray, tuple[int, ...], int], np.ndarray]
    void_votes: bool = False


WAYS = {
    "sampled, blocks": Way(sampled, blocks),
    "sampled, bilinear": Way(sampled, bilinear),
    "majority, blocks": Way(majority, blocks),
    "majority, bilinear": Way(majority, bilinear),
    "shares, bilinear": Way(shares, bilinear),
    "sampled, blocks, void votes": Way(sampled, blocks, void_votes=True),
    "shares, bilinear, void votes": Way(shares, bilinear, void_votes=True),
}
