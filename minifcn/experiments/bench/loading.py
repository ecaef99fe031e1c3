"""Measure how long a training loop waits for its images, with and without workers that load them in advance."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from minifcn.backend import rng
from minifcn.data.augment import Augmentation
from minifcn.data.batches import CAFFE
from minifcn.data.inputs import Inputs, collate_inputs
from minifcn.data.prefetch import Prefetch
from minifcn.data.tools.make import make_tree
from minifcn.data.voc import VOCSegmentation
from minifcn.experiments.bench.stopwatch import matrix_product

WORKERS = (0, 1, 2, 4)
STEP = 0.25  # seconds of matrix products in the place of a step: the time of a GPU, or of a thin net


def waiting(size: tuple[int, int], *, batch: int, steps: int, seconds: float = STEP) -> list[dict[str, Any]]:
    """Return the seconds that each step waits for a batch of JPEG files of this size, for each of WORKERS."""
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as folder:
        root = make_tree(Path(folder) / "set", counts={"train": 8}, size=size)
        images, inputs = VOCSegmentation(root, "train"), Inputs("rgb", CAFFE)
        augment, product = Augmentation(mirror=True, scale=(0.8, 1.25)), matrix_product(512)

        def load(step: int) -> Any:
            places = range(step * batch, (step + 1) * batch)
            return collate_inputs([augment(images[i % len(images)], rng(0, i)) for i in places], inputs)

        for workers in WORKERS:
            waited = 0.0
            with Prefetch(load, workers=workers) as prefetch:
                for step in range(steps + 1):
                    began = time.perf_counter()
                    prefetch.take(step, range(step + 1, steps + 1))
                    now = time.perf_counter()
                    waited += now - began if step else 0  # nothing can be loaded before the first
                    while time.perf_counter() - now < seconds:
                        product()
            rows.append({"workers": workers, "seconds": waited / steps})
    return rows
