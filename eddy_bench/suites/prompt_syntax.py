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
WORKFLOW_TEXTS = ("text", "text_g", "t5xxl", "clip_l", "prompt", "string", "value")
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
    the prompt above it, with the lines that follow up to those of settings, which are left out; and
    lines of options (`--prompt "a fox"`) are read.
    """
    stripped = [
        (number, line.strip().removeprefix("\ufeff")) for number, line in enumerate(lines, 1)
    ]
    filled = [(number, line) for number, line in stripped if line]
    commented = bool(filled) and filled[0][1].startswith("# ")
    records: list[tuple[int, Record]] = []
    comments = settings = done = 0
    options: dict[str, None] = {}
    for number, line in filled:
        if commented and (line.startswith("# ") or line == "#"):
            comments += 1
        elif line.lower().startswith(NEGATIVE) and records:
            records[-1][1]["negative"] = line[len(NEGATIVE) :].strip()
        elif _SETTINGS.fullmatch(line) and records:
            settings += 1
            _join_negative(records, done)
            done = len(records)
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


def _join_negative(records: list[tuple[int, Record]], first: int) -> None:
    """Join lines that follow `Negative prompt:` to it: a line of settings ends them all."""
    for place in range(first, len(records)):
        if records[place][1].get("negative"):
            parts = [
                records[place][1]["negative"],
                *(own["text"] for _, own in records[place + 1 :]),
            ]
            records[place][1]["negative"] = " ".join(parts)
            del records[place + 1 :]
            return


def holds_settings(text: str) -> bool:
    """Return whether a text is as A1111 writes it, not one prompt alone."""
    lines = [line.strip() for line in text.split("\n")]
    return text.lstrip().startswith("--") or any(
        line.lower().startswith(NEGATIVE) or _SETTINGS.fullmatch(line) for line in lines
    )


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


def _nodes(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nodes of a ComfyUI workflow in its API's form; none for other mappings."""
    held = data.get("prompt")
    own = held if isinstance(held, dict) and _nodes(held) else data
    nodes = {str(key): node for key, node in own.items() if isinstance(node, dict)}
    whole = len(nodes) == len(own) and all("class_type" in node for node in nodes.values())
    return nodes if whole else {}


def workflow_problem(data: Mapping[str, Any]) -> str:
    """Say why a ComfyUI workflow gives no prompts; empty for other mappings."""
    if _nodes(data):
        return (
            "expected a ComfyUI workflow in which texts reach the samplers, found none that do. "
            "Give the prompts in a text file, a line each."
        )
    if isinstance(data.get("nodes"), list) and isinstance(data.get("links"), list):
        return (
            "expected a ComfyUI workflow in its API's form, got that of its page. Save it with "
            "Export (API)."
        )
    return ""


def workflow_records(data: Mapping[str, Any]) -> list[Record]:
    """Return the prompts of a ComfyUI workflow in its API's form; none for other mappings.

    They are the texts that reach the `positive` and `negative` inputs of its samplers, or the
    `conditioning` of its guiders.
    """
    nodes = _nodes(data)
    found: dict[tuple[str, str], Record] = {}
    for node in nodes.values():
        inputs = node.get("inputs")
        guides = "guider" in str(node["class_type"]).lower()
        if isinstance(inputs, dict):
            link = inputs.get("positive", inputs.get("conditioning") if guides else None)
            text, negative = _text_at(nodes, link), _text_at(nodes, inputs.get("negative"))
            record = {"prompt": text, "negative_prompt": negative}
            if text:
                found.setdefault((text, negative), record)
    return list(found.values())


def _text_at(nodes: Mapping[str, Any], link: Any) -> str:
    """Follow a link, [node, output], to the text behind it; empty where there is none."""
    for _ in nodes:
        node = nodes.get(str(link[0])) if isinstance(link, list) and link else None
        inputs = node.get("inputs") if node else None
        if not isinstance(inputs, dict):
            return ""
        held = [inputs[key] for key in WORKFLOW_TEXTS if inputs.get(key)]
        text = next((own for own in held if isinstance(own, str)), None)
        if text is not None:
            return text
        links = [own for own in held if isinstance(own, list)]
        link = next(iter(links), inputs.get("conditioning") or inputs.get("conditioning_1"))
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
