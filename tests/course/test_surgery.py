"""Surgery: the same answers after it, and every weight where it belongs."""

import numpy as np
import pytest

from minifcn.errors import FormatError, ShapeError
from minifcn.geometry import Grid, out_size
from minifcn.models.alexnet import AlexNet
from minifcn.models.classifier import classifier
from minifcn.models.fcn import FCN8s, FCN32s
from minifcn.models.googlenet import GoogLeNet
from minifcn.models.lenet import LeNet
from minifcn.models.vgg import VGG
from minifcn.nn import Conv2d, Linear, Module, Sequential, Upsample, bilinear
from minifcn.surgery import convolutionalize, expand_score, interpolate, transplant, widened


def thin(trunk, **options):
    return classifier(trunk, **{"width": 1, "classes": 5, **options}).astype(np.float64).eval()


def photo(*size, channels=3, seed=2):
    return np.random.default_rng(seed).standard_normal((1, channels, *size))


# ---- fully connected layers become convolutions ------------------------------------------------------------------


@pytest.mark.parametrize("trunk", [LeNet, AlexNet, VGG, GoogLeNet])
def test_at_the_nets_own_size_nothing_changes(trunk):
    net = thin(trunk)
    x = photo(trunk.size, trunk.size, channels=1 if trunk is LeNet else 3)
    y, answers = convolutionalize(net)(x).data, net(x).data
    assert y.shape == (1, 5, 1, 1)
    np.testing.assert_allclose(y[:, :, 0, 0], answers, rtol=1e-12, atol=1e-12 * np.abs(answers).max())


def test_every_window_of_a_larger_image_gets_the_answer_the_classifier_would_give():
    net = thin(LeNet, width=2)
    x, whole = photo(28 + 4 * 3, 28 + 4 * 5, channels=1), convolutionalize(net)
    grid, y = Grid.of(whole.layers()), whole(x).data
    assert (grid.field, grid.stride) == (28, 4) and y.shape == (1, 5, 4, 6)
    for i, j in np.ndindex(4, 6):
        window = x[:, :, 4 * i : 4 * i + 28, 4 * j : 4 * j + 28]
        np.testing.assert_allclose(y[:, :, i, j], net(window).data, rtol=1e-11, atol=1e-12)


def test_with_padding_a_window_sees_zeros_where_the_image_has_neighbours():
    net = thin(AlexNet)
    x = photo(227 + 32, 227)
    y = convolutionalize(net)(x).data
    assert y.shape == (1, 5, 2, 1)
    assert not np.allclose(y[:, :, 0, 0], net(x[:, :, :227]).data, rtol=1e-3)


def test_the_weights_are_read_in_the_order_channels_rows_columns(rng):
    net = Sequential(fc=Linear(2, 3, 2, init=rng))
    x = rng.standard_normal((1, 2, 2, 2)).astype(np.float32)
    twin = convolutionalize(net)
    assert isinstance(twin.fc, Conv2d) and np.array_equal(twin.fc.w.data[1, 1, 0], net.fc.w.data[1, 4:6])
    np.testing.assert_allclose(net(x).data, x.reshape(1, 8) @ net.fc.w.data.T, rtol=1e-5)
    assert isinstance(net.fc, Linear)  # a copy was operated on
    twin.fc.w.data[:] = 0
    assert net.fc.w.data.any()


def test_the_relu_goes_along(rng):
    net = Sequential(fc=Linear(2, 30, relu=True, init=rng))
    x = rng.standard_normal((1, 2, 1, 1)).astype(np.float32)
    y = convolutionalize(net)(x).data.ravel()
    np.testing.assert_allclose(y, net(x).data.ravel(), rtol=1e-6)
    assert (y == 0).any() and (y > 0).any()


def test_the_names_stay():
    net = thin(LeNet)
    assert [name for name, _ in convolutionalize(net).named_parameters()] == [
        name for name, _ in net.named_parameters()
    ]


def test_there_must_be_something_to_convert(rng):
    with pytest.raises(ShapeError, match="Sequential has no fully connected layer"):
        convolutionalize(Sequential(conv=Conv2d(1, 1, 3, init=rng)))


# ---- transplant --------------------------------------------------------------------------------------------------


def test_a_classifiers_weights_pour_into_the_fcn():
    vgg = classifier(VGG, width=1, classes=9, seed=3)
    fcn = FCN32s(width=1, classes=4, padding=100, init="zero")
    placed = transplant(fcn, vgg.state_dict())
    assert sorted(placed) == sorted(name for name, _ in fcn.trunk.named_parameters("trunk."))
    ours, theirs = fcn.state_dict(), vgg.state_dict()
    for name in placed:
        assert np.array_equal(ours[name].ravel(), theirs[name].ravel()), name
    assert ours["trunk.head.fc6.w"].shape == (64, 8, 7, 7) and theirs["trunk.head.fc6.w"].shape == (64, 8 * 49)
    assert not ours["score_fr.w"].any()


