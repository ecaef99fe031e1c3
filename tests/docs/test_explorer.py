"""The explorer, docs/explorer/, in a real browser: its numbers are those of `Layer`, `Grid`, `Ladder`; its page works.

The page computes with its own copy of the rules (geometry.js), so on random chains every size, stride, start and field,
every crop and every refusal are compared, sentences included. What it says about windows at the end of the axis and
about the pixels behind a cell is compared with plain walks, which know nothing of formulas.
"""

import itertools
import json
import pathlib
import random

import numpy as np
import pytest
from browser import Chromium, Page

from minifcn.errors import GeometryError, UsageError
from minifcn.geometry import Grid, Layer, out_size
from minifcn.introspect.design import LadderOf
from minifcn.models.alexnet import AlexNet
from minifcn.models.ladder import Ladder, safe_padding
from minifcn.models.squeezenet import SqueezeNet
from minifcn.models.vgg import VGG

ROOT = pathlib.Path(__file__).parent.parent.parent
EXPLORER = (ROOT / "docs" / "explorer" / "index.html").as_uri()


@pytest.fixture(scope="module")
def page(chromium: Chromium) -> Page:
    opened = chromium.page()
    opened.open(EXPLORER)
    return opened


# ---- chains, at random -------------------------------------------------------------------------------------------


def random_layer(rng: random.Random, *, transpose: bool) -> Layer:
    kernel, dilation = rng.choice([1, 2, 2, 3, 3, 4, 5, 7]), rng.choice([1, 1, 1, 2, 3])
    stride, padding = rng.choice([1, 1, 2, 2, 3]), rng.choice([0, 0, 1, 1, 2, 3])
    if transpose and rng.random() < 0.25:
        more = rng.choice([0, 0, 1])
        return Layer(kernel, stride, padding, dilation, transpose=True, output_padding=more)
    return Layer(kernel, stride, padding, dilation, ceil=rng.random() < 0.4)


def random_chain(rng: random.Random, *, transpose: bool = True) -> list[Layer]:
    return [random_layer(rng, transpose=transpose) for _ in range(rng.randint(1, 7))]


def written(layers: list[Layer]) -> str:
    """The chain as the page reads it, its layers called l1, l2, ..."""
    modes = [f"t+{lay.output_padding}" if lay.transpose else "c" if lay.ceil else "" for lay in layers]
    numbers = [f"{lay.kernel}/{lay.stride}/{lay.padding}/{lay.dilation}" for lay in layers]
    return " ".join(f"l{i}={n}{mode}" for i, (n, mode) in enumerate(zip(numbers, modes), start=1))


def expected_layers(layers: list[Layer], size: int) -> list[dict]:
    """What `compute(...).layers` has to be, without the end of the axis."""
    rows, error, n = [], None, size
    for i, layer in enumerate(layers):
        grid, row_error = Grid.of(layers[: i + 1]), None
        if error is None:
            try:
                n = layer.out_size(n)
            except GeometryError as fault:
                row_error = error = str(fault)
        row = {"stride": str(grid.stride), "start": str(grid.start), "field": str(grid.field)}
        rows.append({"name": f"l{i + 1}", **row, "size": None if error else str(n), "error": row_error})
    return rows


def computed(page: Page, states: list[dict]) -> list[dict]:
    """`compute` of the page on each state; a state that cannot be read gives {"refused": the sentence}."""
    script = """JSON.stringify(STATES.map((state) => {
        try { return compute(state); } catch (fault) { return { refused: fault.message }; } }))"""
    return json.loads(page.run(script.replace("STATES", json.dumps(states))))


def layers_of(result: dict) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in ("over", "unseen", "dropped")} for row in result["layers"]]


def differing(page: Page, *, count: int = 400) -> tuple[list[str], dict[str, int]]:
    """The chains on which the page and minifcn disagree, and how often each special case came up."""
    rng = random.Random(6)
    chains = [random_chain(rng) for _ in range(count)]
    sizes = [rng.choice([1, 2, 3, 5, 8, 13, 32, 100, 227, 500]) for _ in chains]
    results = computed(page, [{"chain": written(c), "size": n} for c, n in zip(chains, sizes)])
    met = {
        "misfits": sum(result["error"] is not None for result in results),
        "dropped": sum(row.get("dropped", False) for result in results for row in result["layers"]),
        "over": sum(row.get("over", "0") != "0" for result in results for row in result["layers"]),
        "halves": sum("/" in row["start"] for result in results for row in result["layers"]),
    }
    pairs = zip(chains, sizes, results)
    wrong = [f"{written(c)} on {n}" for c, n, result in pairs if layers_of(result) != expected_layers(c, n)]
    return wrong, met


