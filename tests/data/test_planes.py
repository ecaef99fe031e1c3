"""Images of 1 to 16 planes: read by their own numbers, trained on, measured, predicted and exported."""

import json
import shutil
import struct
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deep_pictures import deep_png, deep_tiff
from PIL import Image
from some_slow import slow_but

from minifcn.cli.verbs import main
from minifcn.data.augment import Augmentation
from minifcn.data.batches import Preprocessing
from minifcn.data.files import write_mask
from minifcn.data.inputs import Inputs
from minifcn.data.planes import read_planes, shown
from minifcn.data.sample import Sample
from minifcn.data.tools.importing import recognise
from minifcn.data.voc import VOCSegmentation
from minifcn.errors import DataError, FormatError, MinifcnError, UsageError
from minifcn.training.net_record import read_record
from minifcn.training.options import Options
from minifcn.training.trained import open_trained
from minifcn.training.transfer import with_planes

H, W = 24, 32


def drawn(seed: int, planes: int) -> tuple[np.ndarray, np.ndarray]:
    """Planes (H, W, C) uint16 that use few low bits, at another level each, and a mask of three classes they show."""
    rng = np.random.default_rng(seed)
    label = np.zeros((H, W), np.uint8)
    top, left = rng.integers(0, H - 10), rng.integers(0, W - 14)
    label[top : top + 10, left : left + 7], label[top : top + 10, left + 7 : left + 14] = 1, 2
    levels = 100 * (1 + np.arange(planes)) + np.array([0, 40, -40])[label][:, :, None] * (1 + np.arange(planes) % 2)
    return (levels + rng.integers(0, 5, (H, W, planes))).astype(np.uint16), label


def save_tiff(path: Path, planes: np.ndarray) -> None:
    pages = [Image.fromarray(np.ascontiguousarray(planes[:, :, i])) for i in range(planes.shape[2])]
    pages[0].save(path, save_all=True, append_images=pages[1:])


def tree(root: Path, planes: int, *, suffix: str, count: int = 6) -> Path:
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    names = [f"scene_{i}" for i in range(count)]
    for i, name in enumerate(names):
        image, label = drawn(i, planes)
        path = root / "JPEGImages" / f"{name}{suffix}"
        if suffix == ".npy":
            np.save(path, image.transpose(2, 0, 1) if i % 2 else image)
        else:
            save_tiff(path, image)
        write_mask(root / "SegmentationClass" / f"{name}.png", label)
    (root / "class_names.txt").write_text("ground\nwater\nfield\n")
    for split, part in (("train", names[:-2]), ("val", names[-2:])):
        (root / "ImageSets/Segmentation" / f"{split}.txt").write_text("".join(f"{name}\n" for name in part))
    return root


# ---- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
def test_an_array_is_read_with_its_planes_first_or_last(tmp_path: Path, dtype: str) -> None:
    image = drawn(0, 5)[0].astype(dtype)
    for name, array in {"last": image, "first": image.transpose(2, 0, 1), "F": np.asfortranarray(image)}.items():
        np.save(tmp_path / f"{name}.npy", array)
        found = read_planes(tmp_path / f"{name}.npy", count=5)
        assert found.dtype == np.dtype(dtype) and np.array_equal(found, image), name
    np.save(tmp_path / "one.npy", image[:, :, 0])
    assert read_planes(tmp_path / "one.npy").shape == (H, W, 1)


def test_a_count_decides_which_axis_is_the_planes(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((5, 40, 3), np.uint8))
    assert read_planes(tmp_path / "a.npy", count=5).shape == (40, 3, 5)
    assert read_planes(tmp_path / "a.npy", count=3).shape == (5, 40, 3)
    with pytest.raises(DataError, match="both the first and the last axis"):
        read_planes(tmp_path / "a.npy", count=4)
    (tmp_path / "a.npy").write_bytes(b"")
    with pytest.raises(DataError, match="found 0 bytes, expected an image"):
        read_planes(tmp_path / "a.npy")


