"""`minifcn pretrain`: train a trunk as a classifier, for `minifcn train --init`.

    minifcn pretrain trunk.safetensors
    minifcn train --init trunk.safetensors --stages 32,16,8
    minifcn pretrain alexnet.safetensors --trunk alexnet --width 2

training/pretraining.py explains the method.
"""

from __future__ import annotations

import shlex

from minifcn.cli.command import parse_words, say
from minifcn.kernels.threads import cores, set_threads
from minifcn.models.zoo import NETS
from minifcn.training.pretraining import Pretraining, pretrain


def main(argv: list[str]) -> int:
    """Train a trunk, write it, and say what to do with it. Return the exit code."""
    words, options = parse_words(Pretraining, argv, verb="pretrain", words="FILE.safetensors", count=1)
    set_threads(options.threads or cores())
    pretrain(options, words[0], say=say)
    net = {"trunk": options.trunk, "layers": options.layers, "width": options.width}
    if options.trunk != "vgg":
        del net["layers"]
    if not options.trunk.startswith("vgg"):
        net |= {"padding": "safe", "stages": NETS[options.trunk].strides[0]}
    chosen = " ".join(f"--{name} {value}" for name, value in net.items())
    say(f"to begin with it: minifcn train {chosen} --init {shlex.quote(words[0])}")
    return 0
