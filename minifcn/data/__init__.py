"""Data sets: pictures whose every pixel carries a class.

A data set here is any object with `.classes` (a tuple of names; the index is the class), `.ids` (a tuple of picture
names), `len(ds)`, and `ds[i]`, which gives a `Sample`. Nothing has to inherit from anything: the embedded world, a
VOC tree and your own class of ten lines serve equally.

`FILES` lists the files of this folder from easy to hard, which is also the order in which they may import each other.
"""

from minifcn.data.augment import Augmentation
from minifcn.data.batches import CAFFE, Preprocessing, Subset, collate
from minifcn.data.sample import VOID, Sample
from minifcn.data.sbd import SBD
from minifcn.data.shapes import Shapes
from minifcn.data.voc import VOC_CLASSES, VOCSegmentation

__all__ = [
    "CAFFE",
    "SBD",
    "VOC_CLASSES",
    "VOID",
    "Augmentation",
    "Preprocessing",
    "Sample",
    "Shapes",
    "Subset",
    "VOCSegmentation",
    "collate",
]

FILES = [
    "sample", "files", "augment", "batches", "inputs", "hha", "things", "shapes", "objects", "make",
    "listed", "voc", "sbd", "digits",
]  # fmt: skip
