"""Read the files of annotation tools: labelme JSON, COCO JSON and CVAT XML.

Each reader returns `Drawn` pictures: the name of the picture, and its shapes in the order in which they are painted, a
later one over an earlier. What a shape covers is computed when the size of the picture is known (drawing.py).

Files are doubted: JSON goes through the one strict reader, XML through a parser of tags alone (a
document type is refused, for its entities can unfold to gigabytes or name other files), and a picture is only looked
for among the files that lie in the folder, so that no name in a file leads out of it.
"""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np

from minifcn.data.files import data_errors
from minifcn.data.sample import VOID
from minifcn.data.tools import drawing
from minifcn.data.tools.sidecars import VOID_NAMES, ZERO_NAMES
from minifcn.errors import DataError
from minifcn.formats.strict_json import read_json

MOST_BYTES = 128 * 2**20  # of one file of annotations
MOST_SHAPES = 2_000_000  # of one folder
MOST_OF_A_PICTURE = 20_000
MOST_LABEL = 100
MOST_PAINTED = 10**11  # shapes times pixels of a picture

Draw = Callable[[drawing.Size], np.ndarray]


@dataclass(frozen=True)
class Shape:
    """One painted shape: its label, and a function that returns what it covers in a picture of (height, width)."""

    label: str
    draw: Draw


@dataclass(frozen=True)
class Drawn:
    """A picture by the name its annotation gives it, the (height, width) in which it was drawn, and its shapes."""

    source: Path
    name: str
    size: tuple[int, int] | None
    shapes: tuple[Shape, ...]
    groups: int = 0
    embedded: bool = False  # the file holds the picture as well


def painted(drawn: Drawn, size: tuple[int, int], classes: Sequence[str]) -> np.ndarray:
    """Return the classes (H, W) uint8 of a picture's shapes; what none covers is class 0, "__ignore__" void."""
    if len(drawn.shapes) * size[0] * size[1] > MOST_PAINTED:
        raise DataError(f"{drawn.source}: {len(drawn.shapes)} shapes on {size[1]}x{size[0]} pixels; expected fewer")
    label = np.zeros(size, np.uint8)
    for place, shape in enumerate(drawn.shapes):
        name = "background" if ZERO_NAMES.fullmatch(shape.label) else shape.label  # which cuts a hole
        try:
            label[shape.draw(size)] = VOID if VOID_NAMES.fullmatch(name) else classes.index(name)
        except DataError as error:
            raise DataError(f"{drawn.source}: shape {place + 1} ({shape.label}) of {drawn.name}: {error}") from error
    return label


def labels_of(drawn: Sequence[Drawn]) -> list[str]:
    """Return the labels that are classes beside the background, sorted."""
    labels = {shape.label for one in drawn for shape in one.shapes}
    return sorted(label for label in labels if not VOID_NAMES.fullmatch(label) and not ZERO_NAMES.fullmatch(label))


def _label(path: Path, found: Any) -> str:
    label = " ".join(found.split()) if isinstance(found, str) else ""
    if not label or len(label) > MOST_LABEL or not label.isprintable():
        raise DataError(f"{path}: a label is {found!r:.60}; expected a name of 1 to {MOST_LABEL} letters; rename it")
    return label


def _size(path: Path, height: Any, width: Any) -> tuple[int, int] | None:
    if height is None and width is None:
        return None
    if not all(type(side) is int and 0 < side < 2**20 for side in (height, width)):
        raise DataError(f"{path}: a picture of {width!r:.20}x{height!r:.20}; expected its width and height in pixels")
    return height, width


# JSON ----------------------------------------------------------------------------------------------------------------


def read_any_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file of annotations."""
    with data_errors():
        return read_json(path, most=MOST_BYTES, what="annotations of labelme or COCO")


def is_labelme(found: Mapping[str, Any]) -> bool:
    """Return whether the parsed JSON is one picture's polygons by labelme."""
    return isinstance(found.get("shapes"), list) and "imagePath" in found


