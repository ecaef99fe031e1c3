"""Every number about sizes, strides, receptive fields and crops that the paper's nets imply, from `Layer` and `Grid`.

The numbers were published or worked out by hand; where a rule is tested rather than a number, the oracle beside it
walks windows and pixels one by one and knows nothing of the formulas.
"""

import doctest
import functools
import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from minifcn import geometry
from minifcn.errors import GeometryError, ShapeError, UsageError
from minifcn.geometry import Grid, Layer, out_size
from minifcn.models.ladder import Ladder, safe_padding
from minifcn.models.vgg import VGG

SKIPS = {"32s": (), "16s": ("pool4",), "8s": ("pool4", "pool3"), "4s": ("pool4", "pool3", "pool2")}
PAPER = ("32s", "16s", "8s")


@functools.cache
def vgg_paths(padding):
    return VGG(width=1, padding=padding, init="zero", rng=np.random.default_rng(0)).paths()


@functools.cache
def ladder(net, padding=100):
    return Ladder(vgg_paths(padding), SKIPS[net], padded=padding == "same")


def offsets(ladder):
    return [rung.at for rung in ladder.rungs]


# The chain of CaffeNet, the paper's AlexNet: 11/4 with the border, three overlapping 3/2 pools, fc6 of 6x6.
def alexnet(border, *, ceil=True):
    pool, conv = Layer(3, 2, ceil=ceil), Layer(3, padding=1)
    return [Layer(11, 4, border), pool, Layer(5, padding=2), pool, conv, conv, conv, pool, Layer(6), Layer(1)]


# ---- one layer ---------------------------------------------------------------------------------------------------


def windows_by_walking(size, layer):
    """Move a window over the padded cells until it has seen the last one; count the stops."""
    padded = size + 2 * layer.padding
    count = 0
    for start in itertools.count(0, layer.stride):
        cells = [start + layer.dilation * tap for tap in range(layer.kernel)]
        if layer.ceil and count and start >= layer.padding + size:
            return count  # it would start in the padding behind the image
        if cells[-1] < padded:
            count += 1
        else:  # it hangs over: worth a stop only if the one before has not reached the end
            reached = start - layer.stride + cells[-1] - cells[0] if count else -1
            return count + (1 if layer.ceil and reached < padded - 1 else 0)


