"""The pictures of the notebooks: numbers in, a picture for the last line of a cell out.

    import pictures

    pictures.panels({"the image": image, "its gradient": gradient}, cmap="gray")
    pictures.lines({"loss": (steps, losses)}, xlabel="step")

A notebook shows one idea a cell; how its picture is drawn is matplotlib's affair and stands here: first the kinds of
pictures that every notebook uses, then those of single notebooks, in the order of the course. Arrays may lie on the
GPU. What the library draws for its commands, too, is in `minifcn.viz`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator

from minifcn import viz
from minifcn.backend import to_host
from minifcn.geometry import Grid, Layer
from minifcn.tensor import Tensor
from minifcn.viz import ACCENT, FAINT, INK, SECOND
from minifcn.viz.plots import Shown

COLOURS = (ACCENT, SECOND, "0.5", INK)
MANY = ("#9aa4b2", SECOND, "#2f8f5b", ACCENT, "#7a4fb5", INK)


def host(values: Any) -> np.ndarray:
    """The numbers of an array, a tensor or a list, in main memory."""
    return to_host(values.data if isinstance(values, Tensor) else values)


def blank(size: tuple[float, float]) -> tuple[Figure, Any]:
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots()


# Pictures of any notebook


def panels(
    shown: Mapping[str, Any],
    *,
    size: tuple[float, float] = (8, 2.6),
    cmap: Any = "Blues",
    limits: Any = (None, None),
    numbers: str | Callable[[float], str] = "",
    boxes: Mapping[str, Sequence[tuple[float, float, float, float]]] | None = None,
    widths: Sequence[float] | None = None,
    rows: int = 1,
    bar: bool = False,
    aspect: str = "equal",
    title: str = "",
    dpi: int = 80,
) -> Shown:
    """Arrays (H, W) or photographs (H, W, 3) side by side, each under its name.

    limits: the values of the two ends of the colours; "signed" makes them symmetric about 0, for each array
    numbers: a format such as "{:.0f}", or a function, writes each value into its cell
    boxes: by name, frames (row, column, height, width) around cells
    """
    figure = Figure(figsize=size, layout="constrained")
    columns = -(-len(shown) // rows)
    places = np.ravel(figure.subplots(rows, columns, width_ratios=widths))
    for axes, (name, values) in zip(places, shown.items(), strict=False):
        values = host(values)
        low, high = (-abs(values).max(), abs(values).max()) if limits == "signed" else limits
        drawn = axes.imshow(values, cmap=cmap, vmin=low, vmax=high, aspect=aspect)
        if numbers:
            write(axes, values, numbers)
        for row, column, height, width in (boxes or {}).get(name, ()):
            frame(axes, row, column, height, width)
        if bar:
            figure.colorbar(drawn, ax=axes, shrink=0.7)
        axes.set(xticks=[], yticks=[])
        axes.set_title(name, fontsize=9 if columns > 2 else 10)
    if title:
        figure.suptitle(title, fontsize=10)
    return viz.show(figure, dpi=dpi)


def write(axes: Any, values: np.ndarray, form: str | Callable[[float], str]) -> None:
    """Each value into its cell, zeros faint, and white where the cell is dark."""
    cmap, norm, size = axes.images[0].cmap, axes.images[0].norm, 8 if max(values.shape) < 13 else 6
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = np.dot(cmap(norm(value))[:3], (0.3, 0.59, 0.11)) < 0.5
            colour = "white" if dark else "0.65" if value == 0 else INK
            text = (form.format if isinstance(form, str) else form)(value + 0.0).replace("-0.00", "0.00")
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)


def frame(axes: Any, row: float, column: float, height: float, width: float, colour: str = SECOND) -> None:
    """A frame around cells of an array that is drawn."""
    corner = (column - 0.5, row - 0.5)
    axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=2.5))


def lines(
    series: Mapping[str, tuple[Any, Any]],
    *,
    size: tuple[float, float] = (6, 2.6),
    styles: Sequence[str] = ("-",),
    colours: Sequence[str] = COLOURS,
    stairs: Sequence[str] = (),
    across: Mapping[str, float] | None = None,
    **axes_options: Any,
) -> Shown:
    """Series of (xs, ys), each with its name, as lines or points ("o"), in the order of `styles` and `colours`.

    stairs: the names of the series that jump from one value to the next
    across: dashed lines from below to above, by name
    axes_options: what matplotlib's `Axes.set` takes: xlabel, yscale, ylim ...
    """
    figure, axes = blank(size)
    for place, (name, (xs, ys)) in enumerate(series.items()):
        style, colour = styles[min(place, len(styles) - 1)], colours[place % len(colours)]
        steps, area = "steps-mid" if name in stairs else "default", {"o": 8, "x": 6}.get(style, 4)
        axes.plot(host(xs), host(ys), style, color=colour, label=name, markersize=area, drawstyle=steps, mew=2)
    for name, place in (across or {}).items():
        axes.axvline(place, color=SECOND, linestyle=(0, (4, 3)), linewidth=1, label=name)
    if any(series):
        axes.legend(frameon=False, fontsize=8.5)
    axes.set(**axes_options)
    if "xticks" in axes_options:
        axes.xaxis.set_minor_locator(NullLocator())
    return viz.show(figure)


def histograms(
    groups: Mapping[str, Any],
    bins: Any,
    *,
    size: tuple[float, float] = (7, 2.5),
    across: Mapping[str, float] | None = None,
    **axes_options: Any,
) -> Shown:
    """How often the values of each group fall between two neighbours of `bins`; lines `across` by name."""
    figure, axes = blank(size)
    for (name, values), colour in zip(groups.items(), MANY, strict=False):
        style = {"color": FAINT} if len(groups) == 1 else {"color": colour, "histtype": "step"}
        axes.hist(host(values), bins=bins, label=name, **style)
    for (name, place), colour in zip((across or {}).items(), (SECOND, ACCENT), strict=False):
        axes.axvline(place, color=colour, label=name)
    axes.legend(frameon=False, fontsize=9)
    axes.set(yticks=[], **axes_options)
    return viz.show(figure)


def bars(
    groups: Mapping[str, Sequence[float]],
    names: Sequence[Any],
    *,
    size: tuple[float, float] = (8, 2.8),
    colours: Sequence[str] = COLOURS,
    **axes_options: Any,
) -> Shown:
    """Bars of several groups beside each other, or of one in alternating colours; `names` are those of the places."""
    figure, axes = blank(size)
    places, width = np.arange(len(names)), 0.8 / len(groups)
    for k, (name, values) in enumerate(groups.items()):
        at = places + width * (k - (len(groups) - 1) / 2)
        axes.bar(at, host(values), width, color=colours[k % len(colours)] if len(groups) > 1 else colours, label=name)
    axes.set_xticks(places, names, fontsize=8 if len(names) > 6 else 9, rotation=90 if len(names) > 12 else 0)
    axes.set(**axes_options)
    axes.spines[["top", "right"]].set_visible(False)
    if len(groups) > 1:
        axes.legend(frameon=False, fontsize=9)
    return viz.show(figure)


def lying_bars(
    values: Mapping[str, float], *, colours: Sequence[str], size: tuple[float, float] = (7, 2.4), title: str
) -> Shown:
    """One lying bar for each name, on a logarithmic axis."""
    figure, axes = blank(size)
    axes.barh(list(values), list(values.values()), color=colours)
    axes.set(xscale="log", title=title, xlim=(1, None))
    axes.invert_yaxis()
    return viz.show(figure)


# 01: autograd


def tangents(function: Callable[[Any], Any], slopes: Mapping[float, float]) -> Shown:
    """A curve with the tangent and the slope at each of some places."""
    figure, axes = blank((6, 2.8))
    line = np.linspace(-2.2, 2.2, 200)
    axes.plot(line, function(line), color=INK)
    for a, slope in slopes.items():
        near, beside = np.array([a - 0.45, a + 0.45]), (-66, -4) if a > 1 else (8, -8) if a < -1.5 else (-8, 9)
        axes.plot(near, function(a) + slope * (near - a), color=SECOND)
        axes.plot(a, function(a), "o", color=SECOND)
        place = (a, function(a))
        axes.annotate(f"slope {slope:.2f}", place, xytext=beside, textcoords="offset points", color=SECOND)
    axes.set(xlabel="a", ylabel="f(a) = a³ - 3a")
    return viz.show(figure)


def survivors(found: Mapping[str, Sequence[Sequence[str]]], kinds: Sequence[str]) -> Shown:
    """By engine: how many arrays of each kind are alive after the forward and after the backward pass."""
    figure = Figure(figsize=(7, 2.2), layout="constrained")
    places = figure.subplots(1, len(found), sharey=True)
    for axes, (title, alive) in zip(places, found.items(), strict=True):
        below = np.zeros(2)
        for kind, colour in zip(kinds, (FAINT, SECOND, ACCENT), strict=True):
            counts = [now.count(kind) for now in alive]
            axes.bar([0, 1], counts, bottom=below, label=kind, color=colour)
            below += counts
        axes.set(title=title, xticks=[0, 1], xticklabels=["after forward", "after backward"])
    places[0].set_ylabel("arrays alive, of 30")
    places[1].legend(frameon=False)
    return viz.show(figure)


# 02: convolution


def filters(kernels: Mapping[str, Any], maps: Any) -> Shown:
    """Each kernel (3, 3) as numbers, and below it the map (H, W) that it makes."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    above, below = figure.subplots(2, len(kernels), height_ratios=(1.2, 1.5))
    for top, bottom, (name, kernel), values in zip(above, below, kernels.items(), host(maps), strict=True):
        top.imshow(kernel, cmap="RdBu_r", vmin=-3, vmax=3)
        write(top, np.asarray(kernel), "{:.2g}")
        bottom.imshow(values, cmap="gray")
        top.set(xticks=[], yticks=[])
        top.set_title(name, fontsize=9)
        bottom.axis("off")
    return viz.show(figure)


