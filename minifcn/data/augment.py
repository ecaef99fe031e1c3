"""Augmentation: recolour images, and scale, turn, flip, shift and crop them together with their masks.

A picture and its labels must move by exactly as much, or the net learns the edges of things in the wrong place. But the
two are resampled differently: there is a brightness between two others, but no dog between a cat and a sofa. So the
image is interpolated, and every map of labels takes the nearest value.

The paper tried mirroring and shifts of up to 32 pixels and saw no noticeable gain (section 4.3): its net had already
seen a million photographs. A net trained from scratch on a few hundred gains more.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minifcn.data.sample import VOID, Sample
from minifcn.errors import ShapeError, UsageError

IMAGENET_MEAN = (123, 117, 104)
"""The mean colour of ImageNet, red first, as the paper subtracts it, rounded to what a picture can hold."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""How bright red, green and blue are: their part in a grey."""

OUTSIDE = -1
"""In place of a row or column number: here lies nothing of the picture."""

NOTHING: dict[str, Any] = {"label": VOID, "depth": 0, "geometry": VOID, "hha": (0, 0, 0), "planes": np.nan}
"""What each array of a sample but its image has where nothing of the picture lies."""


@dataclass(frozen=True)
class Augmentation:
    """Change a sample at random, in this order: jitter, scale, rotate, mirror, translate, crop.

    `jitter=j` multiplies brightness, contrast and saturation of the image, each by a factor between 1 - j and 1 + j.
    `rotate=d` turns by up to d degrees either way around the middle, the size staying as it is. `scale=(low, high)`
    enlarges by a factor between the two, halving being as likely as doubling. `mirror` swaps left and right every other
    time. `translate=t` shifts by up to t pixels either way along each axis, the size staying as it is. `crop=c` cuts
    out a c x c window; a picture smaller than that is set into it whole, at a random place.

    What comes into view from outside the picture has the colour `fill` (with `Preprocessing.fill` it becomes zero
    for the net), label and geometry 255 (void), depth and HHA 0 (unknown), planes NaN. Depth is not changed by scaling:
    a picture twice as large is one taken with a longer lens, not from nearer by.

    Everything is drawn from the `rng` that is passed in, always the same number of draws, so one seed gives one result.
    """

    mirror: bool = False
    translate: int = 0
    crop: int | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    fill: tuple[int, int, int] = IMAGENET_MEAN
    jitter: float = 0.0
    rotate: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.jitter < 1:
            raise UsageError(f"augmentation jitter={self.jitter}; expected a number from 0, below 1")
        if not 0 <= self.rotate <= 180:
            raise UsageError(f"augmentation rotate={self.rotate}; expected degrees, 0 to 180")
        if self.translate < 0:
            raise UsageError(f"augmentation translate={self.translate}; expected a number of pixels, 0 or more")
        if self.crop is not None and self.crop < 1:
            raise UsageError(f"augmentation crop={self.crop}; expected a number of pixels, or None for no crop")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] <= 16:
            raise UsageError(f"augmentation scale={self.scale}; expected two factors, 0 < low <= high <= 16")
        if len(self.fill) != 3 or not all(0 <= value <= 255 for value in self.fill):
            raise UsageError(f"augmentation fill={self.fill}; expected three values 0..255, red first")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return a new sample; the one given stays as it was."""
        if sample.label.shape != sample.image.shape[:2]:
            raise ShapeError(f"{sample.id}: label {sample.label.shape}; expected that of image {sample.image.shape}")
        factor = float(np.exp(rng.uniform(*np.log(self.scale))))
        flip, down, right, top, left = rng.random(5)
        turn, *colours = rng.uniform(-1, 1, 4)  # after the others, so that these draw what they drew before
        if self.jitter:
            sample = replace(sample, image=_recoloured(sample.image, 1 + self.jitter * np.array(colours)))
        sample = _scaled(sample, factor)
        if self.rotate:
            sample = _rotated(sample, self.rotate * float(turn), self.fill)
        height, width = sample.label.shape
        rows, columns = np.arange(height), np.arange(width)
        if self.mirror and flip < 0.5:
            columns = columns[::-1]
        if self.translate:
            # At least one row and one column stay in view, so that no picture becomes all void.
            far, wide = min(self.translate, height - 1), min(self.translate, width - 1)
            rows = _span(rows, _pick(down, -far, far), height)
            columns = _span(columns, _pick(right, -wide, wide), width)
        if self.crop is not None:
            spare, room = height - self.crop, width - self.crop
            rows = _span(rows, _pick(top, min(0, spare), max(0, spare)), self.crop)
            columns = _span(columns, _pick(left, min(0, room), max(0, room)), self.crop)
        return _gathered(sample, rows, columns, self.fill)


def _pick(uniform: float, low: int, high: int) -> int:
    """Return the integer of low..high, both included, that a number of [0, 1) points at."""
    return low + int(uniform * (high - low + 1))


def _span(index: np.ndarray, start: int, length: int) -> np.ndarray:
    """Return `index[start : start + length]`, with OUTSIDE before the first entry and after the last."""
    place = np.arange(start, start + length)
    there = (place >= 0) & (place < len(index))
    return np.where(there, index[np.clip(place, 0, len(index) - 1)], OUTSIDE)


def _moved(sample: Sample, fill: tuple[int, int, int], move: Callable[[str, np.ndarray, Any], np.ndarray]) -> Sample:
    """Return the sample with `move(name, array, what lies outside)` of each array: all of a pixel moves together."""
    outside, arrays = {"image": fill, **NOTHING}, vars(sample)
    moved: Any = {name: move(name, arrays[name], outside[name]) for name in outside if arrays[name] is not None}
    return replace(sample, **moved)


def _gathered(
    sample: Sample, rows: np.ndarray, columns: np.ndarray, fill: tuple[int, int, int] = IMAGENET_MEAN
) -> Sample:
    """Return the sample at these rows and columns."""
    outside = (rows[:, None] == OUTSIDE) | (columns == OUTSIDE)

    def take(name: str, array: np.ndarray, nothing: Any) -> np.ndarray:
        taken = array.take(rows, axis=0).take(columns, axis=1)
        taken = taken.astype(np.float32) if name == "planes" else taken  # which hold NaN where nothing was measured
        taken[outside] = nothing
        return taken

    return _moved(sample, fill, take)


def _scaled(sample: Sample, factor: float) -> Sample:
    """Return the sample enlarged by `factor`: the image interpolated, the rest at the nearest pixel."""
    from PIL import Image

    height, width = sample.label.shape
    new_height, new_width = max(1, round(height * factor)), max(1, round(width * factor))
    if (new_height, new_width) == (height, width):
        return sample
    # New pixel i is centred at the fraction (i + 1/2) / new_height of the picture, by Pillow's rule for the image too.
    rows = ((np.arange(new_height) + 0.5) * height / new_height).astype(int)
    columns = ((np.arange(new_width) + 0.5) * width / new_width).astype(int)
    image = Image.fromarray(sample.image).resize((new_width, new_height), Image.Resampling.BILINEAR)
    planes = None if sample.planes is None else resized(sample.planes, (new_height, new_width))
    return replace(_gathered(sample, rows, columns), image=np.array(image), planes=planes)


def resized(planes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return planes (H, W, C), interpolated as float32 to `size`, height first."""
    from PIL import Image

    each = (Image.fromarray(np.ascontiguousarray(plane, np.float32)) for plane in np.moveaxis(planes, -1, 0))
    return np.stack([np.asarray(one.resize(size[::-1], Image.Resampling.BILINEAR)) for one in each], axis=-1)


