"""Plot training curves, confusion matrices and benchmarks (matplotlib)."""

from __future__ import annotations

import io
import math
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minifcn.errors import ShapeError
from minifcn.formats.checkpoint import replace_file
from minifcn.metrics import ConfusionMatrix
from minifcn.viz.colours import ACCENT, FAINT, INK, SECOND
from minifcn.viz.panels import plain, png

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(**options: Any) -> Figure:
    """Return a matplotlib figure, whatever MPLBACKEND says: for a file, no backend is needed."""
    try:
        from matplotlib.figure import Figure
    except ValueError:  # MPLBACKEND names a backend that is not installed, as a process that Jupyter started may see it
        for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            del sys.modules[name]  # half imported
        named = os.environ.pop("MPLBACKEND")
        try:
            from matplotlib.figure import Figure
        finally:
            os.environ["MPLBACKEND"] = named
    return Figure(**options)


def written(figure: Figure, path: Path | None) -> Figure:
    """Return the figure; with a path it is also written there as a PNG file, entirely or not at all."""
    if path is not None:
        replace_file(path, [figure_png(figure)], sync=False)
    return figure


def figure_png(figure: Figure, *, dpi: int = 150) -> bytes:
    """Return a matplotlib figure as the bytes of a PNG file, the same bytes for the same figure."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        # A class name in letters the typeface lacks is drawn as boxes, which is no reason to say so on every run.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})
    return file.getvalue()


class Shown:
    """A picture that a notebook displays, whatever it knows of matplotlib; `show` makes it."""

    def __init__(self, png: bytes) -> None:
        self.png = png

    def __repr__(self) -> str:
        width, height = (int.from_bytes(self.png[at : at + 4]) for at in (16, 20))  # where every PNG has them
        return f"a picture of {width} x {height} pixels"

    def _repr_png_(self) -> bytes:
        return self.png


def show(picture: np.ndarray | Figure, *, dpi: int = 80) -> Shown:
    """Return an RGB picture (H, W, 3) uint8 or a matplotlib figure, for the last line of a notebook's cell."""
    return Shown(png(picture) if isinstance(picture, np.ndarray) else figure_png(picture, dpi=dpi))


