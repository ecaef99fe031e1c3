"""Print and draw the graph of a forward pass, with the arrays its gradients remember.

    print(graph(loss))          a table: each node in the order of computation, each gradient, what it remembers
    graph(loss)                 in a notebook, the drawing
    graph(loss).to_svg()        the drawing as text

A gradient is a function defined inside its op, so whatever it mentions lives on in its closure until `backward` has
used it. That is why training needs memory in proportion to depth, and this table shows where it goes: an op whose
gradient mentions nothing (add) is free, one that mentions its input (conv2d) keeps a whole activation.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from minifcn.errors import GraphError
from minifcn.tensor import Node, Tensor


@dataclass(frozen=True)
class Memory:
    """One array that a gradient mentions: by which variable, and the bytes it keeps alive.

    A view keeps its whole base alive, so `nbytes` may exceed what `shape` needs (`view` is then true). Of the same
    bytes mentioned twice only the first mention counts (`again` is the node that mentioned them before).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    view: bool
    again: int | None

    def __str__(self) -> str:
        text = f"{self.name} {self.shape} {self.dtype}, {readable(self.nbytes)}"
        return text + (" with the array it is a view of" if self.view else "") + (
            "" if self.again is None else f" (counted at {self.again})"
        )  # fmt: skip


@dataclass(frozen=True)
class Edge:
    """The way from a value back to one of the inputs it was computed from."""

    parent: int
    gradient: str
    memories: tuple[Memory, ...]


@dataclass(frozen=True)
class Step:
    """A node as the table shows it. `released` once a backward pass has used it up."""

    number: int
    op: str
    shape: tuple[int, ...]
    edges: tuple[Edge, ...]
    released: bool

    @property
    def nbytes(self) -> int:
        """Bytes that its gradients remember, each array counted at the first that mentions it."""
        return sum(memory.nbytes for edge in self.edges for memory in edge.memories if memory.again is None)


class Graph:
    """The steps of a computation in order, inputs before what they are used in. It holds no arrays itself."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = tuple(steps)

    @property
    def nbytes(self) -> int:
        """All bytes that the gradients remember, each array counted once."""
        return sum(step.nbytes for step in self.steps)

    def __str__(self) -> str:
        arrays = sum(memory.again is None for s in self.steps for edge in s.edges for memory in edge.memories)
        rows = [
            ("", "op", "value", "gradient", "of", "remembers"),
            *(row for step in self.steps for row in _rows(step)),
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = ["  ".join([*map(str.ljust, row[:5], widths), row[5]]).rstrip() for row in rows]
        return "\n".join([*lines, f"remembered: {readable(self.nbytes)} in {arrays} arrays"])

    __repr__ = __str__

    def to_svg(self) -> str:
        """Return the drawing: inputs above, the result below, darker where more is remembered; hovering shows what."""
        return _draw(self)

    def _repr_svg_(self) -> str:
        return self.to_svg()


def graph(t: Tensor) -> Graph:
    """Return the graph that `t` was computed by. Raises GraphError for a constant, which has none."""
    if t.node is None:
        raise GraphError("graph of a constant: no Parameter was used in its computation (or it ran in no_grad)")
    nodes = _in_order(t.node)
    numbers = {node: number for number, node in enumerate(nodes)}
    seen: dict[int, int] = {}
    return Graph([_step(node, numbers, seen) for node in nodes])


def memories(node: Node) -> list[tuple[str, tuple[Memory, ...]]]:
    """Return each gradient of a node, by its name, with the arrays that it remembers; [] once they are released."""
    seen: dict[int, int] = {}
    edges = node.edges or ()
    return [(gradient.__name__, tuple(_memories((node.prepare, gradient), 0, seen))) for _, gradient, _ in edges]


def held(nodes: Iterable[Node]) -> int:
    """Return the bytes that the gradients of all `nodes` remember now, each array counted once."""
    seen: dict[int, int] = {}
    edges = ((number, node.prepare, way) for number, node in enumerate(nodes) for _, way, _ in node.edges or ())
    kept = (memory for number, *functions in edges for memory in _memories(functions, number, seen))
    return sum(memory.nbytes for memory in kept if memory.again is None)


def readable(nbytes: int) -> str:
    """Return a number of bytes for people: 1536 -> '1.5 KiB'."""
    if nbytes < 1024:
        return f"{nbytes} B"
    size, unit = nbytes / 1024, 0
    while size >= 1023.95:
        size, unit = size / 1024, unit + 1
    return f"{size:.1f} {('KiB', 'MiB', 'GiB', 'TiB')[unit]}"


# Reading the graph.


def _in_order(root: Node) -> list[Node]:
    """Every node once, parents first. A loop and not a recursion: graphs are deeper than Python's stack."""
    order: list[Node] = []
    done: set[Node] = set()
    waiting = [(root, False)]
    while waiting:
        node, parents_done = waiting.pop()
        if node in done:
            continue
        if parents_done:
            done.add(node)
            order.append(node)
        else:
            waiting.append((node, True))
            waiting.extend((parent, False) for parent, _, _ in reversed(node.edges or ()))
    return order


