"""Solutions of notebook 03."""

import numpy as np


def slopes(function, x, eps):
    found = np.empty_like(x)
    for at in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[at] += eps
        down[at] -= eps
        found[at] = (function(up) - function(down)) / (2 * eps)
    return found


fault = "C w"  # under ones its error is 0, under random numbers it is not; its gradient of x is right under both

blind = np.diag([1.0, 2.0, 3.0, 4.0])  # any symmetric matrix


def inputs(shape, gap):
    count = int(np.prod(shape))
    steps = np.arange(count) - count // 2  # ..., -2, -1, 0, 1, ...: all different
    steps = np.where(steps >= 0, steps + 1, steps)  # and none of them 0
    return np.random.default_rng(0).permutation(gap * steps).reshape(shape)
