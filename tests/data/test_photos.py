"""`minifcn classify` on real photographs: what is on them, where, and what another order of colours makes of it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from minifcn.cli.verbs import main
from minifcn.data.batches import Preprocessing
from minifcn.data.files import read_image, write_image
from minifcn.experiments.classify import class_number, classifier_of, dense, heat_of, middle, softmax
from minifcn.inference import inference
from minifcn.kernels.threads import set_threads
from minifcn.models.alexnet import AlexNet
from minifcn.models.classifier import classifier
from minifcn.models.googlenet import GoogLeNet
from minifcn.nn import evaluating
from minifcn.weights.published import DATA, imagenet_squeezenet, open_weights

PHOTOS = {
    "coffee": ("espresso", 0.93),
    "kitten": ("tabby", 0.57),
    "tiger_cat": ("tiger cat", 0.63),
    "dog": ("golden retriever", 0.39),
    "chelsea": ("Egyptian cat", 0.45),
}


@pytest.fixture(autouse=True)
def _threads():
    yield
    set_threads(None)


def photo_of(tmp_path, size=(240, 320), name="photo.png"):
    rng = np.random.default_rng(3)
    write_image(tmp_path / name, rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    return str(tmp_path / name)


def first(printed):
    """{photo: (share, class)} of the best answers that classify printed."""
    answers, name = {}, ""
    for line in printed.splitlines():
        if not line.startswith(" "):
            name = Path(line).stem
        elif name not in answers:
            share, _, what = line.partition("%")
            answers[name] = (float(share), what.strip())
    return answers


def test_it_knows_five_photographs(data_root, capsys):
    """The classes and shares that an independent forward pass found."""
    assert main(["classify", *(str(data_root / "photos" / f"{name}.jpg") for name in PHOTOS), "--threads", "1"]) == 0
    answers = first(capsys.readouterr().out)
    assert answers.keys() == PHOTOS.keys()
    for name, (what, share) in PHOTOS.items():
        assert answers[name][1].startswith(what) and abs(answers[name][0] - 100 * share) < 1, name


def test_the_wrong_order_of_colours_changes_the_answer(data_root, tmp_path, capsys):
    """The order is read from the checkpoint: with red first in it, coffee is a cup, and the retriever another dog."""
    weights = imagenet_squeezenet()
    right = weights.preprocessing
    wrong = Preprocessing("RGB", right.scale, right.mean[::-1], right.std)
    for name, preprocessing in {"right": right, "wrong": wrong}.items():
        dataclasses.replace(weights, preprocessing=preprocessing).save(tmp_path / f"{name}.safetensors")
    answers = {}
    for name in ("right", "wrong"):
        photos = [str(data_root / "photos" / f"{each}.jpg") for each in ("coffee", "kitten", "dog")]
        assert main(["classify", *photos, "--weights", str(tmp_path / f"{name}.safetensors"), "--threads", "1"]) == 0
        answers[name] = {photo: what for photo, (_, what) in first(capsys.readouterr().out).items()}
    assert answers["right"]["coffee"] == "espresso" and answers["wrong"]["coffee"] == "cup"
    assert all(answers["right"][photo] != answers["wrong"][photo] for photo in answers["right"])


def test_every_format_gives_the_same_answer(data_root, tmp_path, capsys):
    """npz, and what `minifcn convert` makes of it: the weights stay the same to the bit, and so do the shares."""
    photo = str(data_root / "photos" / "coffee.jpg")
    assert main(["convert", str(DATA / "squeezenet1_0_imagenet.npz"), str(tmp_path / "a.safetensors")]) == 0
    printed = []
    for file in (DATA / "squeezenet1_0_imagenet.npz", tmp_path / "a.safetensors"):
        capsys.readouterr()
        assert main(["classify", photo, "--weights", str(file), "--threads", "1"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] and "espresso" in printed[0]


def test_the_heat_is_where_the_cat_is(data_root):
    """A small cat on a large grey wall: it is found where it hangs, and nowhere else."""
    net, preprocessing = classifier_of(imagenet_squeezenet())
    cat = middle(read_image(data_root / "photos" / "kitten.jpg"), 227)
    wall = np.full((560, 700, 3), preprocessing.fill, np.uint8)
    wall[300:527, 60:287] = cat
    heat, start, stride = heat_of(net, preprocessing, wall, 281, scale=1)
    row, column = (start + stride * int(i) for i in np.unravel_index(heat.argmax(), heat.shape))
    assert heat.max() > 0.3 and abs(row - 413) < 227 / 3 and abs(column - 173) < 227 / 3  # its face is above its middle
    assert heat[:5].max() < 0.02 and heat[:, -8:].max() < 0.02  # windows that do not reach the cat


def test_a_heat_map_is_drawn(data_root, tmp_path, capsys):
    out = tmp_path / "heat.png"
    photo = str(data_root / "photos" / "chelsea.jpg")
    assert main(["classify", photo, "--heatmap", "Egyptian cat", str(out), "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    assert "windows, Egyptian cat at most" in printed and f"wrote {out}" in printed
    picture = read_image(out)
    assert picture.shape[1] > 1000 and picture.std() > 20


# ---- without data: the weights come along -------------------------------------------------------------------------


def test_it_answers_from_a_fresh_installation(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("MINIFCN_DATA", raising=False)
    assert main(["classify", photo_of(tmp_path), "--top", "3", "--threads", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[0].endswith("photo.png")
    shares = [float(line.split("%")[0]) for line in lines[1:]]
    assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 100


def test_at_its_own_size_the_dense_classifier_says_the_same(rng):
    """SqueezeNet, whose average becomes a sliding one, and two whose last layers become convolutions."""
    nets = [
        classifier_of(imagenet_squeezenet())[0],
        classifier(AlexNet, width=1, classes=5),
        classifier(GoogLeNet, width=1, classes=5),
    ]
    for net in nets:
        x = rng.standard_normal((1, 3, net.trunk.size, net.trunk.size)).astype(np.float32)
        with evaluating(net):
            y = net(x).data
        windows = dense(net)
        with inference(windows):
            maps = windows(x).data
            larger = windows(np.pad(x, [(0, 0), (0, 0), (0, 64), (0, 32)])).data
        assert maps.shape == (*y.shape, 1, 1)
        np.testing.assert_allclose(maps[..., 0, 0], y, rtol=1e-4, atol=1e-4 * abs(y).max())
        assert larger.shape[2] > larger.shape[3] > 1


def test_heat_lies_where_the_windows_do():
    """A window's middle: at the net's own size the middle of the picture, whatever the scale."""
    net, preprocessing = classifier_of(imagenet_squeezenet())
    image = np.zeros((227, 227, 3), np.uint8)
    heat, start, _ = heat_of(net, preprocessing, image, 0, scale=1)
    assert heat.shape == (1, 1) and start == pytest.approx(113, abs=3.1)  # the border of conv10 is a cell wide
    heat, start, stride = heat_of(net, preprocessing, image, 0, scale=2)
    assert stride == 8 and start == pytest.approx(56.5, abs=2)
    assert start + stride * (heat.shape[0] - 1) == pytest.approx(226 - 56.5, abs=stride)


def test_softmax_of_large_scores():
    shares = softmax(np.array([[1e4, 1e4, -1e4]], np.float32))
    np.testing.assert_allclose(shares, [[0.5, 0.5, 0]])


def test_the_middle_square():
    image = np.zeros((40, 100, 3), np.uint8)
    image[:, 30:70] = 200
    for each in (image, image.transpose(1, 0, 2)):
        assert middle(each, 20).shape == (20, 20, 3) and middle(each, 20)[1:-1, 1:-1].min() == 200


CLASSES = ("tench, Tinca tinca", "tabby, tabby cat", "tiger cat", "catamaran")


@pytest.mark.parametrize(
    ("word", "number"), [("Tabby", 1), ("tinca tinca", 0), ("3", 3), ("tiger", 2), ("catamaran", 3)]
)
def test_a_class_by_name_or_number(word, number):
    assert class_number(word, CLASSES) == number


REFUSED = [
    ("", "expected at least one photograph"),
    ("gone.jpg", "gone.jpg: cannot be opened (No such file or directory)"),
    ("{photo} --top 0", "option top is 0; expected a number of at least 1"),
    ("{photo} --heatmap tabby", "expected a photograph and a .png file"),
    ("{photo} --heatmap tabby out.jpg", "expected a photograph and a .png file"),
    ("{photo} --heatmap tabbi out.png", "class 'tabbi' does not exist; near are tabby"),
    ("{photo} --heatmap qqqqq out.png", "class 'qqqqq' does not exist; nothing is near"),
    ("{photo} --heatmap 1000 out.png", "class 1000 does not exist; expected a number from 0 to 999"),
    ("{photo} --heatmap cat out.png", "class 'cat' may be any of 7: 281 tabby, tabby cat; 282 tiger cat;"),
    ("{photo} --heatmap tabby out.png --scale 40", "pixels are too many; choose a smaller scale"),
    ("{photo} --weights gone.npz", "gone.npz: found no file, expected a file of weights"),
    ("{photo} --weights {photo}", "photo.png: is a picture (PNG); expected a file of weights"),
    ("{photo} --tops 3", "option --tops does not exist; did you mean --top?"),
]


@pytest.mark.parametrize(("argv", "line"), REFUSED)
def test_what_classify_refuses(argv, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    photo_of(tmp_path)
    assert main(["classify", *argv.format(photo="photo.png").split()]) == 2
    said = capsys.readouterr().err
    assert line in said and said.startswith("minifcn: ") and said.count("\n") == 1
    assert not (tmp_path / "out.png").exists()


def test_a_trunk_or_an_fcn_is_no_classifier(data_root, tmp_path, capsys):
    folder = data_root / "weights"
    photo = photo_of(tmp_path)
    trunk = str(folder / "imagenet" / "vgg19_conv1to3_imagenet_fp16.npz")
    assert main(["classify", photo, "--weights", trunk]) == 2
    assert "holds the weights of vgg19 up to pool3 and no classifier" in capsys.readouterr().err
    lenet = str(folder / "formats" / "lenet_iter_10000.caffemodel")
    assert main(["classify", photo, "--weights", lenet]) == 2
    assert "lenet takes no photographs in colour" in capsys.readouterr().err
    assert open_weights(lenet).preprocessing is None
