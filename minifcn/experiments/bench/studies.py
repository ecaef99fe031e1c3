"""What the benchmark measures: the layers of FCN-8s, whole nets and four studies.

ladder      one layer, from six loops to Winograd
overhead    what autograd itself costs, when the images are too small to cost anything
profile     what the time of a training step is spent on
scaling     time against pixels, width and threads
memory      what a convolution takes beyond its input and output, each way
"""

from __future__ import annotations

import inspect
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any

import numpy as np

from minifcn import ops
from minifcn.backend import Array, device_of, to_device, to_host
from minifcn.experiments.bench.rival import torch_net, torch_products
from minifcn.experiments.bench.stopwatch import extra_bytes, matrix_product, median_seconds, take_turns
from minifcn.inference import inference
from minifcn.introspect.describe import channels, describe
from minifcn.kernels.convolution import convolution, correlate, spread, ways, weigh
from minifcn.kernels.im2col import Windows, im2col
from minifcn.kernels.lines import CACHE
from minifcn.kernels.threads import parallel, set_threads, shares, threads, useful_threads
from minifcn.models.paper import nyud_color_hha
from minifcn.models.zoo import NETS
from minifcn.ops.checks import kernel_of, windows
from minifcn.optim import SGD
from minifcn.tensor import OPS, Node, Tensor, edges_of
from minifcn.training.step import train_step

