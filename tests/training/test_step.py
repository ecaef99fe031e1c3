"""One training step, and the loops that are made of it: bit for bit what the same lines written by hand give."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from minifcn import ops
from minifcn.backend import rng
from minifcn.data.batches import Preprocessing
from minifcn.data.objects import Objects
from minifcn.errors import DivergedError
from minifcn.experiments import digits
from minifcn.models.classifier import classifier
from minifcn.models.lenet import LeNet
from minifcn.nn import Module
from minifcn.optim import SGD, Adam, Optimizer, learning_rate
from minifcn.tensor import Parameter, Tensor
from minifcn.training import pretraining
from minifcn.training.pretraining import MIRROR, ORDER, Pretraining
from minifcn.training.progress import Bar
from minifcn.training.step import accuracy, train_step


class Line(Module):
    """y = w x"""

    def __init__(self) -> None:
        self.w = Parameter(np.full(1, 2.0))

    def forward(self, x: float) -> Tensor:
        return (self.w * x).sum()


def test_the_losses_of_a_step_are_computed_one_after_another_and_averaged() -> None:
    net, seen = Line(), list[Any]()
    optimizer = SGD(net, lr=0.5, momentum=0.0)

    def losses() -> Iterator[Tensor]:
        for x in (1.0, 4.0):
            seen.append(None if net.w.grad is None else float(net.w.grad[0]))
            yield net(x)

    assert train_step(optimizer, losses()) == [2.0, 8.0]
    assert seen == [None, 1.0] and net.w.grad is None
    assert net.w.data[0] == 2.0 - 0.5 * (1.0 + 4.0) / 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_stops_before_the_update(bad: float) -> None:
    net = Line()
    with np.errstate(all="ignore"), pytest.raises(DivergedError, match=rf"^the loss is {bad}$"):
        train_step(SGD(net, lr=0.5), (net(x) for x in (1.0, bad, 1.0)))
    assert net.w.data[0] == 2.0 and net.w.grad is not None  # kept, for the report of what happened


def by_hand(net: Module, optimizer: Optimizer, images: np.ndarray, labels: np.ndarray) -> float:
    """The loop of a beginner: forward, loss, backward, step."""
    net.train()
    loss = ops.softmax_cross_entropy(net(images).reshape(len(images), -1, 1, 1), labels[:, None, None])
    loss.backward()
    optimizer.step()
    return loss.item()


def same(one: Module, other: Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return all(mine[name].tobytes() == theirs[name].tobytes() for name in mine)


def test_digits_learns_as_a_loop_by_hand_does() -> None:
    draw = np.random.default_rng(0)
    images, labels = draw.random((30, 1, 28, 28)).astype(np.float32), np.arange(30) % 10
    ours, theirs = (classifier(LeNet, width=1, classes=10) for _ in range(2))
    mine, yours = SGD(ours, lr=0.02), SGD(theirs, lr=0.02)
    for epoch in range(3):
        order = np.random.default_rng(epoch).permutation(30)
        losses = [by_hand(theirs, yours, images[part], labels[part]) for part in np.split(order, range(8, 30, 8))]
        assert digits.learn(ours, mine, images, labels, 8, np.random.default_rng(epoch)) == np.mean(losses)
    assert same(ours, theirs)
    assert accuracy(ours, [(images, labels)]) == (ours.eval()(images).data.argmax(axis=1) == labels).mean()


def test_a_rate_that_is_too_high_for_digits_is_said() -> None:
    net = classifier(LeNet, width=1, classes=10)
    images = np.ones((8, 1, 28, 28), np.float32)
    with pytest.raises(
        DivergedError, match=r"the loss is .*; start again with a learning rate below 1e\+30 \(`lr=...`"
    ):
        for _ in range(9):
            digits.learn(net, SGD(net, lr=1e30), images, np.arange(8), 4, np.random.default_rng(0))


def test_pretraining_learns_as_a_loop_by_hand_does() -> None:
    options = Pretraining(width=1, images=15, epochs=2, batch=7)
    world = Objects("train", count=15)
    preprocessing, known = Preprocessing.fit(world), pretraining.stacked(world)
    ours, theirs = options.classifier(), options.classifier()
    mine, yours = Adam(ours, lr=options.lr), Adam(theirs, lr=options.lr)
    for epoch in range(2):
        loss = pretraining.learn(ours, mine, options, epoch, known, preprocessing, Bar(6, unit="step"))
        order = rng(options.seed, ORDER, epoch).permutation(15)
        mirrored = rng(options.seed, MIRROR, epoch).random(15) < 0.5
        total = 0.0
        for step, part in enumerate([order[:7], order[7:14], order[14:]]):
            yours.lr = learning_rate(3 * epoch + step, 6, lr=options.lr, schedule="poly")
            pictures = [known[0][i, :, ::-1] if mirrored[i] else known[0][i] for i in part]
            x = np.stack([preprocessing(picture) for picture in pictures])
            total += by_hand(theirs, yours, x, known[1][part]) * len(part)
        assert loss == total / 15
    assert same(ours, theirs)
