"""Inference mode: the kernels keep what they derive from weights that do not change.

Winograd's convolution evaluates every filter at 36 points before it can start. In training the filters change with
each step; a net that only predicts does it once. What is kept is right only as long as the weights are, so the promise
is enforced: inside, the parameter arrays are read-only, and a write to one raises `ValueError`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from minifcn.backend import is_host
from minifcn.kernels.convolution import caching_filters
from minifcn.nn import Module, evaluating


@contextlib.contextmanager
def inference(net: Module) -> Iterator[Module]:
    """Inside: no dropout, nothing remembered, parameters that cannot be written, and each filter transformed once.

    Afterwards, also after an exception, everything is as it was, and the transformed filters (four times the weights
    of the 3x3 layers) are dropped. A view of a parameter that was taken before the block still writes: take none.
    On a GPU nothing is kept, and arrays there cannot be made read-only.
    """
    arrays = [parameter.data for parameter in net.parameters() if is_host(parameter.data)]
    arrays.sort(key=lambda array: not array.flags.owndata)  # a view can be made writable again only after its owner
    were_writable = [array.flags.writeable for array in arrays]
    with evaluating(net), caching_filters(arrays):
        try:
            for array in arrays:
                array.flags.writeable = False
            yield net
        finally:
            for array, writable in zip(arrays, were_writable, strict=True):
                array.flags.writeable = writable
