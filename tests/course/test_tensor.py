"""The rules of the core: what a graph remembers, what backward leaves behind, what it refuses."""

import concurrent.futures
import contextlib
import gc
import itertools
import operator
import threading
import weakref

import numpy as np
import pytest

import minifcn
import minifcn.tensor
from minifcn import ops
from minifcn.backend import to_device, xp_of
from minifcn.errors import GradientError, GraphError, ShapeError
from minifcn.gradcheck import gradcheck
from minifcn.nn import Module
from minifcn.tensor import OPS, Node, Parameter, Tensor, edges_of, no_grad, op


@pytest.fixture
def registry(monkeypatch):
    """Ops made in a test are registered here, and not in the registry of all ops."""
    monkeypatch.setattr(minifcn.tensor, "OPS", dict(OPS))
    return minifcn.tensor.OPS


@pytest.fixture
def no_collector():
    """Without the garbage collector only reference counts free memory: a cycle would stay."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def parameter(*shape, dtype="float64", seed=0):
    return Parameter(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


def nodes_below(root):
    seen, waiting = {root}, [root]
    while waiting:
        for parent, _, _ in waiting.pop().edges or ():
            if parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return seen


def small_net(x, w1, w2, b):
    h = ops.relu(ops.conv2d(x, w1, padding=1))
    h = ops.max_pool2d(h, kernel_size=2)
    return ops.softmax_cross_entropy(ops.conv2d(h, w2, b), np.zeros((x.shape[0], 2, 2), "int64"))


# Tensors


def test_numbers_lists_and_tensors_become_arrays_and_arrays_stay_themselves():
    array = np.ones((2, 3), np.float32)
    t = Tensor(array)
    assert t.data is array and (t.shape, t.dtype, t.ndim, t.size) == ((2, 3), np.float32, 2, 6)
    assert Tensor([1.0, 2.0]).shape == (2,) and Tensor(2.5).item() == 2.5
    assert Tensor(t).data is array and Parameter(t).data is array and t.detach().data is array


def test_a_tensor_says_what_made_it():
    p = parameter(2)
    assert "constant" in repr(Tensor(1.0)) and "made by parameter" in repr(p) and "made by mul" in repr(p * 2)
    assert repr(p).startswith("Parameter(")


def test_the_gradient_can_be_set():
    p, given = parameter(2, 3), np.full((2, 3), 5.0)
    p.grad = given
    assert p.grad is given
    (p * 2).sum().backward()
    assert (p.grad == 7).all() and (given == 5).all(), "backward adds to it, not in place"
    p.grad = None
    assert p.grad is None
    (p * 2).sum().backward()
    assert (p.grad == 2).all()


def test_a_gradient_that_cannot_be_is_refused():
    p = parameter(2, 3)
    p.grad = before = np.ones((2, 3))
    for shape in ((3, 2), (3,), (1, 2, 3), ()):
        with pytest.raises(ShapeError, match=r"the gradient of a Parameter of shape \(2, 3\) has shape"):
            p.grad = np.ones(shape)
    assert p.grad is before
    p.freeze()
    for constant in (p, Tensor(np.ones((2, 3)))):
        for value in (before, None):
            with pytest.raises(GraphError, match="a constant or a frozen parameter has no gradient to set"):
                constant.grad = value
        assert constant.grad is None
    p.freeze(False)
    p.grad = before
    assert p.grad is before


def test_operators_are_ops():
    a, b = parameter(2, 2, seed=1), parameter(2, 2, seed=2)
    x, y = a.data, b.data
    pairs = [(a + b, x + y), (a - b, x - y), (a * b, x * y), (a / b, x / y), (a @ b, x @ y), (-a, -x)]
    pairs += [(2 + a, 2 + x), (2 - a, 2 - x), (2 * a, 2 * x), (2 / a, 2 / x), (a / 2, x / 2), (a - 1, x - 1)]
    pairs += [(a.sum(), x.sum()), (a.mean(axis=0), x.mean(axis=0)), (a.reshape(4), x.reshape(4))]
    pairs += [(a.sum(axis=1, keepdims=True), x.sum(axis=1, keepdims=True)), (a.reshape(-1, 1), x.reshape(-1, 1))]
    for found, exact in pairs:
        assert isinstance(found, Tensor) and found.node is not None and np.array_equal(found.data, exact)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "matmul"])
def test_an_array_on_the_left_asks_the_tensor(name):
    calculate = getattr(operator, name)
    x, p = np.full((2, 2), 3.0), parameter(2, 2)
    y = calculate(x, p)
    assert isinstance(y, Tensor) and np.array_equal(y.data, calculate(x, p.data))
    y.backward(np.ones((2, 2)))
    assert p.grad.shape == (2, 2)


@pytest.mark.parametrize("number", [3, 0.1, True])
def test_python_numbers_keep_float32(number):
    p = parameter(3, dtype="float32")
    for y in (p + number, number - p, p * number, p / number, number / p):
        assert y.dtype == np.float32
        y.backward(np.ones(3, np.float32))
    assert p.grad.dtype == np.float32


def test_a_numpy_number_of_another_dtype_is_refused():
    with pytest.raises(ShapeError, match="mul: dtypes float32 and float64 differ"):
        parameter(3, dtype="float32") * np.float64(2)


def test_a_tensor_does_what_a_numpy_user_types():
    x = np.arange(6.0).reshape(2, 3) + 1
    t = Parameter(x)
    pairs = [(t[0], x[0]), (t[:, None], x[:, None]), (t[..., -1], x[..., -1]), (t[x > 2], x[x > 2]), (t**2, x**2)]
    pairs += [(2**t, 2**x), (t**t, x**x), (t.sum(0), x.sum(0)), (t.mean(-1), x.mean(-1)), (t.max(1), x.max(1))]
    pairs += [(t.min(), x.min()), (t.T, x.T), (t.reshape((3, 2)), x.reshape(3, 2)), (abs(-t), x)]
    for found, exact in pairs:
        assert isinstance(found, Tensor) and found.node is not None and np.array_equal(found.data, exact)
    assert [row.data.tolist() for row in t] == x.tolist() and len(t) == 2
    loss = t.sum()
    assert float(loss) == 21 and f"{loss:.3f}" == "21.000" and f"{loss}" == repr(loss) and bool(loss)
    assert np.asarray(t) is x and np.array(t, "float32").dtype == np.float32


@pytest.mark.parametrize("name", ["lt", "le", "gt", "ge", "eq", "ne"])
def test_comparisons_are_arrays_of_bool(name):
    compare, x = getattr(operator, name), np.array([1.0, 2.0, 3.0])
    p, q = Parameter(x), Parameter(x[::-1].copy())
    for found, exact in [
        (compare(p, 2), compare(x, 2)),
        (compare(p, q), compare(p.data, q.data)),
        (compare(p, q.data), compare(p.data, q.data)),
        (compare(q.data, p), compare(q.data, p.data)),
    ]:
        assert isinstance(found, np.ndarray) and found.dtype == bool and found.tolist() == exact.tolist()
    assert len({p, q, p}) == 2


@pytest.mark.parametrize(
    ("use", "sentence"),
    [
        (np.argmax, r"np\.argmax .*\.data"),
        (lambda t: np.save("never-written.npy", t), r"np\.save .*\.data"),
        (lambda t: np.array_equal(t, t.data), r"np\.array_equal .*\.data"),
        (np.sum, r"np\.sum .*minifcn\.ops\.sum"),
        (lambda t: np.concatenate([t, t]), r"np\.concatenate .*minifcn\.ops"),
    ],
)
def test_numpys_functions_refuse_a_tensor_in_one_sentence(use, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GraphError, match=sentence):
        use(parameter(2, 3))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("use", [bool, float, lambda t: f"{t:.3f}", Tensor.item])
def test_only_one_number_is_a_number(use):
    with pytest.raises(ShapeError, match=r"one number .*\(2, 3\): sum it, or index it"):
        use(parameter(2, 3))


def test_a_number_has_no_length_and_no_elements():
    for use in (len, list):
        with pytest.raises(TypeError, match="unsized"):
            use(Tensor(1.0))


@pytest.mark.parametrize("value", [2.0, np.float64(2.0), np.array(2.0), [2.0], np.array(2.0, ">f8")])
def test_whatever_a_parameter_is_made_of_it_learns(value):
    net = Module()
    p = net.p = Parameter(value)
    solver = minifcn.SGD(net, lr=0.1, momentum=0)
    for _ in range(60):
        (p * p).sum().backward()
        solver.step()
    assert type(p.data) is np.ndarray and p.dtype == np.float64 and p.dtype.isnative and abs(p.data).max() < 1e-3


@pytest.mark.parametrize("value", [2, [1, 2], np.int64(2), np.ones(2, np.uint8), True, [False, True]], ids=repr)
def test_whole_numbers_are_no_parameter(value):
    """An update by a tenth would be lost or raise; as a constant they are as good as any."""
    with pytest.raises(ShapeError, match=r"Parameter: numbers are (u?int|bool).*expected float32 or float64"):
        Parameter(value)
    assert Tensor(value).node is None


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (np.ones(2, np.float16), "float16: expected float32 or float64"),
        (np.ones(2, complex), "complex128: expected"),
        (np.ones(2, np.longdouble), "float128: expected" if np.longdouble(0).itemsize == 16 else "expected"),
        (np.zeros(2, "M8[s]"), "datetime64"),
        (np.zeros(2, [("a", "f8")]), "expected"),
        (np.array(["a"]), "<U1: expected"),
        (np.array([None]), "object: expected"),
        (np.ma.array([1.0, 2.0], mask=[0, 1]), "masked array"),
    ],
    ids=lambda value: getattr(value, "dtype", None) and type(value).__name__ + str(value.dtype),
)
def test_what_cannot_be_computed_with_is_refused(value, sentence):
    for use in (Tensor, Parameter, ops.relu, lambda x: ops.add(parameter(2), x)):
        with pytest.raises(ShapeError, match=sentence):
            use(value)


# Tensors given by name, and as options


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("transpose", r"without a gradient: \.data\.transpose \(ops\.transpose has one\)"),
        ("argmax", r"a Parameter has no argmax; its array has, without a gradient: \.data\.argmax \(ops lists"),
        ("numpy", "a Parameter has no numpy$"),
    ],
)
def test_what_only_the_array_has_is_found_there(name, says):
    with pytest.raises(AttributeError, match=says):
        getattr(Parameter(np.ones((2, 3))), name)


def test_a_tensor_given_by_its_name_gets_its_gradient():
    p, w = parameter(2, 3, seed=1), parameter(2, 3, seed=2)
    ops.sum(x=ops.mul(p, y=w)).backward()
    assert np.array_equal(p.grad, w.data) and np.array_equal(w.grad, p.data)
    x, w, b = parameter(1, 2, 4, 4), parameter(3, 2, 3, 3), parameter(3)
    ops.conv2d(x, b=b, w=w).sum().backward()
    assert b.grad.tolist() == [4, 4, 4] and w.grad is not None and x.grad is not None


def test_a_gradient_into_an_option_is_refused():
    x, mask = parameter(2, 3), parameter(2, 3)
    with pytest.raises(GraphError, match=r"dropout: no gradient flows into mask.*mask\.data"):
        ops.dropout(x, mask=mask)
    ops.dropout(x, mask=Tensor(np.ones((2, 3)))).sum().backward()
    assert x.grad.tolist() == np.ones((2, 3)).tolist()
    assert ops.crop(parameter(1, 1, 4, 4), like=parameter(1, 1, 2, 2)).shape == (1, 1, 2, 2)


def test_freezing_between_forward_and_backward_is_refused():
    for then in ((), (False,)):
        p = parameter(3)
        loss = (p * p).sum()
        p.freeze()
        for frozen in then:
            p.freeze(frozen)
        with pytest.raises(GraphError, match="changed"):
            loss.backward()
        p.freeze(False)
        (p * p).sum().backward()
        assert np.allclose(p.grad, 2 * p.data)


@pytest.mark.parametrize("wrong", [lambda gy: gy[:1], lambda gy: gy[:, None], lambda gy: gy.astype("float32")])
def test_a_gradient_unlike_its_input_is_refused(wrong, registry):
    @op
    def crooked(x):
        return x * 1.0, (wrong,)

    p = parameter(3)
    with pytest.raises(GradientError, match=r"crooked: a gradient is float.*its input float64 \(3,\)"):
        crooked(p).backward(np.ones(3))
    assert p.grad is None


def test_a_gradient_can_be_set():
    p = parameter(3)
    p.grad = np.arange(3.0)
    p.grad *= 2
    assert p.grad.tolist() == [0, 2, 4]
    with pytest.raises(ShapeError, match=r"\(3,\) has shape \(1,\)"):
        p.grad = np.ones(1)
    p.grad = None
    assert p.grad is None
    p.freeze()
    with pytest.raises(GraphError, match="frozen"):
        p.grad = np.ones(3)


# Threads


def in_threads(*tasks):
    """Run the tasks at once, each in its own thread; raise what one of them raised."""
    with concurrent.futures.ThreadPoolExecutor(len(tasks)) as pool:
        for future in [pool.submit(task) for task in tasks]:
            future.result()


def test_one_thread_trains_while_another_evaluates():
    p, stop = parameter(3), threading.Event()

    def evaluate():
        while not stop.is_set():
            with no_grad():
                assert (p * p).node is None

    def train():
        try:
            for _ in range(300):
                p.zero_grad()
                (p * p).sum().backward()
                assert np.allclose(p.grad, 2 * p.data)
        finally:
            stop.set()

    in_threads(train, evaluate)


def test_no_grad_blocks_may_end_in_any_order():
    def block():
        with no_grad():
            yield

    for first, second in itertools.permutations((0, 1)):
        blocks = [block(), block()]
        for each in blocks:
            next(each)
        p = parameter(2)
        assert (p * 1.0).node is None
        next(blocks[first], None)
        assert (p * 1.0).node is None
        next(blocks[second], None)
        assert (p * 1.0).node is not None


def test_a_block_that_another_thread_ends_has_ended():
    block = no_grad()
    block.__enter__()
    in_threads(lambda: block.__exit__(None, None, None))
    assert (parameter(2) * 1.0).node is not None


# What a graph remembers


def test_a_node_never_holds_an_array():
    assert "data" not in Node.__slots__ and not hasattr(Node("op", ()), "__dict__")
    loss = small_net(Tensor(np.ones((1, 2, 4, 4))), parameter(3, 2, 3, 3), parameter(4, 3, 1, 1), parameter(4))
    for node in nodes_below(loss.node):
        held = [getattr(node, name) for name in Node.__slots__ if name != "__weakref__"]
        assert not any(hasattr(value, "dtype") for value in held)


def test_constants_have_no_node_and_no_gradient():
    y = Tensor(np.ones(2)) * np.ones(2) + 1
    assert y.node is None and y.grad is None
    with pytest.raises(GraphError, match="constant"):
        y.sum().backward()


def test_an_intermediate_dies_unless_a_gradient_mentions_it(no_collector):
    x = parameter(2, 3, 4, 4)
    alive = {}

    def kept(name, t):
        alive[name] = weakref.ref(t.data)
        return t

    y = kept("doubled", x * 2.0)
    y = kept("shifted", y + 1.0)
    y = kept("exp", ops.exp(y))
    y = kept("summed", y.sum(axis=(2, 3)))
    # mul remembers its number, add its shapes, exp its own value, sum its shape
    assert {name for name, ref in alive.items() if ref() is not None} == {"exp", "summed"}
    y.backward(np.ones(y.shape))
    assert {name for name, ref in alive.items() if ref() is not None} == {"summed"}


def test_a_gradient_nobody_wants_is_not_kept(no_collector):
    """With frozen weights a convolution need not remember its input: that is most of a network's memory."""
    for frozen in (False, True):
        x, w, b = parameter(1, 2, 6, 6), parameter(3, 2, 3, 3), parameter(3)
        w.freeze(frozen)
        h = x * 1.0
        alive = weakref.ref(h.data)
        y = ops.conv2d(h, w, b)
        del h
        assert (alive() is None) == frozen
        assert len(y.node.edges) == (2 if frozen else 3)


