"""The pages of docs/: what they name is there, and what they say was run."""

import ast
import functools
import importlib
import pathlib
import re
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def rows(text: str, columns: int) -> list[list[str]]:
    """The rows of all tables of so many columns, without their heads."""
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    tables = [row for row in found if len(row) == columns]
    heads = {i - 1 for i, row in enumerate(tables) if set("".join(row)) <= set("-: ")}
    return [row for i, row in enumerate(tables) if i not in heads and i - 1 not in heads]


def test_file(name: str) -> pathlib.Path | None:
    """The test file of that name, in any room; None if there is none."""
    return next((ROOT / "tests").rglob(name), None)


test_file.__test__ = False  # type: ignore[attr-defined]


@functools.cache
def names_in(file: str) -> set[str]:
    tree = ast.parse(test_file(file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def lookup(name: str) -> Any:
    """What stands under a dotted name below `minifcn`, a module or something inside one; raises if nothing does."""
    thing: Any = importlib.import_module("minifcn")
    dotted = "minifcn"
    for part in name.split("."):
        dotted += f".{part}"
        if not hasattr(thing, part):
            importlib.import_module(dotted)
        thing = getattr(thing, part)
    return thing


# ---- the map of the paper ------------------------------------------------------------------------------------------


ROOMS = {"ops", "nn", "viz", "data", "models", "training", "experiments", "reproduction", "tables", "paper"}


def wrong(row: list[str]) -> str:
    """What is wrong with a row of the map; "" if nothing is."""
    place, what, functions, notebook, test = row
    if not place or not what:
        return "has no name"
    names = re.findall(r"`([\w.]+)`", functions)
    if not names:
        return "names no function"
    for name in names:
        try:
            lookup(name)
        except (ImportError, AttributeError):
            return f"names {name}, which is not there"
    found = re.fullmatch(r"\[(\d\d)\]\(\.\./(tutorials/(\d\d)_\w+\.ipynb)\)", notebook)
    rerun = notebook == "[re-run](reproduction.md)" and (ROOT / "docs" / "reproduction.md").is_file()
    if not rerun and (not found or found[1] != found[3] or not (ROOT / found[2]).is_file()):
        return f"has no notebook: {notebook}"
    if not rerun:
        text = (ROOT / found[2]).with_suffix(".py").read_text(encoding="utf-8").lower()
        parts = {part.lower() for name in names for part in name.split(".")[-2:]} - ROOMS
        if not any(re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text) for part in parts):
            return f"names nothing that is in its notebook: {functions}"
    found = re.fullmatch(r"`(test_\w+\.py)::(test_\w+)`", test)
    if not found or test_file(found[1]) is None or found[2] not in names_in(found[1]):
        return f"has no test: {test}"
    return ""


def test_every_row_of_the_map_leads_somewhere() -> None:
    found = rows(page("paper-map.md"), 5)
    assert len(found) > 40
    assert not [f"{row[0]} {wrong(row)}" for row in found if wrong(row)]
    assert len({row[0] for row in found}) == len(found)


@pytest.mark.parametrize(
    "place",
    [
        *("3", "3.1", "3.2", "3.3", "3.4", "4.1", "4.2", "4.3", "5"),
        *("figure 1", "figure 2", "figure 3", "figure 4", "figure 5", "figure 6"),
        *("table 1", "table 2", "table 3", "table 4", "table 5", "table 6", "appendix A", "appendix B"),
    ],
)
def test_the_map_has_the_whole_paper(place: str) -> None:
    wanted = f"section {place}" if place[0].isdigit() else place
    assert any(re.search(rf"{re.escape(wanted)}(?![\w.]\d)", row[0]) for row in rows(page("paper-map.md"), 5)), place


GOOD = ["a", "b", "`tensor.backward`", "[01](../tutorials/01_autograd.ipynb)", "`test_ops.py::test_adjoint`"]


@pytest.mark.parametrize(
    ("column", "cell", "complaint"),
    [
        (2, "", "names no function"),
        (2, "*not yet*", "names no function"),
        (2, "`ops.conv3d`", "conv3d, which is not there"),
        (2, "`ops.conv2d`", "nothing that is in its notebook"),
        (3, "", "no notebook"),
        (3, "[01](../tutorials/01_products.ipynb)", "no notebook"),
        (3, "[02](../tutorials/01_autograd.ipynb)", "no notebook"),
        (3, "[re-run](elsewhere.md)", "no notebook"),
        (4, "", "no test"),
        (4, "`test_ops.py::test_nothing`", "no test"),
    ],
)
def test_the_map_notices(column: int, cell: str, complaint: str) -> None:
    assert wrong(GOOD) == ""
    assert complaint in wrong([*GOOD[:column], cell, *GOOD[column + 1 :]])


# ---- pages whose lines run -----------------------------------------------------------------------------------------


def blocks(name: str) -> list[str]:
    """Return the Python of a page, each block after empty lines, so that errors show the page's line."""
    text = page(name)
    return [
        "\n" * text[: found.start(1)].count("\n") + found[1]
        for found in re.finditer(r"```python\n(.*?)```", text, re.DOTALL)
    ]


@pytest.mark.slow("runs each block of the page")
def test_the_theory_runs() -> None:
    found, names = blocks("theory.md"), {"__name__": "theory"}
    for block in found:
        exec(compile(block, "docs/theory.md", "exec"), names)  # noqa: S102  our own page
    assert all("assert" in block for block in found[1:]) and len(found) > 12


@pytest.mark.parametrize("name", ["design.md", "extend.md", "before.md"])
def test_the_examples_run(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from minifcn import tensor

    monkeypatch.setattr(tensor, "OPS", dict(tensor.OPS))  # what is added here is gone afterwards
    names: dict[str, Any] = {"__name__": name}
    for block in blocks(name):
        exec(compile(block, name, "exec"), names)  # noqa: S102  our own page
    assert name != "extend.md" or "upscore_pool2" in capsys.readouterr().out


def test_a_data_set_as_the_page_lays_it_out_is_read(tmp_path: pathlib.Path) -> None:
    import numpy as np

    from minifcn.data import VOCSegmentation
    from minifcn.data.files import write_image, write_mask

    listed = re.findall(r"^mine/(\S+)", page("extend.md"), re.MULTILINE)
    for file in map(tmp_path.joinpath, listed):
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".jpg":
            write_image(file.with_suffix(".png"), np.zeros((4, 5, 3), np.uint8))
        elif file.suffix == ".png":
            write_mask(file, np.array([[0, 1, 255, 0, 1]] * 4, np.uint8))
        else:
            file.write_text("sky\nground\n" if file.name == "class_names.txt" else "one\n")
    dataset = VOCSegmentation(tmp_path, "train")
    assert dataset.classes == ("sky", "ground") and dataset.ids == ("one",) and dataset[0].label[0, 2] == 255


# ---- questions -----------------------------------------------------------------------------------------------------


def test_every_question_is_answered_by_something_that_is_there() -> None:
    from minifcn.cli.command import parse, parse_words
    from minifcn.cli.predict import Options as Prediction
    from minifcn.cli.verbs import VERBS
    from minifcn.training.options import Options

    found = rows(page("faq.md"), 4)
    assert [int(row[0]) for row in found] == list(range(1, 20))
    for number, _, _, answer in found:
        commands = [command.split() for command in re.findall(r"`minifcn ([^`]+)`", answer)]
        notebooks = re.findall(r"\]\(\.\./(tutorials/\w+\.ipynb)\)", answer)
        assert commands or notebooks, number
        assert all((ROOT / notebook).is_file() for notebook in notebooks), number
        for verb, *options in commands:
            assert verb in VERBS, number
            if verb == "train":
                assert parse(Options, options, verb="train") != Options(), number
            if verb == "predict":
                words, _ = parse_words(Prediction, options, verb="predict", words="RUN image ...")
                assert len(words) == 2, number


def test_the_commands_against_summaries_run() -> None:
    from minifcn.cli.bench import Options as Bench
    from minifcn.cli.command import parse, parse_words
    from minifcn.cli.verbs import VERBS
    from minifcn.training.options import Options
    from minifcn.training.recipes import RECIPES

    commands = [text.split() for text in re.findall(r"`minifcn ([^`]+)`", page("before.md").replace("\n", " "))]
    assert {"train", "bench", "classify"} <= {verb for verb, *_ in commands} <= set(VERBS)
    for verb, *options in commands:
        if verb == "train":
            assert parse(Options, options, verb="train") != Options()
            assert "--recipe" not in options or options[options.index("--recipe") + 1] in RECIPES
        if verb == "bench":
            words, given = parse_words(Bench, options, verb="bench", words="WHAT")
            assert words == ["nets"] and given.net == "voc-fcn-alexnet"


def test_what_is_said_against_summaries_is_what_the_re_run_found() -> None:
    said, found = " ".join(page("before.md").split()), page("reproduction.md")
    for words, row in {
        "by 16.6 points of mean IU": "| fusion is better than pool4 alone | +16.6 |",
        "FCN-32s by 14.7": "| the last layer alone is better than pool4 alone | +14.7 |",
        "FCN-4s and FCN-2s are 0.1 and": "| FCN-4s and an FCN-8s that learned as long are equally good | +0.1 |",
        "and 0.2 points above it": "| FCN-2s and an FCN-8s that learned as long are equally good | +0.2 |",
        "for a three-hundredth of the work": "for about 300 times the multiply-adds",
    }.items():
        assert words in said and row in found, words
    for verdict in (
        r"learning through upsampling is better than shift-and-stitch \|.* undecided",
        r"layer fusion is better than shift-and-stitch \|.* \*\*held",
        r"the sum is better than the maximum \|.* \*\*held",
        r"in stages is better than at once \| -.* \*\*reversed",
        r"late fusion is better than early fusion \|.* \*\*held",
        r"learned and fixed upsampling are equally good \|.* undecided",
        r"FCN-8s gains more over FCN-16s than FCN-4s over FCN-8s \|.* \*\*held",
    ):
        assert re.search(verdict, found), verdict


def test_every_test_a_page_names_is_there() -> None:
    for path in DOCS.glob("*.md"):
        for file, name in re.findall(r"`(test_\w+\.py)::(test_\w+)`", path.read_text(encoding="utf-8")):
            assert name in names_in(file), f"{path.name}: {file}::{name}"


def test_every_link_of_a_page_leads_to_a_file() -> None:
    for path in DOCS.glob("*.md"):
        prose = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)\)", prose):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
            assert not target.startswith("../") or target.endswith(".ipynb") or "/teaching/" in target, (
                f"{path.name}: {target} is no page of the site"
            )


def test_every_page_is_in_the_contents() -> None:
    listed = re.findall(r"^([\w-]+)$", page("index.md"), re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in DOCS.glob("*.md") if path.stem != "index")
