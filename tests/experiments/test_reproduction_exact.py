"""What the paper says in exact numbers comes out of our code, and would not if the code were another."""

import dataclasses
import math
import pathlib
import re
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from some_slow import slow_but

from minifcn import ops
from minifcn.errors import GeometryError
from minifcn.experiments.reproduction import errata, solver, structure, theory
from minifcn.experiments.reproduction.exact import exact_rows
from minifcn.experiments.reproduction.row import HEADER, Row, agreement, row
from minifcn.geometry import Grid, Layer
from minifcn.models import googlenet
from minifcn.models.fcn import FUSIONS
from minifcn.models.paper import FCN_AlexNet, FCN_GoogLeNet, paper_vgg
from minifcn.models.zoo import NETS
from minifcn.nn import MaxPool2d
from minifcn.tensor import Tensor

DOCS = pathlib.Path(__file__).parent.parent.parent / "docs"


@pytest.fixture(scope="module")
def rows():
    return exact_rows()


def failing(rows):
    return {row.claim for row in rows if not row.holds}


def test_every_exact_claim_holds_or_is_an_erratum(rows):
    assert not [row.cells() for row in rows if not row.holds]
    verdicts = Counter(row.verdict for row in rows)
    assert (
        verdicts["erratum"] == 7 and verdicts["holds"] > 35 and set(verdicts) == {"erratum", "holds", "not published"}
    )
    assert len({(row.section, row.claim) for row in rows}) == len(rows)
    for one in rows:
        assert len(one.cells()) == len(HEADER) and all(one.cells()[:5])
        assert not any("|" in cell or "\n" in cell for cell in one.cells())  # each is a cell of a Markdown table


def test_an_erratum_says_other_than_the_paper(rows):
    for one in rows:
        if one.verdict == "erratum":
            assert one.paper and one.paper != one.ours == one.expected


def test_the_page_of_errata_has_them_all(rows):
    """Six in its table; that the release does not learn what the paper learns is below it."""
    page = (DOCS / "errata.md").read_text(encoding="utf-8")
    table = [place.split(",")[0] for place in re.findall(r"^\| (section [^|]*?) \|", page, re.MULTILINE)]
    ours = [one.section for one in rows if one.verdict == "erratum"]
    assert "the released nets fix all of it" in page
    assert sorted([*table, "section 4.3"]) == sorted("section 4.1" if each == "table 1" else each for each in ours)


def test_a_row_is_judged_by_what_came_out():
    same = Row("s", "c", "5", "5")
    assert (same.holds, same.verdict) == (True, "holds")
    assert Row("s", "c", "5", "6").verdict == "FAILS"
    assert Row("s", "c", "5", "6", expected="6").verdict == "erratum"
    assert Row("s", "c", "5", "5", expected="6").verdict == "FAILS"  # an erratum that is none
    assert Row("s", "c", "", "6", expected="6").verdict == "not published"
    assert Row("s", "c", "", "6", expected="5").cells() == ("s", "c", "-", "6", "FAILS", "")


def test_a_refusal_is_an_answer_and_a_note_may_come_along():
    def refuse():
        raise GeometryError("does not fit")

    assert row("s", "c", "1", refuse).ours == "refused: does not fit" and not row("s", "c", "1", refuse).holds
    noted = row("s", "c", "1", lambda: ("1", "computed"), note="said")
    assert noted.holds and noted.note == "computed; said"


def test_agreement_needs_something_to_agree_on():
    one = np.ones(3)
    assert agreement(one, one)[0] == "equal" == agreement(one, one * (1 + 1e-13))[0]
    assert agreement(one, one * (1 + 1e-13), tolerance=0)[0] == "different" == agreement(one, -one)[0]
    assert agreement(0 * one, 0 * one)[0] == "different"  # nothing was computed
    assert agreement(one, np.ones(4))[0] == "shapes (3,) and (4,)"


# ---- nothing is written down: other code gives other rows -----------------------------------------------------------


def as_net(monkeypatch, name, make):
    monkeypatch.setitem(NETS, name, make)


def less_padding(monkeypatch):
    as_net(monkeypatch, "voc-fcn8s", partial(paper_vgg, 8, padding=99))


