"""Write and read checkpoints that survive a crash at any moment.

A training run is hours of work held in one file that is rewritten again and again. Three things go wrong with it:

1. *The process dies while it writes*: killed, out of disk space, power cut. Writing over the old file then loses both
   the old and the new one. The cure costs four lines: write a temporary file beside it, fsync it (so that the bytes are
   on the disk and not only in memory), rename it over the old one (which the file system does entirely or not at all),
   fsync the folder (so that the new name is on the disk, too). See `replace_file`.
2. *The bytes change afterwards*: half a copy, a bad sector, one flipped bit, which in a weight makes a slightly worse
   network and no error. The cure is a digest over every byte of the file. See `_digest`.
3. *Two processes write into one folder*. The cure is a lock which the system takes back when its owner dies. See
   `RunFolder` in training/run_folder.py.

The file itself is a plain safetensors file (a length, a JSON header, the arrays), so other tools can read its weights.
Its metadata holds one entry, `minifcn`, a JSON record: `file_sha256`, `format_version`, one sha256 per tensor (to name
the damaged one) and `meta`, whatever the caller needs to go on exactly where it stopped.
"""

import contextlib
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.errors import FormatError, MinifcnError, ShapeError, UsageError
from minifcn.formats.limits import check_values, path_of, short
from minifcn.formats.safetensors import DTYPES, MAX_HEADER, header_end, packed, views
from minifcn.formats.strict_json import parse_json

FORMAT_VERSION = 1
EARLIER = "use an earlier checkpoint"

# The digest covers every byte of the file but its own 64, which follow this key in the header. The header is JSON and
# the record a string inside it, so its quotes are escaped; it is the record's first entry, so the first match is it.
_DIGEST_KEY = rb"\"file_sha256\":\""
_DIGEST_SIZE = 64

Pieces = Sequence[bytes | memoryview]


class NewerFormatError(FormatError):
    """Intact, but from a later minifcn: no reason to fall back to an older checkpoint and, later, delete this one."""


# --------------------------------------------------------------------------------------------------- writing one file


def save_checkpoint(path: str | Path, tensors: Mapping[str, np.ndarray], meta: dict[str, Any]) -> None:
    """Write `tensors` and `meta` to `path`, entirely or not at all; the same content always gives the same bytes.

    tensors: NumPy arrays of bool, int8-64, uint8-64 or float16-64, of any strides and byte order (stored in C order,
    little endian). meta: JSON values under string keys (tuples come back as lists). Raises ShapeError for an array that
    cannot be stored, and UsageError when the file cannot be written: what stood at `path` is then intact.
    """
    path = path_of(path)
    replace_file(path, pieces_of(path, tensors, meta))


def pieces_of(path: Path, tensors: Mapping[str, np.ndarray], meta: dict[str, Any]) -> Pieces:
    """Return the bytes of a checkpoint, in pieces to be written one after the other."""
    plain = {name: _plain(name, array) for name, array in tensors.items()}
    record = {
        "file_sha256": "0" * _DIGEST_SIZE,
        "format_version": FORMAT_VERSION,
        "tensors": {name: _sha256(array.data) for name, array in plain.items()},
        "meta": meta,
    }
    try:
        text = json.dumps(record, separators=(",", ":"))
        parse_json(text)  # the keys 1 and "1" are two in Python and one in JSON
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: meta: found {short(error)}, expected JSON values under string keys") from error
    data = memoryview(packed(plain, {"minifcn": text}))
    header = bytes(data[: 8 + int.from_bytes(data[:8], "little")])
    if len(header) > MAX_HEADER:
        raise UsageError(f"{path}: meta: found {len(header)} bytes, expected at most {MAX_HEADER}")
    at = _digest_at(path, header)
    return [data[:at], _digest(data, at).encode(), data[at + _DIGEST_SIZE :]]


