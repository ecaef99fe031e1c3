"""Run the CUDA C of `minifcn/kernels/fused.py` on the CPU: compiled as C++, one thread after another.

A thread of those kernels uses no other thread's numbers, so a loop over all of them computes what a GPU computes, but
for the last bits of exp and log. `COMPILER` is "" where there is no g++ or clang++.
"""

import ctypes
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

COMPILER = shutil.which("g++") or shutil.which("clang++") or ""
KINDS = {"int": ctypes.c_int, "long long": ctypes.c_longlong, "double": ctypes.c_double}
FLAGS = ("-O1", "-shared", "-fPIC", "-ffp-contract=off", "-Wall", "-Werror", "-Wno-unused-variable")
# C++'s <cmath> would give the same functions, and take most of the compiler's time.
SHIM = """extern "C" {
int abs(int); double exp(double); double log(double); double nan(const char*); double sqrt(double);
}
inline float exp(float x) { return __builtin_expf(x); }
inline float log(float x) { return __builtin_logf(x); }
inline float sqrt(float x) { return __builtin_sqrtf(x); }
struct Place { unsigned int x; };
static thread_local Place blockIdx, blockDim, threadIdx;
#define __global__
"""
LOOP = """
extern "C" void run(unsigned int blocks, unsigned int threads, %s) {
  blockDim.x = threads;
  for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++)
    for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++) ::%s(%s);
}
"""


def parameters(code: str, name: str) -> list[tuple[str, str]]:
    """The parameters of the kernel, `[("const T*", "x"), ("int", "rows")]`."""
    (signature,) = re.findall(rf"\b{name}\(([^)]*)\)", code)
    return [tuple(part.strip().rsplit(" ", 1)) for part in signature.split(",")]


def compiled(code: str, name: str) -> Callable[..., None]:
    """The kernel as a function of blocks, threads and arguments; what was compiled before is kept in __pycache__."""
    declared = parameters(code, name)
    both = [f"{kind} {argument}" for kind, argument in declared]
    source = SHIM + code + LOOP % (", ".join(both), name, ", ".join(argument for _, argument in declared))
    digest = hashlib.sha256((source + " ".join(FLAGS)).encode()).hexdigest()[:24]
    library = pathlib.Path(__file__).parent / "__pycache__" / f"cuda-{name}-{digest}.so"
    library.parent.mkdir(exist_ok=True)
    if not library.exists():
        with tempfile.TemporaryDirectory() as folder:
            text, made = pathlib.Path(folder, "kernel.cpp"), pathlib.Path(folder, "kernel.so")
            text.write_text(source, encoding="utf-8")
            subprocess.run([COMPILER, *FLAGS, str(text), "-o", str(made)], check=True)
            own = library.with_suffix(f".{os.getpid()}")
            shutil.copy(made, own)
            own.replace(library)  # whole or not at all: other processes look, too
    run = ctypes.CDLL(str(library)).run
    run.argtypes = [ctypes.c_uint, ctypes.c_uint, *(KINDS.get(kind, ctypes.c_void_p) for kind, _ in declared)]
    run.restype = None
    return run


def raw_kernel(code: str, name: str, host: Callable[[Any], Any]) -> Callable[..., None]:
    """Stands for `cupy.RawKernel(code, name)`; `host(array)` is the NumPy array behind a device array.

    Stricter than CuPy: the scalars must have the very types of the signature, an array that is not contiguous must
    come with its strides, and no array that is written may be one that is read.
    """
    run, declared = compiled(code, name), parameters(code, name)

    def launch(grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
        assert len(arguments) == len(declared), f"{name} takes {len(declared)} arguments, found {len(arguments)}"
        scalars = [int(x) for x in arguments if isinstance(x, np.integer)]
        values, read, written = [], [], []
        for (kind, parameter), value in zip(declared, arguments, strict=True):
            if kind in KINDS:
                expected = {"int": np.int32, "long long": np.int64, "double": np.float64}[kind]
                assert type(value) is expected, f"{name}: {parameter} is {type(value)}, expected {expected}"
                values.append(value.item())
                continue
            array = None if value is None else host(value)
            values.append(None if array is None else array.ctypes.data)
            if array is None:
                continue
            (read if kind.startswith("const") else written).append(array)
            steps = [stride // array.itemsize for stride in array.strides]
            given = any(scalars[i : i + array.ndim] == steps for i in range(len(scalars)))
            assert array.flags.c_contiguous or given, f"{name}: {parameter} has strides that the kernel does not know"
        for array in written:
            assert not any(np.may_share_memory(array, other) for other in read), f"{name} writes what it reads"
        run(grid[0], block[0], *values)

    return launch
