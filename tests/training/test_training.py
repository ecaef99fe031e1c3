"""The training loop: what is resumed is what was never stopped, what diverges is not saved, what it says is true.

Rows 2, 7, 8, 9, 13, 26, 30, 34, 36 and 38 of the faults, each with the words "row N" where it is tested.
"""

import json
import math
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from some_slow import slow_but

from minifcn.backend import rng
from minifcn.cli import train
from minifcn.cli.verbs import main
from minifcn.data.batches import Preprocessing
from minifcn.data.dataset import Subset
from minifcn.data.sample import VOID, Sample
from minifcn.data.shapes import Shapes
from minifcn.errors import DataError, DivergedError, FormatError, UsageError
from minifcn.formats.checkpoint import load_checkpoint
from minifcn.kernels import products
from minifcn.kernels.convolution import WAYS, convolution
from minifcn.kernels.threads import set_threads
from minifcn.metrics import ConfusionMatrix
from minifcn.ops import softmax_cross_entropy
from minifcn.tensor import Parameter, Tensor
from minifcn.training import loader, results, run_state, runlog, setup
from minifcn.training.advice import first_loss, rate_meaning, warnings_about
from minifcn.training.divergence import not_finite, unheard, watching
from minifcn.training.environment import differences, environment
from minifcn.training.evaluation import evaluate, predict
from minifcn.training.loop import Trainer
from minifcn.training.options import Options, from_dict
from minifcn.training.recipes import preset
from minifcn.training.run_folder import RunFolder, load_best, load_latest
from minifcn.training.runlog import append, forget_after
from minifcn.training.signals import Interrupted
from minifcn.training.trained import open_trained

ROOT = Path(__file__).parent.parent.parent
TINY: dict[str, Any] = {
    "recipe": "toy",
    "width": 1,
    "layers": 11,
    "lr": 0.02,
    "max_train": 6,
    "max_val": 2,
    "batch": 2,
    "epochs": 2,
    "samples": 0,
    "threads": 1,
    "workers": 0,
}
# Everything that draws a random number, or is carried from step to step: ten images in steps of 2 x 2, two stages
FULL = TINY | {
    "max_train": 10,
    "accumulate": 2,
    "stages": "16,8",
    "dropout": 0.5,
    "mirror": True,
    "translate": 5,
    "crop": 48,
    "scale_min": 0.8,
    "scale_max": 1.25,
    "rotate": 10.0,
    "jitter": 0.2,
    "lr": 0.05,
    "stage_lr": "0.5",
}
STEPS = 12


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    yield
    set_threads(None)


