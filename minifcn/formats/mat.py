"""Read MATLAB's `.mat` files: versions 5 to 7, and 7.3, which is HDF5.

Version 5 to 7 is 128 bytes of head and then elements, each a tag (the kind of its numbers and their bytes, four bytes
each) and its content, filled up to a multiple of eight. A matrix is an element made of elements:

    flags (its class), sizes, name, real part, and the imaginary part of a complex one

and from version 7 on it is deflated as a whole. SciPy reads this format, too, and the tests compare with it; but a file
of 179 bytes that declares 2 GB makes it allocate 2 GB. Here a length is used only if its bytes are there.

Version 7.3 is an HDF5 file behind 512 bytes of head, and goes the way of `h5.py`.

Either way an array has MATLAB's shape, in which the first index runs fastest: what MATLAB calls size(w), NumPy calls
w.shape. Cells, structs, texts, sparse and complex matrices are no weights, and are refused.

Label maps come in such files, too, beside names, outlines and dates. `only` lists what to read, such as "S" or
"GTcls.Segmentation", the field of a struct; everything else is skipped without a check.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.formats.h5 import SIGNATURE, datasets, opened, values
from minifcn.formats.limits import Collected, Cursor, bytes_of, nbytes_of, path_of, refusal, unfolded_limit

HEAD = 128
HDF5_AT = 512

# The kinds of numbers in an element; what a matrix of a class holds; and the classes, as they are called in files.
KINDS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
MATRIX, DEFLATED, TEXT = 14, 15, (1, 2, 16)
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
STRUCT = 2
OTHERS = {1: "a cell", 2: "a struct", 3: "an object", 4: "a text", 5: "a sparse matrix", 16: "a function"}
COMPLEX = 8  # of the options
ALONE = "save the weights alone"
HDF5_CLASSES = {
    "double": "f8", "single": "f4", "logical": "u1", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2",
    "int32": "i4", "uint32": "u4", "int64": "i8", "uint64": "u8",
}  # fmt: skip


def read_mat(path: Path, *, allow_nonfinite: bool = False, only: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Return `{"w": array}`: the variables, with MATLAB's shapes. In version 7.3 a struct's field is `data/w`.

    With `only` just these, of which a file of version 5 to 7 may have fields, too: `only=["GTcls.Segmentation"]`; one
    that is not there is refused.

    Raises FormatError for whatever is wrong with the file or is no array of numbers, and for NaN and infinity without
    `allow_nonfinite`; UsageError where version 7.3 needs h5py and it is not installed.
    """
    path = path_of(path)
    data = bytes_of(path)
    found = Collected(path, room=unfolded_limit(len(data)), allow_nonfinite=allow_nonfinite)
    if bytes(data[HDF5_AT : HDF5_AT + 8]) == SIGNATURE:
        _read_hdf5(path, found)  # all of it: `only` says what has to be there
    else:
        _read_elements(path, data, found, only)
    for name in only or ():
        if name not in found.arrays:
            raise refusal(path, name, f"only {', '.join(found.arrays) or 'other things'}", f"a matrix called {name}")
    if not found.arrays:
        raise refusal(path, "variables", "none", "the weights of a net")
    return found.arrays


# ---------------------------------------------------------------------------------------------------- versions 5 to 7


def _read_elements(path: Path, data: memoryview, found: Collected, only: Sequence[str] | None) -> None:
    cursor = Cursor(path, data, "file")
    head = bytes(cursor.take(HEAD, "head"))
    if head[124:] not in (b"\x00\x01IM", b"\x01\x00MI"):
        raise refusal(path, "version", head[124:].hex(" "), "version 5 to 7.3", then="save it in MATLAB with -v7")
    order = "<" if head[126:] == b"IM" else ">"
    room = found.room
    while cursor.left:
        kind, content = _element(cursor, order, padded=False)
        if kind == DEFLATED:
            inflate = zlib.decompressobj()
            try:
                content = memoryview(inflate.decompress(content, room + 1))
            except zlib.error as error:
                raise refusal(path, "a deflated matrix", error, "whole ones") from error
            room -= len(content)
            if room < 0 or not inflate.eof:
                raise refusal(path, "a deflated matrix", "more than all of the file may hold, or no end", "its end")
            kind, content = _element(Cursor(path, content, "matrix"), order)
        if kind != MATRIX:
            raise refusal(path, "file", f"an element of kind {kind}", f"a matrix ({MATRIX})")
        _read_matrix(Cursor(path, content, "matrix"), order, found, only)


def _element(cursor: Cursor, order: str, *, padded: bool = True) -> tuple[int, memoryview]:
    """Return the kind and the content of the element at the cursor. Up to four bytes may stand in the tag itself."""
    tag = np.frombuffer(cursor.take(8, "tag"), f"{order}u4").tolist()
    if small := tag[0] >> 16:
        kind = tag[0] & 0xFFFF
        if small > 4:
            raise refusal(cursor.path, f"{cursor.field}: small element", f"{small} bytes", "at most 4")
        return kind, cursor.data[cursor.at - 4 : cursor.at - 4 + small]
    kind, size = tag
    content = cursor.take(size, "element")
    if padded and kind != DEFLATED:
        cursor.take(min(-size % 8, cursor.left), "padding")
    return kind, content


