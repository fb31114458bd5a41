"""Suites, prompt sets and method specifications: the description of a run."""
