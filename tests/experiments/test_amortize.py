"""`minifcn amortize`: it times the same windows both ways, and says what it cannot do."""

from pathlib import Path

import numpy as np
import pytest

from minifcn.cli.amortize import main
from minifcn.cli.command import guard
from minifcn.data import CAFFE
from minifcn.data.files import read_image, write_image
from minifcn.errors import DataError
from minifcn.experiments.amortize import backward_of, square, windows
from minifcn.models.alexnet import AlexNet
from minifcn.models.classifier import classifier
from minifcn.models.lenet import LeNet
from minifcn.surgery import convolutionalize


def test_it_prints_three_ways_and_two_speed_ups(capsys):
    assert main(["--net", "lenet", "--width", "1", "--size", "40", "--batch", "5"]) == 0
    printed = capsys.readouterr().out
    assert "lenet, random weights: 4x4 windows of 28 pixels, one every 4, in 40x40 of noise" in printed
    rows = [line for line in printed.splitlines() if line.endswith(("ms", "x"))]
    assert [row.split("  ")[0] for row in rows] == [
        "patch by patch",
        "5 patches at a time",
        "all at once",
        "faster than patch by patch",
        "faster than 5 patches at a time",
    ]
    times = [[float(word) for word in row.replace("x", "").split() if word[0].isdigit()][-2:] for row in rows]
    assert all(min(row) > 0 for row in times)


def test_the_speed_ups_are_quotients_of_the_times(monkeypatch, capsys):
    times = {"patch by patch": (0.1, 0.24), "5 patches at a time": (0.05, 0.06), "all at once": (0.004, 0.008)}
    monkeypatch.setattr("minifcn.cli.amortize.measure", lambda net, image, **options: times)
    assert main(["--net", "lenet", "--width", "1", "--size", "40", "--batch", "5"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.endswith(("ms", "x"))]
    assert [row[-4:] for row in rows[:3]] == [
        ["100.0", "ms", "240.0", "ms"],
        ["50.0", "ms", "60.0", "ms"],
        ["4.0", "ms", "8.0", "ms"],
    ]
    assert [row[-2:] for row in rows[3:]] == [["25.0x", "30.0x"], ["12.5x", "7.5x"]]


def test_both_ways_answer_the_same_windows(rng):
    net = classifier(LeNet, width=1, classes=3).astype(np.float64)
    image = rng.standard_normal((1, 1, 40, 40))
    patches, answers = windows(image, net), convolutionalize(net)(image).data
    assert patches.shape == (16, 1, 28, 28)
    np.testing.assert_allclose(net(patches).data, answers[0].reshape(3, 16).T, rtol=1e-11, atol=1e-12)


def test_a_window_that_hangs_over_is_filled_with_zeros():
    net = classifier(AlexNet, width=1, classes=2)
    patches = windows(np.ones((1, 3, 500, 500), np.float32), net)
    assert patches.shape == (100, 3, 227, 227)
    assert (
        patches[0].all()
        and patches[88].all()
        and not patches[-1, :, -15:, :].any()
        and patches[-1, :, :-15, :-15].all()
    )


def test_the_gradients_of_a_timing_are_not_left_behind(rng):
    net = classifier(LeNet, width=1, classes=3)
    assert backward_of(net, rng.standard_normal((1, 1, 28, 28)).astype(np.float32)) > 0
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--net", "squeezenet"],
            "option net is 'squeezenet'; expected one of vgg11, vgg13, vgg16, vgg19, alexnet, googlenet, lenet",
        ),
        (["--size", "226"], "option size is 226; expected at least 227, what alexnet looks at"),
        (["--batch", "0"], "option batch is 0; expected a number of at least 1"),
        (["--repeat", "-1"], "option repeat is -1; expected a number of at least 1"),
        (["--width", "-1"], "AlexNet: width is -1"),
    ],
)
def test_what_cannot_be_timed_is_refused(argv, message, capsys):
    assert guard(main, argv) == 2
    assert message in capsys.readouterr().err


def test_a_photograph_takes_the_place_of_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = np.zeros((40, 90, 3), np.uint8)
    picture[:, 25:65] = (255, 0, 0)  # the middle square is red
    write_image(tmp_path / "red.png", picture)
    photo = str(tmp_path / "red.png")
    x = square(classifier(AlexNet, width=1), read_image(photo), 64)
    assert x.shape == (1, 3, 64, 64) and x.dtype == np.float32
    blue_first = np.array([0, 0, 255]) - np.array(CAFFE.mean)
    assert np.allclose(x, blue_first[:, None, None], atol=1e-3)
    assert main(["--net", "lenet", "--width", "1", "--size", "32", "--photo", photo]) == 0
    assert "red.png" in capsys.readouterr().out
    with pytest.raises(DataError, match=r"nowhere\.jpg"):
        main(["--net", "lenet", "--width", "1", "--size", "32", "--photo", "nowhere.jpg"])
