"""Files of arrays that anyone may have made: nothing in them is run, and none grows in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
from numpy.typing import NDArray

from eddy_bench.storage.paths import open_file


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of a file, by name; ours are not compressed, so they take its bytes at most.

    Raises:
        Exception: it is no such file, for one of numpy's many reasons.

    """
    with open_file(path) as file:
        size = file.seek(0, os.SEEK_END)
        if not is_zipfile(file):
            raise ValueError("it is no file of arrays")
        file.seek(0)
        with np.load(file, allow_pickle=False) as data:
            if sum(part.file_size for part in data.zip.infolist()) > size:
                raise ValueError("it unpacks to more than its own size")
            return {name: data[name] for name in data.files}
