"""Limits and checks for files from untrusted sources.

A file says of itself how long its parts are. Three rules make a lie harmless:

1. *A length is compared with what is left of the file before anything is reserved or read.* Then the memory a reader
   needs is at most a small multiple of the file's size, whatever the file claims. See `Cursor` and `nbytes_of`.
2. *A count has a ceiling* that no real net comes near, so that time is bounded, too. See `Collected`.
3. *What is refused is refused in one way*: a `FormatError` of one line, in which the file's own words are cut short and
   stripped of control characters (they end up in a terminal). See `refusal`.

The file is read once, and arrays are views of what was read. (Mapping it would save the copy; but another process may
cut a mapped file short, and the first look beyond its new end kills this one.)
"""

import math
import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.errors import FormatError, UsageError

MAX_TENSORS = 20_000  # the largest net of the paper has 56
MAX_NAME = 500  # letters
MAX_RANK = 32
SHARING = 8  # views of one storage are free until each is checked: all arrays together are at most so many files
ROOM = 16 * 2**20  # bytes that any file may unfold to, however small it is
EXPANSION = 32  # and beyond that so many times its own size: weights are noise, which deflate does not halve

FETCH_AGAIN = "fetch the file again"
ALLOW = "`allow_nonfinite=True` takes them as they are"

# Numbers are what a weight file holds: no objects, no text, no dates, nothing whose size the machine decides.
DTYPES = frozenset(map(np.dtype, ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")))


def path_of(path: str | os.PathLike[str]) -> Path:
    """Return a path as the user means it: a leading ~ is the home folder, also where no shell has replaced it."""
    return Path(os.path.expanduser(path))


def refusal(path: Path, field: str, found: Any, expected: Any, *, then: str = FETCH_AGAIN) -> FormatError:
    """Return the one sentence, to be raised: `raise refusal(path, "shape", (3, -1), "sizes of at least 0")`."""
    return FormatError(f"{path}: {short(field)}: found {short(found)}, expected {short(expected)}; {then}")


def printable(text: str) -> str:
    """Return a line of text with "?" for each letter that is not printable: escape sequences, line ends, half pairs."""
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)


def short(thing: Any) -> str:
    """Return text from an untrusted file in a form that fits into a message of one line."""
    text = printable(" ".join(str(thing)[:1000].split()))
    return text if len(text) <= 160 else text[:160] + "..."


def bytes_of(path: Path, *, most: int | None = None, what: str = "a file of weights") -> memoryview:
    """Return the bytes of a regular file, or its first `most`, read-only. UsageError when there is no such file.

    `what` is expected to be there.
    """
    try:
        if not path.is_file():  # a pipe or a device would never end
            found = "something that is no file" if path.exists() else "no file"
            raise UsageError(f"{path}: found {found}, expected {what}; check the path")
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            if not size:
                raise refusal(path, "size", "0 bytes", what)
            file.seek(0)
            read = memoryview(mmap.mmap(-1, min(size, most or size)))  # memory of our own; the system clears it lazily
            if (got := file.readinto(read)) < len(read):
                raise refusal(path, "size", f"{got} bytes", f"the {size} that were there when it was opened")
            return read.toreadonly()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: found {reason}, expected a file that can be read; check the path") from error


def size_of(path: Path) -> int:
    """Return the size of a regular file in bytes. Raises as `bytes_of`."""
    bytes_of(path, most=1)
    return path.stat().st_size


class Cursor:
    """A place in a file's bytes, which moves forward by what is there and never past the end.

    `field` names the part of the file in messages; `start` is where `data` begins in the file.
    """

    def __init__(self, path: Path, data: memoryview, field: str, *, start: int = 0) -> None:
        self.path, self.data, self.field, self.start = path, data, field, start
        self.at = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, count: int, what: str) -> memoryview:
        """Return the next `count` bytes, a view."""
        if not 0 <= count <= self.left:
            at = f"{self.left} bytes left at byte {self.start + self.at}"
            raise refusal(self.path, f"{self.field}: {what}", at, f"{count} bytes: truncated, or a false length")
        self.at += count
        return self.data[self.at - count : self.at]

    def integer(self, size: int, what: str, *, signed: bool = False) -> int:
        """Return the next `size` bytes as an integer, little endian."""
        return int.from_bytes(self.take(size, what), "little", signed=signed)

    def line(self, what: str) -> bytes:
        """Return the bytes up to the next newline, which is passed over."""
        start = bytes(self.data[self.at : self.at + MAX_NAME + 1])
        end = start.find(b"\n")
        if end < 0:
            raise refusal(self.path, f"{self.field}: {what}", "no end of line", f"one within {MAX_NAME} bytes")
        self.at += end + 1
        return start[:end]


