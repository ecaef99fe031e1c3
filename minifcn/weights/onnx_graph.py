"""Convert a net to an ONNX graph that accepts images of every size.

An exporter that traces one run writes down the sizes it saw. This one reads the modules, and where a size matters (the
crops of the ladder) it writes the question, `Shape`, instead of the answer. So the height and the width of the input
are free, and the offsets in the graph are the ones that `Grid` computed.

A map may be smaller than the window of a pool: the window is then clipped, by Caffe's rule, and ONNX Runtime would
fail. Where that can happen the graph first pads the map. So an FCN takes images from one pixel on; the metadata states
the smallest side, `smallest`, for what cannot. A classifier whose last layers take one size declares that size.
"""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from minifcn import nn
from minifcn.backend import to_host
from minifcn.errors import GeometryError, UsageError
from minifcn.geometry import out_size
from minifcn.models.classifier import Classifier, GlobalAverage
from minifcn.models.context import GlobalContext
from minifcn.models.fcn import FCN, Words, follow
from minifcn.models.resnet import FCN_ResNet
from minifcn.models.trunk import Parallel, Residual, Trunk
from minifcn.nn import Module, bilinear
from minifcn.tensor import Parameter

OPSET, IR = 17, 8  # of 2022: what is older than this year's tools reads them, too
IMAGE = "image"


class Writer:
    """The nodes and the constants of a graph, as they are added. A value is known by its name."""

    def __init__(self, onnx: Any, net: Module) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self.names = {id(parameter): name for name, parameter in net.named_parameters()}
        self.sides = {IMAGE: smallest(net)}  # of each value that a module gave: its side for the smallest image

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return the name of its only output."""
        output = f"{op}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def constant(self, array: np.ndarray, name: str = "") -> str:
        """Add an array to the graph and return its name."""
        name = name or f"constant_{len(self.constants)}"
        self.constants[name] = np.ascontiguousarray(array)
        return name

    def parameter(self, parameter: Parameter) -> str:
        """Add a parameter to the graph and return its own name."""
        return self.constant(to_host(parameter.data), self.names[id(parameter)])

    def crop(self, x: str, like: str, at: int) -> str:
        """Write `ops.crop`: the cells of `x` from `at` on, as many as `like` has, whatever that will be."""
        begin = self.constant(np.array([at, at], np.int64))
        end = self.node("Add", self.node("Shape", like, start=2, end=4), begin)
        return self.node("Slice", x, begin, end, self.constant(np.array([2, 3], np.int64)))

    def at_least(self, x: str, side: int) -> str:
        """Write `x` with -inf below and to the right of it, if it is smaller than `side`: a maximum does not see it."""
        size = self.node("Shape", x, start=2, end=4)
        missing = self.node("Sub", self.constant(np.array([side, side], np.int64)), size)
        after = self.node("Max", missing, self.constant(np.array([0, 0], np.int64)))
        pads = self.node("Concat", self.constant(np.zeros(6, np.int64)), after, axis=0)
        return self.node("Pad", x, pads, self.constant(np.array(-np.inf, np.float32)))


def smallest(net: Module) -> int:
    """Return the smallest side of an image on which every window of a net fits."""
    layers = net.trunk.layers() if isinstance(net, FCN) else net.layers()
    for side in range(1, 1 << 12):
        with contextlib.suppress(GeometryError):
            out_size(layers, side)
            return side
    raise UsageError(f"export: found no image on which the windows of this {type(net).__name__} fit")


def one_size(net: Module) -> int:
    """Return the side of the images that a net takes where it takes one size and no other; 0 for all others."""
    if not isinstance(net, Classifier) or any(isinstance(module, GlobalAverage) for module in net.modules()):
        return 0
    return net.trunk.size


def write(writer: Writer, module: Module, x: str) -> str:
    """Add the nodes of `module` after `x`, and return the output's name. `UsageError` for an unknown module."""
    for kind in type(module).__mro__:
        if kind in FORMS:
            y = FORMS[kind](writer, module, x)
            writer.sides[y] = out_size(module.layers(), writer.sides[x]) if x in writer.sides else 1
            return y
    raise UsageError(f"export: {type(module).__name__} cannot be written as ONNX; export to .safetensors instead")


