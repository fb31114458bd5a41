"""Prompts as files and data sets hold them, as records: a text, its id, and what stands beside it.

A table is a table, whatever it is written in: JSON, JSON Lines, YAML, CSV, TSV, parquet, a folder
of texts, or a data set of the hub. Its columns are found by their usual names.
"""

from __future__ import annotations

import csv
import functools
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from eddy_bench.errors import PromptError, brief, counted
from eddy_bench.storage.files import (
    MAX_PROMPTS,
    Pairs,
    parse_json,
    parse_yaml_lines,
    read_bytes,
    read_text,
    refuse_more,
)
from eddy_bench.suites.prompt_syntax import (
    Record,
    holds_settings,
    read_lines,
    workflow_problem,
    workflow_records,
)

MAX_BYTES = 512 * 2**20
MAX_YAML = 64 * 2**20
MAX_FIELD = 2**24  # characters of a cell
DEPTH = 5  # of keys above a list of prompts
TEXT_COLUMNS = (
    *("prompt", "prompts", "caption", "captions", "text", "texts", "description"),
    *("sentence", "positive_prompt", "positive"),
)
ID_COLUMNS = ("id", "prompt_id", "uid", "key")
NEGATIVE_COLUMNS = ("negative_prompt", "negative", "neg_prompt")
DELIMITERS = {".csv": ",;\t|", ".tsv": "\t,;|"}
ENDINGS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".yaml", ".yml")
TEXT_ENDINGS = (".txt", ".caption", ".prompt")  # of the files of a folder
_SEPARATOR = re.compile(r'"?sep=(.)"?')  # Excel's first line
_HUB = re.compile(
    r"(?P<name>[A-Za-z0-9][\w.-]*/[\w.-]+)(?::(?P<split>[\w.-]+))?(?::(?P<column>[^:]+))?"
)


@dataclass
class Records:
    """What a source holds, in order, each with its line or the number of its entry.

    unit: `line` or `entry`. notes: what was chosen and left out, for the user.
    """

    source: str
    rows: list[tuple[int, Record]]
    unit: str = "entry"
    notes: list[str] = field(default_factory=list)

    def error(self, number: int, text: str) -> PromptError:
        """Return the error of one entry."""
        return PromptError(f"{self.source}, {self.unit} {number}: {text}")


def split_pick(source: str) -> tuple[Path, str]:
    """Split `set.csv:caption` or `set.json:data.items` into the file and what is picked of it."""
    head, colon, pick = source.rpartition(":")
    if colon and Path(head).suffix.lower() in ENDINGS and not Path(source).exists():
        return Path(head), pick
    return Path(source), ""


def is_hub_source(source: str) -> bool:
    """Return whether a source is like `owner/name[:split[:column]]`, and is no local file."""
    path = Path(source.partition(":")[0])
    local = path.suffix.lower() in (*ENDINGS, ".txt") or path.parent.is_dir()
    return bool(_HUB.fullmatch(source)) and not Path(source).exists() and not local


def read_records(path: Path, pick: str) -> Records:
    """Read a file, or a folder of texts.

    pick: the keys above the prompts, with points between them, and the column of a table; empty
        for those that are found.

    Raises:
        PromptError: it cannot be read, is none of the formats, or holds no texts.
    """
    if path.is_dir():
        return _folder(path)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet(path, pick)
    if suffix in (".yaml", ".yml"):
        text = read_text(path, PromptError, "a prompt file", MAX_YAML)
        return _structure(path, *parse_yaml_lines(path, text, PromptError), pick)
    text = read_text(path, PromptError, "a prompt file", MAX_BYTES)
    if "\0" in text:
        raise PromptError(f"{path} is no text: it holds null characters. Save it as UTF-8.")
    if suffix in DELIMITERS:
        return _table(path, text, pick)
    if text.lstrip()[:1] in ("[", "{") or suffix in ENDINGS:
        if (found := _json(path, text, pick)) is not None:
            return found
        if suffix in ENDINGS:
            raise PromptError(f"{path}: not valid JSON: {_json_problem(text)}.")
    lines = text.split("\n")
    _refuse_many(path, len(lines))
    records, notes = read_lines(lines)
    return Records(str(path), records, "line", [f"{path}: {note}" for note in notes])


