"""The embedded world: landscapes drawn by NumPy together with their labels.

A segmentation net needs thousands of pictures with a label for every pixel, and a person needs about an hour and a half
for each. Here a picture is computed together with its labels. Nothing is downloaded, nothing is stored.

The world is made so that a pixel's colour says little about its class, as in photographs: what a thing *is* follows
from its shape and from what surrounds it, and to see these a net needs a large receptive field. Balls, crates, tents
and balloons wear the same paints, so that only the shape distinguishes a ball from a crate, and only the place, sky or
ground, a ball from a balloon. Ponds mirror the sky. To see where exactly a thing ends, a net needs a fine stride:
trunks, masts and chimneys are a few pixels wide.

The drawing itself is the painter's algorithm: sky, hills, ground, ponds, shadows, then the standing things from far to
near, each over what is behind it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from minifcn.data.hha import DOWN, Camera, hha
from minifcn.data.sample import VOID, Sample
from minifcn.data.things import STANDING, Array, Light, Thing, choose, mix, noise, rgb, step
from minifcn.errors import UsageError, whole

Part = tuple[slice, slice]

CLASSES = ("background", "ball", "crate", "tent", "balloon", "tree", "house", "pond")
GEOMETRY = ("horizontal", "vertical", "sky")
SPLITS = ("train", "val", "test")
SIZES = (64, 500)

CAMERA = 2.2
"""Metres from the ground to the eye: the ground at row `y` below the horizon is `CAMERA / y` metres away."""
FAR = 100.0
"""Metres; the depth written where there is nothing but sky."""
HOW_OFTEN = (0.18, 0.18, 0.15, 0.16, 0.13, 0.09, 0.11)
"""How often each class but the background is drawn: small things more often, since a class is judged by its area."""
NEAREST, FARTHEST = 4.5, 14.0
"""Metres to the nearest and the farthest thing: the same ball is 3 times as wide here as there."""


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
HILLS = ("4d8a35", "2f6a3c", "cf7d2e", "b8472f", "3f7a70", "6d7f8f", "7b6d62")


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

    def hha(self) -> Array:
        """Return depth as a picture (H, W, 3): disparity, height, angle. The eye is level; the sky is not measured."""
        width = self.depth.shape[1]
        camera = Camera(self.pixels, self.pixels, width / 2 - 0.5, -self.top * self.pixels - 0.5)
        return hha(self.depth, camera, measured=self.depth < FAR, gravity=DOWN)

    def part(self, left: float, right: float, top: float, bottom: float) -> Part:
        """Return the rows and columns that cover a rectangle given in picture coordinates, and two pixels more."""
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
            # Whether an edge pixel is inside is unknown, so it is void: VOC's borders are 5 pixels of 500.
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
        x, base = x + np.sign(self.light.left) * long / z, base - 0.6 * flat
        part = self.part(x - half, x + half, base - flat, base + flat)
        across, down = (self.x[:, part[1]] - x) / half, (self.y[part[0]] - base) / flat
        dark = np.clip(1.4 - 1.4 * (across**2 + down**2), 0, 1) * (self.geometry[part] == GEOMETRY.index("horizontal"))
        self.image[part] *= 1 - 0.7 * dark[..., None] * (1 - 0.6 * self.light.shade)


def draw_sky(scene: Scene, rng: Generator, mood: Mood) -> None:
    """The sky, paler towards the horizon, and its clouds."""
    seed, cover, calm = rng.uniform(0, 1, 2), rng.uniform(0.45, 0.75), rng.uniform(0.5, 1.2)
    up = np.clip(scene.y / scene.top, 0, 1) ** 0.8
    sky = mix(rgb(mood.horizon), rgb(mood.zenith), up)
    # Clouds lie in a flat layer, so they crowd together toward the horizon.
    far = 0.12 / (up + 0.15)
    clouds = np.clip((noise(scene.x * far * calm + seed[0], far * 2 * calm + seed[1]) - cover) * 5, 0, 1) * 0.8
    scene.image[:] = mix(sky, rgb(mood.sun), clouds)


def draw_hills(scene: Scene, rng: Generator) -> None:
    """Two ridges of wooded hills, the farther first."""
    for z in (75.0, 45.0):
        seed, high, wide = rng.uniform(0, 1, 2), rng.uniform(0.02, 0.2), rng.uniform(0.1, 0.3)
        colour = rgb(choose(rng, HILLS)) * 0.75
        ridge = high * noise(scene.x * wide + seed[0], seed[1]) * 2 - 0.02
        woods = 0.6 + 0.7 * noise(scene.x * 0.8 + seed[1], scene.y * 1.6 + seed[0])
        outline = np.maximum(-ridge - scene.y, scene.y - CAMERA / z) * scene.pixels
        part = scene.part(-np.inf, np.inf, -2 * high - 0.02, CAMERA / z)
        colour = scene.light.on(colour * woods[part[0]][..., None], 0.6)
        scene.cover(part, outline[part[0]], colour, z)


def draw_ground(scene: Scene, rng: Generator) -> None:
    """Ground in patches of light and dark, from 45 metres away to the viewer."""
    light, dark = (rgb(code) for code in choose(rng, GROUNDS))
    seed = rng.uniform(0, 1, 4)
    part = scene.part(-np.inf, np.inf, CAMERA / 45, np.inf)
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
    flat = min(0.32 * half, 0.45 * base)
    part = scene.part(x - 1.35 * half, x + 1.35 * half, base - 1.35 * flat, base + 1.35 * flat)
    across, y = scene.x[:, part[1]], scene.y[part[0]]
    if not across.size or not y.size:
        return
    ragged = noise(across * 0.16 + seed[0], y * 0.6 + seed[1])
    outline = (np.hypot((across - x) / half, (y - base) / flat) - 1.35 + 0.7 * ragged) * flat * scene.pixels
    mirrored = np.clip(np.searchsorted(scene.y[:, 0], -1.3 * y[:, 0]), 0, len(scene.y) - 1)
    ripples = noise(across * 0.2 + seed[1], y * 3 + seed[0])
    colour = scene.image[mirrored, part[1]] * (0.78 + 0.3 * ripples)[..., None]
    scene.cover(part, outline, colour, CAMERA / np.maximum(y, CAMERA / 60), label="pond", geometry="horizontal")


def draw_land(rng: Generator, size: tuple[int, int]) -> Scene:
    """Return a landscape of (H, W) pixels with nothing in it, from far to near."""
    mood = choose(rng, MOODS)
    horizon = rng.uniform(0.36, 0.58)
    light = Light(rng.uniform(-1, 1), rng.uniform(0.3, 1), rgb(mood.sun), rgb(mood.shade) * 0.75)
    scene = Scene(size, horizon, light, rgb(mood.horizon))
    draw_sky(scene, rng, mood)
    draw_hills(scene, rng)
    draw_ground(scene, rng)
    return scene


def draw_scene(rng: Generator, size: tuple[int, int]) -> Scene:
    """Return one scene of (H, W) pixels."""
    scene = draw_land(rng, size)
    draw_things(scene, rng)
    return scene


def draw_things(scene: Scene, rng: Generator) -> None:
    """Three to six things, each at its own distance and its own part of the picture's width."""
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
        thing, lift = STANDING[name](rng, scene.light), rng.random()
        standing.append((name, thing, x, foot(scene, name, thing, z, lift), z))
    draw_standing(scene, standing)


