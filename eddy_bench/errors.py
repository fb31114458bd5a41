"""Every error that the command line turns into one line and exit code 2.

EddyError
|-- UnknownName     an unknown method, model, metric, scheduler or prompt set
|-- ParameterError  a parameter that does not exist, has the wrong type or is out of range
|-- PromptError     a prompt file that cannot be used
|-- SuiteError      a suite file that cannot be used
|-- ModelError      a model that cannot be loaded or steered
|-- SchedulerError  a scheduler that cannot be used here
|-- MetricError     a metric that cannot be computed
|-- CompareError    results that cannot be compared
`-- StoreError      a run folder that cannot be used
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from eddy_bench.shown import shown

SHOWN = 200  # characters of an unknown name
ROOT_OPTIONS = ("-q", "--quiet", "-v", "--verbose")


class EddyError(Exception):
    """Say on one line what was expected, what came, and what to do."""

    def __str__(self) -> str:
        return " ".join(shown(super().__str__()).split())


class UnknownName(EddyError):
    """A name that no registry holds."""


class ParameterError(EddyError):
    """A parameter that does not exist, has the wrong type or is out of range."""


class PromptError(EddyError):
    """A prompt file that cannot be used."""


class SuiteError(EddyError):
    """A suite file that cannot be used."""


class ModelError(EddyError):
    """A model that cannot be loaded or steered."""


class SchedulerError(EddyError):
    """A scheduler that cannot be used here."""


class MetricError(EddyError):
    """A metric that cannot be computed."""


class CompareError(EddyError):
    """Results that cannot be compared."""


class StoreError(EddyError):
    """A run folder that cannot be used."""


def unknown(kind: str, name: str, available: Iterable[str]) -> str:
    """Return the message for a name that is not there, with the nearest ones.

    >>> unknown("method", "edy-hutch", ["iid", "eddy-hutch"])
    "Unknown method 'edy-hutch'. Did you mean 'eddy-hutch'? Available: eddy-hutch, iid."
    """
    names = sorted(available)
    near = difflib.get_close_matches(name, names, n=2)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"Unknown {kind} {name[:SHOWN]!r}.{hint} Available: {', '.join(names)}."


def counted(count: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "vote"), counted(0, "vote")
    ('1 vote', '0 votes')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def why(error: OSError) -> str:
    """Return what the system, or a remote file system, says of a file."""
    return error.strerror or brief(error, 200)


def line_of(error: Exception) -> str | None:
    """Return the line that a command ends with.

    It is empty after help was shown, and None where the error is a fault of ours.
    """
    if isinstance(error, EddyError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'A file'} cannot be used: {why(error)}."
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return (
            "Memory ran out. Free some, or take less of it: a smaller model, --dtype float16, "
            "fewer --particles or images, a smaller --size or file."
        )
    if isinstance(error, UnicodeDecodeError):
        return f"Expected UTF-8 text, got bytes that are not: {error}."
    if hasattr(error, "format_message"):  # a usage error of the command line's own
        text = str(error.format_message()).rstrip(".")
        if text.split()[-1:] and text.split()[-1] in ROOT_OPTIONS:
            return f"{text}. It stands before the command: eddy-bench {text.split()[-1]} run."
        return text and f"{text}. See eddy-bench --help."
    return (
        f"A remote folder cannot be used: {type(error).__name__}: {brief(error)}."
        if _is_of_file_system(error)
        else None
    )


def _is_of_file_system(error: BaseException) -> bool:
    """Return whether an error came from a remote file system, each of which has its own classes."""
    trace = error.__traceback__
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0] in (
            "fsspec",
            "upath",
        ):
            return True
        trace = trace.tb_next
    return False


def reason_of(error: BaseException) -> str:
    """Return on one line why something failed: our own message, or a library's with its class."""
    return str(error) if isinstance(error, EddyError) else f"{type(error).__name__}: {brief(error)}"


def brief(error: BaseException, limit: int = 300) -> str:
    """Return the first words of a library's error on one line, without tokens of the hub."""
    text = re.sub(r"hf_\w{6,}", "hf_...", " ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."
