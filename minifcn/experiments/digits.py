"""Train LeNet on digits, make it convolutional and find digits on a large sheet.

    minifcn digits                            a few seconds; leaves digits.png

The classifier says which digit an image of 28x28 pixels shows. `convolutionalize` reshapes its two fully connected
layers, learns nothing more, and the same weights answer for every fourth pixel of a sheet of any size: a heat map for
each digit, as figure 2 of the paper has for a cat. FCN, section 3.1. The digits come with the extra `notebooks`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minifcn import ops, viz
from minifcn.cli.command import parse
from minifcn.data.digits import DIGITS, load_digits
from minifcn.errors import UsageError
from minifcn.geometry import Grid
from minifcn.kernels.threads import set_threads
from minifcn.models.classifier import Classifier, classifier
from minifcn.models.lenet import LeNet
from minifcn.nn import evaluating
from minifcn.optim import SGD
from minifcn.surgery import convolutionalize

HELD_OUT = 450  # a quarter
SLOT = 44  # a digit and some paper around it


@dataclass(frozen=True)
class Options:
    """Train LeNet on 1,347 digits, measure it on 450 others, and look for some of those on a sheet."""

    epochs: int = 8
    """passes over the digits to learn"""
    batch: int = 32
    """digits in a step"""
    lr: float = 0.02
    """the learning rate of weights; biases have twice it"""
    width: int = 10
    """channels; LeNet's own is 10, for 20, 50 and 500"""
    rows: int = 3
    """rows of digits on the sheet"""
    columns: int = 6
    """columns of digits on the sheet"""
    picture: str = "digits.png"
    """the PNG file to draw the heat maps into"""
    seed: int = 0
    """decides the weights, the order, who is held out and the sheet"""
    threads: int = 0
    """threads that compute convolutions (0: one for each core)"""


def main(argv: list[str]) -> int:
    """Train, measure, convolutionalize, and draw."""
    options = parse(Options, argv, verb="digits")
    for name in ("epochs", "batch", "rows", "columns"):
        if not 1 <= getattr(options, name) <= 1000:
            raise UsageError(f"option {name} is {getattr(options, name)}; expected a number from 1 to 1000")
    if options.rows * options.columns > HELD_OUT:
        raise UsageError(f"a sheet of {options.rows}x{options.columns} digits; expected at most {HELD_OUT} in all")
    if options.seed < 0:
        raise UsageError(f"option seed is {options.seed}; expected at least 0")
    images, labels = load_digits(LeNet.size)
    set_threads(options.threads or None)
    rng = np.random.default_rng(options.seed)
    order = rng.permutation(len(images))
    held_out, known = order[:HELD_OUT], order[HELD_OUT:]
    net = classifier(LeNet, classes=len(DIGITS), width=options.width, seed=options.seed)
    sgd = SGD(net, lr=options.lr, weight_decay=0.0005)
    start = time.perf_counter()
    for epoch in range(options.epochs):
        loss = learn(net, sgd, images[known], labels[known], options.batch, rng)
        right = accuracy(net, images[held_out], labels[held_out])
        print(f"epoch {epoch + 1}: loss {loss:.3f}, accuracy {right:.3f} on {HELD_OUT} digits held out")
    print(f"learned {len(known)} digits in {time.perf_counter() - start:.1f} s")

    shown = held_out[: options.rows * options.columns]
    paper, corners = sheet(images[shown], options.columns, rng)
    search(net, paper, corners, labels[shown], Path(options.picture))
    return 0


def learn(
    net: Classifier, sgd: SGD, images: np.ndarray, labels: np.ndarray, batch: int, rng: np.random.Generator
) -> float:
    """One epoch; returns the mean loss. A classifier's scores (N, C) are those of a map of one pixel."""
    net.train()
    losses = []
    for part in np.split(order := rng.permutation(len(images)), range(batch, len(order), batch)):
        scores = net(images[part])
        loss = ops.softmax_cross_entropy(scores.reshape(*scores.shape, 1, 1), labels[part, None, None])
        loss.backward()
        sgd.step()
        losses.append(loss.item())
    return float(np.mean(losses))


def accuracy(net: Classifier, images: np.ndarray, labels: np.ndarray) -> float:
    """The share of images whose largest score is that of their label."""
    with evaluating(net):
        return float((net(images).data.argmax(axis=1) == labels).mean())


def sheet(images: np.ndarray, columns: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A sheet (1, 1, H, W) with the images strewn over it, and the upper left corner (N, 2) of each.

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


def search(net: Classifier, paper: np.ndarray, corners: np.ndarray, labels: np.ndarray, picture: Path) -> None:
    """Let the convolutional twin of `net` look at the whole sheet; print what it finds, and draw its heat maps."""
    twin, side = convolutionalize(net), LeNet.size
    grid = Grid.of(net.layers())
    windows = np.concatenate([paper[:, :, i : i + side, j : j + side] for i, j in corners])
    with evaluating(net), evaluating(twin):
        maps, alone = twin(paper).data[0], net(windows).data
    rows, columns = (corners // int(grid.stride)).T
    there = maps[:, rows, columns].T
    found = int((there.argmax(axis=1) == labels).sum())
    print(
        f"the convolutional twin reads the whole sheet of {paper.shape[2]}x{paper.shape[3]} pixels at once: "
        f"{maps.shape[1]}x{maps.shape[2]} answers, {found} of {len(labels)} digits right"
    )
    print(f"where a window lies on a digit it says what the classifier says, to {abs(there - alone).max():.0e}")
    second, best = np.sort(maps, axis=0)[-2:]
    heat = np.where(maps == best, best - second, 0)  # by how much a digit's score beats all others
    viz.heat_maps(paper[0, 0], heat, DIGITS, start=float(grid.start), stride=float(grid.stride), path=picture)
    print(f"wrote {picture}: where each digit wins, and by how much")
