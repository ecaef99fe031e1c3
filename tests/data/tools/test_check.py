"""A folder of images and masks, with every fault that users bring: each is found, counted, explained, and fixed."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_files import png
from test_voc import write_list

from minifcn.cli.command import with_flags
from minifcn.cli.verbs import main
from minifcn.data.files import read_mask, write_mask
from minifcn.data.tools.check import KINDS, Findings, check
from minifcn.data.tools.correct import correct
from minifcn.data.tools.mapping import packed, propose_colours, propose_numbers, read_map, remapped
from minifcn.data.tools.raw import read_png_mask
from minifcn.data.tools.silent import warnings_of
from minifcn.data.voc import VOC_CLASSES, VOCSegmentation
from minifcn.errors import DataError, UsageError
from minifcn.kernels.threads import set_threads
from minifcn.viz import palette

LABEL = np.array([[0, 1, 2, 255]] * 3, np.uint8)


def image(folder: Path, name: str, size: tuple[int, int] = (4, 3), seed: int = 0) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)).save(
        folder / "JPEGImages" / f"{name}.png"
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three good pairs, b in train, a and c in val."""
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / "t" / part).mkdir(parents=True)
    for seed, name in enumerate("abc"):
        image(tmp_path / "t", name, seed=seed)
        write_mask(tmp_path / "t" / "SegmentationClass" / f"{name}.png", LABEL)
    (tmp_path / "t" / "class_names.txt").write_text("sky\nroad\ncar\n")
    write_list(tmp_path / "t", b"b\n", "train")
    write_list(tmp_path / "t", b"a\nc\n", "val")
    return tmp_path / "t"


def mask(tree: Path, name: str) -> Path:
    return tree / "SegmentationClass" / f"{name}.png"


def said(found: Findings, **more: Any) -> str:
    text = "\n".join(found.lines(**more))
    assert all(line.isprintable() for line in text.splitlines())
    return text


