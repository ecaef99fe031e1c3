"""Two array libraries, one program: NumPy computes on the CPU, CuPy on the GPU, and `xp` is whichever owns an array.

CuPy speaks NumPy's language, so an op is written once:

    xp = xp_of(x)
    y = xp.maximum(x, 0)

The two never mix silently: `to_device` and `to_host` are the only bridges, and everything random is drawn on the host
(`rng`) and carried across, so that the same seed gives the same run on both sides.

CuPy is imported only when a GPU is asked for. Whether one can be used is found out by using it: `diagnose_gpu`
multiplies two 2x2 matrices there, and if anything on the way is missing it names that, and the command that mends it.
"""

import importlib.metadata
import shlex
import sys
import warnings
from types import ModuleType
from typing import Any

import numpy as np

from minifcn.errors import DeviceError

Array = Any
"""A `numpy.ndarray` or a `cupy.ndarray`; the second cannot be named without importing CuPy."""

DEVICES = ("cpu", "gpu")


def xp_of(*arrays: Any) -> ModuleType:
    """The library that owns the arrays: `cupy` if one of them lives on the GPU, else `numpy`. Scalars do not vote."""
    cupy = sys.modules.get("cupy")  # nobody can hold a CuPy array before CuPy has been imported
    on_gpu = getattr(cupy, "ndarray", ())  # () while CuPy is absent or half imported: nothing is an instance of it
    return cupy if cupy is not None and any(isinstance(array, on_gpu) for array in arrays) else np


def as_array(data: Any) -> Array:
    """`data` itself if it is an array of either library, else a NumPy array made of it."""
    return data if hasattr(data, "dtype") else np.asarray(data)


def is_host(array: Array) -> bool:
    """Whether the array is in main memory, where looking at its values costs nothing."""
    return xp_of(array) is np


def to_host(array: Array) -> np.ndarray:
    """The array in main memory: itself if it is there already, else a copy brought back from the GPU."""
    return np.asarray(array) if xp_of(array) is np else array.get()


def to_device(array: Array, device: str) -> Array:
    """The array on `device`, "cpu" or "gpu": itself if it is there already, else a copy."""
    if device not in DEVICES:
        raise DeviceError(f"device {device!r} is unknown: expected one of {', '.join(DEVICES)}")
    if device == "cpu":
        return to_host(array)
    import cupy

    return cupy.asarray(array)


def rng(seed: int, *stream: int) -> np.random.Generator:
    """Random numbers for one purpose: `rng(0, 2)` and `rng(0, 3)` are independent, and each is the same every time."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=stream))


def choose_device(wish: str) -> tuple[str, str]:
    """`(device, why in one line)` for the wish "cpu", "gpu" or "auto".

    "auto" takes the GPU where it works. "gpu" insists: without a usable one it is a DeviceError with the reason and
    the cure, because a run that silently takes forty times as long is worse than one that does not start.
    """
    if wish == "cpu":
        return "cpu", "cpu, as asked"
    if wish not in ("gpu", "auto"):
        raise DeviceError(f"device {wish!r} is unknown: expected cpu, gpu or auto")
    usable, reason, cure = diagnose_gpu()
    if usable:
        return "gpu", f"gpu: {reason}"
    if wish == "gpu":
        raise DeviceError(f"the GPU cannot be used: {reason}; to mend it: {cure}")
    return "cpu", f"cpu, because {reason}"


def probe_gpu() -> tuple[bool, str]:
    """`(usable, reason in one line)`. Never raises, never warns."""
    usable, reason, _ = diagnose_gpu()
    return usable, reason


def diagnose_gpu() -> tuple[bool, str, str]:
    """`(usable, reason, cure)`: the first thing that is wrong on the way to a GPU, and the one command that mends it.

    Never raises and never warns: a broken CuPy can fail in as many ways as there are drivers, and none of them is a
    reason not to train on the CPU.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        installed = cupy_packages()
        if len(installed) > 1:
            # They all unpack into one folder `cupy`, each over the other's files: removing one breaks what is left.
            reason = f"{len(installed)} CuPy packages are installed over one another ({', '.join(installed)})"
            return False, reason, f"{pip_command('uninstall', '-y', *installed)} && {_install()}"
        try:
            import cupy
        except ModuleNotFoundError as error:
            if error.name == "cupy":
                return False, "CuPy is not installed", _install()
            return False, f"CuPy cannot be imported: {_first_line(error)}", _install("--force-reinstall")
        except Exception as error:
            return False, f"CuPy cannot be imported: {_first_line(error)}", _install("--force-reinstall")
        try:
            return _try_device(cupy)
        except Exception as error:
            # What is missing here is mostly CUDA's own libraries (cuBLAS, NVRTC): the driver alone does not bring them.
            return False, f"CuPy failed at a 2x2 product: {_first_line(error)}", _install("--force-reinstall")


def cupy_packages() -> list[str]:
    """The installed distributions that provide the module `cupy`; more than one is a fault."""
    names = {str(found.metadata["Name"]).lower() for found in importlib.metadata.distributions()}
    return sorted(name for name in names if name == "cupy" or name.startswith(("cupy-cuda", "cupy-rocm")))


def _try_device(cupy: Any) -> tuple[bool, str, str]:
    runtime = cupy.cuda.runtime
    driver, built = runtime.driverGetVersion() // 1000, runtime.runtimeGetVersion() // 1000
    if driver == 0:
        return False, "no NVIDIA driver is loaded", "install the driver from nvidia.com/drivers, then run nvidia-smi"
    if driver < built:
        return False, f"CuPy is built for CUDA {built} but the driver knows only CUDA {driver}", _replace(driver)
    try:
        count = runtime.getDeviceCount()
    except Exception as error:
        return False, f"no CUDA device can be opened: {_first_line(error)}", "nvidia-smi"
    if count == 0:
        return False, "no CUDA device is visible", "nvidia-smi  # and check CUDA_VISIBLE_DEVICES"
    x = cupy.asarray([[1, 2], [3, 4]], dtype="float32")
    product = cupy.asnumpy(x @ x).tolist()
    if product != [[7, 10], [15, 22]]:
        return False, f"the GPU multiplies wrongly: [[1, 2], [3, 4]] squared is not {product}", "nvidia-smi -q"
    name = runtime.getDeviceProperties(0)["name"].decode(errors="replace")
    return True, f"{name}, CUDA {driver}, CuPy {cupy.__version__}", ""


def pip_command(*words: str) -> str:
    """`pip` of the interpreter that is running now: another one would mend another environment."""
    return shlex.join([sys.executable, "-m", "pip", *words])


def _install(*options: str) -> str:
    # [ctk] brings CUDA's libraries along as wheels, so that a machine needs nothing but the driver; a CUDA 12 build
    # runs on every later driver too.
    return pip_command("install", *options, "cupy-cuda12x[ctk]")


def _replace(driver: int) -> str:
    installed = cupy_packages()
    if driver < 12 or not installed:
        return "update the NVIDIA driver to 525 or later (nvidia.com/drivers)"
    return f"{pip_command('uninstall', '-y', *installed)} && {_install()}"


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