def is_coco(found: Mapping[str, Any]) -> bool:
    """Return whether the parsed JSON is a data set in COCO's form."""
    return all(isinstance(found.get(key), list) for key in ("images", "annotations", "categories"))


def read_labelme(path: Path, found: Mapping[str, Any]) -> Drawn:
    """Return the picture that one labelme file describes."""
    name, shapes, groups = found["imagePath"], [], set()
    if not isinstance(name, str) or not name:
        raise DataError(f"{path}: imagePath is {name!r:.60}; expected the name of a picture")
    if len(found["shapes"]) > MOST_OF_A_PICTURE:
        raise DataError(f"{path}: {len(found['shapes'])} shapes; expected at most {MOST_OF_A_PICTURE}")
    for place, shape in enumerate(found["shapes"], start=1):
        if not isinstance(shape, dict):
            raise DataError(f"{path}: shape {place} is {type(shape).__name__}; expected an object")
        kind = shape.get("shape_type") or "polygon"
        if not isinstance(kind, str):
            raise DataError(f"{path}: shape {place} is of kind {kind!r:.40}; expected a word such as polygon")
        if shape.get("group_id") is not None:
            groups.add(str(shape["group_id"]))
        draw = partial(drawing.draw_labelme, kind, shape.get("points"), picture=shape.get("mask"))
        shapes.append(Shape(_label(path, shape.get("label")), draw))
    size = _size(path, found.get("imageHeight"), found.get("imageWidth"))
    return Drawn(path, name, size, tuple(shapes), len(groups), bool(found.get("imageData")))


def embedded_picture(path: Path) -> tuple[bytes, str]:
    """Return the bytes of the photograph that labelme has put into its file, and their suffix.

    Only the first bytes are looked at. `opened` checks the rest, as it does for any file.
    """
    data = read_any_json(path).get("imageData")
    try:
        if not isinstance(data, str) or len(data) > MOST_BYTES:
            raise ValueError("no text")
        content = base64.b64decode("".join(data.split()), validate=True)
    except ValueError as error:
        raise DataError(
            f"{path}: imageData is {data!r:.40}, no base64 ({error}); expected a JPEG or PNG; put the picture beside it"
        ) from error
    kinds = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png"}
    suffix = next((suffix for begin, suffix in kinds.items() if content.startswith(begin)), "")
    if not suffix:
        raise DataError(
            f"{path}: imageData begins with {content[:8]!r}; expected a JPEG or PNG; put the picture beside it"
        )
    return content, suffix


def read_coco(path: Path, found: Mapping[str, Any]) -> tuple[list[str], list[Drawn]]:
    """Return the categories in the order of their ids, and the pictures of one COCO file.

    Crowds are painted first, then single things in the order of the file.
    """
    names = {}
    for category in found["categories"]:
        number = _id(path, "category", category)
        names[number] = _label(path, category.get("name"))
    images = {}
    for image in found["images"]:
        number = _id(path, "image", image)
        if number in images or not isinstance(image.get("file_name"), str):
            raise DataError(f"{path}: image {number} is there twice or has no file_name; expected one of each")
        images[number] = image
    shapes: dict[int, list[tuple[bool, Shape]]] = {number: [] for number in images}
    if len(found["annotations"]) > MOST_SHAPES:
        raise DataError(f"{path}: {len(found['annotations'])} annotations; expected at most {MOST_SHAPES}")
    for annotation in found["annotations"]:
        number = _id(path, "annotation", annotation)
        category, image_id = annotation.get("category_id"), annotation.get("image_id")
        if not (type(category) is int and category in names and type(image_id) is int and image_id in images):
            where = f"category {category!r:.20}, image {image_id!r:.20}"
            raise DataError(f"{path}: annotation {number} is of {where}; expected ids that the file lists")
        draw = partial(_coco_shape, annotation.get("segmentation"), annotation.get("bbox"))
        shapes[image_id].append((not annotation.get("iscrowd"), Shape(names[category], draw)))
    drawn = []
    for number, image in images.items():
        size = _size(path, image.get("height"), image.get("width"))
        ordered = tuple(shape for _, shape in sorted(shapes[number], key=lambda pair: pair[0]))
        drawn.append(Drawn(path, image["file_name"], size, ordered))
    return [names[number] for number in sorted(names)], drawn


