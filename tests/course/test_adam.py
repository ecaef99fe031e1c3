"""Adam is algorithm 1 of its paper, its decay beside it, as PyTorch has it; and it goes on where it stopped."""

import math

import numpy as np
import pytest

from minifcn import ops
from minifcn.errors import FormatError, UsageError
from minifcn.nn import Conv2d, Linear, Module, Sequential
from minifcn.optim import Adam, adam_update
from minifcn.tensor import Parameter


class Net(Module):
    """A weight, a bias, and a scalar, whose gradients the tests choose."""

    def __init__(self, dtype="float64", seed=0):
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


def train(net, adam, steps):
    for step in steps:
        give(net, random_gradients(net, np.random.default_rng(step)))
        adam.lr = 0.1 / (1 + step)
        adam.step(accumulated=1 + step % 2)


def test_adam_is_its_papers_rule_line_by_line(rng):
    net = Net()
    adam = Adam(net, lr=0.0, betas=(0.8, 0.95), epsilon=1e-3, weight_decay=0.02)
    w = net.state_dict()
    m, v = ({name: np.zeros_like(array) for name, array in w.items()} for _ in range(2))
    for t, lr in enumerate((0.1, 0.1, 0.02, 0.0, 0.3), start=1):
        g = random_gradients(net, rng)
        give(net, g)
        adam.lr = lr
        adam.step()
        for name, array in net.state_dict().items():
            rate, decay = (2 * lr, 0.0) if name == "fc.b" else (lr, 0.02)
            m[name] = 0.8 * m[name] + 0.2 * g[name]
            v[name] = 0.95 * v[name] + 0.05 * g[name] ** 2
            step = (m[name] / (1 - 0.8**t)) / (np.sqrt(v[name] / (1 - 0.95**t)) + 1e-3)
            w[name] = w[name] - rate * step - rate * decay * w[name]
            np.testing.assert_allclose(array, w[name], rtol=1e-13, atol=1e-15)


def test_as_in_pytorch_with_a_rate_for_each_group(torch, rng):
    """AdamW, which has the decay outside; a trunk at a tenth of the rate, biases at twice theirs and without decay."""
    net = Net(seed=5)
    factors = {"fc.w": (0.1, 1.0), "fc.b": (0.2, 0.0), "gain": (1.0, 1.0)}
    theirs = {name: torch.nn.Parameter(torch.tensor(p.data.copy())) for name, p in net.named_parameters()}
    groups = [{"params": [theirs[name]], "weight_decay": 0.02 * decay} for name, (_, decay) in factors.items()]
    oracle = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.999), eps=1e-8)
    adam = Adam(net, lr=1.0, weight_decay=0.02, multipliers=factors.__getitem__)
    for lr in (0.05, 0.05, 0.05, 0.005, 0.2, 0.2):
        g = random_gradients(net, rng)
        give(net, g)
        for name, p in theirs.items():
            p.grad = torch.tensor(g[name])
        adam.lr = lr
        for group, (factor, _) in zip(oracle.param_groups, factors.values(), strict=True):
            group["lr"] = lr * factor
        adam.step()
        oracle.step()
        for name, p in net.named_parameters():
            np.testing.assert_allclose(p.data, theirs[name].detach().numpy(), rtol=1e-12, atol=1e-13)


def test_the_first_step_is_the_rate_whatever_the_gradient(rng):
    """What the corrections are for: m and v have seen one gradient, and w moves by lr * sign(g)."""
    for size in (1e-3, 1.0, 1e6):
        net = Net()
        before, g = net.state_dict(), random_gradients(net, rng)
        give(net, {name: array * size for name, array in g.items()})
        Adam(net, lr=0.01, multipliers=lambda name: (1.0, 0.0)).step()
        for name, array in net.state_dict().items():
            np.testing.assert_allclose(before[name] - array, 0.01 * np.sign(g[name]), rtol=1e-3)


