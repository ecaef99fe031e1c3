"""`python -m minifcn` runs the `minifcn` command."""

import sys

from minifcn.cli.verbs import main

sys.exit(main())
