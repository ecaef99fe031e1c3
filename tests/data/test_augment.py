"""Augmentation: image, label, depth and geometry move together, and one seed gives one result."""

from dataclasses import replace

import numpy as np
import pytest

from minifcn.data.augment import Augmentation, _recoloured, _rotated
from minifcn.data.batches import Preprocessing
from minifcn.data.sample import Sample
from minifcn.errors import ShapeError, UsageError

EVERYTHING = Augmentation(mirror=True, translate=8, crop=40, scale=(0.5, 2.0), jitter=0.3, rotate=20)


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


def test_nothing_turns_by_zero_degrees_and_no_colour_changes_by_factors_of_one():
    sample = coded()
    assert same(_rotated(sample, 0.0), sample)
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    assert np.array_equal(_recoloured(image, np.ones(3)), image)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_quarter_of_a_turn_is_exact(turns):
    sample = coded(48, 48)
    result = _rotated(sample, 90.0 * turns)
    for name in ("image", "label", "depth", "geometry"):
        assert np.array_equal(getattr(result, name), np.rot90(getattr(sample, name), turns)), name


def test_a_turn_is_that_of_a_loop_over_the_pixels():
    """The image is interpolated between four pixels, labels and depth are the nearest, and outside is void."""
    noise, sample = np.random.default_rng(1), coded(21, 30)
    sample = replace(sample, image=noise.integers(0, 256, (21, 30, 3), dtype=np.uint8), hha=sample.image)
    degrees = 17.0
    result = _rotated(sample, degrees, (1, 2, 3))
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    void = 0
    for i, j in np.ndindex(21, 30):
        across, down = j + 0.5 - 15, i + 0.5 - 10.5  # from the middle
        column, row = cos * across - sin * down + 15, sin * across + cos * down + 10.5
        if not (0 <= column < 30 and 0 <= row < 21):
            void += 1
            assert result.label[i, j] == result.geometry[i, j] == 255
            assert result.depth[i, j] == 0 and not result.hha[i, j].any() and result.image[i, j].tolist() == [1, 2, 3]
            continue
        at = int(row), int(column)
        assert result.label[i, j] == sample.label[at] and result.geometry[i, j] == sample.geometry[at]
        assert result.depth[i, j] == sample.depth[at] and np.array_equal(result.hha[i, j], sample.hha[at])
        top, left = np.floor(row - 0.5), np.floor(column - 0.5)
        expected = 0.0
        for y, weight in ((top, 1 - (row - 0.5 - top)), (top + 1, row - 0.5 - top)):
            for x, part in ((left, 1 - (column - 0.5 - left)), (left + 1, column - 0.5 - left)):
                expected += weight * part * sample.image[int(np.clip(y, 0, 20)), int(np.clip(x, 0, 29))].astype(float)
        assert abs(result.image[i, j] - expected).max() <= 0.51
    assert 40 < void < 200


def test_planes_turn_as_the_image_does_and_nothing_is_measured_outside():
    sample = replace(coded(21, 30), planes=np.dstack([coded(21, 30).image.astype(np.uint16) * 100] * 2))
    result = _rotated(sample, -25.0, (0, 0, 0))
    outside = result.label == 255
    assert outside.any() and np.isnan(result.planes[outside]).all() and result.planes.shape == (21, 30, 6)
    for plane in range(6):
        close = abs(result.planes[..., plane] / 100 - result.image[..., plane % 3])[~outside]
        assert close.max() <= 0.51


def test_turns_go_both_ways_up_to_the_limit_and_labels_stay_whole():
    label = np.where(np.arange(64) < 32, 2, 9).astype(np.uint8) * np.ones((64, 1), dtype=np.uint8)
    sample, generator, slopes = Sample("edge", np.zeros((64, 64, 3), np.uint8), label), rng(), []
    for _ in range(60):
        result = Augmentation(rotate=30)(sample, generator)
        assert set(np.unique(result.label)) <= {2, 9, 255} and result.depth is None
        top, bottom = (int((result.label[row, 8:56] == 2).sum()) for row in (16, 48))
        slopes.append(np.degrees(np.arctan2(top - bottom, 32)))
    assert -31 < min(slopes) < -24 and 24 < max(slopes) < 31 and abs(np.mean(slopes)) < 8


def test_jitter_changes_colours_as_its_definition_says_and_nothing_else():
    image = rng(2).integers(60, 180, (20, 30, 3), dtype=np.uint8)
    grey = image @ np.array([0.299, 0.587, 0.114])
    close = {"atol": 0.51}  # rounded to whole numbers
    np.testing.assert_allclose(_recoloured(image, np.array([1.2, 1, 1])), image * 1.2, **close)
    np.testing.assert_allclose(
        _recoloured(image, np.array([1, 0.5, 1])), grey.mean() + 0.5 * (image - grey.mean()), **close
    )
    no_colour = _recoloured(image, np.array([1, 1, 0]))
    np.testing.assert_allclose(no_colour, np.repeat(grey[..., None], 3, axis=2), **close)
    sample, generator, means = replace(coded(20, 30), image=image), rng(), []
    for _ in range(100):
        result = Augmentation(jitter=0.4)(sample, generator)
        assert same(replace(result, image=image), sample) and result.image.dtype == np.uint8
        means.append(result.image.mean() / image.mean())
    assert 0.59 < min(means) < 0.7 and 1.3 < max(means) < 1.41


def test_what_comes_into_view_keeps_its_colour_under_jitter():
    result = Augmentation(jitter=0.5, rotate=45, translate=8, fill=(9, 8, 7))(coded(), rng(3))
    outside = result.label == 255
    assert outside.any() and (result.image[outside] == (9, 8, 7)).all()


def test_what_was_drawn_before_there_was_jitter_is_drawn_still():
    first = Augmentation(mirror=True, translate=8, crop=40, scale=(0.5, 2.0))(coded(), rng(7))
    assert (int(first.geometry[0, 0]), int(first.label[0, 0]), int(first.image.astype(int).sum())) == (8, 19, 191280)


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
        result = replace(EVERYTHING, jitter=0.0, rotate=0.0)(sample, rng(seed))
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
        ({"jitter": -0.1}, "jitter=-0.1"),
        ({"jitter": 1.0}, "jitter=1.0"),
        ({"rotate": 181}, "rotate=181"),
        ({"rotate": float("nan")}, "rotate=nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, name):
    with pytest.raises(UsageError, match=name):
        Augmentation(**wrong)


def test_a_label_of_another_size_is_refused():
    image, label = blank(4, 5)
    with pytest.raises(ShapeError, match=r"odd: label \(4, 4\)"):
        Augmentation()(Sample("odd", image, label[:, :4]), rng())
