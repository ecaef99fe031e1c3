"""Every network of the paper on every trunk: its ladder from the geometry, its numbers from the graph, its gradient."""

import math

import numpy as np
import pytest
from some_slow import slow_but
from test_classifiers import depth
from test_fcn import labels, loss_of, photo, randomized, run_figure, same_state

from minifcn import ops
from minifcn.backend import to_device
from minifcn.errors import GeometryError, GradientError, ShapeError, UsageError
from minifcn.geometry import Grid, Layer, out_size
from minifcn.gradcheck import gradcheck_along
from minifcn.introspect.figure import figure
from minifcn.models.alexnet import AlexNet
from minifcn.models.classifier import classifier
from minifcn.models.context import GlobalContext
from minifcn.models.dilated import FCN_dilated
from minifcn.models.fcn import FUSIONS, FCN8s, FCN16s, fcn, vgg_fcn
from minifcn.models.googlenet import GoogLeNet
from minifcn.models.ladder import Ladder, skips_to
from minifcn.models.lenet import LeNet
from minifcn.models.paper import (
    FCN32s_fixed,
    FCN_AlexNet,
    FCN_GoogLeNet,
    FCN_pool,
    FCN_SqueezeNet,
    LateFusion,
    ParseNet,
    nyud_color_hha,
    paper_vgg,
)
from minifcn.models.squeezenet import SqueezeNet
from minifcn.models.vgg import VGG
from minifcn.models.zoo import NETS, TRUNKS
from minifcn.nn import Dropout
from minifcn.optim import SGD
from minifcn.surgery import as_convolution, transplant, widened
from minifcn.training import setup
from minifcn.training.options import Options

# fcn32s is voc-fcn32s under a shorter name, and so on; the dilated net is among EXTRA
OTHERS = (*TRUNKS, "fcn32s", "fcn16s", "fcn8s", "fcn-dilated")  # no net of the paper, or one under another name
FCNS = [name for name in NETS if name not in OTHERS and not name.startswith("fcn_resnet")]  # see test_resnet.py
every_net = pytest.mark.parametrize("name", FCNS)


def inputs(net, *size, seed=2, dtype=np.float64):
    """One image for each trunk that `net` has, of as many channels as its first layer takes."""
    firsts = [p for name, p in net.named_parameters() if name.endswith(("block1.conv1_1.w", "block1.conv1.w"))]
    return [photo(*size, channels=w.shape[1], seed=seed + i, dtype=dtype) for i, w in enumerate(firsts)]


def scores_of(y):
    return list(y.values()) if isinstance(y, dict) else [y]


# ---- ladders -----------------------------------------------------------------------------------------------------

VGG_SKIPS = {32: (), 16: ("pool4",), 8: ("pool4", "pool3"), 4: ("pool4", "pool3", "pool2")}
VGG_SKIPS[2] = (*VGG_SKIPS[4], "pool1")
# trunk, padding, {stride: [(kernel, stride, crop) of each rung]}
LADDERS = {
    "VGG": (
        VGG,
        100,
        {
            32: [(64, 32, 19)],
            16: [(4, 2, 5), (32, 16, 27)],
            8: [(4, 2, 5), (4, 2, 9), (16, 8, 31)],
            4: [(4, 2, 5), (4, 2, 9), (4, 2, 17), (8, 4, 33)],
            2: [(4, 2, 5), (4, 2, 9), (4, 2, 17), (4, 2, 33), (4, 2, 34)],
        },
    ),
    "AlexNet": (
        AlexNet,
        100,
        {32: [(63, 32, 18)], 16: [(3, 2, 5), (31, 16, 18)], 8: [(3, 2, 5), (3, 2, 10), (15, 8, 18)]},
    ),
    "GoogLeNet": (
        GoogLeNet,
        3,
        {
            32: [(63, 32, 1)],
            16: [(3, 2, 0), (31, 16, 1)],
            8: [(3, 2, 0), (3, 2, 0), (15, 8, 1)],
            4: [(3, 2, 0), (3, 2, 0), (3, 2, 0), (7, 4, 1)],
        },
    ),
    "SqueezeNet": (
        SqueezeNet,
        3,
        {16: [(31, 16, 1)], 8: [(3, 2, 0), (15, 8, 1)], 4: [(3, 2, 0), (3, 2, 0), (7, 4, 1)]},
    ),
}
RUNGS = [(name, stride) for name, (_, _, ladders) in LADDERS.items() for stride in ladders]