def windows(geometries: Mapping[str, Any], side: int) -> Shown:
    """The pixels of the outputs (0, 0), blue, and (1, 1), orange, in a square image with its padding."""
    figure = Figure(figsize=(8, 2.3), layout="constrained")
    for axes, (name, g) in zip(figure.subplots(1, len(geometries)), geometries.items(), strict=True):
        out, p = g.out_size((side, side)), g.padding[0]
        reach = (-p - 0.5, side + p - 0.5)
        image = np.pad(np.ones((side, side)), p)
        axes.imshow(image, cmap="gray", vmin=-2.5, vmax=1, extent=(*reach, *reach[::-1]))
        for _, (rows, columns) in g.taps(out):  # for each weight: rows and columns of the padded image, one per window
            for window, colour, area in ((0, ACCENT, 60), (1, SECOND, 16)):
                row, column = (range(side + 2 * p)[part][window] - p for part in (rows, columns))
                axes.scatter(column, row, s=area, color=colour, marker="s")
        for line in range(side + 1):
            axes.plot([-0.5, side - 0.5], [line - 0.5] * 2, color=FAINT, lw=0.5)
            axes.plot([line - 0.5] * 2, [-0.5, side - 0.5], color=FAINT, lw=0.5)
        axes.set(xlim=(-1.6, side + 0.6), ylim=(side + 0.6, -1.6))
        axes.set_title(f"{name}: {out[0]}×{out[1]} outputs", fontsize=9)
        axes.axis("off")
    return viz.show(figure)


