"""Write the results page, in Markdown and HTML, with a verdict for each claim.

Both are made from the same list of sections, so they cannot say different things. Whatever comes out of a file is a
number by then; the names are ours. `beside` puts new tables into a page that was made before.
"""

from __future__ import annotations

import contextlib
import math
import platform
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from minifcn import __version__
from minifcn.errors import FormatError, UsageError
from minifcn.experiments.reproduction.bound import Bound
from minifcn.experiments.reproduction.cells import CODE
from minifcn.experiments.reproduction.figures import bars, loss_curves, number
from minifcn.experiments.reproduction.results import MEASURES, SHARES
from minifcn.experiments.reproduction.row import HEADER
from minifcn.experiments.reproduction.row import Row as ExactRow
from minifcn.experiments.reproduction.tables import DAGGER, TABLES, Results, Table, summary
from minifcn.experiments.reproduction.verdict import HELD, REVERSED, UNDECIDED, Verdict
from minifcn.formats.checkpoint import replace_file
from minifcn.kernels.threads import cores
from minifcn.training import report
from minifcn.training.progress import clock
from minifcn.training.report import Html, tag

TITLE = "The paper, re-run"
MADE, HELD_HERE, FAILED = "How it was made", "What held", "Cells that failed"
UNTRAINED = ("Exact", "The best that coarse predictions can be")
MOST_PAGE = 4 << 20  # bytes


