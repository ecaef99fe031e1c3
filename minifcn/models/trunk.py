"""A trunk: the part of a classifier that an FCN keeps, as a chain of named stages."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

import numpy as np

from minifcn import ops
from minifcn.errors import GeometryError, UsageError, whole
from minifcn.geometry import Grid, Layer
from minifcn.nn import Init, Module, Sequential, Upsample
from minifcn.tensor import Tensor


class Trunk(Module):
    """`stages` maps the name of each output ("pool3") to the attribute that computes it ("block3"), in order.

    Subclasses set `stages`, `channels` (of each output) and the modules themselves, or `add` them one by one.
    `padded_upsampling` says whether the trunk keeps its maps aligned with the image (padding "same", if it
    `takes_same`), so that the upsampling must, too. `classic` are the options that make the trunk its classifier's,
    `size` the side of the images that the classifier takes, `own_width` the `width` of the published trunk.
    """

    stages: dict[str, str]
    channels: dict[str, int]
    padded_upsampling = False
    takes_same = False
    classic: ClassVar[Mapping[str, Any]] = {}
    size: ClassVar[int]
    own_width: ClassVar[int]

    def thinned(self, width: int, padding: int | str) -> Callable[[int], int]:
        """Return what makes `width`/`own_width` of a channel count: all counts are multiples, so the result is exact.

        Raises `UsageError` for a width, or a padding, that no trunk of this kind has.
        """
        name, own = type(self).__name__, self.own_width
        if not whole(width, least=1):
            expected = f"a whole number of at least 1 ({own} is {name}'s own)"
            raise UsageError(f"{name}: width is {width!r}; expected {expected}")
        if not whole(padding, least=0) and not (self.takes_same and padding == "same"):
            same = '"same" or ' if self.takes_same else ""
            raise UsageError(f"{name}: padding is {padding!r}; expected {same}a whole number of at least 0")
        return lambda channels: channels * int(width) // own

    def add(self, output: str, stage: str, module: Module, channels: int) -> None:
        """One more stage at the end: the attribute `stage` computes `output`, of so many channels."""
        if not hasattr(self, "stages"):
            self.stages, self.channels = {}, {}
        setattr(self, stage, module)
        self.stages[output], self.channels[output] = stage, channels

    def until(self, output: str) -> Trunk:
        """Return this trunk without the stages after `output`, same modules; FCN-pool4 has `until("pool4")`."""
        names = list(self.stages)
        if output not in names:
            raise UsageError(f"trunk: output is {output!r}; expected one of {', '.join(names)}")
        short = copy.copy(self)
        kept = names[: names.index(output) + 1]
        short.stages = {name: self.stages[name] for name in kept}
        short.channels = {name: self.channels[name] for name in kept}
        for name in names[len(kept) :]:
            delattr(short, self.stages[name])
        return short

    def top(self, classes: int, *, init: Init) -> Sequential:
        """Return the layers that make a classifier of this trunk: from its last output to (N, classes)."""
        raise UsageError(f"{type(self).__name__} is not the trunk of a classifier")

    def forward(
        self, x: Tensor, keep: Collection[str] = (), *, begun: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Return the outputs named in `keep`, and the last one.

        `begun` are outputs that are known already: the trunk goes on after the last of them, in the place of `x`.
        """
        features, names = dict(begun or {}), list(self.stages)
        done = 1 + max(map(names.index, features), default=-1)
        x = features[names[done - 1]] if done else x
        for name in names[done:]:
            x = getattr(self, self.stages[name])(x)
            if name in keep:
                features[name] = x
        features[self.last] = x
        return features

    @property
    def last(self) -> str:
        """The name of the coarsest output."""
        return list(self.stages)[-1]

    def layers(self) -> list[Layer]:
        """Return all windows between the image and the last output."""
        return list(self.paths()[self.last])

    def paths(self) -> dict[str, tuple[Layer, ...]]:
        """Return for each output all sliding windows between the image and it."""
        path: tuple[Layer, ...] = ()
        paths = {}
        for name, stage in self.stages.items():
            path += tuple(getattr(self, stage).layers())
            paths[name] = path
        return paths


def enlarged(trunk: Trunk, factor: int, *, in_channels: int = 3) -> Trunk:
    """Return `trunk` with a stage before all others that enlarges the image by bilinear interpolation.

    A trunk sees more of small things then, and its cells lie closer together: every stride is divided by `factor`.
    Between two pixels come `factor` - 1 new ones, so that every pixel stays one.
    """
    trunk.enlarge = Upsample(in_channels, 2 * factor - 1, factor, padding=factor - 1)  # type: ignore[attr-defined]
    trunk.stages = {"enlarged": "enlarge", **trunk.stages}
    trunk.channels = {"enlarged": in_channels, **trunk.channels}
    return trunk


class Parallel(Module):
    """Branches side by side, their maps one after another in the channels: what an inception module is made of."""

    def __init__(self, **branches: Module) -> None:
        vars(self).update(branches)

    def branches(self) -> dict[str, Module]:
        """Return the branches, by name."""
        return {name: child for name, child in self.children() if isinstance(child, Module)}

    def forward(self, x: Tensor) -> Tensor:
        return ops.concat(*(branch(x) for branch in self.branches().values()))

    def layers(self) -> list[Layer]:
        """Return the windows of the branch that sees most; all must put their cells on the same grid.

        Raises `GeometryError` naming two branches whose cells do not lie on each other.
        """
        paths = {name: branch.layers() for name, branch in self.branches().items()}
        grids = {name: Grid.of(path) for name, path in paths.items()}
        widest = max(grids, key=lambda name: grids[name].field)
        for name, grid in grids.items():
            if (grid.stride, grid.start) != (grids[widest].stride, grids[widest].start):
                other, which = grids[widest], f"branches {name} and {widest} cannot be concatenated"
                cells = f"stride {grid.stride} and {other.stride} and start at {grid.start} and {other.start}"
                raise GeometryError(f"{which}: their cells have {cells}; expected one grid")
        return paths[widest]


class Residual(Sequential):
    """Modules one after another, whose input is added to what comes out (He et al., 2016): y = x + f(x).

    They must keep the shape of x, so their cells must lie where those of x do. Where they do not, a module called
    `downsample` is the shortcut: y = downsample(x) + f(x).
    """

    @property
    def shortcut(self) -> Sequential | None:
        """The module through which the input goes before it is added, if there is one."""
        return getattr(self, "downsample", None)

    def sequence(self) -> dict[str, Module]:
        return {name: module for name, module in super().sequence().items() if name != "downsample"}

    def forward(self, x: Tensor) -> Tensor:
        return (self.shortcut(x) if self.shortcut else x) + super().forward(x)


def initial(init: str, seed: int) -> tuple[Init, np.random.Generator]:
    """Return where weights come from ("he": random; "zero" and "meta" stay what they are), and a random generator."""
    if init not in ("he", "zero", "meta"):
        raise UsageError(f'init is {init!r}; expected "he", "zero" or "meta"')
    rng = np.random.default_rng(seed)
    return rng if init == "he" else init, rng
