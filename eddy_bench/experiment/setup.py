"""A suite with its model loaded: what both together settle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from eddy_bench.errors import EddyError, ModelError, ParameterError, brief
from eddy_bench.methods.base import Method
from eddy_bench.methods.iid import Iid
from eddy_bench.models.base import Cost, Model
from eddy_bench.models.defaults import (
    OwnSettings,
    call_parameters,
    own_settings,
    scale_argument,
)
from eddy_bench.models.identity import thumbnail
from eddy_bench.models.load import load_model
from eddy_bench.sampling.families import family_of
from eddy_bench.sampling.schedulers import scheduler_text, set_scheduler
from eddy_bench.sampling.solver_view import view_of
from eddy_bench.storage.records import RunSettings
from eddy_bench.suites.prompts import PromptSet, load_prompts
from eddy_bench.suites.suite import Suite

SAMPLE = "a photo"  # drawn to know a pipeline again


def on_hub(model: str) -> bool:
    """Return whether a model's name is an id of the hub."""
    return "/" in model and model[0] not in "./~" and not Path(model).exists()


@dataclass(frozen=True)
class Setup:
    """A suite and its model, with the suite's scheduler in the model's pipeline.

    given: prompts that stand for the suite's; None where it names them.
    """

    suite: Suite
    model: Model
    given: PromptSet | None = None

    @classmethod
    def open(cls, suite: Suite) -> Self:
        """Load the suite's model and put its scheduler in.

        Raises:
            EddyError: the model cannot be loaded, or cannot take the scheduler.
        """
        model = load_model(
            suite.model,
            revision=suite.revision,
            variant=suite.variant,
            dtype=suite.dtype,
            device=suite.device,
            guide=suite.guide,
            decoder=suite.decoder,
            weights=Path(suite.weights) if suite.weights else None,
            feature_batch=suite.feature_batch,
            offload=suite.offload,
            compiled=suite.compile,
            scheduler=suite.scheduler.name,
            lora=suite.lora,
        )
        return cls(suite, model).with_scheduler()

    def with_scheduler(self) -> Self:
        """Put the suite's scheduler into the pipeline.

        Raises:
            EddyError: the pipeline cannot take it.
        """
        suite, scheduler = self.suite, self.suite.scheduler
        self.model.pipe.scheduler = self.model.scheduler
        self.model.call |= set_scheduler(
            self.model.pipe, scheduler.name, scheduler.parameters, suite.timesteps, self.steps
        )
        return self

    def identified(self) -> Self:
        """Add to the parts of a pipeline object what it draws in its fewest steps, decoded.

        Raises:
            EddyError: it draws nothing as it is.
        """
        steps = view_of(self.model.pipe.scheduler).fewest_steps
        arguments = {**self.call_arguments(1), "num_inference_steps": max(steps, 2)}

        def draw() -> Any:
            return self.model.draw([SAMPLE], [0], 1, Iid(), arguments)[0][0][0]

        try:
            self.model.parts["draws"] = thumbnail(draw)
        except EddyError:
            raise
        except Exception as error:  # of diffusers, which has no errors of its own
            raise ModelError(
                f"{type(self.model.pipe).__name__} draws nothing as it is. Call it by itself "
                f"first. It raised {type(error).__name__}: {brief(error)}"
            ) from None
        return self

    @cached_property
    def own(self) -> OwnSettings:
        """The model's own settings, which stand where the suite names none."""
        return own_settings(self.model.name, self.model.pipe)

    @property
    def steps(self) -> int:
        """Steps of the solver.

        Raises:
            ParameterError: neither the suite nor the pipeline has a number of them.
        """
        steps = self.suite.steps or self.own.steps
        if steps is None:
            name = type(self.model.pipe).__name__
            raise ParameterError(f"{name} has no number of steps of its own. Give --steps.")
        return steps

    @property
    def guidance_scale(self) -> float:
        """Scale of guidance, under whatever name the pipeline has for it."""
        given = self.suite.guidance_scale
        return self.own.guidance_scale if given is None else given

    @cached_property
    def prompts(self) -> PromptSet:
        """The suite's prompts, cut to its limit."""
        prompts = self.given or load_prompts(self.suite.prompts)
        return prompts.cut(self.suite.limit)

    @property
    def settings(self) -> RunSettings:
        """What all groups of a run folder share."""
        suite, model = self.suite, self.model
        return RunSettings(
            model=suite.model,
            revision=suite.revision,
            variant=suite.variant,
            weights_fingerprint=model.fingerprint,
            scheduler=scheduler_text(model.pipe.scheduler, str(suite.scheduler)),
            steps=self.steps,
            guidance_scale=self.guidance_scale,
            negative_prompt=suite.negative_prompt,
            particles=suite.particles,
            size=suite.size or self.own.size,
            dtype=suite.dtype,
            timesteps=suite.timesteps if suite.timesteps != "default" else None,
            guide=model.guide_name or None,
            decoder=model.decoder_name or None,
            compiled=True if suite.compile else None,
            lora=self.model.lora or None,
            pipeline=self.model.parts or None,
        )

    @property
    def prompts_together(self) -> int:
        """How many prompts share the next forward pass.

        It is one where a pipeline lets the longest prompt of a batch change the others, and what
        fitted before where memory ran out.
        """
        if family_of(self.model.pipe).one_prompt:
            return 1
        first = self.suite.first_batch
        fit = self.model.prompts_fit if self.suite.batch_prompts == "auto" else None
        return min(first, fit or first)

    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        particles: int,
        method: Method,
        negatives: Sequence[str] = (),
    ) -> tuple[list[list[Any]], Cost]:
        """Draw one batch of groups; see `Model.draw`. negatives: of the prompts, each or none."""
        arguments = self.call_arguments(len(prompts), negatives)
        return self.model.draw(prompts, seeds, particles, method, arguments)

    def call_arguments(self, rows: int, negatives: Sequence[str] = ()) -> dict[str, Any]:
        """Return the arguments of the pipeline's call for some prompts.

        negatives: their own negative prompts, empty where a prompt has the suite's; none for all.

        `guidance_scale` is the scale of classifier-free guidance, or of the distilled one where
        a pipeline has that; the few pipelines that call it `true_cfg_scale` get it there. A size
        is taken as it is, without the binning that PixArt and Sana do.

        Raises:
            ParameterError: a negative prompt for a pipeline that takes none.
        """
        suite = self.suite
        known = call_parameters(self.model.pipe)
        arguments: dict[str, Any] = {"num_inference_steps": self.steps, "output_type": "pil"}
        if "intermediate_timesteps" in known and self.steps != 2:
            arguments["intermediate_timesteps"] = None  # SANA-Sprint's own is one for 2 steps
        own = [negative or suite.negative_prompt for negative in negatives or [""] * rows]
        if scale := scale_argument(self.model.pipe):
            arguments[scale] = self.guidance_scale
        if scale == "true_cfg_scale":  # without a negative prompt they switch guidance off
            own = [negative or (" " if self.guidance_scale > 1 else "") for negative in own]
        if any(own):
            self._check_negative(distilled="true_cfg_scale" in known.keys() - arguments.keys())
            arguments["negative_prompt"] = own
        if suite.size:
            arguments |= {"height": suite.size, "width": suite.size}
            if "use_resolution_binning" in known:
                arguments["use_resolution_binning"] = False
        return arguments

    def _check_negative(self, distilled: bool) -> None:
        """Raise ParameterError where the pipeline would not heed a negative prompt."""
        name = type(self.model.pipe).__name__
        if distilled:
            raise ParameterError(
                f"{name} has distilled guidance and would ignore a negative prompt. "
                "Leave --negative-prompt out, and those of the prompt file."
            )
        if "negative_prompt" not in call_parameters(self.model.pipe):
            raise ParameterError(
                f"{name} takes no negative prompt. Leave --negative-prompt out, and those of "
                "the prompt file."
            )
