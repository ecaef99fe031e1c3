"""Train a trunk to classify single objects, before it becomes part of an FCN.

The paper's nets begin with what a classifier has learned from ImageNet (FCN, section 4.1), and its table 1 compares
them by the classifier. In the embedded world the classifier learns from `Objects`, one large thing in each picture, in
about a minute. It has the trunk of the FCN that comes after it, layer for layer, and on top the mean of the last map
and a score; the trunk alone goes into the file, for the answers of a classifier are left behind in any case.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from minifcn.backend import rng
from minifcn.data.batches import Preprocessing
from minifcn.data.objects import Objects
from minifcn.errors import DivergedError, GeometryError, UsageError
from minifcn.formats.checkpoint import save_checkpoint
from minifcn.formats.limits import path_of
from minifcn.geometry import out_size
from minifcn.models.classifier import Classifier, averaging
from minifcn.models.trunk import Trunk
from minifcn.models.vgg import VGG
from minifcn.models.zoo import TRUNKS, trunk_name
from minifcn.optim import SGD, Adam, Muon, Optimizer, learning_rate
from minifcn.training.divergence import unheard
from minifcn.training.options import CHOICES
from minifcn.training.options import RANGES as OF_RUNS
from minifcn.training.progress import Bar, silent
from minifcn.training.ranges import check_choices, check_ranges
from minifcn.training.step import accuracy, classifier_step, shuffled
from minifcn.weights.published import WeightSet

ORDER, MIRROR = 2, 3  # what a random stream is for; 0 and 1 are the trainer's
MEASURED = 350  # pictures, of the split val


@dataclass(frozen=True)
class Pretraining:
    """Train a trunk to name single things of the embedded world: `minifcn pretrain FILE.safetensors [options]`."""

    trunk: Annotated[str, '"vgg" with its `layers`, "vgg16", "alexnet", "googlenet", "squeezenet1.0" ...'] = "vgg"
    layers: Annotated[int, "which VGG `vgg` is: 11, 13, 16 or 19"] = 11
    width: Annotated[int, "channels, as in `minifcn train`: what this trunk is to begin has the same"] = 8
    images: Annotated[int, "pictures to learn from"] = 1400
    size: Annotated[int, "the side of the pictures, 64 to 500 pixels"] = 64
    epochs: Annotated[int, "passes over the pictures"] = 6
    batch: Annotated[int, "pictures in a step"] = 16
    optimizer: Annotated[
        str,
        '"adam", "muon", or "sgd" with momentum (from random weights AlexNet stayed at chance with that at 0.02)',
    ] = "adam"
    lr: Annotated[float, "the learning rate of weights; biases have twice it; it falls to 0"] = 0.001
    seed: Annotated[int, "what all random numbers come from: pictures, weights, order, mirroring"] = 0
    threads: Annotated[int, "threads that compute convolutions (0: one for each core)"] = 0

    def __post_init__(self) -> None:
        check_ranges(self, RANGES)
        check_choices(self, {name: CHOICES[name] for name in ("trunk", "layers", "optimizer")})

    @property
    def net(self) -> str:
        """The net by name, as a file of its weights has it: "objects-vgg11-width8"."""
        return f"objects-{trunk_name(self.trunk, self.layers)}-width{self.width}"

    def classifier(self) -> Classifier:
        """Return the net, freshly initialised from the seed."""
        make = TRUNKS[trunk_name(self.trunk, self.layers)]
        random = np.random.default_rng(self.seed)
        made = make(width=self.width, padding=border(make, self.size), dropout=0.0, init=random, rng=random)
        return averaging(made, classes=len(Objects.classes), init=random)


AS_IN_RUNS = [each for each in OF_RUNS if each[0] in ("width", "batch", "lr", "seed", "threads")]
RANGES = [*AS_IN_RUNS, ("images", 1, 100_000), ("size", 64, 500), ("epochs", 1, 10_000)]


def border(make: Callable[..., Trunk], size: int) -> int | str:
    """Return the padding for pictures of this size: "same" for VGG; else the least that fills a cell of the last map.

    The weights do not depend on it, and an FCN is free to have another.
    """
    none = np.random.default_rng(0)
    thin = make(width=1, init="zero", rng=none)
    if isinstance(thin, VGG):
        return "same"
    for padding in range(thin.classic["padding"], size + 512):
        try:
            if out_size(make(width=1, padding=padding, init="zero", rng=none).layers(), size) >= 1:
                return padding
        except GeometryError:
            continue
    raise UsageError(f"option size is {size}; expected pictures that fill a cell of the trunk's last map")


def pretrain(options: Pretraining, path: str | Path, *, say: Callable[[str], None] = silent) -> dict[str, Any]:
    """Train, measure after each epoch, write the trunk to `path` at the end, and return what is known of it.

    The file is a checkpoint that `init` of `minifcn train` takes, and holds the same record as its meta "pretraining":
    `options`, `accuracy`, `chance` (that of the most frequent class) and `loss`. Whatever ends the training earlier
    leaves no file. Raises `UsageError` for a path that cannot be written to, before anything else.
    """
    path = writable(path)
    drawn = time.perf_counter()
    train = Objects("train", count=options.images, size=options.size, seed=options.seed)
    preprocessing = Preprocessing.fit(train)
    known, measured = stacked(train), stacked(Objects("val", count=MEASURED, size=options.size, seed=options.seed))
    net = options.classifier()
    chance = float(np.bincount(measured[1].astype(np.intp)).max() / MEASURED)
    count = sum(parameter.size for parameter in net.parameters())
    say(f"{options.net}: {count:,} parameters, {len(Objects.classes)} classes, a guess is right for {chance:.3f}")
    took = f"{time.perf_counter() - drawn:.1f} s"
    say(f"drew {options.images} pictures to learn from and {MEASURED} to measure on in {took}")
    solver = {"sgd": SGD, "adam": Adam, "muon": Muon}[options.optimizer](net, lr=options.lr, weight_decay=0.0005)
    loss, right = math.nan, 0.0
    with Bar(options.epochs * math.ceil(options.images / options.batch), unit="step") as bar, unheard():
        for epoch in range(options.epochs):
            start = time.perf_counter()
            loss = learn(net, solver, options, epoch, known, preprocessing, bar)
            speed = options.images / (time.perf_counter() - start)
            right = accuracy(net, batches(*measured, preprocessing, batch=options.batch))
            with bar.hidden():
                say(
                    f"epoch {epoch + 1}/{options.epochs}  loss {loss:.3f}  accuracy {right:.3f}  "
                    f"chance {chance:.3f}  {speed:.0f} images/s"
                )
    record = {"options": asdict(options), "accuracy": right, "chance": chance, "loss": loss}
    trunk = {name: array for name, array in net.state_dict().items() if name.startswith("trunk.")}
    weights = WeightSet(path, options.net, net.trunk.last, (), preprocessing, trunk)
    save_checkpoint(path, trunk, weights.meta() | {"pretraining": record})
    say(f"wrote {path}: the trunk up to {net.trunk.last}")
    return record


def writable(path: str | Path) -> Path:
    """Return the path, if a file of that name can be put there; `UsageError` if not."""
    path = path_of(path)
    if path.suffix != ".safetensors":
        raise UsageError(f"{path}: expected a name that ends in .safetensors, the format that is written")
    if path.is_dir() or not path.parent.is_dir():
        found = "a folder of that name" if path.is_dir() else f"no folder {path.parent}"
        raise UsageError(f"{path}: found {found}; expected a place for a file")
    return path


def stacked(objects: Objects) -> tuple[np.ndarray, np.ndarray]:
    """Return all pictures (N, H, W, 3) uint8 and their classes (N,): each is drawn once."""
    images = np.empty((len(objects), *objects.size, 3), np.uint8)
    labels = np.empty(len(objects), np.int64)
    for i, (image, label) in enumerate(objects):
        images[i], labels[i] = image, label
    return images, labels


def learn(
    net: Classifier,
    solver: Optimizer,
    options: Pretraining,
    epoch: int,
    known: tuple[np.ndarray, np.ndarray],
    preprocessing: Preprocessing,
    bar: Bar,
) -> float:
    """Train for one epoch, every other picture mirrored at random, and return the mean loss."""
    images, labels = known
    parts = shuffled(rng(options.seed, ORDER, epoch), len(images), options.batch)
    mirrored = rng(options.seed, MIRROR, epoch).random(len(images)) < 0.5
    total = 0.0
    for step, part in enumerate(parts, start=epoch * len(parts)):
        solver.lr = learning_rate(step, options.epochs * len(parts), lr=options.lr, schedule="poly")
        x = np.stack([preprocessing(images[i, :, ::-1] if mirrored[i] else images[i]) for i in part])
        try:
            loss = classifier_step(net, solver, x, labels[part])
        except DivergedError as fault:
            raise DivergedError(
                f"{fault} in step {step + 1}; nothing is written; start again with a learning rate below "
                f"{options.lr:g} (`lr=...`)"
            ) from fault
        total += loss * len(part)
        bar.advance(note=f"loss {loss:.3f}")
    return total / len(images)


def batches(
    images: np.ndarray, labels: np.ndarray, preprocessing: Preprocessing, *, batch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield all pictures in order, as the net takes them, with their classes, `batch` at a time."""
    for start in range(0, len(images), batch):
        part = slice(start, start + batch)
        yield np.stack([preprocessing(image) for image in images[part]]), labels[part]
