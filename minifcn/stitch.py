"""Make a coarse net dense in two equal ways: shift-and-stitch and filter rarefaction.

A net of stride f answers at every f-th pixel. *Shift-and-stitch* asks it f*f times, about the image moved by
0 .. f-1 pixels each way, and interlaces the answers. *Rarefaction* (filter rarefaction, "a trous", dilation) runs it
once, with every stride taken out: then the maps behind it are larger, and each later window must step over the cells
that used not to be there:

    f'[i, j] = f[i/s, j/s] where s divides both i and j, else 0         for every removed stride s, layer by layer

A pool's window is a filter, too, and padding is counted in cells, so both are stretched alike. The two agree wherever
the receptive field meets neither padding nor a clipped window (`Grid.inside`); dense[::f, ::f] is there the coarse net
itself. FCN, section 3.2.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from minifcn.errors import GeometryError, UsageError
from minifcn.geometry import Grid, Layer, out_size
from minifcn.nn import Linear, Module, Sliding
from minifcn.ops import crop, shift, stitch
from minifcn.tensor import Tensor


def shift_and_stitch(net: Module, image: Tensor | Any) -> Tensor:
    """Return the dense output (N, C, H', W') of `net`, of the same size as that of `rarefy(net)`; f is its stride.

    All f*f moved images are one batch, so this is for small images and strides. Gradients flow through. Of a net with
    several outputs (a trunk) the last one counts.
    """
    chain = net.layers()
    dense = tuple(out_size(rarefied(chain), n) for n in image.shape[2:])
    factor = math.prod(layer.stride for layer in chain)
    coarse = net(shift(image, factor=factor))
    if isinstance(coarse, Mapping):
        *_, coarse = coarse.values()
    return crop(stitch(coarse, factor=factor), like=dense)


def rarefied(chain: Sequence[Layer], output_stride: int = 1) -> list[Layer]:
    """The same chain with stride `output_stride`: the first strides stay, later ones become dilation.

    What the chain sees does not change: `Grid.of` has the same start and field before and after.
    """
    kept, stretch, result = 1, 1, []
    for layer in chain:
        stride = math.gcd(layer.stride, output_stride // kept)
        dilation, padding = layer.dilation * stretch, layer.padding * stretch
        result.append(replace(layer, stride=stride, dilation=dilation, padding=padding))
        kept, stretch = kept * stride, stretch * (layer.stride // stride)
    return result


def rarefy(net: Module, output_stride: int = 1) -> Module:
    """Return a copy of `net`, weights and all, that answers at every `output_stride`-th pixel.

    Works on any net whose windows slide one after another; between strides it may branch and join. Raises
    `GeometryError` where `output_stride` does not divide the stride, `UsageError` for nets that cannot be stretched.
    """
    found = dict(sliding(net))
    strides = {name: module.layer.stride for name, module in found.items() if module.layer.stride > 1}
    total = math.prod(strides.values())
    made = ", ".join(f"{name} ({stride})" for name, stride in strides.items()) or "no layer"
    for name, module in net.named_modules():
        if isinstance(module, Linear) or (name in found and found[name].layer.transpose):
            kind = type(module).__name__
            raise UsageError(f"rarefy: {name} is a {kind}; expected convolutions and pools only: rarefy the trunk")
    if Grid.of(net.layers()).stride != total:
        raise UsageError(f"rarefy: the strides of {made} do not follow one another; expected them on one path")
    if output_stride < 1 or total % output_stride:
        raise GeometryError(
            f"rarefy: output stride {output_stride} does not divide the stride {total} made by {made}; "
            f"expected one of {', '.join(str(n) for n in range(1, total + 1) if total % n == 0)}"
        )
    dense = copy.deepcopy(net)
    chain = rarefied([module.layer for module in found.values()], output_stride)
    for (_, module), layer in zip(sliding(dense), chain, strict=True):
        module.layer = layer
    return dense


def sliding(net: Module) -> Iterator[tuple[str, Sliding]]:
    """Return those that have a window."""
    return ((name, module) for name, module in net.named_modules() if isinstance(module, Sliding))
