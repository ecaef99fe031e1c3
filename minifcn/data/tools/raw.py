"""Read pictures and masks as people have them, before anything is known about what their numbers mean.

`read_image` and `read_mask` (files.py) read what training accepts. This reads everything that can become that: TIFF
and its pages, JPEG masks, `.npy` masks, 1 to 16 bits, three channels, palettes; and both sides of a pair are turned
upright together when the photograph carries an EXIF orientation.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.data import files
from minifcn.data.files import FRAME_FORMATS, MAX_PIXELS, ORIENTATION, opened
from minifcn.data.listed import require_fit
from minifcn.data.planes import SENSOR_BITS
from minifcn.data.tools.mapping import packed
from minifcn.errors import DataError
from minifcn.formats.limits import bytes_of
from minifcn.formats.npz import read_npy

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".gif", ".tif", ".tiff")
MASK_SUFFIXES = (*PICTURE_SUFFIXES, ".npy")
MAX_PAGES = 10_000


@dataclass(frozen=True)
class Header:
    """What the first bytes of a picture say: height and width as stored, EXIF orientation, mode and pages, and whether
    its samples have 16 bits."""

    size: tuple[int, int]
    orientation: int
    mode: str
    pages: int = 1
    deep: bool = False

    @property
    def shown(self) -> tuple[int, int]:
        """Height and width once the picture is turned upright."""
        return self.size[::-1] if self.orientation >= 5 else self.size


@dataclass(frozen=True)
class RawMask:
    """A mask as stored: numbers (H, W) or colours (H, W, 3) uint8, and what else says what they mean.

    `palette` holds the colour, as 0xRRGGBB, of each number that occurs; `repeated` the colours that stand at several
    numbers of it. `lossy` is a mask that was a JPEG.
    """

    kind: str
    values: np.ndarray
    orientation: int = 1
    palette: dict[int, int] = field(default_factory=dict)
    repeated: frozenset[int] = frozenset()
    lossy: bool = False


def read_header(path: Path) -> Header:
    """Return what the header of a picture says; nothing is decoded."""
    with opened(path, formats=FRAME_FORMATS, what="mask") as picture:
        deep = picture.mode.startswith("I;16") or files.is_deep(path, picture)
        return Header(picture.size[::-1], _orientation(picture), picture.mode, _pages(picture), deep)


def _orientation(picture: Any) -> int:
    turned = picture.getexif().get(ORIENTATION, 1)
    return turned if turned in range(1, 9) else 1


def _pages(picture: Any) -> int:
    """Return how many pages a TIFF has; of animations the first picture counts."""
    if picture.format != "TIFF":
        return 1
    pages = 1
    while pages <= MAX_PAGES:
        try:
            picture.seek(pages)
        except EOFError:
            break
        pages += 1
    picture.seek(0)
    if pages > MAX_PAGES:
        raise DataError(f"more than {MAX_PAGES} pages; expected fewer; split the file")
    return pages


def largest_number(path: Path, page: int) -> int:
    """Return the largest number in a 16-bit picture; transparency does not count."""
    with opened(path, formats=FRAME_FORMATS) as picture:
        picture.seek(page)
        deep, numbers = files.is_deep(path, picture, page=page), np.asarray(picture)
    if not deep:
        return int(numbers.max(initial=0))
    upper = numbers[..., :3]
    most = int(upper.max(initial=0))
    if most >= 2 ** (SENSOR_BITS - 8):  # the lower half would not change how many bits are in use
        return most << 8 | 255
    return most << 8 | int(files.lower_bytes(path, page=page)[..., :3][upper == most].max(initial=0))


def bits_in_use(largest: Iterable[int]) -> int:
    """Return how many of 16 bits to use for pictures with these largest numbers: 8 to 12, or all 16."""
    bits = max(8, max(largest, default=2**16 - 1).bit_length())
    return bits if bits <= SENSOR_BITS else 16


def read_picture(path: Path, *, page: int = 0, bits: int = 16) -> np.ndarray:
    """Return a photograph (H, W, 3) uint8, upright, as `read_image` does, from any page and of `bits` used bits."""
    with opened(path, formats=FRAME_FORMATS) as picture:
        picture.seek(page)
        _require_room(path, picture)
        return np.array(files.photograph(path, picture, page=page, bits=bits))


def _require_room(path: Path, picture: Any) -> None:
    """A later page may be larger than the first, which the header has shown."""
    if picture.size[0] * picture.size[1] > MAX_PIXELS:
        raise DataError(f"{path}: a page of {picture.size[0]}x{picture.size[1]} pixels; expected at most {MAX_PIXELS}")


def read_raw_mask(path: Path, *, page: int = 0) -> RawMask:
    """Return a mask as it is stored. DataError for what can hold no class numbers."""
    if path.suffix.lower() == ".npy":
        return RawMask(".npy", _array(path))
    with opened(path, formats=FRAME_FORMATS, what="mask") as picture:
        picture.seek(page)
        _require_room(path, picture)
        return _raw(path, picture, page)


def read_png_mask(path: Path) -> RawMask:
    """Return a mask in the one format that training takes, as it is stored. DataError for one that its EXIF turns."""
    with opened(path, formats=("PNG",), what="mask") as picture:
        files.require_upright(path, picture)
        return _raw(path, picture, 0)


def _raw(path: Path, picture: Any, page: int) -> RawMask:
    turned, mode, name = _orientation(picture), picture.mode, picture.format
    if name in ("JPEG", "MPO") or (name == "WEBP" and mode == "RGB"):
        return RawMask(name, np.array(picture.convert("L")), turned, lossy=True)
    if mode == "P":
        return _of_palette(name, picture, turned)
    if mode == "1":
        return RawMask(f"1-bit {name}", np.array(picture).astype(np.uint8), turned)
    if mode == "LA":
        return RawMask(f"8-bit {name} with transparency", np.array(picture)[..., 0], turned)
    if mode == "L":
        bits = files.bits_of_png(path) if name == "PNG" else 8
        return RawMask(f"{bits}-bit {name}", np.array(picture) // np.uint8(255 // (2**bits - 1)), turned)
    if mode.startswith("I") or mode == "F":
        bits = 16 if mode.startswith("I;16") or name == "PNG" else 32
        return RawMask(f"{bits}-bit {name}", _whole(path, picture), turned)
    if mode not in ("RGB", "RGBA"):
        raise DataError(f"{path}: mask of mode {mode}; expected numbers or colours; save it as PNG")
    return RawMask(f"{name} in colours", files.colours_of_mask(path, picture, page=page), turned)


def _of_palette(name: str, picture: Any, turned: int) -> RawMask:
    values = np.array(picture)
    colours = np.array(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    used = [int(number) for number in np.unique(values) if number < len(colours)]
    if name == "GIF" and used and (colours[used] == colours[used, :1]).all():  # it has no greys but in a palette
        return RawMask("8-bit GIF", colours[:, 0][np.minimum(values, len(colours) - 1)], turned)
    table = dict(zip(used, packed(colours[used]).tolist(), strict=True))
    return RawMask(f"{name} with a palette", values, turned, table, repeated_in(packed(colours).tolist()))


def repeated_in(colours: Iterable[int]) -> frozenset[int]:
    """Return the colours that stand at several numbers of a palette, as black does after the last that was given."""
    return frozenset(colour for colour, count in Counter(colours).items() if count > 1)


def _whole(path: Path, numbers: Any) -> np.ndarray:
    """Return whole numbers (H, W) int32 of any array; negative ones are void in most programs, and stay -1."""
    values = np.asarray(numbers)
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (np.floor(values) == values).all()):
        raise DataError(f"{path}: mask holds fractions; expected whole numbers, a class each; round them first")
    if values.size and not (values.min() >= -(2**31) and values.max() < 2**31):
        raise DataError(f"{path}: mask holds {values.max()}; expected classes, whole numbers from 0 to 65535")
    return np.maximum(values.astype(np.int32), -1)


def _array(path: Path) -> np.ndarray:
    """Return the numbers of a `.npy`, (H, W), read without running anything."""
    with files.data_errors():
        values = read_npy(path, "mask", bytes_of(path, what="a mask"))
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[-1]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim != 2 or not 0 < values.size <= MAX_PIXELS:
        raise DataError(f"{path}: array of shape {values.shape}; expected a mask (height, width); save one a file")
    return _whole(path, values)


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Return a picture (H, W, ...) turned as its EXIF orientation, 1 to 8, says."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else None)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else None)
    return array[rows, columns]


TURNED = ("", "stored", "shown")


def fitted(path: Path, mask: np.ndarray, own: int, image: Header, image_path: Path, turned: str) -> np.ndarray:
    """Return a mask upright, as its photograph is once read. DataError where it is unclear, or the sizes differ.

    `own` is the orientation that the mask file carries. A mask without one was drawn on the photograph as stored or
    as shown. Its size says which, unless the two are equal: then `turned` has to ("stored" or "shown").
    """
    if own == 1 and image.orientation != 1:
        size = mask.shape[:2]
        stored, shown = size == image.size, size == image.shown
        if stored and shown and not turned:
            found = f"EXIF orientation {image.orientation}, and none in its mask {path.name}"
            how = "`turned=stored` turns it with the photograph, `turned=shown` leaves it"
            raise DataError(f"{image_path}: {found}; expected to know how the mask was drawn; {how}")
        own = image.orientation if stored and (not shown or turned == "stored") else 1
    mask = upright(mask, own)
    require_fit(path, mask.shape[:2], image.shown, image_path)
    return mask
