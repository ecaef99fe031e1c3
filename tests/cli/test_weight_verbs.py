"""`minifcn inspect`, `convert` and `export`: what they say, what they write, and that others can use it."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from minifcn.cli.verbs import main
from minifcn.data.batches import CAFFE, Preprocessing
from minifcn.errors import FormatError, MinifcnError, UsageError
from minifcn.formats.checkpoint import save_checkpoint
from minifcn.formats.files import FORMATS, format_of, read
from minifcn.models.alexnet import AlexNet
from minifcn.models.classifier import classifier
from minifcn.models.fcn import FCN8s, FCN16s, fcn
from minifcn.models.googlenet import GoogLeNet
from minifcn.models.paper import AT_ONCE, ParseNet
from minifcn.models.squeezenet import SqueezeNet
from minifcn.models.vgg import VGG
from minifcn.nn import Module, evaluating
from minifcn.training import setup
from minifcn.training.options import from_dict
from minifcn.training.trained import open_trained
from minifcn.weights.onnx_graph import onnx_model, smallest
from minifcn.weights.published import DATA, WeightSet, open_weights
from minifcn.weights.torch_state import torch_state

NPZ = str(DATA / "squeezenet1_0_imagenet.npz")
PHOTO = Preprocessing("BGR", 1.0, (1.5, 2.5, 3.5), (4.0, 5.0, 6.0))


def lively(net, seed=1):
    """`net` with numbers everywhere: score layers and biases begin at zero, and would hide what is done to them."""
    rng = np.random.default_rng(seed)
    for name, parameter in net.named_parameters():
        if name.endswith(".b") or "score" in name:
            parameter.data = (rng.standard_normal(parameter.shape) * 0.1).astype(np.float32)
    return net


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder as `minifcn train` leaves it, with an untrained net."""
    folder = tmp_path_factory.mktemp("run")
    options = from_dict({"width": 2, "seed": 3}, source="here")
    classes = [f"thing {i}" for i in range(5)]
    net = lively(setup.network(options, 5, 8))
    meta = {
        "options": options.as_dict(),
        "classes": classes,
        "preprocessing": PHOTO.as_dict(),
        "stride": 8,
        "progress": {"step": 7},
    }
    (folder / "checkpoints").mkdir()
    arrays = {f"net.{name}": array for name, array in net.state_dict().items()}
    save_checkpoint(folder / "checkpoints" / "step-00000007.safetensors", arrays, meta)
    return folder


# ---- which format is it? -----------------------------------------------------------------------------------------


