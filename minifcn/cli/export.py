"""`minifcn export`: write a trained net for ONNX Runtime or PyTorch.

    minifcn export runs/world model.onnx               for ONNX Runtime and its kin, at any size of image
    minifcn export runs/world state.safetensors        a state dict for PyTorch, under the layers' plain names
    minifcn export weights.safetensors model.onnx    weights that `minifcn convert` wrote, or any that fit a net

Neither format has a place for the preprocessing of a picture, so it goes into the metadata of both, as JSON: the order
of the colours, scale, mean and std, for (x * scale - mean) / std on 0..255.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from minifcn import __version__
from minifcn.cli.command import parse_words, say, warn
from minifcn.data.batches import Preprocessing
from minifcn.errors import UsageError
from minifcn.formats.checkpoint import replace_file
from minifcn.formats.limits import path_of
from minifcn.models.classifier import Classifier
from minifcn.models.fcn import FCN
from minifcn.models.resnet import FCN_ResNet
from minifcn.nn import Module
from minifcn.training.trained import open_trained
from minifcn.weights.onnx_graph import one_size, onnx_model, smallest
from minifcn.weights.published import open_weights, recognised
from minifcn.weights.torch_state import state_file, torch_state

Net = tuple[Module, tuple[str, ...], Preprocessing | None]


@dataclass(frozen=True)
class Options:
    """Write a net for other programs: `minifcn export RUN model.onnx` or `minifcn export RUN state.safetensors`."""

    best: Annotated[bool, "the checkpoint that was best on the run's validation split, instead of the newest"] = False


def main(argv: list[str]) -> int:
    """Write RUN's net as the second word's suffix says."""
    words, options = parse_words(Options, argv, verb="export", words="RUN FILE", count=2)
    out = path_of(words[1])
    if out.suffix not in (".onnx", ".safetensors"):
        raise UsageError(f"{out}: expected a name that ends in .onnx or .safetensors")
    net, classes, preprocessing = opened(path_of(words[0]), best=options.best)
    notes = {"minifcn": __version__, "preprocessing": preprocessing.as_dict() if preprocessing else None}
    if out.suffix == ".onnx":
        if not isinstance(net, FCN | FCN_ResNet | Classifier):
            raise UsageError(f"export: {type(net).__name__} cannot be written as ONNX; export to .safetensors instead")
        data = onnx_model(net, classes=classes, metadata=notes).SerializeToString()
        summary = takes(net)
    else:
        data = state_file(net, {**notes, "classes": list(classes)})
        summary = f"{len(torch_state(net))} arrays in PyTorch's layout"
    replace_file(out, [data])
    say(summary, f"images: {preprocessing or 'not of three channels'}", f"wrote {out}, {len(data):,} bytes")
    return 0


def takes(net: FCN | FCN_ResNet | Classifier) -> str:
    """Return which images the exported net takes."""
    side, least, channels = one_size(net), smallest(net), next(net.parameters()).shape[1]
    if side:
        return f"image (N, {channels}, {side}, {side}) -> scores"
    return f"image (N, {channels}, H, W) -> scores, at any H and W{f' of at least {least}' if least > 1 else ''}"


def opened(path: Path, *, best: bool) -> Net:
    """Return the net of a run, of a checkpoint or of a file of weights, with its classes and its preprocessing."""
    if not path.is_dir() and recognised(path):
        weights = open_weights(path, say=warn)
        return weights.network(), weights.classes, weights.preprocessing
    trained = open_trained(path, best=best, say=warn)
    return trained.net, trained.classes, trained.preprocessing
