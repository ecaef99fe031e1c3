"""Mistakes one makes in notebook 01."""

import numpy as np


def logistic(x):
    return 1 / (1 + np.exp(-x))


WRONG = {
    "sigmoid": [
        logistic,  # the value alone
        lambda x: (np.tanh(x), (lambda gy: gy * (1 - np.tanh(x) ** 2),)),
        lambda x: (logistic(x), (lambda gy: logistic(x) * (1 - logistic(x)),)),  # gy forgotten
        lambda x: (logistic(x), (lambda gy: gy * x * (1 - x),)),  # the input for the value
        lambda x: (logistic(x), (lambda gy: -gy * logistic(x) * (1 - logistic(x)),)),
        lambda x: (logistic(x), (logistic(x) * (1 - logistic(x)),)),  # an array for a function
        lambda x: (logistic(x), (lambda gy: (gy * logistic(x) * (1 - logistic(x))).sum(),)),
    ],
    "calls": [
        lambda depth: (2**depth, 2 * depth),  # the paths alone
        lambda depth: (2 ** (depth + 1) - 1, 2 * depth),
        lambda depth: (2 ** (depth + 1) - 2, depth),  # nodes for edges
        lambda depth: 2 ** (depth + 1) - 2,
    ],
    "remembered": [
        {"a", "b", "relu"},
        {"relu"},
        {"b"},
        {"b", "a * b + c"},
        {"b", "relu", "c"},
        {"b", "relu", "L"},
        set(),
    ],
}
