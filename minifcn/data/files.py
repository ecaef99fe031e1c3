"""Read and write images and masks safely.

A photograph and a mask are both image files, but they hold different things. The numbers in a photograph are
brightnesses: they may be scaled, converted and compressed, and still show the same thing. The numbers in a mask are
*names*: 7 is not a little more than 6, it is a car and not a bus. So a photograph is converted to 8-bit RGB from
whatever it was, and a mask is never converted at all: it is a PNG (nothing lossy) of indices, or it is refused.
Depth is the third kind: lengths, in 16 bits, in a unit that the file does not name.

No file is trusted before it is checked. Its content decides what it is, not its name. Its size is read from the header
and checked before any pixel is decoded, since a few kilobytes can declare gigabytes. Every refusal
is a `DataError` in one line: the file, what was found, what was expected, and what to do.
"""

import io
import math
import os
import re
import stat
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minifcn.data.palette import palette
from minifcn.data.sample import VOID
from minifcn.errors import DataError, FormatError, MinifcnError, ShapeError, UsageError
from minifcn.formats.checkpoint import replace_file
from minifcn.formats.limits import path_of

MAX_PIXELS = 50_000_000
"""The largest picture that is decoded; Pillow by itself goes on to 179 megapixels."""

PIXELS_PER_BYTE = 100
"""How many pixels a picture may have for each byte of its file: a photograph has 2 to 30. One colour deflates to a
thousand, so that 95 kB would take a gigabyte of memory."""

FREE_PIXELS = 2 * 2**20
"""So many pixels a picture may always have."""

