"""Notebook 01, a tensor that remembers: have you understood what a gradient function owes?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import Verdict, exercise, quiz, right, two, wrong


@exercise
def check_sigmoid(answer: Callable[[np.ndarray], Any]) -> Verdict:
    """`answer(x)` returns `(value, (grad_x,))` of y = 1 / (1 + e^-x)."""
    x = np.linspace(-3, 4, 8).reshape(2, 4)
    given = answer(x.copy())
    pairs = (tuple, list)
    if not (isinstance(given, pairs) and len(given) == 2 and isinstance(given[1], pairs) and len(given[1]) == 1):
        return wrong("an operation returns its value and a tuple of gradient functions: (y, (grad_x,))")
    y, (grad_x,) = given
    if np.shape(y) != x.shape or not np.allclose(y, 1 / (1 + np.exp(-x))):
        return wrong("the value is not 1 / (1 + e^-x), element by element")
    if not callable(grad_x):
        return wrong("grad_x has to be a function of gy: its gradient is not known before the walk back")
    gy = np.random.default_rng(1).standard_normal(x.shape)
    eps = 1e-5
    moved = gy * (1 / (1 + np.exp(-x - eps)) - 1 / (1 + np.exp(-x + eps))) / (2 * eps)
    found = grad_x(gy)
    if np.shape(found) == x.shape and np.allclose(found, moved, atol=1e-8):
        return right("at x = 0 the slope is 1/4, and far from it next to nothing gets through")
    if np.shape(found) == x.shape and np.allclose(found * gy, moved, atol=1e-8):
        return wrong("this is dy/dx, and the chain rule wants gy times dy/dx")
    if np.shape(found) == x.shape and np.allclose(found, gy * x * (1 - x)):
        return wrong("the slope is y (1 - y): the value, and not the input, stands in it")
    return wrong("moving x a little gives another gradient; the slope is y (1 - y), and gy multiplies it")


@exercise
def check_calls(answer: Callable[[int], tuple[int, int]]) -> Verdict:
    """`answer(depth)`: calls of gradient functions over `depth` doublings, careless and counted."""
    for depth in (1, 2, 3, 10):
        careless, counted = two(answer(depth), "(careless, counted)")
        if counted != 2 * depth:
            return wrong(f"{depth} additions have {2 * depth} edges, each walked once if counted; you say {counted}")
        if careless != 2 ** (depth + 1) - 2:
            hint = (
                "the first node alone makes 2 calls, each of its deliveries 2 more at the next one: add the levels up"
            )
            return wrong(f"for {depth} doublings the careless walk does not make {careless} calls; {hint}")
    return right("2 + 4 + 8 + ... grows like the paths through the graph, the other like its edges")


@exercise
def check_remembered(answer: set[str]) -> Verdict:
    """What the graph of relu(a * b + c).sum() remembers, b being a constant."""
    names = {"a", "b", "c", "a * b", "a * b + c", "relu"}
    answer = answer.split(",") if isinstance(answer, str) else answer
    if not isinstance(answer, set | frozenset | list | tuple):
        return wrong(f"expected a set of names, found {type(answer).__name__}")
    spaced = {name.replace(" ", ""): name for name in names}  # "a*b" is "a * b", and "ReLU" is "relu"
    given = {spaced.get("".join(str(name).lower().split()), name) for name in answer}
    if unknown := given - names:
        return wrong(f"{sorted(unknown, key=str)} is none of the names {sorted(names)}")
    if "a" in given:
        return wrong("a would be needed for the gradient of b, and b is a constant: that gradient is not needed")
    if "c" in given or "a * b" in given:
        return wrong("the gradient of a sum is passed on as it came: add remembers neither of its inputs")
    if "a * b + c" in given:
        return wrong("relu could remember its input, but its result says as well what was positive")
    if missing := {"b", "relu"} - given:
        why = {"b": "the gradient of a is gy * b", "relu": "the gradient of relu has to know what was positive"}
        return wrong(f"something is missing: {why[min(missing)]}")
    return right("two arrays: b for the gradient of a, and what came out of relu")


check_quiz = quiz(
    "b: the gradient at x is gy * w",
    "b: b was used in 8 rows, and the parts add up",
    "a: without the count a shared node is visited once for each path",
)
