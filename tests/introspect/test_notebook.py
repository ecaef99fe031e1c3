"""What objects show of themselves in a notebook and in a terminal: balanced, escaped, and never a whole large array."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from ci_groups import GROUPS
from notebooks import environment

from minifcn import FCN8s, figure
from minifcn.geometry import Layer
from minifcn.introspect.describe import describe
from minifcn.introspect.markup import html_table, tag
from minifcn.metrics import ConfusionMatrix
from minifcn.nn import Conv2d, Dropout, Linear, MaxPool2d, Module, Sequential
from minifcn.tensor import Parameter, Tensor

HOSTILE = "<script>alert(1)</script>&\"'"
REASON = GROUPS["tutorials"]()


class Balance(HTMLParser):
    """Reads a piece of HTML: its tags have to close in order. `cells` are the rows of its table, `text` is its text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.cells, self.text = [], [], [], ""
        self.feed(html)
        self.close()
        assert not self.open, f"{self.open} are not closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open += [tag] if tag != "img" else []
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if "tr" in self.open:
            self.cells[-1][-1] += data


def read(thing):
    return Balance(thing._repr_html_())


def pictures(html):
    from PIL import Image

    sources = [attrs["src"].removeprefix("data:image/png;base64,") for tag, attrs in html.tags if tag == "img"]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))) for source in sources]


def net():
    rng = np.random.default_rng(0)
    block = Sequential(conv=Conv2d(3, 4, 3, padding=1, init=rng, relu=True), pool=MaxPool2d(2, ceil_mode=True))
    return Sequential(block=block, drop=Dropout(0.5, rng=rng), fc=Linear(4, 2, 8, init=rng))


# Tensors


def test_a_tensor_is_one_short_line():
    assert repr(Tensor(np.array([[1, 2], [3, 4]]))) == "Tensor((2, 2), int64, [[1 2] [3 4]], constant)"
    p = Parameter(np.arange(13, dtype=np.float32))
    assert repr(p) == "Parameter((13,), float32, [0. 1. 2. 3. 4. 5.] ..., made by parameter)"
    assert repr((p * 2).sum()) == "Tensor((), float32, 156.0, made by sum)"
    assert repr(Tensor(np.zeros((2, 0)))) == "Tensor((2, 0), float64, [], constant)"
    big = repr(Tensor(np.random.default_rng(0).standard_normal((3, 4, 50, 60))))
    assert len(big) < 120 and "\n" not in big


def test_a_tensor_shows_its_first_map_in_grey():
    values = np.zeros((2, 5, 3, 4), np.float32)
    values[0, 0, 0] = [-1, 0, 1, 3]
    html = read(Tensor(values))
    assert repr(Tensor(values)) in html.text and "values[0, 0, :, :], black -1, white 3" in html.text
    (picture,) = pictures(html)
    assert picture.shape == (3, 4, 3) and picture.dtype == np.uint8
    assert picture[0].tolist() == [[grey] * 3 for grey in (0, 64, 128, 255)]
    assert (pictures(read(Tensor(np.full((2, 2), 7))))[0] == 0).all(), "all alike is no division by zero"


def test_three_channels_are_an_image():
    values = np.zeros((1, 3, 2, 2))
    values[0, 1] = 0.5
    values[0, 2] = 1
    html = read(Tensor(values))
    assert "values[0, :, :, :]" in html.text
    assert pictures(html)[0][1, 1].tolist() == [0, 128, 255]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_not_finite_is_magenta_and_disturbs_nothing(bad, channels):
    values = np.linspace(0, 1, channels * 4, dtype=np.float32).reshape(channels, 2, 2)
    values[0, 0, 1] = bad
    (picture,) = pictures(read(Tensor(values)))
    assert picture[0, 1].tolist() == [255, 0, 255] and picture[0, 0].tolist() != [255, 0, 255]
    assert (pictures(read(Tensor(np.full((2, 2), bad))))[0] == (255, 0, 255)).all()


@pytest.mark.parametrize("shape", [(64, 64), (65, 129), (1, 3, 500, 700), (8, 1, 4096), (3000, 1)])
def test_a_large_array_is_a_small_picture(shape):
    html = Tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))._repr_html_()
    (picture,) = pictures(Balance(html))
    assert max(picture.shape) <= 64 and len(html) < 20_000


