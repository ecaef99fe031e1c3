"""A training step as a film: its numbers are those of an ordinary step, and its page shows them in a browser."""

import json
import pathlib

import numpy as np
import pytest
from browser import Chromium

from minifcn import SGD, ops
from minifcn.errors import GraphError, UsageError
from minifcn.graph import graph
from minifcn.introspect.frames import PLANES, SIDE, Film, frames, listed, shown
from minifcn.nn import Conv2d, Module
from minifcn.tensor import WATCHER, Parameter, Tensor


class Small(Module):
    """conv1, relu, pool, score: as small as a net with all kinds of layers can be."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.conv1, self.score = Conv2d(2, 3, 3, padding=1, init=rng), Conv2d(3, 2, 1, init=rng)

    def forward(self, x: Tensor) -> Tensor:
        return self.score(ops.max_pool2d(ops.relu(self.conv1(x)), kernel_size=2))


IMAGE = np.random.default_rng(1).standard_normal((1, 2, 4, 6)).astype(np.float32)
LABELS = np.array([[[0, 1, 1], [1, 0, 0]]])


def loss(net: Module) -> Tensor:
    return ops.softmax_cross_entropy(net(Tensor(IMAGE)), LABELS)


def film(net: Module) -> Film:
    return frames(lambda: loss(net), SGD(net, lr=0.1), named={"image": IMAGE, "labels": LABELS})


def shapes(arrays):
    return [(array.name, array.shape) for array in arrays]


def test_every_op_every_node_and_every_parameter_has_its_frame() -> None:
    made = film(Small())
    assert [frame.title for frame in made.frames if frame.phase == "forward"] == [
        "conv2d", "relu", "max_pool2d", "conv2d", "softmax_cross_entropy"
    ]  # fmt: skip
    assert sorted(frame.title for frame in made.frames if frame.phase == "backward") == sorted(
        ["softmax_cross_entropy", "conv2d", "score.w", "score.b", "max_pool2d", "relu", "conv2d", "conv1.w", "conv1.b"]
    )
    assert [frame.title for frame in made.frames if frame.phase == "update"] == [
        "conv1.w", "conv1.b", "score.w", "score.b"
    ]  # fmt: skip
    first = made.frames[0]
    assert shapes(first.takes) == [("image", (1, 2, 4, 6)), ("conv1.w", (3, 2, 3, 3)), ("conv1.b", (3,))]
    assert shapes(first.gives) == [("conv1", (1, 3, 4, 6))]
    assert first.says == "conv2d takes image, conv1.w and conv1.b, and gives conv1."
    assert "grad_b remembers nothing" in first.remembers
    assert repr(made).startswith("Film(5 forward, 9 backward, 4 update; at most ")


def test_its_numbers_are_those_of_an_ordinary_step() -> None:
    watched, plain = Small(), Small()
    made, optimizer = film(watched), SGD(plain, lr=0.1)
    loss(plain).backward()
    gradients = {name: parameter.grad.copy() for name, parameter in plain.named_parameters()}
    optimizer.step()
    for (name, one), (_, other) in zip(watched.named_parameters(), plain.named_parameters(), strict=True):
        np.testing.assert_array_equal(one.data, other.data)
        frame = next(f for f in made.frames if f.phase == "backward" and f.title == name)
        seen = np.array(frame.takes[0].planes)
        expected = gradients[name].reshape(-1, *np.atleast_2d(gradients[name]).shape[-2:])[:PLANES]
        np.testing.assert_allclose(seen, expected, rtol=1e-3)


def test_held_grows_to_what_the_graph_says_and_falls_to_nothing() -> None:
    made = film(Small())
    by_phase = {phase: [f.held for f in made.frames if f.phase == phase] for phase in ("forward", "backward", "update")}
    assert by_phase["forward"][-1] == graph(loss(Small())).nbytes > 0
    assert by_phase["forward"] == sorted(by_phase["forward"])
    assert by_phase["backward"] == sorted(by_phase["backward"], reverse=True)
    assert by_phase["backward"][-1] == 0 and set(by_phase["update"]) == {0}


def test_a_frame_of_the_way_back_names_what_is_let_go() -> None:
    """Each array that a forward frame says is remembered is let go in exactly one backward frame."""
    made = film(Small())
    lines = {p: [line for f in made.frames if f.phase == p for line in f.remembers] for p in ("forward", "backward")}
    kept = [line.replace("remembers", "lets go of") for line in lines["forward"] if "nothing" not in line]
    assert len(kept) > 5 and sorted(kept) == sorted(lines["backward"])
    relu = next(f for f in made.frames if f.phase == "backward" and f.title == "max_pool2d")
    before = made.frames[made.frames.index(relu) - 1].held
    assert (
        relu.remembers and relu.readable == f"{relu.held} B after this frame, {before - relu.held} B less than before"
    )
    assert made.frames[-1].readable == "0 B after this frame"


def test_nothing_watches_afterwards_even_if_the_loss_fails() -> None:
    net = Small()
    with pytest.raises(ZeroDivisionError):
        frames(lambda: 1 / 0, SGD(net, lr=0.1))  # type: ignore[arg-type, return-value]
    assert WATCHER() is None
    loss(net).backward()


def test_a_value_used_twice_is_named_once_and_its_gradients_meet() -> None:
    class Twice(Module):
        def __init__(self) -> None:
            self.w = Parameter(np.array([3.0]))

    net = Twice()
    made = frames(lambda: (net.w * net.w + net.w).sum(), SGD(net, lr=1))
    leaf = next(f for f in made.frames if f.phase == "backward" and f.title == "w")
    assert leaf.takes[0].planes == [[[7.0]]] and leaf.gives == ()
    assert net.w.data == [-4.0]


@pytest.mark.parametrize(
    ("array", "planes", "cut"),
    [
        (np.float32(2.5), [[[2.5]]], ""),
        (np.array([1.23456, np.nan]), [[[1.235, None]]], ""),
        (np.zeros((2, PLANES, 1, 1)), [[[0.0]]] * PLANES, f"the first {PLANES} of {2 * PLANES} planes"),
        (np.arange(2.0 * SIDE), [[[float(i) for i in range(0, 2 * SIDE, 2)]]], "one row and column of 2"),
    ],
)
def test_an_array_is_cut_to_what_can_be_looked_at(array, planes, cut) -> None:
    one = shown("x", np.asarray(array))
    assert one.planes == planes and one.cut == cut


def test_what_cannot_be_watched_is_refused_in_a_sentence() -> None:
    net = Small()
    with pytest.raises(GraphError, match="no parameter was used"):
        frames(lambda: Tensor(1.0), SGD(net, lr=0.1))
    with pytest.raises(UsageError, match="more than 200 frames; take a smaller net"):
        frames(lambda: sum((ops.sum(net.conv1.b) for _ in range(99)), Tensor(np.float32(0))), SGD(net, lr=0.1))
    assert all((p.data == q.data).all() for p, q in zip(net.parameters(), Small().parameters(), strict=True))


def test_names_are_escaped_and_listed() -> None:
    net = Small()
    page = frames(lambda: loss(net), SGD(net, lr=0.1), named={"</script><b>": IMAGE}).html()
    assert page.count("</script>") == 1 and "\\u003c/script>\\u003cb>" in page
    assert [listed(["a"]), listed("ab"), listed("abc")] == ["a", "a and b", "a, b and c"]


@pytest.mark.slow("starts a browser")
def test_the_page_shows_each_frame(chromium: Chromium, tmp_path: pathlib.Path) -> None:
    made = film(Small())
    made.save(tmp_path / "step.html")
    page = chromium.page()
    page.open((tmp_path / "step.html").as_uri())
    assert page.run("document.querySelectorAll('#memory rect').length") == len(made.frames)
    last = json.loads(
        page.run("""(() => { const slider = document.getElementById("slider"); slider.value = FRAMES.length - 1;
        slider.dispatchEvent(new Event("input"));
        return JSON.stringify([document.getElementById("title").textContent, document.querySelectorAll("canvas").length,
            document.querySelectorAll("#memory rect.now").length]); })()""")
    )
    assert last == ["update · score.b", 4, 1]
    read = page.run("""(() => { show(0); const canvas = document.querySelector("canvas");
        const box = canvas.getBoundingClientRect();
        canvas.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + 2, clientY: box.top + 2 }));
        return document.getElementById("number").textContent; })()""")
    assert read == f"image, plane 0, row 0, column 0: {IMAGE[0, 0, 0, 0]:.4g}"
    page.size(390, 800)
    page.drag([page.middle("document.querySelectorAll('canvas')[1]")], finger=True)  # a tap, on a phone
    assert page.run("document.getElementById('number').textContent").startswith("image, plane 1, row 2, column 3: ")
    assert page.run("document.getElementById('number').getBoundingClientRect().top >= 0")  # it is in sight
    page.run("play()")
    assert page.run("document.getElementById('play').textContent") == "Pause"
    assert page.complaints == [] and [r for r in page.requests if not r.startswith("file:")] == []
