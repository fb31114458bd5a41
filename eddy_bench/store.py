"""The run folder: groups that are whole or absent, and files that are replaced in one step."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from eddy_bench.errors import StoreError
from eddy_bench.files import write_text
from eddy_bench.index import Entry, Index

FORMAT = 1  # of what a group's key covers; changes when the same inputs give other images
SETTINGS = (
    "model", "revision", "variant", "weights_fingerprint", "scheduler", "steps", "guidance_scale", "negative_prompt", "particles", "size", "dtype",
)  # fmt: skip
OURS = (".lock", "samples", "partial")  # of a run that ended before its first group
OPTIONAL = ("timesteps", "guide", "decoder")  # settings that are only there where they are not the default


@dataclass(frozen=True)
class Group:
    """One (method, prompt, seed) with its N particles: the unit of work, of retry and of statistics.

    label: the method's folder. parameters: `key=value,...` that differ from the defaults. kernel: as resolved. key: a hash of everything that determines the images.
    """

    method: str
    label: str
    parameters: str
    kernel: str
    prompt_id: str
    prompt: str
    seed: int
    particles: int
    key: str

    @property
    def place(self) -> Path:
        """Its folder below `samples/`."""
        return Path(self.label, self.prompt_id, str(self.seed))


@dataclass(frozen=True)
class FinishedGroup:
    """A group on disk: the group, its cost per image, and the names, sizes and hashes of its files."""

    group: Group
    folder: Path
    cost: dict[str, float] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """A hash of its images, under which features of them are kept."""
        return hashlib.sha256("".join(str(info["sha256"]) for info in self.files.values()).encode()).hexdigest()

    def contents(self) -> list[bytes]:
        """The image files in order, checked against their hashes.

        Raises:
            StoreError: a file is missing or was changed.

        """
        found = []
        for name, expected in self.files.items():
            try:
                data = (self.folder / name).read_bytes()
            except OSError as error:
                raise StoreError(f"{self.folder / name} cannot be read: {error.strerror}. Run again to redraw it.") from None
            if hashlib.sha256(data).hexdigest() != expected["sha256"]:
                raise StoreError(f"{self.folder / name} was changed after it was drawn. Run again to redraw it.")
            found.append(data)
        return found

    def images(self) -> list[Image.Image]:
        """The particles in order; raises as `contents` does."""
        found: list[Image.Image] = [Image.open(io.BytesIO(data)) for data in self.contents()]
        for image in found:
            image.load()
        return found


def group_key(**parts: Any) -> str:
    """sha256 of everything that determines a group's images."""
    return hashlib.sha256(json.dumps({"format": FORMAT, **parts}, sort_keys=True, default=str).encode()).hexdigest()


def png_bytes(image: Image.Image | bytes) -> bytes:
    """An image as PNG; bytes are PNG already."""
    if isinstance(image, bytes):
        return image
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


