"""The checker must be able to fail: every kind of wrong gradient is shown to it, and it must say so."""

import numpy as np
import pytest

import minifcn.tensor
from minifcn import ops
from minifcn.backend import to_device, xp_of
from minifcn.errors import GradientError, MinifcnError, ShapeError
from minifcn.gradcheck import gradcheck, gradcheck_along
from minifcn.nn import Conv2d, Linear, MaxPool2d, Module, Sequential
from minifcn.tensor import OPS, Parameter, Tensor, op

X = np.random.default_rng(0).standard_normal((3, 4))


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """Keep the faulty ops below out of the registry."""
    monkeypatch.setattr(minifcn.tensor, "OPS", dict(OPS))


def square(gradient):
    """x^2 with `gradient(gy, x)` for its gradient."""

    def wrong(x):
        def grad_x(gy):
            return gradient(gy, x)

        return x * x, (grad_x,)

    return op(wrong)


def first_only(gy, x):
    gx = 2 * gy * x
    gx[1:] = 0
    return gx


def one_element(gy, x):
    gx = 2 * gy * x
    gx[2, 3] *= 1.01
    return gx


def with_nan(gy, x):
    gx = 2 * gy * x
    gx[1, 1] = np.nan
    return gx


WRONG = {
    "zero": lambda gy, x: 0 * gy,
    "x1.01": lambda gy, x: 2.02 * gy * x,
    "a hair too large": lambda gy, x: (2 + 1e-5) * gy * x,
    "negated": lambda gy, x: -2 * gy * x,
    "without gy": lambda gy, x: 2 * x,
    "without x": lambda gy, x: 2 * gy,
    "rolled": lambda gy, x: np.roll(2 * gy * x, 1, axis=1),
    "transposed": lambda gy, x: (2 * gy * x).reshape(x.shape[::-1]).T.copy(),
    "first row only": first_only,
    "one element off": one_element,
    "NaN": with_nan,
    "infinite": lambda gy, x: np.full_like(x, np.inf),
    "constant": lambda gy, x: np.full_like(x, 0.5),
}


def test_a_right_gradient_passes_and_the_error_is_small():
    assert 0 < gradcheck(square(lambda gy, x: 2 * gy * x), X) <= 1e-8


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_gradient_is_caught(name):
    with pytest.raises(GradientError, match=r"wrong: gradient of input 0 at \(\d, \d\) is .* and by differences"):
        gradcheck(square(WRONG[name]), X)


@pytest.mark.parametrize(("gradient", "where"), [(one_element, r"\(2, 3\) is"), (with_nan, r"\(1, 1\) is nan")])
def test_the_message_names_the_worst_element(gradient, where):
    with pytest.raises(GradientError, match="gradient of input 0 at " + where):
        gradcheck(square(gradient), X)


def test_only_the_faulty_input_is_blamed():
    def half_right(x, w):
        return x * w, (lambda gy: gy * w, lambda gy: gy * x * 1.01)

    with pytest.raises(GradientError, match="half_right: gradient of input 1"):
        gradcheck(op(half_right), X, X + 3)


@pytest.mark.parametrize("gradient", [lambda gy, x: (2 * gy * x)[:, :1], lambda gy, x: (2 * gy * x).ravel()])
def test_a_gradient_of_another_shape_is_caught(gradient):
    with pytest.raises(GradientError, match=r"gradient is float64 \(.*its input float64 \(3, 4\)"):
        gradcheck(square(gradient), X)


def test_a_gradient_of_another_dtype_is_caught():
    with pytest.raises(GradientError, match="wrong: a gradient is float32"):
        gradcheck(square(lambda gy, x: (2 * gy * x).astype(np.float32)), X)


