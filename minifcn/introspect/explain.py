"""Why a pixel got its class: what each map adds to its scores, what every layer sees there, and the gradient.

Behind the score layers an FCN only adds: upsampling, cropping and fusing by a sum are linear. So the score of a class
is, exactly, a sum of what fc7, pool4 and pool3 each put in, and each part can be followed up the ladder by itself. With
fusion by a maximum, each place belongs to the larger score, and the parts of the other end there. The gradient of the
winning score minus the second says which pixels speak for the one and which for the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minifcn import ops
from minifcn.backend import device_of, to_device, to_host
from minifcn.errors import UsageError
from minifcn.geometry import Grid
from minifcn.introspect.describe import describe
from minifcn.models.fcn import FCN, Words, follow
from minifcn.models.tiling import Tiling
from minifcn.nn import EVALUATED, Conv2d, Module, Upsample
from minifcn.tensor import Parameter, Tensor, no_grad

Parts = dict[str, Tensor]


@dataclass(frozen=True)
class Field:
    """What one cell of a layer sees: `grid` of the layer, and the (row, column) of its cell nearest to the pixel."""

    name: str
    grid: Grid
    cell: tuple[int, int]


@dataclass(frozen=True)
class Explanation:
    """Why the pixel `at` (x, y) got class `order[0]`, and not the second, `order[1]`.

    `scores` (C,) are the pixel's, `parts` what each map adds to them: they sum to the scores. `gradient` (h, w, C) is
    that of the winning score minus the second, at the pixels of the preprocessed image from `corner` (row, column) on;
    all others have none. `fields` lists the layers in the order in which they run.
    """

    at: tuple[int, int]
    order: tuple[int, ...]
    scores: np.ndarray
    parts: Mapping[str, np.ndarray]
    gradient: np.ndarray
    corner: tuple[int, int]
    fields: tuple[Field, ...]


def explain(net: Module, image: np.ndarray, at: tuple[int, int]) -> Explanation:
    """Explain the pixel `at` (x, y) of a preprocessed image (C, H, W); of several heads, the first.

    Only what the pixel can see is computed, so the size of the image does not matter. `UsageError` for what is no FCN.
    """
    if not isinstance(net, FCN):
        raise UsageError(f"explain: found {type(net).__name__}; expected an FCN, whose score is a sum over its maps")
    (x, y), head = at, net.heads[0]
    tiling = looking(net)
    (top, bottom), (left, right) = (
        tiling.crop(size, (place, place + 1)) for size, place in zip(image.shape[1:], (y, x), strict=True)
    )
    device = device_of(next(net.parameters()).data)
    seen = Parameter(to_device(image[None, :, top:bottom, left:right].copy(), device))
    learned = [parameter for parameter in net.parameters() if not parameter.frozen]
    for parameter in learned:
        parameter.freeze()
    try:
        with EVALUATED.set(EVALUATED() | {id(module) for module in net.modules()}):
            features = net.trunk(seen, keep=net.skips)
            with no_grad():
                parts = contributions(net, features, seen, head)
            score = net.climb(features, seen, head)[0, :, y - top, x - left]
            scores = to_host(score.data)
            order = tuple(int(i) for i in np.argsort(-scores, kind="stable"))
            towards = np.zeros_like(scores)
            towards[list(order[1:2])] = -1
            towards[order[0]] = 1
            score.backward(to_device(towards, device))
    finally:
        for parameter in learned:
            parameter.freeze(False)
    gradient = to_host(seen.grad)[0].transpose(1, 2, 0)
    pixel = {name: to_host(part.data)[0, :, y - top, x - left] for name, part in parts.items()}
    return Explanation(at, order, scores, pixel, gradient, (top, left), fields(net, image.shape[1:], (y, x)))


def looking(net: FCN) -> Tiling:
    """Return a tiling that crops to what a pixel can see; to the whole image, where a pixel sees it all."""
    try:
        return dataclasses.replace(Tiling.of(net, 1 << 30), tile=1)
    except UsageError:
        return Tiling()


def contributions(net: FCN, features: Mapping[str, Tensor], image: Any, head: str = "") -> Parts:
    """Return what each output of the trunk that is scored adds to the scores (N, C, H, W), by name.

    They sum to the scores. The bias of a score layer belongs to its map. `UsageError` for an upsampling that is not
    linear.
    """

    def layer(name: str, x: Any) -> Any:
        module = getattr(net, name)
        if not isinstance(x, dict):  # a map of the trunk, scored
            source = name.removeprefix("score_").removesuffix(head)
            return {net.trunk.last if source == "fr" else source: module(x)}
        if isinstance(module, Conv2d):  # of fusion by concatenation; the map that came last has the bias
            *_, newest = x
            return {part: ops.conv2d(y, module.w, module.b if part == newest else None) for part, y in x.items()}
        if not isinstance(module, Upsample):
            raise UsageError(f"explain: {name} is a {type(module).__name__}; expected an upsampling that is linear")
        return {part: module(y) for part, y in x.items()}

    def cropped(at: int, x: Any, like: Any) -> Any:
        like = next(iter(like.values())) if isinstance(like, dict) else like
        if isinstance(x, dict):
            return {part: ops.crop(y, like=like, at=at) for part, y in x.items()}
        return ops.crop(x, like=like, at=at)

    def fused(fusion: str, score: Parts, skip: Any) -> Parts:
        if fusion == "sum":
            return {**score, **skip}
        if fusion == "concat":
            first, name = next(iter(score.values())), net.skips[len(score) - 1]
            beside = {part: ops.concat(y, skip * 0) for part, y in score.items()}
            return {**beside, name: ops.concat(first * 0, skip)}
        (name, other), *_ = skip.items()
        wins = (total(score) >= other.data).astype(other.dtype)
        return {part: y * wins for part, y in score.items()} | {name: other * (1 - wins)}

    words: Words = {"layer": layer, "scale": lambda factor, x: x * factor, "crop": cropped, "fuse": fused}
    return follow(net.steps(head), {**features, "image": image}, words)


def total(parts: Parts) -> Any:
    """Return the sum of the parts, as an array."""
    first, *others = (part.data for part in parts.values())
    return sum(others, first)


def fields(net: FCN, size: tuple[int, ...], pixel: tuple[int, int]) -> tuple[Field, ...]:
    """Return what every layer sees with its cell nearest to `pixel` (row, column) of an image of `size`."""
    found = []
    for row in describe(net, (size[0], size[1])).rows:
        if row.grid is None or row.kind in ("ReLU", "Dropout", "LocalResponseNorm"):
            continue
        start, stride = row.grid.start, row.grid.stride
        cells = [
            min(max(round((place - start) / stride), 0), count - 1)
            for place, count in zip(pixel, row.shape[2:], strict=True)
        ]
        found.append(Field(row.name, row.grid, (cells[0], cells[1])))
    return tuple(found)
