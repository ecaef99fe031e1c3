"""Notebook 03: is my gradient right?"""

import math

import numpy as np

from minifcn import ops

from . import exercise, quiz, right, wrong


def central(function, x, eps):
    """The slope of `function`, an array in and a number out, at every element of x."""
    slopes = np.empty_like(x)
    for at in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[at] += eps
        down[at] -= eps
        slopes[at] = (function(up) - function(down)) / (2 * eps)
    return slopes


@exercise
def check_slopes(answer):
    """`answer(function, x, eps)`: central differences of a function from an array to a number, shaped like x."""
    rng = np.random.default_rng(3)
    v = rng.standard_normal((2, 3))
    cases = {
        "sum(v * x**3)": (lambda x: float((v * x**3).sum()), rng.standard_normal((2, 3))),
        "prod(x)": (lambda x: float(x.prod()), rng.uniform(1, 2, 4)),
    }
    for name, (function, x) in cases.items():
        kept = x.copy()
        found = np.asarray(answer(function, x, 1e-3), dtype=float)
        if not np.array_equal(x, kept):
            return wrong(f"{name}: x has changed; put every element back before you move the next one")
        expected = central(function, x, 1e-3)
        if found.shape != x.shape:
            return wrong(f"{name}: your slopes have shape {found.shape}; expected one for each element, {x.shape}")
        if np.allclose(found, expected, rtol=1e-9):
            continue
        if np.allclose(found, 2 * expected, rtol=1e-6):
            return wrong(f"{name}: your slopes are twice too steep; from -eps to +eps is a way of 2 eps")
        if np.allclose(found, expected, rtol=2e-2, atol=2e-2):
            return wrong(f"{name}: close, but not central; go to both sides, f(x + eps) - f(x - eps)")
        return wrong(f"{name}: the slope at 0 is {found.flat[0]:.6f}, expected {expected.flat[0]:.6f}")
    return right("two evaluations for each element, and x as it was")


def _suspects():
    """Four convolutions of (1, 1, 6, 6) with (1, 1, 3, 3); one of them has a fault in one gradient."""

    def with_gradients(of_x=lambda gx: gx, of_w=lambda gw: gw, of_gy=lambda gy: gy):
        def conv(x, w):
            y, (grad_x, grad_w, _) = ops.conv2d.__wrapped__(x, w, padding=1)
            return y, (lambda gy: of_x(grad_x(gy)), lambda gy: of_w(grad_w(of_gy(gy))))

        return conv

    return {
        "A": with_gradients(of_x=lambda gx: gx.copy()),
        "B": with_gradients(of_w=lambda gw: gw * 1.0),
        "C": with_gradients(of_gy=lambda gy: gy[:, :, :, ::-1].copy()),  # seen only when gy is no mirror image
        "D": with_gradients(of_x=lambda gx: gx + 0.0, of_gy=lambda gy: gy[:, ::-1].copy()),  # one channel: no fault
    }


SUSPECTS = _suspects()


@exercise
def check_fault(answer):
    """`answer`: which of the four has a wrong gradient, and of which input: such as "A x"."""
    answer = " ".join(map(str, answer)) if isinstance(answer, (list, tuple)) else answer
    letters = [letter for letter in answer if letter.isalpha()] if isinstance(answer, str) else []
    if len(letters) != 2:
        return wrong(f'expected a letter and an input, such as "A x" or "D w"; found {answer!r}')
    letter, argument = letters[0].upper(), letters[1].lower()
    if letter not in SUSPECTS or argument not in ("x", "w"):
        return wrong(f'{answer!r} is none of the eight gradients: "A x" to "D w"')
    if letter != "C":
        return wrong(f"{letter} agrees with the differences in both gradients, whatever gy is; try the others")
    if argument != "w":
        return wrong("C it is, but its gradient of x is right: only one of the two sees gy as in a mirror")
    return right("grad_w of C takes gy as in a mirror, and ones look the same in a mirror")


@exercise
def check_blind(answer):
    """`answer`: an output gradient (4, 4), not all the same, under which a transposed gy cannot be seen."""
    v = np.asarray(answer, dtype=float)
    if v.shape != (4, 4):
        return wrong(f"your output gradient has shape {v.shape}; expected (4, 4)")
    if not np.isfinite(v).all():
        return wrong("your output gradient holds something that is no number")
    if np.ptp(v) == 0:
        return wrong(f"all of it is {v[0, 0]:g}; that one we know already, find another")
    if not np.array_equal(v, v.T):
        i, j = next((i, j) for i in range(4) for j in range(4) if v[i, j] != v[j, i])
        return wrong(f"v[{i}, {j}] is {v[i, j]:g} and v[{j}, {i}] is {v[j, i]:g}: transposing v can be seen there")
    return right("a symmetric v is blind to this fault; a random one almost never is")


@exercise
def check_inputs(answer):
    """`answer(shape, gap)`: random float64 numbers of both signs, any two of them and 0 at least `gap` apart."""
    for shape, gap in (((2, 3, 4, 4), 0.05), ((1, 1, 2, 2), 0.5), ((300,), 0.001)):
        x = np.asarray(answer(shape, gap))
        if x.shape != shape:
            return wrong(f"for shape {shape} yours is {x.shape}")
        if x.dtype != np.float64:
            return wrong(f"your numbers are {x.dtype}; differences need float64")
        if x.min() >= 0 or x.max() <= 0:
            return wrong(f"shape {shape}: all numbers are on one side of 0; a ReLU would be tested there only")
        line = np.sort(np.append(x.ravel(), 0.0))
        nearest = float(np.diff(line).min())
        if nearest < gap * (1 - 1e-9):
            near = "0 and a number" if min(abs(x.ravel())) <= nearest else "two numbers"
            return wrong(f"shape {shape}: {near} are {nearest:.2g} apart; expected at least {gap}")
        order = np.argsort(x.ravel())
        if x.size > 20 and (np.array_equal(order, np.arange(x.size)) or np.array_equal(order[::-1], np.arange(x.size))):
            return wrong("your numbers lie in order: every pool's maximum would be in the same corner; shuffle them")
        if math.prod(shape) != x.size:
            return wrong(f"expected {math.prod(shape)} numbers, found {x.size}")
    return right("no ties, nothing at the kink of a ReLU: the derivative exists everywhere")


check_quiz = quiz(
    "b: ones look the same in a mirror",
    "a: half a turn is a flipped kernel",
    "c: at a tie there is no derivative",
)
