"""Draw what is inside a net: feature maps, filters, gradient errors and gradient sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minifcn.backend import Array, to_host
from minifcn.errors import ShapeError, UsageError
from minifcn.viz.colours import ACCENT, INK, SECOND
from minifcn.viz.panels import plain
from minifcn.viz.plots import new_figure, written

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GAP = 0.12  # between two tiles, in widths of a tile


def feature_maps(
    maps: Array,
    *,
    names: Sequence[str] | None = None,
    shared: bool = True,
    columns: int = 8,
    most: int = 32,
    title: str = "",
) -> Figure:
    """Return the first `most` of the maps (C, h, w) side by side, `columns` in a row, each cell a square.

    On one scale for all, so that a silent map looks silent; with `shared=False` each on its own, its largest size
    written above it. Maps without negative values go from black (0) to yellow; others from blue over white (0) to red.
    What is not finite is green. `names` stand above the maps, their numbers unless given. Raises `ShapeError` unless
    `maps` is (C, h, w), with a name for each.
    """
    maps = np.asarray(to_host(maps), dtype=np.float64)
    if maps.ndim != 3 or maps.size == 0:
        raise ShapeError(f"feature maps: found {maps.shape}; expected (C, h, w) with something in it")
    if names is not None and len(names) != len(maps):
        raise ShapeError(f"feature maps: {len(maps)} maps but {len(names)} names; expected a name for each")
    shown = maps[:most]
    signed = bool((shown[np.isfinite(shown)] < 0).any())
    peaks = [_peak(shown)] * len(shown) if shared else [_peak(each) for each in shown]
    captions = [plain(names[i]) if names is not None else str(i) for i in range(len(shown))]
    if not shared:
        captions = [f"{caption}: {peak:.2g}" for caption, peak in zip(captions, peaks, strict=True)]
    tiles = [each / (peak or 1.0) for each, peak in zip(shown, peaks, strict=True)]
    scale = {"cmap": "RdBu_r" if signed else "inferno", "vmin": -1 if signed else 0, "vmax": 1}
    figure, axes = _tiled(tiles, captions, min(columns, len(tiles)), scale, title, _some(len(shown), len(maps), "maps"))
    bar = figure.colorbar(axes.images[0], ax=axes, shrink=0.6, aspect=25)
    ends = [-1, 0, 1] if signed else [0, 1]
    bar.set_ticks(ends, labels=[f"{end * peaks[0]:.3g}" if shared else ("-max", "0", "max")[end + 1] for end in ends])
    return figure


def kernels(
    w: Array,
    *,
    order: str = "rgb",
    shared: bool = False,
    columns: int = 12,
    most: int = 96,
    inputs: int = 12,
    title: str = "",
) -> Figure:
    """Return the filters w (O, I, kh, kw) of a convolution, mid-grey where they are 0.

    Of colour images (I = 3) each filter is one colour picture, `columns` in a row; `order` "bgr" for Caffe's weights,
    whose first channel is blue. Otherwise each output has a row, with a grey picture for each of the first `inputs`
    channels. Each output has its own scale, so that shapes can be compared; `shared=True` gives one to all, so that
    sizes can. At most `most` pictures. Raises `ShapeError` unless `w` has four axes, `UsageError` for another order.
    """
    w = np.asarray(to_host(w), dtype=np.float64)
    if w.ndim != 4 or w.size == 0:
        raise ShapeError(f"kernels: found {w.shape}; expected (O, I, kh, kw) with something in it")
    if order not in ("rgb", "bgr"):
        raise UsageError(f'kernels: order is {order!r}; expected "rgb" or "bgr"')
    peaks = [_peak(w)] * len(w) if shared else [_peak(each) for each in w]
    scaled = [0.5 + each / (2 * (peak or 1.0)) for each, peak in zip(w, peaks, strict=True)]
    incoming = w.shape[1]
    if incoming in (1, 3):
        turn = -1 if order == "bgr" else 1
        tiles = [each[0] if incoming == 1 else np.clip(each[::turn].transpose(1, 2, 0), 0, 1) for each in scaled[:most]]
        note, wide = _some(len(tiles), len(w), "filters"), min(columns, len(tiles))
    else:
        wide = min(inputs, incoming)
        rows = scaled[: max(1, most // wide)]
        tiles = [each[i] for each in rows for i in range(wide)]
        note = ", ".join(filter(None, (_some(len(rows), len(w), "filters"), _some(wide, incoming, "inputs"))))
    figure, _ = _tiled(tiles, [""] * len(tiles), wide, {"cmap": "gray", "vmin": 0, "vmax": 1}, title, note)
    return figure


def _peak(values: np.ndarray) -> float:
    """Return the largest size of a finite value."""
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0))


def _some(shown: int, there: int, what: str) -> str:
    return "" if shown == there else f"{shown} of {there} {what}"


def _tiled(
    tiles: Sequence[np.ndarray], captions: Sequence[str], columns: int, scale: Mapping[str, Any], title: str, note: str
) -> tuple[Figure, Any]:
    """Return a figure and its axes: tiles in rows, each one wide, with its caption above it."""
    height, width = tiles[0].shape[:2]
    tall, room = height / width, 0.22 if any(captions) else 0.0
    rows = -(-len(tiles) // columns)
    inch = min(1.1, 9.0 / columns)
    down = tall + GAP + room
    head = 0.35 if title or note else 0.0
    figure = new_figure(
        figsize=(max(2.4, inch * columns * (1 + GAP) + 0.9), inch * rows * down + head), layout="constrained"
    )
    from matplotlib import colormaps

    axes = figure.subplots()
    colours = colormaps[scale["cmap"]].with_extremes(bad="#3fa34d")
    for place, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        row, column = divmod(place, columns)
        left, top = column * (1 + GAP), row * down + room
        masked = np.ma.masked_invalid(tile)
        extent = (left, left + 1, top + tall, top)
        axes.imshow(masked, **{**scale, "cmap": colours}, extent=extent, interpolation="nearest")
        size = min(8.0, 68.0 * inch / max(4, len(caption)))
        axes.text(
            left + 0.5, top - 0.03, caption.replace("$", r"\$"), ha="center", va="bottom", fontsize=size, color=INK
        )
    axes.set(xlim=(-GAP / 2, columns * (1 + GAP) - GAP / 2), ylim=(rows * down, -GAP / 2))
    axes.set_axis_off()
    heading = "   ".join(filter(None, (plain(title) if title else "", note)))
    if heading:
        axes.set_title(heading.replace("$", r"\$"), fontsize=10.5, color=INK, loc="left")
    return figure, axes


def gradient_errors(errors: Mapping[str, Array], *, title: str = "", path: Path | None = None) -> Figure:
    """Return where gradients are wrong: a row for each input, from `introspect.detective.Case.errors`.

    On the left each element, blue where the gradient is too small and red where it is too large; the maps of a 4-D
    gradient stand side by side, images or filters below each other. On the right, for 4-D, the mean |error| at each
    pixel or kernel tap. Rows are scaled alone, and the largest error is written above; errors below 1e-6 are shown as
    zero. Written to `path` too if one is given. Raises `UsageError` without a gradient.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    if not errors:
        raise UsageError("gradient errors: found no gradient; expected errors by name")
    figure = Figure(figsize=(7.6, 0.3 + 1.9 * len(errors)), layout="constrained")
    rows = figure.subplots(len(errors), 2, squeeze=False, width_ratios=(2.4, 1))
    for (left, right), (name, array) in zip(rows, errors.items(), strict=True):
        error = np.asarray(to_host(array), dtype=np.float64)
        peak = _peak(error)
        error = np.where(np.abs(error) < 1e-6, 0.0, error)
        sheet = np.atleast_2d(error)
        if error.ndim > 2:
            maps = error.reshape(-1, *error.shape[-3:])
            maps = np.pad(maps, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)  # a gap between two maps
            sheet = maps.transpose(0, 2, 1, 3).reshape(maps.shape[0] * maps.shape[2], -1)[:-1, :-1]
        scale = peak if peak >= 1e-6 else 1.0
        colours = colormaps["RdBu_r"].with_extremes(bad="white")
        left.imshow(np.ma.masked_invalid(sheet), cmap=colours, vmin=-scale, vmax=scale)
        size = f"largest error {peak:.3g}" if peak >= 1e-6 else "no error"
        left.set_title(f"{plain(name)}: {size}".replace("$", r"\$"), fontsize=9.5, color=INK, loc="left")
        if error.ndim == 4:
            right.imshow(np.abs(error).mean(axis=(0, 1)), cmap="Reds", vmin=0)
            right.set_title("mean |error| by pixel or tap", fontsize=9.5, color=INK)
        else:
            right.set_axis_off()
        for axes in (left, right):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color("#9aa4b2")
    if title:
        figure.suptitle(plain(title).replace("$", r"\$"), fontsize=10.5, color=INK)
    return written(figure, path)


