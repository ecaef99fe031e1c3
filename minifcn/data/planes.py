"""Read images of 1 to 16 planes: multispectral TIFF, `.npy`, and any picture by its own numbers.

A photograph is three planes of 8 bits and is converted to that (`files.read_image`). Here nothing is converted: the
numbers of each plane, of 8, 16 or 32 bits, are what the net gets, less their mean and divided by their spread over the
training images. NaN means that nothing was measured there, and becomes 0, the mean.

A TIFF has its planes as pages, or as the samples of one page. The array of a `.npy` is (C, H, W) or (H, W, C): the
first or the last axis is the planes, whichever has at most 16 entries; where both have, a number that is asked for
decides, and what stays unclear is refused.
"""

import contextlib
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.data.files import FRAME_FORMATS, MAX_PIXELS, ORIENTATION, data_errors, is_deep, lower_bytes, opened
from minifcn.data.sample import MOST_PLANES
from minifcn.errors import DataError
from minifcn.formats.limits import bytes_of, path_of
from minifcn.formats.npz import read_npy

TIFF_SUFFIXES = (".tif", ".tiff")
PLANE_SUFFIXES = (*TIFF_SUFFIXES, ".npy")
"""What may hold other planes than the three of a photograph."""

NO_DATA = 42113
"""GDAL's tag of a TIFF, whose text is the number that means "not measured": -9999 in many elevation models."""

SENSOR_BITS = 12
"""Of 16 bits, those that most sensors fill, from the lowest."""

LARGEST = 1e30
"""What no instrument measures; many programs write -3.4e38 where nothing was measured."""

MODES = ("L", "LA", "RGB", "RGBA", "CMYK", "I", "F")
"""Pillow's modes whose numbers are those of the file, beside those of 16 bits."""


class Deep(DataError):
    """A picture that Pillow reads without the lower bits of its samples."""


def read_planes(path: str | os.PathLike[str], *, count: int = 0, most: int = MAX_PIXELS) -> np.ndarray:
    """Return an image (H, W, planes) of numbers as its file has them.

    What a TIFF calls "no data" (GDAL's tag) is NaN, but in three planes of 8 bits, a photograph, unless `count` says
    that they are planes. Raises `DataError` where there is another number of planes than `count` (0: any), or more
    pixels than `most`.
    """
    path = path_of(path)
    if path.suffix.lower() == ".npy":
        with data_errors():  # nothing in the file is run
            array = read_npy(path, "image", bytes_of(path, what="an image"))
        planes, nothing = _of_array(path, array, count), math.nan
    else:
        planes, nothing = _of_picture(path, most, whole=count > 0)
    photograph = planes.dtype == np.uint8 and planes.shape[2] == 3 and not count
    if not (photograph or math.isnan(nothing)) and (unknown := planes == nothing).any():
        planes = np.where(unknown, np.float32(math.nan), planes)
    height, width, found = planes.shape
    if not 0 < height * width <= most or (count and found != count):
        what = f"{found} plane{'s' * (found != 1)} of {width}x{height}"
        raise DataError(f"{path}: has {what}; expected {count or 'some'} of at most {most // 10**6} megapixels")
    if planes.dtype.kind == "f" and (np.isnan(planes).all() or np.nanmax(abs(planes)) > LARGEST):
        found = f"NaN alone, infinity or numbers beyond {LARGEST:g}"
        raise DataError(f"{path}: holds {found}; expected numbers, and NaN where nothing was measured")
    return planes


def _of_array(path: Path, array: np.ndarray, count: int = 0) -> np.ndarray:
    """Return an array (H, W, C) of one (H, W), (C, H, W) or (H, W, C)."""
    if array.ndim == 2:
        return array[:, :, None]
    few = [axis for axis in (0, -1) if array.ndim == 3 and 1 <= array.shape[axis] <= MOST_PLANES]
    if len(few) == 2 and count:
        few = [axis for axis in few if array.shape[axis] == count] or few
    if len(few) != 1:
        found = "both the first and the last axis may be the planes" if few else "no axis can be the planes"
        expected = "(planes, height, width) or (height, width, planes)"
        most = f"1 to {MOST_PLANES} planes, and sides above {MOST_PLANES}"
        raise DataError(f"{path}: shape {array.shape}: {found}; expected {expected} with {most}")
    return np.moveaxis(array, few[0], -1)


