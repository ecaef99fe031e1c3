"""The pages about kernels and stitching, docs/explorer/, in a real browser: their numbers are those of the library."""

import base64
import json
import pathlib
import random

import numpy as np
import pytest
from browser import Chromium, Page

from minifcn import ops
from minifcn.geometry import Layer
from minifcn.metrics import ConfusionMatrix
from minifcn.stitch import rarefied

ROOT = pathlib.Path(__file__).parent.parent.parent
FOLDER = ROOT / "docs" / "explorer"
pytestmark = pytest.mark.slow("starts a browser")


def opened(chromium: Chromium, name: str, **size: int) -> Page:
    page = chromium.page(**size)
    page.open((FOLDER / name).as_uri())
    return page


# ---- convolution -------------------------------------------------------------------------------------------------


def random_cases(count: int) -> list[dict]:
    rng = random.Random(3)
    pick = {"kind": ("conv", "transposed"), "n": range(1, 9), "k": range(1, 6), "stride": range(1, 5)}
    pick |= {"padding": range(7), "dilation": range(1, 4)}
    cases = [{key: rng.choice(values) for key, values in pick.items()} for _ in range(count)]
    for case in cases:
        case["image"], case["weights"] = (
            [[round(rng.uniform(-1, 1), 3) for _ in range(case[side])] for _ in range(case[side])]
            for side in ("n", "k")
        )
    return cases


def expected(case: dict) -> list | None:
    """The output and its counts by the library, or None where it has no output."""
    layer = Layer(case["k"], case["stride"], case["padding"], case["dilation"], transpose=case["kind"] == "transposed")
    if layer.transpose and (case["n"] - 1) * layer.stride + layer.extent - 2 * layer.padding < 1:
        return None
    if not layer.transpose and case["n"] + 2 * layer.padding < layer.extent:
        return None
    op = ops.conv_transpose2d if layer.transpose else ops.conv2d
    window = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    x, w = (np.array(case[key])[None, None] for key in ("image", "weights"))
    return [op(x, w, None, **window).data[0, 0], op(np.ones_like(x), np.ones_like(w), None, **window).data[0, 0]]


def differing(page: Page, cases: list[dict]) -> int:
    script = """JSON.stringify(CASES.map(({ image, weights, ...o }) =>
        typeof outSide(o) === "string" ? null : [apply(o, image, weights).y, apply(o, image, weights).counts]))"""
    wrong = 0
    for case, result in zip(cases, json.loads(page.run(script.replace("CASES", json.dumps(cases)))), strict=True):
        wanted = expected(case)
        if wanted is None or result is None:
            wrong += wanted is not result
        else:
            wrong += not all(np.shape(a) == b.shape and np.allclose(a, b) for a, b in zip(result, wanted, strict=True))
    return wrong


def test_the_kernel_page_computes_what_the_library_does(chromium: Chromium) -> None:
    cases = random_cases(300)
    refused = sum(expected(case) is None for case in cases)
    assert 10 < refused < 200
    assert differing(opened(chromium, "convolution.html"), cases) == 0


@pytest.mark.parametrize(
    ("rule", "planted"),
    [
        ("u * dilation, j", "u, j"),
        ("i * stride - padding", "i * stride"),
        ("Math.floor(room / stride) + 1", "Math.ceil(room / stride) + 1"),
        ("(n - 1) * stride + extent - 2 * padding", "n * stride + extent - 2 * padding"),
        ("weights[tap[0]][tap[1]]", "weights[tap[1]][tap[0]]"),
    ],
)
def test_a_fault_planted_in_the_page_is_noticed(chromium: Chromium, tmp_path: pathlib.Path, rule, planted) -> None:
    source = (FOLDER / "convolve.js").read_text(encoding="utf-8")
    assert source.count(rule) == 1
    (tmp_path / "convolve.js").write_text(source.replace(rule, planted), encoding="utf-8")
    (tmp_path / "index.html").write_text('<!DOCTYPE html><script src="convolve.js"></script>', encoding="utf-8")
    page = chromium.page()
    page.open((tmp_path / "index.html").as_uri())
    assert differing(page, random_cases(60)) > 0


def test_dragging_the_kernel_moves_the_window(chromium: Chromium) -> None:
    page = opened(chromium, "convolution.html")
    drag = """(() => { const cell = document.querySelector('#input rect[data-y="4"][data-x="1"]');
        const box = cell.getBoundingClientRect(), at = { clientX: box.x + 5, clientY: box.y + 5, bubbles: true };
        cell.dispatchEvent(new PointerEvent("pointerdown", at)); window.dispatchEvent(new PointerEvent("pointerup"));
        return [state.at, document.querySelectorAll("#input rect.under").length, $("sum").textContent]; })()"""
    at, under, said = page.run(drag)
    assert (at, under) == (3 * 4 + 0, 9) and said.startswith("Output cell 3, 0 = ")
    page.run("weights = [[0, 0, 0], [0, 2, 0], [0, 0, 0]]; draw()")
    value = page.run("document.querySelector('#output rect.chosen + text').textContent")
    assert value == page.run("shown(2 * IMAGES.noise(6)[4][1])")
    page.run("play()")
    assert page.run("$('play').textContent") == "Pause"
    assert page.complaints == []


