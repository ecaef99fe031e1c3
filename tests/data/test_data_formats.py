"""NYUDv2, SIFT Flow and PASCAL-Context in their own formats, and how a folder is recognised."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_voc import make_tree, refusal
from test_voc_years import make_sbd, matrix, write_mat

from minifcn import data as package
from minifcn.cli.verbs import main
from minifcn.data import nyud
from minifcn.data.files import read_depth, write_image, write_mask
from minifcn.data.listed import MAX_LIST, Listed
from minifcn.data.nyud import NYUD, NYUD_CLASSES
from minifcn.data.opening import open_data
from minifcn.data.pascal_context import IN_LABELS, PASCAL_CONTEXT_CLASSES, PASCALContext
from minifcn.data.sbd import SBD
from minifcn.data.siftflow import SCENES, SIFT_FLOW_CLASSES, SIFT_FLOW_GEOMETRY, SIFTFlow
from minifcn.data.voc import VOC_CLASSES, VOCSegmentation
from minifcn.errors import DataError, UsageError

HEIGHT, WIDTH = 3, 4


def photo(path: Path, height: int = HEIGHT, width: int = WIDTH, red: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.full((height, width, 3), 90, dtype=np.uint8)
    picture[..., 0] = red
    write_image(path, picture)


def numbers(path: Path, name: str, array: Any, dtype: str = "u1") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mat(path, matrix("names", np.zeros((2, 2))), matrix(name, np.asarray(array).astype(dtype)))


def depth_map(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, dtype=np.uint16)).save(path)


def ids_file(path: Path, *names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(names), encoding="ascii")


# ------------------------------------------------------------------------------------------------------------ NYUDv2

ROOMS = np.arange(12).reshape(HEIGHT, WIDTH)  # 0 is void
MILLIMETRES = ROOMS * 1000


def make_nyud(root: Path, inner: str = "data") -> Path:
    for name in ("5001", "5003", "5010"):
        photo(root / inner / "images" / f"img_{name}.png")
        numbers(root / "segmentation" / f"img_{name}.mat", "segmentation", ROOMS)
        depth_map(root / inner / "depth" / f"img_{name}.png", MILLIMETRES)
        photo(root / inner / "hha" / f"img_{name}.png", red=200)
    ids_file(root / "train.txt", "5003")
    ids_file(root / "val.txt", "5010")
    ids_file(root / "test.txt", "5001")
    return root


@pytest.mark.parametrize("inner", ["data", ""])
def test_nyud_in_the_format_of_the_reference(tmp_path: Path, inner: str) -> None:
    data = NYUD(make_nyud(tmp_path, inner))
    assert data.ids == ("5003",) and data.classes == NYUD_CLASSES and len(NYUD_CLASSES) == 40
    assert NYUD(tmp_path, "trainval").ids == ("5003", "5010") and NYUD(tmp_path, "test").ids == ("5001",)
    assert NYUD(tmp_path, None).ids == ("5001", "5003", "5010")
    sample = data[0]
    assert sample.depth is not None and sample.hha is not None
    assert sample.label.dtype == np.uint8 and sample.label.ravel().tolist() == [255, *range(11)]
    assert sample.depth.dtype == np.float32 and sample.depth.ravel().tolist() == list(range(12))
    assert sample.hha.shape == (HEIGHT, WIDTH, 3) and sample.hha[0, 0].tolist() == [200, 90, 90]
    assert (NYUD(tmp_path, per_metre=500)[0].depth == 2 * sample.depth).all()


def test_nyud_has_depth_and_hha_where_the_folder_has_them(tmp_path: Path) -> None:
    make_nyud(tmp_path)
    shutil.rmtree(tmp_path / "data" / "hha")
    assert NYUD(tmp_path)[0].hha is None and NYUD(tmp_path)[0].depth is not None
    (tmp_path / "data" / "depth" / "img_5003.png").unlink()
    assert "depth: no file for id 5003; expected img_5003.png" in refusal(lambda: NYUD(tmp_path))
    with pytest.warns(UserWarning, match="skipped 1 of 3 pairs"):
        assert NYUD(tmp_path, None, skip_bad=True).ids == ("5001", "5010")
    shutil.rmtree(tmp_path / "data" / "depth")
    assert NYUD(tmp_path)[0].depth is None


def test_a_list_of_nyud_goes_before_what_is_made_of_others(tmp_path: Path) -> None:
    make_nyud(tmp_path)
    ids_file(tmp_path / "trainval.txt", "5010", "5003")
    assert NYUD(tmp_path, "trainval").ids == ("5010", "5003")


def test_a_picture_of_nyud_that_is_in_both_lists_is_refused(tmp_path: Path) -> None:
    make_nyud(tmp_path)
    ids_file(tmp_path / "val.txt", *NYUD(tmp_path, "val").ids, "5003")
    ids_file(tmp_path / "train.txt", "5003", "5010")
    assert "val.txt: 5003 is also in train.txt" in refusal(lambda: NYUD(tmp_path, "trainval"))
    assert "5003" in NYUD(tmp_path, "val").ids


def test_splits_mat_numbers_pictures_from_one(tmp_path: Path) -> None:
    make_nyud(tmp_path)
    two = [matrix("trainNdxs", np.array([[3], [10]], "u2")), matrix("testNdxs", np.array([[1]], "u2"))]
    write_mat(tmp_path / "splits.mat", *two)
    for name in ("val.txt", "test.txt"):
        (tmp_path / name).unlink()
    assert NYUD(tmp_path, "trainval").ids == ("5003", "5010") and NYUD(tmp_path, "test").ids == ("5001",)
    assert "val.txt: no such split list" in refusal(lambda: NYUD(tmp_path, "val"))
    write_mat(tmp_path / "splits.mat", two[0], matrix("testNdxs", np.array([[1450]], "u2")))
    assert "testNdxs holds 1450 at 1 of 1" in refusal(lambda: NYUD(tmp_path, "test"))


@pytest.mark.parametrize(
    ("label", "depth", "per_metre"),
    [("segm_gt_{}.png", "depth_gt_{}.png", 5000), ("{}_mask.png", None, 5000)],
)
def test_nyud_in_one_folder(tmp_path: Path, label: str, depth: str | None, per_metre: int) -> None:
    for name in ("000433", "000464"):
        photo(tmp_path / f"{name}.png")
        write_mask(tmp_path / label.format(name), np.where(ROOMS == 0, 255, ROOMS - 1).astype(np.uint8))
        if depth:
            depth_map(tmp_path / depth.format(name), MILLIMETRES)
    data = NYUD(tmp_path, None)
    assert data.ids == ("000433", "000464") and data[1].label.ravel().tolist() == [255, *range(11)]
    found = data[0].depth
    if depth:
        assert found is not None and np.allclose(found * per_metre, MILLIMETRES) and found[0, 0] == 0
    else:
        assert found is None
    assert "load every mask with split=None" in refusal(lambda: NYUD(tmp_path))


def test_other_pairs_in_one_folder_are_no_nyud(tmp_path: Path) -> None:
    photo(tmp_path / "img0.png")
    write_mask(tmp_path / "img0_mask.png", ROOMS.astype(np.uint8))
    assert "no folder of NYUDv2" in refusal(lambda: NYUD(tmp_path, None))


def test_nyud_says_what_it_misses(tmp_path: Path) -> None:
    assert "expected images and segmentation" in refusal(lambda: NYUD(tmp_path))
    make_nyud(tmp_path)
    for picture in (tmp_path / "data" / "images").iterdir():
        picture.unlink()
    assert "a kind that it needs, image" in refusal(lambda: NYUD(tmp_path))


Change = Callable[[Path], None]
NYUD_FAULTS: dict[str, tuple[Change, str]] = {
    "class 41": (lambda r: numbers(r / "segmentation/img_5003.mat", "segmentation", ROOMS + 30), "holds 41 at 1 of 12"),
    "no number": (
        lambda r: numbers(r / "segmentation/img_5003.mat", "segmentation", np.full((3, 4), np.nan), "f8"),
        "segmentation holds nan at 12 of 12 pixels; expected 0..40",
    ),
    "infinity": (
        lambda r: numbers(r / "segmentation/img_5003.mat", "segmentation", np.full((3, 4), np.inf), "f8"),
        "segmentation holds inf at 12 of 12 pixels",
    ),
    "half a class": (
        lambda r: numbers(r / "segmentation/img_5003.mat", "segmentation", np.full((3, 4), 0.5), "f8"),
        "segmentation holds 0.5 at 12 of 12 pixels",
    ),
    "another variable": (lambda r: numbers(r / "segmentation/img_5003.mat", "S", ROOMS), "called segmentation"),
    "labels of another size": (
        lambda r: numbers(r / "segmentation/img_5003.mat", "segmentation", ROOMS[:2]),
        "mask of 4x2; expected 4x3",
    ),
    "8-bit depth": (lambda r: photo(r / "data/depth/img_5003.png"), "depth is a PNG of mode RGB; expected 16-bit grey"),
    "depth of another size": (
        lambda r: depth_map(r / "data/depth/img_5003.png", ROOMS.T),
        "depth of 3x4; expected 4x3",
    ),
    "HHA of another size": (lambda r: photo(r / "data/hha/img_5003.png", width=9), "hha of 9x3; expected 4x3"),
    "no PNG": (lambda r: ids_file(r / "data/depth/img_5003.png", "x"), "content not recognised"),
}


@pytest.mark.parametrize("what", NYUD_FAULTS)
def test_a_file_of_nyud_that_is_wrong_is_named(tmp_path: Path, what: str) -> None:
    data = NYUD(make_nyud(tmp_path))
    assert data[0].id == "5003"
    change, words = NYUD_FAULTS[what]
    change(tmp_path)
    message = refusal(lambda: data[0])
    assert words in message and "img_5003" in message


@pytest.mark.parametrize("per_metre", [0, -1, float("inf"), float("nan"), "1000"])
def test_depth_needs_a_unit(tmp_path: Path, per_metre: Any) -> None:
    depth_map(tmp_path / "d.png", MILLIMETRES)
    assert "per_metre=" in refusal(lambda: read_depth(tmp_path / "d.png", per_metre=per_metre), UsageError)


# --------------------------------------------------------------------------------------------------------- SIFT Flow

SCENE = np.arange(12).reshape(HEIGHT, WIDTH) + 22  # 22..33
LYING = np.array([[-1, 0, 1, 2], [3, 3, 3, 3], [1, 1, 1, 1]])


def make_siftflow(root: Path, inner: str = SCENES) -> Path:
    for name in ("coast_bea1", "street_par3"):
        photo(root / "Images" / inner / f"{name}.jpg")
        numbers(root / "SemanticLabels" / inner / f"{name}.mat", "S", np.where(LYING < 0, 0, SCENE))
        numbers(root / "GeoLabels" / inner / f"{name}.mat", "S", LYING, "i2")
    ids_file(root / "trainval.txt", "coast_bea1")
    ids_file(root / "test.txt", "street_par3")
    return root


def test_ids_come_in_the_order_of_their_names_whatever_the_folder_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 38: a folder lists its files in whatever order they came into it."""
    make_nyud(tmp_path / "nyud"), make_siftflow(tmp_path / "siftflow")
    listdir = os.listdir
    for backward in (False, True):
        monkeypatch.setattr(os, "listdir", lambda *args, back=backward: sorted(listdir(*args), reverse=back))
        assert NYUD(tmp_path / "nyud", None).ids == ("5001", "5003", "5010")
        assert SIFTFlow(tmp_path / "siftflow", None).ids == ("coast_bea1", "street_par3")


