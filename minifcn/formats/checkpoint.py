"""Write and read checkpoints that survive a crash at any moment.

A training run is hours of work held in one file that is rewritten again and again. Three things go wrong with it:

1. *The process dies while it writes*: killed, out of disk space, power cut. Writing over the old file then loses both
   the old and the new one. The cure costs four lines: write a temporary file beside it, fsync it (so that the bytes are
   on the disk and not only in memory), rename it over the old one (which the file system does entirely or not at all),
   fsync the folder (so that the new name is on the disk, too). See `replace_file`.
2. *The bytes change afterwards*: half a copy, a bad sector, one flipped bit, which in a weight is a slightly worse
   network that nobody notices. The cure is a digest over every byte of the file. See `_digest`.
3. *Two processes write into one folder*. The cure is a lock which the system takes back when its owner dies. See
   `RunFolder`.

The file itself is a plain safetensors file (a length, a JSON header, the arrays), so other tools can read its weights.
Its metadata holds one entry, `minifcn`, a JSON record: `file_sha256`, `format_version`, one sha256 per tensor (to name
the damaged one) and `meta`, whatever the caller needs to go on exactly where it stopped.
"""

import contextlib
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from minifcn.errors import FormatError, ShapeError, UsageError
from minifcn.formats.limits import short
from minifcn.formats.safetensors import DTYPES, MAX_HEADER, header_end, packed, strict_json, views

FORMAT_VERSION = 1
EARLIER = "use an earlier checkpoint"

# The digest covers every byte of the file but its own 64, which follow this key in the header. The header is JSON and
# the record a string inside it, hence the escaped quotes; it is the record's first entry, so the first match is it.
_DIGEST_KEY = rb"\"file_sha256\":\""
_DIGEST_SIZE = 64

Pieces = Iterable[bytes | memoryview]


class _NewerFormat(FormatError):
    """Intact, but from a later minifcn: no reason to fall back to an older checkpoint and, later, delete this one."""


# --------------------------------------------------------------------------------------------------- writing one file


def save_checkpoint(path: str | Path, tensors: Mapping[str, np.ndarray], meta: dict[str, Any]) -> None:
    """Write `tensors` and `meta` to `path`, entirely or not at all; the same content always gives the same bytes.

    tensors: NumPy arrays of bool, int8-64, uint8-64 or float16-64, of any strides and byte order (stored in C order,
    little endian). meta: JSON values under string keys (tuples come back as lists). Raises ShapeError for an array that
    cannot be stored, and UsageError when the file cannot be written: what stood at `path` is then intact.
    """
    path = Path(path)
    replace_file(path, _pack(path, tensors, meta))


def _pack(path: Path, tensors: Mapping[str, np.ndarray], meta: dict[str, Any]) -> Pieces:
    """The bytes of a checkpoint, in pieces to be written one after the other."""
    plain = {name: _plain(name, array) for name, array in tensors.items()}
    record = {
        "file_sha256": "0" * _DIGEST_SIZE,
        "format_version": FORMAT_VERSION,
        "tensors": {name: _sha256(array.data) for name, array in plain.items()},
        "meta": meta,
    }
    try:
        text = json.dumps(record, separators=(",", ":"))
        strict_json(text)  # the keys 1 and "1" are two in Python and one in JSON
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: meta: found {short(error)}, expected JSON values under string keys") from error
    data = memoryview(packed(plain, {"minifcn": text}))
    header = bytes(data[: 8 + int.from_bytes(data[:8], "little")])
    if len(header) > MAX_HEADER:
        raise UsageError(f"{path}: meta: found {len(header)} bytes, expected at most {MAX_HEADER}")
    at = _digest_at(path, header)
    return [data[:at], _digest(data, at).encode(), data[at + _DIGEST_SIZE :]]


