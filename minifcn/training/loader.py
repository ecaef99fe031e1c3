"""Draw the images of each step, share them between the ranks, and load them as batches.

Everything random is drawn for its place (`rng(seed, purpose, stage, epoch, ...)`), never from a stream that has run
on. So a run that is stopped and resumed at any step goes on bit for bit as if it had not been, and several ranks draw
what one would.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from minifcn.backend import Array, rng, to_device
from minifcn.data.batches import Preprocessing
from minifcn.data.dataset import Dataset
from minifcn.data.inputs import Inputs, collate_inputs
from minifcn.data.prefetch import Prefetch
from minifcn.data.sample import VOID, Sample
from minifcn.sampling import hardest, sample, sample_balanced, sample_centres
from minifcn.training import setup
from minifcn.training.options import BALANCED, CENTRES, Options
from minifcn.training.ranks import ALONE, Alone

ORDER, AUGMENT, SAMPLING, DROPOUT = 0, 1, 2, 3  # what a random stream is for


class Batch(NamedTuple):
    """A batch of a step, or this rank's part of it: `part` of its `images`, collated.

    `inputs` are what `collate_inputs` makes for the device, from images of these `sizes`; all arrays lie on the host.
    `keep` says which pixels count (None: all). `divisors` are those of the loss of each head, where this is not the
    whole batch.
    """

    number: int
    images: int
    part: slice
    inputs: list[np.ndarray]
    sizes: list[tuple[int, int]]
    labels: np.ndarray
    geometry: np.ndarray
    keep: np.ndarray | None
    divisors: tuple[int | None, int | None] = (None, None)


def labels_on(labels: np.ndarray, device: str) -> Array:
    """Return labels, 0 to 255, on `device`; they cross over as bytes."""
    return labels if device == "cpu" else to_device(labels.astype(np.uint8), device).astype(np.int64)


def learned_from(labels: np.ndarray, keep: np.ndarray | None, share: float = 1.0) -> int:
    """Return how many pixels have a label and are kept; with a `share`, how many are the hardest of their images."""
    counts = (labels != VOID) if keep is None else (labels != VOID) & (keep != 0)
    return int(counts.sum() if share == 1 else hardest(counts.sum(axis=(1, 2)), share).sum())


@lru_cache(maxsize=2)  # every step asks many times for the order of this epoch and of the next
def drawn_order(images: int, stream: tuple[int, ...], with_replacement: bool) -> np.ndarray:
    """Draw the order in which an epoch takes its images, from that stream of random numbers."""
    draw = rng(*stream)
    return draw.integers(images, size=images) if with_replacement else draw.permutation(images)


def largest(samples: Sequence[Sample]) -> list[int]:
    """Return the largest height and width among the samples; zeros if there are none."""
    sizes: list[int] = np.max([(0, 0), *(sample.label.shape for sample in samples)], axis=0).tolist()
    return sizes


class Loader:
    """The batches of a stage: `of_step(step)` yields those that this rank computes.

    `images` is the training set. Batches are made for `device`, and lie on the host. Inside `with`, the images of the
    next steps are loaded in advance.
    """

    def __init__(
        self,
        options: Options,
        images: Dataset,
        preprocessing: Preprocessing,
        *,
        classes: int,
        device: str = "cpu",
        ranks: Alone = ALONE,
    ) -> None:
        self.options, self.images, self.classes, self.ranks = options, images, classes, ranks
        self.device = device
        self.inputs = Inputs(options.inputs, preprocessing)
        self.augment = setup.augmentation(options, preprocessing.fill)
        self.stage = self.began = 0
        self._prefetch = Prefetch(self._load, workers=0)

    def begin_stage(self, stage: int, began: int) -> None:
        """Forget the batches of the stage before: this one begins at step `began` of the run."""
        self._prefetch.clear()
        self.stage, self.began = stage, began

    def __enter__(self) -> Loader:
        self._prefetch = Prefetch(self._load, workers=self.options.workers)
        return self

    def __exit__(self, *reason: object) -> None:
        self._prefetch.__exit__(*reason)

    # ------------------------------------------------------------------------------------------------- which images

    def epoch_of(self, step: int) -> tuple[int, int]:
        """Return the epoch of this stage that the step belongs to, and its place in the epoch, both from 0."""
        return divmod(step - self.began, self.options.steps_per_epoch(len(self.images)))

    def drawn(self, step: int) -> list[np.ndarray]:
        """Draw the images of a step: their numbers, for each batch."""
        o, (epoch, position) = self.options, self.epoch_of(step)
        per_step = o.batch * o.accumulate
        order = drawn_order(len(self.images), (o.seed, ORDER, self.stage, epoch), o.with_replacement)
        chosen = order[position * per_step : (position + 1) * per_step]
        return [chosen[i : i + o.batch] for i in range(0, len(chosen), o.batch)]

    def _in_parts(self, batches: Sequence[np.ndarray]) -> bool:
        """Return whether the ranks split each batch of a step, because there are fewer batches than ranks."""
        return len(batches) < self.ranks.size and self.options.adds_up

    def _shares(self, batches: Sequence[np.ndarray]) -> dict[int, slice]:
        """Return what this rank computes: some of the batches, or a part of each where there are too few for all."""
        if self._in_parts(batches):
            return {number: self.ranks.share(len(batch)) for number, batch in enumerate(batches)}
        mine = range(len(batches))[self.ranks.share(len(batches))]
        return {number: slice(0, len(batches[number])) for number in mine}

    def _places(self, step: int) -> Iterator[tuple[int, int]]:
        """Yield the step and number of each batch that this rank computes, from this step to the end of the stage."""
        for each in range(step, self.began + self.options.steps_per_stage(len(self.images))):
            yield from ((each, number) for number in self._shares(self.drawn(each)))

    # ------------------------------------------------------------------------------------------------ loaded batches

    def of_step(self, step: int) -> Iterator[Batch]:
        """Yield what this rank computes in this step."""
        batches = self.drawn(step)
        places, samples = list(itertools.product([step], self._shares(batches))), dict[int, list[Sample]]()
        for place in places:
            found = self._prefetch.take(place, itertools.islice(self._places(step), 1 + places.index(place), None))
            if isinstance(found, Batch):
                yield found
            else:
                samples[place[1]] = found
        if samples:
            yield from self._parts(step, batches, samples)

    def _parts(self, step: int, batches: Sequence[np.ndarray], samples: Mapping[int, list[Sample]]) -> Iterator[Batch]:
        """Yield this rank's part of each batch, whose size and divisors all ranks find together."""
        sizes = np.max(self.ranks.gather([largest(mine) for mine in samples.values()]), axis=0)
        counts, parts, shares = np.zeros((len(batches), 2), int), list[Batch](), self._shares(batches)
        share = self.options.hardest
        for number, mine in samples.items():
            if mine:
                images, size = len(batches[number]), (int(sizes[number][0]), int(sizes[number][1]))
                part = self._batch(step, number, images, shares[number], mine, size=size)
                counts[number] = [learned_from(truth, part.keep, share) for truth in (part.labels, part.geometry)]
                parts.append(part)
        valid = np.sum(self.ranks.gather(counts.tolist()), axis=0)
        for part in parts:
            divisors = {"none": (1, 1), "batch_size": (part.images, part.images), "valid": valid[part.number].tolist()}
            yield part._replace(divisors=divisors[self.options.normalize])

    def _load(self, place: tuple[int, int]) -> Batch | list[Sample]:
        """Load a batch; where it is a part, whose final size other ranks know, the samples of it."""
        step, number = place
        batches = self.drawn(step)
        share, (epoch, _) = self._shares(batches)[number], self.epoch_of(step)
        samples = [self._sample(int(image), epoch) for image in batches[number][share]]
        if self._in_parts(batches):
            return samples
        return self._batch(step, number, len(samples), share, samples)

    def _sample(self, i: int, epoch: int) -> Sample:
        return self.augment(self.images[i], rng(self.options.seed, AUGMENT, self.stage, epoch, i))

    def _batch(
        self,
        step: int,
        number: int,
        images: int,
        part: slice,
        samples: list[Sample],
        *,
        size: tuple[int, int] = (0, 0),
    ) -> Batch:
        inputs, labels, geometry = collate_inputs(samples, self.inputs, size=size, device=self.device)
        keep, (kind, p) = None, self.options.sampled
        balanced = kind == BALANCED
        if kind == CENTRES:
            keep = sample_centres(labels, self.options.strides[self.stage])
        elif p < 1:
            # the sample of the whole batch; a balanced one looks at the labels, and is never of a part
            whole = labels if balanced else np.broadcast_to(labels[:1], (images, *labels.shape[1:]))
            draw = rng(self.options.seed, SAMPLING, step, number)
            keep = (sample_balanced(whole, p, draw, classes=self.classes) if balanced else sample(whole, p, draw))[part]
        sizes = [sample.label.shape for sample in samples]
        return Batch(number, images, part, inputs, sizes, labels, geometry, keep)