PRODUCTS = ("forward", "grad_x", "grad_w")
# Every net of `minifcn describe` that makes scores for each pixel of one image, by the same names.
FCNS = {name: net for name, net in NETS.items() if not net.trunk and net.make is not nyud_color_hha}


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
    def out(self) -> int:
        return self.windows.out_size((self.size, self.size))[0]

    @property
    def multiply_adds(self) -> int:
        """Of any of the three products, for one image, computed as it is defined."""
        return self.out**2 * self.kernel**2 * self.inputs * self.outputs

    def ways(self) -> list[str]:
        """Return the ways that can compute it."""
        return ways(self.windows, self.inputs, self.outputs)

    def least_bytes(self, batch: int) -> int:
        """Return what any of the three products has to move at least: both images and the weights, each once."""
        images = self.inputs * self.size**2 + self.outputs * self.out**2
        return 4 * (batch * images + self.kernel**2 * self.inputs * self.outputs)

    def arrays(self, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return random x (N, I, H, W), w (O, I, k, k) and gy (N, O, h, w), float32."""
        rng = np.random.default_rng(0)
        shapes = (
            (batch, self.inputs, self.size, self.size),
            (self.outputs, self.inputs, self.kernel, self.kernel),
            (batch, self.outputs, self.out, self.out),
        )
        x, w, gy = (rng.standard_normal(shape, dtype="float32") for shape in shapes)
        return x, w, gy

    def alone(self, product: str, batch: int) -> Callable[[], None]:
        """Return `product_alone` of this layer."""
        side = self.size if product == "grad_x" else self.out
        return product_alone(product, self.kernel, self.inputs, self.outputs, batch * side**2)

    def products(self, x: np.ndarray, w: np.ndarray, gy: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
        """Return functions that compute the three products of the layer, by name."""
        g = self.windows
        return {
            "forward": lambda: correlate(x, w, g),
            "grad_x": lambda: spread(gy, w, g, (self.size, self.size)),
            "grad_w": lambda: weigh(x, gy, g),
        }


def product_alone(product: str, k: int, i: int, o: int, windows: int) -> Callable[[], None]:
    """Return a function that computes the matrix products of a layer of i to o channels and kernel k, nothing else.

    It multiplies one strip of columns, ready in the cache, again and again.

    All kernel rows at once, as in `kernels/lines.py`: (k*O, k*I) weights by k*I columns, of which a strip fills half a
    core's second-level cache, and as many strips for each thread. About the least that a way through columns takes with
    this machine's BLAS; Winograd, which multiplies less, may be quicker.
    """
    parts = useful_threads(windows * k**2 * i * o)
    longest = CACHE // (4 * k * (i + o))
    count = parts * -(-windows // (parts * longest))  # of strips, as many for each thread
    length = -(-windows // count)
    rng = np.random.default_rng(0)
    gradients, pixels, weights = (
        rng.standard_normal(s, "f4") for s in ((k * o, length), (k * i, length), (k * o, k * i))
    )
    a, b = {"forward": (weights, pixels), "grad_x": (weights.T, gradients), "grad_w": (gradients, pixels.T)}[product]

    def strips(part: slice) -> None:
        y = np.empty((len(a), b.shape[1]), np.float32)
        for _ in range(part.start, part.stop):
            np.matmul(a, b, out=y)

    return lambda: parallel(strips, shares(count, parts), parts)


def vgg_layers(width: int, size: int, padding: int | str = 100) -> list[Layer]:
    """Return the convolutions of FCN-8s on VGG-16, up to fc7, for an image of size x size; `padding` as in `VGG`."""
    border, last = (1, 3) if padding == "same" else (int(padding), 0)
    layers, channels, side = [], 3, size
    for block, (factor, count) in enumerate(((1, 2), (2, 2), (4, 3), (8, 3), (8, 3)), 1):
        for index in range(1, count + 1):
            around = border if block == index == 1 else 1
            layers.append(Layer(f"conv{block}_{index}", channels, width * factor, side, 3, around))
            channels, side = width * factor, side + 2 * around - 2
        side = -(-side // 2)
    layers.append(Layer("fc6", channels, 64 * width, side, 7, last))
    layers.append(Layer("fc7", 64 * width, 64 * width, side - 6 + 2 * last, 1, 0))
    return layers


class Work:
    """A net of `FCNS` with 21 classes and a batch of random images: `forward()` and a training `step()`."""

    def __init__(
        self, net: str = "fcn8s", *, size: tuple[int, int], batch: int = 1, device: str = "cpu", **options: Any
    ) -> None:
        rng = np.random.default_rng(0)
        self.net = FCNS[net](classes=21, seed=0, **options)
        self.x = rng.standard_normal((batch, channels(self.net), *size), dtype="float32")
        self.labels = rng.integers(0, 21, (batch, *size))
        for parameter in self.net.parameters():
            if not parameter.data.any():
                parameter.data += 0.01 * rng.standard_normal(parameter.shape, dtype="float32")  # else all classes alike
        self.solver = SGD(self.net.to(device), lr=1e-12)
        self.x, self.labels = to_device(self.x, device), to_device(self.labels, device)

    def forward(self) -> Array:
        with inference(self.net):
            return self.net(self.x).data

    def loss(self) -> Tensor:
        """Return the loss of the batch."""
        return ops.softmax_cross_entropy(self.net(self.x), self.labels)

    def step(self) -> None:
        train_step(self.solver, [self.loss()])

    def multiply_adds(self) -> int:
        """Return the multiply-adds of a forward pass."""
        return describe(self.net, self.x.shape[2:], batch=len(self.x)).multiply_adds

    def rival(self, torch: Any, layout: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
        """Return PyTorch's forward pass and training step."""
        return torch_net(torch, self.net, to_host(self.x), to_host(self.labels), layout, device_of(self.x))


class Depthwise:
    """A depthwise layer of 5x5 on 144 channels, as trunks for photographs have it, beside `Work`: its `step()` makes
    both gradients."""

    def __init__(self, *, size: tuple[int, int], batch: int = 1, channels: int = 144) -> None:
        rng = np.random.default_rng(0)
        shapes = (batch, channels, *size), (channels, 1, 5, 5), (batch, channels, *size)
        self.x, self.w, self.gy = (rng.standard_normal(shape, dtype="float32") for shape in shapes)
        self.windows = Windows((5, 5), padding=(2, 2), groups=channels)

    def forward(self) -> np.ndarray:
        return correlate(self.x, self.w, self.windows)

    def step(self) -> None:
        self.forward()
        spread(self.gy, self.w, self.windows, self.x.shape[2:]), weigh(self.x, self.gy, self.windows)

    def multiply_adds(self) -> int:
        """Return the multiply-adds of the forward pass."""
        return self.gy.size * 25

    def rival(self, torch: Any, layout: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
        """Return the same in PyTorch."""
        groups = self.windows.groups
        products = torch_products(torch, self.x, self.w, self.gy, layout, padding=2, groups=groups)
        return products["forward"], lambda: (products["forward"](), products["both"]())


# -------------------------------------------------------------------------------------------------------------- ladder


def six_loops(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The definition: x (I, H, W), w (O, I, kh, kw) -> y (O, H - kh + 1, W - kw + 1), a multiplication at a time."""
    o, i, kh, kw = w.shape
    y = np.zeros((o, x.shape[1] - kh + 1, x.shape[2] - kw + 1), x.dtype)
    for out in range(o):
        for row in range(y.shape[1]):
            for col in range(y.shape[2]):
                for c in range(i):
                    for down in range(kh):
                        for across in range(kw):
                            y[out, row, col] += w[out, c, down, across] * x[c, row + down, col + across]
    return y


def ladder(layer: Layer, runs: int) -> list[dict[str, Any]]:
    """Return seconds, extra bytes and error of a forward pass at each rung; six loops on 8 x 8 pixels are scaled."""
    x, w, gy = layer.arrays(1)
    forward = layer.products(x, w, gy)["forward"]
    tiny = np.ones((2, 8, 8), np.float32), np.ones((2, 2, layer.kernel, layer.kernel), np.float32)
    tiny_products = 4 * layer.kernel**2 * (9 - layer.kernel) ** 2
    seconds = median_seconds(lambda: six_loops(*tiny), runs) * layer.multiply_adds / tiny_products
    rows: list[dict[str, Any]] = [{"rung": "six loops, scaled", "seconds": seconds, "bytes": 0}]

    def whole_columns() -> np.ndarray:
        return w.reshape(len(w), -1) @ im2col(x, layer.windows).reshape(w[0].size, -1)

    rungs = {"all columns at once": ("", whole_columns), **{way: (way, forward) for way in layer.ways()}}
    exact = correlate(x.astype("float64"), w.astype("float64"), layer.windows)
    for rung, (way, work) in rungs.items():
        with convolution(way) if way else nullcontext():
            error = abs(work().reshape(exact.shape) - exact).max() / abs(exact).max()
            measured = {"seconds": median_seconds(work, runs), "bytes": extra_bytes(work), "error": float(error)}
        rows.append({"rung": rung, **measured})
    return rows


# ------------------------------------------------------------------------------------------------------------ overhead

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


@contextmanager
def listening() -> Iterator[list[Call]]:
    """Inside, every op that is called is noted: its function on arrays, the arrays and the options."""
    functions: dict[Any, Any] = {op.__wrapped__.__code__: op.__wrapped__ for op in OPS.values()}  # type: ignore[attr-defined]
    heard: list[Call] = []

    def hear(frame: FrameType, event: str, _: Any) -> None:
        code, given = frame.f_code, frame.f_locals
        if event == "call" and code in functions:
            names = code.co_varnames
            last = code.co_argcount + code.co_kwonlyargcount
            arrays = tuple(given[name] for name in names[: code.co_argcount])
            if code.co_flags & inspect.CO_VARARGS:
                arrays += given[names[last]]
            heard.append((functions[code], arrays, {name: given[name] for name in names[code.co_argcount : last]}))

    sys.setprofile(hear)
    try:
        yield heard
    finally:
        sys.setprofile(None)


def nodes_below(y: Tensor) -> list[Node]:
    """Return the nodes of the graph of `y`, its own first."""
    nodes = [y.node] if y.node else []
    for node in nodes:  # which grows while it is walked
        nodes += {parent: None for parent, _, _ in edges_of(node) if parent not in nodes}
    return nodes


def calls_at(node: Node) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the functions that a walk calls at this node, each with its argument."""
    gy = node.grad
    if node.prepare:
        yield node.prepare.__name__, partial(node.prepare, gy)
        gy = node.prepare(gy)
    for _, gradient, _ in edges_of(node):
        yield gradient.__name__, partial(gradient, gy)


def overhead(size: int, runs: int) -> dict[str, float]:
    """Return the microseconds that an op costs beyond its arithmetic: (step - the same functions by hand) / ops.

    By hand means: every op's function on the same arrays, then every gradient function that backward would call, with
    the gradient that backward would give it. The step is forward and backward, without the update.
    """
    work = Work(size=(size, size), width=1, padding="same", dropout=0.0)  # drawing masks is no op's
    with listening() as heard:
        loss = work.loss()
    loss.backward(keep_graph=True, keep_grads=True)
    calls = [call for node in nodes_below(loss) for _, call in calls_at(node)]

    def by_hand() -> None:
        for function, arrays, options in heard:
            function(*arrays, **options)
        for call in calls:
            call()

    parameters = list(work.net.parameters())

    def step() -> None:
        for parameter in parameters:
            parameter.zero_grad()
        work.loss().backward()

    ours, hands = (min(seconds) for seconds in take_turns([step, by_hand], 10 * runs))
    return {
        "ops": len(heard),
        "step_us": ours * 1e6,
        "by_hand_us": hands * 1e6,
        "us": (ours - hands) / len(heard) * 1e6,
    }


# ------------------------------------------------------------------------------------------------------------- profile


def profile(work: Work, runs: int) -> dict[str, float]:
    """Return the seconds of a training step by what they are spent on: each op's value and gradients, and the update.

    As in `overhead`, the functions of a step are called again by hand; the calls of one op are added up.
    """
    with listening() as heard:
        loss = work.loss()
    loss.backward(keep_graph=True, keep_grads=True)
    seconds: dict[str, float] = defaultdict(float)
    for function, arrays, options in heard:
        seconds[f"{function.__name__} value"] += median_seconds(partial(function, *arrays, **options), runs)
    for node in nodes_below(loss):
        for name, call in calls_at(node):
            seconds[f"{node.op} {name}"] += median_seconds(call, runs)
    found = [(parameter.node, parameter.grad) for parameter in work.net.parameters() if parameter.node is not None]

    def update() -> None:
        for node, grad in found:
            node.grad = grad
        work.solver.step()

    seconds["update"] = median_seconds(update, runs)
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


def products_alone(work: Work, runs: int) -> float:
    """Return the seconds of the matrix products of a step's convolutions: no step through columns is quicker.

    Of the first convolution, which looks at the image, two products; of the others three.
    """
    with listening() as heard:
        work.loss()
    seconds, first = 0.0, True
    for function, arrays, options in heard:
        if function is ops.conv2d.__wrapped__:  # type: ignore[attr-defined]
            (x, w), (o, i, kernel, _) = arrays[:2], arrays[1].shape
            options = {name: each for name, each in options.items() if name != "relu"}
            g = windows(kernel_of(w, op="conv2d"), op="conv2d", **options)
            count = len(x) * math.prod(g.out_size(x.shape[2:]))
            for product in PRODUCTS:
                if not (first and product == "grad_x"):
                    seconds += median_seconds(product_alone(product, kernel, i, o, count), runs)
            first = False
    return seconds


# ------------------------------------------------------------------------------------------------------------- scaling


def scaling(width: int, largest: int, runs: int) -> dict[str, list[dict[str, float]]]:
    """Return the seconds of a forward pass against the side of the image, the net's width, and the threads.

    For the threads, beside them, what a large matrix product gains: more is not to be had from this machine's cores.
    """

    def seconds(width: int, size: int) -> float:
        return median_seconds(Work(size=(size, size), width=width, padding="same").forward, runs)

    sizes = [side for side in (64, 128, 256, 512, 1024) if side <= largest]
    before, counts = threads(), sorted({1, threads()})
    studies: dict[str, list[dict[str, float]]] = {
        "pixels": [{"side": side, "seconds": seconds(width, side)} for side in sizes],
        "width": [{"width": each, "seconds": seconds(each, sizes[0])} for each in (width, 2 * width, 4 * width)],
    }
    work = Work(size=(sizes[-1], sizes[-1]), width=width, padding="same").forward

    def on(count: int, task: Callable[[], Any]) -> None:
        set_threads(count)
        task()

    turns = take_turns([partial(on, count, task) for task in (work, matrix_product()) for count in counts], runs)
    set_threads(before)
    middle = [statistics.median(seconds) for seconds in turns]
    rows = zip(counts, middle, middle[len(counts) :], strict=False)
    studies["threads"] = [{"threads": each, "seconds": ours, "product_seconds": alone} for each, ours, alone in rows]
    return studies


# -------------------------------------------------------------------------------------------------------------- memory


def memory(layer: Layer, batch: int) -> list[dict[str, Any]]:
    """Return bytes that each product of a layer takes beyond its arrays, each way."""
    products = layer.products(*layer.arrays(batch))
    rows = []
    for way in layer.ways():
        with convolution(way):
            rows += [{"way": way, "product": name, "bytes": extra_bytes(work)} for name, work in products.items()]
    return rows
