"""Name the likely fault of a wrong gradient.

`gradcheck` says that a gradient is wrong and at which element. `investigate`, or `gradcheck` with `picture=True`, goes
on: it measures the whole Jacobian by differences, computes what each of a list of well-known faults would return, and
compares. Each fault is a *suspect*: a sentence for the reader, and a function from the evidence to the gradient that
the fault would make. The first suspect whose gradient is the one found is named. `minifcn/introspect/planted.py` has
an op with each of these faults.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minifcn import gradcheck
from minifcn.backend import to_host
from minifcn.errors import ShapeError
from minifcn.gradcheck import as_like, gradients_of
from minifcn.introspect.markup import inline, tag
from minifcn.tensor import Parameter, Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EPS = 1e-5
CLOSE, TINY = 1e-4, 1e-7
"""An element is the same in two gradients if it differs by less than these parts of itself, and of the largest."""

# A sentence that names a fault, and the gradient that it would make, or whether it explains the one found.
Guess = tuple[str, Any]


@dataclass(frozen=True)
class Evidence:
    """Of one input: what its gradient is and what differences say, with all that a suspect needs to compute its own.

    `slopes` is the Jacobian, (size of x, size of y), by differences; `v` is the random output gradient, shaped like y.
    `slopes_of(changed, options)` measures it again for other inputs or options, with the shape of that y.
    """

    position: int
    inputs: tuple[Any, ...]
    found: np.ndarray
    slopes: np.ndarray
    v: np.ndarray
    options: dict[str, Any]
    slopes_of: Callable[[list[Any], dict[str, Any]], tuple[np.ndarray, tuple[int, ...]]]
    others: dict[int, np.ndarray]

    @property
    def x(self) -> np.ndarray:
        """The input itself, on the host."""
        return to_host(self.inputs[self.position])

    @property
    def wanted(self) -> np.ndarray:
        """The gradient by differences."""
        return self.under(self.v)

    @property
    def error(self) -> np.ndarray:
        """The gradient found minus the one by differences, element by element."""
        return self.found - self.wanted

    @property
    def right(self) -> bool:
        """Whether the gradient agrees with the differences."""
        return self.same(self.found, self.wanted)

    def under(self, v: np.ndarray) -> np.ndarray:
        """Return the gradient that another output gradient would give."""
        return (self.slopes @ v.ravel()).reshape(self.found.shape)

    @property
    def wrong(self) -> np.ndarray:
        """Where the gradient differs from the one by differences."""
        return ~close(self.found, self.wanted)

    def same(self, a: Any, b: Any) -> bool:
        """Return whether two gradients agree in every element."""
        a, b = np.asarray(a), np.asarray(b)
        return a.shape == b.shape and bool(close(a, b).all())

    def verdict(self) -> str:
        """Return one sentence: that the gradient is right, or the fault that explains it."""
        if self.right:
            return "right"
        if not (finite := np.isfinite(self.found)).all():
            return f"it is NaN or infinite, first at {place_of(~finite)}"
        for suspect in SUSPECTS:
            for sentence, guess in suspect(self):
                if guess is True or (isinstance(guess, np.ndarray) and self.same(self.found, guess)):
                    return sentence
        return "wrong in a way that no known fault explains"


def close(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return where two gradients agree: what is not finite agrees with nothing."""
    size = np.maximum(np.abs(a), np.abs(b))
    finite = np.isfinite(size)
    size = np.where(finite, size, 0)
    return finite & (np.abs(np.where(finite, a - b, 0)) <= CLOSE * size + TINY * size.max(initial=0.0))


def place_of(marked: np.ndarray) -> tuple[int, ...]:
    """Return the first place that is marked."""
    return tuple(map(int, np.argwhere(marked)[0]))


