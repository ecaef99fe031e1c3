"""What `describe` says before anything runs, against the paper's numbers and against what then happens."""

import re
import weakref
from fractions import Fraction
from typing import ClassVar

import numpy as np
import pytest
from fake_device import DeviceArray
from some_slow import slow_but

from minifcn import ops
from minifcn.cli.command import guard
from minifcn.cli.describe import main, print_check
from minifcn.errors import GeometryError, ShapeError, UsageError
from minifcn.experiments.bench import prediction
from minifcn.experiments.bench.prediction import counting, infer, measured, train_step
from minifcn.introspect import describe as module
from minifcn.introspect.describe import describe
from minifcn.introspect.outline import Ledger, Outline
from minifcn.kernels import convolution
from minifcn.kernels.threads import set_threads
from minifcn.models.classifier import classifier
from minifcn.models.fcn import FCN8s, FCN16s, FCN32s
from minifcn.models.lenet import LeNet
from minifcn.models.paper import LateFusion
from minifcn.models.vgg import VGG
from minifcn.models.zoo import NETS, TRUNKS
from minifcn.nn import AvgPool2d, Conv2d, Dropout, Linear, LocalResponseNorm, MaxPool2d, Module, Sequential


def vgg(padding=100, **options):
    return VGG(padding=padding, init="zero", rng=np.random.default_rng(0), **options)


# ---- the paper's numbers -----------------------------------------------------------------------------------------


def test_the_full_trunk_at_500_pixels():
    cost = describe(vgg(), 500)
    assert round(cost.multiply_adds / 1e9) == 181 and round(cost.activations / 2**20) == 568
    assert cost.parameters == 134_260_544
    assert round(describe(vgg(), 64).multiply_adds / 1e9) == 22


SIDES = {"pool1": 349, "pool2": 175, "pool3": 88, "pool4": 44, "pool5": 22, "fc7": 16}


def test_each_stage_has_the_papers_size_field_and_stride():
    rows = {row.name: row for row in describe(vgg(width=1), 500).rows}
    for i, (field, stride) in enumerate([(6, 2), (16, 4), (44, 8), (100, 16), (212, 32)], start=1):
        row = rows[f"block{i}.pool"]
        assert (row.grid.field, row.grid.stride, row.shape[2]) == (field, stride, SIDES[f"pool{i}"])
    assert (rows["head.fc6"].grid.field, rows["head.fc7"].grid.field, rows["head.fc7"].shape[2]) == (404, 404, 16)


@pytest.mark.parametrize(("net", "out"), [(FCN32s, 544), (FCN16s, 560), (FCN8s, 568)])
def test_what_comes_up_the_ladder(net, out):
    """The map before the last crop; its grid starts as many pixels before the image as the crop cuts."""
    fcn = net(width=1, padding=100)
    *_, row = describe(fcn, 500).rows
    assert row.kind == "Upsample" and row.shape[2:] == (out, out)
    assert row.grid.stride == 1 and -row.grid.start == fcn.ladder.rungs[-1].at


@pytest.mark.parametrize(
    ("name", "millions", "giga"), [("alexnet", 61.0, 0.72), ("vgg16", 138.4, 15.5), ("googlenet", 7.0, 1.6)]
)
def test_the_classifiers_are_as_large_and_as_costly_as_is_well_known(name, millions, giga):
    net = NETS[name](init="zero")
    cost = describe(net, net.trunk.size)
    assert (round(cost.parameters / 1e6, 1), float(f"{cost.multiply_adds / 1e9:.{2 if giga < 1 else 1}f}")) == (
        millions,
        giga,
    )
    assert cost.rows[-1].shape == (1, 1000) and cost.rows[-1].grid is None


# ---- what it says is what happens ----------------------------------------------------------------------------------


class Fork(Module):
    """Two branches, joined by their channels, then scaled and cropped outside of any layer."""

    def __init__(self, rng):
        self.wide, self.narrow = Conv2d(4, 3, 5, padding=2, init=rng), Conv2d(4, 2, 1, init=rng)

    def forward(self, x):
        return ops.crop(ops.concat(self.wide(x), self.narrow(x)) * 0.5, like=(9, 8), at=1)


def mixed(rng):
    return Sequential(
        conv=Conv2d(3, 4, 3, stride=2, init=rng, relu=True), norm=LocalResponseNorm(),
        pool=MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
        fork=Fork(rng), drop=Dropout(0.5, rng=rng), mean=AvgPool2d(2, ceil_mode=True), score=Conv2d(5, 3, 1, init=rng),
    )  # fmt: skip


