"""The fake device refuses what it promises to refuse; a guard that lets everything through would prove nothing."""

import numpy as np
import pytest
from fake_device import DeviceArray, FakeCupy, fake_cupy

import minifcn
from minifcn.backend import to_device, to_host, xp_of
from minifcn.training.device import choose_device


@pytest.fixture
def x(fake_gpu: FakeCupy) -> DeviceArray:
    return fake_gpu.asarray(np.arange(6, dtype=np.float32).reshape(2, 3))


def test_it_computes_what_numpy_computes(fake_gpu: FakeCupy, x: DeviceArray) -> None:
    host = np.arange(6, dtype=np.float32).reshape(2, 3)
    y = fake_gpu.maximum(x * 2 - 3, 0).sum(axis=1, keepdims=True) @ fake_gpu.ones((1, 2), dtype=x.dtype)
    assert isinstance(y, DeviceArray) and y.dtype == np.float32
    expected = np.maximum(host * 2 - 3, 0).sum(axis=1, keepdims=True) @ np.ones((1, 2), np.float32)
    np.testing.assert_array_equal(to_host(y), expected)
    x[:, 1:] += 1
    assert to_host(x).tolist() == [[0, 2, 3], [3, 5, 6]]
    assert to_host(fake_gpu.concatenate([x, x], axis=0)).shape == (4, 3)
    assert (fake_gpu.uploads, fake_gpu.downloads) == (1, 3)


def test_it_is_the_gpu(fake_gpu: FakeCupy) -> None:
    assert choose_device("auto")[0] == choose_device("gpu")[0] == "gpu"
    x = to_device(np.zeros(2, np.float32), "gpu")
    assert xp_of(None, 1.0, x) is fake_gpu
    assert isinstance(to_host(x), np.ndarray) and isinstance(to_device(x, "cpu"), np.ndarray)


REFUSED = {
    "NumPy array on the right": lambda xp, x: x + np.ones((2, 3), np.float32),
    "NumPy array on the left": lambda xp, x: np.ones((2, 3), np.float32) + x,
    "NumPy scalar": lambda xp, x: x * np.float64(2),
    "NumPy scalar on the left": lambda xp, x: np.float64(2) * x,
    "NumPy array as an argument": lambda xp, x: xp.where(x > 0, x, np.zeros((2, 3), np.float32)),
    "list": lambda xp, x: x + [1, 2, 3],
    "list as an argument": lambda xp, x: xp.maximum(x, [0, 0, 0]),
    "NumPy function": lambda xp, x: np.exp(x),
    "NumPy reduction": lambda xp, x: np.sum(x),
    "np.asarray": lambda xp, x: np.asarray(x),
    "float": lambda xp, x: float(x.sum()),
    "int": lambda xp, x: int(x.sum()),
    "bool": lambda xp, x: bool(x.sum() > 0),
    "if": lambda xp, x: 1 if (x > 0).any() else 0,
    "iteration": lambda xp, x: list(x),
    "NumPy index": lambda xp, x: x[np.array([0, 1])],
    "list index": lambda xp, x: x[[0, 1]],
    "NumPy value": lambda xp, x: x.__setitem__(0, np.zeros(3, np.float32)),
    "negative to unsigned": lambda xp, x: (x - 3).astype(np.uint8),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refuses(what: str, fake_gpu: FakeCupy, x: DeviceArray) -> None:
    with pytest.raises(TypeError):
        REFUSED[what](fake_gpu, x)


def test_a_program_may_wait_for_one_number_and_for_nothing_else() -> None:
    xp = fake_cupy(waits=True)
    x = xp.asarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert (x.sum() > 14) and float(x.sum()) == 15.0 and int(x[1, 2]) == 5
    answered = {"float", "int", "bool", "if"}
    for what in set(REFUSED) - answered:
        with pytest.raises(TypeError):
            REFUSED[what](xp, x)
    with pytest.raises(ValueError, match="size 1"):
        bool(x > 0)


def test_refuses_indices_that_cupy_would_wrap_or_race_on(fake_gpu: FakeCupy, x: DeviceArray) -> None:
    with pytest.raises(IndexError):
        x[fake_gpu.asarray([0, 255])]
    with pytest.raises(IndexError, match="repeated"):
        x[fake_gpu.asarray([0, 0])] = 1
    with pytest.raises(IndexError, match="repeated"):
        x[fake_gpu.asarray([1, 1])] += 1
    fake_gpu.add.at(x, fake_gpu.asarray([1, 1]), 1)  # the way that is defined
    assert to_host(x)[1].tolist() == [5, 6, 7]


def test_has_only_what_cupy_has(fake_gpu: FakeCupy, x: DeviceArray) -> None:
    assert hasattr(np, "apply_along_axis") and hasattr(fake_gpu, "apply_along_axis")
    for name in ("nditer", "nested_iters", "busday_count"):
        with pytest.raises(AttributeError):
            getattr(fake_gpu, name)
    with pytest.raises(AttributeError):
        x.setflags(write=False)
    with pytest.raises(AttributeError, match="host"):
        fake_gpu.random.default_rng(0)


def test_finds_float64(fake_gpu: FakeCupy, x: DeviceArray) -> None:
    with fake_gpu.no_float64():
        x * 2.0
        with pytest.raises(AssertionError, match="float64"):
            x * fake_gpu.ones((2, 3))


def test_a_training_step_stays_on_the_device_and_in_float32(fake_gpu: FakeCupy) -> None:
    """Forward, loss, backward and update of a whole FCN-8s."""
    net = minifcn.FCN8s(classes=5, width=2, seed=0)
    net.to("gpu")
    net.train()
    opt = minifcn.SGD(net, lr=0.01)
    x = to_device(np.random.default_rng(0).random((1, 3, 33, 40), dtype=np.float32), "gpu")
    labels = to_device(np.zeros((1, 33, 40), np.int64), "gpu")
    before = fake_gpu.uploads, fake_gpu.downloads
    with fake_gpu.no_float64():
        for _ in range(2):
            loss = minifcn.ops.softmax_cross_entropy(net(x), labels)
            loss.backward()
            opt.step()
    assert isinstance(loss.data, DeviceArray) and loss.data.dtype == np.float32
    masks = 2 * 2  # dropout's, drawn on the host: two layers, two steps
    assert (fake_gpu.uploads - before[0], fake_gpu.downloads - before[1]) == (masks, 0)
