"""Predict a photograph of any size: mask, overlay, legend, scores and confidence as files, and each class's share."""

from __future__ import annotations

import io
import itertools
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from minifcn import viz
from minifcn.backend import Array, to_device, to_host
from minifcn.data.augment import resized
from minifcn.data.batches import Preprocessing
from minifcn.data.dataset import Dataset
from minifcn.data.files import write_mask
from minifcn.data.prefetch import loaded
from minifcn.data.sample import VOID
from minifcn.formats.checkpoint import replace_file
from minifcn.inference import inference
from minifcn.metrics import ConfusionMatrix
from minifcn.models.context import context_of, known_mean
from minifcn.models.resnet import FCN_ResNet
from minifcn.models.tiling import Span, Tiling, between
from minifcn.nn import Module
from minifcn.tensor import Tensor
from minifcn.training.evaluation import device_of_net


@dataclass(frozen=True)
class Prediction:
    """The label (H, W) of an image; where asked for, its scores (C, H, W) float16 and the entropy (H, W) float16.

    The entropy is that of the classes' probabilities, from 0 (sure of one class) to 1 (all classes alike).
    """

    label: np.ndarray
    scores: np.ndarray | None = None
    entropy: np.ndarray | None = None


@dataclass(frozen=True)
class Predictor:
    """Predict images with a net: in tiles, and averaged over mirrored and scaled copies if asked for.

    The scores of the copies are interpolated back to the pixels of the image and averaged. `scales` are the factors.
    """

    net: Module
    preprocessing: Preprocessing
    tiling: Tiling = field(default_factory=Tiling)
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)

    def __call__(
        self,
        image: np.ndarray,
        *,
        keep: Sequence[str] = (),
        scores_to: Callable[[Iterator[np.ndarray]], None] | None = None,
    ) -> Prediction:
        """Return the prediction of an image (H, W, 3) uint8, or of planes.

        `keep`: "scores", "entropy" or both, to keep. Scores that would fill the memory go to `scores_to` instead: it
        takes strips of them, (C, H, some columns) float16, from left to right.
        """
        height, width = image.shape[:2]
        scales = [scaled(image, factor) for factor in self.scales]
        label = np.empty((height, width), np.uint8)
        entropies = np.empty((height, width), np.float16) if "entropy" in keep else None
        most, wanted = np.finfo(np.float16).max, scores_to is not None or "scores" in keep

        def strips() -> Iterator[np.ndarray]:
            copies = [
                (copy, mirrored, self._context(copy[:, ::-1] if mirrored else copy))
                for copy in scales
                for mirrored in (False, True)[: 1 + self.flip]
            ]
            for left, right in self.tiling.parts(width):
                strip = np.empty((0, 0, 0), np.float16)
                for top, bottom in self.tiling.parts(height):
                    part = self._mean(copies, (height, width), (top, bottom), (left, right))
                    label[top:bottom, left:right] = part.argmax(axis=0)
                    if entropies is not None:
                        entropies[top:bottom, left:right] = entropy(part)
                    if wanted:
                        strip = strip if top else np.empty((len(part), height, right - left), np.float16)
                        strip[:, top:bottom] = np.clip(part, -most, most)
                yield strip

        with inference(self.net):
            if scores_to is not None:
                scores_to(strips())
                return Prediction(label, None, entropies)
            found = list(strips())
        scores = np.concatenate(found, axis=2) if len(found) > 1 else found[0]
        return Prediction(label, scores if wanted else None, entropies)

    def evaluate(
        self, dataset: Dataset, *, workers: int = 0, progress: Callable[[int], None] = lambda images: None
    ) -> ConfusionMatrix:
        """Return the confusion matrix of these predictions on a data set; `progress` hears of every image done.

        `workers` threads load images in advance, which changes no result.
        """
        matrix = ConfusionMatrix(len(dataset.classes), VOID)
        # inference around all images: the filters are transformed once
        with inference(self.net):
            for sample in loaded(dataset, workers=workers):
                image = sample.image if sample.planes is None else sample.planes
                matrix.update(sample.label, self(image).label)
                progress(1)
        return matrix

    def _mean(
        self, copies: Sequence[tuple[np.ndarray, bool, Array | None]], size: tuple[int, int], rows: Span, cols: Span
    ) -> np.ndarray:
        """Return the scores (C, h, w) of a part of the image, averaged over the copies, mirrored and not."""
        total: Any = 0
        for copy, mirrored, context in copies:
            with known_mean(self.net, context):
                total = total + self._of_copy(copy, size, rows, cols, mirrored=mirrored)
        return total / np.float32(len(copies)) if len(copies) > 1 else total

    def _context(self, copy: np.ndarray) -> Array | None:
        """Return the mean over the whole copy that the net's global context needs; None if one crop shows all of it.

        The mean is added up from the tiles in float64, so that this first pass takes no more memory than the second.
        """
        found, size = context_of(self.net), copy.shape[:2]
        if found is None or all(self.tiling.crop(n, part) == (0, n) for n in size for part in self.tiling.parts(n)):
            return None
        trunk, total, cells = found[0], np.float64(0), 0
        for parts in itertools.product(*map(self.tiling.parts, size)):
            crops = [slice(*self.tiling.crop(n, part)) for n, part in zip(size, parts, strict=True)]
            x = Tensor(to_device(self.preprocessing(copy[*crops])[None], device_of_net(self.net)))
            own = (self.tiling.cells(trunk.layers(), n, part) for n, part in zip(size, parts, strict=True))
            mine = to_host(trunk(x)[trunk.last].data)[:, :, *own]
            total, cells = total + mine.sum((2, 3), dtype=np.float64, keepdims=True), cells + mine[0, 0].size
        return to_device((total / cells).astype(mine.dtype), device_of_net(self.net))

    def _of_copy(
        self, copy: np.ndarray, size: tuple[int, int], rows: Span, cols: Span, *, mirrored: bool
    ) -> np.ndarray:
        """Return the scores of a part of the image, from one copy of it, cut so that the scores are exact."""
        if mirrored:
            copy, cols = copy[:, ::-1], (size[1] - cols[1], size[1] - cols[0])
        axes = [between(n, out, part) for n, out, part in zip(copy.shape[:2], size, (rows, cols), strict=True)]
        needed = [span for span, _ in axes]
        crops = [self.tiling.crop(n, span) for n, span in zip(copy.shape[:2], needed, strict=True)]
        seen = self._net_scores(copy[tuple(slice(*crop) for crop in crops)])
        inside = [self.tiling.inside(*each) for each in zip(copy.shape[:2], needed, crops, strict=True)]
        scores = seen[:, *(cells for cells, _ in inside)]
        for down, across in ([matrix for _, matrix in inside], [matrix for _, matrix in axes]):
            scores = scores if down is None else down @ scores
            scores = scores if across is None else scores @ across.T
        return scores[..., ::-1] if mirrored else scores

    def _net_scores(self, image: np.ndarray) -> np.ndarray:
        """Return the scores (C, h, w) of the first head; of cells, where a tiling interpolates them."""
        x = Tensor(to_device(self.preprocessing(image)[None], device_of_net(self.net)))
        scores = self.net.cells(x) if isinstance(self.net, FCN_ResNet) and self.tiling.resampled else self.net(x)
        first = next(iter(scores.values())) if isinstance(scores, dict) else scores
        return to_host(first.data)[0]