def test_shapes_are_those_of_a_run(rng):
    net = mixed(rng)
    rows = describe(net, (60, 50), batch=2).rows
    x, shapes = np.zeros((2, 3, 60, 50), np.float32), []
    for name, layer in net.sequence().items():
        x = layer(x)
        shapes.append((name, x.shape))
    cost = {row.name: row.shape for row in rows}
    assert [(name, cost[name]) for name, _ in shapes if name in cost] == [(n, s) for n, s in shapes if n in cost]
    assert list(cost) == ["conv", "norm", "pool", "fork.wide", "fork.narrow", "mean", "score"]
    assert cost["fork.wide"][1] == 3
    mean = {row.name: row.grid for row in rows}["mean"]
    assert mean.stride == 8 and mean.field == 3 + 2 * 2 + 4 * 4 + 4  # the wide branch is what it sees
    assert mean.start == Fraction(1) + 0 + 0 + 4 + 2  # half of 3/2, pool centred, one cell cropped, half of a pool


@pytest.mark.parametrize("name", NETS)
def test_every_net_of_the_paper_can_be_described(name):
    net = NETS[name](width=1)
    cost = describe(net, net.trunk.size if name in TRUNKS else 40)
    idle = {"fcn_resnet50", "fcn_resnet101"} & {name}  # their second head runs in training alone, and has no row
    used = [p.size for key, p in net.named_parameters() if not (idle and key.startswith("aux_classifier."))]
    assert cost.parameters == sum(used)
    assert cost.training >= cost.inference > 0 and cost.multiply_adds > 0  # equal where only a score layer learns


def test_multiply_adds_by_hand(rng):
    net = Sequential(conv=Conv2d(4, 6, 3, groups=2, init=rng), fc=Conv2d(6, 5, 1, init=rng))
    conv, fc = describe(net, 10).rows
    assert conv.multiply_adds == 8 * 8 * 6 * 2 * 9 and fc.multiply_adds == 8 * 8 * 5 * 6
    assert (conv.activation, conv.parameters) == (6 * 64 * 4, 6 * 2 * 9 + 6)
    single = describe(net, 10)
    assert describe(net.astype(np.float64), 10).activations == 2 * single.activations


