"""The experiment as a library; `experiment.experiment` tells in one file what `run` does."""