@pytest.mark.parametrize("mode", ["L", "I;16", "F", "I"])
def test_the_pages_of_a_tiff_are_its_planes(tmp_path: Path, mode: str) -> None:
    dtype = {"L": np.uint8, "I;16": np.uint16, "F": np.float32, "I": np.int32}[mode]
    image = np.random.default_rng(0).integers(0, 250, (H, W, 4)).astype(dtype)
    save_tiff(tmp_path / "a.tif", image)
    assert np.array_equal(read_planes(tmp_path / "a.tif"), image)


@pytest.mark.parametrize(("mode", "count"), [("RGB", 3), ("RGBA", 4), ("CMYK", 4), ("L", 1)])
@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_the_samples_of_a_page_are_planes(tmp_path: Path, mode: str, count: int, suffix: str) -> None:
    if (mode, suffix) == ("CMYK", ".png"):
        pytest.skip("PNG has no CMYK")
    image = np.random.default_rng(1).integers(0, 256, (H, W, count)).astype(np.uint8)
    Image.fromarray(image[:, :, 0] if count == 1 else image, mode).save(tmp_path / f"a{suffix}")
    assert np.array_equal(read_planes(tmp_path / f"a{suffix}"), image)


def test_a_16_bit_png_keeps_its_low_bits(tmp_path: Path) -> None:
    image = drawn(2, 1)[0]
    Image.fromarray(image[:, :, 0]).save(tmp_path / "a.png")
    assert np.array_equal(read_planes(tmp_path / "a.png"), image)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((5, 40, 3), "both the first and the last axis"),
        ((4, 4, 4), "both the first and the last axis"),
        ((40, 5, 60), "no axis can be the planes"),
        ((2, 3, 40, 40), "no axis can be the planes"),
        ((17, 40, 60), "no axis can be the planes"),
        ((60,), "no axis can be the planes"),
        ((0, 40, 60), "no axis can be the planes"),
        ((3, 0, 60), "has 3 planes of 60x0"),
    ],
)
def test_an_array_whose_planes_are_not_clear_is_refused(tmp_path: Path, shape: tuple[int, ...], message: str) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    with pytest.raises(DataError, match=message):
        read_planes(tmp_path / "a.npy")


def test_what_holds_no_planes_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "inf.npy", np.full((2, 20, 20), np.inf))
    np.save(tmp_path / "objects.npy", np.array([{}, None], object), allow_pickle=True)
    np.save(tmp_path / "nan.npy", np.full((2, 20, 20), np.nan))
    (tmp_path / "broken.tif").write_bytes(b"II*\0" + bytes(40))
    one, two = Image.new("L", (20, 20)), Image.new("L", (20, 21))
    one.save(tmp_path / "sizes.tif", save_all=True, append_images=[two])
    one.save(tmp_path / "many.tif", save_all=True, append_images=[one] * 16)
    exif = Image.Exif()
    exif[274] = 3
    one.save(tmp_path / "turned.tif", exif=exif)
    for name, message in {
        "inf.npy": "infinity",
        "nan.npy": "NaN alone",
        "objects.npy": "dtype",
        "broken.tif": "pip install tifffile, or save the planes as .npy",
        "sizes.tif": "expected one size",
        "many.tif": "17 pages",
        "turned.tif": "save it upright",
    }.items():
        with pytest.raises(DataError) as caught:
            read_planes(tmp_path / name)
        assert message in str(caught.value) and str(caught.value).count("\n") == 0, caught.value


def tiff16(pixels: np.ndarray) -> bytes:
    """A TIFF of three samples with 16 bits each, which Pillow reads and does not write."""
    height, width, samples = pixels.shape
    entries = [(256, width), (257, height), (258, 122), (259, 1), (262, 2), (273, 128), (277, samples), (278, height)]
    entries += [(279, pixels.nbytes)]
    counts = {258: samples}
    table = b"".join(struct.pack("<HHII", tag, 3 if tag == 258 else 4, counts.get(tag, 1), v) for tag, v in entries)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + table + struct.pack("<I", 0)
    return head + struct.pack("<3H", 16, 16, 16) + pixels.astype("<u2").tobytes()


