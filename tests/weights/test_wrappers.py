"""One SqueezeNet in the forms in which people keep state dicts: PyTorch writes each of them, and one net comes back."""

import argparse
import collections
import gzip
import io
import pathlib
import struct
import tarfile
import zipfile
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minifcn.cli.verbs import main
from minifcn.errors import FormatError, MinifcnError, UsageError
from minifcn.formats.files import read
from minifcn.formats.safetensors import packed
from minifcn.weights.published import SQUEEZENET, open_weights, shipped
from minifcn.weights.wrappers import MAX_WRAPPERS, parts_of

NET = "squeezenet1_1-torchvision"


@pytest.fixture(scope="module")
def net(torch: Any) -> Any:
    """The first three modules of SqueezeNet 1.1, which are a trunk of it, by torchvision's names."""
    fires = [torch.nn.Module(), torch.nn.Module()]
    for fire, channels in zip(fires, (64, 128), strict=True):
        fire.squeeze, fire.expand1x1 = torch.nn.Conv2d(channels, 16, 1), torch.nn.Conv2d(16, 64, 1)
        fire.expand3x3 = torch.nn.Conv2d(16, 64, 3, padding=1)
    net = torch.nn.Module()
    net.features = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3, 2), torch.nn.ReLU(), torch.nn.MaxPool2d(3, 2), *fires)
    return net