def scaled(image: np.ndarray, factor: float) -> np.ndarray:
    """Return an image (H, W, 3) uint8, or planes (H, W, C), scaled by `factor`, at least one pixel large."""
    from PIL import Image

    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    if (height, width) == image.shape[:2]:
        return image
    if image.dtype != np.uint8 or image.shape[2] != 3:
        return resized(image, (height, width))
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def entropy(scores: np.ndarray) -> np.ndarray:
    """Return the entropy (h, w) of the softmax of scores (C, h, w), divided by ln C: 0 is sure, 1 knows nothing."""
    if len(scores) == 1:
        return np.zeros(scores.shape[1:], np.float32)
    log_p = scores - scores.max(axis=0)
    log_p -= np.log(np.exp(log_p).sum(axis=0))
    return np.clip(-(np.exp(log_p) * log_p).sum(axis=0) / math.log(len(scores)), 0, 1)


def write_prediction(
    image: np.ndarray,
    found: Prediction,
    classes: Sequence[str],
    start: Path,
    *,
    alpha: float = 0.6,
) -> list[str]:
    """Write mask, overlay and legend of what was found in an image (H, W, 3) uint8; return the ends of their names.

    The files are `start`-mask.png, `start`-overlay.png and `start`-legend.png; `alpha`, from 0 to 1, says how
    strongly the classes colour the overlay. Scores that were kept become `start`-scores.npz, with the names of the
    classes, and the entropy `start`-confidence.png: black is sure, white knows nothing.
    """
    label = found.label
    write_mask(start.with_name(f"{start.name}-mask.png"), label)
    pictures = {"overlay": viz.overlay(image, label, alpha=alpha), "legend": viz.legend(classes, label)}
    for name, picture in pictures.items():
        replace_file(start.with_name(f"{start.name}-{name}.png"), [viz.png(picture)], sync=False)
    written = ["-mask.png", "-overlay.png", "-legend.png"]
    if found.scores is not None:
        write_scores(start.with_name(f"{start.name}-scores.npz"), [found.scores], classes, width=label.shape[1])
        written.append("-scores.npz")
    if found.entropy is not None:
        write_grey(start.with_name(f"{start.name}-confidence.png"), found.entropy)
        written.append("-confidence.png")
    return written


