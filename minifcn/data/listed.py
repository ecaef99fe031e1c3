"""The base class of data sets on disk: lists of ids, and one file of each kind per id.

An id joins a picture, its labels, and what else is known of it; a split is a list of ids in a text file. So a loader
is three things: where each kind of file lies (`Part`), which ids count (`ids_in_list`), and what a file of each kind
holds (the method `_array`). The rest is here: that every file is there is checked at once, its content when
it is read, and what is missing or broken is refused by name or, on request, left out and counted.

A list becomes file names, so an id is letters, digits, `_` and `-` and nothing else: `../../etc/passwd` is no id.
"""

import abc
import difflib
import functools
import hashlib
import json
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from minifcn.data.files import MAX_PIXELS, data_errors, read_image
from minifcn.data.sample import VOID, Sample
from minifcn.errors import DataError, FormatError, UsageError
from minifcn.formats.checkpoint import replace_file
from minifcn.formats.mat import read_mat
from minifcn.formats.strict_json import read_json

ID = re.compile(r"[A-Za-z0-9_-]+")
CHECKED = "minifcn-checked.json"
"""The file beside the data in which `minifcn data check` leaves a stamp of each id whose files are good."""
VERSION = 2  # of what stands in that file; stamps of another one are passed over
MAX_CHECKED = 256 * 2**20
MAX_LIST = 16 * 2**20
"""Bytes of the longest list that is read: a million ids."""


class Part:
    """One kind of file: `folder`/`prefix` + id + one of `suffixes`, as in `images/img_5001.png`."""

    def __init__(self, folder: Path, suffixes: tuple[str, ...], prefix: str = "") -> None:
        self.folder, self.suffixes, self.prefix = folder, suffixes, prefix
        self.files: dict[str, list[str]] = defaultdict(list)
        self.others: dict[str, list[str]] = defaultdict(list)  # of another suffix
        # One listing answers for the whole split, where asking for each file would take thousands.
        for name in sorted(os.listdir(folder)):
            suffix = next((one for one in suffixes if name.lower().endswith(one)), None)
            if name.startswith(prefix) and not name.startswith("."):
                stem = name[len(prefix) :].removesuffix(name[-len(suffix) :] if suffix else "")
                (self.files if suffix else self.others)[stem if suffix else os.path.splitext(stem)[0]].append(name)

    def path(self, name: str) -> Path:
        """Return the file of an id; there must be exactly one."""
        return self.folder / self.file(name)

    def file(self, name: str) -> str:
        """Return the name of the file of an id; there must be exactly one."""
        names = self.files.get(name, [])
        if len(names) != 1:
            found = "several files: " + ", ".join(sorted(names)) if names else "no file"
            wanted = " or ".join(self.prefix + name + suffix for suffix in self.suffixes)
            there = [] if names else self.others.get(name, [])
            beside = f"; there is {', '.join(there[:4])}, in another format: save it in this one" if there else ""
            raise DataError(f"{self.folder}: {found} for id {name}; expected {wanted}{beside}")
        return names[0]