def arguments(options: dict[str, Any], **more: Any) -> list[str]:
    """The options as a command line."""
    words = []
    for name, value in (options | more).items():
        flag = name.replace("_", "-")
        words += [f"--{'' if value else 'no-'}{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    return words


def trainer(folder: Path, train_set: Any = None, val_set: Any = None, **options: Any) -> Trainer:
    """A run in `folder` that says nothing."""
    o = Options(**(TINY | options))
    first, second = (train_set, val_set or train_set) if train_set is not None else setup.data_sets(o)
    return Trainer(o, RunFolder(folder), first, second, say=lambda line: None)


def log(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the speed, the one number that may differ."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key != "images_per_s"} for line in lines]


def state(folder: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Every bit of the newest checkpoint, and all of its record that is not the folder's name."""
    checkpoint = load_latest(folder)
    assert checkpoint is not None
    meta = checkpoint.meta | {
        "options": {key: value for key, value in checkpoint.meta["options"].items() if key not in ("run", "stop_after")}
    }
    meta["progress"] = {key: value for key, value in meta["progress"].items() if key != "images"}
    return {name: array.tobytes() for name, array in checkpoint.tensors.items()}, meta


class Seen:
    """What the net was shown, in order: the ids and the pixels of every batch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[tuple[tuple[str, ...], bytes]] = []
        collate = loader.collate_inputs

        def recording(samples: Any, inputs: Any, **size: Any) -> Any:
            images, *labels = collate(samples, inputs, **size)
            shown = b"".join(array.tobytes() for array in (*images, *labels))
            self.batches.append((tuple(sample.id for sample in samples), shown))
            return images, *labels

        monkeypatch.setattr(loader, "collate_inputs", recording)


# ------------------------------------------------------------------------------------------------------- resume (row 7)


AGAIN = pytest.mark.slow("trains three runs for each choice of solver")


SOLVER: dict[str, Any] = {"schedule": "step", "momentum": 0.5, "normalize": "batch_size", "batch": 4, "lr": 2e-5}
SOLVER |= {"ema": 0.8, "warmup": 4}
# Stopped after 1, 3, 4 and 7 steps, and after 2, 6 and 11: what a resume forgets is missing until the end
STOPS = ((1, 2, 1, 3), (2, 4, 5))


@pytest.mark.parametrize(
    ("choice", "every_stop"),
    [
        (SOLVER, STOPS[:1]),
        pytest.param(SOLVER, STOPS[1:], marks=AGAIN),
        pytest.param({"schedule": "poly", "momentum": 0.9}, STOPS, marks=AGAIN),
        pytest.param(
            {"trunk": "squeezenet1.1", "padding": "safe", "at_once": True}
            | {"optimizer": "adam", "lr": 0.01, "trunk_lr": 0.3},
            STOPS,
            marks=AGAIN,
        ),
        pytest.param(
            {"sampling": 0.5, "hardest": 0.5, "with_replacement": True, "accumulate": 2}
            | {"heads": "label+geometry", "class_balance": 0.5},
            STOPS,
            marks=AGAIN,
        ),
        pytest.param(
            {"schedule": "cosine", "ema": 0.99, "sampling": "balanced:0.5", "loss": "focal"}, STOPS, marks=AGAIN
        ),
        pytest.param({"optimizer": "muon", "lr": 0.02, "fc": 8, "ema": 0.9, "warmup": 3}, STOPS, marks=AGAIN),
    ],
    ids=["step", "step, other stops", "poly", "adam", "sampled", "balanced", "muon"],
)
@pytest.mark.usefixtures("quick")
def test_a_resumed_run_is_bit_for_bit_the_one_that_was_not_stopped(
    choice: dict[str, Any],
    every_stop: tuple[tuple[int, ...], ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Row 7: at the start, the middle and the end of an epoch, at the change of stages, several times, at the end."""
    seen = Seen(monkeypatch)
    options = FULL | choice | ({"accumulate": 1} if "batch" in choice else {})
    whole = tmp_path / "whole"
    assert main(["train", *arguments(options, run=whole)]) == 0
    expected, batches = (state(whole), log(whole), evaluation(whole)), list(seen.batches)
    assert expected[0][1]["progress"]["step"] == STEPS and len(expected[1]) > 8
    for stops in every_stop:
        folder = tmp_path / "-".join(map(str, stops))
        seen.batches.clear()
        assert main(["train", *arguments(options, run=folder, stop_after=stops[0])]) == 0
        assert f"minifcn train --resume {folder}" in capsys.readouterr().out
        for at, more in enumerate(stops[1:], start=2):
            assert main(["train", "--resume", str(folder), "--stop-after", str(more)]) == 0
            assert load_latest(folder).meta["progress"]["step"] == sum(stops[:at])  # type: ignore[union-attr]
        assert main(["train", "--resume", str(folder)]) == 0
        assert "bit for bit" not in capsys.readouterr().out
        assert (state(folder), log(folder), evaluation(folder)) == expected, stops
        assert seen.batches == batches, stops
    again = open_trained(folder), open_trained(whole)
    image = Shapes("test", count=1)[0].image
    ours, theirs = (predict(run.net, run.preprocessing(image)[None]) for run in again)
    assert ours.tobytes() == theirs.tobytes()


@pytest.mark.usefixtures("quick")
def test_the_average_of_the_weights_is_what_is_measured_kept_and_opened(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", ema=0.9, epochs=2)
    with run.folder:
        result = run.run()
    checkpoint = load_latest(tmp_path / "run")
    assert checkpoint is not None and run.average is not None
    own, average = run.net.state_dict(), run.average.state_dict()
    for name, array in own.items():
        assert np.array_equal(checkpoint.tensors[f"net.{name}"], array)
        assert np.array_equal(checkpoint.tensors[f"average.{name}"], average[name])
    assert not np.array_equal(own["score_fr.w"], average["score_fr.w"])
    trained = open_trained(tmp_path / "run")
    assert np.array_equal(trained.net.state_dict()["score_fr.w"], average["score_fr.w"])
    matrix = evaluate(trained.net, run.val_set, run.preprocessing)
    assert matrix.matrix.tolist() == result["confusion"]


@pytest.mark.usefixtures("quick")
def test_a_checkpoint_without_its_average_cannot_be_resumed(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", ema=0.9, stop_after=1)
    with run.folder, pytest.raises(Interrupted):
        run.run()
    checkpoint = load_latest(tmp_path / "run")
    assert checkpoint is not None
    tensors = {name: array for name, array in checkpoint.tensors.items() if name != "average.score_fr.w"}
    with pytest.raises(FormatError, match="the averaged weights are not those of this network"):
        run.restore(replace(checkpoint, tensors=tensors))


@pytest.mark.parametrize(
    "loss", slow_but(["cross_entropy+dice"], ["focal", "dice", "cross_entropy+dice"], "trains for six epochs")
)
@pytest.mark.usefixtures("quick")
def test_every_loss_learns(loss: str, tmp_path: Path) -> None:
    lines: list[str] = []
    run = trainer(tmp_path / "run", loss=loss, epochs=6, optimizer="adam", lr=0.01, heads="label+geometry")
    run._say = lines.append
    with run.folder:
        run.run()
    losses = [record["loss"] for record in log(tmp_path / "run") if record["kind"] == "train"]
    assert losses[-1] < losses[0] and math.isfinite(losses[-1])
    assert not any("ln 8" in line or "ln 24" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"loss": "dice", "normalize": "none"}, "option loss is 'dice', whose size knows no pixels"),
        ({"loss": "dice", "class_balance": 1.0}, "option class_balance does nothing with loss dice"),
        ({"loss": "hinge"}, "option loss is 'hinge'; expected one of cross_entropy, focal, dice"),
        ({"sampling": "balanced:2"}, "option sampling is balanced:2; expected a probability above 0, at most 1"),
        (
            {"sampling": "even"},
            "option sampling is even; expected a probability above 0, at most 1, balanced or centres",
        ),
        ({"sampling": "centres", "padding": "safe"}, "option sampling is centres with padding 'safe' and enlarge 1"),
        ({"sampling": "centres", "enlarge": 2}, "option sampling is centres with padding 'same' and enlarge 2"),
        ({"sampling": "even:0.5"}, "option sampling is even:0.5; expected a probability"),
        ({"sampling": 1.5}, "option sampling is 1.5; expected a probability above 0"),
        ({"hardest": 0.0}, "option hardest is 0.0; expected a number from 0.0001 to 1.0"),
    ],
)
def test_losses_and_samples_that_cannot_be(options: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as refusal:
        Options(**options)
    assert str(refusal.value).startswith(line)


@pytest.mark.usefixtures("quick")
def test_a_balanced_sample_has_as_many_pixels_of_each_class_as_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    balance = loader.sample_balanced

    def recording(labels: np.ndarray, *more: Any, **options: Any) -> np.ndarray:
        seen.append((labels, balance(labels, *more, **options)))
        return seen[-1][1]

    monkeypatch.setattr(loader, "sample_balanced", recording)
    folder = tmp_path / "run"
    assert main(["train", *arguments(TINY, sampling="balanced:0.2", run=folder, epochs=1)]) == 0
    labels, keep = seen[0]
    counts, kept = np.bincount(labels[labels != VOID]), np.bincount(labels[keep != 0])
    there = kept > 0
    assert 0.15 < keep.sum() / counts.sum() < 0.25
    assert kept[there].max() / kept.sum() < 0.7 * counts.max() / counts.sum()
    assert options_of(folder).sampling == "balanced:0.2"


@pytest.mark.usefixtures("quick")
def test_the_centres_of_a_stage_are_those_of_its_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    centres = loader.sample_centres

    def recording(labels: np.ndarray, stride: int) -> np.ndarray:
        keep = centres(labels, stride)
        seen.append((stride, int(keep[0].sum())))
        return keep

    monkeypatch.setattr(loader, "sample_centres", recording)
    options = arguments(TINY, sampling="centres", run=tmp_path / "run", epochs=1, stages="32,16")
    assert main(["train", *options]) == 0
    assert dict(seen) == {32: 4, 16: 16} and options_of(tmp_path / "run").sampling == "centres"


@pytest.mark.parametrize("sampling", [1.0, 0.5])
def test_the_hardest_pixels_alone_have_a_gradient(sampling: float, tmp_path: Path) -> None:
    """And a batch in two parts, with the divisor of the whole, has the same loss."""
    run = trainer(tmp_path / "run", sampling=sampling, hardest=0.2, batch=4, max_train=4)
    draw = np.random.default_rng(3)
    (batch,) = run.loader.of_step(0)
    scores = Parameter(draw.standard_normal((4, len(run.classes), *batch.labels.shape[1:])))
    loss = run.objective(scores, batch)
    loss.backward()
    found, total, chosen = np.zeros(batch.labels.shape, bool), 0.0, 0
    for image in range(4):
        cells = []
        for y, x in np.argwhere(
            (batch.labels[image] != VOID) & (True if batch.keep is None else batch.keep[image] > 0)
        ):
            column = scores.data[image, :, y, x]
            cells.append((math.log(np.exp(column).sum()) - column[batch.labels[image, y, x]], y, x))
        for each, y, x in sorted(cells, reverse=True)[: round(0.2 * len(cells))]:
            found[image, y, x], total, chosen = True, total + each, chosen + 1
    assert np.array_equal(abs(scores.grad).max(axis=1) > 0, found)
    assert loss.item() == pytest.approx(total / chosen, rel=1e-12)
    assert loader.learned_from(batch.labels, batch.keep, 0.2) == chosen
    parts = 0.0
    for part in (slice(0, 1), slice(1, 4)):
        keep = None if batch.keep is None else batch.keep[part]
        labels = batch.labels[part]
        piece = batch._replace(part=part, labels=labels, keep=keep, divisors=(chosen, chosen))
        parts += run.objective(Tensor(scores.data[part]), piece).item()
    assert parts == pytest.approx(loss.item(), rel=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hardest": 0.3},
        {"hardest": 0.3, "sampling": 0.5, "heads": "label+geometry"},
        {"loss": "focal", "class_balance": 0.5},
        {"loss": "cross_entropy+dice", "ema": 0.9},
        {"detect_anomaly": False, "dropout": 0.5, "optimizer": "adam"},
    ],
    ids=str,
)
def test_a_gpu_is_waited_for_once_a_batch_and_after_its_backward_pass(
    options: dict[str, Any], tmp_path: Path, fake_gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    o = Options(**TINY | {"batch": 2, "accumulate": 2, "max_train": 4} | options)
    one = Trainer(o, RunFolder(tmp_path / "run"), *setup.data_sets(o), device="gpu")
    waited: list[int] = []
    backward = Tensor.backward

    def noted(self: Tensor, *given: Any, **named: Any) -> None:
        waited.append(fake_gpu.downloads)
        backward(self, *given, **named)
        waited.append(fake_gpu.downloads)

    monkeypatch.setattr(Tensor, "backward", noted)
    with one.folder:
        before = fake_gpu.downloads
        one._one_step()
    assert waited == [before, before, before + 1, before + 1] and fake_gpu.downloads == before + 2


@pytest.mark.usefixtures("quick")
def test_a_run_on_the_hardest_pixels_starts_at_ln_c_and_learns(tmp_path: Path) -> None:
    lines: list[str] = []
    run = trainer(tmp_path / "run", hardest=0.3, epochs=6, optimizer="adam", lr=0.01, heads="label+geometry")
    run._say = lines.append
    with run.folder:
        run.run()
    losses = [record["loss"] for record in log(tmp_path / "run") if record["kind"] == "train"]
    assert losses[-1] < losses[0] and any("as scores of zero must give" in line for line in lines)


def options_of(folder: Path) -> Options:
    checkpoint = load_latest(folder)
    assert checkpoint is not None
    return from_dict(checkpoint.meta["options"], source=checkpoint.path)


def evaluation(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))


@pytest.mark.usefixtures("quick")
def test_a_finished_run_that_is_resumed_only_reports_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["train", *arguments(TINY, run=run)]) == 0
    before = state(run), log(run), evaluation(run)
    (run / "evaluation.json").unlink()
    assert main(["train", "--resume", str(run)]) == 0
    assert (state(run), log(run), evaluation(run)) == before


@pytest.mark.usefixtures("quick")
def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    """Row 7 again, for a stop in which nothing could be saved: the log then knows more than the checkpoint."""
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for folder in (killed, whole):
        assert main(["train", *arguments(TINY, run=folder, stop_after=4 if folder == killed else 0)]) == 0
    with open(killed / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"kind": "train", "step": 5, "loss": 1.0}\n{"kind": "tr')
    assert main(["train", "--resume", str(killed)]) == 0
    assert (state(killed), log(killed)) == (state(whole), log(whole))


def test_the_log_forgets_in_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    forget_after(path, 3)
    assert not path.exists()
    for step in range(6):
        append(path, {"step": step, "loss": math.nan})
    text = path.read_text(encoding="utf-8")
    assert text.splitlines()[0] == '{"step": 0, "loss": null}'
    monkeypatch.setattr(os, "replace", fails := failing(OSError(28, "No space left on device")))
    with pytest.raises(UsageError, match="No space"):
        forget_after(path, 3)
    assert fails.calls == 1 and path.read_text(encoding="utf-8") == text
    monkeypatch.undo()
    forget_after(path, 3)
    assert path.read_text(encoding="utf-8") == "".join(text.splitlines(keepends=True)[:4])


class failing:
    """A function that raises, from its `first` call on until `healed`, and lets through what it stands for."""

    def __init__(self, error: BaseException, *, instead_of: Any = None, first: int = 1, last: float = math.inf) -> None:
        self.error, self.instead_of, self.first, self.last, self.calls = error, instead_of, first, last, 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        if self.first <= self.calls <= self.last:
            raise self.error
        return self.instead_of(*args, **options)


# -------------------------------------------------------------------------------------- resume elsewhere (rows 8 and 9)


@pytest.mark.usefixtures("quick")
def test_a_checkpoint_with_the_state_of_dropout_goes_on_and_says_so(tmp_path: Path) -> None:
    """Older runs drew the masks of dropout from a stream, and kept its state."""
    with pytest.raises(Interrupted), (one := trainer(tmp_path / "run", dropout=0.5, stop_after=2)).folder:
        one.run()
    checkpoint, said = load_latest(tmp_path / "run"), list[str]()
    assert checkpoint is not None and "generators" not in checkpoint.meta
    with (again := trainer(tmp_path / "run", dropout=0.5)).folder:
        again.say = said.append  # type: ignore[method-assign]
        again.restore(checkpoint)
        assert said == []
        again.restore(replace(checkpoint, meta=checkpoint.meta | {"generators": [{}]}))
    assert said == [
        "warning: dropout drew from a stream and now draws anew in each step: the run goes on, but not bit for bit "
        "the same"
    ]


@pytest.mark.usefixtures("quick")
def test_another_machine_is_named_with_both_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Row 8: threads, BLAS, NumPy and device; the run goes on."""
    run = tmp_path / "run"
    assert main(["train", *arguments(TINY, run=run, stop_after=2)]) == 0
    real = environment("cpu")
    elsewhere = real | {"threads": 7, "blas": "abacus 1", "numpy": "1.0", "device": "gpu"}
    monkeypatch.setattr(run_state, "environment", lambda device: elsewhere)
    capsys.readouterr()
    assert main(["train", "--resume", str(run)]) == 0
    said = capsys.readouterr().out
    for name in ("threads", "blas", "numpy", "device"):
        assert (
            f"warning: {name} was {real[name]} and is {elsewhere[name]}: the run goes on, but not bit for bit" in said
        )
    assert said.count("warning: ") >= 4 and "python was" not in said


def test_the_environment_knows_how_many_threads_compute() -> None:
    set_threads(2)
    two = environment("cpu")
    set_threads(1)
    one = environment("cpu")
    assert (one["threads"], two["threads"]) == (1, 2) and one["blas threads"] >= 1
    assert "threads was 2 and is 1" in differences(two, one) and differences(one, one) == []


@pytest.fixture
def stopped(tmp_path: Path, quick: None) -> Path:
    """A run that was stopped after two steps."""
    run = tmp_path / "stopped"
    with pytest.raises(Interrupted), (one := trainer(run, width=2, stop_after=2)).folder:
        one.run()
    return run


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"width": 3}, r"parameters are not this network's: \d+ of another shape: trunk.block1.conv1_1.w \("),
        ({"layers": 13}, r"\d+ missing: trunk.block1.conv1_2.w, .*"),
        ({"layers": 11, "upsampling": "learned"}, r"2 missing: upscore2.w, upscore_pool4.w"),
        ({"stages": "16"}, r"its net has stride 8 in stage 1 of 16"),
        ({"max_train": 5}, r"trained on 6 images \(train-000000 ... train-000005\); found 5 images \(train-000000 ..."),
        ({"train_split": "val"}, r"trained on 6 images \(train-.*\); found 6 images \(val-000000 ... val-000005\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_net_or_other_images_are_refused_with_what_differs(
    stopped: Path, tmp_path: Path, other: dict[str, Any], message: str
) -> None:
    """Row 9."""
    checkpoint = load_latest(stopped)
    assert checkpoint is not None
    one = trainer(tmp_path / "other", **({"width": 2} | other))
    with one.folder, pytest.raises((FormatError, UsageError), match=message) as caught:
        one.restore(checkpoint)
    assert str(caught.value).startswith(f"{stopped}/checkpoints/step-00000002.safetensors: ")


def test_other_classes_are_refused_with_both_lists(stopped: Path, tmp_path: Path) -> None:
    """Row 9."""
    world = Shapes("train", count=6)
    world.classes = ("background", "cat")
    one = trainer(tmp_path / "other", world, width=2)
    with (
        one.folder,
        pytest.raises(UsageError, match=r"its classes are \['background', 'ball'.*has \['background', 'cat'"),
    ):
        one.restore(load_latest(stopped))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"progress": None}, "progress is None; expected the fields stage, step"),
        ({"progress": {"step": 1}}, "progress is .*; expected the fields"),
        ("step", "progress step is 'x'; expected int"),
        ("stage_began", "progress stage_began is -1; expected int"),
        ({"images": 7}, "trained on images it does not name"),
    ],
)
def test_a_record_that_is_none_is_refused(stopped: Path, tmp_path: Path, meta: Any, message: str) -> None:
    checkpoint = load_latest(stopped)
    assert checkpoint is not None
    if isinstance(meta, str):
        meta = {"progress": checkpoint.meta["progress"] | {meta: "x" if meta == "step" else -1}}
    one = trainer(tmp_path / "other", width=2)
    with one.folder, pytest.raises((FormatError, UsageError), match=message):
        one.restore(replace(checkpoint, meta=checkpoint.meta | meta))


# ------------------------------------------------------------------------------------- images are loaded in advance


@pytest.mark.slow("trains four runs")
@pytest.mark.usefixtures("quick")
def test_any_number_of_workers_loads_the_same(tmp_path: Path) -> None:
    """Also where a run with one number is stopped, and goes on with another."""
    with (one := trainer(tmp_path / "0", **FULL)).folder:
        one.run()
    tensors, log_lines = state(tmp_path / "0")[0], log(tmp_path / "0")
    for workers in (1, 3):
        with (one := trainer(tmp_path / str(workers), **FULL | {"workers": workers})).folder:
            one.run()
        assert state(tmp_path / str(workers))[0] == tensors and log(tmp_path / str(workers)) == log_lines
    run = tmp_path / "stopped"
    with pytest.raises(Interrupted), (one := trainer(run, **FULL | {"workers": 3, "stop_after": 5})).folder:
        one.run()
    assert main(["train", "--resume", str(run), "--workers", "2"]) == 0
    assert state(run)[0] == tensors
    from_library, resumed = json.dumps(log_lines), json.dumps(log(run))
    assert "--init RUN" in resumed  # the command's warnings have flags, and those of a function its arguments
    assert resumed.replace("--init RUN", "`init=RUN`") == from_library


@pytest.mark.usefixtures("quick")
def test_an_image_that_vanishes_is_said_in_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was computed before it is as good as without workers."""
    steps = []
    for workers in (0, 2):
        with (one := trainer(tmp_path / str(workers), workers=workers, batch=1)).folder:
            bad, take = one.loader.drawn(3)[0][0], one.loader._sample

            def sample(i: int, epoch: int, *, bad: int = bad, take: Any = take) -> Sample:
                if i == bad:
                    raise DataError("a.png: cannot be read")
                return take(i, epoch)

            monkeypatch.setattr(one.loader, "_sample", sample)
            with pytest.raises(DataError, match=r"a\.png: cannot be read"):
                one.run()
        steps.append(one.progress.step)
        assert not one.loader._prefetch._begun
    assert steps == [3, 3]


# ----------------------------------------------------------------------------------------------------- signals (row 13)


class Process:
    """`minifcn train` in a process of its own, in `folder`."""

    def __init__(self, folder: Path, *argv: str, program: str = "") -> None:
        command = [sys.executable, "-u", *(("-c", program) if program else ("-m", "minifcn.train")), *argv]
        environ = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.popen = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def until(self, stream: Any, pattern: str) -> None:
        """Wait for a line that matches."""
        for line in stream:
            if re.search(pattern, line):
                return
        pytest.fail(f"no line with {pattern!r}; stderr: {self.popen.stderr.read() if self.popen.stderr else ''}")

    def end(self) -> tuple[int, str, str]:
        out, err = self.popen.communicate(timeout=60)
        return self.popen.returncode, out, err


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow("trains in a process of its own"))],
)
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(number: int, code: int, tmp_path: Path) -> None:
    """Row 13."""
    process = Process(tmp_path, *arguments(TINY, epochs=10**5, run="a run", measure_every=10))
    process.until(process.popen.stdout, "^step ")
    process.popen.send_signal(number)
    returned, _, err = process.end()
    checkpoint = load_latest(tmp_path / "a run")
    assert checkpoint is not None
    step = checkpoint.meta["progress"]["step"]
    assert returned == code and step > 0
    assert err.splitlines() == [
        "",
        "finishing the step, then saving; a second signal ends at once",
        f"stopped after step {step}, everything is saved; to go on: minifcn train --resume 'a run'",
    ]
    assert (tmp_path / "a run" / "lock").read_bytes() == b""


