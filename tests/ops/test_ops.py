"""Every op on every case of op_cases.py: is the gradient right, and would we have noticed if it were not?"""

import inspect
import math
import warnings

import numpy as np
import pytest
from op_cases import ALL, CASES, STRAIGHT, Case, by_hand

import minifcn.gradcheck
import minifcn.tensor
from minifcn import ops
from minifcn.backend import to_device, to_host, xp_of
from minifcn.errors import GradientError, ShapeError
from minifcn.gradcheck import gradcheck
from minifcn.tensor import OPS, Parameter, Tensor, op

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
    assert all(getattr(ops, name) is lifted for name, lifted in OPS.items())


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
    y, gradients = by_hand(OPS[case.op], *inputs, **options)
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
    y, gradients = by_hand(OPS[case.op], *inputs, **options)
    y_laid, gradients_laid = by_hand(OPS[case.op], *laid, **options)
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
        y, gradients = by_hand(OPS[case.op], *case.inputs, **case.options)
        at_zero = [np.zeros_like(x) if j == i else x for j, x in enumerate(case.inputs)]
        y_zero, _ = by_hand(OPS[case.op], *at_zero, **case.options)
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
    **{(op, "with one number", 1, "rolled"): ONE_NUMBER for op in ("add", "sub", "mul", "div", "power")},
    ("sum", "all axes", 0, "rolled"): EVEN,
    ("mean", "all axes", 0, "rolled"): EVEN,
    **{(op, "one class", 0, c): NOTHING for op in ("softmax", "log_softmax") for c in CORRUPTIONS},
    **{
        (op, name, 0, c): NOTHING
        for op in ("focal_loss", "dice_loss")
        for name in ("all void", "one class")
        for c in CORRUPTIONS
    },
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
        y, gradients = by_hand(OPS[case.op], *inputs, **case.options)
        return y, (lambda gy: corrupt(gradients[argument](gy)),)

    return op(faulty)


@every_case
def test_planted_faults_are_caught(case, monkeypatch):
    _, exact = run(case)
    differences, seen = minifcn.gradcheck.differences, {}

    def once(function, arrays, i, v, eps, options, places=None):
        """The differences know nothing of the gradient, and are the same for each of its faults."""
        key = argument, eps, places and tuple(places)
        if key not in seen:
            seen[key] = differences(function, arrays, i, v, eps, options, places)
        return seen[key]

    monkeypatch.setattr(minifcn.gradcheck, "differences", once)
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


# Refusals: one sentence that names the op, what was found and what was expected

X = np.zeros((2, 4, 5, 6))
W = np.zeros((6, 4, 3, 3))
B = np.zeros(6)
F32 = np.float32
LABELS = np.zeros((2, 5, 6), "int64")

