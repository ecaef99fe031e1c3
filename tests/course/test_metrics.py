"""One table of counts and the four measures, against hand-worked numbers, closed forms and a loop over pixels."""

import math

import numpy as np
import pytest

from minifcn.errors import DataError, ShapeError, UsageError
from minifcn.metrics import ABSENT, ConfusionMatrix


@pytest.fixture(autouse=True)
def _no_silent_arithmetic():
    with np.errstate(all="raise"):
        yield


def confusion_of(truth, prediction, classes, **options):
    confusion = ConfusionMatrix(classes, **options)
    confusion.update(np.asarray(truth), np.asarray(prediction))
    return confusion


def random_labels(seed, classes, shape=(3, 17, 23), void=0.1):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, shape)
    prediction = np.where(rng.random(shape) < 0.6, truth, rng.integers(0, classes, shape))
    return np.where(rng.random(shape) < void, 255, truth).astype(np.uint8), prediction.astype(np.uint8)


def test_worked_by_hand():
    #           class 0          class 1    void
    truth = [[0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 255, 255]]
    called = [[0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 1]]
    confusion = confusion_of(truth, called, 2)
    assert confusion.matrix.tolist() == [[5, 1], [1, 3]]
    assert confusion.matrix.dtype == np.int64
    assert confusion.pixel_accuracy() == pytest.approx(8 / 10)
    assert confusion.mean_accuracy() == pytest.approx((5 / 6 + 3 / 4) / 2)
    assert confusion.iu().tolist() == pytest.approx([5 / 7, 3 / 5])
    assert confusion.mean_iu() == pytest.approx((5 / 7 + 3 / 5) / 2)
    assert confusion.frequency_weighted_iu() == pytest.approx((6 * 5 / 7 + 4 * 3 / 5) / 10)
    assert confusion.shares_true().tolist() == pytest.approx([0.6, 0.4])
    assert confusion.shares_predicted().tolist() == pytest.approx([0.6, 0.4])
    assert confusion.summary() == {
        "pixel_accuracy": confusion.pixel_accuracy(),
        "mean_accuracy": confusion.mean_accuracy(),
        "mean_iu": confusion.mean_iu(),
        "frequency_weighted_iu": confusion.frequency_weighted_iu(),
    }


def test_rows_are_the_truth():
    confusion = confusion_of([2, 2, 2], [0, 0, 1], 3)
    assert confusion.matrix.tolist() == [[0, 0, 0], [0, 0, 0], [2, 1, 0]]
    assert confusion.true_pixels().tolist() == [0, 0, 3]
    assert confusion.predicted_pixels().tolist() == [2, 1, 0]


@pytest.mark.parametrize("classes", [1, 2, 21, 150])
def test_a_perfect_prediction_scores_one(classes):
    truth = np.arange(classes).repeat(3)
    assert set(confusion_of(truth, truth, classes).summary().values()) == {1.0}


@pytest.mark.parametrize("classes", [2, 5, 21])
def test_calling_everything_one_class(classes):
    """On classes of equal size the majority baseline has closed forms: 1/C, 1/C, 1/C^2 and 1/C^2."""
    truth = np.arange(classes).repeat(7)
    confusion = confusion_of(truth, np.zeros_like(truth), classes)
    assert confusion.pixel_accuracy() == pytest.approx(1 / classes)
    assert confusion.mean_accuracy() == pytest.approx(1 / classes)
    assert confusion.mean_iu() == pytest.approx(1 / classes**2)
    assert confusion.frequency_weighted_iu() == pytest.approx(1 / classes**2)


def test_two_classes_tie_iu_to_dice():
    """IU = D / (2 - D), where D is the Dice coefficient: another way to the same number."""
    truth, prediction = random_labels(3, 2)
    confusion = confusion_of(truth, prediction, 2)
    hits = confusion.matrix[1, 1]
    dice = 2 * hits / (confusion.true_pixels()[1] + confusion.predicted_pixels()[1])
    assert confusion.iu()[1] == pytest.approx(dice / (2 - dice))


