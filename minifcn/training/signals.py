"""Handle Ctrl-C and SIGTERM: stop after the current step, or at once on the second signal."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

from minifcn.errors import MinifcnError


class Interrupted(MinifcnError):
    """Somebody asked the run to stop; everything is saved."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Signals:
    """Inside, the first Ctrl-C or SIGTERM is only remembered (`code` is then 130 or 143); the second ends at once."""

    code = 0

    def __enter__(self) -> Signals:
        self._before: dict[int, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # not the main thread: then there is nobody to interrupt
                self._before[number] = signal.signal(number, self._remember)
        return self

    def _remember(self, number: int, frame: Any) -> None:
        if self.code:
            os._exit(128 + number)
        self.code = 128 + number
        with contextlib.suppress(OSError):  # not print(): the signal may have come in the middle of one
            os.write(2, b"\nfinishing the step, then saving; a second signal ends at once\n")

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