def write_scores(path: Path, strips: Iterable[np.ndarray], classes: Sequence[str], *, width: int) -> None:
    """Write scores of `width` columns, which come as strips (C, H, columns) float16, and the names of the classes.

    The file is what `np.savez_compressed` writes, with the array in Fortran's order: column after column. So no more
    than a strip is ever in memory.
    """
    replace_file(path, _zipped(strips, classes, width), sync=False)


def _zipped(strips: Iterable[np.ndarray], classes: Sequence[str], width: int) -> Iterator[bytes]:
    """Yield the bytes of the .npz, as they become known."""
    sink = _Sink()
    with zipfile.ZipFile(cast(IO[bytes], sink), "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("scores.npy", "w", force_zip64=True) as member:
            for number, strip in enumerate(strips):
                if not number:
                    header = {"descr": "<f2", "fortran_order": True, "shape": (*strip.shape[:2], width)}
                    np.lib.format.write_array_header_1_0(member, header)
                for first in range(0, strip.shape[2], 16):
                    member.write(strip[:, :, first : first + 16].astype("<f2", copy=False).tobytes(order="F"))
                    yield sink.taken()
        names = io.BytesIO()
        np.save(names, np.array(classes))
        archive.writestr("classes.npy", names.getvalue())
    yield sink.taken()


class _Sink:
    """A file that forgets what was `taken`. It cannot be searched, so the zip goes back to nothing it has written."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, piece: bytes) -> int:
        self._pieces.append(bytes(piece))
        return len(piece)

    def flush(self) -> None:
        """Nothing waits."""

    def taken(self) -> bytes:
        """Return what was written since the last time."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def write_grey(path: Path, values: np.ndarray) -> None:
    """Write values (H, W) from 0 to 1 as a picture from black to white."""
    from PIL import Image

    grey = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), 512):
        grey[top : top + 512] = np.rint(values[top : top + 512] * np.float32(255))
    file = io.BytesIO()
    Image.fromarray(grey).save(file, format="PNG")
    replace_file(path, [file.getbuffer()], sync=False)


def shares(label: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """Return the share of the pixels that each class present in a label (H, W) covers, largest first."""
    counts = np.zeros(256, np.int64)
    for rows in np.array_split(label, -(-len(label) // 512)):  # counting takes eight bytes for each pixel
        counts += np.bincount(rows.ravel(), minlength=256)
    present = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    return {classes[i]: counts[i] / label.size for i in present}
