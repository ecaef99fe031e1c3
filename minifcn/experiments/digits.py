"""Train LeNet on digits, make it convolutional and find digits on a large sheet.

The classifier says which digit an image of 28x28 pixels shows. `convolutionalize` reshapes its two fully connected
layers, learns nothing more, and the same weights answer for every fourth pixel of a sheet of any size: a heat map for
each digit, as figure 2 of the paper has for a cat. FCN, section 3.1. The digits come with the extra `notebooks`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minifcn.errors import DivergedError
from minifcn.geometry import Grid
from minifcn.models.classifier import Classifier
from minifcn.models.lenet import LeNet
from minifcn.nn import evaluating
from minifcn.optim import SGD
from minifcn.surgery import convolutionalize
from minifcn.training.divergence import unheard
from minifcn.training.step import classifier_step, shuffled

HELD_OUT = 450  # a quarter
SLOT = 44  # a digit and some paper around it


def learn(
    net: Classifier, sgd: SGD, images: np.ndarray, labels: np.ndarray, batch: int, rng: np.random.Generator
) -> float:
    """Train for one epoch and return the mean of the batches' losses; `DivergedError` if one is not finite."""
    try:
        with unheard():
            parts = shuffled(rng, len(images), batch)
            return float(np.mean([classifier_step(net, sgd, images[part], labels[part]) for part in parts]))
    except DivergedError as fault:
        raise DivergedError(f"{fault}; start again with a learning rate below {sgd.lr:g} (`lr=...`)") from fault


def sheet(images: np.ndarray, columns: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a sheet (1, 1, H, W) with the images strewn over it, and the upper left corner (N, 2) of each.

    Corners are multiples of LeNet's stride, so that a window of its twin lies exactly on each digit.
    """
    side, stride = images.shape[-1], int(Grid.of(LeNet(init="zero").layers()).stride)
    rows = -(-len(images) // columns)
    paper = np.zeros((1, 1, rows * SLOT, columns * SLOT), images.dtype)
    slots = np.array([divmod(i, columns) for i in range(len(images))]) * SLOT
    corners = slots + stride * rng.integers(0, (SLOT - side) // stride + 1, slots.shape)
    for image, (i, j) in zip(images, corners, strict=True):
        paper[0, :, i : i + side, j : j + side] = image
    return paper, corners


@dataclass(frozen=True)
class Found:
    """What a convolutional twin says of a sheet.

    `maps` (10, h, w): its scores. `answers` (N,): the digit with the largest score at each corner. `apart`: the most by
    which these scores differ from those of the classifier, shown each digit alone.
    """

    maps: np.ndarray
    answers: np.ndarray
    apart: float


def search(net: Classifier, paper: np.ndarray, corners: np.ndarray) -> Found:
    """Return what the convolutional twin of `net` says of a sheet (1, 1, H, W) with digits at `corners` (N, 2)."""
    twin, side = convolutionalize(net), LeNet.size
    windows = np.concatenate([paper[:, :, i : i + side, j : j + side] for i, j in corners])
    with evaluating(net), evaluating(twin):
        maps, alone = twin(paper).data[0], net(windows).data
    rows, columns = (corners // int(Grid.of(net.layers()).stride)).T
    there = maps[:, rows, columns].T
    return Found(maps, there.argmax(axis=1), float(abs(there - alone).max()))
