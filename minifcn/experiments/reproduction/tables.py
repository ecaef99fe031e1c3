"""The trained tables of the paper as data: rows, numbers and claims.

Numbers of the paper are per cent, as it prints them. They are its own (CVPR 2015, arXiv v2) or those measured on the
released nets; where the text could not be checked they carry a dagger, and no verdict is about the numbers: a claim is
about an order, (text, cell a, cell b, measure), and holds if a is the greater in every seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from minifcn.errors import UsageError
from minifcn.experiments.reproduction.cells import FINER, MOMENTUM, SGD_LR, SUMMED_LR
from minifcn.experiments.reproduction.results import MEASURES, Result
from minifcn.experiments.reproduction.verdict import EQUAL, GREATER, Verdict, mean_and_spread, verdict

FOUR = ("pixel_accuracy", "mean_accuracy", "mean_iu", "frequency_weighted_iu")
DAGGER = "†"  # behind a number that is quoted from memory and could not be checked against the text

Results = Mapping[tuple[str, int], Result]
"""Of each cell and seed that is finished."""


@dataclass(frozen=True)
class Row:
    """What a row is called, the cell it comes from, and what the paper has there, a text for each column."""

    name: str
    cell: str
    paper: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """ "The measure of cell a is greater than that of cell b", or, if it says so, "equal to"."""

    text: str
    a: str
    b: str
    measure: str = "mean_iu"
    says: str = GREATER
    gain: tuple[str, ...] = ()  # two more cells: then it is the gain a - b that is greater than theirs

    def differences(self, results: Results, seeds: Sequence[int]) -> list[float]:
        """Return a - b for each seed, less the gain to compare with; NaN where one of them is missing."""

        def gain(cells: Sequence[str], seed: int) -> float:
            a, b = (value(results, cell, seed, self.measure) for cell in cells)
            return a - b

        return [gain((self.a, self.b), s) - (gain(self.gain, s) if self.gain else 0.0) for s in seeds]

    def verdict(self, results: Results, seeds: Sequence[int]) -> Verdict:
        """Return what the differences say."""
        return verdict(self.differences(results, seeds), says=self.says)


@dataclass(frozen=True)
class Table:
    """A table of the paper beside ours: `name` is its word on the command line, `paper` where the paper has it."""

    name: str
    title: str
    paper: str
    differs: str
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...]
    columns: tuple[str, ...] = FOUR
    curves: bool = False  # draw the training loss, too

    @property
    def cells(self) -> list[str]:
        """The cells it needs, each once."""
        claimed = [cell for claim in self.claims for cell in (claim.a, claim.b, *claim.gain)]
        return list(dict.fromkeys([*(row.cell for row in self.rows), *claimed]))


def value(results: Results, cell: str, seed: int, measure: str) -> float:
    """Return one number; NaN if its cell has not been run from this seed."""
    result = results.get((cell, seed))
    return math.nan if result is None else MEASURES[measure][1](result)


def summary(results: Results, cell: str, seeds: Sequence[int], measure: str) -> tuple[float, float]:
    """Return mean and spread over the seeds that have a number."""
    values = [value(results, cell, seed, measure) for seed in seeds]
    return mean_and_spread([v for v in values if math.isfinite(v)])


def chosen(words: Sequence[str], also: Sequence[str] = ()) -> list[str]:
    """Return the names of the wanted tables (without words, of all) in the page's order; `also` names other parts."""
    known = [*also, *TABLES]
    for word in words:
        if word not in known:
            raise UsageError(f"table {word!r:.60} does not exist; there are {', '.join(known)}")
    return [name for name in known if name in words or not words]


