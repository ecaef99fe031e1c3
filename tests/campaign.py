"""The campaign against a run: kills, a failing disk, guards taken out, and files that mean harm, as one table.

    make campaign                              all of it: about half an hour on two cores
    make campaign ARGS="--only calls,full"     some of kills, calls, full, warn, guards, fuzz
    make campaign ARGS="--only guards --part 3/10"    a tenth of the guards, as CI does, every day another
    make campaign ARGS="--write docs/reliability.md"  and the table into the page

kills    SIGKILL at random moments of a real `minifcn train`, which then goes on, until it has been killed --kills times
calls    SIGKILL, ENOSPC, EIO and EACCES at each call in the run folder in turn (tests/faults.py)
full     a disk that is full from each write on
warn     the same single faults under --on-save-error warn
guards   a copy of the source without one of its guards, for each row of tests/guards.py: its test has to fail
fuzz     tests/fuzz.py, where it is

After each of the first four, the newest checkpoint is the last that was saved, the best is there, and the run that goes
on ends with the files of one that was never stopped, to the bit. A finding is a line below the table, and exit code 1.
"""

import argparse
import datetime
import json
import os
import platform
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy: one thread, and nothing that a fork disturbs
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "agg"
sys.path.insert(0, str(Path(__file__).parent.parent))  # of this clone, not of the one that is installed

import pytest
from faults import FAULTS, Layer
from guards import GUARDS, Guard

from minifcn.cli.command import guard
from minifcn.cli.verbs import main as minifcn
from minifcn.errors import MinifcnError
from minifcn.formats.checkpoint import load_checkpoint
from minifcn.training import results
from minifcn.training.run_folder import load_best, load_latest
from minifcn.training.runlog import records

ROOT = Path(__file__).parent.parent
KINDS = ("kills", "calls", "full", "warn", "guards", "fuzz")
INTERVAL = 1  # steps between two checkpoints
# Everything that draws a random number, in steps that take milliseconds.
TINY = (
    "--recipe=toy --width=1 --layers=11 --max-train=4 --max-val=2 --batch=2 --epochs=2 --dropout=0.5 --translate=3 "
    f"--samples=1 --threads=1 --device=cpu --lr=0.02 --save-every={INTERVAL}"
).split()
TABLE = re.compile("(<!-- campaign -->\n).*?(<!-- /campaign -->)", re.DOTALL)


@dataclass
class Row:
    """A line of the table: how often something was tried, and what was found."""

    what: str
    tries: int = 0
    findings: list[str] = field(default_factory=list)
    note: str = ""
    seconds: float = 0.0

    def tried(self, name: str, findings: Iterable[str]) -> None:
        self.tries += 1
        for finding in findings:
            self.findings.append(f"{name}: {finding}")
            print(f"{self.what}: {self.findings[-1]}", file=sys.stderr)


# ---------------------------------------------------------------------------------------------------- what a run leaves


def state(run: Path) -> dict[str, object]:
    """All that two runs have to share: the checkpoints and the results byte by byte, the log without its speeds."""
    names = [*sorted((run / "checkpoints").iterdir()), run / "config.json", run / "evaluation.json"]
    found: dict[str, object] = {path.name: path.read_bytes() for path in names}
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return found | {"metrics.jsonl": [{**line, "images_per_s": 0} for line in log]}


def differences(a: dict[str, object], b: dict[str, object]) -> list[str]:
    return [f"{name} differs" for name in sorted(a.keys() | b.keys()) if a.get(name) != b.get(name)]


