"""Shapes are filled as their tools fill them: Pillow and pycocotools say the same, pixel by pixel."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from minifcn.data.tools.drawing import (
    FAR,
    MAX_POINTS,
    box,
    draw_coco,
    draw_labelme,
    draw_runs,
    ellipse,
    points_of,
    turned,
    unpacked_runs,
)
from minifcn.errors import DataError

SQUARE = "000000\n011100\n011100\n011100\n000000"


def shown(mask: np.ndarray) -> str:
    return "\n".join("".join(str(int(pixel)) for pixel in row) for row in mask)


def packed_runs(counts: list[int]) -> str:
    """COCO's compression, written here a second time from its description: five bits a letter, with a sign."""
    text = ""
    for place, count in enumerate(counts):
        value = count - counts[place - 2] if place > 2 else count
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = not ((value == 0 and not bits & 16) or (value == -1 and bits & 16))
            text += chr(48 + (bits | 32 * more))
    return text


def runs_of(mask: np.ndarray) -> list[int]:
    """The lengths of the runs of a mask, column by column, zeros first."""
    flat = mask.T.ravel().astype(int)
    ends = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
    return np.diff([0, *ends]).tolist()


def test_a_square_of_coco_has_no_outline() -> None:
    """A box from 1 to 4 holds the pixels 1, 2 and 3; Pillow, which draws the outline, holds 4 as well."""
    assert shown(draw_coco(box(1, 1, 4, 4), (5, 6))) == SQUARE
    assert draw_labelme("rectangle", [[1, 1], [4, 4]], (5, 6)).sum() == 16
    assert np.array_equal(
        draw_labelme("rectangle", [[4, 4], [1, 1]], (5, 6)), draw_labelme("rectangle", [[1, 1], [4, 4]], (5, 6))
    )


@pytest.mark.coco
@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_polygons_of_pycocotools(rng: np.random.Generator) -> None:
    coco = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    for trial in range(200):
        height, width = map(int, rng.integers(1, 60, 2))
        points = rng.uniform(-10, 70, (rng.integers(3, 12), 2))
        points = np.round(points) if trial % 3 == 0 else points
        points[1] = points[0] if trial % 7 == 0 else points[1]
        runs = coco.frPyObjects([points.ravel().tolist()], height, width)
        theirs = coco.decode(runs)[:, :, 0]
        assert np.array_equal(draw_coco(points, (height, width)), theirs)
        counts = unpacked_runs(runs[0]["counts"].decode())
        assert np.array_equal(draw_runs(counts, (height, width)), theirs)


def test_polygons_without_pycocotools(rng: np.random.Generator) -> None:
    """Its masks of three polygons, kept here: a triangle, one partly outside, one that crosses itself."""
    triangle = draw_coco(np.array([(0.5, 0.5), (5.5, 0.5), (0.5, 4.5)]), (5, 6))
    outside = draw_coco(np.array([(-3.0, -3), (3, -3), (3, 3), (-3, 3)]), (5, 6))
    crossed = draw_coco(np.array([(0.0, 0), (6, 5), (6, 0), (0, 5)]), (5, 6))
    assert outside.sum() == 9 and outside[:3, :3].all()
    assert (shown(triangle), shown(crossed)) == (TRIANGLE, CROSSED)


TRIANGLE = "000000\n011100\n011000\n010000\n000000"
CROSSED = "100001\n110011\n111111\n110011\n100001"


def test_labelme_as_pillow(rng: np.random.Generator) -> None:
    for _ in range(20):
        points = rng.uniform(-5, 45, (5, 2)).tolist()
        canvas = Image.new("L", (40, 30))
        ImageDraw.Draw(canvas).polygon([tuple(point) for point in points], outline=1, fill=1)
        assert np.array_equal(draw_labelme("polygon", points, (30, 40)), np.asarray(canvas) > 0)
    circle = draw_labelme("circle", [[20, 15], [20, 25]], (30, 40))
    rows, columns = np.indices((30, 40))
    inside = (rows - 15) ** 2 + (columns - 20) ** 2
    assert circle[inside < 9.5**2].all() and not circle[inside > 11**2].any()
    assert draw_labelme("line", [[2, 15], [38, 15]], (30, 40))[11:19, 5:35].all()
    assert draw_labelme("point", [[20, 15]], (30, 40)).sum() == pytest.approx(np.pi * 5.5**2, rel=0.1)


