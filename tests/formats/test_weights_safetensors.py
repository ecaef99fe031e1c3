"""`.safetensors` read and written by our own code: what the library wrote, real files, and hostile ones."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_files import mutations, survives

from minifcn.errors import FormatError
from minifcn.formats.checkpoint import save_checkpoint
from minifcn.formats.safetensors import DTYPES, MAX_HEADER, packed, read_safetensors

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
TWO = np.array([1.5, -2.0], np.float32)


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file of this header (an object, a text or bytes), these arrays, and the right length or another."""

    def write(header: Any, body: bytes = b"", *, length: int | None = None) -> Path:
        text = json.dumps(header) if not isinstance(header, str | bytes) else header
        data = text.encode() if isinstance(text, str) else text
        path = tmp_path / "net.safetensors"
        path.write_bytes((len(data) if length is None else length).to_bytes(8, "little") + data + body)
        return path

    return write


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(FormatError) as caught:
        read_safetensors(path, **options)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 700 and str(path) in message, repr(message)
    return message


# ----------------------------------------------------------------------------------------------------------- it reads


def test_the_real_file_is_read_as_the_library_reads_it(data_root: Path) -> None:
    from safetensors.numpy import load_file

    path = data_root / "weights" / "formats" / "mnist_tinygrad.safetensors"
    arrays, expected = read_safetensors(path), load_file(path)
    assert {name: array.shape for name, array in arrays.items()} == {"l1.weight": (128, 784), "l2.weight": (10, 128)}
    for name, array in arrays.items():
        assert array.dtype == expected[name].dtype and array.tobytes() == expected[name].tobytes()
        assert not array.flags.owndata and not array.flags.writeable


@pytest.mark.parametrize("kind", DTYPES)
def test_every_kind_the_library_writes_is_read(tmp_path: Path, rng: np.random.Generator, kind: str) -> None:
    from safetensors.numpy import save_file

    array = (rng.random((3, 4)) * 100).astype(DTYPES[kind])
    tensors = {"a": array, "scalar": np.array(array[1, 1]), "empty": array[:0]}
    save_file(tensors, tmp_path / "x.safetensors", {"made": "here"})
    for name, loaded in read_safetensors(tmp_path / "x.safetensors").items():
        assert (loaded.dtype, loaded.shape) == (DTYPES[kind], tensors[name].shape)
        assert loaded.tobytes() == tensors[name].tobytes()


@pytest.mark.parametrize("kind", DTYPES)
def test_every_kind_that_is_written_is_read_by_the_library(rng: np.random.Generator, kind: str) -> None:
    from safetensors.numpy import load, save

    array = (rng.random((3, 4)) * 100).astype(DTYPES[kind])
    tensors = {"né": array, "a": array[2], "scalar": np.array(array[1, 1]), "empty": array[:0]}
    found = load(packed(tensors, {"made": "here"}))
    assert found.keys() == tensors.keys()
    for name, loaded in found.items():
        assert (loaded.dtype, loaded.shape) == (DTYPES[kind], tensors[name].shape)
        assert loaded.tobytes() == tensors[name].tobytes()
    del tensors["né"]  # letters beyond ASCII are escaped here, and JSON either way
    assert packed(tensors, {"made": "here"}) == save(tensors, {"made": "here"})