@dataclass(frozen=True, repr=False)
class Case:
    """What `investigate` found out: one piece of evidence for each float input.

    `fault` is what `gradcheck`, which measures better, says: a sentence, "" if all is right, None if it was not asked.
    """

    name: str
    evidence: dict[int, Evidence]
    fault: str | None = None

    @property
    def right(self) -> bool:
        """Whether all gradients are right."""
        return not self.fault and set(self.verdicts.values()) == {"right"}

    @property
    def verdicts(self) -> dict[int, str]:
        """One sentence for each float input, by its position."""
        return {position: "right" if self.fault == "" else each.verdict() for position, each in self.evidence.items()}

    @property
    def errors(self) -> dict[str, np.ndarray]:
        """The errors, element by element, for `viz.gradient_errors`."""
        return {f"input {position}": each.error for position, each in self.evidence.items()}

    def __str__(self) -> str:
        right = f"right to one part in {1 / CLOSE:,.0f}" if self.fault else "right"
        said = [self.fault] if self.fault else []
        for i, verdict in self.verdicts.items():
            said.append(f"{self.name}, gradient of input {i}: {right if verdict == 'right' else verdict}")
        return "\n".join(said)

    __repr__ = __str__

    def figure(self, *, path: Path | None = None) -> Figure:
        """Return the errors as a picture: each element, and the mean by pixel or kernel tap."""
        from minifcn.viz.inside import gradient_errors

        return gradient_errors(self.errors, path=path)

    def _repr_html_(self) -> str:
        from minifcn.viz.plots import figure_png

        lines, picture = str(self).splitlines(), inline(figure_png(self.figure(), dpi=90))
        return tag("div", *(tag("div", line) for line in lines), tag("img", src=picture, alt="errors by element"))


def investigate(function: Callable[..., Tensor], *inputs: Any, seed: int = 0, **options: Any) -> Case:
    """Compare all gradients of `function(*inputs, **options)` with differences, and name the likely fault of each.

    Inputs are as for `gradcheck`: float64 arrays are checked, others are data. Keep them small: it evaluates the
    function twice per element, and for some suspects again. Errors: `ShapeError` if there is nothing to check.
    """
    name = getattr(function, "__name__", "function")
    arrays = [x.data if isinstance(x, Tensor) else x for x in inputs]
    checked = [i for i, x in enumerate(arrays) if getattr(x, "dtype", None) == np.float64 and x.size]
    if not checked:
        raise ShapeError(f"investigate: {name} has no float64 input with an element, so there is nothing to check")
    leaves = {i: Parameter(arrays[i].copy()) for i in checked}
    y = function(*(leaves.get(i, x) for i, x in enumerate(arrays)), **options)
    v = as_like(y.data, np.random.default_rng(seed).standard_normal(y.shape))
    found = gradients_of(y, v, leaves, name)

    def slopes_at(i: int, changed: list[Any], other: dict[str, Any]) -> tuple[np.ndarray, tuple[int, ...]]:
        host, rows = to_host(changed[i]), []
        shape: tuple[int, ...] = ()
        for at in np.ndindex(host.shape):
            sides, size = [], EPS * max(1.0, abs(float(host[at])))
            for step in (size, -size):
                moved = host.copy()
                moved[at] += step
                value = function(*changed[:i], as_like(changed[i], moved), *changed[i + 1 :], **other)
                sides.append(to_host(value.data))
                shape = value.shape
            rows.append((sides[0] - sides[1]).ravel() / (2 * size))
        return np.stack(rows), shape

    slopes = {i: slopes_at(i, arrays, options)[0] for i in checked}
    wanted = {i: (slopes[i] @ to_host(v).ravel()).reshape(found[i].shape) for i in checked}
    evidence = {}
    for i in checked:
        others = {other: wanted[other] for other in checked if other != i}
        known = (found[i], slopes[i], to_host(v), options, partial(slopes_at, i), others)
        evidence[i] = Evidence(i, tuple(arrays), *known)
    return Case(name, evidence)