@pytest.mark.parametrize(("name", "stride"), RUNGS)
def test_the_ladder_to_every_stride_of_every_trunk(name, stride):
    trunk, padding, ladders = LADDERS[name]
    net = fcn(trunk, stride, width=1, classes=3, padding=padding)
    assert [(r.layer.kernel, r.layer.stride, r.at) for r in net.ladder.rungs] == ladders[stride]
    assert math.prod(r.layer.stride for r in net.ladder.rungs) == Grid.of(net.trunk.layers()).stride
    for size in ((1, 90), (64, 33), (77, 40)):
        assert net(photo(*size, dtype=np.float32)).shape == (1, 3, *size)
    if name == "VGG":
        assert net.skips == VGG_SKIPS[stride]


@pytest.mark.slow("each padding and each size of image of a trunk")
@pytest.mark.parametrize(
    ("trunk", "options", "padding"),
    [
        (VGG, {}, 97),
        (AlexNet, {}, 99),
        (GoogLeNet, {}, 3),
        (SqueezeNet, {}, 3),
        (SqueezeNet, {"version": "1.1"}, 1),
        (LeNet, {"in_channels": 3}, 12),
    ],
)
def test_the_smallest_safe_padding_of_every_trunk(trunk, options, padding):
    stride = 4 if trunk is LeNet else 8

    def safe(**border):
        try:
            ladder = fcn(trunk, stride, width=1, classes=2, **options, **border).ladder
        except GeometryError:
            return False
        return all(ladder.fits(size) for size in range(1, 200))

    assert fcn(trunk, stride, width=1, classes=2, **options).trunk.layers()[0].padding == padding
    assert safe() and not any(safe(padding=smaller) for smaller in range(padding))


@pytest.mark.parametrize(("trunk", "stride", "padding"), [(GoogLeNet, 8, 27), (SqueezeNet, 8, 11), (SqueezeNet, 4, 15)])
def test_a_padding_is_safe_beyond_the_smallest_images(trunk, stride, padding):
    """One less serves every side up to the stride, where a pool of ceil mode hangs over the end, and fails at 2 s."""
    net = FCN_dilated(stride, trunk=trunk, width=1, classes=2)
    assert net.trunk.layers()[0].padding == padding
    assert all(net.ladder.fits(size) for size in range(1, 200))
    less = FCN_dilated(stride, trunk=trunk, width=1, classes=2, padding=padding - 1).ladder
    assert all(less.fits(size) for size in range(1, stride + 1)) and not less.fits(2 * stride)


@pytest.mark.parametrize(
    ("trunk", "stride", "known"),
    [
        (VGG, 64, "2, 4, 8, 16, 32"),
        (VGG, 1, "2, 4, 8, 16, 32"),
        (AlexNet, 4, "8, 16, 32"),
        (GoogLeNet, 2, "4, 8, 16, 32"),
        (SqueezeNet, 32, "4, 8, 16"),
        (SqueezeNet, 2, "4, 8, 16"),
    ],
)
def test_another_stride_is_refused_with_those_there_are(trunk, stride, known):
    with pytest.raises(UsageError, match=rf"stride is {stride}; expected one that this trunk has .*: {known}$"):
        fcn(trunk, stride, width=1)


def test_skips_to_a_stride_go_from_coarse_to_fine():
    paths = vgg_fcn((), width=1).trunk.paths()
    assert [skips_to(paths, stride) for stride in (32, 16, 8, 4, 2)] == list(VGG_SKIPS.values())


def test_the_kernel_is_odd_where_cells_lie_on_pixels_and_no_choice():
    """63 after AlexNet gives the crop 18, and 64 would give 37/2: no whole number of pixels."""
    grid = Grid.of(FCN_AlexNet(width=1).trunk.layers())
    assert -grid.through(Layer(63, 32, transpose=True)).start == 18
    assert -2 * grid.through(Layer(64, 32, transpose=True)).start == 37
    with pytest.raises(GeometryError, match="37/2 is not whole"):
        grid.through(Layer(64, 32, transpose=True)).crop_offset(Grid())


def test_too_little_padding_under_an_odd_kernel_is_called_too_little():
    with pytest.raises(GeometryError, match=r"upscore starts at pixel 32, after the image at 0.*more padding"):
        FCN_AlexNet(width=1, padding=50)