class Listed(abc.ABC):
    """A data set on disk. Its maker sets `folder`, `split`, `classes`, `ids` and `parts`, and calls `_complete`.

    The first of `parts` are the images; `kinds` says which fields of a `Sample` the others are.
    """

    folder: Path
    split: str | None
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    parts: Sequence[Part]
    kinds: Sequence[str] = ("label",)
    skipped: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        pairs = f"{len(self)} pairs, {len(self.skipped)} skipped" if self.skipped else f"{len(self)} pairs"
        name = type(self).__name__
        return f"{name}({str(self.folder)!r}, split={self.split!r}): {pairs}, {len(self.classes)} classes"

    def __getitem__(self, index: int) -> Sample:
        return self._read(self.ids[index])

    def problems(self, advance: Callable[[], None] = lambda: None, *, every: bool = True) -> list[tuple[str, str]]:
        """Read every pair once; list what cannot be used, each as (id, what is wrong). `advance()` comes after each.

        Unless `every` pair is wanted, those that `remember` found good and that have not changed are not read.
        """
        found = []
        for name in self.ids:
            try:
                if every or self.recalled(name) is None:
                    self._read(name)
            except DataError as error:
                found.append((name, str(error)))
            advance()
        return found

    def unchanged(self, index: int) -> bool:
        """Return whether the files of a pair have not changed since `remember` found them good."""
        return self.recalled(self.ids[index]) is not None

    def recalled(self, name: str) -> dict[str, Any] | None:
        """Return what `remember` wrote about an id; None if its files have changed since, or were never found good."""
        entry = self._checked.get(name)
        stamp, facts = entry if isinstance(entry, list) and len(entry) == 2 else (entry, {})
        return facts if isinstance(facts, dict) and stamp and stamp == self._stamp(name) else None

    def remember(
        self, ids: Iterable[str] | None = None, facts: Mapping[str, dict[str, Any]] = MappingProxyType({})
    ) -> Path:
        """Write a stamp of every id beside the data, and return the file; UsageError if it cannot be written.

        `ids` are those whose files are found good, by default all; `facts` is what a run should warn of in some of
        them all the same, as JSON can hold it. Stamps of other ids, such as those of another split, stay.
        """
        known = self.ids if ids is None else ids
        stamps = self._checked | {
            name: [self._stamp(name), facts[name]] if facts.get(name) else self._stamp(name) for name in known
        }
        path = self.folder / CHECKED
        replace_file(path, [json.dumps(stamps, indent=0).encode()])
        vars(self)["_checked"] = stamps
        return path

    @functools.cached_property
    def _checked(self) -> dict[str, Any]:
        try:
            return read_json(self.folder / CHECKED, most=MAX_CHECKED, what="stamps of files")
        except FormatError:  # there is none, or it is damaged: then everything is read
            return {}

    def _stamp(self, name: str) -> str:
        """Return what changes with a file of an id: a digest of their names, sizes and times, and of the classes."""
        try:
            files = [(file := part.file(name), os.stat(os.path.join(part.folder, file))) for part in self.parts]
        except (DataError, OSError):
            return ""
        stats: list[object] = [VERSION, type(self).__name__, self.classes]
        stats += [(file, stat.st_size, stat.st_mtime_ns) for file, stat in files]
        return hashlib.sha256(repr(stats).encode()).hexdigest()[:32]

    def _read(self, name: str) -> Sample:
        """Return the sample of an id, or `DataError`; all its arrays have the height and width of the image."""
        image_path, *others = (part.path(name) for part in self.parts)
        arrays = self._image(image_path)
        for kind, path in zip(self.kinds, others, strict=True):
            arrays[kind] = self._array(kind, path)
            what = kind if kind in ("depth", "hha") else "mask"
            require_fit(path, arrays[kind].shape[:2], arrays["image"].shape[:2], image_path, what=what)
        return Sample(name, **arrays)

    def _image(self, path: Path) -> dict[str, np.ndarray]:
        """Return what the file of an image holds, by the fields of a `Sample`."""
        return {"image": read_image(path)}

    @abc.abstractmethod
    def _array(self, kind: str, path: Path) -> np.ndarray:
        """Return what a file of another kind holds, or `DataError`: the one thing in which the formats differ."""

    def _complete(self, *, skip_bad: bool) -> None:
        """Check that the files of every id are there; with `skip_bad` read them all and leave out what is broken."""
        if skip_bad:
            self._skip_bad()
            return
        bad = []
        for name in self.ids:
            try:
                for part in self.parts:
                    part.file(name)
            except DataError as error:
                bad.append(str(error))
        if bad:
            which = f"{bad[0]} (the first of {len(bad)} such among {len(self)} ids of split {self.split})"
            raise DataError(f"{which}; complete the data or leave them out with `skip_bad=True`")

    def _skip_bad(self) -> None:
        self.skipped = tuple(self.problems(every=False))
        if not self.skipped:
            return
        count = f"{len(self.skipped)} of {len(self)} pairs"
        first = self.skipped[0][1]
        bad = {name for name, _ in self.skipped}
        self.ids = tuple(name for name in self.ids if name not in bad)
        if not self.ids:
            raise DataError(f"{self.folder}: {count} cannot be used, which leaves none; the first: {first}")
        warnings.warn(f"{self.folder}: skipped {count}; the first: {first}", stacklevel=4)


def ids_in_list(folder: Path, split: str) -> tuple[str, ...]:
    """Return the ids of `folder`/`split`.txt; a list that is not there is refused with those that are."""
    if not isinstance(split, str) or not ID.fullmatch(split):
        raise UsageError(f"split {split!r}; expected letters, digits, _ and -, such as 'train'")
    path = folder / f"{split}.txt"
    if not path.is_file():
        there = sorted(file.stem for file in folder.glob("*.txt"))
        near = difflib.get_close_matches(split, there, n=1)
        if not there:
            raise DataError(f"{path}: no such list, nor any other; expected one; load every mask with split=None")
        hint = f"did you mean {near[0]!r}?" if near else "choose one of those"
        raise DataError(f"{path}: no such split list; expected one of {', '.join(there)}; {hint}")
    return read_lines(path, ids=True)


