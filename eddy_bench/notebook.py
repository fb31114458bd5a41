"""Runs from Python: load one, look at it, or draw one with a pipeline that is already loaded."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from eddy_bench.compare.comparable import canonical, check_comparable, with_baseline
from eddy_bench.compare.comparison import compare_methods
from eddy_bench.compare.preference import Place, drawn_groups
from eddy_bench.compare.summary_table import summary_table
from eddy_bench.compare.tables import record_of
from eddy_bench.errors import ParameterError, StoreError, UnknownName, unknown
from eddy_bench.experiment.events import Advance, Kind, Listener
from eddy_bench.experiment.grids import draw_bands
from eddy_bench.experiment.score import Scored
from eddy_bench.ids import MethodId, MetricId
from eddy_bench.results.io import read_table, with_texts
from eddy_bench.results.results import Results, read_results
from eddy_bench.shown import shown
from eddy_bench.storage.group import FinishedGroup
from eddy_bench.storage.run_folder import RunFolder

WIDTH = 100  # columns of the summary table
EVERY = 60.0  # seconds between lines of progress


@dataclass(frozen=True)
class Run:
    """A scored run folder."""

    path: Path

    @cached_property
    def scores(self) -> pd.DataFrame:
        """The scores, a row per method, prompt, seed and metric."""
        return with_texts(self._results.frame.drop(columns="source"))

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Means over prompts with their intervals, a row per method."""
        path = self.path / "summary.csv"
        if not path.is_file():
            raise _unscored(self.path, path.name)
        return read_table(path, keep_default_na=False, na_values=[""])

    @property
    def methods(self) -> list[str]:
        """The methods with their parameters, as `compare` names them."""
        return list(map(str, self._results.methods))

    def images(self, method: str, prompt_id: str, seed: int = 0) -> list[Image.Image]:
        """Return the N images of a group.

        Args:
            method: as in `methods`, or as it was asked for.
            prompt_id: as in the scores.
            seed: of the group.

        Raises:
            UnknownName: there is no such method or prompt.
            StoreError: the group was not drawn, or its images were changed.
        """
        return self._group(method, prompt_id, seed).images()

    def compare(self, baseline: str = "iid") -> pd.DataFrame:
        """Return the differences of every method to a baseline, paired over prompts.

        A row per method and metric: `difference`, `low`, `high` (95%), `p_holm`, `better` and the
        other figures of `Difference`; headroom among them.

        Raises:
            CompareError: the baseline is not there.
        """
        comparison = compare_methods(with_baseline(self._results, baseline))
        return pd.DataFrame([record_of(own) for own in comparison.differences])

    def grid(
        self,
        methods: Sequence[str] | None = None,
        prompts: Sequence[str] | None = None,
        seed: int = 0,
    ) -> Image.Image:
        """Return a picture: a row per prompt, the methods side by side on the same noise.

        Args:
            methods: as in `methods`; at most the first four by default.
            prompts: ids; the first six by default.
            seed: of the groups.

        Raises:
            UnknownName: there is no such method or prompt.
            StoreError: a group was not drawn, or its images were changed.
        """
        if isinstance(methods, str) or isinstance(prompts, str):
            raise ParameterError("Expected lists of methods and prompts, got a text.")
        chosen = list(methods) if methods is not None else self.methods[:4]
        ids = list(prompts) if prompts is not None else self._prompt_ids[:6]
        if not chosen or not ids:
            raise ParameterError("Expected a method and a prompt for a grid, got none.")
        return draw_bands([[self._group(name, key, seed) for name in chosen] for key in ids])

    @cached_property
    def _results(self) -> Results:
        results = read_results([self.path])
        check_comparable(results, allow_missing=True)
        return results

    @cached_property
    def _groups(self) -> dict[Place, FinishedGroup]:
        return drawn_groups(self.path)

    @cached_property
    def _prompt_ids(self) -> list[str]:
        return list(dict.fromkeys(prompt for _, prompt, _ in self._groups))

    def _group(self, name: str, prompt_id: str, seed: int) -> FinishedGroup:
        drawn = list(dict.fromkeys(method for method, _, _ in self._groups))
        method = MethodId.parse(name)
        method = method if method in drawn else canonical(name)
        if (method, prompt_id, seed) in self._groups:
            return self._groups[method, prompt_id, seed]
        if method not in drawn:
            raise UnknownName(unknown("method", name, map(str, drawn)))
        if prompt_id not in self._prompt_ids:
            raise UnknownName(unknown("prompt", prompt_id, self._prompt_ids))
        raise StoreError(f"{method} was not drawn for {prompt_id!r} with seed {seed}.")


