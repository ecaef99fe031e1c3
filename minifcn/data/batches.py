"""Preprocess images and stack them into float32 batches.

There are two conventions, and mixing them up costs days. Nets trained in Caffe expect blue first and 0..255 minus a
mean; nets trained elsewhere expect red first and 0..1, normalised. A net that gets the other convention's pictures does
not fail: it only recognises less. So a net and its `Preprocessing` belong together and are saved together.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from minifcn.backend import Array, device_of, to_device
from minifcn.data.dataset import Pictures
from minifcn.data.sample import MOST_PLANES, VOID, Sample
from minifcn.errors import DataError, FormatError, ShapeError, UsageError

PLANES = "planes"


def _is_number(value: Any) -> bool:
    """Return whether a value is an int or a float of a sensible size; NaN and infinity fail the comparison."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


@dataclass(frozen=True)
class Preprocessing:
    """What happens to every channel of a picture: (x * scale - mean) / std.

    `order` says which colour comes first, "RGB" or "BGR"; `mean` and `std` are three numbers each, in that order. Under
    the order "planes" there is one for each plane of a multispectral image, and NaN becomes 0.
    """

    order: str
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.order not in ("RGB", "BGR", PLANES):
            raise UsageError(f"preprocessing order {self.order!r}; expected 'RGB' or 'BGR', or '{PLANES}'")
        for name, values, least in (("scale", (self.scale,), 0), ("mean", self.mean, -math.inf), ("std", self.std, 0)):
            if not all(_is_number(value) and value > least for value in values):
                above = "" if least else " above 0"
                raise UsageError(f"preprocessing {name} {values}; expected finite numbers{above}")
        count = len(self.mean)
        fits = 1 <= count <= MOST_PLANES if self.order == PLANES else count == 3
        if not fits or len(self.std) != count:
            raise UsageError(f"preprocessing mean {self.mean}, std {self.std}; expected three numbers each")

    @classmethod
    def fit_planes(cls, dataset: Pictures, *, count: int = 100) -> "Preprocessing":
        """Return what gives each plane zero mean and unit variance over `count` images, chosen as in `fit`."""
        images = [dataset[int(i)] for i in np.linspace(0, len(dataset) - 1, min(count, len(dataset)), dtype=int)]
        planes = [np.asarray(image.planes, np.float64).reshape(-1, image.planes.shape[2]) for image in images]  # type: ignore[attr-defined]
        known = sum((~np.isnan(one)).sum(axis=0) for one in planes)
        mean = sum(np.nansum(one, axis=0) for one in planes) / np.maximum(known, 1)
        std = np.sqrt(sum(np.nansum((one - mean) ** 2, axis=0) for one in planes) / np.maximum(known, 1))
        std[std <= 1e-6 * np.abs(mean)] = 1.0  # a plane without contrast has nothing to normalise
        std[std == 0] = 1.0
        return cls(PLANES, 1.0, tuple(mean.tolist()), tuple(std.tolist()))

    @classmethod
    def fit(cls, dataset: Pictures, *, count: int = 100) -> "Preprocessing":
        """Return what gives each channel, red first, zero mean and unit variance over `count` pictures of `dataset`.

        The pictures are taken evenly from first to last, so that the same data set always gives the same numbers.
        The sums are over integers, so they are exact.
        """
        if len(dataset) == 0 or count < 1:
            raise UsageError(f"Preprocessing.fit: {count} of {len(dataset)} pictures; expected at least one")
        pixels, total, squares = 0, np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64)
        for index in np.linspace(0, len(dataset) - 1, min(count, len(dataset)), dtype=int):
            values = dataset[int(index)].image.reshape(-1, 3).astype(np.int64)
            pixels, total, squares = pixels + len(values), total + values.sum(0), squares + (values**2).sum(0)
        mean = total / pixels
        std = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
        std[std < 1] = 255.0  # pictures of one flat colour have no contrast to normalise
        red, green, blue = (mean / 255).tolist()
        red_std, green_std, blue_std = (std / 255).tolist()
        return cls("RGB", 1 / 255, (red, green, blue), (red_std, green_std, blue_std))

    @property
    def fill(self) -> tuple[int, int, int]:
        """The colour, red first, that comes out nearest to zero: what to show a net where there is no picture."""
        if self.order == PLANES:  # of the picture that is shown; the planes themselves get NaN
            return 0, 0, 0
        values = [min(255, max(0, round(value / self.scale))) for value in self.mean]
        red, green, blue = values if self.order == "RGB" else values[::-1]
        return red, green, blue

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return the picture (H, W, 3) uint8, red first, as (3, H, W) float32; or planes (H, W, C) as (C, H, W)."""
        if self.order == PLANES:
            if image.ndim != 3 or image.shape[2] != len(self.mean):
                raise ShapeError(
                    f"preprocessing: found shape {image.shape}; expected {len(self.mean)} planes, the last axis"
                )
            x = (image.astype(np.float64) - self.mean) / self.std
            return np.nan_to_num(x.transpose(2, 0, 1), nan=0.0).astype(np.float32, order="C")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ShapeError(f"preprocessing: found {image.dtype} of shape {image.shape}; expected uint8 (H, W, 3)")
        normalized: np.ndarray = self.normalized(image.transpose(2, 0, 1))
        return normalized

    def normalized(self, x: Array) -> Array:
        """Return pictures (..., 3, H, W) uint8, red first, as float32 on their device: the same bits on both."""
        x = (x if self.order == "RGB" else x[..., ::-1, :, :]).astype(np.float32, order="C")
        numbers = (np.array(values, dtype=np.float32).reshape(3, 1, 1) for values in (self.mean, self.std))
        mean, std = (to_device(each, device_of(x)) for each in numbers)
        return (x * float(np.float32(self.scale)) - mean) / std

    def __str__(self) -> str:
        """Return one line: "BGR, 0..255, less (104, 117, 123)"."""
        mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (self.mean, self.std))
        if self.order == PLANES:
            return f"{len(self.mean)} planes, less ({mean}), divided by ({std})"
        divided = "" if set(self.std) == {1.0} else f", divided by ({std})"
        return f"{self.order}, 0..{255 * self.scale:.6g}, less ({mean}){divided}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists, to be written as JSON; floats survive the way there and back bit for bit."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> "Preprocessing":
        """Read `as_dict` back, believing nothing: it comes out of a file."""
        names = [field.name for field in fields(cls)]
        if not isinstance(found, Mapping) or sorted(found) != sorted(names):
            raise FormatError(f"preprocessing: found {found!r:.200}; expected exactly the fields {', '.join(names)}")
        for name in ("mean", "std"):
            if not isinstance(found[name], Sequence):
                raise FormatError(f"preprocessing {name}: found {found[name]!r:.200}; expected three numbers")
        try:
            return cls(found["order"], found["scale"], tuple(found["mean"]), tuple(found["std"]))
        except UsageError as error:
            raise FormatError(str(error)) from error


CAFFE = Preprocessing("BGR", 1.0, (104.00699, 116.66877, 122.67892), (1.0, 1.0, 1.0))
"""What the paper's nets were trained with: blue first, 0..255, less the mean colour of ImageNet."""


