"""Write the embedded world as files in the layout of PASCAL VOC.

    JPEGImages/train-000000.jpg             the pictures
    SegmentationClass/train-000000.png      their masks: PNGs of class indices, 255 void
    ImageSets/Segmentation/train.txt        which names belong to which split, one per line
    class_names.txt                         line i is the name of class i

`minifcn data make DIR` calls this; `VOCSegmentation(DIR)` reads it back.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from minifcn.data.files import write_image, write_mask
from minifcn.data.shapes import CLASSES, Shapes
from minifcn.data.voc import IMAGES, MASKS, SPLITS
from minifcn.errors import UsageError
from minifcn.formats.checkpoint import replace_file
from minifcn.formats.limits import path_of


def make_tree(
    folder: str | os.PathLike[str], *, counts: Mapping[str, int], size: int | tuple[int, int] = 160, seed: int = 0
) -> Path:
    """Write `counts[split]` pictures of each split and return the folder, which must be new or empty.

    The list of a split is written after its pictures, so a list never names a picture that is not there. Pictures are
    JPEG (quality 95) and therefore close to what `Shapes` gives; masks are exact. Raises UsageError.
    """
    root = path_of(folder)
    splits = {split: Shapes(split, count=count, size=size, seed=seed) for split, count in counts.items()}
    with new_tree(root, "the embedded world"):
        for split, world in splits.items():
            for sample in world:
                write_image(root / IMAGES / f"{sample.id}.jpg", sample.image)
                write_mask(root / MASKS / f"{sample.id}.png", sample.label)
            write_lines(root / SPLITS / f"{split}.txt", world.ids)
        write_lines(root / "class_names.txt", CLASSES)
    return root


@contextlib.contextmanager
def new_tree(root: Path, what: str) -> Iterator[None]:
    """Make the empty folders of a VOC tree for `what`; UsageError if `root` is not new or cannot be written to.

    Inside, an OSError becomes a UsageError that names the file, or else the folder.
    """
    try:
        if root.exists() and any(root.iterdir()):
            raise UsageError(f"{root}: is not empty; choose a new folder for {what}")
        root.mkdir(parents=True, exist_ok=True)
        for part in (IMAGES, MASKS, SPLITS):
            (root / part).mkdir(parents=True)
        yield
    except OSError as error:
        raise UsageError(
            f"{error.filename or root}: cannot be written ({error.strerror}); choose another folder"
        ) from error


def copy_file(source: Path, target: Path) -> None:
    """Copy a file of data, entirely or not at all."""
    replace_file(target, [source.read_bytes()], sync=False)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Text that is the same bytes on every system."""
    replace_file(path, [f"{line}\n".encode() for line in lines], sync=False)
