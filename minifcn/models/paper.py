"""The networks of the paper and of its reference implementation; `zoo.py` lists them by name.

All take the options of `fcn` and of their trunk. FCN, sections 4 and 5.
"""

from functools import partial
from typing import Any

from minifcn.errors import ShapeError, UsageError
from minifcn.models.alexnet import AlexNet
from minifcn.models.context import with_context
from minifcn.models.fcn import FCN, fcn
from minifcn.models.googlenet import GoogLeNet
from minifcn.models.squeezenet import SqueezeNet
from minifcn.models.trunk import Trunk
from minifcn.models.vgg import VGG
from minifcn.nn import Module
from minifcn.tensor import Tensor

# The at-once nets multiply the skips by these before scoring them (TPAMI, section 4.2)
AT_ONCE = {"pool4": 0.01, "pool3": 0.0001}

paper_vgg = partial(fcn, VGG, padding=100)  # the border of all the paper's nets; 97 would do


def FCN_AlexNet(stride: int = 32, **options: Any) -> FCN:
    """Return CaffeNet convolutionalised; its upsampling kernel is 63 wide (table 1)."""
    return fcn(AlexNet, stride, **{"padding": 100, **options})


def FCN_GoogLeNet(stride: int = 32, **options: Any) -> FCN:
    """Return GoogLeNet without its average pool, with the smallest safe border (table 1; never released)."""
    return fcn(GoogLeNet, stride, **options)


def FCN_SqueezeNet(stride: int = 8, **options: Any) -> FCN:
    """Return SqueezeNet 1.0 or 1.1 (`version`) as a trunk: not the paper's, but of a size that a laptop trains."""
    return fcn(SqueezeNet, stride, **options)


def FCN_pool(number: int, **options: Any) -> FCN:
    """Return a net that scores VGG up to pool3, pool4 or pool5: how far does a shallower net get? (TPAMI, table 3)"""
    if number not in (3, 4, 5):
        raise UsageError(f"FCN_pool: number is {number!r}; expected 3, 4 or 5")

    def trunk(**trunk_options: Any) -> Trunk:
        return VGG(**trunk_options).until(f"pool{number}")

    return fcn(trunk, (), **{"padding": 100, **options})


def FCN32s_fixed(**options: Any) -> FCN:
    """Return an FCN-32s of which only the score layer learns (table 2): the rest is the classifier as it was."""
    net = paper_vgg(32, **options)
    net.trunk.freeze()
    return net


def ParseNet(**options: Any) -> FCN:
    """Return an FCN-32s with ParseNet's global context in the place of skips."""

    def trunk(**trunk_options: Any) -> Trunk:
        return with_context(VGG(**trunk_options))

    return fcn(trunk, (), **{"padding": 100, **options})


class LateFusion(Module):
    """Nets that each see another image of the same scene, and vote: the mean of their scores.

    `LateFusion(color=..., hha=...)(color_image, hha_image)`. The reference takes the mean below the upsampling, which
    is linear: the scores are the same. Each net is started from one that was trained alone:
    `surgery.transplant(net.color, weights)`.
    """

    def __init__(self, **nets: FCN) -> None:
        vars(self).update(nets)

    def forward(self, *images: Tensor | Any) -> Tensor:
        nets = dict(self.children())
        if len(images) != len(nets):
            raise ShapeError(f"LateFusion: got {len(images)} images; expected one for each of {', '.join(nets)}")
        share = 1 / len(nets)
        first, *others = (net(image) * share for net, image in zip(nets.values(), images, strict=True))  # type: ignore[operator]
        return sum(others, first)


def nyud_color_hha(stride: int = 32, *, classes: int = 40, seed: int = 0, **options: Any) -> LateFusion:
    """Return nets for colour and HHA (disparity, height, angle), each with a whole trunk: 0.5 and 0.5 (late fusion)."""
    color, hha = (paper_vgg(stride, classes=classes, seed=seed + i, **options) for i in range(2))
    return LateFusion(color=color, hha=hha)