def _plain(name: str, array: np.ndarray) -> np.ndarray:
    """Return the same values in C order, little endian, in which files have them."""
    if not isinstance(array, np.ndarray):
        raise ShapeError(f"tensor {name}: found {type(array).__name__}, expected a NumPy array (to_host makes one)")
    little = array.dtype.newbyteorder("<")
    if little not in DTYPES.values():
        raise ShapeError(f"tensor {name}: found dtype {array.dtype}, expected bool, an integer or float16, 32 or 64")
    if name == "__metadata__":
        raise ShapeError("tensor __metadata__: found a name that belongs to the file format, expected another one")
    return np.asarray(array, dtype=little, order="C")


def replace_file(path: Path, pieces: Pieces | Iterator[bytes], *, copy: Path | None = None, sync: bool = True) -> None:
    """Write `pieces` to `path` so that a reader finds, at any moment, the whole old file or the whole new one.

    The temporary file has a name that cannot be guessed and is made new ("x"), so no file of another's is written over
    and no link followed. A link at `path` is replaced, and what it leads to is not touched.

    copy: another path, in the same folder, for the same pieces, which are then no iterator. Both are on the disk before
    either gets its name, the copy first: if the new file is at `path`, the new copy is there, too. Without `sync` a
    power cut may leave an empty file: enough for a picture, which can be drawn again.
    """
    paths = [path] if copy is None else [copy, path]
    temporary = {each: each.with_name(f"{each.name}.{secrets.token_hex(8)}.tmp") for each in paths}
    with explained(path, "cannot be saved; what was saved before is intact"):
        for each in paths:
            if each.exists() and not each.is_file():  # a rename would put a file in the place of a device
                raise UsageError(f"{each}: found something that is no file, expected a file or a new name")
        try:
            for each in paths:
                with open(temporary[each], "xb") as file:
                    for piece in pieces:
                        file.write(piece)
                    file.flush()
                    if sync:
                        os.fsync(file.fileno())
            for each in paths:
                os.replace(temporary[each], each)
                if sync:
                    _sync_folder(each.parent)
        except BaseException:  # Ctrl-C as much as a full disk
            for each in temporary.values():
                with contextlib.suppress(OSError):
                    each.unlink()
            raise


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened, and the rename is all there is
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def explained(path: Path, what: str) -> Iterator[None]:
    """Turn the system's errors into one sentence with the file's name and what to do."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{path}: {what}: {error.strerror or error}; free some space or choose a folder that can be written"
        ) from error


# --------------------------------------------------------------------------------------------------- reading one file


def load_checkpoint(path: str | Path, *, allow_nonfinite: bool = False) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `save_checkpoint` wrote: `(tensors, meta)`, with the dtypes, shapes and bits that were saved.

    The file is hostile until its digest says otherwise: FormatError names the file, the field or tensor, what was found
    and what was expected. UsageError when there is no such file or it cannot be read, which says nothing about its
    bytes. NaN and infinity need `allow_nonfinite`.
    """
    path = path_of(path)
    data = _read(path)
    header = data[: header_end(path, data, len(data), then=EARLIER)]
    at = _digest_at(path, header)
    record = _parse_record(path, header)
    found, expected = _digest(data, at), header[at : at + _DIGEST_SIZE].decode("ascii", "replace")
    if found != expected:
        version = record["format_version"]
        newer = f" (format version: found {version}, expected {FORMAT_VERSION})" if version != FORMAT_VERSION else ""
        digests = f"found sha256 {found[:12]} over the file, expected {short(expected[:12])}{newer}"
        raise FormatError(f"{path}: {_damaged_part(path, data, record)} is damaged: {digests}; {EARLIER}")
    _check_record(path, record)
    arrays = {name: array.copy() for name, _, array in views(path, data, then=EARLIER)}  # to train on
    if arrays.keys() != record["tensors"].keys():
        raise FormatError(f"{path}: tensors: found other names than the record lists, expected the same")
    for name, array in arrays.items():
        check_values(path, name, array, allow_nonfinite=allow_nonfinite, then=EARLIER)
    return {name: arrays[name] for name in record["tensors"]}, record["meta"]


