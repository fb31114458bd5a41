"""Say which weights a model has: a digest of its files, or the commit of a hub id."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path


def model_fingerprint(name: str, folder: Path, revision: str | None) -> str:
    """Return the digest of a folder, or `name@commit` of a hub id, whose folder does not exist."""
    return folder_digest(folder) if folder.exists() else f"{name}@{_commit(name, revision)}"


def _commit(name: str, revision: str | None) -> str:
    """Return the commit of a hub id's snapshot in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(name, "model_index.json", revision=revision)
    match = re.search(r"snapshots/([0-9a-f]{40})", str(path))
    return match[1] if match else "unknown"


def folder_digest(folder: Path) -> str:
    """Return a sha256 over names, sizes and contents.

    Of a file beyond 256 MiB, 256 blocks of 1 MiB are taken, spread evenly.
    """
    digest = hashlib.sha256()
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\x1f{size}\x1f".encode())
        blocks = -(-size // 2**20)
        with path.open("rb") as file:
            for block in (
                range(blocks) if blocks <= 256 else (k * (blocks - 1) // 255 for k in range(256))
            ):
                file.seek(block * 2**20)
                digest.update(file.read(2**20))
    return digest.hexdigest()[:16]
