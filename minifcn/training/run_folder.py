"""The folder of a run: its lock, its config.json, and the checkpoints it keeps.

A run keeps its last two checkpoints and its best. A damaged one is passed over for the one before it, so a run that was
killed at any moment goes on from the newest whole one. One that cannot be read (permissions, a bad disk) is an error:
no other is read instead, and nothing is removed. A run writes, cuts and removes only its own files, and never through
a link.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.errors import FormatError, UsageError
from minifcn.formats.checkpoint import NewerFormatError, explained, load_checkpoint, meta_of, pieces_of, replace_file
from minifcn.formats.limits import path_of, short
from minifcn.formats.strict_json import read_json
from minifcn.training.net_record import CHOICES, read_record
from minifcn.training.options import Options, from_dict, nearest
from minifcn.training.progress import silent
from minifcn.training.ranks import Alone

MOST_CONFIG_BYTES = 1 << 20
CONFIG_FIELDS = ("options", "classes", "preprocessing", "images", "environment")

FILES = ("config.json", "metrics.jsonl", "evaluation.json", "diverged.json", "lock")
PAGES = ("report.html", "curves.png", "confusion.png")
FOLDERS = ("checkpoints", "samples", "predictions")
CHECKPOINT = r"(step-\d{8,}|best)\.safetensors"
# what a kill leaves of a file that was being written; earlier versions gave it no token
OURS = "|".join(map(re.escape, (*FILES, *PAGES)))
UNFINISHED = re.compile(rf"({CHECKPOINT}|probe|{OURS})((\.[0-9a-f]{{16}})?\.tmp){{1,2}}|.+\.png\.[0-9a-f]{{16}}\.tmp")

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

    `say` prints each damaged one, which is skipped; then the one before it is tried, at last the best. FormatError
    if all are damaged, or the newest is from a newer minifcn; UsageError if one cannot be read. Takes no lock: a run
    may be looked at while it trains.
    """
    return _first_good(checkpoints(run), say)


def load_best(run: str | Path, *, say: Say = silent) -> Checkpoint | None:
    """Return the best checkpoint in the run folder `run`; the latest where none was marked best or it is damaged."""
    return _first_good(sorted(checkpoints(run), key=lambda path: path != best_path(run)), say)


def best_path(run: str | Path) -> Path:
    """Return the path of a run's best checkpoint."""
    return path_of(run) / "checkpoints" / "best.safetensors"


def step_path(run: str | Path, step: int) -> Path:
    """Return the path of the checkpoint of a step."""
    return path_of(run) / "checkpoints" / f"step-{step:08d}.safetensors"