def _plain(name: str, array: np.ndarray) -> np.ndarray:
    """The same values in C order, little endian, in which files have them."""
    if not isinstance(array, np.ndarray):
        raise ShapeError(f"tensor {name}: found {type(array).__name__}, expected a NumPy array (to_host makes one)")
    little = array.dtype.newbyteorder("<")
    if little not in DTYPES.values():
        raise ShapeError(f"tensor {name}: found dtype {array.dtype}, expected bool, an integer or float16, 32 or 64")
    if name == "__metadata__":
        raise ShapeError("tensor __metadata__: found a name that belongs to the file format, expected another one")
    return np.asarray(array, dtype=little, order="C")


def replace_file(path: Path, pieces: Pieces) -> None:
    """Put `pieces` at `path` so that whoever looks, whenever, finds the whole old file or the whole new one."""
    temporary = path.with_name(path.name + ".tmp")
    with _explained(path, "cannot be saved; what was saved before is intact"):
        try:
            with open(temporary, "wb") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:  # Ctrl-C as much as a full disk
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened, and the rename is all there is
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explained(path: Path, what: str) -> Iterator[None]:
    """The system's errors, in one sentence with the file's name and what to do."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"{path}: {what}: {error.strerror or error}; free some space or choose a folder that can be written"
        ) from error


# --------------------------------------------------------------------------------------------------- reading one file


def load_checkpoint(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `save_checkpoint` wrote: `(tensors, meta)`, with the dtypes, shapes and bits that were saved.

    The file is hostile until its digest says otherwise: FormatError names the file, the field or tensor, what was found
    and what was expected. UsageError when there is no such file. Whether the values are finite is not looked at.
    """
    path = Path(path)
    with _opened(path) as file:
        _read_header(path, file)  # refused here before anything large is read
        file.seek(0)
        data = file.read()
    header = data[: header_end(path, data, len(data), then=EARLIER)]
    at = _digest_at(path, header)
    record = _parse_record(path, header)
    found, expected = _digest(data, at), header[at : at + _DIGEST_SIZE].decode("ascii", "replace")
    if found != expected:
        damaged = _damaged_part(path, data, record)
        raise FormatError(
            f"{path}: {damaged} is damaged: found sha256 {found[:12]} over the file, expected "
            f"{short(expected[:12])}{_version_note(record)}; {EARLIER}"
        )
    _check_record(path, record)
    arrays = {name: array.copy() for name, _, array in views(path, data, then=EARLIER)}  # to train on
    if arrays.keys() != record["tensors"].keys():
        raise FormatError(f"{path}: tensors: found other names than the record lists, expected the same")
    return {name: arrays[name] for name in record["tensors"]}, record["meta"]


def read_meta(path: str | Path) -> dict[str, Any]:
    """The `meta` of a checkpoint from its header alone: cheap, for listings; only `load_checkpoint` checks digests."""
    path = Path(path)
    with _opened(path) as file:
        record = _parse_record(path, _read_header(path, file))
    _check_record(path, record)
    return record["meta"]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        if not path.is_file():  # a pipe or a device would never end
            found = "something that is no file" if path.exists() else "no file"
            raise UsageError(f"{path}: found {found}, expected a checkpoint")
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise FormatError(f"{path}: found {error.strerror or error}, expected a file that can be read") from error


def _read_header(path: Path, file: BinaryIO) -> bytes:
    length = file.read(8)
    end = header_end(path, length, os.fstat(file.fileno()).st_size, then=EARLIER)
    return length + file.read(end - 8)


def _digest_at(path: Path, header: bytes) -> int:
    at = header.find(_DIGEST_KEY) + len(_DIGEST_KEY)
    if at < len(_DIGEST_KEY) or at + _DIGEST_SIZE > len(header):
        raise FormatError(f"{path}: file_sha256: found none in the header, expected a checkpoint written by minifcn")
    return at


def _digest(data: bytes | memoryview, at: int) -> str:
    """sha256 over every byte but the digest's own, which start at `at`.

    The rule is the same in every format version: so a damaged file and one from a later minifcn can be told apart.
    """
    view = memoryview(data)
    return _sha256(view[:at], view[at + _DIGEST_SIZE :])


