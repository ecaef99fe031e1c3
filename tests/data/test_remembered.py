"""Files that `minifcn data check` found good are not read again before a run begins, unless they change."""

import json
import os
import resource
import shutil
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minifcn.cli.verbs import main
from minifcn.data import VOCSegmentation
from minifcn.data.dataset import Cached, Subset
from minifcn.data.listed import CHECKED
from minifcn.data.sample import Sample
from minifcn.data.tools.make import make_tree
from minifcn.data.tools.silent import Silent, warnings_of
from minifcn.errors import DataError
from minifcn.sampling import class_weights, count
from minifcn.training import setup
from minifcn.training.options import Options
from minifcn.training.run_folder import RunFolder
from minifcn.training.run_state import Run


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "set", counts={"train": 4, "val": 2}, size=64)


def read(data: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids that are read to find faults."""
    found: list[str] = []
    take = VOCSegmentation._read
    with monkeypatch.context() as patch:
        patch.setattr(VOCSegmentation, "_read", lambda self, name: found.append(name) or take(self, name))
        assert Cached(Subset(data, range(len(data)))).faults() == []
    return found


def test_what_was_checked_is_not_read_again(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = VOCSegmentation(tree, "train")
    assert read(train, monkeypatch) == list(train.ids) and not (tree / CHECKED).exists()
    assert main(["data", "check", str(tree)]) == 0
    assert (tree / CHECKED).is_file() and main(["data", "check", str(tree)]) == 0
    for split in ("train", "val"):
        assert read(VOCSegmentation(tree, split), monkeypatch) == []


@pytest.mark.parametrize("part", ["JPEGImages", "SegmentationClass"])
def test_a_changed_file_is_read_again(part: str, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["data", "check", str(tree)]) == 0
    train = VOCSegmentation(tree, "train")
    file = next((tree / part).glob(f"{train.ids[2]}.*"))
    os.utime(file, ns=(1, 1))
    assert read(VOCSegmentation(tree, "train"), monkeypatch) == [train.ids[2]]
    file.write_bytes(b"broken")
    assert len(Cached(VOCSegmentation(tree, "train")).faults()) == 1
    assert main(["data", "check", str(tree)]) == 2  # and what was good before stays remembered
    assert len(Cached(VOCSegmentation(tree, "train")).faults()) == 1
    file.unlink()
    with pytest.raises(DataError, match=f"no file for id {train.ids[2]}"):
        VOCSegmentation(tree, "train")


@pytest.mark.parametrize("workers", [0, 3])
def test_faults_are_found_in_order_with_any_number_of_workers(workers: int, tree: Path) -> None:
    train = VOCSegmentation(tree, "train")
    for index in (1, 3):
        next((tree / "JPEGImages").glob(f"{train.ids[index]}.*")).write_bytes(b"broken")
    seen: list[str] = []
    found = Cached(train).faults(look=lambda sample: seen.append(sample.id), workers=workers)
    assert [train.ids[index] in fault for fault, index in zip(found, (1, 3), strict=True)] == [True, True]
    assert seen == [train.ids[0], train.ids[2]]


@pytest.mark.parametrize("checked", [False, True])
def test_class_weights_and_faults_are_found_in_one_pass(
    checked: bool, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Class weights need the labels of all images, also of those that were checked before."""
    assert not checked or main(["data", "check", str(tree)]) == 0
    o, found, take = Options(data=str(tree), class_balance=0.5, epochs=1), list[str](), VOCSegmentation._read
    train, val = setup.data_sets(o)
    monkeypatch.setattr(VOCSegmentation, "_read", lambda self, name: found.append(name) or take(self, name))
    run = Run(o, RunFolder(tmp_path / "run"), train, val)
    assert sorted(found) == sorted([*train.ids] if checked else [*train.ids, *val.ids])
    counts = sum(count(train[i].label, len(train.classes)) for i in range(len(train)))
    assert np.array_equal(run.objective.class_weights, class_weights(counts, power=0.5))


def test_one_split_is_remembered_beside_another(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["data", "check", str(tree), "--split", "val"]) == 0
    assert read(VOCSegmentation(tree, "val"), monkeypatch) == []
    assert len(read(VOCSegmentation(tree, "train"), monkeypatch)) == 4
    assert main(["data", "check", str(tree), "--split", "train"]) == 0
    assert read(VOCSegmentation(tree, "val"), monkeypatch) == read(VOCSegmentation(tree, "train"), monkeypatch) == []
    assert len(json.loads((tree / CHECKED).read_text())) == 6


@pytest.mark.parametrize("text", ["", "[1]", '{"a": 7}', "\0", '{"a": "x"'])
def test_a_record_that_is_damaged_is_none(text: str, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / CHECKED).write_text(text)
    assert len(read(VOCSegmentation(tree, "train"), monkeypatch)) == 4
    assert main(["data", "check", str(tree)]) == 0
    assert read(VOCSegmentation(tree, "train"), monkeypatch) == []


def test_a_folder_that_cannot_be_written_is_a_note(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / CHECKED).mkdir()  # which no file can replace, not even root's
    assert main(["data", "check", str(tree)]) == 0
    assert "note: a training run will check every file again: " in capsys.readouterr().out


class Many:
    """A hundred thousand images, each of which is made when it is read."""

    classes: tuple[str, ...] = ("a", "b")
    ids = tuple(f"{i:06d}" for i in range(100_000))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.ids[index], np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8))


