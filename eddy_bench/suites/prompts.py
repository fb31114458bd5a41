"""Prompt sets: those that come with the package, and any file, folder or data set of prompts."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eddy_bench.errors import PromptError, UnknownName, counted, unknown
from eddy_bench.storage.paths import is_reserved
from eddy_bench.suites.prompt_files import (
    Records,
    is_hub_source,
    read_records,
    records_of_hub,
    split_pick,
)
from eddy_bench.suites.prompt_syntax import Record, syntax_note

MAX_LENGTH = 20_000
LONGEST_TAG = 200  # characters
LONG = 16  # digits of a hash among names that meet
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_TAG = re.compile(r"[A-Za-z][\w -]{0,39}")
FOLDER = Path(__file__).parents[1] / "data" / "prompts"


@dataclass(frozen=True)
class Prompt:
    """A prompt and the folder name that it goes under.

    attributes: what it leaves open, by name, such as `colour: [red, blue]`.
    negative: its own negative prompt; empty for the suite's.
    tags: what else its file says of it, such as its category, by name.
    """

    id: str
    text: str
    attributes: dict[str, Any] = field(default_factory=dict, hash=False, compare=False)
    negative: str = ""
    tags: dict[str, str] = field(default_factory=dict, hash=False, compare=False)


@dataclass(frozen=True)
class PromptSet:
    """Prompts in order.

    notes: what was chosen, left out or repeated where they were read.
    left_out: how many entries are, as repeated or empty.
    """

    name: str
    prompts: tuple[Prompt, ...]
    notes: tuple[str, ...] = ()
    left_out: int = 0

    @property
    def digest(self) -> str:
        """A sha256 over ids, texts and negative prompts, in order."""
        parts = ([own.id, own.text, *filter(None, [own.negative])] for own in self.prompts)
        text = "\x1e".join(map("\x1f".join, parts))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def cut(self, limit: int | None) -> PromptSet:
        """Return the first prompts; all of them without a limit."""
        return replace(self, prompts=self.prompts[:limit])


def prompt_set_names() -> list[str]:
    """Return the names of the sets that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_prompts(source: str) -> PromptSet:
    """Load a prompt set by name, from a file or a folder of texts, or from a hub data set.

    `FILE:PICK` names the column of a table, or the keys above the prompts in JSON and YAML;
    `owner/name:split:column` those of a data set. Empty and repeated texts are left out; the set's
    notes count them.

    Raises:
        UnknownName: neither a set nor a file.
        PromptError: an empty or malformed file, with its line.
    """
    if source in prompt_set_names():
        return _checked(source, read_records(FOLDER / f"{source}.yaml", ""))
    path, pick = split_pick(source)
    if is_hub_source(source):
        return _checked(source, records_of_hub(source))
    if not path.exists():
        if path.suffix or "/" in source:
            raise PromptError(f"Expected a prompt file at {source}, found nothing.")
        raise UnknownName(unknown("prompt set", source, prompt_set_names()))
    return _checked(path.stem, read_records(path, pick))


def prompts_of_texts(texts: Sequence[str]) -> PromptSet:
    """Return texts as a prompt set.

    Raises:
        PromptError: there are none, or one is empty or no text.
    """
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise PromptError(f"Expected texts as prompts, got {text!r} as number {number}.")
    if any(not text.strip() for text in texts):
        raise PromptError("Expected prompts that say something, got an empty one.")
    rows: list[tuple[int, Record]] = [(k, {"text": text}) for k, text in enumerate(texts, 1)]
    return _checked("given", Records("the list of prompts", rows))


def prompts_of_records(name: str, source: str, rows: list[tuple[int, Record]]) -> PromptSet:
    """Return records as a prompt set, as files of prompts are read.

    Raises:
        PromptError: none holds a prompt.
    """
    return _checked(name, Records(source, rows))


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


