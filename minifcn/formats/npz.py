"""Read NumPy's `.npz`: a zip of `.npy` files, one per array.

A `.npy` file is a short text and the numbers behind it:

    \x93NUMPY 1 0   length of the text   {'descr': '<f4', 'fortran_order': False, 'shape': (64, 3, 3, 3), }   numbers

The text looks like Python, and the usual reader lets Python's parser have it. It is always the same three words in the
same order, so one regular expression reads it, and whatever does not match was not written by NumPy for numbers: an
array of objects, in particular, whose content is a pickle, that is, a program (see `opcodes.py`).
"""

import re
from pathlib import Path

import numpy as np

from minifcn.formats.archive import read_archive, unfold
from minifcn.formats.limits import DTYPES, Collected, Cursor, bytes_of, nbytes_of, path_of, refusal, unfolded_limit

MAGIC = b"\x93NUMPY"
MAX_TEXT = 4096  # NumPy's own is 118 or a little more
TEXT = re.compile(
    r"\{'descr': '([<>|=]?[a-z?]\d{0,3})', 'fortran_order': (True|False), 'shape': \(([0-9L, ]{0,700})\), ?\}\s*",
    re.ASCII,
)


def read_npz(path: Path, *, allow_nonfinite: bool = False) -> dict[str, np.ndarray]:
    """Return the arrays of an `.npz`: views of the file where they are stored, fresh where they are deflated.

    Raises FormatError for what is no such file, for objects, text and other things that are no numbers, for entries
    that are damaged or listed twice, and for more than `limits.unfolded_limit` bytes.
    """
    path = path_of(path)
    data = bytes_of(path)
    found = Collected(path, room=unfolded_limit(len(data)), allow_nonfinite=allow_nonfinite)
    for entry in read_archive(path, data).values():
        name = entry.name.removesuffix(".npy")
        if name == entry.name:
            raise refusal(path, f"zip entry {name}", "another ending", "arrays whose names end in .npy")
        found.add(name, read_npy(path, name, unfold(path, entry)))
    return found.arrays


def read_npy(path: Path, name: str, data: memoryview) -> np.ndarray:
    """Return the array of one `.npy`, a view of `data`."""
    cursor = Cursor(path, data, name)
    if bytes(cursor.take(6, "magic")) != MAGIC:
        raise refusal(path, name, "other first bytes", "those of a .npy file")
    version = tuple(cursor.take(2, "version"))
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise refusal(path, f"{name}: version", version, "1, 2 or 3")
    length = cursor.integer(2 if version == (1, 0) else 4, "header length")
    if length > MAX_TEXT:
        raise refusal(path, f"{name}: header", f"{length} bytes", f"at most {MAX_TEXT}")
    text = bytes(cursor.take(length, "header")).decode("latin-1")
    dtype, shape, fortran = _described(path, name, text)
    if nbytes_of(path, name, shape, dtype) != cursor.left:
        raise refusal(path, name, f"{cursor.left} bytes of numbers", f"as many as {dtype} of shape {shape} takes")
    return np.ndarray(shape, dtype, data, offset=cursor.at, order="F" if fortran else "C")


def _described(path: Path, name: str, text: str) -> tuple[np.dtype, tuple[int, ...], bool]:
    """Return what the text says: the dtype, the shape, and whether the first index is the one that runs fastest."""
    match = TEXT.fullmatch(text)
    if not match:
        raise refusal(path, f"{name}: header", text, "the dtype, order and shape of an array of numbers")
    descr, fortran, sizes = match.groups()
    # Python 2 wrote 3L for 3. Eighteen digits are more than any file has bytes.
    words = [word.strip().removesuffix("L") for word in sizes.split(",")]
    if words[-1] == "":
        words.pop()  # (3,) and ()
    if not all(re.fullmatch(r"[0-9]{1,18}", word) for word in words):
        raise refusal(path, f"{name}: shape", f"({sizes})", "sizes of at least 0")
    try:
        dtype = np.dtype(descr)
    except TypeError:
        dtype = np.dtype("O")
    if dtype.newbyteorder("=") not in DTYPES:
        raise refusal(path, f"{name}: dtype", descr, "bool, an integer or float16, 32 or 64")
    return dtype, tuple(map(int, words)), fortran == "True"