@pytest.mark.parametrize("inner", [SCENES, ""])
def test_sift_flow_has_two_labels(tmp_path: Path, inner: str) -> None:
    data = SIFTFlow(make_siftflow(tmp_path, inner))
    assert data.ids == ("coast_bea1",) and SIFTFlow(tmp_path, "test").ids == ("street_par3",)
    assert SIFTFlow(tmp_path, None).ids == ("coast_bea1", "street_par3")
    assert data.classes == SIFT_FLOW_CLASSES and len(set(SIFT_FLOW_CLASSES)) == 33
    assert data.geometry_classes == SIFT_FLOW_GEOMETRY == ("sky", "horizontal", "vertical")
    sample = data[0]
    assert sample.label.dtype == np.uint8 and sample.label.ravel().tolist() == [255, *range(22, 33)]
    assert sample.geometry is not None and sample.geometry.dtype == np.uint8
    assert sample.geometry.tolist() == [[255, 255, 0, 1], [2, 2, 2, 2], [0, 0, 0, 0]]


def test_sift_flow_without_geometry(tmp_path: Path) -> None:
    folder = make_siftflow(tmp_path / "SiftFlowDataset")
    (folder / "GeoLabels" / SCENES / "coast_bea1.mat").unlink()
    message = refusal(lambda: SIFTFlow(tmp_path))
    assert "GeoLabels" in message and "no file for id coast_bea1; expected coast_bea1.mat" in message
    with pytest.warns(UserWarning, match="skipped 1 of 2 pairs"):
        assert SIFTFlow(tmp_path, None, skip_bad=True).ids == ("street_par3",)
    shutil.rmtree(folder / "GeoLabels")
    data = SIFTFlow(tmp_path)
    assert data.geometry_classes == () and data[0].geometry is None


