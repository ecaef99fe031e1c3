"""NaN, infinity, outliers and long sums: what a place does not see must not change it, as in PyTorch."""

import math

import numpy as np
import pytest

from minifcn import ops
from minifcn.kernels import blocks, products, winograd
from minifcn.kernels.im2col import Windows
from minifcn.tensor import Parameter

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
SPECIAL = [math.nan, math.inf, -math.inf]


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(all="ignore"):
        yield


def with_gradient(function, x, gy=None):
    p = Parameter(x)
    y = function(p)
    y.backward(np.ones_like(y.data) if gy is None else gy)
    return y.data, p.grad


def same(x, y):
    return np.array_equal(np.asarray(x), np.asarray(y), equal_nan=True)


@pytest.mark.parametrize("value", SPECIAL)
@pytest.mark.parametrize("how", ["void", "not sampled", "weight 0"])
@pytest.mark.parametrize("normalize", ["none", "valid", "batch_size"])
def test_a_pixel_that_does_not_count_may_have_any_score(value, how, normalize):
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((2, 3, 2, 2)), rng.integers(0, 2, (2, 2, 2))
    options = {"normalize": normalize}
    labels[0, 1, 1] = 2
    if how == "void":
        labels[0, 1, 1] = 255
    elif how == "weight 0":
        options["weights"] = np.array([1.0, 1.0, 0.0])
    else:
        options["sampling"] = np.ones((2, 2, 2))
        options["sampling"][0, 1, 1] = 0
    plain, exact = with_gradient(lambda p: ops.softmax_cross_entropy(p, labels, **options), x.copy())
    x[0, 1, 1, 1] = value
    loss, gradient = with_gradient(lambda p: ops.softmax_cross_entropy(p, labels, **options), x)
    assert loss == plain and same(gradient, exact) and not gradient[0, :, 1, 1].any()


@pytest.mark.parametrize("value", SPECIAL)
@pytest.mark.parametrize("loss", [ops.focal_loss, ops.dice_loss])
def test_no_loss_looks_at_a_void_pixel(loss, value):
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((2, 3, 2, 2)), rng.integers(0, 3, (2, 2, 2))
    labels[0, 1, 1] = 255
    plain, exact = with_gradient(lambda p: loss(p, labels), x.copy())
    x[0, 1, 1, 1] = value
    found, gradient = with_gradient(lambda p: loss(p, labels), x)
    assert found == plain and same(gradient, exact) and not gradient[0, :, 1, 1].any()


@pytest.mark.parametrize("value", SPECIAL)
@pytest.mark.parametrize(
    "resize",
    [
        lambda x: ops.bilinear_resize(x, size=(12, 10)),
        lambda x: ops.bilinear_upsample(x, kernel_size=4, stride=2),
        lambda x: ops.nearest_resize(x, size=(12, 10)),
    ],
    ids=["resize", "upsample", "nearest"],
)
def test_resizing_spreads_a_special_number_to_its_neighbours_alone(resize, value):
    x = np.random.default_rng(0).standard_normal((1, 2, 6, 5))
    plain = resize(x).data
    moved = x.copy()
    moved[0, 1, 2, 3] += 1
    seen = resize(moved).data != plain
    x[0, 1, 2, 3] = value
    y = resize(x).data
    assert 1 <= seen.sum() <= 16 and same(y[~seen], plain[~seen])
    assert np.isnan(y[seen]).all() if math.isnan(value) else (y[seen] == value).all()


def test_opposite_infinities_meet_in_nan():
    x = np.zeros((1, 1, 1, 2))
    x[0, 0, 0] = math.inf, -math.inf
    y = ops.bilinear_resize(x, size=(1, 4)).data
    assert y[0, 0, 0, 0] == math.inf and y[0, 0, 0, 3] == -math.inf and np.isnan(y[0, 0, 0, 1:3]).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_infinite_gradient_of_an_upsampled_map_stays_with_its_cells(value):
    gy = np.ones((1, 1, 14, 14))
    gy[0, 0, 7, 7] = value
    _, gradient = with_gradient(lambda p: ops.bilinear_upsample(p, kernel_size=4, stride=2), np.zeros((1, 1, 6, 6)), gy)
    assert (~np.isfinite(gradient)).sum() == 4


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("place", [(0, 0, 0, 0), (0, 3, 13, 9)])
@pytest.mark.parametrize("value", [*SPECIAL, 1e4, 1e6])
@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize(("channels", "size"), [((64, 64), (40, 41)), ((64, 128), (17, 18))])
def test_winograd_keeps_an_outlier_where_it_is_seen(value, place, spread, channels, size, dtype):
    rng = np.random.default_rng(1)
    i, o = channels[::-1] if spread else channels
    g = Windows((3, 3), padding=(1, 1))
    x = rng.standard_normal((2, i if not spread else o, *size)).astype("float32")
    w = (rng.standard_normal((o, i, 3, 3)) / (3 * math.sqrt(i))).astype("float32")
    x[place] = value
    if spread:
        y, exact = winograd.spread(x, w, g, size), products.spread(x.astype("f8"), w.astype("f8"), g, size)
    else:
        y, exact = winograd.correlate(x, w, g), products.correlate(x.astype("f8"), w.astype("f8"), g)
    assert same(np.isnan(y), np.isnan(exact)) and same(y[np.isinf(y)], exact[np.isinf(exact)])
    seen = np.zeros_like(exact, dtype=bool)
    _, _, row, col = place
    seen[place[0], :, max(row - 1, 0) : row + 2, max(col - 1, 0) : col + 2] = True
    for part, largest in ((seen, np.nan_to_num(abs(value))), (~seen, 5.0)):
        finite = part & np.isfinite(exact)
        assert np.abs(y[finite] - exact[finite]).max(initial=0) <= 2e-5 * largest


