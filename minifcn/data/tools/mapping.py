"""Map the colours or numbers of masks to classes.

Three kinds are most common: masks saved as pictures in colours, black and white masks whose 255 means "object" and not
void, and numbers that begin at 1. For each there is a mapping that is nearly always right. It is proposed, and applied
only on request: a mask's numbers are names, and only their author knows them.

A colour is one number here, red * 65536 + green * 256 + blue, as in 0xRRGGBB.
"""

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from minifcn.data.listed import read_lines
from minifcn.data.palette import palette
from minifcn.data.sample import VOID
from minifcn.errors import DataError
from minifcn.formats.limits import path_of

MAX_COLOURS = 1000  # a mask with more was scaled with interpolation, or was a JPEG once


@dataclass(frozen=True)
class Proposal:
    """`mapping` from old to new numbers, and a sentence on its origin; `sure` unless a person has to check it."""

    mapping: Mapping[int, int]
    why: str
    sure: bool = False


def packed(colours: np.ndarray) -> np.ndarray:
    """Return colours (..., 3) uint8 as numbers (...) int64, 0xRRGGBB."""
    return colours.astype(np.int64) @ np.array([2**16, 2**8, 1])


def voc_colours(classes: int) -> dict[int, int]:
    """Return `{0xRRGGBB: class}` in the palette of PASCAL VOC and of most programs since; void is 224, 224, 192."""
    colours = packed(palette(256))
    return {int(colours[number]): number for number in (*range(classes), VOID)}


def propose_colours(pixels: Mapping[int, int], classes: int) -> Proposal | None:
    """Return numbers for colours of masks, given the pixels of each; None if there are too many to be classes."""
    known = voc_colours(classes)
    if set(pixels) <= set(known):
        return Proposal({colour: known[colour] for colour in sorted(pixels, key=known.get)}, "VOC's palette", sure=True)  # type: ignore[arg-type]
    if all(colour == (colour & 255) * 0x10101 for colour in pixels):
        greys = propose_numbers({colour & 255: count for colour, count in pixels.items()}, classes)
        if greys:
            numbers = {colour: greys.mapping.get(colour & 255, colour & 255) for colour in sorted(pixels)}
            why = f"three channels that are equal hold the numbers; {greys.why}"
            return Proposal(numbers, why, greys.sure)
    void = [colour for colour in pixels if known.get(colour) == VOID]
    others = sorted(set(pixels) - set(void), key=lambda colour: (colour != 0, -pixels[colour], colour))
    if len(others) > VOID:
        return None
    numbers = {colour: number for number, colour in enumerate(others)}
    return Proposal(numbers | dict.fromkeys(void, VOID), "no palette that is known: black, then the most frequent")


def propose_numbers(pixels: Mapping[int, int], classes: int) -> Proposal | None:
    """Return classes for numbers of masks that are no classes yet; None if their meaning is not clear.

    An empty mapping says that the numbers are right.
    """
    found = sorted(pixels)
    inside = [number for number in found if number != VOID]
    if found == [0, VOID]:
        return Proposal({0: 0, VOID: 1}, "black and white: 255 is the object here, and not void", sure=True)
    if not inside or inside[-1] < classes:
        return Proposal({}, "they are the classes", sure=True)
    if inside[0] == 1 and inside[-1] == classes:
        return Proposal({n: n - 1 if n != VOID else VOID for n in found}, "they begin at 1 and not at 0")
    step = found[1] - found[0] if len(found) > 1 else 0
    spread = len(found) <= classes and all(abs(b - a - step) <= 1 for a, b in itertools.pairwise(found))
    if found[0] == 0 and step > 1 and spread:
        return Proposal({number: place for place, number in enumerate(found)}, "spread out, to be seen as greys")
    return None


def read_map(path: str | os.PathLike[str]) -> tuple[dict[int, int], dict[int, int]]:
    """Return (colours, numbers), old to new, from lines `R G B class` or `number class`; what follows is a remark.

    Raises DataError with the first line that is neither.
    """
    colours: dict[int, int] = {}
    numbers: dict[int, int] = {}
    for number, line in enumerate(read_lines(path_of(path)), start=1):
        fields = re.findall(r"^[\d ]*", line)[0].split()
        values = [int(field) for field in fields if len(field) < 6]
        highest = 255 if len(values) == 4 else 65535
        bad = len(values) != len(fields) or len(values) not in (2, 4)
        if bad or values[-1] > VOID or max(values[:-1]) > highest:
            raise DataError(
                f"{path}, line {number}: found {line[:60]!r}; expected `R G B class` or `number class`, class 0..255"
            )
        if len(values) == 4:
            colours[int(packed(np.array(values[:3])))] = values[3]
        else:
            numbers[values[0]] = values[1]
    return colours, numbers


def remapped(found: np.ndarray, mapping: Mapping[int, int]) -> np.ndarray:
    """Return numbers (H, W) or colours (H, W, 3) as classes (H, W) uint8. DataError for what the mapping lacks."""
    keys = packed(found) if found.ndim == 3 else found
    there, where = np.unique(keys, return_inverse=True)
    missing = [int(key) for key in there if int(key) not in mapping]
    if missing:
        names = ", ".join(colour_name(key) if found.ndim == 3 else str(key) for key in missing[:4])
        raise DataError(f"the mapping has no class for {names}")
    return np.array([mapping[int(key)] for key in there], np.uint8)[where].reshape(keys.shape)


def colour_name(colour: int) -> str:
    """Return the text of a colour, "128 0 0" for 0x800000, as `read_map` reads it."""
    return f"{colour >> 16} {colour >> 8 & 255} {colour & 255}"


def meant_by(line: str) -> Iterator[str]:
    """Return what a line of a list may mean: it or its first word as a path, each end of that, the file, the stem."""
    for text in (line, re.split(r"[\s,;]+", line)[0]):
        path = text.replace("\\", "/").removeprefix("./")
        parts = path.split("/")
        yield from ("/".join(parts[start:]) for start in range(len(parts)))
        yield parts[-1].rpartition(".")[0] or parts[-1]
