"""Options of an audit. Imports no heavy library."""

from dataclasses import dataclass, field

from mmfusion.data.config import DatasetConfig
from mmfusion.data.memory import as_setting

SPLITS = ("auto", "drawn", "random")


@dataclass
class AuditConfig:
    """Options of an audit.

    Attributes:
        data: Root folder of the data set, or its table.
        output: Folder for ``audit.md`` and ``audit.json``; None writes nothing.
        split: Split to check: ``auto`` uses that of the data, else the one that a run would draw; ``drawn`` always the
            latter; ``random`` splits rows at random, to show the effect.
        seed: Seed of a drawn split, as ``seed`` of a run.
        synonyms: JSON file that maps labels to additional words that reveal them, besides the built-in ones (``mel``:
            melanoma).
        label_errors: Trained model (``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``) whose features are used to
            find wrong labels; None skips this check.
        feature_cache: Folder to store these features for the next audit; None disables it.
        dataset: How to read the data.

    Raises:
        ValueError: An unknown ``split``.
    """

    data: str
    output: str | None = "audit"
    split: str = "auto"
    seed: int = 0
    synonyms: str | None = None
    label_errors: str | None = None
    feature_cache: str | None = None
    dataset: DatasetConfig = field(default_factory=DatasetConfig)

    def __post_init__(self) -> None:
        self.data = as_setting(self.data)
        if self.split not in SPLITS:
            raise ValueError(f"Unknown split {self.split!r}; the audit supports {', '.join(SPLITS)}.")
