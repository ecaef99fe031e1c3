"""Inputs for every op, small enough that every single element can be moved by hand: the list behind test_ops.py.

`CASES[op][case name]` is one call. float64 inputs are what a gradient is asked for; whole numbers are data (labels);
None is an argument left out. Where an op has a kink (max, relu) the inputs come from `apart`: no two equal, none near
zero, so that the derivative exists. An op that is added without cases fails `test_every_op_has_cases`.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minifcn.backend import Array, to_device

_rng = np.random.default_rng(20150607)


@dataclass(frozen=True)
class Case:
    """One call of one op: `OPS[op](*inputs, **options)`."""

    op: str
    name: str
    inputs: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.op}: {self.name}"

    @property
    def differentiable(self) -> list[int]:
        """The positions of the inputs that want a gradient."""
        return [i for i, x in enumerate(self.inputs) if isinstance(x, np.ndarray) and x.dtype.kind == "f"]

    def at(self, dtype: str, device: str = "cpu") -> tuple[list[Any], dict[str, Any]]:
        """Fresh inputs and options with every float array in `dtype`, on `device`."""

        def there(value: Any) -> Array:
            if isinstance(value, tuple):
                return tuple(map(there, value))  # an index of several arrays
            if not isinstance(value, np.ndarray):
                return value
            return to_device(value.astype(dtype) if value.dtype.kind == "f" else value.copy(), device)

        return [there(x) for x in self.inputs], {name: there(value) for name, value in self.options.items()}


def numbers(*shape: int) -> np.ndarray:
    """Normal numbers."""
    return np.asarray(_rng.standard_normal(shape))


def away(*shape: int) -> np.ndarray:
    """Numbers of both signs, none of them near zero: what one may divide by."""
    return np.asarray(np.sign(numbers(*shape)) * _rng.uniform(0.5, 2, shape))


def apart(*shape: int) -> np.ndarray:
    """Evenly spaced numbers from -1 to 1 without 0, shuffled: no ties, and none closer than 1/size to the kink at 0."""
    size = int(np.prod(shape))
    return _rng.permutation(np.linspace(-1, 1, size + size % 2)[:size]).reshape(shape)


def two_apart(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays without ties in either or between them."""
    both = apart(2, *shape)
    return both[0], both[1]


def dropped(*shape: int) -> np.ndarray:
    """A mask as `nn.Dropout` draws it for p = 1/2."""
    return 2.0 * (_rng.permutation(np.arange(int(np.prod(shape))) % 2)).reshape(shape)


def labels(classes: int, *shape: int, void: int = 0, ignore: int = 255, dtype: str = "int64") -> np.ndarray:
    """Class indices, the first `void` of them `ignore`."""
    found = _rng.integers(0, classes, shape).astype(dtype)
    found.ravel()[:void] = ignore
    return found


PAIRS = {  # two inputs that broadcast
    "same shape": ((2, 3), (2, 3)),
    "per channel": ((2, 3, 2, 2), (3, 1, 1)),
    "row and column": ((3, 1), (1, 4)),
    "with one number": ((2, 3), ()),
    "both sides repeat": ((2, 1, 3), (4, 1)),
}

