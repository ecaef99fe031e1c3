"""FCN-32s, 16s and 8s: as large as published, as the figure says, right to the last gradient, clear when refusing."""

import math
from fractions import Fraction

import numpy as np
import pytest
from some_slow import slow_but

from minifcn import ops
from minifcn.backend import to_device
from minifcn.errors import FormatError, GeometryError, GradientError, MinifcnError, ShapeError, UsageError
from minifcn.geometry import Grid
from minifcn.gradcheck import gradcheck_along
from minifcn.introspect.figure import figure
from minifcn.models.efficientnet import EfficientNetLite0
from minifcn.models.fcn import FCN, FCN8s, FCN16s, FCN32s, fcn, vgg_fcn
from minifcn.models.trunk import Trunk, enlarged
from minifcn.models.vgg import VGG
from minifcn.nn import Conv2d, Dropout, MaxPool2d, Sequential
from minifcn.ops import crop
from minifcn.optim import SGD
from minifcn.tensor import Tensor

NETS = {"32s": FCN32s, "16s": FCN16s, "8s": FCN8s}
nets = pytest.mark.parametrize("net", NETS)


def randomized(net, seed=1):
    """float64, scores that are not zero, biases that keep ReLUs alive and off their kink at 0."""
    rng = np.random.default_rng(seed)
    for name, p in net.named_parameters():
        noise = rng.standard_normal(p.shape)
        if name.endswith(".b"):
            p.data = rng.uniform(0.05, 0.3, p.shape)
        elif name.startswith("upscore"):
            p.data = p.data + 0.1 * noise
        else:
            p.data = (noise * math.sqrt(2 / math.prod(p.shape[1:]))).astype(np.float64)
    return net.astype(np.float64)


