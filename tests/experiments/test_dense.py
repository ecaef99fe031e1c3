"""Dense prediction: shift-and-stitch, rarefied filters and upsampling, equal where they are, explained elsewhere."""

import copy
import itertools
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from some_slow import slow_but

from minifcn import ops
from minifcn.cli.command import guard
from minifcn.cli.dense import main
from minifcn.data.files import read_image
from minifcn.errors import GeometryError, ShapeError, UsageError
from minifcn.experiments import dense
from minifcn.geometry import Grid, Layer
from minifcn.gradcheck import gradcheck_along
from minifcn.introspect.describe import last
from minifcn.models.alexnet import AlexNet
from minifcn.models.dilated import FCN_dilated
from minifcn.models.fcn import FCN16s, FCN32s
from minifcn.models.googlenet import GoogLeNet
from minifcn.models.lenet import LeNet
from minifcn.models.squeezenet import SqueezeNet
from minifcn.models.upsampling import Deconvolutions, nonlinear
from minifcn.models.vgg import VGG
from minifcn.nn import AvgPool2d, Conv2d, Linear, LocalResponseNorm, MaxPool2d, Module, Sequential, Upsample, bilinear
from minifcn.stitch import rarefied, rarefy, shift_and_stitch, sliding
from minifcn.tensor import Parameter, no_grad


def conv(i, o, k, rng, **options):
    return Conv2d(i, o, k, init=rng, relu=True, **options)


def plain(rng):
    """Facts 3.3: conv3 - relu - pool2/2 - conv3 - relu - pool3/2 - conv3."""
    return Sequential(
        conv1=conv(2, 3, 3, rng), pool1=MaxPool2d(2, ceil_mode=True), conv2=conv(3, 3, 3, rng),
        pool2=MaxPool2d(3, stride=2, ceil_mode=True), conv3=Conv2d(3, 4, 3, init=rng),
    )  # fmt: skip


def padded(rng):
    return Sequential(
        conv1=conv(2, 3, 3, rng, padding=2), pool1=MaxPool2d(2, ceil_mode=True), conv2=conv(3, 3, 3, rng, padding=1),
        pool2=MaxPool2d(3, stride=2, padding=1, ceil_mode=True), fc=Conv2d(3, 4, 3, padding=1, init=rng),
    )  # fmt: skip


def alexnet(rng):
    """CaffeNet's windows and groups, thin: stride 4 in a convolution, overlapping pools, LRN."""
    return Sequential(
        conv1=conv(2, 2, 11, rng, stride=4), pool1=MaxPool2d(3, stride=2, ceil_mode=True), norm1=LocalResponseNorm(),
        conv2=conv(2, 4, 5, rng, padding=2, groups=2), conv3=conv(4, 2, 3, rng, padding=1),
    )  # fmt: skip


def averaged(rng):
    return Sequential(
        conv1=conv(2, 3, 3, rng, stride=3), pool1=AvgPool2d(2, ceil_mode=True), fc=Conv2d(3, 2, 2, init=rng)
    )


def vgg(rng, **options):
    return VGG(width=1, in_channels=2, init=rng, rng=rng, dropout=0, **options)


NETS = {"plain": plain, "padded": padded, "alexnet": alexnet, "averaged": averaged}
nets = pytest.mark.parametrize("name", NETS)


def integers(net, rng):
    """Small whole weights, so thin that every sum of the net is a whole number below 2^53 (`exact` looks)."""
    for name, p in net.named_parameters():
        kept = 0.5 if name.endswith("b") else 4 / math.prod(p.shape[1:])
        p.data = rng.choice([-1.0, 1.0, 1.0], p.shape) * (rng.random(p.shape) < kept)
    return net


def randomized(net, rng):
    """float64; biases small, so that ReLUs stay alive."""
    for name, p in net.named_parameters():
        p.data = rng.standard_normal(p.shape) * (0.1 if name.endswith("b") else math.sqrt(2 / math.prod(p.shape[1:])))
    return net


def exact(net, x):
    """Whether no sum, in whatever order, can leave the whole numbers of float64: the net on absolute values."""
    state = net.state_dict()
    net.load_state_dict({name: abs(value) for name, value in state.items()})
    largest = last(net(abs(x))).data.max()
    net.load_state_dict(state)
    return largest < 2**53


def clean(net, size):
    """The dense cells whose field meets neither padding nor a clipped window, along both axes."""
    factor = int(Grid.of(net.layers()).stride)
    cells = [Grid.of(rarefied(net.layers())).inside(n, factor=factor) for n in size]
    assert all(len(axis) > 1 for axis in cells), "an image this small has no such cells"
    return (..., *(slice(axis.start, axis.stop) for axis in cells))


