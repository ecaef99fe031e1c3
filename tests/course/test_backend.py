"""A GPU that is missing or broken, in every way it can be: `auto` goes on without it and says why, `gpu` says the cure.

Each situation is a CuPy made of a few lines in a folder of its own, seen by a fresh interpreter that turns every
warning into an error. None of them may disturb `import minifcn`.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from some_slow import slow_but

from minifcn.backend import rng, to_device, to_host, xp_of, xp_on
from minifcn.errors import DeviceError
from minifcn.training.device import choose_device

ROOT = pathlib.Path(__file__).parent.parent.parent

PROGRAM = """
import json
import minifcn
from minifcn.training.device import choose_device, diagnose_gpu
from minifcn.errors import DeviceError
try:
    refusal = choose_device("gpu")[0]
except DeviceError as error:
    refusal = str(error)
print(json.dumps([*diagnose_gpu(), choose_device("auto"), choose_device("cpu"), refusal]))
"""

WORKING = """
import types, numpy
__version__ = "14.0"
driver, built, devices = 12090, 12090, 1
ndarray = type("ndarray", (), {})
asarray, asnumpy = numpy.asarray, numpy.asarray
def count():
    return devices
runtime = types.SimpleNamespace(
    driverGetVersion=lambda: driver, runtimeGetVersion=lambda: built, getDeviceCount=lambda: count(),
    getDeviceProperties=lambda device: {"name": b"Card"})
cuda = types.SimpleNamespace(runtime=runtime)
"""

ONE, TWO = ["cupy-cuda12x"], ["cupy-cuda11x", "cupy-cuda12x"]
INSTALL = r"-m pip install --upgrade 'cupy-cuda12x\[ctk\]'$"
REPLACE = r"-m pip uninstall -y cupy-\S+ && .* -m pip install 'cupy-cuda12x\[ctk\]'$"

# What is on the disk as `cupy`, which packages are registered, and the reason and the cure that have to be named.
SITUATIONS = {
    "not installed": (None, [], "CuPy is not installed", INSTALL),
    "registered, but its files are gone": (None, ONE, "cannot be imported: ", REPLACE),
    "two packages": (WORKING, TWO, r"2 CuPy packages .*\(cupy-cuda11x, cupy-cuda12x\)", r"uninstall -y \S+ \S+ && "),
    "a library is missing": ("raise ImportError('\\nlibcuda.so.1: cannot open\\nlong')", ONE, "libcuda.so.1", REPLACE),
    "a part is missing": ("import cupy_backends_that_is_not_there", ONE, "cannot be imported: No module", REPLACE),
    "it breaks without a word": ("raise RuntimeError", ONE, "cannot be imported: RuntimeError", REPLACE),
    "it warns, then breaks": ("import warnings; warnings.warn('!'); 1 / 0", ONE, "division by zero", REPLACE),
    "no driver": (WORKING + "driver = 0", ONE, "no NVIDIA driver", "nvidia.com/drivers"),
    "driver too old": (WORKING + "driver = 11080", ONE, "CUDA 12 but the driver knows only CUDA 11", "driver 525"),
    "built for a later CUDA": (WORKING + "built = 13000", ["cupy-cuda13x"], "CUDA 13 but .* only CUDA 12", REPLACE),
    "no device": (WORKING + "devices = 0", ONE, "no CUDA device is visible", "nvidia-smi"),
    "device cannot be opened": (WORKING + "def count():\n    raise OSError('busy')", ONE, "busy", "nvidia-smi"),
    "driver without toolkit": (
        WORKING + "def asarray(*args, **kwargs):\n    raise RuntimeError('failed to load libnvrtc.so.12')",
        ONE,
        "CuPy failed at a 2x2 product: failed to load libnvrtc.so.12",
        INSTALL,
    ),
    "no compiler": (
        WORKING + "class Array:\n    def __matmul__(self, other):\n        return self\n"
        "    def __add__(self, other):\n        raise RuntimeError('failed to load libnvrtc.so.12')\n"
        "def asarray(*args, **kwargs):\n    return Array()",
        ONE,
        "CuPy failed at a 2x2 product: failed to load libnvrtc.so.12",
        INSTALL,
    ),
    "wrong product": (
        WORKING + "def asnumpy(x):\n    return numpy.zeros((2, 2))",
        ONE,
        r"multiplies wrongly: .* is not \[\[0.0, 0.0\], \[0.0, 0.0\]\]",
        "nvidia-smi",
    ),
    "an empty module": ("", ONE, "has no attribute 'cuda'", INSTALL),
}


def in_the_presence_of(cupy: str | None, packages: list[str], folder: pathlib.Path) -> list:
    """What PROGRAM prints when `import cupy` finds this text; None hides a CuPy that may really be installed."""
    for name in packages:
        info = folder / f"{name.replace('-', '_')}-14.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 14.0\n")
    if cupy is not None:
        (folder / "cupy.py").write_text(cupy)
    # Only the packages of this situation count, whatever this machine has.
    prologue = "import sys, importlib.metadata as m\nreal = m.distributions\n"
    prologue += f"m.distributions = lambda: real(path=[{str(folder)!r}])\n"
    prologue += "sys.modules['cupy'] = None\n" if cupy is None else ""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", prologue + PROGRAM],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
        cwd=folder,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return json.loads(done.stdout)


QUICK = ("not installed", "two packages", "a library is missing", "no driver", "wrong product")


@pytest.mark.parametrize("situation", slow_but(QUICK, SITUATIONS, "a process for each situation"))
def test_a_gpu_that_cannot_be_used(situation: str, tmp_path: pathlib.Path) -> None:
    cupy, packages, because, mended_by = SITUATIONS[situation]
    usable, reason, cure, auto, cpu, refusal = in_the_presence_of(cupy, packages, tmp_path)
    assert not usable
    assert re.search(because, reason) and re.search(mended_by, cure), (reason, cure)
    assert "\n" not in reason + cure
    assert auto == ["cpu", f"cpu, because {reason}"] and cpu[0] == "cpu"
    assert reason in refusal and cure in refusal and "\n" not in refusal


def test_a_gpu_that_works(tmp_path: pathlib.Path) -> None:
    usable, reason, cure, auto, cpu, chosen = in_the_presence_of(WORKING, ONE, tmp_path)
    assert usable and cure == "" and "Card" in reason
    assert (auto[0], cpu[0], chosen) == ("gpu", "cpu", "gpu")


@pytest.mark.parametrize("wish", ["cuda", "", "GPU"])
def test_an_unknown_device_is_refused(wish: str) -> None:
    with pytest.raises(DeviceError, match="expected"):
        choose_device(wish)
    with pytest.raises(DeviceError, match="expected"):
        to_device(np.zeros(1), wish)
    with pytest.raises(DeviceError, match="expected"):
        xp_on(wish)


def test_the_bridges(device: str, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3)).astype(np.float32)
    there = to_device(x, device)
    xp = xp_of(None, 3, there)
    assert xp_on(device) is xp
    assert xp.__name__ == ("cupy" if device == "gpu" else "numpy") and there.dtype == x.dtype
    np.testing.assert_array_equal(to_host(there), x)
    assert isinstance(to_host(there), np.ndarray)
    assert (device == "gpu") or (there is x and to_host(x) is x)  # nothing is copied that is there already


def test_random_streams_are_repeatable_and_apart() -> None:
    first, again, other, stream = (rng(*key).random(4) for key in [(0,), (0,), (1,), (0, 1)])
    assert (first == again).all() and not (first == other).any() and not (first == stream).any()
