"""What follows from the options of a run: its data sets, preprocessing, augmentation, network and solver."""

from __future__ import annotations

import dataclasses
import math
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from minifcn.data.augment import Augmentation
from minifcn.data.batches import Preprocessing
from minifcn.data.dataset import Dataset, Pictures, Subset
from minifcn.data.inputs import CHANNELS, Second, planes_of
from minifcn.data.opening import open_data
from minifcn.data.shapes import Shapes
from minifcn.data.tools.silent import warnings_of
from minifcn.data.voc import SEG11VALID
from minifcn.errors import DataError, UsageError
from minifcn.formats.limits import path_of
from minifcn.models.context import with_context
from minifcn.models.fcn import FCN, fcn
from minifcn.models.paper import LateFusion
from minifcn.models.resnet import FCN_ResNet
from minifcn.models.trunk import Trunk, enlarged
from minifcn.models.zoo import NETS, TRUNKS, trunk_name
from minifcn.nn import Module
from minifcn.optim import SGD, Adam, Muon, caffe_multipliers
from minifcn.training.options import MEANS, WORLD, Options
from minifcn.training.progress import silent
from minifcn.training.ranks import ALONE, Alone

Learner = FCN | LateFusion | FCN_ResNet
"""What a run trains."""

WORLD_IMAGES = {"train": 2000, "val": 100, "test": 100}  # unless the options say otherwise
HOLD_OUT = 2015  # the seed of the images that hold_out takes away
VARIABLE = "$MINIFCN_DATA"


def data_sets(o: Options, *, say: Callable[[str], None] = silent, ranks: Alone = ALONE) -> tuple[Dataset, Dataset]:
    """Return the training and the validation set; `DataError` or `UsageError` for what cannot be used.

    `say` prints what `skip_bad` leaves out, and what else differs from what was asked for, a line each.
    """
    learned = dataclasses.replace(o, data=o.train_data or o.data)
    train = data_set(learned, o.train_split, o.max_train, say=say, ranks=ranks)
    if not o.hold_out:
        val = _measured_on(o, say, ranks)
        if tuple(train.classes) != tuple(val.classes):
            raise UsageError(
                f"{o.train_data}: has the classes {', '.join(train.classes):.80}; expected those of "
                f"{o.data}, {', '.join(val.classes):.80}"
            )
        return train, _unseen(o, val, train, say) if o.train_data else val
    if o.hold_out >= len(train):
        raise UsageError(f"option hold_out is {o.hold_out}; expected fewer than the {len(train)} training images")
    order = np.random.default_rng(HOLD_OUT).permutation(len(train))  # whatever the run's seed: runs are compared
    kept, held = np.sort(order[o.hold_out :]), np.sort(order[: o.hold_out])
    return Subset(train, kept.tolist()), Subset(train, held.tolist())


def _measured_on(o: Options, say: Callable[[str], None], ranks: Alone) -> Dataset:
    """Return the validation split; where that is the paper's, and there is no list of it, VOC's own."""
    try:
        return data_set(o, o.val_split, o.max_val, say=say, ranks=ranks)
    except DataError as fault:
        if o.val_split != SEG11VALID:
            raise
        val = data_set(o, "val", o.max_val, say=say, ranks=ranks)
        say(f"measured on split val, for want of the paper's: {fault}")
        return val


def _unseen(o: Options, val: Dataset, train: Dataset, say: Callable[[str], None]) -> Dataset:
    """`val` without the images that are learned from: two data sets of one origin share some."""
    seen = set(train.ids)
    kept = [i for i, name in enumerate(val.ids) if name not in seen]
    if not kept:
        raise UsageError(f"{o.data}: split {o.val_split} has only images that are learned from; expected others")
    if len(kept) < len(val):
        count = f"{len(val) - len(kept)} of {len(val)} images"
        say(f"split {o.val_split}: left out {count}, which are learned from ({o.train_data})")
    return Subset(val, kept) if len(kept) < len(val) else val


def data_set(
    o: Options, split: str, most: int, *, say: Callable[[str], None] = silent, ranks: Alone = ALONE
) -> Dataset:
    """Return a split, or its first `most` images (0: all)."""
    dataset = _images(o, split, most, say=say, ranks=ranks)
    return Second(dataset) if o.heads == "geometry" else dataset


def _images(o: Options, split: str, most: int, *, say: Callable[[str], None], ranks: Alone) -> Dataset:
    if o.data == WORLD and planes_of(o.inputs):
        raise UsageError(f"option inputs is {o.inputs!r}, planes of images; expected a data set of yours, `data=DIR`")
    if o.data == WORLD:
        drawn, sees_hha = most or WORLD_IMAGES.get(split, 0), "hha" in o.inputs
        return Shapes(split, count=drawn, size=o.world_size, seed=o.seed, hha=sees_hha)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # `skipped` says the same, and is said below
        dataset = open_data(located(o.data), split, planes=planes_of(o.inputs), skip_bad=o.skip_bad)
    if dataset.skipped:
        count = f"{len(dataset.skipped)} of {len(dataset.skipped) + len(dataset)}"
        say(f"split {split}: left out {count} images that cannot be used; the first: {dataset.skipped[0][1]}")
    for warning in warnings_of(dataset, part=ranks.share(len(dataset)), gather=ranks.gather):
        say(f"warning: split {split}: {warning}")
    if not len(dataset):
        raise UsageError(f"{o.data}: split {split} has no images; expected at least one")
    return Subset(dataset, range(min(most or len(dataset), len(dataset))))


