"""`minifcn train`: train a net and write a run folder with metrics, pictures and a report.

Without arguments it trains FCN-2s on the embedded world, by recipe `world`; on other data, or from other weights, the
options that are not given are those of recipe `toy`. `--config RUN/config.json` repeats a run, `--resume RUN` goes on
with one that was stopped. `--dry-run` says what a run would do. `mpiexec -n 4 minifcn train` shares each step among
four processes (`training/ranks.py`). With `--watch`, report.html in the run folder shows how far it is.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minifcn.cli.command import finish, image_size, read, relay, say, terminal_width, warn, with_flags
from minifcn.errors import UsageError
from minifcn.formats.limits import path_of
from minifcn.kernels.threads import set_threads
from minifcn.training import setup
from minifcn.training.device import choose_device
from minifcn.training.loop import KNOWN, Trainer
from minifcn.training.net_record import CHOICES
from minifcn.training.options import Options
from minifcn.training.plan import plan
from minifcn.training.ranks import ALONE, Alone, together
from minifcn.training.recipes import RECIPES, TRANSFER, doubts, missing_beginning, preset, transferred
from minifcn.training.run_folder import (
    check_unused,
    checkpoints,
    free_folder,
    options_of_run,
    read_config,
    run_folder,
)
from minifcn.training.runlog import write_json
from minifcn.training.signals import Interrupted
from minifcn.training.trained import of_checkpoint
from minifcn.training.transfer import start, starting_weights

# What may be changed when a run is resumed: nothing that decides what the net is or learns. The folder of the data may
# have moved; whether it holds the same classes and images is checked.
FREE_ON_RESUME = {
    "resume",
    "data",
    "stop_after",
    "save_every",
    "samples",
    "watch",
    "device",
    "threads",
    "workers",
    "on_save_error",
    "detect_anomaly",
}
DRY_RUN = (
    "--dry-run: say what the run would do, every layer with its shape, learning rate and multiply-adds, the steps, the "
    "memory of one; compute and write nothing. --dry-run=500x375: for images of that size"
)

# What recipe world, which trains without arguments, was not made for; with these it is recipe toy, unless one is named.
ELSEWHERE = {"data", "train_data", "trunk", "init", "overfit"}

# --overfit: nothing that disturbs, steps that are many and small, and images large enough that a grid of stride 8 can
# follow their outlines: at 64 pixels no FCN-8s gets beyond 0.98
OVERFIT: dict[str, Any] = {
    "world_size": 400, "stages": "8", "layers": 11, "width": 4, "dropout": 0.0,
    "epochs": 400, "measure_every": 5, "batch": 1, "lr": 0.01, "schedule": "poly", "weight_decay": 0.0,
    "mirror": False, "translate": 0, "crop": 0, "scale_min": 1.0, "scale_max": 1.0,
    "rotate": 0.0, "jitter": 0.0,
}  # fmt: skip


def main(argv: list[str]) -> int:
    """Parse, train, report. Return 0, or 1 if --overfit did not learn its images."""
    with together(say=warn) as ranks:
        return trained(argv, ranks)


def trained(argv: list[str], ranks: Alone) -> int:
    """`main` on one rank of a run."""
    width = terminal_width()
    names = textwrap.fill(f"recipes: {', '.join(RECIPES)}", width, break_on_hyphens=False)
    after = f"{textwrap.fill(DRY_RUN, width)}\n\n{names}"
    words, given = read(Options, argv, verb="train", optional=["dry_run"])
    if words:
        raise UsageError(f"found {words[0]!r}, which belongs to no option; `minifcn train --help` lists them")
    dry = given.pop("dry_run", None)  # no option of a run: a config.json does not keep it
    size = image_size(dry) if dry else None
    options = finish(Options, given, verb="train", default=starting_point(given), after=after)
    device, why = choose_device(options.device, card=ranks.place)
    say(f"device {why}")
    if how := ranks.choose_card(device):
        say(how)
    set_threads(ranks.threads(options.threads))
    if dry is not None:
        for line in plan(options, size=size, device=device, ranks=ranks.size):
            say(with_flags(line))
        return 0
    trainer = (resumed if options.resume else begun)(options, device, ranks)
    with trainer.folder:
        try:
            result = trainer.run()
        except Interrupted as stop:
            go_on = f"minifcn train --resume {shlex.quote(str(trainer.folder.path))}"
            say(f"{stop}; to go on: {go_on}", to=sys.stderr if stop.exit_code else None)
            return stop.exit_code
    if options.overfit and result["pixel_accuracy"] < KNOWN:
        say(f"pixel accuracy {result['pixel_accuracy']:.3f} on the images it saw: raise --epochs or --lr")
        return 1
    return 0


def starting_point(given: Mapping[str, Any]) -> Options:
    """Return the options that the command line then changes: of a run to resume, of a config file, or of a recipe."""
    resume, config, recipe = (given.get(name) for name in ("resume", "config", "recipe"))
    if sum(value is not None for value in (resume, config, recipe)) > 1:
        raise UsageError("--resume, --config and --recipe each say where the options come from; give one of them")
    if resume:
        return dataclasses.replace(options_of_run(path_of(resume)), resume=resume, stop_after=0)
    if config:
        options = dataclasses.replace(read_config(path_of(config)), run="", resume="", config=config)
    else:
        usual = "toy" if ELSEWHERE & given.keys() else "world"
        if recipe == TRANSFER:
            recipe, why = transferred(given.get("trunk", ""), given.get("init", ""))
            if not given.get("help"):
                say(f"recipe {TRANSFER}: {recipe}, {why}")
        options = preset(recipe or usual, stages=given.get("stages", ""))
    if "overfit" not in given:
        return options
    # weights fit one width, and break at a rate for random ones
    kept = ("width", "lr") if options.init or given.get("init") else ()
    return dataclasses.replace(options, **{name: value for name, value in OVERFIT.items() if name not in kept})


def begun(options: Options, device: str, ranks: Alone = ALONE, *, again: bool = False) -> Trainer:
    """Return a new run in a new folder with its configuration; `again`: in a folder that holds only a configuration."""
    path = Path(options.run if again else ranks.once(lambda: str(unused_folder(options))))
    if missing := missing_beginning(options):
        raise UsageError(missing)
    weights = starting_weights(options.init, say=warn) if options.init else []
    for line in doubts(options, [one.net for one in weights]):
        say(f"warning: {with_flags(line)}")
    train, val = setup.data_sets(options, say=relay, ranks=ranks)
    was_there = path.exists()
    folder = run_folder(path, ranks, say=warn)
    try:
        options = dataclasses.replace(options, run=str(path), config="")
        preprocessing = setup.preprocessing(options, weights[0].preprocessing if weights else None)
        how: Any = {"device": device, "say": relay, "words": with_flags, "ranks": ranks}
        trainer = Trainer(options, folder, train, val, preprocessing=preprocessing, **how)
        for line in start(trainer.net, weights) if weights else ():
            say(line)
        config = {
            "options": trainer.options.as_dict(),
            "classes": list(trainer.classes),
            "preprocessing": trainer.preprocessing.as_dict(),
            "images": {"train": len(trainer.train_set), "val": len(trainer.val_set)},
            "environment": trainer.environment,
        }
        ranks.once(lambda: write_json(path / "config.json", config))
    except BaseException:
        (folder.close if was_there else folder.discard)()
        raise
    return trainer


def unused_folder(options: Options) -> Path:
    """Return the folder for a new run; `UsageError` if the one that is named holds a run."""
    path = path_of(options.run or free_folder(options.recipe))
    if (path / "config.json").exists():
        raise UsageError(f"{path}: holds a run already; --resume {path} goes on with it, or name another --run")
    check_unused(path)
    return path


def resumed(options: Options, device: str, ranks: Alone = ALONE) -> Trainer:
    """Return a run as its newest good checkpoint left it."""
    path = path_of(options.resume)
    original = options_of_run(path)
    was, wanted = original.as_dict(), options.as_dict()
    changed = [name for name in was if name not in FREE_ON_RESUME and wanted[name] != was[name]]
    if changed:
        found = "; ".join(f"{name} was {was[name]!r} and cannot become {wanted[name]!r}" for name in changed)
        fits = not set(CHOICES) & set(changed)  # the net is the same: to train it longer, for one
        cure = f", which begins with the weights of this one with --init {shlex.quote(str(path))}" if fits else ""
        raise UsageError(f"--resume {path}: {found}; start a new run for another choice{cure}")
    if not ranks.once(lambda: bool(checkpoints(path))):
        say(f"{path}: was interrupted before its first checkpoint, and starts again from its config.json")
        return begun(dataclasses.replace(options, run=str(path), resume=""), device, ranks, again=True)
    folder = run_folder(path, ranks, create=False, say=warn)
    try:
        train, val = setup.data_sets(options, say=relay, ranks=ranks)
        checkpoint = folder.latest()
        if checkpoint is None:
            raise UsageError(f"{path}: its checkpoint has vanished; start the run again")
        preprocessing = of_checkpoint(checkpoint).preprocessing  # and its arrays fit before a net of that size is made
        options = dataclasses.replace(options, resume="")
        how: Any = {"device": device, "say": relay, "words": with_flags, "ranks": ranks}
        trainer = Trainer(options, folder, train, val, preprocessing=preprocessing, **how)
        trainer.restore(checkpoint)
    except BaseException:
        folder.close()
        raise
    say(f"resumed {path} after step {trainer.progress.step}")
    return trainer
