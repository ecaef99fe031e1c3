"""The campaign itself: its layer of faults fails where it says, its guards are in the source, and it finds a loss.

A few of its tries run here; `make campaign` runs them all.
"""

import ast
import errno
import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoint_cases import META, SMALL, refused
from faults import FAULTS, Layer
from guards import GUARDS

from minifcn.errors import UsageError
from minifcn.formats.checkpoint import load_checkpoint, save_checkpoint
from minifcn.training.run_folder import RunFolder

ROOT = Path(__file__).parent.parent.parent
SAVE = ["open", "write", "fsync", "rename", "open", "fsync"]


def test_the_layer_counts_every_call_in_its_folder_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    with Layer(tmp_path / "inside") as layer:
        save_checkpoint(tmp_path / "inside/x.safetensors", SMALL, META)
        save_checkpoint(tmp_path / "x.safetensors", SMALL, META)
        (tmp_path / "insider").write_text("another folder")
        (tmp_path / "inside/words").write_text("words")
        (tmp_path / "inside/words").unlink()
    assert layer.calls == [
        *("open x.safetensors.tmp", "write x.safetensors.tmp", "fsync x.safetensors.tmp", "rename x.safetensors"),
        *("open .", "fsync .", "open words", "write words", "unlink words"),
    ]
    assert (tmp_path / "inside/x.safetensors").read_bytes() == (tmp_path / "x.safetensors").read_bytes()


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "kill"])
@pytest.mark.parametrize("at", range(1, len(SAVE) + 1))
def test_a_checkpoint_survives_a_fault_at_any_call(tmp_path: Path, fault: str, at: int) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {}, {"old": True})
    with Layer(tmp_path, at=at, fault=fault) as layer:
        message = refused(UsageError, save_checkpoint, path, SMALL, META)
    assert [call.partition(" ")[0] for call in layer.calls][:at] == SAVE[:at]
    assert str(path) in message and os.strerror(getattr(errno, fault)) in message
    assert load_checkpoint(path)[1] == ({"old": True} if at <= 4 else META)
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_a_disk_may_stay_full(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run, Layer(run.path, at=2, fault="ENOSPC", onward=True) as layer:
        for _ in range(2):
            refused(UsageError, run.save, 1, SMALL, META)
    assert [call for call in layer.calls if call.startswith("open")] == [
        "open checkpoints/step-00000001.safetensors.tmp"
    ] * 2
    assert not any(call.startswith(("fsync", "rename")) for call in layer.calls)


def campaign(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(ROOT / "tests/campaign.py"), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.slow("hundreds of runs, each with a fault")
def test_a_few_calls_of_a_run_each_with_every_fault(tmp_path: Path) -> None:
    done = campaign("--only", "calls", "--part", "23/40")
    assert done.returncode == 0 and "| 0 |" in done.stdout, done.stdout + done.stderr
    assert "SIGKILL, ENOSPC, EIO, EACCES at each call" in done.stdout


@pytest.mark.slow("processes that are killed while they train", first=True)
def test_a_few_kills_of_a_run(tmp_path: Path) -> None:
    done = campaign("--only", "kills,full,warn", "--kills", "5", "--part", "11/20")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow("starts a process for each question")
def test_a_loss_is_found(tmp_path: Path) -> None:
    """A folder that lacks its newest step, its best, or a whole newest checkpoint."""
    words = "import sys; from campaign import Path, left_in; print(left_in(Path(sys.argv[1]), latest=2, best=2))"
    with RunFolder(tmp_path / "run") as run:
        for step in (1, 2):
            run.save(step, SMALL, {"progress": {"step": step}}, best=True)

    def found() -> str:
        argv = [sys.executable, "-c", words, str(tmp_path / "run")]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
        return subprocess.run(argv, capture_output=True, text=True, check=True, env=environment).stdout.strip()

    assert found() == "[]"
    newest, best = run.path / "checkpoints/step-00000002.safetensors", run.path / "checkpoints/best.safetensors"
    newest.rename(tmp_path / "kept")
    assert found() == "['step 2 was saved, 1 is the newest']"
    best.unlink()
    assert "the best, of step 2, is gone" in found()
    newest.write_bytes((tmp_path / "kept").read_bytes()[:-1])
    assert "damaged" in found()


@functools.cache
def functions_of(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


@pytest.mark.parametrize("number", range(len(GUARDS)))
def test_a_guard_is_in_the_source_and_its_test_in_the_suite(number: int) -> None:
    guard = GUARDS[number]
    for file, old, new in guard.edits:
        text = (ROOT / "minifcn" / file).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{file} has {old!r} {text.count(old)} times: change tests/guards.py"
        ast.parse(text.replace(old, new))
    file, _, name = guard.test.partition("::")
    assert not name or name in functions_of(file), guard.test


def test_every_fault_has_a_guard() -> None:
    assert {guard.row for guard in GUARDS} - {0} == set(range(1, 45))
