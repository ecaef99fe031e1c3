"""Layers: their names and order, what is frozen, what a state may be loaded into, and what is refused when built."""

import concurrent.futures
import threading

import numpy as np
import pytest

from minifcn import ops
from minifcn.backend import to_device, to_host, xp_of
from minifcn.errors import FormatError, MinifcnError, ShapeError, UsageError
from minifcn.geometry import Grid, Layer
from minifcn.nn import (
    AvgPool2d,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Module,
    Sequential,
    Upsample,
    bilinear,
    evaluating,
)
from minifcn.tensor import Parameter, Tensor


class Net(Module):
    """Names out of alphabetical order, a module without parameters, one without a bias, and things that are neither."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.width = 3
        self.trunk = Sequential(
            conv2=Conv2d(2, 3, 3, init=rng, padding=1),
            pool=MaxPool2d(2, ceil_mode=True),
            drop=Dropout(0.5, rng=rng),
            conv1=Conv2d(3, 4, 1, init=rng, bias=False),
        )
        self.options = {"ignored": Conv2d(1, 1, 1, init="zero")}
        self.score = Conv2d(4, 5, 1, init="zero")
        self.scale = Parameter(np.ones(1, np.float32))

    def forward(self, x):
        return self.score(self.trunk(x)) * self.scale


NAMES = ["trunk.conv2.w", "trunk.conv2.b", "trunk.conv1.w", "score.w", "score.b", "scale"]
IMAGE = np.random.default_rng(3).standard_normal((2, 2, 6, 8)).astype(np.float32)


# Walking


def test_parameters_come_by_dotted_name_in_order_of_assignment():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == NAMES
    assert [name for name, _ in net.named_parameters("net.")] == ["net." + name for name in NAMES]
    assert dict(net.named_parameters())["trunk.conv2.w"] is net.trunk.conv2.w
    assert [name for name, _ in net.children()] == ["trunk", "score", "scale"]
    kinds = [type(module).__name__ for module in net.modules()]
    assert [module for _, module in net.named_modules()] == list(net.modules())
    assert kinds == ["Net", "Sequential", "Conv2d", "MaxPool2d", "Dropout", "Conv2d", "Conv2d"]


def test_the_same_seed_is_the_same_net():
    one, other, third = Net(1).state_dict(), Net(1).state_dict(), Net(2).state_dict()
    assert all(np.array_equal(one[name], other[name]) for name in NAMES)
    assert not np.array_equal(one["trunk.conv2.w"], third["trunk.conv2.w"])


def test_train_and_eval_reach_every_module():
    net = Net()
    assert net.training and net.eval() is net and not any(m.training for m in net.modules())
    assert net.train() is net and all(m.training for m in net.modules())


def test_evaluating_leaves_every_module_in_its_mode():
    net = Net()
    net.trunk.drop.eval()
    before = [m.training for m in net.modules()]
    with evaluating(net) as inside:
        assert inside is net and not any(m.training for m in net.modules())
        assert net(Tensor(IMAGE)).node is None
    assert [m.training for m in net.modules()] == before
    with pytest.raises(ZeroDivisionError), evaluating(net):
        raise ZeroDivisionError
    assert [m.training for m in net.modules()] == before
    assert net(Tensor(IMAGE)).node is not None


def test_layers_are_the_windows_in_order():
    net = Sequential(
        conv=Conv2d(1, 1, 3, init="zero", stride=2, padding=1),
        drop=Dropout(0.5, rng=np.random.default_rng(0)),
        norm=LocalResponseNorm(),
        pool=MaxPool2d(3, stride=2, ceil_mode=True),
        up=Upsample(1, 4, 2, padding=1),
        back=ConvTranspose2d(1, 1, 3, init="zero", stride=2, padding=1, output_padding=1),
    )
    assert net.layers() == [
        Layer(3, 2, 1),
        Layer(3, 2, ceil=True),
        Layer(4, 2, 1, transpose=True),
        Layer(3, 2, 1, transpose=True, output_padding=1),
    ]
    size = 13
    for layer in net.layers():
        size = layer.out_size(size)
    assert net(Tensor(np.zeros((1, 1, 13, 13), np.float32))).shape == (1, 1, size, size)
    assert Grid.of(net.layers()).stride == 1
    assert list(net.sequence()) == ["conv", "drop", "norm", "pool", "up", "back"]


def test_a_module_without_a_forward_says_so():
    class Forgotten(Module):
        pass

    with pytest.raises(UsageError, match="Forgotten defines no forward"):
        Forgotten()(1)


def test_generators_are_those_that_are_drawn_from():
    net = Net()
    assert net.generators() == [net.trunk.drop.rng]


def test_parameters_move_and_change_dtype(device):
    net = Net()
    assert net.to(device) is net
    assert all(xp_of(p.data) is xp_of(to_device(np.ones(1), device)) for p in net.parameters())
    assert net.astype(np.float64) is net and {p.dtype for p in net.parameters()} == {np.dtype("float64")}
    assert all(isinstance(value, np.ndarray) for value in net.state_dict().values())
    y = net.eval()(Tensor(to_device(IMAGE.astype("float64"), device)))
    assert y.dtype == np.float64 and y.shape == (2, 5, 3, 4)


# Freezing


def frozen(net):
    return [name for name, p in net.named_parameters() if p.frozen]


@pytest.mark.parametrize(
    ("names", "hit"),
    [
        (["trunk"], NAMES[:3]),
        (["conv1"], ["trunk.conv1.w"]),
        (["trunk.conv2"], NAMES[:2]),
        (["b"], ["trunk.conv2.b", "score.b"]),
        (["score.w"], ["score.w"]),
        (["conv1", "scale"], ["trunk.conv1.w", "scale"]),
        ([], NAMES),
    ],
)
def test_freeze_takes_whole_names_anywhere_in_the_path(names, hit):
    net = Net()
    assert net.freeze(*names) is net and frozen(net) == hit
    assert net.freeze(*names, frozen=False) is net and frozen(net) == []


@pytest.mark.parametrize("name", ["conv", "trunk.conv", "conv2.w.", "trunk.*", "drop"])
def test_freezing_nothing_is_refused(name):
    net = Net()
    with pytest.raises(UsageError, match=r"freeze: no parameter lies in .*; names here are b, conv1, conv2, sc"):
        net.freeze("score", name)
    assert frozen(net) == []


def test_only_what_is_not_frozen_gets_a_gradient():
    net = Net().freeze("trunk")
    net(Tensor(IMAGE)).sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is not None] == ["score.w", "score.b", "scale"]
    assert set(net.state_dict()) == set(NAMES)  # frozen parameters are part of the net all the same


# State


def test_a_state_is_a_copy():
    net = Net()
    state = net.state_dict()
    state["scale"][:] = 7
    assert net.scale.data.tolist() == [1]
    assert list(state) == NAMES and {x.dtype for x in state.values()} == {np.dtype("float32")}


def test_load_takes_every_parameter():
    net, other = Net(1), Net(2)
    state = other.state_dict()
    assert net.load_state_dict(state) is net
    assert all(np.array_equal(value, state[name]) for name, value in net.state_dict().items())
    net.scale.data[:] = 9  # what was loaded is a copy, too
    assert state["scale"].tolist() == [1] and other.scale.data.tolist() == [1]


def test_load_keeps_the_nets_dtype_and_device(device):
    net = Net(1).to(device)
    net.load_state_dict({name: value.astype("float64") for name, value in Net(2).state_dict().items()})
    assert {p.dtype for p in net.parameters()} == {np.dtype("float32")}
    assert all(xp_of(p.data) is xp_of(to_device(np.ones(1), device)) for p in net.parameters())
    assert np.array_equal(to_host(net.trunk.conv2.w.data), Net(2).state_dict()["trunk.conv2.w"])


def test_load_tells_a_graph_recorded_before():
    net = Net().eval()
    loss = net(Tensor(IMAGE)).sum()
    net.load_state_dict(Net(2).state_dict())
    with pytest.raises(MinifcnError, match="changed after the forward pass"):
        loss.backward()


STATE_FAULTS = {
    "missing": (lambda s: s.pop("score.b"), r"1 missing: score.b$"),
    "unexpected": (lambda s: s.update({"fc8.w": np.ones(1)}), r"1 unexpected: fc8.w$"),
    "misshapen": (
        lambda s: s.update({"score.w": np.zeros((21, 4, 1, 1))}),
        r"1 of another shape: score.w \(\(21, 4, 1, 1\) for \(5, 4, 1, 1\)\)$",
    ),
    "of another rank": (lambda s: s.update({"scale": np.float32(1)}), r"1 of another shape: scale \(\(\) for \(1,\)\)"),
    "all at once": (
        lambda s: (s.pop("scale"), s.update({"a": np.ones(1), "score.b": np.ones(6)})),
        r"1 missing: scale; 1 unexpected: a; 1 of another shape: score.b",
    ),
    "many": (lambda s: s.clear(), r"6 missing: trunk.conv2.w, trunk.conv2.b, trunk.conv1.w, score.w, \.\.\.$"),
}


@pytest.mark.parametrize("name", STATE_FAULTS)
def test_another_networks_state_is_refused_and_nothing_changes(name):
    spoil, sentence = STATE_FAULTS[name]
    net, state = Net(1), Net(2).state_dict()
    before = net.state_dict()
    spoil(state)
    with pytest.raises(FormatError, match="these parameters are not this network's: " + sentence):
        net.load_state_dict(state)
    assert all(np.array_equal(value, before[key]) for key, value in net.state_dict().items())


def test_a_loose_load_takes_what_fits():
    net, state = Net(1), Net(2).state_dict()
    before, taken = net.state_dict(), state["trunk.conv2.w"].copy()
    state["score.w"] = np.ones((21, 4, 1, 1), np.float32)
    del state["trunk.conv1.w"]
    net.load_state_dict(state | {"fc8.w": np.ones(1)}, strict=False)
    after = net.state_dict()
    assert np.array_equal(after["trunk.conv2.w"], taken)
    assert all(np.array_equal(after[key], before[key]) for key in ("score.w", "trunk.conv1.w"))


# What is refused, when the layer is built

RNG = np.random.default_rng(0)
REFUSED = {
    "no channels in": (lambda: Conv2d(0, 1, 3, init="zero"), "Conv2d: in_channels is 0; expected .* at least 1"),
    "negative channels": (lambda: Conv2d(1, -2, 3, init="zero"), "Conv2d: out_channels is -2"),
    "half a channel": (lambda: Conv2d(1.5, 2, 3, init="zero"), "Conv2d: in_channels is 1.5; expected a whole number"),
    "kernel 0": (lambda: Conv2d(1, 1, 0, init="zero"), "Conv2d: kernel_size is 0"),
    "kernel True": (lambda: Conv2d(1, 1, True, init="zero"), "Conv2d: kernel_size is True"),
    "stride 0": (lambda: Conv2d(1, 1, 3, init="zero", stride=0), "Conv2d: stride is 0; expected .* at least 1"),
    "negative padding": (lambda: Conv2d(1, 1, 3, init="zero", padding=-1), "Conv2d: padding is -1; .* at least 0"),
    "dilation 0": (lambda: Conv2d(1, 1, 3, init="zero", dilation=0), "Conv2d: dilation is 0"),
    "groups 0": (lambda: Conv2d(1, 1, 3, init="zero", groups=0), "Conv2d: groups is 0"),
    "groups that do not divide in": (lambda: Conv2d(3, 4, 3, init="zero", groups=2), "Conv2d: 3 -> 4 .* 2 groups"),
    "groups that do not divide out": (lambda: Conv2d(4, 3, 3, init="zero", groups=2), "Conv2d: 4 -> 3 .* 2 groups"),
    "init": (lambda: Conv2d(1, 1, 3, init="xavier"), 'Conv2d: init is \'xavier\'; expected "zero", "meta" or'),
    "transposed stride": (lambda: ConvTranspose2d(1, 1, 3, init="zero", stride=0), "ConvTranspose2d: stride is 0"),
    "transposed padding": (lambda: ConvTranspose2d(1, 1, 3, init="zero", padding=-1), "ConvTranspose2d: padding is -1"),
    "transposed groups": (
        lambda: ConvTranspose2d(4, 3, 3, init="zero", groups=2),
        "Transpose2d: 4 -> 3 .* 2 groups",
    ),
    "output padding": (
        lambda: ConvTranspose2d(1, 1, 3, init="zero", stride=2, output_padding=2),
        "ConvTranspose2d: output_padding is 2; expected below the stride 2",
    ),
    "upsampling stride": (lambda: Upsample(1, 4, 0), "Upsample: stride is 0"),
    "upsampling kernel": (lambda: Upsample(1, 0, 1), "Upsample: kernel_size is 0"),
    "upsampling channels": (lambda: Upsample(0, 4, 2), "Upsample: channels is 0"),
    "upsampling padding": (lambda: Upsample(1, 4, 2, padding=-2), "Upsample: padding is -2"),
    "pool kernel": (lambda: MaxPool2d(0, ceil_mode=True), "MaxPool2d: kernel_size is 0"),
    "pool stride": (lambda: MaxPool2d(2, stride=0, ceil_mode=True), "MaxPool2d: stride is 0"),
    "pool dilation": (lambda: MaxPool2d(2, dilation=0, ceil_mode=True), "MaxPool2d: dilation is 0"),
    "pool padding": (lambda: AvgPool2d(2, padding=-1, ceil_mode=True), "AvgPool2d: padding is -1"),
    "pool in the padding": (
        lambda: AvgPool2d(2, padding=2, ceil_mode=True),
        "AvgPool2d: padding is 2; expected below 2",
    ),
    "even LRN": (lambda: LocalResponseNorm(size=4), "LocalResponseNorm: size is 4; expected an odd number"),
    "LRN of nothing": (lambda: LocalResponseNorm(size=0), "LocalResponseNorm: size is 0"),
    "dropout of all": (lambda: Dropout(1.0, rng=RNG), "Dropout: p is 1.0; expected .* below 1"),
    "negative dropout": (lambda: Dropout(-0.1, rng=RNG), "Dropout: p is -0.1"),
    "dropout of NaN": (lambda: Dropout(float("nan"), rng=RNG), "Dropout: p is nan"),
    "linear": (lambda: Linear(0, 1, init="zero"), "Linear: in_features is 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_layer_no_network_can_have_is_refused_when_it_is_built(name):
    build, sentence = REFUSED[name]
    with pytest.raises(MinifcnError, match=sentence) as refusal:
        build()
    assert "\n" not in str(refusal.value) and refusal.value.exit_code == 2


def images(*shape, dtype=np.float32):
    return Tensor(np.zeros(shape, dtype))


AT_FORWARD = {
    "kernel larger than the padded image": (
        lambda: Conv2d(2, 1, 5, init="zero", padding=1)(images(1, 2, 2, 9)),
        r"5x5 .* covers 5x5 pixels but the image padded by \(1, 1\) has only 4x11",
    ),
    "channels": (lambda: Conv2d(2, 1, 3, init="zero")(images(1, 3, 8, 8)), "3 channels and w .* wants 2"),
    "channels of a transposed convolution": (
        lambda: ConvTranspose2d(2, 1, 3, init="zero")(images(1, 3, 8, 8)),
        "3 channels and w .* wants 2",
    ),
    "channels of a learned upsampling": (lambda: Upsample(3, 4, 2, learn=True)(images(1, 2, 4, 4)), "2 channels .* 3"),
    "rank": (lambda: Conv2d(2, 1, 3, init="zero")(images(2, 8, 8)), r"\(N, C, H, W\) and got shape \(2, 8, 8\)"),
    "dtype": (
        lambda: Conv2d(1, 1, 3, init="zero")(images(1, 1, 8, 8, dtype=np.float64)),
        "x is float64 and w",
    ),
    "bytes": (
        lambda: MaxPool2d(2, ceil_mode=True)(images(1, 1, 8, 8, dtype=np.uint8)),
        "float32 or float64 images and got uint8",
    ),
    "pool larger than the image": (lambda: MaxPool2d(4)(images(1, 1, 3, 8)), "window of 4 .* into 3"),
    "features": (lambda: Linear(3, 2, init="zero")(images(4, 5)), r"matmul: shapes \(4, 5\) and \(3, 2\)"),
    "upsampling cut to nothing": (
        lambda: Upsample(1, 2, 2, padding=1)(images(1, 1, 1, 1)),
        r"of 2 .* 1 \+ 2\*1",
    ),
}


@pytest.mark.parametrize("name", AT_FORWARD)
def test_an_image_that_does_not_fit_is_refused_at_forward(name):
    call, sentence = AT_FORWARD[name]
    with pytest.raises(ShapeError, match=sentence) as refusal:
        call()
    assert "\n" not in str(refusal.value)


def test_a_ceil_pool_larger_than_its_image_is_one_clipped_window():
    x = np.array([[[[1.0, 5.0], [3.0, 2.0]]]], np.float32)
    assert MaxPool2d(3, stride=2, ceil_mode=True)(Tensor(x)).data.tolist() == [[[[5.0]]]]
    assert AvgPool2d(3, stride=2, ceil_mode=True)(Tensor(x)).data.tolist() == [[[[2.75]]]]


# Layers compute what their ops compute


def test_layers_hand_their_arguments_to_the_op():
    rng = np.random.default_rng(5)
    x = Tensor(IMAGE)
    conv = Conv2d(2, 4, 3, init=rng, stride=2, padding=2, dilation=2, groups=2, relu=True)
    conv.b.data[:] = [1, -1, 2, 0]
    exact = ops.conv2d(IMAGE, conv.w.data, conv.b.data, stride=2, padding=2, dilation=2, groups=2, relu=True)
    assert np.array_equal(conv(x).data, exact.data) and exact.data.min() == 0

    back = ConvTranspose2d(2, 4, 3, init=rng, stride=2, padding=1, output_padding=1, groups=2)
    back.b.data[:] = 3
    exact = ops.conv_transpose2d(IMAGE, back.w.data, back.b.data, stride=2, padding=1, output_padding=1, groups=2)
    assert np.array_equal(back(x).data, exact.data)

    options = {"stride": 2, "padding": 1, "dilation": 2}
    for layer, op in ((MaxPool2d, ops.max_pool2d), (AvgPool2d, ops.avg_pool2d)):
        assert np.array_equal(
            layer(3, ceil_mode=True, **options)(x).data, op(IMAGE, kernel_size=3, ceil_mode=True, **options).data
        )
        assert np.array_equal(layer(3, **options)(x).data, op(IMAGE, kernel_size=3, **options).data)
        assert layer(2)(x).shape == (2, 2, 3, 4)

    options = {"size": 3, "alpha": 0.5, "beta": 0.6, "k": 2.0}
    assert np.array_equal(LocalResponseNorm(**options)(x).data, ops.local_response_norm(IMAGE, **options).data)

    linear = Linear(8, 3, init=rng)
    linear.b.data[:] = [1, 2, 3]
    rows = IMAGE.reshape(-1, 8)
    assert np.allclose(linear(Tensor(rows)).data, rows @ linear.w.data.T + [1, 2, 3], atol=1e-5)


def test_he_numbers_keep_the_signals_size():
    rng = np.random.default_rng(0)
    conv = Conv2d(32, 64, 3, init=rng)
    assert conv.w.data.std() == pytest.approx(np.sqrt(2 / (32 * 9)), rel=0.02) and not conv.b.data.any()
    x = Tensor(np.abs(rng.standard_normal((1, 32, 20, 20))).astype(np.float32))
    y = conv(x).data
    assert (y**2).mean() / 2 == pytest.approx((x.data**2).mean(), rel=0.3)
    assert not Conv2d(3, 4, 3, init="zero").w.data.any()


# Dropout


def ones(*shape, dtype=np.float32):
    return Tensor(np.ones(shape, dtype))


def test_dropout_zeroes_a_share_and_keeps_the_mean():
    y = Dropout(0.25, rng=np.random.default_rng(0))(ones(4, 8, 50, 50)).data
    assert set(np.unique(y).tolist()) == {0.0, float(np.float32(1) / np.float32(0.75))}
    assert (y == 0).mean() == pytest.approx(0.25, abs=0.01) and y.mean() == pytest.approx(1, abs=0.01)
    assert y.dtype == np.float32


def test_dropout_drops_single_numbers_not_channels():
    y = Dropout(0.5, rng=np.random.default_rng(0))(ones(2, 3, 8, 8)).data
    share = (y == 0).mean(axis=(2, 3))
    assert ((share > 0.2) & (share < 0.8)).all()


def test_dropout_is_the_same_for_the_same_seed_and_new_every_time(device):
    def draw(seed):
        layer = Dropout(0.5, rng=np.random.default_rng(seed))
        x = Tensor(to_device(np.ones((2, 3, 8, 8), np.float32), device))
        return to_host(layer(x).data), to_host(layer(x).data)

    (one, next_one), (other, _), (third, _) = draw(0), draw(0), draw(1)
    assert np.array_equal(one, other) and not np.array_equal(one, next_one) and not np.array_equal(one, third)
    drawn = np.random.default_rng(0).random((2, 3, 8, 8), dtype=np.float32)
    assert np.array_equal(one == 0, drawn < 0.5)  # on every device the host's numbers


def test_dropout_draws_the_same_in_both_dtypes():
    one = Dropout(0.5, rng=np.random.default_rng(0))(ones(1, 2, 4, 4)).data
    other = Dropout(0.5, rng=np.random.default_rng(0))(ones(1, 2, 4, 4, dtype=np.float64)).data
    assert other.dtype == np.float64 and np.array_equal(one, other)


def test_dropout_is_nothing_in_evaluation():
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    x = ones(1, 2, 4, 4)
    assert Dropout(0.5, rng=rng).eval()(x) is x and Dropout(0.0, rng=rng)(x) is x
    assert rng.bit_generator.state == before  # and it draws nothing


def test_the_gradient_passes_where_the_number_did():
    x = Parameter(np.ones((1, 2, 6, 6), np.float32))
    y = Dropout(0.5, rng=np.random.default_rng(0))(x)
    y.backward(np.ones_like(y.data))
    assert np.array_equal(x.grad, y.data)


def test_a_float32_step_makes_no_float64_and_carries_only_the_mask(fake_gpu):
    """Row 37: every kind of layer, forward and backward, on the strict device."""
    rng = np.random.default_rng(0)
    net = Sequential(
        conv=Conv2d(2, 4, 3, init=rng, padding=1, relu=True),
        norm=LocalResponseNorm(size=3),
        pool=MaxPool2d(3, stride=2, ceil_mode=True),
        mean=AvgPool2d(2, stride=1, padding=1, ceil_mode=True),
        drop=Dropout(0.5, rng=rng),
        back=ConvTranspose2d(4, 3, 4, init=rng, stride=2, padding=1),
        learned=Upsample(3, 4, 2, learn=True),
        fixed=Upsample(3, 3, 2),
    ).to("gpu")
    x = Tensor(to_device(IMAGE, "gpu"))
    size = net.eval()(x).shape
    truth = to_device(np.zeros((size[0], *size[2:]), "int64"), "gpu")
    net.train()
    uploads, downloads = fake_gpu.uploads, fake_gpu.downloads
    with fake_gpu.no_float64():
        loss = ops.softmax_cross_entropy(net(x), truth)
        loss.backward()
    assert (fake_gpu.uploads - uploads, fake_gpu.downloads - downloads) == (1, 0)
    assert all(isinstance(p.grad, fake_gpu.ndarray) and p.grad.dtype == np.float32 for p in net.parameters())


# Upsampling


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(4, 2, 0), (4, 2, 1), (3, 2, 1), (16, 8, 4), (5, 3, 0)])
def test_learned_upsampling_starts_as_the_fixed_one(kernel, stride, padding):
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    fixed, grouped, dense = (
        Upsample(3, kernel, stride, padding=padding, learn=learn, grouped=groups)
        for learn, groups in ((False, True), (True, True), (True, False))
    )
    assert [len(dict(up.named_parameters())) for up in (fixed, grouped, dense)] == [0, 1, 1]
    assert grouped.w.shape == (3, 1, kernel, kernel) and dense.w.shape == (3, 3, kernel, kernel)
    y = fixed(Tensor(x)).data
    assert np.allclose(grouped(Tensor(x)).data, y, atol=1e-5) and np.allclose(dense(Tensor(x)).data, y, atol=1e-5)
    assert fixed.layers() == grouped.layers() == dense.layers() == [Layer(kernel, stride, padding, transpose=True)]


def test_the_dense_kernel_is_zero_beside_the_diagonal():
    w = Upsample(3, 4, 2, learn=True, grouped=False).w.data
    for i in range(3):
        for j in range(3):
            assert np.array_equal(w[i, j], bilinear(4) if i == j else np.zeros((4, 4)))


def test_learned_upsampling_learns():
    up = Upsample(2, 4, 2, learn=True)
    up(ones(1, 2, 3, 3)).sum().backward()
    assert up.w.grad.shape == up.w.shape and (up.w.grad == 9).all()


def test_one_thread_evaluates_while_another_trains():
    net = Sequential(drop=Dropout(0.5, rng=np.random.default_rng(0)))
    started, done = threading.Event(), threading.Event()

    def evaluate():
        with evaluating(net):
            started.set()
            done.wait(10)
            assert not net.training and not net.drop.training

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        evaluation = pool.submit(evaluate)
        assert started.wait(10) and net.training and net.drop.training
        x = Parameter(np.ones((4, 50), np.float32))
        y = net(x)
        assert y.node is not None and 0 < (y.data == 0).sum() < y.size
        done.set()
        evaluation.result()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_evaluating_blocks_may_end_in_any_order(order):
    net = Sequential(drop=Dropout(0.5, rng=np.random.default_rng(0)))
    blocks = [evaluating(net), evaluating(net)]
    for block in blocks:
        block.__enter__()
    for i in order:
        assert not net.drop.training
        blocks[i].__exit__(None, None, None)
    assert net.drop.training