SIZES = [(93, 101), (104, 96)]


@nets
@pytest.mark.parametrize("size", SIZES)
def test_shift_and_stitch_is_the_rarefied_net_to_the_bit(name, size, rng):
    net = integers(NETS[name](rng), rng)
    x = rng.integers(-2, 3, (2, 2, *size)) * 1.0
    dense, stitched = rarefy(net)(x).data, shift_and_stitch(net, x).data
    assert dense.shape == stitched.shape and (name == "alexnet" or exact(net, x))
    where = clean(net, size)
    assert len(np.unique(dense[where])) > 1
    if name == "alexnet":  # its normalisation has powers, which no whole number survives
        np.testing.assert_allclose(stitched[where], dense[where], rtol=1e-12, atol=1e-12)
    else:
        assert np.array_equal(stitched[where], dense[where])


@nets
def test_and_to_rounding_on_any_weights(name, rng):
    net, x = randomized(NETS[name](rng), rng), rng.standard_normal((1, 2, 91, 95))
    dense, where = rarefy(net)(x).data, clean(net, (91, 95))
    np.testing.assert_allclose(shift_and_stitch(net, x).data[where], dense[where], rtol=1e-12, atol=1e-12)


@nets
@pytest.mark.parametrize("size", SIZES)
def test_every_fth_dense_cell_is_the_strided_net(name, size, rng):
    net = randomized(NETS[name](rng), rng)
    x = rng.standard_normal((1, 2, *size))
    coarse, dense = net(x).data, rarefy(net)(x).data
    grid, factor = Grid.of(net.layers()), int(Grid.of(net.layers()).stride)
    rows, cols = (grid.inside(n) for n in size)
    inside = (..., slice(rows.start, rows.stop), slice(cols.start, cols.stop))
    assert rows and cols and rows.stop <= coarse.shape[2] and cols.stop <= coarse.shape[3]
    np.testing.assert_allclose(dense[..., ::factor, ::factor][inside], coarse[inside], rtol=1e-12, atol=1e-12)


def test_without_padding_every_cell_is_inside_and_ceil_mode_has_more(rng):
    net, x = randomized(plain(rng), rng), rng.standard_normal((1, 2, 43, 43))
    dense, coarse = rarefy(net)(x).data, net(x).data
    assert Grid.of(rarefied(net.layers())).inside(43) == range(dense.shape[2])
    assert len(Grid.of(net.layers()).inside(43)) < coarse.shape[2]  # pools hang over: cells the dense net cannot have
    np.testing.assert_allclose(shift_and_stitch(net, x).data, dense, rtol=1e-12, atol=1e-12)


def test_filters_that_are_not_rarefied_see_other_pixels(rng):
    """Taking the strides out is half of it: on the finer maps the same filters look at a part of what they saw."""
    net = randomized(plain(rng), rng)
    x, strided = rng.standard_normal((1, 2, 42, 42)), rarefy(net)
    close = copy.deepcopy(strided)
    for _, each in sliding(close):
        each.layer = replace(each.layer, dilation=1, padding=0)
    coarse, grid = net(x).data, Grid.of(net.layers())
    kept = (..., slice(len(grid.inside(42))), slice(len(grid.inside(42))))
    np.testing.assert_allclose(strided(x).data[..., ::4, ::4], coarse[kept], rtol=1e-12, atol=1e-12)
    wrong = close(x).data[..., ::4, ::4][kept]
    assert wrong.shape == coarse[kept].shape and (abs(wrong - coarse[kept]) > 1e-3).mean() > 0.9
    assert Grid.of(close.layers()).field < grid.field


def test_the_border_differs_because_padding_does(rng):
    """Moved images bring their own padding along; the rarefied net pads once. `Grid.inside` is not too careful."""
    net, x = randomized(padded(rng), rng), rng.standard_normal((1, 2, 45, 45))
    dense, stitched = rarefy(net)(x).data, shift_and_stitch(net, x).data
    differs = (abs(dense - stitched) > 1e-9).any(axis=(0, 1))
    where = clean(net, (45, 45))
    assert not differs[where].any()
    inside = where[1]
    assert differs[inside.start - 1].any() and differs[inside.stop].any()


