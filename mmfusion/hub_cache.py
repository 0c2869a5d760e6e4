"""The Hugging Face Hub from this machine: what of it lies in the cache, and whether it can be reached."""

from pathlib import Path

#: seconds that one question to the Hub may take.
PATIENCE = 5.0


def cached_file(repository: str, *names: str, revision: str | None = None) -> Path | None:
    """The first of the named files that the cache has of a repository; None where it has none of them."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for name in names:
        try:
            found = try_to_load_from_cache(repository, name, revision=revision)
        except HFValidationError:  # no name of a repository: a folder, or a slip of the pen
            return None
        if isinstance(found, str):
            return Path(found)
    return None


def is_reachable() -> bool:
    """Whether the Hub answers. Its client would ask again and again for most of a minute; this asks once."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception:  # each HTTP library has its own; offline mode has another
        return False
    return True


def check_reachable(wanted: str) -> None:
    """Raise ConnectionError, naming what was wanted, where the Hub does not answer."""
    if not is_reachable():
        raise ConnectionError(f"{wanted} is not in the cache, and the Hub cannot be reached")
