"""Convert a folder of pictures and labels into the layout of PASCAL VOC.

    found = recognise("photos")              what is there: pairs by name, labelme, COCO or CVAT files; names; splits
    print("\\n".join(found.lines()))
    report = write_tree(found, "data")       a new tree with lists, class_names.txt, mapping.txt and sources.tsv

The folder itself is never changed. What cannot be used is left out and listed, with a way to fix it.
"""

import os
import posixpath
import re
import shutil
import tempfile
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.data.files import write_image, write_mask
from minifcn.data.planes import TIFF_SUFFIXES, read_planes
from minifcn.data.sample import MOST_PLANES, VOID
from minifcn.data.tools import annotations, raw
from minifcn.data.tools.annotations import Drawn
from minifcn.data.tools.make import copy_file, new_tree, write_lines
from minifcn.data.tools.mapping import colour_name, read_map
from minifcn.data.tools.meaning import BY, Meaning, Survey, meaning_of
from minifcn.data.tools.pairing import Pair, as_id, listed_as, pair_files, split_role, take_apart, walk, words_of
from minifcn.data.tools.raw import PICTURE_SUFFIXES, TURNED, Header
from minifcn.data.tools.sidecars import NAMES, VOID_NAMES, Sidecar, find_sidecar, read_sidecar
from minifcn.data.tools.splits import find_lists
from minifcn.data.voc import BITS, IMAGES, MASKS, SPLITS
from minifcn.errors import DataError, UsageError
from minifcn.formats.limits import path_of

KINDS = {
    "masks": "pictures with masks",
    "labelme": "labelme's files (.json)",
    "coco": "COCO's annotations (.json)",
    "cvat": "CVAT's annotations for images (.xml)",
}
VAL_SHARE = 5  # one picture in five, where no split is given
COPIED = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Item:
    """A picture (a page of a file), and the mask or the shapes that label it."""

    id: str
    image: Path  # where it lies, or where it would if it did not lie in the file of its labels
    header: Header
    page: int = 0
    mask: Path | None = None
    drawn: Drawn | None = None
    split: str = ""
    names: frozenset[str] = frozenset()
    unpacked: Path | None = None

    @property
    def file(self) -> Path:
        """Where the pixels of the picture are."""
        return self.unpacked or self.image

    @property
    def source(self) -> Path:
        """The file in the folder that holds them."""
        return self.drawn.source if self.unpacked and self.drawn else self.image

    @property
    def label(self) -> Path | None:
        """The file that holds its labels."""
        return self.mask or (self.drawn.source if self.drawn else None)


