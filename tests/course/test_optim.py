"""SGD is Caffe's to the last bit of the rule, and the learning rate follows its closed forms."""

import math

import numpy as np
import pytest
from some_slow import slow_but

from minifcn import ops
from minifcn.errors import FormatError, GraphError, MinifcnError, UsageError
from minifcn.nn import Conv2d, Linear, Module, Sequential
from minifcn.optim import SCHEDULES, SGD, Adam, WeightAverage, caffe_multipliers, learning_rate, sgd_update
from minifcn.tensor import Parameter


class Net(Module):
    """A weight, a bias, and a scalar, whose gradients the tests choose."""

    def __init__(self, dtype=np.float64, seed=0):
        rng = np.random.default_rng(seed)
        self.fc = Linear(3, 2, init=rng)
        self.fc.b.data = rng.standard_normal(2)
        self.gain = Parameter(np.array(1.5))
        self.astype(dtype)


def give(net, gradients):
    """Put gradients where a backward pass would leave them."""
    for name, p in net.named_parameters():
        (p * gradients[name].astype(p.dtype)).sum().backward()


def random_gradients(net, rng):
    return {name: rng.standard_normal(p.shape) for name, p in net.named_parameters()}


def numbers(net):
    return {name: p.data.copy() for name, p in net.named_parameters()}


def caffe(w, h, g, *, lr, momentum, decay, bias, accumulated=1):
    """One step of Caffe's solver, line by line: returns the new weights and the new history."""
    g = g / accumulated
    if not bias:
        g = g + decay * w
    h = momentum * h + lr * (2 if bias else 1) * g
    return w - h, h


def test_sgd_is_caffes_rule(rng):
    net = Net()
    sgd = SGD(net, lr=0.0, momentum=0.9, weight_decay=0.01)
    w = numbers(net)
    h = {name: np.zeros_like(array) for name, array in w.items()}
    for lr in (0.1, 0.1, 0.02, 0.0, 0.3, 1e-3, 1e-3):
        g = random_gradients(net, rng)
        give(net, g)
        sgd.lr = lr
        sgd.step()
        for name in w:
            w[name], h[name] = caffe(w[name], h[name], g[name], lr=lr, momentum=0.9, decay=0.01, bias=name == "fc.b")
        for name, array in numbers(net).items():
            np.testing.assert_allclose(array, w[name], rtol=1e-14, atol=1e-15)
            np.testing.assert_allclose(sgd.history[name], h[name], rtol=1e-14, atol=1e-15)


def test_the_rate_is_inside_the_history():
    """After the rate drops to zero the net still moves by momentum times its last step: the step was already scaled."""
    net = Net()
    sgd = SGD(net, lr=1.0, momentum=0.5)
    give(net, {name: np.ones(p.shape) for name, p in net.named_parameters()})
    sgd.step()
    before, sgd.lr = numbers(net), 0.0
    give(net, {name: np.ones(p.shape) for name, p in net.named_parameters()})
    sgd.step()
    for name, array in numbers(net).items():
        np.testing.assert_allclose(before[name] - array, 1.0 if name == "fc.b" else 0.5, rtol=1e-14)


def test_as_in_pytorch_until_the_rate_changes(torch, rng):
    def both(rates):
        net = Net(seed=5)
        theirs = {name: torch.nn.Parameter(torch.tensor(p.data.copy())) for name, p in net.named_parameters()}
        biases = [p for name, p in theirs.items() if name == "fc.b"]
        weights = [p for name, p in theirs.items() if name != "fc.b"]
        oracle = torch.optim.SGD(
            [{"params": weights, "weight_decay": 0.02}, {"params": biases}], lr=1.0, momentum=0.9, dampening=0
        )
        sgd = SGD(net, lr=1.0, momentum=0.9, weight_decay=0.02)
        for lr in rates:
            g = random_gradients(net, rng)
            give(net, g)
            for name, p in theirs.items():
                p.grad = torch.tensor(g[name])
            sgd.lr, oracle.param_groups[0]["lr"], oracle.param_groups[1]["lr"] = lr, lr, 2 * lr
            sgd.step()
            oracle.step()
        return [(p.data, theirs[name].detach().numpy()) for name, p in net.named_parameters()]

    for ours, expected in both([0.05] * 6):
        np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-13)
    for ours, other in both([0.05] * 3 + [0.005] * 3):  # there the rate is outside, and acts on old gradients too
        assert np.abs(ours - other).min() > 1e-3


