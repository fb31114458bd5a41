"""Suites: the description of a run, from YAML and flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from eddy_bench.errors import ParameterError, SuiteError, UnknownName, unknown
from eddy_bench.storage.files import MAX_METHODS, read_yaml, refuse_more
from eddy_bench.storage.paths import is_reserved
from eddy_bench.suites.method_spec import MethodSpec, expand, is_file_plugin
from eddy_bench.suites.plugins import Permission

FOLDER = Path(__file__).parents[1] / "data" / "suites"
PAPERS = FOLDER / "papers"
DEFAULT = "fashion"
MAX_BYTES = 4 * 2**20

Positive = Annotated[int, Field(ge=1)]
Part = Annotated[int, Field(ge=1, le=10_000)]  # of one call of a pipeline
Spacing = Literal["default", "karras", "exponential", "beta", "trailing", "ays"]
AUTO_PROMPTS = 8
DRAW, MODEL, GUIDE, SCORING = "What to draw", "Model", "Guide network", "Scoring"
EXECUTION = "Execution"


@dataclass(frozen=True)
class Flag:
    """A field as an option of `run`.

    group: heading of the help under which it stands.
    listed: what `eddy-bench list` offers as values, if anything.
    option: its name where that is not the field's.
    """

    help: str
    group: str
    listed: str = ""
    option: str = ""


class Suite(BaseModel):
    """A resolved run; every field but the name is an option of `run` (see `Flag`).

    `guidance_scale` has diffusers' meaning (1 is none). `methods` may hold grids
    (`pg:strength=1|2`). None leaves the pipeline's or the model's own choice; of `steps` and
    `guidance_scale` it is the default of the pipeline's call.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")] = DEFAULT
    methods: Annotated[
        list[MethodSpec],
        Field(min_length=1),
        Flag(
            "name:key=value,... or FILE.py:Name:key=value,...; replaces the suite's. Repeatable.",
            DRAW,
            "methods",
            "method",
        ),
    ] = [MethodSpec(name="iid")]
    prompts: Annotated[
        str,
        Flag(
            "A set's name; a YAML, text, JSON, CSV or TSV file (FILE:COLUMN); "
            "or a hub data set owner/name[:split[:column]].",
            DRAW,
            "prompts",
        ),
    ] = "fashion"
    limit: Annotated[Positive | None, Flag("Only the first prompts.", DRAW)] = None
    particles: Annotated[Part, Flag("Images per prompt and seed, N.", DRAW)] = 4
    seeds: Annotated[Positive, Flag("How many seeds per prompt.", DRAW)] = 1
    steps: Annotated[Part | None, Flag("Solver steps.", DRAW)] = None
    scheduler: Annotated[
        MethodSpec,
        Flag("name:key=value,... such as ddim, ddim:eta=1, dpmpp-2m.", DRAW, "schedulers"),
    ] = MethodSpec(name="default")
    timesteps: Annotated[Spacing, Flag("Spacing of the timesteps.", DRAW)] = "default"
    guidance_scale: Annotated[
        Annotated[float, Field(ge=0, allow_inf_nan=False)] | None,
        Flag("Classifier-free guidance as in diffusers; 1 is none.", DRAW),
    ] = None
    negative_prompt: Annotated[
        str, Field(max_length=20_000), Flag("The negative prompt of every prompt.", DRAW)
    ] = ""
    size: Annotated[
        Annotated[int, Field(ge=8, le=8192)] | None, Flag("Image side in pixels.", DRAW)
    ] = None
    model: Annotated[
        str,
        Field(min_length=1),
        Flag("'fashion' (embedded), a folder saved by diffusers, or a hub id.", MODEL, "models"),
    ] = "fashion"
    revision: Annotated[str | None, Flag("Revision of a hub id.", MODEL)] = None
    variant: Annotated[
        str | None, Flag("Weight variant of a hub id, e.g. fp16; '' for none.", MODEL)
    ] = None
    lora: Annotated[
        list[str],
        Flag(
            "LoRA weights to fuse, FILE.safetensors or FILE.safetensors:SCALE. Repeatable.",
            MODEL,
        ),
    ] = []
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"], Flag("Precision of the model.", MODEL)
    ] = "float32"
    offload: Annotated[
        bool, Flag("Keep only the part at work on the GPU, decode in slices.", MODEL)
    ] = False
    compile: Annotated[
        bool, Flag("Compile the denoiser; the first batch takes longer, others less.", MODEL)
    ] = False
    guide: Annotated[
        str | None,
        Flag(
            "Backbone of feature kernels: auto (DINOv2), dino, timm:MODEL[@SIZE], "
            "open_clip:MODEL/WEIGHTS.",
            GUIDE,
        ),
    ] = None
    decoder: Annotated[
        str | None,
        Flag("An AutoencoderTiny that decodes for the guide: a folder or hub id.", GUIDE),
    ] = None
    feature_batch: Annotated[
        Part | Literal["auto"],
        Flag("Images that go through decoder and guide at once; auto is as many as fit.", GUIDE),
    ] = "auto"
    metrics: Annotated[
        list[str] | None,
        Flag(
            "name[extractor]:key=value or FILE.py:name; replaces the model's own. Repeatable.",
            SCORING,
            "metrics",
            "metric",
        ),
    ] = None
    reference: Annotated[
        str | None,
        Flag(
            "A folder of real images for fd, fid, kid, precision, recall; or a file of "
            "eddy-bench reference.",
            SCORING,
        ),
    ] = None
    weights: Annotated[
        str | None,
        Flag("A folder with weights, of metrics or the guide, that cannot be downloaded.", SCORING),
    ] = None
    device: Annotated[str, Flag("auto, cpu, cuda, cuda:1, mps.", EXECUTION)] = "auto"
    batch_prompts: Annotated[
        Part | Literal["auto"],
        Flag(
            f"Prompts that share a forward pass; auto begins with {AUTO_PROMPTS} and halves them "
            "when memory runs out.",
            EXECUTION,
        ),
    ] = "auto"
    _granted: dict[str, Permission] = PrivateAttr(default_factory=dict)

    def permission(self, key: Literal["methods", "metrics"]) -> Permission | None:
        """Return the permission to run the Python files that a key names; no file can set it."""
        return self._granted.get(key)

    def granted(self, permissions: Mapping[str, Permission | None]) -> Self:
        """Return the suite with permissions for some of its keys."""
        suite = self.model_copy()
        suite._granted = {key: given for key, given in permissions.items() if given is not None}
        return suite

    @field_validator("methods", mode="before")
    @classmethod
    def _methods(cls, value: Any) -> Any:
        return _expanded(value) if isinstance(value, list) else value

    @field_validator("name", mode="after")
    @classmethod
    def _name(cls, value: str) -> str:
        if is_reserved(value):
            raise ValueError("a name that cannot be a folder's on every system")
        return value

    @field_validator("scheduler", mode="before")
    @classmethod
    def _scheduler(cls, value: Any) -> Any:
        return _named(value)

    @field_validator("variant", mode="after")
    @classmethod
    def _variant(cls, value: str | None) -> str | None:
        return value or None  # an empty one takes away what a suite names

    @property
    def first_batch(self) -> int:
        """Number of prompts that share the first forward pass."""
        return AUTO_PROMPTS if self.batch_prompts == "auto" else self.batch_prompts


