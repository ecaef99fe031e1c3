"""`minifcn classify`: name what a photograph shows, and draw where it is.

    minifcn classify kitten.jpg dog.jpg
    minifcn classify photo.jpg --weights vgg16.safetensors --top 3
    minifcn classify kitten.jpg --heatmap tabby heat.png

The net is SqueezeNet 1.0 with its ImageNet weights, which come with the library, or any classifier whose weights
`minifcn inspect` recognises. A classifier sees the middle square of a photograph, at the one size it was trained at.
Made convolutional, the same weights look at every window of that size in a larger photograph at once: a heat map, as
in figure 2 of the paper.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minifcn import viz
from minifcn.backend import to_device, to_host
from minifcn.cli.command import parse, split_words
from minifcn.data.batches import Preprocessing
from minifcn.data.files import read_image
from minifcn.errors import UsageError
from minifcn.geometry import Grid, out_size
from minifcn.inference import inference
from minifcn.kernels.threads import cores, set_threads
from minifcn.models.classifier import Classifier, GlobalAverage
from minifcn.nn import AvgPool2d, Linear, Module
from minifcn.surgery import convolutionalize
from minifcn.tensor import Tensor
from minifcn.training.device import choose_device
from minifcn.weights.published import WeightSet, imagenet_squeezenet, open_weights

MAX_SIDE = 4096


@dataclass(frozen=True)
class Options:
    """Classify photographs: `minifcn classify photo.jpg ...`, with --heatmap `photo.jpg --heatmap CLASS out.png`."""

    weights: str = ""
    """a file of weights of a classifier; by default SqueezeNet's that come with the library"""
    top: int = 5
    """how many classes to name, the most probable first"""
    heatmap: str = ""
    """a class, by a name or its number: draw where it is into the last file named"""
    scale: float = 0.0
    """for the heat map, enlarge the photograph so many times (0: until its shorter side has two windows)"""
    device: str = "auto"
    """"cpu", "gpu" or "auto" """
    threads: int = 0
    """threads that compute convolutions (0: one for each core)"""


def main(argv: list[str]) -> int:
    """Name the most probable classes of each photograph, or draw where one class is."""
    words, rest = split_words(Options, argv)
    options = parse(Options, rest, verb="classify", words="photo ...")
    if options.top < 1 or not 0 <= options.scale <= 64:
        raise UsageError("classify: expected a --top of at least 1 and a --scale from 0 to 64")
    if options.heatmap and (len(words) != 2 or Path(words[-1]).suffix.lower() != ".png"):
        raise UsageError("classify: expected a photograph and a .png file: classify photo.jpg --heatmap CLASS out.png")
    if not words:
        raise UsageError("classify: expected at least one photograph: minifcn classify photo.jpg ...")
    device, _ = choose_device(options.device)
    set_threads(options.threads or cores())
    weights = open_weights(options.weights) if options.weights else imagenet_squeezenet()
    net, preprocessing = classifier_of(weights)
    net.to(device)
    if options.heatmap:
        draw(net, preprocessing, weights.classes, options, Path(words[0]), Path(words[1]), device)
        return 0
    for word in words:
        x = preprocessing(middle(read_image(word), net.trunk.size))[None]
        with inference(net):
            shares = softmax(to_host(net(Tensor(to_device(x, device))).data))[0]
        print(word)
        for i in np.argsort(-shares, kind="stable")[: options.top]:
            print(f"  {100 * shares[i]:>6.2f} %  {weights.classes[i]}")
    return 0


def classifier_of(weights: WeightSet) -> tuple[Classifier, Preprocessing]:
    """The classifier with these weights, and what its images go through; `UsageError` if it is another kind of net."""
    net = weights.network()
    if not isinstance(net, Classifier):
        raise UsageError(f"{weights.path}: {weights.net} labels pixels; `minifcn predict` does that, classify cannot")
    if weights.preprocessing is None:
        raise UsageError(f"{weights.path}: {weights.net} takes no photographs in colour; classify cannot prepare them")
    return net, weights.preprocessing


def softmax(scores: np.ndarray) -> np.ndarray:
    """Scores (N, classes, ...) as probabilities."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def middle(image: np.ndarray, size: int) -> np.ndarray:
    """The middle square of a photograph, scaled to `size`: (H, W, 3) uint8 -> (size, size, 3)."""
    from PIL import Image

    height, width = image.shape[:2]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box=box))


# ---------------------------------------------------------------------------------------------------------------------
# Where it is
# ---------------------------------------------------------------------------------------------------------------------


def dense(net: Classifier) -> Module:
    """The classifier with an answer for every window of a larger image: (N, classes, h, w).

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


def draw(
    net: Classifier,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    options: Options,
    photo: Path,
    out: Path,
    device: str,
) -> None:
    """The probability of one class in every window of the photograph, drawn over it."""
    chosen, image = class_number(options.heatmap, classes), read_image(photo)
    heat, start, stride = heat_of(net, preprocessing, image, chosen, scale=options.scale, device=device)
    best = np.unravel_index(heat.argmax(), heat.shape)
    row, column = (round(start + stride * int(i)) for i in best)
    viz.heat_map(image, heat, f"probability of {classes[chosen].split(',')[0]}", start=start, stride=stride, path=out)
    windows = "x".join(map(str, heat.shape))
    print(f"{photo}: {windows} windows, {classes[chosen]} at most {100 * heat.max():.1f} %, around {column},{row}")
    print(f"wrote {out}")


def heat_of(
    net: Classifier,
    preprocessing: Preprocessing,
    image: np.ndarray,
    chosen: int,
    *,
    scale: float = 0,
    device: str = "cpu",
) -> tuple[np.ndarray, float, float]:
    """The probability (h, w) of class `chosen` in every window of `image` (H, W, 3) uint8; where the windows lie.

    The middle of the first window is at pixel `start` of the image in both directions, the next is `stride` pixels on.
    Raises `UsageError` where the enlarged photograph would be too large.
    """
    from PIL import Image

    size, (height, width) = net.trunk.size, image.shape[:2]
    factor = max(scale or max(1.0, 2 * size / min(height, width)), size / min(height, width))
    large = (max(size, round(height * factor)), max(size, round(width * factor)))
    if max(large) > MAX_SIDE:
        raise UsageError(f"classify: {large[1]}x{large[0]} pixels are too many; choose a smaller --scale")
    seen = np.asarray(Image.fromarray(image).resize(large[::-1], Image.Resampling.BILINEAR))
    windows = dense(net)
    with inference(windows):
        scores = windows(Tensor(to_device(preprocessing(seen)[None], device))).data
    grid = Grid.of(windows.layers())
    heat = softmax(to_host(scores))[0, chosen]
    return heat, (float(grid.start) + 0.5) / factor - 0.5, float(grid.stride) / factor


def class_number(word: str, classes: Sequence[str]) -> int:
    """The class that `word` means: its number, one of its names, or words of just one. `UsageError` otherwise."""
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