def _id(path: Path, what: str, entry: Any) -> int:
    number = entry.get("id") if isinstance(entry, dict) else None
    if type(number) is not int:
        raise DataError(f"{path}: an entry of {what}s without an id; expected a whole number in each; export it again")
    return number


def _coco_shape(segmentation: Any, bbox: Any, size: drawing.Size) -> np.ndarray:
    if isinstance(segmentation, dict):
        return _coco_runs(segmentation, size)
    if not isinstance(segmentation, list):
        raise DataError(f"a segmentation is {type(segmentation).__name__}; expected polygons or run lengths")
    if not segmentation:
        raise DataError(f"has only a box ({bbox!r:.60}); expected a polygon or run lengths; export segmentation")
    mask = np.zeros(size, bool)
    for part in segmentation if isinstance(segmentation[0], list) else [segmentation]:
        mask |= drawing.draw_coco(drawing.points_of(part, least=3), size)
    return mask


def _coco_runs(segmentation: Mapping[str, Any], size: drawing.Size) -> np.ndarray:
    counts, own = segmentation.get("counts"), segmentation.get("size")
    if own != list(size):
        raise DataError(f"run lengths for {own!r:.40}; expected those of its picture, {list(size)} (height, width)")
    if isinstance(counts, str):
        if len(counts) > 8 * (size[0] * size[1] + 1):
            raise DataError(f"{len(counts)} letters of run lengths; expected fewer than the picture has pixels")
        counts = drawing.unpacked_runs(counts)
    if not isinstance(counts, list):
        raise DataError(f"run lengths are {type(counts).__name__}; expected a list or text")
    return drawing.draw_runs(counts, size)


# XML -----------------------------------------------------------------------------------------------------------------


def is_cvat(path: Path) -> bool:
    """Return whether an XML file begins as CVAT's "for images" export does, with the tag annotations."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    return re.search(rb"<annotations\b", head) is not None


def read_cvat(path: Path) -> tuple[list[str], list[Drawn]]:
    """Return the labels in the order of the file, and the pictures of one CVAT "for images" XML."""
    reader = _Cvat(path)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = reader.doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path}: {path.stat().st_size} bytes; expected at most {MOST_BYTES}; export in parts")
        with path.open("rb") as file:
            parser.ParseFile(file)
    except expat.ExpatError as error:
        raise DataError(f"{path}: is no XML ({error}); expected CVAT's export for images; export it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected CVAT's export for images") from error
    return reader.labels, reader.pictures


class _Cvat:
    """What the parser calls at each tag; `labels` and `pictures` grow."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.labels: list[str] = []
        self.pictures: list[Drawn] = []
        self._open: list[str] = []
        self._words = ""
        self._image: dict[str, str] = {}
        self._shapes: list[tuple[int, Shape]] = []
        self._count = 0

    def doctype(self, *declaration: object) -> None:
        raise DataError(f"{self.path}: has a document type; expected none, as CVAT exports it; export it again")

    def text(self, words: str) -> None:
        if len(self._words) <= MOST_LABEL:
            self._words += words

    def start(self, tag: str, given: dict[str, str]) -> None:
        self._open.append(tag)
        self._words = ""
        if len(self._open) > 50:
            raise DataError(f"{self.path}: more than 50 tags in one another; expected CVAT's export for images")
        if tag == "image":
            self._image, self._shapes = given, []
        elif "image" in self._open[:-1] and self._open[-2] == "image" and tag != "tag":
            self._count += 1
            if self._count > MOST_SHAPES or len(self._shapes) >= MOST_OF_A_PICTURE:
                raise DataError(f"{self.path}: more than {MOST_OF_A_PICTURE} shapes in a picture; expected fewer")
            order = _whole(self.path, "z_order", given.get("z_order", "0"))
            self._shapes.append(
                (order, Shape(_label(self.path, given.get("label")), _cvat_draw(self.path, tag, given)))
            )

    def end(self, tag: str) -> None:
        self._open.pop()
        if tag == "name" and self._open[-1:] == ["label"] and len(self.labels) <= VOID:
            self.labels.append(_label(self.path, self._words))
        if tag == "image":
            height, width = (_whole(self.path, side, self._image.get(side, "")) for side in ("height", "width"))
            shapes = tuple(shape for _, shape in sorted(self._shapes, key=lambda pair: pair[0]))
            name = self._image.get("name", "")
            self.pictures.append(Drawn(self.path, name, _size(self.path, height, width), shapes))