class RunFolder:
    """`results/NAME`: run.yaml, manifest.json, samples, grids, features, scores.csv, summary.csv.

    Raises:
        StoreError: a file is in the way, the folder is not ours, cannot be written, or holds a run with other settings.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.samples = path / "samples"

    @property
    def index(self) -> Index:
        """The log of finished groups."""
        return Index(self.path / f"{self.samples.name}.jsonl")

    def reference(self) -> RunFolder:
        """The same folder with the disjoint i.i.d. set for drift in the place of the samples."""
        folder = RunFolder(self.path)
        folder.samples = self.path / "reference"
        return folder

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """A folder that `run` made."""
        if not (path / "run.yaml").is_file():
            raise StoreError(f"Expected a run folder with run.yaml, got {path}. `eddy-bench run --out {path}` makes one.")
        return cls(path)

    @classmethod
    def prepare(cls, path: Path, settings: dict[str, Any]) -> RunFolder:
        """Make the folder, or check that it holds a run with these settings."""
        folder = cls(path)
        if path.exists() and not path.is_dir():
            raise StoreError(f"Expected a folder at {path}, found a file. Give another --out.")
        if (path / "run.yaml").is_file():
            folder._check_settings(settings)
        elif path.is_dir() and any(child.name not in OURS or (child.is_dir() and any(child.iterdir())) for child in path.iterdir()):
            raise StoreError(f"{path} holds files that are not of a run; they are left alone. Give another --out.")
        try:
            folder.samples.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror}. Give another --out.") from None
        return folder

    def _check_settings(self, settings: dict[str, Any]) -> None:
        stored = self.read_run().get("settings", {})
        different = [name for name in (*SETTINGS, *OPTIONAL) if stored.get(name) != settings.get(name)]
        if different:
            shown = "; ".join(f"{name} {stored.get(name)!r} there, {settings.get(name)!r} now" for name in different)
            raise StoreError(f"{self.path} holds a run with other settings: {shown}. Give another folder: --out {self.path}-2.")

    def read_run(self) -> dict[str, Any]:
        """run.yaml: `suite` and `settings`."""
        try:
            data = yaml.safe_load((self.path / "run.yaml").read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError, ValueError) as error:
            raise StoreError(f"{self.path / 'run.yaml'} cannot be read: {error}. Give another --out.") from None
        if not isinstance(data, dict) or not all(isinstance(data.get(key), dict) for key in ("settings", "suite")):
            raise StoreError(f"{self.path / 'run.yaml'} is not a run's: expected `suite` and `settings`. Give another --out.")
        return data

    def write_run(self, data: dict[str, Any]) -> None:
        """Replace run.yaml."""
        write_text(self.path / "run.yaml", yaml.safe_dump(data, sort_keys=False, allow_unicode=True))

    def read_manifest(self) -> dict[str, Any]:
        """manifest.json, or nothing where there is none yet."""
        try:
            data = json.loads((self.path / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    def write_manifest(self, data: dict[str, Any]) -> None:
        """Replace manifest.json."""
        write_text(self.path / "manifest.json", json.dumps(data, indent=2, ensure_ascii=False) + "\n")

    def load(self, place: Path) -> FinishedGroup | None:
        """A finished group whose files are there in their sizes; None where nothing was finished.

        Raises:
            StoreError: what is there is broken.

        """
        folder = self.samples / place
        path = folder / "group.json"
        if not path.is_file():
            if folder.exists():
                raise StoreError(f"{folder} has no group.json")
            return None
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            group = Group(**data["group"])
            files, cost = dict(data["files"]), dict(data["cost"])
            sizes = all((folder / name).stat().st_size == info["size"] and Path(name).name == name for name, info in files.items())
            if len(files) != group.particles or not sizes:
                raise ValueError("files differ from group.json")
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise StoreError(f"{folder} is broken: {error}") from None
        return FinishedGroup(group, folder, cost, files)

    def set_aside(self, place: Path) -> Path:
        """Move a broken group out of `samples/`."""
        target = self.path / "broken" / f"{'-'.join(place.parts)}-{time.time_ns()}"
        while target.exists():  # a clock that stands still or goes back
            target = target.with_name(f"{target.name}-again")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(self.samples / place, target)
        return target

    def write_group(self, group: Group, images: Sequence[Image.Image | bytes], cost: Any, details: dict[str, Any]) -> FinishedGroup:
        """Write a group whole: files, then group.json, then one rename into place.

        Raises:
            StoreError: the disk is full or cannot be written; what was written of it is removed.

        """
        final = self.samples / group.place
        staging = self.path / "partial"
        try:
            staging.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=staging))
        except OSError as error:
            raise StoreError(f"{staging} cannot be written: {error.strerror}.") from None
        try:
            files = {}
            for k, image in enumerate(images):
                content = png_bytes(image)
                (folder / f"{k}.png").write_bytes(content)
                files[f"{k}.png"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            data = {"group": asdict(group), "cost": cost if isinstance(cost, dict) else asdict(cost), "files": files, **details}
            (folder / "group.json").write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")
            folder.chmod(0o755)
            final.parent.mkdir(parents=True, exist_ok=True)
            os.replace(folder, final)
            self.index.add([self.entry(group, files)])
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise StoreError(f"{final} cannot be written: {error.strerror}. Finished groups are kept; run again to go on.") from None
        self.failure_path(group).unlink(missing_ok=True)
        return FinishedGroup(group, final, data["cost"], files)

    def entry(self, group: Group, files: dict[str, dict[str, Any]]) -> Entry:
        """A finished group's line in the index."""
        sizes = {name: int(info["size"]) for name, info in files.items()}
        return Entry(group.place.as_posix(), group.key, {**sizes, "group.json": (self.samples / group.place / "group.json").stat().st_size})

    def failure_path(self, group: Group) -> Path:
        """Where a group's failure is recorded."""
        return self.path / "failed" / f"{'-'.join(group.place.parts)}.json"

    def write_failure(self, group: Group, reason: str) -> None:
        """Record why a group could not be drawn; the next run tries again."""
        write_text(self.failure_path(group), json.dumps({"group": asdict(group), "error": reason}, indent=1, ensure_ascii=False))

    def finished(self, labels: list[str] | None = None, broken: list[str] | None = None) -> Iterator[FinishedGroup]:
        """All finished groups that are whole, by method, prompt and seed; what is wrong with the others goes into `broken`."""
        if not self.samples.is_dir():
            return
        for method in sorted(path for path in self.samples.iterdir() if path.is_dir() and (labels is None or path.name in labels)):
            for path in sorted(method.glob("*/*/group.json")):
                try:
                    found = self.load(path.parent.relative_to(self.samples))
                except StoreError as error:
                    if broken is not None:
                        broken.append(str(error))
                    continue
                if found is not None:
                    yield found

    def clear_partial(self) -> None:
        """Remove what an interrupted write left behind."""
        shutil.rmtree(self.path / "partial", ignore_errors=True)
