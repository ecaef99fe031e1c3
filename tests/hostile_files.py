"""What the tests of every reader of weights do to files, and what they expect: valid arrays, or one `FormatError`."""

import contextlib
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minifcn.errors import FormatError
from minifcn.formats.limits import DTYPES

Reader = Callable[..., dict[str, np.ndarray]]
MEGABYTE = 2**20


@contextlib.contextmanager
def at_most(peak: int) -> Iterator[None]:
    """Fails if Python and NumPy reserve more than `peak` bytes at any one time, whether they touch them or not."""
    tracemalloc.start()
    try:
        yield
    finally:  # after a refusal as well
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found <= peak, f"{found / MEGABYTE:.1f} MB reserved"


def refused(read: Reader, path: Path, *, measured: bool = True, **options: Any) -> str:
    """The message of the refusal behind the file's name: one line; and it took no more than 50 MB to come to it."""
    with pytest.raises(FormatError) as caught, at_most(50 * MEGABYTE) if measured else contextlib.nullcontext():
        read(path, **options)
    message = str(caught.value)
    assert message.isprintable() and message.startswith(str(path)) and len(message) < 1000, message
    assert "expected" in message and "; " in message, message
    return message.removeprefix(str(path))


def content(arrays: dict[str, np.ndarray]) -> list[tuple[str, str, tuple[int, ...], bytes]]:
    """What two files have to share to be the same to a reader: names in order, dtypes, shapes and bits."""
    return [
        (name, array.dtype.newbyteorder("<").str, array.shape, array.astype(array.dtype.newbyteorder("<")).tobytes())
        for name, array in arrays.items()
    ]


def survives(read: Reader, path: Path, data: bytes) -> list[Any] | None:
    """The content that `read` finds in `data`, which has to be valid; None if it refuses. All else is a failure."""
    with open(path, "r+b") as file:  # some file systems flush a file that is emptied and written again, every time
        file.write(data)
        file.truncate()
    try:
        arrays = read(path)
    except FormatError as error:
        message = str(error)
        assert message.isprintable() and message.startswith(str(path)), message
        return None
    for name, array in arrays.items():
        assert name.isprintable() and array.dtype.newbyteorder("=") in DTYPES
        assert array.dtype.kind != "f" or np.isfinite(array).all()
        assert array.nbytes <= 16 * MEGABYTE
    return content(arrays)


def truncations(data: bytes) -> Iterator[bytes]:
    """Every beginning of `data`, the empty one as well."""
    return (data[:length] for length in range(len(data)))


def flips(data: bytes) -> Iterator[bytes]:
    """`data` with one bit of it the other way round, for every bit."""
    for at in range(len(data)):
        for bit in range(8):
            yield data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def mutations(rng: np.random.Generator, data: bytes, *, count: int) -> Iterator[bytes]:
    """`data` after a few random edits: bytes changed, cut out, doubled, moved, or set to what lengths look like."""
    for _ in range(count):
        new = bytearray(data)
        for _ in range(rng.integers(1, 5)):
            at, length = int(rng.integers(len(new) + 1)), int(rng.integers(1, 17))
            match rng.integers(5):
                case 0:
                    new[at : at + length] = rng.bytes(length)
                case 1:
                    del new[at : at + length]
                case 2:
                    new[at:at] = new[at : at + length]
                case 3:
                    to = int(rng.integers(len(new) + 1))
                    new[to : to + length] = new[at : at + length]
                case 4:
                    new[at : at + 4] = [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80"][
                        length % 4
                    ]
        yield bytes(new)
