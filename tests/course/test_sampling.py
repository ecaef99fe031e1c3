"""Loss sampling: the masked gradient is the sum of the patches' gradients, and samples are what they claim."""

import itertools
import math

import numpy as np
import pytest

from minifcn import ops
from minifcn.backend import to_device, to_host
from minifcn.errors import UsageError
from minifcn.geometry import Grid, Layer
from minifcn.models.fcn import FCN32s
from minifcn.nn import Conv2d, MaxPool2d, Sequential
from minifcn.sampling import (
    class_weights,
    count,
    hardest,
    sample,
    sample_balanced,
    sample_centres,
    sample_hardest,
    shares,
)


def net_of(rng, padding=0):
    net = Sequential(
        conv1=Conv2d(2, 3, 3, padding=padding, relu=True, init=rng),
        pool1=MaxPool2d(2),
        conv2=Conv2d(3, 4, 3, relu=True, init=rng),
        pool2=MaxPool2d(2),
        score=Conv2d(4, 3, 2, init=rng),
    )
    for name, p in net.named_parameters():
        p.data = rng.standard_normal(p.shape) * (0.1 if name.endswith("b") else math.sqrt(2 / math.prod(p.shape[1:])))
    return net


def gradients(net):
    found = {name: p.grad for name, p in net.named_parameters()}
    for p in net.parameters():
        p.zero_grad()
    return found


def whole_and_patches(net, rng, *, weights=None, everywhere=True):
    """The gradients of the masked loss of an image, and of the losses of the patches that its kept cells see.

    A patch is cut out of the image, so the net looks at it without padding. Cells that see padding have a patch only
    in part: they are kept only if `everywhere`.
    """
    grid = Grid.of(net.layers())
    x = rng.standard_normal((2, 2, 46, 42))
    score = net(x)
    labels = rng.integers(0, 3, (2, *score.shape[2:]))
    labels[0, 1, 1] = 255
    keep = sample(labels, 0.4, rng)
    if not everywhere:
        rows, cols = grid.inside(46), grid.inside(42)
        inside = np.zeros_like(keep)
        inside[:, rows.start : rows.stop, cols.start : cols.stop] = 1
        assert not inside.all()
        keep *= inside
    assert 0 < keep.sum() < keep.size
    ops.softmax_cross_entropy(score, labels, sampling=keep, weights=weights, normalize="none").backward()
    whole = gradients(net)
    net.conv1.layer = Layer(3)
    side, stride, first = int(grid.field), int(grid.stride), int(grid.start - (grid.field - 1) / 2)
    for n, i, j in np.argwhere(keep):
        top, left = max(0, first + i * stride), max(0, first + j * stride)
        score = net(x[n : n + 1, :, top : top + side, left : left + side])
        truth = labels[n : n + 1, i : i + 1, j : j + 1]
        ops.softmax_cross_entropy(score, truth, weights=weights, normalize="none").backward()
    return whole, gradients(net)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("padding", [0, 2])
def test_the_masked_gradient_is_the_sum_of_the_patches(padding, weighted, rng):
    """Everywhere without padding; with padding, for the cells that do not meet it."""
    weights = np.array([0.5, 2.0, 1.0]) if weighted else None
    whole, patches = whole_and_patches(net_of(rng, padding), rng, weights=weights, everywhere=padding == 0)
    for name, expected in patches.items():
        assert abs(expected).max() > 0
        np.testing.assert_allclose(whole[name], expected, rtol=1e-12, atol=1e-12, err_msg=name)


def test_at_the_border_patches_see_padding(rng):
    whole, patches = whole_and_patches(net_of(rng, padding=1), rng)
    assert not np.allclose(whole["conv1.w"], patches["conv1.w"], rtol=1e-3)


