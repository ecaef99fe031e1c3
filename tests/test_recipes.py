"""The recipes of the paper: every number of its solvers, the nets of `models/paper.NETS`, and all of them run."""

from dataclasses import replace
from typing import Any

import pytest

from minifcn.data.batches import CAFFE, Preprocessing
from minifcn.data.inputs import NYUD, SIFT_FLOW
from minifcn.data.nyud import NYUD_CLASSES
from minifcn.data.voc import SEG11VALID
from minifcn.errors import UsageError
from minifcn.models.paper import NETS
from minifcn.nn import Module
from minifcn.options import MEANS, Options
from minifcn.recipes import PAPER, preset

VGG, NET32, NET16 = "vgg16.caffemodel", "runs/heavy16-{}-fcn32s", "runs/heavy16-{}-fcn16s"
COLOR_HHA = "runs/heavy16-nyud-fcn32s-color,runs/heavy16-nyud-fcn32s-hha"

# ---------------------------------------------------------------------------------------------------------- the solvers

# The solver.prototxt and solve.py of the reference's folders, typed here a second time: base_lr, momentum, iter_size,
# blocks of steps, what the loss is divided by, and what the net begins with.
SOLVERS: dict[str, tuple[float, float, int, tuple[int, int], str, str]] = {
    "voc-fcn32s": (1e-10, 0.99, 1, (25, 4000), "sum", VGG),
    "voc-fcn16s": (1e-12, 0.99, 1, (25, 4000), "sum", NET32.format("voc")),
    "voc-fcn8s": (1e-14, 0.99, 1, (25, 4000), "sum", NET16.format("voc")),
    "voc-fcn8s-atonce": (1e-10, 0.99, 1, (75, 4000), "sum", VGG),
    "voc-fcn-alexnet": (1e-4, 0.9, 20, (25, 4000), "valid", "caffenet.caffemodel"),
    "nyud-fcn32s-color": (1e-10, 0.99, 1, (50, 2000), "sum", VGG),
    "nyud-fcn32s-hha": (1e-10, 0.99, 1, (50, 2000), "sum", VGG),
    "nyud-fcn32s-color-d": (1e-10, 0.99, 1, (50, 2000), "sum", VGG),
    "nyud-fcn32s-color-hha": (1e-12, 0.99, 1, (50, 2000), "sum", COLOR_HHA),
    "siftflow-fcn32s": (1e-10, 0.99, 1, (50, 2000), "sum", VGG),
    "siftflow-fcn16s": (1e-12, 0.99, 1, (50, 2000), "sum", NET32.format("siftflow")),
    "siftflow-fcn8s": (1e-12, 0.99, 1, (50, 2000), "sum", NET16.format("siftflow")),
    "pascalcontext-fcn32s": (1e-10, 0.99, 1, (50, 8000), "sum", VGG),
    "pascalcontext-fcn16s": (1e-12, 0.99, 1, (50, 8000), "sum", NET32.format("pascalcontext")),
    "pascalcontext-fcn8s": (1e-14, 0.99, 1, (50, 8000), "sum", NET16.format("pascalcontext")),
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


@pytest.mark.parametrize("name", list(PAPER))
def test_multipliers_are_those_of_the_prototxt(name: str) -> None:
    """Biases learn twice as fast and do not decay; in the released CaffeNet, only that of the score."""
    o = preset(name)
    multipliers = o.solver(net_of(o)).multipliers
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


def net_of(o: Options) -> Any:
    paper = PAPER[o.recipe]
    return o.network(len(paper.classes), o.strides[-1], geometry=len(paper.geometry), init="zero")


def shapes(net: Module) -> dict[str, tuple[int, ...]]:
    return {name: parameter.shape for name, parameter in net.parameters()}


@pytest.mark.parametrize("name", list(PAPER))
def test_the_net_is_that_of_the_paper(name: str) -> None:
    """By the names and shapes of all parameters, at full width; zeros that nobody touches take no memory."""
    edition, _, place = name.partition("-")
    given: dict[str, Any] = {}
    if edition == "cvpr15":
        place = {"voc-fcn32s-fixed": "fcn32s-fixed", "voc-fcn-googlenet": "fcn-googlenet"}.get(place, place)
        given = {} if "alexnet" in place or "googlenet" in place else {"upsampling": "learned"}
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
    found = (o.data, o.train_split, o.val_split, o.preprocessing(None), len(paper.classes), len(paper.geometry))
    assert found == expected and o.two_heads == bool(expected[-1])


def test_the_mean_of_the_data_set_goes_before_that_of_the_weights() -> None:
    o = Options(mean="nyud")
    for own in (CAFFE, SIFT_FLOW):
        assert o.preprocessing(own) == NYUD
    torch = Preprocessing("RGB", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    mixed = o.preprocessing(torch)
    assert mixed is not None and (mixed.order, mixed.scale, mixed.std) == ("RGB", 1 / 255, torch.std)
    assert mixed.mean == pytest.approx([value / 255 for value in NYUD.mean[::-1]]) and mixed.fill == NYUD.fill
    assert o.preprocessing(mixed) == mixed  # a run that is resumed, or begun with another, keeps its numbers
    assert Options().preprocessing(torch) == torch and Options().preprocessing(None) is None
    assert set(MEANS) == {preset(name).mean for name in PAPER}


def test_table_4_sees_what_it_says() -> None:
    seen = {name.rpartition("fcn32s-")[2]: preset(name).inputs for name in PAPER if "heavy16-nyud" in name}
    assert seen == {"color": "rgb", "color-d": "rgbd", "hha": "hha", "color-hha": "rgb+hha"}
    assert len(NYUD_CLASSES) == 40 and replace(preset("heavy16-nyud-fcn32s-hha"), width=1).padding == "100"