def test_a_missing_gradient_is_caught():
    def forgetful(x, w):
        return x * w, (lambda gy: gy * w, None)

    def silent(x):
        return x * x, (None,)

    with pytest.raises(GradientError, match="forgetful: gradient of input 1"):
        gradcheck(op(forgetful), X, X + 3)
    with pytest.raises(GradientError, match="silent: gradient of input 0"):
        gradcheck(op(silent), X)


def test_a_gradient_cut_by_detach_is_caught():
    with pytest.raises(GradientError, match="gradient of input 0"):
        gradcheck(lambda x: ops.exp(x.detach()) * x if isinstance(x, Tensor) else ops.exp(x) * x, X)


def test_an_input_without_influence_needs_no_gradient():
    assert gradcheck(lambda x, w: ops.exp(x) + 0 * w, X, X) <= 1e-6

    def unused(x, w):
        return x * 2.0, (lambda gy: gy * 2.0, None)

    assert gradcheck(op(unused), X, X) <= 1e-6


def test_a_softmax_whose_backward_returns_zeros():
    """Why the output is weighed at random. The rows of a softmax sum to one whatever the input, so under an all-ones
    gradient the true gradient is zero, and a backward that returns zeros looks perfect."""

    def softmax_of_rows(x):
        xp = xp_of(x)
        y = xp.exp(x) / xp.exp(x).sum(axis=1, keepdims=True)
        return y, (lambda gy: 0 * gy,)

    softmax = op(softmax_of_rows)

    p, moved = Parameter(X), X.copy()
    softmax(p).sum().backward()
    moved[1, 2] += 1e-3
    by_difference = (softmax(moved).data.sum() - softmax(X).data.sum()) / 1e-3
    assert abs(p.grad[1, 2] - by_difference) < 1e-9  # the all-ones check passes
    with pytest.raises(GradientError, match="softmax_of_rows: gradient of input 0"):
        gradcheck(softmax, X)


# What differences alone do not show


def test_nothing_to_check_is_never_right():
    for inputs in ((), (np.arange(3),), (np.zeros((0, 3)),), (2.0, None)):
        with pytest.raises(ShapeError, match="nothing to check"):
            gradcheck(lambda *x: Tensor(1.0), *inputs)
    with pytest.raises(ShapeError, match="nothing to check"):
        gradcheck_along(lambda: Tensor(1.0), [])


def writes(target):
    def wrong(x):
        y = x * x

        def grad_x(gy):
            gx = 2 * gy * x
            {"gy": gy, "input 0": x, "the value": y}[target][...] *= 1.5
            return gx

        return y, (grad_x,)

    return op(wrong)


@pytest.mark.parametrize("target", ["gy", "input 0", "the value"])
def test_a_gradient_that_writes_is_caught(target):
    with pytest.raises(GradientError, match=f"wrong: a gradient writes into {target}"):
        gradcheck(writes(target), X)


def test_a_gradient_that_is_right_only_the_first_time_is_caught():
    def once(x):
        kept = [2 * x]

        def grad_x(gy):
            return gy * (kept.pop() if kept else x)

        return x * x, (grad_x,)

    with pytest.raises(GradientError, match="once: gradient of input 0 is another one when it is asked for again"):
        gradcheck(op(once), X)


@pytest.mark.parametrize("wrong", [0.0, 2.0, 1.1])
def test_a_small_element_beside_a_large_one_counts(wrong):
    def lopsided(x):
        return (x * np.array([1e8, 1.0])).sum(), (lambda gy: gy * np.array([1e8, wrong]),)

    with pytest.raises(GradientError, match=r"gradient of input 0 at \(1,\)"):
        gradcheck(op(lopsided), np.array([0.3, 0.7]))


