"""Pictures: their colours are exact, their sizes add up, and no name or size of image breaks them."""

import io
import math
import subprocess
import sys

import numpy as np
import pytest
from some_slow import slow_but

from minifcn import viz
from minifcn.errors import DataError, ShapeError, UsageError
from minifcn.geometry import Grid, Layer
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
@pytest.mark.parametrize("count", slow_but([1, 2, 21], [1, 2, 21, 150], "draws many names"))
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


def test_labels_over_the_image_leave_it_visible_and_the_background_bare():
    image, truth, _ = sample_of(64, 48)
    truth[:20], truth[30:] = 0, 3
    laid = viz.overlay(image, truth, bare=0)
    inside = np.zeros((64, 48), bool)
    inside[:19], inside[31:63, :47] = True, True  # no outline there
    np.testing.assert_array_equal(laid[:19], image[:19])
    paint = viz.palette(21)[3]
    np.testing.assert_array_equal(laid[31:63, :47], np.rint((image[31:63, :47] + paint.astype(float)) / 2))
    flat, over = (viz.gallery([(image, truth)], VOC, captions=("a", "b"), side=64, over=over) for over in (False, True))
    assert flat.shape[0] > over.shape[0], "the background is not in the legend, for it has no colour"
    assert (over[:90, : flat.shape[1] // 2] == flat[:90, : flat.shape[1] // 2]).all(), "the image itself is as it was"
    for page, found in ((flat, False), (over, True)):
        shown = [(page[top : top + 64, left : left + 48] == laid).all() for top in range(page.shape[0] - 63)
                 for left in range(page.shape[1] - 47)]  # fmt: skip
        assert any(shown) == found


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
    assert "ln 21 = 3.045" in left.get_title("right") and left.get_title("left") == "loss per pixel"
    assert [text.get_text() for text in right.get_legend().get_texts()][-1] == "mean IU"
    assert right.get_title("right") == f"best mean IU {400 / 401:.3f}"
    assert not left.texts and not right.texts, "a word among the lines may lie on one"
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


@pytest.mark.parametrize("count", slow_but([1, 2, 21], [1, 2, 21, 33, 150], "draws a table of many classes"))
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
    yield lambda: viz.ladder(image, label, {}, VOC), UsageError, "at least one prediction"
    yield lambda: viz.ladder(image, label, {"FCN-8s": label.T}, VOC), ShapeError, r"its FCN-8s is \(5, 4\)"
    yield lambda: viz.receptive_fields(image, {}), UsageError, "found no layer"
    yield lambda: viz.receptive_fields(image, {"a": Grid()}, sizes={"b": (1, 1)}), UsageError, "found sizes of b"
    yield lambda: viz.receptive_fields(image / 255, {"a": Grid()}), ShapeError, "uint8, found .* float64"
    yield lambda: viz.feature_maps(np.zeros((2, 2))), ShapeError, r"found \(2, 2\); expected \(C, h, w\)"
    yield lambda: viz.feature_maps(np.zeros((0, 2, 2))), ShapeError, r"found \(0, 2, 2\)"
    yield lambda: viz.feature_maps(np.zeros((2, 2, 2)), names=["a"]), ShapeError, "2 maps but 1 names"
    yield lambda: viz.kernels(np.zeros((3, 3))), ShapeError, r"found \(3, 3\); expected \(O, I, kh, kw\)"
    yield lambda: viz.kernels(np.zeros((1, 3, 3, 3)), order="gbr"), UsageError, 'order is .gbr.; expected "rgb" or'
    yield lambda: viz.gradient_flow({}), UsageError, "found no layer"
    yield lambda: viz.gradient_errors({}), UsageError, "found no gradient"
    yield lambda: viz.gradient_flow({"a": np.ones(2)}, {}), ShapeError, r"a has a gradient \(2,\) and weights none"
    yield lambda: viz.gradient_flow({"a": np.ones(2)}, {"a": np.ones(3)}), ShapeError, r"weights \(3,\)"


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


def painted(figure):
    """The pixels (H, W, 3) of a figure, and a function from a point of its first axes to (row, column) among them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]

    def at(x, y):
        column, up = figure.axes[0].transData.transform((x, y))
        return int(len(pixels) - up), int(column)

    return pixels, at


def near(colour, pixel):
    from matplotlib.colors import to_rgb

    return np.abs(np.array(to_rgb(colour)) * 255 - pixel).max() < 40


def test_a_field_box_holds_the_pixels_that_reach_the_cell():
    assert viz.field_box(Grid(), 5, 2) == (4.5, 1.5, 5.5, 2.5)
    assert viz.field_box(Grid.of([Layer(3)]), 4, 0) == (3.5, -0.5, 6.5, 2.5)
    grid = Grid.of([Layer(3, padding=1), Layer(2, stride=2)])
    assert viz.field_box(grid, 0, 3) == (-1.5, 4.5, 2.5, 8.5)


def test_receptive_fields_are_drawn_where_the_grid_says():
    """Boxes in the colour of their layer at their edges, the photograph inside, a hatch outside it."""
    grids = {"pool": Grid.of([Layer(3), Layer(2, stride=2)]), "wide": Grid.of([Layer(61, padding=30)])}
    image = np.full((40, 60, 3), 90, np.uint8)
    image[33:, 50:] = 30
    figure = viz.receptive_fields(image, grids, at=(10, 20))
    pixels, at = painted(figure)
    boxes = [(7.5, 17.5, 11.5, 21.5), (-20.5, -10.5, 40.5, 50.5)]
    for (top, left, bottom, right), colour in zip(boxes, viz.fields.LAYERS, strict=False):
        for x, y in [(19, top), (19, bottom), (left, 10), (right, 10)]:
            row, column = at(x, y)
            around = pixels[row - 1 : row + 2, column - 1 : column + 2].reshape(-1, 3)  # Agg moves lines onto pixels
            assert any(near(colour, pixel) for pixel in around), (colour, x, y)
            assert not near(colour, pixels[at(x + 1, y + 1)]), "a line and no area"
    assert pixels[at(55, 30)].tolist() == pixels[at(5, 20)].tolist() == [90, 90, 90], "the photograph as it was"
    assert pixels[at(56, 37)].tolist() == [30, 30, 30]
    outside = pixels[at(0, -2)[0] - 30 : at(0, -2)[0], at(0, 0)[1] : at(30, 0)[1]].reshape(-1, 3)
    assert len(np.unique(outside, axis=0)) > 2 and outside.min() > 180, "hatched, and light"
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["pool: sees 4 × 4, a cell every 2", "wide: sees 61 × 61, a cell every 1"]


def test_of_a_map_with_a_size_only_its_cells_are_chosen(tmp_path):
    grid = Grid.of([Layer(3), Layer(4, stride=4)])
    figure = viz.receptive_fields(
        np.zeros((20, 20, 3), np.uint8), {"a": grid}, at=(19, 0), sizes={"a": (4, 3)}, path=tmp_path / "f.png"
    )
    axes = figure.axes[0]
    top, left, *_ = viz.field_box(grid, 3, 0)
    assert axes.patches[-1].get_xy() == (left, top)
    dots = set(zip(*(values.tolist() for values in axes.lines[0].get_data()), strict=True))
    assert dots == {(2.5 + 4 * j, 2.5 + 4 * i) for i in range(4) for j in range(3)}
    assert opened((tmp_path / "f.png").read_bytes()).std() > 0


def test_feature_maps_share_a_scale_or_have_their_own():
    maps = np.stack([np.arange(12.0).reshape(3, 4), np.full((3, 4), 22.0), np.zeros((3, 4))])
    maps[2, 0, 0] = np.nan
    figure = viz.feature_maps(maps, columns=2, names=["a", "$b", "c"])
    first, second, third = figure.axes[0].images
    np.testing.assert_allclose(first.get_array(), maps[0] / 22)
    assert (second.get_array() == 1).all() and np.ma.getmaskarray(third.get_array()).sum() == 1
    assert first.norm.vmin == 0 and first.norm.vmax == 1 and first.get_cmap().name == "inferno"
    pixels, at = painted(figure)
    left, right, _, top = third.get_extent()
    assert left == 0 and top > first.get_extent()[2], "the third begins the second row"
    cell = (right - left) / 4
    assert near("#3fa34d", pixels[at(left + cell / 2, top + cell / 2)]), "not a number is green"
    assert near("black", pixels[at(left + 3 * cell, top + 2 * cell)])
    x0, x1, y1, y0 = second.get_extent()
    assert near("#fcffa4", pixels[at((x0 + x1) / 2, (y0 + y1) / 2)]), "the largest value is yellow"
    own = viz.feature_maps(-maps, shared=False, most=2)
    assert [image.get_array().min() for image in own.axes[0].images] == [-1, -1]
    assert own.axes[0].images[0].get_cmap().name == "RdBu_r" and own.axes[0].images[0].norm.vmin == -1
    assert [text.get_text() for text in own.axes[0].texts] == ["0: 11", "1: 22"]
    assert own.axes[0].get_title(loc="left") == "2 of 3 maps"


def test_filters_of_colour_images_are_colours():
    w = np.zeros((2, 3, 1, 2))
    w[0, 0, 0, 0], w[0, 2, 0, 1], w[1, 1] = 4.0, -2.0, 1.0
    rgb, bgr = (viz.kernels(w, order=order) for order in ("rgb", "bgr"))
    tile = rgb.axes[0].images[0].get_array()
    assert tile.tolist() == [[[1, 0.5, 0.5], [0.5, 0.5, 0.25]]], "red where w is positive, less blue where negative"
    np.testing.assert_array_equal(bgr.axes[0].images[0].get_array(), tile[..., ::-1])
    assert rgb.axes[0].images[1].get_array()[0, 0].tolist() == [0.5, 1, 0.5]
    one = viz.kernels(w, shared=True)
    assert one.axes[0].images[1].get_array()[0, 0].tolist() == [0.5, 0.625, 0.5]
    pixels, at = painted(rgb)
    left, right, bottom, top = rgb.axes[0].images[0].get_extent()
    assert pixels[at(left + (right - left) / 4, (bottom + top) / 2)].tolist() == [255, 127, 127]


def test_other_filters_are_grey_a_row_for_each_output():
    w = np.random.default_rng(0).standard_normal((5, 4, 3, 3))
    figure = viz.kernels(w, inputs=2, most=6)
    images = figure.axes[0].images
    assert len(images) == 6 and figure.axes[0].get_title(loc="left") == "3 of 5 filters, 2 of 4 inputs"
    for place, image in enumerate(images):
        each = w[place // 2]
        np.testing.assert_allclose(image.get_array(), 0.5 + each[place % 2] / (2 * np.abs(each).max()))
        assert image.get_extent()[0] == pytest.approx(place % 2 * (1 + viz.inside.GAP))
    assert figure.axes[0].images[0].get_cmap().name == "gray"
    single = viz.kernels(w[:, :1], columns=3).axes[0]
    assert len(single.images) == 5 and single.images[3].get_extent()[0] == 0
    assert (viz.kernels(np.zeros((1, 1, 2, 2))).axes[0].images[0].get_array() == 0.5).all()


def test_gradient_errors_are_where_they_are():
    error = np.zeros((2, 3, 4, 5))
    error[1, 2, 0, 3] = -0.5
    figure = viz.gradient_errors({"x": error, "b": np.array([1e-9, 0])}, title="a case")
    sheet, by_place, line = (axes.images[0].get_array() for axes in figure.axes if axes.images)
    assert sheet.shape == (2 * 5 - 1, 3 * 6 - 1) and np.argwhere(np.ma.filled(sheet, 0)).tolist() == [[5, 15]]
    assert by_place.shape == (4, 5) and by_place[0, 3] == 0.5 / 6 and np.count_nonzero(by_place) == 1
    assert not line.any() and [axes.get_title(loc="left") for axes in figure.axes[::2]] == [
        "x: largest error 0.5",
        "b: no error",
    ]


def test_gradient_flow_measures_each_layer_and_drops_none():
    gradients = {
        "conv1.w": np.array([1.0, -3.0]),
        "conv2.w": np.array([1e-3, 1e-3]),
        "frozen.w": None,
        "dead.w": np.zeros(2),
        "wild.w": np.array([1.0, np.inf]),
    }
    figure = viz.gradient_flow(gradients)
    axes = figure.axes[0]
    assert [bar.get_x() + bar.get_width() for bar in axes.patches] == pytest.approx([2.0, 1e-3])
    assert [line.get_xdata()[0] for line in axes.lines] == [3.0, 1e-3]
    said = {round(text.get_position()[1]): text.get_text() for text in axes.texts}
    assert said == {2: "none", 3: "zero", 4: "not finite"}
    assert [tick.get_text() for tick in axes.get_yticklabels()] == list(gradients)
    pixels, at = painted(figure)
    assert near(viz.ACCENT, pixels[at(1.9, 0)]) and near("white", pixels[at(2.2, 0)]), "the bar ends at the mean"
    assert near(viz.ACCENT, pixels[at(0.9e-3, 1)]) and near("white", pixels[at(1.5e-3, 1)])
    weights = {name: np.full(2, 2.0) for name in gradients} | {"conv2.w": np.zeros(2)}
    axes = viz.gradient_flow(gradients, weights).axes[0]
    assert [bar.get_x() + bar.get_width() for bar in axes.patches] == pytest.approx([math.sqrt(5) / 2])
    assert [text.get_text() for text in axes.texts] == ["weights are zero", "none", "zero", "not finite"]
    assert not axes.lines
    viz.figure_png(viz.gradient_flow({"all.w": np.zeros(3)}))


def test_the_ladder_is_figure_four():
    image, truth, _ = sample_of(40, 60)
    truth[:, :9] = 255
    coarse = np.where(truth == 255, 0, truth)
    coarse[:20] = (truth[:20] + 1) % 21
    fine = np.where(truth == 255, 0, truth)
    picture = viz.ladder(image, truth, {"FCN-32s": coarse, "FCN-8s": fine}, VOC, side=60)
    right = 100 * np.mean((coarse == truth)[truth != 255])
    captions = ("image", "truth", f"FCN-32s  {right:.1f} %", "FCN-8s  100.0 %")
    assert 49 < right < 51
    np.testing.assert_array_equal(picture, viz.gallery([(image, truth, coarse, fine)], VOC, captions=captions, side=60))
    without = viz.ladder(image, None, {"FCN-8s": fine}, VOC, side=60)
    np.testing.assert_array_equal(without, viz.gallery([(image, fine)], VOC, captions=("image", "FCN-8s"), side=60))
    void = np.full_like(truth, 255)
    assert viz.ladder(image, void, {"FCN-8s": fine}, VOC, side=60).ndim == 3, "no labelled pixel, no percentage"


def test_a_notebook_shows_pictures_and_figures():
    picture = sample_of(7, 5)[0]
    shown = viz.show(picture)
    np.testing.assert_array_equal(opened(shown._repr_png_()), picture)
    assert repr(shown) == "a picture of 5 x 7 pixels"
    figure = viz.gradient_flow({"a.w": np.ones(3)})
    assert opened(viz.show(figure, dpi=50)._repr_png_()).shape[1] == 50 * 7.6
    assert viz.show(figure)._repr_png_() == viz.show(figure)._repr_png_()
