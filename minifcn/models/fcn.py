"""The FCN: score the coarsest map, then upsample and add skips up to the pixels.

One class builds every ladder of figure 3: FCN-32s has no skips, FCN-16s one, FCN-8s two. `print(figure(net))` writes
out the loop below for a particular net. FCN, section 4.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minifcn import ops
from minifcn.errors import UsageError, whole
from minifcn.geometry import Layer
from minifcn.models.ladder import Ladder, safe_padding, skips_to
from minifcn.models.trunk import Trunk, initial
from minifcn.models.vgg import VGG
from minifcn.nn import Conv2d, Module, Upsample
from minifcn.ops import concat, crop
from minifcn.tensor import Tensor

UPSAMPLINGS = ("fixed", "learned", "all learned")
FUSIONS = {"sum": ops.add, "max": ops.maximum, "concat": concat}


@dataclass(frozen=True)
class Step:
    """One step up: `to` is the word `do`, with its option, of the values named `of`.

    "layer" applies the module of that name, "scale" multiplies by a number, "crop" cuts the first value like the second
    at a cell, "fuse" joins score and skip. A comment ends a line of the paper's figure.
    """

    to: str
    do: str
    option: Any
    of: tuple[str, ...]
    comment: str = ""


Words = Mapping[str, Callable[..., Any]]
"""What each word of a step means: `words["crop"](at, x, like)`."""


def follow(steps: Iterable[Step], values: dict[str, Any], words: Words) -> Any:
    """Return the score after all steps; `values` holds the trunk's outputs and the image, by name."""
    for step in steps:
        values[step.to] = words[step.do](step.option, *(values[name] for name in step.of))
    return values["score"]


class FCN(Module):
    """Scores (N, classes, H, W) for images (N, channels, H, W) of any size, from any trunk.

    `skips` are outputs of the trunk, coarse to fine. `upsampling`: "fixed" bilinear (the released nets), "learned"
    between the skips and fixed at the end (CVPR 2015), or "all learned". `fusion`: "sum" or "max" of two scores, or
    "concat", which scores the score and the skip's maps together. `skip_scale` multiplies a skip before it is scored,
    as in the at-once nets: {"pool4": 0.01, "pool3": 0.0001}; scaling by c is learning that skip's score c^2 times as
    fast. Score layers start at zero: a fresh skip changes nothing (but under "max").

    `classes` is a number, or several heads on one trunk by name, {"sem": 33, "geo": 3}: every layer of a head ends in
    its name (`score_fr_sem`, `upscore2_sem`), and the scores come as {"sem": ..., "geo": ...}.
    """

    def __init__(
        self,
        trunk: Trunk,
        *,
        classes: int | Mapping[str, int],
        skips: Sequence[str] = ("pool4", "pool3"),
        upsampling: str = "fixed",
        fusion: str = "sum",
        skip_scale: Mapping[str, float] | None = None,
    ) -> None:
        heads = {f"_{name}": n for name, n in classes.items()} if isinstance(classes, Mapping) else {"": classes}
        for count in heads.values() or [0]:
            if not whole(count, least=1, most=255):
                expected = "a whole number from 1 to 255 (label 255 is void)"
                raise UsageError(f"FCN: classes is {classes!r}; expected {expected}")
        if fusion not in FUSIONS or upsampling not in UPSAMPLINGS:
            expected = "sum, max or concat; fixed, learned or all learned"
            raise UsageError(f"FCN: fusion is {fusion!r}, upsampling {upsampling!r}; expected {expected}")
        self.classes, self.fusion, self.skip_scale = classes, fusion, dict(skip_scale or {})
        unknown = [name for name in self.skip_scale if name not in trunk.channels]
        if unknown:
            there = ", ".join(trunk.channels)
            raise UsageError(f"FCN: skip_scale has {', '.join(unknown)}; the outputs of this trunk are {there}")
        self.trunk, self.heads = trunk, tuple(heads)
        self.ladder = Ladder(trunk.paths(), skips, padded=trunk.padded_upsampling)
        for head, count in heads.items():
            self._add_head(head, count, upsampling)

    def _add_head(self, head: str, classes: int, upsampling: str) -> None:
        channels = self.trunk.channels
        setattr(self, f"score_fr{head}", Conv2d(channels[self.trunk.last], classes, 1, init="zero"))
        for rung in self.ladder.rungs:
            layer = rung.layer
            learn = upsampling == "all learned" or (upsampling == "learned" and rung.skip != "")
            up = Upsample(classes, layer.kernel, layer.stride, padding=layer.padding, learn=learn)
            setattr(self, f"{rung.name}{head}", up)
            if rung.skip:
                beside = classes if self.fusion == "concat" else 0
                scorer = Conv2d(beside + channels[rung.skip], classes, 1, init="zero")
                scorer.w.data[:, :beside, 0, 0] = np.eye(classes, beside)  # what is scored already passes unchanged
                setattr(self, f"score_{rung.skip}{head}", scorer)

    def forward(self, image: Tensor | Any, *, begun: Mapping[str, Tensor] | None = None) -> Any:
        """Return the scores; `begun` are outputs of the trunk that are known already."""
        features = self.trunk(image, keep=self.skips, begun=begun)
        scores = {head[1:]: self.climb(features, image, head) for head in self.heads}
        return scores if self.heads != ("",) else scores[""]

    def climb(self, features: Mapping[str, Tensor], image: Tensor | Any, head: str = "") -> Tensor:
        """Compute the scores of every pixel from the trunk's outputs: figure 3 of the paper."""
        words: Words = {
            "layer": lambda name, x: getattr(self, name)(x),
            "scale": lambda factor, x: x * factor,
            "crop": lambda at, x, like: crop(x, like=like, at=at),
            "fuse": lambda fusion, score, skip: FUSIONS[fusion](score, skip),
        }
        return follow(self.steps(head), {**features, "image": image}, words)

    def steps(self, head: str = "") -> Iterator[Step]:
        """Yield what `climb` does, step by step, from the trunk's last output to the scores of every pixel."""
        *rungs, last = self.ladder.rungs
        yield Step("score", "layer", f"score_fr{head}", (self.trunk.last,))
        for rung in rungs:  # upscore2 and pool4, then upscore_pool4 and pool3
            yield Step("score", "layer", f"{rung.name}{head}", ("score",), f"stride {rung.stride}")
            skip, scorer, fused = rung.skip, f"score_{rung.skip}{head}", f"fuse_{rung.skip}{head}"
            if rung.skip in self.skip_scale:
                yield Step("skip", "scale", self.skip_scale[rung.skip], (skip,))
                skip = "skip"
            if self.fusion != "concat":
                yield Step("skip", "layer", scorer, (skip,))
                skip = "skip"
            if rung.cut == "skip":
                yield Step("skip", "crop", rung.at, (skip, "score"))
                skip = "skip"
            else:
                yield Step("score", "crop", rung.at, ("score", rung.skip))
            yield Step("score", "fuse", self.fusion, ("score", skip), "" if self.fusion == "concat" else fused)
            if self.fusion == "concat":
                yield Step("score", "layer", scorer, ("score",), fused)
        yield Step("score", "layer", f"{last.name}{head}", ("score",), f"stride {last.stride}")
        yield Step("score", "crop", last.at, ("score", "image"))

    @property
    def skips(self) -> tuple[str, ...]:
        """The outputs of the trunk that are fused, coarse to fine."""
        return tuple(rung.skip for rung in self.ladder.rungs if rung.skip)


