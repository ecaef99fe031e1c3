"""`minifcn dense`: compare four ways of dense prediction: what each costs, and where they agree.

minifcn dense                                        VGG up to pool3, thin, on an image of 96x96 pixels
minifcn dense --trunk alexnet --until pool2 --size 120x120 --picture border.png
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from minifcn import viz
from minifcn.cli.command import image_size, parse, say
from minifcn.errors import UsageError
from minifcn.experiments.dense import border_picture, equal_cells, ways_of
from minifcn.formats.checkpoint import replace_file
from minifcn.formats.limits import path_of
from minifcn.geometry import Grid
from minifcn.introspect.describe import describe, last
from minifcn.models.zoo import TRUNKS, named
from minifcn.nn import Module, evaluating


@dataclass(frozen=True)
class Options:
    """Measure the cost of dense prediction four ways: `minifcn dense --trunk vgg16 --until pool3 --size 96x96`."""

    trunk: Annotated[str, "vgg16, alexnet, googlenet or squeezenet, with seeded random weights"] = "vgg16"
    until: Annotated[str, "the output of the trunk to make dense"] = "pool3"
    size: Annotated[str, "height x width of the image"] = "96x96"
    width: Annotated[int, "channels, as the trunk counts them"] = 4
    picture: Annotated[str, "a PNG file to draw into where shift-and-stitch and rarefied filters differ"] = ""


def main(argv: list[str]) -> int:
    """Print what each way costs and where they agree. Return the exit code."""
    options = parse(Options, argv, verb="dense")
    trunk = named(TRUNKS, options.trunk, f"option trunk is {options.trunk!r}")
    size, rng = image_size(options.size), np.random.default_rng(0)
    net = trunk(width=options.width, padding=1, init=rng, rng=rng).until(options.until)
    factor = int(Grid.of(net.layers()).stride)
    if factor**2 * size[0] * size[1] > 2**27:
        raise UsageError(
            f"{factor}^2 moved images of {options.size} pixels are too many; choose a smaller size or until"
        )
    image = rng.standard_normal((1, 3, *size)).astype(np.float32)
    ways = ways_of(net)
    say(f"{options.trunk} up to {options.until}: stride {factor}, sees {Grid.of(net.layers()).field} pixels")
    say("random weights (seed 0), for costs and equalities only", "")
    say(f"{'way':<18}{'output':>12}{'multiply-adds':>16}{'time':>10}")
    outputs = {}
    for name, way in ways.items():
        cost = describe(way, size).multiply_adds
        start = time.perf_counter()
        with evaluating(way):
            outputs[name] = last(way(image)).data
        seconds = time.perf_counter() - start
        shape = "x".join(map(str, outputs[name].shape[2:]))
        say(f"{name:<18}{shape:>12}{cost / 1e9:>14.3f} G{seconds:>8.2f} s")
    inner = (..., slice(factor, -factor), slice(factor, -factor))
    apart = abs(outputs["upsampled"] - outputs["  nonlinearly"])[inner].max(initial=0)
    learns = sum(p.size for name, p in ways["  nonlinearly"].named_parameters() if name.startswith("up."))
    say(
        "",
        f"nonlinear upsampling has {learns} numbers to learn; doubling {factor.bit_length() - 1} times, it starts "
        f"{apart:.1e} from bilinear off the border",
    )
    compare(net, outputs["shift-and-stitch"], outputs["rarefied"], size, options.picture)
    return 0


def compare(net: Module, stitched: np.ndarray, dense: np.ndarray, size: tuple[int, int], picture: str) -> None:
    """Print how far the two are apart, inside and at the border, and draw where."""
    difference = abs(stitched - dense).max(axis=(0, 1))
    rows, cols = equal_cells(net.layers(), size)
    inside = difference[rows.start : rows.stop, cols.start : cols.stop]
    share, most = 100 * inside.size / difference.size, inside.max() if inside.size else 0
    say(f"rarefied and stitched differ by at most {difference.max():.1e}; on the {share:.0f} % of the cells that see")
    say(f"no padding and no clipped window, by {most:.1e} (float32)")
    if picture:
        replace_file(path_of(picture), [viz.png(border_picture(difference, rows, cols))], sync=False)
        say(f"wrote {picture}: red where they differ, blue where they must not")