def test_samples_of_16_bits_are_read_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow leaves out their lower bits, in which a sensor of 12 bits holds most of what it saw."""
    image = drawn(0, 3)[0]
    (tmp_path / "a.tif").write_bytes(tiff16(image))
    (tmp_path / "b.tif").write_bytes(tiff16(image * 64))
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(DataError, match=r"16 bits in each of several samples, .*pip install tifffile"):
        read_planes(tmp_path / "a.tif")
    assert np.array_equal(read_planes(tmp_path / "a.tif", count=3), image)
    assert np.array_equal(read_planes(tmp_path / "b.tif"), image * 64 >> 8)  # a photograph
    monkeypatch.setitem(sys.modules, "tifffile", types.SimpleNamespace(imread=lambda path: image))
    assert np.array_equal(read_planes(tmp_path / "a.tif", count=3), image)


def test_what_a_tiff_calls_no_data_was_not_measured(tmp_path: Path) -> None:
    planes = np.float32([[1, -9999], [-3.4028235e38, 4]])
    for row, text, rest in ((planes[:1], "-9999", 1), (planes[1:], "-3.4028234663852886e+38", 4)):
        Image.fromarray(row).save(tmp_path / "a.tif", tiffinfo={42113: text})
        found = read_planes(tmp_path / "a.tif")
        assert np.isnan(found).sum() == 1 and np.nansum(found) == rest
    Image.fromarray(planes).save(tmp_path / "c.tif")
    with pytest.raises(DataError, match=r"numbers beyond 1e\+30; expected numbers, and NaN where nothing was"):
        read_planes(tmp_path / "c.tif")
    black = np.zeros((4, 5, 3), np.uint8)
    black[0] = 9
    Image.fromarray(black).save(tmp_path / "photo.tif", tiffinfo={42113: "0"})
    assert np.array_equal(read_planes(tmp_path / "photo.tif"), black)
    assert np.isnan(read_planes(tmp_path / "photo.tif", count=3)).sum() == 45
    Image.fromarray(black).save(tmp_path / "odd.tif", tiffinfo={42113: "none"})
    assert np.array_equal(read_planes(tmp_path / "odd.tif", count=3), black)


def test_tifffile_reads_what_pillow_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0" + bytes(40))
    image = drawn(0, 6)[0]
    monkeypatch.setitem(sys.modules, "tifffile", types.SimpleNamespace(imread=lambda path: image.transpose(2, 0, 1)))
    assert np.array_equal(read_planes(tmp_path / "a.tif"), image)


def test_what_is_shown_is_three_planes_each_stretched() -> None:
    image = drawn(0, 5)[0]
    picture = shown(image)
    assert picture.shape == (H, W, 3) and picture.dtype == np.uint8
    assert all(picture[:, :, i].min() == 0 and picture[:, :, i].max() == 255 for i in range(3))
    assert np.array_equal(shown(image[:, :, :1])[:, :, 0], shown(image[:, :, :1])[:, :, 2])
    assert not shown(np.full((4, 4, 2), np.nan)).any() and not shown(np.full((4, 4, 2), 7)).any()


# ---- what training does to them -------------------------------------------------------------------------------------


def test_the_mean_and_spread_of_each_plane_are_those_of_the_training_images(tmp_path: Path) -> None:
    data = VOCSegmentation(tree(tmp_path / "t", 5, suffix=".npy"), "train", planes=5)
    fitted = Preprocessing.fit_planes(data)
    every = np.concatenate([data[i].planes.reshape(-1, 5) for i in range(len(data))]).astype(float)
    np.testing.assert_allclose(fitted.mean, every.mean(axis=0))
    np.testing.assert_allclose(fitted.std, every.std(axis=0))
    assert Preprocessing.from_dict(json.loads(json.dumps(fitted.as_dict()))) == fitted
    x = fitted(data[0].planes)
    assert x.shape == (5, H, W) and x.dtype == np.float32 and abs(x).max() < 10
    assert str(fitted).startswith("5 planes, less (")
    holes = data[0].planes.astype(np.float32)
    holes[3, 4] = np.nan
    assert not fitted(holes)[:, 3, 4].any() and np.array_equal(fitted(holes)[:, 0, 0], x[:, 0, 0])


def test_planes_move_with_their_labels() -> None:
    image, label = drawn(3, 4)
    planes = np.concatenate([image.astype(np.float32), label[:, :, None]], axis=2)
    for seed in range(5):
        change = Augmentation(mirror=True, translate=5, crop=20)
        new = change(Sample("a", shown(planes), label, planes=planes), np.random.default_rng(seed))
        assert new.planes.shape == (20, 20, 5)
        outside = np.isnan(new.planes[:, :, 4])
        assert np.array_equal(outside, new.label == 255)
        assert np.array_equal(new.planes[~outside][:, 4], new.label[~outside])
    twice = Augmentation(scale=(2, 2))(Sample("a", shown(planes), label, planes=planes), np.random.default_rng(0))
    assert twice.planes.shape == (2 * H, 2 * W, 5) and abs(twice.planes[:, :, 0].mean() - planes[:, :, 0].mean()) < 1


def test_what_is_wrong_with_the_inputs_is_said(tmp_path: Path) -> None:
    root = tree(tmp_path / "t", 5, suffix=".tif")
    with pytest.raises(DataError, match="has 5 planes of uint16, and the net sees colours; expected `inputs=5`"):
        VOCSegmentation(root, "train")[0]
    with pytest.raises(DataError, match="has 5 planes of 32x24; expected 4"):
        VOCSegmentation(root, "train", planes=4)[0]
    for name in ("0", "17", "5.0", "05", "+5"):
        with pytest.raises(UsageError, match="or a number of planes, 1 to 16"):
            Options(inputs=name)
    for more in ({"hide": "foreground"}, {"mean": "imagenet"}, {"jitter": 0.1}):
        with pytest.raises(UsageError, match="expected neither `hide` nor `mean`"):
            Options(inputs="5", **more)
    with pytest.raises(DataError, match="no planes; expected 5"):
        Inputs("5", Preprocessing("planes", 1.0, (0.0,) * 5, (1.0,) * 5))(
            Sample("a", np.zeros((2, 2, 3), np.uint8), None)
        )
    for mean, std in (((), ()), ((0.0,) * 17, (1.0,) * 17), ((0.0, 1.0), (1.0,))):
        with pytest.raises(FormatError):
            Preprocessing.from_dict({"order": "planes", "scale": 1.0, "mean": list(mean), "std": list(std)})


# ---- a folder of them ------------------------------------------------------------------------------------------------


def folder_of(root: Path, planes: int, suffix: str) -> Path:
    """Images and masks in two folders, as a program that is not ours leaves them."""
    own = tree(root / "own", planes, suffix=suffix, count=4)
    (own / "JPEGImages").rename(root / "images")
    (own / "SegmentationClass").rename(root / "masks")
    shutil.rmtree(own)
    return root


@pytest.mark.parametrize(("planes", "suffix"), [(5, ".npy"), (5, ".tif"), (1, ".npy"), (16, ".tif")])
def test_a_folder_of_planes_is_imported_with_its_numbers(
    planes: int, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, new = folder_of(tmp_path / "mine", planes, suffix), tmp_path / "new"
    assert main(["data", "import", str(folder), str(new), "--planes", str(planes)]) == 0
    said = capsys.readouterr().out
    assert "whose numbers are kept as they are" in said and f"--data {new} --inputs {planes}" in said
    data = VOCSegmentation(new, None, planes=planes)
    assert len(data) == 4 and (new / "overlays.png").is_file()
    for number in range(4):
        copy = new / "JPEGImages" / f"scene_{number}{suffix}"
        assert copy.read_bytes() == (folder / "images" / copy.name).read_bytes()
        assert np.array_equal(data[number].label, drawn(number, planes)[1])
    assert main(["data", "import", str(folder), str(tmp_path / "other"), "--planes", "7"]) == 2
    assert f"of {W}x{H}; expected 7 of at most" in capsys.readouterr().err


def test_an_import_that_finds_planes_says_how_to_read_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays, pages = folder_of(tmp_path / "a", 5, ".npy"), folder_of(tmp_path / "b", 5, ".tif")
    assert main(["data", "import", str(arrays), str(tmp_path / "new")]) == 2
    assert "say with --planes N that a .npy is an image of N planes" in capsys.readouterr().err
    assert main(["data", "import", str(pages), str(tmp_path / "new")]) == 2
    assert "1 pages; expected 5, as in scene_0.tif; are they planes of one image? --planes 5" in capsys.readouterr().err
    for number in range(4):
        image = drawn(number, 4)[0].astype(np.uint8)
        Image.fromarray(image, "RGBA").save(pages / "images" / f"scene_{number}.tif")
    assert main(["data", "import", str(pages), str(tmp_path / "new")]) == 0
    assert "4 pictures of 4 planes become colours; --planes 4 keeps their numbers" in capsys.readouterr().out
    assert main(["data", "import", str(pages), str(tmp_path / "newer"), "--planes", "17"]) == 2
    with pytest.raises(UsageError, match="planes=17; expected 1 to 16"):
        recognise(pages, planes=17)


@pytest.mark.parametrize("planes", [1, 2, 3, 4])
def test_a_trunk_of_colours_sees_planes_as_if_they_were_grey(planes: int) -> None:
    w = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    found = with_planes({"conv1.w": (4, planes, 3, 3)}, {"conv1.w": w})["conv1.w"]
    assert found.shape == (4, planes, 3, 3)
    if planes < 3:
        np.testing.assert_allclose(found.sum(axis=1), w.sum(axis=1), rtol=1e-5, atol=1e-6)
    else:
        assert np.array_equal(found[:, :3], w)


# ---- a run ----------------------------------------------------------------------------------------------------------

SMALL = "--trunk vgg11 --width 2 --stages 32 --batch 2 --crop 0 --samples 1 --measure-every 100".split()


@pytest.mark.parametrize(
    ("planes", "suffix"), slow_but([(5, ".npy")], [(5, ".npy"), (1, ".tif"), (16, ".tif")], "trains again")
)
@pytest.mark.usefixtures("undrawn")
def test_a_set_of_planes_is_checked_trained_on_measured_predicted_and_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], planes: int, suffix: str
) -> None:
    root, run = str(tree(tmp_path / "data", planes, suffix=suffix)), str(tmp_path / "run")
    many = f"{planes} plane{'s' * (planes != 1)}"
    assert main(["data", "check", root]) == 0
    assert f"train with --inputs {planes}; pictures show plane" in capsys.readouterr().out
    options = ["--data", root, "--inputs", str(planes), "--run", run, "--steps", "3", "--device", "cpu", *SMALL]
    assert main(["train", "--dry-run", *options]) == 0
    assert main(["train", *options]) == 0
    assert f"images of {planes} planes, less (" in capsys.readouterr().out
    assert main(["evaluate", run, "--data", root]) == 0
    image = str(Path(root) / "JPEGImages" / f"scene_4{suffix}")
    assert main(["predict", run, image, "--out", str(tmp_path / "p"), "--scales", "1,1.5", "--flip"]) == 0
    assert "pictures show plane" in capsys.readouterr().out
    assert main(["predict", run, image, "--out", str(tmp_path / "p"), "--explain", "3,4"]) == 0
    assert "pixel 3,4 is " in capsys.readouterr().out and (tmp_path / "p" / "scene_4-explain-3-4.html").is_file()
    assert main(["evaluate", run, "--data", root, "--flip", "--scales", "1,1.5"]) == 0
    with Image.open(tmp_path / "p" / "scene_4-overlay.png") as overlay:
        assert overlay.size == (W, H)
    Image.new("RGB", (W, H)).save(tmp_path / "photo.png")
    assert main(["predict", run, str(tmp_path / "photo.png"), "--out", str(tmp_path / "p")]) == 2
    assert f"has 3 planes of {W}x{H}; expected {planes}" in capsys.readouterr().err, many
    pytest.importorskip("onnx")
    assert main(["export", run, str(tmp_path / "net.onnx")]) == 0
    assert f"image (N, {planes}, H, W)" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_a_picture_is_scaled_in_prediction_as_in_training(tmp_path: Path) -> None:
    """The same numbers reach the net from the same file; the mean of each plane is the record's."""
    root, run = tree(tmp_path / "data", 5, suffix=".tif"), str(tmp_path / "run")
    options = ["--data", str(root), "--inputs", "5", "--run", run, "--steps", "1", "--device", "cpu", *SMALL]
    assert main(["train", *options]) == 0
    trained = open_trained(run)
    data = VOCSegmentation(root, "train", planes=5)
    assert trained.preprocessing == Preprocessing.fit_planes(data)
    (seen,) = trained.inputs(data[0])
    again = trained.preprocessing(read_planes(root / "JPEGImages" / "scene_0.tif", count=5))
    assert np.array_equal(seen, again) and abs(seen.mean()) < 0.5 and 0.5 < seen.std() < 2


