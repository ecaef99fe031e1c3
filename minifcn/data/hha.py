"""Encode a depth map as HHA: disparity, height and angle with gravity.

A net that has learned from photographs expects three channels from 0 to 255 in which edges and surfaces show. A depth
map has one channel, in metres, and does not show what matters most indoors: that floors are low and level, and walls
upright. Gupta et al. (ECCV 2014) compute that, and the paper feeds it to its NYUDv2 nets (section 5, table 4):

    red     horizontal disparity    31000 / Z, where Z is the depth in centimetres, at least 100
    green   height above ground     in centimetres; the ground lies as deep as the lowest point in sight
    blue    angle with gravity      38 + degrees from gravity to the surface's normal: floor 38, wall 128, ceiling 218

each rounded and clipped to 0..255. All of it follows from one fact. A camera sees the point (X, Y, Z), X to the right,
Y down and Z ahead, at column cx + fx X / Z and row cy + fy Y / Z. Divide the equation of a plane, aX + bY + cZ = 1,
by Z:

    1 / Z = a X / Z + b Y / Z + c

so over a plane the *disparity* 1 / Z is linear in column and row, however steeply the plane is seen. The local plane at
a pixel is thus a straight-line fit over a window, nine sums, and (a, b, c) is its normal, pointing away from the eye.
"""

from typing import NamedTuple

import numpy as np

from minifcn.errors import DataError, ShapeError, UsageError

Array = np.ndarray

DISPARITY = 31000
"""Over the depth in centimetres: what the reference chose so that a Kinect's range fills a byte."""
NEAREST = 100
"""Centimetres; what is nearer counts as being so far away. (All that is nearer than 122 fills the byte anyway.)"""
HIGHEST_GROUND, USUAL_GROUND = 90, 130
"""Centimetres below the eye: if nothing in sight is lower than the first, no ground is, and it is taken to lie at the
second, where it is for a camera held in the hand."""
ANGLE_OF_LEVEL = 38
"""Added to every angle (the reference writes 128 - 90, which puts a wall in the middle of the byte)."""
NORMAL_RADIUS, GRAVITY_RADIUS = 3, 10
"""Windows of 7x7 pixels for the normals that are shown, and of 21x21 for the calmer ones that vote for gravity."""
THRESHOLDS = (45,) * 5 + (15,) * 5
"""Degrees, one for each step of the search for gravity: first everyone votes, then who agrees."""
DOWN = (0.0, 1.0, 0.0)
"""Gravity for a camera that is held level."""


class Camera(NamedTuple):
    """A pinhole: focal lengths, and where the optical axis meets the picture, in pixels.

    Columns and rows are counted from 0 at the middle of the first pixel.
    """

    fx: float
    fy: float
    cx: float
    cy: float


KINECT = Camera(518.85790117450188, 519.46961112127485, 324.58244941119034, 252.73616633400465)
"""The colour camera of NYUDv2, for pictures of 640x480. (Its authors count from 1, here it is from 0.)"""


def hha(
    depth: Array,
    camera: Camera | None = None,
    *,
    measured: Array | None = None,
    gravity: tuple[float, float, float] | Array | None = None,
) -> Array:
    """Return the HHA picture (H, W, 3) uint8 of a depth map (H, W) in metres: disparity, height, angle, in this order.

    Depth 0 means unknown, and such a pixel is (0, 0, 0). `measured` (H, W) marks the pixels that the sensor saw and
    that were not filled in afterwards: planes are fitted through these alone; without it, through all known ones. Where
    a window holds no plane the angle is 180 degrees, as in the reference. `gravity` is the direction in which things
    fall, if it is known; without it `find_gravity` looks for it.

    Raises UsageError without a camera, ShapeError and DataError for what is no depth map.
    """
    if camera is None:
        raise UsageError("hha: no camera; expected Camera(fx, fy, cx, cy) in pixels, or KINECT for NYUDv2")
    _check(depth, camera, measured)
    known = depth > 0
    seen = known if measured is None else known & measured
    if gravity is None:
        gravity = find_gravity(normals(depth, camera, seen, radius=GRAVITY_RADIUS))
    down = np.asarray(gravity, np.float64)
    if down.shape != (3,) or not np.isfinite(down).all() or not down.any():
        raise UsageError(f"hha: gravity {gravity}; expected a direction (3,): {DOWN} for a camera held level")
    down = down / np.linalg.norm(down)

    z = 100.0 * depth
    x, y = rays(depth.shape, camera)
    below = z * (x * down[0] + y * down[1] + down[2])  # the eye, along gravity; a point of depth 0 is the eye itself
    ground = below.max() if below.max() >= HIGHEST_GROUND else USUAL_GROUND
    height = ground - below

    normal = normals(depth, camera, seen)
    angle = np.degrees(np.arccos(np.clip(normal @ down, -1, 1)))
    angle[~normal.any(axis=2)] = 180

    channels = np.stack([DISPARITY / np.maximum(z, NEAREST), height, angle + ANGLE_OF_LEVEL], axis=2)
    channels[~known] = 0
    return np.floor(np.clip(channels, 0, 255) + 0.5).astype(np.uint8)


