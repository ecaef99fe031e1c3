"""Load the images of the next steps on background threads, while the present step is computed.

Pillow and NumPy release Python's lock while they decode and copy, so this runs beside the step.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

from minifcn.kernels.threads import can_start

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
W = TypeVar("W", covariant=True)


class Numbered(Protocol[W]):
    """Things by number, as a data set has them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> W: ...


def loaded(things: Numbered[V], *, workers: int) -> Iterator[V]:
    """Yield all of `things` in order, loaded in advance by so many threads."""
    with Prefetch(things.__getitem__, workers=workers) as prefetch:
        yield from prefetch.each(range(len(things)))


class Prefetch(Generic[K, V]):
    """Return `load(key)`, which was begun before it was asked for.

        with Prefetch(load, workers=2) as prefetch:
            for step in range(steps):
                batch = prefetch.take(step, range(step + 1, steps))

    `load` depends on its key alone, so the number of workers changes no result; an exception in it is raised by `take`.
    At most `2 * workers` keys are loaded in advance. With no workers, or where no thread can start, `take` loads.
    """

    def __init__(self, load: Callable[[K], V], *, workers: int) -> None:
        self._load, self._workers = load, workers
        self._begun: dict[K, Future[V]] = {}
        ahead = workers and can_start()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="minifcn-load") if ahead else None

    def take(self, key: K, following: Iterable[K] = ()) -> V:
        """Return what was loaded for `key`, and begin to load the first of those that follow."""
        if self._pool is None:
            return self._load(key)
        self._begin(key)
        for each in following:
            if len(self._begun) > 2 * self._workers:
                break
            self._begin(each)
        return self._begun.pop(key).result()

    def each(self, keys: Sequence[K]) -> Iterator[V]:
        """Yield what was loaded for each of these keys, in order."""
        for place, key in enumerate(keys):
            yield self.take(key, keys[place + 1 :])

    def _begin(self, key: K) -> None:
        if key not in self._begun and self._pool is not None:
            self._begun[key] = self._pool.submit(self._load, key)

    def clear(self) -> None:
        """Forget what is loaded in advance, and wait until nothing more is."""
        for each in self._begun.values():
            if not each.cancel():
                each.exception()
        self._begun.clear()

    def __enter__(self) -> Prefetch[K, V]:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None  # `take` loads from here on
