"""Options of ``mmfusion push``."""

from dataclasses import dataclass


@dataclass
class PushConfig:
    """Options of ``mmfusion push``.

    Attributes:
        model: Folder of a saved model, or a run folder.
        repo: ``org/name`` on the Hub; created if it does not exist.
        private: Whether a new repository is private; existing ones are not changed.
        revision: Existing branch to push to; null uses the default branch.
        overwrite_card: Also replace a README.md there that mmfusion did not write.
        message: Commit message.
        force: Push although the model's texts contain possible names, dates, ids, paths or keys; the card records it.
        dry_run: List the files with their sizes, the license and the card, without uploading.
    """

    model: str
    repo: str
    private: bool = True
    revision: str | None = None
    overwrite_card: bool = False
    message: str = "Upload model with mmfusion"
    force: bool = False
    dry_run: bool = False
