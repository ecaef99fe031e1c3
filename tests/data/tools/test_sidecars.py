"""Files with class names and colours, as people keep them beside their masks: read, or named with the reason."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_importing import brought, coloured, masks, photos, truth

from minifcn.data.tools.check import check
from minifcn.data.tools.importing import recognise
from minifcn.data.tools.sidecars import find_sidecar, read_sidecar
from minifcn.errors import DataError

COLOURS = {0: 0x000000, 1: 0x112233, 2: 0x445566}
NAMES = ("bg", "car", "road")
RGB = {"bg": [0, 0, 0], "car": [17, 34, 51], "road": [68, 85, 102]}

NUMBERED: dict[str, tuple[str, Any]] = {
    "value after the name": ("labels.csv", "label,value\nbg,0\ncar,1\nroad,2\n"),
    "value after the name, unsorted": ("labels.csv", "label;value\nroad;2\nbg;0\ncar;1\n"),
    "without a head": ("labels.csv", "bg,0\ncar,1\nroad,2\n"),
    "class is the number": ("classes.csv", "class,name\n0,bg\n1,car\n2,road\n"),
    "name and id": ("labels.tsv", "Name\tId\tnote\nroad\t2\tgrey\nbg\t0\tx\ncar\t1\ty\n"),
    "colons": ("classes.txt", "bg: 0\ncar: 1\nroad: 2\n"),
    "spaces": ("class_names.txt", "bg 0\ncar 1\nroad 2\n"),
    "one column with a head": ("classes.csv", "class_name\nbg\ncar\nroad\n"),
    "pixel value": ("_classes.csv", "Pixel Value, Class\n0, bg\n1, car\n2, road\n"),
    "list": ("classes.json", ["bg", "car", "road"]),
    "object of a list": ("classes.json", {"classes": ["bg", "car", "road"], "version": 1}),
    "label map": ("label_map.json", {"road": 2, "bg": 0, "car": 1}),
    "id2label": ("id2label.json", {"2": "road", "0": "bg", "1": "car"}),
    "in an object": ("label_map.json", {"label_map": {"bg": 0, "car": 1, "road": 2}}),
    "objects": ("classes.json", [{"id": 2, "name": "road"}, {"id": 0, "name": "bg"}, {"id": 1, "name": "car"}]),
    "categories": ("categories.json", {"categories": [{"id": n, "name": name} for n, name in enumerate(NAMES)]}),
}
COLOURED: dict[str, tuple[str, Any]] = {
    "class_dict_seg.csv": ("class_dict_seg.csv", "name, r, g, b\nbg, 0, 0, 0\ncar, 17, 34, 51\nroad, 68, 85, 102\n"),
    "colors.csv": ("colors.csv", "class;color\nbg;#000000\ncar;#112233\nroad;#445566\n"),
    "colors.txt": ("colors.txt", "bg 0 0 0\ncar 17 34 51\nroad 68 85 102\n"),
    "hex": ("colors.txt", "#000000 bg\n#112233 car\n#445566 road\n"),
    "classes_colors.csv": ("classes_colors.csv", "id,name,R,G,B\n0,bg,0,0,0\n1,car,17,34,51\n2,road,68,85,102\n"),
    "without a head": ("classes_colors.csv", "0,bg,0,0,0\n1,car,17,34,51\n2,road,68,85,102\n"),
    "palette.csv": ("palette.csv", 'name,rgb\nbg,"(0, 0, 0)"\ncar,"(17, 34, 51)"\nroad,"(68, 85, 102)"\n'),
    "classes.json": ("classes.json", RGB),
    "hex in json": ("label_map.json", {"bg": "#000000", "car": "#112233", "road": "#445566"}),
    "colour to name": ("classes.json", {"#000000": "bg", "#112233": "car", "68,85,102": "road"}),
    "objects": ("labels.json", {"labels": [{"name": name, "color": rgb} for name, rgb in RGB.items()]}),
    "objects by number": ("classes.json", {str(n): {"name": name, "color": RGB[name]} for n, name in enumerate(NAMES)}),
    "supervisely": (
        "obj_class_names.json",
        {"classes": [{"title": n, "color": "#" + bytes(c).hex()} for n, c in RGB.items()]},
    ),
}


def write(path: Path, content: Any) -> None:
    path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize("kind", NUMBERED)
def test_names_of_numbers(kind: str, tmp_path: Path) -> None:
    """Each is read to its last class, and none is moved by one."""
    photos(tmp_path / "mine")
    masks(tmp_path / "mine", "masks/{}.png", lambda name: truth(name, (0, 1, 2)))
    name, content = NUMBERED[kind]
    write(tmp_path / "mine" / name, content)
    found, data = brought(tmp_path / "mine", tmp_path / "new")
    assert data.classes == NAMES and f"named in {name}" in found.why and found.sure
    assert np.array_equal(data[0].label, truth("a", (0, 1, 2)))
    assert not any(name in note for note in found.notes)


@pytest.mark.parametrize("kind", COLOURED)
def test_names_of_colours(kind: str, tmp_path: Path) -> None:
    photos(tmp_path / "mine")
    masks(tmp_path / "mine", "masks/{}.png", lambda name: coloured(truth(name, (0, 1, 2)), COLOURS))
    name, content = COLOURED[kind]
    write(tmp_path / "mine" / name, content)
    found, data = brought(tmp_path / "mine", tmp_path / "new")
    assert data.classes == NAMES and f"colours named in {name}" in found.why and found.sure
    assert np.array_equal(data[0].label, truth("a", (0, 1, 2)))


def test_colours_and_names_in_two_files(tmp_path: Path) -> None:
    """A line is a number's colour, or its name."""
    photos(tmp_path / "mine")
    masks(tmp_path / "mine", "masks/{}.png", lambda name: coloured(truth(name, (0, 1, 2)), COLOURS))
    write(tmp_path / "mine" / "colors.txt", "0 0 0\n17 34 51\n68 85 102\n")
    assert recognise(tmp_path / "mine").classes == ("class 0", "class 1", "class 2")
    write(tmp_path / "mine" / "names.txt", "bg\ncar\nroad\n")
    found, data = brought(tmp_path / "mine", tmp_path / "new")
    assert data.classes == NAMES and np.array_equal(data[0].label, truth("a", (0, 1, 2)))
    assert "the colours are those of colors.txt, the names those of names.txt" in found.notes


