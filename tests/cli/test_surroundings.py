"""Odd surroundings: terminals, encodings, closed streams, signals, directories; each by a process of its own."""

import ast
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_cases import META, SMALL, disk_almost_full, refused
from line_budget import nodes, parsed
from some_slow import slow_but

from minifcn import viz
from minifcn.cli import command
from minifcn.cli.verbs import main
from minifcn.data.files import write_image, write_mask
from minifcn.data.tools.make import make_tree
from minifcn.errors import UsageError
from minifcn.formats.checkpoint import save_checkpoint
from minifcn.kernels.threads import set_threads
from minifcn.training.prediction import Prediction, write_prediction
from minifcn.training.report import write_report
from minifcn.training.run_folder import RunFolder, load_latest
from minifcn.training.runlog import append, write_json

ROOT = Path(__file__).parent.parent.parent
TINY = [
    "--recipe=toy",
    *("--width", "1", "--layers", "11", "--stages", "32", "--batch", "2", "--epochs", "1", "--samples", "1"),
    *("--max-train", "4", "--max-val", "2", "--threads", "1", "--world-size", "64", "--device", "cpu"),
]
ESCAPES = "\x1b[2J\x1b]0;title\x07\nforged \u202e\x9b31m"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    set_threads(None)


def program(*argv: str | bytes) -> list[str | bytes]:
    return [sys.executable, "-m", "minifcn", *argv]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LC_", "LANG", "MPL"))}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def ran(*argv: str | bytes, sh: str = "", env: dict[str, str] | None = None, **more: Any) -> Any:
    """The finished process; `sh` is a line of sh in which "$@" is the command."""
    words = program(*argv)
    words = ["sh", "-c", sh, "sh", *words] if sh else words
    return subprocess.run(words, env=env or environment(), capture_output=True, timeout=300, check=False, **more)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.npz"
    np.savez(path, **SMALL)
    return path


# ----------------------------------------------------------------------------------------------------- one place prints


def prints(source: str) -> list[int]:
    """The lines that print otherwise than by `say`."""
    calls = [node for node in nodes(parsed(source)) if isinstance(node, ast.Call)]
    calls = [call for call in calls if getattr(call.func, "id", getattr(call.func, "attr", "")) in ("print", "write")]
    return [
        call.lineno for call in calls if ast.unparse(call.func) in ("print", "sys.stdout.write", "sys.stderr.write")
    ]


def test_one_place_prints() -> None:
    """But for the process that `bench` starts and asks: what it writes are its answers."""
    found = {path.relative_to(ROOT / "minifcn").as_posix(): prints(path.read_text(encoding="utf-8"))
             for path in (ROOT / "minifcn").rglob("*.py")}  # fmt: skip
    assert {name: len(lines) for name, lines in found.items() if lines} == {
        "cli/command.py": 1,
        "experiments/bench/stopwatch.py": 1,
    }
    assert prints("import sys\nprint(1)\nsys.stderr.write('x')\nsay(print)") == [2, 3]


def clean(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n")) and not any(
        line.startswith("forged") for line in text.split("\n")
    )


def test_what_is_printed_is_one_printable_line(capsys: pytest.CaptureFixture[str]) -> None:
    command.say(f"a {ESCAPES} é 中 \udce9")
    command.warn(ESCAPES)
    command.guard(lambda argv: refuse(ESCAPES), [])
    command.guard(lambda argv: __import__("warnings").warn(ESCAPES, stacklevel=1) or 0, [])
    out, err = capsys.readouterr()
    assert out == "a ?[2J?]0;title??forged ??31m é 中 ?\n"
    assert clean(err) and err.count("\n") == 3 and err.count("forged") == 3


def refuse(message: str) -> int:
    raise UsageError(message)


def hostile_run(folder: Path) -> Path:
    """A finished run with escape sequences wherever a file of it holds text."""
    assert main(["train", *TINY, "--run", str(folder), "--data", "world"]) == 0
    newest = load_latest(folder)
    assert newest is not None
    meta = newest.meta
    meta["net"]["classes"] = [f"{i} {ESCAPES}" for i in range(len(meta["net"]["classes"]))]
    meta["environment"] = {name: f"{value} {ESCAPES}" for name, value in meta["environment"].items()}
    save_checkpoint(newest.path, newest.tensors, meta)
    return folder