def zip_head(name):
    return b"PK\x03\x04" + struct.pack("<5H3L2H", 20, 0, 0, 0, 0, 0, 0, 0, len(name), 0) + name


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (zip_head(b"conv1.weight.npy") + b"\x93NUMPY", "npz"),
        (zip_head(b"archive/data.pkl") + b"\x80\x02}", "torch_zip"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "torch_legacy"),
        (b"\x40\x00\x00\x00\x00\x00\x00\x00" + b'{"a":', "safetensors"),
        (b"\x80\x05\x00\x00\x00\x00\x00\x00" + b'{"a":', "safetensors"),  # a length that looks like a pickle
        (b"\x89HDF\r\n\x1a\n\x00", "h5"),
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x01IM", "mat"),
        (b"MATLAB 7.3 MAT-file".ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n", "mat"),
        (b"\x0a\x05LeNet\xa2\x06\x10", "caffemodel"),
        (b"\x12\x84\x01\x0a\x07", "caffemodel"),
        (b"\xa2\x06\x10\x0a\x05conv1\x12\x0bConvolution", "caffemodel"),
        (b'\nname: "LeNet"\nlayer {\n', "prototxt"),
    ],
)
def test_the_first_bytes_decide_and_not_the_name(head, kind, tmp_path):
    for name in ("weights.npz", "weights.pth", "weights"):
        (tmp_path / name).write_bytes(head)
        assert format_of(tmp_path / name) == kind


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x89PNG\r\n\x1a\n", "is a picture (PNG); expected a file of weights"),
        (b"\xff\xd8\xff\xe0", "is a picture (JPEG); expected a file of weights"),
        (b"\x00" * 40, "found the first bytes"),
        (b"N6\x00\x00\xf8\x05\x00\x00", "found the first bytes"),
    ],
)
def test_other_files_are_refused_in_one_line(content, says, tmp_path, capsys):
    (tmp_path / "weights.npz").write_bytes(content)
    assert main(["inspect", str(tmp_path / "weights.npz")]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_every_real_file_is_recognised_and_read(data_root, h5py, scipy_io):
    folder, seen = data_root / "weights", set()
    refused = {"mat73_testfile1.mat"}  # object references and NaN
    for path in sorted([*(folder / "formats").iterdir(), *(folder / "imagenet").glob("*.npz")]):
        kind = format_of(path)
        seen.add(kind)
        wanted = {".pth": "torch_legacy", ".pt": "torch_zip"}.get(path.suffix, path.suffix[1:])
        assert kind == wanted, path
        if path.name in refused:
            with pytest.raises(FormatError):
                read(path)
        else:
            assert any(array.size for array in read(path).values()), path
    assert seen == set(FORMATS) - {"h5", "prototxt"}


# ---- inspect and convert ------------------------------------------------------------------------------------------


def test_inspect_tells_the_arrays_and_the_net(capsys):
    assert main(["inspect", NPZ, "--most", "2"]) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0] == f"{NPZ}: NumPy arrays (npz), 926,077 bytes" and lines[1] == "52 arrays, 1,248,424 numbers"
    assert lines[4].split()[:3] == ["conv1.weight", "96x3x7x7", "float32"] and lines[4].split()[-1] == "0"
    assert "... and 50 more (--most 0 lists all)" in lines
    assert lines[-2].split(None, 1) == ["net", "squeezenet1_0, 1000 classes: 52 arrays, 1,248,424 parameters"]
    assert lines[-1].split(None, 1) == ["images", "BGR, 0..255, less (104, 117, 123)"]


def test_inspect_counts_what_is_not_finite(tmp_path, capsys):
    odd = np.array([[1.0, np.nan], [-np.inf, 3.0]])
    np.savez(tmp_path / "odd.npz", odd=odd, none=np.full(3, np.nan), whole=np.arange(4), yes=np.array([True, False]))
    assert main(["inspect", str(tmp_path / "odd.npz")]) == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line}
    assert rows["odd"] == ["odd", "2x2", "float64", "1", "3", "2"]
    assert rows["none"] == ["none", "3", "float64", "3"] and rows["whole"][3:] == ["0", "3", "0"]
    assert rows["yes"] == ["yes", "2", "bool", "0", "1", "0"]
    assert rows["net"][1:4] == ["fits", "no", "net"]


def test_inspect_knows_our_own_files(run, tmp_path, capsys):
    assert main(["inspect", str(run / "checkpoints" / "step-00000007.safetensors")]) == 0
    printed = capsys.readouterr().out
    assert "FCN-8s, a checkpoint of `minifcn train`" in printed and str(PHOTO) in printed
    open_weights(NPZ).save(tmp_path / "s.safetensors")
    assert main(["inspect", str(tmp_path / "s.safetensors")]) == 0
    assert "squeezenet1_0, 1000 classes" in capsys.readouterr().out


def test_inspect_lists_a_prototxt(tmp_path, capsys):
    text = (
        'name: "n"\nlayer { name: "conv1" type: "Convolution" convolution_param { num_output: 64 kernel_size: 3 } }\n'
    )
    (tmp_path / "net").write_text(text)
    assert main(["inspect", str(tmp_path / "net")]) == 0
    assert "conv1  Convolution" in capsys.readouterr().out


def test_convert_writes_what_classify_and_inspect_read(tmp_path, capsys):
    out = tmp_path / "w.safetensors"
    assert main(["convert", NPZ, str(out), "--net", "squeezenet1_0"]) == 0
    printed = capsys.readouterr().out
    assert "squeezenet1_0, 1000 classes" in printed and "BGR, 0..255" in printed and f"wrote {out}" in printed
    weights = open_weights(out)
    original = read(NPZ)
    assert np.array_equal(weights.arrays["trunk.block4.fire2.squeeze1x1.w"], original["fire2/squeeze1x1.weight"])
    assert len(weights.classes) == 1000 and weights.preprocessing.order == "BGR"


