"""`minifcn data import`: every layout that people have, drawn here, becomes the tree that it should."""

import base64
import gc
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deep_pictures import deep_png, deep_tiff, png_header
from PIL import Image, ImageOps
from test_drawing import packed_runs

from minifcn.cli.verbs import main
from minifcn.data.files import read_frames, read_image, read_mask
from minifcn.data.tools.check import check
from minifcn.data.tools.importing import Found, recognise, write_tree
from minifcn.data.tools.raw import read_raw_mask
from minifcn.data.tools.sidecars import CAMVID
from minifcn.data.tools.silent import KINDS as SILENT
from minifcn.data.tools.silent import Silent, warnings_of
from minifcn.data.voc import VOC_CLASSES, VOCSegmentation
from minifcn.errors import DataError, UsageError
from minifcn.kernels.threads import set_threads
from minifcn.viz import palette

H, W = 32, 48
NAMES = "abcde"


def picture(name: str, size: tuple[int, int] = (H, W)) -> Image.Image:
    """Squares of 8 pixels in random colours."""
    few = np.random.default_rng(ord(name[0])).integers(0, 255, (size[0] // 8, size[1] // 8, 3), np.uint8)
    return Image.fromarray(few.repeat(8, axis=0).repeat(8, axis=1))


def truth(name: str, numbers: tuple[int, ...] = (0, 1, 2, 255)) -> np.ndarray:
    """A corner of each number, its place moved with the name, so that no two masks are alike."""
    label = np.full((H, W), numbers[0], np.uint8)
    for place, number in enumerate(numbers[1:]):
        left = 10 * place + ord(name[0]) - ord("a")
        label[4 * place : 4 * place + 9, left : left + 12] = number
    return label


def save(path: Path, pixels: np.ndarray | Image.Image, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels).save(path, **options)
    return path


def coloured(label: np.ndarray, colours: dict[int, int]) -> np.ndarray:
    """The label in colours 0xRRGGBB, by number."""
    table = np.zeros((256, 3), np.uint8)
    for number, colour in colours.items():
        table[number] = colour >> 16, colour >> 8 & 255, colour & 255
    return table[label]


def with_palette(label: np.ndarray, colours: np.ndarray | None = None) -> Image.Image:
    image = Image.fromarray(label)
    image.putpalette((palette(256) if colours is None else colours).astype(np.uint8).tobytes())
    return image


def photos(folder: Path, pattern: str = "images/{}.jpg", names: str = NAMES) -> None:
    for name in names:
        save(folder / pattern.format(name), picture(name))


def masks(folder: Path, pattern: str, make: Callable[[str], Any] = truth, names: str = NAMES, **options: Any) -> None:
    for name in names:
        save(folder / pattern.format(name), make(name), **options)


def numbered(text: str) -> dict[str, Any]:
    return {"classes": ("class 0", "class 1", "class 2"), "label": truth, "says": text}


Layout = tuple[Callable[[Path], None], dict[str, Any]]
LAYOUTS: dict[str, Layout] = {}


def layout(**expected: Any) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    def enter(draw: Callable[[Path], None]) -> Callable[[Path], None]:
        LAYOUTS[draw.__name__] = draw, {**numbered("the numbers are the classes"), **expected}
        return draw

    return enter


# Pairs by name -------------------------------------------------------------------------------------------------------


def in_one_folder(ending: str) -> None:
    def draw(folder: Path) -> None:
        photos(folder, "img{}.jpg")
        masks(folder, f"img{{}}{ending}.png")

    draw.__name__ = f"one_folder{ending}"
    layout()(draw)


for _ending in ("_mask", "_L", "_gt", "_labelIds", "-label", ""):
    in_one_folder(_ending)


@layout()
def two_folders(folder: Path) -> None:
    photos(folder)
    masks(folder, "masks/{}.png")
    save(folder / "masks" / "._a.png", truth("a"))  # of macOS
    (folder / "masks" / "._b.png").write_bytes(b"\0\5\26\7")


@layout()
def prefixes(folder: Path) -> None:
    photos(folder, "images/image_{}.png")
    masks(folder, "labels/label_{}.png")


@layout(splits={"train": 3, "val": 2})
def folders_of_splits(folder: Path) -> None:
    photos(folder, "train/{}.png", "abc"), photos(folder, "val/{}.png", "de")
    masks(folder, "train_labels/{}.png", names="abc"), masks(folder, "val_labels/{}.png", names="de")


@layout(splits={"train": 3, "val": 2})
def same_names_in_two_splits(folder: Path) -> None:
    """As 0001.jpg in training and 0001.jpg in validation."""
    for name, split, number in zip("abcde", ("training",) * 3 + ("validation",) * 2, (1, 2, 3, 1, 2), strict=True):
        save(folder / "images" / split / f"{number}.jpg", picture(name))
        save(folder / "annotations" / split / f"{number}.png", truth(name))


@layout()
def a_folder_each(folder: Path) -> None:
    photos(folder, "{}/img.png"), masks(folder, "{}/label.png")
    masks(folder, "{}/label_viz.png")


@layout(splits={"train": 3, "val": 2})
def folders_of_other_names(folder: Path) -> None:
    """Where only part of the names of two folders is alike, and pictures in colours lie beside the masks."""
    photos(folder, "X_Training_Data/{}.jpg", "abc"), photos(folder, "X_Validation_Data/{}.jpg", "de")
    masks(folder, "X_Training_Part1_GroundTruth/{}_segmentation.png", names="abc")
    masks(folder, "X_Validation_Part1_GroundTruth/{}_segmentation.png", names="de")
    masks(folder, "colormaps/train/{}.png", picture)


@layout(splits={"train": 4, "val": 1}, classes=("background", "object"), label=lambda n: truth(n, (0, 1)), says="JPEG")
def kvasir(folder: Path) -> None:
    photos(folder)
    masks(folder, "masks/{}.jpg", lambda name: Image.fromarray(truth(name, (0, 255))).convert("RGB"), quality=95)


@layout(classes=VOC_CLASSES, says="PASCAL VOC's classes", splits={"train": 3, "val": 2, "trainval": 5})
def voc(folder: Path) -> None:
    photos(folder, "JPEGImages/{}.jpg")
    masks(folder, "SegmentationClass/{}.png", lambda name: with_palette(truth(name)))
    masks(folder, "SegmentationObject/{}.png", lambda name: with_palette(truth(name, (0, 5))))
    for split, names in {"train": "abc", "val": "de", "trainval": "abcde"}.items():
        path = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names))


@layout(classes=("background", "cat", "dog"), says="colours named in labelmap.txt", splits={"train": 4, "val": 1})
def cvat_voc(folder: Path) -> None:
    colours = {0: 0x000000, 1: 0xFA3253, 2: 0x33DDFF}
    photos(folder, "JPEGImages/{}.jpg")
    masks(folder, "SegmentationClass/{}.png", lambda name: coloured(truth(name, (0, 1, 2)), colours))
    (folder / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\ncat:250,50,83::\nbackground:0,0,0::\ndog:51,221,255::\n"
    )


LAYOUTS["cvat_voc"][1]["label"] = lambda name: truth(name, (0, 1, 2))


@layout(
    classes=("background", "pet"), says="trimaps", splits={"train": 2, "val": 1, "test": 2, "list": 5, "trainval": 3}
)
def pets(folder: Path) -> None:
    photos(folder, "images/{}_1.jpg")
    masks(folder, "annotations/trimaps/{}_1.png", lambda name: truth(name, (2, 1, 3)))
    masks(folder, "annotations/trimaps/._{}_1.png", lambda name: truth(name, (2, 1, 3)))
    for split, names in {"trainval": "abc", "test": "de", "list": "abcde"}.items():
        (folder / "annotations" / f"{split}.txt").write_text("".join(f"{name}_1 1 1 1\n" for name in names))


