"""Run the training runs in parallel processes, each only once.

What is done is read off the folders and nowhere else. A cell with a good evaluation.json is finished; one with a
checkpoint goes on from there; all others begin. So this may be stopped, killed or cut from the power at any moment, and
the same command goes on. A process that outlived a killed runner holds the lock of its folder, and is waited for.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minifcn.errors import FormatError, MinifcnError, UsageError
from minifcn.experiments.reproduction.cells import EVALUATE, PRETRAIN, TRAIN, Job, expected_seconds
from minifcn.experiments.reproduction.results import number, read_pretrained, read_result
from minifcn.formats.checkpoint import replace_file
from minifcn.formats.limits import printable
from minifcn.formats.strict_json import read_json
from minifcn.training.progress import Bar, clock, silent
from minifcn.training.run_folder import locked
from minifcn.training.signals import Signals

ROOT = str(Path(__file__).parents[3])  # where the package lies
TICK = 0.1  # seconds between looks at the processes
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
MOST_TIMES = 1 << 20
LONGEST = 1e9  # seconds
TAIL = 3  # lines of a failed process that are shown

Command = Callable[[Job, Path], list[str]]


# ------------------------------------------------------------------------------------------------------ one job's state


def folder_of(job: Job, out: Path) -> Path:
    """Return the run folder of a job."""
    return out / "cells" / job.folder


def log_of(job: Job, out: Path) -> Path:
    """Return where the output of a job's process goes."""
    return out / "log" / f"{job.folder}.txt"


def fault_of(job: Job, out: Path) -> str:
    """Return why a job has no result that can be believed; "" if it has one."""
    try:
        if job.cell.kind == PRETRAIN:
            read_pretrained(weights_of(job, out))
        else:
            read_result(folder_of(job, out), job)
    except MinifcnError as fault:
        return str(fault)
    return ""


def finished(job: Job, out: Path) -> bool:
    """Return whether a job has a result that can be believed."""
    return not fault_of(job, out)


def weights_of(job: Job, out: Path) -> Path:
    """Return what others start from: the run folder, or the trunk in a file of its own."""
    return folder_of(job, out) / "trunk.safetensors" if job.cell.kind == PRETRAIN else folder_of(job, out)


def begun(job: Job, out: Path) -> bool:
    """Return whether a job has a checkpoint to go on from."""
    return any((folder_of(job, out) / "checkpoints").glob("*.safetensors"))


def in_use(folder: Path) -> bool:
    """Return whether another process holds the lock of a run folder."""
    try:
        with locked(folder, create=False):
            return False
    except UsageError:
        return True
    except OSError:
        return False


def command_of(job: Job, out: Path) -> list[str]:
    """Return the command line that runs a job, or goes on with it."""
    folder = folder_of(job, out)
    parents = [str(weights_of(parent, out)) for parent in job.parents]
    if job.cell.kind == EVALUATE:
        words = ["minifcn", "evaluate", *parents, f"--json={folder / 'evaluation.json'}", *flags(job.settings)]
    elif job.cell.kind == PRETRAIN:
        words = ["minifcn", "pretrain", str(weights_of(job, out)), *flags(job.settings)]
    elif begun(job, out):
        words = ["minifcn", "train", f"--resume={folder}"]
    else:
        start = [f"--init={','.join(parents)}"] if parents else []
        words = ["minifcn", "train", f"--run={folder}", *start, *flags({"recipe": "toy", **job.settings})]
    return [sys.executable, "-m", *words, "--threads=1"]


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Return options as a command line has them."""
    words = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        words.append((f"--{flag}" if value else f"--no-{flag}") if isinstance(value, bool) else f"--{flag}={value}")
    return words


def tail(path: Path) -> str:
    """Return the last lines of a process's output, as one printable line."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            text = file.read(4096).decode("utf-8", "replace")
    except OSError as fault:
        return f"{path}: {fault.strerror}"
    last = [line.strip() for line in text.splitlines() if line.strip()][-TAIL:]
    return printable(" / ".join(last)) or "it said nothing"


# ------------------------------------------------------------------------------------------------------------ the times


@dataclass
class Times:
    """How long each job took, and all commands together, in seconds; kept in a file beside the cells."""

    path: Path
    jobs: dict[str, float] = field(default_factory=dict)
    whole: float = 0.0

    @classmethod
    def read(cls, path: Path) -> Times:
        """Return what the file says; nothing, if it says what cannot be."""
        try:
            found = read_json(path, most=MOST_TIMES, what="the times of a reproduction")
        except FormatError:
            return cls(path)
        jobs, whole = found.get("jobs"), number(found.get("whole"), LONGEST)
        said = {name: number(value, LONGEST) for name, value in (jobs.items() if isinstance(jobs, dict) else ())}
        kept = {name: seconds for name, seconds in said.items() if not math.isnan(seconds)}
        return cls(path, kept, 0.0 if math.isnan(whole) else whole)

    def add(self, job: Job | None, seconds: float) -> None:
        """Add the seconds of a job, or, without a job, of the command."""
        if job is None:
            self.whole += seconds
        else:
            self.jobs[job.folder] = self.jobs.get(job.folder, 0.0) + seconds
        text = json.dumps({"jobs": self.jobs, "whole": self.whole}, indent=1)
        replace_file(self.path, [text.encode()])

    def left(self, waiting: Sequence[Job], done: Sequence[Job]) -> float:
        """Return the seconds of one core that `waiting` will take, by what `done` took against what was expected."""
        known = [(self.jobs[job.folder], expected_seconds(job)) for job in done if job.folder in self.jobs]
        taken, expected = (sum(column) for column in zip(*known, strict=True)) if known else (1.0, 1.0)
        return sum(map(expected_seconds, waiting)) * taken / expected


