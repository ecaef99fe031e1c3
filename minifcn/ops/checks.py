"""Check the inputs of ops, with errors that state the shapes found and wanted."""

from collections.abc import Sequence

from minifcn.backend import Array
from minifcn.errors import ShapeError
from minifcn.errors import whole as whole  # for the other files of ops
from minifcn.kernels.im2col import Pair, Windows

Size = int | Sequence[int]


def pair(value: Size, *, op: str, name: str, least: int) -> Pair:
    """`3` or `(3, 5)` as (vertical, horizontal), each a whole number of at least `least`."""
    if type(value) is int and value >= least:  # the most frequent case, in every op of every step
        return value, value
    both = (value, value) if not isinstance(value, (tuple, list)) else tuple(value)
    if len(both) != 2 or not all(whole(v, least=least) for v in both):
        raise ShapeError(f"{op}: {name} is {value!r}; expected a whole number of at least {least}, or a pair of them")
    return int(both[0]), int(both[1])


def windows(kernel_size: Size, *, op: str, stride: Size, padding: Size, dilation: Size = 1, groups: int = 1) -> Windows:
    """Return the sliding windows of the op called `op`, where each number stands for a pair of them."""
    return Windows(
        kernel=pair(kernel_size, op=op, name="kernel_size", least=1),
        stride=pair(stride, op=op, name="stride", least=1),
        padding=pair(padding, op=op, name="padding", least=0),
        dilation=pair(dilation, op=op, name="dilation", least=1),
        groups=groups,
        op=op,
    )


def kernel_of(w: Array, *, op: str) -> Pair:
    """Return the (kh, kw) of a weight (., ., kh, kw); refuse another rank."""
    if getattr(w, "ndim", 0) != 4:
        raise ShapeError(f"{op}: w has shape {getattr(w, 'shape', ())}; expected four axes, channels and kernel")
    return w.shape[2:]


def images(x: Array, *, op: str) -> None:
    """Refuse anything but a floating point (N, C, H, W)."""
    if getattr(x, "ndim", 0) != 4 or 0 in x.shape:
        raise ShapeError(f"{op}: expected a batch of images (N, C, H, W) and got shape {getattr(x, 'shape', ())}")
    if x.dtype.kind != "f":
        raise ShapeError(f"{op}: expected float32 or float64 images and got {x.dtype}; convert them with .astype first")