def _read_matrix(cursor: Cursor, order: str, found: Collected, only: Sequence[str] | None, *, field: str = "") -> None:
    """Enter the matrix whose content the cursor is at the beginning of; `field` is its name if it has none itself."""
    path = cursor.path
    if not cursor.left:
        raise refusal(path, "matrix", "an empty one", "one with a name and sizes")
    flags = _numbers(cursor, order, "flags", (6,))
    sizes = _numbers(cursor, order, "sizes", (5,))
    kind, letters = _element(cursor, order)
    name = field or bytes(letters).decode("utf-8", "replace")
    if kind not in TEXT or len(flags) != 2 or len(sizes) < 2:
        raise refusal(path, name, "other elements", "flags, at least two sizes, a name and the values of a matrix")
    what, options = flags[0] & 0xFF, flags[0] >> 8 & 0xFF
    if only is not None and name not in only:
        if what == STRUCT and not field and any(one.startswith(f"{name}.") for one in only):
            _read_fields(cursor, order, found, only, name, sizes)
        return
    if what not in CLASSES or options & COMPLEX:
        raise refusal(
            path, name, OTHERS.get(what, f"complex or of class {what}"), "a matrix of real numbers", then=ALONE
        )
    dtype = np.dtype(CLASSES[what])
    kind, content = _element(cursor, order)
    stored = np.dtype(order + KINDS.get(kind, "O"))
    # Whole numbers may be stored as smaller ones, whatever the class; but not numbers that the class cannot hold.
    fits = np.can_cast(stored, dtype) or (stored.kind in "iu" and dtype.kind == "f")
    if not fits or nbytes_of(path, name, sizes, stored) != len(content) or cursor.left:
        found_here = f"{len(content) + cursor.left} bytes of values of kind {kind}"
        raise refusal(path, name, found_here, f"as many as a matrix {sizes} of {dtype} has")
    if nbytes_of(path, name, sizes, dtype) > found.room:
        raise refusal(path, name, f"a matrix {sizes}", f"at most {found.room} bytes, by the size of the file")
    array = np.frombuffer(content, stored).astype(dtype)
    found.add(name, array.reshape(sizes, order="F"))


def _read_fields(
    cursor: Cursor, order: str, found: Collected, only: Sequence[str], name: str, sizes: list[int]
) -> None:
    """Enter the wanted fields of one struct: the length of a name, all names at that length, then a matrix for each."""
    kind, content = _element(cursor, order)
    length = int(np.frombuffer(content, order + "i4")[0]) if kind == 5 and len(content) == 4 else 0
    kind, letters = _element(cursor, order)
    if any(size != 1 for size in sizes) or kind not in TEXT or not 1 <= length <= len(letters) or len(letters) % length:
        raise refusal(cursor.path, name, f"{sizes} structs or none", "one struct with fields")
    for at in range(0, len(letters), length):
        field = bytes(letters[at : at + length]).split(b"\0")[0].decode("ascii", "replace")
        kind, content = _element(cursor, order)
        if kind != MATRIX:
            raise refusal(cursor.path, f"{name}.{field}", f"an element of kind {kind}", f"a matrix ({MATRIX})")
        if f"{name}.{field}" in only:
            _read_matrix(Cursor(cursor.path, content, "matrix"), order, found, only, field=f"{name}.{field}")


def _numbers(cursor: Cursor, order: str, what: str, kinds: tuple[int, ...]) -> list[int]:
    kind, content = _element(cursor, order)
    if kind not in kinds or len(content) % 4 or len(content) > 200:
        raise refusal(cursor.path, f"matrix: {what}", f"{len(content)} bytes of kind {kind}", f"integers ({kinds[0]})")
    return np.frombuffer(content, order + KINDS[kind]).tolist()


# ------------------------------------------------------------------------------------------------------- version 7.3


def _read_hdf5(path: Path, found: Collected) -> None:
    with opened(path, at=HDF5_AT) as file:
        checked = datasets(path, file, room=found.room)
        for name, dataset in checked:
            kind, empty = _attribute(path, name, dataset, "MATLAB_class"), "MATLAB_empty" in dataset.attrs
            if kind and kind not in HDF5_CLASSES and not empty:
                raise refusal(path, name, f"a {kind}", "a matrix of real numbers", then=ALONE)
            array = values(dataset)
            if empty:  # what is stored are then the sizes, one of which is 0
                sizes = array.ravel().tolist()
                dtype = np.dtype(HDF5_CLASSES.get(kind, "f8"))
                if nbytes_of(path, name, sizes, dtype):
                    raise refusal(path, name, f"an empty matrix {sizes}", "one with a size of 0")
                array = np.empty(sizes[::-1], dtype)
            found.add(name, array.T)


def _attribute(path: Path, name: str, dataset: Any, attribute: str) -> str:
    """Return a short text that MATLAB has attached to the array; empty if there is none."""
    if attribute not in dataset.attrs:
        return ""
    stored = dataset.attrs.get_id(attribute)
    if stored.dtype.kind != "S" or stored.dtype.itemsize > 32 or stored.shape != ():
        raise refusal(path, f"{name}: {attribute}", f"dtype {stored.dtype}, shape {stored.shape}", "a short text")
    return bytes(dataset.attrs[attribute]).decode("ascii", "replace")
