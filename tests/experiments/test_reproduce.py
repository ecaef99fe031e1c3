"""`minifcn reproduce`: nothing is run twice, nothing is believed unread, and a verdict is what the differences say."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from some_slow import slow_but

from minifcn.cli.verbs import main
from minifcn.errors import FormatError, UsageError
from minifcn.experiments.dense import Rarefied
from minifcn.experiments.reproduction import cells, runner
from minifcn.experiments.reproduction.cells import CELLS, EVALUATE, PRETRAIN, SCENES, SMALL, Cell, Job, jobs, resolved
from minifcn.experiments.reproduction.exact import exact_rows
from minifcn.experiments.reproduction.page import (
    Findings,
    Picture,
    TextTable,
    beside,
    read_page,
    sections,
    write_html,
    write_markdown,
)
from minifcn.experiments.reproduction.results import (
    MEASURES,
    SHARES,
    Result,
    read_curve,
    read_pretrained,
    read_result,
)
from minifcn.experiments.reproduction.runner import (
    Runner,
    Times,
    command_of,
    finished,
    folder_of,
    tail,
    weights_of,
)
from minifcn.experiments.reproduction.tables import TABLES, Claim, Row, Table, chosen, summary
from minifcn.experiments.reproduction.verdict import EQUAL, HELD, REVERSED, UNDECIDED, mean_and_spread, verdict
from minifcn.formats.checkpoint import save_checkpoint
from minifcn.formats.strict_json import read_json
from minifcn.introspect.describe import describe
from minifcn.kernels.threads import set_threads
from minifcn.metrics import ConfusionMatrix
from minifcn.models.fcn import vgg_fcn
from minifcn.training.run_folder import locked
from minifcn.training.runlog import append, write_json

ROOT = Path(__file__).parent.parent.parent
NAN = math.nan


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    set_threads(None)


# ------------------------------------------------------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("differences", "word"),
    [
        ([1.0, 1.1, 0.9], HELD),
        ([-1.0, -1.1, -0.9], REVERSED),
        ([1.0, 1.1, -0.1], UNDECIDED),  # one seed says otherwise
        ([0.1, 0.2, 3.0], UNDECIDED),  # all agree, and differ more than they are
        ([-0.1, -0.2, -3.0], UNDECIDED),
        ([1.0, 1.0, 0.0], UNDECIDED),  # a tie is no sign
        ([0.0, 0.0, 0.0], UNDECIDED),
        ([0.5, 0.5, 0.5], HELD),
        ([1.0, NAN, 1.0], UNDECIDED),
        ([math.inf, 1.0, 1.0], UNDECIDED),
        ([math.inf, -math.inf], UNDECIDED),
        ([1.0], UNDECIDED),
        ([], UNDECIDED),
        ([1.0, 1.1], HELD),
    ],
)
def test_a_verdict_needs_all_signs_and_a_mean_beyond_the_spread(differences: list[float], word: str) -> None:
    assert verdict(differences).word == word
    mirrored = {HELD: REVERSED, REVERSED: HELD, UNDECIDED: UNDECIDED}
    assert verdict([-d for d in differences]).word == mirrored[word]
    assert verdict(differences, says=EQUAL).word == (UNDECIDED if word == UNDECIDED else REVERSED)


def test_the_spread_is_the_sample_standard_deviation() -> None:
    values = [0.3, 0.7, 0.8, 0.1]
    mean, spread = mean_and_spread(values)
    assert math.isclose(mean, np.mean(values)) and math.isclose(spread, np.std(values, ddof=1))
    assert math.isclose(verdict([1.0, 2.0, 3.0]).spread, 1.0) and verdict([1.0, 2.0, 3.0]).word == HELD
    assert verdict([0.2, 1.0, 2.0]).word == HELD  # 1.07 against 0.90
    assert verdict([0.01, 1.0, 2.1]).word == UNDECIDED  # 1.04 against 1.05; a standard error would be content
    assert math.isnan(mean_and_spread([])[0]) and mean_and_spread([2.0])[0] == 2 and math.isnan(mean_and_spread([2])[1])


# ---------------------------------------------------------------------------------------------------------------- cells


@pytest.mark.parametrize("quick", slow_but([True], [False, True], "each cell of the table again"))
def test_every_cell_has_options_that_exist_and_fit(quick: bool) -> None:
    plan = jobs(CELLS, [0, 1, 2], quick=quick)
    assert len(plan) == 3 * len(CELLS) and len({job.folder for job in plan}) == len(plan)
    for job in plan:
        assert resolved(job)
        assert all(parent in plan[: plan.index(job)] for parent in job.parents), job.folder


def test_cells_that_compare_differ_in_what_is_compared() -> None:
    """The same number of steps where the table says so, and nothing but the setting between two rows."""

    def steps(name: str) -> float:
        o = resolved(jobs([name], [0])[-1])
        return o["epochs"] * -(-o["max_train"] // (o["batch"] * o["accumulate"]))

    def differ(a: str, b: str) -> set[str]:
        one, other = (resolved(jobs([name], [0])[-1]) for name in (a, b))
        return {name for name in one if one[name] != other[name]}

    assert steps("sampling-100") == steps("sampling-50") == steps("sampling-25")
    assert steps("base") == steps("half") == steps("quarter")
    assert steps("fcn8s-at-once") == steps("fcn32s") + steps("fcn16s") + steps("fcn8s")
    assert steps("fcn32s-longer") == steps("fcn16s")
    assert steps("online") == steps("heavy") == 20 * steps("accumulated")
    assert differ("fcn16s", "fcn16s-max") == {"fusion"} and differ("fcn16s", "fcn16s-learned") == {"upsampling"}
    assert differ("fcn32s", "fcn32s-fixed") == {"freeze"} and differ("fcn16s", "fcn32s-longer") == {"stages"}
    assert differ("online", "heavy") == {"momentum"} and differ("base", "base-pretrained") == set()
    assert differ("base", "rgbd") == {"inputs"} and differ("base", "two-heads") == {"heads"}
    assert steps("fcn8s-longer") == steps("fcn4s") == steps("fcn2s") == steps("fcn8s")
    assert steps("fcn32s-coarse") == steps("fcn32s-learned") == steps("fcn32s") == steps("pool4")
    assert steps("pool4-longer") == steps("fcn32s-longer") == steps("fcn16s")
    assert differ("fcn8s-longer", "fcn4s") == differ("fcn4s", "fcn2s") == {"stages"}
    assert differ("fcn32s", "fcn32s-coarse") == {"sampling"} and differ("fcn32s", "fcn32s-learned") == {"upsampling"}
    assert differ("fcn16s", "pool4-longer") == {"freeze"} and differ("pool4", "fcn32s") == {"freeze", "stages"}
    assert differ("base", "shape") == {"hide"} and differ("base", "balanced") == {"class_balance"}
    quick = [resolved(jobs([name], [0], quick=True)[-1]) for name in ("base", "half", "quarter")]
    assert len({o["epochs"] * o["max_train"] // 20 for o in quick}) == 1  # in a quick run, too
    assert SCENES["world_size"] >= 160 and SMALL["world_size"] >= 64


def test_a_folder_is_named_by_all_that_decides_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    start, mine = Cell("start", {"epochs": 2}), Cell("mine", {"lr": 0.1}, ("start",))

    def folder(*changed: Cell, seed: int = 0, quick: bool = False) -> str:
        known = {cell.name: cell for cell in (start, mine, *changed)}
        return jobs(["mine"], [seed], quick=quick, cells=known)[-1].folder

    usual = folder()
    assert usual.startswith("mine-0-") and usual == folder()
    others = [
        folder(seed=1),
        folder(Cell("mine", {"lr": 0.2}, ("start",))),
        folder(Cell("mine", {"lr": 0.1})),
        folder(Cell("start", {"epochs": 3})),  # what it starts from
        folder(Cell("mine", {"lr": 0.1, "max_train": 400}, ("start",)), quick=True),
        folder(Cell("mine", {"hide": "both"}, ("start",), EVALUATE)),
    ]
    assert len({usual, *others}) == 1 + len(others)
    # neither what changes nothing, nor a default that is spelled out
    assert folder(Cell("mine", {"lr": 0.1, "samples": 1, "save_every": 7, "momentum": 0.9}, ("start",))) == usual
    monkeypatch.setattr(cells, "CODE", cells.CODE + 1)
    assert folder() != usual


def test_what_a_plan_refuses() -> None:
    with pytest.raises(UsageError, match="cell 'nothing' does not exist"):
        jobs(["nothing"], [0])
    loop = {"a": Cell("a", {}, ("b",)), "b": Cell("b", {}, ("a",))}
    with pytest.raises(UsageError, match="starts from itself: a from b from a"):
        jobs(["a"], [0], cells=loop)
    with pytest.raises(UsageError, match="option 'epoch' does not exist; did you mean 'epochs'"):
        jobs(["a"], [0], cells={"a": Cell("a", {"epoch": 3})})[0].folder  # noqa: B018
    with pytest.raises((UsageError, TypeError)):
        jobs(["a"], [0], cells={"a": Cell("a", {"epoch": 3}, kind=PRETRAIN)})[0].folder  # noqa: B018


# -------------------------------------------------------------------------------------------- the runner, and a trainer


TRAINER = """
import json, os, pathlib, signal, sys, time
folder, what = pathlib.Path(sys.argv[1]), sys.argv[2]
said = folder.parent.parent / "said.txt"
def say(word):
    with open(said, "a") as file:
        file.write(word + " " + folder.name.rsplit("-", 2)[0] + "\\n")
