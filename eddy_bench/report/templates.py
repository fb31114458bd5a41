"""The templates of the pages; what is put into them is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def template(name: str) -> Any:
    """Return a template of this folder by its file's name."""
    from jinja2 import Environment, StrictUndefined

    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(
        text
    )
