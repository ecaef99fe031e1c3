"""Answers to the exercises of notebook 12 that a student might give, and that are wrong."""

import numpy as np


def turned(x, w):
    return good_taps(x, w[:, :, ::-1, ::-1])


def last_tap_only(x, w):
    kh, kw = w.shape[2:]
    return np.einsum("oi,ihw->ohw", w[:, :, -1, -1], x[:, kh - 1 :, kw - 1 :])


def good_taps(x, w):
    kh, kw = w.shape[2:]
    h, width = x.shape[1] - kh + 1, x.shape[2] - kw + 1
    shifted = (
        (w[:, :, down, across], x[:, down : down + h, across : across + width])
        for down in range(kh)
        for across in range(kw)
    )
    return sum(np.einsum("oi,ihw->ohw", tap, image) for tap, image in shifted)


def first_channel(x, w):
    return good_taps(x[:1], w[:, :1])


WRONG = {
    "taps": [turned, last_tap_only, first_channel, lambda x, w: good_taps(x, w)[:, :-1], 3],
    "column_bytes": [
        lambda c, h, w, k, p: c * k * k * (h + 2 * p - k + 1) * (w + 2 * p - k + 1),
        lambda c, h, w, k, p: 4 * c * k * k * h * w,
        lambda c, h, w, k, p: 4 * k * k * (h + 2 * p - k + 1) * (w + 2 * p - k + 1),
        1e9,
    ],
    "intensity": [
        lambda i, o, n, k: n * n * k * k * i * o / (4 * n * n * (i + o)),
        lambda i, o, n, k: n * n * k * k * i * o / (n * n * (i + o) + k * k * i * o),
        lambda i, o, n, k: 2 * n * n * k * k * i * o / (4 * (n * n * (i + o) + k * k * i * o)),
        lambda i, o, n, k: n * n * k * k * i * o / (4 * (n * n * i + k * k * i * o)),
        lambda i, o, n, k: n * n * k * k * o / (4 * (n * n * (i + o) + k * k * i * o)),
        lambda i, o, n, k: 9.0,
    ],
    "saving": [
        lambda m, r: m * r / (m + r - 1),
        lambda m, r: ((m + r - 1) / (m * r)) ** 2,
        lambda m, r: (m * r / (m + r)) ** 2,
        lambda m, r: (m + r - 1) ** 2,
        4.0,
    ],
}
