"""Time patch-by-patch against fully convolutional prediction (FCN, section 3.1).

A classifier that slides over an image computes almost everything again for the next window, which overlaps it. Made
convolutional, it computes each thing once. The paper measured 22 ms for 10x10 answers, and 1.2 ms for each of the
hundred patches in batches, 5.4 ms one at a time. The weights are random here: only the times mean something.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from minifcn.backend import Array, to_device, to_host
from minifcn.data import CAFFE
from minifcn.geometry import Grid, out_size
from minifcn.introspect.describe import channels
from minifcn.models.classifier import Classifier
from minifcn.models.zoo import NETS, TRUNKS
from minifcn.nn import Module, evaluating
from minifcn.ops import bilinear_resize
from minifcn.surgery import convolutionalize
from minifcn.tensor import Tensor

# Classifiers that look at windows; SqueezeNet's answer is a mean over the whole image, however large
SLIDING = {name: NETS[name] for name in TRUNKS if not name.startswith("squeezenet")}


def measure(
    net: Classifier, image: np.ndarray, *, batch: int = 25, repeat: int = 1, device: str = "cpu"
) -> dict[str, tuple[float, float]]:
    """Return the seconds forward and backward of each way over `image` (1, C, side, side), by name.

    The ways are one patch after another, patches in batches, and all at once.
    """
    patches = windows(image, net)
    twin = convolutionalize(net)
    ways: dict[str, tuple[Module, list[np.ndarray]]] = {
        "patch by patch": (net, np.split(patches, len(patches))),
        f"{batch} patches at a time": (net, np.split(patches, range(batch, len(patches), batch))),
        "all at once": (twin, [image]),
    }
    return {way: clock(of, images, repeat, device) for way, (of, images) in ways.items()}


def noise(net: Classifier, size: int, seed: int = 0) -> np.ndarray:
    """Return an image (1, C, size, size) of float32 noise, with the C channels that the net takes."""
    return np.random.default_rng(seed).standard_normal((1, channels(net), size, size), dtype=np.float32)


def square(net: Classifier, photo: np.ndarray, size: int) -> np.ndarray:
    """Return the middle square of a photograph (H, W, 3) uint8 as the net is shown it: (1, C, size, size) float32."""
    side = min(photo.shape[:2])
    top, left = ((n - side) // 2 for n in photo.shape[:2])
    cut = CAFFE(photo[top : top + side, left : left + side])[None, : channels(net)]  # LeNet sees one colour
    return bilinear_resize(cut, size=(size, size)).data


def windows(image: np.ndarray, net: Classifier) -> np.ndarray:
    """Return what each answer of the convolutional twin looks at, one patch after another: (cells^2, C, size, size).

    Where a pool's last window hangs over the edge (ceil mode), so does the patch; there it is filled with zeros.
    """
    side, stride = net.trunk.size, int(Grid.of(net.layers()).stride)
    cells = out_size(net.layers(), image.shape[-1])
    beyond = max(0, (cells - 1) * stride + side - image.shape[-1])
    image = np.pad(image, ((0, 0), (0, 0), (0, beyond), (0, beyond)))
    starts = [(i * stride, j * stride) for i in range(cells) for j in range(cells)]
    return np.concatenate([image[:, :, i : i + side, j : j + side] for i, j in starts])


def clock(net: Module, images: list[np.ndarray], repeat: int, device: str) -> tuple[float, float]:
    """Return the quickest of `repeat` passes over all `images`: forward alone, and what backward takes after it."""
    there = [to_device(x, device) for x in images]
    with evaluating(net):
        net(there[0])  # what is done once (kernels compiled, threads started) is done now
        forward = min(seconds(lambda: [net(x).data for x in there]) for _ in range(repeat))
    net.eval()
    backward = min(sum(backward_of(net, x) for x in there) for _ in range(repeat))
    return forward, backward


def backward_of(net: Module, x: Array) -> float:
    """Return the seconds of one backward pass, after a forward pass that is not counted."""
    y: Tensor = net(x)
    gy = y.data * 0 + 1

    def back() -> list[Any]:
        y.backward(gy)
        return [next(net.parameters()).grad]

    to_host(y.data)
    spent = seconds(back)
    net.zero_grad()
    return spent


def seconds(work: Callable[[], list[Any]]) -> float:
    """Return how long `work` takes until the arrays that it returns are there: a GPU answers before it has finished."""
    start = time.perf_counter()
    for array in work():
        to_host(array)
    return time.perf_counter() - start