def _sha256(*pieces: bytes | memoryview) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _parse_record(path: Path, header: bytes) -> dict[str, Any]:
    """The JSON record in the header's metadata, with an integer as its `format_version`; the rest is unchecked."""
    try:
        record = strict_json(strict_json(header[8:].decode("utf-8"))["__metadata__"]["minifcn"])
        if type(record["format_version"]) is not int:
            raise ValueError(f"format_version {record['format_version']!r}")
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise FormatError(
            f"{path}: header: found {short(error)}, expected the record minifcn writes; {EARLIER}"
        ) from error
    return record


def _check_record(path: Path, record: dict[str, Any]) -> None:
    version = record["format_version"]
    if version > FORMAT_VERSION:
        raise _NewerFormat(
            f"{path}: format version: found {version}, expected {FORMAT_VERSION}: "
            "a newer minifcn wrote it; update this one"
        )
    if version < FORMAT_VERSION:  # there has been no older one yet; the first migration goes here
        raise FormatError(f"{path}: format version: found {version}, expected {FORMAT_VERSION}")
    for field in ("tensors", "meta"):
        if not isinstance(record.get(field), dict):
            raise FormatError(f"{path}: {field}: found {type(record.get(field)).__name__}, expected a JSON object")


def _version_note(record: dict[str, Any]) -> str:
    version = record["format_version"]
    return "" if version == FORMAT_VERSION else f" (format version: found {version}, expected {FORMAT_VERSION})"


def _damaged_part(path: Path, data: bytes, record: dict[str, Any]) -> str:
    """The tensors that differ from their own digests; if none does, the damage is in the header."""
    try:
        expected = record["tensors"]
        damaged = [name for name, _, array in views(path, data) if _sha256(array.data) != expected.get(name)]
    except (FormatError, LookupError, AttributeError):
        return "the header"
    return _listed("tensor", damaged) or "the header"


def _listed(kind: str, names: list[str], *, most: int = 5) -> str:
    """`2 missing keys (a, b)`, and `5 missing keys (a, b and 3 more)` beyond `most`; empty for none."""
    if not names:
        return ""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} {kind}{'s' if len(names) > 1 else ''} ({', '.join(map(short, names[:most]))}{more})"


