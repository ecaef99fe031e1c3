"""Every picture the library draws, from the colour of a class to the page of a gallery.

Three kinds, in this order: labels become colours (NumPy alone), colours become panels with captions and a legend
(Pillow), numbers become plots (matplotlib). Pictures are (H, W, 3) uint8 RGB arrays and plots are matplotlib figures;
`png` and `figure_png` turn either into the bytes of a file. Void, the pixels nobody labelled, is always white with a
hatch, in pictures and legends alike, so that it is never mistaken for a class.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import DataError, ShapeError, UsageError
from .metrics import ConfusionMatrix

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VOID = 255
INK, FAINT, ACCENT, SECOND = "#1b1f24", "#c9ced6", "#1f5fbf", "#c2571a"


# ---------------------------------------------------------------------------------------------------------------------
# Labels become colours
# ---------------------------------------------------------------------------------------------------------------------


def palette(count: int = 256) -> np.ndarray:
    """The colours PASCAL VOC gives its classes, (count, 3) uint8 RGB, by rule and not by table.

    Write the class number in binary and deal its bits out in turn to red, green and blue, filling each colour from
    its highest bit down: bit 0 becomes red's bit 7, bit 1 green's, bit 2 blue's, bit 3 red's bit 6, and so on. Classes
    that follow each other therefore differ in a high bit, which the eye sees, and 255 (void) comes out near white.
    """
    index = np.arange(count)
    colours = np.zeros((count, 3), dtype=np.uint8)
    for place in range(8):
        for channel in range(3):
            bit = index >> (3 * place + channel) & 1
            colours[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    return colours


def colourize(label: np.ndarray, colours: np.ndarray | None = None) -> np.ndarray:
    """A label (H, W) of class numbers as a picture (H, W, 3) uint8, one colour per class, void hatched.

    `colours` is (C, 3) uint8, the VOC palette unless given. Raises ShapeError for a label that is not two-dimensional
    and of integers, DataError for a class that has no colour.
    """
    colours = palette() if colours is None else colours
    _check_label(label, len(colours))
    void = label == VOID
    picture = colours[np.where(void, 0, label)]
    picture[void] = _hatch(label.shape)[void]
    return picture


def overlay(
    image: np.ndarray, label: np.ndarray, alpha: float = 0.5, *, colours: np.ndarray | None = None
) -> np.ndarray:
    """The picture with its label laid over it: (1 - alpha) image + alpha colour, and outlines in the full colour.

    Void keeps the photograph, faded to white, for nothing is claimed there. Raises ShapeError unless `image` is
    (H, W, 3) uint8 and `label` is (H, W).
    """
    _check_image(image)
    paint = colourize(label, colours).astype(np.float32)
    if label.shape != image.shape[:2]:
        raise ShapeError(f"the image is {image.shape[:2]} but the label is {label.shape}")
    strength = np.full(label.shape, alpha, np.float32)
    strength[_outline(label) & (label != VOID)] = 1.0
    paint[label == VOID] = 255.0
    blend = image + strength[..., None] * (paint - image)
    return np.rint(blend).astype(np.uint8)


def _outline(label: np.ndarray) -> np.ndarray:
    """Where a pixel's class is not that of its right or lower neighbour."""
    edge = np.zeros(label.shape, dtype=bool)
    edge[:, :-1] |= label[:, :-1] != label[:, 1:]
    edge[:-1] |= label[:-1] != label[1:]
    return edge


def _hatch(shape: tuple[int, ...]) -> np.ndarray:
    """White with thin grey diagonals, (H, W, 3)."""
    rows, columns = np.indices(shape)
    stripe = (rows + columns) % 6 < 2
    return np.where(stripe, 178, 255).astype(np.uint8)[..., None].repeat(3, axis=-1)


