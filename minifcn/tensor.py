"""Autograd on one page: Tensor, Node, `@op` and `backward`.

Read from top to bottom: a `Node` is a way back and never an array; a `Tensor` is an array with a node; `@op` turns a
function on plain arrays into one on Tensors; `backward` is the chain rule, once, over the whole graph.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NoReturn

from minifcn.backend import Array, Scope, as_array, as_numpy, xp_of
from minifcn.errors import GradientError, GraphError, MinifcnError, ShapeError

Gradient = Callable[[Array], Array]
Gradients = tuple[Gradient | None, ...]
ValueAndGradients = tuple[Array, Gradients] | tuple[Array, Gradients, Gradient]  # see `op`
OPS: dict[str, Callable[..., Tensor]] = {}
RECORDING = Scope("recording", True)
WATCHER: Scope[Any] = Scope("watcher", None)
"""Gets a call for every op and every node on the way back: `introspect/frames.py` makes pictures of them."""
Axes = int | tuple[int, ...] | None


class Node:
    """A place in the graph: which op made the value, its shape, and an edge to each input that wants a gradient.

    An edge is `(parent node, gradient function, the parent's version)`. A node never holds the value: an intermediate
    array lives exactly as long as some gradient function mentions it. `prepare`, if there is one, is applied to gy
    once, and the gradient functions get its result.
    """

    __slots__ = ("__weakref__", "dtype", "edges", "grad", "op", "prepare", "shape", "version")

    def __init__(
        self,
        op: str,
        shape: tuple[int, ...],
        edges: tuple[tuple[Node, Gradient, int], ...] = (),
        prepare: Gradient | None = None,
    ) -> None:
        self.op, self.shape, self.prepare = op, shape, prepare
        self.dtype: Any = None  # of its gradient: set when an op takes the value
        self.edges: tuple[tuple[Node, Gradient, int], ...] | None = edges  # None once a backward pass has used them
        self.grad: Array | None = None
        self.version = 0


def operator_for(name: str) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """Return `x + y` and its reflection `y + x`, through the registry: so this file need not know the ops."""
    return lambda x, y: OPS[name](x, y), lambda x, y: OPS[name](y, x)


def comparison(compare: Callable[[Any, Any], Array]) -> Callable[[Any, Any], Array]:
    """Return `x < y` and the like as an array of bool: a comparison has no gradient."""
    return lambda x, y: compare(x.data, y.data if isinstance(y, Tensor) else y)


class Tensor:
    """An array and, if a gradient can flow through it, its node. Without a node it is a constant."""

    __slots__ = ("data", "node")
    __array_ufunc__ = None  # so that `array + tensor` asks the Tensor
    __hash__ = object.__hash__  # a Tensor is found by identity, although == compares its numbers

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

    @property
    def T(self) -> Tensor:
        """`ops.transpose` of it: the axes in reverse order."""
        return OPS["transpose"](self)

    def item(self) -> float:
        """Return the one number in it, as a Python number. On a GPU this waits for the device."""
        if self.size != 1:
            raise ShapeError(f"one number is wanted, and this Tensor has shape {self.shape}: sum it, or index it")
        return self.data.item()

    def detach(self) -> Tensor:
        """Return the same array as a constant."""
        return Tensor(self.data)

    def __repr__(self) -> str:
        few = self.data if self.size <= 12 else self.data[(0,) * (self.ndim - 1)][:6]
        values = " ".join(str(few).split()) + " ..." * (few.size < self.size)
        made = "constant" if self.node is None else f"made by {self.node.op}"
        return f"{type(self).__name__}({self.shape}, {self.dtype}, {values}, {made})"

    def backward(self, gy: Array | None = None, *, keep_graph: bool = False, keep_grads: bool = False) -> None:
        """Add d(self)/d(leaf), weighted by `gy`, to the `grad` of every leaf below; see `backward` in this file."""
        backward(self, gy, keep_graph=keep_graph, keep_grads=keep_grads)

    __add__, __radd__ = operator_for("add")
    __sub__, __rsub__ = operator_for("sub")
    __mul__, __rmul__ = operator_for("mul")
    __truediv__, __rtruediv__ = operator_for("div")
    __matmul__, __rmatmul__ = operator_for("matmul")
    __pow__, __rpow__ = operator_for("power")
    __lt__, __le__, __gt__, __ge__ = map(comparison, (operator.lt, operator.le, operator.gt, operator.ge))
    __eq__, __ne__ = map(comparison, (operator.eq, operator.ne))

    def __neg__(self) -> Tensor:
        return OPS["neg"](self)

    def __abs__(self) -> Tensor:
        return OPS["abs"](self)

    def __getitem__(self, index: Any) -> Tensor:
        return OPS["getitem"](self, index=index)

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __float__(self) -> float:
        return float(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else repr(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return as_numpy(self.data, dtype, copy)

    def __array_function__(self, function: Any, *_: Any) -> NoReturn:
        name = function.__name__
        own = f"minifcn.ops.{name} has one" if name in OPS else "minifcn.ops lists what has one"
        raise GraphError(f"np.{name} has no gradient and takes no Tensor: give it the array in .data; {own}")

    def __getattr__(self, name: str) -> NoReturn:
        said = f"a {type(self).__name__} has no {name}"
        if not name.startswith("_") and hasattr(self.data, name):
            own = f"ops.{name} has one" if name in OPS else "ops lists what has one"
            said += f"; its array has, without a gradient: .data.{name} ({own})"
        raise AttributeError(said, name=name, obj=self)

    def sum(self, axis: Axes = None, *, keepdims: bool = False) -> Tensor:
        """`ops.sum` of it."""
        return OPS["sum"](self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Axes = None, *, keepdims: bool = False) -> Tensor:
        """`ops.mean` of it."""
        return OPS["mean"](self, axis=axis, keepdims=keepdims)

    def max(self, axis: Axes = None, *, keepdims: bool = False) -> Tensor:
        """`ops.max` of it."""
        return OPS["max"](self, axis=axis, keepdims=keepdims)

    def min(self, axis: Axes = None, *, keepdims: bool = False) -> Tensor:
        """`ops.min` of it."""
        return OPS["min"](self, axis=axis, keepdims=keepdims)

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        """`ops.reshape` of it: `y = x.reshape(2, 3)` or `x.reshape((2, 3))`."""
        given = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        return OPS["reshape"](self, shape=given)


class Parameter(Tensor):
    """A leaf: a Tensor that wants a gradient and that no op made."""

    __slots__ = ("leaf",)

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        if self.data.dtype.kind != "f":
            raise ShapeError(
                f"Parameter: numbers are {self.data.dtype}: expected float32 or float64, to learn in steps"
            )
        self.node = self.leaf = Node("parameter", self.data.shape)

    @property
    def frozen(self) -> bool:
        """Whether it is a constant for now."""
        return self.node is None

    def freeze(self, frozen: bool = True) -> None:
        """Make it a constant, or a leaf again: no gradient reaches a constant, and nothing is remembered for it.

        A graph recorded before it was frozen refuses to go backward.
        """
        if frozen and self.node is not None:
            self.zero_grad()
            self.changed()
        self.node = None if frozen else self.leaf

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.leaf.grad = None

    def changed(self) -> None:
        """Say that `data` was written, so that a graph recorded before refuses to give gradients of old values."""
        self.leaf.version += 1


def no_grad() -> AbstractContextManager[None]:
    """Return a block inside which this thread's ops compute and remember nothing: `with no_grad():`."""
    return RECORDING.set(False)