def test_winograd_takes_the_plain_sum_where_most_tiles_are_uneven():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((1, 64, 32, 32)).astype("float32") * 10.0 ** rng.integers(-4, 5, (1, 1, 32, 32))
    x, w = x.astype("float32"), rng.standard_normal((64, 64, 3, 3)).astype("float32")
    g = Windows((3, 3), padding=(1, 1))
    y = winograd.correlate(x, w, g)
    assert same(y, blocks.correlate(x, w, g))
    exact, most = (products.correlate(*(part(z.astype("float64")) for z in (x, w)), g) for part in (np.array, np.abs))
    assert (np.abs(y - exact) <= 1e-6 * most).all()


def test_winograd_computes_uneven_tiles_of_every_image_again():
    """Also the last ones, which reach beyond the output, and those at the padding."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((3, 64, 41, 39)).astype("float32")
    for image, row, col in ((0, 0, 0), (0, 20, 38), (2, 40, 38), (2, 21, 17)):
        x[image, :, row, col] *= 1e6
    w, b = (rng.standard_normal(s).astype("float32") for s in ((64, 64, 3, 3), (64,)))
    for padding in ((1, 1), (0, 2)):
        g = Windows((3, 3), padding=padding)
        y, exact = winograd.correlate(x, w, g, b, True), products.correlate(*(z.astype("f8") for z in (x, w)), g)
        most = products.correlate(*(np.abs(z.astype("f8")) for z in (x, w)), g)
        assert len(winograd.uneven(x, g, g.out_size(x.shape[2:]))[0]) > 5
        exact = np.maximum(exact + b[:, None, None].astype("f8"), 0)
        assert (np.abs(y - exact) <= 1e-5 * most).all()


@pytest.mark.parametrize("value", SPECIAL)
def test_relu_and_pooling_treat_special_numbers_as_pytorch(value, torch):
    x = np.linspace(-1, 1, 32).reshape(1, 2, 4, 4)
    x[0, 0, 1, 2] = value
    kernel = np.zeros((2, 2, 1, 1))
    kernel[0, 0] = kernel[1, 1] = 1
    for ours, theirs in [
        (ops.relu, torch.relu),
        (lambda p: ops.conv2d(p, kernel, relu=True), lambda t: torch.conv2d(t, torch.tensor(kernel)).relu()),
        (
            lambda p: ops.max_pool2d(p, kernel_size=3, stride=2, padding=1),
            lambda t: torch.nn.functional.max_pool2d(t, 3, 2, 1),
        ),
        (lambda p: ops.max_pool2d(p, kernel_size=2), lambda t: torch.nn.functional.max_pool2d(t, 2)),
        (lambda p: ops.clip(p, min=-0.5, max=0.5), lambda t: torch.clip(t, -0.5, 0.5)),
    ]:
        y, gradient = with_gradient(ours, x.copy())
        t = torch.tensor(x, requires_grad=True)
        exact = theirs(t)
        exact.backward(torch.ones_like(exact))
        assert same(y, exact.detach().numpy())
        assert same(gradient, t.grad.numpy())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "options", [{"kernel_size": 3, "stride": 2, "padding": 1}, {"kernel_size": 2, "ceil_mode": True}]
)
def test_pooling_of_minus_infinity_sends_no_gradient_into_the_padding(options, dtype):
    x = np.full((1, 2, 5, 5), -math.inf, dtype)
    y, gradient = with_gradient(lambda p: ops.max_pool2d(p, **options), x)
    assert (y == -math.inf).all() and gradient.sum() == y.size


@pytest.mark.parametrize("value", SPECIAL)
def test_a_special_gradient_leaves_inactive_places_zero(value):
    x = np.array([[[[-1.0, 2.0], [3.0, -4.0]]]])
    gy = np.full_like(x, value)
    one = np.ones((1, 1, 1, 1))
    for function, active in [
        (ops.relu, x > 0),
        (lambda p: ops.conv2d(p, one, relu=True), x > 0),
        (lambda p: ops.clip(p, min=0.0), x > 0),
        (lambda p: ops.maximum(p, np.zeros_like(x)), x > 0),
        (lambda p: ops.maximum(np.zeros_like(x), p), x > 0),
        (lambda p: ops.where(x > 0, p, 0.0), x > 0),
        (lambda p: ops.where(x < 0, 0.0, p), x > 0),
        (lambda p: ops.max(p, axis=(2, 3), keepdims=True), x == 3),
        (lambda p: ops.max_pool2d(p, kernel_size=2), x == 3),
    ]:
        _, gradient = with_gradient(function, x.copy(), gy[:, :, :1, :1] if active.sum() == 1 else gy)
        assert same(gradient, np.where(active, value, 0.0))


@pytest.mark.parametrize("shape", [(300_000, 3), (100_001, 2, 2), (257, 1), (256, 4), (70_000, 5)])
def test_long_sums_keep_float32(shape):
    """A bias's gradient is the sum over all rows: a plain loop over 300,000 of them is off by 3e-5."""
    x = np.random.default_rng(0).random(shape).astype("float32")
    p = Parameter(np.zeros(shape[1:], "float32"))
    (p + x).backward(x)
    exact = x.sum(axis=0, dtype="float64")
    for found in (p.grad, ops.sum(x, axis=0).data, ops.mean(x, axis=0).data * len(x)):
        assert found.dtype == np.float32 and np.abs(found / exact - 1).max() <= 1e-6
    for axis in (None, 0, -1, (0, 1), tuple(range(-x.ndim, 0))):
        exact = x.sum(axis=axis, dtype="float64", keepdims=True)
        assert np.abs(ops.sum(x, axis=axis, keepdims=True).data / exact - 1).max() <= 1e-6