def _refuse_many(path: Path, count: int) -> None:
    cure = "Split the file."
    refuse_more([count], MAX_PROMPTS, f"prompts in {path}", cure, PromptError)


def _folder(path: Path) -> Records:
    files = sorted(file for file in path.iterdir() if not file.name.startswith("."))
    texts = [file for file in files if file.suffix.lower() in TEXT_ENDINGS and file.is_file()]
    if not texts:
        raise PromptError(
            f"Expected a prompt file, or a folder of texts such as {path}/1.txt, found a folder "
            "without any."
        )
    _refuse_many(path, len(texts))
    records: list[tuple[int, Record]] = []
    notes: list[str] = []
    several = 0
    for number, file in enumerate(texts, 1):
        text = read_text(file, PromptError, "a prompt", MAX_YAML)
        own: list[tuple[int, Record]] = [(1, {"text": " ".join(text.split())})]
        if holds_settings(text):
            own, _ = read_lines(text.split("\n"))
            if len(own) != 1:
                raise PromptError(f"{file}: expected one prompt, got {len(own)}.")
        else:
            several += "\n" in text.strip()
        records += [(number, {"id": file.stem, **record}) for _, record in own]
    if several:
        lines = f"{counted(several, 'file')} of several lines, each taken as one prompt"
        notes.append(f"{path}: {lines}; a file with a prompt a line is given by its own name")
    if others := len(files) - len(texts):
        notes.append(f"{path}: {counted(others, 'other file')} left out")
    return Records(str(path), records, "text", notes)


def _unique(path: Path, pairs: Pairs) -> dict[str, Any]:
    """Return a mapping; raises PromptError for a key that stands twice, of which one would go."""
    if twice := [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]:
        raise PromptError(
            f"{path}: the key {twice[0][:80]!r} stands twice in a mapping. Rename one, or give a "
            "list."
        )
    return dict(pairs)


def _json_problem(text: str) -> str:
    try:
        parse_json(text)
    except ValueError as error:
        return brief(error, 120)
    return "expected a list or a mapping"


def _json(path: Path, text: str, pick: str) -> Records | None:
    """Return what a JSON text holds, a value or a value per line; None for other texts."""
    pairs = functools.partial(_unique, path)
    try:
        data = parse_json(text, pairs)
    except ValueError:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        try:
            values = [(number, parse_json(line, pairs)) for number, line in lines]
        except ValueError:
            return None
        _refuse_many(path, len(values))
        return _records(path, values, pick, "line")
    if not isinstance(data, (dict, list)):
        return None
    return _structure(path, data, None, pick)


def _structure(path: Path, data: Any, node: yaml.Node | None, pick: str) -> Records:
    """Return the records of a list or a mapping that holds texts somewhere."""
    if data is None:
        data = []
    if not isinstance(data, (dict, list)):
        raise PromptError(f"{path}: expected a list of prompts, got {type(data).__name__}.")
    if isinstance(data, dict) and (own := workflow_records(data)):
        return _records(path, list(enumerate(own, 1)), "", "entry")
    if isinstance(data, dict) and not pick and (problem := workflow_problem(data)):
        raise PromptError(f"{path}: {problem}")
    keys, column = _place(path, data, pick)
    held: Any = data
    for key in keys:
        held, node = held[key], _node_at(node, key)
    found = _entries(held)
    _refuse_many(path, len(found))
    lines = _lines(node, len(found))
    unit = "line" if lines else "entry"
    numbered = list(zip(lines or range(1, len(found) + 1), found, strict=True))
    records = _records(path, numbered, column, unit)
    if keys and keys != ["prompts"]:
        records.notes.insert(0, f"{path}: the prompts are those under {'.'.join(keys)}")
    return records