@pytest.mark.slow("a step that takes seconds, in a process of its own")
def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    """Row 13: in the middle of a step that takes seconds, without a checkpoint of it."""
    slow = arguments(TINY, width=8, world_size=500, batch=6, epochs=100, run="run")
    process = Process(tmp_path, *slow)
    process.until(process.popen.stdout, "^learning rate")
    while load_latest(tmp_path / "run") is None:
        time.sleep(0.01)
    time.sleep(0.05)
    process.popen.send_signal(signal.SIGINT)
    process.until(process.popen.stderr, "second signal")
    began = time.perf_counter()
    process.popen.send_signal(signal.SIGINT)
    code, _, err = process.end()
    assert code == 130 and "stopped after" not in err and time.perf_counter() - began < 5
    assert load_latest(tmp_path / "run").meta["progress"]["step"] == 0  # type: ignore[union-attr]


def test_a_signal_while_saving_leaves_the_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Row 13: the signal arrives in the middle of writing the checkpoint of step 3."""
    fsync = os.fsync

    def interrupted(descriptor: int) -> None:
        if any("step-00000003" in name for name in os.listdir(tmp_path / "run" / "checkpoints")):
            monkeypatch.setattr(os, "fsync", fsync)
            os.kill(os.getpid(), signal.SIGINT)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", interrupted)
    before = signal.getsignal(signal.SIGINT)
    assert main(["train", *arguments(TINY, run=tmp_path / "run")]) == 130
    assert os.fsync is fsync and signal.getsignal(signal.SIGINT) is before
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "best.safetensors",
        "step-00000000.safetensors",
        "step-00000003.safetensors",
    ]
    load_checkpoint(tmp_path / "run" / "checkpoints" / "step-00000003.safetensors")
    assert "to go on: minifcn train --resume" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- disk full (row 2)


def full(monkeypatch: pytest.MonkeyPatch, *, last: float) -> None:
    """The disk is full from the second checkpoint on, until so many of its writes have failed."""
    full_disk = OSError(28, "No space left on device")
    calls = failing(
        full_disk, instead_of=os.fsync, first=8, last=last
    )  # 2 for the probe, config.json and step 0 each: file and folder; 1 for the log
    monkeypatch.setattr(os, "fsync", calls)


def test_a_full_disk_stops_the_run_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Row 2."""
    full(monkeypatch, last=math.inf)
    assert main(["train", *arguments(TINY, run=tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert (
        error.count("\n") == 1
        and "step-00000003.safetensors: cannot be saved; what was saved before is intact" in error
    )
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000000.safetensors"]
    assert load_latest(tmp_path / "run") is not None


@pytest.mark.usefixtures("quick")
def test_a_full_disk_may_be_warned_of_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Row 2, --on-save-error warn: the run goes on, and saves again when there is room."""
    full(monkeypatch, last=8)
    assert main(["train", *arguments(TINY, run=tmp_path / "run", on_save_error="warn")]) == 0
    said = capsys.readouterr().out
    assert "warning: " in said and "step-00000003.safetensors: cannot be saved" in said
    assert load_latest(tmp_path / "run").meta["progress"]["step"] == 6  # type: ignore[union-attr]


@pytest.mark.usefixtures("quick")
def test_a_best_that_could_not_be_saved_is_not_the_one_to_beat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 2: the best on the disk is the best of those that were saved, although a better one was measured between."""
    ious = iter([0.2, 0.9, 0.5])

    class Scored(ConfusionMatrix):
        iou = 0.0

        def mean_iu(self, absent: Any = "skip") -> float:
            return self.iou

    def evaluated(net: Any, data: Any, *_: Any, **__: Any) -> tuple[ConfusionMatrix, None]:
        (matrix := Scored(6)).update(data[0].label, data[0].label)
        matrix.iou = next(ious)
        return matrix, None

    monkeypatch.setattr(run_state, "evaluate_heads", evaluated)
    with (one := trainer(tmp_path / "run", epochs=3, on_save_error="warn")).folder:
        save = one.folder.save

        def full(step: int, *rest: Any, **options: Any) -> Any:
            if step == 6:
                raise UsageError("the disk is full")
            return save(step, *rest, **options)

        monkeypatch.setattr(one.folder, "save", full)
        one.run()
    best = load_best(tmp_path / "run")
    assert best and best.meta["progress"]["step"] == 9 and best.meta["progress"]["best"] == 0.5


def test_a_log_that_cannot_be_written_is_the_same_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 2, for metrics.jsonl."""
    monkeypatch.setattr(runlog, "append", failing(OSError(28, "No space left on device", "metrics.jsonl")))
    with (one := trainer(tmp_path / "a")).folder, pytest.raises(OSError, match="No space left"):
        one.run()
    monkeypatch.setattr(results, "write_report", lambda folder: folder)
    with (one := trainer(tmp_path / "b", on_save_error="warn")).folder:
        assert one.run()["images"] == 2


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_is_watched_shows_how_far_it_is_and_is_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pages: list[tuple[str, int]] = []
    write = results.write_report

    def recording(folder: Path, **options: Any) -> Path:
        path = write(folder, **options)
        pages.append((path.read_text(encoding="utf-8"), len(list((folder / "samples").iterdir()))))
        return path

    monkeypatch.setattr(results, "write_report", recording)
    monkeypatch.setattr(results, "PAUSE", 1e-9)
    monkeypatch.setattr(results, "EFFORT", math.inf)
    watched = tmp_path / "watched"
    assert main(["train", *arguments(TINY, run=watched, watch=True, samples=1, lr=0.0)]) == 0
    live = 'http-equiv="refresh"'
    assert f"{watched / 'report.html'} shows how far the run is" in capsys.readouterr().out
    first, second, third, finished = pages  # at the start, after each epoch, at the end
    assert all(live in page and count == 1 for page, count in (first, second, third))
    assert live not in finished[0]
    assert "Learning curves" not in first[0] and "Learning curves" in second[0]
    assert "after step 3." in second[0] and "after step 6." in third[0]
    assert "the learning rate is 0" in second[0] and "(2 times, the last at step 6)" in finished[0]
    assert "The four measures" in finished[0] and "The last measurement" not in finished[0]
    pages.clear()
    stopped = tmp_path / "stopped"
    assert main(["train", *arguments(TINY, run=stopped, watch=True, samples=1, lr=0.0, stop_after=3)]) == 0
    assert [live in page for page, _ in pages] == [True, False]  # at the start, and when it stops
    monkeypatch.setattr(results, "write_report", lambda folder, **_: folder)
    assert main(["train", *arguments(TINY, run=tmp_path / "plain", samples=1, lr=0.0)]) == 0
    assert state(watched)[0] == state(tmp_path / "plain")[0] and log(watched) == log(tmp_path / "plain")


def test_the_page_of_a_watched_run_takes_little_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that took 2 s is written again after 40 s; one that took 0.1 s, after 10 s."""
    now, took, written = [1000.0], [2.0], list[float]()

    def write(folder: Path, *, refresh: int = 0) -> Path:
        written.append(now[0])
        now[0] += took[0]
        return folder

    monkeypatch.setattr(results, "write_report", write)
    monkeypatch.setattr(results.time, "perf_counter", lambda: now[0])
    run = trainer(tmp_path / "run", watch=True)
    with run.folder:
        page = results.LivePage(run)
        for seconds in range(1, 100):
            page.update()
            now[0] += 1
            took[0] = 2.0 if seconds < 50 else 0.1
    gaps = np.diff(written)
    assert gaps[0] == pytest.approx(42, abs=1) and gaps[-1] == pytest.approx(10.1, abs=1)


@pytest.mark.parametrize("on_save_error", ["stop", "warn"])
def test_a_page_that_cannot_be_written_ends_no_run(
    on_save_error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []

    def full(folder: Path, *, refresh: int = -1) -> Path:
        if refresh >= 0:
            raise OSError(28, "No space left on device", "report.html")
        return folder / "report.html"

    monkeypatch.setattr(results, "write_report", full)
    run = trainer(tmp_path / "run", watch=True, epochs=1, on_save_error=on_save_error)
    run._say = lines.append
    with run.folder:
        assert run.run()["images"] == 2
    assert sum("warning: the page of the run cannot be written: " in line for line in lines) == 1


# ------------------------------------------------------------------------------------------------- broken data (row 26)


class Broken:
    """A data set of which some samples cannot be read."""

    def __init__(self, dataset: Any, bad: set[int]) -> None:
        self.dataset, self.bad, self.classes, self.ids = dataset, bad, dataset.classes, dataset.ids

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> Sample:
        if i in self.bad:
            raise DataError(f"{self.ids[i]}.png: mask of 3x3; expected 64x64")
        return self.dataset[i]


@pytest.mark.parametrize("where", ["train", "val"])
def test_broken_files_are_counted_before_the_first_step(where: str, tmp_path: Path) -> None:
    """Row 26."""
    good = Shapes(where, count=6)
    bad = Broken(good, {3, 5})
    sets = (bad, good) if where == "train" else (good, bad)
    with RunFolder(tmp_path / "run") as folder, pytest.raises(DataError) as caught:
        Trainer(Options(**TINY), folder, *sets)
    assert str(caught.value) == (
        f"{where}-000003.png: mask of 3x3; expected 64x64 (the first of 2 such among 6 images); "
        "fix them, or leave them out with `skip_bad=True`"
    )


# -------------------------------------------------------------------------------------------- void, sizes (rows 30, 36)


class Relabelled:
    """A data set whose labels, or sizes, are changed."""

    def __init__(self, dataset: Any, change: Any) -> None:
        self.dataset, self.change, self.classes, self.ids = dataset, change, dataset.classes, dataset.ids

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> Sample:
        return self.change(i, self.dataset[i])


def whole(i: int, sample: Sample) -> Sample:
    """Without void: its pixels become background."""
    return replace(sample, label=np.where(sample.label == VOID, 0, sample.label).astype(np.uint8))


@pytest.mark.usefixtures("quick")
def test_images_without_a_label_teach_nothing_and_harm_nothing(tmp_path: Path) -> None:
    """Row 30: loss 0, gradient 0, no NaN, in training and in measuring."""
    void = Relabelled(Shapes("train", count=4), lambda i, s: replace(s, label=np.full_like(s.label, VOID)))
    said: list[str] = []
    options = Options(**TINY | {"weight_decay": 0.0, "max_train": 0})
    with RunFolder(tmp_path / "run") as folder:
        one = Trainer(options, folder, void, void, say=said.append)
        before = one.net.state_dict()
        result = one.run()
    after = one.net.state_dict()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    losses = [line["loss"] for line in log(tmp_path / "run") if line["kind"] == "train"]
    assert losses == [0.0, 0.0] and math.isnan(result["mean_iu"]) and evaluation(tmp_path / "run")["mean_iu"] is None
    assert not any("loss per pixel at the start" in line for line in said)


@pytest.mark.usefixtures("quick")
def test_one_void_image_among_others_changes_nothing_for_them(tmp_path: Path) -> None:
    """Row 30: with the loss averaged over labelled pixels, a step is the same with it and without it."""
    world = Shapes("train", count=2)
    beside = Relabelled(world, lambda i, s: replace(s, label=np.full_like(s.label, VOID)) if i == 1 else s)
    steps = []
    for name, data in (("alone", Subset(world, [0])), ("beside", beside)):
        choice = {"mirror": False, "dropout": 0.0, "batch": 2, "epochs": 1, "normalize": "valid"}
        o, folder = Options(**TINY | choice), RunFolder(tmp_path / name)
        one = Trainer(o, folder, data, data, preprocessing=Preprocessing.fit(world))
        with one.folder:
            one.run()
        steps.append(one.net.state_dict())
    alone, together = steps
    assert all(np.allclose(alone[name], together[name], atol=1e-6) for name in alone)
    assert any(alone[name].any() for name in alone if name.startswith("score"))


@pytest.mark.usefixtures("quick")
def test_images_of_many_sizes_share_a_batch(tmp_path: Path) -> None:
    sizes = [(64, 64), (33, 50), (1, 1), (64, 1), (20, 60), (31, 33)]

    def cut(i: int, sample: Sample) -> Sample:
        h, w = sizes[i]
        return Sample(sample.id, sample.image[:h, :w], sample.label[:h, :w])

    data = Relabelled(Shapes("train", count=6), cut)
    one = trainer(tmp_path / "run", data, batch=3, accumulate=2, epochs=1)
    with one.folder:
        result = one.run()
    labelled = sum(int((data[i].label != VOID).sum()) for i in range(6))
    assert np.sum(result["confusion"]) == labelled
    line = log(tmp_path / "run")[0]
    assert line["loss"] == pytest.approx(math.log(8), rel=1e-5)


def test_measuring_sees_no_padding() -> None:
    """Images of other sizes are not laid into one batch, where the nearer border would change what is said."""
    sizes = [(64, 64), (64, 64), (20, 40), (20, 41), (33, 17), (33, 17)]

    def cut(i: int, sample: Sample) -> Sample:
        h, w = sizes[i]
        return Sample(sample.id, sample.image[:h, :w], sample.label[:h, :w])

    data = Relabelled(Shapes("val", count=6), cut)
    net = setup.network(Options(width=2, layers=11), 8, 8)
    rng = np.random.default_rng(0)
    for parameter in net.parameters():
        parameter.data = rng.normal(0, 0.3, parameter.shape).astype(np.float32)
    preprocessing, done = Preprocessing.fit(data), list[int]()
    together = evaluate(net, data, preprocessing, batch=6, progress=done.append)
    alone = evaluate(net, data, preprocessing, batch=1)
    assert np.array_equal(together.matrix, alone.matrix) and done == [2, 1, 1, 2]
    where = set[str]()

    def noted(i: int, sample: Sample) -> Sample:
        where.add(threading.current_thread().name)
        return cut(i, sample)

    ahead = evaluate(net, Relabelled(Shapes("val", count=6), noted), preprocessing, batch=6, workers=3)
    assert np.array_equal(ahead.matrix, alone.matrix) and all(name.startswith("minifcn-load") for name in where)
    assert len(np.flatnonzero(alone.predicted_pixels())) > 2


@pytest.mark.usefixtures("quick")
def test_a_rate_of_zero_changes_no_bit(tmp_path: Path) -> None:
    """Row 36."""
    one = trainer(tmp_path / "run", lr=0.0, momentum=0.99, epochs=3)
    before = one.net.state_dict()
    with one.folder:
        one.run()
    after = one.net.state_dict()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)


# -------------------------------------------------------------------------------------------------- divergence (row 34)


@pytest.mark.slow("trains the toy recipe once for each way to convolve")
def test_the_toy_recipe_learns_the_same_whichever_way_it_computes() -> None:
    """Its net, rate and solver on its images: first the same to rounding, and after 50 steps within half a per cent.

    In between rounding decides here and there which of two pixels is the largest of its pooling window.
    """
    options = replace(preset("toy"), max_train=80, max_val=1)
    images, _ = setup.data_sets(options)
    samples = [images[i] for i in range(len(images))]
    x = np.stack([each.image for each in samples]).transpose(0, 3, 1, 2).astype("float32") / 255 - 0.5
    labels, losses = np.stack([each.label for each in samples]), {}
    for way in WAYS:
        net = setup.network(options, 8, options.strides[0], geometry=0)
        solver, losses[way] = setup.solver(options, net), []
        with convolution(way):
            for first in [*range(0, 80, 8)] * 5:
                loss = softmax_cross_entropy(net(x[first : first + 8]), labels[first : first + 8])
                loss.backward()
                solver.step()
                losses[way].append(float(loss.data))
    for each in losses.values():
        assert each[:9] == pytest.approx(losses["im2col"][:9], rel=1e-5)
        assert each[-1] == pytest.approx(losses["im2col"][-1], rel=5e-3)
        assert each[-1] < 0.6 * each[0]


class Poisoned(Trainer):
    """A run in which a parameter becomes NaN before step `at`, or in the update that ends step `at`."""

    at, after, name = 4, False, "trunk.block3.conv3_1.w"

    def _one_step(self) -> None:
        due = self.progress.step + 1 == self.at
        if due and not self.after:
            dict(self.net.named_parameters())[self.name].data.flat[0] = np.nan
        super()._one_step()
        if due and self.after:
            dict(self.net.named_parameters())[self.name].data.flat[0] = np.nan


@pytest.fixture
def poisoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Poisoned]:
    monkeypatch.setattr(train, "Trainer", Poisoned)
    monkeypatch.setattr(Poisoned, "after", False)
    monkeypatch.setattr(Poisoned, "at", 4)
    return Poisoned


@pytest.mark.parametrize("detect", [False, True], ids=["", "detect-anomaly"])
def test_a_loss_that_is_nan_stops_at_that_step(
    detect: bool, tmp_path: Path, poisoned: type[Poisoned], capsys: pytest.CaptureFixture[str]
) -> None:
    """Row 34: exit 3, what happened in diverged.json, the last checkpoint untouched; the layer by --detect-anomaly."""
    run = tmp_path / "run"
    assert main(["train", *arguments(TINY, run=run, momentum=0.5, detect_anomaly=detect)]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "in step 4 on train-00000" in error and "the last checkpoint is intact" in error
    facts = json.loads((run / "diverged.json").read_text(encoding="utf-8"))
    order = rng(0, loader.ORDER, 0, 1).permutation(6)
    assert facts["step"] == 4 and facts["ids"] == [f"train-{i:06d}" for i in order[:2]]
    assert facts["lr"] == pytest.approx(0.02 * 0.5**0.9)  # the rate of this step, not of the one before
    if detect:
        assert "trunk.block3.conv3_1 is the first layer with an output that is not finite" in error
        assert facts["max_gradient"] == {}
    else:
        assert "the loss is nan" in error and "the largest gradient (nan) at " in error and "--detect-anomaly" in error
        assert facts["max_gradient"].keys() == dict(open_trained(run).net.named_parameters()).keys()
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == ["best.safetensors", "step-00000000.safetensors", "step-00000003.safetensors"]
    assert not not_finite(load_latest(run).tensors)  # type: ignore[union-attr]
    assert [line["step"] for line in log(run)] == [3, 3]


def test_parameters_that_are_nan_are_never_saved(
    tmp_path: Path, poisoned: type[Poisoned], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Row 34: an update may overflow after a loss that was finite, in the very step after which the run is saved."""
    monkeypatch.setattr(poisoned, "after", True)
    monkeypatch.setattr(poisoned, "at", 6)
    run = tmp_path / "run"
    assert main(["train", *arguments(TINY, run=run)]) == 3
    assert "1 arrays of the net, net.trunk.block3.conv3_1.w first, are no longer finite in step 6" in (
        capsys.readouterr().err
    )
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == ["best.safetensors", "step-00000000.safetensors", "step-00000003.safetensors"]


def test_a_rate_that_is_far_too_high_ends_the_same_way_and_without_a_warning(tmp_path: Path) -> None:
    """Row 34, as it happens to people; in a process of its own, where NumPy would print its warnings."""
    process = Process(tmp_path, *arguments(TINY, run="run", lr=1e6, epochs=50, measure_every=50))
    code, _, error = process.end()
    assert code == 3 and error.count("\n") == 1
    assert re.match(r"minifcn: (the loss is (nan|inf)|\d+ arrays of the net).* in step \d+", error)
    assert "start again with a learning rate below" in error
    assert load_latest(tmp_path / "run").meta["progress"]["step"] == 0  # type: ignore[union-attr]


def test_watching_a_net_leaves_it_as_it_was() -> None:
    net = setup.network(Options(width=1, layers=11), 3, 8)
    x = Tensor(np.ones((1, 3, 32, 32), np.float32))
    before = {name: sorted(vars(module)) for name, module in enumerate(net.modules())}
    plain = net(x).data
    with watching(net):
        assert net(x).data.tobytes() == plain.tobytes()
    net.score_pool4.w.data[0, 0] = np.inf
    net.trunk.block4.conv4_1.b.data[:] = 1
    with (
        np.errstate(all="ignore"),
        pytest.raises(DivergedError, match=r"^score_pool4 is the first layer"),
        watching(net),
    ):
        net(x)
    assert {name: sorted(vars(module)) for name, module in enumerate(net.modules())} == before


@pytest.mark.usefixtures("quick", "fake_gpu")
@pytest.mark.parametrize("detect", slow_but([False], [False, True], "trains twice"), ids=["", "detect-anomaly"])
def test_a_run_on_the_strict_device_is_the_same_run(
    detect: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All random numbers are the host's, and no array crosses over but by to_device and to_host.

    Without the strips that OpenBLAS likes on the host, which add in another order.
    """
    monkeypatch.setattr(products, "strip", lambda rows, b: b.shape[2])
    runs = []
    for device in ("cpu", "gpu"):
        o = Options(
            **TINY | {"stages": "16,8", "epochs": 1, "detect_anomaly": detect, "hardest": 0.5 if detect else 1.0}
        )
        with RunFolder(tmp_path / device) as folder:
            one = Trainer(o, folder, *setup.data_sets(o), device=device, say=lambda line: None)
            one.run()
        runs.append((state(tmp_path / device)[0], log(tmp_path / device), evaluation(tmp_path / device)))
    assert runs[0] == runs[1]
    one.net.trunk.block1.conv1_1.b.data[:] = np.inf
    said = "block1.conv1_1 is the first" if detect else r"nan in step 7 .*, the largest gradient \(nan\) at "
    with unheard(), pytest.raises(DivergedError, match=said):
        one._one_step()


@pytest.mark.usefixtures("quick")
def test_a_step_on_a_gpu_waits_for_its_losses_alone(
    fake_gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each when its backward pass has been queued; pictures, masks and labels cross over as bytes."""
    o, queued, fetched, crossed = Options(**TINY | {"accumulate": 2}), list[Any](), list[Any](), list[Any]()
    with RunFolder(tmp_path / "run") as folder:
        one = Trainer(o, folder, *setup.data_sets(o), device="gpu", say=lambda line: None)
    kind, asarray, backward = fake_gpu.ndarray, fake_gpu.asarray, Tensor.backward
    gradients = lambda: sum(parameter.grad is not None for parameter in one.net.parameters())  # noqa: E731
    item = lambda x: fetched.append(("item", len(queued), gradients())) or x._host.item()  # noqa: E731
    monkeypatch.setattr(kind, "item", item)
    monkeypatch.setattr(kind, "get", lambda x: fetched.append(("get", x.shape)) or x._host.copy())
    monkeypatch.setattr(kind, "tolist", lambda x: fetched.append(("tolist", x.shape)) or x._host.tolist())
    monkeypatch.setattr(Tensor, "backward", lambda loss: backward(loss) or queued.append(loss.shape))
    monkeypatch.setattr(fake_gpu, "asarray", lambda x: crossed.append(x) or asarray(x), raising=False)
    one._one_step()
    every = len(list(one.net.parameters()))
    assert fetched == [("item", 1, every), ("item", 2, every)]
    sent = [x for x in crossed if isinstance(x, np.ndarray) and x.size > 3 and x.ndim > 2 and len(x) == o.batch]
    assert len(sent) == 4 and {x.dtype for x in sent} == {np.dtype(np.uint8)}


# ------------------------------------------------------------------------------------------------------- seeds (row 38)


@pytest.mark.slow("trains three runs")
@pytest.mark.usefixtures("quick")
def test_a_seed_is_a_run(tmp_path: Path) -> None:
    """Row 38: the same seed twice is the same bits; another is another."""
    runs = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert main(["train", *arguments(FULL, epochs=1, seed=seed, run=tmp_path / name)]) == 0
        runs.append((state(tmp_path / name)[0], log(tmp_path / name)))
    assert runs[0] == runs[1]
    assert all(runs[0][0][name] != runs[2][0][name] for name in runs[0][0] if name.endswith(".w"))


@pytest.mark.slow("trains twice, in processes of their own")
def test_a_run_does_not_depend_on_how_python_hashes(tmp_path: Path) -> None:
    """Row 38: PYTHONHASHSEED."""
    program = (
        "import hashlib, sys\nfrom minifcn import train\nfrom minifcn.training import results\n"
        "results.write_report = lambda folder: folder\n"
        "assert train.main(sys.argv[2:]) == 0\n"
    )
    digests = set()
    for seed in ("0", "12345"):
        environ = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", program, seed, *arguments(TINY, run=tmp_path / seed, epochs=1)]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        digests.add(
            json.dumps([{name: each.hex() for name, each in state(tmp_path / seed)[0].items()}, log(tmp_path / seed)])
        )
    assert len(digests) == 1


@pytest.mark.usefixtures("quick")
def test_a_run_does_not_depend_on_the_order_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 38: a folder lists its files in whatever order they came into it."""
    from minifcn.data.tools.make import make_tree

    tree = make_tree(tmp_path / "tree", counts={"train": 4, "val": 2}, size=64)
    states, listdir = [], os.listdir
    for name in ("forward", "backward"):
        assert main(["train", *arguments(TINY, data=tree, epochs=1, run=tmp_path / name)]) == 0
        states.append(state(tmp_path / name)[0])
        monkeypatch.setattr(os, "listdir", lambda *args: sorted(listdir(*args), reverse=True))
    assert states[0] == states[1]


# ------------------------------------------------------------------------------------------------------ what it reports


def test_the_loss_starts_at_ln_c_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *arguments(TINY, run=tmp_path / "run", stop_after=1)]) == 0
    assert "loss per pixel at the start 2.0794; ln 8 = 2.0794, as scores of zero must give" in capsys.readouterr().out
    # weighted, it depends on the classes that the first pictures show
    assert main(["train", *arguments(TINY, run=tmp_path / "weighed", stop_after=1, class_balance=0.5)]) == 0
    assert "loss per pixel at the start" not in capsys.readouterr().out
    assert first_loss(1.0, 8).endswith("ln 8 = 2.0794, which only scores of zero would give")


@pytest.mark.parametrize(("before", "now"), [("sum", "none"), ("batch", "batch_size"), ("valid", "valid")])
def test_an_older_file_calls_the_divisors_otherwise(before: str, now: str) -> None:
    assert from_dict({"normalize": before}, source="config.json").normalize == now


@pytest.mark.parametrize("normalize", ["none", "valid", "batch_size"])
def test_the_loss_that_is_shown_is_per_pixel_whatever_it_is_divided_by(normalize: str, tmp_path: Path) -> None:
    one = trainer(tmp_path / "run", normalize=normalize, lr=0.0, epochs=1, batch=4)
    with one.folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "write_report", lambda folder: folder)
        one.run()
    assert log(tmp_path / "run")[0]["loss"] == pytest.approx(math.log(8), rel=1e-5)


CLASSES = ("background", "cat", "dog")


def matrix(rows: list[list[int]]) -> ConfusionMatrix:
    return ConfusionMatrix.of(rows)


GOOD = [[50, 5, 5], [5, 20, 0], [5, 0, 10]]
ONE = [[800, 0, 0], [100, 0, 0], [100, 0, 0]]


@pytest.mark.parametrize(
    ("loss", "rows", "lr", "trunk", "expected"),
    [
        (1.0, GOOD, 0.1, False, []),
        (1.0, GOOD, 0.0, True, []),
        (1.0986, GOOD, 0.1, False, [r"stays at ln 3 = 1.0986.*learning rate \(0.1\) is too low, or the labels"]),
        (1.0950, GOOD, 0.0, False, [r"stays at ln 3.*the learning rate is 0$"]),
        (1.0986, GOOD, 0.1, True, [r"stays at ln 3.*all weights of the trunk are zero"]),
        (0.5, ONE, 0.1, False, [r"100.0 % of the pixels are called background \(80.0 % are\): train longer"]),
        (1.0986, ONE, 0.1, False, ["stays at ln 3", "100.0 % of the pixels"]),
        (0.5, [[995, 0, 0], [5, 0, 0], [0, 0, 0]], 0.1, False, []),  # nearly all of them are
        (0.5, [[0, 0, 0], [0, 0, 0], [0, 0, 0]], 0.1, False, []),
    ],
)
def test_what_is_suspicious_is_said_with_its_cause(
    loss: float, rows: list[list[int]], lr: float, trunk: bool, expected: list[str]
) -> None:
    said = list(warnings_about(loss, matrix(rows), CLASSES, lr=lr, trunk=trunk))
    assert len(said) == len(expected)
    for line, pattern in zip(said, expected, strict=True):
        assert re.search(pattern, line), line


def test_one_step_is_too_few_to_say_that_the_loss_stays() -> None:
    first = {"steps": 1, "lr": 0.1, "trunk": False}
    assert list(warnings_about(1.0986, matrix(GOOD), CLASSES, **first)) == []
    for cause in ({"lr": 0.0}, {"trunk": True}):  # of these, one step is enough
        assert len(list(warnings_about(1.0986, matrix(GOOD), CLASSES, **{**first, **cause}))) == 1
    assert len(list(warnings_about(1.0986, matrix(GOOD), CLASSES, **{**first, "steps": 2}))) == 1


def test_nothing_is_learned_with_one_class_and_nobody_is_warned() -> None:
    assert list(warnings_about(0.0, matrix([[5]]), ("all",), lr=0.1, trunk=False)) == []


@pytest.mark.usefixtures("quick")
def test_a_run_that_learns_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *arguments(TINY, lr=1e-9, run=tmp_path / "low")]) == 0
    said = capsys.readouterr().out
    assert (
        said.count("warning: the loss stays at ln 8 = 2.0794") == 2 and "% of the pixels are called background" in said
    )
    log = (tmp_path / "low" / "metrics.jsonl").read_text(encoding="utf-8")  # from which the report takes its warnings
    assert "a new run with --init RUN begins" in said and "--init RUN" in log and "init=RUN" not in said + log
    one = trainer(tmp_path / "zero")
    assert not one._trunk_is_zero()
    for parameter in one.net.trunk.parameters():
        parameter.data[:] = 0
    assert one._trunk_is_zero()
    one.folder.close()


