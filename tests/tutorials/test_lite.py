"""The course in a browser: what it imports is there, it runs in Pyodide, and the site of `make lite` opens.

The test in Pyodide runs where Node is installed and `MINIFCN_PYODIDE` names a folder with a distribution of it:
pyodide.mjs, its lock file, and the wheels of NumPy, Pillow, matplotlib and IPython.
"""

import ast
import functools
import http.server
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import lite
import pytest
from browser import Chromium, Page
from ci_groups import GROUPS
from notebooks import TUTORIALS, load, sources

ROOT = TUTORIALS.parent

# ---- what is imported --------------------------------------------------------------------------------------------

# What Pyodide lacks, and what a notebook shall not need.
LACKING = "fcntl resource multiprocessing termios pty pwd grp ssl msvcrt winreg cupy mpi4py torch"
NOT_NEEDED = "tyro tqdm threadpoolctl sklearn scipy safetensors h5py onnx onnxruntime IPython"
PROGRAM = """
import importlib, signal, sys, threading

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def refuse(thread):
    raise RuntimeError("can't start new thread")

ABSENT, names = set(sys.argv[1].split()), sys.argv[2].split()
for name in [name for name in sys.modules if name.partition(".")[0] in ABSENT]:
    del sys.modules[name]
sys.meta_path.insert(0, Absent())
threading.Thread.start = refuse
del signal.SIGHUP
for name in names:
    module, _, thing = name.partition(":")
    if thing and not hasattr(importlib.import_module(module), thing):
        module = f"{module}.{thing}"
    importlib.import_module(module)

import minifcn, numpy
from minifcn.kernels.threads import set_threads, threads
set_threads(2)
net = minifcn.FCN8s(classes=3, width=2, seed=0)
minifcn.ops.sum(net(numpy.ones((1, 3, 64, 64), "float32"))).backward()
assert threads() == 1
print("imported", len(names))
"""


