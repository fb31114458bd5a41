"""Prompt sets: YAML (id, prompt, attributes), text with a prompt a line, and data sets."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from eddy_bench.errors import PromptError, UnknownName, unknown
from eddy_bench.storage.files import MAX_PROMPTS, parse_yaml_lines, read_text, refuse_more
from eddy_bench.storage.paths import is_reserved
from eddy_bench.suites.prompt_sources import (
    ENDINGS,
    is_hub_source,
    split_column,
    texts_of_file,
    texts_of_hub,
)

MAX_LENGTH = 20_000
MAX_BYTES = 64 * 2**20
LONG = 16  # digits of a hash among names that meet
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
FOLDER = Path(__file__).parents[1] / "data" / "prompts"


@dataclass(frozen=True)
class Prompt:
    """A prompt and the folder name that it goes under."""

    id: str
    text: str
    attributes: dict[str, Any] = field(default_factory=dict, hash=False, compare=False)


@dataclass(frozen=True)
class PromptSet:
    """Prompts in order; `digest` is a sha256 of ids and texts."""

    name: str
    prompts: tuple[Prompt, ...]

    @property
    def digest(self) -> str:
        """A sha256 over ids and texts, in order."""
        text = "\x1e".join(f"{prompt.id}\x1f{prompt.text}" for prompt in self.prompts)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def prompt_set_names() -> list[str]:
    """Return the names of the sets that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_prompts(source: str) -> PromptSet:
    """Load a prompt set by name, from a file, or from a hub data set.

    A file is .yaml, .yml or .txt, or a data set's .json, .jsonl, .csv or .tsv. `FILE.csv:COLUMN`
    and `owner/name:split:column` name the column of a table. Empty and repeated texts of a data set
    are left out.

    Raises:
        UnknownName: neither a set nor a file.
        PromptError: an empty or malformed file, with its line.
    """
    if source in prompt_set_names():
        return PromptSet(source, _from_yaml(FOLDER / f"{source}.yaml"))
    path, column = split_column(source)
    if is_hub_source(source):
        return PromptSet(source, _from_data(Path(source), texts_of_hub(source)))
    if not path.is_file():
        if path.suffix or "/" in source:
            there = "a folder" if path.is_dir() else "nothing"
            raise PromptError(f"Expected a prompt file at {source}, found {there}.")
        raise UnknownName(unknown("prompt set", source, prompt_set_names()))
    if path.suffix.lower() in ENDINGS:
        return PromptSet(path.stem, _from_data(path, texts_of_file(path, column)))
    prompts = _from_yaml(path) if path.suffix in (".yaml", ".yml") else _from_text(path)
    return PromptSet(path.stem, prompts)


def prompts_of_texts(texts: Sequence[str]) -> PromptSet:
    """Return texts as a prompt set.

    Raises:
        PromptError: there are none, or one is empty or no text.
    """
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise PromptError(f"Expected texts as prompts, got {text!r} as number {number}.")
    entries = [(number, text) for number, text in enumerate(texts, 1)]
    source = Path("the list of prompts")
    if any(not text.strip() for _, text in entries):
        raise PromptError("Expected prompts that say something, got an empty one.")
    return PromptSet("given", _from_data(source, entries))


def text_id(text: str, length: int = 6) -> str:
    """Return a folder name for a prompt: its first words and a short hash.

    >>> text_id("a dark dress")
    'a-dark-dress-ddc9d3'
    """
    words = re.sub(r"[^a-z0-9]+", "-", text.lower())[:40].strip("-")
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]
    return f"{words}-{digest}" if words else f"prompt-{digest}"


