"""Files that `minifcn data check` found good are not read again before a run begins, unless they change."""

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minifcn.cli.verbs import main
from minifcn.data import VOCSegmentation
from minifcn.data.dataset import Cached, Subset
from minifcn.data.listed import CHECKED
from minifcn.data.sample import Sample
from minifcn.data.tools.make import make_tree
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