@pytest.mark.parametrize("finger", [False, True])
def test_a_mouse_and_a_finger_drag_the_kernel_and_its_weights(chromium: Chromium, finger: bool) -> None:
    """Real input, as the browser makes it: the cells are drawn anew below the pointer, and the page must not scroll."""
    page = opened(chromium, "convolution.html", width=390 if finger else 1100)
    cells = [
        f"""document.querySelector('#input rect[data-y="{y}"][data-x="{x}"]')""" for y, x in ((1, 1), (2, 3), (4, 4))
    ]
    page.middle(cells[-1])  # scrolls, if it has to
    places = [page.middle(cell) for cell in cells]
    top = page.run("scrollY")
    page.drag(places, finger=finger)
    assert page.run("[state.at, scrollY]") == [3 * 4 + 3, top]
    page.drag(places[:1], finger=finger)
    assert page.run("state.at") == 0
    x, y = page.middle("document.querySelector('#kernel input')")
    page.drag([(x, y), (x, y - 10), (x, y - 40)], finger=finger)
    assert page.run("weights[0][0]") == 2 and page.run("state.at") == 0
    assert page.complaints == []


def test_the_arrow_keys_move_the_kernel_and_sliders_show_their_number(chromium: Chromium) -> None:
    page = opened(chromium, "convolution.html")
    page.run("$('input').focus()")
    for key, code, at in (("ArrowDown", 40, 4), ("ArrowRight", 39, 5), ("ArrowUp", 38, 1), ("ArrowUp", 38, 1)):
        page.press(key, code)
        assert page.run("state.at") == at
    page.run("$('dilation').focus()")
    page.press("ArrowRight", 39)
    assert page.run("[state.dilation, $('dilation').nextElementSibling.value, outSide(state)]") == [2, "2", 2]


CONTRAST = r"""(() => {
    const rgba = (element, what) => (getComputedStyle(element)[what].match(/[\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
    const ground = rgba(document.body, "backgroundColor");
    const linear = (v) => v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const of = (text) => {
        const [r, g, b, a = 1] = rgba(text.previousElementSibling, "fill");
        const box = light([r, g, b].map((v, i) => a * v + (1 - a) * ground[i])), ink = light(rgba(text, "fill"));
        return (Math.max(box, ink) + 0.05) / (Math.min(box, ink) + 0.05);
    };
    return Math.min(...[...document.querySelectorAll(".drawing rect + text")].filter((t) => t.textContent).map(of));
})()"""


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(
    "name", ["convolution.html#n=12", "convolution.html#image=a+slope&n=12", "stitch.html#n=20&f=4"]
)
def test_numbers_can_be_read_on_their_colours(chromium: Chromium, name: str, dark: bool) -> None:
    page = chromium.page(dark=dark)
    page.open((FOLDER / name.split("#")[0]).as_uri() + "#" + name.split("#")[1])
    assert page.run("document.querySelectorAll('.drawing rect + text').length") > 50
    assert page.run(CONTRAST) > 4  # the WCAG asks for 4.5 of text, and for 3 of large text and of pictures


def test_the_checkerboard_and_its_cure(chromium: Chromium) -> None:
    page = opened(chromium, "convolution.html")
    page.run("$('checkerboard').click()")
    assert "get 1, 2, 4 products: a checkerboard" in page.run("$('even').textContent")
    page.run("$('k').value = 4; $('k').dispatchEvent(new Event('input'))")
    assert page.run("$('even').textContent") == ""
    page.run("$('padding').value = 6; $('padding').dispatchEvent(new Event('input'))")
    page.run("$('n').value = 1; $('n').dispatchEvent(new Event('input'))")
    assert "cuts away the whole output" in page.run("$('problem').textContent")
    assert page.complaints == []


# ---- shift and stitch --------------------------------------------------------------------------------------------


