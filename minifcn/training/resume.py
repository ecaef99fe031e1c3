"""What a checkpoint must say so that a run can go on from it: its progress, its classes and its images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minifcn.errors import FormatError, UsageError
from minifcn.training.net_record import read_record
from minifcn.training.run_folder import Checkpoint


@dataclass
class Progress:
    """How far a run has come; what a checkpoint keeps beside the arrays."""

    stage: int = 0
    step: int = 0  # of the whole run
    stage_began: int = 0  # the step at which this stage began
    stage_done: bool = False
    best: float = -1.0  # mean IU
    # since the last line of the log: summed loss over pixels, pixels, images
    loss: float = 0.0
    pixels: int = 0
    images: int = 0
    # since the last measurement
    epoch_loss: float = 0.0
    epoch_pixels: int = 0

    def seen(self, loss: float, pixels: int, images: int) -> None:
        """Count a batch: its loss summed over its pixels, the pixels with a label, and the images."""
        self.loss, self.pixels, self.images = self.loss + loss, self.pixels + pixels, self.images + images

    def logged(self) -> float:
        """Return the loss per pixel since the last line of the log, and begin the next line."""
        loss = self.loss / max(self.pixels, 1)
        self.epoch_loss, self.epoch_pixels = self.epoch_loss + self.loss, self.epoch_pixels + self.pixels
        self.loss, self.pixels, self.images = 0.0, 0, 0
        return loss

    def measured(self) -> float:
        """Return the loss per pixel since the last measurement, and begin the next."""
        loss = self.epoch_loss / max(self.epoch_pixels, 1)
        self.epoch_loss, self.epoch_pixels = 0.0, 0
        return loss


def fingerprint(ids: Sequence[str]) -> dict[str, Any]:
    """Return which images there are, in which order."""
    digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()
    return {"count": len(ids), "first": ids[0], "last": ids[-1], "sha256": digest}


def checked_progress(
    checkpoint: Checkpoint, *, classes: Sequence[str], ids: Sequence[str], strides: Sequence[int]
) -> Progress:
    """Return the progress of a checkpoint of a run on these images and classes, whose stages have these strides.

    Raises `UsageError` if it is of other data or of another net, `FormatError` if its progress cannot be read.
    """
    path, meta = checkpoint.path, checkpoint.meta
    record = read_record(path, meta)
    if record.classes != tuple(classes):
        raise UsageError(f"{path}: its classes are {list(record.classes)}; the data has {list(classes)}")
    was, found = meta.get("images"), fingerprint(ids)
    if was != found:
        raise UsageError(
            f"{path}: it was trained on {_named(was)}; found {_named(found)}, which are others, or in another order"
        )
    progress = read_progress(checkpoint)
    if progress.stage >= len(strides) or strides[progress.stage] != record.stride:
        stages = ",".join(map(str, strides))
        raise UsageError(f"{path}: its net has stride {record.stride} in stage {progress.stage + 1} of {stages}")
    return progress


def _named(images: Any) -> str:
    """Return the images of a run in words: how many, the first and the last."""
    if not isinstance(images, Mapping):
        return "images it does not name"
    return f"{images.get('count')} images ({images.get('first')} ... {images.get('last')})"


def read_progress(checkpoint: Checkpoint) -> Progress:
    """Return the progress in a checkpoint; `FormatError` unless every field is there, of its type and possible."""
    found, wanted = checkpoint.meta.get("progress"), {name: type(value) for name, value in vars(Progress()).items()}
    if not isinstance(found, Mapping) or found.keys() != wanted.keys():
        raise FormatError(f"{checkpoint.path}: progress is {found!r:.80}; expected the fields {', '.join(wanted)}")
    for name, kind in wanted.items():
        value = found[name]
        if type(value) is not kind or not (name == "best" or value >= 0):
            raise FormatError(f"{checkpoint.path}: progress {name} is {value!r:.80}; expected {kind.__name__} from 0")
    return Progress(**found)
