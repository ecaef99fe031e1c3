"""Tiles with the derived margin have the scores of the whole image, for every FCN of the zoo; smaller ones have not."""

import dataclasses

import numpy as np
import pytest

from minifcn.errors import UsageError
from minifcn.geometry import Layer
from minifcn.introspect.describe import below, channels
from minifcn.models.fcn import FCN, FCN8s
from minifcn.models.paper import LateFusion
from minifcn.models.tiling import Tiling, chains, reach
from minifcn.models.upsampling import nonlinear
from minifcn.models.zoo import NETS, TRUNKS
from minifcn.nn import Module, evaluating
from minifcn.tensor import Tensor

REFUSED = ("parsenet", *(name for name in NETS if name.startswith("fcn_resnet")))  # a sentence says why
ALL = [name for name in NETS if name not in TRUNKS and name not in REFUSED]
QUICK = ("fcn-squeezenet",)


def at_random(net: Module, rng: np.random.Generator) -> Module:
    """The net in float64 with weights at which every cell of a window counts."""
    for parameter in net.parameters():
        parameter.data = rng.standard_normal(parameter.shape) * 0.3 + 0.05
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
    with pytest.raises(UsageError, match=r"trunk\.context \(GlobalContext\) lets every score depend on the whole"):
        Tiling.of(NETS["parsenet"](width=1, init="zero"), 2000)
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
