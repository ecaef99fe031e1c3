"""Make what a teacher hands out: notebooks without solutions, and a deck of slides for each.

    make release            into build/release: the course for students, and slides/

A released notebook is the committed one without the cells tagged `solution`; its folder has the checkers, photographs
and logs, and no solutions. A deck is Markdown that Marp and others show: a slide for each heading, with the pictures of
its section and the first sentence of its text.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

TUTORIALS = Path(__file__).parent.parent
STYLE = "style: 'img { width: 100%; height: 440px; object-fit: contain }'"
SENTENCE = re.compile(r"[^.?!]*(?:[.?!](?!\s|$)[^.?!]*)*[.?!](?=\s|$)")


def main(target: Path) -> None:
    """Write the release into `target`, which is emptied first if it is an earlier release."""
    marker = target / "release.txt"
    if target.exists() and any(target.iterdir()) and not marker.exists():
        raise SystemExit(f"{target}: is not empty and no release; expected a new folder")
    shutil.rmtree(target, ignore_errors=True)
    skipped = ("solutions", "teaching", "__pycache__", "runs", ".ipynb_checkpoints", "*.ipynb", "[0-9]*.py")
    shutil.copytree(TUTORIALS, target, ignore=shutil.ignore_patterns(*skipped))
    for path in sorted(TUTORIALS.glob("[0-9][0-9]_*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        deck(notebook, target / "slides", path.stem)
        notebook["cells"] = [cell for cell in notebook["cells"] if not is_solution(cell)]
        (target / path.name).write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    marker.write_text("The course without solutions, and its slides, made by `make release`.\n", encoding="utf-8")


def is_solution(cell: dict[str, Any]) -> bool:
    """Whether the cell shows a solution."""
    return "solution" in cell["metadata"].get("tags", [])


def deck(notebook: dict[str, Any], folder: Path, name: str) -> None:
    """Write `name`.md and its pictures."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    slides, pictures = [], 0
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            slides += [[f"{heading}\n\n{first_sentence(body)}"] for heading, body in sections(text)]
            continue
        for output in cell["outputs"]:
            if "image/png" in output.get("data", {}) and slides:
                pictures += 1
                file = folder / name / f"{pictures:02}.png"
                file.write_bytes(base64.b64decode("".join(output["data"]["image/png"])))
                slides[-1].append(f"![]({name}/{file.name})")
    shown = "\n\n---\n\n".join(page for slide in slides for page in pages(*slide))
    (folder / f"{name}.md").write_text(f"---\nmarp: true\nmath: mathjax\n{STYLE}\n---\n\n{shown}\n", encoding="utf-8")


def pages(text: str, *pictures: str) -> list[str]:
    """Return the slides of a section: its heading, and one picture on each; none where only a heading is."""
    heading, _, sentence = text.strip().partition("\n\n")
    if not (sentence or pictures):
        return []
    first, *others = pictures or [""]
    return [f"{text.strip()}\n\n{first}".strip(), *(f"{heading}\n\n{picture}" for picture in others)]


def sections(text: str) -> list[tuple[str, str]]:
    """Return each heading of a cell with the text below it; exercises and the quiz are no slides."""
    parts = re.split(r"^(#{1,2} .+)$", text, flags=re.MULTILINE)
    return [(heading, body.split("\n### ")[0]) for heading, body in zip(parts[1::2], parts[2::2], strict=True)]


def first_sentence(text: str) -> str:
    """Return the first sentence of the first paragraph that is text, in one line."""
    for paragraph in text.strip().split("\n\n"):
        line = " ".join(paragraph.split())
        if line and not line.startswith(("*", "- ", "|", "#", "$$", "1.")):
            match = SENTENCE.match(line)
            return match[0] if match else line
    return ""


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/release"))
