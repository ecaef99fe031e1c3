"""The fast ways of a convolution against the readable one, and the threads that carry them."""

import multiprocessing
import os
import threading
import time
import tracemalloc

import numpy as np
import pytest
from some_slow import slow_but
from test_kernels import CASES, error

from minifcn.errors import UsageError
from minifcn.experiments.bench.stopwatch import extra_bytes
from minifcn.kernels import blocks, convolution, depthwise, lines, products, threads, winograd
from minifcn.kernels.im2col import Windows

MORE = {
    "few windows": ((1, 8, 9, 10), 64, Windows((7, 7))),
    "few windows, two images": ((2, 8, 9, 8), 64, Windows((7, 7))),
    "few pixels, 1x1": ((2, 24, 3, 4), 48, Windows((1, 1))),
    "many pixels, 1x1": ((2, 24, 33, 40), 7, Windows((1, 1))),
    "3x3 wide": ((1, 40, 33, 41), 36, Windows((3, 3), padding=(1, 1))),
    "3x3 batch": ((5, 33, 8, 8), 34, Windows((3, 3), padding=(1, 1))),
    "3x3 narrow, tall": ((1, 4, 130, 3), 5, Windows((3, 3), padding=(1, 1))),
    "3x3 thin": ((1, 8, 70, 33), 8, Windows((3, 3), padding=(1, 1))),
    "3x3 thin, first layer": ((2, 3, 50, 40), 16, Windows((3, 3), padding=(1, 1))),
    "5x5 thin, groups": ((2, 8, 40, 33), 6, Windows((5, 5), padding=(2, 2), groups=2)),
    "3x3 padding 100": ((1, 3, 6, 5), 8, Windows((3, 3), padding=(100, 100))),
    "bilinear": ((1, 21, 64, 72), 21, Windows((16, 16), stride=(8, 8), padding=(4, 4), groups=21)),
    "depthwise 5x5": ((2, 24, 28, 27), 24, Windows((5, 5), padding=(2, 2), groups=24)),
    "depthwise, strided": ((2, 9, 33, 40), 9, Windows((3, 3), stride=(2, 2), padding=(1, 1), groups=9)),
    "depthwise, dilated unevenly": ((2, 4, 20, 37), 4, Windows((5, 3), (2, 1), (0, 2), (1, 2), 4)),
    "strided, many windows": ((2, 6, 65, 66), 40, Windows((5, 5), stride=(2, 2), padding=(2, 2))),
    "depthwise 5x5, small": ((2, 3, 11, 10), 3, Windows((5, 5), padding=(2, 2), groups=3)),
}
ALL = {**CASES, **MORE}
WINOGRAD = [name for name, (x_shape, o, g) in ALL.items() if winograd.serves(g, x_shape[1], o)]
LINES = [name for name, (x_shape, o, g) in ALL.items() if lines.serves(g, x_shape[1], o)]
DEPTHWISE = [name for name, (x_shape, o, g) in ALL.items() if depthwise.serves(g, x_shape[1], o)]
WAYS = [(blocks, name) for name in ALL] + [(lines, name) for name in LINES] + [(winograd, name) for name in WINOGRAD]
WAYS += [(depthwise, name) for name in DEPTHWISE]

each_way = pytest.mark.parametrize("way, case", WAYS, ids=[f"{w.__name__.split('.')[-1]} {c}" for w, c in WAYS])


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    """Every case is split over two threads, however small it is and however many cores there are."""
    pytest.importorskip("threadpoolctl")
    monkeypatch.setattr(threads, "ALONE", 0)
    threads.set_threads(2)
    yield
    threads.set_threads(None)


