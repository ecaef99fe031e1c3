"""Build the course as a site that needs no install: JupyterLite, in which Pyodide runs Python in the browser.

    make lite                                    into build/lite; then: python -m http.server --directory build/lite
    python docs/lite.py build/lite /course/      the same, to lie on its server below /course/

The site has the notebooks, with a cell before their first code that installs minifcn, and what they read; the pages of
docs/explorer, to which the notebooks link; and the wheel of minifcn. Python itself, NumPy and the other packages come
from a folder with a distribution of Pyodide, which MINIFCN_PYODIDE names, and which the site then holds; without it the
site refers to Pyodide's public one.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
TUTORIALS = ROOT / "tutorials"
LEFT_OUT = ("teaching", "[0-9][0-9]_*.py", "__pycache__", "runs", ".ipynb_checkpoints")
KERNEL = {"display_name": "Python (Pyodide)", "language": "python", "name": "python"}
APPS = (
    "tree",
    "notebooks",
    "edit",
    "lab",
)  # a list, a page for a notebook, also on a phone; and the whole of JupyterLab
START = {"jupyter-lite-schema-version": 0, "jupyter-config-data": {"appUrl": "./tree"}}
INSTALL = "# minifcn comes from this site, the rest from Pyodide's distribution.\n%pip install --quiet "


def main(target: pathlib.Path, base: str = "/") -> int:
    """Build the site in `target`, which is emptied first if it is an earlier one. Return the exit code.

    `base` is the path at which the server shows it.
    """
    if target.exists() and any(target.iterdir()) and not (target / "jupyter-lite.json").exists():
        return complain(f"{target}: is not empty and no site of JupyterLite; expected a new folder")
    shutil.rmtree(target, ignore_errors=True)
    own = os.environ.get("MINIFCN_PYODIDE")
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        contents(work / "files", base)
        if own:
            shutil.copytree(own, work / "site" / "static" / "pyodide")
        (work / "site").mkdir(exist_ok=True)
        (work / "site" / "jupyter-lite.json").write_text(json.dumps(START), encoding="utf-8")
        wheel = [
            "pip",
            "wheel",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--wheel-dir",
            folder,
            str(ROOT),
        ]
        if failed := run(wheel, work):
            return complain(f"the wheel of minifcn: {failed}")
        if failed := run(["jupyterlite_core", "build", *options(work, target.resolve())], work):
            return complain(f"JupyterLite: {failed}")
        explorer(target / "explorer")
    where = f"the site itself ({own})" if own else "Pyodide's public distribution, so that a reader needs a network"
    print(f"the browser loads Python and NumPy from {where}")
    return 0


def contents(folder: pathlib.Path, base: str = "/") -> None:
    """Copy the course into `folder`, each notebook with a first code cell that installs what it imports."""
    shutil.copytree(TUTORIALS, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for path in folder.glob("[0-9][0-9]_*.ipynb"):
        notebook = for_browser(json.loads(path.read_text(encoding="utf-8")), base)
        path.write_text(json.dumps(notebook), encoding="utf-8")
        for image in re.findall(r"\]\((docs/images/[^)\s]+)\)", path.read_text(encoding="utf-8")):
            (folder / image).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / image, folder / image)


def explorer(folder: pathlib.Path) -> None:
    """Copy the explorables into `folder`, with their links back to the notebooks of this site."""
    shutil.copytree(ROOT / "docs" / "explorer", folder)
    for path in folder.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        text = re.sub(r"\.\./\.\./tutorials/(\w+\.ipynb)", r"../notebooks/index.html?path=\1", text)
        text = text.replace('"../course.md"', '"../tree/index.html"')
        path.write_text(text, encoding="utf-8")


def moved(cell: dict[str, Any], base: str) -> dict[str, Any]:
    """Return a cell whose links to ../docs lead to where this site has the page or the image.

    JupyterLab would open a page in its own viewer, which runs no script, so its link begins at the root of the server.
    """
    if cell["cell_type"] == "code":
        return cell
    text = "".join(cell["source"]).replace("](../docs/explorer/", f"]({base}explorer/")
    text = text.replace("](../docs/images/", "](docs/images/")
    return {**cell, "source": text.splitlines(keepends=True)}


def for_browser(notebook: dict[str, Any], base: str = "/") -> dict[str, Any]:
    """Return the notebook for Pyodide's kernel, with the cell that installs minifcn, and its links into the site."""
    cells = [moved(cell, base) for cell in notebook["cells"]]
    packages = "minifcn scikit-learn" if "load_digits" in json.dumps(cells) else "minifcn"
    first = [cell["cell_type"] for cell in cells].index("code")
    install = {"cell_type": "code", "execution_count": None, "id": "install", "metadata": {}, "outputs": []}
    cells = [*cells[:first], {**install, "source": INSTALL + packages}, *cells[first:]]
    return {**notebook, "cells": cells, "metadata": {**notebook["metadata"], "kernelspec": KERNEL}}


def options(work: pathlib.Path, target: pathlib.Path) -> list[str]:
    """Return what JupyterLite needs to know: of the extensions of this environment it takes Pyodide's kernel alone."""
    (wheel,) = work.glob("minifcn-*.whl")
    kernel = pathlib.Path(sys.prefix, "share", "jupyter", "labextensions", "@jupyterlite", "pyodide-kernel-extension")
    chosen = {"lite-dir": work / "site", "contents": work / "files", "output-dir": target, "piplite-wheels": wheel}
    return [
        *(word for name, value in chosen.items() for word in (f"--{name}", str(value))),
        *("--ignore-sys-prefix", f"--LiteBuildConfig.federated_extensions={kernel}", "--no-sourcemaps"),
        *(word for name in APPS for word in ("--apps", name)),
    ]


def run(module: list[str], work: pathlib.Path) -> str:
    """Run `python -m module`. Return "", or the last line of what it printed if it failed."""
    done = subprocess.run(  # noqa: S603  our own words
        [sys.executable, "-m", *module], cwd=work, capture_output=True, text=True, check=False
    )
    said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no reason given"]
    return said[-1] if done.returncode else ""


def complain(what: str) -> int:
    print(f"minifcn: {what}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1]), *sys.argv[2:3]))
