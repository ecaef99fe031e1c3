"""`minifcn bench`: measure speed and memory, beside PyTorch and the limits of the machine.

    minifcn bench nets                                FCN-8s whole: forward and a training step, time and peak memory
    minifcn bench nets --padding same --width 8 --size 128 --batch 4
    minifcn bench nets --net fcn-squeezenet --size 256x192    any FCN of `minifcn describe`, by the same name
    minifcn bench nets --net all --runs 9             the nets that are trained on laptops, a depthwise layer and FCN-8s
    minifcn bench nets --device gpu                   the same on the GPU, timed by its own events
    minifcn bench layers                              every layer of it at 500x500, forward and both gradients
    minifcn bench layers --only conv3_2,fc7 --runs 9
    minifcn bench layers --way im2col --json im2col.json --plot roofline.png
    minifcn bench ladder --only conv3_2               one layer from six loops to Winograd: time, memory, error
    minifcn bench memory --only conv1_2               what a convolution takes beyond its input and output, each way
    minifcn bench overhead --size 8                   what autograd costs an op
    minifcn bench profile                             what the time of a training step is spent on
    minifcn bench scaling --width 16 --size 1024      time against pixels, width and threads
    minifcn bench loading --size 375x500 --batch 4    how long a training loop waits for images, with workers
    minifcn bench scaling --ranks                     what 1 to 20 ranks would gain, by a model of the network
    mpiexec -n 2 minifcn bench scaling --ranks        the same, and the model beside two ranks at hand

The rivals take turns (A B A B), so that whatever else the machine does meets both; each number is the median of the
turns. PyTorch runs on as many threads, with the faster of its two memory layouts for each product.
Whole nets are each in a process of their own, for their time and their memory: `minifcn bench side` is that process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import platform
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from operator import methodcaller
from typing import Annotated, Any

import numpy as np

from minifcn import __version__, viz
from minifcn.backend import DEVICES
from minifcn.cli.command import image_size, net_options, parse_words, say, warn
from minifcn.errors import MinifcnError, UsageError
from minifcn.experiments.bench.compare import SIDES, measure, plot_roofline, tasks_of, times_of
from minifcn.experiments.bench.gpu import net_seconds
from minifcn.experiments.bench.loading import STEP, waiting
from minifcn.experiments.bench.rival import import_torch, layouts
from minifcn.experiments.bench.scaling import IMAGES, prediction, ranks_at_hand
from minifcn.experiments.bench.stopwatch import Elsewhere, copy_rate, matrix_rate, median_seconds, serve, take_turns
from minifcn.experiments.bench.studies import (
    FCNS,
    PRODUCTS,
    Depthwise,
    Layer,
    Work,
    ladder,
    memory,
    overhead,
    products_alone,
    profile,
    scaling,
    vgg_layers,
)
from minifcn.formats.checkpoint import replace_file
from minifcn.formats.limits import path_of
from minifcn.kernels.convolution import WAYS, convolution
from minifcn.kernels.threads import set_threads, threads
from minifcn.models.zoo import named
from minifcn.training.device import choose_device
from minifcn.training.environment import environment
from minifcn.training.ranges import check_choices, check_ranges
from minifcn.training.ranks import Alone, together


@dataclass(frozen=True)
class Options:
    """Measure: `minifcn bench nets|layers|ladder|memory|overhead|profile|scaling|loading [options]`."""

    net: Annotated[
        str,
        "nets: fcn8s, fcn-squeezenet, or another FCN that `minifcn describe` knows, with 21 classes; "
        '"depthwise": a layer of 144 channels; "all": those of docs/performance.md, each in its size',
    ] = "fcn8s"
    size: Annotated[
        str, "nets: height x width of the image; else, and for a square one, its side (in scaling, of the largest)"
    ] = "500"
    width: Annotated[int, "channels, as the net counts them (0: its own; 64 of VGG-16)"] = 0
    layers: Annotated[int, "nets: layers of VGG: 11, 13, 16 or 19 (0: the net's own)"] = 0
    batch: Annotated[int, "images at once"] = 1
    padding: Annotated[
        str,
        'the first layer\'s: a number, "same" or, for nets, "safe" (empty: the net\'s own, 100 for the paper\'s nets)',
    ] = ""
    only: Annotated[str, "layers, memory: their names, separated by commas; by default all"] = ""
    device: Annotated[str, 'nets: "cpu" or "gpu"'] = "cpu"
    way: Annotated[
        str,
        '"im2col", "blocks", "depthwise", "lines" or "winograd" for every layer that it can serve; '
        "by default as chosen for each",
    ] = ""
    runs: Annotated[int, "turns each rival takes"] = 5
    threads: Annotated[int, "threads that compute convolutions (0: one for each core)"] = 0
    torch: Annotated[bool, "measure PyTorch beside, if it is installed"] = True
    ranks: Annotated[bool, "scaling: predict a training step of --net on several ranks"] = False
    json: Annotated[str, "write the numbers to this file, too"] = ""
    plot: Annotated[str, "layers, scaling: draw them into this PNG file"] = ""


def main(argv: list[str]) -> int:
    """Measure, on every rank that was started. Return the exit code."""
    with together(say=warn) as ranks:
        return measured(argv, ranks)


def measured(argv: list[str], ranks: Alone) -> int:
    """Measure on one rank and return the exit code; only `scaling --ranks` may be run on several."""
    words, options = parse_words(Options, argv, verb="bench", after=__doc__ or "")
    if words[:1] != ["side"] and (len(words) != 1 or words[0] not in TABLES):
        raise UsageError(f"bench: found {' '.join(words)!r}; expected: bench {', or: bench '.join(TABLES)}")
    if options.way:
        check_choices(options, {"way": WAYS})
    check_choices(options, {"device": DEVICES})
    check(options, words[0])
    if options.device == "gpu" and (words[0] != "nets" or options.net in ("all", "depthwise")):
        raise UsageError("bench: option device is 'gpu'; only `bench nets` of one net can be measured there")
    if ranks.size > 1 and not options.ranks:
        raise UsageError(f"bench: {ranks.size} ranks were started; expected one, or `ranks=True` in bench scaling")
    set_threads(ranks.threads(options.threads))
    with convolution(options.way) if options.way else contextlib.nullcontext():
        if words[0] == "side":
            return serve_side(words[1:], options)
        record = measure_ranks(options, ranks) if options.ranks else TABLES[words[0]](options)
    if options.json and ranks.first:
        replace_file(path_of(options.json), [json.dumps(record, indent=1).encode()])
    return 0


def check(options: Options, verb: str) -> None:
    if (options.net, verb) not in (("all", "nets"), ("depthwise", "nets"), ("depthwise", "side")):
        named(FCNS, options.net, f"option net is {options.net!r}")
    image_size(options.size)
    least = {"width": 0, "layers": 0, "batch": 1, "runs": 1, "threads": 0}
    check_ranges(options, [(name, number, math.inf) for name, number in least.items()])
    for name in ("json", "plot"):
        path = getattr(options, name)
        if path and not path_of(path).absolute().parent.is_dir():
            raise UsageError(f"{path}: cannot be written, its folder does not exist; choose another --{name}")


def print_machine(torch: Any = None, rate: float = 0.0) -> None:
    built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    say(f"minifcn {__version__}, NumPy {np.__version__}, BLAS {built['name']} {built['version']}, "
          f"Python {platform.python_version()}, {platform.machine()}, {threads()} threads")  # fmt: skip
    if rate:
        say(f"{rate:.0f} GFLOP/s in a matrix product, {copy_rate():.1f} GB/s in a copy by one thread")
        say(f"rival: PyTorch {torch.__version__}" if torch else "rival: none (PyTorch not installed, or not wanted)")
    say("")


def record_of(options: Options, rows: Any, torch: Any = None, **more: Any) -> dict[str, Any]:
    """Return what a JSON file of the benchmark holds: the options, the machine, and the rows of a table."""
    return {
        "options": dataclasses.asdict(options),
        **environment(options.device),
        "torch": torch.__version__ if torch else None,
        "torch_build": torch.__config__.show() if torch else None,
        **more,
        "rows": rows,
    }


def side_of(options: Options) -> int:
    """Return the side of a square image; `UsageError` for another shape."""
    height, width = image_size(options.size)
    if height != width:
        raise UsageError(f"option size is {options.size!r}; expected one number: only whole nets take other shapes")
    return height


def wanted_layers(options: Options, default: str = "") -> list[Layer]:
    """Return the layers that --only names, by default all."""
    if options.padding not in ("", "same") and not options.padding.isdecimal():
        raise UsageError(f"option padding is {options.padding!r}; expected a number, or 'same': layers are FCN-8s's")
    found = vgg_layers(options.width or 64, side_of(options), options.padding or 100)
    layers = {layer.name: layer for layer in found}
    wanted = [name for name in (options.only or default).split(",") if name]
    for name in wanted:
        if name not in layers:
            raise UsageError(f"option only names {name!r}; expected some of {', '.join(layers)}")
    return [layer for layer in layers.values() if not wanted or layer.name in wanted]


# -------------------------------------------------------------------------------------------------------------- layers


def measure_layers(options: Options) -> dict[str, Any]:
    """Print the table line by line, and return it as a record."""
    layers = wanted_layers(options)
    torch, rate, copy = import_torch(options.torch), matrix_rate(), copy_rate()
    print_machine(torch, rate)
    say(f"{'layer':<9}{'product':<9}{'way':<10}{'Mflop':>8}{'MB':>7}{'bound by':>10}{'ms':>8}{'of BLAS':>9}"
          f"{'alone':>8}{'PyTorch':>9}{'ratio':>7}")  # fmt: skip
    rows = []
    for layer in layers:
        for product in PRODUCTS:
            row = measure(layer, product, torch=torch, batch=options.batch, runs=options.runs)
            flops, moved = 2 * row["multiply_adds"], row["least_bytes"]
            row["of_blas"] = flops / row["ms"] / rate / 1e6
            row["bound"] = "products" if flops / rate > moved / copy else "memory"
            rival = f"{row['torch_ms']:9.2f}{row['ms'] / row['torch_ms']:7.2f}" if torch else ""
            say(f"{layer.name:<9}{product:<9}{row['way']:<10}{flops / 1e6:>8.0f}{moved / 1e6:>7.1f}{row['bound']:>10}"
                  f"{row['ms']:8.2f}{row['of_blas']:8.0%} {row['alone_ms']:8.2f}{rival}")  # fmt: skip
            rows.append(row)
    total, alone, others = (sum(row[key] for row in rows) for key in ("ms", "alone_ms", "torch_ms"))
    say(f"{'all':<53}{total:8.1f}{'':9}{alone:8.1f}" + (f"{others:9.1f}{total / others:7.2f}" if torch else ""))
    if options.plot:
        plot_roofline(rows, rate, copy, path_of(options.plot))
    return record_of(options, rows, torch, gflops=rate, copy_gbytes=copy)


# ---------------------------------------------------------------------------------------------------------------- nets


TRAINED: dict[str, dict[str, Any]] = {
    "toy net, 64x64, batch 8": {"size": "64", "batch": 8, "width": 8, "padding": "same", "layers": 11},
    "FCN-8s of width 8, 128x128, batch 4": {"size": "128", "batch": 4, "width": 8, "padding": "same"},
    "FCN-SqueezeNet, 256x192": {"net": "fcn-squeezenet", "size": "256x192"},
    "depthwise 5x5, 144 channels, 28x28, batch 8": {"net": "depthwise", "size": "28", "batch": 8},
    "FCN-8s VGG-16, 500x500": {"size": "500"},
}
"""What `--net all` measures: nets that are trained on laptops, a layer of the photographs' trunk, and the paper's."""


def work_of(options: Options) -> Work | Depthwise:
    """Return the net or the layer that the options name, with its batch of images."""
    if options.net == "depthwise":
        return Depthwise(size=image_size(options.size), batch=options.batch, channels=options.width or 144)
    return net_of(options)


def net_of(options: Options) -> Work:
    """Return the net that the options name, with its batch of images."""
    size, given = image_size(options.size), net_options(options)
    return Work(options.net, size=size, batch=options.batch, device=options.device, **given)


def measure_nets(options: Options) -> dict[str, Any]:
    """Measure the net that the options name, or each of `TRAINED`; return the record."""
    if options.device == "gpu":
        return measure_on_gpu(options)
    if options.net != "all":
        return measure_net(options)
    rows, record = [], {}
    for name, chosen in TRAINED.items():
        say(f"\n{name}")
        record = measure_net(dataclasses.replace(options, **{"net": "fcn8s", **chosen}))
        rows += [{"work": name, **row} for row in record["rows"]]
    say(f"\n{'ratios to PyTorch':<46}{'forward':>9}{'step':>9}{'peak MB, forward and step':>28}")
    for forward, step in zip(rows[::2], rows[1::2], strict=True):
        times = "".join(f"{row['ms'] / row['torch_ms']:9.2f}" for row in (forward, step))
        peaks = "".join(f"{row['peak_bytes'] / row.get('torch_peak_bytes', math.nan):14.2f}" for row in (forward, step))
        say(f"{forward['work']:<46}{times}{peaks}")
    return {**record, "options": dataclasses.asdict(options), "rows": rows}


def measure_net(options: Options) -> dict[str, Any]:
    """Measure forward pass and training step of an FCN with 21 classes, ours and PyTorch's from the same weights."""
    torch, thin = import_torch(options.torch), work_of(dataclasses.replace(options, width=1, batch=1))
    if torch:  # what is refused is refused before anything is measured
        thin.rival(torch, torch.contiguous_format)
    sides, peaks = SIDES if torch else SIDES[:1], {}
    for side in sides[:2]:
        for name in ("forward", "step"):
            with elsewhere(side, options) as process:  # a fresh one: what a step has freed is not all given back
                peaks[side, name] = process.ask(f"{name}'s peak")
    rate, work = matrix_rate(), work_of(options)
    if torch:
        scores, theirs = work.forward(), work.rival(torch, layouts(torch)[0])[0]()
        if not np.allclose(scores, theirs.numpy(), rtol=1e-3, atol=1e-4 * float(np.abs(scores).max())):
            raise MinifcnError("ours and PyTorch's scores differ: report this")
        del scores, theirs
    print_machine(torch, rate)
    multiply_adds = work.multiply_adds()
    del work
    say(f"{options.net:<15}{'ms':>8}{'of BLAS':>9}{'PyTorch':>9}{'ratio':>7}{'spread':>8}{'peak MB':>9}{'PyTorch':>9}"
          f"{'ratio':>7}")  # fmt: skip
    rows = []
    with ExitStack() as stack:
        processes = [stack.enter_context(elsewhere(side, options)) for side in sides]
        for name, passes in (("forward", 1), ("step", 3)):
            mine, *others = take_turns(processes, options.runs, methodcaller("ask", name))
            row: dict[str, Any] = {"product": name, **times_of(mine, others), "peak_bytes": peaks["ours", name]}
            row["of_blas"] = passes * 2 * multiply_adds / row["ms"] / rate / 1e6
            line = f"{name:<15}{row['ms']:8.1f}{row['of_blas']:8.0%} "
            if torch:
                row["torch_peak_bytes"] = peaks[SIDES[1], name]
                line += f"{row['torch_ms']:9.1f}{row['ms'] / row['torch_ms']:7.2f}"
            line += f"{row['spread']:{8 if torch else 24}.0%}{row['peak_bytes'] / 1e6:9.0f}"
            if torch:
                line += f"{row['torch_peak_bytes'] / 1e6:9.0f}{row['peak_bytes'] / row['torch_peak_bytes']:7.2f}"
            say(line)
            rows.append(row)
    return record_of(options, rows, torch, gflops=rate)


