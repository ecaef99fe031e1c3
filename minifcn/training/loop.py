"""The training loop: draw images, step, measure and save.

Everything random is drawn for its place (`rng(seed, purpose, stage, epoch, ...)`), never from a stream that has run
on. So a run that is stopped and resumed at any step goes on bit for bit as if it had not been, and several ranks draw
what one would.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from minifcn import ops, viz
from minifcn.backend import rng, to_device, to_host
from minifcn.data.batches import Preprocessing
from minifcn.data.dataset import Cached, Dataset, Subset
from minifcn.data.inputs import Hidden, Inputs, Second, collate_inputs
from minifcn.data.prefetch import Prefetch
from minifcn.data.sample import VOID, Sample
from minifcn.data.tools.silent import Silent
from minifcn.errors import DivergedError, FormatError, UsageError
from minifcn.formats.checkpoint import replace_file
from minifcn.metrics import ConfusionMatrix
from minifcn.models.fcn import FCN
from minifcn.models.paper import LateFusion
from minifcn.nn import drawing
from minifcn.optim import SGD, Adam, WeightAverage, learning_rate
from minifcn.sampling import class_weights, count, sample, sample_balanced
from minifcn.tensor import Tensor
from minifcn.training import runlog, setup
from minifcn.training.advice import first_loss, labelled_pixels, rate_meaning, warnings_about
from minifcn.training.divergence import largest_gradients, merged, not_finite, unheard, watching, worst
from minifcn.training.environment import differences, environment
from minifcn.training.evaluation import (
    baselines,
    class_record,
    evaluate_heads,
    evaluation_record,
    measures,
    predict,
    shares,
    table,
)
from minifcn.training.net_record import NetRecord
from minifcn.training.options import Options
from minifcn.training.progress import Bar, clock, silent
from minifcn.training.ranks import ALONE, Alone
from minifcn.training.report import write_report
from minifcn.training.resume import Progress, checked_progress, fingerprint
from minifcn.training.run_folder import Checkpoint, RunFolder
from minifcn.training.signals import Interrupted, Signals
from minifcn.training.step import backward
from minifcn.training.trained import AVERAGE, part, restore_net

ORDER, AUGMENT, SAMPLING, DROPOUT = 0, 1, 2, 3  # what a random stream is for
KNOWN = 0.99  # the pixel accuracy at which --overfit has done its work


class Batch(NamedTuple):
    """A batch of a step, or this rank's part of it: `part` of its `images`, collated.

    `keep` says which pixels count (None: all). `divisors` are those of the loss of each head, where this is
    not the whole batch.
    """

    number: int
    images: int
    part: slice
    inputs: list[np.ndarray]
    labels: np.ndarray
    geometry: np.ndarray
    keep: np.ndarray | None
    divisors: tuple[int | None, int | None] = (None, None)


class Shown(NamedTuple):
    """What is remembered of a part of a batch: the batch's number, and how many pixels are learned from."""

    number: int
    pixels: int


def learned_from(labels: np.ndarray, keep: np.ndarray | None) -> int:
    """Return how many pixels have a label and are kept."""
    return int(((labels != VOID) if keep is None else (labels != VOID) & (keep != 0)).sum())


def largest(samples: Sequence[Sample]) -> list[int]:
    """Return the largest height and width among the samples; zeros if there are none."""
    sizes: list[int] = np.max([(0, 0), *(sample.label.shape for sample in samples)], axis=0).tolist()
    return sizes


