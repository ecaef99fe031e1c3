"""Draw the shapes of annotation tools as masks, each as its own tool draws them.

Two programs that fill the same polygon disagree at its edge, so a mask depends on who draws it. labelme draws with
Pillow, outline included. COCO's tools (and CVAT's exports, which use them) walk the outline in fifths of a pixel, and
count in each column how often it is crossed: a pixel is inside after an odd number of crossings. Run lengths (RLE)
hold finished masks, as the lengths of alternating runs of 0 and 1.

Every function here returns a mask (H, W) of bools. Coordinates come from files, so they are checked: `DataError`
says what is wrong with a shape, and who reads the file adds which shape of which file it is.
"""

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minifcn.errors import DataError

MAX_POINTS = 100_000  # of one shape
MAX_STEPS = 50_000_000  # of an outline, in fifths of a pixel
FAR = 100_000  # pixels; a corner further away is a mistake

Size = tuple[int, int]
Points = np.ndarray


def points_of(found: Any, *, least: int = 1) -> Points:
    """Return the corners (N, 2) float64, x and y, of a list of pairs or a flat list of numbers out of a file."""
    if not isinstance(found, list) or len(found) > 2 * MAX_POINTS:
        raise DataError(f"corners are {type(found).__name__}; expected a list of at most {MAX_POINTS} points")
    flat = [value for point in found for value in (point if isinstance(point, list) else [point])]
    if not all(type(value) in (int, float) and abs(value) <= FAR for value in flat):
        raise DataError(f"a corner is no pair of numbers within {FAR} pixels; expected x, y")
    if len(flat) % 2 or (isinstance(found[0] if found else None, list) and len(flat) != 2 * len(found)):
        raise DataError(f"{len(flat)} numbers for {len(found)} corners; expected two for each")
    if len(flat) < 2 * least:
        raise DataError(f"{len(flat) // 2} corners; expected at least {least}")
    return np.array(flat, np.float64).reshape(-1, 2)


def draw_labelme(kind: str, found: Any, size: Size, picture: Any = None) -> np.ndarray:
    """Return a shape as labelme fills it: polygon, rectangle, circle, line, linestrip, point or mask.

    `picture` is the PNG in base64 that a shape of kind "mask" holds.
    """
    from PIL import Image, ImageDraw

    points = points_of(found, least={"polygon": 3, "rectangle": 2, "circle": 2, "line": 2, "mask": 2}.get(kind, 1))
    if kind in ("rectangle", "circle", "line", "mask") and len(points) != 2:
        raise DataError(f"a {kind} of {len(points)} points; expected 2")
    if kind == "mask":
        return _pasted(points, size, picture)
    canvas = Image.new("L", (size[1], size[0]))
    draw = ImageDraw.Draw(canvas)
    corners = [(float(x), float(y)) for x, y in points]
    if kind == "polygon":
        draw.polygon(corners, outline=1, fill=1)
    elif kind == "rectangle":
        draw.rectangle([*points.min(axis=0).tolist(), *points.max(axis=0).tolist()], outline=1, fill=1)
    elif kind == "circle":
        (x, y), radius = corners[0], math.dist(*corners)
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], outline=1, fill=1)
    elif kind in ("line", "linestrip"):
        draw.line(corners, fill=1, width=10)
    elif kind in ("point", "points"):
        for x, y in corners:
            draw.ellipse([x - 5, y - 5, x + 5, y + 5], outline=1, fill=1)
    else:
        raise DataError(f"a shape of kind {kind[:40]!r}; expected polygon, rectangle, circle, line, point or mask")
    return np.asarray(canvas) > 0


def _pasted(points: Points, size: Size, picture: Any) -> np.ndarray:
    """Return a small mask, a PNG in base64, at its place in the large one."""
    from PIL import Image

    left, top, right, bottom = points.astype(int).ravel().tolist()
    if not (0 <= left <= right < size[1] and 0 <= top <= bottom < size[0]):
        raise DataError(f"a mask from {left}, {top} to {right}, {bottom}; expected it within {size[1]}x{size[0]}")
    wanted = (right - left + 1, bottom - top + 1)
    try:
        with Image.open(io.BytesIO(base64.b64decode(picture, validate=True)), formats=("PNG",)) as opened:
            if opened.size != wanted:
                raise DataError(f"a mask of {opened.size[0]}x{opened.size[1]}; expected {wanted[0]}x{wanted[1]}")
            inside = np.asarray(opened.convert("L")) > 0
    except DataError:
        raise
    except Exception as error:  # Pillow promises no set of exceptions for broken files
        raise DataError(f"a mask that is no PNG in base64 ({error!s:.60})") from error
    mask = np.zeros(size, bool)
    mask[top : bottom + 1, left : right + 1] = inside
    return mask


