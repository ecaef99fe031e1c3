"""`.npz`: what NumPy writes comes back bit for bit; anything else is refused in bounded memory."""

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_files import MEGABYTE, at_most, content, flips, mutations, refused, survives, truncations

from minifcn.errors import FormatError, UsageError
from minifcn.formats import archive, limits, npz
from minifcn.formats.npz import read_npz

SMALL = {"conv1.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([0.5, -1.0])}


def npy(array: Any, *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=allow_pickle)
    return file.getvalue()


def npy_with(text: str, numbers: bytes = b"") -> bytes:
    """A `.npy` with this header."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode("latin-1") + numbers


def zipped(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return path


def row_of(data: bytes) -> int:
    """Where the first row of the table of contents is."""
    return data.index(archive.ROW)


def edited(path: Path, at: int, new: bytes) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[:at] + new + data[at + len(new) :])
    return path


# ------------------------------------------------------------------------------------------------------ what comes back


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_dtype_order_and_shape_comes_back_bit_for_bit(
    tmp_path: Path, rng: np.random.Generator, save: Any
) -> None:
    base = rng.standard_normal((4, 5, 6)) * 100
    dtypes = [
        "?",
        "i1",
        "<i2",
        ">i2",
        "<i4",
        "<i8",
        ">i8",
        "u1",
        "<u2",
        "<u4",
        "<u8",
        "<f2",
        ">f2",
        "<f4",
        ">f4",
        ">f8",
    ]
    arrays = {
        f"as {dtype}".replace("?", "bool"): (base > 0 if dtype == "?" else np.abs(base)).astype(dtype)
        for dtype in dtypes
    }
    arrays |= {
        "F order": np.asfortranarray(base),
        "turned": base.T,
        "every second": base[::2, :, ::3],
        "backwards": base[::-1],
        "a/number": np.array(3.5),
        "nothing": np.zeros((0, 3)),
        "vector": base[0, 0],
        "repeated": np.broadcast_to(np.float32(2), (3, 3)),
    }
    save(tmp_path / "a.npz", **arrays)
    found = read_npz(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as expected:
        assert list(found) == expected.files == list(arrays)
        for name in expected.files:
            assert found[name].dtype == expected[name].dtype
            np.testing.assert_array_equal(found[name], expected[name])
    assert content(found) == content(arrays)
    assert not found["vector"].flags.writeable or save is np.savez_compressed


def test_the_shared_files_equal_what_numpy_reads(data_root: Path) -> None:
    files = sorted((data_root / "weights").rglob("*.npz"))
    assert len(files) >= 3
    for file in files:
        with np.load(file, allow_pickle=False) as expected:
            assert content(read_npz(file)) == content(dict(expected))


def test_numpys_later_versions_and_python_2_are_read(tmp_path: Path) -> None:
    text = "{'descr': '<i2', 'fortran_order': False, 'shape': (2L, 1L), }"
    second = b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text.encode() + b"\1\0\2\0"
    path = zipped(tmp_path / "a.npz", {"a.npy": second, "b.npy": npy_with(text.replace("L", ""), b"\3\0\4\0")})
    assert [array.tolist() for array in read_npz(path).values()] == [[[1], [2]], [[3], [4]]]


def test_an_archive_of_the_large_kind_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    np.savez(tmp_path / "a.npz", **SMALL)
    data = (tmp_path / "a.npz").read_bytes()
    assert archive.END_64 in data and b"\xff\xff\xff\xff" in data[row_of(data) :]
    assert content(read_npz(tmp_path / "a.npz")) == content(SMALL)
    # The two end records say the same, or another reader believes the other one.
    (tmp_path / "b.npz").write_bytes(data[:-12] + struct.pack("<H", 7) + data[-10:])
    assert "in one end record" in refused(read_npz, tmp_path / "b.npz")


def test_a_streamed_archive_is_read(tmp_path: Path) -> None:
    class Pipe(io.RawIOBase):  # cannot go back, so that zipfile writes the sizes behind the entries
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.data += bytes(data)
            return len(data)

    pipe = Pipe()
    np.savez_compressed(pipe, **SMALL)
    (tmp_path / "a.npz").write_bytes(pipe.data)
    assert content(read_npz(tmp_path / "a.npz")) == content(SMALL)


# ----------------------------------------------------------------------------------- row 18: zips that are not innocent


def bomb(megabytes: int) -> bytes:
    """Deflated zeros, a thousand to one, made of one megabyte's worth again and again."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    once = deflate.compress(bytes(MEGABYTE)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return once * megabytes + deflate.flush()


def deflated(path: Path, packed: bytes, size: int) -> Path:
    """An archive of one entry that claims to unfold to `size` bytes."""
    same = struct.pack("<5H3L2H", 20, 0, 8, 0, 0x21, 0, len(packed), size, 5, 0)
    row = archive.ROW + struct.pack("<H", 20) + same + struct.pack("<3H2L", 0, 0, 0, 0, 0) + b"a.npy"
    body = archive.HEADER + same + b"a.npy" + packed
    path.write_bytes(body + row + archive.END + struct.pack("<4H2LH", 0, 0, 1, 1, len(row), len(body), 0))
    return path


def test_row_18_a_bomb_is_refused_before_it_goes_off(tmp_path: Path) -> None:
    packed = bomb(1000)
    assert len(packed) < 1.1 * MEGABYTE
    assert "bomb" in refused(read_npz, deflated(tmp_path / "honest.npz", packed, 1000 * MEGABYTE))
    for claimed in (100, 10 * MEGABYTE):
        with at_most(claimed + 2 * MEGABYTE):
            assert "more than" in refused(read_npz, deflated(tmp_path / "liar.npz", packed, claimed))


def test_row_18_a_compressed_npz_is_normal(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", zeros=np.zeros((1000, 1000)))
    assert (tmp_path / "a.npz").stat().st_size < 20_000 and read_npz(tmp_path / "a.npz")["zeros"].shape == (1000, 1000)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_row_18_a_wrong_checksum(tmp_path: Path, method: int) -> None:
    path = zipped(tmp_path / "a.npz", {"a.npy": npy(SMALL["b"])}, method)
    data = path.read_bytes()
    for at in (14, row_of(data) + 16):  # in the header and in the table, so that they agree
        edited(path, at, b"\1\2\3\4")
    assert "checksum" in refused(read_npz, path) and "damaged" in refused(read_npz, path)


@pytest.mark.parametrize(
    "name", ["../a.npy", "/a.npy", "a/../../b.npy", "..\\a.npy", "C:a.npy", "a//b.npy", "a\nb.npy"]
)
def test_row_18_names_that_lead_elsewhere(tmp_path: Path, name: str) -> None:
    assert "expected a relative name" in refused(read_npz, zipped(tmp_path / "a.npz", {name: npy(1.0)}))


def test_row_18_an_entry_twice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("a.npy", npy(1.0))
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("a.npy", npy(2.0))
    assert "the name twice" in refused(read_npz, tmp_path / "a.npz")


def test_two_entries_on_the_same_bytes(tmp_path: Path) -> None:
    # The second row points into the first entry, which contains a header of its own: a bomb squared.
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as file:
        file.writestr("b.npy", npy(1.0))
    path = zipped(tmp_path / "a.npz", {"a.npy": inner.getvalue(), "b.npy": npy(1.0)})
    data = path.read_bytes()
    edited(path, data.rindex(archive.ROW) + 42, struct.pack("<L", 35))
    assert "bytes of its own" in refused(read_npz, path)


@pytest.mark.parametrize(
    ("offset", "new", "message"),
    [
        (8, b"\1\0", "not encrypted"),
        (10, b"\x0c\0", "stored (0) or deflated (8)"),
        (20, b"\1\0\0\0", "bytes stored of"),
        (42, b"\xff\xff\0\0", "header: found"),
        (42, b"\1\0\0\0", "no header"),
        (46, b"b", "a header that differs"),
        (16, b"1234", "a header that differs"),
    ],
)
def test_a_row_that_does_not_fit_its_entry(tmp_path: Path, offset: int, new: bytes, message: str) -> None:
    path = zipped(tmp_path / "a.npz", {"a.npy": npy(1.0)})
    assert message in refused(read_npz, edited(path, row_of(path.read_bytes()) + offset, new))


def test_ends_that_are_none(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.npz", {"a.npy": npy(1.0)})
    data = path.read_bytes()
    for broken, message in [
        (data + b"\0", "no end record"),
        (b"#!/bin/sh\n" + data, "that ends at"),
        (data[:-2] + b"\1\0", "a comment"),
        (data[:-14] + b"\2\0\2\0" + data[-10:], "2 entries"),
        (data[:-14] + b"\0\0\0\0" + data[-10:], "after its last row"),
        (data[:-18] + b"\1\0" + data[-16:], "several parts"),
    ]:
        path.write_bytes(broken)
        assert message in refused(read_npz, path)


def test_more_entries_than_any_net_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "a.npz", {f"{i}.npy": npy(1.0) for i in range(4)})
    monkeypatch.setattr(archive, "MAX_ENTRIES", 3)
    assert "4 entries" in refused(read_npz, path)
    monkeypatch.setattr(archive, "MAX_ENTRIES", 4)
    monkeypatch.setattr(limits, "MAX_TENSORS", 3)
    assert "more than 3 arrays" in refused(read_npz, path)


# ----------------------------------------------------------------------------------------- row 19: arrays that are none

HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n"


def test_row_19_an_array_of_objects_is_not_looked_into(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.npz", {"a.npy": npy(np.array([{}, None]), allow_pickle=True)})
    assert "'|O'" in refused(read_npz, path)


@pytest.mark.parametrize("shape", ["(1000000000000000,)", "(1000000, 1000000, 1000)", "(0, 999999999999999999, 99999)"])
def test_row_19_a_header_of_many_elements(tmp_path: Path, shape: str) -> None:
    path = zipped(tmp_path / "a.npz", {"a.npy": npy_with(HEADER.replace("(2,)", shape), bytes(8))})
    with at_most(MEGABYTE):
        refused(read_npz, path)


def test_row_19_no_elements_of_a_size_that_nobody_can_multiply(tmp_path: Path) -> None:
    header = HEADER.replace("(2,)", "(0, 999999999999999999, 99999)")
    assert "can be counted" in refused(read_npz, zipped(tmp_path / "a.npz", {"a.npy": npy_with(header)}))
    assert limits.nbytes_of(tmp_path, "w", (3, 0), np.dtype("f4")) == 0
    for sizes in [(-1, 3), (2.0,), (True,), (1,) * 33]:
        with pytest.raises(FormatError, match="at most 32 sizes of at least 0"):
            limits.nbytes_of(tmp_path, "w", sizes, np.dtype("f4"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        HEADER.replace("<f4", "<U7"),
        HEADER.replace("<f4", "<c8"),
        HEADER.replace("<f4", "|V8"),
        HEADER.replace("<f4", "<f3"),
        HEADER.replace("<f4", "<f16"),
        HEADER.replace("<f4", "<M8"),
        HEADER.replace("'<f4'", "[('a', '<f4')]"),
        HEADER.replace("(2,)", "(-2,)"),
        HEADER.replace("(2,)", "(2,,)"),
        HEADER.replace("(2,)", "(1 2,)"),
        HEADER.replace("(2,)", "(" + "1, " * 40 + ")"),
        HEADER.replace("(2,)", "(3,)"),
        HEADER.replace("(2,)", "__import__('os').system('true')"),
        HEADER.replace("False", "1"),
        "(" * 1000,
        HEADER + " " * 5000,
        "",
    ],
)
def test_a_header_that_numpy_would_not_write_for_numbers(tmp_path: Path, text: str) -> None:
    refused(read_npz, zipped(tmp_path / "a.npz", {"a.npy": npy_with(text, bytes(8))}))
    assert read_npz(zipped(tmp_path / "b.npz", {"b.npy": npy_with(HEADER, bytes(8))}))["b"].tolist() == [0, 0]


def test_entries_that_are_no_arrays(tmp_path: Path) -> None:
    good = npy(SMALL["b"])
    for entries in (
        {"README.txt": good},
        {"a.npy": b"hello"},
        {"a.npy": b"\x93NUMPY\x07\x00" + good[8:]},
        {"a.npy": good[:-1]},
        {"a.npy": good + b"\0"},
        {".npy": good},
        {"a" * 600 + ".npy": good},
    ):
        refused(read_npz, zipped(tmp_path / "a.npz", entries))
    other = npy_with(HEADER.replace("<f4", "<f3"), bytes(16))  # NumPy has none of 3 bytes; an object has 8
    assert "found <f3" in refused(read_npz, zipped(tmp_path / "a.npz", {"a.npy": other}))
    bools = npy(np.array([True, False]))
    assert "neither 0 nor 1" in refused(read_npz, zipped(tmp_path / "a.npz", {"a.npy": bools[:-1] + b"\2"}))


# ------------------------------------------------------------------------------- row 23, and what no list of faults has


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_row_23_a_single_value_that_is_no_number(tmp_path: Path, dtype: str, value: float) -> None:
    weights = np.ones((3, 70_000), dtype)
    weights[2, -1] = value
    np.savez(tmp_path / "a.npz", fine=np.ones(3), bad=weights.T)
    assert "bad: found NaN or infinity" in refused(read_npz, tmp_path / "a.npz")
    found = read_npz(tmp_path / "a.npz", allow_nonfinite=True)
    np.testing.assert_array_equal(found["bad"], weights.T)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_truncation_is_refused_and_every_flip_refused_or_the_same(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "a.npz"
    small = {"b": SMALL["b"]}
    save(path, **small)
    data = path.read_bytes()
    assert {survives(read_npz, path, part) is None for part in truncations(data)} == {True}
    found = [survives(read_npz, path, flipped) for flipped in flips(data)]
    assert all(each in (None, content(small)) for each in found)
    assert found.count(None) > 0.8 * len(found)  # dates and the like are not checked


def test_random_edits_are_refused_or_valid(tmp_path: Path, rng: np.random.Generator) -> None:
    path = zipped(tmp_path / "a.npz", {"a.npy": npy(SMALL["b"]), "b.npy": npy_with(HEADER, bytes(8))})
    data = path.read_bytes()
    with at_most(50 * MEGABYTE):
        found = [survives(read_npz, path, mutated) for mutated in mutations(rng, data, count=300)]
    assert None in found
    # Inside an array, where no checksum stands guard.
    text = npy(SMALL["b"])
    outcomes = set()
    for mutated in mutations(rng, text, count=500):
        try:
            npz.read_npy(path, "a", memoryview(mutated))
        except FormatError as error:
            outcomes.add(str(error).split(": ")[2][:12])
    assert len(outcomes) >= 4


def test_what_is_no_file_at_all(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.npz"):
        with pytest.raises(UsageError, match="expected a file of weights"):
            read_npz(path)
    (tmp_path / "empty.npz").touch()
    assert "0 bytes" in refused(read_npz, tmp_path / "empty.npz")
