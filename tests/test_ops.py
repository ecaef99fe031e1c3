"""Every op on every case of op_cases.py: is the gradient right, and would we have noticed if it were not?"""

import numpy as np
import pytest
from op_cases import ALL, CASES, STRAIGHT, Case

import minifcn.tensor
from minifcn import ops
from minifcn.backend import to_device, to_host, xp_of
from minifcn.errors import GradientError
from minifcn.gradcheck import gradcheck
from minifcn.tensor import OPS, Parameter, op

every_case = pytest.mark.parametrize("case", ALL, ids=str)
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def run(case: Case, dtype: str = "float64", device: str = "cpu"):
    """The value and the gradient of each differentiable input, under one random gradient of the output."""
    inputs, options = case.at(dtype, device)
    wanted = {i: Parameter(inputs[i]) for i in case.differentiable}
    y = OPS[case.op](*(wanted.get(i, x) for i, x in enumerate(inputs)), **options)
    v = np.random.default_rng(1).standard_normal(y.shape).astype(dtype)
    y.backward(to_device(v, device))
    return y.data, {i: p.grad for i, p in wanted.items()}


def close(found, exact, tolerance):
    """Largest deviation over the largest value."""
    return np.abs(to_host(found) - exact).max() <= tolerance * max(np.abs(exact).max(), 1e-30)


def test_every_op_has_cases():
    assert set(CASES) == set(OPS)
    assert set(ops.__all__) == set(OPS)


@every_case
def test_gradients_are_those_of_differences(case):
    assert gradcheck(OPS[case.op], *case.inputs, **case.options) <= 1e-6


@every_case
@dtypes
def test_value_and_gradients_keep_dtype_shape_and_device(case, dtype, device):
    y, gradients = run(case, dtype, device)
    exact, exact_gradients = run(case)
    tolerance = 2e-5 if dtype == "float32" else 1e-12
    assert y.dtype == dtype and xp_of(y) is xp_of(to_device(np.zeros(1), device))
    assert close(y, exact, tolerance)
    for i, gx in gradients.items():
        assert (gx.dtype, gx.shape, xp_of(gx)) == (dtype, case.inputs[i].shape, xp_of(y))
        assert close(gx, exact_gradients[i], tolerance)


@every_case
@dtypes
def test_the_strict_device_computes_the_same_bits(case, dtype, fake_gpu):
    y, gradients = run(case, dtype)
    with np.errstate(all="raise", under="ignore"):
        found, found_gradients = run(case, dtype, "gpu")
    assert isinstance(found, fake_gpu.ndarray)
    assert np.array_equal(to_host(found), y)
    for i, gx in gradients.items():
        assert isinstance(found_gradients[i], fake_gpu.ndarray)
        assert np.array_equal(to_host(found_gradients[i]), gx)


@every_case
def test_float32_makes_no_float64_and_moves_nothing_across(case, fake_gpu):
    inputs, options = case.at("float32", "gpu")
    wanted = [Parameter(x) if i in case.differentiable else x for i, x in enumerate(inputs)]
    shape = OPS[case.op](*inputs, **options).shape
    v = to_device(np.ones(shape, "float32"), "gpu")
    before = fake_gpu.uploads, fake_gpu.downloads
    with fake_gpu.no_float64():
        OPS[case.op](*wanted, **options).backward(v)
    assert (fake_gpu.uploads, fake_gpu.downloads) == before


@every_case
def test_nothing_is_written_into_inputs_or_gradients(case):
    inputs, options = case.at("float64")
    arrays = [x for x in (*inputs, *options.values()) if isinstance(x, np.ndarray)]
    for x in arrays:
        x.flags.writeable = False
    y, gradients = OPS[case.op].__wrapped__(*inputs, **options)
    v = np.ones_like(y)
    v.flags.writeable = False
    for i in case.differentiable:
        gradients[i](v)


