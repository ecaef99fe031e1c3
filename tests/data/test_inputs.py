"""What a net is shown and how its loss counts: depth, two heads, hidden parts, samples; and a run as a start."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from some_slow import slow_but

from minifcn import ops
from minifcn.backend import to_host
from minifcn.cli.verbs import main
from minifcn.data import VOID, Augmentation, Preprocessing, Sample, Shapes
from minifcn.data.batches import CAFFE
from minifcn.data.inputs import HHA, INPUTS, LOG_DEPTH, Hidden, Inputs, collate_inputs, log_depth
from minifcn.errors import DataError, FormatError, ShapeError, UsageError
from minifcn.kernels.threads import set_threads
from minifcn.models.fcn import FCN
from minifcn.models.paper import LateFusion
from minifcn.sampling import class_weights, count
from minifcn.tensor import Tensor
from minifcn.training import setup
from minifcn.training.loop import Trainer
from minifcn.training.options import Options
from minifcn.training.run_folder import RunFolder
from minifcn.training.trained import open_trained
from minifcn.training.transfer import begin, start, starting_weights

TINY: dict[str, Any] = {
    "recipe": "toy", "max_train": 6, "max_val": 2, "batch": 2, "epochs": 1, "layers": 11, "width": 2, "samples": 0,
    "threads": 1, "stages": "32",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    set_threads(1)
    yield
    set_threads(None)


def sample(size: tuple[int, int] = (4, 5), seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    return Sample(
        f"s{seed}",
        rng.integers(0, 256, (*size, 3), np.uint8),
        rng.integers(0, 3, size).astype(np.uint8),
        rng.uniform(1, 9, size).astype(np.float32),
        rng.integers(0, 3, size).astype(np.uint8),
        rng.integers(0, 256, (*size, 3), np.uint8),
    )


def trainer(folder: Path, **changes: Any) -> Trainer:
    o = Options(**{**TINY, **changes})
    with RunFolder(folder) as run:
        return Trainer(o, run, *setup.data_sets(o), say=lambda line: None)


# ---------------------------------------------------------------------------------------------------------- the planes


def test_the_planes_of_every_input() -> None:
    one = sample()
    images = {name: Inputs(name, CAFFE)(one) for name in INPUTS}
    assert {name: [x.shape for x in planes] for name, planes in images.items()} == {
        "rgb": [(3, 4, 5)], "rgbd": [(4, 4, 5)], "depth": [(1, 4, 5)], "hha": [(3, 4, 5)],
        "rgb+depth": [(3, 4, 5), (1, 4, 5)], "rgb+hha": [(3, 4, 5), (3, 4, 5)],
    }  # fmt: skip
    assert all(x.dtype == np.float32 for planes in images.values() for x in planes)
    assert one.depth is not None and one.hha is not None
    depth = np.log(one.depth.astype(float) * 1000) - LOG_DEPTH
    np.testing.assert_allclose(images["depth"][0][0], depth, rtol=1e-5)
    np.testing.assert_array_equal(images["rgbd"][0][3], images["depth"][0][0])
    np.testing.assert_array_equal(images["rgbd"][0][:3], CAFFE(one.image))
    # with Caffe's scale, HHA is what the reference takes: in the order of its file, less its mean
    np.testing.assert_array_equal(images["hha"][0], HHA(one.hha))
    first = one.hha[..., 0] - np.float32(132.431)  # disparity
    np.testing.assert_allclose(images["hha"][0][0], first, rtol=1e-5)


def test_hha_is_scaled_as_the_colours_are() -> None:
    one = sample()
    assert one.hha is not None
    (x,) = Inputs("hha", Preprocessing("RGB", 1 / 255, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))(one)
    np.testing.assert_allclose(x, HHA(one.hha) / 255 / 0.3, rtol=1e-4, atol=1e-6)


def test_unknown_depth_is_the_mean_and_never_a_logarithm_of_zero() -> None:
    depth = log_depth(np.array([[0.0, math.exp(LOG_DEPTH) / 1000, 1000]], np.float32))
    np.testing.assert_allclose(depth, [[0, 0, math.log(1e6) - LOG_DEPTH]], atol=1e-6)


def test_a_sample_without_the_planes_is_named() -> None:
    flat = replace(sample(), depth=None, hha=None)
    for name, missing in {
        "rgbd": "depth",
        "depth": "depth",
        "rgb+depth": "depth",
        "hha": "HHA",
        "rgb+hha": "HHA",
    }.items():
        with pytest.raises(DataError, match=f"^s0: has no {missing}; .* for inputs {name.replace('+', '.')}$"):
            Inputs(name, CAFFE)(flat)
    with pytest.raises(UsageError, match="option inputs is 'lidar'; expected one of rgb, rgbd"):
        Inputs("lidar", CAFFE)


def test_stacking_pads_each_plane_with_what_means_nothing() -> None:
    small, large = sample((2, 3)), sample((4, 5), seed=1)
    (rgb, depth), labels, geometry = collate_inputs([small, large], Inputs("rgb+depth", CAFFE))
    assert rgb.shape == (2, 3, 4, 5) and depth.shape == (2, 1, 4, 5) and labels.dtype == np.int64
    assert (labels[0, 2:] == VOID).all() and (geometry[0, :, 3:] == VOID).all() and not rgb[0, :, 2:].any()
    np.testing.assert_array_equal(geometry[1], large.geometry)
    np.testing.assert_array_equal(labels[0, :2, :3], small.label)
    _, _, nothing = collate_inputs([replace(small, geometry=None)], Inputs("rgb", CAFFE))
    assert (nothing == VOID).all()


@pytest.mark.parametrize("name", ["rgb", "hha", "rgbd", "rgb+hha", "rgb+depth"])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_pictures_cross_to_a_gpu_as_bytes_and_are_the_same_there(
    name: str, order: str, fake_gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of unequal sizes, too: padding is zero after it is normalized."""
    small, large = sample((20, 30)), sample((40, 50), seed=1)
    samples, inputs = [small, large], Inputs(name, Preprocessing(order, 1 / 255, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    expected, *_ = collate_inputs(samples, inputs)
    crossed, asarray = [], fake_gpu.asarray
    monkeypatch.setattr(fake_gpu, "asarray", lambda x: crossed.append((x.dtype, x.size)) or asarray(x), raising=False)
    images, *_ = collate_inputs(samples, inputs, device="gpu")
    found = inputs.on_device(images, "gpu", sizes=[one.label.shape for one in samples])
    assert [to_host(x).tobytes() for x in found] == [x.tobytes() for x in expected]
    assert [to_host(x).dtype for x in found] == [np.float32] * len(expected)
    sent = [dtype for dtype, size in crossed if size > 3]
    assert sent == [np.uint8 if part in ("rgb", "hha") else np.float32 for part in inputs.parts]
    with pytest.raises((ShapeError, DataError)):
        collate_inputs([replace(small, image=small.image / 255, depth=None, hha=None)], inputs, device="gpu")


def test_augmentation_moves_hha_with_the_picture() -> None:
    one = sample((40, 50))
    one = replace(one, hha=one.image)
    moved = Augmentation(mirror=True, translate=9, crop=30, fill=(0, 0, 0))(one, np.random.default_rng(1))
    np.testing.assert_array_equal(moved.image, moved.hha)
    assert moved.image.any() and not np.array_equal(moved.image, one.image[:30, :30])


# ------------------------------------------------------------------------------------------------------ hidden by truth


def test_each_hiding_leaves_what_it_says() -> None:
    one = replace(sample((6, 6)), label=np.array([[0, 1, 2, VOID, 0, 1]] * 6, np.uint8))

    class Data:
        classes, ids = ("sky", "cat", "dog"), ("s0",)

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Sample:
            return one

    fill = (120, 10, 200)
    shown = {what: Hidden(Data(), what, fill=fill)[0] for what in ("background", "foreground", "both")}
    things, void = np.isin(one.label, (1, 2)), one.label == VOID
    for what, kept in {"background": things, "foreground": one.label == 0, "both": np.zeros_like(things)}.items():
        np.testing.assert_array_equal(shown[what].image[kept], one.image[kept])
        assert (shown[what].image[void] == fill).all()
        np.testing.assert_array_equal(shown[what].label, one.label)
    assert (shown["background"].image[~things] == fill).all() and (shown["foreground"].image[things] == fill).all()
    assert len(np.unique(shown["both"].image.reshape(-1, 3), axis=0)) == 2  # an outline and nothing else
    with pytest.raises(UsageError, match="option hide is 'sky'; expected one of background, foreground, both"):
        Hidden(Data(), "sky", fill=fill)


def test_a_run_hides_what_it_is_told_in_training_and_in_measuring(tmp_path: Path) -> None:
    plain, hidden = trainer(tmp_path / "a"), trainer(tmp_path / "b", hide="background")
    assert plain.preprocessing == hidden.preprocessing  # measured on whole pictures
    for one, other in ((plain.train_set[0], hidden.train_set[0]), (plain.val_set[0], hidden.val_set[0])):
        assert (other.image[one.label == 0] == hidden.preprocessing.fill).all()
        things = (one.label != 0) & (one.label != VOID)
        np.testing.assert_array_equal(one.image[things], other.image[things])


# ---------------------------------------------------------------------------------------------------- nets and training


@pytest.mark.parametrize("inputs", slow_but(["hha", "rgb+depth"], INPUTS, "trains for a moment"))
def test_every_input_has_its_net_which_learns_in_all_its_parts(inputs: str, tmp_path: Path) -> None:
    world = [replace(each, hha=each.image) for each in Shapes("train", count=3, size=64)]

    class Data:
        classes, ids = Shapes.classes, tuple(each.id for each in world)

        def __len__(self) -> int:
            return len(world)

        def __getitem__(self, index: int) -> Sample:
            return world[index]

    o = Options(**{**TINY, "inputs": inputs, "steps": 2, "schedule": "fixed"})
    with RunFolder(tmp_path / "run") as folder:
        run = Trainer(o, folder, Data(), Data(), say=lambda line: None)
        before = run.net.state_dict()
        run.run()
    assert isinstance(run.net, LateFusion if "+" in inputs else FCN)
    changed = {name for name, array in run.net.state_dict().items() if not np.array_equal(array, before[name])}
    scores = {name for name in before if "score_fr" in name}
    assert scores <= changed and len(changed) > 0.5 * len(before)  # the first step moves scores, the second the rest
    again = open_trained(tmp_path / "run")
    x, *_ = collate_inputs([world[0]], again.inputs)
    assert again.inputs.name == inputs and len(x) == len(inputs.split("+"))


def test_two_heads_learn_the_sum_of_two_losses(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", heads="label+geometry", steps=1)
    images, labels, geometry = collate_inputs([run.train_set[0], run.train_set[1]], run.inputs)
    scores = run.net(Tensor(images[0]))
    loss = run.objective(scores, run.loader._batch(0, 0, 2, slice(0, 2), [run.train_set[0], run.train_set[1]])).item()
    alone = [ops.softmax_cross_entropy(scores[n], y).item() for n, y in (("sem", labels), ("geo", geometry))]
    assert loss == pytest.approx(sum(alone)) == pytest.approx(math.log(8) + math.log(3))
    with run.folder:
        result = run.run()
    assert result["geometry"]["classes"] == list(Shapes.geometry_classes)
    assert np.sum(result["geometry"]["confusion"]) > 0 and "mean_iu" in result["geometry"]
    assert main(["evaluate", str(tmp_path / "run"), "--json", str(tmp_path / "again.json")]) == 0
    again = __import__("json").loads((tmp_path / "again.json").read_text())
    assert again["geometry"]["confusion"] == result["geometry"]["confusion"]


def test_geometry_alone_is_learned_as_any_label(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", heads="geometry", steps=1)
    assert run.classes == Shapes.geometry_classes
    np.testing.assert_array_equal(run.train_set[2].label, Shapes("train", count=3)[2].geometry)
    with run.folder:
        assert len(run.run()["confusion"]) == 3
    assert open_trained(tmp_path / "run").classes == Shapes.geometry_classes


def test_a_sample_of_the_pixels_and_weighed_classes_reach_the_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    loss = ops.softmax_cross_entropy
    monkeypatch.setattr(ops, "softmax_cross_entropy", lambda *a, **o: seen.append(o) or loss(*a, **o))
    run = trainer(tmp_path / "run", sampling=0.25, class_balance=1.0, batch=6)
    run._one_step()
    (options,) = seen
    assert 0.22 < options["sampling"].mean() < 0.28
    counts = sum(count(run.train_set[i].label, 8) for i in range(6))
    np.testing.assert_array_equal(options["weights"], class_weights(counts))
    run._one_step()
    assert not np.array_equal(options["sampling"], seen[1]["sampling"])  # another sample in each step


@pytest.mark.usefixtures("quick")
def test_steps_in_the_place_of_epochs_and_images_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer(tmp_path / "run", steps=7, measure_steps=3, with_replacement=True, batch=2)
    drawn: list[int] = []
    take = run.loader._sample
    monkeypatch.setattr(run.loader, "_sample", lambda i, epoch: drawn.append(i) or take(i, epoch))
    measured = []
    monkeypatch.setattr(run, "_append", lambda record: measured.append(record) if record["kind"] == "val" else None)
    with run.folder:
        run.run()
    assert [record["step"] for record in measured] == [3, 6, 7] and len(drawn) == 14
    assert len(set(drawn[:6])) < 6  # six of six, some twice: not a permutation


def test_the_rates_of_the_stages_and_of_the_trunks_biases() -> None:
    o = Options(stages="32,16,8", lr=1e-10, stage_lr="0.01,1")
    assert o.rates == pytest.approx((1e-10, 1e-12, 1e-12))
    assert replace(o, stage_lr="0.01").rates == pytest.approx((1e-10, 1e-12, 1e-14))
    for wrong in ("x", "", "0.1,", "-1", "nan"):
        with pytest.raises(UsageError, match="option stage_lr is "):
            replace(o, stage_lr=wrong)
    net = setup.network(Options(width=1, layers=11), 3, 32)
    twice, alike = (setup.solver(Options(trunk_bias=kind), net).multipliers for kind in ("twice", "alike"))
    assert twice("trunk.block1.conv1_1.b") == (2, 0) and alike("trunk.block1.conv1_1.b") == (1, 1)
    assert twice("score_fr.b") == alike("score_fr.b") == (2, 0)


@pytest.mark.usefixtures("quick")
def test_what_cannot_go_together_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=r"option heads is 'label.geometry' with inputs 'rgb.depth'"):
        Options(inputs="rgb+depth", heads="label+geometry")
    with pytest.raises(UsageError, match="option sampling is 0; expected a probability above 0"):
        Options(sampling=0)
    world = Shapes("train", count=2)
    flat = type("Flat", (), {"classes": world.classes, "ids": world.ids, "__len__": lambda s: 2,
                             "__getitem__": lambda s, i: replace(world[i], depth=None, geometry=None)})()  # fmt: skip
    for options, words in (
        ({"inputs": "depth"}, "has no depth"),
        ({"heads": "label+geometry"}, "has one alone"),
    ):
        with (
            RunFolder(tmp_path / words.replace(" ", "")) as folder,
            pytest.raises((DataError, UsageError), match=words),
        ):
            Trainer(Options(**{**TINY, **options}), folder, flat, flat)
    run = trainer(tmp_path / "depth", inputs="depth", steps=1)
    with run.folder:
        run.run()
    picture = Path(__file__).parent.parent.parent / "docs" / "images" / "world.png"
    assert main(["predict", str(tmp_path / "depth"), str(picture)]) == 2
    assert "its net sees depth, and a photograph alone has no depth" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------- a run as a start


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "coarse"
    run = trainer(folder, steps=2, lr=0.1)
    with run.folder:
        run.run()
    return folder


@pytest.mark.usefixtures("quick")
def test_a_finer_net_starts_from_a_run_and_says_what_it_took(coarse: Path) -> None:
    (weights,) = starting_weights(str(coarse))
    net = setup.network(Options(**{**TINY, "stages": "16"}), 8, 16)
    said = begin(net, weights)
    assert said.startswith("weights of FCN-32s from coarse: ") and said.endswith("new: score_pool4")
    state = net.state_dict()
    for name, array in weights.arrays.items():
        np.testing.assert_array_equal(state[name], array)
    assert weights.arrays["score_fr.w"].any() and not state["score_pool4.w"].any()


def test_scores_of_other_classes_stay_new_and_a_checkpoint_does_as_well(coarse: Path) -> None:
    (file,) = starting_weights(str(next((coarse / "checkpoints").glob("*.safetensors"))))
    net = setup.network(Options(**TINY), 5, 32)
    assert begin(net, file).endswith("left there: score_fr; new: score_fr") and not net.state_dict()["score_fr.w"].any()
    with pytest.raises(
        FormatError, match=r"is not this net's trunk: conv1_1 has shape .2, 3, 3, 3.; expected .3, 3, 3"
    ):
        begin(setup.network(Options(**{**TINY, "width": 3}), 8, 32), file)


def test_a_fourth_plane_begins_as_grey_and_late_fusion_takes_one_set_for_each(coarse: Path) -> None:
    (weights,) = starting_weights(str(coarse))
    early = setup.network(Options(**{**TINY, "inputs": "rgbd"}), 8, 32)
    start(early, [weights])
    w = early.state_dict()["trunk.block1.conv1_1.w"]
    np.testing.assert_allclose(w[:, 3], w[:, :3].mean(axis=1), rtol=1e-6)
    late = setup.network(Options(**{**TINY, "inputs": "rgb+hha"}), 8, 32)
    other = replace(weights, arrays={name: array + 1 for name, array in weights.arrays.items()})
    said = start(late, [weights, other])
    assert [line.split(":")[0] for line in said] == ["rgb", "hha"]
    state = late.state_dict()
    np.testing.assert_array_equal(state["rgb.score_fr.w"] + 1, state["hha.score_fr.w"])
    with pytest.raises(
        UsageError, match="option init names 3 sets of weights; expected one, or one for each of 2 nets"
    ):
        start(late, [weights] * 3)
    assert len(starting_weights(f"{coarse}, imagenet")) == 2
