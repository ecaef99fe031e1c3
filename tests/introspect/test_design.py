"""What `design` finds is what the paper has, and what it refuses it can explain."""

from dataclasses import replace

import numpy as np
import pytest
from some_slow import slow_but

from minifcn.cli.command import guard
from minifcn.cli.design import main
from minifcn.errors import GeometryError, UsageError
from minifcn.geometry import Layer
from minifcn.introspect.design import LadderOf, chain_paths, design, misfits, trunk_paths
from minifcn.models.alexnet import AlexNet
from minifcn.models.fcn import FCN
from minifcn.models.ladder import safe_padding
from minifcn.models.vgg import VGG

SKIPS = {32: (), 16: ("pool4",), 8: ("pool4", "pool3"), 4: ("pool4", "pool3", "pool2")}
vgg, alexnet = trunk_paths(VGG), trunk_paths(AlexNet)


def floored(padding):
    """VGG with pools that drop what hangs over, as most libraries have them."""
    return {name: [replace(layer, ceil=False) for layer in path] for name, path in vgg(padding).items()}


@pytest.mark.parametrize(
    ("stride", "crops", "kernels"),
    slow_but(
        [(8, (5, 9, 28), (4, 4, 16))],
        [(32, (16,), (64,)), (16, (5, 24), (4, 32)), (8, (5, 9, 28), (4, 4, 16)), (4, (5, 9, 17, 30), (4, 4, 4, 8))],
        "tries each padding",
    ),
)
def test_vgg_needs_97(stride, crops, kernels):
    found = design(vgg, SKIPS[stride])
    assert (found.padding, found.crops, found.kernels) == (97, crops, kernels)
    assert found.padding == safe_padding(vgg, SKIPS[stride])
    assert found.before_image == {32: 81, 16: 73, 8: 69, 4: 67}[stride]


@pytest.mark.parametrize("padding", [81, 97, 100])
def test_the_papers_crops_at_its_padding(padding):
    for stride, published in ((32, 19), (16, 27), (8, 31)):
        ladder = LadderOf(vgg(padding), SKIPS[stride], None)
        assert ladder.rungs[-1].at == published + padding - 100
        bad = misfits(ladder)
        if padding == 81:
            assert bad and max(bad) < 33  # enough for every image of 33 pixels or more
        else:
            assert not bad


def test_one_less_is_not_safe():
    assert misfits(LadderOf(vgg(96), (), None))


def test_why_alexnet_has_63_and_not_64():
    assert LadderOf(alexnet(100), (), 63).rungs[-1].at == 18
    assert design(alexnet).kernels == (63,)
    with pytest.raises(GeometryError, match="= 37/2 is not whole"):
        LadderOf(alexnet(100), (), 64)
    with pytest.raises(GeometryError, match=r"no padding makes this ladder fit: upscore .* is not whole"):
        design(alexnet, kernel=64)


def test_floor_pooling_breaks_the_papers_padding():
    bad = misfits(LadderOf(floored(100), (), None))
    assert len(bad) == 397 and {375, 500} <= set(bad)


def test_a_design_builds(rng):
    """The padding found is used: every odd size goes down and comes back; one less, and some size does not."""

    class Small(VGG):
        def __init__(self, padding):
            super().__init__(layers=11, width=1, padding=padding, init=rng, rng=rng)

    found = design(lambda padding: Small(padding).paths(), ("pool4",))
    net = FCN(Small(found.padding), classes=2, skips=("pool4",)).eval()
    for size in [(1, 33), (17, 2), (40, 65)]:
        assert net(np.zeros((1, 3, *size), np.float32)).shape == (1, 2, *size)
    assert misfits(LadderOf(Small(found.padding - 1).paths(), ("pool4",), None))


def test_a_chain_is_read():
    paths = chain_paths("conv1=11/4 pool1=3/2c 5/1/2 fc=6")(100)
    assert list(paths) == ["conv1", "pool1", "layer3", "fc"]
    assert paths["fc"] == [Layer(11, 4, 100), Layer(3, 2, ceil=True), Layer(5, padding=2), Layer(6)]


def test_a_chain_like_a_trunk_is_designed_like_it():
    words = []
    for i, depth in enumerate((2, 2, 3, 3, 3), start=1):
        words += [f"conv{i}_{j}=3/1/1" for j in range(depth)] + [f"pool{i}=2/2c"]
    found = design(chain_paths(" ".join([*words, "fc6=7", "fc7=1"])), ("pool4", "pool3"))
    assert (found.padding, found.crops) == (97, (5, 9, 28))


@pytest.mark.parametrize("text", ["", "a=3/0", "a=0", "a=3 a=3", "3/1/1/1", "x=", "a=3cc", "vgg17", "=3", "a=1000000"])
def test_a_chain_that_cannot_be_read_is_refused(text):
    with pytest.raises(UsageError, match=r"expected (name=kernel|a chain)"):
        chain_paths(text)


def test_the_command(capsys):
    assert main(["vgg16", "--skips", "pool4,pool3", "--padding", "100"]) == 0
    printed = capsys.readouterr().out
    assert "padding 100: crops 5, 9, 31; all sides from 1 to 1024 come out whole" in printed
    assert "upscore2         kernel   4, stride  2: crop(pool4, like=score, at=5)" in printed
    assert "crop(score, like=image, at=28)" in printed and "padding - 69" in printed and "padding 97 is" in printed
    assert main(["a=3/1/1 p=2/2c", "fc=3"]) == 0


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["alexnet", "--kernel", "64", "--padding", "100"], "37/2 is not whole"),
        (["vgg16", "--skips", "pool9"], "skip 'pool9' is not an output"),
        (["vgg16", "--kernel", "-3"], "kernel is -3"),
        (["vgg61"], "layer 'vgg61' cannot be read"),
    ],
)
def test_the_command_refuses(argv, words, capsys):
    assert guard(main, argv) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
