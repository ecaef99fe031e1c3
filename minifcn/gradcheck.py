"""Check gradients by finite differences.

The output is weighed with random numbers v, because sums hide faults: under an all-ones gradient a softmax whose
backward returns zeros passes, its rows summing to one whatever the input. In float64, every element of every input:

    <v, (f(x + eps e_i) - f(x - eps e_i)) / 2 eps>   against   (grad_x(v))_i

Inputs must be free of ties where the function has kinks (max, relu): there the derivative does not exist.
`gradcheck_along` moves all parameters of a net at once in a random direction: one number, two evaluations.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from minifcn.backend import as_array, to_host, xp_of
from minifcn.errors import GradientError, ShapeError
from minifcn.tensor import Parameter, Tensor


def gradcheck(
    function: Callable[..., Tensor],
    *inputs: Any,
    seed: int = 0,
    eps: float = 1e-5,
    tolerance: float = 1e-6,
    **options: Any,
) -> float:
    """Compare every gradient of `function(*inputs, **options)` with central differences; return the largest error.

    Float inputs must be float64 (others are data: labels, masks). The error of an element is its difference over the
    sum of its size and the gradient's root mean square; above `tolerance` it raises `GradientError` naming the input
    and the element. `ShapeError` if a float input is not float64.
    """
    arrays: list[Any] = [None if x is None else as_array(x.data if isinstance(x, Tensor) else x) for x in inputs]
    checked = [i for i, x in enumerate(arrays) if x is not None and x.dtype.kind == "f"]
    for i in checked:
        if arrays[i].dtype != np.float64:
            raise ShapeError(
                f"gradcheck: input {i} is {arrays[i].dtype}; in less than float64 rounding hides the faults"
            )
    name = getattr(function, "__name__", "function")
    parameters: list[Any] = [Parameter(x.copy()) if i in checked else x for i, x in enumerate(arrays)]
    y = function(*parameters, **options)
    v = as_like(y.data, np.random.default_rng(seed).standard_normal(y.shape))
    if y.node is not None:
        y.backward(v)

    worst = 0.0
    for i in checked:
        found = to_host(xp_of(arrays[i]).zeros_like(arrays[i]) if parameters[i].grad is None else parameters[i].grad)
        if found.shape != arrays[i].shape or found.dtype != arrays[i].dtype:
            raise GradientError(
                f"{name}: gradient {i} is {found.dtype} {found.shape}, its input float64 {arrays[i].shape}"
            )
        wanted = differences(function, arrays, i, v, eps, options)
        scale = np.abs(wanted) + np.sqrt(np.mean(wanted**2)) + np.finfo(float).tiny
        error = np.abs(found - wanted) / scale
        if not (np.isfinite(found).all() and error.max(initial=0.0) <= tolerance):  # NaN is not <= anything
            at = np.unravel_index(np.argmax(np.where(np.isfinite(error), error, np.inf)), error.shape)
            raise GradientError(
                f"{name}: gradient of input {i} at {tuple(map(int, at))} is {found[at]:.9g}, "
                f"and by differences {wanted[at]:.9g}"
            )
        worst = max(worst, float(error.max(initial=0.0)))
    return worst


def differences(
    function: Callable[..., Tensor], arrays: list[Any], i: int, v: Any, eps: float, options: dict[str, Any]
) -> np.ndarray:
    """d<v, function>/d arrays[i], element by element, by central differences."""
    host = to_host(arrays[i])
    wanted = np.empty_like(host)
    for at in np.ndindex(host.shape):
        side = []
        for step in (eps, -eps):
            moved = host.copy()
            moved[at] += step
            inputs = [*arrays[:i], as_like(arrays[i], moved), *arrays[i + 1 :]]
            side.append(to_host(function(*inputs, **options).data).ravel() @ to_host(v).ravel())
        wanted[at] = (side[0] - side[1]) / (2 * eps)
    return wanted


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
