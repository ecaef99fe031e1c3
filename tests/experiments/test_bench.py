"""The benchmark measures what it says: on tiny nets, where it takes no time. No test asserts a speed."""

import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys
import weakref

import numpy as np
import pytest

from minifcn import ops
from minifcn.cli import bench
from minifcn.cli.bench import main
from minifcn.errors import MinifcnError, UsageError
from minifcn.experiments.bench import loading, studies
from minifcn.experiments.bench.rival import layouts, torch_net
from minifcn.experiments.bench.scaling import prediction, sum_seconds
from minifcn.experiments.bench.stopwatch import Elsewhere, extra_bytes, peak_bytes, serve
from minifcn.experiments.bench.studies import (
    PRODUCTS,
    Layer,
    Work,
    calls_at,
    listening,
    nodes_below,
    products_alone,
    six_loops,
    vgg_layers,
)
from minifcn.introspect.describe import describe
from minifcn.kernels import convolution, threads
from minifcn.kernels.convolution import correlate
from minifcn.kernels.im2col import Windows
from minifcn.models.fcn import FCN8s


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


def test_the_layers_of_an_unpadded_net_keep_the_size_of_its_image():
    layers = {layer.name: layer for layer in vgg_layers(8, 128, "same")}
    assert [layers[name].out for name in ("conv1_1", "conv2_2", "conv5_3", "fc6", "fc7")] == [128, 64, 8, 4, 4]
    assert layers["fc6"].multiply_adds == 64 * 512 * 49 * 16


def test_the_product_alone_multiplies_as_much_as_the_layer(monkeypatch):
    """The strips together hold each window of the batch and hardly more, even where a whole one more would be half."""
    layer, done = Layer("thin", 8, 16, 31, 3, 1), []
    matmul = np.matmul
    monkeypatch.setattr(studies, "useful_threads", lambda *_: 2)
    monkeypatch.setattr(np, "matmul", lambda a, b, out: done.append(a.size * b.shape[1]) or matmul(a, b, out=out))
    for product in PRODUCTS:
        done.clear()
        layer.alone(product, 4)()
        assert 4 * layer.multiply_adds <= sum(done) <= 1.01 * 4 * layer.multiply_adds, product
        assert len(done) == 2, product  # one for each thread


@pytest.mark.slow("measures layers in many ways, and draws them")
def test_layers_are_measured_and_written(tmp_path, capsys):
    path = tmp_path / "layers.json"
    words = ["layers", "--size", "12", "--width", "2", "--runs", "1", "--only", "conv1_1,conv5_3,fc6", "--no-torch"]
    words += ["--plot", str(tmp_path / "roofline.png")]
    assert main([*words, "--way", "winograd", "--threads", "2", "--json", str(path)]) == 0
    assert (tmp_path / "roofline.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads(path.read_text())
    assert [(row["layer"], row["product"]) for row in record["rows"][:4]] == [
        ("conv1_1", "forward"),
        ("conv1_1", "grad_x"),
        ("conv1_1", "grad_w"),
        ("conv5_3", "forward"),
    ]
    assert [row["way"] for row in record["rows"]] == ["winograd"] * 6 + ["blocks"] * 3
    assert all(row["ms"] > 0 and row["alone_ms"] > 0 and row["least_bytes"] > 0 for row in record["rows"])
    assert {row["bound"] for row in record["rows"]} <= {"products", "memory"}
    assert "conv5_3" in capsys.readouterr().out


class Pretended(contextlib.nullcontext):
    """Instead of a process, which another test starts: PyTorch takes four times as much of everything."""

    def __init__(self, command):
        super().__init__(self)
        self.answer = 1.0 if command[5] == "ours" else 4.0

    def ask(self, task):
        return self.answer


@pytest.mark.slow("trains whole nets in PyTorch, too")
@pytest.mark.parametrize(
    "words", ["--padding 100 --size 33", "--padding same --size 33", "--net fcn-squeezenet --size 40x33 --batch 2"]
)
def test_whole_nets_agree_with_the_rival(words, capsys, monkeypatch, torch):
    monkeypatch.setattr(bench, "Elsewhere", Pretended)
    assert main(["nets", *words.split(), "--width", "1", "--runs", "1", "--threads", "1"]) == 0
    head, *lines = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith(("fcn", "forward", "step"))
    ]
    assert head.startswith("fcn-squeezenet " if "squeezenet" in words else "fcn8s ")
    assert [line.split()[-1] for line in lines] == ["0.25", "0.25"]


