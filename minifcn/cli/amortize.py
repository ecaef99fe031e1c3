"""`minifcn amortize`: time a net patch by patch, and on the whole image at once.

minifcn amortize                              CaffeNet on 500x500 pixels: 10x10 windows of 227
minifcn amortize --net lenet --size 100
minifcn amortize --photo cat.jpg
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from minifcn.cli.command import parse, say
from minifcn.data.files import read_image
from minifcn.errors import UsageError
from minifcn.experiments.amortize import SLIDING, measure, noise, square
from minifcn.geometry import Grid, out_size
from minifcn.kernels.threads import set_threads
from minifcn.models.zoo import named
from minifcn.training.device import choose_device
from minifcn.training.ranges import check_ranges


@dataclass(frozen=True)
class Options:
    """Time a classifier on every window of an image, and its fully convolutional twin on the image."""

    net: Annotated[str, "lenet, alexnet, vgg16, googlenet, or a version of them that `minifcn describe` knows"] = (
        "alexnet"
    )
    width: Annotated[int, "channels, as the trunk counts them (0: the published net)"] = 0
    size: Annotated[int, "the side of the image in pixels"] = 500
    photo: Annotated[str, "a photograph, whose middle square takes the place of noise"] = ""
    batch: Annotated[int, "how many patches go through the classifier together, in the second of the three ways"] = 25
    repeat: Annotated[int, "how often each way is timed; the quickest counts"] = 1
    seed: Annotated[int, "decides the weights and the image"] = 0
    device: Annotated[str, '"cpu", "gpu" or "auto"'] = "cpu"
    threads: Annotated[int, "threads that compute convolutions (0: one for each core)"] = 0


def main(argv: list[str]) -> int:
    """Print the times of the three ways, forward and backward, and how much faster all at once is."""
    options = parse(Options, argv, verb="amortize")
    make = named(SLIDING, options.net, f"option net is {options.net!r}")
    check_ranges(options, [("batch", 1, math.inf), ("repeat", 1, math.inf)])
    trunk = make(width=1, init="zero").trunk
    if options.size < trunk.size:
        raise UsageError(f"option size is {options.size}; expected at least {trunk.size}, what {options.net} looks at")
    device, why = choose_device(options.device)
    set_threads(options.threads or None)
    net = make(seed=options.seed, width=options.width or trunk.own_width)
    net.to(device)
    cells = out_size(net.layers(), options.size)
    say(f"device {why}")
    say(
        f"{options.net}, random weights: {cells}x{cells} windows of {trunk.size} pixels, one every "
        f"{Grid.of(net.layers()).stride}, in {options.size}x{options.size} of {options.photo or 'noise'}",
        "",
    )
    say(f"{'':<34} {'forward':>12} {'backward':>12}")
    image = (
        square(net, read_image(options.photo), options.size)
        if options.photo
        else noise(net, options.size, options.seed)
    )
    timed = measure(net, image, batch=options.batch, repeat=options.repeat, device=device)
    for way, seconds in timed.items():
        say(f"{way:<34} " + " ".join(f"{1000 * s:>9.1f} ms" for s in seconds))
    *patches, whole = timed.values()
    for way, seconds in zip(timed, patches, strict=False):
        say(f"{'faster than ' + way:<34} " + " ".join(f"{a / b:>11.1f}x" for a, b in zip(seconds, whole, strict=True)))
    return 0
