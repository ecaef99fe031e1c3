"""Every `xp.name` in the package exists in NumPy and in CuPy: the list that make_cupy_names.py wrote says so."""

import ast
import functools
import pathlib
from collections.abc import Iterator

import numpy as np
import pytest
from fake_device import CUPY_NAMES

PACKAGE = pathlib.Path(__file__).parent.parent.parent / "minifcn"


@functools.cache
def xp_names(source: str) -> tuple[tuple[int, str], ...]:
    """`(line, "linalg.norm")` for every `xp.linalg.norm` and `xp_of(x).linalg.norm`: whole dotted names only."""
    tree, found = ast.parse(source), []
    inner = {node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
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


@pytest.mark.gpu
def test_the_list_is_true(gpu_reason: str) -> None:
    """Where CuPy is at hand, what the package uses is there indeed."""
    if gpu_reason:
        pytest.skip(f"no GPU: {gpu_reason}")
    import cupy

    for path in PACKAGE.rglob("*.py"):
        for _, name in xp_names(path.read_text(encoding="utf-8")):
            place = cupy
            for part in name.split("."):
                place = getattr(place, part)
