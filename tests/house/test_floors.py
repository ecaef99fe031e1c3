"""The house: imports go strictly down, the heavy libraries wait until they are used, and nothing runs foreign text.

Every rule is a function from a file's name and source to its sentences of complaint, so that each can be shown a
planted offence as well as the package.
"""

import ast
import functools
import importlib
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from line_budget import COURSE_BUDGET, PACKAGE_BUDGET, code_lines, count, course, files_of, imported, nodes, parsed

ROOT = pathlib.Path(__file__).parent.parent.parent
PACKAGE = ROOT / "minifcn"

# Bottom first. A file may import what stands on a line above its own room's; rooms on one line do not know each other.
# Inside a room, `FILES` in its __init__.py lists files (and inner rooms) from easy to hard, and is its order.
FLOORS = """
errors
backend  geometry  formats
metrics
kernels
tensor
ops
gradcheck  graph
nn
optim  inference  sampling
surgery
stitch
data  models
viz  weights
introspect
training
experiments
cli
train  __main__
"""
FLOOR = {name: floor for floor, line in enumerate(FLOORS.strip().splitlines()) for name in line.split()}
ROOMS = (
    "kernels",
    "ops",
    "models",
    "introspect",
    "data",
    "formats",
    "weights",
    "viz",
    "training",
    "experiments",
    "cli",
)
COURSE = sorted(set(FLOOR) - set(ROOMS) - {"train", "__main__"})

# Imported inside the functions that use them: `import minifcn` stays quick, and works where they are not installed.
LAZY = {"matplotlib", "cupy", "cupyx", "PIL", "tqdm", "pooch", "threadpoolctl", "torch", "scipy"}
LAZY |= {"sklearn", "onnx", "onnxruntime", "h5py"}


@functools.cache
def sources() -> dict[str, str]:
    """`{"ops/conv.py": text}` for every file of the package."""
    return {
        path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))
    }


def order_of(package: str, files: dict[str, str]) -> list[str]:
    """The list FILES in a folder's __init__.py, easy to hard; a missing one is an empty one."""
    for node in parsed(files.get(f"{package}/__init__.py", "")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "FILES":
            return list(ast.literal_eval(node.value))
    return []


def climbs(name: str, source: str, files: dict[str, str]) -> Iterator[str]:
    """Imports that do not go down: the first step in which two paths part is compared, in the order of that room."""
    if name == "__init__.py":
        return  # the roof: it shows what is inside
    own = name.removesuffix(".py").removesuffix("/__init__").split("/")
    if own[0] not in FLOOR:
        yield f"{name} stands on no floor: it belongs into one of the rooms {', '.join(ROOMS)}"
        return
    for module in imported(name, source):
        root, *path = module.split(".")
        if root != "minifcn" or path == ["__version__"]:
            continue
        if not path or path[0] not in FLOOR:
            yield f"{name} imports {module}: name the file it comes from"
            continue
        shared = next((i for i, (a, b) in enumerate(zip(own, path, strict=False)) if a != b), min(len(own), len(path)))
        if shared == len(own):
            continue  # a room that shows what is inside
        if shared == 0:
            if FLOOR[path[0]] >= FLOOR[own[0]]:
                yield f"{name} imports {path[0]}, which is not below it"
            elif own[0] in COURSE and path[0] not in (*COURSE, "kernels", "ops"):
                yield f"{name} is read as part of the course, and imports {module}, which is not"
            continue
        order = order_of("/".join(own[:shared]), files)
        if len(path) <= shared or path[shared] not in order:
            yield f"{name} imports {module} of its own folder: name a file that FILES lists"
        elif own[shared] in order and order.index(path[shared]) >= order.index(own[shared]):
            yield f"{name} imports {path[shared]}, which FILES does not list before it"


def unlisted(files: dict[str, str]) -> Iterator[str]:
    """Files of a folder that its FILES does not list, and the other way round."""
    for package in sorted({str(pathlib.PurePosixPath(name).parent) for name in files if "/" in name}):
        listed = set(order_of(package, files))
        below = {
            name.removeprefix(f"{package}/").removesuffix(".py") for name in files if name.startswith(f"{package}/")
        }
        there = {name.split("/")[0] for name in below}
        for file in sorted(listed ^ (there - {"__init__"})):
            yield f"{package}/{file} is {'listed in FILES but missing' if file in listed else 'not listed in FILES'}"


def hides(name: str, source: str) -> Iterator[str]:
    """Modules named like one of the standard library, which a script in the same folder would get in its place."""
    if pathlib.PurePosixPath(name).stem in sys.stdlib_module_names - {"__main__"}:
        yield f"{name} is named like a module of Python's own"


def names_a_library(name: str, source: str) -> Iterator[str]:
    """Ops, im2col and the tensor are written once for both libraries: they ask xp_of and name neither."""
    if name.startswith("ops/") or name in ("kernels/im2col.py", "tensor.py"):
        for module in imported(name, source):
            if module.split(".")[0] in ("numpy", "cupy"):
                yield f"{name} imports {module}: take xp = xp_of(x)"


def loads_early(name: str, source: str) -> Iterator[str]:
    """Heavy libraries imported outside a function."""
    waiting: list[ast.AST] = list(parsed(source).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        waiting.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import | ast.ImportFrom):
            for module in imported(name, ast.unparse(node)):
                if module.split(".")[0] in LAZY:
                    yield f"{name} imports {module} outside a function"


FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "marshal", "shelve", "yaml", "cloudpickle"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_METHODS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}


