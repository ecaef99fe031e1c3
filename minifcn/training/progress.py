"""The progress bar of long computations."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any


def silent(line: str) -> None:
    """Do nothing: the default for `say`, which prints a line."""


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return hasattr(ipython.get_ipython() if ipython else None, "kernel")


class CellOutput:
    """A file of one line below a notebook's cell: what is written replaces it."""

    encoding = "utf-8"  # tqdm asks, and draws whole blocks

    def __init__(self) -> None:
        self._shown: Any = None

    def write(self, text: str) -> None:
        """Show `text` in place of the line before; the line break at the end of the bar leaves it as it is."""
        from IPython.display import display

        if (line := {"text/plain": text.strip()})["text/plain"]:
            if self._shown is None:
                self._shown = display(line, raw=True, display_id=True)
            else:
                self._shown.update(line, raw=True)

    def flush(self) -> None:
        """Do nothing: each line is shown when it is written."""


class Bar:
    """`with Bar(100, unit="image") as bar: ... bar.advance()`. `shown` is true while a bar is drawn.

    tqdm draws it: on stderr where that is a terminal, and it is gone at the end; below the cell in a notebook, where it
    stays. Without tqdm, or where stderr is a file, nothing is drawn.
    """

    def __init__(self, total: int, *, unit: str, done: int = 0) -> None:
        self.total, self.unit, self.done = total, unit, done
        self._bar: Any = None

    def __enter__(self) -> Bar:
        terminal = sys.stderr is not None and sys.stderr.isatty()  # None: closed
        if terminal or in_notebook():
            with contextlib.suppress(ImportError):
                from tqdm import tqdm

                # 0 where a terminal does not know
                wide, high = os.get_terminal_size(sys.stderr.fileno()) if terminal else (0, 0)
                self._bar = tqdm(
                    total=self.total,
                    initial=self.done,
                    unit=self.unit,
                    file=None if terminal else CellOutput(),
                    ncols=None if wide else 80,
                    nrows=None if high else 24,
                    dynamic_ncols=wide > 0,
                    leave=not terminal,
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

    def begin(self, total: int) -> None:
        """Start again, now that the total is known."""
        self.total = total
        if self._bar is not None:
            self._bar.reset(total)

    def advance(self, count: int = 1, *, note: str = "") -> None:
        """Move the bar on by `count`; `note` stands behind it."""
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
    """Return seconds as a clock shows them: 75 -> "1:15", 4000 -> "1:06:40"."""
    minutes, left = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{left:02d}" if minutes >= 60 else f"{minutes}:{left:02d}"
