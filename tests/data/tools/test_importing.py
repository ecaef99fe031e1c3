"""`minifcn data import`: every layout that people have, drawn here, becomes the tree that it should."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minifcn.cli.verbs import main
from minifcn.data.files import read_mask
from minifcn.data.tools.importing import Found, recognise, write_tree
from minifcn.data.tools.sidecars import CAMVID
from minifcn.data.voc import VOC_CLASSES, VOCSegmentation
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
