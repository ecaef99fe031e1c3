"""The embedded world: landscapes with things in them, drawn by NumPy, with every pixel's class known.

A net that segments needs thousands of pictures whose every pixel is labelled, and people need about an hour and a half
for each. Here a picture is computed instead, and the labels come with it. Nothing is downloaded, nothing is stored.

The world is made so that a pixel's colour says little about its class, as in photographs: what a thing *is* follows
from its shape and from what surrounds it, and to see these a net needs a large receptive field. Balls, crates, tents
and balloons wear the same paints, so that only the shape tells a ball from a crate, and only the place, sky or ground,
a ball from a balloon. Ponds mirror the sky. Where exactly a thing ends is a second question, and needs a fine stride:
trunks, masts and chimneys are a few pixels wide.

The drawing itself is the painter's algorithm: sky, hills, ground, ponds, shadows, then the standing things from far to
near, each over what is behind it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from minifcn.data.sample import VOID, Sample
from minifcn.errors import UsageError

Array = np.ndarray
Part = tuple[slice, slice]

CLASSES = ("background", "ball", "crate", "tent", "balloon", "tree", "house", "pond")
GEOMETRY = ("horizontal", "vertical", "sky")
SPLITS = ("train", "val", "test")
SIZES = (64, 500)

CAMERA = 2.2
"""Metres from the ground to the eye: the ground at row `y` below the horizon is `CAMERA / y` metres away."""
FAR = 100.0
"""Metres; the depth written where there is nothing but sky."""


# Colour, noise and light ---------------------------------------------------------------------------------------------


def rgb(code: str) -> Array:
    """A colour written as on the web, "ff8000", as three numbers from 0 to 1."""
    return np.frombuffer(bytes.fromhex(code), np.uint8).astype(np.float32) / 255


def mix(a: Array, b: Array, share: ArrayLike) -> Array:
    """`a` where `share` is 0, `b` where it is 1; `share` has no colour axis."""
    share = np.asarray(share, np.float32)[..., None]
    return a + (b - a) * share


def choose(rng: Generator, options: Sequence) -> Any:
    return options[int(rng.integers(len(options)))]


@cache
def noise_tile() -> Array:
    """Cloudy noise (512, 512) from 0 to 1 that continues across its edges: white noise with its high tones damped."""
    tones = np.fft.fft2(np.random.default_rng(0).standard_normal((512, 512)))
    frequency = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.fftfreq(512)[None]) * 512
    tile = np.fft.ifft2(tones / np.maximum(frequency, 2) ** 1.5).real
    return np.clip(0.5 + 0.22 * tile / tile.std(), 0, 1).astype(np.float32)


def noise(u: ArrayLike, v: ArrayLike) -> Array:
    """The noise at (u, v), in tiles (it repeats after 1), bilinear between the tile's points."""
    u, v = np.asarray(u, np.float32) * 512, np.asarray(v, np.float32) * 512
    left, above = np.floor(u), np.floor(v)
    right, below = u - left, v - above
    column, row = left.astype(np.int32) & 511, above.astype(np.int32) & 511
    tile, beside, under = noise_tile(), (column + 1) & 511, (row + 1) & 511
    upper = tile[row, column] + right * (tile[row, beside] - tile[row, column])
    lower = tile[under, column] + right * (tile[under, beside] - tile[under, column])
    return upper + below * (lower - upper)


def step(x: Array) -> Array:
    """1 where x > 0, 0 where x < 0, with a soft edge one unit wide, so that drawn edges are not jagged."""
    return np.clip(x + 0.5, 0, 1)


class Mood(NamedTuple):
    """An hour of the day."""

    zenith: str
    horizon: str
    sun: str
    shade: str


MOODS = (
    Mood("3f7fc4", "cfe3f2", "fff6e0", "8fa3bd"),  # noon
    Mood("5d8fc0", "f7dfb2", "ffe2ac", "8b8aa5"),  # afternoon
    Mood("40508c", "f29a6e", "ffb884", "6d6688"),  # sunset
    Mood("8d9cab", "d5dade", "dfe2e6", "a9aeb6"),  # overcast
    Mood("8a9fd0", "f6cbd3", "ffe0dc", "8f8dad"),  # dawn
)
GROUNDS = (
    ("6a9a3b", "a3b75a"),  # meadow
    ("4f7a3a", "7d9a4a"),  # moss
    ("d8bd84", "b9965e"),  # sand
    ("eef1f4", "c3ccd8"),  # snow
    ("a5763f", "c99f55"),  # stubble
    ("8d7aa8", "7f9a58"),  # heather
)
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
        """`colour` of a surface that the sun strikes by `lit`, from 0 (turned away) to 1 (faces it)."""
        return colour * mix(self.shade, self.sun, lit)