def test_accumulated_gradients_are_a_mean(rng):
    halves, whole = Net(), Net()
    one, two = random_gradients(halves, rng), random_gradients(halves, rng)
    trainers = [Adam(net, lr=0.1, weight_decay=0.3) for net in (halves, whole)]
    for _ in range(3):
        give(halves, one)
        give(halves, two)
        trainers[0].step(accumulated=2)
        give(whole, {name: (one[name] + two[name]) / 2 for name in one})
        trainers[1].step()
        for name, array in halves.state_dict().items():
            np.testing.assert_allclose(array, whole.state_dict()[name], rtol=1e-12)


def test_frozen_parameters_are_left_alone_and_start_at_their_own_beginning_when_thawed(rng):
    net = Net()
    net.freeze("fc")
    before = net.state_dict()
    (ops.sum(net.fc(np.ones((1, 3)))) * net.gain).backward()
    adam = Adam(net, lr=0.1, weight_decay=0.1, multipliers=lambda name: (1.0, 0.0))
    adam.step()
    after = net.state_dict()
    assert np.array_equal(before["fc.w"], after["fc.w"]) and after["gain"] != before["gain"]
    assert set(adam.state_dict()) == {"mean.gain", "square.gain", "steps.gain"}
    net.freeze("fc", frozen=False)
    g = random_gradients(net, rng)
    give(net, g)
    adam.step()
    np.testing.assert_allclose(after["fc.w"] - net.fc.w.data, 0.1 * np.sign(g["fc.w"]), rtol=1e-5)
    assert all(p.grad is None for p in net.parameters())


def test_the_update_is_in_place_and_weights_in_another_memory_order_learn_as_well():
    plain, turned = Net(), Net()
    held = {name: p.data for name, p in plain.named_parameters()}
    turned.fc.w.data = np.asfortranarray(turned.fc.w.data)
    for net in (plain, turned):
        train(net, Adam(net, lr=0.1, weight_decay=0.1), range(3))
    assert all(p.data is held[name] for name, p in plain.named_parameters())
    assert np.array_equal(plain.fc.w.data, turned.fc.w.data) and not np.array_equal(plain.fc.w.data, Net().fc.w.data)


def test_blocks_are_as_good_as_the_whole(rng):
    size = 3 * (1 << 16) + 17  # three full blocks and a rest
    w, g, m, v = (rng.standard_normal(size) for _ in range(4))
    v = v**2
    wanted_m, wanted_v = m * 0.9 + (1 - 0.9) * (g * 0.5), v * 0.99 + (1 - 0.99) * (g * 0.5) * (g * 0.5)
    wanted_w = w - (wanted_m * 0.1 / (np.sqrt(wanted_v) * 1.5 + 1e-8) + w * 0.01)
    adam_update(w, g, m, v, betas=(0.9, 0.99), gain=0.5, rate=0.1, root=1.5, epsilon=1e-8, shrink=0.01)
    assert np.array_equal(m, wanted_m) and np.array_equal(v, wanted_v) and np.array_equal(w, wanted_w)


def test_the_strict_device_takes_the_same_step(fake_gpu):
    nets = [Net(np.float32), Net(np.float32).to("gpu")]
    for net in nets:
        adam = Adam(net, lr=0.1, weight_decay=0.1)
        draws = np.random.default_rng(3)
        for _ in range(3):
            for p in net.parameters():
                g = draws.standard_normal(p.shape).astype(np.float32)
                (p * (g if net is nets[0] else fake_gpu.asarray(g))).sum().backward()
            adam.step()
        again = Adam(net, lr=0.1)
        again.load_state_dict(adam.state_dict())
        assert all(np.array_equal(again.state_dict()[name], array) for name, array in adam.state_dict().items())
    ours, theirs = (net.state_dict() for net in nets)
    assert all(np.array_equal(ours[name], theirs[name]) and ours[name].dtype == np.float32 for name in ours)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_loaded_state_goes_on_as_if_never_stopped(dtype):
    straight, stopped, resumed = Net(dtype), Net(dtype), Net(dtype, seed=9)
    options = {"lr": 1.0, "weight_decay": 0.01}
    train(straight, Adam(straight, **options), range(10))
    first = Adam(stopped, **options)
    train(stopped, first, range(4))
    weights, moments = stopped.state_dict(), first.state_dict()
    train(stopped, first, range(4, 6))  # a state is a copy: what goes on here is not seen there
    resumed.load_state_dict(weights)
    second = Adam(resumed, **options)
    second.load_state_dict(moments)
    train(resumed, second, range(4, 10))
    for name, array in resumed.state_dict().items():
        assert np.array_equal(array, straight.state_dict()[name]), name