SIFT_FAULTS: dict[str, tuple[Change, str]] = {
    "semantic class 34": (lambda r: numbers(r / "SemanticLabels/coast_bea1.mat", "S", SCENE + 1), "holds 34 at 1 of"),
    "semantic -1": (lambda r: numbers(r / "SemanticLabels/coast_bea1.mat", "S", LYING, "i2"), "expected 0..33"),
    "geometric class 4": (lambda r: numbers(r / "GeoLabels/coast_bea1.mat", "S", LYING + 1, "i2"), "expected -1..3"),
    "geometric -2": (lambda r: numbers(r / "GeoLabels/coast_bea1.mat", "S", LYING - 1, "i2"), "holds -2 at 1 of 12"),
    "geometric of another size": (
        lambda r: numbers(r / "GeoLabels/coast_bea1.mat", "S", LYING[:1], "i2"),
        "mask of 4x1; expected 4x3",
    ),
}


@pytest.mark.parametrize("what", SIFT_FAULTS)
def test_a_label_of_sift_flow_that_is_wrong_is_named(tmp_path: Path, what: str) -> None:
    data = SIFTFlow(make_siftflow(tmp_path, ""))
    change, words = SIFT_FAULTS[what]
    change(tmp_path)
    message = refusal(lambda: data[0])
    assert words in message and "coast_bea1.mat" in message


