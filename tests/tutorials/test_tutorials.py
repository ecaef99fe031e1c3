"""The course in tutorials/: each notebook is what its .py says, keeps to the rules, and gives the committed outputs.

What can be read off the files is tested everywhere; running the notebooks needs the extra `notebooks` (marker
`tutorials`). A rule is one function from a notebook to a list of complaints, and a test plants what it is there for.
"""

import base64
import copy
import importlib
import io
import json
import os
import pathlib
import re
import subprocess
import sys

import held_claims
import notebooks
import numpy as np
import pytest
from ci_groups import GROUPS
from notebooks import Cell, cells_of_notebook, cells_of_text, complaints, differences, load, settled, sources, unlike

from minifcn.data.opening import open_data
from minifcn.data.palette import palette
from minifcn.data.tools.importing import recognise, write_tree

ROOT = pathlib.Path(__file__).parent.parent.parent
EACH = pytest.mark.parametrize("source", sources(), ids=lambda path: path.stem)
REASON = GROUPS["tutorials"]()


def needs_jupyter(test):
    slow = pytest.mark.slow("runs a notebook from top to bottom")
    return slow(pytest.mark.tutorials(pytest.mark.skipif(bool(REASON), reason=REASON or "it is here")(test)))


# Rules


def out_of_step(text: str, notebook: dict) -> list[str]:
    """The .py and the .ipynb hold the same cells, and the notebook is in the form in which a run leaves it."""
    ours, theirs = cells_of_text(text), cells_of_notebook(notebook)
    found = [f"{len(ours)} cells in the .py, {len(theirs)} in the .ipynb"] if len(ours) != len(theirs) else []
    found += [f"cell {n} differs: {a} and {b}" for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b]
    if not found and settled(copy.deepcopy(notebook)) != notebook:
        found.append("ids, metadata or versions are not those that tests/notebooks.py writes")
    return found