def test_runs(rng: np.random.Generator) -> None:
    for _ in range(50):
        mask = rng.random((7, 9)) < rng.random()
        counts = runs_of(mask)
        assert np.array_equal(draw_runs(counts, (7, 9)), mask)
        assert unpacked_runs(packed_runs(counts)) == counts
        rows = runs_of(mask.T)
        assert np.array_equal(draw_runs(rows, (7, 9), by_columns=False), mask)
    long = [0, 2**20, 5, 2**18, 1]
    assert unpacked_runs(packed_runs(long)) == long


def test_ellipses_and_turns() -> None:
    mask = draw_coco(ellipse(20, 15, 10, 5), (30, 40))
    assert mask.sum() == pytest.approx(np.pi * 50, rel=0.05)
    upright = draw_coco(turned(ellipse(20, 15, 10, 5), 90), (30, 40))
    assert upright.sum() == pytest.approx(np.pi * 50, rel=0.05) and upright[8:22, 20].all() and not upright[15, 27]
    right = turned(np.array([(0.0, 0), (4, 0), (4, 2), (0, 2)]), 90)[0]
    assert right == pytest.approx((3, -1))  # clockwise on a screen: the upper left corner becomes the upper right


HOSTILE = {
    "no list": (lambda: points_of("1,2"), "corners are str"),
    "too many": (lambda: points_of([1.0] * (2 * MAX_POINTS + 2)), "at most"),
    "text": (lambda: points_of([["a", 1]]), "no pair of numbers"),
    "truth": (lambda: points_of([[True, 1]]), "no pair of numbers"),
    "far": (lambda: points_of([[FAR + 1, 0]] * 3), "within"),
    "odd": (lambda: points_of([1, 2, 3]), "expected two for each"),
    "three at a point": (lambda: points_of([[1, 2, 3], [4, 5, 6]]), "expected two for each"),
    "few": (lambda: points_of([[1, 2]], least=3), "at least 3"),
    "long": (lambda: draw_coco(np.array([(0.0, 0), (FAR, FAR)] * 100), (5, 5)), "outline longer"),
    "kind": (lambda: draw_labelme("star", [[1, 1]], (5, 5)), "kind 'star'"),
    "circle of three": (lambda: draw_labelme("circle", [[1, 1]] * 3, (5, 5)), "circle of 3 points"),
    "mask outside": (lambda: draw_labelme("mask", [[0, 0], [9, 9]], (5, 5), ""), "within 5x5"),
    "mask that is none": (lambda: draw_labelme("mask", [[0, 0], [1, 1]], (5, 5), "aGk="), "no PNG in base64"),
    "mask of a number": (lambda: draw_labelme("mask", [[0, 0], [1, 1]], (5, 5), 7), "no PNG in base64"),
    "runs too long": (lambda: draw_runs([0, 26], (5, 5)), "no numbers from 0"),
    "runs too short": (lambda: draw_runs([0, 24], (5, 5)), "24 pixels in all"),
    "runs below 0": (lambda: draw_runs([30, -5], (5, 5)), "no numbers from 0"),
    "runs of text": (lambda: draw_runs(["25"], (5, 5)), "no numbers from 0"),
    "letters": (lambda: unpacked_runs("0 1"), "letter ' '"),
    "endless number": (lambda: unpacked_runs("o" * 20), "letter"),
    "cut": (lambda: unpacked_runs("0P"), "end within"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_shapes(name: str) -> None:
    act, says = HOSTILE[name]
    with pytest.raises(DataError, match=says):
        act()