def test_a_state_before_the_first_step_is_empty():
    adam = Adam(Net(), lr=0.1)
    assert adam.state_dict() == {}
    adam.load_state_dict({})
    assert adam.state_dict() == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mean.fc2.w": np.zeros((2, 3))}, r"mean.fc2.w \(2, 3\) belongs to no parameter"),
        ({"square.fc.w": np.zeros((3, 2))}, r"square.fc.w \(3, 2\) belongs to no parameter"),
        ({"steps.gain": np.ones(2, np.int64)}, r"steps.gain \(2,\) belongs to no parameter"),
        ({"cube.gain": np.zeros(())}, r"cube.gain \(\) belongs to no parameter"),
        ({"square.gain": None}, "has no square.gain; expected both moments and the steps"),
        ({"steps.fc.b": None}, "has no steps.fc.b; expected both moments and the steps"),
        ({"steps.fc.b": np.zeros(1, np.int64)}, "steps are below 1"),
        ({"square.gain": np.array(-1.0)}, "square.gain has numbers below 0"),
    ],
)
def test_a_state_of_another_net_is_refused_and_changes_nothing(change, said):
    net = Net()
    adam = Adam(net, lr=0.1)
    train(net, adam, range(1))
    before = adam.state_dict()
    state = {name: array for name, array in (before | change).items() if array is not None}
    with pytest.raises(FormatError, match=said):
        adam.load_state_dict(state)
    assert adam.state_dict().keys() == before.keys()
    assert all(np.array_equal(adam.state_dict()[name], before[name]) for name in before)


@pytest.mark.parametrize("gradient", [0.0, 1.0])
def test_nothing_drifts_in_two_thousand_steps_of_nothing(gradient):
    """A zero gradient, or a zero rate: the weights stay, to the bit."""
    net = Net(np.float32)
    before = net.state_dict()
    adam = Adam(net, lr=0.0 if gradient else 0.1)
    for _ in range(2_000):
        for p in net.parameters():
            p.node.grad = np.full(p.shape, gradient, np.float32)
        adam.step()
    assert all(np.array_equal(array, before[name]) for name, array in net.state_dict().items())


def test_it_learns(rng):
    net = Sequential(first=Conv2d(1, 4, 3, padding=1, relu=True, init=rng), score=Conv2d(4, 2, 1, init="zero"))
    x = rng.standard_normal((2, 1, 12, 12)).astype(np.float32)
    truth = (x[:, 0] > 0).astype(int)
    adam, losses = Adam(net, lr=0.05), []
    for _ in range(60):
        loss = ops.softmax_cross_entropy(net(x), truth)
        losses.append(loss.item())
        loss.backward()
        adam.step()
    assert losses[0] == pytest.approx(math.log(2), rel=1e-6) and losses[-1] < 0.1


@pytest.mark.parametrize(
    "options",
    [{"lr": -0.1}, {"lr": math.nan}, {"lr": 0.1, "betas": (1.0, 0.9)}, {"lr": 0.1, "betas": (0.9, math.nan)}]
    + [{"lr": 0.1, "epsilon": 0.0}, {"lr": 0.1, "weight_decay": -1e-4}],
    ids=str,
)
def test_rates_that_cannot_be_are_refused(options):
    with pytest.raises(UsageError, match=r"^Adam: lr .* betas .* epsilon .* weight_decay .*; expected"):
        Adam(Net(), **options)