def taps(met: Mapping[tuple[int, int], np.ndarray]) -> Shown:
    """The weights of a kernel, and for each of them the pixels that it multiplies (1 where it does)."""
    figure = Figure(figsize=(8, 2.2), layout="constrained")
    kernel, *places = figure.subplots(1, 1 + len(met), width_ratios=(2.4, *[5] * len(met)))
    kernel.imshow(np.zeros((2, 2)), cmap="Blues")
    for axes, colour, ((u, v), pixels) in zip(places, (ACCENT, SECOND, "#3c8d40", "#7a4fb5"), met.items(), strict=True):
        rows, columns = np.nonzero(pixels)
        axes.imshow(pixels, cmap="Greys", vmax=4)
        for line in range(1, len(pixels)):
            axes.axhline(line - 0.5, color=FAINT, lw=0.8)
            axes.axvline(line - 0.5, color=FAINT, lw=0.8)
        frame(axes, rows[0], columns[0], np.ptp(rows) + 1, np.ptp(columns) + 1, colour)
        frame(kernel, u, v, 1, 1, colour)
        kernel.text(v, u, f"{u},{v}", ha="center", va="center", color=colour)
        axes.set_title(f"w[{u},{v}] meets", fontsize=9, color=colour)
    kernel.set_title("w", fontsize=9)
    for axes in (kernel, *places):
        axes.set(xticks=[], yticks=[])
    return viz.show(figure)


# 03: gradient checks


def pairs_of_errors(table: Mapping[str, Sequence[float]]) -> Shown:
    """Two errors for each name as bars, grey and blue, and the tolerance as a line. Below 1e-8 all is rounding."""
    figure, axes = blank((8, 3.2))
    for place, errors in enumerate(table.values()):
        for error, colour, lift in zip(errors, ("#8a929e", ACCENT), (-0.2, 0.2), strict=True):
            axes.barh(place + lift, max(error, 2e-8) - 1e-8, left=1e-8, height=0.38, color=colour)
    axes.axvline(1e-6, color=SECOND, linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(table)), list(table), fontsize=8.5)
    axes.set(xlabel="largest error (grey: gy of ones; blue: random gy; line: seen as a fault)", xlim=(1e-8, 100))
    axes.invert_yaxis()
    return viz.show(figure)


def directions(found: Mapping[str, Sequence[float]]) -> Shown:
    """By net: how far two slopes are apart along each direction, and the tolerance as a line."""
    figure = Figure(figsize=(8, 3.3), layout="constrained")
    places = figure.subplots(1, len(found))
    for axes, (title, apart), colour in zip(places, found.items(), COLOURS, strict=False):
        axes.semilogy(range(len(apart)), apart, "o", color=colour)
        axes.axhline(1e-6, color=INK, linewidth=1)
        axes.set(ylim=(1e-11, 1), xlabel="direction", title=title)
    places[0].set_ylabel("slopes differ by (relative)")
    return viz.show(figure)


