"""What learning rates, momenta and weight decays amount to, and figures the paper derives.

`CVPR15` and `HEAVY16` are the recipes for FCN-32s on VGG-16: the loss of one is a mean over pixels, of the other a sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from minifcn.experiments.reproduction.row import Row, row
from minifcn.nn import Module
from minifcn.optim import SGD
from minifcn.tensor import Parameter
from minifcn.training.recipes import preset
from minifcn.training.step import train_step

PIXELS = 500 * 375  # of a photograph of PASCAL VOC


@dataclass(frozen=True)
class Rule:
    """How a step is made of `batch` images; `pixels` is 1 where the loss is averaged over them."""

    lr: float
    momentum: float
    batch: int
    pixels: int
    decay: float
    steps: int

    @classmethod
    def of(cls, recipe: str) -> Rule:
        """Return the rule of a recipe."""
        o = preset(recipe)
        pixels = PIXELS if o.normalize == "none" else 1
        return cls(o.lr, o.momentum, o.batch * o.accumulate, pixels, o.weight_decay, o.steps)


CVPR15, HEAVY16 = Rule.of("cvpr15-voc-fcn32s"), Rule.of("heavy16-voc-fcn32s")


def rows() -> Iterator[Row]:
    """Yield the rules, then quotients of published figures."""
    yield row("TPAMI", "momentum 0.9 in batches of 20, as one of single images", "0.99", momentum_of_one)
    for name, rule, step in (("CVPR 2015", CVPR15, "1.0e-03"), ("released nets", HEAVY16, "1.9e-03")):
        claim = "what a steady gradient of 1 a pixel moves a weight by in a step, in the end"
        yield row(name, claim, "", partial(moved, rule), expected=step)
    yield row("released nets", "the same for an image, against CVPR 2015", "", per_image, expected="37.5 times")
    claim = "what the decay takes of a weight in 100,000 steps"
    yield row("released nets", claim, "", decayed, expected="5e-07", note="nothing: the loss is summed, the decay not")
    yield from quoted()


def quoted() -> Iterator[Row]:
    """Yield quotients of published figures: FCN beside SDS, and an image at once beside its windows one by one."""
    yield row(
        "abstract", "62.2 against 51.6 mean IU on VOC 2012: better by", "20 %", partial(relative_gain, 62.2, 51.6)
    )
    claim = "67.2 against 51.6 mean IU on VOC 2012: better by"
    yield row("TPAMI, abstract", claim, "30 %", partial(relative_gain, 67.2, 51.6))
    yield row("section 5", "175 ms an image against 50 s: faster", "286x", lambda: f"{50 / 0.175:.0f}x")
    one_by_one, alone, at_once, cells = 1.2, 5.4, 22.0, 10 * 10
    claim = f"{cells} windows of {one_by_one} ms against an image of {at_once:g} ms: faster, at least"
    yield row("section 3.1", claim, "5x", lambda: f"{int(cells * one_by_one / at_once)}x")
    claim = f"windows of {alone} ms, not in batches: faster, nearly"
    yield row("section 3.1, footnote", claim, "25x", lambda: f"{cells * alone / at_once:.0f}x")


class Weight(Module):
    """One number to learn."""

    def __init__(self, start: float) -> None:
        self.w = Parameter(np.full(1, start))


def steps(start: float, gradients: Iterable[float], **options: Any) -> Iterator[tuple[float, float]]:
    """Train one weight from `start` with our SGD, and yield it and its momentum after a step with each gradient."""
    net = Weight(start)
    opt = SGD(net, **options)
    for gradient in gradients:
        train_step(opt, [(net.w * gradient).sum()])  # a loss with that gradient
        yield float(net.w.data[0]), float(opt.history["w"][0])


def momentum_of_one() -> tuple[str, str]:
    """Return the momentum p of single images: p^k over the k images of a batch is the batch's momentum."""
    p = CVPR15.momentum ** (1 / CVPR15.batch)
    (_, first), *_, (_, last) = steps(0.0, [1.0] + [0.0] * CVPR15.batch, lr=1.0, momentum=p)
    return f"{p:.2f}", f"{p:.4f}; after {CVPR15.batch} images {last / first:.2f} of a gradient is left"


def final_step(rule: Rule) -> float:
    """Return the step of our SGD once the momentum has gathered all it can."""
    gradients = [float(rule.pixels)] * int(12 / (1 - rule.momentum))
    *_, (before, _), (after, _) = steps(0.0, gradients, lr=rule.lr, momentum=rule.momentum)
    return before - after


def moved(rule: Rule) -> str:
    """Return by how much a steady gradient of 1 a pixel moves a weight in a step, in the end."""
    return f"{final_step(rule):.1e}"


def per_image() -> str:
    """Return how much farther an image moves a weight in the released recipe than in that of 2015."""
    return f"{(final_step(HEAVY16) / HEAVY16.batch) / (final_step(CVPR15) / CVPR15.batch):.1f} times"


def decayed() -> str:
    """Return what the decay takes of a weight without a loss, measured on a part of the steps: all take alike."""
    rule, part = HEAVY16, 1200
    path = list(steps(1.0, [0.0] * part, lr=rule.lr, momentum=rule.momentum, weight_decay=rule.decay))
    (half, _), (end, _) = path[part // 2 - 1], path[-1]
    return f"{(half - end) * rule.steps / (part - part // 2):.0e}"


def relative_gain(ours: float, theirs: float) -> tuple[str, str]:
    """Return the gain in per cent without its fraction, as quoted, and with it."""
    gain = 100 * (ours / theirs - 1)
    return f"{int(gain)} %", f"{gain:.1f} %"
