"""Small files that once took minutes or gigabytes, or ended in a traceback: each is refused at once, in one line.

Every kind of fault has several members here, because a cure for one of them alone is none. `tests/fuzz.py` looks for
more; what it finds is added to `PAST`. That script's own readers and limits are used: a second, 50 MB.
"""

import io
import json
import random
import struct
import tempfile
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from formats.test_weights_torch import ORDERED_DICT, pickled, state, tensor, text, write_legacy, write_zip
from fuzz import BYTES, REFUSALS, SECONDS, TARGETS, Row, available, changed, checkpoint_of, fault_of, fuzz
from hostile_files import at_most
from PIL import Image
from some_slow import slow_but

from minifcn.cli.verbs import main
from minifcn.data.files import read_image, read_mask
from minifcn.data.shapes import CLASSES
from minifcn.data.tools.raw import read_png_mask
from minifcn.data.voc import VOCSegmentation
from minifcn.errors import FormatError
from minifcn.formats.checkpoint import load_checkpoint, read_meta, save_checkpoint
from minifcn.formats.safetensors import read_safetensors
from minifcn.formats.torch_legacy import read_torch_legacy
from minifcn.formats.torch_zip import read_torch_zip
from minifcn.training.net_record import CHOICES
from minifcn.training.options import Options
from minifcn.training.report import write_report
from minifcn.training.run_folder import read_config, step_path
from minifcn.training.runlog import records
from minifcn.training.trained import open_trained
from minifcn.weights.published import open_weights

MARKS, UNLIKE = "marks in front of values", "these parameters are not"
FLAT, PIECES = "is it of one colour?", "comments or other pieces"
HUGE, DEEP = "1" + "0" * 400, "[" * 100_000


# ---------------------------------------------------------------------------------------------------------- the corpus


def colliding(count: int, *, sign: int = 1) -> list[bytes]:
    """Return integers as a pickle has them that all have one hash: a dict of them takes the square of their number."""
    return [b"\x8a\x0b" + (sign * i * (2**61 - 1)).to_bytes(11, "little", signed=True) for i in range(1, count + 1)]


def torch_file(words: bytes, write: Callable[..., Path] = write_zip) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write(Path(folder) / "a.pt", pickled(words), {"0": bytes(24)}).read_bytes()


def numbered(keys: list[bytes]) -> bytes:
    """Return the words for a dict of these keys, each with None."""
    return b"}(" + b"N".join([*keys, b"u"])


def header(json_text: str | bytes) -> bytes:
    """Return a safetensors file of one header and no arrays."""
    raw = json_text.encode() if isinstance(json_text, str) else json_text
    return struct.pack("<Q", len(raw)) + raw


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))


def scans(count: int, *, progressive: bool) -> bytes:
    """Return a JPEG whose last scan comes `count` times more."""
    pixels = np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8)
    data = saved(Image.fromarray(pixels), "JPEG", progressive=progressive)
    last = data.rfind(b"\xff\xda")
    return data[:last] + data[last:-2] * (count + 1) + data[-2:]


def flat(mode: str, kind: str, side: int = 7000) -> bytes:
    return saved(Image.new(mode, (side, side)), kind)


def pieces(piece: bytes, count: int, *, at: int = 33) -> bytes:
    """Return a PNG of eight pixels with one chunk again and again."""
    data = saved(Image.new("L", (8, 1)), "PNG")
    return data[:at] + piece * count + data[at:]


