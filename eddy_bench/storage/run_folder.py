"""The small files of a run folder, read as typed records: run.yaml, manifest.json, planned.json."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from eddy_bench.errors import StoreError, brief, why
from eddy_bench.storage.files import (
    MAX_GROUPS,
    parse_json,
    parse_yaml,
    read_text,
    refuse_more,
    write_text,
)
from eddy_bench.storage.group import (
    FinishedGroup,
    GroupGrid,
    GroupIndex,
    doubt,
    entry_of,
    finished_of,
    parse_group,
    png_bytes,
)
from eddy_bench.storage.packs import (
    PACK_BYTES,
    PACK_GROUPS,
    GroupFiles,
    PackedGroup,
    PackRow,
    count_of,
    filled,
    read_packs,
    write_pack,
)
from eddy_bench.storage.paths import (
    Files,
    files_below,
    is_remote,
    move_remote,
    read_many,
    refuse_link,
    remove_file,
    write_many,
)
from eddy_bench.storage.records import (
    FileInfo,
    Group,
    GroupRecord,
    Manifest,
    RunRecord,
    RunSettings,
)

_GRID = TypeAdapter(GroupGrid)
PLANNED_CURE = "Remove it; the next run writes it."
MAX_BYTES = 2**30  # a million prompts in planned.json are 60 MB


def read_run(folder: Path) -> RunRecord:
    """Read run.yaml.

    Raises:
        StoreError: it is not there, cannot be read, or is not a run's.
    """
    path = folder / "run.yaml"
    try:
        data = parse_yaml(path, read_text(path, StoreError, "run.yaml", MAX_BYTES), StoreError)
    except StoreError as error:
        raise StoreError(f"{error} Take another run folder.") from None
    try:
        record = RunRecord.model_validate(data)
    except ValidationError as error:
        raise StoreError(
            f"{path} is not a run's: {_expected(data, error)}. Take another run folder."
        ) from None
    if (read_manifest(folder).settings or record.settings.digest) != record.settings.digest:
        raise StoreError(
            f"The settings in {path} were changed after its images were drawn with others. "
            "Put them back, or draw into another folder: --out."
        )
    return record


def _expected(data: Any, error: ValidationError) -> str:
    """Return in words what a run.yaml lacks."""
    if not isinstance(data, dict) or not all(
        isinstance(data.get(key), dict) for key in ("settings", "suite")
    ):
        return "expected `suite` and `settings`"
    part, name = ([*map(str, error.errors()[0]["loc"]), ""])[:2]
    if part == "settings":
        return f"`{name}` is missing in `settings`, or no single value"
    if name == "methods":
        return "expected a list of texts in `methods`"
    return f"expected texts in `{part}`"


def write_run(folder: Path, record: RunRecord) -> None:
    """Replace run.yaml."""
    text = yaml.safe_dump(record.as_dict(), sort_keys=False, allow_unicode=True)
    write_text(folder / "run.yaml", text)


def read_manifest(folder: Path, broken: list[str] | None = None) -> Manifest:
    """Read manifest.json; an empty one where there is none yet, or none that can be read.

    Args:
        folder: of a run.
        broken: is told where there is one that cannot be read.
    """
    path = folder / "manifest.json"
    try:
        text = read_text(path, StoreError, "manifest.json", MAX_BYTES)
        return Manifest.model_validate(parse_json(text))
    except (StoreError, ValueError):
        if broken is not None and path.exists():
            broken.append(f"{path} could not be read and is replaced: {LOST}")
        return Manifest()


LOST = "the environments of earlier images, changed tags and what was scored are gone"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace manifest.json."""
    text = json.dumps(manifest.as_dict(), indent=2, ensure_ascii=False) + "\n"
    write_text(folder / "manifest.json", text)


