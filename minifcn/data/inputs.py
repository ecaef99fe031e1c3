"""Choose a net's inputs: colour, depth or both, with parts hidden if wanted.

Depth can join colour early, as a fourth plane of one image, or late, as the image of a second net that votes with the
first (FCN, section 5 and table 4). A part of the picture can be hidden by its truth, to learn what the net goes by: the
things, what is around them, or their outlines (TPAMI, table 8).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from minifcn.backend import Array, to_device
from minifcn.data.batches import Preprocessing, stacked
from minifcn.data.dataset import Dataset, Wrapper
from minifcn.data.sample import MOST_PLANES, VOID, Sample
from minifcn.errors import DataError, UsageError

NYUD = Preprocessing("BGR", 1.0, (116.190, 97.203, 92.318), (1.0, 1.0, 1.0))
# The reference turns colours to blue first; HHA stays in the order of its file.
HHA = Preprocessing("RGB", 1.0, (132.431, 94.076, 118.477), (1.0, 1.0, 1.0))
SIFT_FLOW = Preprocessing("BGR", 1.0, (114.578, 115.294, 108.353), (1.0, 1.0, 1.0))
LOG_DEPTH = 7.844
"""The mean of the logarithm of NYUDv2's depth in millimetres."""

CHANNELS = {"rgb": 3, "rgbd": 4, "depth": 1, "hha": 3}
INPUTS = (*CHANNELS, "rgb+depth", "rgb+hha")
HIDINGS = ("background", "foreground", "both")


def planes_of(name: str) -> int:
    """Return how many planes inputs of this name have, "5" five; 0 for those that are named otherwise."""
    return int(name) if name in map(str, range(1, MOST_PLANES + 1)) else 0


@dataclass(frozen=True)
class Inputs:
    """The images that the nets of `name` take: one, or for late fusion ("rgb+depth") one for each net.

        rgb      (3, H, W), by `preprocessing`
        rgbd     (4, H, W), the same and the depth below it: early fusion
        depth    (1, H, W), ln(depth in millimetres) - 7.844, and 0 where it is unknown
        5        (5, H, W), the planes of a multispectral image, as many as the number says, 1 to 16
        hha      (3, H, W), HHA less its mean over NYUDv2, divided as `preprocessing` divides the colours

    Raises `UsageError` for a name that is none of `INPUTS`; calling it, `DataError` for a sample without its planes.
    """

    name: str
    preprocessing: Preprocessing

    def __post_init__(self) -> None:
        if self.name not in INPUTS and not planes_of(self.name):
            many = f"or a number of planes, 1 to {MOST_PLANES}"
            raise UsageError(f"option inputs is {self.name!r:.80}; expected one of {', '.join(INPUTS)}, {many}")

    @property
    def parts(self) -> tuple[str, ...]:
        """What each net sees: ("rgb", "depth")."""
        return tuple(self.name.split("+"))

    def __call__(self, sample: Sample) -> list[np.ndarray]:
        """Return one array (C, H, W) float32 for each net."""
        return [self._planes(part, sample) for part in self.parts]

    def pictures(self, sample: Sample) -> list[np.ndarray]:
        """Return the same, but pictures as (3, H, W) uint8, a quarter of the bytes, to be normalized by `on_device`."""
        pictures, found = {"rgb": sample.image, "hha": sample.hha}, []
        for part in self.parts:
            picture = pictures.get(part)
            if picture is None or picture.dtype != np.uint8 or picture.shape[2:] != (3,):
                found.append(self._planes(part, sample))  # which says what is wrong with a picture
            else:
                found.append(picture.transpose(2, 0, 1))
        return found

    def on_device(self, images: Sequence[Array], device: str, *, sizes: Sequence[tuple[int, ...]]) -> list[Array]:
        """Return collated images on `device`, as the nets take them; what is still uint8 is normalized there.

        `sizes` holds the height and width of each picture: what lies outside is padding and becomes zero.
        """
        found = []
        for part, x in zip(self.parts, images, strict=True):
            x, is_picture = to_device(x, device), x.dtype == np.uint8
            if is_picture:
                x = self._look(part).normalized(x)
                for one, (height, width) in zip(range(len(x)), sizes, strict=True):
                    if (height, width) != x.shape[2:]:
                        x[one, :, height:] = 0
                        x[one, :, :, width:] = 0
            found.append(x)
        return found

    def _planes(self, part: str, sample: Sample) -> np.ndarray:
        if count := planes_of(part):
            if sample.planes is None or sample.planes.shape[2] != count:
                found = "no planes" if sample.planes is None else f"{sample.planes.shape[2]} planes"
                raise DataError(f"{sample.id}: has {found}; expected {count}, for inputs {self.name}")
            return self.preprocessing(sample.planes)
        if part == "rgb":
            return self.preprocessing(sample.image)
        if part == "hha":
            if sample.hha is None:
                raise DataError(f"{sample.id}: has no HHA; expected a data set that has it, for inputs {self.name}")
            return self._look(part)(sample.hha)
        if sample.depth is None:
            raise DataError(f"{sample.id}: has no depth; expected a data set that has it, for inputs {self.name}")
        depth = log_depth(sample.depth)[None]
        return depth if part == "depth" else np.concatenate([self.preprocessing(sample.image), depth])

    def _look(self, part: str) -> Preprocessing:
        """Return what happens to a picture, colours or HHA."""
        p = self.preprocessing
        if part != "hha":
            return p
        disparity, height, angle = (value * p.scale for value in HHA.mean)
        spread = float(np.mean(p.std))
        return replace(HHA, scale=p.scale, mean=(disparity, height, angle), std=(spread, spread, spread))


