"""Describe a net layer by layer: shapes, parameters, cost and memory, before it runs.

For each layer: the shape it makes; the pixels one of its cells sees (`field`), how far apart its cells are (`stride`)
and where the first one lies (`start`), all in pixels of the image; parameters, multiply-adds, and the bytes of its
output. Then the most memory that inference and a training step will hold beyond the parameters. All of it comes from
running the net on outlines (`outline.py`): nothing is computed, and nothing is modelled by hand.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minifcn import ops
from minifcn.errors import GeometryError, ShapeError, UsageError
from minifcn.geometry import Grid, out_size
from minifcn.introspect.markup import html_table, tag, text_table
from minifcn.introspect.outline import Ledger, Outline
from minifcn.models.classifier import Classifier
from minifcn.models.fcn import FCN
from minifcn.models.paper import LateFusion
from minifcn.nn import Conv2d, Dropout, Module, Sliding, evaluating
from minifcn.tensor import Tensor


@dataclass(frozen=True)
class Row:
    """One layer: `shape` is what it makes, of `activation` bytes; `grid` where that lies in the image."""

    name: str
    kind: str
    shape: tuple[int, ...]
    grid: Grid | None
    parameters: int
    multiply_adds: int
    activation: int


@dataclass(frozen=True)
class Description:
    """The rows of a net, in the order in which they run, and the peaks of memory in bytes.

    `inference` and `training` count what is held beyond the parameters and the image. A training step is the loss and
    its gradients: `gradients` bytes of them are still there afterwards (and SGD's momentum is once more as much).
    """

    rows: tuple[Row, ...]
    inference: int
    training: int
    gradients: int

    @property
    def multiply_adds(self) -> int:
        """The multiply-adds of all layers."""
        return sum(row.multiply_adds for row in self.rows)

    @property
    def activations(self) -> int:
        """The bytes of all outputs together."""
        return sum(row.activation for row in self.rows)

    @property
    def parameters(self) -> int:
        """The numbers of the layers that ran: a head that serves training alone is not among them."""
        return sum(row.parameters for row in self.rows)

    def table(self) -> list[tuple[str, ...]]:
        """Return the cells of the table: the head, a row for each layer, and the sums."""
        head = ("layer", "kind", "shape", "field", "stride", "start", "parameters", "multiply-adds", "activation")
        sums = (count(self.parameters), giga(self.multiply_adds), mib(self.activations))
        return [head, *map(cells, self.rows), ("all", "", "", "", "", "", *sums)]

    def peaks(self) -> list[str]:
        """Return what inference and training need beyond the parameters, as two sentences."""
        return [
            f"inference holds at most {mib(self.inference)} beyond the parameters",
            f"a training step holds at most {mib(self.training)}; its gradients, which stay, {mib(self.gradients)}",
        ]

    def __str__(self) -> str:
        *layers, sums = text_table(self.table(), left=3)
        return "\n".join([*layers, "", sums, "", *self.peaks()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(self.table()) + "".join(tag("p", line) for line in self.peaks())


def describe(
    net: Module, size: int | tuple[int, int], *, batch: int = 1, passes: int = 1, device: str = "cpu"
) -> Description:
    """Return what `net` does to a batch of images of `size`, and the memory that will take. Nothing is computed.

    passes: batches whose gradients are accumulated before a step.

    Raises `GeometryError`, naming the layer, for an image that the net cannot take; `ShapeError` for a net whose layers
    do not fit one another.
    """
    h, w = (size, size) if isinstance(size, int) else size
    ledger, images = Ledger(device=device), []
    for part in seeing(net):
        x = Outline((batch, channels(part), h, w), dtype_of(part), ledger)
        x.grid = Grid()
        images.append(x)
    rows: list[Row] = []
    with evaluating(net), watching(net, rows, min(h, w)):
        inference = peak(lambda: net(*images), ledger)
    training, gradients = 0, sum(p.data.nbytes for p in net.parameters() if not p.frozen)
    if gradients:
        with learning(net), watching(net, [], min(h, w)):
            training = peak(lambda: accumulate(net, images, min(passes, 2)), ledger)  # a third is as the second
    return Description(tuple(rows), inference, training, gradients)


def accumulate(net: Module, images: Sequence[Any], passes: int = 1) -> Tensor:
    """Run `passes` training steps without an update, so that the gradients add up; return the last loss."""
    for _ in range(passes):
        loss = loss_of(maps(net, net(*images)))
        loss.backward()
    return loss


def peak(program: Callable[[], Any], ledger: Ledger) -> int:
    """Return the highest level of memory while `program` runs, beyond the level before."""
    level = ledger.restart()
    program()
    return ledger.peak - level


def maps(net: Module, y: Tensor | Mapping[str, Tensor]) -> list[Tensor]:
    """Return what a loss is put on: the scores of every head of an FCN, the last output of a trunk."""
    return list(y.values()) if isinstance(net, FCN) and isinstance(y, Mapping) else [last(y)]


def loss_of(scores: list[Tensor]) -> Tensor:
    """Return the sum of the losses of every head."""
    first, *others = (one_loss(score) for score in scores)
    return sum(others, first)


def one_loss(score: Tensor) -> Tensor:
    """Return the loss of scores against labels that were in memory before and so do not count."""
    score = score if score.ndim == 4 else score.reshape(*score.shape, 1, 1)  # a classifier
    labels = score.data.library.kept((score.shape[0], *score.shape[2:]), "int64")
    return ops.softmax_cross_entropy(score, labels)


def last(y: Tensor | Mapping[str, Tensor]) -> Tensor:
    """Return a net's last output, whether it makes one or several by name."""
    return list(y.values())[-1] if isinstance(y, Mapping) else y


def seeing(net: Module) -> list[Module]:
    """Return the nets that take an image each: those of late fusion, else the net itself."""
    return list(below(net)) if isinstance(net, LateFusion) else [net]


def channels(net: Module) -> int:
    """Return the channels of the image: what the first convolution takes."""
    for module in net.modules():
        if isinstance(module, Conv2d):
            return module.w.shape[1] * module.groups
    raise UsageError(f"describe: {type(net).__name__} has no convolution, so the channels of its image are unknown")


def dtype_of(net: Module) -> Any:
    """Return the dtype of the parameters."""
    return next(p.dtype for p in net.parameters())


@contextlib.contextmanager
def watching(net: Module, rows: list[Row], size: int) -> Iterator[None]:
    """Inside, every layer of `net` that is called writes a row, and dropout draws no numbers."""
    leaves = [(name, module) for name, module in net.named_modules() if not any(below(module))]
    for name, module in leaves:  # an attribute of the object is found before the method of its class
        vars(module)["forward"] = watched(name, module, rows)
    try:
        yield
    except Stopped as stop:
        layer, sentence = stop.args
        if isinstance(net, Classifier):
            own = f"{net.trunk.size}x{net.trunk.size}"
            raise GeometryError(f"{layer}: {sentence}; this classifier takes images of {own} pixels") from stop
        if size >= (least := smallest(net)):
            raise ShapeError(f"{layer}: {sentence}") from stop
        raise GeometryError(f"{layer}: {sentence}; this net takes images from {least}x{least} pixels on") from stop
    finally:
        for _, module in leaves:
            del vars(module)["forward"]


class Stopped(Exception):
    """The layer that refused, by its whole name, and its sentence."""


def below(module: Module) -> Iterator[Module]:
    """Yield the modules that stand directly below this one."""
    return (child for _, child in module.children() if isinstance(child, Module))


def watched(name: str, module: Module, rows: list[Row]) -> Callable[..., Any]:
    """Return the module's `forward`, which also appends its row."""
    forward = module.forward

    def record(x: Any) -> Any:
        outline: Outline = x.data if isinstance(x, Tensor) else x
        before = outline.library.multiply_adds
        try:
            y = dropped(module, x) if isinstance(module, Dropout) else forward(x)
        except ShapeError as fault:
            raise Stopped(name or type(module).__name__, str(fault)) from fault
        if y is not x and isinstance(y.data, Outline):
            layer = module.layer if isinstance(module, Sliding) else None
            y.data.grid = outline.grid.through(layer) if layer and outline.grid else outline.grid
            if y.ndim != 4:
                y.data.grid = None  # no map any more
            kind, learned = type(module).__name__, sum(p.size for p in module.parameters())
            cost = outline.library.multiply_adds - before
            rows.append(Row(name, kind, y.shape, y.data.grid, learned, cost, y.data.nbytes))
        return y

    return record


def dropped(module: Dropout, x: Any) -> Any:
    """Return what `Dropout` makes of x, without drawing from its generator."""
    if not module.training or module.p == 0:
        return x
    outline = x.data if isinstance(x, Tensor) else x
    if outline.library.device == "gpu":  # it is drawn on the host, and only the mask comes across
        return ops.dropout(x, mask=outline.library.empty(x.shape, x.dtype))
    drawn = Outline(x.shape, "float32", outline.library)
    kept = drawn >= module.p
    del drawn
    return ops.dropout(x, mask=kept.astype(x.dtype))


def smallest(net: Module) -> int:
    """Return the least side of an image that the longest chain of windows in `net` can take."""
    chain = max((module.layers() for module in net.modules()), key=len)
    for size in range(1, int(Grid.of(chain).field)):
        with contextlib.suppress(GeometryError):
            out_size(chain, size)
            return size
    return int(Grid.of(chain).field)


@contextlib.contextmanager
def learning(net: Module) -> Iterator[None]:
    """Inside, the net trains and no parameter has a gradient; afterwards modes and gradients are as they were."""
    modes = [(module, module.training) for module in net.modules()]
    kept = [(p.node, p.node.grad) for p in net.parameters() if p.node is not None]
    net.train()
    for node, _ in kept:
        node.grad = None
    try:
        yield
    finally:
        for node, grad in kept:
            node.grad = grad
        for module, mode in modes:
            module.training = mode


# ---- the table ---------------------------------------------------------------------------------------------------


def cells(row: Row) -> tuple[str, ...]:
    """Return a row of the table as text."""
    grid = row.grid
    place = (str(grid.field), str(grid.stride), str(grid.start)) if grid else ("", "", "")
    shape = "x".join(map(str, row.shape[1:]))
    return (row.name, row.kind, shape, *place, count(row.parameters), giga(row.multiply_adds), mib(row.activation))


def count(number: int) -> str:
    """Return a number with commas, nothing for 0."""
    return f"{number:,}" if number else ""


def giga(number: int) -> str:
    """Return a number in billions, nothing for 0."""
    return f"{number / 1e9:.3f} G" if number else ""


def mib(number: int) -> str:
    """Return bytes as MiB."""
    return f"{number / 2**20:.1f} MiB"
