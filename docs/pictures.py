"""Draw the pictures of the README and of the pages from a run on the embedded world.

    make train
    .venv/bin/python docs/pictures.py runs/toy
"""

import sys
from pathlib import Path

from minifcn import viz
from minifcn.data import collate
from minifcn.evaluation import predict
from minifcn.trained import open_trained

SCENES = 8


def main(run: str, folder: Path = Path(__file__).parent / "images") -> None:
    """`world.png`: the first scenes of the run's validation set, with truth and prediction."""
    trained = open_trained(run)
    _, scenes = trained.options.data_sets()
    rows = []
    for i in range(SCENES):
        x, _ = collate([scenes[i]], trained.preprocessing)
        rows.append((scenes[i].image, scenes[i].label, predict(trained.net, x)[0]))
    (folder / "world.png").write_bytes(viz.png(viz.gallery(rows, trained.classes, columns=2, side=192)))


if __name__ == "__main__":
    main(*sys.argv[1:])
