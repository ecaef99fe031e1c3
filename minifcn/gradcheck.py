"""Check gradients by finite differences.

The output is weighed with random numbers v, because sums hide faults: under an all-ones gradient a softmax whose
backward returns zeros passes, its rows summing to one whatever the input. In float64, every element of every input:

    <v, (f(x + eps e_i) - f(x - eps e_i)) / 2 eps>   against   (grad_x(v))_i

Inputs must be free of ties where the function has kinks (max, relu): there the derivative does not exist.
`gradcheck(..., picture=True)` draws where a gradient is wrong and names the likely fault.
`gradcheck_along` moves all parameters of a net at once in a random direction: one number, two evaluations.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from minifcn.backend import to_host, xp_of
from minifcn.errors import GradientError, ShapeError
from minifcn.tensor import Parameter, Tensor

ROUNDINGS = 8 * np.finfo(np.float64).eps
"""How far the computed value of a function may be off, relative to its size: a few roundings."""
DETECTIVES: list[Callable[..., Any]] = []
"""The first answers `picture=True`: `introspect/detective.py` puts it here, because imports go down only."""


def gradcheck(
    function: Callable[..., Tensor],
    *inputs: Any,
    seed: int = 0,
    eps: float = 1e-5,
    tolerance: float = 1e-6,
    picture: bool = False,
    **options: Any,
) -> float | Any:
    """Compare every gradient of `function(*inputs, **options)` with central differences; return the largest error.

    Float inputs must be float64 (others are data: labels, masks), and there must be one. An element is moved by
    eps max(1, |x|). Its error is the difference over the size of what was added up for it, so that a small element
    beside a large one counts as much; what rounding can do is allowed for, and where the slope itself bends, a step
    eight times smaller decides. The gradients are asked for twice and must not write into gy, the inputs or the value.

    With `picture`, return an `introspect.detective.Case`, also for a wrong number. In a notebook it shows the error of
    each element and the mean by pixel or kernel tap; printed, it names the likely fault. Keep the inputs small.

    Errors: `GradientError` naming the input and the element, `ShapeError` for inputs that cannot be checked.
    """
    name = getattr(function, "__name__", "function")
    arrays: list[Any] = [
        x.data if isinstance(x, Tensor) else np.asarray(x) if isinstance(x, list) else x for x in inputs
    ]
    checked = [i for i, x in enumerate(arrays) if getattr(x, "dtype", np.dtype(int)).kind == "f"]
    if not any(arrays[i].size for i in checked):
        raise ShapeError(f"gradcheck: {name} has no float64 input with an element, so there is nothing to check")
    for i in checked:
        if arrays[i].dtype != np.float64:
            raise ShapeError(
                f"gradcheck: input {i} is {arrays[i].dtype}; in less than float64 rounding hides the faults"
            )
    parameters: list[Any] = [Parameter(x.copy()) if i in checked else x for i, x in enumerate(arrays)]
    y = function(*parameters, **options)
    v = as_like(y.data, np.random.default_rng(seed).standard_normal(y.shape))
    found = gradients_of(y, v, {i: parameters[i] for i in checked}, name)

    worst, fault = 0.0, ""
    for i in checked:
        wanted, size, noise = differences(function, arrays, i, v, eps, options)
        scale = size + np.abs(np.where(np.isfinite(found[i]), found[i], 0)) + noise / tolerance + np.finfo(float).tiny
        error = np.abs(found[i] - wanted) / scale
        doubtful = ~(error <= tolerance)  # NaN is not <= anything
        if doubtful.any() and np.isfinite(found[i]).all():
            places = [tuple(map(int, at)) for at in np.argwhere(doubtful)]
            nearer, _, noise = differences(function, arrays, i, v, eps / 8, options, places)
            scale = scale + (noise + np.abs(nearer - wanted)) / tolerance
            error = np.where(doubtful, np.abs(found[i] - nearer) / scale, error)
        if not error.max(initial=0.0) <= tolerance:
            at = np.unravel_index(np.argmax(np.where(np.isfinite(error), error, np.inf)), error.shape)
            fault = (
                f"{name}: gradient of input {i} at {tuple(map(int, at))} is {found[i][at]:.9g}, "
                f"and by differences {wanted[at]:.9g}"
            )
            if not picture:
                raise GradientError(fault)
            break
        worst = max(worst, float(error.max(initial=0.0)))
    return DETECTIVES[0](fault, function, *arrays, seed=seed, **options) if picture else worst


def gradients_of(y: Tensor, v: Any, leaves: dict[int, Parameter], name: str) -> dict[int, np.ndarray]:
    """Return each leaf's gradient under v, asked for twice; `GradientError` if the second differs or data were hurt."""
    before = {f"input {i}": to_host(p.data).copy() for i, p in leaves.items()} | {"the value": to_host(y.data).copy()}
    found: dict[int, np.ndarray] = {}
    for _ in range(2):
        gy = v.copy()
        if y.node is not None:
            y.backward(gy, keep_graph=True)
        after = {f"input {i}": p.data for i, p in leaves.items()} | {"the value": y.data}
        for what, array in ({"gy": v} | before).items():
            if not same(array, after.get(what, gy)):
                raise GradientError(f"{name}: a gradient writes into {what}; it may only return a new array")
        for i, p in leaves.items():
            gx = np.zeros(p.shape) if p.grad is None else to_host(p.grad)
            if not same(gx, found.setdefault(i, gx)):
                raise GradientError(f"{name}: gradient of input {i} is another one when it is asked for again")
            p.zero_grad()
    return found


