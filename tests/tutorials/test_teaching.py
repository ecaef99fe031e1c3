"""What teachers get: a release without solutions, slides, grades, and the page of wrong answers."""

import json
import pathlib
import re
import subprocess
import sys

import pytest
from ci_groups import GROUPS

from minifcn.cli.verbs import main
from minifcn.experiments import grading

ROOT = pathlib.Path(__file__).parent.parent.parent
TEACHING = ROOT / "tutorials" / "teaching"
REASON = GROUPS["tutorials"]()
sys.path.insert(0, str(TEACHING))
import mistakes  # noqa: E402
import release  # noqa: E402


def notebook(*sources: str) -> str:
    cells = [{"cell_type": "code", "metadata": {}, "outputs": [], "source": source} for source in sources]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


# ---- release -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    target = tmp_path_factory.mktemp("teaching") / "release"
    release.main(target)
    return target


def test_a_release_holds_no_solution(released: pathlib.Path) -> None:
    assert not list(released.rglob("solutions")) and not list(released.rglob("teaching"))
    names = {path.name for path in released.glob("*.ipynb")}
    assert names == {path.name for path in (ROOT / "tutorials").glob("[0-9]*.ipynb")}
    removed = 0
    for path in released.glob("*.ipynb"):
        kept = json.loads(path.read_text(encoding="utf-8"))["cells"]
        whole = json.loads((ROOT / "tutorials" / path.name).read_text(encoding="utf-8"))["cells"]
        removed += len(whole) - len(kept)
        assert not any(release.is_solution(cell) for cell in kept)
        assert not any(".accepts(" in "".join(cell["source"]) for cell in kept)
        assert not any("solutions import" in "".join(cell["source"]) for cell in kept), "a release has no such folder"
    assert removed > 40


def test_each_notebook_has_a_deck_with_its_pictures(released: pathlib.Path) -> None:
    decks = sorted((released / "slides").glob("*.md"))
    assert len(decks) == len(list((ROOT / "tutorials").glob("[0-9]*.ipynb")))
    for path in decks:
        text = path.read_text(encoding="utf-8")
        pictures = re.findall(r"!\[\]\(([^)]+)\)", text)
        assert pictures and all((released / "slides" / name).is_file() for name in pictures)
        assert text.startswith("---\nmarp: true") and text.count("\n---\n") > 5
        assert "Exercise" not in text and "quiz" not in text.lower() and ".accepts(" not in text
        for slide in text.split("\n---\n")[1:]:
            heading, _, body = slide.strip().partition("\n\n")
            assert re.fullmatch("##? .+", heading) and body and body.count("![](") <= 1, slide


def test_a_release_replaces_only_a_release(released: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit, match="is not empty and no release"):
        release.main(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    (released / "old.txt").write_text("from an earlier release")
    release.main(released)
    assert not (released / "old.txt").exists()


def test_the_syllabus_names_each_notebook_once_and_its_minutes() -> None:
    course = (ROOT / "docs" / "course.md").read_text(encoding="utf-8")
    minutes = {found[1]: int(found[2]) for found in re.finditer(r"^\| \[(\d\d)\].*\| (\d+) \|$", course, re.MULTILINE)}
    assert sorted(minutes) == sorted(path.name[:2] for path in (ROOT / "tutorials").glob("[0-9]*.py"))
    text = (TEACHING / "README.md").read_text(encoding="utf-8")
    weeks = [line.strip("|").split("|") for line in text.splitlines() if re.match(r"\| \d: ", line)]
    named = [re.findall(r"\b\d\d\b", week[1] + week[2]) for week in weeks]
    assert len(weeks) == 4 and sorted(name for week in named for name in week) == sorted(minutes)
    for week, notebooks in zip(weeks, named, strict=True):
        assert int(week[3]) == sum(minutes[notebook] for notebook in notebooks)
        assert set(re.findall(r"\b\d\d\b", week[4])) <= set(notebooks)


def test_the_page_of_wrong_answers_is_that_of_the_checkers() -> None:
    code = "import mistakes, sys; sys.stdout.reconfigure(encoding='utf-8'); print(mistakes.page(), end='')"
    made = subprocess.run([sys.executable, "-c", code], cwd=TEACHING, capture_output=True, encoding="utf-8", check=True)
    assert made.stdout == mistakes.TARGET.read_text(encoding="utf-8")
    assert made.stdout.count("\n| `") > 150


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("One. Two.", "One."),
        ("It is 0.5 wide, e.g.\nhere. More.", "It is 0.5 wide, e.g."),
        ("* a list\n\nA line without an end", "A line without an end"),
        ("", ""),
    ],
)
def test_first_sentence(text: str, sentence: str) -> None:
    assert release.first_sentence(text) == sentence


