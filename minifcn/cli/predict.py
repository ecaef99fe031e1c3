"""`minifcn predict`: segment photographs into masks, overlays and tables of classes, and say why.

minifcn predict runs/world photo.jpg
minifcn predict runs/camvid 'street/*.jpg' --out masks
minifcn predict runs/camvid map.tif --tile 1024 --confidence
minifcn predict runs/camvid photo.jpg --explain 120,80
minifcn predict runs/camvid photo.jpg --explain 120,80 --beside runs/world
"""

from __future__ import annotations

import glob
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np

from minifcn.cli.command import SCALES, numbers, parse_words, say, warn
from minifcn.data.files import MAX_PIXELS, MOST_IN_TILES, read_frames
from minifcn.data.inputs import planes_of
from minifcn.data.planes import PLANE_SUFFIXES, read_planes, shown, shown_as
from minifcn.errors import DataError, UsageError
from minifcn.formats.limits import path_of
from minifcn.kernels.threads import cores, set_threads
from minifcn.models.context import context_of
from minifcn.models.fcn import FCN
from minifcn.models.tiling import Tiling
from minifcn.training.device import choose_device
from minifcn.training.explanation import write_comparison, write_explanation
from minifcn.training.index_page import IndexPage
from minifcn.training.prediction import Predictor, shares, write_prediction, write_scores
from minifcn.training.ranges import check_ranges
from minifcn.training.run_folder import check_kinds
from minifcn.training.trained import Trained, open_trained

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".gif", ".apng", ".tif", ".tiff")


@dataclass(frozen=True)
class Options:
    """Segment images: `minifcn predict RUN image ...`, where an image may be a file, a folder or a pattern.

    Of a GIF, an APNG or a TIFF of several pages, every frame is segmented.
    """

    out: Annotated[str, "the folder to write into; by default the run's predictions folder"] = ""
    best: Annotated[bool, "the checkpoint that was best on the run's validation split, instead of the newest"] = False
    tile: Annotated[
        int,
        "compute images larger than this in tiles of so many pixels, with a margin that makes the scores those of the "
        "whole image: any image in bounded memory (0: the whole image at once)",
    ] = 0
    flip: Annotated[bool, "average the scores of the image and of its mirror image"] = False
    scales: Annotated[str, 'average the scores over copies of the image scaled by these: "0.75,1,1.25"'] = "1"
    scores: Annotated[bool, "write the scores of all classes, as float16, into an .npz"] = False
    confidence: Annotated[bool, "write a picture of the entropy of the classes: black is sure, white is not"] = False
    explain: Annotated[
        str, 'write a page that says why the pixel "X,Y" (from the left, from the top) of the one image got its class'
    ] = ""
    beside: Annotated[str, "with explain, a second run whose net explains the pixel on the same page, side by side"] = (
        ""
    )
    alpha: Annotated[float, "how strongly the classes colour the overlay, 0 to 1"] = 0.6
    device: Annotated[str, '"cpu", "gpu" or "auto"'] = "auto"
    threads: Annotated[int, "threads that compute convolutions (0: one for each core)"] = 0


def main(argv: list[str]) -> int:
    """Segment every image, and return the exit code; those that cannot be read are named at the end."""
    words, options = parse_words(Options, argv, verb="predict", words="RUN image ...")
    if len(words) < 2:
        raise UsageError("predict: expected a run folder and at least one image: minifcn predict RUN image ...")
    check_ranges(options, [("alpha", 0, 1), ("tile", 0, math.inf)])
    scales = numbers("scales", options.scales, *SCALES)
    device, why = choose_device(options.device)
    set_threads(options.threads or cores())
    trained = open_trained(words[0], best=options.best, say=warn)
    planes = planes_of(trained.inputs.name)
    if trained.inputs.name != "rgb" and not planes:
        raise UsageError(
            f"{words[0]}: its net sees {trained.inputs.name}, and a photograph alone has no depth; expected a "
            "net of colours; `minifcn evaluate` measures this one on a data set with depth"
        )
    tiling = Tiling.of(trained.net, options.tile) if options.tile else Tiling()
    suffixes = tuple(dict.fromkeys((*SUFFIXES, *PLANE_SUFFIXES))) if planes else SUFFIXES
    images = [path for word in words[1:] for path in files(word, suffixes)]
    out = path_of(options.out) if options.out else beside(trained.path) / "predictions"
    if not options.out:
        check_kinds(out.parent)
    if options.beside and not options.explain:
        raise UsageError("option beside goes with a pixel to explain; expected explain, such as 120,80, too")
    if options.explain:
        return explain(trained, words[0], images, out, options, why, device)
    out.mkdir(parents=True, exist_ok=True)
    say(f"device {why}")
    if options.tile:
        say(str(tiling))
        if context_of(trained.net):
            say("the mean over the whole image, the net's global context, is added up from the tiles in a first pass")
    if planes:
        say(shown_as(planes))
    predictor = Predictor(trained.net.to(device), trained.preprocessing, tiling, options.flip, scales)
    keep = ["entropy"] * options.confidence
    index = IndexPage(words[0], trained.classes, options.alpha)
    taken: set[str] = set()
    faults = []
    for path in images:
        stem, frames = free_name(path.stem, taken), 0
        try:
            most = MOST_IN_TILES if options.tile else MAX_PIXELS
            one = (0, read_planes(path, count=planes, most=most), False) if planes else None
            for number, image, many in [one] if one else framed(path, most=most, bits=trained.image_bits):
                frames = number + 1
                name = f"{stem}-{number:04d}" if many else stem
                say(f"{path}{f' frame {number}' if many else ''}: {image.shape[1]}x{image.shape[0]}")
                scores = out / f"{name}-scores.npz"
                into = partial(write_scores, scores, classes=trained.classes, width=image.shape[1])
                found = predictor(image, keep=keep, scores_to=into if options.scores else None)
                image = shown(image) if planes else image
                written = write_prediction(image, found, trained.classes, out / name, alpha=options.alpha)
                written += ["-scores.npz"] * options.scores
                covered = shares(found.label, trained.classes)
                for label, share in covered.items():
                    say(f"  {label:<16} {100 * share:>6.2f} %")
                say(f"  wrote {out / name}{', '.join(written)}")
                index.add(name, path, image, found.label, covered)
        except DataError as fault:
            faults.append(str(fault))
            if not frames:
                taken.discard(stem)
    if index.count:
        index.write(out / "index.html")
        say(f"wrote {out / 'index.html'}: every picture under its classes")
    if faults:
        more = f" (the first of {len(faults)} such among {len(images)} images)" if len(faults) > 1 else ""
        raise DataError(f"{faults[0]}{more}")
    return 0


