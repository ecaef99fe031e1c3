"""`minifcn convert`: read weights in any supported format and write a minifcn checkpoint.

    minifcn convert VGG_ILSVRC_16_layers.caffemodel vgg16.safetensors
    minifcn convert squeezenet1_1.pth squeezenet.safetensors
    minifcn convert anything.h5 arrays.safetensors --plain          the arrays alone, under their own names

The format is detected by the file's first bytes, and the net by the names and shapes in it. A file that fits no net is
refused, with the first layer that differs from the nearest net. The checkpoint also holds the net's preprocessing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from minifcn.cli.command import parse_words, relay, say
from minifcn.errors import UsageError
from minifcn.formats.checkpoint import save_checkpoint
from minifcn.formats.files import read
from minifcn.weights.published import open_weights


@dataclass(frozen=True)
class Options:
    """Convert weights of Caffe, PyTorch, NumPy, Keras or MATLAB into a checkpoint: `minifcn convert IN OUT`."""

    net: Annotated[str, "the net it has to be, vgg16 for instance; by default the one that fits"] = ""
    part: Annotated[str, "the dict to take where the file holds several nets, model_ema for instance"] = ""
    plain: Annotated[bool, "copy the arrays under the names they have, whatever net they are of"] = False
    allow_nonfinite: Annotated[bool, "take weights with NaN or infinity in them"] = False


def main(argv: list[str]) -> int:
    """Read IN, find its net, and write OUT with the net's name, its classes and its preprocessing."""
    words, options = parse_words(Options, argv, verb="convert", words="IN OUT.safetensors", count=2)
    source, target = map(Path, words)
    if target.suffix != ".safetensors":
        raise UsageError(f"{target}: expected a name that ends in .safetensors, the format that is written")
    if target.exists() and source.exists() and target.samefile(source):
        raise UsageError(f"{target}: is the file to read; choose another name for the file to write")
    if options.plain:
        arrays = read(source, allow_nonfinite=options.allow_nonfinite)
        save_checkpoint(target, arrays, {"source": source.name})
        say(f"{len(arrays)} arrays as they are", f"wrote {target}")
        return 0
    weights = open_weights(
        source, net=options.net, part=options.part, allow_nonfinite=options.allow_nonfinite, say=relay
    )
    weights.save(target)
    say(str(weights), f"images: {weights.preprocessing or 'not of three channels; prepare them yourself'}")
    say(f"wrote {target}")
    return 0