@pytest.mark.parametrize("seed", range(20))
def test_inside_is_what_a_walk_over_the_pixels_says(seed):
    """Mark every pixel and every cell of padding 'outside', and carry the mark through the windows one by one."""
    rng = np.random.default_rng(seed)
    kernel, stride, padding, dilation, ceil = rng.integers([[1], [1], [0], [1], [0]], [[4], [4], [3], [3], [2]], (5, 3))
    windows = zip(*(n.tolist() for n in (kernel, stride, np.minimum(padding, kernel - 1), dilation)), strict=True)
    chain = [Layer(*window, ceil=bool(c)) for window, c in zip(windows, ceil, strict=True)]
    for size in range(30, 40):
        inside = np.ones(size, bool)
        for layer in chain:
            cells = range(0, layer.extent, layer.dilation)
            starts = [j * layer.stride - layer.padding for j in range(layer.out_size(len(inside)))]
            inside = np.array([all(0 <= s + c < len(inside) and inside[s + c] for c in cells) for s in starts])
        assert list(Grid.of(chain).inside(size)) == list(np.flatnonzero(inside)), (chain, size)


# ---- every trunk ---------------------------------------------------------------------------------------------------

TRUNKS = [
    (LeNet, {"in_channels": 2}, 1),
    (AlexNet, {"dropout": 0}, 1),
    (VGG, {"dropout": 0}, 1),
    (VGG, {"dropout": 0, "layers": 19}, 1),
    (GoogLeNet, {"dropout": 0}, 4),  # which sees 715 pixels: from 4 to 1 is the next test
    (SqueezeNet, {"dropout": 0}, 1),
    (SqueezeNet, {"dropout": 0, "version": "1.1"}, 1),
]


