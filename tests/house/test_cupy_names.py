"""Every `xp.name` in the package exists in NumPy and in CuPy: the list that make_cupy_names.py wrote says so."""

import ast
import functools
import inspect
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fake_device import CUPY_NAMES
from line_budget import nodes, parsed
from op_cases import CASES

from minifcn import ops
from minifcn.backend import to_device
from minifcn.models.fcn import FCN8s
from minifcn.optim import SGD, Adam, WeightAverage
from minifcn.tensor import OPS, Parameter, Tensor
from minifcn.training.evaluation import predict
from minifcn.training.step import train_step

PACKAGE = pathlib.Path(__file__).parent.parent.parent / "minifcn"


@functools.cache
def xp_names(source: str) -> tuple[tuple[int, str], ...]:
    """`(line, "linalg.norm")` for every `xp.linalg.norm` and `xp_of(x).linalg.norm`: whole dotted names only."""
    tree, found = parsed(source), []
    inner = {node.value for node in nodes(tree) if isinstance(node, ast.Attribute)}
    for node in nodes(tree):
        if not isinstance(node, ast.Attribute) or node in inner:
            continue
        path: list[str] = []
        root: ast.expr = node
        while isinstance(root, ast.Attribute):
            path.insert(0, root.attr)
            root = root.value
        called = root.func if isinstance(root, ast.Call) else root
        if isinstance(called, ast.Name) and called.id == ("xp_of" if isinstance(root, ast.Call) else "xp"):
            found.append((node.lineno, ".".join(path)))
    return tuple(found)


def in_cupy(name: str) -> bool:
    folder, _, last = name.rpartition(".")
    return name in CUPY_NAMES or (last == "at" and folder in CUPY_NAMES)  # xp.add.at: a method of every ufunc


def in_numpy(name: str) -> bool:
    place: object = np
    for part in name.split("."):
        place = getattr(place, part, None)
    return place is not None or name == "newaxis"


def complaints(name: str, source: str) -> Iterator[str]:
    for line, used in xp_names(source):
        for library, known in (("NumPy", in_numpy), ("CuPy", in_cupy)):
            if not known(used):
                yield f"{name}:{line} xp.{used} is not in {library}"


def test_every_name_is_in_both_libraries() -> None:
    files = {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}
    assert sum(len(list(xp_names(source))) for source in files.values()) > 20  # the walk does see the package
    found = [complaint for name, source in files.items() for complaint in complaints(name, source)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("y = xp.maximum(x, 0)", ["maximum"]),
        ("y = xp.maximum(x, 0).sum()", ["maximum"]),
        ("y = xp_of(x, w).maximum(x, 0)", ["maximum"]),
        ("y = xp_of(x).linalg.norm(x)", ["linalg.norm"]),
        ("xp.add.at(y, i, 1)", ["add.at"]),
        ("self.xp.nothing", []),
    ],
)
def test_the_walk_finds_names(source: str, expected: list[str]) -> None:
    assert [name for _, name in xp_names(source)] == expected


@pytest.mark.parametrize("source", ["xp.nditer(x)", "xp_of(x).asnumpy(x)", "xp.lib.stride_tricks.broadcast_shapes(x)"])
def test_a_name_of_one_library_alone_is_refused(source: str) -> None:
    assert list(complaints("planted.py", source))


def test_the_list_names_its_version_and_is_whole() -> None:
    first = (pathlib.Path(__file__).parent.parent / "cupy_names.txt").read_text(encoding="ascii").splitlines()[0]
    assert first.startswith("# CuPy ") and len(CUPY_NAMES) > 500
    assert {"ndarray", "maximum", "linalg.norm", "lib.stride_tricks.as_strided", "ndarray.get"} <= CUPY_NAMES


def test_the_list_is_true(cupy: Any) -> None:
    """Where CuPy is at hand, what the package uses is there indeed."""
    for path in PACKAGE.rglob("*.py"):
        for _, name in xp_names(path.read_text(encoding="utf-8")):
            place = cupy
            for part in name.split("."):
                place = getattr(place, part)


def calls(fake_gpu: Any) -> set[tuple[str, int, tuple[str, ...]]]:
    """Every call of CuPy in the cases of all ops and in a few training steps."""
    for case in (case for cases in CASES.values() for case in cases.values()):
        inputs, options = case.at("float32", "gpu")
        wanted = [Parameter(x) if i in case.differentiable else x for i, x in enumerate(inputs)]
        y = OPS[case.op](*wanted, **options)
        y.backward(fake_gpu.ones_like(y.data))
    for rule in (SGD, Adam):
        net = FCN8s(layers=11, width=1, padding="same", classes=3).to("gpu").train()
        labels = to_device(np.zeros((1, 32, 32), "int64"), "gpu")
        scores = net(Tensor(to_device(np.zeros((1, 3, 32, 32), "float32"), "gpu")))
        train_step(rule(net, lr=0.1, weight_decay=0.1), [ops.softmax_cross_entropy(scores, labels)])
        WeightAverage(net, decay=0.9).update(1)
        predict(net, np.zeros((1, 3, 32, 32), "float32"))
    return fake_gpu.calls


def signature(function: Any) -> inspect.Signature | None:
    """How CuPy declares a function; of a compiled method the first line of the docstring says it."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        found = re.match(r"[\w.]+\((.*?)\)", function.__doc__ or "")
    if not found:
        return None
    kinds, parameters = inspect.Parameter, []
    for text in found[1].split(", "):
        name = text.split("=")[0].split()[-1]
        after = any(one.kind is kinds.VAR_POSITIONAL for one in parameters)
        kind = kinds.VAR_POSITIONAL if name[0] == "*" else kinds.KEYWORD_ONLY if after else kinds.POSITIONAL_OR_KEYWORD
        parameters.append(kinds(name.strip("*"), kind, default=None if "=" in text else kinds.empty))
    return inspect.Signature(parameters)


UFUNC_OPTIONS = {"out", "dtype", "casting", "where"}


def misfits(cupy: Any, made: set[tuple[str, int, tuple[str, ...]]]) -> tuple[int, list[str]]:
    """How many calls could be compared with CuPy's declarations, and those that do not fit."""
    compared, found = 0, []
    for path, count, names in sorted(made):
        place = cupy
        for part in path.split("."):
            place = getattr(place, part)
        if isinstance(place, cupy.ufunc):
            compared += 1
            if not place.nin <= count <= place.nin + place.nout or set(names) - UFUNC_OPTIONS:
                found.append(f"{path} with {count} arguments and {', '.join(names) or 'no options'}")
            continue
        declared = signature(place)
        if declared is None:
            continue
        compared += 1
        try:
            declared.bind(*[None] * (count + path.startswith("ndarray.")), **dict.fromkeys(names))
        except TypeError as fault:
            found.append(f"{path} with {count} arguments and {', '.join(names) or 'no options'}: {fault}")
    return compared, found


def test_every_call_fits_cupys_own_signatures(cupy: Any, fake_gpu: Any) -> None:
    """CuPy refuses some options that NumPy takes; it can say so without a GPU."""
    made = calls(fake_gpu)
    compared, found = misfits(cupy, made)
    assert not found, "\n".join(found)
    assert compared > 40 and compared >= 0.9 * len(made)
    _, planted = misfits(cupy, {("concatenate", 1, ("order",)), ("exp", 3, ()), ("ndarray.sum", 0, ("where",))})
    assert len(planted) == 3
