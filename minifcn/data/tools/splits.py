"""Read the lists that say which picture belongs to which split, in the forms that people keep them.

A list is a text with an id, a file name, a path or a pair of paths on each line (`train.txt`, `val.lst`, `train`). A
table or JSON holds several, by a column or a key that says the split (`partition.txt`, `split.csv`, `splits.json`). A
list that cannot be used is named with the reason, since another split would be drawn without it.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from minifcn.data.files import data_errors
from minifcn.data.listed import MAX_LIST
from minifcn.data.tools.pairing import SPLIT_WORDS, Pair, as_id, by_list, read_list, split_role
from minifcn.data.tools.raw import PICTURE_SUFFIXES
from minifcn.data.tools.sidecars import NAMES
from minifcn.errors import DataError
from minifcn.formats.strict_json import read_value

TEXTS = (".txt", ".lst", ".list", ".csv", ".tsv")
UNREAD = (".mat", ".yaml", ".yml", ".pkl", ".pickle", ".npz", ".xlsx", ".parquet", ".h5", ".xml", ".toml")
LIST_NAME = re.compile(r"(?i)(?:.*[_.-])?(?:data)?(?:splits?|folds?|partitions?|subsets?|dataset)(?:[_.-]?.*)?")
"""What the stem of a file with several lists looks like; that of one is the name of a split."""
DOCUMENTS = re.compile(
    r"(?:.*[_. -])?(?:read.?me|licen[cs]e|copying|notes?|changelog|citation|credits|authors|requirements)(?:[_. -].*)?|"
    r"mapping|image-bits",
    re.IGNORECASE,
)
ANNOTATIONS = {"shapes", "annotations", "imagePath", "objects"}
MOST_LISTS = 100
MOST_NOTES = 5  # of texts that name no picture: there can be one for each picture

Row = Sequence[str]  # what a line says of a picture: its name is one of these
Lists = dict[str, list[Row]]


def find_lists(
    folder: Path, files: Sequence[Path], pairs: Sequence[Pair], *, used: Collection[Path] = ()
) -> tuple[dict[str, list[int]], list[str]]:
    """Return the places of the pairs that each list of a folder names, by its name, and notes on what is not used.

    used: files that hold the labels and so no lists.
    """
    lists: dict[str, list[int]] = {}
    notes: list[str] = []
    without: list[str] = []
    for path in _candidates(folder, files, used, notes):
        where = path.relative_to(folder).as_posix()
        try:
            found = lists_in(path)
        except DataError as error:
            notes.append(f"{where}: {str(error).removeprefix(f'{path}: ')}; the list is not used")
            continue
        for given, rows in found.items():
            places, unknown = by_list(pairs, rows)
            part = where if len(found) == 1 else f"{where}, {given}"
            if places:
                lists[_name(given, path.relative_to(folder), lists)] = places
            elif rows:
                without.append(
                    f"{part}: none of its {len(rows)} lines names a picture with labels (the first: "
                    f"{' '.join(rows[0])!r:.60}); expected ids, file names or paths; the list is not used"
                )
            if places and unknown:
                notes.append(f"{part}: {unknown} of {len(rows)} lines name no picture with labels")
    without.sort(key=lambda note: not split_role(Path(note.partition(":")[0]).stem))
    notes += without[:MOST_NOTES]
    if more := len(without) - MOST_NOTES:
        notes += [f"{more} more texts name no picture with labels and are not used"] * (more > 0)
    return lists, notes


def _candidates(folder: Path, files: Iterable[Path], used: Collection[Path], notes: list[str]) -> Iterator[Path]:
    """Yield the files that may hold lists; `notes` says which of those that look like it are not read."""
    files = list(files)
    stems = {path.stem for path in files if path.suffix.lower() in PICTURE_SUFFIXES}
    chosen = []
    for path in files:
        suffix, stem = path.suffix.lower(), path.stem
        listed = bool(split_role(stem) or LIST_NAME.fullmatch(stem))
        if path in used or NAMES.fullmatch(stem) or DOCUMENTS.fullmatch(stem) or (stem in stems and not listed):
            continue
        if suffix in TEXTS or (listed and suffix in ("", ".json")):
            chosen.append(path)
        elif listed and suffix in UNREAD:
            expected = "a text of ids, one a line, a table or JSON"
            notes.append(f"{path.relative_to(folder).as_posix()}: {suffix} is not read; expected {expected}")
    if any(path.parent.name == "Segmentation" for path in chosen):
        others = [
            path for path in chosen if path.parent.name != "Segmentation" and path.parent.parent.name == "ImageSets"
        ]
        if others:
            notes.append(
                f"{len(others)} lists of {others[0].parent.name} in ImageSets are not used, but Segmentation's"
            )
        chosen = [path for path in chosen if path not in others]
    if len(chosen) > MOST_LISTS:
        notes.append(f"{len(chosen) - MOST_LISTS} text files are not looked at as lists")
    yield from chosen[:MOST_LISTS]


def _name(given: str, path: Path, taken: Collection[str]) -> str:
    """Return what a list is called: by its split, or like its file, or where that is taken, by its path."""
    role = split_role(given)
    plain = role if role in ("val", "test") or given.lower() == "training" else as_id(given, "list")
    if plain not in taken:
        return plain
    where = path.with_suffix("").as_posix()
    return as_id(where if given == path.stem else f"{where}_{given}", "list")


def lists_in(path: Path) -> Lists:
    """Return the lists of a file, by name: that of the file, or those of its keys or of a column of splits."""
    if path.suffix.lower() == ".json":
        with data_errors():
            found = read_value(path, most=MAX_LIST, what="lists of pictures")
        if isinstance(found, dict) and ANNOTATIONS & found.keys():
            return {}
        if not (lists := _of_json(path.stem, found)):
            raise DataError(f"{path}: holds {found!r:.60}; expected lists of pictures by split, or splits by picture")
        return lists
    lines = read_list(path)
    delimiter = next((one for one in "\t;," if lines and one in lines[0]), "")
    if delimiter:
        try:
            rows: list[Row] = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
        except csv.Error as error:
            raise DataError(f"{path}: is no table ({error}); expected an id or a file name a line") from error
    else:
        rows = [line.split() for line in lines]
    if lists := _by_column(rows):
        return lists
    if delimiter and len(rows) > 1 and {cell.lower() for cell in rows[0]} & HEADS:
        return {path.stem: rows[1:]}
    return {path.stem: rows if delimiter else [[line] for line in lines]}


HEADS = {
    *("image", "images", "img", "file", "filename", "file_name", "name", "id", "image_id", "image_path", "path"),
    "mask",
}


def _by_column(rows: Sequence[Row]) -> Lists:
    """Return the lists of a table with a column that holds splits alone, below its name or not; {} for others."""
    width = min(map(len, rows), default=0)
    for given in (rows, rows[1:]):
        for column in range(width):
            if width > 1 and given and all(row[column].lower() in SPLIT_WORDS for row in given):
                lists: Lists = defaultdict(list)
                for row in given:
                    lists[SPLIT_WORDS[row[column].lower()]].append([*row[:column], *row[column + 1 :]])
                return dict(lists)
    return {}


def _of_json(name: str, found: Any) -> Lists:
    """Return lists by key (`{"train": [...]}`), by the split of each picture, or of the first fold of several."""
    if isinstance(found, list):
        rows = [_row(one) for one in found]
        if not all(rows):
            folds = [one for one in found if isinstance(one, dict)]
            return _of_json(name, folds[0]) if folds and len(folds) == len(found) else {}
        return _by_column(rows) or {name: rows} if rows else {}
    if not isinstance(found, dict):
        return {}
    if found and all(isinstance(value, str) and value.lower() in SPLIT_WORDS for value in found.values()):
        return _by_column([[key, value] for key, value in found.items()])
    lists: Lists = {}
    for key, inner in found.items():
        if isinstance(inner, dict):
            lists.update(
                {(one if split_role(one) else f"{key}_{one}"): rows for one, rows in _of_json(key, inner).items()}
            )
        elif isinstance(inner, list) and inner and all(rows := [_row(one) for one in inner]):
            lists[key] = rows
    return lists


def _row(found: Any) -> Row:
    """Return the words that JSON says of one picture; [] for what can be none."""
    if isinstance(found, Mapping):
        return [value for value in found.values() if isinstance(value, str)]
    return [str(found)] if isinstance(found, str | int) else []
