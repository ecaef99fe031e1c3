"""Mistakes one makes in notebook 02."""

import numpy as np


def overwriting(gy, w, size, stride):
    gx = np.zeros(size)
    for i, j in np.ndindex(gy.shape):
        gx[i * stride : i * stride + w.shape[0], j * stride : j * stride + w.shape[1]] = w * gy[i, j]
    return gx


def turned(gy, w, size, stride):
    gx = np.zeros(size)
    for i, j in np.ndindex(gy.shape):
        gx[i * stride : i * stride + w.shape[0], j * stride : j * stride + w.shape[1]] += w[::-1, ::-1] * gy[i, j]
    return gx


def without_stride(gy, w, size, stride):
    gx = np.zeros(size)
    for i, j in np.ndindex(gy.shape):
        gx[i : i + w.shape[0], j : j + w.shape[1]] += w * gy[i, j]
    return gx


WRONG = {
    "outputs": [
        lambda size, kernel, stride, padding, dilation: (size + 2 * padding - kernel) // stride + 1,  # no dilation
        lambda size, kernel, stride, padding, dilation: (size + padding - (kernel - 1) * dilation - 1) // stride + 1,
        lambda size, kernel, stride, padding, dilation: (size + 2 * padding - (kernel - 1) * dilation - 1) // stride,
        lambda size, kernel, stride, padding, dilation: -(-(size + 2 * padding - kernel * dilation) // stride) + 1,
        lambda size, kernel, stride, padding, dilation: (size + 2 * padding - kernel * dilation) // stride + 1,
    ],
    "grad_x": [
        overwriting,
        turned,
        without_stride,
        lambda gy, w, size, stride: np.zeros(gy.shape),
        lambda gy, w, size, stride: np.full(size, gy.sum() * w.sum()),
    ],
    "adjoint": ["A", "B", "D"],
}
