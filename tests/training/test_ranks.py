"""Several ranks are one run: what they learn, how they end, and what they refuse."""

import contextlib
import errno
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ranks_cases import CASES, TINY, Exact, run_case

from minifcn.cli.verbs import main as verbs
from minifcn.errors import DataError, DivergedError, MinifcnError, UsageError
from minifcn.kernels.threads import cores, set_threads
from minifcn.nn import Conv2d, Dropout, drawing
from minifcn.ops import softmax_cross_entropy
from minifcn.tensor import Parameter, Tensor
from minifcn.training import ranks, results, setup
from minifcn.training.device import choose_device
from minifcn.training.loop import Trainer
from minifcn.training.options import Options
from minifcn.training.ranks import ALONE, Alone, LostError, buckets, described, launched, rebuilt
from minifcn.training.run_folder import Checkpoint, RunFolder, load_latest
from minifcn.training.signals import Interrupted

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LONG = ["--recipe", "toy", "--width", "1", "--max-train", "8", "--max-val", "4", "--batch", "2",
        "--accumulate", "2", "--epochs", "500", "--samples", "0", "--threads", "1", "--measure-every", "400",
        "--save-every", "2"]  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    set_threads(1)
    yield
    set_threads(None)


class Launched:
    """Processes started by mpiexec, whose output goes to files in `folder`."""

    def __init__(
        self, mpiexec: str, folder: Path, *command: str, ranks: int = 2, options: Any = (), **variables: str
    ) -> None:
        self.folder = folder
        names = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH")
        env = {name: os.environ[name] for name in names if name in os.environ}
        env |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}", "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "Agg"} | variables
        command = (*([mpiexec, *options, "-n", str(ranks)] if ranks else []), sys.executable, "-u", *command)
        with open(folder / "out", "wb") as out, open(folder / "err", "wb") as err:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=folder, env=env
            )

    def end(self, *, within: float = 180) -> tuple[int, str, str]:
        """Return the exit code, and what was printed on stdout and stderr, without the launcher's own words."""
        try:
            code = self.process.wait(within)
        finally:
            self.process.kill()
        out, err = ((self.folder / name).read_text() for name in ("out", "err"))
        return code, out, "".join(line for line in err.splitlines(True) if not line.startswith(("[mpiexec", "=", "\n")))

    def until(self, text: str) -> None:
        """Wait until that is printed."""
        for _ in range(600):
            if text in (self.folder / "out").read_text():
                return
            time.sleep(0.1)
        pytest.fail(f"no {text!r} in {(self.folder / 'out').read_text()} {(self.folder / 'err').read_text()}")


# -------------------------------------------------------------------------------------------- the same run on any ranks


def learned(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any], list[Any]]:
    """What a run came to: its arrays, its progress, and its log without the speed."""
    found = load_latest(folder)
    assert found is not None
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return found.tensors, found.meta["progress"], [line | {"images_per_s": 0} for line in lines]


@pytest.fixture(scope="module")
def folders(mpiexec: str, once: Callable[[str, Callable[[Path], None]], Path]) -> dict[int, Path]:
    """The folder of all cases on two ranks, and on three."""

    def on(count: int) -> Callable[[Path], None]:
        def make(folder: Path) -> None:
            done = Launched(mpiexec, folder, str(HERE / "ranks_cases.py"), "same", str(folder), ranks=count).end()
            assert done[0] == 0, done

        return make

    return {count: once(f"{count}-ranks", on(count)) for count in (2, 3)}


