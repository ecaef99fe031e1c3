"""Check and measure a GPU in at most eight minutes, and write what was found into docs/performance.md.

    make gpu-check                  all of it
    python tests/gpu_check.py --only parity,rates --print

For a card that is lent for a short time: every part stands alone, a part that fails is a row of the table and the next
one begins, and when the time is over what is left says so.

    suite         every op on the card, its fused kernels included, against the CPU (pytest)
    rates         microseconds a launch, GB/s of a copy, GFLOP/s of products
    parity        three training steps on the CPU and on the GPU, and twice on the GPU
    fused         the same steps with CuPy's functions alone
    workspaces    FCN-8s VGG-16 at 500x500: forward and step with workspaces of 32 to 1024 MB
    rival         the same beside PyTorch with cuDNN, where it is there
    training      a toy run: train, stop, resume, evaluate
    memory        a run that is too large ends in one line
"""

import argparse
import contextlib
import io
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from minifcn import ops
from minifcn.backend import to_device
from minifcn.cli.command import guard
from minifcn.cli.verbs import main as command
from minifcn.experiments.bench import gpu
from minifcn.experiments.bench.rival import import_torch
from minifcn.experiments.bench.studies import Work
from minifcn.kernels import fused
from minifcn.kernels.products import GPU_WORKSPACE
from minifcn.models.fcn import FCN8s
from minifcn.optim import SGD
from minifcn.tensor import Tensor
from minifcn.training.device import choose_device
from minifcn.training.step import train_step

ROOT = pathlib.Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- gpu-check: begin -->\n", "<!-- gpu-check: end -->\n"
SECONDS = 480
"""A card is lent for minutes: what has not begun by then is not begun, and what runs then is stopped."""
LAUNCHES = 1000
WORKSPACES = (32, 64, 128, 256, 512, 1024)  # megabytes
CLOSE = 1e-4
"""How far three steps on the GPU may be from the CPU's, beside the largest number of each parameter."""
SIZES = {"side": 4096, "megabytes": 512, "image": 500, "width": 64, "padding": 100, "train": 64, "step": 64}
SMALL = {"side": 32, "megabytes": 1, "image": 32, "width": 1, "padding": "same", "train": 8, "step": 32}

Row = tuple[str, str]


class Late(BaseException):  # which no part takes for a fault of the card
    """The time is over."""


class Failed(Exception):
    """What a part found wrong, in one line."""


def suite(sizes: dict[str, Any]) -> Iterator[Row]:
    """The tests that are marked `gpu`, and those of CuPy."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu or cupy", "tests"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    last = (done.stdout.strip().splitlines() or ["no output"])[-1]
    if done.returncode:
        raise Failed(last)
    yield "tests on the card", last


def launch_seconds() -> dict[str, float]:
    """Return the seconds between two launches of a kernel that does nothing much: CuPy's own, and one of ours."""
    x, y = (to_device(np.ones(1, np.float32), "gpu") for _ in range(2))

    def often(work: Callable[[], Any]) -> None:
        for _ in range(LAUNCHES):
            work()

    works = (lambda: y.fill(0), lambda: fused.SGD(1, x, y, y.copy(), 0.9, 0.1, 0.0, T=x.dtype), y.copy)
    fill, both, copy = (gpu.device_seconds(partial(often, work)) / LAUNCHES for work in works)
    return {"fill": fill, "fused": max(0.0, both - copy)}


def copy_rate(megabytes: int = 512) -> float:
    """Return the GB/s, read and written, of a copy within the device's memory."""
    x = to_device(np.ones(megabytes << 18, np.float32), "gpu")
    y = x.copy()

    def copy() -> None:
        y[...] = x

    return 2 * x.nbytes / gpu.device_seconds(copy) / 1e9


def product_rates(side: int = 4096) -> dict[str, float]:
    """Return the GFLOP/s of a product of two square matrices: plain, in a stack of one, each also transposed."""
    a = to_device(np.random.default_rng(0).standard_normal((side, side), dtype="float32"), "gpu")
    stack = a[None]
    works: dict[str, Callable[[], Any]] = {
        "2-D": lambda: a @ a,
        "2-D, transposed": lambda: a @ a.T,
        "3-D": lambda: stack @ stack,
        "3-D, transposed": lambda: stack @ stack.swapaxes(1, 2),
    }
    return {name: 2 * side**3 / gpu.device_seconds(work) / 1e9 for name, work in works.items()}