def curves(history: Sequence[Mapping[str, Any]], path: Path | None = None) -> Figure:
    """Return a run's curves: loss per pixel over steps on the left, the four validation measures on the right.

    `history` is a run's metrics.jsonl, a record per item. The loss is drawn faint as it was and strong as the mean of
    its neighbourhood, beside ln C, where a net that knows nothing begins. Written to `path` too if one is given.
    """
    figure = new_figure(figsize=(9.6, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    trained = [record for record in history if record.get("kind") == "train"]
    validated = [record for record in history if record.get("kind") == "val"]
    _draw_loss(left, *_series(trained, "loss"), len(validated[0].get("iu") or ()) if validated else 0)
    _draw_measures(right, validated)
    return written(figure, path)


def _series(records: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and values of one key, without the records where it is missing or not finite."""
    pairs = [(record.get("step"), record.get(key)) for record in records]
    kept = [(s, v) for s, v in pairs if isinstance(s, int) and isinstance(v, int | float) and math.isfinite(v)]
    return np.array([s for s, _ in kept], dtype=np.int64), np.array([v for _, v in kept], dtype=np.float64)


def _draw_loss(axes: Any, steps: np.ndarray, losses: np.ndarray, classes: int) -> None:
    dress(axes, "loss per pixel")
    if not len(steps):
        return _nothing(axes)
    reach = len(losses) // 40
    rough = reach > 1  # a short run has too few points to smooth
    axes.plot(
        steps, losses, color=FAINT if rough else ACCENT, linewidth=0.8 if rough else 1.8,
        marker="." if len(steps) == 1 else None,
    )  # fmt: skip
    if rough:
        axes.plot(steps, _neighbourhood_mean(losses, reach), color=ACCENT, linewidth=1.8)
    # One early spike must not flatten the rest of the curve.
    top = 1.08 * float(np.quantile(losses, 0.995))
    if classes > 1:
        chance = math.log(classes)
        axes.axhline(chance, color=SECOND, linewidth=1, linestyle=(0, (4, 3)))
        note(axes, f"ln {classes} = {chance:.3f}, knowing nothing", SECOND)
        top = max(top, 1.15 * chance)
    axes.set_ylim(0, top or 1.0)


def _neighbourhood_mean(values: np.ndarray, reach: int) -> np.ndarray:
    """Return the mean of up to `reach` values on either side: fewer at the ends, where there are no more."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    low, high = np.maximum(place - reach, 0), np.minimum(place + reach + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def _draw_measures(axes: Any, validated: Sequence[Mapping[str, Any]]) -> None:
    dress(axes, "validation")
    axes.set_ylim(0, 1)
    lines = (
        ("pixel_accuracy", "pixel accuracy", "#9aa4b2", 1.2),
        ("frequency_weighted_iu", "frequency weighted IU", "#c9ad8a", 1.2),
        ("mean_accuracy", "mean accuracy", "#a9c1e6", 1.2),
        ("mean_iu", "mean IU", ACCENT, 2.2),
    )
    for key, name, colour, width in lines:
        steps, values = _series(validated, key)
        if len(steps):
            axes.plot(steps, values, color=colour, linewidth=width, label=name, marker="." if len(steps) < 40 else None)
    steps, values = _series(validated, "mean_iu")
    if not len(steps):
        return _nothing(axes)
    best = int(np.argmax(values))
    axes.plot(steps[best], values[best], "o", color=ACCENT)
    note(axes, f"best mean IU {values[best]:.3f}", ACCENT)
    axes.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1.4)


def confusion_picture(matrix: np.ndarray, classes: Sequence[str], path: Path | None = None) -> Figure:
    """Return where each class's true pixels went: rows are the truth and add up to 100 %, columns the prediction.

    Beside a name stands its share of all true pixels. Rows without true pixels are left grey. Up to 25 classes the
    cells carry their percentages; beyond, colour alone. Written to `path` too if one is given.
    """
    confusion = ConfusionMatrix.of(matrix)
    if len(classes) != confusion.classes:
        raise ShapeError(f"the confusion matrix has {confusion.classes} classes but {len(classes)} names were given")
    pixels = confusion.true_pixels()[:, None]
    percent = np.divide(100.0 * confusion.matrix, pixels, out=np.full(confusion.matrix.shape, np.nan), where=pixels > 0)
    count = len(classes)
    inches = min(max(0.44 * count, 2.4), 13.0)
    shown = range(0, count, 1 + count // 64)  # each name takes a hundredth of a second, and they need room
    letters = min(9.0, max(4.0, 55.0 * inches / len(shown)))
    figure = new_figure(figsize=(inches + 2.6, inches + 1.9), layout="constrained")
    from matplotlib.colors import PowerNorm

    axes = figure.subplots()
    axes.set_facecolor("#e7e9ed")
    # Below 100 % the colours are spread out: a confusion of a few per cent should be seen.
    drawn = axes.imshow(np.ma.masked_invalid(percent), cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    names = [_tick(name) for name in classes]
    shares = confusion.shares_true()
    axes.set_xticks(shown, [names[i] for i in shown], rotation=90 if count > 4 else 0, fontsize=letters)
    axes.set_yticks(shown, [f"{names[i]}  {100 * shares[i]:.1f} %" for i in shown], fontsize=letters)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("predicted", fontsize=10, color=INK, labelpad=8)
    axes.set_ylabel("true, with its share of all pixels", fontsize=10, color=INK, labelpad=8)
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
    ends, between = (-0.5, count - 0.5), np.arange(0.5, count - 1)
    for lines in (axes.hlines, axes.vlines):
        lines(between, *ends, color="white", linewidth=1.2 if count <= 25 else 0.3)
    if count <= 25:
        for row, column in zip(*np.nonzero(np.nan_to_num(percent) >= 0.5), strict=True):
            colour = "white" if percent[row, column] > 35 else INK
            axes.text(column, row, f"{percent[row, column]:.0f}", ha="center", va="center", color=colour, fontsize=8.5)
    else:
        figure.colorbar(drawn, ax=axes, shrink=0.5, aspect=30, label="% of the class's true pixels")
    return written(figure, path)


def _tick(name: str) -> str:
    r"""Return a class name short enough for an axis; matplotlib reads $...$ as a formula, and fails if it is none."""
    name = plain(name)
    return (name if len(name) <= 24 else name[:23] + "…").replace("$", r"\$")


def dress(axes: Any, title: str) -> None:
    """Give axes over steps their title, colours and grid."""
    axes.set_title(title, fontsize=10.5, color=INK, loc="left")
    axes.set_xlabel("step", fontsize=9.5, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#8a929e")
    axes.tick_params(colors="#4a525e", labelsize=8.5)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.grid(axis="y", color="#eceef1")
    axes.set_axisbelow(True)


def note(axes: Any, text: str, colour: str) -> None:
    """Write a number about a line above the axes, where no line can run through it."""
    axes.set_title(text, fontsize=8.5, color=colour, loc="right")


def _nothing(axes: Any) -> None:
    axes.text(0.5, 0.5, "nothing recorded", ha="center", va="center", color="#8a929e", transform=axes.transAxes)


Panel = tuple[str, str, str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]


def log_log(panels: Sequence[Panel], path: Path, *, points: Sequence[str] = ()) -> None:
    """Write what a benchmark measured, on logarithmic axes: panels (title, x label, y label, {name: (xs, ys)}).

    The series named in `points` are drawn as points, the others as lines.
    """
    figure = new_figure(figsize=(1 + 4.4 * len(panels), 3.6), layout="constrained")
    from matplotlib.ticker import LogLocator, NullFormatter

    for axes, (title, x, y, series) in zip(np.ravel(figure.subplots(1, len(panels))), panels, strict=True):
        dress(axes, title)
        for (name, (xs, ys)), colour in zip(series.items(), (ACCENT, SECOND, INK, FAINT), strict=False):
            style = {"linestyle": "", "marker": "o", "markersize": 4} if name in points else {"linewidth": 1.2}
            axes.plot(xs, ys, color=colour, label=name, **style)
        axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
        for axis in (axes.xaxis, axes.yaxis):  # 0.2 and 500, never 2 x 10^-1
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        at = sorted({float(each) for xs, _ in series.values() for each in xs})
        if len(at) <= 6 and all(each.is_integer() for each in at):  # a few sides or numbers of threads: just those
            axes.set_xticks(at)
            axes.minorticks_off()
        axes.legend(frameon=False, fontsize=8.5)
    written(figure, path)
