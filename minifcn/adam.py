"""Adam: every number of the net learns at its own pace, whatever the size of its gradient.

For each parameter w with gradient g in its step t = 1, 2, ... (Kingma and Ba, 2015, algorithm 1):

    g = g / accumulated
    m = beta1 m + (1 - beta1) g             the mean of the gradients, the old ones fading
    v = beta2 v + (1 - beta2) g^2           the mean of their squares
    w = w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon) - lr decay w

m and v start at zero, which the divisions make up for. The decay is beside the fraction, not inside (Loshchilov and
Hutter, 2019): there it would be divided by sqrt(v), and weights with large gradients would hardly decay. SGD moves a
weight by lr times its gradient; Adam by about lr. That helps where a fresh score layer and a trunk that knows its trade
learn together, and their gradients differ a hundredfold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from minifcn.backend import Array, device_of, to_device, to_host, xp_of
from minifcn.errors import FormatError, UsageError
from minifcn.nn import Module
from minifcn.optim import caffe_multipliers, in_blocks

PARTS = ("mean", "square")


class Adam:
    """`opt.step()` updates every parameter that has a gradient, in place, and clears the gradients, as `SGD` does.

    `multipliers(name)` gives each parameter's factors on `lr` and `weight_decay`. Frozen parameters are left alone.
    """

    def __init__(
        self,
        net: Module,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        multipliers: Callable[[str], tuple[float, float]] = caffe_multipliers,
    ) -> None:
        if not lr >= 0 or not all(0 <= beta < 1 for beta in betas) or not epsilon > 0 or not weight_decay >= 0:
            raise UsageError(
                f"Adam: lr {lr}, betas {betas}, epsilon {epsilon}, weight_decay {weight_decay}; expected lr and decay "
                "of at least 0, betas of at least 0 and below 1, and an epsilon above 0"
            )
        self.net, self.lr, self.betas, self.epsilon, self.weight_decay = net, lr, betas, epsilon, weight_decay
        self.multipliers = multipliers
        self.moments: dict[str, tuple[Array, Array]] = {}
        self.steps: dict[str, int] = {}  # of each parameter, so that one thawed later starts at its own beginning

    def step(self, *, accumulated: int = 1) -> None:
        """One update with the gradients collected over `accumulated` backward passes, which are then cleared."""
        beta1, beta2 = self.betas
        for name, parameter in self.net.parameters():
            if parameter.grad is None:
                continue
            if not parameter.data.flags.c_contiguous:
                parameter.data = parameter.data.copy()  # or reshape(-1) would be a copy, and the update lost
            if name not in self.moments:
                zeros = xp_of(parameter.data).zeros_like
                self.moments[name] = (zeros(parameter.data), zeros(parameter.data))
            self.steps[name] = t = self.steps.get(name, 0) + 1
            lr_mult, decay_mult = self.multipliers(name)
            rate = self.lr * lr_mult
            mean, square = self.moments[name]
            update(
                parameter.data.reshape(-1),
                parameter.grad.reshape(-1),
                mean.reshape(-1),
                square.reshape(-1),
                betas=self.betas,
                gain=1 / accumulated,
                rate=rate / (1 - beta1**t),
                root=1 / math.sqrt(1 - beta2**t),
                epsilon=self.epsilon,
                shrink=rate * self.weight_decay * decay_mult,
            )
            parameter.changed()
            parameter.clear_grad()

    def state(self) -> dict[str, np.ndarray]:
        """A copy of both moments of every parameter that was ever updated and of how often it was, on the host."""
        found: dict[str, np.ndarray] = {}
        for name, moments in self.moments.items():
            found |= {f"{part}.{name}": np.array(to_host(moment)) for part, moment in zip(PARTS, moments, strict=True)}
            found[f"steps.{name}"] = np.array([self.steps[name]], np.int64)
        return found

    def load(self, state: Mapping[str, Array]) -> None:
        """Take that back; `FormatError` if it is not of this net's parameters, or not whole."""
        own = dict(self.net.parameters())
        names = list(dict.fromkeys(key.partition(".")[2] for key in state))
        for key, found in state.items():
            part, _, name = key.partition(".")
            known = name in own and part in (*PARTS, "steps")
            shape = (1,) if part == "steps" else own[name].shape if known else ()
            if not known or tuple(found.shape) != shape:
                raise FormatError(f"Adam's {key} {tuple(found.shape)} belongs to no parameter of this network")
        absent = [f"{part}.{name}" for name in names for part in (*PARTS, "steps") if f"{part}.{name}" not in state]
        if absent:
            raise FormatError(f"Adam's state has no {', '.join(absent[:4])}; expected both moments and the steps")
        steps = {name: int(to_host(state[f"steps.{name}"])[0]) for name in names}
        if min(steps.values(), default=1) < 1:
            raise FormatError("Adam's steps are below 1; expected how often each parameter was updated")
        below = [key for key in state if key.startswith("square.") and (to_host(state[key]) < 0).any()]
        if below:
            raise FormatError(f"Adam's {below[0]} has numbers below 0; expected a mean of squares")

        def placed(array: Array, like: Array) -> Array:
            return to_device(np.array(to_host(array), dtype=like.dtype, order="C"), device_of(like))

        self.steps = steps
        self.moments = {
            name: (
                placed(state[f"mean.{name}"], own[name].data),
                placed(state[f"square.{name}"], own[name].data),
            )
            for name in names
        }


def update(
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
    """The formula above, in place, block by block, on flat arrays; `rate` and `root` hold the corrections for t."""
    xp, (beta1, beta2) = xp_of(w), betas

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
