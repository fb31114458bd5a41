"""Images drawn elsewhere become a run folder that can be scored and compared."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.conftest import Result

Cli = Callable[..., Result]
PROMPTS = ["a dark dress", "a light coat", "a boot"]
SCORED = ("--metric", "vendi[pixels]")


def picture(path: Path, seed: int = 0, size: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.csv"
    lines = [f"p{k},{text},{'shoe' if k == 2 else 'cloth'}" for k, text in enumerate(PROMPTS)]
    path.write_text("id,prompt,category\n" + "\n".join(lines))
    return path


def by_folder(root: Path, names: Iterable[str], count: int = 2) -> Path:
    for number, name in enumerate(names):
        for k in range(count):
            picture(root / name / f"{k}.png", 10 * number + k)
    return root


LAYOUTS = {
    "ids": ["p0/{}.png", "p1/{}.png", "p2/{}.png"],
    "texts": ["a dark dress/{}.png", "a_light_coat/{}.png", "A boot/{}.png"],
    "numbers": ["00000/{}.png", "00001/{}.png", "00002/{}.png"],
    "nested": ["p0/samples/000{}.png", "p1/samples/000{}.png", "p2/samples/000{}.png"],
}


@pytest.mark.parametrize("layout", ["ids", "texts", "numbers", "nested"])
def test_layouts_give_the_same_groups(cli: Cli, tmp_path: Path, prompts: Path, layout: str) -> None:
    for number, place in enumerate(LAYOUTS[layout]):
        for k in range(2):
            picture(tmp_path / "x" / place.format(k), 10 * number + k)
    if layout == "nested":
        picture(tmp_path / "x/p0/grid.png", 99)
    call = ("import", tmp_path / "x", "--method", "theirs", "--prompts", prompts)
    done = cli(*call, "--out", tmp_path / "run", "--model", "M")
    assert done.code == 0, done.err
    assert "Imported 3 groups of 2" in done.err
    for number in range(3):
        for k in range(2):
            ours = np.asarray(Image.open(tmp_path / f"run/samples/theirs/p{number}/0/{k}.png"))
            place = LAYOUTS[layout][number].format(k)
            assert (ours == np.asarray(Image.open(tmp_path / "x" / place))).all()
    again = cli(*call, "--out", tmp_path / "run", "--model", "M")
    assert "Imported 0 groups of 2" in again.err
    assert "3 were there" in again.err


def test_imported_images_are_scored_and_compared_over_prompts(
    cli: Cli, tmp_path: Path, prompts: Path
) -> None:
    for name, offset in (("iid", 0), ("theirs", 100)):
        for number in range(3):
            for k in range(2):
                picture(tmp_path / name / f"p{number}" / f"{k}.png", offset + 10 * number + k)
        call = ("import", tmp_path / name, "--method", name, "--prompts", prompts)
        assert cli(*call, "--out", tmp_path / "run").code == 0
    scored = cli("score", tmp_path / "run", *SCORED)
    assert scored.code == 0, scored.err
    table = pd.read_csv(tmp_path / "run/scores.csv")
    assert set(table["prompt.category"].dropna()) == {"cloth", "shoe"}
    assert table.loc[table["metric"] == "seconds_per_image", "value"].isna().all()
    assert table["steps"].isna().all()
    done = cli("compare", tmp_path / "run", "--by", "category")
    assert done.code == 0, done.err
    assert "paired over prompts, not over noise" in done.err
    assert "category shoe: 1 prompt" in done.out
    assert "Category shoe: 1 prompt" in cli("compare", tmp_path / "run", "--by", "Category").out
    page = cli("report", tmp_path / "run")
    assert page.code == 0, page.err
    html = (tmp_path / "run/report.html").read_text()
    assert "were drawn elsewhere" in html
    assert "the same noise in the same column" not in html
    assert "from the same seeds" not in html
    assert "has no value" not in html
    assert "<td>nan" not in html.lower()
    planned = cli("power", tmp_path / "run")
    assert planned.code == 0, planned.err
    assert "same noise" not in planned.out


def test_what_is_not_known_of_imported_images_is_not_said(
    cli: Cli, tmp_path: Path, prompts: Path
) -> None:
    for method in ("a", "b"):
        by_folder(tmp_path / method, ["p0", "p1", "p2"])
        call = ("import", tmp_path / method, "--method", method, "--prompts", prompts)
        assert cli(*call, "--out", tmp_path / "run").code == 0
    scored = cli("score", tmp_path / "run", *SCORED)
    assert scored.code == 0, scored.err
    assert "better than iid" not in scored.out
    refused = cli("compare", tmp_path / "run")
    assert refused.code == 2
    assert "Give a run that has it" in " ".join(refused.err.split())
    call = ("run", "--prompts", prompts, "--method", "iid", "--particles", "2")
    refused = cli(*call, "--out", tmp_path / "run")
    assert refused.code == 2
    assert "images drawn elsewhere there" in " ".join(refused.err.split())
    assert "steps" not in refused.err


def test_a_run_of_ours_is_compared_with_imported_images(
    cli: Cli, tmp_path: Path, prompts: Path
) -> None:
    call = ("run", "--prompts", prompts, "--method", "iid", "--steps", "2", "--particles", "2")
    assert cli(*call, *SCORED, "--out", tmp_path / "ours").code == 0
    by_folder(tmp_path / "x", ["p0", "p1", "p2"])
    call = ("import", tmp_path / "x", "--method", "theirs", "--prompts", prompts)
    assert cli(*call, "--out", tmp_path / "run", "--model", "M").code == 0
    assert cli("score", tmp_path / "run", *SCORED).code == 0
    done = cli("compare", tmp_path / "ours", tmp_path / "run", "--format", "json")
    assert done.code == 0, done.err
    own = {row["method"] for row in json.loads(done.out)["differences"]}
    assert own == {"theirs"}
    assert "drawn elsewhere (M)" in done.err
    assert cli("report", tmp_path / "ours", tmp_path / "run").code == 0
    assert "Nan times" not in (tmp_path / "ours/report.html").read_text()


def test_a_table_names_files_methods_seeds_and_seconds(cli: Cli, tmp_path: Path) -> None:
    rows = [
        {
            "file": f"{method}-{text}-{seed}-{k}.png",
            "prompt": text,
            "method": method,
            "seed": seed,
            "seconds": 2 + k,
        }
        for method in ("iid", "b")
        for text in PROMPTS
        for seed in (0, 1)
        for k in range(2)
    ]
    for number, row in enumerate(rows):
        picture(tmp_path / str(row["file"]), number)
    with (tmp_path / "images.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    done = cli("import", tmp_path / "images.csv", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert "Imported 12 groups of 2" in done.err
    assert cli("score", tmp_path / "run", *SCORED).code == 0
    table = pd.read_csv(tmp_path / "run/scores.csv")
    assert (table.loc[table["metric"] == "seconds_per_image", "value"] == 2.5).all()


def test_genevals_folders_name_their_prompts(cli: Cli, tmp_path: Path) -> None:
    for number, text in enumerate(PROMPTS):
        folder = tmp_path / "x" / f"{number:05}"
        for k in range(2):
            picture(folder / "samples" / f"{k:04}.png", 10 * number + k)
        picture(folder / "grid.png", 99)
        (folder / "metadata.jsonl").write_text(json.dumps({"tag": "single", "prompt": text}))
    done = cli("import", tmp_path / "x", "--method", "m", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert "Imported 3 groups of 2" in done.err
    group = json.loads((tmp_path / "run/samples/m/00001/0/group.json").read_text())["group"]
    assert (group["prompt"], group["tags"]) == (PROMPTS[1], {"tag": "single"})


def test_a_file_that_names_no_prompt_is_told(cli: Cli, tmp_path: Path, prompts: Path) -> None:
    by_folder(tmp_path / "x", ["p0", "p1", "p2"])
    for place in ("p0", "p1"):
        (tmp_path / "x" / place / "metadata.jsonl").write_text("{")
    call = ("import", tmp_path / "x", "--method", "m", "--prompts", prompts, "--out")
    done = cli(*call, tmp_path / "run")
    assert done.code == 0, done.err
    told = " ".join(done.err.split())
    first = tmp_path / "x" / "p0" / "metadata.jsonl"
    assert f"2 files such as {first} with no prompt: taken from the folder's name" in told


def test_what_is_left_out_is_counted(cli: Cli, tmp_path: Path, prompts: Path) -> None:
    by_folder(tmp_path / "x", ["p0", "p1", "other"], 3)
    picture(tmp_path / "x/p1/4.png")
    (tmp_path / "x/notes.txt").touch()
    call = ("import", tmp_path / "x", "--method", "m", "--prompts", prompts, "--out")
    refused = cli(*call, tmp_path / "run")
    assert refused.code == 2
    assert "--particles 3" in refused.err
    assert not (tmp_path / "run").exists()
    done = cli(*call, tmp_path / "run", "--particles", "2")
    assert done.code == 0, done.err
    told = " ".join(done.err.split())
    assert "left out 3 pictures of no prompt: other" in told
    assert "left out 3 images beyond 2 of a prompt" in told
    assert "m has no image of 1 prompt: p2" in told
    assert "left out 1 file that" in told or "no pictures (.txt)" in told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "p1/0.png").write_bytes(b"no"), "cannot be read as an image"),
        (lambda root: picture(root / "p1/0.png", 0, 16), "images of one size"),
        (lambda root: [path.unlink() for path in root.rglob("*.png")], "found none"),
        (lambda root: root.rename(root.parent / "y"), "found nothing"),
        (lambda root: [(root / f"p{k}").rename(root / f"q{k}") for k in range(3)], "named after"),
    ],
)
def test_what_cannot_be_imported_is_refused_in_one_line(
    cli: Cli, tmp_path: Path, prompts: Path, change: Callable[[Path], object], message: str
) -> None:
    root = by_folder(tmp_path / "x", ["p0", "p1", "p2"])
    change(root)
    done = cli("import", root, "--method", "m", "--prompts", prompts, "--out", tmp_path / "run")
    assert done.code == 2
    assert sum(line.startswith("Error:") for line in done.err.splitlines()) == 1
    assert message in " ".join(done.err.split())


def test_other_images_of_a_method_are_refused(cli: Cli, tmp_path: Path, prompts: Path) -> None:
    call = ("--method", "m", "--prompts", prompts, "--out", tmp_path / "run")
    assert cli("import", by_folder(tmp_path / "x", ["p0"]), *call).code == 0
    picture(tmp_path / "x/p0/0.png", 77)
    done = cli("import", tmp_path / "x", *call)
    assert done.code == 2
    assert "holds other images of m" in " ".join(done.err.split())


def prompt_of(folder: Path) -> dict[str, list[int]]:
    """The prompts of a run folder, each with the sizes of its groups."""
    found: dict[str, list[int]] = {}
    for path in sorted((folder / "samples").rglob("group.json")):
        group = json.loads(path.read_text())["group"]
        found.setdefault(group["prompt"], []).append(group["particles"])
    return found


def same(path: Path, other: Path) -> bool:
    return bool((np.asarray(Image.open(path)) == np.asarray(Image.open(other))).all())


def table(path: Path, rows: Iterable[dict[str, object]]) -> Path:
    pd.DataFrame(list(rows)).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    "texts", [["红色的帽子", "一只狐狸"], ["a cat", "a cat!"], ["C", "C++"], ["!!!", "???"]]
)
@pytest.mark.parametrize("layout", ["table", "folders"])
def test_prompts_that_look_alike_stay_apart(
    cli: Cli, tmp_path: Path, texts: list[str], layout: str
) -> None:
    by_folder(tmp_path / "x", texts)
    rows = [{"file": f"x/{own}/{k}.png", "prompt": own} for own in texts for k in range(2)]
    path = table(tmp_path / "images.csv", rows)
    call = (path,) if layout == "table" else (tmp_path / "x", "--prompts", path)
    done = cli("import", *call, "--method", "m", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert prompt_of(tmp_path / "run") == {own: [2] for own in texts}


def test_the_same_text_with_two_negative_prompts_is_two_prompts(cli: Cli, tmp_path: Path) -> None:
    rows = [
        {
            "file": picture(tmp_path / f"{own}{k}.png", k + 10 * (own == "b")).name,
            "prompt": "a cat",
            "negative_prompt": own,
        }
        for own in ("a", "b")
        for k in range(2)
    ]
    call = (table(tmp_path / "images.csv", rows), "--method", "m", "--out", tmp_path / "run")
    assert cli("import", *call).code == 0
    assert prompt_of(tmp_path / "run") == {"a cat": [2, 2]}


def test_the_first_images_are_the_first_by_number(cli: Cli, tmp_path: Path, prompts: Path) -> None:
    for number in range(3):
        for k in range(1, 13):
            picture(tmp_path / "x" / f"p{number}_{k}.png", 100 * number + k)
    call = (tmp_path / "x", "--method", "m", "--prompts", prompts, "--out", tmp_path / "run")
    assert cli("import", *call, "--particles", "2").code == 0
    assert same(tmp_path / "run/samples/m/p0/0/1.png", tmp_path / "x/p0_2.png")


@pytest.mark.parametrize(
    ("content", "names", "message"),
    [
        ("a\nb\nc\n", ["1", "2", "3"], "numbers from 0 to 2, got numbers from 1 to 3"),
        ("a\na\nb\n", ["0", "1", "2"], "some entries are left out"),
        ("a\nb\n", ["0", "1", "2"], "numbers from 0 to 1, got numbers from 0 to 2"),
    ],
)
def test_numbers_that_may_be_of_other_prompts_are_refused(
    cli: Cli, tmp_path: Path, content: str, names: list[str], message: str
) -> None:
    by_folder(tmp_path / "x", names)
    (tmp_path / "p.txt").write_text(content)
    call = (tmp_path / "x", "--method", "m", "--prompts", tmp_path / "p.txt")
    done = cli("import", *call, "--out", tmp_path / "run")
    assert done.code == 2
    assert message in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("ids", "files"),
    [
        (["1", "2"], ["00001/0.png", "00002/0.png"]),
        (["p_1", "p_2"], ["p_1.png", "p_2.png"]),
        (["p_1", "p_2"], ["p_1_0.png", "p_2_0.png"]),
    ],
)
def test_ids_with_numbers_are_found(
    cli: Cli, tmp_path: Path, ids: list[str], files: list[str]
) -> None:
    path = table(tmp_path / "p.csv", [{"id": own, "prompt": f"a {own}"} for own in ids])
    for k, own in enumerate(files):
        picture(tmp_path / "x" / own, k)
    call = (tmp_path / "x", "--method", "m", "--prompts", path, "--out", tmp_path / "run")
    done = cli("import", *call)
    assert done.code == 0, done.err
    assert same(tmp_path / f"run/samples/m/{ids[1]}/0/0.png", tmp_path / "x" / files[1])


def test_folders_that_are_linked_are_read(cli: Cli, tmp_path: Path, prompts: Path) -> None:
    by_folder(tmp_path / "there", ["p0", "p1", "p2"])
    (tmp_path / "x").mkdir()
    for own in ("p0", "p1", "p2"):
        (tmp_path / "x" / own).symlink_to(tmp_path / "there" / own)
    (tmp_path / "there/p0/circle").symlink_to(tmp_path / "x")
    (tmp_path / "there/p0/gone.png").symlink_to(tmp_path / "nothing.png")
    call = (tmp_path / "x", "--method", "m", "--prompts", prompts, "--out", tmp_path / "run")
    done = cli("import", *call)
    assert done.code == 0, done.err
    assert "Imported 3 groups of 2" in done.err
    assert "1 file that" in done.err


@pytest.mark.parametrize("seeds", ["of a method", "of an image", "as 0.0", "missing"])
def test_seeds_of_a_table_make_whole_groups(cli: Cli, tmp_path: Path, seeds: str) -> None:
    rows = [
        {
            "file": picture(tmp_path / f"{method}{number}{k}.png", k + 10 * number).name,
            "prompt": text,
            "method": method,
            "seed": {
                "of a method": 5 * (method == "b"),
                "of an image": 2**53 + 4 * number + k,
                "as 0.0": 0.0,
                "missing": None,
            }[seeds],
            "seconds": None,
        }
        for method in ("a", "b")
        for number, text in enumerate(PROMPTS)
        for k in range(2)
    ]
    path = tmp_path / "images.parquet"
    pd.DataFrame(rows).to_parquet(path)
    done = cli("import", path, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert "Imported 6 groups of 2" in done.err
    assert ("each image has a seed of its own" in " ".join(done.err.split())) == (
        seeds == "of an image"
    )
    plan = json.loads((tmp_path / "run/planned.json").read_text())
    assert {(*own["labels"], len(own["prompts"]), own["seeds"]) for own in plan} == {
        ("a", 3, 1),
        ("b", 3, 1),
    }


def test_rows_of_a_table_keep_ids_and_may_not_count_twice(cli: Cli, tmp_path: Path) -> None:
    for k in range(2):
        picture(tmp_path / f"x/{k}.png", k)
    rows = [{"file": f"x\\{k}.png", "prompt": "a cat", "prompt_id": "c1"} for k in (0, 1, 1)]
    call = (table(tmp_path / "i.csv", rows), "--method", " m ", "--out", tmp_path / "run")
    done = cli("import", *call)
    assert done.code == 0, done.err
    assert "left out 1 row of a picture that stands twice" in done.err
    assert prompt_of(tmp_path / "run") == {"a cat": [2]}
    assert (tmp_path / "run/samples/m/c1/0/1.png").exists()
