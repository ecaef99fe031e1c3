"""The kernels in CUDA C, compiled for the CPU (cuda_on_host.py), equal their NumPy forms."""

import numpy as np
import pytest
from cuda_on_host import COMPILER, raw_kernel
from op_cases import CASES, by_hand
from some_slow import slow_but
from test_kernels import CASES as GEOMETRIES
from test_kernels import arrays

from minifcn import ops
from minifcn.backend import to_device, to_host
from minifcn.kernels import fused, products
from minifcn.kernels.convolution import correlate, spread, weigh
from minifcn.kernels.im2col import Windows
from minifcn.models.fcn import FCN8s
from minifcn.nn import Module
from minifcn.optim import SGD, Adam
from minifcn.tensor import Parameter, Tensor
from minifcn.training.step import train_step

OPS = ("conv2d", "conv_transpose2d", "max_pool2d", "softmax_cross_entropy", "bilinear_upsample")
OP_CASES = [case for op in OPS for case in CASES[op].values()]
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.fixture
def ran(fused_gpu, monkeypatch):
    """The names of the kernels that ran."""
    names, call = [], fused.Kernel.__call__
    monkeypatch.setattr(fused.Kernel, "__call__", lambda self, *a, **k: (names.append(self.name), call(self, *a, **k)))
    return names


def on_gpu(*given):
    return [to_device(np.asarray(x), "gpu") for x in given]


def same(found, expected):
    """The same bits, or NaN in the same places."""
    found = to_host(found)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


def run(case, dtype, device):
    """Value and gradients, under one random gy."""
    inputs, options = case.at(dtype, device)
    y, gradients = by_hand(getattr(ops, case.op), *inputs, **options)
    gy = to_device(np.random.default_rng(7).standard_normal(y.shape).astype(dtype), device)
    return [to_host(y), *(to_host(gradients[i](gy)) for i in case.differentiable)]


@pytest.mark.parametrize("case", OP_CASES, ids=str)
@dtypes
def test_every_case_of_the_ops_gives_the_same(case, dtype, ran):
    tolerance = 2e-6 if dtype == "float32" else 1e-14
    for found, expected in zip(run(case, dtype, "gpu"), run(case, dtype, "cpu"), strict=True):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * max(1, np.abs(expected).max()))
    assert ran or not found.size


SPACES = [
    (256 << 20, "float32"),
    (256 << 20, "float64"),
    (600, "float32"),
    (600, "float64"),
    (1, "float32"),
    (1, "float64"),
]


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize(("workspace", "dtype"), slow_but(SPACES[1:3], SPACES, "hundreds of small blocks"))
def test_columns_and_pixels_are_those_of_im2col(name, workspace, dtype, ran):
    """To the bit, since the products are the same: whole, in blocks of several rows, and window by window."""
    x, w, gy, g = arrays(name, dtype)
    x, w, gy = on_gpu(x, w, gy)
    b, size = w[:, 0, 0, 0], x.shape[2:]
    with products.GPU_WORKSPACE.set(workspace):
        found = [correlate(x, w, g, b, relu=True), spread(gy, w, g, size), weigh(x, gy, g)]
        assert set(ran) == {"columns", "outputs", "pixels"}
        with fused.plain():
            expected = [correlate(x, w, g, b, relu=True), spread(gy, w, g, size), weigh(x, gy, g)]
    for mine, theirs in zip(found, expected, strict=True):
        same(mine, to_host(theirs))


def test_a_view_needs_no_copy(ran):
    """A crop of a batch that is laid out channel by channel, as `rectified` makes it."""
    x, w, _, g = arrays("3x3 strided", "float32")
    (whole,) = on_gpu(np.pad(x, ((0, 0), (0, 0), (1, 2), (2, 1))).transpose(1, 0, 2, 3).copy())
    view, (w_there,) = whole.transpose(1, 0, 2, 3)[:, :, 1:-2, 2:-1], on_gpu(w)
    assert not view.flags.c_contiguous
    np.testing.assert_allclose(to_host(correlate(view, w_there, g)), correlate(x, w, g), rtol=1e-5, atol=1e-5)