def library(x: list[float], f: int, k: int, weights: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """The dense answers on one axis: of the rarefied windows, and of every shift, interlaced."""
    row, w = np.array(x, float)[None, None, None], np.array(weights[:k], float)[None, None, None]
    coarse = [Layer(f, f), Layer(k)]

    def answers(image: np.ndarray, chain: list[Layer]) -> np.ndarray:
        pool, conv = chain
        pooled = ops.max_pool2d(image, kernel_size=(1, f), stride=(1, pool.stride))
        return ops.conv2d(pooled, w, None, dilation=(1, conv.dilation)).data[0, 0, 0]

    dense = answers(row, rarefied(coarse))
    runs = [answers(np.pad(row[..., s:], ((0, 0), (0, 0), (0, 0), (0, s))), coarse) for s in range(f)]
    return dense, np.array([runs[i % f][i // f] for i in range(len(dense))])


def test_both_ways_are_those_of_the_library(chromium: Chromium) -> None:
    page = opened(chromium, "stitch.html")
    weights, compared = page.run("WEIGHTS"), 0
    for f in (1, 2, 3, 4):
        for k in (1, 2, 3):
            for n in (12, 13, 20):
                for image in page.run("Object.keys(IMAGES)"):
                    found = page.run(f"compute({json.dumps({'n': n, 'f': f, 'k': k, 'image': image})})")
                    dense, stitched = library(found["x"], f, k, weights)
                    np.testing.assert_allclose(found["rarefied"], dense, atol=1e-12)
                    np.testing.assert_allclose(found["stitched"], stitched, atol=1e-12)
                    assert found["most"] == 0
                    compared += 1
    assert compared == 108 and page.complaints == []


def test_the_stitch_page_says_what_a_cell_is_made_of(chromium: Chromium) -> None:
    page = opened(chromium, "stitch.html")
    page.run("document.querySelector('#stitched rect[data-x=\"3\"]').dispatchEvent(new PointerEvent('pointerenter'))")
    assert page.run("$('cell').textContent") == (
        "Pixel 3 sees the pixels 3 to 6. Shift-and-stitch has it from run 1, cell 1; "
        "the spread filter takes the cells 3, 5 of the dense pool."
    )
    assert page.run("document.querySelectorAll('#input rect.under').length") == 4
    phone = opened(chromium, "stitch.html", width=390)
    phone.drag([phone.middle("document.querySelector('#rarefied rect[data-x=\"2\"]')")], finger=True)
    assert phone.run("$('cell').textContent").startswith("Pixel 2 sees")
    page.run("location.hash = '#n=4&f=4&k=3'")
    page.run("read(location.hash); draw()")
    assert "see 12 pixels, and the input has 4" in page.run("$('problem').textContent")
    page.run("location.hash = '#n=__proto__&f=-3&image=toString'; read(location.hash); draw()")
    assert page.run("[state.f, state.image]") == [1, "noise"] and page.complaints == []


@pytest.mark.parametrize("name", ["convolution.html", "stitch.html", "fusion.html"])
def test_it_fits_a_phone(chromium: Chromium, name) -> None:
    page = opened(chromium, name, width=390, height=800)
    assert page.run("document.documentElement.scrollWidth") <= 390
    assert [request for request in page.requests if not request.startswith("file:")] == []


# ---- skips -------------------------------------------------------------------------------------------------------


def fusion_data(page: Page) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """The scores (part, class, row, column) and labels that the page was made with, read by another reader."""
    data = json.loads(page.run("JSON.stringify(FUSION)"))
    shape = len(data["classes"]), data["side"], data["side"]
    parts = [np.frombuffer(base64.b64decode(part), "<i2").reshape(shape) for part in data["parts"]]
    labels = [np.frombuffer(base64.b64decode(data[key]), np.uint8).reshape(shape[1:]) for key in ("truth", "predicted")]
    return np.array(parts, np.float64), labels[0], labels[1], len(data["names"])


def test_the_fusion_page_adds_and_measures_as_the_library_does(chromium: Chromium) -> None:
    page = opened(chromium, "fusion.html")
    parts, truth, predicted, count = fusion_data(page)
    rng = np.random.default_rng(0)
    for weights in [*np.tril(np.ones((count, count))), *rng.uniform(0, 2, (5, count)).round(2)]:
        found = np.array(page.run(f"[...labels({json.dumps(weights.tolist())})]")).reshape(truth.shape)
        expected = np.tensordot(weights, parts, 1).argmax(axis=0)
        assert (found == expected).mean() > 0.999  # equal sums may round to either
        confusion = ConfusionMatrix(parts.shape[1])
        confusion.update(truth, found)
        shown = page.run(f"measures(labels({json.dumps(weights.tolist())}))")
        assert shown["accuracy"] == pytest.approx(confusion.pixel_accuracy())
        assert shown["iu"] == pytest.approx(confusion.mean_iu())
    whole = parts.sum(axis=0).argmax(axis=0)
    assert (whole == predicted).mean() > 0.99  # the parts are those of the net, in hundredths


def test_the_fusion_page_answers_buttons_sliders_and_the_pointer(chromium: Chromium) -> None:
    page = opened(chromium, "fusion.html")
    first = page.run("document.querySelector('#presets button').click(); $('measure').textContent")
    page.run(
        "const s = document.querySelectorAll('#sliders input')[1]; s.value = 1; s.dispatchEvent(new Event('input'))"
    )
    assert page.run("$('measure').textContent") != first and page.run("weights") == [1, 1, 0, 0, 0]
    page.run("table(20, 12)")
    rows = page.run("[...$('pixel').tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent))")
    assert len(rows) == 6 and rows[-1][0] == "sum"
    page.size(390, 800)
    page.drag([page.middle("$('truth')")], finger=True)
    assert page.run("$('pixel').caption.textContent").startswith("Row 24, column 24 of 48: ")
    for column in (1, 2):
        assert sum(float(row[column]) for row in rows[:-1]) == pytest.approx(float(rows[-1][column]), abs=0.03)
    assert page.complaints == []