def rates(sizes: dict[str, Any]) -> Iterator[Row]:
    """The three numbers that the counts of launches and bytes are to be multiplied by."""
    found = launch_seconds()
    yield "a launch of CuPy's, of ours", f"{1e6 * found['fill']:.1f} us, {1e6 * found['fused']:.1f} us"
    yield "a copy", f"{copy_rate(sizes['megabytes']):,.0f} GB/s, read and written"
    for name, rate in product_rates(sizes["side"]).items():
        yield f"{name} product of {sizes['side']} x {sizes['side']}", f"{rate:,.0f} GFLOP/s"


def three_steps(device: str, side: int = 64) -> dict[str, np.ndarray]:
    """The weights after three training steps."""
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((2, 3, side, side), dtype="float32"), rng.integers(0, 5, (2, side, side))
    net = FCN8s(layers=11, width=4, padding="same", classes=5).to(device).train()
    rule = SGD(net, lr=1e-2)
    for _ in range(3):
        scores = net(Tensor(to_device(x, device)))
        train_step(rule, [ops.softmax_cross_entropy(scores, to_device(labels, device))])
    return net.state_dict()


def furthest(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """The largest difference of any parameter, beside its largest number."""
    return max(
        float(np.abs(found[name] - value).max() / max(np.abs(value).max(), 1e-3)) for name, value in expected.items()
    )


def parity(sizes: dict[str, Any]) -> Iterator[Row]:
    """The same run on both devices, and the same bits each time."""
    first, again, expected = (three_steps(device, sizes["step"]) for device in ("gpu", "gpu", "cpu"))
    off = furthest(first, expected)
    if not off < CLOSE:
        raise Failed(f"three steps are {off:.1e} from the CPU's; expected below {CLOSE}")
    yield "three training steps, CPU against GPU", f"{off:.1e} apart"
    if any(not np.array_equal(first[name], value) for name, value in again.items()):
        raise Failed("three steps twice on the GPU are not the same bits")
    yield "three training steps, twice on the GPU", "the same bits"


def plain(sizes: dict[str, Any]) -> Iterator[Row]:
    """The fused kernels against CuPy's functions, on the card itself."""
    first = three_steps("gpu", sizes["step"])
    with fused.plain():
        off = furthest(three_steps("gpu", sizes["step"]), first)
    if not off < CLOSE:
        raise Failed(f"three steps with CuPy's functions alone are {off:.1e} from those with fused kernels")
    yield "three training steps, fused kernels against CuPy's functions", f"{off:.1e} apart"


def whole_net(sizes: dict[str, Any]) -> Work:
    """FCN-8s VGG-16 on the GPU."""
    return Work(
        "fcn8s", size=(sizes["image"], sizes["image"]), device="gpu", width=sizes["width"], padding=sizes["padding"]
    )


def workspaces(sizes: dict[str, Any]) -> Iterator[Row]:
    """Time and memory of the whole net, for each workspace."""
    import cupy

    work = whole_net(sizes)
    for megabytes in WORKSPACES:
        pool = cupy.get_default_memory_pool()
        pool.free_all_blocks()
        with GPU_WORKSPACE.set(megabytes << 20):
            found = gpu.net_seconds(work, 3)
        taken = f"{pool.total_bytes() / 1e6:,.0f} MB in the pool"
        times = f"forward {1e3 * found['forward']:.1f} ms, step {1e3 * found['step']:.1f} ms, {taken}"
        yield f"FCN-8s, workspace {megabytes} MB", times
    with fused.plain():
        found = gpu.net_seconds(whole_net(sizes), 3)
    times = f"forward {1e3 * found['forward']:.1f} ms, step {1e3 * found['step']:.1f} ms"
    yield "FCN-8s, CuPy's functions alone", times


def rival(sizes: dict[str, Any]) -> Iterator[Row]:
    """PyTorch with cuDNN."""
    torch = import_torch()
    if not torch or not torch.cuda.is_available():
        yield "PyTorch with cuDNN", "not installed here"
        return
    found = gpu.net_seconds(whole_net(sizes), 5, torch=torch)
    for name in ("forward", "step"):
        ours, theirs = 1e3 * found[name], 1e3 * found[f"torch_{name}"]
        yield f"FCN-8s, {name}, beside PyTorch {torch.__version__}", f"{ours:.1f} ms, {theirs:.1f} ms"


def said(*words: str) -> tuple[int, str]:
    """The exit code of a command, and what it printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = guard(command, list(words))
    return code, out.getvalue()


def training(sizes: dict[str, Any]) -> Iterator[Row]:
    """What a user would do."""
    width = min(8, sizes["width"])
    size = [f"--max-train={sizes['train']}", "--max-val=4", "--epochs=2", "--batch=4", f"--width={width}"]
    with tempfile.TemporaryDirectory() as folder:
        run = f"{folder}/run"
        toy = ["train", "--run", run, "--device=gpu", "--layers=11", "--samples=0", *size]
        resume, judge = ["train", "--resume", run, "--device=gpu"], ["evaluate", run, "--device=gpu"]
        start = time.perf_counter()
        for words in ([*toy, "--stop-after=1"], resume, judge):
            code, printed = said(*words)
            if code:
                raise Failed(f"minifcn {' '.join(words)} ended with {code}: {printed.strip().splitlines()[-1]}")
    yield "a toy run: train, stop, resume, evaluate", f"{time.perf_counter() - start:.1f} s"


def memory(sizes: dict[str, Any]) -> Iterator[Row]:
    """A limit on the pool takes the part of a small card."""
    import cupy

    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    pool.set_limit(size=pool.used_bytes() + sizes["image"] * sizes["image"] * 40)
    try:
        size, width = 2 * sizes["image"], sizes["width"]
        code, printed = said("bench", "nets", "--device=gpu", f"--size={size}", "--no-torch", f"--width={width}")
    finally:
        pool.set_limit(size=0)
    errors = [line for line in printed.splitlines() if line.startswith("minifcn: ")]
    if code != 2 or len(errors) != 1 or "out of memory" not in errors[0] or "Traceback" in printed:
        raise Failed(f"a run that is too large ended with {code}: {printed.strip().splitlines()[-1:]}")
    yield "a run that is too large", "one line, exit code 2"


PARTS: dict[str, Callable[[dict[str, Any]], Iterator[Row]]] = {
    "rates": rates,
    "parity": parity,
    "fused": plain,
    "workspaces": workspaces,
    "rival": rival,
    "training": training,
    "memory": memory,
    "suite": suite,
}
"""The parts, those first that nothing else can tell."""


def rows(names: list[str], sizes: dict[str, Any], seconds: float = SECONDS) -> Iterator[Row]:
    """The rows of all parts; of one that fails, what was wrong."""
    end = time.monotonic() + seconds
    for name in names:
        left = end - time.monotonic()
        if left <= 0:
            yield name, "not reached in time"
            continue
        found: list[Row] = []
        try:
            with stopped_after(left):
                found.extend(PARTS[name](sizes))
        except Late:
            found.append((name, f"stopped after {left:.0f} s, when the time was over"))
        except Exception as fault:  # whatever a card has in store: the other parts are still worth their minutes
            line = next(iter(str(fault).strip().splitlines()), "")
            found.append((name, f"FAILED: {line or type(fault).__name__}"))
        yield from found


@contextlib.contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    """Raise `Late` inside after so many seconds; a program that is waited for is killed."""

    def late(*_: Any) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def written(page: str, table: str) -> str:
    """The page with the table between its markers."""
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{PAGE.name}: expected the lines {BEGIN.strip()} and {END.strip()}")
    return before + BEGIN + table + END + after


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--print", action="store_true", help="write no file")
    parser.add_argument("--small", action="store_true", help="in sizes that say nothing, to try the script itself")
    given = parser.parse_args(argv)
    names = given.only.split(",")
    if set(names) - set(PARTS):
        parser.error(f"--only names {given.only!r}; expected some of {', '.join(PARTS)}")
    _, why = choose_device("gpu")
    head = f"Measured by `make gpu-check` on {why.removeprefix('gpu: ')}.\n\n| what | found |\n|---|---|\n"
    lines, bad = [], 0
    for what, found in rows(names, SMALL if given.small else SIZES):
        print(f"{what:<60} {found}", flush=True)
        lines.append(f"| {what} | {found} |\n")
        bad += found.startswith("FAILED")
    if not given.print:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), f"{head}{''.join(lines)}"), encoding="utf-8")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(guard(main))
