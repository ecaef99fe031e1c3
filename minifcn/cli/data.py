"""`minifcn data`: make, fetch, check or import a data set.

minifcn data make world
minifcn data fetch voc2012 data
minifcn data check data/VOCdevkit/VOC2012
minifcn data import my_photographs data/mine
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from minifcn.cli.command import parse_words, say, with_flags
from minifcn.data.listed import Listed, read_lines
from minifcn.data.opening import open_data, other_format
from minifcn.data.sample import MOST_PLANES
from minifcn.data.tools.check import Findings, check, layout_hints
from minifcn.data.tools.correct import FIXED, correct
from minifcn.data.tools.fetch import BY_HAND, SOURCES, by_hand, fetch, source_of
from minifcn.data.tools.importing import recognise, write_tree
from minifcn.data.tools.make import make_tree
from minifcn.data.tools.mapping import read_map
from minifcn.data.tools.silent import IMPORTED
from minifcn.data.voc import VOCSegmentation
from minifcn.errors import DataError, UsageError
from minifcn.formats.checkpoint import replace_file
from minifcn.formats.limits import path_of
from minifcn.training.progress import Bar
from minifcn.training.ranges import check_ranges
from minifcn.viz import gallery, overlay, png

USAGE = """\
usage: minifcn data make DIR         write scenes of the embedded world
       minifcn data fetch NAME DIR   download a data set, check it, unpack it
       minifcn data check DIR        what is wrong in a folder of masks
       minifcn data import FOLDER NEW   your own pictures, ready to train on

