"""Make links of the names on the pages: a function leads to the API page, a test to its source.

`ops.conv2d` in a page's text is looked up among the objects that the API page documents, with `minifcn.` before it and,
if it is not there, where it is defined (`minifcn.ops.conv.conv2d`), or its module; a class, by its name alone.
`test_ops.py::test_adjoint` leads to a page of that file, which is made here, at the line of the test.
"""

from __future__ import annotations

import html
import importlib
import pathlib
import re
from typing import Any

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx.util.nodes import make_refnode

ROOT = pathlib.Path(__file__).parent.parent
TEST = re.compile(r"(test_\w+\.py)::(test_\w+)")
PAGE = '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'


def test_file(name: str) -> pathlib.Path | None:
    """Return the file of that name in tests/, or None."""
    return next(iter(sorted((ROOT / "tests").rglob(name))), None)


def link(app: Any, page: nodes.document, docname: str) -> None:
    """Sphinx's event for a page that has been read: wrap its names in references, in place."""
    objects = app.env.domains["py"].objects
    above = "../" * docname.count("/")
    for literal in list(page.findall(nodes.literal)):
        text = literal.astext()
        if isinstance(literal.parent, nodes.reference) or docname == "docs/api":
            continue
        entry = documented(objects, text)
        test = TEST.fullmatch(text)
        file = test_file(test[1]) if test else None
        if entry:
            target = make_refnode(app.builder, docname, entry.docname, entry.node_id, literal.deepcopy())
        elif test and file and (line := line_of(file, test[2])):
            target = nodes.reference("", "", literal.deepcopy(), refuri=f"{above}tests/{test[1]}.html#L-{line}")
        else:
            continue
        literal.replace_self(target)


def documented(objects: Any, text: str) -> Any:
    """Return what the API page has for a name: `ops.conv2d`, or `FCN8s`, if one object alone is called so; or None."""
    name = text.removeprefix("minifcn.")
    ends = [full for full in objects if full.endswith(f".{name}")] if name[:1].isupper() else []
    if found := objects.get(f"minifcn.{name}") or (objects[ends[0]] if len(ends) == 1 else None):
        return found
    module, _, last = f"minifcn.{name}".rpartition(".")
    if module != "minifcn" and module not in objects:
        return None
    thing = getattr(importlib.import_module(module), last, None)
    home = f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', '')}"
    return objects.get(home) or (objects.get(module) if thing is not None else None)


def line_of(file: pathlib.Path, name: str) -> int:
    """Return the number of the line on which a test begins, 0 where there is none."""
    lines = file.read_text(encoding="utf-8").split("\n")
    return next((i for i, text in enumerate(lines, start=1) if text.startswith(f"def {name}(")), 0)


def write_tests(app: Any, fault: Exception | None) -> None:
    """Sphinx's event at the end: write a page for each test file that a page names."""
    if fault is not None or app.builder.format != "html":
        return
    folder = pathlib.Path(app.outdir) / "tests"
    folder.mkdir(exist_ok=True)
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")]
    style = HtmlFormatter(linenos="inline", lineanchors="L", anchorlinenos=False)
    for name in sorted({found[1] for text in pages for found in TEST.finditer(text)}):
        if file := test_file(name):
            code = highlight(file.read_text(encoding="utf-8"), PythonLexer(), style)
            title = html.escape(file.relative_to(ROOT).as_posix())
            head = f"{PAGE}<title>{title}</title><style>{style.get_style_defs('.highlight')}</style><h1>{title}</h1>"
            (folder / f"{name}.html").write_text(f"{head}\n{code}</html>\n", encoding="utf-8")


def setup(app: Any) -> None:
    """Connect both."""
    app.connect("doctree-resolved", link)
    app.connect("build-finished", write_tests)