def collate(samples: Sequence[Sample], preprocessing: Preprocessing) -> tuple[np.ndarray, np.ndarray]:
    """Return samples stacked into x (N, 3, H, W) float32 and labels (N, H, W) int64.

    Where sizes differ, H and W are the largest, and each picture is padded at the bottom and at the right: with
    zeros (the mean colour), and with void, so that nothing is learned there.
    """
    labels = stacked(samples, [sample.label[None] for sample in samples], VOID)[:, 0].astype(np.int64)
    return stacked(samples, [preprocessing(sample.image) for sample in samples], 0), labels


def stacked(
    samples: Sequence[Sample], planes: Sequence[np.ndarray], nothing: int, *, size: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """Return planes (C, h, w), one array for each sample, as (N, C, H, W) of their type, filled up with `nothing`.

    H and W are the largest, and at least `size`. Raises `DataError` for a plane whose size is not that of its sample's
    image, and `UsageError` where there is none at all.
    """
    if not samples:
        raise UsageError("collate: no samples; expected at least one")
    for sample, plane in zip(samples, planes, strict=True):
        if plane.shape[1:] != sample.image.shape[:2]:
            raise DataError(f"{sample.id}: label {plane.shape[1:]}; expected that of image {sample.image.shape}")
    sizes = np.array([(0, *size), *(plane.shape for plane in planes)]).max(axis=0)
    whole = np.full((len(planes), *sizes), nothing, dtype=planes[0].dtype)
    for row, plane in zip(whole, planes, strict=True):
        row[:, : plane.shape[1], : plane.shape[2]] = plane
    return whole
