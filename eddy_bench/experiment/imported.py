"""Images that something else drew, as the groups of a run folder."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from eddy_bench.errors import PromptError, StoreError, counted
from eddy_bench.experiment.events import Listener
from eddy_bench.experiment.manifest import manifest
from eddy_bench.ids import MethodId
from eddy_bench.storage.files import MAX_GROUPS, parse_json, refuse_more
from eddy_bench.storage.group import GroupGrid, group_key
from eddy_bench.storage.lock import locked
from eddy_bench.storage.packs import GroupFiles
from eddy_bench.storage.paths import safe_name
from eddy_bench.storage.pictures import picture_at, pictures_below
from eddy_bench.storage.records import Group, RunRecord, RunSettings, SuiteRecord
from eddy_bench.storage.run_folder import (
    RunFolder,
    add_planned,
    read_manifest,
    write_manifest,
    write_run,
)
from eddy_bench.suites.prompt_files import read_records
from eddy_bench.suites.prompts import Prompt, PromptSet, load_prompts, prompts_of_records

METADATA = ("metadata.jsonl", "metadata.json")  # of a prompt's folder, as GenEval's
SAMPLES = "samples"  # of a prompt's folder, as GenEval's
PLACE = re.compile(r"(?P<name>.+?)[-_ ]+(?P<number>\d+)_?")  # of a file without a folder
FILE_COLUMNS = ("file", "file_name", "filename", "image", "path")
LISTED = 3


@dataclass(frozen=True)
class Picture:
    """A file, the prompt, the method and the seed that it is of, and the seconds that it took."""

    path: Path
    prompt: Prompt
    method: MethodId
    seed: int = 0
    seconds: float | None = None


@dataclass(frozen=True)
class Import:
    """What to import.

    source: a folder with a folder for each prompt, or a table with a row for each image.
    out: the run folder.
    method: that drew them; empty where a table's column says so.
    prompts: the set that they were drawn of; empty where a table or GenEval's files say so.
    particles: images of a group; None for as many as each prompt has.
    model: the name of what drew them.
    """

    source: Path
    out: Path
    method: str = ""
    prompts: str = ""
    particles: int | None = None
    model: str = "imported"


def import_images(request: Import, listener: Listener) -> RunFolder:
    """Copy pictures into a run folder, to be scored and compared as if it had drawn them.

    Raises:
        EddyError: there are no pictures, none is of a prompt, a picture cannot be read, or the
            folder holds other images of the same method.
    """
    known = load_prompts(request.prompts) if request.prompts else None
    listener.tell_all(known.notes if known else [], "Note")
    if request.source.is_file():
        prompts, pictures, notes = _of_table(request, known)
        pictures, seeded = _seeded(pictures)
        notes += seeded
    else:
        prompts, pictures, notes = _of_folder(request, known)
    grouped: dict[tuple[MethodId, int, str], list[Picture]] = {}
    for own in pictures:
        grouped.setdefault((own.method, own.seed, own.prompt.id), []).append(own)
    refuse_more([len(grouped)], MAX_GROUPS, "groups", "Import a part of them.", StoreError)
    particles, cut = _particles(request, grouped)
    notes += cut
    notes += _without(prompts, grouped)
    listener.tell_all(notes, "Note")
    settings = _settings(request, particles)
    folder = RunFolder.prepare(request.out, settings)
    with locked(folder.path, listener.tell) as check_ownership:
        methods = list(dict.fromkeys(method for method, _, _ in grouped))
        _record(folder, request, settings, prompts, methods, grouped)
        written, files = 0, folder.files()
        with listener.began("Importing", len(grouped)) as advance:
            for (method, seed, _), group in grouped.items():
                check_ownership()
                written += _write(folder, files, method, seed, group[:particles])
                advance(1, str(method))
        folder.index.flush()
    there = len(grouped) - written
    listener.tell(
        f"Imported {counted(written, 'group')} of {particles} into {request.out}"
        + (f", {there} were there." if there else ".")
    )
    return folder


def _of_folder(
    request: Import, known: PromptSet | None
) -> tuple[PromptSet, list[Picture], list[str]]:
    """Return the pictures of a folder: a folder a prompt, or files named after prompts."""
    if not request.source.is_dir():
        raise StoreError(
            f"Expected a folder of pictures, or a table of them, at {request.source}, found "
            "nothing."
        )
    if not request.method:
        raise StoreError("Expected the name of what drew these images: --method NAME.")
    found = pictures_below(request.source, METADATA)
    own_names = _Names(known) if known else None
    by_place: dict[str, list[Path]] = {}
    for path in sorted(found.paths, key=_natural):
        parts = path.relative_to(request.source).parts
        named = own_names is not None and own_names.find(path.stem) is not None
        match = None if named else PLACE.fullmatch(path.stem)
        place = parts[0] if len(parts) > 1 else match["name"] if match else path.stem
        by_place.setdefault(place, []).append(path)
    if not by_place:
        raise StoreError(f"Expected pictures below {request.source}, found none.")
    for place, paths in by_place.items():
        samples = [path for path in paths if path.parent.name == SAMPLES]
        by_place[place] = samples or paths  # GenEval's grid beside them is none
    prompts = known or _told_prompts(request.source, by_place)
    names = _Names(prompts)
    silent: list[Path] = []
    told = {own: _told(request.source / own, silent) for own in by_place}
    found_at = {own: names.find(told[own], own) for own in by_place}
    numbered = all(own.isdecimal() and not told[own] for own in by_place)
    if numbered and None in found_at.values():
        found_at = _by_number(request.source, list(by_place), prompts)
    method = MethodId.parse(request.method.strip())
    pictures: list[Picture] = []
    lost: list[str] = []
    for place, paths in by_place.items():
        prompt = found_at[place]
        if prompt is None:
            lost.append(place)
        else:
            pictures += [Picture(path, prompt, method) for path in paths]
    if not pictures:
        raise StoreError(
            f"Expected folders or files named after the prompts of {prompts.name}, such as "
            f"{request.source / prompts.prompts[0].id}, got {', '.join(lost[:LISTED])}."
        )
    notes = [f"{request.source}: {note}" for note in found.notes]
    if silent:
        files = counted(len(silent), "file")
        notes.append(f"{files} such as {silent[0]} with no prompt: taken from the folder's name")
    if lost:
        notes.append(
            f"left out {counted(sum(len(by_place[own]) for own in lost), 'picture')} of no prompt: "
            f"{', '.join(lost[:LISTED])}{' and more' if len(lost) > LISTED else ''}"
        )
    return prompts, pictures, notes


def _natural(path: Path) -> list[str | int]:
    """Return what files are sorted by, so that 2 comes before 10."""
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if part.isdecimal() else part for part in parts]


def _folded(text: str) -> str:
    """Return the letters and numbers of a text in any script; a text without any as it is."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    words = re.sub(r"[\W_]+", " ", plain).split()
    return " ".join(word.lstrip("0") or "0" for word in words) or plain.strip()


