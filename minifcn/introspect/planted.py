"""Ops with a planted fault in one gradient, for `detective` to find and for readers to look at.

Each entry of `PLANTED` is a fault as people make it, in code of its own and not in the words of the detective: the op,
small inputs, its options, the input whose gradient is wrong, and a part of the sentence that must name it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minifcn import ops
from minifcn.backend import rng, xp_of
from minifcn.tensor import Node, Tensor


@dataclass(frozen=True)
class Planted:
    """A function on Tensors with one wrong gradient, what to call it with, and the words that must name the fault."""

    function: Callable[..., Tensor]
    inputs: tuple[np.ndarray, ...]
    position: int
    words: str
    options: dict[str, Any] = field(default_factory=dict)


def lifted(name: str, function: Callable[..., Any]) -> Callable[..., Tensor]:
    """Return a plain function `(*arrays, **options) -> value, gradients` as one on Tensors, as `tensor.op` does.

    It is not entered in the registry of ops, where nothing wrong belongs.
    """

    def apply(*inputs: Any, **options: Any) -> Tensor:
        y, gradients = function(*(x.data if isinstance(x, Tensor) else x for x in inputs), **options)
        edges = []
        for x, gradient in zip(inputs, gradients, strict=False):
            if isinstance(x, Tensor) and x.node is not None:
                x.node.dtype = x.data.dtype
                edges.append((x.node, gradient, x.node.version))
        return Tensor(y, Node(name, y.shape, tuple(edges)) if edges else None)

    apply.__name__ = name
    return apply


def with_gradient(op: Callable[..., Tensor], position: int, wrong: Callable[..., Any]) -> Callable[..., Tensor]:
    """Return a library op whose gradient at `position` is `wrong(gy, right, *inputs, **options)`, `right` its own."""
    plain: Any = op.__wrapped__  # type: ignore[attr-defined]

    def function(*arrays: Any, **options: Any) -> Any:
        y, gradients = plain(*arrays, **options)

        def gradient(gy: Any) -> Any:
            return wrong(gy, gradients[position], *arrays, **options)

        return y, tuple(gradient if i == position else each for i, each in enumerate(gradients))

    return lifted(op.__name__, function)


def painted(gy: Any, w: Any, size: tuple[int, int], *, add: bool = True) -> Any:
    """Return the gradient at an image of `size`, window by window; `add=False`: later windows cover earlier ones."""
    gx = xp_of(gy).zeros((len(gy), w.shape[1], *size), dtype=gy.dtype)
    for i, j in np.ndindex(gy.shape[2:]):
        window = gx[:, :, i : i + w.shape[2], j : j + w.shape[3]]
        part = xp_of(gy).tensordot(gy[:, :, i, j], w, axes=1)
        window[...] = part + (window if add else 0)
    return gx


def uncut(gy: Any, w: Any, size: tuple[int, int], padding: int) -> Any:
    """Return the first rows and columns of the gradient at the padded image, as if nothing was added before them."""
    height, width = size
    return painted(gy, w, (height + 2 * padding, width + 2 * padding))[:, :, :height, :width]


def first_row_lost(gy: Any, right: Any) -> Any:
    """Return the right gradient without its first row."""
    gx = right(gy).copy()
    gx[:, :, 0] = 0
    return gx


def square(x: Any) -> Any:
    """Return x^2 and a gradient that forgets the 2."""
    return x * x, (lambda gy: gy * x,)


def logistic(x: Any) -> Any:
    """Return the logistic function and a gradient that forgets gy."""
    y = 1 / (1 + xp_of(x).exp(-x))
    return y, (lambda gy: y * (1 - y) + 0 * gy,)


def softmax(x: Any) -> Any:
    """Return a softmax along the last axis and the gradient of the logistic function."""
    y = xp_of(x).exp(x - x.max(axis=-1, keepdims=True))
    y = y / y.sum(axis=-1, keepdims=True)
    return y, (lambda gy: gy * y * (1 - y),)


def every_maximum(x: Any) -> Any:
    """Return the largest of each row and a gradient that goes to every element at least as large."""
    y = x.max(axis=1)
    return y, (lambda gy: gy[:, None] * (x >= y[:, None]),)


def planted() -> dict[str, Planted]:
    """Return the library of faults, by name, each with inputs of its own."""
    numbers = rng(0)
    image, w = numbers.standard_normal((2, 3, 6, 7)), numbers.standard_normal((4, 3, 3, 3))
    a, b = numbers.standard_normal((3, 4)), numbers.standard_normal((3, 4))
    zeros = np.where(numbers.random((3, 4)) < 0.4, 0.0, a)
    ties = np.array([[1.0, 3.0, 3.0, 0.5], [2.0, 0.1, -1.0, 2.0], [4.0, 0.2, 0.3, 0.4]])

    def conv(position: int, wrong: Callable[..., Any], words: str, **options: Any) -> Planted:
        return Planted(with_gradient(ops.conv2d, position, wrong), (image, w), position, words, options)

    return {
        "kernel not flipped, at x": conv(
            0, lambda gy, right, x, w, **_: painted(gy, w[..., ::-1, ::-1], x.shape[2:]), "not flipped"
        ),
        "kernel not flipped, at w": conv(
            1, lambda gy, right, *_, **__: right(gy)[..., ::-1, ::-1].copy(), "not flipped"
        ),
        "stride forgotten": conv(
            0, lambda gy, right, x, w, **_: painted(gy, w, x.shape[2:]), "stride is forgotten", stride=2
        ),
        "dilation forgotten": conv(
            0, lambda gy, right, x, w, **_: painted(gy, w, x.shape[2:]), "dilation is forgotten", dilation=2
        ),
        "padding not cut off": conv(0, lambda gy, right, x, w, **_: uncut(gy, w, x.shape[2:], 1), "padding", padding=1),
        "border wrong": conv(0, lambda gy, right, *_, **__: first_row_lost(gy, right), "only the border", padding=1),
        "overlaps overwritten": conv(
            0, lambda gy, right, x, w, **_: painted(gy, w, x.shape[2:], add=False), "+= and not ="
        ),
        "channels swapped": conv(1, lambda gy, right, *_, **__: right(gy)[:, ::-1].copy(), "channels are exchanged"),
        "batch averaged": conv(1, lambda gy, right, x, *_, **__: right(gy) / len(x), "0.5 times"),
        "gy mirrored": conv(1, lambda gy, right, *_, **__: right(gy[..., ::-1].copy()), "mirrored"),
        "gy moved": conv(0, lambda gy, right, *_, **__: right(xp_of(gy).roll(gy, 1, axis=-1)), "moved by one"),
        "factor forgotten": Planted(lifted("square", square), (a,), 0, "0.5 times"),
        "sign": Planted(with_gradient(ops.sub, 1, lambda gy, right, *_: gy + 0), (a, b), 1, "sign"),
        "nothing returned": Planted(
            with_gradient(ops.mul, 0, lambda gy, right, *_: 0 * gy), (a, b), 0, "zero everywhere"
        ),
        "operands exchanged": Planted(
            with_gradient(ops.mul, 0, lambda gy, right, x, y: gy * x), (a, b), 0, "are exchanged"
        ),
        "gy forgotten": Planted(lifted("logistic", logistic), (a,), 0, "gy is not used"),
        "only the diagonal": Planted(lifted("softmax", softmax), (a,), 0, "diagonal"),
        "mask >= in a ReLU": Planted(with_gradient(ops.relu, 0, lambda gy, right, x: gy * (x >= 0)), (zeros,), 0, ">="),
        "mask >= in a maximum": Planted(lifted("maximum", every_maximum), (ties,), 0, ">="),
        "a row forgotten": Planted(
            with_gradient(ops.mul, 0, lambda gy, right, x, y: right(gy) * (xp_of(gy).arange(3) != 1)[:, None]),
            (a, b),
            0,
            "index 1 is wrong",
        ),
    }
