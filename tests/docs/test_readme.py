"""The README promises: its code runs, its list of files is complete and in order, its links lead somewhere."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import reading_order
from PIL import Image
from test_floors import COURSE, FLOOR, ROOMS, order_of, sources

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_its_code_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks("python"))],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout
    losses = [float(loss) for _, loss in re.findall(r"^(\d+) ([\d.]+)$", printed, re.MULTILINE)]
    assert len(losses) == 30 and losses[-1] < 0.6 * losses[0]
    assert all(later < earlier for earlier, later in itertools.pairwise(losses))
    assert "return crop(score, like=image, at=0)" in printed and "softmax_cross_entropy" in printed


def test_it_can_be_read_in_one_go_and_shows_every_room() -> None:
    assert TEXT.count("\n") <= 120
    shown = set(re.findall(r"`(\w+)/`", TEXT))
    assert shown == set(ROOMS)


def test_ten_files_to_begin_with() -> None:
    named = re.findall(r"^\d+\. \[(\S+)\]\(minifcn/(\S+)\)", TEXT, re.MULTILINE)
    assert len(named) == 10 and all(shown == file for shown, file in named)


def test_the_reading_order_lists_every_file_once_and_in_order() -> None:
    """The page is what its script writes, and each file stands below whatever it imports."""
    files = sources()
    written = (ROOT / "docs" / "reading-order.md").read_text(encoding="utf-8")
    assert written == reading_order.page(files), "run python docs/reading_order.py"
    listed = re.findall(r"^- `(\S+\.py)`: \S", written, re.MULTILINE)
    assert sorted(listed) == sorted(name for name in files if "/" not in name or not name.endswith("__init__.py"))

    def place(name: str) -> tuple[int, ...]:
        *rooms, last = name.removesuffix(".py").split("/")
        steps = ["/".join(rooms[: i + 1]) for i in range(len(rooms))]
        inner = [order_of(room, files).index(child) for room, child in zip(steps, [*rooms[1:], last], strict=False)]
        return (FLOOR[(rooms or [last])[0]], *inner)

    course = [name for name in listed if name.split("/")[0].removesuffix(".py") in (*COURSE, "kernels", "ops")]
    rest = [name for name in listed if name not in course and name != "__init__.py"]
    assert listed[: len(course)] == course and course and rest
    for part in (course, rest):
        floors = [place(name)[0] for name in part]
        assert floors == sorted(floors)
    for room in ROOMS:
        inside = [place(name) for name in listed if name.startswith(f"{room}/")]
        assert inside and inside == sorted(inside), room


def test_its_links_and_pictures_are_there() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert targets and all((ROOT / target).is_file() for target in targets), targets


def test_its_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in re.findall(r"\bmake (\w+)", " ".join(blocks("sh"))):
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), command
    from minifcn.cli.verbs import VERBS

    for verb in re.findall(r"bin/minifcn (\w+)", TEXT):
        assert verb in VERBS


def test_one_click_leads_to_a_convolution_that_moves() -> None:
    """From the README to a page whose first picture is a film."""
    assert "](docs/explorables.md)" in TEXT
    page = ROOT / "docs" / "explorables.md"
    first, *_ = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    with Image.open(page.parent / first) as film:
        assert film.n_frames > 20 and film.info["loop"] == 0
