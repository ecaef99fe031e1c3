"""The README promises: its code runs, its list of files is complete and in order, its links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

from test_floors import FLOOR, order_of, sources

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
    assert "return crop(score, like=image, at=0)" in printed and "softmax_cross_entropy" in printed


def test_it_lists_every_file_once_and_in_order() -> None:
    listed = re.findall(r"^\| `minifcn/(\S+)` \|", TEXT, re.MULTILINE)
    files = sources()
    assert sorted(listed) == sorted(name for name in files if not name.endswith("__init__.py"))

    def place(name: str) -> tuple[int, int]:
        root, *rest = name.removesuffix(".py").split("/")
        order = order_of(root, files)
        return FLOOR[root], order.index(rest[0]) if rest and rest[0] in order else len(order)

    assert [place(name)[0] for name in listed] == sorted(place(name)[0] for name in listed)
    for package in ("kernels", "ops", "models", "data"):
        inside = [place(name)[1] for name in listed if name.startswith(f"{package}/")]
        assert inside == sorted(inside), package


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
