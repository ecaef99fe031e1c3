"""Runs that are the same on one rank and on several, and runs that fail on one of several.

mpiexec -n 2 python ranks_cases.py same FOLDER     every case of CASES, each in a folder of its own
mpiexec -n 2 python ranks_cases.py gpu FOLDER WAY  one case with the strict fake device, one card for each rank
mpiexec -n 2 python ranks_cases.py FAULT ARGUMENTS...  `minifcn train` with a fault (FAULTS) planted in its third step
"""

import ctypes
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from minifcn.cli.command import guard
from minifcn.cli.train import main
from minifcn.data.prefetch import Prefetch
from minifcn.data.sample import VOID
from minifcn.errors import DataError
from minifcn.formats import checkpoint
from minifcn.kernels.threads import set_threads
from minifcn.metrics import ConfusionMatrix
from minifcn.training import results, setup
from minifcn.training.divergence import unheard
from minifcn.training.loader import Batch
from minifcn.training.loop import Trainer
from minifcn.training.options import Options
from minifcn.training.ranks import ALONE, Alone, together
from minifcn.training.run_folder import load_latest, run_folder
from minifcn.training.signals import Interrupted

TINY: dict[str, Any] = {"width": 1, "lr": 0.02, "max_train": 8, "max_val": 5, "epochs": 1, "samples": 0, "threads": 1}
# Everything that draws a random number, weighs a pixel, or changes a size.
RICH = TINY | {
    "dropout": 0.5, "translate": 5, "scale_min": 0.6, "scale_max": 1.2, "class_balance": 0.5, "sampling": 0.5,
}  # fmt: skip
WHOLE = RICH | {"batch": 2, "accumulate": 2}
PART = RICH | {"batch": 4, "max_train": 5}  # the last step has one image
CACHED = TINY | {"cache_features": "features", "freeze": "block1,block2", "epochs": 3}
ADAM = {"optimizer": "adam", "lr": 0.001}
# By name: how many ranks, whether they compute in float64, the options, and whether the run is stopped and resumed.
CASES: dict[str, tuple[tuple[int, ...], bool, dict[str, Any], bool]] = {
    "whole sgd float32": ((2,), False, WHOLE, False),
    "whole adam float32": ((2,), False, WHOLE | ADAM, False),
    "whole sgd float64": ((2,), True, WHOLE, False),
    "whole adam float64": ((2,), True, WHOLE | ADAM, False),
    "whole stopped": ((2,), False, WHOLE, True),
    "whole two stages": ((2,), False, WHOLE | {"stages": "16,8", "max_train": 4}, False),
    "whole average": ((2,), False, WHOLE | {"ema": 0.9}, True),
    "whole dice": ((2,), False, WHOLE | {"loss": "cross_entropy+dice", "sampling": "balanced:0.5"}, False),
    "part focal": ((2,), True, PART | {"loss": "focal"}, False),
    "part hardest": ((2,), True, PART | {"hardest": 0.3, "heads": "label+geometry"}, False),
    "part valid": ((2, 3), True, PART, False),
    "part sum": ((2,), True, PART | {"normalize": "none", "lr": 1e-6}, False),
    "part batch": ((2,), True, PART | {"normalize": "batch_size", "lr": 1e-6}, False),
    "part adam": ((2,), True, PART | ADAM, False),
    "part two heads": ((2, 3), True, PART | {"heads": "label+geometry"}, False),
    "part late fusion": ((2,), True, PART | {"inputs": "rgb+depth"}, False),
    "part of more batches": ((3,), True, WHOLE | {"max_train": 7}, False),
    "part frozen": ((2,), True, PART | {"freeze": "block1,block2"}, False),
    "whole cached": ((2,), False, CACHED | {"batch": 2, "accumulate": 2}, True),
    "part cached": ((2, 3), True, CACHED | {"batch": 4, "max_train": 5}, False),
}


class Exact(Trainer):
    """A run in float64, which measures nothing: images are float32."""

    def _begin_stage(self, coarser: Any) -> None:
        super()._begin_stage(coarser)
        self.net.astype(np.float64)

    def _scores(self, batch: Batch) -> Any:
        return super()._scores(batch._replace(inputs=[x.astype(np.float64) for x in batch.inputs]))

    def _evaluated(self) -> tuple[ConfusionMatrix, None]:
        return ConfusionMatrix(len(self.classes), VOID), None


def run_case(name: str, folder: Path, ranks: Alone = ALONE, *, device: str = "cpu") -> None:
    """Run a case in `folder`."""
    _, exact, options, stopped = CASES[name]
    if "cache_features" in options:
        options = options | {"cache_features": str(folder / "features")}
    o = Options(**options | ({"stop_after": 1} if stopped else {}))
    kind = Exact if exact else Trainer
    try:
        with (one := kind(o, run_folder(folder, ranks), *setup.data_sets(o), device=device, ranks=ranks)).folder:
            one.run()
    except Interrupted:
        o = Options(**options)
        with (one := kind(o, run_folder(folder, ranks, create=False), *setup.data_sets(o), ranks=ranks)).folder:
            found = load_latest(folder)
            assert found is not None
            one.restore(found)
            one.run()


