"""The classifiers: as large, as deep and as far-sighted as published."""

import numpy as np
import pytest

from minifcn import ops
from minifcn.errors import GeometryError, ShapeError, UsageError
from minifcn.geometry import Grid, Layer, out_size
from minifcn.gradcheck import gradcheck_along
from minifcn.models.alexnet import AlexNet, AlexNet2014
from minifcn.models.classifier import Classifier, classifier
from minifcn.models.googlenet import GoogLeNet, inception
from minifcn.models.lenet import LeNet
from minifcn.models.squeezenet import SqueezeNet
from minifcn.models.trunk import Parallel, Trunk
from minifcn.models.vgg import VGG
from minifcn.nn import AvgPool2d, Conv2d, Linear, MaxPool2d, Sequential
from minifcn.optim import SGD
from minifcn.surgery import convolutionalize

# trunk, its options, parameters, convolutions on the longest path (fully connected layers counted), receptive field
PUBLISHED = {
    "LeNet": (LeNet, {"classes": 10, "in_channels": 1}, 431_080, 4, 28),
    "AlexNet": (AlexNet, {}, 60_965_224, 8, 355),
    "AlexNet 2014": (AlexNet2014, {}, 61_100_840, 8, 355),
    "VGG-16": (VGG, {}, 138_357_544, 16, 404),
    "VGG-19": (VGG, {"layers": 19}, 143_667_240, 19, 460),
    "GoogLeNet": (GoogLeNet, {}, 6_998_552, 22, 907),
    "GoogLeNet torchvision": (GoogLeNet, {"version": "torchvision"}, 6_617_624, 22, 571),
    "SqueezeNet 1.0": (SqueezeNet, {}, 1_248_424, 18, 155),
    "SqueezeNet 1.1": (SqueezeNet, {"version": "1.1"}, 1_235_496, 18, 207),
}
published = pytest.mark.parametrize("name", PUBLISHED)


def build(name, **options):
    trunk, own, *_ = PUBLISHED[name]
    return classifier(trunk, **{**own, **options})


def thin(name, **options):
    return build(name, **{"width": 1, "classes": 7, **options}).eval()


def photo(net, *size, seed=2, dtype=np.float32, batch=1):
    size = size or (net.trunk.size, net.trunk.size)
    channels = next(p for name, p in net.named_parameters() if name.endswith(".w")).shape[1]
    return np.random.default_rng(seed).standard_normal((batch, channels, *size)).astype(dtype)


def depth(y, kinds=("conv2d", "matmul")):
    """The most layers with weights on any path through the graph of `y`, found in the graph itself."""
    longest, waiting = {}, [y.node]
    while waiting:
        node = waiting[-1]
        missing = [parent for parent, _, _ in node.edges if parent not in longest]
        if missing:
            waiting += missing
        else:
            below = max((longest[parent] for parent, _, _ in node.edges), default=0)
            longest[node] = below + (node.op in kinds)
            waiting.pop()
    return longest[y.node]


@published
def test_as_many_parameters_as_published(name):
    assert sum(p.size for _, p in build(name, init="zero").named_parameters()) == PUBLISHED[name][2]


@published
def test_as_deep_as_published(name):
    net = thin(name)
    assert depth(net(photo(net))) == PUBLISHED[name][3]


@published
def test_a_cell_sees_as_much_as_published(name):
    net = thin(name)
    assert Grid.of(net.layers()).field == PUBLISHED[name][4]


@published
def test_one_answer_for_an_image_of_the_nets_size(name):
    net = thin(name)
    x = photo(net, batch=2)
    y = net(x)
    assert y.shape == (2, 7) and y.dtype == np.float32
    np.testing.assert_allclose(net(x[1:]).data[0], y.data[1], rtol=1e-4, atol=1e-6)
    if not name.startswith("Squeeze"):  # its answer is the mean of a map
        assert out_size(net.layers(), net.trunk.size) == 1


def test_googlenet_sees_715_pixels_without_its_average_pool():
    trunk = thin("GoogLeNet").trunk
    assert Grid.of(trunk.layers()).field == 715 and sum(p.size for p in trunk.parameters())
    full = GoogLeNet(init="zero", rng=np.random.default_rng(0))
    assert sum(p.size for p in full.parameters()) == 5_973_552  # the paper's 6M


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("LeNet", {"pool1": 2, "pool2": 4, "ip1": 4}),
        ("AlexNet", {"pool1": 8, "pool2": 16, "pool5": 32, "fc7": 32}),
        ("AlexNet 2014", {"pool1": 8, "pool2": 16, "pool5": 32, "fc7": 32}),
        ("GoogLeNet torchvision", {"pool1": 4, "pool2": 8, "pool3": 16, "pool4": 32, "inception_5b": 32}),
        ("VGG-16", {"pool1": 2, "pool2": 4, "pool3": 8, "pool4": 16, "pool5": 32, "fc7": 32}),
        ("GoogLeNet", {"pool1": 4, "pool2": 8, "pool3": 16, "pool4": 32, "inception_5b": 32}),
        ("SqueezeNet 1.0", {"pool1": 4, "pool4": 8, "pool8": 16, "fire9": 16}),
        ("SqueezeNet 1.1", {"pool1": 4, "pool3": 8, "pool5": 16, "fire9": 16}),
    ],
)
def test_the_strides_of_the_outputs(name, strides):
    trunk = thin(name).trunk
    assert {output: Grid.of(path).stride for output, path in trunk.paths().items()} == strides
    assert trunk.channels.keys() == strides.keys()
    for output, y in trunk(photo(thin(name)), keep=strides).items():
        side = out_size(trunk.paths()[output], trunk.size)
        dense = y.data.ndim == 2
        assert y.shape[1:] == (trunk.channels[output], *(() if dense else (side, side)))
        assert not dense or side == 1


