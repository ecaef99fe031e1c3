"""Fuzz every reader of files: `python tests/fuzz.py --executions 200000 --seed 1`.

Each reader gets small files that this script makes, changed at random, and has to return valid values or raise a
`FormatError`, `DataError` or `UsageError` of one printable line, in less than a second and 50 MB. Everything else is a
finding, and its file is kept in build/fuzz. Checksums and digests are made right again after a change, so that it
reaches what lies behind them.

With `pip install atheris` the changes are led by the lines they reach; without it they are blind. Every reader runs in
a process of its own: a crash or a hang of a C library ends that one, is counted, and a new process goes on. The result
is a table of one row per reader, and the exit code is 1 if there is a finding.
"""

import argparse
import contextlib
import hashlib
import io
import json
import math
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from formats.test_weights_caffe import net as caffe_net
from formats.test_weights_torch import state, tensor, write_legacy, write_zip
from hostile_files import MEGABYTE

try:
    import atheris
except ImportError:
    atheris = None
# without `instrument_imports` atheris sees no line; in the parent it would only cost time
with atheris.instrument_imports(include=["minifcn"]) if atheris and "--only" in sys.argv else contextlib.nullcontext():
    from minifcn.cli.verbs import main as command
    from minifcn.data.files import read_depth, read_image, read_mask
    from minifcn.data.listed import read_lines, read_matlab
    from minifcn.data.pascal_context import IN_LABELS, TAUGHT, _class_of
    from minifcn.data.tools.mapping import read_map
    from minifcn.data.tools.raw import read_png_mask
    from minifcn.data.tools.unpack import unpack
    from minifcn.errors import DataError, FormatError, UsageError
    from minifcn.formats.archive import read_archive, unfold
    from minifcn.formats.caffemodel import read_caffemodel
    from minifcn.formats.checkpoint import load_checkpoint, pieces_of, read_meta
    from minifcn.formats.files import format_of, read
    from minifcn.formats.h5 import read_h5
    from minifcn.formats.limits import DTYPES, Collected, bytes_of
    from minifcn.formats.mat import read_mat
    from minifcn.formats.npz import read_npy, read_npz
    from minifcn.formats.prototxt import read_prototxt
    from minifcn.formats.safetensors import packed, read_safetensors
    from minifcn.formats.strict_json import parse_json
    from minifcn.formats.torch_legacy import read_torch_legacy
    from minifcn.formats.torch_zip import read_torch_zip
    from minifcn.training.options import Options, from_dict
    from minifcn.training.report import write_report
    from minifcn.training.run_folder import read_config
    from minifcn.training.runlog import records
    from minifcn.training.trained import open_trained
    from minifcn.weights.published import open_weights

SECONDS, BYTES, HANG = 1.0, 50 * MEGABYTE, 20  # seconds of processor time
REFUSALS = (FormatError, DataError, UsageError)
KEPT = Path("build/fuzz")
Seeds = Callable[[Path], list[bytes]]


def identity(data: bytes) -> bytes:
    """Return the bytes as they are: a format without checksums."""
    return data


@dataclass(frozen=True)
class Target:
    """One reader: the files it starts from, how it is called, and what repairs checksums after a change."""

    seeds: Seeds
    read: Callable[[Path], Any]
    sealed: Callable[[bytes], bytes] = identity
    needs: str = ""
    share: float = 1.0  # of the executions of the others


# ---------------------------------------------------------------------------------------------------- the small files

W, B = np.arange(6, dtype=np.float32).reshape(2, 3) - 2.5, np.array([0.5, -1.0])
ARRAYS = {"score_fr.w": W, "score_fr.b": B, "count": np.array(3)}


def saved(write: Callable[..., Any], *arguments: Any, **options: Any) -> bytes:
    """Return what `write(file, ...)` puts into a file."""
    file = io.BytesIO()
    write(file, *arguments, **options)
    return file.getvalue()


def torch_files(write: Callable[..., Path]) -> Seeds:
    words = state(conv1__weight=tensor(), conv1__bias=tensor(offset=2, shape=(3,), strides=(2,), numel=7, key="1"))
    return lambda folder: [write(folder / "seed", words, {"0": bytes(24), "1": bytes(28)}).read_bytes()]


def h5_files(folder: Path) -> list[bytes]:
    import h5py

    for name, options in (("a", {}), ("b", {"chunks": (1, 3), "compression": "gzip", "shuffle": True})):
        with h5py.File(folder / name, "w") as file:
            file.create_dataset("conv1/conv1/kernel:0", data=W, **options)
            file.create_dataset("conv1/conv1/bias:0", data=B)
    return [(folder / name).read_bytes() for name in "ab"]