_TABLES = (
    Table(
        "trunks",
        "Which classifier is the trunk",
        "CVPR table 1, on the validation set of PASCAL VOC 2011",
        "FCN-32s, scenes of 160 x 160; each trunk, thinned to about the same cost, has learned to name single objects "
        "of the world in place of ImageNet; AlexNet and GoogLeNet have a wide border, VGG none; a few hundred steps in "
        "place of 175 epochs.",
        (
            Row("FCN-AlexNet", "fcn32s-alexnet", ("39.8",)),
            Row("FCN-VGG", "fcn32s", ("56.0",)),
            Row("FCN-GoogLeNet", "fcn32s-googlenet", ("42.5",)),
        ),
        (
            Claim("VGG is better than AlexNet", "fcn32s", "fcn32s-alexnet"),
            Claim("VGG is better than GoogLeNet", "fcn32s", "fcn32s-googlenet"),
            Claim("GoogLeNet is better than AlexNet", "fcn32s-googlenet", "fcn32s-alexnet"),
        ),
        ("mean_iu",),
    ),
    Table(
        "strides",
        "Finer strides",
        "CVPR table 2, on a subset of the validation set of PASCAL VOC 2011",
        f"scenes of 160 x 160; FCN-16s and FCN-8s learn with {FINER:g} times the rate, not with a hundredth of it; the "
        "last row is a control that the paper does not have: FCN-32s that learns as long as FCN-16s.",
        (
            Row("FCN-32s-fixed", "fcn32s-fixed", ("83.0", "59.7", "45.4", "72.0")),
            Row("FCN-32s", "fcn32s", ("89.1", "73.3", "59.4", "81.4")),
            Row("FCN-16s", "fcn16s", ("90.0", "75.7", "62.4", "83.0")),
            Row("FCN-8s", "fcn8s", ("90.3", "75.9", "62.7", "83.2")),
            Row("FCN-32s, trained on", "fcn32s-longer"),
        ),
        (
            Claim("fine-tuning all layers is better than the last alone", "fcn32s", "fcn32s-fixed"),
            Claim("FCN-16s is better than FCN-32s", "fcn16s", "fcn32s"),
            Claim("FCN-8s is better than FCN-16s", "fcn8s", "fcn16s"),
            Claim("FCN-16s is better than an FCN-32s that learned as long", "fcn16s", "fcn32s-longer"),
        ),
    ),
    Table(
        "finest",
        "Finer than FCN-8s",
        "CVPR section 4.2: FCN-8s gains 0.3 mean IU over FCN-16s, which gains 3.0 over FCN-32s; there fusion meets "
        "diminishing returns, and lower layers are not fused; no numbers",
        "scenes of 160 x 160; FCN-4s (with pool2), FCN-2s (with pool2 and pool1) and FCN-8s, trained on, each begin "
        "with the same FCN-8s and learn as long, for a stage of training is a gain by itself. The paper built neither; "
        "that both are no gain at all is more than it says.",
        (
            Row("FCN-16s", "fcn16s"),
            Row("FCN-8s", "fcn8s"),
            Row("FCN-8s, trained on", "fcn8s-longer"),
            Row("FCN-4s", "fcn4s"),
            Row("FCN-2s", "fcn2s"),
        ),
        (
            Claim("FCN-8s gains more over FCN-16s than FCN-4s over FCN-8s", "fcn8s", "fcn16s", gain=("fcn4s", "fcn8s")),
            Claim("FCN-4s and an FCN-8s that learned as long are equally good", "fcn4s", "fcn8s-longer", says=EQUAL),
            Claim("FCN-2s and an FCN-8s that learned as long are equally good", "fcn2s", "fcn8s-longer", says=EQUAL),
        ),
    ),
    Table(
        "pool4",
        "Fusion, or pool4 alone",
        "TPAMI table 3, FCN-16s and FCN-32s measured from the released weights; CVPR section 4.2: learning from pool4 "
        "alone performs poorly; no numbers there",
        "scenes of 160 x 160; all three in two stages, as long and at the same rates; FCN-pool4 is an FCN-16s whose "
        "coarse score stays zero.",
        (
            Row("FCN-16s, fused", "fcn16s", ("91.0", "78.1", "65.0", "84.3")),
            Row("FCN-32s, trained on", "fcn32s-longer", ("90.5", "76.5", "63.6", "83.5")),
            Row("FCN-pool4", "pool4-longer", ("78.7†", "31.7†", "22.4", "67.0†")),
        ),
        (
            Claim("fusion is better than pool4 alone", "fcn16s", "pool4-longer"),
            Claim("the last layer alone is better than pool4 alone", "fcn32s-longer", "pool4-longer"),
        ),
    ),
    Table(
        "stitching",
        "Shift-and-stitch or upsampling",
        "CVPR sections 3.2 and 4.2: learning through upsampling is more effective and efficient than shift-and-stitch, "
        "whose improvement costs more than that of layer fusion; no numbers",
        "scenes of 160 x 160; \"coarse\" learned without upsampling, from the label at the middle of each cell, in as "
        "many steps as FCN-32s; \"trained on\" as long as FCN-16s. \"Stitched\": each pixel has an answer of its own "
        "from rarefied filters, which is shift-and-stitch in one run, and within half a cell of the border the nearest "
        "one, for about 300 times the multiply-adds of FCN-32s or FCN-16s.",
        (
            Row("FCN-32s, upsampling fixed", "fcn32s"),
            Row("FCN-32s, upsampling learned", "fcn32s-learned"),
            Row("coarse, upsampled", "fcn32s-coarse"),
            Row("coarse, stitched", "fcn32s-coarse-stitched"),
            Row("FCN-32s, trained on, upsampled", "fcn32s-longer"),
            Row("FCN-32s, trained on, stitched", "fcn32s-longer-stitched"),
            Row("FCN-16s, fused", "fcn16s"),
        ),
        (
            Claim("learning through upsampling is better than shift-and-stitch", "fcn32s-learned",
                  "fcn32s-coarse-stitched"),
            Claim("layer fusion is better than shift-and-stitch", "fcn16s", "fcn32s-longer-stitched"),
        ),
    ),
    Table(
        "staged",
        "In stages or at once",
        "the released nets on seg11valid (TPAMI, measured from the weights)",
        "scenes of 160 x 160; FCN-8s at once takes as many steps as the three stages together, and its skips are not "
        "scaled down, since the maps of our trunk hold numbers around 1 and not in the hundreds.",
        (
            Row("FCN-8s in stages", "fcn8s", ("91.2", "77.6", "65.5", "84.5")),
            Row("FCN-8s at once", "fcn8s-at-once", ("91.1", "78.5", "65.4", "84.4")),
        ),
        (Claim("in stages is better than at once", "fcn8s", "fcn8s-at-once"),),
    ),
    Table(
        "fusion",
        "Skips by sum or by maximum",
        "CVPR section 4.2, footnote 6: with the maximum, gradient switching makes learning difficult; no numbers",
        "FCN-16s, each from the same FCN-32s, scenes of 160 x 160.",
        (Row("sum", "fcn16s"), Row("maximum", "fcn16s-max")),
        (Claim("the sum is better than the maximum", "fcn16s", "fcn16s-max"),),
    ),
    Table(
        "upsampling",
        "Upsampling learned or fixed",
        "the paper learns the intermediate upsampling, its released nets fix it and lose nothing; no numbers",
        "FCN-16s, each from the same FCN-32s, scenes of 160 x 160.",
        (Row("fixed, bilinear", "fcn16s"), Row("learned", "fcn16s-learned")),
        (Claim("learned and fixed upsampling are equally good", "fcn16s-learned", "fcn16s", says=EQUAL),),
    ),
    Table(
        "sampling",
        "Sampling the loss",
        "CVPR figure 5, section 4.3: sampling converges no faster by the iteration, and slower by the clock; no table",
        "as many steps for all, in each of which 1/p times as many images lie; the seconds are those of runs that "
        "share a machine.",
        (
            Row("full images", "sampling-100"),
            Row("50 % of the pixels", "sampling-50"),
            Row("25 % of the pixels", "sampling-25"),
        ),
        (
            Claim("50 %: after as many steps the loss is the same", "sampling-50", "sampling-100", "loss", EQUAL),
            Claim("25 %: after as many steps the loss is the same", "sampling-25", "sampling-100", "loss", EQUAL),
            Claim("50 % takes more time", "sampling-50", "sampling-100", "seconds"),
            Claim("25 % takes more time", "sampling-25", "sampling-100", "seconds"),
        ),
        ("mean_iu", "loss", "seconds"),
        curves=True,
    ),
    Table(
        "momentum",
        "Momentum and batch",
        "TPAMI table 2, FCN on VGG-16 after 100,000 images, summed loss",
        f"one fixed sequence of images, by SGD as in the paper; all three with the rate {MOMENTUM['lr']:g} of the "
        "summed loss, whose gradients are averaged over the images of a step, as in Caffe.",
        (
            Row("batch 20, momentum 0.9", "accumulated", ("86.0†", "66.5†", "51.9†", "76.5†")),
            Row("batch 1, momentum 0.9", "online", ("89.3†", "76.2†", "60.7†", "81.8†")),
            Row("batch 1, momentum 0.99", "heavy", ("90.5", "76.5", "63.6", "83.5")),
        ),
        (
            Claim("online is better than accumulated", "online", "accumulated"),
            Claim("heavy momentum is better than light", "heavy", "online"),
        ),
    ),
    Table(
        "normalization",
        "Summed or averaged loss",
        "the recipes of 2015 average and have large rates, those of 2016 sum and have tiny ones; no table",
        f"by SGD as in the paper; rates {SGD_LR:g} for the mean and {SUMMED_LR:.2g} for the sum, whose "
        "steps are as long.",
        (Row("mean over the labelled pixels", "averaged"), Row("sum", "summed")),
        (Claim("at rates that match, both are equally good", "summed", "averaged", says=EQUAL),),
    ),
    Table(
        "balance",
        "Balancing the classes",
        "CVPR section 4.3: three quarters are background, and balancing is unnecessary; no numbers",
        "balanced: a pixel's loss is weighed by one over the frequency of its class.",
        (Row("as they are", "base"), Row("balanced", "balanced")),
        (Claim("balancing does not change mean IU", "balanced", "base", says=EQUAL),),
    ),
    Table(
        "depth",
        "Colour and depth",
        "CVPR table 4, FCN-32s on NYUDv2",
        "the world's own depth, which has no holes and no noise, in place of a "
        "Kinect's, and its logarithm in place of HHA.",
        (
            Row("RGB", "base", ("60.0", "42.2", "29.2", "43.9")),
            Row("RGB-D, early fusion", "rgbd", ("61.5", "42.4", "30.5", "45.5")),
            Row("depth alone (paper: HHA)", "depth", ("57.1", "35.2", "24.2", "40.4")),
            Row("late fusion (paper: RGB-HHA)", "late", ("64.3", "44.9", "32.8", "48.0")),
        ),
        (
            Claim("early fusion is better than colour alone", "rgbd", "base"),
            Claim("colour alone is better than depth alone", "base", "depth"),
            Claim("late fusion is better than colour alone", "late", "base"),
            Claim("late fusion is better than early fusion", "late", "rgbd"),
        ),
    ),
    Table(
        "heads",
        "Two heads on one trunk",
        "CVPR table 5, FCN-16s on SIFT Flow: both heads at once do as well as two nets",
        "the world's geometry (horizontal, vertical, sky) in place of SIFT Flow's.",
        (
            Row("two heads", "two-heads", ("85.2", "51.7", "39.5", "76.1", "94.3")),
            Row("classes alone", "base"),
            Row("geometry alone", "geometry"),
        ),
        (
            Claim("classes: two heads do as well as one", "two-heads", "base", says=EQUAL),
            Claim("geometry: two heads do as well as one", "two-heads", "geometry", "geometry_accuracy", EQUAL),
        ),
        (*FOUR, "geometry_accuracy"),
    ),
    Table(
        "cues",
        "What a net goes by",
        "TPAMI table 8, FCN-32s, mean IU without the background",
        "hidden is what the truth calls so, under the mean colour.",
        (
            Row("reference", "base", ("84.8",)),
            Row("reference, tested on foreground alone", "base-foreground", ("81.0",)),
            Row("reference, tested on background alone", "base-background", ("19.8",)),
            Row("foreground alone", "foreground-only", ("76.1",)),
            Row("background alone", "background-only", ("37.8",)),
            Row("shape alone", "shape", ("29.1",)),
        ),
        (
            Claim("the background helps", "base", "base-foreground", "foreground_iu"),
            Claim(
                "on foregrounds, who learned with backgrounds is better",
                "base-foreground", "foreground-only", "foreground_iu",
            ),
            Claim(
                "on backgrounds, who learned on them is better",
                "background-only", "base-background", "foreground_iu",
            ),
            Claim("the foreground says more than the background", "foreground-only", "background-only",
                  "foreground_iu"),
            Claim("the background says more than shape alone", "background-only", "shape", "foreground_iu"),
        ),
        ("foreground_iu",),
    ),
    Table(
        "augmentation",
        "Mirrored and shifted images",
        "CVPR section 4.3: mirroring and shifts of up to 32 pixels give no noticeable improvement; no numbers",
        "FCN-32s, scenes of 160 x 160, of which 32 pixels are a larger part than of a photograph.",
        (Row("as they are", "fcn32s"), Row("mirrored and shifted", "fcn32s-augmented")),
        (Claim("augmentation does not change mean IU", "fcn32s-augmented", "fcn32s", says=EQUAL),),
    ),
    Table(
        "amount",
        "More training images",
        "CVPR section 4.3: the images of SBD raise FCN-VGG16 from 56.0 to 59.4 mean IU",
        "as many steps for all.",
        (
            Row("a quarter of the images", "quarter"),
            Row("half of the images", "half"),
            Row("all images", "base"),
        ),
        (
            Claim("half is better than a quarter", "half", "quarter"),
            Claim("all are better than half", "base", "half"),
        ),
    ),
    Table(
        "pretraining",
        "A trunk that has learned to classify",
        "CVPR section 4.1: every net begins with a classifier's weights; none was trained without; no numbers",
        "the trunk has learned to name single objects of the world.",
        (Row("random weights", "base"), Row("a classifier's weights", "base-pretrained")),
        (Claim("a classifier's weights are a better start than random ones", "base-pretrained", "base"),),
    ),
)  # fmt: skip

TABLES: dict[str, Table] = {table.name: table for table in _TABLES}
