"""PASCAL VOC, and every data set in the same layout.

A VOC tree is three folders: `JPEGImages` holds the photographs, `SegmentationClass` the masks of those that have one,
and `ImageSets/Segmentation` the splits, each a text file with one id a line. The id joins the three:

    VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg
    VOCdevkit/VOC2012/SegmentationClass/2007_000032.png
    VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt      (2007_000032 in its first line)

Every year from 2007 to 2012 is laid out like this. Data sets of other classes use the same layout and add
`class_names.txt`, whose line i names class i.

The paper learns from the pictures of SBD (sbd.py) and measures on VOC 2011 val. Some pictures are in both, so it
leaves those out: what remains, 736 pictures, is the split `seg11valid`.
"""

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minifcn.data.files import read_image, read_mask
from minifcn.data.listed import Listed, Part, ids_in_folder, ids_in_list, read_lines
from minifcn.data.planes import PLANE_SUFFIXES, read_planes, shown
from minifcn.data.sample import VOID, fault_of_names
from minifcn.errors import DataError
from minifcn.formats.limits import path_of

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The classes of PASCAL VOC; a mask's value is the index here."""

SEG11VALID, SEG11VALID_COUNT = "seg11valid", 736
IMAGES, MASKS, SPLITS = Path("JPEGImages"), Path("SegmentationClass"), Path("ImageSets/Segmentation")
BITS = "image-bits.txt"
"""How many bits of its 16-bit photographs a tree uses, from the lowest: `minifcn data import` scales by them."""
IMAGE_SUFFIXES, MASK_SUFFIXES = (".jpg", ".jpeg", ".png", *PLANE_SUFFIXES), (".png",)


class VOCSegmentation(Listed):
    """A split of a VOC tree: `classes`, `ids`, `len()`, and `[i]`, which reads one `Sample` from disk.

    `root` is the year folder (the one that holds `JPEGImages`), the devkit, or the folder the devkit lies in; `year`
    chooses where the devkit has several. `split` names a list in `ImageSets/Segmentation`; with `split=None` every
    mask of the folder counts, in the order of names. `classes` are the names to use; without them those of
    `class_names.txt`, or where there is none, VOC's 21.

    The split `seg11valid` is its list where there is one, and otherwise VOC 2011 val without the train list of `sbd`,
    a folder of SBD's; without `sbd` it is looked for beside the tree.

    That every file of the split is there is checked at once, its content when it is read. What is missing or broken
    is refused, unless `skip_bad=True`: then every pair is read once on the spot, those that cannot be used are left
    out with a warning that counts them, and `skipped` lists them, each as (id, what is wrong).

    With `planes` all numbers of an image are read, as `Sample.planes`, and each has to have so many; images may then be
    multispectral TIFF or `.npy`, too.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str | None = "train",
        *,
        year: str | None = None,
        classes: Sequence[str] | None = None,
        sbd: str | os.PathLike[str] | None = None,
        planes: int = 0,
        skip_bad: bool = False,
    ) -> None:
        self.split, self.planes = split, planes
        try:
            if year is None and split == SEG11VALID and "2011" in year_folders(path_of(root)):
                year = "2011"
            self.folder = find_year_folder(root, year)
            images = Part(self.folder / IMAGES, IMAGE_SUFFIXES)
            masks = Part(self.folder / MASKS, MASK_SUFFIXES)
        except OSError as error:
            raise DataError(f"{root}: cannot be searched ({error.strerror}); check who may read it") from error
        self.parts = (images, masks)
        self.image_bits = _bits_of(self.folder / BITS)
        self.classes = _classes_of(self.folder, classes)
        if split is None:
            self.ids = ids_in_folder(masks)
        elif split == SEG11VALID and not (self.folder / SPLITS / f"{SEG11VALID}.txt").is_file():
            self.ids = _seg11valid(self.folder, sbd)
        else:
            self.ids = ids_in_list(self.folder / SPLITS, split)
        self._complete(skip_bad=skip_bad)

    def _image(self, path: Path) -> dict[str, np.ndarray]:
        if not self.planes and path.suffix.lower() not in PLANE_SUFFIXES:
            return {"image": read_image(path, bits=self.image_bits)}
        planes = read_planes(path, count=self.planes)
        if self.planes:
            return {"image": shown(planes), "planes": planes}
        count = planes.shape[2]
        if count != 3 or planes.dtype != np.uint8:
            found = f"{count} plane{'s' * (count != 1)} of {planes.dtype}"
            raise DataError(f"{path}: has {found}, and the net sees colours; expected `inputs={count}`")
        return {"image": planes}  # an ordinary picture, as a TIFF

    def _array(self, kind: str, path: Path) -> np.ndarray:
        return read_mask(path, classes=len(self.classes))


def find_year_folder(root: str | os.PathLike[str], year: str | None = None) -> Path:
    """Return the folder that holds `JPEGImages` and `SegmentationClass`: `root`, or a year of its devkit."""
    root = path_of(root)
    wanted = f"a folder with {IMAGES} and {MASKS}, or a VOCdevkit, or the folder a VOCdevkit lies in"
    if not root.is_dir():
        raise DataError(f"{root}: no such folder (there is {nearest_folder(root)}); expected {wanted}; check the path")
    if (root / IMAGES).is_dir() and (root / MASKS).is_dir():
        named = _year_of(root)
        if year is not None and named and named != year:
            raise DataError(f"{root}: this is the year {named}; expected {year}; leave out year= or change the root")
        return root
    years = year_folders(root)
    if year in years:
        return years[year]
    if year is None and len(years) == 1:
        return next(iter(years.values()))
    if years:
        there = ", ".join(sorted(years))
        how = "pass one as year= or name the folder of one"
        raise DataError(f"{root}: found the years {there}; expected year {year or 'to be chosen'}; {how}")
    present = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"
    raise DataError(f"{root}: holds {present}; expected {wanted}; point the root at one of these")


def nearest_folder(path: Path) -> str:
    """Return the last folder on the way to `path` that is there."""
    return next((str(parent) for parent in path.absolute().parents if parent.is_dir()), os.sep)


def year_folders(root: Path, *, needs: Sequence[Path] = (IMAGES, MASKS)) -> dict[str, Path]:
    """Return `{"2012": folder}` for every year of the devkit at or in `root`, of which each has the folders `needs`."""
    devkits = (root / "VOCdevkit", root / "TrainVal" / "VOCdevkit", root)
    return {
        folder.name.removeprefix("VOC"): folder
        for devkit in reversed(devkits)
        for folder in sorted(devkit.glob("VOC[0-9][0-9][0-9][0-9]"))
        if all((folder / part).is_dir() for part in needs)
    }


def _year_of(folder: Path) -> str:
    """Return the year that the folder's name says, or nothing."""
    named = re.fullmatch(r"VOC(\d{4})", folder.resolve().name)
    return named[1] if named else ""


