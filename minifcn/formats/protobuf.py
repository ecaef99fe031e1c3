"""Read the wire format of Protocol Buffers, in which Caffe stores nets.

A field is a number with a tag in its low three bits, then its value:

    tag 0   a varint: seven bits a byte, lowest first, and the high bit set in all but the last
    tag 1   8 bytes
    tag 2   a length (a varint) and so many bytes: a text, an array, or a message, which is fields again
    tag 5   4 bytes
    tag 3, 4  the start and the end of a group, which has been obsolete since 2008

A message does not say which of its fields are messages themselves: that depends on the field numbers. So a reader
enters the fields it knows and skips all others by their length, however deep *they* are nested: nothing here recurses.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minifcn.formats.limits import Cursor, refusal

MAX_FIELDS = 100_000  # in all of a file: VGG-16 has some 500
VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5
TAGS = {VARINT: "a varint", EIGHT_BYTES: "8 bytes", BYTES: "a length and bytes", FOUR_BYTES: "4 bytes"}

Known = dict[int, tuple[str, int]]
"""What a reader looks for in a message: `{field number: (name, tag)}`."""


class Wire:
    """Walk through the messages of one file, over at most `MAX_FIELDS` fields in all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._room = MAX_FIELDS

    def fields(self, message: memoryview, where: str, known: Known) -> Iterator[tuple[str, Any]]:
        """Yield `(name, value)` of the `known` fields in `message`, in file order; the others are stepped over.

        The value is an integer under the tag of varints, a view of the file under the others. A known field with a tag
        that is not its own is refused, and so is any field that ends after the message does.
        """
        cursor = Cursor(self.path, message, where)
        while cursor.left:
            self._room -= 1
            if self._room < 0:
                raise refusal(self.path, where, f"more than {MAX_FIELDS} fields", "a net")
            key = varint(cursor, "field number")
            number, tag = key >> 3, key & 7
            name, expected = known.get(number, ("", tag))
            label = name or f"field {number}"
            if tag not in TAGS or not 0 < number < 2**29:
                found = f"field number {number} with tag {tag}"
                raise refusal(self.path, where, found, "a number from 1 on, and a tag of 0, 1, 2 or 5")
            if tag != expected:
                raise refusal(self.path, f"{where}: {label}", TAGS[tag], TAGS[expected])
            value = _value(cursor, tag, label)
            if name:
                yield name, value

    def varints(self, data: memoryview, where: str) -> list[int]:
        """Return a packed array of signed integers, each a varint."""
        cursor, numbers = Cursor(self.path, data, where), []
        while cursor.left:
            self._room -= 1
            if self._room < 0:
                raise refusal(self.path, where, f"more than {MAX_FIELDS} numbers", "a shape")
            numbers.append(signed(varint(cursor, "a number")))
        return numbers


def _value(cursor: Cursor, tag: int, label: str) -> int | memoryview:
    if tag == VARINT:
        return varint(cursor, label)
    return cursor.take({EIGHT_BYTES: 8, FOUR_BYTES: 4}.get(tag) or varint(cursor, f"{label}: length"), label)


def varint(cursor: Cursor, what: str) -> int:
    """Return the varint at the cursor, 0 to 2^64 - 1; more than ten bytes, or more than 64 bits, are refused."""
    number = 0
    for shift in range(0, 70, 7):
        byte = cursor.take(1, what)[0]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number >= 2**64:
                break
            return number
    raise refusal(cursor.path, f"{cursor.field}: {what}", "a number of more than 64 bits", "at most 64 bits")


def signed(number: int) -> int:
    """Return a varint as the signed integer it stands for: -1 is written as 2^64 - 1."""
    return number - 2**64 if number >= 2**63 else number
