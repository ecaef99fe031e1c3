"""`minifcn data make DIR`: the embedded world as files, in the layout of PASCAL VOC.

minifcn data make world
minifcn data make world --train 2000 --size 320
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from minifcn.command import parse, run, split_words
from minifcn.data.make import make_tree
from minifcn.errors import UsageError


@dataclass(frozen=True)
class Options:
    """Write scenes of the embedded world and their labels into a new folder: `minifcn data make DIR [options]`."""

    train: int = 800
    """training images (0: no such split)"""
    val: int = 100
    """validation images"""
    test: int = 100
    """test images"""
    size: int = 160
    """the side of the images, 64 to 500 pixels"""
    seed: int = 0
    """another seed, other scenes"""


def main(argv: list[str]) -> int:
    words, rest = split_words(Options, argv)
    options = parse(Options, rest, verb="data", words="make DIR")
    if len(words) != 2 or words[0] != "make":
        raise UsageError(f"data: found {' '.join(words) or 'nothing to do'!r}; expected: minifcn data make DIR")
    asked = {"train": options.train, "val": options.val, "test": options.test}
    counts = {split: count for split, count in asked.items() if count}
    if not counts:
        raise UsageError("data make: no images are asked for; expected at least one of --train, --val, --test")
    folder = make_tree(words[1], counts=counts, size=options.size, seed=options.seed)
    print(f"wrote {folder}: {', '.join(f'{count} images of {split}' for split, count in counts.items())}")
    print(f"to learn from them: minifcn train --data {shlex.quote(str(folder))}")
    return 0


if __name__ == "__main__":
    run(main)
