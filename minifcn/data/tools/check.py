"""Check a folder of images and masks, and report every problem with its fix.

A loader refuses the first file that it cannot use. This looks at every file of a tree in the layout of PASCAL VOC,
sorts what it finds by kind, and explains each kind: to a beginner most of these faults look like a net that does not
learn. It also counts the classes, and proposes numbers for masks that hold colours (mapping.py).

    found = check("data")
    print("\\n".join(found.lines()))
    found.faults                      {"leak": ["2007_000032 is in train and in val"], ...}
"""

import itertools
import os
import re
import shlex
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.data.files import read_image
from minifcn.data.listed import ID, MAX_LIST, Part, read_lines
from minifcn.data.planes import PLANE_SUFFIXES, read_planes, shown, shown_as
from minifcn.data.sample import VOID
from minifcn.data.tools import mapping
from minifcn.data.tools.mapping import MAX_COLOURS, Proposal, packed
from minifcn.data.tools.raw import RawMask, read_png_mask
from minifcn.data.tools.sidecars import Sidecar, find_sidecar
from minifcn.data.tools.silent import IMPORTED, Silent
from minifcn.data.tools.silent import KINDS as SILENT
from minifcn.data.voc import IMAGE_SUFFIXES, IMAGES, MASK_SUFFIXES, MASKS, SPLITS, VOC_CLASSES, find_year_folder
from minifcn.errors import DataError, UsageError
from minifcn.formats.limits import path_of

# Every kind of fault: what it is called, and what it means. The order is that of the report.
KINDS = {
    "empty": ("folder without a mask", "SegmentationClass holds no PNG: nothing can be learned from it."),
    "no lists": (
        "no lists of ids",
        "Training reads which images belong to which split from ImageSets/Segmentation/train.txt and val.txt, an id "
        "(a file's name without its ending) a line. `write=NEW_DIR` writes one train.txt of all; training "
        "with `hold_out=N` then measures on N of them.",
    ),
    "line": (
        "lines of a list that are no id",
        "An id is a file's name without its ending: letters, digits, _ and -. Training refuses the list at its first "
        "bad line.",
    ),
    "repeated": ("ids that stand twice in a list", "Remove one of each: an image would count twice."),
    "leak": (
        "images in two splits",
        "What a net has learned from cannot measure it. Take them out of one of the two lists.",
    ),
    "twins": SILENT["twins"],
    "name": ("files whose name is no id", "Rename them to letters, digits, _ and -: no list could name them."),
    "no image": ("ids without an image", "JPEGImages needs ID.jpg, ID.jpeg or ID.png."),
    "no mask": ("ids without a mask", "SegmentationClass needs ID.png."),
    "several": ("ids with several files", "Which is meant? Remove the others."),
    "format": (
        "masks in a format that loses numbers",
        "JPEG and the like change a pixel's number to its neighbours' liking. Make the masks again as PNG; saving "
        "these as PNG does not bring the numbers back.",
    ),
    "lossless": (
        "masks in another format than PNG",
        "Their numbers may be right: these formats lose none (a TIFF only if it holds a JPEG). Save the same numbers "
        "as 8-bit PNG, for example with PIL.Image.fromarray(numbers.astype('uint8')).save('ID.png').",
    ),
    "image": ("images that cannot be read", "Replace them or take them out of the lists."),
    "mask": ("masks that cannot be read", "Replace them or take them out of the lists."),
    "planes": ("images of different numbers of planes", "A net sees as many planes in each: keep those of one kind."),
    "size": ("masks of another size than their image", "A mask has one pixel for each pixel of its image."),
    "colours": (
        "masks in colours",
        "A pixel of a mask has to be one number, its class; these hold red, green and blue.",
    ),
    "depth": (
        "masks with other than 8 bits a pixel",
        "Programs stretch such numbers or cut them off, each in its way. Save them with 8 bits, and the same numbers.",
    ),
    "values": (
        "masks with numbers that are no class",
        "A number is an index into the list of classes, 0 first; only 255, void, may be beyond it.",
    ),
    "black and white": (
        "masks of nothing but 0 and 255",
        "255 is void: it is neither learned nor measured. If white is the object, it has to be 1.",
    ),
    **{kind: SILENT[kind] for kind in (*IMPORTED, "constant")},
    "void": ("masks of nothing but 255", "255 is void: nothing can be learned from these, and nothing measured."),
}


