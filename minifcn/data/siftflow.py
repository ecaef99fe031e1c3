"""SIFT Flow: 2,688 outdoor images of 256x256 with two labels per pixel (Liu et al. 2009, Tighe et al. 2010).

What a thing is, one of 33 classes, and how it lies: as sky, horizontal or vertical. The paper answers both with one
net of two heads.

    trainval.txt, test.txt                                                      (2,486 and 200 ids)
    Images/spatial_envelope_256x256_static_8outdoorcategories/coast_bea1.jpg
    SemanticLabels/.../coast_bea1.mat       S: 1..33, and 0 for void
    GeoLabels/.../coast_bea1.mat            S: 1..3, and 0 or -1 for void

The folder in the middle may be left out. The lists are those of the paper's reference, which leaves out two pictures
that lack annotations. Cow, desert and moon occur in none of its test pictures: a mean over classes has to say so.
"""

import os
from pathlib import Path

import numpy as np

from minifcn.data.listed import Listed, Part, ids_in_folder, ids_in_list, read_matlab, voided
from minifcn.errors import DataError
from minifcn.formats.limits import path_of

SIFT_FLOW_CLASSES = (
    *("awning", "balcony", "bird", "boat", "bridge", "building", "bus", "car", "cow", "crosswalk", "desert", "door"),
    *("fence", "field", "grass", "moon", "mountain", "person", "plant", "pole", "river", "road", "rock", "sand"),
    *("sea", "sidewalk", "sign", "sky", "staircase", "streetlight", "sun", "tree", "window"),
)
"""The 33 classes, in the order of their numbers, as the reference lists them."""

SIFT_FLOW_GEOMETRY = ("sky", "horizontal", "vertical")
"""The 3 geometric classes, in the order of their numbers."""

SCENES = "spatial_envelope_256x256_static_8outdoorcategories"
IMAGES, SEMANTIC, GEOMETRIC = "Images", "SemanticLabels", "GeoLabels"


class SIFTFlow(Listed):
    """A split of SIFT Flow: `classes` (33), `geometry_classes` (3), `ids`, `len()`, and `[i]`, which reads a `Sample`.

    `root` is the folder that holds `Images`; without `GeoLabels` there is no `geometry`, and `geometry_classes` is
    empty. `split` names a list in it ("trainval", "test"); with `split=None` every picture with semantic labels
    counts. `skip_bad` as in `VOCSegmentation`.
    """

    def __init__(self, root: str | os.PathLike[str], split: str | None = "trainval", *, skip_bad: bool = False) -> None:
        folder = find_siftflow(root)
        if folder is None:
            raise DataError(f"{root}: no folder of SIFT Flow; expected {IMAGES} and {SEMANTIC} in it; check the path")
        self.folder, self.split, self.classes = folder, split, SIFT_FLOW_CLASSES
        self.geometry_classes = SIFT_FLOW_GEOMETRY if (folder / GEOMETRIC).is_dir() else ()
        self.kinds = ("label", "geometry") if self.geometry_classes else ("label",)
        labels = Part(_inner(folder / SEMANTIC), (".mat",))
        geometry = [Part(_inner(folder / GEOMETRIC), (".mat",))] if self.geometry_classes else []
        self.parts = (Part(_inner(folder / IMAGES), (".jpg",)), labels, *geometry)
        self.ids = ids_in_folder(labels) if split is None else ids_in_list(folder, split)
        self._complete(skip_bad=skip_bad)

    def _array(self, kind: str, path: Path) -> np.ndarray:
        least, classes = (0, self.classes) if kind == "label" else (-1, self.geometry_classes)
        return voided(read_matlab(path, "S", least=least, most=len(classes)))


def find_siftflow(root: str | os.PathLike[str]) -> Path | None:
    """Return the folder that holds `Images` and `SemanticLabels`: `root`, or the `SiftFlowDataset` in it."""
    for folder in (path_of(root), path_of(root) / "SiftFlowDataset"):
        if (folder / IMAGES).is_dir() and (folder / SEMANTIC).is_dir():
            return folder
    return None


def _inner(folder: Path) -> Path:
    return folder / SCENES if (folder / SCENES).is_dir() else folder
