"""The launches and bytes of a training step, counted on arrays without numbers, against what the arrays then do."""

import numpy as np
import pytest
from op_cases import CASES

from minifcn import ops
from minifcn.cli.describe import main
from minifcn.introspect.launches import PACKAGE, Launches, launches
from minifcn.kernels import fused
from minifcn.models.zoo import NETS
from minifcn.nn import Conv2d, Dropout, Sequential
from minifcn.optim import Adam
from minifcn.tensor import OPS, Parameter, Tensor


def kinds(library):
    return [(launch.kind, launch.read, launch.written) for launch in library.entries]


@pytest.fixture
def library():
    return Launches()


RULES = {
    "an elementwise function": (lambda xp, x: x * x, [("multiply", 96, 48)]),
    "in place": (lambda xp, x: x[:1].__iadd__(x[1:]), [("add", 48, 24)]),
    "a[i] += b": (lambda xp, x: x.__setitem__(0, x[0].__iadd__(1)), [("add", 24, 24)]),
    "a view": (lambda xp, x: x.T.reshape(2, 2, 3).swapaxes(0, 1)[None], [("copy", 48, 48)]),
    "a reshape of a view": (lambda xp, x: x.reshape(3, 4).T, []),
    "a fill": (lambda xp, x: x.__setitem__(slice(None), 0), [("fill", 0, 48)]),
    "nothing": (lambda xp, x: x[:0] + x[:0], []),
    "a reduction": (lambda xp, x: x.sum(axis=1), [("reduction", 48, 8)]),
    "a product": (lambda xp, x: x @ x.T, [("product", 96, 16)]),
    "a product of stacks": (
        lambda xp, x: x[None] @ x[None].swapaxes(1, 2),
        [("operand", 48, 48), ("product", 96, 16)],
    ),
    "a product beside a broadcast": (
        lambda xp, x: xp.broadcast_to(x, (5, 2, 6)) @ xp.empty((5, 6, 1), "float32"),
        [("operand", 240, 240), ("product", 360, 40)],
    ),
    "a product of two dtypes": (lambda xp, x: x @ xp.empty((6, 2), "float64"), [("product", 144, 32)]),
    "a sum of small numbers": (lambda xp, x: x.astype("int8").sum(), [("astype", 48, 12), ("reduction", 12, 8)]),
    "a gather from columns": (lambda xp, x: x[:, xp.empty(3, "int64")], [("gather", 24, 24)]),
    "a mask": (lambda xp, x: x.__setitem__(xp.empty((2, 6), "bool"), 0), [("masked", 12, 48)]),
    "a unit matrix": (lambda xp, x: xp.eye(2), [("fill", 0, 32)]),
    "every second row": (lambda xp, x: x[:, ::2] @ x[:, 1::2].T, [("operand", 24, 24)] * 2 + [("product", 48, 16)]),
}


@pytest.mark.parametrize("name", RULES)
def test_what_counts_as_a_launch(name, library):
    program, expected = RULES[name]
    program(library, library.empty((2, 6), "float32"))
    assert kinds(library) == expected


def test_what_is_not_counted_is_refused(library):
    """Else NumPy would compute it on an array of objects, and nothing would be counted."""
    x = library.empty((2, 6), "float32")
    with pytest.raises(TypeError, match=r"^cumsum is not counted yet: give it a line in introspect/launches.py$"):
        library.cumsum(x, axis=0)
    with pytest.raises(TypeError, match="CuPy waits for it"):
        x[x > 0]


def test_who_asks_is_a_file_of_the_package_wherever_that_lies():
    asking = {launch.where.split()[0] for launch in launches(NETS["fcn-squeezenet"](width=1), (40, 40)).entries}
    assert "ops/pool.py" in asking
    assert [name for name in asking - {"elsewhere"} if not (PACKAGE / name).is_file()] == []


def test_waiting_is_counted(library):
    x = library.empty((2, 3), "float32")
    assert x.get().shape == (2, 3) and x.sum().item() == 0.5
    assert (library.waits, library.count) == (2, 1)


def strided(value, library):
    """The same input without numbers, if it is an array."""
    return library.empty(value.shape, value.dtype) if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("name", [name for name in OPS if name in ("conv2d", "max_pool2d", "crop", "add", "concat")])
def test_an_op_gives_the_shapes_and_dtypes_of_a_run(name, library):
    for case in CASES[name].values():
        inputs, options = case.inputs, case.options
        y = OPS[name](*(strided(x, library) for x in inputs), **options)
        real = OPS[name](*inputs, **options)
        assert (y.shape, y.dtype) == (real.shape, real.dtype)


def test_a_step_changes_nothing(rng):
    net = Sequential(conv=Conv2d(3, 4, 3, init=rng), drop=Dropout(0.5, rng=rng), score=Conv2d(4, 3, 1, init=rng))
    net.drop.training = False
    state, drawn = net.state_dict(), rng.bit_generator.state
    counted = launches(net, (12, 10), batch=2, optimizer=Adam)
    assert counted.count > 20 and counted.waits == 1  # the loss, at its end
    assert rng.bit_generator.state == drawn and net.training and not net.drop.training
    assert all(np.array_equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None and type(p.data) is np.ndarray for p in net.parameters())


def test_the_products_are_those_of_the_net():
    """Of a layer: once forward, and once for each of its two gradients; the image needs none."""
    net = Sequential(a=Conv2d(3, 4, 3, init="zero"), b=Conv2d(4, 5, 3, init="zero"))
    counted, a, b = launches(net, (12, 10)), 10 * 8 * 3 * 4 * 9, 8 * 6 * 4 * 5 * 9
    assert counted.multiply_adds == 2 * a + 3 * b


@pytest.mark.parametrize("name", ["fcn8s", "fcn-squeezenet", "lenet"])
def test_every_kind_of_net_can_be_counted(name):
    size = (28, 28) if name == "lenet" else (64, 48)
    assert launches(NETS[name](init="zero"), size).count > 50


@pytest.mark.parametrize(
    ("options", "size", "batch", "most", "gigabytes"),
    [
        pytest.param({}, (500, 500), 1, 400, 35, marks=pytest.mark.slow("FCN-8s VGG-16 at its width")),
        ({"layers": 11, "width": 8, "padding": "same"}, (64, 64), 8, 220, 0.25),  # the toy net
    ],
)
def test_a_step_keeps_its_goal(options, size, batch, most, gigabytes):
    """The goals were 700 launches and 40 GB, and 250 launches; these are what was reached, and a little more."""
    counted = launches(NETS["fcn8s"](init="zero", **options), size, batch=batch)
    assert counted.count <= most and counted.bytes <= gigabytes * 1e9 and counted.waits == 1
    with fused.plain():
        assert launches(NETS["fcn8s"](init="zero", **options), size, batch=batch).count > 2 * counted.count


def test_the_command_prints_the_table(capsys):
    assert main(["fcn8s", "--width=1", "--padding=same", "--size=32x32", "--launches"]) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.split() == ["asked", "for", "by", "kernel", "launches", "moved"]
    assert last.endswith("waits for the GPU: 1")


def test_an_array_without_numbers_has_none(library):
    with pytest.raises(AttributeError, match="an array without numbers has no tolist"):
        library.empty((1,)).tolist()
    loss = ops.sum(Tensor(library.empty((2,), "float32")) * Parameter(library.empty((2,), "float32")))
    loss.backward()
    assert loss.item() == 0.5
