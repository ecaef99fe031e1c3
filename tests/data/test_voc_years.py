"""What the paper learns VOC from: SBD, in files of MATLAB, and seg11valid, the part of VOC 2011 val outside of it."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_files import MEGABYTE, at_most
from test_voc import make_tree, refusal

from minifcn.data import voc
from minifcn.data.files import write_image
from minifcn.data.sbd import SBD
from minifcn.data.voc import VOC_CLASSES, VOCSegmentation

NUMBERS = {"u1": (2, 9), "u2": (4, 11), "i2": (3, 10), "f8": (9, 6), "f4": (7, 7)}  # kinds and classes of MATLAB


def element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def header(name: str, sizes: tuple[int, ...], flags: int) -> bytes:
    return (
        element(6, struct.pack("<II", flags, 0))
        + element(5, struct.pack(f"<{len(sizes)}i", *sizes))
        + element(1, name.encode())
    )


def matrix(name: str, array: np.ndarray) -> bytes:
    """A matrix as MATLAB's version 5 has it."""
    kind, flags = NUMBERS[array.dtype.str[1:]]
    return element(14, header(name, array.shape, flags) + element(kind, array.tobytes(order="F")))


def struct_of(name: str, fields: dict[str, bytes]) -> bytes:
    """A struct of one element; a field is a whole matrix without a name."""
    letters = b"".join(field.encode().ljust(32, b"\0") for field in fields)
    lengths = struct.pack("<HHi", 5, 4, 32)  # the four bytes stand within the tag
    return element(14, header(name, (1, 1), 2) + lengths + element(1, letters) + b"".join(fields.values()))


def write_mat(path: Path, *elements: bytes, deflate: bool = True) -> None:
    folded = [struct.pack("<II", 15, len(one)) + one for one in map(zlib.compress, elements)]
    head = b"MATLAB 5.0 MAT-file, by hand".ljust(124) + b"\x00\x01IM"
    path.write_bytes(head + b"".join(folded if deflate else elements))


def write_sbd_label(path: Path, label: np.ndarray, **options: Any) -> None:
    """As in SBD: a cell with outlines first, which is not read, and which classes there are last."""
    outlines = element(14, header("", (20, 1), 1) + bytes(800))
    there = np.unique(label[label > 0]).astype(np.uint8)[:, None]
    fields = {"Boundaries": outlines, "Segmentation": matrix("", label), "CategoriesPresent": matrix("", there)}
    write_mat(path, struct_of("GTcls", fields), **options)


IDS = ("2008_000002", "2008_000003", "2009_000001")


def make_sbd(folder: Path, ids: tuple[str, ...] = IDS, train: tuple[str, ...] = IDS[:2]) -> Path:
    for part in ("img", "cls"):
        (folder / part).mkdir(parents=True)
    for name in ids:
        write_image(folder / "img" / f"{name}.jpg", np.full((4, 5, 3), 90, dtype=np.uint8))
        write_sbd_label(folder / "cls" / f"{name}.mat", np.arange(20, dtype=np.uint8).reshape(4, 5))
    (folder / "train.txt").write_text("".join(f"{name}\n" for name in train), encoding="ascii")
    (folder / "val.txt").write_text("".join(f"{name}\n" for name in ids if name not in train), encoding="ascii")
    return folder


# -------------------------------------------------------------------------------------------------------------- SBD


@pytest.mark.parametrize("inner", ["", "dataset", "benchmark_RELEASE/dataset"])
def test_sbd_is_read_from_any_of_its_folders(tmp_path: Path, inner: str) -> None:
    folder = make_sbd(tmp_path / inner)
    data = SBD(tmp_path)
    assert data.ids == IDS[:2] and data.folder == folder and data.classes == VOC_CLASSES
    assert SBD(tmp_path, "val").ids == IDS[2:] and SBD(tmp_path, None).ids == IDS
    sample = data[1]
    assert sample.id == IDS[1] and sample.image.shape == (4, 5, 3)
    assert sample.label.dtype == np.uint8 and np.array_equal(sample.label, np.arange(20).reshape(4, 5))
    assert repr(data) == f"SBD({str(folder)!r}, split='train'): 2 pairs, 21 classes"