def test_data_check_reads_through_other_formats_than_vocs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(make_siftflow(tmp_path, ""))
    assert main(["data", "check", folder]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("holds Images and SemanticLabels (SIFT Flow): 2 images, 33 classes")
    assert said[1] == f"{folder}: all is well"
    numbers(tmp_path / "SemanticLabels/coast_bea1.mat", "S", SCENE + 1)
    (tmp_path / "Images/street_par3.jpg").write_bytes(b"no picture")
    assert main(["data", "check", folder, "--first", "1"]) == 2
    said = capsys.readouterr().out.splitlines()
    assert "coast_bea1.mat" in said[1] and "holds 34 at 1 of" in said[1]
    assert said[2:] == ["  - and 1 more (--first 2 shows all)", f"{folder}: 2 of them cannot be used"]
    assert main(["data", "check", folder, "--split", "test"]) == 2 and "street_par3" in capsys.readouterr().out
    assert main(["data", "check", folder, "--write", str(tmp_path / "new")]) == 2
    assert "option --write is for trees of PASCAL VOC" in capsys.readouterr().err


def test_sift_flow_says_what_it_looked_for(tmp_path: Path) -> None:
    assert "expected Images and SemanticLabels" in refusal(lambda: SIFTFlow(tmp_path))
    make_siftflow(tmp_path)
    assert "one of test, trainval; did you mean 'trainval'?" in refusal(lambda: SIFTFlow(tmp_path, "train"))


# ---------------------------------------------------------------------------------------------------- PASCAL-Context

FOUND = ["accordion", "pool table", "clothes tree", "sand"]
NAMES = [*FOUND, *(IN_LABELS.get(name, name) for name in sorted(PASCAL_CONTEXT_CLASSES[1:])), "wool"]
NUMBER = {name: index for index, name in enumerate(NAMES, start=1)}


def make_context(root: Path, tree: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    ids_file(root / "labels.txt", *(f"{number}: {name}" for name, number in NUMBER.items()))
    seen = ["aeroplane", "table", "bedclothes", "cloth", "clothes tree", "pool table", "wood", "tvmonitor", "wool"]
    for name in ("2008_000002", "2008_000003"):
        photo(tree / "JPEGImages" / f"{name}.jpg")
        label = np.array([NUMBER[one] for one in seen] + [0, NUMBER["bag"], NUMBER["accordion"]])
        numbers(root / "trainval" / f"{name}.mat", "LabelMap", label.reshape(HEIGHT, WIDTH), "u2")
    ids_file(tree / "ImageSets" / "Main" / "train.txt", "2008_000002")
    ids_file(tree / "ImageSets" / "Main" / "val.txt", "2008_000003")
    return root


def test_pascal_context_joins_its_lists_by_name(tmp_path: Path) -> None:
    data = PASCALContext(make_context(tmp_path / "context", tmp_path / "VOCdevkit" / "VOC2010"))
    assert data.ids == ("2008_000002",) and PASCALContext(data.folder, "val").ids == ("2008_000003",)
    assert len(PASCALContext(data.folder, None)) == 2
    assert data.classes == PASCAL_CONTEXT_CLASSES and len(set(data.classes)) == 60
    assert data.classes[:21] == VOC_CLASSES and data.classes[59] == "wood"
    index = data.classes.index
    expected = [1, index("diningtable"), index("bedcloth"), index("clothes"), 0, 0, 59, 20, 0, 0, index("bag"), 0]
    assert data[0].label.dtype == np.uint8 and data[0].label.ravel().tolist() == expected


@pytest.mark.parametrize("tree", ["VOC2010", "VOCdevkit/VOC2010", "context/VOCdevkit/VOC2010", "context"])
def test_pascal_context_finds_the_pictures_of_voc_2010(tmp_path: Path, tree: str) -> None:
    make_context(tmp_path / "context", tmp_path / tree)
    assert PASCALContext(tmp_path / "context")[0].image.shape == (HEIGHT, WIDTH, 3)
    assert PASCALContext(tmp_path / "context", voc=tmp_path / tree).ids == ("2008_000002",)


def test_pascal_context_says_what_it_misses(tmp_path: Path) -> None:
    assert "expected labels.txt and trainval" in refusal(lambda: PASCALContext(tmp_path))
    make_context(tmp_path / "context", tmp_path / "elsewhere" / "VOCdevkit" / "VOC2010")
    assert "name its folder as voc=" in refusal(lambda: PASCALContext(tmp_path / "context"))
    assert len(PASCALContext(tmp_path / "context", voc=tmp_path / "elsewhere")) == 1
    wrong = tmp_path / "context" / "trainval"
    assert "context/trainval: no pictures of VOC 2010" in refusal(lambda: PASCALContext(wrong.parent, voc=wrong))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("1: accordion", "no label 'aeroplane'; expected all 59"),
        ("1: accordion\naeroplane", "labels.txt, line 2: 'aeroplane'; expected a number and a name"),
        ("12345: accordion", "line 1"),
        ("1: a\n1: b", "a number stands twice"),
        ("1: bedclothes\n2: pool table\n3: pooltable\n4: bed clothes", "line 4: 'bedclothes' is also number 1"),
        ("1: a\r\n2: b", "CR LF"),
        ("", "labels.txt: is empty"),
    ],
)
def test_a_broken_list_of_labels_is_refused(tmp_path: Path, content: str, words: str) -> None:
    make_context(tmp_path / "context", tmp_path / "VOC2010")
    (tmp_path / "context" / "labels.txt").write_bytes(content.encode())
    message = refusal(lambda: PASCALContext(tmp_path / "context"))
    assert words in message and "labels.txt" in message