def test_sizes_and_grids_are_those_of_minifcn_on_random_chains(page: Page) -> None:
    wrong, met = differing(page)
    assert wrong == []
    assert min(met.values()) > 20, met  # each special case was there to be got wrong


@pytest.mark.parametrize(
    ("rule", "planted"),
    [
        ("if (this.ceil && !this.transpose && (out - 1n) * this.stride >= size + this.padding) out -= 1n;", ""),
        ("larger(-floorDiv(-room, this.stride) + 1n, 1n)", "-floorDiv(-room, this.stride) + 1n"),
        ("return a % b !== 0n && a < 0n !== b < 0n ? quotient - 1n : quotient;", "return quotient;"),
        ("layer.extent - 1n - 2n * layer.padding, 2n", "(layer.extent - 1n) / 2n * 2n - 2n * layer.padding, 2n"),
        ("-floorDiv(-layer.extent, layer.stride); //", "floorDiv(layer.extent, layer.stride); //"),
    ],
    ids=[
        "no window is dropped",
        "no clipped window",
        "division towards zero",
        "whole pixels only",
        "reach rounded down",
    ],
)
def test_a_fault_planted_in_the_page_is_noticed(chromium: Chromium, tmp_path: pathlib.Path, rule, planted) -> None:
    source = (ROOT / "docs" / "explorer" / "geometry.js").read_text(encoding="utf-8")
    assert source.count(rule) == 1
    (tmp_path / "geometry.js").write_text(source.replace(rule, planted), encoding="utf-8")
    (tmp_path / "index.html").write_text('<!DOCTYPE html><script src="geometry.js"></script>', encoding="utf-8")
    opened = chromium.page()
    opened.open((tmp_path / "index.html").as_uri())
    wrong, _ = differing(opened)
    assert wrong


# ---- what no formula knows ---------------------------------------------------------------------------------------


def end_by_walking(layer: Layer, size: int) -> tuple[int, int, bool]:
    """By how many cells the last window hangs over, how many last cells no window sees, and whether one was dropped."""
    stops = [j * layer.stride - layer.padding for j in range(layer.out_size(size))]
    reach = stops[-1] + layer.extent - 1
    over = sum(1 for cell in range(size + layer.padding, reach + 1))
    unseen = sum(1 for cell in range(size) if cell > reach)
    end_of_padding = size + layer.padding - 1
    return over, unseen, layer.ceil and reach < end_of_padding and len(stops) > 0


def test_what_the_page_says_of_the_end_of_the_axis(page: Page) -> None:
    rng = random.Random(7)
    layers = [random_layer(rng, transpose=False) for _ in range(400)]
    sizes = [rng.randint(1, 24) for _ in layers]
    results = computed(page, [{"chain": written([layer]), "size": n} for layer, n in zip(layers, sizes)])
    counted = [0, 0, 0]
    for layer, size, result in zip(layers, sizes, results):
        (row,) = result["layers"]
        if row["error"]:
            continue
        over, unseen, dropped = end_by_walking(layer, size)
        assert (row["over"], row["unseen"], row["dropped"]) == (str(over), str(unseen), dropped), (layer, size)
        counted = [n + bool(value) for n, value in zip(counted, (over, unseen, dropped))]
    assert min(counted) > 10, counted


def seen_by_walking(layers: list[Layer], size: int) -> list[set[int]]:
    """For each output cell, the pixels whose change would reach it: every pixel is sent through every window."""
    behind = [{i} for i in range(size)]
    for layer in layers:
        n, out = len(behind), layer.out_size(len(behind))
        found: list[set[int]] = [set() for _ in range(out)]
        small, large = (n, out) if layer.transpose else (out, n)
        for stop, tap in itertools.product(range(small), range(layer.kernel)):
            at = stop * layer.stride + tap * layer.dilation - layer.padding
            if 0 <= at < large:
                j, i = (at, stop) if layer.transpose else (stop, at)
                found[j] |= behind[i]
        behind = found
    return behind