FLAT_PIXELS = {"photograph": (0, 0), "colour mask": (1032 // 3, 16 * 2**20), "mask": (1032 * 8, MAX_PIXELS)}
"""A mask may well be of one class. These are the pixels that a byte of such a file can hold, and the largest such mask:
one byte of a PNG stands for at most 1032, which are eight pixels each at 1 bit, and a third of one in colour."""

MOST_READS = 50_000
"""How often Pillow may read from a file: it takes comments and small pieces in single bytes or by the dozen."""

MOST_PARTS = {"jpeg": (b"\xff\xda", 50, "scans"), "ppm_plain": (b"#", 1000, "comments")}
"""What each decoder goes over the picture once more for, and how many of them it may meet: a progressive JPEG has about
ten scans. In the numbers of a JPEG no ff is followed by da."""

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "GIF")
"""What may be tried on a photograph. Pillow knows many more, but one (EPS) it hands to another program, and the
decoder of another (TIFF) prints its own messages to stderr."""

FRAME_FORMATS = (*IMAGE_FORMATS, "TIFF")
"""What may hold several pictures in one file, or one."""

MOST_IN_TILES = 178_000_000
"""The largest picture that is decoded to be predicted tile by tile: Pillow refuses more."""

DEEP = r"(?:RGB[AX]?|LA);16[BLN]"
"""How Pillow names colours of 16 bits a sample in a file, which it reads with 8."""

ORIENTATION = 274
"""The EXIF tag that says which way up the camera was held."""


def write_image(path: str | os.PathLike[str], rgb: np.ndarray) -> None:
    """Write a picture (H, W, 3) uint8, red first; the suffix of `path` chooses the format (.png keeps every bit)."""
    from PIL import Image

    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ShapeError(f"write_image: found {rgb.dtype} of shape {rgb.shape}; expected uint8 (H, W, 3)")
    _write(path, Image.fromarray(np.ascontiguousarray(rgb)))


def write_mask(path: str | os.PathLike[str], label: np.ndarray) -> None:
    """Write a label map (H, W) uint8 as a PNG of indices, which viewers show in the colours of PASCAL VOC."""
    from PIL import Image

    if label.dtype != np.uint8 or label.ndim != 2:
        raise ShapeError(f"write_mask: found {label.dtype} of shape {label.shape}; expected uint8 (H, W)")
    if path_of(path).suffix.lower() != ".png":
        raise UsageError(f"{path}: a mask cannot be written under this name; expected a name that ends in .png")
    picture = Image.fromarray(np.ascontiguousarray(label))
    picture.putpalette(palette(256).tobytes())
    _write(path, picture)


def read_mask(path: str | os.PathLike[str], *, classes: int) -> np.ndarray:
    """Read a label map (H, W) uint8 whose values are 0..classes-1, or 255 for void.

    The file is a PNG: either of palette indices (mode P, any bit depth; the colours are decoration) or 8-bit grey
    (the greys are the indices). Any other value is refused here, on the host: a GPU would wrap a 255 used as an index
    around to some other class and say nothing.
    """
    path = path_of(path)
    if not 1 <= classes <= VOID:
        raise UsageError(f"read_mask: classes={classes}; expected 1..{VOID}, since {VOID} means void")
    with opened(path, formats=("PNG",), what="mask") as picture:
        _require_indices(path, picture)
        label, counts = np.array(picture), picture.histogram()
    strange = [value for value in range(classes, VOID) if counts[value]]
    if strange:
        values = ", ".join(map(str, strange[:8])) + (", ..." if len(strange) > 8 else "")
        pixels = sum(counts[value] for value in strange)
        expected = f"0..{classes - 1} or {VOID} (void); correct the mask or the list of classes"
        raise DataError(f"{path}: mask holds {values} at {pixels} of {label.size} pixels; expected {expected}")
    return label


def read_depth(path: str | os.PathLike[str], *, per_metre: float) -> np.ndarray:
    """Read a depth map (H, W) as float32 metres: a 16-bit grey PNG of whole numbers, 0 where nothing was measured.

    metres = number / per_metre. No file says what its unit is, and data sets differ by a factor of ten: 1000, and the
    numbers are millimetres; 5000, and 65535 is 13 m.
    """
    path = path_of(path)
    if not (isinstance(per_metre, int | float) and 0 < per_metre < math.inf):
        raise UsageError(f"read_depth: per_metre={per_metre!r}; expected a number above 0, such as 1000")
    with opened(path, formats=("PNG",)) as picture:
        if picture.mode not in ("I;16", "I"):
            found = f"a PNG of mode {picture.mode}"
            raise DataError(f"{path}: depth is {found}; expected 16-bit grey; is it a picture of the depth in colours?")
        return (np.array(picture) / per_metre).astype(np.float32)


def read_image(path: str | os.PathLike[str], *, bits: int = 16) -> np.ndarray:
    """Read a photograph as (H, W, 3) uint8, red first, whatever it was.

    Grey, 1-bit and palette pictures become RGB; CMYK becomes RGB by the plain formula, without colour profiles; of
    16-bit samples the lowest `bits` count, and of those the upper 8; transparency is laid on white, as on paper; of
    several frames the first counts; and the picture is turned the way its EXIF orientation says. Samples of 32 bits are
    refused.
    """
    path = path_of(path)
    with opened(path, formats=IMAGE_FORMATS) as picture:
        return np.array(photograph(path, picture, bits=bits))


def read_frames(path: str | os.PathLike[str], *, most: int = MAX_PIXELS, bits: int = 16) -> Iterator[np.ndarray]:
    """Yield every picture in a file, as `read_image` reads one: the frames of a GIF or an APNG, the pages of a TIFF.

    `most` is the largest number of pixels that one of them may have.
    """
    path = path_of(path)
    cure = "scale it down first" if most > MAX_PIXELS else "scale it down first, or predict it with `tile=1024`"
    with opened(path, formats=FRAME_FORMATS, most=most, cure=cure) as picture:
        count = getattr(picture, "n_frames", 1)
        only = photograph(path, picture, bits=bits) if count == 1 else None
    if only is not None:  # the file is closed by now, and Pillow's copy of the pixels is gone
        yield only
        return
    with opened(path, formats=FRAME_FORMATS, most=most, cure=cure) as picture:
        for number in range(count):
            picture.seek(number)
            yield photograph(path, picture, page=number, bits=bits)


def photograph(path: str | os.PathLike[str], picture: Any, *, page: int = 0, bits: int) -> np.ndarray:
    """Return the page at which an open picture is as `read_image` does; the array may be a view of the picture."""
    from PIL import ImageOps

    use_low_bits(path, picture, page=page, bits=bits)
    if picture.getexif().get(ORIENTATION, 1) != 1:
        picture = ImageOps.exif_transpose(picture)
    plain = picture.mode == "RGB" and not picture.has_transparency_data
    return np.asarray(picture if plain else as_rgb(path, picture, bits=bits))  # without a copy that is not needed


def as_rgb(path: str | os.PathLike[str], picture: Any, *, bits: int = 16) -> Any:
    """Return the picture in mode RGB; of samples with 16 bits, the upper 8 of the lowest `bits` are used."""
    from PIL import Image

    if picture.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255 here, which turns nearly everything white.
        return Image.fromarray(np.minimum(np.asarray(picture) >> (bits - 8), 255).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        paper = Image.new("RGB", picture.size, "white")
        layer = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        paper.paste(layer, mask=layer)
        return paper
    if picture.mode not in ("RGB", "L", "1", "P", "CMYK", "YCbCr"):
        raise DataError(f"{path}: image mode {picture.mode}; expected 8 or 16 bits a sample; save it as 8-bit RGB")
    return picture.convert("RGB")


def is_deep(path: str | os.PathLike[str], picture: Any, *, page: int = 0, kinds: str = DEEP) -> bool:
    """Return whether an open picture has colours of 16 bits a sample: Pillow keeps the upper 8 of them."""
    tiles = picture.tile
    if not tiles and picture.format in ("PNG", "TIFF"):  # it is decoded already: to read the EXIF of a PNG does that
        with opened(path, formats=FRAME_FORMATS, most=MOST_IN_TILES, what="mask") as again:
            again.seek(page)
            tiles = again.tile
    return bool(tiles) and all(re.fullmatch(kinds, _raw_mode(tile)) for tile in tiles)


def _raw_mode(tile: Any) -> str:
    return str(tile[3] if isinstance(tile[3], str) else tile[3][0] if tile[3] else "")


def lower_bytes(path: str | os.PathLike[str], *, page: int = 0) -> np.ndarray:
    """Return the lower 8 bits of each sample (H, W, C) of a picture that `is_deep`.

    Pillow takes one byte of the two, by the order that it believes them to be in. So it is given the other order.
    """
    from PIL import Image

    Image.preinit()
    swapped = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    with opened(path, formats=FRAME_FORMATS, most=MOST_IN_TILES, what="mask") as picture:
        picture.seek(page)
        grey = any(_raw_mode(tile).startswith("LA") for tile in picture.tile)
        tiles = []
        for name, extents, offset, given in picture.tile:
            mode = _raw_mode((name, extents, offset, given))
            other = "RGBA" if grey else mode[:-1] + swapped[mode[-1]]  # grey and alpha, two bytes each, are four bytes
            tiles.append((name, extents, offset, other if isinstance(given, str) else (other, *given[1:])))
        picture.tile = tiles
        low = np.array(picture)
        return low[..., [1, 1, 1, 3]] if grey else low


def use_low_bits(path: str | os.PathLike[str], picture: Any, *, page: int = 0, bits: int) -> None:
    """Use the upper 8 of the lowest `bits` of 16-bit colours, in place; of transparency, the upper 8 of all."""
    from PIL import Image

    if bits == 16 or not is_deep(path, picture, page=page):
        return
    pixels, low = np.array(picture), lower_bytes(path, page=page)
    for channel in range(3):
        sample = pixels[..., channel].astype(np.uint16) << 8 | low[..., channel]
        pixels[..., channel] = np.minimum(sample >> (bits - 8), 255)
    picture.paste(Image.fromarray(pixels))


def colours_of_mask(path: str | os.PathLike[str], picture: Any, *, page: int = 0) -> np.ndarray:
    """Return the colours (H, W, 3) uint8 of a mask; of 16-bit samples, 8 bits that lose nothing, or a DataError."""
    deep = is_deep(path, picture, page=page)
    upper = np.array(picture.convert("RGB"))
    if not deep:
        return upper
    lower = lower_bytes(path, page=page)[..., :3]
    if not upper.any():
        return lower
    if lower.any() and not np.array_equal(lower, upper):
        raise DataError(f"{path}: mask of colours with 16 bits a sample; expected 8; save it as an 8-bit PNG")
    return upper


def _require_indices(path: str | os.PathLike[str], picture: Any) -> None:
    """Refuse a PNG whose numbers would reach us as anything but the indices that were saved."""
    bits = bits_of_png(path)
    # Pillow stretches grey of 1, 2 or 4 bits to 0..255: class 1 would arrive as 17, or as void.
    if not (picture.mode == "P" or (picture.mode == "L" and bits == 8)):
        expected = "palette indices or 8-bit grey; map its colours to class indices and save it again"
        raise DataError(f"{path}: mask is a PNG of mode {picture.mode}, {bits} bits a sample; expected {expected}")
    require_upright(path, picture)


def bits_of_png(path: str | os.PathLike[str]) -> int:
    """Return a PNG's bit depth, which follows signature, chunk head, width and height."""
    with open(path, "rb") as file:
        return file.read(25)[24]


def require_upright(path: str | os.PathLike[str], picture: Any) -> None:
    """Refuse an open mask that its EXIF turns: was it drawn on the picture as shown, or as stored?"""
    turned = picture.getexif().get(ORIENTATION, 1)
    if turned != 1:
        raise DataError(f"{path}: mask carries EXIF orientation {turned}; expected none; save it upright")


@contextmanager
def data_errors() -> Iterator[None]:
    """Turn what a reader of `formats/` refuses into a `DataError`, since the file holds data and no weights."""
    try:
        yield
    except (FormatError, UsageError) as fault:
        raise DataError(str(fault)) from fault


@contextmanager
def opened(
    path: str | os.PathLike[str],
    *,
    formats: tuple[str, ...],
    most: int = MAX_PIXELS,
    cure: str = "scale it down first",
    what: str = "photograph",
) -> Iterator[Any]:
    """Yield a picture that Pillow has opened, header only; what Pillow then finds wrong with it is a `DataError`."""
    from PIL import Image

    _require_file(path)
    try:
        with _Counted(path) as file:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower, and refuses
                found = Image.open(file, formats=formats)
            with found as picture:
                _require_modest(path, picture, what, most, cure)
                yield picture
    except MinifcnError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(_too_large(path, "over 179 megapixels", most, cure)) from error
    except Image.UnidentifiedImageError as error:
        raise DataError(f"{path}: content not recognised; expected {', '.join(formats)}; replace the file") from error
    except Exception as error:  # Pillow promises no set of exceptions for broken files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: cannot be decoded ({reason}); expected a whole picture; replace the file") from error


class _Counted(io.BufferedReader):
    """A file that is read from at most `MOST_READS` times, and never for more than is left: that would be reserved."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(io.FileIO(path))
        self._left, self._size = MOST_READS, os.path.getsize(path)

    def read(self, size: int | None = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise OSError(f"over {MOST_READS} comments or other pieces")
        left = self._size - self.tell()
        return super().read(left if size is None or not 0 <= size < left else size)


def _require_modest(path: str | os.PathLike[str], picture: Any, what: str, most: int, cure: str) -> None:
    """Refuse a picture that is large, or so much larger than its file that decoding it would be a bomb."""
    width, height = picture.size
    if width * height > most:
        raise DataError(_too_large(path, f"{width}x{height} pixels", most, cure))
    size = os.path.getsize(path)
    kind = "colour mask" if what == "mask" and picture.mode not in ("1", "L", "P") else what
    flat_per_byte, flat = FLAT_PIXELS[kind]
    most = max(FREE_PIXELS, PIXELS_PER_BYTE * size, min(flat, flat_per_byte * size))
    if width * height > most:
        what = f"header announces {width}x{height} pixels in a file of {size} bytes"
        raise DataError(f"{path}: {what}; expected at most {most}; is it of one colour? scale it down first")
    part, most, name = MOST_PARTS.get(picture.tile[0][0] if picture.tile else "", (b"", 0, ""))
    if part and (count := path_of(path).read_bytes().count(part)) > most:
        raise DataError(f"{path}: has {count} {name}; expected at most {most}; save it again")


def _too_large(path: str | os.PathLike[str], found: str, most: int, cure: str) -> str:
    return f"{path}: header announces {found}; expected at most {most // 10**6} megapixels; {cure}"


def _require_file(path: str | os.PathLike[str]) -> None:
    """Refuse what is no regular file with something in it: opening a pipe, for one, would wait forever."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be opened ({reason}); expected a picture; check the path") from error
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path}: is no regular file; expected a picture; check the path")
    if found.st_size == 0:
        raise DataError(f"{path}: is empty (0 bytes); expected a picture; replace the file")


def _write(path: str | os.PathLike[str], picture: Any) -> None:
    """Write a picture in the format of the name, entirely or not at all."""
    from PIL import Image

    path, file = path_of(path), io.BytesIO()
    kind = Image.registered_extensions().get(path.suffix.lower())
    try:
        if kind is None:
            raise ValueError(f"unknown file extension: {path.suffix}")
        picture.save(file, format=kind, quality=95)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot be written ({reason}); choose another folder or a .png name") from error
    replace_file(path, [file.getvalue()], sync=False)
