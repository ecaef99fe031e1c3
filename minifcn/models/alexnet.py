"""AlexNet as Caffe has it (CaffeNet): overlapping pools, local response normalisation, two groups.

Its pools are 3 wide with stride 2, so its cells lie on pixels where VGG's lie between them, and its upsampling kernel
is 63 where VGG's is 64: a choice that `Grid` makes, and nobody has to remember. `AlexNet2014` is what torchvision calls
AlexNet: one group, no normalisation, fewer filters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from minifcn.models.trunk import Trunk, checked_padding, thinned
from minifcn.nn import Conv2d, Dropout, Init, Linear, LocalResponseNorm, MaxPool2d, Sequential


class AlexNet(Trunk):
    """CaffeNet (Krizhevsky et al., 2012) up to fc7, every channel count times `width`/16.

    `padding` is conv1's: 100 in the paper's FCN-AlexNet, 0 in the classifier. Outputs: pool1, pool2, pool5 (strides
    8, 16, 32) and fc7. Options as in `VGG`.
    """

    classic: ClassVar[Mapping[str, Any]] = {"padding": 0, "dense": True}
    size = 227
    own_width = 16

    def __init__(
        self,
        *,
        width: int = 16,
        padding: int = 100,
        in_channels: int = 3,
        dropout: float = 0.5,
        dense: bool = False,
        init: str | np.random.Generator,
        rng: np.random.Generator,
    ) -> None:
        thin, full = thinned("AlexNet", width, self.own_width), Linear if dense else Conv2d
        checked_padding("AlexNet", padding)
        a, b, c, hidden = thin(96), thin(256), thin(384), thin(4096)
        block1 = Sequential(
            conv1=Conv2d(in_channels, a, 11, stride=4, padding=padding, relu=True, init=init),
            pool=MaxPool2d(3, stride=2, ceil_mode=True),
        )
        block2 = Sequential(
            norm1=LocalResponseNorm(),  # after the pool: this is what tells CaffeNet from AlexNet
            conv2=Conv2d(a, b, 5, padding=2, groups=2, relu=True, init=init),
            pool=MaxPool2d(3, stride=2, ceil_mode=True),
        )
        block5 = Sequential(
            norm2=LocalResponseNorm(),
            conv3=Conv2d(b, c, 3, padding=1, relu=True, init=init),
            conv4=Conv2d(c, c, 3, padding=1, groups=2, relu=True, init=init),
            conv5=Conv2d(c, b, 3, padding=1, groups=2, relu=True, init=init),
            pool=MaxPool2d(3, stride=2, ceil_mode=True),
        )
        head = Sequential(
            fc6=full(b, hidden, 6, relu=True, init=init),
            drop6=Dropout(dropout, rng=rng),
            fc7=full(hidden, hidden, 1, relu=True, init=init),
            drop7=Dropout(dropout, rng=rng),
        )
        self.add("pool1", "block1", block1, a)
        self.add("pool2", "block2", block2, b)
        self.add("pool5", "block5", block5, b)
        self.add("fc7", "head", head, hidden)

    def top(self, classes: int, *, init: Init) -> Sequential:
        return Sequential(fc8=Linear(self.channels[self.last], classes, init=init))


class AlexNet2014(Trunk):
    """AlexNet as in "One weird trick" (Krizhevsky, 2014) up to fc7, every channel count times `width`/64.

    No groups, no LRN, and pools that never hang over, as torchvision has it. `padding` is conv1's, 2 in the
    classifier. Outputs and options as in `AlexNet`.
    """

    classic: ClassVar[Mapping[str, Any]] = {"padding": 2, "dense": True}
    size = 224
    own_width = 64

    def __init__(
        self,
        *,
        width: int = 64,
        padding: int = 100,
        in_channels: int = 3,
        dropout: float = 0.5,
        dense: bool = False,
        init: str | np.random.Generator,
        rng: np.random.Generator,
    ) -> None:
        thin, full = thinned("AlexNet2014", width, self.own_width), Linear if dense else Conv2d
        checked_padding("AlexNet2014", padding)
        a, b, c, d, hidden = thin(64), thin(192), thin(384), thin(256), thin(4096)
        block1 = Sequential(
            conv1=Conv2d(in_channels, a, 11, stride=4, padding=padding, relu=True, init=init),
            pool=MaxPool2d(3, stride=2),
        )
        block2 = Sequential(conv2=Conv2d(a, b, 5, padding=2, relu=True, init=init), pool=MaxPool2d(3, stride=2))
        block5 = Sequential(
            conv3=Conv2d(b, c, 3, padding=1, relu=True, init=init),
            conv4=Conv2d(c, d, 3, padding=1, relu=True, init=init),
            conv5=Conv2d(d, d, 3, padding=1, relu=True, init=init),
            pool=MaxPool2d(3, stride=2),
        )
        head = Sequential(
            drop6=Dropout(dropout, rng=rng),  # before its layer, where CaffeNet drops after it
            fc6=full(d, hidden, 6, relu=True, init=init),
            drop7=Dropout(dropout, rng=rng),
            fc7=full(hidden, hidden, 1, relu=True, init=init),
        )
        self.add("pool1", "block1", block1, a)
        self.add("pool2", "block2", block2, b)
        self.add("pool5", "block5", block5, d)
        self.add("fc7", "head", head, hidden)

    def top(self, classes: int, *, init: Init) -> Sequential:
        return Sequential(fc8=Linear(self.channels[self.last], classes, init=init))