def load_run(path: str | Path) -> Run:
    """Load a run folder.

    Args:
        path: of the folder, as `eddy-bench run` wrote it.

    Raises:
        ParameterError: it is no path.
        StoreError: it holds no scores.
    """
    if not isinstance(path, (str, Path)):
        raise ParameterError(f"Expected the path of a run's folder, got {path!r}.")
    folder = Path(path)
    if not folder.is_dir():
        kind = "the file" if folder.is_file() else "nothing at"
        raise StoreError(f"Expected the folder of a run, found {kind} {folder}.")
    if not (folder / "scores.csv").is_file():
        raise _unscored(folder, "scores.csv")
    return Run(folder)


def _unscored(folder: Path, name: str) -> StoreError:
    return StoreError(
        f"Expected a scored run in {folder}, found no {name}. Score it: eddy-bench score {folder}"
    )


class _Printed(Listener):
    """An experiment's events as printed lines, which a notebook and a script both show."""

    def tell(self, text: str, kind: Kind = "") -> None:
        """Print a line on stderr."""
        if kind != "Detail":
            print(shown(f"{kind}: {text}" if kind else text), file=sys.stderr)

    @contextmanager
    def began(self, title: str, total: float) -> Iterator[Advance]:
        """Print how far a stage is, once a minute."""
        done, said = 0.0, time.monotonic()

        def advance(count: float, label: str) -> None:
            nonlocal done, said
            done += count
            if time.monotonic() - said >= EVERY:
                said = time.monotonic()
                self.tell(f"{title} {label}: {done:g} of {total:g}")

        yield advance

    def scored(
        self, folder: RunFolder, scored: Scored, grids: Sequence[Path], requested: list[MetricId]
    ) -> None:
        """Print the summary table."""
        table = summary_table(str(folder.path), scored.results, scored.summaries, requested)
        for line in table.lines(WIDTH):
            print(shown(line.plain))
        print(shown(table.caption))
        if left_out := table.left_out(WIDTH):
            print(f"In summary.csv only, for want of width: {', '.join(left_out)}.")


def benchmark(
    model: Any,
    methods: Sequence[str],
    prompts: Sequence[str] | str,
    out: str | Path = Path("results") / "benchmark",
    **settings: Any,
) -> Run:
    """Draw prompts with several methods from the same noise, score, and return the run.

    It does what `eddy-bench run` does, resumption included. A pipeline is left as it was found.

    Args:
        model: a loaded diffusers pipeline, or what `--model` takes.
        methods: as on the command line, such as `iid` or `pg:strength=2`.
        prompts: texts, or what `--prompts` takes.
        out: the run folder.
        settings: keys of a suite, such as `steps`, `guidance_scale`, `particles`, `metrics`; the
            pipeline's own steps, guidance scale, size and scheduler unless they are named.

    Raises:
        EddyError: as the command line says in one line.
    """
    from eddy_bench.experiment.checks import check_early
    from eddy_bench.experiment.experiment import run
    from eddy_bench.experiment.options import RunOptions
    from eddy_bench.experiment.setup import Setup
    from eddy_bench.models.defaults import implied_settings
    from eddy_bench.models.load import borrowed, wrap_pipeline
    from eddy_bench.suites.plugins import Permission
    from eddy_bench.suites.prompts import load_prompts, prompts_of_texts
    from eddy_bench.suites.suite import Suite, load_suite

    if isinstance(methods, str):
        raise ParameterError(f"Expected a list of methods, got {methods!r}. Write [{methods!r}].")
    if not methods or not all(isinstance(method, str) for method in methods):
        raise ParameterError(
            f"Expected methods as on the command line, such as 'pg:strength=2', got {methods!r}."
        )
    if not isinstance(model, str) and not hasattr(model, "scheduler"):
        raise ParameterError(
            f"Expected a diffusers pipeline or a model's name, got {type(model).__name__}."
        )
    named = model if isinstance(model, str) else type(model).__name__
    given = load_prompts(prompts) if isinstance(prompts, str) else prompts_of_texts(prompts)
    if wrong := sorted(settings.keys() - Suite.model_fields.keys()):
        raise ParameterError(unknown("setting", wrong[0], Suite.model_fields))
    asked = {"model": named, "methods": list(methods), **implied_settings(named), **settings}
    suite = load_suite(None, {"name": "benchmark", **asked}, typed=Permission())
    path, options = Path(out), RunOptions()
    check_early(suite, path, options)
    if isinstance(model, str):
        drawn = run(Setup(suite, Setup.open(suite).model, given), path, options, _Printed())
    else:
        with borrowed(model):
            setup = Setup(suite, wrap_pipeline(model), given).with_scheduler().identified()
            drawn = run(setup, path, options, _Printed())
    if drawn.failures:
        raise StoreError(f"Some groups could not be drawn: {path}/failed holds why.")
    return load_run(path)
