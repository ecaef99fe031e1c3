"""What every test can count on: seeds, loud arithmetic, the device as a parameter, real data where it is, and a count.

    rng          np.random.Generator with a fixed seed
    device       "cpu", then "gpu": one body for both; the second skips with its reason where no GPU works
    quick        training without its report, whose pictures take longer than a small run
    undrawn      a grey picture in the place of each figure of matplotlib, for pages whose pictures are not looked at
    fake_gpu     tests/fake_device.py in the place of CuPy: "gpu" then means the strict fake
    fused_gpu    the same, with the kernels of kernels/fused.py compiled for the CPU, or a skip without a compiler
    torch        PyTorch, or a skip; marks the test `oracle`
    sklearn      scikit-learn, or a skip; marks the test `notebooks`
    onnxruntime, h5py, scipy_io   the package, or a skip; marks the test `interop`
    cupy         CuPy itself, which compiles without a GPU, or a skip; marks the test `cupy`
    mpiexec      the launcher of MPI, beside mpi4py, or a skip; marks the test `mpi`
    once         once("name", make) is a folder that `make(folder)` filled, for all workers by one of them; only read it
    chromium     Chromium without a window and a network (browser.py), or a skip; marks the test `browser`
    data_root    the folder MINIFCN_DATA names, or a skip; marks the test `data`

With MINIFCN_TEST_GROUPS=FILE the run leaves there, per marker, how many tests ran and why others did not; .ci/run reads
it (ci_groups.py), so that a group whose package is installed cannot skip itself into silence.
"""

import contextlib
import fcntl
import gc
import importlib
import json
import os
import pathlib
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:  # one process per core: BLAS, which reads these when NumPy is loaded, takes one
    for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

import numpy as np
import pytest
from ci_groups import GROUPS, launcher

from minifcn.training.device import diagnose_gpu


@pytest.fixture(autouse=True)
def _seeded_and_loud() -> Iterator[None]:
    """The same numbers every time, and no infinity or NaN unasked for. Underflow is how an exponential ends."""
    random.seed(0)
    np.random.seed(0)
    with np.errstate(over="raise", divide="raise", invalid="raise", under="ignore"):
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def gpu_reason() -> str:
    """Why the GPU cannot be used; "" where it can."""
    usable, reason, _ = diagnose_gpu()
    return "" if usable else reason


