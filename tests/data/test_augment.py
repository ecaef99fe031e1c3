"""Augmentation: image, label, depth and geometry move together, and one seed gives one result."""

import numpy as np
import pytest

from minifcn.data.augment import Augmentation
from minifcn.data.batches import Preprocessing
from minifcn.data.sample import Sample
from minifcn.errors import ShapeError, UsageError

EVERYTHING = Augmentation(mirror=True, translate=8, crop=40, scale=(0.5, 2.0))


def coded(height=48, width=60):
    """A sample in which every map says where a pixel came from: red and depth its column, the others its row."""
    row, column = np.mgrid[:height, :width]
    image = np.dstack([column, row, row + column]).astype(np.uint8)
    return Sample("coded", image, column.astype(np.uint8), row.astype(np.float32) + 1, row.astype(np.uint8))


def same(one, two):
    names = ("image", "label", "depth", "geometry")
    return all(np.array_equal(getattr(one, name), getattr(two, name)) for name in names)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_by_default_nothing_changes():
    assert same(Augmentation()(coded(), rng()), coded())


def test_the_sample_given_stays_as_it_was():
    sample = coded()
    result = EVERYTHING(sample, rng())
    result.image[...], result.label[...], result.depth[...] = 7, 7, 7
    assert same(sample, coded())


def test_one_seed_gives_one_result_and_another_seed_another():
    first, again, other = (EVERYTHING(coded(), rng(seed)) for seed in (3, 3, 4))
    assert same(first, again)
    assert not same(first, other)


def test_every_setting_takes_the_same_number_of_draws():
    states = []
    for change in (Augmentation(), Augmentation(mirror=True), EVERYTHING):
        generator = rng(5)
        change(coded(), generator)
        states.append(generator.bit_generator.state)
    assert states[0] == states[1] == states[2]


def test_mirroring_swaps_left_and_right_every_other_time():
    sample, generator = coded(), rng()
    flipped = 0
    for _ in range(200):
        result = Augmentation(mirror=True)(sample, generator)
        if not same(result, sample):
            flipped += 1
            assert np.array_equal(result.image, sample.image[:, ::-1])
            assert np.array_equal(result.label, sample.label[:, ::-1])
            assert np.array_equal(result.depth, sample.depth[:, ::-1])
            assert np.array_equal(result.geometry, sample.geometry[:, ::-1])
    assert 70 < flipped < 130


def test_translation_shifts_everything_alike_and_shows_void():
    sample, generator = coded(), rng()
    change = Augmentation(translate=32, fill=(1, 2, 3))
    seen = []
    for _ in range(400):
        result = change(sample, generator)
        inside = result.label != 255
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        down = int(rows[0]) - int(result.geometry[rows[0], columns[0]])
        right = int(columns[0]) - int(result.label[rows[0], columns[0]])
        seen.append((down, right))
        expected = np.roll(sample.image, (down, right), axis=(0, 1))
        assert np.array_equal(result.image[inside], expected[inside])
        assert (result.image[~inside] == (1, 2, 3)).all()
        assert np.array_equal(result.depth[inside], np.roll(sample.depth, (down, right), axis=(0, 1))[inside])
        assert (result.depth[~inside] == 0).all() and (result.geometry[~inside] == 255).all()
        assert inside.sum() == (48 - abs(down)) * (60 - abs(right))
    assert np.min(seen, axis=0).tolist() == [-32, -32]
    assert np.max(seen, axis=0).tolist() == [32, 32]


@pytest.mark.parametrize("height, width", [(1, 1), (1, 9), (9, 1)])
def test_a_small_picture_is_never_shifted_out_of_view(height, width):
    generator = rng()
    for _ in range(50):
        result = Augmentation(translate=32)(coded(height, width), generator)
        assert result.label.shape == (height, width)
        assert (result.label != 255).any()


def test_a_crop_is_a_window_anywhere_in_the_picture():
    sample, generator = coded(), rng()
    corners = set()
    for _ in range(400):
        result = Augmentation(crop=40)(sample, generator)
        top, left = int(result.geometry[0, 0]), int(result.label[0, 0])
        corners.add((top, left))
        window = (slice(top, top + 40), slice(left, left + 40))
        assert np.array_equal(result.image, sample.image[window])
        assert np.array_equal(result.label, sample.label[window])
        assert np.array_equal(result.depth, sample.depth[window])
    assert {top for top, _ in corners} == set(range(9))
    assert {left for _, left in corners} == set(range(21))


def test_a_picture_smaller_than_the_crop_is_set_into_it_whole():
    sample, generator = coded(30, 60), rng()
    tops = set()
    for _ in range(200):
        result = Augmentation(crop=50)(sample, generator)
        assert result.image.shape == (50, 50, 3) and result.label.shape == (50, 50)
        inside = result.label != 255
        assert inside.sum() == 30 * 50
        assert np.array_equal(result.image[inside][:, 0], result.label[inside])
        tops.add(int(np.flatnonzero(inside.any(1))[0]))
    assert tops == set(range(21))


