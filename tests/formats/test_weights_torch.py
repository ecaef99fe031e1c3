"""PyTorch's files without PyTorch: real ones equal to the last bit, and hostile ones, which run nothing.

Most files here are assembled by hand, word by word, so that the tests need no PyTorch and can say what it never would.
"""

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_files import MEGABYTE, at_most, content, flips, mutations, refused, survives, truncations
from some_slow import slow_but

from minifcn.errors import FormatError, UsageError
from minifcn.formats import opcodes
from minifcn.formats.limits import Cursor
from minifcn.formats.opcodes import MAX_WORDS, WORDS, Machine
from minifcn.formats.torch_legacy import MAGIC, read_torch_legacy
from minifcn.formats.torch_zip import read_torch_zip

# ------------------------------------------------------------------------ a writer, so that there is something to break

ORDERED_DICT = b"ccollections\nOrderedDict\n"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<L", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return (
        b"J" + struct.pack("<l", value)
        if abs(value) < 2**31
        else b"\x8a\x09" + value.to_bytes(9, "little", signed=True)
    )


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key: str, numel: int, *, kind: str = "FloatStorage", end: bytes = b"") -> bytes:
    return (
        b"("
        + text("storage")
        + b"ctorch\n"
        + kind.encode()
        + b"\n"
        + text(key)
        + text("cpu")
        + number(numel)
        + end
        + b"tQ"
    )


def tensor(
    key: str = "0",
    *,
    numel: int = 6,
    kind: str = "FloatStorage",
    offset: int = 0,
    shape: tuple[int, ...] = (2, 3),
    strides: tuple[int, ...] = (3, 1),
    end: bytes = b"\x89" + ORDERED_DICT + b")R",
) -> bytes:
    where = storage(key, numel, kind=kind) + number(offset) + numbers(*shape) + numbers(*strides)
    return REBUILD + b"(" + where + end + b"tR"


def pickled(words: bytes) -> bytes:
    return b"\x80\x02" + words + b"."


def state(**tensors: bytes) -> bytes:
    """The pickle of a state dict, `__` standing for a dot in names."""
    items = b"".join(text(name.replace("__", ".")) + words for name, words in tensors.items())
    return pickled(ORDERED_DICT + b")R(" + items + b"u")


W = np.arange(6, dtype=np.float32).reshape(2, 3) - 2.5
Writer = Callable[..., Path]


def write_zip(
    path: Path, pickle: bytes, storages: dict[str, bytes], *, method: int = 0, more: dict[str, bytes] | None = None
) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("net/data.pkl", pickle)
        for key, data in storages.items():
            file.writestr(f"net/data/{key}", data)
        for name, data in ({"net/version": b"3\n"} if more is None else more).items():
            file.writestr(name, data)
    return path


