"""Recognise files that are often taken for weights and are none, each with what to do about it."""

import itertools
import re
import zipfile
from pathlib import Path

from minifcn.errors import FormatError

UNPACK = "unpack it and name the file inside"
ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".npz", ".caffemodel", ".h5", ".mat")
PICTURE = "name the weights here, and after them the picture to predict"
WEB = (b"<!doctype html", b"<html", b"<head", b"<!--", b"<body", b"<title", b"<meta", b"<script")
DARKNET = [b"\0\0\0\0" + bytes([minor, 0, 0, 0, revision, 0, 0, 0]) for minor in (1, 2) for revision in range(6)]
# first bytes, small letters where they are text -> (what it is, what to do)
BEGINNINGS: dict[bytes, tuple[str, str]] = {
    b"version https://git-lfs": ("a Git LFS pointer, not the file it stands for", "run git lfs pull in its repository"),
    b"version https://hawser": ("a Git LFS pointer of its first years", "run git lfs pull in its repository"),
    b"version http://git-media": ("a Git LFS pointer of its first years", "run git lfs pull in its repository"),
    **dict.fromkeys(WEB, ("a web page (HTML)", "open the address in a browser and download the file itself")),
    b"<error": ("an XML page of an error, such as AccessDenied", "ask its owner for another address: this has expired"),
    b"<?xml": ("an XML page, as a server answers with an error", "look inside, and download the file again"),
    b"\x89png": ("a picture (PNG)", PICTURE),
    b"\xff\xd8\xff": ("a picture (JPEG)", PICTURE),
    b"gif8": ("a picture (GIF)", PICTURE),
    b"%pdf": ("a document (PDF)", "look inside: it may say where the weights are"),
    **dict.fromkeys(DARKNET, ("a file of Darknet's weights (YOLO)", "take a net that minifcn knows by name")),
    b"\x1f\x8b": ("compressed by gzip", "unpack it with gunzip, or with tar -xzf if it is a .tar.gz"),
    b"bzh": ("compressed by bzip2", "unpack it with bunzip2"),
    b"\xfd7zxz\x00": ("compressed by xz", "unpack it with unxz"),
    b"\x28\xb5\x2f\xfd": ("compressed by Zstandard", "unpack it with unzstd"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", UNPACK),
    b"rar!": ("a RAR archive", UNPACK),
    b"\x93numpy": ("a single NumPy array (.npy)", "save all arrays of a net: numpy.savez('weights.npz', **arrays)"),
    b"gguf": ("a GGUF file, a language model", "take the weights of an image network"),
    b"{": ("JSON, a net's description or a server's message", "look inside, and take the file of weights beside it"),
}  # fmt: skip
ONNX_TAGS = (b"\x12", b"\x1a", b"\x22", b"\x28", b"\x32", b"\x3a", b"\x42")  # of its fields 2 to 8
PT2 = ("archive_format", "serialized_exported_program.json")
MOST_NAMES = 5_000
"""How many entries a zip may have for its names to be looked at: Python takes 8 us and 500 bytes for each."""

KERAS, TORCHSCRIPT = ("metadata.json", "config.json", "model.weights.h5"), "constants.pkl"


def refuse_other(path: Path, head: bytes) -> None:
    """Raise `FormatError` for a file whose first bytes are those of another kind of file, by its name."""
    small = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginning, (what, cure) in BEGINNINGS.items():
        if small.startswith(beginning):
            raise not_weights(path, what, cure)
    if head[257:262] == b"ustar":
        raise not_weights(path, "a tar archive", "unpack it with tar -xf and name the file inside")
    if head[4:8] == b"TFL3":
        raise not_weights(path, "a TensorFlow Lite model", "take the weights as .h5, .npz or .safetensors")
    # An ONNX model begins with its version (field 1, a small number), then any of the others, of which none has to be
    if head[:1] == b"\x08" and 1 <= head[1] < 0x20 and head[2:3] in ONNX_TAGS:
        cure = "take the state dict from which it was exported, or read its initializers: onnx.numpy_helper.to_array"
        raise not_weights(path, "an ONNX model", cure)


def not_weights(path: Path, what: str, cure: str) -> FormatError:
    """Return the error of one line: the file's name, what it is, and what to do."""
    return FormatError(f"{path}: is {what}; expected a file of weights; {cure}")


def names_in(path: Path, data: memoryview) -> list[str]:
    """Return the names of the files in a zip that any program wrote.

    They are [] where they cannot be read or are very many: what its reader found wrong is then said of the file.
    """
    if len(list(itertools.islice(re.finditer(b"PK\1\2", data), MOST_NAMES + 1))) > MOST_NAMES:
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):  # zipfile's own for a later version
        return []


def refuse_archive(path: Path, names: list[str]) -> None:
    """Raise `FormatError` for a zip that is not PyTorch's, by the names in it."""
    if set(KERAS) & set(names):
        cure = "write its weights with Keras: model.save_weights('net.weights.h5')"
        raise not_weights(path, "a .keras archive", cure)
    if any(name.endswith(f"/{TORCHSCRIPT}") or "/code/" in name for name in names):
        cure = "load it with torch.jit.load and save net.state_dict()"
        raise not_weights(path, "a TorchScript program", cure)
    last = [name.rpartition("/")[2] for name in names]
    if set(PT2) & set(last):
        cure = "load it with torch.export.load and save program.state_dict"
        raise not_weights(path, "a program of torch.export (.pt2)", cure)
    inside = [name for name in names if name.lower().endswith(ENDINGS) and not name.startswith("__MACOSX/")]
    if inside and "data.pkl" not in last:
        cure = "unpack it with unzip and name the file inside"
        raise not_weights(path, f"a zip archive around {inside[0]:.80}", cure)


def refuse_folder(path: Path) -> None:
    """Raise `FormatError` for a folder, with a file of weights that lies in it, if one does."""
    if path.is_dir():
        files = sorted(each.name for each in path.iterdir() if each.suffix in ENDINGS)
        if (path / "data.pkl").is_file():
            cure = "it is an unpacked PyTorch file: zip it again without compression (zip -0 -r weights.pth FOLDER)"
        elif (path / "saved_model.pb").is_file():
            cure = "it is a TensorFlow SavedModel: write its weights with Keras, model.save_weights('net.weights.h5')"
        else:
            cure = f"name a file in it, {path / files[0]} for instance" if files else "name a file"
        raise FormatError(f"{path}: found something that is no file but a folder; expected a file of weights; {cure}")
