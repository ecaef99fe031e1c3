"""The training loop: draw images, step, measure and save."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minifcn.backend import rng, to_host
from minifcn.errors import DivergedError
from minifcn.models.resnet import AUXILIARY, FCN_ResNet
from minifcn.nn import drawing
from minifcn.optim import learning_rate
from minifcn.tensor import Tensor
from minifcn.training.advice import first_loss, labelled_pixels, rate_meaning, warnings_about
from minifcn.training.divergence import unheard, watching
from minifcn.training.evaluation import class_record, shares
from minifcn.training.features import CachedFeatures
from minifcn.training.loader import DROPOUT, Batch, learned_from
from minifcn.training.progress import Bar, clock
from minifcn.training.results import LivePage, write_results
from minifcn.training.run_state import Run
from minifcn.training.signals import Interrupted
from minifcn.training.step import backward

KNOWN = 0.99  # the pixel accuracy at which `overfit` has done its work


class Trainer(Run):
    """A run with its loop: `run()` trains all stages, from the start or from where `restore` has put it.

    At the end the run folder is complete.
    """

    _code = 0  # of the signal that a rank got
    _logged = 0.0  # when the last line of the log was written

    def run(self) -> dict[str, Any]:
        """Train to the end and return what `evaluation.json` holds. Raises `Interrupted`, `DivergedError`."""
        o, p = self.options, self.progress
        self._announce()
        self.ranks.check_alike(self.net)
        if p.step == 0:
            self.save()  # what cannot be saved should be known before the first step
        first, total = p.step, self.steps_per_stage * len(o.strides)
        bar = Bar(total, unit="step", done=p.step)
        with self._signals, bar as self._bar, self.loader, unheard(), LivePage(self) as page:
            self._logged = time.perf_counter()
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
                if measure or enough or self._code or (o.save_every and p.step % o.save_every == 0):
                    self.save(best=best)
                    self._end_if_asked(enough)
                    began = time.perf_counter()
                    page.update()
                    self._logged += time.perf_counter() - began  # the images/s of the log are those of training
        return self.finish()

    def _end_if_asked(self, enough: bool) -> None:
        """Raise `Interrupted` if `enough` steps are done, or after a signal: it may have come while saving."""
        found = self.ranks.gather([self._signals.code, self._signals.why])
        code, why = max(found, key=lambda each: each[0])
        if enough or code:
            raise Interrupted(f"stopped after step {self.progress.step}{why}, everything is saved", code)

    def finish(self) -> dict[str, Any]:
        """Measure, draw, write the report, and say where everything is."""
        self.folder.check()
        measured = self._evaluated()
        return self.ranks.once(lambda: write_results(self, *measured))

    def _next_stage(self) -> None:
        p, coarser = self.progress, self.net
        p.stage, p.stage_began, p.stage_done = p.stage + 1, p.step, False
        self._begin_stage(coarser)
        self.say(f"stage {p.stage + 1}: FCN-{self.options.strides[p.stage]}s, from the net before")
        self._say_rate()

    def _is_due(self) -> bool:
        """Return whether to measure now: after the given epochs or steps, and at the end of a stage."""
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
        batches = self.loader.drawn(p.step)
        reports = self.ranks.gather(self._backward())
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

    def _backward(self) -> dict[str, Any]:
        """Compute the gradients of this rank's part of the step, and return what the other ranks need to know."""
        shown, losses, fault = list[tuple[int, int]](), list[float](), ""
        try:
            losses = backward(self._losses(shown))
        except DivergedError as found:
            fault = str(found)
        has_gradient = [parameter.grad is not None for parameter in self.net.parameters()]
        code = self._signals.code
        return {"shown": shown, "losses": losses, "fault": fault, "has_gradient": has_gradient, "code": code}

    def _losses(self, shown: list[tuple[int, int]]) -> Iterator[Tensor]:
        """Yield the loss of each batch of this rank; its number, and how many pixels count, are added to `shown`."""
        for batch in self.loader.of_step(self.progress.step):
            shown.append((batch.number, learned_from(batch.labels, batch.keep, self.options.hardest)))
            yield self.objective(self._scores(batch), batch)

    def _scores(self, batch: Batch) -> Any:
        masks = drawing(rng(self.options.seed, DROPOUT, self.progress.step, batch.number), batch.images, batch.part)
        with masks, watching(self.net) if self.options.detect_anomaly else contextlib.nullcontext():
            self.net.train()
            images = map(Tensor, self.loader.inputs.on_device(batch.inputs, self.device, sizes=batch.sizes))
            if isinstance(self.net, FCN_ResNet) and self.net.aux_classifier:
                return self.net.both(*images)
            return self.cached(*images, sizes=batch.sizes) if self.cached else self.net(*images)

    def _count_all(self, batches: Sequence[np.ndarray], reports: Sequence[dict[str, Any]]) -> None:
        """Count each batch, from the reports of all ranks on their parts of it."""
        parts = [pair for report in reports for pair in zip(report["shown"], report["losses"], strict=True)]
        for number, batch in enumerate(batches):
            mine = [(pixels, loss) for (place, pixels), loss in parts if place == number]
            self._count(len(batch), sum(pixels for pixels, _ in mine), sum(loss for _, loss in mine))

    def _count(self, images: int, pixels: int, loss: float) -> None:
        """Add the loss of a batch to that of its epoch, per pixel; say what the very first one is."""
        p = self.progress
        heads = 1 + AUXILIARY * bool(getattr(self.net, "aux_classifier", None))  # per pixel and head
        divisor = {"none": 1, "batch_size": images, "valid": max(pixels, 1)}[self.options.normalize]
        total = loss * divisor / heads
        plain = self.options.loss == "cross_entropy" and not self.options.class_balance
        if p.step == 0 and p.pixels == 0 < pixels and plain:
            # two heads: ln C + ln G, which is ln(C G)
            self.say(first_loss(total / pixels, len(self.classes) * max(len(self.geometry_classes), 1)))
        p.seen(total, pixels, images)

    # ------------------------------------------------------------------------------------------------- what it reports

    def _announce(self) -> None:
        count = sum(parameter.size for parameter in self.net.parameters())
        self.say(
            f"{self.record}, {count:,} parameters, {len(self.classes)} classes; "
            f"images: {len(self.train_set)} to learn from, {len(self.val_set)} to measure on"
        )
        if self.cached:
            self._say_cached(self.cached)
        self._say_rate()

    def _say_cached(self, cached: CachedFeatures) -> None:
        """Say what is computed once and whether there is room for it, by the first few images of each set."""
        wanted = 0.0
        for images, times in ((self.train_set, 1 + self.options.mirror), (self.val_set, 1)):
            few = range(min(16, len(images)))
            wanted += times * len(images) * sum(cached.bytes_for(images[i].label.shape) for i in few) / len(few)
        names = " to ".join(dict.fromkeys((cached.stages[0], cached.stages[-1])))
        full = "; what has no room there is computed in every step" if wanted > cached.room else ""
        self.say(
            f"{names}: computed once for each image and kept in {cached.folder}; all take about "
            f"{wanted / 2**20:.0f} MiB{full}"
        )

    def _say_rate(self) -> None:
        o, rate = self.options, self._stage_rate()
        pixels, images = labelled_pixels(self.train_set, o.crop), min(o.batch, len(self.train_set))
        self.say(f"learning rate {rate:g}: {rate_meaning(o, rate=rate, pixels=pixels, images=images)}")

    def _speed(self) -> float:
        """Return images per second since the last line of the log."""
        return self.progress.images / max(time.perf_counter() - self._logged, 1e-9)

    @property
    def _epoch(self) -> int:
        """The epoch of this stage, from 0, that the last step belongs to."""
        return self.loader.epoch_of(self.progress.step - 1)[0]

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
        record = {"kind": "val", "stage": p.stage, "step": p.step, "epoch": self._epoch, "split": self.split()}
        trunk = self._trunk_is_zero()
        plain = o.loss == "cross_entropy" and o.hardest == 1
        loss = p.measured() if plain else math.nan  # where the others start, or the hardest pixels stay, is not known
        lr = self.optimizer.lr
        found = warnings_about(loss, matrix, self.classes, lr=lr, trunk=trunk, steps=p.step)
        warnings = [self.words(each) for each in found]
        warned = {"warnings": warnings} if warnings else {}
        self._append(record | matrix.summary() | class_record(matrix) | warned)
        done = p.step - p.stage_began
        self.say(
            f"{f'step {done}/{o.steps}' if o.steps else f'epoch {self._epoch + 1}/{o.epochs}'}  "
            f"mean IU {matrix.mean_iu():.3f}  pixel accuracy {matrix.pixel_accuracy():.3f}  "
            f"predicted/true shares {shares(matrix, self.classes)}"
        )
        for warning in warnings:
            self.say(f"warning: {warning}")
        improved = matrix.mean_iu() > p.best
        known = o.overfit > 0 and matrix.pixel_accuracy() >= KNOWN
        p.stage_done = known or done == self.steps_per_stage
        self._logged = time.perf_counter()  # the images/s of the log are those of training
        return improved

    def _trunk_is_zero(self) -> bool:
        weights = [w for name, w in self.net.named_parameters() if "trunk." in name and name.endswith(".w")]
        return all(not to_host(w.data).any() for w in weights)