def nbytes_of(path: Path, name: str, shape: Iterable[int], dtype: np.dtype) -> int:
    """Return the size of an array in bytes, exact however large it is: Python's integers do not wrap around.

    The caller compares it with the bytes that are there. Refuses sizes below 0, of another type and too many of them.
    """
    sizes = tuple(shape)
    if len(sizes) > MAX_RANK or any(type(size) is not int or size < 0 for size in sizes):
        raise refusal(path, f"{name}: shape", sizes, f"at most {MAX_RANK} sizes of at least 0")
    # A size of 0 makes the product 0 and hides the others, and NumPy multiplies those.
    if math.prod(size or 1 for size in sizes) * dtype.itemsize >= 2**63:
        raise refusal(path, f"{name}: shape", sizes, "an array whose bytes can be counted")
    return math.prod(sizes) * dtype.itemsize


def unfolded_limit(size: int) -> int:
    """Return how many bytes a compressed file of `size` bytes may unfold to. 1 GB of zeros deflates to 1 MB: a bomb."""
    return max(ROOM, EXPANSION * size)


class Collected:
    """The arrays of one file, as they are found: each name once, every value finite, and not too many of either.

    path: for messages. room: bytes that all arrays together may have; `SHARING * file size` unless the file is
    compressed. allow_nonfinite: NaN and infinities pass.
    """

    def __init__(self, path: Path, *, room: int, allow_nonfinite: bool) -> None:
        self.path, self.room, self.allow_nonfinite = path, room, allow_nonfinite
        self.arrays: dict[str, np.ndarray] = {}

    def add(self, name: str, array: np.ndarray) -> None:
        """Enter `array` as `name`, or refuse it."""
        path = self.path
        if not name or len(name) > MAX_NAME or not name.isprintable():
            raise refusal(path, "names", repr(name[: MAX_NAME + 1]), f"1 to {MAX_NAME} printable letters")
        if name in self.arrays:
            raise refusal(path, name, "the name twice", "each name once")
        if len(self.arrays) >= MAX_TENSORS:
            raise refusal(path, name, f"more than {MAX_TENSORS} arrays", "the weights of one net")
        if array.dtype.newbyteorder("=") not in DTYPES:
            raise refusal(path, name, f"dtype {array.dtype}", "bool, an integer or float16, 32 or 64")
        self.room -= array.nbytes
        if self.room < 0:
            raise refusal(path, name, "more values than the file has room for", "arrays that share little or nothing")
        if array.dtype.kind in "fb":
            check_values(path, name, array, allow_nonfinite=self.allow_nonfinite)
        self.arrays[name] = array


def check_values(path: Path, name: str, array: np.ndarray, *, allow_nonfinite: bool, then: str = ALLOW) -> None:
    """Refuse NaN and infinities, which one layer spreads over the whole image, and bools that are neither 0 nor 1."""
    # In pieces, because the answers take memory as well; buffered, so that strides and byte orders do not matter.
    pieces = np.nditer(array, ["external_loop", "buffered", "zerosize_ok"], order="K", buffersize=2**16)
    for piece in pieces:
        part = np.asarray(piece)
        if array.dtype.kind == "b" and part.view(np.uint8).max(initial=0) > 1:
            raise refusal(path, name, "a bool that is neither 0 nor 1", "0 or 1")
        if array.dtype.kind == "f" and not allow_nonfinite and not np.isfinite(part).all():
            raise refusal(path, name, "NaN or infinity", "finite weights", then=then)


def from_bfloat16(raw: np.ndarray) -> np.ndarray:
    """Return bfloat16 (`raw`, unsigned 16 bit) as float32, exactly: it is the upper half of one."""
    return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