# Things --------------------------------------------------------------------------------------------------------------
#
# A thing draws itself in its own metres: `u` to the right of its middle, `v` up from the ground, both arrays that
# broadcast to the picture part it is asked for. It answers with the distance to its outline (metres, negative inside)
# and the colour. All its random numbers are drawn before, so the same thing can be drawn at any resolution.


class Thing(NamedTuple):
    half_width: float
    height: float
    draw: Callable[[Array, Array], tuple[Array, Array]]


def disc(u: Array, v: Array, radius: float) -> Array:
    return np.sqrt(u * u + v * v) - radius


def rectangle(u: Array, v: Array, half_width: float, low: float, high: float) -> Array:
    return np.maximum(np.abs(u) - half_width, np.maximum(low - v, v - high))


def gable(u: Array, v: Array, half_width: float, low: float, high: float) -> Array:
    """An upright triangle: distance to its sloping sides and its base."""
    slope = (high - low) / half_width
    return np.maximum((np.abs(u) * slope + v - high) / np.hypot(slope, 1), low - v)


def paint(rng: Generator) -> Callable[[Array, Array], Array]:
    """A random coat of paint, the same kinds for everything that is painted: colour at (u, v)."""
    a, b = (rgb(PAINTS[k]) for k in rng.choice(len(PAINTS), 2, replace=False))
    pattern = choose(rng, ("plain", "stripes", "stripes", "checks", "dots"))
    turn, pitch, worn = rng.uniform(0, np.pi), rng.uniform(0.35, 0.7), rng.uniform(0, 1, 2)
    cos, sin = np.cos(turn), np.sin(turn)

    def colour(u: Array, v: Array) -> Array:
        p, q = (u * cos + v * sin) / pitch * np.pi, (v * cos - u * sin) / pitch * np.pi
        share = {
            "plain": lambda: 0 * (u + v),
            "stripes": lambda: step(4 * np.sin(p)),
            "checks": lambda: step(4 * np.sin(p) * np.sin(q)),
            "dots": lambda: step(6 * (np.cos(p) * np.cos(q) - 0.4)),
        }[pattern]()
        return mix(a, b, share) * (0.8 + 0.35 * noise(u / 5 + worn[0], v / 5 + worn[1]))[..., None]

    return colour


def sphere(rng: Generator, light: Light) -> Thing:
    """A painted sphere that touches the ground; ball and balloon are this, in two places."""
    radius, coat = rng.uniform(0.7, 1.4), paint(rng)

    def draw(u: Array, v: Array) -> tuple[Array, Array]:
        nx, ny = u / radius, v / radius - 1
        nz = np.sqrt(np.maximum(1 - nx * nx - ny * ny, 0))
        facing = 0.55 * nz + 0.6 * light.height * ny - 0.6 * light.left * nx
        shine = np.clip(facing - 0.82, 0, 1) * 2.5
        return disc(u, v - radius, radius), light.on(coat(u, v), np.clip(facing, 0, 1)) + shine[..., None]

    return Thing(radius, 2 * radius, draw)


def crate(rng: Generator, light: Light) -> Thing:
    """A painted box, its top and one side just visible."""
    half, high, coat = rng.uniform(0.65, 1.35), rng.uniform(1.3, 2.7), paint(rng)
    side, top = rng.uniform(0.5, 0.85) * half * choose(rng, (-1, 1)), high * rng.uniform(0.82, 0.9)

    def draw(u: Array, v: Array) -> tuple[Array, Array]:
        beyond = np.where(u * np.sign(side) > abs(side), 0.35 - 0.3 * np.sign(side) * light.left, 0.65)
        return rectangle(u, v, half, 0, high), light.on(coat(u, v), np.where(v > top, 0.95, beyond))

    return Thing(half, high, draw)


