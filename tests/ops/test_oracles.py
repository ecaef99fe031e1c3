"""Independent answers: the definitions in plain Python loops, closed forms, and PyTorch where it is installed.

Nothing here shares a line with the package: the loops walk pixels one by one and compute every size themselves.
"""

import itertools
import math
import time

import numpy as np
import pytest
from op_cases import CASES, Case, by_hand, labels, numbers

from minifcn import ops
from minifcn.nn import bilinear
from minifcn.tensor import OPS, Parameter, Tensor


def cases_of(*names: str):
    return pytest.mark.parametrize("case", [case for name in names for case in CASES[name].values()], ids=str)


def value(case: Case) -> np.ndarray:
    return OPS[case.op](*case.inputs, **case.options).data


def two(size) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def at(x, n, c, i, j):
    """A pixel, or None outside the image."""
    return float(x[n, c, i, j]) if 0 <= i < x.shape[2] and 0 <= j < x.shape[3] else None


# The definitions, in plain Python


def pooled_size(size, kernel, stride, padding, dilation, ceil):
    """Caffe's pooling_layer.cpp, with its correction for a last window that starts in the padding."""
    span = dilation * (kernel - 1) + 1
    steps = (size + 2 * padding - span) / stride
    out = int(math.ceil(steps) if ceil else math.floor(steps)) + 1
    out = max(out, 1)
    while ceil and out > 1 and (out - 1) * stride >= size + padding:
        out -= 1
    return out


def pooled(x, mean, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    geometry = list(
        zip(two(kernel_size), two(kernel_size if stride is None else stride), two(padding), two(dilation), strict=True)
    )
    (kh, sh, ph, dh), (kw, sw, pw, dw) = geometry
    (n, c, h, w) = x.shape
    y = np.zeros((n, c, pooled_size(h, *geometry[0], ceil_mode), pooled_size(w, *geometry[1], ceil_mode)))
    for place in np.ndindex(y.shape):
        image, channel, i, j = place
        seen, divisor = [], 0
        for u, v in itertools.product(range(kh), range(kw)):
            row, col = i * sh - ph + u * dh, j * sw - pw + v * dw
            divisor += row < h + ph and col < w + pw  # Caffe: the window is clipped to the padded image, then counted
            pixel = at(x, image, channel, row, col)
            seen += [] if pixel is None else [pixel]
        y[place] = sum(seen) / divisor if mean else max(seen)
    return y


@cases_of("max_pool2d", "avg_pool2d")
def test_pooling_is_its_definition(case):
    exact = pooled(case.inputs[0], case.op == "avg_pool2d", **case.options)
    assert np.allclose(value(case), exact, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("pool", [ops.max_pool2d, ops.avg_pool2d])
def test_a_large_window_costs_no_more_than_a_small_one(pool):
    """Windows that do not overlap read each pixel once: 200 x 200 took 290 ms, window by window and tap by tap."""
    x = Parameter(np.random.default_rng(0).standard_normal((1, 4, 200, 200)).astype("float32"))

    def seconds(kernel_size):
        took = []
        for _ in range(5):
            began = time.process_time()
            y = pool(x, kernel_size=kernel_size)
            y.backward(np.ones_like(y.data))
            took.append(time.process_time() - began)
        return min(took)

    few = seconds(5)
    assert all(seconds(size) < 8 * few + 0.01 for size in (50, 199, 200))


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "out"),
    # pools of VGG-16, AlexNet and GoogLeNet at 224 and 227 pixels, then of VGG-16 on a 500 padded by 100
    [(224, 2, 2, 0, 112), (55, 3, 2, 0, 27), (13, 3, 2, 0, 6), (112, 3, 2, 0, 56), (7, 7, 1, 0, 1), (28, 3, 1, 1, 28)]
    + [(699, 2, 2, 0, 350), (350, 2, 2, 0, 175), (175, 2, 2, 0, 88), (88, 2, 2, 0, 44), (44, 2, 2, 0, 22)]
    # one row, and the windows that Caffe drops because they would start in the padding
    + [(1, 2, 2, 0, 1), (2, 3, 2, 0, 1), (1, 3, 2, 0, 1), (3, 2, 2, 1, 2), (5, 2, 2, 1, 3), (4, 3, 3, 1, 2)],
)
@pytest.mark.parametrize("op", ["max_pool2d", "avg_pool2d"])
def test_ceil_mode_sizes_are_caffes(op, size, kernel, stride, padding, out):
    y = OPS[op](
        np.zeros((1, 1, size, 1)), kernel_size=(kernel, 1), stride=(stride, 1), padding=(padding, 0), ceil_mode=True
    )
    assert y.shape == (1, 1, out, 1)


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("op", ["max_pool2d", "avg_pool2d"])
def test_pooling_of_every_small_geometry(op, ceil):
    """Sizes, kernels, strides, paddings, dilations of one axis: right, or refused where a window sees no pixel."""
    compared = refused = 0
    for size, k, s, p, d in itertools.product(range(1, 6), range(1, 5), range(1, 4), range(3), range(1, 4)):
        x = numbers(1, 1, size, 1)
        options = {"kernel_size": (k, 1), "stride": (s, 1), "padding": (p, 0), "dilation": (d, 1), "ceil_mode": ceil}
        try:
            y = OPS[op](x, **options).data
        except ValueError:
            refused += 1
            span = d * (k - 1) + 1
            out = pooled_size(size, k, s, p, d, ceil)
            windows = [[j * s - p + i * d for i in range(k)] for j in range(out)]
            blind = any(all(not 0 <= row < size for row in window) for window in windows)
            assert blind or (not ceil and span > size + 2 * p), (size, k, s, p, d)
            continue
        compared += 1
        assert np.isfinite(y).all()
        assert np.allclose(y, pooled(x, op == "avg_pool2d", **options), atol=1e-13), (size, k, s, p, d)
    assert compared > 200 and refused > 20


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("swapped", [False, True], ids=["rows", "columns"])
def test_the_gradient_of_max_pooling_of_every_small_geometry(swapped, ceil):
    """Each window gives its gradient to its largest pixel: with windows that overlap, touch or leave gaps."""
    compared = 0
    for size, k, s, p, d in itertools.product((1, 4, 7), range(1, 4), range(1, 4), range(2), range(1, 3)):
        pairs = {"kernel_size": (k, 2), "stride": (s, 1), "padding": (p, 1), "dilation": (d, 1)}
        shape = (size, 5)
        if swapped:
            pairs, shape = {name: pair[::-1] for name, pair in pairs.items()}, shape[::-1]
        x = Parameter(numbers(2, 2, *shape))
        try:
            y = ops.max_pool2d(x, **pairs, ceil_mode=ceil)
        except ValueError:
            continue
        gy, expected = numbers(*y.shape), np.zeros(x.shape)
        for n, c, i, j in np.ndindex(y.shape):
            expected[n, c][x.data[n, c] == y.data[n, c, i, j]] += gy[n, c, i, j]
        y.backward(gy)
        assert np.allclose(x.grad, expected, atol=1e-13), (size, k, s, p, d)
        compared += 1
    assert compared > 60