def test_a_shift_below_the_stride_reaches_the_patches_between(rng):
    """Cell (i, j) of the image cut by (dy, dx) sees the patch dy, dx further on: f^2 shifts see every patch."""
    net = net_of(rng)
    x, dense = rng.standard_normal((1, 2, 40, 40)), {}
    grid = Grid.of(net.layers())
    side, stride = int(grid.field), int(grid.stride)
    for dy in range(stride):
        for dx in range(stride):
            score = net(x[:, :, dy:, dx:]).data
            for i, j in np.ndindex(*score.shape[2:]):
                dense[i * stride + dy, j * stride + dx] = score[0, :, i, j]
    assert set(dense) == {(i, j) for i in range(40 - side + 1) for j in range(40 - side + 1)}
    np.testing.assert_allclose(dense[3, 6], net(x[:, :, 3 : 3 + side, 6 : 6 + side]).data.ravel(), rtol=1e-12)


# ---- samples -------------------------------------------------------------------------------------------------------


def test_a_sample_keeps_p_of_the_cells(rng):
    labels = np.zeros((4, 100, 100), np.int64)
    keep = sample(labels, 0.25, rng)
    assert keep.shape == labels.shape and set(np.unique(keep)) == {0, 1}
    assert keep.mean() == pytest.approx(0.25, abs=0.01)
    assert sample(labels, 1, rng).all()
    assert np.array_equal(sample(labels, 0.5, np.random.default_rng(7)), sample(labels, 0.5, np.random.default_rng(7)))


def test_the_centres_of_the_cells_are_where_a_score_is_nearly_alone():
    """There upsampling passes on one cell's score; the mask has a pixel for each cell."""
    net = FCN32s(layers=11, width=1, classes=1)
    keep = sample_centres(np.zeros((2, 96, 100), np.int64), 32)
    assert keep.shape == (2, 96, 100) and keep.sum() == 2 * 3 * 3
    for cell in itertools.product(range(3), repeat=2):
        score = np.zeros((1, 1, 3, 3), np.float32)
        score[(0, 0, *cell)] = 1
        seen = net.upscore(score).data[0, 0][keep[0, :, :96] == 1]
        assert seen.argmax() == 3 * cell[0] + cell[1] and 0.96 < seen.max() < 1 and np.sort(seen)[-2] < 0.02


def skewed(rng):
    labels = rng.choice([0, 1, 2, 255], p=[0.85, 0.09, 0.01, 0.05], size=(2, 200, 200))
    return labels, count(labels, 4)


