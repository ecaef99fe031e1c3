"""Divide one convolution among a few threads.

NumPy lets go of Python's lock while it copies and multiplies, so threads do run at once. BLAS has threads of its own,
but they split one product, and everything around it (building columns, transforming tiles, adding the bias) would
still run on one core. So BLAS is limited to one thread while blocks are processed, then restored.

Nothing starts at import. The helpers come with the first large convolution, and a process made by `fork` starts its
own. Which thread takes which block is a matter of timing, therefore no result may depend on it: every task writes its
own part of the output.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from minifcn.errors import UsageError, whole

ALONE = 20_000_000
"""Multiply-adds below which one thread is quicker than two: measured, on the layers of SqueezeNet."""

_wish: int | None = None
_helpers: list[Helper] = []
_blas: Any = None
_limit: Any = None
_busy = threading.Lock()


class Helper(threading.Thread):
    """A thread that waits for a task, does it, and waits again.

    The caller and it meet at two locks, which takes 20 to 40 microseconds where a queue with futures takes 100 to 150:
    a layer of a thin net takes hardly longer than that.
    """

    def __init__(self) -> None:
        super().__init__(name="minifcn", daemon=True)
        self._begins, self._ends = threading.Lock(), threading.Lock()
        self._task: Callable[[], None] | None = None
        self._failure: BaseException | None = None
        self._begins.acquire()
        self._ends.acquire()
        self.start()

    def begin(self, task: Callable[[], None] | None) -> None:
        """Do the task; None ends the thread."""
        self._task = task
        self._begins.release()

    def finish(self) -> BaseException | None:
        """Wait until the task is done, and return what it raised."""
        self._ends.acquire()
        self._task, failure, self._failure = None, self._failure, None
        return failure

    def run(self) -> None:
        """Do one task after the other."""
        while self._begins.acquire() and self._task is not None:
            try:
                self._task()
            except BaseException as failure:  # the caller raises it
                self._failure = failure
            self._ends.release()


def set_threads(count: int | None) -> None:
    """Set how many threads a convolution may use; None for one per core this process may run on, and BLAS as it was.

    With a number, BLAS keeps to one thread outside convolutions, too: its own threads, once woken by some product in
    between, wait for the next one at full speed for milliseconds, on the cores that ours should have.
    """
    global _wish, _limit
    if count is not None and not whole(count, least=1):
        raise UsageError(f"threads is {count!r}: expected an integer of at least 1")
    with _busy:
        _dismiss()
        _wish = count
        if _limit is not None:
            _limit.restore_original_limits()
        _limit = _controller().limit(limits=1, user_api="blas") if count and _controller() else None


def threads() -> int:
    """Return the number of threads a convolution uses: 1 without threadpoolctl, since two kinds of threads would
    collide.

    It is also 1 where no thread can start, which is so in a browser.
    """
    count = _wish or cores()
    return count if count == 1 or (_controller() is not None and can_start()) else 1


def useful_threads(multiply_adds: int) -> int:
    """Return how many threads so much work is worth: one if it is below ALONE, else all.

    Of many threads only some are woken for little work: each has half of ALONE to do at least.
    """
    return 1 if multiply_adds < ALONE else min(threads(), 2 * multiply_adds // max(1, ALONE))


def shares(count: int, parts: int) -> list[slice]:
    """Return 0..count cut into `parts` slices as equal as possible, none of them empty."""
    parts = max(1, min(count, parts))
    edges = [count * part // parts for part in range(parts + 1)]
    return [slice(first, stop) for first, stop in itertools.pairwise(edges)]


def parallel(
    task: Callable[..., None], items: Sequence[Any], workers: int, scratch: Callable[[], Any] | None = None
) -> None:
    """Call `task(item)` for every item, on up to `workers` threads at once, and return when all are done.

    With `scratch`, a function that makes arrays to work in, it is `task(item, scratch())`, made once per thread: fresh
    memory is slow to touch. An exception in a task is raised here, after the other threads have stopped. Called from
    within a task, or while another thread of the program is at it, the work is simply done by the caller.
    """
    queue = iter(items)  # next() on it is one step of the interpreter, so the threads need no lock

    def work() -> None:
        extra = () if scratch is None else (scratch(),)
        for item in queue:
            task(item, *extra)

    helpers = 0 if workers == 1 else min(workers, threads(), len(items)) - 1
    if helpers < 1 or not _busy.acquire(blocking=False):
        work()
        return
    try:
        with contextlib.nullcontext() if _limit else _controller().limit(limits=1, user_api="blas"):
            _helpers.extend(Helper() for _ in range(helpers - len(_helpers)))
            for helper in _helpers[:helpers]:
                helper.begin(work)
            try:
                work()
            finally:
                list(queue)  # after a failure: leave nothing for the others to begin
                failures = [helper.finish() for helper in _helpers[:helpers]]
        for failure in failures:
            if failure is not None:
                raise failure
    except BaseException:
        _dismiss()  # Ctrl-C may have come while one was waited for: it is not asked again
        raise
    finally:
        _busy.release()


def cores() -> int:
    """Return the cores this process may run on, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def can_start() -> bool:
    """Return whether a thread can start, found out once by starting one. In Pyodide none can."""
    thread = threading.Thread(target=int)
    try:
        thread.start()
    except RuntimeError:
        return False
    thread.join()
    return True


def _dismiss() -> None:
    """Let every helper end when it has done what it is doing."""
    while _helpers:
        _helpers.pop().begin(None)


def _controller() -> Any:
    """The one object that knows the loaded BLAS libraries; looking for them takes milliseconds, so it is done once."""
    global _blas
    if _blas is None:
        try:
            from threadpoolctl import ThreadpoolController
        except ModuleNotFoundError:
            _blas = False
        else:
            _blas = ThreadpoolController()
    return _blas or None


def _forget() -> None:
    """Start over in a forked child: the helpers, and a thread that holds the lock, stayed in the parent."""
    global _busy
    _helpers.clear()
    _busy = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
