"""A GPU made of NumPy, stricter than any real one, so that the GPU path is honest on machines that have none.

`fake_cupy()` is a module to put into `sys.modules["cupy"]`. Its arrays compute what NumPy computes, but refuse whatever
CuPy refuses, does differently without a word, or answers only after waiting for the device:

    mixing with a NumPy array, a NumPy scalar or a list     CuPy: TypeError (arrays, lists); promotion (scalars)
    float(x), bool(x), int(x), iterating, np.asarray(x)      CuPy: waits, or TypeError
    an integer index out of range                            CuPy: wraps around; here IndexError
    a[i] = v or a[i] += v where i repeats                    CuPy: undefined; here an error
    a negative float cast to an unsigned integer             CuPy: another number than NumPy; here an error
    a function, method or attribute that CuPy does not have  here AttributeError, by the list in cupy_names.txt
    random numbers                                           here AttributeError: they are drawn on the host

Beyond that it counts the transfers in both directions (`module.uploads`, `module.downloads`), notes how each function
was called (`module.calls`), and inside
`with module.no_float64():` it refuses to make an array of float64 (or complex128).
"""

import contextlib
import pathlib
import time
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
from cuda_on_host import raw_kernel

CUPY_NAMES = frozenset(
    line
    for line in pathlib.Path(__file__).with_name("cupy_names.txt").read_text(encoding="ascii").splitlines()
    if not line.startswith("#")
)
FOLDERS = frozenset(name[:i] for name in CUPY_NAMES for i, letter in enumerate(name) if letter == ".")
UPLOADS = ("array", "asarray", "ascontiguousarray", "asfortranarray")
SEQUENCES = ("concatenate", "stack", "hstack", "vstack", "dstack", "broadcast_arrays", "einsum", "ix_", "block")
PLAIN = (bool, int, float, complex)


def _asked(kind: type) -> Any:
    """`bool(x)` and the like, which CuPy answers for one number, but only after waiting for the device."""

    def ask(self: "DeviceArray") -> Any:
        if not self._module._waits:
            self._wait()
        return kind(self.item())

    return ask


