"""Open a data set, finding out its kind from the files in its folder."""

import os
from collections.abc import Callable
from pathlib import Path

from minifcn.data.listed import Listed
from minifcn.data.nyud import NYUD, find_nyud
from minifcn.data.pascal_context import PASCALContext, is_pascal_context
from minifcn.data.sbd import SBD
from minifcn.data.siftflow import SIFTFlow, find_siftflow
from minifcn.data.voc import IMAGES, VOCSegmentation, find_sbd, nearest_folder, year_folders
from minifcn.errors import UsageError
from minifcn.formats.limits import path_of

KINDS: dict[str, tuple[Callable[[Path], bool], Callable[..., Listed]]] = {
    "labels.txt and trainval (PASCAL-Context)": (is_pascal_context, PASCALContext),
    "JPEGImages or a VOCdevkit (PASCAL VOC)": (
        lambda root: (root / IMAGES).is_dir() or bool(year_folders(root)),
        VOCSegmentation,
    ),
    "img and cls (SBD)": (lambda root: find_sbd(root) is not None, SBD),
    "Images and SemanticLabels (SIFT Flow)": (lambda root: find_siftflow(root) is not None, SIFTFlow),
    "segmentation and images, or ID.png with ID_mask.png or segm_gt_ID.png (NYUDv2)": (
        lambda root: find_nyud(root) is not None,
        NYUD,
    ),
}
"""What is looked for, how, and who reads it."""


def other_format(folder: str | os.PathLike[str]) -> str | None:
    """Return what lies in `folder`, of `KINDS`, if it is a data set that is known and no tree of PASCAL VOC."""
    known = (
        what for what, (lies_in, reader) in KINDS.items() if reader is not VOCSegmentation and lies_in(path_of(folder))
    )
    return next(known, None)


def open_data(folder: str | os.PathLike[str], split: str | None, *, planes: int = 0, skip_bad: bool = False) -> Listed:
    """Return the split of the data set in `folder`. UsageError where there is none that is known, or two.

    `planes` is the number of planes of its images, where all of them are to be read: of a tree of PASCAL VOC alone.

    PASCAL-Context goes first, because it has a tree of VOC with it.
    """
    root = path_of(folder)
    if not root.is_dir():
        nearest = nearest_folder(root)
        raise UsageError(f"{folder}: no such folder (there is {nearest}); expected one with a data set; check the path")
    known = [what for what, (lies_in, _) in KINDS.items() if lies_in(root)]
    if not known:
        present = ", ".join(sorted(entry.name for entry in root.iterdir())[:8]) or "nothing"
        raise UsageError(f"{folder}: holds {present}; expected {'; or '.join(KINDS)}")
    if len(known) > 1 and known[0] != next(iter(KINDS)):
        raise UsageError(f"{folder}: holds {' and '.join(known)}; expected one data set; name the folder of one")
    reader = KINDS[known[0]][1]
    if planes and reader is not VOCSegmentation:
        raise UsageError(f"{folder}: holds {known[0]}; expected a tree of PASCAL VOC for images of {planes} planes")
    return reader(root, split, skip_bad=skip_bad, **({"planes": planes} if planes else {}))
