"""The same nets and products in PyTorch, for comparison; PyTorch is optional.

A net is translated layer by layer from ours, with copies of the weights and the crops of its ladder; that both compute
the same is looked at before anything is timed. Its best means: both memory layouts, the faster one counts;
`inference_mode` for the forward pass, ReLU in place, and as many threads as we take.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from minifcn.backend import to_host
from minifcn.errors import UsageError
from minifcn.kernels.threads import threads
from minifcn.models.fcn import FCN, Words, follow
from minifcn.models.trunk import Parallel, Residual
from minifcn.nn import (
    BatchNorm2d,
    Conv2d,
    Dropout,
    LocalResponseNorm,
    MaxPool2d,
    Module,
    ReLU,
    ReLU6,
    Sequential,
    Upsample,
    ZeroPad2d,
    bilinear,
)
from minifcn.tensor import Parameter


def import_torch(wanted: bool = True) -> Any:
    """Return PyTorch, on as many threads as ours; None where it is not wanted or not installed."""
    if not wanted:
        return None
    try:
        import torch
    except ModuleNotFoundError:
        return None
    torch.set_num_threads(threads())
    return torch


def torch_products(
    torch: Any, x: np.ndarray, w: np.ndarray, gy: np.ndarray, layout: Any, *, padding: int, groups: int = 1
) -> dict[str, Callable[[], Any]]:
    """Return the three products of a convolution in PyTorch, on arrays of that memory layout, by name."""
    tx, tw, tgy = (torch.from_numpy(array).contiguous(memory_format=layout) for array in (x, w, gy))

    def forward() -> Any:
        with torch.inference_mode():
            return torch.nn.functional.conv2d(tx, tw, padding=padding, groups=groups)

    def gradients(*wanted: bool) -> Any:
        backward = torch.ops.aten.convolution_backward
        return backward(tgy, tx, tw, None, [1, 1], [padding] * 2, [1, 1], False, [0, 0], groups, [*wanted, False])

    return {
        "forward": forward,
        "grad_x": lambda: gradients(True, False)[0],
        "grad_w": lambda: gradients(False, True)[1],
        "both": lambda: gradients(True, True),
    }


def layouts(torch: Any) -> tuple[Any, ...]:
    """Return PyTorch's two memory layouts of an image; none without PyTorch."""
    return (torch.contiguous_format, torch.channels_last) if torch else ()


def torch_net(
    torch: Any, net: FCN, x: np.ndarray, labels: np.ndarray, layout: Any, device: str = "cpu"
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return forward pass and training step of `net` in PyTorch, on copies of its weights and of the batch.

    Raises `UsageError` for a layer that has no counterpart here.
    """
    functional, kept, steps = torch.nn.functional, (*net.skips, net.trunk.last), tuple(net.steps())
    place = {"cpu": "cpu", "gpu": "cuda"}[device]
    image, truth = torch.from_numpy(x).to(place).contiguous(memory_format=layout), torch.from_numpy(labels).to(place)
    learned: list[Any] = []

    def copied(parameter: Parameter) -> Any:
        own = layout if parameter.ndim == 4 else torch.contiguous_format
        weights = torch.from_numpy(np.array(to_host(parameter.data))).to(place).contiguous(memory_format=own)
        if not parameter.frozen:
            learned.append(weights.requires_grad_())
        return weights

    stages = {
        output: torch_module(torch, getattr(net.trunk, stage), copied) for output, stage in net.trunk.stages.items()
    }
    names = [step.option for step in steps if step.do == "layer"]
    layers = {name: torch_module(torch, getattr(net, name), copied) for name in names}
    solver = torch.optim.SGD(learned, lr=1e-12, momentum=0.9, weight_decay=5e-4)

    fusions = {"sum": torch.add, "max": torch.maximum, "concat": lambda score, skip: torch.cat([score, skip], 1)}

    def scores(training: bool) -> Any:
        y, features = image, {"image": image}
        for output, stage in stages.items():
            y = stage(y, training)
            if output in kept:
                features[output] = y
        words: Words = {
            "layer": lambda name, x: layers[name](x, training),
            "scale": lambda factor, x: x * factor,
            "crop": lambda at, x, like: x[:, :, at : at + like.shape[2], at : at + like.shape[3]],
            "fuse": lambda fusion, score, skip: fusions[fusion](score, skip),
        }
        return follow(steps, features, words)

    def forward() -> Any:
        with torch.inference_mode():
            return scores(training=False)

    def step() -> None:
        solver.zero_grad()
        functional.cross_entropy(scores(training=True), truth, reduction="sum").backward()
        solver.step()

    return forward, step


def torch_module(torch: Any, module: Module, copied: Callable[[Parameter], Any]) -> Callable[[Any, bool], Any]:
    """Return a module of ours in PyTorch: a function of input and training mode. `copied` copies a parameter."""
    functional = torch.nn.functional
    if isinstance(module, Sequential):
        chain = [torch_module(torch, each, copied) for each in module.sequence().values()]
        if isinstance(module, Residual):
            around = torch_module(torch, module.shortcut, copied) if module.shortcut else lambda x, training: x
            return lambda x, training: around(x, training) + reduce(lambda y, each: each(y, training), chain, x)
        return lambda x, training: reduce(lambda y, each: each(y, training), chain, x)
    if isinstance(module, Parallel):
        branches = [torch_module(torch, each, copied) for each in module.branches().values()]
        return lambda x, training: torch.cat([branch(x, training) for branch in branches], 1)
    if isinstance(module, Dropout):
        p = module.p
        return lambda x, training: functional.dropout(x, p, training=training)
    if isinstance(module, ReLU):
        return lambda x, training: functional.relu(x)
    if isinstance(module, ReLU6):
        return lambda x, training: functional.relu6(x)
    if isinstance(module, ZeroPad2d):
        widths = (module.begin, module.end) * 2
        return lambda x, training: functional.pad(x, widths)
    if isinstance(module, BatchNorm2d):
        w, b, *kept = (copied(p) for p in (module.w, module.b, module.mean, module.var))
        return lambda x, training: functional.batch_norm(x, *kept, w, b, training, module.momentum, module.eps)
    if isinstance(module, LocalResponseNorm):
        numbers = module.options
        return lambda x, training: functional.local_response_norm(x, **numbers)
    if isinstance(module, Conv2d):
        relu, w, options = module.relu, copied(module.w), {**module.window(), "groups": module.groups}
        b = None if module.b is None else copied(module.b)

        def conv(x: Any, training: bool) -> Any:
            y = functional.conv2d(x, w, b, **options)
            return functional.relu(y, inplace=True) if relu else y

        return conv
    if isinstance(module, Upsample):
        options, side = {**module.window(), "groups": module.groups}, module.layer.kernel
        fixed = torch.from_numpy(bilinear(side)).expand(module.groups, 1, side, side).contiguous()
        kernel = fixed if module.w is None else copied(module.w)
        return lambda x, training: functional.conv_transpose2d(x, kernel.to(x), **options)
    if type(module) is MaxPool2d:
        window = module.layer
        sizes = (window.kernel, window.stride, window.padding, window.dilation, window.ceil)
        return lambda x, training: functional.max_pool2d(x, *sizes)
    raise UsageError(
        f"{type(module).__name__} has no counterpart in PyTorch here; choose another `net=...`, or `torch=False`"
    )