def fcn(
    trunk: Callable[..., Trunk],
    skips: Sequence[str] | int,
    *,
    classes: int | Mapping[str, int] = 21,
    padding: int | str = "safe",
    init: str = "he",
    seed: int = 0,
    upsampling: str = "fixed",
    fusion: str = "sum",
    skip_scale: Mapping[str, float] | None = None,
    **options: Any,
) -> FCN:
    """Return an FCN on the trunk that `trunk(padding=, init=, rng=, **options)` makes: `fcn(AlexNet, 32)`.

    `skips` are names, coarse to fine, or the stride of the finest: `fcn(VGG, 8)` is FCN-8s. `padding` is "safe" (the
    smallest at which every size works), a number, or what else the trunk takes. `init` is "he", "zero" or "meta"
    (shapes without memory); everything random comes from `seed`. `options` are the trunk's (width, dropout, ...), the
    others `FCN`'s.
    """
    weights, rng = initial(init, seed)

    def sketch(border: int | str) -> Mapping[str, Sequence[Layer]]:
        return trunk(**{**options, "padding": border, "width": 1, "init": "zero", "rng": rng}).paths()

    if not isinstance(skips, Sequence):
        skips = skips_to(sketch(0), skips)
    if padding == "safe":
        padding = safe_padding(sketch, skips)
    made = trunk(padding=padding, init=weights, rng=rng, **options)
    return FCN(made, classes=classes, skips=skips, upsampling=upsampling, fusion=fusion, skip_scale=skip_scale)


def vgg_fcn(skips: Sequence[str] | int, *, padding: int | str = "same", **options: Any) -> FCN:
    """Return an FCN on a VGG trunk; the paper's is padding=100, init="zero" with ImageNet weights put in.

    `padding` is "same" (no border: the default, for nets trained from scratch), a number, or "safe" (97). `options` are
    those of `fcn` and of VGG: width (64 unless given), layers (16), in_channels (3) and dropout (0.5).
    """
    return fcn(VGG, skips, padding=padding, **options)


def FCN32s(**options: Any) -> FCN:
    """Return an FCN without skips: one upsampling by 32. Options as in `vgg_fcn` and `FCN`."""
    return vgg_fcn((), **options)


def FCN16s(**options: Any) -> FCN:
    """Return an FCN with a skip from pool4, then an upsampling by 16. Options as in `vgg_fcn` and `FCN`."""
    return vgg_fcn(("pool4",), **options)


def FCN8s(**options: Any) -> FCN:
    """Return an FCN with skips from pool4 and pool3, then an upsampling by 8. Options as in `vgg_fcn` and `FCN`."""
    return vgg_fcn(("pool4", "pool3"), **options)