def stop(*_):
    say("stopped")
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
(folder / "checkpoints").mkdir(parents=True, exist_ok=True)
before = list((folder / "checkpoints").glob("step-*"))
say("resumed" if before else "began")
for step in (1, 2):
    (folder / "checkpoints" / f"step-{step:08d}.safetensors").write_text("weights")
if what == "fails":
    print("first line")
    print("minifcn: it cannot be done", file=sys.stderr)
    sys.exit(2)
if what == "waits" and not before:
    time.sleep(60)
if what == "breaks":
    (folder / "evaluation.json").write_text('{"classes": ["a", "b"], "confusion": [[1, 2]')
    sys.exit(0)
if what == "together":  # waits until as many have begun
    until = time.monotonic() + 30
    while said.read_text().count("began") < 2 and time.monotonic() < until:
        time.sleep(0.01)
record = {"classes": ["a", "b"], "confusion": [[3, 1], [0, 4]], "pixel_accuracy": 0.875, "threads": os.environ["OMP_NUM_THREADS"]}
(folder / "evaluation.json").write_text(json.dumps(record))
say("done")
"""  # noqa: E501


def fake(what: dict[str, str] | None = None) -> Callable[[Job, Path], list[str]]:
    """A trainer that leaves what a run leaves, at once, and does to some cells what `what` says."""
    return lambda job, out: [
        sys.executable, "-c", TRAINER, str(folder_of(job, out)), (what or {}).get(job.cell.name, "works"),
    ]  # fmt: skip


FAMILY = {
    "a": Cell("a", {"epochs": 2}),
    "b": Cell("b", {"epochs": 3}, ("a",)),
    "c": Cell("c", {"epochs": 4}, ("a", "b")),
    "d": Cell("d", {"epochs": 5}),
}


def said() -> list[str]:
    return Path("out/said.txt").read_text().splitlines()


def run(names: str, *, lines: list[str] | None = None, at_once: int = 1, **what: str) -> tuple[Runner, int]:
    plan = jobs(names, [0], cells=FAMILY)
    said_lines = [] if lines is None else lines
    one = Runner(plan, Path("out"), at_once=at_once, command=fake(what), say=said_lines.append)
    return one, one.run()


@pytest.fixture(autouse=True)
def _quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "TICK", 0.01)


def test_every_cell_is_run_once_after_those_it_starts_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    lines: list[str] = []
    one, code = run("cbb", lines=lines)
    assert said() == ["began a", "done a", "began b", "done b", "began c", "done c"]
    assert (one.failed, code) == ({}, 0) and len(one.done) == 3
    assert [line.split(":")[0] for line in lines] == ["1/3 cells", "2/3 cells", "3/3 cells"] and "left" in lines[0]
    found = read_json(folder_of(one.done[0], Path("out")) / "evaluation.json", most=1000, what="it")
    assert found["threads"] == "1"
    # another table that needs two of them, and one more
    run("bcd")
    assert said()[6:] == ["began d", "done d"]
    assert Times.read(Path("out/times.json")).jobs.keys() == {job.folder for job in jobs("abcd", [0], cells=FAMILY)}


def test_two_run_at_a_time() -> None:
    run("ad", at_once=2, a="together", d="together")
    assert sorted(said()[:2]) == ["began a", "began d"] and len(said()) == 4


def test_a_finished_run_keeps_its_newest_checkpoint_alone() -> None:
    one, _ = run("a")
    kept = [path.name for path in (folder_of(one.done[0], Path("out")) / "checkpoints").iterdir()]
    assert kept == ["step-00000002.safetensors"]


def test_a_cell_that_fails_takes_along_those_that_start_from_it_and_no_others() -> None:
    lines: list[str] = []
    one, _ = run("cd", lines=lines, b="fails")
    failed = {name.rsplit("-", 2)[0]: why for name, why in one.failed.items()}
    assert failed["b"] == "exit code 2: first line / minifcn: it cannot be done"
    assert failed["c"].startswith("it starts from b-0-") and set(failed) == {"b", "c"}
    assert {job.cell.name for job in one.done} == {"a", "d"} and sum(line.startswith("FAILED") for line in lines) == 2
    assert run("cd")[0].failed == {} and "resumed b" in said()  # the same command tries again


def test_a_process_that_says_it_is_done_has_to_leave_a_result() -> None:
    one, _ = run("a", a="breaks")
    (why,) = one.failed.values()
    assert "evaluation.json: is not JSON" in why


@pytest.mark.slow("starts a reproduction three times, in processes of its own")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_goes_on_where_it_was(number: signal.Signals) -> None:
    program = f"""