PALETTE, GREY, COLOURS = "PNG with a palette", "8-bit PNG", "PNG in colours"
"""Kinds of masks as `RawMask` names them: the two that training reads, and the one that has to be mapped first."""
OTHERS = {"format": (".jpg", ".jpeg", ".webp"), "lossless": (".bmp", ".gif", ".tif", ".tiff", ".npy", ".npz")}
"""The suffixes of masks that are there in another format, by what is wrong with them."""


class Findings:
    """What `check` has found: `faults` by kind, `classes`, `splits`, and the counts behind `lines()`."""

    def __init__(self, folder: Path, classes: tuple[str, ...], own_classes: bool, table: Sidecar | None = None) -> None:
        self.folder, self.classes, self.own_classes, self.table = folder, classes, own_classes or bool(table), table
        self.splits: dict[str, tuple[str, ...]] = {}
        self.faults: dict[str, list[str]] = defaultdict(list)  # a plain dict without empty kinds in the end
        self.usable: list[str] = []
        self.good: list[str] = []  # whose files have no fault of their own: no run has to read them again
        self.facts: dict[str, dict[str, Any]] = {}  # what is strange about files that can be read, by id
        self.looked_at = 0
        self.kinds: Counter[str] = Counter()
        self.numbers: Counter[int] = Counter()
        self.colours: Counter[int] = Counter()
        self.colour_files: Counter[int] = Counter()
        self.many_colours = 0
        self.images: dict[str, Counter[int]] = defaultdict(Counter)
        self.planes: Counter[str] = Counter()
        self.notes: list[str] = []

    @property
    def count(self) -> int:
        """How many faults there are, of all kinds."""
        return sum(len(where) for where in self.faults.values())

    def proposal(self) -> tuple[Proposal | None, Proposal | None]:
        """Return (for the colours, for the numbers); None where there is nothing to propose."""
        colours = None
        if self.colours and not self.many_colours:
            known = self.table.colours if self.table else {}
            if self.table and set(self.colours) <= set(known):
                named = {colour: known[colour] for colour in self.colours}
                colours = Proposal(named, f"colours named in {self.table.path.name}", sure=True)
            else:
                colours = mapping.propose_colours(self.colours, len(self.classes))
        return colours, mapping.propose_numbers(self.numbers, len(self.classes)) if self.numbers else None

    def lines(self, *, first: int = 3) -> Iterator[str]:
        """Yield the report, with the `first` faults of each kind."""
        yield from self._summary()
        if self.numbers and not self.faults.get("values"):
            yield ""
            if self.faults.get("colours"):
                yield f"the {sum(self.kinds.values()) - self.kinds[COLOURS]} masks of numbers:"
            yield from self._histogram()
        for kind, (title, meaning) in KINDS.items():
            found = self.faults.get(kind, [])
            if found:
                yield ""
                yield title if kind in ("empty", "no lists") else f"{title}: {len(found)}"
                yield from _wrapped(meaning)
                yield from (f"  - {line}" for line in found[:first])
                if len(found) > first:
                    yield f"  - and {len(found) - first} more (`first={len(found)}` shows all)"
        yield from self._proposals()
        yield ""
        if not self.count:
            yield f"{self.folder}: all is well"
        else:
            kinds = len(self.faults)
            yield f"{self.folder}: {self.count} fault{'s' * (self.count > 1)} of {kinds} kind{'s' * (kinds > 1)}"

    def _summary(self) -> Iterator[str]:
        own = self.table.path.name if self.table else "class_names.txt"
        names = own if self.own_classes else "PASCAL VOC's, for there is no class_names.txt"
        yield f"{self.folder}: {len(self.usable)} pairs of image and mask, {len(self.classes)} classes ({names})"
        if self.splits:
            yield "splits: " + ", ".join(f"{split} {len(ids)}" for split, ids in self.splits.items())
        about = {
            PALETTE: "a viewer shows its colours, training reads the numbers behind them",
            GREY: "grey, a number a pixel: small numbers look black in a viewer, and that is no fault",
        }
        for kind, count in self.kinds.most_common():
            yield f"masks:  {count} {kind}: {about.get(kind, 'see below')}"
        yield from (f"note:   {note}" for note in self.notes)

    def _histogram(self) -> Iterator[str]:
        """Yield for each class its share of the pixels, and in how many images of each split it is."""
        total = sum(self.numbers.values()) or 1
        splits = [split for split in self.splits if split in self.images][:5] or [""]
        width = max(map(len, [*self.classes, "void (255)"]))
        yield f"{'':>3} {'class':<{width}} {'pixels':>8}  " + " ".join(f"{split or 'images':>8}" for split in splits)
        for number, name in [*enumerate(self.classes), (VOID, "void (255)")]:
            images = [self.images[split][number] for split in splits]
            share = f"{max(100 * self.numbers[number] / total, 0.01):.2f} %" if self.numbers[number] else "-"
            shown = " ".join(f"{count or '-':>8}" for count in images)
            yield f"{number:>3} {name:<{width}} {share:>8}  {shown}"
        learned = [split for split in splits if _role(split) == "train"]
        for split in splits if learned else ():
            new = [
                name
                for number, name in enumerate(self.classes)
                if self.images[split][number] and not any(self.images[one][number] for one in learned)
            ]
            if new and _role(split):
                yield f"note: in {split} and never in {' or '.join(learned)}: {', '.join(new[:8])}"

    def _proposals(self) -> Iterator[str]:
        colours, numbers = self.proposal()
        if self.faults.get("colours"):
            yield ""
            if self.many_colours:
                yield (
                    f"{self.many_colours} masks have more than {MAX_COLOURS} colours: they were scaled with "
                    "interpolation, were JPEGs once, or are no masks."
                )
            elif colours:
                yield f"proposed for the colours ({colours.why}):"
                yield from _table(colours, self.colours, self.colour_files, self.classes, mapping.colour_name)
        if numbers and numbers.mapping:
            yield ""
            yield f"proposed for the numbers ({numbers.why}):"
            yield from _table(numbers, self.numbers, None, self.classes, str)
        elif numbers is None and self.faults.get("values"):
            yield ""
            found = ", ".join(map(str, sorted(self.numbers)[:30])) + (", ..." if len(self.numbers) > 30 else "")
            yield f"numbers in the masks: {found}"
            if 0 in self.numbers and max(n for n in self.numbers if n != VOID) == len(self.classes):
                yield from _wrapped(
                    f"One more than the {len(self.classes)} classes. Either the list of classes lacks a line for 0, "
                    "often the background, or 0 means unlabelled: then 0 is to become 255, and every number one less."
                )


