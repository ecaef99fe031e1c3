"""NYUDv2: 1,449 indoor images with depth, in 40 classes (Gupta et al. 2013).

Three layouts on disk are recognised by their files:

- as in the paper's reference, with the numbers of Gupta et al., 5001 to 6449:

      train.txt, val.txt, test.txt                (381, 414 and 654 ids; or splits.mat, for trainval and test)
      data/images/img_5001.png
      segmentation/img_5001.mat                   segmentation: 1..40, and 0 for void
      data/depth/img_5001.png                     16 bit, millimetres
      data/hha/img_5001.png

- all in one folder, as multi-task RefineNet has it: `000433.png`, `segm_gt_000433.png` (0..39, and 255), and
  `depth_gt_000433.png`, 16 bit, 5000 to the metre, 0 where nothing was measured;
- all in one folder, as light-weight RefineNet has it: `000834.png` and `000834_mask.png` (0..39, and 255).

`data` may be left out of the first, or hold all of it. Depth and HHA are read where they are.

HHA is depth as a picture: horizontal disparity, height above the ground, and the angle of the surface with gravity
(hha.py). The channels are taken as the PNG has them, red first, as the reference takes them: only photographs are
turned around for Caffe.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minifcn.data.files import read_depth, read_image, read_mask
from minifcn.data.listed import ID, Listed, Part, ids_in_folder, ids_in_list, read_matlab, voided
from minifcn.errors import DataError
from minifcn.formats.limits import path_of

NYUD_CLASSES = (
    *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture"),
    *("counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "floor mat", "clothes"),
    *("ceiling", "books", "refridgerator", "television", "paper", "towel", "shower curtain", "box", "whiteboard"),
    *("person", "night stand", "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure", "otherfurniture"),
    "otherprop",
)
"""The 40 classes, spelled as in the lists of Gupta et al. and of the reference."""

COUNT, FIRST = 1449, 5001
"""The pictures, and the number that the reference gives the first of them."""


@dataclass(frozen=True)
class Layout:
    """Where the files of an id lie: for each kind its folders to try, prefix and suffix; and the unit of depth."""

    image: tuple[tuple[str, ...], str, str]
    label: tuple[tuple[str, ...], str, str]
    depth: tuple[tuple[str, ...], str, str] | None
    hha: tuple[tuple[str, ...], str, str] | None
    per_metre: float


HERE = (".",)
NUMBER = "[0-9]" * 6  # other data sets have masks called ID_mask.png as well
REFERENCE = Layout(
    image=(("data/images", "images"), "img_", ".png"),
    label=(("segmentation", "data/segmentation"), "img_", ".mat"),
    depth=(("data/depth", "depth"), "img_", ".png"),
    hha=(("data/hha", "hha"), "img_", ".png"),
    per_metre=1000,
)
MULTI_TASK = Layout((HERE, "", ".png"), (HERE, "segm_gt_", ".png"), (HERE, "depth_gt_", ".png"), None, per_metre=5000)
LIGHT_WEIGHT = Layout((HERE, "", ".png"), (HERE, "", "_mask.png"), None, None, per_metre=5000)


class NYUD(Listed):
    """A split of NYUDv2: `classes` (40), `ids`, `len()`, and `[i]`, which reads one `Sample` from disk.

    A sample has `depth` and `hha` where the folder has them. `split` names a list beside the folders; "trainval" may
    also be the lists train and val one after the other, and "trainval" and "test" the two of `splits.mat`; with
    `split=None` every labelled picture counts. `per_metre` is the unit of the depth maps, if it is not that of the
    layout. `skip_bad` as in `VOCSegmentation`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str | None = "train",
        *,
        per_metre: float | None = None,
        skip_bad: bool = False,
    ) -> None:
        self.folder, self.split, self.classes = path_of(root), split, NYUD_CLASSES
        layout = find_nyud(self.folder)
        if layout is None:
            expected = "images and segmentation, or ID.png with ID_mask.png or segm_gt_ID.png"
            raise DataError(f"{root}: no folder of NYUDv2; expected {expected}; check the path")
        self.per_metre = layout.per_metre if per_metre is None else per_metre
        found = {kind: _part(self.folder, getattr(layout, kind)) for kind in ("image", "label", "depth", "hha")}
        there = {kind: part for kind, part in found.items() if part is not None and part.files}
        for kind in ("image", "label"):
            if kind not in there:
                raise DataError(f"{root}: no file of a kind that it needs, {kind}; expected some; complete the data")
        self.kinds, self.parts = tuple(there)[1:], tuple(there.values())
        self.ids = ids_in_folder(there["label"]) if split is None else _ids(self.folder, split, layout)
        self._complete(skip_bad=skip_bad)

    def _array(self, kind: str, path: Path) -> np.ndarray:
        if kind == "depth":
            return read_depth(path, per_metre=self.per_metre)
        if kind == "hha":
            return read_image(path)
        if path.suffix == ".mat":
            return voided(read_matlab(path, "segmentation", least=0, most=len(NYUD_CLASSES)))
        return read_mask(path, classes=len(NYUD_CLASSES))


def find_nyud(root: Path) -> Layout | None:
    """Return the layout of the folder; None if it is not NYUDv2's."""
    if _folder(root, REFERENCE.image[0]) and _folder(root, REFERENCE.label[0]):
        return REFERENCE
    for layout, pattern in ((MULTI_TASK, f"segm_gt_{NUMBER}.png"), (LIGHT_WEIGHT, f"{NUMBER}_mask.png")):
        if next(root.glob(pattern), None) is not None:
            return layout
    return None


def _folder(root: Path, places: tuple[str, ...]) -> Path | None:
    return next((root / place for place in places if (root / place).is_dir()), None)


def _part(root: Path, where: tuple[tuple[str, ...], str, str] | None) -> Part | None:
    folder = _folder(root, where[0]) if where else None
    return Part(folder, (where[2],), where[1]) if where and folder else None


def _ids(folder: Path, split: str, layout: Layout) -> tuple[str, ...]:
    lists = {name: (folder / f"{name}.txt").is_file() for name in ("train", "val")}
    official = {"trainval": "trainNdxs", "test": "testNdxs"}
    if isinstance(split, str) and ID.fullmatch(split) and not (folder / f"{split}.txt").is_file():
        if split == "trainval" and all(lists.values()):
            train, val = ids_in_list(folder, "train"), ids_in_list(folder, "val")
            if twice := set(train) & set(val):
                raise DataError(f"{folder / 'val.txt'}: {min(twice)} is also in train.txt; expected it once; remove it")
            return train + val
        if split in official and layout is REFERENCE and (folder / "splits.mat").is_file():
            numbers = read_matlab(folder / "splits.mat", official[split], least=1, most=COUNT)
            return tuple(str(FIRST - 1 + number) for number in numbers.ravel().tolist())
    return ids_in_list(folder, split)
