"""SGD exactly as in Caffe, Adam, Muon, and learning rate schedules.

An optimizer is a rule for one parameter and the numbers it keeps for it (its slots). `Optimizer` does what the rules
share: the walk over the parameters, their multipliers, and the state that goes into a checkpoint.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from numbers import Real

import numpy as np

from minifcn.backend import Array, device_of, is_host, to_device, to_host, xp_of
from minifcn.errors import FormatError, UsageError, whole
from minifcn.kernels import fused
from minifcn.kernels.threads import parallel, shares, threads
from minifcn.nn import Module

BLOCK = 1 << 16  # numbers updated at a time: w, g and the slots of a block stay in the cache through a rule
Multipliers = Callable[[str], tuple[float, float]]


def number(value: object) -> bool:
    """Return whether it is a finite real number; True is none."""
    return type(value) is not bool and isinstance(value, Real) and math.isfinite(value)


def caffe_multipliers(name: str) -> tuple[float, float]:
    """Return the (learning rate, weight decay) multipliers of a parameter: 2 and 0 for biases, 1 and 1 for weights."""
    return (2.0, 0.0) if name.endswith(".b") or name == "b" else (1.0, 1.0)


class Optimizer:
    """`opt.step()` updates every parameter that has a gradient, in place, and clears the gradients.

    `multipliers(name)` gives each parameter's factors on `lr` and `weight_decay`. Frozen parameters are left alone. A
    subclass names its `SLOTS`, the arrays it keeps for each parameter, and defines `update`.
    """

    SLOTS: tuple[str, ...] = ()

    def __init__(self, net: Module, *, lr: float, weight_decay: float, multipliers: Multipliers) -> None:
        self.net, self.lr, self.weight_decay, self.multipliers = net, lr, weight_decay, multipliers
        self.slots: dict[str, tuple[Array, ...]] = {}
        self.steps: dict[str, int] = {}  # of each parameter, so that one thawed later starts at its own beginning
        self.shape: tuple[int, ...] = ()  # of the parameter that is being updated

    def zero_grad(self) -> None:
        """Forget the gradients of the net's parameters."""
        self.net.zero_grad()

    def step(self, *, accumulated: int = 1) -> None:
        """Update once with the gradients collected over `accumulated` backward passes, then clear them.

        Errors: `UsageError` if `accumulated` is no whole number of at least 1, and for an `lr` that is no rate.
        """
        if not whole(accumulated, least=1) or not number(self.lr) or self.lr < 0:
            raise UsageError(
                f"step: accumulated is {accumulated!r}, lr {self.lr!r}; expected at least 1, and at least 0"
            )
        for name, parameter in self.net.named_parameters():
            if parameter.grad is None:
                continue
            if not parameter.data.flags.c_contiguous:
                parameter.data = parameter.data.copy()  # or reshape(-1) would be a copy, and the update lost
            w = parameter.data
            if name not in self.slots:
                self.slots[name] = tuple(xp_of(w).zeros_like(w) for _ in self.SLOTS)
            self.steps[name] = t = self.steps.get(name, 0) + 1
            lr_mult, decay_mult = self.multipliers(name)
            rate = self.lr * lr_mult
            flat = [array.reshape(-1) for array in (w, parameter.grad, *self.slots[name])]
            self.shape = w.shape
            self.update(*flat, t=t, rate=rate, accumulated=accumulated, shrink=rate * self.weight_decay * decay_mult)
            parameter.changed()
            parameter.zero_grad()

    def update(self, w: Array, g: Array, *slots: Array, t: int, rate: float, accumulated: int, shrink: float) -> None:
        """Write w and its slots in place, all of them flat (`self.shape` is w's own), in the step t = 1, 2, ...

        g: the sum of `accumulated` gradients; rate: this parameter's learning rate; shrink: rate times weight decay.
        """
        raise UsageError(f"{type(self).__name__} defines no update")

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return a copy of what is kept for every parameter that was ever updated, on the host."""
        kept = {name: (*arrays, np.array([self.steps[name]], np.int64)) for name, arrays in self.slots.items()}
        pairs = [pair for name, arrays in kept.items() for pair in zip(self.keys(name), arrays, strict=False)]
        return {key: np.array(to_host(array)) for key, array in pairs}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Take that back; `FormatError` if it is not of this net's parameters, or not whole."""
        kind, own = type(self).__name__, dict(self.net.named_parameters())
        shapes = {key: shape for name, p in own.items() for key, shape in self.keys(name, p.shape).items()}
        for key, array in state.items():
            if tuple(array.shape) != shapes.get(key):
                raise FormatError(f"{kind}'s {key} {tuple(array.shape)} belongs to no parameter of this network")
        kept = {name: list(self.keys(name)) for name in own if any(key in state for key in self.keys(name))}
        absent = [key for keys in kept.values() for key in keys if key not in state]
        if absent:
            raise FormatError(f"{kind}'s state has no {', '.join(absent[:4])}; expected both moments and the steps")
        self.check(state)

        def placed(array: Array, like: Array) -> Array:
            return to_device(np.array(to_host(array), dtype=like.dtype, order="C"), device_of(like))

        self.slots = {
            name: tuple(placed(state[key], own[name].data) for key, _ in zip(keys, self.SLOTS, strict=False))
            for name, keys in kept.items()
        }
        self.steps = {name: int(to_host(state.get(f"steps.{name}", np.ones(1)))[0]) for name in kept}

    def keys(self, name: str, shape: tuple[int, ...] = ()) -> dict[str, tuple[int, ...]]:
        """Return the entries of a parameter in the state with their shapes: its slots, and how often it was updated."""
        return {f"{slot}.{name}": shape for slot in self.SLOTS} | {f"steps.{name}": (1,)}

    def check(self, state: Mapping[str, Array]) -> None:
        """Raise `FormatError` for numbers that no run of this optimizer could have left."""


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as Caffe does it (`sgd_solver.cpp`; the paper's section 4.3).

    g = g / accumulated + decay * w
    h = momentum * h + lr * g          the learning rate is inside the history
    w = w - h

    So a change of the learning rate acts on new gradients only. Biases learn twice as fast and do not decay.
    """

    SLOTS = ("history",)

    def __init__(
        self,
        net: Module,
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        multipliers: Multipliers = caffe_multipliers,
    ) -> None:
        numbers = all(map(number, (lr, momentum, weight_decay)))
        if not numbers or not lr >= 0 or not 0 <= momentum < 1 or not weight_decay >= 0:
            raise UsageError(
                f"SGD: lr {lr}, momentum {momentum}, weight_decay {weight_decay}; expected lr and decay of at least 0 "
                "and a momentum of at least 0 and below 1"
            )
        super().__init__(net, lr=lr, weight_decay=weight_decay, multipliers=multipliers)
        self.momentum = momentum

    @property
    def history(self) -> dict[str, Array]:
        """The momentum h of every parameter that was ever updated."""
        return {name: h for name, (h,) in self.slots.items()}

    def update(self, w: Array, g: Array, *slots: Array, t: int, rate: float, accumulated: int, shrink: float) -> None:
        """h = momentum * h + rate * g / accumulated + shrink * w; w = w - h."""
        sgd_update(w, g, slots[0], momentum=self.momentum, gain=rate / accumulated, shrink=shrink)

    def keys(self, name: str, shape: tuple[int, ...] = ()) -> dict[str, tuple[int, ...]]:
        """Return the parameter's own name: its momentum is all that is kept."""
        return {name: shape}


class Adam(Optimizer):
    """Adam: every number of the net learns at its own pace, whatever the size of its gradient.

    For each parameter w with gradient g in its step t = 1, 2, ... (Kingma and Ba, 2015, algorithm 1):

    g = g / accumulated
    m = beta1 m + (1 - beta1) g             the mean of the gradients, the old ones fading
    v = beta2 v + (1 - beta2) g^2           the mean of their squares
    w = w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon) - lr decay w

    m and v start at zero, which the divisions correct. The decay is outside the fraction (Loshchilov and Hutter, 2019):
    inside, it would be divided by sqrt(v), and weights with large gradients would hardly decay. SGD moves a weight by
    lr times its gradient; Adam by about lr. That helps where a new score layer and a trained trunk learn together, and
    their gradients differ a hundredfold.
    """

    SLOTS = ("mean", "square")

    def __init__(
        self,
        net: Module,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        multipliers: Multipliers = caffe_multipliers,
    ) -> None:
        numbers = all(map(number, (lr, *betas, epsilon, weight_decay))) and len(betas) == 2
        possible = numbers and lr >= 0 and all(0 <= beta < 1 for beta in betas) and epsilon > 0 and weight_decay >= 0
        if not possible:
            raise UsageError(
                f"{type(self).__name__}: lr {lr}, betas {betas}, epsilon {epsilon}, weight_decay {weight_decay}; "
                "expected lr and decay of at least 0, betas of at least 0 and below 1, and an epsilon above 0"
            )
        super().__init__(net, lr=lr, weight_decay=weight_decay, multipliers=multipliers)
        self.betas, self.epsilon = betas, epsilon

    def update(self, w: Array, g: Array, *slots: Array, t: int, rate: float, accumulated: int, shrink: float) -> None:
        """The formula above."""
        beta1, beta2 = self.betas
        m, v = slots
        adam_update(
            w,
            g,
            m,
            v,
            betas=self.betas,
            gain=1 / accumulated,
            rate=rate / (1 - beta1**t),
            root=1 / math.sqrt(1 - beta2**t),
            epsilon=self.epsilon,
            shrink=shrink,
        )

    def check(self, state: Mapping[str, Array]) -> None:
        """Raise `FormatError` for a mean of squares below 0, and for a parameter that was never updated."""
        for key, array in state.items():
            if key.startswith("square.") and (to_host(array) < 0).any():
                raise FormatError(f"Adam's {key} has numbers below 0; expected a mean of squares")
            if key.startswith("steps.") and to_host(array)[0] < 1:
                raise FormatError("Adam's steps are below 1; expected how often each parameter was updated")


class Muon(Adam):
    """Muon: a layer learns equally in all directions, not most in the few that its gradient shows most.

    The weights of a convolution are a matrix w, a row for each output channel. With its gradient g:

    m = beta m + (1 - beta) g               the mean of the gradients
    d = (1 - beta) g + beta m               the same, one step ahead (Nesterov)
    w = w - lr (orthogonal(d) sqrt(max(1, rows / columns)) + decay w)

    The singular values of d are how much the step changes the layer in each direction, and a few are a hundred times as
    large as the others. `orthogonal` makes all of them about 1. (Jordan and others, "Muon", 2024.)

    Only windows of more than one pixel are updated so, the layers that look for shapes. Biases, 1x1 convolutions and
    all else follow Adam, at `ADAM` times the rate.
    """

    ADAM = 0.15

    def update(self, w: Array, g: Array, *slots: Array, t: int, rate: float, accumulated: int, shrink: float) -> None:
        """The formula above; the slots are Adam's, and windows need only the first."""
        if math.prod(self.shape[2:]) == 1:
            share = self.ADAM
            super().update(w, g, *slots, t=t, rate=rate * share, accumulated=accumulated, shrink=shrink * share)
            return
        beta, m = self.betas[0], slots[0]
        g = g * ((1 - beta) / accumulated)
        m *= beta
        m += g
        step = orthogonal((g + beta * m).reshape(self.shape[0], -1))
        w -= shrink * w + (rate * max(1, step.shape[0] / step.shape[1]) ** 0.5) * step.reshape(-1)


def orthogonal(matrix: Array) -> Array:
    """Return U V^T of the matrix U S V^T, nearly: with singular values between about 0.7 and 1.2 in the place of S.

    Each round puts a s + b s^3 + c s^5 in the place of every singular value s, which lifts small ones threefold and
    keeps large ones near 1. It needs no decomposition, only products: with gram = A A^T, the round is A = p A with
    p = a + b gram + c gram^2. These polynomials of one matrix commute, so the wide matrix is multiplied once, at the
    end.
    """
    rows, columns = matrix.shape
    if rows > columns:
        return orthogonal(matrix.T).T
    xp, (a, b, c) = xp_of(matrix), (3.4445, -4.7750, 2.0315)
    scaled = matrix / (xp.sqrt((matrix * matrix).sum()) + 1e-12)
    gram, one = scaled @ scaled.T, xp.eye(rows, dtype=matrix.dtype)
    product = one
    for _ in range(5):
        p = a * one + (b * one + c * gram) @ gram
        product, gram = p @ product, p @ gram @ p
    return product @ scaled


class WeightAverage:
    """The average of a net's weights over its last steps, which often predicts better than the last weights alone.

    After each step t = 1, 2, ...:  a = d a + (1 - d) w,  d = min(decay, t / (10 + t))

    so the average is not held back by the first weights; with decay 0.999 it then spans about a thousand steps.
    (Polyak and Juditsky, 1992; the exponential form as in Tarvainen and Valpola, 2017.)
    """

    def __init__(self, net: Module, *, decay: float) -> None:
        if not 0 <= decay < 1:
            raise UsageError(f"WeightAverage: decay is {decay}; expected at least 0 and below 1")
        self.net, self.decay = net, decay
        self.average = {name: parameter.data.copy() for name, parameter in net.named_parameters()}

    def update(self, t: int) -> None:
        """Take in the weights after step `t`, counted from 1."""
        decay = min(self.decay, t / (10 + t))
        for name, parameter in self.net.named_parameters():
            average = self.average[name]
            average += (parameter.data - average) * (1 - decay)

    @contextlib.contextmanager
    def swapped(self) -> Iterator[Module]:
        """Inside, the net has the average in the place of its weights."""
        own = {name: parameter.data for name, parameter in self.net.named_parameters()}
        self._put(self.average)
        try:
            yield self.net
        finally:
            self._put(own)

    def _put(self, arrays: Mapping[str, Array]) -> None:
        for name, parameter in self.net.named_parameters():
            parameter.data = arrays[name]
            parameter.changed()

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return a copy of the average of every parameter, on the host."""
        return {name: np.array(to_host(array)) for name, array in self.average.items()}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Take that back; `FormatError` if it is not of this net's parameters."""
        if {name: tuple(array.shape) for name, array in state.items()} != {n: a.shape for n, a in self.average.items()}:
            raise FormatError("the averaged weights are not those of this network")
        for name, array in state.items():
            like = self.average[name]
            self.average[name] = to_device(np.array(to_host(array), dtype=like.dtype, order="C"), device_of(like))


def sgd_update(w: Array, g: Array, h: Array, *, momentum: float, gain: float, shrink: float) -> None:
    """h = momentum * h + gain * g + shrink * w; w = w - h: in place, block by block, on flat arrays."""
    if fused.serves(w, g, h):
        fused.SGD(w.size, w, g, h, momentum, gain, shrink, T=w.dtype)
        return

    def some(part: slice) -> None:
        change = g[part] * gain
        if shrink:
            change += w[part] * shrink
        h[part] *= momentum
        h[part] += change
        w[part] -= h[part]

    in_blocks(some, w)


def adam_update(
    w: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    betas: tuple[float, float],
    gain: float,
    rate: float,
    root: float,
    epsilon: float,
    shrink: float,
) -> None:
    """Adam's formula, in place, block by block, on flat arrays; `rate` and `root` hold the corrections for t."""
    xp, (beta1, beta2) = xp_of(w), betas
    if fused.serves(w, g, m, v):
        numbers = (*betas, 1 - beta1, 1 - beta2, gain, rate, root, epsilon, shrink)
        fused.ADAM(w.size, w, g, m, v, *numbers, T=w.dtype)
        return

    def some(part: slice) -> None:
        gradient = g[part] * gain
        m[part] *= beta1
        m[part] += (1 - beta1) * gradient
        v[part] *= beta2
        v[part] += (1 - beta2) * gradient * gradient
        change = m[part] * rate
        change /= xp.sqrt(v[part]) * root + epsilon
        if shrink:
            change += w[part] * shrink
        w[part] -= change

    in_blocks(some, w)


def in_blocks(task: Callable[[slice], None], w: Array) -> None:
    """Call `task(part)` for every block of the flat array w, of a large one on all cores; on a GPU it is one block."""
    parallel(task, shares(w.size, -(-w.size // BLOCK) if is_host(w) else 1), threads() if w.size > 8 * BLOCK else 1)


SCHEDULES = ("fixed", "step", "poly", "cosine")


def learning_rate(
    step: int,
    total: int,
    *,
    lr: float,
    schedule: str = "fixed",
    power: float = 0.9,
    gamma: float = 0.1,
    drops: int = 2,
    warmup: int = 0,
) -> float:
    """Return the rate for step 0 .. total-1, and from there on that of the end.

    "fixed" (the paper): lr. "poly": lr (1 - step/total)^power. "step": times `gamma` at `drops` equal distances.
    "cosine": lr (1 + cos(pi step/total)) / 2. The first `warmup` steps rise to that in equal parts.
    Errors: `UsageError` for an unknown schedule, and for a step or a total that is no whole number of at least 0 and 1.
    """
    if not whole(step, least=0) or not whole(total, least=1):
        raise UsageError(f"learning_rate: step {step!r} of {total!r}; expected whole numbers of at least 0 and 1")
    if step < warmup:
        lr = lr * (step + 1) / warmup
    if schedule == "cosine":
        return lr * (1 + math.cos(math.pi * min(step, total) / total)) / 2
    if schedule == "fixed":
        return lr
    if schedule == "poly":
        return lr * (1 - min(step, total) / total) ** power
    if schedule == "step":
        return lr * gamma ** min(step * (drops + 1) // total, drops)
    raise UsageError(f"schedule is {schedule!r}; expected one of {', '.join(SCHEDULES)}")