# ---------------------------------------------------------------------------------------------------- the solver's rate


def one_step(folder: Path, data: Any, **options: Any) -> dict[str, np.ndarray]:
    """How a single step changes every parameter, from nets whose scores do not start at zero."""
    one = trainer(
        folder, data, **{"mirror": False, "dropout": 0.0, "weight_decay": 0.0, "epochs": 1, "momentum": 0.0} | options
    )
    rng = np.random.default_rng(0)
    for parameter in one.net.parameters():
        parameter.data = rng.normal(0, 0.2, parameter.shape).astype(np.float32)
    before = one.net.state_dict()
    with one.folder:
        one._one_step()
    after = one.net.state_dict()
    return {name: after[name] - before[name] for name in after}


def assert_same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert max(np.abs(change).max() for change in ours.values()) > 1e-4
    for name in ours:
        assert np.allclose(ours[name], theirs[name], rtol=1e-3, atol=2e-6), name


@pytest.mark.parametrize("normalize", ["none", "batch_size"])
def test_what_a_learning_rate_means_is_what_it_does(normalize: str, tmp_path: Path) -> None:
    """The rate that the printed sentence gives for the loss per pixel makes the very same step with "valid"."""
    data = Relabelled(Shapes("train", count=3), whole)
    rate = 1e-6
    sentence = rate_meaning(Options(normalize=normalize, momentum=0.9), rate=rate, pixels=64 * 64, images=3)
    short, long = (float(number) for number in re.findall(r"like ([\d.e+-]+?)(?:,| in)", sentence))
    assert long == pytest.approx(10 * short, rel=1e-2)
    factor = {"none": 3 * 64 * 64, "batch_size": 64 * 64}[normalize]
    assert short == pytest.approx(rate * factor, rel=1e-2)
    ours = one_step(tmp_path / "a", data, normalize=normalize, lr=rate, batch=3)
    assert_same(ours, one_step(tmp_path / "b", data, normalize="valid", lr=rate * factor, batch=3))


