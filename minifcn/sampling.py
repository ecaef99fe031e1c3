"""Patchwise training as loss sampling: masks, class balance and weights.

The loss of a fully convolutional net is a sum over the cells of its output, and each cell sees one patch of the image.
So a batch of patches needs no cutting: mask the loss. Keeping each cell with probability p gives random patches;
keeping rare classes more often balances them; random shifts of the image reach the patches between the cells. The
masked gradient *is* the sum of the kept patches' gradients (a test has it to 1e-12), for nets without padding: with
padding, patches at the border see it.

    keep = sample(labels, 0.25, rng)
    loss = ops.softmax_cross_entropy(net(x), labels, sampling=keep, normalize="none")

A sample may look at the loss, too: `sample_hardest` keeps the cells that the net gets most wrong, which is hard-pixel
mining.

The paper found that sampling does not converge faster (section 4.3, figure 5), and that VOC, three quarters background,
needs no balancing. FCN, section 3.4.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minifcn.backend import Array, xp_of
from minifcn.errors import UsageError


def sample(labels: np.ndarray, p: float, rng: np.random.Generator) -> np.ndarray:
    """A mask like `labels` (N, H, W), of 0 and 1: each cell is kept with probability `p`. Void stays void by itself.

    With p < 1, take 1/p times the images per batch for as many cells as before. `UsageError` for p outside (0, 1].
    """
    if not 0 < p <= 1:
        raise UsageError(f"sample: p is {p}; expected a probability above 0, at most 1")
    return (rng.random(labels.shape) < p).astype(np.uint8)


def sample_balanced(
    labels: np.ndarray, p: float, rng: np.random.Generator, *, classes: int, void: int = 255
) -> np.ndarray:
    """Return a mask like `sample`'s, with as many cells of each class that is there as can be had.

    In all about p times the cells with a label are kept, dealt out evenly over the classes: a class with fewer cells
    than its share keeps all, and what it leaves goes to the others. Void is never kept.
    """
    if not 0 < p <= 1:
        raise UsageError(f"sample_balanced: p is {p}; expected a probability above 0, at most 1")
    counts = count(labels, classes, void)
    kept = shares(counts, p * counts.sum())
    probability = np.append(kept / np.maximum(counts, 1), 0.0)
    return (rng.random(labels.shape) < probability[np.where(labels == void, classes, labels)]).astype(np.uint8)


def sample_centres(labels: np.ndarray, stride: int) -> np.ndarray:
    """Return a mask like `sample`'s, which keeps the pixel at the middle of each cell of `stride` x `stride` alone.

    There upsampling passes on the cell's own score, nearly, so a net learns as if it ended with its coarse scores: from
    one patch of the image a cell. The cells begin at the image's first pixel, as those of padding "same" do.
    """
    keep = np.zeros(labels.shape, np.uint8)
    keep[..., (stride - 1) // 2 :: stride, (stride - 1) // 2 :: stride] = 1
    return keep


def sample_hardest(losses: Array, counts: Array, share: float) -> Array:
    """Return a mask (N, H, W) of the cells of each image with the largest `losses` (N, H, W), among those where
    `counts`.

    Like every sample of section 3.4 it masks the loss, so the gradient is that of the patches that the kept cells see;
    but it draws nothing: it keeps `hardest(number of cells that count, share)` of each image, of equal losses those
    that come first by rows; NaN is the largest. It is computed where the arrays are: a GPU is not waited for.
    `UsageError` for a share outside (0, 1].
    """
    xp, flat = xp_of(losses), (len(losses), -1)
    there, loss = counts.reshape(flat) != 0, losses.reshape(flat)
    loss = xp.where(xp.isnan(loss), math.inf, loss)
    order = xp.argsort(xp.where(there, -loss, math.inf), axis=1, kind="stable")  # what does not count comes last
    chosen = xp.arange(loss.shape[1]) < hardest(there.sum(axis=1), share)[:, None]
    keep = xp.zeros(loss.shape, dtype="uint8")
    xp.put_along_axis(keep, order, chosen.astype("uint8"), axis=1)
    return keep.reshape(losses.shape)


def hardest(cells: Any, share: float) -> Any:
    """Return how many of so many cells `sample_hardest` keeps: the share of them, and one at least if there are any.

    `cells` is a number, or an array of them.
    """
    if not 0 < share <= 1:
        raise UsageError(f"sample_hardest: share is {share}; expected a number above 0, at most 1")
    xp = xp_of(cells)
    return xp.maximum(xp.rint(share * cells), xp.minimum(cells, 1)).astype("int64")


def shares(counts: np.ndarray, total: float) -> np.ndarray:
    """`total` dealt out over the classes, none getting more than it has: the least share is as large as can be."""
    kept = np.zeros(len(counts))
    left = len(counts)
    for label in np.argsort(counts, kind="stable"):  # the class with the fewest pixels comes first
        kept[label] = min(counts[label], total / left)
        total, left = total - kept[label], left - 1
    return kept


def class_weights(counts: np.ndarray, *, power: float = 1.0) -> np.ndarray:
    """Return weights (C,) float32 for `softmax_cross_entropy` from the cells of each class: frequency^-power.

    They are scaled so that the average cell has weight 1: the loss keeps its size. `power=1` makes all classes weigh
    alike, 0.5 is half way, 0 changes nothing. A class without a cell gets 0. Raises `UsageError` where all are empty.
    """
    counts = np.asarray(counts, np.float64)
    if counts.ndim != 1 or (counts < 0).any() or not counts.any():
        raise UsageError(f"class_weights: counts are {counts.tolist()}; expected one number a class, not all of them 0")
    there = counts > 0
    weights = np.zeros(len(counts))
    weights[there] = (counts[there] / counts.sum()) ** -power
    return (weights * counts.sum() / (weights * counts).sum()).astype(np.float32)


def count(labels: np.ndarray, classes: int, void: int = 255) -> np.ndarray:
    """Return how many cells (C,) each class has, without void. Raises `UsageError` for a label that is neither."""
    inside = labels[labels != void]
    if inside.size and not 0 <= inside.min() <= inside.max() < classes:
        wrong = inside.min() if inside.min() < 0 else inside.max()
        raise UsageError(f"sampling: found label {wrong}; expected 0..{classes - 1}, or {void} for void")
    return np.bincount(inside.ravel().astype(np.intp), minlength=classes)
