"""The gradient detective: it names each fault of the library, clears what is right, and says when it knows none."""

import html
import pathlib

import numpy as np
import pytest
from op_cases import CASES
from some_slow import slow_but

from minifcn import ops
from minifcn.errors import GradientError, ShapeError
from minifcn.gradcheck import gradcheck
from minifcn.introspect import detective
from minifcn.introspect.detective import investigate
from minifcn.introspect.planted import lifted, planted, with_gradient
from minifcn.tensor import OPS

LIBRARY = planted()


@pytest.mark.parametrize("name", slow_but(list(LIBRARY)[::3], LIBRARY, "investigates each planted fault"))
def test_each_planted_fault_is_found_and_named(name: str) -> None:
    fault = LIBRARY[name]
    with pytest.raises(GradientError):
        gradcheck(fault.function, *fault.inputs, **fault.options)
    case = investigate(fault.function, *fault.inputs, **fault.options)
    verdicts = dict(case.verdicts)
    assert fault.words in verdicts.pop(fault.position)
    assert set(verdicts.values()) <= {"right"}  # and no other gradient is blamed
    assert np.abs(case.errors[f"input {fault.position}"]).max() > 1e-3
    assert str(case).startswith(f"{fault.function.__name__}, gradient of input 0: ")


def test_gradcheck_with_a_picture_names_the_fault_and_draws_it(tmp_path: pathlib.Path) -> None:
    fault = LIBRARY["stride forgotten"]
    with pytest.raises(GradientError) as complaint:
        gradcheck(fault.function, *fault.inputs, **fault.options)
    case = gradcheck(fault.function, *fault.inputs, picture=True, **fault.options)
    first, named, other = str(case).splitlines()
    assert (first, case.right) == (str(complaint.value), False) and fault.words in named
    assert other.endswith("gradient of input 1: right to one part in 10,000")
    shown = case._repr_html_()
    assert f"<div>{html.escape(named)}</div>" in shown and 'src="data:image/png;base64,iVBOR' in shown
    case.figure(path=tmp_path / "errors.png")
    assert (tmp_path / "errors.png").read_bytes().startswith(b"\x89PNG")


def test_gradcheck_with_a_picture_of_what_is_right() -> None:
    case = gradcheck(ops.relu, [[1.0, -2.0], [-0.5, 3.0]], picture=True)  # lists, as gradcheck takes them
    assert case.right and repr(case) == "relu, gradient of input 0: right"
    wide = np.array([1e6, 1e-6, 1.0])  # rounding the sum hides the smaller elements: gradcheck allows for that
    assert not investigate(lambda x: (x * x).sum(), wide).right
    assert gradcheck(lambda x: (x * x).sum(), wide, picture=True).right
    with pytest.raises(ShapeError, match="nothing to check"):
        gradcheck(ops.relu, [1, 2], picture=True)
    with pytest.raises(GradientError, match="writes into gy"):
        gradcheck(
            lifted("half", lambda x: (x * x, (lambda gy: np.multiply(gy, 2 * x, out=gy),))), np.ones(3), picture=True
        )


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({(2, 3): 1.01}, "only the element at (2, 3) is wrong"),
        ({(1, 1): np.nan, (2, 0): np.inf}, "it is NaN or infinite, first at (1, 1)"),
        ({...: np.inf}, "it is NaN or infinite, first at (0, 0)"),
    ],
)
def test_one_number_among_many_larger_ones(change: dict, verdict: str) -> None:
    """What is wrong is never called right because other elements are large, or because it is infinite."""
    x = np.random.default_rng(0).standard_normal((3, 4))
    x[2, 3] = 1e-3

    def wrong(gy, right, x):
        gx = right(gy)
        for place, factor in change.items():
            gx[place] *= factor
        return gx

    case = gradcheck(with_gradient(OPS["tanh"], 0, wrong), x, picture=True)
    assert case.verdicts == {0: verdict} and not case.right


def test_less_than_the_detective_sees_is_not_called_right() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4))
    case = gradcheck(with_gradient(ops.tanh, 0, lambda gy, right, x: (1 + 1e-5) * right(gy)), x, picture=True)
    assert not case.right and str(case).endswith("gradient of input 0: right to one part in 10,000")


@pytest.mark.slow("investigates each planted fault again")
def test_every_suspect_names_some_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """No suspect is there for nothing: the last one that is asked is the one whose sentence is the verdict."""
    asked: list[str] = []

    def noting(suspect):
        return lambda evidence: asked.append(suspect.__name__) or suspect(evidence)

    names = [suspect.__name__ for suspect in detective.SUSPECTS]
    monkeypatch.setattr(detective, "SUSPECTS", tuple(map(noting, detective.SUSPECTS)))
    naming = set()
    for fault in LIBRARY.values():
        assert fault.words in verdict_of(fault)
        naming.add(asked[-1])
    assert naming == set(names)


def verdict_of(fault) -> str:
    return investigate(fault.function, *fault.inputs, **fault.options).evidence[fault.position].verdict()


def test_the_registry_of_ops_holds_nothing_wrong() -> None:
    before = dict(OPS)
    planted()
    assert before == OPS


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d", "max_pool2d", "softmax", "mul", "bilinear_upsample"])
def test_what_is_right_is_called_right(name: str) -> None:
    for case in list(CASES[name].values())[:2]:
        inputs, options = case.at("float64")
        assert set(investigate(OPS[name], *inputs, **options).verdicts.values()) == {"right"}, case


def test_a_tie_is_no_fault() -> None:
    zero = np.array([[0.0, 1.0, -2.0]])
    assert "no fault" in investigate(ops.relu, zero).verdicts[0]
    assert "no fault" in investigate(ops.max_pool2d, np.ones((1, 1, 2, 2)), kernel_size=2).verdicts[0]


def test_a_fault_that_is_in_no_list_is_admitted() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4))
    odd = with_gradient(ops.relu, 0, lambda gy, right, x: right(gy) + np.sin(x))
    assert investigate(odd, x).verdicts[0] == "wrong in a way that no known fault explains"


def test_refusals() -> None:
    with pytest.raises(ShapeError, match="nothing to check"):
        investigate(ops.relu, np.ones(3, np.float32))
    with pytest.raises(GradientError, match="input"):
        investigate(lifted("half", lambda x: (x, (lambda gy: gy[:1],))), np.ones(3))


def test_more_faults_of_the_same_kinds() -> None:
    """Other ops and other numbers than those of the library: a verdict does not hang on one case."""
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((2, 2, 5, 5)), rng.standard_normal((2, 2, 5, 5))
    line = rng.standard_normal((4, 3))
    for op, inputs, position, wrong, words in (
        (ops.add, (x, y), 0, lambda gy, right, *_: gy.swapaxes(-1, -2).copy(), "gy is transposed"),
        (ops.mul, (x, y), 1, lambda gy, right, x, y: -right(gy), "sign"),
        (ops.mul, (x, y), 1, lambda gy, right, x, y: gy[..., ::-1, :] * x, "mirrored along its rows"),
        (ops.tanh, (line,), 0, lambda gy, right, x: 3 * right(gy), "3 times"),
        (ops.tanh, (line,), 0, lambda gy, right, x: right(gy)[:, [0, 2, 1]].copy(), "along axis 1 are exchanged"),
    ):
        if op.__name__ in OPS:
            assert words in investigate(with_gradient(op, position, wrong), *inputs).verdicts[position]
