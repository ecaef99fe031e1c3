"""Read Keras's `.h5` and other HDF5 files of arrays.

Most of HDF5 is not needed for weights, and some of it reads other files: a link may lead to another path of this
machine, a dataset may keep its values in another file or be put together from several. So this takes the subset in
which an array is numbers inside this file, and refuses the rest by name, before any number is read:

* links: hard ones alone, and no folder twice (one that contains itself has no end);
* datasets: bools, integers and floats; no objects, texts, references or compounds;
* their values: in this file, and all of them present, since a short header can declare 10^12 elements; whole or
  in chunks, which may be shuffled, deflated and checksummed, since other filters are programs that get loaded.

Attributes are skipped. Keras stores the net there as `model_config`, sometimes with code, which is never evaluated.

The bytes are read by the HDF5 library, in C, and what it believes can be checked here only where that is simple: in the
first block of the file, which says how long the file has to be and where the library goes next.
"""

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.errors import MinifcnError, UsageError
from minifcn.formats.limits import (
    DTYPES,
    MAX_TENSORS,
    Collected,
    Cursor,
    bytes_of,
    nbytes_of,
    path_of,
    refusal,
    size_of,
    unfolded_limit,
)

SIGNATURE = b"\x89HDF\r\n\x1a\n"
HEAD = 128  # bytes that hold the first block
MAX_DEPTH = 32
MAX_CHUNKS = 100_000  # in all of a file
SHUFFLE, DEFLATE, CHECKSUM = 2, 1, 3
NOWHERE = 2**64 - 1  # the address of what is not there


def read_h5(path: Path, *, allow_nonfinite: bool = False) -> dict[str, np.ndarray]:
    """Return `{"conv1/conv1/kernel:0": array}`: fresh arrays under their paths in the file, in alphabetical order.

    Raises FormatError for whatever is wrong with the file, links and objects included, and for NaN and infinity without
    `allow_nonfinite`; UsageError where h5py is not installed.
    """
    path = path_of(path)
    found = Collected(path, room=unfolded_limit(size_of(path)), allow_nonfinite=allow_nonfinite)
    with opened(path) as file:
        for name, dataset in datasets(path, file, room=found.room):
            found.add(name, values(dataset))
    if not found.arrays:
        raise refusal(path, "datasets", "none", "the weights of a net")
    return found.arrays


@contextmanager
def opened(path: Path, *, at: int = 0) -> Iterator[Any]:
    """Yield the file as h5py shows it, once its first block, at byte `at`, is checked; errors become FormatErrors."""
    try:
        import h5py
    except ImportError as error:
        raise UsageError(f"{path}: found no h5py, expected it for HDF5; pip install 'minifcn[interop]'") from error
    _check_superblock(path, bytes_of(path, most=at + HEAD)[at:], at, size_of(path))
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            yield file
    except MinifcnError:
        raise
    except Exception as error:  # h5py promises no set of exceptions for broken files
        raise refusal(path, "content", str(error) or type(error).__name__, "HDF5 that the library can read") from error


def _check_superblock(path: Path, data: memoryview, at: int, size: int) -> None:
    """The first block: the file is as long as it says, and the library is led neither elsewhere nor to rare parts."""
    block = Cursor(path, data, "first block", start=at)
    if bytes(block.take(8, "signature")) != SIGNATURE:
        raise refusal(path, "signature", bytes(data[:8]).hex(" "), SIGNATURE.hex(" "))
    version = block.integer(1, "version")
    if version > 3:
        raise refusal(path, "version of the first block", version, "0 to 3")
    if version < 2:  # addresses: base, free space, end, driver
        block.take(4, "versions")
        sizes = bytes(block.take(2, "sizes"))
        block.take(9 if version == 0 else 13, "options")
    else:  # addresses: base, extension, end, root
        sizes = bytes(block.take(2, "sizes"))
        block.take(1, "flags")
    if sizes != b"\x08\x08":
        raise refusal(path, "sizes of addresses", list(sizes), "8 bytes")
    base, second, end, fourth = (block.integer(8, "addresses") for _ in range(4))
    if base != at or end > size:
        found = f"{base} to {end}"
        raise refusal(path, "first and last byte", found, f"{at} to {size} at most: truncated, or false")
    # A driver is another file that holds the values; an extension may hold a picture of the library's own memory.
    if (fourth if version < 2 else second) != NOWHERE:
        raise refusal(path, "driver or extension", "one", "a file of one part, as h5py writes it by default")