def _table(
    proposal: Proposal,
    pixels: Counter[int],
    files: Counter[int] | None,
    classes: Sequence[str],
    name: Callable[..., str],
) -> Iterator[str]:
    total = sum(pixels.values())
    for old, new in list(proposal.mapping.items())[:40]:
        what = "void" if new == VOID else classes[new] if new < len(classes) else "?"
        where = f" in {files[old]} masks" if files else ""
        yield f"  {name(old):<12} {new:>3}  {what}, {100 * pixels[old] / total:.2f} % of the pixels{where}"
    if len(proposal.mapping) > 40:
        yield f"  and {len(proposal.mapping) - 40} more"


def _wrapped(text: str, width: int = 100) -> Iterator[str]:
    yield from textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="  ")


def check(
    folder: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    split: str | None = None,
    begin: Callable[[int], None] = lambda total: None,
    advance: Callable[[], None] = lambda: None,
) -> Findings:
    """Return what is wrong with a VOC tree, or with one `split` of it. DataError where there is no such tree at all.

    `classes` are the names of the classes; without them those of class_names.txt, or VOC's. `begin(n)` is called
    with the number of pairs, `advance()` after each pair.
    """
    root = find_year_folder(folder)
    names = root / "class_names.txt"
    own = classes is not None or names.is_file()
    beside = sorted(path for path in root.iterdir() if path.is_file())
    table, notes = (None, []) if own else find_sidecar(root, beside)
    if table and not table.colours:
        notes.append(f"{table.path.name}: not used; the names of classes are read from class_names.txt")
        table = None
    usual = table.classes if table else VOC_CLASSES
    found = Findings(root, tuple(classes or (read_lines(names) if own else usual)), own, table)
    if not 1 <= len(found.classes) <= VOID:
        raise UsageError(f"{folder}: {len(found.classes)} class names; expected 1..{VOID}")
    found.notes += notes
    images, masks = Part(root / IMAGES, IMAGE_SUFFIXES), Part(root / MASKS, MASK_SUFFIXES)
    found.splits = _lists(found, root / SPLITS, split, masks)
    for (a, ids), (b, others) in itertools.combinations(found.splits.items(), 2):
        if _role(a) and _role(b) and _role(a) != _role(b):
            both = set(others)
            found.faults["leak"] += [f"{name} is in {a} and in {b}" for name in ids if name in both]
    member: dict[str, list[str]] = defaultdict(list)
    for one, ids in found.splits.items():
        for name in ids:
            member[name].append(one)
    wanted = sorted({*member, *(() if split else (name for name in masks.files if ID.fullmatch(name)))})
    if not split:
        _whole_folder(found, images, masks, member)
    silent = Silent()
    found.looked_at = len(wanted)
    begin(len(wanted))
    for name in wanted:
        before = found.count
        _look(found, name, images, masks, member[name], silent)
        found.good += [name] if found.count == before else []
        advance()
    found.facts = silent.facts
    if set(found.numbers) == {0, VOID}:
        found.faults["black and white"].append(f"all {sum(found.kinds.values())} masks")
    if len(found.planes) > 1:
        found.faults["planes"].append(", ".join(f"{count} of {what}" for what, count in found.planes.most_common()))
    for what in found.planes.keys() - {"colours"}:
        count = what.partition(" ")[0]
        found.notes.append(f"images of {what}: train with `inputs={count}`; {shown_as(int(count))}")
    found.faults.update(silent.faults())
    found.notes += silent.notes()
    found.faults = {kind: found.faults[kind] for kind in KINDS if found.faults[kind]}
    return found


