"""Write `index.html` beside predictions: each photograph under its classes, with a slider and class names on hover.

The page holds its pictures, made small, and loads nothing from anywhere. A browser lets no script read the pixels of
another file, so the classes are on the page, too, as a picture in the colours of its legend.
"""

from __future__ import annotations

import io
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from minifcn import viz
from minifcn.introspect.markup import Html, inline, tag
from minifcn.training.report import section, swatch, write_page

MOST_PICTURES = 200
SIDE = 900  # the longer side of a picture on the page
SCRIPT = Path(__file__).with_name("index_page.js")


@dataclass
class IndexPage:
    """The page of one call of `predict`: `add` each picture, then `write`. `run` is the net's path, for commands."""

    run: str
    classes: Sequence[str]
    alpha: float = 0.6
    figures: list[Html] = field(default_factory=list)
    present: set[int] = field(default_factory=set)
    count: int = 0

    def add(self, name: str, path: Path, image: np.ndarray, label: np.ndarray, shares: dict[str, float]) -> None:
        """Add the picture `name` out of the file `path`; after the first 200 pictures, only count it."""
        self.count += 1
        if self.count > MOST_PICTURES:
            return
        height, width = label.shape
        shown = shrunk(label)
        self.present.update(np.unique(shown).tolist())
        mask = tag(
            "img", src=inline(viz.png(viz.colourize(shown))), class_="mask", alt="", style=f"opacity:{self.alpha}"
        )
        photograph = tag("img", src=inline(small_jpeg(image), "jpeg"), alt=name)
        words = f"{shlex.quote(self.run)} {shlex.quote(str(path))}"
        size = {"data-width": str(width), "data-height": str(height), "data-words": words}
        slider = {"min": "0", "max": "100", "value": f"{100 * self.alpha:.0f}", "aria-label": f"classes over {name}"}
        parts = ", ".join(f"{part} {100 * share:.1f} %" for part, share in list(shares.items())[:5])
        self.figures.append(
            tag(
                "figure",
                tag("div", photograph, mask, class_="stack", **size),
                tag("input", type="range", **slider),
                tag("output", ""),
                tag("figcaption", f"{name}: {width}x{height}; {parts}"),
                class_="look",
            )
        )

    def write(self, path: Path) -> None:
        """Write the page."""
        how = "Move over a picture to read the class of a pixel; click to get the command that says why."
        left_out = (
            f" The first {MOST_PICTURES} of {self.count} pictures are here." if self.count > MOST_PICTURES else ""
        )
        legend = tag("p", *(entry(index, self.classes[index]) for index in sorted(self.present)))
        pictures = section("Pictures", tag("p", how + left_out, class_="quiet"), legend, *self.figures)
        write_page(path, path.resolve().parent.name, [pictures], above="minifcn predict", script=SCRIPT)


def entry(index: int, name: str) -> Html:
    """Return a class of the legend: its colour and its name."""
    words = tag("span", name, **{"data-colour": ",".join(map(str, viz.palette(256)[index]))})
    return tag("span", swatch(index), words, style="margin-right:1.2rem;display:inline-block")


def shrunk(picture: np.ndarray) -> np.ndarray:
    """Return a picture (H, W, ...) with at most `SIDE` pixels a side, each the nearest one of the picture."""
    factor = min(1, SIDE / max(picture.shape[:2]))
    counts = [max(1, round(size * factor)) for size in picture.shape[:2]]
    rows, columns = ((2 * np.arange(n) + 1) * size // (2 * n) for n, size in zip(counts, picture.shape, strict=False))
    return picture[rows][:, columns]


def small_jpeg(image: np.ndarray) -> bytes:
    """Return an image (H, W, 3) as a JPEG of at most `SIDE` pixels a side."""
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=85)
    return file.getvalue()
