"""Write mistakes.md: each wrong answer that the checkers know, with what it shows.

    .venv/bin/python tutorials/teaching/mistakes.py

The answers are those of tests/wrong_answers, and the sentences what the checkers say to them.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TARGET = Path(__file__).with_name("mistakes.md")
HEAD = """# Wrong answers, and what they show

Each exercise has answers that students are likely to give. The checker names the mistake in one sentence; the sentence
is what to talk about. This page is made by `mistakes.py` from the answers that the tests try.
"""


def page() -> str:
    """Return the page."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tutorials"), str(ROOT / "tests")]
    parts = [HEAD]
    for path in sorted((ROOT / "tests" / "wrong_answers").glob("n[0-9][0-9].py")):
        lesson, source = path.stem, path.read_text(encoding="utf-8")
        wrong = importlib.import_module(f"wrong_answers.{lesson}").WRONG
        checkers = importlib.import_module(f"exercises.{lesson}")
        for name, sources in answers(source).items():
            parts += [f"\n## {lesson[1:]}: {name}\n\n| answer | what it shows |\n|---|---|\n"]
            for text, answer in zip(sources, wrong[name], strict=True):
                out = io.StringIO()
                with contextlib.redirect_stdout(out):
                    getattr(checkers, f"check_{name}")(answer)
                parts.append(f"| `{cell(text)}` | {cell(out.getvalue().removeprefix('not right: '))} |\n")
    return "".join(parts)


def answers(source: str) -> dict[str, list[str]]:
    """Return the wrong answers of each exercise as they are written in the dictionary WRONG."""
    for node in ast.parse(source).body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Dict)
            and ast.unparse(node.targets[0]) == "WRONG"
        ):
            pairs = zip(node.value.keys, node.value.values, strict=True)
            return {ast.literal_eval(key): [ast.unparse(each) for each in value.elts] for key, value in pairs if key}
    return {}


def cell(text: str) -> str:
    """Return text that stays in its cell of a table, at most 240 letters of it."""
    line = " ".join(text.split()).replace("|", "\\|").replace("`", "'")
    return line if len(line) <= 240 else line[:237] + "..."


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
