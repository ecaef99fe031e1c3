"""Layers and modules: an op with its parameters, and objects that hold them.

Parameters are found by looking: `vars(module)` in the order in which `__init__` assigned them, so the order never
depends on anything but the source, and the dotted names (`trunk.block1.conv1_1.w`) are the keys of a checkpoint.
Each layer also knows its geometry (`layers()`), from which `models/ladder.py` derives every crop.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from minifcn import ops
from minifcn.backend import Array, Scope, device_of, to_device, to_host
from minifcn.errors import FormatError, ShapeError, UsageError, whole
from minifcn.geometry import Layer
from minifcn.ops.checks import images
from minifcn.tensor import Parameter, Tensor, no_grad


class Draw(NamedTuple):
    """What dropout draws from: a generator, how many images the whole batch has, and which of them the net sees."""

    rng: np.random.Generator
    images: int
    part: slice


DRAWN: Scope[Draw | None] = Scope("drawn", None)
EVALUATED: Scope[frozenset[int]] = Scope("evaluated", frozenset())
"""The modules, by identity, that this thread evaluates, whatever their own mode."""


class Module:
    """Something with parameters. Subclasses assign parameters and modules in `__init__` and define `forward`."""

    _training = True

    @property
    def training(self) -> bool:
        """Whether dropout is on: what `train` and `eval` set, and False inside `evaluating`."""
        return self._training and id(self) not in EVALUATED()

    @training.setter
    def training(self, value: bool) -> None:
        self._training = value

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.forward(*args, **options)

    def forward(self, *args: Any, **options: Any) -> Any:
        """What `module(x)` computes; every kind of module has its own."""
        raise UsageError(f"{type(self).__name__} defines no forward")

    def extra_repr(self) -> str:
        """Return its own settings for `repr`: its window, numbers and words, and the shapes of its parameters."""
        own = {n: value for n, value in vars(self).items() if isinstance(value, Parameter | Layer | int | float | str)}
        return ", ".join(f"{n}={getattr(value, 'shape', value)}" for n, value in own.items() if not n.startswith("_"))

    def __repr__(self) -> str:
        modules = [(name, child) for name, child in self.children() if isinstance(child, Module)]
        inside = "".join(f"\n({name}): {child!r}" for name, child in modules).replace("\n", "\n  ")
        return f"{type(self).__name__}({self.extra_repr()}{inside}" + ("\n)" if modules else ")")

    def layers(self) -> list[Layer]:
        """Return the sliding windows of this module along one axis, in order; none for a module that works pixel by
        pixel.
        """
        return []

    def children(self) -> Iterator[tuple[str, Module | Parameter]]:
        """Yield what this module holds directly, by name, in order of assignment."""
        for name, value in vars(self).items():
            if isinstance(value, (Module, Parameter)):
                yield name, value

    def modules(self) -> Iterator[Module]:
        """Return this module and all below it."""
        return (module for _, module in self.named_modules())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield this module and all below it, each with its dotted name ("" for itself), in order of assignment."""
        yield prefix, self
        for name, child in self.children():
            if isinstance(child, Module):
                yield from child.named_modules(f"{prefix}.{name}".lstrip("."))

    def parameters(self) -> Iterator[Parameter]:
        """Return all parameters below, in a fixed order."""
        return (parameter for _, parameter in self.named_parameters())

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Yield all parameters below, each with its dotted name, in a fixed order."""
        for name, child in self.children():
            if isinstance(child, Parameter):
                yield prefix + name, child
            else:
                yield from child.named_parameters(f"{prefix}{name}.")

    def generators(self) -> list[np.random.Generator]:
        """Return the random generators that this net draws from, each once."""
        held = (value for module in self.modules() for value in vars(module).values())
        return list(dict.fromkeys(value for value in held if isinstance(value, np.random.Generator)))

    def train(self, training: bool = True) -> Module:
        """Turn dropout on, and return the module, so that calls can be chained."""
        for module in self.modules():
            module.training = training
        return self

    def eval(self) -> Module:
        """Turn dropout off, and return the module."""
        return self.train(False)

    def to(self, device: str) -> Module:
        """Move every parameter to "cpu" or "gpu"."""
        for parameter in self.parameters():
            parameter.data = to_device(parameter.data, device)
        return self

    def astype(self, dtype: Any) -> Module:
        """Turn every parameter into float32 or float64 (for gradient checks), and return the module."""
        for parameter in self.parameters():
            parameter.data = parameter.data.astype(dtype)
        return self

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.zero_grad()

    def freeze(self, *names: str, frozen: bool = True) -> Module:
        """Make constants of the parameters at or below `names` (all, if none is given): `net.freeze("block1")`."""
        hits = []
        for name in names or ("",):
            hit = [p for key, p in self.named_parameters() if not name or f".{name}." in f".{key}."]
            if not hit:
                known = sorted({part for key, _ in self.named_parameters() for part in key.split(".")})
                raise UsageError(f"freeze: no parameter lies in {name!r}; names here are {', '.join(known)}")
            hits += hit
        for parameter in hits:
            parameter.freeze(frozen)
        return self

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return a copy of every parameter, on the host, by dotted name."""
        return {name: np.array(to_host(parameter.data)) for name, parameter in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Array], *, strict: bool = True) -> Module:
        """Take every parameter from `state`. Names and shapes must be exactly this net's, or nothing is changed.

        Raises `FormatError` listing the missing, the unexpected and the misshapen names. With `strict=False` those are
        left as they are, and what fits by name and shape is taken: a finer net's start from a coarser one.
        """
        own = dict(self.named_parameters())
        shapes = {name: tuple(array.shape) for name, array in state.items()}
        fitting = [name for name, parameter in own.items() if shapes.get(name) == parameter.shape]
        faults = {
            "missing": [name for name in own if name not in shapes],
            "unexpected": [name for name in shapes if name not in own],
            "of another shape": [
                f"{name} ({shapes[name]} for {own[name].shape})"
                for name in own
                if name in shapes and name not in fitting
            ],
        }
        if strict and any(faults.values()):
            listed = [
                f"{len(names)} {what}: {', '.join(names[:4])}{', ...' * (len(names) > 4)}"
                for what, names in faults.items()
                if names
            ]
            raise FormatError(f"these parameters are not this network's: {'; '.join(listed)}")
        for name in fitting:
            parameter = own[name]
            array = np.array(to_host(state[name]), dtype=parameter.dtype, order="C")
            parameter.data = to_device(array, device_of(parameter.data))
            parameter.changed()
        return self


