"""The page of a run: complete, well formed, self-contained, and unmoved by whatever stands in the run's files."""

import base64
import html.parser
import json
import math
import os
import re
import shutil

import numpy as np
import pytest

from minifcn import viz
from minifcn.errors import DataError
from minifcn.metrics import ConfusionMatrix
from minifcn.training.report import MEASURES, tag, write_report

CLASSES = ["background", "ball", "<script>alert('IU')</script>", 'tent & "pole"']
BASELINES = {"majority class": 0.1234, "pixel position": 0.2345}
VOID_ELEMENTS = {"img", "meta"}


class Page(html.parser.HTMLParser):
    """Reads a page strictly: every element must be closed by its own name, in order."""

    def __init__(self, path):
        super().__init__()
        self.open, self.elements, self.attributes, self.texts = [], [], [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open, f"never closed: {self.open}"
        self.text = " ".join(self.texts)

    def handle_starttag(self, name, attributes):
        self.elements.append(name)
        self.attributes += [(name, key, value) for key, value in attributes]
        if name not in VOID_ELEMENTS:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open and self.open.pop() == name

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    def pictures(self):
        sources = [value for name, key, value in self.attributes if (name, key) == ("img", "src")]
        return [base64.b64decode(source.removeprefix("data:image/png;base64,"), validate=True) for source in sources]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run folder with everything in it."""
    run = tmp_path_factory.mktemp("runs") / "a <b>run"
    (run / "samples").mkdir(parents=True)
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, (8, 8), dtype=np.uint8)
    confusion = ConfusionMatrix(4)
    confusion.update(truth, np.roll(truth, 1))
    measures = confusion.summary()
    for name in ("step-00000010-a", "step-00000020-<i>b"):
        image = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        (run / "samples" / f"{name}.png").write_bytes(viz.png(viz.triptych(image, truth, truth, CLASSES)))
    iu = [None if math.isnan(value) else value for value in confusion.iu().tolist()]
    evaluation = {
        "split": "val", "images": 17, "classes": CLASSES, "confusion": confusion.matrix.tolist(), **measures,
        "iu": iu, "absent": "skip",
        "baselines": {name: dict.fromkeys(MEASURES, value) for name, value in BASELINES.items()},
    }  # fmt: skip
    config = {"seed": 7, "solver": {"lr": 1e-3, "name": "<img src=x onerror=alert(1)>"}, "skips": ["pool4", "pool3"]}
    config["environment"] = {"numpy": "9.8.7", "cores": {"physical": 2}}
    history = [{"kind": "train", "step": step, "epoch": 0, "loss": 1.4 - step / 40} for step in range(1, 21)]
    history.append({"kind": "val", "step": 20, "split": "val", "iu": iu, **measures})
    (run / "config.json").write_text(json.dumps(config))
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in history))
    return run


DRAWN = {}


def drawn_once(draw):
    """Return `draw`, which remembers the picture of the same arguments: most pages here have the same two."""

    def drawing(*arguments):
        key = draw.__name__, repr(arguments[:-1])
        if key not in DRAWN:
            draw(*arguments)
            DRAWN[key] = arguments[-1].read_bytes()
        arguments[-1].write_bytes(DRAWN[key])

    return drawing


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    for name in ("curves", "confusion_picture"):
        monkeypatch.setattr(viz, name, drawn_once(getattr(viz, name)))
    return shutil.copytree(finished, tmp_path / finished.name)


@pytest.fixture
def edit(run):
    def edit(**changes):
        path = run / "evaluation.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def test_everything_is_on_the_page(run):
    path = write_report(run)
    assert path == run / "report.html"
    page = Page(path)
    evaluation = json.loads((run / "evaluation.json").read_text())
    numbers = [evaluation[key] for key in MEASURES] + list(BASELINES.values()) + evaluation["iu"][:3]
    for number in numbers:
        assert f"{number:.3f}" in page.texts
    confusion = ConfusionMatrix.of(evaluation["confusion"])
    for share in (*confusion.shares_true(), *confusion.shares_predicted()):
        assert f"{100 * share:.2f} %" in page.texts
    for text in (*CLASSES, "a <b>run", "baseline: majority class", "step-00000020-<i>b", "solver.lr", "0.001"):
        assert text in page.texts
    assert {"skips", '["pool4", "pool3"]', "9.8.7", "cores.physical", "2"} <= set(page.texts)
    assert "17 images of the split “val”" in page.text
    assert 'over 3 of 4 classes (absent = skip); left out: tent & "pole"' in page.text
    assert "its IU is 0/0" in page.text and page.texts.count("–") == 1
    assert "Not on this page" not in page.text


def test_the_pictures_are_inside(run):
    pictures = Page(write_report(run)).pictures()
    expected = [run / "curves.png", run / "confusion.png", *sorted((run / "samples").iterdir())]
    assert pictures == [path.read_bytes() for path in expected]


def test_nothing_is_loaded_and_nothing_runs(run):
    page = Page(write_report(run))
    assert not {"script", "link", "iframe", "object", "embed", "form", "base", "b", "i"} & set(page.elements)
    for name, key, value in page.attributes:
        assert key in {"class", "style", "src", "alt", "lang", "charset", "name", "content", "width"}, (name, key)
        assert key != "src" or value.startswith("data:image/png;base64,")
    assert not re.search(r"https?:|//[a-z]|url\(|@import", re.sub(r"base64,[\w+/=]+", "", page.source))


def test_hostile_settings_are_text(run):
    page = Page(write_report(run))
    assert "<img src=x onerror=alert(1)>" in page.texts
    assert page.elements.count("img") == 4
    assert "<script>" not in page.source


def test_letters_that_cannot_be_written_are_replaced(run, edit):
    edit(classes=["\ud800", "a\x00b", "\x1b[31m", "猫"])
    texts = Page(write_report(run)).texts
    assert "a\N{REPLACEMENT CHARACTER}b" in texts and "猫" in texts


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "evaluation.json"])
def test_a_missing_file_is_left_out_and_said(run, name):
    (run / name).unlink()
    page = Page(write_report(run))
    assert f"{name} is not in the run folder" in page.text
    assert ("Classes" in page.texts) == (name != "evaluation.json")
    assert ("Learning curves" in page.texts) == (name != "metrics.jsonl")
    assert ("Configuration" in page.texts) == (name != "config.json")


def test_an_empty_run_folder_still_makes_a_page(tmp_path):
    page = Page(write_report(tmp_path))
    assert page.elements.count("li") == 4 and not page.pictures()


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("config.json", "[1, 2]", "expected an object, found list"),
        ("config.json", "[" * 100_000, "cannot be used: ValueError: more than 50 levels"),
        ("config.json", b"\xff\xfe", "cannot be used: UnicodeDecodeError"),
        ("metrics.jsonl", '{"kind": "train"\n{"kind": "val"}\n', "line 1 is not JSON"),
        ("evaluation.json", "{", "cannot be used: JSONDecodeError"),
        ("evaluation.json", "{}", "cannot be used: KeyError: 'confusion'"),
        ("evaluation.json", '{"confusion": [[1, 2], [3]], "classes": []}', "cannot be used: ValueError"),
        ("evaluation.json", '{"confusion": [[1, 2], [3, 4]], "classes": ["a"]}', "classes must list 2 names"),
        ("evaluation.json", '{"confusion": [[1]], "classes": "a"}', "classes must list 1 names"),
        ("evaluation.json", '{"confusion": [[1]], "classes": ["a"], "absent": "x"}', "absent is 'x'"),
        ("evaluation.json", '{"confusion": [[9223372036854775808]], "classes": ["a"]}', "found 9e+18 of them"),
    ],
)
def test_a_broken_file_is_left_out_and_said(run, name, content, says):
    (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    page = Page(write_report(run))
    assert says in page.text and name in page.text


def test_a_line_cut_by_a_kill_costs_nothing(run):
    whole = Page(write_report(run)).pictures()[0]
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    page = Page(write_report(run))
    assert page.pictures()[0] == whole and "metrics.jsonl" not in page.text


def test_a_line_cut_in_the_middle_costs_no_curve(run):
    whole = Page(write_report(run)).pictures()[0]
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join([*lines[:3], '{"kind": "train", "st\n', *lines[3:]]))
    page = Page(write_report(run))
    assert page.pictures()[0] == whole and "metrics.jsonl: line 4 is not JSON and is left out" in page.text


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "evaluation.json", "samples/pipe.png"])
def test_a_pipe_in_a_files_place_is_left_out_and_does_not_hang(run, name):
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    page = Page(write_report(run))
    assert name.startswith("samples") or f"{name} cannot be used: DataError: it is no file" in page.text


def test_missing_numbers_are_dashes(run, edit):
    edit(mean_iu=None, pixel_accuracy="high", baselines={"odd": 3})
    page = Page(write_report(run))
    assert page.texts.count("–") == 2 + 4 + 1


def test_what_is_no_picture_is_named(run):
    (run / "samples" / "text.png").write_text("hello")
    page = Page(write_report(run))
    assert "samples/text.png is not a PNG file" in page.text and len(page.pictures()) == 4


def test_many_samples_are_cut_to_the_first(run):
    one = next((run / "samples").iterdir())
    for number in range(30):
        shutil.copy(one, run / "samples" / f"z{number:02}.png")
    page = Page(write_report(run))
    assert len(page.pictures()) == 2 + 24 and "holds 32 pictures; the first 24" in page.text
    assert "z21" in page.texts and "z22" not in page.texts


def test_the_same_run_is_the_same_page(run, monkeypatch):
    monkeypatch.undo()  # drawn twice
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


def test_the_page_of_a_run_that_goes_on_loads_itself_again(run):
    (run / "evaluation.json").unlink()
    with (run / "metrics.jsonl").open("a") as file:
        for step in (20, 40):
            file.write(json.dumps({"kind": "val", "step": step, "split": "val", "warnings": ["<b>stays"]}) + "\n")
        file.write('{"kind": "val", "step": 40, "split": "val", "warnings": 3}\n')
    page = Page(write_report(run, refresh=7))
    assert ("meta", "http-equiv", "refresh") in page.attributes and ("meta", "content", "7") in page.attributes
    assert "The run goes on" in page.text and "On the split “val”, after step 40." in page.texts
    assert "step 20: <b>stays (2 times, the last at step 40)" in page.texts
    page = Page(write_report(run))
    assert not [value for _, key, value in page.attributes if key == "http-equiv"]
    assert "The last measurement" in page.texts and "The run goes on" not in page.text


def test_a_browser_loads_the_page_again_by_itself(run, chromium):
    path, page = write_report(run, refresh=1), chromium.page()
    page.open(path.as_uri())
    path.write_text(path.read_text().replace("<h1>", "<h1>written again "))
    page.wait_for("Page.loadEventFired")
    assert page.run("document.querySelector('h1').textContent").startswith("written again")
    page.close()


def test_no_run_folder(tmp_path):
    with pytest.raises(DataError, match="no such run folder"):
        write_report(tmp_path / "nowhere")


def test_tag_escapes_all_but_its_own():
    assert tag("p", "<b>", tag("i", "&"), title='"') == '<p title="&quot;">&lt;b&gt;<i>&amp;</i></p>'
