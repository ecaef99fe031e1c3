"""Predict what more ranks gain, from the time of a step and of a sum of gradients (an alpha-beta model).

A message of n bytes takes alpha + n / beta seconds. To add up n bytes on p ranks that stand in a ring, each rank sends
2 (p - 1) messages of n / p bytes: first every part goes round and is added up, then it goes round again as the sum.

    seconds = 2 (p - 1) alpha + 2 (p - 1)/p n / beta, for each bucket

Under weak scaling each rank computes as many images as one rank did, and the batch grows; under strong scaling the
ranks share one batch. The model knows no congestion, no slower rank, and no reading of images.
"""

from __future__ import annotations

import math
import statistics
import time
from typing import Any

import numpy as np

from minifcn.experiments.bench.stopwatch import median_seconds
from minifcn.experiments.bench.studies import Work
from minifcn.tensor import Parameter
from minifcn.training.ranks import BUCKET, Alone
from minifcn.training.step import backward

NETWORKS = {"1 Gb/s": (50e-6, 125e6), "10 Gb/s": (20e-6, 1.25e9), "100 Gb/s": (2e-6, 12.5e9)}  # alpha, beta
WORKERS = (1, 2, 4, 8, 12, 16, 20)
IMAGES = 20  # of a step under strong scaling: the batch of the paper's first version


def sum_seconds(workers: int, nbytes: int, alpha: float, beta: float) -> float:
    """Return how long `workers` ranks take to add up `nbytes` of gradients."""
    steps = 2 * (workers - 1)
    return steps * math.ceil(nbytes / BUCKET) * alpha + steps / workers * nbytes / beta


def prediction(image_seconds: float, nbytes: int, *, images: int) -> list[dict[str, Any]]:
    """Return the speedup of a step on every network of NETWORKS for each of WORKERS, weak and strong.

    Under weak scaling each rank has so many images.
    """
    rows = []
    for network, (alpha, beta) in NETWORKS.items():
        for workers in WORKERS:
            exchange = sum_seconds(workers, nbytes, alpha, beta)
            weak = workers * images * image_seconds / (images * image_seconds + exchange)
            strong = IMAGES * image_seconds / (math.ceil(IMAGES / workers) * image_seconds + exchange)
            rows.append({"network": network, "workers": workers, "sum": exchange, "weak": weak, "strong": strong})
    return rows


def ranks_at_hand(work: Work, ranks: Alone, runs: int) -> dict[str, float]:
    """Measure a step on these ranks at once, and what the model predicts for it from two sums of other sizes."""

    def timed(parameters: list[Parameter], *, step: bool = False) -> float:
        times = []
        for _ in range(runs + 1):
            ranks.gather(None)  # all begin together
            began = time.perf_counter()
            if step:
                backward([work.loss()])
            ranks.add_gradients(parameters)
            if step:
                work.solver.step()
            times.append(time.perf_counter() - began)
        return max(ranks.gather(statistics.median(times[1:])))  # the slowest rank decides

    few, many = ([Parameter(np.zeros(size, np.float32))] for size in (1, 2 * BUCKET))
    alpha = timed(few) / 2 / (ranks.size - 1)
    buckets = many[0].data.nbytes // BUCKET
    beta = 2 * (ranks.size - 1) / ranks.size * many[0].data.nbytes
    beta /= max(timed(many) - 2 * (ranks.size - 1) * buckets * alpha, 1e-9)
    parameters = list(work.net.parameters())
    alone = max(ranks.gather(median_seconds(work.step, runs)))
    nbytes = sum(parameter.data.nbytes for parameter in parameters)
    return {
        "ranks": ranks.size,
        "alpha": alpha,
        "beta": beta,
        "alone": alone,
        "predicted": alone + sum_seconds(ranks.size, nbytes, alpha, beta),
        "measured": timed(parameters, step=True),
    }
