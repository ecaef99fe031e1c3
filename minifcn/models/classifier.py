"""A classifier: a trunk with one answer per image, before it becomes convolutional.

`classifier(AlexNet)` is a trunk with its fully connected layers as they were, and the last layers on top. It takes one
size of image and no other; `surgery.convolutionalize` turns it into a net that answers for every window of a larger
one. Without weights from elsewhere, what it says about a photograph is noise: good for shapes and equalities only.
"""

from collections.abc import Callable
from typing import Any

from minifcn import ops
from minifcn.geometry import Layer
from minifcn.models.trunk import Trunk, initial
from minifcn.nn import Init, Linear, Module, Sequential
from minifcn.tensor import Tensor


class Classifier(Module):
    """Scores (N, classes) for images (N, channels, H, W) of the trunk's one size: `top` of the trunk's last output.

    `top` is the one that the trunk had as a classifier, unless another is given.
    """

    def __init__(self, trunk: Trunk, *, classes: int, init: Init, top: Sequential | None = None) -> None:
        self.trunk = trunk
        self.top = top or trunk.top(classes, init=init)

    def forward(self, image: Tensor | Any) -> Tensor:
        return self.top(self.trunk(image)[self.trunk.last])

    def layers(self) -> list[Layer]:
        """Return all windows between the image and the answer."""
        return [*self.trunk.layers(), *self.top.layers()]


class GlobalAverage(Module):
    """The mean of each map: (N, C, H, W) -> (N, C), whatever H and W."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.mean(x, axis=(2, 3))


def averaging(trunk: Trunk, *, classes: int, init: Init) -> Classifier:
    """Return a classifier for images of any size, from any trunk: the mean of the last map, scored.

    The mean of scores is the score of the mean: this is what an FCN says of its cells, averaged.
    """
    top = Sequential(mean=GlobalAverage(), score=Linear(trunk.channels[trunk.last], classes, init=init))
    return Classifier(trunk, classes=classes, init=init, top=top)


def classifier(
    trunk: type[Trunk], *, classes: int = 1000, init: str = "he", seed: int = 0, **options: Any
) -> Classifier:
    """Return the classifier of a trunk, with random weights ("he", from `seed`), zeros ("zero", to be transplanted
    into), or without memory for them ("meta", to be loaded).

    `options` are the trunk's: width, dropout, in_channels, ...
    """
    weights, rng = initial(init, seed)
    make: Callable[..., Trunk] = trunk
    return Classifier(make(**{**trunk.classic, **options}, init=weights, rng=rng), classes=classes, init=weights)