def _lists(found: Findings, folder: Path, split: str | None, masks: Part) -> dict[str, tuple[str, ...]]:
    """Return the ids of every list, or of one; whatever is wrong with a line is noted, and the line left out.

    A file name, a path, or a pair of them stands for its id, if that has a mask; training refuses it all the same.
    """
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    if split is not None:
        there = ", ".join(file.stem for file in files) or "none"
        files = [file for file in files if file.stem == split]
        if not files:
            raise UsageError(f"{folder}: no list {split[:60]!r}; expected one of those there: {there}")
    if not files:
        found.faults["no lists"].append(f"{folder} holds no .txt")
    lists: dict[str, tuple[str, ...]] = {}
    for file in files:
        if not file.is_file() or file.stat().st_size > MAX_LIST:  # a pipe would never end
            found.faults["line"].append(f"{file.name}: is no file of at most {MAX_LIST} bytes")
            continue
        ids: dict[str, int] = {}
        for number, raw in enumerate(file.read_bytes().removesuffix(b"\n").split(b"\n"), start=1):
            name = raw.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\r").decode("utf-8", "backslashreplace")
            where = f"{file.name}, line {number}"
            if not ID.fullmatch(name):
                meant = next((one for one in mapping.meant_by(name) if one in masks.files and ID.fullmatch(one)), "")
                what = f"{where}: {name[:60]!r}" if name.strip() else f"{where}: is empty"
                found.faults["line"].append(f"{what}, read as {meant}" if meant else what)
                if not meant:
                    continue
                name = meant
            elif raw != name.encode():
                why = "ends in CR LF (Windows)" if raw.endswith(b"\r") else "begins with a byte order mark"
                found.faults["line"].append(f"{where}: {why}; save it as plain text with LF")
            if name in ids:
                found.faults["repeated"].append(f"{where}: {name} is also line {ids[name]}")
            ids.setdefault(name, number)
        lists[file.stem] = tuple(ids)
        if not ids:
            found.notes.append(f"{file.name} names no image: it is not used, and not written")
    return lists


