"""Freed memory is kept: asked of the system, which counts the pages that it hands out."""

import ctypes
import subprocess
import sys
from typing import Any

import pytest

from minifcn.cli import command
from minifcn.kernels.memory import keep_freed_memory

COUNT = """
import resource, sys
import numpy as np
from minifcn.kernels.memory import keep_freed_memory

def step():
    arrays = [np.ones(2 << 20, np.float32) for _ in range(8)]

if "keep" in sys.argv:
    assert keep_freed_memory()
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(*words: str) -> int:
    done = subprocess.run([sys.executable, "-c", COUNT, *words], capture_output=True, text=True, check=True)
    return int(done.stdout)


def is_glibc() -> bool:
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")


@pytest.mark.skipif(not is_glibc(), reason="only glibc's malloc has a switch to keep memory")
def test_a_step_gets_the_pages_of_the_step_before() -> None:
    assert pages() > 100
    assert pages("keep") < 20


@pytest.mark.parametrize("fault", [OSError, AttributeError, TypeError])
def test_another_c_library_is_left_alone(fault: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: Any) -> Any:
        raise fault

    monkeypatch.setattr(ctypes, "CDLL", without)
    assert not keep_freed_memory()


def test_every_command_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(command, "keep_freed_memory", lambda: asked.append("keep"))
    assert command.guard(lambda argv: len(asked), []) == 1