REFUSED = {
    "add: shapes": (lambda: ops.add(np.zeros((2, 3)), np.zeros((2, 4))), r"add.*\(2, 3\).*\(2, 4\)"),
    "sub: dtypes": (lambda: ops.sub(np.zeros(2), np.zeros(2, F32)), "sub.*float64.*float32"),
    "mul: a NumPy scalar of another dtype": (lambda: ops.mul(np.zeros(2, F32), np.float64(2)), "mul.*float32.*float64"),
    "div: shapes": (lambda: ops.div(np.zeros(3), np.zeros(2)), r"div.*\(3,\).*\(2,\)"),
    "maximum: broadcasting": (lambda: ops.maximum(X, X[:1]), r"maximum.*\(2, 4, 5, 6\).*\(1, 4, 5, 6\)"),
    "power: dtypes": (lambda: ops.power(np.zeros(2), np.zeros(2, F32)), "power: dtypes float64 and float32"),
    "where: the condition": (lambda: ops.where(np.ones(3), X, X), r"where: shapes \(3,\) and \(2, 4, 5, 6\)"),
    "where: values": (lambda: ops.where(np.ones(2), np.ones(2), np.ones(3)), r"where: shapes \(2,\) and \(3,\)"),
    "stack: shapes": (lambda: ops.stack(X, X[:1]), r"stack: shapes .*\(1, 4, 5, 6\)"),
    "stack: nothing": (lambda: ops.stack(), "stack: .*one input"),
    "stack: dtypes": (lambda: ops.stack(X, X.astype(F32)), "stack: .*float32"),
    "nearest_resize: size": (lambda: ops.nearest_resize(X, size=0), "nearest_resize: size is 0"),
    "nearest_resize: rank": (lambda: ops.nearest_resize(X[0], size=2), r"nearest_resize.*\(4, 5, 6\)"),
    "matmul: inner axis": (
        lambda: ops.matmul(np.zeros((2, 3)), np.zeros((2, 3))),
        r"matmul.*\(2, 3\).*\(\.\.\., k, j\)",
    ),
    "matmul: a vector": (lambda: ops.matmul(np.zeros((2, 3)), np.zeros(3)), r"matmul.*\(3,\)"),
    "matmul: dtypes": (lambda: ops.matmul(np.zeros((2, 2)), np.zeros((2, 2), F32)), "matmul.*float64.*float32"),
    "reshape: count": (lambda: ops.reshape(np.zeros(6), shape=(4, 2)), r"reshape: 6 .*\(4, 2\)"),
    "reshape: no divisor": (lambda: ops.reshape(np.zeros(6), shape=(4, -1)), r"reshape: 6 .*\(4, -1\)"),
    "transpose: an axis twice": (lambda: ops.transpose(X, axes=(0, 1, 1, 2)), r"transpose.*\(0, 1, 1, 2\)"),
    "concat: another axis differs": (lambda: ops.concat(X, X[..., 1:]), r"concat.*\(2, 4, 5, 6\).*\(2, 4, 5, 5\)"),
    "concat: nothing": (lambda: ops.concat(), "concat"),
    "concat: dtypes": (lambda: ops.concat(X, X.astype(F32)), "concat.*float64.*float32"),
    "pad: negative": (lambda: ops.pad(X, padding=-1), "pad.*-1.*at least 0"),
    "pad: half a pixel": (lambda: ops.pad(X, padding=0.5), "pad: padding is 0.5.*at least 0"),
    "pad: no number": (lambda: ops.pad(X, padding=True), "pad: padding is True"),
    "pad: two widths": (lambda: ops.pad(X, padding=(1, 2)), r"pad.*\(1, 2\).*top, bottom, left, right"),
    "crop: too far": (lambda: ops.crop(X, like=(5, 5), at=(1, 0)), r"crop.*5x5 at \(1, 0\).*5x6"),
    "crop: negative": (lambda: ops.crop(X, like=(2, 2), at=-1), "crop: at is -1.*at least 0"),
    "crop: a negative size": (lambda: ops.crop(X, like=(-1, 2)), r"crop: like is \(-1, 2\).*at least 1"),
    "crop: no size": (lambda: ops.crop(X, like=(1, 2, 3)), r"crop: like is \(1, 2, 3\)"),
    "dropout: shape": (lambda: ops.dropout(X, mask=X[0]), r"dropout.*\(4, 5, 6\).*\(2, 4, 5, 6\)"),
    "dropout: dtype": (lambda: ops.dropout(X, mask=X > 0), "dropout.*bool.*float64"),
    "conv2d: rank": (lambda: ops.conv2d(X[0], W), r"conv2d.*\(N, C, H, W\).*\(4, 5, 6\)"),
    "conv2d: rank of w": (lambda: ops.conv2d(X, W[0]), r"conv2d: w.*\(4, 3, 3\)"),
    "conv2d: whole numbers": (lambda: ops.conv2d(X.astype("uint8"), W), "conv2d.*float32 or float64.*uint8"),
    "conv2d: channels": (lambda: ops.conv2d(X[:, :3], W), "conv2d.*3 channels.*4"),
    "conv2d: groups": (lambda: ops.conv2d(X, W[:, :2], groups=4), "conv2d.*4 channels.*groups=4.*8"),
    "conv2d: outputs in groups": (lambda: ops.conv2d(X, W[:5, :2], groups=2), "conv2d.*divisible by 2"),
    "conv2d: groups 0": (lambda: ops.conv2d(X, W, groups=0), "groups is 0.*at least 1"),
    "conv2d: stride 0": (lambda: ops.conv2d(X, W, stride=0), "conv2d: stride is 0.*at least 1"),
    "conv2d: stride of three": (lambda: ops.conv2d(X, W, stride=(1, 1, 1)), r"conv2d: stride is \(1, 1, 1\).*a pair"),
    "conv2d: half a stride": (lambda: ops.conv2d(X, W, stride=1.5), "conv2d: stride is 1.5.*whole number"),
    "conv2d: padding": (lambda: ops.conv2d(X, W, padding=(0, -1)), r"conv2d: padding is \(0, -1\).*at least 0"),
    "conv2d: dilation": (lambda: ops.conv2d(X, W, dilation=0), "conv2d: dilation is 0.*at least 1"),
    "conv2d: dilation too large": (lambda: ops.conv2d(X, W, dilation=3), "7x7 pixels.*5x6"),
    "conv2d: kernel too large": (lambda: ops.conv2d(X[..., :2, :2], W), "3x3.*2x2.*pad more"),
    "conv2d: bias": (lambda: ops.conv2d(X, W, B[:5]), r"conv2d: b .*\(5,\).*\(6,\)"),
    "conv2d: dtype of w": (lambda: ops.conv2d(X, W.astype(F32)), "conv2d: x is float64 and w is float32"),
    "conv2d: dtype of b": (lambda: ops.conv2d(X, W, B.astype(F32)), "conv2d: x is float64 and b is float32"),
    "conv2d: no pixels": (lambda: ops.conv2d(X[..., :0], W), r"conv2d.*\(2, 4, 5, 0\)"),
    "conv_transpose2d: channels": (lambda: ops.conv_transpose2d(X, W), "conv_transpose2d.*4 channels.*wants 6"),
    "conv_transpose2d: bias": (lambda: ops.conv_transpose2d(X, W[:4], B), r"conv_transpose2d: b .*\(6,\).*\(4,\)"),
    "conv_transpose2d: dtype of w": (
        lambda: ops.conv_transpose2d(X, W[:4].astype(F32)),
        "conv_transpose2d: x is float64 and w is float32",
    ),
    "conv_transpose2d: dtype of b": (
        lambda: ops.conv_transpose2d(X, W[:4], B[:4].astype(F32)),
        "conv_transpose2d: x is float64 and b is float32",
    ),
    "conv_transpose2d: groups": (lambda: ops.conv_transpose2d(X, W[:4], groups=3), "conv_transpose2d.*divisible by 3"),
    "conv_transpose2d: stride": (lambda: ops.conv_transpose2d(X, W[:4], stride=-1), "conv_transpose2d: stride is -1"),
    "conv_transpose2d: output padding": (
        lambda: ops.conv_transpose2d(X, W[:4], dilation=2, output_padding=1),
        r"conv_transpose2d: output_padding \(1, 1\).*stride \(1, 1\)",
    ),
    "conv_transpose2d: padding": (lambda: ops.conv_transpose2d(X, W[:4], padding=4), "conv_transpose2d.*-1x0.*less"),
    "max_pool2d: rank": (lambda: ops.max_pool2d(X[0, 0], kernel_size=2), r"max_pool2d.*\(5, 6\)"),
    "max_pool2d: kernel 0": (lambda: ops.max_pool2d(X, kernel_size=0), "max_pool2d: kernel_size is 0"),
    "max_pool2d: stride 0": (lambda: ops.max_pool2d(X, kernel_size=2, stride=0), "max_pool2d: stride is 0"),
    "max_pool2d: padding": (
        lambda: ops.max_pool2d(X, kernel_size=2, padding=2),
        r"max_pool2d: padding \(2, 2\).*pixel of \(5, 6\)",
    ),
    "max_pool2d: dilated around the image": (
        lambda: ops.max_pool2d(X[..., :2, :2], kernel_size=2, padding=1, dilation=3),
        r"max_pool2d: padding \(1, 1\).*dilation \(3, 3\).*of \(2, 2\)",
    ),
    "max_pool2d: too large without ceil": (lambda: ops.max_pool2d(X, kernel_size=6), "window of 6.*5 "),
    "max_pool2d: whole numbers": (lambda: ops.max_pool2d(LABELS[None], kernel_size=2), "max_pool2d.*int64"),
    "avg_pool2d: padding": (lambda: ops.avg_pool2d(X, kernel_size=3, padding=3), r"avg_pool2d: padding \(3, 3\)"),
    "avg_pool2d: dilation": (lambda: ops.avg_pool2d(X, kernel_size=3, dilation=0), "avg_pool2d: dilation is 0"),
    "local_response_norm: even": (lambda: ops.local_response_norm(X, size=4), "local_response_norm: size is 4.*odd"),
    "local_response_norm: half a channel": (lambda: ops.local_response_norm(X, size=2.5), "size is 2.5.*odd"),
    "local_response_norm: rank": (lambda: ops.local_response_norm(X[0]), r"local_response_norm.*\(4, 5, 6\)"),
    "batch_norm: rank": (lambda: ops.batch_norm(X[0], B[:4], B[:4]), r"batch_norm.*\(4, 5, 6\)"),
    "batch_norm: w": (lambda: ops.batch_norm(X, B, B[:4]), r"batch_norm: w is float64 \(6,\).*\(4,\)"),
    "batch_norm: var alone": (lambda: ops.batch_norm(X, B[:4], B[:4], var=B[:4]), "batch_norm: mean is NoneType"),
    "batch_norm: dtype": (lambda: ops.batch_norm(X, B[:4], B[:4].astype(F32)), "batch_norm: b is float32"),
    "l2_normalize: rank": (lambda: ops.l2_normalize(X[0]), r"l2_normalize.*\(4, 5, 6\)"),
    "l2_normalize: epsilon": (lambda: ops.l2_normalize(X, epsilon=0.0), "l2_normalize: epsilon is 0.0.*above 0"),
    "bilinear_resize: size": (lambda: ops.bilinear_resize(X, size=(0, 3)), r"bilinear_resize: size is \(0, 3\)"),
    "bilinear_upsample: kernel": (
        lambda: ops.bilinear_upsample(X, kernel_size=0, stride=1),
        "bilinear_upsample: kernel_size is 0",
    ),
    "bilinear_upsample: half a kernel": (
        lambda: ops.bilinear_upsample(X, kernel_size=2.5, stride=1),
        "bilinear_upsample: kernel_size is 2.5.*whole number",
    ),
    "bilinear_upsample: padding": (
        lambda: ops.bilinear_upsample(X[..., :1, :1], kernel_size=4, stride=2, padding=2),
        r"window of 4.*1 \+ 2\*2",
    ),
    "loss: rank": (lambda: ops.softmax_cross_entropy(X[0], LABELS[0]), r"softmax_cross_entropy.*\(4, 5, 6\)"),
    "loss: size of the labels": (
        lambda: ops.softmax_cross_entropy(X, LABELS[:, :4]),
        r"softmax_cross_entropy: labels are int64 \(2, 4, 6\); expected .*\(2, 5, 6\)",
    ),
    "loss: labels that are no indices": (
        lambda: ops.softmax_cross_entropy(X, LABELS.astype(F32)),
        "softmax_cross_entropy: labels are float32",
    ),
    "loss: a label too large": (
        lambda: ops.softmax_cross_entropy(X, LABELS + 4),
        "label 4 found; expected 0..3, or 255",
    ),
    "loss: a label below 0": (lambda: ops.softmax_cross_entropy(X, LABELS - 1), "label -1 found; expected 0..3"),
    "loss: another void": (
        lambda: ops.softmax_cross_entropy(X, LABELS + 255, ignore_index=-1),
        "label 255 found; expected 0..3, or -1",
    ),
    "loss: weights": (
        lambda: ops.softmax_cross_entropy(X, LABELS, weights=np.ones(5)),
        r"softmax_cross_entropy: weights have shape \(5,\); expected \(4,\)",
    ),
    "loss: sampling": (
        lambda: ops.softmax_cross_entropy(X, LABELS, sampling=LABELS[0]),
        r"softmax_cross_entropy: sampling has shape \(5, 6\); expected \(2, 5, 6\)",
    ),
    "focal loss: gamma": (
        lambda: ops.focal_loss(X, LABELS, gamma=0.5),
        "focal_loss: gamma is 0.5; expected at least 1",
    ),
    "focal loss: a label too large": (
        lambda: ops.focal_loss(X, LABELS + 9),
        "focal_loss: label 9 found; expected 0..3",
    ),
    "dice loss: smooth": (lambda: ops.dice_loss(X, LABELS, smooth=0), "dice_loss: smooth is 0; expected above 0"),
    "dice loss: sampling": (
        lambda: ops.dice_loss(X, LABELS, sampling=LABELS[0]),
        r"dice_loss: sampling has shape \(5, 6\); expected \(2, 5, 6\)",
    ),
    "loss: normalize": (
        lambda: ops.softmax_cross_entropy(X, LABELS, normalize="mean"),
        "softmax_cross_entropy: normalize is 'mean'; expected one of none, valid, batch_size",
    ),
    "shift: factor": (lambda: ops.shift(X, factor=0), "shift: factor is 0.*at least 1"),
    "shift: half a pixel": (lambda: ops.shift(X, factor=1.5), "shift: factor is 1.5.*whole"),
    "stitch: batch": (lambda: ops.stitch(X, factor=2), "stitch: factor is 2 and the batch 2.*square divides"),
    "stitch: factor": (lambda: ops.stitch(X, factor=0), "stitch: factor is 0.*at least 1"),
    "stitch: half a pixel": (lambda: ops.stitch(X, factor=0.5), "stitch: factor is 0.5.*whole"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_in_one_sentence(name):
    call, sentence = REFUSED[name]
    with pytest.raises(ShapeError, match=sentence) as refusal:
        call()
    assert "\n" not in str(refusal.value) and isinstance(refusal.value, ValueError) and refusal.value.exit_code == 2


# Whatever else does not fit: one sentence that names the op and what it was given, never NumPy's alone

ODD = {
    "int": lambda x: x.astype(int),
    "bool": lambda x: x > 0,
    "float16": lambda x: x.astype("float16"),
    "complex": lambda x: x.astype(complex),
    "big-endian": lambda x: x.astype(">f8"),
    "one number": lambda x: np.array(1.0),
    "no images": lambda x: x[:0],
    "no columns": lambda x: x[..., :0],
    "masked": np.ma.array,
    "list": lambda x: x.tolist(),
    "matrix": lambda x: np.asmatrix(x[(0,) * (x.ndim - 2)] if x.ndim > 2 else x),
    "float32": lambda x: x.astype("float32"),
    "backwards": lambda x: x[..., ::-1],
    "float128": lambda x: x.astype(np.longdouble),
    "a tensor of PyTorch": lambda x: pytest.importorskip("torch").tensor(np.ascontiguousarray(x)),
    "text": lambda x: "x",
    "None": lambda x: None,
    "vector": lambda x: x.ravel()[:3],
}
ODD_OPTIONS = (None, "x", -1, 0, 1.5, True, 7, (1, 2, 3), (1,), [2, 2], np.int64(2), math.nan, -2, {}, 1j)


def answer_or_sentence(name, inputs, options):
    """Call the op: a Tensor, or one sentence of ours; an index that is out of range is Python's own IndexError."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing is NaN, as in NumPy
            assert isinstance(OPS[name](*inputs, **options), Tensor)
    except ShapeError as refusal:
        assert "\n" not in str(refusal).strip() and len(str(refusal)) < 600
    except IndexError:
        assert name == "getitem"


def first_case(name):
    return next(iter(CASES[name].values()))


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", ODD)
def test_odd_inputs_give_an_answer_or_a_sentence(name, kind):
    case = first_case(name)
    for i in case.differentiable:
        inputs = list(case.inputs)
        inputs[i] = ODD[kind](inputs[i])
        answer_or_sentence(name, inputs, case.options)
    answer_or_sentence(name, [ODD[kind](np.asarray(x)) for x in case.inputs if x is not None], case.options)


@pytest.mark.parametrize("name", CASES)
def test_odd_options_give_an_answer_or_a_sentence(name):
    case = first_case(name)
    for option in inspect.signature(OPS[name]).parameters.values():
        for value in ODD_OPTIONS if option.kind is option.KEYWORD_ONLY else ():
            answer_or_sentence(name, case.inputs, {**case.options, option.name: value})


@pytest.mark.parametrize("name", CASES)
def test_an_empty_batch_has_an_answer_and_gradients_or_a_sentence(name):
    case = first_case(name)
    inputs = [Parameter(x[:0]) if i in case.differentiable and x.ndim == 4 else x for i, x in enumerate(case.inputs)]
    try:
        with np.errstate(all="ignore"):
            y = OPS[name](*inputs, **case.options)
    except ShapeError:
        return
    if y.node is not None:
        y.backward(np.ones_like(y.data))
        assert all(p.grad.shape == p.shape for p in inputs if isinstance(p, Parameter) and p.node is not None)


def test_a_fault_names_the_op_and_what_it_was_given():
    with pytest.raises(ShapeError, match=r"sum\(float64 \(2, 3\), axis=7\): axis 7 is out of bounds"):
        ops.sum(np.zeros((2, 3)), axis=7)
    with pytest.raises(ShapeError, match=r"neg\(None\): .*NoneType"):
        ops.neg(None)
    with pytest.raises(ShapeError, match=r"conv2d\(float64 .*\): .*missing 1 required positional argument: 'w'"):
        ops.conv2d(X)
    with pytest.raises(IndexError, match="index 7 is out of bounds"):
        Tensor(np.zeros(3))[7]


# Images of every shape (row 31): a net's worth of ops in a row, back at the size it started from


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 1), (31, 33), (500, 1), (32, 32)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_image_goes_down_and_comes_back(size, dtype, device):
    rng = np.random.default_rng(0)
    x, w1, w2 = (
        Parameter(to_device(rng.standard_normal(shape).astype(dtype), device))
        for shape in ((1, 2, *size), (3, 2, 3, 3), (4, 3, 1, 1))
    )
    h = ops.conv2d(x, w1, padding=1, relu=True)
    for _ in range(3):
        h = ops.max_pool2d(h, kernel_size=2, ceil_mode=True)
    scores = ops.bilinear_upsample(ops.conv2d(h, w2), kernel_size=16, stride=8)
    y = ops.crop(scores, like=x, at=4)
    assert y.shape == (1, 4, *size)
    truth = to_device(rng.integers(0, 4, (1, *size)), device)
    loss = ops.softmax_cross_entropy(y, truth)
    loss.backward()
    assert np.isfinite(loss.item()) and all(np.isfinite(to_host(p.grad)).all() for p in (x, w1, w2))
    assert to_host(w2.grad).any()


def test_the_loss_takes_labels_of_a_byte_as_those_of_eight() -> None:
    rng = np.random.default_rng(0)
    for side in (9, 40):  # 81 pixels of class 4 are more than a byte counts, and so are 1600 of any
        x, labels = rng.standard_normal((2, 6, side, side)), rng.integers(0, 6, (2, side, side))
        wide, narrow = (ops.softmax_cross_entropy(x, labels.astype(kind)).item() for kind in ("int64", "uint8"))
        assert wide == narrow