@every_case
def test_memory_layout_does_not_matter(case):
    """Views with odd strides come out of every crop, transpose and broadcast; the answer must not depend on them."""
    inputs, options = case.at("float64")
    laid = [
        np.repeat(x, 2, axis=-1)[..., ::2] if i in case.differentiable and x.ndim else x for i, x in enumerate(inputs)
    ]
    y, gradients = OPS[case.op].__wrapped__(*inputs, **options)
    y_laid, gradients_laid = OPS[case.op].__wrapped__(*laid, **options)
    v = np.random.default_rng(2).standard_normal(y.shape)
    v_laid = np.asfortranarray(v)
    assert np.allclose(y, y_laid, rtol=1e-13, atol=1e-13)
    for i in case.differentiable:
        assert np.allclose(gradients[i](v), gradients_laid[i](v_laid), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", [c for c in ALL if c.op in STRAIGHT and not c.options.get("relu")], ids=str)
def test_adjoint(case):
    """<f(x) - f(0), v> = <x, f^T v>, wherever f is a straight line in x: no differences, hardly any rounding."""
    for i in case.differentiable:
        if i not in STRAIGHT[case.op]:
            continue
        y, gradients = OPS[case.op].__wrapped__(*case.inputs, **case.options)
        at_zero = [np.zeros_like(x) if j == i else x for j, x in enumerate(case.inputs)]
        y_zero, _ = OPS[case.op].__wrapped__(*at_zero, **case.options)
        v = np.random.default_rng(3).standard_normal(y.shape)
        left, right = ((y - y_zero) * v).sum(), (case.inputs[i] * gradients[i](v)).sum()
        size = np.abs(y * v).sum() + np.abs(y_zero * v).sum()
        assert abs(left - right) <= 1e-12 * size


# Planted faults: if a gradient were wrong in one of these ways, would gradcheck say so?


def rolled(gx):
    return np.roll(gx.ravel(), 1).reshape(gx.shape)


def one_element_off(gx):
    off = gx.ravel().copy()
    off[off.size // 2] += 0.01 * np.abs(gx).max()
    return off.reshape(gx.shape)


CORRUPTIONS = {
    "zero": lambda gx: 0 * gx,
    "x1.01": lambda gx: 1.01 * gx,
    "negated": lambda gx: -gx,
    "rolled": rolled,
    "one element off": one_element_off,
}

ONE_NUMBER = "an input of one number cannot be rolled"
EVEN = "the gradient is the same for every element, so rolling it changes nothing"
NOTHING = "the output does not depend on the input: its gradient is zero, and so is every corruption of it"

# (op, case, argument, corruption): why it equals the true gradient there. Every other one must differ, and be caught.
EQUAL = {
    **{(op, "with one number", 1, "rolled"): ONE_NUMBER for op in ("add", "sub", "mul", "div")},
    ("sum", "all axes", 0, "rolled"): EVEN,
    ("mean", "all axes", 0, "rolled"): EVEN,
    **{("log_softmax", "one class", 0, c): NOTHING for c in CORRUPTIONS},
    **{
        ("softmax_cross_entropy", name, 0, c): NOTHING
        for name in ("all void", "sampled nowhere", "one class")
        for c in CORRUPTIONS
    },
}


def with_fault(case: Case, argument: int, corrupt):
    """The op of a case as a function of one of its inputs, with the gradient of that input corrupted."""

    def faulty(x):
        inputs = [x if i == argument else other for i, other in enumerate(case.inputs)]
        y, gradients = OPS[case.op].__wrapped__(*inputs, **case.options)
        return y, (lambda gy: corrupt(gradients[argument](gy)),)

    return op(faulty)


@every_case
def test_planted_faults_are_caught(case, monkeypatch):
    _, exact = run(case)
    for argument in case.differentiable:
        for name, corrupt in CORRUPTIONS.items():
            differs = not np.array_equal(corrupt(exact[argument]), exact[argument])
            assert differs != ((case.op, case.name, argument, name) in EQUAL), (argument, name)
            if not differs:
                continue
            with monkeypatch.context() as patch:
                patch.setattr(minifcn.tensor, "OPS", {})
                function = with_fault(case, argument, corrupt)
            with pytest.raises(GradientError, match="gradient of input 0"):
                gradcheck(function, case.inputs[argument])


def test_every_argument_has_a_case_in_which_each_fault_differs():
    for name, cases in CASES.items():
        for argument in {i for case in cases.values() for i in case.differentiable}:
            for corruption in CORRUPTIONS:
                differing = [
                    case
                    for case in cases.values()
                    if argument in case.differentiable and (name, case.name, argument, corruption) not in EQUAL
                ]
                assert differing, f"{name}: no case shows {corruption!r} in argument {argument}"


def test_no_exception_is_out_of_date():
    for name, case, argument, corruption in EQUAL:
        assert corruption in CORRUPTIONS and argument in CASES[name][case].differentiable
