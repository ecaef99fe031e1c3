"""The state of a run: its data, net, optimizer and progress, which a checkpoint saves and restores bit for bit."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np

from minifcn.backend import to_device
from minifcn.data.batches import Preprocessing
from minifcn.data.dataset import Cached, Dataset, Subset
from minifcn.data.inputs import Hidden, Inputs, Second, planes_of
from minifcn.data.planes import shown_as
from minifcn.data.sample import Sample
from minifcn.data.tools.silent import Silent
from minifcn.errors import DivergedError, FormatError, UsageError
from minifcn.metrics import ConfusionMatrix
from minifcn.models.fcn import FCN
from minifcn.nn import BatchNorm2d
from minifcn.optim import SGD, Adam, WeightAverage
from minifcn.sampling import class_weights, count
from minifcn.training import runlog, setup
from minifcn.training.divergence import largest_gradients, merged, not_finite, worst
from minifcn.training.environment import differences, environment
from minifcn.training.evaluation import evaluate_heads
from minifcn.training.features import CachedFeatures
from minifcn.training.loader import Loader
from minifcn.training.net_record import NetRecord
from minifcn.training.objective import Objective
from minifcn.training.options import Options
from minifcn.training.progress import Bar, silent
from minifcn.training.ranks import ALONE, Alone
from minifcn.training.resume import Progress, checked_progress, fingerprint
from minifcn.training.run_folder import Checkpoint, RunFolder
from minifcn.training.signals import Signals
from minifcn.training.trained import AVERAGE, part, restore_net


class Run:
    """A run at one moment. `Trainer` in training/loop.py adds the steps.

    `train` and `val` are data sets of the same classes; every image of both is read before the first step. `say`
    prints one line; `words` rewrites a warning for the log and the report, as a command does that has flags.
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
        words: Callable[[str], str] = str,
        ranks: Alone = ALONE,
    ) -> None:
        self.options, self.folder, self.device, self._say, self.ranks = options, folder, device, say, ranks
        self.words = words
        self.progress, self._signals, self._bar = Progress(), Signals(), Bar(0, unit="step")
        learned = Cached(Subset(train, range(min(len(train), options.overfit or len(train)))))
        measured = learned if options.overfit else Cached(val)
        seen, counts = Silent(), np.zeros(len(train.classes), np.int64)

        def counted(sample: Sample) -> None:
            seen.sample(sample)
            counts[:] += count(sample.label, len(counts))

        for images in dict.fromkeys((learned, measured)):
            balances = images is learned and options.class_balance > 0  # needs the labels of every image
            faults = images.faults(
                ranks.share(len(images)),
                look=counted if balances else seen.sample,
                every=balances,
                workers=options.workers,
            )
            images.refuse(list(itertools.chain(*ranks.gather(faults))))
        setup.check_share(options, len(learned), ranks.size)
        for warning in dict.fromkeys(itertools.chain(*ranks.gather(list(seen.sentences())))):
            say(f"warning: {warning}")
        self.train_set: Dataset = learned
        self.val_set: Dataset = measured
        self.classes, self.image_bits = tuple(train.classes), learned.image_bits
        self.geometry_classes = Second(self.train_set).classes if options.two_heads else ()
        self.preprocessing = preprocessing or setup.fitted(options, self.train_set)
        if planes := planes_of(options.inputs):
            say(f"images of {self.preprocessing}; {shown_as(planes)}")
        self.inputs(self.train_set[0])  # depth that is not there is found before anything is made
        if options.hide:
            self.train_set = Hidden(learned, options.hide, fill=self.preprocessing.fill)
            self.val_set = Hidden(measured, options.hide, fill=self.preprocessing.fill)
        self.loader = Loader(
            options, self.train_set, self.preprocessing, classes=len(self.classes), device=device, ranks=ranks
        )
        self.objective = Objective(options, device, self._class_weights(counts))
        self.environment = environment(device) | {"ranks": ranks.size}
        self._measured: tuple[ConfusionMatrix, ConfusionMatrix | None] | None = None  # of the net as it is now
        self.net: setup.Learner
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
        return NetRecord(self.options, stride, self.classes, self.geometry_classes, self.preprocessing, self.image_bits)

    def _class_weights(self, counts: np.ndarray) -> Any:
        """Return what each class weighs in the loss, None for alike; `counts` are its pixels in this rank's share."""
        if not self.options.class_balance:
            return None
        total = np.sum(self.ranks.gather(counts.tolist()), axis=0)
        return to_device(class_weights(total, power=self.options.class_balance), self.device)

    def say(self, line: str) -> None:
        """Print a line above the progress bar."""
        try:
            with self._bar.hidden():
                self._say(line)
        except OSError as fault:  # no reason to lose the work
            self._signals.lost(fault)

    # ------------------------------------------------------------------------------------------------------- the stages

    def _begin_stage(self, coarser: setup.Learner | None) -> None:
        """Make a new net, which takes every parameter that the coarser one has, too. The new scores start at zero."""
        o, self.net = self.options, self.record.network()
        self.loader.begin_stage(self.progress.stage, self.progress.stage_began)
        if coarser is not None:
            self.net.load_state_dict(coarser.state_dict(), strict=False)
        self.net.to(self.device)
        if o.frozen:
            self.net.freeze(*o.frozen)
        norms = (name for name, each in self.net.named_modules() if isinstance(each, BatchNorm2d) and not each.w.frozen)
        if self.ranks.size > 1 and (norm := next(norms, "")):
            raise UsageError(
                f"{self.ranks.size} ranks share each batch, and the batch normalisation {norm} looks at a whole one; "
                "expected one process, or no normalisation that learns (`freeze=...`)"
            )
        self.optimizer = setup.solver(o, self.net)
        self.average = WeightAverage(self.net, decay=o.ema) if o.ema else None
        self.cached = CachedFeatures(cast(FCN, self.net), o.cache_features) if o.cache_features else None

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one pass over the training images."""
        return self.options.steps_per_epoch(len(self.train_set))

    @property
    def steps_per_stage(self) -> int:
        """Steps of one stage."""
        return self.options.steps_per_stage(len(self.train_set))

    def _stage_rate(self) -> float:
        return self.options.rates[self.progress.stage]

    @property
    def finished(self) -> bool:
        """Whether the last stage is done."""
        return self.progress.stage_done and self.progress.stage + 1 == len(self.options.strides)

    # ----------------------------------------------------------------------------------------------- the net, evaluated

    def _evaluated(self) -> tuple[ConfusionMatrix, ConfusionMatrix | None]:
        """Return the confusion matrices of the net as it is now: of the labels, and of the second labels if any."""
        if self._measured is None:
            with self.measured_net():
                o, ranks = self.options, self.ranks
                self._measured = evaluate_heads(
                    self.cached or self.net, self.val_set, self.inputs, batch=o.batch, workers=o.workers, ranks=ranks
                )
        return self._measured

    def measured_net(self) -> contextlib.AbstractContextManager[Any]:
        """Return a block in which the net has its averaged weights, if any: those are measured and shown."""
        return self.average.swapped() if self.average else contextlib.nullcontext()

    def split(self) -> str:
        """Return the name of the split that is measured on."""
        o = self.options
        if o.hold_out:
            return f"{o.train_split}, {o.hold_out} held out"
        return o.train_split if o.overfit else o.val_split

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
        saved = self._written(lambda: self._write(tensors, meta, best=best))
        if not saved and best and not self.folder.best_is_of(p.step):
            p.best = beaten  # the next net that beats the best one on the disk takes its place

    def _write(self, tensors: dict[str, np.ndarray], meta: dict[str, Any], *, best: bool) -> None:
        runlog.sync(self.path("metrics.jsonl"))
        self.folder.save(self.progress.step, tensors, meta, best=best)

    def _append(self, record: dict[str, Any]) -> None:
        self._written(lambda: self._log_line(record))

    def _log_line(self, record: dict[str, Any]) -> None:
        self.folder.check()
        runlog.append(self.path("metrics.jsonl"), record)

    def _written(self, write: Callable[[], None]) -> bool:
        """Return whether rank 0 could `write`; with on_save_error "warn", a fault is said and the run goes on."""
        try:
            self.ranks.once(write)
        except (UsageError, OSError) as fault:
            if self.options.on_save_error != "warn":
                raise
            self.say(f"warning: {fault}")
            return False
        return True

    def path(self, name: str) -> Path:
        """Return the path of a file in the run folder."""
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
        self.ranks.once(lambda: runlog.forget_after(self.path("metrics.jsonl"), self.progress.step))

    def _diverged(self, what: str, ids: Sequence[str] = ()) -> NoReturn:
        """Raise `DivergedError` and leave a description of the step: the last checkpoint is older and good."""
        step, path = self.progress.step + bool(ids), self.path("diverged.json")
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
