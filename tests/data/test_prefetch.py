"""Loading in advance: in order, bounded, and the same with any number of workers."""

import threading
import time

import pytest

from minifcn.data.prefetch import Prefetch, loaded
from minifcn.errors import DataError
from minifcn.kernels import threads


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_what_is_taken_is_what_was_asked_for(workers: int) -> None:
    with Prefetch(lambda key: key * key, workers=workers) as prefetch:
        assert [prefetch.take(key, range(key + 1, 20)) for key in range(20)] == [key * key for key in range(20)]
        assert list(prefetch.each(range(20))) == [key * key for key in range(20)]
        assert prefetch.take(7) == 49
    assert prefetch.take(3) == 9  # also afterwards


def test_no_more_is_loaded_in_advance_than_allowed() -> None:
    loaded = []
    with Prefetch(lambda key: loaded.append(key), workers=2) as prefetch:
        prefetch.take(0, range(1, 1000))
        time.sleep(0.2)
        assert sorted(loaded) == [0, 1, 2, 3, 4]
        prefetch.take(1, range(2, 1000))
        time.sleep(0.2)
        assert sorted(loaded) == [0, 1, 2, 3, 4, 5]
    assert len(loaded) <= 6


def test_loading_runs_beside_the_caller() -> None:
    asked = threading.Event()

    def load(key: int) -> int:
        if key == 1:
            assert asked.wait(10)  # set only after `take` has returned
        return key

    with Prefetch(load, workers=1) as prefetch:
        assert prefetch.take(0, [1]) == 0
        asked.set()
        assert prefetch.take(1) == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_is_raised_when_its_key_is_taken(workers: int) -> None:
    def load(key: int) -> int:
        if key == 2:
            raise DataError(f"{key}.png: cannot be read")
        return key

    with Prefetch(load, workers=workers) as prefetch:
        assert [prefetch.take(key, range(key + 1, 5)) for key in (0, 1)] == [0, 1]
        with pytest.raises(DataError, match=r"^2.png: cannot be read$"):
            prefetch.take(2, range(3, 5))
        assert prefetch.take(3, range(4, 5)) == 3


def test_where_no_thread_can_start_the_caller_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the browser."""
    monkeypatch.setattr(threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("can't start")))
    threads.can_start.cache_clear()
    try:
        assert list(loaded("abc", workers=2)) == ["a", "b", "c"]
    finally:
        threads.can_start.cache_clear()


def test_what_is_cleared_is_loaded_again() -> None:
    loaded = []
    with Prefetch(lambda key: loaded.append(key), workers=1) as prefetch:
        prefetch.take(0, [1, 2])
        prefetch.clear()
        count = len(loaded)
        prefetch.take(1)
        assert loaded[count:] == [1]
