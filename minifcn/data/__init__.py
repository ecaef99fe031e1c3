"""Data sets of images in which every pixel has a class.

A data set here is any object with `.classes` (a tuple of names; the index is the class), `.ids` (a tuple of picture
names), `len(ds)`, and `ds[i]`, which gives a `Sample`; `Dataset` (dataset.py) says so in types. Nothing has to inherit
from anything: the embedded world, a VOC tree and your own class of ten lines serve equally.

`FILES` lists the files of this folder from easy to hard, which is also the order in which they may import each other.
"""

from minifcn.data.augment import Augmentation
from minifcn.data.batches import CAFFE, Preprocessing, collate
from minifcn.data.dataset import Dataset, Subset
from minifcn.data.nyud import NYUD, NYUD_CLASSES
from minifcn.data.opening import open_data
from minifcn.data.pascal_context import PASCAL_CONTEXT_CLASSES, PASCALContext
from minifcn.data.sample import VOID, Sample
from minifcn.data.sbd import SBD
from minifcn.data.shapes import Shapes
from minifcn.data.siftflow import SIFT_FLOW_CLASSES, SIFT_FLOW_GEOMETRY, SIFTFlow
from minifcn.data.voc import VOC_CLASSES, VOCSegmentation

__all__ = [
    "CAFFE",
    "NYUD",
    "NYUD_CLASSES",
    "PASCAL_CONTEXT_CLASSES",
    "SBD",
    "SIFT_FLOW_CLASSES",
    "SIFT_FLOW_GEOMETRY",
    "VOC_CLASSES",
    "VOID",
    "Augmentation",
    "Dataset",
    "PASCALContext",
    "Preprocessing",
    "SIFTFlow",
    "Sample",
    "Shapes",
    "Subset",
    "VOCSegmentation",
    "collate",
    "open_data",
]

FILES = (
    "prefetch",
    "sample",
    "palette",
    "files",
    "planes",
    "augment",
    "dataset",
    "batches",
    "inputs",
    "hha",
    "things",
    "shapes",
    "objects",
    "listed",
    "voc",
    "sbd",
    "nyud",
    "siftflow",
    "pascal_context",
    "opening",
    "digits",
    "tools",
)