def register() -> None:
    """Let `gradcheck(..., picture=True)` find `investigate`; `minifcn/__init__.py` calls this."""
    gradcheck.DETECTIVES[:] = [lambda fault, *inputs, **options: replace(investigate(*inputs, **options), fault=fault)]


# The suspects, from those that explain every number to those that only say where the error is.


def size_is_wrong(e: Evidence) -> Iterator[Guess]:
    """Yield nothing, the opposite sign, or a constant factor."""
    yield "it is zero everywhere: nothing reaches this input", np.zeros_like(e.found)
    yield "the sign is wrong", -e.wanted
    squared = float((e.wanted**2).sum())
    factor = float((e.found * e.wanted).sum()) / squared if squared else 0.0
    yield f"a factor is wrong: it is {factor:.4g} times as large as it should be", factor * e.wanted


def output_gradient_is_wrong(e: Evidence) -> Iterator[Guess]:
    """Yield the output gradient left out, or its places mixed up."""
    v = e.v
    yield "gy is not used: the gradient is the same whatever gy is", e.under(np.ones_like(v))
    if v.ndim:
        yield "gy is mirrored along its last axis", e.under(v[..., ::-1])
        for step in (1, -1):
            yield "gy is moved by one along its last axis", e.under(np.roll(v, step, axis=-1))
    if v.ndim > 1:
        yield "gy is mirrored along its rows", e.under(v[..., ::-1, :])
        yield "gy is moved by one along its rows", e.under(np.roll(v, 1, axis=-2))
        if v.shape[-1] == v.shape[-2]:
            yield "gy is transposed", e.under(np.swapaxes(v, -1, -2))


def inputs_are_exchanged(e: Evidence) -> Iterator[Guess]:
    """Yield the gradient of another input of the same shape."""
    for other, gradient in e.others.items():
        yield f"it is the gradient of input {other}: the two are exchanged", gradient


def kernel_is_not_flipped(e: Evidence) -> Iterator[Guess]:
    """Yield half a turn of a kernel: of the weights that gy meets on its way to x, or of their gradient."""
    if e.found.ndim != 4:
        return
    sentence = "the kernel is not flipped: it lies the wrong way round by half a turn"
    for other, w in enumerate(e.inputs):
        if other != e.position and getattr(w, "ndim", 0) == 4:
            turned = list(e.inputs)
            turned[other] = w[..., ::-1, ::-1].copy()
            slopes, shape = e.slopes_of(turned, e.options)
            yield sentence, (slopes @ e.v.ravel()).reshape(e.found.shape) if shape == e.v.shape else None
    yield sentence, e.wanted[..., ::-1, ::-1]


def an_option_is_forgotten(e: Evidence) -> Iterator[Guess]:
    """Yield the gradient of windows that lie as if the stride or the dilation were 1."""
    for option in ("stride", "dilation"):
        if e.found.ndim == 4 and e.options.get(option, 1) not in (1, (1, 1)):
            slopes, shape = e.slopes_of(list(e.inputs), {**e.options, option: 1})
            v = np.zeros(shape)  # the windows in the corner of the larger output get gy
            v[..., : e.v.shape[-2], : e.v.shape[-1]] = e.v
            yield f"the {option} is forgotten: it is computed as if it were 1", (slopes @ v.ravel()).reshape(e.x.shape)


def padding_is_not_cut(e: Evidence) -> Iterator[Guess]:
    """Yield the gradient of the padded image, not cut, or cut on one side only."""
    if e.found.ndim != 4:
        return
    for steps in itertools.product(range(-2, 3), repeat=2):
        here, there = (
            tuple(slice(max(0, way * step), n + min(0, way * step)) for step, n in zip(steps, size, strict=True))
            for way, size in ((1, e.x.shape[2:]), (-1, e.x.shape[2:]))
        )
        overlap = e.found[:, :, here[0], here[1]]
        if any(steps) and 3 * overlap.size >= e.found.size and overlap.any():
            sentence = f"it is moved by {steps}: the border that padding adds is not cut off on both sides"
            yield sentence, e.same(overlap, e.wanted[:, :, there[0], there[1]])