def many_names(count: int) -> bytes:
    """Return a zip whose table has an entry again and again, and whose end speaks of one."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", b"")
    data = file.getvalue()
    start, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    size = struct.pack("<L", count * (end - start))
    return data[:start] + data[start:end] * count + data[end : end + 12] + size + data[end + 16 :]


def record_of(**changes: Any) -> dict[str, Any]:
    """Return what a checkpoint of a run says, which claims more than its arrays can keep."""
    o = Options(width=2).as_dict()
    net = {name: o[name] for name in CHOICES} | {"stride": 8, "classes": list(CLASSES), "geometry_classes": []}
    net |= {"preprocessing": {"order": "RGB", "scale": 1.0, "mean": [0, 0, 0], "std": [1, 1, 1]}}
    return {"net": net | changes, "options": o, "progress": {"step": 3}}


def checkpoint(**changes: Any) -> bytes:
    return checkpoint_of(record_of(**changes), {"net.trunk.conv1_1.w": np.zeros(3, np.float32)})


def odd_number(text_in_json: str) -> bytes:
    """Return a checkpoint in whose record a number stands that Python would not have written."""
    data = checkpoint_of({"step": 123454321}, {"a": np.zeros(3, np.float32)})
    end = 8 + int.from_bytes(data[:8], "little")
    raw = data[8:end].replace(b"123454321", text_in_json.encode())
    return struct.pack("<Q", len(raw)) + raw + data[end:]


def config(options: str) -> bytes:
    return f'{{"options": {options}}}'.encode()


image: Callable[[Path], Any] = read_image
as_is: Callable[[Path], Any] = read_png_mask
mask: Callable[[Path], Any] = partial(read_mask, classes=200)
long_name, marks = "x" * 100_000, "e" + "\u0301" * 3000

PAST: dict[str, tuple[Callable[[Path], Any], Callable[[], bytes], str]] = {
    "keys with one hash": (read_torch_zip, lambda: torch_file(numbered(colliding(20_000))), "at most 32 bits"),
    "negative keys": (read_torch_zip, lambda: torch_file(numbered(colliding(9_000, sign=-1))), "at most 32 bits"),
    "keys in an OrderedDict": (
        read_torch_zip,
        lambda: torch_file(ORDERED_DICT + b"](" + b"".join(key + b"N\x86" for key in colliding(20_000)) + b"e\x85R"),
        "at most 32 bits",
    ),
    "keys in an old file": (
        read_torch_legacy,
        lambda: torch_file(numbered(colliding(9_000)), write_legacy),
        "at most 32 bits",
    ),
    "16 MB of JSON": (read_safetensors, lambda: header('{"a":[' + "[]," * 5_000_000 + "1]}"), "header length"),
    "4 MB of lists": (
        read_safetensors,
        lambda: header('{"a":[' + "[]," * 1_300_000 + "1]}"),
        MARKS,
    ),
    "4 MB of objects": (read_meta, lambda: header('{"a":[' + '{"a":1},' * 500_000 + "1]}"), MARKS),
    "4 MB of deep lists": (load_checkpoint, lambda: header('{"a":[' + "[[[[[]]]]]," * 350_000 + "1]}"), "found none"),
    "one wide letter": (
        read_safetensors,
        lambda: header('{"' + "a" * 4_000_000 + "\U0001f600" + '":1}'),
        "expected an object",
    ),
    "10^400 in a config": (read_config, lambda: config(f'{{"seed": {HUGE}}}'), "401 digits"),
    "1e400 in a config": (read_config, lambda: config('{"lr": 1e400}'), "no finite number"),
    "10^90 in a config": (read_config, lambda: config(f'{{"max_train": {"9" * 90}, "lr": {"9" * 90}}}'), "lr is"),
    "depth in a config": (read_config, lambda: config(DEEP), "50 levels"),
    "a long option": (read_config, lambda: config(f'{{"{long_name}": 1}}'), "does not exist"),
    "a long field": (read_config, lambda: f'{{"{long_name}": 1}}'.encode(), "does not exist"),
    "10^400 in a checkpoint": (load_checkpoint, lambda: odd_number(HUGE), "401 digits"),
    "NaN in a checkpoint": (read_meta, lambda: odd_number("NaN"), "no finite number"),
    "depth in a checkpoint": (read_meta, lambda: odd_number("[" * 60 + "]" * 60), "50 levels"),
    "depth in a header": (read_safetensors, lambda: header('{"a":' + DEEP), "50 levels"),
    "a class of 100,000 letters": (
        open_trained,
        lambda: checkpoint(classes=["a", long_name]),
        "a name of 100000 letters",
    ),
    "a class of 3000 marks": (open_trained, lambda: checkpoint(classes=["a", marks]), "a name of 3001 letters"),
    "a class of 100 marks": (open_trained, lambda: checkpoint(classes=["a", marks[:100]]), "combining marks"),
    "100,000 classes": (open_trained, lambda: checkpoint(classes=["a"] * 100_000), "of at most 255"),
    "a large net": (open_trained, lambda: checkpoint(width=512, layers=19), UNLIKE),
    "two large nets": (
        open_trained,
        lambda: checkpoint(width=256, inputs="rgb+hha", upsampling="all learned", classes=[str(i) for i in range(255)]),
        UNLIKE,
    ),
    "a large border": (
        open_trained,
        lambda: checkpoint(width=256, padding="999", context=True),
        UNLIKE,
    ),
    "1000 scans": (image, lambda: scans(1000, progressive=True), "1010 scans"),
    "100 plain scans": (image, lambda: scans(100, progressive=False), "101 scans"),
    "JPEG comments": (image, lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 500_000, PIECES),
    "PPM comment": (image, lambda: b"P6\n" + b"#" * 3_000_000 + b"\n1 1\n255\n\0\0\0", PIECES),
    "PPM comments": (image, lambda: b"P5\n" + b"#\n" * 1_000_000 + b"1 1\n255\n\0", PIECES),
    "comments in plain PPM": (image, lambda: b"P3\n99 99\n255\n" + b"#\n" * 1_000_000, "1000000 comments"),
    "GIF comments": (image, lambda: flat("P", "GIF", 8)[:-20] + b"!\xfe\1a\0" * 500_000, "decoded"),
    "PNG chunks": (image, lambda: pieces(chunk(b"teSt"), 200_000), PIECES),
    "PNG of empty data": (image, lambda: pieces(chunk(b"IDAT"), 200_000), PIECES),
    "95 kB of 49 megapixels": (image, lambda: flat("RGBA", "PNG"), FLAT),
    "a PNG of 4 GB by its length": (image, lambda: pieces(struct.pack(">L", 2**32 - 1) + b"teSt", 1), "decoded"),
    "a mask of 2 GB by its length": (as_is, lambda: pieces(struct.pack(">L", 2**31 - 1) + b"tEXt", 1), "decoded"),
    "a WebP of 4 GB by its length": (image, lambda: b"RIFF\xff\xff\xff\xffWEBPVP8X\xff\xff\xff\xff", "decoded"),
    "a flat WebP": (image, lambda: flat("RGB", "WEBP"), FLAT),
    "a flat GIF": (image, lambda: flat("P", "GIF"), FLAT),
    "a mask of one bit": (mask, lambda: flat("1", "PNG", 8), "1 bits a sample"),
    "a large mask of one bit": (mask, lambda: flat("1", "PNG"), "1 bits a sample"),
    "a large picture of one bit": (image, lambda: flat("1", "PNG"), FLAT),
    "a stage of 5000 digits": (read_config, lambda: config(f'{{"stages": "32,{"9" * 5000}"}}'), "option stages is"),
    "a stage of 100,000 letters": (read_config, lambda: config(f'{{"stages": "{long_name}"}}'), "option stages is"),
    "5000 stages": (read_config, lambda: config(f'{{"stages": "{"32," * 5000}8"}}'), "option stages is"),
    "a long stage in a checkpoint": (open_trained, lambda: checkpoint(stages="9" * 5000), UNLIKE),
    "a flat 16-bit mask": (as_is, lambda: flat("I;16", "PNG"), FLAT),
    "a flat colour mask": (as_is, lambda: flat("RGB", "PNG"), FLAT),
    "a zip of 200,000 names": (read_torch_zip, lambda: many_names(200_000), "zip"),
}


HEAVY = ("a flat WebP", "PNG chunks", "95 kB of 49 megapixels", "keys in an OrderedDict", "a flat colour mask")
HEAVY += (
    "PPM comments",
    "PNG of empty data",
    "JPEG comments",
    "100,000 classes",
    "a flat 16-bit mask",
    "keys in an old file",
    "keys with one hash",
    "PPM comment",
)


@pytest.mark.parametrize("name", slow_but(PAST.keys() - {*HEAVY}, PAST, "reads a file of many pieces or megapixels"))
def test_a_past_fault_is_refused_at_once(name: str, tmp_path: Path) -> None:
    read, make, says = PAST[name]
    path = tmp_path / "file"
    path.write_bytes(make())
    began = time.process_time()
    with pytest.raises(REFUSALS) as caught:
        read(path)
    took = time.process_time() - began
    message = str(caught.value)
    assert says in message and message.isprintable() and len(message) < 1200, message
    assert took < SECONDS, f"{took:.2f} s"
    with at_most(BYTES), pytest.raises(REFUSALS):
        read(path)


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        (
            lambda: saved(Image.new("RGB", (1920, 1080)), "PNG"),
            (1080, 1920, 3),
        ),  # two megapixels of one colour
        (lambda: scans(20, progressive=True), (400, 600, 3)),
        (lambda: b"P3 # by hand\n2 1\n255\n1 2 3 # red\n4 5 6\n", (1, 2, 3)),
        (lambda: saved(Image.new("RGBA", (40, 30), (9, 9, 9, 128)), "PNG"), (30, 40, 3)),
    ],
)
def test_what_is_usual_is_read(data: Callable[[], bytes], shape: tuple[int, ...], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data())
    assert read_image(tmp_path / "file").shape == shape


def test_a_large_mask_of_one_class_is_usual_and_takes_two_bytes_a_pixel(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(flat("P", "PNG", 4000))
    with at_most(2 * 4000 * 4000 + BYTES // 4):
        assert not read_mask(tmp_path / "mask.png", classes=2).any()


def test_keys_that_are_numbers_are_read(tmp_path: Path) -> None:
    """An optimizer's state has them; and the largest and the smallest that are taken."""
    words = b"}(" + b"".join(key + tensor() for key in (b"K\x00", b"J\xff\xff\xff\x7f", b"J\0\0\0\x80")) + b"u"
    arrays = read_torch_zip(write_zip(tmp_path / "a.pt", pickled(words), {"0": bytes(24)}))
    assert list(arrays) == ["0", "2147483647", "-2147483648"]
    assert read_torch_zip(write_zip(tmp_path / "b.pt", state(a=tensor()), {"0": bytes(24)})).keys() == {"a"}
    assert text("a")


