"""Plausible mistakes: `nNN.WRONG["<name>"]` lists answers that `exercises.nNN.check_<name>` has to see through."""
