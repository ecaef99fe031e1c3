"""The progress bar of long computations."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any


def silent(line: str) -> None:
    """Do nothing with a line: what `say` is where nobody wants to hear."""


class Bar:
    """`with Bar(100, unit="image") as bar: ... bar.advance()`. `shown` says whether anybody sees it.

    It is drawn on stderr by tqdm where stderr is a terminal and tqdm installed, and is gone at the end.
    """

    def __init__(self, total: int, *, unit: str, done: int = 0) -> None:
        self.total, self.unit, self.done = total, unit, done
        self._bar: Any = None

    def __enter__(self) -> Bar:
        if sys.stderr.isatty():
            with contextlib.suppress(ImportError):
                from tqdm import tqdm

                wide, high = os.get_terminal_size(sys.stderr.fileno())  # 0 where a terminal does not know
                self._bar = tqdm(
                    total=self.total,
                    initial=self.done,
                    unit=self.unit,
                    ncols=None if wide else 80,
                    nrows=None if high else 24,
                    dynamic_ncols=wide > 0,
                    leave=False,
                    smoothing=0.05,
                )
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    @property
    def shown(self) -> bool:
        return self._bar is not None

    def advance(self, count: int = 1, *, note: str = "") -> None:
        """`count` more are done; `note` stands behind the bar."""
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """Inside, lines may be printed: the bar makes room."""
        if self._bar is None:
            yield
            return
        with self._bar.external_write_mode(file=sys.stdout):
            yield


def clock(seconds: float) -> str:
    """75 -> "1:15", 4000 -> "1:06:40"."""
    minutes, left = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{left:02d}" if minutes >= 60 else f"{minutes}:{left:02d}"
