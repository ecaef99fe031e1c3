"""The memory that `describe` predicts, beside what the arrays of a real run take."""

from __future__ import annotations

import contextlib
import gc
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minifcn import ops
from minifcn.backend import Array, to_device
from minifcn.introspect.describe import channels, describe, dtype_of
from minifcn.introspect.outline import Ledger
from minifcn.kernels.threads import set_threads
from minifcn.models.zoo import NETS
from minifcn.nn import Module, evaluating

CHECKED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("fcn8s", {"width": 16, "padding": "same", "classes": 21}),
    ("fcn32s", {"width": 8, "padding": 100, "classes": 5}),
    ("fcn16s", {"width": 32, "layers": 11, "padding": "same", "classes": 12, "upsampling": "all learned"}),
    ("fcn-squeezenet", {"classes": 12}),
)


@dataclass(frozen=True)
class Checked:
    """Bytes predicted and bytes taken by `what` ("inference", "training step") of a net at one size of image."""

    net: str
    size: int
    what: str
    predicted: int
    taken: int

    @property
    def off(self) -> float:
        """By what share of the bytes taken the prediction is wrong."""
        return abs(self.predicted / self.taken - 1)


def check(sizes: tuple[int, ...] = (160, 256), *, device: str = "cpu") -> Iterator[Checked]:
    """Yield prediction and measurement of each net of `CHECKED` at each size on `device`, with one thread."""
    set_threads(1)
    for name, options in CHECKED:
        net = NETS[name](**options)
        for size in sizes:
            needs = describe(net, size, device=device)
            yield Checked(name, size, "inference", needs.inference, measured(infer, net, size, device=device))
            yield Checked(name, size, "training step", needs.training, measured(train_step, net, size, device=device))
    set_threads(None)


def measured(program: Callable[[Module, Array, Array], Any], net: Module, size: int, *, device: str = "cpu") -> int:
    """Return the most bytes that arrays on `device` took while `program` ran, beyond what was there before."""
    rng = np.random.default_rng(0)
    x = to_device(rng.standard_normal((1, channels(net), size, size)).astype(dtype_of(net)), device)
    labels = to_device(rng.integers(0, 2, (1, size, size)), device)
    net.to(device).zero_grad()
    program(net, x[:, :, :64, :64], labels[:, :64, :64])  # what is made once and kept: thread pools, BLAS
    net.zero_grad()
    gc.collect()
    with counting(device) as ledger:
        program(net, x, labels)
    return ledger.peak


@contextlib.contextmanager
def counting(device: str) -> Iterator[Ledger]:
    """Afterwards, the ledger's peak is the most that arrays on `device` took meanwhile beyond the level before.

    On the CPU `tracemalloc` says so. On a GPU every request to CuPy's memory pool is booked: an array takes what the
    pool hands out (whole blocks of 512 bytes), not what the pool keeps in store.
    """
    ledger = Ledger(device=device)
    if device == "gpu":
        with pool_hook(ledger):
            yield ledger
        return
    tracemalloc.start()
    try:
        level, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        yield ledger
        ledger.peak = tracemalloc.get_traced_memory()[1] - level
    finally:
        tracemalloc.stop()


def pool_hook(ledger: Ledger) -> Any:
    """Return a context in which CuPy's pool reports to `ledger` every piece that it hands out or gets back."""
    import cupy

    class Booking(cupy.cuda.MemoryHook):
        name = "minifcn.experiments.bench.prediction"

        def malloc_postprocess(self, *, mem_size: int, **_: Any) -> None:
            ledger.take(mem_size)

        def free_postprocess(self, *, mem_size: int, **_: Any) -> None:
            ledger.give(mem_size)

    return Booking()


def infer(net: Module, x: Array, labels: Array) -> None:
    """Run the net on `x` as in use; the labels are for `train_step` alone."""
    with evaluating(net):
        net(x)


def train_step(net: Module, x: Array, labels: Array) -> None:
    """Compute the loss of `x` (1, C, H, W) with its labels (1, H, W), and all gradients."""
    ops.softmax_cross_entropy(net.train()(x), labels).backward()
