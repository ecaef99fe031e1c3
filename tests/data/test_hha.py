"""HHA against closed forms on planes, against a fit by least squares, and against the reference's own picture.

A room here is a list of planes n.P = s (P in metres, X right, Y down, Z ahead): a ray sees the nearest. The camera may
be pitched and rolled; gravity then is no axis of it any more.
"""

import pathlib
from typing import Any

import numpy as np
import pytest

from minifcn.data.hha import (
    ANGLE_OF_LEVEL,
    DOWN,
    GRAVITY_RADIUS,
    KINECT,
    USUAL_GROUND,
    Camera,
    find_gravity,
    hha,
    normals,
    rays,
    window_sums,
)
from minifcn.data.shapes import FAR, GEOMETRY, Shapes, draw_scene
from minifcn.errors import DataError, ShapeError, UsageError

LEVEL, WALL, CEILING = ANGLE_OF_LEVEL, ANGLE_OF_LEVEL + 90, ANGLE_OF_LEVEL + 180
CAMERA = Camera(60.0, 66.0, 39.5, 30.0)
SIZE = (60, 80)


def turned(pitch: float, roll: float) -> np.ndarray:
    """From the world's axes to those of a camera that looks down by `pitch` and leans by `roll` degrees."""
    (c, s), (d, t) = ((np.cos(a), np.sin(a)) for a in np.radians((pitch, roll)))
    return np.array([[d, t, 0], [-t, d, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def room(*planes: tuple[Any, float], axes: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The depth (H, W) of the nearest plane n.P = s on each ray, 0 where there is none, and which plane it is."""
    x, y = np.broadcast_arrays(*rays(SIZE, CAMERA))
    along = np.stack([x, y, np.ones(SIZE)], 2) @ (np.eye(3) if axes is None else axes)
    depths = []
    for n, s in planes:
        towards = along @ np.asarray(n, float)
        depths.append(np.where(towards > 1e-9, s / np.where(towards > 1e-9, towards, 1), np.inf))
    nearest = np.min(depths, axis=0)
    return np.where(np.isfinite(nearest), nearest, 0), np.argmin(depths, axis=0)


FLOOR, ROOF, AHEAD = ((0, 1, 0), 1.5), ((0, -1, 0), 1.2), ((0, 0, 1), 6.0)
LEFT = ((-1, 0, 0.2), 1.3)


def inside(which: np.ndarray, plane: int, radius: int = 3) -> np.ndarray:
    """Pixels whose whole window lies on one plane (or over the picture's edge)."""
    other = (which != plane).astype(float)
    return window_sums(other[None], radius)[0] == 0


# One plane -----------------------------------------------------------------------------------------------------------


def test_a_floor_is_level_and_at_height_0() -> None:
    camera = CAMERA._replace(cy=-20.0)  # all rows lie below the horizon
    y = rays(SIZE, camera)[1]
    depth = np.broadcast_to(1.5 / y, SIZE)
    picture = hha(depth, camera, gravity=DOWN)
    assert (picture[..., 1] == 0).all() and (picture[..., 2] == LEVEL).all()
    assert (hha(depth, camera) == picture).all()  # and a floor is enough to find gravity by


def test_a_wall_is_upright() -> None:
    picture = hha(np.full(SIZE, 2.0), CAMERA, gravity=DOWN)
    assert (picture[..., 0] == 155).all() and (picture[..., 2] == WALL).all()
    # Its lowest row is 29/66 * 2 m = 88 cm below the eye, which is no ground: that is then 130 cm below.
    heights = np.floor(USUAL_GROUND - 200 * (np.arange(60) - 30) / 66 + 0.5)
    assert (picture[..., 1] == heights[:, None]).all()


def test_a_ceiling_hangs_over_the_ground() -> None:
    depth, which = room(FLOOR, ROOF, AHEAD)
    picture = hha(depth, CAMERA, gravity=DOWN)
    for plane, angle in enumerate((LEVEL, CEILING, WALL)):
        on = inside(which, plane)
        assert on.sum() > 100 and (picture[on][:, 2] == angle).all()
    assert (picture[which == 0][:, 1] == 0).all() and (picture[which == 1][:, 1] == 255).all()  # 2.7 m, clipped


def test_disparity_is_31000_over_centimetres_and_stops_at_a_metre() -> None:
    depth = np.geomspace(0.2, 400, SIZE[0] * SIZE[1]).reshape(SIZE)
    red = hha(depth, CAMERA, gravity=DOWN)[..., 0]
    exact = 31000 / np.maximum(100 * depth, 100)
    assert (np.abs(np.minimum(exact, 255) - red) <= 0.5 + 1e-9).all()
    assert (red[depth < 1.2] == 255).all() and red.min() == 1


# Any plane, any camera -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pitch", "roll"), [(0, 0), (12, 0), (-8, 5), (25, -10)])
def test_gravity_is_found_in_a_room_whichever_way_the_camera_leans(pitch: float, roll: float) -> None:
    axes = turned(pitch, roll)
    depth, which = room(FLOOR, ROOF, AHEAD, LEFT, axes=axes)
    down = find_gravity(normals(depth, CAMERA))
    assert np.degrees(np.arccos(min(1, down @ axes @ DOWN))) < 1.5  # some windows lie across an edge of the room,
    picture = hha(depth, CAMERA, gravity=axes @ DOWN)
    for plane, angle in enumerate((LEVEL, CEILING, WALL, WALL)):
        assert (picture[inside(which, plane)][:, 2] == angle).all()
    if (which == 0).any():
        assert picture[which == 0][:, 1].max() == 0
    # and more of the wide ones that `hha` looks for gravity with.
    assert np.abs(hha(depth, CAMERA).astype(int) - picture)[..., 2].max() <= 3


def test_one_wall_alone_does_not_turn_the_world() -> None:
    for across in (0, 0.3, -0.7):  # no two of these leave the same rounding errors
        wall = np.zeros((*SIZE, 3)) + np.array((across, 0, 1)) / np.hypot(across, 1)
        assert find_gravity(wall) == pytest.approx(DOWN)
    assert find_gravity(np.zeros((*SIZE, 3))) == pytest.approx(DOWN)
    picture = hha(np.full(SIZE, 2.0), CAMERA)
    assert (picture[..., 2] == WALL).all() and (np.diff(picture[:, 0, 1].astype(int)) < 0).all()


def test_gravity_may_turn_out_to_lie_across_the_first_guess() -> None:
    slopes = np.array([(0, 1, 1.5), (0, 1, -1.5)]) / np.hypot(1, 1.5)
    assert np.abs(find_gravity(slopes.reshape(1, 2, 3))) == pytest.approx((1, 0, 0))


def test_gravity_is_a_direction_of_any_length() -> None:
    depth, _ = room(FLOOR, AHEAD)
    assert (hha(depth, CAMERA, gravity=(0, 0.1, 0)) == hha(depth, CAMERA, gravity=DOWN)).all()


def test_normals_are_those_of_a_fit_by_least_squares(rng: np.random.Generator) -> None:
    depth = 2 + rng.random(SIZE)
    seen = rng.random(SIZE) < 0.5
    found = normals(depth, CAMERA, seen, radius=2)
    x, y = np.broadcast_arrays(*rays(SIZE, CAMERA))
    for row, column in [(0, 0), (59, 79), (0, 40), *rng.integers(2, 58, (30, 2))]:
        part = np.s_[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
        on = seen[part]
        terms = np.stack([x[part][on], y[part][on], np.ones(on.sum())], axis=1)
        plane = np.linalg.lstsq(terms, 1 / depth[part][on], rcond=None)[0]
        assert found[row, column] == pytest.approx(plane / np.linalg.norm(plane), abs=1e-6)


def test_sums_over_windows(rng: np.random.Generator) -> None:
    planes = rng.standard_normal((2, 7, 9))
    wide = np.pad(planes, ((0, 0), (3, 3), (3, 3)))
    slow = sum(wide[:, a : a + 7, b : b + 9] for a in range(7) for b in range(7))
    assert window_sums(planes, 3) == pytest.approx(slow)


# What is not known ---------------------------------------------------------------------------------------------------


def test_unknown_depth_is_black_and_changes_nothing_beside_it() -> None:
    depth, which = room(FLOOR, AHEAD)
    holes = depth.copy()
    holes[20:40, 10:30] = 0
    holes[which == 0] *= np.arange(np.sum(which == 0)) % 3 > 0
    whole, picture = hha(depth, CAMERA, gravity=DOWN), hha(holes, CAMERA, gravity=DOWN)
    assert (picture[holes == 0] == 0).all()
    on = (holes > 0) & (inside(which, 0) | inside(which, 1))
    assert (picture[on] == whole[on]).all()


def test_no_plane_is_fitted_through_what_was_filled_in() -> None:
    depth = np.full(SIZE, 2.0)
    depth[:, 40:] = 3 + np.random.default_rng(0).random((60, 40))
    measured = np.ones(SIZE, bool)
    measured[:, 40:] = False
    picture = hha(depth, CAMERA, measured=measured, gravity=DOWN)
    assert (picture[:, :42, 2] == WALL).all()  # two columns further on, a window still sees two of the wall
    assert (picture[:, 42:, 2] == CEILING).all()  # 180 degrees, as the reference has it where nothing is measured
    assert (picture[:, 40:, 0] > 0).all()  # but the depth that was filled in still counts
    depth[:, :40] = 0  # said to be measured, and not there
    assert not hha(depth, CAMERA, measured=~measured | (depth == 0), gravity=DOWN)[:, :40].any()


def test_nothing_known_is_all_black() -> None:
    assert not hha(np.zeros(SIZE), CAMERA).any()


@pytest.mark.parametrize(
    ("depth", "options", "kind", "words"),
    [
        (np.ones(SIZE), {"camera": None}, UsageError, "no camera"),
        (np.ones(SIZE), {"camera": Camera(0, 1, 2, 3)}, UsageError, "focal lengths above 0"),
        (np.ones(SIZE), {"camera": Camera(1, 1, np.nan, 3)}, UsageError, "finite centre"),
        (np.ones(SIZE, np.uint16), {}, ShapeError, "units per metre"),
        (np.ones((*SIZE, 3)), {}, ShapeError, r"expected \(H, W\)"),
        (np.ones(SIZE), {"measured": np.ones((3, 3), bool)}, ShapeError, "measured is bool"),
        (np.ones(SIZE), {"measured": np.ones(SIZE)}, ShapeError, "measured is float64"),
        (np.full(SIZE, np.nan), {}, DataError, "NaN"),
        (np.full(SIZE, -1.0), {}, DataError, "negative"),
        (np.ones(SIZE), {"gravity": (0, 0, 0)}, UsageError, "gravity"),
    ],
)
def test_what_is_no_depth_map_is_refused(depth: np.ndarray, options: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        hha(depth, **{"camera": CAMERA, **options})


# The embedded world --------------------------------------------------------------------------------------------------


def test_the_embedded_world_in_hha() -> None:
    for with_hha, without in zip(Shapes("val", count=6, hha=True), Shapes("val", count=6), strict=True):
        assert (with_hha.image == without.image).all() and without.hha is None
        picture, depth, geometry = with_hha.hha, with_hha.depth, with_hha.geometry
        assert picture is not None and depth is not None and geometry is not None
        assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
        assert (picture[..., 0] == np.floor(310 / np.maximum(depth, 1) + 0.5).clip(0, 255)).all()
        level = geometry == GEOMETRY.index("horizontal")
        assert picture[level][:, 1].max() <= 1  # the ground is the ground, wherever the horizon is
        flat, upright, sky = (inside(geometry, GEOMETRY.index(name)) for name in GEOMETRY)
        assert (picture[flat][:, 2] == LEVEL).all()
        assert np.median(picture[upright][:, 2]) == WALL
        assert (picture[sky][:, 2] == CEILING).all() and (depth[sky] == FAR).all()


def test_gravity_is_found_in_the_embedded_world_too() -> None:
    for seed in range(4):
        scene = draw_scene(np.random.default_rng(seed), (160, 160))
        camera = Camera(160, 160, 79.5, -160 * scene.top - 0.5)
        down = find_gravity(normals(scene.depth, camera, scene.depth < FAR, radius=GRAVITY_RADIUS))
        assert np.degrees(np.arccos(min(1, down[1]))) < 2
        assert (scene.hha() == hha(scene.depth, camera, measured=scene.depth < FAR, gravity=DOWN)).all()


# The reference's own picture -----------------------------------------------------------------------------------------


def agreement(found: np.ndarray, wanted: np.ndarray) -> dict[str, np.ndarray]:
    """For each channel: mean and median absolute difference, and the shares of pixels within 1, 5 and 10 levels."""
    off = np.abs(found.astype(int) - wanted).reshape(-1, 3)
    within = {f"within {n}": (off <= n).mean(axis=0) for n in (1, 5, 10)}
    return {"mean": off.mean(axis=0), "median": np.median(off, axis=0), **within}


@pytest.fixture(scope="module")
def matlab(data_root: pathlib.Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth in metres, what the sensor measured of it, and the reference's HHA of the same room."""
    from PIL import Image

    folder = data_root / "nyud_samples" / "depth2hha_demo"
    if not folder.is_dir():
        pytest.skip("nyud_samples/depth2hha_demo is not in the folder that MINIFCN_DATA names")
    filled, raw, picture = (np.asarray(Image.open(folder / name)) for name in ("0.png", "0_raw.png", "matlab_hha.png"))
    return filled / 10000, raw / 10000, picture


def test_it_is_the_picture_that_the_reference_makes(matlab: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    depth, _, wanted = matlab
    found = agreement(hha(depth, KINECT), wanted)
    assert (found["mean"] < 1e-4).all() and (found["within 1"] == 1).all(), found  # 0 on the machines tried


@pytest.mark.parametrize(
    ("fault", "channel", "most"),
    [
        ({"gravity": DOWN}, 1, 0.1),
        ({"camera": KINECT._replace(cx=KINECT.cx + 1, cy=KINECT.cy + 1)}, 2, 0.99),
    ],
)
def test_a_wrong_camera_or_gravity_would_show(
    fault: dict[str, Any], channel: int, most: float, matlab: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    depth, _, wanted = matlab
    picture = hha(depth, **{"camera": KINECT, **fault})
    assert (picture[..., channel] == wanted[..., channel]).mean() < most


def test_the_port_to_python_divides_by_rounding_errors_where_all_points_lie_on_a_line(
    matlab: tuple[np.ndarray, np.ndarray, np.ndarray], data_root: pathlib.Path
) -> None:
    from PIL import Image

    depth, raw, _ = matlab
    port = np.asarray(Image.open(data_root / "nyud_samples" / "depth2hha_demo" / "hha.png"))
    found = hha(depth, KINECT, measured=raw > 0)
    off = np.abs(found.astype(int) - port).max(axis=2)
    line = ~normals(depth, KINECT, raw > 0).any(axis=2)
    assert (off > 1).mean() == pytest.approx(0.0081, abs=0.0005) and not (off > 1)[~line].any()