LAYOUTS["pets"][1]["label"] = lambda name: truth(name, (0, 1, 255))


@layout(says="Cityscapes' label ids as 19 classes", splits={"train": 3, "val": 2})
def cityscapes(folder: Path) -> None:
    for name in NAMES:
        where, stem = ("train/ulm" if name < "d" else "val/bonn"), f"ulm_{name}_000019"
        save(folder / "leftImg8bit" / where / f"{stem}_leftImg8bit.png", picture(name))
        save(folder / "gtFine" / where / f"{stem}_gtFine_labelIds.png", truth(name, (7, 26, 33, 3)))
        save(folder / "gtFine" / where / f"{stem}_gtFine_color.png", coloured(truth(name), {1: 0x804080}))
        save(folder / "gtFine" / where / f"{stem}_gtFine_instanceIds.png", truth(name).astype(np.uint16))
        (folder / "gtFine" / where / f"{stem}_gtFine_polygons.json").write_text('{"objects": []}')


LAYOUTS["cityscapes"][1].update(label=lambda name: truth(name, (0, 13, 18, 255)), count=19)


@layout(says="ADE20K: 0 is void", count=150, splits={"train": 3, "val": 2})
def ade20k(folder: Path) -> None:
    for name in NAMES:
        kind, split = ("train", "training") if name < "d" else ("val", "validation")
        save(folder / "images" / split / f"ADE_{kind}_0000{ord(name)}.jpg", picture(name))
        save(folder / "annotations" / split / f"ADE_{kind}_0000{ord(name)}.png", truth(name, (1, 2, 150, 0)))
    rows = "".join(f"{number}\t0.1\t1\t1\tthing {number}, other\n" for number in range(1, 151))
    (folder / "objectInfo150.txt").write_text(f"Idx\tRatio\tTrain\tVal\tName\n{rows}")


LAYOUTS["ade20k"][1]["label"] = lambda name: truth(name, (0, 1, 149, 255))
CAMVID_NAMES = tuple(name for name in CAMVID.values() if name != "Void")


def camvid_label(name: str) -> np.ndarray:
    sky, road, car = (CAMVID_NAMES.index(one) for one in ("Sky", "Road", "Car"))
    return truth(name, (sky, road, car, 255))


@layout(classes=CAMVID_NAMES, label=camvid_label, says="CamVid's colours")
def camvid(folder: Path) -> None:
    photos(folder, "701_StillsRaw_full/0016E5_{}.png")
    code = {value: key for key, value in CAMVID.items()}
    colours = {0: code["Sky"], 1: code["Road"], 2: code["Car"], 255: 0}
    masks(folder, "LabeledApproved_full/0016E5_{}_L.png", lambda name: coloured(truth(name), colours))


@layout(classes=("Sky", "Road", "Car"), says="colours named in class_dict.csv", splits={"train": 3, "val": 2})
def kaggle_camvid(folder: Path) -> None:
    folders_of_splits(folder)
    for path in folder.glob("*_labels/*.png"):
        save(path, coloured(read_mask(path, classes=3), {0: 0x808080, 1: 0x804080, 2: 0x400080}))
    (folder / "class_dict.csv").write_text("name,r,g,b\nSky,128,128,128\nRoad,128,64,128\nCar,64,0,128\nVoid,0,0,0\n")


@layout(says="the red channel holds the numbers (CARLA)", count=13)
def carla(folder: Path) -> None:
    photos(folder, "rgb/{}.png")

    def red(name: str) -> Image.Image:
        plane = truth(name, (7, 10, 12))
        return Image.fromarray(np.stack([plane, 0 * plane, 0 * plane, 0 * plane + 255], axis=-1))

    masks(folder, "semantic/{}.png", red)


LAYOUTS["carla"][1]["label"] = lambda name: truth(name, (7, 10, 12))


@layout(says="three channels that are equal hold the numbers")
def equal_channels(folder: Path) -> None:
    photos(folder)
    masks(folder, "masks/{}.png", lambda name: Image.fromarray(truth(name)).convert("RGB"))


@layout()
def npy(folder: Path) -> None:
    photos(folder)
    (folder / "masks").mkdir()
    for name in NAMES:
        np.save(folder / "masks" / f"{name}.npy", np.where(truth(name) == 255, -1, truth(name)).astype(np.int64))


@layout(label=lambda name: truth(name, (0, 1)), classes=("class 0", "class 1"))
def tiff_1_bit(folder: Path) -> None:
    photos(folder, "images/{}.tif")
    masks(folder, "masks/{}.tif", lambda name: Image.fromarray(truth(name, (0, 255))).convert("1"))


@layout()
def tiff_8_bit(folder: Path) -> None:
    photos(folder)
    masks(folder, "masks/{}.tif")


@layout()
def tiff_16_bit(folder: Path) -> None:
    photos(folder)
    masks(folder, "masks/{}.tiff", lambda name: truth(name).astype(np.uint16))


@layout()
def png_16_bit(folder: Path) -> None:
    photos(folder)
    masks(folder, "masks/{}.png", lambda name: truth(name).astype(np.uint16))


@layout(splits={"train": 4, "val": 1})
def stack(folder: Path) -> None:
    """A multi-page TIFF of pictures, and one of masks."""
    for stem, make in (("volume", picture), ("volume_labels", lambda name: Image.fromarray(truth(name)))):
        first, *rest = (make(name) for name in NAMES)
        save(folder / f"{stem}.tif", first, save_all=True, append_images=rest)


@layout(classes=("sky", "road", "car"), says="named in classes.txt")
def named(folder: Path) -> None:
    two_folders(folder)
    (folder / "classes.txt").write_bytes(b"\xef\xbb\xbfsky\r\nroad\r\ncar\r\n")


@layout(says="number 1 is the colour 0 128 0 in b.png and 128 0 0 in a.png", classes=VOC_CLASSES)
def palettes_that_disagree(folder: Path) -> None:
    """As `Image.quantize` writes them: every file numbers its own colours."""
    photos(folder, "JPEGImages/{}.jpg")
    swapped = palette(256).copy()
    swapped[[1, 2]] = swapped[[2, 1]]
    swap = np.arange(256, dtype=np.uint8)
    swap[[1, 2]] = 2, 1

    def one(name: str) -> Image.Image:
        return with_palette(truth(name)) if name in "ac" else with_palette(swap[truth(name)], swapped)

    masks(folder, "SegmentationClass/{}.png", one)


LAYOUTS["palettes_that_disagree"][1]["says"] = "number 1 is the colour 128 0 0 in a.png and 0 128 0 in b.png"


@layout(says="number 1 has the colour 128 64 0, which is VOC's of class 17", count=21)
def palettes_of_other_numbers(folder: Path) -> None:
    """As programs write them that keep only the colours in use."""
    photos(folder, "JPEGImages/{}.jpg")
    few = np.zeros((256, 3), np.uint8)
    few[[0, 1, 2]] = palette(256)[[0, 17, 8]]
    masks(folder, "SegmentationClass/{}.png", lambda name: with_palette(truth(name, (0, 1, 2)), few))


LAYOUTS["palettes_of_other_numbers"][1]["label"] = lambda name: truth(name, (0, 17, 8))


@layout(classes=("background", "object"), says="black and white", label=lambda name: truth(name, (0, 1)))
def black_and_white(folder: Path) -> None:
    photos(folder)
    masks(folder, "masks/{}.png", lambda name: truth(name, (0, 255)))