RIVALS = {
    "fcn8s": {"padding": 100},
    "fcn16s": {"padding": "same"},
    "fcn-dilated": {},
    "voc-fcn8s-atonce": {},
    "voc-fcn16s-cvpr15": {},
    "voc-fcn-alexnet": {},
    "fcn32s-fixed": {},
    "fcn-googlenet": {},
    "fcn-squeezenet": {"version": "1.1"},
}


@pytest.mark.parametrize("name", RIVALS)
def test_the_rival_is_the_same_net_and_learns_the_same(name, torch, monkeypatch):
    """Scores and every gradient; thin nets whose skips count, without dropout, which the two draw differently."""
    taught = []

    class Watched(torch.optim.SGD):
        def __init__(self, weights, **options):
            taught.extend(weights)
            super().__init__(taught, **options)

    monkeypatch.setattr(torch.optim, "SGD", Watched)
    work = Work(name, size=(40, 33), batch=2, width=1, dropout=0, **RIVALS[name])
    work.net.astype(np.float64)
    work.x = work.x.astype(np.float64)
    for layout in layouts(torch):
        taught.clear()
        forward, step = torch_net(torch, work.net, work.x, work.labels, layout)
        scores = work.forward()
        assert np.allclose(forward().numpy(), scores, rtol=1e-9, atol=1e-9 * abs(scores).max())
        step()
        ops.softmax_cross_entropy(work.net.train()(work.x), work.labels, normalize="none").backward()
        learned = {key: p for key, p in work.net.named_parameters() if not p.frozen}
        theirs = {tuple(weights.shape): [] for weights in taught}
        for weights in taught:
            theirs[tuple(weights.shape)].append(weights.grad.numpy())
        assert len(taught) == len(learned)
        for key, p in learned.items():  # the rival keeps no names: one of the same shape is this one's
            near = [np.allclose(g, p.grad, rtol=1e-7, atol=1e-9 * abs(p.grad).max()) for g in theirs[p.shape]]
            assert any(near) and p.grad.any(), key
            p.zero_grad()


@pytest.mark.parametrize("fusion", ["sum", "max", "concat"])
def test_the_rival_fuses_alike(fusion, torch):
    work = Work("fcn8s", size=(40, 33), width=1, dropout=0, padding=100)
    work.net = FCN8s(classes=3, width=1, dropout=0, padding=100, fusion=fusion, seed=1).astype(np.float64).eval()
    draws = np.random.default_rng(1)
    for parameter in work.net.parameters():  # scores begin at zero, and zeros would hide a wrong fusion
        parameter.data = draws.standard_normal(parameter.shape) * 0.3
    x, labels = work.x.astype(np.float64), np.zeros((1, 40, 33), np.int64)
    forward, _ = torch_net(torch, work.net, x, labels, torch.contiguous_format)
    scores = work.net(x).data
    assert scores.any() and np.allclose(forward().numpy(), scores, rtol=1e-9, atol=1e-9 * abs(scores).max())


def test_the_rival_keeps_no_array_of_ours(torch):
    """Or the peak of its process would hold both nets."""
    work = Work("fcn-squeezenet", size=(33, 33), width=1)
    rival = torch_net(torch, work.net, work.x, work.labels, torch.contiguous_format)
    ours = [weakref.ref(p.data) for p in work.net.parameters()]
    del work
    assert len(rival) == 2 and not any(each() is not None for each in ours)


def test_a_layer_without_a_rival_is_named(torch):
    with pytest.raises(UsageError, match=r"GlobalContext has no counterpart in PyTorch here; .* or `torch=False`"):
        main(["nets", "--net", "parsenet", "--size", "20", "--width", "1"])


def test_the_table_of_nets_has_a_row_for_each(tmp_path, capsys, monkeypatch, torch):
    small = {
        "thin": {"size": "33", "width": 1, "layers": 11, "padding": "same"},
        "layer": {"net": "depthwise", "size": "9"},
    }
    monkeypatch.setattr(bench, "TRAINED", small)
    monkeypatch.setattr(bench, "Elsewhere", Pretended)
    path = tmp_path / "nets.json"
    assert main(["nets", "--net", "all", "--runs", "1", "--threads", "1", "--json", str(path)]) == 0
    *_, thin, layer = capsys.readouterr().out.splitlines()
    assert thin.split() == ["thin", *["0.25"] * 4] and layer.split() == ["layer", *["0.25"] * 4]
    assert [row["work"] for row in json.loads(path.read_text())["rows"]] == ["thin", "thin", "layer", "layer"]


