"""The course's notebooks: read as text, run from top to bottom, and compared with what was committed.

    python tests/notebooks.py           run every tutorials/NN_*.py and write its outputs into the .ipynb beside it
    python tests/notebooks.py 01 02     those

The .py is the source (py:percent, as jupytext has it), the .ipynb is made from it and keeps the outputs, so that the
course reads on the web. Everything that would differ from one run to the next is kept out of it: no timings, no version
numbers, cell ids made from what the cell says. Pictures are kept in 256 colours, which makes most of them half as
large. What an output must not hold is refused here and not cleaned away, for a warning or a path of this machine is a
fault of the cell. MINIFCN_DATA is unset: no output shows a research data set.
"""

import base64
import hashlib
import io
import json
import os
import pathlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

TUTORIALS = pathlib.Path(__file__).parent.parent / "tutorials"
METADATA = {
    "jupytext": {"formats": "ipynb,py:percent"},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
UNWELCOME = {
    r"0x[0-9a-f]{8,}": "an address in memory (end the line with a semicolon, or call plt.show())",
    r"(?<![\w.])/(home|tmp|work|root|usr|opt|Users|mnt|var)/\w": "a path of the machine it ran on",
    r"[A-Z]:\\\\?Users": "a path of the machine it ran on",
    r"MINIFCN_DATA *=": "the name of a data folder",
}
MAXIMUM = 1_000_000


@dataclass(frozen=True)
class Cell:
    """A cell without its outputs: "code" or "markdown", its text, its metadata."""

    kind: str
    source: str
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def tags(self) -> list[str]:
        return self.metadata.get("tags", [])


def sources() -> list[pathlib.Path]:
    return sorted(TUTORIALS.glob("[0-9][0-9]_*.py"))


def cells_of_text(text: str) -> list[Cell]:
    """The cells of a py:percent file. Each begins with a line `# %%`, `# %% [markdown]` or `# %% tags=["varies"]`."""
    header, *rest = re.split(r"^# %%(.*)\n", text, flags=re.MULTILINE)
    if not header.startswith("# ---\n") or not header.rstrip().endswith("# ---"):
        raise ValueError(f"expected jupytext's header and nothing else before the first cell, found {header[-80:]!r}")
    cells = []
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        match = re.fullmatch(r"(?: \[(markdown)\])?((?: \w+=.*)?)", title)
        if not match:
            raise ValueError(f"a cell begins with '# %%{title}', expected '# %%', '# %% [markdown]' or key=value")
        metadata = dict(pairs_of(match[2].strip()))
        lines = body.strip("\n").split("\n")
        if match[1]:
            if strange := [line for line in lines if line != "#" and not line.startswith("# ")]:
                raise ValueError(f"a line of a markdown cell does not begin with '# ': {strange[0]!r}")
            lines = [line[2:] for line in lines]
        cells.append(Cell(match[1] or "code", "\n".join(lines), metadata))
    return cells


def pairs_of(text: str) -> Iterator[tuple[str, Any]]:
    """`tags=["varies"] jupyter={"source_hidden": true}` as pairs."""
    while text:
        key, text = text.split("=", 1)
        value, stop = json.JSONDecoder().raw_decode(text)
        yield key, value
        text = text[stop:].lstrip()


def cells_of_notebook(notebook: dict[str, Any]) -> list[Cell]:
    return [Cell(cell["cell_type"], joined(cell["source"]), cell["metadata"]) for cell in notebook["cells"]]


def load(path: pathlib.Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


# What a cell put out


def outputs_of(cell: dict[str, Any]) -> list[tuple[str, str]]:
    """What a code cell put out, as (kind, text): streams in one piece, pictures as base64."""
    found: list[tuple[str, str]] = []
    for output in cell.get("outputs", []):
        if output["output_type"] == "stream":
            name, text = output["name"], joined(output["text"])
            if found and found[-1][0] == name:
                text = found.pop()[1] + text
            found.append((name, text))
        elif output["output_type"] == "error":
            found.append(("error", f"{output['ename']}: {output['evalue']}"))
        else:
            found.extend((kind, joined(text)) for kind, text in sorted(output["data"].items()))
    return found


def complaints(notebook: dict[str, Any]) -> list[str]:
    """What in the outputs must not be committed, each with its cell."""
    found = []
    for number, cell in enumerate(notebook["cells"]):
        for kind, text in outputs_of(cell):
            if kind in ("stderr", "error"):
                found.append(f"cell {number} ended in {kind}: {text.strip()[:300]}")
            elif not kind.startswith("image/png"):
                found += [
                    f"cell {number} shows {what}: {match[0]!r}"
                    for pattern, what in UNWELCOME.items()
                    if (match := re.search(pattern, text))
                ]
    size = len(dumped(notebook))
    return found + ([f"{size} bytes, at most {MAXIMUM}: fewer or smaller pictures"] if size > MAXIMUM else [])


def differences(committed: dict[str, Any], fresh: dict[str, Any]) -> list[str]:
    """Where a fresh run puts out something else, cells tagged `varies` left out."""
    found = []
    for number, (old, new) in enumerate(zip(committed["cells"], fresh["cells"], strict=True)):
        if "varies" in old["metadata"].get("tags", []):
            continue
        before, after = outputs_of(old), outputs_of(new)
        if [kind for kind, _ in before] != [kind for kind, _ in after]:
            found.append(f"cell {number}: {[kind for kind, _ in before]} became {[kind for kind, _ in after]}")
            continue
        for (kind, was), (_, now) in zip(before, after, strict=True):
            if kind == "image/png":
                found += [f"cell {number}: {why}" for why in unlike(base64.b64decode(was), base64.b64decode(now))]
            elif was != now:
                lines = [(a, b) for a, b in zip(was.split("\n"), now.split("\n"), strict=False) if a != b]
                found.append(f"cell {number}: {kind}: {lines[0] if lines else 'longer or shorter'}")
    return found


def unlike(was: bytes, now: bytes) -> list[str]:
    """In what two PNG pictures differ, seen from three steps away.

    Another version of matplotlib moves a letter by a pixel, and a picture cut to its content grows by one; neither is
    what the cell shows. So the sizes may differ by a fiftieth, and blocks of 8x8 pixels are compared by their means.
    """
    from PIL import Image

    old, new = (Image.open(io.BytesIO(picture)).convert("RGB") for picture in (was, now))
    if any(abs(a - b) > max(2, a // 50) for a, b in zip(old.size, new.size, strict=True)):
        return [f"a picture of {old.size} became one of {new.size}"]
    small = tuple(max(1, side // 8) for side in old.size)
    a, b = (np.asarray(image.resize(small, Image.Resampling.BOX), np.float64) for image in (old, new))
    apart = np.abs(a - b).max(axis=-1)
    if apart.mean() > 1.5 or apart.max() > 64:
        return [f"a picture changed: blocks differ by {apart.mean():.2f} of 255 on average, {apart.max():.0f} at most"]
    return []


# Running


def environment() -> dict[str, str]:
    """What a notebook runs in: no data, no window system chosen, one thread of BLAS, for sums have an order."""
    kept = {name: value for name, value in os.environ.items() if name not in ("MINIFCN_DATA", "MPLBACKEND")}
    path = os.pathsep.join([str(TUTORIALS.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


def run(source: pathlib.Path, *, first: str = "", last: str = "pass") -> tuple[dict[str, Any], str]:
    """Return the notebook of a .py, run from top to bottom in the folder of the course, and what `last` printed.

    first, last: lines that its kernel runs before and after it; they see the folder of this file.
    """
    import jupytext
    import nbclient
    from nbformat.v4 import new_code_cell

    notebook = jupytext.read(source)
    notebook.metadata = type(notebook.metadata)(METADATA)
    notebook.cells.append(new_code_cell(last))
    client = nbclient.NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        coalesce_streams=True,
        record_timing=False,
        extra_arguments=["--log-level=ERROR", f"--IPKernelApp.exec_lines={first}"],
        resources={"metadata": {"path": str(source.parent)}},
    )
    own = environment()
    client.execute(env={**own, "PYTHONPATH": os.pathsep.join([own["PYTHONPATH"], str(pathlib.Path(__file__).parent)])})
    done = json.loads(json.dumps(notebook))
    printed = outputs_of(done["cells"].pop())
    return settled(smaller(done)), "".join(text for _, text in printed)


def smaller(notebook: dict[str, Any]) -> dict[str, Any]:
    """The same notebook with its pictures in at most 256 colours each, where that makes the file smaller."""
    from PIL import Image

    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    for data in (output["data"] for output in outputs if "image/png" in output.get("data", {})):
        before, file = joined(data["image/png"]), io.BytesIO()
        picture = Image.open(io.BytesIO(base64.b64decode(before))).convert("RGB")
        fewer = picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=1)  # keeps a thin line's colour
        if picture.getcolors(4096) is None:  # a photograph: without dithering its shades would become bands
            fewer = picture.quantize(palette=fewer, dither=Image.Dither.FLOYDSTEINBERG)
        fewer.save(file, format="PNG", optimize=True)
        data["image/png"] = min(before, base64.b64encode(file.getvalue()).decode(), key=len)
    return notebook


def settled(notebook: dict[str, Any]) -> dict[str, Any]:
    """The same notebook with everything accidental taken out: versions, timings, random ids."""
    seen: dict[str, int] = {}
    for cell in notebook["cells"]:
        name = hashlib.sha256(f"{cell['cell_type']} {joined(cell['source'])}".encode()).hexdigest()[:8]
        seen[name] = seen.get(name, 0) + 1
        cell["id"] = name if seen[name] == 1 else f"{name}-{seen[name]}"
        cell["metadata"] = lasting(cell["metadata"])
    return {**notebook, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}


def lasting(metadata: dict[str, Any]) -> dict[str, Any]:
    """Without the hours of a run and jupytext's note on the blank lines of the .py."""
    return {key: value for key, value in metadata.items() if key not in ("execution", "lines_to_next_cell")}


def dumped(notebook: dict[str, Any]) -> str:
    """As Jupyter writes it: texts as lists of lines, so that a change shows as a few lines."""

    def lined(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: text.splitlines(keepends=True) if _is_text(key, text) else lined(text)
                for key, text in value.items()
            }
        return [lined(item) for item in value] if isinstance(value, list) else value

    return json.dumps(lined(notebook), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _is_text(key: str, value: Any) -> bool:
    return isinstance(value, str) and (key in ("source", "text", "image/svg+xml") or key.startswith("text/"))


def main(argv: list[str]) -> int:
    chosen = [path for path in sources() if not argv or path.name[:2] in argv]
    if len(chosen) != len(argv or chosen) or not chosen:
        known = ", ".join(path.name[:2] for path in sources())
        print(f"expected numbers of notebooks, {known}; found {' '.join(argv)}", file=sys.stderr)
        return 2
    failed = 0
    for source in chosen:
        try:
            notebook, _ = run(source)
        except Exception as error:
            # What went wrong in a cell arrives with the cell and a traceback in colours.
            plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
            short = plain if len(plain) < 1300 else f"{plain[:600]}\n[...]\n{plain[-600:]}"
            print(f"{source.name}: {type(error).__name__}: {short}", file=sys.stderr)
            failed = 1
            continue
        if wrong := complaints(notebook):
            print(f"{source.name} is not written:\n  " + "\n  ".join(wrong), file=sys.stderr)
            failed = 1
            continue
        target = source.with_suffix(".ipynb")
        target.write_text(dumped(notebook), encoding="utf-8")
        print(f"{target.name}: {len(notebook['cells'])} cells, {target.stat().st_size // 1000} kB")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
