"""The templates of the pages; what is put into them is escaped, and every character shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eddy_bench.shown import shown


def rendered(name: str, fields: Mapping[str, Any]) -> str:
    """Return a page: a template of this folder, by its file's name, with its fields filled in."""
    from jinja2 import Environment, StrictUndefined

    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    pages = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return shown(pages.from_string(text).render(fields))
