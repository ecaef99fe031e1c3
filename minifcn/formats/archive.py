"""Read zip archives (`.npz` and PyTorch files) from their central directory.

A zip has its table of contents at the end, so that it can be written in one go. The last 22 bytes say where the table
is; each row of it says where an entry is, how long, and what its checksum is; and in front of each entry stands a
header, which says the same once more:

    header  entry   header  entry   ...   table of contents   (the same for large files)   end: where the table is

An attacker can use that: two headers may differ, and programs then read different things; an entry may be listed twice;
two may share bytes; and a name may be `../../etc/passwd`. So here both headers must agree, the entries must follow each
other without overlap, and a name must be a plain name. An entry is stored as it is or deflated. How far deflated ones
may unfold is limited by the size of the whole file (`limits.unfolded_limit`): a ratio of 1,000 : 1, which a long run of
zeros reaches, is a bomb and no net. Nothing is ever written to disk.

Python's zipfile accepts more: bytes before and comments after the archive, end records that differ, other counts
of entries, a name twice or with `..`, and two entries on the same bytes. The tests have such files, so it is not used.
"""

import itertools
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minifcn.formats.limits import FETCH_AGAIN, MAX_TENSORS, Cursor, refusal, short, unfolded_limit

END, END_64, LOCATOR_64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
ROW, HEADER = b"PK\x01\x02", b"PK\x03\x04"
STORED, DEFLATED = 0, 8
FULL_16, FULL_32 = 0xFFFF, 0xFFFFFFFF  # "too large for this field: look in the one of 64 bits"
# Flags that change nothing for us: how hard the writer tried, sizes behind the entry as well, names in UTF-8.
SIZES_BEHIND = 0x8
KNOWN_FLAGS = 0x2 | 0x4 | SIZES_BEHIND | 0x800
MAX_ENTRIES = 2 * MAX_TENSORS
PIECE = 2**18  # bytes: what is inflated at a time


@dataclass(frozen=True)
class Entry:
    """One file inside the archive: its bytes as they lie there, and what they are when unfolded."""

    name: str
    method: int
    packed: memoryview
    size: int
    crc: int


def read_archive(path: Path, data: memoryview) -> dict[str, Entry]:
    """Return the entries of a zip archive by name, in the order of its table; nothing is unfolded yet."""
    count, table, end = _end(path, data)
    if count > MAX_ENTRIES or count * 46 > end - table:
        raise refusal(path, "zip", f"{count} entries", f"at most {min(MAX_ENTRIES, (end - table) // 46)}")
    rows = Cursor(path, data[table:end], "zip table", start=table)
    entries: dict[str, Entry] = {}
    taken: list[tuple[int, int, str]] = []
    for _ in range(count):
        entry, start, stop = _entry(path, data[:table], rows)
        if entry.name in entries:
            raise refusal(path, f"zip entry {entry.name}", "the name twice", "each name once")
        entries[entry.name] = entry
        taken.append((start, stop, entry.name))
    if rows.left:
        raise refusal(path, "zip table", f"{rows.left} bytes after its last row", "none")
    taken.sort()
    for (_, stop, name), (start, _, other) in itertools.pairwise(taken):
        if start < stop:
            raise refusal(path, f"zip entry {other}", f"bytes that belong to {short(name)}", "bytes of its own")
    unfolded, most = sum(entry.size for entry in entries.values()), unfolded_limit(len(data))
    if unfolded > most:
        raise refusal(path, "zip", f"{unfolded} bytes when unfolded", f"at most {most}: this is a bomb")
    return entries


def _end(path: Path, data: memoryview) -> tuple[int, int, int]:
    """Return how many entries there are, and where their table starts and ends."""
    size = len(data)
    # A comment could follow, and could look like another end. Neither NumPy nor PyTorch writes one.
    if size < 22 or bytes(data[-22:-18]) != END:
        raise refusal(path, "zip", "no end record in its last 22 bytes", "a whole zip without a comment")
    end = size - 22
    disk, table_disk, here, count, length, table, comment = struct.unpack("<4H2LH", data[end + 4 :])
    if end >= 76 and bytes(data[end - 20 : end - 16]) == LOCATOR_64:
        record = end - 76
        (at,) = struct.unpack("<Q", data[end - 12 : end - 4])
        if at != record or bytes(data[at : at + 4]) != END_64:
            raise refusal(path, "zip", f"64-bit end record at byte {at}", f"one at byte {record}")
        narrow = (here, count, length, table)
        disk, table_disk, here, count, length, table = struct.unpack("<2L4Q", data[at + 16 : at + 56])
        for small, large, full in zip(narrow, (here, count, length, table), (FULL_16, FULL_16, FULL_32, FULL_32)):
            if small not in (large, full):
                raise refusal(path, "zip", f"{small} in one end record and {large} in the other", "the same in both")
        end = record
    if disk or table_disk or here != count or comment:
        raise refusal(path, "zip", "an archive in several parts, or a comment", "one whole archive")
    if table + length != end:
        raise refusal(path, "zip", f"a table of {length} bytes at byte {table}", f"one that ends at byte {end}")
    return count, table, end


