"""Read PyTorch files older than version 1.6: five pickles, then the storages.

    pickle 1    a magic number
    pickle 2    the version of the format, 1001
    pickle 3    about the machine that wrote it: whether it was little endian
    pickle 4    the object: names, and views of storages (`torch_tensors.py`)
    pickle 5    the keys of the storages, in the order in which they follow
    storages    for each, the number of its elements in 8 bytes, and the elements

Nothing in it says how long anything is before one has read it, and there is no checksum: a bit that flips among the
numbers is another number. The layout itself is held to the last byte.
"""

from pathlib import Path

import numpy as np

from minifcn.formats.limits import SHARING, Collected, Cursor, bytes_of, nbytes_of, path_of, refusal
from minifcn.formats.opcodes import Machine
from minifcn.formats.torch_tensors import collect, read_pickle

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001


def read_torch_legacy(path: Path, *, allow_nonfinite: bool = False) -> dict[str, np.ndarray]:
    """Return the tensors of an old `.pth`: read-only views of the file, with strides; else as `read_torch_zip`."""
    path = path_of(path)
    data = bytes_of(path)
    cursor = Cursor(path, data, "magic number")
    for field, expected in (("magic number", MAGIC), ("format version", VERSION)):
        cursor.field = field
        value = Machine(cursor).run()
        if type(value) is not int or value != expected:
            raise refusal(path, field, "another", expected)
    cursor.field = "about the machine"
    machine = Machine(cursor).run()
    if type(machine) is not dict or machine.get("little_endian") is not True:
        raise refusal(path, cursor.field, "no little_endian", "true: PyTorch of today writes a file anyone can read")
    cursor.field = "object"
    top, storages = read_pickle(cursor)
    cursor.field = "storage keys"
    keys = Machine(cursor).run()
    if type(keys) is not list or any(type(key) is not str for key in keys):
        raise refusal(path, cursor.field, "something else", "a list of texts")
    if sorted(keys) != sorted(storages):
        raise refusal(path, cursor.field, "other keys than the object's", "each of them once")

    content: dict[str, np.ndarray] = {}
    for key in keys:
        storage, cursor.field = storages[key], f"storage {key}"
        numel = cursor.integer(8, "size")
        if numel != storage.numel:
            raise refusal(path, cursor.field, f"{numel} elements", f"{storage.numel}, as the pickle says")
        raw = cursor.take(nbytes_of(path, key, (numel,), storage.dtype), "numbers")
        content[key] = np.ndarray((numel,), storage.dtype, raw)
    if cursor.left:
        raise refusal(path, "end", f"{cursor.left} bytes after the last storage", "none")
    found = Collected(path, room=SHARING * len(data), allow_nonfinite=allow_nonfinite)
    return collect(found, top, lambda storage: content[storage.key])