import sys, pathlib
sys.path[:0] = [{str(ROOT / "tests" / "experiments")!r}, {str(ROOT / "tests")!r}]
import test_reproduce as t
one = t.Runner(t.jobs("cd", [0], cells=t.FAMILY), pathlib.Path("out"), at_once=2, command=t.fake({{"a": "waits"}}))
sys.exit(one.run())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=here(), stderr=subprocess.PIPE, start_new_session=True
    )
    wait_for(lambda: "began a" in said_so_far() and "done d" in said_so_far())
    os.killpg(process.pid, number)  # as a terminal does it: to the runner and whatever it has not set apart
    assert process.wait(30) == 128 + number
    assert process.stderr is not None and b"finishing" in process.stderr.read()
    process.stderr.close()
    assert "stopped a" in said() and "began b" not in said()
    one, _ = run("cd", a="waits")
    assert one.failed == {} and said()[-5:] == ["done a", "began b", "done b", "began c", "done c"]
    assert "resumed a" in said() and said().count("began d") == 1


def test_a_runner_that_was_killed_leaves_nothing_that_is_done_twice() -> None:
    """Its processes live on and hold their folders; the next runner waits for them and takes what they leave."""
    (job,) = jobs("a", [0], cells=FAMILY)
    folder = folder_of(job, Path("out"))
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "lock").touch()
    release, lines = Path("release"), []
    program = f"""
import fcntl, json, pathlib, time
with open({str(folder / "lock")!r}, "a+b") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    pathlib.Path("held").touch()
    while not pathlib.Path({str(release)!r}).exists():
        time.sleep(0.01)
    record = {{"classes": ["a", "b"], "confusion": [[3, 1], [0, 4]], "pixel_accuracy": 0.875}}
    pathlib.Path({str(folder / "evaluation.json")!r}).write_text(json.dumps(record))
"""
    orphan = subprocess.Popen([sys.executable, "-c", program])
    wait_for(lambda: Path("held").exists())

    def say(line: str) -> None:
        lines.append(line)
        release.touch()  # only once it has been reported

    one = Runner([job], Path("out"), at_once=1, command=fake(), say=say)
    assert one.run() == 0 and one.failed == {} and orphan.wait(30) == 0
    assert "waiting for it" in lines[0] and not Path("out/said.txt").exists() and len(one.done) == 1


