"""Solutions of notebook 02."""

import numpy as np


def outputs(size, kernel, stride, padding, dilation):
    span = (kernel - 1) * dilation + 1  # from the first pixel under the kernel to the last
    return (size + 2 * padding - span) // stride + 1


def grad_x(gy, w, size, stride):
    gx = np.zeros(size)
    for i, j in np.ndindex(gy.shape):
        for u, v in np.ndindex(w.shape):
            gx[i * stride + u, j * stride + v] += w[u, v] * gy[i, j]  # the forward line, turned round
    return gx


adjoint = "C"