def _of_picture(path: Path, most: int, *, whole: bool) -> tuple[np.ndarray, float]:
    """Return the planes of a picture, and the number that means that nothing was measured (NaN if none does).

    Unless they are wanted `whole`, the upper 8 of 16 bits are enough for several samples, if they show something.
    """
    nothing = math.nan
    try:
        with opened(path, formats=FRAME_FORMATS, most=most) as picture:
            if picture.getexif().get(ORIENTATION, 1) != 1:
                raise DataError(f"{path}: its EXIF or TIFF orientation turns it; expected none; save it upright")
            pages = getattr(picture, "n_frames", 1) if picture.format == "TIFF" else 1
            if pages > MOST_PLANES:
                raise DataError(f"{path}: has {pages} pages; expected 1 to {MOST_PLANES} planes")
            size, parts = picture.size, []
            with contextlib.suppress(TypeError, ValueError):
                nothing = float(getattr(picture, "tag_v2", {}).get(NO_DATA, "nan").strip("\0 "))
            for page in range(pages):
                picture.seek(page)
                if picture.size != size:
                    raise DataError(f"{path}: page {page + 1} is {picture.size}, page 1 {size}; expected one size")
                parts.append(_page(path, picture, page, whole=whole))
    except DataError as fault:
        unread = isinstance(fault, Deep) or "not recognised" in str(fault) or "decoded" in str(fault)
        if path.suffix.lower() in TIFF_SUFFIXES and unread:
            return _of_array(path, _by_tifffile(path, fault)), nothing
        raise
    planes = np.concatenate(parts, axis=2)
    if planes.shape[2] > MOST_PLANES:
        raise DataError(f"{path}: has {planes.shape[2]} planes; expected 1 to {MOST_PLANES}")
    return planes, nothing


def _page(path: Path, picture: Any, page: int, *, whole: bool) -> np.ndarray:
    """Return the numbers (H, W, samples) of one page, as they are stored."""
    mode = picture.mode
    if mode in ("1", "P"):
        picture, mode = picture.convert("RGB" if mode == "P" else "L"), "RGB"
    if not (mode in MODES or mode.startswith("I;16")):
        raise DataError(f"{path}: image mode {mode}; expected 8, 16 or 32 bits a sample")
    several = mode in ("LA", "RGB", "RGBA", "CMYK") and is_deep(path, picture, page=page, kinds=".*;16.*")
    readable, array = is_deep(path, picture, page=page, kinds="RGBA?;16."), np.asarray(picture)
    if several and whole and readable:
        array = array.astype(np.uint16) << 8 | lower_bytes(path, page=page)
    elif several and (whole or array[:, :, :3].max(initial=0) < 2 ** (SENSOR_BITS - 8)):
        raise Deep(f"{path}: 16 bits in each of several samples, of which 8 would be lost; save it as .npy")
    return array[:, :, None] if array.ndim == 2 else array


def _by_tifffile(path: Path, fault: DataError) -> np.ndarray:
    """Read what Pillow cannot, such as several samples of 16 bits, with the package tifffile if it is installed."""
    try:
        import tifffile
    except ModuleNotFoundError:
        cure = "Pillow does not read every TIFF: pip install tifffile, or save the planes as .npy"
        raise DataError(f"{fault}; {cure}") from fault
    try:
        return np.asarray(tifffile.imread(path))
    except Exception as error:  # it promises no set of exceptions for broken files
        raise DataError(f"{path}: cannot be decoded ({error}); expected a whole TIFF; replace the file") from error


def shown(planes: np.ndarray) -> np.ndarray:
    """Return a picture (H, W, 3) uint8 of planes (H, W, C): the first three, or as many as there are, red first.

    Each is stretched so that its darkest 2 % are black and its brightest 2 % full.
    """
    chosen = [min(place, planes.shape[2] - 1) for place in range(3)]
    picture = np.zeros((*planes.shape[:2], 3), np.uint8)
    for place, one in enumerate(chosen):
        plane = planes[:, :, one].astype(np.float32)
        low, high = np.nanpercentile(plane, (2, 98)) if not np.isnan(plane).all() else (0, 0)
        picture[:, :, place] = np.rint(np.clip(np.nan_to_num((plane - low) * 255 / ((high - low) or 1)), 0, 255))
    return picture


def shown_as(count: int) -> str:
    """Return in words what `shown` shows of so many planes."""
    which = "plane 1" if count == 1 else f"planes {', '.join(str(place + 1) for place in range(min(count, 3)))}"
    return f"pictures show {which} of {count}, each stretched to its own range"
