"""Evaluate a net with the paper's four metrics, beside two baselines.

One confusion matrix for the whole set, never an average over images (FCN, section 5).
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from minifcn.backend import Array, device_of, to_device, to_host
from minifcn.data.batches import Preprocessing
from minifcn.data.dataset import Dataset, Subset
from minifcn.data.inputs import Inputs, Second, collate_inputs
from minifcn.data.prefetch import Prefetch, loaded
from minifcn.data.sample import VOID, Sample
from minifcn.inference import inference
from minifcn.introspect.markup import text_table
from minifcn.metrics import Absent, ConfusionMatrix
from minifcn.nn import Module
from minifcn.tensor import Tensor
from minifcn.training.ranks import ALONE, Alone


def device_of_net(net: Module) -> str:
    """Return "cpu" or "gpu": where the parameters are."""
    return "gpu" if "gpu" in {device_of(parameter.data) for parameter in net.parameters()} else "cpu"


def predict(net: Module, *images: np.ndarray) -> np.ndarray:
    """Return the class with the highest score at each pixel: (N, 3, H, W) preprocessed -> (N, H, W) uint8, on the host.

    A net of late fusion takes several images. Of two heads, the first one's classes.
    """
    return next(iter(predict_heads(net, *images).values()))


def predict_heads(net: Module, *images: Array) -> dict[str, np.ndarray]:
    """Return `predict` for each head of a net, by name; "" for the head of a net that has one."""
    device = device_of_net(net)
    with inference(net):
        scores = net(*(Tensor(to_device(image, device)) for image in images))
        heads = scores if isinstance(scores, dict) else {"": scores}
        return {name: to_host(each.data.argmax(axis=1).astype("uint8")) for name, each in heads.items()}


def batches_of_equal_size(samples: Iterable[Sample], batch: int) -> Iterator[list[Sample]]:
    """Yield all samples in order, neighbours of one size together: the metrics must not see padding."""
    for _, alike in itertools.groupby(samples, key=lambda sample: sample.label.shape):
        while group := list(itertools.islice(alike, batch)):
            yield group


def evaluate(
    net: Module,
    dataset: Dataset,
    preprocessing: Preprocessing | Inputs,
    *,
    batch: int = 8,
    workers: int = 0,
    progress: Callable[[int], None] = lambda images: None,
) -> ConfusionMatrix:
    """Return the confusion matrix of `net` over the labelled pixels of `dataset`.

    `workers` threads load images in advance, which changes no result; `progress(n)` reports images done.
    """
    inputs = preprocessing if isinstance(preprocessing, Inputs) else Inputs("rgb", preprocessing)
    return evaluate_heads(net, dataset, inputs, batch=batch, workers=workers, progress=progress)[0]


def evaluate_heads(
    net: Module,
    dataset: Dataset,
    inputs: Inputs,
    *,
    batch: int = 8,
    workers: int = 0,
    progress: Callable[[int], None] = lambda images: None,
    ranks: Alone = ALONE,
) -> tuple[ConfusionMatrix, ConfusionMatrix | None]:
    """Return `evaluate` for the labels and, where the net has a head for them, for the second labels (geometry).

    Each rank evaluates its share of the images, and all return the same sums.
    """
    matrix, second, device = ConfusionMatrix(len(dataset.classes), VOID), None, device_of_net(net)
    mine = Subset(dataset, range(len(dataset))[ranks.share(len(dataset), multiple=batch)])
    # inference around all batches: the filters are transformed once
    with inference(net), Prefetch(mine.__getitem__, workers=workers) as prefetch:
        for samples in batches_of_equal_size(prefetch.each(range(len(mine))), batch):
            images, labels, geometry = collate_inputs(samples, inputs, device=device)
            images = inputs.on_device(images, device, sizes=[sample.label.shape for sample in samples])
            first, *others = predict_heads(net, *images).values()
            matrix.update(labels, first)
            for each in others:
                if second is None:
                    second = ConfusionMatrix(len(Second(dataset).classes), VOID)
                second.update(geometry, each)
            progress(len(samples))
    counts = ranks.gather([None if each is None else each.matrix.tolist() for each in (matrix, second)])
    seconds = [ConfusionMatrix.of(geometry, VOID) for _, geometry in counts if geometry is not None]
    total = functools.reduce(operator.add, [ConfusionMatrix.of(label, VOID) for label, _ in counts])
    return total, functools.reduce(operator.add, seconds) if seconds else None


BASELINES = ("majority class", "pixel position")


def baselines(train: Dataset, test: Dataset, *, grid: int = 64, workers: int = 0) -> dict[str, ConfusionMatrix]:
    """Return the confusion matrices, on `test`, of two baselines that see no image: they count the labels of `train`.

    "majority class" says the most frequent class everywhere. "pixel position" says the most frequent class at that
    place: at that very pixel where all training labels have one size, else in the same cell of a `grid` x `grid` grid.
    """
    classes = len(train.classes)
    cells, sizes = np.zeros((classes, grid, grid), np.int64), set()
    exact: np.ndarray | None = None  # the same by pixel, while all labels have one size
    for sample in loaded(train, workers=workers):
        label, known = sample.label, sample.label != VOID
        values, place = label[known].astype(np.intp), in_cells(label, (grid, grid))
        where = np.ravel_multi_index((values, *(axis[known] for axis in place)), cells.shape)
        cells += np.bincount(where, minlength=cells.size).reshape(cells.shape)
        sizes.add(label.shape)
        if len(sizes) > 1:
            exact = None
            continue
        exact = np.zeros((classes, *label.shape), np.int64) if exact is None else exact
        exact[(values, *np.nonzero(known))] += 1
    counts = cells if exact is None else exact
    majority = int(counts.sum(axis=(1, 2)).argmax())
    by_place = np.where(counts.sum(axis=0) > 0, counts.argmax(axis=0), majority)

    matrices = {name: ConfusionMatrix(classes, VOID) for name in BASELINES}
    for sample in loaded(test, workers=workers):
        label = sample.label
        matrices["majority class"].update(label, np.full(label.shape, majority))
        matrices["pixel position"].update(label, by_place[in_cells(label, by_place.shape)])
    return matrices


def in_cells(label: np.ndarray, size: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Return the row and the column, in a grid of `size`, of each pixel of a label."""
    rows, cols = (np.arange(n) * cells // n for n, cells in zip(label.shape, size, strict=True))
    return np.broadcast_arrays(rows[:, None], cols[None])


# ------------------------------------------------------------------------------------------------------ how it is shown


def shares(matrix: ConfusionMatrix, classes: Sequence[str], *, most: int = 4) -> str:
    """Return the most frequent classes with their predicted and true share of pixels in percent: "tree 12/14, ..."."""
    predicted, true = matrix.shares_predicted(), matrix.shares_true()
    order = np.argsort(-np.maximum(predicted, true))[:most]
    return ", ".join(f"{classes[i]} {100 * predicted[i]:.0f}/{100 * true[i]:.0f}" for i in order)


def measures(matrix: ConfusionMatrix, classes: Sequence[str], absent: Absent = "skip") -> dict[str, Any]:
    """Return the counts of one head and what follows from them."""
    return {
        "classes": list(classes),
        "confusion": matrix.matrix.tolist(),
        **matrix.summary(absent),
        "iu": matrix.iu().tolist(),
        "absent": absent,
        "skipped": [classes[i] for i in matrix.skipped(absent)],
    }


def class_record(matrix: ConfusionMatrix) -> dict[str, Any]:
    """Return what the log keeps of every class."""
    return {
        "iu": matrix.iu().tolist(),
        "shares_true": matrix.shares_true().tolist(),
        "shares_predicted": matrix.shares_predicted().tolist(),
    }


def evaluation_record(
    matrix: ConfusionMatrix,
    guesses: Mapping[str, ConfusionMatrix],
    *,
    classes: Sequence[str],
    split: str,
    images: int,
    absent: Absent = "skip",
) -> dict[str, Any]:
    """Return what `evaluation.json` holds."""
    return {
        "split": split,
        "images": images,
        **measures(matrix, classes, absent),
        "baselines": {name: guess.summary(absent) for name, guess in guesses.items()},
    }


def table(matrix: ConfusionMatrix, guesses: Mapping[str, ConfusionMatrix], absent: Absent = "skip") -> str:
    """Return the four metrics of the net and of the baselines, as lines of text."""
    lines = [f"{'':<16} pixel acc.  mean acc.  mean IU  f.w. IU"]
    for name, each in {"this net": matrix, **guesses}.items():
        pixel, mean, iu, weighted = each.summary(absent).values()
        lines.append(f"{name:<16} {pixel:>10.3f}  {mean:>9.3f}  {iu:>7.3f}  {weighted:>7.3f}")
    return "\n".join(lines)


def class_table(matrix: ConfusionMatrix, classes: Sequence[str]) -> str:
    """Return a line for each class: its IU, its accuracy, and its share of the pixels, true and predicted."""
    rows = [("class", "IU", "found", "share true", "predicted")]
    columns = (matrix.iu(), matrix.accuracy(), matrix.shares_true(), matrix.shares_predicted())
    for name, iu, accuracy, true, predicted in zip(classes, *columns, strict=True):
        rows.append((name, f"{iu:.3f}", f"{accuracy:.3f}", f"{100 * true:.2f} %", f"{100 * predicted:.2f} %"))
    return "\n".join(text_table(rows, left=1))
