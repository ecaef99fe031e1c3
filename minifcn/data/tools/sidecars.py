"""Class names and colours from the files that people keep beside their masks.

If such a file says what a number or a colour means, nothing is guessed. It can be a list of names, one a line
(`classes.txt`, `labels.txt`), numbered names (`0: road`, `Pixel Value, Class`, ADE20K's `objectInfo150.txt`, JSON), or
names with colours (CVAT's `labelmap.txt`, CamVid's `label_colors.txt`, Kaggle's `class_dict.csv`, JSON). A name such as
"void" or "__ignore__" becomes void.
"""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.data.files import data_errors
from minifcn.data.listed import MAX_LIST, read_small
from minifcn.data.sample import VOID
from minifcn.data.tools.mapping import packed
from minifcn.errors import DataError
from minifcn.formats.strict_json import read_value

NAMES = re.compile(
    r"(?!.*(?:train|val|test))(?:.*[_-])?(?:class(?:es)?|label|labels|class[_-]?names|label[_-]?names|names|labelmap|"
    r"label[_-]?map|class[_-]?dict|label[_-]?colou?rs?|(?:class(?:es)?[_-])?colou?rs?|colou?r[_-]?(?:map|table|code)s?|"
    r"palette|legend|categories|ontology|id2label|objectinfo150|obj)(?:[_-]seg)?",
    re.IGNORECASE,
)
"""What the stem of such a file looks like."""
SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".names")
UNREAD = (".yaml", ".yml", ".pbtxt", ".xlsx", ".mat")
VOID_NAMES = re.compile(r"_*(?:void|ignore[d]?|unlabel+ed|unlabel+ed pixels|ignore region|don't care)_*", re.IGNORECASE)
ZERO_NAMES = re.compile(r"_*background_*", re.IGNORECASE)
PICTURE = re.compile(r"\.(?:jpe?g|png|tiff?|bmp|gif|webp|npy)\b", re.IGNORECASE)
MOST_NAMES = 1000
MOST_LETTERS = 500  # of a line

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
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
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
    nameless: bool = False


def find_sidecar(folder: Path, files: Iterable[Path]) -> tuple[Sidecar | None, list[str]]:
    """Return what the first file with class names says, of those at most two folders down, and notes on the others.

    Files with colours go first. A note names each file that has such a name and is not used, and says why.
    """
    near = [file for file in files if len(file.relative_to(folder).parts) <= 3 and NAMES.fullmatch(file.stem)]
    near.sort(key=lambda file: (len(file.parts), file.stem != "class_names", file.name))
    found, notes = [], []
    for file in near:
        where = file.relative_to(folder).as_posix()
        if file.suffix.lower() in UNREAD:
            notes.append(f"{where}: {file.suffix} is not read; expected {', '.join(SUFFIXES)}; it is not used")
        if file.suffix.lower() not in SUFFIXES:
            continue
        try:
            found.append(read_sidecar(file))
        except _AnnotationsError:
            continue
        except DataError as error:
            notes.append(f"{where}: {str(error).removeprefix(f'{file}: ')}; the file is not used")
    chosen = next((one for one in found if one.colours), next(iter(found), None))
    for other in found:
        if chosen is None or other is chosen:
            continue
        if chosen.nameless and not other.nameless and len(other.classes) == len(chosen.classes):
            chosen, one = replace(chosen, classes=other.classes, nameless=False), chosen.path.name
            notes.append(f"the colours are those of {one}, the names those of {other.path.name}")
        elif other.classes != chosen.classes:
            where = other.path.relative_to(folder).as_posix()
            notes.append(f"{where}: its {len(other.classes)} names are not used, but those of {chosen.path.name}")
    return chosen, notes


class _AnnotationsError(DataError):
    """A JSON file of shapes: the name is that of a list of classes, and it is none."""


