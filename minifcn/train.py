"""`python -m minifcn.train` runs `minifcn train`, and so does `python minifcn/train.py`."""

import signal
import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run as a file: Python then looks for modules beside it, in the package
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as minifcn/__init__.py does

from minifcn.cli.command import run
from minifcn.cli.train import main

if __name__ == "__main__":
    run(main)