def ids_in_folder(part: Part) -> tuple[str, ...]:
    """Return the ids that have labels, in the order of names: the split None."""
    for name in sorted(part.files):
        if not ID.fullmatch(name):
            raise DataError(
                f"{part.folder}: file {part.files[name][0]!r}; expected a name of letters, digits, _ and -; rename it"
            )
    if not part.files:
        raise DataError(f"{part.folder}: no mask; expected {part.prefix}*{part.suffixes[0]} files; check the path")
    return tuple(sorted(part.files))


def read_small(path: Path, *, expected: str) -> bytes:
    """Return the bytes of a list; `DataError` if it cannot be read or has more than `MAX_LIST` bytes."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_LIST + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected {expected}") from error
    if len(content) > MAX_LIST:
        raise DataError(f"{path}: more than {MAX_LIST} bytes; expected {expected}")
    return content


def read_lines(path: Path, *, ids: bool = False) -> tuple[str, ...]:
    """Return the lines of a small list, each once and none blank; a line that is not plain text is refused by number.

    A byte order mark and Windows line ends are refused too, and by name: both are invisible in an editor, and would
    become part of the first id, or of all of them. With `ids` every line must be an id.
    """
    content = read_small(path, expected="a list; check the path")
    if not content.strip():
        raise DataError(f"{path}: is empty; expected one {'id' if ids else 'name'} a line; fill it or remove it")
    lines: dict[str, int] = {}
    for number, raw in enumerate(content.removesuffix(b"\n").split(b"\n"), start=1):
        where = f"{path}, line {number}"
        if raw.startswith(b"\xef\xbb\xbf"):
            raise DataError(f"{where}: begins with a byte order mark; expected plain UTF-8; save it without BOM")
        if raw.endswith(b"\r"):
            raise DataError(f"{where}: ends in CR LF (Windows); expected LF; convert it, for example with dos2unix")
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: {raw[:40]!r} is not UTF-8; expected plain text; correct the line") from error
        if not line.strip() or not line.isprintable():
            found = f"found {line[:40]!r}" if line.strip() else "is blank"
            raise DataError(f"{where}: {found}; expected printable text; correct or remove the line")
        if ids and not ID.fullmatch(line):
            raise DataError(f"{where}: {line[:40]!r} is no id; expected letters, digits, _ and -; correct the line")
        if line in lines:
            raise DataError(f"{where}: {line[:40]!r} is also line {lines[line]}; expected it once; remove one")
        lines[line] = number
    return tuple(lines)


def read_matlab(path: Path, variable: str, *, least: int, most: int) -> np.ndarray:
    """Return the integers (H, W), `least` to `most`, of a variable ("S") or field ("GTcls.Segmentation") of a .mat."""
    with data_errors():
        numbers = read_mat(path, only=[variable], allow_nonfinite=True)[variable]  # which the range below refuses
    if numbers.ndim != 2 or not 0 < numbers.size <= MAX_PIXELS:
        raise DataError(f"{path}: {variable} has shape {numbers.shape}; expected (height, width); replace the file")
    strange = numbers[~((numbers >= least) & (numbers <= most) & (np.floor(numbers) == numbers))]  # NaN, too
    if strange.size:
        values = ", ".join(f"{value:g}" for value in np.unique(strange)[:8])
        what = f"{variable} holds {values} at {strange.size} of {numbers.size} pixels"
        raise DataError(f"{path}: {what}; expected {least}..{most}; is it the file of another data set?")
    return numbers.astype(np.int32)


def voided(numbers: np.ndarray) -> np.ndarray:
    """Return labels (H, W) uint8 of numbers that begin at 1: k becomes class k-1; 0 and below become void."""
    return np.where(numbers > 0, numbers - 1, VOID).astype(np.uint8)


def require_fit(
    path: Path, size: tuple[int, ...], image: tuple[int, ...], image_path: Path, *, what: str = "mask"
) -> None:
    """Refuse what does not have the height and width of its image."""
    if size == image:
        return
    sizes = f"{size[1]}x{size[0]}; expected {image[1]}x{image[0]} as in {image_path}"
    lying = size == image[::-1]
    cure = "was the image turned by its EXIF orientation?" if lying else f"is it the {what} of another image?"
    raise DataError(f"{path}: {what} of {sizes}; {cure}")
