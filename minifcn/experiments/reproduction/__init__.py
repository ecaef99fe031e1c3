"""The paper, claim by claim: exact computations and training runs.

`exact.exact_rows()` computes every number of the paper that follows from code alone, and `bound.upper_bound()` its
appendix A from real masks. `FILES` lists the files from easy to hard, which is also the order in which they may import
each other.
"""

FILES = [
    "row",
    "structure",
    "theory",
    "solver",
    "errata",
    "exact",
    "bound",
    "verdict",
    "cells",
    "results",
    "runner",
    "tables",
    "figures",
    "page",
]
