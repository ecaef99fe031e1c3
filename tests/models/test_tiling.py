"""Tiles with the derived margin have the scores of the whole image, for every FCN of the zoo; smaller ones have not."""

import dataclasses
import itertools

import numpy as np
import pytest
from some_slow import slow_but

from minifcn.errors import UsageError
from minifcn.geometry import Layer
from minifcn.introspect.describe import below, channels
from minifcn.models.fcn import FCN, FCN8s
from minifcn.models.paper import LateFusion
from minifcn.models.resnet import FCN_ResNet
from minifcn.models.tiling import Tiling, chains, reach
from minifcn.models.upsampling import nonlinear
from minifcn.models.zoo import NETS, TRUNKS
from minifcn.nn import Module, evaluating
from minifcn.tensor import Tensor

RESAMPLED = [name for name in NETS if name.startswith("fcn_resnet")]  # their scores are those of cells
ALL = [name for name in NETS if name not in TRUNKS and name != "parsenet" and name not in RESAMPLED]
QUICK = ("fcn-squeezenet",)
TWINS = {  # the same net for another data set: see the test
    **{f"{name}-fcn{stride}s": f"fcn{stride}s" for name in ("voc", "pascalcontext") for stride in (8, 16, 32)},
    **{f"nyud-fcn32s-{name}": "fcn32s" for name in ("color", "hha")},
}


def at_random(net: Module, rng: np.random.Generator) -> Module:
    """The net in float64 with weights at which every cell of a window counts."""
    for name, parameter in net.named_parameters():
        parameter.data = rng.standard_normal(parameter.shape) * 0.3 + 0.05
        if name.endswith(".var"):
            parameter.data = abs(parameter.data) + 0.3
    return net


def largest_error(net: Module, tiling: Tiling, rng: np.random.Generator, size: tuple[int, int]) -> float:
    """The largest difference of the tiles' scores from those of the whole image, relative to the largest score."""
    nets = list(below(net)) if isinstance(net, LateFusion) else [net]
    images = [rng.standard_normal((1, channels(one), *size)) for one in nets]

    def scores(parts: list[np.ndarray]) -> np.ndarray:
        y = net(*map(Tensor, parts))
        return np.concatenate([each.data for each in (y.values() if isinstance(y, dict) else [y])], axis=1)

    worst = 0.0
    with evaluating(net):
        whole = scores(images)
        for top, bottom in tiling.parts(size[0]):
            for left, right in tiling.parts(size[1]):
                (up, down), (west, east) = tiling.crop(size[0], (top, bottom)), tiling.crop(size[1], (left, right))
                assert max(down - up, east - west) <= max(tiling.tile, min(size))
                part = scores([x[:, :, up:down, west:east] for x in images])
                part = part[:, :, top - up : bottom - up, left - west : right - west]
                worst = max(worst, float(abs(part - whole[:, :, top:bottom, left:right]).max()))
    return worst / float(abs(whole).max())


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow("a large net in many tiles"))
        for name in ALL
        if name not in TWINS
    ],
)
def test_tiles_have_the_scores_of_the_whole_image(name: str, rng: np.random.Generator) -> None:
    net = at_random(NETS[name](width=1, init="zero"), rng)
    tiling = Tiling.of(net, 1 << 20)
    tiling = Tiling.of(net, 2 * tiling.margin + 2 * tiling.stride)
    long = tiling.tile + 2 * tiling.stride + 5
    assert len(list(tiling.parts(long))) > 2
    assert largest_error(net, tiling, rng, (37, long)) < 1e-13
    assert largest_error(net, tiling, rng, (long, 21)) < 1e-13


@pytest.mark.parametrize(("name", "twin"), TWINS.items())
def test_a_net_whose_tiles_are_not_compared_differs_in_its_classes_alone(name: str, twin: str) -> None:
    one, other = (NETS[each](width=1, classes=3, init="zero") for each in (name, twin))
    assert isinstance(one, FCN) and isinstance(other, FCN)
    assert list(one.steps()) == list(other.steps()) and list(chains(one)) == list(chains(other))
    assert [type(part) for part in one.modules()] == [type(part) for part in other.modules()]
    assert [(key, p.shape) for key, p in one.named_parameters()] == [(k, p.shape) for k, p in other.named_parameters()]
    assert Tiling.of(one, 2000) == Tiling.of(other, 2000)


