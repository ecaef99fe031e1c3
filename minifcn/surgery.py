"""Net surgery: make a classifier convolutional, and copy weights between nets.

A fully connected layer is a convolution that has only ever seen an image of one size (FCN, section 3.1). Rewritten as
one, by nothing but a reshape, it answers for every window of a larger image, and the windows share their work.
The rest moves weights: by name from net to net, into a score layer of more classes, into a fourth input channel.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping

import numpy as np

from minifcn.backend import Array, to_host, xp_of
from minifcn.errors import FormatError, ShapeError
from minifcn.nn import BatchNorm2d, Conv2d, Linear, Module, Sequential, Upsample, bilinear
from minifcn.tensor import Parameter


def as_convolution(linear: Linear) -> Conv2d:
    """The convolution that is `linear`: w (O, C*k*k) read as (O, C, k, k), b as it is."""
    channels, kernel, _ = linear.maps
    conv = Conv2d(channels, linear.w.shape[0], kernel, relu=linear.relu, init="zero")
    conv.w = Parameter(linear.w.data.reshape(conv.w.shape))
    conv.b = linear.b
    return conv


def fold_batch_norm(net: Module) -> Module:
    """Return a copy of `net` whose batch normalisations are in the convolutions before them, and have gone.

    y = (w*x + c - mean) g / sqrt(var + eps) + beta is a convolution with the weights w g / sqrt(var + eps): in `eval`
    the copy computes the same in one pass less. Raises `ShapeError` for a normalisation that follows no convolution in
    a `Sequential`, or one with a ReLU inside.
    """
    net = copy.deepcopy(net)
    for module in list(net.modules()):
        names = list(module.sequence()) if isinstance(module, Sequential) else []
        for before, name in itertools.pairwise(["", *names]):
            norm = getattr(module, name)
            if not isinstance(norm, BatchNorm2d):
                continue
            conv = getattr(module, before, None)
            if not isinstance(conv, Conv2d) or conv.relu:
                raise ShapeError(f"fold_batch_norm: {name} does not follow a convolution without a ReLU inside")
            gain = norm.w.data / xp_of(norm.var.data).sqrt(norm.var.data + norm.eps)
            bias = norm.b.data - norm.mean.data * gain
            conv.b = Parameter(bias if conv.b is None else bias + conv.b.data * gain)
            conv.w = Parameter(conv.w.data * gain[:, None, None, None])
            delattr(module, name)
    return net


def convolutionalize(net: Module) -> Module:
    """Return a copy of `net` with a convolution in the place of every fully connected layer; its answers become a map.

    (N, classes) becomes (N, classes, 1, 1) at the size that `net` takes, and one cell for each window of a larger
    image. Raises `ShapeError` if there is nothing to convert.
    """
    net = copy.deepcopy(net)
    found = [
        (module, name, child)
        for module in list(net.modules())
        for name, child in module.children()
        if isinstance(child, Linear)
    ]
    if not found:
        raise ShapeError(f"convolutionalize: {type(net).__name__} has no fully connected layer; it takes any size now")
    for module, name, child in found:
        setattr(module, name, as_convolution(child))
    return net


def transplant(net: Module, weights: Mapping[str, Array], *, suffix: str = "") -> list[str]:
    """Give every parameter of `net` the array of its name in `weights`; return the names that found a place.

    An array of another shape and the same count is poured in flat, in the order C, H, W: a fully connected w (O, I*k*k)
    into a convolution's (O, I, k, k). Names that the net does not have are left out, as in Caffe. With `suffix`,
    "conv1.w" goes to "conv1" + suffix + ".w". Raises `FormatError`, and changes nothing, where no name fits, or where
    an array has another count or another O.
    """
    own = dict(net.named_parameters())
    places = {}
    for name, array in weights.items():
        layer, _, part = name.rpartition(".")
        place = f"{layer}{suffix}.{part}"
        if place in own:
            places[place] = np.array(to_host(array))
    unfit = [
        f"{name} {x.shape} for {own[name].shape}"
        for name, x in places.items()
        if x.size != own[name].size or x.shape[:1] != own[name].shape[:1]
    ]
    if unfit or not places:
        why = f"no name of {', '.join(list(weights)[:3])} ... is this net's, as {', '.join(list(own)[:3])} ... are"
        raise FormatError(f"transplant: {'these do not fit: ' + '; '.join(unfit[:4]) if unfit else why}")
    net.load_state_dict({name: array.reshape(own[name].shape) for name, array in places.items()}, strict=False)
    return list(places)


def expand_score(net: Module, weights: Mapping[str, Array]) -> list[str]:
    """Start score layers of more classes from those of fewer: the old rows first, the new ones as they are in `net`.

    Takes the names that `net` has, too, with fewer rows and all else equal; returns them.
    """
    larger = {}
    for name, parameter in net.named_parameters():
        old = to_host(weights[name]) if name in weights else None
        if old is not None and old.shape[1:] == parameter.shape[1:] and old.shape[0] < parameter.shape[0]:
            larger[name] = np.array(to_host(parameter.data))
            larger[name][: len(old)] = old
    net.load_state_dict(larger, strict=False)
    return list(larger)


def interpolate(net: Module) -> None:
    """Make every learned upsampling of `net` bilinear again: the filter on the diagonal, zeros beside it."""
    for module in net.modules():
        if isinstance(module, Upsample) and module.w is not None:
            fresh = np.zeros(module.w.shape, np.float32)
            diagonal = np.arange(len(fresh))
            fresh[diagonal, diagonal % fresh.shape[1]] = bilinear(module.layer.kernel)
            module.load_state_dict({"w": fresh})


def widened(weights: Mapping[str, Array], name: str, channels: int) -> dict[str, np.ndarray]:
    """`weights` with more input channels in `name`: each new one looks like the mean of the old ones.

    Early fusion of colour and depth: a fourth plane enters conv1, at first as if it were grey (the NYUDv2 nets).
    """
    w = to_host(weights[name])
    if w.ndim != 4 or channels < w.shape[1]:
        raise ShapeError(f"widened: {name} has shape {w.shape}; expected (O, I, k, k) with I of at most {channels}")
    grey = np.repeat(w.mean(axis=1, keepdims=True), channels - w.shape[1], axis=1)
    return {**weights, name: np.concatenate([w, grey], axis=1)}
