"""PASCAL VOC, and every data set laid out like it.

A VOC tree is three folders: `JPEGImages` holds the photographs, `SegmentationClass` the masks of those that have one,
and `ImageSets/Segmentation` the splits, each a text file with one id a line. The id joins the three:

    VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg
    VOCdevkit/VOC2012/SegmentationClass/2007_000032.png
    VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt      (2007_000032 in its first line)

Data sets of other classes use the same layout and add `class_names.txt`, whose line i names class i.

A split list becomes file names, so an id is letters, digits, `_` and `-` and nothing else: `../../etc/passwd` is no id.
"""

import difflib
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from minifcn.data.files import read_image, read_mask
from minifcn.data.sample import VOID, Sample
from minifcn.errors import DataError, UsageError

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The classes of PASCAL VOC; a mask's value is the index here."""

IMAGES, MASKS, SPLITS = Path("JPEGImages"), Path("SegmentationClass"), Path("ImageSets/Segmentation")
IMAGE_SUFFIXES, MASK_SUFFIXES = (".jpg", ".jpeg", ".png"), (".png",)
ID = re.compile(r"[A-Za-z0-9_-]+")


class VOCSegmentation:
    """A split of a VOC tree: `classes`, `ids`, `len()`, and `[i]`, which reads one `Sample` from disk.

    `root` is the year folder (the one that holds `JPEGImages`), the devkit, or the folder the devkit lies in; `year`
    chooses where the devkit has several. `split` names a list in `ImageSets/Segmentation`; with `split=None` every
    mask of the folder counts, in the order of names. `classes` are the names to use; without them those of
    `class_names.txt`, or where there is none, VOC's 21.

    That every file of the split is there is checked at once, its content when it is read. What is missing or broken
    is refused, unless `skip_bad=True`: then every pair is read once on the spot, those that cannot be used are left
    out with a warning that counts them, and `skipped` lists them, each as (id, what is wrong).
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str | None = "train",
        *,
        year: str | None = None,
        classes: Sequence[str] | None = None,
        skip_bad: bool = False,
    ) -> None:
        self.split = split
        try:
            self.folder = find_year_folder(root, year)
            self._images = _files_by_id(self.folder / IMAGES, IMAGE_SUFFIXES)
            self._masks = _files_by_id(self.folder / MASKS, MASK_SUFFIXES)
        except OSError as error:
            raise DataError(f"{root}: cannot be searched ({error.strerror}); check who may read it") from error
        self.classes = _classes_of(self.folder, classes)
        self.ids = _ids_in_folder(self.folder, self._masks) if split is None else _ids_in_list(self.folder, split)
        self.skipped: tuple[tuple[str, str], ...] = ()
        if skip_bad:
            self._skip_bad()
        else:
            self._require_pairs()

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        pairs = f"{len(self)} pairs, {len(self.skipped)} skipped" if self.skipped else f"{len(self)} pairs"
        return f"VOCSegmentation({str(self.folder)!r}, split={self.split!r}): {pairs}, {len(self.classes)} classes"

    def __getitem__(self, index: int) -> Sample:
        return self._read(self.ids[index])

    def problems(self) -> list[tuple[str, str]]:
        """Read every pair once; list what cannot be used, each as (id, what is wrong)."""
        found = []
        for name in self.ids:
            try:
                self._read(name)
            except DataError as error:
                found.append((name, str(error)))
        return found

    def _read(self, name: str) -> Sample:
        image_path, mask_path = self._paths(name)
        image, label = read_image(image_path), read_mask(mask_path, classes=len(self.classes))
        if label.shape != image.shape[:2]:
            sizes = f"{label.shape[1]}x{label.shape[0]}; expected {image.shape[1]}x{image.shape[0]} as in {image_path}"
            lying = label.shape == image.shape[1::-1]
            cure = "was the image turned by its EXIF orientation?" if lying else "is it the mask of another image?"
            raise DataError(f"{mask_path}: mask of {sizes}; {cure}")
        return Sample(name, image, label)

    def _paths(self, name: str) -> tuple[Path, Path]:
        """The two files of an id; there must be exactly one of each."""
        both = []
        for folder, files, suffixes in ((IMAGES, self._images, IMAGE_SUFFIXES), (MASKS, self._masks, MASK_SUFFIXES)):
            names = files.get(name, [])
            if len(names) != 1:
                found = "several files: " + ", ".join(sorted(names)) if names else "no file"
                wanted = " or ".join(name + suffix for suffix in suffixes)
                raise DataError(f"{self.folder / folder}: {found} for id {name}; expected {wanted}")
            both.append(self.folder / folder / names[0])
        return both[0], both[1]

    def _require_pairs(self) -> None:
        bad = []
        for name in self.ids:
            try:
                self._paths(name)
            except DataError as error:
                bad.append(str(error))
        if bad:
            raise DataError(
                f"{bad[0]} (the first of {len(bad)} such among {len(self)} ids of split {self.split}); "
                f"complete the data or leave them out with skip_bad=True"
            )

    def _skip_bad(self) -> None:
        self.skipped = tuple(self.problems())
        if not self.skipped:
            return
        count = f"{len(self.skipped)} of {len(self)} pairs"
        first = self.skipped[0][1]
        bad = {name for name, _ in self.skipped}
        self.ids = tuple(name for name in self.ids if name not in bad)
        if not self.ids:
            raise DataError(f"{self.folder}: {count} cannot be used, which leaves none; the first: {first}")
        warnings.warn(f"{self.folder}: skipped {count}; the first: {first}", stacklevel=3)


def find_year_folder(root: str | os.PathLike[str], year: str | None = None) -> Path:
    """The folder that holds `JPEGImages` and `SegmentationClass`: `root`, or a year of the devkit at or in it."""
    root = Path(root)
    wanted = f"a folder with {IMAGES} and {MASKS}, or a VOCdevkit, or the folder a VOCdevkit lies in"
    if not root.is_dir():
        nearest = next((str(parent) for parent in root.absolute().parents if parent.is_dir()), os.sep)
        raise DataError(f"{root}: no such folder (there is {nearest}); expected {wanted}; check the path")
    if (root / IMAGES).is_dir() and (root / MASKS).is_dir():
        named = re.fullmatch(r"VOC(\d{4})", root.resolve().name)
        if year is not None and named and named[1] != year:
            raise DataError(f"{root}: this is the year {named[1]}; expected {year}; leave out year= or change the root")
        return root
    devkits = (root / "VOCdevkit", root / "TrainVal" / "VOCdevkit", root)
    years = {
        folder.name.removeprefix("VOC"): folder
        for devkit in reversed(devkits)
        for folder in sorted(devkit.glob("VOC[0-9][0-9][0-9][0-9]"))
        if (folder / IMAGES).is_dir() and (folder / MASKS).is_dir()
    }
    if year in years:
        return years[year]
    if year is None and len(years) == 1:
        return next(iter(years.values()))
    if years:
        there = ", ".join(sorted(years))
        raise DataError(f"{root}: found the years {there}; expected year {year or 'to be chosen'}; pass one as year=")
    present = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"
    raise DataError(f"{root}: holds {present}; expected {wanted}; point the root at one of these")


def read_lines(path: Path, *, ids: bool = False) -> tuple[str, ...]:
    """The lines of a small list, each once and none blank; the first that is not plain text is refused by number.

    A byte order mark and Windows line ends are refused too, and by name: both are invisible in an editor, and would
    become part of the first id, or of all of them. With `ids` every line must be an id.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected a list; check the path") from error
    lines: dict[str, int] = {}
    for number, raw in enumerate(content.removesuffix(b"\n").split(b"\n"), start=1):
        where = f"{path}, line {number}"
        if raw.startswith(b"\xef\xbb\xbf"):
            raise DataError(f"{where}: begins with a byte order mark; expected plain UTF-8; save it without BOM")
        if raw.endswith(b"\r"):
            raise DataError(f"{where}: ends in CR LF (Windows); expected LF; convert it, for example with dos2unix")
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: {raw[:40]!r} is not UTF-8; expected plain text; correct the line") from error
        if not line.strip() or not line.isprintable():
            raise DataError(f"{where}: found {line[:40]!r}; expected printable text; correct or remove the line")
        if ids and not ID.fullmatch(line):
            raise DataError(f"{where}: {line[:40]!r} is no id; expected letters, digits, _ and -; correct the line")
        if line in lines:
            raise DataError(f"{where}: {line[:40]!r} is also line {lines[line]}; expected it once; remove one")
        lines[line] = number
    return tuple(lines)


