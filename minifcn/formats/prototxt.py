"""Read Caffe's `.prototxt` and compare it with a caffemodel's weights.

    layer {
      name: "conv1"  type: "Convolution"  bottom: "data"  top: "conv1"
      convolution_param { num_output: 64  kernel_size: 3  pad: 1 }
    }

This is the text format of Protocol Buffers: `name: value` and `name { ... }`, again and again, in any order. A message
is read as `{name: [value, ...]}`, for any name may stand there several times. Nothing is computed, nothing is included.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.formats.limits import bytes_of, refusal

MAX_BYTES = 2**20  # ResNet-152 has 60 kB
MAX_DEPTH = 32

Message = dict[str, list[Any]]
Token = tuple[str, int]  # with the line it is on

# A word is a text, a name or number, or one of the marks. Whatever else stands there is caught by the last letter.
TOKEN = re.compile(r"""\s+|\#[^\n]*|("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|[\w.+-]+|[{}<>\[\]:;,])|(.)""")
NAME = re.compile(r"[A-Za-z_]\w*")
ENDS = {"{": "}", "<": ">"}

# Before 2015 the type was one of an enumeration. Most become today's names by rule: INNER_PRODUCT, InnerProduct.
OLD_TYPES = {
    "BNLL": "BNLL", "LRN": "LRN", "MVN": "MVN", "RELU": "ReLU", "TANH": "TanH", "ABSVAL": "AbsVal", "ARGMAX": "ArgMax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss", "IM2COL": "Im2col", "HDF5_DATA": "HDF5Data", "HDF5_OUTPUT": "HDF5Output",
}  # fmt: skip


# The layers whose weights are known, and which of their axes counts the channels (or values) that come in:
# (O, I / group, H, W), its transpose (I, O / group, H, W), and (O, I).
INPUT_AXIS = {"Convolution": -3, "Deconvolution": -4, "InnerProduct": -1}


@dataclass(frozen=True)
class Layer:
    """One layer, with Caffe's defaults. kernel, stride, pad: (height, width); a kernel of (0, 0) is no kernel."""

    name: str
    type: str
    bottom: tuple[str, ...] = ()
    top: tuple[str, ...] = ()
    num_output: int = 0
    kernel: tuple[int, int] = (0, 0)
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    group: int = 1
    bias: bool = True


def read_prototxt(path: Path) -> list[Layer]:
    """Return the layers of a net in the order of the file, of all phases. Raises FormatError for any fault."""
    data = bytes_of(path)
    if len(data) > MAX_BYTES:
        raise refusal(path, "size", f"{len(data)} bytes", f"at most {MAX_BYTES} for a net in words")
    try:
        net = parse(str(data, "utf-8"))
        layers = [_layer(one) for one in [*_messages(net, "layer"), *_messages(net, "layers")]]
    except ValueError as error:  # UnicodeDecodeError is one
        raise refusal(path, "text", error, "a net in Protocol Buffers' text format") from error
    if not layers:
        raise refusal(path, "layers", "none", "a net in Protocol Buffers' text format")
    return layers


def check_weights(path: Path, arrays: Mapping[str, np.ndarray], layers: list[Layer], *, net: Path | str) -> None:
    """Check that `arrays`, as `read_caffemodel` returns them, are weights of the net with these `layers`.

    path, net: the two files, for messages. Every layer with weights has to have them, with its number of outputs, its
    kernel and its bias, and none may be left over. How many channels come in, only the arrays know. The leading ones of
    old blobs do not count. FormatError names the first array that differs.
    """
    then = f"find the weights of {net}, or the net of these"
    expected = {name: shape for layer in layers for name, shape in _expected(layer, arrays)}
    for name, shape in expected.items():
        if name not in arrays:
            raise refusal(path, name, "none", f"an array {shape}", then=then)
        found = arrays[name].shape
        if found[-len(shape) :] != shape or any(size != 1 for size in found[: -len(shape)]):
            raise refusal(path, name, f"shape {found}", shape, then=then)
    kinds = {layer.name: layer.type for layer in layers}
    for name in arrays:
        # A layer of another kind (a Scale, a PReLU) may have what it likes, but a layer has to be there.
        if name not in expected and kinds.get(name.rpartition(".")[0], "Convolution") in INPUT_AXIS:
            raise refusal(path, name, f"shape {arrays[name].shape}", "none of that name", then=then)


