"""How fast convolutions are here, beside PyTorch where it is installed, and beside the rate of this machine's BLAS.

    minifcn bench nets                                FCN-8s whole: forward and a training step
    minifcn bench nets --padding same --width 8 --size 128 --batch 4
    minifcn bench layers                              every layer of it at 500x500, forward and both gradients
    minifcn bench layers --only conv3_2,fc7 --runs 9
    minifcn bench layers --way im2col --json im2col.json

The rivals take turns (A B A B), so that whatever else the machine does meets both; each number is the median of the
turns. PyTorch runs on as many threads, with whichever of its two memory layouts is faster for the product at hand.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minifcn.command import parse, run, split_words
from minifcn.errors import UsageError
from minifcn.kernels.convolution import WAYS, choose, convolution, correlate, spread, weigh
from minifcn.kernels.im2col import Windows
from minifcn.kernels.threads import cores, set_threads, threads
from minifcn.models.fcn import FCN8s
from minifcn.nn import bilinear, evaluating
from minifcn.ops.loss import softmax_cross_entropy
from minifcn.optim import SGD

PRODUCTS = ("forward", "grad_x", "grad_w")


@dataclass(frozen=True)
class Layer:
    """One convolution with stride 1 of a square image."""

    name: str
    inputs: int
    outputs: int
    size: int
    kernel: int
    padding: int

    @property
    def windows(self) -> Windows:
        return Windows((self.kernel, self.kernel), padding=(self.padding, self.padding))

    @property
    def multiply_adds(self) -> int:
        rows, cols = self.windows.out_size((self.size, self.size))
        return rows * cols * self.kernel**2 * self.inputs * self.outputs


@dataclass(frozen=True)
class Options:
    """Measure FCN-8s whole or layer by layer: `minifcn bench nets|layers [options]`."""

    size: int = 500
    """side of the square image, which conv1_1 pads by 100"""
    width: int = 64
    """channels of the first block; VGG-16 has 64"""
    batch: int = 1
    """images at once"""
    padding: str = "100"
    """nets: padding of conv1_1, or "same" """
    only: str = ""
    """layers: their names, separated by commas; by default all"""
    way: str = ""
    """"im2col", "blocks" or "winograd" for every layer that it can serve; by default the way chosen for each"""
    runs: int = 5
    """turns each rival takes"""
    threads: int = 0
    """threads that compute convolutions (0: one for each core)"""
    torch: bool = True
    """measure PyTorch beside, if it is installed"""
    json: str = ""
    """write the numbers to this file, too"""


def main(argv: list[str]) -> int:
    words, rest = split_words(Options, argv)
    options = parse(Options, rest, verb="bench", after=__doc__ or "")
    if words not in (["nets"], ["layers"]):
        raise UsageError(f"bench: found {' '.join(words)!r}; expected: bench nets, or: bench layers")
    if options.padding not in ("100", "same"):
        raise UsageError(f"option padding is {options.padding!r}; expected 100 or same")
    if options.way and options.way not in WAYS:
        raise UsageError(f"option way is {options.way!r}; expected one of {', '.join(WAYS)}")
    for name, least in (("size", 1), ("width", 1), ("batch", 1), ("runs", 1), ("threads", 0)):
        if getattr(options, name) < least:
            raise UsageError(f"option {name} is {getattr(options, name)}; expected at least {least}")
    set_threads(options.threads or cores())
    with convolution(options.way) if options.way else contextlib.nullcontext():
        record = measure_layers(options) if words == ["layers"] else measure_nets(options)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=1)
    return 0


def vgg_layers(width: int, size: int) -> list[Layer]:
    """The convolutions of FCN-8s on VGG-16 with padding 100, up to fc7, for an image of size x size."""
    layers, channels, side = [], 3, size
    for block, (factor, count) in enumerate(((1, 2), (2, 2), (4, 3), (8, 3), (8, 3)), 1):
        for index in range(1, count + 1):
            padding = 100 if block == index == 1 else 1
            layers.append(Layer(f"conv{block}_{index}", channels, width * factor, side, 3, padding))
            channels, side = width * factor, side + 2 * padding - 2
        side = -(-side // 2)
    layers.append(Layer("fc6", channels, 64 * width, side, 7, 0))
    layers.append(Layer("fc7", 64 * width, 64 * width, side - 6, 1, 0))
    return layers


def measure_layers(options: Options) -> dict[str, Any]:
    """The table, printed line by line, and returned as a record."""
    torch = import_torch(options)
    rate = matrix_rate()
    layers = vgg_layers(options.width, options.size)
    wanted = [name for name in options.only.split(",") if name]
    for name in wanted:
        if name not in {layer.name for layer in layers}:
            raise UsageError(
                f"option only names {name!r}; expected some of {', '.join(layer.name for layer in layers)}"
            )
    layers = [layer for layer in layers if not wanted or layer.name in wanted]

    print_machine(torch, rate)
    print(f"{'layer':<9}{'product':<9}{'way':<10}{'ms':>8}{'of BLAS':>9}{'PyTorch':>9}{'ratio':>7}")
    rows = []
    for layer in layers:
        for product in PRODUCTS:
            rows.append(measure(layer, product, options, torch, rate))
            row = rows[-1]
            rival = f"{row['torch_ms']:9.1f}{row['ms'] / row['torch_ms']:7.2f}" if torch else ""
            print(
                f"{layer.name:<9}{product:<9}{row['way']:<10}{row['ms']:8.1f}{row['of_blas']:8.0%} {rival}", flush=True
            )
    total, rival = (sum(row[key] for row in rows) for key in ("ms", "torch_ms"))
    print(f"{'all':<28}{total:8.1f}{'':9}" + (f"{rival:9.1f}{total / rival:7.2f}" if torch else ""))
    return record_of(options, torch, rate, rows)


def print_machine(torch: Any, rate: float) -> None:
    print(f"{platform.machine()}, {threads()} threads, NumPy {np.__version__}, {rate:.0f} GFLOP/s in a matrix product")
    print(f"rival: PyTorch {torch.__version__}" if torch else "rival: none (PyTorch is not installed, or not wanted)")
    print()


def record_of(options: Options, torch: Any, rate: float, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "options": dataclasses.asdict(options),
        "numpy": np.__version__,
        "torch": torch.__version__ if torch else None,
        "threads": threads(),
        "gflops": rate,
        "rows": rows,
    }


def measure(layer: Layer, product: str, options: Options, torch: Any, rate: float) -> dict[str, Any]:
    """One product of one layer: median milliseconds of both, and our share of what BLAS could do with im2col's sums.

    A share above 1 is Winograd's: it does fewer multiplications than it is credited with.
    """
    rng, g, size = np.random.default_rng(0), layer.windows, (layer.size, layer.size)
    x = rng.standard_normal((options.batch, layer.inputs, *size), dtype="float32")
    w = rng.standard_normal((layer.outputs, layer.inputs, *g.kernel), dtype="float32")
    gy = rng.standard_normal((options.batch, layer.outputs, *g.out_size(size)), dtype="float32")
    ours: Callable[[], Any] = {
        "forward": lambda: correlate(x, w, g),
        "grad_x": lambda: spread(gy, w, g, size),
        "grad_w": lambda: weigh(x, gy, g),
    }[product]
    rivals = torch_products(torch, product, x, w, gy, layer.padding) if torch else []
    if rivals and not np.allclose(ours(), rivals[0]().numpy(), atol=1e-4 * float(np.abs(ours()).max())):
        raise UsageError(f"{layer.name} {product}: ours and PyTorch's results differ: report this")
    mine, *others = take_turns([ours, *rivals], options.runs)
    return {
        "layer": layer.name,
        "product": product,
        "way": choose(x, g, layer.inputs, layer.outputs, options.batch, g.out_size(size)),
        "multiply_adds": layer.multiply_adds * options.batch,
        "ms": mine * 1e3,
        "of_blas": 2 * layer.multiply_adds * options.batch / mine / rate / 1e9,
        "torch_ms": min(others) * 1e3 if others else float("nan"),
    }


def measure_nets(options: Options) -> dict[str, Any]:
    """Forward and training step of FCN-8s with 21 classes, ours and PyTorch's from the same weights."""
    torch, rate = import_torch(options), matrix_rate()
    padding: Any = int(options.padding) if options.padding.isdigit() else options.padding
    rng = np.random.default_rng(0)
    x = rng.standard_normal((options.batch, 3, options.size, options.size), dtype="float32")
    labels = rng.integers(0, 21, (options.batch, options.size, options.size))
    net = FCN8s(classes=21, width=options.width, padding=padding, seed=0)
    net.load({name: array if array.any() else array + 0.01 for name, array in net.state().items()})  # no zero scores
    solver = SGD(net, lr=1e-12)

    def forward() -> np.ndarray:
        with evaluating(net):
            return net(x).data

    def step() -> None:
        net.train()
        softmax_cross_entropy(net(x), labels).backward()
        solver.step()

    rivals = [torch_net(torch, net.state(), x, labels, padding, layout) for layout in layouts(torch)] if torch else []
    if rivals and not np.allclose(forward(), rivals[0][0]().numpy(), rtol=1e-3, atol=1e-4 * abs(forward()).max()):
        raise UsageError("ours and PyTorch's scores differ: report this")
    print_machine(torch, rate)
    print(f"{'FCN-8s':<16}{'ms':>8}{'PyTorch':>9}{'ratio':>7}")
    rows = []
    for index, (name, ours) in enumerate((("forward", forward), ("training step", step))):
        mine, *others = take_turns([ours, *(rival[index] for rival in rivals)], options.runs)
        best = min(others, default=float("nan"))
        rows.append({"product": name, "ms": mine * 1e3, "torch_ms": best * 1e3})
        print(f"{name:<16}{mine * 1e3:8.1f}" + (f"{best * 1e3:9.1f}{mine / best:7.2f}" if rivals else ""), flush=True)
    return record_of(options, torch, rate, rows)


