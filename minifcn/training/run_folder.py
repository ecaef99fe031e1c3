"""The folder of a run: its lock, its config.json, and the checkpoints it keeps.

A run keeps its last two checkpoints and its best. A damaged one is passed over for the one before it, so a run that was
killed at any moment goes on from what is whole.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from minifcn.errors import FormatError, UsageError
from minifcn.formats.checkpoint import NewerFormatError, explained, load_checkpoint, pieces_of, replace_file
from minifcn.formats.limits import short
from minifcn.formats.strict_json import read_json
from minifcn.training.net_record import CHOICES, read_record
from minifcn.training.options import Options, from_dict, nearest
from minifcn.training.progress import silent

MOST_CONFIG_BYTES = 1 << 20
CONFIG_FIELDS = ("options", "classes", "preprocessing", "images", "environment")

Say = Callable[[str], None]


# ------------------------------------------------------------------------------------------------------ the checkpoints


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read: from which file, and why from no better one (`skipped`, a sentence for each)."""

    path: Path
    tensors: dict[str, np.ndarray]
    meta: dict[str, Any]
    skipped: tuple[str, ...] = ()


def load_latest(run: str | Path, *, say: Say = silent) -> Checkpoint | None:
    """Return the newest good checkpoint in the run folder `run`; None if there is none at all.

    A damaged one is skipped, which `say` hears, and the one before it is tried, at last the best. FormatError when all
    are damaged, or the newest is from a newer minifcn. Takes no lock: a run may be looked at while it trains.
    """
    return _first_good([*_steps(run).values(), best_path(run)], say)


def load_best(run: str | Path, *, say: Say = silent) -> Checkpoint | None:
    """Return the best checkpoint in the run folder `run`; the latest where none was marked best or it is damaged."""
    return _first_good([best_path(run), *_steps(run).values()], say)


def best_path(run: str | Path) -> Path:
    """Where the best checkpoint of a run lies."""
    return Path(run) / "checkpoints" / "best.safetensors"


