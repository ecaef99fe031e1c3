"""Time patch-by-patch against fully convolutional prediction (FCN, section 3.1).

    minifcn amortize                              CaffeNet on 500x500 pixels: 10x10 windows of 227
    minifcn amortize --net lenet --size 100
    minifcn amortize --photo cat.jpg

A classifier that slides over an image computes almost everything again for the next window, which overlaps it. Made
convolutional, it computes each thing once. The paper measured 22 ms for 10x10 answers, and 1.2 ms for each of the
hundred patches in batches, 5.4 ms one at a time. The weights are random here: only the times mean something.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minifcn.backend import Array, to_device, to_host
from minifcn.cli.command import parse
from minifcn.data import CAFFE
from minifcn.data.files import read_image
from minifcn.errors import UsageError
from minifcn.geometry import Grid, out_size
from minifcn.kernels.threads import set_threads
from minifcn.models.alexnet import AlexNet
from minifcn.models.classifier import Classifier, classifier
from minifcn.models.googlenet import GoogLeNet
from minifcn.models.lenet import LeNet
from minifcn.models.trunk import Trunk
from minifcn.models.vgg import VGG
from minifcn.nn import Module, evaluating
from minifcn.ops import bilinear_resize
from minifcn.surgery import convolutionalize
from minifcn.tensor import Tensor
from minifcn.training.device import choose_device

TRUNKS: dict[str, type[Trunk]] = {"lenet": LeNet, "alexnet": AlexNet, "vgg16": VGG, "googlenet": GoogLeNet}


@dataclass(frozen=True)
class Options:
    """Time a classifier on every window of an image, and its fully convolutional twin on the image."""

    net: str = "alexnet"
    """lenet, alexnet, vgg16 or googlenet"""
    width: int = 0
    """channels, as the trunk counts them (0: the published net)"""
    size: int = 500
    """the side of the image in pixels"""
    photo: str = ""
    """a photograph, whose middle square takes the place of noise"""
    batch: int = 25
    """how many patches go through the classifier together, in the second of the three ways"""
    repeat: int = 1
    """how often each way is timed; the quickest counts"""
    seed: int = 0
    """decides the weights and the image"""
    device: str = "cpu"
    """"cpu", "gpu" or "auto" """
    threads: int = 0
    """threads that compute convolutions (0: one for each core)"""


def main(argv: list[str]) -> int:
    """Print the times of the three ways, forward and backward, and how much faster all at once is."""
    options = parse(Options, argv, verb="amortize")
    if options.net not in TRUNKS:
        raise UsageError(f"option net is {options.net!r}; expected one of {', '.join(TRUNKS)}")
    for name in ("batch", "repeat"):
        if getattr(options, name) < 1:
            raise UsageError(f"option {name} is {getattr(options, name)}; expected at least 1")
    trunk = TRUNKS[options.net]
    if options.size < trunk.size:
        raise UsageError(f"option size is {options.size}; expected at least {trunk.size}, what {options.net} looks at")
    device, why = choose_device(options.device)
    set_threads(options.threads or None)
    net = classifier(trunk, seed=options.seed, width=options.width or trunk.own_width)
    net.to(device)
    cells = out_size(net.layers(), options.size)
    print(f"device {why}")
    print(
        f"{options.net}, random weights: {cells}x{cells} windows of {trunk.size} pixels, one every "
        f"{Grid.of(net.layers()).stride}, in {options.size}x{options.size} of {options.photo or 'noise'}\n"
    )
    print(f"{'':<34} {'forward':>12} {'backward':>12}")
    timed = measure(net, options, device)
    for way, seconds in timed.items():
        print(f"{way:<34} " + " ".join(f"{1000 * s:>9.1f} ms" for s in seconds))
    *patches, whole = timed.values()
    for way, seconds in zip(timed, patches, strict=False):
        print(
            f"{'faster than ' + way:<34} " + " ".join(f"{a / b:>11.1f}x" for a, b in zip(seconds, whole, strict=True))
        )
    return 0


def measure(net: Classifier, options: Options, device: str) -> dict[str, tuple[float, float]]:
    """Seconds forward and backward of each way, in the order: one by one, in batches, all at once."""
    channels = next(p for _, p in net.parameters()).shape[1]
    image = square(options, channels)
    patches = windows(image, net)
    twin = convolutionalize(net)
    ways: dict[str, tuple[Module, list[np.ndarray]]] = {
        "patch by patch": (net, np.split(patches, len(patches))),
        f"{options.batch} patches at a time": (
            net,
            np.split(patches, range(options.batch, len(patches), options.batch)),
        ),
        "all at once": (twin, [image]),
    }
    return {way: clock(of, images, options.repeat, device) for way, (of, images) in ways.items()}


def square(options: Options, channels: int) -> np.ndarray:
    """(1, channels, size, size): noise, or the middle square of the photograph as a net is shown it."""
    if not options.photo:
        rng = np.random.default_rng(options.seed)
        return rng.standard_normal((1, channels, options.size, options.size), dtype=np.float32)
    photo = read_image(options.photo)
    side = min(photo.shape[:2])
    top, left = ((n - side) // 2 for n in photo.shape[:2])
    cut = CAFFE(photo[top : top + side, left : left + side])[None, :channels]  # LeNet sees one colour
    return bilinear_resize(cut, size=(options.size, options.size)).data


def windows(image: np.ndarray, net: Classifier) -> np.ndarray:
    """What each answer of the convolutional twin looks at, one patch after another: (cells^2, C, size, size).

    Where a pool's last window hangs over the edge (ceil mode), so does the patch; there it is filled with zeros.
    """
    side, stride = net.trunk.size, int(Grid.of(net.layers()).stride)
    cells = out_size(net.layers(), image.shape[-1])
    beyond = max(0, (cells - 1) * stride + side - image.shape[-1])
    image = np.pad(image, ((0, 0), (0, 0), (0, beyond), (0, beyond)))
    starts = [(i * stride, j * stride) for i in range(cells) for j in range(cells)]
    return np.concatenate([image[:, :, i : i + side, j : j + side] for i, j in starts])


def clock(net: Module, images: list[np.ndarray], repeat: int, device: str) -> tuple[float, float]:
    """The quickest of `repeat` passes over all `images`: forward alone, and what backward takes after it."""
    there = [to_device(x, device) for x in images]
    with evaluating(net):
        net(there[0])  # what is done once (kernels compiled, threads started) is done now
        forward = min(seconds(lambda: [net(x).data for x in there]) for _ in range(repeat))
    net.eval()
    backward = min(sum(backward_of(net, x) for x in there) for _ in range(repeat))
    return forward, backward


def backward_of(net: Module, x: Array) -> float:
    """Seconds of one backward pass, after a forward pass that is not counted."""
    parameters = [p for _, p in net.parameters()]
    y: Tensor = net(x)
    gy = y.data * 0 + 1

    def back() -> list[Any]:
        y.backward(gy)
        return [parameters[0].grad]

    to_host(y.data)
    spent = seconds(back)
    for p in parameters:
        p.clear_grad()
    return spent


def seconds(work: Callable[[], list[Any]]) -> float:
    """How long `work` takes until the arrays that it returns are there: a GPU answers before it has finished."""
    start = time.perf_counter()
    for array in work():
        to_host(array)
    return time.perf_counter() - start