PAIRINGS = {
    "MMSegmentation": ("img_dir/train/{}.jpg", "ann_dir/train/{}.png"),
    "img and ann": ("img/{}.jpg", "ann/{}.png"),
    "Supervisely": ("ds/img/{}.jpg", "ds/masks_machine/{}.jpg.png"),
    "Supervisely, one folder": ("{}.jpg", "{}.jpg.png"),
    "nnU-Net": ("imagesTr/case_{}_0000.png", "labelsTr/case_{}.png"),
    "anno": ("x_{}.jpg", "x_{}_anno.bmp"),
    "DRIVE": ("images/{}1_training.tif", "1st_manual/{}1_manual1.gif"),
    "mask 0": ("images/{}x.png", "labels/{}x_mask_0.png"),
    "lbl": ("x{}.png", "x{}_lbl.png"),
    "lbl folder": ("imgs/{}.png", "lbl/{}.png"),
    "color": ("x{}.jpg", "x{}_color.png"),
}


@pytest.mark.parametrize("kind", PAIRINGS)
def test_names_that_pair(kind: str, tmp_path: Path) -> None:
    images, labels = PAIRINGS[kind]
    photos(tmp_path / "mine", images)
    masks(tmp_path / "mine", labels)
    found, data = brought(tmp_path / "mine", tmp_path / "new")
    assert found.left_out == [] and len(data) == 5
    for sample, name in zip(data, NAMES, strict=True):
        assert (
            np.array_equal(sample.label, truth(name)) and np.abs(sample.image - np.asarray(picture(name))).max() < 256
        )


def test_of_several_masks_the_one_of_numbers(tmp_path: Path) -> None:
    """A mask to be seen beside one of numbers, DRIVE's field of view beside its vessels, other channels of nnU-Net."""
    photos(tmp_path / "one", "x{}.jpg"), masks(tmp_path / "one", "x{}_mask.png")
    masks(tmp_path / "one", "x{}_color.png", lambda name: coloured(truth(name), {1: 0xFF}))
    photos(tmp_path / "two", "training/images/{}_training.tif")
    masks(tmp_path / "two", "training/1st_manual/{}_manual1.gif", lambda name: truth(name, (0, 255)))
    masks(tmp_path / "two", "training/mask/{}_training_mask.gif", lambda name: truth(name, (255, 0)))
    assert np.array_equal(brought(tmp_path / "one", tmp_path / "new one")[1][0].label, truth("a"))
    assert np.array_equal(brought(tmp_path / "two", tmp_path / "new two")[1][0].label, truth("a", (0, 1)))
    photos(tmp_path / "three", "images/{}.png"), photos(tmp_path / "three", "images/{}_0000.png")
    masks(tmp_path / "three", "labels/{}.png")
    found = recognise(tmp_path / "three")
    assert [item.image.name for item in found.items] == [f"{name}.png" for name in NAMES]
    masks(tmp_path / "one", "x{}_label.png")
    with pytest.raises(DataError, match=r"3 masks, .* first; expected one; move the others elsewhere"):
        recognise(tmp_path / "one")


def brought(folder: Path, new: Path, **options: Any) -> tuple[Found, VOCSegmentation]:
    found = recognise(folder, **options)
    assert write_tree(found, new) == []
    return found, VOCSegmentation(new, None)


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name: str, tmp_path: Path) -> None:
    draw, expected = LAYOUTS[name]
    draw(tmp_path / "mine")
    found, data = brought(tmp_path / "mine", tmp_path / "new")
    assert expected["says"] in found.why and found.left_out == [] and len(data) == 5
    classes = expected["classes"] if "count" not in expected else data.classes[: expected["count"]]
    assert data.classes == classes
    for sample, source in zip(data, NAMES, strict=True):
        assert np.array_equal(sample.label, expected["label"](source))
        assert np.abs(sample.image.astype(int) - np.asarray(picture(source))).mean() < 25
    splits = {split: len(VOCSegmentation(tmp_path / "new", split)) for split in found.splits}
    assert splits == {"train": 4, "val": 1} | expected.get("splits", {})
    members = [set(ids) for split, ids in found.splits.items() if split in ("train", "val", "test")]
    assert sum(map(len, members)) == len(set().union(*members)) == 5
    assert main(["data", "check", str(tmp_path / "new")]) == 0


# Shapes --------------------------------------------------------------------------------------------------------------


def rectangle(name: str) -> list[float]:
    """Left, top, right, bottom of the one thing in a picture."""
    left = ord(name[0]) - ord("a")
    return [left, 4, left + 20, 24]


def labelme(folder: Path, name: str, shapes: list[dict[str, Any]], **more: Any) -> Path:
    path = folder / f"{name}.json"
    content = {"version": "5.4", "flags": {}, "shapes": shapes, "imagePath": f"{name}.jpg", "imageData": None}
    path.write_text(json.dumps({**content, "imageHeight": H, "imageWidth": W, **more}))
    return path


def shape(label: str, points: Any, kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}, **more}