@contextlib.contextmanager
def evaluating(net: Module) -> Iterator[Module]:
    """Inside, for this thread: no dropout, nothing remembered. Afterwards the net is in the mode it was in."""
    with no_grad(), EVALUATED.set(EVALUATED() | {id(module) for module in net.modules()}):
        yield net


def drawing(rng: np.random.Generator, images: int, part: slice) -> contextlib.AbstractContextManager[None]:
    """Return a block in which this thread's dropout layers draw from `rng`, one after another.

    They draw for a batch of `images`, and use the `part` of it that the net sees: so a batch that is computed in
    parts has the masks of the whole one.
    """
    return DRAWN.set(Draw(rng, images, part))


class Sequential(Module):
    """Named modules, one after another: `Sequential(conv1=Conv2d(...), pool1=MaxPool2d(2))`."""

    def __init__(self, **modules: Module) -> None:
        vars(self).update(modules)

    def sequence(self) -> dict[str, Module]:
        """Return the modules by name, in order."""
        return {name: child for name, child in self.children() if isinstance(child, Module)}

    def forward(self, x: Tensor) -> Tensor:
        for name, module in self.sequence().items():
            try:
                x = module(x)
            except ShapeError as fault:
                raise type(fault)(f"{name}: {fault}") from fault
        return x

    def layers(self) -> list[Layer]:
        """Return the windows of its modules, one after another."""
        return [layer for module in self.sequence().values() for layer in module.layers()]


Init = str | np.random.Generator


