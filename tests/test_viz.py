"""Pictures: their colours are exact, their sizes add up, and no name or size of image breaks them."""

import io
import math
import subprocess
import sys

import numpy as np
import pytest

from minifcn import viz
from minifcn.errors import DataError, ShapeError, UsageError
from minifcn.viz import panels, plots

VOC = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
).split()
HOSTILE = ["<script>alert(1)</script>", r"$\frac$", "two\nlines\t", "", "\x00", "猫", "a" * 500, "\ud800"]


def sample_of(height, width, classes=21, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    truth, prediction = rng.integers(0, classes, (2, height, width), dtype=np.uint8)
    truth[0, 0] = 255
    return image, truth, prediction


def opened(data):
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_the_palette_is_the_published_one():
    """The colours VOC's development kit lists, and two rules that hold for all 256."""
    colours = viz.palette()
    assert colours.shape == (256, 3) and colours.dtype == np.uint8
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 8: (64, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    for index, colour in (known | {255: (224, 224, 192)}).items():
        assert tuple(colours[index]) == colour
    assert len({tuple(colour) for colour in colours}) == 256
    np.testing.assert_array_equal(viz.palette(21), colours[:21])


def test_colourize_paints_classes_and_hatches_void():
    label = np.zeros((12, 12), np.int64)
    label[:6] = 15
    label[6:, 6:] = 255
    picture = viz.colourize(label)
    assert picture.dtype == np.uint8
    assert (picture[:6] == (192, 128, 128)).all()
    assert (picture[6:, :6] == 0).all()
    assert {tuple(pixel) for pixel in picture[6:, 6:].reshape(-1, 3)} == {(255, 255, 255), (178, 178, 178)}
    own = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    assert viz.colourize(np.array([[1, 0]]), own).tolist() == [[[4, 5, 6], [1, 2, 3]]]


def test_overlay_blends_and_outlines():
    image = np.full((6, 6, 3), 100, np.uint8)
    label = np.zeros((6, 6), np.uint8)
    label[:, 3:] = 15
    label[0] = 255
    laid = viz.overlay(image, label, 0.25)
    assert laid.dtype == np.uint8
    assert laid[3, 0].tolist() == [75, 75, 75]
    assert laid[3, 2].tolist() == [0, 0, 0]  # the last pixel before the border carries its class's full colour
    assert laid[3, 4].tolist() == [123, 107, 107]
    assert (laid[0] == 139).all()  # void: faded, not painted
    np.testing.assert_array_equal(viz.overlay(image, np.zeros((6, 6), np.uint8), 0.0), image)
    assert (viz.overlay(image, np.full((6, 6), 15), 1.0) == (192, 128, 128)).all()


@pytest.mark.parametrize("height, width", [(1, 1), (1, 500), (500, 1), (31, 33), (64, 64), (375, 500), (700, 500)])
def test_a_triptych_of_any_size(height, width):
    image, truth, prediction = sample_of(height, width)
    picture = viz.triptych(image, truth, prediction, VOC)
    factor = max(1, 256 // max(height, width))
    assert picture.dtype == np.uint8 and picture.ndim == 3
    assert picture.shape[0] > height * factor and picture.shape[1] > 3 * width * factor
    assert (picture[[0, -1]] == 255).all() and (picture[:, [0, -1]] == 255).all()
    assert picture.shape[1] < 2600


def test_a_triptych_holds_the_three_panels_unchanged():
    image, truth, prediction = sample_of(375, 500)
    picture = viz.triptych(image, truth, prediction, VOC)
    panels = [image, viz.colourize(truth), viz.colourize(prediction)]
    corners = np.argwhere((picture[:-375, :-500] == image[0, 0]).all(axis=2))
    y, x = next((y, x) for y, x in corners if np.array_equal(picture[y : y + 375, x : x + 500], image))
    for place, panel in enumerate(panels):
        left = x + place * (500 + 500 // 18 // 2)
        np.testing.assert_array_equal(picture[y : y + 375, left : left + 500], panel)


def test_without_a_truth_there_are_two_panels():
    image, _, prediction = sample_of(64, 64)
    two, three = viz.triptych(image, None, prediction, VOC), viz.triptych(image, prediction, prediction, VOC)
    assert two.shape[1] < three.shape[1] - 256 + 20


def test_the_legend_lists_what_occurs():
    colours = viz.palette(21)

    def shows(picture, index):
        return (picture == colours[index]).all(axis=2).sum() > 50

    everything = viz.legend(VOC)
    some = viz.legend(VOC, np.array([[3, 15], [3, 255]]))
    assert all(shows(everything, index) for index in range(21))
    assert [index for index in range(21) if shows(some, index)] == [3, 15]
    assert (some == 178).all(axis=2).any(), "void is hatched"
    assert not (viz.legend(VOC, np.array([[3]])) == 178).all(axis=2).any()
    assert some.shape[0] < everything.shape[0]


@pytest.mark.parametrize("width", [1, 90, 300, 1200])
@pytest.mark.parametrize("count", [1, 2, 21, 150])
def test_a_legend_keeps_to_its_width(count, width):
    names = [f"class number {index} with quite a long name" for index in range(count)]
    picture = viz.legend(names, width=width)
    assert picture.shape[1] == max(width, 29)
    if width >= 300:
        found, areas = np.unique(picture @ np.array([65536, 256, 1]), return_counts=True)
        swatches = set(found[areas >= 14**2].tolist())
        assert set((viz.palette(count) @ np.array([65536, 256, 1])).tolist()) <= swatches, "every class has its swatch"


def test_a_gallery_has_one_legend_for_all():
    samples = [sample_of(375, 500, 3, 1), sample_of(64, 48, 9, 2), sample_of(20, 20, 21, 3)]
    one, two = viz.gallery(samples, VOC, side=128), viz.gallery(samples, VOC, side=128, columns=2)
    assert one.shape[0] > two.shape[0] and one.shape[1] < two.shape[1]
    image, truth, prediction = samples[0]
    wide = viz.gallery([(image, truth, prediction, truth)], VOC, captions=("image", "truth", "FCN-32s", "FCN-8s"))
    assert wide.shape[1] > 4 * 256


def test_hostile_names_are_drawn():
    label = np.arange(len(HOSTILE)).reshape(1, -1)
    image = np.zeros((1, len(HOSTILE), 3), np.uint8)
    viz.triptych(image, label, label, HOSTILE)
    figure = viz.confusion_picture(np.eye(len(HOSTILE), dtype=int), HOSTILE)
    assert opened(viz.figure_png(figure)).std() > 0


def history_of(steps, classes=21, every=10):
    rng = np.random.default_rng(0)
    for step in range(1, steps + 1):
        yield {"kind": "train", "step": step, "epoch": 0, "loss": 3 * math.exp(-step / 300) + float(rng.random())}
        if step % every == 0:
            measures = dict.fromkeys(("pixel_accuracy", "mean_accuracy", "mean_iu", "frequency_weighted_iu"), 0.4)
            measures["mean_iu"] = step / (steps + 1)
            yield {"kind": "val", "step": step, "iu": [0.5] * classes, **measures}


def test_curves_show_the_loss_its_mean_chance_and_the_measures(tmp_path):
    figure = viz.curves(list(history_of(400)), tmp_path / "curves.png")
    left, right = figure.axes
    raw, smooth, chance = left.lines
    assert len(raw.get_xdata()) == len(smooth.get_xdata()) == 400
    assert np.std(smooth.get_ydata()) < np.std(raw.get_ydata())
    assert chance.get_ydata()[0] == pytest.approx(math.log(21))
    assert any("ln 21 = 3.045" in text.get_text() for text in left.texts)
    assert [text.get_text() for text in right.get_legend().get_texts()][-1] == "mean IU"
    assert right.texts[0].get_text() == f"{400 / 401:.3f}"
    assert opened((tmp_path / "curves.png").read_bytes()).std() > 0


def test_the_neighbourhood_mean_is_a_mean_of_neighbours():
    values = np.arange(10.0) ** 2
    expected = [values[max(0, place - 3) : place + 4].mean() for place in range(10)]
    np.testing.assert_allclose(plots._neighbourhood_mean(values, 3), expected)


@pytest.mark.parametrize(
    "history",
    [
        [],
        [{"kind": "train", "step": 1, "loss": 3.0}],
        [{"kind": "train", "step": 1, "loss": 0.0}, {"kind": "train", "step": 2, "loss": 0.0}],
        [{"kind": "train", "step": 1, "loss": math.nan}, {"kind": "train", "step": 2, "loss": None}, {"kind": "train"}],
        [{"kind": "val", "step": 5, "mean_iu": None, "iu": [None, None]}, {"kind": "other"}, {}],
        [{"kind": "val", "step": 5, "mean_iu": 0.25, "iu": [0.25]}],
    ],
)
def test_curves_of_short_and_broken_histories(history, tmp_path):
    viz.curves(history, tmp_path / "curves.png")
    assert opened((tmp_path / "curves.png").read_bytes()).std() > 0


@pytest.mark.parametrize("count", [1, 2, 21, 33, 150])
def test_the_confusion_picture(count, tmp_path):
    matrix = np.random.default_rng(count).integers(1, 100, (count, count))
    names = VOC if count == 21 else [f"class {index}" for index in range(count)]
    figure = viz.confusion_picture(matrix, names, tmp_path / "confusion.png")
    shown = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_allclose(shown, 100 * matrix / matrix.sum(axis=1, keepdims=True))
    assert opened((tmp_path / "confusion.png").read_bytes()).std() > 0


def test_a_class_without_true_pixels_is_left_grey():
    axes = viz.confusion_picture(np.array([[3, 1], [0, 0]]), ["a", "b"]).axes[0]
    assert np.ma.getmaskarray(axes.images[0].get_array()).tolist() == [[False, False], [True, True]]
    assert sorted(text.get_text() for text in axes.texts) == ["25", "75"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a  100.0 %", "b  0.0 %"]


def test_the_same_figure_is_the_same_file():
    first, second = (viz.figure_png(viz.curves(list(history_of(50)))) for _ in range(2))
    assert first == second
    assert b"Software" not in first, "nor does it depend on who drew it"


def test_a_name_too_long_is_cut_where_the_room_ends():
    font = panels.font_of(14)
    short = panels.shorten("a name that is much too long", font, 80)
    assert short.endswith("…") and font.getlength(short) <= 80 < font.getlength(short + "wide")
    assert panels.shorten("fits", font, 80) == "fits"
    ticks = viz.confusion_picture(np.eye(2, dtype=int), ["b" * 60, "a"]).axes[0].get_xticklabels()
    assert [tick.get_text() for tick in ticks] == ["b" * 23 + "…", "a"]


def test_png_round_trip():
    picture = sample_of(7, 5)[0]
    np.testing.assert_array_equal(opened(viz.png(picture)), picture)


def refusals():
    image, label, _ = sample_of(4, 5)
    yield lambda: viz.colourize(np.zeros((2, 2))), ShapeError, "integers, found .* float64"
    yield lambda: viz.colourize(np.zeros(3, int)), ShapeError, r"\(H, W\)"
    yield lambda: viz.colourize(np.array([[21]]), viz.palette(21)), DataError, "class 21, expected 0..20 or 255"
    yield lambda: viz.colourize(np.array([[-1]])), DataError, "class -1"
    yield lambda: viz.overlay(image, label[1:]), ShapeError, r"image is \(4, 5\) but the label is \(3, 5\)"
    yield lambda: viz.overlay(image / 255, label), ShapeError, "uint8, found .* float64"
    yield lambda: viz.legend(["a"], np.array([[1]])), DataError, "class 1, expected 0..0"
    yield lambda: viz.triptych(image, label, label.T, VOC), ShapeError, r"its prediction is \(5, 4\)"
    yield lambda: viz.triptych(image, label, label, ["a"]), DataError, "expected 0..0"
    yield lambda: viz.gallery([], VOC), UsageError, "at least one sample"
    yield lambda: viz.gallery([(image, label)], VOC), UsageError, "3 captions needs 3 parts, found 2"
    yield lambda: viz.confusion_picture(np.eye(3, dtype=int), ["a"]), ShapeError, "3 classes but 1 names"
    yield lambda: viz.png(image[..., 0]), ShapeError, r"\(H, W, 3\)"


@pytest.mark.parametrize("call, error, says", list(refusals()))
def test_refusals(call, error, says):
    with pytest.raises(error, match=says) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_importing_loads_neither_matplotlib_nor_pillow():
    program = "import sys, minifcn.viz; print(sorted({'matplotlib', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_heat_map_is_hot_where_the_heat_is(tmp_path):
    """The photograph is dark; only the painted copy on the right has bright pixels, in its upper right quarter."""
    heat = np.zeros((3, 3))
    heat[0, 2] = 1.0
    figure = viz.heat_map(np.zeros((90, 90, 3), np.uint8), heat, "what", start=15, stride=30, path=tmp_path / "h.png")
    paint = figure.axes[1].images[1]
    values, strength = np.asarray(paint.get_array()), np.asarray(paint.get_alpha())
    assert np.unravel_index(values.argmax(), values.shape) == (0, 75) and values[45, 45] == 0 and values[0, 89] == 1
    assert strength[0, 89] == pytest.approx(0.85) and strength[89, 0] == 0.25
    narrow = viz.heat_map(np.zeros((90, 90, 3), np.uint8), np.ones((1, 1)), "what", start=45, stride=30)
    strength = np.asarray(narrow.axes[1].images[1].get_alpha())
    assert strength[45, 45] == pytest.approx(0.85) and strength[45, 80] == 0  # no window looks there
    assert (tmp_path / "h.png").stat().st_size > 1000
    with pytest.raises(ShapeError, match=r"a heat map is \(h, w\)"):
        viz.heat_map(np.zeros((9, 9, 3), np.uint8), np.zeros(3), "what")
