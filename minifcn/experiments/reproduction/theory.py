"""The paper's equations, both sides computed on small float64 arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.random import default_rng

from minifcn import ops
from minifcn.experiments.reproduction.row import Row, agreement, row
from minifcn.geometry import Grid, Layer
from minifcn.models.classifier import classifier
from minifcn.models.fcn import FUSIONS, fcn
from minifcn.models.lenet import LeNet
from minifcn.models.paper import AT_ONCE
from minifcn.models.vgg import VGG
from minifcn.models.zoo import NETS
from minifcn.nn import Conv2d, MaxPool2d, Module, Sequential, bilinear
from minifcn.optim import SGD
from minifcn.stitch import rarefy, shift_and_stitch
from minifcn.surgery import convolutionalize
from minifcn.tensor import Parameter, Tensor
from minifcn.training.step import train_step

# Fresh nets and the classes of their heads
FRESH = {"voc-fcn8s": (21,), "nyud-fcn32s-color": (40,), "siftflow-fcn16s": (33, 3), "pascalcontext-fcn8s": (60,)}


def rows() -> Iterator[Row]:
    """Yield sections 3 and 4.2, then the loss that a fresh net has."""
    both = "a filter of 4, stride 3, after one of 3, stride 2: size and stride"
    yield row("section 3", both, "9, 6", composed_grid, note="k' + (k-1)s', ss'")
    yield row("section 3", "their one linear filter computes what both do", "equal", composed_filter)
    yield row("section 3", "the gradient of a loss summed over pixels is the sum of theirs", "equal", summed_gradient)
    yield row("section 3.1", "a convolutionalised classifier is the classifier, window by window", "equal", windows)
    yield row("section 3.2", "shift-and-stitch is filter rarefaction, to the bit", "equal", stitched)
    yield row("section 3.3", "upsampling is a strided convolution backwards", "equal", adjoint)
    yield row("section 3.3", "bilinear upsampling is one such filter; of 4, stride 2", "1, 3, 3, 1", triangle)
    yield row("section 3.3", "and continues a ramp", "equal", ramp)
    yield row("section 3.4", "a masked loss has the gradient of the kept patches", "equal", patches)
    yield row("section 4.2", "a fresh skip leaves the prediction as it was", "equal", partial(fresh_skip, "sum"))
    yield row("section 4.2, footnote 6", "not under max fusion", "different", partial(fresh_skip, "max"))
    for skip, scale in AT_ONCE.items():
        claim = f"a skip times {scale:g} (at once, {skip}) is its score layer learning so much as fast"
        yield row("TPAMI", claim, "", partial(at_once, scale), expected=f"{scale**2:.0e}", note="no misprint")
    yield row("released nets", "FCN-32s: border pixels whose kernel lacks a neighbour", "", ring, expected="13")
    for name, classes in FRESH.items():
        losses = " and ".join(f"{math.log(count):.5f}" for count in classes)
        claim = f"{name}: loss per pixel at the start, {' and '.join(f'ln {count}' for count in classes)}"
        yield row("section 4.2", claim, "", partial(first_loss, name), expected=losses)
    claim = "the loss of an image of 500x375 at the start, summed (21 classes)"
    yield row("released nets", claim, "", first_summed_loss, expected="570,848")


def composed_grid() -> str:
    """Return size and stride of the composed filter."""
    grid = Grid.of([Layer(3, 2), Layer(4, 3)])
    return f"{grid.field}, {grid.stride}"


def composed_filter() -> tuple[str, str]:
    """Compare two filters in turn with the one filter h[a s' + u] = sum f[a] g[u]."""
    rng = default_rng(0)
    g, f, x = rng.standard_normal((1, 1, 1, 3)), rng.standard_normal((1, 1, 1, 4)), rng.standard_normal((1, 1, 1, 60))
    h = np.zeros((1, 1, 1, 9))
    for a in range(4):
        h[..., 2 * a : 2 * a + 3] += f[..., a : a + 1] * g
    after = ops.conv2d(ops.conv2d(x, g, stride=(1, 2)), f, stride=(1, 3)).data
    return agreement(after, ops.conv2d(x, h, stride=(1, 6)).data)


def small_net() -> Module:
    """Return two convolutions and a pool between them, without padding; float64."""
    he = default_rng(2)
    net = Sequential(
        a=Conv2d(2, 4, 3, relu=True, init=he), pool=MaxPool2d(2, ceil_mode=True), b=Conv2d(4, 3, 3, init=he)
    )
    return net.astype(np.float64)


def gradient(net: Module, x: np.ndarray, truth: np.ndarray, **options: Any) -> np.ndarray:
    """Return the gradient of the summed loss, in all parameters one after another."""
    net.zero_grad()
    ops.softmax_cross_entropy(net(x), truth, normalize="none", **options).backward()
    return np.concatenate([p.grad.ravel() for p in net.parameters() if p.grad is not None])


def summed_gradient() -> tuple[str, str]:
    """Compare the gradient of a summed loss with the sum of the gradients of single pixels."""
    rng, net = default_rng(0), small_net()
    x, truth = rng.standard_normal((1, 2, 14, 12)), rng.integers(0, 3, (1, 4, 3))
    one_by_one = []
    for i, j in np.ndindex(truth.shape[1:]):
        only = np.full_like(truth, 255)
        only[:, i, j] = truth[:, i, j]
        one_by_one.append(gradient(net, x, only))
    return agreement(sum(one_by_one[1:], one_by_one[0]), gradient(net, x, truth))


def patches() -> tuple[str, str]:
    """Compare the gradient of a masked loss with the sum over what each kept cell sees, cut out."""
    rng, net = default_rng(0), small_net()
    grid = Grid.of(net.layers())
    step, side = int(grid.stride), int(grid.field)
    x, truth = rng.standard_normal((1, 2, 26, 24)), rng.integers(0, 3, (1, 10, 9))
    keep = (rng.random(truth.shape) < 0.4).astype(np.uint8)
    cut = [
        gradient(net, x[:, :, step * i : step * i + side, step * j : step * j + side], truth[:, i, j].reshape(1, 1, 1))
        for _, i, j in np.argwhere(keep)
    ]
    return agreement(sum(cut[1:], cut[0]), gradient(net, x, truth, sampling=keep))


def windows() -> tuple[str, str]:
    """Compare a convolutionalised classifier with the classifier on each window."""
    net = classifier(LeNet, classes=10, seed=0)
    net.astype(np.float64)
    twin = convolutionalize(net)
    image = default_rng(0).random((1, 1, 40, 52))
    answers, step, side = twin(image).data, int(Grid.of(twin.layers()).stride), net.trunk.size
    alone = np.empty_like(answers)
    for i, j in np.ndindex(answers.shape[2:]):
        alone[:, :, i, j] = net(image[:, :, step * i : step * i + side, step * j : step * j + side]).data
    return agreement(answers, alone)


def stitched() -> tuple[str, str]:
    """Compare shift-and-stitch with rarefied filters on whole numbers, whose sums are exact in any order."""
    rng, net = default_rng(0), small_net()
    for p in net.parameters():
        p.data = rng.integers(-2, 3, p.shape) * 1.0
    x = rng.integers(-2, 3, (1, 2, 22, 24)) * 1.0
    return agreement(shift_and_stitch(net, x).data, rarefy(net)(x).data, tolerance=0)


def adjoint() -> tuple[str, str]:
    """Compare <conv(a), b> with <a, transposed conv(b)>."""
    rng = default_rng(0)
    w = rng.standard_normal((5, 3, 4, 4))
    a, b = rng.standard_normal((1, 3, 18, 14)), rng.standard_normal((1, 5, 8, 6))
    there = (ops.conv2d(a, w, stride=2).data * b).sum()
    back = (a * ops.conv_transpose2d(b, w, stride=2).data).sum()
    return agreement(np.array(there), np.array(back), tolerance=1e-11)


def triangle() -> tuple[str, str]:
    """Return the first row of the filter, in sixteenths: the filter is that line by that line."""
    line = 16 * bilinear(4)[0]
    if not np.array_equal(16 * bilinear(4), np.outer(line, line)):
        return "not separable", ""
    squares = all(bilinear(2 * s).sum() == s * s for s in (2, 8, 16, 32))
    return ", ".join(f"{number:g}" for number in line), "all filters sum to their stride squared" if squares else ""


def ramp() -> tuple[str, str]:
    """Compare an upsampled ramp with a ramp."""
    x = np.broadcast_to(np.arange(10.0), (1, 1, 10, 10))
    up = ops.bilinear_upsample(x, kernel_size=4, stride=2).data[0, 0, 10, 2:-2]
    return agreement(up, 0.25 + 0.5 * np.arange(len(up)))


def ring() -> int:
    """Return how many border pixels of ones, upsampled and cropped, are below 1: a neighbour is missing there."""
    (rung,) = fcn(VGG, 32, width=1, padding=100).ladder.rungs
    ones = np.ones((1, 1, 16, 16))
    up = ops.bilinear_upsample(ones, kernel_size=rung.layer.kernel, stride=rung.layer.stride).data[0, 0]
    line = up[len(up) // 2, rung.at :]
    return int(np.argmax(line > 1 - 1e-12))


def fresh_skip(fusion: str) -> tuple[str, str]:
    """Compare the scores with a fresh skip fused to them with the scores."""
    rng = default_rng(0)
    score = rng.standard_normal((1, 3, 8, 9))
    scorer: Any = dict(fcn(VGG, 16, width=1, classes=3, padding=100).children())["score_pool4"]
    scorer.astype(np.float64)
    maps = rng.standard_normal((1, scorer.w.shape[1], 8, 9))
    return agreement(FUSIONS[fusion](score, scorer(maps)).data, score, tolerance=0)


class Scaled(Module):
    """y = w (c x): a skip that is scaled, then scored."""

    def __init__(self, scale: float) -> None:
        self.w, self.scale = Parameter(np.zeros(1)), scale

    def forward(self, x: np.ndarray) -> Tensor:
        return self.w * (self.scale * x)


def at_once(scale: float) -> tuple[str, str]:
    """Return the factor of the rate at which a net without the scale takes the same steps: both are tried."""
    rng = default_rng(0)
    x, target = rng.standard_normal(50), rng.standard_normal(50)
    ratio, ends = scale**2, []
    for net, rate in ((Scaled(scale), 0.1), (Scaled(1.0), 0.1 * ratio)):
        # a decay acts through the rate, so that of the slower one is as much stronger
        opt = SGD(net, lr=rate, momentum=0.9, weight_decay=0.01 * 0.1 / rate)
        for _ in range(20):
            away = net(x) - target
            train_step(opt, [(away * away).sum()])
        ends.append(net.scale * net.w.data)
    word, apart = agreement(*ends, tolerance=1e-9)
    return (f"{ratio:.0e}" if word == "equal" else word), apart


def first_loss(name: str) -> str:
    """Return the loss per pixel of each head of a fresh net on random labels."""
    net = NETS[name](width=1).astype(np.float64).eval()
    scores = net(default_rng(0).standard_normal((1, 3, 20, 24)))
    every = list(scores.values()) if isinstance(scores, dict) else [scores]
    truths = [default_rng(1).integers(0, y.shape[1], (1, 20, 24)) for y in every]
    losses = [ops.softmax_cross_entropy(y, truth).item() for y, truth in zip(every, truths, strict=True)]
    return " and ".join(f"{loss:.5f}" for loss in losses)


def first_summed_loss() -> tuple[str, str]:
    """Return the summed loss of scores of zero, and that of a pixel."""
    truth = default_rng(0).integers(0, 21, (1, 500, 375))
    loss = ops.softmax_cross_entropy(np.zeros((1, 21, *truth.shape[1:])), truth, normalize="none").item()
    return f"{loss:,.0f}", f"{loss / truth.size:.5f} a pixel"