def test_memory_stays_under_the_limit_of_the_cache_whatever_the_set() -> None:
    cached, began = Cached(Many(), limit=1 << 16), time.monotonic()
    assert cached.faults() == []
    assert sum(sample.image.nbytes + sample.label.nbytes for sample in cached._kept.values()) <= 1 << 16
    assert len(cached._kept) == (1 << 16) // 64 and time.monotonic() - began < 60


# ------------------------------------------------------------------------------------- what is strange, and can be read


@pytest.fixture
def opened_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the pictures that are opened, in order."""
    found: list[str] = []
    take = Image.open
    monkeypatch.setattr(
        Image, "open", lambda file, *more, **options: found.append(file) or take(file, *more, **options)
    )
    return found


@pytest.fixture
def strange(tree: Path) -> Path:
    """A picture twice, one turned by its EXIF, one of one colour, and two palettes that contradict each other."""
    a, b, c, d = VOCSegmentation(tree, "train").ids
    files = {name: next((tree / "JPEGImages").glob(f"{name}.*")) for name in (a, b, c, d)}
    for name in (a, b):
        Image.new("RGB", (64, 64), (9, 8, 7)).save(files[name].with_suffix(".png"))
    turned = Image.Exif()
    turned[0x0112] = 3
    with Image.open(files[c]) as picture:
        picture.convert("RGB").save(files[c].with_suffix(".png"), exif=turned)
    for name in (a, b, c):
        if files[name].suffix != ".png":
            files[name].unlink()
    with Image.open(tree / "SegmentationClass" / f"{d}.png") as mask:
        numbers = np.array(mask)
    other = Image.fromarray(numbers, "P")
    other.putpalette([number for value in range(256) for number in (255 - value, 3, 7)])
    other.save(tree / "SegmentationClass" / f"{d}.png")
    return tree


def started(tree: Path, **options: Any) -> list[str]:
    """What a run says about its files before the first step."""
    said: list[str] = []
    train, val = setup.data_sets(Options(data=str(tree)), say=said.append, **options)
    silent = Silent()
    for images in (train, val):
        assert Cached(images).faults(look=silent.sample) == []
    return sorted({*said, *(f"warning: split train: {line}" for line in silent.sentences(notes=False))})


def test_what_is_strange_is_remembered_and_no_file_is_opened(strange: Path, opened_files: list[str]) -> None:
    expected = started(strange)
    assert len(expected) == 4 and opened_files  # palettes, turned, constant, twins
    assert main(["data", "check", str(strange)]) == 2 and (strange / CHECKED).is_file()
    opened_files.clear()
    assert started(strange) == expected and opened_files == []
    second = VOCSegmentation(strange, "train").ids[1]
    os.utime(strange / "JPEGImages" / f"{second}.png", ns=(1, 1))
    again = started(strange)  # of the two it knows one and reads the other: each of one colour, and no twins
    assert {Path(str(name)).stem for name in opened_files} == {second}
    assert not any("twice" in line for line in again) and len(again) == 4


def test_each_rank_opens_its_share_only(strange: Path, opened_files: list[str]) -> None:
    expected, shares, facts = started(strange), [], list[Any]()
    for part in (slice(0, 2), slice(2, 4)):
        opened_files.clear()
        list(
            warnings_of(VOCSegmentation(strange, "train"), part=part, gather=lambda mine: facts.append(mine) or [mine])
        )
        shares.append({Path(str(name)).stem for name in opened_files})
    ids = VOCSegmentation(strange, "train").ids
    assert shares == [set(ids[:2]), set(ids[2:])]
    opened_files.clear()
    whole = list(
        warnings_of(VOCSegmentation(strange, "train"), part=slice(0), gather=lambda _: json.loads(json.dumps(facts)))
    )
    assert not opened_files and len(whole) == 2
    assert {f"warning: split train: {line}" for line in whole} <= set(expected)


@pytest.mark.parametrize("fact", [{"palette": "1"}, {"dark": "x"}, {"twins": 7}, {"turned": ""}, {"else": "a"}, 7, []])
def test_facts_that_are_damaged_are_none(fact: Any, tree: Path) -> None:
    assert main(["data", "check", str(tree)]) == 0
    stamps = json.loads((tree / CHECKED).read_text())
    (tree / CHECKED).write_text(json.dumps({name: [stamp, fact] for name, stamp in stamps.items()}))
    assert list(warnings_of(VOCSegmentation(tree, "train"))) == []


def test_leaving_out_what_is_bad_reads_only_what_has_changed(tree: Path, opened_files: list[str]) -> None:
    first = VOCSegmentation(tree, "train").ids[0]
    (tree / "SegmentationClass" / f"{first}.png").write_bytes(b"broken")
    assert main(["data", "check", str(tree)]) == 2
    opened_files.clear()
    with pytest.warns(UserWarning, match="skipped 1 of 4"):
        assert len(VOCSegmentation(tree, "train", skip_bad=True)) == 3
    assert {Path(str(name)).stem for name in opened_files} == {first}


MANY = 100_000


@pytest.mark.slow("makes 200,000 names of files")
def test_a_hundred_thousand_files_are_not_opened_once_they_are_checked(tmp_path: Path, opened_files: list[str]) -> None:
    tree = make_tree(tmp_path / "set", counts={"train": 10, "val": 2}, size=64)
    train, lists = VOCSegmentation(tree, "train"), tree / "ImageSets" / "Segmentation" / "train.txt"
    files = [part.path(name) for name in train.ids for part in train.parts]
    ids = [f"{number:06d}" for number in range(MANY)]
    for number, name in enumerate(ids):
        for file in files[2 * (number % 10) : 2 * (number % 10) + 2]:
            os.link(file, file.with_name(f"{name}{file.suffix}"))
    lists.write_text("".join(f"{name}\n" for name in ids))
    VOCSegmentation(tree, "train").remember()  # what `data check` does at its end
    opened_files.clear()
    limit, most = 4 << 20, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    images = setup.data_set(Options(data=str(tree)), "train", 0)
    cached = Cached(images, limit=limit)
    assert cached.faults() == [] and len(cached) == MANY and opened_files == []
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most) < Cached(images)._room
    tracemalloc.start()  # only now: what it watches takes ten times as long
    try:
        for index in range(0, MANY, MANY // 500):  # twice as much as there is room for
            cached[index]
        assert len(opened_files) == 1000 and cached._room < 1 << 15
        assert tracemalloc.get_traced_memory()[0] < 1.5 * limit  # Pillow, and what an array is beside its numbers
    finally:
        tracemalloc.stop()
        shutil.rmtree(tree)  # rather than keep 200,000 names for the next sessions