def foot(scene: Scene, name: str, thing: Thing, z: float, lift: float) -> float:
    """Return where in the picture a thing of class `name` ends: on the ground, or in the sky by `lift`, 0 to 1."""
    if name == "balloon":
        return -0.05 - lift * max(-scene.top - thing.height / z - 0.06, 0)
    return CAMERA / z


def draw_standing(scene: Scene, standing: Sequence[tuple[str, Thing, float, float, float]]) -> None:
    """Things as (class, thing, x, foot, z), from far to near: first all shadows, for they lie on the ground."""
    for name, thing, x, base, z in standing:
        if name != "balloon":
            scene.shadow(thing, x, base, z)
    for name, thing, x, base, z in standing:
        scene.place(name, thing, x, base, z)


def finished(scene: Scene, rng: Generator, id: str) -> Sample:
    """Return the scene as a picture of bytes, with the grain of a film, and all that is known of its pixels."""
    grain = rng.standard_normal(scene.image.shape, np.float32) * 0.012
    image = np.clip((scene.image + grain) * 255 + 0.5, 0, 255).astype(np.uint8)
    return Sample(id, image, scene.label, scene.depth, scene.geometry)


def whole_number(name: str, value: object, low: int, high: int) -> int:
    """Return `value`; raise `UsageError` unless it is a whole number from `low` to `high`."""
    if not whole(value, least=low, most=high):
        raise UsageError(f"the embedded world's {name} is an integer from {low} to {high}, not {value!r}")
    return int(value)


class Shapes:
    """The embedded world as a data set: `Shapes("train", count=2000)[7]` is a `Sample` with depth and geometry.

        background   sky, clouds, hills and the ground, whatever they are made of
        ball         a painted sphere on the ground
        crate        a painted box on the ground: the paints of a ball, another shape
        tent         a painted triangle with a dark door and a thin mast
        balloon      the very sphere that is a ball on the ground, in the air
        tree         a leafy crown, round or pointed, on a thin trunk
        house        walls, windows, a roof and a thin chimney
        pond         a mirror of the sky and the hills, where the ground should be
        (255)        the border around each of these, 1 % of the picture's shorter side and at least 1.5 pixels

    `geometry_classes` name the second labels: horizontal (ground and ponds), vertical (all that stands or hangs, the
    hills too) and sky. `depth` is in metres: things are flat cards that face the eye, the ground recedes, and where
    there is only sky it is 100. With `hha=True` samples have it as a picture as well (`data/hha.py`).

    Picture i is a function of (`seed`, `split`, i) alone: a larger `count` adds pictures and changes none, no two
    splits share one, and another `size` (an integer, or height and width; 64 to 500) shows the same scene at another
    resolution. Raises UsageError for a split, count, size or seed out of range.
    """

    classes = CLASSES
    geometry_classes = GEOMETRY

    def __init__(
        self, split: str = "train", *, count: int, size: int | tuple[int, int] = 64, seed: int = 0, hha: bool = False
    ):
        if split not in SPLITS:
            raise UsageError(f"the embedded world has the splits {', '.join(SPLITS)}, not {split!r}")
        self.split = split
        self.count = whole_number("count", count, 1, 10**6)
        self.seed = whole_number("seed", seed, 0, 2**64 - 1)
        self.hha = hha
        sides = size if isinstance(size, (tuple, list)) else (size, size)
        if len(sides) != 2:
            raise UsageError(f"the embedded world's size is one number or (height, width), not {size!r}")
        self.size = (whole_number("height", sides[0], *SIZES), whole_number("width", sides[1], *SIZES))
        self.ids = tuple(f"{split}-{i:06d}" for i in range(count))

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(self.count))

    def __getitem__(self, i: int) -> Sample:
        seeds = np.random.SeedSequence(self.seed, spawn_key=(SPLITS.index(self.split), range(self.count)[i]))
        rng = np.random.default_rng(seeds)
        scene = draw_scene(rng, self.size)
        sample = finished(scene, rng, self.ids[i])
        return replace(sample, hha=scene.hha()) if self.hha else sample
