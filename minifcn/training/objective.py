"""The loss of a batch, of the kind that the options choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minifcn import ops
from minifcn.backend import Array, to_device, xp_of
from minifcn.data.sample import VOID
from minifcn.models.resnet import AUXILIARY
from minifcn.ops.loss import counting, log_softmax_where
from minifcn.sampling import sample_hardest
from minifcn.tensor import Tensor
from minifcn.training.loader import Batch, labels_on
from minifcn.training.options import Options


@dataclass(frozen=True)
class Objective:
    """Return the loss of the scores of a batch: `objective(scores, batch)`.

    `class_weights` holds the weight of each class, None if all weigh the same.
    """

    options: Options
    device: str
    class_weights: Any = None

    def __call__(self, scores: Any, batch: Batch) -> Tensor:
        """Return the loss of the labels, plus that of the second labels if the net has a head for them.

        Of the scores of an auxiliary head, "aux" beside "out", the loss counts half.
        """
        device, keep = self.device, None if batch.keep is None else to_device(batch.keep, self.device)
        options = {"normalize": self.options.normalize, "sampling": keep}
        first, second = ({**options, "divisor": divisor} for divisor in batch.divisors)
        labels = labels_on(batch.labels, device)
        if isinstance(scores, dict) and "aux" in scores:
            out, aux = (self._one_loss(scores[name], labels, weights=self.class_weights, **first) for name in scores)
            return out + AUXILIARY * aux
        two_heads = isinstance(scores, dict)
        loss = self._one_loss(scores["sem"] if two_heads else scores, labels, weights=self.class_weights, **first)
        if not two_heads:
            return loss
        return loss + self._one_loss(scores["geo"], labels_on(batch.geometry, device), **second)

    def _one_loss(self, scores: Tensor, labels: Any, **options: Any) -> Tensor:
        """Return the loss of one head, of the kind that the options name."""
        kind, share = self.options.loss, self.options.hardest
        if share < 1:
            options["sampling"] = hardest_pixels(scores.data, labels, options["sampling"], share)
        if kind == "focal":
            return ops.focal_loss(scores, labels, gamma=self.options.focal_gamma, **options)
        if kind == "cross_entropy":
            return ops.softmax_cross_entropy(scores, labels, **options)
        dice = ops.dice_loss(scores, labels, sampling=options["sampling"])
        return dice if kind == "dice" else dice + ops.softmax_cross_entropy(scores, labels, **options)


def hardest_pixels(scores: Array, labels: Array, sampling: Array | None, share: float) -> Array:
    """Return which pixels (N, H, W) of `sampling` are the share of each image whose label is least likely.

    The order is that of the cross entropy of a pixel, whatever the loss is and the classes weigh.
    """
    counts, label = counting("hardest", scores, labels, VOID, sampling)
    likely = xp_of(scores).take_along_axis(log_softmax_where(scores, counts), label, axis=1)[:, 0]
    return sample_hardest(-likely, counts, share)