def test_labelme(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos(tmp_path / "mine", "{}.jpg")
    hole = shape("_background_", [[6, 8], [10, 8], [10, 12], [6, 12]])
    for name in NAMES:
        left, top, right, bottom = rectangle(name)
        thing = shape("dog", [[left, top], [right, bottom]], "rectangle", group_id=3)
        labelme(tmp_path / "mine", name, [thing, shape("cat", [[40, 20], [40, 26]], "circle"), hole, IGNORED])
    assert main(["data", "import", str(tmp_path / "mine"), str(tmp_path / "new")]) == 0
    said = capsys.readouterr().out
    assert "labelme's files (.json), 5 pictures with labels" in said and "a.jpg  <-  a.json" in said
    assert "background, then labels in the order of the alphabet" in said and "5 groups of shapes" in said
    assert "look at" in said and (tmp_path / "new" / "overlays.png").stat().st_size > 1000
    data = VOCSegmentation(tmp_path / "new", None)
    assert data.classes == ("background", "cat", "dog") and len(VOCSegmentation(tmp_path / "new", "train")) == 4
    label = data[0].label
    assert (label[4:25, 0:21] == 2).sum() == 21 * 21 - 25 and (label[8:13, 6:11] == 0).all() and label[20, 40] == 1
    assert label[31, 0] == 255


def embedded(name: str, suffix: str = "JPEG") -> str:
    content = io.BytesIO()
    picture(name).save(content, suffix, quality=95)
    return base64.b64encode(content.getvalue()).decode()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_labelme_with_the_photograph_inside(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine" / "sub").mkdir(parents=True)
    save(tmp_path / "mine" / "sub" / "e.jpg", picture("e"))
    thing = shape("dog", [[4, 4], [20, 20]], "rectangle")
    for name in NAMES:
        labelme(tmp_path / "mine" / "sub", name, [thing], imageData=embedded(name, kind))
    assert main(["data", "import", str(tmp_path / "mine"), str(tmp_path / "new")]) == 0
    assert "4 photographs lie in the files of their labels (imageData)" in capsys.readouterr().out
    data = VOCSegmentation(tmp_path / "new", None)
    assert data.ids == tuple(NAMES) and "a\tsub/a.json\tsub/a.json\n" in (tmp_path / "new" / "sources.tsv").read_text()
    for sample, name in zip(data, NAMES, strict=True):
        assert np.abs(sample.image.astype(int) - np.asarray(picture(name))).mean() < 25 and sample.label.any()
    found = recognise(tmp_path / "mine")
    folder = found.items[0].file.parent
    assert folder.is_dir() and found.splits["train"]
    del found
    gc.collect()
    assert not folder.exists()


INSIDE = {
    "no base64": ("%%%", r"a.json: imageData is '%%%', no base64 .*put the picture beside it"),
    "a number": (7, "a.json: imageData is 7, no base64"),
    "no picture": (
        base64.b64encode(b"MZ\0" * 50).decode(),
        r"a.json: imageData begins with b'MZ.*expected a JPEG or PNG",
    ),
    "cut": (base64.b64encode(b"\xff\xd8\xff\xe0cut").decode(), "a.json: cannot be decoded|a.json: content not"),
    "bomb": (base64.b64encode(png_header(60000, 60000)).decode(), "a.json: (cannot be decoded|header announces)"),
}


@pytest.mark.parametrize("kind", INSIDE)
def test_hostile_photographs_inside_labelme(kind: str, tmp_path: Path) -> None:
    data, says = INSIDE[kind]
    labelme(tmp_path, "a", [shape("dog", [[4, 4], [20, 20]], "rectangle")], imageData=data)
    with pytest.raises(DataError, match=says) as refused:
        write_tree(recognise(tmp_path), tmp_path / "new")
    assert "minifcn-" not in str(refused.value) and not (tmp_path / "new").exists()


IGNORED = shape("__ignore__", [[0, 30], [3, 31]], "rectangle")


def coco_file(**more: Any) -> dict[str, Any]:
    images = [{"id": n, "file_name": f"{name}.jpg", "height": H, "width": W} for n, name in enumerate(NAMES)]
    categories = [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}]
    shapes = [
        [left, top, right, top, right, bottom, left, bottom] for left, top, right, bottom in map(rectangle, NAMES)
    ]
    annotations = [
        {"id": n, "image_id": n, "category_id": 18, "segmentation": [points], "iscrowd": 0, "bbox": [0, 0, 1, 1]}
        for n, points in enumerate(shapes)
    ]
    return {"images": images, "categories": categories, "annotations": annotations, **more}


def crowd(counts: Any) -> dict[str, Any]:
    return {"id": 99, "image_id": 0, "category_id": 3, "segmentation": {"size": [H, W], "counts": counts}, "iscrowd": 1}


def write_coco(folder: Path, content: dict[str, Any], name: str = "annotations/instances_default.json") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_coco(packed: bool, tmp_path: Path) -> None:
    """The crowd, columns 0 to 9, lies under the dog, although it comes last."""
    photos(tmp_path / "mine")
    counts: Any = [0, 10 * H, 38 * H]
    if packed:
        counts = packed_runs(counts)
    content = coco_file()
    write_coco(tmp_path / "mine", {**content, "annotations": [*content["annotations"], crowd(counts)]})
    found, data = brought(tmp_path / "mine", tmp_path / "new")
    assert found.kind == "coco" and data.classes == ("background", "car", "dog")
    assert (data[0].label[4:24, 0:20] == 2).all() and (data[0].label[24:, :10] == 1).all()
    assert (data[1].label != 0).sum() == 400 and (data[1].label[4:24, 1:21] == 2).all()


def test_coco_of_two_splits(tmp_path: Path) -> None:
    """As Roboflow writes it: a folder for each split, the file among the pictures."""
    for split, names in (("train", "abc"), ("valid", "de")):
        photos(tmp_path / "mine" / split, "{}.jpg", names)
        content = coco_file()
        content["images"] = [image for image in content["images"] if image["file_name"][0] in names]
        ids = {image["id"] for image in content["images"]}
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] in ids]
        write_coco(tmp_path / "mine", content, f"{split}/_annotations.coco.json")
    found, _ = brought(tmp_path / "mine", tmp_path / "new")
    assert {split: len(ids) for split, ids in found.splits.items()} == {"train": 3, "val": 2}


