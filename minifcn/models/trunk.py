"""A trunk: what an FCN keeps of a classifier. A chain of stages; a skip takes a stage's output by its name."""

from __future__ import annotations

from collections.abc import Collection

from minifcn.geometry import Layer
from minifcn.nn import Module
from minifcn.tensor import Tensor


class Trunk(Module):
    """`stages` maps the name of each output ("pool3") to the attribute that computes it ("block3"), in order.

    Subclasses set `stages`, `channels` (of each output) and the modules themselves. `padded_upsampling` says whether
    the trunk keeps its maps aligned with the image (padding "same"), so that the upsampling must, too.
    """

    stages: dict[str, str]
    channels: dict[str, int]
    padded_upsampling = False

    def forward(self, x: Tensor, keep: Collection[str] = ()) -> dict[str, Tensor]:
        """The outputs named in `keep`, and the last one."""
        features = {}
        for name, stage in self.stages.items():
            x = getattr(self, stage)(x)
            if name in keep:
                features[name] = x
        features[self.last] = x
        return features

    @property
    def last(self) -> str:
        return list(self.stages)[-1]

    def layers(self) -> list[Layer]:
        return list(self.paths()[self.last])

    def paths(self) -> dict[str, tuple[Layer, ...]]:
        """For each output, all sliding windows between the image and it."""
        path: tuple[Layer, ...] = ()
        paths = {}
        for name, stage in self.stages.items():
            path += tuple(getattr(self, stage).layers())
            paths[name] = path
        return paths
