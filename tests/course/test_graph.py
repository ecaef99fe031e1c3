"""The table of what gradients remember, checked against sizes worked out by hand, and the drawing against its rules."""

import gc
import itertools
import weakref
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from minifcn import ops
from minifcn.errors import GraphError
from minifcn.graph import Graph, _Layout, graph, readable
from minifcn.tensor import Node, Parameter, Tensor, no_grad

SVG = "{http://www.w3.org/2000/svg}"


def array(*shape, dtype=np.float32):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def ladder():
    """A small FCN: two convolutions, one skip, a shared upsampling kernel. Returns the loss."""
    w1, b1, w2, score, skip = (
        Parameter(array(*s)) for s in [(4, 3, 3, 3), (4,), (4, 4, 3, 3), (5, 4, 1, 1), (5, 4, 1, 1)]
    )
    up = Parameter(array(5, 5, 4, 4))
    fine = ops.max_pool2d(ops.relu(ops.conv2d(Tensor(array(1, 3, 16, 16)), w1, b1, padding=1)), kernel_size=2, stride=2)
    coarse = ops.max_pool2d(ops.relu(ops.conv2d(fine, w2, padding=1)), kernel_size=2, stride=2)
    fused = ops.conv_transpose2d(ops.conv2d(coarse, score), up, stride=2, padding=1) + ops.conv2d(fine, skip)
    scores = ops.conv_transpose2d(fused, up, stride=2, padding=1)
    return ops.softmax_cross_entropy(scores, np.zeros((1, 16, 16), np.int64))


def step_of(shown, name):
    (step,) = (step for step in shown.steps if step.op == name)
    return step


def mentioned(shown):
    return [memory for step in shown.steps for edge in step.edges for memory in edge.memories]


def test_the_table():
    x, w = array(2, 3, dtype=np.float64), Parameter(array(3, 4, dtype=np.float64))
    lines = str(graph(ops.sum(ops.exp(ops.matmul(Tensor(x), w))))).splitlines()
    assert [line.split()[:2] for line in lines[1:-1]] == [
        ["0", "parameter"],
        ["1", "matmul"],
        ["2", "exp"],
        ["3", "sum"],
    ]
    assert lines[0].split() == ["op", "value", "gradient", "of", "remembers"]
    assert "(2, 4)" in lines[2] and "(2, 3) float64, 48 B" in lines[2]
    assert lines[3].endswith("grad_x    1   y (2, 4) float64, 64 B")
    assert lines[4].endswith("nothing")
    assert lines[-1] == "remembered: 112 B in 2 arrays"


def test_a_gradient_nobody_wants_remembers_nothing():
    """A constant input: the weight's gradient is kept, which mentions x, and not the input's, which mentions w."""
    x, w = Tensor(array(1, 3, 8, 8)), Parameter(array(4, 3, 3, 3))
    (edge,) = step_of(graph(ops.conv2d(x, w)), "conv2d").edges
    assert edge.gradient == "grad_w" and [memory.name for memory in edge.memories] == ["x"]
    w.freeze()
    other = Parameter(array(1, 3, 8, 8))
    (edge,) = step_of(graph(ops.conv2d(other, w)), "conv2d").edges
    assert edge.gradient == "grad_x" and [memory.name for memory in edge.memories] == ["w"]


def test_addition_is_free_and_multiplication_is_not():
    x, y = Parameter(array(10)), Parameter(array(10))
    assert graph(x + y).nbytes == 0 and str(graph(x + y)).count("nothing") == 2
    assert graph(x * y).nbytes == 80


def test_each_array_counts_once():
    x, w = Parameter(array(10)), Parameter(array(10))
    shown = graph((x * w) * w)
    assert shown.nbytes == 3 * 40, "x, w and x * w"
    again = [memory.again for memory in mentioned(shown)]
    assert again.count(None) == 3 and len(again) == 4
    assert "(counted at 2)" in str(shown) and "120 B in 3 arrays" in str(shown)


def test_a_view_counts_what_it_keeps_alive():
    big = array(100, 10)
    shown = graph(Tensor(big[3]) * Parameter(array(10)))
    (memory,) = mentioned(shown)
    assert memory.shape == (10,) and memory.view and memory.nbytes == shown.nbytes == 4000
    assert "3.9 KiB with the array it is a view of" in str(shown)
    two = graph(Tensor(big[3]) * Parameter(array(10)) + Tensor(big[4]) * Parameter(array(10)))
    assert two.nbytes == 4000, "two views of one array keep one array"


def by_hand(parameter):
    kept = {"inner": array(7), "list": [array(2), (array(3),)]}
    kept["itself"] = kept
    number = 3

    def helper(gy):
        return gy * kept["inner"].sum() * number

    def grad_x(gy):
        return helper(gy)

    return Tensor(array(1), Node("by_hand", (1,), ((parameter.node, grad_x, 0),)))