def test_the_pixels_behind_a_cell(page: Page) -> None:
    rng = random.Random(8)
    asked, expected = [], []
    while len(asked) < 150:
        layers, size = random_chain(rng)[:4], rng.randint(1, 40)
        try:
            out = out_size(layers, size)
        except GeometryError:
            continue
        cell = rng.randrange(out)
        asked.append([written(layers), size, cell])
        expected.append(sorted(seen_by_walking(layers, size)[cell]))
    pixels = "([chain, size, cell]) => seen(readChain(chain), BigInt(size), BigInt(cell))[0].cells.map(Number)"
    assert page.run(f"{json.dumps(asked)}.map({pixels})") == expected
    holes = sum(found != list(range(found[0], found[-1] + 1)) for found in expected if found)
    assert holes > 10  # strides and dilations that skip pixels came up


# ---- ladders -----------------------------------------------------------------------------------------------------


def expected_ladder(paths: dict, skips: list[str], size: int, *, padded: bool, kernel: int | None) -> dict:
    try:
        ladder = LadderOf(paths, skips, kernel) if kernel else Ladder(paths, skips, padded=padded)
    except (GeometryError, UsageError) as fault:
        return {"rungs": [], "error": str(fault), "out": None}
    rungs = [
        {
            "name": rung.name,
            "skip": rung.skip,
            "at": str(rung.at),
            "cut": rung.cut,
            "stride": str(rung.stride),
            "kernel": str(rung.layer.kernel),
            "factor": str(rung.layer.stride),
            "padding": str(rung.layer.padding),
        }
        for rung in ladder.rungs
    ]
    try:
        return {"rungs": rungs, "error": None, "out": str(ladder._climb(size))}
    except GeometryError as fault:
        return {"rungs": rungs, "error": str(fault), "out": None}


def named_paths(layers: list[Layer]) -> dict[str, list[Layer]]:
    return {f"l{i}": layers[:i] for i in range(1, len(layers) + 1)}


def test_ladders_are_those_of_minifcn_on_random_chains(page: Page) -> None:
    rng = random.Random(9)
    states, expected = [], []
    for _ in range(400):
        layers = random_chain(rng, transpose=False)
        layers[0] = Layer(layers[0].kernel, layers[0].stride, rng.randint(0, 60), ceil=layers[0].ceil)
        size, skips = rng.choice([20, 57, 100]), []
        if rng.random() < 0.7:  # mostly such that it could climb
            chosen = sorted(rng.sample(range(1, len(layers) + 1), min(len(layers), rng.randint(1, 2))), reverse=True)
            skips = [f"l{i}" for i in chosen]
        kernel = rng.choice([None, None, None, 3, 4, 8])
        padded = kernel is None and rng.random() < 0.3
        state = {"chain": written(layers), "size": size, "ladder": True, "skips": ",".join(skips), "padded": padded}
        states.append({**state, "kernel": kernel or ""})
        expected.append(expected_ladder(named_paths(layers), skips, size, padded=padded, kernel=kernel))
    results = [result["ladder"] for result in computed(page, states)]
    for state, result, wanted in zip(states, results, expected):
        assert {key: result[key] for key in wanted} == wanted, state
    sentences = ["is not whole", "is negative", "leaves too few", "must go from coarse", "not an output"]
    met = {text: sum(text in (wanted["error"] or "") for wanted in expected) for text in sentences}
    rungs = [rung for wanted in expected for rung in wanted["rungs"] if rung["skip"]]
    cuts = {cut: sum(rung["cut"] == cut for rung in rungs) for cut in ("skip", "score")}
    assert min({**met, **cuts}.values()) > 3, (met, cuts)


def test_a_ladder_from_between_the_pixels_is_refused(page: Page) -> None:
    (result,) = computed(page, [{"chain": "up=4/2t", "size": 8, "ladder": True}])
    assert "up has a cell every 1/2 pixels" in result["ladder"]["error"]


# ---- presets -----------------------------------------------------------------------------------------------------