# kernel, stride, padding, ... of a pooling, on an image of this shape
POOLS = {
    "windows larger than their number": ((1, 2, 6, 9), {"kernel_size": (4, 5), "stride": 3, "padding": (2, 1)}),
    "one large dilated window": ((2, 1, 7, 6), {"kernel_size": 3, "stride": 4, "padding": 1, "dilation": 2}),
    "2x2": ((2, 2, 4, 6), {"kernel_size": 2}),
    "rest of the image unused": ((1, 2, 5, 7), {"kernel_size": 2}),
    "overlapping": ((1, 2, 7, 5), {"kernel_size": 3, "stride": 2}),
    "every pixel in nine windows": ((1, 1, 5, 4), {"kernel_size": 3, "stride": 1, "padding": 1}),
    "ceil, last window clipped": ((1, 2, 6, 4), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    "ceil, nothing to clip": ((2, 1, 5, 7), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    "ceil, padded, clipped": ((1, 1, 4, 6), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    "ceil, window in the padding dropped": (
        (1, 2, 3, 5),
        {"kernel_size": 2, "stride": 2, "padding": 1, "ceil_mode": True},
    ),
    "ceil, stride above kernel": ((1, 1, 7, 8), {"kernel_size": 2, "stride": 3, "ceil_mode": True}),
    "ceil, larger than the image": ((2, 1, 2, 3), {"kernel_size": 4, "stride": 2, "ceil_mode": True}),
    "ceil, on one pixel": ((2, 2, 1, 1), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    "ceil, one row": ((1, 1, 1, 7), {"kernel_size": 2, "ceil_mode": True}),
    "rectangular": ((1, 2, 5, 6), {"kernel_size": (2, 3), "stride": (1, 2), "padding": (1, 0)}),
    "stride above kernel": ((1, 2, 5, 8), {"kernel_size": (1, 2), "stride": (2, 3)}),
    "padding above half the kernel": ((1, 1, 4, 3), {"kernel_size": 3, "stride": 2, "padding": 2}),
    "dilated": ((1, 2, 6, 5), {"kernel_size": 2, "stride": 1, "dilation": (3, 2)}),
    "dilated, padded, ceil": (
        (1, 1, 6, 7),
        {"kernel_size": 3, "stride": 2, "padding": 2, "dilation": 2, "ceil_mode": True},
    ),
    "one pixel": ((2, 3, 1, 1), {"kernel_size": 1}),
}

# x shape, w shape, has a bias, options
CONVOLUTIONS = {
    "3x3": ((2, 2, 5, 4), (3, 2, 3, 3), True, {}),
    "no bias": ((1, 2, 4, 4), (2, 2, 2, 2), False, {}),
    "padded": ((1, 2, 3, 4), (2, 2, 3, 3), True, {"padding": 1}),
    "far padding": ((1, 1, 2, 3), (2, 1, 3, 3), True, {"padding": (4, 3)}),
    "strided, rest unused": ((2, 1, 6, 5), (2, 1, 2, 2), True, {"stride": (2, 3)}),
    "stride above kernel": ((1, 1, 7, 8), (2, 1, 2, 2), True, {"stride": (3, 4), "padding": 1}),
    "rectangular": ((1, 2, 4, 6), (2, 2, 1, 4), True, {"stride": (2, 1), "padding": (0, 2)}),
    "dilated": ((1, 2, 5, 6), (2, 2, 3, 2), True, {"dilation": (2, 3), "padding": 1}),
    "grouped": ((1, 4, 4, 3), (6, 2, 2, 2), True, {"groups": 2, "padding": 1}),
    "depthwise": ((2, 3, 3, 4), (3, 1, 2, 3), True, {"groups": 3}),
    "depthwise, two each": ((1, 2, 4, 4), (4, 1, 3, 3), True, {"groups": 2, "stride": 2, "padding": 1}),
    "1x1": ((2, 3, 2, 3), (2, 3, 1, 1), True, {}),
    "one window": ((2, 2, 3, 4), (3, 2, 3, 4), True, {}),
    "one pixel": ((1, 2, 1, 1), (2, 2, 1, 1), True, {}),
    "one pixel, padded": ((2, 1, 1, 1), (2, 1, 3, 3), True, {"padding": 1}),
    "one column": ((1, 2, 6, 1), (2, 2, 3, 3), True, {"padding": 1}),
    "fused relu": ((2, 2, 4, 4), (2, 2, 3, 3), True, {"padding": 1, "relu": True}),
    "fused relu, no bias": ((1, 2, 4, 3), (2, 1, 2, 2), False, {"groups": 2, "relu": True}),
}

# x shape, w shape (I, O/groups, kh, kw), has a bias, options
TRANSPOSED = {
    "2x2 stride 2": ((2, 2, 3, 2), (2, 3, 2, 2), True, {"stride": 2}),
    "no bias": ((1, 2, 3, 3), (2, 2, 3, 3), False, {}),
    "upscore2": ((1, 2, 3, 2), (2, 2, 4, 4), False, {"stride": 2}),
    "padded": ((1, 2, 2, 3), (2, 2, 4, 4), True, {"stride": 2, "padding": 1}),
    "output padding": ((1, 1, 2, 3), (1, 2, 3, 3), True, {"stride": (2, 3), "padding": 1, "output_padding": (1, 2)}),
    "stride above kernel": ((1, 2, 2, 3), (2, 2, 2, 2), True, {"stride": 3, "output_padding": 2}),
    "rectangular": ((1, 2, 2, 3), (2, 2, 2, 3), True, {"stride": (1, 2), "padding": (0, 1)}),
    "dilated": ((1, 1, 3, 2), (1, 2, 2, 3), True, {"dilation": (3, 2), "padding": 1}),
    "grouped": ((1, 4, 2, 3), (4, 3, 2, 2), True, {"groups": 2, "stride": 2}),
    "depthwise": ((2, 3, 2, 2), (3, 1, 4, 4), False, {"groups": 3, "stride": 2, "padding": 1}),
    "1x1": ((2, 3, 2, 2), (3, 2, 1, 1), True, {}),
    "1x1 strided": ((1, 2, 3, 2), (2, 2, 1, 1), True, {"stride": 2}),
    "one pixel": ((1, 3, 1, 1), (3, 2, 3, 2), True, {"stride": 2}),
}


def convolution(op: str, table: dict[str, Any], out_axis: int) -> dict[str, Case]:
    cases = {}
    for name, (x, w, biased, options) in table.items():
        channels = w[out_axis] * (options.get("groups", 1) if out_axis else 1)
        b = numbers(channels) if biased else None
        cases[name] = Case(op, name, (numbers(*x), numbers(*w), b), options)
    return cases


def pairs(op: str, second=numbers) -> dict[str, Case]:
    return {name: Case(op, name, (numbers(*x), second(*y))) for name, (x, y) in PAIRS.items()}


def calls(op: str, **cases: tuple[Any, ...]) -> dict[str, Case]:
    """`name=(input, ..., {options})` with underscores for spaces in the name."""
    found = {}
    for key, call in cases.items():
        options = call[-1] if isinstance(call[-1], dict) else {}
        name = key.replace("_", " ")
        found[name] = Case(op, name, call[: len(call) - isinstance(call[-1], dict)], options)
    return found


def flags(*shape: int) -> np.ndarray:
    """True and False in turns, shuffled."""
    return _rng.permutation(np.arange(int(np.prod(shape))) % 2 == 0).reshape(shape)


def extremes() -> dict[str, tuple[Any, ...]]:
    return {
        "all_axes": (apart(2, 3),),
        "one_axis": (apart(2, 3, 2), {"axis": 1}),
        "two_axes": (apart(2, 3, 2), {"axis": (0, -1)}),
        "kept": (apart(2, 3, 2), {"axis": (1, 2), "keepdims": True}),
    }


def scores() -> dict[str, tuple[Any, ...]]:
    return {
        "channels": (numbers(2, 3, 2, 2),),
        "last_axis": (numbers(2, 4), {"axis": -1}),
        "first_axis": (numbers(3, 2), {"axis": 0}),
        "one_pixel": (numbers(1, 4, 1, 1),),
        "one_class": (numbers(2, 1, 2, 2),),
    }


CASES: dict[str, dict[str, Case]] = {
    "neg": calls("neg", matrix=(numbers(2, 3),)),
    "exp": calls("exp", matrix=(numbers(2, 3),)),
    "log": calls("log", matrix=(abs(away(2, 3)),)),
    "sqrt": calls("sqrt", matrix=(abs(away(2, 3)),)),
    "abs": calls("abs", images=(apart(2, 1, 2, 3),), vector=(apart(5),)),
    "clip": calls(
        "clip",
        both=(apart(2, 7), {"min": -0.55, "max": 0.55}),
        below=(apart(7), {"min": 0.05}),
        above=(apart(2, 3), {"max": -0.05}),
        neither=(apart(3),),
    ),
    "power": {
        **{name: Case("power", name, (1 + abs(away(*x)), numbers(*y))) for name, (x, y) in PAIRS.items()},
        **calls(
            "power",
            square=(numbers(2, 3), 2),
            root=(abs(away(2, 3)), 0.5),
            negative_base=(away(2, 3), -3),
            of_two=(2, numbers(2, 3)),
        ),
    },
    "where": calls(
        "where",
        same_shape=(flags(2, 3), numbers(2, 3), numbers(2, 3)),
        condition_repeats=(flags(2, 1, 3), numbers(2, 2, 3), numbers(2, 2, 3)),
        values_repeat=(flags(3, 4), numbers(3, 1), numbers(4)),
        of_zero_and_one=(flags(2, 3).astype("uint8"), numbers(2, 3), numbers(1, 3)),
        else_a_number=(flags(2, 3), numbers(2, 3), 0.0),
    ),
    "add": pairs("add"),
    "sub": pairs("sub"),
    "mul": pairs("mul"),
    "div": pairs("div", second=away),
    "maximum": calls("maximum", scores=two_apart(1, 2, 3, 2), numbers=two_apart(4)),
    "matmul": calls(
        "matmul",
        matrices=(numbers(2, 3), numbers(3, 4)),
        one_matrix_for_a_batch=(numbers(2, 2, 3), numbers(3, 2)),
        both_batches_repeat=(numbers(2, 1, 2, 3), numbers(3, 3, 2)),
        row_times_column=(numbers(1, 3), numbers(3, 1)),
    ),
    "sum": calls(
        "sum",
        all_axes=(numbers(2, 3),),
        one_axis=(numbers(2, 3, 2), {"axis": 1}),
        two_axes=(numbers(2, 3, 2), {"axis": (0, -1)}),
        kept=(numbers(2, 3, 2), {"axis": (1, 2), "keepdims": True}),
    ),
    "mean": calls(
        "mean",
        all_axes=(numbers(2, 3),),
        one_axis=(numbers(2, 3, 2), {"axis": 1}),
        two_axes=(numbers(2, 3, 2), {"axis": (0, -1)}),
        kept=(numbers(2, 3, 2), {"axis": (1, 2), "keepdims": True}),
    ),
    "max": calls("max", **extremes()),
    "min": calls("min", **extremes()),
    "getitem": calls(
        "getitem",
        number=(numbers(3, 2), {"index": 1}),
        slices=(numbers(3, 4, 2), {"index": (slice(None, None, 2), slice(3, 0, -1))}),
        new_axis=(numbers(2, 3), {"index": (slice(None), None, 0)}),
        last_axis=(numbers(2, 3, 2), {"index": (..., -1)}),
        repeated=(numbers(4, 2), {"index": np.array([2, 0, 2, 2])}),
        mask=(numbers(2, 3), {"index": flags(2, 3)}),
        pixels=(numbers(3, 3), {"index": (np.array([0, 2, 2]), np.array([1, 0, 0]))}),
    ),
    "reshape": calls(
        "reshape", given=(numbers(2, 6), {"shape": (3, 4)}), one_free=(numbers(2, 3, 2), {"shape": (2, -1)})
    ),
    "transpose": calls(
        "transpose",
        reversed=(numbers(2, 3, 2),),
        rotated=(numbers(2, 3, 2, 2), {"axes": (2, 0, 3, 1)}),
    ),
    "concat": calls(
        "concat",
        channels=(numbers(2, 1, 2, 2), numbers(2, 3, 2, 2)),
        batch_of_three=(numbers(1, 2), numbers(2, 2), numbers(3, 2), {"axis": 0}),
        last_axis=(numbers(2, 2), numbers(2, 3), {"axis": -1}),
        alone=(numbers(2, 3),),
    ),
    "stack": calls(
        "stack",
        two=(numbers(2, 3), numbers(2, 3)),
        in_between=(numbers(2, 3), numbers(2, 3), numbers(2, 3), {"axis": 1}),
        last_axis=(numbers(2, 2), numbers(2, 2), {"axis": -1}),
        alone=(numbers(2, 3),),
    ),
    "pad": calls(
        "pad",
        all_round=(numbers(1, 2, 2, 3), {"padding": 1}),
        four_widths=(numbers(1, 2, 3, 2), {"padding": (1, 0, 2, 3)}),
        not_zero=(numbers(1, 1, 2, 2), {"padding": (0, 2, 1, 0), "value": 5.0}),
        nothing=(numbers(2, 3), {"padding": 0}),
    ),
    "crop": calls(
        "crop",
        corner=(numbers(1, 2, 3, 4), {"like": (2, 2)}),
        like_a_map=(numbers(2, 1, 4, 5), {"like": numbers(2, 3, 2, 3), "at": 1}),
        uneven=(numbers(1, 2, 4, 5), {"like": (1, 3), "at": (3, 2)}),
        everything=(numbers(1, 1, 2, 3), {"like": (2, 3)}),
    ),
    "relu": calls("relu", images=(apart(2, 2, 2, 3),), vector=(apart(5),)),
    "sigmoid": calls("sigmoid", images=(numbers(2, 2, 1, 3),), vector=(numbers(5),)),
    "tanh": calls("tanh", images=(numbers(2, 2, 1, 3),), vector=(numbers(5),)),
    "dropout": calls("dropout", images=(numbers(2, 2, 2, 3), {"mask": dropped(2, 2, 2, 3)})),
    "log_softmax": calls("log_softmax", **scores()),
    "softmax": calls("softmax", **scores()),
    "conv2d": convolution("conv2d", CONVOLUTIONS, 0),
    "conv_transpose2d": convolution("conv_transpose2d", TRANSPOSED, 1),
    "max_pool2d": {name: Case("max_pool2d", name, (apart(*x),), options) for name, (x, options) in POOLS.items()},
    "avg_pool2d": {name: Case("avg_pool2d", name, (numbers(*x),), options) for name, (x, options) in POOLS.items()},
    "local_response_norm": calls(
        "local_response_norm",
        AlexNet=(10 * numbers(1, 6, 2, 2),),
        strong=(numbers(2, 5, 1, 2), {"size": 3, "alpha": 2.0, "beta": 0.5, "k": 0.5}),
        wider_than_the_channels=(numbers(2, 3, 2, 1), {"size": 9, "alpha": 3.0}),
        each_alone=(numbers(1, 3, 2, 2), {"size": 1, "alpha": 1.0, "beta": 1.0}),
        one_pixel=(numbers(1, 4, 1, 1), {"alpha": 1.0}),
    ),
    "batch_norm": calls(
        "batch_norm",
        of_the_batch=(numbers(3, 2, 2, 3), away(2), numbers(2)),
        large=(40 * numbers(2, 3, 2, 2) + 7, away(3), numbers(3), {"eps": 1e-3}),
        one_image=(numbers(1, 2, 2, 3), away(2), numbers(2), {"eps": 0.1}),
        given=(numbers(2, 2, 3, 2), away(2), numbers(2), {"mean": numbers(2), "var": abs(away(2))}),
        given_for_one_pixel=(numbers(1, 3, 1, 1), away(3), numbers(3), {"mean": numbers(3), "var": abs(away(3))}),
    ),
    "l2_normalize": calls(
        "l2_normalize",
        features=(numbers(2, 3, 2, 2),),
        large=(50 * away(1, 4, 1, 2),),
        soft=(numbers(1, 2, 2, 1), {"epsilon": 0.5}),
        one_channel=(numbers(1, 1, 2, 2), {"epsilon": 1.0}),
    ),
    "bilinear_resize": calls(
        "bilinear_resize",
        larger=(numbers(1, 2, 2, 3), {"size": (4, 6)}),
        smaller=(numbers(1, 2, 5, 4), {"size": (2, 3)}),
        one_way_each=(numbers(2, 1, 2, 5), {"size": (7, 3)}),
        from_one_pixel=(numbers(1, 2, 1, 1), {"size": (3, 2)}),
        to_one_pixel=(numbers(1, 2, 3, 4), {"size": (1, 1)}),
        same_size=(numbers(1, 1, 3, 2), {"size": (3, 2)}),
    ),
    "nearest_resize": calls(
        "nearest_resize",
        larger=(numbers(1, 2, 2, 3), {"size": (4, 7)}),
        smaller=(numbers(1, 2, 5, 4), {"size": (2, 3)}),
        one_way_each=(numbers(2, 1, 2, 5), {"size": (7, 3)}),
        from_one_pixel=(numbers(1, 2, 1, 1), {"size": 3}),
        same_size=(numbers(1, 1, 3, 2), {"size": (3, 2)}),
    ),
    "bilinear_upsample": calls(
        "bilinear_upsample",
        upscore2=(numbers(1, 2, 3, 2), {"kernel_size": 4, "stride": 2}),
        odd_kernel=(numbers(2, 1, 2, 3), {"kernel_size": 3, "stride": 2}),
        upscore8=(numbers(1, 1, 2, 3), {"kernel_size": 16, "stride": 8}),
        padded=(numbers(1, 2, 3, 3), {"kernel_size": 4, "stride": 2, "padding": 1}),
        much_padded=(numbers(1, 1, 3, 4), {"kernel_size": 3, "stride": 2, "padding": 3}),
        stride_above_kernel=(numbers(1, 2, 2, 2), {"kernel_size": 2, "stride": 3}),
        stride_one=(numbers(1, 1, 3, 2), {"kernel_size": 5, "stride": 1}),
        rectangular=(numbers(1, 1, 2, 3), {"kernel_size": (4, 3), "stride": (2, 1), "padding": (0, 1)}),
        one_pixel=(numbers(2, 1, 1, 1), {"kernel_size": 4, "stride": 2}),
    ),
    "softmax_cross_entropy": calls(
        "softmax_cross_entropy",
        valid=(numbers(2, 3, 2, 2), labels(3, 2, 2, 2)),
        sum=(numbers(2, 3, 2, 1), labels(3, 2, 2, 1), {"normalize": "none"}),
        batch=(numbers(2, 3, 1, 2), labels(3, 2, 1, 2), {"normalize": "batch_size"}),
        void=(numbers(2, 3, 2, 2), labels(3, 2, 2, 2, void=3)),
        void_in_bytes=(numbers(1, 3, 2, 3), labels(3, 1, 2, 3, void=2, dtype="uint8"), {"normalize": "none"}),
        another_void=(numbers(1, 3, 2, 2), labels(3, 1, 2, 2, void=1, ignore=-1), {"ignore_index": -1}),
        all_void=(numbers(2, 3, 1, 2), labels(3, 2, 1, 2, void=4)),
        one_image_all_void=(numbers(2, 3, 1, 2), labels(3, 2, 1, 2, void=2), {"normalize": "batch_size"}),
        weighted=(numbers(1, 3, 2, 3), labels(3, 1, 2, 3, void=1), {"weights": np.array([0.5, 2.0, 1.5])}),
        part_of_a_batch=(numbers(1, 3, 2, 3), labels(3, 1, 2, 3, void=1), {"divisor": 11}),
        sampled=(numbers(1, 3, 2, 3), labels(3, 1, 2, 3, void=1), {"sampling": np.array([[[1, 0, 1], [0, 1, 1]]])}),
        weighted_and_sampled=(
            numbers(1, 3, 2, 2),
            np.array([[[255, 0], [1, 2]]]),
            {
                "weights": np.array([0.5, 2.0, 0.0]),
                "sampling": np.array([[[1.0, 0.0], [1.0, 1.0]]]),
                "normalize": "none",
            },
        ),
        sampled_nowhere=(numbers(1, 3, 1, 2), labels(3, 1, 1, 2), {"sampling": np.array([[[False, False]]])}),
        one_pixel=(numbers(1, 4, 1, 1), labels(4, 1, 1, 1)),
        one_class=(numbers(1, 1, 2, 2), labels(1, 1, 2, 2)),
    ),
    "focal_loss": calls(
        "focal_loss",
        valid=(numbers(2, 3, 2, 2), labels(3, 2, 2, 2)),
        sum=(numbers(2, 3, 2, 1), labels(3, 2, 2, 1), {"normalize": "none", "gamma": 1.0}),
        part_of_a_batch=(numbers(1, 3, 2, 3), labels(3, 1, 2, 3, void=1), {"divisor": 11}),
        batch=(numbers(2, 3, 1, 2), labels(3, 2, 1, 2), {"normalize": "batch_size", "gamma": 3.5}),
        void=(numbers(2, 3, 2, 2), labels(3, 2, 2, 2, void=3)),
        another_void=(numbers(1, 3, 2, 2), labels(3, 1, 2, 2, void=1, ignore=-1), {"ignore_index": -1}),
        all_void=(numbers(2, 3, 1, 2), labels(3, 2, 1, 2, void=4)),
        weighted=(numbers(1, 3, 2, 3), labels(3, 1, 2, 3, void=1), {"weights": np.array([0.5, 2.0, 1.5])}),
        sampled=(numbers(1, 3, 2, 3), labels(3, 1, 2, 3, void=1), {"sampling": np.array([[[1, 0, 1], [0, 1, 1]]])}),
        one_pixel=(numbers(1, 4, 1, 1), labels(4, 1, 1, 1)),
        one_class=(numbers(1, 1, 2, 2), labels(1, 1, 2, 2)),
    ),
    "dice_loss": calls(
        "dice_loss",
        batch_of_two=(numbers(2, 3, 2, 2), labels(3, 2, 2, 2)),
        void=(numbers(2, 3, 2, 2), labels(3, 2, 2, 2, void=3)),
        another_void=(numbers(1, 3, 2, 2), labels(3, 1, 2, 2, void=1, ignore=-1), {"ignore_index": -1}),
        all_void=(numbers(2, 3, 1, 2), labels(3, 2, 1, 2, void=4)),
        a_class_that_is_not_there=(numbers(1, 4, 2, 2), labels(2, 1, 2, 2, dtype="uint8")),
        sampled=(numbers(1, 3, 2, 3), labels(3, 1, 2, 3, void=1), {"sampling": np.array([[[1, 0, 1], [0, 1, 1]]])}),
        hardly_smooth=(numbers(2, 3, 2, 2), labels(3, 2, 2, 2), {"smooth": 0.01}),
        one_pixel=(numbers(1, 4, 1, 1), labels(4, 1, 1, 1)),
        one_class=(numbers(1, 1, 2, 2), labels(1, 1, 2, 2)),
    ),
    "shift": calls(
        "shift",
        two=(numbers(1, 2, 4, 2), {"factor": 2}),
        not_divisible=(numbers(2, 1, 5, 3), {"factor": 2}),
        larger_than_the_image=(numbers(1, 2, 2, 2), {"factor": 3}),
        none=(numbers(1, 2, 2, 3), {"factor": 1}),
    ),
    "stitch": calls(
        "stitch",
        two=(numbers(4, 2, 2, 3), {"factor": 2}),
        batch_of_two=(numbers(8, 1, 1, 2), {"factor": 2}),
        three=(numbers(9, 1, 2, 1), {"factor": 3}),
        none=(numbers(2, 2, 2, 1), {"factor": 1}),
    ),
}

ALL = [case for cases in CASES.values() for case in cases.values()]

# In these arguments an op is a straight line: f(x) - f(0) is linear in x. (conv2d is not, where a ReLU is fused.)
STRAIGHT = {
    "neg": (0,),
    "add": (0, 1),
    "sub": (0, 1),
    "mul": (0, 1),
    "div": (0,),
    "matmul": (0, 1),
    "sum": (0,),
    "mean": (0,),
    "reshape": (0,),
    "transpose": (0,),
    "concat": (0, 1, 2),
    "pad": (0,),
    "crop": (0,),
    "dropout": (0,),
    "conv2d": (0, 1, 2),
    "conv_transpose2d": (0, 1, 2),
    "avg_pool2d": (0,),
    "getitem": (0,),
    "stack": (0, 1, 2),
    "where": (1, 2),
    "nearest_resize": (0,),
    "bilinear_resize": (0,),
    "bilinear_upsample": (0,),
    "shift": (0,),
    "stitch": (0,),
}


def by_hand(lifted: Any, *inputs: Any, **options: Any) -> tuple[Array, list[Any]]:
    """The value and the gradients of the function under an op, each gradient a function of the op's own gy."""
    y, gradients, *prepare = lifted.__wrapped__(*inputs, **options)
    if not prepare:
        return y, gradients
    return y, [lambda gy, gradient=gradient: gradient(prepare[0](gy)) for gradient in gradients]