def test_sbd_as_scipy_writes_it(tmp_path: Path, scipy_io: Any) -> None:
    """Another writer, another order of fields, cells of sparse matrices beside the labels."""
    import scipy.sparse

    make_sbd(tmp_path)
    label = np.arange(20, dtype=np.uint8)[::-1].reshape(4, 5)
    outlines = np.empty((20, 1), dtype=object)
    for index in range(20):
        outlines[index, 0] = scipy.sparse.csc_matrix(label == index)
    for name, compressed in zip(IDS, (True, False, True), strict=True):
        labels = {"Segmentation": label, "Boundaries": outlines, "CategoriesPresent": np.arange(1, 20)}
        scipy_io.savemat(tmp_path / "cls" / f"{name}.mat", {"GTcls": labels, "x": 1}, do_compression=compressed)
    assert all(np.array_equal(sample.label, label) for sample in SBD(tmp_path, None))


FAULTS: dict[str, tuple[bytes, str]] = {
    "no struct": (matrix("GTcls", np.zeros((4, 5))), "GTcls.Segmentation: found only other things"),
    "another field": (struct_of("GTcls", {"Boundaries": matrix("", np.zeros((4, 5)))}), "a matrix called GTcls.Segm"),
    "a text for a label": (
        struct_of("GTcls", {"Segmentation": element(14, header("", (4, 5), 4) + element(16, bytes(20)))}),
        "GTcls.Segmentation: found a text",
    ),
    "no matrix in a field": (struct_of("GTcls", {"Segmentation": element(9, bytes(160))}), "an element of kind 9"),
    "a field cut off": (struct_of("GTcls", {"Boundaries": b"", "Segmentation": b""}), "0 bytes left"),
    "the field twice": (
        element(
            14,
            header("GTcls", (1, 1), 2)
            + struct.pack("<HHi", 5, 4, 16)
            + element(1, b"Segmentation".ljust(16, b"\0") * 2)
            + matrix("", np.zeros((4, 5))) * 2,
        ),
        "the name twice",
    ),
    "no length of names": (element(14, header("GTcls", (1, 1), 2) + element(5, b"") + element(1, b"")), "or none"),
    "names of length 0": (
        element(14, header("GTcls", (1, 1), 2) + struct.pack("<HHi", 5, 4, 0) + element(1, b"abc")),
        "one struct with fields",
    ),
    "names of length -1": (
        element(14, header("GTcls", (1, 1), 2) + struct.pack("<HHi", 5, 4, -1) + element(1, b"abc")),
        "one struct with fields",
    ),
    "two structs": (
        element(14, header("GTcls", (1, 2), 2) + struct.pack("<HHi", 5, 4, 1) + element(1, b"S")),
        "[1, 2]",
    ),
    "three axes": (struct_of("GTcls", {"Segmentation": matrix("", np.zeros((4, 5, 1)))}), "shape (4, 5, 1)"),
    "an empty map": (struct_of("GTcls", {"Segmentation": matrix("", np.zeros((0, 5)))}), "shape (0, 5)"),
    "class 21": (struct_of("GTcls", {"Segmentation": matrix("", np.full((4, 5), 21.0))}), "holds 21 at 20 of 20"),
    "half a class": (struct_of("GTcls", {"Segmentation": matrix("", np.full((4, 5), 0.5))}), "holds 0.5 at 20 of 20"),
    "another size": (struct_of("GTcls", {"Segmentation": matrix("", np.zeros((5, 5)))}), "mask of 5x5; expected 5x4"),
    "turned": (struct_of("GTcls", {"Segmentation": matrix("", np.zeros((5, 4)))}), "EXIF"),
}


@pytest.mark.parametrize("what", FAULTS)
@pytest.mark.parametrize("deflate", [False, True])
def test_a_label_that_cannot_be_one_is_refused_and_named(tmp_path: Path, what: str, deflate: bool) -> None:
    data = SBD(make_sbd(tmp_path))
    content, words = FAULTS[what]
    write_mat(tmp_path / "cls" / f"{IDS[0]}.mat", content, deflate=deflate)
    message = refusal(lambda: data[0])
    assert message.startswith(str(tmp_path / "cls" / f"{IDS[0]}.mat")) and words in message
    with pytest.warns(UserWarning, match="skipped 1 of 3 pairs"):
        assert SBD(tmp_path, None, skip_bad=True).ids == IDS[1:]


