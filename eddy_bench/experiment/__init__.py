"""An experiment: plan, draw, score."""