def forms(torch: Any, net: Any) -> dict[str, tuple[Any, str, str]]:
    """name -> (what is saved, the prefix of the weights in it, what is said to be left aside)"""
    optimizer, schedule = torch.optim.AdamW(net.parameters()), torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    sum(p.sum() for p in net.parameters()).backward()
    optimizer.step(), schedule.step()
    state = net.state_dict()
    half = {name: 0.5 * tensor for name, tensor in state.items()}
    step = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5]).state_dict()

    def under(prefix: str) -> dict[str, Any]:
        return collections.OrderedDict((f"{prefix}.{name}", tensor) for name, tensor in state.items())

    found: dict[str, tuple[Any, str, str]] = {
        "plain": (state, "", ""),
        "a dict": (dict(state), "", ""),
        "parameters": ({name: torch.nn.Parameter(tensor) for name, tensor in state.items()}, "", ""),
        "float64": ({name: tensor.double() for name, tensor in state.items()}, "", ""),
        "channels last": ({n: t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t
                           for n, t in state.items()}, "", ""),
        "a number beside": ({**state, "epoch": torch.tensor(3)}, "", "epoch (1)"),
        "counted by thop": ({**state, "total_ops": torch.zeros(1), "features.0.total_params": torch.zeros(1)}, "",
                            "features (1), total_ops (1)"),
        "AveragedModel": (torch.optim.swa_utils.AveragedModel(net).state_dict(), "module", "n_averaged (1)"),
        "a list": ([state, optimizer.state_dict()], "0", "1 (42)"),
        "a tuple": ((state, 3), "0", ""),
        "argparse": ({"model": state, "args": argparse.Namespace(lr=0.1), "path": pathlib.Path("x")}, "model", ""),
        "NumPy's numbers": ({"model": state, "best": np.float64(0.5), "rng": np.random.get_state()}, "model", ""),
        "defaultdict": ({"model": state, "log": collections.defaultdict(list, {"loss": [0.5]})}, "model", ""),
        "devices": ({"model": state, "device": torch.device("cpu"), "size": torch.Size([3]), "d": torch.float16},
                    "model", ""),
        "optimizer": ({"model": state, "optimizer": optimizer.state_dict(), "epoch": 3}, "model", "optimizer (42)"),
        "momentum": ({"model_state_dict": state, "optimizer_state_dict": schedule.state_dict(),
                      "loss": torch.tensor(1.0)}, "model_state_dict", "optimizer_state_dict (14), loss (1)"),
        "scheduler": ({"model": state, "lr_scheduler": step}, "model", ""),
        "random state": ({"net": state, "rng": torch.get_rng_state()}, "net", "rng (1)"),
        "OpenMMLab": ({"meta": {"CLASSES": ("cat",)}, "state_dict": under("backbone")}, "state_dict.backbone", ""),
        "Lightning": ({"epoch": 1, "pytorch-lightning_version": "2.4", "loops": {}, "hyper_parameters": {"lr": 0.1},
                       "callbacks": {"Early{'min': 0}": {"best_score": torch.tensor(0.5)}},
                       "state_dict": {**under("model"), "criterion.weight": torch.ones(5)},
                       "optimizer_states": [optimizer.state_dict()]}, "state_dict.model",
                      "optimizer_states (42), callbacks (1), state_dict (1)"),
        "an average beside": ({"model": state, "model_ema": half}, "model", "model_ema (14)"),
        "timm's": ({"arch": "x", "state_dict": state, "state_dict_ema": half}, "state_dict", "state_dict_ema (14)"),
        "an average below": ({"state_dict": state, "callbacks": {"EMA": {"ema_state_dict": half}}}, "state_dict",
                             "callbacks.EMA.ema_state_dict (14)"),
        "the average alone": ({"ema": state}, "ema", ""),
    }  # fmt: skip
    for word in ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "module"):
        found[f"in {word}"] = {word: state, "epoch": 3}, word, ""
    for prefix in ("module", "_orig_mod", "model", "net", "module._orig_mod", "_orig_mod.module", "encoder.model"):
        found[f"{prefix}."] = under(prefix), prefix, ""
    return found


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_every_form_of_one_net_is_read(tmp_path: pathlib.Path, torch: Any, net: Any, kind: str) -> None:
    known = forms(torch, net)
    assert len(known) >= 31
    for number, (name, (saved, part, left)) in enumerate(known.items()):
        path, said = tmp_path / f"{number}.pth", []
        torch.save(saved, path, _use_new_zipfile_serialization=kind != "legacy")
        if kind == "safetensors":  # the same names, by its own reader
            arrays = {each: np.ascontiguousarray(array) for each, array in read(path).items()}
            path.write_bytes(packed(arrays, {}))
        weights = open_weights(path, net=NET, say=said.append)
        own = {each: np.asarray(tensor.detach()) for each, tensor in net.state_dict().items()}
        assert np.array_equal(weights.arrays["trunk.block1.conv1.w"], own["features.0.weight"]), name
        assert sum(array.size for array in weights.arrays.values()) == sum(map(np.size, own.values())), name
        assert len(said) == bool(part or left), name
        if said:
            where = f"took the weights in {part}" if part else "took the weights at the top of the file"
            first, aside, *_ = [*said[0].split("; "), ""]
            assert first == f"{path}: {where}", name
            assert set(aside.removeprefix("left aside: ").split(", ")) == set(left.split(", ")), name
            averages = {"an average beside", "an average below", "timm's"}
            assert ("takes the running average" in said[0]) == (name in averages), name


def test_the_net_is_found_below_the_wrapper_too(tmp_path: pathlib.Path, torch: Any, net: Any) -> None:
    torch.save({"state_dict": net.state_dict()}, tmp_path / "a.pth")
    assert open_weights(tmp_path / "a.pth").net == NET
    state = {**net.state_dict(), "features.0.weight": torch.zeros(63, 3, 3, 3)}
    strange = {f"model.{name}": tensor for name, tensor in state.items()}
    torch.save(strange, tmp_path / "b.pth")
    with pytest.raises(FormatError, match=r"nearest is .*squeezenet.*: features.0.weight has shape \(63, 3, 3, 3\)"):
        open_weights(tmp_path / "b.pth")  # what differs is said by the layer's own name


