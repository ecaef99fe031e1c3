"""Find which picture goes with which mask, by their names.

A mask is called like its picture, with something before or after (`img0.jpg`, `img0_mask.png`), or it lies in a folder
that says so (`images/a.jpg`, `masks/a.png`), or both. So every name is taken apart: the folders without the words
that only say "image" or "mask", and the stem without its ending. What is left of a picture and of its mask is the
same. Nothing is concluded from how many files have which suffix.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from minifcn.data.listed import read_small
from minifcn.data.tools.mapping import meant_by
from minifcn.data.tools.raw import MASK_SUFFIXES, PICTURE_SUFFIXES
from minifcn.errors import UsageError

MAX_FILES = 200_000
MAX_DEPTH = 12
RUN_FILES = ("metrics.jsonl", "config.json")  # a folder with both is a run of minifcn, and its pictures are outputs

MASK_WORDS = (
    *("mask", "masks", "label", "labels", "annotation", "annotations", "annot", "annots", "gt", "gtfine", "gtcoarse"),
    *("ann", "anns", "anno", "annos", "lbl", "lbls", "manual"),
    *("groundtruth", "truth", "segmentation", "segmentations", "seg", "semantic", "trimaps", "labeled", "labelled"),
    *("segmentationclass", "segmentationclassaug", "segmentationclasspng", "segmentationclassraw", "labelids"),
    *("target", "targets", "stuffthingmaps"),
)
IMAGE_WORDS = (
    *("image", "images", "img", "imgs", "jpegimages", "leftimg8bit", "rgb", "photo", "photos", "picture", "pictures"),
    *("raw", "input", "inputs", "original", "originals", "data", "stills"),
)
FILLERS = (
    *("full", "approved", "stillsraw", "701", "png", "pngs", "jpg", "tif", "ground", "class", "volume", "dir", "1st"),
)
IGNORED_FOLDERS = re.compile(
    r"(?:\..*|__macosx|segmentationobject|segmentationclassvisualization|instances?|depth|colou?r_?(?:maps?|masks?|labels?)|semantic_rgb|viz)",
    re.IGNORECASE,
)
IGNORED_STEMS = re.compile(
    r"(?:.*(?:_gt(?:fine|coarse)_color|_instanceids|_instancetrainids|_disparity|_viz)|depth_gt_.*)", re.IGNORECASE
)
MASK_ENDINGS = (
    *("_gtfine_labeltrainids", "_gtfine_labelids", "_gtcoarse_labelids", "_labelids", "_labeltrainids"),
    *("_masks", "_mask", "_labels", "_label", "_l", "_gt", "_groundtruth", "_ground_truth", "_segmentation", "_seg"),
    *("_annotation", "_annot", "_anno", "_ann", "_trimap", "_target", "_lab", "_lbl", "_m"),
    *("_manual1", "_manual", "_mask_0", "_color", "_colour"),
    *("_jpg", "_jpeg", "_png", "_bmp", "_tif", "_tiff"),  # Supervisely's mask of a.jpg is a.jpg.png
)
PREFERRED = (*MASK_ENDINGS[:3], "_manual1")  # of several masks of one picture
SHOWN = ("_color", "_colour")  # masks that are there to be seen, where there are others
MASK_BEGINNINGS = ("segm_gt_", "masks_", "mask_", "labels_", "label_", "gt_", "seg_", "annotation_", "target_")
IMAGE_ENDINGS = ("_leftimg8bit", "_images", "_image", "_img", "_rgb", "_sat", "_input", "_0000", "_training", "_test")
IMAGE_BEGINNINGS = ("images_", "image_", "img_", "rgb_", "photo_", "input_")
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "ts"), "test"),
}
LOSSLESS = (".png", ".bmp", ".gif", ".tif", ".tiff", ".npy", ".pgm")


@dataclass
class Pair:
    """A picture, its mask where a file holds it, and the split that the names of the folders say ("" for none)."""

    image: Path
    mask: Path | None = None
    split: str = ""
    names: set[str] = field(default_factory=set)  # what a list may call it


@dataclass
class Paired:
    """What `pair_files` has found: the pairs, and what is left."""

    pairs: list[Pair]
    without_mask: list[Path]
    without_image: list[Path]
    unclear: list[str]


def walk(folder: Path, *, without: Path | None = None) -> list[Path]:
    """Return the files under `folder`, sorted, none through a link to elsewhere; UsageError for too many.

    Hidden files (macOS leaves `._a.png` beside `a.png`), runs of minifcn and the folder `without` are left out.
    """
    root = folder.resolve()
    found: list[Path] = []
    pending = [(folder, 0)]
    while pending:
        here, depth = pending.pop()
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            raise UsageError(f"{here}: cannot be searched ({error.strerror}); check who may read it") from error
        if {entry.name for entry in entries} >= set(RUN_FILES):
            continue
        for entry in entries:
            path = here / entry.name
            if entry.name.startswith(".") or not entry.name.isprintable():
                continue
            if entry.is_dir(follow_symlinks=False):
                if depth < MAX_DEPTH and entry.name.lower() != "__macosx" and path != without:
                    pending.append((path, depth + 1))
            elif entry.is_file() and (not entry.is_symlink() or path.resolve().is_relative_to(root)):
                found.append(path)
        if len(found) > MAX_FILES:
            raise UsageError(f"{folder}: more than {MAX_FILES} files; expected one data set; name a folder further in")
    return sorted(found)


def words_of(folder: str) -> list[str]:
    """Return the words of a folder's name: `train_labels`, `trainannot` and `TrainLabels` are train and labels."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", folder) if folder.lower() not in (*MASK_WORDS, *IMAGE_WORDS) else folder
    words = [word for word in re.split(r"[\s_.-]+", text.lower()) if word]
    parted = []
    for word in words:
        split = re.fullmatch(r"(train(?:ing)?|val(?:id|idation)?|test(?:ing)?)(?:20\d\d)?([a-z]+)?", word)
        inner = split and (split[2] in (None, *MASK_WORDS, *IMAGE_WORDS))
        parted += [split[1], *filter(None, [split[2]])] if split and inner else [word]
    return parted


