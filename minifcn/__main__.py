"""`python -m minifcn` runs the `minifcn` command, and so does `python minifcn`, the folder."""

import signal
import sys
from pathlib import Path

if not __package__:  # run as a file: Python then looks for modules beside it, in the package
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as minifcn/__init__.py does

from minifcn.cli.verbs import main

sys.exit(main())
