"""Ours beside PyTorch: one product of a layer, and a whole net on either side."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minifcn import viz
from minifcn.errors import MinifcnError, UsageError
from minifcn.experiments.bench.rival import import_torch, layouts, torch_products
from minifcn.experiments.bench.stopwatch import peak_while, seconds_of, take_turns
from minifcn.experiments.bench.studies import Depthwise, Layer, Work
from minifcn.kernels.convolution import choose

SIDES = ["ours", "torch", "torch-channels-last"]
"""Who works in a process of its own; PyTorch in both of its memory layouts."""


def measure(layer: Layer, product: str, *, torch: Any = None, batch: int = 1, runs: int = 5) -> dict[str, Any]:
    """Time one product of one layer: medians in milliseconds, its multiply-adds, the bytes it must move at least."""
    x, w, gy = layer.arrays(batch)
    ours: Callable[[], Any] = layer.products(x, w, gy)[product]
    rivals = [torch_products(torch, x, w, gy, layout, padding=layer.padding)[product] for layout in layouts(torch)]
    if rivals and not np.allclose(ours(), rivals[0]().numpy(), atol=1e-4 * float(np.abs(ours()).max())):
        raise MinifcnError(f"{layer.name} {product}: ours and PyTorch's results differ: report this")
    mine, alone, *others = take_turns([ours, layer.alone(product, batch), *rivals], runs)
    channels = layer.inputs, layer.outputs
    if product == "grad_x":
        channels = channels[::-1]
    return {
        "layer": layer.name,
        "alone_ms": statistics.median(alone) * 1e3,
        "product": product,
        "way": choose(x, layer.windows, *channels, batch, (layer.out, layer.out)),
        "multiply_adds": layer.multiply_adds * batch,
        "least_bytes": layer.least_bytes(batch),
        **times_of(mine, others),
    }


def times_of(mine: list[float], others: list[list[float]]) -> dict[str, float]:
    """Return the medians in milliseconds, the rival's in its better layout, and the spread of our turns."""
    best = min((statistics.median(seconds) for seconds in others), default=float("nan"))
    middle = statistics.median(mine)
    return {"ms": middle * 1e3, "torch_ms": best * 1e3, "spread": (max(mine) - min(mine)) / middle}


def plot_roofline(rows: Sequence[dict[str, Any]], rate: float, copy: float, path: Path) -> None:
    """Each product's rate over its multiply-adds per byte, under the roof that memory and BLAS make."""
    at = [0.25, rate / copy / 2, 1000.0]
    series = {"roof: copy rate, then matrix products": (at, [min(rate, 2 * each * copy) for each in at])}
    rates = (("minifcn", "ms"), ("PyTorch", "torch_ms"), ("the matrix product alone", "alone_ms"))
    for name, key in rates:
        points = [(row["multiply_adds"] / row["least_bytes"], row["multiply_adds"] / row[key] / 5e5) for row in rows]
        if all(y == y for _, y in points):
            series[name] = ([x for x, _ in points], [y for _, y in points])
    labels = ("multiply-adds per byte", "GFLOP/s")
    viz.log_log([("every product of every layer", *labels, series)], path, points=[name for name, _ in rates])


def tasks_of(side: str, work: Work | Depthwise) -> dict[str, Callable[[], float]]:
    """Return what `serve` does for one of `SIDES`: "forward", "step" and their peaks of memory, each by name."""
    forward, step = work.forward, work.step
    if side != "ours":
        torch = import_torch()
        if not torch:
            raise UsageError(f"bench side {side}: PyTorch is not installed; pip install torch")
        layout = layouts(torch)[SIDES.index(side) - 1]
        forward, step = work.rival(torch, layout)
    tasks = {"forward": forward, "step": step}
    seconds: dict[str, Callable[[], float]] = {name: partial(seconds_of, task) for name, task in tasks.items()}
    return seconds | {f"{name}'s peak": partial(peak_while, task) for name, task in tasks.items()}