# -------------------------------------------------------------------------------------------------- the folder of a run


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read: from which file, and why from no better one (`skipped`, a sentence for each)."""

    path: Path
    tensors: dict[str, np.ndarray]
    meta: dict[str, Any]
    skipped: tuple[str, ...] = ()


def _say(sentence: str) -> None:
    print(f"warning: {sentence}", file=sys.stderr)


def load_latest(run: str | Path, *, warn: Callable[[str], None] = _say) -> Checkpoint | None:
    """The newest good checkpoint in the run folder `run`; None if there is none at all.

    A damaged one is skipped, `warn` is told, and the one before it is tried, at last the best. FormatError when all are
    damaged, or the newest is from a newer minifcn. Takes no lock: a run may be looked at while it trains.
    """
    return _first_good([*_newest_first(run), best_path(run)], warn)


def load_best(run: str | Path, *, warn: Callable[[str], None] = _say) -> Checkpoint | None:
    """The best checkpoint in the run folder `run`; the latest where none was marked best or it is damaged."""
    return _first_good([best_path(run), *_newest_first(run)], warn)


def best_path(run: str | Path) -> Path:
    """Where the best checkpoint of a run lies."""
    return Path(run) / "checkpoints" / "best.safetensors"


def step_path(run: str | Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return Path(run) / "checkpoints" / f"step-{step:08d}.safetensors"


def _steps(run: str | Path) -> list[int]:
    names = (path.name for path in (Path(run) / "checkpoints").glob("step-*"))
    return sorted(int(match[1]) for match in map(re.compile(r"step-(\d{8,})\.safetensors").fullmatch, names) if match)


def _newest_first(run: str | Path) -> list[Path]:
    return [step_path(run, step) for step in reversed(_steps(run))]


def _first_good(paths: list[Path], warn: Callable[[str], None]) -> Checkpoint | None:
    skipped: list[str] = []
    for path in filter(os.path.exists, paths):
        try:
            tensors, meta = load_checkpoint(path)
        except _NewerFormat:
            raise
        except FormatError as error:
            skipped.append(str(error))
            continue
        if skipped:
            warn(f"{skipped[0]}: going on from {path.name} instead")
        return Checkpoint(path, tensors, meta, tuple(skipped))
    if skipped:
        raise FormatError(f"{skipped[0]}; but none of the {len(skipped)} here is good: start a new run")
    return None


class RunFolder:
    """The folder of one run: made, found writable and locked before the first step; keeps the last two and the best.

        with RunFolder("runs/first") as run:
            run.save(step, tensors, meta, best=score > best_score)

    The lock is `flock` on the file `lock`: the system takes it back when the process ends, however it ends, so no lock
    is ever left over (the mere existence of a file would be, and somebody would have to guess whether its pid still
    lives). The pid and time in the file are there for the message; if they are there and the lock is not, the last run
    was killed, and `warn` is told. The file stays: if it were deleted, two processes could hold "the" lock, one on the
    deleted file and one on the new.

    create: make the folder if need be; without it (to resume) the folder has to exist.
    Raises UsageError when the folder is missing, cannot be written or is in use.
    """

    def __init__(self, path: str | Path, *, create: bool = True, warn: Callable[[str], None] = _say):
        self.path = Path(path)
        self._checkpoints = self.path / "checkpoints"
        self._warn = warn
        self._lock_file: BinaryIO | None = None
        if not create and not self.path.is_dir():
            raise UsageError(f"{self.path}: found no such folder, expected the folder of an earlier run")
        try:
            with _explained(self.path, "the run folder cannot be written"):
                self._checkpoints.mkdir(parents=True, exist_ok=True)
                self._lock()
                self._remove_unfinished()
                probe = self._checkpoints / "probe"
                replace_file(probe, [b"Can this folder be written?"])
                probe.unlink()
        except BaseException:
            self.close()
            raise

    def save(self, step: int, tensors: Mapping[str, np.ndarray], meta: dict[str, Any], *, best: bool = False) -> Path:
        """Write the checkpoint of `step`, and a second copy as the best if it is; then remove all but the last two.

        `step` is the newest by definition: who goes back to step 100 and saves step 200 has left the old steps beyond
        200 behind, and they are removed. Raises as `save_checkpoint`; every earlier checkpoint is then still there.
        """
        path = step_path(self.path, step)
        with _explained(path, "cannot be saved; what was saved before is intact"):
            self._remove_unfinished()
            pieces = _pack(path, tensors, meta)
            replace_file(path, pieces)
            if best:  # a copy and not a link: one bad sector must not take both
                replace_file(best_path(self.path), pieces)
            steps = _steps(self.path)
            last_two = [one for one in steps if one <= step][-2:]
            for old in set(steps) - set(last_two):
                step_path(self.path, old).unlink()
        return path

    def latest(self) -> Checkpoint | None:
        """The newest good checkpoint, None in a new folder: `load_latest`."""
        return load_latest(self.path, warn=self._warn)

    def close(self) -> None:
        """Give the lock back and empty its file, the sign of a run that ended in order."""
        if self._lock_file:
            with contextlib.suppress(OSError):
                self._lock_file.truncate(0)
            self._lock_file.close()
            self._lock_file = None

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _remove_unfinished(self) -> None:
        """What a killed process was writing: we hold the lock, so nobody is writing it now."""
        for unfinished in self._checkpoints.glob("*.tmp"):
            unfinished.unlink()

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # not a POSIX system
            self._warn(f"{self.path}: found no flock on this system; see to it that no other process uses this folder")
            return
        file = open(self.path / "lock", "a+b")  # noqa: SIM115 - stays open as long as the lock is held
        file.seek(0)
        owner = short(file.read(200).decode("ascii", "replace"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise UsageError(
                f"{self.path}: the run folder is in use by {owner or 'another process'}; "
                "wait for it to end or choose another folder"
            ) from error
        self._lock_file = file
        if owner:
            self._warn(f"{self.path}: the last run here ({owner}) did not end in order; its lock is taken over")
        file.truncate(0)
        file.write(f"process {os.getpid()}, started {time.strftime('%Y-%m-%d %H:%M:%S')}".encode())
        file.flush()