def measure_on_gpu(options: Options) -> dict[str, Any]:
    """Measure forward pass and training step of an FCN on the GPU, beside PyTorch with cuDNN where it sees one."""
    _, why = choose_device("gpu")
    torch = import_torch(options.torch)
    print_machine()
    say(why)
    work = net_of(options)
    found = net_seconds(work, options.runs, torch=torch)
    say(f"{options.net:<15}{'ms':>8}{'PyTorch':>9}{'ratio':>7}")
    rows: list[dict[str, Any]] = []
    for name in ("forward", "step"):
        ours, theirs = 1e3 * found[name], 1e3 * found.get(f"torch_{name}", math.nan)
        rows.append({"product": name, "ms": ours, "torch_ms": theirs})
        say(f"{name:<15}{ours:8.2f}" + (f"{theirs:9.2f}{ours / theirs:7.2f}" if theirs > 0 else ""))
    return record_of(options, rows, torch, device=why)


def elsewhere(side: str, options: Options) -> Elsewhere:
    """Return the process in which one side does its work."""
    names = ("net", "size", "width", "layers", "batch", "padding", "way", "threads")
    chosen = [f"--{name}={getattr(options, name)}" for name in names]
    return Elsewhere([sys.executable, "-m", "minifcn", "bench", "side", side, *chosen])