def test_frozen_parameters_leave_nothing_remembered(no_collector):
    x = Tensor(np.ones((1, 2, 4, 4)))
    w1, w2, b = parameter(3, 2, 3, 3), parameter(4, 3, 1, 1), parameter(4)
    for p in (w1, w2, b):
        p.freeze()
        assert p.frozen and p.grad is None
    loss = small_net(x, w1, w2, b)
    assert loss.node is None
    b.freeze(False)
    loss = small_net(x, w1, w2, b)
    assert {node.op for node in nodes_below(loss.node)} == {"softmax_cross_entropy", "conv2d", "parameter"}
    loss.backward()
    assert b.grad.shape == (4,) and w1.grad is None and w2.grad is None


def test_no_grad_computes_and_remembers_nothing(no_collector):
    p = parameter(3)
    with no_grad():
        h = p * 2.0
        alive = weakref.ref(h.data)
        y = h * h
        assert y.node is None and np.array_equal(y.data, (2 * p.data) ** 2)
        with no_grad():
            pass
        assert (p * 2.0).node is None  # an inner block ends only itself
        del h
    assert alive() is None
    assert (p * 2.0).node is not None
    with contextlib.suppress(KeyError), no_grad():
        raise KeyError
    assert (p * 2.0).node is not None  # recording comes back after an error, too


