"""A sample: one image, its label and whatever else is known about its pixels.

Dense prediction wants an answer at every pixel, so the answer sheet is itself a picture: `label` has the height and
width of `image`, and holds one class index per pixel. Where the class is unknown, it holds `VOID`.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

VOID = 255
"""The label of a pixel that is neither learned from nor counted; PASCAL VOC draws it around every object."""

MOST_PLANES = 16  # of a multispectral image
MOST_LETTERS = 200  # of the name of a class; the longest of ImageNet has 121
MOST_MARKS = 8  # accents and the like on one letter; Tibetan needs four


def fault_of_names(names: Iterable[str]) -> str:
    """Return what is wrong with the first name that cannot be a class's, "" if all can: length, or marks on a letter.

    Names stand in tables and pictures. A long one makes those wide and slow, a pile of marks covers the lines
    around it.
    """
    for name in names:
        if len(name) > MOST_LETTERS:
            return f"a name of {len(name)} letters ({name[:20]!r} ...), of at most {MOST_LETTERS}"
        kinds = "".join(unicodedata.category(letter)[0] for letter in name)
        if "M" * (MOST_MARKS + 1) in kinds:
            return f"a name with more than {MOST_MARKS} combining marks on one letter"
    return ""


@dataclass(frozen=True)
class Sample:
    """A picture with its labels, all arrays of the same height H and width W.

    `id` names the picture within its data set. `image` is (H, W, 3) uint8, red first. `label` is (H, W) uint8: class
    indices, or 255 (`VOID`). `depth`, where a data set has it, is (H, W) float32 in metres along the viewing axis.
    `geometry`, where a data set has it, is (H, W) uint8: a second set of classes, for nets with two heads. `hha`, where
    a data set has it, is (H, W, 3) uint8: depth as a picture, horizontal disparity, height above ground and the angle
    of the surface with gravity (`data/hha.py`), in the places of red, green and blue. `planes`, where they were asked
    for, is (H, W, C) of any numbers: all planes of a multispectral image, of which `image` shows three.
    """

    id: str
    image: np.ndarray
    label: np.ndarray
    depth: np.ndarray | None = None
    geometry: np.ndarray | None = None
    hha: np.ndarray | None = None
    planes: np.ndarray | None = None