# ----------------------------------------------------------------------------- a checkpoint is compared, then built


def quickly(argv: list[str]) -> int:
    began = time.process_time()
    with at_most(BYTES):
        code = main(argv)
    assert time.process_time() - began < 3 * SECONDS, argv  # twice of which is memory being counted
    return code


CLAIMS = [{"width": 256}, {"width": 512, "layers": 19}, {"width": 512, "inputs": "rgb+depth", "fusion": "concat"}]


@pytest.mark.parametrize("claim", slow_but(CLAIMS[:1], CLAIMS, "six commands for each claim"))
def test_a_small_checkpoint_that_claims_a_large_net_is_refused_by_every_command(
    claim: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    path = step_path(run, 3)
    path.parent.mkdir(parents=True)
    path.write_bytes(checkpoint(**claim))
    assert path.stat().st_size < 5000
    (tmp_path / "a.png").write_bytes(flat("RGB", "PNG", 64))
    picture = str(tmp_path / "a.png")
    for words in (
        ["export", str(run), str(tmp_path / "x.safetensors")],
        ["predict", str(run), picture, "--out", str(tmp_path / "out")],
        ["predict", str(path), picture, "--out", str(tmp_path / "out")],
        ["evaluate", str(run)],
        ["train", "--resume", str(run), "--device", "cpu"],
        ["train", "--init", str(run), "--run", str(tmp_path / "new"), "--width", "2", "--device", "cpu"],
    ):
        assert quickly(words) == 2, words
        assert "these parameters are not this network's" in capsys.readouterr().err, words
    assert not (tmp_path / "new").exists() and not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["net.a.w", "momentum.a.w"])