@dataclass(frozen=True)
class Named:
    """A file's name taken apart."""

    path: Path
    role: str  # "mask" or "image", as the folders say; "" where they say nothing
    split: str
    place: tuple[str, ...]  # what is left of the folders
    stem: str


def take_apart(path: Path, folder: Path) -> Named:
    """Return what the name of a file says about it."""
    role, split, place = "", "", []
    for part in path.relative_to(folder).parts[:-1]:
        words = words_of(part)
        split = next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), split)
        masks, images = ({*words} & {*these} for these in (MASK_WORDS, IMAGE_WORDS))
        role = "mask" if masks else "image" if images else role
        rest = [word for word in words if word not in (*MASK_WORDS, *IMAGE_WORDS, *FILLERS)]
        place += rest
    return Named(path, role, split, tuple(SPLIT_WORDS.get(word, word) for word in place), path.stem)


def _stripped(stem: str, endings: Sequence[str], beginnings: Sequence[str]) -> Iterator[str]:
    """Yield the stem without its ending or beginning, each that fits; "-", "." and " " count as "_".

    A stem that says nothing else, as in `a/img.png` and `a/mask.png`, becomes "".
    """
    plain = re.sub(r"[-. ]", "_", stem.lower())
    if plain in (MASK_WORDS if beginnings == MASK_BEGINNINGS else IMAGE_WORDS):
        yield ""
    for ending in endings:
        if plain.endswith(ending) and len(plain) > len(ending):
            yield stem[: -len(ending)]
    for beginning in beginnings:
        if plain.startswith(beginning) and len(plain) > len(beginning):
            yield stem[len(beginning) :]


def pair_files(folder: Path, files: Sequence[Path], *, arrays: bool = False) -> Paired:
    """Return the pictures and masks among `files`, paired by name. With `arrays`, a `.npy` may be a picture."""
    usable = [
        take_apart(path, folder)
        for path in files
        if path.suffix.lower() in MASK_SUFFIXES
        and not IGNORED_STEMS.fullmatch(path.stem)
        and not any(IGNORED_FOLDERS.fullmatch(part) for part in path.relative_to(folder).parts[:-1])
    ]
    masks, images = _sorted_by_role(usable, arrays)
    by_name: dict[str, list[Named]] = defaultdict(list)
    for image in images:
        for name in {image.stem, *_stripped(image.stem, IMAGE_ENDINGS, IMAGE_BEGINNINGS)}:
            by_name[name].append(image)
    taken: dict[Path, list[Path]] = defaultdict(list)
    unclear, alone = [], []
    for mask in masks:
        partners = next(filter(None, (_nearest(mask, by_name.get(name, [])) for name in _names_of(mask))), [])
        if len(partners) > 1:  # a.png goes before a_0000.png
            names = _names_of(mask)
            partners = [one for one in partners if one.stem in names] or partners
        if len(partners) == 1:
            taken[partners[0].path].append(mask.path)
        elif partners:
            some = f"{partners[0].path} and {partners[1].path} first"
            unclear.append(f"{mask.path}: {len(partners)} pictures, {some}; expected one; rename the others")
        else:
            alone.append(mask.path)
    pairs = []
    for image in images:
        own = taken.get(image.path, [])
        best = _preferred(own)
        if len(best) > 1:
            some = f"{own[0]} and {own[1]} first"
            unclear.append(f"{image.path}: {len(own)} masks, {some}; expected one; move the others elsewhere")
        elif best:
            split = image.split or take_apart(best[0], folder).split
            pairs.append(Pair(image.path, best[0], split, listed_as(folder, image.path, best[0])))
    left = [image.path for image in images if image.path not in taken]
    return Paired(pairs, left, alone, unclear)


