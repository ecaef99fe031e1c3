"""`python -m minifcn` is `minifcn`."""

import sys

from minifcn.cli import main

sys.exit(main())
