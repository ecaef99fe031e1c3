"""One training step: a backward pass for each batch, then one update.

Every loop of the library is made of it: the training of an FCN, that of a classifier (`minifcn pretrain`,
`minifcn digits`), and the steps that the reproduction and the benchmark make by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from minifcn import ops
from minifcn.backend import Array
from minifcn.errors import DivergedError
from minifcn.nn import Module, evaluating
from minifcn.optim import Optimizer
from minifcn.tensor import Tensor


def train_step(optimizer: Optimizer, losses: Iterable[Tensor]) -> list[float]:
    """Update once with the gradients of `losses`, the batches of a step, and return the value of each loss.

    Raises `DivergedError`, and updates nothing, if a loss is not finite.
    """
    values = backward(losses)
    optimizer.step(accumulated=len(values))
    return values


def backward(losses: Iterable[Tensor]) -> list[float]:
    """Add up the gradients of `losses`, and return the value of each; `DivergedError` if one is not finite.

    `losses` may be a generator, which then computes the loss of a batch when the batch before has its gradients.
    """
    values = []
    for loss in losses:
        loss.backward()
        values.append(loss.item())  # which waits for a GPU, when all its work has been queued
        if not math.isfinite(values[-1]):
            raise DivergedError(f"the loss is {values[-1]}")
    return values


def classifier_step(net: Module, optimizer: Optimizer, images: Array, labels: Array) -> float:
    """Train a classifier on one batch, images (N, C, H, W) and labels (N,), and return the mean loss.

    Its scores (N, classes) are those of a map of one pixel. Raises `DivergedError` as `train_step` does.
    """
    scores = net.train()(images)
    loss = ops.softmax_cross_entropy(scores.reshape(*scores.shape, 1, 1), labels[:, None, None])
    return train_step(optimizer, [loss])[0]


def shuffled(rng: np.random.Generator, count: int, batch: int) -> Sequence[np.ndarray]:
    """Return the indices of one epoch: 0 to count - 1 in random order, in batches; the last may be smaller."""
    return np.split(rng.permutation(count), range(batch, count, batch))


def accuracy(net: Module, batches: Iterable[tuple[Array, Array]]) -> float:
    """Return the share of images whose largest score is that of their label, over batches of images and labels."""
    with evaluating(net):
        right = [net(images).data.argmax(axis=1) == labels for images, labels in batches]
    return float(np.concatenate(right).mean())