@dataclass(frozen=True)
class TextTable:
    """A table: its head and its rows, all text."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Picture:
    """A PNG and what it shows."""

    name: str
    alt: str
    png: bytes


Block = str | TextTable | Picture


Section = tuple[str, list[Block]]
"""A heading and what stands below it."""


@dataclass(frozen=True)
class Findings:
    """Everything that is on a page."""

    command: str
    seeds: Sequence[int]
    tables: Sequence[Table]
    results: Results
    exact: Sequence[ExactRow] = ()
    bound: Bound | None = None
    quick: bool = False
    failed: Mapping[str, str] = field(default_factory=dict)
    cells: int = 0
    jobs: int = 1
    core_seconds: float = 0.0
    seconds: float = 0.0


# --------------------------------------------------------------------------------------------------------- the sections


def sections(f: Findings) -> Iterator[Section]:
    """Yield the page, from top to bottom."""
    yield MADE, list(_made(f))
    if f.tables and not f.quick:
        yield HELD_HERE, _verdicts(f)
    if f.exact:
        yield UNTRAINED[0], list(_exact(f.exact))
    if f.bound is not None:
        yield UNTRAINED[1], list(_bound(f.bound))
    for table in f.tables:
        yield table.title, list(_table(table, f))
    if f.failed:
        yield FAILED, [TextTable(("cell", "what it said"), tuple(f.failed.items()))]


def _made(f: Findings) -> Iterator[Block]:
    machine = (
        f"minifcn {__version__} (cells of generation {CODE}), NumPy {np.__version__}, Python "
        f"{platform.python_version()}, {machine_kind()}"
    )
    if not f.tables:
        yield f"Made by `{f.command}`: {machine}. Nothing was trained for these parts."
        yield "The tables of the paper that need training are not on this page: they were not asked for."
        return
    seeds = ", ".join(map(str, f.seeds))
    yield (
        f"Made by `{f.command}`: {machine}; {f.cells} runs on one thread each, {f.jobs} at a time, "
        f"{clock(f.core_seconds)} for all of them together and {clock(f.seconds)} on the clock. Seeds: {seeds}. "
        "A seed decides the world's scenes, the initial weights and the order of the images."
    )
    if f.quick:
        yield (
            "**A quick run**: one seed and a fraction of the images and steps. It shows that everything runs; its "
            "numbers mean nothing, and there are no verdicts."
        )
        return
    yield (
        "Instead of PASCAL VOC these runs use the embedded world, whose scenes are drawn; instead of VGG-16 they use "
        "VGG-11 with 8 channels in its first block, an eighth of the original; and training takes a minute, not days, "
        "with Adam, which gets further in so few steps than the paper's SGD with momentum. Unless a table says "
        "otherwise, the nets are FCN-8s, trained in one stage from random weights on scenes of 64 x 64. Each table "
        "lists its other differences."
    )
    yield (
        "Numbers are per cent on the validation scenes, *mean ± sample standard deviation* over the seeds, beside "
        "those of the paper, which are of other images, larger nets and longer training: they are not to be compared "
        f"with ours, their order is. {DAGGER}: quoted from memory, not checked against the text."
    )
    yield (
        "A claim is *held* if the difference has the paper's sign in every seed, the seeds being paired, and its mean "
        "exceeds its sample standard deviation; *reversed* if that is so with the opposite sign; and else *undecided*. "
        "Where the paper saw no difference, a difference that is decided reverses it, and without one it stays "
        "undecided: not to see a difference does not show that there is none."
    )


def machine_kind() -> str:
    """Return the cores that may be used and their kind; no name and no place."""
    kind = ""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        kind = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "")
    kind = " ".join(kind.replace("(R)", "").replace("(TM)", "").split()) or platform.machine()
    return f"{cores()} cores of {kind}"


def _verdicts(f: Findings) -> list[Block]:
    found = [(table, claim, claim.verdict(f.results, f.seeds)) for table in f.tables for claim in table.claims]
    return _counted([(table.title, claim.text, *_numbers(claim.measure, verdict)) for table, claim, verdict in found])


def _counted(rows: Sequence[tuple[str, ...]]) -> list[Block]:
    words = [row[-1].strip("*") for row in rows]
    counts = ", ".join(f"{words.count(word)} {word}" for word in (HELD, REVERSED, UNDECIDED))
    head = ("table", "claim", "difference", "spread", "verdict")
    return [f"Of {len(words)} claims: {counts}.", TextTable(head, tuple(rows))]


def _numbers(measure: str, verdict: Verdict) -> tuple[str, str, str]:
    word = f"**{verdict.word}**" if verdict.word != UNDECIDED else verdict.word
    return _shown(measure, verdict.mean, "+"), _shown(measure, verdict.spread), word


def _shown(measure: str, value: float, sign: str = "-", *, seconds: int = 1) -> str:
    """Return a value of a measure as text, shares in per cent; `seconds` are the digits of seconds."""
    if not math.isfinite(value):
        return "–"
    scale, digits = (100, 1) if measure in SHARES else (1, 3 if measure == "loss" else seconds)
    return f"{scale * value:{sign}.{digits}f}"


def _exact(rows: Sequence[ExactRow]) -> Iterator[Block]:
    holds = sum(row.holds for row in rows)
    yield (
        "What follows from definitions is computed anew, without training. *erratum*: the paper's figure is corrected, "
        f"and the corrected one comes out. {holds} of {len(rows)} rows come out as they have to."
    )
    yield TextTable(HEADER, tuple(row.cells() for row in rows))


def _bound(bound: Bound) -> Iterator[Block]:
    yield (
        "The truth itself, made coarse and fine again, in mean IU (appendix A of the paper, of a subset of PASCAL VOC "
        "2011's validation set). The paper does not say how its labels were resampled; the names of our rows say how "
        "ours were: made coarse, and made fine again; the gap is the mean distance from the paper's row."
    )
    yield TextTable(bound.header, tuple(tuple(str(cell) for cell in line) for line in bound.rows))
    yield bound.skipped or f"{bound.images} masks of PASCAL VOC 2012, with {bound.classes} classes in them."


def _table(table: Table, f: Findings) -> Iterator[Block]:
    yield f"The paper: {table.paper}. Here: {table.differs}"
    heads = [MEASURES[measure][0] for measure in table.columns]
    with_paper = any(row.paper for row in table.rows)
    rows = []
    for row in table.rows:
        ours = [_ours(f, row.cell, measure) for measure in table.columns]
        if row.paper:
            rows.append((row.name, "the paper", *row.paper, *[""] * (len(heads) - len(row.paper))))
        rows.append(("" if row.paper else row.name, *["here"] * with_paper, *ours))
    yield TextTable(("", *[""] * with_paper, *heads), tuple(rows))
    if not f.quick:
        lines = []
        for claim in table.claims:
            verdict = claim.verdict(f.results, f.seeds)
            lines.append((claim.text, MEASURES[claim.measure][0], *_numbers(claim.measure, verdict)))
        yield TextTable(("claim", "measure", "difference", "spread", "verdict"), tuple(lines))
    if with_paper:
        measure = "mean_iu" if "mean_iu" in table.columns else table.columns[0]
        at, head, shown = table.columns.index(measure), MEASURES[measure][0], {}
        for row in table.rows:
            mean, spread = summary(f.results, row.cell, f.seeds, measure)
            shown[row.name] = (number(row.paper[at]) if row.paper else math.nan, 100 * mean, 100 * spread)
        yield Picture(table.name, f"{table.title}: {head}", bars(shown, f"{head}, per cent"))
    if table.curves:
        curves = {
            row.name: [f.results[row.cell, seed].curve() for seed in f.seeds if (row.cell, seed) in f.results]
            for row in table.rows
        }
        shows = f"{table.title}: training loss over steps, images, time"
        yield Picture(f"{table.name}-loss", shows, loss_curves(curves))


def _ours(f: Findings, cell: str, measure: str) -> str:
    mean, spread = (_shown(measure, value, seconds=0) for value in summary(f.results, cell, f.seeds, measure))
    return f"{mean} ± {spread}" if spread != "–" else mean


# ------------------------------------------------------------------------------------------------- beside an older page


def read_page(path: Path) -> dict[str, str]:
    """Return the sections of a page that `write_markdown` has written: the text of each, by title.

    Raises `UsageError` for a file that cannot be read, `FormatError` for one that is no such page.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(MOST_PAGE).decode("utf-8", "replace")
    except OSError as fault:
        raise UsageError(f"{path}: cannot be read ({fault.strerror}); expected a page to be kept") from fault
    head, *parts = f"\n{text}".split("\n## ")
    older = {title: body.strip() for title, _, body in (part.partition("\n") for part in parts)}
    if head.strip() != f"# {TITLE}" or MADE not in older:
        raise FormatError(f"{path}: is none of our pages; expected one that the reproduction has written")
    return older


