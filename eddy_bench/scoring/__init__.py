"""Scores of finished groups, and their summary."""
