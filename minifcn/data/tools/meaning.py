"""Find out what the numbers and colours of masks mean, over all masks of a folder at once.

One file says little: a mask that is all black could hold numbers or colours, and a palette is only wrong compared with
that of another file. So every mask is read once (`survey`), then one rule for all is chosen (`meaning_of`), from the
surest source to the least sure: what the user says, a table of names or colours beside the masks, a data set whose
numbers are known, a palette that is known. Only colours that no table names are numbered by their share, and then the
result says so.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from minifcn.data.sample import VOID
from minifcn.data.tools.mapping import (
    MAX_COLOURS,
    colour_name,
    packed,
    propose_colours,
    propose_numbers,
    remapped,
    voc_colours,
)
from minifcn.data.tools.raw import RawMask
from minifcn.data.tools.sidecars import CAMVID, CITYSCAPES, CITYSCAPES_IDS, VOID_NAMES, Sidecar
from minifcn.data.voc import VOC_CLASSES
from minifcn.errors import DataError

CARLA_MOST = 40  # CARLA's largest number is 28; red in VOC's palette begins at 64
MANY, FEW, SMOOTH = 64, 6, 0.25
"""Masks with at least so many numbers, of which so few fill all but this share, were scaled with interpolation."""
HAZE = 0.02  # share of pixels between black and white that a JPEG of a black and white mask may have
CITYSCAPES_COLOURS = (
    *(0x804080, 0xF423E8, 0x464646, 0x66669C, 0xBE9999, 0x999999, 0xFAAA1E, 0xDCDC00, 0x6B8E23, 0x98FB98),
    *(0x4682B4, 0xDC143C, 0xFF0000, 0x00008E, 0x000046, 0x003C64, 0x005064, 0x0000E6, 0x770B20),
)
VOC_COLOURS = voc_colours(len(VOC_CLASSES))
BY = ("", "numbers", "colours")
BY_NUMBER, BY_COLOUR = "with `map=FILE`, a line `number class`", "with `map=FILE`, a line `R G B class`"
EACH = "one for each class"


@dataclass
class Survey:
    """What all masks hold: `numbers` and `colours` with their pixels, and the palettes compared."""

    kinds: Counter[str] = field(default_factory=Counter)
    numbers: Counter[int] = field(default_factory=Counter)
    colours: Counter[int] = field(default_factory=Counter)
    greys: Counter[int] = field(default_factory=Counter)  # of lossy masks
    channels_equal: bool = True
    red_only: bool = True
    palettes: dict[int, dict[int, Path]] = field(default_factory=lambda: defaultdict(dict))
    repeated: set[int] = field(default_factory=set)  # colours that one palette has at several numbers
    palette_files: int = 0
    files: int = 0
    first: Path | None = None

    def add(self, path: Path, mask: RawMask) -> None:
        """Count one mask."""
        self.files += 1
        self.first = self.first or path
        self.kinds[mask.kind] += 1
        if mask.values.ndim == 3:
            red, green, blue = (mask.values[..., channel] for channel in range(3))
            self.channels_equal &= bool((red == green).all() and (red == blue).all())
            self.red_only &= not green.any() and not blue.any()
            if len(self.colours) <= MAX_COLOURS:
                self.colours.update(_counted(packed(mask.values)))
        elif mask.lossy:
            self.greys.update(_counted(mask.values))
        else:
            self.numbers.update(_counted(mask.values))
            self.palette_files += bool(mask.palette)
            self.repeated.update(mask.repeated)
            for number, colour in mask.palette.items():
                self.palettes[number].setdefault(colour, path)

    def refusal(self, what: str, expected: str, how: str) -> DataError:
        """Return the error for masks that mean nothing, to be raised: the first file stands for all."""
        return DataError(f"{self.first}: {what}; expected {expected}; {how}")

    def conflict(self) -> str:
        """Return a number with two colours in two files, or a colour with two numbers, as a sentence; "" for none."""
        for number, colours in sorted(self.palettes.items()):
            if len(colours) > 1:
                (one, a), (two, b) = list(colours.items())[:2]
                which = f"{colour_name(one)} in {a.name} and {colour_name(two)} in {b.name}"
                return f"number {number} is the colour {which}"
        first: dict[int, tuple[int, Path]] = {}
        for number, colours in sorted(self.palettes.items()):
            for colour, path in colours.items():
                other, there = first.setdefault(colour, (number, path))
                if other != number and colour not in self.repeated:
                    where = f"number {other} in {there.name} and {number} in {path.name}"
                    return f"the colour {colour_name(colour)} is {where}"
        return ""

    def misplaced(self) -> str:
        """Return a colour of VOC's palette that stands at another number, as a sentence; "" where none does.

        Only if twice as many are VOC's as are not: other palettes share a few with it by chance.
        """
        used = {(number, colour) for number, colours in self.palettes.items() for colour in colours}
        used = {(number, colour) for number, colour in used if colour not in self.repeated}
        wrong = sorted((number, colour) for number, colour in used if VOC_COLOURS.get(colour, number) != number)
        if not wrong or len(used) < 2 or 2 * len(self.own_colours()) > len(wrong):
            return ""
        number, colour = wrong[0]
        return f"number {number} has the colour {colour_name(colour)}, which is VOC's of class {VOC_COLOURS[colour]}"

    def own_colours(self) -> set[int]:
        """Return the colours in palettes that are not VOC's."""
        return {colour for colours in self.palettes.values() for colour in colours} - VOC_COLOURS.keys()


