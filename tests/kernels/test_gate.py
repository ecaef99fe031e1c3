"""Work on single pixels a few planes at a time gives, to the bit, what it gives at once, on any number of threads."""

import numpy as np
import pytest
from op_cases import by_hand

from minifcn import ops
from minifcn.kernels import planes, threads
from minifcn.optim import BLOCK, sgd_update

X_SHAPE = (2, 5, 9, 8)


def in_pieces(monkeypatch):
    """Pieces of about two planes, on two threads."""
    monkeypatch.setattr(planes, "PIECE", 2 * 4 * X_SHAPE[2] * X_SHAPE[3])
    monkeypatch.setattr(planes, "ALONE", 0)
    threads.set_threads(2)


@pytest.fixture(autouse=True)
def threads_as_before():
    pytest.importorskip("threadpoolctl")
    yield
    threads.set_threads(None)


def numbers(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype("float32")


def test_every_plane_is_in_exactly_one_part(monkeypatch):
    in_pieces(monkeypatch)
    x, met = numbers(*X_SHAPE), []
    planes.by_planes(met.append, x)
    count = np.zeros(x.shape[:2], int)
    for part in met:
        count[part] += 1
    assert len(met) > 2 and (count == 1).all()


OPS = {
    "pool 2/2": lambda x: ops.max_pool2d.__wrapped__(x, kernel_size=2, ceil_mode=True),
    "pool 3/2": lambda x: ops.max_pool2d.__wrapped__(x, kernel_size=3, stride=2, padding=1),
    "pool 3x2, dilated": lambda x: ops.max_pool2d.__wrapped__(x, kernel_size=(3, 2), stride=1, dilation=2),
    "conv and relu": lambda x: by_hand(
        ops.conv2d, x, numbers(4, 5, 3, 3), np.linspace(-1, 1, 4, dtype="float32"), padding=1, relu=True
    ),
}


@pytest.mark.parametrize("name", OPS)
def test_a_few_planes_at_a_time_are_the_whole(name, monkeypatch):
    x = numbers(*X_SHAPE)
    threads.set_threads(1)
    y, gradients = OPS[name](x)
    gy = np.random.default_rng(7).standard_normal(y.shape).astype("float32")
    whole = [y, *(gradient(gy) for gradient in gradients)]
    in_pieces(monkeypatch)
    y, gradients = OPS[name](x)
    pieces = [y, *(gradient(gy) for gradient in gradients)]
    assert all(np.array_equal(one, other) for one, other in zip(pieces, whole, strict=True))


def test_gy_of_any_strides_passes_a_rectifier(monkeypatch):
    in_pieces(monkeypatch)
    y, gy = numbers(*X_SHAPE), np.repeat(numbers(*X_SHAPE)[:, ::-1], 2, axis=3)[..., ::2]
    gy.setflags(write=False)
    assert np.array_equal(planes.rectified(gy, y), np.where(y > 0, gy, 0))
    assert np.array_equal(planes.channel_sums(gy), gy.sum(axis=(2, 3)).sum(axis=0))


def test_large_parameters_are_updated_alike_on_one_thread_and_on_two():
    results = []
    for count in (1, 2):
        threads.set_threads(count)
        w, g, h = (np.random.default_rng(seed).standard_normal(9 * BLOCK + 5).astype("float32") for seed in range(3))
        sgd_update(w, g, h, momentum=0.9, gain=0.5, shrink=0.25)
        results.append((w, h))
    (w, h), (other_w, other_h) = results
    before = np.random.default_rng(0).standard_normal(len(w)).astype("float32")
    assert np.array_equal(w, other_w) and np.array_equal(h, other_h)
    assert np.array_equal(w, before - h) and (w != before).all()