def same(x: Any, y: Any) -> bool:
    """Return whether two arrays hold the same numbers, NaN being equal to itself."""
    return np.array_equal(to_host(x), to_host(y), equal_nan=True)


def differences(
    function: Callable[..., Tensor],
    arrays: list[Any],
    i: int,
    v: Any,
    eps: float,
    options: dict[str, Any],
    places: Iterable[tuple[int, ...]] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return d<v, function>/d arrays[i] by central differences, element by element (at `places`, else at all).

    With it: the sum of the absolute values that were added up, and what rounding the function's values can change.
    """
    host, weight = to_host(arrays[i]), to_host(v)
    wanted, size, noise = np.zeros_like(host), np.zeros_like(host), np.zeros_like(host)
    for at in np.ndindex(host.shape) if places is None else places:
        step = eps * max(1.0, abs(host[at]))
        side = []
        for moved_by in (step, -step):
            there = host.copy()
            there[at] += moved_by
            inputs = [*arrays[:i], as_like(arrays[i], there), *arrays[i + 1 :]]
            side.append(to_host(function(*inputs, **options).data))
        change = weight * (side[0] - side[1]) / (2 * step)
        large = np.abs(weight) * (np.abs(side[0]) + np.abs(side[1])) / (2 * step)
        moved = (side[0] != side[1]) | (side[0] == side[1]).all()  # if none moved, the step was perhaps rounded away
        wanted[at], size[at], noise[at] = change.sum(), np.abs(change).sum(), ROUNDINGS * large[moved].sum()
    return wanted, size, noise


def gradcheck_along(
    loss: Callable[[], Tensor],
    parameters: Iterable[Parameter],
    *,
    seed: int = 0,
    eps: float = 1e-6,
    tolerance: float = 1e-6,
) -> float:
    """Compare the slope of `loss()` along one random direction of all `parameters` with <gradient, direction>.

    For whole nets: two evaluations however many parameters. Frozen ones are constants and stay put. Returns the
    relative error; above `tolerance` it raises `GradientError`, and `ShapeError` for parameters that are not float64.
    The parameters are put back as they were, and their gradients cleared.
    """
    parameters = [p for p in parameters if not p.frozen]
    if not parameters:
        raise ShapeError("gradcheck_along: there is no parameter, or all are frozen, so there is nothing to check")
    if any(p.dtype != np.float64 for p in parameters):
        raise ShapeError("gradcheck_along: the parameters must be float64; net.astype(np.float64) makes them so")
    rng = np.random.default_rng(seed)
    before = [p.data.copy() for p in parameters]
    directions = [as_like(p.data, rng.standard_normal(p.shape)) for p in parameters]
    for p in parameters:
        p.zero_grad()
    loss().backward()
    pairs = zip(parameters, directions, strict=True)
    slope = sum(float(to_host((p.grad * u).sum())) for p, u in pairs if p.grad is not None)
    values = []
    try:
        for step in (eps, -eps):
            for p, x, u in zip(parameters, before, directions, strict=True):
                p.data = x + step * u
            values.append(loss().item())
    finally:
        for p, x in zip(parameters, before, strict=True):
            p.data = x
            p.zero_grad()
    wanted = (values[0] - values[1]) / (2 * eps)
    error = abs(slope - wanted) / max(abs(slope), abs(wanted), 1e-12)
    if not error <= tolerance:
        raise GradientError(f"the gradient along a random direction is {slope:.9g} and by differences {wanted:.9g}")
    return error


def as_like(x: Any, values: np.ndarray) -> Any:
    """`values` as an array of x's dtype on x's device."""
    return xp_of(x).asarray(values.astype(x.dtype))