def write_legacy(path: Path, pickle: bytes, storages: dict[str, bytes], *, itemsize: int = 4) -> Path:
    magic = pickled(b"\x8a\x0a" + MAGIC.to_bytes(10, "little"))
    machine = pickled(b"}(" + text("little_endian") + b"\x88" + text("protocol_version") + b"M\xe9\x03u")
    keys = pickled(b"](" + b"".join(map(text, storages)) + b"e")
    data = b"".join(struct.pack("<q", len(data) // itemsize) + data for data in storages.values())
    path.write_bytes(magic + pickled(b"M\xe9\x03") + machine + pickle + keys + data)
    return path


FORMATS = [
    pytest.param(write_zip, read_torch_zip, id="zip"),
    pytest.param(write_legacy, read_torch_legacy, id="legacy"),
]
both = pytest.mark.parametrize(("write", "read"), FORMATS)


def run(words: bytes) -> Any:
    return Machine(Cursor(Path("a.pt"), memoryview(words), "data.pkl")).run()


# ------------------------------------------------------------------------------------------------------ what comes back


@both
def test_a_state_dict_comes_back_under_its_names_as_views_of_the_file(tmp_path: Path, write: Writer, read: Any) -> None:
    pickle = state(
        conv1__weight=tensor(),
        turned=tensor(shape=(3, 2), strides=(1, 3)),
        b=tensor("7", numel=2, shape=(2,), strides=(1,)),
    )
    found = read(write(tmp_path / "a.pt", pickle, {"0": W.tobytes(), "7": W[0, :2].tobytes()}))
    assert content(found) == content({"conv1.weight": W, "turned": W.T, "b": W[0, :2]})
    assert not found["turned"].flags.writeable and not found["turned"].flags.owndata
    assert np.shares_memory(found["turned"], found["conv1.weight"])


@both
def test_what_surrounds_a_state_dict_is_passed_over(tmp_path: Path, write: Writer, read: Any) -> None:
    """A checkpoint: numbers and texts beside nested dicts and lists, a parameter, Python 2's texts and pairs."""
    parameter = b"ctorch._utils\n_rebuild_parameter\n(" + tensor() + b"\x88" + ORDERED_DICT + b")RtR"
    old = b"ctorch._utils\n_rebuild_tensor\n(" + storage("0", 6, end=b"N") + number(4) + numbers(2) + numbers(1) + b"tR"
    words = (
        b"}("
        + text("epoch")
        + number(3)
        + text("lr")
        + b"G"
        + struct.pack(">d", 0.5)
        + text("note")
        + text("x")
        + b"N\x85"
    )
    words = words.replace(text("note") + text("x") + b"N\x85", text("note") + b"N\x85")
    words += text("net") + ORDERED_DICT + b"(]]q\x05(U\x01w" + parameter + b"ea]T\1\0\0\0b" + b"h\x05" + b"0" * 0
    del words
    pairs = ORDERED_DICT + b"](](U\x01w" + parameter + b"e](T\1\0\0\0b" + old + b"ee\x85R"
    notes = b"}" + text("_metadata") + b"}sb"
    pairs = ORDERED_DICT + b"](](U\x01w" + parameter + b"e](T\1\0\0\0b" + old + b"ee\x85R"
    notes = b"}" + text("_metadata") + b"}sb"
    words = b"}(" + text("epoch") + number(3) + text("lr") + b"G" + struct.pack(">d", 0.5) + text("note") + b"N\x85"
    words += text("net") + pairs + notes + text("list") + b"]" + tensor() + b"a" + b"K\x05" + b"]" + b"u"
    found = read(write(tmp_path / "a.pt", pickled(words), {"0": W.tobytes()}))
    assert content(found) == content({"net.w": W, "net.b": W.ravel()[4:], "list.0": W})


@both
def test_a_tensor_alone_is_called_tensor(tmp_path: Path, write: Writer, read: Any) -> None:
    found = read(write(tmp_path / "a.pt", pickled(tensor(shape=(), strides=(), offset=5)), {"0": W.tobytes()}))
    assert content(found) == content({"tensor": W[1, 2]})


def test_the_shared_files_equal_what_pytorch_reads(data_root: Path, torch: Any) -> None:
    folder = data_root / "weights" / "formats"
    files = [(file, read_torch_zip) for file in sorted(folder.glob("*.pt"))]
    files += [(file, read_torch_legacy) for file in sorted(folder.glob("*.pth"))]
    assert len(files) >= 4
    for file, read in files:
        expected = torch.load(file, weights_only=True, map_location="cpu")
        expected = expected if isinstance(expected, dict) else {"tensor": expected}
        assert content(read(file)) == content({name: each.numpy() for name, each in expected.items()}), file


@pytest.mark.parametrize("new", [True, False])
def test_row_24_every_dtype_and_stride_comes_back_exactly(tmp_path: Path, torch: Any, new: bool) -> None:
    base = torch.arange(120).reshape(4, 5, 6).to(torch.float64) / 7
    dtypes = ["bool", "int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64"]
    saved = {dtype: (base * 7 % 2 if dtype == "bool" else base).to(getattr(torch, dtype)) for dtype in dtypes}
    saved |= {
        "turned": base.permute(2, 0, 1),
        "channels last": base[None].contiguous(memory_format=torch.channels_last),
        "cropped": base[1:3, :, ::2],
        "parameter": torch.nn.Parameter(base.float()),
        "number": base[2, 3, 4],
        "nothing": base[:0],
        "shared": base[0],
    }
    torch.save(saved, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
    found = (read_torch_zip if new else read_torch_legacy)(tmp_path / "a.pt")
    assert content(found) == content({name: each.detach().numpy() for name, each in saved.items()})

    torch.save({"brain": base.bfloat16()}, tmp_path / "b.pt", _use_new_zipfile_serialization=new)
    found = (read_torch_zip if new else read_torch_legacy)(tmp_path / "b.pt")
    assert content(found) == content({"brain": base.bfloat16().float().numpy()})


def test_row_24_a_big_endian_file(tmp_path: Path) -> None:
    more = {"net/byteorder": b"big"}
    found = read_torch_zip(write_zip(tmp_path / "a.pt", state(w=tensor()), {"0": W.astype(">f4").tobytes()}, more=more))
    np.testing.assert_array_equal(found["w"], W)
    half = tensor(kind="BFloat16Storage")
    found = read_torch_zip(
        write_zip(tmp_path / "b.pt", state(w=half), {"0": struct.pack(">6H", *[0x3FC0] * 6)}, more=more)
    )
    assert found["w"].tolist() == [[1.5] * 3] * 2
    assert "byteorder" in refused(
        read_torch_zip, write_zip(tmp_path / "c.pt", state(w=tensor()), {}, more={"net/byteorder": b"PDP"})
    )


def test_a_net_saved_by_pytorch_today(tmp_path: Path, torch: Any) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    torch.save(
        {"model": net.state_dict(), "epoch": 7, "optimizer": torch.optim.Adam(net.parameters()).state_dict()},
        tmp_path / "a.pt",
    )
    found = read_torch_zip(tmp_path / "a.pt")
    assert content(found) == content({f"model.{name}": each.numpy() for name, each in net.state_dict().items()})
    torch.save(net, tmp_path / "b.pt")
    assert "state_dict" in refused(read_torch_zip, tmp_path / "b.pt")
    torch.save({"w": torch.ones(3).to_sparse()}, tmp_path / "c.pt")
    refused(read_torch_zip, tmp_path / "c.pt")


# ----------------------------------------------------------------------------------- row 14: a program that is not ours


@both
@pytest.mark.parametrize("callee", ["cos\nsystem\n", "cposix\nsystem\n", "c__builtin__\neval\n", "cbuiltins\nexec\n"])
def test_row_14_a_shell_is_not_started(tmp_path: Path, write: Writer, read: Any, callee: str) -> None:
    witness = tmp_path / "witness"
    words = callee.encode() + text(f"touch {witness}") + b"\x85R"
    message = refused(read, write(tmp_path / "a.pt", pickled(words), {}))
    assert "the name" in message and "nothing was run" in message and not witness.exists()
    refused(read, write(tmp_path / "b.pt", state(w=tensor(), x=words), {"0": W.tobytes()}))
    assert not witness.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (b"ctorch\nFloatStorage\n)R", "the name torch.FloatStorage"),
        (b"ccollections\nOrderedDict\nK\x01R", "a int, expected a tuple"),
        (b"ccollections\nOrderedDict\nK\x01\x85R", "other arguments"),
        (b"ccollections\nOrderedDict\n]K\x01a\x85R", "no pair"),
        (b"ccollections\nOrderedDict\n](](K\x01K\x02e](K\x01K\x03ee\x85R", "twice"),
        (b")R", "an empty stack"),
        (b"))R", "a tuple, expected a Name"),
        (b"}]b", "a list, expected a dict"),
        (b"}Nb", "a NoneType, expected a dict"),
        (b"K\x01Q", "a reference"),
        (b"i__main__\nx\n", "the word"),
        (b"\x81", "an empty stack"),
        (b"ctorch\nDevice\n)\x81", "the name torch.Device"),
        (b"ccollections\nOrderedDict\n)\x81", "an object of collections.OrderedDict"),
        (b"\x93", "the word"),
        (b"P0\n", "the word"),
        (b"0", "the word"),
    ],
)
def test_words_that_are_no_ones_weights(words: bytes, message: str) -> None:
    with pytest.raises(FormatError) as caught:
        run(pickled(words))
    assert message in str(caught.value), caught.value


def test_what_is_passed_over_is_never_made() -> None:
    """Names that stand beside weights become an `Other`, whatever is put into it; a tensor among them is lost."""
    for words in (
        b"cpathlib\nPosixPath\n(" + text("/etc") + b"tR",
        b"cargparse\nNamespace\n)\x81}" + text("lr") + b"K\x01sb",
        b"ccollections\ndefaultdict\nc__builtin__\nlist\n\x85R(" + text("a") + b"K\x01u",
        b"ccollections\ndeque\n)R(K\x01K\x02e",
        b"cnumpy\ndtype\n" + text("f8") + b"\x85R(K\x03Ntb",
    ):
        assert type(run(pickled(words))) is opcodes.Other, words
    assert {"torch.load", "builtins.eval", "builtins.getattr", "os.system"}.isdisjoint(opcodes.PASSED_OVER)


def test_a_constant_is_not_called(tmp_path: Path) -> None:
    words = b"ctorch\nFloatStorage\n)R"
    assert "a call of torch.FloatStorage" in refused(read_torch_zip, write_zip(tmp_path / "a.pt", pickled(words), {}))


# ------------------------------------------------------------------------------------------------ rows 15 and 16: bombs


@both
@pytest.mark.parametrize("words", [b"Nr\xff\xff\xff\xff", b"Nr\xff\xff\xff\x7f"])
def test_row_15_a_memo_bomb(tmp_path: Path, write: Writer, read: Any, words: bytes) -> None:
    assert len(pickled(words)) == 9
    with at_most(MEGABYTE):
        assert "no tensors" in refused(read, write(tmp_path / "a.pt", pickled(words), {}))
    with at_most(MEGABYTE):  # the nine bytes by themselves
        path = tmp_path / "b.pt"
        path.write_bytes(pickled(words))
        refused(read, path)


@both
def test_row_16_a_million_words(tmp_path: Path, write: Writer, read: Any) -> None:
    message = refused(read, write(tmp_path / "a.pt", pickled(b"]q\x00" * 10**6), {}), measured=False)
    assert f"more than {MAX_WORDS} words" in message


@pytest.mark.parametrize("word", [b"(", b"}", b"]q\x00", b"]\x85"])
def test_row_16_words_take_no_more_than_50_megabytes(word: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        opcodes, "MAX_WORDS", MAX_WORDS // 10
    )  # measuring is slow: a tenth of them, a tenth of the room
    with pytest.raises(FormatError, match="words"), at_most(5 * MEGABYTE):
        run(pickled(word * MAX_WORDS))


NESTED = {
    "tuples": b"N" + b"\x85" * 10_000,
    "lists": b"]" * 10_000 + b"a" * 9_999,
    "marks": b"(" * 10_000 + b"t" * 10_000,
    "dicts": b"}" + (text("k") + b"}") * 10_000 + b"s" * 10_000,
}


@both
@pytest.mark.parametrize("kind", slow_but(["tuples"], NESTED, "eight files of 10,000 levels"))
def test_row_16_nested_so_deep_that_printing_or_comparing_would_crash(
    tmp_path: Path, write: Writer, read: Any, kind: str
) -> None:
    words = NESTED[kind]
    hooked = tensor(end=b"\x89" + words)
    sized = REBUILD + b"(" + storage("0", 6) + number(0) + words + words + b"\x89}tR"
    for pickle in (words, b"}" + words + b"\x88s", words + b"Q", hooked, sized, words + b"b", REBUILD + words + b"R"):
        refused(read, write(tmp_path / "a.pt", pickled(pickle), {"0": W.tobytes()}), measured=False)
    refused(read, write(tmp_path / "a.pt", state(w=words), {}), measured=False)


@both
def test_row_16_what_holds_itself_or_doubles(tmp_path: Path, write: Writer, read: Any) -> None:
    itself = b"}q\x00" + text("again") + b"h\x00s"
    assert "too deep" in refused(read, write(tmp_path / "a.pt", pickled(itself), {}))
    # Box i + 1 holds a list of two times what box i holds: 2^9 lists in 9 steps, and a thousand times those.
    doubled = b"]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(9))
    widely = b"](" + doubled + b"h\x09" * 1000 + b"e"
    assert "too widely" in refused(read, write(tmp_path / "b.pt", pickled(widely), {}), measured=False)


@both
def test_row_16_one_list_copied_again_and_again(tmp_path: Path, write: Writer, read: Any) -> None:
    pairs = b"](" + b"".join(b"](" + number(i) + b"Ne" for i in range(1000)) + b"e\x85q\x00"
    again = ORDERED_DICT + b"q\x01" + b"h\x01h\x00R" * 1000
    assert "words" in refused(read, write(tmp_path / "a.pt", pickled(pairs + again), {}))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (b"\x8a\xff" + bytes(255), "an integer of 255 bytes"),
        (b"\x8b\xff\xff\xff\x7f" + bytes(100), "the word"),
        (b"L" + b"9" * 10**6 + b"L\n", "the word"),
        (b"I" + b"9" * 10**6 + b"\n", "the word"),
        (b"X\xff\xff\xff\xffabc", "a false length"),
        (b"T\xff\xff\xff\x7fabc", "a false length"),
        (b"X\x01\0\0\0\xff", "not UTF-8"),
        (b"c" + b"a" * 10**6 + b"\nb\n", "no end of line"),
        (b"h\x01", "box 1 empty"),
        (b"j\xff\xff\xff\xff", "box 4294967295 empty"),
        (b"}(K\x01u", "a key without a value"),
        (b"}(K\x01Nu", None),
        (b"}(K\x01NK\x01Nu", "twice"),
        (b"}" + b"K\x01Ns" * 2, "twice"),
        (b"}(NNu", "a key that is a NoneType"),
        (b"}(\x88Nu", "a key that is a bool"),
        (b"}(G" + bytes(8) + b"Nu", "a key that is a float"),
        (b"NN", "more than one thing"),
        (b"(N", "more than one thing"),
        (b"", "an empty stack"),
        (b"N(\x85", "an empty stack"),
        (b"t", "no mark"),
        (b"Na", "an empty stack"),
        (b"NNa", "a NoneType, expected a list"),
        (b"\x80\x04N", "pickle protocol 4"),
    ],
)
def test_row_16_words_that_lie_or_do_not_fit(words: bytes, message: str | None) -> None:
    with at_most(5 * MEGABYTE):
        if message is None:
            assert run(pickled(words)) == {1: None}
            return
        with pytest.raises(FormatError) as caught:
            run(pickled(words))
    assert message in str(caught.value), caught.value