def _seg11valid(folder: Path, sbd: str | os.PathLike[str] | None) -> tuple[str, ...]:
    """Return the ids of VOC 2011 val without what SBD trains on, in the order of val."""
    path = folder / SPLITS / f"{SEG11VALID}.txt"
    how = f"put the list of {SEG11VALID_COUNT} ids there, or name SBD's folder as sbd="
    if _year_of(folder) not in ("2011", ""):
        raise DataError(f"{path}: no such list: this is VOC {_year_of(folder)}; expected VOC 2011; {how} and VOC2011")
    places = [path_of(sbd)] if sbd is not None else [folder, *folder.parents[:2]]
    found = next((place for one in places if (place := find_sbd(one)) is not None), None)
    if found is None:
        where = f"{sbd} is no folder of SBD" if sbd is not None else "no benchmark_RELEASE beside the tree"
        raise DataError(f"{path}: no such list, and {where}; expected one of the two; {how}")
    train = set(ids_in_list(found, "train"))
    ids = tuple(name for name in ids_in_list(folder / SPLITS, "val") if name not in train)
    if len(ids) != SEG11VALID_COUNT:
        warnings.warn(
            f"{path}: val without SBD's train has {len(ids)} pictures; the paper counts {SEG11VALID_COUNT}: measures "
            f"on it are not the paper's",
            stacklevel=4,
        )
    return ids


def find_sbd(root: str | os.PathLike[str]) -> Path | None:
    """Return the folder of SBD with `img` and `cls`: `root`, its `dataset`, or that of a `benchmark_RELEASE` in it."""
    for inner in ("", "dataset", "benchmark_RELEASE/dataset"):
        folder = path_of(root) / inner
        if (folder / "img").is_dir() and (folder / "cls").is_dir():
            return folder
    return None


def _bits_of(path: Path) -> int:
    """Return the number in `path`, 8 to 16; 16 where there is no such file."""
    words = read_lines(path) if path.is_file() else ["16"]
    if len(words) != 1 or words[0] not in map(str, range(8, 17)):
        raise DataError(f"{path}: holds {', '.join(words)[:60]!r}; expected one number from 8 to 16, the bits in use")
    return int(words[0])


def _classes_of(folder: Path, classes: Sequence[str] | None) -> tuple[str, ...]:
    names_file = folder / "class_names.txt"
    if classes is None:
        classes = read_lines(names_file) if names_file.is_file() else VOC_CLASSES
    if isinstance(classes, str) or not 1 <= len(classes) <= VOID or len(set(classes)) != len(classes):
        raise DataError(f"{folder}: {len(classes)} class names; expected 1..{VOID} different ones; correct the list")
    if fault := fault_of_names(classes):
        raise DataError(f"{folder}: {fault}; shorten it")
    return tuple(classes)