def draw_coco(points: Points, size: Size) -> np.ndarray:
    """Return a polygon as COCO's tools (`pycocotools`) fill it.

    The outline is followed in steps of a fifth of a pixel. Where it passes from one column to the next, every pixel of
    the column below that point changes sides; the parity of all such points above a pixel says whether it is inside.
    """
    height, width = size
    corners = np.trunc(5 * points + 0.5).astype(np.int64)  # towards 0, as C converts
    ends = np.roll(corners, -1, axis=0)
    if np.abs(ends - corners).max(axis=1).sum() > MAX_STEPS:
        raise DataError(f"an outline longer than {MAX_STEPS // 5} pixels; expected a polygon on the picture")
    steps = [_line(a, b) for a, b in zip(corners, ends, strict=True) if (a != b).any()]
    if not steps:
        return np.zeros(size, bool)
    u, v = np.concatenate(steps).T
    crosses = u[1:] != u[:-1]
    x = (np.minimum(u[1:], u[:-1])[crosses] + 0.5) / 5 - 0.5
    y = np.ceil(np.clip((np.minimum(v[1:], v[:-1])[crosses] + 0.5) / 5 - 0.5, 0, height)).astype(np.int64)
    column = (x == np.floor(x)) & (x >= 0) & (x <= width - 1)
    places = x[column].astype(np.int64) * height + y[column]
    crossings = np.bincount(places, minlength=height * width + 1)[: height * width]
    return (np.cumsum(crossings) % 2 == 1).reshape(width, height).T


def _line(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the points (N, 2) from a to b, one a step along the longer axis, always rounded from the same end."""
    dx, dy = np.abs(b - a)
    long = 0 if dx >= dy else 1
    flip = a[long] > b[long]
    start, end = (b, a) if flip else (a, b)
    t = np.arange(max(dx, dy) + 1)
    slope = (end - start)[1 - long] / max(dx, dy)
    line = np.empty((len(t), 2), np.int64)
    line[:, long] = start[long] + t
    line[:, 1 - long] = np.trunc(start[1 - long] + slope * t + 0.5)
    return line[::-1] if flip else line


def draw_runs(counts: Sequence[Any], size: Size, *, by_columns: bool = True) -> np.ndarray:
    """Return the mask of run lengths that begin with the number of zeros: column by column (COCO) or row by row."""
    area = size[0] * size[1]
    if len(counts) > area + 1 or not all(type(count) is int and 0 <= count <= area for count in counts):
        raise DataError(f"run lengths that are no numbers from 0 to {area}; expected lengths of runs")
    if sum(counts) != area:
        raise DataError(f"run lengths of {sum(counts)} pixels in all; expected {size[1]}x{size[0]} = {area}")
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape(size[::-1]).T if by_columns else flat.reshape(size)


def unpacked_runs(text: str) -> list[int]:
    """Return the run lengths in COCO's compressed text: five bits a letter, the lowest first, from "0" on.

    The sixth bit says that more letters follow, the fifth of the last letter is the sign; from the third length on,
    each is the difference to the one before the last.
    """
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 40:
            raise DataError(f"compressed run lengths with the letter {letter!r}; expected those from '0' to 'o'")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise DataError("compressed run lengths that end within a number; expected the whole text")
    return counts


def box(left: float, top: float, right: float, bottom: float) -> Points:
    """Return the four corners of a box."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)


def ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    """Return an ellipse as the 720 corners with which CVAT's exports draw it."""
    angles = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1)


def turned(points: Points, degrees: float) -> Points:
    """Return corners turned about the middle of their extent, clockwise on the screen."""
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return (points - middle) @ np.array([[cos, sin], [-sin, cos]]) + middle
