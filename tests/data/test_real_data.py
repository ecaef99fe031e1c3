"""A few steps on real photographs: every set in the layout of PASCAL VOC trains, is measured, and is predicted on."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from minifcn.cli.verbs import main
from minifcn.data.files import read_mask
from minifcn.data.voc import VOC_CLASSES, VOCSegmentation
from minifcn.kernels.threads import set_threads
from minifcn.training.trained import open_trained

SETS = {"voc2012_mini": 21, "voc2012_animals": 21, "camvid_240x180": 11, "stanford_background": 8}
FEW = [
    *("--max-train", "6", "--max-val", "3", "--width", "2", "--layers", "11", "--crop", "96", "--batch", "3"),
    *("--epochs", "12", "--measure-every", "12", "--lr", "0.05", "--dropout", "0", "--samples", "1", "--threads", "1"),
]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    yield
    set_threads(None)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", SETS)
def test_a_few_steps(name: str, data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, run = data_root / name, tmp_path / "run"
    if not root.is_dir():
        pytest.skip(f"{name} is not in the folder that MINIFCN_DATA names")
    assert main(["train", *FEW, "--data", str(root), "--run", str(run)]) == 0
    assert f"ln {SETS[name]} = {math.log(SETS[name]):.4f}, as scores of zero must give" in capsys.readouterr().out
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert len(losses) >= 3 and losses[-1] < 0.95 * losses[0] <= 0.97 * math.log(SETS[name])
    (measured,) = (line for line in lines if line["kind"] == "val")
    assert sum(measured["shares_true"]) == pytest.approx(1) and 0 < measured["pixel_accuracy"] < 1

    assert main(["evaluate", str(run), "--split", "val", "--json", str(tmp_path / "all.json"), "--batch", "1"]) == 0
    everything = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    val = VOCSegmentation(root, "val")
    assert everything["images"] == len(val) and everything["classes"] == list(val.classes)

    photo = next(path for path in sorted((root / "JPEGImages").iterdir()) if path.stem == val.ids[0])
    assert main(["predict", str(run), str(photo), "--out", str(tmp_path / "out")]) == 0
    mask = read_mask(tmp_path / "out" / f"{photo.stem}-mask.png", classes=SETS[name])
    assert mask.shape == val[0].label.shape


def test_ids_of_voc_keep_their_names(data_root: Path, tmp_path: Path) -> None:
    """Classes that no image of a set shows still have their rows: the ids are VOC's."""
    root = data_root / "voc2012_animals"
    if not root.is_dir():
        pytest.skip("voc2012_animals is not in the folder that MINIFCN_DATA names")
    short = [*FEW, "--data", str(root), "--run", str(tmp_path / "run"), "--stop-after", "1"]
    assert main(["train", *short]) == 0
    run = open_trained(tmp_path / "run")
    assert run.classes == VOC_CLASSES and run.net.score_fr.b.shape == (21,)
    assert np.isfinite(run.net.state_dict()["score_fr.w"]).all()
