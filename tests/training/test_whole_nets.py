"""torchvision's FCN as a run: both heads learn, batch normalisation is learned or kept, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minifcn.cli.verbs import main
from minifcn.errors import ShapeError, UsageError
from minifcn.kernels.threads import set_threads
from minifcn.models.resnet import FCN_ResNet
from minifcn.nn import BatchNorm2d
from minifcn.training import results, setup
from minifcn.training.loop import Trainer
from minifcn.training.options import Options
from minifcn.training.ranks import Alone
from minifcn.training.recipes import doubts
from minifcn.training.run_folder import RunFolder, load_latest
from minifcn.training.trained import open_trained

SMALL: dict[str, Any] = {
    "trunk": "fcn_resnet50",
    "width": 1,
    "max_train": 4,
    "max_val": 2,
    "batch": 2,
    "epochs": 2,
    "lr": 0.01,
    "samples": 0,
    "threads": 1,
}


@pytest.fixture(autouse=True)
def _quick_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(results, "write_report", lambda folder, **_: folder / "report.html")
    yield
    set_threads(None)


def words(**changes: Any) -> list[str]:
    return [w for name, value in {**SMALL, **changes}.items() for w in (f"--{name.replace('_', '-')}", str(value))]


def trainer(folder: Path, *, ranks: Alone | None = None, say: Any = lambda line: None, **changes: Any) -> Trainer:
    o = Options(**{**SMALL, **changes})
    return Trainer(o, RunFolder(folder), *setup.data_sets(o), say=say, **({"ranks": ranks} if ranks else {}))


def arrays(net: Any) -> dict[str, np.ndarray]:
    return dict(net.state_dict())


def test_it_trains_stops_goes_on_bit_for_bit_and_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *words(), "--run", "straight"]) == 0
    said = capsys.readouterr().out
    assert "fcn_resnet50, " in said and "FCN-8s" not in said
    assert main(["train", *words(), "--run", "stopped", "--stop-after", "3"]) == 0
    assert main(["train", "--resume", "stopped"]) == 0
    straight, stopped = load_latest(Path("straight")), load_latest(Path("stopped"))
    assert straight and stopped and straight.tensors.keys() == stopped.tensors.keys()
    for name, array in straight.tensors.items():
        assert np.array_equal(array, stopped.tensors[name]), name
    trained = open_trained("straight")
    assert isinstance(trained.net, FCN_ResNet) and trained.net.aux_classifier and trained.name == "fcn_resnet50"
    capsys.readouterr()
    assert main(["evaluate", "straight", "--threads", "1"]) == 0
    assert main(["train", *words(lr=0), "--init", "straight", "--run", "again"]) == 0
    assert "new: nothing" in capsys.readouterr().out
    Image.new("RGB", (64, 64)).save("x.png")
    assert main(["predict", "straight", "x.png", "--tile", "504"]) == 0
    capsys.readouterr()
    assert main(["predict", "straight", "x.png", "--explain", "1,1"]) == 2
    assert "straight holds fcn_resnet50, whose scores are no sum over the maps of a trunk" in capsys.readouterr().err


def test_both_heads_learn_and_the_loss_is_that_of_a_pixel_and_head(tmp_path: Path) -> None:
    said = list[str]()
    with (one := trainer(tmp_path / "run", say=said.append)).folder:
        net: Any = one.net
        for head in (net.classifier, net.aux_classifier):
            for parameter in head.sequence()["4"].parameters():
                parameter.data[:] = 0
        before = arrays(net)
        one.run()
    assert "loss per pixel at the start 2.0794; ln 8 = 2.0794, as scores of zero must give" in said
    after, kept = arrays(net), ("classifier.4.w", "aux_classifier.4.w", "classifier.1.mean", "trunk.block1.bn1.var")
    assert all(not np.array_equal(before[name], after[name]) for name in kept)


def test_a_net_without_the_second_head_trains_too(tmp_path: Path) -> None:
    with (one := trainer(tmp_path / "run", trunk="fcn_resnet50-main", epochs=1)).folder:
        assert isinstance(one.net, FCN_ResNet) and one.net.aux_classifier is None
        assert one.run()["pixel_accuracy"] >= 0


def test_a_frozen_trunk_stays_as_it_is_with_the_means_of_its_normalisation(tmp_path: Path) -> None:
    with (one := trainer(tmp_path / "run", freeze="trunk", epochs=1)).folder:
        before = arrays(one.net)
        one.run()
    for name, array in arrays(one.net).items():
        assert np.array_equal(array, before[name]) == name.startswith("trunk."), name


def test_a_frozen_normalisation_uses_its_own_mean_while_training(rng: np.random.Generator) -> None:
    norm, x = BatchNorm2d(3).train(), rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
    norm.freeze("w", "b")
    assert np.array_equal(norm(x).data, norm.eval()(x).data) and not norm.state_dict()["mean"].any()
    norm.train().freeze("w", "b", frozen=False)
    assert abs(norm(x).data.mean(axis=(0, 2, 3))).max() < 1e-6 and norm.state_dict()["mean"].any()
    with pytest.raises(ShapeError, match="batch_norm: expected a batch of images"):
        norm(x[0])


class Pair(Alone):
    """One of two processes that hear nothing of each other."""

    size = 2


def test_several_processes_are_refused_unless_its_normalisation_is_frozen(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"2 ranks share each batch, and the batch normalisation trunk\.block1\.bn1"):
        trainer(tmp_path / "run", ranks=Pair())
    frozen = {"freeze": "trunk,classifier.1,aux_classifier.1"}
    trainer(tmp_path / "other", ranks=Pair(), **frozen).folder.close()


@pytest.mark.parametrize(
    ("option", "value", "usual"),
    [
        ("padding", "safe", "same"),
        ("context", True, False),
        ("fusion", "max", "sum"),
        ("upsampling", "learned", "fixed"),
        ("at_once", True, False),
        ("enlarge", 2, 1),
        ("heads", "label+geometry", "label"),
        ("cache_features", "features", ""),
    ],
)
def test_what_a_whole_net_does_not_leave_to_choose(option: str, value: Any, usual: Any) -> None:
    line = f"option {option} is {value!r}, which fcn_resnet50 cannot have; expected {usual!r}"
    with pytest.raises(UsageError) as refusal:
        Options(**SMALL, **{option: value}, **({"freeze": "trunk"} if option == "cache_features" else {}))
    assert str(refusal.value).replace("\\", "") == line
    with pytest.raises(UsageError, match="for two nets on trunks"):
        Options(**SMALL, inputs="rgb+depth")
    with pytest.raises(UsageError, match="option stages is '16'; expected some of 8"):
        Options(**SMALL, stages="16")


def test_a_small_batch_is_warned_of() -> None:
    (warning,) = doubts(Options(**SMALL), [])
    assert warning.startswith("`batch=2`: fcn_resnet50 learns with the means of so few images")
    for changes in ({"batch": 4}, {"freeze": "trunk"}, {"trunk": "vgg11"}):
        assert not list(doubts(Options(**SMALL | changes), []))


def test_its_state_dict_is_torchvisions(torch: Any) -> None:
    from minifcn.weights.torch_state import torch_state

    net = setup.network(Options(**SMALL), 5, 8)
    state = torch_state(net)
    assert {"backbone.layer4.2.conv3.weight", "backbone.bn1.running_var", "aux_classifier.4.bias"} <= state.keys()


@pytest.mark.slow("a file of 35 million numbers is written, read, and learned from")
def test_it_begins_with_a_state_dict_of_torchvision(torch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from minifcn.weights.torch_state import torch_state

    start = setup.network(replace(Options(**SMALL), width=64), 21, 8)
    torch.save({name: torch.from_numpy(each) for name, each in torch_state(start).items()}, "a.pth")
    assert main(["train", *words(epochs=1, width=64), "--init", "a.pth", "--run", "run"]) == 0
    said = capsys.readouterr().out
    assert "weights of fcn_resnet50 from a.pth: 110 layers taken, conv1 to aux_classifier.1" in said
    assert "new: classifier.4, aux_classifier.4" in said
    assert main(["train", *words(), "--init", "a.pth", "--run", "thin"]) == 2
    assert "expected (1, 3, 7, 7); --width 64 is the published trunk's" in capsys.readouterr().err
