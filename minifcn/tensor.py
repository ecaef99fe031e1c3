"""Autograd on one page: Tensor, Node, `@op` and `backward`.

Read from top to bottom: a `Node` is a way back and never an array; a `Tensor` is an array with a node; `@op` turns a
function on plain arrays into one on Tensors; `backward` is the chain rule, once, over the whole graph.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from minifcn.backend import Array, as_array, xp_of
from minifcn.errors import GraphError, ShapeError

Gradient = Callable[[Array], Array]
Gradients = tuple[Gradient | None, ...]
ValueAndGradients = tuple[Array, Gradients] | tuple[Array, Gradients, Gradient]  # see `op`
OPS: dict[str, Callable[..., Tensor]] = {}
_recording = True


class Node:
    """A place in the graph: which op made the value, its shape, and an edge to each input that wants a gradient.

    An edge is `(parent node, gradient function, the parent's version)`. A node never holds the value: an intermediate
    array lives exactly as long as some gradient function mentions it. `prepare`, if there is one, is applied to gy
    once, and the gradient functions get its result.
    """

    __slots__ = ("__weakref__", "edges", "grad", "op", "prepare", "shape", "version")

    def __init__(
        self,
        op: str,
        shape: tuple[int, ...],
        edges: tuple[tuple[Node, Gradient, int], ...] = (),
        prepare: Gradient | None = None,
    ) -> None:
        self.op, self.shape, self.prepare = op, shape, prepare
        self.edges: tuple[tuple[Node, Gradient, int], ...] | None = edges  # None once a backward pass has used them
        self.grad: Array | None = None
        self.version = 0


def operator_for(name: str) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """`x + y` and its reflection `y + x`, through the registry: so this file need not know the ops."""
    return lambda x, y: OPS[name](x, y), lambda x, y: OPS[name](y, x)


class Tensor:
    """An array and, if a gradient can flow through it, its node. Without a node it is a constant."""

    __slots__ = ("data", "node")
    __array_ufunc__ = None  # so that `array + tensor` asks the Tensor

    def __init__(self, data: Any, node: Node | None = None) -> None:
        self.data: Array = as_array(data.data if isinstance(data, Tensor) else data)
        self.node = node

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value."""
        return self.data.shape

    @property
    def dtype(self) -> Any:
        """The type of its numbers."""
        return self.data.dtype

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return self.data.ndim

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return self.data.size

    @property
    def grad(self) -> Array | None:
        """The gradient that `backward` left here: on parameters always, elsewhere only with `keep_grads=True`."""
        return None if self.node is None else self.node.grad

    @grad.setter
    def grad(self, value: Array | None) -> None:
        if self.node is None:
            raise GraphError("a constant or a frozen parameter has no gradient to set")
        if value is not None and tuple(value.shape) != self.shape:
            raise ShapeError(f"the gradient of a {type(self).__name__} of shape {self.shape} has shape {value.shape}")
        self.node.grad = value

    def item(self) -> float:
        """The one number in it, as a Python float. On a GPU this waits for the device."""
        return self.data.item()

    def detach(self) -> Tensor:
        """The same array as a constant."""
        return Tensor(self.data)

    def __repr__(self) -> str:
        made = "constant" if self.node is None else f"made by {self.node.op}"
        return f"{type(self).__name__}({self.data!r}, {made})"

    def backward(self, gy: Array | None = None, *, keep_graph: bool = False, keep_grads: bool = False) -> None:
        """Add d(self)/d(leaf), weighted by `gy`, to the `grad` of every leaf below; see `backward` in this file."""
        backward(self, gy, keep_graph=keep_graph, keep_grads=keep_grads)

    __add__, __radd__ = operator_for("add")
    __sub__, __rsub__ = operator_for("sub")
    __mul__, __rmul__ = operator_for("mul")
    __truediv__, __rtruediv__ = operator_for("div")
    __matmul__, __rmatmul__ = operator_for("matmul")

    def __neg__(self) -> Tensor:
        return OPS["neg"](self)

    def sum(self, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        """`ops.sum` of it."""
        return OPS["sum"](self, axis=axis, keepdims=keepdims)

    def mean(self, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        """`ops.mean` of it."""
        return OPS["mean"](self, axis=axis, keepdims=keepdims)

    def reshape(self, *shape: int) -> Tensor:
        """`ops.reshape` of it: `y = x.reshape(2, 3)`."""
        return OPS["reshape"](self, shape=shape)


class Parameter(Tensor):
    """A leaf: a Tensor that wants a gradient and was made by nobody."""

    __slots__ = ()

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        self.node = Node("parameter", self.data.shape)

    @property
    def frozen(self) -> bool:
        """Whether it is a constant for now."""
        return self.node is None

    def freeze(self, frozen: bool = True) -> None:
        """A frozen parameter is a constant: no gradient reaches it, and nothing is remembered on its behalf."""
        if frozen:
            self.node = None
        elif self.node is None:
            self.node = Node("parameter", self.data.shape)

    def zero_grad(self) -> None:
        """Forget the gradient."""
        if self.node is not None:
            self.node.grad = None

    def changed(self) -> None:
        """Say that `data` was written, so that a graph recorded before refuses to give gradients of old values."""
        if self.node is not None:
            self.node.version += 1


@contextlib.contextmanager
def no_grad() -> Iterator[None]:
    """Inside, ops compute and remember nothing."""
    global _recording
    before, _recording = _recording, False
    try:
        yield
    finally:
        _recording = before


def op(function: Callable[..., ValueAndGradients]) -> Callable[..., Tensor]:
    """Lift `function(*arrays, **options) -> value, (gradient per array)` to Tensors, and enter it in `OPS`.

    The plain function stays reachable: `y, (grad_x, grad_w, grad_b) = conv2d.__wrapped__(x, w, b)`. A gradient nobody
    wants (its input is a constant) is dropped here, and with it every array that it alone remembers. A function may
    return a third thing, `prepare`: what all its gradients have in common, computed once: `grad_x(prepare(gy))`.
    """
    name = function.__name__

    @functools.wraps(function)
    def apply(*inputs: Any, **options: Any) -> Tensor:
        y, gradients, *prepare = function(*(x.data if isinstance(x, Tensor) else x for x in inputs), **options)
        if not _recording:
            return Tensor(y)
        edges = tuple(
            (x.node, gradient, x.node.version)
            for x, gradient in zip(inputs, gradients, strict=False)  # an input left to its default has no edge
            if isinstance(x, Tensor) and x.node is not None and gradient is not None
        )
        return Tensor(y, Node(name, y.shape, edges, *prepare) if edges else None)

    if name in OPS:
        raise ValueError(f"an op named {name} is registered already")
    OPS[name] = apply
    return apply


def edges_of(node: Node) -> tuple[tuple[Node, Gradient, int], ...]:
    """Where the gradient goes on from this node; `GraphError` if a walk has been here and let go."""
    if node.edges is None:
        raise GraphError(
            f"backward has already been through this graph (at {node.op}) and released it: "
            "compute the loss again, or pass keep_graph=True to the first backward"
        )
    return node.edges


def count_uses(root: Node) -> dict[Node, int]:
    """How many edges lead to each node below `root`: a gradient is complete when all of them have delivered.

    It sees the whole graph before anything is changed, so this is where a graph that cannot be walked is refused.
    """
    uses = {root: 0}
    waiting = [root]
    while waiting:
        node = waiting.pop()
        for parent, _, version in edges_of(node):
            if parent.version != version:
                raise GraphError(
                    f"a parameter of shape {parent.shape} used by {node.op} was changed after the forward pass: "
                    "its gradient would mix old and new values; compute the loss again"
                )
            if parent not in uses:
                uses[parent] = 0
                waiting.append(parent)
            uses[parent] += 1
    return uses


def backward(y: Tensor, gy: Array | None = None, *, keep_graph: bool = False, keep_grads: bool = False) -> None:
    """The chain rule over the graph of `y`: every leaf's `grad` grows by sum_i gy_i * d y_i / d leaf.

    `gy` has the shape and dtype of `y`; a scalar needs none. Edges are dropped on the way, so memory falls while
    walking; `keep_graph=True` keeps them for a second pass, `keep_grads=True` leaves each node's gradient on it (both
    for lessons). Gradients are never written in place: two of them may be the same array. Errors: `GraphError`.
    """
    if y.node is None:
        raise GraphError("backward from a constant: no Parameter was used in its computation (or it ran in no_grad)")
    if gy is None:
        if y.size != 1:
            raise GraphError(f"backward without gy needs a scalar, and this has shape {y.shape}: sum it, or pass gy")
        gy = xp_of(y.data).ones_like(y.data)
    if isinstance(gy, Tensor) or getattr(gy, "shape", None) != y.shape or gy.dtype != y.dtype:
        found = f"{type(gy).__name__} {getattr(gy, 'dtype', '')} {getattr(gy, 'shape', '')}".rstrip()
        raise ShapeError(f"backward: gy must be an array like the value, {y.dtype} {y.shape}, and is {found}")

    uses = count_uses(y.node)
    grads, ready = {y.node: gy}, [y.node]
    while ready:
        node = ready.pop()
        gy, edges = grads.pop(node), edges_of(node)
        is_leaf = not edges
        if is_leaf:
            node.grad = gy if node.grad is None else node.grad + gy
        elif keep_grads:
            node.grad = gy
        if node.prepare:
            gy = node.prepare(gy)
        if not (keep_graph or is_leaf):
            node.edges = node.prepare = None
        for parent, gradient, _ in edges:
            gx = gradient(gy)
            grads[parent] = grads[parent] + gx if parent in grads else gx
            uses[parent] -= 1
            if not uses[parent]:
                ready.append(parent)
        del edges
