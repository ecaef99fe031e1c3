"""Rewrite a folder's masks as class numbers, in a new folder, as `check` proposes.

The new folder is a whole VOC tree, so that it can be learned from as it is; the old one is not touched. In it is also
`mapping.txt`, what became what, in the form that `map` reads: change a line, write again.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from minifcn.data.files import write_mask
from minifcn.data.listed import Part
from minifcn.data.sample import VOID
from minifcn.data.tools.check import Findings
from minifcn.data.tools.make import copy_file, new_tree, write_lines
from minifcn.data.tools.mapping import colour_name, remapped
from minifcn.data.tools.raw import read_png_mask
from minifcn.data.voc import BITS, IMAGE_SUFFIXES, IMAGES, MASK_SUFFIXES, MASKS, SPLITS
from minifcn.errors import DataError
from minifcn.formats.limits import path_of

FIXED = ("colours", "depth", "values", "black and white", "line", "repeated", "no lists")
"""The kinds of fault that are gone in the new folder; pairs that cannot be used are left out there as well."""


def correct(
    found: Findings,
    folder: str | os.PathLike[str],
    *,
    colours: Mapping[int, int] | None = None,
    numbers: Mapping[int, int] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Path:
    """Write the usable pairs of `found` into `folder`, which must be new or empty, their masks as class numbers.

    `colours` and `numbers` say what becomes which class; what they leave out is as proposed. Raises DataError where
    neither knows a class, before anything is written.
    """
    root = path_of(folder)
    colours, numbers = _complete(found, colours or {}, numbers or {})
    if not found.usable:
        raise DataError(f"{found.folder}: no pair of image and mask can be used; there is nothing to write")
    with new_tree(root, "the corrected masks"):
        images = Part(found.folder / IMAGES, IMAGE_SUFFIXES)
        masks = Part(found.folder / MASKS, MASK_SUFFIXES)
        for name in found.usable:
            mask = read_png_mask(masks.path(name)).values
            write_mask(root / MASKS / f"{name}.png", remapped(mask, colours if mask.ndim == 3 else numbers))
            image = images.path(name)
            copy_file(image, root / IMAGES / image.name)
            advance()
        usable = set(found.usable)
        for split, ids in (found.splits or {"train": tuple(found.usable)}).items():
            if not usable.isdisjoint(ids):  # an empty list would be refused
                write_lines(root / SPLITS / f"{split}.txt", (name for name in ids if name in usable))
        write_lines(root / "class_names.txt", _names(found, colours))
        if (bits := found.folder / BITS).is_file():
            copy_file(bits, root / BITS)
        write_lines(
            root / "mapping.txt",
            [
                *(f"{colour_name(old)} {new}" for old, new in sorted(colours.items())),
                *(f"{old} {new}" for old, new in sorted(numbers.items()) if old != new),
            ],
        )
    return root


def _complete(
    found: Findings, colours: Mapping[int, int], numbers: Mapping[int, int]
) -> tuple[dict[int, int], dict[int, int]]:
    """Return both mappings for all that the masks hold: the user's, then the proposals, then numbers of classes."""
    by_colour, by_number = found.proposal()
    own = {number: number for number in (*range(len(found.classes)), VOID)}
    all_colours = {**(by_colour.mapping if by_colour else {}), **colours}
    all_numbers = {**own, **(by_number.mapping if by_number else {}), **numbers}
    missing = [colour_name(colour) for colour in found.colours if colour not in all_colours]
    missing += [str(number) for number in sorted(found.numbers) if number not in all_numbers]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        how = "say which with `map=FILE`, a line each: `R G B class` or `number class`, 255 for void"
        raise DataError(f"{found.folder}: no class is known for {', '.join(missing[:5])}{more}; {how}")
    return (
        {colour: all_colours[colour] for colour in found.colours},
        {number: all_numbers[number] for number in found.numbers},
    )


def _names(found: Findings, colours: Mapping[int, int]) -> list[str]:
    """Return the class names: the folder's own, or for colours without a name, the colours."""
    proposal = found.proposal()[0]
    if found.own_classes or proposal is None or proposal.sure:
        return list(found.classes)
    names = {number: f"colour {colour_name(colour)}" for colour, number in colours.items() if number != VOID}
    return [names.get(number, f"class {number}") for number in range(max(names, default=0) + 1)]
