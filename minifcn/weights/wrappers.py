"""Find the weights inside a training checkpoint: below wrappers, beside an optimizer's state and running averages.

People save `{"state_dict": ..., "optimizer": ...}`, and DataParallel, torch.compile and Lightning put `module.`,
`_orig_mod.` and `model.` before every name. The readers join the names of nested dicts by dots, so all of these are
prefixes: what stands before the longest ending that is a layer known here. No wrapper's name has to be known.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from minifcn.errors import UsageError
from minifcn.formats.limits import short

MAX_WRAPPERS = 8  # no one has more around their weights; a hostile name of 250 dots is not tried at each of them
# What counts cells or images for others, and is no layer of any net: at the top of a file, or at the end of a name
BESIDE = re.compile(r"(optim\w*|\w*sched\w*|callbacks|loops|epoch|iter\w*|\w*step|n_averaged|\w*rng\w*|loss)(\.|$)")
COUNTERS = re.compile(r"(.*\.)?(total_ops|total_params)")
AVERAGED = re.compile(r"(.*[._])?(ema|averaged?|avg|swa|shadow)([._].*)?", re.IGNORECASE)

Arrays = dict[str, np.ndarray]


def parts_of(arrays: Mapping[str, np.ndarray], layers: Collection[str]) -> dict[str, Arrays]:
    """Return the arrays below each prefix that stands before known layers, those with most such layers first.

    A name belongs to the longest prefix that it has. `layers` are names without their last part: "features.0".
    """
    found: Counter[str] = Counter()
    for name in arrays:
        words = name.rpartition(".")[0].removesuffix(".conv").split(".")
        for start in range(min(len(words), MAX_WRAPPERS)):
            if ".".join(words[start:]) in layers:
                found[".".join(words[:start])] += 1
                break
    prefixes = sorted(found, key=lambda each: each.count(".") + (each != ""), reverse=True)
    parts: dict[str, Arrays] = {each: {} for each, _ in found.most_common()}
    for name, array in arrays.items():
        first = next((each for each in prefixes if not each or name.startswith(f"{each}.")), None)
        if first is not None and not COUNTERS.fullmatch(name) and (first or not BESIDE.match(name)):
            parts[first][name[len(first) + 1 :] if first else name] = array
    return parts


def chosen(path: Path, fitting: Mapping[str, str], part: str) -> str:
    """Return the one prefix of a file to take, of those that fit a net, each with the net's name.

    Where just one is no running average, it is that one. Raises `UsageError` with all of them where more are left.
    """
    if part in fitting:
        return part
    plain = [each for each in fitting if not AVERAGED.fullmatch(each)]
    if part or len(plain or fitting) != 1:
        which = ", ".join(f"{short(each) or 'the file itself'} ({net})" for each, net in fitting.items())
        asked = f"expected one of them, found `part={short(part)}`" if part else "say which with `part=...`"
        cure = f"converting the file with `part={short(next(iter(plain or fitting)))}` writes one alone"
        raise UsageError(f"{path}: holds {len(fitting)} sets of weights: {which}; {asked}: {cure}")
    return (plain or list(fitting))[0]


def description(arrays: Mapping[str, np.ndarray], parts: Mapping[str, Arrays], part: str) -> str:
    """Return in one line where in the file the weights were, and what else is there."""
    taken = {f"{part}.{name}" if part else name for name in parts[part]}
    others = Counter(_place(name, parts) for name in arrays if name not in taken)
    left = ", ".join(f"{short(place)} ({count})" for place, count in others.most_common(6))
    copies = [short(each) for each in parts if each != part and AVERAGED.fullmatch(each)]
    beside = copies and not AVERAGED.fullmatch(part)
    other = f"; converting with `part={copies[0]}` takes the running average" if beside else ""
    where = f"took the weights in {short(part)}" if part else "took the weights at the top of the file"
    return f"{where}{f'; left aside: {left}' if left else ''}{other}"


def _place(name: str, parts: Mapping[str, Arrays]) -> str:
    return next((each for each in parts if each and name.startswith(f"{each}.")), name.partition(".")[0])
