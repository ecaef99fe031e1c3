"""Plausible wrong answers to the exercises of notebook 09."""

import numpy as np

WRONG = {
    "patch": [
        lambda grid, i: (grid.stride * i, grid.stride * i + grid.stride),  # the block, not the field
        lambda grid, i: (grid.start + grid.stride * i, grid.start + grid.stride * i + grid.field),  # not centred
        lambda grid, i: (grid.stride * i - (grid.field - 1) / 2, grid.stride * i + (grid.field + 1) / 2),  # no start
        lambda grid, i: grid.start + grid.stride * i,
    ],
    "unbiased": [
        lambda g, keep, p: (g * keep).sum(),
        lambda g, keep, p: (g * keep).sum() * p,
        lambda g, keep, p: (g * keep).sum() / max(keep.sum(), 1),  # the mean of the kept ones
        lambda g, keep, p: g.sum(),  # looks at all
    ],
    "images": [2, 10, 8, 20, 12],
    "weights": [
        lambda counts: 1 / np.maximum(counts, 1),
        lambda counts: counts / counts.sum(),
        lambda counts: np.where(counts > 0, counts.sum() / np.maximum(counts, 1), 0),  # the average cell weighs C
        lambda counts: np.ones(len(counts)),
        lambda counts: (counts / counts.sum())[:-1],
    ],
}