POOLINGS = [
    {"kernel_size": 2, "ceil_mode": True},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    {"kernel_size": 3, "stride": 1, "padding": 1},
    {"kernel_size": (2, 3), "stride": (3, 2), "padding": (1, 1)},
    {"kernel_size": 2, "stride": 3, "dilation": 2},
    {"kernel_size": (9, 8)},
]


@pytest.mark.parametrize("options", POOLINGS, ids=str)
@pytest.mark.parametrize("special", ["none", "ties", "nan", "infinite"])
def test_max_pooling(options, special, ran, rng):
    x = rng.standard_normal((2, 3, 9, 8)).astype("float32")
    if special == "ties":
        x = np.round(x)
    if special in ("nan", "infinite"):
        x[rng.random(x.shape) < 0.2] = np.nan if special == "nan" else np.inf
        x[rng.random(x.shape) < 0.2] = -np.inf
    y, (grad_x,) = ops.max_pool2d.__wrapped__(x, **options)
    there, (grad_there,) = ops.max_pool2d.__wrapped__(*on_gpu(x), **options)
    same(there, y)
    gy = rng.standard_normal(y.shape).astype("float32")
    np.testing.assert_allclose(to_host(grad_there(*on_gpu(gy))), grad_x(gy), rtol=1e-6, atol=1e-6)
    assert ran == ["pooled", "unpooled"]


@pytest.mark.parametrize("labels", ["uint8", "int32", "int64"])
@pytest.mark.parametrize("special", ["none", "nan", "infinite"])
def test_softmax_cross_entropy(labels, special, ran, rng):
    x, label = rng.standard_normal((2, 5, 4, 3)).astype("float32") * 9, rng.integers(0, 5, (2, 4, 3)).astype(labels)
    label[0, :2] = 255
    weights = rng.random(5).astype("float32")
    x[0, :, 0, 0] = {"none": 1e30, "nan": np.nan, "infinite": np.inf}[special]  # where no pixel counts
    given = x, label, weights
    found, expected = [], []
    for device, results in (("cpu", expected), ("gpu", found)):
        x, label, weights = (to_device(each, device) for each in given)
        with np.errstate(all="ignore"):
            loss, (grad_x, _) = ops.softmax_cross_entropy.__wrapped__(x, label, weights=weights)
            results += [to_host(loss), to_host(grad_x(loss * 0 + 2))]
    for mine, theirs in zip(found, expected, strict=True):
        assert np.isfinite(mine).all()
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    assert ran == ["softmax", "softmax_grad"]


@pytest.mark.parametrize("layout", ["transposed", "by column", "every second"])
def test_labels_and_weights_lie_in_memory_as_they_like(layout, ran, rng):
    x, label = rng.standard_normal((2, 5, 4, 3)).astype("float32"), rng.integers(0, 6, (2, 4, 3)).astype("int64")
    label[label == 5] = -1
    lay = {
        "transposed": lambda a: a.transpose(0, 2, 1).copy().transpose(0, 2, 1),
        "by column": np.asfortranarray,
        "every second": lambda a: np.repeat(a, 2, axis=2)[:, :, ::2],
    }[layout]
    laid, (keep,) = lay(label), on_gpu(np.asfortranarray(label != 2).astype("uint8"))
    there, (labels_there,) = on_gpu(x)[0], (fused_view(laid),)
    options = {"ignore_index": -1}
    loss, (grad_x, _) = ops.softmax_cross_entropy.__wrapped__(x, label, sampling=to_host(keep), **options)
    found, (grad_there, _) = ops.softmax_cross_entropy.__wrapped__(there, labels_there, sampling=keep, **options)
    np.testing.assert_allclose(to_host(found), loss, rtol=1e-6)
    np.testing.assert_allclose(to_host(grad_there(found * 0 + 1)), grad_x(np.float32(1)), rtol=1e-5, atol=1e-7)
    assert ran == ["softmax", "softmax_grad"]


