"""Plausible wrong answers to the exercises of notebook 07."""

import numpy as np


def covers(x, w, stride):
    y = np.zeros((len(x) - 1) * stride + len(w))
    for i, value in enumerate(x):
        y[i * stride : i * stride + len(w)] = value * w
    return y


def backwards(x, w, stride):
    y = np.zeros((len(x) - 1) * stride + len(w))
    for i, value in enumerate(x):
        y[i * stride : i * stride + len(w)] += value * w[::-1]
    return y


def too_long(x, w, stride):
    y = np.zeros(len(x) * stride + len(w))
    for i, value in enumerate(x):
        y[i * stride : i * stride + len(w)] += value * w
    return y


def triangle(k, centre, factor, total=1.0):
    line = 1 - abs(np.arange(k) - centre) / factor
    return np.outer(line, line) * total


WRONG = {
    "paint": [covers, backwards, too_long],
    "bilinear": [
        lambda k: triangle(k, k // 2, (k + 1) // 2),  # the centre of an even kernel lies between two taps
        lambda k: triangle(k, (k - 1) / 2, k / 2),  # f = k/2: wrong for odd kernels
        lambda k: triangle(k, (k - 1) / 2, (k + 1) // 2, 1 / ((k + 1) // 2) ** 2),  # sums to 1
        lambda k: 1 - abs(np.arange(k) - (k - 1) / 2) / ((k + 1) // 2),  # a line, no square
    ],
    "ring": [31, 18, 14, 45, 13.5, 32],
    "kernel": [
        lambda layers, stride: 2 * stride,
        lambda layers, stride: 2 * stride - 1,
        lambda layers, stride: stride,
        lambda layers, stride: 2 * stride if layers[-1].kernel % 2 == 0 else 2 * stride - 1,  # the last layer's parity
    ],
}