def test_where_no_kernel_fits_the_fraction_is_told():
    third = [Layer(3, 3), Layer(2, padding=1), Layer(2, 2)]
    with pytest.raises(GeometryError, match="not whole"):
        Ladder({"a": [Layer(3, 3, padding=1), Layer(2)], "b": [*third, Layer(4, padding=1), Layer(2, 2)]}, ("a",))


# ---- numbers -----------------------------------------------------------------------------------------------------

# parameters without upsampling, convolutions on the longest path, receptive field, stride: table 1 of the paper
TABLE_1 = {
    "voc-fcn-alexnet": (56_954_261, 8, 355, 32),
    "voc-fcn32s": (134_346_581, 16, 404, 32),
    "voc-fcn16s": (134_357_354, 16, 404, 32),
    "voc-fcn8s": (134_362_751, 16, 404, 32),
    "voc-fcn8s-atonce": (134_362_751, 16, 404, 32),
    "fcn-googlenet": (5_973_552 + 1024 * 21 + 21, 22, 715, 32),
    "fcn-squeezenet": (735_424 + (512 + 256) * 21 + 42, 18, 155, 16),
    "nyud-fcn32s-color-d": (134_260_544 + 64 * 9 + 4096 * 40 + 40, 16, 404, 32),
    "siftflow-fcn32s": (134_260_544 + 4096 * 36 + 36, 16, 404, 32),
    "pascalcontext-fcn32s": (134_260_544 + 4096 * 60 + 60, 16, 404, 32),
    "nyud-fcn32s-color": (134_260_544 + 4097 * 40, 16, 404, 32),
    "nyud-fcn32s-hha": (134_260_544 + 4097 * 40, 16, 404, 32),
    "siftflow-fcn16s": (134_260_544 + (4097 + 513) * 36, 16, 404, 32),
    "siftflow-fcn8s": (134_260_544 + (4097 + 513 + 257) * 36, 16, 404, 32),
    "pascalcontext-fcn16s": (134_260_544 + (4097 + 513) * 60, 16, 404, 32),
    "pascalcontext-fcn8s": (134_260_544 + (4097 + 513 + 257) * 60, 16, 404, 32),
    "voc-fcn16s-cvpr15": (134_357_354 + 21 * 4 * 4, 16, 404, 32),  # the doubling is learned, a kernel a class
    "voc-fcn8s-cvpr15": (134_362_751 + 2 * 21 * 4 * 4, 16, 404, 32),
}


@pytest.mark.parametrize("name", TABLE_1)
def test_parameters_depth_field_and_stride_as_published(name):
    parameters, layers, field, stride = TABLE_1[name]
    assert sum(p.size for _, p in NETS[name](init="zero").named_parameters()) == parameters
    net = NETS[name](width=1)
    y = scores_of(net(*inputs(net, 33, 40, dtype=np.float32)))[0]
    assert depth(y) == layers
    grid = Grid.of(net.trunk.layers())
    assert (grid.field, grid.stride) == (field, stride)


@pytest.mark.parametrize(
    ("family", "crops"), [("voc", {}), ("siftflow", {}), ("pascalcontext", {}), ("nyud", {32: "-color-hha"})]
)
def test_every_data_sets_nets_are_cropped_alike(family, crops):
    """19; 5, 27; 5, 9, 31: the heads differ, the trunk and so its geometry does not."""
    published = {32: [19], 16: [5, 27], 8: [5, 9, 31]}
    for stride in crops or published:
        net = NETS[f"{family}-fcn{stride}s{crops.get(stride, '')}"](width=1)
        for part in (net.color, net.hha) if family == "nyud" else (net,):
            assert [rung.at for rung in part.ladder.rungs] == published[stride]


def test_both_trunks_of_late_fusion_are_whole():
    assert sum(p.size for _, p in nyud_color_hha(init="zero").named_parameters()) == 2 * (134_260_544 + 4096 * 40 + 40)