def test_biases_learn_twice_as_fast_and_do_not_decay():
    assert caffe_multipliers("trunk.block1.conv1_1.w") == (1.0, 1.0)
    assert caffe_multipliers("trunk.block1.conv1_1.b") == (2.0, 0.0) == caffe_multipliers("b")
    assert caffe_multipliers("rgb") == (1.0, 1.0)  # ends in b, and is no bias
    net = Net()
    before = numbers(net)
    give(net, {name: np.zeros(p.shape) for name, p in net.named_parameters()})
    SGD(net, lr=0.5, momentum=0.0, weight_decay=0.1).step()
    after = numbers(net)
    np.testing.assert_allclose(after["fc.w"], 0.95 * before["fc.w"], rtol=1e-14)
    assert np.array_equal(after["fc.b"], before["fc.b"])


def test_multipliers_are_anybodys_choice(rng):
    net = Net()
    before, g = numbers(net), random_gradients(net, rng)
    give(net, g)
    SGD(net, lr=0.1, weight_decay=0.5, multipliers=lambda name: (3.0, 2.0) if name == "gain" else (0.0, 1.0)).step()
    after = numbers(net)
    assert np.array_equal(after["fc.w"], before["fc.w"]) and np.array_equal(after["fc.b"], before["fc.b"])
    assert after["gain"] == pytest.approx(1.5 - 0.3 * (g["gain"] + 1.0 * 1.5), rel=1e-14)


def test_accumulated_gradients_are_divided_before_the_decay(rng):
    """Two halves of a batch, and its mean in one go, are the same step; decay is not halved with them."""
    halves, whole = Net(), Net()
    one, two = random_gradients(halves, rng), random_gradients(halves, rng)
    trainers = [SGD(net, lr=0.1, momentum=0.9, weight_decay=0.3) for net in (halves, whole)]
    for _ in range(3):
        give(halves, one)
        give(halves, two)
        trainers[0].step(accumulated=2)
        give(whole, {name: (one[name] + two[name]) / 2 for name in one})
        trainers[1].step()
        for name, array in numbers(halves).items():
            np.testing.assert_allclose(array, numbers(whole)[name], rtol=1e-13)


def test_a_step_uses_the_gradients_up(rng):
    net = Net()
    sgd = SGD(net, lr=0.1)
    give(net, random_gradients(net, rng))
    sgd.step()
    assert all(p.grad is None for p in net.parameters())
    after = numbers(net)
    sgd.step()  # nothing to do, momentum or not
    assert all(np.array_equal(array, after[name]) for name, array in numbers(net).items())


def test_frozen_parameters_are_left_alone(rng):
    net = Net()
    net.freeze("fc")
    before = numbers(net)
    (ops.sum(net.fc(np.ones((1, 3)))) * net.gain).backward()
    sgd = SGD(net, lr=0.1, weight_decay=0.1)
    sgd.step()
    after = numbers(net)
    assert np.array_equal(before["fc.w"], after["fc.w"]) and np.array_equal(before["fc.b"], after["fc.b"])
    assert after["gain"] != before["gain"] and list(sgd.history) == ["gain"]
    net.freeze("fc", frozen=False)
    give(net, random_gradients(net, rng))
    sgd.step()
    assert not np.array_equal(before["fc.w"], net.fc.w.data)


def test_the_update_is_in_place(rng):
    net = Net()
    held = {name: p.data for name, p in net.named_parameters()}
    sgd = SGD(net, lr=0.1)
    for _ in range(2):
        give(net, random_gradients(net, rng))
        sgd.step()
        histories = dict(sgd.history)
    assert all(p.data is held[name] for name, p in net.named_parameters())
    give(net, random_gradients(net, rng))
    sgd.step()
    assert all(sgd.history[name] is histories[name] for name in histories)


