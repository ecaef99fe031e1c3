"""Faults that no reader refuses: the files are whole, training runs, and what it learns is wrong.

A palette whose colours stand at other numbers, a photograph that its EXIF turns and a mask that nothing turns, 16-bit
pictures that use their lower bits and arrive black, pictures of one colour, pictures twice: each trains without a
word. `check` looks for all of them; `train` looks at what the headers of the files show, before it begins.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minifcn.data.files import opened
from minifcn.data.listed import Listed
from minifcn.data.planes import PLANE_SUFFIXES
from minifcn.data.sample import Sample
from minifcn.data.tools.mapping import packed
from minifcn.data.tools.meaning import Survey
from minifcn.data.tools.raw import SENSOR_BITS, RawMask, bits_in_use, largest_number, read_header, read_raw_mask
from minifcn.errors import DataError

KINDS = {
    "palettes": (
        "palettes that contradict each other, or the numbers",
        "Training reads the numbers, and a viewer shows the colours: here they do not say the same. Importing the "
        "folder says which of the two it takes; `by=colours` or `by=numbers` decides it.",
    ),
    "turned": (
        "images that their EXIF turns, with masks that may not be",
        "Training turns the image; was its mask drawn on it as shown, or as stored? Importing the folder with "
        "`turned=shown` or `turned=stored` writes both upright.",
    ),
    "dark": (
        "16-bit images that use only their lower bits",
        "Training reads the upper 8 of 16 bits, which are black here. Importing the folder scales them.",
    ),
    "black": (
        "images that are nearly black, all of them",
        "They look like 12 of 16 bits of which the upper 8 were kept: four bits are left. Convert the originals again, "
        "scaled to their largest number; importing the folder does that to 16-bit PNG and TIFF.",
    ),
    "constant": ("images of one colour", "Nothing can be learned from them. Take them out of the lists."),
    "twins": (
        "images that are there twice, equal in every pixel",
        "Under two names in one split they count double; in two splits the net is measured on what it has learned.",
    ),
}
IMPORTED = ("palettes", "turned", "dark", "black")
"""The kinds that importing the folder into a new one helps with."""
ANY = re.compile(r"[^\n]+")
FACTS = {"turned": ANY, "constant": ANY, "twins": ANY, "dark": re.compile(r"\d{1,5}"), "black": re.compile(r"\d{1,2}")}
FACTS["palette"] = re.compile(r"\d{1,3}:\d{1,8}( \d{1,3}:\d{1,8})*")  # number:colour of all numbers that are used
FACTS["repeated"] = re.compile(r"\d{1,8}( \d{1,8})*")  # colours that the palette has at several numbers
"""What is kept of an id, and how it looks."""
BLACK = 2 ** (SENSOR_BITS - 8)  # what is left of a sensor's numbers where the upper 8 of 16 bits were kept
FEW = 0.0005  # a mask with a smaller share of all classes but one may hold stray pixels only


class Silent:
    """`look` at each pair, then read `faults`, by kind of `KINDS`, and `notes`.

    `facts` is what is known of each id, as JSON can hold it: nothing, of most. So it can be kept for another run.
    """

    def __init__(self) -> None:
        self.facts: dict[str, dict[str, Any]] = defaultdict(dict)
        self._bright = False
        self._pictures: dict[bytes, str] = {}
        self._classes: dict[str, Counter[int]] = {}

    def headers(self, name: str, image: Path, mask: Path) -> None:
        """Look at what the headers of a pair say; 16-bit images are decoded."""
        if image.suffix.lower() in PLANE_SUFFIXES:  # all their numbers are used, and their reader looks at the rest
            return
        head = read_header(image)
        if head.orientation != 1 and head.size == head.shown and read_header(mask).orientation == 1:
            self.facts[name]["turned"] = f"EXIF orientation {head.orientation}, and none in {mask.name}"
        if head.deep:
            self.facts[name]["dark"] = largest_number(image, 0)

    def pixels(self, name: str, image: np.ndarray) -> None:
        """Look at a decoded image."""
        if image.size and (image == image[0, 0]).all():
            self.facts[name]["constant"] = f"all {', '.join(map(str, image[0, 0].tolist()))}"
        elif (most := int(image.max(initial=0))) < BLACK and not self._bright:
            self.facts[name]["black"] = most
        elif most >= BLACK and not self._bright:  # then the dark ones are as they should be
            self._bright = True
            for facts in self.facts.values():
                facts.pop("black", None)
        digest = hashlib.blake2b(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).digest()
        other = self._pictures.setdefault(digest, name)
        if other != name:
            self.facts[name]["twins"] = other

    def sample(self, sample: Sample) -> None:
        """Look at a decoded pair."""
        self.pixels(sample.id, sample.image)
        self.mask(sample.id, RawMask("", sample.label))

    def mask(self, name: str, mask: RawMask) -> None:
        """Look at a mask's numbers, and the colours that the palette of its file gives them."""
        numbers, counts = np.unique(mask.values, return_counts=True)
        self._classes[name] = Counter(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
        if mask.palette:
            self.facts[name]["palette"] = " ".join(f"{number}:{colour}" for number, colour in mask.palette.items())
        if there := mask.repeated & set(mask.palette.values()):
            self.facts[name]["repeated"] = " ".join(map(str, sorted(there)))

    def recall(self, name: str, facts: Mapping[str, Any], known: Callable[[str], bool]) -> None:
        """Look at what was found before; a twin counts if it is still `known`."""
        right = {kind: fact for kind, fact in facts.items() if kind in FACTS and FACTS[kind].fullmatch(str(fact))}
        if "twins" in right and not known(right["twins"]):
            del right["twins"]
        if right:
            self.facts[name] = right

    def faults(self) -> dict[str, list[str]]:
        """Return what was found, by kind, in the order of `KINDS`."""
        found: dict[str, list[str]] = defaultdict(list)
        survey, dark, palettes = Survey(), dict[str, int](), dict[str, str]()
        for name, facts in self.facts.items():
            found["turned"] += [f"{name}: {facts['turned']}"] if "turned" in facts else []
            found["constant"] += [f"{name}: {facts['constant']}"] if "constant" in facts else []
            found["twins"] += [f"{name} and {facts['twins']}"] if "twins" in facts else []
            dark |= {name: int(facts["dark"])} if "dark" in facts else {}
            palettes.setdefault(facts.get("palette", ""), name)
            survey.repeated.update(map(int, facts.get("repeated", "").split()))
        for used, name in palettes.items():
            for number, _, colour in (each.partition(":") for each in used.split()):
                survey.palettes[int(number)].setdefault(int(colour), Path(f"{name}.png"))
        found["palettes"] = [line for line in (survey.conflict() or survey.misplaced(),) if line]
        bits = bits_in_use(dark.values())
        if bits < 16:
            found["dark"] = [f"{name}: no number above {most}" for name, most in dark.items()]
        elif black := {name: facts["black"] for name, facts in self.facts.items() if "black" in facts}:
            found["black"] = [f"{name}: no number above {most} of 255" for name, most in black.items()]
        return {kind: found[kind] for kind in KINDS if found.get(kind)}

    def sentences(self, *, notes: bool = True) -> Iterator[str]:
        """Return what was found, a sentence for each kind of fault, and the notes."""
        for kind, lines in self.faults().items():
            title, meaning = KINDS[kind]
            yield f"{title}: {lines[0]}{f' and {len(lines) - 1} more' if len(lines) > 1 else ''}; {meaning}"
        yield from self.notes() if notes else ()

    def notes(self) -> Iterator[str]:
        """Yield a sentence on masks that may be as they should be, and are worth a look."""
        counted = {name: [count for number, count in one.items()] for name, one in self._classes.items()}
        few = [name for name, counts in counted.items() if len(counts) > 1 and max(counts) > (1 - FEW) * sum(counts)]
        one = [name for name, counts in counted.items() if len(counts) == 1]
        for names, what in ((few, f"have less than {100 * FEW:g} % of all classes but one"), (one, "hold one number")):
            if names and len(self._classes) > 1:
                yield f"{len(names)} masks {what}, {', '.join(names[:3])} first: are they finished?"


def palette_of(path: Path) -> dict[int, int]:
    """Return the colour, as 0xRRGGBB, of each number of a mask with a palette; {} for others. Nothing is decoded."""
    with opened(path, formats=("PNG",), what="mask") as picture:
        found = picture.getpalette("RGB") if picture.mode == "P" else None
    if not found:
        return {}
    return dict(enumerate(packed(np.array(found, np.uint8).reshape(-1, 3)).tolist()))


def warnings_of(
    dataset: Listed, *, part: slice = slice(None), gather: Callable[[Any], list[Any]] = lambda facts: [facts]
) -> Iterator[str]:
    """Yield what the headers of a split's files show, a sentence for each kind: for a look before training.

    What `check` found stays beside the data: of files that have not changed since, none is opened. Of the
    others only those of this `part`, if there are processes that look at theirs; `gather` returns the facts of all.

    Only for data sets of photographs with PNG masks; others have formats of their own.
    """
    if len(dataset.parts) != 2 or dataset.parts[1].suffixes != (".png",):
        return
    silent = Silent()
    palettes: dict[tuple[tuple[int, int], ...], tuple[str, Path]] = {}
    for name in dataset.ids[part]:
        if (known := dataset.recalled(name)) is not None:
            silent.recall(name, known, lambda other: dataset.recalled(other) is not None)
            continue
        image, mask = (each.path(name) for each in dataset.parts)
        try:
            if not getattr(dataset, "planes", 0):
                silent.headers(name, image, mask)
            palettes.setdefault(tuple(palette_of(mask).items()), (name, mask))
        except DataError:
            continue  # the reader says it
    for name, mask in list(palettes.values())[:100]:  # one of each palette
        try:
            silent.mask(name, read_raw_mask(mask))
        except DataError:
            continue
    everyone = Silent()
    for facts in gather(silent.facts):
        everyone.facts.update(facts)
    yield from everyone.sentences(notes=False)
