"""Typed records of what run folders hold: run.yaml, group.json, planned.json, manifest.json."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import asdict, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
)
from pydantic.dataclasses import dataclass

from eddy_bench.ids import MethodId

LARGEST_COST = 1e300
OPTIONAL = ("negative", "tags")  # of a group: written where there is one
Fault = Literal["not finite", "safety checker"]  # why an image is none
NOT_FINITE: Final = "not finite"
BLACKED: Final = "safety checker"
_WHOLE = re.compile(r"(=-?\d+)\.0(?=,|$)")


def method_text(name: str, parameters: str) -> str:
    """Return a method as every table names it, whole numbers without `.0`, from stored texts.

    >>> method_text("pg", "strength=2.0,kernel=features"), method_text("iid", "")
    ('pg:strength=2,kernel=features', 'iid')
    """
    return _WHOLE.sub(r"\1", f"{name}:{parameters}" if parameters else name)


@lru_cache(maxsize=1024)  # a run has few methods and many groups
def _method_id(name: str, parameters: str) -> MethodId:
    return MethodId(name, parameters)


def _bounded(cost: float) -> float:
    if not abs(cost) <= LARGEST_COST:  # nor is NaN
        raise ValueError("expected a number that can be summed")
    return cost


class RunSettings(BaseModel):
    """What all groups of a run folder share; every group's key covers it.

    Fields that have a default are only written where they differ from it. `guide` and `decoder`
    carry a digest of their weights. `pipeline` has the parts of a pipeline object by name, and
    what it draws in few steps. `imported` images were drawn elsewhere, with settings that are not
    known.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    model: StrictStr
    revision: StrictStr | None
    variant: StrictStr | None
    weights_fingerprint: StrictStr
    scheduler: StrictStr
    steps: StrictInt
    guidance_scale: StrictFloat
    negative_prompt: StrictStr
    particles: StrictInt
    size: StrictInt | None
    dtype: StrictStr
    timesteps: StrictStr | None = None
    guide: StrictStr | None = None
    decoder: StrictStr | None = None
    compiled: StrictBool | None = None
    imported: StrictBool | None = None
    lora: list[StrictStr] | None = None
    pipeline: dict[StrictStr, StrictStr] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as run.yaml and group keys hold them."""
        return self.model_dump(exclude_defaults=True)

    @property
    def digest(self) -> str:
        """A hash of the settings."""
        text = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def described(self) -> str:
        """Return what images are drawn with, on one line."""
        if self.imported:
            return f"{self.model}: images drawn elsewhere, with settings that are not known"
        size = "the model's own size" if self.size is None else f"{self.size} pixels"
        spacing = f" spaced by {self.timesteps}" if self.timesteps else ""
        return (
            f"{self.model}: guidance {self.guidance_scale:g}, {self.steps} steps{spacing}, {size}, "
            f"{self.scheduler}, {self.dtype}"
        )

    def covered(self) -> dict[str, Any]:
        """Return what every group's key covers; a pipeline object's digest stands for its parts."""
        return {name: value for name, value in self.as_dict().items() if name != "pipeline"}

    def differences(self, now: RunSettings) -> dict[str, str]:
        """Return in what this run differs from another: a text by the setting's name, in order."""
        if self.imported != now.imported:
            there, here = (
                "images drawn elsewhere" if own.imported else "images that it drew itself"
                for own in (self, now)
            )
            return {"imported": f"{there} there, {here} now"}
        mine, theirs = self._named(), now._named()
        changed = [
            name for name in dict.fromkeys([*mine, *theirs]) if mine.get(name) != theirs.get(name)
        ]
        if any(name.startswith("pipeline ") for name in changed):
            changed = [name for name in changed if name != "weights_fingerprint"]  # made of them
        shown = {
            name: f"{name} {mine.get(name)!r} there, {theirs.get(name)!r} now" for name in changed
        }
        drawn = [each.pipeline["draws"] for each in (self, now) if each.pipeline]
        if not shown and len(drawn) == 2 and not same_thumbnail(*drawn):
            shown["pipeline draws"] = "pipeline draws other images than it did from the same noise"
        return shown

    def _named(self) -> dict[str, Any]:
        parts = {name: text for name, text in (self.pipeline or {}).items() if name != "draws"}
        return {**self.covered(), **{f"pipeline {name}": text for name, text in parts.items()}}


def same_thumbnail(one: str, other: str) -> bool:
    """Return whether two small pictures are equal but for what rounding elsewhere may change.

    They are the values of their pixels in hexadecimal digits, two each.
    """
    values = [bytes.fromhex(text) for text in (one, other)]
    return len(one) == len(other) and all(abs(a - b) <= 1 for a, b in zip(*values, strict=True))


