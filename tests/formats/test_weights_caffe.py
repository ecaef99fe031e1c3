"""Caffe's files, read without Caffe: real ones, old and new ones, and hostile ones."""

import re
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from caffe_files import blob, field, layer, packed, varint
from hostile_files import mutations, survives

from minifcn.errors import FormatError, UsageError
from minifcn.formats.caffemodel import read_caffemodel
from minifcn.formats.protobuf import MAX_FIELDS
from minifcn.formats.prototxt import MAX_DEPTH, Layer, check_weights, parse, read_prototxt

W = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2) - 7.5
B = np.array([0.5, -1.0], np.float32)


def net(*, old: bool = False) -> bytes:
    layers = [layer("data", old=old), layer("conv1", blob(W, old=old), blob(B, old=old), old=old)]
    return field(1, b"tiny") + b"".join(layers) + layer("fc/2", blob(W[0, 0].astype(float), old=old), old=old)


@pytest.fixture
def model(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / "net.caffemodel"
        path.write_bytes(data)
        return path

    return write


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(FormatError) as caught:
        call()
    message = str(caught.value)
    assert message.isprintable() and len(message) < 700, repr(message)
    return message


# ----------------------------------------------------------------------------------------------------------- it reads


def test_a_new_net_is_read_as_it_was_written(model: Callable[[bytes], Path]) -> None:
    arrays = read_caffemodel(model(net()))
    assert list(arrays) == ["conv1.0", "conv1.1", "fc/2.0"]
    assert np.array_equal(arrays["conv1.0"], W) and np.array_equal(arrays["conv1.1"], B)
    assert arrays["fc/2.0"].dtype == np.float64 and np.array_equal(arrays["fc/2.0"], W[0, 0])


def test_an_old_net_is_read_with_its_four_sizes(model: Callable[[bytes], Path]) -> None:
    arrays = read_caffemodel(model(net(old=True).replace(b"tiny", b"aged")))
    assert {name: array.shape for name, array in arrays.items()} == {
        "conv1.0": (2, 3, 2, 2), "conv1.1": (1, 1, 1, 2), "fc/2.0": (1, 1, 2, 2),
    }  # fmt: skip
    assert np.array_equal(arrays["conv1.0"], W) and np.array_equal(arrays["conv1.1"].ravel(), B)


def test_fields_that_nobody_knows_are_stepped_over(model: Callable[[bytes], Path]) -> None:
    strange = (
        field(500, b"\xff" * 9)
        + field(501, 2**63)
        + varint(502 << 3 | 1)
        + b"8 bytes!"
        + varint(503 << 3 | 5)
        + b"four"
    )
    inside = field(100, field(1, b"conv1") + strange + field(7, strange + blob(B) + strange))
    assert np.array_equal(read_caffemodel(model(strange + inside + strange))["conv1.0"], B)


def test_the_arrays_are_the_file_itself(model: Callable[[bytes], Path]) -> None:
    """100 MB of weights cost no memory but the check of their values."""
    array = np.zeros(25_000_000, np.float32)
    path = model(layer("fc6", blob(array)))
    del array
    tracemalloc.start()
    try:
        loaded = read_caffemodel(path)["fc6.0"]
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert loaded.nbytes == 100_000_000 and not loaded.flags.owndata and not loaded.flags.writeable


def decoded(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The fields of a message, read by regular expression and not by ours."""
    while data:
        key = re.match(rb"[\x80-\xff]*[\x00-\x7f]", data)
        assert key
        data = data[key.end() :]
        number = sum((byte & 127) << 7 * place for place, byte in enumerate(key[0]))
        if number & 7 == 5:
            data = data[4:]
            continue
        found = re.match(rb"[\x80-\xff]*[\x00-\x7f]", data)
        assert found
        value = sum((byte & 127) << 7 * place for place, byte in enumerate(found[0]))
        data = data[found.end() :]
        if number & 7 == 2:
            yield number >> 3, data[:value]
            data = data[value:]
        else:
            yield number >> 3, value


def test_the_real_lenet_is_read_as_another_decoder_reads_it(data_root: Path) -> None:
    path = data_root / "weights" / "formats" / "lenet_iter_10000.caffemodel"
    expected = {}
    for number, one in decoded(path.read_bytes()):
        if number == 100:
            fields = list(decoded(one))  # type: ignore[arg-type]
            blobs = [dict(decoded(value)) for number, value in fields if number == 7]  # type: ignore[arg-type]
            for index, parts in enumerate(blobs):
                values = struct.unpack(f"<{len(parts[5]) // 4}f", parts[5])  # type: ignore[arg-type]
                expected[f"{dict(fields)[1].decode()}.{index}"] = values  # type: ignore[union-attr]
    arrays = read_caffemodel(path)
    assert list(arrays) == list(expected)
    assert {name: array.shape for name, array in arrays.items()} == {
        "conv1.0": (20, 1, 5, 5), "conv1.1": (20,), "conv2.0": (50, 20, 5, 5), "conv2.1": (50,),
        "ip1.0": (500, 800), "ip1.1": (500,), "ip2.0": (10, 500), "ip2.1": (10,),
    }  # fmt: skip
    assert all(array.ravel().tolist() == list(expected[name]) for name, array in arrays.items())
    lenet = [
        Layer("conv1", "Convolution", num_output=20, kernel=(5, 5)),
        Layer("pool1", "Pooling"),
        Layer("conv2", "Convolution", num_output=50, kernel=(5, 5)),
        Layer("ip1", "InnerProduct", num_output=500),
        Layer("ip2", "InnerProduct", num_output=10),
    ]
    check_weights(path, arrays, lenet, net="LeNet")


# ----------------------------------------------------------------------------------------------- row 21: hostile ones


def boundaries(data: bytes, known: dict[int, dict], start: int = 0) -> Iterator[int]:
    """Where each field begins, in the message and in those messages inside it that `known` names."""
    at = 0
    while at < len(data):
        yield start + at
        ((number, value),) = list(decoded(data[at:]))[:1] or [(0, b"")]
        key = len(varint(number << 3))
        if isinstance(value, bytes):
            head = key + len(varint(len(value)))
            if number in known:
                yield from boundaries(value, known[number], start + at + head)
            at += head + len(value)
        else:
            at += key + len(varint(value))


@pytest.mark.parametrize("old", [False, True])
def test_every_truncation_is_refused_or_leaves_whole_layers(model: Callable[[bytes], Path], old: bool) -> None:
    """Row 21. Between two layers a shorter file is a whole file of fewer layers: then the net refuses them by name."""
    data = net(old=old)
    whole = read_caffemodel(model(data))
    layers = [
        Layer("conv1", "Convolution", num_output=2, kernel=(2, 2)),
        Layer("fc/2", "InnerProduct", num_output=2, bias=False),
    ]
    check_weights(Path("x"), whole, layers, net="y")
    inner = {100: {7: {7: {}}}, 2: {6: {}}}
    starts = set(boundaries(data, inner))
    assert len(starts) > 20 and data[max(starts)] in (data[-1], 0x0A, 0x42, 0x52, 0x08, 0xD2)
    shorter = 0
    for length in range(len(data)):
        path = model(data[:length]) if length else Path(__file__).parent
        try:
            arrays = read_caffemodel(path)
        except (FormatError, UsageError) as error:
            assert str(error).isprintable()
            continue
        shorter += 1
        assert length in starts and list(arrays) == list(whole)[: len(arrays)] != list(whole)
        assert all(array.tobytes() == whole[name].tobytes() for name, array in arrays.items())
        assert "fc/2.0: found none" in refused(lambda: check_weights(path, arrays, layers, net="y"))  # noqa: B023
    assert shorter == 1


@pytest.mark.parametrize("old", [False, True])
def test_every_flipped_bit_gives_arrays_or_one_refusal(model: Callable[[bytes], Path], old: bool) -> None:
    few = np.array([[1.5, -2]], np.float32), np.array([0.5])
    data, read = layer("c1", *(blob(array, old=old) for array in few), old=old), 0
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            arrays = read_caffemodel(model(bytes(flipped)))
        except FormatError as error:
            assert str(error).isprintable()
        else:
            read += 1
            assert arrays and all(np.isfinite(array).all() for array in arrays.values())
    assert 100 < read < 8 * len(data) - 100


@pytest.mark.parametrize("old", [False, True])
def test_random_edits_give_arrays_or_one_refusal(
    model: Callable[[bytes], Path], rng: np.random.Generator, old: bool
) -> None:
    path = model(net(old=old))
    found = [survives(read_caffemodel, path, one) for one in mutations(rng, path.read_bytes(), count=1500)]
    assert 50 < len(found) - found.count(None) < 1300


CONV = field(1, b"conv1")
HOSTILE = {
    "length past the end": (field(1, b"tiny") + varint(100 << 3 | 2) + varint(2**40) + b"x", "found 1 bytes left"),
    "length past its layer": (field(100, CONV + varint(7 << 3 | 2) + varint(90) + b"x") + b"y" * 99, "found 1 bytes"),
    "length of 2^63": (varint(100 << 3 | 2) + varint(2**63), f"expected {2**63} bytes"),
    "70-bit varint": (b"\xff" * 9 + b"\x7f", "more than 64 bits"),
    "varint without an end": (b"\xff" * 40, "more than 64 bits"),
    "varint cut": (field(100, CONV + b"\xff"), "field number: found 0 bytes left"),
    "group": (b"\x0b\x0c", "field number 1 with tag 3"),
    "group inside": (field(100, CONV + varint(900 << 3 | 3) + varint(900 << 3 | 4)), "field number 900 with tag 3"),
    "tag 7": (b"\x0f", "field number 1 with tag 7"),
    "field 0": (field(0, b"x"), "field number 0"),
    "layer as a number": (field(100, 7), "layer: found a varint"),
    "name as a number": (field(100, field(1, 7)), "name: found a varint"),
    "name twice": (field(100, CONV + CONV + field(7, blob(B))), "name: found the field twice"),
    "name of other bytes": (field(100, field(1, b"\xff\xfe") + field(7, blob(B))), "expected a text in UTF-8"),
    "name with a newline": (layer("a\nb", blob(B)), "printable letters"),
    "no weights": (field(1, b"tiny") + layer("conv1"), "1 layers without any weights"),
    "a layer twice": (layer("conv1", blob(B)) * 2, "conv1.0: found the name twice"),
    "both ages": (layer("a", blob(B)) + layer("b", blob(B, old=True), old=True), "layers of both ages"),
    "of 2013": (field(2, field(1, field(1, b"conv1"))), "upgrade_net_proto_binary"),
    "shape of more": (layer("c", field(5, B.tobytes()) + field(7, field(1, packed(3)))), "8 bytes, expected 3 val"),
    "shape of fewer": (layer("c", field(5, B.tobytes()) + field(7, field(1, packed(1)))), "8 bytes, expected 1 val"),
    "old shape of more": (layer("conv1", field(1, 9) + field(5, B.tobytes())), "expected 9 x 0 x 0 x 0 values"),
    "negative sizes": (layer("conv1", field(5, B.tobytes()) + field(7, field(1, packed(-1, -2)))), "found (-1, -2)"),
    "a negative old size": (layer("conv1", field(1, -1) + field(5, B.tobytes())), "found (-1, 0, 0, 0)"),
    "10^15 values": (layer("conv1", field(5, B.tobytes()) + field(7, field(1, packed(10**15)))), f"{10**15} values"),
    "2^64 values": (layer("c", field(5, B.tobytes()) + field(7, field(1, packed(2**32, 2**32)))), "counted"),
    "33 sizes": (layer("conv1", field(5, B[:1].tobytes()) + field(7, field(1, packed(*[1] * 33)))), "at most 32 sizes"),
    "no values": (layer("conv1", field(5, b"") + field(7, field(1, packed(0)))), "found 0 bytes"),
    "no shape": (layer("conv1", field(5, B.tobytes())), "shape: found none"),
    "two shapes": (layer("conv1", blob(B) + field(1, 2)), "found (2,) and (2, 0, 0, 0)"),
    "no data": (layer("conv1", field(7, field(1, packed(2)))), "found no data"),
    "data twice": (layer("conv1", blob(B) + field(5, B.tobytes())), "data: found the field twice"),
    "data and double_data": (layer("c", blob(B) + field(8, B.tobytes())), "found data and double_data"),
    "data of 7 bytes": (layer("conv1", field(5, B.tobytes()[:7]) + field(7, field(1, packed(2)))), "found 7 bytes"),
    "data not packed": (layer("c", varint(5 << 3 | 5) + b"\0" * 4 + field(7, field(1, packed(1)))), "found 4 bytes"),
    "a text": (b'name: "LeNet"\nlayer { }', "found"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_caffemodel_is_refused(model: Callable[[bytes], Path], what: str) -> None:
    """Row 21."""
    data, says = HOSTILE[what]
    path = model(data)
    message = refused(lambda: read_caffemodel(path))
    assert str(path) in message and says in message


@pytest.mark.parametrize("numbers", [(100, 100), (100, 7), (2, 1), (2, 6), (9, 9)])
def test_a_hundred_thousand_nested_messages_are_refused(
    model: Callable[[bytes], Path], numbers: tuple[int, int]
) -> None:
    """Row 21. Without weights they are no net; beside weights they are stepped over in one step, which is as good."""
    heads, length = [], 0
    for depth in range(100_000):
        head = varint(numbers[depth < 99_999] << 3 | 2) + varint(length)
        heads.append(head)
        length += len(head)
    nested = b"".join(reversed(heads))
    tracemalloc.start()
    try:
        path = model(nested)
        refused(lambda: read_caffemodel(path))
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()
    path = model(field(9, nested) + layer("conv1", blob(B)))
    assert np.array_equal(read_caffemodel(path)["conv1.0"], B)


@pytest.mark.parametrize(
    "data", [field(100, b"") * MAX_FIELDS + b"\x08\xff", layer("c", field(7, field(1, b"\1" * MAX_FIELDS)))]
)
def test_more_fields_than_a_net_has_are_refused(model: Callable[[bytes], Path], data: bytes) -> None:
    """Bounded time and memory without a clock: what lies beyond the limit is not looked at."""
    assert f"more than {MAX_FIELDS}" in refused(lambda: read_caffemodel(model(data)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_that_are_no_numbers_are_refused_unless_asked_for(
    model: Callable[[bytes], Path], value: float, dtype: type
) -> None:
    """Row 23."""
    path = model(layer("conv1", blob(W), blob(np.array([1, value], dtype))))
    assert "conv1.1: found NaN or infinity" in refused(lambda: read_caffemodel(path))
    loaded = read_caffemodel(path, allow_nonfinite=True)["conv1.1"]
    assert np.array_equal(loaded, [1, value], equal_nan=True)


# --------------------------------------------------------------------------------------------------- the net in words

TEXT = """
name: "tiny"  # with a comment: { and " in it
input: "data"
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" include { phase: TRAIN }
  param { lr_mult: 1 } param { lr_mult: 2.5e-1, }
  convolution_param { num_output: 2 kernel_size: 2 stride: 3 pad_h: 4 pad_w: 5 group: 1;
    weight_filler: <type: 'xavier'> } }
layer { name: "relu" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "up" type: "Deconvolution" bottom: "conv1" top: "up"
  convolution_param: { num_output: 4 kernel_h: 6 kernel_w: 7 stride: [2, 1] group: 2 bias_term: false } }
layer { name: "sum" type: "Eltwise" bottom: "up" bottom: "data" top: "sum" }
"""
LAYERS = [
    Layer("conv1", "Convolution", ("data",), ("conv1",), 2, (2, 2), (3, 3), (4, 5)),
    Layer("relu", "ReLU", ("conv1",), ("conv1",)),
    Layer("up", "Deconvolution", ("conv1",), ("up",), 4, (6, 7), (2, 1), group=2, bias=False),
    Layer("sum", "Eltwise", ("up", "data"), ("sum",)),
]
OLD_TEXT = """
layers { name: "pool1" type: POOLING bottom: "a" top: "b" pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layers { bottom: "b" top: "c" name: "fc" type: INNER_PRODUCT blobs_lr: 1 inner_product_param { num_output: 9 } }
layers { name: "loss" type: SOFTMAX_LOSS } layers { name: "relu" type: RELU }"""


@pytest.fixture
def words(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def write(text: str | bytes) -> Path:
        path = tmp_path / "net.prototxt"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def test_a_net_in_words_is_read(words: Callable[[str | bytes], Path]) -> None:
    assert read_prototxt(words(TEXT)) == LAYERS
    assert read_prototxt(words(OLD_TEXT)) == [
        Layer("pool1", "Pooling", ("a",), ("b",), kernel=(3, 3), stride=(2, 2)),
        Layer("fc", "InnerProduct", ("b",), ("c",), 9),
        Layer("loss", "SoftmaxWithLoss"),
        Layer("relu", "ReLU"),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "0 bytes"),
        ('name: "x"', "layers: found none"),
        ("layer {", "the end of the file, where } was expected"),
        ("layer { name: }", "line 1: } where a value was expected"),
        ("layer { name: 'a }", 'line 1: "\'"'),
        ("layer { }\n}", "line 2: } where a name was expected"),
        ("layer < }", "} where a name"),
        ("layer 5", "5 after layer"),
        ("layer: 5", "a plain value for layer"),
        ("layer { name { } }", "a message for name"),
        ("layer { name: [1, 2", "in the middle of a field"),
        ("layer", "in the middle of a field"),
        ("layer { convolution_param { num_output: -1 } }", "num_output -1"),
        ("layer { convolution_param { num_output: 2.5 } }", "num_output 2.5"),
        ("layer { convolution_param { num_output: 99999999999 } }", "num_output 99999999999"),
        ("layer { convolution_param { num_output: " + "9" * 10**6 + " } }", "num_output inf"),
        ("layer { convolution_param { group: 0 } }", "group 0"),
        ("layer { convolution_param { stride: 0 } }", "stride 0"),
        ("layer { convolution_param { kernel_size: [1, 2, 3] } }", "kernel_size 3 times"),
        ("a {" * 10**5, f"nested more than {MAX_DEPTH} deep"),
        (b"layer { name: '\xff' }", "text: found"),
        ("x" * (2**20 + 1), "size: found 1048577 bytes"),
        ("$(rm)", "line 1: '$'"),
    ],
)
def test_hostile_words_are_refused(words: Callable[[str | bytes], Path], text: str | bytes, says: str) -> None:
    path = words(text)
    message = refused(lambda: read_prototxt(path))
    assert str(path) in message and says in message


def test_every_truncation_and_flipped_bit_of_words_gives_layers_or_one_refusal(
    words: Callable[[str | bytes], Path],
) -> None:
    data, read = b"layer { name: 'c' type: 'Pooling' pooling_param < pad: 1 stride_h: 2 > }", 0
    flips = (
        data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :] for bit in range(8 * len(data))
    )
    for changed in [*(data[:length] for length in range(len(data))), *flips]:
        try:
            layers = read_prototxt(words(changed))
        except FormatError as error:
            assert str(error).isprintable()
        else:
            read += 1
            assert layers and all(isinstance(one, Layer) for one in layers)
    assert 50 < read < 9 * len(data) - 50


def test_numbers_are_what_they_look_like() -> None:
    assert parse("a: 1 a: -2 a: 1.5 a: 2e3f a: .5 a: inf_ b: [ ] c: [1, 'x y', z]") == {
        "a": [1, -2, 1.5, 2000.0, 0.5, "inf_"], "b": [], "c": [1, "x y", "z"],
    }  # fmt: skip


UP = np.ones((2, 2, 6, 7), np.float32)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"conv1.0": None}, "conv1.0: found none, expected an array (2, 0, 2, 2)"),
        ({"conv1.1": None}, "conv1.1: found none, expected an array (2,)"),
        ({"conv1.0": W[:1]}, "conv1.0: found shape (1, 3, 2, 2), expected (2, 3, 2, 2)"),
        ({"conv1.0": W[:, :, :1]}, "conv1.0: found shape (2, 3, 1, 2)"),
        ({"conv1.0": W[None]}, ""),
        ({"conv1.0": np.stack([W, W])}, "found shape (2, 2, 3, 2, 2)"),
        ({"conv1.0": W[0, 0, 0]}, "conv1.0: found shape (2,)"),
        ({"conv1.1": B[None, None, None]}, ""),
        ({"conv1.1": W}, "conv1.1: found shape (2, 3, 2, 2), expected (2,)"),
        ({"up.0": UP.transpose(0, 1, 3, 2)}, "up.0: found shape (2, 2, 7, 6)"),
        ({"up.1": B}, "up.1: found shape (2,), expected none"),
        ({"conv1.2": B}, "conv1.2: found shape (2,), expected none"),
        ({"relu.0": B}, ""),
        ({"conv2.0": W}, "conv2.0: found shape (2, 3, 2, 2), expected none"),
    ],
)
def test_weights_of_another_net_are_refused_by_the_first_that_differs(changed: dict, says: str) -> None:
    arrays = {"conv1.0": W, "conv1.1": B, "up.0": UP} | changed
    arrays = {name: array for name, array in arrays.items() if array is not None}
    if says:
        message = refused(lambda: check_weights(Path("w.caffemodel"), arrays, LAYERS, net="net.prototxt"))
        assert says in message and "w.caffemodel" in message and "net.prototxt" in message
    else:
        check_weights(Path("w.caffemodel"), arrays, LAYERS, net="net.prototxt")