# ----------------------------------------------------------------------------------------------------------- the runner


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    since: float


class Runner:
    """Run `jobs` in the folder `out`, `at_once` processes at a time, each job after those it depends on.

    `command` returns the command line of a job, `say` prints a line. A job that fails is reported, and `failed`
    holds the reason; only the jobs that depend on it are skipped. `code` is 130 or 143 after an interrupt, else 0.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        out: Path,
        *,
        at_once: int,
        command: Command = command_of,
        say: Callable[[str], None] = silent,
    ) -> None:
        self.jobs, self.out, self.at_once, self.command, self._say = list(jobs), out, at_once, command, say
        self.done = [job for job in self.jobs if finished(job, out)]
        done = {job.folder for job in self.done}
        self.waiting = [job for job in self.jobs if job.folder not in done]
        self.running: list[_Running] = []
        self.failed: dict[str, str] = {}
        self.code = 0
        self.times = Times.read(out / "times.json")
        self._bar = Bar(0, unit="cell")
        self._reported: set[str] = set()

    def run(self) -> int:
        """Run all that is not done; return `code`. `UsageError` if another command is at work in the same folder."""
        for folder in ("cells", "log"):
            (self.out / folder).mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        with (
            locked(self.out),
            Signals() as signals,
            Bar(len(self.jobs), unit="cell", done=len(self.done)) as self._bar,
        ):
            try:
                while self.waiting or self.running:
                    if signals.code and not self.code:
                        self.code = signals.code
                        self._stop()
                    self._start()
                    self._reap()
                    if self.running or self.waiting:
                        time.sleep(TICK)
                self.code = self.code or signals.code
            finally:
                for one in self.running:  # only after a mistake of ours: nothing may go on unseen
                    one.process.terminate()
                self.times.add(None, time.monotonic() - began)
        return self.code

    def say(self, line: str) -> None:
        """Print a line above the progress bar."""
        with self._bar.hidden():
            self._say(line)

    def _stop(self) -> None:
        """Ask every process to save and leave; nothing new begins."""
        self.waiting.clear()
        for one in self.running:
            one.process.terminate()

    def _start(self) -> None:
        """Begin what can begin, as long as there is room."""
        done = {job.folder for job in self.done}
        for job in list(self.waiting):
            if broken := next((parent for parent in job.parents if parent.folder in self.failed), None):
                self.waiting.remove(job)
                self._fail(job, f"it starts from {broken.folder}")
            elif len(self.running) < self.at_once and all(parent.folder in done for parent in job.parents):
                if in_use(folder_of(job, self.out)):  # by a process that outlived its runner; what it leaves is taken
                    if job.folder not in self._reported:
                        self._reported.add(job.folder)
                        self.say(f"{job.folder} is still in work by an earlier process; waiting for it")
                    continue
                self.waiting.remove(job)
                if finished(job, self.out):
                    self._finish(job)
                else:
                    self._begin(job)

    def _begin(self, job: Job) -> None:
        folder = folder_of(job, self.out)
        if not begun(job, self.out):  # killed before its first checkpoint: nothing is lost
            (folder / "config.json").unlink(missing_ok=True)
        if job.cell.kind != TRAIN:
            folder.mkdir(exist_ok=True)
        path = os.pathsep.join(filter(None, (ROOT, os.environ.get("PYTHONPATH"))))
        with open(log_of(job, self.out), "ab") as log:
            process = subprocess.Popen(  # noqa: S603  our own interpreter and our own modules
                self.command(job, self.out),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **ONE_THREAD, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,  # Ctrl-C in a terminal is ours alone: a second signal would end it at once
            )
        self.running.append(_Running(job, process, time.monotonic()))

    def _reap(self) -> None:
        """Take notice of the processes that have ended."""
        for one in list(self.running):
            code = one.process.poll()
            if code is None:
                continue
            self.running.remove(one)
            self.times.add(one.job, time.monotonic() - one.since)
            if code == 0 and finished(one.job, self.out):
                self._finish(one.job)
            elif not self.code:
                why = f"exit code {code}: {tail(log_of(one.job, self.out))}" if code else fault_of(one.job, self.out)
                self._fail(one.job, why)

    def _finish(self, job: Job) -> None:
        self.done.append(job)
        thin_out(folder_of(job, self.out))
        if self._bar.shown:
            self._bar.advance(note=self._state())
        else:
            self.say(f"{len(self.done)}/{len(self.jobs)} cells: {job.folder} is done; {self._state()}")

    def _state(self) -> str:
        unfinished = [*self.waiting, *(one.job for one in self.running)]
        seconds = self.times.left(unfinished, self.done) / max(1, min(self.at_once, len(unfinished)))
        return f"{len(self.running)} running, about {clock(seconds)} left"

    def _fail(self, job: Job, why: str) -> None:
        self.failed[job.folder] = why
        self.say(f"FAILED {job.folder}: {why}")


def thin_out(folder: Path) -> None:
    """Of a finished run only the newest checkpoint stays: a hundred runs with three each would fill a laptop's disk."""
    kept = sorted((folder / "checkpoints").glob("step-*.safetensors"))[-1:]
    for path in (folder / "checkpoints").glob("*.safetensors"):
        if kept and path not in kept:
            path.unlink()