def tent(rng: Generator, light: Light) -> Thing:
    """A painted triangle with a dark door and a mast."""
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
    """A leafy crown, round or pointed, on a thin trunk."""
    half, crown, clear = rng.uniform(0.8, 1.6), rng.uniform(2.0, 3.6), rng.uniform(0.7, 1.5)
    trunk, leaf, bark = rng.uniform(0.09, 0.2), rgb(choose(rng, LEAVES)), rgb(choose(rng, BARK))
    pointed, (seed_u, seed_v) = rng.random() < 0.35, rng.uniform(0, 1, 2)

    def draw(u: Array, v: Array) -> tuple[Array, Array]:
        ragged = noise(u / 20 + seed_u, v / 20 + seed_v)
        if pointed:
            leaves = gable(u, v, half, clear, clear + crown) + 0.8 * (ragged - 0.5)
        else:
            leaves = (np.hypot(u / half, (v - clear - crown / 2) / (crown / 2)) - 1) * half + 1.6 * (ragged - 0.5)
        clumps = noise(u / 1.7 + seed_v, v / 1.7 + seed_u)
        lit = np.clip(clumps * 1.2 - 0.25 + 0.25 * (v - clear - crown / 2) / crown - 0.25 * light.left * u / half, 0, 1)
        colour = mix(light.on(bark, 0.4), light.on(leaf * 1.05, lit), step(-30 * leaves))
        return np.minimum(leaves, rectangle(u, v, trunk, 0, clear + crown / 2)), colour

    return Thing(half + 0.6, clear + crown + 0.6, draw)


def house(rng: Generator, light: Light) -> Thing:
    """Walls with windows and a door under a gabled roof with a chimney."""
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


HOW_OFTEN = (0.18, 0.18, 0.15, 0.16, 0.13, 0.09, 0.11)
"""How often each class but the background is drawn: small things more often, since a class is judged by its area."""
NEAREST, FARTHEST = 4.8, 17.0
"""Metres to the nearest and the farthest thing: the same ball is 3.5 times as wide here as there."""

STANDING = {"ball": sphere, "crate": crate, "tent": tent, "balloon": sphere, "tree": tree, "house": house}


# The scene -----------------------------------------------------------------------------------------------------------


class Scene:
    """A picture being painted: its arrays, and the coordinates of its pixels.

    `x` (1, W) runs to the right from the middle and `y` (H, 1) down from the horizon, both in units of the picture's
    shorter side, which is also the focal length: what is `m` metres wide and `z` metres away spans `m / z`.
    """

    def __init__(self, size: tuple[int, int], horizon: float, light: Light, haze: Array):
        height, width = size
        self.pixels = min(size)
        self.width = width / self.pixels
        self.x = ((np.arange(width, dtype=np.float32) + 0.5 - width / 2) / self.pixels)[None, :]
        self.y = ((np.arange(height, dtype=np.float32) + 0.5 - height * horizon) / self.pixels)[:, None]
        self.top = -horizon * height / self.pixels
        self.light, self.haze = light, haze
        self.image = np.zeros((height, width, 3), np.float32)
        self.label = np.zeros((height, width), np.uint8)
        self.depth = np.full((height, width), FAR, np.float32)
        self.geometry = np.full((height, width), GEOMETRY.index("sky"), np.uint8)

    def part(self, left: float, right: float, top: float, bottom: float) -> Part:
        """The rows and columns that cover a rectangle given in picture coordinates, and two pixels more."""
        first_row, last_row = np.searchsorted(self.y[:, 0], (top, bottom))
        first_column, last_column = np.searchsorted(self.x[0], (left, right))
        return slice(max(first_row - 2, 0), last_row + 2), slice(max(first_column - 2, 0), last_column + 2)

    def cover(
        self,
        part: Part,
        outline: Array,
        colour: Array,
        depth: ArrayLike,
        *,
        label: str | None = None,
        geometry: str = "vertical",
    ) -> None:
        """Paint over one part of the picture. `outline` is the distance to the edge in pixels, negative inside."""
        depth = np.asarray(depth, np.float32)
        share = step(-outline)
        colour = mix(colour, self.haze, 1 - np.exp(-depth / FAR))
        self.image[part] = mix(self.image[part], colour, share)
        inside = outline < 0
        self.geometry[part][inside] = GEOMETRY.index(geometry)
        self.depth[part] = np.where(inside, depth, self.depth[part])
        if label is not None:
            self.label[part][inside] = CLASSES.index(label)
            # Nobody can say whether an edge pixel is inside; VOC's borders, 5 pixels of 500, say so.
            self.label[part][np.abs(outline) < max(0.75, 0.005 * self.pixels)] = VOID

    def place(self, name: str, thing: Thing, x: float, base: float, z: float) -> None:
        """Paint a thing of class `name`, `z` metres away, its foot in the picture at (x, base)."""
        part = self.part(x - thing.half_width / z, x + thing.half_width / z, base - thing.height / z, base)
        u, v = (self.x[:, part[1]] - x) * z, (base - self.y[part[0]]) * z
        if u.size and v.size:
            outline, colour = thing.draw(u, v)
            self.cover(part, outline * self.pixels / z, colour, z, label=name)

    def shadow(self, thing: Thing, x: float, base: float, z: float) -> None:
        """Darken the ground beside a standing thing, away from the sun."""
        long = 0.5 * thing.height * abs(self.light.left)
        half, flat = (thing.half_width + long) / z, 0.4 * thing.half_width / z
        x = x + np.sign(self.light.left) * long / z
        part = self.part(x - half, x + half, base - flat, base + flat)
        across, down = (self.x[:, part[1]] - x) / half, (self.y[part[0]] - base) / flat
        dark = np.clip(1.4 - 1.4 * (across**2 + down**2), 0, 1) * (self.geometry[part] == GEOMETRY.index("horizontal"))
        self.image[part] *= 1 - 0.7 * dark[..., None] * (1 - 0.6 * self.light.shade)


