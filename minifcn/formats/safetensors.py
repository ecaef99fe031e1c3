"""Read and write `.safetensors`: a length, a JSON header and the arrays.

    8 bytes     the length of the header, little endian
    header      {"conv1.weight": {"dtype": "F32", "shape": [64, 3, 3, 3], "data_offsets": [0, 6912]}, ...}
                and maybe "__metadata__": {"any": "texts"}
    the rest    the arrays in C order, little endian; the offsets count from here

Nothing in it can run, but everything in it can lie: a length of 2^40, two arrays in one place, a shape that is not
that of its bytes, a hole with something hidden in it, a name twice (of which two parsers take different ones). The
format has no checksum, so a flipped bit in a weight passes here; `checkpoint.py` adds digests to the same format.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.formats.limits import FETCH_AGAIN, SHARING, Collected, bytes_of, from_bfloat16, nbytes_of, refusal, size_of
from minifcn.formats.strict_json import MOST_LETTERS, parse_json

MAX_HEADER = MOST_LETTERS  # bytes: a header is read and parsed before anything vouches for it

DTYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype("?"), "I8": np.dtype("i1"), "I16": np.dtype("<i2"), "I32": np.dtype("<i4"), "I64": np.dtype("<i8"),
    "U8": np.dtype("u1"), "U16": np.dtype("<u2"), "U32": np.dtype("<u4"), "U64": np.dtype("<u8"),
    "F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "F64": np.dtype("<f8"),
}  # fmt: skip
KINDS = {dtype: kind for kind, dtype in DTYPES.items()}
FIELDS = {"dtype", "shape", "data_offsets"}


def packed(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """Return the bytes of a file; the same arguments always give the same ones.

    arrays: in C order, with one of `DTYPES`. They are written by size of an element and then by name, so that each
    begins at a multiple of it, whatever the machine that maps the file.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    ordered = dict(sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0])))
    for name, array in ordered.items():
        offsets = [at, at := at + array.nbytes]
        header[name] = {"dtype": KINDS[array.dtype], "shape": array.shape, "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *(array.data for array in ordered.values())])


def read_safetensors(path: Path, *, allow_nonfinite: bool = False) -> dict[str, np.ndarray]:
    """Return `{name: array}`, read-only views in the order of the header; bfloat16 becomes float32, exactly.

    Raises FormatError for whatever is wrong with the file, and for NaN and infinity without `allow_nonfinite`.
    """
    header_end(path, bytes_of(path, most=8), size_of(path))  # before the rest is read: it may be without end
    data = bytes_of(path)
    found = Collected(path, room=SHARING * len(data), allow_nonfinite=allow_nonfinite)
    for name, kind, array in views(path, data, DTYPES | {"BF16": np.dtype("<u2")}):
        found.add(name, from_bfloat16(array) if kind == "BF16" else array)
    if not found.arrays:
        raise refusal(path, "header", "no arrays", "a file of weights")
    return found.arrays


def views(
    path: Path, data: bytes | memoryview, dtypes: dict[str, np.dtype] = DTYPES, *, then: str = FETCH_AGAIN
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield name, kind and a view of each array in a file's bytes `data`, once the whole header has been believed.

    dtypes: the kinds to accept. then: the next step in messages. Raises FormatError.
    """
    end = header_end(path, data[:8], len(data), then=then)
    header = parse_header(path, bytes(data[8:end]), then=then)
    header.pop("__metadata__", None)
    body, places = memoryview(data)[end:], []
    for name, entry in header.items():
        kind, shape, begin, stop = _entry(path, name, entry, dtypes, then)
        if stop - begin != nbytes_of(path, name, shape, dtypes[kind]):
            expected = f"{nbytes_of(path, name, shape, dtypes[kind])} bytes for {kind} of {shape}"
            raise refusal(path, f"{name}: data_offsets", [begin, stop], expected, then=then)
        places.append((begin, stop, name))
    _check_tiling(path, sorted(places), len(body), then)
    for name, entry in header.items():
        begin, stop = entry["data_offsets"]
        values = np.frombuffer(body[begin:stop], dtypes[entry["dtype"]])
        yield name, entry["dtype"], values.reshape(entry["shape"])


def header_end(path: Path, start: bytes | memoryview, size: int, *, then: str = FETCH_AGAIN) -> int:
    """Return where the header ends, from the length in the first 8 bytes, checked against the file's `size`."""
    if size < 8:
        raise refusal(path, "size", f"{size} bytes", "at least the 8 of a length", then=then)
    length, most = int.from_bytes(start[:8], "little"), min(MAX_HEADER, size - 8)
    if length > most:
        expected = f"at most {most}: truncated, or no safetensors file"
        raise refusal(path, "header length", f"{length} bytes", expected, then=then)
    return 8 + length


def parse_header(path: Path, header: bytes, *, then: str = FETCH_AGAIN) -> dict[str, Any]:
    """Return the header, an object whose `__metadata__`, if any, holds texts; the rest of it is unchecked."""
    try:
        parsed = parse_json(header.decode("utf-8"))
        if type(parsed) is not dict or header[:1] != b"{":
            raise ValueError(f"a {type(parsed).__name__}")
        metadata = parsed.get("__metadata__", {})
        if type(metadata) is not dict or not all(type(text) is str for text in metadata.values()):
            raise ValueError("metadata that are not texts by name")
    except ValueError as error:
        raise refusal(path, "header", error, "the JSON object of a safetensors file", then=then) from error
    return parsed


def _entry(
    path: Path, name: str, entry: Any, dtypes: dict[str, np.dtype], then: str
) -> tuple[str, tuple[Any, ...], int, int]:
    """Return what the header says of one array: kind, shape, and where it begins and ends."""
    if type(entry) is not dict or entry.keys() != FIELDS:
        raise refusal(path, name, entry, f"an object of {', '.join(sorted(FIELDS))}", then=then)
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if type(kind) is not str or kind not in dtypes:
        raise refusal(path, f"{name}: dtype", kind, f"one of {', '.join(dtypes)}", then=then)
    if type(shape) is not list:
        raise refusal(path, f"{name}: shape", shape, "a list of sizes", then=then)
    if type(offsets) is not list or [type(offset) for offset in offsets] != [int, int]:
        raise refusal(path, f"{name}: data_offsets", offsets, "two integers", then=then)
    return kind, tuple(shape), *offsets


def _check_tiling(path: Path, places: list[tuple[int, int, str]], size: int, then: str) -> None:
    """The arrays have to fill the file from the header to the end: each byte belongs to one of them."""
    at = 0
    for begin, stop, name in places:
        if begin != at or stop > size:
            expected = f"one that begins at {at}, where the last one ends, within {size} bytes"
            raise refusal(path, f"{name}: data_offsets", [begin, stop], expected, then=then)
        at = stop
    if at != size:
        raise refusal(path, "data", f"{size} bytes", f"the {at} of the arrays: nothing may follow them", then=then)
