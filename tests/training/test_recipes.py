"""The recipes of the paper: every number of its solvers, the nets of `models.zoo.NETS`, and all of them run."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caffe_files import blob, layer
from some_slow import slow_but
from test_data_formats import make_context, make_nyud, make_siftflow
from test_voc import make_tree
from test_voc_years import make_sbd

from minifcn.cli.verbs import main
from minifcn.data.batches import CAFFE, Preprocessing
from minifcn.data.inputs import NYUD, SIFT_FLOW
from minifcn.data.nyud import NYUD_CLASSES
from minifcn.data.voc import SEG11VALID
from minifcn.errors import UsageError
from minifcn.introspect.describe import describe
from minifcn.kernels.threads import set_threads
from minifcn.models import vgg
from minifcn.models.classifier import classifier
from minifcn.models.zoo import NETS
from minifcn.nn import Module
from minifcn.training import results, setup
from minifcn.training.options import MEANS, Options
from minifcn.training.plan import plan
from minifcn.training.recipes import PAPER, preset
from minifcn.training.trained import open_trained
from minifcn.weights.published import PUBLISHED

VGG, NET32, NET16 = "vgg16.caffemodel", "runs/heavy16-{}-fcn32s", "runs/heavy16-{}-fcn16s"
COLOR_HHA = "runs/heavy16-nyud-fcn32s-color,runs/heavy16-nyud-fcn32s-hha"

# ---------------------------------------------------------------------------------------------------------- the solvers

# The solver.prototxt and solve.py of the reference's folders, typed here a second time: base_lr, momentum, iter_size,
# blocks of steps, what the loss is divided by, and what the net begins with.
SOLVERS: dict[str, tuple[float, float, int, tuple[int, int], str, str]] = {
    "voc-fcn32s": (1e-10, 0.99, 1, (25, 4000), "none", VGG),
    "voc-fcn16s": (1e-12, 0.99, 1, (25, 4000), "none", NET32.format("voc")),
    "voc-fcn8s": (1e-14, 0.99, 1, (25, 4000), "none", NET16.format("voc")),
    "voc-fcn8s-atonce": (1e-10, 0.99, 1, (75, 4000), "none", VGG),
    "voc-fcn-alexnet": (1e-4, 0.9, 20, (25, 4000), "valid", "caffenet.caffemodel"),
    "nyud-fcn32s-color": (1e-10, 0.99, 1, (50, 2000), "none", VGG),
    "nyud-fcn32s-hha": (1e-10, 0.99, 1, (50, 2000), "none", VGG),
    "nyud-fcn32s-color-d": (1e-10, 0.99, 1, (50, 2000), "none", VGG),
    "nyud-fcn32s-color-hha": (1e-12, 0.99, 1, (50, 2000), "none", COLOR_HHA),
    "siftflow-fcn32s": (1e-10, 0.99, 1, (50, 2000), "none", VGG),
    "siftflow-fcn16s": (1e-12, 0.99, 1, (50, 2000), "none", NET32.format("siftflow")),
    "siftflow-fcn8s": (1e-12, 0.99, 1, (50, 2000), "none", NET16.format("siftflow")),
    "pascalcontext-fcn32s": (1e-10, 0.99, 1, (50, 8000), "none", VGG),
    "pascalcontext-fcn16s": (1e-12, 0.99, 1, (50, 8000), "none", NET32.format("pascalcontext")),
    "pascalcontext-fcn8s": (1e-14, 0.99, 1, (50, 8000), "none", NET16.format("pascalcontext")),
}


def test_every_solver_of_the_reference_is_a_recipe() -> None:
    assert [name for name in PAPER if name.startswith("heavy16-")] == [f"heavy16-{name}" for name in HEAVY_ORDER]
    for name, (lr, momentum, accumulate, (times, block), normalize, init) in SOLVERS.items():
        o = preset(f"heavy16-{name}")
        assert (o.lr, o.momentum, o.accumulate, o.normalize, o.init) == (lr, momentum, accumulate, normalize, init), (
            name
        )
        assert (o.steps, o.measure_steps) == (times * block, block), name
        assert (o.rates, o.batch, o.schedule, o.weight_decay) == ((lr,), 1, "fixed", 0.0005), name
        assert o.with_replacement and o.optimizer == "sgd" and o.upsampling == "fixed" and o.fusion == "sum", name


HEAVY_ORDER = [
    *("voc-fcn32s", "voc-fcn16s", "voc-fcn8s", "voc-fcn8s-atonce", "voc-fcn-alexnet"),
    *("nyud-fcn32s-color", "nyud-fcn32s-color-d", "nyud-fcn32s-hha", "nyud-fcn32s-color-hha"),
    *("siftflow-fcn32s", "siftflow-fcn16s", "siftflow-fcn8s"),
    *("pascalcontext-fcn32s", "pascalcontext-fcn16s", "pascalcontext-fcn8s"),
]


@pytest.mark.parametrize(
    ("name", "lr"),
    [
        ("voc-fcn-alexnet", 1e-3), ("voc-fcn32s", 1e-4), ("voc-fcn-googlenet", 5e-5), ("voc-fcn16s", 1e-6),
        ("voc-fcn8s", 1e-8), ("voc-fcn32s-fixed", 1e-4), ("nyud-fcn32s-color", 1e-4), ("nyud-fcn32s-color-hha", 1e-6),
        ("siftflow-fcn16s", 1e-6), ("pascalcontext-fcn8s", 1e-8),
    ],
)  # fmt: skip
def test_the_conference_has_other_numbers(name: str, lr: float) -> None:
    o = preset(f"cvpr15-{name}")
    assert o.lr == pytest.approx(lr, rel=1e-12) and o.batch * o.accumulate == 20 and o.momentum == 0.9
    assert (o.normalize, o.weight_decay, o.schedule, o.epochs, o.steps) == ("valid", 0.0005, "fixed", 175, 0)
    assert o.upsampling == ("fixed" if o.trunk != "vgg" else "learned")


@pytest.mark.parametrize("name", list(PAPER))
def test_no_recipe_changes_an_image(name: str) -> None:
    o = preset(name)
    assert not o.mirror and (o.translate, o.crop, o.scale_min, o.scale_max) == (0, 0, 1, 1)
    assert o.dropout == (0.4 if o.trunk == "googlenet" else 0.5)
    assert o.padding == ("safe" if o.trunk == "googlenet" else "100")


QUICK = ["heavy16-voc-fcn8s-atonce", "heavy16-nyud-fcn32s-color-hha", "heavy16-siftflow-fcn8s", "cvpr15-voc-fcn32s"]
QUICK += ["cvpr15-voc-fcn-alexnet", "cvpr15-voc-fcn-googlenet", "cvpr15-pascalcontext-fcn8s"]
every_recipe = pytest.mark.parametrize("name", slow_but(QUICK, PAPER, "a net at full width"))


@every_recipe
def test_multipliers_are_those_of_the_prototxt(name: str) -> None:
    """Biases learn twice as fast and do not decay; in the released CaffeNet, only that of the score."""
    o = preset(name)
    multipliers = setup.solver(o, net_of(o)).multipliers
    alike = name == "heavy16-voc-fcn-alexnet"
    assert multipliers("score_fr.b") == (2, 0) and multipliers("score_fr.w") == (1, 1)
    assert multipliers("trunk.head.fc6.b") == ((1, 1) if alike else (2, 0))
    assert multipliers("trunk.head.fc6.w") == (1, 1)


# ----------------------------------------------------------------------------------------------------------- the stages


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("heavy16-voc-fcn8s", (1e-10, 1e-12, 1e-14)),
        ("heavy16-voc-fcn32s", (1e-10, 1e-12, 1e-14)),
        ("heavy16-siftflow-fcn8s", (1e-10, 1e-12, 1e-12)),
        ("heavy16-pascalcontext-fcn16s", (1e-10, 1e-12, 1e-14)),
        ("cvpr15-voc-fcn8s", (1e-4, 1e-6, 1e-8)),
    ],
)
def test_stages_begin_at_the_top_and_go_down(name: str, rates: tuple[float, ...]) -> None:
    whole = preset(name, stages="32,16,8")
    assert whole.strides == (32, 16, 8) and whole.rates == pytest.approx(rates, rel=1e-12) and whole.init == VGG
    last = preset(name, stages="16,8")
    assert last.rates == pytest.approx(rates[1:], rel=1e-12) and last.init == f"runs/{name.rpartition('-')[0]}-fcn32s"
    skipping = preset(name, stages="32,8")
    assert skipping.rates == pytest.approx((rates[0], rates[2]), rel=1e-12)


def test_stages_that_are_none_are_left_to_the_options() -> None:
    for stages in ("64", "x", "8,", ""):
        assert preset("heavy16-voc-fcn8s", stages=stages) == preset("heavy16-voc-fcn8s")
    assert preset("heavy16-voc-fcn8s-atonce", stages="32,16,8").lr == 1e-10
    with pytest.raises(UsageError, match=r"did you mean 'heavy16-voc-fcn8s'\?"):
        preset("heavy-voc-fcn8s")


# ------------------------------------------------------------------------------------------------------------- the nets


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """In a folder of its own, and without reports, whose pictures take longer than these runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(results, "write_report", lambda folder: folder / "report.html")
    yield
    set_threads(None)


