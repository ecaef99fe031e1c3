"""Record versions, threads and device, which decide the last bits of a result."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np

from minifcn import __version__
from minifcn.kernels.threads import threads


def environment(device: str) -> dict[str, Any]:
    """Return versions and thread counts by name. Threads split sums, and the order of a sum changes its last digits."""
    found: dict[str, Any] = {
        "minifcn": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.machine(),
        "device": device,
        "threads": threads(),
    }
    with contextlib.suppress(ImportError):
        from threadpoolctl import threadpool_info

        blas = [info for info in threadpool_info() if info["user_api"] == "blas"]
        found["blas"] = ", ".join(sorted({f"{info['internal_api']} {info['version']}" for info in blas}))
        found["blas threads"] = max((info["num_threads"] for info in blas), default=1)
    return found


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what is not as it was, one sentence each, with both values."""
    return [f"{key} was {was} and is {now[key]}" for key, was in before.items() if key in now and now[key] != was]
