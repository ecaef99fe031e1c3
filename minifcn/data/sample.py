"""A sample: one image, its label and whatever else is known about its pixels.

Dense prediction wants an answer at every pixel, so the answer sheet is itself a picture: `label` has the height and
width of `image`, and holds one class index per pixel. Where nobody can say, it holds `VOID`.
"""

from dataclasses import dataclass

import numpy as np

VOID = 255
"""The label of a pixel that is neither learned from nor counted; PASCAL VOC draws it around every object."""


@dataclass(frozen=True)
class Sample:
    """A picture with its labels, all arrays of the same height H and width W.

    `id` names the picture within its data set. `image` is (H, W, 3) uint8, red first. `label` is (H, W) uint8: class
    indices, or 255 (`VOID`). `depth`, where a data set has it, is (H, W) float32 in metres along the viewing axis.
    `geometry`, where a data set has it, is (H, W) uint8: a second set of classes, for nets with two heads. `hha`, where
    a data set has it, is (H, W, 3) uint8: depth as a picture, horizontal disparity, height above ground and the angle
    of the surface with gravity (`data/hha.py`), in the places of red, green and blue.
    """

    id: str
    image: np.ndarray
    label: np.ndarray
    depth: np.ndarray | None = None
    geometry: np.ndarray | None = None
    hha: np.ndarray | None = None