def beside(older: Mapping[str, str], found: Iterable[Section], *, day: str) -> list[Section]:
    """Return the sections of an older page with those of this one in their places, and all their claims counted.

    How the new ones were made is said below how the old ones were, with the `day`.
    """
    new = dict(found)
    titles = [title for title in new if title not in (MADE, HELD_HERE)]
    start = f"{', '.join(f'*{title}*' for title in titles)}: made later, on "
    made = [text for text in older[MADE].split("\n\n") if not text.startswith(start)]
    both = "A row that older tables have, too, was not taken from them: both numbers stand."
    new[MADE] = [*made, f"{start}{day}. {new[MADE][0]} {both}"]
    order = [MADE, HELD_HERE, *UNTRAINED, *(table.title for table in TABLES.values())]

    def place(title: str) -> int:
        return order.index(title) if title in order else len(order)

    rows = [_cells(line) for line in older.get(HELD_HERE, "").split("\n")[4:]]
    rows = [row for row in rows if row[0] not in titles]
    if HELD_HERE in new:
        rows += next(block.rows for block in new[HELD_HERE] if isinstance(block, TextTable))
    if rows:
        new[HELD_HERE] = _counted(sorted(rows, key=lambda row: place(row[0])))
    merged: dict[str, list[Block]] = {title: [body] for title, body in older.items()}
    return sorted((merged | new).items(), key=lambda section: place(section[0]))


def _cells(line: str) -> tuple[str, ...]:
    """Return the cells of a line that `_line` has written."""
    return tuple(cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1])


# ------------------------------------------------------------------------------------------------------------ the pages


def write_markdown(found: Iterable[Section], path: Path) -> list[Path]:
    """Write the page as Markdown, its pictures in images/ beside it, and return the paths, the page first."""
    written, lines = [path], [f"# {TITLE}", ""]
    images = path.parent / "images"
    path.parent.mkdir(parents=True, exist_ok=True)
    for title, blocks in found:
        lines += [f"## {title}", ""]
        for block in blocks:
            if isinstance(block, Picture):
                images.mkdir(exist_ok=True)
                file = images / f"reproduction-{block.name}.png"
                replace_file(file, [block.png], sync=False)
                written.append(file)
                lines += [f"![{block.alt}](images/{file.name})", ""]
            elif isinstance(block, TextTable):
                lines += [_line(block.head), "|---" * len(block.head) + "|", *map(_line, block.rows), ""]
            else:
                lines += [block, ""]
    replace_file(path, ["\n".join(lines).encode()])
    return written


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"


def write_html(found: Iterable[Section], path: Path) -> Path:
    """Write the page as one HTML file that needs no other; return its path."""
    parts = [report.section(title, *map(_html, blocks)) for title, blocks in found]
    return report.write_page(path, TITLE, parts, above="minifcn reproduce")


def _html(block: Block) -> Html:
    if isinstance(block, Picture):
        return tag("div", tag("img", src=report.inline(block.png), alt=block.alt, class_="plot"), class_="wide broad")
    if isinstance(block, TextTable):
        return report.table(block.head, [[_plain(cell) for cell in row] for row in block.rows])
    return tag("p", _plain(block))


def _plain(text: str) -> str:
    """Return text without the marks of Markdown, which our sentences use for stress and for code alone."""
    return text.replace("**", "").replace("`", "").replace("*", "")