def initial(init: Init, shape: tuple[int, ...], fan_in: int, *, layer: str) -> np.ndarray:
    """Return zeros for "zero" (what Caffe does when nothing is said, and the paper's score layers), else He's numbers.

    Those are normal, of variance 2 / fan_in: through a ReLU, the signal keeps its size (He et al., 2015). "meta" is a
    shape without memory, as on PyTorch's device of that name: for a net that is compared or loaded, and not trained.
    """
    if isinstance(init, np.random.Generator):
        return (init.standard_normal(shape) * math.sqrt(2 / fan_in)).astype(np.float32)
    if init not in ("zero", "meta"):
        raise UsageError(f'{layer}: init is {init!r}; expected "zero", "meta" or a NumPy random generator')
    return np.zeros(shape, np.float32) if init == "zero" else np.broadcast_to(np.float32(0), shape)


class Sliding(Module):
    """A module with one sliding window, its `layer`; `uses` names the parts of it that its op takes as options."""

    uses: tuple[str, ...] = ("stride", "padding", "dilation")

    def __init__(self, kernel_size: int, *, stride: int = 1, padding: int = 0, dilation: int = 1, **more: Any) -> None:
        checked(type(self).__name__, kernel_size=kernel_size, stride=stride, dilation=dilation)
        checked(type(self).__name__, least=0, padding=padding)
        self.layer = Layer(kernel_size, stride, padding, dilation, **more)

    def window(self) -> dict[str, int]:
        """Return the options of the op, as the layer has them."""
        return {name: getattr(self.layer, name) for name in self.uses}

    def layers(self) -> list[Layer]:
        """Return its own window, and no other."""
        return [self.layer]


class Conv2d(Sliding):
    """`ops.conv2d` with its weights w (O, I/groups, k, k) and b (O,). `relu=True` adds the ReLU inside.

    `init` is a random generator (He's initialisation) or "zero"; `window` is stride, padding and dilation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        init: Init,
        groups: int = 1,
        bias: bool = True,
        relu: bool = False,
        **window: int,
    ) -> None:
        super().__init__(kernel_size, **window)
        check_channels("Conv2d", in_channels, out_channels, groups)
        shape = (out_channels, in_channels // groups, kernel_size, kernel_size)
        self.w = Parameter(initial(init, shape, math.prod(shape[1:]), layer="Conv2d"))
        self.b = Parameter(np.zeros(out_channels, np.float32)) if bias else None
        self.groups, self.relu = groups, relu

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv2d(x, self.w, self.b, groups=self.groups, relu=self.relu, **self.window())


class ConvTranspose2d(Sliding):
    """`ops.conv_transpose2d` with its weights w (I, O/groups, k, k) and b (O,); options as in `Conv2d`."""

    uses = ("stride", "padding", "dilation", "output_padding")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        init: Init,
        output_padding: int = 0,
        groups: int = 1,
        bias: bool = True,
        **window: int,
    ) -> None:
        checked("ConvTranspose2d", least=0, output_padding=output_padding)
        super().__init__(kernel_size, transpose=True, output_padding=output_padding, **window)
        check_channels("ConvTranspose2d", in_channels, out_channels, groups)
        stride = self.layer.stride
        if output_padding >= stride:
            raise ShapeError(f"ConvTranspose2d: output_padding is {output_padding}; expected below the stride {stride}")
        shape = (in_channels, out_channels // groups, kernel_size, kernel_size)
        fan_in = max(1, shape[0] // groups * kernel_size**2 // stride**2)  # inputs that reach one output
        self.w = Parameter(initial(init, shape, fan_in, layer="ConvTranspose2d"))
        self.b = Parameter(np.zeros(out_channels, np.float32)) if bias else None
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv_transpose2d(x, self.w, self.b, groups=self.groups, **self.window())


def bilinear(kernel_size: int) -> np.ndarray:
    """Return the (k, k) bilinear filter: (1 - |i-c|/f)(1 - |j-c|/f), f = (k+1)//2, c the centre. FCN, section 3.3."""
    factor = (kernel_size + 1) // 2
    centre = factor - 1 if kernel_size % 2 else factor - 0.5
    line = 1 - np.abs(np.arange(kernel_size) - centre) / factor
    return np.outer(line, line).astype(np.float32)


