"""torchvision's FCN on ResNet against a rebuild in PyTorch: names, dilation, both heads, training and export."""

from typing import Any

import numpy as np
import pytest

from minifcn import ops
from minifcn.errors import UsageError
from minifcn.geometry import Grid
from minifcn.models.resnet import BLOCKS, FCN_ResNet, ResNet
from minifcn.nn import evaluating
from minifcn.optim import SGD
from minifcn.tensor import Tensor
from minifcn.weights.names import renamed, torchvision_segmentation
from minifcn.weights.onnx_graph import onnx_model
from minifcn.weights.published import WeightSet, compare, open_weights

WIDTH = 4


def rebuilt(torch: Any, layers: int, *, classes: int, width: int = WIDTH) -> Any:
    """The net as torchvision writes it, with its names, so many channels in place of 64; eval() is up to the caller."""
    nn = torch.nn

    class Bottleneck(nn.Module):
        def __init__(self, incoming: int, inner: int, stride: int, dilation: int, project: bool) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(incoming, inner, 1, bias=False), nn.BatchNorm2d(inner)
            self.conv2 = nn.Conv2d(inner, inner, 3, stride, dilation, dilation, bias=False)
            self.bn2 = nn.BatchNorm2d(inner)
            self.conv3, self.bn3 = nn.Conv2d(inner, 4 * inner, 1, bias=False), nn.BatchNorm2d(4 * inner)
            if project:
                shortcut = nn.Conv2d(incoming, 4 * inner, 1, stride, bias=False)
                self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * inner))

        def forward(self, x: Any) -> Any:
            y = torch.relu(self.bn1(self.conv1(x)))
            y = self.bn3(self.conv3(torch.relu(self.bn2(self.conv2(y)))))
            return torch.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))

    def head(channels: int) -> Any:
        inner = channels // 4
        conv = nn.Conv2d(channels, inner, 3, padding=1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(inner), nn.ReLU(), nn.Dropout(0.1), nn.Conv2d(inner, classes, 1))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Module()
            self.backbone.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
            self.backbone.bn1 = nn.BatchNorm2d(width)
            channels = width
            # (channels inside, stride, dilation of the first block, of the others): torchvision replaces stride 2
            for stage, (factor, stride, first, rest) in enumerate(
                [(1, 1, 1, 1), (2, 2, 1, 1), (4, 1, 1, 2), (8, 1, 2, 4)]
            ):
                blocks = []
                for number in range(BLOCKS[layers][stage]):
                    dilation = rest if number else first
                    block = Bottleneck(channels, width * factor, 1 if number else stride, dilation, number == 0)
                    blocks.append(block)
                    channels = 4 * width * factor
                setattr(self.backbone, f"layer{stage + 1}", nn.Sequential(*blocks))
            self.classifier, self.aux_classifier = head(channels), head(channels // 2)

        def forward(self, x: Any) -> dict[str, Any]:
            b = self.backbone
            y = nn.functional.max_pool2d(torch.relu(b.bn1(b.conv1(x))), 3, 2, 1)
            third = b.layer3(b.layer2(b.layer1(y)))
            scores = {"out": self.classifier(b.layer4(third)), "aux": self.aux_classifier(third)}
            resize = nn.functional.interpolate
            return {
                name: resize(s, size=x.shape[2:], mode="bilinear", align_corners=False) for name, s in scores.items()
            }

    net = Net()
    generator = torch.Generator().manual_seed(layers)
    for name, tensor in net.state_dict().items():  # statistics of a net that has been trained
        if name.endswith(("running_mean", "bias")):
            tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
        elif name.endswith("running_var") or "bn" in name:
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return net


def loaded(net: FCN_ResNet, state: dict[str, Any]) -> FCN_ResNet:
    """Our net with the arrays of a state dict by torchvision's names."""
    theirs = renamed([name for name, _ in net.named_parameters()], torchvision_segmentation)
    assert {*theirs.values()} == {name for name in state if not name.endswith("num_batches_tracked")}
    net.load_state_dict({own: np.asarray(state[name]) for own, name in theirs.items()})
    return net


@pytest.mark.parametrize("layers", BLOCKS)
def test_the_scores_of_both_heads_are_pytorchs_at_three_sizes(torch: Any, layers: int) -> None:
    rival = rebuilt(torch, layers, classes=5).eval()
    net = loaded(FCN_ResNet(layers=layers, classes=5, width=WIDTH, init="zero"), rival.state_dict())
    rng = np.random.default_rng(0)
    for size in ((64, 64), (57, 83), (33, 20)):
        x = rng.standard_normal((2, 3, *size)).astype(np.float32)
        with torch.no_grad():
            expected = rival(torch.from_numpy(x))
        with evaluating(net):
            found, alone = net.both(x), net(x)
        for name, scores in found.items():
            wanted = expected[name].numpy()
            assert scores.shape == wanted.shape == (2, 5, *size)
            assert abs(scores.data - wanted).max() <= 1e-4 * abs(wanted).max(), (name, size)
        assert np.array_equal(alone.data, found["out"].data)


def test_a_step_with_the_auxiliary_loss_is_pytorchs(torch: Any) -> None:
    """Batch normalisation of the batch, both losses, a step of SGD, and the running statistics after it."""
    rival = rebuilt(torch, 50, classes=5).double().train()
    net = FCN_ResNet(classes=5, width=WIDTH, dropout=0.0, init="zero").astype(np.float64)
    loaded(net, rival.state_dict()).train()
    for one in (rival.classifier, rival.aux_classifier):
        one[3].p = 0.0
    rng = np.random.default_rng(1)
    x, labels = rng.standard_normal((2, 3, 48, 40)), rng.integers(0, 5, (2, 48, 40))
    scores = net.both(x)
    loss = ops.softmax_cross_entropy(scores["out"], labels) + 0.5 * ops.softmax_cross_entropy(scores["aux"], labels)
    loss.backward()
    SGD(net, lr=0.01, momentum=0.0, weight_decay=0.0, multipliers=lambda name: (1.0, 1.0)).step()
    theirs = rival(torch.from_numpy(x))
    entropy = torch.nn.functional.cross_entropy
    total = entropy(theirs["out"], torch.from_numpy(labels)) + 0.5 * entropy(theirs["aux"], torch.from_numpy(labels))
    total.backward()
    torch.optim.SGD(rival.parameters(), lr=0.01).step()
    assert abs(float(loss) - total.item()) < 1e-10
    state, names = net.state_dict(), renamed([name for name, _ in net.named_parameters()], torchvision_segmentation)
    for own, name in names.items():
        np.testing.assert_allclose(state[own], rival.state_dict()[name].numpy(), rtol=1e-6, atol=1e-9, err_msg=name)


def test_the_strides_of_the_last_two_stages_become_dilation() -> None:
    """torchvision's replace_stride_with_dilation is rarefaction: what a cell sees stays the same."""
    dense, coarse = (ResNet(width=1, output_stride=stride, init="zero") for stride in (8, 32))
    assert [Grid.of(dense.paths()[name]).stride for name in dense.stages] == [4, 4, 8, 8, 8]
    assert [Grid.of(coarse.paths()[name]).stride for name in coarse.stages] == [4, 4, 8, 16, 32]
    assert Grid.of(dense.layers()).field == Grid.of(coarse.layers()).field
    with pytest.raises(UsageError, match="expected one of 50, 101; 8, 16 or 32"):
        ResNet(layers=34, init="zero")
    with pytest.raises(UsageError, match="no auxiliary head"):
        FCN_ResNet(width=1, aux=False, init="zero").both(np.zeros((1, 3, 9, 9), np.float32))


def test_a_state_dict_finds_its_net_its_classes_and_its_preprocessing(torch: Any, tmp_path: Any) -> None:
    """Names alone decide between 50 and 101, with and without the second head; two classes are two classes."""
    arrays = named_arrays(layers=101, classes=2, aux=False)
    assert "backbone.layer1.0.conv1.weight" in arrays and "backbone.bn1.running_mean" in arrays
    fits = {name: compare(name, arrays) for name in ("fcn_resnet50", "fcn_resnet101", "fcn_resnet101-main")}
    assert [name for name, fit in fits.items() if not fit.fault] == ["fcn_resnet101-main"]
    assert fits["fcn_resnet101-main"].classes == 2


def named_arrays(**options: Any) -> dict[str, np.ndarray]:
    """Arrays of zeros by torchvision's names, without memory."""
    net = FCN_ResNet(init="meta", **options)
    names = renamed([name for name, _ in net.named_parameters()], torchvision_segmentation)
    return {names[name]: np.broadcast_to(np.float32(0), p.shape) for name, p in net.named_parameters()}


def test_a_second_head_that_was_left_with_other_classes_is_left_out() -> None:
    """People replace `model.classifier[4]` for their classes, and the head for training alone keeps its 21."""
    arrays = named_arrays(classes=21)
    for part in ("weight", "bias"):
        arrays[f"classifier.4.{part}"] = arrays[f"classifier.4.{part}"][:3]
    fit = compare("fcn_resnet50-main", arrays)
    assert (fit.fault, fit.classes) == ("", 3) and compare("fcn_resnet50", arrays).fault
    assert not compare("fcn_resnet50", named_arrays(classes=3)).fault


def test_a_negative_variance_is_refused() -> None:
    arrays = named_arrays(classes=21)
    arrays["backbone.bn1.running_var"] = np.full(64, -0.5, np.float32)
    assert compare("fcn_resnet50", arrays).fault == (
        "backbone.bn1.running_var holds -0.5; expected variances of at least 0"
    )


@pytest.mark.slow("a net of 33 million numbers is written, read and run")
def test_a_whole_state_dict_predicts(torch: Any, tmp_path: Any) -> None:
    rival = rebuilt(torch, 50, classes=21, width=64).eval()
    torch.save({"model": rival.state_dict()}, tmp_path / "a.pth")
    weights = open_weights(tmp_path / "a.pth")
    assert (weights.net, len(weights.classes), weights.classes[8]) == ("fcn_resnet50", 21, "cat")
    net, x = weights.network(), np.random.default_rng(2).standard_normal((1, 3, 40, 65)).astype(np.float32)
    with torch.no_grad(), evaluating(net):
        wanted = rival(torch.from_numpy(x))["out"].numpy()
        assert abs(net(Tensor(x)).data - wanted).max() <= 1e-4 * abs(wanted).max()
    assert isinstance(weights, WeightSet) and weights.preprocessing.order == "RGB"


def test_its_onnx_graph_gives_the_same_scores() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    net = FCN_ResNet(classes=3, width=WIDTH, init="he", seed=3).eval()
    for size in ((48, 64), (33, 20)):
        x = np.random.default_rng(4).standard_normal((2, 3, *size)).astype(np.float32)
        model = onnx_model(net, classes=["a", "b", "c"], metadata={})
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"image": x})
        with evaluating(net):
            wanted = net(x).data
        assert abs(found - wanted).max() <= 1e-4 * abs(wanted).max()