def test_no_grad_inside_a_graph_cuts_only_there():
    p = parameter(3)
    with no_grad():
        factor = p * 2.0  # used below as a constant
    (p * factor).sum().backward()
    assert np.allclose(p.grad, 2 * p.data)


@pytest.mark.parametrize("walk", [False, True])
def test_nothing_is_left_after_del(no_collector, walk):
    x = Tensor(np.ones((2, 2, 4, 4)))
    w1, w2, b = parameter(3, 2, 3, 3), parameter(4, 3, 1, 1), parameter(4)

    def census():
        return sum(type(o) in (Node, Tensor) for o in gc.get_objects())

    small_net(x, w1, w2, b)  # whatever is made once, is made
    before = census()
    loss = small_net(x, w1, w2, b)
    assert census() > before
    arrays = [weakref.ref(cell.cell_contents) for node in nodes_below(loss.node) for cell in cells_of(node)]
    assert len(arrays) > 5
    if walk:
        loss.backward()
    del loss
    assert census() == before
    inputs = {id(t.data) for t in (x, w1, w2, b)}
    left = [ref() for ref in arrays if ref() is not None and id(ref()) not in inputs]
    assert not left


def cells_of(node):
    """The closure cells of a node's gradients that hold arrays."""
    for _, gradient, _ in node.edges:
        for cell in gradient.__closure__ or ():
            if isinstance(cell.cell_contents, np.ndarray):
                yield cell


