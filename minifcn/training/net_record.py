"""Describe a net in a small record, from which it is built again without the options of its training.

A checkpoint carries the record in its header, as `net`:

    {"trunk": "vgg", "layers": 16, "width": 64, ..., "stride": 8, "classes": ["background", ...],
     "geometry_classes": [], "preprocessing": {"order": "RGB", ...}}

`stride` says which skips the ladder has. Checkpoints without a record, of earlier versions, have the same in their meta
and in the options of the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minifcn.data.batches import Preprocessing
from minifcn.data.inputs import Inputs
from minifcn.data.sample import VOID, fault_of_names
from minifcn.errors import FormatError, whole
from minifcn.training import setup
from minifcn.training.options import Options, from_dict

# The options that decide what the net is; all others say how it is trained.
CHOICES = (
    *("trunk", "layers", "enlarge", "context", "width", "fc", "padding", "dropout"),
    *("inputs", "heads", "upsampling", "fusion", "at_once"),
)


@dataclass(frozen=True)
class NetRecord:
    """What a net is and what its images go through. Of the options only `CHOICES` count, and `seed` for a new net."""

    options: Options
    stride: int
    classes: tuple[str, ...]
    geometry_classes: tuple[str, ...]
    preprocessing: Preprocessing
    image_bits: int = 16  # how many of the bits of a 16-bit photograph count, from the lowest

    def __str__(self) -> str:
        return self.options.trunk if self.options.is_whole else f"FCN-{self.stride}s"

    @property
    def inputs(self) -> Inputs:
        """What the net sees of a sample."""
        return Inputs(self.options.inputs, self.preprocessing)

    def network(self, *, init: str = "he") -> setup.Learner:
        """Return the net with new parameters."""
        o, geometry = self.options, len(self.geometry_classes)
        return setup.network(o, len(self.classes), self.stride, geometry=geometry, init=init)

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON has it."""
        return {name: getattr(self.options, name) for name in CHOICES} | {
            "stride": self.stride,
            "classes": list(self.classes),
            "geometry_classes": list(self.geometry_classes),
            "preprocessing": self.preprocessing.as_dict(),
            **({"image_bits": self.image_bits} if self.image_bits < 16 else {}),
        }


def read_record(path: Path, meta: Mapping[str, Any]) -> NetRecord:
    """Return the record in the `meta` of the checkpoint `path`; `FormatError` or `UsageError` for what cannot be."""
    found = meta.get("net", meta)
    if not isinstance(found, Mapping):
        raise FormatError(f"{path}: net is {found!r:.80}; expected a record of a net")
    stride = found.get("stride")
    if found is meta:  # of an earlier version
        options = from_dict(meta.get("options"), source=path)
    else:
        chosen = {name: value for name, value in found.items() if name not in NetRecord.__annotations__}
        options = from_dict(chosen | {"stages": str(stride)}, source=path)
    classes = _classes(path, found, "classes")
    try:
        preprocessing = Preprocessing.from_dict(found.get("preprocessing", {}))
    except FormatError as fault:
        raise FormatError(f"{path}: {fault}") from fault
    if type(stride) is not int or stride not in options.strides:
        raise FormatError(f"{path}: stride is {stride!r:.80}; expected a checkpoint of a training run")
    geometry = _classes(path, found, "geometry_classes") if options.two_heads else ()
    bits = found.get("image_bits", 16)
    if not whole(bits, least=8, most=16):
        raise FormatError(f"{path}: image_bits is {bits!r:.80}; expected a number from 8 to 16")
    return NetRecord(options, stride, classes, geometry, preprocessing, bits)


def _classes(path: Path, found: Mapping[str, Any], field: str) -> tuple[str, ...]:
    classes: Any = found.get(field)
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise FormatError(f"{path}: {field} are {classes!r:.80}; expected a list of names")
    if fault := fault_of_names(classes) or (f"{len(classes)} names, of at most {VOID}" if len(classes) > VOID else ""):
        raise FormatError(f"{path}: {field} are {fault}; expected a checkpoint of a training run")
    return tuple(classes)
