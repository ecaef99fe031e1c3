"""`minifcn digits`: train LeNet to read digits, then find them on a larger sheet.

minifcn digits                            a few seconds; leaves digits.png
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from minifcn import viz
from minifcn.cli.command import parse, say
from minifcn.data.digits import DIGITS, load_digits
from minifcn.errors import UsageError
from minifcn.experiments.digits import HELD_OUT, learn, search, sheet
from minifcn.formats.limits import path_of
from minifcn.geometry import Grid
from minifcn.kernels.threads import set_threads
from minifcn.models.classifier import Classifier, classifier
from minifcn.models.lenet import LeNet
from minifcn.optim import SGD
from minifcn.training.ranges import check_ranges
from minifcn.training.step import accuracy


@dataclass(frozen=True)
class Options:
    """Train LeNet on 1,347 digits, measure it on 450 others, and look for some of those on a sheet."""

    epochs: Annotated[int, "passes over the digits to learn"] = 8
    batch: Annotated[int, "digits in a step"] = 32
    lr: Annotated[float, "the learning rate of weights; biases have twice it"] = 0.02
    width: Annotated[int, "channels; LeNet's own is 10, for 20, 50 and 500"] = 10
    rows: Annotated[int, "rows of digits on the sheet"] = 3
    columns: Annotated[int, "columns of digits on the sheet"] = 6
    picture: Annotated[str, "the PNG file to draw the heat maps into"] = "digits.png"
    seed: Annotated[int, "decides the weights, the order, who is held out and the sheet"] = 0
    threads: Annotated[int, "threads that compute convolutions (0: one for each core)"] = 0


def main(argv: list[str]) -> int:
    """Train, measure, convolutionalize and draw. Return the exit code."""
    options = parse(Options, argv, verb="digits")
    sizes = [(name, 1, 1000) for name in ("epochs", "batch", "rows", "columns")]
    check_ranges(options, [*sizes, ("seed", 0, math.inf)])
    if options.rows * options.columns > HELD_OUT:
        raise UsageError(f"a sheet of {options.rows}x{options.columns} digits; expected at most {HELD_OUT} in all")
    images, labels = load_digits(LeNet.size)
    set_threads(options.threads or None)
    rng = np.random.default_rng(options.seed)
    order = rng.permutation(len(images))
    held_out, known = order[:HELD_OUT], order[HELD_OUT:]
    net = classifier(LeNet, classes=len(DIGITS), width=options.width, seed=options.seed)
    sgd = SGD(net, lr=options.lr, weight_decay=0.0005)
    start = time.perf_counter()
    for epoch in range(options.epochs):
        loss = learn(net, sgd, images[known], labels[known], options.batch, rng)
        share = accuracy(net, [(images[held_out], labels[held_out])])
        say(f"epoch {epoch + 1}: loss {loss:.3f}, accuracy {share:.3f} on {HELD_OUT} digits held out")
    say(f"learned {len(known)} digits in {time.perf_counter() - start:.1f} s")

    shown = held_out[: options.rows * options.columns]
    paper, corners = sheet(images[shown], options.columns, rng)
    found = search(net, paper, corners)
    right = int((found.answers == labels[shown]).sum())
    say(
        f"the convolutional twin reads the whole sheet of {paper.shape[2]}x{paper.shape[3]} pixels at once: "
        f"{found.maps.shape[1]}x{found.maps.shape[2]} answers, {right} of {len(shown)} digits right"
    )
    say(f"where a window lies on a digit it says what the classifier says, to {found.apart:.0e}")
    draw(net, paper, found.maps, path_of(options.picture))
    return 0


def draw(net: Classifier, paper: np.ndarray, maps: np.ndarray, picture: Path) -> None:
    """Draw for each digit by how much its score beats all others, beside the sheet."""
    grid = Grid.of(net.layers())
    second, best = np.sort(maps, axis=0)[-2:]
    heat = np.where(maps == best, best - second, 0)
    viz.heat_maps(paper[0, 0], heat, DIGITS, start=float(grid.start), stride=float(grid.stride), path=picture)
    say(f"wrote {picture}: where each digit wins, and by how much")