UNUSED: dict[str, tuple[str, Any, str]] = {
    "table of pictures": ("labels.csv", "file,width\na.png,7\nb.png,8\n", "found 'a.png', a picture; expected class"),
    "table of other things": ("labels.csv", "bg,0,x\ncar,1,y\n", "found 'bg,0,x'; expected a table with the columns"),
    "colours of words": ("colors.csv", "bg,black\ncar,red\n", "expected a table with the columns name and value"),
    "json of other things": ("classes.json", {"bg": True, "car": None}, "expected a list of names, names by number"),
    "json of a number": ("classes.json", 7, "expected a list of names"),
    "broken json": ("classes.json", "{", "is not JSON"),
    "colour out of range": ("classes.json", {"bg": [0, 0, 300]}, r"a colour \[0, 0, 300\]; expected three numbers"),
    "yaml": ("classes.yaml", "names: [bg, car]", ".yaml is not read; expected .txt"),
    "long line": ("classes.txt", "x" * 501, "a line of 501 letters"),
    "too many": ("labels.txt", "x\n" * 1001, "1001 lines; expected at most 1000"),
}


@pytest.mark.parametrize("kind", UNUSED)
def test_what_is_not_understood_is_named(kind: str, tmp_path: Path) -> None:
    photos(tmp_path / "mine")
    masks(tmp_path / "mine", "masks/{}.png", lambda name: truth(name, (0, 1, 2)))
    name, content, says = UNUSED[kind]
    write(tmp_path / "mine" / name, content)
    found = recognise(tmp_path / "mine")
    (note,) = [note for note in found.notes if name in note]
    assert found.classes == ("class 0", "class 1", "class 2") and "not used" in note
    with pytest.raises(AssertionError if name.endswith("yaml") else DataError, match=says):
        read_sidecar(tmp_path / "mine" / name)
        raise AssertionError(note)


def test_of_two_lists_the_other_is_named(tmp_path: Path) -> None:
    photos(tmp_path / "mine")
    masks(tmp_path / "mine", "masks/{}.png", lambda name: truth(name, (0, 1, 2)))
    write(tmp_path / "mine" / "classes.txt", "sky\nsea\nland\n")
    write(tmp_path / "mine" / "labels.txt", "bg\ncar\nroad\n")
    found = recognise(tmp_path / "mine")
    assert found.classes == ("sky", "sea", "land")
    assert "labels.txt: its 3 names are not used, but those of classes.txt" in found.notes


def test_a_list_that_fits_no_mask_is_named(tmp_path: Path) -> None:
    photos(tmp_path / "mine", "JPEGImages/{}.jpg")
    voc = {0: 0, 1: 0x804000, 2: 0x400000}
    masks(tmp_path / "mine", "SegmentationClass/{}.png", lambda name: coloured(truth(name, (0, 1, 2)), voc))
    write(tmp_path / "mine" / "classes.txt", "sky\nsea\n")
    found = recognise(tmp_path / "mine")
    assert "VOC's palette" in found.why and any("classes.txt: its 2 names are not used" in note for note in found.notes)


def test_names_that_end_in_numbers_are_names(tmp_path: Path) -> None:
    write(tmp_path / "classes.txt", "lane 1\nlane 2\nlane 3\n")
    assert read_sidecar(tmp_path / "classes.txt").classes == ("lane 1", "lane 2", "lane 3")


def test_annotations_are_no_names(tmp_path: Path) -> None:
    write(tmp_path / "labels.json", {"shapes": [], "imagePath": "a.jpg"})
    assert find_sidecar(tmp_path, [tmp_path / "labels.json"]) == (None, [])


def test_the_check_names_a_list_that_it_does_not_use(tmp_path: Path) -> None:
    photos(tmp_path, "JPEGImages/{}.jpg")
    masks(tmp_path, "SegmentationClass/{}.png", lambda name: Image.fromarray(truth(name)))
    write(tmp_path / "classes.txt", "bg\ncar\nroad\n")
    write(tmp_path / "colors.csv", "bg,black\n")
    notes = " ".join(check(tmp_path).notes)
    assert "classes.txt: not used; the names of classes are read from class_names.txt" in notes
    assert "colors.csv: found 'bg,black'" in notes
