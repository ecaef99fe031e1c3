"""What a net computes, written out line by line: figure 3 of the paper, as a program."""

from __future__ import annotations

from minifcn.models.fcn import FCN
from minifcn.models.trunk import Trunk
from minifcn.nn import Conv2d, Module, Sequential


def figure(net: FCN) -> str:
    """The steps of `net`, with the names of its layers and the crop offsets that its geometry gives."""
    *steps, last = net.ladder.rungs
    lines = [*trunk_lines(net.trunk, net.skips), ""]
    score = f"score_fr({net.trunk.last})"
    for rung in steps:
        lines.append(commented(f"score = {rung.name}({score})", f"stride {rung.stride}"))
        scale = f"{net.skip_scale[rung.skip]} * " if rung.skip in net.skip_scale else ""
        score, skip = "score", f"score_{rung.skip}({scale}{rung.skip})"
        if rung.cut == "skip":
            skip = f"crop({skip}, like=score, at={rung.at})"
        else:
            score = f"crop(score, like={rung.skip}, at={rung.at})"
        fused = f"{score} + {skip}" if net.fusion == "sum" else f"maximum({score}, {skip})"
        lines.append(commented(f"score = {fused}", f"fuse_{rung.skip}"))
        score = "score"
    lines.append(commented(f"score = {last.name}({score})", f"stride {last.stride}"))
    lines.append(f"return crop(score, like=image, at={last.at})")
    return "\n".join(lines)


def commented(code: str, comment: str) -> str:
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
