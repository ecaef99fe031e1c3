"""Whose weights are these? Names and shapes decide, by rule; what differs is named; and BatchNorm is only a factor."""

import functools
import re
from pathlib import Path

import numpy as np
import pytest

from minifcn import ops
from minifcn.errors import FormatError, UsageError
from minifcn.models.alexnet import AlexNet2014
from minifcn.models.classifier import classifier
from minifcn.models.googlenet import GoogLeNet
from minifcn.nn import bilinear, evaluating
from minifcn.weights import names
from minifcn.weights.names import folded, layer_of, renamed, unnumbered
from minifcn.weights.published import (
    BGR,
    DATA,
    HALVES,
    PUBLISHED,
    TORCH,
    Published,
    compare,
    imagenet_classes,
    imagenet_squeezenet,
    matching,
    open_weights,
    shipped,
)

TWINS = {"nyud-fcn32s-color", "nyud-fcn32s-hha"}  # the same names and shapes for two kinds of image


def nothing(shape, dtype=np.float32):
    """An array of this shape that takes no memory."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def theirs(name, **options):
    """The arrays that a file of this published net has, empty of numbers."""
    net = PUBLISHED[name].network(**options)
    shapes = {own: parameter.shape for own, parameter in net.named_parameters()}
    arrays = {their: nothing(shapes[own]) for own, their in renamed(list(shapes), PUBLISHED[name].rule).items()}
    if name == "voc-fcn8s-atonce":
        arrays |= {f"scale_{skip}.weight": np.array([scale]) for skip, scale in net.skip_scale.items()}
    return arrays


def test_the_layer_of_a_name():
    assert layer_of("trunk.block2.fire2.expand.expand1x1.w") == ("fire2.expand1x1", "weight")
    assert layer_of("trunk.head.fc6.b") == ("fc6", "bias") and layer_of("color.score_fr.w") == (
        "color.score_fr",
        "weight",
    )


@pytest.mark.parametrize(
    ("net", "pairs"),
    [
        ("vgg16", {"trunk.block5.conv5_3.w": "conv5_3.weight", "top.fc8.b": "fc8.bias"}),
        ("squeezenet1_0", {"trunk.block4.fire3.expand.expand3x3.w": "fire3/expand3x3.weight"}),
        (
            "googlenet",
            {
                "trunk.block1.conv1.w": "conv1/7x7_s2.weight",
                "trunk.block2.reduce.w": "conv2/3x3_reduce.weight",
                "trunk.block2.conv2.b": "conv2/3x3.bias",
                "trunk.block3.inception_3a.conv1x1.w": "inception_3a/1x1.weight",
                "trunk.block3.inception_3a.conv3x3.reduce.w": "inception_3a/3x3_reduce.weight",
                "trunk.block4.inception_4e.conv5x5.conv.w": "inception_4e/5x5.weight",
                "trunk.block5.inception_5b.pool.proj.w": "inception_5b/pool_proj.weight",
                "top.fc.w": "loss3/classifier.weight",
            },
        ),
        ("siftflow-fcn8s", {"score_pool4_geo.w": "score_pool4_geo.weight"}),
        ("nyud-fcn32s-color-d", {"trunk.block1.conv1_1.w": "conv1_1_bgrd.weight"}),
        (
            "nyud-fcn32s-color-hha",
            {"hha.score_fr.w": "score_frhha.weight", "color.trunk.head.fc6.w": "fc6color.weight"},
        ),
        (
            "vgg16-torchvision",
            {
                "trunk.block1.conv1_1.w": "features.0.weight",
                "trunk.block2.conv2_1.w": "features.5.weight",
                "trunk.block5.conv5_3.b": "features.28.bias",
                "trunk.head.fc7.w": "classifier.3.weight",
            },
        ),
        ("vgg19-torchvision", {"trunk.block5.conv5_4.w": "features.34.weight", "top.fc8.w": "classifier.6.weight"}),
        ("vgg11-torchvision", {"trunk.block5.conv5_2.w": "features.18.weight"}),
        (
            "alexnet-torchvision",
            {
                "trunk.block2.conv2.w": "features.3.weight",
                "trunk.block5.conv3.w": "features.6.weight",
                "trunk.block5.conv5.w": "features.10.weight",
                "trunk.head.fc6.w": "classifier.1.weight",
            },
        ),
        (
            "squeezenet1_0-torchvision",
            {
                "trunk.block4.fire4.squeeze1x1.w": "features.5.squeeze.weight",
                "trunk.block8.fire5.squeeze1x1.w": "features.7.squeeze.weight",
                "trunk.block9.fire9.expand.expand1x1.b": "features.12.expand1x1.bias",
                "top.conv10.w": "classifier.1.weight",
            },
        ),
        (
            "squeezenet1_1-torchvision",
            {
                "trunk.block5.fire4.squeeze1x1.w": "features.6.squeeze.weight",
                "trunk.block9.fire6.squeeze1x1.w": "features.9.squeeze.weight",
            },
        ),
        (
            "googlenet-torchvision",
            {
                "trunk.block2.reduce.w": "conv2.weight",
                "trunk.block2.conv2.w": "conv3.weight",
                "trunk.block4.inception_4c.conv3x3.reduce.w": "inception4c.branch2.0.weight",
                "trunk.block4.inception_4c.conv5x5.conv.w": "inception4c.branch3.1.weight",
                "trunk.block3.inception_3b.pool.proj.w": "inception3b.branch4.1.weight",
            },
        ),
    ],
)
def test_the_names_there(net, pairs):
    """Names as the files of these libraries have them; each layer has one of its own."""
    own = [name for name, _ in PUBLISHED[net].network().named_parameters()]
    found = renamed(own, PUBLISHED[net].rule)
    assert {name: found[name] for name in pairs} == pairs
    assert len(set(found.values())) == len(own)


@pytest.fixture(scope="module")
def networks():
    """`Published.network`, which here builds each net once: they are compared and never changed."""
    return functools.cache(Published.network)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_net_is_found_by_its_arrays_alone(name, networks, monkeypatch):
    monkeypatch.setattr(Published, "network", lambda *arguments: networks(*arguments))
    arrays = theirs(name)
    if name in TWINS:
        with pytest.raises(
            UsageError, match=r"fits nyud-fcn32s-color and nyud-fcn32s-hha alike; say which with `net=...`"
        ):
            matching("f", arrays)
    fit = matching("f", arrays, net=name if name in TWINS else "")
    assert (fit.net, fit.output, fit.fault) == (name, "", "") and fit.found == fit.wanted == len(fit.arrays)


def test_a_file_may_end_with_the_trunk_or_before():
    arrays = {name: array for name, array in theirs("vgg19").items() if name.startswith(("conv1", "conv2", "conv3"))}
    fit = matching("f", arrays)
    assert (fit.net, fit.output, len(fit.arrays)) == ("vgg19", "pool3", 16)
    arrays = {name: array for name, array in theirs("squeezenet1_1").items() if not name.startswith("conv10")}
    assert matching("f", arrays).output == "fire9"
    del arrays["fire9/expand3x3.bias"]
    with pytest.raises(FormatError, match=r"nearest is squeezenet1_1, .*fire9/expand3x3.bias is missing; .*\(256,\)"):
        matching("f", arrays)


def test_other_numbers_of_classes():
    assert matching("f", theirs("vgg16", classes=5)).classes == 5
    arrays = theirs("voc-fcn32s", classes=6)
    with pytest.raises(FormatError, match=r"score_fr.weight has shape \(6, 4096, 1, 1\); expected \(21, 4096, 1, 1\)"):
        matching("f", arrays)
    assert matching("f", arrays, net="voc-fcn32s").classes == 6
    two = matching("f", theirs("siftflow-fcn32s"), net="siftflow-fcn32s")  # 33 and 3 in every case
    assert two.classes is None and two.arrays["score_fr_sem.b"].shape == (33,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"conv3_2.weight": nothing((256, 256, 5, 5))},
            r"conv3_2.weight has shape \(256, 256, 5, 5\); expected \(256, ",
        ),
        ({"conv4_1.bias": nothing((512,), np.int64)}, "conv4_1.bias has dtype int64; expected floats"),
        ({"conv6_1.weight": nothing((3, 3))}, "conv6_1.weight is no layer of it"),
        ({"fc6.weight": nothing((4096, 25087))}, r"fc6.weight has shape \(4096, 25087\)"),
        ({"conv2_1.weight": None}, r"conv2_1.weight is missing; expected shape \(128, 64, 3, 3\)"),
        ({"conv2_1.weight": None, "conv1_2.bias": nothing((3,))}, "conv1_2.bias has shape"),  # the first of two
    ],
)
@pytest.mark.parametrize("net", ["", "vgg16"])
def test_a_mismatch_is_refused_by_the_first_layer_that_differs(net, change, message):
    arrays = {name: array for name, array in (theirs("vgg16") | change).items() if array is not None}
    with pytest.raises(FormatError, match=message) as refusal:
        matching("odd.npz", arrays, net=net)
    assert str(refusal.value).startswith("odd.npz: ") and "vgg16" in str(refusal.value)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 300


def test_what_is_no_net_at_all():
    with pytest.raises(FormatError, match=r"fits no net known here: no name of a, b ... is a layer of one"):
        matching("f", {"a": nothing((3,)), "b": nothing((3,))})
    with pytest.raises(FormatError, match="does not fit lenet, of which 0 of 8"):
        matching("f", {"a": nothing((3,))}, net="lenet")
    with pytest.raises(UsageError, match="net 'vgg17' is not known; expected one of vgg16"):
        matching("f", {"a": nothing((3,))}, net="vgg17")
    with pytest.raises(FormatError):
        matching("f", {})


def test_fully_connected_layers_in_other_dress():
    """A blob of old Caffe has four sizes; a classifier that was made convolutional has four others."""
    arrays = theirs("caffenet")
    old = {
        name: nothing((1,) * (4 - array.ndim) + array.shape) for name, array in arrays.items()
    }  # (1, 1, O, I), (1, 1, 1, O)
    assert matching("f", old).net == "caffenet"
    convolutional = arrays | {"fc6.weight": nothing((4096, 256, 6, 6)), "fc7.weight": nothing((4096, 4096, 1, 1))}
    fit = matching("f", convolutional)
    assert fit.arrays["trunk.head.fc6.w"].shape == (4096, 9216)
    turned = arrays | {"fc7.weight": nothing((2048, 8192))}
    with pytest.raises(FormatError, match=r"fc7.weight has shape"):
        matching("f", turned)


def test_the_numbers_go_where_they_belong(rng):
    net = PUBLISHED["lenet"].network()
    arrays = {own: rng.standard_normal(p.shape).astype(np.float32) for own, p in net.named_parameters()}
    file = {their: arrays[own] for own, their in renamed(list(arrays), names.caffe).items()}
    blobs = {name.replace(".weight", ".0").replace(".bias", ".1"): array for name, array in file.items()}
    assert list(blobs)[:2] == ["conv1.0", "conv1.1"]
    for found in (file, blobs):
        fit = compare("lenet", found)
        assert not fit.fault and all(np.array_equal(fit.arrays[own], arrays[own]) for own in arrays)


def test_only_blobs_have_numbers():
    assert list(unnumbered({"conv1.0": nothing(()), "conv1.1": nothing(())})) == ["conv1.weight", "conv1.bias"]
    assert list(unnumbered({"a.0.weight": nothing(()), "a.1": nothing(())})) == ["a.0.weight", "a.1"]


def test_what_a_released_fcn_never_learned_is_checked():
    arrays = theirs("voc-fcn8s")
    for name, kernel in (("upscore2", 4), ("upscore_pool4", 4), ("upscore8", 16)):
        dense = np.zeros((21, 21, kernel, kernel), np.float32)
        dense[np.arange(21), np.arange(21)] = bilinear(kernel)
        arrays[f"{name}.weight"] = dense
    assert matching("f", arrays).net == "voc-fcn8s"
    arrays["upscore8.weight"][0, 1, 3, 3] = 0.1
    with pytest.raises(FormatError, match=r"upscore8.weight is not the bilinear interpolation of this net"):
        matching("f", arrays, net="voc-fcn8s")
    arrays["upscore8.weight"][0, 1, 3, 3] = 0
    arrays["upscore2.weight"][2, 2] *= 1.01
    with pytest.raises(FormatError, match=r"upscore2.weight is not"):
        matching("f", arrays, net="voc-fcn8s")
    at_once = theirs("voc-fcn8s-atonce")
    with pytest.raises(FormatError, match=r"scale_pool3.weight is \[0.01\]; expected 0.0001"):
        matching("f", at_once | {"scale_pool3.weight": np.array([0.01])}, net="voc-fcn8s-atonce")


# ---- batch normalisation ------------------------------------------------------------------------------------------


def normalised(rng, name="conv1", shape=(5, 3, 3, 3)):
    count = shape[0]
    return {
        f"{name}.conv.weight": rng.standard_normal(shape).astype(np.float32),
        f"{name}.bn.weight": rng.uniform(0.5, 2, count).astype(np.float32),
        f"{name}.bn.bias": rng.standard_normal(count).astype(np.float32),
        f"{name}.bn.running_mean": rng.standard_normal(count).astype(np.float32),
        f"{name}.bn.running_var": rng.uniform(0.1, 2, count).astype(np.float32),
        f"{name}.bn.num_batches_tracked": np.array(7),
    }


def test_a_folded_normalisation_computes_the_same(rng):
    arrays, x = normalised(rng), rng.standard_normal((2, 3, 9, 8))
    y = ops.conv2d(x, arrays["conv1.conv.weight"].astype(np.float64), None).data
    gain, beta, mean, var = (
        arrays[f"conv1.bn.{part}"].astype(np.float64)[:, None, None]
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    wanted = (y - mean) / np.sqrt(var + 1e-3) * gain + beta
    found = folded({**arrays, "fc.weight": np.ones((2, 2))})
    assert list(found) == ["conv1.weight", "conv1.bias", "fc.weight"]
    w, b = (found[f"conv1.{part}"].astype(np.float64) for part in ("weight", "bias"))
    np.testing.assert_allclose(ops.conv2d(x, w, b).data, wanted, atol=1e-5)
    assert abs(wanted).max() > 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv1.bn.running_var": None}, "conv1.bn.running_var: found nothing; expected one number for each of 5"),
        ({"conv1.bn.bias": np.zeros(4)}, r"conv1.bn.bias: found shape \(4,\)"),
        ({"conv1.bn.running_var": np.full(5, -1.0)}, "conv1.bn.running_var: found -1.0; expected variances"),
    ],
)
def test_an_incomplete_normalisation_is_refused(rng, change, message):
    arrays = {name: array for name, array in (normalised(rng) | change).items() if array is not None}
    with pytest.raises(FormatError, match=message):
        folded(arrays)
    with pytest.raises(FormatError, match=r"f.pth: conv1.bn"):
        matching("f.pth", arrays)


def test_torchvisions_googlenet_is_found_with_its_normalisation_and_its_auxiliary_heads():
    arrays = {}
    for name, array in theirs("googlenet-torchvision").items():
        layer, _, part = name.rpartition(".")
        if layer == "fc":
            arrays[name] = array
        elif part == "weight":
            one = np.broadcast_to(np.ones((), np.float32), array.shape[:1])
            arrays[f"{layer}.conv.weight"] = array
            arrays |= {f"{layer}.bn.{p}": one for p in ("weight", "bias", "running_mean", "running_var")}
    arrays["aux1.conv.conv.weight"] = nothing((128, 512, 1, 1))
    fit = matching("f", arrays)
    assert fit.net == "googlenet-torchvision" and PUBLISHED[fit.net].preprocessing == HALVES
    assert not [name for name in fit.arrays if "bn" in name]


def torch_googlenet(torch, p, x):
    """torchvision's GoogLeNet, from its state dict: normalised, 3x3 in the place of 5x5, a 2x2 pool before 5a."""
    f = torch.nn.functional

    def conv(name, x, **options):
        y = f.conv2d(x, p[f"{name}.conv.weight"], **options)
        bn = [p[f"{name}.bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return f.relu(f.batch_norm(y, *bn, eps=1e-3))

    def pool(x, kernel=3, stride=2, padding=0):
        return f.max_pool2d(x, kernel, stride, padding, ceil_mode=True)

    x = pool(conv("conv1", x, stride=2, padding=3))
    x = pool(conv("conv3", conv("conv2", x), padding=1))
    for block, letters in {3: "ab", 4: "abcde", 5: "ab"}.items():
        for letter in letters:
            n = f"inception{block}{letter}"
            x = torch.cat(
                [
                    conv(f"{n}.branch1", x),
                    conv(f"{n}.branch2.1", conv(f"{n}.branch2.0", x), padding=1),
                    conv(f"{n}.branch3.1", conv(f"{n}.branch3.0", x), padding=1),
                    conv(f"{n}.branch4.1", pool(x, 3, 1, 1)),
                ],
                1,
            )
        x = pool(x) if block == 3 else pool(x, 2) if block == 4 else x
    return x.mean(dim=(2, 3)) @ p["fc.weight"].T + p["fc.bias"]


def test_torchvisions_googlenet_as_in_pytorch(torch, rng):
    net = classifier(GoogLeNet, version="torchvision", width=1, classes=7).eval()
    own = {name: parameter.shape for name, parameter in net.named_parameters()}
    rule = renamed(list(own), names.torchvision_googlenet)
    state = {}
    for name, shape in own.items():
        their = rule[name]
        layer = their.rpartition(".")[0]
        if layer == "fc":
            state[their] = rng.standard_normal(shape).astype(np.float32)
        elif name.endswith(".w"):
            state |= normalised(rng, layer, shape)
    found = folded(state)
    net.load_state_dict({name: found[rule[name]] for name in own})
    x = rng.standard_normal((1, 3, 224, 224)).astype(np.float32)
    with evaluating(net):
        ours = net(x).data
    wanted = torch_googlenet(torch, {n: torch.tensor(a) for n, a in state.items()}, torch.tensor(x)).numpy()
    np.testing.assert_allclose(ours, wanted, rtol=1e-3, atol=1e-3 * abs(wanted).max())


def test_torchvisions_alexnet_as_in_pytorch(torch, rng):
    net = classifier(AlexNet2014, width=2, classes=7).eval()
    own = [name for name, _ in net.named_parameters()]
    p = {their: torch.tensor(net.state_dict()[name]) for name, their in renamed(own, names.torchvision_alexnet).items()}
    x, f = rng.standard_normal((1, 3, 224, 224)).astype(np.float32), torch.nn.functional

    def conv(number, x, **options):
        return f.relu(f.conv2d(x, p[f"features.{number}.weight"], p[f"features.{number}.bias"], **options))

    y = f.max_pool2d(conv(0, torch.tensor(x), stride=4, padding=2), 3, 2)
    y = f.max_pool2d(conv(3, y, padding=2), 3, 2)
    y = f.max_pool2d(conv(10, conv(8, conv(6, y, padding=1), padding=1), padding=1), 3, 2).flatten(1)
    for number in (1, 4, 6):
        y = y @ p[f"classifier.{number}.weight"].T + p[f"classifier.{number}.bias"]
        y = y if number == 6 else f.relu(y)
    with evaluating(net):
        np.testing.assert_allclose(net(x).data, y.numpy(), rtol=1e-4, atol=1e-6)


# ---- what comes along ---------------------------------------------------------------------------------------------


def test_the_weights_that_come_along_are_whole_and_named():
    weights = imagenet_squeezenet()
    assert (weights.net, weights.output, weights.preprocessing) == ("squeezenet1_0", "", BGR)
    assert sum(array.size for array in weights.arrays.values()) == 1_248_424
    classes = imagenet_classes()
    assert len(classes) == 1000 == len(weights.classes)
    assert (classes[0], classes[281], classes[999]) == (
        "tench, Tinca tinca",
        "tabby, tabby cat",
        "toilet tissue, toilet paper, bathroom tissue",
    )


def test_their_licences_lie_beside_them():
    credit = (DATA / "README.md").read_text(encoding="utf-8")
    for file, holder in (("LICENSE-squeezenet.txt", "Iandola"), ("LICENSE-synset_words.txt", "Tencent")):
        text = (DATA / file).read_text(encoding="utf-8")
        assert holder in text and holder in credit.replace("ncnn", "Tencent") and file in credit
        assert "Redistributions in binary form must reproduce" in text and "AS IS" in text
    there = {path.name for path in DATA.iterdir()} - {"README.md", "LICENSE-squeezenet.txt", "LICENSE-synset_words.txt"}
    assert there == {"squeezenet1_0_imagenet.npz", "synset_words.txt"}  # nothing else may come along


def test_what_is_missing_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr("minifcn.weights.published.DATA", tmp_path / "gone")
    monkeypatch.delenv("MINIFCN_DATA", raising=False)
    with pytest.raises(UsageError, match=r"synset_words.txt: found neither in .* nor where MINIFCN_DATA points"):
        shipped("synset_words.txt")
    folder = tmp_path / "weights" / "imagenet"
    folder.mkdir(parents=True)
    (folder / "synset_words.txt").write_bytes(b"n0 a thing\n")
    monkeypatch.setenv("MINIFCN_DATA", str(tmp_path))
    assert imagenet_classes() == ("a thing",)


def test_the_real_backbones_fit(data_root):
    folder = data_root / "weights"
    wanted = {
        "imagenet/squeezenet1_0_imagenet.npz": ("squeezenet1_0", "", 52),
        "imagenet/squeezenet1_1_notop_imagenet_fp16.npz": ("squeezenet1_1", "fire9", 50),
        "imagenet/vgg19_conv1to3_imagenet_fp16.npz": ("vgg19", "pool3", 16),
        "formats/lenet_iter_10000.caffemodel": ("lenet", "", 8),
    }
    for file, (net, output, count) in wanted.items():
        weights = open_weights(folder / file)
        assert (weights.net, weights.output, len(weights.arrays)) == (net, output, count), file
    assert (DATA / "squeezenet1_0_imagenet.npz").read_bytes() == (folder / next(iter(wanted))).read_bytes()


def test_a_weight_set_survives_the_way_through_a_file(tmp_path):
    weights = imagenet_squeezenet()
    weights.save(tmp_path / "w.safetensors")
    again = open_weights(tmp_path / "w.safetensors")
    assert (again.net, again.output, again.classes, again.preprocessing) == (
        weights.net,
        weights.output,
        weights.classes,
        weights.preprocessing,
    )
    assert all(np.array_equal(again.arrays[name], array) for name, array in weights.arrays.items())
    with pytest.raises(FormatError, match="holds weights of squeezenet1_0; expected vgg16"):
        open_weights(tmp_path / "w.safetensors", net="vgg16")


def test_preprocessings_belong_to_who_published():
    for name, published in PUBLISHED.items():
        if name.endswith("torchvision") or name.startswith("fcn_resnet"):
            assert published.preprocessing in (TORCH, HALVES)
        else:
            # HHA stays in the order of its file, and TensorFlow's nets see red first
            order = "RGB" if name.endswith(("-hha", "lite0")) else "BGR"
            assert published.preprocessing is None or published.preprocessing.order == order
    assert str(TORCH) == "RGB, 0..1, less (0.485, 0.456, 0.406), divided by (0.229, 0.224, 0.225)"
    assert str(BGR) == "BGR, 0..255, less (104, 117, 123)"


def test_a_path_may_be_text(tmp_path):
    assert open_weights(str(DATA / "squeezenet1_0_imagenet.npz")).path == Path(DATA / "squeezenet1_0_imagenet.npz")


def test_the_document_names_every_net_and_no_other():
    text = (Path(__file__).parent.parent.parent / "docs" / "weights.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`(\w[^`]+)`", "".join(rows))) == sorted(PUBLISHED)
