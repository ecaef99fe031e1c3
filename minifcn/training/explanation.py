"""Write the page that explains one pixel: what each layer sees there, what each map adds, the gradient at the image.

The page holds its pictures and loads nothing from anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from minifcn import ops, viz
from minifcn.data.inputs import planes_of
from minifcn.data.planes import shown
from minifcn.introspect.explain import Explanation, Field, explain
from minifcn.introspect.markup import Html, inline, tag
from minifcn.training.index_page import shrunk, small_jpeg
from minifcn.training.report import section, table, write_page
from minifcn.training.trained import Trained

SCRIPT = Path(__file__).with_name("explain_page.js")
MOST_CLASSES = 6


def write_explanation(trained: Trained, image: np.ndarray, at: tuple[int, int], path: Path, *, name: str) -> str:
    """Write the page about the pixel `at` (x, y) of an image (H, W, 3) uint8 or planes; return its first sentence."""
    found, picture = explain(trained.net, trained.preprocessing(image), at), pictured(trained, image)
    sections = [section(title, *draw(found, picture, trained.classes)) for title, draw in PARTS.items()]
    write_page(path, name, sections, above=f"one pixel explained: {trained.name}", script=SCRIPT)
    return verdict(found, trained.classes)


def write_comparison(
    runs: Mapping[str, Trained], image: np.ndarray, at: tuple[int, int], path: Path, *, name: str
) -> str:
    """Write the page on which nets, by the names of their runs, explain the same pixel side by side.

    Return its first sentence: whether they agree. The arguments are those of `write_explanation`.
    """
    found = {run: explain(trained.net, trained.preprocessing(image), at) for run, trained in runs.items()}
    answers = {run: runs[run].classes[one.order[0]] for run, one in found.items()}
    said = "; ".join(f"{run}: {answer}" for run, answer in answers.items())
    agree = len(set(answers.values())) == 1
    sentence = f"pixel {at[0]},{at[1]}: {'the same answer' if agree else 'different answers'} ({said})"
    sections = [section("Side by side", tag("p", sentence))]
    for title, draw in PARTS.items():
        columns = (
            tag("div", tag("h3", run), *draw(one, pictured(runs[run], image), runs[run].classes), **{"data-run": run})
            for run, one in found.items()
        )
        sections.append(section(title, tag("div", *columns, class_="beside")))
    nets = " and ".join(trained.name for trained in runs.values())
    write_page(path, name, sections, above=f"one pixel explained by {nets}", script=SCRIPT)
    return sentence


def pictured(trained: Trained, image: np.ndarray) -> np.ndarray:
    """Return what the page shows of an image: a photograph itself, of planes the first ones."""
    return shown(image) if planes_of(trained.inputs.name) else image


def answer(found: Explanation, image: np.ndarray, classes: Sequence[str]) -> Iterator[Html]:
    """Yield the sentence that sums it up, and the scores."""
    yield tag("p", verdict(found, classes))
    yield class_table(found, classes)


def verdict(found: Explanation, classes: Sequence[str]) -> str:
    """Return which class the pixel got, before which other, and which map decides between the two."""
    x, y = found.at
    first, *others = found.order
    if not others:
        return f"pixel {x},{y} is {classes[first]}, the only class"
    second = others[0]
    gaps = {name: float(part[first] - part[second]) for name, part in found.parts.items()}
    most = max(gaps, key=lambda name: gaps[name])
    return (
        f"pixel {x},{y} is {classes[first]}, score {found.scores[first]:.3f}, before {classes[second]}, "
        f"{found.scores[second]:.3f}; {most} speaks for it most, by {gaps[most]:+.3f} of {sum(gaps.values()):+.3f}"
    )


def class_table(found: Explanation, classes: Sequence[str]) -> Html:
    """Return the largest scores, and the probabilities that they mean."""
    probability = ops.softmax(found.scores.astype(np.float64), axis=0).data
    rows = [(classes[i], f"{found.scores[i]:.4f}", f"{100 * probability[i]:.2f} %") for i in found.order[:MOST_CLASSES]]
    return table(("class", "score", "probability"), rows, looks={1: "number", 2: "number"})


def parts_table(found: Explanation, image: np.ndarray, classes: Sequence[str]) -> Iterator[Html]:
    """Yield what each map adds to the first class and to the second, and the sums, which are the scores."""
    first, second = found.order[0], found.order[min(1, len(found.order) - 1)]
    columns = [[float(part[i]) for part in found.parts.values()] for i in (first, second)]
    rows = [(name, *values) for name, *values in zip(found.parts, *columns, strict=True)]
    rows.append(("sum: the score", *(sum(column) for column in columns)))
    cells = [(name, f"{one:+.4f}", f"{other:+.4f}", f"{one - other:+.4f}") for name, one, other in rows]
    head = ("map", classes[first], f"{classes[second]} (second)", "difference")
    yield table(head, cells, looks=dict.fromkeys((1, 2, 3), "number"), class_="parts")
    yield tag(
        "p",
        "Behind the score layers the net only adds, so what each map puts in can be followed to this pixel by itself. "
        "The sums are the scores of the whole net.",
        class_="quiet",
    )


def field_picture(found: Explanation, image: np.ndarray, classes: Sequence[str]) -> Iterator[Html]:
    """Yield the photograph with a box around what each layer's cell sees, and the table of the layers."""
    height, width = image.shape[:2]
    boxes = [viz.field_box(field.grid, *field.cell) for field in found.fields]
    edges = np.array([(-0.5, -0.5, height - 0.5, width - 0.5), *boxes])
    (top, left), (bottom, right) = edges[:, :2].min(axis=0), edges[:, 2:].max(axis=0)
    x, y = found.at
    photograph = {"x": "-0.5", "y": "-0.5", "width": str(width), "height": str(height)}
    drawn = [tag("image", href=inline(small_jpeg(image), "jpeg"), preserveAspectRatio="none", **photograph)]
    for field, (y0, x0, y1, x1) in sorted(zip(found.fields, boxes, strict=True), key=lambda one: -one[0].grid.field):
        place = {"x": f"{x0:g}", "y": f"{y0:g}", "width": f"{x1 - x0:g}", "height": f"{y1 - y0:g}"}
        said = tag("title", f"{field.name} sees {field.grid.field} pixels")
        drawn.append(tag("rect", said, class_="field", **place, **{"data-layer": field.name}))
    here = {"x": f"{x - 0.5}", "y": f"{y - 0.5}", "width": "1", "height": "1"}
    drawn.append(tag("rect", class_="here", **here))
    yield tag("svg", *drawn, class_="fields", viewBox=f"{left:g} {top:g} {right - left:g} {bottom - top:g}")
    yield tag("p", "Outside the photograph a layer sees padding. Point at a layer to find its box.", class_="quiet")
    rows = [tag("tr", *cells(field), **{"data-layer": field.name}) for field in found.fields]
    head = tag("thead", tag("tr", *(tag("th", name) for name in ("layer", "sees", "a cell every", "cell at x, y"))))
    yield tag("div", tag("table", head, tag("tbody", *rows)), class_="wide")


