"""How the commands take paths."""

from __future__ import annotations

from typing import Any

from eddy_bench.storage.paths import reachable

PATH: Any = {"parser": reachable, "metavar": "PATH"}  # of a folder or file, here or remote