def photo(*size, batch=1, channels=3, seed=2, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal((batch, channels, *size)).astype(dtype)


def labels(x, classes, seed=3):
    """One class per pixel, a tenth of them void."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, (x.shape[0], *x.shape[2:]))
    return np.where(rng.random(truth.shape) < 0.1, 255, truth)


def loss_of(net, x, truth):
    return ops.softmax_cross_entropy(net(x), truth)


# ---- sizes -------------------------------------------------------------------------------------------------------


def count(net, prefix=""):
    return sum(p.size for name, p in net.named_parameters() if name.startswith(prefix))


@pytest.mark.parametrize(("net", "total"), [("32s", 134_346_581), ("16s", 134_357_354), ("8s", 134_362_751)])
def test_as_many_parameters_as_published(net, total):
    full = NETS[net](init="zero")  # zeros that are never read take no memory
    assert count(full, "trunk.") == 134_260_544
    assert count(full) == total


def test_width_multiplies_every_channel_count():
    shapes = {w: {n: p.shape for n, p in FCN8s(width=w, init="zero").named_parameters()} for w in (1, 3, 64)}
    assert shapes[64]["trunk.block1.conv1_1.w"] == (64, 3, 3, 3)
    assert shapes[64]["trunk.head.fc6.w"] == (4096, 512, 7, 7)
    assert shapes[64]["trunk.head.fc7.w"] == (4096, 4096, 1, 1)
    for width in (1, 3):
        for name, shape in shapes[64].items():
            fixed = {(0,): 21, (1,): 3} if name.startswith("score") else {(1,): 3}  # classes and colours stay
            thin = tuple(n if fixed.get((i,)) == n else n * width // 64 for i, n in enumerate(shape[:2]))
            assert shapes[width][name] == thin + shape[2:], name


@pytest.mark.parametrize(("layers", "convolutions"), [(11, 8), (13, 10), (16, 13), (19, 16)])
def test_the_sisters_of_vgg16(layers, convolutions):
    trunk = VGG(layers=layers, width=1, padding="same", init="zero", rng=np.random.default_rng(0))
    weights = [name for name, _ in trunk.named_parameters() if name.endswith(".w")]
    assert len([name for name in weights if ".conv" in name]) == convolutions == layers - 3
    assert weights[-2:] == ["head.fc6.w", "head.fc7.w"]
    assert vgg_fcn((), layers=layers, width=1, classes=2)(photo(9, 9, dtype=np.float32)).shape == (1, 2, 9, 9)


def test_names_are_the_papers():
    names = [name for name, _ in FCN8s(width=1, upsampling="all learned").named_parameters() if name.endswith(".w")]
    assert names[:3] == ["trunk.block1.conv1_1.w", "trunk.block1.conv1_2.w", "trunk.block2.conv2_1.w"]
    assert names[12:] == [
        "trunk.block5.conv5_3.w",
        "trunk.head.fc6.w",
        "trunk.head.fc7.w",
        "score_fr.w",
        "upscore2.w",
        "score_pool4.w",
        "upscore_pool4.w",
        "score_pool3.w",
        "upscore8.w",
    ]


SIZES = [(1, 1), (1, 40), (40, 1), (31, 33), (32, 32), (500, 1), (2, 75)]


@nets
@pytest.mark.parametrize(
    "padding", slow_but(["same", "safe"], ["same", "safe", 97, 100, 111], "a wide border makes large maps")
)
def test_any_size_comes_out_at_its_own_size(net, padding, rng):
    fcn = NETS[net](width=1, classes=3, padding=padding).eval()
    for size in [*SIZES, *(tuple(rng.integers(1, 100, 2)) for _ in range(4))]:
        y = fcn(photo(*size, dtype=np.float32))
        assert y.shape == (1, 3, *size) and y.dtype == np.float32


@nets
def test_width_2_too_and_every_image_of_a_batch_on_its_own(net):
    fcn = randomized(NETS[net](width=2, classes=4)).eval()
    x = photo(45, 27, batch=3)
    y = fcn(x).data
    assert y.shape == (3, 4, 45, 27)
    for i in range(3):
        np.testing.assert_allclose(y[i : i + 1], fcn(x[i : i + 1]).data, rtol=1e-10, atol=1e-10)


def test_four_channels_go_in_as_well():
    assert FCN32s(width=1, classes=2, in_channels=4)(photo(8, 9, channels=4, dtype=np.float32)).shape == (1, 2, 8, 9)


def test_safe_is_97():
    assert FCN8s(width=1, padding="safe").trunk.layers()[0].padding == 97
    assert vgg_fcn(("pool4",), width=1, padding="safe").trunk.layers()[0].padding == 97


# ---- the figure --------------------------------------------------------------------------------------------------

FIGURES = {
    ("8s", 100): """\
pool3 = block3(block2(block1(image)));  pool4 = block4(pool3);  pool5 = block5(pool4)
fc7 = drop7(relu(fc7(drop6(relu(fc6(pool5))))))

score = upscore2(score_fr(fc7))                                  # stride 16
score = score + crop(score_pool4(pool4), like=score, at=5)       # fuse_pool4
score = upscore_pool4(score)                                     # stride 8
score = score + crop(score_pool3(pool3), like=score, at=9)       # fuse_pool3
score = upscore8(score)                                          # stride 1
return crop(score, like=image, at=31)""",
    ("16s", 100): """\
pool4 = block4(block3(block2(block1(image))));  pool5 = block5(pool4)
fc7 = drop7(relu(fc7(drop6(relu(fc6(pool5))))))

score = upscore2(score_fr(fc7))                                  # stride 16
score = score + crop(score_pool4(pool4), like=score, at=5)       # fuse_pool4
score = upscore16(score)                                         # stride 1
return crop(score, like=image, at=27)""",
    ("32s", 100): """\
pool5 = block5(block4(block3(block2(block1(image)))))
fc7 = drop7(relu(fc7(drop6(relu(fc6(pool5))))))

score = upscore(score_fr(fc7))                                   # stride 1
return crop(score, like=image, at=19)""",
    ("8s", "same"): """\
pool3 = block3(block2(block1(image)));  pool4 = block4(pool3);  pool5 = block5(pool4)
fc7 = drop7(relu(fc7(drop6(relu(fc6(pool5))))))

score = upscore2(score_fr(fc7))                                  # stride 16
score = crop(score, like=pool4, at=0) + score_pool4(pool4)       # fuse_pool4
score = upscore_pool4(score)                                     # stride 8
score = crop(score, like=pool3, at=0) + score_pool3(pool3)       # fuse_pool3
score = upscore8(score)                                          # stride 1
return crop(score, like=image, at=0)""",
}


@pytest.mark.parametrize(("net", "padding"), FIGURES)
def test_the_figure(net, padding):
    assert figure(NETS[net](width=1, padding=padding)) == FIGURES[net, padding]


def test_the_figure_shows_scales_and_max_fusion():
    lines = figure(FCN16s(width=1, padding=100, fusion="max", skip_scale={"pool4": 0.01})).splitlines()
    assert lines[4].startswith("score = maximum(score, crop(score_pool4(0.01 * pool4), like=score, at=5))")


def run_figure(net, image):
    """The printed program, run line by line with the net's own layers: it must be what the net computes."""
    program = figure(net).replace("return ", "result = ")
    stages = {name: getattr(net.trunk, name) for name in net.trunk.stages.values()}
    layers = dict(net.trunk.head.children()) if "head" in stages else {}
    scope = {**stages, **layers, **vars(net), "crop": crop, "maximum": ops.maximum, "relu": ops.relu, "image": image}
    exec(program, scope)  # noqa: S102 (the text is ours)
    return scope["result"]


@nets
@pytest.mark.parametrize("options", [{"padding": 100}, {}, {"fusion": "max", "skip_scale": {"pool4": 0.5}}], ids=str)
def test_the_figure_is_what_the_net_computes(net, options):
    fcn, x = randomized(NETS[net](width=1, classes=3, **options)).eval(), photo(37, 50)
    assert np.array_equal(run_figure(fcn, x).data, fcn(x).data)


class Tiny(Trunk):
    """Two stages, the second of them a single layer: as far from VGG as a trunk can be."""

    def __init__(self, rng):
        self.first = Sequential(
            conv=Conv2d(3, 4, 3, stride=2, padding=1, relu=True, init=rng), pool=MaxPool2d(2, ceil_mode=True)
        )
        self.second = Conv2d(4, 5, 3, stride=2, padding=1, init=rng)
        self.stages = {"fine": "first", "coarse": "second"}
        self.channels = {"fine": 4, "coarse": 5}


def test_any_trunk_will_do(rng):
    net = FCN(Tiny(rng), classes=3, skips=("fine",), upsampling="all learned")
    program = figure(net).splitlines()
    assert program[:2] == ["fine = first(image)", "coarse = second(fine)"]
    assert [rung.name for rung in net.ladder.rungs] == ["upscore2", "upscore4"]
    for size in ((40, 50), (41, 51), (43, 58)):
        x = photo(*size)
        assert randomized(net)(x).shape == (1, 3, *size)
        assert np.array_equal(run_figure(net, x).data, net(x).data)
    assert gradcheck_along(lambda: loss_of(net, x, labels(x, 3)), list(net.parameters())) < 1e-6


def test_a_trunk_returns_what_was_asked_for_and_nothing_more():
    trunk, x = FCN8s(width=1).eval().trunk, photo(40, 40, dtype=np.float32)
    assert list(trunk(x)) == ["fc7"] and list(trunk(x, keep=("pool4", "pool3"))) == ["pool3", "pool4", "fc7"]


def test_a_trunk_goes_on_from_the_outputs_that_are_known():
    net = FCN8s(width=1, classes=3).eval()
    x = photo(40, 56, dtype=np.float32)
    known = net.trunk(x, keep=("pool3", "pool4"))
    begun = {name: known[name] for name in ("pool3", "pool4")}
    assert np.array_equal(net.trunk(None, begun=begun)["fc7"].data, known["fc7"].data)
    assert list(net.trunk(None, begun=known)) == ["pool3", "pool4", "fc7"]
    net.score_fr.w.data[:], net.score_pool3.w.data[:] = 0.1, 0.2
    assert np.array_equal(net(x, begun=begun).data, net(x).data)


@pytest.mark.parametrize(("factor", "skips"), [(2, (16, 8, 4)), (4, (8, 4, 2))])
def test_an_enlarged_trunk_sees_pixels_between_the_pixels(factor, skips, rng):
    def larger(**options):
        return enlarged(EfficientNetLite0(**options), factor)

    for stride in skips:
        net = fcn(larger, stride, classes=3, width=1, padding="safe")
        assert (
            Grid.of(net.trunk.layers()).stride == Fraction(32, factor) and stride == net.ladder.rungs[-1].layer.stride
        )
        for size in ((64, 48), (65, 50), (70, 79)):
            assert net(photo(*size, dtype=np.float32)).shape == (1, 3, *size)
    x = photo(6, 7)
    y = net.trunk.enlarge(Tensor(x)).data
    assert np.allclose(y[..., ::factor, ::factor], x)
    assert np.allclose(y[..., 0, factor // 2 :: factor], (x[..., 0, :-1] + x[..., 0, 1:]) / 2)


# ---- gradients ---------------------------------------------------------------------------------------------------

VARIANTS = {
    "32s": (FCN32s, {}),
    "16s": (FCN16s, {}),
    "8s": (FCN8s, {}),
    "32s, padding 100": (FCN32s, {"padding": 100}),
    "16s, padding 100": (FCN16s, {"padding": 100}),
    "8s, padding 100": (FCN8s, {"padding": 100}),
    "8s, learned": (FCN8s, {"upsampling": "learned"}),
    "8s, all learned, padding 100": (FCN8s, {"upsampling": "all learned", "padding": 100}),
    "8s, max": (FCN8s, {"fusion": "max"}),
    "8s, at once": (FCN8s, {"skip_scale": {"pool4": 0.5, "pool3": 0.1}}),
}


def problem(variant, *, training=False):
    """A net of width 2, and its loss on two images with the same dropout masks at every call."""
    build, options = VARIANTS[variant]
    net = randomized(build(width=2, classes=4, **options)).train(training)
    x = photo(38, 45, batch=2)
    truth = labels(x, 4)

    def loss():
        for module in net.modules():
            if isinstance(module, Dropout):
                module.rng = np.random.default_rng(5)
        return loss_of(net, x, truth)

    return net, loss


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    "variant", slow_but([v for v in VARIANTS if "100" not in v], VARIANTS, "a padding of 100 makes large maps")
)
def test_the_gradient_of_the_whole_net(variant, training):
    net, loss = problem(variant, training=training)
    loss().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None and p.grad.any(), name
        p.zero_grad()
    assert gradcheck_along(loss, list(net.parameters())) < 1e-6


def faulty(loss, parameter):
    """`loss` with the gradient of one parameter 1 % too large."""

    def wrapped():
        y = loss()
        waiting = [y.node]
        while waiting:
            node = waiting.pop()
            node.edges = tuple(
                (parent, (lambda gy, g=gradient: 1.01 * g(gy)) if parent is parameter.node else gradient, version)
                for parent, gradient, version in node.edges
            )
            waiting.extend(parent for parent, _, _ in node.edges if parent.op != "parameter")
        return y

    return wrapped


@pytest.mark.parametrize(
    "layer", ["trunk.block1.conv1_1.w", "trunk.block3.conv3_2.b", "trunk.head.fc6.w", "score_pool4.w"]
)
def test_a_gradient_1_percent_too_large_is_noticed(layer):
    net, loss = problem("16s")
    with pytest.raises(GradientError, match="along a random direction"):
        gradcheck_along(faulty(loss, dict(net.named_parameters())[layer]), list(net.parameters()))


# ---- an independent FCN in PyTorch, with the published crops written down ----------------------------------------

BLOCKS = [(1, 2), (2, 2), (3, 3), (4, 3), (5, 3)]
UP = {"32s": [32], "16s": [2, 16], "8s": [2, 2, 8]}
CROPS = {"32s": [19], "16s": [5, 27], "8s": [5, 9, 31]}


def torch_bilinear(torch, scores, factor, padding):
    """Dense C x C kernels, the filter on their diagonal, as in the reference's surgery."""
    line = 1 - (torch.arange(2 * factor, dtype=torch.float64) - (factor - 0.5)).abs() / factor
    w = torch.einsum("oi,a,b->oiab", torch.eye(scores.shape[1], dtype=torch.float64), line, line)
    return torch.nn.functional.conv_transpose2d(scores, w, stride=factor, padding=padding)


def torch_fcn(torch, p, x, net, *, same):
    f, pools = torch.nn.functional, []

    def conv(name, x, padding=0):
        return f.conv2d(x, p[f"{name}.w"], p[f"{name}.b"], padding=padding)

    h, w = x.shape[2:]
    for block, depth in BLOCKS:
        for i in range(1, depth + 1):
            padding = 100 if block == i == 1 and not same else 1
            x = f.relu(conv(f"trunk.block{block}.conv{block}_{i}", x, padding))
        x = f.max_pool2d(x, 2, 2, ceil_mode=True)
        pools.append(x)
    x = f.relu(conv("trunk.head.fc6", x, 3 if same else 0))
    score = conv("score_fr", f.relu(conv("trunk.head.fc7", x)))
    skips = [("score_pool4", pools[3]), ("score_pool3", pools[2])]
    for factor, at, (name, pool) in zip(UP[net], CROPS[net], [*skips[: len(UP[net]) - 1], ("", None)], strict=True):
        score = torch_bilinear(torch, score, factor, factor // 2 if same else 0)
        if pool is None:
            at = 0 if same else at
            return score[:, :, at : at + h, at : at + w]
        skip = conv(name, pool)
        if same:
            score = score[:, :, : skip.shape[2], : skip.shape[3]] + skip
        else:
            score = score + skip[:, :, at : at + score.shape[2], at : at + score.shape[3]]


@nets
@pytest.mark.parametrize("padding", [100, "same"])
def test_scores_and_every_gradient_as_in_pytorch(net, padding, torch):
    fcn, x = randomized(NETS[net](width=2, classes=5, padding=padding)).eval(), photo(53, 37, batch=2)
    truth = labels(x, 5)
    loss = loss_of(fcn, x, truth)
    loss.backward()

    theirs = {name: torch.tensor(p.data, requires_grad=True) for name, p in fcn.named_parameters()}
    scores = torch_fcn(torch, theirs, torch.tensor(x), net, same=padding == "same")
    expected = torch.nn.functional.cross_entropy(scores, torch.tensor(truth), ignore_index=255)
    expected.backward()

    np.testing.assert_allclose(fcn(x).data, scores.detach().numpy(), rtol=1e-10, atol=1e-10)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for name, p in fcn.named_parameters():
        wanted = theirs[name].grad.numpy()
        assert np.abs(p.grad - wanted).max() <= 1e-10 * np.abs(wanted).max(), name


# ---- at the start ------------------------------------------------------------------------------------------------


@nets
@pytest.mark.parametrize("classes", [2, 21])
def test_a_fresh_net_knows_nothing_its_loss_is_ln_c(net, classes):
    fcn = NETS[net](width=1, classes=classes).astype(np.float64)
    x = photo(30, 41)
    assert loss_of(fcn, x, labels(x, classes)).item() == pytest.approx(math.log(classes), rel=1e-14)
    assert not fcn(x).data.any()


def test_the_summed_loss_of_a_voc_image_starts_at_570848():
    x = photo(375, 500, dtype=np.float32)
    loss = ops.softmax_cross_entropy(FCN32s(width=1)(x), np.zeros((1, 375, 500), int), normalize="none")
    assert round(loss.item()) == pytest.approx(570_848, abs=1)


def without_skip(net, x):
    """An FCN-16s as if pool4 did not exist."""
    features = net.trunk(x, keep=("pool4",))
    score = net.upscore2(net.score_fr(features["fc7"]))
    return crop(net.upscore16(crop(score, like=features["pool4"])), like=x).data


def test_a_fresh_skip_changes_nothing_when_summed_and_much_when_maximized():
    x = photo(70, 66)
    for fusion, unchanged in (("sum", True), ("max", False)):
        net = randomized(FCN16s(width=1, classes=4, fusion=fusion)).eval()
        for p in (net.score_pool4.w, net.score_pool4.b):
            p.data = np.zeros_like(p.data)
        net.score_fr.w.data *= 0.01
        net.score_fr.b.data = np.array([-4.0, -3.0, -2.0, -1.0])  # all below 0: their max with 0 is 0
        before, after = without_skip(net, x), net(x).data
        assert np.array_equal(before, after) == unchanged
        assert np.array_equal(before.argmax(axis=1), after.argmax(axis=1)) == unchanged


@pytest.mark.parametrize("upsampling", ["learned", "all learned"])
@pytest.mark.parametrize("padding", ["same", 100])
def test_learned_upsampling_starts_as_the_fixed_one(upsampling, padding):
    fixed = FCN8s(width=1, classes=3, padding=padding).astype(np.float64).eval()
    learned = FCN8s(width=1, classes=3, padding=padding, upsampling=upsampling).astype(np.float64).eval()
    for net in (fixed, learned):
        rng = np.random.default_rng(4)
        for name, p in net.named_parameters():
            if name.startswith("score"):
                p.data = rng.standard_normal(p.shape)
    x = photo(50, 33)
    np.testing.assert_allclose(fixed(x).data, learned(x).data, rtol=1e-12, atol=1e-12)
    extra = {name for name, _ in learned.named_parameters()} - {name for name, _ in fixed.named_parameters()}
    last = {"upscore8.w"} if upsampling == "all learned" else set()
    assert extra == {"upscore2.w", "upscore_pool4.w"} | last


def test_a_ladder_down_to_stride_2_learns_each_upsampling_by_itself():
    net = vgg_fcn(("pool4", "pool3", "pool2", "pool1"), width=1, classes=2, upsampling="all learned")
    ups = [name for name, _ in net.named_parameters() if name.startswith("upscore")]
    assert ups == [f"upscore{end}.w" for end in ("2", "_pool4", "_pool3", "_pool2", "_pool1")]


def test_dropout_is_there_in_training_only():
    net, x = randomized(FCN32s(width=2, classes=3)), photo(40, 40)
    net.train()
    assert not np.array_equal(net(x).data, net(x).data)
    net.eval()
    assert np.array_equal(net(x).data, net(x).data)
    silent = randomized(FCN32s(width=2, classes=3, dropout=0.0))
    assert np.array_equal(silent.train()(x).data, net(x).data)


# ---- devices -----------------------------------------------------------------------------------------------------


def three_steps(device, dtype):
    """Train with dropout on `device`; the state afterwards, on the host."""
    net = FCN8s(width=1, classes=3, upsampling="all learned", skip_scale={"pool4": 0.5}).astype(dtype).to(device)
    sgd = SGD(net, lr=0.1, weight_decay=0.1)
    x = photo(40, 37, batch=2, dtype=dtype)
    truth = labels(x, 3)
    for _ in range(3):
        loss_of(net, to_device(x, device), to_device(truth, device)).backward()
        sgd.step()
    return net.state_dict()


def test_a_net_learns_the_same_on_every_device(device):
    here, there = three_steps("cpu", np.float64), three_steps(device, np.float64)
    for name in here:
        np.testing.assert_allclose(here[name], there[name], rtol=1e-9, atol=1e-12)


def test_a_step_on_the_strict_device_stays_in_float32_and_moves_four_arrays(fake_gpu):
    here = three_steps("cpu", np.float32)
    with fake_gpu.no_float64():
        uploads, downloads = fake_gpu.uploads, fake_gpu.downloads
        there = three_steps("gpu", np.float32)
    assert fake_gpu.uploads - uploads == len(here) + 3 * 4  # per step: images, labels, two dropout masks
    assert fake_gpu.downloads - downloads == len(here)  # the state at the end, and nothing in between
    for name in here:
        np.testing.assert_allclose(here[name], there[name], rtol=1e-5, atol=1e-7)


# ---- seeds and states --------------------------------------------------------------------------------------------


def same_state(a, b):
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)


def test_the_seed_decides_the_weights_and_the_dropout():
    one, two, other = FCN8s(width=2, seed=7), FCN8s(width=2, seed=7), FCN8s(width=2, seed=8)
    assert same_state(one, two) and not same_state(one, other)
    for net in (one, two, other):
        net.score_fr.w.data = np.ones_like(net.score_fr.w.data)
    x = photo(64, 64, dtype=np.float32)
    assert np.array_equal(one.train()(x).data, two.train()(x).data)
    assert len(one.generators()) == 1  # the one from which dropout draws, for the checkpoint


def test_he_keeps_the_signal_and_zero_kills_it():
    x = photo(64, 64, dtype=np.float32)
    alive = FCN32s(width=8, classes=2).eval().trunk(x)["fc7"].data
    assert 0.1 < np.sqrt((alive**2).mean()) < 10
    assert not FCN32s(width=8, classes=2, init="zero").eval().trunk(x)["fc7"].data.any()


def test_a_state_makes_another_net_the_same():
    one, two = randomized(FCN8s(width=1, classes=3, seed=0)), FCN8s(width=1, classes=3, seed=1).astype(np.float64)
    two.load_state_dict(one.state_dict())
    x = photo(20, 30)
    assert same_state(one, two) and np.array_equal(one.eval()(x).data, two.eval()(x).data)
    one.score_fr.w.data += 1  # a state is a copy, not a window
    assert not same_state(one, two)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: FCN16s(width=1, classes=3), r"2 missing: score_pool3\.w, score_pool3\.b$"),
        (lambda: vgg_fcn(("pool4", "pool3", "pool2"), width=1, classes=3), r"2 unexpected: score_pool2\.w, score"),
        (lambda: FCN8s(width=1, classes=4), r"6 of another shape: score_fr\.w \(\(4, 64, 1, 1\) for \(3, 64, 1, 1\)\)"),
        (lambda: FCN8s(width=2, classes=3), r"of another shape: trunk\.block1\.conv1_1\.w"),
        (lambda: FCN8s(width=1, classes=3, layers=19), r"unexpected: trunk\.block3\.conv3_4\.w"),
    ],
)
def test_the_state_of_another_net_is_refused_and_changes_nothing(other, message):
    net, before = FCN8s(width=1, classes=3), FCN8s(width=1, classes=3)
    with pytest.raises(FormatError, match=message):
        net.load_state_dict(other().state_dict())
    assert same_state(net, before)