def _checked(name: str, records: Records) -> PromptSet:
    """Return records as prompts: filled, each once, with ids that can be the names of folders."""
    first: dict[tuple[str, str], tuple[int, Record]] = {}
    empty = repeats = 0
    for number, record in records.rows:
        text = _paired(record["text"]).strip()
        negative = _paired(_text(record.get("negative"))).strip()
        if len(text) > MAX_LENGTH:
            raise records.error(
                number,
                f"the prompt has {len(text)} characters; at most {MAX_LENGTH} are taken.",
            )
        key = " ".join(text.split()), negative
        empty += not text
        repeats += key in first
        if text and key not in first:
            first[key] = number, {**record, "text": text, "negative": negative}
    if not first:
        raise PromptError(f"{records.source} holds no prompt. Expected at least one.")
    rows = list(first.values())
    prompts, remade = _identified(rows)
    left = [f"{counted(repeats, 'repeat')} left out"] if repeats else []
    left += [f"{empty} empty {'entry' if empty == 1 else 'entries'} skipped"] if empty else []
    notes = [*records.notes, *([f"{records.source}: {', '.join(left)}"] if left else [])]
    if remade:
        notes.append(
            f"{records.source}: {counted(len(remade), 'prompt')} with an id that stands twice or "
            f"cannot name a folder ({', '.join(remade[:3])}): the id is made of the text"
        )
    tagged = tuple(
        replace(prompt, **_beside(records, number, record.get("rest") or {}))
        for prompt, (number, record) in zip(prompts, rows, strict=True)
    )
    if untold := _untold(tagged, [record for _, record in rows]):
        notes.append(
            f"{records.source}: its columns {', '.join(untold)[:200]} are not kept as tags: "
            f"longer than {LONGEST_TAG} characters, no texts, or a name of other signs"
        )
    if note := syntax_note(prompt.text for prompt in tagged):
        notes.append(f"{records.source}: {note}")
    return PromptSet(name, tagged, tuple(notes), repeats + empty)


def _identified(rows: Sequence[tuple[int, Record]]) -> tuple[list[Prompt], list[str]]:
    """Return prompts with their ids, and the ids of the file that were not taken."""
    given = [_text(record.get("id")).strip() for _, record in rows]
    uses = Counter(name.lower() for name in given)
    usable = [
        name if uses[name.lower()] == 1 and _ID.fullmatch(name) and not is_reserved(name) else ""
        for name in given
    ]
    texts = [
        f"{record['text']}\n{record['negative']}" if record["negative"] else record["text"]
        for _, record in rows
    ]
    open_texts = [text for text, name in zip(texts, usable, strict=True) if not name]
    made = text_ids(open_texts, filter(None, usable))
    prompts = [
        Prompt(name or made[text], record["text"], negative=record["negative"])
        for name, text, (_, record) in zip(usable, texts, rows, strict=True)
    ]
    lost = [name for name, own in zip(given, usable, strict=True) if name and not own]
    return prompts, list(dict.fromkeys(lost))


def _beside(records: Records, number: int, rest: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the attributes and the tags of a prompt from what stands beside its text."""
    attributes = rest.get("attributes") or {}
    own = isinstance(attributes, dict)
    if not own and not isinstance(attributes, (str, list)):
        raise records.error(number, f"expected a mapping in `attributes`, got {attributes!r}.")
    others = {name: value for name, value in rest.items() if not own or name != "attributes"}
    tags = {str(name).strip(): _tag(value) for name, value in others.items()}
    kept = {name: text for name, text in tags.items() if text and _TAG.fullmatch(name)}
    return {"attributes": attributes if own else {}, "tags": kept}


def _untold(prompts: Iterable[Prompt], rows: Iterable[Record]) -> list[str]:
    """Return the columns that hold something that no prompt's tags have."""
    found: dict[str, None] = {}
    for prompt, record in zip(prompts, rows, strict=True):
        for key, value in (record.get("rest") or {}).items():
            name = str(key).strip()
            if name and name not in prompt.tags and name != "attributes" and _text(value).strip():
                found[name] = None
    return list(found)


def _tag(value: Any) -> str:
    """Return a value as a short text; empty for what is none."""
    parts = value if isinstance(value, list) else [value]
    if any(isinstance(part, (dict, list, bytes)) for part in parts):
        return ""
    text = _paired(", ".join(filter(None, map(_text, parts))))
    return " ".join(text.split()) if len(text) <= LONGEST_TAG else ""


def _text(value: Any) -> str:
    return "" if value is None or value != value else str(value)


def _paired(text: str) -> str:
    """Make surrogate pairs whole, as JSON escapes write them.

    A lone surrogate becomes the replacement character.
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