def test_memory_falls_while_walking(no_collector, registry):
    """By the time an early gradient runs, what the later ones remembered is gone."""
    alive, left = [], []

    @op
    def watch(x):
        def grad_x(gy):
            left.append(sum(ref() is not None for ref in alive))
            return gy * 1.0

        return x * 1.0, (grad_x,)

    x = parameter(50)
    y = watch(x)
    for _ in range(5):
        y = ops.exp(watch(y) * 0.1)
        alive.append(weakref.ref(y.data))
    loss = y.sum()
    del y
    loss.backward()
    # The first gradient to run is the last watch: its exp (the fifth) has just been used and let go.
    assert left == [4, 3, 2, 1, 0, 0]


def test_gradients_of_the_middle_are_let_go(no_collector, registry):
    """backward holds the gradients that are still to be used, not all that ever were."""
    seen, counts = [], []

    @op
    def watch(x):
        def grad_x(gy):
            counts.append(sum(ref() is not None for ref in seen))
            gx = gy * 1.0
            seen.append(weakref.ref(gx))
            return gx

        return x * 1.0, (grad_x,)

    y = parameter(10)
    for _ in range(20):
        y = watch(y)
    y.sum().backward()
    assert len(counts) == 20 and max(counts) <= 1


# Long and wide graphs


