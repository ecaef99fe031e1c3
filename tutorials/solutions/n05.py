"""Solutions of notebook 05."""

from __future__ import annotations

import numpy as np


def fc_to_conv(w: np.ndarray, channels: int, kernel: int) -> np.ndarray:
    return w.reshape(len(w), kernel, kernel, channels).transpose(0, 3, 1, 2)


def cells(size: int) -> int:
    return -(-(size - 28) // 4) + 1  # rounded up: the pools count a window that hangs over


def window(i: int, j: int) -> tuple[int, int, int, int]:
    return 4 * i, 4 * j, 4 * i + 28, 4 * j + 28


average = 15