def too_little_padding(monkeypatch):
    as_net(monkeypatch, "voc-fcn32s", partial(paper_vgg, 32, padding=50))


def fewer_layers(monkeypatch):
    as_net(monkeypatch, "voc-fcn32s", partial(paper_vgg, 32, layers=13))


def other_alexnet(monkeypatch):
    as_net(monkeypatch, "voc-fcn-alexnet", partial(FCN_AlexNet, padding=96))


def pools_that_round_down(monkeypatch):
    def rounds_down(self, kernel_size, *, stride=None, ceil_mode=True, **window):
        original(self, kernel_size, stride=stride, ceil_mode=False, **window)

    original = MaxPool2d.__init__
    monkeypatch.setattr(MaxPool2d, "__init__", rounds_down)


def one_module_less(monkeypatch):
    short = {block: dict(list(modules.items())[: -(block == 5) or None]) for block, modules in INCEPTIONS.items()}
    short[5]["a"] = INCEPTIONS[5]["b"]
    monkeypatch.setattr(googlenet, "INCEPTIONS", short)


INCEPTIONS = googlenet.INCEPTIONS


def torchvisions_googlenet(monkeypatch):
    as_net(monkeypatch, "fcn-googlenet", partial(FCN_GoogLeNet, version="torchvision"))


def field_one_larger(monkeypatch):
    def through(self, layer):
        grid = original(self, layer)
        return replace(grid, field=grid.field + (layer.kernel == 7))

    original = Grid.through
    monkeypatch.setattr(Grid, "through", through)


STRUCTURE = [
    ("released", less_padding, {"voc-fcn8s: crop offsets"}),
    (
        "released",
        too_little_padding,
        {
            "voc-fcn32s: crop offsets",
            "voc-fcn32s: kernels of the upsampling",
            "voc-fcn32s: side of the scores of 500 pixels, before the last crop",
        },
    ),
    ("table_1", fewer_layers, {"FCN-VGG16: convolutional layers", "FCN-VGG16: receptive field"}),
    ("released", other_alexnet, {"voc-fcn-alexnet: crop offset"}),
    (
        "border",
        pools_that_round_down,
        {f"padding 100 lets every image through FCN-{stride}s" for stride in (32, 16, 8)}
        | {f"the least padding that does so (FCN-{stride}s)" for stride in (32, 16, 8)}
        | {"with 96, FCN-32s refuses the sides"},
    ),
    (
        "table_1",
        one_module_less,
        {"FCN-GoogLeNet: convolutional layers", "GoogLeNet: receptive field, with its last average pool"},
    ),
    ("table_1", field_one_larger, {"FCN-VGG16: receptive field"}),
]


@pytest.mark.parametrize(("part", "plant", "claims"), STRUCTURE, ids=[plant.__name__ for _, plant, _ in STRUCTURE])
def test_another_net_has_other_rows(part, plant, claims, monkeypatch):
    plant(monkeypatch)
    assert claims <= failing(getattr(structure, part)())


def test_less_border_costs_less(monkeypatch):
    as_net(monkeypatch, "voc-fcn32s", partial(paper_vgg, 32, padding=81))
    assert structure.multiply_adds(64) != "22 G"


def test_where_the_largest_net_was_another_the_parameters_are(monkeypatch):
    as_net(monkeypatch, "voc-fcn32s", partial(paper_vgg, 32, width=48))
    assert structure.parameters_of("voc-fcn32s")[0] == f"{134_260_544 * (48 / 64) ** 2 / 1e6:.0f}M" != "134M"


def louder(name):
    """An op that gives a thousandth more."""
    plain = getattr(ops, name).__wrapped__

    def wrong(*inputs, **options):
        arrays = [x.data if isinstance(x, Tensor) else x for x in inputs]
        return Tensor(plain(*arrays, **options)[0] * 1.001)

    return wrong


THEORY = [
    ("conv2d", "their one linear filter computes what both do"),
    ("conv_transpose2d", "upsampling is a strided convolution backwards"),
    ("bilinear_upsample", "and continues a ramp"),
]


