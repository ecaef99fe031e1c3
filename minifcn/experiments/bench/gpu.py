"""Measure a GPU: its launches, copies and products, and a net on it beside PyTorch with cuDNN.

A GPU works behind Python's back, so time is taken by events that the device itself records between two kernels. What is
compiled or allocated first does not count: one turn comes before those that do.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from minifcn.backend import to_device
from minifcn.experiments.bench.studies import Work
from minifcn.kernels import fused
from minifcn.kernels.products import GPU_WORKSPACE

LAUNCHES = 1000
WORKSPACES = (32, 64, 128, 256, 512, 1024)


def device_seconds(work: Callable[[], Any], runs: int = 5) -> float:
    """Return the median of the device's time for `work`, in seconds, after one turn that does not count."""
    import cupy

    start, stop, times = cupy.cuda.Event(), cupy.cuda.Event(), []
    for turn in range(runs + 1):
        start.record()
        work()
        stop.record()
        stop.synchronize()
        if turn:
            times.append(cupy.cuda.get_elapsed_time(start, stop) / 1e3)
    return statistics.median(times)


def launch_seconds() -> dict[str, float]:
    """Return the seconds between two launches of a kernel that does nothing much: CuPy's own, and one of ours."""
    x, y = (to_device(np.ones(1, np.float32), "gpu") for _ in range(2))

    def often(work: Callable[[], Any]) -> None:
        for _ in range(LAUNCHES):
            work()

    works = (lambda: y.fill(0), lambda: fused.SGD(1, x, y, y.copy(), 0.9, 0.1, 0.0, T=x.dtype), y.copy)
    fill, both, copy = (device_seconds(partial(often, work)) / LAUNCHES for work in works)
    return {"fill": fill, "fused": max(0.0, both - copy)}


def copy_rate(megabytes: int = 512) -> float:
    """Return the GB/s, read and written, of a copy within the device's memory."""
    x = to_device(np.ones(megabytes << 18, np.float32), "gpu")
    y = x.copy()

    def copy() -> None:
        y[...] = x

    return 2 * x.nbytes / device_seconds(copy) / 1e9


def product_rates(side: int = 4096) -> dict[str, float]:
    """Return the GFLOP/s of a product of two square matrices: plain, in a stack of one, each also transposed."""
    a = to_device(np.random.default_rng(0).standard_normal((side, side), dtype="float32"), "gpu")
    stack = a[None]
    works: dict[str, Callable[[], Any]] = {
        "2-D": lambda: a @ a,
        "2-D, transposed": lambda: a @ a.T,
        "3-D": lambda: stack @ stack,
        "3-D, transposed": lambda: stack @ stack.swapaxes(1, 2),
    }
    return {name: 2 * side**3 / device_seconds(work) / 1e9 for name, work in works.items()}


def net_seconds(work: Work, runs: int = 5, *, torch: Any = None) -> dict[str, float]:
    """Return the seconds of a forward pass and a step of `work`, which lies on the GPU, and PyTorch's there."""
    found = {"forward": device_seconds(work.forward, runs), "step": device_seconds(work.step, runs)}
    if torch and torch.cuda.is_available():
        theirs = [work.rival(torch, layout) for layout in (torch.contiguous_format, torch.channels_last)]
        for index, name in enumerate(("forward", "step")):
            found[f"torch_{name}"] = min(device_seconds(rival[index], runs) for rival in theirs)
    return found


def workspaces(work: Work) -> Iterator[dict[str, float]]:
    """Yield `net_seconds` for each size of the workspace of a convolution, and the most bytes of CuPy's pool."""
    import cupy

    for size in WORKSPACES:
        pool = cupy.get_default_memory_pool()
        pool.free_all_blocks()
        with GPU_WORKSPACE.set(size << 20):
            found = net_seconds(work, 3)
        yield {"megabytes": size, **found, "pool_bytes": pool.total_bytes()}
