"""Which format a file of weights has: by its first bytes, for a name is only what somebody called it.

Each of the formats begins with something that the others do not. A zip is one of two, and its first entry tells which;
MATLAB writes two formats under one name; a prototxt is the only one that is text.
"""

from __future__ import annotations

import importlib
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.errors import FormatError
from minifcn.weights.limits import mapped, short

HEAD = 1024  # bytes to judge by
HDF5 = b"\x89HDF\r\n\x1a\n"
ZIP = b"PK\x03\x04"
TEXT = frozenset(string.printable.encode()) | frozenset(range(0x80, 0x100))
# the tags that a NetParameter can begin with: name, layers, input, input_dim, ..., layer (100, two bytes)
NET_TAGS = (b"\x0a", b"\x12", b"\x1a", b"\x20", b"\x28", b"\x32", b"\x38", b"\x42", b"\xa2\x06")

# format -> (what people call it, the file of this folder that reads it)
FORMATS = {
    "safetensors": ("safetensors", "safetensors"),
    "npz": ("NumPy arrays (npz)", "npz"),
    "torch_zip": ("PyTorch (zip)", "torch_zip"),
    "torch_legacy": ("PyTorch, as written before 1.6", "torch_legacy"),
    "h5": ("Keras (HDF5)", "h5"),
    "mat": ("MATLAB", "mat"),
    "caffemodel": ("Caffe model", "caffemodel"),
    "prototxt": ("Caffe prototxt, which describes a net and has no weights", "prototxt"),
}


def format_of(path: str | Path) -> str:
    """One of `FORMATS`. Raises `FormatError` for anything else, `UsageError` where there is no such file."""
    path = Path(path)
    head = bytes(mapped(path)[:HEAD])
    if head[:4] == ZIP:
        name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        return "npz" if name.endswith(b".npy") else "torch_zip"
    if head[:10] == b"MATLAB 5.0" or (head[:10] == b"MATLAB 7.3" and head[512:520] == HDF5):
        return "mat"
    if head[:8] == HDF5:
        return "h5"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "torch_legacy"
    if head[8:9] == b"{":
        return "safetensors"
    if set(head) <= TEXT:
        return "prototxt"
    if head.startswith(NET_TAGS):
        return "caffemodel"
    raise FormatError(
        f"{path}: found the first bytes {head[:8].hex(' ')}; expected those of "
        f"{', '.join(FORMATS)}; is it a file of weights, and did it arrive whole?"
    )


def read(path: str | Path, *, allow_nonfinite: bool = False) -> dict[str, np.ndarray]:
    """The arrays of a file of weights of any format, under the file's own names. Raises what its reader raises."""
    path, kind = Path(path), format_of(path)
    if kind == "prototxt":
        raise FormatError(f"{path}: is a text that describes a net ({short(kind)}); expected the weights of one")
    module: Any = importlib.import_module(f"minifcn.weights.{FORMATS[kind][1]}")
    reader: Callable[..., dict[str, np.ndarray]] = getattr(module, f"read_{kind}")
    return reader(path, allow_nonfinite=allow_nonfinite)
