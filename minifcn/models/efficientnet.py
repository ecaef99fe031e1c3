"""EfficientNet-Lite0: inverted residuals and depthwise windows, with ImageNet weights of 4.7 million numbers.

A block widens the channels sixfold by a 1x1 convolution, looks around in each channel alone (depthwise), and projects
them back; where input and output have one shape, it adds its input. The activation is ReLU6, min(max(x, 0), 6). Windows
of stride 2 are padded as TensorFlow pads them ("SAME"), two cells more at the end than at the beginning, so a map of
any size n comes out as ceil(n/2).

Batch normalisation is a factor and a summand once a net is trained. Here both are in the convolutions already:
published weights are folded when they are read (`weights.names.folded`). Tan and Le, "EfficientNet" (ICML 2019);
"Lite" is its authors' version without squeeze-and-excitation.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from minifcn.models.classifier import GlobalAverage
from minifcn.models.trunk import Residual, Trunk
from minifcn.nn import Conv2d, Dropout, Init, Linear, Module, ReLU6, Sequential, ZeroPad2d

# How often, kernel, stride, factor of widening, channels. A number of the paper's table 1 for each row.
BLOCKS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, FEATURES = 32, 1280


def inverted(incoming: int, outgoing: int, kernel: int, stride: int, factor: int, *, init: Init) -> Sequential:
    """Return one block: widen, look around in each channel, project; with its input added where the shapes allow."""
    wide = incoming * factor
    modules: dict[str, Module] = {}
    if factor > 1:
        modules |= {"widen": Conv2d(incoming, wide, 1, init=init), "widened": ReLU6()}
    modules |= around(wide, wide, kernel, stride, groups=wide, init=init)
    modules["project"] = Conv2d(wide, outgoing, 1, init=init)
    return (Residual if stride == 1 and incoming == outgoing else Sequential)(**modules)


def around(
    incoming: int, outgoing: int, kernel: int, stride: int, *, border: int = 0, groups: int = 1, init: Init
) -> dict[str, Module]:
    """Return a convolution with TensorFlow's padding, and `border` more at all sides, by name with its activation."""
    if stride == 1:
        conv = Conv2d(incoming, outgoing, kernel, padding=kernel // 2 + border, groups=groups, init=init)
        return {"depthwise": conv, "seen": ReLU6()}
    before = kernel // 2 - 1 + border
    conv = Conv2d(incoming, outgoing, kernel, stride=stride, groups=groups, init=init)
    return {"pad": ZeroPad2d(before, before + 2), "depthwise": conv, "seen": ReLU6()}


class EfficientNetLite0(Trunk):
    """EfficientNet-Lite0 up to its 1280 features, every other channel count times `width`/8.

    `padding` is a border around the image, beside TensorFlow's, 0 in the classifier. Outputs: stage1, 2, 3 and 5 with
    strides 2, 4, 8 and 16, and features with stride 32.
    """

    classic: ClassVar[Mapping[str, Any]] = {"padding": 0}
    size = 224
    own_width = 8

    def __init__(
        self,
        *,
        width: int = 8,
        padding: int = 0,
        in_channels: int = 3,
        dropout: float = 0.2,
        init: str | np.random.Generator,
        rng: np.random.Generator,
    ) -> None:
        thin = self.thinned(width, padding)
        incoming, number = thin(STEM), 0
        pad, conv, seen = around(in_channels, incoming, 3, 2, border=padding, init=init).values()
        modules: dict[str, Module] = {"pad": pad, "stem": conv, "stemmed": seen}
        for stage, (repeats, kernel, stride, factor, channels) in enumerate(BLOCKS, start=1):
            for repeat in range(repeats):
                step = stride if repeat == 0 else 1
                modules[f"mb{number}"] = inverted(incoming, thin(channels), kernel, step, factor, init=init)
                incoming, number = thin(channels), number + 1
            following = BLOCKS[stage][2] if stage < len(BLOCKS) else 1
            if following == 2:  # the last map of its stride
                self.add(f"stage{stage}", f"block{stage}", Sequential(**modules), incoming)
                modules = {}
        features = thin(FEATURES)
        modules |= {"features": Conv2d(incoming, features, 1, init=init), "featured": ReLU6()}
        self.add("features", f"block{len(BLOCKS)}", Sequential(**modules, drop=Dropout(dropout, rng=rng)), features)

    def top(self, classes: int, *, init: Init) -> Sequential:
        return Sequential(mean=GlobalAverage(), fc=Linear(self.channels[self.last], classes, init=init))