def checkpoints(run: str | Path) -> list[Path]:
    """Return the checkpoints of a run, good or not: its steps from the newest on, then the best."""
    folder = path_of(run) / "checkpoints"
    try:
        names = [name for name in os.listdir(folder) if re.fullmatch(CHECKPOINT, name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read: {error.strerror}; see to it and try again") from error
    return [folder / name for name in sorted(names, key=_step_of, reverse=True)]


def _step_of(name: str) -> int:
    """Return the step in a checkpoint's name, -1 for the best."""
    return int(name[5:].partition(".")[0]) if name.startswith("step-") else -1


def _first_good(paths: list[Path], say: Say) -> Checkpoint | None:
    skipped: list[str] = []
    for path in paths:
        try:
            tensors, meta = load_checkpoint(path)
        except NewerFormatError:
            raise
        except UsageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                continue  # the run that trains here has just removed it
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
    """Return the options of the newest good checkpoint in a run folder; where there is none yet, of its config.json."""
    if not run.is_dir():
        raise UsageError(f"{run}: found no such folder; expected the folder of an earlier run")
    checkpoint = load_latest(run)
    if checkpoint is None:
        if not (run / "config.json").exists():
            raise UsageError(f"{run}: holds no checkpoint to resume; start a new run")
        return read_config(run)
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


def check_unused(path: Path) -> None:
    """Refuse to begin a run in a folder that holds anything but what a run leaves that has not begun.

    A run removes the checkpoints of steps that it has left behind, and those of another would be among them.
    """
    if not path.is_dir():
        return
    if checkpoints(path):
        raise UsageError(
            f"{path}: holds the checkpoints of a run, but not its config.json; `resume={path}` goes on with it, or "
            "name another folder (`run=...`)"
        )
    with explained(path, "the run folder cannot be read"):
        found = [entry for entry in os.scandir(path) if not _left_over(entry)]
        inside = list(os.scandir(path / "checkpoints")) if (path / "checkpoints").is_dir() else []
    found += [entry for entry in inside if not _left_over(entry)]
    if found:
        raise UsageError(
            f"{path}: is not empty, and {short(found[0].name)} in it is not of a run; name a new or an empty folder "
            "(`run=...`)"
        )


def _left_over(entry: os.DirEntry[str]) -> bool:
    """Return whether a run that was killed before it began may have left this."""
    if entry.name == "checkpoints" or not entry.is_file(follow_symlinks=False):
        return entry.name == "checkpoints" and entry.is_dir(follow_symlinks=False)
    if entry.name == "lock":
        with open(entry, "rb") as lock:
            return b"process 1, started 1-1-1 1:1:1".startswith(re.sub(rb"\d+", b"1", lock.read(200)))  # or cut short
    return bool(UNFINISHED.fullmatch(entry.name))


def check_kinds(run: Path) -> None:
    """Refuse a folder in which a link, a pipe or a folder has the name of a file that a run writes, or of a folder.

    A run folder from elsewhere could otherwise lead what is written, cut and removed to any other place.
    """
    with explained(run, "the run folder cannot be read"):
        for folder in (run, *(run / name for name in FOLDERS)):
            for entry in list(os.scandir(folder)) if folder.is_dir() else ():
                inside = re.fullmatch(rf"{CHECKPOINT}|.*\.png", entry.name) if folder != run else None
                if folder == run and entry.name in FOLDERS:
                    fits, wanted = entry.is_dir(follow_symlinks=False), "a folder"
                elif inside or (folder == run and entry.name in (*FILES, *PAGES)):
                    fits, wanted = entry.is_file(follow_symlinks=False), "a file"
                else:
                    continue
                if not fits:
                    found = "a link" if entry.is_symlink() else "something else"
                    raise UsageError(
                        f"{folder / short(entry.name)}: found {found}, expected {wanted}: a run folder may not lead "
                        "elsewhere; remove it, or copy what it leads to in its place"
                    )


@contextlib.contextmanager
def locked(folder: Path, *, create: bool = True) -> Iterator[FileIO | None]:
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
    with open(folder / "lock", "a+b" if create else "r+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"{folder}: is in use by {_owner(file) or 'another process'}; "
                "wait for it to end or choose another folder"
            ) from error
        yield file


def _owner(lock: FileIO) -> str:
    lock.seek(0)
    return short(lock.read(200).decode("ascii", "replace"))


class RunFolder:
    """The folder of one run: made, found writable and locked before the first step; keeps the last two and the best.

        with RunFolder("runs/first") as run:
            run.save(step, tensors, meta, best=score > best_score)

    The lock's file holds our pid and the time. If they are there and the lock is free, the last run was killed, and
    `say` prints so.

    create: make the folder if need be; without it (to resume) the folder has to exist.
    Raises UsageError when the folder is missing, cannot be written, leads elsewhere by a link or is in use.
    """

    def __init__(self, path: str | Path, *, create: bool = True, say: Say = silent) -> None:
        self._given = self._absolute = path_of(path)
        self._say, self._held = say, -1
        self._lock = contextlib.ExitStack()
        if not create and not self.path.is_dir():
            raise UsageError(f"{self.path}: found no such folder, expected the folder of an earlier run")
        try:
            with explained(self.path, "the run folder cannot be written"):
                check_kinds(self.path)
                self._absolute = self._given.absolute()
                self._checkpoints.mkdir(parents=True, exist_ok=True)
                self._hold()
                self._take_lock()
                self._remove_unfinished()
                probe = self._checkpoints / f"probe.{secrets.token_hex(8)}.tmp"
                replace_file(probe, [b"Can this folder be written?"])
                probe.unlink()
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> Path:
        """The path as it was given; once the process has gone to another directory, the absolute one."""
        with contextlib.suppress(OSError):  # there is no directory any more
            if self._given.absolute() == self._absolute:
                return self._given
        return self._absolute

    @property
    def _checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def save(self, step: int, tensors: Mapping[str, np.ndarray], meta: dict[str, Any], *, best: bool = False) -> Path:
        """Write the checkpoint of `step`, and a copy as the best if it is; then remove all but the last two.

        The checkpoint of the step says how good the best is, so its rename comes last and commits both. A run that is
        killed between the two goes on from the step before, and saves the same best again.

        `step` is the newest by definition: who goes back to step 100 and saves step 200 has left the old steps beyond
        200 behind, and they are removed. Raises as `save_checkpoint`; every earlier checkpoint is then still there.
        """
        path = step_path(self.path, step)
        self.check()
        with explained(path, "cannot be saved; what was saved before is intact"):
            self._remove_unfinished()
            pieces = pieces_of(path, tensors, meta)
            copy = best_path(self.path) if best else None  # and not a link: one bad sector must not take both
            replace_file(path, pieces, copy=copy)
            self._keep_two(step)
        return path

    def _keep_two(self, newest: int) -> None:
        """Remove all checkpoints but the best, that of step `newest`, and the one before."""
        steps = [old for old in checkpoints(self.path) if old != best_path(self.path)]
        last_two = [old for old in steps if _step_of(old.name) <= newest][:2]
        for old in steps:
            if old not in last_two:
                old.unlink()

    def best_is_of(self, step: int) -> bool:
        """Return whether the best checkpoint on the disk is that of `step`: it may be saved though the step is not."""
        with contextlib.suppress(OSError):
            return bool(meta_of(best_path(self.path)).get("progress", {}).get("step") == step)
        return False

    def check(self) -> None:
        """Raise UsageError if another folder, of another run perhaps, has taken this one's place."""
        with contextlib.suppress(OSError):  # where there is none, writing says so
            if self._held >= 0 and not os.path.samestat(os.fstat(self._held), os.stat(self.path)):
                raise UsageError(
                    f"{self.path}: the run folder was replaced by another one while its run was writing to it; nothing "
                    "is written there; put the run's own folder back and resume it, or start the run again elsewhere"
                )

    def latest(self) -> Checkpoint | None:
        """Return the newest good checkpoint, None in a new folder: `load_latest`.

        If no damaged one was passed over, steps are removed that a killed process saved and had no time to remove.
        """
        found = load_latest(self.path, say=self._say)
        if found and not found.skipped:
            with explained(self.path, "the run folder cannot be written"):
                self._keep_two(_step_of(found.path.name))
        return found

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

    def _hold(self) -> None:
        """Keep the folder open, so that its number on the disk is not given to another one."""
        if os.name == "posix":  # elsewhere a folder cannot be opened, nor moved while a file in it is open
            self._held = os.open(self.path, os.O_RDONLY)
            self._lock.callback(os.close, self._held)

    def _remove_unfinished(self) -> None:
        """Remove what a killed process was writing: we hold the lock, so no other process is writing it now."""
        samples = [self.path / "samples"] if (self.path / "samples").is_dir() else []
        for folder in (self.path, self._checkpoints, *samples):
            for entry in list(os.scandir(folder)):
                if UNFINISHED.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    os.unlink(entry)

    def _take_lock(self) -> None:
        file = self._lock.enter_context(locked(self.path))
        if file is None:
            self._say(f"{self.path}: found no flock on this system; see to it that no other process uses this folder")
            return
        if owner := _owner(file):
            self._say(f"{self.path}: the last run here ({owner}) did not end in order; its lock is taken over")
        self._lock.callback(_emptied, file)
        file.truncate(0)
        file.write(f"process {os.getpid()}, started {time.strftime('%Y-%m-%d %H:%M:%S')}".encode())


class Followed(RunFolder):
    """The folder of a run that another process, rank 0, has locked and writes: here it is only read."""

    def __init__(self, path: str | Path, *, say: Say = silent) -> None:
        self._given, self._absolute = path_of(path), path_of(path).absolute()
        self._say, self._held, self._lock = say, -1, contextlib.ExitStack()

    def latest(self) -> Checkpoint | None:
        """Return the newest good checkpoint, None in a new folder."""
        return load_latest(self.path, say=self._say)

    def discard(self) -> None:
        """Leave the folder to the process that made it."""


def run_folder(path: str | Path, ranks: Alone, *, create: bool = True, say: Say = silent) -> RunFolder:
    """Return the `RunFolder` at `path` on rank 0, which writes, and a `Followed` one on the others."""
    made: list[RunFolder] = []
    ranks.once(lambda: made.append(RunFolder(path, create=create, say=say)))
    return made[0] if ranks.first else Followed(path, say=say)


def _emptied(lock: FileIO) -> None:
    with contextlib.suppress(OSError):
        lock.truncate(0)
