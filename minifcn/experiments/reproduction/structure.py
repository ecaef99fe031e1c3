"""The nets in numbers: table 1, map sizes, crop offsets and the border they need."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from minifcn.experiments.reproduction.row import Row, listed, row
from minifcn.geometry import Grid, Layer, out_size
from minifcn.introspect.describe import describe
from minifcn.introspect.design import MOST, misfits
from minifcn.models.classifier import classifier
from minifcn.models.fcn import FCN, fcn
from minifcn.models.googlenet import GoogLeNet
from minifcn.models.ladder import Ladder, safe_padding
from minifcn.models.vgg import VGG
from minifcn.models.zoo import NETS
from minifcn.tensor import Node, Tensor

# The net, its convolutional layers, parameters in millions and stride; the receptive fields are below
TABLE_1 = {
    "FCN-AlexNet": ("voc-fcn-alexnet", 8, 57, 32),
    "FCN-VGG16": ("voc-fcn32s", 16, 134, 32),
    "FCN-GoogLeNet": ("fcn-googlenet", 22, 6, 32),
}
SKIPS = {32: (), 16: ("pool4",), 8: ("pool4", "pool3"), 4: ("pool4", "pool3", "pool2")}
CROPS = {32: "19", 16: "5, 27", 8: "5, 9, 31"}
AMONG = f"of the sides 1 to {MOST}"


def rows() -> Iterator[Row]:
    """Yield all of it."""
    for part in (table_1, released, border, cost):
        yield from part()


def table_1() -> Iterator[Row]:
    """Yield what the table says but for times and results, and the strides of figure 3."""
    for name, (net, layers, parameters, stride) in TABLE_1.items():
        yield row("table 1", f"{name}: convolutional layers", str(layers), partial(depth_of, net))
        yield row("table 1", f"{name}: parameters", f"{parameters}M", partial(parameters_of, net))
        yield row("table 1", f"{name}: largest stride", str(stride), partial(stride_of, net))
    for name, field in (("FCN-AlexNet", 355), ("FCN-VGG16", 404)):
        yield row("table 1", f"{name}: receptive field", str(field), partial(field_of, TABLE_1[name][0]))
    yield row("table 1", "GoogLeNet: receptive field, with its last average pool", "907", field_of_googlenet)
    yield row("section 4.2", "FCN-16s and 8s: strides of the fused scores", "16, 8", fused_strides)


def released() -> Iterator[Row]:
    """Yield what stands as a number in the prototxts, where we have a rule."""
    where = "released nets"
    for data in ("voc", "siftflow", "pascalcontext"):
        for stride, crops in CROPS.items():
            net = f"{data}-fcn{stride}s"
            yield row(where, f"{net}: crop offsets", crops, partial(crops_of, net))
    yield row(where, "voc-fcn8s-atonce: crop offsets", CROPS[8], partial(crops_of, "voc-fcn8s-atonce"))
    yield row(where, "nyud-fcn32s-color-hha: crop offsets of both", "19 and 19", late_crops)
    yield row(where, "voc-fcn-alexnet: crop offset", "18", partial(crops_of, "voc-fcn-alexnet"))
    yield row(where, "voc-fcn-alexnet: kernel of the upsampling", "63", partial(kernels_of, "voc-fcn-alexnet"))
    claim = "the same with a kernel of 64: crop offset"
    yield row(where, claim, "", even_kernel, expected="refused: 37/2 is not whole")
    for stride, kernels in ((32, "64"), (16, "4, 32"), (8, "4, 4, 16")):
        net = f"voc-fcn{stride}s"
        yield row(where, f"{net}: kernels of the upsampling", kernels, partial(kernels_of, net))
    for stride, size in ((32, 544), (16, 560), (8, 568)):
        shown = str(size) if stride == 8 else ""  # 568 was reported by a user of the released net
        claim = f"voc-fcn{stride}s: side of the scores of 500 pixels, before the last crop"
        yield row(where, claim, shown, partial(size_on_top, stride), expected="" if shown else str(size))
    yield row("section 4.2", "FCN-4s, which was not built: crop offsets", "", crops_of_4s, expected="5, 9, 17, 33")
    fields = "6, 16, 44, 100, 212"
    yield row("section 4.1", "VGG-16: receptive fields of pool1 to pool5", "", pool_fields, expected=fields)


def border() -> Iterator[Row]:
    """Yield whether a padding of 100 is needed."""
    where = "released nets"
    for stride in CROPS:
        claim = f"padding 100 lets every image through FCN-{stride}s"
        yield row(where, claim, "", partial(fitting, stride), expected=f"{MOST} {AMONG}")
    for stride in CROPS:
        claim, note = f"the least padding that does so (FCN-{stride}s)", "100 is enough, and three more than needed"
        yield row(where, claim, "", partial(safe_padding, vgg_paths, SKIPS[stride]), expected="97", note=note)
    yield row(where, "with 96, FCN-32s refuses the sides", "", refused_by_96, expected="1, 2", note="fc6 does not fit")
    claim = "with pools that round down, FCN-32s refuses in spite of its 100"
    yield row(where, claim, "", refused_by_floor, expected=f"397 {AMONG}")
    yield row(where, "the skips' offsets for paddings 81 to 105", "", skip_offsets, expected="5, 9")
    yield row(where, "the last offsets of 32s, 16s, 8s, 4s for a padding p", "", last_offsets, expected=LAST)


LAST = "p - 81, p - 73, p - 69, p - 67"


def cost() -> Iterator[Row]:
    """Yield what the border of 100 pixels costs."""
    for size, giga in ((500, 181), (64, 22)):
        claim = f"multiply-adds of the VGG-16 trunk, border included, on {size}x{size}"
        yield row("released nets", claim, "", partial(multiply_adds, size), expected=f"{giga} G")


# ---- how each is found --------------------------------------------------------------------------------------------


def thin(name: str) -> Any:
    """Return a net with a single channel where its own has 64: the same geometry, in a moment."""
    return NETS[name](width=1)


def depth_of(name: str) -> int:
    """Return the most convolutions on any path through the graph of a net's scores, found in the graph itself."""

    @functools.cache
    def depth(node: Node) -> int:
        return (node.op == "conv2d") + max((depth(parent) for parent, *_ in node.edges or ()), default=0)

    y: Tensor = thin(name).eval()(np.zeros((1, 3, 9, 9), np.float32))
    return depth(y.node) if y.node else 0