def but_for_best(data: Any) -> object:
    """What a checkpoint holds, but for the score to beat: the run compares with the best that could be written."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(data)
        tensors, meta = load_checkpoint(file.name)
    del meta["progress"]["best"]
    return [(name, array.tobytes()) for name, array in tensors.items()], meta


def step_of(run: Path, load: Callable = load_latest) -> int:
    """The step of the newest checkpoint or of the best, -1 where there is none."""
    found = load(run)
    if found is None:
        return -1
    assert not found.skipped, found.skipped
    return found.meta["progress"]["step"]


def left_in(run: Path, *, latest: int, best: int) -> list[str]:
    """What is wrong with a run folder whose last saved step and best step were these."""
    try:
        found = step_of(run)
        lost = [f"step {latest} was saved, {found} is the newest"] if found < latest else []
        if best >= 0 and step_of(run, load_best) < best:
            lost.append(f"the best, of step {best}, is gone")
        return lost
    except (MinifcnError, AssertionError) as fault:
        return [str(fault)]


def command(run: Path, *more: str) -> list[str]:
    """The command line that begins the run, or goes on with one that has begun."""
    begun = (run / "config.json").exists()
    return ["train", "--resume", str(run)] if begun else ["train", *TINY, "--run", str(run), *more]


# ------------------------------------------------------------------------------------------- one call in turn, by forks


def forked(
    work: Path, argv: list[str], layer: Layer | None = None, *, report: bool = True
) -> tuple[int, str, list[str]]:
    """(exit code, what was said, calls) of `minifcn` in a process of its own that need not import anything.

    report: draw the pictures of the report, which takes longer than the run.
    """
    calls = work / "calls"

    def task() -> int:
        if not report:
            results.write_report = lambda folder: folder / "report.html"
        with layer or nullcontext():
            code = guard(minifcn, argv)
        if layer:
            calls.write_text("\n".join(layer.calls))
        return code

    code, said = in_a_fork(work / "said", task)
    return code, said, calls.read_text().splitlines() if layer and code == 0 else []


def in_a_fork(said: Path, task: Callable[[], int]) -> tuple[int, str]:
    """The exit code of a task in a process of its own, minus the signal that ended it, and what it said."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with open(said, "wb") as file:
                os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
            code = task()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said.read_text(errors="replace")


def saved(calls: list[str], name: str) -> int:
    """The step of the last checkpoint that was renamed to its place, or, for the best, of that which followed."""
    steps = [int(found[1]) if (found := re.search(r"step-(\d+)", call)) else -1 for call in calls]
    renames = [at for at, call in enumerate(calls) if call.startswith("rename checkpoints/" + name)]
    if not renames:
        return -1
    return next(
        (steps[at] for at in range(renames[-1], len(calls)) if calls[at].startswith("rename checkpoints/step")), -1
    )


def in_turn(row: Row, work: Path, faults: Iterable[str], *, onward: bool, warn: bool, part: tuple[int, int]) -> None:
    """Each fault at each call of a run in turn."""
    run, more = work / "run", ["--on-save-error=warn"] if warn else []
    shutil.rmtree(run, ignore_errors=True)
    code, said, calls = forked(work, command(run, *more), Layer(run))
    assert code == 0, said
    whole = state(run)
    for fault in faults:
        for at in range(1, len(calls) + 1):
            if at % part[1] != part[0] % part[1] or (onward and not calls[at - 1].startswith("write")):
                continue
            name = f"{fault} at call {at}, {calls[at - 1]}"
            shutil.rmtree(run)
            layer = Layer(run, at=at, fault=fault, onward=onward)
            report = any("evaluation.json" in call for call in calls[:at])
            code, said, _ = forked(work, command(run, *more), layer, report=report)
            row.tried(name, after_fault(run, work, calls[: at - 1], whole, code, said, kill=fault == "kill", warn=warn))


def after_fault(
    run: Path, work: Path, done: list[str], whole: dict, code: int, said: str, *, kill: bool, warn: bool
) -> Iterator[str]:
    """What is wrong after a fault that came behind the calls `done`."""
    last = said.strip().splitlines()[-1:] or [""]
    if code not in ((-signal.SIGKILL,) if kill else (0, 2)) or "unexpected" in said or "Traceback" in said:
        yield f"exit code {code}: {last[0]}"
    if code == 2 and not last[0].startswith("minifcn: "):
        yield f"the last line is {last[0]!r}"
    yield from left_in(run, latest=saved(done, "step"), best=saved(done, "best"))
    more = ["--on-save-error=warn"] if warn else []
    code, said, _ = forked(work, command(run, *more), report=False)
    if code:
        yield f"going on: exit code {code}: {said.strip().splitlines()[-1]}"
    elif warn:  # a record or a checkpoint that could not be written is missing, and nothing else
        now = state(run)
        log = [line for line in now.pop("metrics.jsonl") if line not in whole["metrics.jsonl"]]
        kept = {name: now[name] for name in now.keys() & whole.keys() if name != "best.safetensors"}
        for name in [name for name in kept if name.startswith("step")]:
            kept[name], whole = but_for_best(kept[name]), {**whole, name: but_for_best(whole[name])}
        yield from differences(kept | {"log": log}, {name: whole[name] for name in kept} | {"log": []})
    else:
        yield from differences(state(run), whole)
    if stray := [str(path) for path in run.rglob("*.tmp")]:
        yield f"left {stray[0]}"