def test_a_chain_of_20_000_ops(no_collector):
    p = parameter(2)
    y = p
    for _ in range(20_000):
        y = y + 0.5
    y.backward(np.ones(2))
    assert p.grad.tolist() == [1, 1]


def test_a_chain_of_20_000_ops_is_released_without_backward(no_collector):
    p = parameter(2)
    y = p
    for _ in range(20_000):
        y = ops.exp(y * 0.0)
    first = weakref.ref(y.node)
    del y
    assert first() is None
    assert p.grad is None


@pytest.mark.parametrize("times", [12, 64])
def test_doubling_walks_every_node_twice_however_many_paths_there_are(times, monkeypatch):
    """The paths from y to p are 2^64; the nodes are 65, each looked at once to count and once to walk."""
    looked_at = []

    def counted(node):
        looked_at.append(node)
        assert len(looked_at) <= 2 * (times + 1)
        return edges_of(node)

    monkeypatch.setattr(minifcn.tensor, "edges_of", counted)
    p = parameter(1)
    y = p
    for _ in range(times):
        y = y + y
    y.backward(np.ones(1))
    assert p.grad.tolist() == [2.0**times]


def test_a_diamond_waits_for_both_sides(registry):
    """A node is walked when every gradient has arrived, however long one side is."""
    runs = []

    @op
    def watch(x):
        def grad_x(gy):
            runs.append(gy.copy())
            return gy

        return x * 1.0, (grad_x,)

    p = parameter(3)
    h = watch(p)
    long = h
    for _ in range(7):
        long = long * 1.5
    ((h * 2.0 + long) * 1.0 + h).sum().backward()
    assert len(runs) == 1 and np.allclose(runs[0], 3 + 1.5**7)
    assert np.allclose(p.grad, 3 + 1.5**7)


