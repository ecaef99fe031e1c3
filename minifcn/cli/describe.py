"""`minifcn describe NET`: list a net's layers, their cost and their memory, without running it.

minifcn describe fcn8s --size 500x500
minifcn describe fcn-squeezenet --size 256x192 --classes 12 --batch 4
minifcn describe fcn8s --launches         # the kernels that a training step launches on a GPU, and what they move
minifcn describe --check                  # the predicted memory beside what the arrays took; --device gpu: there
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from minifcn.backend import DEVICES
from minifcn.cli.command import image_size, net_options, parse_words, say
from minifcn.errors import UsageError
from minifcn.experiments.bench.prediction import check
from minifcn.introspect.describe import describe, mib
from minifcn.introspect.launches import launches
from minifcn.models.classifier import Classifier
from minifcn.models.zoo import NETS, named
from minifcn.training.device import choose_device
from minifcn.training.ranges import check_choices, check_ranges


@dataclass(frozen=True)
class Options:
    """Every layer of a net, its cost and its memory, before anything runs: `minifcn describe fcn8s --size 500x500`."""

    size: Annotated[str, "height x width of the image (empty: 500x500, or a classifier's own)"] = ""
    width: Annotated[int, "channels, as the net counts them (0: its own)"] = 0
    padding: Annotated[
        str,
        'the first layer\'s padding: a number, "same" or "safe" (empty: the net\'s own, the paper\'s 100 for its nets)',
    ] = ""
    classes: Annotated[int, "number of classes (0: as published)"] = 0
    layers: Annotated[int, "which VGG, 11, 13, 16 or 19 (0: 16)"] = 0
    batch: Annotated[int, "images at once"] = 1
    device: Annotated[str, '"cpu" or "gpu": whose memory to report; no GPU is needed'] = "cpu"
    launches: Annotated[
        bool,
        "instead: the kernels that a training step launches on a GPU, and the bytes they move; no GPU is needed",
    ] = False
    check: Annotated[
        bool,
        "instead: compute four small nets at two sizes on that device, and print what was taken beside the prediction",
    ] = False


def main(argv: list[str]) -> int:
    """Print the layers, or the launches, of a net. Return the exit code."""
    words, options = parse_words(Options, argv, verb="describe")
    check_choices(options, {"device": DEVICES})
    if options.check:
        return print_check(choose_device(options.device)[0])
    make = named(NETS, " ".join(words), f"describe: found net {' '.join(words) or 'none'!r}")
    given = net_options(options)
    check_ranges(options, [("batch", 1, math.inf)])
    try:
        net = make(init="zero", **given)
    except TypeError as fault:  # the trunk takes what it takes, and says so like any function
        stray = [name for name in given if f"'{name}'" in str(fault)]
        if not stray:
            raise
        raise UsageError(f"option {stray[0]} is not one of {words[0]}'s; leave it out") from fault
    own = f"{net.trunk.size}" if isinstance(net, Classifier) else "500x500"
    size = image_size(options.size or own)
    if options.launches:
        described: object = launches(net, size, batch=options.batch)
    else:
        described = describe(net, size, batch=options.batch, device=options.device)
    say(*str(described).split("\n"))
    return 0


def print_check(device: str) -> int:
    """Print prediction and measurement for each net and size. Return 1 if any is more than a tenth off."""
    worst = 0.0
    for row in check(device=device):
        size = f"{row.size}x{row.size}"
        say(f"{row.net:<14} {size}  {row.what:<14} predicted {mib(row.predicted):>11}, taken {mib(row.taken):>11}")
        worst = max(worst, row.off)
    say(f"off by {100 * worst:.1f} % at worst; a tenth is allowed")
    return int(worst > 0.1)