def serve_side(words: list[str], options: Options) -> int:
    """Run one side: do what standard input asks for. Return the exit code."""
    if len(words) != 1 or words[0] not in SIDES:
        raise UsageError(f"bench side: found {' '.join(words)!r}; expected one of {', '.join(SIDES)}")
    serve(tasks_of(words[0], work_of(options)))
    return 0


# ------------------------------------------------------------------------------------------------------- four studies


def measure_ladder(options: Options) -> dict[str, Any]:
    """Print the ladder of each wanted layer, and return it as a record."""
    print_machine()
    rows = []
    for layer in wanted_layers(options, "conv3_2"):
        say(f"{layer.name}, forward: {layer.multiply_adds / 1e6:.0f} million multiply-adds")
        say(f"{'rung':<22}{'ms':>12}{'extra MB':>10}{'error':>10}")
        for row in ladder(layer, options.runs):
            rows.append({"layer": layer.name, **row})
            error = f"{row['error']:10.1e}" if "error" in row else ""
            say(f"{row['rung']:<22}{row['seconds'] * 1e3:12.1f}{row['bytes'] / 1e6:10.1f}{error}")
    return record_of(options, rows)


def measure_memory(options: Options) -> dict[str, Any]:
    """Print what each way takes for each wanted layer, and return it as a record."""
    print_machine()
    rows = []
    for layer in wanted_layers(options, "conv1_2"):
        found = memory(layer, options.batch)
        say(f"{layer.name}: input {layer.inputs}x{layer.size}x{layer.size}, output {layer.outputs}x{layer.out}x"
              f"{layer.out}; megabytes beyond them and the weights")  # fmt: skip
        say(f"{'':<10}" + "".join(f"{product:>9}" for product in PRODUCTS))
        for way in layer.ways():
            say(f"{way:<10}" + "".join(f"{row['bytes'] / 1e6:9.1f}" for row in found if row["way"] == way))
        rows += [{"layer": layer.name, **row} for row in found]
    return record_of(options, rows)


