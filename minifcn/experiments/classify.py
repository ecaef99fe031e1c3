"""What is on a photograph, and where: a classifier's probabilities for its middle, and for every window of it.

A classifier sees the middle square of a photograph, at the one size it was trained at. Made convolutional, the same
weights look at every window of that size in a larger photograph at once: a heat map, as in figure 2 of the paper.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Sequence

import numpy as np

from minifcn import ops
from minifcn.backend import to_device, to_host
from minifcn.data.batches import Preprocessing
from minifcn.errors import UsageError
from minifcn.geometry import Grid, out_size
from minifcn.inference import inference
from minifcn.models.classifier import Classifier, GlobalAverage
from minifcn.nn import AvgPool2d, Linear, Module
from minifcn.surgery import convolutionalize
from minifcn.tensor import Tensor
from minifcn.weights.published import WeightSet

MAX_SIDE = 4096


def classifier_of(weights: WeightSet) -> tuple[Classifier, Preprocessing]:
    """Return the classifier with these weights and its preprocessing; `UsageError` for another kind of net."""
    net = weights.network()
    if not isinstance(net, Classifier):
        raise UsageError(f"{weights.path}: {weights.net} labels pixels; it is no classifier")
    if weights.preprocessing is None:
        raise UsageError(f"{weights.path}: {weights.net} takes no photographs in colour")
    return net, weights.preprocessing


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return scores (N, classes, ...) as probabilities."""
    return ops.softmax(scores).data


def middle(image: np.ndarray, size: int) -> np.ndarray:
    """Return the middle square of a photograph, scaled to `size`: (H, W, 3) uint8 -> (size, size, 3)."""
    from PIL import Image

    height, width = image.shape[:2]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box=box))


def dense(net: Classifier) -> Module:
    """Return the classifier with an answer for every window of a larger image: (N, classes, h, w).

    Fully connected layers become convolutions; an average over the whole map becomes one over as much of it as the
    classifier sees at its own size.
    """
    if any(isinstance(module, Linear) for module in net.modules()):
        return convolutionalize(net)
    net = copy.deepcopy(net)
    cells = out_size([*net.trunk.layers(), *net.top.layers()], net.trunk.size)
    for name, module in net.top.sequence().items():
        if isinstance(module, GlobalAverage):
            setattr(net.top, name, AvgPool2d(cells, stride=1))
    return net


def heat_of(
    net: Classifier,
    preprocessing: Preprocessing,
    image: np.ndarray,
    chosen: int,
    *,
    scale: float = 0,
    device: str = "cpu",
) -> tuple[np.ndarray, float, float]:
    """Return the probability (h, w) of class `chosen` in every window of `image` (H, W, 3) uint8, `start`, `stride`.

    The middle of the first window is at pixel `start` of the image in both directions, the next is `stride` pixels on.
    Raises `UsageError` where the enlarged photograph would be too large.
    """
    from PIL import Image

    size, (height, width) = net.trunk.size, image.shape[:2]
    factor = max(scale or max(1.0, 2 * size / min(height, width)), size / min(height, width))
    large = (max(size, round(height * factor)), max(size, round(width * factor)))
    if max(large) > MAX_SIDE:
        raise UsageError(f"{large[1]}x{large[0]} pixels are too many; choose a smaller scale")
    seen = np.asarray(Image.fromarray(image).resize(large[::-1], Image.Resampling.BILINEAR))
    windows = dense(net)
    with inference(windows):
        scores = windows(Tensor(to_device(preprocessing(seen)[None], device))).data
    grid = Grid.of(windows.layers())
    heat = softmax(to_host(scores))[0, chosen]
    return heat, (float(grid.start) + 0.5) / factor - 0.5, float(grid.stride) / factor


def class_number(word: str, classes: Sequence[str]) -> int:
    """Return the class that `word` means: a number, a name, or words of just one name. `UsageError` otherwise."""
    if re.fullmatch(r"\d{1,6}", word):
        if int(word) < len(classes):
            return int(word)
        raise UsageError(f"class {word} does not exist; expected a number from 0 to {len(classes) - 1} or a name")
    wanted = word.lower().strip()
    names = [[name.strip().lower() for name in each.split(",")] for each in classes]
    exact = [i for i, own in enumerate(names) if wanted in own]
    parts = [i for i, own in enumerate(names) if any(f" {wanted} " in f" {name} " for name in own)]
    for found in (exact, parts):
        if len(found) == 1:
            return found[0]
        if found:
            some = "; ".join(f"{i} {classes[i]}" for i in found[:6])
            raise UsageError(f"class {word!r} may be any of {len(found)}: {some}; choose one by its number")
    close = difflib.get_close_matches(wanted, [name for own in names for name in own], n=3)
    raise UsageError(f"class {word!r} does not exist; {'near are ' + ', '.join(close) if close else 'nothing is near'}")