def explain(trained: Trained, run: str, images: list[Path], out: Path, options: Options, why: str, device: str) -> int:
    """Write the page about one pixel of one image, and print what it says first."""
    x, y = numbers("explain", options.explain, int, "the column and the row of a pixel, such as 120,80", (0, 10**9), 2)
    if len(images) != 1:
        raise UsageError(f"option explain: found {len(images)} images; expected one, of which it explains a pixel")
    planes = planes_of(trained.inputs.name)
    image = read_planes(images[0], count=planes) if planes else next(read_frames(images[0], bits=trained.image_bits))
    height, width = image.shape[:2]
    if x >= width or y >= height:
        raise UsageError(f"option explain is {x},{y}; expected a pixel of {images[0]}, which has {width}x{height}")
    name, stem = f"{images[0].name} at {x},{y}", f"{images[0].stem}-explain-{x}-{y}"
    nets = {run: trained} | ({options.beside: second(options, run, trained)} if options.beside else {})
    for word, one in nets.items():
        if not isinstance(one.net, FCN):
            what = "whose scores are no sum over the maps of a trunk"
            raise UsageError(f"option explain: {word} holds {one.name}, {what}; expected an FCN")
    out.mkdir(parents=True, exist_ok=True)
    say(f"device {why}")
    for one in nets.values():
        one.net.to(device)
    if options.beside:
        path = out / f"{stem}-beside-{Path(options.beside).resolve().name}.html"
        say(write_comparison(nets, image, (x, y), path, name=name))
    else:
        path = out / f"{stem}.html"
        say(write_explanation(trained, image, (x, y), path, name=name))
    say(f"wrote {path}")
    return 0


def second(options: Options, run: str, first: Trained) -> Trained:
    """Return the net of the run that stands beside `run`; `UsageError` for the same one, or one of other inputs."""
    if path_of(options.beside).resolve() == path_of(run).resolve():
        raise UsageError(f"option beside is {run}, the run itself; expected another")
    found = open_trained(options.beside, best=options.best, say=warn)
    sees, bits = first.inputs.name, first.image_bits
    if found.inputs.name != sees:
        raise UsageError(
            f"option beside: the net of {options.beside} sees inputs {found.inputs.name!r} and that of {run} {sees!r}; "
            "expected two that see one image alike"
        )
    if found.image_bits != bits:
        raise UsageError(
            f"option beside: {options.beside} has learned from pictures of {found.image_bits} bits and {run} from "
            f"those of {bits}, so they see the photograph differently; expected runs on pictures of one depth"
        )
    return found


def framed(path: Path, *, most: int, bits: int) -> Iterator[tuple[int, np.ndarray, bool]]:
    """Yield each picture of a file with its number, and whether there is more than one."""
    frames = read_frames(path, most=most, bits=bits)
    first = list(itertools.islice(frames, 2))
    for number, image in enumerate(itertools.chain(first, frames)):
        yield number, image, len(first) > 1


def beside(checkpoint: Path) -> Path:
    """Return the run folder of a checkpoint, or the folder it lies in."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def files(word: str, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """Expand one argument (file, folder or pattern) into image paths; `DataError` if there are none."""
    path = path_of(word)
    if path.is_dir():
        found = sorted(each for each in path.iterdir() if each.suffix.lower() in suffixes and each.name[:2] != "._")
        if not found:
            raise DataError(f"{path}: a folder without images; expected files ending in {', '.join(suffixes)}")
        return found
    if path.exists():
        return [path]
    found = [each for each in sorted(map(Path, glob.glob(str(path), recursive=True))) if each.is_file()]
    if not found:
        raise DataError(f"{word}: found no such file; expected an image, a folder or a pattern such as 'photos/*.jpg'")
    return found


def free_name(stem: str, taken: set[str]) -> str:
    """Return `stem`, numbered if another image of the same name came before."""
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name)
    return name
