"""How each object of the embedded world is drawn, at any resolution.

A drawing answers two questions for every pixel: how far is it from the outline, and what colour is there? The distance
(metres, negative inside) serves three times: its sign is the label, its last half pixel softens the drawn edge, and a
narrow band around zero cannot be labelled: it is the void border.

A thing answers in its own metres: `u` to the right of its middle, `v` up from the ground, arrays that broadcast to the
part of the picture it is asked for. All its random numbers are drawn when it is made, before anything is drawn, so the
same thing can be drawn at any size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

Array = np.ndarray

# Colour, noise and light ---------------------------------------------------------------------------------------------


def rgb(code: str) -> Array:
    """Return a colour written as on the web, "ff8000", as three numbers from 0 to 1."""
    return np.frombuffer(bytes.fromhex(code), np.uint8).astype(np.float32) / 255


def mix(a: Array, b: Array, share: ArrayLike) -> Array:
    """Return `a` where `share` is 0, `b` where it is 1; `share` has no colour axis."""
    share = np.asarray(share, np.float32)[..., None]
    return a + (b - a) * share


def choose(rng: Generator, options: Sequence[Any]) -> Any:
    """Return one of the options, each as likely as the others."""
    return options[int(rng.integers(len(options)))]


@cache
def noise_tile() -> Array:
    """Return cloudy noise (513, 513) from 0 to 1 that continues across its edges: white noise, its high tones damped.

    The first row and column come once more at the end, so that every point has one beside and one below it.
    """
    tones = np.fft.fft2(np.random.default_rng(0).standard_normal((512, 512)))
    frequency = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.fftfreq(512)[None]) * 512
    tile = np.fft.ifft2(tones / np.maximum(frequency, 2) ** 1.5).real
    tile = np.clip(0.5 + 0.22 * tile / tile.std(), 0, 1).astype(np.float32)
    return np.pad(tile, ((0, 1), (0, 1)), mode="wrap")


def noise(u: ArrayLike, v: ArrayLike) -> Array:
    """Return the noise at (u, v), in tiles (it repeats after 1), bilinear between the tile's points."""
    u, v = np.asarray(u, np.float32) * 512, np.asarray(v, np.float32) * 512
    left, above = np.floor(u), np.floor(v)
    right, below = u - left, v - above
    at = (above.astype(np.int64) & 511) * 513 + (left.astype(np.int64) & 511)
    tile = noise_tile().ravel()
    upper = tile[at] + right * (tile[at + 1] - tile[at])
    lower = tile[at + 513] + right * (tile[at + 514] - tile[at + 513])
    return upper + below * (lower - upper)


def step(x: Array) -> Array:
    """Return 1 where x > 0, 0 where x < 0, with a soft edge one unit wide, so that drawn edges are not jagged."""
    return np.clip(x + 0.5, 0, 1)


LEAVES = ("4d8a35", "2f6a3c", "89a63c", "cf7d2e", "b8472f", "dba23a", "e7a9bb", "3f7a70")
PAINTS = ("d8402f", "f0c02e", "2f69b8", "f3efe4", "2e8f6b", "ec7f2c", "7b4fa0", "e58fb0", "3a3f4a", "5cb6d6", "8cae3e")
WALLS = ("e9dfc9", "c9795a", "f2efe8", "d9b46c", "8fa6b5", "b8584a", "cdb7a0")
ROOFS = ("8f3f34", "5b5560", "a8643f", "3f5560", "6d6a4a")
BARK = ("5d4632", "6f5a48", "d9d4c8", "4a3a33")


@dataclass(frozen=True)
class Light:
    """One sun for the whole picture. `left` is -1 with the sun at the far right and 1 with it at the far left."""

    left: float
    height: float
    sun: Array
    shade: Array

    def on(self, colour: Array, lit: ArrayLike) -> Array:
        """Return the `colour` of a surface that the sun strikes by `lit`, from 0 (turned away) to 1 (faces it)."""
        return colour * mix(self.shade, self.sun, lit)


# Things --------------------------------------------------------------------------------------------------------------


class Thing(NamedTuple):
    half_width: float
    height: float
    draw: Callable[[Array, Array], tuple[Array, Array]]


