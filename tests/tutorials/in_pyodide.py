"""What test_lite.py runs in Pyodide: every module is imported, every case of every op checked, and notebook 01 run.

The last line that it prints is JSON: what was found.
"""

import contextlib
import importlib
import io
import json
import linecache
import pkgutil
import sys
import types

import numpy as np
from notebooks import TUTORIALS, cells_of_notebook, load, outputs_of
from op_cases import ALL
from pyodide.code import eval_code

import minifcn
from minifcn.backend import to_host
from minifcn.gradcheck import gradcheck
from minifcn.kernels.threads import set_threads, threads
from minifcn.tensor import OPS, Parameter

found: dict = {"python": sys.version.split()[0], "numpy": np.__version__}

names = [each.name for each in pkgutil.walk_packages(minifcn.__path__, "minifcn.")]
names = [name for name in names if name not in ("minifcn.__main__", "minifcn.train")]  # programs
found["modules"], found["broken"] = len(names), []
for name in names:
    try:
        importlib.import_module(name)
    except Exception as error:  # whatever it is: the test shows all of them
        found["broken"].append(f"{name}: {error!r}")

found["threads"] = []
for count in (None, 4):
    set_threads(count)
    found["threads"].append(threads())
set_threads(None)


def values(case, dtype):
    """The value of a case, and its gradients under one random gradient of the output."""
    inputs, options = case.at(dtype)
    wanted = {i: Parameter(inputs[i]) for i in case.differentiable}
    y = OPS[case.op](*(wanted.get(i, x) for i, x in enumerate(inputs)), **options)
    y.backward(np.random.default_rng(1).standard_normal(y.shape).astype(dtype))
    return [to_host(y.data), *(to_host(p.grad) for p in wanted.values())]


found["cases"], found["wrong"] = len(ALL), []
for case in ALL:
    try:
        pairs = zip(values(case, "float32"), values(case, "float64"), strict=True)
        near = all(np.abs(a - b).max() <= 2e-5 * max(np.abs(b).max(), 1e-30) for a, b in pairs)
        if not near or gradcheck(OPS[case.op], *case.inputs, **case.options) > 1e-6:
            found["wrong"].append(f"{case}: inexact")
    except Exception as error:
        found["wrong"].append(f"{case}: {error!r}")

path = next(TUTORIALS.glob("01_*.ipynb"))
notebook = load(path)
main = sys.modules["__main__"] = types.ModuleType("__main__")
found["cells"], found["different"] = 0, []
for number, (cell, as_kept) in enumerate(zip(cells_of_notebook(notebook), notebook["cells"], strict=True)):
    if cell.kind != "code":
        continue
    name = f"cell-{number}"
    linecache.cache[name] = (len(cell.source), None, cell.source.splitlines(keepends=True), name)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        eval_code(cell.source, vars(main), filename=name)
    kept = "".join(text for kind, text in outputs_of(as_kept) if kind == "stdout")
    found["cells"] += 1
    if "varies" not in cell.tags and said.getvalue() != kept:
        found["different"].append([number, said.getvalue(), kept])

print(json.dumps(found))
