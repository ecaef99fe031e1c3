"""`minifcn evaluate`: compute the paper's four metrics for a run, beside two baselines.

minifcn evaluate runs/world
minifcn evaluate runs/camvid --data DIR --split val --absent zero
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, Any

from minifcn.cli.command import SCALES, numbers, parse_words, relay, say, warn
from minifcn.data.dataset import Dataset
from minifcn.data.inputs import Hidden, Second, planes_of
from minifcn.errors import DataError, UsageError
from minifcn.experiments.dense import Rarefied
from minifcn.formats.checkpoint import explained
from minifcn.formats.limits import path_of
from minifcn.kernels.threads import cores, set_threads
from minifcn.metrics import ABSENT, ConfusionMatrix
from minifcn.nn import Module
from minifcn.training.device import choose_device
from minifcn.training.evaluation import baselines, class_table, evaluate_heads, evaluation_record, measures, table
from minifcn.training.options import WORLD
from minifcn.training.prediction import Predictor
from minifcn.training.progress import Bar
from minifcn.training.ranges import check_choices, check_ranges
from minifcn.training.report import write_report
from minifcn.training.run_folder import check_kinds
from minifcn.training.runlog import json_text, write_json
from minifcn.training.setup import data_set
from minifcn.training.trained import Trained, open_trained


@dataclass(frozen=True)
class Options:
    """Measure a trained network: `minifcn evaluate RUN [options]`, RUN being a run folder or a checkpoint."""

    data: Annotated[
        str, 'the folder of a data set in the layout of PASCAL VOC, or "world"; by default the run\'s own'
    ] = ""
    split: Annotated[str, "the split to measure on; by default the run's validation split"] = ""
    absent: Annotated[
        str, 'a class that is neither there nor predicted: "skip" it, count it as "zero"; or only those "present-in-gt"'
    ] = "skip"
    best: Annotated[bool, "the checkpoint that was best on the run's validation split, instead of the newest"] = False
    json: Annotated[str, "write the result to this file, too"] = ""
    hide: Annotated[
        str, 'hide the "background", the "foreground" or "both" by the truth, to see what the net goes by'
    ] = ""
    flip: Annotated[bool, "average the scores of each image and of its mirror image"] = False
    scales: Annotated[str, 'average the scores over copies of each image scaled by these: "0.75,1,1.25"'] = "1"
    stitched: Annotated[
        bool, "give each pixel an answer of its own by shift-and-stitch, without upsampling: for FCN-32s, and slow"
    ] = False
    skip_bad: Annotated[bool, "leave out images and masks that cannot be used"] = False
    batch: Annotated[int, "images in a forward pass"] = 8
    device: Annotated[str, '"cpu", "gpu" or "auto"'] = "auto"
    threads: Annotated[int, "threads that compute convolutions (0: one for each core)"] = 0
    workers: Annotated[int, "threads that load the images of the next batches (0: none); the result is the same"] = 1


def main(argv: list[str]) -> int:
    """Measure and print. A run folder without an evaluation.json (its run was stopped) gets one, and a report."""
    words, options = parse_words(Options, argv, verb="evaluate", words="RUN", count=1)
    check_choices(options, {"absent": ABSENT})
    check_ranges(options, [("batch", 1, math.inf), ("workers", 0, 256)])
    if options.json and not path_of(options.json).absolute().parent.is_dir():
        raise UsageError(f"{options.json}: cannot be written, its folder does not exist; choose another --json")
    absent: Any = options.absent
    scales = numbers("scales", options.scales, *SCALES)
    averaged = options.flip or scales != (1,)
    device, why = choose_device(options.device)
    set_threads(options.threads or cores())
    run_folder = path_of(words[0])
    if run_folder.is_dir():
        check_kinds(run_folder)
    trained = open_trained(words[0], best=options.best, say=warn)
    val, split, train = data_of(trained, options)
    if averaged and options.stitched:
        raise UsageError("evaluate: --stitched answers each image once; expected neither --flip nor --scales with it")
    place = options.data or trained.options.data
    if averaged and trained.inputs.name != "rgb" and not planes_of(trained.inputs.name):
        raise UsageError(f"{words[0]}: its net sees {trained.inputs.name}; expected rgb or planes to average scores")
    if tuple(val.classes) != trained.classes:
        raise UsageError(
            f"{place}: has the classes {', '.join(val.classes)}; the net knows {', '.join(trained.classes)}"
        )
    hide = options.hide or trained.options.hide
    if hide:
        val = Hidden(val, hide, fill=trained.preprocessing.fill)
    say(f"device {why}")
    net: Module = Rarefied(trained.net) if options.stitched else trained.net
    net, second = net.to(device), None
    with Bar(len(val), unit="image") as bar:
        if averaged:
            predictor = Predictor(net, trained.preprocessing, flip=options.flip, scales=scales)
            matrix = predictor.evaluate(val, workers=options.workers, progress=bar.advance)
        else:
            matrix, second = evaluate_heads(
                net, val, trained.inputs, batch=options.batch, workers=options.workers, progress=bar.advance
            )
    guesses: dict[str, ConfusionMatrix] = {} if train is None else baselines(train, val, workers=options.workers)
    say(f"{trained.path} (step {trained.step}) on {len(val)} images of {place}, split {split}")
    say(*table(matrix, guesses, absent).split("\n"))
    skipped = [trained.classes[i] for i in matrix.skipped(absent)]
    say(f"classes left out of the mean IU ({absent}): {', '.join(skipped) or 'none'}", "")
    say(*class_table(matrix, trained.classes).split("\n"))
    record = evaluation_record(matrix, guesses, classes=trained.classes, split=split, images=len(val), absent=absent)
    if second is not None:
        classes = Second(val).classes
        say("", "the second head", *class_table(second, classes).split("\n"))
        record["geometry"] = measures(second, classes)
    if options.json:
        path = path_of(options.json)
        if path.is_symlink() or (path.exists() and not path.is_file()):  # /dev/stdout, or a pipe
            with explained(path, "cannot be written"):
                path.write_text(json_text(record), encoding="utf-8", newline="\n")
        else:
            write_json(path, record)
        say(f"wrote {options.json}")
    if (
        run_folder.is_dir()
        and not (options.data or options.hide or options.stitched or averaged)
        and not (run_folder / "evaluation.json").exists()
    ):
        write_json(run_folder / "evaluation.json", record)
        say(f"wrote {write_report(run_folder)}")
    return 0


def data_of(trained: Trained, options: Options) -> tuple[Dataset, str, Dataset | None]:
    """Return the data set to measure on, its split, and the set to count the baselines on, None if there is none."""
    o = trained.options
    o = dataclasses.replace(o, data=options.data or o.data, skip_bad=options.skip_bad)
    o = dataclasses.replace(o, val_split=options.split or o.val_split, max_val=o.max_val if o.data == WORLD else 0)
    val = data_set(o, o.val_split, o.max_val, say=relay)
    try:
        return val, o.val_split, data_set(o, o.train_split, o.max_train, say=relay)
    except DataError as fault:
        say(f"no baselines, which are counted on a training split: {fault}")
        return val, o.val_split, None