def test_two_runners_do_not_share_a_folder() -> None:
    Path("out").mkdir()
    Path("out/lock").touch()
    program = "import fcntl, sys; f = open('out/lock'); fcntl.flock(f, 2); print('held', flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None and other.stdout.readline() == b"held\n"
    with pytest.raises(UsageError, match="out: is in use by another process"):
        run("a")
    other.communicate()
    with locked(Path("out")):
        pass


def here() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def said_so_far() -> list[str]:
    return said() if Path("out/said.txt").exists() else []


def wait_for(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not done():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def test_a_run_killed_before_its_first_checkpoint_begins_anew() -> None:
    (job,) = jobs("a", [0], cells=FAMILY)
    folder = folder_of(job, Path("out"))
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert command_of(job, Path("out"))[4].startswith("--run=")
    run("a")
    assert said()[0] == "began a" and not (folder / "config.json").exists()


def test_the_commands() -> None:
    out = Path("out")
    classifier, evaluation = (
        Cell("classifier", {"epochs": 1}, kind=PRETRAIN),
        Cell("e", {"hide": "both"}, ("c",), EVALUATE),
    )
    known = FAMILY | {"p": classifier, "e": evaluation, "f": Cell("f", {"mirror": False, "lr": 1e-7}, ("p",))}
    by_name = {job.cell.name: job for job in jobs("ecf", [3], cells=known)}

    def words(name: str) -> list[str]:
        return command_of(by_name[name], out)[2:]

    a, b, c = (str(folder_of(by_name[name], out)) for name in "abc")
    trunk = str(folder_of(by_name["classifier"], out) / "trunk.safetensors")
    assert words("a") == ["minifcn", "train", f"--run={a}", "--recipe=toy", "--epochs=2", "--seed=3", "--threads=1"]
    assert words("c")[:4] == ["minifcn", "train", f"--run={c}", f"--init={a},{b}"]
    assert words("f")[3:] == [f"--init={trunk}", "--recipe=toy", "--no-mirror", "--lr=1e-07", "--seed=3", "--threads=1"]
    assert words("classifier") == ["minifcn", "pretrain", trunk, "--epochs=1", "--seed=3", "--threads=1"]
    place = folder_of(by_name["e"], out) / "evaluation.json"
    assert words("e") == ["minifcn", "evaluate", c, f"--json={place}", "--hide=both", "--threads=1"]
    (Path(a) / "checkpoints").mkdir(parents=True)
    (Path(a) / "checkpoints" / "step-00000000.safetensors").touch()
    assert words("a") == ["minifcn", "train", f"--resume={a}", "--threads=1"]


def test_the_tail_of_a_log_is_short_and_printable(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(b"x" * 100_000 + b"\n\na\x1b[31m\nb\n\n  c\xff\n")
    assert tail(path) == "a?[31m / b / c\N{REPLACEMENT CHARACTER}"
    path.write_bytes(b"\n")
    assert tail(path) == "it said nothing" and "No such file" in tail(tmp_path / "none")


def test_times_that_cannot_be_are_no_times(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    for text in ("", "[]", '{"jobs": 3, "whole": "x"}', '{"jobs": {"a": -1, "b": true, "c": 1e400}, "whole": NaN}'):
        path.write_text(text)
        assert (Times.read(path).jobs, Times.read(path).whole) == ({}, 0.0)
    plan = jobs("ad", [0], cells=FAMILY)
    times = Times.read(path)
    expected = cells.expected_seconds(plan[1])
    assert math.isclose(times.left(plan[1:], plan[:1]), expected)
    times.add(plan[0], 3 * cells.expected_seconds(plan[0]))
    times.add(None, 5)
    again = Times.read(path)
    assert again.whole == 5 and math.isclose(again.left(plan[1:], plan[:1]), 3 * expected)  # this machine is slower


# -------------------------------------------------------------------------------------------------------------- results


GOOD: dict[str, Any] = {"classes": ["a", "b"], "confusion": [[3, 1], [0, 4]], "pixel_accuracy": 0.875}


@pytest.fixture
def job() -> Job:
    return jobs("a", [0], cells={"a": Cell("a", {"batch": 4, "accumulate": 2})})[0]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "cannot be read (No such file"),
        ("", "is not JSON"),
        ("\0\xff", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "holds list; expected an object"),
        ("{}", "field classes is no list"),
        (GOOD | {"classes": []}, "field classes is no list"),
        (GOOD | {"classes": ["a"] * 300}, "field classes is no list"),
        (GOOD | {"confusion": [[1, 2]]}, "field confusion is no table of 2 x 2"),
        (GOOD | {"confusion": [[1, 2], [3]]}, "field confusion is no table of 2 x 2"),
        (GOOD | {"confusion": [[1, -2], [3, 4]]}, "field confusion is no table of 2 x 2"),
        (GOOD | {"confusion": [[1.5, 2], [3, 4]]}, "field confusion is no table of 2 x 2"),
        (GOOD | {"confusion": [[True, 2], [3, 4]]}, "field confusion is no table of 2 x 2"),
        (GOOD | {"confusion": [[10**30, 2], [3, 4]]}, "field confusion is no table of 2 x 2"),
        (GOOD | {"confusion": None}, "field confusion is no table of 2 x 2"),
        (GOOD | {"pixel_accuracy": 0.9}, "field pixel_accuracy is 0.9; its confusion matrix says 0.875000"),
        (GOOD | {"pixel_accuracy": None}, "field pixel_accuracy is None"),
        (GOOD | {"geometry": []}, "field geometry is list"),
        (GOOD | {"geometry": {"classes": ["x"]}}, "field confusion is no table of 1 x 1"),
        (" " * (5 << 20), "bytes; expected an evaluation.json, a file of at most"),
    ],
)
def test_a_broken_evaluation_is_no_result(job: Job, tmp_path: Path, text: Any, complaint: str) -> None:
    folder = folder_of(job, tmp_path)
    folder.mkdir(parents=True)
    if text is not None:
        (folder / "evaluation.json").write_text(text if isinstance(text, str) else json.dumps(text), encoding="latin-1")
    with pytest.raises(FormatError) as fault:
        read_result(folder, job)
    assert complaint in str(fault.value) and "\n" not in str(fault.value)
    assert not finished(job, tmp_path)


