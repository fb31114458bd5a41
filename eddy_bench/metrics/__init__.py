"""Metrics: pure functions, their records, and the networks they see through."""