def measure_overhead(options: Options) -> dict[str, Any]:
    """Print what autograd costs an op, and return it as a record."""
    print_machine()
    size = min(side_of(options), 8)
    row = overhead(size, options.runs)
    say(f"FCN-8s of width 1 on {size}x{size} pixels: {row['step_us']:.0f} us forward and backward, "
          f"{row['by_hand_us']:.0f} us by hand: {row['us']:.1f} us for each of {row['ops']} ops")  # fmt: skip
    return record_of(options, [row])


def measure_profile(options: Options) -> dict[str, Any]:
    """Print what the time of a training step of `--net` is spent on, and return it as a record."""
    print_machine()
    work = net_of(options)
    seconds = profile(work, options.runs)
    total = sum(seconds.values())
    say(f"{options.net}, a training step: {total * 1e3:.0f} ms in the functions called")
    for name, each in seconds.items():
        say(f"{name:<34}{each * 1e3:10.1f} ms{each / total:8.1%}")
    alone = products_alone(work, options.runs)
    say(f"the matrix products of its convolutions alone, as products of columns: {alone * 1e3:.1f} ms")
    rows = [{"function": name, "seconds": each} for name, each in seconds.items()]
    return record_of(options, rows, products_alone_seconds=alone)


def measure_ranks(options: Options, ranks: Alone) -> dict[str, Any]:
    """Print a model of several ranks for a training step of `--net`, beside the ranks at hand if there are some."""
    print_machine()
    work, found = net_of(options), {}
    nbytes = sum(parameter.data.nbytes for parameter in work.net.parameters())
    if ranks.size > 1:
        found = ranks_at_hand(work, ranks, options.runs)
        say("{ranks} ranks: a message takes {us:.0f} us and 1 s for {gb:.2f} GB; a step alone {alone:.3f} s, with "
              "the sum of gradients {predicted:.3f} s by the model and {measured:.3f} s measured".format(
                  us=found["alpha"] * 1e6, gb=found["beta"] / 1e9, **found))  # fmt: skip
    seconds = (found.get("alone") or median_seconds(work.step, options.runs)) / options.batch
    say(f"{options.net}: {seconds:.2f} s for each image of a step, {nbytes / 1e6:.0f} MB of gradients")
    say(f"speedup of a step: weak, {options.batch} images on each rank; strong, {IMAGES} images on all together")
    say(f"{'network':<10}{'ranks':>6}{'sum s':>9}{'weak':>8}{'strong':>8}")
    rows = prediction(seconds, nbytes, images=options.batch)
    for row in rows:
        say(f"{row['network']:<10}{row['workers']:>6}{row['sum']:>9.3f}{row['weak']:>8.2f}{row['strong']:>8.2f}")
    return record_of(options, rows, ranks=found)