def trunk(net, padding):
    return net(width=1, padding=padding, init="zero", rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("preset", "net", "padding", "skips"),
    [
        ("vgg-16", VGG, 1, None),
        ("alexnet", AlexNet, 0, None),
        ("squeezenet", SqueezeNet, 0, None),
        ("fcn-32s", VGG, 100, ()),
        ("fcn-16s", VGG, 100, ("pool4",)),
        ("fcn-8s", VGG, 100, ("pool4", "pool3")),
        ("fcn-alexnet", AlexNet, 100, ()),
    ],
)
def test_the_presets_are_the_nets(page: Page, preset: str, net, padding: int, skips) -> None:
    layers = trunk(net, padding).layers()
    state = page.run(f"({{...plain(PRESETS[{json.dumps(preset)}])}})")
    (result,) = computed(page, [state])
    rows = layers_of(result)
    numbered = [{**row, "name": f"l{i}"} for i, row in enumerate(rows, start=1)]
    assert numbered == expected_layers(layers, int(state["size"]))
    if skips is None:
        assert result["ladder"] is None
        return
    paths = trunk(net, padding).paths()
    wanted = expected_ladder(paths, list(skips), int(state["size"]), padded=False, kernel=None)
    assert {key: result["ladder"][key] for key in wanted} == wanted
    least = page.run(f"safePadding(readChain({json.dumps(state['chain'])}), {json.dumps(list(skips))})")
    assert least == safe_padding(lambda border: trunk(net, border).paths(), skips)


def test_alexnet_with_kernel_64_falls_between_the_pixels(page: Page) -> None:
    (result,) = computed(page, [page.run("({...plain(PRESETS['fcn-alexnet-64'])})")])
    assert "= 37/2 is not whole; a kernel one larger or smaller" in result["ladder"]["error"]


# ---- the page ----------------------------------------------------------------------------------------------------


UNREADABLE = [
    "",
    "conv=0",
    "conv=3/0",
    "a=3 a=3",
    "conv=3//1",
    "3x3",
    "a=3/1/1/0",
    "a=3ct",
    "a=3t+",
    "a=-3",
    "a=3/1/1/1/1",
]


@pytest.mark.parametrize("chain", [*UNREADABLE, "b" * 9000, "3 " * 201])
def test_a_chain_that_cannot_be_read_is_refused_in_a_sentence(page: Page, chain: str) -> None:
    (result,) = computed(page, [{"chain": chain, "size": 8}])
    assert "expected" in result["refused"] and len(result["refused"]) < 250


@pytest.mark.parametrize("size", ["", "0", "-4", "1e3", "3.5", "100000", "many"])
def test_a_size_that_cannot_be_read_is_refused_in_a_sentence(page: Page, size: str) -> None:
    (result,) = computed(page, [{"chain": "a=1", "size": size}])
    assert "expected a whole number from 1 to 99999" in result["refused"]


def text(page: Page, selector: str) -> str:
    return page.run(f"document.querySelector({json.dumps(selector)}).textContent")


def typed(page: Page, selector: str, value: str) -> None:
    """Put into a field as one types it: the old text is replaced, and the page hears of it."""
    page.run(f"{{ const field = document.querySelector({json.dumps(selector)}); field.focus(); field.select(); }}")
    page.type(value)


def test_typing_shows_the_result_at_once_and_the_address_holds_it(chromium: Chromium) -> None:
    page = chromium.page()
    page.open(EXPLORER)
    typed(page, "#chain", "conv=3/1/1 pool=2/2c")
    typed(page, "#size", "9")
    assert page.run("[...document.querySelectorAll('#layers td.out')].map((cell) => cell.textContent)") == [
        *("9", "1", "0", "3"),
        *("5", "2", "1/2", "4"),
    ]
    assert text(page, "#layers tr:nth-child(2) td.note") == "the last window hangs over by 1 cell"
    typed(page, "#layers tr:nth-child(2) input[data-key=kernel]", "3")
    assert page.run("document.querySelector('#chain').value") == "conv=3/1/1 pool=3/2c"
    assert text(page, "#layers tr:nth-child(2) td.out.first") == "4"
    address = page.run("location.href")
    assert "chain=conv=3/1/1+pool=3/2c&size=9" in address
    other = chromium.page()
    other.open(address)
    assert other.run("document.querySelector('#chain').value") == "conv=3/1/1 pool=3/2c"
    assert text(other, "#layers tbody") == text(page, "#layers tbody")
    assert page.complaints == other.complaints == []


