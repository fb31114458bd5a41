"""What a `steer` block tells of its calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from eddy_bench.errors import EddyError, ModelError, ParameterError, SchedulerError
from eddy_bench.sampling.families import Family, denoiser, family_of
from eddy_bench.sampling.feature_maps import FeatureMap
from eddy_bench.sampling.hooks import Hooks
from eddy_bench.sampling.noise import condition_generators, probe_generator
from eddy_bench.sampling.solver_view import Coordinates, SolverView, can_be_read, view_of
from eddy_bench.sampling.state import State, StepInfo


@dataclass
class Steering:
    """A record of a `steer` block."""

    steps: int = 0  # of the solver
    # particles that were not given up in the last call, (G, N), bool; None: all
    active: Tensor | None = None
    # latents at the end of the last call, (G, N, d); None where it did not return
    finished: Tensor | None = None
    calls_outside: int = 0  # calls from other threads and tasks, which were bare


def check_earlier(earlier: Tensor, particles: Tensor) -> None:
    """Raise ParameterError for earlier latents of other groups than the particles (G, N, d)."""
    groups, _, dimension = particles.shape
    if earlier.ndim != 3 or (earlier.shape[0], earlier.shape[2]) != (groups, dimension):
        raise ParameterError(
            f"Expected earlier of shape ({groups}, M, {dimension}), got {tuple(earlier.shape)}. "
            "Give `finished` of the records of earlier calls."
        )


MapMaker = Callable[[tuple[int, ...]], FeatureMap]
Transform = Callable[[Tensor], Tensor]  # (rows, *shape) to the same

# What stands in the way of a hook, told where a call never reached it.
CAUSES = {
    "step_noise": "the solver draws its noise elsewhere, or none",
    "restart_noise": "the call ended before the noise level from which it goes back",
    "improved_start": "the pipeline does not ask its scheduler for timesteps",
    **dict.fromkeys(("guidance", "active"), "the pipeline does not call its scheduler's `step`"),
    **dict.fromkeys(
        ("initial_noise", "initial_field"),
        "`latents=` was passed, or this pipeline draws its start elsewhere",
    ),
    **dict.fromkeys(
        ("condition", "features_of", "guidance_scale", "combine"),
        "the network is compiled, or the pipeline evaluates another one",
    ),
}


@dataclass(frozen=True)
class Settings:
    """What `steer` was given; see there."""

    particles: int | None = None
    features: MapMaker | None = None
    probes: Sequence[torch.Generator] | None = None
    generator: Sequence[torch.Generator] | None = None
    seed: int = 0
    streams: Sequence[torch.Generator] | None = None
    keep: int | None = None
    earlier: Tensor | None = None
    quality: Callable[[Tensor], Tensor] | None = None
    seen: Callable[[State], None] | None = None


@dataclass
class Call:
    """All that is true of one call of a pipeline. Nothing of it outlives the call."""

    pipe: Any  # that is called
    method: Hooks  # whose hooks are called
    settings: Settings  # of the block
    arguments: dict[str, Any]  # of the call, defaults included
    record: Steering  # of the block
    view: SolverView = field(init=False)  # of the pipeline's scheduler
    family: Family = field(init=False)  # of the pipeline
    prompts: int = field(init=False)  # how many
    # of the pipeline that the method acts on, as the call begins
    parts: list[Any] = field(init=False)
    readable: bool = field(init=False)
    looks: bool = field(init=False)  # the state before each step is looked at
    unit: float = field(init=False)  # of the solver's samples
    # index of the solver's step at which the call begins; None before its first
    first: int | None = None
    coming: int | None = None  # index of the coming step where the solver keeps none itself
    # indices of the solver's steps as the loop goes through them, where there are more
    order: list[int] = field(default_factory=list)
    place: int = 0  # in `order`
    own: Tensor | None = None  # the scheduler's timesteps while longer ones hide them
    starting: bool = False  # a step at the start is due, which sees the conditional branch alone
    guided: bool = False  # a null branch was seen
    # output of the conditional branch of separate calls, until the null branch comes
    held: tuple[int, Tensor] | None = None
    transform: Transform | None = None  # change of the solver's draws while it steps
    last: Tensor | None = None  # sample that the last step ended with
    steps_done: int = 0  # of the solver, in this call
    active: Tensor | None = None  # particles that are not given up, (G, N), bool; None: all
    # `active`, the rows that it leaves, and which of them stands for each row; on the device
    places: tuple[Tensor, Tensor, Tensor] | None = None
    memory: dict[str, Any] = field(default_factory=dict)  # of the method
    # feature maps by the shape of a particle
    maps: dict[tuple[int, ...], FeatureMap] = field(default_factory=dict)
    called: set[str] = field(default_factory=set)  # hooks that were called
    # step, noise level, and whether guidance was finite there, which is read at the end: to read it
    # is to wait for the device
    finite: list[tuple[int, float, Tensor]] = field(default_factory=list)
    _probes: tuple[torch.Generator, ...] = ()
    _streams: tuple[torch.Generator, ...] = ()

    def __post_init__(self) -> None:
        self.view, self.family = view_of(self.scheduler), family_of(self.pipe)
        self.readable = can_be_read(self.scheduler)
        self.looks = self.method.reads_state or self.settings.seen is not None
        self.unit = self.view.unit
        self.prompts = prompts_in(self.arguments)
        self.parts = self._present_parts()
        if self.particles is not None:
            self._check_company(self.particles)

    @property
    def scheduler(self) -> Any:
        """The pipeline's."""
        return self.pipe.scheduler

    @property
    def scale(self) -> float:
        """The scale w of guidance, which callbacks may change where a pipeline keeps it."""
        name = self.family.scale
        told = vars(self.pipe).get(f"_{name}", self.arguments.get(name))
        return self.family.weight({name: told})

    def _present_parts(self) -> list[Any]:
        network = self.method.changes_network or self.method.edits_features
        return [self.scheduler] * self.looks + ([denoiser(self.pipe)] if network else [])

    # -- particles ------------------------------------------------------------------------------

    @property
    def each(self) -> int | None:
        """Images per prompt by the call's arguments; None where it takes no such argument."""
        each = self.arguments.get("num_images_per_prompt")
        return None if each is None else int(each)

    @property
    def rows(self) -> int:
        """Latents of the call."""
        return self.prompts * (self.each or 1)

    @property
    def particles(self) -> int | None:
        """Rows per prompt; None where only the rows tell."""
        return self.settings.particles or self.each

    def count(self, rows: int) -> int:
        """Return the particles per group."""
        count = self.particles or max(rows // self.prompts, 1)
        if rows % count:
            raise ParameterError(
                f"Expected a multiple of {count} rows, got {rows}. Set particles= in steer()."
            )
        if count < self.method.min_particles:
            raise ParameterError(
                f"Expected at least {self.method.min_particles} particles for this method, "
                f"got {count}."
            )
        self._check_company(count)
        return count

    def _check_company(self, count: int) -> None:
        """Raise ParameterError for a method of several particles in a call of one each."""
        method, alone = self.method, self.settings.particles is None and count == 1
        if alone and method.acting and (method.interacts or method.couples_start):
            images = f"{self.prompts} prompts" if self.prompts > 1 else "its prompt"
            raise ParameterError(
                f"{title(method)} acts between the images of one prompt, and this call draws one "
                f"image of {'each of ' if self.prompts > 1 else ''}{images}, which would be iid. "
                f"Pass num_images_per_prompt=4 for one prompt, steer(..., particles=4) where a "
                "prompt is repeated, or steer(..., particles=1) to draw each alone."
            )

    # -- position -------------------------------------------------------------------------------

    @property
    def index(self) -> int:
        """Index of the coming step in the solver's timesteps."""
        own = self.view.own_index
        if own is not None:
            return own
        if self.coming is None:
            self.coming = self._begins_at()
        return self.coming

    def arrive(self, timestep: Any) -> int:
        """Return the index of the coming step, at its timestep."""
        own, told = self.view.own_index, self.coming
        if own is None and self.readable:
            own = self.view.place(timestep)
        if own is None and self.readable:
            if told is not None and torch.as_tensor(self.view.timesteps[told]) == timestep:
                own = told
            else:
                indices = self.view.indices(timestep)
                likely = self._begins_at()
                own = likely if likely in indices else (indices or [0])[0]
        index = self.steps_done if own is None else own
        if self.first is not None and not self.steps_done and self.first != index:
            raise SchedulerError(
                f"Where this call of {type(self.pipe).__name__} begins is known too late: its "
                f"network was evaluated for step {self.first + 1}, its scheduler is at step "
                f"{index + 1}. Use another scheduler, or a method that acts at its steps."
            )
        self._begin(index)
        self.coming = index
        return index

    def _begins_at(self) -> int:
        """Return the index of the first step of a call, as its pipeline says."""
        whole, told = len(self.view.timesteps), self._told_steps
        given = any(
            self.arguments.get(name) is not None for name in ("strength", "denoising_start")
        )
        return whole - told if given and told is not None and told <= whole else 0

    def check_whole(self, index: int = 0) -> None:
        """Raise ModelError for steps of the method's own in a call that begins later.

        Args:
            index: of the first step, where it is known.
        """
        strength, start = (self.arguments.get(name) for name in ("strength", "denoising_start"))
        late = index or start is not None or (strength is not None and strength < 1)
        if late and len(self.order) > len(self.view.timesteps):
            raise ModelError(
                f"{title(self.method)} takes steps of its own and needs a call that begins at "
                "pure noise. Leave strength and denoising_start out."
            )

    @property
    def _told_steps(self) -> int | None:
        """The steps of the loop as the pipeline counts them, without extra ones."""
        told = vars(self.pipe).get("_num_timesteps")
        extra = max(len(self.order) - len(self.view.timesteps), 0) if self.order else 0
        return told - extra if isinstance(told, int) else None

    def _begin(self, index: int) -> None:
        if self.first is None:
            self.first = index
            self.check_whole(index)

    @property
    def steps(self) -> int:
        """Steps of this call: those of the solver from its first one on that the loop goes to."""
        rest, told = len(self.view.timesteps) - (self.first or 0), self._told_steps
        return max(rest if told is None or not 0 < told <= rest else told, 1)

    def step(self, index: int) -> int:
        """Return how many steps of the call lie before a step of the solver."""
        self._begin(index)
        return max(index - (self.first or 0), 0)

    # -- what a method sees ---------------------------------------------------------------------

    def info(self) -> StepInfo:
        """Return the info of the coming network evaluation."""
        index, view = self.index, self.view
        step, at = self.step(index), view.at(index)
        return StepInfo(
            step=step,
            steps=self.steps,
            sigma=at.sigma,
            sigma_next=view.sigma_next(index),
            time=view.time(index),
            pure_noise=at.pure_noise,
            scale=self.scale if self.scale != 1 else None,
            memory=self.memory,
        )

    def state(self, index: int, coordinates: Coordinates, sample: Tensor, output: Tensor) -> State:
        """Return the state that the method sees before a step."""
        count, shape = self.count(len(sample)), tuple(sample.shape[1:])
        if shape not in self.maps and self.settings.features is not None:
            self.maps[shape] = self.settings.features(shape)
        particles, eps, denoised = (
            value.reshape(len(sample) // count, count, -1)
            for value in coordinates.read(sample, output)
        )
        if self.settings.earlier is not None:
            check_earlier(self.settings.earlier, particles)
        step = self.step(index)
        return State(
            particles=particles,
            score=eps / -coordinates.sigma,
            denoised=denoised,
            sigma=coordinates.sigma,
            share=step / self.steps,
            step=step,
            steps=self.steps,
            pure_noise=coordinates.pure_noise,
            generators=self.generators(len(particles)),
            features=self.maps.get(shape),
            sigma_next=self.view.sigma_next(index),
            memory=self.memory,
            earlier=self.settings.earlier,
            quality=self.settings.quality,
        )

    def generators(self, groups: int) -> tuple[torch.Generator, ...]:
        """Return a generator per group, for probes and couplings."""
        if len(self._probes) != groups:
            given = self.settings.probes
            self._probes = (
                copies(given)
                if given is not None
                else tuple(
                    probe_generator(self.settings.seed, str(group)) for group in range(groups)
                )
            )
        return self._probes

    def streams(self, rows: int) -> tuple[torch.Generator, ...]:
        """Return a generator per row for noise on conditions."""
        if len(self._streams) != rows:
            given, count = self.settings.streams, self.count(rows)
            self._streams = (
                copies(given)
                if given is not None
                else tuple(
                    generator
                    for group in range(rows // count)
                    for generator in condition_generators(
                        self.settings.seed, str(group), range(count)
                    )
                )
            )
        return self._streams

    # -- the end --------------------------------------------------------------------------------

    def end(self) -> None:
        """End a call that returned.

        Raises:
            EddyError: the guidance was not finite.
            SchedulerError: no row of its last sample is finite.
            ModelError: it never reached a hook of the method.
        """
        self.check_guidance()
        if self.last is not None:
            rows = self.particles or len(self.last)
            self.record.finished = self.last.reshape(-1, rows, self.last[0].numel()) / self.unit
            self.check_finite(self.last)
        self._check_acted()

    def check_guidance(self) -> None:
        """Raise EddyError for guidance that was not finite, once."""
        told, self.finite = self.finite, []
        whole = torch.stack([flag for *_, flag in told]).tolist() if told else []
        for (step, sigma, _), fit in zip(told, whole, strict=True):
            if not fit:
                raise EddyError(
                    f"The guidance is not finite at step {step} "
                    f"(noise level sigma / alpha = {sigma:.3g}). Lower the strength."
                )

    def check_finite(self, sample: Tensor) -> None:
        """Raise SchedulerError for a sample none of whose rows is finite.

        One row among others that is not costs them nothing: who draws says that it is no image.
        """
        if not sample.isfinite().flatten(1).all(1).any():
            raise SchedulerError(
                f"{type(self.scheduler).__name__} ended with values that are not finite. "
                "Use another --scheduler, or float32."
            )

    def _check_acted(self) -> None:
        parts = zip(self.parts, self._present_parts(), strict=True)
        if any(before is not after for before, after in parts):
            raise ModelError(
                f"{title(self.method)} did not act in all of this call of "
                f"{type(self.pipe).__name__}: its scheduler or its network was exchanged on the "
                "way. Exchange it between calls."
            )
        interrupted = getattr(self.pipe, "_interrupt", False)
        expected = set(self.method.acting)
        if self.settings.keep is None or self.particles == self.settings.keep:
            expected.discard("active")
        if self.particles == 1:
            expected.discard("improved_start")
        if self.called & {"initial_noise", "initial_field"}:
            expected -= {"initial_noise", "initial_field"}
        missing = sorted(expected - self.called)
        if missing and not interrupted:
            raise ModelError(
                f"{title(self.method)} did not act: its hook {missing[0]!r} was never called in "
                f"this call of {type(self.pipe).__name__}. Likely {CAUSES[missing[0]]}."
            )


# Of the pipeline that is being called in this thread and task, by its blocks in order of opening
ACTIVE: ContextVar[tuple[Call, ...]] = ContextVar("active calls", default=())


def title(method: Hooks) -> str:
    """Return a method's name."""
    return str(getattr(method, "name", "") or type(method).__name__)


def prompts_in(arguments: dict[str, Any]) -> int:
    """Return how many prompts a call has."""
    prompts = arguments.get("prompt")
    if prompts is None:
        prompts = arguments.get("prompt_embeds")
    return 1 if isinstance(prompts, str) or prompts is None else max(len(prompts), 1)


def copies(generators: Sequence[torch.Generator]) -> tuple[torch.Generator, ...]:
    """Return copies of generators at their states; one that comes twice is one again."""
    made: dict[int, torch.Generator] = {}
    for each in generators:
        if id(each) not in made:
            made[id(each)] = torch.Generator(each.device).set_state(each.get_state())
    return tuple(made[id(each)] for each in generators)