def error_of_cells(net: FCN_ResNet, tiling: Tiling, rng: np.random.Generator, size: tuple[int, int]) -> float:
    """`largest_error` for a net that resamples its cells, as `Predictor` puts a part together."""
    x, worst = rng.standard_normal((1, 3, *size)), 0.0
    with evaluating(net):
        whole = net(x).data
        for part in itertools.product(tiling.parts(size[0]), tiling.parts(size[1])):
            crops = [tiling.crop(side, span) for side, span in zip(size, part, strict=True)]
            assert max(stop - start for start, stop in crops) <= max(tiling.tile, min(size))
            axes = [tiling.inside(side, span, crop) for side, span, crop in zip(size, part, crops, strict=True)]
            (rows, down), (cols, across) = axes
            assert down is not None and across is not None
            cells = net.cells(x[:, :, slice(*crops[0]), slice(*crops[1])]).data[:, :, rows, cols]
            worst = max(worst, abs(down @ cells @ across.T - whole[:, :, slice(*part[0]), slice(*part[1])]).max())
    return worst / float(abs(whole).max())


@pytest.mark.parametrize("name", slow_but(["fcn_resnet50"], RESAMPLED, "a deep net in many tiles"))
def test_tiles_of_a_net_that_resamples_its_cells_have_the_scores_of_the_whole_image(
    name: str, rng: np.random.Generator
) -> None:
    """At sizes that are no multiple of 8, where a pixel's place among the cells depends on the size of the image."""
    net = at_random(NETS[name](width=1, classes=3), rng)
    assert isinstance(net, FCN_ResNet)
    tiling = Tiling.of(net, 1 << 20)
    tiling = Tiling.of(net, 2 * tiling.margin + 3 * tiling.stride)
    long = tiling.tile + 3 * tiling.stride + 5
    assert error_of_cells(net, tiling, rng, (21, long)) < 1e-6  # the matrices hold float32
    assert error_of_cells(net, tiling, rng, (long, 17)) < 1e-6
    narrow = dataclasses.replace(tiling, reach=tiling.stride)
    assert error_of_cells(net, narrow, rng, (21, long)) > 1e-2


def test_the_margin_is_no_larger_than_it_must_be_and_the_alignment_is_needed(rng: np.random.Generator) -> None:
    net = at_random(NETS["fcn-squeezenet"](width=1, init="zero"), rng)
    exact = Tiling.of(net, 248)
    size = (9, 300)
    assert largest_error(net, exact, rng, size) < 1e-13
    assert largest_error(net, dataclasses.replace(exact, reach=exact.reach - 17), rng, size) > 1e-9
    assert largest_error(net, dataclasses.replace(exact, stride=8), rng, size) > 1e-3


@pytest.mark.slow("a large net in many tiles")
def test_a_nonlinear_upsampling_is_tiled_too(rng: np.random.Generator) -> None:
    net = at_random(nonlinear(FCN8s(width=1, layers=11, classes=3, padding=100)), rng)
    tiling = Tiling.of(net, 1 << 20)
    tiling = Tiling.of(net, 2 * tiling.margin + 2 * tiling.stride)
    assert largest_error(net, tiling, rng, (7, tiling.tile + 40)) < 1e-13


def test_the_reach_of_fcn8s_is_the_sum_of_its_half_windows() -> None:
    assert reach([Layer(3, padding=1), Layer(2, stride=2), Layer(3)]) == 1 + 0.5 + 2
    assert reach([Layer(4, stride=2, transpose=True)]) == 0.75  # of the pixels it is made from: half a cell each
    net = FCN8s(classes=3, width=1)
    assert max(map(reach, chains(net))) == (404 - 1) / 2 + 1.5 * 16 + 1.5 * 8 + 7.5
    assert len(list(chains(net))) == 3


def test_what_cannot_be_tiled_says_why() -> None:
    one, other = (NETS["parsenet"](width=1, init="zero") for _ in range(2))
    with pytest.raises(UsageError, match=r"trunk\.context \(GlobalContext\) lets every score depend on the whole"):
        Tiling.of(LateFusion(color=one, hha=other), 2000)
    assert Tiling.of(one, 2000).kept > 0  # its mean can be added up from tiles
    with pytest.raises(UsageError, match=r"tile is 543; expected at least 544: this net's scores look 245 pixels"):
        Tiling.of(NETS["fcn8s"](width=1, init="zero"), 543)
    with pytest.raises(UsageError, match="found VGG, whose reach is unknown; expected an FCN"):
        net = NETS["fcn8s"](width=1, init="zero")
        assert isinstance(net, FCN)
        Tiling.of(net.trunk, 2000)


def test_an_image_that_fits_is_one_part() -> None:
    tiling = Tiling.of(NETS["fcn-squeezenet"](width=1, init="zero"), 300)
    assert list(tiling.parts(300)) == [(0, 300)] and tiling.crop(300, (10, 20)) == (0, 300)
    assert list(Tiling().parts(5)) == [(0, 5)] and Tiling().crop(5, (1, 2)) == (0, 5)
    assert "a score looks 92 pixels to each side" in str(tiling)