def mat_files(folder: Path) -> list[bytes]:
    from scipy.io import savemat

    labels = {"S": np.eye(4, dtype=np.uint8), "GTcls": {"Segmentation": np.eye(3), "Boundaries": np.zeros(2)}}
    return [saved(savemat, each, do_compression=pack) for each in ({"w": W, "b": B}, labels) for pack in (True, False)]


def mat73_files(folder: Path) -> list[bytes]:
    import h5py

    with h5py.File(folder / "a.mat", "w", userblock_size=512) as file:
        file.create_dataset("w", data=W).attrs["MATLAB_class"] = np.bytes_("single")
    head = b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM"
    return [head.ljust(512, b"\0") + (folder / "a.mat").read_bytes()[512:]]


PROTOTXT = b"""name: "net"  # a comment
input: "data" input_dim: 1 input_dim: 3
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 64 kernel_size: 3 kernel_size: 5 bias_term: false weight_filler < std: 1e-2 > } }
layers { name: 'fc' type: INNER_PRODUCT inner_product_param { num_output: [10, 20]; } blobs_lr: 1. }
"""


def pictures(*kinds: str, modes: str = "RGB L P 1 RGBA LA CMYK I;16", size: tuple[int, int] = (9, 7)) -> Seeds:
    def made(folder: Path) -> list[bytes]:
        from PIL import Image

        found, base = [], Image.fromarray(np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(*size, 3))
        for kind in kinds:
            name, _, extra = kind.partition("+")
            for mode in modes.split():
                with contextlib.suppress(OSError, KeyError, ValueError):  # a mode that the format does not have
                    image = Image.new(mode, size, 2) if mode.startswith("I") else base.convert(mode)
                    exif = Image.Exif()
                    exif[274] = 6
                    options: dict[str, Any] = {"exif": exif, "progressive": True} if extra else {}
                    found.append(saved(image.save, name, **options))
        return found

    return made


def checkpoint_of(meta: dict[str, Any], tensors: dict[str, np.ndarray]) -> bytes:
    return b"".join(pieces_of(Path("seed"), tensors, meta))