def rectangle(u: Array, v: Array, half_width: float, low: float, high: float) -> Array:
    """Return the distance to the outline of an upright rectangle, negative inside."""
    return np.maximum(np.abs(u) - half_width, np.maximum(low - v, v - high))


def gable(u: Array, v: Array, half_width: float, low: float, high: float) -> Array:
    """Return an upright triangle: distance to its sloping sides and its base."""
    slope = (high - low) / half_width
    return np.maximum((np.abs(u) * slope + v - high) / np.hypot(slope, 1), low - v)


def paint(rng: Generator) -> Callable[[Array, Array], Array]:
    """Return a random coat of paint, the same kinds for everything that is painted: colour at (u, v)."""
    a, b = (rgb(PAINTS[k]) for k in rng.choice(len(PAINTS), 2, replace=False))
    pattern = choose(rng, ("plain", "stripes", "stripes", "checks", "dots"))
    turn, pitch, worn = rng.uniform(0, np.pi), rng.uniform(0.35, 0.7), rng.uniform(0, 1, 2)
    cos, sin = np.cos(turn), np.sin(turn)

    def colour(u: Array, v: Array) -> Array:
        p, q = (u * cos + v * sin) / pitch * np.pi, (v * cos - u * sin) / pitch * np.pi
        share = {
            "plain": lambda: 0 * (u + v),
            "stripes": lambda: step(8 * np.sin(p)),
            "checks": lambda: step(12 * np.sin(p) * np.sin(q)),
            "dots": lambda: step(10 * (np.cos(p) * np.cos(q) - 0.4)),
        }[pattern]()
        return mix(a, b, share) * (0.8 + 0.35 * noise(u / 5 + worn[0], v / 5 + worn[1]))[..., None]

    return colour


def sphere(rng: Generator, light: Light) -> Thing:
    """Return a painted sphere that touches the ground; ball and balloon are this, in two places."""
    radius, coat = rng.uniform(0.7, 1.4), paint(rng)

    def draw(u: Array, v: Array) -> tuple[Array, Array]:
        nx, ny = u / radius, v / radius - 1
        nz = np.sqrt(np.maximum(1 - nx * nx - ny * ny, 0))
        facing = 0.8 * nz - 0.15 + 0.6 * light.height * ny - 0.6 * light.left * nx
        shine = np.clip(facing - 0.88, 0, 1) * 2.5
        outline = np.sqrt(u * u + (v - radius) * (v - radius)) - radius
        return outline, light.on(coat(u, v), np.clip(facing, 0, 1)) + shine[..., None]

    return Thing(radius, 2 * radius, draw)


def crate(rng: Generator, light: Light) -> Thing:
    """Return a painted box, its top and one side just visible."""
    half, high, coat = rng.uniform(0.65, 1.35), rng.uniform(1.3, 2.7), paint(rng)
    side, top = rng.uniform(0.45, 0.75) * half * choose(rng, (-1, 1)), high * rng.uniform(0.78, 0.88)

    def draw(u: Array, v: Array) -> tuple[Array, Array]:
        lit = np.where(u * np.sign(side) > abs(side), 0.2 - 0.2 * np.sign(side) * light.left, 0.5)
        return rectangle(u, v, half, 0, high), light.on(coat(u, v), np.where(v > top, 0.95, lit))

    return Thing(half, high, draw)


def tent(rng: Generator, light: Light) -> Thing:
    """Return a painted triangle with a dark door and a mast."""
    half, high, coat = rng.uniform(1.0, 1.9), rng.uniform(1.6, 2.8), paint(rng)
    ridge = rng.uniform(-0.3, 0.3) * half
    mast, top = rng.uniform(0.04, 0.08), high * rng.uniform(1.08, 1.25)

    def draw(u: Array, v: Array) -> tuple[Array, Array]:
        colour = light.on(coat(u, v), np.where(u > ridge * (v / high), 0.5 - 0.4 * light.left, 0.5 + 0.4 * light.left))
        door = step(-40 * gable(u - ridge / 2, v, 0.28 * half, -1, 0.6 * high))
        outline = np.minimum(gable(u, v, half, 0, high), rectangle(u, v, mast, 0, top))
        return outline, mix(colour, rgb("2b2530") * light.shade, door)

    return Thing(half, top, draw)


