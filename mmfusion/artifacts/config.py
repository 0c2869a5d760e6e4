"""Options of ``mmfusion push``."""

from dataclasses import dataclass


@dataclass
class PushConfig:
    """Options of push.

    Attributes:
        model: Folder of a saved model, or a run folder.
        repo: ``org/name`` on the Hub; made where there is none.
        private: Whether a new repository is private. One that exists stays what it is.
        revision: Branch to push to, which must exist; null takes the default one.
        overwrite_card: Also replace a README.md there that mmfusion did not write.
        message: Of the commit.
        force: Push although the model's texts hold what may be of a person or a machine (names, dates, ids, paths,
            keys); the card says so.
        dry_run: List the files with their sizes, the licence and the card, and send nothing.
    """

    model: str
    repo: str
    private: bool = True
    revision: str | None = None
    overwrite_card: bool = False
    message: str = "Upload model with mmfusion"
    force: bool = False
    dry_run: bool = False
