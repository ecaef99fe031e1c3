"""The text of the package and of its pages uses plain modern words: no riddles, no personification."""

import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parent.parent.parent

# What a file or function does is "says", "shows", "reports"; a reader is "you"; what is broken is "fixed".
AVOIDED = (
    "tell tells told telling nobody somebody anybody everybody whoever stranger strangers mend mends mended mending"
)
AVOIDED_WORDS = re.compile(rf"\b(?:{'|'.join(AVOIDED.split())}|so as to|what it is that)\b", re.IGNORECASE)

# The name is that of Python's own file method, which counts the bytes before the current place.
ALLOWED = re.compile(r"\.tell\(\)|def tell\(|and tell\(\)")


def avoided(text: str) -> Iterator[str]:
    """The lines with a word of the list, each as `line number: word`."""
    for number, line in enumerate(text.splitlines(), 1):
        for found in AVOIDED_WORDS.findall(ALLOWED.sub("", line)):
            yield f"{number}: {found}"


def pages() -> list[pathlib.Path]:
    """The files of the package, of its pages and of the README that people read."""
    found = [ROOT / "README.md"]
    for folder in ("minifcn", "docs"):
        found += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md", ".js", ".html", ".css")]
    return found


def test_no_avoided_word_is_used() -> None:
    """A page made by docs/ is checked with the code that makes it."""
    assert len(pages()) > 150
    assert [f"{path}:{line}" for path in pages() for line in avoided(path.read_text(encoding="utf-8"))] == []


def test_the_kernels_have_no_private_names() -> None:
    """A name says what is returned or done; "crew" and "lanes" were threads once."""
    private = re.compile(r"\b(?:crew|lanes?|desks?|lay_\w+|some_\w+)\b")
    sources = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "minifcn" / "kernels").glob("*.py")}
    assert len(sources) > 10
    assert {name: private.findall(text) for name, text in sources.items() if private.search(text)} == {}


def test_an_avoided_word_is_found() -> None:
    """In code, in any case, and whole words alone."""
    assert list(avoided("it Tells\nrecommend, foretold\n# to mend it, ask somebody\nsize = file.tell()")) == [
        "1: Tells",
        "3: mend",
        "3: somebody",
    ]