def net_of(o: Options) -> Any:
    paper = PAPER[o.recipe]
    return setup.network(o, len(paper.classes), o.strides[-1], geometry=len(paper.geometry), init="zero")


def shapes(net: Module) -> dict[str, tuple[int, ...]]:
    return {name: parameter.shape for name, parameter in net.named_parameters()}


@every_recipe
def test_the_net_is_that_of_the_paper(name: str) -> None:
    """By the names and shapes of all parameters, at full width; zeros that are never touched take no memory."""
    edition, _, place = name.partition("-")
    given: dict[str, Any] = {}
    if edition == "cvpr15":
        place = {"voc-fcn32s-fixed": "fcn32s-fixed", "voc-fcn-googlenet": "fcn-googlenet"}.get(place, place)
        if place == "nyud-fcn16s-color-hha":
            place, given["stride"] = "nyud-fcn32s-color-hha", 16
        given |= {} if "alexnet" in place or "googlenet" in place else {"upsampling": "learned"}
    o, wanted = preset(name), NETS[place](init="zero", **given)
    ours = {key.replace("rgb.", "color.", 1): shape for key, shape in shapes(net_of(o)).items()}
    assert ours == shapes(wanted) and len(ours) > 15
    scales = [getattr(net, "skip_scale", None) for net in (net_of(o), wanted)]
    assert scales[0] == scales[1]


