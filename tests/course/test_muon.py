"""Muon is its authors' rule, line by line and as PyTorch has it; what is no window follows Adam."""

import math

import numpy as np
import pytest

from minifcn import ops
from minifcn.errors import UsageError
from minifcn.nn import Conv2d, Sequential
from minifcn.optim import Adam, Muon, caffe_multipliers, orthogonal


def net(dtype="float64", seed=0):
    made = Sequential(
        first=Conv2d(2, 5, 3, padding=1, relu=True, init=np.random.default_rng(seed)),
        thin=Conv2d(5, 30, 2, init=np.random.default_rng(seed + 1)),
        score=Conv2d(30, 3, 1, init=np.random.default_rng(seed + 2)),
    )
    made.astype(dtype)
    return made


def give(made, step, *, times=1):
    """Put gradients where a backward pass would leave them, and return them."""
    rng = np.random.default_rng(step)
    gradients = {name: rng.standard_normal(p.shape) for name, p in made.named_parameters()}
    for _ in range(times):
        for name, p in made.named_parameters():
            (p * gradients[name].astype(p.dtype)).sum().backward()
    return gradients


@pytest.mark.parametrize("shape", [(4, 27), (16, 16), (30, 8), (64, 576)])
def test_all_directions_become_alike_and_none_is_turned(shape, rng):
    """U S V^T keeps U and V: what comes out has its singular vectors, and values near 1 wherever S was not tiny."""
    matrix = rng.standard_normal(shape)
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    assert s[0] / s[-1] > 1.5
    found = u.T @ orthogonal(matrix) @ v.T
    values = np.diag(found)
    assert np.abs(found - np.diag(values)).max() < 1e-9
    assert values.max() < 1.25 and values[s > 0.02 * s[0]].min() > 0.65
    single = orthogonal(matrix.astype(np.float32))
    assert single.dtype == np.float32 and np.abs(single - orthogonal(matrix)).max() < 1e-3


def test_the_size_of_a_gradient_does_not_matter_and_none_at_all_is_no_step(rng):
    matrix = rng.standard_normal((6, 9))
    np.testing.assert_allclose(orthogonal(matrix * 1e-3), orthogonal(matrix), atol=1e-6)
    assert not orthogonal(np.zeros((3, 5))).any()


def test_the_rule_line_by_line():
    ours, adam = net(), net()
    muon = Muon(ours, lr=0.0, betas=(0.8, 0.95), weight_decay=0.02)
    others = Adam(adam, lr=0.0, betas=(0.8, 0.95), weight_decay=0.02)
    w = ours.state_dict()
    m = {name: np.zeros_like(array) for name, array in w.items()}
    for step, lr in enumerate((0.1, 0.02, 0.3)):
        g = give(ours, step)
        give(adam, step)
        muon.lr, others.lr = lr, lr * Muon.ADAM
        muon.step()
        others.step()
        for name, array in ours.state_dict().items():
            if name not in ("first.w", "thin.w"):
                np.testing.assert_allclose(array, adam.state_dict()[name], rtol=1e-12)
                continue
            m[name] = 0.8 * m[name] + 0.2 * g[name]
            ahead = (0.2 * g[name] + 0.8 * m[name]).reshape(len(array), -1)
            taller = math.sqrt(max(1, ahead.shape[0] / ahead.shape[1]))
            w[name] = w[name] - lr * (taller * orthogonal(ahead).reshape(array.shape) + 0.02 * w[name])
            np.testing.assert_allclose(array, w[name], rtol=1e-12)
    assert all(p.grad is None for p in ours.parameters())


def test_as_in_pytorch(torch):
    """Whose products are in bfloat16, of three digits."""
    ours = net("float32")
    muon = Muon(ours, lr=0.1, betas=(0.95, 0.999), weight_decay=0.1, multipliers=lambda name: (1.0, 1.0))
    shapes = {name: p.shape for name, p in ours.named_parameters() if name in ("first.w", "thin.w")}
    w = ours.state_dict()
    theirs = {name: torch.nn.Parameter(torch.tensor(w[name].reshape(len(w[name]), -1))) for name in shapes}
    oracle = torch.optim.Muon(theirs.values(), lr=0.1, momentum=0.95, weight_decay=0.1)
    for step in range(4):
        g = give(ours, step)
        for name, p in theirs.items():
            p.grad = torch.tensor(g[name].reshape(tuple(p.shape)).astype(np.float32))
        muon.step()
        oracle.step()
    for name, p in theirs.items():
        found, wanted = ours.state_dict()[name] - w[name], p.detach().numpy().reshape(shapes[name]) - w[name]
        assert np.linalg.norm(found - wanted) < 0.03 * np.linalg.norm(wanted)


def test_accumulated_gradients_are_a_mean_and_biases_have_twice_the_rate():
    halves, whole = net(), net()
    before = whole.state_dict()
    for made, times in ((halves, 2), (whole, 1)):
        give(made, 0, times=times)
        Muon(made, lr=0.1, weight_decay=0.3).step(accumulated=times)
    for name, array in halves.state_dict().items():
        np.testing.assert_allclose(array, whole.state_dict()[name], rtol=1e-9, atol=1e-9)
    moved = np.abs(whole.state_dict()["score.b"] - before["score.b"])
    np.testing.assert_allclose(moved, caffe_multipliers("score.b")[0] * 0.1 * Muon.ADAM, rtol=1e-6)


def test_a_loaded_state_goes_on_as_if_never_stopped():
    straight, resumed = net("float32"), net("float32", seed=7)
    muon = Muon(straight, lr=0.05, weight_decay=0.01)
    for step in range(6):
        if step == 3:
            resumed.load_state_dict(straight.state_dict())
            again = Muon(resumed, lr=0.05, weight_decay=0.01)
            again.load_state_dict(muon.state_dict())
        give(straight, step)
        muon.step()
        if step >= 3:
            give(resumed, step)
            again.step()
    assert all(np.array_equal(array, straight.state_dict()[name]) for name, array in resumed.state_dict().items())


def test_the_strict_device_takes_the_same_step(fake_gpu):
    nets = [net("float32"), net("float32").to("gpu")]
    for made in nets:
        rng = np.random.default_rng(3)
        for p in made.parameters():
            g = rng.standard_normal(p.shape).astype(np.float32)
            (p * (g if made is nets[0] else fake_gpu.asarray(g))).sum().backward()
        Muon(made, lr=0.1).step()
    ours, theirs = (made.state_dict() for made in nets)
    assert all(np.allclose(ours[name], theirs[name], atol=1e-6) for name in ours)


def test_it_learns(rng):
    made = Sequential(first=Conv2d(1, 4, 3, padding=1, relu=True, init=rng), score=Conv2d(4, 2, 1, init="zero"))
    x = rng.standard_normal((2, 1, 12, 12)).astype(np.float32)
    muon, losses = Muon(made, lr=0.2), []
    for _ in range(60):
        loss = ops.softmax_cross_entropy(made(x), (x[:, 0] > 0).astype(int))
        losses.append(loss.item())
        loss.backward()
        muon.step()
    assert losses[0] == pytest.approx(math.log(2), rel=1e-6) and losses[-1] < 0.15


@pytest.mark.parametrize("options", [{"lr": -0.1}, {"lr": 0.1, "betas": (1.0, 0.9)}], ids=str)
def test_rates_that_cannot_be_are_refused(options):
    with pytest.raises(UsageError, match=r"^Muon: lr .* betas .* expected"):
        Muon(net(), **options)
