"""What the tests of a checkpoint and of a run's folder share: two small contents, a full disk, and a refusal."""

import contextlib
import errno
import os
import resource
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from minifcn.errors import MinifcnError

SMALL = {"score_fr.w": np.arange(6, dtype=np.float32).reshape(2, 3), "score_fr.b": np.array([0.5, -1.0])}
META = {
    "step": 7,
    "rng": np.random.default_rng(0).bit_generator.state,
    "metrics": [{"mean_iu": 0.25, "iu": [0.5, None]}],
}
LARGE = {"w": np.ones(5000)}


def refused(kind: type[MinifcnError], call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """The message of the refusal, which has to be one line."""
    with pytest.raises(kind) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert message.isprintable(), repr(message)
    return message


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    def content(tensors: dict[str, np.ndarray]) -> dict[str, Any]:
        return {
            name: (x.dtype.newbyteorder("<"), x.shape, x.astype(x.dtype.newbyteorder("<")).tobytes())
            for name, x in tensors.items()
        }

    return content(a) == content(b)


@contextlib.contextmanager
def disk_almost_full(most: int = 4096) -> Iterator[None]:
    """No file may grow beyond `most` bytes: Python ignores the signal, and the write fails as it does on a full disk.

    Only around the call under test: the limit holds for the whole process, the log of the tests included.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fail(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
