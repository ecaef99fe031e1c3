"""Named, complete sets of choices for a training run: the recipes. `Options` says what each choice means."""

from __future__ import annotations

from typing import Any

from minifcn.errors import UsageError
from minifcn.options import Options, nearest

TRANSFER: dict[str, Any] = {
    "data": "$MINIFCN_DATA/voc2012_animals",
    "trunk": "squeezenet1.0",
    "width": 16,
    "padding": "safe",
    "init": "imagenet",
    "freeze": "conv1,fire2,fire3,fire4",
    "at_once": True,
    "context": True,
    "epochs": 16,
    "batch": 8,
    "optimizer": "adam",
    "lr": 0.001,
    "trunk_lr": 0.04,
    "weight_decay": 0.0001,
    "stage_lr": "0.3",
    "crop": 192,
    "scale_min": 0.75,
    "scale_max": 1.5,
    "measure_every": 4,
}
RECIPES: dict[str, dict[str, Any]] = {
    # learns the embedded world in about a minute on two cores
    "toy": {},
    # street scenes of CamVid, 240x180, from scratch
    "camvid": {
        "width": 16,
        "epochs": 60,
        "batch": 4,
        "lr": 0.02,
        "crop": 160,
        "scale_min": 0.8,
        "scale_max": 1.25,
        "measure_every": 5,
    },
    # animals of PASCAL VOC, long side 256, from scratch
    "animals": {
        "width": 16,
        "epochs": 40,
        "batch": 8,
        "lr": 0.03,
        "crop": 160,
        "scale_min": 0.75,
        "scale_max": 1.33,
        "measure_every": 5,
    },
    # the same animals, on a trunk that has seen ImageNet
    "transfer": TRANSFER,
    # and on the same trunk from random weights, whose maps hold numbers around 1 and which has all to learn
    "transfer-scratch": {**TRANSFER, "init": "", "freeze": "", "trunk_lr": 1.0, "at_once": False},
}


def preset(name: str) -> Options:
    """The options of a recipe; `UsageError` with the nearest name for one that does not exist."""
    if name not in RECIPES:
        raise UsageError(f"recipe {name!r} does not exist; {nearest(name, RECIPES)}")
    return Options(recipe=name, **RECIPES[name])
