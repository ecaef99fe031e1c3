"""Recognise files that are often taken for weights and are none, each with what to do about it."""

from __future__ import annotations

from pathlib import Path

from minifcn.errors import FormatError

UNPACK = "unpack it and name the file inside"
ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".npz", ".caffemodel", ".h5", ".mat")
# first bytes, small letters where they are text -> (what it is, what to do)
BEGINNINGS: dict[bytes, tuple[str, str]] = {
    b"version https://git-lfs": ("a Git LFS pointer, not the file it stands for", "run git lfs pull in its repository"),
    b"<!doctype html": ("a web page (HTML)", "open the address in a browser and download the file itself"),
    b"<html": ("a web page (HTML)", "open the address in a browser and download the file itself"),
    b"<?xml": ("an XML page, as a server answers with an error", "look inside, and download the file again"),
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
    # An ONNX model begins with its version (field 1, a small number), then the name of its producer or its graph
    if head[:1] == b"\x08" and 1 <= head[1] < 0x20 and head[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x3a", b"\x42"):
        cure = "take the state dict from which it was exported, or read its initializers: onnx.numpy_helper.to_array"
        raise not_weights(path, "an ONNX model", cure)


def not_weights(path: Path, what: str, cure: str) -> FormatError:
    """Return the error of one line: the file's name, what it is, and what to do."""
    return FormatError(f"{path}: is {what}; expected a file of weights; {cure}")


def refuse_archive(path: Path, names: list[str]) -> None:
    """Raise `FormatError` for a zip that is not PyTorch's, by the names in it."""
    if set(KERAS) & set(names):
        cure = "write its weights with Keras: model.save_weights('net.weights.h5')"
        raise not_weights(path, "a .keras archive", cure)
    if any(name.endswith(f"/{TORCHSCRIPT}") or "/code/" in name for name in names):
        cure = "load it with torch.jit.load and save net.state_dict()"
        raise not_weights(path, "a TorchScript program", cure)


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