def test_a_result_is_counted_again_from_its_confusion_matrix(job: Job, tmp_path: Path) -> None:
    geometry = {"classes": ["x", "y"], "confusion": [[1, 1], [0, 2]], "pixel_accuracy": 0.75}
    write_json(tmp_path / "evaluation.json", GOOD | {"mean_iu": 0.99, "geometry": geometry})
    for step, loss in ((10, 2.0), (20, 1.0)):
        record = {"kind": "train", "step": step, "loss": loss, "images_per_s": 40.0 if step == 10 else 20.0}
        append(tmp_path / "metrics.jsonl", record)
    result = read_result(tmp_path, job)
    found = {name: measure(result) for name, (_, measure) in MEASURES.items()}
    assert found["mean_iu"] == pytest.approx((3 / 4 + 4 / 5) / 2) and found["pixel_accuracy"] == 0.875
    assert found["foreground_iu"] == pytest.approx(4 / 5) and found["geometry_accuracy"] == 0.75
    assert found["loss"] == 1.0 and found["seconds"] == pytest.approx(80 / 40 + 80 / 20)  # 8 images a step
    assert result.curve().images.tolist() == [80, 160]
    names = ["horizontal", "vertical", "sky"]
    alone = {"classes": names, "confusion": np.eye(3, dtype=int).tolist(), "pixel_accuracy": 1.0}
    write_json(tmp_path / "evaluation.json", alone)  # a net for the second labels alone
    result = read_result(tmp_path, job)
    assert MEASURES["geometry_accuracy"][1](result) == 1 and math.isnan(MEASURES["mean_iu"][1](result))


