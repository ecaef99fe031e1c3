"""Run folders against what happens to them: kills, full disks, damaged checkpoints, a second process."""

import errno
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoint_cases import LARGE, META, SMALL, disk_almost_full, fail, refused, same

from minifcn.errors import FormatError, UsageError
from minifcn.formats import checkpoint
from minifcn.formats.checkpoint import load_checkpoint, read_meta
from minifcn.training.run_folder import RunFolder, best_path, load_best, load_latest, step_path

# ---------------------------------------------------------------------------------------- rows 1, 2: dying while saving

# Saves in a loop and is killed after a moment, again and again; counts what is then in the folder. It forks the process
# that saves, so that each of the kills costs milliseconds and not the start of an interpreter.
KILLS = """
import json, os, random, signal, sys, time
import numpy as np
from minifcn.errors import FormatError
from minifcn.training import run_folder

folder, way, kills = sys.argv[1], sys.argv[2], int(sys.argv[3])

def write_in_place(path, pieces):
    with open(path, "wb") as file:
        for piece in pieces:
            for start in range(0, len(piece), 4096):
                file.write(piece[start : start + 4096])

def save_forever(ready):
    if way == "in place":
        run_folder.replace_file = write_in_place
    with run_folder.RunFolder(folder) as run:
        os.write(ready, b"!")
        latest = run.latest()
        step = latest.meta["step"] if latest else 0
        while True:
            step += 1
            run.save(step, {"w": np.full(50_000, step, np.float32)}, {"step": step})

def look():
    try:
        latest = run_folder.load_latest(folder)
    except FormatError:
        return "damaged"
    if latest is None:
        return "none"
    if latest.skipped:
        return "damaged"
    return "good" if (latest.tensors["w"] == latest.meta["step"]).all() else "mixed"

seen = {"good": 0, "damaged": 0, "mixed": 0, "none": 0}
delays = random.Random(0)
run_folder.RunFolder(folder).save(0, {"w": np.zeros(50_000, np.float32)}, {"step": 0})
for _ in range(kills):
    came, ready = os.pipe()
    child = os.fork()
    if child == 0:
        save_forever(ready)
    os.read(came, 1)
    time.sleep(delays.uniform(0.0, 0.02))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(came), os.close(ready)
    seen[look()] += 1
    if way == "in place" and seen["damaged"]:
        break
print(json.dumps(seen))
"""


def kills(folder: Path, way: str, count: int) -> dict[str, int]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    arguments = [sys.executable, "-c", KILLS, str(folder), way, str(count)]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_no_kill_leaves_an_unreadable_checkpoint(tmp_path: Path) -> None:
    """Row 1. Every child goes on from what the one before it left."""
    assert kills(tmp_path / "run", "safely", 50) == {"good": 50, "damaged": 0, "mixed": 0, "none": 0}


def test_the_same_kills_do_damage_a_file_written_in_place(tmp_path: Path) -> None:
    """Without this, the test above could pass because no kill ever hit a write."""
    assert kills(tmp_path / "run", "in place", 400)["damaged"] == 1


def test_a_full_disk_leaves_every_checkpoint_of_the_run(tmp_path: Path) -> None:
    """Row 2."""
    with RunFolder(tmp_path / "run") as run:
        for step in (1, 2):
            run.save(step, SMALL, META, best=step == 1)
        with disk_almost_full():
            message = refused(UsageError, run.save, 3, LARGE, {}, best=True)
        assert str(step_path(run.path, 3)) in message
        assert sorted(os.listdir(tmp_path / "run/checkpoints")) == [
            best_path("").name,
            step_path("", 1).name,
            step_path("", 2).name,
        ]
        latest = run.latest()
        assert latest and latest.path == step_path(run.path, 2) and not latest.skipped


