"""Measuring: rivals in turn, what this machine can do at best, and the memory that a piece of work takes.

A machine has other things to do, and its clock rises and falls. So rivals take turns (A B A B): whatever happens meets
both, and the ratio of two medians says more than either. What a layer can reach is bounded twice, by the rate of
multiplication and by the rate at which memory delivers: the roofline.
"""

from __future__ import annotations

import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

from minifcn.kernels.threads import parallel, shares, threads


def take_turns(rivals: list[Callable[[], Any]], runs: int) -> list[list[float]]:
    """The seconds of each in `runs` turns, after one turn that does not count."""
    times: list[list[float]] = [[] for _ in rivals]
    for turn in range(runs + 1):
        for rival, seconds in zip(rivals, times, strict=True):
            start = time.perf_counter()
            rival()
            if turn:
                seconds.append(time.perf_counter() - start)
    return times


def median_seconds(work: Callable[[], Any], runs: int = 5) -> float:
    return statistics.median(take_turns([work], runs)[0])


def matrix_product(side: int = 2048) -> Callable[[], None]:
    """One large float32 matrix product, its rows shared out to the threads there are when it is called."""
    a = np.random.default_rng(0).standard_normal((side, side), dtype="float32")
    y = np.empty_like(a)

    def some(part: slice) -> None:
        np.matmul(a[part], a, out=y[part])

    return lambda: parallel(some, shares(side, threads()), threads())


def matrix_rate(side: int = 2048) -> float:
    """GFLOP/s of `matrix_product`: what no convolution by columns can beat."""
    return 2 * side**3 / median_seconds(matrix_product(side)) / 1e9


def copy_rate(megabytes: int = 64) -> float:
    """GB/s, read and written, of one thread that copies an array too large for a core's cache."""
    a = np.ones(megabytes << 18, np.float32)
    b = np.empty_like(a)
    return 2 * a.nbytes / median_seconds(lambda: np.copyto(b, a)) / 1e9


def extra_bytes(work: Callable[[], np.ndarray]) -> int:
    """The most that NumPy held at once while `work` ran, beyond the array that it returned."""
    tracemalloc.start()
    try:
        result = work()
        return tracemalloc.get_traced_memory()[1] - result.nbytes
    finally:
        tracemalloc.stop()


def forget_peak() -> bool:
    """Start counting this process's peak anew, so that what was done to prepare does not count. Only Linux can."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return True


def peak_bytes() -> int:
    """The most memory that this process has held, since `forget_peak` where there is one."""
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)
