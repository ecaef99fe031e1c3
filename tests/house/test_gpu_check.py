"""The script for a lent card, on the strict device: what it measures there says nothing, but every part runs."""

import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import gpu_check
import numpy as np
import pytest
from fake_device import FakeCupy
from some_slow import slow_but

from minifcn.cli.bench import main as bench
from minifcn.cli.command import guard

INSIDE = [name for name in gpu_check.PARTS if name != "suite"]  # which is a pytest of its own


@pytest.fixture
def quick(fused_gpu: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> FakeCupy:
    monkeypatch.setattr(gpu_check, "LAUNCHES", 3)
    monkeypatch.setattr(gpu_check, "WORKSPACES", (32,))
    monkeypatch.setitem(gpu_check.SMALL, "megabytes", 1)
    return fused_gpu


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", slow_but(set(INSIDE) - {"workspaces", "training"}, INSIDE, "several runs"))
def test_a_part_runs(name: str) -> None:
    found = list(gpu_check.rows([name], gpu_check.SMALL))
    assert found and not [row for row in found if row[1].startswith("FAILED")], found


@pytest.mark.usefixtures("quick")
def test_what_is_wrong_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, calls = gpu_check.three_steps, []

    def drifting(device: str, side: int) -> dict[str, np.ndarray]:
        calls.append(device)
        return {name: value + 1e-3 * len(calls) for name, value in steps(device, side).items()}

    monkeypatch.setattr(gpu_check, "three_steps", drifting)
    (row,) = gpu_check.rows(["parity"], gpu_check.SMALL)
    assert row[0] == "parity" and row[1].startswith("FAILED: three steps are")
    monkeypatch.setattr(gpu_check, "CLOSE", 10)
    *_, row = gpu_check.rows(["parity"], gpu_check.SMALL)
    assert row[1] == "FAILED: three steps twice on the GPU are not the same bits"


def test_what_is_not_reached_says_so() -> None:
    assert list(gpu_check.rows(["suite", "rates"], gpu_check.SMALL, seconds=-1)) == [
        ("suite", "not reached in time"),
        ("rates", "not reached in time"),
    ]


def test_a_part_is_stopped_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here, and in a program that it waits for."""

    def here(sizes: dict[str, Any]) -> Iterator[gpu_check.Row]:
        yield "before", "kept"
        time.sleep(60)

    def outside(sizes: dict[str, Any]) -> Iterator[gpu_check.Row]:
        subprocess.run([sys.executable, "-c", "import time; time.sleep(60)"], check=True)
        yield "after", "never"

    began = time.monotonic()
    for part in (here, outside):
        monkeypatch.setitem(gpu_check.PARTS, "rates", part)
        *kept, last, left = gpu_check.rows(["rates", "suite"], gpu_check.SMALL, seconds=0.3)
        assert kept == ([("before", "kept")] if part is here else [])
        assert last == ("rates", "stopped after 0 s, when the time was over")
        assert left == ("suite", "not reached in time")
    assert time.monotonic() - began < 30


@pytest.mark.usefixtures("quick")
def test_the_table_goes_between_its_markers(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{gpu_check.BEGIN}old\n{gpu_check.END}after\n", encoding="utf-8")
    monkeypatch.setattr(gpu_check, "PAGE", page)
    assert gpu_check.main(["--small", "--only=rates"]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{gpu_check.BEGIN}Measured by") and text.endswith(f"|\n{gpu_check.END}after\n")
    assert "| 3-D, transposed product of 32 x 32 | " in text and "old" not in text
    assert "GFLOP/s" in capsys.readouterr().out


def test_the_page_has_the_markers() -> None:
    assert gpu_check.written(gpu_check.PAGE.read_text(encoding="utf-8"), "new\n").count("new\n") >= 1


@pytest.mark.usefixtures("quick")
def test_the_benchmark_runs_there(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["nets", "--device=gpu", "--size=32", "--width=1", "--padding=same", "--runs=1", "--no-torch"]
    assert bench(words) == 0
    *_, forward, step = capsys.readouterr().out.splitlines()
    assert forward.split()[0] == "forward" and float(step.split()[1]) > 0


def test_only_one_net_is_measured_there(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["layers", "--device=gpu"], ["nets", "--net=all", "--device=gpu"]):
        assert guard(bench, words) == 2
        assert "only `bench nets` of one net can be measured there" in capsys.readouterr().err