def test_the_rate_of_an_average_is_itself() -> None:
    sentence = rate_meaning(Options(normalize="valid", momentum=0.5), rate=0.02, pixels=77, images=5)
    assert "acts like 0.02, and with momentum 0.5 like 0.04 in the long run" in sentence
    for optimizer, said in (("adam", "moves each weight by about that"), ("muon", "moves other weights by 0.003")):
        assert said in rate_meaning(Options(optimizer=optimizer), rate=0.02, pixels=77, images=5)


def test_accumulated_batches_are_one_large_batch(tmp_path: Path) -> None:
    data = Relabelled(Shapes("train", count=4), whole)
    ours = one_step(tmp_path / "a", data, batch=2, accumulate=2, lr=0.02)
    assert_same(ours, one_step(tmp_path / "b", data, batch=4, accumulate=1, lr=0.02))


@pytest.mark.usefixtures("quick")
def test_each_stage_learns_more_slowly(tmp_path: Path) -> None:
    one = trainer(tmp_path / "run", stages="32,16,8", schedule="fixed", lr=0.1, stage_lr="0.01", epochs=1)
    with one.folder:
        one.run()
    rates = [line["lr"] for line in log(tmp_path / "run") if line["kind"] == "train"]
    assert rates == pytest.approx([0.1, 0.001, 0.00001])