def _node_at(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _lines(node: yaml.Node | None, count: int) -> list[int]:
    """Return the lines of the entries of a list in YAML; none for others."""
    if not isinstance(node, yaml.SequenceNode) or len(node.value) != count:
        return []
    return [entry.start_mark.line + 1 for entry in node.value]


def _place(path: Path, data: Any, pick: str) -> tuple[list[str], str]:
    """Return the keys above the prompts, and the column that was picked."""
    if pick:
        return _picked(path, data, pick)
    if _rank(data) or isinstance(data, list):
        return [], ""
    ranked = sorted(_places(data), key=lambda place: -place[0])
    best = [keys for rank, keys in ranked if rank == ranked[0][0]]
    if len(best) == 1:
        return best[0], ""
    if not best:
        raise PromptError(
            f"{path}: expected prompts, as a list, a mapping or a table with a column "
            f"{', '.join(TEXT_COLUMNS[:5])}; it has {_some(map(str, data))}."
        )
    names = [".".join(keys) for keys in best]
    raise PromptError(f"{path}: prompts are under {_some(names)}. Name one: {path}:{names[0]}.")


def _some(names: Iterable[str]) -> str:
    return ", ".join(names)[:300] or "none"


def _picked(path: Path, data: Any, pick: str) -> tuple[list[str], str]:
    keys: list[str] = []
    while pick and isinstance(data, dict) and not _columnar(data):
        key = next((key for key in data if pick == key or pick.startswith(f"{key}.")), None)
        if key is None:
            if all(isinstance(value, dict) for value in data.values()):
                break  # records by their ids: a column is picked
            raise PromptError(f"{path} has no {pick!r} there. It has: {_some(map(str, data))}.")
        keys.append(key)
        data, pick = data[key], pick[len(key) + 1 :]
    if not isinstance(data, (dict, list)):
        raise PromptError(
            f"{path}: expected prompts under {'.'.join(keys)}, got {str(data)[:80]!r}."
        )
    return keys, pick


def _places(data: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[float, list[str]]]:
    for key, value in data.items():
        if not isinstance(key, str) or not isinstance(value, (dict, list)):
            continue
        if rank := _rank(value, key):
            yield rank, [*above, key]
        elif isinstance(value, dict) and len(above) < DEPTH:
            yield from _places(value, (*above, key))


def _rank(data: Any, key: str = "") -> float:
    """Return how surely a value holds prompts, 0 where it holds none."""
    if not data or not isinstance(data, (list, dict)):
        return 0
    values = list(data.values()) if isinstance(data, dict) else data
    if any(isinstance(value, dict) and _text_columns(value) for value in values):
        return 3
    if isinstance(data, dict) and _columnar(data):
        return 3
    if isinstance(data, dict) and not key and _text_columns(data):
        return 2  # one record alone
    texts = all(value is None or isinstance(value, str) for value in values)
    if texts and any(values):
        return 3 if key.lower() in TEXT_COLUMNS else 2 if isinstance(data, list) else 1
    lists = all(isinstance(value, list) and _all_texts(value) for value in values)
    return 1.5 if lists and isinstance(data, dict) else 0


def _all_texts(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(text, str) for text in value)


def _columnar(data: Mapping[Any, Any]) -> bool:
    """Return whether a mapping is a table by its columns, as lists or as mappings by row."""
    sizes = {len(own) if isinstance(own, (list, dict)) else -1 for own in data.values()}
    return len(sizes) == 1 and -1 not in sizes and any(map(_is_text_column, data))


def _is_text_column(name: object) -> bool:
    return str(name).strip().lower() in TEXT_COLUMNS


def _text_columns(row: Mapping[Any, Any]) -> list[str]:
    """Return the columns of one record's text; a list under `prompts` is of several records."""
    texts = [name for name in row if isinstance(row[name], str)]
    lists = [name for name in row if isinstance(row[name], list) and not _same(name, "prompts")]
    return [name for name in [*texts, *lists] if _is_text_column(name)]


def _entries(data: Any) -> list[Any]:
    """Return records of a list, of a mapping by ids or by categories, or of a table by columns."""
    if isinstance(data, list):
        return data
    if _columnar(data):
        columns = [own.values() if isinstance(own, dict) else own for own in data.values()]
        return [dict(zip(data, row, strict=True)) for row in zip(*columns, strict=True)]
    if names := _text_columns(data):
        texts = data[names[0]]
        return [{**data, names[0]: text} for text in texts] if isinstance(texts, list) else [data]
    found: list[Any] = []
    for key, value in data.items():
        if isinstance(value, dict):
            found.append({**value, "id": key})
        elif isinstance(value, list):
            found += [{"prompt": text, "category": key} for text in value]
        else:
            found.append({"prompt": value, "id": key})
    return found


def _records(path: Path, entries: Sequence[tuple[int, Any]], pick: str, unit: str) -> Records:
    """Return entries as records under the column of their texts."""
    tables = [entry for _, entry in entries if isinstance(entry, dict)]
    names = sorted({name: None for entry in tables for name in entry}, key=_order)
    records = Records(str(path), [], unit)
    filled = Counter(name for entry in tables for name in entry if entry[name])
    names = sorted(names, key=lambda name: -filled[name])
    column = _column(path, names, pick, records.notes) if tables else "prompt"
    known = {"text": column}
    for part, usual in (("id", ID_COLUMNS), ("negative", NEGATIVE_COLUMNS)):
        own = [name for wanted in usual for name in names if str(name).strip().lower() == wanted]
        known |= {part: own[0]} if own and own[0] != column else {}
    images: set[Any] = set()
    further = several = 0
    for number, entry in entries:
        row = entry if isinstance(entry, dict) else {column: entry}
        text = row.get(column)
        if isinstance(text, list) and _all_texts(text):
            several += len(text) > 1
            text = text[0]
        if not (text is None or isinstance(text, str) or text != text):
            raise records.error(
                number,
                f"expected a text or a mapping with `{column}`, got {str(entry)[:80]!r}.",
            )
        if str(column).lower() == "caption" and isinstance(
            image := row.get("image_id"), (int, str)
        ):
            if image in images:
                further += 1
                continue
            images.add(image)
        record: Record = {part: row.get(name) for part, name in known.items()}
        rest = {name: value for name, value in row.items() if name not in known.values()}
        blank = text is None or text != text
        records.rows.append((number, {**record, "text": "" if blank else text, "rest": rest}))
    if further:
        records.notes.append(f"{path}: {counted(further, 'further caption')} of an image left out")
    if several:
        records.notes.append(f"{path}: the first text of {counted(several, 'list')} is taken")
    return records


def _column(path: Path, names: Sequence[Any], pick: str, notes: list[str]) -> Any:
    """Return the column of the texts: the one that was picked, or the first of a usual name.

    names: of the columns, those that are filled in most records first.
    """
    if pick:
        if pick not in names:
            raise PromptError(f"{path} has no column {pick!r}. It has: {_some(map(str, names))}.")
        return pick
    found = [name for name in names if _is_text_column(name)]
    if not found:
        raise PromptError(
            f"{path}: expected a column {', '.join(TEXT_COLUMNS)}; it has "
            f"{_some(map(str, names))}. Name one: {path}:COLUMN."
        )
    if found[0] != "prompt" or len(found) > 1:
        others = f" (there is {_some(map(str, found[1:]))}, too)" if found[1:] else ""
        notes.append(f"{path}: the prompts are its column {found[0]!r}{others}")
    return found[0]


def _order(name: object) -> int:
    usual = str(name).strip().lower()
    return TEXT_COLUMNS.index(usual) if usual in TEXT_COLUMNS else len(TEXT_COLUMNS)


def _same(name: object, wanted: str) -> bool:
    return str(name).strip().lower() == wanted


def _table(path: Path, text: str, pick: str) -> Records:
    """Read CSV or TSV; which delimiter it has shows in the line of its columns."""
    filled = (line for line in re.split(r"[\r\n]", text) if line.strip())
    header = next(filled, "")
    if told := _SEPARATOR.fullmatch(header):
        header = next(filled, "")
    delimiters = told[1] if told else DELIMITERS[path.suffix.lower()]
    wanted = (pick,) if pick else TEXT_COLUMNS
    delimiter = next(
        (
            own
            for own in delimiters
            if any(_same(n, w) for n in _fields(header, own) for w in wanted)
        ),
        delimiters[0],
    )
    try:
        rows = _rows(text, delimiter)
    except csv.Error as error:
        if "expected after" not in str(error) or _torn(text, delimiter):
            line = error.args[1] if len(error.args) > 1 else 1
            raise PromptError(
                f"{path}, line {line}: a quote is not closed, or stands inside a text. Double it, "
                "or take it out."
            ) from None
        rows = _rows(text, delimiter, csv.QUOTE_NONE)  # quotes are part of the texts
    rows = rows[1:] if told else rows
    _refuse_many(path, len(rows))
    names = [name.strip() for name in rows[0][1]] if rows else []
    if twice := [name for name, count in Counter(names).items() if name and count > 1]:
        raise PromptError(f"{path}: a column stands twice: {_some(twice)}. Rename one.")
    for line, row in rows[1:]:
        if len(row) > len(names):
            raise PromptError(
                f"{path}, line {line}: expected {counted(len(names), 'field')} as in the first "
                f"line, got {len(row)}. Put a text with {delimiter!r} in quotes."
            )
    entries = [(line, dict(zip(names, row, strict=False))) for line, row in rows[1:]]
    if not entries:
        _column(path, names, pick, [])
    return _records(path, entries, pick, "line")


def _fields(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


def _rows(
    text: str, delimiter: str, quoting: Any = csv.QUOTE_MINIMAL
) -> list[tuple[int, list[str]]]:
    """Return rows that hold something, each with its first line.

    Raises:
        csv.Error: with the line as its second argument.
    """
    rows, first, limit = [], 1, csv.field_size_limit(MAX_FIELD)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True, quoting=quoting
    )
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append((first, row))
            first = reader.line_num + 1
    except csv.Error as error:
        raise csv.Error(str(error), first) from None
    finally:
        csv.field_size_limit(limit)
    return rows


def _torn(text: str, delimiter: str) -> bool:
    """Return whether a table is none when its quotes are read as they stand."""
    lines = [line for line in text.split("\n") if line.strip()]
    counts = {line.count(delimiter) for line in lines}
    return len(counts) > 1 or any(line.count('"') % 2 for line in lines)


def _parquet(path: Path, pick: str) -> Records:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = read_bytes(path, PromptError, "a prompt file", MAX_BYTES)
        file = pq.ParquetFile(io.BytesIO(content))
        _refuse_many(path, file.metadata.num_rows)
        schema = file.schema_arrow
        kept = [name for name in schema.names if _plain_type(schema.field(name).type, pa)]
        rows = file.read(columns=kept).to_pylist()
    except PromptError:
        raise
    except Exception as error:  # pyarrow has many
        raise PromptError(f"{path} is no parquet file: {brief(error, 120)}.") from None
    if not rows:
        _column(path, schema.names, pick, [])
    records = _records(path, list(enumerate(rows, 1)), pick, "entry")
    if left := [name for name in schema.names if name not in kept]:
        records.notes.append(f"{path}: its columns without texts are left out: {_some(left)}")
    return records


def _plain_type(kind: Any, pa: Any) -> bool:
    own = kind.value_type if pa.types.is_list(kind) or pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_boolean)
    return any(test(own) for test in (*tests, pa.types.is_integer, pa.types.is_floating))


