"""A convolution as a matrix product: cut the image into windows, one column each, and multiply.

    image (N, C, H, W)  --im2col-->  columns (C, kh, kw, N, H', W')  =  a matrix of C*kh*kw rows and N*H'*W' columns

`im2col` copies: the pixel under each kernel tap goes into that tap's row. `col2im` is its adjoint: every copy returns
to the pixel it came from and is *added* there, because a pixel lies in many windows. Both walk the same list of taps
(`Windows.taps`), so they cannot disagree; each tap is one strided slice of the image, so no index is ever scattered
twice within one `+=` and the result is the same, bit for bit, on every run, on NumPy and on CuPy.

The columns are kh*kw times as large as the image. They are therefore never kept, and never built all at once: see
`convolution.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from minifcn.backend import Array, xp_of
from minifcn.errors import ShapeError, whole

Pair = tuple[int, int]


@dataclass(frozen=True)
class Windows:
    """Where the windows of a convolution or a pooling lie: everything about a layer except its weights.

    Each pair is (vertical, horizontal). Output pixel (y, x) looks at the rows y*stride + i*dilation - padding for
    i = 0 .. kernel-1, and at the columns likewise. `groups` splits the channels into that many independent layers.
    `op` is the operation that errors name.
    """

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    op: str = field(default="convolution", compare=False)

    def __post_init__(self) -> None:
        for name, least in (("kernel", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
            pair = getattr(self, name)
            two = isinstance(pair, tuple) and len(pair) == 2
            if not (two and whole(pair[0], least=least) and whole(pair[1], least=least)):
                raise ShapeError(f"{self.op}: {name} is {pair!r}: expected a pair of integers of at least {least}")
        if not whole(self.groups, least=1):
            raise ShapeError(f"{self.op}: groups is {self.groups!r}: expected an integer of at least 1")

    @property
    def span(self) -> Pair:
        """Rows and columns from the first pixel under the dilated kernel to the last, both included."""
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        return (kh - 1) * dh + 1, (kw - 1) * dw + 1

    def out_size(self, size: Pair) -> Pair:
        """Return the (H', W') windows that fit into an image of (H, W): floor((H + 2*padding - span) / stride) + 1.

        Raises ShapeError if the dilated kernel is larger than the padded image.
        """
        (h, w), (ph, pw), (sh, sw), (eh, ew) = size, self.padding, self.stride, self.span
        h, w = h + 2 * ph, w + 2 * pw
        if eh > h or ew > w:
            raise ShapeError(
                f"a kernel of {self.kernel[0]}x{self.kernel[1]} with dilation {self.dilation} covers {eh}x{ew} pixels "
                f"but the image padded by {self.padding} has only {h}x{w}: pad more, or use a larger image"
            )
        return (h - eh) // sh + 1, (w - ew) // sw + 1

    def taps(self, out_size: Pair) -> Iterator[tuple[Pair, tuple[slice, slice]]]:
        """Yield each kernel position (i, j), with the rows and columns of *padded* image it sees, one per window."""
        (sh, sw), (dh, dw), (out_h, out_w) = self.stride, self.dilation, out_size
        for i in range(self.kernel[0]):
            rows = slice(i * dh, i * dh + (out_h - 1) * sh + 1, sh)
            for j in range(self.kernel[1]):
                yield (i, j), (rows, slice(j * dw, j * dw + (out_w - 1) * sw + 1, sw))


@dataclass(frozen=True)
class Seen:
    """A row or column of the kernel: from which windows it sees a pixel of the image, and which pixels those are."""

    tap: int
    windows: slice
    pixels: slice


def seen(taps: int, dilation: int, first: int, windows: int, pixels: int, stride: int = 1) -> list[Seen]:
    """Return the taps of one axis that see any pixel; tap 0 of window 0 lies at `first`, below 0 in the padding."""
    found = []
    for tap in range(taps):
        at = first + tap * dilation
        low, high = max(0, -(at // stride)), min(windows, (pixels - 1 - at) // stride + 1)
        if high > low:
            found.append(Seen(tap, slice(low, high), slice(at + low * stride, at + (high - 1) * stride + 1, stride)))
    return found


def im2col(x: Array, g: Windows) -> Array:
    """The pixels under every kernel tap: x (N, C, H, W) -> columns (C, kh, kw, N, H', W'), zeros where padded."""
    n, c, h, w = x.shape
    (ph, pw), out = g.padding, g.out_size((h, w))
    padded = x.transpose(1, 0, 2, 3)
    if ph or pw:
        padded = xp_of(x).pad(padded, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    columns = xp_of(x).empty((c, *g.kernel, n, *out), dtype=x.dtype)
    for (i, j), (rows, cols) in g.taps(out):
        columns[:, i, j] = padded[:, :, rows, cols]
    return columns


def col2im(columns: Array, g: Windows, size: Pair) -> Array:
    """Return the adjoint of `im2col`: columns (C, kh, kw, N, H', W') -> x (N, C, H, W), each value added to its pixel.

    `size` is (H, W): with a stride above 1 several sizes have the same windows, so H', W' do not determine it.
    """
    c, _, _, n, *out = columns.shape
    (ph, pw), (h, w) = g.padding, size
    padded = xp_of(columns).zeros((c, n, h + 2 * ph, w + 2 * pw), dtype=columns.dtype)
    for (i, j), (rows, cols) in g.taps((out[0], out[1])):
        padded[:, :, rows, cols] += columns[:, i, j]
    return padded[:, :, ph : ph + h, pw : pw + w].transpose(1, 0, 2, 3)