def _sorted_by_role(files: Sequence[Named], arrays: bool) -> tuple[list[Named], list[Named]]:
    """Return masks and images: by folder, by the ending of a name that exists without it, or by suffix for twins."""
    stems: dict[tuple[str, ...], set[str]] = defaultdict(set)
    twins: dict[tuple[tuple[str, ...], str], list[Named]] = defaultdict(list)
    for file in files:
        stems[file.place].add(file.stem)
        stems[file.place].update(_stripped(file.stem, IMAGE_ENDINGS, IMAGE_BEGINNINGS))
        twins[file.path.parent.parts, file.stem].append(file)
    masks, images = [], []
    separate = any(file.role == "mask" for file in files)
    for file in files:
        beside = [other for other in twins[file.path.parent.parts, file.stem] if other is not file]
        named = any(name in stems[file.place] for name in _stripped(file.stem, MASK_ENDINGS, MASK_BEGINNINGS))
        lossy = any(other.path.suffix.lower() in (".jpg", ".jpeg") for other in beside)
        second = lossy and not (separate and file.role == "image") and file.path.suffix.lower() in LOSSLESS
        if file.role == "mask" or named or second or (file.path.suffix.lower() == ".npy" and not arrays):
            masks.append(file)
        elif file.path.suffix.lower() in (*PICTURE_SUFFIXES, ".npy"):
            images.append(file)
    if not images:  # pictures in a folder called "labels", with their masks beside them
        ended = {file.path for file in masks if [*_stripped(file.stem, MASK_ENDINGS, MASK_BEGINNINGS)]}
        images, masks = [f for f in masks if f.path not in ended], [f for f in masks if f.path in ended]
    return masks, images


def _names_of(mask: Named) -> list[str]:
    """Return what the picture of a mask may be called, the likeliest first."""
    names = [mask.stem]
    for name in _stripped(mask.stem, MASK_ENDINGS, MASK_BEGINNINGS):
        names += [name, *_stripped(name, IMAGE_ENDINGS, IMAGE_BEGINNINGS)]
    return [*names, *_stripped(mask.stem, IMAGE_ENDINGS, IMAGE_BEGINNINGS)]


def _nearest(mask: Named, images: Sequence[Named]) -> list[Named]:
    """Return the pictures of that name in the corresponding folder, else in any, if their splits do not differ."""
    here = [image for image in images if image.place == mask.place]
    close = [image for image in here if image.path.parent == mask.path.parent]
    if here:
        return here if len(here) == 1 or not close else close
    return [image for image in images if not mask.split or image.split in ("", mask.split)]


def _preferred(masks: list[Path]) -> list[Path]:
    """Return of several masks the one whose ending stands first in `PREFERRED`, if there is one such."""
    plain = [mask for mask in masks if not mask.stem.lower().endswith(SHOWN)]
    masks = plain or masks
    for ending in PREFERRED:
        those = [mask for mask in masks if mask.stem.lower().endswith(ending)]
        if len(those) == 1:
            return those
    return masks


def listed_as(folder: Path, image: Path, mask: Path | None = None) -> set[str]:
    """Return the names by which a list may mean a picture, or its mask."""
    names = {image.stem, image.name, image.relative_to(folder).as_posix()}
    for name in (image.stem, mask.stem if mask else image.stem):
        names |= {name, *_stripped(name, (*IMAGE_ENDINGS, *MASK_ENDINGS), (*IMAGE_BEGINNINGS, *MASK_BEGINNINGS))}
    return names


def as_id(text: str, usual: str) -> str:
    """Return a text as letters that an id may have, "_" in the place of others; `usual` if nothing is left."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_")[:120] or usual


def read_list(path: Path) -> list[str]:
    """Return the lines of a list, each an id, a file name, a path, or a pair of those; without remarks."""
    content = read_small(path, expected="a list of pictures")
    lines = (line.strip() for line in content.decode("utf-8-sig", "replace").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def split_role(name: str) -> str:
    """Return what a list is for, by its name: "train", "val", "test", "trainval" or ""."""
    words = [SPLIT_WORDS.get(word, word) for word in re.split(r"[\s_.-]+", name.lower())]
    if "trainval" in words:
        return "trainval"
    return next((word for word in words if word in ("train", "val", "test")), "")


def by_list(pairs: Sequence[Pair], rows: Sequence[Sequence[str]]) -> tuple[list[int], int]:
    """Return the places of the pairs that a list names, in its order, and how many of its rows name none."""
    known: dict[str, list[int]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        for name in pair.names:
            known[name].append(place)
    places: dict[int, None] = {}
    unknown = 0
    for row in rows:
        meant = next(filter(None, (known.get(name) for cell in row for name in meant_by(cell))), [])
        if len(meant) == 1:
            places.setdefault(meant[0])
        else:
            unknown += 1
    return list(places), unknown
