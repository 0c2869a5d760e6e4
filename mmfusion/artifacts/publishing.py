"""Upload of a saved model to the Hugging Face Hub in one commit, after checking its contents."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmfusion.artifacts.card import MARK, model_card
from mmfusion.artifacts.folder import read_config, read_metrics
from mmfusion.artifacts.hub import HUB_FILES
from mmfusion.artifacts.integrity import check_files, check_weights
from mmfusion.artifacts.locating import saved_in
from mmfusion.artifacts.names import CARD, HUB, READ, TOKENIZER, WEIGHTS
from mmfusion.artifacts.traces import Trace, let_through, refuse_traces, traces_in
from mmfusion.names import one_line
from mmfusion.repositories import LOG_IN, reason_of, status_of


def contents(
    folder: str | os.PathLike[str], repo_id: str, traces: list[Trace] | None = None
) -> dict[str, Path | bytes]:
    """Files to push, by name in the repository, including the card adapted to the Hub.

    Args:
        folder: The saved model.
        repo_id: ``org/name``, for the card.
        traces: Accepted findings, for the card.

    Raises:
        FileNotFoundError: The folder has no saved model, or a file is missing.
        ValueError: A file is damaged or edited, or is a link out of the folder.
    """
    root = saved_in(folder).resolve()
    names = [name for name in sorted(HUB_FILES) if (root / name).exists() or (root / name).is_symlink()]
    for name in names:
        _refuse_link(root, root / name)
    config = _checked(root)
    found: dict[str, Path | bytes] = {name: root / name for name in names}
    metrics = read_metrics(root)
    if CARD in found:
        try:
            text = (root / CARD).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"{root / CARD} is not UTF-8 text; rewrite or delete it.") from None
        about = let_through(config.get("card"), traces or [])
        if MARK in text:
            # the saved model's card, with its name on the Hub
            found[CARD] = model_card({**config, "card": about}, metrics, f"{HUB}{repo_id}").encode()
        elif traces:
            found[CARD] = f"{text.rstrip()}\n\nPublished with --force: {', '.join(about['let_through'])}.\n".encode()
    return found


def _refuse_link(root: Path, path: Path) -> None:
    """Reject a link out of a saved model's folder, except into the Hub's cache."""
    target, blobs = path.resolve(), root.parent.parent / "blobs"
    inside = target.is_relative_to(root) or (root.parent.name == "snapshots" and target.is_relative_to(blobs))
    if not inside or not target.is_file():
        raise ValueError(f"{path} is not a file of the folder (it leads to {target}); nothing else is pushed.")


def _checked(root: Path) -> Mapping[str, Any]:
    """The configuration of a saved model with valid files, checked without building it.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged or edited.
    """
    from safetensors import SafetensorError, safe_open

    config, weights = read_config(root), root / WEIGHTS
    if not weights.is_file():
        raise FileNotFoundError(f"{root} is not a saved model: it has no {WEIGHTS}.")
    try:
        with safe_open(weights, framework="numpy") as file:
            file.keys()
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{weights} is damaged ({one_line(error)}); save the model again.") from None
    check_weights(root, config)
    check_files(root, *READ)
    if (config.get("processor") or {}).get("tokenizer"):
        _check_tokenizer(root / TOKENIZER[3])
    return config


def _check_tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer

    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, but the model's processor needs it; save the model again.")
    try:
        Tokenizer.from_file(str(path))
    except Exception as error:  # Rust tokenizers raise plain Exception
        raise ValueError(f"{path} is damaged ({one_line(error)}); save the model again.") from None


def push_to_hub(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool = True,
    revision: str | None = None,
    overwrite_card: bool = False,
    message: str = "Upload model with mmfusion",
    force: bool = False,
) -> str:
    """Upload a saved model to the Hub in one commit. A card written by mmfusion is adapted to the repository.

    Before uploading, files are checked, and texts are searched for names, dates, ids, paths and keys.

    Args:
        folder: Saved model; for a run folder, its ``best``. Only files of the saved model are uploaded.
        repo_id: ``repo`` of :class:`~mmfusion.artifacts.config.PushConfig`, which describes the other arguments.

    Returns:
        URL of the commit.

    Raises:
        FileNotFoundError: The folder has no saved model.
        PermissionError: There is no token, or it lacks write access.
        ValueError: A file is damaged, edited or outside the folder; a text may contain personal data and ``force`` is
            not set; or the Hub rejected the upload.
        ConnectionError: The Hub cannot be reached.
        OSError: A local file cannot be read or written.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    traces = traces_in(saved_in(folder))
    files = contents(folder, repo_id, traces if force else None)
    refuse_traces(str(folder), traces, force)
    if get_token() is None:
        raise PermissionError(f"{repo_id}: there is no access token; {LOG_IN}.")
    operations = {name: CommitOperationAdd(path_in_repo=name, path_or_fileobj=x) for name, x in files.items()}
    api = HfApi()
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if not overwrite_card and _has_card_of_another_hand(api, repo_id, revision):
            operations.pop(CARD, None)
        commit = api.create_commit(repo_id, list(operations.values()), commit_message=message, revision=revision)
    except (HfHubHTTPError, HFValidationError) as error:
        kind = PermissionError if status_of(error) in (401, 403) else ValueError
        raise kind(f"{repo_id}: {reason_of(error, repo_id, revision or '')}") from error
    except Exception as error:  # any error of the client's HTTP library for a missing network
        if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
            raise OSError(f"{repo_id}: a file on this machine: {one_line(error)}.") from error
        why = f"the Hub cannot be reached ({one_line(error)}); push again with a network connection."
        raise ConnectionError(f"{repo_id}: {why}") from error
    return str(commit.commit_url)


def _has_card_of_another_hand(api: Any, repo_id: str, revision: str | None) -> bool:
    from huggingface_hub.errors import EntryNotFoundError

    try:
        path = api.hf_hub_download(repo_id, CARD, revision=revision)
    except EntryNotFoundError:
        return False
    return MARK not in Path(path).read_text(encoding="utf-8", errors="replace")
