"""The run folder: groups that are whole or absent, and files that are replaced in one step."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from PIL import Image
from pydantic import TypeAdapter

from eddy_bench.errors import StoreError, brief, why
from eddy_bench.storage.files import parse_json, parse_yaml, write_text
from eddy_bench.storage.group import (
    FinishedGroup,
    Group,
    GroupGrid,
    entry_of,
    parse_group,
    png_bytes,
)
from eddy_bench.storage.group_index import Index
from eddy_bench.storage.paths import (
    Files,
    files_below,
    is_remote,
    move_remote,
    read_many,
    write_many,
)

SETTINGS = (
    "model",
    "revision",
    "variant",
    "weights_fingerprint",
    "scheduler",
    "steps",
    "guidance_scale",
    "negative_prompt",
    "particles",
    "size",
    "dtype",
)
OURS = (".lock", ".lease", "samples", "partial")  # of a run that ended before its first group
LEFT_BEHIND = (
    ".run.yaml-*.tmp",
    ".*.json-*.tmp",
    ".s*.csv-*.tmp",
    ".scores.parquet-*.tmp",
    ".*.html-*.tmp",
    "grids/.*.tmp",
    "features/*/.*.tmp",
)
PLANNED = TypeAdapter(GroupGrid)
TOGETHER = 256  # small files that are read at once
OPTIONAL = (
    "timesteps",
    "guide",
    "decoder",
)  # settings that are only there where they are not the default


def _is_ours(child: Path) -> bool:
    """Whether a run that ended before its first group left this."""
    empty = child.name in OURS and not (child.is_dir() and any(child.iterdir()))
    return empty or (child.is_file() and child.match(LEFT_BEHIND[0]))


class RunFolder:
    """`results/NAME`: run.yaml, manifest.json, samples, grids, features, scores.csv, summary.csv.

    Raises:
        StoreError: a file is in the way, the folder is not ours, cannot be written, or holds a run with other settings.

    """

    def __init__(self, path: Path, samples: str = "samples") -> None:
        self.path = path
        self.samples = path / samples
        self.index = Index(path / f"{samples}.jsonl")

    def reference(self) -> RunFolder:
        """The same folder with the disjoint i.i.d. set for drift in the place of the samples."""
        return RunFolder(self.path, "reference")

    def files(self) -> Files:
        """The files below its samples; of a remote folder, as they are now.

        Raises:
            StoreError: they cannot be listed.

        """
        try:
            return files_below(self.samples)
        except OSError as error:
            raise StoreError(f"{self.samples} cannot be listed: {why(error)}.") from None

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """A folder that `run` made."""
        if not (path / "run.yaml").is_file():
            raise StoreError(
                f"Expected a run folder with run.yaml, got {path}. `eddy-bench run --out {path}` makes one."
            )
        return cls(path)

    @classmethod
    def prepare(cls, path: Path, settings: dict[str, Any]) -> RunFolder:
        """Make the folder, or check that it holds a run with these settings."""
        folder = cls(path)
        if path.exists() and not path.is_dir():
            raise StoreError(f"Expected a folder at {path}, found a file. Give another --out.")
        if (path / "run.yaml").is_file():
            folder._check_settings(settings)
        elif path.is_dir() and any(not _is_ours(child) for child in path.iterdir()):
            raise StoreError(
                f"{path} holds files that are not of a run; they are left alone. Give another --out."
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

    def _check_settings(self, settings: dict[str, Any]) -> None:
        stored = self.read_run().get("settings", {})
        different = [
            name for name in (*SETTINGS, *OPTIONAL) if stored.get(name) != settings.get(name)
        ]
        if different:
            shown = "; ".join(
                f"{name} {stored.get(name)!r} there, {settings.get(name)!r} now"
                for name in different
            )
            raise StoreError(
                f"{self.path} holds a run with other settings: {shown}. Give another folder: --out {self.path}-2."
            )

    def read_run(self) -> dict[str, Any]:
        """run.yaml: `suite` and `settings`."""
        path = self.path / "run.yaml"
        try:
            data = parse_yaml(path, path.read_text(encoding="utf-8"), StoreError)
        except (OSError, UnicodeError) as error:
            raise StoreError(
                f"{path} cannot be read: {brief(error)}. Take another run folder."
            ) from None
        if not isinstance(data, dict) or not all(
            isinstance(data.get(key), dict) for key in ("settings", "suite")
        ):
            raise StoreError(
                f"{path} is not a run's: expected `suite` and `settings`. Take another run folder."
            )
        methods, settings = data["suite"].get("methods", []), data["settings"]
        if not isinstance(methods, list) or not all(isinstance(text, str) for text in methods):
            raise StoreError(
                f"{path} is not a run's: expected a list of texts in `methods`. Take another run folder."
            )
        optional = {name: data["suite"].get(name) for name in ("name", "reference", "weights")}
        metrics = data["suite"].get("metrics") or []
        listed = isinstance(metrics, list) and all(isinstance(text, str) for text in metrics)
        if not listed or any(
            value is not None and not isinstance(value, str) for value in optional.values()
        ):
            raise StoreError(
                f"{path} is not a run's: expected texts in `suite`. Take another run folder."
            )
        wrong = [
            name
            for name in SETTINGS
            if name not in settings or isinstance(settings[name], (dict, list))
        ]
        wrong += [
            name for name in ("model", "scheduler") if not isinstance(settings.get(name), str)
        ]
        if wrong:
            raise StoreError(
                f"{path} is not a run's: `{wrong[0]}` is missing in `settings`, or no single value. Take another run folder."
            )
        return data

    def write_run(self, data: dict[str, Any]) -> None:
        """Replace run.yaml."""
        write_text(
            self.path / "run.yaml", yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
        )

    def read_manifest(self) -> dict[str, Any]:
        """manifest.json, or nothing where there is none yet."""
        try:
            data = parse_json((self.path / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    def write_manifest(self, data: dict[str, Any]) -> None:
        """Replace manifest.json."""
        write_text(
            self.path / "manifest.json", json.dumps(data, indent=2, ensure_ascii=False) + "\n"
        )

    def read_planned(self) -> list[GroupGrid]:
        """planned.json: what commands set out to draw here; nothing where that is not known.

        Raises:
            StoreError: it is broken.

        """
        path = self.path / "planned.json"
        try:
            return [
                PLANNED.validate_python(one) for one in parse_json(path.read_text(encoding="utf-8"))
            ]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError) as error:
            raise StoreError(
                f"{path} cannot be read: {brief(error, 100)}. Remove it; the next run writes it."
            ) from None

    def add_planned(self, new: Iterable[GroupGrid]) -> None:
        """Add to planned.json what it does not hold yet."""
        known = self.read_planned()
        plans = list(known)
        for one in new:
            if one not in plans:
                plans.append(one)
        if plans != known:
            write_text(
                self.path / "planned.json",
                json.dumps([asdict(one) for one in plans], ensure_ascii=False) + "\n",
            )

    def load(self, place: Path, files: Files) -> FinishedGroup | None:
        """A finished group whose files are there in their sizes; None where nothing was finished.

        Args:
            files: those below the samples.

        Raises:
            StoreError: what is there is broken.

        """
        folder = self.samples / place
        if files.size(f"{place.as_posix()}/group.json") is None:
            if (
                not is_remote(folder) and folder.exists()
            ):  # a remote group is written in place, group.json last
                raise StoreError(f"{folder} has no group.json")
            return None
        try:
            return self._parsed(place, (folder / "group.json").read_bytes(), files)
        except OSError as error:
            raise StoreError(f"{folder} is broken: {why(error)}") from None

    def _parsed(self, place: Path, text: bytes, files: Files) -> FinishedGroup:
        folder = self.samples / place
        try:
            group, named, cost = parse_group(text, place)
            if not all(
                files.size(f"{place.as_posix()}/{name}") == info["size"]
                for name, info in named.items()
            ):
                raise ValueError("files differ from group.json")
        except ValueError as error:
            raise StoreError(f"{folder} is broken: {error}") from None
        return FinishedGroup(group, folder, cost, named)

    def set_aside(self, place: Path) -> Path:
        """Move a broken group out of `samples/`."""
        target, source = (
            self.path / "broken" / f"{'-'.join(place.parts)}-{time.time_ns()}",
            self.samples / place,
        )
        while target.exists():  # a clock that stands still or goes back
            target = target.with_name(f"{target.name}-again")
        if is_remote(source):
            move_remote(source, target)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(source, target)
        return target

    def write_group(
        self,
        group: Group,
        images: Sequence[Image.Image | bytes],
        cost: Any,
        details: dict[str, Any],
    ) -> FinishedGroup:
        """Write a group whole: on this machine beside its place, then one rename; remotely in place, group.json last.

        Raises:
            StoreError: the disk is full or cannot be written; what was written of it is removed.

        """
        final = self.samples / group.place
        pictures = {f"{k}.png": png_bytes(image) for k, image in enumerate(images)}
        files = {
            name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in pictures.items()
        }
        data = {
            "group": asdict(group),
            "cost": cost if isinstance(cost, dict) else asdict(cost),
            "files": files,
            **details,
        }
        text = json.dumps(data, indent=1, ensure_ascii=False).encode()
        try:
            if is_remote(final):
                write_many({final / name: content for name, content in pictures.items()})
                write_many({final / "group.json": text})
            else:
                self._write_aside({**pictures, "group.json": text}, final)
            self.failure_path(group).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                f"{final} cannot be written: {why(error)}. Finished groups are kept; run again to go on."
            ) from None
        finished = FinishedGroup(group, final, data["cost"], files)
        self.index.add([entry_of(finished, len(text))])
        return finished

    def _write_aside(self, contents: dict[str, bytes], final: Path) -> None:
        """Write a folder beside its place, and move it there; nothing is left behind where that fails."""
        staging = self.path / "partial"
        staging.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=staging))
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
        """Where a group's failure is recorded."""
        return self.path / "failed" / group.place.with_suffix(".json")

    def write_failure(self, group: Group, reason: str) -> None:
        """Record why a group could not be drawn; the next run tries again."""
        write_text(
            self.failure_path(group),
            json.dumps({"group": asdict(group), "error": reason}, indent=1, ensure_ascii=False),
        )

    def finished(
        self, labels: list[str] | None = None, broken: list[str] | None = None
    ) -> Iterator[FinishedGroup]:
        """All finished groups that are whole, by method, prompt and seed; what is wrong with the others goes into `broken`."""
        files, damaged = self.files(), False
        places = [Path(name).parent for name in files.names("*/*/*/group.json")]
        places = [place for place in places if labels is None or place.parts[0] in labels]
        for start in range(0, len(places), TOGETHER):
            part = places[start : start + TOGETHER]
            try:
                texts = read_many([self.samples / place / "group.json" for place in part])
            except OSError:
                texts = [b""] * len(part)  # one of them: each is tried alone
            for place, text in zip(part, texts, strict=True):
                try:
                    found = self._parsed(place, text, files) if text else self.load(place, files)
                except StoreError as error:
                    damaged = True
                    if broken is not None:
                        broken.append(str(error))
                    continue
                if found is not None:
                    yield found
        if damaged:
            self.index.forget()  # so that the next run looks at every group

    def clear_partial(self) -> None:
        """Remove what an interrupted write left behind."""
        if is_remote(self.path):
            return
        shutil.rmtree(self.path / "partial", ignore_errors=True)
        for pattern in LEFT_BEHIND:
            for path in self.path.glob(pattern):  # files that were being replaced
                path.unlink(missing_ok=True)