@pytest.mark.parametrize(("name", "claim"), THEORY)
def test_an_op_that_is_off_by_a_thousandth_fails_its_equation(name, claim, monkeypatch):
    monkeypatch.setattr(theory.ops, name, louder(name))
    assert claim in failing(theory.rows())


def test_a_loss_of_the_wrong_mean_fails(monkeypatch):
    loss = ops.softmax_cross_entropy
    monkeypatch.setattr(
        theory.ops, "softmax_cross_entropy", lambda *a, **o: loss(*a, **{**o, "normalize": o.get("normalize", "none")})
    )
    found = failing(theory.rows())
    assert {claim for claim in found if "loss per pixel" in claim} == found and len(found) == len(theory.FRESH)


def test_a_loss_that_forgets_its_mask_fails(monkeypatch):
    loss = ops.softmax_cross_entropy
    monkeypatch.setattr(theory.ops, "softmax_cross_entropy", lambda *a, sampling=None, **o: loss(*a, **o))
    assert failing(theory.rows()) == {"a masked loss has the gradient of the kept patches"}


def test_under_another_fusion_a_fresh_skip_is_not_nothing(monkeypatch):
    monkeypatch.setitem(FUSIONS, "sum", ops.maximum)
    monkeypatch.setitem(FUSIONS, "max", ops.add)
    assert failing(theory.rows()) == {"a fresh skip leaves the prediction as it was", "not under max fusion"}


def test_a_smaller_border_keeps_more_of_the_ring(monkeypatch):
    make = theory.fcn
    monkeypatch.setattr(theory, "fcn", lambda *a, padding, **o: make(*a, padding=padding - 3, **o))
    assert failing(theory.rows()) == {"FCN-32s: border pixels whose kernel lacks a neighbour"}


CHANGES = [
    ({"HEAVY16": {"lr": 1e-9}}, "what the decay takes of a weight in 100,000 steps"),
    ({"CVPR15": {"momentum": 0.5}}, "momentum 0.9 in batches of 20, as one of single images"),
    ({"HEAVY16": {"momentum": 0.9}}, "the same for an image, against CVPR 2015"),
    ({"CVPR15": {"batch": 10}}, "the same for an image, against CVPR 2015"),
    ({"HEAVY16": {"steps": 1000}}, "what the decay takes of a weight in 100,000 steps"),
    ({"CVPR15": {"lr": 1e-3}}, "what a steady gradient of 1 a pixel moves a weight by in a step, in the end"),
]


@pytest.mark.parametrize(("change", "claim"), slow_but(CHANGES[:2], CHANGES, "makes the whole table again"))
def test_other_rules_have_other_rows(change, claim, monkeypatch):
    for name, fields in change.items():
        monkeypatch.setattr(solver, name, dataclasses.replace(getattr(solver, name), **fields))
    assert claim in failing(solver.rows())


def test_a_rate_outside_the_history_would_be_another_step(monkeypatch):
    """The step in the end is what our SGD does, not a formula: one that forgets its momentum moves a tenth as far."""

    class Forgetful(solver.SGD):
        def __init__(self, net, *, momentum=0.0, **options):
            super().__init__(net, momentum=0.0, **options)

    monkeypatch.setattr(solver, "SGD", Forgetful)
    found = failing(solver.rows())
    assert "what a steady gradient of 1 a pixel moves a weight by in a step, in the end" in found
    assert math.isclose(solver.final_step(solver.CVPR15), 1e-4, rel_tol=1e-9)


@pytest.mark.parametrize(
    ("plant", "claims"),
    [
        (pools_that_round_down, {"outputs of AlexNet from 500x500, with pools that round up, as Caffe's do"}),
        (torchvisions_googlenet, {"FCN-GoogLeNet: receptive field"}),
        (
            lambda patch: as_net(patch, "voc-fcn8s", partial(paper_vgg, 8, upsampling="learned")),
            {"FCN-8s: upsampling that learns, released"},
        ),
        (
            lambda patch: patch.setattr(errata, "rarefied", lambda chain, stride: [*chain[:-2], Layer(14), chain[-1]]),
            {"fc6 after a pool5 of stride 1"},
        ),
    ],
)
def test_an_erratum_is_found_in_the_code(plant, claims, monkeypatch):
    plant(monkeypatch)
    assert failing(errata.rows()) == claims