def _counted(values: np.ndarray) -> dict[int, int]:
    """Return how many pixels have each number, of those that could be classes: noise has millions."""
    found, counts = np.unique(values, return_counts=True)
    most = 2**16
    return dict(zip(found[:most].tolist(), counts[:most].tolist(), strict=True))


@dataclass(frozen=True)
class Meaning:
    """The rule that turns raw masks into classes: names, mapping, and why in a sentence.

    by: "numbers", "colours", or "threshold" for masks that were JPEGs. `sure` unless it should be looked at.
    """

    classes: tuple[str, ...]
    by: str
    mapping: Mapping[int, int]
    why: str
    sure: bool = True

    def label(self, path: Path, mask: RawMask) -> np.ndarray:
        """Return the classes (H, W) uint8 of a raw mask."""
        values = mask.values
        if self.by == "threshold":
            values = values[..., 0] if values.ndim == 3 else values
            return (values >= 128).astype(np.uint8)
        if self.by == "numbers" and values.ndim == 3:
            values = values[..., 0]
        if self.by == "colours" and values.ndim == 2:
            if not mask.palette:
                raise DataError(f"{path}: mask of plain numbers; expected colours as in the others; map both alike")
            table = np.full(int(values.max(initial=0)) + 1, -1, np.int64)
            table[list(mask.palette)] = list(mask.palette.values())
            values = table[values]
        try:
            return remapped(packed(values) if values.ndim == 3 else values, self.mapping)
        except DataError as error:
            how = "say which with `map=FILE`, a line `number class` or `R G B class`"
            raise DataError(f"{path}: {error}; {how}") from error


