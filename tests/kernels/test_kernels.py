"""The three products of a convolution against six loops of plain Python, and against one another."""

import concurrent.futures
import itertools

import numpy as np
import pytest

from minifcn.errors import ShapeError
from minifcn.kernels import convolution, products
from minifcn.kernels.convolution import correlate, spread, weigh
from minifcn.kernels.im2col import Windows, col2im, im2col

# (x shape, output channels, windows): every kind of geometry a network of this package can ask for, and a few it cannot
CASES = {
    "1x1": ((2, 3, 5, 4), 4, Windows((1, 1))),
    "1x1 strided": ((2, 3, 5, 4), 4, Windows((1, 1), stride=(2, 3))),
    "1x1 padded": ((1, 2, 3, 4), 3, Windows((1, 1), padding=(1, 2))),
    "3x3": ((2, 3, 7, 6), 4, Windows((3, 3))),
    "3x3 same": ((2, 3, 7, 6), 4, Windows((3, 3), padding=(1, 1))),
    "3x3 on 13x9": ((2, 5, 13, 9), 4, Windows((3, 3), padding=(1, 1))),
    "3x3 far padding": ((1, 2, 4, 5), 3, Windows((3, 3), padding=(6, 7))),
    "3x3 uneven padding": ((2, 4, 8, 9), 5, Windows((3, 3), padding=(0, 2))),
    "3x3 strided": ((2, 3, 7, 8), 4, Windows((3, 3), stride=(2, 2), padding=(1, 1))),
    "2x2 strided, rest unused": ((1, 3, 7, 8), 2, Windows((2, 2), stride=(2, 3))),
    "stride above kernel": ((1, 2, 9, 8), 3, Windows((2, 2), stride=(4, 3))),
    "rectangular": ((2, 2, 6, 9), 3, Windows((1, 4), stride=(2, 1), padding=(0, 2))),
    "dilated": ((1, 2, 9, 10), 3, Windows((3, 3), padding=(2, 2), dilation=(2, 2))),
    "dilated unevenly, strided": ((2, 2, 9, 12), 3, Windows((2, 3), (2, 1), (1, 3), (3, 4))),
    "grouped": ((2, 4, 6, 5), 6, Windows((3, 3), padding=(1, 1), groups=2)),
    "depthwise": ((2, 5, 6, 7), 5, Windows((3, 3), padding=(1, 1), groups=5)),
    "depthwise bilinear": ((1, 3, 8, 12), 3, Windows((4, 4), stride=(2, 2), padding=(1, 1), groups=3)),
    "depthwise, two each": ((1, 3, 6, 7), 6, Windows((3, 2), groups=3)),
    "one pixel": ((1, 2, 1, 1), 3, Windows((1, 1))),
    "one pixel, far padding": ((1, 1, 1, 1), 2, Windows((3, 3), padding=(4, 4))),
    "one window": ((3, 2, 5, 4), 3, Windows((5, 4))),
    "one column": ((1, 3, 11, 1), 2, Windows((3, 3), padding=(1, 1))),
    "upsampling": ((1, 3, 16, 24), 3, Windows((16, 16), stride=(8, 8), padding=(4, 4))),
}