def test_a_chain_that_does_not_fit_says_why_and_where(chromium: Chromium) -> None:
    page = chromium.page()
    page.open(f"{EXPLORER}#chain=conv1=3/1/1+fc=7&size=4")
    with pytest.raises(GeometryError) as fault:
        Layer(7).out_size(4)
    assert text(page, "#problem") == f"fc: {fault.value}"
    assert not page.run("document.querySelector('#problem').hidden")
    typed(page, "#size", "7")
    assert page.run("document.querySelector('#problem').hidden")
    typed(page, "#chain", "conv1=3/1/1 fc=x")
    assert "layer 'fc=x' cannot be read" in text(page, "#problem")
    assert page.complaints == []


def test_the_chosen_cell_in_words_and_by_keyboard(chromium: Chromium) -> None:
    page = chromium.page()
    page.open(f"{EXPLORER}#chain=pool=2/2&size=8&cell=1")
    assert text(page, "#cone-text") == (
        "Cell 1 of pool has its centre at pixel 5/2, between pixels 2 and 3; its field is 2. "
        "On the image it sees 2 pixels from 2 to 3."
    )
    page.run("document.querySelector('#cell-range').focus()")
    page.press("ArrowRight", 39)
    assert text(page, "#cone-text").startswith("Cell 2 of pool has its centre at pixel 9/2")
    assert "cell=2" in page.run("location.hash")
    page.run("document.querySelector('#cone .pick').dispatchEvent(new MouseEvent('click', { bubbles: true }))")
    assert text(page, "#cone-text").startswith("Cell 0 of pool")


def test_every_control_is_reached_by_tab_and_has_a_name(chromium: Chromium) -> None:
    page = chromium.page()
    page.open(EXPLORER)
    unnamed = """[...document.querySelectorAll("input, select, textarea, button")].filter((control) => !(
        control.getAttribute("aria-label") || control.labels?.[0]?.textContent.trim() || control.textContent.trim()
    )).map((control) => control.outerHTML)"""
    assert page.run(unnamed) == []
    count = page.run("document.querySelectorAll('input, select, textarea, button, pre').length")
    reached = set()
    for _ in range(count):
        page.press("Tab", 9)
        reached.add(page.run("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
    assert len(reached) == count


@pytest.mark.parametrize("width", [360, 1100])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_preset_is_drawn_without_complaint_and_without_the_network(
    chromium: Chromium, width: int, dark: bool
) -> None:
    page = chromium.page(width=width, dark=dark)
    page.open(EXPLORER)
    names = page.run("Object.keys(PRESETS)")
    assert len(names) > 10
    for name in names:
        page.open(f"{EXPLORER}#preset={name}")
        page.run("new Promise((done) => setTimeout(done, 0))")  # the change of the address is an event of its own
        assert page.run("document.querySelector('#preset').value") == name
        assert page.run("document.querySelectorAll('#cone svg rect').length") > 3, name
        assert not page.run("document.body.innerHTML.includes('NaN')"), name
        assert page.run("document.documentElement.scrollWidth") <= width, name
    assert page.complaints == []
    assert all(url.startswith("file:") for url in page.requests) and len(page.requests) == 4
    ground = page.run("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") is not dark


MANY = ("99999/99999t", "99999/9/99999c", "9/1/99999")
HOSTILE = [
    "preset=nothing",
    "preset=__proto__",
    "chain=%3Cimg+src=x+onerror=alert(1)%3E",
    "size=-1",
    "chain=" + "a=99999/99999c+" * 60,
    "chain=a=3/99999c&size=1&ladder=1",
    "chain=a=3&layer=zz&cell=99999999999999999999&kernel=x&ladder=1&skips=%27%22",
    *("chain=" + "+".join(f"l{i}={word}" for i in range(200)) for word in MANY),
]


@pytest.mark.parametrize("address", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_address_does_no_harm(chromium: Chromium, address: str) -> None:
    page = chromium.page()
    page.open(f"{EXPLORER}#{address}")
    assert page.run("document.querySelector('img') === null")
    assert not page.run("document.body.innerHTML.includes('NaN')")
    assert page.complaints == []
