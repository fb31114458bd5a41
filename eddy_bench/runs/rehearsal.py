"""Go through the beginning of a call: what is settled there is refused before anything is drawn."""

from __future__ import annotations

from typing import Any

from eddy_bench.methods.base import Method
from eddy_bench.runs.setup import Setup
from eddy_bench.sampling.families import denoiser


class _Begun(Exception):
    """End a call at the first evaluation of its network."""


def check_beginning(setup: Setup, method: Method) -> None:
    """Call the pipeline up to its first network evaluation, by when it has set its noise levels.

    Raises:
        EddyError: the method does not fit the levels of this model, solver and number of steps.

    """

    def stop(*inputs: Any) -> None:
        raise _Begun

    handle = denoiser(setup.model.pipe).register_forward_pre_hook(stop)
    prompt = setup.prompts.prompts[0].text
    try:
        setup.draw([prompt], [0], setup.suite.particles, method)
    except _Begun:
        pass
    finally:
        handle.remove()
