"""Measure times, memory and the limits of a machine that is doing other work.

A machine has other things to do, and its clock rises and falls. So rivals take turns (A B A B): whatever happens meets
both, and the ratio of two medians says more than either. What takes long enough does so in processes of their own
(`Elsewhere`), where neither has the other's arrays and threads about it. What a layer can reach is bounded twice, by
the rate of multiplication and by the rate at which memory delivers: the roofline.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from minifcn.errors import MinifcnError, UsageError
from minifcn.kernels.threads import parallel, shares, threads

PAUSE = 0.05
"""Seconds before a task in another process: threads of the last one to work may wait for more, at full speed."""


def seconds_of(work: Callable[[], Any]) -> float:
    """Return how long the work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def take_turns(rivals: Sequence[Any], runs: int, watch: Callable[[Any], float] = seconds_of) -> list[list[float]]:
    """Return the seconds of each in `runs` turns, as `watch` measures them, after one turn that does not count."""
    times: list[list[float]] = [[] for _ in rivals]
    for turn in range(runs + 1):
        for rival, seconds in zip(rivals, times, strict=True):
            each = watch(rival)
            if turn:
                seconds.append(each)
    return times


class Elsewhere:
    """A process that runs `command`, which is to call `serve`: it does the task whose name it is sent.

        with Elsewhere(command) as process:
            print(process.ask("step"))

    `MinifcnError` if it ends instead of answering; what it had to say of that is in the terminal.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.name, pipe = " ".join(command[1:6]), subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, bufsize=1)  # noqa: S603 (our own)

    def __enter__(self) -> Elsewhere:
        return self

    def __exit__(self, *fault: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # from a task that it did not live to read
            self.process.__exit__(*fault)  # no more tasks: it ends, and is waited for

    def ask(self, task: str) -> float:
        """Return the number that the process answers when it has done `task`."""
        answer = ""
        with contextlib.suppress(BrokenPipeError):
            if self.process.stdin and self.process.stdout:
                self.process.stdin.write(f"{task}\n")
                answer = self.process.stdout.readline()
        if not answer:
            raise MinifcnError(f"{self.name}: the process ended with code {self.process.wait()} before its {task}")
        return float(answer)


def serve(tasks: Mapping[str, Callable[[], float]]) -> None:
    """Do the tasks that are asked for on standard input, line by line, and write the number that each returns.

    `UsageError` for another name.
    """
    for line in sys.stdin:
        name = line.strip()
        if name not in tasks:
            raise UsageError(f"task {name!r} on standard input; expected one of {', '.join(tasks)}")
        time.sleep(PAUSE)
        sys.stdout.write(f"{tasks[name]()}\n")
        sys.stdout.flush()


def median_seconds(work: Callable[[], Any], runs: int = 5) -> float:
    """Return the median of the seconds that `work` takes."""
    return statistics.median(take_turns([work], runs)[0])


def matrix_product(side: int = 2048) -> Callable[[], None]:
    """Return a function that computes a large float32 matrix product, its rows shared between all threads."""
    a = np.random.default_rng(0).standard_normal((side, side), dtype="float32")
    y = np.empty_like(a)

    def some(part: slice) -> None:
        np.matmul(a[part], a, out=y[part])

    return lambda: parallel(some, shares(side, threads()), threads())


def matrix_rate(side: int = 2048) -> float:
    """Return the GFLOP/s of `matrix_product`: what no convolution by columns can beat."""
    return 2 * side**3 / median_seconds(matrix_product(side)) / 1e9


def copy_rate(megabytes: int = 64) -> float:
    """Return the GB/s, read and written, of one thread that copies an array too large for a core's cache."""
    a = np.ones(megabytes << 18, np.float32)
    b = np.empty_like(a)
    return 2 * a.nbytes / median_seconds(lambda: np.copyto(b, a)) / 1e9


def extra_bytes(work: Callable[[], np.ndarray]) -> int:
    """Return the most that NumPy held at once while `work` ran, beyond the array that it returned."""
    tracemalloc.start()
    try:
        result = work()
        return tracemalloc.get_traced_memory()[1] - result.nbytes
    finally:
        tracemalloc.stop()


def peak_while(work: Callable[[], Any]) -> float:
    """Return the most memory that this process held while it did the work twice, in bytes."""
    forget_peak()
    for _ in range(2):
        work()
    return peak_bytes()


def forget_peak() -> None:
    """Reset this process's peak, so that what was done to prepare does not count. Only Linux can."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def peak_bytes() -> int:
    """Return the most memory that this process has held, since `forget_peak` where there is one."""
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)