def test_a_set_that_mixes_planes_and_photographs_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree(tmp_path / "data", 4, suffix=".tif")
    (root / "JPEGImages" / "scene_0.tif").unlink()
    noise: Any = np.random.default_rng(0).integers(0, 256, (H, W, 3)).astype(np.uint8)
    Image.fromarray(noise).save(root / "JPEGImages" / "scene_0.png")
    assert main(["data", "check", str(root)]) != 0
    assert "images of different numbers of planes" in capsys.readouterr().out
    with pytest.raises(MinifcnError, match="has 3 planes of 32x24; expected 4"):
        VOCSegmentation(root, "train", planes=4)[0]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_colours_of_16_bits_keep_all_of_them(suffix: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 2**16, (H, W, 3)).astype(np.uint16)
    path = (deep_png if suffix == ".png" else deep_tiff)(tmp_path / f"a{suffix}", pixels)
    planes = read_planes(path, count=3)
    assert planes.dtype == np.uint16 and np.array_equal(planes, pixels)


def test_a_tiff_of_colours_is_a_photograph(tmp_path: Path) -> None:
    root = tree(tmp_path / "data", 4, suffix=".tif")
    noise = np.random.default_rng(0).integers(0, 256, (H, W, 3)).astype(np.uint8)
    Image.fromarray(noise).save(root / "JPEGImages" / "scene_0.tif")
    sample = VOCSegmentation(root, "train")[0]
    assert np.array_equal(sample.image, noise) and sample.planes is None


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("bits", [10, 16])
def test_predict_scales_a_16_bit_photograph_as_the_import_did(tmp_path: Path, bits: int) -> None:
    """The scores of an original are those of the picture that the import wrote of it, to the last bit."""
    for folder in ("images", "masks"):
        (tmp_path / "mine" / folder).mkdir(parents=True)
    for i in range(4):
        ramp = np.linspace(0, 2**bits - 1, H * W).reshape(H, W).astype(np.uint16)
        Image.fromarray(np.roll(ramp, 50 * i)).save(tmp_path / "mine" / "images" / f"scene_{i}.png")
        write_mask(tmp_path / "mine" / "masks" / f"scene_{i}.png", drawn(i, 1)[1])
    root, run = tmp_path / "new", tmp_path / "run"
    assert main(["data", "import", str(tmp_path / "mine"), str(root)]) == 0
    assert (root / "image-bits.txt").is_file() == (bits < 16)
    main(["data", "check", str(root), "--write", str(tmp_path / "again")])
    assert (tmp_path / "again" / "image-bits.txt").is_file() == (bits < 16)
    options = ["--data", str(root), "--run", str(run), "--steps", "1", "--device", "cpu", *SMALL]
    assert main(["train", *options]) == 0
    scores = {}
    for name, image in {"old": tmp_path / "mine" / "images", "new": root / "JPEGImages"}.items():
        out = tmp_path / name
        assert main(["predict", str(run), str(image / "scene_0.png"), "--scores", "--out", str(out)]) == 0
        scores[name] = np.load(out / "scene_0-scores.npz")["scores"]
    assert np.array_equal(scores["old"], scores["new"])
    trained = open_trained(run)
    assert trained.image_bits == bits
    for wrong in (7, 17, "12", None, True):
        meta = {**trained.meta, "net": {**trained.meta["net"], "image_bits": wrong}}
        with pytest.raises(FormatError, match="image_bits is"):
            read_record(run, meta)


def test_a_count_of_bits_is_one_number(tmp_path: Path) -> None:
    root = tree(tmp_path / "data", 4, suffix=".tif")
    for text in ("12\n13\n", "7\n", "many\n", "12.0\n"):
        (root / "image-bits.txt").write_text(text)
        with pytest.raises(DataError, match="expected one number from 8 to 16"):
            VOCSegmentation(root, "train")