# ----------------------------------------------------------------------------------------------------------- the stages


def test_a_finer_net_starts_as_the_coarser_one_ended(tmp_path: Path) -> None:
    """Every parameter is taken over and the new scores are zero, so what is fused in changes nothing."""
    one = trainer(tmp_path / "run", stages="32,16,8", epochs=1, stage_lr="1", lr=0.05, width=2)
    one._begin_stage(None)
    rng = np.random.default_rng(1)
    one.net.score_fr.w.data = rng.normal(0, 1, one.net.score_fr.w.shape).astype(np.float32)
    x = one.preprocessing(Shapes("test", count=1)[0].image)[None]
    for stage, new in ((1, "score_pool4"), (2, "score_pool3")):
        coarser, before = one.net.state_dict(), predict(one.net, x)
        one._next_stage()
        finer = one.net.state_dict()
        assert one.progress.stage == stage and set(finer) - set(coarser) == {f"{new}.w", f"{new}.b"}
        assert all(finer[name].tobytes() == coarser[name].tobytes() for name in coarser)
        assert not finer[f"{new}.w"].any() and not finer[f"{new}.b"].any()
        assert (predict(one.net, x) == before).mean() > 0.9  # two bilinear steps are nearly one
        without = one.net(Tensor(x)).data
        getattr(one.net, new).b.data += 1.0
        assert np.allclose(one.net(Tensor(x)).data.argmax(axis=1), without.argmax(axis=1))
        getattr(one.net, new).b.data[:] = 0
    one.folder.close()