def _role(split: str) -> str:
    """Return what a list is for, by its name: "train_aug" trains, "seg11valid" validates, "trainval" is neither."""
    if "trainval" in split.lower():
        return ""
    return next((role for role in ("train", "val", "test") if role in split.lower()), "")


def _whole_folder(found: Findings, images: Part, masks: Part, member: dict[str, list[str]]) -> None:
    """What only the folder as a whole shows: files that are no masks, names that are no ids, pairs that do not meet."""
    if not masks.files:
        found.faults["empty"].append(f"{masks.folder}")
    for name in sorted(os.listdir(masks.folder)):
        stem, suffix = os.path.splitext(name)
        kind = next((kind for kind, suffixes in OTHERS.items() if suffix.lower() in suffixes), "")
        if kind and stem not in masks.files:
            found.faults[kind].append(f"{MASKS / name}")
    found.faults["name"] += [f"{MASKS / files[0]}" for name, files in masks.files.items() if not ID.fullmatch(name)]
    png = found.folder / "SegmentationClassPNG"
    if png.is_dir():
        found.notes.append(f"{png} is there: if labelme2voc wrote the masks to it, rename it to SegmentationClass")
    alone = sorted(set(masks.files) - set(images.files))
    ending = _common_ending(alone, set(images.files))
    if ending:
        found.notes.append(f"masks are named ID{ending}.png: rename them to ID.png, the name of their image")
    if found.splits:
        unlisted = sum(1 for name in masks.files if name not in member)
        if unlisted:
            found.notes.append(f"{unlisted} masks are in no list")
    without = sum(1 for name in images.files if name not in masks.files and name not in member)
    if without:
        found.notes.append(f"{without} images have no mask{' and are in no list' if found.splits else ''}")


def _common_ending(alone: Sequence[str], images: set[str]) -> str:
    """Return "_mask" where the masks without an image are named like an image and "_mask"; "" otherwise."""
    endings = Counter(
        match[2]
        for name in alone
        for match in [re.fullmatch(r"(.*?)([_.-][A-Za-z]\w*)", name)]
        if match and match[1] in images
    )
    ending, count = next(iter(endings.most_common(1)), ("", 0))
    return ending if count > len(alone) / 2 else ""


def _look(found: Findings, name: str, images: Part, masks: Part, splits: list[str], silent: Silent) -> None:
    """Look at one image and its mask."""
    image = _read(found, name, images, "image", partial(_picture, found))
    mask = _read(found, name, masks, "mask", read_png_mask)
    if image:
        silent.pixels(name, image[1])
    if not mask:
        return
    raw: RawMask = mask[1]
    if image:
        silent.headers(name, image[0], mask[0])
    if raw.kind != COLOURS:
        silent.mask(name, raw)
    fits = image is not None and raw.values.shape[:2] == image[1].shape[:2]
    if image and not fits:
        (height, width), (high, wide) = raw.values.shape[:2], image[1].shape[:2]
        turned = "; was the image turned by its EXIF orientation?" if (height, width) == (wide, high) else ""
        found.faults["size"].append(f"{name}: mask {width}x{height}, image {wide}x{high}{turned}")
    if _mask(found, name, raw, splits) and fits:
        found.usable.append(name)