@pytest.mark.parametrize(
    ("function", "x"),
    [
        (lambda x: x * x, [1e6, 1e-6, 1.0]),
        (lambda x: (x * x).sum(), [1e6, 1e-6, 1.0]),
        (lambda x: x**3, [0.0, 1e-9, 1e4]),
        (lambda x: (x * np.array([1e8, 1.0])).sum(), [0.3, 0.7]),
        (lambda x: ops.exp(x * 20.0), [-1.0, 0.0, 1.0]),
        (lambda x: ops.tanh(x), [-30.0, 0.0, 9.0]),
        (lambda x: ops.log(x), [1e-3, 1.0, 1e6]),
    ],
)
def test_a_right_gradient_raises_no_alarm_at_any_scale(function, x):
    assert gradcheck(function, np.array(x)) <= 1e-6


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_less_than_float64_is_refused(dtype):
    with pytest.raises(ShapeError, match=f"gradcheck: input 1 is {dtype}; in less than float64 rounding hides"):
        gradcheck(ops.add, X, X.astype(dtype))


def test_a_value_that_is_no_number_does_not_pass():
    """The differences are NaN there: unequal to everything, and no proof of anything."""

    def broken(x):
        y = x * 1.0
        y[0, 0] = np.where(x[0, 0] > X[0, 0], np.nan, y[0, 0])
        return y, (lambda gy: gy * 1.0,)

    with np.errstate(invalid="ignore"), pytest.raises(GradientError, match=r"at \(0, 0\) is .* by differences nan"):
        gradcheck(op(broken), X)


def test_a_kink_at_an_input_is_noticed():
    """relu has no derivative at 0: the two sides differ, and the checker says so rather than choosing one."""
    x = X.copy()
    x[1, 2] = 0.0
    with pytest.raises(GradientError, match=r"relu: gradient of input 0 at \(1, 2\)"):
        gradcheck(ops.relu, x)


def test_other_inputs_are_data():
    truth = np.array([[[0, 1], [2, 255]]])
    assert gradcheck(ops.softmax_cross_entropy, X[:3].reshape(1, 3, 2, 2), truth) <= 1e-6
    x, w = X.reshape(1, 1, 3, 4), X[:2, :2].reshape(1, 1, 2, 2)
    assert gradcheck(ops.conv2d, x, w, None, padding=1) <= 1e-6


def test_inputs_are_left_alone():
    x = X.copy()
    x.flags.writeable = False
    p = Parameter(x)
    gradcheck(ops.exp, p)
    assert np.array_equal(x, X) and p.data is x and p.grad is None


def test_the_seed_decides_the_weights():
    seen = []

    def watching(x):
        def grad_x(gy):
            seen.append(gy.copy())
            return gy * 1.0

        return x * 1.0, (grad_x,)

    watching = op(watching)
    for seed in (0, 0, 1):
        gradcheck(watching, X, seed=seed)
    assert len(seen) == 6  # each gradient is asked for twice
    assert all(np.array_equal(seen[0], gy) for gy in seen[1:4]) and not np.array_equal(seen[0], seen[4])
    assert np.unique(seen[0]).size == X.size  # no two weights alike


def test_the_tolerance_decides():
    slightly = square(lambda gy, x: (2 + 1e-5) * gy * x)
    assert 1e-7 < gradcheck(slightly, X, tolerance=1e-4) < 1e-4


def test_an_error_is_an_assertion_with_an_exit_code():
    """So that a bare `gradcheck(...)` in a test reads as a failed test, and in a command as a refusal."""
    assert issubclass(GradientError, AssertionError) and issubclass(GradientError, MinifcnError)


# Whole nets, along a random direction


class Net(Module):
    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.trunk = Sequential(
            conv1=Conv2d(2, 3, 3, init=rng, padding=1, relu=True),
            pool1=MaxPool2d(2, ceil_mode=True),
            conv2=Conv2d(3, 4, 3, init=rng, padding=1, relu=True),
        )
        self.score = Conv2d(4, 3, 1, init=rng)
        self.astype(np.float64)

    def forward(self, x):
        return self.score(self.trunk(x))


IMAGE = np.random.default_rng(1).standard_normal((2, 2, 8, 6))
TRUTH = np.random.default_rng(2).integers(0, 3, (2, 4, 3))


