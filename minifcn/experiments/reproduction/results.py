"""Read and validate the results of finished training runs.

A file may be cut short by a full disk, edited, or not ours at all. What a table shows is counted again from the
confusion matrix; a file that is too large, no JSON, or says what cannot be, is no result, and its cell is run again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.data.shapes import GEOMETRY
from minifcn.errors import FormatError, MinifcnError
from minifcn.experiments.reproduction.cells import TRAIN, Job, resolved
from minifcn.formats.checkpoint import load_checkpoint
from minifcn.formats.strict_json import read_json
from minifcn.metrics import ConfusionMatrix
from minifcn.training.runlog import records

MOST_EVALUATION = 4 << 20  # bytes
MOST_LOG = 16 << 20
MOST_CLASSES = 256
MOST_COUNT = 2**53  # beyond, a count is no count of ours


@dataclass(frozen=True)
class Result:
    """What a finished job measured: its evaluation, and the log of its training from which the curves come.

    `confusion` is of the world's classes, without counts for a net that knows none; `geometry` of its second labels.
    """

    confusion: ConfusionMatrix
    geometry: ConfusionMatrix | None = None
    log: Path | None = None
    per_step: int = 1  # images

    def curve(self) -> Curve:
        """Return the training loss by step, image and second; empty if there is no log, or none to be believed."""
        try:
            return read_curve(self.log, self.per_step) if self.log else NO_CURVE
        except (OSError, FormatError):
            return NO_CURVE


def number(found: Any, most: float) -> float:
    """Return what a file has where a number from 0 to `most` belongs; NaN if it is something else."""
    usable = isinstance(found, (int, float)) and not isinstance(found, bool)
    return float(found) if usable and 0 <= found <= most else math.nan


def confusion_of(found: Mapping[str, Any], path: Path) -> ConfusionMatrix:
    """Return the counts in an evaluation, checked; `FormatError` naming the field that cannot be."""
    rows: Any = found.get("confusion")
    classes = found.get("classes")
    if not isinstance(classes, list) or not 1 <= len(classes) <= MOST_CLASSES:
        raise FormatError(f"{path}: field classes is no list of 1 to {MOST_CLASSES} names")
    tall = isinstance(rows, list) and len(rows) == len(classes)
    wide = tall and all(isinstance(row, list) and len(row) == len(classes) for row in rows)
    if not wide or not all(type(n) is int and 0 <= n <= MOST_COUNT for row in rows for n in row):
        raise FormatError(f"{path}: field confusion is no table of {len(classes)} x {len(classes)} counts")
    try:
        confusion = ConfusionMatrix.of(rows)
    except (MinifcnError, ValueError, OverflowError) as fault:
        raise FormatError(f"{path}: field confusion cannot be used ({fault})") from fault
    said, counted = found.get("pixel_accuracy"), confusion.pixel_accuracy()
    if not math.isclose(number(said, 1), counted, rel_tol=0, abs_tol=1e-6):
        raise FormatError(f"{path}: field pixel_accuracy is {said!r:.40}; its confusion matrix says {counted:.6f}")
    return confusion


def read_result(folder: Path, job: Job) -> Result:
    """Return the result of a finished job; `FormatError` if there is none, or none to be believed."""
    path = folder / "evaluation.json"
    found = read_json(path, most=MOST_EVALUATION, what="an evaluation.json")
    geometry = found.get("geometry")
    if geometry is not None and not isinstance(geometry, dict):
        raise FormatError(f"{path}: field geometry is {type(geometry).__name__}; expected an object")
    result = Result(confusion_of(found, path), None if geometry is None else confusion_of(geometry, path))
    if found["classes"] == list(GEOMETRY):  # a net for the second labels alone
        result = Result(ConfusionMatrix(len(GEOMETRY)), result.confusion)
    log = folder / "metrics.jsonl"
    if job.cell.kind != TRAIN or not log.is_file():
        return result
    options = resolved(job)
    return replace(result, log=log, per_step=options["batch"] * options["accumulate"])


def read_pretrained(path: Path) -> float:
    """Return the accuracy of the classifier whose trunk is in a file; `FormatError` for a damaged or other file."""
    _, meta = load_checkpoint(path)
    record = meta.get("pretraining")
    found = record.get("accuracy") if isinstance(record, dict) else None
    accuracy = number(found, 1)
    if math.isnan(accuracy):
        raise FormatError(f"{path}: field pretraining.accuracy is {found!r:.40}; expected a number from 0 to 1")
    return accuracy


# ----------------------------------------------------------------------------------------------------------- the curves


@dataclass(frozen=True)
class Curve:
    """The training loss per pixel over steps, over images and over seconds of training: what figure 5 draws."""

    steps: np.ndarray
    images: np.ndarray
    seconds: np.ndarray
    loss: np.ndarray

    def final_loss(self) -> float:
        """Return the mean over the last tenth of the records; NaN without any."""
        return float(self.loss[-max(1, len(self.loss) // 10) :].mean()) if len(self.loss) else math.nan


NO_CURVE = Curve(*[np.zeros(0)] * 4)


def read_curve(path: Path, per_step: int) -> Curve:
    """Return the lines of a metrics.jsonl about training; lines that are cut or foreign are passed over.

    A line holds the loss since the line before, and the images per second over that time; `per_step` images make a
    step. Raises `FormatError` for a file that is too large.
    """
    if path.stat().st_size > MOST_LOG:
        raise FormatError(f"{path}: {path.stat().st_size} bytes; expected at most {MOST_LOG}")
    rows: list[tuple[float, float, float]] = []
    for record in records(path):
        if record.get("kind") == "train":
            step, loss, speed = (number(record.get(name), 1e12) for name in ("step", "loss", "images_per_s"))
            if not math.isnan(step + loss + speed):
                rows.append((step, loss, speed))
    if not rows:
        return NO_CURVE
    steps, losses, speeds = np.array(sorted(rows), dtype=np.float64).T
    images = steps * per_step
    seconds = np.cumsum(np.diff(images, prepend=0.0) / np.maximum(speeds, 1e-9))
    return Curve(steps, images, seconds, losses)


# --------------------------------------------------------------------------------------------------------- the measures


def _foreground(result: Result) -> float:
    known = result.confusion.iu()[1:]
    known = known[~np.isnan(known)]
    return float(known.mean()) if known.size else math.nan


def _geometry(result: Result) -> float:
    return math.nan if result.geometry is None else result.geometry.pixel_accuracy()


def _seconds(result: Result) -> float:
    seconds = result.curve().seconds
    return float(seconds[-1]) if len(seconds) else math.nan


MEASURES: dict[str, tuple[str, Callable[[Result], float]]] = {
    "pixel_accuracy": ("pixel acc.", lambda result: result.confusion.pixel_accuracy()),
    "mean_accuracy": ("mean acc.", lambda result: result.confusion.mean_accuracy()),
    "mean_iu": ("mean IU", lambda result: result.confusion.mean_iu()),
    "frequency_weighted_iu": ("f.w. IU", lambda result: result.confusion.frequency_weighted_iu()),
    "foreground_iu": ("mean IU without background", _foreground),
    "geometry_accuracy": ("geometry: pixel acc.", _geometry),
    "loss": ("training loss at the end", lambda result: result.curve().final_loss()),
    "seconds": ("seconds of training", _seconds),
}
"""By name: the head of its column, and how it is read off a result. The first six are shares, shown in per cent."""

SHARES = tuple(MEASURES)[:6]
