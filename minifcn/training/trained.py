"""Load a trained net from a run folder or checkpoint, with its classes and preprocessing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.data.batches import Preprocessing
from minifcn.data.inputs import Inputs
from minifcn.errors import FormatError, UsageError
from minifcn.formats.checkpoint import Checkpoint, load_best, load_checkpoint, load_latest
from minifcn.models.fcn import FCN
from minifcn.models.paper import LateFusion
from minifcn.training.options import Options, from_dict
from minifcn.weights.published import WeightSet, open_weights, recognised


@dataclass(frozen=True)
class Trained:
    """What a checkpoint of `minifcn train` holds, checked, or a file of an FCN's weights."""

    path: Path
    net: FCN | LateFusion
    options: Options
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    step: int

    @property
    def inputs(self) -> Inputs:
        """What the net sees of a sample."""
        return Inputs(self.options.inputs, self.preprocessing)


def part(tensors: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The tensors below `prefix`, without it."""
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}


def restore_net(net: FCN | LateFusion, checkpoint: Checkpoint) -> None:
    """Put the checkpoint's parameters into `net`; `FormatError` naming the file and every name that does not fit."""
    try:
        net.load_state_dict(part(checkpoint.tensors, "net."))
    except FormatError as fault:
        raise FormatError(f"{checkpoint.path}: {fault}") from fault


def open_trained(path: str | Path, *, best: bool = False) -> Trained:
    """The net of a run folder (its newest good checkpoint, or its best) or of a checkpoint file, ready to use."""
    path = Path(path)
    if path.is_dir():
        found = (load_best if best else load_latest)(path)
        if found is None:
            raise UsageError(f"{path}: holds no checkpoint; expected the folder of a run of `minifcn train`")
        checkpoint = found
    elif recognised(path):
        return of_weights(open_weights(path))
    elif path.exists():
        checkpoint = Checkpoint(path, *load_checkpoint(path))
    else:
        raise UsageError(f"{path}: found no such run folder or checkpoint; `minifcn train` makes one")
    options = from_dict(checkpoint.meta.get("options"), source=checkpoint.path)
    classes = checked_classes(checkpoint)
    preprocessing = preprocessing_of(checkpoint)
    stride, progress = checkpoint.meta.get("stride"), checkpoint.meta.get("progress")
    if stride not in options.strides or not isinstance(progress, dict) or not isinstance(progress.get("step"), int):
        raise FormatError(f"{checkpoint.path}: has no stride and progress; expected a checkpoint of `minifcn train`")
    geometry = checked_classes(checkpoint, "geometry_classes") if options.two_heads else ()
    net = options.network(len(classes), stride, geometry=len(geometry))
    restore_net(net, checkpoint)
    return Trained(checkpoint.path, net, options, classes, preprocessing, progress["step"])


def of_weights(weights: WeightSet) -> Trained:
    """An FCN that others trained: whatever `train` would have chosen stands at its default."""
    net = weights.network()
    if not isinstance(net, FCN) or not isinstance(net.classes, int) or weights.preprocessing is None:
        raise UsageError(
            f"{weights.path}: {weights.net} does not label the pixels of a photograph with one set of classes; "
            "expected an FCN that does"
        )
    return Trained(weights.path, net, Options(), weights.classes, weights.preprocessing, 0)


def preprocessing_of(checkpoint: Checkpoint) -> Preprocessing:
    """What the net's images went through; `FormatError` naming the file if that cannot be read."""
    try:
        return Preprocessing.from_dict(checkpoint.meta.get("preprocessing", {}))
    except FormatError as fault:
        raise FormatError(f"{checkpoint.path}: {fault}") from fault


def checked_classes(checkpoint: Checkpoint, field: str = "classes") -> tuple[str, ...]:
    """The names of the classes that a checkpoint carries; `FormatError` where there are none."""
    classes: Any = checkpoint.meta.get(field)
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise FormatError(f"{checkpoint.path}: {field} are {classes!r:.80}; expected a list of names")
    return tuple(classes)