def test_an_image_of_500_gives_caffenet_10x10_answers_and_227_one():
    net = convolutionalize(thin("AlexNet"))
    assert out_size(net.layers(), 500) == 10 and out_size(net.layers(), 227) == 1
    assert net(photo(net, 500, 500)).shape == (1, 7, 10, 10) and net(photo(net)).shape == (1, 7, 1, 1)


@published
def test_the_width_scales_every_count(name):
    own = PUBLISHED[name][0].own_width
    thin_shapes = {n: p.shape for n, p in thin(name).named_parameters()}
    for n, p in build(name, init="zero", classes=7).named_parameters():
        outputs = p.shape[0] if p.shape[0] == 7 else p.shape[0] // own
        assert p.shape[0] in (7, outputs * own) and thin_shapes[n][0] == outputs, n


@published
def test_the_seed_decides(name):
    one, two, other = (build(name, width=1, classes=7, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(np.array_equal(one[n], two[n]) for n in one)
    assert not all(np.array_equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("name", ["LeNet", "AlexNet", "GoogLeNet", "SqueezeNet 1.0"])
def test_the_gradient_of_the_whole_classifier(name):
    net = thin(name).astype(np.float64)
    rng = np.random.default_rng(0)
    for n, p in net.named_parameters():
        if n.endswith(".b"):
            p.data = rng.uniform(0.05, 0.2, p.shape)
    x = photo(net, dtype=np.float64)

    def loss():
        scores = ops.reshape(net(x), shape=(1, 7, 1, 1))
        return ops.softmax_cross_entropy(scores, np.array([[[3]]]))

    loss().backward()
    for n, p in net.named_parameters():
        assert p.grad is not None and p.grad.any(), n
    assert gradcheck_along(loss, list(net.parameters()), eps=1e-7, tolerance=1e-5) < 1e-5


def test_lenet_learns_eight_images_by_heart():
    net = classifier(LeNet, width=2, classes=4)
    rng = np.random.default_rng(0)
    x, truth = rng.standard_normal((8, 1, 28, 28)).astype(np.float32), np.arange(8).reshape(8, 1, 1) % 4
    sgd = SGD(net, lr=0.01)

    def loss():
        return ops.softmax_cross_entropy(ops.reshape(net(x), shape=(8, 4, 1, 1)), truth)

    before = loss().item()
    for _ in range(25):
        loss().backward()
        sgd.step()
    assert before > 1 and loss().item() < 0.1
    assert (net(x).data.argmax(axis=1) == truth.ravel()).all()


# ---- what does not fit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: thin("AlexNet", width=0), UsageError, r"AlexNet: width is 0; expected .* \(16 is AlexNet's own\)"),
        (lambda: thin("GoogLeNet", width=1.5), UsageError, "GoogLeNet: width is 1.5"),
        (lambda: thin("SqueezeNet 1.0", padding=-1), UsageError, "SqueezeNet: padding is -1"),
        (lambda: thin("AlexNet", padding="same"), UsageError, "AlexNet: padding is 'same'; expected a whole number"),
        (lambda: thin("VGG-16", padding="same"), UsageError, 'VGG: padding is "same" and dense is True'),
        (
            lambda: thin("SqueezeNet 1.0", version="2"),
            UsageError,
            r"version is '2'; expected one of 1\.0, 1\.1, 1\.0 torchvision",
        ),
        (lambda: thin("GoogLeNet", version="3"), UsageError, "version is '3'; expected one of paper, torchvision"),
        (lambda: thin("LeNet", init="ones"), UsageError, "init is 'ones'"),
        (lambda: thin("LeNet", classes=0), ShapeError, "Linear: out_features is 0"),
        (lambda: Linear(3, 2, 0, init="zero"), ShapeError, "Linear: kernel_size is 0"),
        (
            lambda: thin("LeNet").trunk.until("pool3"),
            UsageError,
            "output is 'pool3'; expected one of pool1, pool2, ip1",
        ),
        (lambda: Trunk().top(3, init="zero"), UsageError, "Trunk is not the trunk of a classifier"),
    ],
)
def test_what_no_classifier_can_be_is_refused_in_one_sentence(make, kind, message):
    with pytest.raises(kind, match=message) as refusal:
        make()
    assert "\n" not in str(refusal.value)


def test_a_classifier_takes_one_size_and_says_what_would_take_more():
    net = thin("LeNet")
    with pytest.raises(ShapeError, match=r"takes maps of shape \(5, 4, 4\) and got \(5, 6, 6\).*convolutionalize"):
        net(photo(net, 36, 36))


def test_branches_on_two_grids_are_refused_by_name(rng):
    same, shifted = Conv2d(2, 2, 3, padding=1, init=rng), Conv2d(2, 2, 3, init=rng)
    assert Parallel(a=Conv2d(2, 2, 1, init=rng), b=same).layers() == [Layer(3, padding=1)]
    with pytest.raises(GeometryError, match=r"branches a and b cannot be concatenated.*start at 0 and 1"):
        Parallel(a=Conv2d(2, 2, 1, init=rng), b=shifted).layers()
    with pytest.raises(GeometryError, match="stride 1 and 2"):
        Parallel(a=same, b=Conv2d(2, 2, 5, stride=2, padding=2, init=rng)).layers()


def test_an_inception_module_is_four_branches_side_by_side(rng):
    module, x = inception(3, [2, 3, 4, 1, 5, 6], init=rng), rng.standard_normal((1, 3, 9, 8)).astype(np.float32)
    y = module(x).data
    assert y.shape == (1, 2 + 4 + 5 + 6, 9, 8) and Grid.of(module.layers()) == Grid.of([Layer(5, padding=2)])
    assert np.array_equal(y[:, 6:11], module.conv5x5(x).data)


# ---- the same net in PyTorch -------------------------------------------------------------------------------------


def torch_squeezenet(torch, p, x, net):
    """SqueezeNet 1.0 from its prototxt, layer by layer."""
    f = torch.nn.functional

    def conv(name, x, **options):
        return f.relu(f.conv2d(x, p[f"{name}.w"], p[f"{name}.b"], **options))

    where = {fire: block for block in net.trunk.stages.values() for fire, _ in getattr(net.trunk, block).children()}
    x = f.max_pool2d(conv("trunk.block1.conv1", x, stride=2), 3, 2, ceil_mode=True)
    for number in range(2, 10):
        fire = f"trunk.{where[f'fire{number}']}.fire{number}"
        x = conv(f"{fire}.squeeze1x1", x)
        one, three = conv(f"{fire}.expand.expand1x1", x), conv(f"{fire}.expand.expand3x3", x, padding=1)
        x = torch.cat([one, three], 1)
        if number in (4, 8):
            x = f.max_pool2d(x, 3, 2, ceil_mode=True)
    return conv("top.conv10", x, padding=1).mean(dim=(2, 3))


def test_squeezenet_as_in_pytorch(torch):
    net = thin("SqueezeNet 1.0").astype(np.float64)
    x = photo(net, 101, 90, dtype=np.float64)
    theirs = torch_squeezenet(torch, {n: torch.tensor(p.data) for n, p in net.named_parameters()}, torch.tensor(x), net)
    np.testing.assert_allclose(net(x).data, theirs.numpy(), rtol=1e-10, atol=1e-12)


def torch_alexnet(torch, p, x):
    """CaffeNet from its prototxt: pool before norm, two groups."""
    f = torch.nn.functional

    def conv(name, x, **options):
        return f.relu(f.conv2d(x, p[f"trunk.{name}.w"], p[f"trunk.{name}.b"], **options))

    def pool(x):
        return f.max_pool2d(x, 3, 2, ceil_mode=True)

    def norm(x):
        return f.local_response_norm(x, 5, 1e-4, 0.75, 1.0)

    x = norm(pool(conv("block1.conv1", x, stride=4)))
    x = norm(pool(conv("block2.conv2", x, padding=2, groups=2)))
    x = conv("block5.conv4", conv("block5.conv3", x, padding=1), padding=1, groups=2)
    x = pool(conv("block5.conv5", x, padding=1, groups=2)).flatten(1)
    for name in ("trunk.head.fc6", "trunk.head.fc7", "top.fc8"):
        x = x @ p[f"{name}.w"].T + p[f"{name}.b"]
        x = x if name == "top.fc8" else f.relu(x)
    return x


def test_caffenet_as_in_pytorch(torch):
    net = thin("AlexNet").astype(np.float64)
    x = 50 * photo(net, dtype=np.float64)  # large enough for the normalisation to matter
    theirs = torch_alexnet(torch, {n: torch.tensor(p.data) for n, p in net.named_parameters()}, torch.tensor(x))
    np.testing.assert_allclose(net(x).data, theirs.numpy(), rtol=1e-9, atol=1e-9)


def test_a_classifier_of_ones_own(rng):
    """Any trunk with a top will do."""

    class Own(Trunk):
        size = 8

        def __init__(self):
            self.add("pool", "block", Sequential(conv=Conv2d(1, 4, 3, init=rng), pool=MaxPool2d(2, ceil_mode=True)), 4)

        def top(self, classes, *, init):
            return Sequential(mean=AvgPool2d(3, ceil_mode=True), fc=Linear(4, classes, init=init))

    net = Classifier(Own(), classes=3, init=rng)
    assert net(np.ones((2, 1, 8, 8), np.float32)).shape == (2, 3) and out_size(net.layers(), 8) == 1
