"""SqueezeNet 1.0 and 1.1: AlexNet's accuracy with 1.2 million parameters, fully convolutional.

A fire module squeezes the channels through a 1x1 convolution and expands them again through 1x1 and 3x3 windows side by
side. The score of a class is the mean of its map: the net was fully convolutional before anyone asked. Its total stride
is 16, half that of the others.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from minifcn.errors import UsageError
from minifcn.models.classifier import GlobalAverage
from minifcn.models.trunk import Parallel, Trunk
from minifcn.nn import Conv2d, Dropout, Init, MaxPool2d, Sequential

FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))  # squeeze, expand
# conv1's channels and kernel, the fire modules before each later pool, and the padding of conv10
VERSIONS = {
    "1.0": (96, 7, (4, 8), 1),
    "1.1": (64, 3, (3, 5), 0),
    "1.0 torchvision": (96, 7, (4, 8), 0),  # trained there without the border
}


def fire(incoming: int, squeeze: int, expand: int, *, init: Init) -> Sequential:
    """Return a module that squeezes to `squeeze` channels and expands to 2 * `expand`, half through 3x3 windows."""
    return Sequential(
        squeeze1x1=Conv2d(incoming, squeeze, 1, relu=True, init=init),
        expand=Parallel(
            expand1x1=Conv2d(squeeze, expand, 1, relu=True, init=init),
            expand3x3=Conv2d(squeeze, expand, 3, padding=1, relu=True, init=init),
        ),
    )


class SqueezeNet(Trunk):
    """SqueezeNet (Iandola et al., 2016) 1.0 or 1.1 (`version`) up to fire9, every channel count times `width`/16.

    `padding` is conv1's, 0 in the classifier. Outputs: pool1 and two more pools (strides 4, 8, 16), each named after
    the module it follows (pool4 and pool8 in 1.0, pool3 and pool5 in 1.1), and fire9.
    """

    classic: ClassVar[Mapping[str, Any]] = {"padding": 0}
    size = 227
    own_width = 16

    def __init__(
        self,
        *,
        version: str = "1.0",
        width: int = 16,
        padding: int = 0,
        in_channels: int = 3,
        dropout: float = 0.5,
        init: str | np.random.Generator,
        rng: np.random.Generator,
    ) -> None:
        if version not in VERSIONS:
            raise UsageError(f"SqueezeNet: version is {version!r}; expected one of {', '.join(VERSIONS)}")
        thin = self.thinned(width, padding)
        wide, kernel, pools, self.border = VERSIONS[version]
        incoming, name = thin(wide), "1"
        conv1 = Conv2d(in_channels, incoming, kernel, stride=2, padding=padding, relu=True, init=init)
        modules: dict[str, Any] = {"conv1": conv1, "pool": MaxPool2d(3, stride=2, ceil_mode=True)}
        for number, (squeeze, expand) in enumerate(FIRES, start=2):
            if "pool" in modules:
                self.add(f"pool{name}", f"block{name}", Sequential(**modules), incoming)
                modules = {}
            modules[f"fire{number}"] = fire(incoming, thin(squeeze), thin(expand), init=init)
            incoming, name = 2 * thin(expand), str(number)
            if number in pools:
                modules["pool"] = MaxPool2d(3, stride=2, ceil_mode=True)
        self.add("fire9", "block9", Sequential(**modules, drop9=Dropout(dropout, rng=rng)), incoming)

    def top(self, classes: int, *, init: Init) -> Sequential:
        conv10 = Conv2d(self.channels[self.last], classes, 1, padding=self.border, relu=True, init=init)
        return Sequential(conv10=conv10, pool10=GlobalAverage())