def _step(node: Node, numbers: dict[Node, int], seen: dict[int, int]) -> Step:
    number = numbers[node]
    edges = tuple(
        Edge(numbers[parent], gradient.__name__, tuple(_memories((node.prepare, gradient), number, seen)))
        for parent, gradient, _ in node.edges or ()
    )
    return Step(number, node.op, node.shape, edges, node.edges is None)


def _memories(functions: Iterable[Any], number: int, seen: dict[int, int]) -> Iterator[Memory]:
    for name, array in _mentioned(functions):
        owner = array
        while isinstance(getattr(owner, "base", None), type(array)):
            owner = owner.base
        before = seen.get(id(owner))
        seen.setdefault(id(owner), number)
        yield Memory(name, array.shape, str(array.dtype), owner.nbytes, owner.nbytes > array.nbytes, before)


def _mentioned(functions: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """The arrays that the functions' closures hold, with the names of their variables; each array once.

    The free variables of a function have their names in its code and their values in its cells. A value may itself be
    a function with a closure, or a container, so the search goes on inside: `through.y` is y in the closure of through.
    """
    waiting: list[tuple[str, Any]] = [("", function) for function in reversed(tuple(functions))]
    found: set[int] = set()
    while waiting:
        name, thing = waiting.pop()
        if id(thing) in found:
            continue
        found.add(id(thing))
        if hasattr(thing, "nbytes") and hasattr(thing, "dtype"):
            yield name, thing
        else:
            inside = [(f"{name}.{key}" if name else key, value) for key, value in _contents(thing)]
            waiting.extend(reversed(inside))


def _contents(thing: Any) -> Iterable[tuple[str, Any]]:
    if getattr(thing, "__closure__", None):
        cells = zip(thing.__code__.co_freevars, thing.__closure__, strict=True)
        return [(name, cell.cell_contents) for name, cell in cells]
    if isinstance(thing, dict):
        return [(str(key), value) for key, value in thing.items()]
    if isinstance(thing, list | tuple):
        return [(str(place), value) for place, value in enumerate(thing)]
    return []


# Printing it.


def _rows(step: Step) -> Iterator[tuple[str, ...]]:
    """One line per array remembered; what would repeat the line above is left blank."""
    first = (str(step.number), step.op, str(step.shape))
    if step.released:
        yield (*first, "", "", "released by backward")
    elif not step.edges:
        yield (*first, "", "", "")
    for edge in step.edges:
        way = (edge.gradient, str(edge.parent))
        for memory in edge.memories or ("nothing",):
            yield (*first, *way, str(memory))
            first, way = ("", "", ""), ("", "")


# Drawing it. Rows of boxes, each as far above the result as its longest way to it. A long edge gets a bend in every row
# it passes, so that it is laid out like a (narrow) box and runs around the others.

HEIGHT, DOWN, APART, MARGIN = 54, 44, 18, 16
SWEEPS = 12
BEND = 6.0


class _Layout:
    """Where everything goes. A place is a step (by its number) or, from `len(steps)` on, a bend."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.widths = [float(_box_width(step)) for step in steps]
        depths = [0] * len(steps)  # the longest way from each step down to the result, in edges
        for step in reversed(steps):
            for edge in step.edges:
                depths[edge.parent] = max(depths[edge.parent], depths[step.number] + 1)
        self.row_of = {number: max(depths) - depth for number, depth in enumerate(depths)}
        self.ways = {(s.number, k): self._way(edge.parent, s.number) for s in steps for k, edge in enumerate(s.edges)}
        self.rows: list[list[int]] = [[] for _ in range(max(depths) + 1)]
        for place, row in self.row_of.items():
            self.rows[row].append(place)
        self.x = [0.0] * len(self.widths)
        self._place()

    def _way(self, parent: int, child: int) -> list[int]:
        """An edge as the places it passes, one in each row; the new bends among them take their places here."""
        passed = range(self.row_of[parent] + 1, self.row_of[child])
        bends = range(len(self.widths), len(self.widths) + len(passed))
        self.row_of.update(zip(bends, passed, strict=True))
        self.widths += [BEND] * len(bends)
        return [parent, *bends, child]

    def _place(self) -> None:
        """Few crossings and straight edges: move places to the mean of their neighbours, below and above in turn."""
        links = [link for way in self.ways.values() for link in itertools.pairwise(way)]
        below, above = dict[int, list[int]](), dict[int, list[int]]()
        for upper, lower in links:
            below.setdefault(upper, []).append(lower)
            above.setdefault(lower, []).append(upper)
        for sweep in range(SWEEPS):
            neighbours, rows = (above, self.rows) if sweep % 2 else (below, self.rows[::-1])
            for row in rows:
                wish = {place: fmean(self.x[other] for other in neighbours.get(place, [place])) for place in row}
                if sweep < SWEEPS // 2:
                    row.sort(key=wish.__getitem__)
                self._settle(row, wish)
        left = min(x - width / 2 for x, width in zip(self.x, self.widths, strict=True))
        self.x = [MARGIN + x - left for x in self.x]

    def _settle(self, row: list[int], wish: dict[int, float]) -> None:
        """Least squares to the wishes, in order and without overlap, by pooling neighbours that collide.

        Measured from where it would stand if the row were packed, each place's wish only has to be no less than its
        left neighbour's; where it is less, the two (and all that are pooled with them) share their mean.
        """
        packed: list[float] = []
        pools: list[tuple[float, int]] = []  # a shift, and how many neighbours share it
        edge = 0.0
        for place in row:
            packed.append(edge + self.widths[place] / 2)
            edge += self.widths[place] + APART
            pools.append((wish[place] - packed[-1], 1))
            while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
                (left, few), (right, more) = pools[-2:]
                pools[-2:] = [((left * few + right * more) / (few + more), few + more)]
        shifts = [value for value, count in pools for _ in range(count)]
        for place, start, shift in zip(row, packed, shifts, strict=True):
            self.x[place] = start + shift

    def top(self, place: int) -> float:
        return MARGIN + self.row_of[place] * (HEIGHT + DOWN)


def _labels(step: Step) -> tuple[str, str, str]:
    keeps = "released" if step.released else f"remembers {readable(step.nbytes)}" if step.nbytes else ""
    return f"{step.number} {step.op}", " × ".join(map(str, step.shape)) or "scalar", keeps


def _box_width(step: Step) -> int:
    letters = max(map(len, _labels(step)))
    return max(24 + 7 * letters, 16 + 10 + 50 * len(step.edges))


def _draw(graph: Graph) -> str:
    layout, steps = _Layout(graph.steps), graph.steps
    width = max(layout.x[p] + layout.widths[p] / 2 for p in layout.row_of) + MARGIN
    height = len(layout.rows) * (HEIGHT + DOWN) - DOWN + 2 * MARGIN
    most = max((step.nbytes for step in steps), default=0)
    edges = [line for step in steps for line in _draw_edges(step, layout)]
    boxes = [_draw_box(step, layout, step.nbytes / most if most else 0.0) for step in steps]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="system-ui, sans-serif" font-size="12" '
            'text-anchor="middle" fill="#1b1f24">',
            f"<title>{len(steps)} nodes, their gradients remember {readable(graph.nbytes)}</title>",
            '<rect width="100%" height="100%" fill="#fff" rx="8"/>',
            *edges,
            *boxes,
            "</svg>",
        ]
    )


def _draw_box(step: Step, layout: _Layout, share: float) -> str:
    x, y, width = layout.x[step.number], layout.top(step.number), layout.widths[step.number]
    name, shape, keeps = map(html.escape, _labels(step))
    line = y + (18 if keeps else 24)
    text = [f"{edge.gradient}: {memory}" for edge in step.edges for memory in edge.memories] or ["remembers nothing"]
    fill = "#f3e9da" if not step.edges else _blend((255, 255, 255), (126, 170, 235), share)
    return (
        f"<g><title>{html.escape(chr(10).join(text))}</title>"
        f'<rect x="{x - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}" height="{HEIGHT}" rx="7" fill="{fill}" '
        f'stroke="#5b6470"/><text x="{x:.1f}" y="{line:.1f}" font-weight="650">{name}</text>'
        f'<text x="{x:.1f}" y="{line + 15:.1f}">{shape}</text>'
        f'<text x="{x:.1f}" y="{line + 29:.1f}" font-size="11" fill="#4a525e">{keeps}</text></g>'
    )


def _draw_edges(step: Step, layout: _Layout) -> Iterator[str]:
    """Each edge enters its box at a point of its own, in the order in which they come from left to right."""
    ways = sorted((layout.ways[step.number, k], edge.gradient) for k, edge in enumerate(step.edges))
    ways.sort(key=lambda way: layout.x[way[0][-2]])
    for place, (way, gradient) in enumerate(ways):
        enter = layout.x[step.number] + (place - (len(ways) - 1) / 2) * 50
        x, y = layout.x[way[0]], layout.top(way[0]) + HEIGHT
        path = [f"M{x:.1f} {y:.1f}"]
        for stop in way[1:]:
            next_x, next_y = (enter if stop == step.number else layout.x[stop]), layout.top(stop)
            middle = (y + next_y) / 2
            path.append(f"C{x:.1f} {middle:.1f} {next_x:.1f} {middle:.1f} {next_x:.1f} {next_y:.1f}")
            x, y = next_x, next_y + HEIGHT
            if stop != step.number:
                path.append(f"V{y:.1f}")
        tip = layout.top(step.number)
        yield f'<path d="{" ".join(path)}" fill="none" stroke="#9aa4b2"/>'
        yield f'<path d="M{enter - 3.5:.1f} {tip - 7:.1f}h7l-3.5 7z" fill="#9aa4b2"/>'
        yield (
            f'<text x="{enter + 5:.1f}" y="{tip - 9:.1f}" font-size="10" text-anchor="start" '
            f'fill="#1f5fbf" stroke="#fff" stroke-width="3" paint-order="stroke">{html.escape(gradient)}</text>'
        )


def _blend(low: tuple[int, int, int], high: tuple[int, int, int], part: float) -> str:
    return "#" + "".join(f"{round(a + part * (b - a)):02x}" for a, b in zip(low, high, strict=True))
