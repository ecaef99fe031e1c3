"""SBD, the Semantic Boundaries Dataset: more labelled images of PASCAL VOC (Hariharan et al. 2011).

VOC 2011 has labels for 2,223 pictures, SBD for about five times as many, 8,498 of them in its train list. The paper
learns from those.

    benchmark_RELEASE/dataset/img/2008_000008.jpg
    benchmark_RELEASE/dataset/cls/2008_000008.mat       GTcls.Segmentation: 0..20, VOC's classes, and no void
    benchmark_RELEASE/dataset/train.txt, val.txt
"""

import os
from pathlib import Path

import numpy as np

from minifcn.data.listed import Listed, Part, ids_in_folder, ids_in_list, read_matlab
from minifcn.data.voc import VOC_CLASSES, find_sbd
from minifcn.errors import DataError
from minifcn.formats.limits import path_of

SEGMENTATION = "GTcls.Segmentation"
"""Where a file of `cls` keeps its labels; the outlines beside them are not read."""


class SBD(Listed):
    """A split of SBD: `classes` (VOC's), `ids`, `len()`, and `[i]`, which reads one `Sample` from disk.

    `root` is `benchmark_RELEASE`, its folder `dataset`, or the folder that it lies in. `split` names a list there
    ("train", "val"); with `split=None` every file of `cls` counts. `skip_bad` as in `VOCSegmentation`.
    """

    def __init__(self, root: str | os.PathLike[str], split: str | None = "train", *, skip_bad: bool = False) -> None:
        folder = find_sbd(root)
        if folder is None:
            raise DataError(f"{root}: no folder of SBD; expected img and cls in it, or in dataset; check the path")
        self.folder, self.split, self.classes = path_of(folder), split, VOC_CLASSES
        labels = Part(folder / "cls", (".mat",))
        self.parts = (Part(folder / "img", (".jpg",)), labels)
        self.ids = ids_in_folder(labels) if split is None else ids_in_list(folder, split)
        self._complete(skip_bad=skip_bad)

    def _array(self, kind: str, path: Path) -> np.ndarray:
        return read_matlab(path, SEGMENTATION, least=0, most=len(self.classes) - 1).astype(np.uint8)
