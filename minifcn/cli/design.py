"""`minifcn design`: compute a ladder's kernels, crops and smallest safe padding.

    minifcn design vgg16 --skips pool4,pool3          crops 5, 9 and 28; padding 97 is the least (the paper takes 100)
    minifcn design alexnet                            kernel 63
    minifcn design alexnet --kernel 64                why not: the crop offset would be 37/2 at padding 100
    minifcn design 'a=3/1/1 p=2/2c b=3/1/1 q=2/2c fc=5' --skips p

`introspect/design.py` explains how to write a chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from minifcn.cli.command import parse_words, say
from minifcn.introspect.design import MOST, TRUNKS, LadderOf, chain_paths, design, listed, misfits, trunk_paths
from minifcn.models.ladder import Rung
from minifcn.training.ranges import check_ranges


@dataclass(frozen=True)
class Options:
    """Crops, kernels and the smallest safe padding of a ladder: `minifcn design vgg16 --skips pool4,pool3`."""

    skips: Annotated[str, "the outputs to fuse, coarse to fine, with commas between them"] = ""
    kernel: Annotated[int, "the kernel of the last upsampling (0: the one that fits)"] = 0
    padding: Annotated[int, "also say what becomes of this padding"] = -1


def main(argv: list[str]) -> int:
    """Print the smallest safe padding, crops and kernels. Return the exit code."""
    words, options = parse_words(Options, argv, verb="design")
    check_ranges(options, [("kernel", 0, MOST), ("padding", -1, MOST)])
    chain = " ".join(words)
    paths_for = trunk_paths(TRUNKS[chain]) if chain in TRUNKS else chain_paths(chain)
    skips, kernel = tuple(filter(None, options.skips.split(","))), options.kernel or None
    if options.padding >= 0:
        ladder = LadderOf(paths_for(options.padding), skips, kernel)
        bad = misfits(ladder)
        say(f"padding {options.padding}: crops {', '.join(str(rung.at) for rung in ladder.rungs)}; {listed(bad)}")
    best = design(paths_for, skips, kernel=kernel)
    grid = best.ladder.grids[best.ladder.last]
    say(f"{best.ladder.last}: a cell every {grid.stride} pixels sees {grid.field}")
    for rung in best.ladder.rungs:
        say(f"{rung.name:<16} kernel {rung.layer.kernel:>3}, stride {rung.layer.stride:>2}: {cropped(rung)}")
    say(f"at any padding the last crop is padding - {best.before_image}")
    say(f"padding {best.padding} is the smallest with which images of every size come out whole")
    return 0


def cropped(rung: Rung) -> str:
    """Return the crop of a rung, as `figure` writes it."""
    cut, like = (rung.skip, "score") if rung.cut == "skip" else ("score", rung.skip or "image")
    return f"crop({cut}, like={like}, at={rung.at})"