@pytest.mark.parametrize("weights", [integers, randomized])
@pytest.mark.parametrize(
    ("trunk", "options", "stride"), slow_but([TRUNKS[0], *TRUNKS[5:]], TRUNKS, "a deep trunk on a large image")
)
def test_every_trunk_moved_is_itself_rarefied(trunk, options, stride, weights, rng):
    """On all cells inside. Not moved: dense[::f, ::f] is the strided net. A stride of 32 has 1024 moved images, so of
    large ones four here; interlacing is tested above and in the ops.
    """
    net = weights(trunk(width=1, padding=0, init=rng, rng=rng, **options), rng)
    chain, channels = net.layers(), options.get("in_channels", 3)
    factor, fine = int(Grid.of(chain).stride) // stride, Grid.of(rarefied(chain, stride))
    side = next(n for n in itertools.count(int(fine.field)) if len(fine.inside(n, factor=factor)) > factor)
    x = rng.integers(0, 2, (1, channels, side, side + 2 * stride)) * 1.0
    rows, cols = (fine.inside(n, factor=factor) for n in x.shape[2:])
    few = [(0, 0), (0, factor - 1), (min(3, factor - 1), 1), (factor - 1, factor // 2)]
    with no_grad():
        assert weights is randomized or exact(net, x)
        dense_map = last(rarefy(net, stride)(x)).data
        assert len(np.unique(dense_map[0, :, rows.start : rows.stop, cols.start : cols.stop])) > 1
        for down, right in few if factor > 4 else itertools.product(range(factor), repeat=2):
            moved = last(net(x[:, :, down * stride :, right * stride :])).data
            b = dense_map[..., rows.start + down : rows.stop : factor, cols.start + right : cols.stop : factor]
            a = moved[..., rows.start // factor :, cols.start // factor :][..., : b.shape[2], : b.shape[3]]
            assert a.shape == b.shape and b.size and ((down, right) != (0, 0) or b.shape[2] > 1)
            if weights is randomized or any(isinstance(module, LocalResponseNorm) for module in net.modules()):
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * abs(dense_map).max())
            else:
                assert np.array_equal(a, b)


def test_googlenet_from_stride_4_to_1(rng):
    """No padding lies before its first two strides, and of 95 pixels no window hangs over: all cells are dense ones."""
    net = randomized(GoogLeNet(width=1, padding=0, init=rng, rng=rng, dropout=0), rng)
    x = rng.standard_normal((1, 3, 95 + 3, 91 + 3))
    with no_grad():
        coarse, dense_map = rarefy(net, 4), last(rarefy(net)(x)).data
        for down, right in itertools.product(range(4), repeat=2):
            moved = last(coarse(x[:, :, down : down + 95, right : right + 91])).data
            part = dense_map[..., down::4, right::4]
            assert moved.shape == part.shape and min(part.shape[2:]) > 5
            np.testing.assert_allclose(moved, part, rtol=1e-12, atol=1e-12 * abs(part).max())


@pytest.mark.parametrize("skip", ["pool1", "pool2", "pool3"])
def test_vgg_up_to_a_pool(skip, rng):
    net = vgg(rng, padding="same")
    stages = ("block1", "block2", "block3")[: int(skip[-1])]
    net = integers(Sequential(**{stage: getattr(net, stage) for stage in stages}), rng)
    x = rng.integers(0, 3, (1, 2, 76, 75)) * 1.0
    assert exact(net, x)
    where = clean(net, (76, 75))
    with no_grad():
        assert np.array_equal(shift_and_stitch(net, x).data[where], rarefy(net)(x).data[where])


@pytest.mark.parametrize(("padding", "size"), [("same", (96, 128)), (100, (90, 122))])
def test_an_fcn_that_is_stitched_answers_as_itself_at_its_cells(padding, size, rng):
    """And beyond the outermost cells as at the nearest. At these sizes no window hangs over."""
    net = randomized(FCN32s(layers=11, width=1, classes=3, padding=padding, dropout=0), rng)
    x = rng.standard_normal((1, 3, *size))
    with no_grad():
        stitched, coarse = dense.Rarefied(net)(x).data, net.score_fr(last(net.trunk(x))).data
    start = math.floor(Grid.of(net.trunk.layers()).start)
    rows, cols = ([start + 32 * i for i in range(n)] for n in coarse.shape[2:])
    assert stitched.shape == (1, 3, *size) and coarse.shape[2:] == (3, 4)
    np.testing.assert_allclose(stitched[..., rows, :][..., cols], coarse, rtol=1e-9, atol=1e-12)
    above, outermost = stitched[..., :start, :], stitched[..., start : start + 1, :]
    assert start > 10 and np.array_equal(above, np.broadcast_to(outermost, above.shape))
    assert len(np.unique(stitched[0, 0, 15:80, 15:112])) > 1000


def test_what_cannot_be_stitched_is_refused():
    for net in (FCN16s(layers=11, width=1), FCN32s(layers=11, width=1, classes={"sem": 2, "geo": 3}), VGG):
        with pytest.raises(UsageError, match="without skips and with one head"):
            dense.Rarefied(net)


# ---- upsampling ----------------------------------------------------------------------------------------------------


def upsamplings(kernel, stride, channels=3):
    """Fixed and separable; learned, a kernel a channel; learned, the reference's dense kernels."""
    return [
        Upsample(channels, kernel, stride, **options).astype(np.float64)
        for options in ({}, {"learn": True}, {"learn": True, "grouped": False})
    ]


FACTORS = [(4, 2), (3, 2), (16, 8), (15, 8), (64, 32), (63, 32)]


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(4, 2, 0), (4, 2, 1), (3, 2, 1), (7, 3, 2), (16, 8, 4)])
def test_upsampling_is_a_strided_convolution_backwards(kernel, stride, padding, rng):
    """<conv A, B> = <A, tconv B>, and each one's three products are the other's in another order (section 3.3)."""
    window = {"stride": stride, "padding": padding}
    w, fine = rng.standard_normal((2, 3, kernel, kernel)), [4 * stride + kernel - 2 * padding] * 2
    a = rng.standard_normal((2, 3, *fine))
    down, (grad_a, grad_w, _) = ops.conv2d.__wrapped__(a, w, None, **window)
    b = rng.standard_normal(down.shape)
    up, (grad_b, grad_v, _) = ops.conv_transpose2d.__wrapped__(b, w, None, **window)
    assert up.shape == a.shape and down.shape[2:] == (5, 5)
    assert (down * b).sum() == pytest.approx((a * up).sum(), rel=1e-12)
    for one, other in ((up, grad_a(b)), (grad_b(a), down), (grad_v(a), grad_w(b))):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12 * abs(other).max())


def test_the_kernel_that_doubles():
    """[1, 3, 3, 1] x [1, 3, 3, 1] / 16: a ramp goes on in steps of a half, at 1.25, 1.75, ..."""
    line = np.array([1.0, 3, 3, 1])
    assert np.array_equal(bilinear(4), np.outer(line, line) / 16)
    ramp = np.arange(1.0, 5) * np.ones((1, 1, 4, 1))
    assert Upsample(1, 4, 2).astype(np.float64)(ramp).data[0, 0, 4, 2:-2].tolist() == [
        1.25,
        1.75,
        2.25,
        2.75,
        3.25,
        3.75,
    ]


