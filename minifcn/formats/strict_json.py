"""Read JSON from an untrusted file: one meaning, finite numbers, and limits on size and depth.

Python's reader takes more than JSON and takes it silently: the last of two equal keys, NaN and Infinity, a number of
400 digits that no float can hold. Here each of these is a `ValueError` with the reason.
"""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from minifcn.errors import FormatError

MOST_LETTERS = 4 * 2**20  # as many as the header of a file of weights may have
MOST_VALUES = 300_000  # for 20,000 arrays with name, kind, shape and place; each takes some 100 bytes of memory
MOST_DEPTH = 50
MOST_DIGITS = 100  # of a whole number; the state of a random generator has 39


def parse_json(text: str, *, most: int = MOST_LETTERS) -> Any:
    """Return the value of a JSON text; `ValueError` for what is no JSON or lies beyond the limits."""
    if len(text) > most:
        raise ValueError(f"{len(text)} letters, of at most {most}")
    values = MOST_VALUES if most <= MOST_LETTERS else most // 2  # annotations are numbers above all
    if (marks := sum(map(text.count, "[{:,"))) > values:  # one in front of each value, or more
        raise ValueError(f"{marks} marks in front of values, of at most {values}")
    too_deep = f"more than {MOST_DEPTH} levels in one another"
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_int=_whole, parse_float=_finite, parse_constant=_finite
        )
    except RecursionError:
        raise ValueError(too_deep) from None
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        if depth > MOST_DEPTH:
            raise ValueError(too_deep)
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return value


def read_json(path: Path, *, most: int, what: str) -> dict[str, Any]:
    """Return the JSON object in a file of at most `most` bytes; `FormatError` for anything else.

    what: the kind of file, for messages: "a run's config.json". A byte-order mark is passed over.
    """
    found = read_value(path, most=most, what=what)
    if not isinstance(found, dict):
        raise FormatError(f"{path}: holds {type(found).__name__}; expected an object, {what}")
    return found


def read_value(path: Path, *, most: int, what: str) -> Any:
    """Return what a JSON file holds, an object or not, as `read_json` reads it."""
    try:
        size = path.stat().st_size
        if not path.is_file() or size > most:  # a pipe or a device would never end
            raise FormatError(f"{path}: {size} bytes; expected {what}, a file of at most {most}")
        return parse_json(path.read_text(encoding="utf-8-sig"), most=most)
    except OSError as fault:
        raise FormatError(f"{path}: cannot be read ({fault.strerror}); expected {what}") from fault
    except ValueError as fault:
        raise FormatError(f"{path}: is not JSON in UTF-8 ({fault!s:.100}); expected {what}") from fault


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object whose keys all differ: of two equal ones, two parsers may take different ones."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"a key twice in one object, {twice!r:.80}")
    return found


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits, of at most {MOST_DIGITS}")
    return int(digits)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text:.40} is no finite number")
    return number