@pytest.mark.parametrize(("number", "stride", "field"), [(3, 8, 44), (4, 16, 100), (5, 32, 212)])
def test_shallower_nets_end_at_their_pool(number, stride, field):
    net = FCN_pool(number, width=1, classes=2)
    grid = Grid.of(net.trunk.layers())
    assert (grid.stride, grid.field, net.trunk.last) == (stride, field, f"pool{number}")
    assert not any("head" in name or f"block{number + 1}" in name for name, _ in net.named_parameters())
    (rung,) = net.ladder.rungs
    assert (rung.layer.kernel, rung.layer.stride) == (2 * stride, stride)
    full = vgg_fcn((), width=1, classes=2, padding=100).trunk
    assert out_size(full.paths()[f"pool{number}"], 50) == net.trunk(photo(50, 50, dtype="f4"))[f"pool{number}"].shape[2]
    with pytest.raises(UsageError, match="number is 6; expected 3, 4 or 5"):
        FCN_pool(6)


@every_net
def test_every_net_gives_scores_of_the_images_size(name):
    net = NETS[name](width=1).eval()
    wanted = {"v": (21,), "f": (21,), "p": (21,), "n": (40,), "s": (33, 3)}[name[0]]
    wanted = (60,) if name.startswith("pascal") else wanted
    for size in ((37, 50), (5, 1)):
        scores = scores_of(net(*inputs(net, *size, dtype=np.float32)))
        assert [y.shape for y in scores] == [(1, classes, *size) for classes in wanted]
        assert not any(y.data.any() for y in scores)  # zero score layers: all classes alike, loss ln C


# ---- gradients ---------------------------------------------------------------------------------------------------

EXTRA = {
    "VGG 2s": lambda: vgg_fcn(2, width=1, classes=3),
    "AlexNet 8s, concat": lambda: FCN_AlexNet(8, width=1, classes=3, fusion="concat"),
    "GoogLeNet 16s, max": lambda: FCN_GoogLeNet(16, width=1, classes=3, fusion="max"),
    "SqueezeNet 1.1 4s, learned": lambda: FCN_SqueezeNet(
        4, width=2, classes=3, version="1.1", upsampling="all learned", fusion="concat"
    ),
    "SIFT Flow 8s, concat, at once": lambda: paper_vgg(
        8, width=1, classes={"sem": 4, "geo": 2}, fusion="concat", skip_scale={"pool4": 0.5}
    ),
    "dilated": lambda: FCN_dilated(width=1, classes=3),
    "NYUDv2 16s, late": lambda: nyud_color_hha(16, width=1),
}
ALL = {**{name: (lambda name=name: NETS[name](width=1)) for name in FCNS}, **EXTRA}


def problem(make):
    """A net and its loss, dropout on with the same masks at every call; with two heads, the sum of their losses."""
    net = randomized(make()).train()
    if getattr(net, "skip_scale", {}):  # 0.0001 times a gradient cannot be seen beside the others
        net.skip_scale = {skip: max(scale, 0.25) for skip, scale in net.skip_scale.items()}
    images = inputs(net, 38, 45)

    def loss():
        for module in net.modules():
            if isinstance(module, Dropout):
                module.rng = np.random.default_rng(5)
        losses = [ops.softmax_cross_entropy(y, labels(y, y.shape[1])) for y in scores_of(net(*images))]
        return losses[0] if len(losses) == 1 else losses[0] + losses[1]

    return net, loss


TOLERANCE = 1e-7
DIRECTIONS = (0, 1)


QUICK = [name for name in ALL if name not in FCNS or name in ("voc-fcn8s", "parsenet", "fcn-alexnet")]


@pytest.mark.parametrize("name", slow_but(QUICK, ALL, "a whole net, one after the other"))
def test_the_gradient_of_the_whole_net(name):
    """Along two directions, so closely that 1 % more in the gradient of any one parameter would be noticed."""
    net, loss = problem(ALL[name])
    learned = {key: p for key, p in net.named_parameters() if not p.frozen}
    loss().backward()
    gradients = {key: p.grad.copy() for key, p in learned.items()}
    assert all(gradient.any() for gradient in gradients.values())
    noticed = dict.fromkeys(learned, 0.0)
    for seed in DIRECTIONS:
        gradcheck_along(loss, learned.values(), eps=1e-7, tolerance=TOLERANCE, seed=seed)
        rng = np.random.default_rng(seed)  # as gradcheck_along does
        parts = {key: float((g * rng.standard_normal(g.shape)).sum()) for key, g in gradients.items()}
        slope = sum(parts.values())
        noticed = {key: max(most, abs(0.01 * parts[key] / slope)) for key, most in noticed.items()}
    assert min(noticed.values()) > 2 * TOLERANCE, min(noticed, key=noticed.__getitem__)