def draw_sky(scene: Scene, rng: Generator, mood: Mood) -> None:
    seed, cover, calm = rng.uniform(0, 1, 2), rng.uniform(0.45, 0.75), rng.uniform(0.5, 1.2)
    up = np.clip(scene.y / scene.top, 0, 1) ** 0.8
    sky = mix(rgb(mood.horizon), rgb(mood.zenith), up)
    # Clouds lie in a flat layer, so they crowd together toward the horizon.
    far = 0.12 / (up + 0.15)
    clouds = np.clip((noise(scene.x * far * calm + seed[0], far * 2 * calm + seed[1]) - cover) * 5, 0, 1) * 0.8
    scene.image[:] = mix(sky, rgb(mood.sun), clouds)


def draw_hills(scene: Scene, rng: Generator) -> None:
    for z in (75.0, 45.0):
        seed, high, wide = rng.uniform(0, 1, 2), rng.uniform(0.02, 0.2), rng.uniform(0.1, 0.3)
        colour = rgb(choose(rng, (*LEAVES, "6d7f8f", "7b6d62"))) * 0.75
        ridge = high * noise(scene.x * wide + seed[0], seed[1]) * 2 - 0.02
        woods = 0.6 + 0.7 * noise(scene.x * 0.8 + seed[1], scene.y * 1.6 + seed[0])
        outline = np.maximum(-ridge - scene.y, scene.y - CAMERA / z) * scene.pixels
        part = scene.part(-scene.width, scene.width, -2 * high - 0.02, CAMERA / z)
        colour = scene.light.on(colour * woods[part[0]][..., None], 0.6)
        scene.cover(part, outline[part[0]], colour, z)


def draw_ground(scene: Scene, rng: Generator) -> None:
    light, dark = (rgb(code) for code in choose(rng, GROUNDS))
    seed = rng.uniform(0, 1, 4)
    part = scene.part(-scene.width, scene.width, CAMERA / 45, 1)
    z = CAMERA / np.maximum(scene.y[part[0]], CAMERA / 60)
    across = scene.x * z
    patches = noise(across / 30 + seed[0], z / 30 + seed[1])
    blades = noise(across / 3 + seed[2], z / 6 + seed[3])
    colour = scene.light.on(mix(light, dark, 1.3 * patches - 0.15) * (0.75 + 0.5 * blades)[..., None], 0.8)
    outline = (CAMERA / 45 - scene.y[part[0]]) * scene.pixels
    scene.cover(part, outline + 0 * across, colour, z, geometry="horizontal")


