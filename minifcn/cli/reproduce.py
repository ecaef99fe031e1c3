"""`minifcn reproduce`: rerun the paper's tables and compare them with its numbers.

    minifcn reproduce                        everything, over three seeds
    minifcn reproduce strides cues           these tables alone
    minifcn reproduce exact bound            what needs no training
    minifcn reproduce --quick                one seed and few images: does everything run?
    minifcn reproduce cues --page P.md --keep    this table anew, on a page with the others as they were
    minifcn reproduce --dry-run              the training runs, what is done of them, how long the rest takes

Every training run is a run folder in OUT/cells, shared by all tables that need it. You can interrupt it at any time;
the same command continues, and does nothing twice.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from minifcn.cli.command import parse_words, say
from minifcn.errors import FormatError, UsageError
from minifcn.experiments.reproduction.bound import upper_bound
from minifcn.experiments.reproduction.cells import PRETRAIN, Job, jobs
from minifcn.experiments.reproduction.exact import exact_rows
from minifcn.experiments.reproduction.page import Findings, beside, read_page, sections, write_html, write_markdown
from minifcn.experiments.reproduction.results import Result, read_result
from minifcn.experiments.reproduction.runner import Runner, Times, begun, finished, folder_of
from minifcn.experiments.reproduction.tables import TABLES, chosen
from minifcn.formats.limits import path_of
from minifcn.kernels.threads import cores
from minifcn.training.progress import clock
from minifcn.training.ranges import check_ranges

EXACT, BOUND = "exact", "bound"
UNTRAINED = {
    EXACT: "every number of the paper that follows from definitions",
    BOUND: "the upper bound on mean IU, by real masks",
}
MOST_SEEDS = 100


@dataclass(frozen=True)
class Options:
    """Re-run the paper: `minifcn reproduce [TABLE ...] [options]`; without tables, all of it."""

    out: Annotated[
        str, "the folder for the training runs and the page [runs/reproduction, with --quick runs/reproduction-quick]"
    ] = ""
    seeds: Annotated[int, "from so many seeds: 0, 1, 2; --quick takes one"] = 3
    jobs: Annotated[int, "training runs at a time, each on one thread (0: one for each core)"] = 0
    quick: Annotated[
        bool, "one seed, a fraction of the images and steps, and no verdicts: a check that everything runs"
    ] = False
    page: Annotated[str, "write the page to this Markdown file, too, its pictures into images/ beside it"] = ""
    keep: Annotated[bool, "keep in --page what this run does not make: the other tables, as they are there"] = False
    list: Annotated[bool, "list the tables, and leave"] = False
    dry_run: Annotated[
        bool, "list what would be run, what is done already, and about how long the rest takes; then exit"
    ] = False


def main(argv: list[str]) -> int:
    """Run what is missing, and write the page. Return 0; 1 if a cell failed; 130 or 143 if interrupted."""
    after = f"tables:\n{listed()}"
    words, options = parse_words(Options, argv, verb="reproduce", words="[TABLE ...]", after=after)
    if options.list:
        say(*listed().split("\n"))
        return 0
    names = chosen(words, tuple(UNTRAINED))
    check(options)
    older = read_page(path_of(options.page)) if options.keep else {}
    out = path_of(options.out or f"runs/reproduction{'-quick' if options.quick else ''}")
    seeds = range(1 if options.quick else options.seeds)
    tables = [TABLES[name] for name in names if name in TABLES]
    plan = jobs([cell for table in tables for cell in table.cells], seeds, quick=options.quick)
    at_once = options.jobs or cores()
    if options.dry_run:
        return preview(plan, out, at_once)
    runner = Runner(plan, out, at_once=at_once, say=say)
    if plan:
        say(f"{len(plan)} cells, {len(runner.done)} of them done; {at_once} at a time, in {out}")
    code = runner.run()
    command = shlex.join(["minifcn", "reproduce", *argv])
    if code:
        say(f"stopped after {len(runner.done)} of {len(plan)} cells, everything is saved; to go on: {command}")
        return code
    findings = Findings(
        command=command_shown(words, options),
        seeds=seeds,
        tables=tables,
        results=results_of(runner.done, out),
        exact=exact_rows() if EXACT in names else (),
        bound=upper_bound() if BOUND in names else None,
        quick=options.quick,
        failed=runner.failed,
        cells=len(plan),
        jobs=at_once,
        core_seconds=sum(runner.times.jobs.get(job.folder, 0.0) for job in plan),
        seconds=runner.times.whole,
    )
    for path in write(findings, out, options.page, older):
        say(f"wrote {path}")
    if runner.failed:
        say(f"{len(runner.failed)} of {len(plan)} cells failed; the same command tries them again", to=sys.stderr)
    wrong = [row for row in findings.exact if not row.holds]
    for row in wrong:
        say(f"FAILS: {row.section}, {row.claim}: expected {row.expected or row.paper}, found {row.ours}")
    return 1 if runner.failed or wrong else 0


def listed() -> str:
    """Return the tables with their titles, a line each."""
    titles = UNTRAINED | {name: table.title for name, table in TABLES.items()}
    return "\n".join(f"  {name:<14} {title}" for name, title in titles.items())


def check(options: Options) -> None:
    """Refuse what cannot be done before anything begins."""
    check_ranges(options, [("seeds", 1, MOST_SEEDS), ("jobs", 0, 1024)])
    if "," in options.out:
        raise UsageError(f"option out is {options.out!r}; expected a folder without a comma, which separates runs")
    if options.out and path_of(options.out).exists() and not path_of(options.out).is_dir():
        raise UsageError(f"{options.out}: is no folder; choose another --out")
    if options.keep and (options.quick or not options.page):
        raise UsageError("option keep is for a --page with the numbers of whole runs; expected --page and no --quick")
    page = path_of(options.page)
    if options.page and (page.is_dir() or page.suffix != ".md" or not page.absolute().parent.is_dir()):
        raise UsageError(f"{options.page}: expected a file .md in a folder that exists; choose another --page")


def preview(plan: Sequence[Job], out: Path, at_once: int) -> int:
    """Print what would be run, a line for each cell and seed. Return the exit code."""
    done = [job for job in plan if finished(job, out)]
    known = {job.folder for job in done}
    waiting = [job for job in plan if job.folder not in known]
    for job in plan:
        state = "done" if job.folder in known else "goes on" if begun(job, out) else "to do"
        say(f"{state:<8} {job.folder:<40} {', '.join(parent.folder for parent in job.parents)}".rstrip())
    left = Times.read(out / "times.json").left(waiting, done)
    say(
        f"{len(plan)} cells, {len(done)} of them done; the others take about {clock(left)} of one core, "
        f"{clock(left / max(1, min(at_once, len(waiting))))} with {at_once} at a time"
    )
    return 0


def command_shown(words: Sequence[str], options: Options) -> str:
    """Return the command that makes a page, without the places of this machine."""
    more = ["--quick"] if options.quick else [f"--seeds {options.seeds}"] * (options.seeds != Options.seeds)
    return " ".join(["minifcn", "reproduce", *words, *more])


def results_of(done: Sequence[Job], out: Path) -> dict[tuple[str, int], Result]:
    """Return what the finished jobs have measured; a file that has spoiled since is left out."""
    found = {}
    for job in done:
        if job.cell.kind != PRETRAIN:
            try:
                found[job.cell.name, job.seed] = read_result(folder_of(job, out), job)
            except FormatError as fault:
                say(f"left out: {fault}", to=sys.stderr)
    return found


def write(findings: Findings, out: Path, page: str, older: Mapping[str, str]) -> list[Path]:
    """Write the page into `out`, as Markdown and as HTML, and wherever else it is wanted, there beside `older` ones."""
    found = list(sections(findings))
    written = [*write_markdown(found, out / "reproduction.md")[:1], write_html(found, out / "report.html")]
    if older:
        found = beside(older, found, day=time.strftime("%Y-%m-%d"))
    return written + (write_markdown(found, path_of(page)) if page else [])
