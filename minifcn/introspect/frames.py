"""Watch one training step: forward, backward and update, frame by frame, as one page that needs nothing else.

    film = frames(lambda: ops.softmax_cross_entropy(net(x), labels), optimizer, named={"image": x})
    film.save("step.html")      a page with a slider; in a notebook, the last line `film` shows it

A frame is one op of the forward pass, one node of the backward pass, or the update of one parameter. It shows the
arrays that go in and come out, as pictures and numbers, and how many bytes the gradients hold at that moment. The step
is a real one: the parameters are changed afterwards.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.backend import Array, to_host
from minifcn.errors import GraphError, UsageError
from minifcn.formats.checkpoint import replace_file
from minifcn.formats.limits import path_of
from minifcn.graph import held, memories, readable
from minifcn.optim import Optimizer
from minifcn.tensor import WATCHER, Node, Parameter, Tensor, plain

PAGE = Path(__file__).with_name("frames.html")
PLANES, SIDE = 8, 32
"""An array is shown by at most so many planes, of at most so many rows and columns."""
MOST_FRAMES = 200


@dataclass(frozen=True)
class Panel:
    """An array in a frame: `planes` of numbers, cut to what can be looked at, and what was cut away, in words."""

    name: str
    shape: tuple[int, ...]
    planes: list[list[list[float | None]]]
    cut: str


Panels = Sequence[Panel]


@dataclass(frozen=True)
class Frame:
    """One moment of the step.

    phase: "forward", "backward" or "update"
    title: the op, or the parameter
    says: what happens, in a sentence
    takes, gives: the arrays that go in, and those that come out
    remembers: what the gradients of this op keep (forward), or let go (backward), a line for each
    held: bytes that all gradients hold after this frame; `readable` says it for people, with the change
    """

    phase: str
    title: str
    says: str
    takes: tuple[Panel, ...]
    gives: tuple[Panel, ...]
    remembers: tuple[str, ...]
    held: int
    readable: str


class Film:
    """The frames of one step, in order; `save` writes them as one page."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        self.frames = tuple(frames)

    def __repr__(self) -> str:
        counts = ", ".join(f"{sum(f.phase == phase for f in self.frames)} {phase}" for phase in PHASES)
        return f"Film({counts}; at most {readable(max(f.held for f in self.frames))} held)"

    def html(self) -> str:
        """Return the page. It loads nothing from anywhere."""
        data = json.dumps([asdict(frame) for frame in self.frames], allow_nan=False).replace("<", "\\u003c")
        return PAGE.read_text(encoding="utf-8").replace("/* FRAMES */ []", data)

    def save(self, path: str | Path) -> None:
        """Write the page to `path`."""
        replace_file(path_of(path), [self.html().encode()])

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{html.escape(self.html())}" title="a training step, frame by frame" '
            'style="width:100%;height:640px;border:1px solid #8886"></iframe>'
        )


PHASES = ("forward", "backward", "update")


def frames(
    loss: Callable[[], Tensor], optimizer: Optimizer, *, named: Mapping[str, Array | Tensor] | None = None
) -> Film:
    """Make one training step with `optimizer` on the scalar that `loss` computes, and return its frames.

    `named` gives names to arrays that are no parameters, such as the image; a parameter has its name in the net.
    Errors: `GraphError` if nothing in the loss can learn; `UsageError` for more than 200 frames, before the update.
    """
    parameters = dict(optimizer.net.named_parameters())
    watcher = Watcher({**parameters, **(named or {})})
    optimizer.zero_grad()
    with WATCHER.set(watcher):
        y = loss()
        if y.node is None:
            raise GraphError("frames: no parameter was used for this loss; expected a loss that can be made smaller")
        y.backward()
        watcher.end()
    before = {name: (p.data.copy(), p.grad) for name, p in parameters.items() if p.grad is not None}
    optimizer.step()
    for name, (w, gradient) in before.items():
        watcher.update(name, w, gradient, parameters[name].data)
    return Film(watcher.frames)


