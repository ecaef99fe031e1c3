"""Train with several processes: each computes a share of every step, and their gradients are added up.

MPI's launcher starts them (`mpiexec -n 4 minifcn train`) and numbers them: rank 0, 1, 2 ... All ranks hold the same
net, draw the same order of images and take the same step; they differ in the images they compute. The loss is a sum
over pixels, so the gradient of a batch is the sum of the gradients of its parts.

Rank 0 alone prints and writes, and sends the result, or the error, to the others. Messages between ranks are JSON.
Without a launcher, nothing of MPI is imported, and `Alone` takes the place of `Ranks`.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import platform
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from minifcn import errors
from minifcn.backend import Array, device_of, is_host, to_device, to_host, xp_of
from minifcn.errors import DeviceError, DivergedError, MinifcnError, UsageError
from minifcn.kernels.threads import cores
from minifcn.nn import Module
from minifcn.tensor import Parameter
from minifcn.training.progress import silent

T = TypeVar("T")

# What launchers say to each process: how many there are, and which one it is. Slurm's own come last: `mpiexec` under
# Slurm is itself started by `srun`, once for each machine.
LAUNCHERS = (
    ("PMI_SIZE", "PMI_RANK"),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("PMIX_SIZE", "PMIX_RANK"),
    ("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
)
BUCKET = 4 << 20  # bytes of gradients that are added up at a time
GRACE = 3.0  # seconds in which the other ranks should hear why one of them ends
ENDED = SystemExit.__name__
TIMEOUT = "MINIFCN_RANK_TIMEOUT"  # seconds to wait for the other ranks before they are given up
NCCL = "MINIFCN_NCCL"  # "0": gradients go from GPU to GPU through main memory, and not by NCCL
PATIENCE = 1800.0  # the same without that variable: rank 0 may take minutes to draw and save while the others wait
SHARED = Path("/dev/shm")  # noqa: S108  the memory that processes of Linux share
ROOM = 1.1e6  # bytes of it that MPICH takes for each rank of a machine


class LostError(MinifcnError):
    """Another rank ended, or does not answer."""

    exit_code = 1


class Alone:
    """One rank of one: every share is the whole, and there is nothing to add up."""

    rank, size = 0, 1
    place = 0  # of this rank among those of its machine

    @property
    def first(self) -> bool:
        """Whether this rank prints and writes."""
        return self.rank == 0

    def threads(self, wish: int) -> int:
        """Return how many threads this rank may use: `wish` (0: all that it can have)."""
        return wish or cores()

    def choose_card(self, device: str) -> str:
        """Take a GPU of this rank's own, and return how gradients are then added up; "" without GPUs or other ranks."""
        return ""

    def share(self, count: int, *, multiple: int = 1) -> slice:
        """Return which of `count` things in order are this rank's; shares begin at multiples of `multiple`."""
        groups = -(-count // multiple)
        first, stop = (groups * part // self.size * multiple for part in (self.rank, self.rank + 1))
        return slice(min(first, count), min(stop, count))

    def gather(self, facts: Any) -> list[Any]:
        """Return the facts of every rank, in order, on every rank; facts are what JSON can hold."""
        return [facts]

    def once(self, task: Callable[[], T]) -> T:
        """Return what `task` returns on rank 0, or raise what it raises there, on every rank."""
        return task()

    def add_gradients(self, parameters: Sequence[Parameter]) -> None:
        """Give these parameters the sum of the gradients of all ranks, on every rank."""

    def check_alike(self, net: Module) -> None:
        """Raise `DivergedError` where the ranks do not hold the same parameters."""


ALONE = Alone()


class Ranks(Alone):
    """The ranks of an MPI communicator.

    A rank waits for the others by asking again and again, so that it hears signals and can give up: when a rank of
    this machine has ended, and after PATIENCE seconds.
    """

    _nccl: Any = None

    def __init__(self, comm: Any, mpi: Any, patience: float = PATIENCE) -> None:
        self._mpi, self._gradients, self._messages = mpi, comm.Dup(), comm.Dup()
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self._shared: BaseException | None = None  # the last exception that all ranks know
        self._patience = patience
        self._processes: list[tuple[str, int]] = []
        mine = [platform.node(), os.getpid(), sorted(_affinity())]
        found = self.gather(mine)
        self._processes = [(node, process) for node, process, _ in found]
        here = [rank for rank, (node, *_) in enumerate(found) if node == mine[0]]
        self.neighbours, self.place = len(here), here.index(self.rank)
        self.cores = len({core for rank in here for core in found[rank][2]})

    # ----------------------------------------------------------------------------------------------- its own machine

    def threads(self, wish: int) -> int:
        """Return `wish` (0: all), but no more than this rank's part of the cores of its machine."""
        most = max(1, min(len(_affinity()), self.cores // self.neighbours))
        return min(wish or most, most)

    def choose_card(self, device: str) -> str:
        """Take the first GPU that no rank before this one takes; a launcher may show each rank all of them, or its own.

        `UsageError`, on every rank, if there are too few, or if only some ranks use a GPU.
        """
        found, taken, numbers = self.gather([platform.node(), device, _cards(device)]), set(), []
        if odd := [rank for rank, (_, other, _) in enumerate(found) if other != found[0][1]]:
            raise UsageError(
                f"rank 0 uses the {found[0][1]} and rank {odd[0]} the {found[odd[0]][1]}; expected one device for all "
                "ranks: choose `device=cpu` or `device=gpu`"
            )
        if device == "cpu":
            return ""
        for node, _, cards in found:
            free = [number for number, card in enumerate(cards) if (node, card) not in taken]
            if not free:
                ranks = sum(other == node for other, *_ in found)
                raise UsageError(
                    f"{ranks} ranks on {node} found {len(cards)} GPUs; expected one for each rank: start fewer ranks, "
                    "or choose `device=cpu`"
                )
            taken.add((node, cards[free[0]]))
            numbers.append(free[0])
        import cupy

        cupy.cuda.Device(numbers[self.rank]).use()
        self._nccl = self._join_nccl()
        return f"gradients are added up {'by NCCL' if self._nccl else 'in main memory'}"

    def _join_nccl(self) -> Any:
        """Return NCCL's communicator of all ranks; None if a rank's CuPy comes without NCCL, or MINIFCN_NCCL is 0."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CuPy's own, where the library is missing
            try:
                from cupy.cuda import nccl
            except ImportError:
                nccl = None
        if not all(self.gather(bool(getattr(nccl, "available", False)) and os.environ.get(NCCL) != "0")):
            return None
        try:
            name = self.once(lambda: list(nccl.get_unique_id()))
            with self._watched():
                return nccl.NcclCommunicator(self.size, tuple(name), self.rank)
        except RuntimeError as fault:
            raise DeviceError(
                f"NCCL cannot connect the GPUs of {self.size} ranks: {fault}; {NCCL}=0 adds up their gradients in main "
                "memory"
            ) from fault

    # ------------------------------------------------------------------------------------------------------- messages

    def gather(self, facts: Any) -> list[Any]:
        found = self._exchange({"facts": facts}, self._patience)
        for rank, said in enumerate(found):
            if "facts" not in said:
                self._shared = rebuilt(said, rank)
                raise self._shared
        return [said["facts"] for said in found]

    def once(self, task: Callable[[], T]) -> T:
        found: Any = None
        if self.first:
            try:
                found = task()
            except Exception as fault:
                self._shared = fault
                self._exchange(described(fault), self._patience)
                raise
        return self.gather(found)[0]

    def _exchange(self, message: dict[str, Any], patience: float) -> list[dict[str, Any]]:
        """Return the messages of all ranks."""
        data = np.frombuffer(json.dumps(message).encode(), np.uint8)
        sizes = np.empty(self.size, np.int64)
        self._wait(self._messages.Iallgather(np.array([data.size], np.int64), sizes), patience)
        found = np.empty(sizes.sum(), np.uint8)
        counts = [int(size) for size in sizes]
        self._wait(self._messages.Iallgatherv(data, [found, counts, self._mpi.BYTE]), patience)
        return [json.loads(part.tobytes()) for part in np.split(found, np.cumsum(sizes)[:-1])]

    def _wait(self, request: Any, patience: float) -> None:
        began, looked = time.monotonic(), 0.0
        while not request.Test():
            waited = time.monotonic() - began
            if waited > patience:
                raise LostError(self._silence(patience))
            if waited - looked > 0.5:
                looked = waited
                if gone := self._in_state("", "Z", "X"):
                    raise LostError(f"{gone} ended without a word; the last checkpoint is intact")
            time.sleep(min(waited / 20, 0.01))  # 0 at first, which lets another process run

    def _silence(self, patience: float) -> str:
        who = self._in_state("T", "t")
        why = f"{who} is stopped" if who else "one of them is stopped, or its machine is gone"
        return (
            f"rank {self.rank} of {self.size} waited {patience:g} s for the other ranks: {why}; the last checkpoint is "
            f"intact ({TIMEOUT} says how many seconds to wait)"
        )

    def _in_state(self, *states: str) -> str:
        """Return the ranks of this machine whose process is in one of these states of Linux, "" for ended."""
        node = platform.node()
        there = Path("/proc/self/stat").exists()
        known = [(rank, process) for rank, (host, process) in enumerate(self._processes) if host == node]
        found = [f"rank {rank}" for rank, process in known if there and _state(process) in states]
        return " and ".join(found)

    # ------------------------------------------------------------------------------------------------------ gradients

    def add_gradients(self, parameters: Sequence[Parameter]) -> None:
        """Add them in buckets, in one order on every rank; a rank without a gradient adds zeros."""
        with self._watched():
            for bucket in buckets(parameters):
                gradients = [_flat_gradient(parameter) for parameter in bucket]
                xp, edges = xp_of(*gradients), np.cumsum([parameter.size for parameter in bucket])[:-1].tolist()
                total = self._added(xp.concatenate(gradients))
                for parameter, part in zip(bucket, xp.split(total, edges), strict=True):
                    parameter.leaf.grad = part.reshape(parameter.shape)

    def _added(self, flat: Array) -> Array:
        """Return the sum of this array over all ranks, where the array is; it may be overwritten."""
        if self._nccl and not is_host(flat):
            from cupy.cuda import get_current_stream, nccl

            kind = {4: nccl.NCCL_FLOAT32, 8: nccl.NCCL_FLOAT64}[flat.itemsize]
            place, stream = flat.data.ptr, get_current_stream()
            self._nccl.allReduce(place, place, flat.size, kind, nccl.NCCL_SUM, stream.ptr)
            stream.synchronize()  # a rank that does not come is missed here, where that is watched
            return flat
        total = to_host(flat)
        step = max(1, BUCKET // total.itemsize)
        for first in range(0, total.size, step):
            self._gradients.Allreduce(self._mpi.IN_PLACE, total[first : first + step])
        return to_device(total, device_of(flat))

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Inside, end this process if it waits too long where it cannot ask again."""
        watch = threading.Timer(self._patience, self._give_up)
        watch.daemon = True
        watch.start()
        try:
            yield
        finally:
            watch.cancel()

    def _give_up(self) -> None:
        """End this process, which MPI keeps waiting; its launcher then ends the others."""
        os.write(2, f"minifcn: {self._silence(self._patience)}\n".encode())
        os._exit(LostError.exit_code)

    def check_alike(self, net: Module) -> None:
        digest = 0
        for parameter in net.parameters():
            digest = zlib.crc32(np.ascontiguousarray(to_host(parameter.data)).data, digest)
        found = self.gather(digest)
        odd = [str(rank) for rank, each in enumerate(found) if each != found[0]]
        if odd:
            raise DivergedError(
                f"the parameters of rank {', '.join(odd)} are no longer those of rank 0; the last checkpoint is "
                "intact: resume the run from it"
            )

    # -------------------------------------------------------------------------------------------------------- the end

    def agree_on_end(self, fault: BaseException | None) -> tuple[bool, BaseException | None]:
        """Say that this rank ends, by `fault` or (None) because all is done.

        Returns whether the others have heard, and what the run ends by: what another rank says, if this one has no
        reason of its own, and a `LostError` if the others go on.
        """
        if fault is not None and fault is self._shared:
            return True, fault
        if isinstance(fault, LostError):
            return False, fault
        try:
            found = self._exchange(described(fault or SystemExit()), GRACE if fault else self._patience)
        except LostError as silence:
            return False, fault or silence
        others = [(said, rank) for rank, said in enumerate(found) if said.get("kind") != ENDED]
        if others and (fault is None or isinstance(fault, SystemExit)):
            said, rank = others[0]
            early = LostError(f"rank {self.rank} left the run early; the last checkpoint is intact")
            self._shared = fault = rebuilt(said, rank) if "kind" in said else early
        return True, fault


def _affinity() -> set[int]:
    """Return the cores that this process may use, by number."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _state(process: int) -> str:
    """Return Linux's letter for the state of a process: "R" runs, "S" sleeps, "T" is stopped, "Z" ended; "" is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _cards(device: str) -> list[str]:
    """Return the places on their machine of the GPUs that this process sees, in CUDA's order; none if it uses none."""
    if device == "cpu":
        return []
    import cupy

    runtime = cupy.cuda.runtime
    return [str(runtime.deviceGetPCIBusId(number)) for number in range(runtime.getDeviceCount())]


def _flat_gradient(parameter: Parameter) -> Array:
    gradient, xp = parameter.leaf.grad, xp_of(parameter.data)
    return xp.zeros(parameter.size, dtype=parameter.dtype) if gradient is None else gradient.reshape(-1)


def buckets(parameters: Sequence[Parameter]) -> Iterator[list[Parameter]]:
    """Yield the parameters in groups of one dtype and at most BUCKET bytes; a larger parameter is a group by itself."""
    group: list[Parameter] = []
    for parameter in parameters:
        size = sum(each.data.nbytes for each in (*group, parameter))
        if group and (size > BUCKET or parameter.dtype != group[0].dtype):
            yield group
            group = []
        group.append(parameter)
    if group:
        yield group


# -------------------------------------------------------------------------------------------- an exception as a message


def described(fault: BaseException) -> dict[str, Any]:
    """Return an exception as JSON can hold it."""
    words: list[Any] = [str(fault)]
    if isinstance(fault, OSError):
        words = [fault.errno, fault.strerror, None if fault.filename is None else str(fault.filename)]
    return {"kind": type(fault).__name__, "words": words, "code": getattr(fault, "exit_code", None)}


def rebuilt(said: dict[str, Any], rank: int) -> BaseException:
    """Return the exception that another rank described, of the same kind if it is Python's or `minifcn.errors`'."""
    name, words = said["kind"], said["words"]
    if name == ENDED:
        return LostError(f"rank {rank} left the run early; the last checkpoint is intact")
    kind = getattr(errors, name, None) or getattr(builtins, name, None)
    if len(words) == 1 and rank:
        words = [f"rank {rank}: {words[0]}"]
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        kind = RuntimeError if said["code"] is None else MinifcnError
    try:
        fault = kind(*words)
    except TypeError:  # a kind that takes more than a sentence
        fault = RuntimeError(f"{name}: {words[0]}")
    if said["code"] is not None:
        vars(fault)["exit_code"] = said["code"]
    return fault


# ------------------------------------------------------------------------------------------------- the ranks of a run


def launched() -> tuple[int, int]:
    """Return (size, rank) as a launcher set them in the environment; (1, 0) without a launcher."""
    for names in LAUNCHERS:
        size, rank = (os.environ.get(name, "") for name in names)
        if size.isdigit() and rank.isdigit():
            return int(size), int(rank)
    return 1, 0


def join() -> Alone:
    """Return the ranks of this run; `UsageError` where there should be several and they cannot reach each other."""
    size, _ = launched()
    if size == 1:
        return ALONE
    patience = _patience()  # what is wrong is said before MPI has begun: a rank that then fails ends in MPI's own words
    _check_shared_memory(size)
    try:
        import mpi4py

        mpi4py.rc.finalize = False  # a rank that ends alone must not wait for the others in MPI's own end
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of another launcher: that is found out below
            from mpi4py import MPI
    except (ImportError, RuntimeError) as fault:
        why = next(iter(str(fault).splitlines()), "")
        raise UsageError(
            f"the launcher started {size} processes, and mpi4py cannot be imported ({why}): "
            "pip install 'minifcn[mpi]' brings it, with a launcher of its own"
        ) from fault
    comm = MPI.COMM_WORLD
    if comm.Get_size() != size:
        library = MPI.Get_library_version().split()[0]
        cure = "`srun --mpi=pmi2` (or pmix)" if _by_slurm() else f"the `mpiexec` of {library}"
        raise UsageError(
            f"the launcher started {size} processes, and the MPI library of mpi4py ({library}) finds "
            f"{comm.Get_size()}: they are not of one kind; start with {cure}"
        )
    return Ranks(comm, MPI, patience)


def _patience() -> float:
    """Return how many seconds to wait for the other ranks; `UsageError` if the variable holds no number above 0."""
    text = os.environ.get(TIMEOUT) or str(PATIENCE)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < threading.TIMEOUT_MAX:
        raise UsageError(f"the environment variable {TIMEOUT} is {text!r}; expected a number of seconds above 0")
    return seconds


def _check_shared_memory(size: int) -> None:
    """Raise `UsageError` if /dev/shm is too small for the ranks of this machine: MPICH would end with a bus error.

    If it is large enough and merely full, or other machines have ranks, too, which would wait for these, one rank of
    the machine says so, and MPI tries.
    """
    here = os.environ.get("MPI_LOCALNRANKS", "")  # set by MPICH's launcher
    if not here.isdigit() or not SHARED.is_dir():
        return
    disk, ranks = os.statvfs(SHARED), int(here)
    free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    if free < 64 * ROOM * ranks:  # where there is room for some ranks only, UCX ends with a segmentation fault
        os.environ.setdefault("UCX_TLS", "^posix")
    said = (
        f"{SHARED}: {free / 1e6:.1f} of {total / 1e6:.1f} MB are free; MPICH needs {ROOM / 1e6} MB for each of {here} "
        "ranks: enlarge it (`docker run --shm-size=1g`), or delete the mpich_shm_* that killed runs have left there"
    )
    if total < ROOM * ranks and ranks == size:
        raise UsageError(said)
    if free < ROOM * ranks:
        if os.environ.get("MPI_LOCALRANKID") == "0":
            os.write(2, f"warning: {said}\n".encode())
        else:
            time.sleep(2)  # so that it is said before MPI ends all ranks


def _by_slurm() -> bool:
    return not any(os.environ.get(size) for size, _ in LAUNCHERS[:-1])


@contextlib.contextmanager
def together(*, say: Callable[[str], None] = silent) -> Iterator[Alone]:
    """Join the ranks. Inside, only rank 0 prints; what ends one rank ends all of them, in the same way.

    `say` prints a warning.

    A rank that fails says so to the others, who raise the same exception where they wait for it. If they do not come
    within GRACE seconds, it ends alone, and the launcher ends the others.
    """
    own = sys.stdout, sys.stderr
    if launched()[1]:  # also before the ranks have met: one of them is enough to say why they cannot
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  open until the process ends
    ranks = join()
    if not isinstance(ranks, Ranks):
        yield ranks
        return
    end = sys.modules["mpi4py.MPI"].Finalize
    try:
        if ranks.neighbours > ranks.cores:
            say(
                f"{ranks.neighbours} ranks share the {ranks.cores} cores of this machine, which is slower than one "
                "rank for each core"
            )
        yield ranks
        _, reason = ranks.agree_on_end(None)
        if reason is not None:
            raise reason
    except BaseException as fault:
        heard, reason = ranks.agree_on_end(fault)
        if heard:
            end()
        else:
            sys.stdout, sys.stderr = own
        if reason is fault or reason is None:
            raise
        raise reason from fault
    end()
