"""What a run leaves in its folder for people: the evaluation, samples and the report, and a page while it goes on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from minifcn import viz
from minifcn.data.inputs import collate_inputs
from minifcn.errors import MinifcnError
from minifcn.formats.checkpoint import replace_file
from minifcn.metrics import ConfusionMatrix
from minifcn.training import runlog
from minifcn.training.evaluation import baselines, evaluation_record, measures, predict, table
from minifcn.training.report import write_report
from minifcn.training.run_state import Run

PAUSE = 10  # seconds between two pages of a run that goes on, at least
EFFORT = 0.05  # the part of a run's time that its pages may take


def write_results(run: Run, matrix: ConfusionMatrix, second: ConfusionMatrix | None) -> dict[str, Any]:
    """Write the evaluation, samples and report of a run, say where they are, and return the evaluation.

    `matrix` is the confusion matrix of the labels, `second` of the second labels, if the net has a head for them.
    """
    guesses = baselines(run.train_set, run.val_set, workers=run.options.workers)
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


class LivePage:
    """The report of a run that goes on, if its options ask for it: `with LivePage(run) as page: ... page.update()`.

    It shows the curves, the last measurement, what the net predicts now and the warnings, and a browser loads it again
    by itself. The run can do without it: what cannot be written is only said. When the run stops early, the page that
    it leaves no longer loads itself again.
    """

    def __init__(self, run: Run) -> None:
        self.run, self._due = run, 0.0

    def __enter__(self) -> LivePage:
        if self.run.options.watch and self.update():
            self.run.say(f"{self.run.path('report.html')} shows how far the run is; a browser loads it again by itself")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind and self.run.options.watch and self.run.ranks.first:  # other ranks may have failed: wait for none
            self._write(refresh=0)

    def update(self) -> bool:
        """Write samples and page again, unless that was just done; return whether it was written."""
        return self.run.options.watch and self.run.ranks.once(self._write_if_due)

    def _write_if_due(self) -> bool:
        began = time.perf_counter()
        if began < self._due:
            return False
        written = self._write(refresh=PAUSE)
        now = time.perf_counter()
        self._due = now + max(PAUSE, (now - began) / EFFORT)
        return written

    def _write(self, *, refresh: int) -> bool:
        try:
            self.run.folder.check()
            if refresh:
                draw_samples(self.run, self.run.path("samples"))
            write_report(self.run.folder.path, refresh=refresh)
        except (MinifcnError, OSError) as fault:
            self.run.say(f"warning: the page of the run cannot be written: {fault}")
            return False
        return True
