"""Draw the pictures of the README and of the pages from a run on the embedded world.

make train
.venv/bin/python docs/pictures.py runs/toy
"""

import sys
from pathlib import Path

import numpy as np

from minifcn import viz
from minifcn.data import Shapes, collate
from minifcn.training import setup
from minifcn.training.evaluation import predict
from minifcn.training.trained import open_trained

SCENES = 8
FOLDER = Path(__file__).parent / "images"


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


def main(run: str, folder: Path = FOLDER) -> None:
    """`world.png`: the first scenes of the run's validation set, with truth and prediction. And `hha.png`."""
    hha(folder)
    trained = open_trained(run)
    _, scenes = setup.data_sets(trained.options)
    rows = []
    for i in range(SCENES):
        x, _ = collate([scenes[i]], trained.preprocessing)
        rows.append((scenes[i].image, scenes[i].label, predict(trained.net, x)[0]))
    (folder / "world.png").write_bytes(viz.png(viz.gallery(rows, trained.classes, columns=2, side=192)))


if __name__ == "__main__":
    main(*sys.argv[1:])