# ------------------------------------------------------------------------------------------------------------- the data


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("heavy16-voc-fcn8s", ("VOCdevkit", "train", SEG11VALID, CAFFE, 21, 0)),
        ("heavy16-nyud-fcn32s-hha", ("nyudv2", "trainval", "test", NYUD, 40, 0)),
        ("cvpr15-siftflow-fcn16s", ("siftflow", "trainval", "test", SIFT_FLOW, 33, 3)),
        ("cvpr15-pascalcontext-fcn8s", ("pascal-context", "train", "val", CAFFE, 60, 0)),
    ],
)
def test_every_data_set_has_its_splits_and_its_mean(name: str, expected: tuple[Any, ...]) -> None:
    o, paper = preset(name), PAPER[name]
    found = (o.data, o.train_split, o.val_split, setup.preprocessing(o, None), len(paper.classes), len(paper.geometry))
    assert found == expected and o.two_heads == bool(expected[-1])


def test_the_mean_of_the_data_set_goes_before_that_of_the_weights() -> None:
    o = Options(mean="nyud")
    for own in (CAFFE, SIFT_FLOW):
        assert setup.preprocessing(o, own) == NYUD
    torch = Preprocessing("RGB", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    mixed = setup.preprocessing(o, torch)
    assert mixed is not None and (mixed.order, mixed.scale, mixed.std) == ("RGB", 1 / 255, torch.std)
    assert mixed.mean == pytest.approx([value / 255 for value in NYUD.mean[::-1]]) and mixed.fill == NYUD.fill
    assert setup.preprocessing(o, mixed) == mixed  # a run that is resumed, or begun with another, keeps its numbers
    assert setup.preprocessing(Options(), torch) == torch and setup.preprocessing(Options(), None) is None
    assert set(MEANS) == {preset(name).mean for name in PAPER}


def test_table_4_sees_what_it_says() -> None:
    seen = {name.rpartition("fcn32s-")[2]: preset(name).inputs for name in PAPER if "heavy16-nyud" in name}
    assert seen == {"color": "rgb", "color-d": "rgbd", "hha": "hha", "color-hha": "rgb+hha"}
    assert len(NYUD_CLASSES) == 40 and replace(preset("heavy16-nyud-fcn32s-hha"), width=1).padding == "100"


# ---------------------------------------------------------------------------------------------------- a dry run of them


def dry(name: str, *words: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["train", "--recipe", name, "--device", "cpu", "--dry-run", *words]) == 0
    assert not list(Path.cwd().iterdir()), "a dry run left something"
    return capsys.readouterr().out


@every_recipe
def test_every_recipe_passes_its_dry_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """At full width, without its data and its weights; with the rates that its layers will have."""
    o = preset(name)
    printed = dry(name, "--dry-run=64", capsys=capsys)
    assert f"{o.data}: no such folder" in printed and f"planned for {len(PAPER[name].classes)} classes" in printed
    assert f"{o.init.split(',')[0]}: found no file or run, and recipe {name} begins with it" in printed
    assert f"\nlearning rate {o.lr:g}: " in printed and "a training step holds at most" in printed
    steps = f"{o.steps:,} steps of 1 image" if o.steps and o.accumulate == 1 else "of 20 images, 1 at once"
    assert steps in printed
    rates = {f"{o.lr:g} / {2 * o.lr:g}"} | ({f"{o.lr:g} / {o.lr:g}"} if o.trunk_bias == "alike" else set())
    for rate in rates | ({"frozen / frozen"} if o.freeze else set()):
        assert rate in printed


def test_a_dry_run_tells_every_layer_and_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    printed = dry("heavy16-voc-fcn8s", "--stages", "32,16,8", capsys=capsys)
    for rate, stride in (("1e-10", 32), ("1e-12", 16), ("1e-14", 8)):
        stage = printed[printed.index(f": FCN-{stride}s") :].partition("\nstage")[0]
        assert f"\nlearning rate {rate}: the loss is summed" in stage and "100,000 steps of 1 image," in stage
        row = next(line.split() for line in stage.splitlines() if line.startswith("trunk.head.fc6"))
        assert row == f"trunk.head.fc6 Conv2d 4096x16x16 {rate} / 2{rate[1:]} 102,764,544 26.307 G".split()
    assert (
        "score_pool3  " in printed
        and "134,362,751" in printed
        and "BGR, 0..255, less (104.007, 116.669, 122.679)" in printed
    )


def test_the_memory_of_a_step_is_what_describe_says_and_the_optimizer_keeps() -> None:
    o = Options(recipe="heavy16-voc-fcn32s", stages="32", data="nowhere", width=2, padding="100", momentum=0.9)
    net = setup.network(o, 21, 32)
    printed = describe(net, (80, 90), batch=o.batch)
    weights = sum(p.data.nbytes for p in net.parameters())
    line = list(plan(o, size=(80, 90)))[-1]
    assert line.startswith(f"a training step holds at most {(printed.training + 2 * weights) / 2**20:.1f} MiB")
    more = list(plan(replace(o, accumulate=3), size=(80, 90)))[-1]
    assert (
        printed.training < describe(net, (80, 90), batch=o.batch, passes=2).training <= printed.training + 2 * weights
    )
    assert more != line and list(plan(replace(o, accumulate=9), size=(80, 90)))[-1] == more
    assert list(plan(replace(o, optimizer="adam"), size=(80, 90)))[-1] != line


def test_a_dry_run_on_data_counts_it_and_takes_the_size_of_the_first_image(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--max-train", "10", "--max-val", "3", "--world-size", "80", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "data: world: 10 images to learn from (split train), 3 to measure on; " in printed
    assert "9 steps of 4 images, 4 at once, here of 80x80 pixels" in printed and "begins with random numbers" in printed
    assert main(["train", "--max-train", "10", "--max-val", "3", "--dry-run=96x128"]) == 0
    assert "here of 96x128 pixels" in capsys.readouterr().out
    assert main(["train", "--dry-run=big"]) == 2
    assert "expected height x width in pixels" in capsys.readouterr().err
    assert main(["train", "--world-size", "80", "--dry-run=7000x7200"]) == 2
    assert "option size is 7000x7200; expected at most 50 megapixels" in capsys.readouterr().err
    assert main(["train", "--data", "nowhere", "--dry-run"]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err
    assert not list(Path.cwd().iterdir())


def test_a_dry_run_refuses_what_ranks_cannot_share() -> None:
    one_image, few = preset("heavy16-voc-fcn8s"), Options(max_train=2, max_val=1, world_size=80, batch=4)
    with pytest.raises(UsageError, match="2 ranks share steps of 1 image; expected at least one image for each rank"):
        next(plan(one_image, ranks=2))
    assert next(plan(one_image, ranks=1)) and next(plan(few, ranks=3))
    with pytest.raises(UsageError, match="3 ranks share steps of 2 images"):
        list(plan(few, ranks=3))


def test_a_dry_run_on_data_that_is_broken_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not there is one thing: then the recipe's own classes are shown. There and of no use is another."""
    folder = tmp_path / "voc"
    argv = ["train", "--recipe", "heavy16-voc-fcn32s", "--device", "cpu", "--dry-run=64", "--data", str(folder)]
    assert main(argv) == 0 and "voc: no such folder" in capsys.readouterr().out
    folder.mkdir()
    assert main(argv) == 2 and "holds nothing; expected" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------- and all of them run

SMALL = "--width 1 --steps 2 --measure-steps 2 --samples 0 --threads 1 --device cpu".split()
WORLD = "--data world --train-split train --val-split val --max-train 3 --max-val 1 --init=".split()
RUN = [name for name in PAPER if "fcn8s" in name or "fcn32s-" in name or name.endswith(("net", "16s-color-hha"))]


def test_what_is_not_run_below_is_a_rung_of_what_is() -> None:
    for name, paper in PAPER.items():
        assert name in RUN or PAPER[name.replace("32s", "8s").replace("16s", "8s")].rates == paper.rates


@pytest.mark.parametrize(
    "name",
    slow_but(["heavy16-voc-fcn8s-atonce", "cvpr15-pascalcontext-fcn8s"], RUN, "trains for a moment in each stage"),
)
def test_every_recipe_runs_through_all_its_stages(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    strides = ",".join(map(str, PAPER[name].rates))
    shrunk = ["--layers", "11", *SMALL, "--accumulate", "1", "--stages", strides]
    assert main(["train", "--recipe", name, *shrunk, *WORLD, "--run", "r"]) == 0
    said = capsys.readouterr().out
    trained, o = open_trained("r"), preset(name)
    assert trained.step == 2 * len(strides.split(",")) and trained.options.strides[-1] == min(PAPER[name].rates)
    assert "warning: random weights; the learning rate" in said and "mean IU" in said
    config = json.loads(Path("r/config.json").read_text(encoding="utf-8"))
    assert "dry_run" not in config["options"] and config["preprocessing"]["mean"] == list(MEANS[o.mean].mean)


def test_the_nets_of_nyudv2_begin_with_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    """From files in the data set's own format to late fusion and on, each with nothing but its name."""
    make_nyud(Path("nyudv2"))
    small = [*SMALL, "--accumulate", "1", "--layers", "11", "--lr", "1e-5"]
    for name in ("color", "hha"):
        assert main(["train", "--recipe", f"cvpr15-nyud-fcn32s-{name}", *small, "--init="]) == 0
    capsys.readouterr()
    for name in ("32s", "16s"):
        assert main(["train", "--recipe", f"cvpr15-nyud-fcn{name}-color-hha", *small, "--lr", "0"]) == 0
    said = capsys.readouterr().out
    assert "rgb: weights of FCN-32s from cvpr15-nyud-fcn32s-color:" in said and "fcn32s-hha: " in said
    parts = [open_trained(f"runs/cvpr15-nyud-fcn32s-{name}").net.state_dict() for name in ("color", "hha")]
    for run in ("32s", "16s"):
        late = open_trained(f"runs/cvpr15-nyud-fcn{run}-color-hha").net.state_dict()
        for which, part in zip(("rgb", "hha"), parts, strict=True):
            assert all(np.array_equal(late[f"{which}.{key}"], array) for key, array in part.items())


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("heavy16-siftflow-fcn32s", lambda: make_siftflow(Path("siftflow"))),
        ("heavy16-pascalcontext-fcn32s", lambda: make_context(Path("pascal-context"), Path("VOCdevkit/VOC2010"))),
        ("heavy16-nyud-fcn32s-color-d", lambda: make_nyud(Path("nyudv2"))),
    ],
)
def test_recipes_run_on_the_files_of_their_data_sets(name: str, make: Callable[[], Path]) -> None:
    make()
    assert main(["train", "--recipe", name, "--layers", "11", *SMALL, "--init="]) == 0
    assert open_trained(f"runs/{name}").classes == PAPER[name].classes


def test_voc_learns_from_sbd_and_never_from_what_it_is_measured_on(capsys: pytest.CaptureFixture[str]) -> None:
    ids = ("2007_000032", "2008_000002", "2009_000001")
    make_tree(Path("VOCdevkit/VOC2012"), ids, val=ids[1:])
    argv = ["train", "--recipe", "heavy16-voc-fcn32s", "--layers", "11", *SMALL, "--init="]
    assert main([*argv, "--dry-run=32"]) == 0
    printed = capsys.readouterr().out
    assert "measured on split val, for want of the paper's: " in printed and "seg11valid" in printed
    assert "VOCdevkit: 3 images to learn from (split train), 2 to measure on; 21 classes" in printed
    make_sbd(Path("sbd"), ids, ids[:2])
    assert main([*argv, "--train-data", "sbd"]) == 0
    printed = capsys.readouterr().out
    assert "left out 1 of 2 images, which are learned from (sbd)" in printed
    assert "images: 2 to learn from, 1 to measure on" in printed
    make_sbd(Path("all"), ids, ids)
    assert main([*argv, "--train-data", "all"]) == 2
    assert "VOCdevkit: split seg11valid has only images that are learned from" in capsys.readouterr().err
    make_nyud(Path("rooms"))
    assert main([*argv, "--train-data", "rooms"]) == 2
    assert "rooms: has the classes wall, floor, " in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ what they begin with


@pytest.fixture
def caffemodel(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The classifier of the trunk as Caffe's file, at one channel in 64: what is published is held to be as thin."""
    thin = partial(classifier, vgg.VGG, layers=16, width=1)
    monkeypatch.setitem(PUBLISHED, "vgg16", replace(PUBLISHED["vgg16"], make=thin))
    numbers, layers = np.random.default_rng(0), {}
    for name, p in thin(init="zero").named_parameters():
        array = 0.1 * numbers.standard_normal(p.shape).astype(np.float32)
        layers.setdefault(name.split(".")[-2], []).append(blob(array))
    path = Path("vgg16.caffemodel")
    path.write_bytes(b"".join(layer(name, *blobs) for name, blobs in layers.items()))
    return path


def test_the_command_of_the_issue_at_small_width(caffemodel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """fc6 and fc7 of the file are fully connected; they become the convolutions of the trunk."""
    argv = ["train", "--recipe", "heavy16-voc-fcn8s", "--stages", "32,16,8", *SMALL, "--data", "VOCdevkit"]
    make_tree(Path("VOCdevkit/VOC2012"), ("2007_000032", "2008_000002"), seg11valid=("2008_000002",))
    assert main([*argv, "--init", str(caffemodel), "--dry-run"]) == 0
    taken = "weights of vgg16 from vgg16.caffemodel: 15 layers taken, conv1_1 to fc7; left there: fc8; new: score_fr"
    printed = capsys.readouterr().out
    assert (
        taken in printed
        and "2 images to learn from (split train), 1 to measure on" in printed
        and "warning" not in printed
    )
    assert not Path("runs").exists()
    assert main([*argv, "--lr", "0"]) == 0  # the recipe knows the file's name
    said = capsys.readouterr().out
    assert taken in said and "stage 3: FCN-8s, from the net before" in said and "random weights" not in said
    trained = open_trained("runs/heavy16-voc-fcn8s")
    assert trained.preprocessing == CAFFE  # the data set's mean, not the one of Oxford's net
    w = trained.net.state_dict()["trunk.head.fc6.w"]
    assert w.shape == (64, 8, 7, 7) and w.any()


def test_a_finer_net_that_begins_with_a_classifier_is_warned_of(
    caffemodel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tree(Path("VOCdevkit/VOC2012"), ("2007_000032",), seg11valid=("2007_000032",))
    assert main(["train", "--recipe", "heavy16-voc-fcn8s", *SMALL, "--init", str(caffemodel), "--dry-run"]) == 0
    assert (
        "warning: FCN-8s begins with a classifier, at the learning rate 1e-14 of one that begins with "
        "runs/heavy16-voc-fcn16s; --stages 32,16,8 goes the paper's way"
    ) in capsys.readouterr().out
    assert main(["train", "--recipe", "heavy16-voc-fcn8s-atonce", *SMALL, "--dry-run"]) == 0
    assert "warning" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (
            "heavy16-voc-fcn32s",
            "vgg16.caffemodel: found no file or run, and recipe heavy16-voc-fcn32s begins with it; name",
        ),
        (
            "heavy16-voc-fcn16s",
            "runs/heavy16-voc-fcn32s: found no file or run, and recipe heavy16-voc-fcn16s begins with",
        ),
        (
            "heavy16-voc-fcn16s",
            "train that first (--recipe heavy16-voc-fcn32s), or name what it is to begin",
        ),
        ("cvpr15-nyud-fcn32s-color-hha", "runs/cvpr15-nyud-fcn32s-color: found no file or run"),
        ("heavy16-voc-fcn32s --init=", "VOCdevkit: no such folder"),
        ("heavy16-siftflow-fcn8s --init=", "siftflow: no such folder"),
        ("heavy16-voc-fcn32s --init= --data here", "here/VOC2012/ImageSets/Segmentation/train.txt: no such list"),
        ("heavy16-nyud-fcn32s-color --init= --data here/VOC2012", "trainval.txt: no such list"),
        ("heavy16-voc-fcn8s --stages 8,16", "option stages is '8,16'; expected strides from coarse to fine"),
    ],
)
def test_what_is_missing_is_said_in_one_line(argv: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("JPEGImages", "SegmentationClass"):
        (Path("here/VOC2012") / part).mkdir(parents=True)
    assert main(["train", "--recipe", *argv.split()]) == 2
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1 and not Path("runs").exists()
