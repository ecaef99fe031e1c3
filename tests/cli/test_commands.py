"""train, evaluate, predict and data as a user meets them: what they leave, what they refuse, and how (row 44)."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_cases import disk_almost_full
from hostile_files import MEGABYTE, at_most
from PIL import Image
from some_slow import slow_but

from minifcn.cli import evaluate as evaluate_command
from minifcn.cli.command import help_text
from minifcn.cli.train import starting_point
from minifcn.cli.verbs import main
from minifcn.data.dataset import Subset
from minifcn.data.files import read_image
from minifcn.data.opening import open_data
from minifcn.data.sample import VOID
from minifcn.data.shapes import CLASSES, Shapes
from minifcn.data.tools.make import make_tree
from minifcn.data.voc import VOCSegmentation
from minifcn.errors import UsageError
from minifcn.formats.checkpoint import load_checkpoint, save_checkpoint
from minifcn.formats.files import read
from minifcn.kernels.threads import set_threads
from minifcn.metrics import ConfusionMatrix
from minifcn.training import loop as training
from minifcn.training.evaluation import baselines
from minifcn.training.options import CHOICES, RANGES, Options, from_dict
from minifcn.training.prediction import Predictor
from minifcn.training.recipes import RECIPES, preset
from minifcn.training.run_folder import RunFolder, load_latest, read_config, step_path
from minifcn.training.trained import open_trained
from minifcn.viz import palette

ROOT = Path(__file__).parent.parent.parent
TINY = [
    "--recipe=toy",
    *("--width", "1", "--layers", "11", "--lr", "0.02", "--batch", "2", "--epochs", "2", "--samples", "0"),
    *("--max-train", "6", "--max-val", "3", "--threads", "1"),
]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    set_threads(None)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the embedded world, which tests only read."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", *TINY, "--samples", "2", "--run", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded world as a VOC tree."""
    return make_tree(tmp_path_factory.mktemp("data") / "tree", counts={"train": 5, "val": 3}, size=64, seed=1)


def refused(argv: list[str], capsys: pytest.CaptureFixture[str], *, code: int = 2) -> str:
    """The one line on stderr with which a command line is refused; nothing may be left behind by it."""
    before = sorted(Path().rglob("*"))
    capsys.readouterr()
    assert main(argv) == code
    line = capsys.readouterr().err
    assert line.startswith("minifcn: ") and line.count("\n") == 1 and "Traceback" not in line, line
    assert sorted(path for path in Path().rglob("*") if path != Path("runs")) == before
    return line.removeprefix("minifcn: ").strip()


