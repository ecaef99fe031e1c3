"""The count that keeps groups of tests from skipping themselves into silence."""

import json
import pathlib
import subprocess
import sys
import tomllib

import pytest
from ci_groups import GROUPS, LEAST, WITHOUT_TESTS, extras, main, silent, unexpected

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture
def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_extra_has_its_group_and_every_group_its_marker(pyproject: dict) -> None:
    assert set(pyproject["project"]["optional-dependencies"]) - set(WITHOUT_TESTS) <= set(GROUPS)
    markers = pyproject["tool"]["pytest"]["ini_options"]["markers"]
    assert set(GROUPS) <= {marker.split(":")[0] for marker in markers}


@pytest.mark.parametrize(
    ("cuda", "cards", "gpu"), [("", 0, set()), ("12.9", 0, set()), ("12.9", 1, {"gpu"}), ("13.0", 2, {"gpu13"})]
)
def test_one_cupy_at_most(cuda: str, cards: int, gpu: set[str], pyproject: dict) -> None:
    chosen = set(extras(pyproject, cuda, cards))
    assert chosen & {"gpu", "gpu13"} == gpu
    assert chosen | {"gpu", "gpu13"} == set(pyproject["project"]["optional-dependencies"])


def test_a_silent_group_is_reported() -> None:
    counted = {"a": {"ran": 0, "skipped": {"tired": 3}}, "b": {"ran": 0, "skipped": {}}, "c": {"ran": 1, "skipped": {}}}
    needs = {"a": lambda: "", "b": lambda: "not installed", "c": lambda: ""}
    (complaint,) = silent(counted, needs)
    assert "'a'" in complaint and "tired" in complaint


def test_a_wheel_holds_the_package_alone(tmp_path: pathlib.Path) -> None:
    assert unexpected(["minifcn/cli/verbs.py", "minifcn-0.1.dist-info/METADATA", "tests/conftest.py"]) == [
        "tests/conftest.py"
    ]
    counted = tmp_path / "groups.json"
    counted.write_text(json.dumps({name: {"ran": LEAST.get(name, 1), "skipped": {}} for name in GROUPS}))
    assert main(["check", str(counted)]) == 0


def test_a_group_that_ran_in_part_is_reported(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GROUPS, "mpi", lambda: "")
    counted = tmp_path / "groups.json"
    for ran, code in ((LEAST["mpi"] - 1, 1), (LEAST["mpi"], 0)):
        counted.write_text(json.dumps({"mpi": {"ran": ran, "skipped": {"no mpiexec": 1}}}))
        assert main(["check", str(counted), "mpi"]) == code
    monkeypatch.setitem(GROUPS, "mpi", lambda: "mpi4py not installed")
    counted.write_text(json.dumps({"mpi": {"ran": 0, "skipped": {}}}))
    assert main(["check", str(counted), "mpi"]) == 0


SUITE = """
import pytest

def test_plain(): pass

@pytest.mark.oracle
def test_runs(): pass

@pytest.mark.gpu
def test_skips(): pytest.skip("no card")

@pytest.mark.gpu
@pytest.mark.skip(reason="never")
def test_is_skipped_before(): pass

def test_asks(data_root): pass
"""


@pytest.mark.parametrize("workers", ["0", pytest.param("2", marks=pytest.mark.slow("starts two workers"))])
def test_the_suite_counts_what_ran(workers: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    (tmp_path / "ci_groups.py").write_text((ROOT / "tests" / "ci_groups.py").read_text(encoding="utf-8"))
    (tmp_path / "test_planted.py").write_text(SUITE)
    options = ["-q", "-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider", "-n", workers]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        env={"PATH": "", "PYTHONPATH": str(ROOT), "MINIFCN_TEST_GROUPS": str(tmp_path / "groups.json")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "groups.json").read_text()) == {
        "oracle": {"ran": 1, "skipped": {}},
        "notebooks": {"ran": 0, "skipped": {}},
        "tutorials": {"ran": 0, "skipped": {}},
        "docs": {"ran": 0, "skipped": {}},
        "browser": {"ran": 0, "skipped": {}},
        "mpi": {"ran": 0, "skipped": {}},
        "lite": {"ran": 0, "skipped": {}},
        "pyodide": {"ran": 0, "skipped": {}},
        "interop": {"ran": 0, "skipped": {}},
        "lite0": {"ran": 0, "skipped": {}},
        "coco": {"ran": 0, "skipped": {}},
        "cupy": {"ran": 0, "skipped": {}},
        "gpu": {"ran": 0, "skipped": {"Skipped: no card": 1, "Skipped: never": 1}},
        "data": {"ran": 0, "skipped": {"Skipped: MINIFCN_DATA is not set: no real images here": 1}},
    }


def test_a_slow_test_says_why(tmp_path: pathlib.Path) -> None:
    for name in ("conftest.py", "ci_groups.py"):
        (tmp_path / name).write_text((ROOT / "tests" / name).read_text(encoding="utf-8"))
    (tmp_path / "test_planted.py").write_text("import pytest\n@pytest.mark.slow\ndef test_it(): pass\n")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-c",
            str(ROOT / "pyproject.toml"),
            "-p",
            "no:cacheprovider",
            str(tmp_path),
        ],
        env={"PATH": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4 and "test_it is marked slow without a reason" in done.stderr, done.stdout + done.stderr