def test_what_a_killed_process_left_unfinished_is_ignored_and_removed(tmp_path: Path) -> None:
    """Row 3."""
    with RunFolder(tmp_path / "run") as run:
        run.save(1, SMALL, META)
        stale = step_path(run.path, 2).with_name(step_path(run.path, 2).name + ".tmp")
        stale.write_bytes(b"half of it")
        latest = run.latest()
        assert latest and latest.path == step_path(run.path, 1) and not latest.skipped
        run.save(3, SMALL, META)
        assert not stale.exists()
        stale.write_bytes(b"half of it")
    with RunFolder(tmp_path / "run"):
        assert not stale.exists()


# ------------------------------------------------------------------------------- row 6: falling back to an earlier one


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_the_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        assert run.latest() is None
        for step in (5, 10, 99_999_999, 100_000_000):
            assert run.save(step, SMALL, {"step": step}, best=step == 5) == step_path(run.path, step)
    kept = {path.name for path in (tmp_path / "run/checkpoints").iterdir()}
    assert kept == {"best.safetensors", "step-99999999.safetensors", "step-100000000.safetensors"}
    latest, best = load_latest(tmp_path / "run"), load_best(tmp_path / "run")
    assert latest and latest.meta["step"] == 100_000_000
    assert best and best.meta["step"] == 5 and best.path == best_path(tmp_path / "run")


def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path: Path) -> None:
    """Row 6."""
    said: list[str] = []
    with RunFolder(tmp_path / "run", say=said.append) as run:
        for step in (1, 2, 3):
            run.save(step, SMALL, {"step": step}, best=step == 1)
        for damaged, left in ((3, 2), (2, 1)):
            damage(step_path(run.path, damaged))
            said.clear()
            latest = run.latest()
            assert latest and latest.meta["step"] == left and same(latest.tensors, SMALL)
            assert len(said) == 1 and step_path(run.path, 3).name in said[0] and f"from {latest.path.name}" in said[0]
            assert len(latest.skipped) == 4 - damaged and str(step_path(run.path, damaged)) in latest.skipped[-1]
        damage(best_path(run.path))
        assert "none of the 3 here is good" in refused(FormatError, run.latest)


def test_the_best_falls_back_to_the_latest(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        for step in (1, 2):
            run.save(step, SMALL, {"step": step}, best=True)
    damage(best_path(tmp_path / "run"))
    said: list[str] = []
    best = load_best(tmp_path / "run", say=said.append)
    assert best and best.path == step_path(tmp_path / "run", 2) and len(said) == 1


def test_going_back_leaves_the_abandoned_steps_behind(tmp_path: Path) -> None:
    """Step 300 is damaged; the run goes on from 200 and must neither lose 200 at 250 nor find 300 again."""
    with RunFolder(tmp_path / "run") as run:
        for step in (200, 300):
            run.save(step, SMALL, {"step": step})
        damage(step_path(run.path, 300))
        assert run.latest().meta["step"] == 200  # type: ignore[union-attr]
        run.save(250, SMALL, {"step": 250})
        assert sorted(os.listdir(run.path / "checkpoints")) == [step_path("", 200).name, step_path("", 250).name]


# ------------------------------------------------------------------------------------------- row 10: a newer format


@pytest.fixture
def newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = step_path(tmp_path / "run", 2)
    with RunFolder(tmp_path / "run") as run:
        run.save(1, SMALL, META)
        monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 2)
        run.save(2, SMALL, META)
        monkeypatch.undo()
    return path


def test_a_newer_format_is_refused_with_its_version(newer: Path) -> None:
    """Row 10. Falling back instead would end in deleting what the newer minifcn wrote."""
    for read in (load_checkpoint, read_meta):
        message = refused(FormatError, read, newer)
        assert str(newer) in message and "format version: found 2, expected 1" in message and "update" in message
    assert "found 2" in refused(FormatError, load_latest, newer.parents[1])


def test_a_newer_format_that_is_damaged_too_is_a_damaged_one(newer: Path) -> None:
    damage(newer)
    said: list[str] = []
    latest = load_latest(newer.parents[1], say=said.append)
    assert latest and latest.path == step_path(newer.parents[1], 1)
    assert "damaged" in said[0] and "format version: found 2" in said[0]


