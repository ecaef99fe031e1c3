"""What one may well answer in notebook 05, and is wrong."""

WRONG = {
    "fc_to_conv": [
        lambda w, channels, kernel: w,
        lambda w, channels, kernel: w.reshape(len(w), kernel, kernel, channels),
        lambda w, channels, kernel: w.reshape(len(w), channels, kernel, kernel),
        lambda w, channels, kernel: w.reshape(len(w), kernel, kernel, channels).transpose(0, 3, 2, 1),
        lambda w, channels, kernel: w.reshape(len(w), kernel, kernel, channels).transpose(0, 3, 1, 2)[:, :, ::-1, ::-1],
        lambda w, channels, kernel: w.reshape(len(w), channels, kernel, kernel).swapaxes(2, 3),
        lambda w: w,
    ],
    "cells": [
        lambda size: (size - 28) // 4 + 1,
        lambda size: (size - 28) // 4,
        lambda size: size // 4,
        lambda size: size // 28,
        lambda size: (size - 28) / 4 + 1,
        7,
    ],
    "window": [
        lambda i, j: (4 * j, 4 * i, 4 * j + 28, 4 * i + 28),
        lambda i, j: (4 * i, 4 * j, 4 * i + 27, 4 * j + 27),
        lambda i, j: (4 * i - 14, 4 * j - 14, 4 * i + 14, 4 * j + 14),
        lambda i, j: (28 * i, 28 * j, 28 * i + 28, 28 * j + 28),
        lambda i, j: (i, j, i + 28, j + 28),
        lambda i, j: (4 * i, 4 * j),
        (0, 0, 28, 28),
    ],
    "average": [13, 1, 227, 14, 16, "15"],
}
