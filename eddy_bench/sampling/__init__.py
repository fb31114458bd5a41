"""How a method acts on a solver: the insertion point, coordinates, schedulers, random numbers."""
