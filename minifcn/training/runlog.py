"""Read and write `metrics.jsonl`, the log of a run with one JSON object per line.

A resumed run goes back to its last checkpoint; what was written since is then forgotten, and written again.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minifcn.formats.checkpoint import replace_file
from minifcn.formats.strict_json import parse_json


def finite(value: Any) -> Any:
    """JSON has no NaN: where a number is not finite, null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps(finite(record), indent=1) + "\n", encoding="utf-8", newline="\n")


def append(path: Path, record: dict[str, Any]) -> None:
    """One more line."""
    with open(path, "a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(finite(record)) + "\n")


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