@pytest.mark.parametrize("ceil", [False, True])
def test_a_layer_has_as_many_outputs_as_its_window_has_stops(ceil):
    dropped = clipped = 0
    for kernel, stride, dilation in itertools.product(range(1, 6), range(1, 5), range(1, 4)):
        for padding, size in itertools.product(range(dilation * (kernel - 1) // 2 + 1), range(1, 14)):
            layer = Layer(kernel, stride, padding, dilation, ceil)
            stops = windows_by_walking(size, layer)
            if stops:
                assert layer.out_size(size) == stops, (layer, size)
            else:
                with pytest.raises(GeometryError, match="does not fit"):
                    layer.out_size(size)
            clipped += layer.extent > size + 2 * padding and stops == 1
            dropped += stops < -(-(size + 2 * padding - layer.extent) // stride) + 1
    assert not ceil or (clipped > 100 and dropped > 100)  # both special cases were there to be got wrong


def test_caffes_ceil_rule_by_hand():
    assert Layer(2, 2, ceil=True).out_size(5) == 3 and Layer(2, 2).out_size(5) == 2
    assert Layer(3, 2, 1, ceil=True).out_size(4) == 3  # windows at -1, 1, 3
    assert Layer(2, 2, 1, ceil=True).out_size(4) == 3
    assert Layer(2, 2, 1, ceil=True).out_size(3) == 2  # the third would start at 3, in the padding: dropped
    assert Layer(7, 3, ceil=True).out_size(2) == 1  # larger than the image: one clipped window
    assert [Layer(2, 2, ceil=True).out_size(n) for n in (1, 2, 3)] == [1, 1, 2]


def test_a_transposed_layer_is_as_wide_as_what_it_paints():
    kernels, strides, paddings, dilations, sizes = (1, 2, 3, 4), (1, 2, 3), (0, 1), (1, 2), (1, 2, 5)
    for *shape, size in itertools.product(kernels, strides, paddings, dilations, sizes):
        kernel, stride, padding, dilation = shape
        layer = Layer(*shape, transpose=True)
        painted = {stride * i + dilation * tap for i in range(size) for tap in range(kernel)}
        width = max(painted) + 1 - 2 * padding
        if width >= 1:
            assert layer.out_size(size) == width
            assert replace(layer, output_padding=1).out_size(size) == width + 1
        else:
            with pytest.raises(GeometryError):
                layer.out_size(size)


def test_a_convolution_turned_around_leads_back_to_the_size_it_came_from():
    for kernel, stride, padding, size in itertools.product((1, 2, 3, 4, 7), (1, 2, 3), (0, 1, 2), range(8, 20)):
        forth = Layer(kernel, stride, padding)
        lost = (size + 2 * padding - kernel) % stride
        back = replace(forth, transpose=True, output_padding=lost)
        assert back.out_size(forth.out_size(size)) == size


def test_what_cannot_be_sized_is_refused_with_the_numbers():
    with pytest.raises(GeometryError, match=r"window of 9 \(kernel 5, dilation 2\) .* 3 \+ 2\*1 cells: enlarge"):
        Layer(5, dilation=2, padding=1).out_size(3)
    with pytest.raises(GeometryError):
        Layer(3, padding=2).out_size(0)
    with pytest.raises(GeometryError):
        Layer(3, transpose=True).out_size(0)
    with pytest.raises(GeometryError, match=r"window of 7"):
        out_size([Layer(3), Layer(7)], 8)
    assert issubclass(GeometryError, ShapeError) and issubclass(GeometryError, ValueError)


# ---- chains ------------------------------------------------------------------------------------------------------


def test_the_example_in_the_docstring():
    assert doctest.testmod(geometry).attempted == 1 and doctest.testmod(geometry).failed == 0


def test_two_layers_are_one():
    """(k, s) after (k', s') is one layer (k' + (k-1) s', s s'): section 3 of the paper, where 4/3 after 3/2 is 9/6."""
    assert Grid.of([Layer(3, 2), Layer(4, 3)]) == Grid.of([Layer(9, 6)])
    for k1, s1, p1, k2, s2, p2 in itertools.product((1, 2, 3), (1, 2), (0, 1), (1, 3, 4), (1, 2, 3), (0, 2)):
        both = Layer(k1 + (k2 - 1) * s1, s1 * s2, p1 + s1 * p2)
        assert Grid.of([Layer(k1, s1, p1), Layer(k2, s2, p2)]) == Grid.of([both])


def test_two_linear_filters_are_one(rng):
    """The filter of that one layer: h[a s' + u] += f[a] g[u]."""
    g, f, x = rng.standard_normal(3), rng.standard_normal(4), rng.standard_normal(40)

    def slide(x, w, stride):
        return np.array([w @ x[i : i + len(w)] for i in range(0, len(x) - len(w) + 1, stride)])

    h = np.zeros(9)
    for a, u in itertools.product(range(4), range(3)):
        h[2 * a + u] += f[a] * g[u]
    np.testing.assert_allclose(slide(slide(x, g, 2), f, 3), slide(x, h, 6), rtol=0, atol=1e-12)


def seen_by(layers, cell):
    """The pixels that a cell looks at, found by walking back through the layers, window by window."""
    cells = {cell}
    for layer in reversed(layers):
        taps = [layer.dilation * tap - layer.padding for tap in range(layer.kernel)]
        if layer.transpose:
            cells = {(j - t) // layer.stride for j in cells for t in taps if (j - t) % layer.stride == 0}
        else:
            cells = {layer.stride * j + t for j in cells for t in taps}
    return cells


def test_a_grid_knows_where_its_cells_look(rng):
    for _ in range(60):
        layers = [
            Layer(*(int(rng.integers(low, high)) for low, high in ((1, 6), (1, 4), (0, 3), (1, 4))))
            for _ in range(rng.integers(1, 6))
        ]
        grid = Grid.of(layers)
        for cell in (-2, 0, 5):
            seen = seen_by(layers, cell)
            assert max(seen) - min(seen) + 1 == grid.field
            assert Fraction(max(seen) + min(seen), 2) == grid.stride * cell + grid.start


def test_upsampling_paints_each_cell_around_where_it_lay(rng):
    for _ in range(40):
        stride = int(rng.integers(1, 5))
        kernel = int(rng.integers(stride, 2 * stride + 2))  # a smaller one leaves outputs that nothing paints
        up = Layer(kernel, stride, int(rng.integers(0, 3)), transpose=True)
        before = [Layer(3, 2, 1), Layer(3)]
        coarse, fine = Grid.of(before), Grid.of([*before, up])
        painted = [stride * 5 + tap - up.padding for tap in range(kernel)]  # by input cell 5
        assert fine.stride * Fraction(sum(painted), kernel) + fine.start == coarse.stride * 5 + coarse.start
        assert fine.stride == coarse.stride / stride
        spans = [seen_by([*before, up], cell) for cell in range(stride)]  # the phases differ in what they see
        assert max(max(seen) - min(seen) + 1 for seen in spans) == fine.field


# ---- the trunks of the paper -------------------------------------------------------------------------------------

# after which layer: kernel, stride, padding; side of a 500-pixel image; receptive field; stride
VGG_TABLE = {
    "conv1_1": ((3, 1, 100), 698, 3, 1),
    "conv1_2": ((3, 1, 1), 698, 5, 1),
    "pool1": ((2, 2, 0), 349, 6, 2),
    "conv2_2": ((3, 1, 1), 349, 14, 2),
    "pool2": ((2, 2, 0), 175, 16, 4),
    "conv3_3": ((3, 1, 1), 175, 40, 4),
    "pool3": ((2, 2, 0), 88, 44, 8),
    "conv4_3": ((3, 1, 1), 88, 92, 8),
    "pool4": ((2, 2, 0), 44, 100, 16),
    "conv5_3": ((3, 1, 1), 44, 196, 16),
    "pool5": ((2, 2, 0), 22, 212, 32),
    "fc6": ((7, 1, 0), 16, 404, 32),
    "fc7": ((1, 1, 0), 16, 404, 32),
}


def test_the_table_of_vgg16():
    trunk = VGG(width=1, padding=100, init="zero", rng=np.random.default_rng(0))
    names = [f"{'pool' + block[-1] if name == 'pool' else name}" for block, name in conv_and_pool_names(trunk)]
    layers = dict(zip(names, trunk.layers(), strict=True))
    assert len(layers) == 13 + 5 + 2
    for name, (shape, side, field, stride) in VGG_TABLE.items():
        upto = list(layers.values())[: names.index(name) + 1]
        grid, last = Grid.of(upto), upto[-1]
        assert (last.kernel, last.stride, last.padding) == shape, name
        assert last.ceil == name.startswith("pool")
        assert (out_size(upto, 500), grid.field, grid.stride) == (side, field, stride), name


def conv_and_pool_names(trunk):
    return [
        (stage, name)
        for stage in trunk.stages.values()
        for name, module in getattr(trunk, stage).children()
        if module.layers()
    ]


def test_the_sizes_on_the_way_up_from_500_pixels():
    assert on_the_way_up("32s", 500) == [16, 544]
    assert on_the_way_up("16s", 500) == [16, 34, 560]
    assert on_the_way_up("8s", 500) == [16, 34, 70, 568]


def on_the_way_up(net, size):
    score = out_size(vgg_paths(100)["fc7"], size)
    return [score, *itertools.accumulate(ladder(net).rungs, lambda n, rung: rung.layer.out_size(n), initial=score)][1:]


def test_alexnet():
    grid = Grid.of(alexnet(100))
    assert (grid.field, grid.stride) == (355, 32)
    up = {kernel: grid.through(Layer(kernel, 32, transpose=True)) for kernel in (63, 64)}
    assert up[63].crop_offset(Grid()) == 18
    with pytest.raises(GeometryError, match=r"= 37/2 is not whole; a kernel one larger or smaller"):
        up[64].crop_offset(Grid())
    (rung,) = Ladder({"fc7": alexnet(100)}, ()).rungs  # the ladder finds the 63 by itself
    assert (rung.name, rung.layer.kernel, rung.at) == ("upscore", 63, 18)


def test_an_image_of_500_gives_alexnet_10x10_because_its_pools_round_up():
    assert out_size(alexnet(0), 227) == 1
    assert out_size(alexnet(0), 500) == 10
    assert out_size(alexnet(0, ceil=False), 500) == 9


def test_googlenet_sees_907_pixels_only_with_its_last_average_pool():
    pool, inception = Layer(3, 2), Layer(5)
    stem = [Layer(7, 2), pool, Layer(1), Layer(3), pool]
    trunk = [*stem, *[inception] * 2, pool, *[inception] * 5, pool, *[inception] * 2]
    assert (Grid.of(trunk).field, Grid.of(trunk).stride) == (715, 32)
    assert Grid.of([*trunk, Layer(7)]).field == 907


def test_without_the_last_stride_fc6_is_13_wide_not_14():
    """Section 4.2 says 14x14; but seven taps two apart reach over 13, and see as far as the strided net did."""
    *convolutions, pool5 = vgg_paths(100)["pool5"]
    dense = [*convolutions, replace(pool5, stride=1)]
    assert Layer(7, dilation=2).extent == 13
    assert Grid.of([*dense, Layer(7, dilation=2)]).field == Grid.of(vgg_paths(100)["fc7"]).field == 404
    assert Grid.of([*dense, Layer(14)]).field == 420


# ---- crops -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "expected"), [("32s", [19]), ("16s", [5, 27]), ("8s", [5, 9, 31]), ("4s", [5, 9, 17, 33])]
)
def test_the_crop_offsets_of_the_paper(net, expected):
    assert offsets(ladder(net)) == expected
    assert [rung.cut for rung in ladder(net).rungs] == ["skip"] * len(SKIPS[net]) + ["score"]


def test_kernels_and_names_by_rule():
    def steps(net):
        return [(rung.name, rung.layer.kernel, rung.layer.stride, int(rung.stride)) for rung in ladder(net).rungs]

    assert steps("32s") == [("upscore", 64, 32, 1)]
    assert steps("16s") == [("upscore2", 4, 2, 16), ("upscore16", 32, 16, 1)]
    assert steps("8s") == [("upscore2", 4, 2, 16), ("upscore_pool4", 4, 2, 8), ("upscore8", 16, 8, 1)]
    assert [name for name, *_ in steps("4s")] == ["upscore2", "upscore_pool4", "upscore_pool3", "upscore4"]


@pytest.mark.parametrize("skips", [("pool3",), ("pool4", "pool1"), ("pool4", "pool3", "pool2", "pool1"), ("pool2",)])
@pytest.mark.parametrize("padding", [100, "same"])
def test_no_two_rungs_share_a_name(skips, padding):
    rungs = Ladder(vgg_paths(padding), skips, padded=padding == "same").rungs
    assert len({rung.name for rung in rungs}) == len(rungs)
    assert [rung.skip for rung in rungs] == [*skips, ""]


def test_skip_offsets_do_not_depend_on_the_padding_and_the_last_one_only_on_it():
    for padding in range(81, 106):
        for net, constant in (("32s", 81), ("16s", 73), ("8s", 69), ("4s", 67)):
            *skips, last = offsets(ladder(net, padding))
            assert skips == [5, 9, 17][: len(skips)] and last == padding - constant
    for padding in range(73, 81):
        assert offsets(ladder("16s", padding)) == [5, padding - 73]
        assert offsets(ladder("8s", padding)) == [5, 9, padding - 69]


def test_too_little_padding_is_refused_with_the_derivation():
    with pytest.raises(GeometryError, match=r"upscore starts at pixel 1, after the image at 0: .* = -1 is negative"):
        ladder("32s", 80)
    with pytest.raises(GeometryError, match=r"\(0 - 5\) / 1 = -5 is negative; more padding in the trunk moves it up"):
        ladder("8s", 64)


# An FCN's sizes in a few plain lines, with the published crops: nothing here comes from the package.
def comes_out_whole(net, size, padding, halve):
    """How many pixels are left of the last crop at the right; negative or None where some crop does not fit."""
    maps, n = [], size + 2 * padding - 2
    for _ in range(5):
        n = halve(n)
        maps.append(n)
    score, crops = n - 6, iter((5, 9))
    if score < 1:
        return None
    for pool, at in zip(maps[3:1:-1], crops, strict=True):
        if net == "32s" or (net == "16s" and at == 9):
            break
        score = 2 * score + 2
        if at + score > pool:
            return None
    factor, constant = {"32s": (32, 81), "16s": (16, 73), "8s": (8, 69)}[net]
    return None if padding < constant else factor * (score + 1) - (padding - constant) - size


def ceil_half(n):
    return (n + 1) // 2


def floor_half(n):
    return n // 2


def fits(net, size, padding, halve=ceil_half):
    slack = comes_out_whole(net, size, padding, halve)
    return slack is not None and slack >= 0


@pytest.mark.parametrize("net", PAPER)
def test_with_padding_100_and_ceil_pooling_every_height_comes_out_whole(net):
    sizes = range(1, 2049)
    assert all(ladder(net).fits(size) for size in sizes)
    assert all(fits(net, size, 100) for size in sizes)
    slack = [comes_out_whole(net, size, 100, ceil_half) for size in sizes]
    assert (min(slack), max(slack)) == {"32s": (19, 50), "16s": (27, 58), "8s": (31, 62)}[net]


@pytest.mark.parametrize("net", PAPER)
def test_97_is_the_smallest_padding_that_is_safe_at_every_size(net):
    assert safe_padding(vgg_paths, SKIPS[net]) == 97
    for padding in range(60, 105):
        whole = all(fits(net, size, padding) for size in range(1, 1025))
        assert whole == (padding >= 97), padding
    assert all(ladder(net, 97).fits(size) for size in range(1, 1025))
    assert not ladder(net, 96).fits(1)


@pytest.mark.parametrize("net", PAPER)
@pytest.mark.parametrize("padding", [81, 88, 96])
def test_the_ladder_agrees_with_the_plain_sizes_where_some_images_are_too_small(net, padding):
    assert [ladder(net, padding).fits(n) for n in range(1, 200)] == [fits(net, n, padding) for n in range(1, 200)]


def test_padding_81_is_enough_from_33_pixels_on():
    assert offsets(ladder("32s", 81)) == [0]
    assert [n for n in range(1, 1025) if not ladder("32s", 81).fits(n)] == list(range(1, 33))


def test_with_floor_pooling_fcn32s_breaks_at_397_of_1024_heights():
    floored = Ladder({"fc7": [replace(layer, ceil=False) for layer in vgg_paths(100)["fc7"]]}, ())
    broken = [n for n in range(1, 1025) if not floored.fits(n)]
    assert len(broken) == 397 and {375, 500} <= set(broken)
    assert broken == [n for n in range(1, 1025) if not fits("32s", n, 100, floor_half)]
    message = r"500 pixels gives upscore a score of 512 .* image 500 cells: cropping the score at 19 leaves too few"
    with pytest.raises(GeometryError, match=message):
        floored._climb(500)


@pytest.mark.parametrize("net", [*PAPER, "4s"])
def test_without_a_border_every_offset_is_0_and_every_size_works(net):
    same = ladder(net, "same")
    assert offsets(same) == [0] * (len(SKIPS[net]) + 1)
    assert {rung.cut for rung in same.rungs} == {"score"}  # ceil pooling makes twice the half at least as large
    assert all(same.fits(size) for size in range(1, 300))


def test_skips_that_are_not_there_or_not_in_order_are_refused():
    paths = vgg_paths(100)
    for skips, message in [
        (("pool9",), r"skip 'pool9' is not an output of this trunk finer than fc7: it has pool1 \(stride 2\), pool2"),
        (("pool5",), r"'pool5' is not an output of this trunk finer than fc7"),
        (("fc7",), r"'fc7' is not"),
        (
            ("pool3", "pool4"),
            r"must go from coarse to fine by whole factors, from fc7 \(stride 32\) on; this trunk has pool1",
        ),
        (("pool4", "pool4"), r"must go from coarse to fine"),
    ]:
        with pytest.raises(UsageError, match=message):
            Ladder(paths, skips)
    with pytest.raises(UsageError, match=r"by whole factors, from b \(stride 3\) on; this trunk has a \(stride 2\)"):
        Ladder({"a": [Layer(2, 2)], "b": [Layer(3, 3)]}, ("a",))


def test_overlapping_pools_take_odd_kernels_and_the_larger_map_is_cut():
    """SqueezeNet's 3/2 pools: 2m + 1 comes up from m, more than n where the pool rounds up, less where down."""
    stem = [Layer(3, 2, padding=1)]
    for ceil, cut in ((True, "score"), (False, "skip")):
        up, last = (ladder := Ladder({"a": stem, "b": [*stem, Layer(3, 2, ceil=ceil)]}, ("a",))).rungs
        assert (up.layer.kernel, up.at, up.cut) == (3, 0, cut)
        assert (last.layer.kernel, last.at, last.cut) == (3, 1, "score")
        assert all(ladder.fits(size) for size in range(5, 100)) == ceil


def test_odd_strides_take_odd_kernels_too():
    stem = [Layer(3, padding=1), Layer(3, 3, ceil=True)]
    (up,) = (padded := Ladder({"pool": stem}, (), padded=True)).rungs
    assert (up.layer.kernel, up.layer.padding, up.at) == (5, 1, 0)
    assert all(padded.fits(size) for size in range(1, 50))


def test_no_padding_is_safe_for_a_trunk_that_shrinks_whatever_it_is_given():
    with pytest.raises(GeometryError, match="no padding below 1024"):
        safe_padding(lambda padding: {"last": [Layer(3, padding=1), Layer(2, 2), Layer(64)]}, ())


# ---- what Caffe's coord_map must do ------------------------------------------------------------------------------


def conv_pool_deconv(*, kernel=3, padding=0, pool=2, up=2, up_padding=0):
    return Grid.of([Layer(kernel, padding=padding), Layer(pool, pool), Layer(2 * up, up, up_padding, transpose=True)])


def test_pooling_and_upsampling_by_2_is_the_identity_by_4_a_shift():
    two, four = conv_pool_deconv(), conv_pool_deconv(pool=4, up=4)
    assert (two.stride, two.start) == (1, 0)
    assert (four.stride, four.start) == (1, -1)
    assert four.crop_offset(Grid()) == 1


def test_pointwise_layers_move_nothing():
    grid = conv_pool_deconv()
    assert grid.through(Layer(1)) == grid.through(Layer()) == grid


def test_padding_a_convolution_moves_back_and_padding_an_upsampling_moves_on():
    plain = conv_pool_deconv()
    for n in range(11):
        assert conv_pool_deconv(padding=n).start == plain.start - n
        assert conv_pool_deconv(up_padding=n).start == plain.start + n
        assert conv_pool_deconv(padding=n, up_padding=n) == plain


def test_a_crop_of_a_crop():
    grid = conv_pool_deconv()
    for n in range(11):
        assert grid.cropped(n).start == grid.start + n
        assert grid.cropped(n).cropped(3) == grid.cropped(n + 3)
        assert grid.offset(grid.cropped(n)) == n == -grid.cropped(n).offset(grid)
    coarse = Grid.of([Layer(4, 4)])
    assert coarse.cropped(2).start == coarse.start + 8 and coarse.offset(coarse.cropped(2)) == 2


def test_different_strides_cannot_be_laid_on_each_other():
    grid = conv_pool_deconv(pool=3)  # down by 3, up by 2
    with pytest.raises(GeometryError, match=r"^score has a cell every 3/2 pixels and the image every 1: only"):
        grid.crop_offset(Grid(), name="score", other_name="the image")


def test_a_negative_crop_is_refused_with_its_derivation():
    grid = conv_pool_deconv(up_padding=10)
    assert grid.offset(Grid()) == -10  # the other one must be cut
    with pytest.raises(GeometryError, match=r"starts at pixel 10, after the other at 0: .*\(0 - 10\) / 1 = -10 is neg"):
        grid.crop_offset(Grid())


def test_every_refusal_is_one_line():
    grid, refusals = conv_pool_deconv(up_padding=10), []
    for attempt in (
        lambda: grid.crop_offset(Grid()),
        lambda: grid.offset(Grid(start=Fraction(1, 2))),
        lambda: grid.offset(Grid(stride=Fraction(2))),
        lambda: Layer(9).out_size(3),
    ):
        with pytest.raises(GeometryError) as refusal:
            attempt()
        refusals.append(str(refusal.value))
    assert not any("\n" in refusal for refusal in refusals) and len(set(refusals)) == 4