def test_the_finer_net_starts_from_the_coarser():
    coarse, fine = randomized(FCN32s(width=1, classes=3)), FCN16s(width=1, classes=3).astype(np.float64)
    fine.load_state_dict(coarse.state_dict(), strict=False)
    ours, theirs = fine.state_dict(), coarse.state_dict()
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    assert not ours["score_pool4.w"].any()
    x = photo(40, 40)
    assert np.array_equal(without_skip(fine.eval(), x), fine(x).data)


# ---- theorem: a scaled skip is a slower one ----------------------------------------------------------------------


def test_at_once_scales_are_learning_rates_in_disguise():
    """Training (c x, w) at rate lr is training (x, v = c w) with c^2 lr on the data's gradient and the same decay."""
    scales = {"pool4": 0.25, "pool3": 0.1}
    plain = FCN8s(width=1, classes=3, dropout=0.0, seed=3).astype(np.float64)
    at_once = FCN8s(width=1, classes=3, dropout=0.0, seed=3, skip_scale=scales).astype(np.float64)

    def slower(name):
        for pool, c in scales.items():
            if name == f"score_{pool}.w":
                return c**2, 1 / c**2  # SGD's decay goes with the rate: this takes it back
        return (2.0, 0.0) if name.endswith(".b") else (1.0, 1.0)

    # c w and v start equal only if both are: not at zero, where the test would say less
    start = np.random.default_rng(0)
    for pool, c in scales.items():
        w = getattr(at_once, f"score_{pool}").w
        w.data = start.standard_normal(w.shape)
        getattr(plain, f"score_{pool}").w.data = c * w.data
    x = photo(40, 50)
    truth, options = labels(x, 3), {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}
    trainers = [(at_once, SGD(at_once, **options)), (plain, SGD(plain, multipliers=slower, **options))]
    first = plain(x).data
    for _ in range(6):
        for net, sgd in trainers:
            loss_of(net, x, truth).backward()
            sgd.step()
    np.testing.assert_allclose(at_once(x).data, plain(x).data, rtol=1e-9, atol=1e-9)
    assert np.abs(plain(x).data - first).max() > 0.05
    for pool, c in scales.items():
        ours, theirs = (getattr(net, f"score_{pool}").w.data for net in (plain, at_once))
        np.testing.assert_allclose(ours, c * theirs, rtol=1e-9)