def faulty(loss, parameter):
    """`loss` with the gradient of one parameter 1 % too large."""

    def wrapped():
        y = loss()
        seen, waiting = {y.node}, [y.node]
        while waiting:
            node = waiting.pop()
            node.edges = tuple(
                (parent, (lambda gy, g=gradient: 1.01 * g(gy)) if parent is parameter.node else gradient, version)
                for parent, gradient, version in node.edges
            )
            new = {parent for parent, _, _ in node.edges if parent.op != "parameter"} - seen
            seen |= new
            waiting.extend(new)
        return y

    return wrapped


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("voc-fcn-alexnet", "trunk.block2.conv2.w"),
        ("fcn-googlenet", "trunk.block4.inception_4c.conv5x5.reduce.w"),
        ("fcn-squeezenet", "trunk.block4.fire3.expand.expand3x3.b"),
        ("fcn-googlenet", "trunk.block4.inception_4b.conv5x5.reduce.b"),
        ("siftflow-fcn16s", "score_pool4_geo.w"),
        ("voc-fcn8s-atonce", "score_pool3.w"),
        ("nyud-fcn32s-color-hha", "hha.trunk.block2.conv2_1.b"),
        ("nyud-fcn32s-color-hha", "hha.trunk.block1.conv1_1.w"),
        ("parsenet", "trunk.context.scale"),
    ],
)
def test_a_gradient_1_percent_too_large_is_noticed(name, layer):
    net, loss = problem(ALL[name])
    wrong, parameters = faulty(loss, dict(net.named_parameters())[layer]), list(net.parameters())
    with pytest.raises(GradientError, match="along a random direction"):
        for seed in DIRECTIONS:
            gradcheck_along(wrong, parameters, eps=1e-7, tolerance=TOLERANCE, seed=seed)


# ---- fusion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fusion", "unchanged"), [("sum", True), ("concat", True), ("max", False)])
def test_a_fresh_skip_leaves_the_prediction_as_it_was(fusion, unchanged):
    coarse = randomized(vgg_fcn((), width=1, classes=4, padding=100)).eval()
    coarse.score_fr.b.data = np.array([-4.0, -3.0, -2.0, -1.0])  # below 0, so that the maximum with 0 is another
    coarse.score_fr.w.data *= 0.01
    x, answers = photo(50, 70), []
    for kind in ("sum", fusion):
        fine = vgg_fcn(("pool4", "pool3"), width=1, classes=4, padding=100, fusion=kind).astype(np.float64).eval()
        fine.load_state_dict(coarse.state_dict(), strict=False)
        answers.append(fine(x).data)
    assert np.array_equal(*answers) == unchanged


def test_under_max_the_gradient_of_a_cell_goes_to_one_branch_only(rng):
    """Gradient switching, the paper calls it: why the maximum is difficult to learn (section 4.2, footnote 6)."""
    x, y, gy = rng.standard_normal((3, 2, 3, 4, 5))
    _, to_both = FUSIONS["sum"].__wrapped__(x, y)
    assert all(np.array_equal(gradient(gy), gy) for gradient in to_both)
    _, (grad_x, grad_y) = FUSIONS["max"].__wrapped__(x, y)
    assert np.array_equal(grad_x(gy), np.where(x > y, gy, 0)) and np.array_equal(grad_y(gy), np.where(x > y, 0, gy))


def test_the_gradient_of_the_summed_loss_is_the_sum_of_the_pixels_gradients(rng):
    """The loss is a sum over space (section 3): any parts of the image, learned apart, add up to the image."""
    net = randomized(vgg_fcn(8, width=1, classes=3)).eval()
    x, truth = photo(33, 40), rng.integers(0, 3, (1, 33, 40))
    part = rng.integers(0, 3, truth.shape)
    gradients = []
    for masks in ([None], [part == 0, part == 1, part == 2]):
        for mask in masks:  # the gradients of several backward passes add up
            sampling = None if mask is None else mask.astype(np.float64)
            ops.softmax_cross_entropy(net(x), truth, sampling=sampling, normalize="none").backward()
        gradients.append({name: p.grad.copy() for name, p in net.named_parameters()})
        for p in net.parameters():
            p.zero_grad()
    whole, added = gradients
    for name in whole:
        assert whole[name].any()
        np.testing.assert_allclose(added[name], whole[name], rtol=1e-10, atol=1e-12 * abs(whole[name]).max())


