"""Errors in the paper and differences from its release, each demonstrated (docs/errata.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from minifcn import ops
from minifcn.experiments.reproduction.row import Row, row
from minifcn.experiments.reproduction.solver import CVPR15, HEAVY16
from minifcn.experiments.reproduction.structure import field_of, thin
from minifcn.geometry import Grid, Layer, out_size
from minifcn.models.alexnet import AlexNet
from minifcn.models.classifier import classifier
from minifcn.stitch import rarefied
from minifcn.tensor import Parameter


def rows() -> Iterator[Row]:
    """Yield the seven."""
    claim = "pixels along a side of a 3x3 window, over 0 <= delta <= k"
    yield row("section 3", claim, "4", pixels_of_a_window, expected="3", note="the index stops before k")
    claim = "outputs of AlexNet from 500x500"
    yield row("section 3.1", f"{claim}, with pools that round up, as Caffe's do", "10x10", lambda: alexnet_cells(True))
    yield row(
        "section 3.1", f"{claim}, with pools that round down", "10x10", lambda: alexnet_cells(False), expected="9x9"
    )
    claim = "FCN-GoogLeNet: receptive field"
    note = "907 counts the average pool that 4.1 takes out"
    yield row("table 1", claim, "907", partial(field_of, "fcn-googlenet"), expected="715", note=note)
    yield row("section 4.2", "fc6 after a pool5 of stride 1", "14x14", rarefied_fc6, expected="13x13")
    claim = "the weight decay, printed 5^-4"
    yield row("section 4.3", claim, f"{5**-4:g}", decay, expected="0.0005", note="5 x 10^-4; so are 2^-4 and 5^-5")
    claim = "the last layer alone, of full fine-tuning: 45.4 of 59.4 mean IU"
    yield row("section 4.3", claim, "70 %", lambda: f"{100 * 45.4 / 59.4:.0f} %", expected="76 %", note="by table 2")
    claim = "FCN-8s: upsampling that learns"
    published = "upscore2, upscore_pool4"
    yield row("section 4.3", f"{claim}, CVPR 2015", published, lambda: learned("voc-fcn8s-cvpr15"))
    yield row("section 4.3", f"{claim}, released", published, lambda: learned("voc-fcn8s"), expected="none")


def pixels_of_a_window() -> int:
    """Return how many pixels along a side one output of a 3x3 convolution has a gradient for."""
    x = Parameter(np.zeros((1, 1, 9, 9)))
    one = np.zeros((1, 1, 7, 7))
    one[:, :, 2, 2] = 1
    (ops.conv2d(x, np.ones((1, 1, 3, 3))) * one).sum().backward()
    reached: Any = x.grad
    return reached[0, 0].any(axis=0).sum()


def alexnet_cells(ceil: bool) -> str:
    """Return the outputs of AlexNet for 500x500 pixels, with pools that round up or down."""
    chain = classifier(AlexNet, width=1, classes=2).trunk.layers()
    size = out_size([replace(layer, ceil=layer.ceil and ceil) for layer in chain], 500)
    return f"{size}x{size}"


def rarefied_fc6() -> tuple[str, str]:
    """Return the extent of fc6, seven taps two cells apart, and what it sees: a window of 14 sees farther."""
    chain = thin("voc-fcn32s").trunk.layers()
    *below, fc6, fc7 = rarefied(chain, 16)
    wide = Grid.of([*below, Layer(14), fc7]).field
    return f"{fc6.extent}x{fc6.extent}", f"sees {Grid.of(chain).field} pixels as before; 14x14 would see {wide}"


def decay() -> str:
    """Return the weight decay of the recipes."""
    return f"{HEAVY16.decay:g}" if HEAVY16.decay == CVPR15.decay else f"{CVPR15.decay:g} and {HEAVY16.decay:g}"


def learned(name: str) -> str:
    """Return the upsamplings of a net that learn."""
    names = [key.removesuffix(".w") for key, _ in thin(name).named_parameters() if key.startswith("upscore")]
    return ", ".join(names) or "none"
