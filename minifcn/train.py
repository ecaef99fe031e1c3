"""`python -m minifcn.train` runs `minifcn train`."""

from minifcn.cli.command import run
from minifcn.cli.train import main

if __name__ == "__main__":
    run(main)