# 04: receptive fields


def floor_and_ceil(layers: Mapping[str, Layer], size: int) -> Shown:
    """The windows of each pool over a line of pixels."""
    figure = Figure(figsize=(8, 1.5), layout="constrained")
    for axes, (name, layer) in zip(figure.subplots(1, len(layers)), layers.items(), strict=True):
        for pixel in range(size):
            axes.add_patch(Rectangle((pixel, 0), 1, 1, facecolor=FAINT, edgecolor="white"))
        for window in range(layer.out_size(size)):
            corner, width = (layer.stride * window + 0.06, -0.35), layer.kernel - 0.12
            axes.add_patch(Rectangle(corner, width, 1.7, fill=False, edgecolor=ACCENT, linewidth=2))
        axes.set(xlim=(-0.3, size + 1.3), ylim=(-0.5, 1.5), aspect="equal")
        axes.set_title(f"{name}: {layer.out_size(size)} windows", fontsize=10)
        axes.set_axis_off()
    return viz.show(figure)


def growth(fields: Sequence[int], named: Mapping[str, int]) -> Shown:
    """The receptive field after each layer; `named` has the number of layers up to each name."""
    figure, axes = blank((8, 3))
    axes.plot(range(1, len(fields) + 1), fields, drawstyle="steps-post", color=INK)
    for name, depth in named.items():
        place = (depth, fields[depth - 1])
        text = f"{name}\n{place[1]}"
        axes.annotate(text, place, (-6, 6), textcoords="offset points", ha="right", fontsize=9, color=ACCENT)
    axes.set(xlabel="layer", ylabel="receptive field in pixels", ylim=(0, 480), xticks=range(1, len(fields) + 1, 3))
    return viz.show(figure)


def fields(photo: np.ndarray, grids: Mapping[str, Grid], **options: Any) -> Shown:
    """`viz.receptive_fields` at the width of a page."""
    figure = viz.receptive_fields(photo, grids, **options)
    figure.set_size_inches(8, 5.2)
    return viz.show(figure)


def reach(seen: np.ndarray, box: tuple[float, ...], title: str, beside: np.ndarray) -> Shown:
    """The gradient of a cell at every pixel, on a logarithmic scale, its field as a box; beside, a line or a photo."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1) if beside.ndim == 3 else (1, 1.3))
    left.imshow(np.log10(np.maximum(seen / seen.max(), 1e-4)), cmap="inferno", vmin=-4, vmax=0)
    left.set_title(title, fontsize=10)
    left.set_axis_off()
    top, start, bottom, end = box
    for axes in (left, right) if beside.ndim == 3 else (left,):
        axes.add_patch(Rectangle((start, top), end - start, bottom - top, fill=False, edgecolor="white", linewidth=2))
    if beside.ndim == 3:
        right.imshow(beside)
        right.set_title("what the cell could see", fontsize=10)
        right.set_axis_off()
    else:
        right.plot(beside, color=INK)
        right.set(xlabel="column", ylabel="gradient", yticks=[])
        right.set_title("along the middle row", fontsize=10)
    return viz.show(figure)


def outcomes(tables: Mapping[str, np.ndarray], paddings: range, sizes: range, at: int) -> Shown:
    """Tables (sizes, paddings) of 0, grey, 1, orange, and 2, blue, and a white line before the padding `at`."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    extent = (paddings[0] - 0.5, paddings[-1] + 0.5, sizes[-1] + 0.5, sizes[0] - 0.5)
    for axes, (name, table) in zip(figure.subplots(1, len(tables)), tables.items(), strict=True):
        colours = ListedColormap([FAINT, SECOND, ACCENT])
        axes.imshow(table, cmap=colours, vmin=0, vmax=2, aspect="auto", extent=extent)
        axes.axvline(at - 0.5, color="white", linewidth=1.5)
        axes.set(xlabel="padding", ylabel="side of the image", title=f"{name}: white line before {at}")
    return viz.show(figure)


def stripes(marked: Iterable[int], last: int, title: str) -> Shown:
    """The numbers from 1 to `last` as one line, those of `marked` in orange."""
    figure, axes = blank((8, 1.3))
    shown = np.isin(np.arange(1, last + 1), list(marked))[None]
    axes.imshow(shown, aspect="auto", cmap="Oranges", extent=(0.5, last + 0.5, 0, 1), vmax=1.3)
    axes.set(yticks=[], xlabel="side of the image", title=title)
    return viz.show(figure)


# 05: from a classifier to an FCN


