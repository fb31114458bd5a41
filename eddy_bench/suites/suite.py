"""Suites: the description of a run, from YAML and flags."""

from __future__ import annotations

from collections.abc import Mapping
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


class Suite(BaseModel):
    """A resolved run.

    `guidance_scale` has diffusers' meaning (1 is none); `size` is the image's side in pixels;
    `seeds` is a count; `batch_prompts` prompts share a forward pass; `auto` begins with 8 and
    halves when memory runs out. `methods` may hold grids (`pg:strength=1|2`). Feature kernels see
    through `guide` and `decoder`, `feature_batch` images at once; `auto` is as many as fit. None
    leaves the pipeline's or the model's own choice; of `steps` and `guidance_scale` it
    is the default of the pipeline's call.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")] = DEFAULT
    model: Annotated[str, Field(min_length=1)] = "fashion"
    revision: str | None = None
    variant: str | None = None
    methods: Annotated[list[MethodSpec], Field(min_length=1)] = [MethodSpec(name="iid")]
    prompts: str = "fashion"
    limit: Positive | None = None
    particles: Part = 4
    seeds: Positive = 1
    steps: Part | None = None
    scheduler: MethodSpec = MethodSpec(name="default")
    guidance_scale: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    negative_prompt: Annotated[str, Field(max_length=20_000)] = ""
    size: Annotated[int, Field(ge=8, le=8192)] | None = None
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    device: str = "auto"
    batch_prompts: Part | Literal["auto"] = "auto"
    timesteps: Spacing = "default"
    guide: str | None = None
    decoder: str | None = None
    feature_batch: Part | Literal["auto"] = "auto"
    offload: bool = False
    compile: bool = False
    metrics: list[str] | None = None
    reference: str | None = None
    weights: str | None = None
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