def test_weights_in_another_memory_order_learn_as_well(rng):
    """Columns first, as when weights come transposed: flattened they are a copy, and a copy does not learn."""
    plain, turned = Net(), Net()
    g = random_gradients(plain, rng)
    turned.fc.w.data = np.asfortranarray(turned.fc.w.data)
    trainers = [SGD(net, lr=0.1, weight_decay=0.1) for net in (plain, turned)]
    for _ in range(3):
        for net, sgd in zip((plain, turned), trainers, strict=True):
            give(net, g)
            sgd.step()
    assert np.array_equal(plain.fc.w.data, turned.fc.w.data) and not np.array_equal(plain.fc.w.data, Net().fc.w.data)
    again = SGD(turned, lr=0.1)
    again.load_state_dict({name: h.copy(order="F") for name, h in trainers[1].state_dict().items()})
    for sgd, net in ((trainers[0], plain), (again, turned)):
        sgd.weight_decay = 0.1
        for _ in range(2):
            give(net, g)
            sgd.step()
    assert np.array_equal(plain.fc.w.data, turned.fc.w.data)


def test_blocks_are_as_good_as_the_whole(rng):
    size = 3 * (1 << 16) + 17  # three full blocks and a rest
    w, g, h = (rng.standard_normal(size) for _ in range(3))
    wanted_h = 0.9 * h + (g * 0.1 + w * 0.01)
    wanted_w = w - wanted_h
    sgd_update(w, g, h, momentum=0.9, gain=0.1, shrink=0.01)
    assert np.array_equal(w, wanted_w) and np.array_equal(h, wanted_h)


def test_a_graph_from_before_the_step_refuses(rng):
    net = Net()
    x = rng.standard_normal((4, 3))
    stale = ops.sum(net.fc(x))
    ops.sum(net.fc(x)).backward()
    SGD(net, lr=0.1).step()
    with pytest.raises(GraphError, match="changed after the forward pass"):
        stale.backward()


def test_float32_stays_float32(rng):
    net = Net(np.float32)
    sgd = SGD(net, lr=0.1, weight_decay=0.1)
    give(net, random_gradients(net, rng))
    sgd.step()
    assert {p.dtype for p in net.parameters()} == {h.dtype for h in sgd.history.values()} == {np.dtype("f4")}


def test_the_strict_device_takes_the_same_step(fake_gpu, rng):
    nets = [Net(np.float32), Net(np.float32).to("gpu")]
    for net in nets:
        sgd = SGD(net, lr=0.1, momentum=0.9, weight_decay=0.1)
        draws = np.random.default_rng(3)
        for _ in range(3):
            for p in net.parameters():
                g = draws.standard_normal(p.shape).astype(np.float32)
                (p * (g if net is nets[0] else fake_gpu.asarray(g))).sum().backward()
            sgd.step()
        again = SGD(net, lr=0.1)
        again.load_state_dict(sgd.state_dict())
        assert all(np.array_equal(again.state_dict()[name], h) for name, h in sgd.state_dict().items())
    ours, theirs = (net.state_dict() for net in nets)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


# ---- state -------------------------------------------------------------------------------------------------------