def test_scaling_keeps_labels_under_their_pixels():
    # Red is four times the column, so an interpolated red shows, to a quarter of a pixel, where it was taken.
    column = np.broadcast_to(np.arange(60, dtype=np.uint8), (48, 60))
    row = np.broadcast_to(np.arange(48, dtype=np.uint8)[:, None], (48, 60))
    sample = Sample("ramp", np.dstack([4 * column, 4 * row, column]), column, row.astype(np.float32), row)
    generator, sizes = rng(), []
    for _ in range(60):
        result = Augmentation(scale=(0.5, 2.0))(sample, generator)
        height, width = result.label.shape
        sizes.append(height / 48)
        assert abs(width / 60 - height / 48) < 0.02
        assert result.image.shape == (height, width, 3) and result.depth.shape == (height, width)
        assert np.isin(result.label, column).all()
        # A pixel in from the border, where interpolation has nothing beyond to lean on.
        middle = (slice(2, -2), slice(2, -2))
        assert np.abs(result.image[middle][..., 0] / 4 - result.label[middle]).max() <= 0.65
        assert np.abs(result.image[middle][..., 1] / 4 - result.geometry[middle]).max() <= 0.65
        assert np.array_equal(result.depth, result.geometry)
    assert 0.49 <= min(sizes) < 0.6 and 1.7 < max(sizes) <= 2.01
    assert 20 <= sum(size < 1 for size in sizes) <= 40  # as often smaller as larger


def test_labels_are_never_mixed():
    label = np.where(np.arange(64) < 31, 2, 9).astype(np.uint8) * np.ones((64, 1), dtype=np.uint8)
    label[:, 31] = 255
    sample = Sample("edge", np.zeros((64, 64, 3), dtype=np.uint8), label)
    for seed in range(20):
        result = Augmentation(mirror=True, translate=5, scale=(0.3, 3.0))(sample, rng(seed))
        assert set(np.unique(result.label)) <= {2, 9, 255}
        assert result.depth is None and result.geometry is None


def test_all_together_stay_aligned():
    row, column = np.mgrid[:48, :60]
    blocks = (row // 12 * 5 + column // 12).astype(np.uint8)
    sample = Sample("blocks", np.dstack([blocks * 12] * 3), blocks, blocks.astype(np.float32) + 1, blocks)
    for seed in range(30):
        result = EVERYTHING(sample, rng(seed))
        assert result.label.shape == (40, 40)
        assert result.image.flags.c_contiguous and result.label.flags.c_contiguous
        inside = result.label != 255
        assert np.array_equal(result.geometry, result.label)
        assert np.array_equal(result.depth[inside], result.label[inside] + np.float32(1))
        # Only at the edges between blocks may the interpolated colour differ from the label's.
        agree = np.abs(result.image[..., 0].astype(int) - 12 * result.label.astype(int)) <= 1
        assert agree[inside].mean() > 0.7


@pytest.mark.parametrize("height, width", [(1, 1), (1, 50), (500, 1), (31, 33)])
def test_every_size_of_picture_can_be_augmented(height, width):
    for seed in range(5):
        result = EVERYTHING(Sample("s", *blank(height, width)), rng(seed))
        assert result.image.shape == (40, 40, 3) and result.label.shape == (40, 40)


def blank(height, width):
    return np.zeros((height, width, 3), dtype=np.uint8), np.zeros((height, width), dtype=np.uint8)


def test_the_fill_of_a_preprocessing_is_nothing_to_the_net():
    for preprocessing in (
        Preprocessing("BGR", 1.0, (104.0, 116.7, 122.7), (1.0, 1.0, 1.0)),
        Preprocessing("RGB", 1 / 255, (0.41, 0.46, 0.37), (0.25, 0.26, 0.27)),
    ):
        result = Augmentation(translate=8, fill=preprocessing.fill)(coded(), rng(1))
        beyond = preprocessing(result.image)[:, result.label == 255]
        half_a_level = 0.5 * preprocessing.scale / np.array(preprocessing.std)[:, None]
        assert beyond.size and (np.abs(beyond) <= half_a_level + 1e-5).all()


@pytest.mark.parametrize(
    "wrong, name",
    [
        ({"translate": -1}, "translate=-1"),
        ({"crop": 0}, "crop=0"),
        ({"scale": (0.0, 1.0)}, "scale="),
        ({"scale": (2.0, 1.0)}, "scale="),
        ({"scale": (1.0, 1e9)}, "scale="),
        ({"scale": (float("nan"), 1.0)}, "scale="),
        ({"fill": (0, 0, 256)}, "fill="),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, name):
    with pytest.raises(UsageError, match=name):
        Augmentation(**wrong)


def test_a_label_of_another_size_is_refused():
    image, label = blank(4, 5)
    with pytest.raises(ShapeError, match=r"odd: label \(4, 4\)"):
        Augmentation()(Sample("odd", image, label[:, :4]), rng())
