"""See real images through an extractor and save their statistics: `eddy-bench reference`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eddy_bench.cli.console import say
from eddy_bench.cli.progress import progress_bar
from eddy_bench.errors import MetricError, StoreError

if TYPE_CHECKING:
    from eddy_bench.scoring.extractor import Extractor
    from eddy_bench.scoring.reference import SavedStatistics


def save_reference(
    source: str, extractor: str, weights: str | None, out: Path, device: str
) -> None:
    """Save the statistics of the images below a folder; a file that is there is never replaced."""
    from eddy_bench.models.devices import resolve_device
    from eddy_bench.scoring.extractors import check_extractor, load_extractor
    from eddy_bench.scoring.reference import image_paths, write_statistics

    check_extractor(extractor)
    if out.exists():
        raise StoreError(f"{out} is there already. Take another --out, or remove it.")
    if weights and not Path(weights).is_dir():
        raise MetricError(f"Expected a folder at --weights {weights}, found none.")
    paths = image_paths(source)
    loaded = load_extractor(extractor, Path(weights) if weights else None, resolve_device(device))
    with progress_bar("Images", len(paths)) as advance:
        statistics = _statistics(source, paths, loaded, advance)
    write_statistics(out, statistics)
    more = "" if statistics.features is not None else "; too many for kid, precision and recall"
    say(
        f"{out}: {statistics.count} images {statistics.name} under "
        f"{statistics.extractor}@{statistics.weights}{more}. "
        f"Score with it: eddy-bench score RUN --metric {_metric(loaded)} --reference {out}"
    )


def _statistics(
    source: str, paths: list[Path], extractor: Extractor, advance: Callable[[float, str], None]
) -> SavedStatistics:
    """Return the statistics of images, read in threads ahead of the network."""
    from eddy_bench.scoring.forward import BATCH, Row, ahead
    from eddy_bench.scoring.reference import SavedStatistics, image_digest, name_of, read_image

    digests: list[bytes] = []

    def read(path: Path) -> tuple[bytes, Any]:
        image = read_image(path)
        return image_digest(image), extractor.prepare(image)

    def rows(prepared: Iterator[tuple[bytes, Any]]) -> Generator[Row, None, None]:
        for digest, array in prepared:
            digests.append(digest)
            advance(1, extractor.name)
            yield (array,)

    with ahead(read, paths, 2 * BATCH) as prepared, closing(rows(prepared)) as all_rows:
        features = extractor.stacked(list(extractor.forward(all_rows)))
    return SavedStatistics.of_features(source, name_of(source, digests), extractor, features)


def _metric(extractor: Extractor) -> str:
    """Return the Frechet distance's name under an extractor."""
    name = extractor.name
    return name.replace("inception", "fid", 1) if name.startswith("inception") else f"fd[{name}]"