def read_planned(folder: Path) -> list[GroupGrid]:
    """Read planned.json: what commands set out to draw; nothing where that is not known."""
    path = folder / "planned.json"
    if not path.exists():
        return []
    try:
        entries = parse_json(read_text(path, StoreError, "planned.json", MAX_BYTES))
        grids = [_GRID.validate_python(grid) for grid in entries]
    except (StoreError, ValueError, TypeError) as error:
        problem = brief(error, 200).rstrip(".")
        raise StoreError(f"{path} cannot be read: {problem}. {PLANNED_CURE}") from None
    total = sum(grid.count for grid in grids)
    refuse_more([total], MAX_GROUPS, f"planned groups in {path}", PLANNED_CURE, StoreError)
    return grids


def add_planned(folder: Path, grids: Iterable[GroupGrid]) -> None:
    """Add to planned.json what it does not hold yet."""
    known = read_planned(folder)
    planned = list(known)
    for grid in grids:
        if grid not in planned:
            planned.append(grid)
    if planned != known:
        text = json.dumps([asdict(grid) for grid in planned], ensure_ascii=False) + "\n"
        write_text(folder / "planned.json", text)


def cure_of(run: Path) -> Callable[[Path], str]:
    """Return a function from a group's folder to what helps: drawing it again, where that is done.

    The next run draws what commands set out to draw (planned.json), and nothing else.
    """
    try:
        grids = [(set(g.labels), set(g.prompts), g.seeds) for g in read_planned(run)]
    except StoreError:  # broken: the next run writes it
        grids = []

    def cure(folder: Path) -> str:
        store, label, prompt, seed = folder.parts[-4:]
        drawn = any(
            (label in labels or store == label == "reference")
            and prompt in prompts
            and seed.isdecimal()
            and int(seed) < seeds
            for labels, prompts, seeds in grids
        )
        if drawn or not grids:
            return "run again to redraw it"
        return "no command draws a group there: move it back to its place, or remove it"

    return cure


OURS = (".lock", ".lease", "samples", "partial")  # of a run without a group yet
LEFT_BEHIND = (
    ".run.yaml-*.tmp",
    ".*.json-*.tmp",
    ".s*.csv-*.tmp",
    ".scores.parquet-*.tmp",
    ".*.html-*.tmp",
    "samples/.pack-*.tmp",
    "reference/.pack-*.tmp",
    "grids/.*.tmp",
    "features/*/.*.tmp",
)
READ_TOGETHER = 256  # small files
REMOVED_TOGETHER = 16  # folders: disks that discard at once, and networks, keep one waiting
Advance = Callable[[int, str], None]


@dataclass
class Packing:
    """What packing did: how many packs it wrote, of which groups, and why others were left."""

    packs: int = 0
    places: set[str] = field(default_factory=set)
    left: list[str] = field(default_factory=list)


def _is_ours(child: Path) -> bool:
    """Return whether a run that ended before its first group left this."""
    if child.is_dir():
        return child.name in OURS and not any(child.iterdir())
    return child.name in OURS or child.match(LEFT_BEHIND[0])


FLAGS = (
    *("model", "revision", "variant", "scheduler", "steps", "guidance_scale", "particles"),
    *("negative_prompt", "size", "dtype", "timesteps"),
)


def _to_go_on(folder: RunFolder, different: Iterable[str]) -> str:
    """Return the flags that go on with a folder's run, where flags alone do that."""
    named = [name for name in different if name in FLAGS]
    there = folder.read_run().settings.as_dict()
    others = set(different) - {*named, "weights_fingerprint"}
    if others or not named or not all(there.get(name) for name in named):
        return ""
    words = [f"--{name.replace('_', '-')} {shlex.quote(str(there[name]))}" for name in named]
    return f". To go on there: {' '.join(words)}"