def test_a_balanced_sample_is_balanced(rng):
    labels, there = skewed(rng)
    keep = sample_balanced(labels, 0.1, rng, classes=4)
    kept = count(np.where(keep == 1, labels, 255), 4)
    assert not keep[labels == 255].any() and there[3] == kept[3] == 0
    assert kept[2] == there[2]  # the rare class is kept whole
    assert kept[0] == pytest.approx(kept[1], rel=0.1)  # the others share the rest
    assert kept.sum() == pytest.approx(0.1 * there.sum(), rel=0.05)
    everything = sample_balanced(labels, 1, rng, classes=4)
    assert np.array_equal(everything, (labels != 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("counts", "total", "kept"),
    [
        ([10, 10, 10], 15, [5, 5, 5]),
        ([100, 1, 9], 30, [20, 1, 9]),
        ([0, 4, 100], 10, [0, 4, 6]),
        ([2, 3], 5, [2, 3]),
        ([0, 0], 0, [0, 0]),
    ],
)
def test_shares_are_even_where_they_can_be(counts, total, kept):
    assert shares(np.array(counts), total).tolist() == kept


def test_the_hardest_are_those_that_a_loop_finds(rng):
    """Many losses are equal: of those, the first by rows are kept."""
    losses = rng.integers(0, 6, (3, 7, 9)).astype(np.float32)
    counts = rng.random((3, 7, 9)) < 0.8
    counts[2] = False
    for share in (0.01, 0.3, 0.5, 1):
        kept = set()
        for image in range(3):
            cells = [(-losses[image, y, x], y, x) for y in range(7) for x in range(9) if counts[image, y, x]]
            most = max(round(share * len(cells)), 1) if cells else 0
            kept |= {(image, y, x) for _, y, x in sorted(cells)[:most]}
        keep = sample_hardest(losses, counts, share)
        assert keep.dtype == np.uint8 and {tuple(map(int, at)) for at in np.argwhere(keep)} == kept
        assert keep.sum() == sum(hardest(int(image.sum()), share) for image in counts)
    assert np.array_equal(sample_hardest(losses, counts, 1), counts)


def test_the_hardest_are_found_where_the_losses_are(rng, fake_gpu):
    """And where the net returns NaN, that is what it learns from: the run must not go on as if nothing were."""
    losses, counts = rng.integers(0, 6, (2, 7, 9)).astype(np.float32), rng.random((2, 7, 9)) < 0.8
    there = to_device(losses, "gpu"), to_device(counts, "gpu")
    before = fake_gpu.downloads
    keep = sample_hardest(*there, 0.3)
    assert fake_gpu.downloads == before
    assert np.array_equal(to_host(keep), sample_hardest(losses, counts, 0.3))
    losses[0, 3:5] = np.nan
    losses[1] = np.nan
    keep = sample_hardest(losses, counts, 0.1) != 0
    assert keep.any(axis=(1, 2)).all() and np.isnan(losses[keep]).all() and counts[keep].all()


@pytest.mark.parametrize("share", [0, -1, 1.1, float("nan")])
def test_a_share_of_the_hardest_is_asked_for(share):
    with pytest.raises(UsageError, match=r"share is .*; expected a number above 0, at most 1"):
        sample_hardest(np.zeros((1, 2, 2)), np.ones((1, 2, 2), bool), share)


def test_an_image_that_is_all_void(rng):
    labels = np.full((1, 5, 5), 255)
    assert not sample_balanced(labels, 0.5, rng, classes=3).any()


# ---- weights -------------------------------------------------------------------------------------------------------


def test_weights_make_classes_weigh_alike(rng):
    _, there = skewed(rng)
    weights = class_weights(there)
    assert weights.dtype == np.float32 and weights[3] == 0
    np.testing.assert_allclose((weights * there)[:3], there.sum() / 3, rtol=1e-6)
    assert (class_weights(there, power=0)[:3] == 1).all()
    half = class_weights(there, power=0.5)
    assert (half * there).sum() == pytest.approx(there.sum())
    assert half[2] / half[0] == pytest.approx(math.sqrt(there[0] / there[2]), rel=1e-5)


def test_the_loss_keeps_its_size(rng):
    labels, there = skewed(rng)
    flat = np.zeros((2, 4, 200, 200), np.float32)
    plain = ops.softmax_cross_entropy(flat, labels).item()
    assert ops.softmax_cross_entropy(flat, labels, weights=class_weights(there)).item() == pytest.approx(
        plain, rel=1e-4
    )


# ---- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0, -0.5, 1.5, float("nan")])
def test_a_probability_is_asked_for(p, rng):
    for call in (lambda: sample(np.zeros((1, 2, 2)), p, rng),
                 lambda: sample_balanced(np.zeros((1, 2, 2), int), p, rng, classes=2)):  # fmt: skip
        with pytest.raises(UsageError, match=r"p is .*; expected a probability above 0, at most 1"):
            call()


@pytest.mark.parametrize("counts", [[0, 0], [1, -1], [[1, 2]], []])
def test_counts_that_are_none_are_refused(counts):
    with pytest.raises(UsageError, match="class_weights: counts are"):
        class_weights(np.array(counts))


@pytest.mark.parametrize("label", [3, -1, 254])
def test_a_label_outside_the_classes_is_named(label):
    with pytest.raises(UsageError, match=f"found label {label}; expected 0..2, or 255"):
        count(np.array([[0, label, 255]]), 3)