@pytest.mark.parametrize(
    "words", [b"\x80", b"K", b"J\0\0\0", b"X\1\0\0\0", b"G1234567", b"N", b"ca\nb", b"\x8a\x02a", b"q", b"r123"]
)
def test_a_pickle_that_ends_early(words: bytes) -> None:
    with pytest.raises(FormatError, match="found"):
        run(words)


def test_every_word_says_what_it_should() -> None:
    words = b"\x80\x02(N\x88\x89K\xffM\xff\xffJ\xfe\xff\xff\xff\x8a\x02\x00\x80\x8a\x00G" + struct.pack(">d", -1.5)
    words += b"X\x02\0\0\0\xc3\xa9U\x01aT\x01\0\0\0b)]}K\x01\x85K\x01K\x02\x86K\x01K\x02K\x03\x87"
    words += b"q\x00r\x01\0\0\0h\x00j\x01\0\0\0"
    words += b"]Na](NNe}K\x01Ns}(K\x01Nut."
    three = (1, 2, 3)
    expected = (
        None,
        True,
        False,
        255,
        65535,
        -2,
        -32768,
        0,
        -1.5,
        "é",
        "a",
        "b",
        (),
        [],
        {},
        (1,),
        (1, 2),
        three,
        three,
        three,
    )
    assert run(words) == (*expected, [None], [None, None], {1: None}, {1: None})
    assert len(WORDS) == 33