`minifcn data make --help` (or fetch, check, import) lists the options.
Each takes --debug, which shows the traceback of an error."""


@dataclass(frozen=True)
class Make:
    """Write scenes of the embedded world and their labels into a new folder: `minifcn data make DIR [options]`."""

    train: Annotated[int, "training images (0: no such split)"] = 800
    val: Annotated[int, "validation images"] = 100
    test: Annotated[int, "test images"] = 100
    size: Annotated[int, "the side of the images, 64 to 500 pixels"] = 160
    seed: Annotated[int, "another seed, other scenes"] = 0


@dataclass(frozen=True)
class Fetch:
    """Download a data set, check its hash, unpack it under DIR. What was cut goes on when the command is run again."""

    archive: Annotated[str, "no network? fetch the file by hand (the command says which) and name it here"] = ""
    keep: Annotated[bool, "keep the downloaded archive"] = False


@dataclass(frozen=True)
class Check:
    """Check a VOC tree: report every fault of images, masks and lists, and how to fix it. Exit code 2 for any fault.

    For SBD, NYUDv2, SIFT Flow and PASCAL-Context, in their own formats, report each pair that cannot be read.
    """

    classes: Annotated[str, "a file with a class name a line, 0 first, instead of the folder's class_names.txt"] = ""
    split: Annotated[str, "look at the images of one list only"] = ""
    first: Annotated[int, "how many faults of each kind to show"] = 3
    write: Annotated[str, "a new folder for the same data with masks as class numbers, as proposed"] = ""
    map: Annotated[
        str, "a file that says what becomes which class: lines `R G B class` or `number class`, 255 for void"
    ] = ""


@dataclass(frozen=True)
class Import:
    """Write the pictures and labels of FOLDER as a tree to train on, NEW: `minifcn data import FOLDER NEW`.

    It finds pictures with masks, paired by name, and files of labelme, COCO and CVAT. FOLDER is not changed.
    """

    kind: Annotated[str, "masks, labelme, coco or cvat, where FOLDER holds several"] = ""
    classes: Annotated[str, "a file with a class name a line, 0 first, instead of one found in FOLDER"] = ""
    map: Annotated[
        str, "a file that says what becomes which class: lines `R G B class` or `number class`, 255 for void"
    ] = ""
    by: Annotated[str, "numbers or colours: which of the two count in masks with a palette"] = ""
    turned: Annotated[str, "stored or shown: how masks were drawn on photographs whose EXIF says which way is up"] = ""
    empty: Annotated[bool, "pictures without a single shape are background"] = False
    planes: Annotated[int, "how many planes an image has, 1 to 16: TIFF or .npy, kept as they are (0: photographs)"] = 0
    seed: Annotated[int, "of the split that is drawn where FOLDER gives none"] = 0
    first: Annotated[int, "how many pictures and faults to show"] = 3


def main(argv: list[str]) -> int:
    """Run the verb of `minifcn data` that is named. Return its exit code."""
    what = next((word for word in argv if not word.startswith("-")), "")
    if what in VERBS:
        return VERBS[what](argv)
    if "-h" in argv or "--help" in argv:
        say(*USAGE.split("\n"))
        raise SystemExit(0)
    found = " ".join(argv) or "nothing to do"
    raise UsageError(
        f"data: found {found!r}; expected: minifcn data make DIR, minifcn data fetch NAME DIR, "
        "minifcn data check DIR or minifcn data import FOLDER NEW"
    )


def make(argv: list[str]) -> int:
    """Write scenes of the embedded world. Return the exit code."""
    words, options = parse_words(Make, argv, verb="data", words="make DIR", count=2)
    asked = {"train": options.train, "val": options.val, "test": options.test}
    counts = {split: count for split, count in asked.items() if count}
    if not counts:
        raise UsageError("data make: no images are asked for; expected at least one of --train, --val, --test")
    folder = make_tree(words[1], counts=counts, size=options.size, seed=options.seed)
    say(f"wrote {folder}: {', '.join(f'{count} images of {split}' for split, count in counts.items())}")
    say(f"to learn from them: minifcn train --data {shlex.quote(str(folder))}")
    return 0


def fetch_command(argv: list[str]) -> int:
    """Download a data set, unless it is there. Return the exit code."""
    words, options = parse_words(Fetch, argv, verb="data", words="fetch NAME DIR", after=_catalogue())
    if len(words) != 3:
        raise UsageError(
            f"data: found {' '.join(words)!r}; expected: minifcn data fetch NAME DIR, NAME one of "
            f"{', '.join([*SOURCES, *BY_HAND])}"
        )
    _, name, folder = words
    source = source_of(name)
    place = path_of(folder) / source.place
    if place.exists():
        say(f"{place} is there already; remove it to fetch it again")
    else:
        say(f"{source.what}, {source.size / 1e6:,.0f} MB ({source.terms})")
        try:
            with Bar(source.size, unit="B") as down, Bar(source.size, unit="B") as out:
                fetch(
                    name,
                    folder,
                    archive=options.archive or None,
                    keep=options.keep,
                    downloading=lambda count: down.advance(count, note="downloading"),
                    unpacking=lambda count: out.advance(count, note="unpacking"),
                )
        except DataError:
            say(*by_hand(source))
            say(f"  then     minifcn data fetch {name} {shlex.quote(folder)} --archive {source.file}")
            raise
        say(f"wrote {place}")
    if name != "sbd":
        say(f"to look through it: minifcn data check {shlex.quote(str(place))}")
    say(f"to learn from it:   minifcn train --data {shlex.quote(str(place))}")
    return 0


def _catalogue() -> str:
    """Return the names that can be fetched, and those that cannot and why."""
    lines = ["NAME is one of"]
    lines += [f"  {name:<15} {one.what}, {one.size / 1e6:,.0f} MB" for name, one in SOURCES.items()]
    lines += ["to be fetched by hand, since no hash of them is known that could be relied on:"]
    lines += [f"  {name:<15} {what}" for name, (what, _, _) in BY_HAND.items()]
    return "\n".join(lines)


def check_command(argv: list[str]) -> int:
    """Print every fault of a data set, and write a corrected copy if asked to. Return 2 for a fault, else 0."""
    words, options = parse_words(Check, argv, verb="data", words="check DIR", count=2)
    check_ranges(options, [("first", 1, math.inf)])
    if options.map and not options.write:
        raise UsageError("option --map has nothing to do; expected --write DIR as well, the folder for the new masks")
    classes = read_lines(path_of(options.classes)) if options.classes else None
    colours, numbers = read_map(options.map) if options.map else ({}, {})
    try:
        found = _looked_through(words[1], classes, options.split or None)
    except DataError:
        if what := other_format(words[1]):
            return _read_through(words[1], what, options)
        if path_of(words[1]).is_dir():
            say(f"To bring pictures and labels into this layout: minifcn data import {shlex.quote(words[1])} NEW")
        say(*layout_hints(words[1]))
        raise
    say(*map(with_flags, found.lines(first=options.first)))
    if not options.write:
        if not found.faults.keys().isdisjoint(FIXED):
            say(f"to write masks of class numbers: minifcn data check {shlex.quote(words[1])} --write NEW_DIR")
        if not found.faults.keys().isdisjoint(IMPORTED):
            say(f"to import the folder: minifcn data import {shlex.quote(words[1])} NEW")
        if not options.classes and "planes" not in found.faults:
            _remember_good(found, words[1], options.split)
        return 2 if found.count else 0
    with Bar(len(found.usable), unit="mask") as bar:
        folder = correct(found, options.write, colours=colours, numbers=numbers, advance=bar.advance)
    left_out = found.looked_at - len(found.usable)
    without = f", {left_out} that cannot be used left out" if left_out else ""
    say("", f"wrote {folder}: {len(found.usable)} pairs{without}; what became what: {folder / 'mapping.txt'}", "")
    again = _looked_through(str(folder), None, None)
    say(*map(with_flags, again.lines(first=options.first)))
    return 2 if again.count else 0


def _remember_good(found: Findings, folder: str, split: str) -> None:
    """Leave stamps of the pairs without a fault of their own, whatever is wrong with the lists or the other pairs."""
    good = set(found.good)
    for one in [split] if split else [None, *found.splits]:
        try:
            data = open_data(folder, one)
        except DataError:  # ids without files: the pairs of another list may be complete
            continue
        _remember(data, [name for name in data.ids if name in good], found.facts)
        if one is None:  # with every mask of the folder
            return


def _remember(
    data: Listed, good: Sequence[str] | None = None, facts: Mapping[str, dict[str, Any]] | None = None
) -> None:
    """Leave stamps of the files beside the data, so that a training run need not read them all before it begins."""
    try:
        data.remember(good, facts or {})
    except UsageError as fault:
        say(f"note: a training run will check every file again: {fault}")


def import_command(argv: list[str]) -> int:
    """Write a folder of pictures and labels as a tree to train on. Return the exit code."""
    words, options = parse_words(Import, argv, verb="data", words="import FOLDER NEW", count=3)
    check_ranges(options, [("first", 1, math.inf), ("seed", 0, math.inf), ("planes", 0, MOST_PLANES)])
    _, folder, new = words
    place = path_of(new)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UsageError(f"{new}: is there already; choose a new folder for the imported pictures")
    asked = {name: value for name, value in vars(options).items() if name != "first"}
    with Bar(0, unit="file") as bar:
        found = recognise(folder, **asked, without=place, advance=bar.advance)
    say(*map(with_flags, found.lines(first=options.first)))
    with Bar(len(found.items), unit="pair") as bar:
        left_out = write_tree(found, place, advance=bar.advance)
    for line in left_out[: options.first]:
        say(with_flags(f"left out: {line}"))
    if len(left_out) > options.first:
        say(f"left out: {len(left_out) - options.first} more (--first {len(left_out)} shows all)")
    sheet = place / "overlays.png"
    replace_file(sheet, [png(_overlays(place, found.planes))], sync=False)
    pairs = f"{len(found.items) - len(left_out)} pairs"
    say("", f"wrote {place}: {pairs}; where each comes from: {place / 'sources.tsv'}", "")
    say(*map(with_flags, _looked_through(str(place), None, None).lines(first=options.first)))
    say("", f"look at {sheet}: do the colours lie on the things they name?")
    inputs = f" --inputs {found.planes}" if found.planes else ""
    say(f"to learn from them: minifcn train --recipe transfer --data {shlex.quote(str(place))}{inputs}")
    return 0


def _overlays(tree: Path, planes: int) -> np.ndarray:
    """Return four pictures of a tree under their labels, evenly spread, those of more than one class first."""
    data = VOCSegmentation(tree, None, planes=planes)
    places = [len(data) * number // 16 for number in range(16)]
    samples = [data[place] for place in dict.fromkeys(places)]
    samples.sort(key=lambda sample: len(np.unique(sample.label)) < 2)
    shown = [(overlay(sample.image, sample.label), sample.label) for sample in samples[:4]]
    return gallery(shown, data.classes, captions=("picture and labels", "labels"), columns=2)


def _read_through(folder: str, what: str, options: Check) -> int:
    """Print every pair that the reader of a format other than VOC's refuses, and why. Return the exit code."""
    for name in ("write", "classes"):
        if getattr(options, name):
            raise UsageError(f"option --{name} is for trees of PASCAL VOC; {folder} holds {what}")
    data = open_data(folder, options.split or None)
    with Bar(len(data), unit="pair") as bar:
        problems = data.problems(bar.advance)
    say(f"{folder} holds {what}: {len(data)} images, {len(data.classes)} classes")
    for _, problem in problems[: options.first]:
        say(f"  - {problem}")
    if len(problems) > options.first:
        say(f"  - and {len(problems) - options.first} more (--first {len(problems)} shows all)")
    say(f"{folder}: {len(problems)} of them cannot be used" if problems else f"{folder}: all is well")
    if not problems:
        _remember(data)
    return 2 if problems else 0


def _looked_through(folder: str, classes: tuple[str, ...] | None, split: str | None) -> Findings:
    """Return what is wrong in a tree, behind a progress bar."""
    with Bar(0, unit="pair") as bar:
        return check(folder, classes=classes, split=split, begin=bar.begin, advance=bar.advance)


VERBS = {"make": make, "fetch": fetch_command, "check": check_command, "import": import_command}
