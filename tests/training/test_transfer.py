"""Transfer: what `--init` takes and refuses, the recipe step by step beside PyTorch, and what a choice is made by."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minifcn.cli.train import starting_point
from minifcn.cli.verbs import main
from minifcn.data.shapes import Shapes
from minifcn.errors import FormatError, UsageError
from minifcn.kernels.threads import set_threads
from minifcn.models.zoo import NETS
from minifcn.optim import learning_rate
from minifcn.training import recipes, setup
from minifcn.training.loop import Trainer
from minifcn.training.options import Options
from minifcn.training.recipes import preset
from minifcn.training.run_folder import RunFolder, load_latest
from minifcn.training.setup import located
from minifcn.training.trained import open_trained
from minifcn.training.transfer import begin, starting_weights
from minifcn.weights import published
from minifcn.weights.published import BGR, WeightSet

SMALL: dict[str, Any] = {
    "data": "world",
    "max_train": 8,
    "max_val": 2,
    "batch": 2,
    "epochs": 2,
    "crop": 64,
    "samples": 0,
    "threads": 1,
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    yield
    set_threads(None)


@pytest.fixture(scope="module")
def imagenet() -> WeightSet:
    return starting_weights("imagenet")[0]


def words(options: dict[str, Any]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]


# --------------------------------------------------------------------------------------------------------------- --init


@pytest.mark.parametrize("parts", [(".w",), (".w", ".b")])
def test_weights_of_a_single_layer_are_taken_and_counted(parts: tuple[str, ...], imagenet: WeightSet) -> None:
    net = setup.network(preset("transfer-squeezenet"), 21, 8)
    first = {name: array for name, array in imagenet.arrays.items() if name.endswith(tuple(f"conv1{p}" for p in parts))}
    assert "squeezenet1_0_imagenet.npz: 1 layer taken, conv1;" in begin(net, replace(imagenet, arrays=first))


def test_the_trunk_takes_its_layers_and_the_rest_is_new(imagenet: WeightSet) -> None:
    net = setup.network(preset("transfer-squeezenet"), 21, 8)
    said = begin(net, imagenet)
    assert said.startswith("weights of squeezenet1_0 from squeezenet1_0_imagenet.npz: 25 layers taken, conv1 to fire9.")
    assert said.endswith("; left there: conv10; new: context, score_fr, score_pool4")
    for name, parameter in net.named_parameters():
        if name in imagenet.arrays:
            assert np.array_equal(parameter.data, imagenet.arrays[name]), name
        else:
            assert name == "trunk.context.scale" or not parameter.data.any()
    assert imagenet.preprocessing == BGR


def test_weights_that_end_early_leave_the_rest_as_it_is(imagenet: WeightSet) -> None:
    short = {name: array for name, array in imagenet.arrays.items() if ".block1." in name or ".block4." in name}
    assert short
    short |= {name: array for name, array in imagenet.arrays.items() if "fire5" in name}
    before = setup.network(preset("transfer-scratch"), 21, 8)
    net = setup.network(preset("transfer-scratch"), 21, 8)
    said = begin(net, replace(imagenet, arrays=short))
    taken, left = said.split("new: ")
    assert "conv1 to fire5.expand3x3" in taken and left.startswith("fire6.squeeze1x1, ") and "fire9.expand1x1" in left
    for (name, ours), (_, fresh) in zip(net.named_parameters(), before.named_parameters(), strict=True):
        assert np.array_equal(ours.data, short.get(name, fresh.data)), name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda name, array: None if "fire3.expand.expand1x1.w" in name else (name, array), "fire3.expand1x1 is miss"),
        (lambda name, array: None if "conv1." in name else (name, array), "conv1 is missing"),
        (
            lambda name, array: (name, array[:, :-1]) if "fire4.squeeze1x1.w" in name else (name, array),
            r"fire4.squeeze1x1 has shape \(32, 127, 1, 1\); expected \(32, 128, 1, 1\)",
        ),
        (lambda name, array: (name.replace("block9.fire9", "block9.fire10"), array), "fire10.squeeze1x1 is no layer"),
    ],
    ids=["a gap", "no beginning", "another shape", "another layer"],
)  # fmt: skip
def test_weights_of_another_net_are_refused_with_the_first_layer_that_differs(
    change: Any, said: str, imagenet: WeightSet
) -> None:
    changed = dict(filter(None, (change(name, array) for name, array in imagenet.arrays.items())))
    net = setup.network(preset("transfer-scratch"), 21, 8)
    before = net.state_dict()
    with pytest.raises(FormatError, match=f"holds squeezenet1_0, which is not this net's trunk: {said}"):
        begin(net, replace(imagenet, arrays=changed))
    assert all(np.array_equal(array, before[name]) for name, array in net.state_dict().items())


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("--init nowhere.npz", "nowhere.npz: found no file"),
        ("--trunk squeezenet1.1", "conv1 has shape (96, 3, 7, 7); expected (64, 3, 3, 3)"),
        ("--width 8", "conv1 has shape (96, 3, 7, 7); expected (48, 3, 7, 7)"),
        ("--trunk vgg --stages 8 --padding same --freeze conv1_1", "conv1_1 is missing"),
        ("--trunk vgg --stages 6", "option stages is '6'; expected some of 32,16,8,4,2, from coarse to fine"),
        ("--stages 32", "option stages is '32'; expected some of 16,8,4, from coarse to fine"),
        ("--padding same", 'option padding is "same", which squeezenet1.0 cannot have; expected "safe" or a number'),
        ("--freeze block1,block5", "freeze: no parameter lies in 'block5'; names here are b, block1, block4, block8, "),
        ("--hold-out 8", "option hold_out is 8; expected fewer than the 8 training images"),
    ],
)
def test_what_the_command_refuses_in_one_line(
    argv: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main(["train", "--recipe", "transfer-squeezenet", *words(SMALL), "--run", str(folder), *argv.split()]) == 2
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1 and not folder.exists()


def test_the_recipe_says_what_it_lacks_where_there_is_no_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MINIFCN_DATA", raising=False)
    with pytest.raises(UsageError, match=r"^\$MINIFCN_DATA/a/b: the environment .* is not set; .* that holds a/b, or"):
        located("$MINIFCN_DATA/a/b")
    assert main(["train", "--recipe", "transfer-squeezenet", "--run", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "MINIFCN_DATA is not set; set it to the folder that holds voc2012_animals" in said
    monkeypatch.setenv("MINIFCN_DATA", str(tmp_path))
    assert located("$MINIFCN_DATA/a/b") == f"{tmp_path}/a/b" and located("a/$MINIFCN_DATA") == "a/$MINIFCN_DATA"
    assert main(["train", "--recipe", "transfer-squeezenet", "--run", str(tmp_path / "run")]) == 2
    assert f"{tmp_path}/voc2012_animals: no such folder" in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
def test_the_weights_bring_their_preprocessing_into_the_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    small = SMALL | {"epochs": 1, "max_train": 2}
    assert (
        main(["train", "--recipe", "transfer-squeezenet", *words(small), "--run", str(folder), "--stop-after", "1"])
        == 0
    )
    assert "25 layers taken" in capsys.readouterr().out
    assert open_trained(folder).preprocessing == BGR


@pytest.mark.parametrize(
    ("installed", "argv", "said", "trunk"),
    [
        (True, "", "transfer-lite0, efficientnet-lite0, whose weights are installed", "efficientnet-lite0"),
        (False, "", "transfer-squeezenet, squeezenet1.0; efficientnet-lite0 learns more, with", "squeezenet1.0"),
        (True, "--trunk squeezenet1.0", "transfer-squeezenet, as it is named", "squeezenet1.0"),
        (True, "--init imagenet", "transfer-squeezenet, as it is named", "squeezenet1.0"),
        (False, "--init lite0", "transfer-lite0, as it is named", "efficientnet-lite0"),
        (False, "--trunk efficientnet-lite0", "transfer-lite0, as it is named", "efficientnet-lite0"),
    ],
)
def test_the_recipe_takes_the_better_trunk_that_is_installed_and_says_so(
    installed: bool,
    argv: str,
    said: str,
    trunk: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(recipes, "lite0_installed", lambda: installed)
    given = dict(zip((word.removeprefix("--") for word in argv.split()[::2]), argv.split()[1::2], strict=True))
    assert starting_point({"recipe": "transfer"} | given).trunk == trunk
    assert capsys.readouterr().out.startswith(f"recipe transfer: {said}")
    assert preset("transfer").trunk == ("efficientnet-lite0" if installed else "squeezenet1.0")


def test_weights_that_are_not_installed_are_named_with_their_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(published, "LITE0_PACKAGE", "no_such_package")
    argv = ["train", "--recipe", "transfer", "--trunk", "efficientnet-lite0", *words(SMALL), "--crop", "0"]
    assert main([*argv, "--run", str(tmp_path / "run")]) == 2
    assert "EfficientNet-Lite0 are not installed; pip install 'minifcn[lite0]'" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ the recipe, and torch


def torch_fcn(torch: Any, net: Any) -> tuple[dict[str, Any], Any]:
    """The same ladder in PyTorch's words: parameters by our names, and the function of an image that uses them."""
    F = torch.nn.functional
    p = {name: torch.nn.Parameter(torch.tensor(array)) for name, array in net.state_dict().items()}

    def conv(x: Any, name: str, **window: int) -> Any:
        return F.conv2d(x, p[f"{name}.w"], p[f"{name}.b"], **window)

    def up(x: Any, rung: Any) -> Any:
        line = 1 - abs(np.arange(rung.layer.kernel) - (rung.layer.kernel - 1) / 2) / ((rung.layer.kernel + 1) // 2)
        kernel = torch.tensor(np.outer(line, line).astype(np.float32)).expand(x.shape[1], 1, -1, -1)
        return F.conv_transpose2d(x, kernel, stride=rung.layer.stride, groups=x.shape[1])

    def forward(image: Any) -> Any:
        outputs, x = {}, image
        for output, stage in net.trunk.stages.items():
            if stage == "context":
                everywhere = F.normalize(x.mean((2, 3), keepdim=True), dim=1)
                x = torch.cat([F.normalize(x, dim=1), everywhere.expand_as(x)], 1) * p["trunk.context.scale"]
                outputs[output] = x
                break
            for name, module in getattr(net.trunk, stage).sequence().items():
                full = f"trunk.{stage}.{name}"
                if name == "conv1":
                    x = conv(x, full, stride=2, padding=module.layer.padding).relu()
                elif name == "pool":
                    x = F.max_pool2d(x, 3, 2, ceil_mode=True)
                elif name.startswith("fire"):
                    x = conv(x, f"{full}.squeeze1x1").relu()
                    one = conv(x, f"{full}.expand.expand1x1")
                    x = torch.cat([one, conv(x, f"{full}.expand.expand3x3", padding=1)], 1).relu()
            outputs[output] = x
        score = conv(x, "score_fr")
        for rung in net.ladder.rungs:
            score = up(score, rung)
            beside = conv(outputs[rung.skip] * net.skip_scale[rung.skip], f"score_{rung.skip}") if rung.skip else image
            h, w = (min(a, b) for a, b in zip(score.shape[2:], beside.shape[2:], strict=True))
            assert rung.at == 0 or not rung.skip  # so which of the two is cut can be read off their sizes
            score = score[:, :, rung.at : rung.at + h, rung.at : rung.at + w]
            score = score + beside[:, :, :h, :w] if rung.skip else score
        return score

    return p, forward


@pytest.mark.parametrize("stride", [16, 8, 4])
def test_the_recipe_takes_the_steps_that_pytorch_takes(
    stride: int, torch: Any, imagenet: WeightSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real weights, the recipe's own batches and rates: five losses equal to 1e-4, and they fall."""
    o = replace(
        preset("transfer-squeezenet"), **(SMALL | {"stages": str(stride), "epochs": 5, "crop": 96, "world_size": 96})
    )
    world, fed = Shapes("train", count=4, size=96), []
    with RunFolder(tmp_path / "run") as folder:
        trainer = Trainer(o, folder, world, world, preprocessing=imagenet.preprocessing, say=lambda line: None)
        begin(trainer.net, imagenet)
        p, forward = torch_fcn(torch, trainer.net)
        groups = []
        for name, parameter in p.items():
            if name.startswith(("trunk.block1.", "trunk.block4.")):  # the recipe freezes them
                parameter.requires_grad_(False)
                continue
            rate = (o.trunk_lr if name.startswith("trunk.") else 1) * (2 if name.endswith(".b") else 1)
            decay = 0 if name.endswith(".b") else o.weight_decay
            groups.append({"params": [parameter], "weight_decay": decay, "factor": rate})
        oracle = torch.optim.AdamW(groups, lr=o.lr, betas=(o.momentum, 0.999), eps=1e-8)

        import minifcn.training.loader as loader

        collate = loader.collate_inputs
        monkeypatch.setattr(
            loader, "collate_inputs", lambda *args, **size: fed.append(collate(*args, **size)) or fed[-1]
        )
        ours, theirs = [], []
        for step in range(5):
            loss, pixels = trainer.progress.loss, trainer.progress.pixels
            trainer._one_step()
            ours.append((trainer.progress.loss - loss) / (trainer.progress.pixels - pixels))
            (x,), labels, _ = fed[-1]
            x, labels = torch.tensor(x), torch.tensor(labels)
            value = torch.nn.functional.cross_entropy(forward(x), labels, ignore_index=255)
            oracle.zero_grad()
            value.backward()
            for group in oracle.param_groups:
                group["lr"] = (
                    learning_rate(step, trainer.steps_per_stage, lr=o.lr, schedule=o.schedule) * group["factor"]
                )
            oracle.step()
            theirs.append(value.item())
    assert ours == pytest.approx(theirs, rel=1e-4) and ours[0] == pytest.approx(math.log(len(world.classes)), rel=1e-5)
    assert min(ours[1:]) < ours[0] - 0.2  # steps that change nothing would agree, too


# ------------------------------------------------------------------------------------------------------ its other parts


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_trunk_learns_at_its_own_rate(optimizer: str, tmp_path: Path) -> None:
    """Of two runs that differ in trunk_lr alone, the scores' first step is the same and the trunk's is scaled."""
    moved = []
    for rate in (0.0, 0.5, 1.0):
        o = replace(preset("transfer-scratch"), **SMALL, width=1, trunk_lr=rate, optimizer=optimizer, lr=0.1)
        with RunFolder(tmp_path / str(rate)) as folder:
            trainer = Trainer(o, folder, *setup.data_sets(o), say=lambda line: None)
            trainer.net.score_fr.w.data[:] = 0.01  # a score of zero sends no gradient into the trunk
            before = trainer.net.state_dict()
            trainer._one_step()
            moved.append({name: array - before[name] for name, array in trainer.net.state_dict().items()})
    for name, whole in moved[2].items():
        if not name.startswith("trunk."):
            assert all(np.array_equal(one[name], whole) for one in moved) and np.any(whole)
            continue
        assert not moved[0][name].any()
        np.testing.assert_allclose(2 * moved[1][name], whole, rtol=1e-3, atol=3e-6)
    assert any(abs(whole).max() > 1e-4 for name, whole in moved[2].items() if name.startswith("trunk."))


def test_what_is_frozen_does_not_move_and_the_rest_does(tmp_path: Path) -> None:
    o = replace(preset("transfer-scratch"), **(SMALL | {"width": 1, "freeze": "block1, fire9", "stages": "16,8"}))
    with RunFolder(tmp_path / "run") as folder:
        trainer = Trainer(o, folder, *setup.data_sets(o), say=lambda line: None)
        for skips in ((), ("pool4",)):  # in the first stage, and in the net made for the second
            assert trainer.net.skips == skips
            trainer.net.score_fr.w.data[:] = 0.01
            before = trainer.net.state_dict()
            trainer._one_step()
            moved = {
                name for name, array in trainer.net.state_dict().items() if not np.array_equal(array, before[name])
            }
            still = {name for name in before if ".block1." in name or ".fire9." in name}
            assert still and not still & moved and {"score_fr.w", "trunk.context.scale"} <= moved
            assert any(".block8." in name for name in moved)
            if not skips:
                trainer._next_stage()


@pytest.mark.slow("trains in three stages")
def test_stages_go_down_squeezenets_ladder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    options = SMALL | {"width": 1, "stages": "16,8,4", "epochs": 1, "max_train": 4}
    assert main(["train", "--recipe", "transfer-scratch", *words(options), "--run", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "stage 2: FCN-8s, from the net before" in said and "stage 3: FCN-4s, from the net before" in said
    net = open_trained(folder).net
    assert net.skips == ("pool4", "pool1") and NETS["squeezenet1.0"].strides == (16, 8, 4)
    assert net.skip_scale == {}
    scaled = setup.network(replace(preset("transfer-squeezenet"), stages="4"), 3, 4)
    assert scaled.skip_scale == {"pool4": 0.01, "pool1": 0.01}


def test_what_is_held_out_is_not_learned_and_is_the_same_in_every_run() -> None:
    one, other = (setup.data_sets(Options(max_train=20, hold_out=5, seed=seed)) for seed in (0, 0))
    train, held = one
    assert len(train) == 15 and len(held) == 5 and not set(train.ids) & set(held.ids)
    whole = setup.data_sets(Options(max_train=20))[0]
    assert sorted(train.ids + held.ids) == sorted(whole.ids) and held.ids == other[1].ids
    assert held.ids != whole.ids[:5] and held.ids != whole.ids[-5:]


def test_a_run_that_holds_out_says_so(tmp_path: Path) -> None:
    o = replace(preset("transfer-scratch"), **(SMALL | {"width": 1, "hold_out": 3}))
    with RunFolder(tmp_path / "run") as folder:
        trainer = Trainer(o, folder, *setup.data_sets(o), say=lambda line: None)
        assert (len(trainer.train_set), len(trainer.val_set)) == (5, 3)
        assert trainer.split() == "train, 3 held out"


def test_the_checkpoint_holds_adams_moments(tmp_path: Path) -> None:
    options = SMALL | {"width": 1, "max_train": 4, "run": str(tmp_path / "run"), "stop_after": 1}
    assert main(["train", "--recipe", "transfer-scratch", *words(options)]) == 0
    checkpoint = load_latest(tmp_path / "run")
    assert checkpoint is not None
    parts = {name.split(".")[1] for name in checkpoint.tensors if name.startswith("momentum.")}
    assert parts == {"mean", "square", "steps"}
