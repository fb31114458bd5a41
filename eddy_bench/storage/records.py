"""Typed records of what run folders hold: run.yaml, group.json, planned.json, manifest.json."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    AliasChoices,
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


def _with_commas(text: str) -> str:
    """Return a method as on the command line; older folders hold `;` between its parameters."""
    return text.replace(";", ",")


class RunSettings(BaseModel):
    """Hold what all groups of a run folder share; every group's key covers it.

    `timesteps`, `guide`, `decoder` and `compiled` are only written where they are not the default.
    `guide` and `decoder` carry a digest of their weights. `pipeline` has the parts of a pipeline
    object by name, and what it draws in few steps.
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
    pipeline: dict[StrictStr, StrictStr] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as run.yaml and group keys hold them, without unset options."""
        optional = {
            name for name, field in RunSettings.model_fields.items() if field.default is None
        }
        values = self.model_dump()
        return {
            name: value
            for name, value in values.items()
            if name not in optional or value is not None
        }

    @property
    def digest(self) -> str:
        """A hash of the settings."""
        text = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def described(self) -> str:
        """Return what images are drawn with, on one line."""
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
    """Hold the suite of a run; methods and the scheduler are as on the command line."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: StrictStr | None = None
    methods: list[StrictStr] = Field(default_factory=list)
    metrics: list[StrictStr] | None = None
    reference: StrictStr | None = None
    weights: StrictStr | None = None


class CostMatch(BaseModel):
    """Hold one measurement of how many candidates cost as much as other methods.

    equal: the method that was asked for, empty for the slowest. methods: those measured.
    m: the number of candidates.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    equal: Annotated[str, AfterValidator(_with_commas)] = ""
    methods: list[str]
    m: StrictInt


class RunRecord(BaseModel):
    """Hold run.yaml.

    matched: measurements for methods that draw as many candidates as another one's cost pays.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    suite: SuiteRecord
    settings: RunSettings
    prompt_digest: str | None = None
    matched: list[CostMatch] = Field(
        default_factory=list, validation_alias=AliasChoices("matched", "best_of_m")
    )

    def as_dict(self) -> dict[str, Any]:
        """Return the record as run.yaml holds it."""
        data: dict[str, Any] = {
            "suite": self.suite.model_dump(exclude_unset=True),
            "settings": self.settings.as_dict(),
        }
        if self.prompt_digest is not None:
            data["prompt_digest"] = self.prompt_digest
        if self.matched:
            data["matched"] = [match.model_dump() for match in self.matched]
        return {**data, **(self.model_extra or {})}


class Scored(BaseModel):
    """Hold what the score files were made from (`from`, a hash) and a hash of the files."""

    model_config = ConfigDict(populate_by_name=True)

    state: str = Field(validation_alias=AliasChoices("state", "from"))
    files: str


class Manifest(BaseModel):
    """Hold manifest.json: versions, hardware, weights, prompts, and what was scored.

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
        return self.model_dump(by_alias=True, exclude_unset=True)

    def updated(self, **values: Any) -> Manifest:
        """Return the manifest with some entries replaced."""
        return Manifest.model_validate({**self.as_dict(), **values})


@dataclass(frozen=True, slots=True)
class FileInfo:
    """Hold the bytes and the hash of a file of a group.

    A large run holds millions: no more than these two is kept.
    """

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
    """Hold one (method, prompt, seed) with its N particles: the unit of work and statistics.

    label: the method's folder.
    parameters: `key=value,...` that differ from the defaults.
    kernel: as resolved; empty for methods without one.
    key: a hash of everything that determines the images.
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
    """Hold group.json: the group, its cost per image, its files by name, and details beside.

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
        return {"group": asdict(self.group), **own, **self.details}