def train(net, sgd, steps):
    for step in steps:
        give(net, random_gradients(net, np.random.default_rng(step)))
        sgd.lr = 0.1 / (1 + step)
        sgd.step(accumulated=1 + step % 2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_loaded_state_goes_on_as_if_never_stopped(dtype):
    straight, stopped, resumed = Net(dtype), Net(dtype), Net(dtype, seed=9)
    options = {"lr": 1.0, "momentum": 0.99, "weight_decay": 0.01}
    train(straight, SGD(straight, **options), range(10))
    first = SGD(stopped, **options)
    train(stopped, first, range(4))
    weights, momentum = stopped.state_dict(), first.state_dict()
    train(stopped, first, range(4, 6))  # a state is a copy: what goes on here is not seen there
    resumed.load_state_dict(weights)
    second = SGD(resumed, **options)
    second.load_state_dict(momentum)
    kept = {name: h.copy() for name, h in momentum.items()}
    train(resumed, second, range(4, 10))
    assert all(np.array_equal(momentum[name], kept[name]) for name in kept)
    for name, array in numbers(resumed).items():
        assert np.array_equal(array, numbers(straight)[name]), name


def test_a_state_before_the_first_step_is_empty():
    sgd = SGD(Net(), lr=0.1)
    assert sgd.state_dict() == {}
    sgd.load_state_dict({})
    assert sgd.history == {}


@pytest.mark.parametrize(
    ("state", "named"),
    [
        ({"fc.w": np.zeros((2, 3)), "fc2.w": np.zeros((2, 3))}, "fc2.w"),
        ({"fc.w": np.zeros((3, 2))}, "fc.w"),
        ({"gain": np.zeros(1)}, "gain"),
    ],
)
def test_momentum_of_another_net_is_refused_and_changes_nothing(state, named, rng):
    net = Net()
    sgd = SGD(net, lr=0.1)
    train(net, sgd, range(1))
    before = sgd.state_dict()
    with pytest.raises(FormatError, match=rf"SGD's {named} .* belongs to no parameter of this network"):
        sgd.load_state_dict(state)
    assert all(np.array_equal(sgd.state_dict()[name], before[name]) for name in before)


# ---- row 36, and whether it learns at all ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    slow_but([{"lr": 0.1}], [{"lr": 0.0}, {"lr": 0.0, "weight_decay": 0.5}, {"lr": 0.1}], "ten thousand steps"),
    ids=str,
)
def test_nothing_drifts_in_ten_thousand_steps_of_nothing(options):
    """A zero rate, or a zero gradient: the weights stay, to the bit."""
    net = Net(np.float32)
    before = numbers(net)
    sgd = SGD(net, momentum=0.99, **options)
    gradient = 0.0 if options["lr"] else 1.0
    nodes = [(p.node, np.full(p.shape, gradient, np.float32)) for p in net.parameters()]
    for _ in range(10_000):
        for node, g in nodes:
            node.grad = g
        sgd.step()
    assert all(np.array_equal(array, before[name]) for name, array in numbers(net).items())
    assert not any(h.any() for h in sgd.history.values())


def test_momentum_ends_quietly():
    """One gradient, then ten thousand zeros: the history fades to nothing and the weights to where the series ends."""
    net = Net()
    start = numbers(net)
    sgd = SGD(net, lr=0.01, momentum=0.99)
    for step in range(10_000):
        for p in net.parameters():
            p.node.grad = np.full(p.shape, 0.0 if step else 1.0)
        sgd.step()
    for name, array in numbers(net).items():
        np.testing.assert_allclose(start[name] - array, (2 if name == "fc.b" else 1) * 0.01 / (1 - 0.99), rtol=1e-9)


def test_it_learns(rng):
    net = Sequential(first=Conv2d(1, 4, 3, padding=1, relu=True, init=rng), score=Conv2d(4, 2, 1, init="zero"))
    x = rng.standard_normal((2, 1, 12, 12)).astype(np.float32)
    truth = (x[:, 0] > 0).astype(int)
    sgd, losses = SGD(net, lr=0.5), []
    for _ in range(60):
        loss = ops.softmax_cross_entropy(net(x), truth)
        losses.append(loss.item())
        loss.backward()
        sgd.step()
    assert losses[0] == pytest.approx(math.log(2), rel=1e-6) and losses[-1] < 0.1


# ---- refusals, schedules -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"lr": -0.1}, {"lr": math.nan}, {"lr": 0.1, "momentum": 1.0}, {"lr": 0.1, "momentum": -0.1}]
    + [{"lr": 0.1, "momentum": math.nan}, {"lr": 0.1, "weight_decay": -1e-4}],
    ids=str,
)
def test_rates_that_cannot_be_are_refused(options):
    with pytest.raises(UsageError, match=r"^SGD: lr .* momentum .* weight_decay .*; expected") as refusal:
        SGD(Net(), **options)
    assert "\n" not in str(refusal.value) and isinstance(refusal.value, MinifcnError)


def test_fixed_is_fixed():
    assert [learning_rate(step, 10, lr=0.3) for step in range(10)] == [0.3] * 10


def test_poly_falls_from_lr_to_almost_nothing():
    rates = [learning_rate(step, 100, lr=0.2, schedule="poly") for step in range(100)]
    assert rates[0] == 0.2 and rates == sorted(rates, reverse=True)
    assert rates[50] == pytest.approx(0.2 * 0.5**0.9) and rates[99] == pytest.approx(0.2 * 0.01**0.9)
    assert learning_rate(25, 100, lr=0.2, schedule="poly", power=1.0) == pytest.approx(0.15)
    assert learning_rate(100, 100, lr=0.2, schedule="poly") == 0.0


