"""The training runs behind the tables: the name, options and starting point of each.

A cell belongs to no table; tables name cells, so two that need the same one share it. The run of a cell and a seed lies
in a folder with the name

    NAME-SEED-HASH        fcn16s-0-5f2c81d07a

where the hash is over every option of the run, over the folder names of the runs it starts from, and over `CODE`. So a
changed definition is another folder, with all that start from it, and a run that is finished is never done again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from minifcn.errors import UsageError
from minifcn.training.options import from_dict
from minifcn.training.pretraining import Pretraining

CODE = 2
"""Raised by hand when the same options give another run: a change of the training loop, of a net, of the world."""

# ------------------------------------------------------------------------------------------------------------ the sizes

# Strides are compared on scenes in which a cell of 32 pixels is a fifth of the side. Adam, for in so few steps SGD
# comes half as far.
SCENES: dict[str, Any] = {
    "world_size": 160, "max_train": 240, "max_val": 60, "layers": 11, "width": 8, "stages": "32",
    "epochs": 3, "batch": 4, "optimizer": "adam", "lr": 0.001, "measure_every": 3, "mirror": False, "samples": 2,
    "save_every": 100,
}  # fmt: skip
FINER = 0.5  # the rate of FCN-16s and FCN-8s, which start from the net before, against that of FCN-32s
# All else is compared on small scenes, by FCN-8s in one stage from random weights.
SMALL: dict[str, Any] = {
    "world_size": 64, "max_train": 640, "max_val": 100, "layers": 11, "width": 8, "stages": "8",
    "epochs": 6, "batch": 8, "optimizer": "adam", "lr": 0.002, "measure_every": 6, "mirror": False, "samples": 2,
    "save_every": 200,
}  # fmt: skip
# Classifiers of single objects. Deep and without batch normalisation, GoogLeNet wants the larger rate.
OBJECTS: dict[str, Any] = {
    "layers": 11, "width": 8, "images": 700, "size": 64, "epochs": 5, "batch": 16, "optimizer": "adam", "lr": 0.001,
}  # fmt: skip
THIN = {"alexnet": 2, "googlenet": 2}  # as many multiply-adds as VGG-11 of width 8, about
# Loss sampling: as many steps for all three, with 1/p times as many images in each.
SAMPLING = SMALL | {"batch": 4, "epochs": 2, "measure_every": 2}
# What is about the solver itself has the paper's: SGD.
SGD_LR = 0.05
AVERAGED = SMALL | {"optimizer": "sgd", "lr": SGD_LR}
SUMMED_LR = SGD_LR / (8 * 64 * 64)  # a step of the summed loss as long as one of the mean over 8 images of 64 x 64
# Momentum: the same images in the same order, four times; one rate for all, of the summed loss.
MOMENTUM = SMALL | {
    "optimizer": "sgd", "lr": 5e-7, "normalize": "none", "schedule": "fixed", "batch": 1, "epochs": 4,
    "measure_every": 4,
}  # fmt: skip
QUICK = 16  # what `quick` divides the training images by; measured on a fifth of the images


# ------------------------------------------------------------------------------------------------------------ the cells

TRAIN, PRETRAIN, EVALUATE = "train", "pretrain", "evaluate"


@dataclass(frozen=True)
class Cell:
    """One setting, to be run from several seeds.

    kind "train": `minifcn train` with `options`, beginning with the nets of the cells in `start`;
    kind "pretrain": a trunk that learns as a classifier; kind "evaluate": the net of `start` measured otherwise.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    start: tuple[str, ...] = ()
    kind: str = TRAIN

    def settings(self, seed: int, *, quick: bool = False) -> dict[str, Any]:
        """Return the options of a run that differ from the defaults, without its folder and what it starts from."""
        options = dict(self.options) | ({} if self.kind == EVALUATE else {"seed": seed})
        for name, least, divisor in (("max_train", 4, QUICK), ("images", 112, QUICK), ("max_val", 8, 5)):
            if quick and name in options:
                options[name] = max(least, options[name] // divisor)
        if quick and self.kind == PRETRAIN:
            options["epochs"] = 1
        return options


def _train(name: str, base: Mapping[str, Any], *start: str, **options: Any) -> Cell:
    return Cell(name, {**base, **options}, start)


def _cells() -> Iterator[Cell]:
    yield Cell("pretrained-vgg", OBJECTS | {"trunk": "vgg"}, kind=PRETRAIN)
    yield Cell("pretrained-alexnet", OBJECTS | {"trunk": "alexnet", "width": THIN["alexnet"]}, kind=PRETRAIN)
    yield Cell(
        "pretrained-googlenet", OBJECTS | {"trunk": "googlenet", "width": THIN["googlenet"], "lr": 0.002}, kind=PRETRAIN
    )

    finer = {"lr": SCENES["lr"] * FINER}
    yield _train("fcn32s", SCENES, "pretrained-vgg")
    yield _train("fcn32s-fixed", SCENES, "pretrained-vgg", freeze="trunk")
    for trunk, width in THIN.items():
        yield _train(f"fcn32s-{trunk}", SCENES, f"pretrained-{trunk}", trunk=trunk, width=width, padding="safe")
    yield _train("fcn32s-augmented", SCENES, "pretrained-vgg", mirror=True, translate=32)
    yield _train("fcn32s-longer", SCENES, "fcn32s", **finer)
    yield _train("fcn16s", SCENES, "fcn32s", stages="16", **finer)
    yield _train("fcn16s-max", SCENES, "fcn32s", stages="16", fusion="max", **finer)
    yield _train("fcn16s-learned", SCENES, "fcn32s", stages="16", upsampling="learned", **finer)
    yield _train("fcn8s", SCENES, "fcn16s", stages="8", **finer)
    # beyond FCN-8s, each from the same one and as long
    yield _train("fcn8s-longer", SCENES, "fcn8s", stages="8", **finer)
    yield _train("fcn4s", SCENES, "fcn8s", stages="4", **finer)
    yield _train("fcn2s", SCENES, "fcn8s", stages="2", **finer)
    # FCN-pool4 is FCN-16s whose coarse score is zero and does not learn; in two stages, as fcn16s
    yield _train("pool4", SCENES, "pretrained-vgg", stages="16", freeze="score_fr")
    yield _train("pool4-longer", SCENES, "pool4", stages="16", freeze="score_fr", **finer)
    yield _train("fcn32s-learned", SCENES, "pretrained-vgg", upsampling="all learned")
    yield _train("fcn32s-coarse", SCENES, "pretrained-vgg", sampling="centres")
    for name in ("fcn32s-coarse", "fcn32s-longer"):
        yield Cell(f"{name}-stitched", {"stitched": True, "batch": 1}, (name,), EVALUATE)
    # as many steps as fcn32s, fcn16s and fcn8s have together
    epochs = 3 * SCENES["epochs"]
    yield _train("fcn8s-at-once", SCENES, "pretrained-vgg", stages="8", epochs=epochs, measure_every=epochs)

    yield _train("base", SMALL)
    yield _train("base-pretrained", SMALL, "pretrained-vgg")
    for parts in (1, 2, 4):
        more = {"batch": parts * SAMPLING["batch"], "epochs": parts * SAMPLING["epochs"]}
        more |= {"measure_every": more["epochs"], "sampling": 1 / parts}
        yield _train(f"sampling-{100 // parts}", SAMPLING, **more)
    yield _train("accumulated", MOMENTUM, accumulate=20, momentum=0.9)
    yield _train("online", MOMENTUM, momentum=0.9)
    yield _train("heavy", MOMENTUM, momentum=0.99)
    yield _train("averaged", AVERAGED)
    yield _train("summed", AVERAGED, normalize="none", lr=SUMMED_LR)
    yield _train("balanced", SMALL, class_balance=1.0)
    yield _train("rgbd", SMALL, inputs="rgbd")
    yield _train("depth", SMALL, inputs="depth")
    yield _train("late", SMALL, "base", "depth", inputs="rgb+depth", lr=SMALL["lr"] * FINER)
    yield _train("two-heads", SMALL, heads="label+geometry")
    yield _train("geometry", SMALL, heads="geometry")
    yield _train("foreground-only", SMALL, hide="background")
    yield _train("background-only", SMALL, hide="foreground")
    yield _train("shape", SMALL, hide="both")
    yield Cell("base-foreground", {"hide": "background"}, ("base",), EVALUATE)
    yield Cell("base-background", {"hide": "foreground"}, ("base",), EVALUATE)
    for parts, name in ((2, "half"), (4, "quarter")):
        epochs = parts * SMALL["epochs"]
        images = SMALL["max_train"] // parts
        yield _train(name, SMALL, max_train=images, epochs=epochs, measure_every=epochs)


CELLS: dict[str, Cell] = {cell.name: cell for cell in _cells()}


# ------------------------------------------------------------------------------------------------ one cell and one seed


@dataclass(frozen=True)
class Job:
    """A cell to be run from a seed: its options, the jobs it starts from, and the name of its folder."""

    cell: Cell
    seed: int
    settings: Mapping[str, Any]
    parents: tuple[Job, ...]

    @cached_property
    def folder(self) -> str:
        """The name of its folder: the cell, the seed, and a hash of all that decides its result."""
        return f"{self.cell.name}-{self.seed}-{digest(self)}"


def digest(job: Job) -> str:
    """Return a short hash of everything that decides a job's result, with the defaults of its options."""
    decides = {
        "kind": job.cell.kind,
        "options": resolved(job),
        "from": [parent.folder for parent in job.parents],
        "code": CODE,
    }
    text = json.dumps(decides, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


# Options that change nothing in what a net learns, or name a place.
UNDECIDING = {
    "recipe",
    "config",
    "resume",
    "run",
    "init",
    "samples",
    "device",
    "threads",
    "workers",
    "save_every",
    "stop_after",
}
UNDECIDING |= {"on_save_error", "detect_anomaly", "skip_bad", "watch"}


def resolved(job: Job) -> dict[str, Any]:
    """Return every option of a job that decides its result; `UsageError` for one that does not exist or fit."""
    if job.cell.kind == EVALUATE:
        return dict(job.settings)
    if job.cell.kind == PRETRAIN:
        options = dataclasses.asdict(Pretraining(**job.settings))
    else:
        options = from_dict(dict(job.settings), source=f"cell {job.cell.name}").as_dict()
    return {name: value for name, value in options.items() if name not in UNDECIDING}


def jobs(
    wanted: Iterable[str], seeds: Sequence[int], *, quick: bool = False, cells: Mapping[str, Cell] | None = None
) -> list[Job]:
    """Return the wanted cells and all they start from, once for each seed, each after those it starts from."""
    known = CELLS if cells is None else cells
    found: dict[tuple[str, int], Job] = {}

    def add(name: str, seed: int, below: tuple[str, ...]) -> Job:
        if name not in known:
            raise UsageError(f"cell {name!r} does not exist; there are {', '.join(known)}")
        if name in below:
            raise UsageError(f"cell {name!r} starts from itself: {' from '.join([*below, name])}")
        if (name, seed) not in found:
            cell = known[name]
            parents = tuple(add(parent, seed, (*below, name)) for parent in cell.start)
            found[name, seed] = Job(cell, seed, cell.settings(seed, quick=quick), parents)
        return found[name, seed]

    names = list(dict.fromkeys(wanted))
    for seed in seeds:  # the first seed of all, then the second: a run that is stopped early has something to show
        for name in names:
            add(name, seed, ())
    return list(found.values())


# ------------------------------------------------------------------------------------------------------- how long it is

MEGAPIXELS = 0.45  # a second, of FCN on VGG-11 of width 8, forward and backward, on one core of a laptop
STITCHING = 2.0  # seconds an image of 160 x 160, by shift-and-stitch
BEGINNING = 4.0  # seconds of a run that are no steps: to start, to paint the images, to measure, to write the report


def expected_seconds(job: Job) -> float:
    """Return about how many seconds a job takes on one core; the runner corrects it by what it meets."""
    if job.cell.kind == EVALUATE:
        return BEGINNING + STITCHING * job.settings.get("stitched", False) * resolved(job.parents[0])["max_val"]
    o = resolved(job)
    if job.cell.kind == PRETRAIN:
        return BEGINNING + o["epochs"] * o["images"] * o["size"] ** 2 / 1e6 / MEGAPIXELS
    nets = 1 + o["inputs"].count("+")
    return BEGINNING + nets * o["epochs"] * o["max_train"] * o["world_size"] ** 2 / 1e6 / MEGAPIXELS