# ---- refusals ----------------------------------------------------------------------------------------------------

REFUSED = [
    (UsageError, {"classes": 0}, "classes is 0; expected a whole number from 1 to 255"),
    (UsageError, {"classes": 256}, "classes is 256"),
    (UsageError, {"classes": 2.5}, "classes is 2.5"),
    (UsageError, {"classes": "21"}, "classes is '21'"),
    (UsageError, {"classes": True}, "classes is True"),
    (UsageError, {"width": 0}, "width is 0; expected a whole number of at least 1"),
    (UsageError, {"width": 0.5}, "width is 0.5"),
    (UsageError, {"layers": 15}, "layers is 15; expected one of 11, 13, 16, 19"),
    (UsageError, {"padding": -1}, "padding is -1; expected"),
    (UsageError, {"padding": "valid"}, "padding is 'valid'"),
    (UsageError, {"padding": 99.5}, "padding is 99.5"),
    (GeometryError, {"padding": 68}, "upscore8 starts at pixel 1, after the image at 0"),
    (ShapeError, {"in_channels": 0}, "in_channels is 0"),
    (ShapeError, {"dropout": 1.0}, "p is 1.0; expected a probability"),
    (UsageError, {"init": "ones"}, "init is 'ones'"),
    (UsageError, {"fusion": "product"}, "fusion is 'product'"),
    (UsageError, {"upsampling": "nearest"}, "upsampling 'nearest'"),
    (UsageError, {"skip_scale": {"pool_4": 0.01}}, "skip_scale has pool_4; the outputs of this trunk are pool1, pool2"),
    (UsageError, {"skips": ("pool6",)}, "skip 'pool6' is not an output of this trunk finer than fc7"),
    (UsageError, {"skips": ("pool6",), "padding": "safe"}, "skip 'pool6' is not"),
    (UsageError, {"skips": ("pool3", "pool4")}, "must go from coarse to fine"),
    (UsageError, {"skips": ("pool5",)}, "skip 'pool5' is not"),
    (UsageError, {"skips": "pool4"}, "skip 'p' is not"),
]


