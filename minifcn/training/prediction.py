"""What a net says of one photograph: a mask, an overlay and a legend as files, and the share of each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minifcn import viz
from minifcn.data.files import write_mask


def write_prediction(
    image: np.ndarray, label: np.ndarray, classes: Sequence[str], start: Path, *, alpha: float = 0.6
) -> None:
    """Write mask, overlay and legend of a label (H, W) of an image (H, W, 3) uint8.

    The files are `start`-mask.png, `start`-overlay.png and `start`-legend.png; `alpha`, from 0 to 1, says how
    strongly the classes colour the overlay.
    """
    write_mask(start.with_name(f"{start.name}-mask.png"), label)
    start.with_name(f"{start.name}-overlay.png").write_bytes(viz.png(viz.overlay(image, label, alpha=alpha)))
    start.with_name(f"{start.name}-legend.png").write_bytes(viz.png(viz.legend(classes, label)))


def shares(label: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """Return the share of the pixels that each class present in a label (H, W) covers, largest first."""
    values, counts = np.unique(label, return_counts=True)
    return {classes[values[i]]: counts[i] / label.size for i in np.argsort(-counts, kind="stable")}
