"""The Hugging Face Hub: fetch a saved model, and push one. Only plain files travel: JSON, text and safetensors."""

import os
from pathlib import Path
from typing import Any

from mmfusion.artifacts.card import MARK, model_card
from mmfusion.artifacts.locating import saved_in
from mmfusion.artifacts.names import CARD, CONFIG, HUB, METRICS, WEIGHTS
from mmfusion.files import read_json
from mmfusion.repositories import LOG_IN, fetch_files, reason_of, status_of

#: a saved model's own files and its tokenizer's: what is fetched of a repository, and pushed of a folder. Neither
#: pickle nor code, and nothing else that lies beside them.
HUB_FILES = (
    *(CARD, CONFIG, METRICS, WEIGHTS, "added_tokens.json", "merges.txt", "special_tokens_map.json", "tokenizer.json"),
    *("tokenizer_config.json", "vocab.json", "vocab.txt"),
)


def fetch(name: str) -> Path:
    """The folder of a repository's saved model: from the cache where it is whole there, else fetched.

    A file appears in the cache when it is whole; a download that broke off goes on the next time.

    Args:
        name: ``hf-hub:org/name``, with an optional ``@revision`` (branch, tag or commit).

    Raises:
        FileNotFoundError: no such repository or revision, no access to it, or no network and nothing in the cache; the
            message says which, and what to do.
    """
    return fetch_files(name, HUB_FILES)


def contents(folder: str | os.PathLike[str], repo_id: str) -> dict[str, Path | bytes]:
    """What is pushed of a saved model, by name in the repository: files, and the card as it will read there.

    Raises:
        FileNotFoundError: the folder holds no saved model.
    """
    root = saved_in(folder)
    found: dict[str, Path | bytes] = {name: root / name for name in sorted(HUB_FILES) if (root / name).is_file()}
    if WEIGHTS not in found:
        raise FileNotFoundError(f"{root} is not a saved model: it has no {WEIGHTS}.")
    if CARD in found and MARK in (root / CARD).read_text(encoding="utf-8"):
        # the saved model's card, with the name that it has on the Hub
        metrics = read_json(root / METRICS) if METRICS in found else None
        found[CARD] = model_card(read_json(root / CONFIG), metrics, f"{HUB}{repo_id}").encode()
    return found


def push_to_hub(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool = True,
    revision: str | None = None,
    overwrite_card: bool = False,
    message: str = "Upload model with mmfusion",
) -> str:
    """Push a saved model to the Hub, in one commit. Its card, where mmfusion wrote it, loads the model from there.

    Args:
        folder: saved model; a run folder stands for its ``best``. Of what lies there, the saved model's files alone are
            pushed.
        repo_id: ``repo`` of :class:`~mmfusion.artifacts.config.PushConfig`, which has the other arguments too.

    Returns:
        Address of the commit.

    Raises:
        FileNotFoundError: the folder holds no saved model.
        PermissionError: no token, or one that may not write there.
        ValueError: the Hub refused; the message says why.
        ConnectionError: it cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    files = contents(folder, repo_id)
    if get_token() is None:
        raise PermissionError(f"{repo_id}: there is no token to push with; {LOG_IN}.")
    api = HfApi()
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if not overwrite_card and _has_card_of_another_hand(api, repo_id, revision):
            files.pop(CARD, None)
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=x) for name, x in files.items()]
        commit = api.create_commit(repo_id, operations, commit_message=message, revision=revision)
    except (HfHubHTTPError, HFValidationError) as error:
        kind = PermissionError if status_of(error) in (401, 403) else ValueError
        raise kind(f"{repo_id}: {reason_of(error, repo_id, revision or '')}") from error
    except Exception as error:  # whatever the client's HTTP library has for a network that is not there
        why = f"the Hub cannot be reached ({error}); push again where there is a network."
        raise ConnectionError(f"{repo_id}: {why}") from error
    return str(commit.commit_url)


def _has_card_of_another_hand(api: Any, repo_id: str, revision: str | None) -> bool:
    from huggingface_hub.errors import EntryNotFoundError

    try:
        path = api.hf_hub_download(repo_id, CARD, revision=revision)
    except EntryNotFoundError:
        return False
    return MARK not in Path(path).read_text(encoding="utf-8")
