"""The frozen stages' cache: the same run as without it, computed once for each image, and what it refuses."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minifcn.cli.verbs import main
from minifcn.data.batches import Preprocessing
from minifcn.data.shapes import Shapes
from minifcn.errors import UsageError
from minifcn.formats.checkpoint import load_checkpoint, save_checkpoint
from minifcn.kernels.threads import set_threads
from minifcn.models.fcn import FCN
from minifcn.nn import evaluating
from minifcn.tensor import Tensor
from minifcn.training import features, setup
from minifcn.training.features import CachedFeatures
from minifcn.training.loop import Trainer
from minifcn.training.options import Options
from minifcn.training.run_folder import RunFolder, load_latest

SMALL: dict[str, Any] = {
    "trunk": "efficientnet-lite0",
    "padding": "safe",
    "width": 1,
    "freeze": "block1,block2,block3,block5",
    "max_train": 6,
    "max_val": 2,
    "batch": 4,
    "epochs": 3,
    "optimizer": "adam",
    "lr": 0.01,
    "samples": 0,
    "threads": 1,
}
CACHED = SMALL | {"cache_features": "features"}  # in the folder of the test
TABLE = [
    *(("crop", 64), ("translate", 3), ("rotate", 5.0), ("jitter", 0.1), ("scale_min", 0.5), ("inputs", "rgb+depth")),
]


@pytest.fixture(autouse=True)
def _one_thread_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    set_threads(None)


def trained(folder: Path, options: dict[str, Any]) -> Trainer:
    """Return a trainer whose run is at its end."""
    o = Options(**options)
    with RunFolder(folder) as run:
        trainer = Trainer(o, run, *setup.data_sets(o), say=lambda line: None)
        for head in trainer.net.heads:  # type: ignore[union-attr]
            getattr(trainer.net, f"score_fr{head}").w.data[:] = 0.01  # a zero sends no gradient into the trunk
        trainer.run()
    return trainer


def frozen_net(**options: Any) -> FCN:
    net: Any = setup.network(Options(**(SMALL | options)), 3, 8)
    net.freeze("block1", "block2", "block3", "block5")
    return net.eval()


def kept(cached: CachedFeatures) -> int:
    """Return how many images are kept."""
    return len(list(cached.folder.iterdir()))


def counted(net: FCN, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Return the shapes of the images that go through the first stage, from now on."""
    seen, forward = list[tuple[int, ...]](), net.trunk.block1.forward  # type: ignore[attr-defined]
    monkeypatch.setattr(net.trunk.block1, "forward", lambda x: seen.append(x.shape) or forward(x))  # type: ignore[attr-defined]
    return seen


# ------------------------------------------------------------------------------------------------------ the same scores


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param(
            {"freeze": "trunk", "enlarge": 2, "stages": "16,4"},
            marks=pytest.mark.slow("two nets, images twice as large"),
        ),
        pytest.param({"context": True, "ema": 0.9}, marks=pytest.mark.slow("trains twice")),
        pytest.param({"heads": "label+geometry"}, marks=pytest.mark.slow("trains twice")),
    ],
    ids=str,
)
def test_a_cached_run_learns_what_the_run_without_learns(options: dict[str, Any], tmp_path: Path) -> None:
    states = []
    for name, cached in (("plain", SMALL), ("cached", CACHED)):
        net = trained(tmp_path / name, cached | options).net
        states.append({key: array.astype(np.float64) for key, array in net.state_dict().items()})
    plain, cached = states
    learned = [key for key in plain if key.startswith("score")]
    assert learned and all(plain[key].any() for key in learned)
    for key, array in plain.items():
        np.testing.assert_allclose(cached[key], array, rtol=1e-3, atol=2e-5, err_msg=key)