def test_a_depthwise_layer_works_on_either_side(torch):
    for side in bench.SIDES:
        with bench.elsewhere(side, bench.Options(net="depthwise", size="9", width=4, threads=1)) as process:
            assert process.ask("forward") > 0 and process.ask("step") > 0


def test_nets_without_a_rival_tell_time_and_peak_memory(tmp_path, capsys):
    path = tmp_path / "nets.json"
    words = ["nets", "--size", "32", "--width", "1", "--runs", "1", "--no-torch", "--padding", "same"]
    assert main([*words, "--json", str(path)]) == 0
    record = json.loads(path.read_text())
    assert [row["product"] for row in record["rows"]] == ["forward", "step"]
    assert all(10e6 < row["peak_bytes"] < 1e9 for row in record["rows"])
    assert record["gflops"] > 0 and record["torch"] is None
    assert "rival: none" in capsys.readouterr().out


def test_the_rival_works_in_a_process_of_its_own(torch):
    with bench.elsewhere("torch-channels-last", bench.Options(size="33", padding="same", width=1)) as process:
        assert process.ask("step") > 0 and 50e6 < process.ask("forward's peak") < 2e9
    assert process.process.returncode == 0


def test_a_process_that_died_long_ago_is_told_in_the_same_way():
    with Elsewhere([sys.executable, "-c", "raise SystemExit(3)"]) as process, pytest.raises(MinifcnError) as fault:
        process.process.wait()
        process.ask("step")
    assert str(fault.value).endswith("the process ended with code 3 before its step")