def _picture(found: Findings, path: Path) -> np.ndarray:
    """Return a photograph, or what is shown of an image of planes, which are counted."""
    if path.suffix.lower() not in PLANE_SUFFIXES:
        found.planes["colours"] += 1
        return read_image(path)
    planes = read_planes(path)
    colours = planes.dtype == np.uint8 and planes.shape[2] == 3
    found.planes["colours" if colours else f"{planes.shape[2]} plane{'s' * (planes.shape[2] > 1)}"] += 1
    return planes if colours else shown(planes)


def _read(found: Findings, name: str, part: Part, kind: str, read: Callable[[Path], Any]) -> tuple[Path, Any] | None:
    """Return the one file of an id and what `read` gives for it; None, with the fault noted, if there is no such."""
    files = part.files.get(name, [])
    if len(files) > 1:
        found.faults["several"].append(f"{part.folder.name}: {', '.join(files)}")
    elif not files:
        found.faults[f"no {kind}"].append(name)
    else:
        try:
            return part.folder / files[0], read(part.folder / files[0])
        except DataError as error:
            found.faults[kind].append(str(error).removeprefix(f"{found.folder}{os.sep}"))
    return None


def _mask(found: Findings, name: str, mask: RawMask, splits: list[str]) -> bool:
    """Count what a mask holds; return whether it can be used, or could be once its numbers are mapped."""
    kind, label = mask.kind, packed(mask.values) if mask.kind == COLOURS else mask.values
    found.kinds[kind] += 1
    keys, counts = np.unique(label, return_counts=True)
    content = dict(zip(keys.tolist(), counts.tolist()))
    if kind == COLOURS:
        few = len(found.colours | content) <= MAX_COLOURS
        found.faults["colours"].append(f"{name}: {len(content)} colours")
        if few:
            found.colours.update(content)
            found.colour_files.update(content.keys())
        else:
            found.many_colours += 1
        return few
    found.numbers.update(content)
    if kind not in (PALETTE, GREY):
        found.faults["depth"].append(f"{name}: {kind}")
    strange = [number for number in content if number >= len(found.classes) and number != VOID]
    if strange:
        numbers = ", ".join(map(str, strange[:6])) + (", ..." if len(strange) > 6 else "")
        pixels = sum(content[number] for number in strange)
        found.faults["values"].append(f"{name}: {numbers} at {pixels} of {label.size} pixels")
    if list(content) == [VOID]:
        found.faults["void"].append(name)
    for split in splits or [""]:
        found.images[split].update(content.keys())
    return True


def layout_hints(folder: str | os.PathLike[str]) -> list[str]:
    """Return what a folder that is no VOC tree seems to be, and how it becomes one, a line each; [] if unclear."""
    root = path_of(folder)
    if not root.is_dir():
        return []
    inside = sorted(root.iterdir())[:1000]
    hints = []
    if any(entry.suffix == ".json" for entry in inside) and any(
        entry.suffix.lower() in IMAGE_SUFFIXES for entry in inside
    ):
        hints.append("These look like labelme's own files (.json): its script labelme2voc.py makes such a tree.")
    counts = {
        entry.name: Counter(path.suffix.lower() for path in itertools.islice(entry.iterdir(), 1000))
        for entry in inside
        if entry.is_dir() and not entry.name.startswith(".")
    }
    photos = {name: count[".jpg"] + count[".jpeg"] for name, count in counts.items()}
    pngs = {name: count[".png"] for name, count in counts.items()}
    image = max(photos, key=photos.__getitem__, default="")
    mask = max((name for name in pngs if name != image), key=pngs.__getitem__, default="")
    if image and mask and photos[image] and pngs[mask]:
        hints.append(f"{root / image} seems to hold the images, and {root / mask} the masks. If so:")
        for old, new in ((image, IMAGES), (mask, MASKS)):
            hints.append(f"  mv {shlex.quote(str(root / old))} {shlex.quote(str(root / new))}")
    return hints