@pytest.mark.usefixtures("quick")
def test_the_best_checkpoint_holds_the_net_that_was_measured(tmp_path: Path) -> None:
    """At the end of a stage, too, where the next net takes its place."""
    one = trainer(tmp_path / "run", stages="16,8", epochs=2, width=2, lr=0.002, stage_lr="0", max_val=4)
    one.net.score_fr.w.data = np.random.default_rng(0).normal(0, 1, one.net.score_fr.w.shape).astype(np.float32)
    with one.folder:
        one.run()
    measured = [line for line in log(tmp_path / "run") if line["kind"] == "val"]
    best = max(measured, key=lambda line: line["mean_iu"])
    checkpoint = load_best(tmp_path / "run")
    assert checkpoint is not None and checkpoint.meta["progress"]["step"] == best["step"]
    run = open_trained(tmp_path / "run", best=True)
    matrix = evaluate(run.net, one.val_set, run.preprocessing)
    assert matrix.mean_iu() == pytest.approx(best["mean_iu"]) and len(measured) == 4
    assert [line["stage"] for line in measured] == [0, 0, 1, 1] and best["mean_iu"] > 0


@pytest.mark.usefixtures("quick")
def test_measuring_and_saving_have_their_own_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    save = RunFolder.save
    monkeypatch.setattr(
        RunFolder, "save", lambda self, step, *rest, **o: (saved.append(step), save(self, step, *rest, **o))
    )
    one = trainer(tmp_path / "run", epochs=5, measure_every=2, save_every=4)
    with one.folder:
        one.run()
    assert [line["step"] for line in log(tmp_path / "run") if line["kind"] == "val"] == [6, 12, 15]
    assert saved == [0, 4, 6, 8, 12, 15]


