"""`eddy-bench reference`: save the statistics of real images under an extractor."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eddy_bench.cli.arguments import Device, Weights
from eddy_bench.cli.console import say, say_all
from eddy_bench.cli.progress import progress_bar
from eddy_bench.errors import StoreError

if TYPE_CHECKING:
    from eddy_bench.scoring.extractor import Extractor
    from eddy_bench.scoring.reference import SavedStatistics


def reference(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A folder of real images.")],
    extractor: Annotated[
        str,
        typer.Option(help="The network to compute with; eddy-bench list metrics has the names."),
    ],
    out: Annotated[Path, typer.Option(help="The file to write, as stats.npz.")],
    weights: Weights = None,
    device: Device = "auto",
) -> None:
    """Save what fd and fid need of real images, to score with --reference FILE without them."""
    from eddy_bench.experiment.checks import check_folder
    from eddy_bench.models.devices import resolve_device
    from eddy_bench.scoring.extractors import check_extractor, load_extractor
    from eddy_bench.scoring.reference import reference_pictures, write_statistics

    check_extractor(extractor)
    if out.exists():
        raise StoreError(f"{out} is there already. Take another --out, or remove it.")
    check_folder(weights, "a folder at --weights")
    pictures = reference_pictures(folder)
    say_all(pictures.notes, "Note")
    paths = pictures.paths
    loaded = load_extractor(extractor, Path(weights) if weights else None, resolve_device(device))
    with progress_bar("Images", len(paths)) as advance:
        statistics = _statistics(folder, paths, loaded, advance)
    write_statistics(out, statistics)
    more = "" if statistics.features is not None else "; too many for kid, precision and recall"
    name = loaded.name
    fid = name.startswith("inception")
    metric = name.replace("inception", "fid", 1) if fid else f"fd[{name}]"
    say(
        f"{out}: {statistics.count} images {statistics.name} under "
        f"{statistics.extractor}@{statistics.weights}{more}. "
        f"Score with it: eddy-bench score RUN --metric {metric} --reference {out}"
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