def meaning_of(
    found: Survey,
    sidecar: Sidecar | None,
    *,
    layout: str = "",
    by: str = "",
    own: tuple[Mapping[int, int], Mapping[int, int]] = ({}, {}),
) -> Meaning:
    """Return the rule for masks like these; DataError with what is missing where there is none.

    layout: "cityscapes", "ade20k", "trimap", "camvid" or "voc", if the names of files and folders say so.
    own: colours and numbers and their classes as the user gives them.
    """
    own_colours, own_numbers = own
    if found.greys:
        return _thresholded(found, sidecar)
    known = len(found.colours) > 1 and found.colours.keys() <= VOC_COLOURS.keys()
    known &= layout == "voc" or not found.channels_equal  # black and (128, 128, 128) are VOC's, and two greys
    equal = bool(found.colours) and found.channels_equal and not known
    if (equal or (found.colours and found.red_only and max(found.colours) >> 16 <= CARLA_MOST)) and by != "colours":
        red = Counter({colour >> 16: count for colour, count in found.colours.items()})
        what = "three channels that are equal hold the numbers"
        what = what if equal else "the red channel holds the numbers (CARLA)"
        return _said(what, _of_numbers(found, red + found.numbers, sidecar, layout, own_numbers))
    if found.colours:
        every = Counter(found.colours)
        for number, colours in found.palettes.items():
            every.update(dict.fromkeys(colours, found.numbers[number]))
        return _of_colours(found, every, sidecar, layout, own_colours)
    in_palettes = Counter({c: found.numbers[n] for n, colours in found.palettes.items() for c in colours})
    if found.palette_files == found.files and by != "numbers" and not own_numbers:
        conflict, misplaced = found.conflict(), found.misplaced()
        tabled = sidecar is not None and in_palettes.keys() <= sidecar.colours.keys()
        if misplaced and not (by or tabled or conflict) and (named := _numbers_count(found, sidecar)) is not None:
            meaning = _of_numbers(found, found.numbers, sidecar, layout, own_numbers)
            why = f"the numbers count, not the colours behind them: {misplaced}; `by=colours` takes the colours"
            return replace(_said(why, meaning), sure=named)
        if by == "colours" or tabled or conflict or misplaced:
            why = conflict or ("" if tabled else misplaced)
            return _said(
                f"the colours count, not the numbers behind them{f': {why}' * bool(why)}",
                _of_colours(found, in_palettes, sidecar, layout, own_colours),
            )
    return _of_numbers(found, found.numbers, sidecar, layout, own_numbers)


def _numbers_count(found: Survey, sidecar: Sidecar | None) -> bool | None:
    """Return whether a list names the numbers, though their colours are VOC's of others; None if the colours count.

    They do if all are VOC's, and no list is too short to name VOC's classes.
    """
    classes = {VOC_COLOURS.get(colour, VOID) for colours in found.palettes.values() for colour in colours} - {VOID}
    inside = {number for number in found.numbers if number != VOID}
    named = bool(sidecar and inside <= set(sidecar.numbers) and len(sidecar.classes) <= max(classes, default=0))
    return named if named or found.own_colours() else None


def _said(first: str, meaning: Meaning) -> Meaning:
    return replace(meaning, why=f"{first}; {meaning.why}")


def _thresholded(found: Survey, sidecar: Sidecar | None) -> Meaning:
    """Return what masks mean that were JPEGs: black and white survive that, numbers do not."""
    total = sum(found.greys.values())
    haze = sum(count for grey, count in found.greys.items() if 32 <= grey < 224) / total
    if haze > HAZE or not set(found.numbers) <= {0, 255} or found.colours:
        expected = "black and white, which is all that survives its compression"
        raise found.refusal(f"mask is a JPEG with {len(found.greys)} greys", expected, "export the masks as PNG")
    classes = sidecar.classes if sidecar and len(sidecar.classes) == 2 else ("background", "object")
    return Meaning(classes, "threshold", {}, f"JPEG masks: 128 and above is {classes[1]}, below is {classes[0]}")


