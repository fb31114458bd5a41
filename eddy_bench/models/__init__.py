"""Models: the embedded one, local folders, hub ids, and tasks with exact scores."""