def test_a_number_beyond_the_list_is_refused(tmp_path: Path) -> None:
    data = PASCALContext(make_context(tmp_path / "context", tmp_path / "VOC2010"))
    path = tmp_path / "context" / "trainval" / "2008_000002.mat"
    numbers(path, "LabelMap", np.full((HEIGHT, WIDTH), len(NAMES) + 1), "u2")
    assert f"LabelMap holds {len(NAMES) + 1} at 12 of 12 pixels; expected 0..{len(NAMES)}" in refusal(lambda: data[0])


def test_a_list_without_end_is_not_read(tmp_path: Path) -> None:
    make_context(tmp_path / "context", tmp_path / "VOC2010")
    with open(tmp_path / "context" / "labels.txt", "wb") as file:
        file.truncate(MAX_LIST * 100)
    assert "expected a list" in refusal(lambda: PASCALContext(tmp_path / "context"))


# ----------------------------------------------------------------------------------------------- what is in a folder

MAKERS: dict[str, tuple[Callable[[Path], object], type[Listed], str | None]] = {
    "a tree of VOC": (make_tree, VOCSegmentation, "train"),
    "a devkit": (lambda root: make_tree(root / "VOCdevkit" / "VOC2012"), VOCSegmentation, "train"),
    "SBD": (lambda root: make_sbd(root / "benchmark_RELEASE" / "dataset"), SBD, "val"),
    "NYUDv2": (make_nyud, NYUD, "test"),
    "SIFT Flow": (make_siftflow, SIFTFlow, "trainval"),
    "PASCAL-Context": (lambda root: make_context(root, root / "VOCdevkit" / "VOC2010"), PASCALContext, "val"),
}


