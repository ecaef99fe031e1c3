"""Show tensors, modules and confusion matrices in a notebook: the HTML for the classes of the course.

The files of the course hold no HTML. `minifcn/__init__.py` calls `register`, which gives their classes `_repr_html_`,
the method that Jupyter asks for. A large array is never drawn whole: a picture has at most 64 pixels a side.
"""

from __future__ import annotations

import io

import numpy as np

from minifcn.backend import to_host
from minifcn.introspect.markup import Html, html_table, inline, tag
from minifcn.metrics import ConfusionMatrix
from minifcn.nn import Module
from minifcn.tensor import Tensor

SIDE = 64  # pixels of a thumbnail, at most
BLUE = np.array([8, 48, 107])


def register() -> None:
    """Give the classes of the course their `_repr_html_`."""
    for kind, show in ((Tensor, tensor_html), (Module, module_html), (ConfusionMatrix, confusion_html)):
        kind._repr_html_ = show  # type: ignore[union-attr]


def tensor_html(x: Tensor) -> str:
    """Return what `repr` says, and a thumbnail of the first map: three channels in colour, any other number in grey.

    The smallest finite value is black and the largest white; what is not finite is magenta.
    """
    if x.ndim < 2 or not x.size:
        return tag("code", repr(x))
    axes = 3 if x.ndim > 2 and x.shape[-3] == 3 else 2
    values = thumbnail(x.data[(0,) * (x.ndim - axes)])
    if axes == 3:
        values = values.transpose(1, 2, 0)
    finite = np.isfinite(values)
    low, high = (float(end(values[finite])) if finite.any() else 0.0 for end in (np.min, np.max))
    grey = np.where(finite, values - low, 0) * (255 / ((high - low) or 1))
    picture = np.broadcast_to(grey if axes == 3 else grey[..., None], (*values.shape[:2], 3)).copy()
    picture[~(finite.all(axis=-1) if axes == 3 else finite)] = 255, 0, 255
    what = f"values[{', '.join('0' * (x.ndim - axes) + ':' * axes)}], black {low:.4g}, white {high:.4g}"
    return tag("div", tag("code", repr(x))) + drawn(picture, what)


def module_html(net: Module) -> str:
    """Return a table: each module without modules inside, its settings and its number of parameters."""
    rows = [("layer", "kind", "settings", "parameters")]
    for name, module in net.named_modules():
        if not any(isinstance(child, Module) for _, child in module.children()):
            size = sum(parameter.size for parameter in module.parameters())
            frozen = " (frozen)" * any(parameter.frozen for parameter in module.parameters())
            rows.append((name, type(module).__name__, module.extra_repr(), f"{size:,}{frozen}" if size else ""))
    rows.append(("all", type(net).__name__, "", f"{sum(parameter.size for parameter in net.parameters()):,}"))
    return html_table(rows)


def confusion_html(confusion: ConfusionMatrix) -> str:
    """Return what `repr` says, and a heat map: each row is a true class, its darkest cells where its pixels went."""
    counts = thumbnail(confusion.matrix)
    parts = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    picture = 255 - parts[..., None] * (255 - BLUE)
    return tag("div", tag("code", repr(confusion))) + drawn(picture, "rows: true class, columns: predicted class")


def thumbnail(array: np.ndarray) -> np.ndarray:
    """Return at most SIDE x SIDE of the last two axes on the host, as float64: every k-th row and column."""
    rows, columns = (-(-side // SIDE) for side in array.shape[-2:])
    return to_host(array[..., ::rows, ::columns]).astype(np.float64)


def drawn(picture: np.ndarray, what: str) -> Html:
    """Return an RGB picture (H, W, 3) of values up to 255 as an image, small ones enlarged, with a line below."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.rint(picture).astype(np.uint8)).save(file, format="PNG")
    width = picture.shape[1] * max(1, 2 * SIDE // max(picture.shape[:2]))
    style = f"width:{width}px;image-rendering:pixelated"
    return tag("div", tag("img", src=inline(file.getvalue()), alt=what, style=style), tag("div", what))
