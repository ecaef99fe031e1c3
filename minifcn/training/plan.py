"""The plan of a run: layers, learning rates, steps and memory, before it starts.

    minifcn train --recipe heavy16-voc-fcn8s --stages 32,16,8 --data VOCdevkit --init vgg16.caffemodel --dry-run

The plan lists the images to learn from and the weights to begin with. For each stage it lists every layer with its
output shape, its learning rate (weights / biases) and its multiply-adds, then the steps and the most memory that one
step takes. Nothing is computed and nothing is written. A folder of images or a file of weights that does not exist yet
is reported, and the rest is planned for images of 500x500 pixels, or of the size given: `--dry-run=375x500`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from minifcn.data.batches import CAFFE
from minifcn.data.files import MAX_PIXELS
from minifcn.data.inputs import Inputs, Second, planes_of
from minifcn.errors import MinifcnError, UsageError
from minifcn.introspect.describe import Description, count, describe, giga, mib
from minifcn.introspect.markup import text_table
from minifcn.optim import Adam
from minifcn.training import setup
from minifcn.training.advice import labelled_pixels, rate_meaning
from minifcn.training.options import Options
from minifcn.training.recipes import PAPER, doubts, missing_beginning
from minifcn.training.setup import located
from minifcn.training.transfer import start, starting_weights
from minifcn.weights.published import WeightSet

USUAL = (500, 500)


@dataclass(frozen=True)
class Images:
    """What a plan has to know of the images: how many and how large, and the classes in them."""

    train: int
    size: tuple[int, int]
    pixels: int
    classes: int
    geometry: int


def plan(o: Options, *, size: tuple[int, int] | None = None, device: str = "cpu", ranks: int = 1) -> Iterator[str]:
    """Yield the lines of a dry run; `MinifcnError` for options that no run could have.

    size: height and width of an image, in the place of those of the first one. ranks: how many share each step.
    """
    if size and size[0] * size[1] > MAX_PIXELS:  # no such image is read, and counting its blocks would take minutes
        raise UsageError(
            f"option size is {size[0]}x{size[1]}; expected at most {MAX_PIXELS // 10**6} megapixels, as images may have"
        )
    setup.check_share(o, o.batch * o.accumulate, ranks)
    yield f"recipe {o.recipe}: what a run would do; nothing is computed, nothing is written"
    images, about = _images(o, size)
    yield from about
    if images.train:
        setup.check_share(o, min(images.train, o.overfit or images.train), ranks)
    weights, about = _weights(o)
    own = weights[0].preprocessing if weights else None
    fitted = f"{o.inputs} planes" if planes_of(o.inputs) else "RGB, 0..1"
    taken = setup.preprocessing(o, own) or f"{fitted}, normalised by what the training images are"
    yield f"images are taken as: {taken}"
    yield from about
    yield from (f"warning: {line}" for line in doubts(o, [one.net for one in weights]))
    for stage, stride in enumerate(o.strides):
        net = setup.network(o, images.classes, stride, geometry=images.geometry, init="zero")
        if stage:
            yield from ("", f"stage {stage + 1} of {len(o.strides)}: FCN-{stride}s, from the net before")
        else:
            yield from ("", f"stage 1 of {len(o.strides)}: {o.trunk if o.is_whole else f'FCN-{stride}s'}")
            yield from (start(net, weights) if weights else ())
        if o.frozen:
            net.freeze(*o.frozen)
        yield from _stage(o, net, o.rates[stage], images, device)


def _images(o: Options, size: tuple[int, int] | None) -> tuple[Images, list[str]]:
    """Return the images of the run, or what is known of them where they are not there."""
    said: list[str] = []
    try:
        train, val = setup.data_sets(o, say=said.append)
        first = train[0]
        through = setup.fitted(o, [first]) if planes_of(o.inputs) else CAFFE
        Inputs(o.inputs, through)(first)  # depth that is not there is found now
        geometry = len(Second(train).classes) if o.two_heads else 0
        sides = size or ((o.crop, o.crop) if o.crop else first.image.shape[:2])
        images = Images(len(train), sides, labelled_pixels(train, o.crop), len(train.classes), geometry)
        source = f" of {o.train_data}" if o.train_data else ""
        of_each = f"{len(train)} images to learn from (split {o.train_split}{source}), {len(val)} to measure on"
        said.append(f"data: {o.data}: {of_each}; {len(train.classes)} classes{_and(geometry)}")
    except MinifcnError as fault:
        if o.recipe not in PAPER or Path(located(o.data)).exists():  # there, and of no use
            raise
        paper, (height, width) = PAPER[o.recipe], size or USUAL
        geometry = len(paper.geometry) if o.two_heads else 0
        images = Images(0, (height, width), height * width, len(paper.classes), geometry)
        said = [
            f"data: {fault}",
            f"planned for {images.classes} classes{_and(geometry)}, as the recipe's data set has them",
        ]
    return images, said


def _and(geometry: int) -> str:
    return f" and {geometry} of the second kind" if geometry else ""


def _weights(o: Options) -> tuple[list[WeightSet], list[str]]:
    """Return what the net begins with, if that is there."""
    if not o.init:
        return [], ["begins with random numbers"]
    if missing := missing_beginning(o):
        return [], [f"begins with: {missing}"]
    said: list[str] = []
    weights = starting_weights(o.init, say=said.append)
    return weights, [f"warning: {line}" for line in said]


def _stage(o: Options, net: setup.Learner, rate: float, images: Images, device: str) -> Iterator[str]:
    height, width = images.size
    steps = f"{o.steps_per_stage(images.train):,} steps" if images.train or o.steps else f"{o.epochs} epochs in steps"
    per_step = o.batch * o.accumulate
    yield f"{steps} of {per_step} image{'s' * (per_step > 1)}, {o.batch} at once, here of {height}x{width} pixels"
    meaning = rate_meaning(o, rate=rate, pixels=images.pixels, images=min(o.batch, images.train or o.batch))
    yield f"learning rate {rate:g}: {meaning}"
    cost = describe(net, images.size, batch=o.batch, passes=o.accumulate, device=device)
    yield from table(cost, learning_rates(dataclasses.replace(o, lr=rate), net))
    kept = cost.gradients * (2 if isinstance(setup.solver(o, net), Adam) else 1)
    weights = sum(parameter.data.nbytes for parameter in net.parameters())
    yield (
        f"a training step holds at most {mib(weights + kept + cost.training)}: parameters {mib(weights)}, what the "
        f"optimizer keeps {mib(kept)}, activations and gradients {mib(cost.training)}"
    )


def learning_rates(o: Options, net: setup.Learner) -> dict[str, str]:
    """Return the learning rate of each layer with parameters, of its weights and of its biases: "1e-10 / 2e-10"."""
    multipliers, found = setup.solver(o, net).multipliers, dict[str, list[str]]()
    for name, parameter in net.named_parameters():
        rate = "frozen" if parameter.frozen else f"{o.lr * multipliers(name)[0]:g}"
        found.setdefault(name.rpartition(".")[0], []).append(rate)
    return {name: " / ".join(rates) for name, rates in found.items()}


def table(cost: Description, rates: dict[str, str]) -> Iterator[str]:
    """Yield the layers in the order in which they run, and their sum."""
    lines: list[Sequence[str]] = [("layer", "kind", "shape", "learning rate", "parameters", "multiply-adds")]
    for row in cost.rows:
        shape = "x".join(map(str, row.shape[1:]))
        numbers = (count(row.parameters), giga(row.multiply_adds))
        lines.append((row.name, row.kind, shape, rates.get(row.name, ""), *numbers))
    lines.append(("all", "", "", "", count(cost.parameters), giga(cost.multiply_adds)))
    yield from text_table(lines, left=4)