def rays(size: tuple[int, ...], camera: Camera) -> tuple[Array, Array]:
    """Return X / Z (1, W) and Y / Z (H, 1): where each column and each row of a picture looks."""
    height, width = size
    return ((np.arange(width) - camera.cx) / camera.fx)[None, :], ((np.arange(height) - camera.cy) / camera.fy)[:, None]


def normals(depth: Array, camera: Camera, seen: Array | None = None, *, radius: int = NORMAL_RADIUS) -> Array:
    """Return the unit normal (H, W, 3) of the plane that best fits the window of 2 radius + 1 pixels around each pixel.

    Normals point away from the eye: that of a floor points down. It is (0, 0, 0) where fewer than three pixels of
    the window are seen, or all on one line. The fit is over 1 / Z = p i + q j + r in columns i and rows j:

        | Sii  Sij |  | p |     | Sid |                                                               1
        | Sij  Sjj |  | q |  =  | Sjd |    with the co-moments  Suv = sum over the window of uv   -  --- sum u  sum v
                                                                                                      n
    """
    seen = depth > 0 if seen is None else seen
    one = seen.astype(np.float64)
    d = np.divide(1, depth, out=np.zeros(depth.shape), where=seen)
    i, j = one * np.arange(depth.shape[1])[None, :], one * np.arange(depth.shape[0])[:, None]
    n, si, sj, sd, *products = window_sums(np.stack([one, i, j, d, i * i, i * j, j * j, i * d, j * d]), radius)
    # n times each co-moment. Without d these are sums of integers, so a line of pixels has determinant 0 exactly.
    pairs = ((si, si), (si, sj), (sj, sj), (si, sd), (sj, sd))
    sii, sij, sjj, sid, sjd = (n * both - u * v for both, (u, v) in zip(products, pairs, strict=True))
    determinant = sii * sjj - sij * sij
    flat = determinant > 0

    def over(numerator: Array, denominator: Array) -> Array:
        return np.divide(numerator, denominator, out=np.zeros(depth.shape), where=flat)

    p, q = over(sid * sjj - sjd * sij, determinant), over(sjd * sii - sid * sij, determinant)
    r = over(sd - p * si - q * sj, n)
    # From columns and rows to rays: i = cx + fx X / Z, j = cy + fy Y / Z.
    normal = np.stack([p * camera.fx, q * camera.fy, r + p * camera.cx + q * camera.cy], axis=2)
    length = np.linalg.norm(normal, axis=2, keepdims=True)
    return np.divide(normal, length, out=np.zeros(normal.shape), where=length > 0)


def window_sums(planes: Array, radius: int) -> Array:
    """Return sums of planes (N, H, W) over the window around each pixel, cut off where the picture ends.

    Along an axis, the sum from a to b is the running sum at b less the one at a: any window costs the same.
    """
    for axis in (1, 2):
        size = planes.shape[axis]
        place = np.arange(size)
        running = np.insert(np.cumsum(planes, axis), 0, 0, axis)
        planes = running.take(np.minimum(place + radius + 1, size), axis)
        planes -= running.take(np.maximum(place - radius, 0), axis)
    return planes


def find_gravity(normal: Array, start: tuple[float, float, float] = DOWN) -> Array:
    """Return the direction (3,) in which things fall: what most floors and ceilings face, and most walls do not.

    From a first guess, `start`, take the normals within t degrees of it or of its opposite for floors F, and those
    within t degrees of level for walls W. The best direction g is then the unit vector with the least

        sum over W of cos^2(angle)  +  sum over F of sin^2(angle)  =  g' (W'W - F'F) g  +  constant,

    the eigenvector of the smallest eigenvalue. Repeat with that: t is 45 degrees five times, then 15 five times.
    """
    votes = normal.reshape(-1, 3)
    votes = votes[votes.any(axis=1)]
    down = np.asarray(start, np.float64)
    for threshold in np.radians(THRESHOLDS):
        cosine = np.abs(votes @ down)
        floors, walls = votes[cosine > np.cos(threshold)], votes[cosine < np.sin(threshold)]
        values, vectors = np.linalg.eigh(walls.T @ walls - floors.T @ floors)
        # One wall alone leaves a whole plane of directions equally good: of these, the nearest to what it was.
        equal = vectors[:, values <= values[0] + 1e-9 * (1 + len(votes))]
        nearest = equal @ (equal.T @ down)
        length = np.linalg.norm(nearest)
        down = nearest / length if length > 1e-6 else equal[:, 0]
    return down


def _check(depth: Array, camera: Camera, measured: Array | None) -> None:
    """Refuse what would come out as a picture of nonsense."""
    if not camera.fx > 0 or not camera.fy > 0 or not np.isfinite(camera).all():
        raise UsageError(f"hha: {camera}; expected focal lengths above 0 and a finite centre, in pixels")
    if depth.ndim != 2 or not np.issubdtype(depth.dtype, np.floating):
        expected = "(H, W) floats in metres: divide a 16-bit file by its units per metre"
        raise ShapeError(f"hha: depth is {depth.dtype} of shape {depth.shape}; expected {expected}")
    if measured is not None and (measured.shape != depth.shape or measured.dtype != bool):
        raise ShapeError(f"hha: measured is {measured.dtype} of shape {measured.shape}; expected bool {depth.shape}")
    if not np.isfinite(depth).all() or (depth < 0).any():
        raise DataError("hha: depth holds NaN, infinity or negative values; expected metres, and 0 where unknown")
