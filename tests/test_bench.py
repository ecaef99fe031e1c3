"""The benchmark measures what it says: on tiny nets, where it takes no time. No test asserts a speed."""

import json

import pytest

from minifcn.bench import main, vgg_layers
from minifcn.errors import UsageError
from minifcn.kernels import threads


@pytest.fixture(autouse=True)
def threads_as_before():
    yield
    threads.set_threads(None)


def test_the_layers_are_those_of_fcn8s_at_500():
    layers = {layer.name: layer for layer in vgg_layers(64, 500)}
    assert [
        layers[f"conv{block}_1"].windows.out_size((layers[f"conv{block}_1"].size,) * 2) for block in range(1, 6)
    ] == [
        (698, 698),
        (349, 349),
        (175, 175),
        (88, 88),
        (44, 44),
    ]
    assert (layers["fc6"].size, layers["fc7"].size) == (22, 16)
    assert layers["conv1_2"].multiply_adds == 698**2 * 9 * 64 * 64
    assert len(layers) == 15


def test_layers_are_measured_and_written(tmp_path, capsys):
    path = tmp_path / "layers.json"
    words = ["layers", "--size", "12", "--width", "2", "--runs", "1", "--only", "conv1_1,conv5_3,fc6", "--no-torch"]
    assert main([*words, "--way", "winograd", "--threads", "2", "--json", str(path)]) == 0
    record = json.loads(path.read_text())
    assert [(row["layer"], row["product"]) for row in record["rows"][:4]] == [
        ("conv1_1", "forward"),
        ("conv1_1", "grad_x"),
        ("conv1_1", "grad_w"),
        ("conv5_3", "forward"),
    ]
    assert [row["way"] for row in record["rows"]] == ["winograd"] * 6 + ["blocks"] * 3
    assert all(row["ms"] > 0 for row in record["rows"])
    assert "conv5_3" in capsys.readouterr().out


@pytest.mark.parametrize("padding", ["100", "same"])
def test_whole_nets_agree_with_the_rival(padding, capsys):
    pytest.importorskip("torch")
    words = ["nets", "--size", "33", "--width", "1", "--runs", "1", "--threads", "1", "--padding", padding]
    assert main(words) == 0
    assert "training step" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "expected: bench nets, or: bench layers"),
        (["layers", "--way", "fft"], "option way is 'fft'; expected one of im2col, blocks, winograd"),
        (["layers", "--only", "conv9_9", "--no-torch"], "option only names 'conv9_9'"),
        (["nets", "--runs", "0"], "option runs is 0; expected at least 1"),
        (["nets", "--padding", "7"], "option padding is '7'; expected 100 or same"),
    ],
)
def test_what_cannot_be_measured_is_refused(words, message):
    with pytest.raises(UsageError) as refusal:
        main(words)
    assert message in str(refusal.value)
