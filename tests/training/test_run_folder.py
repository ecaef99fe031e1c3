"""Run folders against what happens to them: kills, full disks, damaged checkpoints, a second process."""

import errno
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoint_cases import LARGE, META, SMALL, disk_almost_full, fail, refused, same

from minifcn.errors import FormatError, UsageError
from minifcn.formats import checkpoint
from minifcn.formats.checkpoint import load_checkpoint, read_meta, replace_file, save_checkpoint
from minifcn.training.run_folder import (
    FILES,
    FOLDERS,
    PAGES,
    Followed,
    RunFolder,
    best_path,
    check_unused,
    load_best,
    load_latest,
    step_path,
)
from minifcn.training.runlog import append, records

# ---------------------------------------------------------------------------------------- rows 1, 2: dying while saving

# Saves in a loop and is killed after a moment, again and again; counts what is then in the folder. It forks the process
# that saves, so that each of the kills costs milliseconds and not the start of an interpreter.
KILLS = """
import json, os, random, signal, sys, time
import numpy as np
from minifcn.errors import FormatError
from minifcn.training import run_folder

folder, way, kills = sys.argv[1], sys.argv[2], int(sys.argv[3])

def write_in_place(path, pieces, copy=None):
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


@pytest.mark.parametrize("renamed", [0, 1])
def test_the_step_and_the_best_are_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renamed: int) -> None:
    """Stopped between the two, the best is there and the run goes on from the step before; never the other way."""
    with RunFolder(tmp_path / "run") as run:
        run.save(1, SMALL, {"step": 1}, best=True)
        names = iter([os.replace] * renamed + [fail])
        monkeypatch.setattr(os, "replace", lambda *paths: next(names)(*paths))
        refused(UsageError, run.save, 2, SMALL, {"step": 2}, best=True)
        monkeypatch.undo()
        latest, best = run.latest(), load_best(run.path)
        assert latest and best and latest.meta["step"] == 1 and best.meta["step"] == 1 + renamed
        assert sorted(os.listdir(run.path / "checkpoints")) == [best_path("").name, step_path("", 1).name]


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


def test_steps_that_a_killed_process_had_no_time_to_remove_are_removed_when_the_run_goes_on(tmp_path: Path) -> None:
    """But not by who only looks, and none while a newer one is damaged."""

    def steps() -> list[int]:
        return [step for step in range(1, 9) if step_path(tmp_path, step).exists()]

    for step in (1, 2, 3, 4):
        step_path(tmp_path, step).parent.mkdir(exist_ok=True)
        save_checkpoint(step_path(tmp_path, step), SMALL, {"step": step})
    save_checkpoint(best_path(tmp_path), SMALL, {"step": 1})
    assert load_latest(tmp_path) and Followed(tmp_path).latest() and steps() == [1, 2, 3, 4]
    damage(step_path(tmp_path, 4))
    with RunFolder(tmp_path, create=False) as run:
        assert run.latest().meta == {"step": 3}  # type: ignore[union-attr]
        assert steps() == [1, 2, 3, 4]
        save_checkpoint(step_path(tmp_path, 4), SMALL, {"step": 4})
        assert run.latest().meta == {"step": 4}  # type: ignore[union-attr]
    assert steps() == [3, 4] and best_path(tmp_path).exists()


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
        step_path(run.path, 0).mkdir()
        step_path(run.path, 9).mkdir()
        assert str(step_path(run.path, 1)) in refused(UsageError, run.save, 1, SMALL, META)
    assert str(tmp_path / "run") in refused(UsageError, RunFolder, tmp_path / "run")


# ---------------------------------------------------------------- a checkpoint that cannot be read is not a damaged one


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES])
def test_an_unreadable_checkpoint_stops_and_nothing_is_taken_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    with RunFolder(tmp_path / "run") as run:
        for step in (1, 2):
            run.save(step, SMALL, {"step": step}, best=True)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}

    def failing(*_: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fstat", failing)
    for load in (load_latest, load_best):
        message = refused(UsageError, load, tmp_path / "run")
        assert "cannot be read: " + os.strerror(error) in message and "nothing was changed" in message
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("closed", ["checkpoints/step-00000002.safetensors", "checkpoints"])
def test_checkpoints_of_another_user_are_there(unprivileged: Path, closed: str) -> None:
    """Not "holds no checkpoint", after which a user would start anew, nor the one before."""
    with RunFolder(unprivileged / "run") as run:
        for step in (1, 2):
            run.save(step, SMALL, {"step": step})
    for mode in (0o000, 0o400) if closed == "checkpoints" else (0o000,):
        (unprivileged / "run" / closed).chmod(mode)
        assert f"{closed}" in (message := refused(UsageError, load_latest, run.path))
        assert "cannot be read: " + os.strerror(errno.EACCES) in message
    (unprivileged / "run" / closed).chmod(0o755)


# --------------------------------------------------------------------------------------- links, pipes, files of others


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Return a folder of another owner, with a file that holds a word."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("theirs")
    return tmp_path / "outside"


@pytest.mark.parametrize("name", [*FILES, *PAGES, "checkpoints/best.safetensors", "samples/000-a.png"])
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder"])
def test_nothing_is_written_where_a_file_is_none(tmp_path: Path, outside: Path, name: str, kind: str) -> None:
    RunFolder(tmp_path / "run").close()
    path = tmp_path / "run" / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(outside / ("file" if kind == "link" else "new"))
    message = refused(UsageError, RunFolder, tmp_path / "run")
    found = "something else" if kind in ("pipe", "folder") else "a link"
    assert message.startswith(f"{path}: found {found}, expected a file: ")
    assert os.listdir(outside) == ["file"] and (outside / "file").read_text() == "theirs"


@pytest.mark.parametrize("name", FOLDERS)
def test_no_folder_of_a_run_is_a_link(tmp_path: Path, outside: Path, name: str) -> None:
    RunFolder(tmp_path / "run").discard()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(outside)
    assert "found a link, expected a folder" in refused(UsageError, RunFolder, tmp_path / "run")
    assert os.listdir(outside) == ["file"]


def test_a_temporary_file_follows_no_link_and_takes_no_name(tmp_path: Path, outside: Path) -> None:
    """Whatever lies beside the file that is written, under whatever name, stays as it is."""
    path = tmp_path / "model.onnx"
    beside = [path.with_name(path.name + suffix) for suffix in (".tmp", "~", ".part")]
    for each in beside:
        each.symlink_to(outside / "file")
    replace_file(path, [b"ours"])
    assert path.read_bytes() == b"ours" and (outside / "file").read_text() == "theirs"
    assert all(each.is_symlink() for each in beside) and len(os.listdir(tmp_path)) == 5
    path.unlink()
    path.symlink_to(outside / "file")
    replace_file(path, [b"ours"])
    assert path.read_bytes() == b"ours" and (outside / "file").read_text() == "theirs"
    for special in (tmp_path / "pipe", tmp_path / "folder", Path("/dev/null")):
        if special.name != "null":
            os.mkfifo(special) if special.name == "pipe" else special.mkdir()
        assert "found something that is no file" in refused(UsageError, replace_file, special, [b"ours"])


def test_the_temporary_file_is_made_new(tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if its name was guessed."""
    monkeypatch.setattr(checkpoint.secrets, "token_hex", lambda size: "guessed")
    (tmp_path / "x.onnx.guessed.tmp").symlink_to(outside / "file")
    assert os.strerror(errno.EEXIST) in refused(UsageError, replace_file, tmp_path / "x.onnx", [b"ours"])
    assert (outside / "file").read_text() == "theirs"