@pytest.mark.parametrize("use", [lambda x: x * x, lambda x: ops.matmul(x, x), lambda x: ops.concat(x, x, x)])
def test_one_input_used_twice_by_one_op(use):
    assert gradcheck(use, np.random.default_rng(0).standard_normal((3, 3))) <= 1e-6


# What backward leaves


def test_gradients_accumulate_on_leaves_only():
    p, q = parameter(3, seed=1), parameter(3, seed=2)
    middle = p * q
    middle.sum().backward()
    assert middle.grad is None and np.array_equal(p.grad, q.data) and np.array_equal(q.grad, p.data)
    (p * q).sum().backward()
    assert np.array_equal(p.grad, 2 * q.data)
    p.zero_grad()
    assert p.grad is None and q.grad is not None
    (p * 3.0).sum().backward()
    assert p.grad.tolist() == [3, 3, 3]


def test_a_parameter_that_is_the_output():
    p = parameter(1)
    p.backward()
    p.backward()
    assert p.grad.tolist() == [2]


def test_gradients_are_never_written_in_place():
    """add hands the same array to both sides, and to the caller: adding to one must not change the others."""
    p, q = parameter(3), parameter(3)
    gy = np.ones(3)
    gy.flags.writeable = False
    (p + q).backward(gy)
    (p * 2.0).backward(gy)
    assert p.grad.tolist() == [3, 3, 3] and q.grad.tolist() == gy.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "use",
    [
        lambda p, q: p + q,
        lambda p, q: p.reshape(3, 1).reshape(3) + q[:],
        lambda p, q: (p + q).reshape(1, 3).T,
        lambda p, q: ops.stack(p, q),
        lambda p, q: ops.concat(p, q, axis=0),
        lambda p, q: p.sum() + q.sum(),
        lambda p, q: p.mean() + q[None].T.sum(),
    ],
)
def test_a_leaf_owns_its_gradient(use):
    p, q = parameter(3), parameter(3)
    y = use(p, q)
    gy = np.ones(y.shape)
    y.backward(gy)
    before = q.grad.copy()
    p.grad *= 0.0
    p.grad += 5.0
    assert p.grad.tolist() == [5, 5, 5] and np.array_equal(q.grad, before) and (gy == 1).all()
    assert p.grad.flags.writeable and q.grad.flags.writeable


def test_a_leaf_that_is_the_output_owns_its_gradient():
    p, gy = parameter(3), np.ones(3)
    p.backward(gy)
    p.grad *= 2
    assert gy.tolist() == [1, 1, 1]


