"""What stands around the package and must not drift from it: the Makefile, the citation, the guide to contributing."""

import pathlib
import re
import shutil
import subprocess
import tomllib

import numpy as np
import pytest

import minifcn
from minifcn import tensor
from minifcn.backend import Array, xp_of
from minifcn.gradcheck import gradcheck

ROOT = pathlib.Path(__file__).parent.parent.parent

# A Python that answers the Makefile's two questions, "new enough?" and "is venv there?", with an exit code.
PYTHON = """#!/bin/sh
case "$1 $2" in
  --version*) echo Python 3.10.2;;
  *version_info*) exit {old};;
  *ensurepip*) exit {without_venv};;
esac
"""


@pytest.mark.parametrize(
    ("old", "without_venv", "advice"),
    [
        (1, 0, r"is Python 3.10.2, and minifcn needs Python 3.11.4 or later. .*PYTHON=python3"),
        (0, 1, r"-m venv' is missing. Install it: sudo apt install python3-venv"),
        (None, 0, r"is not found. Install Python 3.11.4 or later"),
    ],
)
def test_make_says_what_to_install(old: int | None, without_venv: int, advice: str, tmp_path: pathlib.Path) -> None:
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    python = tmp_path / "python"
    if old is not None:
        python.write_text(PYTHON.format(old=old, without_venv=without_venv))
        python.chmod(0o755)
    done = subprocess.run(
        ["make", "train", f"PYTHON={python}", f"VENV={tmp_path}/venv"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and re.search(f"^minifcn: .*{advice}", done.stderr, re.MULTILINE), done.stderr
    assert not (tmp_path / "venv").exists()


def test_the_papers_carry_the_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {minifcn.__version__}\n" in citation
    changelog = (ROOT / "docs" / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changelog, re.MULTILINE)[0] == minifcn.__version__


def test_the_example_of_the_contributors_guide_is_an_op(monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (ROOT / "docs" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    monkeypatch.setattr(tensor, "OPS", {})
    names = {"op": tensor.op, "Array": Array, "ValueAndGradients": tensor.ValueAndGradients, "xp_of": xp_of}
    exec(block, names)  # noqa: S102  our own page
    assert list(tensor.OPS) == ["square"]
    assert gradcheck(names["square"], np.linspace(-2, 2, 6).reshape(2, 3)) <= 1e-6


def test_uv_and_pip_install_the_same_tools() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = pyproject["project"]["optional-dependencies"]
    assert pyproject["dependency-groups"]["dev"] == extras["test"] + extras["lint"]


def test_a_commit_is_checked_as_make_lint_checks_it() -> None:
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert recipe
    hooks = {"ruff check .": "ruff-check", "ruff format --check .": "ruff-format", "mypy": "mypy"}
    assert re.findall(r"-m (.*)", recipe[1]) == list(hooks)
    for file, wanted in (
        (".pre-commit-config.yaml", set(hooks.values())),
        (".github/workflows/ci.yml", {"bash .ci/run"}),
    ):
        found = re.findall(r"- (?:id|run): (.*)", (ROOT / file).read_text(encoding="utf-8"))
        assert wanted <= set(found), file