cases = pytest.mark.parametrize("case", CASES)
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def arrays(case, dtype):
    """x, w, gy of a case: signed, dense, seeded."""
    x_shape, out_channels, g = CASES[case]
    rng = np.random.default_rng(list(CASES).index(case))
    out = g.out_size(x_shape[2:])
    shapes = x_shape, (out_channels, x_shape[1] // g.groups, *g.kernel), (x_shape[0], out_channels, *out)
    x, w, gy = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    return x, w, gy, g


def six_loops(x, w, g):
    """The definition, in plain Python: image, output channel, row, column, input channel, tap."""
    (n, _, h, wd), (o, i, kh, kw) = x.shape, w.shape
    out_h, out_w = g.out_size((h, wd))
    y = np.zeros((n, o, out_h, out_w))
    for image, channel, row, col in itertools.product(range(n), range(o), range(out_h), range(out_w)):
        first = channel // (o // g.groups) * i
        for source, (a, b) in itertools.product(range(i), itertools.product(range(kh), range(kw))):
            r = row * g.stride[0] + a * g.dilation[0] - g.padding[0]
            c = col * g.stride[1] + b * g.dilation[1] - g.padding[1]
            if 0 <= r < h and 0 <= c < wd:
                y[image, channel, row, col] += float(w[channel, source, a, b]) * float(x[image, first + source, r, c])
    return y


def error(found, exact):
    """Largest deviation over largest value."""
    return float(np.max(np.abs(found - exact)) / np.max(np.abs(exact)))


def inner(a, b):
    return float(np.sum(a.astype("float64") * b.astype("float64")))


@cases
@dtypes
def test_correlate_is_six_loops(case, dtype):
    x, w, _, g = arrays(case, dtype)
    y = correlate(x, w, g)
    assert y.dtype == dtype
    assert error(y, six_loops(x, w, g)) < (1e-14 if dtype == "float64" else 1e-6)


@cases
def test_spread_and_weigh_are_the_adjoints_of_correlate(case):
    x, w, gy, g = arrays(case, "float64")
    gx, gw = spread(gy, w, g, x.shape[2:]), weigh(x, gy, g)
    assert gx.shape == x.shape and gw.shape == w.shape
    wanted = inner(correlate(x, w, g), gy)
    scale = np.linalg.norm(x) * np.linalg.norm(w) * np.linalg.norm(gy)
    assert abs(inner(x, gx) - wanted) < 1e-13 * scale
    assert abs(inner(w, gw) - wanted) < 1e-13 * scale


@cases
def test_the_gradients_keep_float32_and_agree_with_float64(case):
    x, w, gy, g = arrays(case, "float32")
    exact_x, exact_w, exact_gy = (a.astype("float64") for a in (x, w, gy))
    gx, gw = spread(gy, w, g, x.shape[2:]), weigh(x, gy, g)
    assert gx.dtype == gw.dtype == "float32"
    assert error(gx, spread(exact_gy, exact_w, g, x.shape[2:])) < 1e-6
    assert error(gw, weigh(exact_x, exact_gy, g)) < 3e-6


@cases
def test_col2im_is_the_adjoint_of_im2col(case):
    x, _, _, g = arrays(case, "float64")
    columns = im2col(x, g)
    other = np.random.default_rng(1).standard_normal(columns.shape)
    back = col2im(other, g, x.shape[2:])
    assert back.shape == x.shape
    assert inner(columns, other) == pytest.approx(inner(x, back), abs=1e-11 * columns.size)


@cases
@pytest.mark.parametrize("limit, parts", [(1, 1), (7, 3), (40, 2), (3000, 2)])
def test_blocks_cover_every_window_once_whatever_their_size(case, limit, parts, monkeypatch):
    x, w, gy, g = arrays(case, "float64")
    whole = correlate(x, w, g), spread(gy, w, g, x.shape[2:]), weigh(x, gy, g)
    found = products.blocks(len(x), gy.shape[2:], limit, parts)
    seen = np.zeros((len(x), 1, *gy.shape[2:]), int)
    for block in found:
        seen[block.outputs] += 1
    assert (seen == 1).all()
    monkeypatch.setattr(products, "blocks", lambda *_: found)
    parts = products.correlate(x, w, g), products.spread(gy, w, g, x.shape[2:]), products.weigh(x, gy, g)
    for part, one in zip(parts, whole, strict=True):
        assert error(part, one) < 1e-13


def test_taps_that_see_only_padding_are_left_out(monkeypatch):
    assert convolution.seeing(Windows((7, 7), padding=(3, 3)), (2, 2))[0] == Windows((3, 3), padding=(1, 1))
    assert convolution.seeing(Windows((7, 7), padding=(3, 3)), (4, 5)) == (Windows((7, 7), padding=(3, 3)), None)
    geometries = itertools.product((1, 4, 5, 7), (1, 2), (0, 2, 3, 4, 8), (1, 2), (1, 2, 5))
    cut = 0
    for k, s, p, d, n in geometries:
        g = Windows((k, 3), (s, 1), (p, 1), (d, 1))
        if g.span[0] > n + 2 * p:
            continue
        rng, (rows, cols) = np.random.default_rng(k + n), g.out_size((n, 4))
        x, w, gy = (rng.standard_normal(shape) for shape in ((2, 3, n, 4), (2, 3, k, 3), (2, 2, rows, cols)))
        cut += convolution.seeing(g, (n, 4))[1] is not None
        for found, exact in (
            (correlate(x, w, g), products.correlate(x, w, g)),
            (spread(gy, w, g, (n, 4)), products.spread(gy, w, g, (n, 4))),
            (weigh(x, gy, g), products.weigh(x, gy, g)),
        ):
            assert found.shape == exact.shape and np.allclose(found, exact, rtol=1e-13, atol=1e-13)
    assert cut > 20  # of these geometries


def test_spread_fills_every_size_with_the_same_windows():
    g = Windows((3, 3), stride=(3, 2), padding=(1, 0))
    rng = np.random.default_rng(0)
    for size in itertools.product(range(7, 10), range(7, 9)):
        assert g.out_size(size) == (3, 3)
        x, w, gy = (rng.standard_normal(shape) for shape in ((1, 2, *size), (2, 2, 3, 3), (1, 2, 3, 3)))
        assert inner(x, spread(gy, w, g, size)) == pytest.approx(inner(correlate(x, w, g), gy))


def test_bias_and_relu():
    x, w, _, g = arrays("3x3 same", "float32")
    b = np.array([0.5, -1, 2, 0], "float32")
    y = correlate(x, w, g) + b.reshape(-1, 1, 1)
    assert np.array_equal(correlate(x, w, g, b), y)
    assert np.array_equal(correlate(x, w, g, b, relu=True), np.maximum(y, 0))
    assert (y < 0).any()


def test_arguments_are_left_alone():
    for case in CASES:
        x, w, gy, g = arrays(case, "float32")
        before = [a.copy() for a in (x, w, gy)]
        for a in (x, w, gy):
            a.setflags(write=False)
        correlate(x, w, g, np.zeros(len(w), "float32"), relu=True)
        spread(gy, w, g, x.shape[2:])
        weigh(x, gy, g)
        assert all(np.array_equal(a, b) for a, b in zip((x, w, gy), before, strict=True))


def test_strided_arrays_are_as_good_as_packed_ones():
    for case in CASES:
        x, w, gy, g = arrays(case, "float64")
        loose = [np.repeat(a, 2, axis=3)[..., ::2] for a in (x, w, gy)]
        assert error(correlate(loose[0], loose[1], g), correlate(x, w, g)) < 1e-13
        assert error(spread(loose[2], loose[1], g, x.shape[2:]), spread(gy, w, g, x.shape[2:])) < 1e-13
        assert error(weigh(loose[0], loose[2], g), weigh(x, gy, g)) < 1e-13


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"kernel": (0, 3)}, "kernel is (0, 3): expected a pair of integers of at least 1"),
        ({"kernel": 3}, "kernel is 3: expected a pair"),
        ({"kernel": (3, 3.0)}, "kernel is (3, 3.0)"),
        ({"kernel": (3, 3), "stride": (0, 1)}, "stride is (0, 1): expected a pair of integers of at least 1"),
        ({"kernel": (3, 3), "padding": (0, -1)}, "padding is (0, -1): expected a pair of integers of at least 0"),
        ({"kernel": (3, 3), "dilation": (True, 1)}, "dilation is (True, 1)"),
        ({"kernel": (3, 3), "groups": 0}, "groups is 0: expected an integer of at least 1"),
    ],
)
def test_windows_are_refused_at_construction(fields, words):
    with pytest.raises(ShapeError) as refusal:
        Windows(**fields)
    assert words in str(refusal.value)