def test_the_fcn_computes_what_the_classifier_computed():
    vgg = thin(VGG, seed=3)
    trunk = VGG(width=1, padding=1, init="zero", rng=np.random.default_rng(0)).astype(np.float64).eval()
    transplant(trunk, vgg.trunk.state_dict())
    x = photo(224, 224)
    np.testing.assert_allclose(trunk(x)["fc7"].data[:, :, 0, 0], vgg.trunk(x)["fc7"].data, rtol=1e-11, atol=1e-13)


def test_a_suffix_names_one_of_two_twins(rng):
    class Twins(Module):
        def __init__(self):
            self.conv1color = Conv2d(1, 2, 3, init="zero")
            self.conv1hha = Conv2d(1, 2, 3, init="zero")

    old, net = Sequential(conv1=Conv2d(1, 2, 3, init=rng)), Twins()
    assert transplant(net, old.state_dict(), suffix="hha") == ["conv1hha.w", "conv1hha.b"]
    assert np.array_equal(net.conv1hha.w.data, old.conv1.w.data) and not net.conv1color.w.data.any()


def test_a_transplant_that_does_not_fit_names_the_layer_and_changes_nothing(rng):
    net = FCN32s(width=1, classes=4)
    before, wide = net.state_dict(), classifier(VGG, width=2, classes=9).state_dict()
    with pytest.raises(FormatError, match=r"do not fit: trunk\.block1\.conv1_1\.w \(2, 3, 3, 3\) for \(1, 3, 3, 3\)"):
        transplant(net, wide)
    turned = {"trunk.block1.conv1_1.w": np.zeros((27, 1))}  # as many numbers, but not of one output
    with pytest.raises(FormatError, match=r"conv1_1\.w \(27, 1\) for \(1, 3, 3, 3\)"):
        transplant(net, turned)
    with pytest.raises(FormatError, match=r"no name of conv9\.w .* is this net's, as trunk\.block1"):
        transplant(net, {"conv9.w": np.zeros(3)})
    with pytest.raises(FormatError, match="no name of"):
        transplant(net, {})
    assert all(np.array_equal(before[name], array) for name, array in net.state_dict().items())


# ---- score layers, upsampling, input channels --------------------------------------------------------------------


def test_a_score_layer_of_more_classes_starts_with_the_old_ones():
    old, new = FCN8s(width=1, classes=3), FCN8s(width=1, classes=5, seed=1)
    for p in old.parameters():
        p.data = p.data + 1
    trunk = new.state_dict()["trunk.block1.conv1_1.w"]
    names = expand_score(new, old.state_dict())
    assert names == [f"score_{end}.{part}" for end in ("fr", "pool4", "pool3") for part in "wb"]
    for name in names:
        assert (
            np.array_equal(new.state_dict()[name][:3], old.state_dict()[name]) and not new.state_dict()[name][3:].any()
        )
    assert np.array_equal(new.state_dict()["trunk.block1.conv1_1.w"], trunk)
    assert expand_score(new, new.state_dict()) == []


@pytest.mark.parametrize("grouped", [True, False])
def test_interpolate_is_where_learned_upsampling_starts(grouped, rng):
    up = Sequential(up=Upsample(3, 4, 2, learn=True, grouped=grouped), fixed=Upsample(3, 4, 2))
    start = up.up.w.data.copy()
    up.up.w.data = rng.standard_normal(start.shape).astype(np.float32)
    interpolate(up)
    assert np.array_equal(up.up.w.data, start) and np.array_equal(up.up.w.data[1, 0 if grouped else 1], bilinear(4))


def test_a_fourth_channel_looks_like_grey():
    color = FCN32s(width=2, classes=3, seed=4)
    deep = FCN32s(width=2, classes=3, in_channels=4, init="zero")
    first = "trunk.block1.conv1_1.w"
    transplant(deep, widened(color.state_dict(), first, 4))
    w, old = deep.state_dict()[first], color.state_dict()[first]
    assert np.array_equal(w[:, :3], old)
    np.testing.assert_allclose(w[:, 3], old.mean(axis=1), rtol=1e-6)
    for name, array in color.state_dict().items():
        assert name == first or np.array_equal(deep.state_dict()[name], array)
    with pytest.raises(ShapeError, match=r"widened: trunk.* has shape \(2, 3, 3, 3\); expected .* at most 2"):
        widened(color.state_dict(), first, 2)


def test_the_output_grid_of_a_convolutional_classifier():
    assert out_size(convolutionalize(thin(VGG)).layers(), 224 + 32) == 2
