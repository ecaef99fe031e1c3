"""A table as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def text_table(rows: Sequence[Sequence[str]], *, left: int) -> Iterator[str]:
    """Yield a line for each row, in columns as wide as they must be: the first `left` to the left, the rest right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [f"{cell:{'<' if i < left else '>'}{widths[i]}}" for i, cell in enumerate(row)]
        yield "  ".join(cells).rstrip()