@pytest.mark.parametrize("what", MAKERS)
def test_a_folder_is_known_by_what_lies_in_it(tmp_path: Path, what: str) -> None:
    make, kind, split = MAKERS[what]
    make(tmp_path)
    found = open_data(str(tmp_path), split)
    assert type(found) is kind and found.split == split and len(found) >= 1
    assert found[0].label.shape == found[0].image.shape[:2]
    next(path for path in sorted(tmp_path.rglob("*.jpg" if what != "NYUDv2" else "img_5001.png"))).write_bytes(b"x")
    with pytest.warns(UserWarning, match="skipped 1 of"):
        open_data(tmp_path, None, skip_bad=True)


def test_context_with_the_masks_of_voc_beside_it_is_context(tmp_path: Path) -> None:
    make_tree(tmp_path / "VOCdevkit" / "VOC2010")
    make_context(tmp_path, tmp_path / "VOCdevkit" / "VOC2010")
    assert type(open_data(tmp_path, "val")) is PASCALContext


def test_a_folder_of_nothing_or_of_two_sets_is_refused_in_one_line(tmp_path: Path) -> None:
    assert "no such folder" in refusal(lambda: open_data(tmp_path / "gone", "train"), UsageError)
    assert "holds nothing; expected labels.txt and trainval (PASCAL-Context); or JPEGImages" in refusal(
        lambda: open_data(tmp_path, "train"), UsageError
    )
    make_tree(tmp_path / "VOCdevkit" / "VOC2011")
    make_sbd(tmp_path / "benchmark_RELEASE" / "dataset")
    message = refusal(lambda: open_data(tmp_path, "train"), UsageError)
    assert "(PASCAL VOC) and img and cls (SBD); expected one data set; name the folder of one" in message
    assert type(open_data(tmp_path / "benchmark_RELEASE", "train")) is SBD


def test_a_folder_with_pictures_alone_is_refused_as_the_tree_it_nearly_is(tmp_path: Path) -> None:
    (tmp_path / "JPEGImages").mkdir()
    assert "SegmentationClass" in refusal(lambda: open_data(tmp_path, "train"), DataError)


@pytest.mark.parametrize("kind", [SBD, NYUD, SIFTFlow, PASCALContext])
def test_no_id_leads_out_of_the_folder(tmp_path: Path, kind: type[Listed]) -> None:
    make = next(make for make, one, _ in MAKERS.values() if one is kind)
    make(tmp_path)
    (path,) = (path for path in tmp_path.rglob("*.txt") if path.stem in ("val", "trainval"))
    path.write_text("../../secret\n", encoding="ascii")
    message = refusal(lambda: open_data(tmp_path, path.stem))
    assert f"{path.name}, line 1: '../../secret' is no id" in message


