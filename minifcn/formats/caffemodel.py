"""Read Caffe's `.caffemodel`: a message whose layers hold weights as blobs.

    NetParameter   layer = 100, or before 2015 layers = 2          the layers, in order
    layer          name = 1, blobs = 7 (before 2015: 4 and 6)      its weights, and its bias if it has one
    BlobProto      shape = 7, data = 5 (packed floats) or double_data = 8
                   before 2015 num = 1, channels = 2, height = 3, width = 4 in the place of shape
    BlobShape      dim = 1 (packed)

The numbers are those of Caffe's caffe.proto; everything else in the file is skipped. Two things matter.

*The blobs have no names*, only an order: `conv1.0` are the weights of conv1 (O, I, H, W) and `conv1.1` its bias (O,).

*An old blob always has four sizes*: a bias is (1, 1, 1, O) and a fully connected layer (1, 1, O, I). Such an array is
given as the file has it; Caffe itself takes it for any shape that differs by leading ones alone.

A message says nowhere how many fields it has. So a file that was cut between two layers is a whole file of fewer
layers: that something is missing shows when the layers are compared with a net, or with a prototxt.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.formats.limits import SHARING, Collected, bytes_of, nbytes_of, refusal
from minifcn.formats.protobuf import BYTES, VARINT, Known, Wire, signed

NET: Known = {2: ("layers", BYTES), 100: ("layer", BYTES)}
LAYER: dict[str, Known] = {
    "layer": {1: ("name", BYTES), 7: ("blobs", BYTES)},
    "layers": {4: ("name", BYTES), 6: ("blobs", BYTES), 1: ("oldest", BYTES)},
}
BLOB: Known = {
    1: ("num", VARINT), 2: ("channels", VARINT), 3: ("height", VARINT), 4: ("width", VARINT),
    5: ("data", BYTES), 7: ("shape", BYTES), 8: ("double_data", BYTES),
}  # fmt: skip
SHAPE: Known = {1: ("dim", BYTES)}
OLD_SIZES = ("num", "channels", "height", "width")
VALUES: dict[str, np.dtype] = {"data": np.dtype("<f4"), "double_data": np.dtype("<f8")}


def read_caffemodel(path: Path, *, allow_nonfinite: bool = False) -> dict[str, np.ndarray]:
    """Return `{"conv1.0": weights, "conv1.1": bias, ...}`, read-only views of what was read, in its order.

    Raises FormatError for whatever is wrong with the file, and for NaN and infinity without `allow_nonfinite`.
    """
    net = bytes_of(path)
    wire = Wire(path)
    found = Collected(path, room=SHARING * len(net), allow_nonfinite=allow_nonfinite)
    layers = list(wire.fields(net, "net", NET))
    if len({age for age, _ in layers}) > 1:
        raise refusal(path, "layers", "layers of both ages", "either `layer` or the older `layers`")
    for index, (age, message) in enumerate(layers):
        name, blobs = _layer(wire, message, f"layer number {index + 1}", LAYER[age])
        for number, blob in enumerate(blobs):
            found.add(f"{name}.{number}", _array(wire, blob, f"{name}.{number}"))
    if not found.arrays:
        raise refusal(path, "layers", f"{len(layers)} layers without any weights", "a trained net in Caffe's format")
    return found.arrays


def _layer(wire: Wire, message: memoryview, where: str, known: Known) -> tuple[str, list[memoryview]]:
    """Return the layer's name and its blobs."""
    fields = list(wire.fields(message, where, known))
    blobs = [value for field, value in fields if field == "blobs"]
    single = _single(wire.path, where, (field for field in fields if field[0] != "blobs"))
    if "oldest" in single:
        cure = "Caffe's upgrade_net_proto_binary makes one"
        raise refusal(wire.path, where, "a layer of 2013", "one of 2014 or later", then=cure)
    try:
        return str(single.get("name", b""), "utf-8"), blobs
    except UnicodeDecodeError as error:
        raise refusal(wire.path, f"{where}: name", bytes(single["name"][:40]), "a text in UTF-8") from error


def _array(wire: Wire, message: memoryview, name: str) -> np.ndarray:
    """Return one blob, as a view of the file."""
    blob = _single(wire.path, name, wire.fields(message, name, BLOB))
    shape = _shape(wire, blob, name)
    kinds = [kind for kind in VALUES if kind in blob]
    if len(kinds) != 1:
        raise refusal(wire.path, name, " and ".join(kinds) or "no data", "either data or double_data")
    data, dtype = blob[kinds[0]], VALUES[kinds[0]]
    if len(data) != nbytes_of(wire.path, name, shape, dtype) or not len(data):
        needed = f"{' x '.join(map(str, shape))} values of {dtype.itemsize} bytes, at least one"
        raise refusal(wire.path, f"{name}: {kinds[0]}", f"{len(data)} bytes", needed)
    return np.frombuffer(data, dtype).reshape(shape)


def _shape(wire: Wire, blob: dict[str, Any], name: str) -> tuple[int, ...]:
    """Return the sizes that the blob claims to have: new, or old with every missing one 0, as in Caffe."""
    new, old = None, None
    if "shape" in blob:
        where = f"{name}: shape"
        dims = _single(wire.path, where, wire.fields(blob["shape"], where, SHAPE)).get("dim", b"")
        new = tuple(wire.varints(memoryview(dims), where))
    if any(size in blob for size in OLD_SIZES):
        old = tuple(signed(blob.get(size, 0)) for size in OLD_SIZES)
    shapes = [shape for shape in (new, old) if shape is not None]
    if len(shapes) != 1:
        raise refusal(wire.path, f"{name}: shape", " and ".join(map(str, shapes)) or "none", "one shape")
    return shapes[0]


def _single(path: Path, where: str, fields: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return the fields by name, each of which must stand once: of two, parsers take different ones."""
    found: dict[str, Any] = {}
    for name, value in fields:
        if name in found:
            raise refusal(path, f"{where}: {name}", "the field twice", "it once")
        found[name] = value
    return found
