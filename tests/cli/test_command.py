"""How commands end: one line and an exit code, a traceback only with --debug; and what the doctor prescribes."""

import importlib
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
from fake_device import FakeCupy

import minifcn
from minifcn.cli import doctor
from minifcn.cli import verbs as cli
from minifcn.cli.command import guard
from minifcn.errors import DataError, DivergedError, MinifcnError, UsageError
from minifcn.training.ranks import LostError

ROOT = pathlib.Path(__file__).parent.parent.parent


def raising(error: BaseException):
    def main(argv: list[str]) -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DataError("a.png: mask is RGB"), 2, "minifcn: a.png: mask is RGB\n"),
        (DataError("two\n  lines"), 2, "minifcn: two lines\n"),
        (DivergedError("the loss is nan"), 3, "minifcn: the loss is nan\n"),
        (KeyboardInterrupt(), 130, "minifcn: interrupted\n"),
        (OSError(28, "No space left on device", "x.bin"), 2, "minifcn: x.bin: No space left on device\n"),
        (MemoryError("8 GiB"), 2, "minifcn: out of memory: 8 GiB; a smaller --batch, --crop or --width needs less\n"),
        (KeyError("x"), 1, "minifcn: unexpected KeyError: 'x' (add --debug to see where)\n"),
    ],
)
def test_an_error_is_one_line(error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert guard(raising(error), []) == code
    assert capsys.readouterr() == ("", line)
    with pytest.raises(type(error)):
        guard(raising(error), ["--debug"])


def test_every_kind_of_error_has_an_exit_code() -> None:
    kinds = [MinifcnError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    ours = [kind for kind in kinds if kind is not LostError]  # of another rank, which is no fault of this command
    assert len(kinds) > 5 and {kind.exit_code for kind in ours} == {2, 3} and LostError.exit_code == 1


def test_the_result_and_the_arguments_pass_through() -> None:
    seen: list[list[str]] = []
    assert guard(lambda argv: seen.append(argv) or 7, ["a", "--b"]) == 7
    assert guard(lambda argv: seen.append(argv) or 0, ["a", "--debug", "--b"]) == 0
    assert seen == [["a", "--b"], ["a", "--b"]]


def test_a_reader_that_went_away_is_no_error() -> None:
    program = "from minifcn.cli.command import run\nrun(lambda argv: [print('x' * 1000) for _ in range(1000)] and 0)"
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.parametrize("argv", [[], ["--help"], ["help"]])
def test_the_table_of_verbs(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {verb} " in printed for verb in cli.VERBS)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_is_a_command(verb: str) -> None:
    assert callable(importlib.import_module(f"minifcn.cli.{cli.MODULES.get(verb, verb)}").main)


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"minifcn {minifcn.__version__}\n"
    assert re.fullmatch(r"\d+\.\d+\.\d+", minifcn.__version__)


@pytest.mark.parametrize(("verb", "hint"), [("trian", "did you mean train?"), ("xyz", "expected one of train, ")])
def test_an_unknown_verb_names_the_nearest(verb: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"minifcn: unknown verb '{verb}': {hint}") and error.count("\n") == 1
    with pytest.raises(UsageError):
        cli.main([verb, "--debug"])


# --- the doctor -----------------------------------------------------------------------------------------------------


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without a GPU that has everything else, whatever this one has."""
    monkeypatch.setattr(doctor, "version", lambda name: "1.0")
    monkeypatch.setattr(doctor, "cupy_packages", list)
    monkeypatch.setattr(doctor, "driver", lambda: ("", 0))
    monkeypatch.setattr(doctor, "diagnose_gpu", lambda: (False, "CuPy is not installed", "pip install CURE"))
    return monkeypatch


def test_nothing_to_mend(healthy: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([]) == 0
    printed = capsys.readouterr().out
    for name in ("minifcn", "Python", "NumPy", "BLAS", "threads", "CuPy", "driver", "device", "2x2 product"):
        assert re.search(rf"^{name}  +\S", printed, re.MULTILINE), name
    assert "Nothing to fix" in printed and "cpu, because CuPy is not installed" in printed and "CURE" not in printed
    assert "cpu: right" in printed


def test_a_card_without_cupy_is_an_offer(healthy: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    healthy.setattr(doctor, "driver", lambda: ("12.9", 1))
    assert doctor.main([]) == 0
    printed = capsys.readouterr().out
    assert "Nothing to fix" in printed and "pip install CURE" in printed and "up to CUDA 12.9, cards: 1" in printed


def test_two_cupys_are_mended_by_one_command(healthy: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    healthy.setattr(doctor, "cupy_packages", lambda: ["cupy-cuda11x", "cupy-cuda12x"])
    assert doctor.main([]) == 1
    printed = capsys.readouterr().out
    assert "cupy-cuda11x 1.0, cupy-cuda12x 1.0" in printed and "To fix it:  pip install CURE" in printed


def test_a_missing_package_is_mended_first(healthy: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    healthy.setattr(doctor, "version", lambda name: None if name in ("tqdm", "torch") else "1.0")
    assert doctor.main([]) == 1
    assert re.search(r"^To fix it:  .*-m pip install tqdm$", capsys.readouterr().out, re.MULTILINE)


def test_a_gpu_in_use_is_named(fake_gpu: FakeCupy, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([]) == 0
    printed = capsys.readouterr().out
    assert "gpu: a GPU made of NumPy" in printed and "gpu: right" in printed


def test_the_doctor_takes_no_arguments() -> None:
    with pytest.raises(UsageError, match="'now'"):
        doctor.main(["now"])
    assert doctor.main(["--help"]) == 0


def test_the_doctor_knows_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[\[<>=!~; ]", requirement)[0] for requirement in requirements}

    extras = {extra: names(needs) for extra, needs in project["optional-dependencies"].items()}
    assert names(project["dependencies"]) == {"numpy", *doctor.PACKAGES}
    assert set.union(*(needs for extra, needs in extras.items() if not extra.startswith("gpu"))) == set(doctor.EXTRAS)
    for extra, needs in extras.items():
        assert all(f"extra {extra}" in doctor.EXTRAS[name] for name in needs & set(doctor.EXTRAS))
