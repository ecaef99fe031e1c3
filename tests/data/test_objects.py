"""Pictures of single things: the same again, no picture of the world's, and what the label says is there, large."""

import hashlib

import numpy as np
import pytest

from minifcn.data.batches import Preprocessing
from minifcn.data.objects import Objects
from minifcn.data.sample import VOID, Sample
from minifcn.data.shapes import CLASSES, SPLITS, Shapes
from minifcn.errors import UsageError


@pytest.fixture(scope="module")
def pictures() -> list[tuple[int, Sample]]:
    objects = Objects("train", count=70)
    return [(objects[i].label, objects.scene(i)) for i in range(len(objects))]


def test_a_picture_depends_on_seed_split_and_index_alone() -> None:
    few, many = Objects("val", count=3, seed=5), Objects("val", count=3000, seed=5)
    assert len(few) == len(few.ids) == 3 and many.ids[:3] == few.ids
    _ = many[2999]
    for i, (image, label) in enumerate(few):
        assert np.array_equal(image, many[i].image) and label == many[i].label
    assert np.array_equal(many[-1].image, many[2999].image) and many[-1].label == many[2999].label
    with pytest.raises(IndexError):
        few[3]


def test_no_two_splits_or_seeds_share_a_picture_and_none_is_one_of_the_worlds() -> None:
    every = [Objects(split, count=8, seed=seed) for split in SPLITS for seed in (0, 1)]
    objects = {hashlib.sha256(one.image.tobytes()).digest() for world in every for one in world}
    assert len(objects) == 8 * len(every)
    scenes = [Shapes(split, count=8, seed=seed) for split in SPLITS for seed in (0, 1)]
    assert not objects & {hashlib.sha256(one.image.tobytes()).digest() for world in scenes for one in world}


def test_no_landscape_is_one_of_the_worlds() -> None:
    """Picture i is drawn with other numbers than the world's picture i: not even the sky is the same."""
    for split in SPLITS:
        for i in range(3):
            here, there = (world(split, count=3)[i].image[:8] for world in (Objects, Shapes))
            coarse = [sky.reshape(8, 8, 8, 3).mean(axis=(0, 2)) for sky in (here, there)]
            assert np.abs(coarse[0] - coarse[1]).max() > 5


def test_the_label_is_the_one_class_that_is_there(pictures: list[tuple[int, Sample]]) -> None:
    for label, scene in pictures:
        assert set(np.unique(scene.label)) - {VOID} == {0, CLASSES.index(Objects.classes[label])}


def test_the_thing_is_large_and_in_the_middle(pictures: list[tuple[int, Sample]]) -> None:
    there = [scene.label == label + 1 for label, scene in pictures]
    shares = np.array([mask.mean() for mask in there])
    assert shares.min() > 0.02 and np.median(shares) > 0.12
    assert np.median([(scene.label == 1).mean() for scene in Shapes("train", count=70)]) < 0.12
    centres = [np.argwhere(mask).mean(axis=0) / 64 for mask in there]
    assert np.abs(np.array(centres)[:, 1] - 0.5).max() < 0.3


def test_the_classes_take_turns() -> None:
    assert Objects.classes == CLASSES[1:]
    labels = [one.label for one in Objects("test", count=21)]
    assert np.bincount(labels).tolist() == [3] * 7


def test_a_balloon_hangs_whole_in_the_sky_and_a_ball_stands_whole_on_the_ground() -> None:
    world = Objects("train", count=140)
    for i in range(len(world)):
        label = i % 7
        if Objects.classes[label] in ("ball", "balloon"):
            scene = world.scene(i)
            rows = np.flatnonzero((scene.label == label + 1).any(axis=1))
            assert rows[0] > 0 and rows[-1] < 63, "nothing is cut off"
            ground = np.flatnonzero(scene.geometry[:, 0] == 0)[0]
            assert (rows[-1] > ground) == (Objects.classes[label] == "ball")


def test_another_size_is_the_same_picture_at_another_resolution() -> None:
    for small, large in zip(Objects("val", count=7), Objects("val", count=7, size=128), strict=True):
        assert small.label == large.label
        shrunk = large.image.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
        assert np.abs(shrunk - small.image).mean() < 12


def test_preprocessing_is_fitted_as_to_any_data_set() -> None:
    assert Preprocessing.fit(Objects("train", count=14)) != Preprocessing.fit(Shapes("train", count=14))


@pytest.mark.parametrize("wrong", [{"split": "trainval"}, {"size": 63}, {"count": 0}, {"seed": -1}])
def test_arguments_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(UsageError, match="embedded world"):
        Objects(**{"split": "train", "count": 2, **wrong})
