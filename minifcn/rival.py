"""The same networks and products in PyTorch, at its best: what `minifcn bench` compares with. PyTorch is optional.

Its best means: both memory layouts, the faster one counts; `inference_mode` for the forward pass, ReLU in place, and as
many threads as we take.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minifcn.kernels.threads import threads
from minifcn.nn import bilinear


def import_torch(wanted: bool = True) -> Any:
    """PyTorch on as many threads as ours, or None where it is not wanted or not installed."""
    if not wanted:
        return None
    try:
        import torch
    except ModuleNotFoundError:
        return None
    torch.set_num_threads(threads())
    return torch


def torch_products(
    torch: Any, product: str, x: np.ndarray, w: np.ndarray, gy: np.ndarray, padding: int
) -> list[Callable[[], Any]]:
    """The same product in PyTorch, once for each of its memory layouts."""
    wanted = [product == "grad_x", product == "grad_w", False]
    rivals: list[Callable[[], Any]] = []
    for layout in layouts(torch):
        tx, tw, tgy = (torch.from_numpy(array).contiguous(memory_format=layout) for array in (x, w, gy))

        def forward(tx: Any = tx, tw: Any = tw) -> Any:
            with torch.inference_mode():
                return torch.nn.functional.conv2d(tx, tw, padding=padding)

        def gradient(tx: Any = tx, tw: Any = tw, tgy: Any = tgy) -> Any:
            backward = torch.ops.aten.convolution_backward
            return backward(tgy, tx, tw, None, [1, 1], [padding] * 2, [1, 1], False, [0, 0], 1, wanted)[
                wanted.index(True)
            ]

        rivals.append(forward if product == "forward" else gradient)
    return rivals


def layouts(torch: Any) -> tuple[Any, ...]:
    return (torch.contiguous_format, torch.channels_last) if torch else ()


def torch_net(
    torch: Any, state: dict[str, np.ndarray], x: np.ndarray, labels: np.ndarray, padding: Any, layout: Any
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """FCN-8s in PyTorch from our weights: its forward pass and its training step."""
    functional = torch.nn.functional
    image, truth = torch.from_numpy(x).contiguous(memory_format=layout), torch.from_numpy(labels)
    weights = {
        name.split(".", 2)[-1] if name.startswith("trunk") else name: (
            torch.from_numpy(array.copy()).contiguous(
                memory_format=layout if array.ndim == 4 else torch.contiguous_format
            )
        )
        for name, array in state.items()
    }
    weights = {name: array.requires_grad_() for name, array in weights.items()}
    kernels = {k: torch.from_numpy(bilinear(k)).float().expand(21, 1, k, k).contiguous() for k in (4, 16)}
    solver = torch.optim.SGD(weights.values(), lr=1e-12, momentum=0.9, weight_decay=5e-4)
    same = padding == "same"

    def conv(x: Any, name: str, pad: int = 0, relu: bool = True) -> Any:
        y = functional.conv2d(x, weights[f"{name}.w"], weights[f"{name}.b"], padding=pad)
        return functional.relu(y, inplace=True) if relu else y

    def crop(x: Any, like: Any, at: int) -> Any:
        at = 0 if same else at
        return x[:, :, at : at + like.shape[2], at : at + like.shape[3]]

    def up(x: Any, kernel: int) -> Any:
        pad = kernel // 4 if same else 0
        return functional.conv_transpose2d(x, kernels[kernel], stride=kernel // 2, padding=pad, groups=21)

    def scores(training: bool) -> Any:
        y, pools = image, []
        for block, count in enumerate((2, 2, 3, 3, 3), 1):
            for index in range(1, count + 1):
                y = conv(y, f"conv{block}_{index}", int(padding) if block == index == 1 and not same else 1)
            y = functional.max_pool2d(y, 2, 2, ceil_mode=True)
            pools.append(y)
        y = functional.dropout(conv(y, "fc6", 3 if same else 0), training=training)
        y = functional.dropout(conv(y, "fc7"), training=training)
        y = up(conv(y, "score_fr", relu=False), 4)
        for pool, at, kernel in ((4, 5, 4), (3, 9, 16)):
            skip = conv(pools[pool - 1], f"score_pool{pool}", relu=False)
            y = up(crop(y, skip, 0) + crop(skip, y, at), kernel)
        return crop(y, image, 31)

    def forward() -> Any:
        with torch.inference_mode():
            return scores(training=False)

    def step() -> None:
        solver.zero_grad()
        functional.cross_entropy(scores(training=True), truth, reduction="sum").backward()
        solver.step()

    return forward, step
