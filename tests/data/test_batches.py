"""From pictures to arrays: preprocessing, stacking, subsets."""

import json

import numpy as np
import pytest

from minifcn.data.batches import CAFFE, Preprocessing, collate
from minifcn.data.dataset import Subset
from minifcn.data.sample import Sample
from minifcn.errors import DataError, FormatError, ShapeError, UsageError

UNIT = Preprocessing("RGB", 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class Pictures:
    """The smallest data set there can be."""

    classes = ("ground", "figure")

    def __init__(self, images):
        self.images = images
        self.ids = tuple(f"picture-{index}" for index in range(len(images)))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = self.images[index]
        return Sample(self.ids[index], image, np.full(image.shape[:2], index % 2, dtype=np.uint8))


def noise(count, height=9, width=7, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_preprocessing_is_scale_mean_and_std_in_the_order_named():
    image = np.array([[[10, 20, 30], [40, 50, 60]]], dtype=np.uint8)
    x = Preprocessing("BGR", 0.5, (1.0, 2.0, 3.0), (1.0, 2.0, 4.0))(image)
    assert x.dtype == np.float32 and x.flags.c_contiguous
    assert x.tolist() == [[[14.0, 29.0]], [[4.0, 11.5]], [[0.5, 4.25]]]
    x = Preprocessing("RGB", 0.5, (1.0, 2.0, 3.0), (1.0, 2.0, 4.0))(image)
    assert x[:, 0, 0].tolist() == [4.0, 4.0, 3.0]


def test_the_papers_preprocessing_is_caffes():
    image = np.zeros((1, 1, 3), dtype=np.uint8)
    image[0, 0] = 255, 0, 0
    assert np.allclose(CAFFE(image)[:, 0, 0], [-104.00699, -116.66877, 255 - 122.67892])
    assert CAFFE.fill == (123, 117, 104)


def test_fitted_pictures_have_mean_zero_and_variance_one():
    images = noise(12)
    fitted = Preprocessing.fit(Pictures(images))
    x = np.stack([fitted(image) for image in images])
    assert np.abs(x.mean(axis=(0, 2, 3))).max() < 1e-5
    assert np.abs(x.std(axis=(0, 2, 3)) - 1).max() < 1e-5


def test_fitting_takes_pictures_evenly_from_first_to_last():
    images = np.zeros((101, 2, 2, 3), dtype=np.uint8)
    images[[0, 50, 100]] = 30
    images[50] = 90
    assert np.allclose(Preprocessing.fit(Pictures(images), count=3).mean, 50 / 255)
    assert Preprocessing.fit(Pictures(images), count=3) == Preprocessing.fit(Pictures(images), count=3)


def test_pictures_of_one_flat_colour_do_not_divide_by_zero():
    fitted = Preprocessing.fit(Pictures(np.full((2, 3, 3, 3), 77, dtype=np.uint8)))
    assert np.abs(fitted(np.full((3, 3, 3), 77, dtype=np.uint8))).max() < 1e-6


def test_there_must_be_something_to_fit():
    for images, count in ((noise(0), 5), (noise(2), 0)):
        with pytest.raises(UsageError, match="at least one"):
            Preprocessing.fit(Pictures(images), count=count)


def test_preprocessing_goes_through_json_unchanged():
    fitted = Preprocessing.fit(Pictures(noise(3)))
    assert Preprocessing.from_dict(json.loads(json.dumps(fitted.as_dict()))) == fitted


@pytest.mark.parametrize(
    "change",
    [
        {"order": "GBR"},
        {"order": ["RGB"]},
        {"scale": 0},
        {"scale": "1"},
        {"scale": True},
        {"scale": 10**400},
        {"mean": [1, 2]},
        {"mean": 5},
        {"mean": "abc"},
        {"mean": [0, 0, float("nan")]},
        {"std": [1, 1, 0]},
        {"std": [1, 1, 1, 1]},
        {"std": [1, 1, float("inf")]},
        {"gamma": 2.2},
    ],
)
def test_a_damaged_preprocessing_is_refused(change):
    with pytest.raises(FormatError, match=r"^preprocessing.*expected [^\n]*$"):
        Preprocessing.from_dict(UNIT.as_dict() | change)


def test_a_preprocessing_that_lacks_a_field_or_is_none_is_refused():
    for found in ({"order": "RGB"}, [], None):
        with pytest.raises(FormatError, match="order, scale, mean, std"):
            Preprocessing.from_dict(found)


def test_only_pictures_are_preprocessed():
    for wrong in (np.zeros((4, 4, 3)), np.zeros((4, 4), dtype=np.uint8), np.zeros((3, 4, 4), dtype=np.uint8)):
        with pytest.raises(ShapeError, match=r"uint8 \(H, W, 3\)"):
            UNIT(wrong)


def test_equal_sizes_are_stacked():
    data = Pictures(noise(3))
    x, labels = collate([data[0], data[1]], UNIT)
    assert x.dtype == np.float32 and labels.dtype == np.int64
    assert np.array_equal(x, noise(3)[:2].transpose(0, 3, 1, 2))
    assert labels.shape == (2, 9, 7) and labels[1].min() == 1


def test_unequal_sizes_are_padded_at_the_bottom_and_right_with_zeros_and_void():
    data = Pictures([*noise(1, 4, 6), *noise(1, 5, 2), *noise(1, 1, 1)])
    x, labels = collate([data[index] for index in range(3)], CAFFE)
    assert x.shape == (3, 3, 5, 6) and labels.shape == (3, 5, 6)
    for index, (height, width) in enumerate([(4, 6), (5, 2), (1, 1)]):
        assert np.array_equal(x[index, :, :height, :width], CAFFE(data[index].image))
        assert (labels[index, :height, :width] == index % 2).all()
        outside = np.ones((5, 6), dtype=bool)
        outside[:height, :width] = False
        assert (x[index][:, outside] == 0).all() and (labels[index][outside] == 255).all()


def test_what_cannot_be_stacked_is_refused():
    with pytest.raises(UsageError, match="at least one"):
        collate([], UNIT)
    wrong = Sample("odd", np.zeros((4, 4, 3), dtype=np.uint8), np.zeros((4, 3), dtype=np.uint8))
    with pytest.raises(DataError, match="odd"):
        collate([wrong], UNIT)


def test_a_subset_is_a_data_set():
    data = Pictures(noise(5))
    some = Subset(data, [3, 0, -1])
    assert len(some) == 3 and some.classes == data.classes
    assert some.indices == (3, 0, 4)
    assert some.ids == ("picture-3", "picture-0", "picture-4")
    assert [sample.id for sample in some] == list(some.ids)
    assert Subset(some, [1])[0].id == "picture-0"
    with pytest.raises(IndexError):
        Subset(data, [5])
