"""Class names and colours from the files that people keep beside their masks.

If such a file says what a number or a colour means, nothing is guessed. It can be a list of names, one a line
(`classes.txt`, `labels.txt`), numbered names (`0: road`, `Pixel Value, Class`, ADE20K's `objectInfo150.txt`, JSON), or
names with colours (CVAT's `labelmap.txt`, CamVid's `label_colors.txt`, Kaggle's `class_dict.csv`). A name such as
"void" or "__ignore__" becomes void.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from minifcn.data.listed import MAX_LIST, read_small
from minifcn.data.sample import VOID
from minifcn.data.tools.mapping import packed
from minifcn.errors import DataError, FormatError
from minifcn.formats.strict_json import read_json

NAMES = re.compile(
    r"(?!.*(?:train|val|test))(?:.*[_-])?(?:class(?:es)?|label|labels|class[_-]?names|label[_-]?names|names|labelmap|label[_-]?map|class[_-]?dict|"
    r"label[_-]?colou?rs?|colou?r[_-]?map|id2label|objectinfo150|obj)",
    re.IGNORECASE,
)
"""What the stem of such a file looks like."""
SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".names")
VOID_NAMES = re.compile(r"_*(?:void|ignore[d]?|unlabel+ed|unlabel+ed pixels|ignore region|don't care)_*", re.IGNORECASE)
ZERO_NAMES = re.compile(r"_*background_*", re.IGNORECASE)
MOST_NAMES = 1000

_CAMVID = """
408040 Animal, c00080 Archway, 0080c0 Bicyclist, 008040 Bridge, 800000 Building, 400080 Car, 4000c0 CartLuggagePram,
c08040 Child, c0c080 Column_Pole, 404080 Fence, 8000c0 LaneMkgsDriv, c00040 LaneMkgsNonDriv, 808040 Misc_Text,
c000c0 MotorcycleScooter, 804040 OtherMoving, 40c080 ParkingBlock, 404000 Pedestrian, 804080 Road, 8080c0 RoadShoulder,
0000c0 Sidewalk, c08080 SignSymbol, 808080 Sky, 4080c0 SUVPickupTruck, 000040 TrafficCone, 004040 TrafficLight,
c04080 Train, 808000 Tree, c080c0 Truck_Bus, 400040 Tunnel, c0c000 VegetationMisc, 000000 Void, 40c000 Wall
"""
CAMVID = {int(code, 16): name for code, name in (entry.split() for entry in _CAMVID.split(","))}
"""The colours of CamVid's 31 classes and void, and their names."""
CITYSCAPES = (
    *(
        "road",
        "sidewalk",
        "building",
        "wall",
        "fence",
        "pole",
        "traffic light",
        "traffic sign",
        "vegetation",
        "terrain",
    ),
    *("sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The label id of each of Cityscapes' 19 training classes; every other id is void."""


@dataclass(frozen=True)
class Sidecar:
    """What a file says: class names in order, and which number or colour (0xRRGGBB) of a mask is which class."""

    path: Path
    classes: tuple[str, ...]
    numbers: Mapping[int, int] = field(default_factory=dict)
    colours: Mapping[int, int] = field(default_factory=dict)


def find_sidecar(folder: Path, files: Iterable[Path]) -> Sidecar | None:
    """Return what the first file with class names says, of those at most two folders down; files with colours go
    first. A file that has such a name and cannot be read as one is passed over, like any other text."""
    near = [file for file in files if len(file.relative_to(folder).parts) <= 3 and file.suffix.lower() in SUFFIXES]
    near = [file for file in near if NAMES.fullmatch(file.stem)]
    found = []
    for file in sorted(near, key=lambda file: (len(file.parts), file.stem != "class_names", file.name)):
        try:
            found.append(read_sidecar(file))
        except DataError:
            continue
    return next((one for one in found if one.colours), next(iter(found), None))


def read_sidecar(path: Path) -> Sidecar:
    """Return the names, numbers and colours that a file gives. DataError for a file that gives none."""
    if path.suffix.lower() == ".json":
        entries = _of_json(path)
    else:
        entries = _of_lines(path)
    if not entries or len(entries) > MOST_NAMES:
        raise DataError(f"{path}: {len(entries)} class names; expected 1..{MOST_NAMES}, one a line")
    return _ordered(path, entries)


Entry = tuple[int | None, int | None, str]  # number, colour, name; what is not given is None


def _of_json(path: Path) -> list[Entry]:
    """Read `{"0": "background", ...}` or `{"background": 0, ...}`."""
    try:
        found = read_json(path, most=MAX_LIST, what="class names by number")
    except FormatError as error:
        raise DataError(str(error)) from error
    by_number = [(int(k), None, v) for k, v in found.items() if re.fullmatch(r"\d{1,5}", k) and isinstance(v, str)]
    by_name = [(v, None, k) for k, v in found.items() if type(v) is int and 0 <= v < 2**16]
    entries = by_number or by_name
    if len(entries) != len(found):
        raise DataError(f"{path}: an object of other things; expected names by number, or numbers by name")
    return [(number, None, _clean(name)) for number, _, name in sorted(entries, key=lambda entry: entry[0])]


NUMBERED = re.compile(r"(\d{1,5})\s*[:=,;\t ]\s*([^\d\W].*)")
COLOURED = (
    re.compile(r"(?P<r>\d{1,3})[\s,]+(?P<g>\d{1,3})[\s,]+(?P<b>\d{1,3})[\s,:]+(?P<name>[^\d\s].*)"),
    re.compile(r"(?P<name>[^:]+):(?P<r>\d{1,3}),(?P<g>\d{1,3}),(?P<b>\d{1,3})(?::.*)?"),
    re.compile(r"(?P<name>[^,\t]+?)[,\s]+(?P<r>\d{1,3})[,\s]+(?P<g>\d{1,3})[,\s]+(?P<b>\d{1,3})"),
)
"""`128 0 0 Building`; `Building:128,0,0::` (CVAT); `Building,128,0,0` (Kaggle)."""
ADE20K = re.compile(r"(\d{1,3})\s+[\d.]+\s+\d+\s+\d+\s+([^\d\s].*)")


def _of_lines(path: Path) -> list[Entry]:
    content = read_small(path, expected="class names, one a line")
    if b"\0" in content:
        raise DataError(f"{path}: found a zero byte, no text; expected class names, one a line")
    lines = [line.strip() for line in content.decode("utf-8-sig", "replace").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if len(lines) > MOST_NAMES:
        raise DataError(f"{path}: {len(lines)} lines; expected at most {MOST_NAMES} class names")
    rest = lines[1:]  # a table may begin with the names of its columns
    for pattern in COLOURED:
        for given in (lines, rest):
            matches = [pattern.fullmatch(line) for line in given]
            if given and all(matches):
                return [(None, _colour(path, match), _clean(match["name"])) for match in matches if match]
    for numbered in (ADE20K, NUMBERED):
        for given in (lines, rest):
            matches = [numbered.fullmatch(line) for line in given]
            if given and all(matches):
                names = [match[2].split(",")[0] if numbered is ADE20K else match[2] for match in matches if match]
                return [(int(m[1]), None, _clean(name)) for m, name in zip(matches, names, strict=True) if m]
    return [(None, None, _clean(line)) for line in lines]


def _colour(path: Path, match: re.Match[str]) -> int:
    values = [int(match[channel]) for channel in "rgb"]
    if max(values) > 255:
        raise DataError(f"{path}: a colour {values}; expected three numbers up to 255")
    return int(packed(np.array(values)))


def _clean(name: str) -> str:
    """Return a class name as a line of `class_names.txt`, whatever a file holds."""
    name = " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())[:100].strip(" ,;:")
    return name or "?"


def _ordered(path: Path, entries: list[Entry]) -> Sidecar:
    """Return classes in the order of their numbers or lines; background comes first if only colours are given."""
    coloured = any(colour is not None for _, colour, _ in entries)
    if coloured:
        entries = sorted(entries, key=lambda entry: not ZERO_NAMES.fullmatch(entry[2]))
    classes: dict[str, int] = {}
    numbers, colours = {}, {}
    for place, (number, colour, name) in enumerate(entries):
        if VOID_NAMES.fullmatch(name):
            index = VOID
        else:
            index = classes.setdefault("background" if ZERO_NAMES.fullmatch(name) else name, len(classes))
        if colour is not None:
            colours[colour] = index
        elif name != "__ignore__" or number is not None:  # labelme's first line, which stands for -1
            ahead = any(name == "__ignore__" for one, _, name in entries[:1] if one is None)
            numbers[place - ahead if number is None else number] = index
    if not classes or len(classes) > VOID:
        raise DataError(f"{path}: {len(classes)} classes; expected 1..{VOID}")
    return Sidecar(path, tuple(classes), numbers, colours)