def reading(strip: np.ndarray, share: np.ndarray, grid: Grid, at: Sequence[int], digits: Sequence[int]) -> Shown:
    """A strip of digits, and below it the probability of each digit (10, cells); circles at the cells `at`."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 2])
    above.imshow(strip, cmap="gray_r", aspect="auto")
    above.set(yticks=[])
    above.set_title("a strip, and the probability of each digit in each window of 28 pixels", fontsize=10)
    start, stride = float(grid.start), float(grid.stride)
    low, high = start - stride / 2, start + stride * (share.shape[1] - 0.5)
    below.imshow(share, cmap="inferno", aspect="auto", extent=(low, high, 9.5, -0.5))
    places = start + stride * np.array(at)
    below.plot(places, digits, "o", color="#39d0d8", markeredgewidth=2, markersize=11, mfc="none")
    below.set(yticks=range(10), xlim=(-0.5, strip.shape[1] - 0.5), xlabel="pixel", ylabel="digit")
    return viz.show(figure)


def sheet(paper: np.ndarray, winners: np.ndarray, grid: Grid, places: np.ndarray) -> Shown:
    """A sheet of digits; below it the best class of each window at its centre; circles at the centres of `places`."""
    figure = Figure(figsize=(8, 6.6), layout="constrained")
    above, below = figure.subplots(2, 1)
    start, stride = float(grid.start), float(grid.stride)
    above.imshow(paper, cmap="gray_r")
    for digit in range(10):
        i, j = np.nonzero(winners == digit)
        below.scatter(start + stride * j, start + stride * i, 40, marker=f"${digit}$", color=f"C{digit}", linewidth=0.2)
    height, width = paper.shape
    for axes in (above, below):
        axes.plot(start + places[:, 1], start + places[:, 0], "o", color=SECOND, markersize=13, fillstyle="none")
        axes.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), aspect="equal")
    return viz.show(figure)


def said(shown: Mapping[str, tuple[np.ndarray, Sequence[tuple[float, str]]]]) -> Shown:
    """Photographs, each with what a classifier says: pairs of a probability and a class."""
    titles = {
        f"{name}\n" + "\n".join(f"{p:.2f}  {what}" for p, what in answers): image
        for name, (image, answers) in shown.items()
    }
    return panels(titles, size=(7, 3.3))


def classes(photo: np.ndarray, label: np.ndarray) -> Shown:
    """A photograph under its classes: 0 leaves it as it is, 1 is orange, 2 is blue, void is faded to white."""
    colours = np.array([(0, 0, 0), (255, 120, 0), (0, 90, 255)], np.uint8)
    tinted = viz.overlay(photo, label, 0.45, colours=colours)
    tinted[label == 0] = photo[label == 0]
    return panels({"": tinted}, size=(7.2, 2.5))


def against(pairs: Mapping[str, tuple[Any, Any]], *, size: tuple[float, float], **axes_options: Any) -> Shown:
    """Points (xs, ys) of several kinds, and the diagonal, on which both are equal."""
    figure, axes = blank(size)
    for (name, (xs, ys)), colour in zip(pairs.items(), COLOURS, strict=False):
        axes.plot(xs, ys, "o" if len(xs) < 50 else ".", color=colour, label=name, markersize=6 if len(xs) < 50 else 3)
    axes.axline((0, 0), slope=1, color=FAINT, zorder=0)
    axes.set(aspect="equal", **axes_options)
    if len(pairs) > 1:
        axes.legend(frameon=False)
    return viz.show(figure)


def spreads(maps: Mapping[str, Any], *, size: tuple[float, float]) -> Shown:
    """Maps (N, C, H, W) side by side: each channel as a line from its 5th to its 95th percentile, a dot at its mean."""
    figure = Figure(figsize=size, layout="constrained")
    for axes, (name, values) in zip(figure.subplots(1, len(maps), sharey=True), maps.items(), strict=True):
        channels = np.moveaxis(host(values), 1, 0).reshape(len(host(values)[0]), -1)
        axes.vlines(range(len(channels)), *np.percentile(channels, (5, 95), axis=1), color=ACCENT, linewidth=5)
        axes.plot(channels.mean(axis=1), "o", color=SECOND, zorder=3)
        axes.axhline(0, color=FAINT, zorder=0)
        axes.set(xlabel="channel", xticks=range(len(channels)))
        axes.set_title(name, fontsize=10)
    return viz.show(figure)


# 06: shift-and-stitch

GREY = "#6b7480"


def rows(named: Mapping[str, Sequence[tuple[float, float, Sequence[Any], str | Sequence[str]]]], size: int) -> Shown:
    """Rows of numbers in squares. A part of a row is (pixel of the first, step, numbers, one colour or several)."""
    figure, axes = blank((8, 0.45 * len(named) + 0.3))
    for y, parts in enumerate(named.values()):
        for start, step, values, colours in parts:
            colours = (colours,) if isinstance(colours, str) else colours
            for i, value in enumerate(values):
                corner, colour = (start + step * i - 0.46, y - 0.4), colours[i % len(colours)]
                axes.add_patch(Rectangle(corner, 0.92, 0.8, color=colour))
                axes.text(start + step * i, y, value, ha="center", va="center", color="white", fontsize=9)
    low = min(start for parts in named.values() for start, *_ in parts)
    axes.set(xlim=(low - 0.6, size - 0.4), ylim=(len(named) - 0.4, -0.6), yticks=range(len(named)), xticks=[])
    axes.set_yticklabels(list(named))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return viz.show(figure)


def border(picture: np.ndarray, inner: Sequence[range]) -> Shown:
    """A picture of differences, with the first and last cell of the inner part on its axes."""
    figure, axes = blank((3.4, 3.4))
    axes.imshow(picture)
    ticks = [[0, part.start, part.stop - 1] for part in inner]
    axes.set(xticks=ticks[1], yticks=ticks[0])
    return viz.show(figure)


# 07: upsampling


def tents(cells: np.ndarray, tent: np.ndarray, stride: int, total: np.ndarray) -> Shown:
    """The tent that each cell paints, grey, and their sum, blue; bands where a tent is missing."""
    figure, axes = blank((8, 2.8))
    for i, value in enumerate(cells):
        axes.plot(i * stride + np.arange(len(tent)), value * tent, color=FAINT, linewidth=1.5)
        axes.plot(i * stride + (len(tent) - 1) / 2, value, "o", color=SECOND)
    axes.plot(total, color=ACCENT, linewidth=2)
    ring = len(tent) - stride
    for low, high in ((0, ring), (len(total) - ring, len(total))):
        axes.axvspan(low - 0.5, high - 0.5, color="0.95")
    title = "four cells paint tents (grey), the sum is the line between them (blue)"
    axes.set(title=title, xlabel="pixel", ylim=(0, 3.3))
    return viz.show(figure)


def ring(plate: np.ndarray, rows: Mapping[str, int], width: int) -> Shown:
    """An upsampled map of ones, and its values along some rows; a dotted line where the ring ends."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.colorbar(left.imshow(plate, cmap="viridis", vmin=0, vmax=1), ax=left, shrink=0.8)
    left.set_title("a map of 4 x 4 ones, upsampled by 64/32")
    for (name, row), colour in zip(rows.items(), COLOURS, strict=False):
        right.plot(plate[row], color=colour, label=name)
    right.axvline(width - 0.5, color="0.6", linestyle=":")
    right.set(title=f"the ring is k - s = {width} pixels wide", xlabel="pixel", ylim=(0, 1.1))
    right.legend(frameon=False)
    return viz.show(figure)


