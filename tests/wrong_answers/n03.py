"""Plausible wrong answers to the exercises of notebook 03."""

import numpy as np


def stepped(x, at, eps):
    moved = x.copy()
    moved[at] += eps
    return moved


def forward(function, x, eps):
    each = [(function(stepped(x, at, eps)) - function(x)) / eps for at in np.ndindex(x.shape)]
    return np.reshape(each, x.shape)


def twice(function, x, eps):
    each = [(function(stepped(x, at, eps)) - function(stepped(x, at, -eps))) / eps for at in np.ndindex(x.shape)]
    return np.reshape(each, x.shape)


def all_at_once(function, x, eps):
    return np.full(x.shape, (function(x + eps) - function(x - eps)) / (2 * eps))


def not_put_back(function, x, eps):
    slopes = np.empty_like(x)
    for at in np.ndindex(x.shape):
        x[at] += eps
        up = function(x)
        x[at] -= 2 * eps
        slopes[at] = (up - function(x)) / (2 * eps)
    return slopes


def one_number(function, x, eps):
    return (function(x + eps) - function(x - eps)) / (2 * eps)


WRONG = {
    "slopes": [forward, twice, all_at_once, not_put_back, one_number],
    "fault": ["A x", "D w", "B w", "C x", "C", "C b"],
    "blind": [np.ones((4, 4)), np.arange(16.0).reshape(4, 4), np.eye(3), np.triu(np.ones((4, 4)))],
    "inputs": [
        lambda shape, gap: np.random.default_rng(0).standard_normal(shape),  # some are close
        lambda shape, gap: gap * np.arange(np.prod(shape)).reshape(shape),  # one is 0, all on one side, in order
        lambda shape, gap: gap * (np.arange(np.prod(shape)) - np.prod(shape) // 2 + 0.5).reshape(shape),  # half a gap
        lambda shape, gap: (gap * np.random.default_rng(0).permutation(np.prod(shape))).reshape(shape).astype("f4"),
        lambda shape, gap: gap * (1.0 + np.random.default_rng(0).permutation(np.prod(shape)).reshape(shape)),
    ],
}