def read_sidecar(path: Path) -> Sidecar:
    """Return the names, numbers and colours that a file gives. DataError for a file that gives none."""
    entries = _of_json(path) if path.suffix.lower() == ".json" else _of_lines(path)
    nameless = not any(name for _, _, name in entries)
    if picture := next((name for _, _, name in entries if PICTURE.search(name)), ""):
        raise DataError(f"{path}: found {picture!r:.60}, a picture; expected class names, one a line")
    if not entries or len(entries) > MOST_NAMES:
        raise DataError(f"{path}: {len(entries)} class names; expected 1..{MOST_NAMES}, one a line")
    entries = [(number, colour, _clean(name or f"class {number}")) for number, colour, name in entries]
    return replace(_ordered(path, entries), nameless=nameless)


Entry = tuple[int | None, int | None, str]  # number, colour, name ("" for none); what is not given is None
KEYS = ("classes", "labels", "categories", "names", "class_names", "label_map", "labelmap", "id2label", "class_dict")
"""What an object around the classes may call them."""
ANNOTATIONS = {"shapes", "annotations", "images", "imagePath", "objects"}
COLUMNS = {
    "name": ("name", "class name", "label name", "class", "label", "category", "title", "readable", "object"),
    "number": ("value", "pixel value", "class value", "id", "class id", "label id", "index", "idx", "number", "pixel"),
    "colour": ("color", "colour", "rgb", "hex", "color rgb", "rgb color", "rgb values", "colour rgb"),
    **{"r": ("r", "red"), "g": ("g", "green"), "b": ("b", "blue")},
}
"""What tables call their columns, and JSON its fields, the likeliest first; in small letters, words apart."""


def _of_json(path: Path) -> list[Entry]:
    """Read names by number, numbers or colours by name, a list of names, or of objects with such fields."""
    with data_errors():
        found = read_value(path, most=MAX_LIST, what="class names")
    for _ in range(2):
        inner = [found[key] for key in KEYS if isinstance(found, dict) and isinstance(found.get(key), list | dict)]
        if isinstance(found, dict) and ANNOTATIONS & found.keys():
            raise _AnnotationsError(f"{path}: holds annotations; expected class names")
        found = inner[0] if inner else found
    if isinstance(found, list):
        entries = [(None, None, one) if isinstance(one, str) else _of_field(path, "", one) for one in found]
    elif isinstance(found, dict):
        entries = [_of_field(path, key, inner) for key, inner in found.items()]
    else:
        raise _not_understood(path, found)
    if entries and all(number is not None for number, _, _ in entries):
        entries.sort(key=lambda entry: entry[0] or 0)
    return entries


def _of_field(path: Path, key: str, inner: Any) -> Entry:
    """Return number, colour and name of `key: inner`, one class, or of an object alone."""
    number = int(key) if re.fullmatch(r"\d{1,5}", key) else None
    if isinstance(inner, dict):
        fields = {_plain(name): value for name, value in inner.items()}
        given = {what: next((fields[n] for n in names if n in fields), None) for what, names in COLUMNS.items()}
        name, own, colour = given["name"], given["number"], given["colour"]
        parts = [given[part] for part in "rgb"]
        colour = _any_colour(path, parts if None not in parts else colour)
        name = name if isinstance(name, str) else "" if number is not None else key
        entry = (own if type(own) is int and 0 <= own < 2**16 else number, colour, name)
    elif type(inner) is int and 0 <= inner < 2**16 and key:
        entry = (inner, None, key)
    elif (colour := _any_colour(path, inner)) is not None and key:
        entry = (number, colour, "" if number is not None else key)
    elif isinstance(inner, str) and inner and key:
        colour = _any_colour(path, key)
        entry = (number, colour, inner)
        if number is None and colour is None:
            raise _not_understood(path, {key: inner})
    else:
        raise _not_understood(path, {key: inner} if key else inner)
    if entry == (None, None, "") or (entry[0] is None and not entry[2]):
        raise _not_understood(path, inner)
    return entry


def _not_understood(path: Path, found: Any) -> DataError:
    return DataError(
        f"{path}: found {found!r:.60}; expected a list of names, names by number, numbers or colours by name"
    )