# --------------------------------------------------------------------------------------------- kills at random moments


def killed(row: Row, work: Path, count: int, seed: int) -> None:
    """SIGKILL at random moments of a real process, which then goes on."""
    run, draw, environment = work / "run", random.Random(seed), {**os.environ, "PYTHONPATH": str(ROOT)}

    def started() -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "minifcn", *command(run)]
        return subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    shutil.rmtree(run, ignore_errors=True)
    began = time.monotonic()
    with started() as process:
        while not (run / "lock").exists() and process.poll() is None:
            time.sleep(0.01)
        first = time.monotonic() - began  # before it, a kill meets the imports of an interpreter
        assert process.wait() == 0, process.stderr and process.stderr.read()
    last, whole = time.monotonic() - began, state(run)
    finished = latest = best = 0
    shutil.rmtree(run)
    while row.tries < count:
        began = time.monotonic()
        with started() as process:
            try:
                _, said = process.communicate(timeout=draw.uniform(0.9 * first, last))
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                findings = left_in(run, latest=latest, best=best)
                log = (
                    [line["step"] for line in records(run / "metrics.jsonl")]
                    if (run / "metrics.jsonl").exists()
                    else []
                )
                if not findings and log and max(log) > step_of(run) + INTERVAL:
                    findings.append(f"the log knows step {max(log)}, the newest checkpoint is of step {step_of(run)}")
                row.tried(f"kill {row.tries + 1}", findings)
                latest, best = (-1, -1) if findings else (step_of(run), step_of(run, load_best))
                continue
        last = min(last, time.monotonic() - began)  # the machine may have been busier when it was first measured
        first = min(first, 0.9 * last)
        wrong = differences(state(run), whole) if process.returncode == 0 else [said.decode().strip()[-300:]]
        row.findings += [f"after kill {row.tries}: {each}" for each in wrong]
        finished, latest, best = finished + 1, -1, -1
        shutil.rmtree(run)
    row.note = f"{finished} runs went on to their end"


# ----------------------------------------------------------------------------------------------------------- the guards


def copy_of_the_source(work: Path) -> Path:
    copy = work / "source"
    ignored = shutil.ignore_patterns("__pycache__", ".*", "build", "dist", "runs", "*.egg-info")
    shutil.copytree(ROOT, copy, ignore=ignored, symlinks=True)
    return copy


def tested(copy: Path, tests: Iterable[str], seconds: int = 3600) -> tuple[int, str]:
    """pytest's exit code on some tests of a copy of the source, and the end of what it says; -SIGALRM where it hangs.

    By a fork, which forgets this source and keeps all other modules: starting an interpreter takes longer than a test.
    """

    def task() -> int:
        os.environ["PYTHONPATH"] = sys.path[0] = str(copy)
        os.chdir(copy)
        for name, module in list(sys.modules.items()):
            ours = str(getattr(module, "__file__", "")).startswith((f"{ROOT}/minifcn/", f"{ROOT}/tests/"))
            if name != "__main__" and ours:  # and not what a .venv in this folder holds
                del sys.modules[name]
        signal.alarm(seconds)
        return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]))

    code, said = in_a_fork(copy.parent / "said", task)
    return code, said.strip()[-300:]


def write(folder: Path, texts: dict[str, str]) -> None:
    """Each text with a time of its own: Python takes a compiled module for that of a file of the same time and size."""
    for file, text in texts.items():
        before = (folder / file).stat().st_mtime
        (folder / file).write_text(text, encoding="utf-8")
        os.utime(folder / file, (before + 2, before + 2))


def without(copy: Path, taken: Guard, busy: float) -> str:
    """What is wrong with a guard: "" if its test is green with it and red without it.

    busy: how much longer everything takes on this machine than it computes.
    """
    before = {file: (copy / "minifcn" / file).read_text(encoding="utf-8") for file, _, _ in taken.edits}
    after = dict(before)
    for file, old, new in taken.edits:
        if after[file].count(old) != 1:
            return f"{file} has {old!r} {after[file].count(old)} times, expected once: change tests/guards.py"
        after[file] = after[file].replace(old, new)
    write(copy / "minifcn", after)
    code, said = tested(copy, [taken.test], int(taken.seconds * busy))
    write(copy / "minifcn", before)
    if code in (1, -signal.SIGALRM):  # a hang may be what this guard is against
        return ""
    return f"{taken.test} stays green" if code == 0 else f"pytest leaves with {code}: {said}"