def _ids_in_list(folder: Path, split: str) -> tuple[str, ...]:
    if not isinstance(split, str) or not ID.fullmatch(split):
        raise UsageError(f"split {split!r}; expected letters, digits, _ and -, such as 'train'")
    path = folder / SPLITS / f"{split}.txt"
    if not path.is_file():
        there = sorted(file.stem for file in (folder / SPLITS).glob("*.txt"))
        near = difflib.get_close_matches(split, there, n=1)
        if not there:
            raise DataError(f"{path}: no such list, nor any other; expected one; load every mask with split=None")
        hint = f"did you mean {near[0]!r}?" if near else "choose one of those"
        raise DataError(f"{path}: no such split list; expected one of {', '.join(there)}; {hint}")
    return read_lines(path, ids=True)


def _ids_in_folder(folder: Path, masks: dict[str, list[str]]) -> tuple[str, ...]:
    for name in sorted(masks):
        if not ID.fullmatch(name):
            raise DataError(
                f"{folder / MASKS}: file {masks[name][0]!r}; expected a name of letters, digits, _ and -; rename it"
            )
    if not masks:
        raise DataError(f"{folder / MASKS}: no mask; expected PNG files; check the path")
    return tuple(sorted(masks))


def _files_by_id(folder: Path, suffixes: tuple[str, ...]) -> dict[str, list[str]]:
    """File names by id. One listing answers for the whole split, where asking for each file would take thousands."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in sorted(os.listdir(folder)):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in suffixes and not name.startswith("."):
            found[stem].append(name)
    return found


def _classes_of(folder: Path, classes: Sequence[str] | None) -> tuple[str, ...]:
    names_file = folder / "class_names.txt"
    if classes is None:
        classes = read_lines(names_file) if names_file.is_file() else VOC_CLASSES
    if isinstance(classes, str) or not 1 <= len(classes) <= VOID or len(set(classes)) != len(classes):
        raise DataError(f"{folder}: {len(classes)} class names; expected 1..{VOID} different ones; correct the list")
    return tuple(classes)
