"""The gradient detective: it names each fault of the library, clears what is right, and says when it knows none."""

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


@pytest.mark.parametrize("name", slow_but(list(LIBRARY)[::2], LIBRARY, "investigates each planted fault"))
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