def log_depth(depth: np.ndarray) -> np.ndarray:
    """Return ln(1000 depth) - 7.844 for depth (H, W) in metres, float32; 0, the mean, where depth is unknown (0)."""
    known = depth > 0
    return np.where(known, np.log(np.where(known, depth, 1) * 1000) - LOG_DEPTH, 0).astype(np.float32)


def collate_inputs(
    samples: Sequence[Sample], inputs: Inputs, *, size: tuple[int, int] = (0, 0), device: str = "cpu"
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Return the images for each net (N, C, H, W), the labels (N, H, W) and the second labels, void if there are none.

    Stacked as by `collate`; H and W are at least `size`. For a GPU, pictures stay uint8 until `Inputs.on_device`.
    """
    labels = stacked(samples, [sample.label[None] for sample in samples], VOID, size=size)[:, 0].astype(np.int64)
    second = [np.full_like(s.label, VOID) if s.geometry is None else s.geometry for s in samples]
    geometry = stacked(samples, [plane[None] for plane in second], VOID, size=size)[:, 0].astype(np.int64)
    planes_of_nets = zip(*map(inputs if device == "cpu" else inputs.pictures, samples), strict=True)
    images = [stacked(samples, list(planes), 0, size=size) for planes in planes_of_nets]
    return images, labels, geometry


class Second(Wrapper):
    """A data set with its second labels (geometry) in the place of the first."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset)
        if not self.geometry_classes:
            what = "option heads asks for a second kind of label, and this data set has one alone"
            raise UsageError(f"{what}; expected one with two (SIFT Flow, the embedded world)")
        self.classes, self.geometry_classes = self.geometry_classes, ()

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        if sample.geometry is None:
            raise DataError(f"{sample.id}: has no second labels; expected them, as in the rest of its data set")
        return replace(sample, label=sample.geometry, geometry=None)


class Hidden(Wrapper):
    """A data set whose pictures hide, by their truth, "background" (class 0), "foreground" (all others) or "both".

    What is hidden has the colour `fill`, which is 0 for the net; under "both" the foreground is the opposite colour
    instead, so that nothing but its outline is left. Void pixels are hidden with either. Labels stay as they are, and
    so does depth.
    """

    def __init__(self, dataset: Dataset, what: str, *, fill: tuple[int, int, int]) -> None:
        if what not in HIDINGS:
            raise UsageError(f"option hide is {what!r}; expected one of {', '.join(HIDINGS)}")
        super().__init__(dataset)
        self.what, self.fill = what, fill

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        image, things = sample.image.copy(), (sample.label != 0) & (sample.label != VOID)
        image[~things if self.what == "background" else sample.label != 0] = self.fill
        if self.what == "both":
            image[~things] = self.fill
            image[things] = [0 if value > 127 else 255 for value in self.fill]
        return replace(sample, image=image)