def sliding(module: Any) -> dict[str, Any]:
    """Return the window of a layer, as ONNX says it: the same along both axes, and on all four sides."""
    layer = module.layer
    window = {"kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2, "pads": [layer.padding] * 4}
    return window | {"dilations": [layer.dilation] * 2}


def convolution(writer: Writer, module: Any, x: str) -> str:
    """Write a convolution, transposed or not, and its ReLU if it has one."""
    op = "ConvTranspose" if module.layer.transpose else "Conv"
    inputs = [writer.parameter(p) for p in (module.w, module.b) if p is not None]
    more = {"output_padding": [module.layer.output_padding] * 2} if module.layer.output_padding else {}
    y = writer.node(op, x, *inputs, group=module.groups, **sliding(module), **more)
    return writer.node("Relu", y) if getattr(module, "relu", False) else y


def pool(writer: Writer, module: Any, x: str) -> str:
    """Write an average pool or a max pool; one with ceil mode gets its map padded where it could be too small."""
    if isinstance(module, nn.AvgPool2d):
        if module.layer.padding or module.layer.dilation > 1 or module.layer.stride > 1:
            raise UsageError("export: an average pool with a border, dilation or stride cannot be written as ONNX")
        return writer.node("AveragePool", x, kernel_shape=[module.layer.kernel] * 2)
    layer = module.layer
    if layer.ceil and writer.sides[x] + 2 * layer.padding <= layer.extent - layer.stride:
        x = writer.at_least(x, layer.extent - 2 * layer.padding)
    return writer.node("MaxPool", x, ceil_mode=int(layer.ceil), **sliding(module))


def upsample(writer: Writer, module: Any, x: str) -> str:
    """Write bilinear interpolation as a transposed convolution; a fixed one gets its kernel here, for each channel."""
    groups = module.groups
    if module.w is None:
        w = writer.constant(np.repeat(bilinear(module.layer.kernel)[None, None], groups, axis=0))
    else:
        w = writer.parameter(module.w)
    return writer.node("ConvTranspose", x, w, group=groups, **sliding(module))


def linear(writer: Writer, module: Any, x: str) -> str:
    """Write a fully connected layer, and its ReLU if it has one."""
    y = writer.node("Gemm", writer.node("Flatten", x), writer.parameter(module.w), writer.parameter(module.b), transB=1)
    return writer.node("Relu", y) if module.relu else y


def normalization(writer: Writer, module: Any, x: str) -> str:
    """Write a local response normalisation."""
    options = dict(module.options)
    return writer.node("LRN", x, bias=options.pop("k"), **options)


def normalized(writer: Writer, module: Any, x: str) -> str:
    """Write a batch normalisation."""
    inputs = [writer.parameter(p) for p in (module.w, module.b, module.mean, module.var)]
    return writer.node("BatchNormalization", x, *inputs, epsilon=module.eps)


def padded(writer: Writer, module: Any, x: str) -> str:
    """Write a border of zeros."""
    widths = [0, 0, module.begin, module.begin, 0, 0, module.end, module.end]
    return writer.node("Pad", x, writer.constant(np.array(widths, np.int64)))


def relu6(writer: Writer, module: Any, x: str) -> str:
    """Write min(max(x, 0), 6)."""
    return writer.node("Clip", x, *(writer.constant(np.array(bound, np.float32)) for bound in (0, 6)))


def context(writer: Writer, module: Any, x: str) -> str:
    """Write ParseNet's global context: the maps and their mean over the whole image, each as vectors of length 1."""

    def unit(x: str) -> str:
        channels = writer.constant(np.array([1], np.int64))
        squares = writer.node("ReduceSum", writer.node("Mul", x, x), channels, keepdims=1)
        least = writer.constant(np.array(1e-10, np.float32))  # as in `ops.l2_normalize`
        return writer.node("Div", x, writer.node("Sqrt", writer.node("Add", squares, least)))

    mean = unit(writer.node("ReduceMean", x, axes=[2, 3], keepdims=1))
    both = writer.node("Concat", unit(x), writer.node("Expand", mean, writer.node("Shape", x)), axis=1)
    return writer.node("Mul", both, writer.parameter(module.scale))


def sequential(writer: Writer, module: Any, x: str) -> str:
    """Write modules one after another."""
    for child in module.sequence().values():
        x = write(writer, child, x)
    return x


def parallel(writer: Writer, module: Any, x: str) -> str:
    """Write branches side by side, concatenated."""
    return writer.node("Concat", *(write(writer, branch, x) for branch in module.branches().values()), axis=1)


def stages(writer: Writer, trunk: Trunk, x: str) -> dict[str, str]:
    """Return all outputs of a trunk, by name."""
    outputs = {}
    for name, stage in trunk.stages.items():
        outputs[name] = x = write(writer, getattr(trunk, stage), x)
    return outputs


def resized(writer: Writer, net: Any, x: str) -> str:
    """Write the scores of the first head, resampled to the size of the image as `ops.bilinear_resize` does."""
    y = write(writer, net.classifier, list(stages(writer, net.trunk, x).values())[-1])
    sizes = writer.node("Concat", writer.node("Shape", y, end=2), writer.node("Shape", x, start=2), axis=0)
    return writer.node("Resize", y, "", "", sizes, mode="linear", coordinate_transformation_mode="half_pixel")


def climb(writer: Writer, net: FCN, features: Mapping[str, str], head: str) -> str:
    """Write the steps of one head; return the name of its scores."""
    words: Words = {
        "layer": lambda name, x: write(writer, getattr(net, name), x),
        "scale": lambda factor, x: writer.node("Mul", x, writer.constant(np.array(factor, np.float32))),
        "crop": lambda at, x, like: writer.crop(x, like, at),
        "fuse": lambda fusion, score, skip: FUSIONS[fusion](writer, score, skip),
    }
    return follow(net.steps(head), {**features, "image": IMAGE}, words)


FUSIONS: dict[str, Callable[[Writer, str, str], str]] = {
    "sum": lambda writer, score, skip: writer.node("Add", score, skip),
    "max": lambda writer, score, skip: writer.node("Max", score, skip),
    "concat": lambda writer, score, skip: writer.node("Concat", score, skip, axis=1),
}


FORMS: dict[type, Callable[[Writer, Any, str], str]] = {
    nn.Conv2d: convolution,
    nn.ConvTranspose2d: convolution,
    nn.MaxPool2d: pool,
    nn.Upsample: upsample,
    nn.Linear: linear,
    nn.LocalResponseNorm: normalization,
    nn.Dropout: lambda writer, module, x: x,  # nothing is dropped when nothing is learned
    GlobalAverage: lambda writer, module, x: writer.node("ReduceMean", x, axes=[2, 3], keepdims=0),
    nn.BatchNorm2d: normalized,
    nn.ZeroPad2d: padded,
    nn.ReLU6: relu6,
    nn.ReLU: lambda writer, module, x: writer.node("Relu", x),
    Residual: lambda writer, module, x: writer.node(
        "Add", write(writer, module.shortcut, x) if module.shortcut else x, sequential(writer, module, x)
    ),
    GlobalContext: context,
    nn.Sequential: sequential,
    Parallel: parallel,
    FCN_ResNet: resized,
    Classifier: lambda writer, net, x: write(writer, net.top, list(stages(writer, net.trunk, x).values())[-1]),
}


def onnx_model(net: FCN | FCN_ResNet | Classifier, *, classes: Sequence[str], metadata: Mapping[str, Any]) -> Any:
    """Return the net as an `onnx.ModelProto`: "image" (N, channels, H, W) float32 to "scores", not yet probabilities.

    The scores of an FCN are (N, classes, H, W), one output "scores_NAME" for each of several heads; those of a
    classifier (N, classes). `metadata` is recorded in the model, as JSON. Raises `UsageError` without the package onnx,
    and for a module that cannot be written.
    """
    onnx = import_onnx()
    writer = Writer(onnx, net)
    if isinstance(net, FCN):
        features = stages(writer, net.trunk, IMAGE)
        results = {f"scores{head}": climb(writer, net, features, head) for head in net.heads}
    else:
        results = {"scores": write(writer, net, IMAGE)}
    for name, value in results.items():
        writer.nodes.append(onnx.helper.make_node("Identity", [value], [name], name=name))
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    first = next(net.parameters())
    one = one_size(net)
    takes = helper.make_tensor_value_info(IMAGE, number, ["N", first.shape[1], *([one, one] if one else ["H", "W"])])
    maps: list[Any] = [] if isinstance(net, Classifier) else ["H", "W"]
    gives = [helper.make_tensor_value_info(name, number, ["N", f"{name}_classes", *maps]) for name in results]
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in writer.constants.items()]
    graph = helper.make_graph(writer.nodes, type(net).__name__, [takes], gives, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    model.producer_name = "minifcn"
    notes = {**metadata, "classes": list(classes), "smallest": one or writer.sides[IMAGE]}
    helper.set_model_props(model, {name: json.dumps(value) for name, value in notes.items()})
    onnx.checker.check_model(model, full_check=True)
    return model


def import_onnx() -> Any:
    """Return the package onnx, or a sentence about how to get it."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise UsageError("export: the package onnx is not installed; pip install 'minifcn[interop]'") from error
    return onnx
