"""Stop a run in order: on Ctrl-C, SIGTERM, or when its terminal or the reader of its output goes away."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

from minifcn.errors import MinifcnError


class Interrupted(MinifcnError):
    """A run was asked to stop; everything is saved."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Signals:
    """Inside, the first signal to stop is only remembered, and the second ends the process at once.

    The signals are Ctrl-C, SIGTERM and SIGHUP, which a terminal sends when it is closed. One that is ignored stays so:
    `nohup` ignores SIGHUP, and a shell ignores Ctrl-C for a process in the background. `code` is the exit code, 0
    before: 130, 143 or 129; or as `lost` sets it. `why` says the reason where it is not a signal.
    """

    def __init__(self) -> None:
        self.code, self.why = 0, ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        names = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows lacks the last
        for number in [getattr(signal, name) for name in names if hasattr(signal, name)]:
            with contextlib.suppress(ValueError):  # not the main thread, which alone receives signals
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._remember)
        return self

    def lost(self, fault: OSError) -> None:
        """Take note that the output cannot be written: `train | head` ends with 141, as of SIGPIPE; a full disk, 2."""
        if not self.code:
            self.code, self.why = 141 if isinstance(fault, BrokenPipeError) else 2, f" (output: {fault.strerror})"

    def _remember(self, number: int, frame: Any) -> None:
        if self.code:
            os._exit(128 + number)
        self.code = 128 + number
        with contextlib.suppress(OSError):  # not print(): the signal may have come in the middle of one
            os.write(2, b"\nfinishing the step, then saving; a second signal ends at once\n")

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
