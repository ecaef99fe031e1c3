"""`minifcn evaluate RUN`: the paper's four metrics from one confusion matrix, beside two baselines that see no image.

minifcn evaluate runs/toy
minifcn evaluate runs/camvid --data DIR --split val --absent zero
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from minifcn.backend import choose_device
from minifcn.command import parse, run, split_words
from minifcn.errors import UsageError
from minifcn.evaluation import baselines, evaluate
from minifcn.kernels.threads import set_threads
from minifcn.metrics import Absent
from minifcn.recipes import WORLD
from minifcn.trained import open_trained
from minifcn.training import evaluation_record, finite, table

ABSENT = get_args(Absent)


@dataclass(frozen=True)
class Options:
    """Measure a trained network: `minifcn evaluate RUN [options]`, RUN being a run folder or a checkpoint."""

    data: str = ""
    """the folder of a data set in the layout of PASCAL VOC, or "world"; by default the run's own"""
    split: str = ""
    """the split to measure on; by default the run's validation split"""
    absent: str = "skip"
    """a class that is neither there nor predicted: "skip" it, count it as "zero"; or only those "present-in-gt" """
    best: bool = False
    """the checkpoint that was best on the run's validation split, instead of the newest"""
    json: str = ""
    """write the result to this file, too"""
    skip_bad: bool = False
    """leave out images and masks that cannot be used"""
    device: str = "auto"
    """"cpu", "gpu" or "auto" """
    threads: int = 0
    """threads that compute convolutions (0: one for each core)"""


def main(argv: list[str]) -> int:
    words, rest = split_words(Options, argv)
    options = parse(Options, rest, verb="evaluate")
    if len(words) != 1:
        raise UsageError(f"evaluate: found {len(words)} run folders ({' '.join(words)}); expected one: evaluate RUN")
    if options.absent not in ABSENT:
        raise UsageError(f"option absent is {options.absent!r}; expected one of {', '.join(ABSENT)}")
    absent = cast(Absent, options.absent)
    device, _ = choose_device(options.device)
    set_threads(options.threads or None)
    trained = open_trained(words[0], best=options.best)
    o = trained.options
    o = dataclasses.replace(o, data=options.data or o.data, val_split=options.split or o.val_split, max_val=0)
    o = dataclasses.replace(o, skip_bad=options.skip_bad)
    if o.data == WORLD:
        o = dataclasses.replace(o, max_val=trained.options.max_val)
    train, val = o.data_sets()
    if tuple(val.classes) != trained.classes:
        raise UsageError(
            f"{o.data}: has the classes {', '.join(val.classes)}; the net knows {', '.join(trained.classes)}"
        )
    matrix = evaluate(trained.net.to(device), val, trained.preprocessing)
    guesses = baselines(train, val)
    print(f"{trained.path} (step {trained.step}) on {len(val)} images of {o.data}, split {o.val_split}")
    print(table(matrix, guesses, absent))
    skipped = [trained.classes[i] for i in matrix.skipped(absent)]
    print(f"classes left out of the mean IU ({absent}): {', '.join(skipped) or 'none'}")
    print(f"\n{'class':<16}     IU  found  share true  predicted")
    columns = (matrix.iu(), matrix.accuracy(), matrix.shares_true(), matrix.shares_predicted())
    for name, iu, accuracy, true, predicted in zip(trained.classes, *columns, strict=True):
        print(f"{name:<16}  {iu:>5.3f}  {accuracy:>5.3f}  {100 * true:>8.2f} %  {100 * predicted:>7.2f} %")
    if options.json:
        record = evaluation_record(
            matrix, guesses, classes=trained.classes, split=o.val_split, images=len(val), absent=absent
        )
        Path(options.json).write_text(json.dumps(finite(record), indent=1), encoding="utf-8")
        print(f"wrote {options.json}")
    return 0


if __name__ == "__main__":
    run(main)
