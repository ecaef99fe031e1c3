"""AlexNet as Caffe has it (CaffeNet): overlapping pools, local response normalisation, two groups.

Its pools are 3 wide with stride 2, so its cells lie on pixels where VGG's lie between them, and its upsampling kernel
is 63 where VGG's is 64: `Grid` computes it. `AlexNet2014` is what torchvision calls
AlexNet, by the same lines: one group, no normalisation, fewer filters.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np

from minifcn.models.trunk import Trunk
from minifcn.nn import Conv2d, Dropout, Init, Linear, LocalResponseNorm, MaxPool2d, Sequential


class AlexNet(Trunk):
    """CaffeNet (Krizhevsky et al., 2012) up to fc7, every channel count times `width`/16.

    `padding` is conv1's: 100 in the paper's FCN-AlexNet, 0 in the classifier. Outputs: pool1, pool2, pool5 (strides
    8, 16, 32) and fc7. Options as in `VGG`.
    """

    classic: ClassVar[Mapping[str, Any]] = {"padding": 0, "dense": True}
    size = 227
    own_width = 16
    filters = (96, 256, 384, 384, 256)
    caffe = True  # LRN, two groups, pools whose last window hangs over, and dropout after its layer

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
        thin, full = self.thinned(width, padding), Linear if dense else Conv2d
        a, b, c, d, e, hidden = map(thin, (*self.filters, 4096))
        groups = 2 if self.caffe else 1
        pool = partial(MaxPool2d, 3, stride=2, ceil_mode=self.caffe)
        # CaffeNet normalises after the pool, where the AlexNet of 2012 does it before
        norm1, norm2 = ({f"norm{i}": LocalResponseNorm()} if self.caffe else {} for i in (1, 2))
        block1 = Sequential(
            conv1=Conv2d(in_channels, a, 11, stride=4, padding=padding, relu=True, init=init), pool=pool()
        )
        block2 = Sequential(**norm1, conv2=Conv2d(a, b, 5, padding=2, groups=groups, relu=True, init=init), pool=pool())
        block5 = Sequential(
            **norm2,
            conv3=Conv2d(b, c, 3, padding=1, relu=True, init=init),
            conv4=Conv2d(c, d, 3, padding=1, groups=groups, relu=True, init=init),
            conv5=Conv2d(d, e, 3, padding=1, groups=groups, relu=True, init=init),
            pool=pool(),
        )
        fc6, fc7 = full(e, hidden, 6, relu=True, init=init), full(hidden, hidden, 1, relu=True, init=init)
        drop6, drop7 = Dropout(dropout, rng=rng), Dropout(dropout, rng=rng)
        if self.caffe:
            head = Sequential(fc6=fc6, drop6=drop6, fc7=fc7, drop7=drop7)
        else:
            head = Sequential(drop6=drop6, fc6=fc6, drop7=drop7, fc7=fc7)
        self.add("pool1", "block1", block1, a)
        self.add("pool2", "block2", block2, b)
        self.add("pool5", "block5", block5, e)
        self.add("fc7", "head", head, hidden)

    def top(self, classes: int, *, init: Init) -> Sequential:
        return Sequential(fc8=Linear(self.channels[self.last], classes, init=init))


class AlexNet2014(AlexNet):
    """AlexNet as in "One weird trick" (Krizhevsky, 2014) up to fc7, every channel count times `width`/64.

    No groups, no LRN, and pools that never hang over, as torchvision has it; its dropout stands before the layer.
    `padding` is conv1's, 2 in the classifier. Outputs and options as in `AlexNet`.
    """

    classic: ClassVar[Mapping[str, Any]] = {"padding": 2, "dense": True}
    size = 224
    own_width = 64
    filters = (64, 192, 384, 256, 256)
    caffe = False

    def __init__(self, *, width: int = 64, **options: Any) -> None:
        super().__init__(width=width, **options)