def loss_of(net):
    return lambda: ops.softmax_cross_entropy(net(Tensor(IMAGE)), TRUTH)


def parameters_of(net):
    return list(net.parameters())


def test_a_right_net_passes():
    net = Net()
    assert gradcheck_along(loss_of(net), parameters_of(net)) <= 1e-6


@pytest.mark.parametrize("faulty", ["trunk.conv1.w", "trunk.conv1.b", "trunk.conv2.w", "score.w", "score.b"])
def test_one_layer_off_by_a_hundredth_is_caught(faulty):
    def leaning(x):
        return x * 1.0, (lambda gy: 1.01 * gy,)

    leaning = op(leaning)

    net = Net()
    *path, name = faulty.split(".")
    layer = net
    for step in path:
        layer = getattr(layer, step)
    true = getattr(layer, name)
    before = net.state_dict()

    def loss():
        setattr(layer, name, leaning(true))
        try:
            return loss_of(net)()
        finally:
            setattr(layer, name, true)

    parameters = parameters_of(net)
    with pytest.raises(GradientError, match="along a random direction"):
        gradcheck_along(loss, parameters)
    assert all(np.array_equal(before[key], value) for key, value in net.state_dict().items())
    assert all(p.grad is None for p in parameters)


def test_parameters_are_put_back_to_the_bit():
    net = Net()
    before, arrays = net.state_dict(), [p.data for p in parameters_of(net)]
    gradcheck_along(loss_of(net), parameters_of(net))
    assert all(np.array_equal(before[key], value) for key, value in net.state_dict().items())
    assert [p.grad for p in parameters_of(net)] == [None] * len(arrays)


def test_parameters_are_put_back_when_the_loss_fails():
    net = Net()
    before, calls = net.state_dict(), []

    def failing():
        calls.append(1)
        if len(calls) == 2:
            raise FloatingPointError("from the loss")
        return loss_of(net)()

    with pytest.raises(FloatingPointError, match="from the loss"):
        gradcheck_along(failing, parameters_of(net))
    assert all(np.array_equal(before[key], value) for key, value in net.state_dict().items())


def test_frozen_parameters_are_constants():
    net = Net()
    net.freeze("conv1")
    before = net.state_dict()["trunk.conv1.w"]
    assert gradcheck_along(loss_of(net), parameters_of(net)) <= 1e-6
    assert np.array_equal(net.state_dict()["trunk.conv1.w"], before)


def test_a_parameter_that_gets_no_gradient_is_caught():
    net = Net()

    def cut():
        return ops.softmax_cross_entropy(net.score(net.trunk(Tensor(IMAGE)).detach()), TRUTH)

    with pytest.raises(GradientError, match="along a random direction"):
        gradcheck_along(cut, parameters_of(net))


def test_old_gradients_do_not_count():
    net = Net()
    loss_of(net)().backward()
    assert gradcheck_along(loss_of(net), parameters_of(net)) <= 1e-6


def test_a_float32_net_is_refused():
    net = Net()
    net.astype(np.float32)
    with pytest.raises(ShapeError, match=r"must be float64; net.astype\(np.float64\)"):
        gradcheck_along(loss_of(net), parameters_of(net))


def test_a_net_without_convolutions():
    rng = np.random.default_rng(0)
    net = Sequential(one=Linear(4, 5, init=rng), two=Linear(5, 2, init=rng)).astype(np.float64)
    assert gradcheck_along(lambda: ops.exp(net(Tensor(X))).mean(), parameters_of(net)) <= 1e-6


def test_a_direction_is_checked_on_a_strict_device(fake_gpu):
    w = Parameter(to_device(np.array([[1.0, -2.0], [3.0, 0.5]]), "gpu"))
    assert gradcheck_along(lambda: ops.sum(w * w), [w]) < 1e-6