# ------------------------------------------------------------------------------------------ row 17: outside the storage

HUGE = 2**62


@both
@pytest.mark.parametrize(
    "wrong",
    [
        {"strides": (4, 1)},
        {"offset": 1},
        {"offset": 6, "shape": (), "strides": ()},
        {"offset": -1},
        {"offset": HUGE},
        {"strides": (-3, 1)},
        {"strides": (3, -1)},
        {"strides": (HUGE, HUGE)},
        {"strides": (2**64 // 4, 1)},
        {"shape": (-2, 3)},
        {"shape": (HUGE, HUGE), "strides": (0, 0)},
        {"shape": (0, HUGE, HUGE), "strides": (0, 0, 0)},
        {"shape": (7,), "strides": (0,)},
        {"shape": (1000, 1000), "strides": (0, 0)},
        {"shape": (2, 3), "strides": (1,)},
        {"shape": (1,) * 40, "strides": (1,) * 40},
        {"numel": 7},
        {"numel": 5, "shape": (5,), "strides": (1,)},
        {"numel": -6},
        {"numel": HUGE},
        {"kind": "DoubleStorage"},
        {"kind": "HalfStorage"},
    ],
)
def test_row_17_a_view_that_leaves_its_storage(tmp_path: Path, write: Writer, read: Any, wrong: dict[str, Any]) -> None:
    with at_most(MEGABYTE):
        refused(read, write(tmp_path / "a.pt", state(w=tensor(**wrong)), {"0": W.tobytes()}))


@both
def test_views_at_the_very_edge(tmp_path: Path, write: Writer, read: Any) -> None:
    pickle = state(
        last=tensor(offset=5, shape=(1, 1), strides=(HUGE, HUGE)),
        none=tensor(offset=6, shape=(0, 3), strides=(3, 1)),
        overlapping=tensor(shape=(2, 2), strides=(1, 1)),
        same=tensor(shape=(6,), strides=(0,)),
    )
    found = read(write(tmp_path / "a.pt", pickle, {"0": W.tobytes()}))
    assert {name: each.tolist() for name, each in found.items()} == {
        "last": [[2.5]], "none": [], "overlapping": [[-2.5, -1.5], [-1.5, -0.5]], "same": [-2.5] * 6
    }  # fmt: skip
    empty = tensor(numel=0, shape=(0,), strides=(1,))
    assert read(write(tmp_path / "b.pt", state(w=empty), {"0": b""}))["w"].shape == (0,)


@both
def test_more_views_than_a_net_shares(tmp_path: Path, write: Writer, read: Any) -> None:
    data = np.ones(2000, np.float32).tobytes()
    many = {f"w{i}": tensor(numel=2000, shape=(2000,), strides=(1,)) for i in range(40)}
    assert "share little" in refused(read, write(tmp_path / "a.pt", state(**many), {"0": data}))


@both
@pytest.mark.parametrize(
    "words",
    [
        tensor(end=b"\x89" + ORDERED_DICT + b")R" + b"}" + text("neg") + b"\x88s"),
        tensor(end=b"\x89" + ORDERED_DICT + b")R" + b"NN"),
        tensor(end=b"\x89}K\x01Ns"),
        tensor(end=b"K\x01}"),
        tensor(end=b""),
        REBUILD + b"(" + number(0) * 6 + b"tR",
        REBUILD + b"(" + storage("0", 6, kind="UntypedStorage") + b"tR",
        tensor().replace(number(6) + b"tQ", number(6) + b"(" + text("1") + number(2) + number(3) + b"ttQ"),
        tensor().replace(number(6) + b"tQ", number(6) + b"NNtQ"),
        tensor().replace(b"ctorch\nFloatStorage\n", ORDERED_DICT),
        b"(" + text("module") + text("x") + b"tQ",
        b"ctorch._utils\n_rebuild_parameter\n(NNNtR",
        b"ctorch._utils\n_rebuild_parameter\n(" + tensor() + b"\x88}K\x01NstR",
        b"ctorch._utils\n_rebuild_tensor\n)R",
        b"(" + tensor() + tensor(kind="IntStorage") + b"t",
        b"(" + tensor() + tensor(numel=3, shape=(3,), strides=(1,)) + b"t",
    ],
)
def test_tensors_that_are_not_plain(tmp_path: Path, write: Writer, read: Any, words: bytes) -> None:
    refused(read, write(tmp_path / "a.pt", pickled(words), {"0": W.tobytes()}))


@both
def test_names_that_meet_or_are_none(tmp_path: Path, write: Writer, read: Any) -> None:
    nested = text("a") + b"}" + text("b") + tensor() + b"s" + text("a.b") + tensor()
    for words, message in [
        (b"}(" + nested + b"u", "the name twice"),
        (b"}(" + text("1") + tensor() + b"K\x01" + tensor() + b"u", "the name twice"),
        (b"}" + text("a\x1b[2J") + tensor() + b"s", "printable"),
        (b"}" + text("a" * 501) + tensor() + b"s", "at most 500 letters"),
    ]:
        assert message in refused(read, write(tmp_path / "a.pt", pickled(words), {"0": W.tobytes()}))


# ------------------------------------------------------------------------------- row 18: the zip, and the legacy layout


def test_row_18_a_compressed_record(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.pt", state(w=tensor()), {"0": W.tobytes()}, method=zipfile.ZIP_DEFLATED)
    assert "compressed" in refused(read_torch_zip, path)


def test_row_18_a_bomb_inside(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as file:
        file.writestr("net/data.pkl", state(w=tensor(numel=10 * MEGABYTE)))
        file.writestr("net/data/0", bytes(40 * MEGABYTE), zipfile.ZIP_DEFLATED)
    with at_most(MEGABYTE):
        refused(read_torch_zip, tmp_path / "a.pt")


@pytest.mark.parametrize("part", [b"FloatStorage", W.tobytes(), b"3\n"])
def test_row_18_a_wrong_checksum(tmp_path: Path, part: bytes) -> None:
    path = write_zip(tmp_path / "a.pt", state(w=tensor()), {"0": W.tobytes()})
    data = path.read_bytes()
    assert data.count(part) == 1
    path.write_bytes(data.replace(part, part[:-1] + bytes([part[-1] ^ 1])))
    assert "checksum" in refused(read_torch_zip, path)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"../net/x": b""}, "a relative name"),
        ({"net/../../x": b""}, "a relative name"),
        ({"other/data.pkl": b""}, "several folders"),
    ],
)
def test_row_18_names_that_lead_elsewhere(tmp_path: Path, more: dict[str, bytes], message: str) -> None:
    path = write_zip(tmp_path / "a.pt", state(w=tensor()), {"0": W.tobytes()}, more=more)
    assert message in refused(read_torch_zip, path)