def take_turns(rivals: list[Callable[[], Any]], runs: int) -> list[float]:
    """The median seconds of each, after one turn that does not count."""
    times: list[list[float]] = [[] for _ in rivals]
    for turn in range(runs + 1):
        for rival, seconds in zip(rivals, times, strict=True):
            start = time.perf_counter()
            rival()
            if turn:
                seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in times]


def matrix_rate(side: int = 2048) -> float:
    """GFLOP/s of one large float32 matrix product on all threads of BLAS: what no convolution by columns can beat."""
    a = np.random.default_rng(0).standard_normal((side, side), dtype="float32")
    (seconds,) = take_turns([lambda: a @ a], 5)
    return 2 * side**3 / seconds / 1e9


def import_torch(options: Options) -> Any:
    """PyTorch on as many threads, or None."""
    if not options.torch:
        return None
    try:
        import torch
    except ModuleNotFoundError:
        return None
    torch.set_num_threads(threads())
    return torch


def torch_products(
    torch: Any, product: str, x: np.ndarray, w: np.ndarray, gy: np.ndarray, padding: int
) -> list[Callable[[], Any]]:
    """The same product in PyTorch, once for each of its memory layouts."""
    wanted = [product == "grad_x", product == "grad_w", False]
    rivals: list[Callable[[], Any]] = []
    for layout in layouts(torch):
        tx, tw, tgy = (torch.from_numpy(array).contiguous(memory_format=layout) for array in (x, w, gy))

        def forward(tx: Any = tx, tw: Any = tw) -> Any:
            with torch.inference_mode():
                return torch.nn.functional.conv2d(tx, tw, padding=padding)

        def gradient(tx: Any = tx, tw: Any = tw, tgy: Any = tgy) -> Any:
            backward = torch.ops.aten.convolution_backward
            return backward(tgy, tx, tw, None, [1, 1], [padding] * 2, [1, 1], False, [0, 0], 1, wanted)[
                wanted.index(True)
            ]

        rivals.append(forward if product == "forward" else gradient)
    return rivals