def measure_scaling(options: Options) -> dict[str, Any]:
    """Print, and draw, time against pixels, width and threads; return it as a record."""
    print_machine()
    studies = scaling(options.width or 64, max(64, side_of(options)), options.runs)
    panels = []
    for name, rows in studies.items():
        key = next(iter(rows[0]))
        xs, ys = [row[key] for row in rows], [row["seconds"] for row in rows]
        say(f"{key:>8}  seconds of a forward pass")
        for x, y in zip(xs, ys, strict=True):
            say(f"{x:>8}  {y:.4f}")
        line = {"measured": (xs, ys)}
        if name == "pixels":
            line["in proportion to the pixels"] = (xs, [ys[-1] * (x / xs[-1]) ** 2 for x in xs])
        if name == "threads":
            alone = [row["product_seconds"] for row in rows]
            line["a matrix product's gain"] = (xs, [ys[0] * each / alone[0] for each in alone])
        panels.append((f"time against {name}", key, "seconds", line))
    first, last = studies["threads"][0], studies["threads"][-1]
    if last["threads"] > 1:
        gains = (first[key] / last[key] for key in ("seconds", "product_seconds"))
        say("{} threads gain {:.2f}, in a large matrix product {:.2f}".format(last["threads"], *gains))
    if options.plot:
        viz.log_log(panels, path_of(options.plot), points=["measured"])
    return record_of(options, studies)


def measure_loading(options: Options) -> dict[str, Any]:
    """Print how long a step waits for its images, and return it as a record."""
    print_machine()
    height, width = image_size(options.size)
    say(f"a step of {1e3 * STEP:.0f} ms waits for {options.batch} JPEG files of {height}x{width}, and to augment them:")
    rows = waiting((height, width), batch=options.batch, steps=2 * options.runs)
    for row in rows:
        say(f"{row['workers']} workers {1e3 * row['seconds']:8.1f} ms")
    return record_of(options, rows)


TABLES: dict[str, Callable[[Options], dict[str, Any]]] = {
    "nets": measure_nets,
    "layers": measure_layers,
    "ladder": measure_ladder,
    "memory": measure_memory,
    "overhead": measure_overhead,
    "profile": measure_profile,
    "scaling": measure_scaling,
    "loading": measure_loading,
}
