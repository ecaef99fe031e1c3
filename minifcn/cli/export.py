"""`minifcn export`: write a trained net for ONNX Runtime or PyTorch.

    minifcn export runs/toy model.onnx               for ONNX Runtime and its kin, at any size of image
    minifcn export runs/toy state.safetensors        a state dict for PyTorch, under the layers' plain names
    minifcn export weights.safetensors model.onnx    weights that `minifcn convert` wrote, or any that fit a net

Neither file says how to prepare a picture unless somebody writes it down, so the preprocessing goes into the metadata
of both, as JSON: order of the colours, scale, mean and std, for (x * scale - mean) / std on 0..255.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minifcn import __version__
from minifcn.cli.command import parse, split_words
from minifcn.data.batches import Preprocessing
from minifcn.errors import FormatError, UsageError
from minifcn.formats.checkpoint import replace_file
from minifcn.models.classifier import Classifier
from minifcn.models.fcn import FCN
from minifcn.nn import Module, Upsample, bilinear
from minifcn.training.trained import open_trained
from minifcn.weights.names import ours, renamed
from minifcn.weights.onnx_graph import onnx_model
from minifcn.weights.published import open_weights, recognised

Net = tuple[Module, tuple[str, ...], Preprocessing | None]


@dataclass(frozen=True)
class Options:
    """A net for other programs: `minifcn export RUN model.onnx` or `minifcn export RUN state.safetensors`."""

    best: bool = False
    """the checkpoint that was best on the run's validation split, instead of the newest"""


def main(argv: list[str]) -> int:
    """Write RUN's net as the second word's suffix says."""
    words, rest = split_words(Options, argv)
    options = parse(Options, rest, verb="export", words="RUN FILE")
    if len(words) != 2:
        raise UsageError("export: expected a run folder and a file: minifcn export RUN model.onnx")
    out = Path(words[1])
    if out.suffix not in (".onnx", ".safetensors"):
        raise UsageError(f"{out}: expected a name that ends in .onnx or .safetensors")
    net, classes, preprocessing = opened(Path(words[0]), best=options.best)
    notes = {"minifcn": __version__, "preprocessing": preprocessing.as_dict() if preprocessing else None}
    if out.suffix == ".onnx":
        if not isinstance(net, FCN | Classifier):
            raise UsageError(f"export: {type(net).__name__} cannot be written as ONNX; export to .safetensors instead")
        data = onnx_model(net, classes=classes, metadata=notes).SerializeToString()
        told = "image (N, 3, H, W) -> scores, at any H and W" if isinstance(net, FCN) else "image -> scores"
    else:
        data = state_file(net, {**notes, "classes": list(classes)})
        told = f"{len(torch_state(net))} arrays in PyTorch's layout"
    replace_file(out, [data])
    print(f"{told}\nimages: {preprocessing or 'not of three channels'}\nwrote {out}, {len(data):,} bytes")
    return 0


def opened(path: Path, *, best: bool) -> Net:
    """The net of a run, of a checkpoint or of a file of weights, with its classes and its preprocessing."""
    if not path.is_dir() and recognised(path):
        weights = open_weights(path)
        return weights.network(), weights.classes, weights.preprocessing
    trained = open_trained(path, best=best)
    return trained.net, trained.classes, trained.preprocessing


def torch_state(net: Module) -> dict[str, np.ndarray]:
    """The parameters as a state dict of PyTorch has them: `conv1_1.weight`, `score_fr.bias`, `upscore2.weight`.

    Layers have their plain names, without the places they stand in. An upsampling that is fixed here is there a
    `ConvTranspose2d(C, C, k, stride=s, groups=C, bias=False)` like any other, so its kernel is written, too.
    """
    state = net.state()
    names = renamed(list(state), ours)
    if len(set(names.values())) < len(names):
        raise FormatError("export: two layers of this net have the same plain name")
    arrays = {names[name]: np.ascontiguousarray(array) for name, array in state.items()}
    for name, child in net.children():
        if isinstance(child, Upsample) and child.w is None:
            kernel = bilinear(child.layer.kernel)
            arrays[f"{name}.weight"] = np.ascontiguousarray(np.repeat(kernel[None, None], child.groups, axis=0))
    return arrays


def state_file(net: Module, notes: Mapping[str, Any]) -> bytes:
    """A safetensors file of `torch_state`, with `notes` in its metadata, each as JSON."""
    from safetensors.numpy import save

    metadata = {name: json.dumps(value) for name, value in notes.items()}
    return save(torch_state(net), {"format": "pt", **metadata})
