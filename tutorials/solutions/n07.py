"""Solutions of notebook 07."""

import numpy as np

from minifcn.geometry import Grid


def paint(x, w, stride):
    y = np.zeros((len(x) - 1) * stride + len(w))
    for i, value in enumerate(x):
        y[i * stride : i * stride + len(w)] += value * w  # added: kernels overlap
    return y


def bilinear(k):
    f, c = (k + 1) // 2, (k - 1) / 2
    line = 1 - abs(np.arange(k) - c) / f
    return np.outer(line, line)


ring = 63 - 32 - 18  # the ring is k - s wide, the crop takes 18 of it


def kernel(layers, stride):
    # an odd kernel keeps the cells' fraction of a pixel, an even one moves them by half a pixel
    return 2 * stride - 1 if Grid.of(layers).start.denominator == 1 else 2 * stride