def arrays(case):
    x_shape, o, g = ALL[case]
    rng = np.random.default_rng(list(ALL).index(case))
    shapes = x_shape, (o, x_shape[1] // g.groups, *g.kernel), (x_shape[0], o, *g.out_size(x_shape[2:])), (o,)
    return *(rng.standard_normal(shape).astype("float32") for shape in shapes), g


@each_way
def test_each_way_computes_the_three_products(way, case):
    x, w, gy, b, g = arrays(case)
    wide_x, wide_w, wide_gy = (a.astype("float64") for a in (x, w, gy))
    y, gx, gw = way.correlate(x, w, g), way.spread(gy, w, g, x.shape[2:]), way.weigh(x, gy, g)
    assert y.dtype == gx.dtype == gw.dtype == "float32"
    assert gx.shape == x.shape and gw.shape == w.shape
    limit = 3e-5 if way is winograd else 1e-6
    assert error(y, products.correlate(wide_x, wide_w, g)) < limit
    assert error(gx, products.spread(wide_gy, wide_w, g, x.shape[2:])) < limit
    assert error(gw, products.weigh(wide_x, wide_gy, g)) < max(limit, 3e-6)
    with_bias = way.correlate(x, w, g, b)
    assert error(with_bias, products.correlate(wide_x, wide_w, g, b.astype("float64"))) < limit
    assert np.array_equal(way.correlate(x, w, g, b, relu=True), np.maximum(with_bias, 0))


@each_way
def test_each_way_takes_strided_arrays(way, case):
    x, w, gy, _, g = arrays(case)
    loose = [np.repeat(a, 2, axis=3)[..., ::2] for a in (x, w, gy)]
    for a in loose:
        a.setflags(write=False)
    assert error(way.correlate(loose[0], loose[1], g), way.correlate(x, w, g)) < 1e-5
    assert error(way.spread(loose[2], loose[1], g, x.shape[2:]), way.spread(gy, w, g, x.shape[2:])) < 1e-5
    assert error(way.weigh(loose[0], loose[2], g), way.weigh(x, gy, g)) < 1e-5


@each_way
def test_the_same_threads_give_the_same_bits(way, case):
    x, w, gy, b, g = arrays(case)
    runs = [(way.correlate(x, w, g, b), way.spread(gy, w, g, x.shape[2:]), way.weigh(x, gy, g)) for _ in range(3)]
    for run in runs[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(run, runs[0], strict=True))


@pytest.mark.parametrize("way", [*convolution.WAYS])
def test_no_image_gives_no_output_and_no_gradient(way):
    x, w, gy, b, g = arrays("3x3 wide")
    with convolution.convolution(way):
        assert convolution.correlate(x[:0], w, g, b, relu=True).shape == (0, *gy.shape[1:])
        assert convolution.spread(gy[:0], w, g, x.shape[2:]).shape == (0, *x.shape[1:])
        assert np.array_equal(convolution.weigh(x[:0], gy[:0], g), np.zeros_like(w))


@pytest.mark.parametrize("count", [2, 16, 64])
def test_many_threads_share_one_workspace(count):
    """Memory is asked for by what each thread may hold at once, whether or not there are as many cores."""
    threads.set_threads(count)
    for i, o, size in ((64, 64, 256), (256, 256, 64), (512, 512, 44), (512, 512, 24)):
        parts = winograd.threads_with_room(count, 36 * 2 * max(i, o) * winograd.LEAST * 4)
        todo = winograd.tile_blocks(1, (size, size), 2 * max(i, o), parts)
        assert parts * 2 * 36 * max(i, o) * winograd.largest(todo) * 4 <= winograd.WORKSPACE * 1.25


def test_winograd_weighs_large_layers_by_channel():
    x, w, gy, _, g = arrays("3x3 wide")
    exact = products.weigh(x.astype("float64"), gy.astype("float64"), g)
    assert error(winograd._weigh_by_channel(x, gy, g, 2), exact) < 3e-5
    monkey = winograd.WORKSPACE
    try:
        winograd.WORKSPACE = 1 << 20  # now every block is one of many, and the sums have to be shared
        assert error(winograd.weigh(x, gy, g), exact) < 3e-5
        assert error(winograd.correlate(x, w, g), products.correlate(x, w, g)) < 3e-5
    finally:
        winograd.WORKSPACE = monkey


def test_the_filter_transform_of_winograd_is_the_one_of_the_paper():
    """Correlating an impulse gives the filter back; a constant filter sums to nine."""
    w = np.random.default_rng(0).standard_normal((1, 1, 3, 3)).astype("float32")
    x = np.zeros((1, 1, 5, 5), "float32")
    x[0, 0, 2, 2] = 1
    y = winograd.correlate(x, w, Windows((3, 3)))
    assert np.allclose(y[0, 0], w[0, 0, ::-1, ::-1], atol=1e-6)


SMALL = [name for name in LINES if ALL[name][0][2] < 70 and ALL[name][2].padding < (100, 100)]
MANY = ("3x3 thin, first layer", "5x5 thin, groups", "depthwise 5x5", "depthwise, strided", "bilinear")


def cut(cases, sizes):
    """Every case in pieces of every size; a large one in small pieces takes thousands of them."""
    every = [(case, size) for case in cases for size in sizes if (case, size) != ("depthwise 5x5", 1)]  # but small
    quick = [(case, size) for case, size in every if case not in MANY or size == sizes[-1]]
    return slow_but(quick, every, "thousands of pieces")


@pytest.mark.parametrize("stacks", [False, True], ids=["added", "stacked"])
@pytest.mark.parametrize(("case", "piece"), cut(SMALL, [1, 1000, 20_000]))
def test_lines_may_be_cut_anywhere(case, piece, stacks, monkeypatch):
    """Into single images, rows and parts of rows: no window is lost or counted twice."""
    for name, value in (("PIECE", piece), ("CACHE", piece // 4), ("NARROW", 1 if stacks else 1 << 30)):
        monkeypatch.setattr(lines, name, value)
    x, w, gy, b, g = arrays(case)
    wide_x, wide_w, wide_gy = (a.astype("float64") for a in (x, w, gy))
    assert error(lines.correlate(x, w, g, b, True), products.correlate(wide_x, wide_w, g, b, True)) < 1e-6
    assert error(lines.spread(gy, w, g, x.shape[2:]), products.spread(wide_gy, wide_w, g, x.shape[2:])) < 1e-6
    assert error(lines.weigh(x, gy, g), products.weigh(wide_x, wide_gy, g)) < 3e-6


STACKED = [name for name, (_, _, g) in ALL.items() if g.dilation[0] == 1]


@pytest.mark.parametrize("strip", [None, 16], ids=["whole strips", "short strips"])
@pytest.mark.parametrize("case", STACKED)
def test_stacked_columns_give_the_same_in_every_geometry_and_memory_order(case, strip, monkeypatch):
    if strip:
        for name in ("WIDEST", "BESIDE"):
            monkeypatch.setattr(lines, name, strip)
    x, w, _, b, g = arrays(case)
    x = np.concatenate([x, -x, x[::-1]])  # so that several images go side by side
    exact = products.correlate(*(a.astype("float64") for a in (x, w)), g, b.astype("float64"), True)
    for own in (
        x,
        np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        np.repeat(x, 2, axis=3)[..., ::2],
    ):
        by_row = lines.arrange(w, g)
        assert error(lines.correlate_stacked(own, by_row, w, g, b, True), exact) < 1e-6
        plain = lines.correlate_stacked(own, by_row, w, g, None, False)
        assert error(plain, products.correlate(*(a.astype("float64") for a in (x, w)), g)) < 1e-6


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_stacked_columns_keep_a_special_number_where_it_is_seen(value):
    x, w, _, b, g = arrays("3x3 thin, first layer")
    x[0, 1, 4, 5] = x[1, 2, 49, 39] = value
    found, exact = lines.correlate_stacked(x, lines.arrange(w, g), w, g, b, False), products.correlate(x, w, g, b)
    assert np.array_equal(np.isfinite(found), np.isfinite(exact)) and not np.isfinite(found).all()


@pytest.mark.parametrize(
    ("x_shape", "o", "g"),
    [
        ((1, 16, 300, 200), 16, Windows((3, 3), padding=(1, 1))),
        ((16, 32, 40, 16), 32, Windows((3, 3), padding=(1, 1))),
        ((1, 3, 400, 300), 64, Windows((7, 7), stride=(2, 2), padding=(3, 3))),
    ],
    ids=["one image", "side by side", "strided"],
)
def test_the_memory_of_stacked_columns_is_foretold(x_shape, o, g):
    threads.set_threads(1)
    x, w = np.ones(x_shape, "float32"), np.ones((o, x_shape[1], *g.kernel), "float32")
    assert lines.stacking_pays(x_shape[1], o, g, x_shape[0], g.out_size(x_shape[2:]))
    expected = lines.workspace("correlate", w, g, x_shape)
    assert extra_bytes(lambda: lines.correlate(x, w, g)) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("case", "cache"), cut(DEPTHWISE, [1, 3000, 20_000]))
def test_depthwise_may_be_cut_anywhere(case, cache, monkeypatch):
    """Into single channels, images, rows and parts of rows: no window is lost or counted twice."""
    monkeypatch.setattr(depthwise, "CACHE", cache)
    x, w, gy, b, g = arrays(case)
    wide_x, wide_w, wide_gy = (a.astype("float64") for a in (x, w, gy))
    assert error(depthwise.correlate(x, w, g, b, True), products.correlate(wide_x, wide_w, g, b, True)) < 1e-6
    assert error(depthwise.spread(gy, w, g, x.shape[2:]), products.spread(wide_gy, wide_w, g, x.shape[2:])) < 1e-6
    assert error(depthwise.weigh(x, gy, g), products.weigh(wide_x, wide_gy, g)) < 3e-6


@pytest.mark.parametrize("stride", [1, 2])
def test_the_memory_of_depthwise_is_foretold(stride):
    threads.set_threads(1)
    g = Windows((5, 5), stride=(stride, stride), padding=(2, 2), groups=96)
    x, w = np.ones((4, 96, 60, 60), "float32"), np.ones((96, 1, 5, 5), "float32")
    gy = np.ones((4, 96, *g.out_size((60, 60))), "float32")
    for product, work in (
        ("correlate", lambda: depthwise.correlate(x, w, g)),
        ("spread", lambda: depthwise.spread(gy, w, g, (60, 60))),
        ("weigh", lambda: depthwise.weigh(x, gy, g)),
    ):
        assert extra_bytes(work) == pytest.approx(depthwise.workspace(product, w, g, x.shape), rel=0.05)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_depthwise_keeps_a_special_number_where_it_is_seen(value):
    x, w, gy, _, g = arrays("depthwise 5x5")
    x[0, 3, 4, 5] = gy[1, 2, 7, 6] = value
    with np.errstate(all="ignore"):
        for product in (
            lambda way: way.correlate(x, w, g),
            lambda way: way.spread(gy, w, g, x.shape[2:]),
            lambda way: way.weigh(x, gy, g),
        ):
            found, exact = product(depthwise), product(products)
            assert np.array_equal(np.isfinite(found), np.isfinite(exact))


LARGE = {  # conv1_2 of VGG at 500x500: its columns would fill 1.05 GiB
    "conv1_2": ((1, 64, 698, 698), 64, Windows((3, 3), padding=(1, 1))),
    "conv3_2": ((1, 256, 175, 175), 256, Windows((3, 3), padding=(1, 1))),
    "conv4_1": ((1, 256, 88, 88), 512, Windows((3, 3), padding=(1, 1))),
    "fc6": ((1, 512, 22, 22), 1024, Windows((7, 7))),
    "upscore8": ((1, 21, 568, 568), 21, Windows((16, 16), stride=(8, 8), groups=21)),
    "wide": ((1, 128, 4, 12_000), 128, Windows((3, 3), padding=(1, 1), groups=8)),
    "depthwise": ((1, 32, 700, 700), 32, Windows((5, 5), padding=(2, 2), groups=32)),
    "dilated widely": ((1, 32, 300, 300), 32, Windows((3, 3), dilation=(120, 120))),
}


SERVED = [(case, way) for case, (x, o, g) in LARGE.items() for way in convolution.ways(g, x[1], o) if way != "im2col"]


@pytest.mark.slow("convolutions of the paper's sizes, of hundreds of megabytes")
@pytest.mark.parametrize(("case", "way"), SERVED)
def test_memory_beyond_input_and_output_is_bounded(case, way):
    x_shape, o, g = LARGE[case]
    x, w = np.ones(x_shape, "float32"), np.ones((o, x_shape[1] // g.groups, *g.kernel), "float32")
    gy = np.ones((1, o, *g.out_size(x_shape[2:])), "float32")
    with convolution.convolution(way):
        for product in (
            lambda: convolution.correlate(x, w, g),
            lambda: convolution.spread(gy, w, g, x_shape[2:]),
            lambda: convolution.weigh(x, gy, g),
        ):
            tracemalloc.start()
            result = product()
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak - result.nbytes < 128 << 20


@pytest.mark.parametrize("case", LARGE)
def test_a_layer_is_computed_in_a_way_whose_memory_is_bounded(case):
    """That which is chosen for it; and blocks, where the one that is insisted on cannot serve it."""
    (_, i, h, w), o, g = LARGE[case]
    for way in (None, "blocks", "depthwise", "lines", "winograd"):
        with convolution.FORCED.set(way):
            there = convolution.choose(np.ones(1, "float32"), g, i, o, 1, g.out_size((h, w)))
            back = convolution.choose(np.ones(1, "float32"), g, o, i, 1, (h, w), product="spread")
        assert there == back and (case, there) in SERVED
        assert way is None or there == (way if (case, way) in SERVED else "blocks")


@pytest.mark.parametrize("count", [2, 16, 64])
@pytest.mark.parametrize(
    "x_shape, g",
    [
        ((1, 128, 500, 500), Windows((3, 3), padding=(1, 1))),
        ((1, 128, 4, 12_000), Windows((3, 3), padding=(1, 1))),
        ((1, 128, 600, 600), Windows((3, 3), dilation=(2, 2))),
        ((65_536, 128, 3, 3), Windows((3, 3))),
    ],
    ids=["photograph", "wide", "dilated", "windows one by one"],
)
def test_many_threads_lay_out_lines_in_one_workspace(x_shape, g, count):
    threads.set_threads(count)
    w = np.zeros((128, 128, *g.kernel), "float32")
    for extra in (lines.workspace("correlate", w, g, x_shape), lines.workspace("weigh", w, g, x_shape)):
        assert extra < 128 << 20


@pytest.mark.parametrize("x_shape", [(1, 32, 200, 700), (16, 32, 64, 64)], ids=["rows", "images"])
def test_the_memory_of_lines_is_foretold(x_shape):
    """`minifcn describe` adds up such numbers to a net's peak; blocks of a thread do not pile up."""
    threads.set_threads(1)
    g, out = Windows((3, 3), padding=(1, 1)), x_shape[2:]
    x, w = np.ones(x_shape, "float32"), np.ones((32, 32, 3, 3), "float32")
    for work, expected in (
        (lambda: lines.correlate(x, w, g), lines.workspace("correlate", w, g, x_shape)),
        (lambda: lines.spread(x, w, g, out), lines.workspace("spread", w, g, x_shape)),
        (lambda: lines.weigh(x, x, g), lines.workspace("weigh", w, g, x_shape)),
    ):
        assert extra_bytes(work) == pytest.approx(expected, rel=0.05)


def test_choose():
    same, one = Windows((3, 3), padding=(1, 1)), np.zeros(1, "float32")
    assert convolution.choose(one.astype("float64"), same, 64, 64, 1, (64, 64)) == "im2col"
    assert convolution.choose(one, same, 64, 64, 1, (64, 64)) == "winograd"
    assert convolution.choose(one, same, 64, 64, 1, (32, 32)) == "lines"
    assert convolution.choose(one, same, 512, 512, 1, (32, 32)) == "winograd"
    assert convolution.choose(one, same, 512, 512, 1, (31, 31)) == "blocks"
    assert convolution.choose(one, same, 8, 8, 1, (64, 64)) == "lines"
    assert convolution.choose(one, same, 3, 8, 1, (128, 128)) == "lines"
    assert convolution.choose(one, same, 3, 16, 1, (128, 128)) == "lines"  # columns stacked, as in the next one
    assert convolution.choose(one, Windows((7, 7), stride=(2, 2)), 3, 96, 1, (128, 96)) == "lines"
    assert convolution.choose(one, Windows((7, 7), stride=(2, 2)), 96, 3, 1, (64, 96), product="spread") == "blocks"
    assert convolution.choose(one, same, 3, 16, 1, (128, 128), product="weigh") == "blocks"
    assert convolution.choose(one, Windows((1, 1)), 64, 21, 8, (4, 4)) == "blocks"
    assert convolution.choose(one, Windows((3, 3), stride=(2, 2)), 64, 64, 1, (64, 64)) == "blocks"
    assert convolution.choose(one, Windows((3, 3), dilation=(2, 2)), 32, 32, 1, (64, 64)) == "lines"
    assert convolution.choose(one, Windows((3, 3), dilation=(12, 12)), 32, 32, 1, (64, 64)) == "blocks"
    assert convolution.choose(one, Windows((5, 5), padding=(2, 2), groups=64), 64, 64, 1, (64, 64)) == "depthwise"
    assert convolution.choose(one, Windows((5, 5), padding=(2, 2), groups=480), 480, 480, 1, (14, 14)) == "blocks"
    with convolution.convolution("winograd"):
        assert convolution.choose(one, same, 8, 8, 1, (64, 64)) == "winograd"
        assert convolution.choose(one, Windows((5, 5)), 8, 8, 1, (64, 64)) == "blocks"
        with convolution.convolution("im2col"):
            assert convolution.choose(one, same, 64, 64, 1, (64, 64)) == "im2col"
        assert convolution.choose(one, same, 8, 8, 1, (64, 64)) == "winograd"
    assert convolution.choose(one, same, 8, 8, 1, (64, 64)) == "lines"
    assert convolution.choose(one, same, 8, 8, 1, (16, 16)) == "im2col"
    unknown = "convolution 'fft' is unknown: expected one of im2col, blocks, depthwise, lines, winograd"
    with pytest.raises(UsageError, match=unknown), convolution.convolution("fft"):
        pass


def test_the_ways_of_a_layer_are_those_that_serve_it():
    same = Windows((3, 3), padding=(1, 1))
    assert convolution.ways(same, 8, 8) == ["im2col", "blocks", "lines", "winograd"]
    assert convolution.ways(Windows((1, 1)), 8, 8) == ["im2col", "blocks"]
    assert convolution.ways(Windows((5, 5), stride=(2, 2), groups=8), 8, 8) == ["im2col", "blocks", "depthwise"]


def test_float64_takes_the_exact_way_whatever_is_forced():
    x, w, _, b, g = (a.astype("float64") if isinstance(a, np.ndarray) else a for a in arrays("3x3 wide"))
    with convolution.convolution("winograd"):
        assert np.array_equal(convolution.correlate(x, w, g, b), products.correlate(x, w, g, b))


@convolution.convolution("winograd")
def test_filters_are_kept_only_while_asked_to(monkeypatch):
    x, w, _, _, g = arrays("3x3 wide")
    other, count = w.copy(), []
    transform = winograd.transform_filters
    monkeypatch.setattr(winograd, "transform_filters", lambda w: count.append(1) or transform(w))
    plain = convolution.correlate(x, w, g)
    with convolution.caching_filters([w]):
        with convolution.caching_filters([w]):
            convolution.correlate(x, w, g)
        for _ in range(3):
            assert np.array_equal(convolution.correlate(x, w, g), plain)
        assert len(count) == 2
        for _ in range(2):
            convolution.correlate(x, other, g)  # there is no promise to leave these weights alone
        assert len(count) == 4
        with convolution.caching_filters([other]):
            for _ in range(2):
                convolution.correlate(x, other, g)
        assert len(count) == 5
        convolution.correlate(x, other, g)
        assert len(count) == 6
    convolution.correlate(x, w, g)
    assert len(count) == 7
    assert not convolution.FILTERS()


@pytest.mark.parametrize(
    ("size", "kernel", "outputs", "maker"),
    [(16, 3, 16, (lines, "arrange")), (16, 5, 40, (blocks, "arrange")), (2, 7, 200, (convolution, "take_taps"))],
    ids=["lines", "blocks", "taps"],
)
def test_small_weights_are_brought_into_order_once(monkeypatch, size, kernel, outputs, maker):
    rng, count = np.random.default_rng(0), []
    x, w = (rng.standard_normal(s, dtype="float32") for s in ((20, 16, size, size), (outputs, 16, kernel, kernel)))
    g, make = Windows((kernel, kernel), padding=(kernel // 2, kernel // 2)), getattr(*maker)
    plain = convolution.correlate(x, w, g)
    monkeypatch.setattr(*maker, lambda *given: count.append(1) or make(*given))
    with convolution.caching_filters([w]):
        for _ in range(3):
            assert np.array_equal(convolution.correlate(x, w, g), plain)
        assert len(count) == 1
    assert np.array_equal(convolution.correlate(x, w, g), plain)
    assert not convolution.FILTERS()


def blas_threads():
    controller = threads._controller()
    return [library.num_threads for library in controller.select(user_api="blas").lib_controllers]


def test_blas_is_limited_in_the_pool_and_restored_after(monkeypatch):
    threads.set_threads(None)
    monkeypatch.setattr(threads, "_wish", 2)
    seen = []
    with threads._controller().limit(limits=2, user_api="blas"):
        threads.parallel(lambda item: seen.append((item, blas_threads())), range(4), 2)
        assert set(blas_threads()) == {2}
    assert sorted(item for item, _ in seen) == [0, 1, 2, 3]
    assert all(set(inside) == {1} for _, inside in seen)


def test_one_thread_does_everything_where_nonecan_start(monkeypatch):
    """As in Pyodide, which says so when one is started."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    x, w, _, b, g = arrays("3x3 wide")
    here = blocks.correlate(x, w, g, b)
    assert threads.threads() == 2
    threads.set_threads(None)
    threads.can_start.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for count in (2, None):
            patched.setattr(threads, "cores", lambda: 2)
            threads.set_threads(count)
            assert threads.threads() == threads.useful_threads(10**12) == 1
            assert np.array_equal(blocks.correlate(x, w, g, b), here)
    threads.can_start.cache_clear()
    threads.set_threads(2)
    assert threads.threads() == 2


def test_small_work_stays_on_the_calling_thread(monkeypatch):
    monkeypatch.setattr(threads, "ALONE", 1_000_000)
    monkeypatch.setattr(threads, "_controller", lambda: pytest.fail("BLAS was touched"))
    monkeypatch.setattr(threads, "Helper", lambda: pytest.fail("a thread was started"))
    monkeypatch.setattr(threads, "threads", lambda: 2)
    for case in ("3x3 same", "1x1", "3x3 on 13x9", "few windows", "upsampling"):
        x, w, gy, b, g = arrays(case)
        assert gy.size * w[0].size < threads.ALONE
        for way in (blocks, winograd) if case in WINOGRAD else (blocks,):
            way.correlate(x, w, g, b)
            way.spread(gy, w, g, x.shape[2:])
            way.weigh(x, gy, g)


def test_a_way_is_chosen_by_the_channels_that_go_in_and_those_that_come_out(monkeypatch):
    one, same, asked, chosen = np.empty(0, "float32"), Windows((3, 3), padding=(1, 1)), [], convolution.choose
    assert chosen(one, same, 256, 64, 1, (24, 32)) == chosen(one, same, 192, 48, 1, (24, 32)) == "lines"
    assert chosen(one, same, 64, 320, 1, (24, 32)) == chosen(one, same, 256, 128, 1, (24, 24)) == "blocks"
    monkeypatch.setattr(
        convolution, "choose", lambda *given, **more: asked.append(given[2:4]) or chosen(*given, **more)
    )
    x, w = np.ones((1, 4, 5, 5), "float32"), np.ones((6, 2, 3, 3), "float32")
    g = Windows((3, 3), padding=(1, 1), groups=2)
    y = convolution.correlate(x, w, g)
    convolution.spread(y, w, g, (5, 5)), convolution.weigh(x, y, g)
    assert asked == [(4, 6), (6, 4), (4, 6)]


def test_of_many_threads_as_many_are_woken_as_the_work_is_worth(monkeypatch):
    monkeypatch.setattr(threads, "threads", lambda: 16)
    monkeypatch.setattr(threads, "ALONE", 1000)
    assert [threads.useful_threads(each) for each in (999, 1000, 3000, 100_000)] == [1, 2, 6, 16]
    monkeypatch.setattr(threads, "threads", lambda: 1)
    assert threads.useful_threads(100_000) == 1


def test_a_failing_task_is_heard_and_nothing_is_left_changed():
    before = blas_threads()

    def task(item):
        if item == 3:
            raise ValueError("three")

    with pytest.raises(ValueError, match="three"):
        threads.parallel(task, range(8), 2)
    assert blas_threads() == before
    done = []
    threads.parallel(done.append, range(8), 2)
    assert sorted(done) == list(range(8))


def test_ctrl_c_while_a_helper_is_waited_for_leaves_no_old_answer(monkeypatch):
    """The next work must not take the end of the one before for its own."""
    finish, late, done = threads.Helper.finish, threading.Event(), []

    def interrupted(helper):
        monkeypatch.setattr(threads.Helper, "finish", finish)
        raise KeyboardInterrupt

    def slow(item):
        late.wait(10) if threading.current_thread().name == "minifcn" else time.sleep(0.05)

    monkeypatch.setattr(threads.Helper, "finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        threads.parallel(slow, range(2), 2)
    assert not threads._helpers
    threads.parallel(lambda item: (time.sleep(0.02), done.append(item)), range(8), 2)
    assert sorted(done) == list(range(8))
    late.set()


def test_work_within_work_is_done_by_the_caller():
    done = []

    def outer(item):
        threads.parallel(lambda inner: done.append((item, inner, threading.current_thread().name)), range(2), 2)

    threads.parallel(outer, range(3), 2)
    assert sorted(pair[:2] for pair in done) == [(a, b) for a in range(3) for b in range(2)]
    for item in range(3):
        assert len({name for a, _, name in done if a == item}) == 1


def test_one_thread_without_threadpoolctl(monkeypatch):
    monkeypatch.setattr(threads, "_blas", False)
    assert threads.threads() == 1
    names = []
    threads.parallel(lambda item: names.append(threading.current_thread().name), range(4), 2)
    assert set(names) == {threading.current_thread().name}


def test_threads_are_set_for_blas_too_and_refused():
    threads.set_threads(None)
    before = blas_threads()
    threads.set_threads(1)
    assert set(blas_threads()) == {1}
    threads.set_threads(3)
    assert threads.threads() == 3 and set(blas_threads()) == {1}
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(UsageError, match="expected an integer of at least 1"):
            threads.set_threads(wrong)
    assert threads.threads() == 3
    threads.set_threads(None)
    assert blas_threads() == before


@pytest.mark.parametrize("count", [1, 3])
def test_any_number_of_threads_gives_the_same_result_to_rounding(count):
    threads.set_threads(count)
    for way, case in WAYS:
        x, w, gy, b, g = arrays(case)
        assert error(way.correlate(x, w, g, b), products.correlate(x, w, g, b)) < 3e-5
        assert error(way.weigh(x, gy, g), products.weigh(x, gy, g)) < 3e-5


def _child(pipe, case):
    x, w, _, b, g = arrays(case)
    pipe.send(blocks.correlate(x, w, g, b))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_starts_its_own_threads():
    x, w, _, b, g = arrays("3x3 wide")
    y = blocks.correlate(x, w, g, b)
    assert threads._helpers
    here, there = multiprocessing.get_context("fork").Pipe()
    child = multiprocessing.get_context("fork").Process(target=_child, args=(there, "3x3 wide"))
    child.start()
    assert here.poll(30), "the child hangs"
    assert np.array_equal(here.recv(), y)
    child.join(30)
    assert child.exitcode == 0
