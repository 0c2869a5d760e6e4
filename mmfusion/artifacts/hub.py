"""The Hugging Face Hub: fetch a saved model, and push one. Only plain files travel: JSON, text and safetensors."""

import os
from pathlib import Path
from typing import Any

from mmfusion.artifacts.card import MARK, model_card
from mmfusion.artifacts.names import CARD, CONFIG, HUB, METRICS, WEIGHTS
from mmfusion.files import read_json
from mmfusion.hub_cache import is_reachable

#: a saved model's own files and its tokenizer's: what is fetched of a repository, and pushed of a folder. Neither
#: pickle nor code, and nothing else that lies beside them.
HUB_FILES = (
    *(CARD, CONFIG, METRICS, WEIGHTS, "added_tokens.json", "merges.txt", "special_tokens_map.json", "tokenizer.json"),
    *("tokenizer_config.json", "vocab.json", "vocab.txt"),
)
LOG_IN = "log in with `hf auth login` and a token from the Hub's settings, or set HF_TOKEN"


def fetch(name: str) -> Path:
    """The folder of a repository's saved model: from the cache where it is whole there, else fetched.

    A file appears in the cache when it is whole; a download that broke off goes on the next time.

    Args:
        name: ``hf-hub:org/name``, with an optional ``@revision`` (branch, tag or commit).

    Raises:
        FileNotFoundError: no such repository or revision, no access to it, or no network and nothing in the cache; the
            message says which, and what to do.
    """
    from huggingface_hub import snapshot_download

    repository, _, revision = name.removeprefix(HUB).partition("@")
    try:
        folder = snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=list(HUB_FILES),
            local_files_only=not is_reachable(),
        )
    except Exception as error:  # the client has an exception for each of a dozen causes
        raise FileNotFoundError(f"{name!r}: {_reason(error, repository, revision)}") from error
    return Path(folder)


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
        folder: of :func:`~mmfusion.models.save_model`. Of what lies there, the saved model's files alone are pushed.
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

    root = Path(folder)
    names = sorted(name for name in HUB_FILES if (root / name).is_file())
    for needed in (CONFIG, WEIGHTS):
        if needed not in names:
            raise FileNotFoundError(f"{root} is not a saved model: it has no {needed}.")
    if get_token() is None:
        raise PermissionError(f"{repo_id}: there is no token to push with; {LOG_IN}.")
    api = HfApi()
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if not overwrite_card and _has_card_of_another_hand(api, repo_id, revision):
            names.remove(CARD)
        contents: dict[str, Path | bytes] = {name: root / name for name in names}
        if CARD in contents and MARK in (root / CARD).read_text(encoding="utf-8"):
            # the saved model's card, with the name that it has on the Hub
            metrics = read_json(root / METRICS) if METRICS in names else None
            contents[CARD] = model_card(read_json(root / CONFIG), metrics, f"{HUB}{repo_id}").encode()
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=x) for name, x in contents.items()]
        commit = api.create_commit(repo_id, operations, commit_message=message, revision=revision)
    except (HfHubHTTPError, HFValidationError) as error:
        kind = PermissionError if _status(error) in (401, 403) else ValueError
        raise kind(f"{repo_id}: {_reason(error, repo_id, revision or '')}") from error
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


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _reason(error: Exception, repository: str, revision: str) -> str:
    """One line: what is wrong, and what to do about it."""
    from huggingface_hub import errors

    reasons = {
        errors.HFValidationError: f"{repository!r} is no name of a repository; write org/name.",
        errors.GatedRepoError: f"the repository asks for its terms to be accepted on its page; do so, and {LOG_IN}.",
        errors.RevisionNotFoundError: f"the repository has no revision {revision!r}; leave it out, or name a branch, "
        "tag or commit that is there.",
        errors.RepositoryNotFoundError: f"there is no such repository, or it is private; check the name, or {LOG_IN}.",
    }
    if found := next((reason for kind, reason in reasons.items() if isinstance(error, kind)), None):
        return found
    if _status(error) in (401, 403):
        return f"the Hub refuses access ({_status(error)}); {LOG_IN} as one who may."
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
            return "it is not in the cache, and HF_HUB_OFFLINE is set; unset it once, where there is a network."
        return "it is not in the cache, and the Hub cannot be reached; connect once, or copy its folder (local-dir:)."
    first = str(error).strip().splitlines()[0] if str(error).strip() else ""
    return f"the Hub did not give it ({type(error).__name__}: {first}); try again."
