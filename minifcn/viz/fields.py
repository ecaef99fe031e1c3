"""Draw receptive fields on a photograph, padding included."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minifcn.errors import UsageError
from minifcn.geometry import Grid
from minifcn.viz.colours import INK, check_image
from minifcn.viz.panels import plain
from minifcn.viz.plots import new_figure, written

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# one layer, one colour
LAYERS = ("#e4572e", "#17a2b8", "#f3a712", "#8f5bd6", "#3fa34d", "#d6457f", "#2f6fde", "#7a5c3e")


def field_box(grid: Grid, row: int, col: int) -> tuple[float, float, float, float]:
    """Return what the cell (row, col) of `grid` sees, as (top, left, bottom, right) in pixels.

    c +- field/2 around its centre c = stride * i + start. A pixel is a square with its centre at a whole number, so a
    field of 3 around pixel 5 reaches from 3.5 to 6.5. FCN, section 3.
    """
    top, left = (float(grid.stride * i + grid.start - grid.field / 2) for i in (row, col))
    return top, left, top + float(grid.field), left + float(grid.field)


def receptive_fields(
    image: np.ndarray,
    grids: Mapping[str, Grid],
    *,
    at: tuple[float, float] | None = None,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    path: Path | None = None,
) -> Figure:
    """Return the photograph (H, W, 3) uint8 with one cell of each layer: a box around what it sees, so that boxes nest.

    `grids` names the layers. Drawn is the cell whose centre is nearest to the pixel `at` (row, column), the image's
    middle unless given. What lies around the photograph is hatched: there the cell sees padding. A layer in `sizes`
    shows the centres of all its (rows, columns) cells as dots, and only those cells are chosen from. Written to `path`
    too if one is given. Raises `UsageError` without a layer, or for a size of a layer that `grids` does not name.
    """
    check_image(image)
    sizes = sizes or {}
    unknown = [name for name in sizes if name not in grids]
    if not grids or unknown:
        found = f"sizes of {', '.join(unknown)}" if unknown else "no layer"
        raise UsageError(f"receptive fields: found {found}; expected grids by name, and sizes of those alone")
    height, width = image.shape[:2]
    pixel = ((height - 1) / 2, (width - 1) / 2) if at is None else at
    boxes = {name: field_box(grid, *_nearest(grid, pixel, sizes.get(name))) for name, grid in grids.items()}
    edges = np.array([(-0.5, -0.5, height - 0.5, width - 0.5), *boxes.values()])
    (top, left), (bottom, right) = edges[:, :2].min(axis=0), edges[:, 2:].max(axis=0)
    margin = 0.03 * max(bottom - top, right - left)
    top, left, bottom, right = top - margin, left - margin, bottom + margin, right + margin
    tall = 6.4 * (bottom - top) / (right - left)
    figure = new_figure(figsize=(9.2, min(max(tall, 2.4), 9.0)), layout="constrained")
    from matplotlib.patches import Rectangle

    axes = figure.subplots()
    around = Rectangle((left, top), right - left, bottom - top, facecolor="#f2f3f5", edgecolor="#c9ced6", hatch="///")
    axes.add_patch(around)
    axes.imshow(image, zorder=1)
    for number, (name, (y0, x0, y1, x1)) in enumerate(boxes.items()):
        grid, colour = grids[name], LAYERS[number % len(LAYERS)]
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="white", linewidth=3.4, zorder=3))
        said = f"{plain(name)}: sees {grid.field} × {grid.field}, a cell every {grid.stride}".replace("$", r"\$")
        box = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=1.8, zorder=4, label=said)
        axes.add_patch(box)
        if name in sizes:
            ys, xs = (float(grid.start) + float(grid.stride) * np.arange(count) for count in sizes[name])
            columns, rows = np.meshgrid(xs, ys)
            edge: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.5}
            axes.plot(columns.ravel(), rows.ravel(), "o", color=colour, markersize=4, zorder=2, **edge)
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.set_axis_off()
    handles = axes.patches[2::2]  # after the surroundings, each box has its white edge before it
    figure.legend(handles=handles, loc="outside right upper", frameon=False, labelcolor=INK, fontsize=9)
    return written(figure, path)


def _nearest(grid: Grid, pixel: tuple[float, float], size: tuple[int, int] | None) -> tuple[int, int]:
    """Return the cell whose centre is nearest to `pixel`; of a map of `size` cells, if that is known."""
    cells = [round((x - float(grid.start)) / float(grid.stride)) for x in pixel]
    if size is not None:
        cells = [min(max(cell, 0), count - 1) for cell, count in zip(cells, size, strict=True)]
    return cells[0], cells[1]