@pytest.fixture(params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "gpu" and (reason := request.getfixturevalue("gpu_reason")):
        pytest.skip(f"no GPU: {reason}")
    return request.param


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training without its report, whose pictures take longer than a small run."""
    from minifcn.training import results

    monkeypatch.setattr(results, "write_report", lambda folder, **_: folder / "report.html")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grey picture in the place of each figure, which is made and not drawn."""
    from minifcn.viz import panels, plots

    grey = panels.png(np.full((60, 80, 3), 128, np.uint8) + np.arange(80, dtype=np.uint8)[:, None])
    for module in (plots, sys.modules.get("minifcn.experiments.reproduction.figures")):
        if module:
            monkeypatch.setattr(module, "figure_png", lambda figure, **_: grey)


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    from fake_device import fake_cupy

    module = fake_cupy()
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.fixture(scope="session")
def cupy() -> Any:
    return pytest.importorskip("cupy", reason="CuPy, which needs no GPU to compile, is not installed")


@pytest.fixture
def fused_gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    from cuda_on_host import COMPILER
    from fake_device import fake_cupy

    if not COMPILER:
        pytest.skip("no C++ compiler is installed: the kernels in CUDA C cannot be run on the CPU")
    module = fake_cupy(kernels=True)
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.fixture(scope="session")
def torch() -> Any:
    return pytest.importorskip("torch", reason="the oracle, PyTorch, is not installed")


@pytest.fixture(scope="session")
def sklearn() -> Any:
    return pytest.importorskip("sklearn", reason="scikit-learn, which carries the digits, is not installed")


@pytest.fixture(scope="session")
def onnxruntime() -> Any:
    pytest.importorskip("onnx", reason="onnx, which writes the graphs, is not installed")
    return pytest.importorskip("onnxruntime", reason="onnxruntime, which runs the graphs, is not installed")


@pytest.fixture(scope="session")
def h5py() -> Any:
    return pytest.importorskip("h5py", reason="h5py, which reads Keras' files, is not installed")


@pytest.fixture(scope="session")
def scipy_io() -> Any:
    return pytest.importorskip("scipy.io", reason="scipy, which reads MATLAB's files, is not installed")


@pytest.fixture(scope="session")
def mpiexec() -> str:
    pytest.importorskip("mpi4py", reason="mpi4py, which connects ranks, is not installed")
    found = launcher()
    if not found:
        pytest.skip("mpiexec, which starts ranks, is not installed")
    return found


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[pathlib.Path], object]], pathlib.Path]:
    """What takes long to make is made by the first worker that asks for it; the others wait."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name: str, make: Callable[[pathlib.Path], object]) -> pathlib.Path:
        folder, whole = base / name, base / f"{name}-is-whole"
        with open(base / f"{name}-lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not whole.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
                folder.mkdir()
                make(folder)
                whole.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    from browser import Chromium, found

    if not found():
        pytest.skip("Chromium is not installed: no page can be opened")
    with Chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def data_root() -> pathlib.Path:
    folder = os.environ.get("MINIFCN_DATA")
    if not folder:
        pytest.skip("MINIFCN_DATA is not set: no real images here")
    if not pathlib.Path(folder).is_dir():
        pytest.fail(f"MINIFCN_DATA names {folder!r}, which is no folder")
    return pathlib.Path(folder)


def pytest_sessionstart(session: pytest.Session) -> None:
    """To rewrite the assertions of all files takes seconds: each worker does its share first, and finds the rest done.

    A file that cannot be imported is left to the collection, which says why.
    """
    tests, worker = pathlib.Path(__file__).parent, getattr(session.config, "workerinput", None)
    if not worker or sys.dont_write_bytecode or [pathlib.Path(arg).resolve() for arg in session.config.args] != [tests]:
        return
    for path in sorted(tests.rglob("test_*.py"))[int(worker["workerid"][2:]) :: worker["workercount"]]:
        sys.path.insert(0, str(path.parent))
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(path.stem)


def pytest_collection_finish() -> None:
    """Thousands of collected tests live until the end: the garbage collector need not look at them again and again."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that asks for `torch`, `sklearn`, `data_root` and the like belongs to that group without saying so."""
    for item in items:
        if any(not mark.args for mark in item.iter_markers("slow")):
            raise pytest.UsageError(f"{item.nodeid} is marked slow without a reason; expected @pytest.mark.slow('why')")
        names = getattr(item, "fixturenames", ())
        if "torch" in names:
            item.add_marker(pytest.mark.oracle)
        if "sklearn" in names:
            item.add_marker(pytest.mark.notebooks)
        if {"onnxruntime", "h5py", "scipy_io"} & set(names):
            item.add_marker(pytest.mark.interop)
        if "cupy" in names:
            item.add_marker(pytest.mark.cupy)
        if "mpiexec" in names:
            item.add_marker(pytest.mark.mpi)
        if "site" in names:
            item.add_marker(pytest.mark.docs)
        if "chromium" in names:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.slow("opens pages in Chromium"))
        if "data_root" in names:
            item.add_marker(pytest.mark.data)
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    """The longest first, so that no worker waits for one at the end; then what shares a browser, which one starts."""
    slow = item.get_closest_marker("slow")
    if item.get_closest_marker("tutorials") or (slow and slow.kwargs.get("first")):
        return 0
    return 1 if item.get_closest_marker("browser") else 2


class _Count:
    """Per group: how many tests ran, and the reasons of those that did not."""

    def __init__(self, path: str) -> None:
        self.path = pathlib.Path(path)
        self.groups: dict[str, dict[str, Any]] = {group: {"ran": 0, "skipped": {}} for group in GROUPS}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for group in GROUPS:
            if group not in report.keywords:
                continue
            if report.skipped:
                reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
                skipped = self.groups[group]["skipped"]
                skipped[reason] = skipped.get(reason, 0) + 1
            elif report.when == "call":
                self.groups[group]["ran"] += 1

    def pytest_sessionfinish(self) -> None:
        self.path.write_text(json.dumps(self.groups, indent=2) + "\n", encoding="utf-8")


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a script that starts us with `&` makes us deaf to Ctrl-C,
        signal.signal(signal.SIGINT, signal.default_int_handler)  # and our children with us
    path = os.environ.get("MINIFCN_TEST_GROUPS")
    if path and not hasattr(config, "workerinput"):  # under xdist only the controller sees every report
        config.pluginmanager.register(_Count(path), "minifcn-count")