def test_of_equal_pixels_the_first_gets_the_gradient():
    x = Parameter(np.ones((1, 1, 2, 4)))
    ops.max_pool2d(x, kernel_size=2).backward(np.array([[[[3.0, 5.0]]]]))
    assert x.grad.tolist() == [[[[3, 0, 5, 0], [0, 0, 0, 0]]]]


def test_a_pixel_in_several_windows_adds_their_gradients():
    x = Parameter(np.zeros((1, 1, 5, 5)))
    x.data[0, 0, 2, 2] = 1.0  # the largest of all four 3x3 windows
    ops.max_pool2d(x, kernel_size=3, stride=2).backward(np.array([[[[1.0, 2.0], [4.0, 8.0]]]]))
    assert x.grad[0, 0, 2, 2] == 15 and x.grad.sum() == 15


@cases_of("conv2d")
def test_convolution_is_its_definition(case):
    x, w, b = case.inputs
    o = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, "relu": False} | case.options
    (sh, sw), (ph, pw), (dh, dw), y = two(o["stride"]), two(o["padding"]), two(o["dilation"]), value(case)
    inputs, outputs = w.shape[1], w.shape[0] // o["groups"]
    for place in np.ndindex(y.shape):
        n, c, i, j = place
        found = 0.0 if b is None else float(b[c])
        for source, u, v in np.ndindex(w.shape[1:]):
            pixel = at(x, n, c // outputs * inputs + source, i * sh + u * dh - ph, j * sw + v * dw - pw)
            found += 0.0 if pixel is None else pixel * float(w[c, source, u, v])
        assert y[place] == pytest.approx(max(found, 0.0) if o["relu"] else found, rel=1e-11, abs=1e-12)


@cases_of("conv_transpose2d")
def test_transposed_convolution_is_its_definition(case):
    """Every input pixel paints its kernel."""
    x, w, b = case.inputs
    o = {"stride": 1, "padding": 0, "dilation": 1, "output_padding": 0, "groups": 1} | case.options
    sizes = zip(x.shape[2:], *(two(o[k]) for k in ("stride", "padding", "dilation", "output_padding")), w.shape[2:])
    h, wd = ((n - 1) * s - 2 * p + d * (k - 1) + 1 + extra for n, s, p, d, extra, k in sizes)
    exact = np.zeros((len(x), w.shape[1] * o["groups"], h, wd)) + (0 if b is None else b[:, None, None])
    (sh, sw), (ph, pw), (dh, dw) = two(o["stride"]), two(o["padding"]), two(o["dilation"])
    inputs, outputs = w.shape[0] // o["groups"], w.shape[1]
    for (n, c, i, j), (target, u, v) in itertools.product(np.ndindex(x.shape), np.ndindex(w.shape[1:])):
        row, col = i * sh + u * dh - ph, j * sw + v * dw - pw
        if 0 <= row < h and 0 <= col < wd:
            exact[n, c // inputs * outputs + target, row, col] += x[n, c, i, j] * w[c, target, u, v]
    assert value(case).shape == exact.shape
    assert np.allclose(value(case), exact, rtol=1e-12, atol=1e-12)


def test_fused_relu_is_relu_to_the_bit():
    x, w, b = (v.astype("float32") for v in (numbers(2, 3, 9, 8), numbers(4, 3, 3, 3), numbers(4)))
    gy = numbers(2, 4, 9, 8).astype("float32")
    results = []
    for fused in (False, True):
        wanted = [Parameter(v) for v in (x, w, b)]
        y = ops.conv2d(*wanted, padding=1, relu=fused)
        y = y if fused else ops.relu(y)
        y.backward(gy)
        results.append([y.data, *(p.grad for p in wanted)])
    assert all(np.array_equal(one, other) for one, other in zip(*results, strict=True))


def test_gradients_of_a_fused_relu_can_be_asked_by_hand_in_any_order():
    """Writing the next unit vector into the same gy, to see a Jacobian row by row, gives the next row."""
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(shape) for shape in ((1, 1, 4, 4), (2, 1, 3, 3), (2,)))
    y, gradients = by_hand(ops.conv2d, x, w, b, relu=True)
    gy = np.zeros_like(y)
    for place in np.ndindex(y.shape):
        gy[...] = 0
        gy[place] = 1
        fresh = [np.array(gradient(gy.copy())) for gradient in by_hand(ops.conv2d, x, w, b, relu=True)[1]]
        assert all(np.array_equal(gradient(gy), other) for gradient, other in zip(gradients, fresh, strict=True))
    assert (y > 0).any() and (y == 0).any()


@cases_of("local_response_norm")
def test_local_response_norm_is_its_definition(case):
    x, o = case.inputs[0], {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 1.0} | case.options
    y = value(case)
    for n, c, i, j in np.ndindex(x.shape):
        first, last = max(0, c - o["size"] // 2), min(x.shape[1], c + o["size"] // 2 + 1)
        energy = sum(float(x[n, other, i, j]) ** 2 for other in range(first, last))
        exact = float(x[n, c, i, j]) / (o["k"] + o["alpha"] / o["size"] * energy) ** o["beta"]
        assert y[n, c, i, j] == pytest.approx(exact, rel=1e-12)


@cases_of("bilinear_resize")
def test_resize_is_its_definition(case):
    x, (h, w) = case.inputs[0], case.options["size"]

    def ends(i, size, out):
        """The two pixels around the centre of output i, and how far it is from the first."""
        position = min(max((i + 0.5) * size / out - 0.5, 0), size - 1)
        low = min(int(position), max(size - 2, 0))
        return low, min(low + 1, size - 1), position - low

    y = value(case)
    assert y.shape[2:] == (h, w)
    for n, c, i, j in np.ndindex(y.shape):
        top, bottom, down = ends(i, x.shape[2], h)
        left, right, across = ends(j, x.shape[3], w)
        upper = x[n, c, top, left] * (1 - across) + x[n, c, top, right] * across
        lower = x[n, c, bottom, left] * (1 - across) + x[n, c, bottom, right] * across
        assert y[n, c, i, j] == pytest.approx(upper * (1 - down) + lower * down, rel=1e-12, abs=1e-13)


@cases_of("shift")
def test_shift_is_its_definition(case):
    x, f, y = case.inputs[0], case.options["factor"], value(case)
    assert y.shape == (len(x) * f * f, *x.shape[1:])
    for m, c, i, j in np.ndindex(y.shape):
        n, sy, sx = m // (f * f), m // f % f, m % f
        assert y[m, c, i, j] == (at(x, n, c, i + sy, j + sx) or 0.0)


@cases_of("stitch")
def test_stitch_is_its_definition(case):
    x, f, y = case.inputs[0], case.options["factor"], value(case)
    assert y.shape == (len(x) // (f * f), x.shape[1], x.shape[2] * f, x.shape[3] * f)
    for n, c, i, j in np.ndindex(y.shape):
        assert y[n, c, i, j] == x[n * f * f + i % f * f + j % f, c, i // f, j // f]


def test_stitching_the_answers_to_every_shift_is_the_dense_answer():
    """A net of stride f asked at every shift and interlaced answers at every pixel (FCN, section 3.2)."""
    x, w = numbers(2, 2, 6, 8), numbers(3, 2, 2, 2)
    coarse = ops.conv2d(ops.shift(x, factor=2), w, stride=2)
    dense = ops.conv2d(ops.pad(x, padding=(0, 1, 0, 1)), w)
    assert np.allclose(ops.stitch(coarse, factor=2).data, dense.data, atol=1e-13)


# Bilinear kernels


@pytest.mark.parametrize("kernel", range(1, 17))
def test_bilinear_kernel_is_its_definition(kernel):
    """surgery.py of the released code: upsample_filt."""
    factor = (kernel + 1) // 2
    centre = factor - 1 if kernel % 2 == 1 else factor - 0.5
    exact = [
        [(1 - abs(i - centre) / factor) * (1 - abs(j - centre) / factor) for j in range(kernel)] for i in range(kernel)
    ]
    assert np.allclose(bilinear(kernel), exact, atol=1e-7)
    assert bilinear(kernel).sum() == pytest.approx(factor**2, rel=1e-6)


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 8, 9, 16])
@pytest.mark.parametrize("stride", [1, 2, 3, 8])
@pytest.mark.parametrize("padding", [0, 1])
def test_upsampling_is_a_transposed_convolution_with_the_bilinear_kernel(kernel, stride, padding):
    x, filters = numbers(2, 3, 4, 3), np.zeros((3, 3, kernel, kernel))
    line = 1 - np.abs(np.arange(kernel) - (kernel - 1) / 2) / ((kernel + 1) // 2)
    filters[range(3), range(3)] = np.outer(line, line)
    one, other = Parameter(x), Parameter(x)
    y = ops.bilinear_upsample(one, kernel_size=kernel, stride=stride, padding=padding)
    exact = ops.conv_transpose2d(other, filters, stride=stride, padding=padding)
    gy = numbers(*exact.shape)
    y.backward(gy)
    exact.backward(gy)
    assert np.allclose(y.data, exact.data, rtol=1e-12, atol=1e-12)
    assert np.allclose(one.grad, other.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_upsampling_interpolates_a_plane_exactly(factor):
    """Away from the border, a kernel of 2f - f % 2 with stride f draws straight lines through the values."""
    x = (3.0 * np.arange(6)[:, None] - 2.0 * np.arange(7)[None] + 1)[None, None]
    kernel = 2 * factor - factor % 2
    y = ops.bilinear_upsample(x, kernel_size=kernel, stride=factor).data[0, 0]
    rows = (np.arange(y.shape[0]) - (kernel - 1) / 2) / factor
    cols = (np.arange(y.shape[1]) - (kernel - 1) / 2) / factor
    exact = 3.0 * rows[:, None] - 2.0 * cols[None] + 1
    inner = np.ix_((rows >= 0) & (rows <= 5), (cols >= 0) & (cols <= 6))
    assert exact[inner].size > 50 and np.allclose(y[inner], exact[inner], atol=1e-12)


@pytest.mark.parametrize("factor", [2, 4])
def test_resizing_is_upsampling_away_from_the_border(factor):
    x = numbers(1, 2, 5, 6)
    one = ops.bilinear_resize(x, size=(5 * factor, 6 * factor)).data
    other = ops.bilinear_upsample(x, kernel_size=2 * factor, stride=factor, padding=factor // 2).data
    inner = (..., slice(factor, -factor), slice(factor, -factor))
    assert one.shape == other.shape and np.allclose(one[inner], other[inner], atol=1e-13)


# Softmax and cross entropy


@cases_of("softmax_cross_entropy")
def test_cross_entropy_is_its_definition(case):
    x, truth = case.inputs
    o = {"ignore_index": 255, "weights": None, "sampling": None, "normalize": "valid", "divisor": 0} | case.options
    total, valid = 0.0, 0
    for n, i, j in np.ndindex(truth.shape):
        label = int(truth[n, i, j])
        if label == o["ignore_index"] or (o["sampling"] is not None and not o["sampling"][n, i, j]):
            continue
        valid += 1
        p = math.exp(x[n, label, i, j]) / sum(math.exp(score) for score in x[n, :, i, j])
        total -= math.log(p) * (1 if o["weights"] is None else float(o["weights"][label]))
    divisor = o["divisor"] or {"none": 1, "valid": max(valid, 1), "batch_size": len(x)}[o["normalize"]]
    assert value(case).item() == pytest.approx(total / divisor, rel=1e-12, abs=1e-14)


def test_a_focal_loss_hardly_counts_what_is_right_already():
    truth = np.zeros((1, 1, 1), np.int64)
    sure, unsure = (np.array([x, 0.0]).reshape(1, 2, 1, 1) for x in (4.0, -1.0))
    p = 1 / (1 + math.exp(-4))
    assert ops.focal_loss(sure, truth).item() == pytest.approx(-((1 - p) ** 2) * math.log(p))
    of_entropy = [ops.focal_loss(x, truth).item() / ops.softmax_cross_entropy(x, truth).item() for x in (sure, unsure)]
    assert of_entropy[0] < 1e-3 and of_entropy[1] > 0.5
    perfect = Parameter(np.array([900.0, 0.0]).reshape(1, 2, 1, 1))
    ops.focal_loss(perfect, truth, gamma=1.5).backward()
    assert not perfect.grad.any()


def test_dice_counts_every_class_alike_however_few_its_pixels():
    truth = np.array([[[0] * 9 + [1]]])
    right = np.where(truth[:, None] == np.arange(3)[:, None, None], 50.0, 0.0)
    assert ops.dice_loss(right, truth).item() == pytest.approx(0, abs=1e-12)
    wrong = right.copy()
    wrong[0, :, 0, 9] = [50, 0, 0]  # the one pixel of class 1 is missed
    assert ops.dice_loss(wrong, truth, smooth=1e-9).item() == pytest.approx((1 - 18 / 19 + 1) / 2)
    assert ops.dice_loss(wrong, np.full_like(truth, 255)).item() == 0


@pytest.mark.parametrize("classes", [1, 2, 21, 60])
@pytest.mark.parametrize(("normalize", "times"), [("valid", 1), ("none", 2 * 3 * 4), ("batch_size", 3 * 4)])
def test_equal_scores_cost_ln_c_per_pixel(classes, normalize, times):
    truth = labels(classes, 2, 3, 4)
    loss = ops.softmax_cross_entropy(np.full((2, classes, 3, 4), 7.0), truth, normalize=normalize)
    assert loss.item() == pytest.approx(times * math.log(classes), rel=1e-12, abs=1e-12)


def test_the_gradient_is_p_minus_one_at_the_label():
    x, truth = Parameter(np.zeros((1, 4, 1, 2))), np.array([[[2, 255]]])
    ops.softmax_cross_entropy(x, truth).backward()
    assert np.allclose(x.grad[0, :, 0, 0], [0.25, 0.25, -0.75, 0.25])
    assert not x.grad[0, :, 0, 1].any()  # the void pixel


@pytest.mark.parametrize("normalize", ["none", "valid", "batch_size"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_void_costs_nothing_and_asks_for_nothing(normalize, dtype):
    x = Parameter(numbers(2, 3, 4, 5).astype(dtype))
    loss = ops.softmax_cross_entropy(x, np.full((2, 4, 5), 255, "uint8"), normalize=normalize)
    loss.backward()
    assert loss.item() == 0 and not x.grad.any() and loss.dtype == x.grad.dtype == dtype


def test_void_pixels_do_not_count_and_scores_there_do_not_matter():
    x, truth = numbers(1, 3, 2, 4), labels(3, 1, 2, 4)
    truth[:, :, 2:] = 255
    scores = x.copy()
    scores[..., 2:] = 1e4
    cut = ops.softmax_cross_entropy(x[..., :2], truth[..., :2])
    assert ops.softmax_cross_entropy(scores, truth).item() == pytest.approx(cut.item(), rel=1e-13)


def test_class_weights_do_not_change_the_dtype():
    x, weights = Parameter(numbers(1, 3, 2, 2).astype("float32")), np.array([0.5, 1.0, 2.0])
    loss = ops.softmax_cross_entropy(x, labels(3, 1, 2, 2), weights=weights)
    loss.backward()
    assert loss.dtype == x.grad.dtype == np.float32


def test_a_weight_counts_like_repeating_the_pixel():
    x, truth = numbers(1, 3, 1, 4), np.array([[[0, 1, 2, 1]]])
    repeated = [0, 1, 1, 1, 2, 1, 1, 1]  # pixels 1 and 3 are of class 1: three times each
    columns = [0, 1, 1, 1, 2, 3, 3, 3]
    weighted = ops.softmax_cross_entropy(x, truth, weights=np.array([1.0, 3.0, 1.0]), normalize="none")
    plain = ops.softmax_cross_entropy(x[..., columns], np.array([[repeated]]), normalize="none")
    assert weighted.item() == pytest.approx(plain.item(), rel=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_huge_scores_are_exact_and_overflow_nothing(dtype):
    """Row 35: scores of +-10,000, all equal, and one class (the suite runs with overflow as an error)."""
    x = np.array([[1e4, -1e4, 0.0], [1e4, 1e4, 1e4], [-1e4, -1e4, -1e4]], dtype)[:, :, None, None]
    y = ops.log_softmax(x).data[:, :, 0, 0]
    third = -math.log(3)
    assert np.allclose(y, [[0, -2e4, -1e4], [third] * 3, [third] * 3], rtol=0, atol=1e-6)
    assert ops.log_softmax(x[:, :1]).data.tolist() == [[[[0.0]]]] * 3
    scores = Parameter(x)
    loss = ops.softmax_cross_entropy(scores, np.array([1, 0, 2])[:, None, None], normalize="none")
    loss.backward()
    assert loss.item() == pytest.approx(2e4 - 2 * third, rel=1e-6)
    exact = [[1, -1, 0], [1 / 3 - 1, 1 / 3, 1 / 3], [1 / 3, 1 / 3, 1 / 3 - 1]]
    assert np.allclose(scores.grad[:, :, 0, 0], exact, atol=1e-6)


def test_cross_entropy_is_minus_log_softmax_at_the_label():
    x, truth = numbers(2, 5, 3, 2), labels(5, 2, 3, 2)
    picked = np.take_along_axis(ops.log_softmax(x).data, truth[:, None], axis=1)
    assert ops.softmax_cross_entropy(x, truth).item() == pytest.approx(-picked.mean(), rel=1e-13)


# PyTorch


def bilinear_weights(torch, channels, size):
    lines = [1 - (torch.arange(k, dtype=torch.float64) - (k - 1) / 2).abs() / ((k + 1) // 2) for k in size]
    return torch.outer(*lines).expand(channels, 1, *size)


def torch_loss(torch, x, truth, ignore_index=255, weights=None, sampling=None, normalize="valid", divisor=0):
    truth = truth.long().clone()
    if sampling is not None:
        truth[sampling == 0] = ignore_index
    loss = torch.nn.functional.cross_entropy(x, truth, weight=weights, ignore_index=ignore_index, reduction="sum")
    valid = max(int((truth != ignore_index).sum()), 1)
    return loss / (divisor or {"none": 1, "valid": valid, "batch_size": len(x)}[normalize])


def torch_focal(
    torch, x, truth, gamma=2.0, ignore_index=255, weights=None, sampling=None, normalize="valid", divisor=0
):
    truth = truth.long().clone()
    if sampling is not None:
        truth[sampling == 0] = ignore_index
    counts = truth != ignore_index
    truth[~counts] = 0
    log_p = torch.log_softmax(x, dim=1).gather(1, truth[:, None])[:, 0]
    loss = -((1 - log_p.exp()) ** gamma * log_p) * counts
    loss = loss if weights is None else loss * weights[truth]
    return loss.sum() / (divisor or {"none": 1, "valid": max(int(counts.sum()), 1), "batch_size": len(x)}[normalize])


def torch_dice(torch, x, truth, ignore_index=255, sampling=None, smooth=1.0):
    truth = truth.long().clone()
    if sampling is not None:
        truth[sampling == 0] = ignore_index
    counts = truth != ignore_index
    pixels = torch.softmax(x, dim=1).movedim(1, -1)[counts]
    wanted = torch.nn.functional.one_hot(truth[counts], x.shape[1]).to(x.dtype)
    true, there = wanted.sum(0), wanted.sum(0) > 0
    overlap = (2 * (pixels * wanted).sum(0) + smooth) / (pixels.sum(0) + true + smooth)
    return (1 - overlap)[there].sum() / max(int(there.sum()), 1)


def torch_shift(torch, x, factor):
    copies = []
    for sy, sx in itertools.product(range(factor), repeat=2):
        moved = x[:, :, sy:, sx:]
        fill = (0, x.shape[3] - moved.shape[3], 0, x.shape[2] - moved.shape[2])
        copies.append(torch.nn.functional.pad(moved, fill))
    return torch.stack(copies, 1).flatten(0, 1)


def torch_stitch(torch, x, factor):
    _, c, h, w = x.shape
    subpixels = x.reshape(-1, factor * factor, c, h, w).transpose(1, 2).reshape(-1, c * factor * factor, h, w)
    return torch.nn.functional.pixel_shuffle(subpixels, factor)


def torch_conv(torch, x, w, b=None, relu=False, **options):
    y = torch.nn.functional.conv2d(x, w, b, **options)
    return torch.relu(y) if relu else y


def torch_pad(torch, x, padding, value=0.0):
    top, bottom, left, right = [padding] * 4 if isinstance(padding, int) else padding
    return torch.nn.functional.pad(x, (left, right, top, bottom), value=value)


def torch_crop(torch, x, like, at=0):
    h, w = like.shape[-2:] if hasattr(like, "shape") else like
    return x.narrow(-2, two(at)[0], h).narrow(-1, two(at)[1], w)


def torch_upsample(torch, x, kernel_size, stride, padding=0):
    w = bilinear_weights(torch, x.shape[1], two(kernel_size))
    return torch.nn.functional.conv_transpose2d(x, w, stride=stride, padding=padding, groups=x.shape[1])


def torch_max_pool(torch, x, **options):
    return torch.nn.functional.max_pool2d(x, **options)


def torch_avg_pool(torch, x, **options):
    return torch.nn.functional.avg_pool2d(x, **options, count_include_pad=True)


def torch_reduce(name):
    def reduce(torch, x, axis=None, keepdims=False):
        axes = tuple(range(x.ndim)) if axis is None else axis
        return getattr(torch, name)(x, dim=axes, keepdim=keepdims)

    return reduce


def torch_getitem(torch, x, index):
    """PyTorch takes no slice that runs backwards: there, the picked places are listed."""
    parts = index if isinstance(index, tuple) else (index,)
    for axis, part in enumerate(parts):
        if isinstance(part, slice) and (part.step or 1) < 0:
            x = x.index_select(axis, torch.arange(x.shape[axis])[list(range(*part.indices(x.shape[axis])))])
            parts = (*parts[:axis], slice(None), *parts[axis + 1 :])
    return x[tuple(torch.tensor(part) if isinstance(part, np.ndarray) else part for part in parts)]


def torch_norm(torch, x, size=5, **options):
    return torch.nn.functional.local_response_norm(x, size, **({"alpha": 1e-4, "beta": 0.75, "k": 1.0} | options))


def torch_unit(torch, x, epsilon=1e-10):
    return x / torch.sqrt((x * x).sum(dim=1, keepdim=True) + epsilon)


TORCH = {
    "neg": lambda torch, x: -x,
    "exp": lambda torch, x: torch.exp(x),
    "log": lambda torch, x: torch.log(x),
    "add": lambda torch, x, y: x + y,
    "sub": lambda torch, x, y: x - y,
    "mul": lambda torch, x, y: x * y,
    "div": lambda torch, x, y: x / y,
    "maximum": lambda torch, x, y: torch.maximum(x, y),
    "matmul": lambda torch, x, w: torch.matmul(x, w),
    "sqrt": lambda torch, x: torch.sqrt(x),
    "abs": lambda torch, x: torch.abs(x),
    "clip": lambda torch, x, min=None, max=None: torch.clip(x, min, max) if (min, max) != (None, None) else x * 1,
    "power": lambda torch, x, y: torch.pow(x, y),
    "where": lambda torch, condition, x, y: torch.where(condition != 0, x, y),
    "max": torch_reduce("amax"),
    "min": torch_reduce("amin"),
    "getitem": torch_getitem,
    "stack": lambda torch, *xs, axis=0: torch.stack(xs, axis),
    "sigmoid": lambda torch, x: torch.sigmoid(x),
    "tanh": lambda torch, x: torch.tanh(x),
    "softmax": lambda torch, x, axis=1: torch.softmax(x, axis),
    "nearest_resize": lambda torch, x, size: torch.nn.functional.interpolate(x, size, mode="nearest-exact"),
    "sum": torch_reduce("sum"),
    "mean": torch_reduce("mean"),
    "reshape": lambda torch, x, shape: x.reshape(shape),
    "transpose": lambda torch, x, axes=None: x.permute(axes or tuple(range(x.ndim))[::-1]),
    "concat": lambda torch, *xs, axis=1: torch.cat(xs, axis),
    "pad": torch_pad,
    "crop": torch_crop,
    "relu": lambda torch, x: torch.relu(x),
    "dropout": lambda torch, x, mask: x * mask,
    "log_softmax": lambda torch, x, axis=1: torch.log_softmax(x, axis),
    "conv2d": torch_conv,
    "conv_transpose2d": lambda torch, *inputs, **options: torch.nn.functional.conv_transpose2d(*inputs, **options),
    "max_pool2d": torch_max_pool,
    "avg_pool2d": torch_avg_pool,
    "local_response_norm": torch_norm,
    "batch_norm": lambda torch, x, w, b, mean=None, var=None, eps=1e-5: torch.nn.functional.batch_norm(
        x, mean, var, w, b, training=mean is None, eps=eps
    ),
    "l2_normalize": torch_unit,
    "bilinear_resize": lambda torch, x, size: torch.nn.functional.interpolate(x, size, mode="bilinear"),
    "bilinear_upsample": torch_upsample,
    "softmax_cross_entropy": torch_loss,
    "focal_loss": torch_focal,
    "dice_loss": torch_dice,
    "shift": torch_shift,
    "stitch": torch_stitch,
}

LARGER = "PyTorch makes no window of a pool larger than its image"
PADDED = "PyTorch pads by half a kernel at most"
NO_TORCH = {
    ("avg_pool2d", "dilated"): "PyTorch's average does not dilate",
    ("avg_pool2d", "dilated, padded, ceil"): "PyTorch's average does not dilate",
    ("avg_pool2d", "one large dilated window"): "PyTorch's average does not dilate",
    **{(op, "padding above half the kernel"): PADDED for op in ("max_pool2d", "avg_pool2d")},
    ("max_pool2d", "dilated, padded, ceil"): PADDED,
    **{
        (op, name): LARGER
        for op in ("max_pool2d", "avg_pool2d")
        for name in ("ceil, on one pixel", "ceil, larger than the image")
    },
}


def test_every_op_has_its_torch():
    assert set(TORCH) == set(OPS)
    assert all(name in CASES[op] for op, name in NO_TORCH)


@pytest.mark.parametrize(
    "case", [c for cases in CASES.values() for c in cases.values() if (c.op, c.name) not in NO_TORCH], ids=str
)
def test_values_and_gradients_are_pytorchs(case, torch):
    inputs, options = case.at("float64")
    wanted = {i: Parameter(inputs[i]) for i in case.differentiable}
    y = OPS[case.op](*(wanted.get(i, x) for i, x in enumerate(inputs)), **options)
    gy = np.asarray(np.random.default_rng(4).standard_normal(y.shape))
    y.backward(gy)

    def there(x):
        return torch.tensor(x) if isinstance(x, np.ndarray) else x

    leaves = [there(x) for x in inputs]
    for i in wanted:
        leaves[i].requires_grad_()
    exact = TORCH[case.op](torch, *leaves, **{name: there(x) for name, x in options.items()})
    assert tuple(exact.shape) == y.shape
    assert np.allclose(y.data, exact.detach().numpy(), rtol=1e-10, atol=1e-12)
    if not exact.requires_grad:
        pytest.fail("PyTorch recorded nothing")
    exact.backward(torch.tensor(gy))
    for i, p in wanted.items():
        assert np.allclose(p.grad, leaves[i].grad.numpy(), rtol=1e-9, atol=1e-11), f"gradient of input {i}"


@pytest.mark.parametrize("reason", sorted(set(NO_TORCH.values())))
def test_pytorch_really_refuses_what_we_leave_out(reason, torch):
    for (op, name), why in NO_TORCH.items():
        if why == reason:
            case = CASES[op][name]
            with pytest.raises((RuntimeError, TypeError)):
                TORCH[op](torch, *(torch.tensor(x) for x in case.inputs), **case.options)


def test_a_small_net_has_pytorchs_gradients(torch):
    """Conv, pool, LRN, score, upsample, crop and loss in a row: the gradients of all parameters at once."""
    x, truth = numbers(2, 3, 12, 10), labels(4, 2, 12, 10, void=17)
    arrays = {"w1": numbers(5, 3, 3, 3), "b1": numbers(5), "w2": numbers(4, 5, 1, 1), "b2": numbers(4)}
    p = {name: Parameter(array) for name, array in arrays.items()}
    h = ops.conv2d(Tensor(x), p["w1"], p["b1"], padding=2, relu=True)
    h = ops.local_response_norm(ops.max_pool2d(h, kernel_size=3, stride=2, ceil_mode=True), alpha=0.1)
    scores = ops.bilinear_upsample(ops.conv2d(h, p["w2"], p["b2"]), kernel_size=4, stride=2)
    loss = ops.softmax_cross_entropy(ops.crop(scores, like=x, at=2), truth)
    loss.backward()

    nn = torch.nn.functional
    t = {name: torch.tensor(array, requires_grad=True) for name, array in arrays.items()}
    h = torch.relu(nn.conv2d(torch.tensor(x), t["w1"], t["b1"], padding=2))
    h = nn.local_response_norm(nn.max_pool2d(h, 3, 2, ceil_mode=True), 5, alpha=0.1)
    scores = torch_upsample(torch, nn.conv2d(h, t["w2"], t["b2"]), 4, 2)[:, :, 2:14, 2:12]
    exact = nn.cross_entropy(scores, torch.tensor(truth), ignore_index=255)
    exact.backward()
    assert loss.item() == pytest.approx(exact.item(), rel=1e-12)
    for name in arrays:
        assert np.allclose(p[name].grad, t[name].grad.numpy(), rtol=1e-9, atol=1e-12), name
