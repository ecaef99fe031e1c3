"""Test whether the GPU works, and suggest fixes if it does not.

Between a GPU and an array lie a driver, CUDA's libraries, and a CuPy built for both. Each can be missing, too old, or
there twice, and CuPy's own message, often only at the first product, does not say which. `diagnose_gpu` checks them in
turn and reports the first fault in one line, with the one command that fixes it.
"""

import contextlib
import functools
import importlib.metadata
import shlex
import sys
import warnings
from typing import Any

from minifcn.errors import DeviceError


def diagnose_gpu(card: int = 0) -> tuple[bool, str, str]:
    """Return `(usable, reason, cure)`: what keeps a GPU, by number, from working, and the command that fixes it.

    Never raises and never warns: a broken CuPy can fail in as many ways as there are drivers, and none of them is a
    reason not to train on the CPU.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        installed = cupy_packages()
        if len(installed) > 1:
            # They all unpack into one folder `cupy`, each over the other's files: removing one breaks what is left.
            reason = f"{len(installed)} CuPy packages are installed over one another ({', '.join(installed)})"
            return False, reason, _reinstall()
        try:
            import cupy
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and error.name == "cupy" and not installed:
                return False, "CuPy is not installed", _install()
            return False, f"CuPy cannot be imported: {_first_line(error)}", _reinstall()
        try:
            return _try_device(cupy, card)
        except Exception as error:
            # What is missing here is mostly CUDA's own libraries (cuBLAS, NVRTC): the driver alone does not bring them.
            return False, f"CuPy failed at a 2x2 product: {_first_line(error)}", _install()


def choose_device(wish: str, *, card: int = 0) -> tuple[str, str]:
    """Return `(device, why in one line)` for the wish "cpu", "gpu" or "auto"; only the GPU `card` is tried.

    "auto" takes the GPU where it works. "gpu" insists: without a usable one it is a DeviceError with the reason and
    the cure, because a run that silently takes forty times as long is worse than one that does not start.
    """
    if wish == "cpu":
        return "cpu", "cpu, as asked"
    if wish not in ("gpu", "auto"):
        raise DeviceError(f"device {wish!r} is unknown: expected cpu, gpu or auto")
    usable, reason, cure = diagnose_gpu(card)
    if usable:
        return "gpu", f"gpu: {reason}"
    if wish == "gpu":
        raise DeviceError(f"the GPU cannot be used: {reason}; to fix it: {cure}")
    return "cpu", f"cpu, because {reason}"


@functools.cache  # every command asks, and the records of all that is installed take a while to read
def cupy_packages() -> tuple[str, ...]:
    """Return the installed distributions that provide the module `cupy`; more than one is a fault."""
    names = {str(found.metadata["Name"]).lower() for found in importlib.metadata.distributions()}
    return tuple(sorted(name for name in names if name == "cupy" or name.startswith(("cupy-cuda", "cupy-rocm"))))


def _try_device(cupy: Any, card: int) -> tuple[bool, str, str]:
    runtime = cupy.cuda.runtime
    driver, built = runtime.driverGetVersion() // 1000, runtime.runtimeGetVersion() // 1000
    if driver == 0:
        return False, "no NVIDIA driver is loaded", "install the driver from nvidia.com/drivers, then run nvidia-smi"
    if driver < built:
        cure = _install() if driver >= 12 else "install driver 525 or later from nvidia.com/drivers"
        return False, f"CuPy is built for CUDA {built} but the driver knows only CUDA {driver}", cure
    try:
        count = runtime.getDeviceCount()
    except Exception as error:
        return False, f"no CUDA device can be opened: {_first_line(error)}", "nvidia-smi"
    if count == 0:
        return False, "no CUDA device is visible", "nvidia-smi  # and check CUDA_VISIBLE_DEVICES"
    card %= count  # a launcher may show each of several ranks one card alone
    with cupy.cuda.Device(card) if card else contextlib.nullcontext():  # another one would lose memory to this process
        x = cupy.asarray([[1, 2], [3, 4]], dtype="float32")
        product = cupy.asnumpy(x @ x + 0).tolist()  # a sum is compiled, and needs another library than a product
    if product != [[7, 10], [15, 22]]:
        return False, f"the GPU multiplies wrongly: [[1, 2], [3, 4]] squared is not {product}", "nvidia-smi -q"
    name = runtime.getDeviceProperties(card)["name"].decode(errors="replace")
    return True, f"{name}, CUDA {driver}, CuPy {cupy.__version__}", ""


def pip_command(*words: str) -> str:
    """Return a command for the pip of the running interpreter: another one would change another environment."""
    return shlex.join([sys.executable, "-m", "pip", *words])


def _install() -> str:
    # [ctk] brings CUDA's libraries along as wheels, so that a machine needs nothing but the driver; a build for CUDA 12
    # runs on every later driver too. Any other CuPy has to go first: they would unpack over one another.
    if set(cupy_packages()) - {"cupy-cuda12x"}:
        return _reinstall()
    return pip_command("install", "--upgrade", "cupy-cuda12x[ctk]")


def _reinstall() -> str:
    remove = pip_command("uninstall", "-y", *(cupy_packages() or ["cupy"]))
    return f"{remove} && {pip_command('install', 'cupy-cuda12x[ctk]')}"


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
