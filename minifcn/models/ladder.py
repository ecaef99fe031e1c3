"""The geometry of a ladder: which kernels upsample, and where each map is cropped.

Each rung doubles back towards the image: upsample the score by the ratio of two strides, and lay the next skip on it.
`Grid` says at which cell the larger of the two must start, so no offset of the paper (19; 5, 27; 5, 9, 31) is written
down anywhere. FCN, section 4.2 and figure 3.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from minifcn.errors import GeometryError, UsageError
from minifcn.geometry import Grid, Layer, out_size

Paths = Mapping[str, Sequence[Layer]]


@dataclass(frozen=True)
class Rung:
    """One step up: upsample by `layer` (a module called `name`), then cut `cut` ("skip" or "score") at cell `at`.

    `skip` is the map to fuse with, or "" on the last rung, where the score is cropped like the image.
    """

    name: str
    skip: str
    layer: Layer
    at: int
    cut: str
    stride: Fraction


class Ladder:
    """The rungs from a trunk's last output up to the image over `skips`, coarse to fine.

    `paths` gives for each of the trunk's outputs all layers between the image and it. `padded` pads each upsampling by
    (kernel - stride)/2, for trunks that keep their maps aligned with the image. Raises `UsageError` for skips that are
    not there or not in order, `GeometryError` where grids cannot be aligned.
    """

    def __init__(self, paths: Paths, skips: Sequence[str], *, padded: bool = False) -> None:
        self.paths, self.padded = paths, padded
        self.last = list(paths)[-1]
        self.grids = {name: Grid.of(path) for name, path in paths.items()}
        finer = self._strides_on_the_way(skips)
        grid, below = self.grids[self.last], self.last
        self.rungs: list[Rung] = []
        for skip, stride in zip((*skips, ""), finer, strict=True):
            factor = int(grid.stride / stride)
            rung, grid = self._rung(self._name(below, skip, factor), skip, factor, grid)
            self.rungs.append(rung)
            below = skip

    def _strides_on_the_way(self, skips: Sequence[str]) -> list[Fraction]:
        top = stride = self.grids[self.last].stride
        usable = {name: grid.stride for name, grid in self.grids.items() if grid.stride < top}
        known = ", ".join(f"{name} (stride {stride})" for name, stride in usable.items())
        for skip in skips:
            if skip not in usable:
                raise UsageError(f"skip {skip!r} is not an output of this trunk finer than {self.last}: it has {known}")
            if usable[skip] >= stride or (stride / usable[skip]).denominator != 1:
                order = f"from coarse to fine by whole factors, from {self.last} (stride {top}) on"
                raise UsageError(f"skips {tuple(skips)} must go {order}; this trunk has {known}")
            stride = usable[skip]
        return [*(usable[skip] for skip in skips), Fraction(1)]

    def _name(self, below: str, skip: str, factor: int) -> str:
        """Return the paper's names: by the factor at both ends of the ladder, in between by the map it climbs from."""
        if below == self.last and not skip:
            return "upscore"
        if not skip and factor > 2:
            return f"upscore{factor}"
        return "upscore2" if below == self.last and factor == 2 else f"upscore_{below}"

    def _rung(self, name: str, skip: str, factor: int, grid: Grid) -> tuple[Rung, Grid]:
        """Return the rung whose bilinear kernel, 2s wide or else 2s - 1, lands the score on the grid it is to meet.

        An even kernel shifts the cells by half a pixel, an odd one does not: 64 after VGG, 63 after AlexNet.
        """
        target = self.grids[skip] if skip else Grid()
        layers = [
            Layer(kernel, factor, (kernel - factor) // 2 if self.padded else 0, transpose=True)
            for kernel in (2 * factor, 2 * factor - 1)
        ]
        distances = [(grid.through(layer).start - target.start) / target.stride for layer in layers]
        layer = next((lay for lay, d in zip(layers, distances, strict=True) if d.denominator == 1), layers[0])
        return self._aligned(name, skip, layer, grid.through(layer))

    def _aligned(self, name: str, skip: str, layer: Layer, score: Grid) -> tuple[Rung, Grid]:
        if not skip:
            at = score.crop_offset(Grid(), name=name, other_name="the image")
            return Rung(name, skip, layer, at, "score", score.stride), score.cropped(at)
        at = self.grids[skip].offset(score, name=skip, other_name=name)
        if at > 0:
            return Rung(name, skip, layer, at, "skip", score.stride), score
        if at < 0:
            return Rung(name, skip, layer, -at, "score", score.stride), score.cropped(-at)
        # Equal starts: the one that is larger at the far end is cut, and ceil pooling decides which one that is.
        cut = "skip" if self._skip_is_larger(skip, layer) else "score"
        return Rung(name, skip, layer, 0, cut, score.stride), score

    def _skip_is_larger(self, skip: str, layer: Layer) -> bool:
        """Return whether the skip is as large as the score, or larger, at every size; sizes repeat with the stride."""
        stride = int(self.grids[self.last].stride)
        for size in range(stride, 2 * stride):
            try:
                score = layer.out_size(self._climb(size))
            except GeometryError:
                continue
            if out_size(self.paths[skip], size) < score:
                return False
        return True

    def _climb(self, size: int) -> int:
        """Return the size of the score after the rungs so far, from an image of `size`; checks every crop."""
        score = out_size(self.paths[self.last], size)
        for rung in self.rungs:
            score = rung.layer.out_size(score)
            like = out_size(self.paths[rung.skip], size) if rung.skip else size
            larger, smaller = (like, score) if rung.cut == "skip" else (score, like)
            if rung.at + smaller > larger:
                gives = f"gives {rung.name} a score of {score} and {rung.skip or 'the image'} {like} cells"
                few = f"cropping the {rung.cut} at {rung.at} leaves too few; use more padding"
                raise GeometryError(f"an image of {size} pixels {gives}: {few}")
            score = smaller
        return score

    def fits(self, size: int) -> bool:
        """Return whether an image with a side of `size` comes out at that size."""
        try:
            return self._climb(size) == size
        except GeometryError:
            return False


def skips_to(paths: Paths, stride: int) -> tuple[str, ...]:
    """Return the skips of the ladder whose finest has this stride: all outputs from there on, coarse to fine.

    `UsageError`, naming the strides there are, for any other.
    """
    strides = {name: Grid.of(path).stride for name, path in paths.items()}
    top = list(strides.values())[-1]
    if stride not in strides.values():
        known = ", ".join(str(found) for found in sorted(set(strides.values())))
        raise UsageError(f"stride is {stride!r}; expected one that this trunk has after a pool: {known}")
    return tuple(name for name in reversed(strides) if stride <= strides[name] < top)


def safe_padding(paths_for: Callable[[int], Paths], skips: Sequence[str]) -> int:
    """Return the smallest padding that fits images of every size: 97 for VGG-16, where the paper takes 100.

    A side larger by the total stride makes every map larger by a whole number of cells, and each crop needs only
    differences; so what holds for a period of sides holds for all. Tried are two of them: the smallest sides, and some
    larger than the field, since a pool's window that hangs over a small map (ceil) finds room where a larger has none.
    """
    for padding in range(1024):
        try:
            ladder = Ladder(paths_for(padding), skips)
        except GeometryError:
            continue
        stride = int(ladder.grids[ladder.last].stride)
        large = int(ladder.grids[ladder.last].field)
        if all(ladder.fits(size) for size in (*range(1, stride + 1), *range(large, large + stride))):
            return padding
    raise GeometryError(f"no padding below 1024 lets the skips {tuple(skips)} fit at every size")
