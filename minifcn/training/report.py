"""Write `report.html`, a run on one self-contained page.

The page carries its pictures inside itself, loads nothing from anywhere and runs no script, so it can be mailed,
archived, or opened years later. What the run folder lacks is left out, and the page says what and how to get it.

Class names, file names and settings come from files that anyone may have written. They become HTML in exactly one
place, `tag`, which escapes every text it is given.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from minifcn import viz
from minifcn.data.sample import fault_of_names
from minifcn.errors import DataError, MinifcnError
from minifcn.formats.checkpoint import replace_file
from minifcn.formats.limits import path_of
from minifcn.formats.strict_json import parse_json
from minifcn.introspect.markup import Html, inline, tag
from minifcn.metrics import Absent, ConfusionMatrix

MEASURES = {
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "mean_iu": "mean IU",
    "frequency_weighted_iu": "f.w. IU",
}
MOST_SAMPLES = 24
STYLE = Path(__file__).with_name("report.css")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def write_report(run_dir: Path, *, refresh: int = 0) -> Path:
    """Write `report.html`, `curves.png` and `confusion.png` into a run folder, and return the path of the page.

    It reads config.json, metrics.jsonl, evaluation.json and samples/*.png, as far as they exist. With `refresh`, the
    run goes on, and the page loads itself again after so many seconds. Raises DataError if `run_dir` is not a folder.
    """
    run_dir = path_of(run_dir)
    if not run_dir.is_dir():
        raise DataError(f"{run_dir}: no such run folder; a training run makes one")
    notes: list[str] = []
    config = _read(run_dir, "config.json", notes, _as_mapping) or {}
    history = _read(run_dir, "metrics.jsonl", notes, partial(_as_history, notes=notes)) or []
    evaluation = _read(run_dir, "evaluation.json", notes, _as_evaluation)
    sections = []
    if refresh:
        words = f"The run goes on. This page loads itself again every {refresh} seconds."
        sections.append(tag("p", words, class_="quiet"))
    if evaluation:
        sections.append(_scores(evaluation))
    else:
        sections += _last_measured(history)
    sections += _warnings(history)
    if history:
        curves = run_dir / "curves.png"
        viz.curves(history, curves)
        picture = plot(curves, "Loss per pixel and validation measures over steps")
        sections.append(section("Learning curves", tag("div", picture, class_="wide broad")))
    if evaluation:
        sections += [_classes(evaluation), _confusion(evaluation, run_dir / "confusion.png")]
    samples = _samples(run_dir, notes)
    if samples:
        sections.append(section("Samples", *samples))
    environment = config.pop("environment", None)
    for title, settings in (("Configuration", config), ("Environment", environment)):
        if isinstance(settings, dict) and settings:
            sections.append(section(title, table((), _flat(settings), class_="settings")))
    if notes:
        sections.append(section("Not on this page", tag("ul", *(tag("li", note) for note in notes))))
    return write_page(run_dir / "report.html", run_dir.resolve().name, sections, refresh=refresh)


# What the run folder holds.


@dataclass(frozen=True)
class Evaluation:
    """An evaluation.json that has been checked: its counts, the names that go with them, the policy for absent classes
    and the classes it leaves out of mean IU, and everything else the file says."""

    confusion: ConfusionMatrix
    classes: Sequence[str]
    absent: Absent
    skipped: tuple[int, ...]
    said: Mapping[str, Any]


def _read(run_dir: Path, name: str, notes: list[str], parse: Callable[[str], Any]) -> Any:
    """Return one file of the run folder, or None with a note that says why it is not on the page."""
    try:
        if (run_dir / name).exists() and not (run_dir / name).is_file():  # a pipe or a device would never end
            raise DataError("it is no file")
        return parse((run_dir / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        cure = "; evaluating the run writes it" if name == "evaluation.json" else ""
        notes.append(f"{name} is not in the run folder{cure}.")
    except (OSError, ValueError, KeyError, TypeError, MinifcnError) as error:
        notes.append(f"{name} cannot be used: {type(error).__name__}: {error}.")
    return None


def _as_mapping(text: str) -> dict[str, Any]:
    data = parse_json(text)
    if not isinstance(data, dict):
        raise DataError(f"expected an object, found {type(data).__name__}")
    return data


def _as_history(text: str, notes: list[str]) -> list[dict[str, Any]]:
    """Return the records of a metrics.jsonl. Broken lines are noted, but for the last one, which a kill may cut."""
    lines = [line for line in text.splitlines() if line.strip()]
    history = []
    for number, line in enumerate(lines, start=1):
        try:
            history.append(_as_mapping(line))
        except ValueError:
            if number < len(lines):
                notes.append(f"metrics.jsonl: line {number} is not JSON and is left out.")
    return history


def _as_evaluation(text: str) -> Evaluation:
    data = _as_mapping(text)
    confusion = ConfusionMatrix.of(data["confusion"])
    if not isinstance(data["classes"], list) or len(data["classes"]) != confusion.classes:
        raise DataError(f"classes must list {confusion.classes} names, as many as the confusion matrix has rows")
    if fault := fault_of_names(map(str, data["classes"])):
        raise DataError(f"classes hold {fault}")
    absent = data.get("absent", "skip")
    return Evaluation(confusion, [str(name) for name in data["classes"]], absent, confusion.skipped(absent), data)


# The page, section by section.


def _scores(evaluation: Evaluation) -> Html:
    """Return the four measures beside those of two predictors that look at no pixel."""
    said = evaluation.said
    baselines = said.get("baselines")
    predictors = {"this net": said}
    for name, measures in baselines.items() if isinstance(baselines, dict) else ():
        predictors[f"baseline: {name}"] = measures if isinstance(measures, dict) else {}
    rows = [(name, *(_number(found.get(key)) for key in MEASURES)) for name, found in predictors.items()]
    looks = dict.fromkeys(range(1, 1 + len(MEASURES)), "number")
    where = f"{said.get('images', '?')} images of the split “{said.get('split', '?')}”"
    return section(
        "The four measures",
        table(("", *MEASURES.values()), rows, looks=looks, class_="scores"),
        tag("p", f"On {where}. {_averaging(evaluation)}", class_="quiet"),
    )


def _last_measured(history: Sequence[Mapping[str, Any]]) -> Iterator[Html]:
    """Yield the newest measures on the validation split, of a run without an evaluation."""
    measured = [record for record in history if record.get("kind") == "val"]
    for record in measured[-1:]:
        values = [tuple(_number(record.get(key)) for key in MEASURES)]
        where = f"On the split “{record.get('split', '?')}”, after step {record.get('step', '?')}."
        looks = dict.fromkeys(range(len(MEASURES)), "number")
        quiet = tag("p", where, class_="quiet")
        yield section("The last measurement", table(tuple(MEASURES.values()), values, looks=looks), quiet)


def _warnings(history: Sequence[Mapping[str, Any]]) -> Iterator[Html]:
    """Yield the warnings: each sentence once, with the first and the last step at which it was printed."""
    steps: dict[str, list[str]] = {}
    for record in history:
        found = record.get("warnings")
        for text in found if isinstance(found, list) else ():
            steps.setdefault(str(text), []).append(str(record.get("step")))
    lines = []
    for text, at in steps.items():
        times = f" ({len(at)} times, the last at step {at[-1]})" if len(at) > 1 else ""
        lines.append(tag("li", f"step {at[0]}: {text}{times}"))
    if lines:
        yield section("Warnings", tag("ul", *lines))


def _averaging(evaluation: Evaluation) -> str:
    """Return which classes the means are over: without it, a mean IU cannot be compared with another."""
    count, skipped = evaluation.confusion.classes, evaluation.skipped
    if not skipped:
        return f"Mean IU is over all {count} classes (absent = {evaluation.absent})."
    names = ", ".join(evaluation.classes[index] for index in skipped)
    return (
        f"Mean IU is over {count - len(skipped)} of {count} classes (absent = {evaluation.absent}); left out: {names}."
    )


def _classes(evaluation: Evaluation) -> Html:
    """Return a table of the IU of each class with its colour, and how much of the pixels it is and was said to be."""
    confusion = evaluation.confusion
    columns = (evaluation.classes, confusion.iu().tolist(), confusion.shares_true(), confusion.shares_predicted())
    rows = [
        (tag("span", swatch(index), name), _number(iu), _bar(iu), f"{100 * true:.2f} %", f"{100 * predicted:.2f} %")
        for index, (name, iu, true, predicted) in enumerate(zip(*columns, strict=True))
    ]
    looks = {1: "number", 2: "bar", 3: "number", 4: "number"}
    dash = "A dash: the class neither occurs nor was predicted, so its IU is 0/0."
    quiet = [tag("p", dash, class_="quiet")] if confusion.skipped() else []
    return section("Classes", table(("class", "IU", "", "true pixels", "predicted"), rows, looks=looks), *quiet)


def _confusion(evaluation: Evaluation, path: Path) -> Html:
    viz.confusion_picture(evaluation.confusion.matrix, evaluation.classes, path)
    quiet = tag("p", "Per cent of a class's true pixels: read along a row what a class was taken for.", class_="quiet")
    return section("Confusion matrix", plot(path, "Confusion matrix"), quiet)


def _samples(run_dir: Path, notes: list[str]) -> list[Html]:
    paths, figures = sorted(path for path in (run_dir / "samples").glob("*.png") if path.is_file()), []
    if not paths:
        notes.append("samples/ holds no pictures.")
    if len(paths) > MOST_SAMPLES:
        notes.append(f"samples/ holds {len(paths)} pictures; the first {MOST_SAMPLES} by name are shown.")
    for path in paths[:MOST_SAMPLES]:
        data = path.read_bytes()
        if data.startswith(PNG_SIGNATURE):
            figures.append(tag("figure", tag("img", src=inline(data), alt=path.stem), tag("figcaption", path.stem)))
        else:
            notes.append(f"samples/{path.name} is not a PNG file.")
    return figures


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested settings as dotted names, in their own order."""
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# HTML.


def section(title: str, *content: Html) -> Html:
    """Return a part of the page, with its heading."""
    return tag("section", tag("h2", title), *content)


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    looks: Mapping[int, str] = MappingProxyType({}),
    class_: str | None = None,
) -> Html:
    """Return a table that scrolls by itself where the page is narrow; the first cell of a row is its heading.

    looks: `{column: CSS class of its cells}`.
    """

    def line(cells: Sequence[str], name: str) -> Html:
        return tag("tr", *(tag(name if at else "th", cell, class_=looks.get(at)) for at, cell in enumerate(cells)))

    top = [tag("thead", line(head, "th"))] if head else []
    body = tag("tbody", *(line(row, "td") for row in rows))
    return tag("div", tag("table", *top, body, class_=class_), class_="wide")


def plot(path: Path, alt: str) -> Html:
    """Return a plot in the size it was drawn for: its pixels are finer than those of a page."""
    png = path.read_bytes()
    width = int.from_bytes(png[16:20], "big") * 2 // 3  # a PNG says its width in these bytes
    return tag("img", src=inline(png), alt=alt, width=str(width), class_="plot")


def swatch(index: int) -> Html:
    """Return a spot of the colour of a class."""
    red, green, blue = viz.palette()[index % 256]
    return tag("span", "", class_="swatch", style=f"background:rgb({red},{green},{blue})")


def _bar(part: float) -> Html | str:
    if not math.isfinite(part):
        return ""
    return tag("span", tag("span", "", style=f"width:{100 * part:.1f}%"), class_="track")


def _number(value: Any) -> str:
    usable = isinstance(value, int | float) and math.isfinite(value)
    return f"{value:.3f}" if usable else "–"


def write_page(
    path: Path,
    name: str,
    sections: Sequence[Html],
    *,
    above: str = "minifcn run",
    script: Path | None = None,
    refresh: int = 0,
) -> Path:
    """Write a whole page: its name as title and heading, a word above the heading, and the sections. Return `path`.

    `script` is the file of a script that the page runs. With `refresh`, a browser loads it again after so many seconds.
    """
    again = [tag("meta", **{"http-equiv": "refresh", "content": str(refresh)})] if refresh else []
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        *again,
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{name} – minifcn"),
        Html(f"<style>{STYLE.read_text(encoding='utf-8')}</style>"),
    )
    title = tag("header", tag("p", above, class_="quiet"), tag("h1", name))
    runs = [Html(f"<script>{script.read_text(encoding='utf-8')}</script>")] if script else []
    body = tag("body", tag("main", title, *sections, *runs))
    replace_file(path, [f'<!DOCTYPE html>\n<html lang="en">{head}{body}</html>\n'.encode()])
    return path
