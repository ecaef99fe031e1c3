"""Shift-and-stitch as two ops: make every shift of an image, and interlace the outputs.

A net of stride f answers at every f-th pixel. `shift` makes the f^2 images x[sy:, sx:] and puts them in the batch;
after the net, `stitch` lays output (i, j) of shift (sy, sx) at (i*f + sy, j*f + sx). FCN, section 3.2.
"""

from minifcn.backend import Array, xp_of
from minifcn.errors import ShapeError, whole
from minifcn.ops.checks import images
from minifcn.tensor import ValueAndGradients, op


@op
def shift(x: Array, *, factor: int) -> ValueAndGradients:
    """(N, C, H, W) -> (N*f*f, C, H, W): image n's copy (sy, sx), at n*f*f + sy*f + sx, is x[n, :, sy:, sx:].

    The copies are cut, not moved: nothing is put in at the top and left. So that they have one size, zeros fill what is
    missing at the bottom and right; the outputs that see them are those that `stitch` cuts off.
    """
    images(x, op="shift")
    if not whole(factor, least=1):
        raise ShapeError(f"shift: factor is {factor!r}; expected a whole number of at least 1")
    n, c, h, w = x.shape
    y = xp_of(x).zeros((n, factor, factor, c, h, w), dtype=x.dtype)
    places = [(sy, sx) for sy in range(min(factor, h)) for sx in range(min(factor, w))]
    for sy, sx in places:
        y[:, sy, sx, :, : h - sy, : w - sx] = x[:, :, sy:, sx:]

    def grad_x(gy):
        gy = gy.reshape(n, factor, factor, c, h, w)
        gx = xp_of(gy).zeros((n, c, h, w), dtype=gy.dtype)
        for sy, sx in places:
            gx[:, :, sy:, sx:] += gy[:, sy, sx, :, : h - sy, : w - sx]
        return gx

    return y.reshape(n * factor * factor, c, h, w), (grad_x,)


@op
def stitch(x: Array, *, factor: int) -> ValueAndGradients:
    """(N*f*f, C, H, W) -> (N, C, H*f, W*f): y[n, c, i*f + sy, j*f + sx] = x[n*f*f + sy*f + sx, c, i, j]."""
    images(x, op="stitch")
    if not whole(factor, least=1) or x.shape[0] % (factor * factor):
        raise ShapeError(
            f"stitch: factor is {factor!r} and the batch {x.shape[0]}; expected a whole number of at least 1 whose "
            "square divides the batch"
        )
    m, c, h, w = x.shape
    n = m // (factor * factor)
    y = x.reshape(n, factor, factor, c, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, c, h * factor, w * factor)

    def grad_x(gy):
        return gy.reshape(n, c, h, factor, w, factor).transpose(0, 3, 5, 1, 2, 4).reshape(m, c, h, w)

    return y, (grad_x,)
