"""Split a strided convolution into phases, so that its windows lie next to each other.

    stride 2:    a b a b a b a        phase a:  a a a a        the window's first and third tap: phase a, one further
                 c d c d c d c        phase b:  b b b          along for the third; its second tap: phase b
                 a b a b a b a        phase c:  c c c c
                 ...                  phase d:  d d d

So with all planes of a phase behind one another in one line, a tap of every window is that line from some place on:
one stretch of memory, where the image itself would be read in steps of two, row by row. A window that begins at the end
of a row, or of a plane, hangs over into the next. Nobody asked for it: its gradient is a zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from minifcn.backend import Array, xp_of
from minifcn.kernels.im2col import Pair, Windows

Phase = Pair
"""Which phase: rows modulo the vertical stride, columns modulo the horizontal one."""


class Phases:
    """The phases of planes of `size` under `out` windows of g, which may reach beyond the planes on any side."""

    def __init__(self, g: Windows, size: Pair, out: Pair) -> None:
        self.g, self.size, self.out = g, size, out
        axes = zip(size, out, g.stride, g.padding, g.span, strict=True)
        self.cells = tuple(max(o + (e - 1) // s, -(-(n + p) // s)) for n, o, s, p, e in axes)
        """Rows and columns of a phase."""

    def split(self, x: Array, fill: float) -> Array:
        """x (N, C, H, W) -> (sh, sw, N*C*rows*columns), `fill` where there is no pixel."""
        cells = xp_of(x).full((*self.g.stride, *x.shape[:2], *self.cells), fill, dtype=x.dtype)
        for here, there in self._places():
            cells[here] = x[there]
        return cells.reshape(*self.g.stride, -1)

    def join(self, cells: Array, x: Array) -> None:
        """What `split` did, undone: into x."""
        cells = cells.reshape(*self.g.stride, *x.shape[:2], *self.cells)
        for here, there in self._places():
            x[there] = cells[here]

    def line(self, y: Array) -> Array:
        """One number for each window (N, C, H', W') -> all of them along the line, zeros for those nobody asked for."""
        line = xp_of(y).zeros((*y.shape[:2], *self.cells), dtype=y.dtype)
        line[:, :, : self.out[0], : self.out[1]] = y
        height, width = self.g.span
        return line.reshape(-1)[: line.size - self._along(height - 1, width - 1)]

    def taps(self, windows: int) -> Iterator[tuple[Phase, slice]]:
        """For each kernel position, row by row: the phase that it sees, and where in it so many windows' pixels lie."""
        for _, (rows, cols) in self.g.taps(self.out):
            first = self._along(rows.start, cols.start)
            yield (rows.start % self.g.stride[0], cols.start % self.g.stride[1]), slice(first, first + windows)

    def _along(self, down: int, across: int) -> int:
        """How far along the line a pixel lies that is so far from another in the image."""
        return down // self.g.stride[0] * self.cells[1] + across // self.g.stride[1]

    def _places(self) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
        """For each phase, where its pixels lie in the phases, and where in the image."""
        for row in range(self.g.stride[0]):
            for col in range(self.g.stride[1]):
                (up, down), (left, right) = (self._places_along(axis, phase) for axis, phase in enumerate((row, col)))
                yield (row, col, ..., up, left), (..., down, right)

    def _places_along(self, axis: int, phase: int) -> tuple[slice, slice]:
        n, p, s = self.size[axis], self.g.padding[axis], self.g.stride[axis]
        first = (phase - p) % s
        start = (first + p) // s
        return slice(start, start + len(range(first, n, s))), slice(first, n, s)