def guarded(row: Row, work: Path, part: tuple[int, int]) -> None:
    """Each guard out of a copy of the source in turn, after all their tests are green with it."""
    chosen = [each for at, each in enumerate(GUARDS) if at % part[1] == part[0] % part[1]]
    copy = copy_of_the_source(work)
    tests = list(dict.fromkeys(each.test for each in chosen))
    began = time.monotonic()
    for at in range(0, len(tests), 20):
        code, said = tested(copy, tests[at : at + 20])
        if code:
            row.findings.append(f"with every guard in its place, pytest leaves with {code}: {said}")
    computed = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = max(1.0, (time.monotonic() - began) / (computed.ru_utime + computed.ru_stime))
    for each in chosen:
        began = time.monotonic()
        wrong = without(copy, each, busy)
        if (took := time.monotonic() - began) > 30:
            print(f"row {each.row}, {each.test}: {took:.0f} s", file=sys.stderr)
        row.tried(f"row {each.row}", [wrong] if wrong else [])
    covered = {each.row for each in chosen}
    row.note = f"{len(covered - {0})} of the 44 rows"


# ------------------------------------------------------------------------------------------------------------ the table


def fuzzed(row: Row, executions: int) -> None:
    script = ROOT / "tests" / "fuzz.py"
    if not script.exists():
        row.note = "tests/fuzz.py is not here"
        return
    argv = [sys.executable, str(script), "--executions", str(executions)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout)
    row.tries = executions
    if done.returncode:
        row.findings.append(f"exit code {done.returncode}: {(done.stdout + done.stderr).strip()[-300:]}")


def table(rows: list[Row], words: str, seed: int) -> str:
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    lines = [
        f"`{words}` on {datetime.date.today()}, {machine}, seed {seed}:",
        "",
        "| what | tries | findings | seconds | |",
        "|---|---:|---:|---:|---|",
        *(f"| {row.what} | {row.tries} | {len(row.findings)} | {row.seconds:.0f} | {row.note} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(KINDS), help="some of the kinds, separated by commas")
    parser.add_argument("--kills", type=int, default=200, help="SIGKILLs at random moments")
    parser.add_argument("--executions", type=int, default=100_000, help="of the fuzzer")
    parser.add_argument("--part", default="0/1", help="K/N: every N-th call and guard, beginning with the K-th")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="the page whose table is replaced")
    chosen = parser.parse_args(argv)
    part = tuple(map(int, chosen.part.split("/")))
    kinds = chosen.only.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"found {', '.join(unknown)}; expected some of {', '.join(KINDS)}")
    import matplotlib.pyplot  # noqa: F401  so that no fork has to

    jobs: dict[str, tuple[str, Callable[[Row, Path], None]]] = {
        "kills": ("SIGKILL at random moments", lambda row, work: killed(row, work, chosen.kills, chosen.seed)),
        "calls": (
            "SIGKILL, ENOSPC, EIO, EACCES at each call",
            lambda row, work: in_turn(row, work, FAULTS, onward=False, warn=False, part=part),
        ),
        "full": (
            "a disk that is full from each write on",
            lambda row, work: in_turn(row, work, ["ENOSPC"], onward=True, warn=False, part=part),
        ),
        "warn": (
            "ENOSPC and EIO at each call, --on-save-error warn",
            lambda row, work: in_turn(row, work, ["ENOSPC", "EIO"], onward=False, warn=True, part=part),
        ),
        "guards": ("guards taken out, of which no test says so", lambda row, work: guarded(row, work, part)),
        "fuzz": ("executions of the fuzzer", lambda row, work: fuzzed(row, chosen.executions)),
    }
    rows = []
    for kind in kinds:
        what, job = jobs[kind]
        rows.append(row := Row(what))
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as work:
            job(row, Path(work))
        row.seconds = time.monotonic() - began
        print(f"{what}: {row.tries} tries, {len(row.findings)} findings, {row.seconds:.0f} s", file=sys.stderr)
    words = " ".join(
        ["python tests/campaign.py", *(word for word in argv if not word.startswith(("--write", "docs/")))]
    )
    text = table(rows, words, chosen.seed)
    print(text)
    for row in rows:
        for finding in row.findings:
            print(f"- {row.what}: {finding}")
    if chosen.write:
        page = chosen.write.read_text(encoding="utf-8")
        chosen.write.write_text(TABLE.sub(lambda found: f"{found[1]}{text}{found[2]}", page), encoding="utf-8")
    return int(any(row.findings for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