def test_memories_inside_helpers_and_containers_are_found():
    found = {memory.name: memory.nbytes for memory in mentioned(graph(by_hand(Parameter(array(1)))))}
    assert found == {"helper.kept.inner": 28, "helper.kept.list.0": 8, "helper.kept.list.1.0": 12}


def test_parents_come_first_and_every_node_once():
    shown = graph(ladder())
    assert [step.number for step in shown.steps] == list(range(len(shown.steps)))
    assert all(edge.parent < step.number for step in shown.steps for edge in step.edges)
    assert sum(step.op == "parameter" for step in shown.steps) == 6
    assert shown.steps[-1].op == "softmax_cross_entropy"


def test_the_graph_keeps_no_array_alive():
    gc.disable()
    try:
        y = array(50)
        watched = weakref.ref(y)
        t = ops.exp(Parameter(y) * 1.0)
        shown = graph(t)
        del t, y
        assert watched() is None
        assert shown.nbytes > 0
    finally:
        gc.enable()


def test_looking_changes_nothing():
    loss = ladder()
    assert str(graph(loss)) == str(graph(loss))
    assert graph(loss).to_svg() == graph(loss).to_svg()
    loss.backward()


def test_after_backward_the_table_says_released():
    loss = ladder()
    loss.backward()
    shown = graph(loss)
    assert shown.nbytes == 0 and [step.released for step in shown.steps] == [True]
    assert "released by backward" in str(shown) and "released" in shown.to_svg()


def test_a_constant_has_no_graph():
    with pytest.raises(GraphError, match="graph of a constant"):
        graph(Tensor(array(3)))
    with no_grad(), pytest.raises(GraphError, match="no_grad"):
        graph(Parameter(array(3)) + 1.0)


def test_a_chain_deeper_than_the_stack():
    t = Parameter(array(1))
    for _ in range(20_000):
        t = -t
    shown = graph(t)
    assert len(shown.steps) == 20_001 and str(shown).count("\n") == 20_002


@pytest.mark.parametrize(
    "nbytes, said",
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (2**20 - 1, "1.0 MiB"),
        (3 * 2**40, "3.0 TiB"),
    ],
)
def test_bytes_for_people(nbytes, said):
    assert readable(nbytes) == said


# The drawing.


def drawn(shown):
    return ElementTree.fromstring(shown.to_svg())  # noqa: S314


def test_the_drawing_shows_every_node_gradient_and_size():
    shown = graph(ladder())
    texts = [element.text for element in drawn(shown).iter(f"{SVG}text")]
    for step in shown.steps:
        assert f"{step.number} {step.op}" in texts
    for gradient in ("grad_x", "grad_w", "grad_b"):
        assert texts.count(gradient) == sum(edge.gradient == gradient for s in shown.steps for edge in s.edges)
    kept = [step.nbytes for step in shown.steps if step.nbytes]
    assert sorted(text for text in texts if text and "remembers" in text) == sorted(
        f"remembers {readable(n)}" for n in kept
    )
    assert shown._repr_svg_() == shown.to_svg()


def test_boxes_do_not_overlap_and_lie_inside():
    layout, root = _Layout(graph(ladder()).steps), drawn(graph(ladder()))
    for row in layout.rows:
        for left, right in itertools.pairwise(row):
            free = layout.x[right] - layout.widths[right] / 2 - layout.x[left] - layout.widths[left] / 2
            assert free > 17.99
    width, height = float(root.get("width")), float(root.get("height"))
    for box in list(root.iter(f"{SVG}rect"))[1:]:
        x, y, w, h = (float(box.get(key)) for key in ("x", "y", "width", "height"))
        assert min(x, y) >= 0 and x + w <= width and y + h <= height


def test_what_is_computed_later_is_drawn_lower():
    steps = graph(ladder()).steps
    layout = _Layout(steps)
    for step in steps:
        for edge in step.edges:
            assert layout.top(edge.parent) < layout.top(step.number)
    for way in layout.ways.values():
        assert [layout.row_of[place] for place in way] == list(range(layout.row_of[way[0]], layout.row_of[way[-1]] + 1))


def test_a_long_edge_runs_around_the_boxes_it_passes():
    steps = graph(ladder()).steps
    layout = _Layout(steps)
    bends = [place for way in layout.ways.values() for place in way[1:-1]]
    assert bends, "the skip passes several rows"
    for bend in bends:
        for other in layout.rows[layout.row_of[bend]]:
            if other < len(steps):
                assert abs(layout.x[bend] - layout.x[other]) > layout.widths[other] / 2


def test_a_chain_is_drawn_straight():
    t = Parameter(array(3))
    for _ in range(30):
        t = ops.exp(-t)
    layout = _Layout(graph(t).steps)
    assert max(layout.x) - min(layout.x) == pytest.approx(0)


def test_one_parameter_alone():
    assert isinstance(graph(Parameter(array(2))), Graph)
    assert drawn(graph(Parameter(array(2)))) is not None
    assert str(graph(Parameter(array(2)))).endswith("remembered: 0 B in 0 arrays")