def read_meta(path: str | Path) -> dict[str, Any]:
    """Return the `meta` of a checkpoint from its header alone, which is cheap: no digest is checked."""
    path = path_of(path)
    record = _parse_record(path, _read(path, header=True))
    _check_record(path, record)
    return record["meta"]


def meta_of(path: str | Path) -> dict[str, Any]:
    """Return `read_meta`, empty for a file that is no checkpoint."""
    try:
        return read_meta(path)
    except MinifcnError:
        return {}


def _read(path: Path, *, header: bool = False) -> bytes:
    """Return the bytes of the file, or of its header alone. Read and not mapped: a bad sector is then an error."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe or a device would never end
            raise UsageError(f"{path}: found something that is no file, expected a checkpoint")
        with open(path, "rb") as file:
            end = header_end(path, file.read(8), os.fstat(file.fileno()).st_size, then=EARLIER)
            file.seek(0)  # the length is believable, or refused before anything large is read
            return file.read(end if header else -1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{path}: found no file, expected a checkpoint") from error
    except OSError as error:
        reason = error.strerror or error  # whose cure may bring the file back, so nothing is read in its place
        raise UsageError(f"{path}: cannot be read: {reason}; nothing was changed, see to it and try again") from error


def _digest_at(path: Path, header: bytes) -> int:
    at = header.find(_DIGEST_KEY) + len(_DIGEST_KEY)
    if at < len(_DIGEST_KEY) or at + _DIGEST_SIZE > len(header):
        raise FormatError(f"{path}: file_sha256: found none in the header, expected a checkpoint written by minifcn")
    return at


def _digest(data: bytes | memoryview, at: int) -> str:
    """Return the sha256 over every byte but the digest's own, which start at `at`.

    The rule is the same in every format version, so that a damaged file differs from one of a later minifcn.
    """
    view = memoryview(data)
    return _sha256(view[:at], view[at + _DIGEST_SIZE :])


def _sha256(*pieces: bytes | memoryview) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _parse_record(path: Path, header: bytes) -> dict[str, Any]:
    """Return the JSON record in the header's metadata. Only its `format_version` is checked: an integer."""
    try:
        record = parse_json(parse_json(header[8:].decode("utf-8"))["__metadata__"]["minifcn"])
        if type(record["format_version"]) is not int:
            raise ValueError(f"format_version {record['format_version']!r}")
    except (ValueError, LookupError, TypeError) as error:
        raise FormatError(f"{path}: header: found {short(error)}, expected minifcn's record; {EARLIER}") from error
    return record


def _check_record(path: Path, record: dict[str, Any]) -> None:
    version = record["format_version"]
    if version > FORMAT_VERSION:
        how = "a newer minifcn wrote it; update this one"
        raise NewerFormatError(f"{path}: format version: found {version}, expected {FORMAT_VERSION}: {how}")
    if version < FORMAT_VERSION:  # there has been no older one yet; the first migration goes here
        raise FormatError(f"{path}: format version: found {version}, expected {FORMAT_VERSION}")
    for field in ("tensors", "meta"):
        if not isinstance(record.get(field), dict):
            raise FormatError(f"{path}: {field}: found {type(record.get(field)).__name__}, expected a JSON object")


def _damaged_part(path: Path, data: bytes, record: dict[str, Any]) -> str:
    """Return the tensors that differ from their own digests; if none does, the damage is in the header."""
    try:
        expected = record["tensors"]
        damaged = [name for name, _, array in views(path, data) if _sha256(array.data) != expected.get(name)]
    except (FormatError, LookupError, AttributeError):
        return "the header"
    more = f" and {len(damaged) - 5} more" if len(damaged) > 5 else ""
    names = f"{', '.join(map(short, damaged[:5]))}{more}"
    return f"{len(damaged)} tensor{'s' * (len(damaged) > 1)} ({names})" if damaged else "the header"
