"""The 1,797 handwritten digits of scikit-learn, for LeNet.

They need the extra `notebooks` and no download. UCI's digits (Alpaydin and Kaynak, 1998) have 8x8 pixels; LeNet looks
at 28x28, so they are enlarged as a photograph would be.
"""

import numpy as np

from minifcn import ops
from minifcn.errors import UsageError

DIGITS = tuple("0123456789")
INK = 16  # the largest value of a pixel in the file


def load_digits(size: int = 28) -> tuple[np.ndarray, np.ndarray]:
    """Return images (1797, 1, size, size) float32, 0 paper and 1 ink, and labels (1797,) int64 from 0 to 9.

    Raises `UsageError` where scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError:
        raise UsageError(
            "the digits come with scikit-learn, which is not installed; pip install 'minifcn[notebooks]' adds it"
        ) from None
    found = datasets.load_digits()
    small = (found.images / INK).astype(np.float32)[:, None]
    return ops.bilinear_resize(small, size=size).data, found.target.astype(np.int64)
