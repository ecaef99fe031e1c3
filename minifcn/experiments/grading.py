"""Grade a notebook of the course: run it in a kernel with limits, and collect what the checkers say.

The notebook runs from top to bottom in a copy of the course folder, so its own files and checkers stay as they are. A
cell that raises an error or takes too long does not stop the ones after it. The limits keep an endless loop, a huge
array or file, a flood of output, or processes that start processes from stopping the machine (where root runs them, the
system does not limit processes). They are no protection from code that means harm, which can also write verdicts of its
own: run unknown notebooks in a container.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minifcn.errors import FormatError, UsageError
from minifcn.formats.strict_json import read_json

MOST_BYTES = 20_000_000
"""Of a notebook: its pictures are in it."""
MEMORY = 8 << 30
FILE = 256 << 20
"""Bytes of each file that the notebook writes."""
PROCESSES = 200
"""And threads, beside those that its user has already."""
START, STOP = 60, 10
"""Seconds for the kernel to start, and for a cell to end after it was interrupted."""
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
        last = verdicts(log, lesson)
    return [
        last.get(name, Grade(name, False, "not reached: the cell of its checker did not run")) for name in exercises
    ]


def read_cells(notebook: Path) -> list[str]:
    """Return the code of each code cell of a notebook; `FormatError` if it is none."""
    found = read_json(notebook, most=MOST_BYTES, what="a notebook")
    cells = found.get("cells") if isinstance(found, dict) else None
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise FormatError(f"{notebook}: has no list of cells; expected a notebook (.ipynb) of version 4")
    sources = [cell.get("source", "") for cell in cells if cell.get("cell_type") == "code"]
    texts = ["".join(map(str, source)) if isinstance(source, list) else str(source) for source in sources]
    return [text.encode("utf-8", "replace").decode("utf-8") for text in texts]  # JSON may hold half a letter


def lesson_of(notebook: Path, cells: list[str]) -> str:
    """Return the module of the notebook's checkers, such as "n01": the one that it imports."""
    for cell in cells:
        if match := re.search(r"^from exercises import .*\b(n\d\d)\b", cell, re.MULTILINE):
            return match[1]
    raise UsageError(
        f"{notebook}: imports no checkers (`from exercises import n01`); expected a notebook of the course"
    )


def found_course(notebook: Path) -> Path:
    """Return the folder of the course: of this repository, or that of the notebook."""
    own = ROOT / "tutorials"
    return own if (own / "exercises").is_dir() else notebook.absolute().parent


def verdicts(log: Path, lesson: str) -> dict[str, Grade]:
    """Return the last grade of each exercise of a lesson in the checkers' file; other lines are passed over."""
    last = {}
    if log.is_file():
        with log.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    found = json.loads(line)
                    if found["lesson"] == lesson:
                        name = str(found["exercise"])
                        last[name] = Grade(name, found["right"] is True, str(found["said"]))
    return last


def execute(cells: list[str], folder: Path, log: Path, seconds: int) -> None:
    """Run the cells in `folder`; the checkers write to `log`. What the cells print is not read."""
    if any(importlib.util.find_spec(name) is None for name in ("jupyter_client", "ipykernel")):
        raise UsageError("ipykernel is not installed, which runs notebooks: pip install 'minifcn[notebooks]'")
    import jupyter_client

    kept = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    path = os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
    manager = jupyter_client.KernelManager(kernel_name="python3")
    manager.start_kernel(
        extra_arguments=["--HistoryManager.hist_file=:memory:"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=str(folder),
        env={**kept, "PYTHONPATH": path, "MINIFCN_VERDICTS": str(log)},
        **limits(seconds),
    )
    client = manager.blocking_client()
    try:
        client.start_channels(iopub=False, stdin=False, hb=False)
        if not replies(manager, client, client.kernel_info(), START):
            raise UsageError(
                f"the kernel did not start in {START} s; try `jupyter execute` with a notebook of your own"
            )
        for cell in cells:
            request = client.execute(cell, allow_stdin=False, stop_on_error=False)
            if not replies(manager, client, request, seconds) and manager.is_alive():
                manager.interrupt_kernel()
                replies(manager, client, request, STOP)
            if not manager.is_alive():
                break
    finally:
        client.stop_channels()
        if group := getattr(manager.provisioner, "pgid", None):
            with contextlib.suppress(OSError):
                os.killpg(group, signal.SIGKILL)  # with the processes that the notebook started and left
        manager.shutdown_kernel(now=True)


def replies(manager: Any, client: Any, request: str, seconds: float) -> bool:
    """Wait until the kernel replies to a request; return False if it dies or takes longer than so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and manager.is_alive():
        with contextlib.suppress(queue.Empty):
            if client.get_shell_msg(timeout=0.5)["parent_header"].get("msg_id") == request:
                return True
    return False


def limits(seconds: int) -> dict[str, Any]:
    """Return the option of a process to be started that limits it, with all that it starts; none on Windows."""
    try:
        import resource
    except ImportError:
        return {}
    most = {
        resource.RLIMIT_CPU: seconds + 1,
        resource.RLIMIT_AS: MEMORY,
        resource.RLIMIT_FSIZE: FILE,
        resource.RLIMIT_NPROC: running() + PROCESSES,
    }
    return {"preexec_fn": functools.partial(limit, most)}


def limit(most: dict[int, int]) -> None:
    """Limit this process; a limit that the system does not take is left out."""
    import resource

    for kind, wanted in most.items():
        hard = resource.getrlimit(kind)[1]
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def running() -> int:
    """Return how many threads of this user run; a thousand where the system does not show them."""
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            count += len(list((process / "task").iterdir())) if process.stat().st_uid == os.getuid() else 0
    return count or 1000