def datasets(path: Path, file: Any, *, room: int) -> list[tuple[str, Any]]:
    """Return name and dataset of every array in the file, each checked, none read.

    room: bytes that all of them together may have. Raises FormatError.
    """
    import h5py

    found: list[tuple[str, Any]] = []
    seen, chunks = set(), 0
    waiting = [("", file, 0)]
    while waiting:
        place, group, depth = waiting.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen or depth > MAX_DEPTH:
            raise refusal(path, place, "a folder in itself, or one too deep", f"at most {MAX_DEPTH} inside each other")
        seen.add(address)
        folders = []
        for key in group:
            name = f"{place}/{key}".removeprefix("/")
            link = group.get(key, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise refusal(path, name, f"a {type(link).__name__}", "an array or a folder of this file, no link")
            member = group[key]
            if isinstance(member, h5py.Group):
                folders.append((name, member, depth + 1))
            elif isinstance(member, h5py.Dataset):
                nbytes, pieces = _check_dataset(path, name, member, room)
                room, chunks = room - nbytes, chunks + pieces
                found.append((name, member))
            else:
                raise refusal(path, name, f"a {type(member).__name__}", "an array or a folder")
            if len(found) + len(waiting) + len(folders) + len(seen) > MAX_TENSORS or chunks > MAX_CHUNKS:
                raise refusal(path, name, f"more than {MAX_TENSORS} members or {MAX_CHUNKS} chunks", "one net")
        waiting.extend(reversed(folders))
    return found


def _check_dataset(path: Path, name: str, dataset: Any, room: int) -> tuple[int, int]:
    """Return the bytes of an array and its number of chunks, after checking that all its numbers are in this file."""
    import h5py

    if dataset.dtype.newbyteorder("=") not in DTYPES:
        raise refusal(path, name, f"dtype {dataset.dtype}", "bool, an integer or float16, 32 or 64")
    if dataset.shape is None:
        raise refusal(path, name, "no shape", "an array")
    nbytes = nbytes_of(path, name, dataset.shape, dataset.dtype)
    if nbytes > room:
        raise refusal(path, name, f"{nbytes} bytes", f"at most {room}, by the size of the file")
    stored = dataset.id.get_create_plist()
    layouts = (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED)
    if stored.get_external_count() or stored.get_layout() not in layouts:
        raise refusal(path, name, "values in other files or datasets", "values in this file")
    if stored.get_layout() == h5py.h5d.CHUNKED:
        return nbytes, _check_chunks(path, name, dataset, stored, room)
    if dataset.id.get_storage_size() != nbytes:
        raise refusal(path, name, f"{dataset.id.get_storage_size()} bytes of values", f"the {nbytes} of its shape")
    return nbytes, 0


def _check_chunks(path: Path, name: str, dataset: Any, stored: Any, room: int) -> int:
    """Return the number of chunks: all are there, and each unfolds to its size, which the library does not check."""
    filters = [stored.get_filter(index)[0] for index in range(stored.get_nfilters())]
    if filters != [one for one in (SHUFFLE, DEFLATE, CHECKSUM) if one in filters]:
        raise refusal(path, name, f"filters {filters}", "shuffle (2), deflate (1), checksum (3), in this order")
    size = nbytes_of(path, f"{name}: chunks", dataset.chunks, dataset.dtype)
    expected = math.prod(-(-side // step) for side, step in zip(dataset.shape, dataset.chunks))
    count = dataset.id.get_num_chunks()
    if count != expected or count > MAX_CHUNKS or size > room:
        raise refusal(
            path, name, f"{count} chunks of {size} bytes", f"{expected} (at most {MAX_CHUNKS}) of {room} at most"
        )
    for index in range(count if DEFLATE in filters else 0):
        chunk = dataset.id.get_chunk_info(index)
        if chunk.size > room:
            raise refusal(path, name, f"a chunk of {chunk.size} bytes", f"at most {room}")
        masked, raw = dataset.id.read_direct_chunk(chunk.chunk_offset)
        if masked:
            raise refusal(path, name, f"a chunk without filters ({masked})", "every chunk with all of them")
        inflate = zlib.decompressobj()
        if len(inflate.decompress(raw, size + 1)) != size or not inflate.eof:
            raise refusal(path, name, "a chunk that unfolds to more or less", f"{size} bytes")
    return count


def values(dataset: Any) -> np.ndarray:
    """Return the array of a dataset that has passed `datasets`, in the byte order of this machine."""
    array = np.asarray(dataset[()])
    return array.astype(array.dtype.newbyteorder("="), copy=False)