@pytest.mark.slow("trains for a moment")
@pytest.mark.skipif(os.name != "posix", reason="the name of a file here cannot hold everything")
@pytest.mark.usefixtures("undrawn")
def test_the_words_of_files_reach_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Class names, file names and the environment that a received run folder names."""
    run = hostile_run(tmp_path / "run")
    photo = tmp_path / f"p{ESCAPES}.png".replace("/", "")
    write_image(tmp_path / "p.png", np.zeros((40, 40, 3), np.uint8))
    (tmp_path / "p.png").rename(photo)
    capsys.readouterr()
    main(["predict", str(run), str(photo), "--out", str(tmp_path / "out")])
    main(["evaluate", str(run)])
    main(["train", "--resume", str(run)])
    main(["inspect", str(photo)])
    main(["export", str(run), str(tmp_path / f"{ESCAPES}.safetensors")])
    out, err = capsys.readouterr()
    assert out.count("forged") > 2 and err.count("forged") > 2
    assert clean(out) and clean(err)


# ------------------------------------------------------------------------------------------------------------ encodings


PROCESSES = pytest.mark.slow("two processes for each encoding")


@pytest.mark.parametrize(
    "env",
    [
        {"PYTHONIOENCODING": "ascii"},
        pytest.param({"PYTHONIOENCODING": "cp1252"}, marks=PROCESSES),
        pytest.param({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, marks=PROCESSES),
        pytest.param({"PYTHONIOENCODING": "utf-8"}, marks=PROCESSES),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["中 é.npz".encode(), b"latin \xe9.npz"], ids=["UTF-8", "Latin-1"])
def test_a_name_that_the_terminal_cannot_show_is_shown_with_question_marks(
    env: dict[str, str], name: bytes, weights: Path
) -> None:
    shutil.copy(weights, os.fsdecode(name))
    found = ran("inspect", name, env=environment(**env))
    assert found.returncode == 0 and b"score_fr.w" in found.stdout and found.stderr == b""
    refusal = ran("inspect", name + b"?", env=environment(**env))
    assert refusal.returncode == 2 and refusal.stderr.startswith(b"minifcn: ") and refusal.stderr.count(b"\n") == 1


@pytest.mark.slow("trains for a moment, three times")
@pytest.mark.parametrize("name", ["中".encode(), b"latin \xe9", b"b"], ids=["UTF-8", "Latin-1", "ASCII"])
def test_a_run_ends_well_on_a_terminal_without_letters(name: bytes) -> None:
    found = ran("train", *TINY, "--run", name, env=environment(PYTHONIOENCODING="ascii"))
    assert found.returncode == 0, found.stderr
    page = (Path(os.fsdecode(name)) / "report.html").read_text(encoding="utf-8")
    assert "Configuration" in page and found.stdout.isascii()


# ----------------------------------------------------------------------------------------------------- closed streams


CLOSED = ["2>&-", ">&-", ">&- 2>&-", "<&- >&- 2>&-"]


@pytest.mark.parametrize("closed", slow_but(CLOSED[-1:], CLOSED, "two processes for each"))
def test_a_closed_stream_is_no_error(closed: str, weights: Path) -> None:
    found = ran("inspect", str(weights), sh=f'"$@" {closed}')
    assert found.returncode == 0 and found.stderr == b"" and (found.stdout == b"") == (" >&-" in f" {closed}")
    assert ran("inspect", "nowhere", sh=f'"$@" {closed}').returncode == 2


def test_what_is_written_on_a_closed_stream_reaches_no_file() -> None:
    """The first file that is opened would get its number."""
    script = (
        "import os\nfrom minifcn.cli.command import run\n"
        "def main(argv):\n    with open('kept', 'wb') as file:\n        os.write(1, b'noise'), os.write(2, b'noise')\n"
        "        file.write(b'kept')\n    return 0\nrun(main)"
    )
    words = ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", sys.executable, "-c", script]
    assert subprocess.run(words, env=environment(), check=False).returncode == 0
    assert Path("kept").read_bytes() == b"kept"


@pytest.mark.parametrize("sh", ['"$@" >/dev/full', '"$@" >/dev/full 2>/dev/full'])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_full_device_is_one_line_at_most(sh: str, weights: Path) -> None:
    found = ran("inspect", str(weights), sh=sh)
    assert found.returncode == 2 and b"Traceback" not in found.stderr and found.stderr.count(b"\n") <= 1


@pytest.mark.slow("trains for a moment")
def test_training_goes_on_without_streams(tmp_path: Path) -> None:
    assert ran("train", *TINY, "--run", "r", sh='"$@" <&- >&- 2>&-').returncode == 0
    assert (tmp_path / "r" / "report.html").exists() and load_latest("r") is not None


# ------------------------------------------------------------------------------------------------------- the terminal


@pytest.mark.parametrize("columns", ["1", "20", "40", "0", "wide", "100000"])
@pytest.mark.parametrize("verb", ["train", "predict", "bench"])
def test_help_on_a_terminal_of_any_width(
    columns: str, verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0 and f"usage: minifcn {verb}" in capsys.readouterr().out


BACKENDS = ["nonsense", "module://nowhere.to_be_found", "qtagg", ""]


@pytest.mark.parametrize("backend", slow_but(BACKENDS[1:2], BACKENDS, "draws in a process of its own"))
def test_pictures_need_no_backend(backend: str) -> None:
    """Jupyter leaves MPLBACKEND to the processes it starts, where its backend may not be installed."""
    script = (
        "import os\nfrom pathlib import Path\nfrom minifcn import viz\n"
        "viz.curves([{'kind': 'train', 'step': 1, 'loss': 1.0}], Path('c.png'))\n"
        "viz.confusion_picture([[3, 1], [1, 3]], ['a', 'b'], Path('m.png'))\nprint(os.environ['MPLBACKEND'])"
    )
    env = environment(MPLBACKEND=backend)
    found = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout == f"{backend}\n" and Path("c.png").stat().st_size > 1000 < Path("m.png").stat().st_size


@pytest.mark.slow("trains for a moment")
def test_a_run_under_a_foreign_backend_gets_its_report() -> None:
    assert ran("train", *TINY, "--run", "r", env=environment(MPLBACKEND="nonsense")).returncode == 0
    assert Path("r/report.html").exists()


# ------------------------------------------------------------------------------------------------------------- signals


def training(*more: str, sh: str = "", **options: Any) -> subprocess.Popen[bytes]:
    """A long run that has made its first steps."""
    words = program("train", *TINY, "--epochs", "4000", "--measure-every", "4000", "--run", "r", *more)
    words = ["sh", "-c", sh, "sh", *words] if sh else words
    process = subprocess.Popen(words, env=environment(PYTHONUNBUFFERED="1"), **options)
    for _ in range(1200):
        if Path("r/metrics.jsonl").exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    return process


def saved_step() -> int:
    newest = load_latest("r")
    assert newest is not None
    return int(newest.meta["progress"]["step"])


@pytest.mark.slow("trains for a moment")
def test_a_hangup_saves() -> None:
    process = training(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 129 and saved_step() > 0
    assert f"stopped after step {saved_step()}, everything is saved; to go on: minifcn train --resume r" in err.decode()


@pytest.mark.slow("trains for a moment")
def test_a_terminal_that_is_closed_saves() -> None:
    ours, theirs = pty.openpty()
    script = "import fcntl, os, sys, termios\nos.setsid()\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    script += "os.execv(sys.argv[1], sys.argv[1:])"
    words = [sys.executable, "-c", script, *program("train", *TINY, "--epochs", "4000", "--measure-every", "4000")]
    process = subprocess.Popen([*words, "--run", "r"], env=environment(), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    while not Path("r/metrics.jsonl").exists() and process.poll() is None:
        seen += os.read(ours, 1000)
    os.close(ours)
    assert process.wait(timeout=120) in (129, 2) and saved_step() > 0, seen


@pytest.mark.slow("trains for a moment")
@pytest.mark.parametrize("name", ["HUP", "INT", "TERM"])
def test_a_signal_that_is_ignored_stays_so(name: str) -> None:
    """`nohup` ignores a hangup, and a script Ctrl-C for what it starts in the background."""
    process = training("--stop-after", "60", sh=f'trap "" {name}; exec "$@"', stdout=subprocess.DEVNULL)
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert process.wait(timeout=120) == 0 and saved_step() == 60


@pytest.mark.slow("trains for a moment")
@pytest.mark.parametrize("reader", ["| head -n 3", "| true", ">/dev/full"])
def test_an_output_that_ends_stops_the_run_and_saves(reader: str) -> None:
    words = program("train", *TINY, "--epochs", "4000", "--measure-every", "4000", "--run", "r", "--save-every", "4000")
    line = f'{{ "$@"; echo $? >code; }} {reader}'
    found = subprocess.run(["sh", "-c", line, "sh", *words], env=environment(), capture_output=True, check=False)
    code = Path("code").read_text().strip() if Path("code").exists() else ""
    if reader == "| head -n 3":
        assert code == "141" and saved_step() > 0
        assert b"(output: Broken pipe), everything is saved; to go on: minifcn train --resume r" in found.stderr
    assert b"Traceback" not in found.stderr and code in ("141", "2")


@pytest.mark.parametrize("start", ["-m minifcn", "-m minifcn.train", "bin/minifcn", "file", "import"])
def test_an_interruption_while_importing_shows_no_traceback(start: str, tmp_path: Path) -> None:
    """But in a program of the user's own it does, as ever."""
    (tmp_path / "slow" / "numpy").mkdir(parents=True)
    (tmp_path / "slow" / "numpy" / "__init__.py").write_text("import time\nprint('here', flush=True)\ntime.sleep(60)\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "minifcn").write_text("from minifcn.cli.verbs import main\nmain()\n")
    words = {
        "bin/minifcn": [str(tmp_path / "bin" / "minifcn")],
        "file": [str(ROOT / "minifcn" / "train.py")],
        "import": ["-c", "import minifcn"],
    }.get(start, start.split())
    env = environment(PYTHONPATH=os.pathsep.join([str(tmp_path / "slow"), str(ROOT)]))
    process = subprocess.Popen([sys.executable, *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"here\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT and (b"Traceback" in err) == (start == "import")


# --------------------------------------------------------------------------------------------------------- directories


SCRIPTS = ["minifcn/train.py", "minifcn/__main__.py", "minifcn"]


@pytest.mark.parametrize("file", slow_but(SCRIPTS[:1], SCRIPTS, "a process for each"))
def test_a_file_run_as_a_script_uses_the_package_it_lies_in(file: str, tmp_path: Path) -> None:
    """And not the modules beside it, nor another minifcn that is installed."""
    shutil.copytree(ROOT / "minifcn", tmp_path / "minifcn", ignore=shutil.ignore_patterns("__pycache__"))
    verb = tmp_path / "minifcn" / "cli" / "verbs.py"
    verb.write_text(verb.read_text().replace("usage: minifcn <verb>", "usage: this copy of minifcn <verb>"))
    train = tmp_path / "minifcn" / "cli" / "train.py"
    train.write_text(train.read_text().replace("--dry-run: say what", "--dry-run: this copy of minifcn: say what"))
    env = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    words = [sys.executable, str(tmp_path / file), "--help"]
    found = subprocess.run(words, env=env, cwd="/", capture_output=True, text=True, check=False)
    assert found.returncode == 0 and "this copy of minifcn" in found.stdout.replace("\n", " "), found.stderr


def test_a_run_folder_stays_where_it_was_after_a_change_of_directory(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with RunFolder("run") as run:
        os.chdir("elsewhere")
        run.save(1, SMALL, META)
        run.check()
        latest = run.latest()
    assert latest is not None and (tmp_path / "run" / "checkpoints" / "step-00000001.safetensors").exists()
    assert not any((tmp_path / "elsewhere").iterdir())
    with RunFolder("../run", create=False) as run:
        os.chdir("/")
        run.save(2, SMALL, META)
    os.chdir(tmp_path)
    again = RunFolder("new")
    os.chdir("elsewhere")
    again.discard()
    assert not (tmp_path / "new").exists() and len(list((tmp_path / "run" / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["inspect", "WEIGHTS"], 0),
        (["predict", "nowhere", "x.png"], 2),
        pytest.param(["train", *TINY], 2, marks=PROCESSES),
    ],
)
def test_a_working_directory_that_was_deleted(argv: list[str], code: int, weights: Path) -> None:
    argv = [str(weights) if word == "WEIGHTS" else word for word in argv]
    found = ran(*argv, sh='mkdir gone && cd gone && rmdir ../gone && "$@"')
    assert found.returncode == code and found.stderr.count(b"\n") == (code > 0), found.stderr


@pytest.mark.slow("trains for a moment")
def test_a_run_elsewhere_needs_no_working_directory(tmp_path: Path) -> None:
    found = ran("train", *TINY, "--run", str(tmp_path / "r"), sh='mkdir gone && cd gone && rmdir ../gone && "$@"')
    assert found.returncode == 0 and Path("r/report.html").exists(), found.stderr


def test_a_folder_that_took_the_place_of_the_run_is_not_written_to(tmp_path: Path) -> None:
    for put_there in (lambda path: path.mkdir(), lambda path: path.symlink_to(tmp_path), lambda path: other(path)):
        with RunFolder("run") as run:
            run.save(1, SMALL, META)
            Path("run").rename("kept")
            put_there(Path("run"))
            before = sorted(tmp_path.rglob("*"))
            assert "the run folder was replaced by another one" in refused(UsageError, run.save, 2, SMALL, META)
            refused(UsageError, run.check)
            assert sorted(tmp_path.rglob("*")) == before
        shutil.rmtree("run") if not Path("run").is_symlink() else Path("run").unlink()
        Path("kept").rename("run")
        with RunFolder("run", create=False) as run:  # put back
            run.save(2, SMALL, META)
        shutil.rmtree("run")


def other(path: Path) -> None:
    with RunFolder(path) as run:
        run.save(9, SMALL, META)


# ------------------------------------------------------------------------------------------------------------ the disk

IMAGE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
EVALUATION = {
    "classes": ["a", "b"], "confusion": [[3, 1], [1, 3]], "split": "val", "images": 1, "absent": "skip", "skipped": [],
}  # fmt: skip


def with_results(folder: Path) -> Path:
    write_json(folder / "evaluation.json", EVALUATION)
    append(folder / "metrics.jsonl", {"kind": "train", "step": 1, "loss": 1.0})
    return folder


WRITES = {
    "curves.png": lambda folder: write_report(folder),
    "x-overlay.png": lambda folder: write_prediction(IMAGE, Prediction(IMAGE[..., 0] % 2), ["a", "b"], folder / "x"),
    "m.png": lambda folder: write_mask(folder / "m.png", IMAGE[..., 0]),
    "i.png": lambda folder: write_image(folder / "i.png", IMAGE),
    "c.png": lambda folder: viz.confusion_picture(np.eye(2, dtype=int), ["a", "b"], folder / "c.png"),
    "j.json": lambda folder: write_json(folder / "j.json", {"x": "y" * 5000}),
    "metrics.jsonl": lambda folder: append(folder / "metrics.jsonl", {"x": "y" * 5000}),
}


@pytest.fixture(scope="module")
def matplotlib_was_used() -> None:
    """It writes files of its own the first time."""
    viz.curves([])


@pytest.mark.usefixtures("matplotlib_was_used")
@pytest.mark.parametrize("name", WRITES)
def test_a_full_disk_names_the_file_and_leaves_nothing_cut(name: str, tmp_path: Path) -> None:
    with_results(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with disk_almost_full():
        message = refused(UsageError, WRITES[name], tmp_path)
    assert name in message and "File too large" in message
    after = {path: path.read_bytes() for path in tmp_path.iterdir() if path.name != "x-mask.png"}
    assert after == before
    WRITES[name](tmp_path)
    assert (tmp_path / name).exists()


@pytest.mark.parametrize("words", ["data import set new", "data check set --write new", "data make new --size 400"])
def test_a_full_disk_leaves_no_picture_of_a_new_tree_cut(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    make_tree("set", counts={"train": 1}, size=64)
    picture = next(Path("set/JPEGImages").iterdir())
    write_image(picture.with_suffix(".png"), IMAGE)
    picture.unlink()
    with disk_almost_full():
        assert main(words.split()) == 2
    message = capsys.readouterr().err
    assert message.startswith("minifcn: new/JPEGImages/train-000000.") and "File too large" in message
    assert not any(path.is_file() for path in Path("new/JPEGImages").iterdir())


def test_a_file_of_weights_may_be_cut_short_while_it_is_in_use(weights: Path) -> None:
    """A mapped file would end the process with SIGBUS, so this is a process of its own."""
    save_checkpoint("w.safetensors", {"w": np.ones(100_000, np.float32)}, {})
    np.savez("w.npz", w=np.ones(100_000, np.float32))
    script = (
        "import os, sys\nfrom minifcn.formats.files import read\n"
        "for name in sys.argv[1:]:\n    arrays = read(name)\n    os.truncate(name, 0)\n"
        "    assert sum(a.sum() for a in arrays.values()) == 100000\n    os.unlink(name)\nprint('read')"
    )
    words = [sys.executable, "-c", script, "w.safetensors", "w.npz"]
    found = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    assert found.returncode == 0 and found.stdout == "read\n", found.stderr


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minifcn.errors import FormatError
    from minifcn.formats import limits

    (tmp_path / "f").write_bytes(b"x" * 9000)

    def cut(number: int, size: int) -> Any:
        os.truncate(tmp_path / "f", 5000)
        return bytearray(size)

    monkeypatch.setattr(limits.mmap, "mmap", cut)
    assert "found 5000 bytes, expected the 9000" in refused(FormatError, limits.bytes_of, tmp_path / "f")


def test_at_once_without_skips_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    for trunk in ("alexnet", "googlenet"):
        words = ["--trunk", trunk, "--stages", "32", "--padding", "safe", "--width", "1", "--at-once", "--dry-run"]
        assert main(["train", *words]) == 0
        assert f"warning: --at-once scales nothing: {trunk} has no skips" in capsys.readouterr().out
    assert main(["train", "--at-once", "--dry-run"]) == 0
    assert "--at-once scales nothing" not in capsys.readouterr().out


def test_the_record_of_a_run_is_json(tmp_path: Path) -> None:
    with_results(tmp_path)
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1]
