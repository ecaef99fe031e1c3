"""Design a ladder before building a net: kernels, crops and the least padding.

A chain is written as its layers, `name=kernel/stride/padding`; stride 1 and padding 0 may be left out, and `c` at the
end of a pool counts the last window that hangs over (Caffe's rule). The padding of the first layer is what is looked
for. Everything follows from `Grid` and `Ladder`; no net is built and no number is guessed. FCN, section 4.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from minifcn.errors import GeometryError, UsageError
from minifcn.geometry import Grid, Layer
from minifcn.models.ladder import Ladder, Paths, Rung
from minifcn.models.trunk import Trunk
from minifcn.models.zoo import TRUNKS, near

PathsFor = Callable[[int], Paths]
MOST = 1024  # the largest padding that is tried, and the largest side


class LadderOf(Ladder):
    """A ladder whose last kernel is given, instead of chosen so that it fits."""

    def __init__(self, paths: Paths, skips: Sequence[str], kernel: int | None) -> None:
        self.kernel = kernel
        super().__init__(paths, skips)

    def _rung(self, name: str, skip: str, factor: int, grid: Grid) -> tuple[Rung, Grid]:
        if skip or self.kernel is None:
            return super()._rung(name, skip, factor, grid)
        layer = Layer(self.kernel, factor, transpose=True)
        return self._aligned(name, skip, layer, grid.through(layer))


@dataclass(frozen=True)
class Design:
    """A ladder at the smallest padding safe at every size. `crops` are its offsets, coarse to fine, the image's last.

    `before_image` is by how much the last offset stays behind the padding: it is padding - before_image at any padding.
    """

    padding: int
    ladder: Ladder

    @property
    def crops(self) -> tuple[int, ...]:
        """Where each map is cropped, coarse to fine."""
        return tuple(rung.at for rung in self.ladder.rungs)

    @property
    def kernels(self) -> tuple[int, ...]:
        """The kernel of each upsampling, coarse to fine."""
        return tuple(rung.layer.kernel for rung in self.ladder.rungs)

    @property
    def before_image(self) -> int:
        """The padding less the last crop, the same at any padding."""
        return self.padding - self.crops[-1]


def design(paths_for: PathsFor, skips: Sequence[str] = (), *, kernel: int | None = None) -> Design:
    """Return the ladder over `skips`, at the smallest safe padding, of the trunk with paths `paths_for(padding)`.

    `kernel` forces the last upsampling's. Raises `GeometryError` with the reason where no padding helps, `UsageError`
    for skips that the trunk does not have.
    """
    try:
        LadderOf(paths_for(MOST), skips, kernel)  # so much padding that no offset is negative: only fractions remain
    except GeometryError as fault:
        raise GeometryError(f"no padding makes this ladder fit: {fault}") from fault
    for padding in range(MOST):
        try:
            ladder = LadderOf(paths_for(padding), skips, kernel)
        except GeometryError:
            continue
        if not misfits(ladder, int(ladder.grids[ladder.last].stride)):
            return Design(padding, ladder)
    last = LadderOf(paths_for(MOST), skips, kernel)
    raise GeometryError(f"no padding up to {MOST} will do: with {MOST}, {listed(misfits(last))}")


def misfits(ladder: Ladder, most: int = MOST) -> list[int]:
    """Return the sides from 1 to `most` that do not come out whole; they repeat with the stride."""
    return [size for size in range(1, most + 1) if not ladder.fits(size)]


def trunk_paths(trunk: Callable[..., Trunk]) -> PathsFor:
    """Return the paths of a trunk by padding; its width does not matter."""
    rng = np.random.default_rng(0)
    return lambda padding: trunk(width=1, padding=padding, init="zero", rng=rng).paths()


LAYER = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<numbers>\d{1,5}(?:/\d{1,5}){0,2})(?P<ceil>c?)")


def chain_paths(text: str) -> PathsFor:
    """Return the paths of a chain written as in this file's head. Raises `UsageError` for a word that is no layer."""
    chain: dict[str, Layer] = {}
    for number, word in enumerate(text.split(), start=1):
        match = LAYER.fullmatch(word)
        sizes = [int(n) for n in match["numbers"].split("/")] if match else [0]
        if match is None or 0 in sizes[:2] or (match["name"] or f"layer{number}") in chain:
            raise UsageError(
                f"layer {word!r} cannot be read; expected name=kernel/stride/padding, each name once, "
                f"such as conv1=3/1/1 or pool1=2/2c, or one of the trunks {', '.join(TRUNKS)}{near(word, TRUNKS)}"
            )
        kernel, stride, padding = [*sizes, *(1, 1, 0)[len(sizes) :]]
        chain[match["name"] or f"layer{number}"] = Layer(kernel, stride, padding, ceil=match["ceil"] == "c")
    if not chain:
        raise UsageError(f"found no layer; expected a chain, or one of the trunks {', '.join(TRUNKS)}")
    names, layers = list(chain), list(chain.values())

    def paths(padding: int) -> Paths:
        padded = [replace(layers[0], padding=padding), *layers[1:]]
        return {name: padded[: i + 1] for i, name in enumerate(names)}

    return paths


def listed(bad: list[int]) -> str:
    """Return which sides do not come out whole, in words."""
    if not bad:
        return f"all sides from 1 to {MOST} come out whole"
    return f"{len(bad)} of the sides from 1 to {MOST} do not come out whole, such as {', '.join(map(str, bad[:8]))}"
