"""What a prompt set says of its prompts reaches the images, the records and the scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from tests.conftest import Result
from tests.makers.pipelines import tiny_folder

Cli = Callable[..., Result]
SHORT = ("--method", "iid", "--steps", "2", "--particles", "2", "--metric", "vendi[pixels]")


def draw(cli: Cli, folder: Path, prompts: str, *more: str, model: Path | str = "fashion") -> Result:
    path = folder.with_suffix(".csv")
    path.write_text(prompts)
    call = ("run", "--model", model, "--prompts", path, *SHORT, "--out", folder)
    done = cli(*call, *more)
    assert done.code == 0, done.err
    return done


def images(folder: Path, prompt: str) -> list[bytes]:
    files = sorted((folder / "samples/iid" / prompt / "0").glob("*.png"))
    return [path.read_bytes() for path in files]


def test_a_prompts_own_negative_prompt_is_that_of_a_run_and_changes_no_other(
    cli: Cli, tmp_path: Path
) -> None:
    model, head = tiny_folder(), "id,prompt,negative_prompt\n"
    both = head + "a,a dress,\nb,a coat,dark\nc,a boot,\n"
    draw(cli, tmp_path / "mixed", both, model=model)
    draw(cli, tmp_path / "plain", head + "a,a dress,\nb,a coat,\nc,a boot,\n", model=model)
    suite = ("--negative-prompt", "dark")
    draw(cli, tmp_path / "dark", head + "a,a dress,\nb,a coat,\n", *suite, model=model)
    for prompt in ("a", "c"):
        assert images(tmp_path / "mixed", prompt) == images(tmp_path / "plain", prompt)
    assert images(tmp_path / "mixed", "b") == images(tmp_path / "dark", "b")
    assert images(tmp_path / "mixed", "b") != images(tmp_path / "plain", "b")
    record = json.loads((tmp_path / "mixed/samples/iid/b/0/group.json").read_text())["group"]
    assert record["negative"] == "dark"


def test_tags_are_in_records_and_scores_and_follow_the_file(cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    told = draw(cli, run, "id,caption,kind,n\na,a dress,long,1\nb,a coat,,2\nb2,a coat,x,3\n")
    assert "the prompts are its column 'caption'" in told.err
    assert "1 repeat left out" in told.err
    group = json.loads((run / "samples/iid/a/0/group.json").read_text())["group"]
    assert group["tags"] == {"kind": "long", "n": "1"}
    assert kinds(run) == {"a": "long", "b": ""}
    again = draw(cli, run, "id,caption,kind\na,a dress,short\nb,a coat,wide\n")
    assert "Nothing to draw: all 2 groups are finished" in again.err
    assert kinds(run) == {"a": "short", "b": "wide"}


def kinds(run: Path) -> dict[str, str]:
    table = pd.read_csv(run / "scores.csv", keep_default_na=False)
    own = table[table["prompt_id"] != ""].drop_duplicates("prompt_id")
    return dict(zip(own["prompt_id"], own["prompt.kind"], strict=True))