class Trainer:
    """One run: `run()` trains all stages from wherever `restore` has put it, and leaves the run folder complete.

    `train` and `val` are data sets of the same classes; every image of both is read before the first step. `say`
    prints one line.
    """

    def __init__(
        self,
        options: Options,
        folder: RunFolder,
        train: Dataset,
        val: Dataset,
        *,
        preprocessing: Preprocessing | None = None,
        device: str = "cpu",
        say: Callable[[str], None] = silent,
        ranks: Alone = ALONE,
    ) -> None:
        self.options, self.folder, self.device, self._say, self.ranks = options, folder, device, say, ranks
        self.progress, self._signals = Progress(), Signals()
        self._prefetch = Prefetch(self._load, workers=0)
        learned = Cached(Subset(train, range(min(len(train), options.overfit or len(train)))))
        measured = learned if options.overfit else Cached(val)
        seen = Silent()
        for images in (learned, measured):
            faults = ranks.gather(images.faults(ranks.share(len(images)), look=seen.sample))
            images.refuse(list(itertools.chain(*faults)))
        self._check_share(len(learned))
        for warning in dict.fromkeys(itertools.chain(*ranks.gather(list(seen.sentences())))):
            say(f"warning: {warning}")
        self.train_set: Dataset = learned
        self.val_set: Dataset = measured
        self.classes = tuple(train.classes)
        self.geometry_classes = Second(self.train_set).classes if options.two_heads else ()
        self.preprocessing = preprocessing or Preprocessing.fit(self.train_set)
        self.inputs(self.train_set[0])  # depth that is not there is found before anything is made
        if options.hide:
            hidden = (
                Hidden(each, options.hide, fill=self.preprocessing.fill) for each in (self.train_set, self.val_set)
            )
            self.train_set, self.val_set = hidden
        self.augment = setup.augmentation(options, self.preprocessing.fill)
        self._class_weights = self._counted_weights()
        self.environment = environment(device) | {"ranks": ranks.size}
        self._bar = Bar(0, unit="step")
        self._code = 0  # of the signal that a rank got
        self._measured: tuple[ConfusionMatrix, ConfusionMatrix | None] | None = None  # of the net as it is now
        self._logged = time.perf_counter()
        self.net: FCN | LateFusion
        self.optimizer: SGD | Adam
        self._begin_stage(None)

    @property
    def inputs(self) -> Inputs:
        """What the net sees of a sample."""
        return self.record.inputs

    @property
    def record(self) -> NetRecord:
        """What the net of this stage is."""
        stride = self.options.strides[self.progress.stage]
        return NetRecord(self.options, stride, self.classes, self.geometry_classes, self.preprocessing)

    def _counted_weights(self) -> Any:
        """What each class weighs in the loss, None for alike."""
        if not self.options.class_balance:
            return None
        mine = range(len(self.train_set))[self.ranks.share(len(self.train_set))]
        counts = sum(count(self.train_set[i].label, len(self.classes)) for i in mine)
        total = np.sum(self.ranks.gather(np.asarray(counts).tolist()), axis=0)
        return to_device(class_weights(total, power=self.options.class_balance), self.device)

    def _check_share(self, images: int) -> None:
        """Raise `UsageError` where some ranks would have nothing to do in any step."""
        o, ranks = self.options, self.ranks.size
        if not o.adds_up and min(o.accumulate, math.ceil(images / o.batch)) < ranks:
            raise UsageError(
                f"{ranks} ranks share steps of {o.accumulate} batches, and a dice loss or a balanced sample looks at "
                "a whole batch; expected at least one batch for each rank: choose a larger `accumulate=...`"
            )
        per_step = min(o.batch * o.accumulate, images)
        if per_step < self.ranks.size:
            raise UsageError(
                f"{self.ranks.size} ranks share steps of {per_step} image{'s' * (per_step > 1)}; expected at least one "
                "image for each rank: start fewer ranks, or choose a larger `batch=...` or `accumulate=...`"
            )

    def say(self, line: str) -> None:
        """A line above the progress bar."""
        try:
            with self._bar.hidden():
                self._say(line)
        except OSError as fault:  # no reason to lose the work
            self._signals.lost(fault)

    # ------------------------------------------------------------------------------------------------------- the stages

    def _begin_stage(self, coarser: FCN | LateFusion | None) -> None:
        """A new net; from the coarser one it takes every parameter that it has, too. The new scores start at zero."""
        o, self.net = self.options, self.record.network()
        if coarser is not None:
            self.net.load_state_dict(coarser.state_dict(), strict=False)
        self.net.to(self.device)
        if o.frozen:
            self.net.freeze(*o.frozen)
        self.optimizer = setup.solver(o, self.net)
        self.average = WeightAverage(self.net, decay=o.ema) if o.ema else None

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one pass over the training images."""
        return self.options.steps_per_epoch(len(self.train_set))

    @property
    def steps_per_stage(self) -> int:
        """Steps of one stage."""
        return self.options.steps_per_stage(len(self.train_set))

    @property
    def finished(self) -> bool:
        """Whether the last stage is done."""
        return self.progress.stage_done and self.progress.stage + 1 == len(self.options.strides)

    def run(self) -> dict[str, Any]:
        """Train to the end and return what `evaluation.json` holds. Raises `Interrupted`, `DivergedError`."""
        o, p = self.options, self.progress
        self._announce()
        self.ranks.check_alike(self.net)
        if p.step == 0:
            self.save()  # what cannot be saved should be known before the first step
        first, self._logged = p.step, time.perf_counter()
        total = self.steps_per_stage * len(o.strides)
        with (
            self._signals,
            Bar(total, unit="step", done=p.step) as self._bar,
            Prefetch(self._load, workers=o.workers) as self._prefetch,
            unheard(),
        ):
            while not self.finished:
                if p.stage_done:
                    self._next_stage()
                self._one_step()
                code = self._code
                self._bar.advance(note=f"loss {p.loss / max(p.pixels, 1):.3f}, {self._speed():.0f} images/s")
                measure = self._is_due()
                if measure or p.step % max(10, self.steps_per_epoch // 10) == 0:
                    self._log()
                best = measure and self._measure()
                enough = p.step - first == o.stop_after and not self.finished
                if measure or enough or code or (o.save_every and p.step % o.save_every == 0):
                    self.save(best=best)
                    found = self.ranks.gather([self._signals.code, self._signals.why])  # it may have come while saving
                    code, why = max(found, key=lambda each: each[0])
                    if enough or code:
                        raise Interrupted(f"stopped after step {p.step}{why}, everything is saved", code)
        return self.finish()

    def _next_stage(self) -> None:
        self._prefetch.clear()
        p, coarser = self.progress, self.net
        p.stage, p.stage_began, p.stage_done = p.stage + 1, p.step, False
        self._begin_stage(coarser)
        self.say(f"stage {p.stage + 1}: FCN-{self.options.strides[p.stage]}s, from the net before")
        self._say_rate()

    def _is_due(self) -> bool:
        """Whether it is time to measure: after so many epochs or steps, and at the end of a stage."""
        done = self.progress.step - self.progress.stage_began
        between = self.options.measure_steps or self.options.measure_every * self.steps_per_epoch
        return done % between == 0 or done == self.steps_per_stage

    # --------------------------------------------------------------------------------------------------------- one step

    def _one_step(self) -> None:
        p, done = self.progress, self.progress.step - self.progress.stage_began
        o = self.options
        self.optimizer.lr = learning_rate(
            done, self.steps_per_stage, lr=self._stage_rate(), schedule=o.schedule, warmup=o.warmup
        )
        batches = self._drawn(p.step)
        reports = self.ranks.gather(self._backward(batches))
        for report in reports:
            if report["fault"]:
                number, _ = report["shown"][-1]
                self._diverged(report["fault"], [self.train_set.ids[i] for i in batches[number]])
        has_gradient = np.any([report["has_gradient"] for report in reports], axis=0)
        self.ranks.add_gradients(list(itertools.compress(self.net.parameters(), has_gradient)))
        self.optimizer.step(accumulated=len(batches))
        if self.average:
            self.average.update(done + 1)
        self._count_all(batches, reports)
        p.step += 1
        self._code, self._measured = max(report["code"] for report in reports), None

    def _backward(self, batches: Sequence[np.ndarray]) -> dict[str, Any]:
        """Compute the gradients of this rank's part of the batches, and return what the other ranks need to know."""
        shown, losses, fault = list[Shown](), list[float](), ""
        try:
            losses = backward(self._losses(self._mine(batches), shown))
        except DivergedError as found:
            fault = str(found)
        has_gradient = [parameter.grad is not None for parameter in self.net.parameters()]
        return {
            "shown": shown,
            "losses": losses,
            "fault": fault,
            "has_gradient": has_gradient,
            "code": self._signals.code,
        }

    def _count_all(self, batches: Sequence[np.ndarray], reports: Sequence[dict[str, Any]]) -> None:
        """Count each batch, from the reports of all ranks on their parts of it."""
        parts = [pair for report in reports for pair in zip(report["shown"], report["losses"], strict=True)]
        for number, batch in enumerate(batches):
            mine = [(pixels, loss) for (place, pixels), loss in parts if place == number]
            self._count(len(batch), sum(pixels for pixels, _ in mine), sum(loss for _, loss in mine))

    def _epoch_of(self, step: int) -> tuple[int, int]:
        """Return the epoch of this stage that the step belongs to, and its place in the epoch, both from 0."""
        return divmod(step - self.progress.stage_began, self.steps_per_epoch)

    def _drawn(self, step: int) -> list[np.ndarray]:
        """Draw the images of a step: their numbers, for each batch."""
        o, (epoch, position), images = self.options, self._epoch_of(step), len(self.train_set)
        draw = rng(o.seed, ORDER, self.progress.stage, epoch)
        order = draw.integers(images, size=images) if o.with_replacement else draw.permutation(images)
        per_step = o.batch * o.accumulate
        chosen = order[position * per_step : (position + 1) * per_step]
        return [chosen[i : i + o.batch] for i in range(0, len(chosen), o.batch)]

    def _in_parts(self, batches: Sequence[np.ndarray]) -> bool:
        """Whether each batch of a step is split between the ranks: there are too few for each rank to have one."""
        return len(batches) < self.ranks.size and self.options.adds_up

    def _shares(self, batches: Sequence[np.ndarray]) -> dict[int, slice]:
        """Return what this rank computes: some of the batches, or a part of each where there are too few for all."""
        if self._in_parts(batches):
            return {number: self.ranks.share(len(batch)) for number, batch in enumerate(batches)}
        mine = range(len(batches))[self.ranks.share(len(batches))]
        return {number: slice(0, len(batches[number])) for number in mine}

    def _places(self, step: int) -> Iterator[tuple[int, int]]:
        """Yield the step and number of each batch that this rank computes, from this step to the end of the stage."""
        for each in range(step, self.progress.stage_began + self.steps_per_stage):
            yield from ((each, number) for number in self._shares(self._drawn(each)))

    def _load(self, place: tuple[int, int]) -> Batch | list[Sample]:
        """Load a batch; where it is a part, whose final size other ranks know, the samples of it."""
        step, number = place
        batches = self._drawn(step)
        share, (epoch, _) = self._shares(batches)[number], self._epoch_of(step)
        samples = [self._sample(int(image), epoch) for image in batches[number][share]]
        if self._in_parts(batches):
            return samples
        return self._batch(step, number, len(samples), share, samples)

    def _sample(self, i: int, epoch: int) -> Sample:
        sample = self.train_set[i]
        return self.augment(sample, rng(self.options.seed, AUGMENT, self.progress.stage, epoch, i))

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
        inputs, labels, geometry = collate_inputs(samples, self.inputs, size=size)
        keep, (balanced, p) = None, self.options.sampled
        if p < 1:
            # the sample of the whole batch; a balanced one looks at the labels, and is never of a part
            whole = labels if balanced else np.broadcast_to(labels[:1], (images, *labels.shape[1:]))
            keep = self._sampled(whole, p, rng(self.options.seed, SAMPLING, step, number), balanced=balanced)[part]
        return Batch(number, images, part, inputs, labels, geometry, keep)

    def _mine(self, batches: Sequence[np.ndarray]) -> Iterator[Batch]:
        """Yield what this rank computes in this step."""
        step = self.progress.step
        places, samples = list(itertools.product([step], self._shares(batches))), dict[int, list[Sample]]()
        for place in places:
            found = self._prefetch.take(place, itertools.islice(self._places(step), 1 + places.index(place), None))
            if isinstance(found, Batch):
                yield found
            else:
                samples[place[1]] = found
        if samples:
            yield from self._parts(batches, samples)

    def _parts(self, batches: Sequence[np.ndarray], samples: Mapping[int, list[Sample]]) -> Iterator[Batch]:
        """Yield this rank's part of each batch, whose size and divisors all ranks find together."""
        sizes = np.max(self.ranks.gather([largest(mine) for mine in samples.values()]), axis=0)
        counts, parts, shares = np.zeros((len(batches), 2), int), list[Batch](), self._shares(batches)
        for number, mine in samples.items():
            if mine:
                images, size = len(batches[number]), (int(sizes[number][0]), int(sizes[number][1]))
                part = self._batch(self.progress.step, number, images, shares[number], mine, size=size)
                counts[number] = [learned_from(truth, part.keep) for truth in (part.labels, part.geometry)]
                parts.append(part)
        valid = np.sum(self.ranks.gather(counts.tolist()), axis=0)
        for part in parts:
            divisors = {"sum": (1, 1), "batch": (part.images, part.images), "valid": valid[part.number].tolist()}
            yield part._replace(divisors=divisors[self.options.normalize])

    def _stage_rate(self) -> float:
        return self.options.rates[self.progress.stage]

    def _losses(self, batches: Iterable[Batch], shown: list[Shown]) -> Iterator[Tensor]:
        """Compute the loss of each of these batches, and add the batch to `shown`."""
        for batch in batches:
            shown.append(Shown(batch.number, learned_from(batch.labels, batch.keep)))
            yield self._loss(self._scores(batch), batch)

    def _sampled(self, labels: np.ndarray, p: float, draw: np.random.Generator, *, balanced: bool) -> np.ndarray:
        """Return which pixels of a batch count."""
        return sample_balanced(labels, p, draw, classes=len(self.classes)) if balanced else sample(labels, p, draw)

    def _scores(self, batch: Batch) -> Any:
        masks = drawing(rng(self.options.seed, DROPOUT, self.progress.step, batch.number), batch.images, batch.part)
        with masks, watching(self.net) if self.options.detect_anomaly else contextlib.nullcontext():
            return self.net.train()(*(Tensor(to_device(x, self.device)) for x in batch.inputs))

    def _loss(self, scores: Any, batch: Batch) -> Tensor:
        """The loss of the labels, plus that of the second labels where the net has a head for them, both unweighted."""
        device, keep = self.device, None if batch.keep is None else to_device(batch.keep, self.device)
        options = {"normalize": self.options.normalize, "sampling": keep}
        first, second = ({**options, "divisor": divisor} for divisor in batch.divisors)
        two_heads, labels = isinstance(scores, dict), to_device(batch.labels, device)
        loss = self._one_loss(scores["sem"] if two_heads else scores, labels, weights=self._class_weights, **first)
        if not two_heads:
            return loss
        return loss + self._one_loss(scores["geo"], to_device(batch.geometry, device), **second)

    def _one_loss(self, scores: Tensor, labels: Any, **options: Any) -> Tensor:
        """The loss of one head, of the kind that the options name."""
        kind = self.options.loss
        if kind == "focal":
            return ops.focal_loss(scores, labels, gamma=self.options.focal_gamma, **options)
        if kind == "cross_entropy":
            return ops.softmax_cross_entropy(scores, labels, **options)
        dice = ops.dice_loss(scores, labels, sampling=options["sampling"])
        return dice if kind == "dice" else dice + ops.softmax_cross_entropy(scores, labels, **options)

    def _count(self, images: int, pixels: int, loss: float) -> None:
        """Add the loss of a batch to that of its epoch, per pixel; say what the very first one is."""
        p = self.progress
        total = loss * {"sum": 1, "batch": images, "valid": max(pixels, 1)}[self.options.normalize]
        if p.step == 0 and p.pixels == 0 < pixels and self.options.loss == "cross_entropy":
            # two heads: ln C + ln G, which is ln(C G)
            self.say(first_loss(total / pixels, len(self.classes) * max(len(self.geometry_classes), 1)))
        p.seen(total, pixels, images)

    def _diverged(self, what: str, ids: Sequence[str] = ()) -> NoReturn:
        """Leave a description of the step, and stop: the last checkpoint is older and good."""
        step, path = self.progress.step + bool(ids), self._path("diverged.json")
        gradients = merged(self.ranks.gather(largest_gradients(self.net)))
        facts = {"what": what, "step": step, "ids": list(ids), "lr": self.optimizer.lr, "max_gradient": gradients}
        with contextlib.suppress(OSError):  # a full disk must not hide the reason
            self.ranks.once(lambda: runlog.write_json(path, facts))
        where = f" on {', '.join(ids[:4])}{' ...' if len(ids) > 4 else ''}" if ids else ""
        name = worst(gradients) if gradients else ""
        largest = f", the largest gradient ({gradients[name]:.3g}) at {name}" if name else ""
        search = "" if self.options.detect_anomaly else ", or find the layer with `detect_anomaly=True`"
        raise DivergedError(
            f"{what} in step {step}{where}{largest}; {path} has more; start again with a learning rate below "
            f"{self.optimizer.lr:.3g} (`lr=...`){search}; the last checkpoint is intact"
        )

    # ------------------------------------------------------------------------------------------------- what it reports

    def _announce(self) -> None:
        o = self.options
        count = sum(parameter.size for parameter in self.net.parameters())
        self.say(
            f"FCN-{o.strides[self.progress.stage]}s, {count:,} parameters, {len(self.classes)} classes; "
            f"images: {len(self.train_set)} to learn from, {len(self.val_set)} to measure on"
        )
        self._say_rate()

    def _say_rate(self) -> None:
        o, rate = self.options, self._stage_rate()
        pixels, images = labelled_pixels(self.train_set, o.crop), min(o.batch, len(self.train_set))
        self.say(f"learning rate {rate:g}: {rate_meaning(o, rate=rate, pixels=pixels, images=images)}")

    def _speed(self) -> float:
        """Images per second since the last line of the log."""
        return self.progress.images / max(time.perf_counter() - self._logged, 1e-9)

    @property
    def _epoch(self) -> int:
        """The epoch of this stage, from 0, that the last step belongs to."""
        return self._epoch_of(self.progress.step - 1)[0]

    def _log(self) -> None:
        p, speed = self.progress, self._speed()
        loss, self._logged = p.logged(), time.perf_counter()
        record = {"kind": "train", "stage": p.stage, "step": p.step, "epoch": self._epoch, "loss": loss}
        self._append(record | {"lr": self.optimizer.lr, "images_per_s": round(speed, 2)})
        if not self._bar.shown:
            per_step = len(self.train_set) / self.steps_per_epoch
            left = (self.steps_per_stage * len(self.options.strides) - p.step) * per_step / max(speed, 1e-9)
            self.say(f"step {p.step:>6}  loss {loss:.4f} per pixel  {speed:.0f} images/s  {clock(left)} left")

    def _measure(self) -> bool:
        """Log the metrics on the validation set and what is suspicious; return whether the net is the best so far."""
        p, o = self.progress, self.options
        matrix, _ = self._evaluated()
        record = {"kind": "val", "stage": p.stage, "step": p.step, "epoch": self._epoch, "split": self._split()}
        self._append(record | matrix.summary() | class_record(matrix))
        done = p.step - p.stage_began
        self.say(
            f"{f'step {done}/{o.steps}' if o.steps else f'epoch {self._epoch + 1}/{o.epochs}'}  "
            f"mean IU {matrix.mean_iu():.3f}  pixel accuracy {matrix.pixel_accuracy():.3f}  "
            f"predicted/true shares {shares(matrix, self.classes)}"
        )
        trunk = self._trunk_is_zero()
        loss = p.measured() if o.loss == "cross_entropy" else math.nan  # where the others start is not known
        lr = self.optimizer.lr
        for warning in warnings_about(loss, matrix, self.classes, lr=lr, trunk=trunk, steps=p.step):
            self.say(f"warning: {warning}")
        improved = matrix.mean_iu() > p.best
        known = o.overfit > 0 and matrix.pixel_accuracy() >= KNOWN
        p.stage_done = known or done == self.steps_per_stage
        self._logged = time.perf_counter()  # the images/s of the log are those of training
        return improved

    def _evaluated(self) -> tuple[ConfusionMatrix, ConfusionMatrix | None]:
        """Return the confusion matrices of the net as it is now: of the labels, and of the second labels if any."""
        if self._measured is None:
            with self._measured_net():
                self._measured = evaluate_heads(
                    self.net, self.val_set, self.inputs, batch=self.options.batch, ranks=self.ranks
                )
        return self._measured

    def _measured_net(self) -> contextlib.AbstractContextManager[Any]:
        """Inside, the net has its averaged weights, if it has any: those are measured and shown."""
        return self.average.swapped() if self.average else contextlib.nullcontext()

    def _split(self) -> str:
        o = self.options
        if o.hold_out:
            return f"{o.train_split}, {o.hold_out} held out"
        return o.train_split if o.overfit else o.val_split

    def _trunk_is_zero(self) -> bool:
        weights = [w for name, w in self.net.named_parameters() if "trunk." in name and name.endswith(".w")]
        return all(not to_host(w.data).any() for w in weights)

    # --------------------------------------------------------------------------------------------------- saved and back

    def save(self, *, best: bool = False) -> None:
        """Write a checkpoint. `DivergedError` instead of one that holds a NaN, which would push out the good ones."""
        p, beaten = self.progress, self.progress.best
        if best:
            p.best = self._evaluated()[0].mean_iu()
        tensors = {f"net.{name}": array for name, array in self.net.state_dict().items()}
        tensors |= {f"momentum.{name}": array for name, array in self.optimizer.state_dict().items()}
        if self.average:
            tensors |= {f"{AVERAGE}{name}": array for name, array in self.average.state_dict().items()}
        broken = not_finite(tensors)
        if broken:
            self._diverged(f"{len(broken)} arrays of the net, {broken[0]} first, are no longer finite")
        self.ranks.check_alike(self.net)
        meta = {
            "net": self.record.as_dict(),
            "options": self.options.as_dict(),
            "progress": vars(p),
            "images": fingerprint(self.train_set.ids),
            "environment": self.environment,
        }
        saved = False
        with self._tolerant():
            self.ranks.once(lambda: self._write(tensors, meta, best=best))
            saved = True
        if not saved and best and not self.folder.best_is_of(p.step):
            p.best = beaten  # the next net that beats the best one on the disk takes its place

    def _write(self, tensors: dict[str, np.ndarray], meta: dict[str, Any], *, best: bool) -> None:
        runlog.sync(self._path("metrics.jsonl"))
        self.folder.save(self.progress.step, tensors, meta, best=best)

    def _append(self, record: dict[str, Any]) -> None:
        with self._tolerant():
            self.ranks.once(lambda: self._log_line(record))

    def _log_line(self, record: dict[str, Any]) -> None:
        self.folder.check()
        runlog.append(self._path("metrics.jsonl"), record)

    @contextlib.contextmanager
    def _tolerant(self) -> Iterator[None]:
        """With on_save_error "warn", what cannot be written is said and the run goes on."""
        try:
            yield
        except (UsageError, OSError) as fault:
            if self.options.on_save_error != "warn":
                raise
            self.say(f"warning: {fault}")

    def _path(self, name: str) -> Path:
        return self.folder.path / name

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint of this run; `FormatError` or `UsageError` if it is of another net or other data."""
        meta, strides = checkpoint.meta, self.options.strides
        self.progress = checked_progress(checkpoint, classes=self.classes, ids=self.train_set.ids, strides=strides)
        self._begin_stage(None)
        restore_net(self.net, checkpoint)
        self.optimizer.load_state_dict(part(checkpoint.tensors, "momentum."))
        if self.average:
            try:
                self.average.load_state_dict(part(checkpoint.tensors, AVERAGE))
            except FormatError as fault:
                raise FormatError(f"{checkpoint.path}: {fault}") from fault
        changed = differences(meta.get("environment", {}), self.environment)
        if meta.get("generators") and self.options.dropout:
            changed.append("dropout drew from a stream and now draws anew in each step")
        for difference in changed:
            self.say(f"warning: {difference}: the run goes on, but not bit for bit the same")
        self.ranks.once(lambda: runlog.forget_after(self._path("metrics.jsonl"), self.progress.step))

    # ------------------------------------------------------------------------------------------------------ the results

    def finish(self) -> dict[str, Any]:
        """Measure, draw, write the report, and say where everything is."""
        self.folder.check()
        measured = self._evaluated()
        return self.ranks.once(lambda: self._finished(*measured))

    def _finished(self, matrix: ConfusionMatrix, second: ConfusionMatrix | None) -> dict[str, Any]:
        guesses = baselines(self.train_set, self.val_set)
        result = evaluation_record(matrix, guesses, classes=self.classes, split=self._split(), images=len(self.val_set))
        if second is not None:
            result["geometry"] = measures(second, self.geometry_classes)
            self.say(f"the second head: pixel accuracy {second.pixel_accuracy():.3f}")
        runlog.write_json(self._path("evaluation.json"), result)
        self._draw_samples(self._path("samples"))
        report = write_report(self.folder.path)
        for line in table(matrix, guesses).split("\n"):
            self.say(line)
        for path in (report, *map(self._path, ("curves.png", "confusion.png", "samples", "checkpoints"))):
            self.say(f"wrote {path}")
        return result

    def _draw_samples(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        for i in range(min(self.options.samples, len(self.val_set))):
            sample = self.val_set[i]
            images, *_ = collate_inputs([sample], self.inputs)
            with self._measured_net():
                label = predict(self.net, *images)[0]
            picture = viz.triptych(sample.image, sample.label, label, self.classes)
            replace_file(folder / f"{i:03d}-{sample.id}.png", [viz.png(picture)], sync=False)
