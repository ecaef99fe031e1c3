"""Checkpoints against what happens to files: kills, full disks, truncation, flipped bits, forgery, a second process."""

import contextlib
import errno
import json
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minifcn.errors import FormatError, MinifcnError, ShapeError, UsageError
from minifcn.formats import checkpoint
from minifcn.formats.checkpoint import (
    RunFolder,
    best_path,
    load_best,
    load_checkpoint,
    load_latest,
    read_meta,
    save_checkpoint,
    step_path,
)

SMALL = {"score_fr.w": np.arange(6, dtype=np.float32).reshape(2, 3), "score_fr.b": np.array([0.5, -1.0])}
META = {
    "step": 7,
    "rng": np.random.default_rng(0).bit_generator.state,
    "metrics": [{"mean_iu": 0.25, "iu": [0.5, None]}],
}


def refused(kind: type[MinifcnError], call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """The message of the refusal, which has to be one line."""
    with pytest.raises(kind) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert message.isprintable(), repr(message)
    return message


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    def content(tensors: dict[str, np.ndarray]) -> dict[str, Any]:
        return {
            name: (x.dtype.newbyteorder("<"), x.shape, x.astype(x.dtype.newbyteorder("<")).tobytes())
            for name, x in tensors.items()
        }

    return content(a) == content(b)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    save_checkpoint(path, SMALL, META)
    return path


def forged(path: Path, header: Any, body: bytes = b"") -> Path:
    """A file with this header (bytes, or JSON), whose digest is right: somebody meant it."""
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
    save_checkpoint(tmp_path / "odd.safetensors", {"odd": odd}, {"loss": float("nan")})
    tensors, meta = load_checkpoint(tmp_path / "odd.safetensors")
    assert tensors["odd"].tobytes() == odd.tobytes() and meta["loss"] != meta["loss"]


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
    "meta", [{"x": np.float32(1)}, {"x": {1: 0, "1": 0}}, {"x": "x" * (checkpoint.MAX_HEADER + 1)}]
)
def test_meta_that_would_not_come_back_is_refused(tmp_path: Path, meta: dict[str, Any]) -> None:
    assert "meta: found" in refused(UsageError, save_checkpoint, tmp_path / "x.safetensors", SMALL, meta)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------- rows 1, 2: dying while saving

# Saves in a loop and is killed after a moment, again and again; counts what is then in the folder. It forks the process
# that saves, so that each of the kills costs milliseconds and not the start of an interpreter.
KILLS = """
import json, os, random, signal, sys, time
import numpy as np
from minifcn.formats import checkpoint

folder, way, kills = sys.argv[1], sys.argv[2], int(sys.argv[3])

def write_in_place(path, pieces):
    with open(path, "wb") as file:
        for piece in pieces:
            for start in range(0, len(piece), 4096):
                file.write(piece[start : start + 4096])

def save_forever(ready):
    if way == "in place":
        checkpoint.replace_file = write_in_place
    with checkpoint.RunFolder(folder, warn=lambda sentence: None) as run:
        os.write(ready, b"!")
        latest = run.latest()
        step = latest.meta["step"] if latest else 0
        while True:
            step += 1
            run.save(step, {"w": np.full(50_000, step, np.float32)}, {"step": step})

def look():
    try:
        latest = checkpoint.load_latest(folder, warn=lambda sentence: None)
    except checkpoint.FormatError:
        return "damaged"
    if latest is None:
        return "none"
    if latest.skipped:
        return "damaged"
    return "good" if (latest.tensors["w"] == latest.meta["step"]).all() else "mixed"

seen = {"good": 0, "damaged": 0, "mixed": 0, "none": 0}
delays = random.Random(0)
checkpoint.RunFolder(folder).save(0, {"w": np.zeros(50_000, np.float32)}, {"step": 0})
for _ in range(kills):
    came, ready = os.pipe()
    child = os.fork()
    if child == 0:
        save_forever(ready)
    os.read(came, 1)
    time.sleep(delays.uniform(0.0, 0.02))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(came), os.close(ready)
    seen[look()] += 1
    if way == "in place" and seen["damaged"]:
        break
print(json.dumps(seen))
"""


def kills(folder: Path, way: str, count: int) -> dict[str, int]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    arguments = [sys.executable, "-c", KILLS, str(folder), way, str(count)]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_no_kill_leaves_an_unreadable_checkpoint(tmp_path: Path) -> None:
    """Row 1. Every child goes on from what the one before it left."""
    assert kills(tmp_path / "run", "safely", 50) == {"good": 50, "damaged": 0, "mixed": 0, "none": 0}


def test_the_same_kills_do_damage_a_file_written_in_place(tmp_path: Path) -> None:
    """Without this, the test above could pass because no kill ever hit a write."""
    assert kills(tmp_path / "run", "in place", 400)["damaged"] == 1