def _check_image(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ShapeError(f"an image is (H, W, 3) of uint8, found {image.shape} of {image.dtype}")


def _check_label(label: np.ndarray, classes: int) -> None:
    if label.ndim != 2 or label.dtype.kind not in "iu":
        raise ShapeError(f"a label is (H, W) of integers, found {label.shape} of {label.dtype}")
    wrong = np.unique(label[((label < 0) | (label >= classes)) & (label != VOID)])
    if wrong.size:
        raise DataError(f"the label holds class {wrong[0]}, expected 0..{classes - 1} or {VOID} for void")


# ---------------------------------------------------------------------------------------------------------------------
# Colours become panels, with captions and a legend
# ---------------------------------------------------------------------------------------------------------------------


def png(picture: np.ndarray) -> bytes:
    """An RGB picture as the bytes of a PNG file."""
    from PIL import Image

    _check_image(picture)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG", optimize=True)
    return file.getvalue()


def legend(
    classes: Sequence[str],
    label: np.ndarray | None = None,
    *,
    colours: np.ndarray | None = None,
    width: int | None = None,
    size: int = 14,
) -> np.ndarray:
    """Which colour is which class: an RGB picture, `width` pixels wide in as many columns as fit, else one column.

    With a label only what occurs in it is listed, void included; without one, every class. `size` is the height of
    the letters in pixels.
    """
    present = list(range(len(classes)))
    if label is not None:
        _check_label(label, len(classes))
        present = [int(index) for index in np.unique(label)]
    names = _legend(classes, present, colours, None if width is None else max(1, width - 2 * size), size)
    return np.pad(names, ((size, size), (size, size), (0, 0)), constant_values=255)


def _legend(
    classes: Sequence[str], present: list[int], colours: np.ndarray | None, width: int | None, size: int
) -> np.ndarray:
    from PIL import Image, ImageDraw

    font, swatch, line = _font(size), round(1.15 * size), round(1.75 * size)
    indent = swatch + round(0.55 * size)
    names = ["void" if index == VOID else _plain(classes[index]) for index in present]
    room = math.inf if width is None else width - indent
    names = [_shorten(name, font, room) for name in names]
    widths = [indent + math.ceil(font.getlength(name)) for name in names] or [1]
    apart = round(1.4 * size)
    if width is not None and sum(widths) + apart * (len(widths) - 1) <= width:
        rows, lefts = 1, [sum(widths[:place]) + apart * place for place in range(len(names))]
    else:
        # A table, read down its columns as one reads a list.
        step = max(widths) + apart
        columns = 1 if width is None else max(1, (width + apart) // step)
        rows = math.ceil(len(names) / columns)
        lefts = [place // rows * step for place in range(len(names))]
    page = Image.new("RGB", (width or max(widths) + 2, max(1, rows) * line), "white")
    draw = ImageDraw.Draw(page)
    for place, (index, name, left) in enumerate(zip(present, names, lefts, strict=True)):
        middle = place % rows * line + line // 2
        top = middle - swatch // 2
        tile = colourize(np.full((swatch, swatch), index, dtype=np.int64), colours)
        page.paste(Image.fromarray(tile), (left, top))
        draw.rectangle((left, top, left + swatch - 1, top + swatch - 1), outline="#8a929e")
        draw.text((left + indent, middle), name, font=font, fill=INK, anchor="lm")
    return np.asarray(page)


def triptych(
    image: np.ndarray,
    truth: np.ndarray | None,
    prediction: np.ndarray,
    classes: Sequence[str],
    *,
    colours: np.ndarray | None = None,
) -> np.ndarray:
    """Image, truth and prediction side by side over one legend; without a truth, the other two.

    Small images are enlarged by a whole number, so that every pixel stays a square that can be counted.
    """
    side = max(256, *image.shape[:2])
    if truth is None:
        return gallery([(image, prediction)], classes, captions=("image", "prediction"), side=side, colours=colours)
    return gallery([(image, truth, prediction)], classes, side=side, colours=colours)


def gallery(
    samples: Sequence[Sequence[np.ndarray]],
    classes: Sequence[str],
    *,
    captions: Sequence[str] = ("image", "truth", "prediction"),
    columns: int = 1,
    side: int = 256,
    colours: np.ndarray | None = None,
) -> np.ndarray:
    """Many samples on one page with one legend: an RGB picture.

    A sample is `(image, label, label, ...)` and `captions` names its parts, so the same page compares truth with
    FCN-32s, FCN-16s and FCN-8s as the paper's figure 4 does. `columns` samples stand side by side; the long side of a
    panel is at most `side` pixels. Letters and margins grow with `side`.
    """
    from PIL import Image, ImageDraw

    for sample in samples:
        _check_sample(sample, captions, len(classes))
    if not samples:
        raise UsageError("a gallery needs at least one sample, found none")
    unit = max(12, side // 18)
    gap, margin, font = unit // 2, round(1.25 * unit), _font(unit)
    panels = [_panels(sample, side, colours) for sample in samples]
    columns = max(1, min(columns, len(panels)))
    widest = max(panel.shape[1] for row in panels for panel in row)
    widest = max(widest, math.ceil(max(font.getlength(caption) for caption in captions)))
    group = len(captions) * (widest + gap) - gap
    width = columns * (group + margin) + margin
    heights = [
        max(panel.shape[0] for row in panels[first : first + columns] for panel in row)
        for first in range(0, len(panels), columns)
    ]
    present = sorted({int(index) for sample in samples for label in sample[1:] for index in np.unique(label)})
    names = _legend(classes, present, colours, width - 2 * margin, round(0.9 * unit))
    top = margin + round(1.6 * unit)
    height = top + sum(heights) + gap * (len(heights) - 1) + unit + names.shape[0] + margin
    page = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(page)
    for column in range(columns):
        for place, caption in enumerate(captions):
            centre = margin + column * (group + margin) + place * (widest + gap) + widest / 2
            draw.text((centre, margin + unit // 2), caption, font=font, fill=INK, anchor="mm")
    for number, row in enumerate(panels):
        down, column = divmod(number, columns)
        y = top + sum(heights[:down]) + gap * down
        for place, panel in enumerate(row):
            x = margin + column * (group + margin) + place * (widest + gap)
            free_y, free_x = heights[down] - panel.shape[0], widest - panel.shape[1]
            page.paste(Image.fromarray(panel), (x + free_x // 2, y + free_y // 2))
    page.paste(Image.fromarray(names), (margin, height - margin - names.shape[0]))
    return np.asarray(page)


def _check_sample(sample: Sequence[np.ndarray], captions: Sequence[str], classes: int) -> None:
    if len(sample) != len(captions):
        raise UsageError(f"a gallery with {len(captions)} captions needs {len(captions)} parts, found {len(sample)}")
    image, *labels = sample
    _check_image(image)
    for caption, label in zip(captions[1:], labels, strict=True):
        _check_label(label, classes)
        if label.shape != image.shape[:2]:
            raise ShapeError(f"the image is {image.shape[:2]} but its {caption} is {label.shape}")


def _panels(sample: Sequence[np.ndarray], side: int, colours: np.ndarray | None) -> list[np.ndarray]:
    image, *labels = sample
    # Labels are resized before they are coloured, so that the hatch of void keeps its size.
    return [_resize(image, side), *(colourize(_resize(label, side), colours) for label in labels)]


def _resize(pixels: np.ndarray, side: int) -> np.ndarray:
    """Make the long side at most `side`: larger by a whole number, or smaller (photographs smoothly)."""
    height, width = pixels.shape[:2]
    longest = max(height, width)
    if longest <= side:
        return pixels.repeat(side // longest, axis=0).repeat(side // longest, axis=1)
    new_height, new_width = max(1, round(height * side / longest)), max(1, round(width * side / longest))
    if pixels.ndim == 2:
        rows = (2 * np.arange(new_height) + 1) * height // (2 * new_height)
        columns = (2 * np.arange(new_width) + 1) * width // (2 * new_width)
        return pixels[rows][:, columns]
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((new_width, new_height), Image.Resampling.LANCZOS))


def _font(size: int) -> Any:
    """The typeface that comes inside Pillow: the same letters on every machine."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _plain(name: str) -> str:
    """A class name on one line: names come from files, and may hold anything."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in name).split()) or "(no name)"


def _shorten(name: str, font: Any, room: float) -> str:
    if font.getlength(name) <= room:
        return name
    while len(name) > 1 and font.getlength(name + "…") > room:
        name = name[:-1].rstrip()
    return name + "…"


# ---------------------------------------------------------------------------------------------------------------------
# Numbers become plots
# ---------------------------------------------------------------------------------------------------------------------


def figure_png(figure: Figure, *, dpi: int = 150) -> bytes:
    """A matplotlib figure as the bytes of a PNG file, the same bytes for the same figure."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        # A class name in letters the typeface lacks is drawn as boxes, which is no reason to say so on every run.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(file, format="png", dpi=dpi, metadata={"Software": None})
    return file.getvalue()


def curves(history: Sequence[Mapping[str, Any]], path: Path | None = None) -> Figure:
    """How a run went: loss per pixel over steps on the left, the four measures on the validation set on the right.

    `history` is a run's metrics.jsonl, a record per item. The loss is drawn faint as it was and strong as the mean of
    its neighbourhood, beside ln C, where a net that knows nothing begins. Written to `path` too if one is given.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    trained = [record for record in history if record.get("kind") == "train"]
    validated = [record for record in history if record.get("kind") == "val"]
    _draw_loss(left, *_series(trained, "loss"), len(validated[0].get("iu") or ()) if validated else 0)
    _draw_measures(right, validated)
    if path is not None:
        path.write_bytes(figure_png(figure))
    return figure


def _series(records: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of one key, without the records where it is missing or not finite."""
    pairs = [(record.get("step"), record.get(key)) for record in records]
    kept = [(s, v) for s, v in pairs if isinstance(s, int) and isinstance(v, int | float) and math.isfinite(v)]
    return np.array([s for s, _ in kept], dtype=np.int64), np.array([v for _, v in kept], dtype=np.float64)


def _draw_loss(axes: Any, steps: np.ndarray, losses: np.ndarray, classes: int) -> None:
    _dress(axes, "loss per pixel")
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
        axes.annotate(
            f"ln {classes} = {chance:.3f}, knowing nothing", (1, chance), xycoords=("axes fraction", "data"),
            xytext=(-2, 3), textcoords="offset points", ha="right", va="bottom", color=SECOND, fontsize=8.5,
        )  # fmt: skip
        top = max(top, 1.15 * chance)
    axes.set_ylim(0, top or 1.0)


def _neighbourhood_mean(values: np.ndarray, reach: int) -> np.ndarray:
    """The mean of up to `reach` values on either side: fewer at the ends, where there are no more."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    low, high = np.maximum(place - reach, 0), np.minimum(place + reach + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def _draw_measures(axes: Any, validated: Sequence[Mapping[str, Any]]) -> None:
    _dress(axes, "validation")
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
    axes.annotate(
        f"{values[best]:.3f}", (steps[best], values[best]), xytext=(0, 6), textcoords="offset points",
        ha="center", va="bottom", color=ACCENT, fontweight="bold", fontsize=9,
    )  # fmt: skip
    axes.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1.4)


def confusion_picture(matrix: np.ndarray, classes: Sequence[str], path: Path | None = None) -> Figure:
    """Where each class's true pixels went: rows are the truth and add up to 100 %, columns the prediction.

    Beside a name stands its share of all true pixels. Rows without true pixels are left grey. Up to 25 classes the
    cells carry their percentages; beyond, colour alone. Written to `path` too if one is given.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    confusion = ConfusionMatrix.of(matrix)
    if len(classes) != confusion.classes:
        raise ShapeError(f"the confusion matrix has {confusion.classes} classes but {len(classes)} names were given")
    pixels = confusion.true_pixels()[:, None]
    percent = np.divide(100.0 * confusion.matrix, pixels, out=np.full(confusion.matrix.shape, np.nan), where=pixels > 0)
    count = len(classes)
    inches = min(max(0.44 * count, 2.4), 13.0)
    letters = min(9.0, max(4.0, 55.0 * inches / count))
    figure = Figure(figsize=(inches + 2.6, inches + 1.9), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("#e7e9ed")
    # Below 100 % the colours are spread out: a confusion of a few per cent should be seen.
    drawn = axes.imshow(np.ma.masked_invalid(percent), cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    names = [_tick(name) for name in classes]
    shares = confusion.shares_true()
    axes.set_xticks(range(count), names, rotation=90 if count > 4 else 0, fontsize=letters)
    axes.set_yticks(
        range(count), [f"{n}  {100 * s:.1f} %" for n, s in zip(names, shares, strict=True)], fontsize=letters
    )
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("predicted", fontsize=10, color=INK, labelpad=8)
    axes.set_ylabel("true, with its share of all pixels", fontsize=10, color=INK, labelpad=8)
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(0.5, count - 1), minor=True)
    axes.set_yticks(np.arange(0.5, count - 1), minor=True)
    axes.grid(which="minor", color="white", linewidth=1.2 if count <= 25 else 0.3)
    axes.tick_params(which="minor", length=0)
    if count <= 25:
        for row, column in zip(*np.nonzero(np.nan_to_num(percent) >= 0.5), strict=True):
            colour = "white" if percent[row, column] > 35 else INK
            axes.text(column, row, f"{percent[row, column]:.0f}", ha="center", va="center", color=colour, fontsize=8.5)
    else:
        figure.colorbar(drawn, ax=axes, shrink=0.5, aspect=30, label="% of the class's true pixels")
    if path is not None:
        path.write_bytes(figure_png(figure))
    return figure


def _tick(name: str) -> str:
    r"""A class name short enough for an axis; matplotlib would read $...$ as a formula, and fail where it is none."""
    name = _plain(name)
    return (name if len(name) <= 24 else name[:23] + "…").replace("$", r"\$")


def _dress(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=10.5, color=INK, loc="left")
    axes.set_xlabel("step", fontsize=9.5, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#8a929e")
    axes.tick_params(colors="#4a525e", labelsize=8.5)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.grid(axis="y", color="#eceef1")
    axes.set_axisbelow(True)


def _nothing(axes: Any) -> None:
    axes.text(0.5, 0.5, "nothing recorded", ha="center", va="center", color="#8a929e", transform=axes.transAxes)


Panel = tuple[str, str, str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]


def log_log(panels: Sequence[Panel], path: Path, *, points: Sequence[str] = ()) -> None:
    """What a benchmark measured, on logarithmic axes, as a PNG: panels (title, x label, y label, {name: (xs, ys)}).

    The series named in `points` are drawn as points, the others as lines.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1 + 4.4 * len(panels), 3.6), layout="constrained")
    for axes, (title, x, y, series) in zip(np.ravel(figure.subplots(1, len(panels))), panels, strict=True):
        _dress(axes, title)
        for (name, (xs, ys)), colour in zip(series.items(), (ACCENT, SECOND, INK), strict=False):
            style = {"linestyle": "", "marker": "o", "markersize": 4} if name in points else {"linewidth": 1.2}
            axes.plot(xs, ys, color=colour, label=name, **style)
        axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
        axes.legend(frameon=False, fontsize=8.5)
    path.write_bytes(figure_png(figure))


def heat_maps(
    image: np.ndarray,
    maps: np.ndarray,
    classes: Sequence[str],
    *,
    start: float = 0.0,
    stride: float = 1.0,
    path: Path | None = None,
) -> Figure:
    """Where a net sees which class: the image (H, W), and beneath it each of the maps (C, h, w) laid over it.

    The centre of a map's first cell lies at pixel `start`, the next is `stride` pixels on, as `Grid` says. All maps
    share one scale; what is not above 0 is left clear. Written to `path` too if one is given. Raises ShapeError unless
    each class has one map.
    """
    from matplotlib.figure import Figure

    if image.ndim != 2 or maps.ndim != 3 or len(maps) != len(classes):
        raise ShapeError(
            f"heat maps: image {image.shape}, maps {maps.shape}; expected (H, W) and ({len(classes)}, h, w)"
        )
    columns = min(5, len(maps))
    rows = -(-len(maps) // columns)
    tall = 12.8 * image.shape[0] / image.shape[1] * (1 + rows / columns)
    figure = Figure(figsize=(12.8, tall + 0.25 * rows), layout="constrained")
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
        axes.set_title(_plain(name), fontsize=9, color=INK)
    if path is not None:
        path.write_bytes(figure_png(figure))
    return figure


def heat_map(
    image: np.ndarray,
    heat: np.ndarray,
    title: str,
    *,
    start: float = 0.0,
    stride: float = 1.0,
    path: Path | None = None,
) -> Figure:
    """A photograph (H, W, 3) uint8 beside itself with `heat` (h, w) from 0 to 1 laid over it; `title` says what of.

    The centre of the first cell lies at pixel `start`, the next is `stride` pixels on; between the centres the heat is
    interpolated, and half a cell beyond the outermost it ends, for no window looks there. Written to `path` too if one
    is given.
    """
    from matplotlib.figure import Figure

    _check_image(image)
    if heat.ndim != 2:
        raise ShapeError(f"a heat map is (h, w), found {heat.shape}")
    rows, columns = ((np.arange(side) - start) / stride for side in image.shape[:2])
    tall = np.array([np.interp(rows, np.arange(len(heat)), line) for line in heat.T])
    wide = np.array([np.interp(columns, np.arange(heat.shape[1]), line) for line in tall.T])
    inside = [(at >= -0.5) & (at <= count - 0.5) for at, count in zip((rows, columns), heat.shape, strict=True)]
    strength = np.logical_and.outer(*inside) * (0.25 + 0.6 * np.clip(wide, 0, 1))
    figure = Figure(figsize=(10.6, 1 + 4.6 * image.shape[0] / image.shape[1]), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.imshow(image)
        axes.set_axis_off()
    paint = right.imshow(wide, cmap="inferno", vmin=0, vmax=1, alpha=strength)
    right.set_title(_plain(title), fontsize=11, color=INK)
    figure.colorbar(paint, ax=right, fraction=0.04, alpha=1)
    if path is not None:
        path.write_bytes(figure_png(figure))
    return figure
