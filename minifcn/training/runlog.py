"""Read and write `metrics.jsonl`, the log of a run with one JSON object per line.

A resumed run goes back to its last checkpoint; what was written since is then forgotten, and written again. A record
is in the file entirely or not at all: one that is cut, by a full disk or a kill, must not swallow the next.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minifcn.formats.checkpoint import explained, replace_file
from minifcn.formats.strict_json import parse_json


def finite(value: Any) -> Any:
    """Return a value for JSON, which has no NaN: None for each number that is not finite."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_text(record: dict[str, Any]) -> str:
    """Return the text of a JSON file that holds `record`."""
    return json.dumps(finite(record), indent=1) + "\n"


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Put a JSON file at `path`, entirely or not at all."""
    replace_file(path, [json_text(record).encode()])


def append(path: Path, record: dict[str, Any]) -> None:
    """Add one line, or raise `UsageError` and leave the file as it was."""
    line = json.dumps(finite(record)).encode() + b"\n"
    with explained(path, "cannot be written"), open(path, "a+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        if file.read(1) not in (b"\n", b""):  # a killed process was writing
            line = b"\n" + line
        try:
            while line:
                line = line[file.write(line) :]
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(end)
            raise


def sync(path: Path) -> None:
    """Have the log on the disk before the checkpoint that goes on from it."""
    if path.exists():
        with explained(path, "cannot be written"), open(path, "rb") as file:
            os.fsync(file.fileno())


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a log; lines that are cut or hold something else are passed over."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            if isinstance(record := parse_json(line), dict):
                yield record


def forget_after(path: Path, step: int) -> None:
    """Drop the lines that were written after `step`, and a last line that was cut short."""
    if path.exists():
        kept = [each for each in records(path) if isinstance(each.get("step"), int) and each["step"] <= step]
        replace_file(path, [f"{json.dumps(each)}\n".encode() for each in kept])
