"""The experiment as a library: plan, draw what is missing, score; `experiment.run` tells it all."""