# -------------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("--epoch 3", "option --epoch does not exist; did you mean --epochs?"),
        ("--max_trian 3", "option --max-trian does not exist; did you mean --max-train?"),
        ("--no-width", "option --no-width does not exist; did you mean --width?"),
        ("--qqq", "option --qqq does not exist; `minifcn train --help` lists the options"),
        ("--recipe tpy", "recipe 'tpy' does not exist; did you mean 'toy'?"),
        ("--recipe zzz", "recipe 'zzz' does not exist; known are world, toy, camvid, animals"),
        ("--width x", "option --width is 'x'; expected a whole number"),
        ("--width 1.5", "option --width is '1.5'; expected a whole number"),
        ("--lr high", "option --lr is 'high'; expected a number"),
        ("--lr=", "option --lr has no value; expected a number"),
        ("--lr --width 3", "option --lr has no value; expected a number"),
        ("--width 3 --run", "option --run has no value; expected a word after it"),
        ("--mirror=3", "option --mirror takes no value, found '3'; it is --mirror or --no-mirror"),
        ("foo", "found 'foo', which belongs to no option; `minifcn train --help` lists them"),
        ("--width -1", "option width is -1; expected a number from 1 to 512"),
        ("--lr nan", "option lr is nan; expected a number from 0.0 to 1000000.0"),
        ("--measure-every 0", "option measure_every is 0; expected a number of at least 1"),
        ("--schedule ploy", "option schedule is 'ploy'; expected one of fixed, step, poly"),
        ("--padding -1", 'option padding is \'-1\'; expected "same", "safe" or a number up to 999'),
        ("--padding 99999999999999999999", "option padding is '99999999999999999999'; expected"),
        ("--stages 8,16", "option stages is '8,16'; expected strides from coarse to fine, as 32,16,8,4,2"),
        ("--stages 7", "option stages is '7'; expected some of 32,16,8,4,2, from coarse to fine"),
        (
            "--trunk googlenet --stages 32 --padding 0 --fc 9",
            "option fc is 9, which googlenet does not have; expected 0",
        ),
        ("--scale-min 2", "option scale_min is 2.0, above scale_max 1.0"),
        ("--train-split tarin", "the embedded world has the splits train, val, test, not 'tarin'"),
        ("--max-train 9999999", "the embedded world's count is an integer from 1 to 1000000, not 9999999"),
        ("--data nowhere", "nowhere: no such folder (there is "),
        (
            "--recipe toy --padding 0 --max-train 1 --max-val 1",
            "upscore8 starts at pixel 69, after the image at 0: the crop offset",
        ),
        ("--resume a --config b", "--resume, --config and --recipe each say where the options come from; give one"),
        ("--resume nowhere", "nowhere: found no such folder; expected the folder of an earlier run"),
        ("--resume .", ".: holds no checkpoint to resume; start a new run"),
        ("--config nowhere", "nowhere: cannot be read (No such file or directory); expected a run's config.json"),
        ("--run /proc/minifcn --max-train 1 --max-val 1", "/proc/minifcn: the run folder cannot be written: "),
    ],
)
def test_what_train_refuses(argv: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows 44 and 12: one line, exit code 2, nothing written; and an exception for who asks with --debug."""
    assert refused(["train", *argv.split()], capsys).startswith(line)
    with pytest.raises(Exception, match=r".") as caught:
        main(["train", *argv.split(), "--debug"])
    assert getattr(caught.value, "exit_code", None) == 2


@pytest.mark.parametrize(("field", "least", "most"), RANGES)
def test_every_number_has_its_range(field: str, least: float, most: float) -> None:
    wrong = [least - 1, float("nan"), "1", None]
    for value in wrong if most == float("inf") else [*wrong, most + 1, float("inf")]:
        with pytest.raises(UsageError, match=f"option {field} is "):
            Options(**{field: value})


def test_every_choice_is_checked_and_every_option_belongs_to_a_check() -> None:
    for field in CHOICES:
        with pytest.raises(UsageError, match=f"option {field} is 'x'; expected one of "):
            Options(**{field: "x"})
    checked = {field for field, *_ in RANGES} | set(CHOICES) | {"padding", "stages", "stage_lr", "sampling", "inputs"}
    names = {"recipe", "data", "train_data", "train_split", "val_split", "run", "resume", "config", "init", "freeze"}
    names |= {"cache_features"}
    flags = {name for name, value in vars(Options()).items() if isinstance(value, bool)}
    assert checked | names | flags == set(vars(Options()))


def test_every_recipe_is_a_complete_set_of_choices() -> None:
    for name in RECIPES:
        options = preset(name)
        assert options.recipe == name and from_dict(options.as_dict(), source="x") == options


@pytest.mark.parametrize("verb", ["train", "evaluate", "predict", "data"])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_readable(
    verb: str, flag: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as leaving:
        main([verb, flag])
    printed = capsys.readouterr().out
    assert leaving.value.code == 0 and max(map(len, printed.splitlines())) <= 80
    assert printed.startswith(f"usage: minifcn {verb} ") and "--debug" in printed
    paragraph = printed.partition("\n\n")[2].partition("\n\n")[0]
    assert "  " not in paragraph, "lines of the docstring are joined by one space"


def test_without_arguments_the_world_is_learned_and_elsewhere_one_begins_with_toy() -> None:
    assert starting_point({}) == starting_point({"seed": 3}) == preset("world") and preset("world").world_size >= 96
    for name, value in {"data": "d", "train_data": "d", "trunk": "squeezenet1.0", "init": "w", "overfit": 2}.items():
        assert starting_point({name: value}).recipe == "toy"
        assert starting_point({name: value, "recipe": "world"}).recipe == "world"
    assert starting_point({"recipe": "toy"}) == preset("toy") == Options()


def test_help_tells_every_option_with_the_value_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_text(Options, verb="train", default=Options(epochs=77))
    for name, value in vars(Options()).items():
        flag = name.replace("_", "-")
        assert (f"  --[no-]{flag} " if isinstance(value, bool) else f"  --{flag} ") in text, name
    assert "[77]" in text and "\n\nhow it learns\n" in text and '"""' not in text
    with pytest.raises(SystemExit):
        main(["train", "--recipe", "camvid", "--help"])
    printed = capsys.readouterr().out
    assert f"[{preset('camvid').epochs}]" in printed and "recipes: world, toy, camvid, animals" in printed


# --------------------------------------------------------------------------------------------------------- config.json


def test_a_config_gives_the_same_run_bit_for_bit(run: Path, quick: None, tmp_path: Path) -> None:
    for name, argument in (("again", run / "config.json"), ("and-again", run)):
        assert main(["train", "--config", str(argument), "--run", name]) == 0
        theirs, ours = load_latest(run), load_latest(name)
        assert theirs is not None and ours is not None
        assert {name: array.tobytes() for name, array in ours.tensors.items()} == {
            name: array.tobytes() for name, array in theirs.tensors.items()
        }
        config, original = (json.loads((each / "config.json").read_text()) for each in (tmp_path / name, run))
        assert config["options"] | {"run": ""} == original["options"] | {"run": ""}
        assert (tmp_path / name / "evaluation.json").read_text() == (run / "evaluation.json").read_text()


def test_a_config_may_be_changed_by_the_command_line(run: Path, quick: None) -> None:
    config = run / "config.json"
    assert main(["train", "--config", str(config), "--seed", "5", "--epochs", "1"]) == 0
    options = json.loads(Path("runs/toy/config.json").read_text())["options"]
    assert (options["seed"], options["epochs"], options["width"]) == (5, 1, 1)
    assert main(["train", f"--config={config}", "--epochs", "1"]) == 0
    assert Path("runs/toy-2/config.json").exists()


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "is not JSON in UTF-8 (Expecting value"),
        (b"{", "is not JSON in UTF-8"),
        (b'{"options": {"lr": \xff}}', "is not JSON in UTF-8"),
        (DEEP.encode(), "is not JSON in UTF-8 (more than 50 levels in one another"),
        (
            b'{"options": {"epochs": ' + b"9" * 5000 + b"}}",
            "is not JSON in UTF-8 (a number of 5000 digits, of at",
        ),
        (b'{"options": {"lr": 1, "lr": 2}}', "is not JSON in UTF-8 (a key twice in one object, 'lr')"),
        (b" " * (1 << 20) + b"{}", "1048578 bytes; expected a run's config.json, a file of at most 1048576"),
        (b"[]", "holds list; expected an object, a run's config.json"),
        (b"{}", "has no field options"),
        (b'{"option": {}}', "field 'option' does not exist; did you mean 'options'?"),
        (b'{"options": {}, "lr": 3}', "field 'lr' does not exist; known are options, classes"),
        (b'{"options": 3}', "options are int; expected names with values"),
        (b'{"options": {"epoch": 3}}', "option 'epoch' does not exist; did you mean 'epochs'?"),
        (b'{"options": {"epochs": "3"}}', "option epochs is '3'; expected int"),
        (b'{"options": {"epochs": 3.0}}', "option epochs is 3.0; expected int"),
        (b'{"options": {"epochs": true}}', "option epochs is True; expected int"),
        (b'{"options": {"lr": true}}', "option lr is True; expected float"),
        (b'{"options": {"mirror": 1}}', "option mirror is 1; expected bool"),
        (b'{"options": {"stages": 8}}', "option stages is 8; expected str"),
        (b'{"options": {"run": null}}', "option run is None; expected str"),
        (b'{"options": {"lr": [[[1]]]}}', "option lr is [[[1]]]; expected float"),
        (b'{"options": {"epochs": -3}}', "option epochs is -3; expected a number from 1 to 1000000"),
        (b'{"options": {"lr": NaN}}', "is not JSON in UTF-8 (NaN is no finite number"),
        (b'{"options": {"lr": 1e999}}', "is not JSON in UTF-8 (1e999 is no finite number"),
        (b'{"options": {"width": 100000000000000000000}}', "option width is 100000000000000000000; expected a number"),
        (
            b'{"options": {"recipe": "a\\u0000"}}',
            "option recipe is 'a\\x00'; expected a name, which the run folder gets",
        ),
        (b'{"options": {"recipe": "../../up"}}', "option recipe is '../../up'; expected a name"),
    ],
)
def test_a_config_is_hostile_until_it_is_checked(content: bytes, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Row 44: unknown keys, wrong types, values out of range, not UTF-8, huge, deeply nested."""
    Path("bad.json").write_bytes(content)
    assert refused(["train", "--config", "bad.json"], capsys).startswith(f"bad.json: {line}")


def test_a_config_that_never_ends_is_not_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(["train", "--config", "/dev/zero"], capsys).startswith(
        "/dev/zero: 0 bytes; expected a run's config.json"
    )


def test_a_config_of_another_editor_is_read(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (run / "config.json").read_text(encoding="utf-8")
    Path("windows.json").write_text(text.replace("\n", "\r\n"), encoding="utf-8-sig")
    assert read_config(Path("windows.json")) == read_config(run)


# --------------------------------------------------------------------------------------------------------- run folders


def test_a_run_folder_is_complete(run: Path) -> None:
    for name in ("config.json", "metrics.jsonl", "evaluation.json", "curves.png", "confusion.png", "report.html"):
        assert (run / name).stat().st_size > 100, name
    assert sorted(path.name for path in (run / "samples").iterdir()) == ["000-val-000000.png", "001-val-000001.png"]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "best.safetensors",
        "step-00000003.safetensors",
        "step-00000006.safetensors",
    ]
    assert sorted(path.name for path in run.iterdir()) == [
        *("checkpoints", "config.json", "confusion.png", "curves.png", "evaluation.json", "lock"),
        *("metrics.jsonl", "report.html", "samples"),
    ]
    config = json.loads((run / "config.json").read_text())
    assert config["classes"] == list(CLASSES) and config["images"] == {"train": 6, "val": 3}
    assert config["environment"]["threads"] == 1 and config["environment"]["device"] == "cpu"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["step"], line["epoch"]) for line in lines] == [
        *(("train", 3, 0), ("val", 3, 0), ("train", 6, 1), ("val", 6, 1))
    ]
    last = lines[-1]
    result = json.loads((run / "evaluation.json").read_text())
    assert result["mean_iu"] == last["mean_iu"] and result["iu"] == last["iu"]
    report = (run / "report.html").read_text(encoding="utf-8")
    assert report.count("data:image/png") == 4 and "http" not in report.replace("http-equiv", "")


def test_a_run_that_is_there_is_not_written_over(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(["train", *TINY, "--run", str(run)], capsys)
    assert line == f"{run}: holds a run already; --resume {run} goes on with it, or name another --run"


def test_a_run_does_not_begin_in_a_folder_of_others(run: Path, quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither their files nor the checkpoints of an older run, whose config.json is gone, are touched."""
    shutil.copytree(run, "old")
    Path("old/config.json").unlink()
    Path("theirs").mkdir()
    Path("theirs/a.tmp").write_text("theirs")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    line = refused(["train", *TINY, "--run", "theirs"], capsys)
    assert line == ("theirs: is not empty, and a.tmp in it is not of a run; name a new or an empty folder (--run)")
    line = refused(["train", *TINY, "--run", "old"], capsys)
    assert line.startswith("old: holds the checkpoints of a run, but not its config.json; --resume old goes on")
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    assert main(["train", "--resume", "old"]) == 0


def test_an_interruption_before_the_first_checkpoint_is_no_dead_end(
    run: Path, quick: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(training.Trainer, "save", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(["train", *TINY, "--run", "r"]) == 130
    assert not any(Path("r/checkpoints").iterdir())
    assert "r: holds a run already; --resume r goes on" in refused(["train", *TINY, "--run", "r"], capsys)
    assert "width was 1 and cannot become 3" in refused(["train", "--resume", "r", "--width", "3"], capsys)
    assert main(["train", "--resume", "r"]) == 0
    assert "starts again from its config.json" in capsys.readouterr().out
    theirs, ours = load_latest(run), load_latest("r")
    assert theirs is not None and ours is not None
    assert all(ours.tensors[name].tobytes() == array.tobytes() for name, array in theirs.tensors.items())
    Path("r2").mkdir()
    RunFolder("r2").close()  # killed before config.json
    assert "r2: holds no checkpoint to resume; start a new run" in refused(["train", "--resume", "r2"], capsys)
    assert main(["train", *TINY, "--run", "r2", "--stop-after", "1"]) == 0


@pytest.mark.parametrize("name", ["metrics.jsonl", "evaluation.json", "report.html", "samples", "predictions"])
def test_links_in_a_run_folder_lead_nowhere(run: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(run, "r")
    Path("outside").mkdir()
    Path("outside/file").write_text("theirs")
    path = Path("r", name)
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.symlink_to(Path("outside", "" if "." not in name else "file").absolute())
    photograph("x.png")
    for argv in (["evaluate", "r"], ["predict", "r", "x.png"], ["train", "--resume", "r"]):
        assert f"r/{name}: found a link, expected a f" in refused(argv, capsys)
    assert os.listdir("outside") == ["file"] and Path("outside/file").read_text() == "theirs"


@pytest.mark.usefixtures("undrawn")
def test_a_tilde_is_the_home_folder_wherever_a_path_is_named(
    run: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where no shell has replaced it: in quotes, behind "=", in a config.json, in the library's functions."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MINIFCN_DATA", "~")
    shutil.copytree(run, tmp_path / "run")
    shutil.copytree(tree, tmp_path / "tree")
    picture = next((tree / "JPEGImages").iterdir())
    shutil.copy(picture, tmp_path / "photo.jpg")
    config = {"options": {"width": 1, "layers": 11, "data": "~/tree", "init": "~/run"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "names.txt").write_text("\n".join(open_data("~/tree", "train").classes))
    for words in (
        "evaluate ~/run --json=~/e.json",
        "predict ~/run ~/photo.jpg --out=~/one",
        "predict ~/run ~/*.jpg --out=~/many",
        "export ~/run ~/net.safetensors",
        "export ~/run/checkpoints/best.safetensors ~/best.safetensors",
        "inspect ~/net.safetensors",
        "convert ~/net.safetensors ~/plain.safetensors --plain",
        "data make ~/new --train 1 --val 1 --size 64",
        "data check ~/tree --classes=~/names.txt",
        "train --config=~/config.json --dry-run",
        "train --width 1 --layers 11 --data=$MINIFCN_DATA/tree --init=~/run --dry-run",
        "train --resume=~/run --device cpu",
    ):
        assert main(words.split()) == 0, (words, capsys.readouterr().err)
    for name in ("e.json", "one/photo-mask.png", "many/photo-mask.png", "net.safetensors", "new/JPEGImages"):
        assert (tmp_path / name).exists(), name
    assert main(["train", *TINY, "--run=~/second", "--stop-after", "1"]) == 0 and (tmp_path / "second/lock").exists()
    assert not any(path.name == "~" for path in tmp_path.iterdir())
    assert load_latest("~/run") and open_trained("~/run").step and load_checkpoint("~/plain.safetensors")
    assert read_image("~/photo.jpg").shape == read_image(Path("~/photo.jpg")).shape == read_image(picture).shape
    assert len(VOCSegmentation("~/tree", "val")) == len(open_data(Path("~/tree"), "val"))


@pytest.mark.parametrize("word", ["~nobody-of-this-name/x.npz", "~x.npz", "~.npz"])
def test_the_tilde_of_a_user_who_does_not_exist_is_a_letter(
    word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["inspect", word], ["data", "check", word], ["train", "--data", word, "--device", "cpu"]):
        assert main(words) == 2 and capsys.readouterr().err.startswith(f"minifcn: {word}: ")
    Path(word).parent.mkdir(exist_ok=True)
    np.savez(word, a=np.zeros(3))
    assert main(["inspect", word]) == 0


@pytest.mark.parametrize("place", ["/dev/stdout", "link.json"])
def test_evaluate_writes_where_a_link_leads(place: str, run: Path, tmp_path: Path) -> None:
    """As a shell's `>` does."""
    (tmp_path / "link.json").symlink_to("there.json")
    argv = [sys.executable, "-m", "minifcn", "evaluate", str(run), "--json", place]
    with open(tmp_path / "out", "w") as out:
        assert subprocess.run(argv, stdout=out, check=False).returncode == 0
    found = (tmp_path / ("out" if place == "/dev/stdout" else "there.json")).read_text()
    assert '"images": 3' in found and (tmp_path / "link.json").is_symlink()


def test_evaluate_leaves_no_half_of_a_file(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "e.json"
    for old in ("", "old"):
        if old:
            path.write_text(old)
        with disk_almost_full(100):
            assert main(["evaluate", str(run), "--json", str(path)]) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"minifcn: {path}: cannot be saved") and "File too large" in message
        assert (path.read_text() if path.exists() else "") == old and len(list(tmp_path.iterdir())) == bool(old)


def test_evaluate_writes_to_a_pipe(run: Path) -> None:
    reading, writing = os.pipe()
    try:
        assert main(["evaluate", str(run), "--json", f"/dev/fd/{writing}"]) == 0
        assert json.loads(os.read(reading, 1 << 20))["images"] == 3
    finally:
        os.close(reading), os.close(writing)


def test_options_of_a_run_stay_as_they_are(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(["train", "--resume", str(run), "--width", "3", "--lr", "3"], capsys)
    assert line == (
        f"--resume {run}: width was 1 and cannot become 3; lr was 0.02 and cannot become 3.0; "
        "start a new run for another choice"
    )


@pytest.mark.parametrize("longer", [["--epochs", "4"], ["--lr", "3"], ["--seed", "9", "--batch", "1"]], ids=" ".join)
def test_another_training_of_the_same_net_begins_with_its_weights(
    longer: list[str], run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(["train", "--resume", str(run), *longer], capsys)
    assert line.endswith(f"for another choice, which begins with the weights of this one with --init {run}")


def test_a_run_may_go_on_with_its_data_elsewhere(tree: Path, quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    """What was moved is found by --data; other images are refused."""
    tree.rename("here")
    try:
        assert main(["train", *TINY, "--data", "here", "--run", "r", "--stop-after", "2"]) == 0
        Path("here").rename("there")
        assert "here: no such folder" in refused(["train", "--resume", "r"], capsys)
        assert "its classes are ['background', 'ball'" not in refused(
            ["train", "--resume", "r", "--data", "world"], capsys
        )
        assert main(["train", "--resume", "r", "--data", "there"]) == 0
    finally:
        next(path for path in (Path("here"), Path("there")) if path.exists()).rename(tree)


def test_two_processes_do_not_share_a_run_folder(run: Path, quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Row 11."""
    with RunFolder("mine"):
        line = refused(["train", *TINY, "--run", "mine"], capsys)
        assert line.startswith("mine: is in use by process ")
    assert main(["train", *TINY, "--run", "mine", "--stop-after", "1"]) == 0
    with RunFolder("mine", create=False):
        assert refused(["train", "--resume", "mine"], capsys).startswith("mine: is in use by process ")


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 12."""
    monkeypatch.setattr(training.Trainer, "_one_step", lambda self: pytest.fail("a step was made"))
    Path("file").write_text("")
    line = refused(["train", *TINY, "--run", "file/run"], capsys)
    assert line.startswith("file/run: the run folder cannot be written: Not a directory")


def test_a_damaged_checkpoint_is_said_and_the_one_before_is_taken(
    quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Row 6, on the command line; and again to the very end."""
    assert main(["train", *TINY, "--run", "r"]) == 0
    expected = step_path("r", 6).read_bytes()
    step_path("r", 6).write_bytes(expected[:-100])
    capsys.readouterr()
    assert main(["train", "--resume", "r"]) == 0
    out, error = capsys.readouterr()
    assert "step-00000006.safetensors: " in error and "going on from step-00000003.safetensors" in error
    assert "resumed r after step 3" in out and step_path("r", 6).read_bytes() == expected


def test_commands_are_programs(run: Path) -> None:
    """A few through a process of their own, as `minifcn` and as `python -m`."""
    environ = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for words, code, text in (
        (["minifcn", "train", "--epoch", "3"], 2, "did you mean --epochs?"),
        (["minifcn.train", "--debug", "--epoch", "3"], 1, "Traceback"),
        (["minifcn", "evaluate", str(run)], 0, "pixel position"),
        (["minifcn", "data", "make"], 2, "expected: minifcn data make DIR"),
        (["minifcn", "predict", str(run), "nothing.jpg"], 2, "nothing.jpg: found no such file"),
        (["minifcn", "doctor"], 0, "NumPy"),
    ):
        done = subprocess.run([sys.executable, "-m", *words], env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == code and text in (done.stderr if code else done.stdout), done.stderr
        assert code != 2 or done.stderr.count("\n") == 1


# ------------------------------------------------------------------------------------------------------------- evaluate


def test_evaluate_measures_what_training_measured(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(["evaluate", str(run), "--json", "result.json", "--threads", "1", "--workers", "3"]) == 0
    printed = capsys.readouterr().out
    ours, theirs = json.loads(Path("result.json").read_text()), json.loads((run / "evaluation.json").read_text())
    assert ours == theirs
    assert f"{run}/checkpoints/step-00000006.safetensors (step 6) on 3 images of world, split val" in printed
    assert f"this net         {theirs['pixel_accuracy']:>10.3f}" in printed and "majority class" in printed
    assert all(f"\n{name} " in printed for name in CLASSES)
    assert (
        main(["evaluate", str(run), "--absent", "zero", "--workers", "0"]) == 0
    )  # another question, whose answer is not the run's own
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("undrawn")
def test_evaluate_by_shift_and_stitch(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other answers of the same net, here all balls; the run keeps its own."""

    class Balls(evaluate_command.Rarefied):
        def forward(self, image: Any) -> Any:
            scores = super().forward(image)
            scores.data[:, 1] = scores.data.max() + 1
            return scores

    monkeypatch.setattr(evaluate_command, "Rarefied", Balls)
    coarse = tmp_path / "coarse"
    assert main(["train", *TINY, "--stages", "32", "--run", str(coarse)]) == 0
    before = (coarse / "evaluation.json").read_bytes()
    assert main(["evaluate", str(coarse), "--stitched", "--json", "result.json"]) == 0
    ours, theirs = json.loads(Path("result.json").read_text()), json.loads(before)
    assert (coarse / "evaluation.json").read_bytes() == before
    assert np.sum(ours["confusion"], axis=1).tolist() == np.sum(theirs["confusion"], axis=1).tolist()
    assert {j for row in ours["confusion"] for j, n in enumerate(row) if n} == {1} and ours != theirs
    (coarse / "evaluation.json").unlink()
    assert main(["evaluate", str(coarse), "--stitched"]) == 0 and not (coarse / "evaluation.json").exists()
    Path("result.json").unlink()
    line = "shift-and-stitch is for an FCN without skips and with one head, such as FCN-32s"
    assert refused(["evaluate", str(run), "--stitched"], capsys) == line
    assert "expected neither --flip" in refused(["evaluate", str(coarse), "--stitched", "--flip"], capsys)


def test_a_single_checkpoint_is_measured_as_well(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run / "checkpoints" / "best.safetensors"), "--split", "test", "--batch", "3"]) == 0
    assert "best.safetensors (step 3) on 3 images of world, split test" in capsys.readouterr().out
    assert main(["evaluate", str(run), "--best"]) == 0
    assert "best.safetensors (step 3)" in capsys.readouterr().out


@pytest.mark.parametrize("absent", ["skip", "zero", "present-in-gt"])
def test_evaluate_on_files_and_what_a_mean_is_over(
    absent: Any, run: Path, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["evaluate", str(run), "--data", str(tree), "--absent", absent, "--json", "r.json"]
    assert main(argv) == 0
    result = json.loads(Path("r.json").read_text())
    matrix = ConfusionMatrix.of(result["confusion"])
    assert result["mean_iu"] == matrix.mean_iu(absent) and result["images"] == 3 and result["absent"] == absent
    names = ", ".join(CLASSES[i] for i in matrix.skipped(absent)) or "none"
    assert f"classes left out of the mean IU ({absent}): {names}\n" in capsys.readouterr().out
    labels = [sample.label for sample in (VOCSegmentation(tree, "val")[i] for i in range(3))]
    assert matrix.matrix.sum() == sum(int((label != VOID).sum()) for label in labels)


def test_evaluate_averages_over_copies_as_predict_does(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, made = (run / "evaluation.json").read_bytes(), list[Predictor]()
    monkeypatch.setattr(
        evaluate_command, "Predictor", lambda *args, **options: made.append(Predictor(*args, **options)) or made[-1]
    )
    assert main(["evaluate", str(run), "--flip", "--scales", "1,1.5", "--json", "r.json"]) == 0
    ours = json.loads(Path("r.json").read_text())
    assert [(each.flip, each.scales) for each in made] == [(True, (1.0, 1.5))]
    trained, val = open_trained(run), Shapes("val", count=3)
    matrix = ConfusionMatrix(len(CLASSES), VOID)
    predictor = Predictor(trained.net, trained.preprocessing, flip=True, scales=(1.0, 1.5))
    for i in range(3):
        matrix.update(val[i].label, predictor(val[i].image).label)
    assert ours["confusion"] == matrix.matrix.tolist()
    assert (run / "evaluation.json").read_bytes() == before
    (run / "evaluation.json").unlink()
    try:
        assert main(["evaluate", str(run), "--flip"]) == 0 and not (run / "evaluation.json").exists()
    finally:
        (run / "evaluation.json").write_bytes(before)
    assert "wrote" not in capsys.readouterr().out.replace("wrote r.json", "")


@pytest.mark.usefixtures("undrawn")
def test_a_stopped_run_gets_its_report_from_evaluate(quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *TINY, "--run", "r", "--stop-after", "4"]) == 0
    assert main(["evaluate", "r"]) == 0
    assert "wrote r/report.html" in capsys.readouterr().out and Path("r/report.html").exists()
    assert json.loads(Path("r/evaluation.json").read_text())["split"] == "val"


def test_a_folder_without_a_training_split_has_no_baselines(
    run: Path, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = tree / "ImageSets" / "Segmentation"
    (lists / "train.txt").rename(lists / "hidden")
    try:
        assert main(["evaluate", str(run), "--data", str(tree)]) == 0
    finally:
        (lists / "hidden").rename(lists / "train.txt")
    printed = capsys.readouterr().out
    assert "no baselines, which are counted on a training split: " in printed and "majority class" not in printed


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("", "evaluate: found 'nothing'; expected: minifcn evaluate RUN"),
        ("@ @", "evaluate: found '@ @'; expected: minifcn evaluate RUN"),
        ("nowhere", "nowhere: found no such run folder or checkpoint; a training run makes one"),
        (".", ".: holds no checkpoint; expected the folder of a training run"),
        ("@ --absent never", "option absent is 'never'; expected one of skip, zero, present-in-gt"),
        ("@ --scales 9", "option scales is '9'; expected numbers from 0.25 to 4, such as 0.75,1,1.25"),
        ("@ --batch 0", "option batch is 0; expected a number of at least 1"),
        ("@ --split trian", "the embedded world has the splits train, val, test, not 'trian'"),
        ("@ --json no/where.json", "no/where.json: cannot be written, its folder does not exist; choose another"),
        ("@ --spilt val", "option --spilt does not exist; did you mean --split?"),
        ("@/config.json", "@/config.json: header length: found "),
    ],
)
def test_what_evaluate_refuses(argv: str, line: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word.replace("@", str(run)) for word in argv.split()]
    assert refused(["evaluate", *words], capsys).startswith(line.replace("@", str(run)))


def test_other_classes_cannot_be_measured(run: Path, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = tree / "class_names.txt"
    before = names.read_text()
    names.write_text("\n".join(["background", "cat", *CLASSES[2:]]) + "\n")
    try:
        line = refused(["evaluate", str(run), "--data", str(tree)], capsys)
    finally:
        names.write_text(before)
    assert line.startswith(f"{tree}: has the classes background, cat, ")
    assert "; the net knows background, ball, " in line


def test_classes_that_changed_under_a_run_are_named_with_its_folder(
    tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = make_tree("own", counts={"train": 2, "val": 1}, size=64)
    assert main(["train", *TINY, "--data", str(tree), "--run", "r"]) == 0
    (tree / "class_names.txt").write_text("\n".join(["background", "cat", *CLASSES[2:]]) + "\n")
    assert refused(["evaluate", "r"], capsys).startswith(f"{tree}: has the classes background, cat, ")


@pytest.mark.usefixtures("undrawn")
def test_skipped_images_are_one_plain_line(tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Row 26, --skip-bad: counted, the first named, no Python warning; without it refused, with the count."""
    tree = make_tree("tree", counts={"train": 4, "val": 2}, size=64)
    for name in ("train-000001", "train-000003"):
        (tree / "JPEGImages" / f"{name}.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    argv = ["train", *TINY, "--data", "tree", "--run", "r"]
    line = refused(argv, capsys)
    assert "train-000001.jpg: " in line and "(the first of 2 such among 4 images); fix them, or leave" in line
    assert main([*argv, "--skip-bad", "--stop-after", "1"]) == 0
    out, error = capsys.readouterr()
    assert "split train: left out 2 of 4 images that cannot be used; the first: " in out and error == ""
    assert "images: 2 to learn from" in out
    assert main(["evaluate", "r", "--skip-bad"]) == 0


# ------------------------------------------------------------------------------------------------------------ baselines


class Labels:
    """A data set of nothing but labels."""

    classes = ("a", "b", "c")

    def __init__(self, labels: list[np.ndarray]) -> None:
        self.labels, self.ids = labels, tuple(map(str, range(len(labels))))
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> Any:
        self.read.append(i)
        return type("S", (), {"label": self.labels[i]})


def counted(train_set: Labels, test_set: Labels, cells: tuple[int, int] | None) -> dict[str, list[list[int]]]:
    """The two baselines by their definition, pixel by pixel."""
    votes: dict[Any, list[int]] = {}
    every = [0, 0, 0]

    def place(label: np.ndarray, y: int, x: int) -> tuple[int, int]:
        rows, columns = cells or label.shape
        return y * rows // label.shape[0], x * columns // label.shape[1]

    for label in train_set.labels:
        for (y, x), value in np.ndenumerate(label):
            if value != VOID:
                votes.setdefault(place(label, y, x), [0, 0, 0])[value] += 1
                every[value] += 1
    majority = every.index(max(every))
    found = {name: [[0] * 3 for _ in range(3)] for name in ("majority class", "pixel position")}
    for label in test_set.labels:
        for (y, x), value in np.ndenumerate(label):
            if value != VOID:
                here = votes.get(place(label, y, x))
                found["majority class"][value][majority] += 1
                found["pixel position"][value][here.index(max(here)) if here else majority] += 1
    return found


@pytest.mark.parametrize(
    ("sizes", "test_sizes", "cells"),
    [
        ([(5, 7)] * 4, [(5, 7)] * 3, None),
        ([(5, 7)] * 4, [(9, 4), (5, 7), (1, 1)], (5, 7)),
        ([(5, 7), (9, 4), (6, 6)], [(8, 8), (3, 11)], (6, 6)),
    ],
    ids=["one size", "others to be measured", "many sizes"],
)
def test_baselines_are_what_they_are_defined_to_be(
    sizes: list[tuple[int, int]],
    test_sizes: list[tuple[int, int]],
    cells: tuple[int, int] | None,
    rng: np.random.Generator,
) -> None:
    def labels(sizes: list[tuple[int, int]]) -> Labels:
        return Labels([rng.choice([0, 1, 2, VOID], size, p=[0.2, 0.35, 0.3, 0.15]).astype(np.uint8) for size in sizes])

    seen, unseen = labels(sizes), labels(test_sizes)
    seen.labels[0][0] = VOID
    ours = baselines(seen, unseen, grid=6)
    assert (seen.read, unseen.read) == (list(range(len(seen))), list(range(len(unseen))))  # once each
    ahead = baselines(seen, unseen, grid=6, workers=3)
    assert all((ours[name].matrix == ahead[name].matrix).all() for name in ours)
    theirs = counted(seen, unseen, cells)
    assert {name: matrix.matrix.tolist() for name, matrix in ours.items()} == theirs


def test_the_baselines_see_the_training_split_alone(run: Path) -> None:
    """Those of a run are those of its own images."""
    result = json.loads((run / "evaluation.json").read_text())
    ours = baselines(Shapes("train", count=6), Shapes("val", count=3))
    assert result["baselines"] == {name: matrix.summary() for name, matrix in ours.items()}
    assert ours["majority class"].predicted_pixels().astype(bool).sum() == 1


# -------------------------------------------------------------------------------------------------------------- predict


def photograph(path: str | Path, *, size: tuple[int, int] = (40, 30), seed: int = 0) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("size", [(40, 30), (1, 1), (500, 1), (1, 33), (65, 64)], ids=str)
def test_predict_takes_any_size(size: tuple[int, int], run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Row 31, from file to file."""
    photograph("photo.png", size=size)
    assert main(["predict", str(run), "photo.png", "--out", "out", "--threads", "1"]) == 0
    assert sorted(path.name for path in Path("out").glob("*.png")) == [
        f"photo-{what}.png" for what in ("legend", "mask", "overlay")
    ]
    with Image.open("out/photo-mask.png") as mask:
        assert mask.mode == "P" and mask.size == size
        assert np.array_equal(np.array(mask.getpalette()).reshape(-1, 3), palette()[: len(mask.getpalette()) // 3])  # type: ignore[arg-type]
        label = np.array(mask)
    trained = open_trained(run)
    with Image.open("photo.png") as picture:
        scores = trained.net.eval()(trained.preprocessing(np.array(picture))[None]).data
    assert np.array_equal(label, scores.argmax(axis=1)[0])
    with Image.open("out/photo-overlay.png") as overlay:
        assert overlay.size == size
    printed = capsys.readouterr().out
    shares = [float(line.split()[1]) for line in printed.splitlines() if line.endswith(" %")]
    assert f"photo.png: {size[0]}x{size[1]}" in printed and sum(shares) == pytest.approx(100, abs=0.1)
    assert shares == sorted(shares, reverse=True)


def test_predict_takes_folders_patterns_and_names_twice(run: Path) -> None:
    for name in ("a/one.jpg", "a/two.png", "b/one.jpg", "b/deep/three.jpg"):
        photograph(name)
    Path("a/notes.txt").write_text("no image")
    argv = ["predict", str(run), "a", "b/*.jpg", "b/**/three.jpg", "a/two.png", "--out=out"]
    assert main(argv) == 0
    masks = sorted(path.name for path in Path("out").glob("*-mask.png"))
    assert masks == [f"{name}-mask.png" for name in ("one-2", "one", "three", "two-2", "two")]


@pytest.mark.parametrize("of", ["folder", "checkpoint"])
def test_predictions_lie_beside_the_run(of: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "r" / "checkpoints").mkdir(parents=True)
    copy = step_path(tmp_path / "r", 6)
    copy.write_bytes(step_path(run, 6).read_bytes())
    photograph("x.png")
    assert main(["predict", "r" if of == "folder" else str(copy), "x.png"]) == 0
    assert (tmp_path / "r" / "predictions" / "x-mask.png").exists()


def test_a_broken_image_is_named_when_the_others_are_done(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photograph("in/1.png")
    photograph("in/3.png")
    Path("in/2.png").write_bytes(b"no image")
    Path("in/0.jpg").write_bytes(b"")
    assert main(["predict", str(run), "in", "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("minifcn: in/0.jpg: ") and "(the first of 2 such among 4 images)" in error
    assert error.count("\n") == 1 and len(list(Path("out").glob("*-mask.png"))) == 2


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("", "predict: expected a run folder and at least one image"),
        ("RUN", "predict: expected a run folder and at least one image"),
        ("RUN nothing.jpg", "nothing.jpg: found no such file; expected an image, a folder or a pattern"),
        ("RUN no/*.jpg", "no/*.jpg: found no such file"),
        ("RUN .", ".: a folder without images; expected files ending in .jpg, .jpeg, .png"),
        ("nowhere x.png", "nowhere: found no such run folder or checkpoint"),
        ("RUN x.png --alpha 2", "option alpha is 2.0; expected a number from 0 to 1"),
        ("RUN x.png --alhpa 2", "option --alhpa does not exist; did you mean --alpha?"),
    ],
)
def test_what_predict_refuses(argv: str, line: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word.replace("RUN", str(run)) for word in argv.split()]
    assert refused(["predict", *words], capsys).startswith(line)


def test_a_folder_that_cannot_be_written_is_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photograph("x.png")
    Path("file").write_text("")
    assert refused(["predict", str(run), "x.png", "--out", "file"], capsys).startswith("file: ")


# -------------------------------------------------------------------------------------------- checkpoints that are none


def earlier(meta: dict[str, Any]) -> dict[str, Any]:
    """The meta of a checkpoint before it carried a record of its net."""
    beside = {name: meta["net"][name] for name in ("stride", "classes", "geometry_classes", "preprocessing")}
    return {name: value for name, value in meta.items() if name != "net"} | beside


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"options": None}, "options are NoneType; expected names with values"),
        ({"options": {"width": "1"}}, "option width is '1'; expected int"),
        ({"options": {"wdith": 1}}, "option 'wdith' does not exist; did you mean 'width'?"),
        ({"classes": "abc"}, "classes are 'abc'; expected a list of names"),
        ({"classes": []}, "classes are []; expected a list of names"),
        ({"classes": ["a", 1]}, "classes are ['a', 1]; expected a list of names"),
        ({"classes": ["a", "b"]}, "these parameters are not this network's: 6 of another shape: score_fr.w ("),
        ({"preprocessing": {"order": "RGB"}}, "preprocessing: found {'order': 'RGB'}; expected exactly the fields"),
        ({"stride": 4}, "stride is 4; expected a checkpoint of a training run"),
        ({"stride": [8]}, "stride is [8]; expected a checkpoint"),
        ({"progress": 3}, "has no progress; expected a checkpoint of a training run"),
        ({"progress": {"step": "x"}}, "has no progress"),
    ],
)
@pytest.mark.parametrize("verb", slow_but(["predict"], ["evaluate", "predict"], "the same reader again"))
def test_a_record_is_believed_only_when_it_is_checked(
    change: dict[str, Any], line: str, verb: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its digest shows that it is unchanged, not that it makes sense. Here without a record of the net."""
    tensors, meta = load_checkpoint(step_path(run, 6))
    save_checkpoint("forged.safetensors", tensors, earlier(meta) | change)
    photograph("x.png")
    assert refused([verb, "forged.safetensors", *["x.png"] * (verb == "predict")], capsys).startswith(
        f"forged.safetensors: {line}"
    )


VERBS = ["evaluate", "predict x.png", "export out.onnx", "train --resume"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"width": "1"}, "option width is '1'; expected int"),
        ({"wdith": 1}, "option 'wdith' does not exist; did you mean 'width'?"),
        ({"trunk": "vgq"}, "option trunk is 'vgq'; expected one of vgg, "),
        ({"padding": "-1"}, "option padding is '-1'; expected"),
        ({"classes": "abc"}, "classes are 'abc'; expected a list of names"),
        ({"classes": []}, "classes are []; expected a list of names"),
        ({"classes": ["a", 1]}, "classes are ['a', 1]; expected a list of names"),
        ({"classes": ["a", "b"]}, "these parameters are not this network's: 6 of another shape: score_fr.w ("),
        ({"preprocessing": {"order": "RGB"}}, "preprocessing: found {'order': 'RGB'}; expected exactly the fields"),
        ({"stride": 6}, "option stages is '6'; expected some of 32,16,8"),
        ({"stride": [8]}, "option stages is '[8]'; expected some of 32,16,8"),
        ({"stride": "8"}, "stride is '8'; expected a checkpoint"),
        ({"stride": 16}, "these parameters are not this network's: 2 unexpected: score_pool3.w, score_pool3.b"),
        (None, "net is None; expected a record of a net"),
        ([["width", 1]], "net is [['width', 1]]; expected a record of a net"),
    ],
)
@pytest.mark.parametrize("verb", slow_but(["predict x.png"], VERBS, "each claim in another verb"))
def test_a_record_of_a_net_is_checked(
    change: Any, line: str, verb: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors, meta = load_checkpoint(step_path(run, 6))
    path = step_path("r", 6)
    path.parent.mkdir(parents=True)
    save_checkpoint(path, tensors, meta | {"net": meta["net"] | change if isinstance(change, dict) else change})
    photograph("x.png")
    assert main(of_verb(verb, path)) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"minifcn: {path}: {line}") and said.count("\n") == 1
    assert {path.name for path in Path().iterdir()} == {"r", "x.png"}


def of_verb(verb: str, checkpoint: Path) -> list[str]:
    """The command line of a verb that opens a run's only checkpoint: "predict x.png" is `predict CHECKPOINT x.png`."""
    name, *words = verb.split()
    return [name, *words, str(checkpoint.parent.parent)] if name == "train" else [name, str(checkpoint), *words]


@pytest.mark.parametrize(
    "verb",
    slow_but(["predict x.png"], [verb.replace("onnx", "safetensors") for verb in VERBS], "each claim in another verb"),
)
@pytest.mark.parametrize("form", [dict, earlier])
def test_a_net_larger_than_its_file_is_never_built(
    form: Callable[..., dict[str, Any]], verb: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A few thousand bytes that claim 36 GB of parameters."""
    tensors, meta = load_checkpoint(step_path(run, 6))
    claim = {"width": 512, "layers": 19}
    path = step_path("r", 6)
    path.parent.mkdir(parents=True)
    few = {name: array for name, array in tensors.items() if name.endswith("score_fr.b")}
    save_checkpoint(path, few, form(meta | {"options": meta["options"] | claim, "net": meta["net"] | claim}))
    photograph("x.png")
    with at_most(50 * MEGABYTE):
        assert main(of_verb(verb, path)) == 2
    assert f"minifcn: {path}: these parameters are not this network's: " in capsys.readouterr().err


def weights_in(path: str) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in read(path).items()}


@pytest.mark.slow("each verb with two versions of a run, of which one goes on")
@pytest.mark.usefixtures("undrawn")
def test_a_checkpoint_of_an_earlier_version_is_used_as_before(
    run: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its net follows from its options."""
    tensors, meta = load_checkpoint(step_path(run, 3))
    assert not {"stride", "classes", "geometry_classes", "preprocessing"} & meta.keys()
    photograph("x.png")
    for folder, written in (("old", earlier(meta)), ("new", meta)):
        Path(folder, "checkpoints").mkdir(parents=True)
        save_checkpoint(step_path(folder, 3), tensors, written)
        assert main(["predict", folder, "x.png"]) == main(["evaluate", folder, "--json", f"{folder}.json"]) == 0
        assert main(["export", folder, f"{folder}.safetensors"]) == main(["inspect", str(step_path(folder, 3))]) == 0
        assert "FCN-8s, a checkpoint of `minifcn train`" in capsys.readouterr().out
    old, new = open_trained("old"), open_trained("new")
    assert (old.classes, old.inputs, old.options) == (new.classes, new.inputs, new.options)
    assert (old.name, old.step) == (new.name, new.step) == ("FCN-8s", 3)
    for name in ("*/predictions/x-mask.png", "*.json"):
        assert len({path.read_bytes() for path in Path().glob(name)}) == 1
    assert weights_in("old.safetensors") == weights_in("new.safetensors")
    assert main(["train", "--resume", "old"]) == 0
    resumed, whole = load_latest("old"), load_latest(run)
    assert resumed is not None and whole is not None and resumed.meta["net"] == whole.meta["net"]
    assert all(np.array_equal(array, whole.tensors[name]) for name, array in resumed.tensors.items())


def test_a_net_is_built_from_its_record_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a later version calls the options of its training."""
    tensors, meta = load_checkpoint(step_path(run, 6))
    photograph("x.png")
    for name, options in (("own", meta["options"]), ("later", {"an option": "of a later version"}), ("none", None)):
        save_checkpoint(f"{name}.safetensors", tensors, meta | {"options": options})
        assert main(["predict", f"{name}.safetensors", "x.png", "--out", name]) == 0
        assert main(["export", f"{name}.safetensors", f"{name}-out.safetensors"]) == 0
    assert len({path.read_bytes() for path in Path().glob("*/x-mask.png")}) == 1
    assert (
        weights_in("own-out.safetensors") == weights_in("later-out.safetensors") == weights_in("none-out.safetensors")
    )
    line = refused(["evaluate", "later.safetensors"], capsys)
    assert line.startswith("later.safetensors: option 'an option' does not exist")


def test_weights_of_another_program_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    save_checkpoint("other.safetensors", {"w": np.zeros(3, np.float32)}, {})
    assert refused(["evaluate", "other.safetensors"], capsys).startswith("other.safetensors: options are NoneType")


# ----------------------------------------------------------------------------------------------------------------- data


def test_the_command_that_data_make_names_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "make", "my world", "--train", "1", "--val", "0", "--test", "0", "--size", "64"]) == 0
    assert capsys.readouterr().out.endswith("minifcn train --data 'my world'\n")


def test_the_world_as_files(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["data", "make", "d", "--train", "3", "--val", "2", "--test", "0", "--size", "64", "--seed", "7"]
    assert main(argv) == 0
    assert capsys.readouterr().out == (
        "wrote d: 3 images of train, 2 images of val\nto learn from them: minifcn train --data d\n"
    )
    assert sorted(path.name for path in Path("d/ImageSets/Segmentation").iterdir()) == ["train.txt", "val.txt"]
    assert Path("d/ImageSets/Segmentation/val.txt").read_bytes() == b"val-000000\nval-000001\n"
    assert Path("d/class_names.txt").read_bytes().split(b"\n")[:2] == [b"background", b"ball"]
    data, world = VOCSegmentation("d", "train"), Shapes("train", count=3, size=64, seed=7)
    assert data.classes == world.classes and data.ids == world.ids
    for i in range(3):
        assert np.array_equal(data[i].label, world[i].label)
        assert np.abs(data[i].image.astype(int) - world[i].image).mean() < 8
    assert len(Subset(data, [1])) == 1


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("", "data: found 'nothing to do'; expected: minifcn data make DIR"),
        ("mkae d", "data: found 'mkae d'; expected: minifcn data make DIR"),
        ("make", "data: found 'make'; expected: minifcn data make DIR"),
        ("make d e", "data: found 'make d e'; expected"),
        ("make full", "full: is not empty; choose a new folder"),
        ("make full/file/d --train 1 --val 0 --test 0", "full/file/d: cannot be written (Not a directory)"),
        ("make d --train 0 --val 0 --test 0", "data make: no images are asked for"),
        ("make d --train -1", "the embedded world's count is an integer from 1 to 1000000, not -1"),
        ("make d --size 5", "the embedded world's height is an integer from 64 to 500, not 5"),
        ("make d --seed -1", "the embedded world's seed is an integer from 0"),
        ("make d --trian 5", "option --trian does not exist; did you mean --train?"),
    ],
)
def test_what_data_make_refuses(argv: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("full").mkdir()
    Path("full/file").write_text("")
    assert refused(["data", *argv.split()], capsys).startswith(line)


def test_a_run_on_the_files_knows_their_names(tree: Path, quick: None) -> None:
    assert main(["train", *TINY, "--data", str(tree), "--run", "r", "--epochs", "1"]) == 0
    assert open_trained("r").classes == CLASSES
    assert evaluate_command.main(["r"]) == 0
