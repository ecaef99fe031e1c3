"""Load a trained net from a run folder or checkpoint, with its classes and preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.data.batches import Preprocessing
from minifcn.data.inputs import Inputs
from minifcn.errors import FormatError, UsageError
from minifcn.formats.checkpoint import load_checkpoint
from minifcn.formats.limits import path_of
from minifcn.models.fcn import FCN
from minifcn.models.resnet import FCN_ResNet
from minifcn.training.net_record import read_record
from minifcn.training.options import Options, from_dict
from minifcn.training.progress import silent
from minifcn.training.run_folder import Checkpoint, Say, load_best, load_latest
from minifcn.training.setup import Learner
from minifcn.weights.published import WeightSet, open_weights, recognised

AVERAGE = "average."
"""What the names of the averaged weights begin with in a checkpoint."""


@dataclass(frozen=True)
class Trained:
    """What a checkpoint of a training run holds, checked, or a file of an FCN's weights."""

    path: Path
    name: str
    net: Learner
    classes: tuple[str, ...]
    inputs: Inputs
    step: int
    meta: Mapping[str, Any]
    image_bits: int = 16

    @property
    def preprocessing(self) -> Preprocessing:
        """What its images go through."""
        return self.inputs.preprocessing

    @property
    def options(self) -> Options:
        """How it was trained, for its data sets; the defaults for weights that others trained."""
        return from_dict(self.meta.get("options", {}), source=self.path)


def part(tensors: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Return the tensors below `prefix`, without it."""
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}


def restore_net(net: Learner, checkpoint: Checkpoint, *, averaged: bool = False) -> None:
    """Put the checkpoint's parameters into `net`; `FormatError` naming the file and every name that does not fit.

    averaged: their average over the last steps instead, where the run kept one.
    """
    kept = part(checkpoint.tensors, AVERAGE) if averaged else {}
    try:
        net.load_state_dict(kept or part(checkpoint.tensors, "net."))
    except FormatError as fault:
        raise FormatError(f"{checkpoint.path}: {fault}") from fault


def open_trained(path: str | Path, *, best: bool = False, say: Say = silent) -> Trained:
    """Return the net of a run folder (its newest good checkpoint, or its best) or of a checkpoint file, ready to use.

    `say` prints which damaged checkpoints were skipped.
    """
    path = path_of(path)
    if path.is_dir():
        found = (load_best if best else load_latest)(path, say=say)
        if found is None:
            raise UsageError(f"{path}: holds no checkpoint; expected the folder of a training run")
        return of_checkpoint(found)
    if recognised(path):
        return of_weights(open_weights(path, say=say))
    if not path.exists():
        raise UsageError(f"{path}: found no such run folder or checkpoint; a training run makes one")
    return of_checkpoint(Checkpoint(path, *load_checkpoint(path)))


def of_checkpoint(checkpoint: Checkpoint) -> Trained:
    """Return the net in a checkpoint of a training run.

    Its parameters have no memory of their own until those of the file are found to fit, so a record that claims a
    larger net than the file holds costs nothing.
    """
    path, meta = checkpoint.path, checkpoint.meta
    record, progress = read_record(path, meta), meta.get("progress")
    if not isinstance(progress, Mapping) or not isinstance(progress.get("step"), int):
        raise FormatError(f"{path}: has no progress; expected a checkpoint of a training run")
    net = record.network(init="meta")
    restore_net(net, checkpoint, averaged=True)
    return Trained(path, str(record), net, record.classes, record.inputs, progress["step"], meta, record.image_bits)


def of_weights(weights: WeightSet) -> Trained:
    """Return an FCN that others trained: whatever `train` would have chosen stands at its default."""
    net = weights.network()
    if not isinstance(net, FCN | FCN_ResNet) or not isinstance(net.classes, int) or weights.preprocessing is None:
        raise UsageError(
            f"{weights.path}: {weights.net} does not label the pixels of a photograph with one set of classes; "
            "expected an FCN that does"
        )
    inputs = Inputs("rgb", weights.preprocessing)
    return Trained(weights.path, weights.net, net, weights.classes, inputs, 0, {})