@pytest.mark.parametrize(("kind", "options", "message"), REFUSED, ids=[str(options) for _, options, _ in REFUSED])
def test_what_no_net_can_be_is_refused_in_one_sentence(kind, options, message):
    with pytest.raises(kind) as refusal:
        vgg_fcn(**{"skips": ("pool4", "pool3"), "width": 1, **options})
    text = str(refusal.value)
    assert message in text and "\n" not in text
    assert isinstance(refusal.value, MinifcnError) and refusal.value.exit_code == 2


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((1, 4, 9, 9), "f4"), r"has 4 channels"),
        (np.zeros((3, 9, 9), "f4"), r"expected a batch of images \(N, C, H, W\) and got shape \(3, 9, 9\)"),
        (np.zeros((1, 3, 9, 9), "f8"), r"x is float64 and w is float32"),
        (np.zeros((1, 3, 9, 9), "u1"), r"expected float32 or float64 images and got uint8"),
        (np.zeros((1, 3, 0, 9), "f4"), r"got shape \(1, 3, 0, 9\)"),
    ],
)
def test_what_is_no_image_is_refused(x, message):
    with pytest.raises(ShapeError, match=message):
        FCN8s(width=1)(x)


def test_an_image_too_small_for_its_padding_is_refused():
    net = FCN32s(width=1, padding=81)
    assert net(photo(33, 33, dtype=np.float32)).shape[2:] == (33, 33)
    with pytest.raises(ShapeError, match="larger image"):
        net(photo(32, 33, dtype=np.float32))
