"""Stochastic gradient descent with momentum, exactly as Caffe does it, and the learning rate over time.

For each parameter w with gradient g (`sgd_solver.cpp`; the paper's section 4.3):

    g = g / accumulated + decay * w
    h = momentum * h + lr * g          the learning rate is inside the history
    w = w - h

so a change of the learning rate acts on new gradients only. Biases learn twice as fast and do not decay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from minifcn.backend import Array, device_of, is_host, to_device, to_host, xp_of
from minifcn.errors import FormatError, UsageError
from minifcn.kernels.threads import parallel, shares, threads
from minifcn.nn import Module

BLOCK = 1 << 16  # numbers updated at a time: w, g and h of a block stay in the cache through all three lines


def caffe_multipliers(name: str) -> tuple[float, float]:
    """(learning rate, weight decay) multipliers of a parameter: 2 and 0 for biases, 1 and 1 for weights."""
    return (2.0, 0.0) if name.endswith(".b") or name == "b" else (1.0, 1.0)


class SGD:
    """`opt.step()` updates every parameter that has a gradient, in place, and clears the gradients.

    `multipliers(name)` gives each parameter's factors on `lr` and `weight_decay`. Frozen parameters are left alone.
    """

    def __init__(
        self,
        net: Module,
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        multipliers: Callable[[str], tuple[float, float]] = caffe_multipliers,
    ) -> None:
        if not lr >= 0 or not 0 <= momentum < 1 or not weight_decay >= 0:
            raise UsageError(
                f"SGD: lr {lr}, momentum {momentum}, weight_decay {weight_decay}; expected lr and decay of at least 0 "
                "and a momentum of at least 0 and below 1"
            )
        self.net, self.lr, self.momentum, self.weight_decay = net, lr, momentum, weight_decay
        self.multipliers = multipliers
        self.history: dict[str, Array] = {}

    def step(self, *, accumulated: int = 1) -> None:
        """One update with the gradients collected over `accumulated` backward passes, which are then cleared."""
        for name, parameter in self.net.parameters():
            if parameter.grad is None:
                continue
            if not parameter.data.flags.c_contiguous:
                parameter.data = parameter.data.copy()  # or reshape(-1) would be a copy, and the update lost
            if name not in self.history:
                self.history[name] = xp_of(parameter.data).zeros_like(parameter.data)
            lr_mult, decay_mult = self.multipliers(name)
            rate = self.lr * lr_mult
            update(
                parameter.data.reshape(-1),
                parameter.grad.reshape(-1),
                self.history[name].reshape(-1),
                momentum=self.momentum,
                gain=rate / accumulated,
                shrink=rate * self.weight_decay * decay_mult,
            )
            parameter.changed()
            parameter.clear_grad()

    def state(self) -> dict[str, np.ndarray]:
        """A copy of the history of every parameter that was ever updated, on the host."""
        return {name: np.array(to_host(h)) for name, h in self.history.items()}

    def load(self, state: Mapping[str, Array]) -> None:
        """Take the history back; `FormatError` if it is not of this net's parameters."""
        own = dict(self.net.parameters())
        wrong = [name for name, h in state.items() if name not in own or tuple(h.shape) != own[name].shape]
        if wrong:
            raise FormatError(f"the momentum of {', '.join(wrong[:4])} belongs to no parameter of this network")
        self.history = {
            name: to_device(np.array(to_host(h), dtype=own[name].dtype, order="C"), device_of(own[name].data))
            for name, h in state.items()
        }


def update(w: Array, g: Array, h: Array, *, momentum: float, gain: float, shrink: float) -> None:
    """h = momentum * h + gain * g + shrink * w; w = w - h: in place, block by block, flat arrays."""

    def some(part: slice) -> None:
        change = g[part] * gain
        if shrink:
            change += w[part] * shrink
        h[part] *= momentum
        h[part] += change
        w[part] -= h[part]

    in_blocks(some, w)


def in_blocks(task: Callable[[slice], None], w: Array) -> None:
    """Call `task(part)` for every block of the flat array w, of a large one on all cores; on a GPU it is one block."""
    parallel(task, shares(w.size, -(-w.size // BLOCK) if is_host(w) else 1), threads() if w.size > 8 * BLOCK else 1)


SCHEDULES = ("fixed", "step", "poly")


def learning_rate(
    step: int,
    total: int,
    *,
    lr: float,
    schedule: str = "fixed",
    power: float = 0.9,
    gamma: float = 0.1,
    drops: int = 2,
) -> float:
    """The rate for step 0 .. total-1.

    "fixed" (the paper): lr. "poly": lr (1 - step/total)^power. "step": times `gamma` at `drops` equal distances.
    """
    if schedule == "fixed":
        return lr
    if schedule == "poly":
        return lr * (1 - step / total) ** power
    if schedule == "step":
        return lr * gamma ** (step * (drops + 1) // total)
    raise UsageError(f"schedule is {schedule!r}; expected one of {', '.join(SCHEDULES)}")
