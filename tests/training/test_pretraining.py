"""Pretraining: the same again, better than a guess, and a file that begins exactly the trunk it is of."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from some_slow import slow_but

from minifcn.cli.verbs import main
from minifcn.data.batches import Preprocessing
from minifcn.data.objects import Objects
from minifcn.errors import DivergedError, FormatError, UsageError
from minifcn.formats.checkpoint import load_checkpoint, read_meta, save_checkpoint
from minifcn.geometry import out_size
from minifcn.kernels.threads import set_threads
from minifcn.models.classifier import averaging
from minifcn.models.vgg import VGG
from minifcn.models.zoo import NETS, TRUNKS
from minifcn.nn import evaluating
from minifcn.training import pretraining, setup
from minifcn.training.options import Options
from minifcn.training.pretraining import Pretraining, batches, border, pretrain, stacked
from minifcn.training.step import accuracy
from minifcn.training.transfer import begin, starting_weights
from minifcn.weights.published import open_weights

RUNS = {"vgg": "vgg11"} | {name: name for name in ("alexnet", "googlenet", "squeezenet1.0", "squeezenet1.1")}
SHORT: dict[str, Any] = {"width": 1, "images": 14, "epochs": 1, "batch": 7, "threads": 1}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(pretraining, "MEASURED", 70)
    set_threads(1)
    yield
    set_threads(None)


def words(options: dict[str, Any]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]


# ------------------------------------------------------------------------------------------------------- the classifier


@pytest.mark.parametrize("trunk", RUNS)
@pytest.mark.parametrize("size", [64, 96])
def test_the_border_is_the_least_that_fills_a_cell(trunk: str, size: int) -> None:
    make, rng = TRUNKS[RUNS[trunk]], np.random.default_rng(0)
    padding = border(make, size)
    if trunk == "vgg":
        assert padding == "same"
        return
    own = make(width=1, init="zero", rng=rng).classic["padding"]
    made = make(width=1, padding=padding, init="zero", rng=rng)
    assert out_size(made.layers(), size) >= 1
    if padding > own:
        thin = make(width=1, padding=padding - 1, init="zero", rng=rng)
        with pytest.raises(Exception, match="window"):
            assert out_size(thin.layers(), size) >= 1, "window"


def test_the_mean_of_the_last_map_is_scored_as_an_fcn_scores_its_cells(rng: np.random.Generator) -> None:
    trunk = VGG(width=1, layers=11, padding="same", dropout=0.0, init=rng, rng=rng)
    net = averaging(trunk, classes=7, init=rng)
    x = rng.standard_normal((2, 3, 96, 64)).astype(np.float32)
    with evaluating(net):
        cells = trunk(x)["fc7"].data
        w, b = net.top.score.w.data, net.top.score.b.data
        scores = np.einsum("oi,nihw->nohw", w, cells) + b[:, None, None]
        np.testing.assert_allclose(net(x).data, scores.mean(axis=(2, 3)), rtol=1e-4, atol=1e-5)


def test_a_net_is_named_by_what_its_weights_fit() -> None:
    assert Pretraining(layers=13, width=4).net == "objects-vgg13-width4"
    assert Pretraining(trunk="squeezenet1.0", width=16).net == "objects-squeezenet1.0-width16"


# ---------------------------------------------------------------------------------------------------------- it learns


LEARNS = Pretraining(width=2, images=140, epochs=6, batch=10, optimizer="adam", lr=0.003, seed=1)


@pytest.fixture(scope="module")
def drawn() -> Any:
    """`stacked`, but nothing is drawn twice."""
    return functools.cache(lambda split, count, seed: stacked(Objects(split, count=count, seed=seed)))


@pytest.mark.slow("trains until it beats a guess")
def test_a_short_training_beats_a_guess_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: Any
) -> None:
    monkeypatch.setattr(pretraining, "stacked", lambda objects: drawn(objects.split, len(objects), objects.seed))
    said: list[str] = []
    record = pretrain(LEARNS, tmp_path / "a.safetensors", say=said.append)
    assert record["chance"] == pytest.approx(1 / 7)
    assert record["accuracy"] > 3 * record["chance"]
    epochs = [line for line in said if line.startswith("epoch ")]
    assert len(epochs) == 6 and f"accuracy {record['accuracy']:.3f}  chance 0.143" in epochs[-1]
    assert read_meta(tmp_path / "a.safetensors")["pretraining"] == record


@pytest.mark.slow("trains on labels that say nothing")
def test_what_has_no_relation_to_the_picture_is_not_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: Any
) -> None:
    """Were the measured pictures among the learned ones, or the answer in their order, this would be known, too."""

    def strewn(objects: Objects) -> tuple[np.ndarray, np.ndarray]:
        images, labels = drawn(objects.split, len(objects), objects.seed)
        return images, np.random.default_rng(len(labels)).permutation(labels)

    monkeypatch.setattr(pretraining, "stacked", strewn)
    record = pretrain(LEARNS, tmp_path / "a.safetensors", say=lambda _: None)
    assert record["accuracy"] < 2 * record["chance"]


def test_accuracy_counts_every_picture_once_whatever_the_batch() -> None:
    options = Pretraining(**SHORT)
    net, known = options.classifier(), stacked(Objects("val", count=10))
    preprocessing = Preprocessing.fit(Objects("val", count=10))
    with evaluating(net):
        said = net(np.stack([preprocessing(image) for image in known[0]])).data.argmax(axis=1)
    for batch in (1, 3, 10, 64):
        for labels, share in ((said, 1.0), ((said + (np.arange(10) < 4)) % 7, 0.6)):
            assert accuracy(net, batches(known[0], labels, preprocessing, batch=batch)) == share


@pytest.mark.slow("pretrains three times")
def test_the_same_again_bit_for_bit_and_another_seed_is_another_net(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.safetensors" for name in "abc"]
    for file, seed in zip(files, (3, 3, 4), strict=True):
        pretrain(Pretraining(**SHORT, seed=seed), file, say=lambda _: None)
    (first, _), (again, _), (other, _) = map(load_checkpoint, files)
    assert all(np.array_equal(array, again[name]) for name, array in first.items())
    assert not any(np.array_equal(array, other[name]) for name, array in first.items() if name.endswith(".w"))


def test_the_trunk_has_learned_when_it_is_written(tmp_path: Path) -> None:
    options = Pretraining(**SHORT)
    pretrain(options, tmp_path / "a.safetensors", say=lambda _: None)
    fresh, (trained, _) = options.classifier().state_dict(), load_checkpoint(tmp_path / "a.safetensors")
    assert set(trained) == {name for name in fresh if name.startswith("trunk.")}
    assert not any(np.array_equal(array, fresh[name]) for name, array in trained.items() if name.endswith(".w"))


# ----------------------------------------------------------------------------------------------- what becomes of a file


@pytest.mark.parametrize("trunk", slow_but(["squeezenet1.1"], RUNS, "trains each trunk for a moment"))
def test_it_begins_the_fcn_on_the_same_trunk(trunk: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    pretrain(Pretraining(**SHORT, trunk=trunk), path, say=lambda _: None)
    weights = open_weights(path)
    padding = "same" if trunk == "vgg" else "safe"
    stride = NETS[RUNS[trunk]].strides[0]
    net = setup.network(Options(trunk=trunk, width=1, padding=padding, stages=str(stride)), 8, stride)
    said = begin(net, weights)
    assert said.startswith(f"weights of {weights.net} from a.safetensors: ") and "left there: nothing" in said
    own = {name: parameter.data for name, parameter in net.named_parameters() if name.startswith("trunk.")}
    assert own.keys() == weights.arrays.keys()
    assert all(np.array_equal(array, weights.arrays[name]) for name, array in own.items())


@pytest.mark.slow("pretrains, then trains")
def test_train_takes_it_with_its_preprocessing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, run = str(tmp_path / "a.safetensors"), str(tmp_path / "run")
    assert main(["pretrain", path, *words(SHORT)]) == 0
    assert f"minifcn train --trunk vgg --layers 11 --width 1 --init {path}" in capsys.readouterr().out
    small = {"width": 1, "max_train": 2, "max_val": 1, "batch": 2, "epochs": 1, "samples": 0, "threads": 1}
    assert main(["train", "--init", path, "--run", run, *words(small)]) == 0
    assert "weights of objects-vgg11-width1 from a.safetensors: 10 layers taken" in capsys.readouterr().out
    [weights] = starting_weights(path)
    assert (
        read_meta(next(Path(run).glob("checkpoints/step*")))["net"]["preprocessing"] == weights.preprocessing.as_dict()
    )


def test_another_width_is_refused_by_the_first_layer_that_differs(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    pretrain(Pretraining(**SHORT), path, say=lambda _: None)
    with pytest.raises(FormatError, match=r"holds objects-vgg11-width1, which is not this net's trunk: conv1_1 has"):
        begin(setup.network(Options(width=2), 8, 8), open_weights(path))


def test_it_is_no_classifier_and_the_other_verbs_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.safetensors"
    pretrain(Pretraining(**SHORT), path, say=lambda _: None)
    assert main(["inspect", str(path)]) == 0
    assert "objects-vgg11-width1, the trunk up to fc7" in capsys.readouterr().out
    with pytest.raises(UsageError, match="up to fc7 and no classifier; they can start an FCN"):
        open_weights(path).network()


@pytest.mark.parametrize("net", ["objects-vgg11-width1", "objects-../../x-width1", "vgg11", "objects-vgg11"])
def test_a_name_alone_is_not_believed(net: str, tmp_path: Path) -> None:
    """A name that is not ours, or ours on what claims to be whole, would be looked up and not found."""
    path = tmp_path / "a.safetensors"
    meta = {"weights": {"net": net, "output": "" if net.endswith("vgg11-width1") else "fc7", "classes": []}}
    save_checkpoint(path, {"trunk.a.w": np.zeros(3, np.float32)}, meta | {"preprocessing": None})
    with pytest.raises(FormatError, match="expected a net known here"):
        open_weights(path)


# ---------------------------------------------------------------------------------------------------- no file by halves


@pytest.mark.parametrize("ends", [KeyboardInterrupt, MemoryError])
def test_whatever_ends_it_leaves_the_file_that_was_there(ends: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"an earlier one")

    def say(line: str) -> None:
        if line.startswith("epoch 1/"):
            raise ends

    with pytest.raises(ends):
        pretrain(Pretraining(**SHORT), path, say=say)
    assert path.read_bytes() == b"an earlier one" and list(tmp_path.iterdir()) == [path]


def test_a_rate_that_is_too_high_is_said_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"nothing is written; start again with a learning rate below 1e\+06"):
        pretrain(Pretraining(**{**SHORT, "epochs": 9}, lr=1e6), tmp_path / "a.safetensors", say=lambda _: None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("", "pretrain: found 'nothing'; expected: minifcn pretrain FILE.safetensors"),
        (
            "a.safetensors b.safetensors",
            "pretrain: found 'a.safetensors b.safetensors'; expected: minifcn pretrain FILE.safetensors",
        ),
        ("a.npz", "a.npz: expected a name that ends in .safetensors"),
        ("nowhere/a.safetensors", "nowhere/a.safetensors: found no folder nowhere; expected a place for a file"),
        (
            "a.safetensors --trunk lenet",
            "option trunk is 'lenet'; expected one of vgg, vgg11, vgg13, vgg16, vgg19, alexnet, googlenet, squeezenet",
        ),
        ("a.safetensors --layers 12", "option layers is 12; expected one of 11, 13, 16, 19"),
        ("a.safetensors --images 0", "option images is 0; expected a number from 1 to 100000"),
        ("a.safetensors --lr nan", "option lr is nan; expected a number from 0.0 to 1000000.0"),
        ("a.safetensors --size 63", "option size is 63; expected a number from 64 to 500"),
    ],
)
def test_what_the_command_refuses_in_one_line(
    argv: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", *argv.split()]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"minifcn: {line}") and printed.err.count("\n") == 1
    assert not list(tmp_path.iterdir())
