"""Start a trunk from the weights of a trained classifier (FCN, section 4.1).

The FCN takes every layer between the image and the last feature map. The classifier's last layers are left out, and the
score layers are new. The images need the classifier's preprocessing, so the weights come with their `Preprocessing`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from minifcn.errors import FormatError, UsageError
from minifcn.formats.checkpoint import meta_of
from minifcn.models.fcn import FCN
from minifcn.models.paper import LateFusion
from minifcn.models.resnet import FCN_ResNet
from minifcn.surgery import transplant, widened
from minifcn.training.progress import silent
from minifcn.training.run_folder import Say
from minifcn.training.setup import Learner, located
from minifcn.training.trained import open_trained, part
from minifcn.weights.names import layer_of
from minifcn.weights.published import PUBLISHED, SQUEEZENET, WeightSet, lite0_file, open_weights, shipped

SHIPPED, INSTALLED = "imagenet", "lite0"


def starting_weights(init: str, *, say: Say = silent) -> list[WeightSet]:
    """Return the weights that `init` names: a file, a run of ours, "imagenet" or "lite0".

    "imagenet" are those that come with the library, "lite0" those of EfficientNet-Lite0 from the extra of that name.

    Several, separated by commas, start the several nets of late fusion. `say` prints skipped checkpoints.
    """
    return [_weights(word.strip(), say) for word in init.split(",")]


def _weights(word: str, say: Say) -> WeightSet:
    if word == SHIPPED:
        return open_weights(shipped(SQUEEZENET))
    if word == INSTALLED:
        return open_weights(lite0_file(), net="efficientnet-lite0")
    path = Path(located(word))
    if not path.is_dir() and {"net", "options"}.isdisjoint(meta_of(path)):  # not of a run
        return open_weights(path, say=say)
    trained = open_trained(path, say=say)
    return WeightSet(path, trained.name, "", trained.classes, trained.preprocessing, trained.net.state_dict())


def start(net: Learner, weights: Sequence[WeightSet]) -> list[str]:
    """Load weights into a net, or into each net of late fusion its own; return a line for each.

    One set starts all nets, unless it is of a run of late fusion, which has a part for each. Raises `UsageError` for
    another number of sets than of nets, and `FormatError` as `begin` does.
    """
    nets = {f"{name}: ": child for name, child in net.children()} if isinstance(net, LateFusion) else {"": net}
    sets = list(weights) * (len(nets) if len(weights) == 1 else 1)
    parts = [part(weights[0].arrays, f"{name}.") for name, _ in net.children()] if len(nets) > 1 else []
    if parts and all(parts):
        sets = [replace(weights[0], arrays=arrays) for arrays in parts]
    if len(sets) != len(nets):
        raise UsageError(
            f"option init names {len(sets)} sets of weights; expected one, or one for each of {len(nets)} nets"
        )
    return [f"{name}{begin(each, one)}" for (name, each), one in zip(nets.items(), sets, strict=True)]  # type: ignore[arg-type]


def begin(net: FCN | FCN_ResNet, weights: WeightSet) -> str:
    """Load weights into the trunk of `net`. Return a line: layers that took them, layers left there, and new ones.

    Of a published net nothing else is taken; of a net of ours, or for a net that is trained whole, the heads are, too,
    where they are as large. Weights that end early leave the rest of the trunk as it is, and a plane beyond the three
    of a photograph begins as if it were grey; so do one or two planes alone. Raises `FormatError` naming the first
    layer that differs, and changes nothing, where they are of another net.
    """
    shapes = {name: parameter.shape for name, parameter in net.named_parameters()}
    own = {name: shape for name, shape in shapes.items() if name.startswith("trunk.")}
    arrays = with_planes(own, weights.arrays)
    fault = next(differences(own, arrays), None)
    if fault:
        first = next(iter(own))
        thin = weights.net in PUBLISHED and first in arrays and len(arrays[first]) != own[first][0]
        cure = f"; `width={net.trunk.own_width}` is the published trunk's" if thin else ""
        raise FormatError(f"{weights.path}: holds {weights.net}, which is not this net's trunk: {fault}{cure}")
    if weights.net not in PUBLISHED or isinstance(net, FCN_ResNet):
        own |= {name: shapes[name] for name, array in arrays.items() if shapes.get(name) == array.shape}
    taken = transplant(net, {name: array for name, array in arrays.items() if name in own})
    unused = layers(name for name in arrays if name not in own)
    new = layers(name for name, _ in net.named_parameters() if name not in taken)
    kept = layers(taken)
    count = "1 layer" if len(kept) == 1 else f"{len(kept)} layers"
    ends = " to ".join(dict.fromkeys((kept[0], kept[-1])))
    return (
        f"weights of {weights.net} from {weights.path.name}: {count} taken, {ends}; "
        f"left there: {', '.join(unused) or 'nothing'}; new: {', '.join(new) or 'nothing'}"
    )


def with_planes(own: Mapping[str, tuple[int, ...]], arrays: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Return `arrays`, the first layer fitted to the planes that `own` has there, where it has three.

    More planes than three begin as if they were grey; one or two see what a grey photograph shows.
    """
    first = next(iter(own))
    if first not in arrays or arrays[first].ndim != 4 or arrays[first].shape[1] != 3:
        return arrays
    planes = own[first][1]
    if planes > 3:
        return widened(arrays, first, planes)
    grey = arrays[first].sum(axis=1, keepdims=True) / planes
    return arrays if planes == 3 else {**arrays, first: np.repeat(grey, planes, axis=1)}


def differences(own: Mapping[str, tuple[int, ...]], arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Yield what keeps the arrays from being the first layers of the trunk with the shapes `own`, in order."""
    names = list(own)
    end = max((place for place, name in enumerate(names, start=1) if name in arrays), default=1)
    for name in names[:end]:
        if name not in arrays:
            yield f"{layer_of(name)[0]} is missing"
        elif arrays[name].shape[:1] != own[name][:1] or arrays[name].size != math.prod(own[name]):
            yield f"{layer_of(name)[0]} has shape {arrays[name].shape}; expected {own[name]}"
    for name in arrays:
        if name.startswith("trunk.") and name not in own:
            yield f"{layer_of(name)[0]} is no layer of it"


def layers(names: Iterator[str] | list[str]) -> list[str]:
    """Return the layers that parameters of these names belong to, each once."""
    return list(dict.fromkeys(layer_of(name)[0] for name in names))
