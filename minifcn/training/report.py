"""Write `report.html`, a run on one self-contained page.

The page carries its pictures inside itself, loads nothing from anywhere and runs no script, so it can be mailed,
archived, or opened years later. What the run folder lacks is left out, and the page says what and how to get it.

Class names, file names and settings come from files that anyone may have written. They become HTML in exactly one
place, `tag`, which escapes every text it is given.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minifcn import viz
from minifcn.errors import DataError, MinifcnError
from minifcn.introspect.markup import Html, inline, tag
from minifcn.metrics import Absent, ConfusionMatrix

MEASURES = {
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "mean_iu": "mean IU",
    "frequency_weighted_iu": "f.w. IU",
}
MOST_SAMPLES = 24
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def write_report(run_dir: Path) -> Path:
    """Write `report.html`, `curves.png` and `confusion.png` into a run folder, and return the path of the page.

    Read are config.json, metrics.jsonl, evaluation.json and samples/*.png, as far as they are there. Raises DataError
    if `run_dir` is not a folder.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise DataError(f"{run_dir}: no such run folder; a run of `minifcn train` makes one")
    notes: list[str] = []
    config = _read(run_dir, "config.json", notes, _as_mapping) or {}
    history = _read(run_dir, "metrics.jsonl", notes, _as_history) or []
    evaluation = _read(run_dir, "evaluation.json", notes, _as_evaluation)
    sections = [
        *_scores(evaluation),
        *_curves(history, run_dir),
        *_classes(evaluation),
        *_confusion(evaluation, run_dir),
        *_samples(run_dir, notes),
        *_settings("Configuration", {key: value for key, value in config.items() if key != "environment"}),
        *_settings("Environment", config.get("environment")),
        *_notes(notes),
    ]
    path = run_dir / "report.html"
    path.write_text(page(run_dir.resolve().name, sections), encoding="utf-8")
    return path


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
    """One file of the run folder, or None with a note that says why it is not on the page."""
    try:
        return parse((run_dir / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        cure = "; `minifcn evaluate` on this folder writes it" if name == "evaluation.json" else ""
        notes.append(f"{name} is not in the run folder{cure}.")
    except (OSError, ValueError, KeyError, TypeError, RecursionError, MinifcnError) as error:
        notes.append(f"{name} cannot be used: {type(error).__name__}: {error}.")
    return None


def _as_mapping(text: str) -> dict[str, Any]:
    data = json.loads(text)
    if not isinstance(data, dict):
        raise DataError(f"expected an object, found {type(data).__name__}")
    return data


def _as_history(text: str) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl. The last line may be cut: a run that was killed is still worth a page."""
    lines = [line for line in text.splitlines() if line.strip()]
    history = []
    for number, line in enumerate(lines, start=1):
        try:
            history.append(_as_mapping(line))
        except ValueError:
            if number < len(lines):
                raise DataError(f"line {number} is not JSON") from None
    return history


def _as_evaluation(text: str) -> Evaluation:
    data = _as_mapping(text)
    confusion = ConfusionMatrix.of(data["confusion"])
    if not isinstance(data["classes"], list) or len(data["classes"]) != confusion.classes:
        raise DataError(f"classes must list {confusion.classes} names, as many as the confusion matrix has rows")
    absent = data.get("absent", "skip")
    return Evaluation(confusion, [str(name) for name in data["classes"]], absent, confusion.skipped(absent), data)


# The page, section by section. Each is a list, empty where there is nothing to show.


def _scores(evaluation: Evaluation | None) -> list[Html]:
    """The four measures beside those of two predictors that look at no pixel."""
    if evaluation is None:
        return []
    said = evaluation.said
    rows = [_score_row("this net", said, strong=True)]
    baselines = said.get("baselines")
    for name, measures in baselines.items() if isinstance(baselines, dict) else ():
        rows.append(_score_row(f"baseline: {name}", measures if isinstance(measures, dict) else {}))
    head = tag("tr", tag("th", ""), *(tag("th", name, class_="number") for name in MEASURES.values()))
    where = f"{said.get('images', '?')} images of the split “{said.get('split', '?')}”"
    return [
        tag(
            "section",
            tag("h2", "The four measures"),
            table(head, rows),
            tag("p", f"On {where}. {_averaging(evaluation)}", class_="quiet"),
        )
    ]


def _score_row(name: str, measures: Mapping[str, Any], *, strong: bool = False) -> Html:
    cells = (tag("td", _number(measures.get(key)), class_="number") for key in MEASURES)
    return tag("tr", tag("th", name), *cells, class_="strong" if strong else None)


def _averaging(evaluation: Evaluation) -> str:
    """Which classes the means are over: without it, a mean IU cannot be compared with another."""
    count, skipped = evaluation.confusion.classes, evaluation.skipped
    if not skipped:
        return f"Mean IU is over all {count} classes (absent = {evaluation.absent})."
    names = ", ".join(evaluation.classes[index] for index in skipped)
    return (
        f"Mean IU is over {count - len(skipped)} of {count} classes (absent = {evaluation.absent}); left out: {names}."
    )


def _curves(history: list[dict[str, Any]], run_dir: Path) -> list[Html]:
    if not history:
        return []
    path = run_dir / "curves.png"
    viz.curves(history, path)
    picture = plot(path, "Loss per pixel and validation measures over steps")
    return [tag("section", tag("h2", "Learning curves"), tag("div", picture, class_="wide broad"))]


def _classes(evaluation: Evaluation | None) -> list[Html]:
    """IU of each class with its colour, and how much of the pixels it is and was said to be."""
    if evaluation is None:
        return []
    confusion = evaluation.confusion
    head = ("class", "IU", "", "true pixels", "predicted")
    shares = zip(confusion.shares_true(), confusion.shares_predicted(), strict=True)
    rows = [
        tag(
            "tr",
            tag("th", _swatch(index), name),
            tag("td", _number(iu), class_="number"),
            tag("td", _bar(iu), class_="bar"),
            tag("td", f"{100 * true:.2f} %", class_="number"),
            tag("td", f"{100 * predicted:.2f} %", class_="number"),
        )
        for index, (name, iu, (true, predicted)) in enumerate(
            zip(evaluation.classes, confusion.iu().tolist(), shares, strict=True)
        )
    ]
    looks = (None, "number", "bar", "number", "number")
    header = tag("tr", *(tag("th", name, class_=look) for name, look in zip(head, looks, strict=True)))
    dash = "A dash: the class neither occurs nor was predicted, so its IU is 0/0."
    quiet = [tag("p", dash, class_="quiet")] if confusion.skipped() else []
    return [tag("section", tag("h2", "Classes"), table(header, rows), *quiet)]


def _confusion(evaluation: Evaluation | None, run_dir: Path) -> list[Html]:
    if evaluation is None:
        return []
    path = run_dir / "confusion.png"
    viz.confusion_picture(evaluation.confusion.matrix, evaluation.classes, path)
    picture = plot(path, "Confusion matrix")
    quiet = tag("p", "Per cent of a class's true pixels: read along a row what a class was taken for.", class_="quiet")
    return [tag("section", tag("h2", "Confusion matrix"), picture, quiet)]


def _samples(run_dir: Path, notes: list[str]) -> list[Html]:
    paths = sorted((run_dir / "samples").glob("*.png"))
    if not paths:
        notes.append("samples/ holds no pictures.")
        return []
    if len(paths) > MOST_SAMPLES:
        notes.append(f"samples/ holds {len(paths)} pictures; the first {MOST_SAMPLES} by name are shown.")
    figures = []
    for path in paths[:MOST_SAMPLES]:
        data = path.read_bytes()
        if data.startswith(PNG_SIGNATURE):
            figures.append(tag("figure", tag("img", src=inline(data), alt=path.stem), tag("figcaption", path.stem)))
        else:
            notes.append(f"samples/{path.name} is not a PNG file.")
    return [tag("section", tag("h2", "Samples"), *figures)] if figures else []


def _settings(title: str, settings: Any) -> list[Html]:
    if not isinstance(settings, dict) or not settings:
        return []
    rows = [tag("tr", tag("th", key), tag("td", value)) for key, value in _flat(settings)]
    return [tag("section", tag("h2", title), table(None, rows, class_="settings"))]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as dotted names, in their own order."""
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _notes(notes: list[str]) -> list[Html]:
    if not notes:
        return []
    return [tag("section", tag("h2", "Not on this page"), tag("ul", *(tag("li", note) for note in notes)))]


# HTML.


def table(head: Html | None, rows: Sequence[Html], class_: str | None = None) -> Html:
    """A table that scrolls by itself where the page is narrow."""
    body = tag("tbody", *rows)
    return tag("div", tag("table", *([tag("thead", head)] if head else []), body, class_=class_), class_="wide")


def plot(path: Path, alt: str) -> Html:
    """A plot in the size it was drawn for: its pixels are finer than those of a page."""
    png = path.read_bytes()
    width = int.from_bytes(png[16:20], "big") * 2 // 3  # a PNG says its width in these bytes
    return tag("img", src=inline(png), alt=alt, width=str(width), class_="plot")


def _swatch(index: int) -> Html:
    red, green, blue = viz.palette()[index % 256]
    return tag("span", "", class_="swatch", style=f"background:rgb({red},{green},{blue})")


def _bar(part: float) -> Html | str:
    if not math.isfinite(part):
        return ""
    return tag("span", tag("span", "", style=f"width:{100 * part:.1f}%"), class_="track")


def _number(value: Any) -> str:
    usable = isinstance(value, int | float) and math.isfinite(value)
    return f"{value:.3f}" if usable else "–"


def page(name: str, sections: Sequence[Html], *, above: str = "minifcn run") -> str:
    """A whole page: its name as title and heading, a word above the heading, and the sections."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{name} – minifcn"),
        Html(f"<style>{STYLE}</style>"),
    )
    title = tag("header", tag("p", above, class_="quiet"), tag("h1", name))
    body = tag("body", tag("main", title, *sections))
    return f'<!DOCTYPE html>\n<html lang="en">{head}{body}</html>\n'


STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --quiet: #5b6470; --line: #e3e6ea; --accent: #1f5fbf }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 2.75rem 0 .75rem }
header p { margin: 0 }
.quiet { color: var(--quiet); font-size: .9rem; overflow-wrap: anywhere }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { padding: .35rem .6rem; text-align: left; border-bottom: 1px solid var(--line); font-weight: 400 }
thead th { color: var(--quiet); font-size: .85rem; vertical-align: bottom }
th:first-child, td:first-child { padding-left: 0 }
.number { text-align: right; white-space: nowrap }
.strong th, .strong td { font-weight: 650 }
.bar { width: 30% }
.track { display: block; height: .55rem; border-radius: .3rem; background: var(--line); min-width: 4rem }
.track span { display: block; height: 100%; border-radius: .3rem; background: var(--accent) }
.swatch { display: inline-block; width: .9rem; height: .9rem; margin-right: .55rem; vertical-align: -.1rem;
  border: 1px solid #8a929e; border-radius: .15rem }
.settings th { color: var(--quiet); vertical-align: top; width: 1%; padding-right: 1.5rem }
.settings td { overflow-wrap: anywhere }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; border-radius: .35rem }
figure { margin: 0 0 1.5rem }
figcaption { color: var(--quiet); font-size: .85rem; overflow-wrap: anywhere; text-align: center }
li { overflow-wrap: anywhere }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171b; --ink: #e6e9ee; --quiet: #9aa4b2; --line: #2b3038; --accent: #6ea2f0 }
  img.plot { filter: invert(.92) hue-rotate(180deg) }
}
@media (max-width: 40rem) {
  main { padding: 1.25rem .9rem 3rem } th, td { padding: .3rem .35rem; font-size: .9rem }
  thead .number { white-space: normal } .bar { display: none }
  .broad img { max-width: none; width: 44rem }
}
"""
