"""GoogLeNet: nine inception modules with four branches each.

22 convolutions deep, and with 6 million parameters a tenth of AlexNet. FCN-GoogLeNet keeps no auxiliary loss, and not
the final average pool: with it a cell of the last map sees 907 pixels (the number in the paper's table 1), without 715.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from minifcn.errors import UsageError
from minifcn.models.trunk import Parallel, Trunk
from minifcn.nn import AvgPool2d, Conv2d, Dropout, Init, Linear, LocalResponseNorm, MaxPool2d, Module, Sequential

# Szegedy et al., 2015, table 1: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection
INCEPTIONS = {
    3: {"a": (64, 96, 128, 16, 32, 32), "b": (128, 128, 192, 32, 96, 64)},
    4: {
        "a": (192, 96, 208, 16, 48, 64),
        "b": (160, 112, 224, 24, 64, 64),
        "c": (128, 128, 256, 24, 64, 64),
        "d": (112, 144, 288, 32, 64, 64),
        "e": (256, 160, 320, 32, 128, 128),
    },
    5: {"a": (256, 160, 320, 32, 128, 128), "b": (384, 192, 384, 48, 128, 128)},
}
# the normalisation of the first maps, the window of the 5x5 branch, and of the pool before block 5
VERSIONS = {"paper": (True, 5, 3), "torchvision": (False, 3, 2)}


def inception(incoming: int, counts: list[int], *, init: Init, wide: int = 5) -> Parallel:
    """Return 1x1, 3x3, 5x5 and 3x3 max pooling of the same maps, each made cheaper by a 1x1 convolution."""
    one, reduce3, three, reduce5, five, projected = counts

    def conv(i: int, o: int, kernel: int) -> Conv2d:
        return Conv2d(i, o, kernel, padding=kernel // 2, relu=True, init=init)

    return Parallel(
        conv1x1=conv(incoming, one, 1),
        conv3x3=Sequential(reduce=conv(incoming, reduce3, 1), conv=conv(reduce3, three, 3)),
        conv5x5=Sequential(reduce=conv(incoming, reduce5, 1), conv=conv(reduce5, five, wide)),
        pool=Sequential(pool=MaxPool2d(3, stride=1, padding=1, ceil_mode=True), proj=conv(incoming, projected, 1)),
    )


class GoogLeNet(Trunk):
    """GoogLeNet (Szegedy et al., 2015) up to inception_5b, every channel count times `width`/8.

    `padding` is conv1's, 3 in the classifier. Outputs: pool1 .. pool4 (strides 4 .. 32) and inception_5b. Its
    dropout draws from `rng`, and drops cells of the last map, since an FCN has no average pool after which to drop.
    `version` "torchvision" is the net of that library once its batch normalisation is folded into the convolutions
    (`weights.names.folded`): no LRN, 3x3 windows in the place of 5x5, and a 2x2 pool4.
    """

    classic: ClassVar[Mapping[str, Any]] = {"padding": 3}
    size = 224
    own_width = 8

    def __init__(
        self,
        *,
        version: str = "paper",
        width: int = 8,
        padding: int = 3,
        in_channels: int = 3,
        dropout: float = 0.4,
        init: str | np.random.Generator,
        rng: np.random.Generator,
    ) -> None:
        if version not in VERSIONS:
            raise UsageError(f"GoogLeNet: version is {version!r}; expected one of {', '.join(VERSIONS)}")
        thin = self.thinned(width, padding)
        normalized, wide, last_pool = VERSIONS[version]
        block1 = Sequential(
            conv1=Conv2d(in_channels, thin(64), 7, stride=2, padding=padding, relu=True, init=init),
            pool=MaxPool2d(3, stride=2, ceil_mode=True),
        )
        norm1, norm2 = ({"norm1": LocalResponseNorm()}, {"norm2": LocalResponseNorm()}) if normalized else ({}, {})
        block2 = Sequential(
            **norm1,
            reduce=Conv2d(thin(64), thin(64), 1, relu=True, init=init),
            conv2=Conv2d(thin(64), thin(192), 3, padding=1, relu=True, init=init),
            **norm2,
            pool=MaxPool2d(3, stride=2, ceil_mode=True),
        )
        self.add("pool1", "block1", block1, thin(64))
        self.add("pool2", "block2", block2, thin(192))
        incoming = thin(192)
        for block, row in INCEPTIONS.items():
            modules: dict[str, Module] = {}
            for letter, counts in row.items():
                one, _, three, _, five, projected = thinner = [thin(n) for n in counts]
                modules[f"inception_{block}{letter}"] = inception(incoming, thinner, init=init, wide=wide)
                incoming = one + three + five + projected
            if block < 5:
                pool = MaxPool2d(last_pool if block == 4 else 3, stride=2, ceil_mode=True)
                self.add(f"pool{block}", f"block{block}", Sequential(**modules, pool=pool), incoming)
            else:
                drop = Dropout(dropout, rng=rng)
                self.add("inception_5b", "block5", Sequential(**modules, drop=drop), incoming)

    def top(self, classes: int, *, init: Init) -> Sequential:
        fc = Linear(self.channels[self.last], classes, init=init)
        return Sequential(pool5=AvgPool2d(7, stride=1, ceil_mode=True), fc=fc)
