"""Grade a notebook of the course: run it in a kernel with limits, and collect what the checkers say.

The notebook runs from top to bottom in a copy of the course folder, so its own files and checkers stay as they are. A
cell that raises an error or takes too long does not stop the ones after it. The limits keep an endless loop or a huge
array from stopping the machine. They are no protection from code that means harm: run unknown notebooks in a container.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minifcn.errors import FormatError, UsageError
from minifcn.formats.strict_json import read_json

MOST_BYTES = 20_000_000
"""Of a notebook: its pictures are in it."""
MEMORY = 8 << 30
ROOT = Path(__file__).parents[2]
CHECK = re.compile(r"^(?:def )?check_(\w+)(?:\(| = )", re.MULTILINE)


@dataclass(frozen=True)
class Grade:
    """One exercise: its name, whether its checker accepted the last answer, and what the checker said."""

    exercise: str
    passed: bool
    said: str


def grade(notebook: Path, *, course: Path | None = None, seconds: int = 300) -> list[Grade]:
    """Run the notebook and return a grade for each exercise of its lesson, in the order of the course.

    course: the folder with `exercises/`; by default that of this repository, or else the notebook's own folder
    seconds: of each cell, and of processor time for the kernel

    Errors: `FormatError` for a file that is no notebook, `UsageError` for one that is not of the course, or without the
    packages that run notebooks.
    """
    cells = read_cells(notebook)
    course = course or found_course(notebook)
    lesson = lesson_of(notebook, cells)
    checkers = course / "exercises" / f"{lesson}.py"
    if not checkers.is_file():
        raise UsageError(
            f"{checkers}: does not exist; expected the checkers of {notebook.name}: name its course folder"
        )
    exercises = CHECK.findall(checkers.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="minifcn-grade-") as folder:
        copy, log = Path(folder) / "course", Path(folder) / "verdicts.jsonl"
        shutil.copytree(course, copy, ignore=shutil.ignore_patterns("solutions", "*.ipynb", "__pycache__", "runs"))
        execute(cells, copy, log, seconds)
        verdicts = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    last = {v["exercise"]: Grade(v["exercise"], v["right"], v["said"]) for v in verdicts if v["lesson"] == lesson}
    return [
        last.get(name, Grade(name, False, "not reached: the cell of its checker did not run")) for name in exercises
    ]


def read_cells(notebook: Path) -> list[dict[str, str]]:
    """Return the code cells of a notebook, as {"source": text}; `FormatError` if it is none."""
    found = read_json(notebook, most=MOST_BYTES, what="a notebook")
    cells = found.get("cells") if isinstance(found, dict) else None
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise FormatError(f"{notebook}: has no list of cells; expected a notebook (.ipynb) of version 4")
    sources = [cell.get("source", "") for cell in cells if cell.get("cell_type") == "code"]
    texts = ["".join(map(str, source)) if isinstance(source, list) else str(source) for source in sources]
    return [{"source": text} for text in texts]


def lesson_of(notebook: Path, cells: list[dict[str, str]]) -> str:
    """Return the module of the notebook's checkers, such as "n01": the one that it imports."""
    for cell in cells:
        if match := re.search(r"^from exercises import .*\b(n\d\d)\b", cell["source"], re.MULTILINE):
            return match[1]
    raise UsageError(
        f"{notebook}: imports no checkers (`from exercises import n01`); expected a notebook of the course"
    )


def found_course(notebook: Path) -> Path:
    """Return the folder of the course: of this repository, or that of the notebook."""
    own = ROOT / "tutorials"
    return own if (own / "exercises").is_dir() else notebook.absolute().parent


def execute(cells: list[dict[str, str]], folder: Path, log: Path, seconds: int) -> None:
    """Run the cells in `folder`; the checkers write to `log`."""
    if any(importlib.util.find_spec(name) is None for name in ("nbclient", "nbformat", "ipykernel")):
        raise UsageError(
            "nbclient and ipykernel are not installed, which run notebooks: pip install 'minifcn[notebooks]'"
        )
    import nbclient
    import nbformat

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell["source"]) for cell in cells])
    client = nbclient.NotebookClient(
        notebook,
        timeout=seconds,
        interrupt_on_timeout=True,
        allow_errors=True,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(folder)}},
    )
    kept = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    path = os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
    with limited(seconds, MEMORY), contextlib.suppress(nbclient.exceptions.DeadKernelError):
        client.execute(env={**kept, "PYTHONPATH": path, "MINIFCN_VERDICTS": str(log)})


@contextlib.contextmanager
def limited(seconds: int, memory: int) -> Iterator[None]:
    """Let the processes that are started inside have so many seconds of processor time and bytes; not on Windows."""
    try:
        import resource
    except ImportError:
        yield
        return
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    before = {kind: resource.getrlimit(kind) for kind in (resource.RLIMIT_CPU, resource.RLIMIT_AS)}
    wanted = {resource.RLIMIT_CPU: int(used) + seconds + 1, resource.RLIMIT_AS: memory}
    try:
        for kind, (_, hard) in before.items():
            soft = wanted[kind] if hard == resource.RLIM_INFINITY else min(wanted[kind], hard)
            resource.setrlimit(kind, (soft, hard))
        yield
    finally:
        for kind, limits in before.items():
            resource.setrlimit(kind, limits)