def test_scoring_the_concatenation_is_scoring_and_summing():
    """[I | w] (score, pool) = score + w pool: concatenation can learn what a sum does, and to mix the old scores."""
    options = {"width": 1, "classes": 3, "padding": 100, "skip_scale": {"pool4": 0.5}}
    summed = randomized(FCN8s(**options)).eval()
    joined = FCN8s(**options, fusion="concat").astype(np.float64).eval()
    state = joined.state_dict()
    for name, array in summed.state_dict().items():
        if name.startswith("score_pool") and name.endswith(".w"):
            assert np.array_equal(state[name][:, :3, 0, 0], np.eye(3)) and not state[name][:, 3:].any()
            state[name][:, 3:] = array
        else:
            state[name] = array
    joined.load_state_dict(state)
    x = photo(45, 52)
    np.testing.assert_allclose(joined(x).data, summed(x).data, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_run_can_choose_every_fusion_and_the_at_once_scales(fusion):
    net = setup.network(Options(fusion=fusion, width=1, at_once=True), 3, 8)
    assert net.fusion == fusion and net.skip_scale == NETS["voc-fcn8s-atonce"](width=1).skip_scale
    assert net.eval()(np.zeros((1, 3, 32, 32), np.float32)).shape == (1, 3, 32, 32)


def test_the_figure_of_a_concatenation_and_of_two_heads():
    joined = figure(FCN16s(width=1, padding=100, fusion="concat"))
    assert "score = score_pool4(concat(score, crop(pool4, like=score, at=5)))" in joined
    heads = figure(NETS["siftflow-fcn16s"](width=1)).splitlines()
    assert heads[3].startswith("score = upscore2_sem(score_fr_sem(fc7))")
    assert "sem = crop(score, like=image, at=27)" in heads and heads[-1] == "geo = crop(score, like=image, at=27)"


@pytest.mark.parametrize("make", [lambda: FCN_SqueezeNet(4, width=1), lambda: FCN_GoogLeNet(8, width=1)])
def test_the_figure_is_what_the_net_computes_on_other_trunks(make):
    net = randomized(make()).eval()
    x, last = photo(40, 51), getattr(net.trunk, list(net.trunk.stages.values())[-1])
    vars(net).update(last.sequence())  # where run_figure looks for layers
    assert np.array_equal(run_figure(net, x).data, net(x).data)


# ---- SIFT Flow, NYUDv2, FCN-32s-fixed, ParseNet ------------------------------------------------------------------


def test_two_heads_are_two_nets_that_share_a_trunk():
    both = randomized(paper_vgg(8, width=1, classes={"sem": 5, "geo": 3})).eval()
    names = [name for name, _ in both.named_parameters() if not name.startswith("trunk")]
    wanted = [
        f"score_{end}_{head}.{part}" for head in ("sem", "geo") for end in ("fr", "pool4", "pool3") for part in "wb"
    ]
    assert names == wanted and hasattr(both, "upscore2_sem") and hasattr(both, "upscore_pool4_geo")
    x = photo(41, 47)
    scores = both(x)
    assert list(scores) == ["sem", "geo"]
    for head, classes in (("sem", 5), ("geo", 3)):
        alone = paper_vgg(8, width=1, classes=classes).astype(np.float64).eval()
        alone.load_state_dict(
            {name.replace(f"_{head}.", "."): p for name, p in both.state_dict().items()}, strict=False
        )
        assert np.array_equal(alone(x).data, scores[head].data)


@pytest.mark.parametrize(
    ("classes", "message"),
    [({}, "classes is {}"), ({"sem": 0}, "classes is {'sem': 0}"), ({"a": 2, "b": "3"}, "classes")],
)
def test_heads_without_classes_are_refused(classes, message):
    with pytest.raises(UsageError, match=message):
        paper_vgg(32, width=1, classes=classes)


def test_early_fusion_starts_as_the_colour_net_on_a_grey_fourth_plane():
    color = randomized(paper_vgg(32, width=1, classes=40)).eval()
    deep = NETS["nyud-fcn32s-color-d"](width=1, init="zero").astype(np.float64).eval()
    transplant(deep, widened(color.state_dict(), "trunk.block1.conv1_1.w", 4))
    x = photo(30, 40)
    blind = np.concatenate([x, np.zeros((1, 1, 30, 40))], axis=1)
    np.testing.assert_allclose(deep(blind).data, color(x).data, rtol=1e-12, atol=1e-12)
    grey = np.concatenate([np.zeros_like(x), x[:, :1]], axis=1)
    np.testing.assert_allclose(deep(grey).data, color(np.repeat(x[:, :1] / 3, 3, axis=1)).data, rtol=1e-10, atol=1e-12)


def test_late_fusion_votes_half_and_half_below_or_above_the_upsampling():
    net = randomized(nyud_color_hha(width=1)).eval()
    color, hha = photo(33, 44, seed=1), photo(33, 44, seed=2)
    y = net(color, hha).data
    np.testing.assert_allclose(y, 0.5 * net.color(color).data + 0.5 * net.hha(hha).data, rtol=1e-12, atol=1e-14)
    coarse = [n.score_fr(n.trunk(x)["fc7"]) * 0.5 for n, x in ((net.color, color), (net.hha, hha))]
    fused = net.color.upscore(coarse[0] + coarse[1])  # as the reference has it
    np.testing.assert_allclose(y, ops.crop(fused, like=color, at=19).data, rtol=1e-12, atol=1e-12)


def test_late_fusion_starts_from_two_trained_nets_and_wants_two_images():
    net = nyud_color_hha(width=1, init="zero")
    color, hha = (randomized(paper_vgg(32, width=1, classes=40), seed=seed) for seed in (1, 2))
    transplant(net.color, color.state_dict())
    transplant(net.hha, hha.state_dict())
    for fused, alone in ((net.color, color), (net.hha, hha)):
        assert same_state(fused, alone.astype(np.float32))
    with pytest.raises(ShapeError, match="LateFusion: got 1 images; expected one for each of color, hha"):
        net(photo(20, 20))
    assert isinstance(net, LateFusion) and len({id(rng) for rng in net.generators()}) == 2
    trained = nyud_color_hha(width=1).state_dict()
    assert not np.array_equal(trained["color.trunk.head.fc7.w"], trained["hha.trunk.head.fc7.w"])


def test_fixed_means_that_only_the_score_layer_learns():
    net = FCN32s_fixed(width=1, classes=3)
    before, x = net.state_dict(), photo(30, 30, dtype=np.float32)
    sgd = SGD(net, lr=0.1)
    loss_of(net, x, labels(x, 3)).backward()
    sgd.step()
    changed = {name for name, array in net.state_dict().items() if not np.array_equal(array, before[name])}
    assert changed == {"score_fr.w", "score_fr.b"}


def test_global_context_puts_the_mean_of_the_image_beside_every_cell(rng):
    x = rng.standard_normal((2, 3, 4, 5))
    y = GlobalContext(3).astype(np.float64)(x).data / 10
    np.testing.assert_allclose(np.linalg.norm(y[:, :3], axis=1), 1, rtol=1e-9)
    np.testing.assert_allclose(y[:, :3] * np.linalg.norm(x, axis=1, keepdims=True), x, rtol=1e-8)
    mean = x.mean(axis=(2, 3))
    unit = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(y[:, 3:], np.broadcast_to(unit[:, :, None, None], (2, 3, 4, 5)), rtol=1e-8)


def test_with_context_a_cell_sees_beyond_its_receptive_field():
    x = photo(32, 800)
    far = x.copy()
    far[..., 700:] = 3.0
    reach = {}
    for name, make in (("32s", lambda: paper_vgg(32, width=1, classes=3)), ("ParseNet", None)):
        net = randomized(make() if make else ParseNet(width=1, classes=3)).eval()
        reach[name] = not np.array_equal(net(x).data[..., :100], net(far).data[..., :100])
    assert reach == {"32s": False, "ParseNet": True}


# ---- devices -----------------------------------------------------------------------------------------------------

ON_A_DEVICE = {
    "AlexNet 8s, concat": lambda: FCN_AlexNet(8, width=1, classes=3, fusion="concat"),
    "GoogLeNet": lambda: FCN_GoogLeNet(width=1, classes=3),
    "SqueezeNet": lambda: FCN_SqueezeNet(width=1, classes=3),
    "ParseNet": lambda: ParseNet(width=1, classes=3),
    "two heads": lambda: paper_vgg(16, width=1, classes={"sem": 4, "geo": 2}),
    "late fusion": lambda: nyud_color_hha(width=1),
}


def two_steps(make, device, dtype):
    """Train on `device`; the state afterwards, on the host."""
    net = make().astype(dtype).to(device)
    sgd = SGD(net, lr=0.05)
    images = [to_device(x, device) for x in inputs(net, 34, 41, dtype=dtype)]
    for _ in range(2):
        losses = [
            ops.softmax_cross_entropy(y, to_device(labels(y, y.shape[1]), device)) for y in scores_of(net(*images))
        ]
        sum(losses[1:], losses[0]).backward()
        sgd.step()
    return net.state_dict()


@pytest.mark.parametrize("name", ON_A_DEVICE)
def test_every_kind_of_net_learns_the_same_on_every_device(name, device):
    here, there = (two_steps(ON_A_DEVICE[name], where, np.float64) for where in ("cpu", device))
    for key in here:
        np.testing.assert_allclose(here[key], there[key], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", slow_but(["SqueezeNet", "two heads"], ON_A_DEVICE, "two steps of a whole net, twice"))
def test_every_kind_of_net_learns_on_the_strict_device_in_float32(name, fake_gpu):
    here = two_steps(ON_A_DEVICE[name], "cpu", np.float32)
    with fake_gpu.no_float64():
        there = two_steps(ON_A_DEVICE[name], "gpu", np.float32)
    for key in here:
        np.testing.assert_allclose(here[key], there[key], rtol=1e-4, atol=1e-6)


def test_surgery_stays_on_the_device(fake_gpu):
    net = classifier(AlexNet, width=1, classes=3).to("gpu")
    fc6 = as_convolution(net.trunk.head.fc6)
    assert all(isinstance(p.data, fake_gpu.ndarray) for p in fc6.parameters())
    fused = FCN_AlexNet(width=1, classes=3, init="zero").to("gpu")
    transplant(fused, net.state_dict())
    assert isinstance(fused.trunk.head.fc6.w.data, fake_gpu.ndarray) and fused.state_dict()["trunk.head.fc6.w"].any()


# ---- an independent FCN-SqueezeNet in PyTorch, with its crops written down ---------------------------------------


def test_fcn_squeezenet_and_every_gradient_as_in_pytorch(torch):
    net = randomized(FCN_SqueezeNet(8, width=1, classes=4)).eval()
    x = photo(61, 70)
    truth = labels(x, 4)
    theirs = {name: torch.tensor(p.data, requires_grad=True) for name, p in net.named_parameters()}
    f = torch.nn.functional

    def conv(name, x, **options):
        return f.conv2d(x, theirs[f"{name}.w"], theirs[f"{name}.b"], **options)

    def up(x, kernel, stride):
        line = 1 - (torch.arange(kernel, dtype=torch.float64) - (kernel - 1) / 2).abs() / stride
        w = torch.einsum("oi,a,b->oiab", torch.eye(4, dtype=torch.float64), line, line)
        return f.conv_transpose2d(x, w, stride=stride)

    def pool(x):
        return f.max_pool2d(x, 3, 2, ceil_mode=True)

    h = pool(f.relu(conv("trunk.block1.conv1", torch.tensor(x), stride=2, padding=3)))
    for number in range(2, 10):
        fire = f"trunk.block{4 if number < 5 else 8 if number < 9 else 9}.fire{number}"
        h = f.relu(conv(f"{fire}.squeeze1x1", h))
        wide = f.relu(conv(f"{fire}.expand.expand3x3", h, padding=1))
        h = torch.cat([f.relu(conv(f"{fire}.expand.expand1x1", h)), wide], 1)
        if number in (4, 8):
            h = pool(h)
        if number == 4:
            skip = conv("score_pool4", h)
    score = up(conv("score_fr", h), 3, 2)[:, :, : skip.shape[2], : skip.shape[3]] + skip
    scores = up(score, 15, 8)[:, :, 1:62, 1:71]
    expected = f.cross_entropy(scores, torch.tensor(truth), ignore_index=255)
    expected.backward()

    loss = loss_of(net, x, truth)
    loss.backward()
    np.testing.assert_allclose(net(x).data, scores.detach().numpy(), rtol=1e-10, atol=1e-10)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for name, p in net.named_parameters():
        wanted = theirs[name].grad.numpy()
        assert np.abs(p.grad - wanted).max() <= 1e-10 * np.abs(wanted).max(), name
