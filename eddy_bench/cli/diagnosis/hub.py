"""Whether the hub of models answers."""

from __future__ import annotations

import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

from eddy_bench.cli.diagnosis.finding import Finding
from eddy_bench.errors import brief

SECTION = "hub"
SECONDS = 4.0  # that the hub has to answer, the look-up of its name included
WITHOUT = "use local copies: --model FOLDER, --weights DIR, prompts from files"


def examine_hub() -> Iterator[Finding]:
    """Yield whether the hub is asked at all and answers, and where its files are kept."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        offline = "HF_HUB_OFFLINE is set: nothing is downloaded, what is in the cache is used"
        yield Finding(SECTION, "hub", "note", offline, "unset HF_HUB_OFFLINE to download")
    else:
        yield _reached(constants.ENDPOINT)
    yield Finding(SECTION, "cache", "ok", str(constants.HF_HUB_CACHE))


def _reached(endpoint: str) -> Finding:
    try:
        within(SECONDS, lambda: answer_of(endpoint))
    except Exception as error:  # of the network, a proxy, or an address that is none
        detail = f"{endpoint} does not answer: {brief(error, 120)}"
        return Finding(SECTION, "hub", "note", detail, WITHOUT)
    return Finding(SECTION, "hub", "ok", f"{endpoint} answers")


def answer_of(endpoint: str) -> int:
    """Return the status that an address answers with.

    Raises:
        OSError: it cannot be reached, or answers with an error.
        ValueError: it is no address.
    """
    request = urllib.request.Request(endpoint, method="HEAD")
    with urllib.request.urlopen(request, timeout=SECONDS) as response:
        return int(response.status)


def within(seconds: float, call: Callable[[], object]) -> object:
    """Return what a call returns; the look-up of a name has no time limit of its own.

    Raises:
        TimeoutError: it took longer; it is left alone.
    """
    done: queue.Queue[object] = queue.Queue()

    def work() -> None:
        try:
            done.put(call())
        except Exception as error:
            done.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        result = done.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} seconds") from None
    if isinstance(result, Exception):
        raise result
    return result