def test_pictures_without_a_shape(tmp_path: Path) -> None:
    photos(tmp_path / "mine")
    content = coco_file()
    write_coco(tmp_path / "mine", {**content, "annotations": content["annotations"][:3]})
    found = recognise(tmp_path / "mine")
    assert len(found.items) == 3 and "`empty=True` takes them as background" in " ".join(found.notes)
    assert len(recognise(tmp_path / "mine", empty=True).items) == 5


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><job><labels>
<label><name>road</name><color>#fa3253</color></label><label><name>car</name></label></labels></job></meta>
{}</annotations>"""


def cvat_image(name: str, inside: str) -> str:
    return f'<image id="{ord(name)}" name="{name}.jpg" width="{W}" height="{H}">{inside}</image>'


def test_cvat(tmp_path: Path) -> None:
    photos(tmp_path / "mine")
    inside = (
        '<polygon label="car" z_order="1" points="10,4;20,4;20,14;10,14"/><box label="road" xtl="0" ytl="0" xbr="48" '
        'ybr="24" z_order="0"/><mask label="car" rle="1, 3, 4" left="40" top="28" width="4" height="2" z_order="2"/>'
        '<ellipse label="car" cx="34" cy="12" rx="6" ry="3" z_order="2"/><tag label="car"/>'
    )
    (tmp_path / "mine" / "annotations.xml").write_text(CVAT.format("".join(cvat_image(name, inside) for name in NAMES)))
    found, data = brought(tmp_path / "mine", tmp_path / "new")
    assert found.kind == "cvat" and data.classes == ("background", "road", "car")
    label = data[0].label
    assert (label[4:14, 10:20] == 2).all() and label[15, 12] == 1 and label[12, 34] == 2 and label[16, 34] == 1
    assert label[28:30, 40:44].tolist() == [[0, 2, 2, 2], [0, 0, 0, 0]] and (label[24:28] == 0).all()


# What is wrong with files --------------------------------------------------------------------------------------------


def two(folder: Path) -> Path:
    """A good pair of COCO and what follows is changed."""
    photos(folder)
    return folder


LAUGHS = "<!DOCTYPE a [<!ENTITY b 'ha'><!ENTITY c '&b;&b;'>]><annotations>&c;</annotations>"
BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "json twice a key": (lambda f: (f / "a.json").write_text('{"shapes": [], "shapes": []}'), "a key twice"),
    "json nan": (lambda f: (f / "a.json").write_text('{"shapes": [NaN]}'), "no finite number"),
    "deep": (lambda f: (f / "a.json").write_text('{"shapes": ' + "[" * 5000 + "]" * 5000 + "}"), "levels in one"),
    "doctype": (lambda f: (f / "a.xml").write_text(LAUGHS), "document type"),
    "cut xml": (lambda f: (f / "a.xml").write_text(CVAT.format("<image ")[:-5]), "is no XML"),
    "elsewhere": (
        lambda f: labelme(f, "q", [shape("x", [[0, 0], [1, 1]], "rectangle")], imagePath="../../../etc/passwd"),
        "its picture is not there",
    ),
    "no label": (lambda f: labelme(f, "a", [shape("", [[0, 0], [1, 1]], "rectangle")]), "a label is ''"),
    "label of control": (lambda f: labelme(f, "a", [shape("\x1b[2J", [[0, 0]], "point")]), "a label is"),
    "no such category": (
        lambda f: write_coco(f, {**coco_file(), "categories": []}),
        "annotation 0 is of category 18",
    ),
    "number as name": (lambda f: write_coco(f, {**coco_file(), "images": [{"id": 1, "file_name": 7}]}), "no file_name"),
    "no ids": (lambda f: write_coco(f, {**coco_file(), "images": [7]}), "an entry of images without an id"),
    "other size": (
        lambda f: labelme(f, "a", [shape("x", [[0, 0]], "point")], imageWidth=99),
        "drawn on a picture of 99",
    ),
    "shape": (lambda f: labelme(f, "a", [shape("x", [[0, 0]])]), r"shape 1 \(x\) of a.jpg: 1 corners"),
    "polyline": (
        lambda f: (f / "a.xml").write_text(CVAT.format(cvat_image("a", '<polyline label="car" points="1,1;2,2"/>'))),
        "is a polyline; expected polygon",
    ),
    "size of runs": (
        lambda f: write_coco(f, {**coco_file(), "annotations": [{**crowd([9]), "segmentation": {"size": [9, 9]}}]}),
        r"run lengths for \[9, 9\]",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_annotations(name: str, tmp_path: Path) -> None:
    """Every refusal names the file, and nothing is left behind."""
    draw, says = BROKEN[name]
    folder = tmp_path / "mine"
    photos(folder, "{}.jpg")
    draw(folder)
    with pytest.raises((DataError, UsageError), match=says) as refused:
        write_tree(recognise(folder), tmp_path / "new")
    assert str(folder) in str(refused.value) and "expected" in str(refused.value)
    assert not (tmp_path / "new").exists() and not (tmp_path / "etc").exists()


def test_one_broken_file_among_many(tmp_path: Path) -> None:
    photos(tmp_path / "mine", "{}.jpg")
    for name in NAMES:
        labelme(tmp_path / "mine", name, [shape("dog", [[0, 0], [9, 9]], "rectangle")])
    (tmp_path / "mine" / "b.json").write_text('{"shapes": [')
    (tmp_path / "mine" / "c.jpg").write_bytes(b"\xff\xd8\xff\xe0cut")
    found = recognise(tmp_path / "mine")
    left_out = " ".join([*found.left_out, *write_tree(found, tmp_path / "new")])
    assert "b.json: is not JSON" in left_out and "c.jpg: cannot be decoded" in left_out
    assert VOCSegmentation(tmp_path / "new", None).ids == ("a", "d", "e")


def test_links_lead_nowhere(tmp_path: Path) -> None:
    two_folders(tmp_path / "mine")
    save(tmp_path / "secret.png", truth("a"))
    (tmp_path / "mine" / "masks" / "a.png").unlink()
    (tmp_path / "mine" / "masks" / "a.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "mine" / "up").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "mine" / "images" / "f.jpg")
    found = recognise(tmp_path / "mine")
    assert [item.id for item in found.items] == ["b", "c", "d", "e"]
    assert any(
        "a.jpg: picture without a mask of its name; expected a_mask.png beside it, or a.png in a folder masks; rename"
        in line
        for line in found.left_out
    )


def test_kinds_are_chosen_and_not_mixed(tmp_path: Path) -> None:
    one = tmp_path / "mine"
    in_one = LAYOUTS["one_folder_mask"][0]
    in_one(one)
    labelme(one, "imga", [shape("dog", [[0, 0], [9, 9]], "rectangle")])
    with pytest.raises(UsageError, match=r"5 pictures with masks, 1 labelme's files.*kind=masks"):
        recognise(one)
    assert len(recognise(one, kind="masks").items) == 5 and len(recognise(one, kind="labelme").items) == 1
    with pytest.raises(UsageError, match="kind='voc'"):
        recognise(one, kind="voc")


def test_nothing_to_import(tmp_path: Path) -> None:
    photos(tmp_path / "mine")
    with pytest.raises(DataError, match=r"holds 5 \.jpg, and no picture with labels; expected a.jpg with a_mask.png"):
        recognise(tmp_path / "mine")
    with pytest.raises(UsageError, match="no such folder"):
        recognise(tmp_path / "none")


# Masks that could be two things --------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(2, 9))
def test_orientation(orientation: int, tmp_path: Path) -> None:
    """Masks drawn on the picture as stored and as shown; the size says which, or the pair is named."""
    exif = Image.Exif()
    exif[274] = orientation
    stored, shown = tmp_path / "stored", tmp_path / "shown"
    for folder in (stored, shown):
        save(folder / "images" / "a.png", picture("a"), exif=exif)
        save(folder / "images" / "b.png", picture("b"))
        save(folder / "masks" / "b.png", truth("b"))
    upright = read_image(stored / "images" / "a.png")
    carried = save(tmp_path / "carried.png", truth("a"), exif=exif)
    with Image.open(carried) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    save(stored / "masks" / "a.png", truth("a"))
    save(shown / "masks" / "a.png", expected)
    for folder in (stored, shown):
        new = tmp_path / f"new {folder.name}"
        found = recognise(folder)
        left_out = write_tree(found, new)
        if orientation < 5:
            assert len(left_out) == 1 and f"a.png: EXIF orientation {orientation}, and none in its mask" in left_out[0]
            assert "`turned=stored`" in left_out[0]
            shutil.rmtree(new)
            assert write_tree(recognise(folder, turned=folder.name), new) == []
        else:
            assert left_out == []
        sample = VOCSegmentation(new, None)[0]
        assert np.array_equal(sample.image, upright) and np.array_equal(sample.label, expected)
        assert Image.open(new / "JPEGImages" / "a.png").getexif().get(274, 1) == 1
    shutil.copyfile(carried, stored / "masks" / "a.png")
    _, data = brought(stored, tmp_path / "new carried")
    assert np.array_equal(data[0].label, expected)


@pytest.mark.parametrize(("bits", "says"), [(8, "more than 8 bits"), (12, "more than 12 bits"), (16, "upper 8 bits")])
def test_16_bit_pictures(bits: int, says: str, tmp_path: Path) -> None:
    """A sensor's 12 bits in 16 are no black picture."""
    for name in NAMES:
        ramp = np.linspace(0, 2**bits - 1, H * W).reshape(H, W).astype(np.uint16)
        save(tmp_path / "mine" / "images" / f"{name}.png", np.roll(ramp, ord(name)))
    masks(tmp_path / "mine", "masks/{}.png")
    found, data = brought(tmp_path / "mine", tmp_path / "new")
    assert says in " ".join(found.notes) and data[0].image.max() == 255 and 120 < data[0].image.mean() < 135


def test_colours_of_16_bits_that_would_be_black_are_left_out(tmp_path: Path) -> None:
    """One factor holds for a whole folder: where others use all 16 bits, 12 of them are black."""
    folder = tmp_path / "mine" / "images"
    folder.mkdir(parents=True)
    for name in NAMES:
        ramp = np.linspace(0, 2**12 - 1, H * W).reshape(H, W, 1).astype(np.uint16).repeat(3, axis=2)
        deep_png(folder / f"{name}.png", ramp if name == "a" else ramp * 16)
    masks(tmp_path / "mine", "masks/{}.png")
    found, new = recognise(tmp_path / "mine"), tmp_path / "new"
    (left_out,) = write_tree(found, new)
    assert "a.png: 16 bits in each of several samples, of which the upper 8 are read and only the lower" in left_out
    assert VOCSegmentation(new, None)[0].image.max() == 255
    for path in (new / "JPEGImages").iterdir():
        shutil.copyfile(folder / "a.png", path)
    assert "16-bit images that use only their lower bits" in "".join(warnings_of(VOCSegmentation(new, None)))


def deep_picture(name: str, most: int, samples: int) -> np.ndarray:
    ramp = np.linspace(0, most, H * W * samples).reshape(H, W, samples).astype(np.uint16)
    ramp = np.roll(ramp, 8 * ord(name), axis=1)
    if samples in (2, 4):
        ramp[..., -1] = 65535
    return ramp


DEEP = {
    "RGB": (deep_png, 3, ".png"),
    "RGBA": (deep_png, 4, ".png"),
    "grey and alpha": (deep_png, 2, ".png"),
    "tiff": (deep_tiff, 3, ".tif"),
    "tiff of a Mac": (lambda path, pixels: deep_tiff(path, pixels, ">"), 3, ".tif"),
}


