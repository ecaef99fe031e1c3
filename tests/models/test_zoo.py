"""The one list of nets: a name means the same net everywhere, and no other list stands beside it."""

import re

import numpy as np
import pytest
from some_slow import slow_but

from minifcn.errors import UsageError
from minifcn.models.alexnet import AlexNet, AlexNet2014
from minifcn.models.classifier import Classifier, classifier
from minifcn.models.fcn import FCN
from minifcn.models.paper import LateFusion
from minifcn.models.resnet import FCN_ResNet
from minifcn.models.vgg import BLOCKS
from minifcn.models.zoo import NETS, TRUNKS, named
from minifcn.training import setup
from minifcn.training.options import Options, from_dict
from minifcn.training.pretraining import Pretraining
from minifcn.weights.published import PUBLISHED, SOURCES


def same(a, b):
    ours, theirs = a.state_dict(), b.state_dict()
    return list(ours) == list(theirs) and all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("name", NETS)
def test_a_net_is_what_its_record_says(name):
    net = NETS[name](width=1, init="zero")
    assert isinstance(net, Classifier if name in TRUNKS else FCN | LateFusion | FCN_ResNet)
    if name in TRUNKS:
        assert isinstance(net.trunk, TRUNKS[name].func)


@pytest.mark.parametrize(
    "name",
    slow_but(
        ["vgg11", "squeezenet1.1"],
        [name for name in NETS if NETS[name].strides and name in TRUNKS],
        "builds each ladder",
    ),
)
def test_its_strides_and_the_scales_of_its_skips_are_those_of_an_fcn_on_it(name):
    known = NETS[name]
    for stride in known.strides:
        options = Options(trunk=name, width=1, padding="safe", stages=str(stride), at_once=True)
        net = setup.network(options, 3, stride, init="zero")
        assert net.ladder.rungs[-1].layer.stride == stride and net.skip_scale == known.skip_scale
        if stride == (8 if name.startswith("vgg") else known.strides[-1]):  # the finest with scales: the paper's has 8
            assert not known.skip_scale or {*known.skip_scale} == {*net.skips}


@pytest.mark.parametrize("layers", BLOCKS)
def test_vgg_with_its_layers_is_the_vgg_of_that_name(layers):
    """The options of a run that was saved have the first, and stay readable."""
    saved = {"trunk": "vgg", "layers": layers, "width": 1}
    one, other = from_dict(saved, source="config.json"), Options(trunk=f"vgg{layers}", width=1)
    assert same(setup.network(one, 3, 8), setup.network(other, 3, 8))
    assert Pretraining(**saved).net == Pretraining(trunk=f"vgg{layers}", width=1).net == f"objects-vgg{layers}-width1"


def test_every_source_of_weights_belongs_to_a_net():
    assert {net.published for net in NETS.values()} == {"", *SOURCES}
    assert all(PUBLISHED[name].make == NETS[name].make for name in PUBLISHED)
    assert NETS["lenet"](init="zero").top.ip2.b.shape == (10,)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(
        UsageError, match=r"^net 'gogglenet' is unknown; expected one of vgg11, .*; did you mean 'googlenet'\?$"
    ):
        named(NETS, "gogglenet", "net 'gogglenet' is unknown")
    with pytest.raises(UsageError, match=re.escape("option trunk is 'alexnet2'; expected one of vgg, ")) as refusal:
        Options(trunk="alexnet2")
    assert str(refusal.value).endswith("; did you mean 'alexnet'?")
    with pytest.raises(UsageError, match=r"fcn-dilated$"):
        named(NETS, "zzz", "net 'zzz' is unknown")


def test_the_alexnets_differ_in_what_the_papers_changed():
    caffe, other = (classifier(trunk, init="zero") for trunk in (AlexNet, AlexNet2014))
    assert [*caffe.trunk.head.sequence()] == ["fc6", "drop6", "fc7", "drop7"]
    assert [*other.trunk.head.sequence()] == ["drop6", "fc6", "drop7", "fc7"]
    assert "norm1" in caffe.trunk.block2.sequence() and "norm1" not in other.trunk.block2.sequence()
    with pytest.raises(UsageError, match="AlexNet2014: width is 0"):
        classifier(AlexNet2014, width=0)
