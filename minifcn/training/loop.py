"""The training loop: draw images, step, measure and save.

Everything random is drawn for its place (`rng(seed, purpose, stage, epoch, ...)`), never from a stream that has run
on; only dropout draws in sequence, and its generator's state is saved. So a run that is stopped and resumed at any
step goes on bit for bit as if it had not been.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from minifcn import ops, viz
from minifcn.backend import rng, to_device, to_host
from minifcn.data.batches import Preprocessing
from minifcn.data.dataset import Cached, Dataset, Subset
from minifcn.data.inputs import Hidden, Inputs, Second, collate_inputs
from minifcn.data.sample import VOID, Sample
from minifcn.data.tools.silent import Silent
from minifcn.errors import DivergedError, FormatError, UsageError
from minifcn.metrics import ConfusionMatrix
from minifcn.models.fcn import FCN
from minifcn.models.paper import LateFusion
from minifcn.optim import SGD, Adam, learning_rate
from minifcn.sampling import class_weights, count, sample
from minifcn.tensor import Tensor
from minifcn.training import runlog, setup
from minifcn.training.advice import first_loss, labelled_pixels, rate_meaning, warnings_about
from minifcn.training.divergence import largest_gradients, not_finite, unheard, watching, worst
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
from minifcn.training.report import write_report
from minifcn.training.resume import Progress, checked_progress, fingerprint
from minifcn.training.run_folder import Checkpoint, RunFolder
from minifcn.training.signals import Interrupted, Signals
from minifcn.training.step import train_step
from minifcn.training.trained import part, restore_net

ORDER, AUGMENT, SAMPLING = 0, 1, 2  # what a random stream is for
KNOWN = 0.99  # the pixel accuracy at which --overfit has done its work


class Shown(NamedTuple):
    """What is remembered of a batch: the ids of its images, and how many of its pixels are learned from."""

    ids: list[str]
    pixels: int


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
    ) -> None:
        self.options, self.folder, self.device, self._say = options, folder, device, say
        self.progress = Progress()
        learned = Cached(Subset(train, range(min(len(train), options.overfit or len(train)))))
        measured = learned if options.overfit else Cached(val)
        faults = Silent()
        learned.read_all(faults.sample)
        measured.read_all(faults.sample)
        for warning in faults.sentences():
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
        self.environment = environment(device)
        self._bar = Bar(0, unit="step")
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
        counts = [count(self.train_set[i].label, len(self.classes)) for i in range(len(self.train_set))]
        return to_device(class_weights(np.sum(counts, axis=0), power=self.options.class_balance), self.device)

    def say(self, line: str) -> None:
        """A line above the progress bar."""
        with self._bar.hidden():
            self._say(line)

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
        if p.step == 0:
            self.save()  # what cannot be saved should be known before the first step
        first, self._logged = p.step, time.perf_counter()
        total = self.steps_per_stage * len(o.strides)
        with Signals() as signals, Bar(total, unit="step", done=p.step) as self._bar, unheard():
            while not self.finished:
                if p.stage_done:
                    self._next_stage()
                self._one_step()
                self._bar.advance(note=f"loss {p.loss / max(p.pixels, 1):.3f}, {self._speed():.0f} images/s")
                measure = self._is_due()
                if measure or p.step % max(10, self.steps_per_epoch // 10) == 0:
                    self._log()
                best = measure and self._measure()
                enough = p.step - first == o.stop_after and not self.finished
                if measure or enough or signals.code or (o.save_every and p.step % o.save_every == 0):
                    self.save(best=best)
                    if enough or signals.code:  # it may have come while saving
                        raise Interrupted(f"stopped after step {p.step}, everything is saved", signals.code)
        return self.finish()

    def _next_stage(self) -> None:
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
        p, shown = self.progress, list[Shown]()
        done, schedule = p.step - p.stage_began, self.options.schedule
        self.optimizer.lr = learning_rate(done, self.steps_per_stage, lr=self._stage_rate(), schedule=schedule)
        try:
            losses = train_step(self.optimizer, self._losses(shown))
        except DivergedError as fault:
            self._diverged(str(fault), shown[-1].ids)
        for batch, loss in zip(shown, losses, strict=True):
            self._count(batch, loss)
        p.step += 1
        self._measured = None

    def _batches(self) -> Iterator[list[Sample]]:
        """Draw the samples of this step, one batch after another."""
        o, p = self.options, self.progress
        epoch, position = divmod(p.step - p.stage_began, self.steps_per_epoch)
        draw, images = rng(o.seed, ORDER, p.stage, epoch), len(self.train_set)
        order = draw.integers(images, size=images) if o.with_replacement else draw.permutation(images)
        per_step = o.batch * o.accumulate
        chosen = order[position * per_step : (position + 1) * per_step]
        for i in range(0, len(chosen), o.batch):
            yield [self._sample(int(image), epoch) for image in chosen[i : i + o.batch]]

    def _sample(self, i: int, epoch: int) -> Sample:
        sample = self.train_set[i]
        return self.augment(sample, rng(self.options.seed, AUGMENT, self.progress.stage, epoch, i))

    def _stage_rate(self) -> float:
        return self.options.rates[self.progress.stage]

    def _losses(self, shown: list[Shown]) -> Iterator[Tensor]:
        """Compute the loss of each batch of this step, and add the batch to `shown`."""
        o = self.options
        for number, samples in enumerate(self._batches()):
            images, labels, geometry = collate_inputs(samples, self.inputs)
            keep, learned = None, labels != VOID
            if o.sampling < 1:
                keep = sample(labels, o.sampling, rng(o.seed, SAMPLING, self.progress.step, number))
                learned &= keep != 0
            shown.append(Shown([each.id for each in samples], int(learned.sum())))
            yield self._loss(self._scores(images), labels, geometry, keep)

    def _scores(self, images: Sequence[np.ndarray]) -> Any:
        with watching(self.net) if self.options.detect_anomaly else contextlib.nullcontext():
            return self.net.train()(*(Tensor(to_device(x, self.device)) for x in images))

    def _loss(self, scores: Any, labels: Any, geometry: Any, keep: Any) -> Tensor:
        """The loss of the labels, plus that of the second labels where the net has a head for them, both unweighted."""
        device, options = self.device, {"normalize": self.options.normalize}
        if keep is not None:
            options["sampling"] = to_device(keep, device)
        if not isinstance(scores, dict):
            weighed = {**options, "weights": self._class_weights}
            return ops.softmax_cross_entropy(scores, to_device(labels, device), **weighed)
        first = self._loss(scores["sem"], labels, geometry, keep)
        return first + ops.softmax_cross_entropy(scores["geo"], to_device(geometry, device), **options)

    def _count(self, batch: Shown, loss: float) -> None:
        """Add the loss of a batch to that of its epoch, per pixel; say what the very first one is."""
        p, images = self.progress, len(batch.ids)
        total = loss * {"sum": 1, "batch": images, "valid": max(batch.pixels, 1)}[self.options.normalize]
        if p.step == 0 and p.pixels == 0 < batch.pixels:
            # two heads: ln C + ln G, which is ln(C G)
            self.say(first_loss(total / batch.pixels, len(self.classes) * max(len(self.geometry_classes), 1)))
        p.seen(total, batch.pixels, images)

    def _diverged(self, what: str, ids: Sequence[str] = ()) -> NoReturn:
        """Leave a description of the step, and stop: the last checkpoint is older and good."""
        step, gradients, path = self.progress.step + bool(ids), largest_gradients(self.net), self._path("diverged.json")
        facts = {"what": what, "step": step, "ids": list(ids), "lr": self.optimizer.lr, "max_gradient": gradients}
        with contextlib.suppress(OSError):  # a full disk must not hide the reason
            runlog.write_json(path, facts)
        where = f" on {', '.join(ids[:4])}{' ...' if len(ids) > 4 else ''}" if ids else ""
        name = worst(gradients) if gradients else ""
        largest = f", the largest gradient ({gradients[name]:.3g}) at {name}" if name else ""
        search = "" if self.options.detect_anomaly else ", or find the layer with `detect_anomaly=True`"
        raise DivergedError(
            f"{what} in step {step}{where}{largest}; {path} has more; start again with a learning rate below "
            f"{self.optimizer.lr:.3g} (`lr=...`){search}; the last checkpoint is intact"
        )

    # --------------------------------------------------------------------------------------------------- what it tells

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
        return (self.progress.step - 1 - self.progress.stage_began) // self.steps_per_epoch

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
        for warning in warnings_about(p.measured(), matrix, self.classes, lr=self.optimizer.lr, trunk=trunk):
            self.say(f"warning: {warning}")
        improved = matrix.mean_iu() > p.best
        p.best = max(p.best, matrix.mean_iu())
        known = o.overfit > 0 and matrix.pixel_accuracy() >= KNOWN
        p.stage_done = known or done == self.steps_per_stage
        self._logged = time.perf_counter()  # the images/s of the log are those of training
        return improved

    def _evaluated(self) -> tuple[ConfusionMatrix, ConfusionMatrix | None]:
        """Return the confusion matrices of the net as it is now: of the labels, and of the second labels if any."""
        if self._measured is None:
            self._measured = evaluate_heads(self.net, self.val_set, self.inputs, batch=self.options.batch)
        return self._measured

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
        p = self.progress
        tensors = {f"net.{name}": array for name, array in self.net.state_dict().items()}
        tensors |= {f"momentum.{name}": array for name, array in self.optimizer.state_dict().items()}
        broken = not_finite(tensors)
        if broken:
            self._diverged(f"{len(broken)} arrays of the net, {broken[0]} first, are no longer finite")
        meta = {
            "net": self.record.as_dict(),
            "options": self.options.as_dict(),
            "progress": vars(p),
            "generators": [generator.bit_generator.state for generator in self.net.generators()],
            "images": fingerprint(self.train_set.ids),
            "environment": self.environment,
        }
        with self._tolerant():
            self.folder.save(p.step, tensors, meta, best=best)

    def _append(self, record: dict[str, Any]) -> None:
        with self._tolerant():
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
        path, meta, strides = checkpoint.path, checkpoint.meta, self.options.strides
        self.progress = checked_progress(checkpoint, classes=self.classes, ids=self.train_set.ids, strides=strides)
        self._begin_stage(None)
        restore_net(self.net, checkpoint)
        self.optimizer.load_state_dict(part(checkpoint.tensors, "momentum."))
        try:
            for generator, state in zip(self.net.generators(), meta["generators"], strict=True):
                generator.bit_generator.state = state
        except (KeyError, TypeError, ValueError, OverflowError) as fault:
            raise FormatError(f"{path}: generators cannot be read ({fault}); use an earlier checkpoint") from fault
        for difference in differences(meta.get("environment", {}), self.environment):
            self.say(f"warning: {difference}: the run goes on, but not bit for bit the same")
        runlog.forget_after(self._path("metrics.jsonl"), self.progress.step)

    # ------------------------------------------------------------------------------------------------------ the results

    def finish(self) -> dict[str, Any]:
        """Measure, draw, write the report, and say where everything is."""
        matrix, second = self._evaluated()
        guesses = baselines(self.train_set, self.val_set)
        result = evaluation_record(matrix, guesses, classes=self.classes, split=self._split(), images=len(self.val_set))
        if second is not None:
            result["geometry"] = measures(second, self.geometry_classes)
            self.say(f"the second head: pixel accuracy {second.pixel_accuracy():.3f}")
        runlog.write_json(self._path("evaluation.json"), result)
        self._draw_samples(self._path("samples"))
        report = write_report(self.folder.path)
        self.say(table(matrix, guesses))
        for path in (report, *map(self._path, ("curves.png", "confusion.png", "samples", "checkpoints"))):
            self.say(f"wrote {path}")
        return result

    def _draw_samples(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        for i in range(min(self.options.samples, len(self.val_set))):
            sample = self.val_set[i]
            images, *_ = collate_inputs([sample], self.inputs)
            picture = viz.triptych(sample.image, sample.label, predict(self.net, *images)[0], self.classes)
            (folder / f"{i:03d}-{sample.id}.png").write_bytes(viz.png(picture))
