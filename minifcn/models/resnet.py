"""torchvision's FCN on ResNet-50 and ResNet-101: dilated to stride 8, batch normalisation, an auxiliary head.

A bottleneck computes relu(x + f(x)), f being 1x1, 3x3 and 1x1 convolutions; where f changes the shape, x goes through
a 1x1 convolution, too. The strides of the last two stages are taken out as `stitch.rarefied` does it, so the weights
of the classifier still fit. The scores of stride 8 are resampled to the image's size, which needs neither a border nor
a crop. A second head on layer3 helps in training: its loss counts half there, and nothing afterwards.
He et al., "Deep residual learning" (CVPR 2016); FCN, section 3.2.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from minifcn import ops
from minifcn.errors import UsageError
from minifcn.geometry import Layer
from minifcn.models.trunk import Residual, Trunk, initial
from minifcn.nn import BatchNorm2d, Conv2d, Dropout, Init, MaxPool2d, Module, ReLU, Sequential
from minifcn.stitch import rarefied, sliding
from minifcn.tensor import Tensor

AUXILIARY = 0.5  # how much the loss of the second head counts
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}  # bottlenecks in each stage


def bottleneck(incoming: int, inner: int, stride: int, *, init: Init) -> Sequential:
    """Return one block, from `incoming` to 4 `inner` channels."""
    outgoing = 4 * inner
    f: dict[str, Module] = {"conv1": Conv2d(incoming, inner, 1, bias=False, init=init), "bn1": BatchNorm2d(inner)}
    f |= {"relu1": ReLU(), "conv2": Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False, init=init)}
    f |= {"bn2": BatchNorm2d(inner), "relu2": ReLU()}
    f |= {"conv3": Conv2d(inner, outgoing, 1, bias=False, init=init), "bn3": BatchNorm2d(outgoing)}
    if stride > 1 or incoming != outgoing:
        shortcut = Conv2d(incoming, outgoing, 1, stride=stride, bias=False, init=init)
        f["downsample"] = Sequential(**{"0": shortcut, "1": BatchNorm2d(outgoing)})
    return Sequential(body=Residual(**f), relu=ReLU())


class ResNet(Trunk):
    """ResNet-50 or -101 without its classifier, with the strides from `output_stride` on as dilation.

    Every channel count is `width`/64 of the published one. Outputs: pool1 and layer1 with stride 4, layer2 with 8,
    layer3 and layer4 with 16 and 32, or `output_stride`.
    """

    own_width = 64

    def __init__(
        self,
        *,
        layers: int = 50,
        output_stride: int = 32,
        width: int = 64,
        padding: int = 0,
        in_channels: int = 3,
        init: Init,
        rng: np.random.Generator | None = None,
    ) -> None:
        thin = self.thinned(width, padding)
        if layers not in BLOCKS or output_stride not in (8, 16, 32):
            found = f"layers is {layers!r}, output_stride {output_stride!r}"
            raise UsageError(f"ResNet: {found}; expected one of {', '.join(map(str, BLOCKS))}; 8, 16 or 32")
        incoming = thin(64)
        conv1 = Conv2d(in_channels, incoming, 7, stride=2, padding=3 + padding, bias=False, init=init)
        pool = MaxPool2d(3, stride=2, padding=1)
        stem = Sequential(conv1=conv1, bn1=BatchNorm2d(incoming), relu=ReLU(), maxpool=pool)
        self.add("pool1", "block1", stem, incoming)
        for stage, count in enumerate(BLOCKS[layers], start=1):
            inner, blocks = thin(32 << stage), {}
            for number in range(count):
                stride = 2 if stage > 1 and number == 0 else 1
                blocks[str(number)] = bottleneck(incoming, inner, stride, init=init)
                incoming = 4 * inner
            name = f"layer{stage}"
            self.add(name, f"block{stage + 1}", Sequential(**{name: Sequential(**blocks)}), incoming)
        chain = [module for name, module in sliding(self) if ".downsample." not in name]
        for module, layer in zip(chain, rarefied([each.layer for each in chain], output_stride), strict=True):
            module.layer = layer
        for residual in (module for module in self.modules() if isinstance(module, Residual)):
            if residual.shortcut:  # where the window on the path has no stride any more, the shortcut has none
                first = residual.shortcut.sequence()["0"]
                first.layer = replace(first.layer, stride=residual.sequence()["conv2"].layer.stride)  # type: ignore[attr-defined]


def head(incoming: int, classes: int, dropout: float, *, init: Init, rng: np.random.Generator) -> Sequential:
    """Return a 3x3 convolution to a quarter of the channels, and the scores of `classes`."""
    inner = incoming // 4
    conv, score = Conv2d(incoming, inner, 3, padding=1, bias=False, init=init), Conv2d(inner, classes, 1, init=init)
    modules = (conv, BatchNorm2d(inner), ReLU(), Dropout(dropout, rng=rng), score)
    return Sequential(**{str(number): module for number, module in enumerate(modules)})


class FCN_ResNet(Module):
    """Scores (N, classes, H, W) for images (N, channels, H, W) of any size; with `aux`, `both` has the second head's.

    `init` is "he", "zero" or "meta"; other options as in `ResNet`. Its state dict by torchvision's names is in
    `weights.torch_state`.
    """

    def __init__(
        self,
        *,
        layers: int = 50,
        classes: int = 21,
        aux: bool = True,
        width: int = 64,
        in_channels: int = 3,
        output_stride: int = 8,
        dropout: float = 0.1,
        init: str = "he",
        seed: int = 0,
    ) -> None:
        weights, rng = initial(init, seed)
        self.classes = classes
        self.trunk = ResNet(
            layers=layers, output_stride=output_stride, width=width, in_channels=in_channels, init=weights
        )
        channels = self.trunk.channels
        self.classifier = head(channels["layer4"], classes, dropout, init=weights, rng=rng)
        self.aux_classifier = head(channels["layer3"], classes, dropout, init=weights, rng=rng) if aux else None

    def forward(self, image: Tensor | Any) -> Tensor:
        return ops.bilinear_resize(self.cells(image), size=image.shape[2:])

    def cells(self, image: Tensor | Any) -> Tensor:
        """Return the scores (N, classes, h, w) of stride 8, before they are resampled to the image's size."""
        return self.classifier(self.trunk(image)["layer4"])

    def both(self, image: Tensor | Any) -> Mapping[str, Tensor]:
        """Return the scores of both heads, {"out": ..., "aux": ...}; to learn by loss(out) + 0.5 loss(aux)."""
        if self.aux_classifier is None:
            raise UsageError("FCN_ResNet: has no auxiliary head; expected a net made with `aux=True`")
        features = self.trunk(image, keep=("layer3",))
        scores = {"out": self.classifier(features["layer4"]), "aux": self.aux_classifier(features["layer3"])}
        return {name: ops.bilinear_resize(each, size=image.shape[2:]) for name, each in scores.items()}

    def layers(self) -> list[Layer]:
        """Return the windows between the image and the scores of stride 8."""
        return [*self.trunk.layers(), *self.classifier.layers()]
