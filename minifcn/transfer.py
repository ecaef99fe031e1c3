"""Transfer: the trunk begins with what a classifier has learned from a million photographs (FCN, section 4.1).

What is taken is everything between the image and the last feature map; the classifier's answer is left behind, and
the layers that score are new. The images have to go through what the classifier's went through, so the weights bring
their `Preprocessing` along.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from minifcn.errors import FormatError
from minifcn.models.fcn import FCN
from minifcn.options import located
from minifcn.pretrained import SQUEEZENET, WeightSet, open_weights, shipped
from minifcn.surgery import transplant
from minifcn.weights.names import layer_of

SHIPPED = "imagenet"


def starting_weights(init: str) -> WeightSet:
    """The weights that `--init` means: a file, or "imagenet", the ones that come with the library."""
    return open_weights(shipped(SQUEEZENET) if init == SHIPPED else located(init))


def begin(net: FCN, weights: WeightSet) -> str:
    """Give the trunk of `net` its weights, and tell which layers took them, which are not needed, and which are new.

    Weights that end early leave the rest of the trunk as it is. Raises `FormatError` naming the first layer that
    differs, and changes nothing, where they are of another net.
    """
    own = {name: parameter.shape for name, parameter in net.parameters() if name.startswith("trunk.")}
    fault = next(differences(own, weights.arrays), None)
    if fault:
        raise FormatError(f"{weights.path}: holds {weights.net}, which is not this net's trunk: {fault}")
    taken = transplant(net, {name: array for name, array in weights.arrays.items() if name in own})
    unused = layers(name for name in weights.arrays if name not in own)
    new = layers(name for name, _ in net.parameters() if name not in taken)
    first, *_, last = layers(taken)
    return (
        f"weights of {weights.net} from {weights.path.name}: {len(layers(taken))} layers taken, {first} to {last}; "
        f"left there: {', '.join(unused) or 'nothing'}; new: {', '.join(new)}"
    )


def differences(own: Mapping[str, tuple[int, ...]], arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    """What keeps the arrays from being the first layers of the trunk with the shapes `own`, in order."""
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
    """The layers that parameters of these names belong to, each once."""
    return list(dict.fromkeys(layer_of(name)[0] for name in names))