SHAPE_ONLY = "like"
"""The one option that may be any Tensor: `crop` looks at the shape of `like` and never at its numbers."""


def plain(x: Any) -> Any:
    """Return the array of an op's input; Python's numbers and None stay themselves, so that they change no dtype."""
    if isinstance(x, Tensor):
        return x.data
    return x if x is None or type(x) in (bool, int, float) else as_array(x)


def short(x: Any) -> str:
    """Return an array as its dtype and shape, anything else as Python writes it."""
    return f"{x.dtype} {x.shape}" if hasattr(x, "dtype") else f"{x!r:.60}"


def option(op: str, name: str, value: Any) -> Any:
    """Return the value of an option; `GraphError` for a Tensor whose gradient would be lost."""
    if not isinstance(value, Tensor) or name == SHAPE_ONLY:
        return value
    if value.node is not None:
        raise GraphError(
            f"{op}: no gradient flows into {name}, and this one was made by {value.node.op}; give {name}.data"
        )
    return value.data


def op(function: Callable[..., ValueAndGradients]) -> Callable[..., Tensor]:
    """Lift `function(*arrays, **options) -> value, (gradient per array)` to Tensors, and enter it in `OPS`.

    The plain function stays reachable: `y, (grad_x, grad_w, grad_b) = conv2d.__wrapped__(x, w, b)`. A gradient that
    no input wants (its input is a constant) is dropped here, and with it every array that it alone remembers. A
    function may return a third thing, `prepare`: what all its gradients have in common, computed once:
    `grad_x(prepare(gy))`. An array may be given by its name, `conv2d(x, w, b=b)`.
    """
    name, signature = function.__name__, inspect.signature(function)
    arrays = {p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD}

    @functools.wraps(function)
    def apply(*inputs: Any, **options: Any) -> Tensor:
        if not arrays.isdisjoint(options):
            bound = signature.bind(*inputs, **options)
            inputs, options = bound.args, bound.kwargs
        options = {key: option(name, key, value) for key, value in options.items()}
        inputs_of = [plain(x) for x in inputs]
        try:
            y, gradients, *prepare = function(*inputs_of, **options)
        except (AttributeError, TypeError, ValueError) as fault:
            if isinstance(fault, MinifcnError):
                raise
            given = [short(x) for x in inputs_of] + [f"{key}={short(value)}" for key, value in options.items()]
            raise ShapeError(f"{name}({', '.join(given)}): {str(fault).strip()}") from fault
        if not RECORDING():
            return Tensor(y)
        edges = []
        for x, gradient in zip(inputs, gradients, strict=False):  # an input left to its default has no edge
            if isinstance(x, Tensor) and x.node is not None and gradient is not None:
                x.node.dtype = x.data.dtype
                edges.append((x.node, gradient, x.node.version))
        result = Tensor(y, Node(name, y.shape, tuple(edges), *prepare) if edges else None)
        if watcher := WATCHER():
            watcher.forward(name, inputs, result)
        return result

    if name in OPS:
        raise ValueError(f"an op named {name} is registered already")
    OPS[name] = apply
    return apply


