"""VGG, the trunk of the paper's best nets: five blocks of 3x3 convolutions, then fc6 and fc7.

The fully connected layers of the classifier are here already convolutions, 7x7 and 1x1 (FCN, section 3.1); with
`dense=True` they are what they were.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from minifcn.errors import UsageError
from minifcn.models.trunk import Trunk
from minifcn.nn import Conv2d, Dropout, Init, Linear, MaxPool2d, Sequential

# 3x3 convolutions in each block, by the number of layers with weights that the classifier is known by (it has fc8, too)
BLOCKS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
CHANNELS = (64, 128, 256, 512, 512)  # of each block; all are multiples of 64, so every whole width is exact
FC = 4096


class VGG(Trunk):
    """The trunk of VGG-16, or of its shorter and longer sisters, every channel count times `width`/64.

    `padding` is conv1_1's, 100 in the paper; or "same": 1 there and 3 at fc6, so that no border is added. `init` is a
    random generator (He's initialisation, for training from scratch) or "zero" (Caffe's default, to be transplanted
    into). Its dropout draws from `rng`. fc6 and fc7 have `fc` channels, 64 * width unless given. Outputs: pool1 ..
    pool5 (strides 2 .. 32) and fc7.
    """

    classic: ClassVar[Mapping[str, Any]] = {"padding": 1, "dense": True}
    size = 224
    own_width = 64
    takes_same = True

    def __init__(
        self,
        *,
        layers: int = 16,
        width: int = 64,
        padding: int | str = 100,
        in_channels: int = 3,
        dropout: float = 0.5,
        dense: bool = False,
        fc: int = 0,
        init: str | np.random.Generator,
        rng: np.random.Generator,
    ) -> None:
        if layers not in BLOCKS:
            raise UsageError(f"VGG: layers is {layers!r}; expected one of {', '.join(map(str, BLOCKS))}")
        thin = self.thinned(width, padding)
        self.padded_upsampling = same = padding == "same"
        if same and dense:
            raise UsageError('VGG: padding is "same" and dense is True; a fully connected fc6 takes no padding')
        incoming = in_channels
        for block, (depth, wide) in enumerate(zip(BLOCKS[layers], CHANNELS, strict=True), start=1):
            outgoing, modules = thin(wide), {}
            for i in range(1, depth + 1):
                border = int(padding) if block == i == 1 and not same else 1
                modules[f"conv{block}_{i}"] = Conv2d(incoming, outgoing, 3, padding=border, relu=True, init=init)
                incoming = outgoing
            pool = MaxPool2d(2, ceil_mode=True)
            self.add(f"pool{block}", f"block{block}", Sequential(**modules, pool=pool), outgoing)
        hidden, full = fc or thin(FC), Linear if dense else Conv2d
        kept: dict[str, Any] = {"padding": 3} if same else {}  # fc6 as large as pool5
        head = Sequential(
            fc6=full(incoming, hidden, 7, relu=True, init=init, **kept),
            drop6=Dropout(dropout, rng=rng),
            fc7=full(hidden, hidden, 1, relu=True, init=init),
            drop7=Dropout(dropout, rng=rng),
        )
        self.add("fc7", "head", head, hidden)

    def top(self, classes: int, *, init: Init) -> Sequential:
        return Sequential(fc8=Linear(self.channels[self.last], classes, init=init))