def _with_negative(text: str, negative: str) -> str:
    return f"{text}\n{negative}" if negative else text


class _Names:
    """Prompts by what a folder or a row may call them: their id, their text, or nearly that.

    A name that is of several prompts is of none.
    """

    def __init__(self, prompts: PromptSet) -> None:
        ids = [own.id for own in prompts.prompts]
        texts = [own.text for own in prompts.prompts]
        whole = [_with_negative(own.text, own.negative) for own in prompts.prompts]
        folded = [list(map(_folded, names)) for names in (ids, texts)]
        self._exact = _only(prompts, ids, whole, texts)
        self._near = _only(prompts, *folded)

    def find(self, *names: str) -> Prompt | None:
        """Return the prompt of the first name that is one's."""
        for name in filter(None, names):
            if found := self._exact.get(name) or self._near.get(_folded(name)):
                return found
        return None


def _only(prompts: PromptSet, *columns: Sequence[str]) -> dict[str, Prompt]:
    """Return prompts by names that no other has, those of earlier columns first."""
    found: dict[str, Prompt] = {}
    for names in columns:
        uses = Counter(names)
        for name, own in zip(names, prompts.prompts, strict=True):
            if uses[name] == 1:
                found.setdefault(name, own)
    return found


def _by_number(source: Path, places: Sequence[str], prompts: PromptSet) -> dict[str, Prompt | None]:
    """Return prompts by their numbers from 0 on; refuses numbers that may be counted otherwise."""
    count, numbers = len(prompts.prompts), sorted(map(int, places))
    if prompts.left_out:
        raise StoreError(
            f"The folders of {source} are numbers, but of {prompts.name} some entries are left "
            f"out ({prompts.left_out} repeated or empty), so that a number may be of another "
            "prompt. Name the folders after the prompts' ids."
        )
    if numbers[0] != 0 or numbers[-1] >= count:
        raise StoreError(
            f"Expected folders in {source} that are ids of {prompts.name}, or numbers from 0 to "
            f"{count - 1}, got numbers from {numbers[0]} to {numbers[-1]}. Rename them, or give "
            "the --prompts that they are of."
        )
    return {place: prompts.prompts[int(place)] for place in places}


