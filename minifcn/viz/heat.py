"""Draw score maps over the image as heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from minifcn.errors import ShapeError
from minifcn.viz.colours import INK, check_image
from minifcn.viz.panels import plain
from minifcn.viz.plots import new_figure, written

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def heat_maps(
    image: np.ndarray,
    maps: np.ndarray,
    classes: Sequence[str],
    *,
    start: float = 0.0,
    stride: float = 1.0,
    path: Path | None = None,
) -> Figure:
    """Return where a net sees which class: the image (H, W), and beneath it each of the maps (C, h, w) laid over it.

    The centre of a map's first cell lies at pixel `start`, the next is `stride` pixels on, as `Grid` says. All maps
    share one scale; what is not above 0 is left clear. Written to `path` too if one is given. Raises ShapeError unless
    each class has one map.
    """
    if image.ndim != 2 or maps.ndim != 3 or len(maps) != len(classes):
        expected = f"(H, W) and ({len(classes)}, h, w)"
        raise ShapeError(f"heat maps: image {image.shape}, maps {maps.shape}; expected {expected}")
    columns = min(5, len(maps))
    rows = -(-len(maps) // columns)
    tall = 12.8 * image.shape[0] / image.shape[1] * (1 + rows / columns)
    figure = new_figure(figsize=(12.8, tall + 0.25 * rows), layout="constrained")
    places = figure.add_gridspec(1 + rows, columns, height_ratios=[columns, *[1.1] * rows])
    every = [figure.add_subplot(places[0, :])]
    every += [figure.add_subplot(places[1 + i // columns, i % columns]) for i in range(len(maps))]
    height, width = maps.shape[1:]
    low = start - stride / 2
    extent = (low, low + stride * width, low + stride * height, low)
    for axes in every:
        axes.imshow(image, cmap="gray_r", vmin=0, vmax=image.max() or 1)
        axes.set_xticks([])
        axes.set_yticks([])
    for axes, heat, name in zip(every[1:], maps, classes, strict=True):
        seen = np.ma.masked_less_equal(heat, 0)
        axes.imshow(seen, cmap="plasma_r", vmin=0, vmax=maps.max() or 1, extent=extent, alpha=0.8)
        axes.set_xlim(-0.5, image.shape[1] - 0.5)
        axes.set_ylim(image.shape[0] - 0.5, -0.5)
        axes.set_title(plain(name), fontsize=9, color=INK)
    return written(figure, path)


def heat_map(
    image: np.ndarray,
    heat: np.ndarray,
    title: str,
    *,
    start: float = 0.0,
    stride: float = 1.0,
    path: Path | None = None,
) -> Figure:
    """Return a photograph (H, W, 3) uint8 beside itself under `heat` (h, w) from 0 to 1, with a `title`.

    The centre of the first cell lies at pixel `start`, the next is `stride` pixels on; between the centres the heat is
    interpolated, and half a cell beyond the outermost it ends, for no window looks there. Written to `path` too if one
    is given.
    """
    check_image(image)
    if heat.ndim != 2:
        raise ShapeError(f"a heat map is (h, w), found {heat.shape}")
    rows, columns = ((np.arange(side) - start) / stride for side in image.shape[:2])
    tall = np.array([np.interp(rows, np.arange(len(heat)), line) for line in heat.T])
    wide = np.array([np.interp(columns, np.arange(heat.shape[1]), line) for line in tall.T])
    inside = [(at >= -0.5) & (at <= count - 0.5) for at, count in zip((rows, columns), heat.shape, strict=True)]
    strength = np.logical_and.outer(*inside) * (0.25 + 0.6 * np.clip(wide, 0, 1))
    figure = new_figure(figsize=(10.6, 1 + 4.6 * image.shape[0] / image.shape[1]), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.imshow(image)
        axes.set_axis_off()
    paint = right.imshow(wide, cmap="inferno", vmin=0, vmax=1, alpha=strength)
    right.set_title(plain(title), fontsize=11, color=INK)
    figure.colorbar(paint, ax=right, fraction=0.04, alpha=1)
    return written(figure, path)