def test_two_gradients_meet_in_a_new_array():
    p = parameter(3)
    h = p * 1.0
    gy = np.ones(3)
    gy.flags.writeable = False
    (h + h).backward(gy)
    assert p.grad.tolist() == [2, 2, 2] and gy.tolist() == [1, 1, 1]


def test_a_second_backward_says_what_to_do():
    p = parameter(3)
    loss = (p * p).sum()
    loss.backward()
    before = p.grad
    with pytest.raises(GraphError, match=r"already been through this graph .*again, or pass keep_graph=True"):
        loss.backward()
    assert p.grad is before


def test_a_graph_shared_by_two_losses_is_refused_whole():
    """The second loss meets a released part: nothing is added to any leaf, not even on the way there."""
    p, q = parameter(3, seed=1), parameter(3, seed=2)
    shared = ops.exp(p)
    one, other = shared.sum(), (shared * q).sum()
    one.backward()
    before = p.grad
    with pytest.raises(GraphError, match=r"at exp"):
        other.backward()
    assert q.grad is None and p.grad is before


def test_keep_graph_walks_twice():
    p = parameter(3)
    loss = ops.exp(p * 2.0).sum()
    loss.backward(keep_graph=True)
    first = p.grad
    loss.backward()
    assert np.allclose(p.grad, 2 * first) and np.allclose(first, 2 * np.exp(2 * p.data))
    with pytest.raises(GraphError):
        loss.backward()


def test_two_losses_over_one_trunk_with_keep_graph():
    p = parameter(3)
    trunk = ops.exp(p)
    one, other = (trunk * 2.0).sum(), (trunk * trunk).sum()
    one.backward(keep_graph=True)
    other.backward()
    assert np.allclose(p.grad, 2 * np.exp(p.data) + 2 * np.exp(2 * p.data))


def test_keep_grads_shows_the_chain_rule():
    p = parameter(3)
    h = ops.exp(p)
    loss = (h * h).sum()
    loss.backward(keep_grads=True)
    assert loss.grad == 1 and np.allclose(h.grad, 2 * h.data) and np.allclose(p.grad, 2 * h.data**2)


# What backward refuses


def test_without_gy_only_on_a_scalar():
    p = parameter(2, 2)
    with pytest.raises(GraphError, match=r"needs a scalar, and this has shape \(2, 2\)"):
        (p * 1.0).backward()
    (p * 1.0).sum(axis=(0, 1), keepdims=True).backward()  # one number in whatever shape is a scalar
    assert p.grad.tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("gy", "found"),
    [
        (np.ones(3), r"float64 \(3,\)"),
        (np.ones((3, 1)), r"float64 \(3, 1\)"),
        (np.ones((2, 3), np.float32), r"float32 \(2, 3\)"),
        (1.0, "float$"),
        ([[1.0] * 3] * 2, "list$"),
        (Tensor(np.ones((2, 3))), "Tensor"),
    ],
    ids=["shape", "shape that broadcasts", "dtype", "number", "list", "tensor"],
)
def test_gy_must_be_like_the_value(gy, found):
    p = parameter(2, 3)
    with pytest.raises(ShapeError, match=r"gy must be an array like the value, float64 \(2, 3\), and is .*" + found):
        (p * 1.0).backward(gy)
    assert p.grad is None


def test_a_parameter_changed_after_the_forward_pass_is_refused():
    """Row 40. Gradients of old and new values mixed would be wrong without a word."""
    p, q = parameter(3, seed=1), parameter(3, seed=2)
    loss = (p * q).sum() + (q * 2.0).sum()
    p.data -= 0.1
    p.changed()
    with pytest.raises(GraphError, match=r"shape \(3,\) used by mul was changed after the forward pass.*again"):
        loss.backward()
    assert p.grad is None and q.grad is None  # refused before anything was added
    (p * q).sum().backward()
    assert np.array_equal(q.grad, p.data)


def test_an_input_written_in_place_changes_the_gradient():
    """Row 40, the other half: an array belongs to its owner. A gradient reads what it remembers when it runs, so what
    is written into an input between forward and backward is seen there. backward cannot know; `changed()` says so."""
    x, w = Tensor(np.array([1.0, 2.0])), parameter(2)
    loss = (x * w).sum()
    x.data[:] = 10.0
    loss.backward()
    assert w.grad.tolist() == [10, 10]