def _expanded(entries: list[Any]) -> list[Any]:
    """Spell out the grids of methods; an entry that is no method is left to the validation."""
    methods: list[Any] = []
    for entry in map(_named, entries):
        methods += expand(entry) if isinstance(entry, MethodSpec) else [entry]
        refuse_more(
            [len(methods)], MAX_METHODS, "methods of a suite", "Give fewer values.", ParameterError
        )
    return methods


def _named(entry: Any) -> Any:
    """Read `pg:strength=2`, or {pg: {strength: 2}}."""
    if isinstance(entry, str):
        return MethodSpec.parse(entry)
    if (
        isinstance(entry, dict)
        and set(entry) == {"name", "parameters"}
        and isinstance(entry["parameters"], dict)
    ):
        return _named({entry["name"]: entry["parameters"]})
    if isinstance(entry, dict) and len(entry) == 1:
        ((name, parameters),) = entry.items()
        if isinstance(name, str) and (parameters is None or isinstance(parameters, dict)):
            spec = MethodSpec.parse(name)
            return MethodSpec(
                name=spec.name,
                parameters=spec.parameters
                | {str(key): value for key, value in (parameters or {}).items()},
            )
    return entry


def suite_names() -> list[str]:
    """Return the names of the suites that come with the package."""
    return sorted(suite_files())