class DeviceArray:
    """Stands for `cupy.ndarray`. `_host` is the NumPy array behind it; nothing outside this file may touch it."""

    __slots__ = ("__weakref__", "_host", "_module")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host: np.ndarray, module: "FakeCupy") -> None:
        if module._float64_forbidden and host.dtype in (np.float64, np.complex128):
            raise AssertionError(f"a {host.dtype} array of shape {host.shape} where only float32 was expected")
        module._pool.take(host.nbytes)
        self._host, self._module = host, module

    def __deepcopy__(self, memo: dict) -> "DeviceArray":
        return DeviceArray(self._host.copy(), self._module)  # CuPy's has one, too: surgery copies nets where they are

    # What CuPy refuses, or answers only after waiting for the device.

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed: use to_host")

    def __array_ufunc__(self, ufunc: Any, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"numpy.{ufunc.__name__} was called on a device array, or a NumPy array was mixed with one")

    def __array_function__(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} was called on a device array: call xp_of(x).{function.__name__}")

    def _wait(self, *args: Any) -> Any:
        raise TypeError("this asks a device array for its value and would wait for the device: use to_host first")

    __complex__ = __index__ = __iter__ = __contains__ = _wait
    __float__, __int__, __bool__ = _asked(float), _asked(int), _asked(bool)

    # What it knows about itself without looking at its values.

    def __len__(self) -> int:
        return len(self._host)

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype})"

    shape = property(lambda self: self._host.shape)  # what __getattr__ would find, by a shorter way
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or f"ndarray.{name}" not in CUPY_NAMES:
            raise AttributeError(f"cupy.ndarray has no attribute {name!r}")
        found = getattr(self._host, name)
        return self._module._wrap_call(found, f"ndarray.{name}") if callable(found) else self._module._wrap(found)

    @property
    def data(self) -> types.SimpleNamespace:
        return types.SimpleNamespace(ptr=self._host.ctypes.data)  # for NCCL, which takes addresses

    # Values: in and out by these two alone.

    def get(self) -> np.ndarray:
        self._module.downloads += 1
        return self._host.copy()

    def item(self, *index: int) -> Any:
        self._module.downloads += 1
        return self._host.item(*index)

    def tolist(self) -> Any:
        self._module.downloads += 1
        return self._host.tolist()

    def astype(self, dtype: Any, **kwargs: Any) -> "DeviceArray":
        if np.dtype(dtype).kind == "u" and self._host.dtype.kind == "f" and (self._host < 0).any():
            raise TypeError(f"a negative float as {np.dtype(dtype)} is another number on a GPU: cast on the host")
        kwargs.pop("copy", None)
        return self._module._wrap(self._host.astype(dtype, **kwargs))

    # Indexing.

    def __getitem__(self, index: Any) -> "DeviceArray":
        return self._module._wrap(self._host[self._index(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        index = self._index(index)
        if any(isinstance(part, np.ndarray) and part.dtype.kind in "iu" for part in _parts(index)):
            places = np.arange(self._host.size).reshape(self._host.shape)[index]
            if np.unique(places).size < places.size:
                raise IndexError("a[i] = v with a repeated index is undefined on a GPU: use xp.add.at or bincount")
        self._host[index] = self._module._operand(value)

    def _index(self, index: Any) -> Any:
        return tuple([_one(part) for part in index]) if isinstance(index, tuple) else _one(index)


def _one(part: Any) -> Any:
    if type(part) in (slice, int) or part is None or part is Ellipsis:
        return part
    if isinstance(part, DeviceArray):
        return part._host
    raise TypeError(f"a device array cannot be indexed with a {type(part).__module__}.{type(part).__name__}")


def _parts(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _binary(name: str) -> Any:
    function = getattr(np.ndarray, name)

    def operator(self: DeviceArray, other: Any) -> Any:
        return self._module._wrap(function(self._host, self._module._operand(other)))

    return operator


def _in_place(name: str) -> Any:
    function = getattr(np.ndarray, name)

    def operator(self: DeviceArray, other: Any) -> DeviceArray:
        function(self._host, self._module._operand(other))
        return self

    return operator


def _unary(name: str) -> Any:
    function = getattr(np.ndarray, name)
    return lambda self: self._module._wrap(function(self._host))


for _name in "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift".split():
    setattr(DeviceArray, f"__{_name}__", _binary(f"__{_name}__"))
    setattr(DeviceArray, f"__r{_name}__", _binary(f"__r{_name}__"))
    setattr(DeviceArray, f"__i{_name}__", _in_place(f"__i{_name}__"))
for _name in "lt le eq ne gt ge".split():
    setattr(DeviceArray, f"__{_name}__", _binary(f"__{_name}__"))
for _name in "neg pos abs invert".split():
    setattr(DeviceArray, f"__{_name}__", _unary(f"__{_name}__"))


class _Ufunc:
    """`xp.add(a, b)`, and `xp.add.at(a, i, v)`, the one way to scatter into repeated places."""

    def __init__(self, ufunc: np.ufunc, module: "FakeCupy") -> None:
        self._ufunc, self._module = ufunc, module
        self.__name__ = ufunc.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._module.calls.add((self.__name__, len(args), tuple(sorted(kwargs))))
        operands = [self._module._operand(value) for value in args]
        return self._module._wrap(self._ufunc(*operands, **self._module._options(kwargs)))

    def at(self, array: DeviceArray, index: Any, value: Any) -> None:
        self._ufunc.at(array._host, array._index(index), self._module._operand(value))

    def reduce(self, array: DeviceArray, **kwargs: Any) -> Any:
        return self._module._wrap(self._ufunc.reduce(array._host, **self._module._options(kwargs)))


class _Folder:
    """`cupy.linalg`, `cupy.lib.stride_tricks`: the same rules one level down."""

    def __init__(self, place: Any, path: str, module: "FakeCupy") -> None:
        self._place, self._path, self._module = place, path, module

    def __getattr__(self, name: str) -> Any:
        return self._module._lift(self._place, name, f"{self._path}.{name}")


class FakeCupy(types.ModuleType):
    """The module itself: NumPy's functions under CuPy's names, wrapped."""

    ndarray = DeviceArray

    def __init__(self, *, kernels: bool = False, waits: bool = False) -> None:
        super().__init__("cupy")
        self._waits = waits
        if kernels:
            self.RawKernel = self._raw_kernel
        self.__version__ = "0 (fake)"
        self.uploads = self.downloads = 0
        self.calls: set[tuple[str, int, tuple[str, ...]]] = set()  # each function with how it was called
        self._float64_forbidden = False
        self._pool = Pool()
        self.cuda = _fake_cuda()

    @contextlib.contextmanager
    def no_float64(self) -> Iterator[None]:
        """Inside, an array of float64 is an AssertionError where it is made."""
        self._float64_forbidden = True
        try:
            yield
        finally:
            self._float64_forbidden = False

    def _raw_kernel(self, code: str, name: str, options: tuple[str, ...] = ()) -> Any:
        return raw_kernel(code, name, lambda array: array._host)

    def get_default_memory_pool(self) -> "Pool":
        return self._pool

    def asnumpy(self, array: Any) -> np.ndarray:
        return array.get() if isinstance(array, DeviceArray) else np.asarray(array)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._lift(np, name, name)

    def _lift(self, place: Any, name: str, path: str) -> Any:
        if path.startswith("random"):
            raise AttributeError("random numbers are drawn on the host (minifcn.backend.rng) and carried across")
        if path not in CUPY_NAMES and path not in FOLDERS:
            raise AttributeError(f"cupy has no attribute {path!r}")
        found = getattr(place, name)
        if isinstance(found, types.ModuleType):
            return _Folder(found, path, self)
        if isinstance(found, np.ufunc):
            return _Ufunc(found, self)
        return self._wrap_call(found, path) if callable(found) and not isinstance(found, type) else found

    def _wrap_call(self, function: Any, path: str) -> Any:
        name = path.rsplit(".", 1)[-1]

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.add((path, len(args), tuple(sorted(kwargs))))
            if name in UPLOADS and args and not isinstance(args[0], DeviceArray):
                self.uploads += 1
                return self._wrap(np.array(args[0], *args[1:], **self._options(kwargs)))
            if args and isinstance(args[0], list) and name not in SEQUENCES and not path.startswith("ndarray."):
                raise TypeError(f"cupy.{path} takes device arrays, found a list")
            return self._wrap(function(*[self._argument(value) for value in args], **self._options(kwargs)))

        call.__name__ = name
        return call

    # One value on its way in or out.

    def _operand(self, value: Any) -> Any:
        """An operand of arithmetic: a device array or a Python number, nothing else."""
        if isinstance(value, DeviceArray):
            return value._host
        if type(value) in PLAIN:
            return value
        raise TypeError(f"Unsupported type {type(value).__module__}.{type(value).__name__} beside a device array")

    def _argument(self, value: Any) -> Any:
        """An argument of a function: shapes, axes and lists of device arrays are allowed besides."""
        if isinstance(value, list | tuple):
            return type(value)(self._argument(part) for part in value)
        if isinstance(value, np.ndarray | np.generic):
            raise TypeError(f"Unsupported type {type(value).__module__}.{type(value).__name__} beside a device array")
        return value._host if isinstance(value, DeviceArray) else value

    def _options(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        return {name: self._argument(value) for name, value in kwargs.items()}

    def _wrap(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return DeviceArray(value, self)
        if isinstance(value, np.generic):
            return DeviceArray(np.asarray(value), self)  # a reduction's result is an array of rank 0 and stays there
        if isinstance(value, tuple | list) and any(isinstance(part, np.ndarray) for part in value):
            return type(value)(self._wrap(part) for part in value)
        return value


class OutOfMemoryError(MemoryError):
    """CuPy's own, by its module."""

    __module__ = "cupy.cuda.memory"


class Pool:
    """CuPy's memory pool, as far as it is asked: no array may be larger than its limit."""

    def __init__(self) -> None:
        self.limit, self.largest = 0, 0

    def set_limit(self, size: int) -> None:
        self.limit = size

    def take(self, size: int) -> None:
        self.largest = max(self.largest, size)
        if 0 < self.limit < size:
            raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes (limit set to: {self.limit:,} bytes).")

    def used_bytes(self) -> int:
        return self.largest

    total_bytes = used_bytes

    def free_all_blocks(self) -> None:
        self.largest = 0


class Event:
    """CuPy's event: here the time at which it was recorded."""

    def record(self) -> None:
        self.seconds = time.perf_counter()

    def synchronize(self) -> None:
        pass


def _fake_cuda() -> types.SimpleNamespace:
    """As much of `cupy.cuda` as the probe in backend.py, and the benchmarks, ask for."""
    runtime = types.SimpleNamespace(
        driverGetVersion=lambda: 12090,
        runtimeGetVersion=lambda: 12090,
        getDeviceCount=lambda: 1,
        getDeviceProperties=lambda device: {"name": b"a GPU made of NumPy"},
    )
    elapsed = lambda start, stop: 1e3 * (stop.seconds - start.seconds)  # noqa: E731
    return types.SimpleNamespace(runtime=runtime, Event=Event, get_elapsed_time=elapsed)


def fake_cupy(*, kernels: bool = False, waits: bool = False) -> FakeCupy:
    """A fresh module; put it into `sys.modules["cupy"]` (the fixture `fake_gpu` does) and it is the GPU.

    With `kernels` it compiles CUDA C for the CPU (cuda_on_host.py), so that the fused kernels are used. With `waits`,
    an array of one number answers `bool(x)`, `float(x)` and `int(x)`, as CuPy's does: a notebook may wait for a device.
    """
    return FakeCupy(kernels=kernels, waits=waits)