def landings(chains: Mapping[str, Sequence[Layer]], kernels: Sequence[int], stride: int) -> Shown:
    """The cells of each chain on a line of pixels, and where upsampling by each kernel puts them: blue if on pixels."""
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    for axes, (name, layers) in zip(figure.subplots(len(chains), 1, sharex=True), chains.items(), strict=True):
        grid = Grid.of(layers)
        axes.plot(np.arange(25), np.full(25, 0), ".", color="0.5")
        axes.plot([float(grid.start + stride * i) for i in range(5)], np.full(5, 1), "o", color=SECOND)
        for row, kernel in enumerate(kernels, start=2):
            fine = grid.through(Layer(kernel, stride, transpose=True))
            style, colour = (".", ACCENT) if fine.start.denominator == 1 else ("x", "0.75")
            axes.plot([float(fine.start + i) for i in range(26)], np.full(26, row), style, color=colour)
        labels = ["image", "cells", *(f"upsampled, k = {kernel}" for kernel in kernels)]
        axes.set(title=f"{name}: {grid}", yticks=range(len(labels)), ylim=(len(labels) - 0.4, -0.6), xlim=(-4.5, 24.5))
        axes.set_yticklabels(labels)
        axes.grid(axis="x", color="0.93")
        axes.set_xticks(range(-4, 25, 2))
    return viz.show(figure)