def _expected(layer: Layer, arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the names and shapes of the arrays that the layer has to have; nothing of a kind that is not known."""
    if layer.type not in INPUT_AXIS:
        return
    weights, axis = arrays.get(f"{layer.name}.0", np.zeros(0)), INPUT_AXIS[layer.type]
    inputs = weights.shape[axis] if -axis <= weights.ndim else 0
    shape: tuple[int, ...] = (layer.num_output, inputs)
    if layer.type == "Convolution":
        shape = (*shape, *layer.kernel)
    elif layer.type == "Deconvolution":
        shape = (inputs, layer.num_output // layer.group, *layer.kernel)
    yield f"{layer.name}.0", shape
    if layer.bias:
        yield f"{layer.name}.1", (layer.num_output,)


# ----------------------------------------------------------------------------------------------------- the text format


def parse(text: str) -> Message:
    """Return a message as `{name: [value, ...]}`: texts, numbers and messages. ValueError says what is wrong."""
    try:
        return _message(_tokens(text), "", 0)
    except StopIteration:
        raise ValueError("the end of the file in the middle of a field") from None


def _tokens(text: str) -> Iterator[Token]:
    """Yield the tokens, each with its line; space and comments are passed over."""
    line = 1
    for match in TOKEN.finditer(text):
        if match[2] is not None:
            raise ValueError(f"line {line}: {match[2]!r}, which is no part of the format")
        if match[1] is not None:
            yield match[1], line
        line += match[0].count("\n")


def _message(tokens: Iterator[Token], end: str, depth: int) -> Message:
    """Return the fields up to the mark `end`, or to the end of the file."""
    message: Message = {}
    for name, line in tokens:
        if name == end:
            return message
        if name in (";", ",") and message:
            continue
        if not NAME.fullmatch(name):
            raise ValueError(f"line {line}: {name} where a name was expected")
        word, line = next(tokens)
        colon = word == ":"
        if colon:
            word, line = next(tokens)
        if word in ENDS:
            if depth >= MAX_DEPTH - 1:
                raise ValueError(f"line {line}: messages nested more than {MAX_DEPTH} deep")
            message.setdefault(name, []).append(_message(tokens, ENDS[word], depth + 1))
        elif colon:
            message.setdefault(name, []).extend(_values(word, tokens, line))
        else:
            raise ValueError(f"line {line}: {word} after {name}, where a colon or a brace was expected")
    if end:
        raise ValueError(f"the end of the file, where {end} was expected")
    return message


def _values(word: str, tokens: Iterator[Token], line: int) -> list[Any]:
    """Return one value, or a list of them in brackets."""
    if word != "[":
        return [_value(word, line)]
    values: list[Any] = []
    word, line = next(tokens)
    while word != "]":
        values.append(_value(word, line))
        word, line = next(tokens)
        if word == ",":
            word, line = next(tokens)
    return values


def _value(word: str, line: int) -> str | int | float:
    """Return a text (in quotes, or the name of an enumeration), or a number."""
    if word[0] in "\"'":
        return word[1:-1]
    if NAME.fullmatch(word):
        return word
    if re.fullmatch(r"-?\d{1,18}", word):
        return int(word)
    if re.fullmatch(r"-?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?f?", word):
        return float(word.removesuffix("f"))
    raise ValueError(f"line {line}: {word} where a value was expected")


# ---------------------------------------------------------------------------------------------- from messages to layers


def _layer(message: Message) -> Layer:
    name = str(_last(message, "name", ""))
    kinds = ("convolution_param", "inner_product_param", "pooling_param")
    options = next((one for kind in kinds for one in _messages(message, kind)), {})
    return Layer(
        name=name,
        type=_modern(str(_last(message, "type", ""))),
        bottom=tuple(map(str, message.get("bottom", ()))),
        top=tuple(map(str, message.get("top", ()))),
        num_output=_integer(name, options, "num_output", 0),
        kernel=_pair(name, options, "kernel_size", least=0),
        stride=_pair(name, options, "stride", least=1),
        pad=_pair(name, options, "pad", least=0),
        dilation=_pair(name, options, "dilation", least=1),
        group=_integer(name, options, "group", 1, least=1),
        bias=_last(options, "bias_term", "true") in ("true", "True", "t", 1),
    )


def _modern(kind: str) -> str:
    if not kind.isupper():
        return kind
    return OLD_TYPES.get(kind) or "".join(word.capitalize() for word in kind.split("_"))


def _messages(message: Message, name: str) -> list[Message]:
    found = message.get(name, [])
    if not all(isinstance(one, dict) for one in found):
        raise ValueError(f"a plain value for {name}, which is a message")
    return found


def _last(message: Message, name: str, default: Any) -> Any:
    """Return the value of a field that means one: of several, the last one counts."""
    value = (message.get(name) or [default])[-1]
    if isinstance(value, dict):
        raise ValueError(f"a message for {name}, which is a plain value")
    return value


def _integer(layer: str, options: Message, name: str, default: int, *, least: int = 0) -> int:
    value = _last(options, name, default)
    if type(value) is not int or not least <= value < 2**31:
        raise ValueError(f"layer {layer}: {name} {value}")
    return value


def _pair(layer: str, options: Message, name: str, *, least: int) -> tuple[int, int]:
    """Return (height, width): `kernel_size: 3`, or the same twice, or `kernel_h: 3 kernel_w: 5`.

    Where nothing is said, both are the least.
    """
    values, side = options.get(name) or [least], name.removesuffix("_size")
    if len(values) > 2:
        raise ValueError(f"layer {layer}: {name} {len(values)} times; a picture has two sides")
    height, width = (_integer(layer, {name: [value]}, name, least, least=least) for value in (values[0], values[-1]))
    return (
        _integer(layer, options, f"{side}_h", height, least=least),
        _integer(layer, options, f"{side}_w", width, least=least),
    )
