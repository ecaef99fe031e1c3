"""Row 42: the GPU runs out of memory. One line with the request and the pool, a clean end, the checkpoint intact."""

import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minifcn import ops
from minifcn.cli.command import guard
from minifcn.cli.train import main as train
from minifcn.formats.checkpoint import load_checkpoint

SMALL = (
    "--recipe toy --max-train 8 --max-val 2 --epochs 2 --batch 4 --width 1 --threads 1 --samples 0 --device cpu".split()
)


class Pool:
    """CuPy's memory pool, as far as it is asked."""

    freed = 0

    def used_bytes(self) -> int:
        return 3 << 20

    def total_bytes(self) -> int:
        return 5 << 20

    def free_all_blocks(self) -> None:
        self.freed += 1


class OutOfMemoryError(MemoryError):
    """CuPy's own, by its message and its module."""

    __module__ = "cupy.cuda.memory"

    def __str__(self) -> str:
        return "Out of memory allocating 1,024 bytes (allocated so far: 512 bytes)."


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    pool = Pool()
    fake = types.SimpleNamespace(get_default_memory_pool=lambda: pool, ndarray=())
    monkeypatch.setitem(sys.modules, "cupy", fake)  # type: ignore[arg-type]
    return pool


@pytest.mark.usefixtures("undrawn")
def test_training_ends_in_one_line_and_keeps_its_checkpoint(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert guard(train, [*SMALL, "--run", str(run), "--stop-after", "2"]) == 0
    before = max((run / "checkpoints").glob("step-*"))
    content = before.read_bytes()
    capsys.readouterr()

    def full(*args: Any, **options: Any) -> Any:
        raise OutOfMemoryError

    monkeypatch.setattr(ops.conv, "correlate", full)  # inside conv2d, which is then the op that asked
    assert guard(train, ["--resume", str(run), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1] == (
        "minifcn: out of memory in conv2d: Out of memory allocating 1,024 bytes (allocated so far: 512 bytes); "
        "CuPy's pool held 5 MiB, 3 MiB of them in use; a smaller --batch, --crop or --width needs less"
    )
    assert pool.freed == 1
    assert before.read_bytes() == content and load_checkpoint(before)[1]["progress"]["step"] == 2
    monkeypatch.undo()
    assert guard(train, ["--resume", str(run)]) == 0


def test_main_memory_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: list[str]) -> int:
        raise MemoryError("Unable to allocate 8.00 TiB")

    assert guard(main, []) == 2
    assert capsys.readouterr().err == (
        "minifcn: out of memory: Unable to allocate 8.00 TiB; a smaller --batch, --crop or --width needs less\n"
    )


@pytest.mark.gpu
def test_a_real_card_with_a_limit(gpu_reason: str, tmp_path: Path) -> None:
    if gpu_reason:
        pytest.skip(f"no GPU: {gpu_reason}")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "minifcn.cli.train",
            *SMALL[:-2],
            "--device",
            "gpu",
            "--width",
            "64",
            "--run",
            tmp_path / "run",
        ],
        env=os.environ | {"CUPY_GPU_MEMORY_LIMIT": str(64 << 20)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("minifcn: out of memory in ")
    assert np.char.find(done.stderr, "CuPy's pool held") > 0
