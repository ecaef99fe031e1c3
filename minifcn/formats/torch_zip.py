"""Read PyTorch files since version 1.6: a zip of one pickle and many storages.

    NAME/data.pkl     the pickle: names, and views of storages (`torch_tensors.py`)
    NAME/data/0       the numbers of storage 0, and so on
    NAME/byteorder    "little" or "big"; older files have none and are little
    NAME/version      and other notes, which are passed over

PyTorch compresses none of it, in order to map it into memory. So compressed entries are refused: PyTorch did not
write them, and they are the only way for the content to be larger than the file.
"""

from pathlib import Path

import numpy as np

from minifcn.errors import FormatError
from minifcn.formats.archive import STORED, read_archive, unfold
from minifcn.formats.limits import SHARING, Collected, Cursor, bytes_of, nbytes_of, path_of, refusal
from minifcn.formats.not_weights import names_in, refuse_archive
from minifcn.formats.torch_tensors import Storage, collect, read_pickle


def read_torch_zip(path: Path, *, allow_nonfinite: bool = False) -> dict[str, np.ndarray]:
    """Return the tensors of a `.pt` or `.pth`: read-only views of the file, with their strides.

    Names of nested dicts are joined by dots; what is no tensor is passed over; a tensor saved alone is called "tensor".
    Raises FormatError for every other pickle than one of plain tensors, and for a damaged, compressed or doubled entry.
    """
    path = path_of(path)
    data = bytes_of(path)
    try:
        entries = read_archive(path, data)
    except FormatError:
        refuse_archive(path, names_in(path, data))  # other programs write zips in other ways
        raise
    refuse_archive(path, list(entries))
    for entry in entries.values():
        if entry.method != STORED:
            raise refusal(path, f"zip entry {entry.name}", "compressed", "stored, as PyTorch does")
    content = {name: unfold(path, entry) for name, entry in entries.items()}  # views, whose checksums are right
    roots = {name.partition("/")[0] for name in content}
    root = min(roots, default="")
    if len(roots) != 1 or f"{root}/data.pkl" not in content:
        raise refusal(path, "zip", "no data.pkl, or several folders", "the one folder of a file by torch.save")
    order = bytes(content.get(f"{root}/byteorder", b"little")[:10])
    if order not in (b"little", b"big"):
        raise refusal(path, "byteorder", repr(order), "little or big")

    pickle = Cursor(path, content[f"{root}/data.pkl"], "data.pkl")
    top, _ = read_pickle(pickle)
    if pickle.left:
        raise refusal(path, "data.pkl", f"{pickle.left} bytes after the pickle", "none")

    def numbers(storage: Storage) -> np.ndarray:
        raw = content.get(f"{root}/data/{storage.key}", memoryview(b""))
        expected = nbytes_of(path, storage.key, (storage.numel,), storage.dtype)
        if len(raw) != expected:
            raise refusal(path, f"storage {storage.key}", f"{len(raw)} bytes", f"{expected}, as the pickle says")
        dtype = storage.dtype.newbyteorder("<" if order == b"little" else ">")
        return np.ndarray((storage.numel,), dtype, raw)

    found = Collected(path, room=SHARING * len(data), allow_nonfinite=allow_nonfinite)
    return collect(found, top, numbers)
