"""Measure work on a GPU, and a net beside PyTorch with cuDNN.

A GPU works behind Python's back, so time is taken by events that the device itself records between two kernels. What is
compiled or allocated first does not count: one turn comes before those that do.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from minifcn.experiments.bench.studies import Work


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


def net_seconds(work: Work, runs: int = 5, *, torch: Any = None) -> dict[str, float]:
    """Return the seconds of a forward pass and a step of `work`, which lies on the GPU, and PyTorch's there."""
    found = {"forward": device_seconds(work.forward, runs), "step": device_seconds(work.step, runs)}
    if torch and torch.cuda.is_available():
        theirs = [work.rival(torch, layout) for layout in (torch.contiguous_format, torch.channels_last)]
        for index, name in enumerate(("forward", "step")):
            found[f"torch_{name}"] = min(device_seconds(rival[index], runs) for rival in theirs)
    return found