def cells(field: Field) -> Iterator[Html]:
    """Yield the cells of a layer's row."""
    grid = field.grid
    y, x = (float(grid.stride * cell + grid.start) for cell in field.cell)
    yield tag("th", field.name)
    for text in (f"{grid.field} x {grid.field}", f"{grid.stride}", f"{x:g}, {y:g}"):
        yield tag("td", text)


def gradient_picture(found: Explanation, image: np.ndarray, classes: Sequence[str]) -> Iterator[Html]:
    """Yield the photograph, darkened where a change of a pixel would not change the answer."""
    height, width = image.shape[:2]
    strength, (top, left) = np.abs(found.gradient).sum(axis=2), found.corner
    most = float(np.quantile(strength, 0.995)) or float(strength.max()) or 1.0
    seen = np.zeros((height, width), np.float32)
    seen[top : top + strength.shape[0], left : left + strength.shape[1]] = np.clip(strength / most, 0, 1)
    light, paint = np.sqrt(shrunk(seen))[..., None], np.array([255, 190, 60], np.float32)
    picture = np.rint(0.35 * shrunk(image) * (1 - light) + light * paint).astype(np.uint8)
    yield tag("img", src=inline(viz.png(picture)), alt="where the gradient is large", class_="gradient")
    second = f" minus that of {classes[found.order[1]]}" if len(found.order) > 1 else ""
    yield tag(
        "p",
        f"Bright: where a small change of the pixel changes the score of {classes[found.order[0]]}{second} most. The "
        f"gradient reaches {strength.shape[1]}x{strength.shape[0]} pixels; {100 * np.mean(strength > 0):.0f} % of them "
        "count at all.",
        class_="quiet",
    )


PARTS: dict[str, Callable[[Explanation, np.ndarray, Sequence[str]], Iterator[Html]]] = {
    "The answer": answer,
    "What each map adds": parts_table,
    "What each layer sees": field_picture,
    "The gradient at the image": gradient_picture,
}
"""The sections of the page, and what draws them: each gets all that a section may need."""
