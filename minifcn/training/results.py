"""What a finished run leaves in its folder: the evaluation, samples and the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minifcn import viz
from minifcn.data.inputs import collate_inputs
from minifcn.formats.checkpoint import replace_file
from minifcn.metrics import ConfusionMatrix
from minifcn.training import runlog
from minifcn.training.evaluation import baselines, evaluation_record, measures, predict, table
from minifcn.training.report import write_report
from minifcn.training.run_state import Run


def write_results(run: Run, matrix: ConfusionMatrix, second: ConfusionMatrix | None) -> dict[str, Any]:
    """Write the evaluation, samples and report of a run, say where they are, and return the evaluation.

    `matrix` is the confusion matrix of the labels, `second` of the second labels, if the net has a head for them.
    """
    guesses = baselines(run.train_set, run.val_set)
    result = evaluation_record(matrix, guesses, classes=run.classes, split=run.split(), images=len(run.val_set))
    if second is not None:
        result["geometry"] = measures(second, run.geometry_classes)
        run.say(f"the second head: pixel accuracy {second.pixel_accuracy():.3f}")
    runlog.write_json(run.path("evaluation.json"), result)
    draw_samples(run, run.path("samples"))
    report = write_report(run.folder.path)
    for line in table(matrix, guesses).split("\n"):
        run.say(line)
    for path in (report, *map(run.path, ("curves.png", "confusion.png", "samples", "checkpoints"))):
        run.say(f"wrote {path}")
    return result


def draw_samples(run: Run, folder: Path) -> None:
    """Draw the first images of the validation set, each beside its label and the prediction."""
    folder.mkdir(exist_ok=True)
    for i in range(min(run.options.samples, len(run.val_set))):
        sample = run.val_set[i]
        images, *_ = collate_inputs([sample], run.inputs)
        with run.measured_net():
            label = predict(run.net, *images)[0]
        picture = viz.triptych(sample.image, sample.label, label, run.classes)
        replace_file(folder / f"{i:03d}-{sample.id}.png", [viz.png(picture)], sync=False)
