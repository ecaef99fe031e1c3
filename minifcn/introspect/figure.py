"""Print what a net computes, line by line, like figure 3 of the paper."""

from __future__ import annotations

import html

from minifcn.models.fcn import FCN, Words, follow
from minifcn.models.trunk import Trunk
from minifcn.nn import Conv2d, Module, Sequential


class Figure(str):
    """Lines of code that show themselves as lines, in a terminal and in a notebook."""

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self)}</pre>"


def figure(net: FCN) -> Figure:
    """Return the steps of `net`, with the names of its layers and the crop offsets that its geometry gives."""
    climbs = [head_lines(net, head) for head in net.heads]
    return Figure("\n\n".join("\n".join(lines) for lines in [trunk_lines(net.trunk, net.skips), *climbs]))


def head_lines(net: FCN, head: str) -> list[str]:
    """Return the way up of one head, a line for each step that has a comment."""
    words: Words = {
        "layer": lambda name, x: f"{name}({x})",
        "scale": lambda factor, x: f"{factor} * {x}",
        "crop": lambda at, x, like: f"crop({x}, like={like}, at={at})",
        "fuse": lambda fusion, score, skip: FUSED[fusion].format(score, skip),
    }
    lines, values = [], {name: name for name in (*net.trunk.stages, "image")}
    for step in net.steps(head):
        score = follow([step], values, words)
        if step.comment:
            lines.append(f"{f'score = {score}':<64} # {step.comment}")  # all comments begin in one column
            values["score"] = "score"
    return [*lines, f"{f'{head[1:]} =' if head else 'return'} {values['score']}"]


FUSED = {"sum": "{} + {}", "max": "maximum({}, {})", "concat": "concat({}, {})"}


def trunk_lines(trunk: Trunk, skips: tuple[str, ...]) -> list[str]:
    """Return two lines: each stage that a skip takes from gets a name; the others are nested into the next."""
    *pools, last = trunk.stages
    x, named = "image", []
    for name in pools:
        x = f"{trunk.stages[name]}({x})"
        if name in skips or name == pools[-1]:
            named.append(f"{name} = {x}")
            x = name
    return [";  ".join(named), f"{last} = {nested(trunk.stages[last], getattr(trunk, trunk.stages[last]), x)}"]


def nested(name: str, stage: Module, x: str) -> str:
    """Return `drop6(relu(fc6(x)))`: the modules of a sequence around their input; of anything else only its name."""
    if not isinstance(stage, Sequential):
        return f"{name}({x})"
    for name, module in stage.sequence().items():
        x = f"{name}({x})"
        if isinstance(module, Conv2d) and module.relu:
            x = f"relu({x})"
    return x
