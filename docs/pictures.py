"""Draw the pictures of the README and of the pages, those of scenes from a run on the embedded world.

make train
.venv/bin/python docs/pictures.py runs/world
.venv/bin/python docs/pictures.py     (only those that need no run)
"""

import base64
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from minifcn import SGD, FCN8s, ops, viz
from minifcn.data import Preprocessing, Shapes, collate
from minifcn.introspect.explain import contributions
from minifcn.introspect.frames import frames
from minifcn.introspect.markup import inline
from minifcn.nn import evaluating
from minifcn.tensor import Tensor, no_grad
from minifcn.training import setup
from minifcn.training.evaluation import predict
from minifcn.training.trained import open_trained

SCENES = 8
FUSED = 0  # the scene on the page about skips
FOLDER = Path(__file__).parent / "images"
PHOTOS = Path(__file__).parent.parent / "tutorials" / "photos"
UNIT = 10  # pixels of a square


def hha(folder: Path = FOLDER) -> None:
    """`hha.png`: three scenes of the world, each with its depth, the channels made of it, and these as colours."""
    rows = []
    for scene in Shapes("val", count=3, size=144, hha=True):
        image, depth, picture = (np.asarray(plane) for plane in (scene.image, scene.depth, scene.hha))
        near = np.log(100 / depth) / np.log(100 / depth.min())
        greys = [(255 * near).astype(np.uint8), *picture.transpose(2, 0, 1)]
        tiles = [image, *(np.stack([grey] * 3, axis=2) for grey in greys), picture]
        rows.append(np.hstack([np.pad(tile, ((3, 3), (3, 3), (0, 0)), constant_values=255) for tile in tiles]))
    (folder / "hha.png").write_bytes(viz.png(np.vstack(rows)))


def moving(folder: Path = FOLDER) -> None:
    """`convolution.gif`: a kernel moves over a photograph, and its output appears: red and blue edges."""
    with Image.open(PHOTOS / "chelsea.jpg") as photo:
        grey = np.asarray(photo.convert("L").resize((30, 22)), np.float32)
    w = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]], np.float32)
    y = ops.conv2d(grey[None, None], w[None, None], None).data[0, 0]
    part = np.clip(2 * np.abs(y) / np.abs(y).max(), 0, 1)[..., None]
    edges = 255 - part * (255 - np.where(y[..., None] < 0, [33, 102, 172], [178, 24, 43]))
    pictures = []
    for place in range(0, y.size, 4):
        i, j = divmod(place, y.shape[1])
        right = np.full((*grey.shape, 3), 235.0)
        done = np.arange(y.size).reshape(y.shape) <= place
        right[1:-1, 1:-1][done] = edges[done]
        left = large(np.repeat(grey[..., None], 3, axis=2), (i, j), 3)
        pictures.append(Image.fromarray(np.hstack([left, large(right, (i + 1, j + 1), 1)])))
    palette = Image.new("P", (1, 1))  # greys, for the photograph, and the two slopes of the edges
    greys = np.repeat(np.linspace(0, 255, 86)[:, None], 3, axis=1)
    slopes = [255 - np.linspace(0, 1, 84)[:, None] * (255 - np.array(end)) for end in ([33, 102, 172], [178, 24, 43])]
    colours = np.concatenate([greys, *slopes, [[11, 107, 203], [235, 235, 235]]])
    palette.putpalette(np.rint(colours).astype(np.uint8).tobytes())
    first, *others = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    first.save(folder / "convolution.gif", save_all=True, append_images=others, duration=70, loop=0)


def large(picture: np.ndarray, at: tuple[int, int], cells: int) -> np.ndarray:
    """A picture with each pixel as a square, and the outline of `cells` x `cells` of them."""
    drawn = picture.astype(np.uint8).repeat(UNIT, axis=0).repeat(UNIT, axis=1)
    drawn = np.pad(drawn, ((4, 4), (4, 4), (0, 0)), constant_values=255)
    (top, left), side = (4 + UNIT * place for place in at), UNIT * cells
    box = drawn[top : top + side, left : left + side]
    box[:2] = box[-2:] = box[:, :2] = box[:, -2:] = 11, 107, 203
    return drawn


def film(path: Path) -> None:
    """A page: one training step of a thin FCN-8s on a scene of the world, frame by frame."""
    world = Shapes("train", count=1, size=64)
    x, labels = collate([world[0]], Preprocessing.fit(world))
    net = FCN8s(classes=len(world.classes), width=2, layers=11, dropout=0, seed=0)
    named = {"image": x, "labels": labels}
    frames(lambda: ops.softmax_cross_entropy(net(x), labels), SGD(net, lr=0.03), named=named).save(path)


def fusion(run: str, path: Path = FOLDER.parent / "explorer" / "fusion-data.js") -> None:
    """The scores of one scene, map by map, for the page about skips: every second pixel, in hundredths."""
    trained = open_trained(run)
    _, scenes = setup.data_sets(trained.options)
    scene = scenes[FUSED]
    x, _ = collate([scene], trained.preprocessing)
    with no_grad(), evaluating(trained.net):
        features = trained.net.trunk(Tensor(x), keep=trained.net.skips)
        parts = contributions(trained.net, features, Tensor(x), trained.net.heads[0])
    few = {name: np.rint(100 * part.data[0, :, ::2, ::2]) for name, part in parts.items()}
    text = {name: base64.b64encode(np.clip(part, -32767, 32767).astype("<i2").tobytes()) for name, part in few.items()}
    record = {
        "side": scene.label[::2, ::2].shape[0],
        "classes": list(trained.classes),
        "colours": viz.palette()[: len(trained.classes)].tolist(),
        "names": list(parts),
        "truth": base64.b64encode(scene.label[::2, ::2].astype(np.uint8).tobytes()).decode(),
        "predicted": base64.b64encode(predict(trained.net, x)[0][::2, ::2].astype(np.uint8).tobytes()).decode(),
        "scene": inline(viz.png(scene.image)),
        "parts": [part.decode() for part in text.values()],
    }
    path.write_text(f"const FUSION = {json.dumps(record)};\n", encoding="utf-8")


def main(run: str = "", folder: Path = FOLDER) -> None:
    """`world.png`: the first scenes of the run's validation set, with truth and prediction. And those without a run."""
    hha(folder)
    moving(folder)
    if not run:
        return
    fusion(run)
    trained = open_trained(run)
    _, scenes = setup.data_sets(trained.options)
    rows = []
    for i in range(SCENES):
        x, _ = collate([scenes[i]], trained.preprocessing)
        rows.append((scenes[i].image, scenes[i].label, predict(trained.net, x)[0]))
    (folder / "world.png").write_bytes(viz.png(viz.gallery(rows, trained.classes, columns=2, side=192)))


if __name__ == "__main__":
    main(*sys.argv[1:])