@pytest.mark.parametrize("kind", DEEP)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_16_bit_colours(bits: int, kind: str, tmp_path: Path) -> None:
    """Pillow keeps the upper 8 bits of a sensor's 12 in 16, which are nearly black."""
    write, samples, suffix = DEEP[kind]
    pixels = {name: deep_picture(name, 2**bits - 1, samples) for name in NAMES}
    for name in NAMES:
        write(tmp_path / "mine" / "images" / f"{name}{suffix}", pixels[name])
    masks(tmp_path / "mine", "masks/{}.png")
    found, data = brought(tmp_path / "mine", tmp_path / "new")
    says = f"5 pictures of 16 bits: {f'no number needs more than {bits} bits' if bits < 16 else 'their upper 8 bits'}"
    assert says in " ".join(found.notes) and (tmp_path / "new" / "image-bits.txt").is_file() == (bits < 16)
    grey = samples == 2
    expected = (pixels["a"] >> (bits - 8))[..., [0, 0, 0] if grey else [0, 1, 2]]
    assert np.array_equal(data[0].image, expected)
    source = tmp_path / "mine" / "images" / f"a{suffix}"
    assert np.array_equal(next(read_frames(source, bits=bits)), expected)
    if suffix == ".png":
        assert np.array_equal(read_image(source, bits=bits), expected)


@pytest.mark.parametrize("converted", [False, True])
def test_check_and_train_name_12_bits_in_16(converted: bool, tmp_path: Path) -> None:
    """In colours of 16 bits, and in 8 bits to which somebody's program has cut them already."""
    voc(tmp_path / "tree")
    for name in NAMES:
        (tmp_path / "tree" / "JPEGImages" / f"{name}.jpg").unlink()
        pixels, path = deep_picture(name, 4080, 3), tmp_path / "tree" / "JPEGImages" / f"{name}.png"
        save(path, (pixels >> 8).astype(np.uint8)) if converted else deep_png(path, pixels)
    kind, says = ("black", "no number above 15 of 255") if converted else ("dark", "no number above 4080")
    faults = check(tmp_path / "tree").faults
    assert set(faults) == {kind} and says in faults[kind][0] and len(faults[kind]) == 5
    data, silent = VOCSegmentation(tmp_path / "tree", "train"), Silent()
    for sample in data:  # as training does before its first step
        silent.sample(sample)
    assert SILENT[kind][0] in " ".join([*warnings_of(data), *silent.sentences()])
    assert main(["data", "check", str(tmp_path / "tree")]) == 2  # and leaves what it found beside the data
    assert SILENT[kind][0] in " ".join(warnings_of(VOCSegmentation(tmp_path / "tree", "train")))
    picture("a").save(tmp_path / "tree" / "JPEGImages" / "a.png")
    assert "black" not in check(tmp_path / "tree").faults


@pytest.mark.parametrize("shift", [257, 1])
def test_masks_in_colours_of_16_bits(shift: int, tmp_path: Path) -> None:
    photos(tmp_path / "mine")
    for name in NAMES:
        pixels = np.repeat(truth(name, (0, 1, 2)).astype(np.uint16)[..., None] * shift, 3, axis=2)
        deep_png(tmp_path / "mine" / "masks" / f"{name}.png", pixels)
    _, data = brought(tmp_path / "mine", tmp_path / "new")
    assert np.array_equal(data[0].label, truth("a", (0, 1, 2)))
    deep_png(tmp_path / "mine" / "masks" / "a.png", pixels + np.uint16(300))
    with pytest.raises(DataError, match="mask of colours with 16 bits a sample; expected 8"):
        read_raw_mask(tmp_path / "mine" / "masks" / "a.png")


def test_lists_of_all_kinds(tmp_path: Path) -> None:
    """Endings, paths and pairs are ids; a list that names no picture is named, and not dropped in silence."""
    two_folders(tmp_path / "mine")
    (tmp_path / "mine" / "train.txt").write_bytes(b"a.jpg\r\nimages/b.jpg masks/b.png\r\nnone.jpg\r\n")
    (tmp_path / "mine" / "val.txt").write_text("/elsewhere/data/images/c.jpg\nd\n")
    (tmp_path / "mine" / "test.txt").write_text("x\ny\n")
    found = recognise(tmp_path / "mine")
    assert found.splits == {"train": ["a", "b"], "val": ["c", "d"]}
    notes = " ".join(found.notes)
    assert "train.txt: 1 of 3 lines name no picture" in notes and "test.txt: none of its 2 lines" in notes


