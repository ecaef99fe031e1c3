"""Turn labels into colours, and lay them over photographs (NumPy only)."""

import numpy as np

from minifcn.data.palette import palette
from minifcn.data.sample import VOID
from minifcn.errors import DataError, ShapeError

BAND = 512  # the rows of a picture that are coloured at a time
INK, FAINT, ACCENT, SECOND = "#1b1f24", "#c9ced6", "#1f5fbf", "#c2571a"


def colourize(label: np.ndarray, colours: np.ndarray | None = None) -> np.ndarray:
    """Return a label (H, W) of class numbers as a picture (H, W, 3) uint8, one colour per class, void hatched.

    `colours` is (C, 3) uint8, the VOC palette unless given. Raises ShapeError for a label that is not two-dimensional
    and of integers, DataError for a class that has no colour.
    """
    colours = palette() if colours is None else colours
    check_label(label, len(colours))
    void = label == VOID
    picture = colours[np.where(void, 0, label)]
    picture[void] = hatch(label.shape)[void]
    return picture


def overlay(
    image: np.ndarray,
    label: np.ndarray,
    alpha: float = 0.5,
    *,
    colours: np.ndarray | None = None,
    bare: int | None = None,
) -> np.ndarray:
    """Return the picture with its label over it: (1 - alpha) image + alpha colour, and outlines in full colour.

    Void keeps the photograph, faded to white, for nothing is claimed there. The class `bare`, such as the background,
    leaves it as it is. Raises ShapeError unless `image` is (H, W, 3) uint8 and `label` is (H, W).
    """
    check_image(image)
    if label.shape != image.shape[:2]:
        raise ShapeError(f"the image is {image.shape[:2]} but the label is {label.shape}")
    laid = np.empty_like(image)
    for top in range(0, len(image), BAND):  # in floats, a whole photograph of 100 megapixels would be 1.2 GB
        band = label[top : top + BAND]
        paint = colourize(band, colours).astype(np.float32)
        strength = np.where(band == bare, 0, alpha).astype(np.float32)
        strength[_outline(label[top : top + BAND + 1])[:BAND] & (band != VOID)] = 1.0
        paint[band == VOID] = 255.0
        part = image[top : top + BAND]
        laid[top : top + BAND] = np.rint(part + strength[..., None] * (paint - part))
    return laid


def _outline(label: np.ndarray) -> np.ndarray:
    """Return where a pixel's class is not that of its right or lower neighbour."""
    edge = np.zeros(label.shape, dtype=bool)
    edge[:, :-1] |= label[:, :-1] != label[:, 1:]
    edge[:-1] |= label[:-1] != label[1:]
    return edge


def hatch(shape: tuple[int, ...]) -> np.ndarray:
    """Return white with thin grey diagonals, (H, W, 3) uint8."""
    rows, columns = np.indices(shape)
    stripe = (rows + columns) % 6 < 2
    return np.where(stripe, 178, 255).astype(np.uint8)[..., None].repeat(3, axis=-1)


def check_image(image: np.ndarray) -> None:
    """Raise `ShapeError` unless the image is (H, W, 3) uint8."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ShapeError(f"an image is (H, W, 3) of uint8, found {image.shape} of {image.dtype}")


def check_label(label: np.ndarray, classes: int) -> None:
    """Raise `ShapeError` unless the label is (H, W) of integers, and `DataError` for a class that there is not."""
    if label.ndim != 2 or label.dtype.kind not in "iu":
        raise ShapeError(f"a label is (H, W) of integers, found {label.shape} of {label.dtype}")
    wrong = np.unique(label[((label < 0) | (label >= classes)) & (label != VOID)])
    if wrong.size:
        raise DataError(f"the label holds class {wrong[0]}, expected 0..{classes - 1} or {VOID} for void")
