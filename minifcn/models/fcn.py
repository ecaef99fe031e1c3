"""The fully convolutional network: score every cell of the coarsest map, and climb back to the pixels over the skips.

One class builds every ladder of figure 3: FCN-32s has no skips, FCN-16s one, FCN-8s two. `print(figure(net))` writes
out the loop below for a particular net. FCN, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minifcn import ops
from minifcn.errors import UsageError
from minifcn.models.ladder import Ladder, safe_padding
from minifcn.models.trunk import Trunk
from minifcn.models.vgg import VGG
from minifcn.nn import Conv2d, Module, Upsample
from minifcn.ops import crop
from minifcn.tensor import Tensor

FUSIONS = {"sum": ops.add, "max": ops.maximum}


class FCN(Module):
    """Scores (N, classes, H, W) for images (N, channels, H, W) of any size, from any trunk.

    `skips` are outputs of the trunk, coarse to fine. `upsampling`: "fixed" bilinear (the released nets), "learned"
    between the skips and fixed at the end (CVPR 2015), or "all learned". `fusion`: "sum" or "max". `skip_scale`
    multiplies a skip before it is scored, as in the at-once nets: {"pool4": 0.01, "pool3": 0.0001}; scaling by c is
    learning that skip's score c^2 times as fast. Score layers start at zero.
    """

    def __init__(
        self,
        trunk: Trunk,
        *,
        classes: int,
        skips: Sequence[str] = ("pool4", "pool3"),
        upsampling: str = "fixed",
        fusion: str = "sum",
        skip_scale: Mapping[str, float] | None = None,
    ) -> None:
        if not isinstance(classes, (int, np.integer)) or not 1 <= classes <= 255:
            raise UsageError(f"FCN: classes is {classes!r}; expected a whole number from 1 to 255 (label 255 is void)")
        if fusion not in FUSIONS or upsampling not in ("fixed", "learned", "all learned"):
            raise UsageError(
                f"FCN: fusion is {fusion!r}, upsampling {upsampling!r}; expected sum or max; "
                "fixed, learned or all learned"
            )
        self.classes, self.fusion, self.skip_scale = classes, fusion, dict(skip_scale or {})
        unknown = [name for name in self.skip_scale if name not in trunk.channels]
        if unknown:
            raise UsageError(
                f"FCN: skip_scale has {', '.join(unknown)}; the outputs of this trunk are {', '.join(trunk.channels)}"
            )
        self.trunk = trunk
        self.ladder = Ladder(trunk.paths(), skips, padded=trunk.padded_upsampling)
        self.score_fr = Conv2d(trunk.channels[trunk.last], classes, 1, init="zero")
        for rung in self.ladder.rungs:
            layer = rung.layer
            learn = upsampling == "all learned" or (upsampling == "learned" and rung.skip != "")
            setattr(self, rung.name, Upsample(classes, layer.kernel, layer.stride, padding=layer.padding, learn=learn))
            if rung.skip:
                setattr(self, f"score_{rung.skip}", Conv2d(trunk.channels[rung.skip], classes, 1, init="zero"))

    def forward(self, image: Tensor | Any) -> Tensor:
        features = self.trunk(image, keep=self.skips)
        score = self.score_fr(features[self.trunk.last])
        *steps, last = self.ladder.rungs
        for rung in steps:
            score = getattr(self, rung.name)(score)  # upscore2, then upscore_pool4
            pool = features.pop(rung.skip)
            if rung.skip in self.skip_scale:
                pool = pool * self.skip_scale[rung.skip]
            skip = getattr(self, f"score_{rung.skip}")(pool)  # score_pool4, then score_pool3
            if rung.cut == "skip":
                skip = crop(skip, like=score, at=rung.at)
            else:
                score = crop(score, like=skip, at=rung.at)
            score = FUSIONS[self.fusion](score, skip)  # fuse_pool4, then fuse_pool3
        score = getattr(self, last.name)(score)
        return crop(score, like=image, at=last.at)

    @property
    def skips(self) -> tuple[str, ...]:
        return tuple(rung.skip for rung in self.ladder.rungs if rung.skip)


def vgg_fcn(
    skips: Sequence[str],
    *,
    classes: int = 21,
    padding: int | str = "same",
    init: str = "he",
    seed: int = 0,
    upsampling: str = "fixed",
    fusion: str = "sum",
    skip_scale: Mapping[str, float] | None = None,
    **trunk: Any,
) -> FCN:
    """An FCN on a VGG trunk; the paper's is padding=100, init="zero" with ImageNet weights put in.

    `padding` is "same" (no border: the default, for nets trained from scratch), a number, or "safe" (the smallest at
    which every size works: 97). `init` is "he" or "zero"; everything random comes from `seed`. `trunk` is VGG's width
    (64 unless given), layers (16), in_channels (3) and dropout (0.5); the others are `FCN`'s.
    """
    if init not in ("he", "zero"):
        raise UsageError(f'init is {init!r}; expected "he" or "zero"')
    rng = np.random.default_rng(seed)
    if padding == "safe":
        sketch = {**trunk, "width": 1, "init": "zero", "rng": rng}
        padding = safe_padding(lambda n: VGG(padding=n, **sketch).paths(), skips)
    vgg = VGG(padding=padding, init=rng if init == "he" else "zero", rng=rng, **trunk)
    return FCN(vgg, classes=classes, skips=skips, upsampling=upsampling, fusion=fusion, skip_scale=skip_scale)


def FCN32s(**options: Any) -> FCN:
    """No skips: one upsampling by 32. Options as in `vgg_fcn` and `FCN`."""
    return vgg_fcn((), **options)


def FCN16s(**options: Any) -> FCN:
    """One skip, from pool4, then an upsampling by 16. Options as in `vgg_fcn` and `FCN`."""
    return vgg_fcn(("pool4",), **options)


def FCN8s(**options: Any) -> FCN:
    """Two skips, from pool4 and pool3, then an upsampling by 8. Options as in `vgg_fcn` and `FCN`."""
    return vgg_fcn(("pool4", "pool3"), **options)