# ---- grade -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(bool(REASON), reason=REASON or "-")
@pytest.mark.slow("starts a kernel")
def test_grade_says_which_exercises_are_solved(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "mine.ipynb", tmp_path / "grades.json"
    path.write_text(
        notebook(
            "from exercises import n01",
            "n01.check_remembered({'b', 'relu'})",
            "1 / 0",  # which does not stop the cells after it
            "n01.check_calls(lambda depth: (2 ** depth, 2 * depth))",
            "print('right: no checker said this')",
            "n01.check_quiz('aaa'); n01.check_quiz('bba')",  # the last answer counts
        )
    )
    assert main(["grade", str(path), "--json", str(out)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("sigmoid") and "not reached" in lines[0]
    assert "2 of 4 solved" in lines
    record = json.loads(out.read_text())
    assert {one["exercise"]: one["passed"] for one in record["exercises"]} == {
        "sigmoid": False,
        "calls": False,
        "remembered": True,
        "quiz": True,
    }
    assert record["solved"] == 2 and record["exercises"][1]["said"].startswith("not right: 4 calls are not those")


@pytest.mark.skipif(bool(REASON), reason=REASON or "-")
@pytest.mark.slow("starts two kernels, and waits for one that does not end")
def test_grade_survives_what_students_write(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "mine.ipynb"
    solved = "from exercises import n01\nn01.check_quiz('bba')"
    path.write_text(notebook(solved, "while True: pass", "n01.check_remembered({'b', 'relu'})"))
    passed = {one.exercise: one.passed for one in grading.grade(path, seconds=3)}
    assert passed["quiz"] and set(passed) == {"sigmoid", "calls", "remembered", "quiz"}
    path.write_text(notebook(solved, "import os; os._exit(1)", "n01.check_remembered({'b', 'relu'})"))
    passed = {one.exercise: one.passed for one in grading.grade(path, seconds=60)}
    assert passed == {"sigmoid": False, "calls": False, "remembered": False, "quiz": True}


@pytest.mark.skipif(bool(REASON), reason=REASON or "-")
@pytest.mark.slow("starts two kernels, and waits for a cell that catches every interrupt")
def test_grade_ends_whatever_a_cell_does(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    path, left = tmp_path / "mine.ipynb", tmp_path / "left.txt"
    monkeypatch.setattr(grading, "STOP", 1)
    monkeypatch.setattr(grading, "FILE", 1 << 20)
    path.write_text(
        notebook(
            "from exercises import n01; n01.check_quiz('bba')",
            "import os; open(os.environ['MINIFCN_VERDICTS'], 'ab').write(b'no verdict\\n[]\\n{}\\n\\xff\\n')",
            "print('\ud800', flush=True)  # half a letter",
            "open('large', 'wb').write(bytes(2 << 20))",
            "import subprocess; other = subprocess.Popen(['sleep', '60'])",
            f"open({str(left)!r}, 'w').write(f'{{other.pid}} {{os.path.getsize(\"large\")}}')",
            "n01.check_remembered({'b', 'relu'})",
            "import time\nwhile True:\n    try: time.sleep(9)\n    except BaseException: pass",
            "n01.check_calls(lambda depth: (2 ** (depth + 1) - 2, 2 * depth))",
        )
    )
    passed = {one.exercise: one.passed for one in grading.grade(path, seconds=5)}
    assert passed == {"sigmoid": False, "calls": False, "remembered": True, "quiz": True}
    process, size = left.read_text().split()
    assert int(size) <= grading.FILE
    status = pathlib.Path("/proc", process, "stat")
    assert not status.exists() or status.read_text().split()[2] == "Z"  # ended, if not yet buried
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ('{"cells": 3}', "has no list of cells"),
        (notebook("print(1)"), "imports no checkers"),
        (notebook("from exercises import n77"), "n77.py: does not exist; expected the checkers of mine.ipynb"),
    ],
)
def test_what_is_no_notebook_of_the_course_is_refused(tmp_path: pathlib.Path, capsys, content, said) -> None:
    path = tmp_path / "mine.ipynb"
    if content is not None:
        path.write_text(content)
    assert main(["grade", str(path)]) == 2
    shown = capsys.readouterr().err
    assert said in shown and shown.count("\n") == 1


def test_json_goes_into_a_folder_that_is_there(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    for target in (tmp_path, tmp_path / "none" / "grades.json"):
        assert main(["grade", str(tmp_path / "mine.ipynb"), "--json", str(target)]) == 2
        assert "cannot be written" in capsys.readouterr().err


def test_the_limits_are_those_of_the_process_alone() -> None:
    resource = pytest.importorskip("resource")
    kinds = [resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC]
    before = [resource.getrlimit(kind) for kind in kinds]
    code = f"import resource; print([resource.getrlimit(kind)[0] for kind in {kinds}])"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, **grading.limits(9)
    )
    seconds, memory, file, processes = json.loads(shown.stdout)
    assert (seconds, memory, file) == (10, grading.MEMORY, grading.FILE)
    assert grading.PROCESSES < processes < 100_000
    assert [resource.getrlimit(kind) for kind in kinds] == before