def loop_oracle(truth, prediction, classes, absent):
    """The definitions read literally, one pixel and one class at a time, without a matrix."""
    pixels = [(int(t), int(p)) for t, p in zip(truth.ravel(), prediction.ravel(), strict=True) if t != 255]
    accuracies, ius, weighted = [], [], 0.0
    for c in range(classes):
        hits = sum(t == c and p == c for t, p in pixels)
        true = sum(t == c for t, _ in pixels)
        union = sum(t == c or p == c for t, p in pixels)
        for values, below in ((accuracies, true), (ius, union)):
            if absent == "present-in-gt" and true == 0:
                continue
            if below:
                values.append(hits / below)
            elif absent == "zero":
                values.append(0.0)
        weighted += true / len(pixels) * hits / union if union else 0.0
    pixel = sum(t == p for t, p in pixels) / len(pixels)
    return [pixel, sum(accuracies) / len(accuracies), sum(ius) / len(ius), weighted]


@pytest.mark.parametrize("absent", ABSENT)
@pytest.mark.parametrize("classes, holds", [(2, 2), (6, 4), (21, 19), (33, 33)])
def test_against_a_loop(classes, holds, absent):
    """`holds` of the classes truly occur; one more is predicted where any is left, so every policy has work to do."""
    truth, prediction = random_labels(classes, holds)
    prediction[0, 0, :5] = min(holds, classes - 1)
    summary = confusion_of(truth, prediction, classes).summary(absent)
    assert list(summary.values()) == pytest.approx(loop_oracle(truth, prediction, classes, absent), rel=1e-12)


class TestAbsentClasses:
    """Four classes: 0 and 1 occur, 2 is predicted but never occurs, 3 is in neither."""

    confusion = confusion_of([0, 0, 0, 1, 1], [0, 0, 2, 1, 1], 4)

    def test_fractions(self):
        np.testing.assert_array_equal(self.confusion.iu(), [2 / 3, 1.0, 0.0, np.nan])
        np.testing.assert_array_equal(self.confusion.accuracy(), [2 / 3, 1.0, np.nan, np.nan])

    @pytest.mark.parametrize("absent, over", [("skip", 3), ("zero", 4), ("present-in-gt", 2)])
    def test_mean_iu(self, absent, over):
        assert self.confusion.mean_iu(absent) == pytest.approx((2 / 3 + 1) / over)

    @pytest.mark.parametrize("absent, over", [("skip", 2), ("zero", 4), ("present-in-gt", 2)])
    def test_mean_accuracy(self, absent, over):
        assert self.confusion.mean_accuracy(absent) == pytest.approx((2 / 3 + 1) / over)

    def test_the_skipped_are_named(self):
        assert self.confusion.skipped() == (3,)
        assert self.confusion.skipped("zero") == ()
        assert self.confusion.skipped("present-in-gt") == (2, 3)
        assert self.confusion.skipped(measure="accuracy") == (2, 3)

    def test_the_weighted_mean_has_no_policy(self):
        assert self.confusion.frequency_weighted_iu() == pytest.approx((3 * 2 / 3 + 2 * 1) / 5)

    def test_an_unknown_policy_is_refused(self):
        with pytest.raises(UsageError, match="'ignore', expected one of 'skip', 'zero', 'present-in-gt'"):
            self.confusion.mean_iu("ignore")


def test_nothing_scored_is_nan_and_not_a_warning():
    confusion = confusion_of(np.full((4, 4), 255, np.uint8), np.zeros((4, 4), np.uint8), 3)
    assert all(math.isnan(value) for value in confusion.summary().values())
    assert confusion.mean_iu("zero") == 0.0
    assert math.isnan(confusion.mean_iu("present-in-gt"))
    assert confusion.shares_true().tolist() == confusion.shares_predicted().tolist() == [0.0, 0.0, 0.0]
    assert confusion.skipped() == (0, 1, 2)