def tree(rng: Generator, light: Light) -> Thing:
    """Return a leafy crown, round or pointed, on a thin trunk."""
    half, crown, clear = rng.uniform(0.8, 1.6), rng.uniform(2.0, 3.6), rng.uniform(0.7, 1.5)
    trunk, leaf, bark = rng.uniform(0.09, 0.2), rgb(choose(rng, LEAVES)), rgb(choose(rng, BARK))
    pointed, (seed_u, seed_v) = rng.random() < 0.35, rng.uniform(0, 1, 2)

    def draw(u: Array, v: Array) -> tuple[Array, Array]:
        ragged = noise(u / 20 + seed_u, v / 20 + seed_v) - 0.5
        if pointed:
            leaves = gable(u, v, half, clear, clear + crown) + 0.6 * half * ragged
        else:
            leaves = (np.hypot(u / half, (v - clear - crown / 2) / (crown / 2)) - 1 + 1.1 * ragged) * half
        clumps = noise(u / 1.7 + seed_v, v / 1.7 + seed_u)
        lit = np.clip(clumps * 1.2 - 0.25 + 0.25 * (v - clear - crown / 2) / crown - 0.25 * light.left * u / half, 0, 1)
        colour = mix(light.on(bark, 0.4), light.on(leaf * 1.05, lit), step(-30 * leaves))
        return np.minimum(leaves, rectangle(u, v, trunk, 0, clear + crown / 2)), colour

    return Thing(1.65 * half, clear + 1.35 * crown, draw)


def house(rng: Generator, light: Light) -> Thing:
    """Return walls with windows and a door under a gabled roof with a chimney."""
    half, wall, roof = rng.uniform(1.6, 2.8), rng.uniform(1.8, 2.9), rng.uniform(1.1, 2.0)
    walls, tiles = rgb(choose(rng, WALLS)), rgb(choose(rng, ROOFS))
    chimney, bay = rng.uniform(0.3, 0.6) * half * choose(rng, (-1, 1)), 2 * half / choose(rng, (3, 3, 5))
    pane = rgb(choose(rng, ("36424f", "f3d28a", "5d7288"))) + np.zeros(3, np.float32)
    bricks, (seed_u, seed_v) = rng.uniform(0, 0.18), rng.uniform(0, 1, 2)

    def draw(u: Array, v: Array) -> tuple[Array, Array]:
        courses = 1 - bricks * step(6 * np.sin(v * 20)) * step(6 * np.sin(u * 9 + 2 * np.sign(np.sin(v * 10))))
        grime = 0.85 + 0.3 * noise(u / 8 + seed_u, v / 8 + seed_v)
        front = light.on(walls * (courses * grime)[..., None], 0.75)
        across = (u / bay + 0.5) % 1 - 0.5
        window = rectangle(across * bay, v, 0.25 * bay, 0.42 * wall, 0.8 * wall)
        door = rectangle(u, v, 0.3 * bay, -1, 0.7 * wall)
        front = mix(front, pane, step(-25 * window) * (np.abs(u) > bay / 2))
        front = mix(front, tiles * 0.6, step(-25 * door))
        rows = 0.8 + 0.2 * np.sin(v * 26) + 0.25 * (noise(u / 3 + seed_v, v / 3 + seed_u) - 0.5)
        above = np.minimum(
            gable(u, v, half * 1.12, wall - 0.2, wall + roof), rectangle(u - chimney, v, 0.22, wall, wall + roof)
        )
        colour = mix(front, light.on(tiles * rows[..., None], 0.6 - 0.3 * light.left * np.sign(u)), above < 0)
        return np.minimum(above, rectangle(u, v, half, 0, wall)), colour

    return Thing(half * 1.12, wall + roof, draw)


STANDING = {"ball": sphere, "crate": crate, "tent": tent, "balloon": sphere, "tree": tree, "house": house}
"""What stands on the ground or hangs over it, by class. Ponds lie flat and are drawn with the scene."""