def _recoloured(image: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 3) uint8 with brightness, contrast and saturation times the three `factors`.

    Contrast is the distance from the mean grey of the image, saturation that from the grey of the pixel.
    """
    brightness, contrast, saturation = np.asarray(factors, np.float32)
    colours = image * brightness
    mean = (colours @ LUMA).mean()
    colours = mean + contrast * (colours - mean)
    grey = (colours @ LUMA)[..., None]
    return np.rint(np.clip(grey + saturation * (colours - grey), 0, 255)).astype(np.uint8)


def _rotated(sample: Sample, degrees: float, fill: tuple[int, int, int] = IMAGENET_MEAN) -> Sample:
    """Return the sample turned to the left around its middle: the image interpolated, the rest at the nearest pixel."""
    from PIL import Image

    height, width = sample.label.shape
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = width / 2, height / 2  # Pillow counts from the corner: the middle of pixel 0 is at 1/2
    where = (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)  # of an output pixel in the input

    def turned(plane: np.ndarray, nothing: Any, how: Any = Image.Resampling.NEAREST) -> np.ndarray:
        picture = Image.fromarray(np.ascontiguousarray(plane))
        return np.array(picture.transform((width, height), Image.Transform.AFFINE, where, how, fillcolor=nothing))

    def turn(name: str, array: np.ndarray, nothing: Any) -> np.ndarray:
        if name not in ("image", "planes"):
            return turned(array, nothing)
        # As numbers with a fraction: Pillow would cut off that of bytes, which makes a picture darker.
        each = zip(np.moveaxis(array.astype(np.float32), -1, 0), np.broadcast_to(nothing, array.shape[-1:]).tolist())
        smooth = np.dstack([turned(plane, value, Image.Resampling.BILINEAR) for plane, value in each])
        return np.rint(smooth).astype(np.uint8) if name == "image" else smooth

    return _moved(sample, fill, turn)
