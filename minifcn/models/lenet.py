"""LeNet, the smallest net: two convolutions, two pools and two fully connected layers.

It has no padding at all, so what it says about a window of a larger image is, to the last bit of rounding, what its
convolutional twin says at that cell: the place to understand FCN, section 3.1, before any real net.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from minifcn.models.trunk import Trunk
from minifcn.nn import Conv2d, Init, Linear, MaxPool2d, Sequential


class LeNet(Trunk):
    """Caffe's LeNet (LeCun et al., 1998) up to ip1, every channel count times `width`/10.

    Outputs: pool1 (stride 2), pool2 (4), ip1 (4), the last a 4x4 convolution unless `dense`.
    """

    classic: ClassVar[Mapping[str, Any]] = {"dense": True}
    size = 28
    own_width = 10

    def __init__(
        self,
        *,
        width: int = 10,
        padding: int = 0,
        in_channels: int = 1,
        dense: bool = False,
        init: str | np.random.Generator,
        rng: np.random.Generator | None = None,
    ) -> None:
        thin, full = self.thinned(width, padding), Linear if dense else Conv2d
        conv1 = Conv2d(in_channels, thin(20), 5, padding=padding, init=init)
        conv2 = Conv2d(thin(20), thin(50), 5, init=init)
        self.add("pool1", "block1", Sequential(conv1=conv1, pool=MaxPool2d(2, ceil_mode=True)), thin(20))
        self.add("pool2", "block2", Sequential(conv2=conv2, pool=MaxPool2d(2, ceil_mode=True)), thin(50))
        self.add("ip1", "head", Sequential(ip1=full(thin(50), thin(500), 4, relu=True, init=init)), thin(500))

    def top(self, classes: int, *, init: Init) -> Sequential:
        return Sequential(ip2=Linear(self.channels[self.last], classes, init=init))
