"""The progress bar: on a terminal, in a notebook, and nowhere else."""

import sys
import types

import pytest

from minifcn.training.progress import Bar, clock, in_notebook


class Kernel:
    """Stands for IPython inside a notebook's kernel: `outputs` are what its cell has shown, by number."""

    def __init__(self):
        self.outputs, self.kernel = [], object()

    def display(self, data, *, raw, display_id):
        assert raw and display_id
        number = len(self.outputs)
        self.outputs.append([data["text/plain"]])
        return types.SimpleNamespace(update=lambda data, *, raw: self.outputs[number].append(data["text/plain"]))


def install(monkeypatch, shell):
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: shell
    inner = types.ModuleType("IPython.display")
    inner.display = getattr(shell, "display", None)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", inner)


def run(total=3):
    with Bar(total, unit="step") as bar:
        for step in range(total):
            bar.advance(note=f"loss {step}")
        shown = bar.shown
    return shown


def test_a_notebook_has_one_line_that_changes_and_stays(monkeypatch, capsys):
    kernel = Kernel()
    install(monkeypatch, kernel)
    assert in_notebook() and run()
    (lines,) = kernel.outputs
    assert len(lines) >= 2 and lines[0].startswith("0%") and "0/3" in lines[0]
    assert lines[-1].startswith("100%|█") and "3/3" in lines[-1] and "loss 2" in lines[-1]
    assert all("\n" not in line and "\r" not in line and len(line) <= 80 for line in lines)
    assert run(2) and len(kernel.outputs) == 2, "each bar has its own line"
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""


def test_a_bar_may_learn_its_total_later(monkeypatch):
    kernel = Kernel()
    install(monkeypatch, kernel)
    with Bar(0, unit="pair") as bar:
        bar.begin(2)
        bar.advance()
        bar.advance()
    assert kernel.outputs[0][-1].startswith("100%|█") and "2/2" in kernel.outputs[0][-1]


def test_a_bar_leaves_printed_lines_alone(monkeypatch, capsys):
    install(monkeypatch, Kernel())
    with Bar(2, unit="step") as bar, bar.hidden():
        print("a line")
    assert capsys.readouterr().out == "a line\n"


@pytest.mark.parametrize("shell", [None, types.SimpleNamespace()])
def test_ipython_alone_is_no_notebook(monkeypatch, capsys, shell):
    """IPython may have been imported by a program, or run in a terminal whose stderr is a file."""
    install(monkeypatch, shell)
    assert not in_notebook() and not run()
    assert capsys.readouterr().err == ""


def test_a_file_gets_no_bar(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not in_notebook() and not run()
    assert capsys.readouterr().err == ""


def test_without_tqdm_a_notebook_goes_on(monkeypatch):
    kernel = Kernel()
    install(monkeypatch, kernel)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert not run() and not kernel.outputs


def test_seconds_as_a_clock():
    assert (clock(75), clock(4000), clock(0)) == ("1:15", "1:06:40", "0:00")