LISTS: dict[str, dict[str, Any]] = {
    "csv": {
        "train.csv": "image,mask\nimages/a.jpg,masks/a.png\nb.jpg,b.png\n",
        "val.csv": "id,file\n7,c.jpg\n8,d.jpg\n",
    },
    "no ending": {"train": "a\nb\n", "val": "c\nd\n"},
    "lst": {"train.lst": "images/a.jpg\tmasks/a.png\nimages/b.jpg\tmasks/b.png\n", "val.list": "c\nd\n"},
    "json": {"splits.json": {"train": ["a.jpg", "b.jpg"], "val": ["c.jpg", "d.jpg"], "comment": "mine"}},
    "json of objects": {
        "dataset.json": {"training": [{"image": f"./images/{n}.jpg"} for n in "ab"], "val": ["c", "d"]}
    },
    "json by picture": {"split.json": {"a.jpg": "train", "b": "training", "c": "valid", "d": "val"}},
    "json of one": {"train.json": ["a", "b"], "val.json": ["c", "d"]},
    "json of rows": {"splits.json": [{"file": f"{n}.jpg", "split": "train" if n < "c" else "val"} for n in "abcd"]},
    "folds": {"splits_final.json": [{"train": ["a", "b"], "val": ["c", "d"]}, {"train": ["c"], "val": ["a"]}]},
    "partition": {"partition.txt": "a.jpg train\nb.jpg train\nc.jpg val\nd.jpg val\n"},
    "column": {"meta.csv": "split;image\ntrain;a.jpg\ntrain;b.jpg\nvalidation;c.jpg\nval;d.jpg\n"},
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_other_forms(kind: str, tmp_path: Path) -> None:
    two_folders(tmp_path / "mine")
    for name, content in LISTS[kind].items():
        (tmp_path / "mine" / name).write_text(content if isinstance(content, str) else json.dumps(content))
    found = recognise(tmp_path / "mine")
    assert found.splits == {"train": ["a", "b"], "val": ["c", "d"]} and found.notes == []


UNUSED_LISTS = {
    "fold1.txt": ("x\ny\n", "fold1.txt: none of its 2 lines names a picture with labels (the first: 'x')"),
    "train.csv": ("image,mask\nx.jpg,y.png\n", "train.csv: none of its 1 lines names a picture"),
    "splits.json": ('{"train": 7}', "splits.json: holds {'train': 7}; expected lists of pictures by split"),
    "val.json": ("[", "val.json: is not JSON in UTF-8"),
    "split.yaml": ("train: [a]", "split.yaml: .yaml is not read; expected a text of ids"),
    "train.mat": ("MATLAB", "train.mat: .mat is not read"),
    "partition.txt": ("x train\ny val\n", "partition.txt, train: none of its 1 lines names a picture"),
}


@pytest.mark.parametrize("name", UNUSED_LISTS)
def test_no_list_is_dropped_in_silence(name: str, tmp_path: Path) -> None:
    content, says = UNUSED_LISTS[name]
    two_folders(tmp_path / "mine")
    (tmp_path / "mine" / name).write_text(content)
    (tmp_path / "mine" / "README.txt").write_text("These are my pictures.")
    found = recognise(tmp_path / "mine")
    notes = [note for note in found.notes if name in note]
    assert notes and notes[0].startswith(says) and not any("README" in note for note in found.notes)
    assert {split: len(ids) for split, ids in found.splits.items()} == {"train": 4, "val": 1}


def test_folds_and_many_texts(tmp_path: Path) -> None:
    two_folders(tmp_path / "mine")
    for number, names in enumerate(("ab", "cd")):
        (tmp_path / "mine" / f"fold{number}.txt").write_text("".join(f"{name}\n" for name in names))
    for number in range(9):
        (tmp_path / "mine" / f"caption {number}.txt").write_text("one house\n")
    found = recognise(tmp_path / "mine")
    assert found.splits["fold0"] == ["a", "b"] and found.splits["fold1"] == ["c", "d"]
    notes = " ".join(found.notes)
    assert "lists that are no split, kept beside train and val: fold0, fold1" in notes
    assert "4 more texts name no picture with labels and are not used" in notes


def test_voc_lists_of_another_task_are_named(tmp_path: Path) -> None:
    voc(tmp_path / "mine")
    (tmp_path / "mine" / "ImageSets" / "Main").mkdir()
    (tmp_path / "mine" / "ImageSets" / "Main" / "train.txt").write_text("a\nb\nc\nd\ne\n")
    found = recognise(tmp_path / "mine")
    assert "1 lists of Main in ImageSets are not used, but Segmentation's" in found.notes
    assert len(found.splits["train"]) == 3


def test_a_leak_is_cured(tmp_path: Path) -> None:
    two_folders(tmp_path / "mine")
    (tmp_path / "mine" / "train.txt").write_text("a\nb\nc\n")
    (tmp_path / "mine" / "val.txt").write_text("c\nd\n")
    found = recognise(tmp_path / "mine")
    assert found.splits == {"train": ["a", "b"], "val": ["c", "d"]} and "train loses them" in " ".join(found.notes)


def test_the_seed_draws_the_split(tmp_path: Path) -> None:
    two_folders(tmp_path / "mine")
    drawn = [recognise(tmp_path / "mine", seed=seed).splits["val"] for seed in (0, 0, 1, 2, 3)]
    assert drawn[0] == drawn[1] and len({tuple(one) for one in drawn}) > 1


def test_numbers_that_a_list_does_not_name(tmp_path: Path) -> None:
    two_folders(tmp_path / "mine")
    (tmp_path / "mine" / "classes.txt").write_text("sky\nroad\n")
    with pytest.raises(
        DataError, match=r"masks hold 2; expected the numbers of the 2 classes in classes.txt.*map=FILE"
    ):
        recognise(tmp_path / "mine")
    (tmp_path / "map.txt").write_text("0 1\n1 0\n2 255\n")
    _, data = brought(tmp_path / "mine", tmp_path / "new", map=tmp_path / "map.txt")
    assert data.classes == ("sky", "road") and np.array_equal(data[0].label, truth("a", (1, 0, 255, 255)))


def test_colours_that_a_table_does_not_name(tmp_path: Path) -> None:
    cvat_voc(tmp_path / "mine")
    (tmp_path / "mine" / "labelmap.txt").write_text("background:0,0,0::\ncat:250,50,83::\n")
    with pytest.raises(DataError, match=r"masks hold 51 221 255; expected the colours in labelmap.txt"):
        recognise(tmp_path / "mine")


def test_colours_without_names_are_a_proposal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos(tmp_path / "mine")
    masks(tmp_path / "mine", "masks/{}.png", lambda n: coloured(truth(n, (0, 1, 2)), {1: 0x112233, 2: 0x445566}))
    assert main(["data", "import", str(tmp_path / "mine"), str(tmp_path / "new")]) == 0
    said = capsys.readouterr().out
    assert "this order is a proposal: correct mapping.txt, and import again with --map FILE --classes FILE" in said
    assert "17 34 51 2" in (tmp_path / "new" / "mapping.txt").read_text().splitlines()


def test_a_list_of_masks_is_no_list_of_names(tmp_path: Path) -> None:
    two_folders(tmp_path / "mine")
    (tmp_path / "mine" / "train_labels.txt").write_text("a.png\nb.png\nc.png\nd.png\n")
    found = recognise(tmp_path / "mine")
    assert found.classes[0] == "class 0" and len(found.splits["train_labels"]) == 4


def test_noise_is_no_mask(tmp_path: Path, rng: np.random.Generator) -> None:
    photos(tmp_path / "mine")
    masks(tmp_path / "mine", "masks/{}.png", lambda name: rng.integers(0, 255, (H, W, 3), np.uint8))
    with pytest.raises(DataError, match="more than 1000 colours; expected one for each class"):
        recognise(tmp_path / "mine")


def test_masks_that_are_all_void(tmp_path: Path) -> None:
    photos(tmp_path / "mine")
    masks(tmp_path / "mine", "masks/{}.png", lambda name: truth(name, (255,)))
    with pytest.raises(
        DataError, match=r"a.png: every mask holds 255 .*expected classes from 0; if 255 is a class.*`255 1`"
    ):
        recognise(tmp_path / "mine")
    (tmp_path / "map.txt").write_text("255 1\n")
    assert recognise(tmp_path / "mine", map=tmp_path / "map.txt").classes[1] == "class 1"


def test_a_mask_alone(tmp_path: Path) -> None:
    two_folders(tmp_path / "mine")
    save(tmp_path / "mine" / "masks" / "z.png", truth("a"))
    (line,) = recognise(tmp_path / "mine").left_out
    assert "z.png: mask without a picture of its name; expected one beside it, or in a folder images; rename it" in line


def test_too_many_labels(tmp_path: Path) -> None:
    photos(tmp_path / "mine", "{}.jpg")
    labelme(tmp_path / "mine", "a", [shape(f"l{n}", [[0, 0], [9, 9]], "rectangle") for n in range(255)])
    with pytest.raises(DataError, match="labels of 255 names; expected fewer than 255"):
        recognise(tmp_path / "mine")


def test_jpeg_masks_hold_no_numbers(tmp_path: Path) -> None:
    photos(tmp_path / "mine")
    masks(tmp_path / "mine", "masks/{}.jpg", lambda name: truth(name, (0, 60, 120, 180)))
    with pytest.raises(DataError, match=r"mask is a JPEG with \d+ greys; expected black and white"):
        recognise(tmp_path / "mine")


def test_palettes_count_as_the_user_says(tmp_path: Path) -> None:
    palettes_of_other_numbers(tmp_path / "mine")
    found = recognise(tmp_path / "mine", by="numbers")
    assert found.meaning is not None and found.meaning.by == "numbers"


def test_one_colour_with_two_numbers(tmp_path: Path) -> None:
    """Red is 1 in some files and 2 in others: it is one class, and the check of such a tree names it."""
    red = np.zeros((256, 3), np.uint8)
    red[0] = 10, 10, 10
    one, two = red.copy(), red.copy()
    one[1] = two[2] = 200, 30, 40
    one, two = one[:3], two[:3]
    one[2], two[1] = (1, 2, 3), (3, 2, 1)  # not in use

    def make(name: str) -> Image.Image:
        return with_palette(truth(name, (0, 1)), one) if name in "ac" else with_palette(truth(name, (0, 2)), two)

    photos(tmp_path / "mine", "JPEGImages/{}.jpg")
    masks(tmp_path / "mine", "SegmentationClass/{}.png", make)
    found, data = brought(tmp_path / "mine", tmp_path / "new")
    says = "the colour 200 30 40 is number 1 in a.png and 2 in b.png"
    assert says in found.why and len(data.classes) == 2 and np.array_equal(data[1].label, truth("b", (0, 1)))
    assert says in check(tmp_path / "mine").faults["palettes"]


def test_a_palette_that_ends_in_black_has_no_colour_twice(tmp_path: Path) -> None:
    photos(tmp_path, "JPEGImages/{}.jpg")
    short = np.zeros((256, 3), np.uint8)
    short[1] = 200, 30, 40
    masks(
        tmp_path, "SegmentationClass/{}.png", lambda name: with_palette(truth(name, (0, 1, ord(name) % 9 + 5)), short)
    )
    assert "palettes" not in check(tmp_path).faults


@pytest.mark.parametrize("named", [False, True])
def test_most_colours_are_those_of_voc_at_other_numbers(named: bool, tmp_path: Path) -> None:
    few = np.zeros((256, 3), np.uint8)
    few[[0, 1, 2]] = palette(256)[[0, 17, 8]]
    few[3] = 9, 99, 199
    photos(tmp_path / "mine", "JPEGImages/{}.jpg")
    masks(tmp_path / "mine", "SegmentationClass/{}.png", lambda name: with_palette(truth(name, (0, 1, 2, 3)), few))
    if named:
        (tmp_path / "mine" / "classes.txt").write_text("bg\nsheep\ncat\nmine\n")
    found, data = brought(tmp_path / "mine", tmp_path / "new")
    assert "number 1 has the colour 128 64 0, which is VOC's of class 17; `by=colours` takes the colours" in found.why
    assert found.sure == named and np.array_equal(data[0].label, truth("a", (0, 1, 2, 3)))
    assert data.classes[:2] == (("bg", "sheep") if named else VOC_CLASSES[:2])
    assert "number 1 has the colour 128 64 0" in check(tmp_path / "mine").faults["palettes"][0]
    assert recognise(tmp_path / "mine", by="numbers").meaning is not None


def test_a_list_names_numbers_whose_colours_are_those_of_voc(tmp_path: Path) -> None:
    palettes_of_other_numbers(tmp_path / "mine")
    (tmp_path / "mine" / "classes.txt").write_text("bg\nsheep\ncat\n")
    found, data = brought(tmp_path / "mine", tmp_path / "new")
    assert data.classes == ("bg", "sheep", "cat") and np.array_equal(data[0].label, truth("a", (0, 1, 2)))
    assert "the numbers count" in found.why and found.sure


@pytest.mark.parametrize("listed", [False, True])
def test_two_greys_in_three_channels(listed: bool, tmp_path: Path) -> None:
    """Black and (128, 128, 128) are VOC's colours, and two greys that show two classes."""
    photos(tmp_path / "mine")
    masks(tmp_path / "mine", "masks/{}.png", lambda name: Image.fromarray(truth(name, (0, 128))).convert("RGB"))
    if listed:
        (tmp_path / "mine" / "classes.txt").write_text("bg\nroad\n")
    found, data = brought(tmp_path / "mine", tmp_path / "new")
    assert data.classes == (("bg", "road") if listed else ("number 0", "number 128")) and not found.sure
    assert np.array_equal(data[0].label, truth("a", (0, 1))) and "three channels that are equal" in found.why


def smooth(name: str, numbers: tuple[int, ...], colours: bool = False) -> Image.Image:
    size = (4 * W, 4 * H)
    one = (
        Image.fromarray(truth(name, numbers)).resize(size, Image.Resampling.BICUBIC).rotate(3, Image.Resampling.BICUBIC)
    )
    return one.convert("RGB") if colours else one


@pytest.mark.parametrize("colours", [False, True])
def test_black_and_white_scaled_with_interpolation(colours: bool, tmp_path: Path) -> None:
    for name in NAMES:
        save(tmp_path / "mine" / "images" / f"{name}.png", picture(name, (4 * H, 4 * W)))
    masks(tmp_path / "mine", "masks/{}.png", lambda name: smooth(name, (0, 255), colours))
    found, data = brought(tmp_path / "mine", tmp_path / "new")
    assert "black and white, scaled with interpolation" in found.why and data.classes == ("background", "object")
    assert np.array_equal(data[0].label, np.asarray(smooth("a", (0, 255))) >= 128)


def test_classes_scaled_with_interpolation(tmp_path: Path) -> None:
    for name in NAMES:
        save(tmp_path / "mine" / "images" / f"{name}.png", picture(name, (4 * H, 4 * W)))
    masks(tmp_path / "mine", "masks/{}.png", lambda name: smooth(name, (0, 80, 160, 240)))
    with pytest.raises(DataError, match=r"masks hold \d+ numbers, of which 6 fill nearly all; .*nearest neighbour"):
        recognise(tmp_path / "mine")
    names = "".join(f"class {number}\n" for number in range(255))
    (tmp_path / "mine" / "classes.txt").write_text(names)
    assert "named in classes.txt" in recognise(tmp_path / "mine").why


def test_the_run_and_the_new_folder_are_no_inputs(tmp_path: Path) -> None:
    two_folders(tmp_path / "mine")
    run = tmp_path / "mine" / "runs" / "one"
    save(run / "samples" / "z.jpg", picture("z")), save(run / "samples" / "z_mask.png", truth("z"))
    (run / "metrics.jsonl").write_text(""), (run / "config.json").write_text("{}")
    new = tmp_path / "mine" / "new"
    assert main(["data", "import", str(tmp_path / "mine"), str(new)]) == 0
    assert VOCSegmentation(new, None).ids == tuple(NAMES)
    assert len(recognise(tmp_path / "mine", without=new).items) == 5
    assert main(["data", "import", str(tmp_path / "mine"), str(new)]) == 2


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_folders(tmp_path / "mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["data", "import", "~/mine", "~/new"]) == 0 and (tmp_path / "new" / "class_names.txt").is_file()


@pytest.mark.parametrize(("name", "classes", "count"), [("ade20k_samples", 150, 3), ("labelme_voc_example", 21, 3)])
def test_real_files(name: str, classes: int, count: int, data_root: Path, tmp_path: Path) -> None:
    if not (data_root / name).is_dir():
        pytest.skip(f"{name} is not in the folder that MINIFCN_DATA names")
    _, data = brought(data_root / name, tmp_path / "new")
    assert len(data.classes) == classes and len(data) == count


@pytest.mark.parametrize("name", ["lwrn", "mtrn"])
def test_real_files_of_nyud(name: str, data_root: Path, tmp_path: Path) -> None:
    folder = data_root / "nyud_samples" / name
    if not folder.is_dir():
        pytest.skip("nyud_samples is not in the folder that MINIFCN_DATA names")
    _, data = brought(folder, tmp_path / "new")
    assert data[0].label.shape == data[0].image.shape[:2] and len(data.classes) == 40


TRAINED = (
    *("one_folder_mask", "same_names_in_two_splits", "kvasir", "cvat_voc", "pets", "cityscapes", "ade20k", "camvid"),
    *("carla", "npy", "stack", "png_16_bit", "palettes_that_disagree", "labelme", "coco", "cvat"),
)


def drawn_shapes(kind: str, folder: Path) -> None:
    """A folder of photographs and a rectangle on each, in the file of a tool."""
    photos(folder, "{}.jpg")
    if kind == "coco":
        write_coco(folder, coco_file())
    elif kind == "cvat":
        box = '<box label="car" xtl="4" ytl="4" xbr="30" ybr="20" z_order="0"/>'
        (folder / "annotations.xml").write_text(CVAT.format("".join(cvat_image(name, box) for name in NAMES)))
    else:
        for name in NAMES:
            labelme(folder, name, [shape("dog", [[4, 4], [30, 20]], "rectangle")])


FEW = [
    *("--width", "2", "--layers", "11", "--crop", "32", "--batch", "2", "--epochs", "1", "--stop-after", "2"),
    *("--dropout", "0", "--samples", "1", "--threads", "1"),
]


@pytest.mark.slow("a training of two steps for each layout")
@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.usefixtures("undrawn")
def test_what_is_imported_trains(name: str, tmp_path: Path) -> None:
    LAYOUTS[name][0](tmp_path / "mine") if name in LAYOUTS else drawn_shapes(name, tmp_path / "mine")
    try:
        assert main(["data", "import", str(tmp_path / "mine"), str(tmp_path / "new")]) == 0
        assert main(["train", *FEW, "--data", str(tmp_path / "new"), "--run", str(tmp_path / "run")]) == 0
    finally:
        set_threads(None)