def test_a_log_is_read_line_by_line_and_doubted(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    good = '{"kind": "train", "step": %d, "loss": 0.5, "images_per_s": 10}\n'
    bad = [
        "nothing\n", "[]\n", '{"kind": "val", "step": 1}\n', '{"kind": "train", "step": 3, "loss": null}\n',
        '{"kind": "train", "step": -3, "loss": 1, "images_per_s": 10}\n', "[" * 50_000 + "\n",
        '{"kind": "train", "step": true, "loss": 1, "images_per_s": 10}\n', '{"kind": "train", "st',
    ]  # fmt: skip
    path.write_text(good % 20 + "".join(bad[:-1]) + good % 10 + bad[-1])
    curve = read_curve(path, 2)
    assert curve.steps.tolist() == [10, 20] and curve.seconds.tolist() == [2.0, 4.0]
    path.write_text("")
    assert math.isnan(read_curve(path, 1).final_loss())


def test_a_trunk_is_finished_if_its_file_is_whole(tmp_path: Path) -> None:
    (job,) = jobs(["p"], [0], cells={"p": Cell("p", {}, kind=PRETRAIN)})
    path = weights_of(job, tmp_path)
    path.parent.mkdir(parents=True)
    assert not finished(job, tmp_path)
    tensors = {"trunk.block1.conv1_1.w": np.ones((2, 2), np.float32)}
    for record in ({}, {"pretraining": {"accuracy": 2.0}}, {"pretraining": []}):
        save_checkpoint(path, tensors, record)
        assert not finished(job, tmp_path)
    save_checkpoint(path, tensors, {"pretraining": {"accuracy": 0.8}})
    assert finished(job, tmp_path) and read_pretrained(path) == 0.8
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    assert not finished(job, tmp_path)


# --------------------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize("name", TABLES)
def test_a_table_refers_to_cells_and_measures_that_exist(name: str) -> None:
    table = TABLES[name]
    assert table.cells and set(table.cells) <= set(CELLS) and table.claims
    assert set(table.columns) <= set(MEASURES)
    rows = {row.cell for row in table.rows}
    assert len(rows) == len(table.rows) and {len(row.paper) for row in table.rows} <= {0, *range(1, 6)}
    for claim in table.claims:
        assert claim.a != claim.b and {claim.a, claim.b, *claim.gain} <= rows and len(claim.gain) in (0, 2), claim.text
        assert claim.measure in table.columns, claim.text
    for row in table.rows:
        assert len(row.paper) <= len(table.columns)
        assert all(0 < float(text.rstrip("†")) < 100 for text in row.paper)


def test_every_cell_serves_a_table() -> None:
    served = {job.cell.name for job in jobs([cell for table in TABLES.values() for cell in table.cells], [0])}
    assert served == set(CELLS)


def test_the_papers_own_order_is_that_of_the_claims() -> None:
    """Where the paper has numbers for both cells of a claim, they say what the claim says."""
    checked = 0
    for table in TABLES.values():
        paper = {row.cell: dict(zip(table.columns, row.paper, strict=False)) for row in table.rows}
        for claim in table.claims:
            a, b = (paper[cell].get(claim.measure) for cell in (claim.a, claim.b))
            if a and b and not claim.gain:
                assert claim.says != EQUAL and float(a.rstrip("†")) > float(b.rstrip("†")), (table.name, claim.text)
                checked += 1
    assert checked >= 15


def test_a_gain_is_compared_with_a_gain() -> None:
    claim = Claim("a gains more over b than b over c", "a", "b", "pixel_accuracy", gain=("b", "c"))
    found = {(cell, 0): result(share) for cell, share in {"a": 0.9, "b": 0.8, "c": 0.75}.items()}
    assert claim.differences(found, [0]) == [pytest.approx(0.05)] and math.isnan(claim.differences(found, [0, 1])[1])
    table = Table("t", "T", "", "", (), (claim,))
    assert table.cells == ["a", "b", "c"]


def test_stitching_takes_300_times_the_multiply_adds() -> None:
    """What the page says of the cost of an answer."""
    options = {"layers": SCENES["layers"], "width": SCENES["width"], "classes": 8}
    coarse, fused = (vgg_fcn(skips, **options) for skips in ((), ("pool4",)))
    costs = [
        sum(line.multiply_adds for line in describe(net, SCENES["world_size"]).rows)
        for net in (Rarefied(coarse).trunk, coarse, fused)
    ]
    assert [round(costs[0] / cost, -2) for cost in costs[1:]] == [300, 300]


def test_tables_are_chosen_by_name() -> None:
    assert chosen([]) == list(TABLES) and chosen(["cues", "strides", "cues"]) == ["strides", "cues"]
    assert chosen([], ["exact"])[0] == "exact" and chosen(["exact"], ["exact"]) == ["exact"]
    with pytest.raises(UsageError, match="table 'stride' does not exist; there are trunks, strides"):
        chosen(["stride"])


# ------------------------------------------------------------------------------------------------------------- the page


def result(share: float) -> Result:
    """Of two classes, with this pixel accuracy."""
    right = round(1000 * share)
    return Result(ConfusionMatrix.of([[right, 1000 - right], [1000 - right, right]]))


TABLE = Table(
    "made-up",
    "Made up",
    "a table",
    "all of it.",
    (Row("one", "a", ("50.0", "40.0")), Row("two | three", "b"), Row("four", "c", ("30.0†", "20.0"))),
    (
        Claim("a is better than b", "a", "b"),
        Claim("b is better than a", "b", "a"),
        Claim("a is better than c", "a", "c"),
        Claim("a and b are alike", "a", "b", says=EQUAL),
    ),
    ("pixel_accuracy", "mean_iu"),
    curves=True,
)
RESULTS = {
    **{("a", seed): result(share) for seed, share in enumerate((0.9, 0.92, 0.91))},
    **{("b", seed): result(share) for seed, share in enumerate((0.8, 0.81, 0.80))},
    **{("c", seed): result(share) for seed, share in enumerate((0.95, 0.80))},  # one seed is missing
}


def findings(**changed: Any) -> Findings:
    usual: dict[str, Any] = {"command": "minifcn reproduce", "seeds": (0, 1, 2), "tables": (TABLE,), "results": RESULTS}
    return Findings(**usual | changed)


def test_the_page_has_numbers_spreads_and_verdicts(tmp_path: Path) -> None:
    page, *pictures = write_markdown(sections(findings()), tmp_path / "reproduction.md")
    text = page.read_text(encoding="utf-8")
    assert "| one | the paper | 50.0 | 40.0 |\n|  | here | 91.0 ± 1.0 |" in text
    assert "| two \\| three | here | 80.3 ± 0.6 |" in text and "| four | the paper | 30.0† | 20.0 |" in text
    assert "Of 4 claims: 1 held, 2 reversed, 1 undecided." in text
    assert "| a is better than c | mean IU | – | – | undecided |" in text
    mean, spread = summary(RESULTS, "a", (0, 1, 2), "mean_iu")
    assert f"{100 * mean:.1f} ± {100 * spread:.1f}" in text
    (line,) = (line for line in text.splitlines() if line.startswith("| a is better than b | mean IU"))
    assert line.endswith("| **held** |") and "| +" in line
    assert {path.name for path in pictures} == {"reproduction-made-up.png", "reproduction-made-up-loss.png"}
    assert all(f"(images/{path.name})" in text and path.read_bytes()[:4] == b"\x89PNG" for path in pictures)
    assert str(tmp_path) not in text and os.uname().nodename not in text


def test_the_report_is_one_file_and_says_the_same(tmp_path: Path) -> None:
    named = Table("x", "<b>bold</b>", "p", "d.", TABLE.rows, TABLE.claims, TABLE.columns)
    page = write_html(sections(findings(tables=(named,), failed={"c-1-0": "<script>"})), tmp_path / "report.html")
    text = page.read_text(encoding="utf-8")
    assert "91.0 ± 1.0" in text and "Of 4 claims: 1 held, 2 reversed, 1 undecided." in text
    assert "<script" not in text and "&lt;b&gt;bold" in text and "&lt;script&gt;" in text
    assert "data:image/png;base64," in text and "http" not in text and [*tmp_path.iterdir()] == [page]


def test_a_quick_run_has_no_verdicts(tmp_path: Path) -> None:
    text = write_markdown(sections(findings(quick=True, seeds=(0,))), tmp_path / "p.md")[0].read_text(encoding="utf-8")
    assert "A quick run" in text and "90.0" in text
    assert not any(word in text for word in (HELD, REVERSED, UNDECIDED))


def test_a_page_without_any_result_is_a_page() -> None:
    found = list(sections(findings(results={})))
    cells_shown = [
        cell
        for _, blocks in found
        for block in blocks
        if isinstance(block, TextTable)
        for row in block.rows
        for cell in row
    ]
    assert "–" in cells_shown and "nan" not in " ".join(cells_shown)
    assert any(isinstance(block, Picture) for _, blocks in found for block in blocks)
    assert "Of 4 claims: 0 held, 0 reversed, 4 undecided." in [block for _, blocks in found for block in blocks]


def test_new_tables_beside_an_older_page(tmp_path: Path) -> None:
    """In the tables' order, with all claims counted, and how each was made; made again, they take their own places."""
    page, first, *_, last = tmp_path / "p.md", *TABLES.values()
    older = Table(last.name, last.title, "p|p", "older.", TABLE.rows, TABLE.claims, TABLE.columns)
    newer = Table(first.name, first.title, "p", "newer.", TABLE.rows, TABLE.claims[:2], TABLE.columns)
    write_markdown(sections(findings(tables=(older,), command="older")), page)
    was = read_page(page)
    for day in ("one day", "another day"):
        found = sections(findings(tables=(newer,), command="newer"))
        write_markdown(beside(read_page(page), found, day=day), page)
        now = read_page(page)
        assert list(now) == ["How it was made", "What held", first.title, last.title]
        assert now[last.title] == was[last.title] and "newer." in now[first.title]
        assert now["How it was made"].startswith(f"{was['How it was made']}\n\n*{first.title}*: made later, on {day}. ")
        assert now["How it was made"].count("`newer`") == now["How it was made"].count("`older`") == 1
        assert now["What held"].startswith("Of 6 claims: 2 held, 3 reversed, 1 undecided.")
        shown = [line.split(" | ")[0] for line in now["What held"].split("\n")[4:]]
        assert shown == [f"| {first.title}"] * 2 + [f"| {last.title}"] * 4
    write_markdown(beside(now, sections(findings(tables=(older,))), day="x"), page)
    assert read_page(page)["What held"] == now["What held"]
    write_markdown(beside(was, sections(findings(tables=(), exact=exact_rows()[:1])), day="x"), page)
    assert list(read_page(page)) == ["How it was made", "What held", "Exact", last.title]
    assert read_page(page)["What held"] == was["What held"]


def test_a_page_that_is_not_ours_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "p.md").write_bytes(b"# Something else\n\n## How it was made\n\xff")
    with pytest.raises(FormatError, match=r"p\.md: is none of our pages"):
        read_page(tmp_path / "p.md")
    with pytest.raises(UsageError, match="cannot be read"):
        read_page(tmp_path)


