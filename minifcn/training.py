"""The training loop: order the images, step, measure, save; and stop in good order whatever happens.

Everything random is drawn for its place (`rng(seed, purpose, stage, epoch, ...)`), never from a stream that has run
on; only dropout draws in sequence, and its generator's state is saved. So a run that is stopped and resumed at any
step goes on bit for bit as if it had not been.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minifcn import __version__, ops, viz
from minifcn.backend import rng, to_device, to_host
from minifcn.checkpoint import Checkpoint, RunFolder
from minifcn.data.batches import Preprocessing, Subset, collate
from minifcn.data.sample import VOID, Sample
from minifcn.errors import DivergedError, FormatError, MinifcnError, UsageError
from minifcn.evaluation import baselines, evaluate, predict
from minifcn.metrics import ConfusionMatrix
from minifcn.models.fcn import FCN
from minifcn.nn import Module
from minifcn.optim import SGD, learning_rate
from minifcn.recipes import Options
from minifcn.report import write_report
from minifcn.tensor import Tensor
from minifcn.trained import part, restore_net

ORDER, AUGMENT = 0, 1  # what a random stream is for
KNOWN = 0.99  # the pixel accuracy at which --overfit has done its work


class Interrupted(MinifcnError):
    """Somebody asked the run to stop; everything is saved."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Signals:
    """Inside, the first Ctrl-C or SIGTERM is only remembered (`code` is then 130 or 143); the second ends at once."""

    def __enter__(self) -> Signals:
        self.code = 0
        self._before: dict[int, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # not the main thread: then there is nobody to interrupt
                self._before[number] = signal.signal(number, self._remember)
        return self

    def _remember(self, number: int, frame: Any) -> None:
        if self.code:
            os._exit(128 + number)
        self.code = 128 + number
        print("\nfinishing the step, then saving; a second signal ends at once", file=sys.stderr)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Cached:
    """A data set whose samples are read once and kept, if they all fit into `limit` bytes."""

    def __init__(self, dataset: Any, *, limit: int = 1 << 30) -> None:
        self.dataset, self.classes, self.ids = dataset, dataset.classes, dataset.ids
        self._kept: dict[int, Sample] = {}
        self._room = limit

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> Sample:
        if i not in self._kept:
            sample = self.dataset[i]
            self._room -= sample.image.nbytes + sample.label.nbytes
            if self._room < 0:
                return sample
            self._kept[i] = sample
        return self._kept[i]


@dataclass
class Progress:
    """How far a run has come; what a checkpoint keeps beside the arrays."""

    stage: int = 0
    step: int = 0  # of the whole run
    stage_began: int = 0  # the step at which this stage began
    best: float = -1.0
    # since the last line of the log: summed loss over pixels, pixels, images
    loss: float = 0.0
    pixels: int = 0
    images: int = 0
    epoch_loss: float = 0.0
    epoch_pixels: int = 0
    finished: bool = False


class Trainer:
    """One run: `run()` trains all stages from wherever `restore` has put it, and leaves the run folder complete.

    `train` and `val` are data sets of the same classes; `say` prints one line.
    """

    def __init__(
        self,
        options: Options,
        folder: RunFolder,
        train: Any,
        val: Any,
        *,
        preprocessing: Preprocessing | None = None,
        device: str = "cpu",
        say: Callable[[str], None] = print,
    ) -> None:
        self.options, self.folder, self.device, self.say = options, folder, device, say
        self.train_set: Any = Cached(Subset(train, range(min(len(train), options.overfit or len(train)))))
        self.val_set: Any = self.train_set if options.overfit else Cached(val)
        self.classes = tuple(train.classes)
        self.preprocessing = preprocessing or Preprocessing.fit(self.train_set)
        self.augment = options.augmentation(self.preprocessing.fill)
        self.progress = Progress()
        self._improved = self._interactive = False
        self._logged = time.perf_counter()
        self.net: FCN
        self.optimizer: SGD
        self._begin_stage(None)

    # ------------------------------------------------------------------------------------------------------- the stages

    def _begin_stage(self, coarser: FCN | None) -> None:
        """A new net; from the coarser one it takes every parameter that it has, too. The new scores start at zero."""
        o, stage = self.options, self.progress.stage
        self.net = o.network(len(self.classes), o.strides[stage])
        if coarser is not None:
            self.net.load(coarser.state(), strict=False)
        self.net.to(self.device)
        self.optimizer = SGD(self.net, lr=o.lr, momentum=o.momentum, weight_decay=o.weight_decay)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.train_set) / (self.options.batch * self.options.accumulate))

    @property
    def steps_per_stage(self) -> int:
        return self.steps_per_epoch * self.options.epochs

    def run(self) -> dict[str, Any]:
        """Train to the end and return what `evaluation.json` holds. Raises `Interrupted`, `DivergedError`."""
        o, p = self.options, self.progress
        self._announce()
        self._logged = time.perf_counter()
        with Signals() as signals, self._bar() as bar:
            while not p.finished:
                self._one_step()
                bar(p)
                epoch_ended = (p.step - p.stage_began) % self.steps_per_epoch == 0
                if epoch_ended:
                    self._end_of_epoch()
                if p.step - p.stage_began == self.steps_per_stage and not p.finished:
                    self._next_stage()
                stopping = signals.code or (o.stop_after and p.step >= o.stop_after and not p.finished)
                if epoch_ended or stopping or (o.save_every and p.step % o.save_every == 0):
                    self.save(best=epoch_ended and self._improved)
                if stopping:
                    raise Interrupted(
                        f"stopped after step {p.step}, everything is saved; to go on: "
                        f"minifcn train --resume {self.folder.path}",
                        signals.code or 0,
                    )
        return self.finish()

    def _next_stage(self) -> None:
        p = self.progress
        if p.stage + 1 == len(self.options.strides):
            p.finished = True
            return
        coarser = self.net
        p.stage, p.stage_began = p.stage + 1, p.step
        self._begin_stage(coarser)
        self.say(f"stage {p.stage + 1}: FCN-{self.options.strides[p.stage]}s, from the net before")

    # --------------------------------------------------------------------------------------------------------- one step

    def _one_step(self) -> None:
        o, p = self.options, self.progress
        done = p.step - p.stage_began
        epoch, position = divmod(done, self.steps_per_epoch)
        order = rng(o.seed, ORDER, p.stage, epoch).permutation(len(self.train_set))
        per_step = o.batch * o.accumulate
        chosen = order[position * per_step : (position + 1) * per_step]
        batches = [chosen[i : i + o.batch] for i in range(0, len(chosen), o.batch)]
        for batch in batches:
            self._forward_backward([self._sample(int(i), epoch) for i in batch])
        self.optimizer.lr = learning_rate(
            done, self.steps_per_stage, lr=o.lr * o.stage_lr**p.stage, schedule=o.schedule
        )
        self.optimizer.step(accumulated=len(batches))
        p.step += 1
        if p.step % max(10, self.steps_per_epoch // 10) == 0 or position + 1 == self.steps_per_epoch:
            self._log(epoch)

    def _sample(self, i: int, epoch: int) -> Sample:
        sample = self.train_set[i]
        return self.augment(sample, rng(self.options.seed, AUGMENT, self.progress.stage, epoch, i))

    def _forward_backward(self, samples: list[Sample]) -> None:
        o, p = self.options, self.progress
        x, labels = collate(samples, self.preprocessing)
        pixels = int((labels != VOID).sum())
        self.net.train()
        with watching(self.net) if o.detect_anomaly else contextlib.nullcontext():
            scores = self.net(Tensor(to_device(x, self.device)))
        loss = ops.softmax_cross_entropy(scores, to_device(labels, self.device), normalize=o.normalize)
        value = loss.item()
        loss.backward()
        if not math.isfinite(value):
            self._diverged(value, samples)
        total = value * {"sum": 1, "batch": len(samples), "valid": max(pixels, 1)}[o.normalize]
        if p.step == 0 and p.pixels == 0:
            self._say_first_loss(total / max(pixels, 1))
        p.loss, p.pixels, p.images = p.loss + total, p.pixels + pixels, p.images + len(samples)

    def _diverged(self, value: float, samples: list[Sample]) -> None:
        """Leave a description of the step, and stop: the last checkpoint is older and good."""
        largest = {
            name: float(np.abs(to_host(p.grad)).max()) for name, p in self.net.parameters() if p.grad is not None
        }
        worst = max(largest, key=lambda name: (not math.isfinite(largest[name]), largest[name]))
        ids = [sample.id for sample in samples]
        path = self.folder.path / "diverged.json"
        facts = {
            "step": self.progress.step,
            "loss": value,
            "ids": ids,
            "lr": self.optimizer.lr,
            "max_gradient": largest,
        }
        path.write_text(json.dumps(finite(facts), indent=1))
        raise DivergedError(
            f"the loss is {value} at step {self.progress.step} on {', '.join(ids[:4])}, the largest gradient "
            f"({largest[worst]:.3g}) at {worst}; {path} has more; lower --lr "
            f"({self.optimizer.lr:.3g}), or find the layer with --detect-anomaly; the last checkpoint is intact"
        )

    # --------------------------------------------------------------------------------------------------- what it tells

    def _announce(self) -> None:
        o = self.options
        count = sum(parameter.size for _, parameter in self.net.parameters())
        self.say(
            f"FCN-{o.strides[self.progress.stage]}s, {count:,} parameters, {len(self.classes)} classes; "
            f"{len(self.train_set)} images to learn from, {len(self.val_set)} to measure on"
        )
        self.say(f"learning rate {o.lr:g}: {rate_meaning(o, self._pixels_of_an_image())}")

    def _pixels_of_an_image(self) -> int:
        return int((self.train_set[0].label != VOID).sum())

    def _say_first_loss(self, loss: float) -> None:
        expected = math.log(len(self.classes))
        remark = (
            "as scores of zero must give" if abs(loss - expected) < 1e-3 else "which only scores of zero would give"
        )
        self.say(f"loss per pixel at the start {loss:.4f}; ln {len(self.classes)} = {expected:.4f}, {remark}")

    @contextlib.contextmanager
    def _bar(self) -> Iterator[Callable[[Progress], None]]:
        """A progress bar on a terminal; elsewhere the lines of the log are enough."""
        total = self.steps_per_stage * len(self.options.strides)
        bar = None
        if sys.stderr.isatty():
            with contextlib.suppress(ImportError):
                from tqdm import tqdm

                bar = tqdm(total=total, initial=self.progress.step, unit="step", dynamic_ncols=True, leave=False)
        self._interactive = bar is not None

        def advance(progress: Progress) -> None:
            if bar is not None:
                if progress.pixels:
                    speed = self.options.batch * self.options.accumulate * (bar.format_dict["rate"] or 0)
                    bar.set_postfix_str(
                        f"loss {progress.loss / progress.pixels:.3f}, {speed:.0f} images/s", refresh=False
                    )
                bar.update(1)

        try:
            yield advance
        finally:
            if bar is not None:
                bar.close()

    def _log(self, epoch: int) -> None:
        p, now = self.progress, time.perf_counter()
        seconds, self._logged = max(now - self._logged, 1e-9), now
        loss, speed = p.loss / max(p.pixels, 1), p.images / seconds
        record = {"kind": "train", "stage": p.stage, "step": p.step, "epoch": epoch, "loss": loss}
        self._append(record | {"lr": self.optimizer.lr, "images_per_s": round(speed, 2)})
        p.epoch_loss, p.epoch_pixels = p.epoch_loss + p.loss, p.epoch_pixels + p.pixels
        p.loss, p.pixels, p.images = 0.0, 0, 0
        if not self._interactive:
            left = (self.steps_per_stage * len(self.options.strides) - p.step) * self.options.batch
            left_s = left * self.options.accumulate / speed
            self.say(f"step {p.step:>6}  loss {loss:.4f} per pixel  {speed:.0f} images/s  {clock(left_s)} left")

    def _append(self, record: dict[str, Any]) -> None:
        with open(self.folder.path / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(finite(record)) + "\n")

    def _end_of_epoch(self) -> None:
        p, o = self.progress, self.options
        epoch = (p.step - p.stage_began) // self.steps_per_epoch
        matrix = evaluate(self.net, self.val_set, self.preprocessing)
        record = {"kind": "val", "stage": p.stage, "step": p.step, "epoch": epoch - 1, "split": o.val_split}
        self._append(record | matrix.summary() | class_record(matrix))
        self.say(
            f"epoch {epoch}/{o.epochs}  mean IU {matrix.mean_iu():.3f}  pixel accuracy {matrix.pixel_accuracy():.3f}  "
            f"predicted/true shares {shares(matrix, self.classes)}"
        )
        loss, p.epoch_loss, p.epoch_pixels = p.epoch_loss / max(p.epoch_pixels, 1), 0.0, 0
        self._warn_if_stuck(loss, matrix)
        self._improved = matrix.mean_iu() > p.best
        p.best = max(p.best, matrix.mean_iu())
        if o.overfit and matrix.pixel_accuracy() >= KNOWN:
            p.finished = True
        self._logged = time.perf_counter()  # the images/s of the log are those of training

    def _warn_if_stuck(self, loss: float, matrix: ConfusionMatrix) -> None:
        expected = math.log(len(self.classes))
        if len(self.classes) > 1 and abs(loss - expected) < 0.01 * expected:
            zero = all(not to_host(w.data).any() for name, w in self.net.trunk.parameters() if name.endswith(".w"))
            cause = (
                "all weights of the trunk are zero: initialise or load them" if zero else "the learning rate is too low"
            )
            self.say(f"warning: the loss stays at ln {len(self.classes)} = {expected:.4f}: nothing is learned; {cause}")
        most = int(matrix.shares_predicted().argmax())
        if matrix.shares_predicted()[most] > 0.99 > matrix.shares_true()[most]:
            self.say(
                f"warning: {100 * matrix.shares_predicted()[most]:.1f} % of the pixels are called {self.classes[most]} "
                f"({100 * matrix.shares_true()[most]:.1f} % are): train longer, or with a higher learning rate"
            )

    # --------------------------------------------------------------------------------------------------- saved and back

    def save(self, *, best: bool = False) -> None:
        p = self.progress
        tensors = {f"net.{name}": array for name, array in self.net.state().items()}
        tensors |= {f"momentum.{name}": array for name, array in self.optimizer.state().items()}
        meta = {
            "options": self.options.as_dict(),
            "classes": list(self.classes),
            "preprocessing": self.preprocessing.as_dict(),
            "stride": self.options.strides[p.stage],
            "progress": vars(p),
            "generators": [generator.bit_generator.state for generator in self.net.generators()],
            "train_ids": ids_digest(self.train_set.ids),
            "environment": environment(self.device),
        }
        try:
            self.folder.save(p.step, tensors, meta, best=best)
        except (UsageError, OSError) as fault:
            if self.options.on_save_error != "warn":
                raise
            self.say(f"warning: {fault}")

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint of this run; `FormatError` or `UsageError` if it is of another net or other data."""
        meta = checkpoint.meta
        if tuple(meta.get("classes", ())) != self.classes:
            raise UsageError(
                f"{checkpoint.path}: its classes are {meta.get('classes')}; the data has {list(self.classes)}"
            )
        if meta.get("train_ids") != ids_digest(self.train_set.ids):
            raise UsageError(f"{checkpoint.path}: it was trained on other images than these {len(self.train_set)}")
        try:
            self.progress = Progress(**meta["progress"])
            stage_fits = self.options.strides[self.progress.stage] == meta["stride"]
        except (KeyError, TypeError, IndexError) as fault:
            raise FormatError(
                f"{checkpoint.path}: its progress cannot be read ({fault}); expected a run's checkpoint"
            ) from fault
        if not stage_fits:
            raise UsageError(
                f"{checkpoint.path}: its net has stride {meta['stride']}, not one of {self.options.stages}"
            )
        self._begin_stage(None)
        restore_net(self.net, checkpoint)
        self.optimizer.load(part(checkpoint.tensors, "momentum."))
        for generator, state in zip(self.net.generators(), meta["generators"], strict=True):
            generator.bit_generator.state = state
        for key, before in meta.get("environment", {}).items():
            now = environment(self.device).get(key)
            if now != before:
                self.say(f"warning: {key} was {before} and is {now}: the run goes on, but not bit for bit the same")
        forget_after(self.folder.path / "metrics.jsonl", self.progress.step)

    # ------------------------------------------------------------------------------------------------------ the results

    def finish(self) -> dict[str, Any]:
        """Measure, draw, write the report, and say where everything is."""
        o = self.options
        matrix = evaluate(self.net, self.val_set, self.preprocessing)
        guesses = baselines(self.train_set, self.val_set)
        result = evaluation_record(matrix, guesses, classes=self.classes, split=o.val_split, images=len(self.val_set))
        folder = self.folder.path
        (folder / "evaluation.json").write_text(json.dumps(finite(result), indent=1), encoding="utf-8")
        self._draw_samples(folder / "samples")
        report = write_report(folder)
        self.say(table(matrix, guesses))
        for path in (
            report,
            folder / "curves.png",
            folder / "confusion.png",
            folder / "samples",
            folder / "checkpoints",
        ):
            self.say(f"wrote {path}")
        return result

    def _draw_samples(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        for i in range(min(self.options.samples, len(self.val_set))):
            sample = self.val_set[i]
            x, _ = collate([sample], self.preprocessing)
            picture = viz.triptych(sample.image, sample.label, predict(self.net, x)[0], self.classes)
            (folder / f"{i:03d}-{sample.id}.png").write_bytes(viz.png(picture))


# --------------------------------------------------------------------------------------------------------- small things


def rate_meaning(o: Options, pixels: int) -> str:
    """What a learning rate amounts to, whatever the loss is divided by: the step against the mean loss of a pixel."""
    factor = {"sum": pixels * o.batch, "batch": pixels, "valid": 1}[o.normalize]
    per = {
        "sum": "summed over the pixels",
        "batch": "summed over an image's pixels",
        "valid": "averaged over the pixels",
    }
    return (
        f"the loss is {per[o.normalize]} ({o.normalize}), so on the loss per pixel it acts like {o.lr * factor:.3g}, "
        f"and with momentum {o.momentum:g} like {o.lr * factor / (1 - o.momentum):.3g} in the long run"
    )


def shares(matrix: ConfusionMatrix, classes: tuple[str, ...], *, most: int = 4) -> str:
    """The most frequent classes with the share of pixels called so and truly so, in percent."""
    predicted, true = matrix.shares_predicted(), matrix.shares_true()
    order = np.argsort(-np.maximum(predicted, true))[:most]
    return ", ".join(f"{classes[i]} {100 * predicted[i]:.0f}/{100 * true[i]:.0f}" for i in order)


def class_record(matrix: ConfusionMatrix) -> dict[str, Any]:
    return {
        "iu": matrix.iu().tolist(),
        "shares_true": matrix.shares_true().tolist(),
        "shares_predicted": matrix.shares_predicted().tolist(),
    }


def evaluation_record(
    matrix: ConfusionMatrix,
    guesses: dict[str, ConfusionMatrix],
    *,
    classes: tuple[str, ...],
    split: str,
    images: int,
    absent: Any = "skip",
) -> dict[str, Any]:
    """What `evaluation.json` holds."""
    return {
        "split": split,
        "images": images,
        "classes": list(classes),
        "confusion": matrix.matrix.tolist(),
        **matrix.summary(absent),
        "iu": matrix.iu().tolist(),
        "absent": absent,
        "skipped": [classes[i] for i in matrix.skipped(absent)],
        "baselines": {name: guess.summary(absent) for name, guess in guesses.items()},
    }


def table(matrix: ConfusionMatrix, guesses: dict[str, ConfusionMatrix], absent: Any = "skip") -> str:
    """The four metrics of the net and of the baselines, as lines of text."""
    rows = {"this net": matrix, **guesses}
    lines = [f"{'':<16} pixel acc.  mean acc.  mean IU  f.w. IU"]
    for name, each in rows.items():
        pixel, mean, iu, weighted = each.summary(absent).values()
        lines.append(f"{name:<16} {pixel:>10.3f}  {mean:>9.3f}  {iu:>7.3f}  {weighted:>7.3f}")
    return "\n".join(lines)


def finite(value: Any) -> Any:
    """JSON has no NaN: where a number is not finite, null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def ids_digest(ids: tuple[str, ...]) -> str:
    """A fingerprint of which images, in which order."""
    import hashlib

    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def forget_after(path: Path, step: int) -> None:
    """Drop the lines of a log that were written after `step`, and a last line that was cut short."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError):
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    path.write_text("".join(kept), encoding="utf-8")


def environment(device: str) -> dict[str, Any]:
    """What decides the last bits of a float: versions, threads, device."""
    found: dict[str, Any] = {
        "minifcn": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.machine(),
        "device": device,
        "threads": os.cpu_count(),
    }
    with contextlib.suppress(ImportError):
        from threadpoolctl import threadpool_info

        blas = [info for info in threadpool_info() if info["user_api"] == "blas"]
        found["blas"] = ", ".join(sorted({f"{info['internal_api']} {info['version']}" for info in blas}))
    return found


@contextlib.contextmanager
def watching(net: Module) -> Iterator[None]:
    """Inside, each layer's output is looked at, and the first that is not finite raises `DivergedError` by name."""
    watched = []

    def watch(name: str, module: Module) -> None:
        forward = module.forward

        def checked(*args: Any, **options: Any) -> Any:
            y = forward(*args, **options)
            if isinstance(y, Tensor) and not np.isfinite(to_host(y.data)).all():
                raise DivergedError(f"{name} is the first layer with an output that is not finite")
            return y

        vars(module)["forward"] = checked
        watched.append(module)

    def walk(name: str, module: Module) -> None:
        for child_name, child in module.children():
            if isinstance(child, Module):
                walk(f"{name}.{child_name}".lstrip("."), child)
        watch(name or "the network", module)

    walk("", net)
    try:
        yield
    finally:
        for module in watched:
            del vars(module)["forward"]