def test_our_own_checkpoint_that_is_not_finite_is_refused(name: str, value: float, tmp_path: Path) -> None:
    path = step_path(tmp_path, 3)
    path.parent.mkdir()
    save_checkpoint(path, {name: np.array([1, value], np.float32)}, record_of())
    for read in (lambda: open_trained(path), lambda: open_trained(tmp_path), lambda: main(["export", str(path), "x"])):
        try:
            assert read() == 2
        except REFUSALS as error:
            assert "NaN or infinity" in str(error)
        else:
            assert read.__code__.co_names[0] == "main"


# --------------------------------------------------------------------------------------------------------------- others


@pytest.mark.parametrize("name", [long_name, marks, "a" + "\u0e49" * 20])
def test_a_data_set_whose_class_has_such_a_name_is_refused(name: str, tmp_path: Path) -> None:
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\n")
    (tmp_path / "class_names.txt").write_text(f"sky\n{name}\n", encoding="utf-8")
    with pytest.raises(REFUSALS, match="a name ") as caught:
        VOCSegmentation(tmp_path)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["\u0f67\u0f71\u0f74\u0f83", "pho\u031b\u0309", "snake doctor, mosquito hawk, " * 6])
def test_names_of_any_language_are_taken(name: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(checkpoint(classes=["a", name]))
    with pytest.raises(REFUSALS, match=UNLIKE):
        open_trained(tmp_path / "a")


@pytest.mark.parametrize("name", [long_name, marks])
def test_weights_whose_class_has_such_a_name_are_refused(name: str, tmp_path: Path) -> None:
    meta = {"weights": {"net": "vgg16", "output": "", "classes": [name]}, "preprocessing": None}
    save_checkpoint(tmp_path / "a", {"a": np.zeros(3, np.float32)}, meta)
    with pytest.raises(REFUSALS, match="a name of"):
        open_weights(tmp_path / "a")


def test_weights_are_compared_with_nets_that_take_no_memory(tmp_path: Path) -> None:
    """The nets that a file might be of have up to 140 million parameters each."""
    np.savez(tmp_path / "a.npz", a=np.zeros(3, np.float32))
    with at_most(BYTES), pytest.raises(REFUSALS, match="fits no net"):
        open_weights(tmp_path / "a.npz")


ODD_LINES = [
    f'{{"step": {HUGE}}}',
    '{"step": 1e400, "loss": 1}',
    f'{{"step": 1, "loss": {DEEP}',
    f'{{"step": 1, "loss": {"9" * 99}}}',
]


@pytest.mark.parametrize("line", ODD_LINES)
def test_a_log_of_odd_numbers_is_read_and_reported(line: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 0.5}\n' + line + '\n{"step": 2, "loss": 0.25}\n')
    found = [each for each in records(path) if each["step"] in (1, 2) and each["loss"] in (0.5, 0.25)]
    assert len(found) == 2
    assert write_report(tmp_path).is_file()


@pytest.mark.parametrize("name", [long_name, marks])
def test_a_report_leaves_out_an_evaluation_with_such_names(name: str, tmp_path: Path) -> None:
    found = {"confusion": [[1, 0], [0, 1]], "classes": ["a", name]}
    (tmp_path / "evaluation.json").write_text(json.dumps(found))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "evaluation.json cannot be used" in page and len(page) < 20_000


def seconds_of_report(classes: int, folder: Path) -> float:
    """Write a report on so many classes, and return the processor time that it took."""
    found = {"classes": [str(i) for i in range(classes)], "confusion": np.ones((classes, classes), int).tolist()}
    (folder / "evaluation.json").write_text(json.dumps(found))
    began = time.process_time()
    page = write_report(folder).read_text(encoding="utf-8")
    took = time.process_time() - began
    assert f">{classes - 1}<" in page
    return took


@pytest.fixture(scope="module")
def seconds_for_a_few(tmp_path_factory: pytest.TempPathFactory) -> float:
    folder = tmp_path_factory.mktemp("report")
    seconds_of_report(2, folder)  # the first may import what it needs
    return seconds_of_report(21, folder)


@pytest.mark.parametrize("classes", slow_but([65], [65, 255], "draws another page"))
def test_a_report_on_many_classes_is_as_quick_as_one_on_a_few(
    classes: int, seconds_for_a_few: float, tmp_path: Path
) -> None:
    """Each name at the edge of the picture takes matplotlib a hundredth of a second: 255 took six."""
    took = seconds_of_report(classes, tmp_path)
    assert took < 2.5 * seconds_for_a_few, (took, seconds_for_a_few)


# ---------------------------------------------------------------------------------------------------- the fuzzer itself


@pytest.mark.slow("waits longer than a reader may take")
def test_the_fuzzer_finds_what_is_wrong(tmp_path: Path) -> None:
    """A reader that breaks each of the rules is found out, and a right one is not."""

    def broken(path: Path) -> Any:
        raise KeyError("x")

    def loud(path: Path) -> Any:
        raise FormatError(f"{path}:\n two lines")

    def slow(path: Path) -> Any:
        until = time.process_time() + 1.1
        while time.process_time() < until:
            pass

    def counted(path: Path) -> Any:
        if tracemalloc.is_tracing():  # slow by the counting of memory alone
            slow(path)

    readers = {
        "KeyError": broken,
        "message of": loud,
        "more than 1.0 s": slow,
        "more than 50 MB": lambda path: np.ones(7 << 20),
        "a is not finite": lambda path: {"a": np.array([np.nan])},
        "dtype object": lambda path: {"a": np.array([None])},
        "": lambda path: {"a": np.zeros(3)} if counted(path) is None else None,
    }
    (tmp_path / "a").write_bytes(b"a")
    tracemalloc.start()
    try:
        for says, read in readers.items():
            fault = fault_of(replace(TARGETS["npy"], read=read), tmp_path / "a", Row())
            assert fault.startswith(says) and bool(fault) == bool(says), (says, fault)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in ("trained net", "report", "any weights")])
def test_a_few_changes_of_each_format(name: str, tmp_path: Path) -> None:
    """The seeds of every reader are valid, and forty changes of them are valid or refused."""
    target = TARGETS[name]
    if not available(target):
        pytest.skip(f"needs {target.needs}")
    seeds, draw, row, path = target.seeds(tmp_path), random.Random(5), Row(), tmp_path / "input"
    tracemalloc.start()
    try:
        for data in [*seeds, *(target.sealed(changed(draw, draw.choice(seeds), seeds)) for _ in range(40))]:
            path.write_bytes(data)
            fault = fault_of(target, path, row)
            assert not fault or fault.startswith("more than 1.0 s"), fault  # the first may import what it needs
    finally:
        tracemalloc.stop()
    assert row.valid


@pytest.mark.slow("a process of its own for the reader, in which everything is imported again")
def test_a_reader_is_fuzzed_in_its_own_process() -> None:
    row = fuzz("npy", 300, 1)
    assert row.executions >= 300 and row.valid and row.refused and not row.findings