@pytest.mark.parametrize("data", [1.5, [1, 2, 3], np.zeros((2, 0)), np.ones(100)])
def test_what_has_no_map_is_text(data):
    html = read(Tensor(data))
    assert html.text == repr(Tensor(data)) and not pictures(html)


def test_true_and_false_and_whole_numbers_have_pictures():
    for data in (np.eye(3, dtype=bool), np.eye(3, dtype=np.uint8), np.eye(3, dtype=np.int64)):
        assert (pictures(read(Tensor(data)))[0][..., 0] == 255 * np.eye(3)).all()


def test_a_tensor_on_the_device_brings_only_its_thumbnail_across(fake_gpu):
    data = fake_gpu.asarray(np.random.default_rng(0).standard_normal((2, 5, 300, 200)).astype(np.float32))
    before = fake_gpu.downloads
    (picture,) = pictures(read(Tensor(data)))
    assert fake_gpu.downloads == before + 1 and picture.shape == (60, 50, 3)


# Modules


def test_a_module_prints_its_tree():
    assert repr(net()) == (
        "Sequential(\n"
        "  (block): Sequential(\n"
        "    (conv): Conv2d(layer=Layer(kernel=3, padding=1), w=(4, 3, 3, 3), b=(4,), groups=1, relu=True)\n"
        "    (pool): MaxPool2d(layer=Layer(kernel=2, stride=2, ceil=True))\n"
        "  )\n"
        "  (drop): Dropout(p=0.5)\n"
        "  (fc): Linear(w=(2, 256), b=(2,), relu=False)\n"
        ")"
    )
    assert repr(net().eval()) == repr(net()) and repr(Module()) == "Module()"
    fcn = FCN8s(classes=3, width=1)
    for name, _ in fcn.named_modules():
        assert f"({name.split('.')[-1]}): " in repr(fcn) or not name


def test_a_layer_prints_what_is_not_the_default():
    assert repr(Layer()) == "Layer(kernel=1)" and repr(Layer(1, 2)) == "Layer(stride=2)"
    assert repr(Layer(3, transpose=True)) == "Layer(kernel=3, transpose=True)"
    for layer in (Layer(), Layer(5, 2, 1, 3, True), Layer(4, 2, output_padding=1, transpose=True)):
        settings = dict(pair.split("=") for pair in repr(layer)[len("Layer(") : -1].split(", "))
        assert Layer(**{name: {"True": True}.get(value) or int(value) for name, value in settings.items()}) == layer


def test_a_module_is_a_table_of_its_layers():
    html = read(net().freeze("fc"))
    assert html.cells == [
        ["layer", "kind", "settings", "parameters"],
        ["block.conv", "Conv2d", net().block.conv.extra_repr(), "112"],
        ["block.pool", "MaxPool2d", net().block.pool.extra_repr(), ""],
        ["drop", "Dropout", "p=0.5", ""],
        ["fc", "Linear", "w=(2, 256), b=(2,), relu=False", "514 (frozen)"],
        ["all", "Sequential", "", "626"],
    ]
    fcn = FCN8s(classes=3, width=1)
    assert read(fcn).cells[-1] == ["all", "FCN", "", f"{sum(p.size for p in fcn.parameters()):,}"]


def test_names_are_escaped():
    odd = Sequential(**{HOSTILE: Dropout(0.5, rng=np.random.default_rng(0))})
    vars(vars(odd)[HOSTILE])["note"] = HOSTILE
    html = read(odd)
    assert html.cells[1] == [HOSTILE, "Dropout", f"p=0.5, note={HOSTILE}", ""]
    assert {name for name, _ in html.tags} == {"table", "thead", "tbody", "tr", "td"}
    y = Parameter(np.ones(2)) * 2
    y.node.op = HOSTILE
    assert HOSTILE in read(y).text and not any(name == "script" for name, _ in read(y).tags)


# Confusion matrices, descriptions, figures