def _any_colour(path: Path, found: Any) -> int | None:
    """Return the colour that JSON or a table gives as "#rrggbb", "r, g, b", "(r, g, b)" or a list; None for others."""
    if isinstance(found, str):
        if hexadecimal := re.fullmatch(r"\s*(?:#|0x)([0-9a-fA-F]{6})(?:[0-9a-fA-F]{2})?\s*", found):
            return int(hexadecimal[1], 16)
        numbers = re.fullmatch(r"\s*(?:rgb)?[\[(]?\s*(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})\s*[\])]?\s*", found)
        found = [int(number) for number in numbers.groups()] if numbers else None
    if not (isinstance(found, list) and len(found) in (3, 4) and all(type(value) is int for value in found)):
        return None
    if not all(0 <= value <= 255 for value in found):
        raise DataError(f"{path}: a colour {found!r:.60}; expected three numbers up to 255")
    return int(packed(np.array(found[:3])))


def _plain(column: str) -> str:
    return re.sub(r"[\s_-]+", " ", column.strip().lower())


HEX = r"#(?P<hex>[0-9a-fA-F]{6})"
SEPARATOR = r"\s*[\s,;:]\s*"
RGB = rf"(?P<r>\d{{1,3}}){SEPARATOR}(?P<g>\d{{1,3}}){SEPARATOR}(?P<b>\d{{1,3}})"
COLOURED = (
    re.compile(rf"(?P<number>\d{{1,5}}){SEPARATOR}(?P<name>[^\d\s,;:][^,;:\t]*?){SEPARATOR}(?:{RGB})"),
    re.compile(rf"{RGB}{SEPARATOR}(?P<name>[^\d\s].*)"),
    re.compile(r"(?P<name>[^:]+):(?P<r>\d{1,3}),(?P<g>\d{1,3}),(?P<b>\d{1,3})(?::.*)?"),
    re.compile(rf"(?P<name>[^,;\t]*?[^,;\t\d\s][^,;\t]*?)(?:,\s*|\s+|;\s*){RGB}"),
    re.compile(rf"(?P<name>[^,;:\t]+?){SEPARATOR}{HEX}"),
    re.compile(rf"{HEX}{SEPARATOR}(?P<name>.*\S)"),
    re.compile(RGB),
)
"""`0 Building 128 0 0`; `128 0 0 Building`; `Building:128,0,0::` (CVAT); `Building,128,0,0` (Kaggle); `Building
#800000`; colours alone, a line each in the order of the numbers."""
NUMBERED = re.compile(r"(?P<number>\d{1,5})\s*[:=,;\t ]\s*(?P<name>[^\d\W].*)")
NUMBERED_AT_THE_END = re.compile(r"(?P<name>.*[^\d\s:=,;].*?)\s*[:=,;\t ]\s*(?P<number>\d{1,5})")
ADE20K = re.compile(r"(?P<number>\d{1,3})\s+[\d.]+\s+\d+\s+\d+\s+(?P<name>[^\d\s][^,]*).*")


def _of_lines(path: Path) -> list[Entry]:
    content = read_small(path, expected="class names, one a line")
    if b"\0" in content:
        raise DataError(f"{path}: found a zero byte, no text; expected class names, one a line")
    lines = [line.strip() for line in content.decode("utf-8-sig", "replace").splitlines()]
    lines = [line for line in lines if line and (not line.startswith("#") or re.match(HEX, line))]
    if len(lines) > MOST_NAMES:
        raise DataError(f"{path}: {len(lines)} lines; expected at most {MOST_NAMES} class names")
    if (longest := max(map(len, lines), default=0)) > MOST_LETTERS:
        raise DataError(f"{path}: a line of {longest} letters; expected at most {MOST_LETTERS}, a class name")
    rest = lines[1:]  # a table may begin with the names of its columns
    for given in (lines, rest):
        if found := _by_pattern(path, given, ADE20K):
            return found
    if found := _of_table(path, lines):
        return found
    for pattern in (*COLOURED, NUMBERED, NUMBERED_AT_THE_END):
        for given in (lines, rest):
            if found := _by_pattern(path, given, pattern):
                return found
    table = path.suffix.lower() in (".csv", ".tsv") and any(re.search(r"[,;\t]", line) for line in lines)
    if table or re.search(r"colou?r|palette", path.stem, re.IGNORECASE):
        expected = "a table with the columns name and value, or name, r, g and b"
        raise DataError(f"{path}: found {lines[0] if lines else ''!r:.60}; expected {expected}")
    return [(None, None, _clean(line)) for line in lines]