def draw_pond(scene: Scene, rng: Generator, x: float, z: float) -> None:
    """Still water mirrors the sky and the hills, so that its colour is theirs."""
    seed, half, base = rng.uniform(0, 1, 2), rng.uniform(2.0, 3.6) / z, CAMERA / z
    flat = min(0.32 * half, 0.7 * base)
    part = scene.part(x - 1.3 * half, x + 1.3 * half, base - 1.3 * flat, base + 1.3 * flat)
    across, y = scene.x[:, part[1]], scene.y[part[0]]
    if not across.size or not y.size:
        return
    ragged = noise(across * 0.16 + seed[0], y * 0.6 + seed[1])
    outline = (np.hypot((across - x) / half, (y - base) / flat) - 1.35 + 0.7 * ragged) * flat * scene.pixels
    mirrored = np.clip(np.searchsorted(scene.y[:, 0], -1.3 * y[:, 0]), 0, len(scene.y) - 1)
    ripples = noise(across * 0.2 + seed[1], y * 3 + seed[0])
    colour = scene.image[mirrored, part[1]] * (0.78 + 0.3 * ripples)[..., None]
    scene.cover(part, outline, colour, CAMERA / y, label="pond", geometry="horizontal")


def draw_scene(rng: Generator, size: tuple[int, int]) -> Scene:
    mood = choose(rng, MOODS)
    horizon = rng.uniform(0.36, 0.58)
    light = Light(rng.uniform(-1, 1), rng.uniform(0.3, 1), rgb(mood.sun), rgb(mood.shade) * 0.75)
    scene = Scene(size, horizon, light, rgb(mood.horizon))
    draw_sky(scene, rng, mood)
    draw_hills(scene, rng)
    draw_ground(scene, rng)

    count = rng.integers(3, 7)
    names = rng.choice(CLASSES[1:], count, p=HOW_OFTEN)
    # From far to near, evenly spread on a logarithmic scale, and as evenly from left to right, in another order.
    distances = FARTHEST * (NEAREST / FARTHEST) ** ((np.arange(count) + rng.uniform(0, 0.7, count)) / count)
    places = (rng.permutation(count) + rng.uniform(0, 1, count)) / count * scene.width - scene.width / 2
    standing = []
    for name, x, z in zip(names, places, distances, strict=True):
        if name == "pond":
            draw_pond(scene, rng, x, z)
            continue
        thing, base, lift = STANDING[name](rng, light), CAMERA / z, rng.random()
        if name == "balloon":
            room = max(-scene.top - thing.height / z - 0.04, 0)
            base = -0.03 - lift * room
        standing.append((name, thing, x, base, z))
    for name, thing, x, base, z in standing:
        if name != "balloon":
            scene.shadow(thing, x, base, z)
    for name, thing, x, base, z in standing:
        scene.place(name, thing, x, base, z)
    return scene


class Shapes:
    """The embedded world as a data set: `Shapes("train", count=2000)[0]` is a `Sample`."""

    classes = CLASSES
    geometry_classes = GEOMETRY

    def __init__(self, split: str = "train", *, count: int, size: int | tuple[int, int] = 64, seed: int = 0):
        height, width = (size, size) if isinstance(size, int) else size
        if split not in SPLITS:
            raise UsageError(f"the embedded world has the splits {', '.join(SPLITS)}, not {split!r}")
        for name, value, low, high in (
            ("count", count, 1, 10**6),
            ("height", height, *SIZES),
            ("width", width, *SIZES),
            ("seed", seed, 0, 2**64),
        ):
            if not isinstance(value, int) or not low <= value <= high:
                raise UsageError(f"the embedded world's {name} is an integer from {low} to {high}, not {value!r}")
        self.split, self.count, self.size, self.seed = split, count, (height, width), seed
        self.ids = tuple(f"{split}-{i:06d}" for i in range(count))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Sample:
        seeds = np.random.SeedSequence(self.seed, spawn_key=(SPLITS.index(self.split), range(self.count)[i]))
        rng = np.random.default_rng(seeds)
        scene = draw_scene(rng, self.size)
        grain = rng.standard_normal(scene.image.shape, np.float32) * 0.012
        image = np.clip((scene.image + grain) * 255 + 0.5, 0, 255).astype(np.uint8)
        return Sample(self.ids[i], image, scene.label, scene.depth, scene.geometry)