def fused_view(array):
    """The array on the GPU, with the strides that it has here."""
    from fake_device import DeviceArray

    (there,) = on_gpu(array)
    return DeviceArray(array, there._module)


@pytest.mark.parametrize("wrong", [5, 254, -1])
def test_a_label_that_is_no_class_makes_the_loss_nan(wrong, ran, rng):
    """A GPU's labels are not looked at beforehand; beside the scores lies memory of something else."""
    x, label = rng.standard_normal((1, 5, 4, 3)).astype("float32"), np.zeros((1, 4, 3), "int64")
    label[0, 1, 1] = wrong
    loss, (grad_x, _) = ops.softmax_cross_entropy.__wrapped__(*on_gpu(x, label), ignore_index=255)
    assert np.isnan(to_host(loss))
    assert grad_x(loss).shape == x.shape


@pytest.mark.parametrize("kind", [SGD, Adam])
def test_more_threads_than_32_bits_can_number(kind, fused_gpu, monkeypatch):
    """Every kernel in its wide form, which arrays of more than two thousand million numbers need."""
    seen, source = set(), fused.Kernel.source
    monkeypatch.setattr(
        fused.Kernel, "source", lambda self, types, wide: (seen.add((self.name, wide)), source(self, types, wide))[1]
    )
    expected = steps("gpu", count=2, kind=kind)
    fused.compiled.cache_clear()
    monkeypatch.setattr(fused, "NARROW", 0)
    found = steps("gpu", count=2, kind=kind)
    assert {name for name, wide in seen if wide} == {kernel.name for kernel in fused.KERNELS} - {
        {SGD: "adam", Adam: "sgd"}[kind]
    }
    assert np.array_equal(found[1], expected[1])
    assert all(np.array_equal(value, expected[0][name]) for name, value in found[0].items())


def test_a_relu_lets_nan_pass_and_nothing_else(ran, rng):
    y, gy = rng.standard_normal((2, 3, 2, 2, 2)).astype("float32")[:2, :, :, :, 0], np.full((2, 3, 2, 2), np.inf, "f4")
    y = np.ascontiguousarray(y)
    y[0, 0] = [[np.nan, 0], [-1, 1]]
    gx = fused.rectified(*on_gpu(gy, y))
    same(gx, np.where(~(y <= 0), gy, 0))
    assert gx.transpose(1, 0, 2, 3).flags.c_contiguous


@pytest.mark.parametrize("kind", [SGD, Adam])
@pytest.mark.parametrize("decay", [0, 0.01])
@dtypes
def test_an_update_is_that_of_numpy_to_the_bit(kind, decay, dtype, ran, rng):
    start, gradients = rng.standard_normal((5, 7)).astype(dtype), rng.standard_normal((4, 5, 7)).astype(dtype)

    class Net(Module):
        def __init__(self, device):
            self.w = Parameter(to_device(start.copy(), device))

    nets = Net("cpu"), Net("gpu")
    for net, device in zip(nets, ("cpu", "gpu"), strict=True):
        rule = kind(net, lr=0.1, weight_decay=decay)
        for gradient in gradients:
            net.w.grad = to_device(gradient.copy(), device)
            rule.step(accumulated=3)
    same(nets[1].w.data, nets[0].w.data)
    assert set(ran) == {kind.__name__.lower()}


@pytest.mark.parametrize("kind", [SGD, Adam])
def test_a_net_that_changes_its_dtype_is_updated_as_on_the_cpu(kind, ran, rng):
    """What the optimizer keeps stays float32, and a kernel for float64 would read beyond it."""
    start, gradient = rng.standard_normal((2, 5)).astype("float32")
    ends = []
    for device in ("cpu", "gpu"):
        net = Module()
        net.w = Parameter(to_device(start.copy(), device))
        rule = kind(net, lr=0.1)
        for dtype in ("float32", "float64"):
            net.astype(dtype).w.grad = to_device(gradient.astype(dtype), device)
            rule.step()
        ends.append(to_host(net.w.data))
    same(ends[1], ends[0])
    assert ran == [kind.__name__.lower()]


