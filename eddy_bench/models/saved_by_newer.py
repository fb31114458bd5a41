"""Folders that a newer transformers saved, under an older one.

Version 5 writes `tokenizer.json` alone; the classes that it names read other files in version 4,
where those of the same name with `Fast` at the end read this one. Later releases of version 5 also
write the weights of CLIP's text encoder without the prefix `text_model.`, and earlier ones would
leave them at random values without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import safe_open

from eddy_bench.storage.files import parse_json
from eddy_bench.storage.paths import read_many

PREFIX = "text_model."


def load_across_versions(load: Callable[..., Any], folder: Path, variant: str | None) -> Any:
    """Return a pipeline with what the installed transformers leaves out of it.

    Args:
        load: from components that it shall not load, as None, to the pipeline.
        folder: of the pipeline; that of a hub id does not exist.
        variant: of the weights.

    """
    fast = fast_tokenizers(folder)
    pipe = load(**dict.fromkeys(fast))
    read_unprefixed_weights(pipe, variant)
    # made anew, since a pipeline takes lengths and the like from its tokenizers
    return type(pipe).from_pipe(pipe, **fast, torch_dtype=None) if fast else pipe


def fast_tokenizers(folder: Path) -> dict[str, Any]:
    """Return the tokenizers that the classes named by a pipeline's folder cannot read, by name.

    None with transformers 5, for a folder that has the files of both, and for a hub id.
    """
    if not folder.exists():
        return {}
    index = parse_json(read_many([folder / "model_index.json"])[0])
    return {
        name: reader.from_pretrained(folder / name)
        for name, entry in index.items()
        if isinstance(entry, list) and entry[0] == "transformers"
        if (reader := _fast_reader(entry[1], folder / name)) is not None
    }


def _fast_reader(name: str, folder: Path) -> Any:
    """Return the class that reads `tokenizer.json` where the named one cannot, or None."""
    import transformers

    fast = getattr(transformers, f"{name}Fast", None)
    if fast is None or not (folder / "tokenizer.json").is_file():
        return None
    if issubclass(getattr(transformers, name), transformers.PreTrainedTokenizerFast):
        return None
    own = [file for key, file in fast.vocab_files_names.items() if key != "tokenizer_file"]
    return None if all((folder / file).is_file() for file in own) else fast


def read_unprefixed_weights(pipe: Any, variant: str | None) -> None:
    """Read the weights of text encoders that were saved without the prefix of their names."""
    import transformers

    for part in pipe.components.values():
        if isinstance(part, transformers.PreTrainedModel):
            names = f"*.{variant}*.safetensors" if variant else "*.safetensors"
            for file in sorted(Path(part.name_or_path).glob(names)):
                _read_unprefixed(part, file)


def _read_unprefixed(part: Any, file: Path) -> None:
    own = part.state_dict().keys()
    with safe_open(file, "pt") as tensors:
        unread = {
            name: tensors.get_tensor(key)
            for key in tensors.keys()  # noqa: SIM118 it is no mapping
            if key not in own and (name := f"{PREFIX}{key}") in own
        }
    if unread:
        part.load_state_dict(unread, strict=False)
