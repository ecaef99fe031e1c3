"""What one may well answer in notebook 06, and is wrong."""

import math

import numpy as np

WRONG = {
    "interlace": [
        lambda parts, f: parts,
        lambda parts, f: np.block([[parts[i * f + j] for j in range(f)] for i in range(f)]),
        lambda parts, f: (
            parts.reshape(f, f, *parts.shape[1:]).transpose(2, 1, 3, 0).reshape(f * parts.shape[1], f * parts.shape[2])
        ),
        lambda parts, f: parts.reshape(f * parts.shape[1], f * parts.shape[2]),
        lambda parts, f: parts[0].repeat(f, axis=0).repeat(f, axis=1),
    ],
    "rarefied_filter": [
        lambda f, s: f,
        lambda f, s: np.kron(f, np.eye(1, s * s).reshape(s, s)).astype(int),
        lambda f, s: f.repeat(s, axis=0).repeat(s, axis=1)[: s * (len(f) - 1) + 1, : s * (len(f) - 1) + 1],
        lambda f, s: np.pad(f, (s - 1) * (len(f) - 1) // 2),
        lambda f, s: np.zeros((s * (len(f) - 1) + 1,) * 2, int),
    ],
    "fc6_extent": [
        lambda strides: 7 * math.prod(strides),
        lambda strides: 6 * sum(strides) + 1,
        lambda strides: 7,
        lambda strides: 7 + math.prod(strides) - 1,
        13,
    ],
    "cost": [
        lambda layers: math.prod(s for _, s in layers) ** 2,
        lambda layers: math.prod(s for _, s in layers),
        lambda layers: 1.0,
        lambda layers: sum(m for m, _ in layers) / max(m for m, _ in layers),
        4,
    ],
}