def _of_numbers(
    found: Survey, pixels: Mapping[int, int], sidecar: Sidecar | None, layout: str, own: Mapping[int, int]
) -> Meaning:
    there = {number for number in pixels if number >= 0}
    void = {VOID: VOID, -1: VOID}
    if own:
        names = sidecar.classes if sidecar else ()
        return _complete(found, pixels, Meaning(_named(names, own), "numbers", {**void, **own}, "as `map=FILE` says"))
    if layout == "trimap" and there <= {1, 2, 3}:
        why = "trimaps: 1 is the pet, 2 the background, 3 (the border) void"
        return Meaning(("background", "pet"), "numbers", {1: 1, 2: 0, 3: VOID}, why)
    if layout.startswith("cityscapes"):
        ids, why = {place: place for place in range(len(CITYSCAPES))}, "Cityscapes' 19 train ids"
        if layout == "cityscapes":
            ids = dict.fromkeys(range(34), VOID) | {number: place for place, number in enumerate(CITYSCAPES_IDS)}
            why = "Cityscapes' label ids as 19 classes"
        return _complete(found, pixels, Meaning(CITYSCAPES, "numbers", void | ids, why))
    if layout == "ade20k":
        named = sidecar if sidecar and len(sidecar.classes) == 150 else None
        names = named.classes if named else tuple(f"ADE20K class {number}" for number in range(1, 151))
        mapping = {0: VOID, **{number: number - 1 for number in range(1, 151)}}
        where = f", named in {named.path.name}" if named else ""
        return _complete(found, pixels, Meaning(names, "numbers", mapping, f"ADE20K: 0 is void, 1 is class 0{where}"))
    inside = sorted(there - {VOID})
    if smooth := _smoothed(found, pixels, sidecar):
        return smooth
    if sidecar and sidecar.numbers and set(inside) <= set(sidecar.numbers):
        if there == {0, VOID} and len(sidecar.classes) == 2:
            return Meaning(sidecar.classes, "numbers", {0: 0, VOID: 1}, _black_and_white(sidecar.classes[1]))
        return Meaning(sidecar.classes, "numbers", {**void, **sidecar.numbers}, f"named in {sidecar.path.name}")
    if there == {0, VOID}:
        return Meaning(("background", "object"), "numbers", {0: 0, VOID: 1}, _black_and_white("object"))
    if sidecar:
        classes = sidecar.classes
        proposal = propose_numbers(dict.fromkeys(there, 1), len(classes))
        if proposal is None:
            strange = [number for number in inside if number not in sidecar.numbers]
            expected = f"the numbers of the {len(classes)} classes in {sidecar.path.name}"
            how = f"correct that list, or say what is what {BY_NUMBER}"
            raise found.refusal(f"masks hold {_some(strange)}", expected, how)
        why = f"{proposal.why}; named in {sidecar.path.name}"
        return Meaning(classes, "numbers", {**void, **proposal.mapping}, why, proposal.sure)
    if not inside:
        what = "every mask holds 255 or negative numbers alone, which are void"
        raise found.refusal(what, "classes from 0", "if 255 is a class, say so with `map=FILE`, a line `255 1`")
    if layout == "voc" and inside[-1] < len(VOC_CLASSES):
        return Meaning(VOC_CLASSES, "numbers", void | {n: n for n in range(len(VOC_CLASSES))}, "PASCAL VOC's classes")
    if inside[-1] >= VOID:
        what = f"masks hold numbers up to {inside[-1]}, {len(inside)} different ones"
        raise found.refusal(what, "0 to 254", f"say which is which class {BY_NUMBER}")
    proposal = propose_numbers(dict.fromkeys(there, 1), len(inside))
    spread = proposal is not None and len(inside) > 1 and inside[1] - inside[0] >= 16
    if proposal is not None and proposal.mapping and (spread or inside[0] == 1):
        names = tuple(f"number {number}" for number in inside)
        return Meaning(names, "numbers", {**void, **proposal.mapping}, proposal.why, False)
    names = tuple(f"class {number}" for number in range(inside[-1] + 1))
    why = "the numbers are the classes; no file names them (`classes=FILE` does, a name a line)"
    return Meaning(names, "numbers", void | {number: number for number in range(inside[-1] + 1)}, why)


def _smoothed(found: Survey, pixels: Mapping[int, int], sidecar: Sidecar | None) -> Meaning | None:
    """Return what masks mean that were scaled with interpolation: black and white survive, other numbers do not.

    Their numbers are many, and nearly all pixels have a few of them. None for masks that are not like that.
    """
    if len(pixels) < MANY or (sidecar and len(sidecar.classes) >= MANY) or max(pixels) > VOID:
        return None
    total = sum(pixels.values())
    grey = sum(count for number, count in pixels.items() if 0 < number < VOID)
    ends = [pixels.get(0, 0), pixels.get(VOID, 0)]
    if min(ends) > max(count for number, count in pixels.items() if 0 < number < VOID) and grey < SMOOTH * total:
        classes = sidecar.classes if sidecar and len(sidecar.classes) == 2 else ("background", "object")
        why = f"black and white, scaled with interpolation ({len(pixels)} greys): 128 and above is {classes[1]}"
        return Meaning(classes, "threshold", {}, why)
    if sum(sorted(pixels.values())[-FEW:]) > (1 - SMOOTH) * total:
        how = "they were scaled with interpolation: export them again, or scale with the nearest neighbour"
        how += "; if they are classes, `classes=FILE` names them, a name a line"
        raise found.refusal(f"masks hold {len(pixels)} numbers, of which {FEW} fill nearly all", EACH, how)
    return None