def kernels_learned(shown: Mapping[str, np.ndarray]) -> Shown:
    """Kernels as pictures, and a row through the middle of each."""
    figure = Figure(figsize=(9, 2.7), layout="constrained")
    *places, profile = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.6])
    for axes, (title, values), colour in zip(places, shown.items(), ("0.6", ACCENT, SECOND), strict=True):
        axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
        axes.set(title=title, xticks=[], yticks=[])
        middle = values[len(values) // 2]
        profile.plot(np.arange(len(middle)) - (len(middle) - 1) / 2, middle, ".-", color=colour, label=title)
    profile.axhline(0, color="0.8", linewidth=0.8)
    profile.set(title="a row through the middle")
    profile.legend(frameon=False, fontsize=7)
    return viz.show(figure)


# 08: skips


def aligned(maps: Mapping[str, Grid], cut: int, image: int) -> Shown:
    """The first cells of two maps on the axis of the image's pixels; crosses on those that are cut."""
    figure, axes = blank((9, 2.2))
    for row, (grid, colour) in enumerate(zip(maps.values(), COLOURS, strict=False)):
        places = [float(grid.start + grid.stride * i) for i in range(14)]
        axes.plot(places, np.full(14, row), "o", color=colour)
        for i, place in enumerate(places):
            axes.annotate(str(i), (place, row), (0, 7), textcoords="offset points", ha="center", fontsize=7)
        if row == 0:
            axes.plot(places[:cut], np.zeros(cut), "x", color="black", markersize=11)
    axes.axvspan(0, image, color="0.93", zorder=0)
    axes.text(4, 0.45, "image", color="0.4")
    axes.set(yticks=[0, 1], yticklabels=list(maps), ylim=(1.6, -0.6), xlim=(-100, 140), xlabel="pixel of the image")
    return viz.show(figure)


def scores(image: np.ndarray, parts: Mapping[str, np.ndarray], title: str) -> Shown:
    """A scene, and maps of scores from -5, blue, to 5, red."""
    figure = Figure(figsize=(9, 2.3), layout="constrained")
    first, *others = figure.subplots(1, 1 + len(parts))
    first.imshow(image)
    first.set_title("image", fontsize=9)
    for axes, (name, part) in zip(others, parts.items(), strict=True):
        axes.imshow(host(part), cmap="RdBu_r", vmin=-5, vmax=5)
        axes.set_title(name, fontsize=9)
    for axes in (first, *others):
        axes.set(xticks=[], yticks=[])
    figure.suptitle(title, fontsize=10)
    return viz.show(figure)


# 09: loss sampling


def patches(scene: np.ndarray, piece: tuple[slice, slice], keep: np.ndarray, grid: Grid) -> Shown:
    """A scene with a piece, the patches of the kept cells, and these cells."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    rows, columns = piece
    stride, field = int(grid.stride), int(grid.field)
    left.imshow(scene)
    size = (columns.stop - columns.start, rows.stop - rows.start)
    corner = (columns.start - 0.5, rows.start - 0.5)
    left.add_patch(Rectangle(corner, *size, fill=False, edgecolor="white", linewidth=2))
    middle.imshow(scene[piece])
    for i, j in np.argwhere(keep):
        corner = (stride * j - 0.5, stride * i - 0.5)
        middle.add_patch(Rectangle(corner, field, field, fill=False, edgecolor="white", linewidth=0.8))
    right.imshow(keep, cmap="Blues", vmin=0, vmax=1.3)
    titles = ("a scene, and the piece", f"{keep.sum()} patches", f"the same {keep.sum()} cells of the output")
    for axes, title in zip((left, middle, right), titles, strict=True):
        axes.set(xticks=[], yticks=[], title=title)
    return viz.show(figure)


def noise_by_share(drawn: Mapping[str, tuple[Any, Any]], formula: Callable[[np.ndarray], np.ndarray]) -> Shown:
    """The noise of a sampled gradient by the share p of the cells that is kept: a curve, and points that were drawn."""
    line = np.linspace(0.015, 1, 200)
    return lines(
        {"the formula": (line, formula(line)), **drawn},
        size=(6, 3),
        styles=("-", "o"),
        colours=("0.6", ACCENT),
        xlabel="p",
        ylabel="noise / gradient",
        title="noise of the sampled gradient of one scene",
        ylim=(0, None),
    )


def noise_by_scenes(counts: Sequence[int], series: Mapping[str, Sequence[float]]) -> Shown:
    """The noise of a batch of as many cells by the number of scenes that they come from, and a dotted line."""
    return lines(
        {name: (counts, values) for name, values in series.items()},
        size=(6, 3),
        styles=("o-", ":"),
        colours=(SECOND, "0.6"),
        xlabel="scenes in the batch, n = 1/p",
        ylabel="noise / gradient",
        title="the same number of cells",
        ylim=(0, None),
        xticks=counts,
    )


def figure_5(
    runs: Mapping[float, Sequence[tuple[Any, Any]]], batch: int, prior: float, seconds: Mapping[float, float]
) -> Shown:
    """Losses by step, by scene and by time: runs (steps, losses) of each probability p of keeping a cell.

    The prior is dotted; `seconds` are those of a whole run.
    """
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    places = figure.subplots(1, 3, sharey=True)
    for (p, each), colour in zip(runs.items(), COLOURS, strict=False):
        for number, (steps, losses) in enumerate(each):
            label = f"p = {p}, {round(batch / p)} scenes a step" if number == 0 else None
            for axes, across in zip(places, (1, batch / p, seconds[p] / steps[-1]), strict=True):
                axes.plot(steps * across, losses, color=colour, label=label, linewidth=1.2)
    for axes, title in zip(
        places, ("step", "scenes that the net ran over", "seconds (mean of the seeds)"), strict=True
    ):
        axes.axhline(prior, color="0.3", linestyle=":", linewidth=1)
        axes.set(xlabel=title, ylim=(0.3, 1.8))
    places[0].set(ylabel="training loss per pixel")
    places[1].text(5120, prior + 0.02, "prior", ha="right", fontsize=9)
    places[1].legend(frameon=False, fontsize=9)
    return viz.show(figure)


# 10 and 11: train, and read a run


def runs(logs: Mapping[str, Sequence[Mapping[str, Any]]], level: float) -> Shown:
    """The training loss and the validation mean IU of several runs, each in its colour; `level` is a grey line."""
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (name, log), colour in zip(logs.items(), COLOURS, strict=False):
        for axes, kind, key in ((left, "train", "loss"), (right, "val", "mean_iu")):
            records = [record for record in log if record["kind"] == kind]
            axes.plot([r["step"] for r in records], [r[key] for r in records], color=colour, label=name)
    left.axhline(level, color="#9aa4b2", linewidth=1)
    for axes, title in ((left, "loss per pixel"), (right, "mean IU, validation")):
        axes.set(xlabel="step", title=title, ylim=(0, None))
    right.legend(frameon=False)
    return viz.show(figure)


def columns_of_runs(logs: Mapping[str, Sequence[Mapping[str, Any]]], level: float) -> Shown:
    """A column for each run: its training loss, with a grey line at `level`, and its validation mean IU."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    places = figure.subplots(2, len(logs), sharex=True, sharey="row")
    for column, (name, log) in zip(places.T, logs.items(), strict=True):
        for axes, kind, key, top in zip(column, ("train", "val"), ("loss", "mean_iu"), (2.4, 0.5), strict=True):
            records = [record for record in log if record["kind"] == kind]
            axes.plot([r["step"] for r in records], [r[key] for r in records], color=ACCENT)
            axes.set_ylim(0, top)
        column[0].axhline(level, color="#9aa4b2", linewidth=1)
        column[0].set_title(name)
        column[1].set_xlabel("step")
    places[0, 0].set_ylabel("loss per pixel")
    places[1, 0].set_ylabel("mean IU, validation")
    return viz.show(figure)


# 12: making it fast


def rungs(measures: Mapping[str, Mapping[str, float]]) -> Shown:
    """By measure, a lying bar for each way; errors on a logarithmic axis."""
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    for axes, (title, values) in zip(figure.subplots(1, len(measures)), measures.items(), strict=True):
        axes.barh(list(values), list(values.values()), color=ACCENT)
        axes.set_title(title, fontsize=10)
        axes.invert_yaxis()
        if title == "error":
            axes.set(xscale="log", xlim=(1e-7, 1e-4))
    return viz.show(figure)


def sizes_of_blocks(sizes: Sequence[int], measures: Mapping[str, Sequence[float]], chosen: int) -> Shown:
    """By measure, a curve over the bytes of a block; the chosen size is dashed."""
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    for axes, (title, values) in zip(figure.subplots(1, len(measures)), measures.items(), strict=True):
        axes.plot([size / 1024 for size in sizes], values, "-o", color=ACCENT)
        axes.axvline(chosen / 1024, color=SECOND, linestyle=(0, (4, 3)), linewidth=1)
        axes.set(xscale="log", xlabel="kB in a block (dashed: the library's)", title=title, ylim=(0, None))
    return viz.show(figure)


def compromise(named: Sequence[str], saved: Sequence[float], errors: Sequence[float]) -> Shown:
    """The error of each way by what it saves, each point with its name."""
    figure, axes = blank((6, 3))
    axes.plot(saved, errors, "-o", color=ACCENT)
    for name, place in zip(named, zip(saved, errors, strict=True), strict=True):
        axes.annotate(name, place, xytext=(6, -4), textcoords="offset points", fontsize=9)
    axes.set(yscale="log", xlabel="times fewer multiplications (in two dimensions)", ylabel="error in float32, one row")
    axes.set_xlim(2, 7)
    return viz.show(figure)


def roofline(points: Mapping[str, Sequence[tuple[float, float]]], flops: float, bandwidth: float) -> Shown:
    """Points (multiply-adds per byte, GFLOP/s) of several ways below the roof of GFLOP/s and GB/s."""
    figure, axes = blank((7, 3.4))
    reach = np.array([0.5, flops / bandwidth / 2, 300])
    axes.plot(reach, np.minimum(2 * reach * bandwidth, flops), color=INK, label="roof")
    for (name, pairs), colour in zip(points.items(), MANY, strict=False):
        axes.plot(*zip(*pairs, strict=True), "o", markersize=5, color=colour, label=name)
    axes.set(xscale="log", yscale="log", xlabel="multiply-adds per byte", ylabel="GFLOP/s")
    axes.legend(frameon=False)
    return viz.show(figure)
