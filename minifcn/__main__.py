"""`python -m minifcn` is `minifcn`."""

import sys

from minifcn.cli.verbs import main

sys.exit(main())