class SuiteRecord(BaseModel):
    """The suite of a run; methods and the scheduler are as on the command line."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: StrictStr | None = None
    methods: list[StrictStr] = Field(default_factory=list)
    metrics: list[StrictStr] | None = None
    reference: StrictStr | None = None
    weights: StrictStr | None = None


class CostMatch(BaseModel):
    """One measurement of how many candidates, m, cost as much as other methods.

    equal: the method to match, empty for the slowest. methods: those measured.
    """

    model_config = ConfigDict(frozen=True)

    equal: str = ""
    methods: list[str]
    m: StrictInt


class RunRecord(BaseModel):
    """What run.yaml holds.

    matched: measurements for methods that draw as many candidates as another one's cost pays.
    """

    model_config = ConfigDict(frozen=True)

    suite: SuiteRecord
    settings: RunSettings
    prompt_digest: str | None = None
    matched: list[CostMatch] = []

    def as_dict(self) -> dict[str, Any]:
        """Return the record as run.yaml holds it."""
        return {
            "suite": self.suite.model_dump(exclude_unset=True),
            "settings": self.settings.as_dict(),
            **self.model_dump(include={"prompt_digest", "matched"}, exclude_defaults=True),
        }


class Scored(BaseModel):
    """A hash of what the score files were made from, and one of the files."""

    state: str
    files: str


class Manifest(BaseModel):
    """What manifest.json holds: versions, hardware, weights, prompts, and what was scored.

    environments: versions and hardware that drew images, each once.
    settings: a hash of the settings of run.yaml that the images were drawn with.
    scored_images: a hash of each method's images as they were scored, by its label.
    """

    model_config = ConfigDict(extra="allow")

    environments: list[dict[str, Any]] = Field(default_factory=list)
    settings: str | None = None
    scored: Scored | None = None
    scored_images: dict[str, str] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the record as manifest.json holds it."""
        return self.model_dump(exclude_unset=True)

    @property
    def tags(self) -> dict[str, dict[str, str]]:
        """What the prompt set says of its prompts now, by their ids."""
        prompts = (self.model_extra or {}).get("prompts")
        tags = prompts.get("tags") if isinstance(prompts, dict) else None
        return tags if isinstance(tags, dict) else {}

    def updated(self, **values: Any) -> Manifest:
        """Return the manifest with some entries replaced."""
        return Manifest.model_validate({**self.as_dict(), **values})


@dataclass(frozen=True, slots=True)
class FileInfo:
    """The bytes and the hash of a file of a group; a large run holds millions of them."""

    size: StrictInt
    sha256: StrictStr

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Return those of a file's content."""
        return cls(size=len(content), sha256=hashlib.sha256(content).hexdigest())


def _encodable(text: str) -> str:
    text.encode()  # halves of surrogate pairs are no text
    return text


PlainText = Annotated[StrictStr, AfterValidator(_encodable)]
SharedText = Annotated[PlainText, AfterValidator(sys.intern)]  # stored once over all groups
SharedName = Annotated[str, AfterValidator(sys.intern)]
CostValue = Annotated[StrictFloat, AfterValidator(_bounded)]


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class Group:
    """One (method, prompt, seed) with its N particles: the unit of work and statistics.

    label: the method's folder.
    parameters: `key=value,...` that differ from the defaults.
    kernel: as resolved; empty for methods without one.
    key: a hash of everything that determines the images.
    negative: the prompt's own negative prompt; empty for the run's.
    tags: what the prompt set says of the prompt, such as its category, by name.
    """

    method: SharedText
    label: SharedText
    parameters: SharedText
    kernel: SharedText
    prompt_id: SharedText
    prompt: SharedText
    seed: StrictInt
    particles: StrictInt
    key: PlainText
    negative: SharedText = ""
    tags: dict[SharedText, SharedText] = field(default_factory=dict, hash=False, compare=False)

    @property
    def name(self) -> str:
        """The method as the command line, score files and every table name it."""
        return str(self.id)

    @property
    def id(self) -> MethodId:
        """The method with its parameters."""
        return _method_id(self.method, self.parameters)

    @property
    def path(self) -> Path:
        """Return the group's folder below `samples/`."""
        return Path(self.label, self.prompt_id, str(self.seed))


class GroupRecord(BaseModel):
    """What group.json holds: the group, its cost per image, its files by name, and details.

    bad: images that are none, by their place, and why. judge: the network that judged images by
    their prompt while drawing. Both are only written where there are any.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    group: Group
    cost: dict[SharedName, CostValue]
    files: dict[SharedName, FileInfo]
    bad: dict[Annotated[int, Field(ge=0)], Fault] = Field(default_factory=dict)
    judge: SharedName = ""

    @property
    def details(self) -> dict[str, Any]:
        """What stands beside the group, its cost and its files."""
        return self.model_dump(exclude={"group", "cost", "files"}, exclude_defaults=True)

    def as_dict(self) -> dict[str, Any]:
        """Return the record as group.json holds it."""
        own = self.model_dump(include={"cost", "files"})
        group = asdict(self.group)
        kept = {name: group[name] for name in group if group[name] or name not in OPTIONAL}
        return {"group": kept, **own, **self.details}
