"""A layer of faults under a folder: every call that can change what is on the disk is counted, and one of them fails.

    layer = Layer(folder, at=7, fault="ENOSPC")     the seventh call in `folder` finds the disk full
    with layer:
        ...
    layer.calls                                     ["open lock", "write lock", "open probe.tmp", ...]

The calls are open, write, fsync, rename, unlink, mkdir and truncate. A write that fails has written the first half.
With the fault "kill" the process ends as by SIGKILL; the others are names of errno. The names in `calls` are without
the tokens of temporary files, so that two runs can be compared.
"""

import builtins
import errno
import io
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

FAULTS = ("kill", "ENOSPC", "EIO", "EACCES")
GROWING = ("open", "write", "mkdir", "fsync")  # what needs room on the disk


class _File(io.FileIO):
    """A file whose writes go through the layer, below all buffers."""

    layer: "Layer"
    path: str

    def write(self, data: Any) -> int:
        half = memoryview(data).cast("B")[: len(memoryview(data).cast("B")) // 2]
        self.layer.reach("write", self.path, first=lambda: super(_File, self).write(half))
        return super().write(data)

    def truncate(self, size: int | None = None) -> int:
        self.layer.reach("truncate", self.path)
        return super().truncate(size)


class Layer:
    """Inside, the calls in `folder` are counted, and number `at` (from 1) fails with `fault`.

    onward: every later call that needs room on the disk fails as well, as on a disk that stays full.
    """

    def __init__(self, folder: Path, *, at: int = 0, fault: str = "", onward: bool = False) -> None:
        self.folder, self.at, self.fault, self.onward = os.path.abspath(folder), at, fault, onward
        self.calls: list[str] = []
        self._real: list[tuple[Any, str, Any]] = []

    def reach(self, call: str, path: str, *, first: Callable[[], object] = lambda: None) -> None:
        """Count a call, and make it fail if it is the one; `first` is what a half-done call has done."""
        path = os.path.abspath(path)
        if path != self.folder and not path.startswith(self.folder + os.sep):
            return
        name = re.sub(r"\.[0-9a-f]{16}(?=\.tmp|\.)", "", os.path.relpath(path, self.folder))
        self.calls.append(f"{call} {name}")
        number = len(self.calls)
        if not self.fault or not (number == self.at or (self.onward and number > self.at > 0 and call in GROWING)):
            return
        first()
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        code = getattr(errno, self.fault)
        raise OSError(code, os.strerror(code), *([path] if call in ("open", "mkdir", "unlink") else []))

    def _open(self, file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **named: Any) -> Any:
        real = self._real[0][2]
        if isinstance(file, int) or not self._inside(file):
            return real(file, mode, buffering, *rest, **named)
        self.reach("open", os.fspath(file))
        if not set(mode) & set("wax+"):
            return real(file, mode, buffering, *rest, **named)
        raw = _File(file, mode.replace("b", "").replace("t", ""))
        raw.layer, raw.path = self, os.fspath(file)
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *rest, **named)

    def _inside(self, file: Any) -> bool:
        return os.path.abspath(os.fsdecode(file)).startswith(self.folder)

    def _wrapped(self, call: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def function(path: Any, *rest: Any, **named: Any) -> Any:
            name = os.readlink(f"/proc/self/fd/{path}") if isinstance(path, int) else os.fsdecode(path)
            self.reach(call, os.fsdecode(rest[0]) if call == "rename" else name)
            return real(path, *rest, **named)

        return function

    def __enter__(self) -> "Layer":
        self._replace(builtins, "open", self._open)
        self._replace(io, "open", self._open)
        for name, call in (
            *(("open", "open"), ("fsync", "fsync"), ("replace", "rename"), ("rename", "rename")),
            *(("unlink", "unlink"), ("remove", "unlink"), ("mkdir", "mkdir"), ("rmdir", "unlink")),
        ):
            self._replace(os, name, self._wrapped(call, getattr(os, name)))
        return self

    def _replace(self, module: Any, name: str, function: Any) -> None:
        self._real.append((module, name, getattr(module, name)))
        setattr(module, name, function)

    def __exit__(self, *_: object) -> None:
        for module, name, real in reversed(self._real):
            setattr(module, name, real)
        self._real.clear()