@pytest.mark.parametrize(
    ("name", "count"), [(name, count) for name, (counts, *_) in CASES.items() for count in counts], ids=str
)
def test_ranks_learn_what_one_rank_learns(
    name: str, count: int, folders: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit where whole batches are dealt out to two ranks; else gradients are added in another order."""
    monkeypatch.setattr(results, "write_report", lambda folder: folder)
    run_case(name, tmp_path)
    (ours, progress, log), (theirs, other_progress, other_log) = learned(tmp_path), learned(folders[count] / name)
    assert ours.keys() == theirs.keys()
    moved = {name: array for name, array in ours.items() if name.startswith(("net.", "momentum."))}
    assert any(array.any() for array in moved.values())
    if name.startswith("whole"):
        assert {key: array.tobytes() for key, array in ours.items()} == {k: a.tobytes() for k, a in theirs.items()}
        assert progress == other_progress and log == other_log
        assert _evaluation(tmp_path) == _evaluation(folders[count] / name)
    for key, array in moved.items():
        assert np.abs(array - theirs[key]).max() <= 1e-12 * max(1, np.abs(array).max()), key
    assert progress["step"] == other_progress["step"]
    assert other_log[-2]["loss"] == pytest.approx(log[-2]["loss"], rel=1e-11)


def _evaluation(folder: Path) -> Any:
    return json.loads((folder / "evaluation.json").read_text())


def test_a_run_goes_on_with_another_number_of_ranks_and_says_so(
    folders: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "write_report", lambda folder: folder)
    steps = sorted((folders[2] / "whole stopped" / "checkpoints").glob("step-*"))
    found = load_latest(folders[2] / "whole stopped")
    assert found is not None and found.meta["environment"]["ranks"] == 2 and steps
    o, said = Options(**CASES["whole stopped"][2]), list[str]()
    with (one := Trainer(o, RunFolder(tmp_path), *setup.data_sets(o), say=said.append)).folder:
        one.restore(Checkpoint(steps[0], found.tensors, found.meta))
        assert one.run()["images"] == 5
    assert any(line.startswith("warning: ranks was 2 and is 1: the run goes on, but not bit for bit") for line in said)


# ------------------------------------------------------------------------------------------------------ how a run ends

ENDS = {  # the exit code, and what is said
    "data": (2, "minifcn: rank 1: a.png: is cut short\n"),
    "bug": (1, "minifcn: unexpected ZeroDivisionError: rank 1: x (add --debug to see where)\n"),
    "memory": (2, "minifcn: out of memory: rank 1"),
    "nan": (3, "minifcn: the loss is nan in step 3 on train-00000"),
    "drift": (3, "minifcn: the parameters of rank 1 are no longer those of rank 0; the last checkpoint is intact"),
    "disk": (2, "step-00000004.safetensors: cannot be saved; what was saved before is intact"),
    "exit": (1, "minifcn: rank 1 left the run early; the last checkpoint is intact\n"),
    "vanish": (1, "minifcn: rank 1 ended without a word; the last checkpoint is intact\n"),
    "stop": (1, "minifcn: rank 0 of 2 waited 2 s for the other ranks: rank 1 is stopped; the last checkpoint is inta"),
    "kill": (9, ""),
    "interrupt": (130, "stopped after step 3, everything is saved; to go on: minifcn train --resume run\n"),
    "terminate": (143, "stopped after step 3, everything is saved; to go on: minifcn train --resume run\n"),
}


def is_hydra(mpiexec: str) -> bool:
    """Return whether it is MPICH's launcher."""
    return "HYDRA" in subprocess.run([mpiexec, "--version"], capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("fault", ENDS)
def test_what_ends_one_rank_ends_all_of_them(fault: str, mpiexec: str, tmp_path: Path) -> None:
    code, words = ENDS[fault]
    variables = {"MINIFCN_RANK_TIMEOUT": "2"} if fault == "stop" else {}
    command = [str(HERE / "ranks_cases.py"), fault, *LONG, "--run", "run"]
    # MPICH ends the others with code 0 in that case, before they can say anything
    options = ("-disable-auto-cleanup",) if fault == "vanish" and is_hydra(mpiexec) else ()
    launched = Launched(mpiexec, tmp_path, *command, options=options, **variables)
    launched.until("loss per pixel at the start")
    began = time.monotonic()
    found, _, error = launched.end(within=60)
    assert found == code and words in error, error
    assert fault == "kill" or error.count("\n") == (2 if code > 100 else 1)  # a signal is answered at once, too
    assert time.monotonic() - began < 10  # three steps, and five seconds to end in
    checkpoint = load_latest(tmp_path / "run")
    assert checkpoint is not None and not checkpoint.skipped
    assert checkpoint.meta["progress"]["step"] == (3 if code > 100 else 2)
    assert all(np.isfinite(array).all() for array in checkpoint.tensors.values())
    if fault == "nan":
        facts = json.loads((tmp_path / "run" / "diverged.json").read_text())
        assert facts["step"] == 3 and len(facts["ids"]) == 2
        assert None in facts["max_gradient"].values()  # JSON has no NaN


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_launcher_finishes_the_step_and_saves(
    number: int, code: int, mpiexec: str, tmp_path: Path
) -> None:
    """As Ctrl-C does, and a scheduler."""
    launched = Launched(mpiexec, tmp_path, "-m", "minifcn.train", *LONG, "--run", "run")
    launched.until("loss per pixel at the start")
    launched.process.send_signal(number)
    found, _, error = launched.end(within=30)
    assert found == code and "everything is saved; to go on: minifcn train --resume run" in error
    checkpoint = load_latest(tmp_path / "run")
    assert checkpoint is not None and checkpoint.meta["progress"]["step"] > 0


def test_a_mistake_of_the_user_is_said_once(mpiexec: str, tmp_path: Path) -> None:
    code, out, error = Launched(mpiexec, tmp_path, "-m", "minifcn.train", "--no-such-option").end()
    assert code == 2 and error.count("\n") == 1 and "--no-such-option" in error and not out
    code, out, error = Launched(mpiexec, tmp_path, "-m", "minifcn.train", "--help").end()
    assert code == 0 and out.count("Train a fully convolutional network.") == 1 and not error


def test_more_ranks_than_images_in_a_step_are_refused(mpiexec: str, tmp_path: Path) -> None:
    argv = [
        "-m",
        "minifcn.train",
        "--recipe",
        "toy",
        "--batch",
        "1",
        "--max-train",
        "4",
        "--max-val",
        "2",
        "--run",
        "r",
    ]
    code, _, error = Launched(mpiexec, tmp_path, *argv).end()
    assert code == 2 and error.count("\n") == 1
    assert "2 ranks share steps of 1 image; expected at least one image for each rank" in error
    assert not (tmp_path / "r").exists()


def test_a_loss_that_does_not_add_up_is_not_split(mpiexec: str, tmp_path: Path) -> None:
    argv = ["-m", "minifcn.train", "--recipe", "toy", "--batch", "4", "--max-train", "4", "--max-val", "2"]
    argv += ["--run", "r", "--loss", "dice"]
    code, _, error = Launched(mpiexec, tmp_path, *argv).end()
    assert code == 2 and error.count("\n") == 1
    assert "2 ranks share steps of 1 batches, and a dice loss or a balanced sample looks at a whole batch" in error


def test_more_ranks_than_cores_are_warned_of_once(mpiexec: str, tmp_path: Path) -> None:
    count = cores() + 1
    argv = ["-m", "minifcn.train", "--recipe", "toy", "--batch", str(count), "--dry-run"]
    code, _, error = Launched(mpiexec, tmp_path, *argv, ranks=count).end()
    assert code == 0 and error == (
        f"warning: {count} ranks share the {cores()} cores of this machine, which is slower than one rank for each "
        "core\n"
    )


def test_a_broken_image_is_said_once_whichever_rank_reads_it(mpiexec: str, tmp_path: Path) -> None:
    from minifcn.data.tools.make import make_tree

    make_tree(tmp_path / "set", counts={"train": 4, "val": 2}, size=64)
    bad = sorted((tmp_path / "set").rglob("*.jpg"))[3]
    bad.write_bytes(b"no picture")
    argv = ["-m", "minifcn.train", "--data", "set", "--batch", "2", "--run", "run", "--width", "1"]
    code, _, error = Launched(mpiexec, tmp_path, *argv).end()
    assert code == 2 and error.count("\n") == 1 and bad.name in error and "the first of 1 such among 4 images" in error


# -------------------------------------------------------------------------------- a launcher and a library that differ

PROGRAM = "import sys; from minifcn.cli.verbs import main; sys.exit(main(['train', '--dry-run']))"


def test_without_the_library_a_launcher_is_refused(tmp_path: Path) -> None:
    """Each rank finds out; only the first one says it."""
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").write_text("raise ImportError('libmpi.so.12: cannot open')\n")
    variables = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "PMI_SIZE": "3"}
    code, _, error = Launched("", tmp_path, "-c", PROGRAM, ranks=0, PMI_RANK="0", **variables).end()
    assert code == 2 and error.count("\n") == 1
    assert "the launcher started 3 processes, and mpi4py cannot be imported (libmpi.so.12: cannot open)" in error
    assert "pip install 'minifcn[mpi]'" in error
    assert Launched("", tmp_path, "-c", PROGRAM, ranks=0, PMI_RANK="2", **variables).end() == (2, "", "")


@pytest.mark.usefixtures("mpiexec")
@pytest.mark.parametrize(
    ("names", "cure"),
    [
        (("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"), "start with the `mpiexec` of "),
        (("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"), "start with `srun --mpi=pmi2`"),
    ],
    ids=["mpiexec", "srun"],
)
def test_the_launcher_of_another_library_is_refused(names: tuple[str, str], cure: str, tmp_path: Path) -> None:
    variables = dict(zip(names, ("4", "0"), strict=True))
    code, _, error = Launched("", tmp_path, "-c", PROGRAM, ranks=0, **variables).end()
    assert code == 2 and error.count("\n") == 1, error
    assert "the launcher started 4 processes, and the MPI library of mpi4py" in error and "finds 1" in error
    assert cure in error


def test_a_batch_script_of_slurm_and_a_single_rank_are_no_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    for names in ranks.LAUNCHERS:
        for name in names:
            monkeypatch.delenv(name, raising=False)
    assert launched() == (1, 0) and ranks.join() is ALONE
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert launched() == (1, 0)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    assert launched() == (2, 0)
    monkeypatch.setenv("PMI_SIZE", "1")
    monkeypatch.setenv("PMI_RANK", "0")
    assert launched() == (1, 0)
    with ranks.together() as found:
        assert found is ALONE


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_a_time_to_wait_is_a_number(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "launched", lambda: (2, 0))
    monkeypatch.setenv("MINIFCN_RANK_TIMEOUT", text)
    with pytest.raises(UsageError, match=f"MINIFCN_RANK_TIMEOUT is '{text}'; expected a number of seconds above 0"):
        ranks.join()
    monkeypatch.setenv("MINIFCN_RANK_TIMEOUT", "2.5")
    assert ranks._patience() == 2.5


# ------------------------------------------------------------------------------------- as root, with a small /dev/shm


@pytest.fixture
def small(mpiexec: str, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Return a function that plans a run on so many ranks with a /dev/shm of its own, of a size such as "64k"."""
    if not is_hydra(mpiexec):
        pytest.skip("the launcher is not MPICH's, whose shared memory this is about")
    script = tmp_path / "launch"

    def launched(size: str, count: int, before: str = "true") -> tuple[int, str, str]:
        script.write_text(f'mount -t tmpfs -o size={size} tmpfs /dev/shm && {before} && exec {mpiexec} "$@"\n')
        argv = ["-m", "minifcn.train", "--recipe", "toy", "--batch", str(count), "--dry-run"]
        return Launched("unshare", tmp_path, *argv, ranks=count, options=("-m", "sh", str(script))).end(within=60)

    probe = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", str(ranks.SHARED)]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a /dev/shm of its own, and not in every container")
    assert os.getuid() == 0
    return launched


@pytest.mark.parametrize("size", ["3m", "16m"])  # in the second, UCX would end with a segmentation fault
def test_ranks_work_as_root_with_a_small_shared_memory(size: str, small: Any) -> None:
    code, out, _ = small(size, 2)
    assert code == 0 and out.count("recipe toy: what a run would do") == 1


@pytest.mark.parametrize("count", [2, 3])
def test_a_shared_memory_that_is_too_small_is_said(count: int, small: Any) -> None:
    code, _, error = small("1m", count)
    assert code == 2 and error.count("\n") == 1
    assert f"shm: 1.0 of 1.0 MB are free; MPICH needs 1.1 MB for each of {count} ranks: enlarge it (`docker" in error


def test_a_shared_memory_that_is_full_is_said_before_mpi_fails(small: Any) -> None:
    code, _, error = small("8m", 2, "head -c 8000000 /dev/zero > /dev/shm/left")
    assert code and error.startswith("warning: /dev/shm: 0.4 of 8.4 MB are free; MPICH needs 1.1 MB for each of 2 ran")


@pytest.mark.parametrize(
    ("free", "local", "ranks_here", "ends"),
    [(1e9, 0, 2, ""), (1.5e6, 0, 2, "raises"), (1.5e6, 1, 2, "raises"), (1.5e6, 1, 1, ""), (2.5e6, 1, 2, "")],
)
def test_what_shared_memory_is_enough(
    free: float, local: int, ranks_here: int, ends: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks of one machine decide alike, since what is free changes while they start."""
    monkeypatch.setattr(ranks, "SHARED", tmp_path)
    disk = SimpleNamespace(f_bavail=int(free), f_blocks=int(free), f_frsize=1)
    monkeypatch.setattr(ranks.os, "statvfs", lambda path: disk)
    monkeypatch.setenv("MPI_LOCALNRANKS", str(ranks_here))
    monkeypatch.setenv("MPI_LOCALRANKID", str(local))
    monkeypatch.setenv("UCX_TLS", "mine")
    monkeypatch.setattr(ranks.time, "sleep", lambda seconds: None)
    if ends:
        with pytest.raises(UsageError, match=r"1\.5 of 1\.5 MB are free; MPICH needs 1\.1 MB for each of 2 ranks"):
            ranks._check_shared_memory(2)
    else:
        ranks._check_shared_memory(2)
    assert os.environ["UCX_TLS"] == "mine"
    monkeypatch.delenv("MPI_LOCALNRANKS")
    ranks._check_shared_memory(2)


# ------------------------------------------------------------------------------------------------------------ its parts


@pytest.mark.parametrize(("count", "size", "multiple"), [(7, 3, 1), (10, 4, 4), (1, 3, 1), (0, 2, 8), (8, 2, 4)])
def test_shares_are_the_whole_in_order(count: int, size: int, multiple: int) -> None:
    found = []
    for rank in range(size):
        one = Alone()
        one.rank, one.size = rank, size
        share = one.share(count, multiple=multiple)
        assert share.start % multiple == 0 or share.start == count
        found += range(count)[share]
    assert found == list(range(count))


def test_buckets_are_of_one_dtype_and_no_larger_than_they_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "BUCKET", 40)
    sizes = [(4, "f4"), (6, "f4"), (1, "f4"), (20, "f4"), (1, "f4"), (1, "f8")]
    parameters = [Parameter(np.zeros(size, dtype)) for size, dtype in sizes]
    found = list(buckets(parameters))
    assert [[parameter.size for parameter in bucket] for bucket in found] == [[4, 6], [1], [20], [1], [1]]


class Odd(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} {two}")


def test_an_exception_crosses_as_what_it_is() -> None:
    for fault in (DataError("x"), UsageError("x"), DivergedError("x"), ZeroDivisionError("x"), KeyboardInterrupt("x")):
        again = rebuilt(json.loads(json.dumps(described(fault))), 0)
        assert type(again) is type(fault) and str(again) == "x"
        assert str(rebuilt(described(fault), 2)) == "rank 2: x"
    full = rebuilt(described(OSError(errno.ENOSPC, "No space", Path("a"))), 1)
    assert isinstance(full, OSError) and (full.errno, full.strerror, full.filename) == (errno.ENOSPC, "No space", "a")
    stop = rebuilt(described(Interrupted("stop", 143)), 0)
    assert isinstance(stop, MinifcnError) and vars(stop)["exit_code"] == 143
    assert str(rebuilt(described(Odd(1, 2)), 0)) == "1 2"
    assert isinstance(rebuilt(described(SystemExit(0)), 1), LostError)
    unicode = rebuilt(described(UnicodeDecodeError("utf-8", b"x", 0, 1, "bad")), 0)
    assert isinstance(unicode, RuntimeError) and str(unicode).startswith("UnicodeDecodeError: ")


def test_dropout_of_a_part_is_the_part_of_dropout(rng: np.random.Generator) -> None:
    x, layer = np.ones((5, 2, 3, 4), np.float32), Dropout(0.5, rng=rng)
    with drawing(np.random.default_rng(1), 5, slice(0, 5)):
        whole = [layer(Tensor(x)).data for _ in range(2)]
    for part in (slice(0, 2), slice(2, 5)):
        with drawing(np.random.default_rng(1), 5, part):
            assert all(np.array_equal(layer(Tensor(x[part])).data, each[part]) for each in whole)
    assert not np.array_equal(whole[0], whole[1])


@pytest.mark.parametrize("normalize", ["none", "valid", "batch_size"])
def test_the_losses_of_parts_add_up_to_the_loss_of_the_batch(normalize: str, rng: np.random.Generator) -> None:
    x, labels = rng.standard_normal((4, 3, 5, 6)), rng.integers(0, 3, (4, 5, 6))
    labels[0, :, :2] = labels[3] = 255
    whole = softmax_cross_entropy(x, labels, normalize=normalize).item()
    total = {"none": 1, "valid": int((labels != 255).sum()), "batch_size": 4}[normalize]
    parts = [slice(0, 1), slice(1, 3), slice(3, 4)]
    losses = [softmax_cross_entropy(x[part], labels[part], divisor=total).item() for part in parts]
    assert sum(losses) == pytest.approx(whole, rel=1e-13)
    assert softmax_cross_entropy(x[3:], labels[3:], divisor=0).item() == 0


def test_a_rank_never_uses_more_than_its_part_of_the_cores() -> None:
    assert ALONE.threads(7) == 7 and ALONE.threads(0) == cores()
    one = object.__new__(ranks.Ranks)
    one.cores, one.neighbours = len(ranks._affinity()), 1
    assert one.threads(0) == one.cores == one.threads(1000)
    one.neighbours = 1000
    assert one.threads(0) == one.threads(8) == 1


def a_rank(*, processes: Sequence[int] = (), digests: Sequence[int] = ()) -> ranks.Ranks:
    """Return rank 0 of several, without a launcher: what it asks the others, they have answered already."""
    one = object.__new__(ranks.Ranks)
    one.size, one._patience = max(len(processes), 1 + len(digests)), 3.0
    one._processes = [(platform.node(), process) for process in processes]
    one.gather = lambda mine: [mine, *(mine + each for each in digests)]  # type: ignore[method-assign]
    return one


def test_ranks_whose_parameters_differ_abort() -> None:
    """Row 43."""
    net = Conv2d(1, 1, 1, init=np.random.default_rng(0))
    a_rank(digests=(0, 0)).check_alike(net)
    with pytest.raises(DivergedError, match="the parameters of rank 2 are no longer those of rank 0"):
        a_rank(digests=(0, 1, 0)).check_alike(net)
    with pytest.raises(DivergedError, match="the parameters of rank 1, 3 are no longer"):
        a_rank(digests=(5, 0, -1)).check_alike(net)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the states of processes are Linux's")
@pytest.mark.parametrize("state", ["ended", "a zombie", "gone, and another stopped"])
def test_a_rank_that_died_is_not_waited_for(state: str) -> None:
    """Row 43: the others hear of it within five seconds, whatever became of it, and wait for one that works."""
    never = SimpleNamespace(Test=lambda: False)
    with subprocess.Popen([sys.executable, "-c", "pass"]) as dead, subprocess.Popen(["sleep", "60"]) as alive:
        try:
            if state == "a zombie":
                os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
            else:
                dead.wait()
            if "stopped" in state:
                alive.send_signal(signal.SIGSTOP)
            began = time.monotonic()
            with pytest.raises(LostError, match=r"^rank 1 ended without a word; the last checkpoint is intact$"):
                a_rank(processes=(os.getpid(), dead.pid, alive.pid))._wait(never, 60)
            assert time.monotonic() - began < 5
            with pytest.raises(LostError, match="rank 0 of 2 waited 1 s for the other ranks: "):
                a_rank(processes=(os.getpid(), alive.pid))._wait(never, 1)
        finally:
            alive.kill()


# By name: what each rank sees, as its machine, its device and its cards, and the number of the card that each takes.
CARDS: dict[str, tuple[list[tuple[str, str, list[str]]], list[int]]] = {
    "all": ([("a", "gpu", ["1:0", "2:0"]), ("a", "gpu", ["1:0", "2:0"])], [0, 1]),
    "one for each, from the launcher": ([("a", "gpu", ["1:0"]), ("a", "gpu", ["2:0"])], [0, 0]),
    "two machines": ([("a", "gpu", ["1:0"]), ("b", "gpu", ["1:0"])], [0, 0]),
    "three of two machines": ([(node, "gpu", ["1:0", "2:0"]) for node in "aab"], [0, 1, 0]),
}


def a_rank_with_cards(
    rank: int, seen: list[tuple[str, str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> tuple[ranks.Ranks, list[int]]:
    """Return a rank, without a launcher and without CuPy, and what it does with cards."""
    used: list[int] = []
    cards = seen[rank][2]
    runtime = SimpleNamespace(getDeviceCount=lambda: len(cards), deviceGetPCIBusId=cards.__getitem__)
    device = lambda number: SimpleNamespace(use=lambda: used.append(number))  # noqa: E731
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=SimpleNamespace(runtime=runtime, Device=device)))
    monkeypatch.setattr(ranks.platform, "node", lambda: seen[rank][0])
    one = a_rank()
    one.rank, one.size = rank, len(seen)

    def gather(facts: Any) -> list[Any]:
        if not isinstance(facts, list):
            return [facts] * len(seen)
        assert facts == list(seen[rank])
        return [list(each) for each in seen]

    one.gather = gather  # type: ignore[method-assign]
    return one, used


@pytest.mark.parametrize("name", CARDS)
def test_each_rank_of_a_machine_has_a_card_of_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, expected = CARDS[name]
    for rank, number in enumerate(expected):
        one, used = a_rank_with_cards(rank, seen, monkeypatch)
        assert one.choose_card("gpu") == "gradients are added up in main memory"
        assert used == [number]
    assert ALONE.choose_card("gpu") == ""


def test_a_rank_tries_its_own_card_alone(fake_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else all ranks of a machine would take memory of its first card."""
    tried: list[int] = []
    fake_gpu.cuda.Device = lambda number: tried.append(number) or contextlib.nullcontext()
    fake_gpu.cuda.runtime.getDeviceCount = lambda: 3
    fake_gpu.cuda.runtime.getDeviceProperties = lambda number: {"name": f"card {number}".encode()}
    assert [choose_device("gpu", card=place)[1].split(",")[0] for place in (0, 1, 5)] == [
        "gpu: card 0",
        "gpu: card 1",
        "gpu: card 2",
    ]
    assert tried == [1, 2]


def test_too_few_cards_and_two_kinds_of_devices_are_refused_on_every_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    few = [("a", "gpu", ["1:0", "2:0"])] * 3
    mixed: list[tuple[str, str, list[str]]] = [("a", "gpu", ["1:0"]), ("a", "cpu", [])]
    for rank in range(3):
        one, used = a_rank_with_cards(rank, few, monkeypatch)
        with pytest.raises(UsageError, match=r"^3 ranks on a found 2 GPUs; expected one for each rank: start fewer"):
            one.choose_card("gpu")
        assert not used
    for rank, device in enumerate(("gpu", "cpu")):
        one, used = a_rank_with_cards(rank, mixed, monkeypatch)
        with pytest.raises(UsageError, match=r"^rank 0 uses the gpu and rank 1 the cpu; expected one device for all"):
            one.choose_card(device)
        assert not used
    one, used = a_rank_with_cards(0, [("a", "cpu", [])] * 2, monkeypatch)
    assert one.choose_card("cpu") == "" and not used


@pytest.mark.parametrize("way", ["nccl", "staged", "no nccl"])
def test_ranks_on_gpus_learn_what_one_rank_learns(
    way: str, mpiexec: str, fake_gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, on the strict fake device, with an NCCL of which MPI does the work."""
    monkeypatch.setattr(results, "write_report", lambda folder: folder)
    variables = {"MINIFCN_NCCL": "0"} if way == "staged" else {}
    command = (str(HERE / "ranks_cases.py"), "gpu", str(tmp_path / "two"), way)
    code, out, err = Launched(mpiexec, tmp_path, *command, **variables).end()
    assert code == 0, err
    assert out.split("\n")[0] == f"gradients are added up {'by NCCL' if way == 'nccl' else 'in main memory'}"
    sums = int(out.split("\n")[1])
    assert (sums > 0) == (way == "nccl")
    run_case("whole sgd float32", tmp_path / "one", device="gpu")
    (ours, progress, log), (theirs, other_progress, other_log) = learned(tmp_path / "one"), learned(tmp_path / "two")
    assert {key: array.tobytes() for key, array in ours.items()} == {k: a.tobytes() for k, a in theirs.items()}
    assert progress == other_progress and log == other_log


def test_an_nccl_that_cannot_connect_says_how_to_do_without(mpiexec: str, tmp_path: Path) -> None:
    command = (str(HERE / "ranks_cases.py"), "gpu", str(tmp_path / "two"), "broken")
    code, _, err = Launched(mpiexec, tmp_path, *command).end()
    said = "NCCL cannot connect the GPUs of 2 ranks: unhandled system error; MINIFCN_NCCL=0 adds up their gradients in "
    assert code and err.count(said) == 1, err


def test_a_verb_that_ranks_cannot_share_is_refused_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setenv("PMI_RANK", "0")
    assert verbs(["evaluate", "runs/toy"]) == 2
    assert capsys.readouterr().err == (
        "minifcn: 2 processes were started, and `minifcn evaluate` is one; expected train or bench\n"
    )
    monkeypatch.setenv("PMI_RANK", "1")
    with pytest.raises(SystemExit) as left:
        verbs(["evaluate", "runs/toy"])
    assert left.value.code == 2 and not capsys.readouterr().err


def test_exact_runs_are_in_float64(tmp_path: Path) -> None:
    o = Options(**TINY | {"max_train": 2, "max_val": 1})
    with (one := Exact(o, RunFolder(tmp_path), *setup.data_sets(o))).folder:
        one._one_step()
    assert {parameter.dtype for parameter in one.net.parameters()} == {np.dtype("float64")}