def test_two_nets_in_one_file_are_listed_and_one_is_named(
    tmp_path: pathlib.Path, torch: Any, net: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    state = net.state_dict()
    path, out = str(tmp_path / "a.pth"), str(tmp_path / "out.safetensors")
    torch.save({"student": state, "teacher": {name: 2 * tensor for name, tensor in state.items()}}, path)
    assert main(["convert", path, out, "--net", NET]) == 2
    said = capsys.readouterr().err
    assert f"holds 2 sets of weights: student ({NET}), teacher ({NET}); say which with --part" in said
    assert "converting the file with --part student writes one alone" in said and said.count("\n") == 1
    assert main(["convert", path, out, "--net", NET, "--part", "teacher"]) == 0
    assert "took the weights in teacher; left aside: student (14)" in capsys.readouterr().out
    taken = open_weights(out).arrays["trunk.block1.conv1.w"]
    assert np.array_equal(taken, 2 * state["features.0.weight"].numpy())
    with pytest.raises(UsageError, match="expected one of them, found `part=mother`"):
        open_weights(path, net=NET, part="mother")


def test_inspect_says_where_the_weights_are(
    tmp_path: pathlib.Path, torch: Any, net: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": net.state_dict(), "model_ema": net.state_dict()}, tmp_path / "a.pth")
    assert main(["inspect", str(tmp_path / "a.pth")]) == 0
    said = capsys.readouterr().out
    assert "inside   took the weights in model; left aside: model_ema (14); converting with --part model_ema " in said


def test_names_of_many_dots_take_no_time() -> None:
    deep = {".".join(["a"] * 250 + [f"w{i}.weight"]): np.zeros(1) for i in range(100)}
    assert parts_of(deep, {"a"}) == {}
    inside = ".".join(["a"] * (MAX_WRAPPERS - 1))
    assert list(parts_of({f"{inside}.conv1.weight": np.zeros(1)}, {"conv1"})) == [inside]


def test_a_file_that_holds_one_net_alone_is_read_in_silence() -> None:
    said: list[str] = []
    assert open_weights(shipped(SQUEEZENET), say=said.append).net == "squeezenet1_0" and not said


# ---- files that are no weights -------------------------------------------------------------------------------------


TEXTS = {
    "head": "<head><title>Sign in</title></head>",
    "comment": "<!-- moved --><p>The file is elsewhere",
    "script": "<script>location = '/login'</script>",
    "hawser": "version https://hawser.github.com/spec/v1\noid sha256:00\nsize 3\n",
    "git-media": "version http://git-media.io/v/2\noid sha256:00\nsize 3\n",
    "denied": "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>",
    "pdf": "%PDF-1.5\n",
}
ZIPS = {
    "zip": ["weights/", "weights/README.md", "weights/net.pth"],
    "pt2": ["net/archive_format", "net/models/model.json", "net/data/weights/weight_0"],
    "old pt2": ["version", "serialized_exported_program.json", "serialized_state_dict.pt"],
}


def others(torch: Any, folder: pathlib.Path) -> dict[str, tuple[str, str]]:
    """Write one file of each kind; name -> (what it is called, a word of the cure)."""
    onnx = pytest.importorskip("onnx")
    (folder / "lfs").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    (folder / "html").write_text("\n<!DOCTYPE html><html><head><title>Sign in</title></head></html>")
    (folder / "json").write_text('{"message": "Not Found"}')
    (folder / "xml").write_text('<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>')
    graph = onnx.helper.make_graph([], "g", [], [])
    (folder / "onnx").write_bytes(onnx.helper.make_model(graph, producer_name="pytorch").SerializeToString())
    torch.jit.trace(torch.nn.Conv2d(1, 1, 1), torch.ones(1, 1, 2, 2)).save(str(folder / "torchscript"))
    with zipfile.ZipFile(folder / "keras", "w") as file:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            file.writestr(name, "{}")
    for name, text in TEXTS.items():
        (folder / name).write_text(text)
    for name in ("bare onnx", "onnx with a version"):
        model = onnx.helper.make_model(graph)
        model.doc_string, model.model_version = ("a net", 0) if name == "bare onnx" else ("", 7)
        model.ClearField("producer_name")
        (folder / name).write_bytes(model.SerializeToString())
    for name, kind in {"png": "PNG", "jpeg": "JPEG", "gif": "GIF"}.items():
        Image.new("RGB", (8, 8)).save(folder / name, kind)
    (folder / "yolov3.weights").write_bytes(struct.pack("<iiiq", 0, 2, 0, 32013312) + bytes(400))
    (folder / "yolov1.weights").write_bytes(struct.pack("<iiii", 0, 1, 0, 7) + bytes(400))
    for name, inside in ZIPS.items():
        with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as file:
            for entry in inside:
                file.writestr(entry, "{}" * 9)
    with zipfile.ZipFile(folder / "zip with a comment", "w") as file:  # which PyTorch does not write
        file.writestr("net.pth", "x")
        file.comment = b"by hand"
    (folder / "gzip").write_bytes(gzip.compress(b"weights"))
    np.save(folder / "npy.npy", np.ones(3))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("weights"))
    (folder / "tar").write_bytes(buffer.getvalue())
    (folder / "tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(40))
    (folder / "folder").mkdir()
    (folder / "folder" / "net.pth").touch()
    (folder / "unpacked").mkdir()
    (folder / "unpacked" / "data.pkl").touch()
    (folder / "empty").touch()
    return {
        "lfs": ("a Git LFS pointer", "git lfs pull"),
        "html": ("a web page (HTML)", "download"),
        "json": ("JSON", "look inside"),
        "xml": ("an XML page", "download"),
        "onnx": ("an ONNX model", "state dict"),
        "torchscript": ("a TorchScript program", "torch.jit.load"),
        "keras": ("a .keras archive", "save_weights"),
        **dict.fromkeys(("head", "comment", "script"), ("a web page (HTML)", "download")),
        "hawser": ("a Git LFS pointer", "git lfs pull"),
        "git-media": ("a Git LFS pointer", "git lfs pull"),
        "denied": ("an XML page of an error, such as AccessDenied", "ask its owner for another address"),
        "pdf": ("a document (PDF)", "where the weights are"),
        "bare onnx": ("an ONNX model", "state dict"),
        "onnx with a version": ("an ONNX model", "state dict"),
        "png": ("a picture (PNG)", "the picture to predict"),
        "jpeg": ("a picture (JPEG)", "the picture to predict"),
        "gif": ("a picture (GIF)", "the picture to predict"),
        "yolov3.weights": ("Darknet's weights (YOLO)", "minifcn knows by name"),
        "yolov1.weights": ("Darknet's weights (YOLO)", "minifcn knows by name"),
        "zip": ("a zip archive around weights/net.pth", "unzip"),
        "zip with a comment": ("a zip archive around net.pth", "unzip"),
        "pt2": ("a program of torch.export (.pt2)", "torch.export.load"),
        "old pt2": ("a program of torch.export (.pt2)", "torch.export.load"),
        "gzip": ("compressed by gzip", "gunzip"),
        "npy.npy": ("a single NumPy array (.npy)", "numpy.savez"),
        "tar": ("a tar archive", "tar -xf"),
        "tflite": ("a TensorFlow Lite model", ".safetensors"),
        "folder": ("found something that is no file but a folder", "net.pth for instance"),
        "unpacked": ("found something that is no file but a folder", "zip -0"),
        "empty": ("0 bytes", "fetch the file again"),
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_file_that_is_no_weights_is_called_by_its_name(
    tmp_path: pathlib.Path, torch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, (called, cure) in others(torch, tmp_path).items():
        with pytest.raises(MinifcnError) as caught:
            open_weights(tmp_path / name)
        assert called in str(caught.value) and cure in str(caught.value), caught.value
        assert main(["inspect", str(tmp_path / name)]) == 2
        said = capsys.readouterr()
        assert called in said.err and said.err.count("\n") == 1, said