def test_shares_are_shares() -> None:
    assert set(SHARES) == set(MEASURES) - {"loss", "seconds"}


# ------------------------------------------------------------------------------------------------------------- the verb


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("stride", "table 'stride' does not exist; there are exact, bound, trunks"),
        ("--seeds 0", "option seeds is 0; expected a number from 1 to 100"),
        ("--seeds x", "option --seeds is 'x'; expected a whole number"),
        ("--jobs -1", "option jobs is -1; expected a number from 0"),
        ("--out a,b", "option out is 'a,b'; expected a folder without a comma"),
        ("--out file", "file: is no folder; choose another --out"),
        ("--page nowhere/x.md", "nowhere/x.md: expected a file .md in a folder that exists"),
        ("--page x.md --keep", "x.md: cannot be read (No such file or directory); expected a page to be kept"),
        ("--keep", "option keep is for a --page with the numbers of whole runs; expected --page and no --quick"),
        ("--page x.md --keep --quick", "option keep is for a --page with the numbers of whole runs"),
        ("--page x.html", "x.html: expected a file .md"),
        ("--quik", "option --quik does not exist; did you mean --quick?"),
    ],
)
def test_what_reproduce_refuses(argv: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    assert main(["reproduce", *argv.split()]) == 2
    found = capsys.readouterr().err
    assert found.startswith(f"minifcn: {line}") and found.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["file"]


def test_reproduce_lists_and_previews_and_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in ("exact", "bound", *TABLES))
    assert main(["reproduce", "strides", "fusion", "--dry-run", "--seeds", "2", "--jobs", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("14 cells, 0 of them done; the others take about ") and len(lines) == 15
    assert sum("fcn16s-0-" in line.split()[2] for line in lines[:-1]) == 1 and not [*Path().iterdir()]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of two cells, the second of which starts from the first, that take a second each."""
    small = {"world_size": 64, "max_train": 4, "max_val": 2, "width": 1, "epochs": 1, "batch": 2, "samples": 0}
    made = {"first": Cell("first", small), "second": Cell("second", {**small, "lr": 0.01}, ("first",))}
    table = Table(
        "tiny", "Tiny", "none", "all.", (Row("1", "first"), Row("2", "second")), (Claim("x", "second", "first"),)
    )
    monkeypatch.setattr(cells, "CELLS", made)
    monkeypatch.setattr("minifcn.experiments.reproduction.tables.TABLES", {"tiny": table})
    monkeypatch.setattr("minifcn.cli.reproduce.TABLES", {"tiny": table})


@pytest.mark.slow("trains four cells, in processes of their own")
def test_two_real_cells_from_end_to_end(tiny: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Trained by the real trainer, each in its process; the second time nothing is."""
    Path("docs").mkdir()
    argv = ["reproduce", "tiny", "--quick", "--out", "out", "--page", "docs/reproduction.md"]
    assert main(argv) == 0
    said = capsys.readouterr().out
    assert "2 cells, 0 of them done" in said and "2/2 cells: second-0-" in said and "wrote docs/reproduction.md" in said
    times = Path("out/times.json").read_text()
    text = Path("docs/reproduction.md").read_text(encoding="utf-8")
    assert "Made by `minifcn reproduce tiny --quick`" in text and "out" not in text.split("`")[1]
    (log,) = Path("out/log").glob("second-*.txt")
    assert "first-0-" in log.read_text(), "the second cell does not say that it starts from the first"
    assert main(argv) == 0
    assert "2 cells, 2 of them done" in capsys.readouterr().out
    assert json.loads(Path("out/times.json").read_text())["jobs"] == json.loads(times)["jobs"]
    (spoiled,) = Path("out/cells").glob("second-*")
    (spoiled / "evaluation.json").write_text("{")  # goes on from its last checkpoint, which has no step left
    assert main(argv) == 0
    assert "2 cells, 1 of them done" in capsys.readouterr().out and "resumed" in log.read_text()


@pytest.mark.slow("trains until it diverges, in a process of its own")
def test_a_cell_that_diverges_is_told_of_and_the_page_is_written(
    tiny: None, capsys: pytest.CaptureFixture[str]
) -> None:
    first = cells.CELLS["first"]
    cells.CELLS["second"] = Cell("second", {**first.options, "lr": 1e6, "epochs": 20})
    assert main(["reproduce", "tiny", "--quick", "--out", "out"]) == 1
    said = capsys.readouterr()
    assert "FAILED second-0-" in said.out and "exit code 3" in said.out
    assert "1 of 2 cells failed; the same command tries them again" in said.err
    page = Path("out/reproduction.md").read_text(encoding="utf-8")
    assert "## Cells that failed" in page and "| 2 | – | – | – | – |" in page