def _told(folder: Path, silent: list[Path]) -> str:
    """Return the prompt that a file in a folder names, as GenEval's; empty where none does.

    `silent` is told of a file that names none.
    """
    for name in METADATA:
        if (folder / name).is_file():
            try:
                data = parse_json((folder / name).read_bytes().splitlines()[0])
                return str(data["prompt"]).strip()
            except (OSError, ValueError, LookupError, TypeError):
                silent.append(folder / name)
                return ""
    return ""


def _told_prompts(source: Path, places: Mapping[str, Any]) -> PromptSet:
    """Return the prompts that the folders of pictures name themselves."""
    rows: list[tuple[int, dict[str, Any]]] = []
    for number, place in enumerate(places, 1):
        for name in METADATA:
            if (source / place / name).is_file():
                _, record = read_records(source / place / name, "").rows[0]
                rows.append((number, {**record, "id": record.get("id") or place}))
                break
    if not rows:
        raise PromptError(
            f"Expected the prompts of {source}: --prompts FILE, or a {METADATA[0]} in each folder."
        )
    return prompts_of_records(source.name, str(source), rows)


def _of_table(
    request: Import, known: PromptSet | None
) -> tuple[PromptSet, list[Picture], list[str]]:
    """Return the pictures of a table: a row an image, with its file, prompt, method and seed."""
    records = read_records(request.source, "")
    prompts = known or prompts_of_records(
        request.source.stem,
        str(request.source),
        list(_first(records.rows)),
    )
    names = _Names(prompts)
    pictures: dict[Picture, None] = {}
    lost = again = 0
    for number, record in records.rows:
        rest = {str(key).strip().lower(): value for key, value in record["rest"].items()}
        name = next((rest[key] for key in FILE_COLUMNS if rest.get(key)), None)
        if not isinstance(name, str):
            raise records.error(number, f"expected a column {', '.join(FILE_COLUMNS[:2])}.")
        method = request.method.strip() or _text(rest.get("method"))
        if not method:
            raise records.error(number, "expected a column method, or --method NAME.")
        text = _text(record["text"])
        whole = _with_negative(text, _text(record.get("negative")))
        prompt = names.find(whole, text, _text(record.get("id")))
        if prompt is None:
            lost += 1
            continue
        try:
            seed = _whole(_text(rest.get("seed")) or "0")
            taken = _text(rest.get("seconds"))
            seconds = float(taken) if taken else None
        except (ValueError, TypeError, OverflowError):
            raise records.error(number, "expected numbers in seed and seconds.") from None
        if seed < 0 or (seconds is not None and not 0 <= seconds < float("inf")):
            raise records.error(number, "expected no negative seed and no negative seconds.")
        path = request.source.parent / name
        if not path.is_file():
            path = request.source.parent / name.replace("\\", "/")  # as Windows writes it
        if not path.is_file():
            raise records.error(number, f"expected a picture at {path}, found nothing.")
        picture = Picture(path, prompt, MethodId.parse(method), seed, seconds)
        again += picture in pictures
        pictures[picture] = None
    if not pictures:
        raise StoreError(f"Expected pictures of prompts in {request.source}, found none.")
    left = [f"left out {counted(lost, 'picture')} of no prompt of the set"] if lost else []
    left += [f"left out {counted(again, 'row')} of a picture that stands twice"] if again else []
    return prompts, list(pictures), [*records.notes, *left]