def step_path(run: str | Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return Path(run) / "checkpoints" / f"step-{step:08d}.safetensors"


def _steps(run: str | Path) -> dict[int, Path]:
    """The checkpoints of all steps, the newest first."""
    paths = (Path(run) / "checkpoints").glob("step-*")
    steps = {int(path.stem[5:]): path for path in paths if re.fullmatch(r"step-\d{8,}\.safetensors", path.name)}
    return dict(sorted(steps.items(), reverse=True))


def _first_good(paths: list[Path], say: Say) -> Checkpoint | None:
    skipped: list[str] = []
    for path in filter(os.path.exists, paths):
        try:
            tensors, meta = load_checkpoint(path)
        except NewerFormatError:
            raise
        except FormatError as error:
            skipped.append(str(error))
            continue
        if skipped:
            say(f"{skipped[0]}: going on from {path.name} instead")
        return Checkpoint(path, tensors, meta, tuple(skipped))
    if skipped:
        raise FormatError(f"{skipped[0]}; but none of the {len(skipped)} here is good: start a new run")
    return None


# ---------------------------------------------------------------------------------------------------------- the options


def read_config(path: Path) -> Options:
    """Return the options in a `config.json`, or in that of a folder; a MinifcnError for any other file."""
    if path.is_dir():
        path = path / "config.json"
    found = read_json(path, most=MOST_CONFIG_BYTES, what="a run's config.json")
    for field in found:
        if field not in CONFIG_FIELDS:
            raise UsageError(f"{path}: field {field!r:.80} does not exist{nearest(field[:80], CONFIG_FIELDS)}")
    if "options" not in found:
        raise UsageError(f"{path}: has no field options; expected a run's config.json")
    return from_dict(found["options"], source=path)


def options_of_run(run: Path) -> Options:
    """Return the options of the newest good checkpoint in a run folder."""
    if not run.is_dir():
        raise UsageError(f"{run}: found no such folder; expected the folder of an earlier run")
    checkpoint = load_latest(run)
    if checkpoint is None:
        raise UsageError(f"{run}: holds no checkpoint to resume; start a new run")
    options = from_dict(checkpoint.meta.get("options"), source=checkpoint.path)
    record = read_record(checkpoint.path, checkpoint.meta)  # which decides what the net is
    return replace(options, **{name: getattr(record.options, name) for name in CHOICES})


# ----------------------------------------------------------------------------------------------------------- the folder


def free_folder(recipe: str) -> Path:
    """Return runs/RECIPE, or the first of runs/RECIPE-2, runs/RECIPE-3 ... that does not exist."""
    base = Path("runs") / recipe
    path, number = base, 1
    while path.exists():
        number += 1
        path = base.with_name(f"{recipe}-{number}")
    return path


@contextlib.contextmanager
def locked(folder: Path, *, create: bool = True) -> Iterator[BinaryIO | None]:
    """Hold the lock of a folder, and give its file, whose text names the last process that wrote it.

    The lock is `flock` on the file `lock`: the system takes it back when the process ends, however it ends, so no lock
    is ever left over (the mere existence of a file would be, and its pid may belong to another process by now). The
    file stays: if it were deleted, two processes could hold "the" lock, one on the deleted file and one on the new.

    create: make the file if need be. Raises UsageError if another process holds the lock. Gives None, and locks
    nothing, where the system has no flock.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield None
        return
    with open(folder / "lock", "a+b" if create else "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"{folder}: is in use by {_owner(file) or 'another process'}; "
                "wait for it to end or choose another folder"
            ) from error
        yield file


def _owner(lock: BinaryIO) -> str:
    lock.seek(0)
    return short(lock.read(200).decode("ascii", "replace"))


class RunFolder:
    """The folder of one run: made, found writable and locked before the first step; keeps the last two and the best.

        with RunFolder("runs/first") as run:
            run.save(step, tensors, meta, best=score > best_score)

    The lock's file holds our pid and the time. If they are there and the lock is not, the last run was killed, and
    `say` hears it.

    create: make the folder if need be; without it (to resume) the folder has to exist.
    Raises UsageError when the folder is missing, cannot be written or is in use.
    """

    def __init__(self, path: str | Path, *, create: bool = True, say: Say = silent) -> None:
        self.path = Path(path)
        self._checkpoints = self.path / "checkpoints"
        self._say = say
        self._lock = contextlib.ExitStack()
        if not create and not self.path.is_dir():
            raise UsageError(f"{self.path}: found no such folder, expected the folder of an earlier run")
        try:
            with explained(self.path, "the run folder cannot be written"):
                self._checkpoints.mkdir(parents=True, exist_ok=True)
                self._take_lock()
                self._remove_unfinished()
                probe = self._checkpoints / "probe"
                replace_file(probe, [b"Can this folder be written?"])
                probe.unlink()
        except BaseException:
            self.close()
            raise

    def save(self, step: int, tensors: Mapping[str, np.ndarray], meta: dict[str, Any], *, best: bool = False) -> Path:
        """Write the checkpoint of `step`, and a second copy as the best if it is; then remove all but the last two.

        `step` is the newest by definition: who goes back to step 100 and saves step 200 has left the old steps beyond
        200 behind, and they are removed. Raises as `save_checkpoint`; every earlier checkpoint is then still there.
        """
        path = step_path(self.path, step)
        with explained(path, "cannot be saved; what was saved before is intact"):
            self._remove_unfinished()
            pieces = pieces_of(path, tensors, meta)
            replace_file(path, pieces)
            if best:  # a copy and not a link: one bad sector must not take both
                replace_file(best_path(self.path), pieces)
            steps = _steps(self.path)
            last_two = [one for one in steps if one <= step][:2]
            for old in steps.keys() - last_two:
                steps[old].unlink()
        return path

    def latest(self) -> Checkpoint | None:
        """Return the newest good checkpoint, None in a new folder: `load_latest`."""
        return load_latest(self.path, say=self._say)

    def close(self) -> None:
        """Give the lock back and empty its file, the sign of a run that ended in order."""
        self._lock.close()

    def discard(self) -> None:
        """Close a folder in which no run began, and remove it: the lock and the empty folders, nothing else."""
        self.close()
        with contextlib.suppress(OSError):
            (self.path / "lock").unlink(missing_ok=True)
            self._checkpoints.rmdir()
            self.path.rmdir()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _remove_unfinished(self) -> None:
        """Remove what a killed process was writing: we hold the lock, so no other process is writing it now."""
        for unfinished in self._checkpoints.glob("*.tmp"):
            unfinished.unlink()

    def _take_lock(self) -> None:
        file = self._lock.enter_context(locked(self.path))
        if file is None:
            self._say(f"{self.path}: found no flock on this system; see to it that no other process uses this folder")
            return
        if owner := _owner(file):
            self._say(f"{self.path}: the last run here ({owner}) did not end in order; its lock is taken over")
        file.truncate(0)
        file.write(f"process {os.getpid()}, started {time.strftime('%Y-%m-%d %H:%M:%S')}".encode())
        file.flush()
        self._lock.callback(_emptied, file)


def _emptied(lock: BinaryIO) -> None:
    with contextlib.suppress(OSError):
        lock.truncate(0)