def test_an_image_of_a_filled_up_batch_is_computed_alone_and_keeps_its_scores(rng: np.random.Generator) -> None:
    net = frozen_net(context=True)
    for parameter in net.parameters():
        parameter.data = parameter.data + rng.standard_normal(parameter.shape).astype(np.float32) * 0.1
    batch, sizes = np.zeros((2, 3, 64, 96), np.float32), [(64, 64), (40, 96)]
    for place, (height, width) in zip(batch, sizes, strict=True):
        place[:, :height, :width] = rng.standard_normal((3, height, width))
    cached = CachedFeatures(net, "features")
    with evaluating(net):
        scores = cached(Tensor(batch), sizes=sizes).data
        for i, (height, width) in enumerate(sizes):
            alone = cached(Tensor(batch[i : i + 1, :, :height, :width])).data
            whole = net(Tensor(batch[i : i + 1, :, :height, :width])).data
            np.testing.assert_allclose(alone, whole, rtol=1e-4, atol=1e-4)
            begun = cached._found(batch[i : i + 1, :, :height, :width])
            assert begun["stage5"].shape[1:] == (-(-height // 16), -(-width // 16))
    assert scores.shape == (2, 3, 64, 96) and kept(cached) == 2


# -------------------------------------------------------------------------------------------------------- and only once


def test_each_image_is_computed_once_and_once_mirrored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    o = Options(**CACHED | {"epochs": 12, "measure_every": 3})
    with RunFolder(tmp_path / "run") as run:
        trainer = Trainer(o, run, *setup.data_sets(o), say=lambda line: None)
        seen = counted(trainer.net, monkeypatch)  # type: ignore[arg-type]
        trainer.run()
    assert seen == [(1, 3, 64, 64)] * (2 * 6 + 2)  # and once for each image that is measured


def test_what_was_kept_is_forgotten_when_a_frozen_weight_changes(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = frozen_net()
    net.score_fr.w.data[:] = 1  # type: ignore[attr-defined]
    cached, image = CachedFeatures(net, "features"), Tensor(rng.standard_normal((1, 3, 64, 64)).astype(np.float32))
    seen = counted(net, monkeypatch)
    with evaluating(net):
        first = cached(image).data
        assert np.array_equal(cached(image).data, first) and len(seen) == 1
        net.load_state_dict(net.state_dict())  # other arrays with the same numbers
        assert np.array_equal(cached(image).data, first) and len(seen) == 1
        stem = net.trunk.block1.stem.w  # type: ignore[attr-defined]
        stem.data[:] *= 2
        stem.changed()
        second = cached(image).data
        assert len(seen) == 2 and kept(cached) == 2  # the first is of no use, and not in the way
    np.testing.assert_allclose(second, net(image).data, rtol=1e-4, atol=1e-5)
    assert not np.allclose(second, first)


def test_another_image_or_preprocessing_finds_nothing(rng: np.random.Generator) -> None:
    net = frozen_net()
    cached, image = CachedFeatures(net, "features"), rng.standard_normal((1, 3, 64, 48)).astype(np.float32)
    one_pixel = image.copy()
    one_pixel[0, 0, 0, 0] += 1e-3
    with evaluating(net):
        for each in (image, one_pixel, image * 2, image[..., ::-1], image.reshape(1, 3, 48, 64), image):
            cached(Tensor(np.ascontiguousarray(each)))
    assert kept(cached) == 5


def test_what_has_no_room_is_computed_every_time(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    net = frozen_net()
    one, images = CachedFeatures(net, "one"), rng.standard_normal((2, 3, 64, 64)).astype(np.float32)
    assert sum(array.nbytes for array in one._found(images[:1]).values()) == one.bytes_for((64, 64))
    (file,) = one.folder.iterdir()
    size = file.stat().st_size
    assert CachedFeatures(net, "one", limit=3 * size).room == 2 * size
    cached = CachedFeatures(net, "two", limit=2 * size - 1)
    seen = counted(net, monkeypatch)
    with evaluating(net):
        for _ in range(3):
            scores = cached(Tensor(images)).data
    assert len(seen) == 4 and kept(cached) == 1
    np.testing.assert_allclose(scores, net(Tensor(images)).data, rtol=1e-4, atol=1e-5)


def test_several_runs_together_stay_within_the_limit(rng: np.random.Generator) -> None:
    net, images = frozen_net(), rng.standard_normal((40, 1, 3, 64, 64)).astype(np.float32)
    first = CachedFeatures(net, "features")
    first._found(images[0])
    (file,) = first.folder.iterdir()
    size = file.stat().st_size
    runs = [CachedFeatures(net, "features", limit=17 * size) for _ in range(2)]
    for image in images:
        for each in runs:
            each._found(image + rng.standard_normal(1).astype(np.float32))
    assert 16 <= kept(first) <= 19  # each may add an eighth of its room before it looks again


def test_a_file_that_another_run_has_renamed_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("features").mkdir()
    monkeypatch.setattr(Path, "iterdir", lambda self: iter([self / "gone.tmp"]))
    assert CachedFeatures(frozen_net(), "features", limit=100).room == 100


def test_the_folder_may_be_in_the_home_folder_and_is_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert CachedFeatures(frozen_net(), "~/features").folder == tmp_path / "features"
    Path("file").write_text("")
    with pytest.raises(UsageError, match="file: found a file, expected a folder to keep features in"):
        CachedFeatures(frozen_net(), "file")


def test_a_folder_that_cannot_be_written_is_a_full_one(rng: np.random.Generator) -> None:
    Path("file").write_text("")
    cached = CachedFeatures(frozen_net(), "file/features")
    assert cached._found(rng.standard_normal((1, 3, 64, 64)).astype(np.float32))["stage5"].any() and cached.room == 0


@pytest.mark.parametrize("damage", ["cut", "of another shape", "a folder"])
def test_a_damaged_file_is_computed_again(damage: str, rng: np.random.Generator) -> None:
    cached, image = CachedFeatures(frozen_net(), "features"), rng.standard_normal((1, 3, 64, 64)).astype(np.float32)
    first = cached._found(image)
    (file,) = cached.folder.iterdir()
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "of another shape":
        save_checkpoint(file, {name: array[:, :1] for name, array in first.items()}, {})
    else:
        file.unlink()
        file.mkdir()
    again = cached._found(image)
    assert again.keys() == first.keys() and all(np.array_equal(again[name], first[name]) for name in first)
    assert damage == "a folder" or load_checkpoint(file)[0]["stage5"].shape == first["stage5"].shape


def test_two_runs_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(tmp_path / "one", CACHED | {"mirror": False})
    before = sorted(Path("features").iterdir())
    o = Options(**CACHED | {"mirror": False, "seed": 1, "lr": 0.1, "data": "world"})
    net: Any = setup.network(Options(**SMALL), len(Shapes("train", count=1).classes), 8)
    net.freeze(*o.frozen)
    seen = counted(net, monkeypatch)
    shared = CachedFeatures(net, "features")
    preprocessing = Preprocessing.fit(setup.data_sets(Options(**SMALL))[0])
    shared._found(preprocessing(setup.data_sets(Options(**SMALL))[0][3].image)[None])
    assert not seen and len(before) == 6 + 2 and sorted(Path("features").iterdir()) == before


def test_a_run_says_where_they_are_and_that_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, end in ((1 << 30, " MiB"), (1 << 10, "; what has no room there is computed in every step")):
        monkeypatch.setattr(features, "LIMIT", limit)
        o, said = Options(**CACHED | {"steps": 1}), list[str]()
        with RunFolder(tmp_path / str(limit)) as run:
            trainer = Trainer(o, run, *setup.data_sets(o), say=said.append)
            trainer._announce()
        assert said[1].startswith("block1 to block5: computed once for each image and kept in features; all take")
        assert said[1].endswith(end)


# -------------------------------------------------------------------------------------------------- resumed and refused


def test_a_cached_run_that_is_stopped_goes_on_bit_for_bit(tmp_path: Path) -> None:
    options = CACHED | {"epochs": 2}
    words = [w for name, value in options.items() for w in (f"--{name.replace('_', '-')}", str(value))]
    assert main(["train", *words, "--run", str(tmp_path / "straight")]) == 0
    assert main(["train", *words, "--run", str(tmp_path / "stopped"), "--stop-after", "3"]) == 0
    assert main(["train", "--resume", str(tmp_path / "stopped")]) == 0
    straight, stopped = (load_latest(tmp_path / name) for name in ("straight", "stopped"))
    assert straight and stopped and straight.meta["progress"] == stopped.meta["progress"]
    for name, array in straight.tensors.items():
        assert np.array_equal(array, stopped.tensors[name]), name


@pytest.mark.parametrize(("name", "value"), TABLE)
def test_what_changes_an_image_at_random_is_refused(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"option cache_features .*{name}"):
        Options(**CACHED | {name: value})
    assert not Options(**SMALL | {name: value}).cache_features
    assert Options(**CACHED | {"scale_min": 1.5, "scale_max": 1.5}).cache_features  # alike every time


@pytest.mark.parametrize("options", [{"freeze": ""}, {"freeze": "block2"}], ids=str)
def test_a_trunk_that_learns_from_its_first_stage_on_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    o = Options(**CACHED | options)
    with RunFolder(tmp_path / "run") as run, pytest.raises(UsageError, match="and block1 is not; expected `freeze=blo"):
        Trainer(o, run, *setup.data_sets(o), say=lambda line: None)


def test_a_frozen_stage_with_dropout_is_not_kept() -> None:
    net = frozen_net(dropout=0.5)
    net.freeze()
    assert CachedFeatures(net, "none").stages == ["block1", "block2", "block3", "block5"]
    assert CachedFeatures(frozen_net().freeze(), "none").stages[-1] == "block7"  # type: ignore[arg-type]


def test_images_of_unequal_size_learn_and_resume(tmp_path: Path) -> None:
    """Batches that are filled up, with the images' own sizes."""

    class Unequal(Shapes):
        def __getitem__(self, index: int) -> Any:
            sample = super().__getitem__(index)
            rows = slice(0, 64 - 8 * (index % 3))
            return replace(sample, image=sample.image[rows], label=sample.label[rows], geometry=None, depth=None)

    o = Options(**CACHED)
    with RunFolder(tmp_path / "run") as run:
        trainer = Trainer(o, run, Unequal("train", count=6), Shapes("val", count=2), say=lambda line: None)
        assert trainer.run()["pixel_accuracy"] > 0
    heights = {load_checkpoint(file)[0]["stage5"].shape[1] for file in Path("features").iterdir()}
    assert heights == {3, 4}