def _text(value: Any) -> str:
    """Return a cell as text; empty for what is none."""
    return "" if value is None or value != value else str(value).strip()


def _whole(text: str) -> int:
    """Read a whole number, as `7` or `7.0`; raises ValueError for others."""
    try:
        return int(text)
    except ValueError:
        if not (number := float(text)).is_integer():
            raise
        return int(number)


def _seeded(pictures: Sequence[Picture]) -> tuple[list[Picture], list[str]]:
    """Number the seeds of each prompt from 0 on; one group where each image has its own seed."""
    seeds: dict[tuple[MethodId, str], set[int]] = {}
    for own in pictures:
        seeds.setdefault((own.method, own.prompt.id), set()).add(own.seed)
    count = sum(map(len, seeds.values()))
    if count == len(pictures) > len(seeds):
        note = "each image has a seed of its own: the images of a prompt are taken as one group"
        return [replace(own, seed=0) for own in pictures], [note]
    numbers = {
        (key, seed): number
        for key, there in seeds.items()
        for number, seed in enumerate(sorted(there))
    }
    numbered = [
        replace(own, seed=numbers[(own.method, own.prompt.id), own.seed]) for own in pictures
    ]
    return numbered, []


def _first(rows: Sequence[tuple[int, dict[str, Any]]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the first row of each prompt, without what is of one image."""
    own = {*FILE_COLUMNS, "method", "seed", "seconds"}
    found: dict[tuple[str, str], tuple[int, dict[str, Any]]] = {}
    ids: dict[tuple[str, str], set[str]] = {}
    for number, record in rows:
        key = _text(record["text"]), _text(record.get("negative"))
        ids.setdefault(key, set()).add(_text(record.get("id")))
        rest = {k: v for k, v in record["rest"].items() if str(k).strip().lower() not in own}
        found.setdefault(key, (number, {"text": key[0], "negative": key[1], "rest": rest}))
    for key, (number, record) in found.items():
        if key[0]:
            yield number, {**record, "id": min(ids[key]) if len(ids[key]) == 1 else ""}


def _particles(request: Import, grouped: Mapping[Any, Sequence[Picture]]) -> tuple[int, list[str]]:
    """Return how many images each group has, and how many are left out for it."""
    counts = Counter(map(len, grouped.values()))
    particles = request.particles
    if particles is None and len(counts) > 1:
        listed = ", ".join(f"{number} of {count}" for count, number in sorted(counts.items()))
        raise StoreError(
            f"Expected as many images of each prompt, got groups of different sizes ({listed} "
            f"images). Cut them: --particles {min(counts)}."
        )
    own = particles or next(iter(counts))
    if few := [key for key, there in grouped.items() if len(there) < own]:
        method, seed, prompt = few[0]
        raise StoreError(
            f"Expected {own} images of each prompt, got {len(grouped[few[0]])} of {prompt!r} by "
            f"{method}, seed {seed} ({counted(len(few), 'group')} with fewer). "
            f"Lower --particles to {min(counts)}."
        )
    left = sum(count * number for count, number in counts.items()) - own * len(grouped)
    return own, [f"left out {counted(left, 'image')} beyond {own} of a prompt"] if left else []


def _without(prompts: PromptSet, grouped: Mapping[tuple[MethodId, int, str], Any]) -> list[str]:
    """Say which prompts a method has no image of."""
    notes = []
    for method in dict.fromkeys(method for method, _, _ in grouped):
        there = {prompt for own, _, prompt in grouped if own == method}
        lacking = [own.id for own in prompts.prompts if own.id not in there]
        if lacking:
            notes.append(
                f"{method} has no image of {counted(len(lacking), 'prompt')}: "
                f"{', '.join(lacking[:LISTED])}{' and more' if len(lacking) > LISTED else ''}"
            )
    return notes


def _settings(request: Import, particles: int) -> RunSettings:
    return RunSettings(
        model=request.model,
        revision=None,
        variant=None,
        weights_fingerprint="",
        scheduler="",
        steps=0,
        guidance_scale=0.0,
        negative_prompt="",
        particles=particles,
        size=None,
        dtype="",
        imported=True,
    )


def _record(
    folder: RunFolder,
    request: Import,
    settings: RunSettings,
    prompts: PromptSet,
    methods: Sequence[MethodId],
    grouped: Mapping[tuple[MethodId, int, str], Any],
) -> None:
    """Write run.yaml, planned.json and manifest.json."""
    run = folder.read_run() if folder.has_run else None
    if run is not None and run.prompt_digest != prompts.digest:
        raise StoreError(
            f"{folder.path} holds images of other prompts. Give the same --prompts, or another "
            "--out."
        )
    known = run.suite.methods if run is not None else []
    suite = SuiteRecord.model_validate(
        {
            "name": folder.path.name,
            "methods": list(dict.fromkeys([*known, *map(str, methods)])),
            "prompts": request.prompts or str(request.source),
        }
    )
    write_run(folder.path, RunRecord(suite=suite, settings=settings, prompt_digest=prompts.digest))
    for method in methods:
        counts = Counter(prompt for own, _, prompt in grouped if own == method)
        for seeds in sorted(set(counts.values())):
            ids = [own.id for own in prompts.prompts if counts[own.id] == seeds]
            add_planned(folder.path, [GroupGrid([_label(method)], ids, seeds)])
    before = read_manifest(folder.path)
    write_manifest(folder.path, before.updated(**manifest(settings, prompts, before.environments)))


def _label(method: MethodId) -> str:
    name = safe_name(str(method), "method")
    digest = hashlib.sha256(str(method).encode()).hexdigest()[:8]
    return name if name == str(method) else f"{name}-{digest}"


def _write(
    folder: RunFolder, files: GroupFiles, method: MethodId, seed: int, pictures: Sequence[Picture]
) -> bool:
    """Write a group; returns whether it was not there."""
    prompt = pictures[0].prompt
    images = [picture_at(own.path, StoreError) for own in pictures]
    sizes = {image.size for image in images}
    if len(sizes) > 1:
        raise StoreError(
            f"Expected images of one size in a group, got {counted(len(sizes), 'size')} for "
            f"{prompt.id!r} by {method}: {pictures[0].path} and others. Make them one size."
        )
    digest = hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest()
    group = Group(
        method=method.name,
        label=_label(method),
        parameters=method.parameters,
        kernel="",
        prompt_id=prompt.id,
        prompt=prompt.text,
        seed=seed,
        particles=len(images),
        key=group_key(imported=digest, size=list(sizes), prompt=prompt.text, seed=seed),
        negative=prompt.negative,
        tags=prompt.tags,
    )
    there = folder.load(group.path, files)
    if there is not None and there.group.key == group.key:
        return False
    if there is not None:
        raise StoreError(
            f"{there.folder} holds other images of {method}. Give another --method or --out, or "
            f"remove {folder.samples / group.label}."
        )
    seconds = [own.seconds for own in pictures if own.seconds is not None]
    cost = {"seconds_per_image": fmean(seconds)} if len(seconds) == len(pictures) else {}
    folder.write_group(group, images, cost, {})
    return True