def test_a_process_does_what_it_is_asked_and_nothing_else(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo\nthree\n"))
    with pytest.raises(UsageError, match="task 'three' on standard input; expected one of one, two"):
        serve({"one": lambda: 1.5, "two": lambda: 2.5})
    assert capsys.readouterr().out == "1.5\n2.5\n"


def test_a_rival_that_is_not_installed_has_no_side(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UsageError, match="bench side torch: PyTorch is not installed"):
        main(["side", "torch", "--size", "33", "--width", "1"])


def test_a_side_computes_the_way_it_is_told(monkeypatch):
    """What the command line says reaches the work, through the command line of the other process."""
    with bench.elsewhere("ours", bench.Options(size="33", width=1, way="lines", threads=1)) as process:
        command, seen = process.process.args[4:], []
    monkeypatch.setattr(bench, "serve", lambda tasks: seen.append((convolution.FORCED(), threads.threads(), *tasks)))
    assert main(command) == 0
    assert seen == [("lines", 1, "forward", "step", "forward's peak", "step's peak")]


def test_a_side_that_ends_is_told_with_its_code():
    options = bench.Options(size="1", padding="0", width=1)  # smaller than the net without padding takes
    with bench.elsewhere("ours", options) as process, pytest.raises(MinifcnError) as fault:
        process.ask("forward")
    assert str(fault.value) == "-m minifcn bench side ours: the process ended with code 2 before its forward"


def test_the_peak_of_this_process_and_the_extra_of_a_piece_of_work():
    before = peak_bytes()
    held = np.ones(before // 8 + 1_000_000)
    assert peak_bytes() >= held.nbytes
    assert 8_000_000 <= extra_bytes(lambda: np.ones(1_000_000)[:1].copy()) < 9_000_000


def test_memory_is_told_for_each_way(tmp_path, capsys):
    path = tmp_path / "memory.json"
    words = ["memory", "--size", "40", "--width", "4", "--only", "conv1_2,fc7", "--json", str(path)]
    assert main(words) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [row["layer"] for row in rows] == ["conv1_2"] * 12 + ["fc7"] * 6  # 1x1: im2col and blocks
    assert all(0 <= row["bytes"] < 128 << 20 for row in rows)
    assert "winograd" in capsys.readouterr().out


def test_the_ladder_has_every_rung(tmp_path, capsys):
    path = tmp_path / "ladder.json"
    words = ["ladder", "--size", "20", "--width", "2", "--only", "conv1_2", "--runs", "1", "--json", str(path)]
    assert main(words) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [row["rung"] for row in rows] == [
        "six loops, scaled",
        "all columns at once",
        "im2col",
        "blocks",
        "lines",
        "winograd",
    ]
    assert all(row["seconds"] > 0 for row in rows) and all(row["error"] < 3e-5 for row in rows[1:])
    assert rows[1]["bytes"] >= 9 * 2 * 218**2 * 4
    assert "six loops" in capsys.readouterr().out


def test_six_loops_are_the_definition(rng):
    x, w = rng.standard_normal((2, 5, 6)), rng.standard_normal((3, 2, 3, 2))
    assert np.allclose(six_loops(x, w), correlate(x[None], w, Windows((3, 2)))[0])


def test_every_op_of_a_step_is_heard_and_silence_returns():
    work = Work(size=(8, 8), width=1, padding="same", dropout=0.0)
    with listening() as heard:
        work.loss()
    names = [function.__name__ for function, _, _ in heard]
    assert names.count("conv2d") == 18 and names.count("max_pool2d") == 5 and names[-1] == "softmax_cross_entropy"
    for function, arrays, options in heard:
        y, *_ = function(*arrays, **options)
        assert np.isfinite(y).all()
    assert sys.getprofile() is None
    work.loss()
    assert len(names) == len(heard)


def test_overhead_is_told(capsys):
    assert main(["overhead", "--size", "8", "--runs", "1"]) == 0
    assert "us for each of" in capsys.readouterr().out


def test_a_profile_adds_up(capsys, tmp_path):
    words = "profile --width 1 --size 16 --padding same --runs 1 --json".split()
    assert main([*words, str(tmp_path / "p.json")]) == 0
    rows = {row["function"]: row["seconds"] for row in json.loads((tmp_path / "p.json").read_text())["rows"]}
    wanted = {"conv2d value", "conv2d passing", "conv2d grad_x", "conv2d grad_w", "conv2d grad_b", "update"}
    assert wanted <= rows.keys() and min(rows.values()) > 0
    assert list(rows.values()) == sorted(rows.values(), reverse=True)
    printed = capsys.readouterr().out
    shares = [float(line.split()[-1].rstrip("%")) for line in printed.splitlines() if line.endswith("%")]
    assert len(shares) == len(rows) and abs(sum(shares) - 100) < 1
    assert "convolutions alone" in printed.splitlines()[-1]


def test_the_products_alone_are_those_of_every_convolution(monkeypatch):
    asked, work = [], Work("fcn-squeezenet", size=(96, 64), width=1, batch=2)
    monkeypatch.setattr(studies, "product_alone", lambda *product: asked.append(product) or int)
    assert products_alone(work, 1) > 0
    multiply_adds = sum(k * k * i * o * windows for product, k, i, o, windows in asked if product == "forward")
    assert multiply_adds == sum(
        row.multiply_adds for row in describe(work.net, (96, 64), batch=2).rows if row.kind.startswith("Conv2d")
    )
    (first, *others) = [product for product, *_ in asked]
    assert first == "forward" and others[0] == "grad_w" and len(asked) == 3 * others.count("grad_w") - 1


def test_what_gradients_begin_with_is_called_once_in_a_walk():
    work = Work(size=(8, 8), width=1, padding="same", dropout=0.0)
    loss = work.loss()
    loss.backward(keep_graph=True, keep_grads=True)
    rectified = [node for node in nodes_below(loss) if node.prepare]
    node = rectified[0]  # fc7's, the nearest to the loss
    calls = dict(calls_at(node))
    assert list(calls) == ["passing", "grad_x", "grad_w", "grad_b"] and len(rectified) == 15
    by_hand = {gradient.__name__: gradient(node.prepare(node.grad)) for _, gradient, _ in node.edges}
    assert all(np.array_equal(calls[name](), gradient) for name, gradient in by_hand.items())


@pytest.mark.slow("measures each number of threads")
def test_scaling_is_measured_and_drawn(tmp_path, capsys):
    words = ["scaling", "--size", "64", "--width", "1", "--runs", "1", "--threads", "2"]
    assert main([*words, "--json", str(tmp_path / "s.json"), "--plot", str(tmp_path / "s.png")]) == 0
    studies = json.loads((tmp_path / "s.json").read_text())["rows"]
    assert [row["side"] for row in studies["pixels"]] == [64]
    assert [row["width"] for row in studies["width"]] == [1, 2, 4]
    assert [row["threads"] for row in studies["threads"]] == [1, 2]
    assert all(row["seconds"] > 0 and row["product_seconds"] > 0 for row in studies["threads"])
    assert "2 threads gain" in capsys.readouterr().out
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


def test_ranks_are_predicted(tmp_path, capsys):
    """The sum of n bytes takes 2 (p - 1)/p n / beta, and more; strong scaling waits for the rank with most images."""
    words = ["scaling", "--ranks", "--size", "32", "--width", "1", "--padding", "same", "--runs", "1"]
    assert main([*words, "--json", str(tmp_path / "r.json")]) == 0
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert [row["workers"] for row in rows] == [1, 2, 4, 8, 12, 16, 20] * 3
    assert all(row["weak"] == row["strong"] == 1 and row["sum"] == 0 for row in rows if row["workers"] == 1)
    assert "0 MB of gradients" in capsys.readouterr().out
    assert sum_seconds(4, 8 << 20, 1e-3, 1e9) == pytest.approx(2 * 6e-3 + 1.5 * (8 << 20) / 1e9)
    rows = prediction(10.0, 100, images=2)
    sixteen = next(row for row in rows if row["workers"] == 16)
    assert sixteen["strong"] == pytest.approx(10, rel=1e-3) and sixteen["weak"] == pytest.approx(16, rel=1e-3)


def test_ranks_at_hand_are_measured_beside_the_model(mpiexec, tmp_path):
    words = ["scaling", "--ranks", "--size", "32", "--width", "1", "--padding", "same", "--runs", "1"]
    command = [mpiexec, "-n", "2", sys.executable, "-m", "minifcn", "bench", *words, "--json", "r.json"]
    env = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.count("2 ranks: a message takes") == 1, done
    found = json.loads((tmp_path / "r.json").read_text())["ranks"]
    assert found["ranks"] == 2 and 0 < found["alone"] < found["predicted"] and found["measured"] > 0
    command = [mpiexec, "-n", "2", sys.executable, "-m", "minifcn", "bench", "nets"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "2 ranks were started" in done.stderr


def test_waiting_for_images_is_measured():
    rows = loading.waiting((64, 80), batch=1, steps=2, seconds=0.0)
    assert [row["workers"] for row in rows] == [0, 1, 2, 4] and all(row["seconds"] > 0 for row in rows)


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "expected: bench nets, or: bench layers"),
        (["side"], "bench side: found ''; expected one of ours, torch, torch-channels-last"),
        (["side", "theirs"], "bench side: found 'theirs'; expected one of ours, torch, torch-channels-last"),
        (["layers", "--json", "nowhere/x.json"], "nowhere/x.json: cannot be written"),
        (["layers", "--plot", "nowhere/x.png"], "nowhere/x.png: cannot be written"),
        (["layers", "--way", "fft"], "option way is 'fft'; expected one of im2col, blocks, depthwise, lines, winograd"),
        (["layers", "--only", "conv9_9", "--no-torch"], "option only names 'conv9_9'"),
        (["nets", "--runs", "0"], "option runs is 0; expected a number of at least 1"),
        (["nets", "--padding", "some"], "VGG: padding is 'some'; expected \"same\" or a whole number"),
        (["nets", "--net", "fcn8", "--no-torch"], "option net is 'fcn8'; expected one of fcn32s, fcn16s, fcn8s"),
        (["profile", "--net", "depthwise"], "option net is 'depthwise'; expected one of fcn32s"),
        (["profile", "--net", "all"], "option net is 'all'; expected one of fcn32s"),
        (["nets", "--size", "9y9"], "option size is '9y9'; expected height x width"),
        (
            ["layers", "--padding", "safe"],
            "option padding is 'safe'; expected a number, or 'same': layers are FCN-8s's",
        ),
        (["layers", "--size", "256x192"], "option size is '256x192'; expected one number: only whole nets"),
    ],
)
def test_what_cannot_be_measured_is_refused(words, message):
    with pytest.raises(UsageError) as refusal:
        main(words)
    assert message in str(refusal.value)