def runs_text(name: str, source: str) -> Iterator[str]:
    """Whatever could run what a file or an argument says."""
    for module in imported(name, source):
        if module.split(".")[0] in FORBIDDEN_MODULES:
            yield f"{name} imports {module}"
    for node in nodes(parsed(source)):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id in FORBIDDEN_CALLS:
            yield f"{name}:{node.lineno} calls {called.id}"
        if isinstance(called, ast.Attribute) and ast.unparse(called) in FORBIDDEN_METHODS:
            yield f"{name}:{node.lineno} calls {ast.unparse(called)}"
        for keyword in node.keywords:
            if keyword.arg in ("shell", "allow_pickle") and getattr(keyword.value, "value", True) is not False:
                yield f"{name}:{node.lineno} passes {keyword.arg}="


def untyped(name: str, source: str) -> Iterator[str]:
    """The public functions and methods whose signature leaves a type out. Gradients inside an op are not public."""
    for owner in [parsed(source), *(node for node in parsed(source).body if isinstance(node, ast.ClassDef))]:
        for function in (node for node in owner.body if isinstance(node, ast.FunctionDef)):
            if function.name.startswith("_") and function.name != "__init__":
                continue
            arguments = function.args
            every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
            bare = [one.arg for one in every if one and one.annotation is None and one.arg not in ("self", "cls")]
            silent = function.returns is None and function.name != "__init__"
            if bare or silent:
                yield f"{name}:{function.lineno} {function.name} has no type for {', '.join(bare) or 'what it returns'}"


def names_a_place(name: str, source: str) -> Iterator[str]:
    """Folders of one machine: data are found through MINIFCN_DATA alone."""
    for place in (".." + "/shared", "/" + "home/", "/" + "root/", "/" + "work/"):
        if place in source:
            yield f"{name} names {place}"


RULES: dict[str, Callable[[str, str], Iterator[str]]] = {
    "no module hides Python's": hides,
    "imports go down": lambda name, source: climbs(name, source, sources()),
    "ops name no library": names_a_library,
    "heavy libraries wait": loads_early,
    "nothing runs foreign text": runs_text,
    "public signatures are typed": untyped,
    "no machine's paths": names_a_place,
}


@pytest.mark.parametrize("rule", RULES)
def test_the_package_keeps(rule: str) -> None:
    complaints = [complaint for name, source in sources().items() for complaint in RULES[rule](name, source)]
    assert not complaints, "\n".join(complaints)


PLANTED = [
    ("imports go down", "metrics.py", "from minifcn.nn import Conv2d"),
    ("imports go down", "metrics.py", "def late():\n    import minifcn.training.loop"),
    ("imports go down", "graph.py", "from minifcn import gradcheck"),
    ("imports go down", "cli/train.py", "from .evaluate import main"),
    ("imports go down", "cli/train.py", "from minifcn.cli.evaluate import main"),
    ("imports go down", "data/voc.py", "from minifcn.viz import palette"),
    ("imports go down", "data/voc.py", "from minifcn.data.tools.check import check"),
    ("imports go down", "graph.py", "from minifcn.formats.files import read"),
    ("imports go down", "experiments/bench/rival.py", "from minifcn.experiments.bench.studies import profile"),
    ("imports go down", "experiments/bench/rival.py", "from minifcn.experiments.reproduction.row import Row"),
    ("no module hides Python's", "inspect.py", "x = 1"),
    ("no module hides Python's", "cli/inspect.py", "x = 1"),
    ("imports go down", "tensor.py", "from minifcn import FCN8s"),
    ("imports go down", "kernels/im2col.py", "from ..tensor import Tensor"),
    ("imports go down", "ops/arithmetic.py", "from minifcn.ops.conv import conv2d"),
    ("imports go down", "ops/arithmetic.py", "from .conv import conv2d"),
    ("imports go down", "ops/conv.py", "from minifcn.ops import relu"),
    ("imports go down", "helpers.py", "x = 1"),
    ("ops name no library", "ops/conv.py", "import numpy as np"),
    ("ops name no library", "tensor.py", "def f():\n    from cupy import asarray"),
    ("heavy libraries wait", "viz/plots.py", "import matplotlib.pyplot as plt"),
    ("heavy libraries wait", "data/files.py", "try:\n    from PIL import Image\nexcept ImportError:\n    Image = None"),
    ("nothing runs foreign text", "formats/checkpoint.py", "import pickle"),
    ("nothing runs foreign text", "recipes.py", "eval('1')"),
    ("nothing runs foreign text", "doctor.py", "import subprocess\nsubprocess.run('ls', shell=True)"),
    ("nothing runs foreign text", "checkpoint.py", "np.load(path, allow_pickle=True)"),
    ("public signatures are typed", "metrics.py", "def mean_iu(matrix) -> float: ..."),
    ("public signatures are typed", "metrics.py", "class A:\n    def b(self): ..."),
    ("no machine's paths", "recipes.py", "root = '.." + "/shared/data'"),
]