def test_step_drops_at_equal_distances():
    rates = [learning_rate(step, 9, lr=1.0, schedule="step") for step in range(9)]
    assert rates == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01])
    rates = [learning_rate(step, 8, lr=4.0, schedule="step", gamma=0.5, drops=3) for step in range(8)]
    assert rates == [4, 4, 2, 2, 1, 1, 0.5, 0.5]
    assert learning_rate(0, 1, lr=1.0, schedule="step") == 1.0


def test_cosine_falls_from_lr_to_almost_nothing_as_half_a_wave():
    rates = [learning_rate(step, 100, lr=0.2, schedule="cosine") for step in range(100)]
    assert rates[0] == 0.2 and rates == sorted(rates, reverse=True) and rates[50] == pytest.approx(0.1)
    assert rates[25] == pytest.approx(0.1 * (1 + math.sqrt(0.5))) and 0 < rates[99] < 1e-4


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_warm_up_rises_to_the_schedule_in_equal_parts(schedule):
    def rate(step, warmup):
        return learning_rate(step, 20, lr=0.3, schedule=schedule, warmup=warmup)

    for step in range(20):
        assert rate(step, 4) == pytest.approx(rate(step, 0) * min(1, (step + 1) / 4))
    assert rate(0, 1) == rate(0, 0)


def test_an_average_of_weights_is_its_formula(rng):
    net = Net()
    average = WeightAverage(net, decay=0.8)
    exact = {name: p.data.copy() for name, p in net.named_parameters()}
    for t in range(1, 60):
        for name, parameter in net.named_parameters():
            parameter.data = parameter.data + rng.standard_normal(parameter.shape).astype(parameter.dtype)
            d = min(0.8, t / (10 + t))
            exact[name] = d * exact[name] + (1 - d) * parameter.data
        average.update(t)
    now = {name: p.data for name, p in net.named_parameters()}
    with average.swapped() as inside:
        assert all(np.allclose(p.data, exact[name], rtol=1e-4, atol=1e-5) for name, p in inside.named_parameters())
    assert all(p.data is now[name] for name, p in net.named_parameters())
    other = WeightAverage(net, decay=0.8)
    other.load_state_dict(average.state_dict())
    assert all(np.array_equal(other.average[name], average.average[name]) for name in now)
    with pytest.raises(FormatError, match="the averaged weights are not those of this network"):
        other.load_state_dict({})
    with pytest.raises(UsageError, match="WeightAverage: decay is 1"):
        WeightAverage(net, decay=1)


def test_an_unknown_schedule_is_refused_with_the_known():
    with pytest.raises(UsageError, match="schedule is 'linear'; expected one of fixed, step, poly, cosine"):
        learning_rate(0, 10, lr=0.1, schedule="linear")
    assert all(learning_rate(0, 10, lr=0.1, schedule=schedule) == 0.1 for schedule in SCHEDULES)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, "1", None, True, 1j, np.array([0.1])], ids=repr)
@pytest.mark.parametrize("kind", [SGD, Adam])
def test_what_is_no_rate_is_refused(kind, bad):
    net = Net()
    for options in ({"lr": bad}, {"lr": 0.1, "weight_decay": bad}):
        with pytest.raises(UsageError, match=f"{kind.__name__}: lr"):
            kind(net, **options)
    solver = kind(net, lr=0.1)
    solver.lr = bad
    with pytest.raises(UsageError, match=r"step: .*lr"):
        solver.step()


@pytest.mark.parametrize("accumulated", [0, -1, 1.5, True, None])
def test_accumulated_counts_backward_passes(accumulated):
    with pytest.raises(UsageError, match=r"accumulated is .*expected at least 1"):
        SGD(Net(), lr=0.1).step(accumulated=accumulated)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_beyond_its_end_stays_where_it_ended(schedule):
    rates = [learning_rate(step, 10, lr=0.5, schedule=schedule) for step in (9, 10, 11, 25, 10**9)]
    assert all(isinstance(rate, float) and 0 <= rate <= 0.5 for rate in rates) and len(set(rates[1:])) == 1


@pytest.mark.parametrize(("step", "total"), [(-1, 10), (0, 0), (1.5, 3), (True, 3), (0, None)])
def test_steps_are_whole_numbers(step, total):
    with pytest.raises(UsageError, match="learning_rate: step"):
        learning_rate(step, total, lr=0.1, schedule="poly")