def not_run(notebook: dict) -> list[str]:
    """Every code cell was run, once, from top to bottom."""
    counts = [cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [] if counts == list(range(1, len(counts) + 1)) else [f"cells were run in the order {counts}"]


def badly_begun(cells: list[Cell]) -> list[str]:
    """First words on what one will be able to do; then imports, one seed, one device, the number of threads."""
    first, code = cells[0], next(cell for cell in cells if cell.kind == "code")
    found = [] if first.kind == "markdown" and first.source.startswith("# ") else ["the first cell is no title"]
    found += ["the first words name no section of the paper"] if "ection" not in first.source else []
    found += ["the title has no number, as in `# 01 · Title`"] if not re.match(r"# \d\d · \S", first.source) else []
    found += (
        ["the first words do not say what is needed"] if "**Before you begin.** You need" not in first.source else []
    )
    found += ["the first words name no minutes"] if not re.search(r"\d+\s+minutes", first.source) else []
    for pattern in (r"^SEED = \d+$", r'^DEVICE = "cpu"', r"\bthreads\(\)", r"^(import|from) "):
        if not re.search(pattern, code.source, re.MULTILINE):
            found.append(f"the first code cell has nothing like {pattern}")
    if "varies" not in code.tags:
        found.append("the first code cell prints what the machine has, and needs the tag `varies`")
    everything = "\n".join(cell.source for cell in cells if cell.kind == "code")
    found += [
        f"{name} is set {count} times"
        for name in ("SEED", "DEVICE")
        if (count := len(re.findall(rf"^\s*{name} *=", everything, re.MULTILINE))) != 1
    ]
    return found


def badly_ended(cells: list[Cell]) -> list[str]:
    """The last cell says where to read on; before it come a summary and a quiz."""
    last, said = cells[-1], "\n".join(cell.source for cell in cells if cell.kind == "markdown")
    found = [] if last.kind == "markdown" and "minifcn/" in last.source else ["the last cell names no source file"]
    return found + [f"there is no {name}" for name in ("## Summary", "### Quiz") if f"{name}\n" not in said]


def spoilt(notebook: dict) -> list[str]:
    """A solution shows nothing: it is folded, and its output would not be."""
    return [
        f"cell {number} has the tag `solution` and prints something"
        for number, cell in enumerate(notebook["cells"])
        if "solution" in cell["metadata"].get("tags", []) and cell.get("outputs")
    ]


def magic(cells: list[Cell]) -> list[str]:
    """A notebook is a Python program: nothing in it that only IPython understands."""
    lines = [line for cell in cells if cell.kind == "code" for line in cell.source.split("\n")]
    return [f"IPython's own: {line}" for line in lines if re.match(r"\s*[%!]|.*\bget_ipython\(", line)]


def draws(cells: list[Cell]) -> list[str]:
    """A notebook computes, `pictures.py` draws; arrays come from `xp`, so that a reader without a GPU sees NumPy."""
    lines = [line for cell in cells if cell.kind == "code" for line in cell.source.split("\n")]
    own = r"\bFigure\(|\.imshow\(|\bsubplots\(|^(from|import) matplotlib|\bto_device\("
    return [f"belongs into pictures.py, or has `xp` for it: {line}" for line in lines if re.search(own, line)]


def exercises_of(cells: list[Cell]) -> set[str]:
    return {name for cell in cells if cell.kind == "code" for name in re.findall(r"\bcheck_(\w+)\(", cell.source)}


def unfolded(cells: list[Cell]) -> list[str]:
    """A cell with a solution is folded, and nothing else is."""
    return [
        f"cell {number} has the tag `solution` or a hidden source, and not both"
        for number, cell in enumerate(cells)
        if ("solution" in cell.tags) != bool(cell.metadata.get("jupyter", {}).get("source_hidden"))
    ]


# The course


@EACH
def test_a_notebook_is_what_its_text_says(source: pathlib.Path) -> None:
    assert not out_of_step(source.read_text(encoding="utf-8"), load(source.with_suffix(".ipynb")))


@EACH
def test_a_notebook_keeps_to_the_rules(source: pathlib.Path) -> None:
    notebook = load(source.with_suffix(".ipynb"))
    cells = cells_of_notebook(notebook)
    found = [*badly_begun(cells), *badly_ended(cells), *magic(cells), *unfolded(cells), *not_run(notebook)]
    assert not found + spoilt(notebook) + complaints(notebook)


@EACH
def test_a_notebook_leaves_drawing_to_pictures_and_the_device_to_xp(source: pathlib.Path) -> None:
    assert draws(cells_of_text(source.read_text(encoding="utf-8"))) == []


@EACH
def test_its_exercises_have_checkers_solutions_and_wrong_answers(source: pathlib.Path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(notebooks.TUTORIALS))
    module = f"n{source.name[:2]}"
    checkers, solutions = (importlib.import_module(f"{folder}.{module}") for folder in ("exercises", "solutions"))
    wrong = importlib.import_module(f"wrong_answers.{module}").WRONG
    asked = exercises_of(cells_of_text(source.read_text(encoding="utf-8")))
    assert "quiz" in asked and 2 <= len(asked - {"quiz"}) <= 4
    assert asked == {name.removeprefix("check_") for name in vars(checkers) if name.startswith("check_")}
    assert asked - {"quiz"} == set(wrong) and set(wrong) <= set(vars(solutions))


def test_every_notebook_has_both_its_files() -> None:
    stems = [path.stem for path in sources()]
    assert stems and stems == sorted(path.stem for path in notebooks.TUTORIALS.glob("*.ipynb"))
    assert [stem[:2] for stem in stems] == [f"{number:02}" for number in range(1, len(stems) + 1)]


def test_the_course_page_lists_every_notebook_by_its_title() -> None:
    page = (ROOT / "docs" / "course.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\d\d)\]\(../tutorials/(\S+)\.ipynb\) \| (.+?) \| .* \| (\d+) \|$", page, re.MULTILINE)
    for source, (number, stem, title, minutes) in zip(sources(), rows, strict=True):
        first = cells_of_text(source.read_text(encoding="utf-8"))[0].source
        assert (stem, f"# {number} · {title}") == (source.stem, first.split("\n")[0])
        assert re.search(rf"exercises\s+together(?: take)? {minutes}\s+minutes", first), stem
    count = ["Ten", "Eleven", "Twelve", "Thirteen"][len(rows) - 10]
    for name in ("README.md", "docs/course.md"):
        assert f"{count} notebooks" in (ROOT / name).read_text(encoding="utf-8")


def test_every_photograph_has_labels_that_an_import_reads(tmp_path: pathlib.Path) -> None:
    photos = notebooks.TUTORIALS / "photos"
    assert write_tree(recognise(photos), tmp_path / "new") == []
    both = [open_data(tmp_path / "new", split) for split in ("train", "val")]
    assert both[0].classes == ("background", "cat", "cup", "person", "rocket")
    found = {
        sample.id: set(np.unique(sample.label))
        for images in both
        for sample in map(images.__getitem__, range(len(images)))
    }
    assert found == {"astronaut": {0, 3, 4, 255}, "chelsea": {0, 1, 255}, "coffee": {0, 2, 255}, "rocket": {0, 4}}
    assert sorted(found) == sorted(path.stem for path in photos.glob("*.jpg"))


def test_every_photograph_has_its_credit() -> None:
    photos = notebooks.TUTORIALS / "photos"
    credits = re.findall(r"^\| `(\S+)` \|.*\| (?:public domain|CC0) \|$", (photos / "CREDITS.md").read_text(), re.M)
    assert sorted(credits) == sorted(path.name for path in photos.iterdir() if path.suffix != ".md")


def test_numbers_of_the_re_run_are_those_of_its_page() -> None:
    page = (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8")
    for line in (notebooks.TUTORIALS / "logs" / "reproduction.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        table = page.split(f"\n## {record.pop('table')}\n")[1].split("\n## ")[0]
        rows = [row.split("|")[1:-1] for row in table.split("\n") if row.startswith("|")]
        place = next(n for n, row in enumerate(rows) if row[0].strip() == record["row"])
        place += rows[place][1].strip() == "the paper"  # our own row is below the paper's
        first = 1 + (rows[place][1].strip() == "here")
        values = dict(zip(rows[0][first:], rows[place][first:], strict=True))
        del record["row"]
        assert {name.strip(): float(value.split("±")[0]) for name, value in values.items()} == record


def test_numbers_of_the_long_runs_are_those_of_their_page() -> None:
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").replace("*", "")
    for line in (notebooks.TUTORIALS / "logs" / "photographs.jsonl").read_text(encoding="utf-8").splitlines():
        run = json.loads(line)
        four = (run[name] for name in ("pixel_accuracy", "mean_accuracy", "mean_iu", "frequency_weighted_iu"))
        assert f"| {' | '.join(f'{value:.3f}' for value in four)} |\n" in page, run["command"]
        assert f"    {run['command']} " in page


def test_the_picture_of_four_photographs_shows_what_notebook_10_says_of_it() -> None:
    from PIL import Image

    page = np.asarray(Image.open(ROOT / "docs" / "images" / "transfer-photos.png").convert("RGB")).astype(int)
    numbers = {"background": 0, "bottle": 5, "cat": 8, "dog": 12, "person": 15}
    colours = {name: palette(21)[number] for name, number in numbers.items()}

    def parts(top: int, left: int, height: int, width: int = 224) -> dict[str, float]:
        answer = page[top : top + height, left : left + width]
        return {name: float((answer == colour).all(axis=2).mean()) for name, colour in colours.items()}

    places = {"cat": (71, 245, 149), "cup": (264, 245, 150), "person": (34, 944, 224), "rocket": (264, 944, 150)}
    random = {name: parts(*place) for name, place in places.items()}
    imagenet = {name: parts(top, left + 230, height) for name, (top, left, height) in places.items()}
    assert 0.2 < random["cat"]["cat"] < 0.3 and imagenet["cat"]["cat"] > 0.75
    assert all(random[name]["dog"] > 0.5 * (1 - random[name]["background"]) for name in ("person", "cup"))
    assert imagenet["person"]["person"] > 0.35 and imagenet["rocket"]["background"] == 1
    flag, hair = parts(34, 1174, 100, 40), parts(44, 1254, 16, 50)
    assert flag["person"] > 0.6 and hair["dog"] > 0.6
    assert 0 < imagenet["cup"]["dog"] < 0.1 and 0 < imagenet["cup"]["bottle"] < 0.1


@needs_jupyter
@EACH
def test_the_parser_reads_as_jupytext_does(source: pathlib.Path) -> None:
    import jupytext

    read = [Cell(c.cell_type, c.source, notebooks.lasting(c.metadata)) for c in jupytext.read(source).cells]
    assert cells_of_text(source.read_text(encoding="utf-8")) == read


@needs_jupyter
@EACH
def test_a_fresh_run_gives_the_committed_outputs_and_each_assert_holds_something(source: pathlib.Path) -> None:
    """An assert that no tampered number makes false is reported with its place (tests/held_claims.py)."""
    fresh, asserts = held_claims.asserts_of(source)
    assert not differences(load(source.with_suffix(".ipynb")), fresh) + complaints(fresh)
    assert len(asserts) >= 10
    assert [f"{where}: {what}" for where, what, held in asserts if not held] == []


FAKE = """import sys
sys.path.insert(0, {!r})
from fake_device import fake_cupy
sys.modules["cupy"] = fake_cupy(waits=True)
"""


def run_on_gpu(source: pathlib.Path, folder: pathlib.Path, prelude: str = "") -> None:
    """As a plain program, which a py:percent file is, with one line changed."""
    text = source.read_text(encoding="utf-8")
    assert text.count('\nDEVICE = "cpu"') == 1
    program = folder / source.name
    program.write_text(prelude + text.replace('\nDEVICE = "cpu"', '\nDEVICE = "gpu"'), encoding="utf-8")
    environment = notebooks.environment() | {"MPLBACKEND": "Agg"}
    environment["PYTHONPATH"] += os.pathsep + str(notebooks.TUTORIALS)
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=notebooks.TUTORIALS,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@needs_jupyter
@EACH
def test_one_variable_moves_a_notebook_to_a_strict_device(source: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """fake_device.py in the place of CuPy: an array that was not carried across is an error."""
    run_on_gpu(source, tmp_path, FAKE.format(str(ROOT / "tests")))


@pytest.mark.gpu
@EACH
def test_one_variable_moves_a_notebook_to_the_gpu(source: pathlib.Path, gpu_reason: str, tmp_path) -> None:
    if gpu_reason or REASON:
        pytest.skip(gpu_reason or REASON)
    run_on_gpu(source, tmp_path)


# The rules see what they are there for

TEXT = """# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
# ---

# %% [markdown]
# # 01 · A title
#
# Section 3.
#
# **Before you begin.** You need nothing. All exercises together take 5 minutes.

# %% tags=["varies"]
import minifcn
SEED = 0
DEVICE = "cpu"
print(threads())

# %%
1 + 1

# %% jupyter={"source_hidden": true} tags=["solution"]
check_sum(2)

# %% [markdown]
# ## Summary
#
# ### Quiz
#
# Which?

# %% [markdown]
# Read `minifcn/tensor.py`.
"""


def notebook_of(text: str) -> dict:
    cells, count = [], 0
    for cell in cells_of_text(text):
        cells.append({"cell_type": cell.kind, "metadata": cell.metadata, "source": cell.source})
        if cell.kind == "code":
            count += 1
            cells[-1] |= {"execution_count": count, "outputs": []}
    return settled({"cells": cells})


def rules(text: str, notebook: dict) -> list[str]:
    cells = cells_of_text(text)
    found = badly_begun(cells) + badly_ended(cells) + magic(cells) + unfolded(cells)
    return found + not_run(notebook) + complaints(notebook) + out_of_step(text, notebook)


def test_the_rules_let_a_good_notebook_pass() -> None:
    assert rules(TEXT, notebook_of(TEXT)) == []
    assert exercises_of(cells_of_text(TEXT)) == {"sum"}


@pytest.mark.parametrize(
    ("was", "becomes", "complaint"),
    [
        ("# # 01 · A title", "# A title", "no title"),
        ("01 · A title", "01. A title", "no number"),
        ("You need", "It needs", "what is needed"),
        ("5 minutes", "long", "no minutes"),
        ("## Summary", "## In short", "no ## Summary"),
        ("### Quiz", "### Exercise", "no ### Quiz"),
        ("Section 3", "Chapter 3", "no section"),
        ("SEED = 0", "seed = 0", "SEED"),
        ('DEVICE = "cpu"', 'DEVICE = "gpu"', "DEVICE"),
        ("print(threads())", "print(2)", "threads"),
        (' tags=["varies"]', "", "`varies`"),
        ("1 + 1", "SEED = 1", "SEED is set 2 times"),
        ("1 + 1", "%timeit 1", "IPython"),
        ("1 + 1", "    !ls", "IPython"),
        (' jupyter={"source_hidden": true}', "", "not both"),
        ("minifcn/tensor.py", "the source", "no source file"),
    ],
)
def test_a_fault_in_the_text_is_seen(was: str, becomes: str, complaint: str) -> None:
    text = TEXT.replace(was, becomes)
    assert text != TEXT and any(complaint in found for found in rules(text, notebook_of(text)))


@pytest.mark.parametrize("text", ["x = 1\n", TEXT.replace("# %%\n", "# %% a title\n"), TEXT.replace("# Read", "Read")])
def test_a_file_that_is_not_py_percent_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|does not begin"):
        cells_of_text(text)


STREAM = {"output_type": "stream", "name": "stdout"}
FAULTS = {
    "a warning": ({**STREAM, "name": "stderr", "text": ["UserWarning"]}, "stderr"),
    "an error": ({"output_type": "error", "ename": "E", "evalue": "e", "traceback": []}, "error"),
    "an address": ({**STREAM, "text": "<Axes at 0x7f3a12345678>"}, "address"),
    "a path": ({**STREAM, "text": ["wrote ", "/".join(["", "home", "me", "x"])]}, "path"),
    "a path on Windows": ({**STREAM, "text": "C:\\Users\\me"}, "path"),
    "a large picture": ({"output_type": "display_data", "data": {"image/png": "A" * 1_000_000}}, "at most"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_must_not_be_committed_is_seen(fault: str) -> None:
    notebook = notebook_of(TEXT)
    output, complaint = FAULTS[fault]
    assert complaints(notebook) == []
    notebook["cells"][2]["outputs"] = [output]
    assert any(complaint in found for found in complaints(notebook))


def test_a_notebook_out_of_step_is_seen() -> None:
    for text in (TEXT.replace("1 + 1", "1 + 2"), TEXT + "\n# %%\n1\n", TEXT.replace("# %%\n", '# %% tags=["a"]\n')):
        assert out_of_step(text, notebook_of(TEXT))
    odd = notebook_of(TEXT)
    odd["cells"][2]["id"] = "random"
    assert out_of_step(TEXT, odd)
    unrun = notebook_of(TEXT)
    unrun["cells"][2]["execution_count"] = None
    assert not_run(unrun)


@pytest.mark.parametrize("line", ["figure = Figure()", "axes.imshow(x)", "x = to_device(x, DEVICE)"])
def test_a_notebook_that_draws_is_seen(line: str) -> None:
    assert draws(cells_of_text(TEXT)) == [] != draws(cells_of_text(TEXT.replace("1 + 1", line)))


def test_a_solution_that_prints_is_seen() -> None:
    notebook = notebook_of(TEXT)
    solution = next(cell for cell in notebook["cells"] if "solution" in cell["metadata"].get("tags", []))
    assert spoilt(notebook) == []
    solution["outputs"] = [{**STREAM, "text": "42"}]
    assert spoilt(notebook)


def picture(shade: int, width: int = 80, at: int = 0) -> str:
    from PIL import Image

    image = Image.new("RGB", (width, 80), "white")
    image.paste((shade, 0, 0), (at, 20, at + 40, 60))
    file = io.BytesIO()
    image.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_another_output_is_seen_and_one_that_varies_is_not() -> None:
    was, now = notebook_of(TEXT), notebook_of(TEXT)
    was["cells"][2]["outputs"] = [{**STREAM, "text": "1"}, {**STREAM, "text": ["2\n"]}]
    now["cells"][2]["outputs"] = [{**STREAM, "text": "12\n"}]
    assert differences(was, now) == []  # Jupyter cuts a stream where it likes
    now["cells"][2]["outputs"] = [{**STREAM, "text": "13\n"}]
    assert "12" in differences(was, now)[0]
    now["cells"][2]["outputs"] = []
    assert differences(was, now)
    now["cells"][2]["outputs"] = was["cells"][2]["outputs"]
    now["cells"][1]["outputs"] = [{**STREAM, "text": "8 threads"}]
    assert differences(was, now) == []


def test_pictures_are_compared_from_three_steps_away() -> None:
    first, darker, wider, moved, nudged = (
        base64.b64decode(picture(*arguments)) for arguments in ((200,), (90,), (200, 90), (200, 80, 20), (202,))
    )
    assert unlike(first, first) == [] == unlike(first, nudged)
    for other in (darker, wider, moved):
        assert unlike(first, other)


def test_pictures_are_kept_in_256_colours_if_that_is_smaller() -> None:
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3))
    photo = np.clip(np.indices((120, 160)).sum(axis=0)[..., None] // 2 + [20, 40, 60] + noise // 8, 0, 255)
    for values, fewer in ((photo, True), (noise * [1, 0, 0] // 255 * 255, False)):
        file = io.BytesIO()
        Image.fromarray(values.astype(np.uint8)).save(file, format="PNG", optimize=True)
        before = base64.b64encode(file.getvalue()).decode()
        cell = {"cell_type": "code", "outputs": [{"data": {"image/png": before}}, {"name": "stdout", "text": "1"}]}
        after = notebooks.smaller({"cells": [{"cell_type": "markdown"}, cell]})["cells"][1]["outputs"][0]["data"]
        assert len(after["image/png"]) < 0.6 * len(before) if fewer else len(after["image/png"]) <= len(before)
        assert not unlike(base64.b64decode(before), base64.b64decode(after["image/png"]))


def test_notebooks_run_without_data_and_draw_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MINIFCN_DATA", "MPLBACKEND"):
        monkeypatch.setenv(name, "here")
    assert not {"MINIFCN_DATA", "MPLBACKEND"} & set(notebooks.environment())
    assert notebooks.environment()["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT)


def test_a_number_that_is_no_notebook_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert notebooks.main(["77"]) == 2 and "77" in capsys.readouterr().err