@pytest.mark.parametrize(("kernel", "stride"), FACTORS)
def test_dense_diagonal_grouped_and_fixed_are_one(kernel, stride, rng):
    fixed, grouped, dense = upsamplings(kernel, stride)
    x = Parameter(rng.standard_normal((2, 3, 4, 5)))
    gy = None
    results = []
    for up in (fixed, grouped, dense):
        y = up(x)
        gy = rng.standard_normal(y.shape) if gy is None else gy
        y.backward(gy)
        results.append((y.data, x.grad))
        x.zero_grad()
    for y, gx in results[1:]:
        np.testing.assert_allclose(y, results[0][0], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(gx, results[0][1], rtol=1e-12, atol=1e-12)
    own = dense.w.grad[np.arange(3), np.arange(3)]
    np.testing.assert_allclose(own, grouped.w.grad[:, 0], rtol=1e-12, atol=1e-12)
    assert dense.w.size == 3 * grouped.w.size and abs(dense.w.grad[0, 1]).max() > 0  # it may learn to mix classes


@pytest.mark.parametrize(("kernel", "stride"), FACTORS)
def test_the_ring_at_the_border_is_under_weighted(kernel, stride):
    """Inside, the kernels on every pixel sum to 1; on a ring of k - s pixels, those beyond the edge are missing."""
    weight = Upsample(1, kernel, stride).astype(np.float64)(np.ones((1, 1, 4, 4))).data[0, 0]
    ring = kernel - stride
    inside = weight[ring:-ring, ring:-ring]
    np.testing.assert_allclose(inside, 1, rtol=1e-12)
    weight[ring:-ring, ring:-ring] = 0
    assert (weight < 1 - 1e-9).all()
    assert weight[0, 0] == pytest.approx(bilinear(kernel)[0, 0])  # one kernel's corner is all that reaches the corner


@pytest.mark.parametrize(("kernel", "stride"), FACTORS)
def test_inside_the_ring_a_ramp_stays_a_ramp(kernel, stride):
    ramp = np.arange(6.0) * np.ones((1, 1, 6, 1))
    line = Upsample(1, kernel, stride).astype(np.float64)(ramp).data[0, 0, 3 * stride]
    step = np.diff(line[kernel - stride : stride - kernel])
    np.testing.assert_allclose(step, 1 / stride, rtol=1e-9)


def test_of_fcn32s_13_pixels_of_the_ring_are_left():
    """It is 64 - 32 = 32 wide, and 19 are cropped; scores there are scaled by less than 1: no argmax moves."""
    net = FCN32s(width=1, padding=100, classes=3)
    ring = net.upscore.layer.kernel - net.upscore.layer.stride
    assert ring - net.ladder.rungs[-1].at == 13
    rng = np.random.default_rng(0)
    coarse = rng.standard_normal((1, 3, 2, 2))
    fine = net.upscore(coarse).data
    corner = fine[0, :, :32, :32]  # here only the corner cell is near
    assert (corner.argmax(axis=0) == coarse[0, :, 0, 0].argmax()).all()
    assert (abs(corner) < abs(coarse[0, :, 0, 0])[:, None, None]).all()


@pytest.mark.parametrize(("kernel", "stride"), FACTORS)
@pytest.mark.parametrize("padded", [False, True])
def test_a_stack_of_deconvolutions_lies_where_the_kernel_did(kernel, stride, padded, rng):
    padding = (kernel - stride) // 2 if padded else 0
    fixed = Upsample(2, kernel, stride, padding=padding)
    stack = Deconvolutions(2, fixed.layer).astype(np.float64)
    x = rng.standard_normal((1, 2, 5, 6))
    y = stack(x).data
    assert y.shape == fixed(x).shape and stack.layers() == fixed.layers()
    assert len(list(stack.named_parameters())) == 2 * (stride.bit_length() - 1)
    ramp = (np.arange(12.0) - 5) * np.ones((1, 2, 12, 1))  # negative and positive: nothing is cut off at the start
    inside = slice(4 * stride, 8 * stride)
    middle = (0, 0, inside, inside)
    np.testing.assert_allclose(stack(ramp).data[middle], fixed(ramp).data[middle], rtol=1e-9, atol=1e-9)


def test_a_stack_can_learn_what_no_kernel_can(rng):
    """The wanted map is the positive part of the upsampled score: half of every pair is to be forgotten."""
    layer = Layer(8, 4, 2, transpose=True)
    x = rng.standard_normal((4, 1, 8, 8))
    wanted = np.maximum(Deconvolutions(1, layer).astype(np.float64)(x).data, 0)

    def learned(up):
        for _ in range(150):
            error = up(x) - wanted
            loss = (error * error).mean()
            loss.backward()
            for p in up.parameters():
                p.data = p.data - 0.3 * p.grad
                p.changed()
                p.zero_grad()
        return loss.item()

    kernel = learned(Upsample(1, 8, 4, padding=2, learn=True).astype(np.float64))
    assert learned(Deconvolutions(1, layer).astype(np.float64)) < 0.2 * kernel


def test_an_fcn_with_nonlinear_upsampling(rng):
    linear = FCN16s(width=1, layers=11, padding=100, classes=2, dropout=0)
    net = nonlinear(FCN16s(width=1, layers=11, padding=100, classes=2, dropout=0))
    x = rng.standard_normal((1, 3, 33, 40))
    for each in (linear, net):
        for i, (name, p) in enumerate(each.named_parameters()):
            own = np.random.default_rng(i)
            if name.endswith(".b"):
                p.data = own.uniform(0.05, 0.3, p.shape)  # off the kink that a ReLU has at 0
            elif not name.startswith("upscore"):
                p.data = own.uniform(-1, 1, p.shape) / math.sqrt(p.size / len(p.data))
        each.astype(np.float64)
    assert net(x).shape == linear(x).shape == (1, 2, 33, 40)
    truth = rng.integers(0, 2, (1, 33, 40))
    gradcheck_along(lambda: ops.softmax_cross_entropy(net(x), truth), list(net.parameters()))


@pytest.mark.parametrize("stride", [1, 3, 6])
def test_only_doubling_can_be_stacked(stride):
    with pytest.raises(UsageError, match=f"stride is {stride}; expected a power of two"):
        Deconvolutions(2, Layer(2 * stride, stride, transpose=True))


# ---- a dilated trunk -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", slow_but([16], [4, 8, 16], "large maps of scores"))
def test_a_dilated_fcn_has_the_weights_of_another_and_finer_scores(stride):
    coarse, net = FCN32s(width=1, padding=100, classes=3), FCN_dilated(stride, width=1, classes=3)
    assert {n: p.shape for n, p in net.named_parameters()} == {n: p.shape for n, p in coarse.named_parameters()}
    net.load_state_dict(coarse.state_dict())
    (rung,) = net.ladder.rungs
    assert rung.layer == Layer(2 * stride, stride, transpose=True)
    assert Grid.of(net.trunk.layers()).field == 404 and Grid.of(net.trunk.layers()).stride == stride
    for size in [(1, 1), (33, 20), (64, 9)]:
        assert net.eval()(np.zeros((1, 3, *size), np.float32)).shape == (1, 3, *size)


def test_every_fourth_of_its_cells_is_one_of_the_coarse_trunk(rng):
    net = FCN_dilated(8, width=1, classes=2, padding=110).eval()
    coarse = FCN32s(width=1, classes=2, padding=110).eval()
    coarse.load_state_dict(net.state_dict())
    x = rng.standard_normal((1, 3, 450, 440)).astype(np.float32)
    fine, few = (last(each.trunk(x)).data for each in (net, coarse))
    rows, cols = (Grid.of(coarse.trunk.layers()).inside(n) for n in (450, 440))
    assert len(rows) and len(cols)
    where = (..., slice(rows.start, rows.stop), slice(cols.start, cols.stop))
    assert few[where].any()
    np.testing.assert_allclose(fine[..., ::4, ::4][where], few[where], rtol=1e-4, atol=1e-6)


# ---- the command ---------------------------------------------------------------------------------------------------


def test_the_command_prints_costs_and_draws_the_border(tmp_path, capsys):
    out = tmp_path / "border.png"
    assert main(["--until", "pool2", "--size", "48x52", "--width", "1", "--picture", str(out)]) == 0
    printed = capsys.readouterr().out
    cost = {way: float(re.search(rf"^{way} .* ([\d.]+) G ", printed, re.MULTILINE)[1])
            for way in ("strided", "upsampled", "  nonlinearly", "shift-and-stitch", "rarefied")}  # fmt: skip
    assert cost["strided"] <= cost["upsampled"] <= cost["  nonlinearly"]
    assert cost["shift-and-stitch"] >= cost["rarefied"]
    stack = re.search(r"has (\d+) numbers to learn; doubling 2 times, it starts (\S+) from bilinear", printed)
    assert (
        1e-6 < float(stack[2]) < 1 and int(stack[1]) == 16 * 2 * 4 + 4 + 16 * 4 * 2 + 2
    )  # 2 channels, then pairs, then 2
    assert (
        float(re.search(r"by (\S+) \(float32\)", printed)[1]) < 1e-5 < float(re.search(r"most (\S+); on", printed)[1])
    )
    picture = read_image(out)
    red = (picture == (200, 30, 30)).all(axis=-1)
    assert red.any() and picture.shape[:2] == (45, 49)
    trunk = VGG(width=1, padding=1, init="zero", rng=np.random.default_rng(0)).until("pool2")
    rows, cols = dense.equal_cells(trunk.layers(), (48, 52))
    assert not red[rows.start : rows.stop, cols.start : cols.stop].any()


@pytest.mark.parametrize(
    ("trunk", "until", "doublings"),
    [("vgg16", "pool1", 1), ("alexnet", "pool1", 3), ("googlenet", "pool2", 3), ("squeezenet", "pool1", 2)],
)
def test_every_trunk_has_every_way(trunk, until, doublings, capsys):
    """One doubling is the bilinear kernel itself; several, one after another, are smoother than one larger kernel."""
    assert main(["--trunk", trunk, "--until", until, "--size", "61x66", "--width", "1"]) == 0
    found = re.search(r"doubling (\d) times, it starts (\S+) from bilinear", capsys.readouterr().out)
    assert int(found[1]) == doublings and (float(found[2]) < 1e-6) == (doublings == 1)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--trunk", "vgg"], "option trunk is 'vgg'; expected one of vgg11, vgg13, vgg16, "),
        (["--trunk", "alexnets"], "; did you mean 'alexnet'?"),
        (["--until", "pool9"], "output is 'pool9'; expected one of pool1"),
        (["--until", "fc7", "--size", "500"], "32^2 moved images"),
    ],
)
def test_the_command_refuses(argv, words, capsys):
    assert guard(main, argv) == 2
    assert words in capsys.readouterr().err


