"""The one owner of what `steer` changes on a pipeline, and of the one call that is watched.

A pipeline's class is exchanged for one whose `__call__` is watched while a block is open. All else
is changed when that pipeline object is called, and is as it was when the call returns or raises.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from eddy_bench.errors import ParameterError
from eddy_bench.sampling.call import ACTIVE, Call, Settings, Steering, title
from eddy_bench.sampling.families import (
    check_known,
    denoiser,
    evaluation_of,
    signature_of,
)
from eddy_bench.sampling.hooks import Hooks
from eddy_bench.sampling.network_taps import edited_block, evaluate
from eddy_bench.sampling.solver_view import check_scheduler
from eddy_bench.sampling.step_taps import (
    check_restarts,
    lengthen,
    settle,
    start_namespace,
    step,
    step_namespace,
    watch_draws,
)


@dataclass(eq=False)
class Session:
    """A `steer` block."""

    pipe: Any  # a diffusers pipeline
    method: Hooks  # whose hooks are called
    settings: Settings  # of the block
    record: Steering = field(default_factory=Steering)  # what the block tells of its calls
    # thread and task that opened the block; calls from others are bare
    home: tuple[int, Any] = field(default_factory=lambda: here())

    def check(self) -> None:
        """Raise EddyError where the method cannot act on the pipeline as it is now."""
        if self.method.reads_state or self.settings.seen is not None:
            check_scheduler(self.pipe.scheduler)
        check_restarts(self.pipe.scheduler, self.method)
        if self.method.changes_network:
            check_known(self.pipe, self.method)

    def run(self, call: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        """Return what a call of the pipeline returns, with the method acting in it."""
        self.check()
        self.record.active = self.record.finished = None
        present = Call(self.pipe, self.method, self.settings, arguments, self.record)
        others = tuple(other for other in ACTIVE.get() if other.pipe is self.pipe)
        token = ACTIVE.set((*others, present))
        try:
            with self._acting(present), torch.inference_mode(False):  # methods may differentiate
                result = call()
            present.end()
        except RuntimeError:  # an eigendecomposition refuses what is not finite
            present.check_guidance()
            raise
        finally:
            ACTIVE.reset(token)
        return result

    @contextmanager
    def _acting(self, call: Call) -> Iterator[None]:
        """Change the pipeline's parts for a call."""
        scheduler, method = self.pipe.scheduler, self.method
        with ExitStack() as stack:
            stack.push(self._free_card)
            if method.changes_start:
                watch_draws(start_namespace(self.pipe))
            if method.couples_steps:
                watch_draws(step_namespace(scheduler))
            if method.changes_network:
                owner, name = evaluation_of(self.pipe)
                inner, signature = getattr(owner, name), signature_of(denoiser(self.pipe))
                tap = functools.partial(evaluate, call, inner, signature)
                stack.enter_context(replaced(owner, name, only_in(call, inner, tap)))
            if method.edits_features:
                stack.enter_context(edited_block(call, denoiser(self.pipe)))
            if method.takes_steps:
                self._lengthen(call, stack)
            inner, signature = scheduler.step, inspect.signature(scheduler.step)
            tap = functools.partial(step, call, inner, signature)
            stack.enter_context(replaced(scheduler, "step", only_in(call, inner, tap)))
            yield

    def _free_card(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Take the part that is at work off the card under offload, as a call that returns does."""
        if isinstance(error, Exception) and hasattr(self.pipe, "maybe_free_model_hooks"):
            self.pipe.maybe_free_model_hooks()

    def _lengthen(self, call: Call, stack: ExitStack) -> None:
        """Let the pipeline go through more steps than the scheduler's own."""

        def told(name: str, after: Callable[[], None]) -> None:
            inner = getattr(call.scheduler, name)

            def tap(*args: Any, **kwargs: Any) -> Any:
                settle(call)
                result = inner(*args, **kwargs)
                after()
                return result

            stack.enter_context(replaced(call.scheduler, name, only_in(call, inner, tap)))

        told("set_timesteps", lambda: lengthen(call))
        for name in ("set_begin_index", "scale_model_input"):
            if hasattr(call.scheduler, name):
                told(name, lambda: None)
        stack.callback(settle, call)


@contextmanager
def watched(session: Session) -> Iterator[None]:
    """Let the calls of a session's pipeline be run by it, inside the block.

    Blocks of one pipeline may be closed in any order: the class that its sessions share is there
    until the last one is.
    """
    pipe, own = session.pipe, type(session.pipe)
    if "sessions" not in vars(own):
        pipe.__class__ = _watching(own)
    try:
        _check_company(session, type(pipe).sessions)
        type(pipe).sessions.append(session)
        yield
    finally:
        watching = type(pipe)
        watching.sessions[:] = [each for each in watching.sessions if each is not session]
        if not watching.sessions:
            pipe.__class__ = watching.__mro__[1]


def _watching(own: Any) -> Any:
    """Return a class like a pipeline's whose calls are run by its sessions."""
    signature = inspect.signature(own.__call__)
    sessions: list[Session] = []

    @functools.wraps(own.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        arguments |= arguments.pop("kwargs", {}) if "kwargs" in signature.parameters else {}
        run = functools.partial(own.__call__, self, *args, **kwargs)
        for session in _outermost_first(sessions, self):
            if session.home == here():
                run = functools.partial(session.run, run, arguments)
            else:
                session.record.calls_outside += 1
        return run()

    def reduced(self: Any, protocol: Any) -> Any:
        """Let a copy be of the pipeline's own class."""
        _, made_of, *rest = own.__reduce_ex__(self, protocol)
        return own.__new__, (own, *made_of[1:]), *rest

    body = {"__call__": call, "__reduce_ex__": reduced, "sessions": sessions}
    return type(own.__name__, (own,), {**body, "__module__": own.__module__})


def _outermost_first(sessions: list[Session], pipe: Any) -> list[Session]:
    """Return a pipeline's sessions: the last one opened sees a step, or an evaluation, first.

    One that takes steps of its own comes before the others, which see the solver's alone. A copy of
    a pipeline, or one of its class, has none.
    """
    own = [session for session in sessions if session.pipe is pipe]
    return sorted(reversed(own), key=lambda session: not session.method.takes_steps)


def _check_company(session: Session, others: list[Session]) -> None:
    """Raise ParameterError where two blocks of a pipeline do what only one can do."""
    kinds = {"reguides": "change guidance", "takes_steps": "take steps of their own"}
    for kind, text in kinds.items():
        for other in others:
            both = getattr(other.method, kind) and getattr(session.method, kind)
            if both and other.pipe is session.pipe and other.home == session.home:
                raise ParameterError(
                    f"{title(other.method)} and {title(session.method)} both {text}, which one "
                    "method at a time can do. Close the first block before."
                )


def here() -> tuple[int, Any]:
    """Return the present thread and task."""
    try:
        task: Any = asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        task = None
    return threading.get_ident(), task


def only_in(call: Call, inner: Callable[..., Any], tap: Callable[..., Any]) -> Callable[..., Any]:
    """Return `tap` for what runs in a call, and `inner` for other threads and pipelines."""

    @functools.wraps(inner)
    def chosen(*args: Any, **kwargs: Any) -> Any:
        return (tap if call in ACTIVE.get() else inner)(*args, **kwargs)

    return chosen


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute of an instance, and put it back as it was."""
    shadowed = name in vars(owner)
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if shadowed:
            setattr(owner, name, before)
        else:
            delattr(owner, name)