def records_of_hub(source: str) -> Records:
    """Read the prompts of a hub data set, `owner/name[:split[:column]]`; no code of it is run.

    By default its only or first split is taken.

    Raises:
        PromptError: the package `datasets` is missing, the data set cannot be loaded, or it has no
            text column.
    """
    match = _HUB.fullmatch(source)
    assert match is not None
    name, split, column = match["name"], match["split"], match["column"] or ""
    try:
        import datasets
    except ImportError:
        raise PromptError(
            f"The data set {source!r} needs the package datasets. "
            "Install eddy-bench[datasets], or give a file."
        ) from None
    try:
        loaded: Any = datasets.load_dataset(name)
        splits = list(loaded)
        if split and split not in splits:
            raise PromptError(
                f"The data set {name} has no split {split!r}. "
                f"It has: {', '.join(map(str, splits))}."
            )
        rows = loaded[split or splits[0]]
        _refuse_many(Path(name), len(rows))
        entries = [(number, dict(row)) for number, row in enumerate(rows, 1)]
    except PromptError:
        raise
    except Exception as error:
        raise PromptError(
            f"The data set {name!r} cannot be loaded: {type(error).__name__}: "
            f"{brief(error, 160)} Give a file instead."
        ) from None
    records = _records(Path(name), entries, column, "row")
    if len(splits) > 1 and not split:
        records.notes.append(f"{name}: the prompts are those of its split {splits[0]!r}")
    return records
