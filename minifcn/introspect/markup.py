"""Tables as text, and HTML in which everything from outside is escaped."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Sequence

from minifcn.formats.limits import printable


def text_table(rows: Sequence[Sequence[str]], *, left: int) -> Iterator[str]:
    """Yield a line for each row, in columns as wide as they must be: the first `left` to the left, the rest right."""
    rows = [[printable(cell) for cell in row] for row in rows]  # a line end in a name would break the table
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [f"{cell:{'<' if i < left else '>'}{widths[i]}}" for i, cell in enumerate(row)]
        yield "  ".join(cells).rstrip()


class Html(str):
    """Text that is HTML already. Only `tag` makes it, so whatever else reaches a page has been escaped."""


def tag(name: str, /, *children: str, class_: str | None = None, **attributes: str) -> Html:
    """Return an element; children that are plain text are escaped, and so are the attributes' values."""
    if class_:
        attributes["class"] = class_
    opened = name + "".join(f' {key}="{_escape(value)}"' for key, value in attributes.items())
    if name in ("img", "meta", "input"):
        return Html(f"<{opened}>")
    inside = "".join(child if isinstance(child, Html) else _escape(child) for child in children)
    return Html(f"<{opened}>{inside}</{name}>")


def _escape(text: str) -> str:
    if not text.isprintable():  # control characters, halves of surrogate pairs: they have no place in a page
        text = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return html.escape(text)


def inline(data: bytes, kind: str = "png") -> str:
    """Return a PNG, or another `kind` of picture, as an address that holds it."""
    return f"data:image/{kind};base64," + base64.b64encode(data).decode("ascii")


def html_table(rows: Sequence[Sequence[str]]) -> Html:
    """Return the rows as a table that needs no style sheet; the first row is its head."""
    head, *body = [[tag("td", cell, style="text-align:left") for cell in row] for row in rows]
    return tag("table", tag("thead", tag("tr", *head)), tag("tbody", *(tag("tr", *row) for row in body)))