def run_cases(folder: Path) -> None:
    set_threads(1)
    results.write_report = lambda path: path  # type: ignore[assignment]  its pictures take longer than these runs
    with together() as ranks:
        for name in CASES:
            if ranks.size in CASES[name][0]:
                run_case(name, folder / name, ranks)


class FakeNCCL:
    """As much of `cupy.cuda.nccl` as ranks use, between the processes of MPI; addresses are those of main memory."""

    NCCL_FLOAT32, NCCL_FLOAT64, NCCL_SUM = 7, 8, 0
    sums = 0

    def __init__(self, way: str) -> None:
        self.available, self.way = way != "no nccl", way

    def get_unique_id(self) -> tuple[int, ...]:
        return tuple(range(-64, 64))

    def NcclCommunicator(self, ndev: int, commId: tuple[int, ...], rank: int) -> Any:
        if self.way == "broken":
            raise RuntimeError("unhandled system error")
        assert type(commId) is tuple and commId == tuple(range(-64, 64)) and 0 <= rank < ndev == 2
        return self

    def allReduce(self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, stream: int) -> None:
        from mpi4py import MPI

        assert sendbuf == recvbuf and datatype == self.NCCL_FLOAT32 and op == self.NCCL_SUM and stream == 5
        numbers = np.ctypeslib.as_array((ctypes.c_float * count).from_address(recvbuf))
        MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, numbers)
        self.sums += 1


def run_on_fake_cards(folder: Path, way: str) -> None:
    """Run a case with the strict fake device on each rank."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from fake_device import fake_cupy

    cupy, nccl = fake_cupy(), FakeNCCL(way)
    sys.modules["cupy"], sys.modules["cupy.cuda"] = cupy, cupy.cuda
    stream = SimpleNamespace(ptr=5, synchronize=lambda: None)
    cupy.cuda.nccl, cupy.cuda.get_current_stream = nccl, lambda: stream
    cupy.cuda.Device = lambda number: SimpleNamespace(use=lambda: None)
    cupy.cuda.runtime.getDeviceCount = lambda: 2
    cupy.cuda.runtime.deviceGetPCIBusId = lambda number: f"0000:0{number}:00.0"
    set_threads(1)
    results.write_report = lambda path: path  # type: ignore[assignment]
    with together() as ranks:
        print(ranks.choose_card("gpu"))
        run_case("whole sgd float32", folder, ranks, device="gpu")
        print(nccl.sums)


def _full(*_: Any) -> None:
    raise OSError(28, "No space left on device")


class Faulty(Trainer):
    """A run in which something happens in the third step, to rank 1 or (a full disk) to the rank that writes."""

    fault = ""

    def _one_step(self) -> None:
        if self.progress.step == 2 and self.ranks.rank == 1:
            weights = self.net.trunk.block3.conv3_1.w.data  # type: ignore[union-attr]
            match self.fault:
                case "nan":
                    self.loader._prefetch = Prefetch(self._poisoned, workers=0)
                case "drift":
                    weights[0] += 1e-6
                case "exit":
                    sys.exit(0)
                case "vanish":
                    os._exit(0)
                case "stop":
                    os.kill(os.getpid(), signal.SIGSTOP)
                case "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "interrupt":
                    os.kill(os.getpid(), signal.SIGINT)
                case "terminate":
                    os.kill(os.getpid(), signal.SIGTERM)
                case "data" | "bug" | "memory":
                    self.loader._prefetch = Prefetch(self._broken, workers=0)
        if self.fault == "disk" and self.progress.step == 2:
            checkpoint.os.fsync = _full  # type: ignore[attr-defined]  of rank 0, which alone writes
        super()._one_step()

    def _broken(self, place: tuple[int, int]) -> Any:
        raise {"data": DataError("a.png: is cut short"), "bug": ZeroDivisionError("x"), "memory": MemoryError()}[
            self.fault
        ]

    def _poisoned(self, place: tuple[int, int]) -> Any:
        self.net.score_fr.b.data[:] = np.nan  # type: ignore[union-attr]
        return self.loader._load(place)


FAULTS = "nan drift exit vanish stop kill interrupt terminate data bug memory disk".split()

if __name__ == "__main__":
    if sys.argv[1] == "same":
        with unheard():
            run_cases(Path(sys.argv[2]))
    elif sys.argv[1] == "gpu":
        with unheard():
            run_on_fake_cards(Path(sys.argv[2]), sys.argv[3])
    else:
        from minifcn.cli import train

        Faulty.fault = sys.argv[1]
        train.Trainer = Faulty  # type: ignore[misc]
        sys.exit(guard(main, sys.argv[2:]))
