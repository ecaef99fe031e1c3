"""How long the teaching core is, in lines of code: comments, docstrings and blank lines are free.

    python tests/line_budget.py

A student should be able to read all of it. The budget is raised by an edit here that somebody has to defend, and
never met by writing denser lines.
"""

import ast
import io
import pathlib
import sys
import tokenize

BUDGET = 1715  # docs/CONTRIBUTING.md tells why it is no longer 1500
PACKAGE = pathlib.Path(__file__).parent.parent / "minifcn"
CORE = (
    "tensor.py",
    "backend.py",
    "geometry.py",
    "metrics.py",
    "kernels/im2col.py",
    "ops/*.py",
    "nn.py",
    "optim.py",
    "gradcheck.py",
    "stitch.py",
    "surgery.py",
    "models/fcn.py",
)
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def code_lines(source: str) -> int:
    """The lines of `source` that hold code: any token but a comment, outside docstrings."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in LAYOUT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def count() -> dict[str, int]:
    """Code lines per file of the teaching core, in the order of reading."""
    files = [file for pattern in CORE for file in sorted(PACKAGE.glob(pattern))]
    return {file.relative_to(PACKAGE).as_posix(): code_lines(file.read_text(encoding="utf-8")) for file in files}


def main() -> int:
    counted = count()
    for name, lines in counted.items():
        print(f"{lines:6}  minifcn/{name}")
    total = sum(counted.values())
    print(f"{total:6}  code lines in the teaching core, of {BUDGET}")
    return int(total > BUDGET)


if __name__ == "__main__":
    sys.exit(main())
