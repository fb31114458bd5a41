"""What a method asks of the number of particles and steps, checked before anything is drawn."""

from __future__ import annotations

from eddy_bench.errors import ParameterError
from eddy_bench.methods.base import Method
from eddy_bench.storage.files import MAX_CANDIDATES, refuse_more


def check_demands(method: Method, name: str, particles: int, steps: int | None) -> None:
    """Raise ParameterError for a method that cannot draw so many particles in so few steps.

    Args:
        method: to check.
        name: as errors call it.
        particles: N.
        steps: of the solver; None where they are not known.

    """
    if particles < method.min_particles:
        raise ParameterError(
            f"Method {name!r} needs at least {method.min_particles} particles, "
            f"got {particles}. Set --particles."
        )
    drawn = method.drawn(particles)  # raises where the method cannot draw as many
    refuse_more([drawn], MAX_CANDIDATES, f"candidates of {name!r}", "Lower m.", ParameterError)
    if steps is not None and (method.previewed or 0) > steps:
        raise ParameterError(
            f"Expected preview of {name!r} to be at most the {steps} steps, "
            f"got {method.previewed}. Lower it, or raise --steps."
        )
