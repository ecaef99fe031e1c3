"""Say on each notebook's page where it can be run without an install: in the browser, and in Colab.

"Run it here" leads to the site of `make lite`, if that is built; `-D lite=...` says where it lies, as seen from the
folder of the pages, or at which address. The badge of Colab needs the address of the repository on GitHub, which is
`Repository` in the table `project.urls` of pyproject.toml; without one there is no badge.
"""

from __future__ import annotations

import json
import pathlib
import re
import tomllib
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOK = re.compile(r"tutorials/(\d\d_\w+)")
GITHUB = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?")
IN_COLAB = (
    "In Colab, first run <code>!git clone --depth 1 {0} minifcn</code>, <code>%pip install ./minifcn</code> and "
    "<code>%cd minifcn/tutorials</code>."
)


def add(app: Any, docname: str, source: list[str]) -> None:
    """Sphinx's event for a page that is read: put the links below the title of a notebook."""
    if found := NOTEBOOK.fullmatch(docname):
        urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
        html = links(found[1], lite=site(app.config.lite, pathlib.Path(app.outdir)), repository=urls.get("Repository"))
        if html:
            notebook = json.loads(source[0])
            first = notebook["cells"][0]
            title, _, text = "".join(first["source"]).partition("\n")
            first["source"] = f"{title}\n\n{html}\n{text}"
            source[0] = json.dumps(notebook)


def site(lite: str, out: pathlib.Path) -> str | None:
    """Return the address of the site as a notebook's page sees it, or None where it is not built."""
    if "://" in lite:
        return lite.rstrip("/")
    return f"../{lite}" if (out / lite / "notebooks" / "index.html").is_file() else None


def links(name: str, *, lite: str | None, repository: str | None) -> str:
    """Return the HTML for the notebook `name`; "" if it can be run in neither place."""
    shown = [badge("Run it here", f"{lite}/notebooks/index.html?path={name}.ipynb")] if lite else []
    if on_github := GITHUB.fullmatch(repository or ""):
        address = f"https://colab.research.google.com/github/{on_github[1]}/blob/main/tutorials/{name}.ipynb"
        shown += [badge("Open in Colab", address), IN_COLAB.format(repository)]
    return f'<p class="run-here">{" ".join(shown)}</p>' if shown else ""


def badge(text: str, address: str) -> str:
    return f'<a class="badge" href="{address}">{text}</a>'


def setup(app: Any) -> None:
    """Connect it; the setting `lite` says where the site is."""
    app.add_config_value("lite", "../lite", "env")
    app.connect("source-read", add)
