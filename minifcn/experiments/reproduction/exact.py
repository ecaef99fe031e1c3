"""Compute every exact claim of the paper and its release.

    for row in exact_rows():
        print(*row.cells(), sep=" | ")

Nothing is trained and no data are needed; a row whose figure does not come out says FAILS.
"""

from __future__ import annotations

from minifcn.experiments.reproduction import errata, solver, structure, theory
from minifcn.experiments.reproduction.row import Row


def exact_rows() -> list[Row]:
    """Return the rows about structure, equations, solver and errata; it takes a few seconds on one core."""
    return [*structure.rows(), *theory.rows(), *solver.rows(), *errata.rows()]