def layouts(torch: Any) -> tuple[Any, Any]:
    return torch.contiguous_format, torch.channels_last


def torch_net(
    torch: Any, state: dict[str, np.ndarray], x: np.ndarray, labels: np.ndarray, padding: Any, layout: Any
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """FCN-8s in PyTorch from our weights: its forward pass and its training step."""
    functional = torch.nn.functional
    image, truth = torch.from_numpy(x).contiguous(memory_format=layout), torch.from_numpy(labels)
    weights = {
        name.split(".", 2)[-1] if name.startswith("trunk") else name: (
            torch.from_numpy(array.copy()).contiguous(
                memory_format=layout if array.ndim == 4 else torch.contiguous_format
            )
        )
        for name, array in state.items()
    }
    weights = {name: array.requires_grad_() for name, array in weights.items()}
    kernels = {k: torch.from_numpy(bilinear(k)).float().expand(21, 1, k, k).contiguous() for k in (4, 16)}
    solver = torch.optim.SGD(weights.values(), lr=1e-12, momentum=0.9, weight_decay=5e-4)
    same = padding == "same"

    def conv(x: Any, name: str, pad: int = 0, relu: bool = True) -> Any:
        y = functional.conv2d(x, weights[f"{name}.w"], weights[f"{name}.b"], padding=pad)
        return functional.relu(y, inplace=True) if relu else y

    def crop(x: Any, like: Any, at: int) -> Any:
        at = 0 if same else at
        return x[:, :, at : at + like.shape[2], at : at + like.shape[3]]

    def up(x: Any, kernel: int) -> Any:
        pad = kernel // 4 if same else 0
        return functional.conv_transpose2d(x, kernels[kernel], stride=kernel // 2, padding=pad, groups=21)

    def scores(training: bool) -> Any:
        y, pools = image, []
        for block, count in enumerate((2, 2, 3, 3, 3), 1):
            for index in range(1, count + 1):
                y = conv(y, f"conv{block}_{index}", padding if block == index == 1 and not same else 1)
            y = functional.max_pool2d(y, 2, 2, ceil_mode=True)
            pools.append(y)
        y = functional.dropout(conv(y, "fc6", 3 if same else 0), training=training)
        y = functional.dropout(conv(y, "fc7"), training=training)
        y = up(conv(y, "score_fr", relu=False), 4)
        for pool, at, kernel in ((4, 5, 4), (3, 9, 16)):
            skip = conv(pools[pool - 1], f"score_pool{pool}", relu=False)
            y = up(crop(y, skip, 0) + crop(skip, y, at), kernel)
        return crop(y, image, 31)

    def forward() -> Any:
        with torch.inference_mode():
            return scores(training=False)

    def step() -> None:
        solver.zero_grad()
        functional.cross_entropy(scores(training=True), truth, reduction="sum").backward()
        solver.step()

    return forward, step


if __name__ == "__main__":
    run(main)
