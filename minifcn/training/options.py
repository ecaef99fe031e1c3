"""Every option of a training run.

`Options` is the command line of `minifcn train`, the content of a run's `config.json` and what a checkpoint carries, so
a run can be repeated from any of them. `from_dict` checks options that come from a file.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from minifcn.data.batches import CAFFE
from minifcn.data.inputs import HIDINGS, NYUD, SIFT_FLOW, Inputs, planes_of
from minifcn.errors import UsageError
from minifcn.models.fcn import FUSIONS, UPSAMPLINGS
from minifcn.models.vgg import BLOCKS
from minifcn.models.zoo import NETS, near, trunk_name
from minifcn.ops.loss import NORMALIZATIONS
from minifcn.optim import SCHEDULES
from minifcn.training.ranges import check_choices, check_ranges

MEANS = {"imagenet": CAFFE, "nyud": NYUD, "siftflow": SIFT_FLOW}
OPTIMIZERS = ("sgd", "adam", "muon")
LOSSES = ("cross_entropy", "focal", "dice", "cross_entropy+dice")
BALANCED, CENTRES = "balanced", "centres"
HEADS = ("label", "geometry", "label+geometry")
WORLD = "world"


@dataclass(frozen=True)
class Options:
    """Train a fully convolutional network. Without arguments: FCN-2s on the embedded world, by recipe `world`."""

    recipe: Annotated[
        str,
        "the named set of choices to start from; every other option changes one of them (not given: world, and toy "
        "where other data, another trunk or weights are)",
        "where to start from",
    ] = "toy"
    config: Annotated[str, "take the options of an earlier run from its config.json"] = ""
    resume: Annotated[str, "continue the run in this folder, from its newest good checkpoint"] = ""
    run: Annotated[str, "the run folder to make; by default runs/RECIPE, with a number if that is taken"] = ""
    overfit: Annotated[
        int, "learn only the first so many images, without dropout or augmentation, until they are known: a smoke test"
    ] = 0

    data: Annotated[
        str,
        "the folder of a data set (PASCAL VOC or laid out like it, SBD, NYUDv2, SIFT Flow, PASCAL-Context; it may "
        'begin with $MINIFCN_DATA), or "world"',
        "the images",
    ] = WORLD
    train_data: Annotated[
        str, "another folder for the training split, where the paper learns from SBD and measures on VOC"
    ] = ""
    train_split: Annotated[str, "the split to learn from"] = "train"
    val_split: Annotated[str, "the split to measure on"] = "val"
    hold_out: Annotated[
        int, "learn without so many of the training images, and measure on those: what a recipe may be chosen by"
    ] = 0
    max_train: Annotated[int, "use only the first so many training images (0: all; the world: 2000)"] = 0
    max_val: Annotated[int, "use only the first so many validation images (0: all; the world: 100)"] = 0
    world_size: Annotated[int, "the side of the embedded world's images, 64 to 500 pixels"] = 64
    mean: Annotated[
        str,
        'the mean colour that is taken from the images: "imagenet", "nyud" or "siftflow", as the paper\'s nets have '
        "it, in the place of the one that comes with the weights (or, without weights, of one fitted to the images)",
    ] = ""
    skip_bad: Annotated[
        bool, "leave out images and masks that cannot be used, and count them, instead of refusing the data set"
    ] = False
    inputs: Annotated[
        str,
        'what the net sees: "rgb", "rgbd" (depth as a fourth plane: early fusion), "depth", "hha", or two nets that '
        'vote (late fusion), "rgb+depth" or "rgb+hha"; or a number from 1 to 16, the planes of '
        "multispectral TIFF or .npy images",
    ] = "rgb"
    heads: Annotated[
        str, '"label", "geometry" (the data\'s second labels), or "label+geometry": a head for each on one trunk'
    ] = "label"
    hide: Annotated[
        str, 'hide the "background", the "foreground" or "both" by the truth, to see what the net goes by'
    ] = ""

    trunk: Annotated[
        str,
        '"vgg", whose `layers` are counted below, "vgg16", "alexnet", "googlenet", "squeezenet1.0" ..., or a whole '
        'net, "fcn_resnet50"',
        "the net",
    ] = "vgg"
    init: Annotated[
        str,
        'a file of weights for the trunk, or "imagenet", SqueezeNet\'s that come along; without, they are random. Or '
        'a run of ours, whose whole net goes on learning; for late fusion two, "RUN,RUN"',
    ] = ""
    freeze: Annotated[
        str, 'the parts of the net that do not learn, as "conv1,fire2": much of the work of a step is in the first ones'
    ] = ""
    cache_features: Annotated[
        str,
        "a folder in which to keep what the frozen first stages make of each image, so that they compute it once; runs "
        "may share it, and it grows to 8 GiB at most",
    ] = ""
    stages: Annotated[
        str, 'the strides to train in turn, each net from the one before: "8", or "32,16,8" as in the paper'
    ] = "8"
    layers: Annotated[int, "which VGG is the trunk `vgg`: 11, 13, 16 or 19"] = 11
    width: Annotated[int, "channels of the first block, and all others follow; VGG's own is 64, SqueezeNet's 16"] = 8
    fc: Annotated[int, "channels of VGG's fc6 and fc7, which hold most of its weights (0: 64 times the width)"] = 0
    enlarge: Annotated[int, "let the trunk see the image so many times as large: its strides are divided by that"] = 1
    context: Annotated[bool, "score each cell together with the mean over the whole image, as ParseNet does"] = False
    padding: Annotated[str, '"same", "safe" or a number: the border around the image, 100 in the paper'] = "same"
    dropout: Annotated[float, "the probability of dropout in fc6 and fc7"] = 0.0
    upsampling: Annotated[str, '"fixed", "learned" (between the skips) or "all learned"'] = "fixed"
    fusion: Annotated[str, '"sum", "max" or "concat": how a skip joins the score'] = "sum"
    at_once: Annotated[bool, "scale the skips before they are scored, as the paper's at-once nets do"] = False

    epochs: Annotated[int, "passes over the training images, in each stage", "how it learns"] = 8
    steps: Annotated[int, "steps in each stage, in the place of passes (0: by epochs)"] = 0
    with_replacement: Annotated[
        bool, "draw every image at random from all of them, as the released nets did, instead of each once in a pass"
    ] = False
    batch: Annotated[int, "images in a forward pass; unequal sizes are padded with void"] = 8
    accumulate: Annotated[int, "batches whose gradients make one step (Caffe's iter_size)"] = 1
    optimizer: Annotated[str, '"sgd" (the paper), "adam" or "muon"'] = "sgd"
    lr: Annotated[float, "the learning rate of weights; biases have twice it"] = 0.05
    trunk_lr: Annotated[
        float, "the trunk has the learning rate times this: what is known already needs smaller steps than a new score"
    ] = 1.0
    trunk_bias: Annotated[
        str,
        '"twice": the trunk\'s biases have twice the learning rate and no decay, as Caffe\'s VGG has them; "alike": '
        "as its weights, as CaffeNet has them",
    ] = "twice"
    stage_lr: Annotated[
        str,
        "each stage after the first has the learning rate of the one before times this (the paper: 1/100); or a "
        'factor for each of them, "0.01,1"',
    ] = "0.01"
    schedule: Annotated[str, '"fixed" (the paper), "poly", "step" or "cosine"'] = "poly"
    warmup: Annotated[int, "steps at the start of each stage in which the learning rate rises to that"] = 0
    momentum: Annotated[float, "how much of the last step is kept"] = 0.9
    weight_decay: Annotated[float, "on weights, not on biases"] = 0.0005
    ema: Annotated[
        float,
        "measure and keep an average of the weights, too: how much of it is kept in each step, such as 0.999 (0: none)",
    ] = 0.0
    loss: Annotated[
        str, '"cross_entropy" (the paper), "focal", which counts hard pixels more, "dice" or "cross_entropy+dice"'
    ] = "cross_entropy"
    focal_gamma: Annotated[float, "how much less the focal loss counts a pixel that is right already, from 1"] = 2.0
    sampling: Annotated[
        float | str,
        'the probability with which a pixel counts in the loss: patchwise training; or "balanced": about a quarter of '
        'the pixels, dealt out evenly over the classes of a batch ("balanced:0.1": a tenth); or "centres": the pixel '
        "at the middle of each cell, whose side is the net's stride",
    ] = 1.0
    hardest: Annotated[
        float,
        "of the pixels of each image, only this share counts in the loss: those whose label the net finds least likely",
    ] = 1.0
    class_balance: Annotated[
        float, "classes weigh in the loss as 1/frequency to this power (0: all pixels alike; 1: all classes alike)"
    ] = 0.0
    normalize: Annotated[
        str,
        'the divisor of the loss: "none" (the released nets), "valid" the pixels with a label, "batch_size" the images',
    ] = "valid"
    seed: Annotated[int, "what all random numbers of the run come from"] = 0

    mirror: Annotated[bool, "show every other image mirrored, at random", "what is done to the images"] = True
    translate: Annotated[int, "shift images by up to so many pixels (the paper tried 32)"] = 0
    crop: Annotated[int, "cut a random window of this side (0: the whole image)"] = 0
    scale_min: Annotated[float, "scale images by at least this"] = 1.0
    scale_max: Annotated[float, "and by at most this"] = 1.0
    rotate: Annotated[float, "turn images by up to so many degrees either way; void comes into view"] = 0.0
    jitter: Annotated[
        float, "multiply brightness, contrast and saturation, each by 1 plus or minus up to this: 0.2, for example"
    ] = 0.0

    measure_every: Annotated[int, "epochs between measurements on the validation split", "the run"] = 1
    measure_steps: Annotated[int, "or steps between them (0: by measure_every)"] = 0
    save_every: Annotated[int, "steps between checkpoints, beside those at each measurement (0: none)"] = 0
    stop_after: Annotated[int, "stop after so many steps from here on, as if interrupted (0: at the end)"] = 0
    samples: Annotated[int, "validation images to draw at the end"] = 6
    watch: Annotated[
        bool, "rewrite report.html while the run goes on, too; opened in a browser, it loads itself again"
    ] = False
    device: Annotated[str, '"cpu", "gpu" or "auto"'] = "auto"
    threads: Annotated[int, "threads that compute convolutions (0: one for each core)"] = 0
    workers: Annotated[int, "threads that load the images of the next steps (0: none); the result is the same"] = 1
    on_save_error: Annotated[str, '"stop" or "warn", when a checkpoint cannot be written'] = "stop"
    detect_anomaly: Annotated[bool, "check every layer's output, and name the first that is not finite"] = False

    def __post_init__(self) -> None:
        check_ranges(self, RANGES)
        check_choices(self, CHOICES)
        if not re.fullmatch("[A-Za-z0-9_-]+", self.recipe):
            raise UsageError(f"option recipe is {self.recipe!r:.40}; expected a name, which the run folder gets, too")
        if self.padding not in ("same", "safe") and not re.fullmatch("[0-9]{1,3}", self.padding):
            raise UsageError(f'option padding is {self.padding!r:.40}; expected "same", "safe" or a number up to 999')
        if self.is_whole:
            self._check_whole()
        elif self.padding == "same" and not self.trunk.startswith("vgg"):
            raise UsageError(f'option padding is "same", which {self.trunk} cannot have; expected "safe" or a number')
        if self.fc and not self.trunk.startswith("vgg"):
            raise UsageError(f"option fc is {self.fc}, which {self.trunk} does not have; expected 0")
        if self.scale_min > self.scale_max:
            raise UsageError(f"option scale_min is {self.scale_min}, above scale_max {self.scale_max}")
        seen = Inputs(self.inputs, CAFFE)
        if planes_of(self.inputs) and (self.hide or self.mean or self.jitter):
            raise UsageError(
                f"option inputs is {self.inputs!r}, planes; expected neither `hide` nor `mean` nor `jitter`, of colours"
            )
        if len(seen.parts) > 1 and self.two_heads:
            raise UsageError(
                f"option heads is {self.heads!r:.80} with inputs {self.inputs!r:.80}; expected one net for two heads"
            )
        self.sampled  # noqa: B018  raises what is wrong with sampling
        random = next((name for name in ("crop", "translate", "rotate", "jitter") if getattr(self, name)), "")
        if self.cache_features and (random or self.scale_min != self.scale_max):
            raise UsageError(
                "option cache_features keeps what is computed of an image, which "
                f"{random or 'scale_min below scale_max'} changes at random every time; expected no other augmentation "
                'than mirror, or nothing kept (`cache_features=""`)'
            )
        if self.cache_features and "+" in self.inputs:
            raise UsageError(f"option cache_features is for one net; expected inputs of one, found {self.inputs!r}")
        if "dice" in self.loss and self.normalize != "valid":
            raise UsageError(f'option loss is {self.loss!r}, whose size knows no pixels; expected normalize "valid"')
        if self.loss == "dice" and self.class_balance:
            raise UsageError("option class_balance does nothing with loss dice, in which all classes weigh alike")
        strides = self.strides
        if sorted(set(strides), reverse=True) != list(strides):
            raise UsageError(
                f"option stages is {self.stages!r:.80}; expected strides from coarse to fine, as {self._ladder}"
            )
        self.rates  # noqa: B018  raises what is wrong with stage_lr

    @property
    def is_whole(self) -> bool:
        """Whether `trunk` names a net that is trained as it is, and no trunk to build a ladder on."""
        return NETS[trunk_name(self.trunk, self.layers)].trunk is None

    def _check_whole(self) -> None:
        """Raise `UsageError` for a choice that a net which is trained as it is does not leave."""
        for name in ("padding", "enlarge", "context", "upsampling", "fusion", "at_once", "heads", "cache_features"):
            value, usual = getattr(self, name), getattr(type(self), name)
            if value != usual:
                raise UsageError(f"option {name} is {value!r}, which {self.trunk} cannot have; expected {usual!r}")
        if "+" in self.inputs:
            raise UsageError(f"option inputs is {self.inputs!r}, for two nets on trunks; expected one, as {self.trunk}")

    @property
    def strides(self) -> tuple[int, ...]:
        """The strides to train in turn, as numbers."""
        words = self.stages.split(",")
        if any(word.strip() not in self._ladder.split(",") for word in words):
            raise UsageError(
                f"option stages is {self.stages!r:.80}; expected some of {self._ladder}, from coarse to fine"
            )
        return tuple(int(word) for word in words)

    @property
    def adds_up(self) -> bool:
        """Whether the loss of a batch is the sum of the losses of its parts."""
        return "dice" not in self.loss and self.sampled[0] != BALANCED

    @property
    def sampled(self) -> tuple[str, float]:
        """How the pixels are sampled ("", "balanced" or "centres"), and which part of them it is."""
        if self.sampling == CENTRES:
            if self.padding != "same" or self.enlarge > 1:
                raise UsageError(
                    f"option sampling is {CENTRES} with padding {self.padding!r} and enlarge {self.enlarge}; expected "
                    'padding "same" and enlarge 1, where the cells lie evenly on the image'
                )
            return CENTRES, 1.0
        kind, _, part = str(self.sampling).rpartition(":")
        if part == BALANCED:
            kind, part = BALANCED, "0.25"
        try:
            p = float(part)
        except ValueError:
            p = math.nan
        if kind not in ("", BALANCED) or not 0 < p <= 1:
            raise UsageError(
                f"option sampling is {self.sampling}; expected a probability above 0, at most 1, balanced or centres"
            )
        return kind, p

    @property
    def two_heads(self) -> bool:
        """Whether two kinds of label are learned at once."""
        return "+" in self.heads

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rate of each stage."""
        stages = len(self.strides)
        words = self.stage_lr.split(",")
        try:
            factors = [float(word) for word in words] * (stages if len(words) == 1 else 1)
        except ValueError:
            factors = [math.nan]
        if not all(0 <= factor <= 1e6 for factor in factors) or len(factors) < stages - 1:
            raise UsageError(
                f"option stage_lr is {self.stage_lr!r:.80}; expected a number from 0, or one for each stage after "
                f"the first of {self.stages}, separated by commas"
            )
        return tuple(self.lr * math.prod(factors[:stage]) for stage in range(stages))

    @property
    def _ladder(self) -> str:
        strides = NETS[trunk_name(self.trunk, self.layers)].strides
        return ",".join(str(stride // self.enlarge) for stride in strides if stride % self.enlarge == 0)

    @property
    def frozen(self) -> list[str]:
        """The names in `freeze`."""
        return [name.strip() for name in self.freeze.split(",") if name.strip()]

    def steps_per_epoch(self, images: int) -> int:
        """Return the steps in one pass over so many images."""
        return math.ceil(images / (self.batch * self.accumulate))

    def steps_per_stage(self, images: int) -> int:
        """Return the steps of one stage."""
        return self.steps or self.steps_per_epoch(images) * self.epochs

    def as_dict(self) -> dict[str, Any]:
        """Return the options as JSON has them."""
        return dataclasses.asdict(self)


RANGES = (
    *((name, 0, math.inf) for name in ("hold_out", "max_train", "max_val", "warmup")),
    *((name, 0, math.inf) for name in ("stop_after", "measure_steps", "save_every")),
    ("world_size", 64, 500),
    ("width", 1, 512),
    ("fc", 0, 4096),
    ("dropout", 0.0, 0.99),
    ("enlarge", 1, 4),
    ("epochs", 1, 1_000_000),
    ("steps", 0, 1_000_000_000),
    ("batch", 1, 4096),
    ("accumulate", 1, 4096),
    ("lr", 0.0, 1e6),
    ("trunk_lr", 0.0, 1e6),
    ("momentum", 0.0, 0.9999),
    ("ema", 0.0, 0.99999),
    ("focal_gamma", 1.0, 20.0),
    ("hardest", 0.0001, 1.0),
    ("class_balance", 0.0, 2.0),
    ("weight_decay", 0.0, 1.0),
    ("translate", 0, 4096),
    ("crop", 0, 8192),
    ("scale_min", 0.0625, 16),
    ("scale_max", 0.0625, 16),
    ("rotate", 0.0, 180.0),
    ("jitter", 0.0, 0.9),
    ("seed", 0, 2**63 - 1),
    ("overfit", 0, 10_000),
    ("measure_every", 1, math.inf),
    ("samples", 0, 1000),
    ("threads", 0, 1024),
    ("workers", 0, 256),
)
CHOICES: dict[str, tuple[Any, ...]] = {
    "trunk": ("vgg", *(name for name, net in NETS.items() if net.strides)),
    "heads": HEADS,
    "hide": ("", *HIDINGS),
    "mean": ("", *MEANS),
    "trunk_bias": ("twice", "alike"),
    "optimizer": OPTIMIZERS,
    "layers": tuple(BLOCKS),
    "upsampling": UPSAMPLINGS,
    "fusion": tuple(FUSIONS),
    "schedule": SCHEDULES,
    "loss": LOSSES,
    "normalize": NORMALIZATIONS,
    "device": ("cpu", "gpu", "auto"),
    "on_save_error": ("stop", "warn"),
}


def nearest(name: str, known: Any) -> str:
    """Return what to say of a name that does not exist."""
    return near(name, known) or f"; known are {', '.join(known)}"


NAMED_BEFORE = {"sum": "none", "batch": "batch_size"}
"""What `normalize` was called in older files."""


def from_dict(found: Any, *, source: str | Path) -> Options:
    """Return options out of a file: every key known, every value of its type and in its range, or `UsageError`."""
    if not isinstance(found, Mapping):
        raise UsageError(f"{source}: options are {type(found).__name__}; expected names with values")
    defaults = Options()
    types = {field.name: type(getattr(defaults, field.name)) for field in dataclasses.fields(Options)}
    for name, value in found.items():
        if name not in types:
            raise UsageError(f"{source}: option {name!r:.80} does not exist{nearest(str(name)[:80], types)}")
        wanted = types[name]
        fits = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
        fits = fits or (name == "sampling" and isinstance(value, str))
        if not fits or (isinstance(value, bool) and wanted is not bool) or isinstance(value, np.ndarray):
            raise UsageError(f"{source}: option {name} is {value!r:.100}; expected {wanted.__name__}")
    try:
        values: dict[str, Any] = {n: v if isinstance(v, str) else types[n](v) for n, v in found.items()}
        if before := NAMED_BEFORE.get(values.get("normalize", "")):
            values["normalize"] = before
        return Options(**values)
    except UsageError as fault:
        raise UsageError(f"{source}: {fault}") from fault
