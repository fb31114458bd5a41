"""Where a method meets a solver: the insertion point, coordinates, schedulers, random numbers."""
