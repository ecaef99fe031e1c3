"""Checkpoints against what happens to files: full disks, truncation, flipped bits, forgery."""

import errno
import json
import os
import re
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_cases import LARGE, META, SMALL, disk_almost_full, fail, refused, same

from minifcn.errors import FormatError, ShapeError, UsageError
from minifcn.formats import checkpoint
from minifcn.formats.checkpoint import load_checkpoint, read_meta, save_checkpoint


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    save_checkpoint(path, SMALL, META)
    return path


def forged(path: Path, header: Any, body: bytes = b"") -> Path:
    """A file with this header (bytes, or JSON), with a valid digest, as an attacker would write it."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return signed(path, len(text).to_bytes(8, "little") + text + body)


def signed(path: Path, data: bytes) -> Path:
    at = data.find(checkpoint._DIGEST_KEY) + len(checkpoint._DIGEST_KEY)
    path.write_bytes(data[:at] + checkpoint._digest(data, at).encode() + data[at + 64 :])
    return path


def header_with(tensors: dict[str, Any], /, **changed: Any) -> dict[str, Any]:
    record = {"file_sha256": "0" * 64, "format_version": 1, "tensors": dict.fromkeys(tensors, ""), "meta": {}} | changed
    return {"__metadata__": {"minifcn": json.dumps(record, separators=(",", ":"))}} | tensors


# ------------------------------------------------------------------------------------------------------- round trips


def test_what_is_saved_is_loaded(small: Path) -> None:
    tensors, meta = load_checkpoint(small)
    assert same(tensors, SMALL) and list(tensors) == list(SMALL)
    assert meta == META == read_meta(small)
    tensors["score_fr.w"][0, 0] = 9  # they are arrays of one's own to train on


def test_a_generator_goes_on_from_its_saved_state(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    generator.random(5)
    save_checkpoint(tmp_path / "rng.safetensors", {}, {"rng": generator.bit_generator.state})
    other = np.random.default_rng(0)
    other.bit_generator.state = load_checkpoint(tmp_path / "rng.safetensors")[1]["rng"]
    assert np.array_equal(generator.random(9), other.random(9))


@pytest.mark.parametrize(
    "dtype",
    ["?", "i1", "<i2", "<i4", "<i8", "u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8", ">i4", ">f2", ">f4", ">f8"],
)
def test_any_layout_and_byte_order_comes_back_exactly(tmp_path: Path, rng: np.random.Generator, dtype: str) -> None:
    """Row 24. The library alone writes most of these wrong."""
    base = (rng.standard_normal((4, 5, 6)) * 50).astype(dtype)
    tensors = {
        "C order": base,
        "Fortran order": np.asfortranarray(base),
        "transposed": base.transpose(2, 0, 1),
        "strided": base[::2, ::-1, 1::3],
        "broadcast": np.broadcast_to(base[:, :1], base.shape),
        "one element": base[1:2, 1:2, 1:2],
        "scalar": np.array(base[0, 0, 0]),
        "empty": base[:0],
    }
    path = tmp_path / "layouts.safetensors"
    save_checkpoint(path, tensors, {})
    loaded = load_checkpoint(path)[0]
    assert same(loaded, tensors)
    assert all(loaded[name].dtype == np.dtype(dtype).newbyteorder("<") for name in tensors)


def test_every_bit_of_nan_and_infinity_is_kept(tmp_path: Path) -> None:
    odd = np.array([0x7FC00001, 0x7F800000, 0xFF800000, 0x80000000, 1], np.uint32).view(np.float32)
    save_checkpoint(tmp_path / "odd.safetensors", {"odd": odd}, {})
    tensors, _ = load_checkpoint(tmp_path / "odd.safetensors", allow_nonfinite=True)
    assert tensors["odd"].tobytes() == odd.tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, value: float, dtype: str) -> None:
    """Row 23, as in the files of others."""
    broken = np.zeros(100_000, dtype)
    broken[-1] = value
    save_checkpoint(tmp_path / "x.safetensors", {"good": np.zeros(3), "broken": broken}, {})
    message = refused(FormatError, load_checkpoint, tmp_path / "x.safetensors")
    assert "broken: found NaN or infinity, expected finite weights; use an earlier checkpoint" in message


def test_the_same_content_gives_the_same_bytes_and_other_tools_can_read_them(small: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    other_byte_order = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in SMALL.items()}
    for tensors in (SMALL, other_byte_order):
        save_checkpoint(tmp_path / "again.safetensors", tensors, META)
        assert small.read_bytes() == (tmp_path / "again.safetensors").read_bytes()
    assert same(load_file(small), SMALL)


@pytest.mark.parametrize(
    ("tensors", "found"),
    [
        ({"w": [1.0]}, "list"),
        ({"w": np.float32(1)}, "float32"),
        ({"w": np.array(["a"])}, "<U1"),
        ({"w": np.array([object()])}, "object"),
        ({"w": np.zeros(2, complex)}, "complex128"),
        ({"__metadata__": np.zeros(2)}, "__metadata__"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(tmp_path: Path, tensors: dict[str, Any], found: str) -> None:
    assert found in refused(ShapeError, save_checkpoint, tmp_path / "x.safetensors", tensors, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "meta",
    [
        *({"x": np.float32(1)}, {"x": {1: 0, "1": 0}}, {"x": "x" * (checkpoint.MAX_HEADER + 1)}),
        *({"x": float("nan")}, {"x": [-float("inf")]}, {"x": 10**400}),
    ],
)
def test_meta_that_would_not_come_back_is_refused(tmp_path: Path, meta: dict[str, Any]) -> None:
    assert "meta: found" in refused(UsageError, save_checkpoint, tmp_path / "x.safetensors", SMALL, meta)
    assert not list(tmp_path.iterdir())


# -------------------------------------------------------------------------------------------- row 2: dying while saving


def test_a_full_disk_leaves_the_old_file(small: Path) -> None:
    """Row 2."""
    with disk_almost_full():
        message = refused(UsageError, save_checkpoint, small, LARGE, {})
    assert str(small) in message and os.strerror(errno.EFBIG) in message and "free some space" in message
    assert same(load_checkpoint(small)[0], SMALL)
    assert os.listdir(small.parent) == [small.name]


def interrupt(*_: Any) -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize(("trouble", "raised"), [(fail, UsageError), (interrupt, KeyboardInterrupt)])
def test_trouble_at_any_call_leaves_the_old_file(
    small: Path, monkeypatch: pytest.MonkeyPatch, call: str, trouble: Callable[..., None], raised: type[BaseException]
) -> None:
    """Rows 2 and 13. A disk may say only at fsync that it is full; Ctrl-C may come in the middle."""
    monkeypatch.setattr(os, call, trouble)
    with pytest.raises(raised):
        save_checkpoint(small, LARGE, {})
    assert same(load_checkpoint(small)[0], SMALL)
    assert os.listdir(small.parent) == [small.name]


def test_the_bytes_are_on_the_disk_before_the_name_and_the_name_before_we_go_on(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        calls.append("fsync folder" if stat.S_ISDIR(status.st_mode) else f"fsync {status.st_size} bytes")
        fsync(descriptor)

    def noted_replace(source: Path, target: Path) -> None:
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    save_checkpoint(small, LARGE, {})
    assert calls == [f"fsync {small.stat().st_size} bytes", "rename", "fsync folder"]


# ------------------------------------------------------------------------------------ rows 4, 5: the bytes have changed


def test_every_truncation_is_refused(small: Path) -> None:
    """Row 4."""
    data = small.read_bytes()
    assert len(data) < 1500
    for length in range(len(data)):
        small.write_bytes(data[:length])
        assert str(small) in refused(FormatError, load_checkpoint, small)
    small.write_bytes(data + b"\0")
    refused(FormatError, load_checkpoint, small)


@pytest.mark.slow("each bit of a file: thousands of readings")
def test_every_flipped_bit_is_refused(small: Path) -> None:
    """Row 5."""
    data = small.read_bytes()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        small.write_bytes(flipped)
        assert str(small) in refused(FormatError, load_checkpoint, small), f"bit {bit} of {8 * len(data)}"


def test_the_damaged_tensor_is_named(small: Path) -> None:
    data = small.read_bytes()
    last_of = {"score_fr.b": len(data) - 25, "score_fr.w": len(data) - 1}  # float64 comes before float32
    for name, at in last_of.items():
        small.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        message = refused(FormatError, load_checkpoint, small)
        assert f"1 tensor ({name}) is damaged" in message
        assert re.search("found sha256 [0-9a-f]{12} .* expected [0-9a-f]{12}", message)
    small.write_bytes(data.replace(b"mean_iu", b"mean_iv"))
    assert "the header is damaged" in refused(FormatError, load_checkpoint, small)


# ---------------------------------------------------------------------------------------------------- hostile files

ONE = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}


def test_the_forger_makes_files_that_load(tmp_path: Path) -> None:
    tensors, _ = load_checkpoint(forged(tmp_path / "x.safetensors", header_with(ONE), b"\0" * 4))
    assert same(tensors, {"w": np.zeros(1, np.float32)})


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "found 0 bytes"),
        (b"1234567", "found 7 bytes"),
        ((2**40).to_bytes(8, "little") + b"{}", f"found {2**40} bytes, expected at most 2"),
        (b"\xff" * 100, "header length"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "header length"),
        ((2).to_bytes(8, "little") + b"{}", "file_sha256: found none"),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    for read in (load_checkpoint, read_meta) if "sha256" not in says else (load_checkpoint,):
        message = refused(FormatError, read, path)
        assert str(path) in message and says in message


@pytest.mark.parametrize(
    ("header", "body", "says"),
    [
        (header_with(ONE, format_version=True), b"\0" * 4, "format_version True"),
        (header_with(ONE, format_version="1"), b"\0" * 4, "format_version"),
        (header_with(ONE, meta=[]), b"\0" * 4, "meta: found list"),
        (header_with(ONE, tensors=None), b"\0" * 4, "tensors: found NoneType"),
        (header_with(ONE, tensors={"v": ""}), b"\0" * 4, "other names than the record lists"),
        (header_with(ONE), b"\0" * 5, "data: found 5 bytes, expected the 4"),
        (header_with(ONE), b"\0" * 3, "w: data_offsets: found [0, 4]"),
        (header_with({"w": ONE["w"] | {"dtype": "BF16", "data_offsets": [0, 2]}}), b"\0" * 2, "BF16"),
        (header_with({"w": ONE["w"] | {"shape": [-1]}}), b"\0" * 4, "w: shape: found (-1,)"),
        (header_with({"w": ONE["w"] | {"shape": [2]}}), b"\0" * 4, "found [0, 4], expected 8 bytes"),
        (header_with({"w": ONE["w"] | {"shape": [0, 2**62], "data_offsets": [0, 0]}}), b"", "w: shape: found (0, 46"),
        (header_with({"w": ONE["w"], "v": ONE["w"]}), b"\0" * 4, "found [0, 4], expected one that begins at 4"),
        (
            json.dumps(header_with(ONE), separators=(",", ":")).encode()[:-1] + b',"w":{}}',
            b"\0" * 4,
            "a key twice",
        ),
        (b"[" * 100_000 + checkpoint._DIGEST_KEY + b"0" * 64, b"", "header: found"),
        (b"\xff" + checkpoint._DIGEST_KEY + b"0" * 64, b"", "header: found"),
    ],
)
def test_a_forgery_with_a_right_digest_is_refused(tmp_path: Path, header: Any, body: bytes, says: str) -> None:
    path = forged(tmp_path / "x.safetensors", header, body)
    message = refused(FormatError, load_checkpoint, path)
    assert str(path) in message and says in message and len(message) < 600


@pytest.mark.slow("hundreds of damaged files are read")
def test_random_changes_under_a_right_digest_load_or_are_refused(
    small: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    data, loaded = small.read_bytes(), 0
    for _ in range(2000):
        changed = bytearray(data)
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(changed)))
            if rng.random() < 0.5:
                changed[at] = rng.integers(256)
            else:
                changed[at : at + int(rng.integers(9))] = rng.bytes(rng.integers(9))
        try:
            tensors, meta = load_checkpoint(signed(tmp_path / "x.safetensors", bytes(changed)))
        except FormatError as error:
            assert str(error).isprintable()
        else:
            loaded += 1
            assert isinstance(meta, dict) and all(isinstance(x, np.ndarray) for x in tensors.values())
    assert 0 < loaded < 1500


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "found no file" in refused(UsageError, load_checkpoint, tmp_path / "missing.safetensors")
    assert "no file" in refused(UsageError, load_checkpoint, tmp_path)
    assert "no file" in refused(UsageError, read_meta, tmp_path / "pipe")


# ------------------------------------------------------------------------------------------- row 10: an older format


@pytest.mark.parametrize("version", [0, -1])
def test_an_older_format_is_refused(small: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    """Row 10."""
    with monkeypatch.context() as older:
        older.setattr(checkpoint, "FORMAT_VERSION", version)
        save_checkpoint(small, SMALL, META)
    assert f"format version: found {version}, expected 1" in refused(FormatError, load_checkpoint, small)
