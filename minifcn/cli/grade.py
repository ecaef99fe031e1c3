"""`minifcn grade`: which exercises of a notebook of the course are solved.

    minifcn grade tutorials/01_autograd.ipynb
    minifcn grade handed-in/01_autograd.ipynb --json grades.json

The exit code is 0 if every exercise is solved, and 1 if one is not.
"""

import math
from dataclasses import asdict, dataclass
from typing import Annotated

from minifcn.cli.command import parse_words, say
from minifcn.errors import UsageError
from minifcn.experiments.grading import grade
from minifcn.formats.limits import path_of
from minifcn.introspect.markup import text_table
from minifcn.training.ranges import check_ranges
from minifcn.training.runlog import write_json


@dataclass(frozen=True)
class Options:
    """Run a notebook of the course in a process with limits, and say which of its exercises are solved.

    The checkers are those of the course folder, whatever lies beside the notebook. The exit code is 0 if every exercise
    is solved, and 1 if one is not.
    """

    course: Annotated[str, "the folder of the course, which has exercises/; by default that of this repository"] = ""
    seconds: Annotated[int, "for each cell, and of processor time in all"] = 300
    json: Annotated[str, "also write the grades to this file"] = ""


def main(argv: list[str]) -> int:
    """Print a line for each exercise. Return the exit code."""
    words, options = parse_words(Options, argv, verb="grade", words="NOTEBOOK", count=1)
    check_ranges(options, [("seconds", 1, math.inf)])
    report = path_of(options.json)
    if options.json and (report.is_dir() or not report.absolute().parent.is_dir()):
        raise UsageError(f"{options.json}: cannot be written, it is a folder or in none; choose another --json")
    notebook = path_of(words[0])
    course = path_of(options.course) if options.course else None
    grades = grade(notebook, course=course, seconds=options.seconds)
    say(*text_table([(one.exercise, "solved" if one.passed else "-", one.said) for one in grades], left=3))
    solved = sum(one.passed for one in grades)
    say(f"{solved} of {len(grades)} solved")
    if options.json:
        each = [asdict(one) for one in grades]
        record = {"notebook": notebook.name, "solved": solved, "of": len(grades), "exercises": each}
        write_json(report, record)
        say(f"wrote {options.json}")
    return int(solved < len(grades))