def test_convert_as_it_is(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", x=np.arange(6.0).reshape(2, 3).T, y=np.float16(3) * np.ones(2, np.float16))
    out = tmp_path / "w.safetensors"
    assert main(["convert", str(tmp_path / "a.npz"), str(out), "--plain"]) == 0
    arrays = read(out)
    assert np.array_equal(arrays["x"], np.arange(6.0).reshape(2, 3).T) and arrays["y"].dtype == np.float16


REFUSED = [
    ("convert", "convert: found 'nothing'; expected: minifcn convert IN OUT.safetensors"),
    ("convert {npz} out.npz", "out.npz: expected a name that ends in .safetensors"),
    ("convert gone.npz out.safetensors", "gone.npz: found no file"),
    (
        "convert {npz} out.safetensors --net vgg16",
        "does not fit vgg16, of which 0 of 32 arrays fit: none of its layers",
    ),
    ("convert {npz} out.safetensors --net vgg17", "net 'vgg17' is not known; expected one of vgg16"),
    ("convert odd.npz out.safetensors", "odd.npz: fits no net known here"),
    ("convert nan.npz out.safetensors --plain", "nan.npz: x: found NaN or infinity"),
    ("convert same.safetensors same.safetensors", "is the file to read"),
    ("inspect", "inspect: found 'nothing'; expected: minifcn inspect FILE"),
    ("inspect .", "found something that is no file"),
    ("export", "expected: minifcn export RUN FILE"),
    ("export {run} out.pb", "out.pb: expected a name that ends in .onnx or .safetensors"),
    ("export gone out.safetensors", "gone: found no such run folder or checkpoint"),
    ("export odd.npz out.safetensors", "odd.npz: fits no net known here"),
    ("export {run} nowhere/out.safetensors", "nowhere/out.safetensors: cannot be saved"),
]


@pytest.mark.parametrize(("argv", "line"), REFUSED)
def test_what_is_refused(argv, line, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "odd.npz", x=np.ones(3, np.float32))
    np.savez(tmp_path / "nan.npz", x=np.full(3, np.nan))
    (tmp_path / "same.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    assert main(argv.format(npz=NPZ, run=run).split()) == 2
    said = capsys.readouterr().err
    assert line in said and said.startswith("minifcn: ") and said.count("\n") == 1
    assert not list(tmp_path.glob("out*"))


def test_nan_is_taken_when_it_is_asked_for(tmp_path):
    np.savez(tmp_path / "nan.npz", x=np.full(3, np.nan))
    out = tmp_path / "w.safetensors"
    assert main(["convert", str(tmp_path / "nan.npz"), str(out), "--plain", "--allow-nonfinite"]) == 0
    assert np.isnan(read(out, allow_nonfinite=True)["x"]).all()


def test_converted_weights_are_hostile_until_they_are_checked(tmp_path):
    def saved(**changes):
        known = {"net": "lenet", "output": "", "classes": ["a"], "source": "x"}
        meta = {"weights": known, "preprocessing": None} | changes
        save_checkpoint(tmp_path / "w.safetensors", {"x": np.ones(3)}, meta)
        return tmp_path / "w.safetensors"

    assert open_weights(saved()).net == "lenet"
    with pytest.raises(FormatError, match=r"w\.safetensors: these parameters are not this network's"):
        open_weights(saved()).network()
    for change in (
        {"weights": 3},
        {"weights": {"net": "lenet"}},
        {"weights": {"net": "no such net", "output": "", "classes": []}},
        {"weights": {"net": "vgg16", "output": "", "classes": ["a"] * 100_001}},
        {"preprocessing": {"order": "GBR"}},
        {"preprocessing": 3},
    ):
        with pytest.raises(FormatError, match=r"w\.safetensors"):
            open_weights(saved(**change))


# ---- a released FCN, from its file to a prediction ------------------------------------------------------------------


def test_an_fcn_of_others_predicts_with_its_own_preprocessing(tmp_path, monkeypatch, capsys):
    """The file's preprocessing decides: the same weights with red first see other classes."""
    from minifcn.data.files import read_mask, write_image
    from minifcn.weights import published as pretrained

    thin = pretrained.Published(lambda **o: FCN16s(width=2, layers=11, **o), pretrained.names.caffe, CAFFE)
    monkeypatch.setitem(pretrained.PUBLISHED, "voc-fcn16s", thin)
    net = lively(FCN16s(width=2, layers=11, seed=5))
    write_image(tmp_path / "p.png", np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    masks = {}
    for order in ("BGR", "RGB"):
        preprocessing = Preprocessing(order, 1.0, (104.0, 117.0, 123.0), (1.0, 1.0, 1.0))
        classes = tuple(f"class {i}" for i in range(21))
        weights = WeightSet(Path("x"), "voc-fcn16s", "", classes, preprocessing, net.state_dict())
        weights.save(tmp_path / f"{order}.safetensors")
        assert open_trained(tmp_path / f"{order}.safetensors").preprocessing == preprocessing
        argv = ["predict", str(tmp_path / f"{order}.safetensors"), str(tmp_path / "p.png")]
        assert main([*argv, "--out", str(tmp_path / order), "--threads", "1"]) == 0
        masks[order] = read_mask(tmp_path / order / "p-mask.png", classes=21)
    assert masks["BGR"].shape == (40, 50) and (masks["BGR"] != masks["RGB"]).mean() > 0.01
    with pytest.raises(UsageError, match="does not label the pixels"):
        open_trained(NPZ)


# ---- export ---------------------------------------------------------------------------------------------------------

NETS = {
    "FCN-8s, no border": lambda: FCN8s(width=2, layers=11, classes=5),
    "FCN-8s, padding 100": lambda: FCN8s(width=1, layers=11, classes=5, padding=100),
    "at once": lambda: FCN8s(width=2, layers=11, classes=5, skip_scale=AT_ONCE),
    "maximum": lambda: FCN8s(width=2, layers=11, classes=5, fusion="max"),
    "concatenation": lambda: FCN8s(width=2, layers=11, classes=5, fusion="concat"),
    "learned upsampling": lambda: FCN8s(width=2, layers=11, classes=5, upsampling="all learned"),
    "two heads": lambda: FCN16s(width=2, layers=11, classes={"sem": 4, "geo": 3}),
    "AlexNet": lambda: fcn(AlexNet, 32, width=1, classes=5),
    "GoogLeNet": lambda: fcn(GoogLeNet, 8, width=1, classes=5),
    "SqueezeNet 1.0": lambda: fcn(SqueezeNet, 4, width=2, classes=5),
    "SqueezeNet 1.1": lambda: fcn(SqueezeNet, 8, width=2, classes=5, version="1.1"),
    "global context": lambda: ParseNet(width=1, layers=11, classes=5),
    "pool4 alone": lambda: fcn(lambda **o: VGG(**o).until("pool4"), (), width=1, layers=11, classes=5, padding=1),
}


@pytest.mark.parametrize("name", NETS)
def test_onnxruntime_computes_the_same_at_every_size(name, onnxruntime):
    """Three sizes, none of which the graph has seen: it was read from the modules, and no image went through."""
    net = lively(NETS[name]())
    model = onnx_model(net, classes=["a"], metadata={})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for height, width in ((64, 64), (97, 50), (45, 131)):
        x = rng.standard_normal((2, 3, height, width)).astype(np.float32)
        with evaluating(net):
            ours = net(x)
        ours = (
            {f"scores_{head}": y.data for head, y in ours.items()} if isinstance(ours, dict) else {"scores": ours.data}
        )
        theirs = dict(zip(ours, session.run(list(ours), {"image": x}), strict=True))
        for output, y in ours.items():
            assert y.shape == theirs[output].shape and abs(y).max() > 1e-3
            np.testing.assert_allclose(theirs[output], y, rtol=1e-4, atol=1e-4 * min(1, abs(y).max()))


@pytest.mark.parametrize("name", NETS)
def test_onnxruntime_computes_the_same_on_images_from_one_pixel_on(name, onnxruntime):
    """Where a map is smaller than the window of a pool, ONNX Runtime failed, or ended the whole process."""
    net = lively(NETS[name]())
    model = onnx_model(net, classes=["a"], metadata={})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["smallest"]) == 1
    rng = np.random.default_rng(0)
    for height, width in [(1, 1), (1, 40), (40, 1), (33, 2), *((side, side) for side in range(2, 34))]:
        x = rng.standard_normal((1, 3, height, width)).astype(np.float32)
        with evaluating(net):
            ours = net(x)
        ours = ours["sem"].data if isinstance(ours, dict) else ours.data
        np.testing.assert_allclose(session.run(None, {"image": x})[0], ours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("trunk", [VGG, AlexNet, GoogLeNet])
def test_a_classifier_declares_its_one_size(trunk, onnxruntime):
    model = onnx_model(classifier(trunk, width=1, classes=5), classes=["a"], metadata={})
    session = onnxruntime.InferenceSession(model.SerializeToString())
    assert session.get_inputs()[0].shape[2:] == [trunk.size, trunk.size]
    with pytest.raises(Exception, match="invalid dimensions"):
        session.run(None, {"image": np.zeros((1, 3, trunk.size - 1, trunk.size), np.float32)})


@pytest.mark.parametrize("side", [20, 21, 22, 40])
def test_a_classifier_of_any_size_states_its_smallest(side, onnxruntime):
    net = lively(classifier(SqueezeNet, width=1, classes=5))
    least = smallest(net)
    session = onnxruntime.InferenceSession(onnx_model(net, classes=["a"], metadata={}).SerializeToString())
    assert json.loads(session.get_modelmeta().custom_metadata_map["smallest"]) == least
    x = np.random.default_rng(0).standard_normal((1, 3, least + side - 20, least)).astype(np.float32)
    with evaluating(net):
        np.testing.assert_allclose(session.run(None, {"image": x})[0], net(x).data, rtol=1e-4, atol=1e-4)
        if least > 1:
            with pytest.raises(MinifcnError):
                net(x[:, :, :, : least - 1])


@pytest.mark.parametrize("trunk", [VGG, AlexNet, GoogLeNet, SqueezeNet])
def test_classifiers_are_graphs_as_well(trunk, onnxruntime):
    net = lively(classifier(trunk, width=1, classes=5))
    session = onnxruntime.InferenceSession(onnx_model(net, classes=["a"], metadata={}).SerializeToString())
    x = np.random.default_rng(0).standard_normal((2, 3, trunk.size, trunk.size)).astype(np.float32)
    with evaluating(net):
        y = net(x).data
    np.testing.assert_allclose(session.run(["scores"], {"image": x})[0], y, rtol=1e-4, atol=1e-4)


def test_export_of_a_run(run, onnxruntime, tmp_path, capsys):
    out = tmp_path / "model.onnx"
    assert main(["export", str(run), str(out)]) == 0
    printed = capsys.readouterr().out
    assert "any H and W" in printed and str(PHOTO) in printed and f"wrote {out}" in printed
    session = onnxruntime.InferenceSession(str(out))
    notes = session.get_modelmeta().custom_metadata_map
    trained = open_trained(run)
    assert Preprocessing.from_dict(json.loads(notes["preprocessing"])) == trained.preprocessing == PHOTO
    assert json.loads(notes["classes"]) == list(trained.classes)
    x = np.random.default_rng(0).standard_normal((1, 3, 70, 90)).astype(np.float32)
    with evaluating(trained.net):
        np.testing.assert_allclose(session.run(None, {"image": x})[0], trained.net(x).data, rtol=1e-4, atol=1e-4)


def test_what_has_no_form_in_onnx_is_said(onnxruntime):
    class Strange(Module):
        def forward(self, x):
            return x

    net = fcn(SqueezeNet, 8, width=1, classes=2)
    net.trunk.add("strange", "strange", Strange(), net.trunk.channels[net.trunk.last])
    with pytest.raises(UsageError, match=r"Strange cannot be written as ONNX; export to .safetensors instead"):
        onnx_model(net, classes=["a"], metadata={})


def test_without_onnx_export_says_what_to_install(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    assert main(["export", str(run), str(tmp_path / "m.onnx")]) == 2
    assert "pip install 'minifcn[interop]'" in capsys.readouterr().err


def test_a_state_dict_has_plain_names(run, tmp_path, capsys):
    out = tmp_path / "state.safetensors"
    assert main(["export", str(run), str(out)]) == 0
    arrays, net = read(out), open_trained(run).net
    assert list(torch_state(net)) and set(arrays) == set(torch_state(net))
    assert {"conv1_1.weight", "fc6.bias", "score_fr.weight", "score_pool4.bias", "upscore8.weight"} <= set(arrays)
    assert np.array_equal(arrays["conv1_1.weight"], net.state_dict()["trunk.block1.conv1_1.w"])
    assert arrays["upscore2.weight"].shape == (5, 1, 4, 4)
    header = out.read_bytes()
    notes = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"]
    assert Preprocessing.from_dict(json.loads(notes["preprocessing"])) == PHOTO and notes["format"] == "pt"


def test_pytorch_loads_the_state_dict_and_computes_the_same(run, torch, tmp_path):
    """FCN-8s as one would write it in PyTorch, every layer under the name that the file has."""
    from safetensors.torch import load_file

    nn, crop = torch.nn, lambda x, like: x[:, :, : like.shape[2], : like.shape[3]]

    class Twin(nn.Module):
        def __init__(self, wide, classes):
            super().__init__()
            blocks, incoming = ((1, wide), (1, 2 * wide), (2, 4 * wide), (2, 8 * wide), (2, 8 * wide)), 3
            for block, (depth, outgoing) in enumerate(blocks, 1):
                for i in range(1, depth + 1):
                    setattr(self, f"conv{block}_{i}", nn.Conv2d(incoming, outgoing, 3, padding=1))
                    incoming = outgoing
            self.fc6 = nn.Conv2d(incoming, 64 * wide, 7, padding=3)
            self.fc7 = nn.Conv2d(64 * wide, 64 * wide, 1)
            self.score_fr = nn.Conv2d(64 * wide, classes, 1)
            self.score_pool4 = nn.Conv2d(8 * wide, classes, 1)
            self.score_pool3 = nn.Conv2d(4 * wide, classes, 1)
            for name, factor in (("upscore2", 2), ("upscore_pool4", 2), ("upscore8", 8)):
                up = nn.ConvTranspose2d(
                    classes, classes, 2 * factor, stride=factor, padding=factor // 2, groups=classes, bias=False
                )
                setattr(self, name, up)

        def forward(self, image):
            x, pools = image, []
            for block, depth in enumerate((1, 1, 2, 2, 2), 1):
                for i in range(1, depth + 1):
                    x = getattr(self, f"conv{block}_{i}")(x).relu()
                x = nn.functional.max_pool2d(x, 2, ceil_mode=True)
                pools.append(x)
            x = self.upscore2(self.score_fr(self.fc7(self.fc6(x).relu()).relu()))
            x = crop(x, pools[3]) + self.score_pool4(pools[3])
            x = self.upscore_pool4(x)
            x = crop(x, pools[2]) + self.score_pool3(pools[2])
            return crop(self.upscore8(x), image)

    out = tmp_path / "state.safetensors"
    assert main(["export", str(run), str(out)]) == 0
    net, twin = open_trained(run).net, Twin(2, 5).eval()
    twin.load_state_dict(load_file(out))  # strict: every name and every shape
    x = np.random.default_rng(0).standard_normal((1, 3, 70, 91)).astype(np.float32)
    with evaluating(net), torch.no_grad():
        ours, theirs = net(x).data, twin(torch.tensor(x)).numpy()
    assert abs(ours).max() > 0.01
    np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)


def test_weights_of_others_are_exported_as_well(tmp_path):
    out = tmp_path / "state.safetensors"
    assert main(["export", NPZ, str(out)]) == 0
    arrays = read(out)
    assert len(arrays) == 52
    assert np.array_equal(arrays["fire2.expand1x1.weight"], read(NPZ)["fire2/expand1x1.weight"])
