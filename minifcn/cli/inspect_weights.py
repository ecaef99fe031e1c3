"""`minifcn inspect`: list what a weight file contains and which net it fits.

    minifcn inspect model.pth
    minifcn inspect runs/world/checkpoints/best.safetensors

It prints the format, found by the first bytes; every array with shape, dtype, smallest and largest number, and how many
numbers are not finite; the net that the file fits, or where the nearest one differs; and that net's preprocessing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from minifcn.cli.command import parse_words, say, with_flags
from minifcn.errors import FormatError, UsageError
from minifcn.formats.checkpoint import meta_of
from minifcn.formats.files import FORMATS, format_of, read
from minifcn.formats.limits import path_of, short
from minifcn.formats.prototxt import read_prototxt
from minifcn.introspect.markup import text_table
from minifcn.training.net_record import read_record
from minifcn.weights.published import open_weights


@dataclass(frozen=True)
class Options:
    """List what a weight file contains: `minifcn inspect FILE`."""

    most: Annotated[int, "list at most so many arrays (0: all)"] = 60


def main(argv: list[str]) -> int:
    """Print the format, the arrays and the net. A file that cannot be read is refused, one that fits no net is not."""
    words, options = parse_words(Options, argv, verb="inspect", words="FILE", count=1)
    path = path_of(words[0])
    kind = format_of(path)
    say(f"{path}: {FORMATS[kind][0]}, {path.stat().st_size:,} bytes")
    if kind == "prototxt":
        layers = read_prototxt(path)
        rows = [(each.name, each.type, str(each.num_output or ""), f"{each.kernel}") for each in layers]
        say(*text_table([("layer", "type", "outputs", "kernel"), *rows], left=2))
        return 0
    arrays = read(path, allow_nonfinite=True)
    say(f"{len(arrays)} arrays, {sum(array.size for array in arrays.values()):,} numbers", "")
    listed = list(arrays.items())[: options.most or None]
    heads = ("name", "shape", "dtype", "min", "max", "not finite")
    say(*text_table([heads, *(row(name, array) for name, array in listed)], left=2))
    if len(listed) < len(arrays):
        say(f"... and {len(arrays) - len(listed)} more (--most 0 lists all)")
    say("")
    for name, value in belongs(path).items():
        say(f"{name:<8} {value}")
    return 0


def row(name: str, array: np.ndarray) -> tuple[str, ...]:
    """Return what is worth knowing of an array; the smallest and the largest are those of its finite numbers."""
    finite = array[np.isfinite(array)].astype(np.float64)
    ends = (f"{finite.min():.4g}", f"{finite.max():.4g}") if finite.size else ("", "")
    shape = "x".join(map(str, array.shape)) or "one number"
    return short(name), shape, str(array.dtype), *ends, str(array.size - finite.size)


def belongs(path: Path) -> Mapping[str, str]:
    """Return the net that the file is of, and what its images go through; or why that cannot be said."""
    meta = meta_of(path)
    if "net" in meta or "stride" in meta:
        record = read_record(path, meta)
        return {"net": f"{record}, a checkpoint of `minifcn train`", "images": str(record.preprocessing)}
    where: list[str] = []
    try:
        weights = open_weights(path, allow_nonfinite=True, say=where.append)
    except (FormatError, UsageError) as fault:
        return {"net": str(fault).removeprefix(f"{path}: ")}
    inside = [("inside", with_flags(line).removeprefix(f"{path}: ")) for line in where]
    return {"net": str(weights), **dict(inside), "images": str(weights.preprocessing or "not of three channels")}