# -------------------------------------------------------------------------------------------------- overfit, the folder


@pytest.mark.slow("trains until an image is known by heart")
def test_one_image_is_learned_by_heart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", "--overfit", "1", "--threads", "1", "--run", str(run)]) == 0
    result = evaluation(run)
    assert result["pixel_accuracy"] >= 0.99 and result["images"] == 1 and result["split"] == "train"
    said = capsys.readouterr().out
    assert "images: 1 to learn from, 1 to measure on" in said and "this net              0.99" in said
    # the whole run folder, with its report
    for name in ("config.json", "metrics.jsonl", "curves.png", "confusion.png", "report.html"):
        assert (run / name).stat().st_size > 500 and (name in said or name.endswith("l") or name == "config.json")
    assert [path.name for path in (run / "samples").iterdir()] == ["000-train-000000.png"]
    assert "data:image/png" in (run / "report.html").read_text(encoding="utf-8")
    assert not list(run.rglob("*.tmp"))


@pytest.mark.usefixtures("quick")
def test_an_image_that_is_not_learned_is_said_with_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = arguments({"overfit": 2, "epochs": 2, "width": 1, "world_size": 64, "run": tmp_path / "run", "threads": 1})
    assert main(["train", *few]) == 1
    assert "on the images it saw: raise --epochs or --lr" in capsys.readouterr().out
    assert evaluation(tmp_path / "run")["images"] == 2


# --------------------------------------------------------------------------------------------------------- the terminal


def test_the_bar_is_drawn_on_a_terminal_and_lines_elsewhere(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "minifcn.train", *arguments(TINY, run="run", epochs=8, stop_after=20)]
    environ = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TQDM_MININTERVAL": "0"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs, text=True
    )
    os.close(theirs)
    drawn = b""
    while select.select([ours], [], [], 30)[0]:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # how a terminal says that no process writes to it any more
            break
        if not piece:
            break
        drawn += piece
    os.close(ours)
    out, _ = process.communicate(timeout=30)
    text = drawn.decode("utf-8", "replace")
    assert process.returncode == 0
    assert re.search(r"20/24 .*loss \d\.\d+, \d+ images/s", text), text[-500:]
    assert "\nstep " not in out and "\nepoch 6/8" in out  # what the bar shows is not said twice
