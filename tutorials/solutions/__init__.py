"""One solution of every exercise: `nNN.<name>` is an answer that `exercises.nNN.check_<name>` accepts."""
