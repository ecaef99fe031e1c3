"""Print what a net computes, line by line, like figure 3 of the paper."""

from __future__ import annotations

from minifcn.models.fcn import FCN
from minifcn.models.trunk import Trunk
from minifcn.nn import Conv2d, Module, Sequential


def figure(net: FCN) -> str:
    """The steps of `net`, with the names of its layers and the crop offsets that its geometry gives."""
    climbs = [head_lines(net, head) for head in net.heads]
    return "\n\n".join("\n".join(lines) for lines in [trunk_lines(net.trunk, net.skips), *climbs])


def head_lines(net: FCN, head: str) -> list[str]:
    """The way up of one head, as `FCN.climb` goes it."""
    *steps, last = net.ladder.rungs
    lines = []
    score = f"score_fr{head}({net.trunk.last})"
    for rung in steps:
        lines.append(commented(f"score = {rung.name}{head}({score})", f"stride {rung.stride}"))
        scorer = f"score_{rung.skip}{head}"
        scale = f"{net.skip_scale[rung.skip]} * " if rung.skip in net.skip_scale else ""
        score, skip = "score", f"{scale}{rung.skip}" if net.fusion == "concat" else f"{scorer}({scale}{rung.skip})"
        if rung.cut == "skip":
            skip = f"crop({skip}, like=score, at={rung.at})"
        else:
            score = f"crop(score, like={rung.skip}, at={rung.at})"
        fused = {
            "sum": f"{score} + {skip}",
            "max": f"maximum({score}, {skip})",
            "concat": f"{scorer}(concat({score}, {skip}))",
        }
        lines.append(commented(f"score = {fused[net.fusion]}", f"fuse_{rung.skip}{head}"))
        score = "score"
    lines.append(commented(f"score = {last.name}{head}({score})", f"stride {last.stride}"))
    result = f"{head[1:]} =" if head else "return"
    lines.append(f"{result} crop(score, like=image, at={last.at})")
    return lines


def commented(code: str, comment: str) -> str:
    """A line of code, its comment where all comments begin."""
    return f"{code:<64} # {comment}"


def trunk_lines(trunk: Trunk, skips: tuple[str, ...]) -> list[str]:
    """Each stage that somebody takes from gets a name; the others are nested into the next."""
    *pools, last = trunk.stages
    x, named = "image", []
    for name in pools:
        x = f"{trunk.stages[name]}({x})"
        if name in skips or name == pools[-1]:
            named.append(f"{name} = {x}")
            x = name
    return [";  ".join(named), f"{last} = {nested(trunk.stages[last], getattr(trunk, trunk.stages[last]), x)}"]


def nested(name: str, stage: Module, x: str) -> str:
    """`drop6(relu(fc6(x)))`: the modules of a sequence around their input; of anything else only its name."""
    if not isinstance(stage, Sequential):
        return f"{name}({x})"
    for name, module in stage.sequence().items():
        x = f"{name}({x})"
        if isinstance(module, Conv2d) and module.relu:
            x = f"relu({x})"
    return x
