"""Solutions of notebook 01."""

import numpy as np


def sigmoid(x):
    y = 1 / (1 + np.exp(-x))

    def grad_x(gy):
        return gy * y * (1 - y)

    return y, (grad_x,)


def calls(depth):
    # Level by level 2, 4, 8 ... deliveries: a geometric series. Counted: two edges for each of the nodes.
    return 2 ** (depth + 1) - 2, 2 * depth


remembered = {"b", "relu"}
