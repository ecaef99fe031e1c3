"""`with inference(net):` computes the same numbers, sooner, and enforces the promise that makes it right."""

import concurrent.futures

import numpy as np
import pytest

import minifcn
from minifcn.inference import inference
from minifcn.kernels import convolution, winograd
from minifcn.nn import Conv2d, Dropout, Sequential, evaluating
from minifcn.tensor import Parameter, no_grad


@pytest.fixture
def net(rng):
    return Sequential(
        conv1=Conv2d(3, 64, 3, padding=1, relu=True, init=rng),
        drop=Dropout(0.5, rng=rng),
        conv2=Conv2d(64, 96, 3, padding=1, init=rng),
    )


@pytest.fixture
def transformed(monkeypatch):
    """The weights whose filters were transformed, one entry for each time."""
    seen, transform = [], winograd.transform_filters
    monkeypatch.setattr(winograd, "transform_filters", lambda w: seen.append(w) or transform(w))
    return seen


@pytest.mark.parametrize("size", [40, 12])  # many tiles, and fewer than there are filters
@pytest.mark.parametrize("way", [*convolution.WAYS, None])
def test_the_same_bits_as_outside(net, rng, size, way):
    x = rng.standard_normal((1, 3, size, size), dtype="float32")
    forced = way or "winograd"
    with convolution.convolution(forced):
        plain = net.eval()(x).data
        with inference(net) as inside:
            assert inside is net
            assert all(np.array_equal(net(x).data, plain) for _ in range(2))
        assert np.array_equal(net(x).data, plain)


def test_filters_are_transformed_once_and_dropped(net, rng, transformed):
    x = rng.standard_normal((1, 3, 48, 48), dtype="float32")
    with inference(net):
        for _ in range(3):
            with inference(net):  # the inner block adds to what the outer one keeps
                net(x)
        assert [w is net.conv2.w.data for w in transformed] == [True]
    assert not convolution.FILTERS()
    with inference(net):
        net(x)
    assert len(transformed) == 2


def test_a_net_that_trains_meanwhile_is_not_cached(net, rng):
    other = Conv2d(64, 64, 3, padding=1, init=rng)
    x = rng.standard_normal((1, 64, 48, 48), dtype="float32")
    with inference(net):
        before = other(x).data
        other.w.data *= 2
        assert np.allclose(other(x).data, 2 * before, rtol=1e-3, atol=1e-3)


def test_a_write_inside_raises(net):
    before = net.state_dict()
    with inference(net):
        with pytest.raises(ValueError, match="read-only"):
            net.conv1.w.data *= 2
        with pytest.raises(ValueError, match="read-only"):
            net.conv2.b.data[0] = 1
    assert all(np.array_equal(array, before[name]) for name, array in net.state_dict().items())
    net.conv1.w.data *= 2


def test_training_inside_fails_instead_of_spoiling_the_cache(net, rng):
    x = rng.standard_normal((1, 3, 8, 8), dtype="float32")
    solver = minifcn.SGD(net, lr=1.0)
    net(x).sum().backward()
    with inference(net), pytest.raises(ValueError, match="read-only"):
        solver.step()


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_restored(net, fails):
    net.conv1.training = False
    net.conv1.b.data.flags.writeable = False
    modes = [module.training for module in net.modules()]
    arrays = [parameter.data for parameter in net.parameters()]
    try:
        with inference(net):
            assert not any(module.training for module in net.modules())
            assert not any(array.flags.writeable for array in arrays)
            assert net(np.ones((1, 3, 4, 4), np.float32)).node is None
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        assert fails
    assert [module.training for module in net.modules()] == modes == [True, False, True, True]
    assert [array.flags.writeable for array in arrays] == [True, False, True, True]
    assert not convolution.FILTERS()
    assert net(np.ones((1, 3, 4, 4), np.float32)).node is not None


def test_a_parameter_that_is_part_of_another_is_restored(rng):
    net = Sequential(conv1=Conv2d(3, 4, 3, init=rng), conv2=Conv2d(3, 2, 3, init=rng))
    net.conv2.w, net.conv1.w = net.conv1.w, Parameter(net.conv1.w.data[:2])  # the part comes first
    with inference(net):
        pass
    assert all(parameter.data.flags.writeable for parameter in net.parameters())


def test_blocks_of_several_threads_leave_the_weights_as_they_were(net, rng):
    x = rng.standard_normal((1, 3, 12, 12), dtype="float32")
    plain = net.eval()(x).data

    def predict():
        for _ in range(40):
            with inference(net):
                assert np.array_equal(net(x).data, plain) and not net.conv1.w.data.flags.writeable

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(predict) for _ in range(2)]:
            future.result()
    assert all(p.data.flags.writeable for p in net.parameters()) and not convolution.FILTERS()


BLOCKS = {
    "no_grad": lambda net: no_grad(),
    "inference": inference,
    "evaluating": evaluating,
    "convolution": lambda net: convolution.convolution("blocks"),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_the_state_of_a_block_ends_with_it(name, net):
    """However it ends: by an exception, nested, in a generator that is closed or dropped, or by another thread."""

    def state():
        p = net.conv1.w
        return (p * np.float32(1)).node is None, p.data.flags.writeable, net.training, convolution.FORCED()

    def generator():
        with BLOCKS[name](net):
            yield

    before = state()
    with pytest.raises(KeyError), BLOCKS[name](net):
        with BLOCKS[name](net):
            assert state() != before
        assert state() != before
        raise KeyError
    assert state() == before
    for end in (lambda block: block.close(), lambda block: list(block), lambda block: None):
        block = generator()
        next(block)
        assert state() != before
        end(block)
        del block
        assert state() == before
    block = BLOCKS[name](net)
    block.__enter__()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: name not in ("no_grad", "convolution") or state() == before).result()
        pool.submit(block.__exit__, None, None, None).result()
    assert state() == before


def test_blocks_may_end_in_any_order(net):
    first, second = inference(net), inference(net)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with pytest.raises(ValueError, match="read-only"):
        net.conv1.w.data *= 2
    second.__exit__(None, None, None)
    net.conv1.w.data *= 2
