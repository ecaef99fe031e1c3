"""Sphinx's settings: the pages are docs/*.md and the notebooks of tutorials/, where they lie; `make docs` builds them.

The source folder is the repository itself, so that a link between files is right on a forge and in the built site
alike. Notebooks appear with the outputs that are committed: nothing is run here.
"""

import json
import pathlib
import re
import shutil
import sys
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import docstrings  # noqa: E402  beside this file
import links  # noqa: E402
import pictures  # noqa: E402
import run_here  # noqa: E402

import minifcn  # noqa: E402

project, author, release = "minifcn", "minifcn contributors", minifcn.__version__
copyright = "minifcn contributors, MIT licence"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.mathjax", "sphinx.ext.viewcode"]
root_doc = "docs/index"
include_patterns = ["docs/*.md", "tutorials/*.ipynb", "tutorials/teaching/*.md"]
exclude_patterns = [".*", "build", "dist", "runs", "**/.ipynb_checkpoints"]

nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show, nb_code_prompt_hide = "Show a solution", "Hide the solution"  # nothing else is folded
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autosummary_generate = False
toc_object_entries_show_parents = "hide"
python_maximum_signature_line_length = 90

# One file from its npm package (mathjax.py), with glyphs as outlines: no fonts, nothing fetched later.
mathjax_path = "mathjax/tex-svg-full.js"
mathjax3_config = {"options": {"enableMenu": False}}

html_theme = "furo"
html_title = "minifcn"
html_copy_source = False
html_show_sourcelink = False
html_static_path = html_css_files = ["site.css"]

EXPLORER, FILM = "explorer/", "A training step, frame by frame"
START = '<!doctype html><meta charset="utf-8"><title>minifcn</title><meta http-equiv="refresh" content="0; url={0}">'


def fold_solutions(app: Sphinx, name: str, source: list[str]) -> None:
    """What JupyterLab folds is folded here, too: cells tagged `solution`."""
    if name.startswith("tutorials/") and "/" not in name.removeprefix("tutorials/"):
        notebook = json.loads(source[0])
        for cell in notebook["cells"]:
            if "solution" in cell["metadata"].get("tags", []):
                cell["metadata"]["tags"].append("hide-input")
        source[0] = json.dumps(notebook)


def link_film(app: Sphinx, name: str, source: list[str]) -> None:
    """The site has one more explorable, a training step as a film (`add_what_is_no_page`)."""
    if name == "docs/explorables":
        source[0] = source[0].replace(FILM, f'<a href="{EXPLORER}step.html">{FILM}</a>')


def link_explorer(app: Sphinx, page: nodes.document) -> None:
    """The explorables are pages that Sphinx does not make: links to them stay links, and are no downloads.

    What follows `#` in such a link is the state that the page shows. MyST drops it, so it is read from the text.
    """
    text = pathlib.Path(app.env.doc2path(app.env.docname)).read_text(encoding="utf-8")
    links = iter(re.findall(rf"\]\(([^()\s#]*{EXPLORER}\w+\.html)(#[^()\s]*)?\)", text))
    for node in list(page.findall(addnodes.download_reference)):
        target = node["reftarget"]
        if EXPLORER in target and target.endswith(".html"):
            state = next((state for path, state in links if path == target), "")
            node.replace_self(nodes.reference("", "", *node.children, refuri=target + state))


def add_what_is_no_page(app: Sphinx, fault: Exception | None) -> None:
    if fault is None and app.builder.format == "html":
        out = pathlib.Path(app.outdir)
        (out / "index.html").write_text(START.format(f"{root_doc}.html") + "\n", encoding="utf-8")
        if (HERE / EXPLORER).exists():
            shutil.copytree(HERE / EXPLORER, out / "docs" / EXPLORER, dirs_exist_ok=True)
            for page in (out / "docs" / EXPLORER).glob("*.html"):  # they lead to pages, as in the repository to files
                text = re.sub(r'(href="\.\./[\w./]+)\.(md|ipynb)"', r'\1.html"', page.read_text(encoding="utf-8"))
                page.write_text(text, encoding="utf-8")
            pictures.film(out / "docs" / EXPLORER / "step.html")


def forget_what_has_no_source(app: Sphinx, env: Any) -> None:
    """Drop modules without a source, such as builtins, from the index of sources: it would link to no page."""
    known = getattr(env, "_viewcode_modules", {})
    for name in [name for name, found in known.items() if not found]:
        del known[name]


def setup(app: Sphinx) -> None:
    app.connect("env-check-consistency", forget_what_has_no_source)
    app.connect("source-read", fold_solutions)
    app.connect("source-read", link_film)
    app.connect("doctree-read", link_explorer, priority=100)  # before Sphinx collects downloads
    app.connect("autodoc-process-docstring", docstrings.process)
    app.connect("build-finished", add_what_is_no_page)
    links.setup(app)
    run_here.setup(app)
