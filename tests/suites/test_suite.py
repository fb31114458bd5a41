"""Suites: what stands on top of a file's keys."""

from __future__ import annotations

from eddy_bench.suites.suite import load_suite


def test_an_empty_variant_takes_away_what_a_suite_names() -> None:
    assert load_suite("eddy-sdxl").variant == "fp16"
    own = load_suite("eddy-sdxl", {"model": "./sdxl", "variant": ""})
    assert (own.model, own.variant) == ("./sdxl", None)