def test_a_value_taken_before_an_input_is_replaced_stays_right():
    """Assigning a new array (what an optimiser does with `p.data = ...`) leaves the old one to the graph."""
    x, w = Tensor(np.array([1.0, 2.0])), parameter(2)
    loss = (x * w).sum()
    x.data = np.array([10.0, 20.0])
    loss.backward()
    assert w.grad.tolist() == [1, 2]


def test_an_error_in_a_gradient_is_heard(registry):
    @op
    def broken(x):
        def grad_x(gy):
            raise ZeroDivisionError("from grad_x")

        return x * 1.0, (grad_x,)

    with pytest.raises(ZeroDivisionError, match="from grad_x"):
        broken(parameter(1)).backward()


# Ops


def test_an_op_is_its_plain_function_lifted(registry):
    @op
    def triple(x, *, plus=0.0):
        """3x + plus."""

        def grad_x(gy):
            return 3 * gy

        return 3 * x + plus, (grad_x,)

    assert registry["triple"] is triple and triple.__doc__ == "3x + plus." and triple.__name__ == "triple"
    y, (grad_x,) = triple.__wrapped__(np.ones(2), plus=1.0)
    assert y.tolist() == [4, 4] and grad_x(np.ones(2)).tolist() == [3, 3]
    p = parameter(2)
    lifted = triple(p, plus=1.0)
    assert lifted.node.op == "triple" and lifted.node.shape == (2,) and lifted.node.edges[0][0] is p.node


def test_a_name_can_be_taken_once(registry):
    with pytest.raises(ValueError, match="an op named relu is registered already"):

        @op
        def relu(x):
            return x, (None,)

    assert registry["relu"] is ops.relu


def test_a_gradient_of_none_is_no_edge(registry):
    @op
    def picked(x, index):
        def grad_x(gy):
            return gy

        return x * index, (grad_x, None)

    p, q = parameter(2), parameter(2)
    picked(p, q).backward(np.ones(2))
    assert p.grad is not None and q.grad is None


def test_what_gradients_begin_with_is_computed_once_in_a_walk_and_each_time_by_hand(registry):
    begun = []

    @op
    def product(x, y):
        """2xy, whose gradients both begin with 2 gy."""

        def doubled(gy):
            begun.append(gy)
            return 2 * gy

        def grad_x(gy):
            return gy * y

        def grad_y(gy):
            return gy * x

        return 2 * x * y, (grad_x, grad_y), doubled

    p, q, gy = parameter(2), parameter(2), np.array([1.0, 10.0])
    z = product(p, q)
    assert [gradient.__name__ for _, gradient, _ in z.node.edges] == ["grad_x", "grad_y"]
    z.backward(gy, keep_graph=True)
    assert len(begun) == 1
    gy[:] = 3, 4  # another walk begins anew, even with the same array
    z.backward(gy)
    assert len(begun) == 2
    assert np.array_equal(p.grad, 2 * np.array([4, 14]) * q.data)
    assert np.array_equal(q.grad, 2 * np.array([4, 14]) * p.data)
    _, gradients, prepare = product.__wrapped__(p.data, q.data)
    assert [gradient(prepare(gy)).tolist() for gradient in gradients] == [(2 * gy * a.data).tolist() for a in (q, p)]
    assert len(begun) == 4


def test_an_argument_left_out_has_no_edge():
    x, w = parameter(1, 1, 3, 3), parameter(1, 1, 3, 3)
    assert len(ops.conv2d(x, w).node.edges) == len(ops.conv2d(x, w, None).node.edges) == 2


def test_plain_arrays_in_constants_out():
    y = ops.relu(np.array([-1.0, 2.0]))
    assert isinstance(y, Tensor) and y.node is None and y.data.tolist() == [0, 2]


def test_gradients_live_where_the_values_live(device):
    p = Parameter(to_device(np.ones((2, 3), np.float32), device))
    loss = ops.exp(p * 2).mean()
    loss.backward()
    assert xp_of(p.grad) is xp_of(p.data) and p.grad.dtype == np.float32
    assert loss.item() == pytest.approx(np.exp(2), rel=1e-6)