def test_parts_add_up_to_the_whole():
    truth, prediction = random_labels(7, 6, shape=(8, 9, 10))
    first, second = (confusion_of(truth[part], prediction[part], 6) for part in (slice(0, 3), slice(3, 8)))
    whole = confusion_of(truth, prediction, 6)
    np.testing.assert_array_equal((first + second).matrix, whole.matrix)
    assert whole.matrix.sum() == (truth != 255).sum() > first.matrix.sum() > 0
    with pytest.raises(ShapeError, match="6 classes cannot be added to one of 7"):
        first + ConfusionMatrix(7)


def test_updates_accumulate():
    truth, prediction = random_labels(8, 4)
    confusion = ConfusionMatrix(4)
    for image in range(len(truth)):
        confusion.update(truth[image], prediction[image])
    np.testing.assert_array_equal(confusion.matrix, confusion_of(truth, prediction, 4).matrix)


def test_small_integers_do_not_overflow():
    truth = np.full((5, 5), 149, np.uint8)
    assert confusion_of(truth, truth, 150).matrix[149, 149] == 25


def test_void_may_be_another_number_and_its_predictions_do_not_matter():
    confusion = confusion_of([0, 1, -1, -1], [0, 1, 255, 0], 2, void=-1)
    assert confusion.matrix.tolist() == [[1, 0], [0, 1]]


def test_rebuilt_from_stored_counts():
    truth, prediction = random_labels(9, 5)
    confusion = confusion_of(truth, prediction, 5)
    assert ConfusionMatrix.of(confusion.matrix.tolist()).summary() == confusion.summary()


@pytest.mark.parametrize(
    "stored, error, says",
    [
        ([[1, 2]], ShapeError, r"\(C, C\) of integers, found \(1, 2\)"),
        ([[0.5]], ShapeError, "float64"),
        ([[-1]], DataError, "counts, found -1"),
        ([[2**63]], DataError, r"found 9e\+18 of them"),
        ([[2**62, 2**62], [0, 1]], DataError, r"found 9e\+18 of them; expected fewer than 2\^63"),
        ([[2**70]], ShapeError, "object"),
    ],
)
def test_stored_counts_are_checked(stored, error, says):
    with pytest.raises(error, match=says):
        ConfusionMatrix.of(stored)


@pytest.mark.parametrize(
    "truth, prediction, error, says",
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), ShapeError, r"truth is \(2, 3\) but the prediction is \(3, 2\)"),
        (np.zeros(2), np.zeros(2, int), ShapeError, "truth must be a NumPy array of class numbers, found float64"),
        (np.zeros(2, int), np.zeros(2, bool), ShapeError, "prediction must be a NumPy array .* found bool"),
        (np.zeros(2, int), [0, 0], ShapeError, "prediction must be a NumPy array of class numbers, found list"),
        (np.array([0, 3, 3, 7]), np.zeros(4, int), DataError, r"truth holds 3, 7 \(3 pixels\), expected 0..2 or 255"),
        (np.array([0, -1]), np.zeros(2, int), DataError, r"truth holds -1 \(1 pixels\)"),
        (np.zeros(2, int), np.array([255, 0]), DataError, r"prediction holds 255 \(1 pixels\), expected 0..2$"),
        (np.zeros(2, int), np.array([0, -4]), DataError, "prediction holds -4"),
    ],
)
def test_bad_labels_are_refused_before_anything_is_counted(truth, prediction, error, says):
    confusion = ConfusionMatrix(3)
    with pytest.raises(error, match=says) as raised:
        confusion.update(truth, prediction)
    assert "\n" not in str(raised.value)
    assert not confusion.matrix.any()


@pytest.mark.parametrize("classes, void, says", [(0, 255, "at least 1 class"), (21, 0, "choose another number")])
def test_bad_class_counts_are_refused(classes, void, says):
    with pytest.raises(UsageError, match=says):
        ConfusionMatrix(classes, void)