def located(path: str) -> str:
    """Return `path` with a leading $MINIFCN_DATA or ~ replaced by its value; `UsageError` where that is not set."""
    if not path.startswith(VARIABLE):
        return str(path_of(path))
    folder = os.environ.get(VARIABLE[1:])
    if not folder:
        raise UsageError(
            f"{path}: the environment variable {VARIABLE[1:]} is not set; set it to the folder that holds "
            f"{path.removeprefix(VARIABLE).lstrip('/')}, or name a place with `data=...`"
        )
    return f"{path_of(folder)}{path.removeprefix(VARIABLE)}"


def check_share(o: Options, images: int, ranks: int) -> None:
    """Raise `UsageError` where some of so many ranks would have nothing to do in any step."""
    if not o.adds_up and min(o.accumulate, math.ceil(images / o.batch)) < ranks:
        raise UsageError(
            f"{ranks} ranks share steps of {o.accumulate} batches, and a dice loss or a balanced sample looks at "
            "a whole batch; expected at least one batch for each rank: choose a larger `accumulate=...`"
        )
    per_step = min(o.batch * o.accumulate, images)
    if per_step < ranks:
        raise UsageError(
            f"{ranks} ranks share steps of {per_step} image{'s' * (per_step > 1)}; expected at least one "
            "image for each rank: start fewer ranks, or choose a larger `batch=...` or `accumulate=...`"
        )


def preprocessing(o: Options, own: Preprocessing | None) -> Preprocessing | None:
    """Return what the images go through: `own`, of the weights, with the mean of `mean`; None where it is to be fitted.

    Only the mean is replaced: with red first or in another range, it is the same colour.
    """
    if planes_of(o.inputs):
        return None
    if not o.mean:
        return own
    named = MEANS[o.mean]
    if own is None:
        return named
    first, second, third = (value * own.scale for value in named.mean)
    turned = own.order != named.order
    return dataclasses.replace(own, mean=(third, second, first) if turned else (first, second, third))


def fitted(o: Options, train: Pictures) -> Preprocessing:
    """Return the preprocessing that the training images themselves give."""
    return (Preprocessing.fit_planes if planes_of(o.inputs) else Preprocessing.fit)(train)


def augmentation(o: Options, fill: tuple[int, int, int]) -> Augmentation:
    """Return what is done to the images; `fill` is shown where there is no picture."""
    return Augmentation(
        mirror=o.mirror,
        translate=o.translate,
        crop=o.crop or None,
        scale=(o.scale_min, o.scale_max),
        fill=fill,
        jitter=o.jitter,
        rotate=o.rotate,
    )


def network(o: Options, classes: int, stride: int, *, geometry: int = 0, init: str = "he") -> Learner:
    """Return the net of one stage, freshly initialised from the seed; `geometry` counts the classes of a second head.

    With `init` "zero" no number is drawn; with "meta" the parameters are shapes without memory, to be loaded.
    """
    heads = {"sem": classes, "geo": geometry} if o.two_heads else classes
    nets = {
        part: _one_net(o, heads, stride, channels=planes_of(part) or CHANNELS[part], init=init, seed=o.seed + i)
        for i, part in enumerate(o.inputs.split("+"))
    }
    return LateFusion(**nets) if len(nets) > 1 else nets[o.inputs]  # type: ignore[arg-type]


def _one_net(o: Options, classes: Any, stride: int, *, channels: int, init: str, seed: int) -> FCN | FCN_ResNet:
    name = trunk_name(o.trunk, o.layers)
    if o.is_whole:
        whole = {"width": o.width, "in_channels": channels, "dropout": o.dropout, "init": init, "seed": seed}
        return NETS[name](classes=classes, **whole)

    def trunk(**options: Any) -> Trunk:
        made = TRUNKS[name](**options)
        made = enlarged(made, o.enlarge, in_channels=channels) if o.enlarge > 1 else made
        return with_context(made) if o.context else made

    return fcn(
        trunk,
        stride,
        classes=classes,
        width=o.width,
        padding=int(o.padding) if o.padding.isdigit() else o.padding,
        in_channels=channels,
        dropout=o.dropout,
        upsampling=o.upsampling,
        fusion=o.fusion,
        skip_scale=NETS[name].skip_scale if o.at_once else None,
        init=init,
        seed=seed,
        **({"fc": o.fc} if o.fc else {}),
    )


def solver(o: Options, net: Module) -> SGD | Adam:
    """Return the optimizer of `net`, at the rate of the first stage."""

    def multipliers(name: str) -> tuple[float, float]:
        rate, decay = caffe_multipliers(name)
        if "trunk." not in name:
            return rate, decay
        return (o.trunk_lr, 1.0) if o.trunk_bias == "alike" else (rate * o.trunk_lr, decay)

    if o.optimizer in ("adam", "muon"):
        betas, kind = (o.momentum, 0.999), Muon if o.optimizer == "muon" else Adam
        return kind(net, lr=o.lr, betas=betas, weight_decay=o.weight_decay, multipliers=multipliers)
    return SGD(net, lr=o.lr, momentum=o.momentum, weight_decay=o.weight_decay, multipliers=multipliers)