class RunFolder:
    """Read and write `results/NAME`: run.yaml, manifest.json, samples and what is made from them.

    Raises:
        StoreError: a file is in the way, the folder is not a run's, cannot be written, or holds
            a run with other settings.
    """

    def __init__(self, path: Path, samples: str = "samples") -> None:
        self.path = path
        self.samples = path / samples
        self.index = GroupIndex(path / f"{samples}.jsonl")

    def reference(self) -> RunFolder:
        """Return the same folder with the disjoint i.i.d. set for drift in the samples' stead."""
        return RunFolder(self.path, "reference")

    def files(self) -> GroupFiles:
        """Return where groups stand; packs, and all of a remote folder, as they are now."""
        return read_packs(self.samples, self.folders())

    def folders(self) -> Files:
        """Return the files below the samples, without what packs hold."""
        try:
            return files_below(self.samples)
        except OSError as error:
            raise StoreError(f"{self.samples} cannot be listed: {why(error)}.") from None

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """Open a folder that `run` made."""
        if not (path / "run.yaml").is_file():
            raise StoreError(
                f"Expected a run folder with run.yaml, got {path}. "
                f"`eddy-bench run --out {path}` makes one."
            )
        return cls(path)

    @classmethod
    def prepare(cls, path: Path, settings: RunSettings) -> RunFolder:
        """Make the folder, or check that it holds a run with these settings."""
        folder = cls(path)
        refuse_file(path)
        if folder.has_run:
            if different := folder.read_run().settings.differences(settings):
                raise StoreError(
                    f"{path} holds a run with other settings: {'; '.join(different.values())}. "
                    f"Give another folder: --out {path}-2{_to_go_on(folder, different)}."
                )
        elif path.is_dir() and any(not _is_ours(child) for child in path.iterdir()):
            raise StoreError(
                f"{path} holds files that are not of a run; they are left alone. "
                "Give another --out."
            )
        if is_remote(path):
            return folder  # that it can be written shows when it is leased
        try:
            folder.samples.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise StoreError(
                f"{path} cannot be written: {why(error)}. Give another --out."
            ) from None
        return folder

    @property
    def has_run(self) -> bool:
        """Whether a run was recorded here."""
        return (self.path / "run.yaml").is_file()

    def read_run(self) -> RunRecord:
        """Read run.yaml, as the function of this name."""
        return read_run(self.path)

    def load(self, path: Path, files: GroupFiles) -> FinishedGroup | None:
        """Load a finished group whose files are there in their sizes; None where none was finished.

        Args:
            path: the group's folder below the samples.
            files: those below the samples.
        """
        folder = self.samples / path
        if (packed := files.in_pack(path.as_posix())) is not None:
            return _packed(path, packed)
        if files.size(f"{path.as_posix()}/group.json") is None:
            if not is_remote(folder) and folder.exists():
                # a remote group is written in place, group.json last
                raise StoreError(f"{folder} has no group.json")
            return None
        try:
            return self._parsed(path, read_many([folder / "group.json"])[0], files)
        except OSError as error:
            raise StoreError(f"{folder} is broken: {why(error)}") from None

    def _parsed(self, path: Path, text: bytes, files: GroupFiles) -> FinishedGroup:
        folder = self.samples / path
        try:
            record = parse_group(text, path)
            if not all(
                files.size(f"{path.as_posix()}/{name}") == info.size
                for name, info in record.files.items()
            ):
                raise ValueError("files differ from group.json")
        except ValueError as error:
            raise StoreError(f"{folder} is broken: {error}") from None
        return finished_of(record, folder)

    def set_aside(self, path: Path) -> Path:
        """Move a broken group out of the samples; returns where to."""
        source = self.samples / path
        refuse_link(self.path, source)
        target = self._aside("-".join(path.parts))
        if is_remote(source):
            move_remote(source, target)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(source, target)
        return target

    def _aside(self, name: str) -> Path:
        """Return a path below `broken` where nothing is yet."""
        target = self.path / "broken" / f"{name}-{time.time_ns()}"
        while target.exists():  # a clock that stands still
            target = target.with_name(f"{target.name}-again")
        return target

    def write_group(
        self,
        group: Group,
        images: Sequence[Image.Image | bytes],
        cost: Mapping[str, float],
        details: dict[str, Any],
    ) -> FinishedGroup:
        """Write a group whole.

        On this machine it is written beside its place, then renamed once; remotely it is
        written in place, group.json last.

        Raises:
            StoreError: the disk is full or cannot be written; what was written of it is removed.
        """
        final = self.samples / group.path
        refuse_link(self.path, final, self.failure_path(group))
        contents = {f"{k}.png": png_bytes(image) for k, image in enumerate(images)}
        files = {name: FileInfo.of(content) for name, content in contents.items()}
        record = GroupRecord(group=group, cost=dict(cost), files=files, **details)
        text = json.dumps(record.as_dict(), indent=1, ensure_ascii=False).encode()
        try:
            if is_remote(final):
                write_many({final / name: content for name, content in contents.items()})
                write_many({final / "group.json": text})
            else:
                self._write_aside({**contents, "group.json": text}, final)
            remove_file(self.failure_path(group))
        except OSError as error:
            raise StoreError(
                f"{final} cannot be written: {why(error)}. "
                "Finished groups are kept; run again to go on."
            ) from None
        finished = finished_of(record, final)
        self.index.add([entry_of(finished, len(text))])
        return finished

    def _write_aside(self, contents: dict[str, bytes], final: Path) -> None:
        """Write a folder beside its place, and move it there; leave nothing where that fails."""
        (self.path / "partial").mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self.path / "partial"))
        try:
            for name, content in contents.items():
                (folder / name).write_bytes(content)
            folder.chmod(0o755)
            final.parent.mkdir(parents=True, exist_ok=True)
            os.replace(folder, final)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def failure_path(self, group: Group) -> Path:
        """Return where a group's failure is recorded."""
        return self.path / "failed" / group.path.with_suffix(".json")

    def failures(self) -> list[Path]:
        """Return the records of groups that could not be drawn."""
        return sorted((self.path / "failed").glob("*/*/*.json"))

    def write_failure(self, group: Group, reason: str) -> None:
        """Record why a group could not be drawn; the next run tries again."""
        data, path = {"group": asdict(group), "error": reason}, self.failure_path(group)
        refuse_link(self.path, path)
        write_text(path, json.dumps(data, indent=1, ensure_ascii=False))

    def finished(self, broken: list[str] | None = None) -> Iterator[FinishedGroup]:
        """Yield all finished groups that are whole, by method, prompt and seed.

        Args:
            broken: is told what is wrong with the others.
        """
        files, damaged, doubted, cure = self.files(), False, [], None
        if broken is not None:
            for pack, problem in files.broken.items():
                broken += [f"{problem}: run again to redraw its groups"] * max(1, count_of(pack))
        places = iter(files.places().items())
        while part := [(Path(place), own) for place, own in islice(places, READ_TOGETHER)]:
            loose = [path for path, packed in part if packed is None]
            try:
                texts = read_many([self.samples / path / "group.json" for path in loose])
            except OSError:
                texts = [b""] * len(loose)  # one of them cannot be read: each is tried alone
            known = dict(zip(loose, texts, strict=True))
            for path, packed in part:
                try:
                    text = known.get(path)
                    group = self._parsed(path, text, files) if text else self.load(path, files)
                except StoreError as error:
                    damaged = True
                    doubted += [] if packed is None else [doubt(path)]
                    if broken is not None:
                        cure = cure or cure_of(self.path)
                        broken.append(f"{error}: {cure(self.samples / path)}")
                    continue
                if group is not None:
                    yield group
                elif broken is not None:  # another process packs, or somebody removes it
                    broken.append(f"{self.samples / path} went away while it was read: try again")
        if damaged:
            self.index.forget()  # so that the next run looks at every group
            with suppress(StoreError):  # of a folder that cannot be written
                self.index.add(doubted, at_once=True)

    def pack(self, advance: Advance, check_ownership: Callable[[], None]) -> Packing:
        """Move groups from folders into packs; a pack is on the disk before its folders go.

        A group that is broken, or beside which other files stand, keeps its folder.

        Args:
            advance: takes the number of groups done and their method's folder.
            check_ownership: is called before each pack is written.
        """
        files, done = GroupFiles(self.folders(), {}, {}), Packing()
        for rows in filled(self._rows(files, done, advance), PACK_GROUPS, PACK_BYTES):
            check_ownership()
            write_pack(self.samples, self.folders(), rows)
            self._remove(rows)
            done.packs += 1
            done.places.update(row.place for row in rows)
        if done.places:
            self.index.drop(done.places)
        return done

    def _rows(self, files: GroupFiles, done: Packing, advance: Advance) -> Iterator[PackRow]:
        """Yield the groups that stand in folders, each read and hashed."""
        for name in files.folders.names("*/*/*/group.json"):
            path = Path(name).parent
            folder = self.samples / path
            try:
                refuse_link(self.path, folder)
                group = self.load(path, files)
                if group is None:
                    raise StoreError(f"{folder} is gone")
                if not is_remote(folder) and len(os.listdir(folder)) > len(group.files) + 1:
                    raise StoreError(f"{folder} holds other files, too")
                yield PackRow(path.as_posix(), group.group.key, group.text(), group.contents())
            except (OSError, StoreError) as error:
                done.left.append(str(error).rstrip("."))
            advance(1, path.parts[0])

    def _remove(self, rows: Sequence[PackRow]) -> None:
        """Remove the folders of groups; none is seen without some of its files."""
        folders = [self.samples / row.place for row in rows]
        try:
            with ThreadPoolExecutor(REMOVED_TOGETHER) as pool:
                if is_remote(self.path):
                    list(pool.map(remove_file, (folder / "group.json" for folder in folders)))
                    images = range(max(len(row.images) for row in rows))
                    names = (folder / f"{k}.png" for folder in folders for k in images)
                    list(pool.map(remove_file, names))
                    return
                partial = self.path / "partial"
                partial.mkdir(parents=True, exist_ok=True)
                gone = [partial / uuid.uuid4().hex for _ in folders]
                for folder, target in zip(folders, gone, strict=True):
                    os.replace(folder, target)
                list(pool.map(shutil.rmtree, gone))
        except OSError as error:
            raise StoreError(
                f"Folders below {self.samples} cannot be removed: {why(error)}. "
                "Their groups are in a pack, too, and count once."
            ) from None
        for level in (0, 1):  # of prompts, then of methods
            for parent in {folder.parents[level] for folder in folders}:
                with suppress(OSError):  # not empty
                    parent.rmdir()

    def set_packs_aside(self, files: GroupFiles) -> list[str]:
        """Move packs that cannot be read out of the samples; returns what is said of each."""
        notes = []
        for path, problem in files.broken.items():
            target = self._aside(path.name)
            if is_remote(path):
                write_many({target: read_many([path])[0]})
                remove_file(path)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)
            notes.append(f"{problem}; moved to {target}")
        return notes

    def clear_partial(self) -> None:
        """Remove what an interrupted write left behind."""
        if is_remote(self.path):
            return
        shutil.rmtree(self.path / "partial", ignore_errors=True)
        for pattern in LEFT_BEHIND:
            for path in self.path.glob(pattern):  # files that were being replaced
                if not path.parent.is_symlink():
                    path.unlink(missing_ok=True)


def _packed(path: Path, packed: PackedGroup) -> FinishedGroup:
    """Return the group of a pack; raises StoreError where it is broken."""
    folder = packed.pack.path / path
    try:
        return finished_of(parse_group(packed.record(), path), folder, packed)
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder} is broken: {brief(error, 200)}") from None


def refuse_file(path: Path) -> None:
    """Raise StoreError where a file is in a run folder's way."""
    if path.exists() and not path.is_dir():
        raise StoreError(f"Expected a folder at {path}, found a file. Give another --out.")
