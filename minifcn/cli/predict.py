"""`minifcn predict`: segment photographs into masks, overlays and tables of classes.

minifcn predict runs/toy photo.jpg
minifcn predict runs/camvid 'street/*.jpg' --out masks
"""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from minifcn.cli.command import parse_words, warn
from minifcn.data.files import read_image
from minifcn.errors import DataError, UsageError
from minifcn.inference import inference
from minifcn.kernels.threads import cores, set_threads
from minifcn.training.device import choose_device
from minifcn.training.evaluation import predict
from minifcn.training.prediction import shares, write_prediction
from minifcn.training.ranges import check_ranges
from minifcn.training.run_folder import check_kinds
from minifcn.training.trained import open_trained

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".gif")


@dataclass(frozen=True)
class Options:
    """Segment images: `minifcn predict RUN image ...`, where an image may be a file, a folder or a pattern."""

    out: Annotated[str, "the folder to write into; by default the run's predictions folder"] = ""
    best: Annotated[bool, "the checkpoint that was best on the run's validation split, instead of the newest"] = False
    alpha: Annotated[float, "how strongly the classes colour the overlay, 0 to 1"] = 0.6
    device: Annotated[str, '"cpu", "gpu" or "auto"'] = "auto"
    threads: Annotated[int, "threads that compute convolutions (0: one for each core)"] = 0


def main(argv: list[str]) -> int:
    """Segment every image; those that cannot be read are named at the end, when the others are done."""
    words, options = parse_words(Options, argv, verb="predict", words="RUN image ...")
    if len(words) < 2:
        raise UsageError("predict: expected a run folder and at least one image: minifcn predict RUN image ...")
    check_ranges(options, [("alpha", 0, 1)])
    device, why = choose_device(options.device)
    set_threads(options.threads or cores())
    trained = open_trained(words[0], best=options.best, say=warn)
    if trained.inputs.name != "rgb":
        raise UsageError(
            f"{words[0]}: its net sees {trained.inputs.name}, and a photograph alone has no depth; expected a "
            "net of colours; `minifcn evaluate` measures this one on a data set with depth"
        )
    images = [path for word in words[1:] for path in files(word)]
    out = Path(options.out) if options.out else beside(trained.path) / "predictions"
    if not options.out:
        check_kinds(out.parent)
    out.mkdir(parents=True, exist_ok=True)
    print(f"device {why}")
    trained.net.to(device)
    taken: set[str] = set()
    faults = []
    with inference(trained.net):
        for path in images:
            try:
                image = read_image(path)
            except DataError as fault:
                faults.append(str(fault))
                continue
            label = predict(trained.net, trained.preprocessing(image)[None])[0]
            print(f"{path}: {image.shape[1]}x{image.shape[0]}")
            start = out / free_name(path.stem, taken)
            write_prediction(image, label, trained.classes, start, alpha=options.alpha)
            for name, share in shares(label, trained.classes).items():
                print(f"  {name:<16} {100 * share:>6.2f} %")
            print(f"  wrote {start}-mask.png, -overlay.png, -legend.png")
    if faults:
        more = f" (the first of {len(faults)} such among {len(images)} images)" if len(faults) > 1 else ""
        raise DataError(f"{faults[0]}{more}")
    return 0


def beside(checkpoint: Path) -> Path:
    """The run folder of a checkpoint, or the folder it lies in."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def files(word: str) -> list[Path]:
    """The images that a word of the command line means; `DataError` if there are none."""
    path = Path(word)
    if path.is_dir():
        found = sorted(each for each in path.iterdir() if each.suffix.lower() in SUFFIXES)
        if not found:
            raise DataError(f"{path}: a folder without images; expected files ending in {', '.join(SUFFIXES)}")
        return found
    if path.exists():
        return [path]
    found = [each for each in sorted(map(Path, glob.glob(word, recursive=True))) if each.is_file()]
    if not found:
        raise DataError(f"{word}: found no such file; expected an image, a folder or a pattern such as 'photos/*.jpg'")
    return found


def free_name(stem: str, taken: set[str]) -> str:
    """`stem`, numbered if another image of the same name came before."""
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name)
    return name
