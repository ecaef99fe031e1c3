"""Write Caffe's files, protobuf field by field: for the tests that read them."""

import numpy as np


def varint(number: int) -> bytes:
    number %= 2**64
    out = b""
    while number >= 0x80:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


def field(number: int, value: int | bytes, *, tag: int | None = None) -> bytes:
    if isinstance(value, int):
        return varint(number << 3 | (tag or 0)) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def packed(*numbers: int) -> bytes:
    return b"".join(map(varint, numbers))


def blob(array: np.ndarray, *, old: bool = False) -> bytes:
    """As Caffe writes it: data before shape, and an old one with its four sizes first."""
    data = field(8 if array.dtype == np.float64 else 5, array.tobytes())
    if old:
        sizes = (1,) * (4 - array.ndim) + array.shape
        return b"".join(field(number + 1, size) for number, size in enumerate(sizes)) + data
    return data + field(7, field(1, packed(*array.shape)))


def layer(name: str, *blobs: bytes, kind: str = "Convolution", old: bool = False) -> bytes:
    if old:
        return field(
            2, field(2, b"data") + field(4, name.encode()) + field(5, 4) + b"".join(field(6, b) for b in blobs)
        )
    parts = field(1, name.encode()) + field(2, kind.encode()) + field(3, b"data") + b"".join(field(7, b) for b in blobs)
    return field(100, parts + field(106, field(1, 2)))
