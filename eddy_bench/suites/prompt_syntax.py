"""What other tools write beside a prompt: A1111's and ComfyUI's settings, weights, placeholders."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eddy_bench.errors import counted

Record = dict[str, Any]
NEGATIVE = "negative prompt:"
_SETTINGS = re.compile(r"steps: \d+, \S.*", re.IGNORECASE)
_SYNTAX = {
    "(word:1.3)": re.compile(r"\([^()]+:\s*\d*\.?\d+\)"),
    "<lora:...>": re.compile(r"<(?:lora|lyco|lycoris|hypernet|embedding):[^>]*>", re.IGNORECASE),
    "{...}": re.compile(r"\{[^{}]*\}"),
    "__name__": re.compile(r"__[\w/*-]+__"),
    "BREAK": re.compile(r"\bBREAK\b"),
}


def read_lines(lines: Sequence[str]) -> tuple[list[tuple[int, Record]], list[str]]:
    """Return the prompts of a text's lines with their numbers, and notes on other lines.

    A line is a prompt. Where the first line that is not blank begins with `# `, every such line is
    a comment; elsewhere `#` is part of a prompt. Of A1111's files, `Negative prompt:` belongs to
    the prompt above it, the line of settings is left out, and lines of options (`--prompt "a fox"`)
    are read.
    """
    stripped = [
        (number, line.strip().removeprefix("\ufeff")) for number, line in enumerate(lines, 1)
    ]
    filled = [(number, line) for number, line in stripped if line]
    commented = bool(filled) and filled[0][1].startswith("# ")
    records: list[tuple[int, Record]] = []
    comments = settings = 0
    options: dict[str, None] = {}
    for number, line in filled:
        if commented and (line.startswith("# ") or line == "#"):
            comments += 1
        elif line.lower().startswith(NEGATIVE) and records:
            records[-1][1]["negative"] = line[len(NEGATIVE) :].strip()
        elif _SETTINGS.fullmatch(line) and records:
            settings += 1
        elif (own := _options(line)) is not None:
            record, other = own
            records.append((number, record))
            options |= dict.fromkeys(other)
        else:
            records.append((number, {"text": line}))
    notes = [f"{counted(comments, 'comment line')} left out"] if comments else []
    if settings:
        notes.append(
            f"{counted(settings, 'line')} of settings (Steps: ...) left out: this run has its own"
        )
    if options:
        notes.append(f"options left out, as this run has its own: {', '.join(options)}")
    return records, notes


def _options(line: str) -> tuple[Record, list[str]] | None:
    """Return the prompt of a line of options, and the names of the others; None for other lines."""
    if not line.startswith("--") or "--prompt" not in line:
        return None
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--prompt")
    parser.add_argument("--negative_prompt", "--negative-prompt", dest="negative", default="")
    try:
        known, others = parser.parse_known_args(shlex.split(line))
    except (ValueError, argparse.ArgumentError):
        return None
    if known.prompt is None:
        return None
    record = {"text": known.prompt, "negative": known.negative}
    return record, [other for other in others if other.startswith("--")]


def workflow_records(data: Mapping[str, Any]) -> list[Record]:
    """Return the prompts of a ComfyUI workflow in its API's form; none for other mappings.

    They are the texts that reach the `positive` and `negative` inputs of its samplers.
    """
    nodes = {str(key): node for key, node in data.items() if isinstance(node, dict)}
    if len(nodes) < len(data) or not all("class_type" in node for node in nodes.values()):
        return []
    found: dict[str, Record] = {}
    for node in nodes.values():
        inputs = node.get("inputs")
        if isinstance(inputs, dict) and "positive" in inputs:
            text = _text_at(nodes, inputs["positive"])
            if text:
                negative = _text_at(nodes, inputs.get("negative"))
                found.setdefault(text, {"prompt": text, "negative_prompt": negative})
    return list(found.values())


def _text_at(nodes: Mapping[str, Any], link: Any) -> str:
    """Follow a link, [node, output], to the text behind it; empty where there is none."""
    for _ in nodes:
        node = nodes.get(str(link[0])) if isinstance(link, list) and link else None
        inputs = node.get("inputs") if node else None
        if not isinstance(inputs, dict):
            return ""
        text = inputs.get("text")
        if isinstance(text, str):
            return text
        link = text or inputs.get("conditioning") or inputs.get("conditioning_1")
    return ""


def syntax_note(texts: Iterable[str]) -> str:
    """Say how many prompts hold syntax of other tools, which is drawn as text; empty for none."""
    held: dict[str, None] = {}
    count = 0
    for text in texts:
        own = [name for name, pattern in _SYNTAX.items() if pattern.search(text)]
        held |= dict.fromkeys(own)
        count += bool(own)
    if not count:
        return ""
    verb = "holds" if count == 1 else "hold"
    return (
        f"{counted(count, 'prompt')} {verb} {', '.join(held)}: nothing here reads that syntax, "
        "so it is drawn as text"
    )