# ---- what the paper says -----------------------------------------------------------------------------------------


def test_fc6_at_stride_16_is_13_cells_wide_and_not_14():
    """Section 4.2 sets pool5 to stride 1 and speaks of 14x14 filters. Rarefied by 2, seven taps reach over 13."""
    chain = VGG(width=1, init="zero", rng=np.random.default_rng(0)).layers()
    fine = rarefied(chain, 16)
    fc6 = fine[-2]
    assert (fc6.kernel, fc6.dilation, fc6.extent) == (7, 2, 13)
    assert Grid.of(fine).field == Grid.of(chain).field == 404
    assert Grid.of([*fine[:-2], Layer(14), fine[-1]]).field == 420
    assert Grid.of(fine).stride == 16


@pytest.mark.parametrize("stride", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("padding", [0, 100, "same"])
def test_rarefaction_changes_neither_field_nor_start(stride, padding):
    chain = VGG(width=1, padding=padding, init="zero", rng=np.random.default_rng(0)).layers()
    before, after = Grid.of(chain), Grid.of(rarefied(chain, stride))
    assert (after.start, after.field, after.stride) == (before.start, before.field, stride)


def test_one_stride_can_be_taken_out_in_part():
    before = [Layer(11, 4), Layer(3, 2), Layer(5, padding=2), Layer(3, 2)]
    after = rarefied(before, 2)
    assert [(layer.stride, layer.dilation, layer.padding) for layer in after] == [
        (2, 1, 0), (1, 2, 0), (1, 4, 8), (1, 4, 0),
    ]  # fmt: skip
    assert Grid.of(after).field == Grid.of(before).field


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 6, 12])
def test_every_divisor_of_the_stride(stride, rng):
    net = Sequential(
        conv1=conv(2, 2, 3, rng, stride=2), pool1=MaxPool2d(3, ceil_mode=True), conv2=conv(2, 2, 3, rng, stride=2)
    )
    net, x = randomized(net, rng), rng.standard_normal((1, 2, 47, 50))
    fine, coarse = rarefy(net, stride)(x).data, net(x).data
    step = 12 // stride
    rows, cols = (Grid.of(net.layers()).inside(n).stop for n in (47, 50))
    np.testing.assert_allclose(fine[..., ::step, ::step][..., :rows, :cols], coarse[..., :rows, :cols], rtol=1e-12)