def imported(path: pathlib.Path) -> set[str]:
    """What a file imports, anywhere in it: `module`, or `module:name` for a name out of a module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found |= {f"{module}:{name.name}" for name in node.names}
    return {name for name in found if not name.startswith((".", "__future__"))}


def import_without(absent: str, names: set[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(TUTORIALS)])}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, absent, " ".join(sorted(names))],
        cwd=TUTORIALS,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_course_and_the_package_import_nothing_that_a_browser_lacks() -> None:
    names = set().union(
        *map(imported, [*sources(), *TUTORIALS.glob("exercises/*.py"), *TUTORIALS.glob("solutions/*.py")])
    )
    names |= {
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        for path in (ROOT / "minifcn").rglob("*.py")
        if path not in (ROOT / "minifcn" / "__main__.py", ROOT / "minifcn" / "train.py")
    }  # programs
    assert len(names) > 250 and "minifcn.training.loop:Trainer" in names and "exercises:n01" in names
    done = import_without(f"{LACKING} {NOT_NEEDED}", names)
    assert done.stdout == f"imported {len(names)}\n", done.stderr[-2000:]


def test_an_import_that_a_browser_lacks_is_noticed() -> None:
    done = import_without("numpy", {"minifcn"})
    assert done.returncode and "No module named 'numpy'" in done.stderr


# ---- in Pyodide --------------------------------------------------------------------------------------------------


@pytest.mark.pyodide
@pytest.mark.slow("starts Python in WebAssembly, 20 s of processor time")
@pytest.mark.skipif(bool(GROUPS["pyodide"]()), reason=GROUPS["pyodide"]() or "it is here")
def test_the_package_the_ops_and_the_first_notebook_in_pyodide() -> None:
    program = pathlib.Path(__file__).parent / "in_pyodide.mjs"
    done = subprocess.run(
        ["node", str(program), os.environ["MINIFCN_PYODIDE"]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["modules"] > 150 and found["broken"] == []
    assert found["threads"] == [1, 1]
    assert found["cases"] > 200 and found["wrong"] == []
    assert found["cells"] > 20 and found["different"] == []  # what notebook 01 prints is what is committed


# ---- the site ----------------------------------------------------------------------------------------------------


def test_a_notebook_for_the_browser_first_installs_what_it_needs() -> None:
    for source in sources():
        notebook = load(source.with_suffix(".ipynb"))
        made = lite.for_browser(notebook)
        at = [cell["cell_type"] for cell in made["cells"]].index("code")
        needs = ["minifcn", "scikit-learn"] if "load_digits" in source.read_text(encoding="utf-8") else ["minifcn"]
        assert made["cells"][at]["source"].splitlines()[-1].split() == ["%pip", "install", "--quiet", *needs]
        others = made["cells"][:at] + made["cells"][at + 1 :]
        assert [cell for cell in others if cell["cell_type"] == "code"] == [
            cell for cell in notebook["cells"] if cell["cell_type"] == "code"
        ]
        for cell, was in zip(others, notebook["cells"], strict=True):
            assert cell == was or "](../docs/" in "".join(was["source"])
        assert made["metadata"]["kernelspec"]["name"] == "python"


@pytest.mark.parametrize("base", ["/", "/course/"])
def test_links_of_the_notebooks_and_of_the_explorer_stay_in_the_site(tmp_path: pathlib.Path, base: str) -> None:
    lite.contents(tmp_path / "files", base)
    lite.explorer(tmp_path / "explorer")
    pages = 0
    for path in sorted((tmp_path / "files").glob("*.ipynb")):
        texts = ["".join(cell["source"]) for cell in load(path)["cells"] if cell["cell_type"] == "markdown"]
        for link in re.findall(r"\]\(([^)\s]+)\)", "\n".join(texts)):
            if link.startswith(f"{base}explorer/"):
                pages += 1
                assert (tmp_path / link.removeprefix(base).partition("#")[0]).is_file(), link
            elif "://" not in link and not link.startswith("#"):
                assert (tmp_path / "files" / link.partition("#")[0]).is_file(), (path.name, link)
    assert pages >= 5
    back = re.compile(r'href="\.\./notebooks/index\.html\?path=(\w+\.ipynb)"')
    texts = [page.read_text(encoding="utf-8") for page in (tmp_path / "explorer").glob("*.html")]
    found = [name for text in texts for name in back.findall(text)]
    assert len(found) >= 5 and all((tmp_path / "files" / name).is_file() for name in found)
    assert not any("../../" in text for text in texts)


def test_the_site_spares_a_folder_that_is_none(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert lite.main(tmp_path) == 2 and "is not empty and no site" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.fixture(scope="module")
def site(once: Callable[[str, Callable[[pathlib.Path], None]], pathlib.Path]) -> pathlib.Path:
    if missing := GROUPS["lite"]():
        pytest.skip(missing)

    def make(folder: pathlib.Path) -> None:
        assert lite.main(folder / "site") == 0

    return once("lite", make) / "site"


@pytest.fixture
def address(site: pathlib.Path) -> Iterator[str]:
    """Where a server shows the site; the browser reaches no other."""

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.lite
@pytest.mark.slow("builds a site of JupyterLite")
def test_the_site_holds_the_wheel_and_what_the_notebooks_read(site: pathlib.Path) -> None:
    (wheel,) = json.loads((site / "pypi" / "all.json").read_text())["minifcn"]["releases"].values()
    assert (site / "pypi" / wheel[0]["filename"]).is_file()
    files = site / "files"
    kept = [path.relative_to(TUTORIALS) for folder in ("exercises", "solutions", "photos", "logs", "weights")
            for path in (TUTORIALS / folder).iterdir() if path.name != "__pycache__"]  # fmt: skip
    kept += [path.with_suffix(".ipynb").relative_to(TUTORIALS) for path in sources()]
    assert len(kept) > 50 and [name for name in kept if not (files / name).is_file()] == []
    assert not (files / "teaching").exists() and (site / "explorer" / "convolution.html").is_file()


def wait_until(page: Page, condition: str) -> None:
    until = time.monotonic() + 120
    while not page.run(condition):
        assert time.monotonic() < until, page.complaints
        time.sleep(0.5)


@pytest.mark.lite
@pytest.mark.browser
@pytest.mark.slow("builds a site of JupyterLite and starts a browser")
def test_the_site_opens_and_shows_a_notebook(address: str, chromium: Chromium, tmp_path: pathlib.Path) -> None:
    page = chromium.page(width=390)  # a phone
    page.connect(True)
    page.open(f"{address}/notebooks/index.html?path=01_autograd.ipynb")
    wait_until(page, "document.querySelectorAll('.jp-Notebook .jp-Cell').length > 3")
    assert page.run("document.querySelector('.jp-Notebook .jp-Cell').getBoundingClientRect().width") > 330
    assert "A tensor that remembers" in page.run("document.querySelector('.jp-Notebook').textContent")
    assert "%pip install --quiet minifcn" in page.run("document.querySelector('.jp-Notebook').textContent")
    page.open(f"{address}/index.html")
    wait_until(page, "document.querySelectorAll('.jp-DirListing-itemName').length > 3")
    assert page.run("location.pathname").startswith("/tree")
    listed = page.run(
        "[...document.querySelectorAll('.jp-DirListing-itemName')].map(e => e.textContent.trim()).join(' ')"
    )
    assert all(source.with_suffix(".ipynb").name in listed for source in sources()), listed
    if folder := os.environ.get("MINIFCN_PICTURES"):
        page.screenshot(pathlib.Path(folder) / "lite.png", whole=False)
    page.close()