def test_no_file_of_another_is_removed(tmp_path: Path) -> None:
    """Not by opening the folder, not by saving, not by closing: names that only look like ours are left alone."""
    folder = tmp_path / "run/checkpoints"
    folder.mkdir(parents=True)
    theirs = ["notes.tmp", "step-1.safetensors", "step-00000001.safetensors.bak.tmp", "probe", "my.best.safetensors"]
    for name in theirs:
        (folder / name).write_text("theirs")
        (tmp_path / "run" / name).write_text("theirs")
    ours = "step-00000001.safetensors.0123456789abcdef.tmp"
    (folder / ours).write_text("half")
    with RunFolder(tmp_path / "run") as run:
        for step in (1, 2, 3):
            run.save(step, SMALL, {}, best=True)
    run.discard()
    for name in theirs:
        assert (folder / name).read_text() == (tmp_path / "run" / name).read_text() == "theirs"
    assert not (folder / ours).exists()


def test_a_run_begins_in_a_folder_that_is_new_or_empty_or_left_by_one_that_did_not_begin(tmp_path: Path) -> None:
    check_unused(tmp_path / "new")
    (tmp_path / "new").mkdir()
    check_unused(tmp_path / "new")
    RunFolder(tmp_path / "new").close()
    (tmp_path / "new/config.json.0123456789abcdef.tmp").write_text("{")
    whole = "process 17, started 2026-01-01 00:00:00"
    for end in range(len(whole) + 1):  # the disk was full, or a kill came in the middle
        (tmp_path / "new/lock").write_text(whole[:end])
        check_unused(tmp_path / "new")


@pytest.mark.parametrize("name", ["thesis.tex", "a.tmp", "checkpoints/thesis.tex", "lock", "samples", "metrics.jsonl"])
def test_a_run_does_not_begin_among_files_of_others(tmp_path: Path, name: str) -> None:
    (tmp_path / "run" / name).parent.mkdir(parents=True)
    (tmp_path / "run" / name).write_text("theirs")
    message = refused(UsageError, check_unused, tmp_path / "run")
    assert f"is not empty, and {Path(name).name} in it is not of a run" in message


def test_a_run_does_not_begin_among_the_checkpoints_of_another(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        run.save(7, SMALL, META)
    assert "holds the checkpoints of a run, but not its config.json" in refused(UsageError, check_unused, run.path)


# ------------------------------------------------------------------------------------------------------- the run's log


@pytest.mark.parametrize("written", [0, 5])
def test_a_record_that_is_cut_takes_no_other_along(tmp_path: Path, written: int) -> None:
    path = tmp_path / "metrics.jsonl"
    append(path, {"step": 1})
    size = path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + written, hard))
    try:
        assert str(path) in refused(UsageError, append, path, {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.stat().st_size == size
    append(path, {"step": 3})
    assert path.read_text() == '{"step": 1}\n{"step": 3}\n'


def test_a_record_cut_by_a_kill_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st')
    append(path, {"step": 3})
    assert [record["step"] for record in records(path)] == [1, 3]
