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

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from minifcn import viz
from minifcn.backend import to_device, to_host
from minifcn.cli.command import parse_words, relay, say
from minifcn.data.batches import Preprocessing
from minifcn.data.files import read_image
from minifcn.errors import UsageError
from minifcn.experiments.classify import class_number, classifier_of, heat_of, middle, softmax
from minifcn.formats.limits import path_of
from minifcn.inference import inference
from minifcn.kernels.threads import cores, set_threads
from minifcn.models.classifier import Classifier
from minifcn.tensor import Tensor
from minifcn.training.device import choose_device
from minifcn.training.ranges import check_ranges
from minifcn.weights.published import imagenet_squeezenet, open_weights


@dataclass(frozen=True)
class Options:
    """Classify photographs: `minifcn classify photo.jpg ...`, with --heatmap `photo.jpg --heatmap CLASS out.png`."""

    weights: Annotated[str, "a file of weights of a classifier; by default SqueezeNet's that come with the library"] = (
        ""
    )
    top: Annotated[int, "how many classes to name, the most probable first"] = 5
    heatmap: Annotated[str, "a class, by a name or its number: draw where it is into the last file named"] = ""
    scale: Annotated[
        float, "for the heat map, enlarge the photograph so many times (0: until its shorter side has two windows)"
    ] = 0.0
    device: Annotated[str, '"cpu", "gpu" or "auto"'] = "auto"
    threads: Annotated[int, "threads that compute convolutions (0: one for each core)"] = 0


def main(argv: list[str]) -> int:
    """Name the most probable classes of each photograph, or draw where one class is. Return the exit code."""
    words, options = parse_words(Options, argv, verb="classify", words="photo ...")
    check_ranges(options, [("top", 1, math.inf), ("scale", 0, 64)])
    if options.heatmap and (len(words) != 2 or path_of(words[-1]).suffix.lower() != ".png"):
        raise UsageError("classify: expected a photograph and a .png file: classify photo.jpg --heatmap CLASS out.png")
    if not words:
        raise UsageError("classify: expected at least one photograph: minifcn classify photo.jpg ...")
    device, _ = choose_device(options.device)
    set_threads(options.threads or cores())
    weights = open_weights(options.weights, say=relay) if options.weights else imagenet_squeezenet()
    net, preprocessing = classifier_of(weights)
    net.to(device)
    if options.heatmap:
        draw(net, preprocessing, weights.classes, options, path_of(words[0]), path_of(words[1]), device)
        return 0
    for word in words:
        x = preprocessing(middle(read_image(word), net.trunk.size))[None]
        with inference(net):
            shares = softmax(to_host(net(Tensor(to_device(x, device))).data))[0]
        say(word)
        for i in np.argsort(-shares, kind="stable")[: options.top]:
            say(f"  {100 * shares[i]:>6.2f} %  {weights.classes[i]}")
    return 0


def draw(
    net: Classifier,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    options: Options,
    photo: Path,
    out: Path,
    device: str,
) -> None:
    """Draw the probability of one class in every window over the photograph."""
    chosen, image = class_number(options.heatmap, classes), read_image(photo)
    heat, start, stride = heat_of(net, preprocessing, image, chosen, scale=options.scale, device=device)
    best = np.unravel_index(heat.argmax(), heat.shape)
    row, column = (round(start + stride * int(i)) for i in best)
    viz.heat_map(image, heat, f"probability of {classes[chosen].split(',')[0]}", start=start, stride=stride, path=out)
    windows = "x".join(map(str, heat.shape))
    say(f"{photo}: {windows} windows, {classes[chosen]} at most {100 * heat.max():.1f} %, around {column},{row}")
    say(f"wrote {out}")
