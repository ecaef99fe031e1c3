"""Every public thing says what it does, and Sphinx can show what it says."""

import importlib
import inspect
import pathlib
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from test_floors import sources

DOCS = pathlib.Path(__file__).parent.parent.parent / "docs"
sys.path.append(str(DOCS))


def documented() -> list[str]:
    """The modules on the API page, in its order."""
    return re.findall(r"^\.\. automodule:: (\S+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE)


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """What a page shows of a module: its own functions and classes or those of `__all__`, with their members."""
    shown = getattr(module, "__all__", ())
    for name, thing in vars(module).items():
        if name.startswith("_") or (getattr(thing, "__module__", "") != module.__name__ and name not in shown):
            continue
        if inspect.isfunction(inspect.unwrap(thing)) or inspect.isclass(thing):
            yield name, thing
        if inspect.isclass(thing):
            for part, member in vars(thing).items():
                if not part.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                    yield f"{name}.{part}", getattr(thing, part)


def silent(module: ModuleType) -> list[str]:
    """What says nothing. A method speaks through that of its base class, as in Python's own help()."""
    return [name for name, thing in public(module) if not (inspect.getdoc(thing) or "").strip()]


def test_every_module_of_the_package_is_on_the_page_or_is_told_to_be_read() -> None:
    names = [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in sources()]
    there = {"minifcn" if name == "__init__" else f"minifcn.{name}" for name in names}
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    elsewhere = {
        f"minifcn.{name}" for name in re.findall(r"`([a-z_0-9]+(?:\.[a-z_0-9]+)*)`", page.split("## Not here")[1])
    }
    on_page = documented()
    assert len(on_page) == len(set(on_page)) and not set(on_page) & elsewhere
    assert {*on_page, *elsewhere} == there - {"minifcn"}


@pytest.mark.parametrize("name", documented())
def test_every_public_thing_has_a_docstring(name: str) -> None:
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip()
    assert not silent(module)


def test_silence_is_noticed() -> None:
    module = ModuleType("planted")
    exec("class A:\n    'a'\n    def b(self): ...\ndef c(): 'c'\ndef d(): ...", vars(module))  # noqa: S102  three lines above
    assert silent(module) == ["A.b", "d"]


@pytest.mark.parametrize(
    ("plain", "shown"),
    [
        ("y = 2 * x_, |x| `as it is`, `op`s", "y = 2 \\* x\\_, \\|x\\| ``as it is``, ``op``\\ s\n"),
        ("Rule:\n\n    y = *x*\n\nThen.", "Rule:\n\n::\n\n        y = *x*\n\nThen.\n"),
        ("- one `a`\n- two", "- one ``a``\n- two\n"),
        ("ops.py     what\nnn.py      how", "::\n\n    ops.py     what\n    nn.py      how\n"),
    ],
)
def test_plain_text_becomes_restructured_text(plain: str, shown: str) -> None:
    import docstrings

    assert docstrings.converted(plain) == shown


@pytest.mark.docs
@pytest.mark.parametrize("name", documented())
def test_sphinx_reads_every_docstring_without_a_complaint(name: str) -> None:
    core = pytest.importorskip("docutils.core", reason="sphinx, which makes the pages, is not installed")
    import docstrings

    module = importlib.import_module(name)
    for part, thing in [("", module), *public(module)]:
        text = docstrings.converted(inspect.getdoc(thing) or "")
        complaints: Any = []
        page = core.publish_doctree(
            text, settings_overrides={"report_level": 2, "warning_stream": False, "halt_level": 5}
        )
        complaints = [node.astext() for node in page.findall(lambda n: n.tagname == "system_message")]
        assert not complaints, f"{name}.{part}: {complaints}"
