"""Download of saved models from the Hugging Face Hub: JSON, text and safetensors files only."""

import warnings
from pathlib import Path

from mmfusion.artifacts.integrity import check_files, check_weights, listed
from mmfusion.artifacts.names import CARD, CONFIG, FILES, METRICS, READ, WEIGHTS
from mmfusion.repositories import answers, fetch_files
from mmfusion.untrusted import read_foreign_json

#: Files of a saved model and its tokenizer, the only ones downloaded from a repository or pushed from a folder; they
#: include no pickle and no code.
HUB_FILES = (CARD, FILES, METRICS, *READ)


def fetch(name: str) -> Path:
    """Return the folder of a repository's saved model, from the cache if complete, else after downloading it.

    Files appear in the cache only when complete; an interrupted download resumes. A corrupted file is downloaded once
    more, and a model that is complete in the cache is loaded even if the Hub is unavailable.

    Args:
        name: ``hf-hub:org/name``, with an optional ``@revision`` (branch, tag or commit).

    Raises:
        FileNotFoundError: The repository or revision does not exist or is inaccessible, or there is no network and
            nothing in the cache; the message gives the fix.
        ValueError: A file is damaged, in the repository or in the cache.
    """
    try:
        folder = fetch_files(name, HUB_FILES)
    except FileNotFoundError as error:
        cached = _whole_in_cache(name)
        if cached is None:
            raise
        warnings.warn(f"{error} Using the cached copy.", stacklevel=2)
        return cached
    try:
        _check_whole(folder)
        return folder
    except ValueError as error:
        if not answers():
            way = f"it is downloaded again when the Hub is reachable, or delete {folder}"
            raise ValueError(f"{error} This is a cached copy; {way}.") from None
    folder = fetch_files(name, HUB_FILES, again=True)
    _check_whole(folder)
    return folder


def _check_whole(folder: Path) -> None:
    """Raise ValueError for a file that was changed after saving; missing files are reported when loading."""
    there = [name for name in READ if (folder / name).is_file()]
    check_files(folder, *there)
    if CONFIG in there and WEIGHTS in there:
        check_weights(folder, read_foreign_json(folder / CONFIG))


def _whole_in_cache(name: str) -> Path | None:
    """The cached folder, if it has a complete saved model."""
    try:
        folder = fetch_files(name, HUB_FILES, cached=True)
        names = listed(folder) or (CONFIG, WEIGHTS)
        _check_whole(folder)
    except (FileNotFoundError, ValueError):
        return None
    return folder if all((folder / each).is_file() for each in names) else None