def test_a_map_of_terabytes_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    data = SBD(make_sbd(tmp_path))
    lie = element(14, header("", (10**6, 10**6), 9) + element(2, bytes(20)))
    bomb = matrix("", np.zeros((2**13, 2**13), dtype=np.uint8))  # 64 MB in 65 kB
    for content in (lie, bomb):
        write_mat(tmp_path / "cls" / f"{IDS[0]}.mat", struct_of("GTcls", {"Segmentation": content}))
        with at_most(40 * MEGABYTE):
            assert "found" in refusal(lambda: data[0])


def test_every_truncation_of_a_label_is_refused(tmp_path: Path) -> None:
    data = SBD(make_sbd(tmp_path))
    path = tmp_path / "cls" / f"{IDS[0]}.mat"
    write_sbd_label(path, np.zeros((4, 5), dtype=np.uint8), deflate=False)
    whole = path.read_bytes()
    assert data[0].label.shape == (4, 5)
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        refusal(lambda: data[0])


def test_partners_that_are_missing_are_named(tmp_path: Path) -> None:
    make_sbd(tmp_path)
    (tmp_path / "cls" / f"{IDS[1]}.mat").unlink()
    message = refusal(lambda: SBD(tmp_path))
    assert str(tmp_path / "cls") in message and f"{IDS[1]}.mat" in message and "first of 1 such among 2 ids" in message
    assert "expected img and cls" in refusal(lambda: SBD(tmp_path / "img"))
    (tmp_path / "train.txt").write_text("../../etc/passwd\n", encoding="ascii")
    assert "train.txt, line 1: " in refusal(lambda: SBD(tmp_path))
    assert "one of train, val" in refusal(lambda: SBD(tmp_path, "test"))


# -------------------------------------------------------------------------------------------------------- seg11valid


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """VOC 2011 and 2012 with SBD beside the devkit; two of three val pictures are in SBD's train."""
    monkeypatch.setattr(voc, "SEG11VALID_COUNT", 1)
    make_tree(tmp_path / "VOCdevkit" / "VOC2012")
    make_tree(tmp_path / "VOCdevkit" / "VOC2011", ids=(*IDS, "2010_7"), val=(IDS[2], IDS[0], IDS[1]))
    make_sbd(tmp_path / "benchmark_RELEASE" / "dataset")
    return tmp_path


def test_seg11valid_is_val_of_2011_without_what_sbd_trains_on(both: Path) -> None:
    folder = both / "VOCdevkit" / "VOC2011"
    for root in (both, both / "VOCdevkit", folder):
        data = VOCSegmentation(root, "seg11valid")
        assert data.ids == IDS[2:] and data.folder == folder
    elsewhere = (both / "benchmark_RELEASE").rename(both.parent / f"{both.name}-sbd")
    assert VOCSegmentation(both, "seg11valid", sbd=elsewhere).ids == IDS[2:]
    message = refusal(lambda: VOCSegmentation(both, "seg11valid"))
    assert "seg11valid.txt: no such list" in message and "name SBD's folder as sbd=" in message
    assert "is no folder of SBD" in refusal(lambda: VOCSegmentation(both, "seg11valid", sbd=both / "VOCdevkit"))


def test_a_list_seg11valid_is_taken_in_any_year(both: Path) -> None:
    for year, names in (("2011", "2010_7\n"), ("2012", "9\n")):
        folder = both / "VOCdevkit" / f"VOC{year}"
        if year == "2012":
            message = refusal(lambda: VOCSegmentation(both, "seg11valid", year="2012"))
            assert "this is VOC 2012; expected VOC 2011" in message
        (folder / "ImageSets" / "Segmentation" / "seg11valid.txt").write_text(names, encoding="ascii")
        assert VOCSegmentation(folder, "seg11valid").ids == (names.strip(),)
    assert VOCSegmentation(both, "seg11valid").ids == ("2010_7",)
    assert VOCSegmentation(both, "seg11valid", year="2012").ids == ("9",)


def test_another_count_than_the_papers_is_said(both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voc, "SEG11VALID_COUNT", 736)
    with pytest.warns(UserWarning, match="has 1 pictures; the paper counts 736"):
        VOCSegmentation(both, "seg11valid")


@pytest.mark.parametrize("year", [str(year) for year in range(2007, 2013)])
def test_every_year_is_read(tmp_path: Path, year: str) -> None:
    folder = make_tree(tmp_path / "VOCdevkit" / f"VOC{year}")
    assert VOCSegmentation(tmp_path).folder == VOCSegmentation(tmp_path, year=year).folder == folder
    assert len(list(VOCSegmentation(folder))) == 3