def test_all_is_well(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[int] = []
    found = check(tree, begin=seen.append, advance=lambda: seen.append(1))
    assert found.faults == {} and found.count == 0 and seen == [3, 1, 1, 1] and found.usable == ["a", "b", "c"]
    assert main(["data", "check", str(tree)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(
        f"{tree}: 3 pairs of image and mask, 3 classes (class_names.txt)\nsplits: train 1, val 2\n"
    )
    assert "masks:  3 PNG with a palette" in printed and printed.endswith(f"\n{tree}: all is well\n")
    rows = [line.split() for line in printed.splitlines()]
    assert ["1", "road", "25.00", "%", "1", "2"] in rows and ["255", "void", "(255)", "25.00", "%", "1", "2"] in rows


def append(text: bytes, split: str = "train") -> Callable[[Path], None]:
    def plant(tree: Path) -> None:
        path = tree / "ImageSets" / "Segmentation" / f"{split}.txt"
        path.write_bytes(path.read_bytes() + text)

    return plant


def saved(picture: Image.Image) -> Callable[[Path], None]:
    return lambda tree: picture.save(mask(tree, "a"))


def as_jpeg(tree: Path) -> None:
    Image.fromarray(LABEL).save(mask(tree, "a").with_suffix(".jpg"))
    mask(tree, "a").unlink()


def renamed(suffix: str) -> Callable[[Path], None]:
    return lambda tree: mask(tree, "a").rename(mask(tree, "a").with_suffix(suffix)) and None


def turned(tree: Path) -> None:
    write_mask(mask(tree, "a"), LABEL.T.copy())


def twin(tree: Path) -> None:
    (tree / "JPEGImages" / "c.png").write_bytes((tree / "JPEGImages" / "a.png").read_bytes())


def folder_for_image(tree: Path) -> None:
    (tree / "JPEGImages" / "a.png").unlink()
    (tree / "JPEGImages" / "a.png").mkdir()


def pipe_for_image(tree: Path) -> None:
    (tree / "JPEGImages" / "a.png").unlink()
    os.mkfifo(tree / "JPEGImages" / "a.png")


def lists(tree: Path) -> Path:
    return tree / "ImageSets" / "Segmentation"


def without_lists(tree: Path) -> None:
    for path in lists(tree).iterdir():
        path.unlink()


def every_mask(label: np.ndarray) -> Callable[[Path], None]:
    def plant(tree: Path) -> None:
        for name in "abc":
            Image.fromarray(label).save(mask(tree, name))

    return plant


def recoloured(tree: Path, name: str, swap: dict[int, int]) -> None:
    """The same numbers, some with the colour of another."""
    colours = palette(256)
    colours[list(swap)] = colours[list(swap.values())]
    picture = Image.fromarray(LABEL)
    picture.putpalette(colours.tobytes())
    picture.save(mask(tree, name))


def turned_by_exif(tree: Path, orientation: int) -> None:
    path = tree / "JPEGImages" / "a.png"
    exif = Image.Exif()
    exif[274] = orientation
    Image.open(path).save(path, exif=exif)


def low_bits(tree: Path) -> None:
    Image.fromarray(np.arange(0, 4001, 350, np.uint16)[:12].reshape(3, 4) + np.uint16(150)).save(
        tree / "JPEGImages" / "a.png"
    )


def image_of(tree: Path, number: int) -> Path:
    return tree / "JPEGImages" / f"{'abc'[number]}.png"


GREY16 = np.array([[0, 1, 2, 255]] * 3, np.uint16)


# plant, the kind found, what one of its lines says
def two_planes(tree: Path) -> None:
    (tree / "JPEGImages" / "a.png").unlink()
    one, two = (Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4) + i) for i in range(2))
    one.save(tree / "JPEGImages" / "a.tif", save_all=True, append_images=[two])


PLANTED: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "no list": (without_lists, "no lists", "holds no .txt"),
    "path as id": (append(b"../../etc/passwd\n"), "line", "train.txt, line 2: '../../etc/passwd'"),
    "nul": (append(b"a\0b\n"), "line", "line 2: 'a\\x00b'"),
    "empty line": (append(b"\n"), "line", "train.txt, line 2: is empty"),
    "windows": (append(b"a\r\n"), "line", "line 2: ends in CR LF"),
    "byte order mark": (lambda t: write_list(t, b"\xef\xbb\xbfb\n"), "line", "line 1: begins with a byte order mark"),
    "latin-1": (append(b"caf\xe9\n"), "line", "line 2: 'caf\\\\xe9'"),
    "list that is a folder": (lambda t: (lists(t) / "test.txt").mkdir(), "line", "test.txt: is no file of at most"),
    "list that is a pipe": (lambda t: os.mkfifo(lists(t) / "test.txt"), "line", "test.txt: is no file of at most"),
    "list without end": (lambda t: os.truncate(lists(t) / "train.txt", 2**24 + 1), "line", "train.txt: is no file of"),
    "twice": (append(b"b\n"), "repeated", "train.txt, line 2: b is also line 1"),
    "leak": (append(b"a\n"), "leak", "a is in train and in val"),
    "twins": (twin, "twins", "c and a"),
    "name": (lambda t: write_mask(mask(t, "my mask"), LABEL), "name", "SegmentationClass/my mask.png"),
    "no image": (lambda t: (t / "JPEGImages" / "a.png").unlink(), "no image", "a"),
    "no mask": (lambda t: mask(t, "a").unlink(), "no mask", "a"),
    "listed, and not there": (append(b"d\n"), "no mask", "d"),
    "several": (lambda t: (t / "JPEGImages" / "a.jpg").write_bytes(b""), "several", "JPEGImages: a.jpg, a.png"),
    "jpeg": (as_jpeg, "format", "SegmentationClass/a.jpg"),
    "palettes that disagree": (lambda t: recoloured(t, "a", {1: 2, 2: 1}), "palettes", "number 1 is the colour"),
    "colours of VOC elsewhere": (
        lambda t: [recoloured(t, name, {1: 2, 2: 1}) for name in "abc"],
        "palettes",
        "number 1 has the colour 0 128 0, which is VOC's of class 2",
    ),
    "image upside down": (lambda t: turned_by_exif(t, 3), "turned", "a: EXIF orientation 3, and none in a.png"),
    "12 bits in 16": (low_bits, "dark", "a: no number above 4000"),
    "12 bits in 16, of which 8 were kept": (
        lambda t: [
            Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) + n).save(image_of(t, n)) for n in (0, 1, 2)
        ],
        "black",
        "a: no number above 11 of 255",
    ),
    "one colour": (
        lambda t: Image.new("RGB", (4, 3), (1, 2, 3)).save(t / "JPEGImages" / "a.png"),
        "constant",
        "a: all 1, 2, 3",
    ),
    "tiff": (renamed(".tif"), "lossless", "SegmentationClass/a.tif"),
    "array": (renamed(".npy"), "lossless", "SegmentationClass/a.npy"),
    "bmp": (renamed(".bmp"), "lossless", "SegmentationClass/a.bmp"),
    "broken image": (
        lambda t: (t / "JPEGImages" / "a.png").write_bytes(b"GIF"),
        "image",
        "JPEGImages/a.png: content not",
    ),
    "image that is a folder": (folder_for_image, "image", "JPEGImages/a.png: is no regular file"),
    "image that is a pipe": (pipe_for_image, "image", "JPEGImages/a.png: is no regular file"),
    "broken mask": (lambda t: mask(t, "a").write_bytes(b""), "mask", "SegmentationClass/a.png: is empty (0 bytes)"),
    "turned": (turned, "size", "a: mask 3x4, image 4x3; was the image turned by its EXIF orientation?"),
    "two planes": (two_planes, "planes", "1 of 2 planes"),
    "other size": (lambda t: image(t, "a", (9, 9)), "size", "a: mask 4x3, image 9x9"),
    "colours": (saved(Image.fromarray(palette(256)[LABEL])), "colours", "a: 4 colours"),
    "16 bits": (saved(Image.fromarray(GREY16)), "depth", "a: 16-bit PNG"),
    "1 bit": (saved(Image.fromarray(LABEL == 1)), "depth", "a: 1-bit PNG"),
    "alpha": (saved(Image.fromarray(LABEL).convert("LA")), "depth", "a: 8-bit PNG with transparency"),
    "beyond": (lambda t: write_mask(mask(t, "a"), LABEL + 2), "values", "a: 3, 4 at 6 of 12 pixels"),
    "void": (lambda t: write_mask(mask(t, "a"), np.full_like(LABEL, 255)), "void", "a"),
    "black and white": (every_mask(LABEL // 2 % 2 * np.uint8(255)), "black and white", "all 3 masks"),
    "empty": (lambda t: [mask(t, name).unlink() for name in "abc"], "empty", "SegmentationClass"),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_fault_is_found_and_explained(name: str, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant, kind, line = PLANTED[name]
    if name.endswith("pipe") and not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    plant(tree)
    found = check(tree)
    assert kind in found.faults and any(line in one for one in found.faults[kind]), found.faults
    text = said(found)
    title, meaning = KINDS[kind]
    assert f"\n{title}" in text and " ".join(meaning.split()[:5]) in " ".join(text.split())
    assert "all is well" not in text
    assert main(["data", "check", str(tree)]) == 2
    assert capsys.readouterr().out.startswith(with_flags(text))


def test_every_kind_of_fault_is_planted() -> None:
    assert {kind for _, kind, _ in PLANTED.values()} == set(KINDS)


def test_the_report_is_short(tree: Path) -> None:
    append(b"".join(b"no%d\n" % i for i in range(1000)))(tree)
    found = check(tree)
    assert len(found.faults["no mask"]) == 1000
    text = said(found, first=2)
    assert "ids without a mask: 1000" in text and "and 998 more" in text and text.count("  - no") == 4
    assert len(text.splitlines()) < 40 and "2000 faults of 2 kinds" in text


def test_a_split_alone(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask(tree, "a").write_bytes(b"")
    assert main(["data", "check", str(tree), "--split", "train"]) == 0
    assert main(["data", "check", str(tree), "--split", "val"]) == 2
    capsys.readouterr()
    assert main(["data", "check", str(tree), "--split", "test"]) == 2
    assert "no list 'test'; expected one of those there: train, val" in capsys.readouterr().err


def test_other_class_names(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "names").write_text("sky\nroad\n")
    assert main(["data", "check", str(tree), "--classes", str(tmp_path / "names")]) == 2
    assert check(tree, classes=("sky", "road")).faults == {"values": [f"{x}: 2 at 3 of 12 pixels" for x in "abc"]}
    (tree / "class_names.txt").unlink()
    found = check(tree)
    assert found.classes == VOC_CLASSES and not found.faults and "for there is no class_names.txt" in said(found)


def test_roles_of_lists(tree: Path) -> None:
    for split in ("trainval", "seg11valid", "all"):
        write_list(tree, b"a\nb\n", split)
    assert check(tree).faults == {"leak": ["a is in seg11valid and in train", "b is in seg11valid and in train"][1:]}


def test_what_is_learned_of_no_image_is_noted(tree: Path) -> None:
    write_mask(mask(tree, "b"), np.zeros_like(LABEL))
    assert "note: in val and never in train: road, car" in said(check(tree))


@pytest.mark.parametrize("ending", ["_mask", "_seg", "-label"])
def test_masks_named_with_an_ending(ending: str, tree: Path) -> None:
    for name in "abc":
        mask(tree, name).rename(mask(tree, name + ending))
    assert f"note:   masks are named ID{ending}.png: rename them to ID.png" in said(check(tree))


# -------------------------------------------------------------------------------------------------------- other layouts


def test_folders_of_other_names_are_recognised(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "abc":
        Image.open(tree / "JPEGImages" / f"{name}.png").save(tree / "JPEGImages" / f"{name}.jpg")
        (tree / "JPEGImages" / f"{name}.png").unlink()
    (tree / "JPEGImages").rename(tree / "my pictures")
    (tree / "SegmentationClass").rename(tree / "masks")
    assert main(["data", "check", str(tree)]) == 2
    out, error = capsys.readouterr()
    assert f"mv '{tree}/my pictures' {tree}/JPEGImages" in out and f"mv {tree}/masks {tree}/SegmentationClass" in out
    assert error.count("\n") == 1 and "expected a folder with JPEGImages" in error


def test_labelmes_own_files_are_recognised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "a.jpg").write_text("")
    assert main(["data", "check", str(tmp_path)]) == 2
    out = capsys.readouterr().out
    assert "labelme2voc.py" in out and f"minifcn data import {tmp_path} NEW" in out


# -------------------------------------------------------------------------------------------------- what is what, fixed


def test_colours_of_vocs_palette_become_their_numbers(tree: Path, tmp_path: Path) -> None:
    for name in "abc":
        Image.fromarray(palette(256)[LABEL]).save(mask(tree, name))
    append(b"bad id\nd\n")(tree)
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    assert main(["data", "check", str(tree), "--write", str(tmp_path / "new")]) == 0
    assert {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()} == before
    data = VOCSegmentation(tmp_path / "new", "val")
    assert data.ids == ("a", "c") and data.classes == ("sky", "road", "car")
    assert np.array_equal(data[0].label, LABEL)
    assert np.array_equal(data[0].image, np.array(Image.open(tree / "JPEGImages" / "a.png")))
    assert VOCSegmentation(tmp_path / "new", "train").ids == ("b",)
    assert (tmp_path / "new" / "mapping.txt").read_text() == "0 0 0 0\n0 128 0 2\n128 0 0 1\n224 224 192 255\n"


def test_the_proposal_is_shown(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(palette(256)[LABEL]).save(mask(tree, "a"))
    assert main(["data", "check", str(tree)]) == 2
    printed = capsys.readouterr().out
    assert "proposed for the colours (VOC's palette):" in printed and "the 2 masks of numbers:\n" in printed
    assert "  128 0 0        1  road, 25.00 % of the pixels in 1 masks\n" in printed
    assert printed.endswith(f"to write masks of class numbers: minifcn data check {tree} --write NEW_DIR\n")


def test_what_importing_helps_with_ends_with_the_command(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    low_bits(tree)
    assert main(["data", "check", str(tree)]) == 2
    printed = capsys.readouterr().out
    assert "Importing the folder scales them." in " ".join(printed.split())
    assert printed.endswith(f"to import the folder: minifcn data import {tree} NEW\n")


def test_colours_of_nobody_are_numbered_and_may_be_renumbered(tree: Path, tmp_path: Path) -> None:
    (tree / "class_names.txt").unlink()
    colours = np.array([[0, 0, 0], [70, 70, 70], [9, 9, 200], [255, 255, 255]], np.uint8)
    wanted = np.array([[0, 1, 1, 2]] * 2 + [[0, 3, 1, 2]], np.uint8)
    for name in "abc":
        Image.fromarray(colours[wanted]).save(mask(tree, name))
    assert main(["data", "check", str(tree), "--write", str(tmp_path / "new")]) == 0
    data = VOCSegmentation(tmp_path / "new", "train")
    assert data.classes == ("colour 0 0 0", "colour 70 70 70", "colour 9 9 200", "colour 255 255 255")
    assert np.array_equal(data[0].label, wanted)
    text = (tmp_path / "new" / "mapping.txt").read_text()
    assert "255 255 255 3\n" in text
    (tmp_path / "map").write_text(text.replace("255 255 255 3", "255 255 255 255 what is unknown"))
    argv = ["data", "check", str(tree), "--write", str(tmp_path / "newer"), "--map", str(tmp_path / "map")]
    assert main(argv) == 0
    data = VOCSegmentation(tmp_path / "newer", "train")
    assert len(data.classes) == 3 and np.array_equal(data[0].label, np.where(wanted == 3, 255, wanted))


def test_black_and_white_becomes_an_object(tree: Path, tmp_path: Path) -> None:
    label = LABEL // 2 % 2 * np.uint8(255)
    every_mask(label)(tree)
    assert main(["data", "check", str(tree), "--write", str(tmp_path / "new")]) == 0
    assert np.array_equal(VOCSegmentation(tmp_path / "new", "val")[0].label, label // 255)


def test_without_lists_there_is_one_of_all(tree: Path, tmp_path: Path) -> None:
    without_lists(tree)
    assert main(["data", "check", str(tree), "--write", str(tmp_path / "new")]) == 0
    assert VOCSegmentation(tmp_path / "new", "train").ids == ("a", "b", "c")


def test_what_cannot_be_used_is_left_out(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask(tree, "a").write_bytes(b"")
    image(tree, "b", (9, 9))
    assert main(["data", "check", str(tree), "--write", str(tmp_path / "new")]) == 0
    assert VOCSegmentation(tmp_path / "new", None).ids == ("c",)
    assert ": 1 pairs, 2 that cannot be used left out;" in capsys.readouterr().out
    mask(tree, "c").unlink()
    assert main(["data", "check", str(tree), "--write", str(tmp_path / "newer")]) == 2
    assert not (tmp_path / "newer").exists()


def test_an_unknown_number_is_asked_for(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mask(mask(tree, "a"), np.where(LABEL == 2, 99, LABEL).astype(np.uint8))
    assert main(["data", "check", str(tree), "--write", str(tmp_path / "new")]) == 2
    out, error = capsys.readouterr()
    assert "numbers in the masks: 0, 1, 2, 99, 255" in out and "no class is known for 99; say which with --map" in error
    assert not (tmp_path / "new").exists()
    (tmp_path / "map").write_text("99 2\n")
    argv = ["data", "check", str(tree), "--write", str(tmp_path / "new"), "--map", str(tmp_path / "map")]
    assert main(argv) == 0
    assert np.array_equal(VOCSegmentation(tmp_path / "new", "val")[0].label, LABEL)


def test_one_number_more_than_classes_is_explained(tree: Path) -> None:
    write_mask(mask(tree, "a"), LABEL + LABEL // 2 % 2 * 0 + (LABEL == 2))
    assert "One more than the 3 classes. Either the list of classes lacks a line for 0" in said(check(tree))


def test_what_writing_does_not_mend_is_said_again(tree: Path, tmp_path: Path) -> None:
    append(b"a\n")(tree)
    assert main(["data", "check", str(tree), "--write", str(tmp_path / "new")]) == 2
    assert set(check(tmp_path / "new").faults) == {"leak"}


def test_nothing_is_written_over(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    assert main(["data", "check", str(tree), "--write", str(tree)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("check", "data: found 'check'; expected: minifcn data check DIR"),
        ("check t u", "data: found 'check t u'; expected"),
        ("check nowhere", "nowhere: no such folder"),
        ("check t --first 0", "option first is 0; expected a number of at least 1"),
        ("check t --map m", "option --map has nothing to do; expected --write DIR"),
        ("check t --write n --map nothing", "nothing: cannot be read"),
        ("check t --classes nothing", "nothing: cannot be read"),
        ("check t --wirte n", "option --wirte does not exist; did you mean --write?"),
    ],
)
def test_what_the_command_refuses(
    argv: str, line: str, tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tree.parent)
    assert main(["data", *argv.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"minifcn: {line}") and error.count("\n") == 1


# ------------------------------------------------------------------------------------------------------------- mappings


def test_a_photograph_is_no_mask(tree: Path, rng: np.random.Generator) -> None:
    noise = rng.integers(0, 256, (60, 60, 3), dtype=np.uint8)
    image(tree, "a", (60, 60))
    Image.fromarray(noise).save(mask(tree, "a"))
    found = check(tree)
    assert found.many_colours == 1 and not found.colours and "1 masks have more than 1000 colours" in said(found)
    assert found.usable == ["b", "c"]


def test_proposals_for_colours() -> None:
    red, green, void = 0x800000, 0x008000, 0xE0E0C0
    sure = propose_colours({green: 1, 0: 5, void: 2, red: 1}, 3)
    assert sure is not None and sure.sure and list(sure.mapping.items()) == [(0, 0), (red, 1), (green, 2), (void, 255)]
    guess = propose_colours({green: 1, 0: 1, void: 2, 0x123456: 9}, 3)
    assert guess is not None and not guess.sure and guess.mapping == {0: 0, 0x123456: 1, green: 2, void: 255}
    beyond = propose_colours({green: 1, 0: 5}, 2)  # VOC's third colour, but there are two classes
    assert beyond is not None and not beyond.sure and beyond.mapping == {0: 0, green: 1}
    assert propose_colours(dict.fromkeys(range(300), 1), 3) is None


@pytest.mark.parametrize(
    ("found", "mapping"),
    [
        ([0, 1, 2, 255], {}),
        ([255], {}),
        ([0, 255], {0: 0, 255: 1}),
        ([1, 2, 3], {1: 0, 2: 1, 3: 2}),
        ([1, 3, 255], {1: 0, 3: 2, 255: 255}),
        ([0, 127, 254], {0: 0, 127: 1, 254: 2}),
        ([0, 127, 255], {0: 0, 127: 1, 255: 2}),
        ([0, 1, 2, 3], None),
        ([0, 7, 9], None),
        ([1, 9], None),
        ([0, 300], {0: 0, 300: 1}),
        ([0, 85, 170, 255], None),  # four greys, three classes
    ],
)
def test_proposals_for_numbers(found: list[int], mapping: dict[int, int] | None) -> None:
    proposal = propose_numbers(dict.fromkeys(found, 1), 3)
    assert (proposal and dict(proposal.mapping)) == mapping if mapping is not None else proposal is None


def test_a_map_is_read_and_its_first_bad_line_told(tmp_path: Path) -> None:
    path = tmp_path / "map"
    path.write_text("128 0 0 1\n0 0 0 0 background\n300 2\n255 255\n")
    assert read_map(path) == ({0x800000: 1, 0: 0}, {300: 2, 255: 255})
    for line in ("1 2 3", "1", "x", "1 2 3 4 5", "1 256", "256 0 0 1", "-1 2", "99999999999 1", "70000 1"):
        path.write_text(f"0 0\n{line}\n")
        with pytest.raises(DataError, match="map, line 2: found"):
            read_map(path)


def test_remapping_says_what_it_does_not_know() -> None:
    assert np.array_equal(remapped(LABEL, {0: 5, 1: 6, 2: 7, 255: 255})[0], [5, 6, 7, 255])
    coloured = palette(256)[LABEL]
    assert packed(coloured)[0, 1] == 0x800000
    with pytest.raises(DataError, match="no class for 0 128 0, 128 0 0"):
        remapped(coloured, {0: 0, 0xE0E0C0: 255})


@pytest.mark.parametrize(("bits", "rows"), [(1, b"\0\x40"), (2, b"\0\x1b"), (4, b"\0\x01\x23")])
def test_few_bits_are_not_stretched(bits: int, rows: bytes, tmp_path: Path) -> None:
    mask = read_png_mask(png(tmp_path / "m.png", 4 if bits > 1 else 2, 1, bits=bits, colour=0, rows=rows))
    assert mask.kind == f"{bits}-bit PNG"
    assert mask.values.tolist() == [[0, 1] if bits == 1 else [0, 1, 2, 3]]


def test_a_mask_of_a_kind_that_is_taken_is_read_alike(tmp_path: Path) -> None:
    for number, picture in enumerate((Image.fromarray(LABEL), Image.fromarray(LABEL).convert("P"))):
        picture.save(tmp_path / f"{number}.png")
        mask = read_png_mask(tmp_path / f"{number}.png")
        assert mask.kind == ("8-bit PNG", "PNG with a palette")[number]
        assert np.array_equal(mask.values, read_mask(tmp_path / f"{number}.png", classes=255))


def test_correct_names_a_folder_that_cannot_be_written(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        correct(check(tree), tmp_path / "file" / "new")


# -------------------------------------------------------------------------------------- what no reader refuses (silent)


def test_equal_channels_hold_the_numbers(tree: Path, tmp_path: Path) -> None:
    """Not the order of how frequent they are, which would swap classes 1 and 2 here."""
    label = np.array([[0, 2, 2, 2], [0, 1, 2, 255], [0, 0, 0, 0]], np.uint8)
    for name in "abc":
        Image.fromarray(label).convert("RGB").save(mask(tree, name))
    found = check(tree)
    assert "three channels that are equal hold the numbers" in said(found)
    assert main(["data", "check", str(tree), "--write", str(tmp_path / "new")]) == 0
    assert np.array_equal(VOCSegmentation(tmp_path / "new", "val")[0].label, label)


def test_cvats_labelmap_names_the_colours(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "class_names.txt").unlink()
    (tree / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\ncat:9,0,0::\nbackground:0,0,0::\ndog:0,9,0::\n"
    )
    colours = np.array([[0, 0, 0], [0, 9, 0], [9, 0, 0]], np.uint8)
    for name in "abc":
        Image.fromarray(colours[LABEL % 5 % 3]).save(mask(tree, name))
    assert main(["data", "check", str(tree), "--write", str(tmp_path / "new")]) == 0
    said_of_it = capsys.readouterr().out
    assert "3 classes (labelmap.txt)" in said_of_it and "colours named in labelmap.txt" in said_of_it
    data = VOCSegmentation(tmp_path / "new", "val")
    assert data.classes == ("background", "cat", "dog")
    assert np.array_equal(data[0].label, np.array([0, 2, 1], np.uint8)[LABEL % 5 % 3])


def test_lists_of_paths_and_pairs_are_mapped(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_list(tree, b"b.png\nJPEGImages/a.png SegmentationClass/a.png\n", "train")
    write_list(tree, b"/elsewhere/c.jpg\n", "val")
    write_list(tree, b"x.png\n", "test")
    found = check(tree)
    assert found.splits == {"test": (), "train": ("b", "a"), "val": ("c",)}
    assert "train.txt, line 1: 'b.png', read as b" in found.faults["line"]
    assert main(["data", "check", str(tree), "--write", str(tmp_path / "new")]) == 0
    assert VOCSegmentation(tmp_path / "new", "train").ids == ("b", "a")
    assert "test.txt names no image: it is not used, and not written" in capsys.readouterr().out


def test_masks_that_may_be_unfinished_are_noted(tree: Path) -> None:
    write_mask(mask(tree, "a"), np.zeros_like(LABEL))
    large = np.zeros((80, 80), np.uint8)
    large[0, 0] = 1
    image(tree, "b", (80, 80), seed=7)
    write_mask(mask(tree, "b"), large)
    found = check(tree)
    notes = " ".join(found.notes)
    assert not found.faults and "1 masks have less than 0.05 % of all classes but one, b first" in notes
    assert "1 masks hold one number, a first" in notes


@pytest.mark.usefixtures("undrawn")
def test_training_warns_of_what_no_reader_refuses(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    low_bits(tree)
    recoloured(tree, "b", {1: 2, 2: 1})
    for name in "bc":
        Image.new("RGB", (4, 3), (1, 2, 3)).save(tree / "JPEGImages" / f"{name}.png")
    turned_by_exif(tree, 3)
    said_of_train = " ".join(warnings_of(VOCSegmentation(tree, None)))
    for kind in ("palettes", "turned", "dark"):
        assert KINDS[kind][0] in said_of_train
    few = ["--width", "2", "--layers", "11", "--epochs", "1", "--stop-after", "1", "--threads", "1", "--batch", "1"]
    try:
        main(["train", *few, "--data", str(tree), "--run", str(tree / "run")])
    finally:
        set_threads(None)
    out = capsys.readouterr().out
    assert (
        "images of one colour: b: all 1, 2, 3 and 1 more" in out and "there twice, equal in every pixel: c and b" in out
    )
    assert f"warning: split val: {KINDS['turned'][0]}: a: EXIF orientation 3" in out


# ------------------------------------------------------------------------------------------------------------ real data


@pytest.mark.parametrize(
    ("name", "pairs"), [("voc2012_mini", 136), ("camvid_240x180", 468), ("stanford_background", 230)]
)
def test_real_sets_are_well(name: str, pairs: int, data_root: Path) -> None:
    if not (data_root / name).is_dir():
        pytest.skip(f"{name} is not in the folder that MINIFCN_DATA names")
    found = check(data_root / name, split="val")
    assert found.faults == {} and 0 < len(found.usable) < pairs


def test_labelmes_example_lacks_only_its_lists(data_root: Path) -> None:
    folder = data_root / "labelme_voc_example"
    if not folder.is_dir():
        pytest.skip("labelme_voc_example is not in the folder that MINIFCN_DATA names")
    found = check(folder)
    assert set(found.faults) == {"no lists"} and len(found.usable) == 3 and found.classes[0] == "_background_"
