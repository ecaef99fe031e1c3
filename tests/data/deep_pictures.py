"""Pictures of 16 bits a sample in colours, which Pillow reads and does not write."""

import struct
import zlib
from pathlib import Path

import numpy as np


def deep_png(path: Path, pixels: np.ndarray) -> Path:
    """A PNG of 16 bits in each of two (grey, alpha), three or four samples, which Pillow does not write."""
    height, width, samples = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    kind = {2: 4, 3: 2, 4: 6}[samples]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)), (b"IDAT", zlib.compress(rows))]
    path.parent.mkdir(parents=True, exist_ok=True)
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in [*chunks, (b"IEND", b"")]:
        content += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    path.write_bytes(content)
    return path


def deep_tiff(path: Path, pixels: np.ndarray, order: str = "<") -> Path:
    """A plain TIFF of 16 bits in each of three samples."""
    height, width, samples = pixels.shape
    data = pixels.astype(f"{order}u2").tobytes()
    bits = struct.pack(f"{order}3H", 16, 16, 16)
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 8 + len(data)), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 1, 8), (277, 3, 1, samples), (278, 3, 1, height), (279, 4, 1, len(data))]
    short = struct.Struct(f"{order}HHIHH")
    table = b"".join(
        short.pack(tag, kind, count, value, 0) if kind == 3 and count == 1 else struct.pack(f"{order}HHII", *entry)
        for entry in tags
        for tag, kind, count, value in [entry]
    )
    mark = b"II*\0" if order == "<" else b"MM\0*"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        mark
        + struct.pack(f"{order}I", 14 + len(data))
        + data
        + bits
        + struct.pack(f"{order}H", len(tags))
        + table
        + b"\0\0\0\0"
    )
    return path


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG that announces so many pixels, and holds none."""
    data = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + data + struct.pack(">I", zlib.crc32(b"IHDR" + data))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 9) + b"IDAT"