def suite_files() -> dict[str, Path]:
    """Return the suites that come with the package, by name."""
    return {path.stem: path for folder in (FOLDER, PAPERS) for path in folder.glob("*.yaml")}


def load_suite(
    source: str | None,
    overrides: dict[str, Any] | None = None,
    typed: Permission | None = None,
    allow_code: Permission | None = None,
) -> Suite:
    """Load a suite by name or from a file, with flags on top.

    Args:
        source: a suite's name or a YAML file; None is `fashion`.
        overrides: keys of `Suite` that replace the file's.
        typed: to run the Python files that `overrides` name.
        allow_code: to run those that the suite's file names.

    Raises:
        UnknownName: neither a suite nor a file.
        SuiteError: a file that is no suite.
        ParameterError: a value out of range.
    """
    path = suite_files().get(source or DEFAULT, Path(source or DEFAULT))
    if not path.is_file() and (path.suffix or len(path.parts) > 1):
        raise SuiteError(
            f"Expected a YAML file at {path}, and there is none. "
            f"Suites by name: {', '.join(suite_names())}."
        )
    if not path.is_file():
        raise UnknownName(unknown("suite", str(source), suite_names()) + " Or give a YAML file.")
    data = _read(path)
    data.setdefault("name", path.stem)
    data = _with_sweep(path, data)
    try:
        suite = Suite.model_validate({**data, **(overrides or {})})
    except ValidationError as error:
        raise _first_problem(path, error, set(overrides or {})) from None
    given = overrides or {}
    suite = suite.granted(
        {key: typed if key in given else allow_code for key in ("methods", "metrics")}
    )
    _check_files(path, suite)
    return suite


def _check_files(path: Path, suite: Suite) -> None:
    """Say before anything is loaded which Python file would not be run; the loader refuses it."""
    names = {"methods": [str(spec) for spec in suite.methods], "metrics": suite.metrics or []}
    for key in ("methods", "metrics"):
        named = [name for name in names[key] if is_file_plugin(name)]
        if named and suite.permission(key) is None:
            raise SuiteError(
                f"{path} names the Python file {named[0]!r}, which would be run. "
                "Add --allow-code if you trust it."
            )


def _with_sweep(path: Path, data: dict[str, Any]) -> dict[str, Any]:
    """Add `sweep: {method: {parameter: [values]}}` of a suite to its methods."""
    sweep = data.pop("sweep", None)
    if sweep is None:
        return data
    if not isinstance(sweep, dict) or not all(
        isinstance(values, dict) and values for values in sweep.values()
    ):
        raise SuiteError(
            f"{path}: sweep: expected methods with a list of values per parameter, "
            "such as pg: {strength: [1, 2]}."
        )
    methods = data.get("methods", ["iid"])
    return {
        **data,
        "methods": [*methods, *({name: values} for name, values in sweep.items())]
        if isinstance(methods, list)
        else methods,
    }


def _read(path: Path) -> dict[str, Any]:
    data = read_yaml(path, SuiteError, "a suite", MAX_BYTES)
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise SuiteError(f"{path}: expected a mapping of suite keys, got {type(data).__name__}.")
    return data


def _first_problem(
    path: Path, error: ValidationError, flags: set[str]
) -> SuiteError | ParameterError:
    problem = error.errors()[0]
    key = str(problem["loc"][0]) if problem["loc"] else ""
    location = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return SuiteError(f"{path}: " + unknown("key", location, Suite.model_fields))
    got = str(problem.get("input"))[:80]
    if key in flags:
        return ParameterError(f"--{key.replace('_', '-')}: {problem['msg']}, got {got!r}.")
    return SuiteError(f"{path}: {location}: {problem['msg']}, got {got!r}.")