def test_the_package_shows_its_loaders() -> None:
    for name in ("SBD", "NYUD", "SIFTFlow", "PASCALContext", "VOCSegmentation", "open_data"):
        assert name in package.__all__


# --------------------------------------------------------------------------------------------------------- real data


def nyud_samples(data_root: Path) -> Path:
    if not (data_root / "nyud_samples").is_dir():
        pytest.skip("nyud_samples is not in the folder that MINIFCN_DATA names")
    return data_root / "nyud_samples"


@pytest.mark.parametrize(("folder", "count", "size"), [("lwrn", 5, (468, 625)), ("mtrn", 2, (480, 640))])
def test_real_rooms(data_root: Path, folder: str, count: int, size: tuple[int, int]) -> None:
    data = open_data(nyud_samples(data_root) / folder, None)
    assert type(data) is NYUD and len(data) == count and data.problems() == []
    for sample in data:
        assert sample.image.shape[:2] == sample.label.shape == size
        assert set(np.unique(sample.label)) <= {*range(40), 255} and 0 in sample.label  # every room has a wall
        assert (sample.depth is None) == (folder == "lwrn") and sample.hha is None
        if sample.depth is not None:
            known = sample.depth[sample.depth > 0]
            assert 0.5 < known.min() < 2 < np.median(known) < 4 < known.max() < 10
            assert 0.01 < (sample.depth == 0).mean() < 0.5  # the frame, and what the camera did not see


def test_real_depth_in_three_units(data_root: Path) -> None:
    samples = nyud_samples(data_root)
    filled = read_depth(samples / "rcnn_depth_demo" / "depth.png", per_metre=1000)
    raw = read_depth(samples / "rcnn_depth_demo" / "rawdepth.png", per_metre=1000)
    assert filled.shape == raw.shape == (425, 560) and filled.dtype == np.float32
    assert filled.min() == pytest.approx(1.923) and filled.max() == pytest.approx(9.484) and raw.min() == 0
    scene = read_depth(samples / "depth2hha_demo" / "0.png", per_metre=10_000)
    assert scene.min() == pytest.approx(1.7985) and scene.max() == pytest.approx(3.6156)


def test_real_rooms_in_the_format_of_the_reference(data_root: Path, tmp_path: Path) -> None:
    """Their own files where the format is the same, and the labels written anew."""
    samples = nyud_samples(data_root)
    known = NYUD(samples / "mtrn", None)[0]
    for part in ("data/images", "data/depth", "segmentation"):
        (tmp_path / part).mkdir(parents=True)
    shutil.copy(samples / "mtrn" / f"{known.id}.png", tmp_path / "data" / "images" / "img_5433.png")
    shutil.copy(samples / "mtrn" / f"depth_gt_{known.id}.png", tmp_path / "data" / "depth" / "img_5433.png")
    numbers(tmp_path / "segmentation" / "img_5433.mat", "segmentation", known.label + np.uint8(1))  # 255 + 1 is 0
    found = NYUD(tmp_path, None, per_metre=5000)[0]
    assert np.array_equal(found.label, known.label) and np.array_equal(found.image, known.image)
    assert known.depth is not None and np.array_equal(found.depth, known.depth)


def test_the_real_splits_of_nyud(data_root: Path, tmp_path: Path) -> None:
    """795 and 654, whose numbers begin as the lists of the reference: 5001, 5002, 5009 are tested on."""
    shutil.copy(nyud_samples(data_root) / "meta" / "splits.mat", tmp_path)
    trainval, test = (nyud._ids(tmp_path, split, nyud.REFERENCE) for split in ("trainval", "test"))
    assert (len(trainval), len(test), len({*trainval, *test})) == (795, 654, 1449)
    assert trainval[:8] == ("5003", "5004", "5005", "5006", "5007", "5008", "5010", "5011")
    assert test[:5] == ("5001", "5002", "5009", "5014", "5015")


def test_the_real_names_of_nyud(data_root: Path, scipy_io: Any) -> None:
    names = scipy_io.loadmat(nyud_samples(data_root) / "meta" / "classMapping40.mat")["className"]
    assert tuple(str(name[0]) for name in names.ravel()) == NYUD_CLASSES