# --------------------------------------------------------------------------------------------------- row 11: the lock

HOLD = """
import sys, time
from minifcn.training.run_folder import RunFolder
with RunFolder(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_a_killed_one_is_succeeded(tmp_path: Path) -> None:
    """Row 11."""
    folder, said = tmp_path / "run", []
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout and other.stdout.readline() == "held\n"
            message = refused(UsageError, RunFolder, folder)
            assert re.search(rf"{re.escape(str(folder))}.*in use by process {other.pid}, started \d{{4}}-", message)
        finally:
            other.kill()
    with RunFolder(folder, say=said.append) as run:
        assert len(said) == 1 and f"process {other.pid}" in said[0] and "taken over" in said[0]
        assert f"process {os.getpid()}" in refused(UsageError, RunFolder, folder)
        run.save(1, SMALL, META)  # the refused one has not spoilt the lock of this one
        assert f"process {os.getpid()}" in refused(UsageError, RunFolder, folder)
    with RunFolder(folder, say=said.append):
        assert len(said) == 1  # a run that ended in order leaves nothing to take over


def test_the_lock_file_of_somebody_else_is_only_text(tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(b"\xff\x1b[2J\nrm -rf" * 1000)
    said: list[str] = []
    with RunFolder(tmp_path, say=said.append):
        assert said[0].isprintable() and len(said[0]) < 500


def test_a_failed_start_gives_the_lock_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr(os, "replace", fail)
        refused(UsageError, RunFolder, tmp_path / "run")
    RunFolder(tmp_path / "run").close()


def test_a_system_without_flock_says_that_it_does_not_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    said: list[str] = []
    with RunFolder(tmp_path / "run", say=said.append) as run:
        run.save(1, SMALL, META)
    assert len(said) == 1 and "no flock" in said[0]


# ------------------------------------------------------------------------------ row 12: known before the first step


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of a user who is not root, and who we are meanwhile: root may write anywhere."""
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    except OSError as error:
        pytest.skip(f"runs as root and cannot be another user: {error}")
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("read_only", ["run", "run/checkpoints"])
def test_a_folder_that_cannot_be_written_is_known_at_once(unprivileged: Path, read_only: str) -> None:
    """Row 12."""
    run = unprivileged / "run"
    (run / "checkpoints").mkdir(parents=True)
    (unprivileged / read_only).chmod(0o555)
    message = refused(UsageError, RunFolder, run)
    assert str(run) in message and os.strerror(errno.EACCES) in message and "choose a folder" in message
    (unprivileged / read_only).chmod(0o755)
    RunFolder(run).close()


def test_a_folder_that_is_missing_or_no_folder_is_known_at_once(tmp_path: Path) -> None:
    """Row 12."""
    assert "no such folder" in refused(UsageError, RunFolder, tmp_path / "gone", create=False)
    (tmp_path / "file").write_text("a file")
    assert str(tmp_path / "file/run") in refused(UsageError, RunFolder, tmp_path / "file/run")
    assert str(tmp_path / "file") in refused(UsageError, RunFolder, tmp_path / "file")
    RunFolder(tmp_path / "new" / "run").close()
    RunFolder(tmp_path / "new" / "run", create=False).close()


def test_a_full_disk_is_known_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", fail)
    assert os.strerror(errno.ENOSPC) in refused(UsageError, RunFolder, tmp_path / "run")


def test_a_folder_that_vanishes_under_the_run_is_one_sentence(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        message = refused(UsageError, run.save, 1, SMALL, META)
        assert str(step_path(run.path, 1)) in message and os.strerror(errno.ENOENT) in message


def test_what_cannot_be_removed_is_one_sentence(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        (tmp_path / "run/checkpoints/odd.tmp").mkdir()
        assert str(step_path(run.path, 1)) in refused(UsageError, run.save, 1, SMALL, META)
    assert str(tmp_path / "run") in refused(UsageError, RunFolder, tmp_path / "run")