class Upsample(Sliding):
    """Bilinear upsampling of `channels` maps by a transposed convolution, as the paper's nets do it.

    Fixed (`learn=False`), it has no parameters and takes the separable way. Learned, it starts bilinear and is trained:
    one kernel a channel (`grouped=True`), or the reference's dense C x C kernels whose off-diagonal starts at zero.
    """

    uses = ("stride", "padding")

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        stride: int,
        *,
        padding: int = 0,
        learn: bool = False,
        grouped: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride=stride, padding=padding, transpose=True)
        checked("Upsample", channels=channels)
        self.groups = channels if grouped else 1
        self.w = None
        if learn:
            w = np.zeros((channels, channels // self.groups, kernel_size, kernel_size), np.float32)
            w[np.arange(channels), 0 if grouped else np.arange(channels)] = bilinear(kernel_size)
            self.w = Parameter(w)

    def forward(self, x: Tensor) -> Tensor:
        if self.w is None:
            return ops.bilinear_upsample(x, kernel_size=self.layer.kernel, **self.window())
        return ops.conv_transpose2d(x, self.w, groups=self.groups, **self.window())


class MaxPool2d(Sliding):
    """`ops.max_pool2d`; `ceil_mode=True` is Caffe's size rule, `window` is padding and dilation."""

    op = staticmethod(ops.max_pool2d)

    def __init__(self, kernel_size: int, *, stride: int | None = None, ceil_mode: bool = False, **window: int) -> None:
        super().__init__(kernel_size, stride=kernel_size if stride is None else stride, ceil=ceil_mode, **window)
        padding, extent = self.layer.padding, self.layer.extent
        if padding >= extent:
            raise ShapeError(f"{type(self).__name__}: padding is {padding}; expected below {extent}, the window")

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x, kernel_size=self.layer.kernel, ceil_mode=self.layer.ceil, **self.window())


class AvgPool2d(MaxPool2d):
    """`ops.avg_pool2d`, with the same arguments."""

    op = staticmethod(ops.avg_pool2d)


class ZeroPad2d(Module):
    """A border of zeros, `begin` cells wide above and on the left, `end` below and on the right: `ops.pad`."""

    def __init__(self, begin: int, end: int) -> None:
        checked("ZeroPad2d", least=0, begin=begin, end=end)
        self.begin, self.end = begin, end

    def forward(self, x: Tensor) -> Tensor:
        return ops.pad(x, padding=(self.begin, self.end) * 2)

    def layers(self) -> list[Layer]:
        """Return a window of one cell, with that border."""
        return [Layer(padding=self.begin, extra=self.end - self.begin)]


class ReLU(Module):
    """max(x, 0), element by element: `ops.relu`."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.relu(x)


class ReLU6(Module):
    """min(max(x, 0), 6), element by element: `ops.clip`."""

    def forward(self, x: Tensor) -> Tensor:
        return ops.clip(x, min=0, max=6)


class BatchNorm2d(Module):
    """`ops.batch_norm`: over the batch while training, with its own running mean and variance in `eval`.

    w (C,) and b (C,) are learned. `mean` and `var` are frozen parameters, so they are saved with the others; each
    training step moves them by `momentum` towards the batch's (the variance that is not biased, as PyTorch does).
    Where w is frozen, the layer is a constant: it uses its own mean and variance while training, too.
    """

    def __init__(self, channels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        checked("BatchNorm2d", channels=channels)
        self.w, self.b = Parameter(np.ones(channels, np.float32)), Parameter(np.zeros(channels, np.float32))
        self.mean, self.var = Parameter(np.zeros(channels, np.float32)), Parameter(np.ones(channels, np.float32))
        self.eps, self.momentum = eps, momentum
        for kept in (self.mean, self.var):
            kept.freeze()

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.w.frozen:
            return ops.batch_norm(x, self.w, self.b, mean=self.mean.data, var=self.var.data, eps=self.eps)
        array = x.data if isinstance(x, Tensor) else x
        images(array, op="batch_norm")
        mean, var = array.mean(axis=(0, 2, 3)), array.var(axis=(0, 2, 3))
        y = ops.batch_norm(x, self.w, self.b, mean=mean, var=var, own=True, eps=self.eps)
        count = array[:, 0].size
        for kept, batch in ((self.mean, mean), (self.var, var * (count / max(count - 1, 1)))):
            kept.data = (1 - self.momentum) * kept.data + self.momentum * batch
        return y


class LocalResponseNorm(Module):
    """`ops.local_response_norm` with AlexNet's numbers."""

    def __init__(self, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        checked("LocalResponseNorm", size=size)
        if size % 2 == 0:
            raise ShapeError(f"LocalResponseNorm: size is {size}; expected an odd number of channels")
        self.options = {"size": size, "alpha": alpha, "beta": beta, "k": k}

    def forward(self, x: Tensor) -> Tensor:
        return ops.local_response_norm(x, **self.options)


class Dropout(Module):
    """While training, zero each number with probability p and divide the rest by 1 - p; else nothing.

    The mask is drawn on the host from `rng` (or from what `drawing` names), so it is the same on every device.
    """

    def __init__(self, p: float, *, rng: np.random.Generator) -> None:
        if not 0 <= p < 1:
            raise ShapeError(f"Dropout: p is {p}; expected a probability of at least 0 and below 1")
        self.p, self.rng = p, rng

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        draw = DRAWN() or Draw(self.rng, x.shape[0], slice(None))
        kept = draw.rng.random((draw.images, *x.shape[1:]), dtype=np.float32)[draw.part] >= self.p
        mask = kept.astype(x.dtype) / x.dtype.type(1 - self.p)
        return ops.dropout(x, mask=to_device(mask, device_of(x.data)))


class Linear(Module):
    """A fully connected layer, y = x w^T + b: x (N, I) or maps (N, I, k, k), w (O, I*k*k), b (O,); y (N, O).

    Maps are flattened in the order C, H, W, as Caffe does; `kernel_size` k is the one size of map it takes. To take
    larger ones it must become a convolution: `surgery.convolutionalize`. `relu=True` adds the ReLU inside.
    """

    def __init__(
        self, in_features: int, out_features: int, kernel_size: int = 1, *, init: Init, relu: bool = False
    ) -> None:
        checked("Linear", in_features=in_features, out_features=out_features, kernel_size=kernel_size)
        self.maps, inputs = (in_features, kernel_size, kernel_size), in_features * kernel_size**2
        self.w = Parameter(initial(init, (out_features, inputs), inputs, layer="Linear"))
        self.b = Parameter(np.zeros(out_features, np.float32))
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        if len(x.shape) == 4:
            if x.shape[1:] != self.maps:
                raise ShapeError(
                    f"Linear: takes maps of shape {self.maps} and got {x.shape[1:]}; only one size of image fits a "
                    "fully connected layer: minifcn.surgery.convolutionalize makes it take any"
                )
            x = ops.reshape(x, shape=(x.shape[0], -1))
        y = x @ ops.transpose(self.w) + self.b
        return ops.relu(y) if self.relu else y

    def layers(self) -> list[Layer]:
        """Return one window, as large as the map it takes."""
        return [Layer(self.maps[-1])]


def check_channels(layer: str, in_channels: int, out_channels: int, groups: int) -> None:
    """Refuse counts of channels that are none, or that do not split into the groups."""
    checked(layer, in_channels=in_channels, out_channels=out_channels, groups=groups)
    if in_channels % groups or out_channels % groups:
        raise ShapeError(f"{layer}: {in_channels} -> {out_channels} channels cannot be split into {groups} groups")


def checked(layer: str, *, least: int = 1, **values: int) -> None:
    """Refuse layer arguments that no network can have, when the layer is built."""
    for name, value in values.items():
        if not whole(value, least=least):
            raise ShapeError(f"{layer}: {name} is {value!r}; expected a whole number of at least {least}")