def test_a_kernel_larger_than_the_padded_image_is_refused():
    with pytest.raises(ShapeError, match=r"kernel of 3x3 with dilation \(4, 1\) covers 9x3 .* has only 8x9"):
        Windows((3, 3), padding=(1, 2), dilation=(4, 1)).out_size((6, 5))


def test_arrays_that_do_not_fit_are_refused():
    x, w, gy, g = arrays("grouped", "float32")
    size = x.shape[2:]
    refused = {
        "x (2, 3, 6, 5) has 3 channels": lambda: correlate(x[:, :3], w, g),
        "w has shape": lambda: correlate(x, w[:, :, :2], g),
        "w (5, 2, 3, 3) with groups=2 wants 4, and the first axis of w divisible by 2": lambda: correlate(x, w[:5], g),
        "x has shape (4, 6, 5)": lambda: correlate(x[0], w, g),
        "b has shape (5,)": lambda: correlate(x, w, g, np.zeros(5, "float32")),
        "x is float32 and w is float64": lambda: correlate(x, w.astype("float64"), g),
        "x is int64; expected float32 or float64": lambda: correlate(x.astype("int64"), w.astype("int64"), g),
        "has 5 channels and w (6, 2, 3, 3) with groups=2 wants 6": lambda: spread(gy[:, :5], w, g, size),
        "gy has (6, 5)": lambda: spread(gy, w, g, (7, 5)),
        "x holds 2 images, gy 1": lambda: weigh(x, gy[:1], g),
        "channels 4, 5": lambda: weigh(x, gy[:, :5], g),
        "gy has (5, 5)": lambda: weigh(x, gy[:, :, :5], g),
    }
    for words, call in refused.items():
        with pytest.raises(ShapeError) as refusal:
            call()
        assert words in str(refusal.value)
        assert str(refusal.value).startswith("convolution: ") and "\n" not in str(refusal.value)


def test_a_refusal_names_the_op_whose_windows_they_are():
    plain, named = Windows((3, 3)), Windows((3, 3), op="conv9d")
    assert plain == named and hash(plain) == hash(named)
    for call in (
        lambda: correlate(np.zeros((1, 2, 5, 5)), np.zeros((1, 3, 3, 3)), named),
        lambda: Windows((3, 0), op="conv9d"),
    ):
        with pytest.raises(ShapeError, match="conv9d: "):
            call()


def test_a_transposed_convolution_adds_its_bias():
    x, w, gy, g = arrays("grouped", "float64")
    b = np.arange(4.0)
    assert np.array_equal(spread(gy, w, g, x.shape[2:], b), spread(gy, w, g, x.shape[2:]) + b[:, None, None])
    with pytest.raises(ShapeError, match=r"b has shape \(6,\); expected \(4,\)"):
        spread(gy, w, g, x.shape[2:], np.zeros(6))


def test_a_way_is_forced_for_one_thread_alone():
    def inside():
        return convolution.FORCED()

    with convolution.convolution("blocks"), concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert inside() == "blocks" and pool.submit(inside).result() is None
    assert inside() is None