def test_arrays_of_several_kinds_begin_where_their_elements_may(rng: np.random.Generator) -> None:
    from safetensors.numpy import load

    tensors = {kind: (rng.random(3) * 100).astype(dtype) for kind, dtype in DTYPES.items()}
    found = load(packed(tensors, {}))
    assert {name: array.tolist() for name, array in found.items()} == {k: a.tolist() for k, a in tensors.items()}
    header = json.loads(packed(tensors, {})[8:].split(b"}}")[0] + b"}}")
    for kind, array in tensors.items():
        assert header[kind]["data_offsets"][0] % array.itemsize == 0


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"])
def test_any_layout_that_minifcn_writes_comes_back_exactly(
    tmp_path: Path, rng: np.random.Generator, dtype: str
) -> None:
    """Row 24: the library by itself writes the middle four wrong without a word."""
    base = rng.standard_normal((4, 5, 6)).astype(dtype)
    tensors = {
        "C order": base,
        "Fortran order": np.asfortranarray(base),
        "transposed": base.transpose(2, 0, 1),
        "strided": base[::2, ::-1, 1::3],
        "broadcast": np.broadcast_to(base[:, :1], base.shape),
    }
    save_checkpoint(tmp_path / "x.safetensors", tensors, {})
    loaded = read_safetensors(tmp_path / "x.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, array in tensors.items():
        assert loaded[name].shape == array.shape and loaded[name].dtype == np.dtype(dtype).newbyteorder("<")
        assert np.array_equal(loaded[name], array)


def test_bfloat16_becomes_float32_exactly(file: Callable[..., Path]) -> None:
    raw = np.array([0x3F80, 0xC049, 0x0001], "<u2")  # 1, the bfloat16 before -pi, the smallest of all
    path = file({"w": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}, raw.tobytes())
    loaded = read_safetensors(path)["w"]
    assert loaded.dtype == np.float32 and loaded.tolist() == [1.0, -3.140625, 2.0**-133]


def test_the_names_keep_the_order_of_the_header_and_the_data_their_own(file: Callable[..., Path]) -> None:
    header = {"b": F32 | {"data_offsets": [8, 16]}, "none": F32 | {"shape": [0], "data_offsets": [8, 8]}, "a": F32}
    arrays = read_safetensors(file(header, TWO.tobytes() + (2 * TWO).tobytes()))
    assert list(arrays) == ["b", "none", "a"]
    assert np.array_equal(arrays["a"], TWO) and np.array_equal(arrays["b"], 2 * TWO) and not arrays["none"].size


def test_the_arrays_are_the_file_itself(file: Callable[..., Path]) -> None:
    """100 MB of weights cost no memory but the check of their values."""
    count = 25_000_000
    path = file({"w": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}, bytes(4 * count))
    tracemalloc.start()
    try:
        assert read_safetensors(path)["w"].nbytes == 4 * count
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


# ----------------------------------------------------------------------------------------------- row 20: hostile ones


def with_(**changed: Any) -> dict[str, Any]:
    return {"w": F32 | changed}


LIES: dict[str, tuple[Any, bytes, str]] = {
    "no JSON": (b"{{", b"", "header: found"),
    "JSON of another kind": (b"[1]", b"", "header: found a list"),
    "JSON after a space": (b' {"w":{}}', b"", "header: found a dict"),
    "no UTF-8": (b'{"\xff":{}}', b"", "header: found"),
    "deep JSON": (b'{"w":' + b"[" * 200_000, b"", "header: found"),
    "a long number": (b'{"w":' + b"9" * 100_000 + b"}", b"", "header: found"),
    "the empty header": (b"", b"", "header: found"),
    "no arrays": ({}, b"", "no arrays"),
    "metadata alone": ({"__metadata__": {"a": "b"}}, b"", "no arrays"),
    "metadata of numbers": (with_() | {"__metadata__": {"a": 1}}, TWO.tobytes(), "metadata"),
    "metadata as a list": (with_() | {"__metadata__": []}, TWO.tobytes(), "metadata"),
    "a key twice": (b'{"w":1,"w":2}', b"", "a key twice"),
    "a key twice inside": (b'{"w":{"dtype":"F32","dtype":"F64"}}', b"", "a key twice"),
    "an entry that is none": ({"w": 7}, b"", "w: found 7, expected an object of data_offsets, dtype, shape"),
    "an entry without a shape": ({"w": {"dtype": "F32", "data_offsets": [0, 8]}}, TWO.tobytes(), "w: found {"),
    "an entry with more": (with_(offset=0), TWO.tobytes(), "w: found {"),
    "an unknown dtype": (with_(dtype="F8_E4M3"), TWO.tobytes(), "w: dtype: found F8_E4M3, expected one of BOOL"),
    "a dtype that is none": (with_(dtype=[]), TWO.tobytes(), "w: dtype: found []"),
    "a shape that is none": (with_(shape=2), TWO.tobytes(), "w: shape: found 2"),
    "a shape of texts": (with_(shape=["2"]), TWO.tobytes(), "w: shape: found ('2',)"),
    "a shape of truths": (with_(shape=[True, 2]), TWO.tobytes(), "w: shape: found (True, 2)"),
    "a shape of fractions": (with_(shape=[2.0]), TWO.tobytes(), "w: shape: found (2.0,)"),
    "a negative shape": (with_(shape=[-1, -2]), TWO.tobytes(), "w: shape: found (-1, -2)"),
    "33 sizes": (with_(shape=[1] * 32 + [2]), TWO.tobytes(), "at most 32 sizes"),
    "10^15 numbers": (with_(shape=[10**15]), TWO.tobytes(), "found [0, 8], expected 4000000000000000 bytes"),
    "2^64 bytes, which wrap to 0": (with_(shape=[2**31, 2**31]), b"", "whose bytes can be counted"),
    "2^70 beside a 0": (with_(shape=[0, 2**70], data_offsets=[0, 0]), b"", "whose bytes can be counted"),
    "a shape of fewer": (with_(shape=[1]), TWO.tobytes(), "found [0, 8], expected 4 bytes for F32 of (1,)"),
    "offsets that are none": (with_(data_offsets="0:8"), TWO.tobytes(), "found 0:8, expected two integers"),
    "three offsets": (with_(data_offsets=[0, 4, 8]), TWO.tobytes(), "expected two integers"),
    "offsets of truths": (with_(data_offsets=[False, 8]), TWO.tobytes(), "expected two integers"),
    "negative offsets": (with_(data_offsets=[-8, 0]), TWO.tobytes(), "found [-8, 0]"),
    "offsets the wrong way": (with_(data_offsets=[8, 0]), TWO.tobytes(), "found [8, 0]"),
    "offsets of 2^64": (with_(data_offsets=[2**64, 2**64 + 8]), TWO.tobytes(), "begins at 0"),
    "out of bounds": (with_(), TWO.tobytes()[:7], "found [0, 8], expected one that begins at 0"),
    "a hole at the front": (with_(data_offsets=[4, 12]), TWO.tobytes() + b"1234", "found [4, 12]"),
    "a hole": (with_() | {"v": F32 | {"data_offsets": [12, 20]}}, bytes(20), "v: data_offsets: found [12, 20]"),
    "an overlap": (with_() | {"v": F32 | {"data_offsets": [4, 12]}}, bytes(12), "v: data_offsets: found [4, 12]"),
    "one in the place of another": (with_() | {"v": F32}, TWO.tobytes(), "data_offsets: found [0, 8]"),
    "bytes after the last": (with_(), TWO.tobytes() + b"x", "data: found 9 bytes, expected the 8"),
    "a name with a newline": ({"a\nb": F32}, TWO.tobytes(), "printable letters"),
    "a name without end": ({"a" * 600: F32}, TWO.tobytes(), "printable letters"),
    "an empty name": ({"": F32}, TWO.tobytes(), "printable letters"),
    "a truth that is neither": ({"w": F32 | {"dtype": "BOOL", "data_offsets": [0, 2]}}, b"\2\1", "neither 0 nor 1"),
}  # fmt: skip


@pytest.mark.parametrize("what", LIES)
def test_a_header_that_lies_is_refused(file: Callable[..., Path], what: str) -> None:
    """Row 20."""
    header, body, says = LIES[what]
    assert says in refused(file(header, body))


@pytest.mark.parametrize(
    ("length", "says"),
    [(2**40, f"found {2**40} bytes, expected at most 2"), (2**64 - 1, "header length"), (3, "expected at most 2")],
)
def test_a_length_that_lies_is_refused(file: Callable[..., Path], length: int, says: str) -> None:
    """Row 20."""
    assert says in refused(file(b"{}", length=length))


@pytest.mark.parametrize("size", range(8))
def test_a_file_shorter_than_its_length_is_refused(tmp_path: Path, size: int) -> None:
    """Row 20."""
    (tmp_path / "x.safetensors").write_bytes(bytes(size))
    assert f"found {size} bytes" in refused(tmp_path / "x.safetensors")


def test_headers_are_refused_in_bounded_memory(file: Callable[..., Path]) -> None:
    """A header of 2^38 bytes in a sparse file of as many; and 10^15 elements."""
    huge = file(b"{}", length=2**38)
    with open(huge, "r+b") as sparse:
        sparse.truncate(2**38 + 8)
    tracemalloc.start()
    try:
        assert f"at most {MAX_HEADER}" in refused(huge)
        refused(file(with_(shape=[10**15], data_offsets=[0, 4 * 10**15]), TWO.tobytes()))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
        huge.unlink()


def test_every_truncation_is_refused(file: Callable[..., Path]) -> None:
    path = file(with_() | {"v": {"dtype": "F16", "shape": [1, 1], "data_offsets": [8, 10]}}, TWO.tobytes() + b"\0\0")
    data = path.read_bytes()
    assert len(read_safetensors(path)) == 2
    for length in range(len(data)):
        path.write_bytes(data[:length])
        refused(path)


def test_every_flipped_bit_gives_arrays_or_one_refusal(file: Callable[..., Path]) -> None:
    path = file(with_() | {"v": {"dtype": "F16", "shape": [1, 1], "data_offsets": [8, 10]}}, TWO.tobytes() + b"\0\0")
    data, read = path.read_bytes(), 0
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            arrays = read_safetensors(path)
        except FormatError as error:
            assert str(error).isprintable()
        else:
            read += 1
            assert len(arrays) == 2 and all(np.isfinite(array).all() for array in arrays.values())
    assert 50 < read < 4 * len(data)


def test_random_edits_give_arrays_or_one_refusal(file: Callable[..., Path], rng: np.random.Generator) -> None:
    path = file(with_() | {"v": {"dtype": "F16", "shape": [1, 1], "data_offsets": [8, 10]}}, TWO.tobytes() + b"\0\0")
    found = [survives(read_safetensors, path, one) for one in mutations(rng, path.read_bytes(), count=1500)]
    assert 0 < len(found) - found.count(None) < 750  # the header leaves little room


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["F16", "F32", "F64"])
def test_weights_that_are_no_numbers_are_refused_unless_asked_for(
    file: Callable[..., Path], value: float, kind: str
) -> None:
    """Row 23."""
    array = np.array([1, value], DTYPES[kind])
    path = file({"conv1.bias": {"dtype": kind, "shape": [2], "data_offsets": [0, array.nbytes]}}, array.tobytes())
    assert "conv1.bias: found NaN or infinity" in refused(path)
    assert np.array_equal(read_safetensors(path, allow_nonfinite=True)["conv1.bias"], array, equal_nan=True)