def test_row_18_an_entry_twice(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        path = write_zip(tmp_path / "a.pt", state(w=tensor()), {"0": W.tobytes()}, more={"net/data/0": bytes(24)})
    assert "the name twice" in refused(read_torch_zip, path)


def test_storages_that_are_missing_or_left_over(tmp_path: Path) -> None:
    for storages in ({}, {"0": W.tobytes()[:-1]}, {"0": W.tobytes() + b"\0"}, {"1": W.tobytes()}):
        refused(read_torch_zip, write_zip(tmp_path / "a.pt", state(w=tensor()), storages))
        refused(read_torch_legacy, write_legacy(tmp_path / "b.pt", state(w=tensor()), storages, itemsize=1))
    more = {"0": W.tobytes(), "1": W.tobytes()}
    assert "other keys" in refused(read_torch_legacy, write_legacy(tmp_path / "b.pt", state(w=tensor()), more))
    assert list(read_torch_zip(write_zip(tmp_path / "a.pt", state(w=tensor()), more))) == ["w"]
    assert "no data.pkl" in refused(read_torch_zip, write_empty(tmp_path / "c.pt"))
    assert "after the pickle" in refused(read_torch_zip, write_zip(tmp_path / "a.pt", state(w=tensor()) + b"N.", more))


def write_empty(path: Path) -> Path:
    zipfile.ZipFile(path, "w").close()
    return path


def test_the_legacy_layout_is_held_to_the_last_byte(tmp_path: Path) -> None:
    path = write_legacy(tmp_path / "a.pth", state(w=tensor()), {"0": W.tobytes()})
    data = path.read_bytes()
    keys = pickled(b"](" + text("0") + b"e")
    for old, new, message in [
        (MAGIC.to_bytes(10, "little"), bytes(10), "magic number"),
        (pickled(b"M\xe9\x03"), pickled(b"M\xe8\x03"), "format version"),
        (pickled(b"M\xe9\x03"), pickled(b"\x88"), "format version"),
        (text("little_endian") + b"\x88", text("little_endian") + b"\x89", "little_endian"),
        (text("little_endian") + b"\x88", text("little_endian") + b"K\x01", "little_endian"),
        (keys, pickled(b"](" + text("0") * 2 + b"e"), "each of them once"),
        (keys, pickled(b"]"), "each of them once"),
        (keys, pickled(b"](K\x00e"), "a list of texts"),
        (keys, pickled(b"N"), "a list of texts"),
        (struct.pack("<q", 6), struct.pack("<q", 2**61), "as the pickle says"),
        (struct.pack("<q", 6), struct.pack("<q", -6), "as the pickle says"),
        (W.tobytes(), W.tobytes() + b"\0", "after the last storage"),
        (W.tobytes(), W.tobytes()[:-1], "a false length"),
    ]:
        assert data.count(old) == 1
        path.write_bytes(data.replace(old, new))
        assert message in refused(read_torch_legacy, path), (old, new)
    twice = b"(" + tensor() + tensor("1") + b"t"
    assert refused(read_torch_legacy, write_legacy(path, pickled(twice), {"0": W.tobytes()}))


# ------------------------------------------------------------------------------- row 23, and what no list of faults has


@both
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_row_23_a_single_value_that_is_no_number(tmp_path: Path, write: Writer, read: Any, value: float) -> None:
    bad = W.copy()
    bad[1, 2] = value
    path = write(tmp_path / "a.pt", state(fine=tensor(shape=(5,), strides=(1,)), bad=tensor()), {"0": bad.tobytes()})
    assert "bad: found NaN or infinity" in refused(read, path)
    np.testing.assert_array_equal(read(path, allow_nonfinite=True)["bad"], bad)


@both
def test_a_bool_that_is_neither(tmp_path: Path, write: Writer, read: Any) -> None:
    pickle = state(w=tensor(kind="BoolStorage"))
    options = {"itemsize": 1} if write is write_legacy else {}
    assert read(write(tmp_path / "a.pt", pickle, {"0": b"\0\1\0\1\0\1"}, **options))["w"].tolist() == [
        [False, True, False],
        [True, False, True],
    ]
    assert "neither 0 nor 1" in refused(read, write(tmp_path / "b.pt", pickle, {"0": b"\0\1\0\1\0\2"}, **options))


@pytest.mark.slow("each bit of a file: thousands of readings")
@both
def test_every_truncation_is_refused_and_every_flip_refused_or_valid(tmp_path: Path, write: Writer, read: Any) -> None:
    path = write(tmp_path / "a.pt", state(w=tensor()), {"0": W.tobytes()})
    data = path.read_bytes()
    assert {survives(read, path, part) is None for part in truncations(data)} == {True}
    found = [survives(read, path, flipped) for flipped in flips(data)]
    assert found.count(None) > 0.6 * len(found)
    if read is read_torch_zip:  # a zip has checksums; the old format takes another number for what it is
        assert all(each in (None, content({"w": W})) for each in found)


@pytest.mark.slow("hundreds of damaged files are read")
@both
def test_random_edits_are_refused_or_valid(tmp_path: Path, rng: np.random.Generator, write: Writer, read: Any) -> None:
    path = tmp_path / "a.pt"
    pickle = state(w=tensor(), b=tensor("1", numel=2, shape=(2,), strides=(1,)))
    storages = {"0": W.tobytes(), "1": W[0, :2].tobytes()}
    with at_most(50 * MEGABYTE):
        found = [
            survives(read, path, mutated)
            for mutated in mutations(rng, write(path, pickle, storages).read_bytes(), count=300)
        ]
        for mutated in mutations(rng, pickle, count=600):  # with a valid checksum, as an attacker would
            found.append(survives(read, path, write(path, mutated, storages).read_bytes()))
    assert None in found and any(found)


def test_the_wrong_reader_refuses(tmp_path: Path) -> None:
    refused(read_torch_zip, write_legacy(tmp_path / "a.pth", state(w=tensor()), {"0": W.tobytes()}))
    refused(read_torch_legacy, write_zip(tmp_path / "a.pt", state(w=tensor()), {"0": W.tobytes()}))
    (tmp_path / "empty").touch()
    for read in (read_torch_zip, read_torch_legacy):
        refused(read, tmp_path / "empty")
        with pytest.raises(UsageError, match="no file"):
            read(tmp_path / "missing")


def test_a_zip_of_a_later_version_is_refused_by_the_reader_s_own_sentence(tmp_path):
    """Python's zipfile, which is asked for the names in it, cannot read it either."""
    path = tmp_path / "later.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", b"")
    data = bytearray(b"MZ" + path.read_bytes())
    data[data.index(b"PK\1\2") + 6] = 99  # the version that is needed to read it: 9.9
    path.write_bytes(data)
    with pytest.raises(NotImplementedError):
        zipfile.ZipFile(path)
    with pytest.raises(FormatError, match=r"later\.pth: zip: found a table of .* expected one that ends at byte"):
        read_torch_zip(path)
