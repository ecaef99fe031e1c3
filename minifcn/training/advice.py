"""Explain a run's numbers: learning rate, starting loss and warning signs.

Nothing here changes the run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from minifcn.data.dataset import Dataset
from minifcn.data.sample import VOID
from minifcn.metrics import ConfusionMatrix
from minifcn.optim import Muon
from minifcn.training.options import Options


def rate_meaning(o: Options, *, rate: float, pixels: int, images: int) -> str:
    """Return what a learning rate amounts to: the size of a step down the mean loss of a pixel.

    pixels: those with a label in an image. images: those in a batch.
    """
    if o.optimizer == "adam":
        trunk = f", of the trunk by about {rate * o.trunk_lr:.3g}" if o.trunk_lr != 1 else ""
        return f"Adam moves each weight by about that in a step{trunk}, whatever the loss is divided by"
    if o.optimizer == "muon":
        return (
            "Muon changes a layer of windows by about that in a step, in all directions alike, and moves other weights "
            f"by {rate * Muon.ADAM:.3g}, whatever the loss is divided by"
        )
    factor = {"none": pixels * images, "batch_size": pixels, "valid": 1}[o.normalize]
    per = {
        "none": "summed over the pixels of a batch",
        "batch_size": "summed over the pixels of an image",
        "valid": "averaged over the pixels",
    }
    return (
        f"the loss is {per[o.normalize]} ({o.normalize}), so on the loss per pixel it acts like {rate * factor:.3g}, "
        f"and with momentum {o.momentum:g} like {rate * factor / (1 - o.momentum):.3g} in the long run"
    )


def labelled_pixels(dataset: Dataset, crop: int, *, most: int = 16) -> int:
    """Return how many pixels of an image have a label, on average over the first few; in a crop, if there is one."""
    labels = [dataset[i].label for i in range(min(most, len(dataset)))]
    known = sum(int((label != VOID).sum()) for label in labels)
    if crop:
        return round(crop * crop * known / sum(label.size for label in labels))
    return round(known / len(labels))


def first_loss(loss: float, classes: int) -> str:
    """Return the first batch's loss per pixel beside what it should be: -ln(1/C), all classes being equally likely."""
    expected = math.log(classes)
    remark = "as scores of zero must give" if abs(loss - expected) < 1e-3 else "which only scores of zero would give"
    return f"loss per pixel at the start {loss:.4f}; ln {classes} = {expected:.4f}, {remark}"


def warnings_about(
    loss: float, matrix: ConfusionMatrix, classes: Sequence[str], *, lr: float, trunk: bool, steps: int = 2
) -> Iterator[str]:
    """Yield warnings: a loss that stays at ln C, a net that predicts one class everywhere.

    lr: the learning rate of the last step. trunk: whether all weights of the trunk are zero. steps: how
    many steps the loss averages. The loss of the first step comes before any learning, so it gives no warning.
    """
    expected = math.log(len(classes))
    if len(classes) > 1 and abs(loss - expected) < 0.01 * expected and (steps > 1 or trunk or lr == 0):
        if trunk:
            cause = "all weights of the trunk are zero, so that no gradient gets through: initialise or load them"
        elif lr == 0:
            cause = "the learning rate is 0"
        else:
            cause = f"the learning rate ({lr:.3g}) is too low, or the labels have nothing to do with the images"
        yield f"the loss stays at ln {len(classes)} = {expected:.4f}, as if nothing were learned; {cause}"
    predicted, true = matrix.shares_predicted(), matrix.shares_true()
    most = int(predicted.argmax())
    if predicted[most] > 0.99 > true[most]:
        yield (
            f"{100 * predicted[most]:.1f} % of the pixels are called {classes[most]} ({100 * true[most]:.1f} % are): "
            "train longer (a new run with `init=RUN` begins where this one ends), or with a higher learning rate"
        )
