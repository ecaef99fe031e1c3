"""Our docstrings are plain text; Sphinx reads reStructuredText. This makes the one into the other.

`names` in backquotes are code, indented lines and tables stand as they were written, all else is words: a star or a
bar in a formula is a star or a bar.
"""

import inspect
import re
from typing import Any

AS_WRITTEN = re.compile(r"^( {2,}|\||>>>)|\S {3,}\S")  # indented, a row of a table, a session, columns


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Sphinx's event: change `lines` in place."""
    lines[:] = converted(inspect.cleandoc("\n".join(lines))).splitlines()


def converted(text: str) -> str:
    """reStructuredText that shows a plain docstring."""
    return "\n\n".join(paragraph(part) for part in re.split(r"\n\s*\n", text) if part.strip()) + "\n"


def paragraph(text: str) -> str:
    lines = text.split("\n")
    if lines[0].startswith(("- ", "* ", "1. ")):
        return words(text)
    written = [bool(AS_WRITTEN.search(line)) for line in lines]
    start = written.index(True) if True in written else len(lines)
    said = words("\n".join(lines[:start]))
    if start == len(lines):
        return said
    shown = "\n".join("    " + line for line in lines[start:])
    return (f"{said}\n\n" if said else "") + f"::\n\n{shown}"


def words(text: str) -> str:
    parts = re.split(r"`([^`]+)`", text)
    escaped = [re.sub(r"([\\*|_<>])", r"\\\1", part) for part in parts[::2]]
    code = [f"``{part}``" for part in parts[1::2]] + [""]
    return "".join(plain + quoted for plain, quoted in zip(separated(escaped), code, strict=True))


def separated(plain: list[str]) -> list[str]:
    """A letter right beside a code word would undo the markup: an escaped space, which is nothing, parts them."""
    apart = []
    for i, part in enumerate(plain):
        if i and part[:1].isalnum():
            part = "\\ " + part
        if i < len(plain) - 1 and part[-1:].isalnum():
            part += "\\ "
        apart.append(part)
    return apart