def gradient_flow(
    gradients: Mapping[str, Array | None], weights: Mapping[str, Array] | None = None, *, title: str = ""
) -> Figure:
    """Return how much gradient reaches each layer, on a logarithmic axis, the layers from the image downwards.

    A bar is the mean of |gradient|, the mark beyond it the largest. With `weights` of the same names the bar is the
    ratio of the root mean squares of gradient and weights, the part of itself by which a step of rate 1 would change a
    layer. What a logarithm cannot show is said in words: "zero", "none" (no gradient came), "not finite". Raises
    `UsageError` without a layer, `ShapeError` unless gradient and weights match.

        gradient_flow({name: p.grad for name, p in net.named_parameters() if name.endswith(".w")})
    """
    if not gradients:
        raise UsageError("gradient flow: found no layer; expected gradients by name")
    found = {name: None if g is None else np.asarray(to_host(g), dtype=np.float64) for name, g in gradients.items()}
    against: dict[str, np.ndarray] = {}
    if weights is not None:
        for name, g in found.items():
            shape = np.shape(weights[name]) if name in weights else "none"
            if name not in weights or (g is not None and shape != g.shape):
                there = "none" if g is None else g.shape
                raise ShapeError(
                    f"gradient flow: {name} has a gradient {there} and weights {shape}; expected one shape"
                )
            against[name] = np.asarray(to_host(weights[name]), dtype=np.float64)
    bars, marks, words = _measured(found, against if weights is not None else None)
    low = min(bars.values(), default=1.0) / 4
    figure = new_figure(figsize=(7.6, 0.9 + 0.24 * len(found)), layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(found):
        if name in words:
            axes.text(low * 1.08, place, words[name], va="center", fontsize=8.5, color=SECOND)
            continue
        axes.barh(place, bars[name] - low, left=low, height=0.62, color=ACCENT)
        if name in marks:
            axes.plot([marks[name]], [place], marker="|", markersize=9, markeredgewidth=2, color=SECOND)
    axes.set_xscale("log")
    axes.set(xlim=(low, 2 * max([*bars.values(), *marks.values()], default=4.0)), ylim=(len(found) - 0.4, -0.6))
    axes.set_yticks(range(len(found)), [plain(name).replace("$", r"\$") for name in found], fontsize=8.5)
    what = "mean |gradient|, and the largest (|)" if weights is None else "size of gradient / size of weights"
    axes.set_xlabel(what, fontsize=9.5, color=INK)
    axes.set_title(plain(title).replace("$", r"\$") if title else "", fontsize=10.5, color=INK, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors="#4a525e", labelsize=8.5)
    axes.grid(axis="x", color="#eceef1")
    axes.set_axisbelow(True)
    return figure


def _measured(
    gradients: Mapping[str, np.ndarray | None], weights: Mapping[str, np.ndarray] | None
) -> tuple[dict[str, float], dict[str, float], dict[str, str]]:
    """Return for each layer a bar and a mark, or a word."""
    bars: dict[str, float] = {}
    marks: dict[str, float] = {}
    words: dict[str, str] = {}
    for name, g in gradients.items():
        if g is None or g.size == 0:
            words[name] = "none"
        elif not np.isfinite(g).all():
            words[name] = "not finite"
        elif not g.any():
            words[name] = "zero"
        elif weights is None:
            bars[name], marks[name] = float(np.abs(g).mean()), float(np.abs(g).max())
        elif not (size := float(np.sqrt(np.mean(weights[name] ** 2)))) or not np.isfinite(size):
            words[name] = "weights are zero" if size == 0 else "weights are not finite"
        else:
            bars[name] = float(np.sqrt(np.mean(g**2))) / size
    return bars, marks, words
