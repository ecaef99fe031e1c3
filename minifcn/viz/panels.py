"""Draw predictions side by side, with captions and a legend (Pillow)."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minifcn.data.sample import VOID
from minifcn.errors import ShapeError, UsageError
from minifcn.viz.colours import INK, check_image, check_label, colourize, overlay


def png(picture: np.ndarray) -> bytes:
    """Return an RGB picture as the bytes of a PNG file."""
    from PIL import Image

    check_image(picture)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG", optimize=True)
    return file.getvalue()


def legend(
    classes: Sequence[str], label: np.ndarray | None = None, *, width: int | None = None, size: int = 14
) -> np.ndarray:
    """Return the legend of the classes, an RGB picture `width` pixels wide, in as many columns as fit, at least one.

    With a label only what occurs in it is listed, void included; without one, every class. `size` is the height of
    the letters in pixels.
    """
    present = list(range(len(classes)))
    if label is not None:
        check_label(label, len(classes))
        present = [int(index) for index in np.unique(label)]
    names = _legend(classes, present, None if width is None else max(1, width - 2 * size), size)
    return np.pad(names, ((size, size), (size, size), (0, 0)), constant_values=255)


def _legend(classes: Sequence[str], present: list[int], width: int | None, size: int) -> np.ndarray:
    from PIL import Image, ImageDraw

    font, swatch, line = font_of(size), round(1.15 * size), round(1.75 * size)
    indent = swatch + round(0.55 * size)
    names = ["void" if index == VOID else plain(classes[index]) for index in present]
    room = math.inf if width is None else width - indent
    names = [shorten(name, font, room) for name in names]
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
        tile = colourize(np.full((swatch, swatch), index, dtype=np.int64))
        page.paste(Image.fromarray(tile), (left, top))
        draw.rectangle((left, top, left + swatch - 1, top + swatch - 1), outline="#8a929e")
        draw.text((left + indent, middle), name, font=font, fill=INK, anchor="lm")
    return np.asarray(page)


def triptych(image: np.ndarray, truth: np.ndarray | None, prediction: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Return image, truth and prediction side by side over one legend; without a truth, the other two.

    Small images are enlarged by a whole number, so that every pixel stays a square that can be counted.
    """
    side = max(256, *image.shape[:2])
    if truth is None:
        return gallery([(image, prediction)], classes, captions=("image", "prediction"), side=side)
    return gallery([(image, truth, prediction)], classes, side=side)


def ladder(
    image: np.ndarray,
    truth: np.ndarray | None,
    predictions: Mapping[str, np.ndarray],
    classes: Sequence[str],
    *,
    side: int = 256,
) -> np.ndarray:
    """Return a picture of finer and finer predictions of one image beside its truth, as in figure 4 of the paper.

    `predictions` go from coarse to fine by the names of their nets: {"FCN-32s": label, "FCN-16s": ..., "FCN-8s": ...}.
    Where a truth is given, each name stands with the part of the labelled pixels that its net has right. Raises
    `UsageError` without a prediction.
    """
    if not predictions:
        raise UsageError("a ladder needs at least one prediction, found none")
    if truth is None:
        return gallery([(image, *predictions.values())], classes, captions=("image", *predictions), side=side)
    sample = (image, truth, *predictions.values())
    _check_sample(sample, ("image", "truth", *predictions), len(classes))
    labelled = truth != VOID
    captions = [
        f"{name}  {100 * np.mean(label[labelled] == truth[labelled]):.1f} %" if labelled.any() else name
        for name, label in predictions.items()
    ]
    return gallery([sample], classes, captions=("image", "truth", *captions), side=side)


def gallery(
    samples: Sequence[Sequence[np.ndarray]],
    classes: Sequence[str],
    *,
    captions: Sequence[str] = ("image", "truth", "prediction"),
    columns: int = 1,
    side: int = 256,
    over: bool = False,
) -> np.ndarray:
    """Return many samples on one page with one legend: an RGB picture.

    A sample is `(image, label, label, ...)` and `captions` names its parts, so the same page compares truth with
    FCN-32s, FCN-16s and FCN-8s as the paper's figure 4 does. `columns` samples stand side by side; the long side of a
    panel is at most `side` pixels. Letters and margins grow with `side`. With `over`, each label lies over its image,
    which can still be seen, and class 0, the background, is left bare.
    """
    from PIL import Image, ImageDraw

    for sample in samples:
        _check_sample(sample, captions, len(classes))
    if not samples:
        raise UsageError("a gallery needs at least one sample, found none")
    unit = max(12, side // 18)
    gap, margin, font = unit // 2, round(1.25 * unit), font_of(unit)
    panels = [_panels(sample, side, over) for sample in samples]
    columns = max(1, min(columns, len(panels)))
    widest = max(panel.shape[1] for row in panels for panel in row)
    widest = max(widest, math.ceil(max(font.getlength(caption) for caption in captions)))
    group = len(captions) * (widest + gap) - gap
    width = columns * (group + margin) + margin
    heights = [
        max(panel.shape[0] for row in panels[first : first + columns] for panel in row)
        for first in range(0, len(panels), columns)
    ]
    found = {int(index) for sample in samples for label in sample[1:] for index in np.unique(label)}
    names = _legend(classes, sorted(found - {0} if over else found), width - 2 * margin, round(0.9 * unit))
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
    check_image(image)
    for caption, label in zip(captions[1:], labels, strict=True):
        check_label(label, classes)
        if label.shape != image.shape[:2]:
            raise ShapeError(f"the image is {image.shape[:2]} but its {caption} is {label.shape}")


def _panels(sample: Sequence[np.ndarray], side: int, over: bool) -> list[np.ndarray]:
    # Labels are resized before they are coloured, so that the hatch of void keeps its size.
    image, *labels = (_resize(part, side) for part in sample)
    return [image, *(overlay(image, label, bare=0) if over else colourize(label) for label in labels)]


def _resize(pixels: np.ndarray, side: int) -> np.ndarray:
    """Return the pixels with a long side of at most `side`: larger by a whole number, or reduced (images smoothly)."""
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


def font_of(size: int) -> Any:
    """Return the typeface that comes inside Pillow: the same letters on every machine."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def plain(name: str) -> str:
    """Return a class name on one line: names come from files, and may hold anything."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in name).split()) or "(no name)"


def shorten(name: str, font: Any, room: float) -> str:
    """Return the name, cut with "…" where it is wider than `room` pixels."""
    if font.getlength(name) <= room:
        return name
    while len(name) > 1 and font.getlength(name + "…") > room:
        name = name[:-1].rstrip()
    return name + "…"
