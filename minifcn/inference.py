"""Inference mode: the kernels keep what they derive from weights that do not change.

Winograd's convolution evaluates every filter at 36 points before it can start. In training the filters change with
each step; a net that only predicts does it once. What is kept is right only as long as the weights are, so the promise
is enforced: inside, the parameter arrays are read-only, and a write to one raises `ValueError`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator

from minifcn.backend import Array, is_host
from minifcn.kernels.convolution import caching_filters
from minifcn.nn import Module, evaluating


@contextlib.contextmanager
def inference(net: Module) -> Iterator[Module]:
    """Inside: no dropout, nothing remembered, parameters that cannot be written, and each filter transformed once.

    Afterwards, also after an exception, everything is as it was, and the transformed filters (four times the weights
    of the 3x3 layers) are dropped, with the small weights that were kept in another order. A view of a parameter that
    was taken before the block still writes: take none.
    On a GPU nothing is kept, and arrays there cannot be made read-only.
    """
    arrays = [parameter.data for parameter in net.parameters() if is_host(parameter.data)]
    with evaluating(net), caching_filters(arrays):
        close(arrays)
        try:
            yield net
        finally:
            reopen(arrays)


@dataclasses.dataclass
class Closed:
    """An array that cannot be written for now, by how many blocks, and whether it could be before."""

    array: Array
    writable: bool
    blocks: int = 0


_closed: dict[int, Closed] = {}
_turn = threading.Lock()


def close(arrays: list[Array]) -> None:
    """Make the arrays read-only, for one block more."""
    with _turn:
        for array in arrays:
            _closed.setdefault(id(array), Closed(array, array.flags.writeable)).blocks += 1
            array.flags.writeable = False


def reopen(arrays: list[Array]) -> None:
    """End one block: an array that no other block (of any thread) needs is as it was."""
    with _turn:
        for array in sorted(arrays, key=lambda array: not array.flags.owndata):  # a view only after its owner
            _closed[id(array)].blocks -= 1
            if not _closed[id(array)].blocks:
                array.flags.writeable = _closed.pop(id(array)).writable
