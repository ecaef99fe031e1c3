"""`minifcn train`: from options to a run folder with a trained net, its measures, its pictures and a report.

Without arguments it trains FCN-8s on the embedded world. `--config RUN/config.json` repeats a run, `--resume RUN` goes
on with one that was stopped.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from minifcn.backend import choose_device
from minifcn.checkpoint import RunFolder, load_latest
from minifcn.command import parse, run
from minifcn.data.batches import Preprocessing
from minifcn.errors import UsageError
from minifcn.kernels.threads import set_threads
from minifcn.recipes import Options, from_dict, nearest, preset
from minifcn.training import KNOWN, Interrupted, Trainer, environment

# what may be changed when a run is resumed: nothing that decides what the net is or learns
FREE_ON_RESUME = {
    "resume",
    "stop_after",
    "save_every",
    "samples",
    "device",
    "threads",
    "on_save_error",
    "detect_anomaly",
}
MOST_CONFIG_BYTES = 1 << 20


def main(argv: list[str]) -> int:
    """Parse, train, report. Returns 0, or 1 if --overfit did not come to know its images."""
    options = parse(Options, argv, verb="train", default=starting_point(argv))
    device, why = choose_device(options.device)
    print(f"device {why}")
    set_threads(options.threads or None)
    if options.resume:
        trainer = resumed(options, device)
    else:
        trainer = begun(options, device)
    with trainer.folder:
        try:
            result = trainer.run()
        except Interrupted as stop:
            print(stop, file=sys.stderr if stop.exit_code else sys.stdout)
            return stop.exit_code
    if options.overfit and result["pixel_accuracy"] < KNOWN:
        print(f"pixel accuracy {result['pixel_accuracy']:.3f} on the images it saw: raise --epochs or --lr")
        return 1
    return 0


def starting_point(argv: list[str]) -> Options:
    """The options that the command line then changes: of a run to resume, of a config file, or of a recipe."""
    resume, config, recipe = (value_of(argv, name) for name in ("resume", "config", "recipe"))
    if sum(value is not None for value in (resume, config, recipe)) > 1:
        raise UsageError("--resume, --config and --recipe each say where the options come from; give one of them")
    if resume:
        return dataclasses.replace(options_of_run(Path(resume)), resume=resume, stop_after=0)
    if config:
        return dataclasses.replace(read_config(Path(config)), run="", resume="", config=config)
    options = preset(recipe or "toy")
    if value_of(argv, "overfit") is not None:
        options = dataclasses.replace(
            options, dropout=0.0, mirror=False, epochs=400, batch=1, schedule="fixed", weight_decay=0.0
        )
        options = dataclasses.replace(options, translate=0, crop=0, scale_min=1.0, scale_max=1.0, stages="8")
    return options


def value_of(argv: list[str], name: str) -> str | None:
    """What the command line gives for --name, before it is parsed in full."""
    for i, word in enumerate(argv):
        if word == f"--{name}":
            return argv[i + 1] if i + 1 < len(argv) else None
        if word.startswith(f"--{name}="):
            return word.split("=", 1)[1]
    return None


def read_config(path: Path) -> Options:
    """The options in a `config.json`; one sentence for a file that is missing, too large or not JSON."""
    if path.is_dir():
        path = path / "config.json"
    try:
        if path.stat().st_size > MOST_CONFIG_BYTES:
            raise UsageError(f"{path}: {path.stat().st_size} bytes; a configuration has less than {MOST_CONFIG_BYTES}")
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise UsageError(f"{path}: cannot be read ({fault.strerror}); expected a run's config.json") from fault
    except (ValueError, RecursionError) as fault:
        raise UsageError(f"{path}: is not JSON in UTF-8 ({fault}); expected a run's config.json") from fault
    if not isinstance(found, dict):
        raise UsageError(f"{path}: holds {type(found).__name__}; expected an object with the field options")
    if "options" not in found:
        raise UsageError(f"{path}: has no field options; {nearest('options', found) if found else 'it is empty'}")
    return from_dict(found["options"], source=path)


def options_of_run(run_folder: Path) -> Options:
    """The options of the newest good checkpoint in a run folder."""
    if not run_folder.is_dir():
        raise UsageError(f"{run_folder}: found no such folder; expected the folder of an earlier run")
    checkpoint = load_latest(run_folder, warn=lambda _: None)
    if checkpoint is None:
        raise UsageError(f"{run_folder}: holds no checkpoint to resume; start the run again")
    return from_dict(checkpoint.meta.get("options"), source=checkpoint.path)


def begun(options: Options, device: str) -> Trainer:
    """A new run, its folder made and its configuration written."""
    train, val = options.data_sets()
    folder = RunFolder(options.run or free_folder(options.recipe))
    options = dataclasses.replace(options, run=str(folder.path), config="")
    if (folder.path / "config.json").exists():
        folder.close()
        raise UsageError(
            f"{folder.path}: holds a run already; --resume {folder.path} goes on with it, or name another --run"
        )
    trainer = Trainer(options, folder, train, val, device=device)
    config = {
        "options": options.as_dict(),
        "classes": list(trainer.classes),
        "preprocessing": trainer.preprocessing.as_dict(),
        "images": {"train": len(trainer.train_set), "val": len(trainer.val_set)},
        "environment": environment(device),
    }
    (folder.path / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    return trainer


def resumed(options: Options, device: str) -> Trainer:
    """A run as its newest good checkpoint left it."""
    path = Path(options.resume)
    original = options_of_run(path)
    changed = [
        field.name
        for field in dataclasses.fields(Options)
        if field.name not in FREE_ON_RESUME and getattr(options, field.name) != getattr(original, field.name)
    ]
    if changed:
        name = changed[0]
        raise UsageError(
            f"--resume {path}: {name} was {getattr(original, name)!r} and cannot become {getattr(options, name)!r}; "
            "start a new run for another choice"
        )
    train, val = options.data_sets()
    folder = RunFolder(path, create=False)
    checkpoint = folder.latest()
    if checkpoint is None:
        folder.close()
        raise UsageError(f"{path}: holds no checkpoint to resume; start the run again")
    try:
        preprocessing = Preprocessing.from_dict(checkpoint.meta.get("preprocessing", {}))
        options = dataclasses.replace(options, resume="", stop_after=options.stop_after)
        trainer = Trainer(options, folder, train, val, preprocessing=preprocessing, device=device)
        trainer.restore(checkpoint)
    except BaseException:
        folder.close()
        raise
    print(f"resumed {path} after step {trainer.progress.step}")
    return trainer


def free_folder(recipe: str) -> Path:
    """runs/RECIPE, or the first of runs/RECIPE-2, runs/RECIPE-3 ... that does not exist."""
    base = Path("runs") / recipe
    path, number = base, 1
    while path.exists():
        number += 1
        path = base.with_name(f"{recipe}-{number}")
    return path


if __name__ == "__main__":
    run(main)
