"""Drawing the groups of a plan."""
