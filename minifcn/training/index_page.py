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
from minifcn.formats.checkpoint import replace_file
from minifcn.introspect.markup import Html, inline, tag
from minifcn.training.report import page, section

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
        shown = label[nearest(height, SIDE / max(height, width))][:, nearest(width, SIDE / max(height, width))]
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
        script = Html(f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>")
        sections = [section("Pictures", tag("p", how + left_out, class_="quiet"), legend, *self.figures), script]
        replace_file(path, [page(path.resolve().parent.name, sections, above="minifcn predict").encode()])


def entry(index: int, name: str) -> Html:
    """Return a class of the legend: its colour and its name."""
    colour = ",".join(map(str, viz.palette(256)[index]))
    swatch = tag("span", "", class_="swatch", style=f"background:rgb({colour})")
    return tag(
        "span", swatch, tag("span", name, **{"data-colour": colour}), style="margin-right:1.2rem;display:inline-block"
    )


def nearest(size: int, factor: float) -> np.ndarray:
    """Return which pixels of an axis of `size` a picture smaller by `factor` shows; all, if that is above 1."""
    count = max(1, round(size * min(factor, 1)))
    return (2 * np.arange(count) + 1) * size // (2 * count)


def small_jpeg(image: np.ndarray) -> bytes:
    """Return an image (H, W, 3) as a JPEG of at most `SIDE` pixels a side."""
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=85)
    return file.getvalue()
