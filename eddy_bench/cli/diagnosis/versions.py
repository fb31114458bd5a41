"""Which versions are installed, and whether this package takes them."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from eddy_bench import __version__
from eddy_bench.cli.diagnosis.finding import Finding
from eddy_bench.errors import brief

SECTION = "versions"
PACKAGE = "eddy-bench"
# Distributions that are always shown, with the module that must be importable.
SHOWN = {
    "torch": "torch",
    "torchvision": "torchvision",
    "diffusers": "diffusers",
    "transformers": "transformers",
    "open-clip-torch": "open_clip",
    "torchmetrics": "torchmetrics",
    "timm": "timm",
}
EXTRAS = {
    "fid": "fid and the extractor inception",
    "efficientnet": "the extractors efficientnet-lite0 and efficientnet-lite2",
    "datasets": "prompts from hub data sets",
    "ray": "--executor ray",
    "offload": "--offload",
    "remote": "run folders at addresses",
}


def examine_versions() -> Iterator[Finding]:
    """Yield a finding on this package, Python, the libraries and the optional extras."""
    yield Finding(SECTION, PACKAGE, "ok", __version__)
    yield Finding(SECTION, "python", "ok", platform.python_version())
    try:
        declared = [Requirement(line) for line in requires(PACKAGE) or []]
    except PackageNotFoundError:
        yield _not_installed()
        declared = [Requirement(name) for name in SHOWN]
    yield from _needed([entry for entry in declared if entry.marker is None])
    yield from _extras(declared)


def _not_installed() -> Finding:
    detail = "is not installed, so versions are shown and not compared"
    return Finding(SECTION, "requirements", "note", detail, "pip install .")


def _needed(declared: list[Requirement]) -> Iterator[Finding]:
    """Yield the libraries that are always shown, and of the others those with a problem."""
    named = {str(canonicalize_name(entry.name)): entry for entry in declared}
    for name in dict.fromkeys([*(name for name in SHOWN if name in named), *named]):
        finding = _library(name, str(named[name].specifier))
        if name in SHOWN or finding.verdict != "ok":
            yield finding


def _library(name: str, needed: str) -> Finding:
    """Return whether a library is there, in a version that is needed, such as `>=2.6`."""
    cure = f"pip install '{name}{needed}'"
    found = _version_of(name)
    if found is None:
        return Finding(SECTION, name, "problem", "not installed", cure)
    if not SpecifierSet(needed).contains(found, prereleases=True):
        return Finding(SECTION, name, "problem", f"{found}, needed is {needed}", cure)
    return _imported(name, found, cure)


def _imported(name: str, found: str, cure: str) -> Finding:
    """Return whether a library can be imported; those that are not shown are taken as they are."""
    try:
        if name in SHOWN:
            importlib.import_module(SHOWN[name])
    except Exception as error:  # a library that does not fit another raises what it likes
        detail = f"{found} cannot be imported: {brief(error, 200)}"
        return Finding(SECTION, name, "problem", detail, f"{cure} --force-reinstall")
    return Finding(SECTION, name, "ok", found)


def _version_of(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _extras(declared: list[Requirement]) -> Iterator[Finding]:
    """Yield a finding per extra: what it is for, and which of its packages are missing."""
    for extra, purpose in EXTRAS.items():
        entries = [
            entry
            for entry in declared
            if entry.marker is not None and entry.marker.evaluate({"extra": extra})
        ]
        if entries:
            yield _extra(extra, purpose, entries)


def _extra(extra: str, purpose: str, entries: list[Requirement]) -> Finding:
    found = {entry.name: _version_of(entry.name) for entry in entries}
    cure = f"pip install 'eddy-bench[{extra}]'"
    name = f"extra {extra}"
    if missing := [key for key, value in found.items() if value is None]:
        detail = f"not installed: {', '.join(missing)}; for {purpose}"
        return Finding(SECTION, name, "note", detail, cure)
    shown = ", ".join(f"{key} {value}" for key, value in found.items())
    old = [
        f"{entry.name} {entry.specifier}"
        for entry in entries
        if not entry.specifier.contains(found[entry.name] or "", prereleases=True)
    ]
    if old:
        return Finding(SECTION, name, "note", f"{shown}; needed is {', '.join(old)}", cure)
    return Finding(SECTION, name, "ok", f"{shown}; for {purpose}")