def test_a_confusion_matrix_is_a_line_and_a_heat_map():
    confusion = ConfusionMatrix.of([[8, 0, 0], [1, 0, 3], [0, 0, 0]])
    assert repr(confusion) == (
        f"ConfusionMatrix(3 classes, 12 pixels, mean IU {confusion.mean_iu():.3f}, pixel accuracy 0.667)"
    )
    html = read(confusion)
    assert html.text.startswith(repr(confusion)) and "rows: true class" in html.text
    (picture,) = pictures(html)
    assert picture.shape == (3, 3, 3)
    assert picture[0].tolist() == [[8, 48, 107], [255] * 3, [255] * 3], "every pixel of class 0 was found"
    assert (picture[2] == 255).all() and picture[1, 2].mean() < picture[1, 0].mean() < 255
    assert "nan" in repr(ConfusionMatrix(2)) and (pictures(read(ConfusionMatrix(2)))[0] == 255).all()
    assert max(pictures(read(ConfusionMatrix(150)))[0].shape) <= 64


def test_a_description_is_its_table():
    description = describe(FCN8s(classes=3, width=1), 64)
    html = read(description)
    assert repr(description) == str(description)
    lines = str(description).splitlines()
    assert [cell for row in html.cells for cell in row if cell] == re.split(r" {2,}|\n+", "\n".join(lines[:-3]).strip())
    assert html.text.endswith("".join(lines[-2:]))


def test_a_figure_shows_lines():
    drawn = figure(FCN8s(classes=3, width=1))
    assert isinstance(drawn, str) and repr(drawn) == str(drawn) == drawn and "\n" in drawn
    assert read(drawn).text == drawn


def test_a_table_escapes_its_cells():
    table = html_table([("a", HOSTILE), ("b", tag("b", HOSTILE))])
    assert Balance(table).cells == [["a", HOSTILE], ["b", HOSTILE]]


def page():
    things = [Tensor(np.eye(3)), net(), ConfusionMatrix.of(np.eye(4, dtype=int)), describe(FCN8s(width=1), 64)]
    return "<!doctype html><meta charset=utf-8><title>shown</title>" + "".join(each._repr_html_() for each in things)


def test_a_browser_draws_it(chromium, tmp_path):
    path = tmp_path / "shown.html"
    path.write_text(page(), encoding="utf-8")
    tab = chromium.page()
    tab.open(path.as_uri())
    assert tab.run("[...document.images].map(image => [image.naturalWidth, image.width])") == [[3, 126], [4, 128]]
    assert tab.run("document.querySelectorAll('table').length") == 2
    assert not tab.complaints and len(tab.requests) == 1
    tab.close()


# In Jupyter

SHOWN = """
import numpy as np
from minifcn import FCN8s, ConfusionMatrix, Parameter, figure
from minifcn.introspect.describe import describe
from minifcn.training.progress import Bar
net = FCN8s(classes=3, width=1)
"""
BAR = """
with Bar(4, unit="step") as bar:
    print(bar.shown)
    for step in range(4):
        bar.advance(note=f"loss {step}")
        with bar.hidden():
            print("line", step)
"""


@pytest.mark.slow("starts a Jupyter kernel")
@pytest.mark.tutorials
@pytest.mark.skipif(bool(REASON), reason=REASON or "it is here")
def test_a_real_notebook_shows_objects_and_the_progress_bar():
    import nbclient
    import nbformat

    objects = "Parameter(np.eye(3))", "net", "ConfusionMatrix(3)", "describe(net, 64)", "figure(net)"
    cells = [nbformat.v4.new_code_cell(source) for source in (SHOWN, *objects, BAR)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", coalesce_streams=True)
    client.execute(env=environment())
    for cell in cells[1:-1]:
        (output,) = cell.outputs
        assert {"text/plain", "text/html"} <= set(output.data), cell.source
        Balance(output.data["text/html"])
        assert " at 0x" not in output.data["text/plain"]
    printed, drawn = (
        [output for output in cells[-1].outputs if output.output_type == kind] for kind in ("stream", "display_data")
    )
    assert {each.name for each in printed} == {"stdout"}
    assert "".join(each.text for each in printed) == "True\nline 0\nline 1\nline 2\nline 3\n"
    (bar,) = drawn
    assert re.search(r"^100%\|█+\| 4/4 \[.*, loss 3\]$", bar.data["text/plain"])