def test_nothing_runs_and_nothing_changes(rng, monkeypatch):
    net = mixed(rng)
    for p in net.parameters():
        p.node.grad = np.ones(p.shape, np.float32)
    net.score.freeze()
    net.drop.training = False
    drawn, ways, state = rng.bit_generator.state, dict(convolution.WAYS), net.state_dict()

    def refused(*arguments, **options):
        raise AssertionError("something was computed")

    for product in ("correlate", "spread", "weigh"):
        for way in convolution.WAYS.values():
            monkeypatch.setattr(way, product, refused)
    cost = describe(net, 64)
    assert cost.training > cost.inference > 0
    assert rng.bit_generator.state == drawn and ways == convolution.WAYS
    assert net.training and not net.drop.training and net.score.w.frozen
    assert all("forward" not in vars(part) for part in net.modules())
    assert all((p.node.grad == 1).all() for p in net.parameters() if not p.frozen)
    assert all(np.array_equal(value, state[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("padding", slow_but(["same"], ["same", 100], "a larger net, measured"))
def test_the_memory_is_what_the_arrays_take(padding):
    """The benchmark behind `minifcn describe --check` asks this of three nets at two sizes; here a small one."""
    set_threads(1)
    try:
        net = FCN8s(width=2, padding=padding, classes=4)
        cost = describe(net, 128)
        assert cost.inference == pytest.approx(measured(infer, net, 128), rel=0.1)
        assert cost.training == pytest.approx(measured(train_step, net, 128), rel=0.1)
    finally:
        set_threads(None)


class MemoryHook:
    """CuPy's, as far as it is used: inside `with hook:` the pool reports every piece to it."""

    active: ClassVar[list["MemoryHook"]] = []

    def __enter__(self):
        self.active.append(self)
        return self

    def __exit__(self, *_):
        self.active.remove(self)


@pytest.fixture
def pool(fused_gpu, monkeypatch):
    """Every buffer behind an array of the strict device is a piece from the pool, in blocks of 512 bytes."""
    made, held = DeviceArray.__init__, set()

    def hand_out(array, host, library):
        made(array, host, library)
        owner = host
        while getattr(owner, "base", None) is not None:
            owner = owner.base
        if id(owner) not in held:
            size = -(-owner.nbytes // 512) * 512
            held.add(id(owner))
            weakref.finalize(owner, get_back, id(owner), size)
            for hook in MemoryHook.active:
                hook.malloc_postprocess(device_id=0, size=owner.nbytes, mem_size=size, mem_ptr=1, pmem_id=1)

    def get_back(owner, size):
        held.discard(owner)
        for hook in MemoryHook.active:
            hook.free_postprocess(device_id=0, mem_size=size, mem_ptr=1, pmem_id=1)

    monkeypatch.setattr(DeviceArray, "__init__", hand_out)
    fused_gpu.cuda.MemoryHook = MemoryHook
    return fused_gpu


def test_the_pool_is_booked_beyond_the_level_before(pool):
    kept = pool.zeros((1000,), dtype="float32")
    with counting("gpu") as ledger:
        more = pool.zeros((3000,), dtype="float32")
        assert ledger.peak == 24 * 512
        view, kept = more[::2], None  # what was there before goes: the level sinks below zero
        del more
        assert ledger.live == (24 - 8) * 512 and view.shape == (1500,)
        del view
        pool.zeros((100,), dtype="float32")
    assert (kept, ledger.peak, ledger.live) == (None, 24 * 512, -8 * 512) and not MemoryHook.active


LARGE = pytest.mark.slow("a larger net, measured")


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda rng: NETS["fcn8s"](width=2, classes=4, padding="same"), 96),
        pytest.param(lambda rng: NETS["fcn8s"](width=2, classes=4), 96, marks=LARGE),
        pytest.param(
            lambda rng: NETS["fcn32s"](width=8, classes=5), 160, marks=LARGE
        ),  # columns in more than one block
        pytest.param(lambda rng: NETS["fcn-squeezenet"](classes=12), 96, marks=LARGE),
    ],
)
def test_the_memory_of_a_gpu_is_what_its_arrays_take(make, size, pool, rng):
    """What the libraries behind CuPy take for themselves is unknown here: a real GPU is allowed a tenth."""
    net = make(rng)
    cost = describe(net, size, device="gpu")
    assert cost.inference == pytest.approx(measured(infer, net, size, device="gpu"), rel=0.02)
    assert cost.training == pytest.approx(measured(train_step, net, size, device="gpu"), rel=0.02)
    assert isinstance(next(p.data for p in net.parameters()), DeviceArray)


def test_a_mask_is_drawn_on_the_host(rng):
    """So on a GPU dropout takes its input, the mask and the product; on the CPU also what the mask was made of."""
    peaks = {}
    for device in ("cpu", "gpu"):
        ledger = Ledger(device=device)
        x = Outline((1, 4, 64, 64), "float32", ledger)
        module.dropped(Dropout(0.5, rng=rng).train(), x)
        peaks[device] = ledger.peak / x.nbytes
    assert peaks == {"cpu": 3.25, "gpu": 3}


@pytest.mark.gpu
def test_the_memory_of_a_real_gpu(gpu_reason):
    if gpu_reason:
        pytest.skip(f"no GPU: {gpu_reason}")
    assert max(row.off for row in prediction.check((160,), device="gpu")) <= 0.1


def test_frozen_layers_remember_nothing():
    net = FCN32s(width=2, padding="same")
    everything = describe(net, 96).training
    net.trunk.freeze("block1", "block2")
    assert describe(net, 96).training < everything - 2 * 2 * 96 * 96 * 4  # conv1_1 and conv1_2, two channels each
    net.freeze()
    assert describe(net, 96).training == 0


def test_a_larger_batch_takes_more():
    net = FCN32s(width=2, padding="same")
    assert describe(net, 96, batch=4).inference > 2 * describe(net, 96).inference


# ---- an outline ----------------------------------------------------------------------------------------------------


def test_an_outline_is_counted_while_it_lives():
    ledger = Ledger()
    x = Outline((2, 3), "float32", ledger)
    y = x + x
    assert ledger.live == 48 and (y.shape, y.dtype) == ((2, 3), np.dtype("float32"))
    view = y[:, 1:]
    del y
    assert ledger.live == 48 and view.shape == (2, 2)
    del view
    assert (ledger.live, ledger.peak) == (24, 48)


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x * 2,
        lambda x: x > 0,
        lambda x: -x,
        lambda x: x.reshape(2, -1),
        lambda x: x.reshape((3, 8)),
        lambda x: x.transpose(1, 0, 2),
        lambda x: x.swapaxes(0, 2),
        lambda x: x[..., ::2, 1:],
        lambda x: x[:, None],
        lambda x: x.sum(axis=(0, 2)),
        lambda x: x.max(axis=1, keepdims=True),
        lambda x: np.exp(x) + x[:1],
        lambda x: x @ x.swapaxes(1, 2),
        lambda x: np.ones((5, 3), np.float32) @ x,
        lambda x: np.concatenate([x, x], axis=1),
        lambda x: np.expand_dims(x, (0, 2)),
        lambda x: np.broadcast_to(x, (7, 2, 3, 4)),
        lambda x: np.where(x > 0, x, 0),
        lambda x: x.astype("float64"),
        lambda x: x.T,
        lambda x: np.zeros_like(x),
    ],
)
def test_an_outline_has_the_shape_and_dtype_of_the_array(form, rng):
    real, outline = form(rng.standard_normal((2, 3, 4)).astype(np.float32)), None
    outline = form(Outline((2, 3, 4), "float32", Ledger()))
    assert (outline.shape, outline.dtype) == (real.shape, real.dtype)