class Watcher:
    """Make a frame of each call that `tensor.py` announces. It keeps cut copies, so the step needs no more memory."""

    def __init__(self, named: Mapping[str, Array | Tensor]) -> None:
        self.frames: list[Frame] = []
        self.nodes: list[Node] = []
        self.kept: dict[Node, list[tuple[str, str]]] = {}
        self.reached: Any = None  # a node of the backward pass, its gradient, and what it has given so far
        self.names = {id(x.node if isinstance(x, Parameter) else plain(x)): name for name, x in named.items()}
        self.named = named  # kept alive, because an id is only an array's as long as the array lives

    def forward(self, op: str, inputs: Sequence[Any], y: Tensor) -> None:
        """An op was computed from `inputs`: arrays, Tensors, numbers and None."""
        if y.node is None:
            return
        arrays = [x for x in inputs if isinstance(x, Tensor) or hasattr(x, "dtype")]
        name = self.name(op, arrays)
        self.names[id(y.node)] = name
        self.nodes.append(y.node)
        self.kept[y.node] = remembered(y.node)
        takes = [shown(self.of(x), plain(x)) for x in arrays]
        sentence = f"{op} takes {listed(self.of(x) for x in arrays)}, and gives {name}."
        keeps = [f"{by} remembers {arrays or 'nothing'}" for by, arrays in self.kept[y.node]]
        self.add("forward", op, sentence, takes, [shown(name, y.data)], keeps)

    def backward(self, node: Node, gy: Array) -> None:
        """The gradient `gy` of a node is complete. A frame begins."""
        self.end()
        self.reached = node, shown(f"gradient of {self.names[id(node)]}", gy), []

    def flows(self, parent: Node, gradient: Callable[[Array], Array], gx: Array) -> None:
        """A gradient function of that node gave `gx`, for its input `parent`."""
        name = self.names[id(parent)]
        self.reached[2].append((f"{gradient.__name__} gives that of {name}", shown(f"gradient of {name}", gx)))

    def end(self) -> None:
        """Add the frame that `backward` began: by now, the node has let go of what its gradients remembered."""
        if not self.reached:
            return
        (node, gy, flows), name = self.reached, self.names[id(self.reached[0])]
        if flows:
            says = f"The gradient of {name} is complete: {listed(way for way, _ in flows)}. "
            says += "What these functions remembered is let go."
        else:
            says = f"The gradient of {name} is complete, and stays for the optimizer."
        freed = [f"{by} lets go of {arrays}" for by, arrays in self.kept.get(node, ()) if arrays]
        self.add("backward", node.op if flows else name, says, [gy], [gx for _, gx in flows], freed)
        self.reached = None

    def update(self, name: str, before: Array, gradient: Array, after: Array) -> None:
        """The optimizer changed a parameter."""
        sentence = f"The optimizer changes {name} with its gradient. The gradient is cleared."
        takes = [shown(f"{name} before", before), shown(f"gradient of {name}", gradient)]
        self.add("update", name, sentence, takes, [shown("change", after - before), shown(f"{name} after", after)])

    def add(
        self, phase: str, title: str, says: str, takes: Panels, gives: Panels, remembers: Iterable[str] = ()
    ) -> None:
        """Add the frame, with the bytes that are held now."""
        if len(self.frames) == MOST_FRAMES:
            raise UsageError(f"frames: this step has more than {MOST_FRAMES} frames; take a smaller net")
        number = held(self.nodes)
        change = number - (self.frames[-1].held if self.frames else 0)
        says_held = f"{readable(number)} after this frame"
        if change:
            says_held += f", {readable(abs(change))} {'more' if change > 0 else 'less'} than before"
        frame = Frame(phase, title, says, tuple(takes), tuple(gives), tuple(remembers), number, says_held)
        self.frames.append(frame)

    def of(self, x: Array | Tensor) -> str:
        """Return the name of an op's input: what it was given, or "array" for a constant without one."""
        node = x.node if isinstance(x, Tensor) else None
        return self.names.get(id(plain(x) if node is None else node), "array")

    def name(self, op: str, inputs: Sequence[Any]) -> str:
        """Return a new name for a result: that of the layer whose parameters were used, or of the op, counted."""
        layers = [self.of(x).rpartition(".")[0] for x in inputs if isinstance(x, Tensor) and x.node]
        wanted = next((layer for layer in layers if layer), f"output of {op}")
        taken, name, count = set(self.names.values()), wanted, 1
        while name in taken:
            count += 1
            name = f"{wanted} {count}"
        return name


def shown(name: str, array: Array) -> Panel:
    """Return the array as it is shown: of the leading axes the first planes, of the last two every k-th place."""
    whole = np.atleast_2d(to_host(array))
    planes = whole.reshape(-1, *whole.shape[-2:])
    rows, columns = (-(-side // SIDE) for side in planes.shape[1:])
    few = planes[:PLANES, ::rows, ::columns]
    cut = [f"the first {PLANES} of {len(planes)} planes"] * (len(planes) > PLANES)
    cut += [f"one row and column of {max(rows, columns)}"] * (max(rows, columns) > 1)
    numbers = [[[rounded(v) for v in row] for row in plane] for plane in few.tolist()]
    return Panel(name, tuple(array.shape), numbers, ", ".join(cut))


def rounded(value: float) -> float | None:
    """Return four digits of a number; None for what is not finite, which JSON cannot hold."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def remembered(node: Node) -> list[tuple[str, str]]:
    """Return each gradient of a node, by its name, with the arrays that it remembers in words, or ""."""
    found = []
    for by, arrays in memories(node):
        words = [f"{replace(m, again=None)}{' (the same bytes)' * (m.again is not None)}" for m in arrays]
        found.append((by, listed(words) if words else ""))
    return found


def listed(words: Iterable[str]) -> str:
    """Return "a, b and c"."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