@contextlib.contextmanager
def disk_almost_full() -> Iterator[None]:
    """No file may grow beyond 4 kB: Python ignores the signal, and the write fails as it does on a full disk.

    Only around the call under test: the limit holds for the whole process, the log of the tests included.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


LARGE = {"w": np.ones(5000)}


def test_a_full_disk_leaves_the_old_file(small: Path) -> None:
    """Row 2."""
    with disk_almost_full():
        message = refused(UsageError, save_checkpoint, small, LARGE, {})
    assert str(small) in message and os.strerror(errno.EFBIG) in message and "free some space" in message
    assert same(load_checkpoint(small)[0], SMALL)
    assert os.listdir(small.parent) == [small.name]


def test_a_full_disk_leaves_every_checkpoint_of_the_run(tmp_path: Path) -> None:
    """Row 2."""
    with RunFolder(tmp_path / "run") as run:
        for step in (1, 2):
            run.save(step, SMALL, META, best=step == 1)
        with disk_almost_full():
            message = refused(UsageError, run.save, 3, LARGE, {}, best=True)
        assert str(step_path(run.path, 3)) in message
        assert sorted(os.listdir(tmp_path / "run/checkpoints")) == [
            best_path("").name,
            step_path("", 1).name,
            step_path("", 2).name,
        ]
        latest = run.latest()
        assert latest and latest.path == step_path(run.path, 2) and not latest.skipped


def fail(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


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


def test_what_a_killed_process_left_unfinished_is_ignored_and_removed(tmp_path: Path) -> None:
    """Row 3."""
    with RunFolder(tmp_path / "run") as run:
        run.save(1, SMALL, META)
        stale = step_path(run.path, 2).with_name(step_path(run.path, 2).name + ".tmp")
        stale.write_bytes(b"half of it")
        latest = run.latest()
        assert latest and latest.path == step_path(run.path, 1) and not latest.skipped
        run.save(3, SMALL, META)
        assert not stale.exists()
        stale.write_bytes(b"half of it")
    with RunFolder(tmp_path / "run"):
        assert not stale.exists()


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
        (json.dumps(header_with(ONE), separators=(",", ":")).encode()[:-1] + b',"w":{}}', b"\0" * 4, "a key twice"),
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


# ------------------------------------------------------------------------------- row 6: falling back to an earlier one


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_the_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        assert run.latest() is None
        for step in (5, 10, 99_999_999, 100_000_000):
            assert run.save(step, SMALL, {"step": step}, best=step == 5) == step_path(run.path, step)
    kept = {path.name for path in (tmp_path / "run/checkpoints").iterdir()}
    assert kept == {"best.safetensors", "step-99999999.safetensors", "step-100000000.safetensors"}
    latest, best = load_latest(tmp_path / "run"), load_best(tmp_path / "run")
    assert latest and latest.meta["step"] == 100_000_000
    assert best and best.meta["step"] == 5 and best.path == best_path(tmp_path / "run")


def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path: Path) -> None:
    """Row 6."""
    said: list[str] = []
    with RunFolder(tmp_path / "run", warn=said.append) as run:
        for step in (1, 2, 3):
            run.save(step, SMALL, {"step": step}, best=step == 1)
        for damaged, left in ((3, 2), (2, 1)):
            damage(step_path(run.path, damaged))
            said.clear()
            latest = run.latest()
            assert latest and latest.meta["step"] == left and same(latest.tensors, SMALL)
            assert len(said) == 1 and step_path(run.path, 3).name in said[0] and f"from {latest.path.name}" in said[0]
            assert len(latest.skipped) == 4 - damaged and str(step_path(run.path, damaged)) in latest.skipped[-1]
        damage(best_path(run.path))
        assert "none of the 3 here is good" in refused(FormatError, run.latest)


def test_the_best_falls_back_to_the_latest(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        for step in (1, 2):
            run.save(step, SMALL, {"step": step}, best=True)
    damage(best_path(tmp_path / "run"))
    said: list[str] = []
    best = load_best(tmp_path / "run", warn=said.append)
    assert best and best.path == step_path(tmp_path / "run", 2) and len(said) == 1


def test_going_back_leaves_the_abandoned_steps_behind(tmp_path: Path) -> None:
    """Step 300 is damaged; the run goes on from 200 and must neither lose 200 at 250 nor find 300 again."""
    with RunFolder(tmp_path / "run", warn=lambda sentence: None) as run:
        for step in (200, 300):
            run.save(step, SMALL, {"step": step})
        damage(step_path(run.path, 300))
        assert run.latest().meta["step"] == 200  # type: ignore[union-attr]
        run.save(250, SMALL, {"step": 250})
        assert sorted(os.listdir(run.path / "checkpoints")) == [step_path("", 200).name, step_path("", 250).name]


# ------------------------------------------------------------------------------------------- row 10: a newer format


@pytest.fixture
def newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = step_path(tmp_path / "run", 2)
    with RunFolder(tmp_path / "run") as run:
        run.save(1, SMALL, META)
        monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 2)
        run.save(2, SMALL, META)
        monkeypatch.undo()
    return path


def test_a_newer_format_is_refused_with_its_version(newer: Path) -> None:
    """Row 10. Falling back instead would end in deleting what the newer minifcn wrote."""
    for read in (load_checkpoint, read_meta):
        message = refused(FormatError, read, newer)
        assert str(newer) in message and "format version: found 2, expected 1" in message and "update" in message
    assert "found 2" in refused(FormatError, load_latest, newer.parents[1])


def test_a_newer_format_that_is_damaged_too_is_a_damaged_one(newer: Path) -> None:
    damage(newer)
    said: list[str] = []
    latest = load_latest(newer.parents[1], warn=said.append)
    assert latest and latest.path == step_path(newer.parents[1], 1)
    assert "damaged" in said[0] and "format version: found 2" in said[0]


@pytest.mark.parametrize("version", [0, -1])
def test_an_older_format_is_refused(small: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    """Row 10."""
    with monkeypatch.context() as older:
        older.setattr(checkpoint, "FORMAT_VERSION", version)
        save_checkpoint(small, SMALL, META)
    assert f"format version: found {version}, expected 1" in refused(FormatError, load_checkpoint, small)


# --------------------------------------------------------------------------------------------------- row 11: the lock

HOLD = """
import sys, time
from minifcn.formats.checkpoint import RunFolder
with RunFolder(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_a_killed_one_is_succeeded(tmp_path: Path) -> None:
    """Row 11."""
    folder, said = tmp_path / "run", []
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout and other.stdout.readline() == "held\n"
            message = refused(UsageError, RunFolder, folder)
            assert re.search(rf"{re.escape(str(folder))}.*in use by process {other.pid}, started \d{{4}}-", message)
        finally:
            other.kill()
    with RunFolder(folder, warn=said.append) as run:
        assert len(said) == 1 and f"process {other.pid}" in said[0] and "taken over" in said[0]
        assert f"process {os.getpid()}" in refused(UsageError, RunFolder, folder)
        run.save(1, SMALL, META)  # the refused one has not spoilt the lock of this one
        assert f"process {os.getpid()}" in refused(UsageError, RunFolder, folder)
    with RunFolder(folder, warn=said.append):
        assert len(said) == 1  # a run that ended in order leaves nothing to take over


def test_the_lock_file_of_somebody_else_is_only_text(tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(b"\xff\x1b[2J\nrm -rf" * 1000)
    said: list[str] = []
    with RunFolder(tmp_path, warn=said.append):
        assert said[0].isprintable() and len(said[0]) < 500


def test_a_failed_start_gives_the_lock_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        full.setattr(os, "replace", fail)
        refused(UsageError, RunFolder, tmp_path / "run")
    RunFolder(tmp_path / "run").close()


def test_a_system_without_flock_says_that_it_does_not_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)
    said: list[str] = []
    with RunFolder(tmp_path / "run", warn=said.append) as run:
        run.save(1, SMALL, META)
    assert len(said) == 1 and "no flock" in said[0]


# ------------------------------------------------------------------------------ row 12: known before the first step


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of a user who is not root, and who we are meanwhile: root may write anywhere."""
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    except OSError as error:
        pytest.skip(f"runs as root and cannot be another user: {error}")
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("read_only", ["run", "run/checkpoints"])
def test_a_folder_that_cannot_be_written_is_known_at_once(unprivileged: Path, read_only: str) -> None:
    """Row 12."""
    run = unprivileged / "run"
    (run / "checkpoints").mkdir(parents=True)
    (unprivileged / read_only).chmod(0o555)
    message = refused(UsageError, RunFolder, run)
    assert str(run) in message and os.strerror(errno.EACCES) in message and "choose a folder" in message
    (unprivileged / read_only).chmod(0o755)
    RunFolder(run).close()


def test_a_folder_that_is_missing_or_no_folder_is_known_at_once(tmp_path: Path) -> None:
    """Row 12."""
    assert "no such folder" in refused(UsageError, RunFolder, tmp_path / "gone", create=False)
    (tmp_path / "file").write_text("a file")
    assert str(tmp_path / "file/run") in refused(UsageError, RunFolder, tmp_path / "file/run")
    assert str(tmp_path / "file") in refused(UsageError, RunFolder, tmp_path / "file")
    RunFolder(tmp_path / "new" / "run").close()
    RunFolder(tmp_path / "new" / "run", create=False).close()


def test_a_full_disk_is_known_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", fail)
    assert os.strerror(errno.ENOSPC) in refused(UsageError, RunFolder, tmp_path / "run")


def test_a_folder_that_vanishes_under_the_run_is_one_sentence(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        (tmp_path / "run").rename(tmp_path / "elsewhere")
        message = refused(UsageError, run.save, 1, SMALL, META)
        assert str(step_path(run.path, 1)) in message and os.strerror(errno.ENOENT) in message


def test_what_cannot_be_removed_is_one_sentence(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as run:
        (tmp_path / "run/checkpoints/odd.tmp").mkdir()
        assert str(step_path(run.path, 1)) in refused(UsageError, run.save, 1, SMALL, META)
    assert str(tmp_path / "run") in refused(UsageError, RunFolder, tmp_path / "run")
