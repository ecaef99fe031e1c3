"""Large single objects of the embedded world, one class per image, to pretrain classifiers.

A segmentation net learns better if its trunk begins as a classifier trained on many pictures of single things (FCN,
section 4.1). For photographs that is ImageNet. This is the counterpart for the embedded world: the same sky, hills and
ground, the same things in the same paints, and a label for the whole picture only.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from minifcn.data import shapes
from minifcn.data.sample import Sample
from minifcn.data.shapes import CLASSES, SPLITS, Scene, Shapes
from minifcn.data.things import STANDING

SPAN = (0.6, 1.0)
"""The share of the picture's shorter side that a thing spans, if it fits between the horizon and the edge."""


class Object(NamedTuple):
    """A picture (H, W, 3) uint8, red first, and the index of its one class."""

    image: np.ndarray
    label: int


def draw_object(scene: Scene, rng: Generator, name: str) -> None:
    """One thing near the middle, as near as its foot, or a balloon's top, stays in the picture."""
    x, span = rng.uniform(-0.12, 0.12), rng.uniform(*SPAN)
    edge = shapes.CAMERA / scene.y[-1, 0]  # metres to the ground in the last row
    if name == "pond":
        shapes.draw_pond(scene, rng, x, edge * rng.uniform(1.2, 1.5))
        return
    thing, lift = STANDING[name](rng, scene.light), rng.random()
    nearest = thing.height / (-scene.top - 0.05) if name == "balloon" else edge
    z = max(max(2 * thing.half_width, thing.height) / span, nearest)
    shapes.draw_standing(scene, [(name, thing, x, shapes.foot(scene, name, thing, z, lift), z)])


class Objects:
    """Pictures of single things: `image, label = Objects("train", count=2000)[7]`, and `classes[label]` says what.

    `classes` are those of `Shapes` without the background, so `label` is the world's index less one; they take turns.
    `scene(i)` is the same picture as a `Sample`, with the class of every pixel, for those who want to check.

    Picture i is a function of (`seed`, `split`, i) alone, of `size` as in `Shapes`, and none is a picture of `Shapes`.
    Raises UsageError for a split, count, size or seed out of range.
    """

    classes = CLASSES[1:]

    def __init__(self, split: str = "train", *, count: int, size: int | tuple[int, int] = 64, seed: int = 0):
        world = Shapes(split, count=count, size=size, seed=seed)
        self.split, self.count, self.size, self.seed = world.split, world.count, world.size, world.seed
        self.ids = tuple(f"object-{name}" for name in world.ids)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Object]:
        return (self[i] for i in range(self.count))

    def __getitem__(self, i: int) -> Object:
        i = range(self.count)[i]
        return Object(self.scene(i).image, i % len(self.classes))

    def scene(self, i: int) -> Sample:
        """Return picture i with the class of its every pixel."""
        i = range(self.count)[i]
        # the world's own splits are 0, 1 and 2
        seeds = np.random.SeedSequence(self.seed, spawn_key=(len(SPLITS) + SPLITS.index(self.split), i))
        rng = np.random.default_rng(seeds)
        scene = shapes.draw_land(rng, self.size)
        draw_object(scene, rng, self.classes[i % len(self.classes)])
        return shapes.finished(scene, rng, self.ids[i])
