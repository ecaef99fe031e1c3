"""A net as a state dict of PyTorch, in a safetensors file."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from minifcn.errors import FormatError
from minifcn.formats.safetensors import packed
from minifcn.models.resnet import FCN_ResNet
from minifcn.nn import Module, Upsample, bilinear
from minifcn.weights.names import ours, renamed, torchvision_segmentation


def torch_state(net: Module) -> dict[str, np.ndarray]:
    """Return the parameters as a state dict of PyTorch has them: `conv1_1.weight`, `score_fr.bias`, `upscore2.weight`.

    Layers have their plain names, without the places they stand in; those of `fcn_resnet50` have torchvision's. An
    upsampling that is fixed here is there a `ConvTranspose2d(C, C, k, stride=s, groups=C, bias=False)` like any other,
    so its kernel is written, too.
    """
    state = net.state_dict()
    names = renamed(list(state), torchvision_segmentation if isinstance(net, FCN_ResNet) else ours)
    if len(set(names.values())) < len(names):
        raise FormatError("two layers of this net have the same plain name")
    arrays = {names[name]: np.ascontiguousarray(array) for name, array in state.items()}
    for name, child in net.children():
        if isinstance(child, Upsample) and child.w is None:
            kernel = bilinear(child.layer.kernel)
            arrays[f"{name}.weight"] = np.ascontiguousarray(np.repeat(kernel[None, None], child.groups, axis=0))
    return arrays


def state_file(net: Module, notes: Mapping[str, Any]) -> bytes:
    """Return a safetensors file of `torch_state`, with `notes` in its metadata, each as JSON."""
    metadata = {name: json.dumps(value) for name, value in notes.items()}
    return packed(torch_state(net), {"format": "pt", **metadata})
