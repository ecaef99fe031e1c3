"""VOC trees: where they are found, what their lists may say (row 25), what may be wrong with a pair (26, 29-31)."""

import shutil

import numpy as np
import pytest
from PIL import Image

from minifcn.data.batches import Preprocessing, collate
from minifcn.data.files import write_image, write_mask
from minifcn.data.voc import VOC_CLASSES, VOCSegmentation
from minifcn.errors import DataError, UsageError

IDS = ("2007_000032", "2008-a", "9")


def add_pair(folder, name, height=6, width=8, value=1):
    write_image(folder / "JPEGImages" / f"{name}.jpg", np.full((height, width, 3), 90, dtype=np.uint8))
    label = np.full((height, width), value, dtype=np.uint8)
    label[0, 0] = 255
    write_mask(folder / "SegmentationClass" / f"{name}.png", label)


def make_tree(folder, ids=IDS, **splits):
    """A small VOC year folder, with a list `train` of all ids and one for each further keyword."""
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / part).mkdir(parents=True)
    for name in ids:
        add_pair(folder, name)
    for split, names in {"train": ids, **splits}.items():
        write_list(folder, "".join(f"{name}\n" for name in names).encode(), split)
    return folder


def write_list(folder, content, split="train"):
    (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_bytes(content)


def refusal(call, kind=DataError):
    """The message of a refusal, which is one line."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "VOC2012", val=IDS[:1])


# ------------------------------------------------------------------------------------------------- finding the tree


def test_a_sample_has_id_image_and_label(tree):
    data = VOCSegmentation(tree)
    assert data.ids == IDS and len(data) == 3 and data.classes == VOC_CLASSES and len(VOC_CLASSES) == 21
    sample = data[1]
    assert sample.id == "2008-a"
    assert sample.image.shape == (6, 8, 3) and sample.image.dtype == np.uint8
    assert sample.label.shape == (6, 8) and sample.label.dtype == np.uint8
    assert np.unique(sample.label).tolist() == [1, 255]
    assert data[-1].id == "9" and [one.id for one in data] == list(IDS)


@pytest.mark.parametrize("inner", ["VOC2012", "VOCdevkit/VOC2012", "TrainVal/VOCdevkit/VOC2011"])
def test_the_root_may_be_the_year_the_devkit_or_its_parent(tmp_path, inner):
    folder = make_tree(tmp_path / inner)
    root = folder
    while root != tmp_path.parent and root.name != "TrainVal":
        assert VOCSegmentation(root).folder == folder
        root = root.parent
    assert VOCSegmentation(tmp_path, year=inner[-4:]).ids == IDS
    assert VOCSegmentation(str(folder), "train").ids == IDS


def test_of_several_years_one_is_chosen(tmp_path):
    make_tree(tmp_path / "VOCdevkit" / "VOC2007", ids=("a", "b"))
    make_tree(tmp_path / "VOCdevkit" / "VOC2012")
    assert VOCSegmentation(tmp_path, year="2007").ids == ("a", "b")
    assert VOCSegmentation(tmp_path / "VOCdevkit", year="2012").ids == IDS
    assert "the years 2007, 2012" in refusal(lambda: VOCSegmentation(tmp_path))
    assert "expected year 2010" in refusal(lambda: VOCSegmentation(tmp_path, year="2010"))
    inside = tmp_path / "VOCdevkit" / "VOC2007"
    assert "this is the year 2007" in refusal(lambda: VOCSegmentation(inside, year="2012"))


def test_a_missing_root_is_named_with_the_nearest_folder_there_is(tree):
    message = refusal(lambda: VOCSegmentation(tree.parent / "VOC2012s" / "deep"))
    assert "VOC2012s" in message and f"there is {tree.parent}" in message and "JPEGImages" in message


def test_a_root_that_is_no_tree_says_what_it_holds(tmp_path):
    (tmp_path / "pictures").mkdir()
    message = refusal(lambda: VOCSegmentation(tmp_path))
    assert "holds pictures" in message and "SegmentationClass" in message
    assert "holds nothing" in refusal(lambda: VOCSegmentation(tmp_path / "pictures"))


def test_a_folder_that_may_not_be_read_is_named(tree, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("minifcn.data.voc.os.listdir", denied)
    assert "Permission denied" in refusal(lambda: VOCSegmentation(tree))


# ---------------------------------------------------------------------------------------------------------- classes


def test_class_names_come_from_the_folder_or_the_caller(tree):
    (tree / "class_names.txt").write_text("_background_\ntv/monitor\npotted plant", encoding="utf-8")
    assert VOCSegmentation(tree).classes == ("_background_", "tv/monitor", "potted plant")
    assert VOCSegmentation(tree, classes=["sky", "road"]).classes == ("sky", "road")


def test_a_value_beyond_the_classes_is_refused(tree):
    (tree / "class_names.txt").write_text("sky\n", encoding="utf-8")
    message = refusal(lambda: VOCSegmentation(tree)[0])
    assert "holds 1 at 47 of 48 pixels" in message and "0..0 or 255" in message


@pytest.mark.parametrize("content", [b"sky\n\x1b[2J\n", b"sky\nsky\n", b"sky\n\n", b"sky\n\xff\n", b"\xef\xbb\xbfsky"])
def test_a_broken_list_of_class_names_is_refused(tree, content):
    (tree / "class_names.txt").write_bytes(content)
    assert "class_names.txt, line" in refusal(lambda: VOCSegmentation(tree))


@pytest.mark.parametrize("content", [b"", b"\n", b" \n\n"])
def test_an_empty_list_is_called_empty(tree, content):
    (tree / "class_names.txt").write_bytes(content)
    assert "class_names.txt: is empty; expected one name a line" in refusal(lambda: VOCSegmentation(tree))
    (tree / "class_names.txt").unlink()
    (tree / "ImageSets" / "Segmentation" / "train.txt").write_bytes(content)
    assert "train.txt: is empty; expected one id a line" in refusal(lambda: VOCSegmentation(tree))


@pytest.mark.parametrize("suffix", [".npy", ".tif", ".jpg"])
def test_a_file_of_another_suffix_is_named_beside_the_one_that_is_missing(tree, suffix):
    masks = tree / "SegmentationClass"
    name = sorted(masks.iterdir())[0]
    name.rename(name.with_suffix(suffix))
    message = refusal(lambda: VOCSegmentation(tree))
    assert (
        f"no file for id {name.stem}; expected {name.name}; there is {name.stem}{suffix}, in another format" in message
    )
    assert "leave them out with `skip_bad=True`" in message  # which a command writes as --skip-bad


def test_the_number_of_classes_leaves_room_for_void(tree):
    for wrong in ([], [str(index) for index in range(256)], ["twice", "twice"], "names"):
        assert "1..255" in refusal(lambda wrong=wrong: VOCSegmentation(tree, classes=wrong))


# ------------------------------------------------------------------------------------------------------ split lists


@pytest.mark.parametrize(
    "content, line, words",
    [
        (b"9\n../../../../etc/passwd\n", 2, "'../../../../etc/passwd' is no id"),
        (b"9\n..\n", 2, "no id"),
        (b"/etc/passwd\n", 1, "no id"),
        (b"9\na\\b\n", 2, "no id"),
        (b"9\na\0b\n", 2, "printable"),
        (b"9\n\n2008-a\n", 2, "is blank"),
        (b"9\n2008-a\n\n", 3, "is blank"),
        (b"9\n \t\n", 2, "printable"),
        (b"9\n2008-a \n", 2, "'2008-a ' is no id"),
        (b"9 1\n2008-a 1\n", 1, "'9 1' is no id"),
        (b"9\n2008-a\n9\n", 3, "also line 1"),
        (b"9\n2008-a\r\n", 2, "CR LF"),
        (b"\xef\xbb\xbf9\n", 1, "byte order mark"),
        (b"9\n\xff\xfe\n", 2, "not UTF-8"),
        ("9\nétude\n".encode(), 2, "no id"),
        ("9\n\u0663\n".encode(), 2, "no id"),
        (b"9\n..\n\xff\n", 2, "no id"),
        (b"\xff\xfe9\x00\n\x00", 1, "not UTF-8"),
    ],
)
def test_the_first_bad_line_of_a_list_is_refused_by_number(tree, content, line, words):
    write_list(tree, content)
    message = refusal(lambda: VOCSegmentation(tree))
    assert f"train.txt, line {line}: " in message and words in message and "\0" not in message


def test_the_last_line_may_lack_its_end(tree):
    write_list(tree, b"9\n2008-a")
    assert VOCSegmentation(tree).ids == ("9", "2008-a")


def test_a_missing_list_names_those_there_are_and_the_nearest(tree):
    message = refusal(lambda: VOCSegmentation(tree, "trian"))
    assert "trian.txt" in message and "train, val" in message and "did you mean 'train'?" in message
    assert "did you mean" not in refusal(lambda: VOCSegmentation(tree, "xyz"))


@pytest.mark.parametrize("split", ["../train", "/train", "a\0b", "", "train.txt", 3])
def test_a_split_is_a_plain_name(tree, split):
    assert "split" in refusal(lambda: VOCSegmentation(tree, split), UsageError)


def test_without_lists_a_tree_loads_whole(tree):
    shutil.rmtree(tree / "ImageSets")
    assert "split=None" in refusal(lambda: VOCSegmentation(tree))
    (tree / "SegmentationClass" / "._9.png").write_bytes(b"litter of another system")
    (tree / "SegmentationClass" / "notes.txt").write_text("not a mask", encoding="utf-8")
    write_image(tree / "JPEGImages" / "unlabelled.jpg", np.zeros((2, 2, 3), dtype=np.uint8))
    assert VOCSegmentation(tree, None).ids == tuple(sorted(IDS))


def test_a_whole_tree_needs_masks_with_plain_names(tree):
    shutil.copy(tree / "SegmentationClass" / "9.png", tree / "SegmentationClass" / "my mask.png")
    assert "'my mask.png'" in refusal(lambda: VOCSegmentation(tree, None))
    for mask in (tree / "SegmentationClass").iterdir():
        mask.unlink()
    assert "no mask" in refusal(lambda: VOCSegmentation(tree, None))


# ------------------------------------------------------------------------------------------------------------ pairs


@pytest.mark.parametrize("part, name", [("JPEGImages", "2008-a.jpg"), ("SegmentationClass", "2008-a.png")])
def test_a_missing_file_is_named_and_counted_at_once(tree, part, name):
    (tree / part / name).unlink()
    message = refusal(lambda: VOCSegmentation(tree))
    assert str(tree / part) in message and name in message and "first of 1 such among 3 ids" in message
    with pytest.warns(UserWarning, match="skipped 1 of 3 pairs"):
        data = VOCSegmentation(tree, skip_bad=True)
    assert data.ids == ("2007_000032", "9") and "2 pairs, 1 skipped" in repr(data)
    assert [skipped for skipped, _ in data.skipped] == ["2008-a"] and name in data.skipped[0][1]


def test_two_images_of_one_id_are_refused(tree):
    write_image(tree / "JPEGImages" / "9.png", np.zeros((6, 8, 3), dtype=np.uint8))
    assert "several files: 9.jpg, 9.png" in refusal(lambda: VOCSegmentation(tree))


def test_images_may_be_png(tree):
    (tree / "JPEGImages" / "9.jpg").unlink()
    write_image(tree / "JPEGImages" / "9.png", np.full((6, 8, 3), 7, dtype=np.uint8))
    assert (VOCSegmentation(tree)[2].image == 7).all()


def test_a_mask_of_another_size_is_refused(tree):
    write_mask(tree / "SegmentationClass" / "9.png", np.zeros((6, 7), dtype=np.uint8))
    data = VOCSegmentation(tree)
    message = refusal(lambda: data[2])
    assert "9.png: mask of 7x6; expected 8x6 as in " in message and "9.jpg" in message
    assert [name for name, _ in data.problems()] == ["9"]


def test_an_image_turned_by_exif_no_longer_fits_its_mask(tree):
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (8, 6)).save(tree / "JPEGImages" / "9.jpg", exif=exif)
    assert "EXIF" in refusal(lambda: VOCSegmentation(tree)[2])


def test_bad_pairs_are_skipped_only_on_request_and_counted(tree):
    write_mask(tree / "SegmentationClass" / "9.png", np.zeros((1, 1), dtype=np.uint8))
    (tree / "JPEGImages" / "2008-a.jpg").write_bytes(b"text")
    with pytest.warns(UserWarning, match=r"skipped 2 of 3 pairs; the first: .*2008-a\.jpg"):
        data = VOCSegmentation(tree, skip_bad=True)
    assert data.ids == ("2007_000032",) and len(data) == 1
    assert [name for name, _ in data.skipped] == ["2008-a", "9"]
    assert data.problems() == []
    (tree / "JPEGImages" / "2007_000032.jpg").unlink()
    assert "leaves none" in refusal(lambda: VOCSegmentation(tree, skip_bad=True))


def test_skipping_nothing_says_nothing(tree):
    data = VOCSegmentation(tree, skip_bad=True)
    assert data.ids == IDS and data.skipped == ()


def test_all_void_masks_are_legal(tree):
    write_mask(tree / "SegmentationClass" / "9.png", np.full((6, 8), 255, dtype=np.uint8))
    sample = VOCSegmentation(tree)[2]
    _, labels = collate([sample], Preprocessing("RGB", 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    assert (labels == 255).all()


def test_pictures_of_any_size_make_one_batch(tree):
    for name, (height, width) in zip(IDS, [(1, 1), (1, 40), (33, 31)], strict=True):
        add_pair(tree, name, height, width)
    data = VOCSegmentation(tree)
    x, labels = collate([data[index] for index in range(3)], Preprocessing.fit(data))
    assert x.shape == (3, 3, 33, 40) and labels.shape == (3, 33, 40)
    assert (labels != 255).sum(axis=(1, 2)).tolist() == [0, 39, 33 * 31 - 1]


# -------------------------------------------------------------------------------------------------------- real data

REAL = [
    ("voc2012_mini", 100, 36, 21),
    ("voc2012_animals", 560, 120, 21),
    ("camvid_240x180", 367, 101, 11),
    ("stanford_background", 180, 50, 8),
]


@pytest.mark.parametrize("folder, train, val, classes", REAL)
def test_real_sets_load(data_root, folder, train, val, classes):
    one, other = VOCSegmentation(data_root / folder, "train"), VOCSegmentation(data_root / folder, "val")
    assert (len(one), len(other), len(one.classes)) == (train, val, classes)
    assert not set(one.ids) & set(other.ids)
    assert set(VOCSegmentation(data_root / folder, "trainval").ids) == {*one.ids, *other.ids}
    assert set(VOCSegmentation(data_root / folder, None).ids) == {*one.ids, *other.ids}
    if classes == 21:
        assert one.classes == VOC_CLASSES
    assert other.problems() == []
    fitted = Preprocessing.fit(one, count=10)
    x, labels = collate([one[0], one[len(one) // 2], one[-1]], fitted)
    assert np.isfinite(x).all() and np.abs(x).max() < 5
    assert set(np.unique(labels)) <= {*range(classes), 255}


def test_a_real_tree_without_lists_loads_whole(data_root):
    data = VOCSegmentation(data_root / "labelme_voc_example", None)
    assert data.ids == ("2011_000003", "2011_000006", "2011_000025")
    assert data.classes[0] == "_background_" and data.classes[-1] == "tv/monitor"
    assert data[0].image.shape == (338, 500, 3) and data.problems() == []