# ---- training through ---------------------------------------------------------------------------------------------


def test_gradients_flow_through_both_and_agree(rng):
    net = randomized(plain(rng), rng)
    x = rng.standard_normal((1, 2, 30, 32))
    fine = rarefy(net)
    shape = fine(x).shape
    truth = rng.integers(0, 4, (1, *shape[2:]))
    ops.softmax_cross_entropy(shift_and_stitch(net, x), truth).backward()
    ops.softmax_cross_entropy(fine(x), truth).backward()
    for (name, p), (_, q) in zip(net.named_parameters(), fine.named_parameters(), strict=True):
        assert abs(p.grad).max() > 0
        np.testing.assert_allclose(p.grad, q.grad, rtol=1e-10, atol=1e-13, err_msg=name)


def test_the_stitched_net_learns(rng):
    net = randomized(plain(rng), rng)
    x = rng.standard_normal((1, 2, 26, 26))
    truth = rng.integers(0, 4, (1, *shift_and_stitch(net, x).shape[2:]))
    before = ops.softmax_cross_entropy(shift_and_stitch(net, x), truth)
    before.backward()
    for p in net.parameters():
        p.data = p.data - 0.01 * p.grad
        p.changed()
    assert ops.softmax_cross_entropy(shift_and_stitch(net, x), truth).item() < before.item()