def steps(device, count=3, kind=SGD):
    """The weights after a few training steps of a small net, and its losses."""
    net = FCN8s(layers=11, width=4, padding="same", classes=5)
    x = np.random.default_rng(1).standard_normal((2, 3, 48, 40)).astype("float32")
    labels = np.random.default_rng(2).integers(0, 5, (2, 48, 40))
    rule = kind(net.to(device).train(), lr=1e-2)
    losses = [
        train_step(rule, [ops.softmax_cross_entropy(net(Tensor(to_device(x, device))), to_device(labels, device))])
        for _ in range(count)
    ]
    return net.state_dict(), np.array(losses)


def test_three_training_steps(fused_gpu):
    """As on the CPU, and twice the same bits; a step waits for nothing but its loss."""
    state, losses = steps("gpu")
    waited = fused_gpu.downloads
    again, _ = steps("gpu")
    assert fused_gpu.downloads - waited == waited == 3 + len(state)
    expected, at_home = steps("cpu")
    np.testing.assert_allclose(losses, at_home, rtol=1e-5)
    for name, value in state.items():
        assert np.array_equal(value, again[name])
        assert np.abs(value - expected[name]).max() < 1e-4 * np.abs(expected[name]).max()


def test_every_kernel_is_explained_and_none_is_forgotten():
    every = {value.name: value for value in vars(fused).values() if isinstance(value, fused.Kernel)}
    assert {kernel.name for kernel in fused.KERNELS} == set(every)
    for name, kernel in every.items():
        assert f"{name}" in fused.__doc__ and "//" in kernel.body


def test_plain_arrays_and_other_dtypes_are_not_served(fused_gpu):
    assert not fused.serves(np.zeros(3, "float32"))
    assert fused.serves(fused_gpu.zeros(3, dtype="float32")) and not fused.serves(fused_gpu.zeros(3, dtype="int64"))
    with fused.plain():
        assert not fused.serves(fused_gpu.zeros(3, dtype="float32"))


def test_nothing_to_do_is_not_launched(fused_gpu):
    fused_gpu.RawKernel = None
    (x,) = on_gpu(np.zeros((0, 3, 4, 4), "float32"))
    assert fused.pooled(x, Windows((2, 2), (2, 2)), (2, 2)).shape == (0, 3, 2, 2)


@pytest.mark.skipif(not COMPILER, reason="no C++ compiler is installed")
@pytest.mark.parametrize("fault", ["a view", "its own input", "a Python number", "too few"])
def test_the_shim_is_strict(fault):
    code = 'extern "C" __global__ void twice(int count, const float* x, OUT float* y) {\n  y[0] = 2 * x[0];\n}\n'
    twice = raw_kernel("#define OUT\n" + code, "twice", lambda array: array)
    x, y = np.ones(4, np.float32), np.zeros(4, np.float32)
    twice((1,), (1,), (np.int32(4), x, y))
    assert y[0] == 2
    arguments = {
        "a view": (np.int32(4), x[::2], y),
        "its own input": (np.int32(4), x, x),
        "a Python number": (4, x, y),
        "too few": (np.int32(4), x),
    }
    with pytest.raises(AssertionError):
        twice((1,), (1,), arguments[fault])


@pytest.mark.parametrize("kernel", fused.KERNELS, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("card", ["75", "80", "90"])
@dtypes
def test_the_compiler_of_cuda_takes_it(kernel, card, dtype, cupy):
    """NVRTC needs no GPU to compile for one."""
    from cupy.cuda import nvrtc

    types = (("T", dtype), ("L", "uint8")) if "L*" in kernel.parameters else (("T", dtype),)
    for wide in (False, True):
        program = nvrtc.createProgram(kernel.source(types, wide), f"{kernel.name}.cu", (), ())
        try:
            nvrtc.compileProgram(program, (f"--gpu-architecture=compute_{card}", "--fmad=false"))
        except nvrtc.NVRTCError:
            pytest.fail(nvrtc.getProgramLog(program))
        assert kernel.name in nvrtc.getPTX(program).decode()