def _whole(path: Path, what: str, text: str) -> int:
    if not re.fullmatch(r"-?\d{1,9}", text, re.ASCII):
        raise DataError(f"{path}: {what} is {text!r:.40}; expected a whole number")
    return int(text)


def _cvat_draw(path: Path, tag: str, given: Mapping[str, str]) -> Draw:
    """Return how a shape of CVAT is filled: as its exports do, like polygons of COCO's tools; masks as they are."""

    def number(what: str, usual: str = "") -> float:
        text = given.get(what, usual)
        if not re.fullmatch(r"-?\d{1,6}(\.\d{1,20})?", text, re.ASCII):
            raise DataError(f"{path}: {what} of a {tag} is {text!r:.40}; expected a number of pixels")
        return float(text)

    if tag == "polygon":
        text = given.get("points", "")
        if not re.fullmatch(r"[-\d.,; ]*", text, re.ASCII) or text.count(";") > drawing.MAX_POINTS:
            raise DataError(f"{path}: points of a polygon are {text!r:.40}; expected x,y;x,y;...")
        try:
            flat = [float(value) for point in text.split(";") for value in point.split(",")]
        except ValueError:
            raise DataError(f"{path}: points of a polygon are {text!r:.40}; expected x,y;x,y;...") from None
        return lambda size: drawing.draw_coco(drawing.points_of(flat, least=3), size)
    if tag == "mask":
        place = [_whole(path, what, given.get(what, "")) for what in ("top", "left", "height", "width")]
        counts = given.get("rle", "")
        return lambda size: _cvat_mask(counts, place, size)
    if tag == "box":
        corners = drawing.box(*(number(what) for what in ("xtl", "ytl", "xbr", "ybr")))
    elif tag == "ellipse":
        corners = drawing.ellipse(*(number(what) for what in ("cx", "cy", "rx", "ry")))
    else:
        return lambda size: _refuse(f"is a {tag:.40}; expected polygon, box, ellipse or mask; remove it in CVAT")
    corners = drawing.turned(corners, number("rotation", "0"))
    return lambda size: drawing.draw_coco(corners, size)


def _cvat_mask(text: str, place: Sequence[int], size: drawing.Size) -> np.ndarray:
    """Return the mask of run lengths, row by row, of a box within the picture."""
    top, left, height, width = place
    inside = 0 <= top <= top + height <= size[0] and 0 <= left <= left + width <= size[1]
    if not inside or not re.fullmatch(r"\s*\d{1,9}(\s*,\s*\d{1,9})*\s*", text, re.ASCII):
        raise DataError(f"a mask at {place} of {text!r:.40}; expected run lengths of a box within {size}")
    mask = np.zeros(size, bool)
    counts = [int(count) for count in text.split(",")]
    mask[top : top + height, left : left + width] = drawing.draw_runs(counts, (height, width), by_columns=False)
    return mask


def _refuse(why: str) -> np.ndarray:
    raise DataError(why)