def text_ids(texts: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Return a folder name for each of different texts, whatever file they are from.

    Names that meet, among many texts or with one in `taken`, have a longer hash, all of them: a
    name does not depend on the order.
    """
    short = {text: text_id(text) for text in texts}
    uses = Counter([*short.values(), *(name.lower() for name in taken)])
    return {text: name if uses[name] == 1 else text_id(text, LONG) for text, name in short.items()}


def _named(entries: Iterable[tuple[int, Prompt]]) -> list[tuple[int, Prompt]]:
    """Return prompts with their lines, those without an id with one that is made of their text."""
    entries = list(entries)
    given = [prompt.id for _, prompt in entries if prompt.id]
    names = text_ids((prompt.text for _, prompt in entries if not prompt.id), given)
    return [
        (line, prompt if prompt.id else replace(prompt, id=names[prompt.text]))
        for line, prompt in entries
    ]


def _from_text(path: Path) -> tuple[Prompt, ...]:
    text = read_text(path, PromptError, "a prompt file", MAX_BYTES)
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    _refuse_many(path, len(lines))
    return _checked(
        path,
        [(number, Prompt("", line)) for number, line in lines if line and not line.startswith("#")],
    )


def _from_data(path: Path, entries: list[tuple[int, str]]) -> tuple[Prompt, ...]:
    _refuse_many(path, len(entries))
    first: dict[str, int] = {}
    for line, text in entries:
        if text := _paired(" ".join(text.split())):
            first.setdefault(text, line)
    return _checked(path, [(line, Prompt("", text)) for text, line in first.items()])


def _from_yaml(path: Path) -> tuple[Prompt, ...]:
    text = read_text(path, PromptError, "a prompt file", MAX_BYTES)
    data, node = parse_yaml_lines(path, text, PromptError)
    if isinstance(data, dict) and set(data) == {"prompts"} and isinstance(node, yaml.MappingNode):
        node, data = node.value[0][1], data["prompts"]
    if data is None:
        data = []
    if not isinstance(data, list):
        raise PromptError(f"{path}: expected a list of prompts, got {type(data).__name__}.")
    _refuse_many(path, len(data))
    lines = (
        [entry.start_mark.line + 1 for entry in node.value]
        if isinstance(node, yaml.SequenceNode)
        else []
    )
    return _checked(
        path,
        [(line, _prompt(path, line, entry)) for line, entry in zip(lines, data, strict=False)],
    )


def _refuse_many(path: Path, count: int) -> None:
    """Raise PromptError for more prompts than any run may have."""
    cure = "Split the file."
    refuse_more([count], MAX_PROMPTS, f"prompts in {path}", cure, PromptError)


def _paired(text: str) -> str:
    """Make surrogate pairs whole, as JSON escapes write them.

    A lone surrogate becomes the replacement character.
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _prompt(path: Path, line: int, entry: Any) -> Prompt:
    if isinstance(entry, str):
        return Prompt("", _paired(entry))
    if not isinstance(entry, dict) or not isinstance(entry.get("prompt"), str):
        raise PromptError(
            f"{path}, line {line}: expected a text or a mapping with `prompt`, "
            f"got {str(entry)[:80]!r}."
        )
    extra = set(entry) - {"id", "prompt", "attributes"}
    if extra:
        raise PromptError(
            f"{path}, line {line}: unknown key {sorted(map(str, extra))[0]!r}. "
            "Known: id, prompt, attributes."
        )
    attributes = entry.get("attributes") or {}
    if not isinstance(attributes, dict):
        raise PromptError(
            f"{path}, line {line}: expected a mapping in `attributes`, got {attributes!r}."
        )
    identity = str(entry.get("id", ""))
    if "id" in entry and not _ID.fullmatch(identity):
        raise PromptError(
            f"{path}, line {line}: expected an id of letters, digits, '.', '_' and '-' "
            f"(at most 80), got {identity[:80]!r}."
        )
    if is_reserved(identity):
        raise PromptError(
            f"{path}, line {line}: the id {identity!r} cannot be a folder's name on every system. "
            "Take another one."
        )
    return Prompt(identity, _paired(entry["prompt"]), attributes)


def _checked(path: Path, entries: list[tuple[int, Prompt]]) -> tuple[Prompt, ...]:
    if not entries:
        raise PromptError(f"{path} holds no prompt. Expected at least one.")
    seen: dict[str, int] = {}
    entries = _named(entries)
    for line, prompt in entries:
        if not prompt.text.strip():
            raise PromptError(f"{path}, line {line}: the prompt is empty.")
        if len(prompt.text) > MAX_LENGTH:
            raise PromptError(
                f"{path}, line {line}: the prompt has {len(prompt.text)} characters; "
                f"at most {MAX_LENGTH} are taken."
            )
        if prompt.id.lower() in seen:
            raise PromptError(
                f"{path}, line {line}: {prompt.id!r} stands on line "
                f"{seen[prompt.id.lower()]} already."
            )
        seen[prompt.id.lower()] = line
    return tuple(prompt for _, prompt in entries)