def _black_and_white(name: str) -> str:
    return f"black and white: 255 is {name} here, and not void"


def _complete(found: Survey, pixels: Mapping[int, int], meaning: Meaning) -> Meaning:
    strange = sorted(set(pixels) - set(meaning.mapping))
    if strange:
        expected = f"only what is known ({meaning.why})"
        raise found.refusal(f"masks hold {_some(strange)} as well", expected, f"say what they are {BY_NUMBER}")
    return meaning


def _of_colours(
    found: Survey, pixels: Mapping[int, int], sidecar: Sidecar | None, layout: str, own: Mapping[int, int]
) -> Meaning:
    there = set(pixels)
    if len(there) > MAX_COLOURS:
        how = "they were scaled with interpolation or were JPEGs once; export them again as PNG"
        raise found.refusal(f"masks hold more than {MAX_COLOURS} colours", EACH, how)
    if own and there <= set(own):
        names = sidecar.classes if sidecar else ()
        return Meaning(_named(names, own), "colours", own, "as `map=FILE` says")
    if sidecar and sidecar.colours:
        mapping = {**sidecar.colours, **own}
        missing = [colour_name(colour) for colour in sorted(there - set(mapping))]
        if missing:
            how = f"add them there, or say what they are {BY_COLOUR}"
            raise found.refusal(f"masks hold {_some(missing)}", f"the colours in {sidecar.path.name}", how)
        return Meaning(sidecar.classes, "colours", mapping, f"colours named in {sidecar.path.name}")
    known = voc_colours(VOID)
    if there <= set(CAMVID) and (layout == "camvid" or not there <= VOC_COLOURS.keys()):
        names = tuple(name for name in CAMVID.values() if not VOID_NAMES.fullmatch(name))
        by_colour = {colour: names.index(name) if name in names else VOID for colour, name in CAMVID.items()}
        return Meaning(names, "colours", {**by_colour, **own}, "CamVid's colours")
    if there <= {*CITYSCAPES_COLOURS, 0} and len(there) > 1 and not there <= VOC_COLOURS.keys():
        by_colour = {0: VOID, **{colour: place for place, colour in enumerate(CITYSCAPES_COLOURS)}}
        return Meaning(CITYSCAPES, "colours", {**by_colour, **own}, "Cityscapes' colours")
    if there <= set(known):
        most = max((known[colour] for colour in there if known[colour] != VOID), default=0)
        names = sidecar.classes if sidecar and len(sidecar.classes) > most else ()
        if not names and layout == "voc" and most < len(VOC_CLASSES):
            names = VOC_CLASSES
        mapping = {colour: known[colour] for colour in sorted(there, key=lambda colour: known[colour])}
        return Meaning(_named(names, mapping), "colours", {**mapping, **own}, "VOC's palette")
    proposal = propose_colours(pixels, len(there))
    if proposal is None:
        expected = f"at most {VOID} classes"
        raise found.refusal(f"masks hold {len(there)} colours", expected, f"say which is which {BY_COLOUR}")
    mapping = {**proposal.mapping, **own}
    names = tuple(f"colour {colour_name(colour)}" for colour, number in mapping.items() if number != VOID)
    if sidecar and len(sidecar.classes) >= len(names):
        names = sidecar.classes
    return Meaning(_named(names, mapping), "colours", mapping, proposal.why, False)


def _named(names: Sequence[str], mapping: Mapping[int, int]) -> tuple[str, ...]:
    """Return the names, with more for what the mapping has beyond them."""
    most = max((number for number in mapping.values() if number != VOID), default=0)
    return (*names, *(f"class {number}" for number in range(len(names), most + 1)))


def _some(things: Sequence[object]) -> str:
    return ", ".join(map(str, things[:6])) + (f" and {len(things) - 6} more" if len(things) > 6 else "")