def parameters_of(name: str) -> tuple[str, str]:
    """Return the parameters at the net's own width: zeros that are never read take no memory."""
    count = sum(p.size for _, p in NETS[name](init="zero").named_parameters())
    return f"{count / 1e6:.0f}M", f"{count:,}"


def stride_of(name: str) -> Fraction:
    """Return the stride of the trunk."""
    return Grid.of(thin(name).trunk.layers()).stride


def field_of(name: str) -> Fraction:
    """Return the receptive field of the trunk."""
    return Grid.of(thin(name).trunk.layers()).field


def field_of_googlenet() -> Fraction:
    """Return the receptive field of GoogLeNet with its last average pool."""
    net = classifier(GoogLeNet, width=1, classes=2)
    windows = [layer for layer in net.layers() if layer.kernel < net.trunk.size]  # not the last layer, a matrix
    return Grid.of(windows).field


def fused_strides() -> str:
    """Return the strides of the fused scores."""
    return listed(rung.stride for rung in thin("voc-fcn8s").ladder.rungs if rung.skip)


def crops_of(name: str) -> str:
    """Return the crop offsets of a net, by name."""
    return offsets(thin(name))


def offsets(net: FCN) -> str:
    """Return the crop offsets of a net."""
    return listed(rung.at for rung in net.ladder.rungs)


def late_crops() -> str:
    """Return the crop offsets of both nets of late fusion."""
    net = thin("nyud-fcn32s-color-hha")
    return listed(map(offsets, (net.color, net.hha)), " and ")


def kernels_of(name: str) -> str:
    """Return the kernels of the upsamplings."""
    return listed(rung.layer.kernel for rung in thin(name).ladder.rungs)


def even_kernel() -> str:
    """Return the crop with a kernel of 64 for 63 after AlexNet, whose cells lie on pixels and not between them."""
    net = thin("voc-fcn-alexnet")
    (rung,) = net.ladder.rungs
    grid = Grid.of(net.trunk.layers()).through(replace(rung.layer, kernel=rung.layer.kernel + 1))
    offset = -grid.start / grid.stride
    return str(offset) if offset.denominator == 1 else f"refused: {offset} is not whole"


def vgg_paths(padding: int | str) -> Mapping[str, Sequence[Layer]]:
    """Return the paths of VGG-16's trunk at a padding."""
    return VGG(width=1, padding=padding, init="zero", rng=np.random.default_rng(0)).paths()


def size_on_top(stride: int) -> int:
    """Return the score of 500 pixels after each upsampling; a skip is cut to it, so it only grows."""
    net = thin(f"voc-fcn{stride}s")
    size = out_size(net.trunk.layers(), 500)
    for rung in net.ladder.rungs:
        size = rung.layer.out_size(size)
    return size


def crops_of_4s() -> str:
    """Return the crop offsets of an FCN-4s."""
    return offsets(fcn(VGG, 4, width=1, classes=2, padding=100))


def pool_fields() -> str:
    """Return the receptive fields of the five pools of VGG-16."""
    return listed(Grid.of(path).field for name, path in vgg_paths(100).items() if name.startswith("pool"))


def fitting(stride: int) -> str:
    """Return how many sides come out whole at padding 100."""
    return f"{MOST - len(misfits(Ladder(vgg_paths(100), SKIPS[stride])))} {AMONG}"


def refused_by_96() -> str:
    """Return the sides that do not come out whole at padding 96."""
    return listed(misfits(Ladder(vgg_paths(96), ())))


def refused_by_floor() -> tuple[str, str]:
    """Return how many sides pools that round down refuse at padding 100."""
    floored = {name: [replace(layer, ceil=False) for layer in path] for name, path in vgg_paths(100).items()}
    refused = misfits(Ladder(floored, ()))
    known = listed((side for side in (375, 500) if side in refused), " and ")
    return f"{len(refused)} {AMONG}", f"{known} among them"


def skip_offsets() -> str:
    """Return the offsets of the skips, the same at many paddings."""
    found = set()
    for padding in range(81, 106):
        found.add(listed(rung.at for rung in Ladder(vgg_paths(padding), SKIPS[8]).rungs[:-1]))
    return " or ".join(sorted(found))


def last_offsets() -> str:
    """Return the constants, from two paddings each."""
    rules = []
    for skips in SKIPS.values():
        missing = {padding - Ladder(vgg_paths(padding), skips).rungs[-1].at for padding in (81, 100)}
        rules.append(f"p - {' or '.join(map(str, sorted(missing)))}")
    return ", ".join(rules)


def multiply_adds(size: int) -> str:
    """Return the multiply-adds of the trunk of FCN-32s, in billions."""
    net = NETS["voc-fcn32s"](init="zero")
    cost = sum(line.multiply_adds for line in describe(net, size).rows if line.name.startswith("trunk."))
    return f"{cost / 1e9:.0f} G"
