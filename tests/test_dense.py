"""Dense prediction: shift-and-stitch, rarefied filters and upsampling, equal where they are, explained elsewhere."""

import math

import numpy as np
import pytest

from minifcn import ops
from minifcn.errors import GeometryError, UsageError
from minifcn.geometry import Grid, Layer
from minifcn.models.vgg import VGG
from minifcn.nn import LRN, AvgPool2d, Conv2d, Linear, MaxPool2d, Module, Sequential, Upsample
from minifcn.stitch import rarefied, rarefy, shift_and_stitch, sliding
from minifcn.tensor import no_grad


def conv(i, o, k, rng, **options):
    return Conv2d(i, o, k, init=rng, relu=True, **options)


def plain(rng):
    """Facts 3.3: conv3 - relu - pool2/2 - conv3 - relu - pool3/2 - conv3."""
    return Sequential(
        conv1=conv(2, 3, 3, rng), pool1=MaxPool2d(2), conv2=conv(3, 3, 3, rng),
        pool2=MaxPool2d(3, stride=2), conv3=Conv2d(3, 4, 3, init=rng),
    )  # fmt: skip


def padded(rng):
    return Sequential(
        conv1=conv(2, 3, 3, rng, padding=2), pool1=MaxPool2d(2), conv2=conv(3, 3, 3, rng, padding=1),
        pool2=MaxPool2d(3, stride=2, padding=1), fc=Conv2d(3, 4, 3, padding=1, init=rng),
    )  # fmt: skip


def alexnet(rng):
    """CaffeNet's windows and groups, thin: stride 4 in a convolution, overlapping pools, LRN."""
    return Sequential(
        conv1=conv(2, 2, 11, rng, stride=4), pool1=MaxPool2d(3, stride=2), norm1=LRN(),
        conv2=conv(2, 4, 5, rng, padding=2, groups=2), conv3=conv(4, 2, 3, rng, padding=1),
    )  # fmt: skip


def averaged(rng):
    return Sequential(conv1=conv(2, 3, 3, rng, stride=3), pool1=AvgPool2d(2), fc=Conv2d(3, 2, 2, init=rng))


def vgg(rng, **options):
    return VGG(width=1, in_channels=2, init=rng, rng=rng, dropout=0, **options)


NETS = {"plain": plain, "padded": padded, "alexnet": alexnet, "averaged": averaged}
nets = pytest.mark.parametrize("name", NETS)


def integers(net, rng):
    """Small whole weights, so thin that every sum of the net is a whole number below 2^53 (`exact` looks)."""
    for name, p in net.parameters():
        kept = 0.5 if name.endswith("b") else 4 / math.prod(p.shape[1:])
        p.data = rng.choice([-1.0, 1.0, 1.0], p.shape) * (rng.random(p.shape) < kept)
    return net


def randomized(net, rng):
    """float64; biases small, so that ReLUs stay alive."""
    for name, p in net.parameters():
        p.data = rng.standard_normal(p.shape) * (0.1 if name.endswith("b") else math.sqrt(2 / math.prod(p.shape[1:])))
    return net


def exact(net, x):
    """Whether no sum, in whatever order, can leave the whole numbers of float64: the net on absolute values."""
    state = net.state()
    net.load({name: abs(value) for name, value in state.items()})
    largest = last(net(abs(x))).data.max()
    net.load(state)
    return largest < 2**53


def last(y):
    return list(y.values())[-1] if isinstance(y, dict) else y


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


# ---- VGG ---------------------------------------------------------------------------------------------------------


def test_vgg_down_to_fc7_is_itself_moved(rng):
    """A stride of 32 has 1024 moved images, so four of them; interlacing is tested above and in the ops."""
    net = integers(vgg(rng, padding=0), rng)
    x = rng.integers(0, 2, (1, 2, 416, 424)) * 1.0
    with no_grad():
        assert exact(net, x)
        dense = rarefy(net)(x)["fc7"].data
        rows, cols = (Grid.of(rarefied(net.layers())).inside(n, factor=32) for n in x.shape[2:])
        assert rows == range(96, 102) and cols == range(96, 110)  # 96 = 3 * 32: cell 3 of a moved image
        assert len(np.unique(dense[0, :, 96:102, 96:110])) > 1
        for top, left in [(0, 0), (0, 13), (5, 7)]:
            moved = net(x[:, :, top:, left:])["fc7"].data
            assert np.array_equal(moved[..., 3, 3], dense[..., 96 + top, 96 + left])


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
    net = Sequential(conv1=conv(2, 2, 3, rng, stride=2), pool1=MaxPool2d(3), conv2=conv(2, 2, 3, rng, stride=2))
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
    for (name, p), (_, q) in zip(net.parameters(), fine.parameters(), strict=True):
        assert abs(p.grad).max() > 0
        np.testing.assert_allclose(p.grad, q.grad, rtol=1e-10, atol=1e-13, err_msg=name)


def test_the_stitched_net_learns(rng):
    net = randomized(plain(rng), rng)
    x = rng.standard_normal((1, 2, 26, 26))
    truth = rng.integers(0, 4, (1, *shift_and_stitch(net, x).shape[2:]))
    before = ops.softmax_cross_entropy(shift_and_stitch(net, x), truth)
    before.backward()
    for _, p in net.parameters():
        p.data = p.data - 0.01 * p.grad
        p.changed()
    assert ops.softmax_cross_entropy(shift_and_stitch(net, x), truth).item() < before.item()


# ---- a copy, and refusals -------------------------------------------------------------------------------------------


def test_rarefy_copies(rng):
    net = plain(rng)
    before, chain = net.state(), net.layers()
    dense = rarefy(net)
    assert type(dense) is Sequential and net.layers() == chain and dense.layers() == rarefied(chain)
    for _, p in dense.parameters():
        p.data = p.data + 1
    assert all(np.array_equal(before[name], value) for name, value in net.state().items())
    assert list(dense.state()) == list(before)
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
        self.pooled = Sequential(pool=MaxPool2d(3, stride=1, padding=1), conv=conv(3, 1, 1, rng))

    def forward(self, x):
        return ops.concat(self.wide(x), self.narrow(x), self.pooled(x))

    def layers(self):
        return self.wide.layers()


def test_a_net_that_branches_between_its_strides(rng):
    net = Sequential(
        conv1=conv(2, 3, 3, rng, stride=2), mixed=Inception(rng), pool1=MaxPool2d(3, stride=2), fc=conv(5, 3, 2, rng)
    )
    assert [name for name, _ in sliding(net)][1] == "mixed.wide.squeeze"
    integers(net, rng)
    x = rng.integers(-2, 3, (1, 2, 44, 39)) * 1.0
    where = clean(net, (44, 39))
    dense = rarefy(net)(x).data[where]
    assert np.array_equal(shift_and_stitch(net, x).data[where], dense) and len(np.unique(dense)) > 1