def parts_are_exchanged(e: Evidence) -> Iterator[Guess]:
    """Yield two axes, or the channels along one, in another order."""
    if e.found.ndim > 1:
        yield "its last two axes are exchanged", np.swapaxes(e.wanted, -1, -2)
    for axis in range(min(2, e.found.ndim)):
        count = e.found.shape[axis]
        if 1 < count <= 6:
            for order in itertools.permutations(range(count)):
                what = "channels" if e.found.ndim == 4 and axis == 1 else f"parts along axis {axis}"
                yield f"{what} are exchanged: their order is {order}", np.take(e.wanted, order, axis=axis)


def contributions_are_lost(e: Evidence) -> Iterator[Guess]:
    """Yield gradients in which of several outputs only one counts: the last (`=` for `+=`), or its own."""
    terms = e.slopes * e.v.ravel()
    if e.slopes.shape[0] == e.slopes.shape[1]:
        own = np.diagonal(terms).reshape(e.found.shape)
        yield "only the diagonal of the Jacobian counts: each output depends on all inputs, not on its own alone", own
    if e.v.ndim == 4:
        summed = terms.reshape(-1, *e.v.shape).sum(axis=2).reshape(len(terms), -1)
        touched = (e.slopes.reshape(-1, *e.v.shape) != 0).any(axis=2).reshape(len(terms), -1)
        for parts, there in ((terms, e.slopes != 0), (summed, touched)):
            last = there.shape[1] - 1 - np.argmax(there[:, ::-1], axis=1)
            kept = np.where(there.any(axis=1), parts[np.arange(len(parts)), last], 0).reshape(e.found.shape)
            yield "parts are overwritten where windows overlap: they must add up, += and not =", kept


def it_is_a_kink(e: Evidence) -> Iterator[Guess]:
    """Yield faults at inputs that are 0 or equal to another: there differences give the mean of both slopes."""
    wrong = e.wrong
    values = e.x[wrong]
    tied = [value == 0 or np.count_nonzero(e.x == value) > 1 for value in values.ravel()]
    if not (len(tied) and all(tied)):
        return
    twice = np.isclose(e.found[wrong], 2 * e.wanted[wrong])
    if twice.all():
        yield "the mask has >= for >, or gives to every equal value: wrong only at zeros and ties", True
    if (twice | (e.found[wrong] == 0)).all():
        yield "this is a tie or a kink and no fault: there is no derivative here; take other inputs", True


def it_is_somewhere(e: Evidence) -> Iterator[Guess]:
    """Yield where the error is: the border, one element, or one index of an axis."""
    wrong = e.wrong
    axes = ("image", "channel", "row", "column") if wrong.ndim == 4 else [f"axis {k}, index" for k in range(wrong.ndim)]
    if wrong.ndim == 4 and min(wrong.shape[2:]) > 2 and not wrong[..., 1:-1, 1:-1].any():
        yield "only the border is wrong: look at the first and the last windows, and at the padding", True
    if wrong.size > 1 == wrong.sum():
        yield f"only the element at {place_of(wrong)} is wrong", True
    for axis, name in enumerate(axes):
        places = np.unique(np.nonzero(wrong)[axis])
        if wrong.shape[axis] > 1 and len(places) == 1:
            yield f"only {name} {places[0]} is wrong", True


SUSPECTS: tuple[Callable[[Evidence], Iterator[Guess]], ...] = (
    it_is_a_kink,
    size_is_wrong,
    output_gradient_is_wrong,
    inputs_are_exchanged,
    kernel_is_not_flipped,
    an_option_is_forgotten,
    padding_is_not_cut,
    parts_are_exchanged,
    contributions_are_lost,
    it_is_somewhere,
)
