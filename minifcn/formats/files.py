"""Detect the format of a weight file by its first bytes, and read it.

Each format begins with bytes that no other begins with. A zip holds one of two formats, and its first entry decides
which; MATLAB writes two formats under one name; a prototxt is the only one that is text.
"""

import codecs
from collections.abc import Callable
from pathlib import Path

import numpy as np

from minifcn.errors import FormatError
from minifcn.formats.caffemodel import read_caffemodel
from minifcn.formats.h5 import read_h5
from minifcn.formats.limits import bytes_of, path_of
from minifcn.formats.mat import read_mat
from minifcn.formats.not_weights import refuse_folder, refuse_other
from minifcn.formats.npz import read_npz
from minifcn.formats.safetensors import read_safetensors
from minifcn.formats.torch_legacy import read_torch_legacy
from minifcn.formats.torch_zip import read_torch_zip

HEAD = 1024  # bytes to judge by
HDF5 = b"\x89HDF\r\n\x1a\n"
ZIP = b"PK\x03\x04"
# the tags that a NetParameter can begin with: name, layers, input, input_dim, ..., layer (100, two bytes)
NET_TAGS = (b"\x0a", b"\x12", b"\x1a", b"\x20", b"\x28", b"\x32", b"\x38", b"\x42", b"\xa2\x06")

Reader = Callable[..., dict[str, np.ndarray]]
# format -> (what people call it, who reads it)
FORMATS: dict[str, tuple[str, Reader | None]] = {
    "safetensors": ("safetensors", read_safetensors),
    "npz": ("NumPy arrays (npz)", read_npz),
    "torch_zip": ("PyTorch (zip)", read_torch_zip),
    "torch_legacy": ("PyTorch, as written before 1.6", read_torch_legacy),
    "h5": ("Keras or other HDF5", read_h5),
    "mat": ("MATLAB", read_mat),
    "caffemodel": ("Caffe model", read_caffemodel),
    "prototxt": ("Caffe prototxt: a net in words, without weights", None),
}


def format_of(path: str | Path) -> str:
    """Return one of `FORMATS`. Raises `FormatError` for anything else, `UsageError` where there is no such file."""
    path = path_of(path)
    refuse_folder(path)
    head = bytes(bytes_of(path, most=HEAD))
    if head[:4] == ZIP:
        name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        return "npz" if name.endswith(b".npy") else "torch_zip"
    if head[:6] == b"MATLAB" or head[512:520] == HDF5:
        return "mat"
    if head[:8] == HDF5:
        return "h5"
    if head[8:9] == b"{":  # before the next, with which the length of its header may begin
        return "safetensors"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "torch_legacy"
    refuse_other(path, head)
    if _text(head):
        return "prototxt"
    if head.startswith(NET_TAGS):
        return "caffemodel"
    expected = f"those of {', '.join(FORMATS)}; is it a file of weights, and did it arrive whole?"
    raise FormatError(f"{path}: found the first bytes {head[:8].hex(' ')}; expected {expected}")


def _text(head: bytes) -> bool:
    """Return whether it begins like a text in UTF-8; the head may end in the middle of a letter."""
    try:
        letters = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter in "\t\r\n" for letter in letters)


def read(path: str | Path, *, allow_nonfinite: bool = False) -> dict[str, np.ndarray]:
    """Return the arrays of a weight file of any format, under the file's own names. Raises what its reader raises."""
    path = path_of(path)
    _, reader = FORMATS[format_of(path)]
    if reader is None:
        raise FormatError(f"{path}: describes a net in words; expected the weights of one, a .caffemodel perhaps")
    return reader(path, allow_nonfinite=allow_nonfinite)
