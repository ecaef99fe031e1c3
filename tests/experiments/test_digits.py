"""`minifcn digits`: LeNet learns real digits in seconds, and its convolutional twin reads a whole sheet."""

import re
import sys

import numpy as np
import pytest

from minifcn import viz
from minifcn.cli.command import guard
from minifcn.cli.digits import main
from minifcn.data.digits import DIGITS, load_digits
from minifcn.errors import ShapeError, UsageError
from minifcn.experiments import digits
from minifcn.models.classifier import classifier
from minifcn.models.lenet import LeNet
from minifcn.optim import SGD
from minifcn.training.step import accuracy


def test_there_are_1797_digits_of_any_size(sklearn):
    images, labels = load_digits()
    assert (images.shape, images.dtype, labels.dtype) == ((1797, 1, 28, 28), np.float32, np.int64)
    assert images.min() == 0 and 0.9 < images.max() <= 1
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    small, _ = load_digits(8)
    assert np.array_equal(np.unique(small * 16), np.arange(17))  # as in the file
    np.testing.assert_allclose(load_digits(24)[0][:, :, 1::3, 1::3], small, atol=1e-6)  # centres stay where they were


@pytest.mark.slow("trains LeNet on 1,297 digits")
def test_lenet_reads_more_than_95_of_100_digits_it_has_not_seen(sklearn, tmp_path, capsys):
    picture = tmp_path / "digits.png"
    assert main(["--epochs", "4", "--picture", str(picture)]) == 0
    printed = capsys.readouterr().out
    accuracies = [float(number) for number in re.findall(r"accuracy ([\d.]+)", printed)]
    assert len(accuracies) == 4 and accuracies[-1] > 0.95
    found, of = re.search(r"27x60 answers, (\d+) of (\d+) digits right", printed).groups()
    assert int(of) == 18 and int(found) >= 17
    assert float(re.search(r"what the classifier says, to (\S+)", printed)[1]) < 1e-4
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_without_scikit_learn_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(UsageError, match=r"not installed; pip install 'minifcn\[notebooks\]'"):
        load_digits()
    assert guard(main, []) == 2
    assert "scikit-learn" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--epochs", "0"], "option epochs is 0; expected a number from 1 to 1000"),
        (["--rows", "30", "--columns", "30"], "a sheet of 30x30 digits; expected at most 450"),
        (["--seed", "-1"], "option seed is -1"),
    ],
)
def test_the_command_refuses(argv, words, capsys):
    assert guard(main, argv) == 2
    assert words in capsys.readouterr().err


def test_each_digit_lies_whole_where_a_window_looks(rng):
    images = rng.random((5, 1, 28, 28)).astype(np.float32)
    paper, corners = digits.sheet(images, 3, rng)
    assert paper.shape == (1, 1, 88, 132) and not (corners % 4).any()
    for image, (i, j) in zip(images, corners, strict=True):
        assert np.array_equal(paper[0, :, i : i + 28, j : j + 28], image)
    assert paper.sum() == pytest.approx(images.sum(), rel=1e-5)  # and nothing besides


def test_an_epoch_learns_each_digit_once(rng):
    net = classifier(LeNet, width=1, classes=10)
    images, labels = rng.random((10, 1, 28, 28)).astype(np.float32), np.arange(10)
    sgd = SGD(net, lr=0.02)
    losses = [digits.learn(net, sgd, images, labels, 4, rng) for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0] and accuracy(net, [(images, labels)]) > 0.5


def test_heat_maps_want_one_map_for_each_class(rng):
    maps = rng.random((10, 2, 3))
    figure = viz.heat_maps(rng.random((32, 36)), maps, DIGITS, start=13.5, stride=4)
    assert len(figure.axes) == 11
    *_, heat = figure.axes[1].images
    assert heat.get_extent() == [11.5, 23.5, 19.5, 11.5]  # the first of three cells around 13.5
    with pytest.raises(ShapeError, match=r"maps \(9, 2, 3\); expected \(H, W\) and \(10, h, w\)"):
        viz.heat_maps(rng.random((32, 36)), maps[:9], DIGITS)
