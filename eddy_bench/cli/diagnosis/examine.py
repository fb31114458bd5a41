"""Every check, in order; what one breaks does not keep the next from being made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from eddy_bench.cli.diagnosis.finding import Finding, guarded
from eddy_bench.errors import ParameterError

REINSTALL = "pip install --force-reinstall eddy-bench"


def examine(weights: Path | None) -> Iterator[Finding]:
    """Yield findings section by section, as they are made.

    Args:
        weights: a folder to look for weights in first.

    Raises:
        ParameterError: it is no folder.
    """
    if weights is not None and not weights.is_dir():
        raise ParameterError(f"Expected a folder at --weights {weights}, found none.")
    yield from guarded("versions", "versions", _versions, REINSTALL)
    yield from guarded("devices", "devices", _devices, REINSTALL)
    yield from guarded("hub", "hub", _hub, REINSTALL)
    yield from guarded("weights", "weights", lambda: _weights(weights), REINSTALL)
    yield from guarded("drawing", "drawing", _drawing, REINSTALL)


# Imported one by one inside the guard: a library that is broken must not end the command.
def _versions() -> Iterable[Finding]:
    from eddy_bench.cli.diagnosis.versions import examine_versions

    return examine_versions()


def _devices() -> Iterable[Finding]:
    from eddy_bench.cli.diagnosis.devices import examine_devices

    return examine_devices()


def _hub() -> Iterable[Finding]:
    from eddy_bench.cli.diagnosis.hub import examine_hub

    return examine_hub()


def _weights(folder: Path | None) -> Iterable[Finding]:
    from eddy_bench.cli.diagnosis.weights import examine_weights

    return examine_weights(folder)


def _drawing() -> Iterable[Finding]:
    from eddy_bench.cli.diagnosis.drawing import examine_drawing

    return examine_drawing()