# ---- the command, and refusals -------------------------------------------------------------------------------------


def test_an_image_too_small_is_refused_by_name():
    with pytest.raises(GeometryError, match=r"head\.fc6: a kernel of 7x7 .* takes images from 195x195 pixels on"):
        describe(vgg(0, width=1), 100)
    assert describe(vgg(0, width=1), 195).rows[-1].shape[2:] == (1, 1)


@pytest.mark.parametrize("size", [20, 40])
def test_a_classifier_takes_images_of_one_size(size):
    net = classifier(LeNet, width=1, classes=3, init="zero")
    assert describe(net, 28).rows[-1].shape == (1, 3)
    with pytest.raises(GeometryError, match=r"^trunk\.head\.ip1: .* this classifier takes images of 28x28 pixels$"):
        describe(net, size)


def test_late_fusion_gets_an_image_for_each_net_with_its_own_channels():
    color, depth = (FCN32s(width=1, classes=4, in_channels=count, init="zero") for count in (3, 1))
    cost = describe(LateFusion(color=color, depth=depth), 40)
    assert cost.multiply_adds == describe(color, 40).multiply_adds + describe(depth, 40).multiply_adds
    assert {row.name.split(".")[0] for row in cost.rows} == {"color", "depth"}
    assert cost.parameters == sum(p.size for _, p in [*color.named_parameters(), *depth.named_parameters()])


def test_layers_that_do_not_fit_are_named(rng):
    net = Sequential(conv1=Conv2d(3, 4, 3, init=rng), conv2=Conv2d(5, 2, 1, init=rng))
    with pytest.raises(ShapeError, match=r"^conv2: conv2d: x \(1, 4, 18, 18\) has 4 channels .* divisible by 1$"):
        describe(net, 20)
    assert all("forward" not in vars(part) for part in net.modules())


def test_a_net_without_convolutions_is_refused(rng):
    with pytest.raises(UsageError, match="Sequential has no convolution"):
        describe(Sequential(fc=Linear(3, 2, init=rng)), 5)


def test_the_command(capsys):
    assert main(["fcn8s", "--size", "64x80", "--width", "1", "--classes", "3"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^trunk\.head\.fc6 +Conv2d +64x\d+x\d+ +404 +32 ", printed, re.MULTILINE)
    assert re.search(r"^upscore8 +Upsample +3x", printed, re.MULTILINE) and "a training step holds" in printed


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["fcn9s"], "found net 'fcn9s'; expected one of vgg11, vgg13, vgg16, vgg19, alexnet, googlenet, lenet, "),
        (["fcn9s"], ", fcn32s, fcn16s, fcn8s, voc-fcn32s, "),
        (["fcn9s"], ", fcn-dilated; did you mean 'fcn8s'?"),
        ([], "found net 'none'"),
        (["fcn-googlenet", "--layers", "16"], "option layers is not one of fcn-googlenet's; leave it out"),
        (["lenet", "--batch", "0"], "option batch is 0; expected a number of at least 1"),
        (["lenet", "--size", "100"], "this classifier takes images of 28x28 pixels"),
        (["fcn8s", "--size", "0x5"], "option size is '0x5'"),
        (["fcn8s", "--size", "5x5x5"], "option size is"),
        (["fcn8s", "--padding", "some"], "padding is 'some'"),
        (["fcn8s", "--sise", "5"], "did you mean --size"),
        (["fcn8s", "--device", "tpu"], "option device is 'tpu'; expected one of cpu, gpu"),
    ],
)
def test_the_command_refuses(argv, words, capsys):
    assert guard(main, argv) == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow("measures a net")
def test_the_check_judges(monkeypatch, capsys):
    monkeypatch.setattr(prediction, "CHECKED", (("fcn32s", {"width": 1, "padding": "same"}),))
    assert main(["--check"]) == 0
    assert capsys.readouterr().out.count("predicted") == 4
    monkeypatch.setattr(prediction, "measured", lambda *_, device: 1)
    assert print_check("cpu") == 1