def trained_files(folder: Path) -> list[bytes]:
    run = ["train", "--run", str(folder / "run"), "--max-train", "2", "--max-val", "1", "--steps", "1", "--samples"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        command([*run, "0", "--trunk", "squeezenet1.1", "--padding", "safe", "--width", "1", "--device", "cpu"])
    return [path.read_bytes() for path in sorted((folder / "run" / "checkpoints").glob("step*"))[-1:]]


def config_files(folder: Path) -> list[bytes]:
    whole = {"options": Options().as_dict(), "classes": ["a", "b"], "preprocessing": {}, "images": {}}
    return [json.dumps(each).encode() for each in (whole, {"options": {"lr": 0.1, "width": 8, "stages": "32,16,8"}})]


METRICS = b"""{"step": 10, "epoch": 1, "loss": 0.5, "lr": 0.1, "images_per_second": 3.5}
{"step": 20, "loss": null, "validation": {"mean_iu": 0.25, "iu": [0.5, null]}}
"""


EVALUATION = b"""{"classes": ["a", "b"], "confusion": [[3, 1], [0, 40]], "absent": "skip", "split": "val", "images": 9,
"mean_iu": 0.5, "baselines": {"chance": {"mean_iu": 0.1}}}
"""


def report_on(path: Path) -> None:
    """Write the report of a run folder whose log, configuration and evaluation are this one file."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        for name in ("metrics.jsonl", "config.json", "evaluation.json"):
            (Path(folder) / name).write_bytes(path.read_bytes())
        write_report(Path(folder))


def tar_files(folder: Path) -> list[bytes]:
    files = []
    for kind, form in (("w", tarfile.GNU_FORMAT), ("w", tarfile.PAX_FORMAT), ("w:gz", tarfile.USTAR_FORMAT)):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode=kind, format=form) as archive:
            for name, link in (("VOC/a.jpg", ""), ("VOC/" + "x" * 120, ""), ("VOC/link", "a.jpg")):
                member = tarfile.TarInfo(name[:99] if form == tarfile.USTAR_FORMAT else name)
                member.size, member.type, member.linkname = 0 if link else 5, b"2" if link else b"0", link
                archive.addfile(member, None if link else io.BytesIO(b"hello"))
        files.append(out.getvalue().rstrip(b"\0") + bytes(1024) if kind == "w" else out.getvalue())
    return files


def unpacked(path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        unpack(path, folder, max_bytes=2**20, max_members=100)


def options_in(path: Path) -> Options:
    try:
        return from_dict(parse_json(path.read_text(encoding="utf-8", errors="replace")), source=path)
    except ValueError as fault:
        raise FormatError(f"{path}: {fault!s:.100}") from fault


LISTS = [b"2007_000032\n2007_000039\n", "background\ncafé, table\n".encode()]
MAPS = [b"128 0 0 1\n0 0 0 0 black\n", b"7 1\n65535 255 void\n"]
LABELS = "".join(f"{i + 1}: {IN_LABELS.get(name, name)}\n" for i, name in enumerate(TAUGHT)).encode()


# --------------------------------------------------------------------------------------------------- checksums fixed


def png_sealed(data: bytes) -> bytes:
    """Return a PNG with the checksum of each chunk made right."""
    at, new = 8, bytearray(data)
    while at + 12 <= len(new):
        end = at + 8 + int.from_bytes(new[at : at + 4], "big")
        if end + 4 > len(new):
            break
        new[end : end + 4] = zlib.crc32(new[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(new)


def checkpoint_sealed(data: bytes) -> bytes:
    """Return a checkpoint with the length of its header and its digest made right, as far as both are there."""
    end = data.find(b"}", data.rfind(b'"data_offsets"')) + 2
    if end > 9 and end - 8 < 2**24:
        data = (end - 8).to_bytes(8, "little") + data[8:]
    return checkpoint_digested(data)


def checkpoint_digested(data: bytes) -> bytes:
    key = rb"\"file_sha256\":\""
    at = data.find(key) + len(key)
    if at < len(key) or at + 64 > len(data):
        return data
    return data[:at] + hashlib.sha256(data[:at] + data[at + 64 :]).hexdigest().encode() + data[at + 64 :]


def tar_sealed(data: bytes) -> bytes:
    """Return a tar with the checksum of each block that looks like a header made right."""
    new = bytearray(data)
    for at in range(0, len(new) - 511, 512):
        if new[at + 257 : at + 262] == b"ustar":
            new[at + 148 : at + 156] = b" " * 8
            new[at + 148 : at + 156] = b"%06o\0 " % sum(new[at : at + 512])
    return bytes(new)


def zip_sealed(data: bytes) -> bytes:
    """Return a zip whose table has the checksum of each stored entry, as has the header in front of it."""
    new = bytearray(data)
    for found in list(re.finditer(b"PK\x01\x02", data)):
        at = found.start()
        size, head = int.from_bytes(new[at + 20 : at + 24], "little"), int.from_bytes(new[at + 42 : at + 46], "little")
        if bytes(new[head : head + 4]) == b"PK\x03\x04" and int.from_bytes(new[at + 10 : at + 12], "little") == 0:
            names = sum(int.from_bytes(new[head + i : head + i + 2], "little") for i in (26, 28))
            crc = zlib.crc32(new[head + 30 + names : head + 30 + names + size]).to_bytes(4, "little")
            new[at + 16 : at + 20] = new[head + 14 : head + 18] = crc
    return bytes(new)


def zip_read(path: Path) -> None:
    for entry in read_archive(path, bytes_of(path)).values():
        unfold(path, entry)


def npy_read(path: Path) -> dict[str, np.ndarray]:
    found = Collected(path, room=BYTES, allow_nonfinite=False)
    found.add("a", read_npy(path, "a", bytes_of(path)))
    return found.arrays


TARGETS = {
    "safetensors": Target(lambda folder: [packed(ARRAYS, {"format": "pt"})], read_safetensors),
    "npz": Target(
        lambda folder: [saved(save, **ARRAYS) for save in (np.savez, np.savez_compressed)], read_npz, zip_sealed
    ),
    "npy": Target(lambda folder: [saved(np.save, W), saved(np.save, np.asfortranarray(W))], npy_read),
    "zip": Target(lambda folder: [saved(save, **ARRAYS) for save in (np.savez, np.savez_compressed)], zip_read),
    "torch zip": Target(torch_files(write_zip), read_torch_zip, zip_sealed),
    "torch legacy": Target(torch_files(write_legacy), read_torch_legacy),
    "caffemodel": Target(lambda folder: [caffe_net(), caffe_net(old=True)], read_caffemodel),
    "prototxt": Target(lambda folder: [PROTOTXT], read_prototxt),
    "h5": Target(h5_files, read_h5, needs="h5py"),
    "mat": Target(mat_files, read_mat, needs="scipy"),
    "mat 7.3": Target(mat73_files, read_mat, needs="h5py"),
    "mat labels": Target(
        mat_files, lambda path: read_matlab(path, "GTcls.Segmentation", least=0, most=20), needs="scipy"
    ),
    "any weights": Target(
        lambda folder: [
            packed(ARRAYS, {}),
            saved(np.savez, **ARRAYS),
            caffe_net(),
            PROTOTXT,
            *torch_files(write_zip)(folder),
        ],
        lambda path: open_weights(path) if format_of(path) == "safetensors" else read(path),
    ),
    "checkpoint": Target(lambda folder: [checkpoint_of({"step": 7}, ARRAYS)], load_checkpoint, checkpoint_sealed),
    "checkpoint meta": Target(lambda folder: [checkpoint_of({"step": 7}, ARRAYS)], read_meta),
    "trained net": Target(trained_files, open_trained, checkpoint_sealed),
    "config.json": Target(config_files, read_config),
    "options": Target(lambda folder: [json.dumps(Options().as_dict()).encode(), b'{"lr": 1}'], options_in),
    "metrics.jsonl": Target(lambda folder: [METRICS], lambda path: list(records(path))),
    "report": Target(
        lambda folder: [METRICS, EVALUATION, *config_files(folder)], report_on, needs="matplotlib", share=0.05
    ),
    "image png": Target(pictures("PNG"), read_image, png_sealed),
    "image jpeg": Target(pictures("JPEG", "JPEG+exif"), read_image),
    "image ppm": Target(pictures("PPM"), read_image),
    "image gif bmp": Target(pictures("GIF", "BMP"), read_image),
    "image webp": Target(pictures("WEBP"), read_image),
    "mask": Target(pictures("PNG", modes="P L 1 I;16 RGB"), lambda path: read_mask(path, classes=200), png_sealed),
    "mask to correct": Target(pictures("PNG"), read_png_mask, png_sealed),
    "depth": Target(pictures("PNG", modes="I;16"), lambda path: read_depth(path, per_metre=1000), png_sealed),
    "list": Target(lambda folder: LISTS, read_lines),
    "id list": Target(lambda folder: LISTS[:1], lambda path: read_lines(path, ids=True)),
    "mapping": Target(lambda folder: MAPS, read_map),
    "labels.txt": Target(lambda folder: [LABELS], _class_of),
    "tar": Target(tar_files, unpacked, tar_sealed),
}


# -------------------------------------------------------------------------------------------------------- the changes

NUMBERS = [
    b"0",
    b"-1",
    b"1e999",
    b"NaN",
    b"null",
    b"[]",
    b"{}",
    b"9" * 400,
    b"1" + b"0" * 5000,
    b"4294967295",
    b"1e-400",
]
INTEGERS = [0, 1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]
WORDS = [
    b"[" * 2000,
    b'{"a":' * 60,
    "e\u0301\u0302".encode() * 500,
    b"\x1b[2J",
    b"\0",
    b"\xff\xfe",
    b"#" * 999,
    b"true",
    b'"',
]


def changed(draw: random.Random, data: bytes, others: list[bytes], most: int = 1 << 16) -> bytes:
    """Return `data` after a few edits: bits, numbers and words exchanged, parts cut, doubled, moved, or of others."""
    new = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 5))):
        at, length = draw.randrange(len(new) + 1), draw.choice((1, 2, 4, 8, 16, 64))
        match draw.randrange(9):
            case 0 if at < len(new):
                new[at] ^= 1 << draw.randrange(8)
            case 1:
                new[at : at + length] = draw.randbytes(length)
            case 2:
                del new[at : at + length]
            case 3:
                new[at:at] = bytes(new[at : at + length]) * draw.choice((1, 1, 2, 50))
            case 4:
                to = draw.randrange(len(new) + 1)
                new[to : to + length] = new[at : at + length]
            case 5:
                size, number = draw.choice((1, 2, 4, 8)), draw.choice(INTEGERS) + draw.choice((0, 0, -1, 1))
                order = draw.choice(("little", "big"))
                new[at : at + size] = (number % 256**size).to_bytes(size, order)  # type: ignore[arg-type]
            case 6:
                if digits := list(re.finditer(rb"-?\d+(\.\d+)?", bytes(new[:20_000]))):
                    one = draw.choice(digits)
                    new[one.start() : one.end()] = draw.choice(
                        (*NUMBERS, b"%d" % draw.randrange(10 ** draw.randrange(1, 20)))
                    )
            case 7:
                new[at:at] = draw.choice(WORDS)
            case 8:
                other = draw.choice(others)
                begin = draw.randrange(len(other) + 1)
                new[at:] = other[begin:] if draw.random() < 0.5 else other[begin : begin + length] + bytes(new[at:])
    if draw.random() < 0.05:
        del new[draw.randrange(len(new) + 1) :]
    return bytes(new[:most])


# ------------------------------------------------------------------------------------------------------- one execution


@dataclass
class Row:
    """What is counted for one reader; the last row of the table adds all of them up."""

    executions: int = 0
    valid: int = 0
    refused: int = 0
    slowest: float = 0.0
    largest: float = 0.0
    findings: dict[str, str] = field(default_factory=dict)  # what it is: the file that shows it

    def __add__(self, other: "Row") -> "Row":
        return Row(
            *(self.executions + other.executions, self.valid + other.valid, self.refused + other.refused),
            *(max(self.slowest, other.slowest), max(self.largest, other.largest)),
            self.findings | other.findings,
        )


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def peak_resident() -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))


def fault_of(target: Target, path: Path, row: Row) -> str:
    """Read a file, count the outcome in `row`, and return what is wrong with it, "" if nothing is."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    tracemalloc.reset_peak()
    before, reserved, began = resident(), tracemalloc.get_traced_memory()[0], time.process_time()
    fault = ""
    try:
        fault = not_valid(target.read(path))
        row.valid += 1
    except REFUSALS as error:
        row.refused += 1
        message = str(error).replace(str(path), "FILE").replace(str(path.parent), "FOLDER")
        if not message.isprintable() or len(message) > 1200:
            fault = f"message of {len(message)} letters: {message[:60]!r}"
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        trace, place = error.__traceback__, ""
        while trace is not None:
            code = trace.tb_frame.f_code
            place = f"{Path(code.co_filename).name}:{code.co_name}" if "minifcn" in code.co_filename else place
            trace = trace.tb_next
        fault = f"{type(error).__name__} in {place}: {re.sub('[0-9]+', 'N', str(error))[:60]!r}"
    took = time.process_time() - began
    size = max(tracemalloc.get_traced_memory()[1] - reserved, peak_resident() - before)
    if took > SECONDS:  # most of it may have gone into counting memory: once more without
        tracemalloc.stop()
        began = time.process_time()
        with contextlib.suppress(Exception):
            target.read(path)
        took = time.process_time() - began
        tracemalloc.start()
    row.executions, row.slowest, row.largest = row.executions + 1, max(row.slowest, took), max(row.largest, size)
    return fault or (f"more than {SECONDS} s" if took > SECONDS else "more than 50 MB" if size > BYTES else "")


def not_valid(found: Any) -> str:
    """Return what is wrong with arrays that were read: all are numbers, and those of weights finite."""
    arrays = found[0] if isinstance(found, tuple) and isinstance(found[0], dict) else found
    if isinstance(arrays, dict):
        for name, array in arrays.items():
            if isinstance(array, np.ndarray) and array.dtype.newbyteorder("=") not in DTYPES:
                return f"dtype {array.dtype}"
            if isinstance(array, np.ndarray) and array.dtype.kind == "f" and not np.isfinite(array).all():
                return f"{name} is not finite"
    return ""


# ------------------------------------------------------------------------------------------------------------ processes


def child(name: str, executions: int, seed: int, folder: Path) -> None:
    """Fuzz one reader in this process, and write its row as JSON beside the file that is being read."""
    target, row, path = TARGETS[name], Row(), folder / "input"
    draw, seeds = random.Random(seed), target.seeds(folder)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    most = max(1 << 14, 2 * max(map(len, seeds)))

    def once(data: bytes) -> None:
        path.write_bytes(data)
        signal.setitimer(signal.ITIMER_PROF, 0 if atheris else HANG)  # a busy machine is no hang
        signal.alarm(0 if atheris else 30 * HANG)  # but waiting for ever is
        fault = fault_of(target, path, row)
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if fault and fault not in row.findings and len(row.findings) < 50:
            KEPT.mkdir(parents=True, exist_ok=True)
            kept = KEPT / f"{name.replace(' ', '-')}-{hashlib.sha256(data).hexdigest()[:12]}"
            kept.write_bytes(data)
            row.findings[fault] = str(kept)
        if row.executions % 200 == 0 or fault or row.executions >= executions:
            (folder / "row").write_text(json.dumps(vars(row)))
        if row.executions >= executions:
            os._exit(0)

    path.write_bytes(seeds[0])
    with contextlib.suppress(*REFUSALS):
        target.read(path)  # what is imported late is not counted
    tracemalloc.start()
    for data in seeds:
        once(data)
        if atheris:
            (folder / "corpus").mkdir(exist_ok=True)
            (folder / "corpus" / hashlib.sha256(data).hexdigest()).write_bytes(data)
    if not row.valid:
        raise SystemExit(f"{name}: no seed is valid: {row.findings}")
    if not atheris:
        while True:
            once(target.sealed(changed(draw, draw.choice(seeds), seeds, most)))

    def mutator(data: bytes, size: int, number: int) -> bytes:
        own = random.Random(number)
        if own.random() < 0.2:
            data = atheris.Mutate(data, size)
        else:  # half of them from a valid file: what was found since is mostly refused early
            data = changed(own, own.choice(seeds) if own.random() < 0.5 else data, seeds, most)
        return target.sealed(data)[:size]

    flags = [
        f"-seed={seed % 2**31 + 1}",
        f"-timeout={30 * HANG}",
        "-rss_limit_mb=0",
        f"-max_len={most}",
        "-verbosity=0",
    ]
    argv = [
        "fuzz",
        str(folder / "corpus"),
        *flags,
        f"-artifact_prefix={folder}/crash-",
        "-len_control=0",
        "-mutate_depth=1",
    ]
    atheris.Setup(argv, once, custom_mutator=mutator)
    atheris.Fuzz()


def fuzz(name: str, executions: int, seed: int) -> Row:
    """Fuzz one reader in processes of its own until all executions are done; a crash is a finding."""
    total = Row()
    for attempt in range(20):
        left = executions - total.executions
        if left <= 0:
            break
        with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:  # noqa: S108
            command_line = [sys.executable, __file__, "--only", name, "--executions", str(left), "--folder", folder]
            done = subprocess.run(
                [*command_line, "--seed", str(seed + 1000 * attempt)], capture_output=True, text=True, check=False
            )
            row = Path(folder) / "row"
            if row.is_file():
                total += Row(**json.loads(row.read_text()))
            if done.returncode:
                KEPT.mkdir(parents=True, exist_ok=True)
                kept = KEPT / f"{name.replace(' ', '-')}-crash-{seed}-{attempt}"
                if (Path(folder) / "input").is_file():
                    kept.write_bytes((Path(folder) / "input").read_bytes())
                said = done.stderr.strip().splitlines()[-1:] or [""]
                total.findings[f"exit code {done.returncode}: {said[0][:100]}"] = str(kept)
                if not row.is_file():
                    break
    return total


def printed(name: str, row: Row) -> str:
    """Return one row of the table, and a line for each finding."""
    numbers = f"{row.executions:>10,} {row.valid:>9,} {row.refused:>9,} {row.slowest * 1000:>10.0f}"
    lines = [f"{name:<16} {numbers} {row.largest / MEGABYTE:>10.1f} {len(row.findings):>9}"]
    return "\n".join([*lines, *(f"    {fault}  ({kept})" for fault, kept in row.findings.items())])


def available(target: Target) -> bool:
    """Whether the library that the reader needs is installed."""
    import importlib.util

    return not target.needs or importlib.util.find_spec(target.needs) is not None


def main() -> int:
    """Fuzz all readers, or those of `--readers`, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executions", type=int, default=100_000, help="in all, divided among the readers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", default="", help=f"separated by commas, of: {', '.join(TARGETS)}")
    parser.add_argument("--only", default="", help=argparse.SUPPRESS)  # this is the process of one reader
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        child(given.only, given.executions, given.seed, given.folder)
    names = [name for name in (given.readers.split(",") if given.readers else TARGETS) if available(TARGETS[name])]
    print(f"{'reader':<16} executions     valid   refused slowest ms largest MB  findings", flush=True)
    total, shares = Row(), sum(TARGETS[name].share for name in names)
    for name in names:
        row = fuzz(name, math.ceil(given.executions * TARGETS[name].share / shares), given.seed)
        print(printed(name, row), flush=True)
        total += row
    print(printed("all", Row(**vars(total) | {"findings": {}})))
    print(f"{len(total.findings)} findings; changes {'led by coverage (atheris)' if atheris else 'at random'}")
    return 1 if total.findings else 0


if __name__ == "__main__":
    raise SystemExit(main())