@pytest.mark.parametrize(("rule", "name", "source"), PLANTED)
def test_a_rule_sees_its_offence(rule: str, name: str, source: str) -> None:
    assert list(RULES[rule](name, source))


ALLOWED = [
    ("imports go down", "nn.py", "from minifcn import ops\nfrom minifcn.tensor import Tensor\nimport numpy as np"),
    ("imports go down", "cli/verbs.py", "from minifcn import __version__"),
    ("imports go down", "data/tools/check.py", "from minifcn.data.voc import VOC_CLASSES"),
    ("imports go down", "experiments/reproduction/row.py", "from minifcn.experiments.bench.rival import layouts"),
    ("imports go down", "ops/conv.py", "from ..kernels.im2col import Windows\nfrom .checks import anything"),
    ("heavy libraries wait", "viz/plots.py", "def curves():\n    import matplotlib"),
    ("nothing runs foreign text", "training.py", "net.eval()\nsubprocess.run(['git'], shell=False)"),
    ("public signatures are typed", "ops/pool.py", "def f(x: int) -> int:\n    def grad_x(gy): ..."),
]


@pytest.mark.parametrize(("rule", "name", "source"), ALLOWED)
def test_a_rule_lets_the_innocent_pass(rule: str, name: str, source: str) -> None:
    assert not list(RULES[rule](name, source))


def test_every_folder_lists_its_files() -> None:
    assert not list(unlisted(sources()))
    assert list(unlisted({"ops/__init__.py": "FILES = ('conv',)", "ops/pool.py": ""})) == [
        "ops/conv is listed in FILES but missing",
        "ops/pool is not listed in FILES",
    ]


def test_the_repository_names_no_machine() -> None:
    files = [*ROOT.glob("*"), *ROOT.glob("docs/**/*"), *ROOT.glob("tests/**/*")]
    texts = [
        file
        for file in files
        if file.suffix in (".md", ".py", ".toml", ".cff", ".txt", "") and file.is_file() and file.name != ".git"
    ]
    assert len(texts) > 10
    for file in texts:
        assert not list(names_a_place(file.name, file.read_text(encoding="utf-8"))), file


@pytest.mark.parametrize("what", ["minifcn", "every file"])
def test_importing_loads_nothing_heavy_and_warns_of_nothing(what: str) -> None:
    names = ["minifcn"]
    if what == "every file":
        dotted = [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in sources()]
        names += [f"minifcn.{name}" for name in dotted if not name.endswith("__")]
    program = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *names], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    loaded = {module.split(".")[0] for module in done.stdout.split()}
    assert "minifcn" in loaded and not loaded & LAZY


def test_no_public_name_hides_a_module() -> None:
    """`import minifcn.gradcheck as g` is the module, whatever a package shows beside it."""
    names = sorted(
        f"minifcn.{name.removesuffix('.py').removesuffix('/__init__').replace('/', '.')}" for name in sources()
    )
    for name in names:
        if name.rsplit(".")[-1] in ("__init__", "__main__"):
            continue
        module, (package, _, attribute) = importlib.import_module(name), name.rpartition(".")
        assert getattr(sys.modules[package], attribute) is module, f"{name} is hidden"


def test_the_course_and_all_that_it_imports_keep_the_budget() -> None:
    lines = count(course())
    assert lines["backend.py"] > 20 and {"ops/conv.py", "kernels/__init__.py", "kernels/winograd.py"} < set(lines)
    assert sum(lines.values()) <= COURSE_BUDGET, lines
    assert "train.py" not in lines and not any(name.startswith(("cli/", "models/")) for name in lines)


def test_the_package_keeps_its_budget() -> None:
    lines = count(sorted(PACKAGE.rglob("*.py")))
    assert sum(lines.values()) <= PACKAGE_BUDGET, lines


def test_a_module_is_found_with_the_rooms_it_lies_in() -> None:
    found = [file.relative_to(PACKAGE).as_posix() for file in files_of("minifcn.ops.conv.conv2d")]
    assert found == ["ops/__init__.py", "ops/conv.py"] and not list(files_of("numpy.linalg"))


def test_code_lines_counts_code() -> None:
    module = '"""Free.\n\nFree."""\n\n# free\nx = (1 +  # one\n     2)  # two\n'
    function = '\n\ndef f():  # three\n    """Free."""\n    return x  # four\n'
    assert code_lines(module + function) == 4
