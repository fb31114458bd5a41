"""The books of a large run: what a hundred thousand groups, or a million, cost beside drawing them.

    python benchmarks/books.py [--groups 100000] [--methods 20] [--folder DIR] [--pack]

Plans a run of an exact task, writes its groups of two small pictures, then measures, each in a
process of its own: planning and finding what is missing from the index, with the index lost and
with every image hashed; scoring from made-up features that are there already; scoring again. Peak
memory is the whole process's. A million groups take 4 million files and folders and about 17 GB;
with --pack they are written into packs, 1,000 files and 2 GB, and only the first method's groups
are moved there from folders, which is measured.
The folder is kept where one is given, and what it holds is not written again.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from eddy_bench.experiment.draw import find_missing
from eddy_bench.experiment.plan import Plan, make_plan
from eddy_bench.experiment.score import (
    ScoringRequest,
    read_groups,
    score_folder,
    scoring_state,
)
from eddy_bench.experiment.setup import Setup
from eddy_bench.models.base import Cost
from eddy_bench.scoring.scorer import features_folder, write_features
from eddy_bench.storage.group import finished_of, png_bytes
from eddy_bench.storage.packs import PACK_BYTES, PACK_GROUPS, PackRow, filled, write_pack
from eddy_bench.storage.paths import files_below
from eddy_bench.storage.records import FileInfo, Group, GroupRecord, RunRecord, SuiteRecord
from eddy_bench.storage.run_folder import RunFolder, write_run
from eddy_bench.suites.suite import Suite

METRICS = ("vendi[pixels]", "pdist[pixels]", "mss[pixels]")
FEATURES = 16
GOAL = "at most 60 s and 2048 MiB for a million"


@dataclass(frozen=True)
class Books:
    """Hold what is measured: so many groups of so many methods in a folder."""

    path: Path
    groups: int
    methods: int
    pack: bool = False

    def plan(self) -> Plan:
        """Plan an exact task with as many prompts as it takes."""
        prompts = self.path.with_name(f"{self.path.name}-prompts.txt")
        count = -(-self.groups // self.methods)
        prompts.write_text("".join(f"a picture of number {k}\n" for k in range(count)))
        specs = ["iid", *(f"pg:strength={k}" for k in range(1, self.methods))]
        suite = Suite.model_validate(
            {"model": "exact:ring8", "prompts": str(prompts), "methods": specs, "particles": 2}
        )
        setup = Setup.open(suite)
        with timed("planning"):
            return make_plan(setup)

    def folder(self) -> RunFolder:
        """Open the run folder."""
        return RunFolder.existing(self.path)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def timed(name: str, goal: str = "") -> Iterator[None]:
    start, own, before = time.perf_counter(), time.process_time(), peak_mib()
    yield
    seconds, own, peak = time.perf_counter() - start, time.process_time() - own, peak_mib()
    print(
        f"{name:46} {seconds:8.1f} s ({own:.1f} of the processor), "
        f"peak {peak:6.0f} MiB (+{peak - before:.0f})  {goal}",
        flush=True,
    )


def write_groups(books: Books) -> None:
    """Write groups where they belong, each picture with bytes of its own, and features of them."""
    plan, rng = books.plan(), np.random.default_rng(0)
    folder = RunFolder.prepare(books.path, plan.settings)
    suite = SuiteRecord(methods=[str(spec) for spec in plan.suite.methods])
    write_run(folder.path, RunRecord(suite=suite, settings=plan.settings))
    pixels = rng.integers(0, 255, (64, 8, 8), np.uint8)
    pictures = [png_bytes(Image.fromarray(image)) for image in pixels]
    with timed(f"writing {len(plan.groups)} groups"):
        for label, same in itertools.groupby(plan.groups, lambda group: group.label):
            made = {}
            rows = [made_of(group, pictures) for group in same]
            for record, images, text in rows:
                if not books.pack or label == "iid":
                    write_in_place(folder.samples / record.group.path, images, text)
                finished = finished_of(record, folder.samples / record.group.path)
                made[finished.fingerprint] = rng.normal(size=(2, FEATURES)).astype(np.float32)
            features = features_folder(folder.path, "pixels", "v1")
            write_features(features / f"{label}.npz", made)
            if books.pack and label == "iid":
                with timed(f"packing {len(rows)} groups out of folders"):
                    folder.pack(lambda count, label: None, lambda: None)
            elif books.pack:
                packed = (
                    PackRow(record.group.path.as_posix(), record.group.key, text.encode(), images)
                    for record, images, text in rows
                )
                for part in filled(packed, PACK_GROUPS, PACK_BYTES):
                    write_pack(folder.samples, files_below(folder.samples), part)


def made_of(group: Group, pictures: list[bytes]) -> tuple[GroupRecord, list[bytes], str]:
    """Return what `RunFolder.write_group` makes of a group: its record, images and group.json."""
    number = int(group.key[:8], 16)
    images = [pictures[(number + k) % 64] + f"{group.key}-{k}".encode() for k in range(2)]
    files = {
        f"{k}.png": FileInfo(size=len(image), sha256=hashlib.sha256(image).hexdigest())
        for k, image in enumerate(images)
    }
    record = GroupRecord(group=group, cost=asdict(Cost(0.1, 2.0)), files=files)
    return record, images, json.dumps(record.as_dict(), indent=1, ensure_ascii=False)


def write_in_place(place: Path, images: list[bytes], text: str) -> None:
    """Write the files that `RunFolder.write_group` leaves, without its care for kills."""
    place.mkdir(parents=True)
    for k, image in enumerate(images):
        (place / f"{k}.png").write_bytes(image)
    (place / "group.json").write_text(text)


def resume_without_index(books: Books) -> None:
    """Find that nothing is missing from the groups themselves."""
    plan, folder = books.plan(), books.folder()
    folder.index.forget()
    with timed("finding what is missing, the index lost"):
        assert find_missing(plan.groups, folder) == ([], [])


def resume(books: Books) -> None:
    """Find that nothing is missing, from the index."""
    plan = books.plan()
    with timed("finding what is missing, from the index", GOAL):
        assert find_missing(plan.groups, books.folder()) == ([], [])


def verify(books: Books) -> None:
    """Find that nothing is missing by hashing every image."""
    plan = books.plan()
    with timed("finding what is missing, every image hashed"):
        assert find_missing(plan.groups, books.folder(), True) == ([], [])


def score(books: Books) -> None:
    """Write scores.csv, scores.parquet and summary.csv."""
    request, folder = ScoringRequest(METRICS), books.folder()
    with timed("reading groups, whether scores are up to date"):
        found = read_groups(folder)
        scoring_state(folder.read_run(), found, request)
    with timed("scores and summary (vendi, pdist, mss; costs)"):
        score_folder(folder, found, request, lambda total: lambda count, label: None)


def score_again(books: Books) -> None:
    """Replace one metric of what is there."""
    request, folder = ScoringRequest(METRICS[:1]), books.folder()
    with timed("one metric again, beside scores that are there"):
        found = read_groups(folder)
        score_folder(folder, found, request, lambda total: lambda count, label: None)


STAGES: dict[str, Callable[[Books], None]] = {
    stage.__name__: stage
    for stage in (write_groups, resume_without_index, resume, verify, score, score_again)
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--groups", type=int, default=100_000)
    parser.add_argument("--methods", type=int, default=20)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--pack", action="store_true", help="write groups into packs")
    parser.add_argument("--stage", choices=STAGES, action="append", help="only this one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        path = options.folder or Path(temporary) / "run"
        books = Books(path, options.groups, options.methods, options.pack)
        for name in options.stage or list(STAGES):
            if name == "write_groups" and (path / "samples").exists():
                continue
            process = multiprocessing.get_context("spawn").Process(
                target=STAGES[name], args=(books,)
            )
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(f"{name} failed")
    for name in ("scores.csv", "scores.parquet", "samples.jsonl"):
        if (path / name).exists():
            print(f"{name:46} {(path / name).stat().st_size / 2**20:8.0f} MiB")


if __name__ == "__main__":
    main()