def edges_of(node: Node) -> tuple[tuple[Node, Gradient, int], ...]:
    """Return where the gradient goes on from this node; `GraphError` if a walk has been here and let go."""
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
    for lessons). On the way two gradients may be the same array, and none is written in place; a leaf gets an array of
    its own. Errors: `GraphError`; `GradientError` for a gradient unlike its input; `ShapeError` for a gy unlike y.
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

    uses, watcher = count_uses(y.node), WATCHER()
    grads, ready = {y.node: (gy, False)}, [y.node]  # each with whether no other place has the array
    while ready:
        node = ready.pop()
        (gy, owned), edges = grads.pop(node), edges_of(node)
        is_leaf = not edges
        if is_leaf:
            owned = owned and 0 not in getattr(gy, "strides", ())  # a number that was broadcast is one for all places
            node.grad = as_array(gy if owned else gy.copy()) if node.grad is None else node.grad + gy
        elif keep_grads:
            node.grad = gy
        if watcher:
            watcher.backward(node, gy)
        if node.prepare:
            gy = node.prepare(gy)
        if not (keep_graph or is_leaf):
            node.edges = node.prepare = None
        handed_on = owned and len(edges) == 1 and not keep_grads
        for parent, gradient, _ in edges:
            gx = gradient(gy)
            if watcher:
                watcher.flows(parent, gradient, gx)
            if gx.shape != parent.shape or (parent.dtype is not None and parent.dtype != gx.dtype):
                raise GradientError(
                    f"{node.op}: a gradient is {gx.dtype} {gx.shape}, and its input {parent.dtype} {parent.shape}"
                )
            if parent in grads:
                grads[parent] = grads[parent][0] + gx, True
            else:
                grads[parent] = gx, handed_on or root(gx) is not root(gy)
            uses[parent] -= 1
            if not uses[parent]:
                ready.append(parent)
        del edges


def root(array: Array) -> Array:
    """Return the array that holds the numbers of a view, or the array itself."""
    base = getattr(array, "base", None)
    return array if base is None else base
