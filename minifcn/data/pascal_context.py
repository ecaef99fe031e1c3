"""PASCAL-Context: PASCAL VOC 2010 with every pixel labelled (Mottaghi et al. 2014).

The annotators wrote down what they saw, which made 459 labels (the "400"). 59 of them occur often enough to be learned;
all others, and what has none, are background. There is no void.

    labels.txt                                  400 numbers and names: "2: aeroplane"
    trainval/2008_000002.mat                    LabelMap: numbers of labels.txt
    VOCdevkit/VOC2010/JPEGImages/2008_000002.jpg
    VOCdevkit/VOC2010/ImageSets/Main/train.txt, val.txt

Names and not numbers join the two lists, and three of the 59 are called otherwise in labels.txt. The 33 classes of
Mottaghi et al. come as pictures of their own, and are not read here.
"""

import os
import re
from pathlib import Path

import numpy as np

from minifcn.data.listed import Listed, Part, ids_in_folder, ids_in_list, read_lines, read_matlab
from minifcn.data.voc import IMAGES, VOC_CLASSES, year_folders
from minifcn.errors import DataError
from minifcn.formats.limits import path_of

PASCAL_CONTEXT_CLASSES = (
    *VOC_CLASSES,
    *("bag", "bed", "bench", "book", "building", "cabinet", "ceiling", "clothes", "computer", "cup", "door", "fence"),
    *("floor", "flower", "food", "grass", "ground", "keyboard", "light", "mountain", "mouse", "curtain", "platform"),
    *("sign", "plate", "road", "rock", "shelves", "sidewalk", "sky", "snow", "bedcloth", "track", "tree", "truck"),
    *("wall", "water", "window", "wood"),
)
"""Background, the 20 of VOC and 39 more, in the order of the reference's nets."""

IN_LABELS = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}
"""What labels.txt calls the classes that it calls otherwise."""

TAUGHT = tuple(IN_LABELS.get(name, name) for name in PASCAL_CONTEXT_CLASSES[1:])
"""The 59, as labels.txt calls them."""

LABELS, ANNOTATIONS, MAIN, YEAR = "labels.txt", "trainval", Path("ImageSets/Main"), "2010"


class PASCALContext(Listed):
    """A split of PASCAL-Context: `classes` (60), `ids`, `len()`, and `[i]`, which reads one `Sample` from disk.

    `root` holds `labels.txt` and `trainval`; `voc` is the tree of VOC 2010, or the devkit that it is in, and is looked
    for in `root` and beside it. `split` names a list in its `ImageSets/Main`; with `split=None` every file of
    `trainval` counts. `skip_bad` as in `VOCSegmentation`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str | None = "train",
        *,
        voc: str | os.PathLike[str] | None = None,
        skip_bad: bool = False,
    ) -> None:
        self.folder, self.split, self.classes = path_of(root), split, PASCAL_CONTEXT_CLASSES
        if not is_pascal_context(self.folder):
            raise DataError(f"{root}: no folder of PASCAL-Context; expected {LABELS} and {ANNOTATIONS}; check the path")
        self._class_of = _class_of(self.folder / LABELS)
        tree = _find_tree([path_of(voc)] if voc is not None else [self.folder, self.folder.absolute().parent])
        if tree is None:
            where = str(voc) if voc is not None else f"{root} and the folder around it"
            raise DataError(f"{where}: no pictures of VOC 2010; expected VOCdevkit/VOC{YEAR}; name its folder as voc=")
        labels = Part(self.folder / ANNOTATIONS, (".mat",))
        self.parts = (Part(tree / IMAGES, (".jpg",)), labels)
        self.ids = ids_in_folder(labels) if split is None else ids_in_list(tree / MAIN, split)
        self._complete(skip_bad=skip_bad)

    def _array(self, kind: str, path: Path) -> np.ndarray:
        return self._class_of[read_matlab(path, "LabelMap", least=0, most=len(self._class_of) - 1)]


def is_pascal_context(root: Path) -> bool:
    """Return whether the folder holds `labels.txt` and `trainval`."""
    return (root / LABELS).is_file() and (root / ANNOTATIONS).is_dir()


def _find_tree(places: list[Path]) -> Path | None:
    for place in places:
        if (place / IMAGES).is_dir():
            return place
        if tree := year_folders(place, needs=(IMAGES,)).get(YEAR):
            return tree
    return None


def _class_of(path: Path) -> np.ndarray:
    """Return the class of each number in labels.txt, (numbers + 1,) uint8; 0 for those that are none of the 59."""
    numbers: dict[str, int] = {}
    for line_number, line in enumerate(read_lines(path), start=1):
        entry = re.fullmatch(r" *(\d{1,4}) *: *(\S.*)", line)
        if entry is None:
            raise DataError(
                f"{path}, line {line_number}: {line[:40]!r}; expected a number and a name, as '2: aeroplane'"
            )
        name = entry[2].replace(" ", "")
        if name in numbers and name in TAUGHT:
            also = f"{path}, line {line_number}: {name!r} is also number {numbers[name]}"
            raise DataError(f"{also}; expected it once; correct the list")
        numbers[name] = int(entry[1])
    if len(set(numbers.values())) != len(numbers):
        raise DataError(f"{path}: a number stands twice; expected each once; correct the list")
    classes = np.zeros(max(numbers.values()) + 1, dtype=np.uint8)
    for index, wanted in enumerate(TAUGHT, start=1):
        if wanted not in numbers:
            raise DataError(f"{path}: no label {wanted!r}; expected all 59; is it the list of another data set?")
        classes[numbers[wanted]] = index
    return classes