def _entry(path: Path, data: memoryview, rows: Cursor) -> tuple[Entry, int, int]:
    """Return the next row of the table, compared with the header it points at: the entry, and the bytes both take."""
    if bytes(rows.take(4, "row")) != ROW:
        raise refusal(path, "zip table", "something else in the place of a row", "a row for each entry")
    _, _, flags, method, _, _, crc, packed, size, *lengths, disk, _, _, at = struct.unpack(
        "<6H3L5HLL", rows.take(42, "row")
    )
    name = _name(path, rows.take(lengths[0], "name"))
    field = f"zip entry {name}"
    wide = _wide(path, field, rows.take(lengths[1], "extra field"))
    rows.take(lengths[2], "comment")
    # Those of the three that do not fit into 32 bits follow each other in the extra field, in this order.
    size, packed, at = (next(wide, FULL_32) if number == FULL_32 else number for number in (size, packed, at))
    if flags & ~KNOWN_FLAGS or disk:
        raise refusal(path, field, f"flags {flags:#x}", "an entry that is whole and not encrypted")
    if method not in (STORED, DEFLATED):
        raise refusal(path, field, f"compression method {method}", "stored (0) or deflated (8)")
    if method == STORED and packed != size:
        raise refusal(path, field, f"{packed} bytes stored of {size}", "as many")

    header = Cursor(path, data[at:], field, start=at)
    if bytes(header.take(4, "header")) != HEADER:
        raise refusal(path, field, f"no header at byte {at}", "one, as the table says")
    _, flags_2, method_2, _, _, crc_2, packed_2, size_2, *lengths = struct.unpack("<5H3L2H", header.take(26, "header"))
    agree = (flags, method) == (flags_2, method_2) and bytes(header.take(lengths[0], "name")) == name.encode()
    if not flags & SIZES_BEHIND:
        agree = agree and crc == crc_2 and packed_2 in (packed, FULL_32) and size_2 in (size, FULL_32)
    if not agree:
        raise refusal(path, field, "a header that differs from the table", "the same in both")
    header.take(lengths[1], "extra field")
    body = header.take(packed, "data")
    return Entry(name, method, body, size, crc), at, at + header.at


def _name(path: Path, raw: memoryview) -> str:
    """Return the name of an entry, after checking that it is safe to unpack anywhere."""
    try:
        name = bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        name = ""
    if not name.isprintable() or "\\" in name or ":" in name or {"", ".", ".."} & set(name.split("/")):
        raise refusal(path, "zip entry", repr(bytes(raw[:200])), "a relative name without ..")
    return name


def _wide(path: Path, field: str, raw: memoryview) -> Iterator[int]:
    """Yield the 64-bit numbers in an entry's extra field, where it has them."""
    extra = Cursor(path, raw, f"{field}: extra field")
    while extra.left >= 4:
        kind, length = extra.integer(2, "kind"), extra.integer(2, "length")
        content = extra.take(length, "content")
        if kind == 1:
            yield from struct.unpack(f"<{length // 8}Q", content[: length // 8 * 8])


def unfold(path: Path, entry: Entry) -> memoryview:
    """Return the content of an entry, a view of the file if it is stored uncompressed. Its checksum is compared."""
    content = entry.packed if entry.method == STORED else _inflate(path, entry)
    if zlib.crc32(content) != entry.crc:
        found = f"checksum {zlib.crc32(content):08x}"
        raise refusal(path, f"zip entry {entry.name}", found, f"{entry.crc:08x}: damaged", then=FETCH_AGAIN)
    return content


def _inflate(path: Path, entry: Entry) -> memoryview:
    """Return exactly `entry.size` bytes, inflated in pieces: one byte too many is one byte and not a gigabyte."""
    content = np.empty(entry.size, np.uint8)
    inflater, filled, read, waiting = zlib.decompressobj(-zlib.MAX_WBITS), 0, 0, b""
    try:
        while not inflater.eof:
            if not waiting:
                waiting = bytes(entry.packed[read : read + PIECE])
                read += len(waiting)
            piece = inflater.decompress(waiting, min(PIECE, entry.size - filled + 1))
            if len(piece) > entry.size - filled:
                raise refusal(path, f"zip entry {entry.name}", f"more than {entry.size} bytes", "as many as announced")
            if not piece and not waiting:
                break
            content[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
            filled, waiting = filled + len(piece), inflater.unconsumed_tail
    except zlib.error as error:
        raise refusal(path, f"zip entry {entry.name}", error, "deflated data") from error
    if filled < entry.size or not inflater.eof or inflater.unused_data or read < len(entry.packed):
        raise refusal(path, f"zip entry {entry.name}", f"{filled} bytes", f"{entry.size}, and an end after them")
    return content.data