def _by_pattern(path: Path, lines: Sequence[str], pattern: re.Pattern[str]) -> list[Entry]:
    """Return the entries of lines that all have one form; [] where they have not."""
    matches = [match for line in lines if (match := pattern.fullmatch(line))]
    if not lines or len(matches) < len(lines):
        return []
    entries: list[Entry] = []
    for place, match in enumerate(matches):
        given = match.groupdict()
        number = int(given["number"]) if given.get("number") else None
        parts = [int(match[channel]) for channel in "rgb"] if given.get("r") else None
        colour = int(given["hex"], 16) if given.get("hex") else _any_colour(path, parts)
        if "name" not in given:
            number = place
        entries.append((number, colour, given.get("name") or ""))
    twice = any(len({entry[part] for entry in entries}) < len(entries) for part in (0, 2))
    if pattern is NUMBERED_AT_THE_END and twice:  # `lane 1`, `lane 2` are names
        return []
    return entries


def _of_table(path: Path, lines: Sequence[str]) -> list[Entry]:
    """Return the entries of a table whose first line names its columns; [] for any other text."""
    delimiter = next((one for one in "\t;," if lines and one in lines[0]), ",")
    head, *rows = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True)) or [[]]
    place = {_plain(column): number for number, column in reversed(list(enumerate(head)))}
    columns = {what: [place[name] for name in names if name in place] for what, names in COLUMNS.items()}
    if not rows or not any(columns.values()) or any(len(row) < len(head) for row in rows):
        return []

    def whole(column: int) -> bool:
        return all(re.fullmatch(r"\s*\d{1,5}\s*", row[column]) for row in rows)

    numbers = [column for column in (*columns["number"], *columns["name"]) if whole(column)]
    names = [column for column in columns["name"] if not whole(column)]
    parts = [columns[part][0] for part in "rgb" if columns[part] and whole(columns[part][0])]
    entries: list[Entry] = []
    for row in rows:
        given: Any = [int(row[column]) for column in parts] if len(parts) == 3 else None
        given = given or (row[columns["colour"][0]] if columns["colour"] else None)
        number = int(row[numbers[0]]) if numbers else None
        entries.append((number, _any_colour(path, given), row[names[0]] if names else ""))
    known = [names or numbers, numbers or entries[0][1] is not None or len(head) == 1]
    return entries if all(known) else []


def _clean(name: str) -> str:
    """Return a class name as a line of `class_names.txt`, whatever a file holds."""
    name = " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())[:100].strip(" ,;:")
    return name or "?"


def _ordered(path: Path, entries: list[Entry]) -> Sidecar:
    """Return classes in the order of their numbers or lines; background comes first if only colours are given."""
    if all(number is not None for number, _, _ in entries):
        entries = sorted(entries, key=lambda entry: entry[0] or 0)
    elif any(colour is not None for _, colour, _ in entries):
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
        if colour is not None and number is None:
            continue
        if name != "__ignore__" or number is not None:  # labelme's first line, which stands for -1
            ahead = any(name == "__ignore__" for one, _, name in entries[:1] if one is None)
            numbers[place - ahead if number is None else number] = index
    if not classes or len(classes) > VOID:
        raise DataError(f"{path}: {len(classes)} classes; expected 1..{VOID}")
    return Sidecar(path, tuple(classes), numbers, colours)