@dataclass
class Found:
    """What a folder holds: the pairs, the classes and why, the splits; what is left out, each in a sentence."""

    folder: Path
    kind: str
    items: list[Item]
    classes: tuple[str, ...]
    why: str
    sure: bool = True
    meaning: Meaning | None = None
    bits: int = 16
    turned: str = ""
    planes: int = 0
    splits: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    _unpacked: list[Path] = field(default_factory=list)

    def unpack(self, source: Path) -> Path:
        """Return a temporary file with the photograph inside a file of labelme; it is removed with this object."""
        content, suffix = annotations.embedded_picture(source)
        if not self._unpacked:
            folder = Path(tempfile.mkdtemp(prefix="minifcn-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            self._unpacked.append(folder)
        path = self._unpacked[0] / f"{len(self._unpacked)}{suffix}"
        path.write_bytes(content)
        self._unpacked.append(path)
        return path

    def lines(self, *, first: int = 3) -> Iterator[str]:
        """Yield what was found, for the user to compare with what they know."""
        yield f"{self.folder}: {KINDS[self.kind]}, {len(self.items)} pictures with labels"
        for one in self.items[:first]:
            page = f", page {one.page + 1}" if one.header.pages > 1 else ""
            yield f"  {_within(one.source, self.folder)}{page}  <-  {_within(one.label, self.folder)}"
        yield f"labels: {self.why}"
        names = ", ".join(f"{number} {name}" for number, name in enumerate(self.classes[:12]))
        yield f"classes: {names}{f' and {len(self.classes) - 12} more' if len(self.classes) > 12 else ''}"
        if not self.sure:
            yield "  this order is a proposal: correct mapping.txt, and import again with `map=FILE` `classes=FILE`"
        yield "splits: " + ", ".join(f"{split} {len(ids)}" for split, ids in self.splits.items())
        yield from (f"note:   {note}" for note in self.notes)
        for line in self.left_out[:first]:
            yield f"left out: {line}"
        if len(self.left_out) > first:
            yield f"left out: {len(self.left_out) - first} more (`first={len(self.left_out)}` shows all)"


def _within(path: Path | None, folder: Path) -> str:
    return os.path.relpath(path, folder).replace(os.sep, "/") if path else "?"


def recognise(
    folder: str | os.PathLike[str],
    *,
    kind: str = "",
    classes: str | os.PathLike[str] | None = None,
    map: str | os.PathLike[str] | None = None,
    by: str = "",
    turned: str = "",
    empty: bool = False,
    seed: int = 0,
    planes: int = 0,
    without: str | os.PathLike[str] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Found:
    """Return what `folder` holds. DataError or UsageError with what is missing where that cannot be said.

    kind: "masks", "labelme", "coco" or "cvat", where a folder holds several. classes: a file of class names, instead
    of one found in the folder. map: a file that says which number or colour is which class. by: whether the "numbers"
    or the "colours" of palettes count. turned: how masks of photographs with an EXIF orientation were drawn, on the
    picture as "stored" or as "shown". empty: pictures without a single shape are background. seed: of the split that
    is drawn where none is given. planes: how many planes each image has, of TIFF or `.npy`, whose numbers are kept as
    they are; 0 for photographs. without: a folder inside to leave out.
    """
    root = path_of(folder)
    for name, value, allowed in (("by", by, BY), ("turned", turned, TURNED), ("kind", kind, ("", *KINDS))):
        if value not in allowed:
            raise UsageError(f"{name}={value!r}; expected one of {', '.join(filter(None, allowed))}")
    if not 0 <= planes <= MOST_PLANES:
        raise UsageError(f"planes={planes}; expected 1 to {MOST_PLANES}, or 0 for photographs")
    if not root.is_dir():
        raise UsageError(f"{folder}: no such folder; expected one with pictures and their labels; check the path")
    files = walk(root, without=path_of(without) if without else None)
    sidecar, notes = (read_sidecar(path_of(classes)), []) if classes else find_sidecar(root, files)
    sources = _sources(root, files, kind, planes)
    found = Found(root, sources.kind, [], (), "", turned=turned, planes=planes)
    found.left_out, found.notes = sources.left_out, notes + sources.notes
    if sources.kind == "masks":
        _read_masks(found, sources, sidecar, read_map(path_of(map)) if map else ({}, {}), by, advance)
    else:
        _read_shapes(found, sources, files, sidecar, empty=empty, advance=advance)
    if not found.items:
        raise DataError(f"{root}: nothing can be used; {next(iter(found.left_out), 'no picture has a label')}")
    deep = [one for one in found.items if one.header.deep]
    if deep:
        found.bits = raw.bits_in_use(raw.largest_number(one.file, one.page) for one in deep)
        how = f"no number needs more than {found.bits} bits, so these are scaled to 8" if found.bits < 16 else ""
        found.notes.append(f"{len(deep)} pictures of 16 bits: {how or 'their upper 8 bits are used'}")
    if planes:
        found.notes.append(f"images of {planes} plane{'s' * (planes > 1)}, whose numbers are kept as they are")
    elif four := [
        one for one in found.items if one.header.mode in ("RGBA", "CMYK") and one.image.suffix.lower() in TIFF_SUFFIXES
    ]:
        found.notes.append(f"{len(four)} pictures of 4 planes become colours; `planes=4` keeps their numbers")
    _split(found, files, seed)
    return found


# What is there -------------------------------------------------------------------------------------------------------


@dataclass
class Sources:
    """The labels of a folder, of one kind."""

    kind: str
    pairs: list[Pair] = field(default_factory=list)
    drawn: list[Drawn] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # in the order of the file, where it has one
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _sources(root: Path, files: Sequence[Path], kind: str, planes: int) -> Sources:
    there = {name: Sources(name) for name in KINDS}
    broken: list[str] = []
    for path in files:
        suffix = path.suffix.lower()
        try:
            if suffix == ".json" and not path.stem.endswith("_polygons") and kind in ("", "labelme", "coco"):
                found = annotations.read_any_json(path)
                if annotations.is_labelme(found):
                    there["labelme"].drawn.append(annotations.read_labelme(path, found))
                elif annotations.is_coco(found):
                    _extend(there["coco"], *annotations.read_coco(path, found))
            elif suffix == ".xml" and kind in ("", "cvat") and annotations.is_cvat(path):
                _extend(there["cvat"], *annotations.read_cvat(path))
        except DataError as error:
            if not NAMES.fullmatch(path.stem):
                broken.append(str(error))
    if kind in ("", "masks"):
        paired = pair_files(root, files, arrays=planes > 0)
        masks = there["masks"]
        masks.pairs, masks.left_out = paired.pairs, list(paired.unclear)
        for path in paired.without_mask:
            expected = f"{path.stem}_mask.png beside it, or {path.stem}.png in a folder masks"
            masks.left_out.append(f"{path}: picture without a mask of its name; expected {expected}; rename its mask")
        for path in paired.without_image:
            expected = "expected one beside it, or in a folder images; rename it"
            masks.left_out.append(f"{path}: mask without a picture of its name; {expected}")
    present = [name for name, source in there.items() if source.pairs or source.drawn]
    if len(present) > 1:
        counts = ", ".join(f"{len(there[name].pairs or there[name].drawn)} {KINDS[name]}" for name in present)
        raise UsageError(f"{root}: holds {counts}; expected one kind; choose it with `kind={present[0]}` or another")
    if not present:
        if broken:
            raise DataError(broken[0])
        raise DataError(_nothing(root, files, there["masks"].left_out))
    chosen = there[present[0]]
    chosen.left_out += broken
    return chosen


def _extend(source: Sources, names: Sequence[str], drawn: Sequence[Drawn]) -> None:
    source.names += [name for name in names if name not in source.names]
    source.drawn += drawn


def _nothing(root: Path, files: Sequence[Path], left_out: Sequence[str]) -> str:
    suffixes = Counter(path.suffix.lower() or "no ending" for path in files).most_common(5)
    held = ", ".join(f"{count} {suffix}" for suffix, count in suffixes) or "no files"
    first = next(iter(left_out), "")
    arrays = any(path.suffix.lower() == ".npy" for path in files)
    return (
        f"{root}: holds {held}, and no picture with labels; expected a.jpg with a_mask.png, images/a.jpg with "
        f"masks/a.png, or files of labelme, COCO or CVAT{f'; the first: {first}' if first else ''}; "
        f"{'say with `planes=N` that a .npy is an image of N planes, ' if arrays else ''}rename the masks, "
        "or name the folder that holds both"
    )


def _ids(names: Sequence[Path], root: Path) -> dict[Path, str]:
    """Return an id for every picture: its stem, or where two of the folder are alike, its path."""
    alike = len({as_id(path.stem, "image") for path in names}) < len(names)
    ids: dict[str, Path] = {}
    for path in names:
        unique = name = as_id(path.relative_to(root).with_suffix("").as_posix() if alike else path.stem, "image")
        number = 2
        while unique in ids:
            unique, number = f"{name}_{number}", number + 1
        ids[unique] = path
    return {path: name for name, path in ids.items()}


# Masks ---------------------------------------------------------------------------------------------------------------


def _read_masks(
    found: Found,
    sources: Sources,
    sidecar: Sidecar | None,
    own: tuple[Mapping[int, int], Mapping[int, int]],
    by: str,
    advance: Callable[[], None],
) -> None:
    survey = Survey()
    ids = _ids([pair.image for pair in sources.pairs], found.folder)
    for pair in sources.pairs:
        mask = pair.mask
        if mask is None:
            continue
        try:
            header = _header(found, pair.image)
            pages = 1 if mask.suffix.lower() == ".npy" else raw.read_header(mask).pages
            if pages != header.pages:
                cure = "" if header.pages > MOST_PLANES else f"; are they planes of one image? `planes={header.pages}`"
                raise DataError(f"{mask}: {pages} pages; expected {header.pages}, as in {pair.image.name}{cure}")
            items = []
            for page in range(pages):
                survey.add(mask, raw.read_raw_mask(mask, page=page))
                name = f"{ids[pair.image]}_{page:04d}" if pages > 1 else ids[pair.image]
                items.append(Item(name, pair.image, header, page, mask, None, pair.split, frozenset(pair.names)))
            found.items += items
        except DataError as error:
            found.left_out.append(str(error))
        advance()
    if not found.items:
        return
    meaning = meaning_of(survey, sidecar, layout=_layout(found.items, sidecar), by=by, own=own)
    found.meaning, found.classes, found.sure = meaning, meaning.classes, meaning.sure
    kinds = ", ".join(f"{count} {kind}" for kind, count in survey.kinds.most_common())
    found.why = f"{meaning.why} ({kinds})"
    if sidecar and not set(sidecar.classes) <= set(meaning.classes):
        why = f"its {len(sidecar.classes)} names are not used: the masks do not hold its numbers or colours"
        found.notes.append(f"{_within(sidecar.path, found.folder)}: {why}; `map=FILE` says what is which class")


def _header(found: Found, path: Path) -> Header:
    """Return what a picture is; an image of planes is read, and has one page."""
    if not found.planes:
        return raw.read_header(path)
    return Header(read_planes(path, count=found.planes).shape[:2], 1, "planes")


def _layout(items: Sequence[Item], sidecar: Sidecar | None) -> str:
    """Return a data set whose numbers are known, by the names that only its files have."""
    masks = [item.mask for item in items if item.mask]
    every = {
        "cityscapes": r"(?i).*_gt(fine|coarse)_labelids",
        "cityscapes train ids": r"(?i).*_gt(fine|coarse)_labeltrainids",
        "ade20k": r"ADE_(train|val)_\d+",
        "camvid": r".*_L",
    }
    for layout, pattern in every.items():
        if all(re.fullmatch(pattern, mask.stem) for mask in masks):
            return layout
    if sidecar and sidecar.path.stem.lower() == "objectinfo150":
        return "ade20k"
    if all("trimaps" in (part.lower() for part in mask.parts) for mask in masks):
        return "trimap"
    return "voc" if all(mask.parent.name.startswith("SegmentationClass") for mask in masks) else ""


# Shapes --------------------------------------------------------------------------------------------------------------


def _read_shapes(
    found: Found,
    sources: Sources,
    files: Sequence[Path],
    sidecar: Sidecar | None,
    *,
    empty: bool,
    advance: Callable[[], None],
) -> None:
    root = found.folder
    suffixes = (*PICTURE_SUFFIXES, ".npy") if found.planes else PICTURE_SUFFIXES
    pictures = [path for path in files if path.suffix.lower() in suffixes]
    by_path = {path.relative_to(root).as_posix(): path for path in pictures}
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in pictures:
        by_name[path.name].append(path)
    labelled: dict[Path, Drawn] = {}
    unpacked: dict[Path, Path] = {}
    without = 0
    for drawn in sources.drawn:
        advance()
        image = _picture_of(drawn, root, by_path, by_name)
        if image is None and drawn.embedded:
            try:
                unpacked[image := drawn.source.with_suffix(".png")] = found.unpack(drawn.source)
            except DataError as error:
                found.left_out.append(str(error))
                continue
        if image is None:
            where = f"expected {drawn.name!r:.100} in {root}, once"
            found.left_out.append(f"{drawn.source}: its picture is not there; {where}; put the pictures there as well")
        elif image in labelled:
            found.left_out.append(f"{drawn.source}: {image.name} has labels in {labelled[image].source.name} as well")
        elif not drawn.shapes and not empty:
            without += 1
        else:
            labelled[image] = drawn
    if without:
        found.notes.append(f"{without} pictures without a shape are left out; `empty=True` takes them as background")
    if unpacked:
        found.notes.append(
            f"{len(unpacked)} photographs lie in the files of their labels (imageData) alone, and are taken from there"
        )
    unlabelled = len(pictures) - len(labelled.keys() - unpacked.keys()) - without
    if unlabelled > 0:
        found.notes.append(f"{unlabelled} pictures have no labels")
    groups = sum(drawn.groups for drawn in labelled.values())
    if groups:
        found.notes.append(f"{groups} groups of shapes: the shapes of a group share a class, as single ones do")
    found.classes, found.why = _classes_of_shapes(found, sources, list(labelled.values()), sidecar)
    ids = _ids(list(labelled), root)
    for image, drawn in labelled.items():
        try:
            split = take_apart(image, root).split or take_apart(drawn.source / "x", root).split or _split_of(drawn)
            header = _header(found, unpacked.get(image, image))
            item = Item(ids[image], image, header, drawn=drawn, split=split, unpacked=unpacked.get(image))
            found.items.append(replace(item, names=frozenset(listed_as(root, image))))
        except DataError as error:
            there = str(unpacked.get(image, drawn.source))  # a temporary file says nothing to the reader
            found.left_out.append(str(error).replace(there, str(drawn.source)))


def _split_of(drawn: Drawn) -> str:
    return next((role for word in words_of(drawn.source.stem) if (role := split_role(word))), "")


def _picture_of(
    drawn: Drawn, root: Path, by_path: Mapping[str, Path], by_name: Mapping[str, list[Path]]
) -> Path | None:
    """Return the picture that an annotation names, among the files of the folder, by its path or a unique name."""
    name = drawn.name.replace("\\", "/")
    here = drawn.source.parent.relative_to(root).as_posix()
    for path in (posixpath.join(here, name), posixpath.join(here, "images", name), name):
        if (there := by_path.get(posixpath.normpath(path))) is not None:
            return there
    same = by_name.get(posixpath.basename(name), [])
    if len(same) > 1:
        wanted = take_apart(drawn.source / "x", root).split or _split_of(drawn)
        same = [path for path in same if take_apart(path, root).split == wanted]
    if not same:  # labelme's file was renamed with its picture
        same = [path for path in by_path.values() if path.with_suffix("") == drawn.source.with_suffix("")]
    return same[0] if len(same) == 1 else None


def _classes_of_shapes(
    found: Found, sources: Sources, drawn: Sequence[Drawn], sidecar: Sidecar | None
) -> tuple[tuple[str, ...], str]:
    labels = annotations.labels_of(drawn)
    order = sources.names or (sidecar.classes if sidecar else ())
    where = "as their file lists them"
    if sidecar and set(labels) <= set(sidecar.classes):
        order, where = sidecar.classes, f"in the order of {sidecar.path.name}"
    elif not order or not set(labels) <= set(order):
        if order:
            missing = ", ".join(label for label in labels if label not in order)
            found.notes.append(f"{missing}: labels that the list of names lacks; added after its own")
        order = [*order, *(label for label in labels if label not in order)]
        where = "in the order of the alphabet" if not (sources.names or sidecar) else where
    classes = tuple(name for name in order if name != "background" and not VOID_NAMES.fullmatch(name))
    if len(classes) >= VOID:
        raise DataError(f"{found.folder}: labels of {len(classes)} names; expected fewer than {VOID}; join some")
    total = sum(len(one.shapes) for one in drawn)
    return ("background", *classes), f"{total} shapes drawn as their tool does; background, then labels {where}"


# Splits --------------------------------------------------------------------------------------------------------------


def _split(found: Found, files: Sequence[Path], seed: int) -> None:
    """Keep the splits that lists or folders give; draw what is missing of train and val."""
    lists = _lists(found, files)
    if not lists:
        for item in found.items:
            lists.setdefault(item.split, []).append(item.id)
        if set(lists) == {""}:
            lists = {}
        elif lists.pop("", None):
            found.notes.append("pictures outside the folders of the splits are in no list")
    every = [item.id for item in found.items]
    if not lists:
        found.notes.append(f"no split is given: val is drawn from all, one in {VAL_SHARE}, with seed {seed}")
        lists = {"train": every}
    if "train" not in lists:
        start = next((name for name in lists if split_role(name) in ("train", "trainval")), None)
        start = start or ("" if lists.keys() - {"val", "test"} else next(iter(lists)))
        used = {name for split in ("val", "test") if split != start for name in lists.get(split, [])}
        lists["train"] = [name for name in lists.get(start, every) if name not in used]
        if start in ("val", "test"):
            del lists[start]
        found.notes.append(f"train is {start or 'all that is in no other list'}")
    for other in ("val", "test"):
        both = set(lists["train"]) & set(lists.get(other, []))
        if both:
            lists["train"] = [name for name in lists["train"] if name not in both]
            found.notes.append(
                f"{len(both)} pictures of {other} were in train as well, {min(both)} first: train loses them"
            )
    if not lists.get("val"):
        count = round(len(lists["train"]) / VAL_SHARE) or int(len(lists["train"]) > 1)
        drawn = np.random.default_rng(seed).permutation(len(lists["train"]))[:count].tolist()
        names = {lists["train"][place] for place in drawn}
        lists["val"] = [name for name in lists["train"] if name in names]
        lists["train"] = [name for name in lists["train"] if name not in names]
        if len(found.notes) == 0 or "no split is given" not in found.notes[-1]:
            found.notes.append(f"no val is given: one in {VAL_SHARE} of train is drawn, with seed {seed}")
    order = dict.fromkeys(("train", "val", "test", *sorted(lists)))
    found.splits = {name: lists[name] for name in order if lists.get(name)}


def _lists(found: Found, files: Sequence[Path]) -> dict[str, list[str]]:
    """Return the ids of each list of pictures in the folder; what is not used is noted."""
    pairs = [Pair(item.image, item.mask, item.split, {*item.names, item.id}) for item in found.items]
    used = {item.drawn.source for item in found.items if item.drawn}
    places, notes = find_lists(found.folder, files, pairs, used=used)
    found.notes += notes
    lists = {name: [found.items[place].id for place in those] for name, those in places.items()}
    if lists and not any(split_role(name) for name in lists):
        found.notes.append(f"lists that are no split, kept beside train and val: {', '.join(lists)}")
        lists |= {"train": [item.id for item in found.items]}
    return lists


# Writing -------------------------------------------------------------------------------------------------------------


def write_tree(
    found: Found, folder: str | os.PathLike[str], *, advance: Callable[[], None] = lambda: None
) -> list[str]:
    """Write what was found as a VOC tree into `folder`, new or empty; return what had to be left out, a sentence each.

    Photographs that training can read are copied byte for byte; others become PNG. DataError, and nothing left
    behind, where no pair can be used.
    """
    root = path_of(folder)
    new = not root.exists()
    left_out: list[str] = []
    try:
        with new_tree(root, "the imported pictures"):
            done = [item for item in found.items if _written(found, item, root, left_out, advance)]
            names = {item.id for item in done}
            if not done:
                raise DataError(f"{found.folder}: nothing could be imported; the first: {left_out[0]}")
            for split, ids in found.splits.items():
                if usable := [name for name in ids if name in names]:
                    write_lines(root / SPLITS / f"{split}.txt", usable)
            write_lines(root / "class_names.txt", found.classes)
            if found.bits < 16:  # so that prediction scales such photographs as they were scaled here
                write_lines(root / BITS, [str(found.bits)])
            rows = ((item.id, *(_within(file, found.folder) for file in (item.source, item.label))) for item in done)
            write_lines(root / "sources.tsv", map("\t".join, rows))
            if (meaning := found.meaning) and meaning.mapping:
                name = colour_name if meaning.by == "colours" else str
                lines = (f"{name(old)} {new}" for old, new in meaning.mapping.items() if old >= 0)
                write_lines(root / "mapping.txt", lines)
    except DataError:
        for inner in root.iterdir():
            shutil.rmtree(inner) if inner.is_dir() else inner.unlink()
        if new:
            root.rmdir()
        raise
    return left_out


def _written(found: Found, item: Item, root: Path, left_out: list[str], advance: Callable[[], None]) -> bool:
    try:
        label = _label_of(found, item)
        colours = item.header.deep and not item.header.mode.startswith("I;16")
        if colours and found.bits == 16 and raw.bits_in_use([raw.largest_number(item.file, item.page)]) < 16:
            what = "16 bits in each of several samples, of which the upper 8 are read and only the lower used"
            how = "save it with 8 bits, or keep all numbers, as .npy and with `planes=3`"
            raise DataError(f"{item.image}: {what}; {how}")
        image = None if found.planes else raw.read_picture(item.file, page=item.page, bits=found.bits)
    except DataError as error:
        left_out.append(str(error).replace(str(item.file), str(item.source)))
        return False
    finally:
        advance()
    write_mask(root / MASKS / f"{item.id}.png", label)
    plain = (
        item.header.orientation == 1
        and item.header.pages == 1
        and not (item.header.deep or item.header.mode.startswith("I"))
    )
    suffix = item.file.suffix.lower()
    if image is None or (suffix in COPIED and plain):
        copy_file(item.file, root / IMAGES / f"{item.id}{suffix}")
    else:
        write_image(root / IMAGES / f"{item.id}.png", image)
    return True


def _label_of(found: Found, item: Item) -> np.ndarray:
    """Return the classes (H, W) uint8 of one picture, upright."""
    if item.mask is not None and found.meaning is not None:
        mask = raw.read_raw_mask(item.mask, page=item.page)
        label = found.meaning.label(item.mask, mask)
        return raw.fitted(item.mask, label, mask.orientation, item.header, item.image, found.turned)
    drawn: Any = item.drawn
    turned = found.turned or ("" if found.kind == "coco" else "shown")  # labelme and CVAT show photographs upright
    size = drawn.size or item.header.shown
    if size not in (item.header.size, item.header.shown):
        (height, width), what = item.header.shown, f"drawn on a picture of {size[1]}x{size[0]}"
        expected = f"{width}x{height} as {item.image} is; was the picture scaled since? draw on this one"
        raise DataError(f"{drawn.source}: {what}; expected {expected}")
    return raw.fitted(drawn.source, annotations.painted(drawn, size, found.classes), 1, item.header, item.image, turned)