# ---- a copy, and refusals -------------------------------------------------------------------------------------------


def test_rarefy_copies(rng):
    net = plain(rng)
    before, chain = net.state_dict(), net.layers()
    dense = rarefy(net)
    assert type(dense) is Sequential and net.layers() == chain and dense.layers() == rarefied(chain)
    for p in dense.parameters():
        p.data = p.data + 1
    assert all(np.array_equal(before[name], value) for name, value in net.state_dict().items())
    assert list(dense.state_dict()) == list(before)
    same = rarefy(net, 4)
    assert same.layers() == chain


class Fork(Module):
    """Two branches that both stride: no chain."""

    def __init__(self, rng):
        self.left, self.right = conv(2, 2, 3, rng, stride=2), conv(2, 2, 3, rng, stride=2)

    def layers(self):
        return self.left.layers()


@pytest.mark.parametrize(
    ("build", "stride", "words"),
    [
        (plain, 3, r"3 does not divide the stride 4 made by pool1 \(2\), pool2 \(2\); expected one of 1, 2, 4"),
        (plain, 8, "output stride 8 does not divide the stride 4"),
        (plain, 0, "output stride 0"),
    ],
)
def test_a_stride_that_cannot_be_had_is_refused(build, stride, words, rng):
    with pytest.raises(GeometryError, match=words):
        rarefy(build(rng), stride)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda rng: Sequential(fc=Linear(3, 2, init=rng)), "fc is a Linear"),
        (lambda rng: Sequential(up=Upsample(2, 4, 2)), "up is a Upsample; expected convolutions and pools"),
        (lambda rng: Sequential(fork=Fork(rng)), r"fork.left \(2\), fork.right \(2\) do not follow one another"),
    ],
)
def test_a_net_that_cannot_be_stretched_is_refused(build, words, rng):
    with pytest.raises(UsageError, match=words):
        rarefy(build(rng))


class Inception(Module):
    """Branches without a stride between strides, joined by their channels."""

    def __init__(self, rng):
        self.wide = Sequential(squeeze=conv(3, 2, 1, rng), conv=conv(2, 2, 5, rng, padding=2))
        self.narrow = conv(3, 2, 1, rng)
        self.pooled = Sequential(pool=MaxPool2d(3, stride=1, padding=1, ceil_mode=True), conv=conv(3, 1, 1, rng))

    def forward(self, x):
        return ops.concat(self.wide(x), self.narrow(x), self.pooled(x))

    def layers(self):
        return self.wide.layers()


def test_a_net_that_branches_between_its_strides(rng):
    net = Sequential(
        conv1=conv(2, 3, 3, rng, stride=2),
        mixed=Inception(rng),
        pool1=MaxPool2d(3, stride=2, ceil_mode=True),
        fc=conv(5, 3, 2, rng),
    )
    assert [name for name, _ in sliding(net)][1] == "mixed.wide.squeeze"
    integers(net, rng)
    x = rng.integers(-2, 3, (1, 2, 44, 39)) * 1.0
    where = clean(net, (44, 39))
    dense = rarefy(net)(x).data[where]
    assert np.array_equal(shift_and_stitch(net, x).data[where], dense) and len(np.unique(dense)) > 1


def test_an_image_too_small_for_an_unpadded_net_names_the_layer(rng):
    """VGG without a border has 6 cells left where fc6 wants 7."""
    net = vgg(rng, padding=0)
    with pytest.raises(ShapeError, match=r"^fc6: a kernel of 7x7 .* padded by \(0, 0\) has only 6x7"):
        net(np.zeros((1, 2, 194, 195), np.float32))
    assert net(np.zeros((1, 2, 195, 195), np.float32))["fc7"].shape[2:] == (1, 1)
