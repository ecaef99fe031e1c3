"""Plot measured values beside the paper's, and its figure 5 (matplotlib)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minifcn.experiments.reproduction.results import Curve
from minifcn.viz.colours import ACCENT, FAINT, INK, SECOND
from minifcn.viz.plots import dress, figure_png, new_figure


def bars(rows: Mapping[str, tuple[float, float, float]], title: str) -> bytes:
    """Return a PNG: for each row what the paper has (NaN: nothing), and our mean with its spread."""
    figure = new_figure(figsize=(7.2, 0.9 + 0.5 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))
    paper, ours, spread = np.array(list(rows.values()), dtype=np.float64).reshape(-1, 3).T
    axes.barh(places - 0.2, np.nan_to_num(paper), 0.36, color=FAINT, label="the paper")
    axes.barh(places + 0.2, np.nan_to_num(ours), 0.36, color=ACCENT, label="here")
    axes.errorbar(ours, places + 0.2, xerr=np.nan_to_num(spread), fmt="none", ecolor=INK, elinewidth=1.2, capsize=3)
    _dressed(axes, title, title)
    axes.set_yticks(places, list(rows), fontsize=9)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color="#eceef1")
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure_png(figure)


AXES = (("steps", "step"), ("images", "images"), ("seconds", "seconds of training"))


def loss_curves(curves: Mapping[str, Sequence[Curve]]) -> bytes:
    """Return figure 5 of the paper as a PNG: the loss over steps, images and seconds, a line for each seed."""
    figure = new_figure(figsize=(10.8, 3.4), layout="constrained")
    top = max((float(curve.loss.max()) for each in curves.values() for curve in each if len(curve.loss)), default=1.0)
    for axes, (field, label) in zip(figure.subplots(1, 3), AXES, strict=True):
        _dressed(axes, "training loss per pixel", label)
        for (name, each), colour in zip(curves.items(), (INK, ACCENT, SECOND), strict=False):
            for number, curve in enumerate(each):
                xs = getattr(curve, field)
                axes.plot(xs, curve.loss, color=colour, linewidth=1.3, alpha=0.75, label=name if not number else None)
        axes.set_ylim(0, top or 1.0)
    if any(len(curve.loss) for each in curves.values() for curve in each):
        axes.legend(frameon=False, fontsize=8.5)
    return figure_png(figure)


def _dressed(axes: Any, title: str, x: str) -> None:
    dress(axes, title)
    axes.set_xlabel(x, fontsize=9.5, color=INK)


def number(text: str) -> float:
    """Return what the paper has in a cell of a table, without its mark; NaN for none."""
    try:
        return float(text.rstrip("†"))
    except ValueError:
        return math.nan
